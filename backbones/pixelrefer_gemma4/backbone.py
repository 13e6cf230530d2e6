"""How Gemma 4 is read and fed: E2B, E4B, 26B-A4B and 31B.

Its tower takes pictures of any shape in one call, as rows of patches with their positions, filled up to the same
length. It returns means of 3x3 patches; the patches themselves are what its encoder returns, before they are scaled
and, in the larger models, standardised. Here each is also normalised as the projector normalises those means: a
patch of the small models has no scale of its own.

A video is its frames, each a picture of fewer patches behind its time. The decoder of the small models also looks ids
up in a table for each layer, where pictures have the entry of the padding token, and so have object tokens. The audio
tower is left alone.
"""

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from transformers import Gemma4ForConditionalGeneration

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
    PublishedModel,
    Scene,
)

from .tiny import tiny

PADDING = -1  # both coordinates of what fills a picture's patches up
DECODER_LAYERS = r"model\.language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"
COORDINATES = Coordinates(
    unit="thousandths",
    box='{{"box_2d": [{y0}, {x0}, {y1}, {x1}]}}',
    point=None,
    frame=None,
    source="huggingface.co/blog/gemma4, Object Detection and Pointing",
)


def geometry(config: Any) -> PatchGeometry:
    return PatchGeometry(patch_size=config.vision_config.patch_size)


def width(config: Any) -> int:
    return int(config.vision_config.hidden_size)


def cell_side(config: Any) -> int:
    return int(config.vision_config.pooling_kernel_size)


def stand_in_id(config: Any) -> int:
    return int(config.get_text_config().pad_token_id)


def encode(model: Any, crops: list[Tensor]) -> FeatureGrids:
    """All crops in one call of the tower's encoder, the shorter ones filled up."""
    tower, patch = model.model.vision_tower, model.config.vision_config.patch_size
    rows = [rearrange(crop, "c (h ph) (w pw) -> (h w) (ph pw c)", ph=patch, pw=patch) for crop in crops]
    grids_hw = tuple((crop.shape[1] // patch, crop.shape[2] // patch) for crop in crops)
    pixels = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    places = [positions_of(hw, crops[0].device) for hw in grids_hw]
    positions = torch.nn.utils.rnn.pad_sequence(places, batch_first=True, padding_value=PADDING)
    padding = (positions == PADDING).all(dim=-1)
    embeds = tower.patch_embedder(pixels, positions, padding)
    output = tower.encoder(inputs_embeds=embeds, attention_mask=~padding, pixel_position_ids=positions)
    return FeatureGrids(_features(model, output, ~padding), grids_hw)


def positions_of(grid_hw: tuple[int, int], device: torch.device) -> Tensor:
    """Column and row of each patch in raster order, `(h * w, 2)`."""
    rows, columns = (torch.arange(side, device=device) for side in grid_hw)
    return torch.cartesian_prod(rows, columns).flip(-1)


def position_grids_hw(positions: Tensor) -> GridsHw:
    """Rows and columns of pictures, of their patches' positions, `(N, P, 2)`."""
    return tuple((int(row) + 1, int(column) + 1) for column, row in positions.amax(dim=1).tolist())


def _features(model: Any, output: Any, is_patch: Tensor) -> Tensor:
    """The encoder's patches, `(P, C)`, as the projector would read them one by one."""
    tower, patches = model.model.vision_tower, output.last_hidden_state
    scaled = patches[is_patch.to(patches.device)].float() * tower.pooler.root_hidden_size
    if tower.config.standardize:
        scaled = (scaled - tower.std_bias.float()) * tower.std_scale.float()
    return model.model.embed_vision.embedding_pre_projection_norm(scaled).to(patches.dtype)


def _scene(name: str, which: int) -> Scene:
    """Of images or of videos' frames.

    Args:
        name: of the native tensor of their patches' positions, `(N, P, 2)`.
        which: of the calls of the tower that is theirs.
    """

    def grids_hw(call: NativeCall) -> GridsHw:
        return position_grids_hw(call.inputs[name])

    def grids(call: NativeCall, outputs: Sequence[Any]) -> FeatureGrids:
        is_patch = (call.inputs[name] != PADDING).all(dim=-1)
        return FeatureGrids(_features(call.model, outputs[which], is_patch), grids_hw(call))

    def projected(call: NativeCall, outputs: Sequence[Tensor]) -> FeatureGrids:
        side = cell_side(call.config)
        return FeatureGrids(outputs[which], tuple((h // side, w // side) for h, w in grids_hw(call)))

    return Scene(grids_hw=grids_hw, grids=grids, projected=projected)


SPEC = BackboneSpec(
    name="gemma4",
    model_types=("gemma4",),
    model_class=Gemma4ForConditionalGeneration,
    parts=Parts(
        vision_tower="model.vision_tower",
        patches="model.vision_tower.encoder",
        projector="model.embed_vision",
        decoder="model.language_model",
        token_embedding="model.language_model.embed_tokens",
    ),
    crops=Crops(geometry=geometry, width=width, encode=encode),
    images=_scene("image_position_ids", 0),
    videos=_scene("video_position_ids", -1),
    cells=Cells(side=cell_side, norm="model.embed_vision.embedding_pre_projection_norm", pooled=True),
    lora_targets={
        "decoder": DECODER_LAYERS,
        "projector": r"model\.embed_vision\.embedding_projection",
        "vision_tower": r"model\.vision_tower\.encoder\.layers\.\d+"
        r"\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)\.linear",
    },
    stand_in_id=stand_in_id,
    pointing="marks",
    coordinates=COORDINATES,
    models=(
        PublishedModel(id="google/gemma-4-E2B-it", parameters="5.1B", licence="Apache-2.0"),
        PublishedModel(id="google/gemma-4-E4B-it", parameters="8B", licence="Apache-2.0"),
        PublishedModel(id="google/gemma-4-26B-A4B-it", parameters="26B-A4B", licence="Apache-2.0"),
        PublishedModel(id="google/gemma-4-31B-it", parameters="31B", licence="Apache-2.0"),
    ),
    tiny=tiny,
)
