"""How Idefics3, SmolVLM and SmolVLM2 are read and fed.

An image is squashed to whole tiles, square pictures of one size, and shown tile by tile, row by row, and then as a
whole, squashed to one tile; or, unsplit, as a whole only. A frame of a video is shown as a whole. All go through the
tower (SigLIP) in one call, one after another. The connector joins square cells of patches (pixel shuffle) in front of
its only linear layer. A patch's position is its share of the picture's height and width, brought to the nearest row of
a table of as many as a tile has, so the tower takes pictures of any size: patches of a larger one share positions.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Idefics3ForConditionalGeneration, SmolVLMForConditionalGeneration

from pixelrefer_plugin.authoring import (
    BackboneSpec,
    Cells,
    Crops,
    FeatureGrids,
    FloatBox,
    GridsHw,
    NativeCall,
    Parts,
    PatchGeometry,
    PixelReferError,
    PublishedModel,
    Scene,
    encode_by_size,
)

from .tiny import tiny_idefics3, tiny_smolvlm

Sizes = Sequence[tuple[int, int]]


def geometry(config: Any) -> PatchGeometry:
    return PatchGeometry(patch_size=config.vision_config.patch_size)


def width(config: Any) -> int:
    return int(config.vision_config.hidden_size)


def cell_side(config: Any) -> int:
    return int(config.scale_factor)


def encode(model: Any, crops: list[Tensor]) -> FeatureGrids:

    def features_of(pixels: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        return model.model.vision_model(pixels, return_dict=True).last_hidden_state

    return encode_by_size(crops, model.config.vision_config.patch_size, features_of)


# -- which pictures the tower is given -----------------------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """How one image, or one frame, is shown.

    Attributes:
        first: which of the pictures that the tower is given is its first.
        tiling: rows and columns of its tiles, which come first; none where it is not split. Its whole is the last.
    """

    first: int
    tiling: tuple[int, int]

    @property
    def whole(self) -> int:
        """Which of the tower's pictures shows it as a whole."""
        return self.first + self.tiling[0] * self.tiling[1]


