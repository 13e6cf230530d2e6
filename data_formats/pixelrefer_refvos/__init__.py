"""Ref-YouTube-VOS, MeViS and their like: masks for expressions about videos. Knows their files; knows no model."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from pixelrefer_plugin.authoring import hookimpl

if TYPE_CHECKING:
    from pixelrefer_plugin.authoring import DataFormatSpec

PLUGIN_API = 1


@hookimpl
def register_data_formats(register: "Callable[[DataFormatSpec], None]") -> None:
    from pixelrefer_plugin.authoring import DataFormatSpec

    from .config import RefVosConfig
    from .expressions import is_refvos, open_refvos
    from .tiny import tiny

    register(DataFormatSpec(name="refvos", config=RefVosConfig, recognises=is_refvos, open_file=open_refvos, tiny=tiny))
