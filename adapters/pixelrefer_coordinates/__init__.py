"""Regions as coordinates in the text, for models that were trained to read them. Nothing is trained."""

from collections.abc import Callable

from pixelrefer_plugin.authoring import AdapterSpec, hookimpl

PLUGIN_API = 1


@hookimpl
def register_adapters(register: Callable[[AdapterSpec], None]) -> None:
    from .config import CoordinatesConfig
    from .pointer import CoordinatesPointer

    register(AdapterSpec(name="coordinates", config=CoordinatesConfig, pointer=CoordinatesPointer))
