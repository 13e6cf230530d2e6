"""A backbone as a stranger might write it for a family unlike those that are built in: InternVL.

Pictures are tiles and a thumbnail, whose number only the text tells. The thumbnail is the scene. The projector reads
cells of 2x2 patches, and norms each as a whole. Images and videos go through the tower in one call, so there is no
scene of `videos`.
"""

import torch
from conftest import install_plugin
from torch.nn.functional import pad
from transformers import InternVLConfig, InternVLForConditionalGeneration, InternVLProcessor, InternVLVideoProcessor
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from pixelrefer_plugin.authoring import (
    BackboneSpec,
    Cells,
    Crops,
    FeatureGrids,
    Parts,
    PatchGeometry,
    Scene,
    encode_by_size,
    hookimpl,
)
from pixelrefer_plugin.testing import CHATML_TEMPLATE, tiny_tokenizer

PLUGIN_API = 1
NAMED = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *NAMED.values())
TEMPLATE = CHATML_TEMPLATE.replace("<|vision_start|><|image_pad|><|vision_end|>", "<IMG_CONTEXT>\\n").replace(
    "<|vision_start|><|video_pad|><|vision_end|>", "<video>\\n"
)


def side_hw(config):
    vision = config.vision_config
    return tuple(pixels // patch for pixels, patch in zip(vision.image_size, vision.patch_size, strict=True))


def encode_crops(model, crops):
    def features_of(pixels, grid_hw):
        return patches(model.model.vision_tower(pixel_values=pixels))

    return encode_by_size(crops, model.config.vision_config.patch_size[0], features_of)


def patches(output):
    return output.last_hidden_state[:, 1:]  # the first is the class token


def tiles_per_image(call):
    """From the runs of image tokens, `image_seq_length` for each tile."""
    edges = pad((call.inputs["input_ids"] == call.token_ids["image_token"]).int(), (1, 1)).flatten().diff()
    starts, ends = (torch.nonzero(edges == step)[:, 0] for step in (1, -1))
    return ((ends - starts) // call.config.image_seq_length).tolist()


def image_grids_hw(call):
    return (side_hw(call.config),) * len(tiles_per_image(call))


def image_grids(call, outputs):
    images = patches(outputs[0]).split(tiles_per_image(call))
    return FeatureGrids(torch.cat([image[-1] for image in images]), image_grids_hw(call))


def tiny(seed):
    tokenizer = tiny_tokenizer(["what is this?"], TOKENS, TEMPLATE, named_tokens=NAMED)
    size = {"height": 56, "width": 56}
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessorPil(size=size, crop_to_patches=True, max_patches=4),
        video_processor=InternVLVideoProcessor(size=size),
        tokenizer=tokenizer,
        image_seq_length=4,
        chat_template=TEMPLATE,
    )
    config = InternVLConfig(
        vision_config={
            "image_size": [56, 56],
            "patch_size": [14, 14],
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
        },
        text_config={
            "model_type": "qwen2",
            "vocab_size": len(tokenizer) + 16,
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        image_seq_length=4,
        image_token_id=tokenizer.context_image_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return InternVLForConditionalGeneration(config).eval(), processor


SPEC = BackboneSpec(
    name="tiled",
    model_types=("internvl",),
    model_class=InternVLForConditionalGeneration,
    parts=Parts(
        vision_tower="model.vision_tower",
        projector="model.multi_modal_projector",
        decoder="model.language_model",
        token_embedding="model.language_model.embed_tokens",
        projector_layers=("model.multi_modal_projector.linear_1", "model.multi_modal_projector.linear_2"),
    ),
    crops=Crops(
        geometry=lambda config: PatchGeometry(patch_size=config.vision_config.patch_size[0]),
        width=lambda config: config.vision_config.hidden_size,
        encode=encode_crops,
    ),
    images=Scene(grids_hw=image_grids_hw, grids=image_grids),
    cells=Cells(side=lambda config: round(1 / config.downsample_ratio), norm="model.multi_modal_projector.layer_norm"),
    lora_targets={
        "decoder": r"model\.language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)",
        "projector": r"model\.multi_modal_projector\.linear_[12]",
        "vision_tower": r"model\.vision_tower\.encoder\.layer\.\d+\.(attention\.[qkv]_proj|mlp\.fc[12])",
    },
    tiny=tiny,
)


@hookimpl
def register_backbones(register):
    register(SPEC)


def install(monkeypatch):
    """Have the plugin be there for one test."""
    install_plugin(monkeypatch, "tiled", __name__)
