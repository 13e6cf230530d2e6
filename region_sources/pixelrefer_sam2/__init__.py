"""SAM 2: an object's mask from a box or clicks, on a picture or through a video. Knows no backbone, no adapter."""

from pixelrefer_plugin import hookimpl


@hookimpl
def register_region_sources(register):
    from .source import SPEC

    register(SPEC)
