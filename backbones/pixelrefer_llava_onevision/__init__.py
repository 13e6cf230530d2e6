"""LLaVA-OneVision on transformers' native classes. Knows how its tower is fed; knows no adapter."""

from pixelrefer_plugin import hookimpl

PLUGIN_API = 1


@hookimpl
def register_backbones(register):
    from .backbone import SPEC

    register(SPEC)
