"""Gemma 3 on transformers' native classes. Knows how its tower is fed; knows no adapter."""

from collections.abc import Callable

from pixelrefer_plugin.authoring import BackboneSpec, hookimpl

PLUGIN_API = 1


@hookimpl
def register_backbones(register: Callable[[BackboneSpec], None]) -> None:
    from .backbone import SPEC

    register(SPEC)
