"""A backbone of a family that docs/plugins.md names, as a stranger might write it: Gemma 3.

It pools patches in its projector, which is a bare parameter, and has another image token in prompts than in ids.
"""

import torch
from conftest import install_plugin
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3Processor
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

from pixelrefer_plugin.authoring import BackboneSpec, Crops, FeatureGrids, Parts, PatchGeometry, Scene, hookimpl
from pixelrefer_plugin.testing import CHATML_TEMPLATE, tiny_tokenizer

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


# -- Gemma 3 -----------------------------------------------------------------------------------------------

NAMED = {"boi_token": "<start_of_image>", "image_token": "<image_soft_token>", "eoi_token": "<end_of_image>"}
GEMMA3_TEMPLATE = CHATML_TEMPLATE.replace("<|vision_start|><|image_pad|><|vision_end|>", "<start_of_image>")


def gemma3_geometry(config):
    return PatchGeometry(patch_size=config.vision_config.patch_size)


def gemma3_encode(model, crops):
    grids_hw = grids_of(crops, model.config.vision_config.patch_size)
    features = [None] * len(crops)
    for hw in dict.fromkeys(grids_hw):
        same = [index for index, each in enumerate(grids_hw) if each == hw]
        output = model.model.vision_tower(torch.stack([crops[index] for index in same]), interpolate_pos_encoding=True)
        for index, each in zip(same, output.last_hidden_state, strict=True):
            features[index] = each
    return FeatureGrids(torch.cat(features), grids_hw)


def gemma3_grids_hw(call):
    side = call.config.vision_config.image_size // call.config.vision_config.patch_size
    return ((side, side),) * len(call.inputs["pixel_values"])


def gemma3_grids(call, outputs):
    return FeatureGrids(outputs[0].last_hidden_state.flatten(0, 1), gemma3_grids_hw(call))


def tiny_gemma3(seed):
    tokens = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *NAMED.values())
    tokenizer = tiny_tokenizer(["what is this?"], tokens, GEMMA3_TEMPLATE, named_tokens=NAMED)
    size = {"height": 56, "width": 56}
    processor = Gemma3Processor(
        image_processor=Gemma3ImageProcessorPil(size=size, image_mean=HALF, image_std=HALF),
        tokenizer=tokenizer,
        chat_template=GEMMA3_TEMPLATE,
        image_seq_length=4,
    )
    config = Gemma3Config(
        vision_config={
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 56,
            "patch_size": 14,
            "vision_use_head": False,
        },
        text_config={**tiny_text(tokenizer), "sliding_window": 4096},
        mm_tokens_per_image=4,
        boi_token_index=tokenizer.boi_token_id,
        eoi_token_index=tokenizer.eoi_token_id,
        image_token_index=tokenizer.image_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Gemma3ForConditionalGeneration(config).eval()
        torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=0.2)  # else zeros
        return model, processor


GEMMA3 = BackboneSpec(
    name="gemma3",
    model_types=("gemma3",),
    model_class=Gemma3ForConditionalGeneration,
    parts=Parts(
        vision_tower="model.vision_tower",
        projector="model.multi_modal_projector",
        decoder="model.language_model",
        token_embedding="model.language_model.embed_tokens",
    ),
    crops=Crops(geometry=gemma3_geometry, width=vision_width, encode=gemma3_encode),
    images=Scene(grids_hw=gemma3_grids_hw, grids=gemma3_grids),
    lora_targets={
        "decoder": r"model\.language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)",
        "vision_tower": r"model\.vision_tower\.(vision_model\.)?encoder\.layers\.\d+\.(self_attn\.\w+_proj|mlp\.fc\d)",
    },
    tiny=tiny_gemma3,
)


@hookimpl
def register_backbones(register):
    register(GEMMA3)


def install(monkeypatch):
    """Have the plugin be there for one test."""
    install_plugin(monkeypatch, "families", __name__)
