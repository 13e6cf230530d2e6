"""How Qwen3-VL is read and fed, dense or a mixture of experts.

Its tower takes pictures packed, cell by cell, and gives patches back in that order. Features are normalised by the
merger's `norm`, as its projection reads them. What the tower's earlier layers see (deepstack) is added to the decoder's
first layers, at the scene's tokens alone: object tokens stand at other places and get none of it.
"""

import dataclasses

from transformers import Qwen3VLForConditionalGeneration, Qwen3VLMoeForConditionalGeneration

from pixelrefer_plugin.authoring import BackboneSpec, Coordinates, PackedTower, Parts, PublishedModel

from .tiny import tiny, tiny_moe

TOWER = PackedTower(path="model.visual", norm="model.visual.merger.norm")


def published(*sizes: str) -> tuple[PublishedModel, ...]:
    """The instructed models of these sizes; those that think first are as large."""
    return tuple(
        PublishedModel(id=f"Qwen/Qwen3-VL-{size}-Instruct", parameters=size, licence="Apache-2.0") for size in sizes
    )


SPEC = BackboneSpec(
    name="qwen3_vl",
    model_types=("qwen3_vl",),
    model_class=Qwen3VLForConditionalGeneration,
    parts=Parts(
        vision_tower="model.visual",
        projector="model.visual.merger",
        decoder="model.language_model",
        token_embedding="model.language_model.embed_tokens",
        projector_layers=("model.visual.merger.linear_fc1", "model.visual.merger.linear_fc2"),
    ),
    crops=TOWER.crops,
    images=TOWER.images,
    videos=dataclasses.replace(TOWER.videos, least_frames=2),  # two make a grid, and one alone is refused
    cells=TOWER.cells,
    lora_targets={
        "decoder": r"model\.language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)",
        "projector": r"model\.visual\.(merger|deepstack_merger_list\.\d+)\.linear_fc[12]",
        "vision_tower": r"model\.visual\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.linear_fc[12])",
    },
    pointing="coordinates",
    coordinates=Coordinates(
        unit="thousandths",
        box='{{"bbox_2d": [{x0}, {y0}, {x1}, {y1}]}}',
        point='{{"point_2d": [{x}, {y}]}}',
        frame="at {time_s:.1f} seconds ",
        source="Qwen3-VL technical report, arXiv:2511.21631; QwenLM/Qwen3-VL:cookbooks/2d_grounding.ipynb",
    ),
    models=published("2B", "4B", "8B", "32B"),
    tiny=tiny,
)

# The experts of a layer are one parameter of three dimensions, which LoRA's linear layers cannot wrap: of its decoder
# LoRA adapts attention, and the MLP of such layers as are dense.
MOE_SPEC = dataclasses.replace(
    SPEC,
    name="qwen3_vl_moe",
    model_types=("qwen3_vl_moe",),
    model_class=Qwen3VLMoeForConditionalGeneration,
    models=published("30B-A3B", "235B-A22B"),
    tiny=tiny_moe,
)
