"""Qwen2-VL on transformers' native classes."""

from pixelrefer_plugin import hookimpl

from .backbone import SPEC


@hookimpl
def register_backbones(register):
    register(SPEC)
