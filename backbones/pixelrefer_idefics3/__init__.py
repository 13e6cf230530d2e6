"""Idefics3, SmolVLM and SmolVLM2 on transformers' native classes. Knows how their tower is fed; knows no adapter."""

from collections.abc import Callable

from pixelrefer_plugin.authoring import BackboneSpec, hookimpl

PLUGIN_API = 1


@hookimpl
def register_backbones(register: Callable[[BackboneSpec], None]) -> None:
    from .backbone import IDEFICS3, SMOLVLM

    register(IDEFICS3)
    register(SMOLVLM)
