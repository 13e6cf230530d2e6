"""How Gemma 3 is read and fed.

Its tower (SigLIP) takes a batch of squares of one size in one call; its learnt positions are for that size, and are
interpolated for crops. The projector takes the mean of every 4x4 patches, normalises it, and multiplies it by a bare
parameter, so that there is no linear layer to start from, nor for LoRA. Prompts have `<start_of_image>` for an image;
the processor writes its 256 tokens. It takes no videos.

With `do_pan_and_scan` its processor cuts a long image into further ones and does not tell how many, so that the scene
cannot be read then; adapters that read crops can be used.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers import Gemma3ForConditionalGeneration

from pixelrefer_plugin.authoring import (
    BackboneSpec,
    Cells,
    Crops,
    FeatureGrids,
    GridsHw,
    NativeCall,
    Parts,
    PatchGeometry,
    PixelReferError,
    PublishedModel,
    Scene,
    encode_by_size,
)

from .tiny import tiny


def geometry(config: Any) -> PatchGeometry:
    return PatchGeometry(patch_size=config.vision_config.patch_size)


def width(config: Any) -> int:
    return int(config.vision_config.hidden_size)


def cell_side(config: Any) -> int:
    """Rows and columns of patches that the projector takes the mean of."""
    return _side(config) // _tokens_per_side(config)


def encode(model: Any, crops: list[Tensor]) -> FeatureGrids:

    def features_of(pixels: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        output = model.model.vision_tower(pixel_values=pixels, interpolate_pos_encoding=True, return_dict=True)
        return output.last_hidden_state

    return encode_by_size(crops, model.config.vision_config.patch_size, features_of)


def image_grids_hw(call: NativeCall) -> GridsHw:
    """Every image is squashed to the tower's square."""
    seen = len(call.inputs["pixel_values"])
    images = sum(each.kind == "image" for sample in call.shown for each in sample)
    if call.model is None and call.shown and seen != images:
        raise PixelReferError(
            f"Gemma 3's pan and scan (do_pan_and_scan) has made {seen} images of the batch's {images}, and "
            "this adapter reads the features of the images themselves. Leave do_pan_and_scan out, or take an adapter "
            "that reads crops, such as 'saot'."
        )
    return ((_side(call.config),) * 2,) * seen


def image_grids(call: NativeCall, outputs: Sequence[Any]) -> FeatureGrids:
    return FeatureGrids(outputs[0].last_hidden_state.flatten(0, 1), image_grids_hw(call))


def projected_images(call: NativeCall, outputs: Sequence[Tensor]) -> FeatureGrids:
    """The decoder's 16x16 tokens of each image."""
    side = _tokens_per_side(call.config)
    return FeatureGrids(outputs[0].flatten(0, 1), ((side, side),) * len(outputs[0]))


def _side(config: Any) -> int:
    return int(config.vision_config.image_size // config.vision_config.patch_size)


def _tokens_per_side(config: Any) -> int:
    return int(config.mm_tokens_per_image**0.5)


SPEC = BackboneSpec(
    name="gemma3",
    model_types=("gemma3",),
    model_class=Gemma3ForConditionalGeneration,
    parts=Parts(
        vision_tower="model.vision_tower",
        projector="model.multi_modal_projector",
        decoder="model.language_model",
        token_embedding="model.language_model.embed_tokens",
    ),
    crops=Crops(geometry=geometry, width=width, encode=encode),
    images=Scene(grids_hw=image_grids_hw, grids=image_grids, projected=projected_images),
    cells=Cells(side=cell_side, norm="model.multi_modal_projector.mm_soft_emb_norm", pooled=True),
    lora_targets={
        "decoder": r"model\.language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)",
        "vision_tower": r"model\.vision_tower\.(vision_model\.)?encoder\.layers\.\d+"
        r"\.(self_attn\.(q_proj|k_proj|v_proj|out_proj)|mlp\.fc\d)",
    },
    models=(
        PublishedModel(id="google/gemma-3-4b-it", parameters="4B", licence="Gemma"),
        PublishedModel(id="google/gemma-3-12b-it", parameters="12B", licence="Gemma"),
        PublishedModel(id="google/gemma-3-27b-it", parameters="27B", licence="Gemma"),
    ),
    tiny=tiny,
)
