"""RoI-aligned feature replay: the decoder reads a region's part of the scene again, at full resolution."""

from collections.abc import Callable

from pixelrefer_plugin.authoring import AdapterSpec, hookimpl

from .module import Replay
from .plan import ReplayConfig, ReplayPlanner

PLUGIN_API = 1


@hookimpl
def register_adapters(register: Callable[[AdapterSpec], None]) -> None:
    register(AdapterSpec(name="gar", config=ReplayConfig, planner=ReplayPlanner, module=Replay, scene="projected"))
