"""A backbone of a family that docs/plugins.md names, as a stranger might write it: Qwen3-VL, which hands further layers
of its tower to the decoder."""

import torch
from conftest import install_plugin
from einops import rearrange, repeat
from transformers import (
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from pixelrefer_plugin.authoring import BackboneSpec, Cells, Crops, FeatureGrids, Parts, PatchGeometry, Scene, hookimpl
from pixelrefer_plugin.testing import CHATML_TEMPLATE, CHATML_TOKENS, tiny_tokenizer

PLUGIN_API = 1
HALF = [0.5] * 3


def vision_width(config):
    return config.vision_config.hidden_size


def grids_of(crops, patch):
    return tuple((crop.shape[1] // patch, crop.shape[2] // patch) for crop in crops)


def tiny_text(tokenizer):
    return {
        "vocab_size": len(tokenizer) + 16,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


# -- Qwen3-VL ----------------------------------------------------------------------------------------------


def qwen3_side(config):
    return config.vision_config.spatial_merge_size


def qwen3_geometry(config):
    return PatchGeometry(patch_size=config.vision_config.patch_size, grid_multiple=qwen3_side(config))


def qwen3_encode(model, crops):
    vision = model.config.vision_config
    grids_hw = grids_of(crops, vision.patch_size)
    order = "c (h mh ph) (w mw pw) -> (h w mh mw) (c t ph pw)"
    side, patch = vision.spatial_merge_size, vision.patch_size
    patches = [
        repeat(crop, order, t=vision.temporal_patch_size, mh=side, mw=side, ph=patch, pw=patch) for crop in crops
    ]
    output = model.model.visual(torch.cat(patches), grid_thw=torch.tensor([(1, h, w) for h, w in grids_hw]))
    return qwen3_patches(model, output, grids_hw)


def qwen3_patches(model, output, grids_hw):
    """The tower's patches, cell by cell, as grids in raster order, normalised as the projector reads them."""
    side = qwen3_side(model.config)
    features = model.model.visual.merger.norm(output.last_hidden_state).split([h * w for h, w in grids_hw])
    order = "(h w mh mw) c -> (h mh w mw) c"
    grids = [
        rearrange(grid, order, h=h // side, w=w // side, mh=side, mw=side)
        for grid, (h, w) in zip(features, grids_hw, strict=True)
    ]
    return FeatureGrids(torch.cat(grids), grids_hw)


def qwen3_scene(grid_thw, place, **options):
    """Of images or videos: the name of their grids, and which call of the tower is theirs."""

    def grids_hw(call):
        return tuple((h, w) for t, h, w in call.inputs[grid_thw].tolist() for _ in range(t))

    def grids(call, outputs):
        return qwen3_patches(call.model, outputs[place], grids_hw(call))

    def projected(call, outputs):
        side = qwen3_side(call.config)
        return FeatureGrids(outputs[place], tuple((h // side, w // side) for h, w in grids_hw(call)))

    return Scene(grids_hw=grids_hw, grids=grids, projected=projected, **options)


def tiny_qwen3(seed):
    tokenizer = tiny_tokenizer(["what is this?"], CHATML_TOKENS, CHATML_TEMPLATE)
    size = {"shortest_edge": 32**2, "longest_edge": 320**2}
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessorPil(size=size, patch_size=16, image_mean=HALF, image_std=HALF),
        video_processor=Qwen3VLVideoProcessor(cap_pixels_per_frame=False),
        tokenizer=tokenizer,
        chat_template=CHATML_TEMPLATE,
    )
    ids = tokenizer.get_vocab()
    config = Qwen3VLConfig(
        vision_config={
            "depth": 3,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_heads": 4,
            "out_hidden_size": 64,
            "deepstack_visual_indexes": [0, 1],
            "num_position_embeddings": 64,
        },
        text_config={
            **tiny_text(tokenizer),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [2, 3, 3],
                "mrope_interleaved": True,
            },
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Qwen3VLForConditionalGeneration(config).eval(), processor


QWEN3_VL = BackboneSpec(
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
    crops=Crops(geometry=qwen3_geometry, width=vision_width, encode=qwen3_encode),
    images=qwen3_scene("image_grid_thw", 0),
    videos=qwen3_scene("video_grid_thw", -1, frames_per_grid=lambda config: config.vision_config.temporal_patch_size),
    cells=Cells(side=qwen3_side),
    lora_targets={
        "decoder": r"model\.language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)",
        "projector": r"model\.visual\.merger\.linear_fc\d",
        "vision_tower": r"model\.visual\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.linear_fc\d)",
    },
    tiny=tiny_qwen3,
)


@hookimpl
def register_backbones(register):
    register(QWEN3_VL)


def install(monkeypatch):
    """Have the plugin be there for one test."""
    install_plugin(monkeypatch, "families", __name__)
