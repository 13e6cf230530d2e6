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
    PromptError,
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
