"""Qwen2-VL on transformers' native classes."""

from pixelrefer_plugin import hookimpl

from .backbone import SPEC

PLUGIN_API = 1


@hookimpl
def register_backbones(register):
    register(SPEC)
