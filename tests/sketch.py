"""Adapters that read clicks and boxes as they were drawn, list masks as objects of the memory, and give masks.

They are for what a processor makes of them; none has a module. Three of a kind: `sketch` reads the scene's patches,
`sketch-merged` the grid of the decoder's scene tokens, `sketch-alone` is Object-Only.
"""

from dataclasses import dataclass
from importlib import metadata

import numpy as np

from pixelrefer_plugin import (
    AdapterSpec,
    CropView,
    MaskHeadSpec,
    PromptView,
    RegionPlan,
    RegionProcessor,
    SceneView,
    get_backbone,
    hookimpl,
    plugins,
)

PLUGIN_API = 1
TOKEN = "<|mask|>"


@dataclass(frozen=True)
class SketchConfig:
    picture_px: int = 16
    max_objects: int = 3
    crops: bool = False


def plan(config, mask, geometry):
    if config.crops:
        return crop_plan(config, mask, geometry)
    return RegionPlan(num_tokens=1, views=(SceneView(), PromptView()))


def plan_drawn(config, region):
    if region.kind not in ("points", "box"):
        return None
    num_tokens = len(region.data[0]) if region.kind == "points" else 1
    return RegionPlan(num_tokens=num_tokens, views=(SceneView(), PromptView()))


def crop_plan(config, mask, geometry):
    side = geometry.grid_multiple
    return RegionPlan(2, (CropView(mask.box_xyxy, (side, side), np.ones((side, side), np.float32)),))


HEAD = MaskHeadSpec(
    token=TOKEN,
    picture_px=lambda config: config.picture_px,
    max_objects=lambda config: config.max_objects,
)
SPECS = (
    AdapterSpec(
        name="sketch", config=SketchConfig, plan=plan, build=None, plan_drawn=plan_drawn, mask_head=HEAD
    ),
    AdapterSpec(
        name="sketch-merged",
        config=SketchConfig,
        plan=plan,
        build=None,
        plan_drawn=plan_drawn,
        reads_merged=True,
        mask_head=HEAD,
    ),
    AdapterSpec(
        name="sketch-alone",
        config=SketchConfig,
        plan=crop_plan,
        build=None,
        plan_drawn=lambda config, region: None,
        framework="object-only",
        mask_head=HEAD,
    ),
)  # fmt: skip


@hookimpl
def register_adapters(register):
    for spec in SPECS:
        register(spec)


def install(monkeypatch):
    """Installed, for the length of a test."""
    point = metadata.EntryPoint("sketch", __name__, plugins.GROUP)
    host = plugins.PluginHost([*metadata.entry_points(group=plugins.GROUP), point])
    monkeypatch.setattr(plugins, "host", lambda: host)


def make_processor(adapter="sketch", backbone="videollama3", **options):
    """The processor of one of them on a backbone's tiny model."""
    model, native = get_backbone(backbone).tiny(0)
    return RegionProcessor(native, model.config, adapter=adapter, **options)


def text_of(processor, ids):
    """Ids as text, `*` for each placeholder."""
    return processor.tokenizer.decode(ids).replace("<|region_pad|>", "*")
