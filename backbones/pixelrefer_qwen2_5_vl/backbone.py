"""How Qwen2.5-VL is read and fed.

Its tower takes any number of images of any size in one packed call, patches grouped by the 2x2 cells that the
merger joins, and reorders the cells by attention window. What it returns before the merger is in that order;
here both are undone. Features are normalised by the merger's `ln_q`, as its projection reads them.
"""

import torch
from einops import repeat
from transformers import Qwen2_5_VLForConditionalGeneration

from pixelrefer_plugin import BackboneSpec, FeatureGrids, PatchGeometry, VideoScene

from .tiny import tiny


def geometry(config):
    vision = config.vision_config
    return PatchGeometry(patch_size=vision.patch_size, grid_multiple=vision.spatial_merge_size)


def vision_width(config):
    return config.vision_config.hidden_size


def encode_crops(model, crops):
    """All crops in one packed tower call."""
    vision = model.config.vision_config
    patch = vision.patch_size
    grids_hw = tuple((crop.shape[1] // patch, crop.shape[2] // patch) for crop in crops)
    patches = [
        repeat(
            crop,
            "c (h mh ph) (w mw pw) -> (h w mh mw) (c t ph pw)",
            t=vision.temporal_patch_size,  # a still image is its frame, repeated
            mh=vision.spatial_merge_size,
            mw=vision.spatial_merge_size,
            ph=patch,
            pw=patch,
        )
        for crop in crops
    ]
    output = model.model.visual(
        torch.cat(patches), grid_thw=torch.tensor([(1, h, w) for h, w in grids_hw], device=crops[0].device)
    )
    return _raster_grids(model, output, grids_hw)


def scene_grids_hw(config, inputs):
    """The patch grids, before the merger."""
    return _grids_hw(inputs, "image_grid_thw")


def scene_grids(model, inputs, tower_output):
    return _raster_grids(model, tower_output, scene_grids_hw(model.config, inputs))


def video_grids_hw(config, inputs):
    """One grid for every two frames, which the tower takes together."""
    return _grids_hw(inputs, "video_grid_thw")


def video_grids(model, inputs, tower_output):
    return _raster_grids(model, tower_output, video_grids_hw(model.config, inputs))


def _grids_hw(inputs, name):
    if name not in inputs:
        return ()
    return tuple((h, w) for t, h, w in inputs[name].tolist() for _ in range(t))


def _raster_grids(model, tower_output, grids_hw):
    features = model.model.visual.merger.ln_q(tower_output.last_hidden_state)
    rows = _rows_in_raster_order(model.config.vision_config, grids_hw)
    return FeatureGrids(features[rows.to(features.device)], grids_hw)


def _rows_in_raster_order(vision, grids_hw):
    """For each patch, grid after grid in raster order, the row of the tower's output that holds it.

    Shape `(P,)`. The tower is fed cell by cell and sorts the cells stably by window.
    """
    rows, first = [], 0
    cells_per_window = vision.window_size // vision.spatial_merge_size // vision.patch_size
    window = cells_per_window * vision.spatial_merge_size  # in patches
    for h, w in grids_hw:
        i, j = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        fed = _cell_by_cell(i * w + j, vision.spatial_merge_size)
        window_of_patch = i // window * w + j // window
        tower_order = fed[window_of_patch.flatten()[fed].argsort(stable=True)]
        rows.append(first + tower_order.argsort())
        first += h * w
    return torch.cat(rows)


def _cell_by_cell(grid, merge):
    h, w = grid.shape
    return grid.view(h // merge, merge, w // merge, merge).transpose(1, 2).flatten()


SPEC = BackboneSpec(
    name="qwen2_5_vl",
    model_types=("qwen2_5_vl",),
    model_class=Qwen2_5_VLForConditionalGeneration,
    vision_tower="model.visual",
    projector="model.visual.merger",
    decoder="model.language_model",
    token_embedding="model.language_model.embed_tokens",
    geometry=geometry,
    vision_width=vision_width,
    encode_crops=encode_crops,
    scene_grids=scene_grids,
    scene_grids_hw=scene_grids_hw,
    lora_targets={
        "decoder": r"model\.language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)",
        "projector": r"model\.visual\.merger\.mlp\.[02]",
        "vision_tower": r"model\.visual\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(gate|up|down)_proj)",
    },
    tiny=tiny,
    video_scene=VideoScene(
        grids=video_grids,
        grids_hw=video_grids_hw,
        frames_per_grid=lambda config: config.vision_config.temporal_patch_size,
    ),
    merged_side=lambda config: config.vision_config.spatial_merge_size,
    projector_layers=("model.visual.merger.mlp.0", "model.visual.merger.mlp.2"),
)
