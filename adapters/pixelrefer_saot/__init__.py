"""SAOT, the Scale-Adaptive Object Tokenizer of PixelRefer. Knows features, masks, positions; no backbone."""

from pixelrefer_plugin import hookimpl

PLUGIN_API = 1


@hookimpl
def register_adapters(register):
    from pixelrefer_plugin import AdapterSpec

    from .config import OFFICIAL, SaotConfig
    from .module import Saot
    from .plan import plan

    register(AdapterSpec(name="saot", config=SaotConfig, plan=plan, build=Saot.build, presets={"official": OFFICIAL}))
