"""How Qwen3.5 is read and fed, dense or a mixture of experts.

Its tower takes pictures packed, cell by cell, and gives patches back in that order. Features are normalised by the
merger's `norm`, as its projection reads them. Three of four layers of its decoder are linear attention (a gated delta
net), whose state takes the place of keys and values.
"""

import dataclasses

from transformers import Qwen3_5ForConditionalGeneration, Qwen3_5MoeForConditionalGeneration

from pixelrefer_plugin.authoring import BackboneSpec, Coordinates, PackedTower, Parts, PublishedModel

from .tiny import tiny, tiny_moe

TOWER = PackedTower(path="model.visual", norm="model.visual.merger.norm")
LAYER = r"model\.language_model\.layers\.\d+\."
ATTENTION = r"self_attn\.[qkvo]_proj|linear_attn\.(in_proj_(qkv|z|b|a)|out_proj)"


def published(*names: str) -> tuple[PublishedModel, ...]:
    """Models by their names, at whose end their size is. The later Qwen3.6 and Qwen3.8 are of the same classes."""
    return tuple(
        PublishedModel(id=f"Qwen/{name}", parameters=name.split("-", 1)[1], licence="Apache-2.0") for name in names
    )


SPEC = BackboneSpec(
    name="qwen3_5",
    model_types=("qwen3_5",),
    model_class=Qwen3_5ForConditionalGeneration,
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
        "decoder": rf"{LAYER}({ATTENTION}|mlp\.(gate|up|down)_proj)",
        "projector": r"model\.visual\.merger\.linear_fc[12]",
        "vision_tower": r"model\.visual\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.linear_fc[12])",
    },
    pointing="coordinates",
    coordinates=Coordinates(
        unit="thousandths",
        box='{{"bbox_2d": [{x0}, {y0}, {x1}, {y1}]}}',
        point='{{"point_2d": [{x}, {y}]}}',
        frame="at {time_s:.1f} seconds ",
        source="as Qwen3-VL's, arXiv:2511.21631; QwenLM/Qwen3.8-Flash-Next, issue 4, where its authors confirm it",
    ),
    models=published(
        *("Qwen3.5-0.8B", "Qwen3.5-2B", "Qwen3.5-4B", "Qwen3.5-9B", "Qwen3.5-27B"), "Qwen3.6-27B", "Qwen3.8-27B"
    ),
    tiny=tiny,
)

# The experts of a layer are one parameter of three dimensions, which LoRA's linear layers cannot wrap: of its decoder
# LoRA adapts both kinds of attention and the expert that all tokens share.
MOE_SPEC = dataclasses.replace(
    SPEC,
    name="qwen3_5_moe",
    model_types=("qwen3_5_moe",),
    model_class=Qwen3_5MoeForConditionalGeneration,
    lora_targets={
        **SPEC.lora_targets,
        "decoder": rf"{LAYER}({ATTENTION}|mlp\.shared_expert(\.(gate|up|down)_proj|_gate))",
    },
    models=published("Qwen3.5-35B-A3B", "Qwen3.5-122B-A10B", "Qwen3.5-397B-A17B"),
    tiny=tiny_moe,
)
