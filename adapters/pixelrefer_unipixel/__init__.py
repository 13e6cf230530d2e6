"""UniPixel: clicks, boxes and masks in, words and masks out, on SAM 2.1. Knows features and masks; no backbone."""

from collections.abc import Callable

from pixelrefer_plugin.authoring import AdapterSpec, Masks, hookimpl

PLUGIN_API = 1


@hookimpl
def register_adapters(register: Callable[[AdapterSpec], None]) -> None:
    from .config import UniPixelConfig
    from .module import UniPixel
    from .plan import UniPixelPlanner
    from .recipes import RECIPES

    register(
        AdapterSpec(
            name="unipixel",
            config=UniPixelConfig,
            planner=UniPixelPlanner,
            module=UniPixel,
            scene="cells",
            drawn=("points", "box"),
            masks=Masks(
                token="<seg>",
                picture_px=lambda config: config.picture_px,
                max_objects=lambda config: config.max_objects,
                localize="{} Please localize the relevant objects with IDs.",  # as the official code does
            ),
            recipes=RECIPES,
            tiny={"sam2": "micro", "sam2_checkpoint": None, "picture_px": 64},
        )
    )
