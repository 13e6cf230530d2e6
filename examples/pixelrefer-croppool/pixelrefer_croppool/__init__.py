"""Two object tokens per region, pooled from a crop around it."""

from pixelrefer_plugin import AdapterSpec, hookimpl

from .adapter import CropPool, CropPoolConfig, plan

PLUGIN_API = 1


@hookimpl
def register_adapters(register):
    register(AdapterSpec(name="croppool", config=CropPoolConfig, plan=plan, build=CropPool.build))
