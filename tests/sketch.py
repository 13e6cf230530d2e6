"""Adapters that read clicks and boxes as they were drawn, list masks as objects of the memory, and give masks.

They are for what a processor makes of them; none has a module. Three of a kind: `sketch` reads the scene's patches,
`sketch-merged` the grid of the decoder's scene tokens, `sketch-alone` is Object-Only.
"""

from dataclasses import dataclass

import numpy as np
from conftest import install_plugin

from pixelrefer_plugin import RegionProcessor, get_backbone
from pixelrefer_plugin.authoring import (
    AdapterModule,
    AdapterSpec,
    CropView,
    Masks,
    Planner,
    PromptView,
    RegionPlan,
    SceneView,
    hookimpl,
)

PLUGIN_API = 1

TOKEN = "<|mask|>"


@dataclass(frozen=True)
class SketchConfig:
    picture_px: int = 16
    max_objects: int = 3
    crops: bool = False


class Sketch(AdapterModule):
    def predict_masks(self, hidden, clips, clip_of_object):
        raise NotImplementedError

    def mask_losses(self, hidden, clips, clip_of_object, targets):
        raise NotImplementedError


class SketchPlanner(Planner[SketchConfig]):
    def plan(self, mask, geometry):
        if self.config.crops:
            return crop_plan(mask, geometry)
        return RegionPlan(num_tokens=1, views=(SceneView(), None))

    def plan_drawn(self, region):
        num_tokens = len(region.data[0]) if region.kind == "points" else 1
        return RegionPlan(num_tokens=num_tokens, views=(None, PromptView()))


class CropPlanner(Planner[SketchConfig]):
    def plan(self, mask, geometry):
        return crop_plan(mask, geometry)


def crop_plan(mask, geometry):
    side = geometry.grid_multiple
    return RegionPlan(2, (CropView(mask.box_xyxy, (side, side), np.ones((side, side), np.float32)),))


MASKS = Masks(
    token=TOKEN,
    picture_px=lambda config: config.picture_px,
    max_objects=lambda config: config.max_objects,
)
DRAWN = ("points", "box")
SPECS = (
    AdapterSpec(name="sketch", config=SketchConfig, planner=SketchPlanner, module=Sketch, drawn=DRAWN, masks=MASKS),
    AdapterSpec(
        name="sketch-merged",
        config=SketchConfig,
        planner=SketchPlanner,
        module=Sketch,
        scene="cells",
        drawn=DRAWN,
        masks=MASKS,
    ),
    AdapterSpec(
        name="sketch-alone",
        config=SketchConfig,
        planner=CropPlanner,
        module=Sketch,
        framework="object-only",
        masks=MASKS,
    ),
)


@hookimpl
def register_adapters(register):
    for spec in SPECS:
        register(spec)


def install(monkeypatch):
    """Installed, for the length of a test."""
    install_plugin(monkeypatch, "sketch", __name__)


def make_processor(adapter="sketch", backbone="videollama3", **options):
    """The processor of one of them on a backbone's tiny model."""
    model, native = get_backbone(backbone).tiny(0)
    return RegionProcessor(native, model.config, adapter=adapter, **options)


def text_of(processor, ids):
    """Ids as text, `*` for each placeholder."""
    return processor.tokenizer.decode(ids).replace("<|region_pad|>", "*")


def read_as(inputs):
    """How each region of a batch is read: `points` or `box` as it was drawn, or `mask`."""
    regions = inputs["regions"]
    scene, drawn = regions.views
    kinds = {} if drawn is None else dict(zip(drawn.prompts.regions, drawn.prompts.kinds, strict=True))
    kinds |= {} if scene is None else dict.fromkeys(scene.regions, "mask")
    return tuple(kinds[region] for region in range(len(regions.counts)))
