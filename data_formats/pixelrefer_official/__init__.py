"""The training files of PixelRefer and of VideoRefer. Knows their JSON; knows no model."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from pixelrefer_plugin.authoring import hookimpl

if TYPE_CHECKING:
    from pixelrefer_plugin.authoring import DataFormatSpec

PLUGIN_API = 1


@hookimpl
def register_data_formats(register: "Callable[[DataFormatSpec], None]") -> None:
    from pixelrefer_plugin.authoring import DataFormatSpec

    from .config import OfficialConfig
    from .records import is_pixelrefer, is_videorefer, read_record
    from .tiny import tiny_pixelrefer, tiny_videorefer

    register(
        DataFormatSpec(
            name="pixelrefer",
            config=OfficialConfig,
            recognises=is_pixelrefer,
            read_record=read_record,
            tiny=tiny_pixelrefer,
        )
    )
    register(
        DataFormatSpec(
            name="videorefer",
            config=OfficialConfig,
            recognises=is_videorefer,
            read_record=read_record,
            tiny=tiny_videorefer,
        )
    )
