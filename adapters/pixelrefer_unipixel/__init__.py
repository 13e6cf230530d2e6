"""UniPixel: clicks, boxes and masks in, words and masks out, on SAM 2.1. Knows features and masks; no backbone."""

from pixelrefer_plugin import hookimpl

PLUGIN_API = 1


@hookimpl
def register_adapters(register):
    from pixelrefer_plugin import AdapterSpec, MaskHeadSpec

    from .config import UniPixelConfig
    from .module import UniPixel
    from .plan import plan, plan_drawn
    from .recipes import RECIPES

    register(
        AdapterSpec(
            name="unipixel",
            config=UniPixelConfig,
            plan=plan,
            build=UniPixel.build,
            plan_drawn=plan_drawn,
            reads_merged=True,
            mask_head=MaskHeadSpec(
                token="<seg>",
                picture_px=lambda config: config.picture_px,
                max_objects=lambda config: config.max_objects,
            ),
            recipes=RECIPES,
            tiny={"sam2": "micro", "sam2_checkpoint": None, "picture_px": 64},
        )
    )
