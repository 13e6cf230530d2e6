"""How Qwen2.5-VL is read and fed.

Its tower takes any number of images of any size in one packed call, patches grouped by the 2x2 cells that the
merger joins, and reorders the cells by attention window. What it returns before the merger is in that order;
here both are undone. Features are normalised by the merger's `ln_q`, as its projection reads them.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from pixelrefer_plugin.authoring import (
    BackboneSpec,
    Coordinates,
    PackedTower,
    Parts,
    PublishedModel,
    cell_by_cell,
)

from .tiny import tiny


def order(vision: Any, grid_hw: tuple[int, int]) -> Tensor:
    """Which patch each row of the tower's output is: it is fed cell by cell and sorts the cells stably by window."""
    fed, w = cell_by_cell(vision, grid_hw), grid_hw[1]
    # A window is whole cells of patches.
    window = vision.window_size // vision.spatial_merge_size // vision.patch_size * vision.spatial_merge_size
    window_of_patch = fed // w // window * w + fed % w // window
    return fed[window_of_patch.argsort(stable=True)]


TOWER = PackedTower(path="model.visual", norm="model.visual.merger.ln_q", order=order)


def seen_hw(
    processor: Any, image_hw: tuple[int, int], num_frames: int | None, options: Mapping[str, Any]
) -> tuple[int, int]:
    """The size that an image or a frame is brought to, whose pixels the model's coordinates count."""
    size = options.get("size") or processor.size
    least = options.get("min_pixels") or size["shortest_edge"]
    most = options.get("max_pixels") or size["longest_edge"]
    high, wide = smart_resize(
        *image_hw, factor=processor.patch_size * processor.merge_size, min_pixels=least, max_pixels=most
    )
    return int(high), int(wide)


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
    crops=TOWER.crops,
    images=TOWER.images,
    videos=TOWER.videos,
    cells=TOWER.cells,
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
        source="Qwen2.5-VL technical report, arXiv:2502.13923, section 2.2.1",
    ),
    models=(PublishedModel(id="Qwen/Qwen2.5-VL-3B-Instruct", parameters="3B", licence="Qwen Research"),),
    tiny=tiny,
)
