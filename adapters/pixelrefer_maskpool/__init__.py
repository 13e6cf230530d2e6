"""Mask-pooled object tokens, the baseline. Knows features and masks; knows nothing about any backbone."""

from collections.abc import Callable

from pixelrefer_plugin.authoring import AdapterSpec, hookimpl

PLUGIN_API = 1


@hookimpl
def register_adapters(register: Callable[[AdapterSpec], None]) -> None:
    from .config import MaskPoolConfig, MaskPoolPlanner
    from .module import MaskPool

    register(AdapterSpec(name="maskpool", config=MaskPoolConfig, planner=MaskPoolPlanner, module=MaskPool))
