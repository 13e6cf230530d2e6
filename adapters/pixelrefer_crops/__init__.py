"""Regions as crops: each is shown enlarged, as a further picture of the conversation. Nothing is trained."""

from collections.abc import Callable

from pixelrefer_plugin.authoring import AdapterSpec, hookimpl

PLUGIN_API = 1


@hookimpl
def register_adapters(register: Callable[[AdapterSpec], None]) -> None:
    from .config import CropsConfig
    from .pointer import CropsPointer

    register(AdapterSpec(name="crops", config=CropsConfig, pointer=CropsPointer, tiny={"min_px": 32}))
