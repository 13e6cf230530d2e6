"""Osprey-724K. Knows its JSON; knows no model."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from pixelrefer_plugin.authoring import hookimpl

if TYPE_CHECKING:
    from pixelrefer_plugin.authoring import DataFormatSpec

PLUGIN_API = 1


@hookimpl
def register_data_formats(register: "Callable[[DataFormatSpec], None]") -> None:
    from pixelrefer_plugin.authoring import DataFormatSpec

    from .config import OspreyConfig
    from .records import is_osprey, read_record
    from .tiny import tiny

    register(
        DataFormatSpec(name="osprey", config=OspreyConfig, recognises=is_osprey, read_record=read_record, tiny=tiny)
    )
