"""Mask-pooled object tokens, the baseline. Knows features and masks; knows nothing about any backbone."""

from pixelrefer_plugin import hookimpl

PLUGIN_API = 1


@hookimpl
def register_adapters(register):
    from pixelrefer_plugin import AdapterSpec

    from .config import MaskPoolConfig, plan
    from .module import MaskPool

    register(AdapterSpec(name="maskpool", config=MaskPoolConfig, plan=plan, build=MaskPool.build))
