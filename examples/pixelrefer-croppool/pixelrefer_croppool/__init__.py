"""Two object tokens per region, pooled from a crop around it."""

from collections.abc import Callable

from pixelrefer_plugin.authoring import AdapterSpec, hookimpl

from .adapter import CropPool, CropPoolConfig, CropPoolPlanner

PLUGIN_API = 1


@hookimpl
def register_adapters(register: Callable[[AdapterSpec], None]) -> None:
    register(AdapterSpec(name="croppool", config=CropPoolConfig, planner=CropPoolPlanner, module=CropPool))
