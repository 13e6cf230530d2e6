"""How Qwen2-VL is read and fed.

Its tower takes images of any size in one packed call, patches grouped by the 2x2 cells that the merger joins.
What it returns before the merger is in that order; here it is undone. Features are normalised by the merger's
`ln_q`, as its projection reads them.
"""

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor
from transformers import Qwen2VLForConditionalGeneration

from pixelrefer_plugin.authoring import (
    BackboneSpec,
    Cells,
    Crops,
    FeatureGrids,
    GridsHw,
    NativeCall,
    Parts,
    PatchGeometry,
    Scene,
)

from .tiny import tiny


def geometry(config: Any) -> PatchGeometry:
    vision = config.vision_config
    return PatchGeometry(patch_size=vision.patch_size, grid_multiple=vision.spatial_merge_size)


def encode(model: Any, crops: list[Tensor]) -> FeatureGrids:
    vision = model.config.vision_config
    patch, merge = vision.patch_size, vision.spatial_merge_size
    grids_hw = tuple((crop.shape[1] // patch, crop.shape[2] // patch) for crop in crops)
    order = "c (h mh ph) (w mw pw) -> (h w mh mw) (c t ph pw)"  # a still image is its frame, repeated
    sides = {"mh": merge, "mw": merge, "ph": patch, "pw": patch}
    patches = [repeat(crop, order, t=vision.temporal_patch_size, **sides) for crop in crops]
    grid_thw = torch.tensor([(1, h, w) for h, w in grids_hw], device=crops[0].device)
    return raster_grids(model, model.model.visual(torch.cat(patches), grid_thw=grid_thw), grids_hw)


def grids_hw(call: NativeCall) -> GridsHw:
    return tuple((h, w) for _, h, w in call.inputs["image_grid_thw"].tolist())


def grids(call: NativeCall, outputs: Sequence[Any]) -> FeatureGrids:
    return raster_grids(call.model, outputs[0], grids_hw(call))


def raster_grids(model: Any, tower_output: Any, grids_hw: GridsHw) -> FeatureGrids:
    """The tower's patches, cell by cell, as grids in raster order."""
    merge = model.config.vision_config.spatial_merge_size
    features = model.model.visual.merger.ln_q(tower_output.last_hidden_state)
    grids = [
        rearrange(grid, "(h w mh mw) c -> (h mh w mw) c", h=h // merge, w=w // merge, mh=merge, mw=merge)
        for grid, (h, w) in zip(features.split([h * w for h, w in grids_hw]), grids_hw, strict=True)
    ]
    return FeatureGrids(torch.cat(grids), grids_hw)


SPEC = BackboneSpec(
    name="qwen2_vl",
    model_types=("qwen2_vl",),
    model_class=Qwen2VLForConditionalGeneration,
    parts=Parts(
        vision_tower="model.visual",
        projector="model.visual.merger",
        decoder="model.language_model",
        token_embedding="model.language_model.embed_tokens",
        projector_layers=("model.visual.merger.mlp.0", "model.visual.merger.mlp.2"),
    ),
    crops=Crops(geometry=geometry, width=lambda config: config.vision_config.embed_dim, encode=encode),
    images=Scene(grids_hw=grids_hw, grids=grids),
    cells=Cells(side=lambda config: config.vision_config.spatial_merge_size),
    lora_targets={
        "decoder": r"model\.language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)",
        "projector": r"model\.visual\.merger\.mlp\.[02]",
        "vision_tower": r"model\.visual\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.fc\d)",
    },
    tiny=tiny,
)
