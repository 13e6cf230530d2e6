"""OCI, the Object-Centric Infusion of PixelRefer-Lite, on SAOT's tokens. Knows features and masks; no backbone."""

from collections.abc import Callable

from pixelrefer_plugin.authoring import AdapterSpec, hookimpl

PLUGIN_API = 1


@hookimpl
def register_adapters(register: Callable[[AdapterSpec], None]) -> None:
    from .config import OFFICIAL, OciConfig
    from .layouts import LAYOUTS
    from .module import Oci
    from .plan import OciPlanner

    register(
        AdapterSpec(
            name="oci",
            config=OciConfig,
            planner=OciPlanner,
            module=Oci,
            framework="object-only",
            presets={"official": OFFICIAL},
            layouts=LAYOUTS,
        )
    )