def shown(call: NativeCall) -> list[Shown]:
    """Every image or frame of a batch, read off the ids, in whose order the tower is given its pictures.

    No tensor says how an image was split: `<fake_token_around_image>` stands before each of the tower's pictures and
    once more behind an image's last, its whole; a line ends behind each row of tiles.
    (transformers: models/idefics3/processing_idefics3.py, replace_image_token)

    Raises:
        PixelReferError: the tokenizer lacks a token of these, or they stand in another way.
    """
    fake, image = (_token_id(call, name) for name in ("fake_image_token", "image_token"))
    seen: list[Shown] = []
    first = 0
    for ids in call.inputs["input_ids"].tolist():
        tiles = rows = 0
        runs = [_run(part, image) for part in _split(ids, fake)]
        for run, after in zip(runs, [*runs[1:], None], strict=True):
            if run is None:
                continue
            if after is not None:  # another picture of the same image
                tiles, rows = tiles + 1, rows + run.ends_line
                continue
            if tiles and (not rows or tiles % rows):
                raise PixelReferError(f"An image in the prompt has {tiles} tiles in {rows} rows, which are not whole.")
            seen.append(Shown(first, (rows, tiles // rows) if tiles else (0, 0)))
            first, tiles, rows = first + tiles + 1, 0, 0
    return seen


@dataclass(frozen=True)
class _Run:
    """The image tokens of one picture; `ends_line` where more stands behind them before the next fake token."""

    ends_line: bool


def _run(ids: list[int], image: int) -> _Run | None:
    return _Run(ends_line=ids[-1] != image) if image in ids else None


def _split(ids: list[int], at: int) -> list[list[int]]:
    parts: list[list[int]] = [[]]
    for each in ids:
        if each == at:
            parts.append([])
        else:
            parts[-1].append(each)
    return parts


def _token_id(call: NativeCall, name: str) -> int:
    if name not in call.token_ids:
        raise PixelReferError(
            f"The tokenizer does not have the token that its processor calls {name}, and that prompts show pictures "
            f"with; it has {', '.join(call.token_ids) or 'none'}. Is it the tokenizer of this checkpoint?"
        )
    return call.token_ids[name]


# -- images and frames as a whole ----------------------------------------------------------------------------


def whole_grids_hw(call: NativeCall) -> GridsHw:
    return (_tile_hw(call),) * len(shown(call))


def whole_grids(call: NativeCall, outputs: Sequence[Any]) -> FeatureGrids:
    return _wholes(call, outputs[0].last_hidden_state, _tile_hw(call))


def projected_wholes(call: NativeCall, outputs: Sequence[Tensor]) -> FeatureGrids:
    return _wholes(call, outputs[0], _cells_hw(call))


def _wholes(call: NativeCall, features: Tensor, grid_hw: tuple[int, int]) -> FeatureGrids:
    pictures = torch.tensor([each.whole for each in shown(call)], device=features.device)
    return FeatureGrids(features[pictures].flatten(0, 1), (grid_hw,) * len(pictures))


def whole_boxes_xyxy(call: NativeCall, sizes_hw: Sizes) -> list[FloatBox]:
    """A picture is squashed to a tile. Where that is not whole patches (384 px, 14 px each), the tower leaves out what
    is over at its right and bottom."""
    down, across = _seen_share(call)
    return [(0, 0, across * w, down * h) for h, w in sizes_hw]


# -- images in tiles -----------------------------------------------------------------------------------------


def tile_grids_hw(call: NativeCall) -> GridsHw:
    return _tiled_hw(call, _tile_hw(call))


def tile_grids(call: NativeCall, outputs: Sequence[Any]) -> FeatureGrids:
    return _joined_tiles(call, outputs[0].last_hidden_state, _tile_hw(call))


def projected_tiles(call: NativeCall, outputs: Sequence[Tensor]) -> FeatureGrids:
    return _joined_tiles(call, outputs[0], _cells_hw(call))


def _tiled_hw(call: NativeCall, tile_hw: tuple[int, int]) -> GridsHw:
    """The tiles of each image side by side; the whole of one that is not split."""
    tilings = [each.tiling if any(each.tiling) else (1, 1) for each in shown(call)]
    return tuple((down * tile_hw[0], across * tile_hw[1]) for down, across in tilings)


def _joined_tiles(call: NativeCall, features: Tensor, tile_hw: tuple[int, int]) -> FeatureGrids:
    grids = []
    for each in shown(call):
        tiles = features[each.first : each.whole] if any(each.tiling) else features[each.whole : each.whole + 1]
        tiling = each.tiling if any(each.tiling) else (1, 1)
        grids.append(tiles.unflatten(1, tile_hw).unflatten(0, tiling).transpose(1, 2).flatten(0, 3))
    return FeatureGrids(torch.cat(grids), _tiled_hw(call, tile_hw))


def tile_boxes_xyxy(call: NativeCall, sizes_hw: Sizes) -> list[FloatBox]:
    """An image is squashed to whole tiles; one that is not split lies as in `whole_boxes_xyxy`.

    The pixels that the tower leaves out at the end of each tile are taken to be spread over it, less than half a patch.
    """
    wholes = whole_boxes_xyxy(call, sizes_hw)
    images = zip(wholes, sizes_hw, shown(call), strict=True)
    return [(0, 0, w, h) if any(each.tiling) else whole for whole, (h, w), each in images]


# -- what they share -----------------------------------------------------------------------------------------


def _tile_hw(call: NativeCall) -> tuple[int, int]:
    """Rows and columns of patches of a tile, and of a whole."""
    patch = call.config.vision_config.patch_size
    height, width_px = call.inputs["pixel_values"].shape[-2:]
    return height // patch, width_px // patch


def _cells_hw(call: NativeCall) -> tuple[int, int]:
    side = cell_side(call.config)
    rows, columns = _tile_hw(call)
    return rows // side, columns // side


def _seen_share(call: NativeCall) -> tuple[float, float]:
    """Of a tile's height and width, what its patches cover."""
    patch = call.config.vision_config.patch_size
    height, width_px = call.inputs["pixel_values"].shape[-2:]
    return height // patch * patch / height, width_px // patch * patch / width_px


_WHOLES = Scene(grids_hw=whole_grids_hw, grids=whole_grids, boxes_xyxy=whole_boxes_xyxy, projected=projected_wholes)
_APACHE = "Apache-2.0"

IDEFICS3 = BackboneSpec(
    name="idefics3",
    model_types=("idefics3",),
    model_class=Idefics3ForConditionalGeneration,
    parts=Parts(
        vision_tower="model.vision_model",
        projector="model.connector",
        decoder="model.text_model",
        token_embedding="model.text_model.embed_tokens",
        projector_layers=("model.connector.modality_projection.proj",),
    ),
    crops=Crops(geometry=geometry, width=width, encode=encode),
    images=_WHOLES,
    tiles=Scene(grids_hw=tile_grids_hw, grids=tile_grids, boxes_xyxy=tile_boxes_xyxy, projected=projected_tiles),
    cells=Cells(side=cell_side),
    lora_targets={
        "decoder": r"model\.text_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)",
        "projector": r"model\.connector\.modality_projection\.proj",
        "vision_tower": r"model\.vision_model\.encoder\.layers\.\d+\.(self_attn\.([qkv]|out)_proj|mlp\.fc[12])",
    },
    pointing="marks",
    models=(
        PublishedModel(id="HuggingFaceTB/SmolVLM-256M-Instruct", parameters="256M", licence=_APACHE),
        PublishedModel(id="HuggingFaceTB/SmolVLM-500M-Instruct", parameters="500M", licence=_APACHE),
        PublishedModel(id="HuggingFaceTB/SmolVLM-Instruct", parameters="2.2B", licence=_APACHE),
        PublishedModel(id="HuggingFaceM4/Idefics3-8B-Llama3", parameters="8B", licence=_APACHE),
    ),
    tiny=tiny_idefics3,
)

SMOLVLM = dataclasses.replace(
    IDEFICS3,
    name="smolvlm",
    model_types=("smolvlm",),
    model_class=SmolVLMForConditionalGeneration,
    videos=_WHOLES,
    mixes_media=False,  # the processor puts both into pixel_values
    models=(
        PublishedModel(id="HuggingFaceTB/SmolVLM2-256M-Video-Instruct", parameters="256M", licence=_APACHE),
        PublishedModel(id="HuggingFaceTB/SmolVLM2-500M-Video-Instruct", parameters="500M", licence=_APACHE),
        PublishedModel(id="HuggingFaceTB/SmolVLM2-2.2B-Instruct", parameters="2.2B", licence=_APACHE),
    ),
    tiny=tiny_smolvlm,
)
