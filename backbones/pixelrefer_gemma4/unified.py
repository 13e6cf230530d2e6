"""How Gemma 4 12B is read and fed, which has no tower: each patch of 48 px goes into the decoder by itself.

What stands for a tower normalises and projects patches and adds their places; what stands for a projector is its last
part. Features are those that this last part's linear layer reads. No patch sees another one before the decoder, so that
adapters here read little more than pixels.
"""

from collections.abc import Sequence
from typing import Any

from einops import rearrange
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import Gemma4UnifiedForConditionalGeneration

from pixelrefer_plugin.authoring import (
    BackboneSpec,
    Crops,
    FeatureGrids,
    GridsHw,
    NativeCall,
    Parts,
    PatchGeometry,
    PublishedModel,
    Scene,
)

from .backbone import COORDINATES, DECODER_LAYERS, PADDING, position_grids_hw, positions_of
from .tiny import tiny_unified


def geometry(config: Any) -> PatchGeometry:
    return PatchGeometry(patch_size=config.vision_config.model_patch_size)


def width(config: Any) -> int:
    return int(config.vision_config.mm_embed_dim)


def encode(model: Any, crops: list[Tensor]) -> FeatureGrids:
    """All crops in one call, the shorter ones filled up."""
    patch = model.config.vision_config.model_patch_size
    rows = [rearrange(crop, "c (h ph) (w pw) -> (h w) (ph pw c)", ph=patch, pw=patch) for crop in crops]
    grids_hw = tuple((crop.shape[1] // patch, crop.shape[2] // patch) for crop in crops)
    places = pad_sequence(
        [positions_of(hw, crops[0].device) for hw in grids_hw], batch_first=True, padding_value=PADDING
    )
    output = model.model.embed_vision(pad_sequence(rows, batch_first=True), places, return_dict=True)
    return FeatureGrids(_features(model, output, places), grids_hw)


def _features(model: Any, output: Any, places: Tensor) -> Tensor:
    """`(P, C)`: patches as the last linear layer reads them."""
    patches = output.last_hidden_state
    norm = model.model.embed_vision.multimodal_embedder.embedding_pre_projection_norm
    kept: Tensor = norm(patches[_is_patch(places).to(patches.device)])
    return kept


def _is_patch(places: Tensor) -> Tensor:
    return (places != PADDING).all(dim=-1)


def _scene(name: str, which: int) -> Scene:
    """Of images or of videos' frames, as in `backbone`."""

    def grids_hw(call: NativeCall) -> GridsHw:
        return position_grids_hw(call.inputs[name])

    def grids(call: NativeCall, outputs: Sequence[Any]) -> FeatureGrids:
        return FeatureGrids(_features(call.model, outputs[which], call.inputs[name]), grids_hw(call))

    def projected(call: NativeCall, outputs: Sequence[Tensor]) -> FeatureGrids:
        tokens = outputs[which]
        return FeatureGrids(tokens[_is_patch(call.inputs[name]).to(tokens.device)], grids_hw(call))

    return Scene(grids_hw=grids_hw, grids=grids, projected=projected)


SPEC = BackboneSpec(
    name="gemma4_unified",
    model_types=("gemma4_unified",),
    model_class=Gemma4UnifiedForConditionalGeneration,
    parts=Parts(
        vision_tower="model.embed_vision",
        projector="model.embed_vision.multimodal_embedder",
        decoder="model.language_model",
        token_embedding="model.language_model.embed_tokens",
        projector_layers=("model.embed_vision.multimodal_embedder.embedding_projection",),
    ),
    crops=Crops(geometry=geometry, width=width, encode=encode),
    images=_scene("image_position_ids", 0),
    videos=_scene("video_position_ids", -1),
    lora_targets={
        "decoder": DECODER_LAYERS,
        "projector": r"model\.embed_vision\.multimodal_embedder\.embedding_projection",
        "vision_tower": r"model\.embed_vision\.patch_dense",
    },
    pointing="marks",
    coordinates=COORDINATES,
    models=(PublishedModel(id="google/gemma-4-12B-it", parameters="12B", licence="Apache-2.0"),),
    tiny=tiny_unified,
)
