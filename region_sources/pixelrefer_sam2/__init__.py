"""SAM 2: an object's mask from a box or clicks, on a picture or through a video. Knows no backbone, no adapter."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from pixelrefer_plugin.authoring import hookimpl

if TYPE_CHECKING:
    from pixelrefer_plugin.authoring import RegionSourceSpec

PLUGIN_API = 1


@hookimpl
def register_region_sources(register: "Callable[[RegionSourceSpec], None]") -> None:
    from .source import SPEC

    register(SPEC)
