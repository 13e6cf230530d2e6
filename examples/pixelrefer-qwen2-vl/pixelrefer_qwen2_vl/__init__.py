"""Qwen2-VL on transformers' native classes."""

from collections.abc import Callable

from pixelrefer_plugin.authoring import BackboneSpec, hookimpl

from .backbone import SPEC

PLUGIN_API = 1


@hookimpl
def register_backbones(register: Callable[[BackboneSpec], None]) -> None:
    register(SPEC)
