"""SAOT, the Scale-Adaptive Object Tokenizer of PixelRefer. Knows features, masks, positions; no backbone."""

from collections.abc import Callable

from pixelrefer_plugin.authoring import AdapterSpec, hookimpl

PLUGIN_API = 1


@hookimpl
def register_adapters(register: Callable[[AdapterSpec], None]) -> None:
    from .config import OFFICIAL, SaotConfig
    from .layouts import LAYOUTS
    from .module import Saot
    from .plan import SaotPlanner

    register(
        AdapterSpec(
            name="saot",
            config=SaotConfig,
            planner=SaotPlanner,
            module=Saot,
            presets={"official": OFFICIAL},
            layouts=LAYOUTS,
        )
    )
