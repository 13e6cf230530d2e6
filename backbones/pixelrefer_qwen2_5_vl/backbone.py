"""How Qwen2.5-VL is read and fed.

Its tower takes any number of images of any size in one packed call, patches grouped by the 2x2 cells that the
merger joins, and reorders the cells by attention window. What it returns before the merger is in that order;
here both are undone. Features are normalised by the merger's `ln_q`, as its projection reads them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from einops import repeat
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from pixelrefer_plugin.authoring import (
    BackboneSpec,
    Cells,
    Coordinates,
    Crops,
    FeatureGrids,
    GridsHw,
    NativeCall,
    Parts,
    PatchGeometry,
    PromptError,
    PublishedModel,
    Scene,
)

from .tiny import tiny


def geometry(config: Any) -> PatchGeometry:
    vision = config.vision_config
    return PatchGeometry(patch_size=vision.patch_size, grid_multiple=vision.spatial_merge_size)


def width(config: Any) -> int:
    return int(config.vision_config.hidden_size)


def cell_side(config: Any) -> int:
    return int(config.vision_config.spatial_merge_size)


def encode(model: Any, crops: list[Tensor]) -> FeatureGrids:
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


def image_grids_hw(call: NativeCall) -> GridsHw:
    """The patch grids, before the merger."""
    return _grids_hw(call, "image_grid_thw")


def image_grids(call: NativeCall, outputs: Sequence[Any]) -> FeatureGrids:
    return _raster_grids(call.model, outputs[0], image_grids_hw(call))


def projected_images(call: NativeCall, outputs: Sequence[Tensor]) -> FeatureGrids:
    return _raster_cells(call.model, outputs[0], image_grids_hw(call))


def video_grids_hw(call: NativeCall) -> GridsHw:
    """One grid for every two frames, which the tower takes together."""
    return _grids_hw(call, "video_grid_thw")


def video_grids(call: NativeCall, outputs: Sequence[Any]) -> FeatureGrids:
    return _raster_grids(call.model, outputs[-1], video_grids_hw(call))


def projected_videos(call: NativeCall, outputs: Sequence[Tensor]) -> FeatureGrids:
    return _raster_cells(call.model, outputs[-1], video_grids_hw(call))


def frames_per_grid(config: Any) -> int:
    return int(config.vision_config.temporal_patch_size)


def _grids_hw(call: NativeCall, name: str) -> GridsHw:
    return tuple((h, w) for t, h, w in call.inputs[name].tolist() for _ in range(t))


def _raster_grids(model: Any, output: Any, grids_hw: GridsHw) -> FeatureGrids:
    features = model.model.visual.merger.ln_q(output.last_hidden_state)
    rows = _rows_in_raster_order(model.config.vision_config, grids_hw)
    return FeatureGrids(features[rows.to(features.device)], grids_hw)


def _raster_cells(model: Any, merged: Tensor, grids_hw: GridsHw) -> FeatureGrids:
    """What the merger returned, cells sorted by window, as grids of cells in raster order."""
    side = cell_side(model.config)
    rows = _rows_in_raster_order(model.config.vision_config, grids_hw).split([h * w for h, w in grids_hw])
    first_patches = [rows.view(hw)[::side, ::side].flatten() for rows, hw in zip(rows, grids_hw, strict=True)]
    cells = torch.cat(first_patches).to(merged.device) // side**2
    return FeatureGrids(merged[cells], tuple((h // side, w // side) for h, w in grids_hw))


def _rows_in_raster_order(vision: Any, grids_hw: GridsHw) -> Tensor:
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


def _cell_by_cell(grid: Tensor, merge: int) -> Tensor:
    h, w = grid.shape
    return grid.view(h // merge, merge, w // merge, merge).transpose(1, 2).flatten()


def seen_hw(
    processor: Any, image_hw: tuple[int, int], num_frames: int | None, options: Mapping[str, Any]
) -> tuple[int, int]:
    """The size that an image or a frame is brought to, whose pixels the model's coordinates count."""

    def setting(name: str) -> Any:
        return options[name] if options.get(name) is not None else getattr(processor, name)

    if not setting("do_resize"):
        return image_hw
    size = dict(setting("size"))
    size.update({edge: options[name] for name, edge in _AREAS.items() if options.get(name) is not None})
    least, most = size["shortest_edge"], size["longest_edge"]
    factor = setting("patch_size") * setting("merge_size")
    if num_frames is not None and setting("cap_pixels_per_frame"):
        # As `Qwen2VLVideoProcessor.resize`: frames share what fits into nine tenths of the context.
        share = int(processor.max_video_tokens * factor**2 * 0.9) * setting("temporal_patch_size") // num_frames
        most = max(min(most, share), int(least * 1.05))
    try:
        high, wide = smart_resize(*image_hw, factor=factor, min_pixels=least, max_pixels=most)
    except ValueError as error:  # no side may be 200 times as long as the other
        raise PromptError(f"The backbone's own processor refuses a picture of {image_hw}: {error}.") from error
    return int(high), int(wide)


_AREAS = {"min_pixels": "shortest_edge", "max_pixels": "longest_edge"}


SPEC = BackboneSpec(
    name="qwen2_5_vl",
    model_types=("qwen2_5_vl",),
    model_class=Qwen2_5_VLForConditionalGeneration,
    parts=Parts(
        vision_tower="model.visual",
        projector="model.visual.merger",
        decoder="model.language_model",
        token_embedding="model.language_model.embed_tokens",
        projector_layers=("model.visual.merger.mlp.0", "model.visual.merger.mlp.2"),
    ),
    crops=Crops(geometry=geometry, width=width, encode=encode),
    images=Scene(grids_hw=image_grids_hw, grids=image_grids, projected=projected_images),
    videos=Scene(
        grids_hw=video_grids_hw, grids=video_grids, projected=projected_videos, frames_per_grid=frames_per_grid
    ),
    cells=Cells(side=cell_side),
    lora_targets={
        "decoder": r"model\.language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)",
        "projector": r"model\.visual\.merger\.mlp\.[02]",
        "vision_tower": r"model\.visual\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(gate|up|down)_proj)",
    },
    pointing="coordinates",
    coordinates=Coordinates(
        unit="pixels",
        box='{{"bbox_2d": [{x0}, {y0}, {x1}, {y1}]}}',
        point='{{"point_2d": [{x}, {y}]}}',
        frame="at {time_s:.1f} seconds ",
        seen_hw=seen_hw,
        # Section 2.2.1 of the report; and the authors on the resized picture, on JSON, and on times.
        source="https://arxiv.org/abs/2502.13923, https://github.com/QwenLM/Qwen3-VL/issues/782, "
        "https://github.com/QwenLM/Qwen3-VL/issues/733, https://github.com/QwenLM/Qwen3-VL/issues/752",
    ),
    models=(
        PublishedModel(id="Qwen/Qwen2.5-VL-3B-Instruct", parameters="3B", licence="Qwen Research"),
        PublishedModel(id="Qwen/Qwen2.5-VL-7B-Instruct", parameters="7B", licence="Apache-2.0"),
        PublishedModel(id="Qwen/Qwen2.5-VL-32B-Instruct", parameters="32B", licence="Apache-2.0"),
        PublishedModel(id="Qwen/Qwen2.5-VL-72B-Instruct", parameters="72B", licence="Qwen"),
    ),
    tiny=tiny,
)
