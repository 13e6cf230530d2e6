"""How InternVL3 and InternVL3.5 are read and fed.

Their tower (InternViT) takes square tiles of one size, and gives a class token before the patches of each. A picture is
squashed to as many tiles side by side as suit its shape, and to one more, the thumbnail, that shows it whole; one that
suits a single tile is that tile. Each frame of a video is a tile. All tiles of a batch, in the order in which its texts
show them, go through the tower in one call. In the ids one token stands for those of pictures and of videos alike, and
no tensor says how many tiles a picture has: runs of that token do, of `ShownMedium`s in their order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import pad
from transformers import InternVLForConditionalGeneration
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

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
    PixelReferError,
    PublishedModel,
    Scene,
    ShownMedium,
    encode_by_size,
)

from .tiny import tiny


def geometry(config: Any) -> PatchGeometry:
    return PatchGeometry(patch_size=_patch_px(config))


def width(config: Any) -> int:
    return int(config.vision_config.hidden_size)


def cell_side(config: Any) -> int:
    return round(1 / config.downsample_ratio)


def encode(model: Any, crops: list[Tensor]) -> FeatureGrids:
    """The tower interpolates its learnt positions for crops."""

    def features_of(pixels: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        wants_layer = model.config.vision_feature_layer != -1
        output = model.model.vision_tower(pixel_values=pixels, output_hidden_states=wants_layer, return_dict=True)
        return _patches(model.config, output)

    return encode_by_size(crops, _patch_px(model.config), features_of)


# -- pictures as a whole -------------------------------------------------------------------------------------


def image_grids_hw(call: NativeCall) -> GridsHw:
    return (_tile_hw(call),) * len(_tiled(call, "image"))


def image_grids(call: NativeCall, outputs: Sequence[Any]) -> FeatureGrids:
    return _whole(call, _patches(call.config, outputs[0]), _tile_hw(call))


def projected_images(call: NativeCall, outputs: Sequence[Tensor]) -> FeatureGrids:
    return _whole(call, outputs[0], _tile_cells_hw(call))


def _whole(call: NativeCall, tiles: Tensor, tile_hw: tuple[int, int]) -> FeatureGrids:
    """The last tile of each picture: the thumbnail, or its only one."""
    last = [each.first + each.number - 1 for each in _tiled(call, "image")]
    return FeatureGrids(tiles[last].flatten(0, 1), (tile_hw,) * len(last))


# -- pictures in tiles ---------------------------------------------------------------------------------------


def tile_grids_hw(call: NativeCall) -> GridsHw:
    return tuple(_side_by_side(_tile_hw(call), each.tiling(call)) for each in _tiled(call, "image"))


def tile_grids(call: NativeCall, outputs: Sequence[Any]) -> FeatureGrids:
    return _joined(call, _patches(call.config, outputs[0]), _tile_hw(call))


def projected_tiles(call: NativeCall, outputs: Sequence[Tensor]) -> FeatureGrids:
    return _joined(call, outputs[0], _tile_cells_hw(call))


def _joined(call: NativeCall, tiles: Tensor, tile_hw: tuple[int, int]) -> FeatureGrids:
    """The tiles of each picture side by side, without its thumbnail. They come row by row."""
    grids, grids_hw = [], []
    for each in _tiled(call, "image"):
        down, across = each.tiling(call)
        own = tiles[each.first : each.first + down * across]
        order = "(down across) (h w) c -> (down h across w) c"
        grids.append(rearrange(own, order, down=down, across=across, h=tile_hw[0], w=tile_hw[1]))
        grids_hw.append(_side_by_side(tile_hw, (down, across)))
    return FeatureGrids(torch.cat(grids), tuple(grids_hw))


def _side_by_side(tile_hw: tuple[int, int], tiling: tuple[int, int]) -> tuple[int, int]:
    return tile_hw[0] * tiling[0], tile_hw[1] * tiling[1]


# -- videos --------------------------------------------------------------------------------------------------


def video_grids_hw(call: NativeCall) -> GridsHw:
    return (_tile_hw(call),) * len(_tiled(call, "video"))


def video_grids(call: NativeCall, outputs: Sequence[Any]) -> FeatureGrids:
    return _frames(call, _patches(call.config, outputs[0]), _tile_hw(call))


def projected_videos(call: NativeCall, outputs: Sequence[Tensor]) -> FeatureGrids:
    return _frames(call, outputs[0], _tile_cells_hw(call))


def _frames(call: NativeCall, tiles: Tensor, tile_hw: tuple[int, int]) -> FeatureGrids:
    frames = [each.first for each in _tiled(call, "video")]
    return FeatureGrids(tiles[frames].flatten(0, 1), (tile_hw,) * len(frames))


# -- what they share -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tiled:
    """A picture, or a frame of a video, as tiles.

    Attributes:
        first: its first tile, of all that the tower is given.
        number: of its tiles, the thumbnail included.
        medium: what it is, or is a frame of; None where the call does not say.
    """

    first: int
    number: int
    medium: ShownMedium | None

    def tiling(self, call: NativeCall) -> tuple[int, int]:
        """Rows and columns of the tiles beside the thumbnail: the arrangement of so many that the image processor
        chooses for a picture of this shape, with whatever bounds on their number it was given."""
        if self.number == 1:
            return 1, 1
        beside = self.number - 1
        if self.medium is None:
            raise PixelReferError(
                f"A picture is cut into {beside} tiles and a thumbnail, but NativeCall.shown does not say of which "
                "size it is, so that their arrangement is unknown. Give the call the sizes of its pictures."
            )
        across, down = get_optimal_tiled_canvas(self.medium.image_hw, _tile_px(call), beside, beside)
        return down, across


def _tiled(call: NativeCall, kind: str) -> list[_Tiled]:
    """The pictures, or the frames of the videos, of a batch. Where the call does not say what it shows, all are."""
    rows, columns = _tile_cells_hw(call)
    counts = [length // (rows * columns) for length in _runs(call.inputs["input_ids"], call.config.image_token_id)]
    firsts = list(accumulate(counts, initial=0))[:-1]
    copies = len(call.inputs["input_ids"]) // max(len(call.shown), 1)
    media: list[ShownMedium | None] = [
        each for sample in call.shown for _ in range(copies) for each in sample for _ in range(each.num_frames)
    ]
    assert len(media) in (0, len(counts)), "of what is shown, each image and each frame has its run"
    tiled = map(_Tiled, firsts, counts, media or [None] * len(counts))
    return [each for each in tiled if each.medium is None or each.medium.kind == kind]


def _runs(input_ids: Tensor, token_id: int) -> list[int]:
    """The lengths of the runs of one token, in the order of the samples."""
    edges = pad((input_ids == token_id).int(), (1, 1)).flatten().diff()
    starts, ends = (torch.nonzero(edges == step)[:, 0] for step in (1, -1))
    lengths: list[int] = (ends - starts).tolist()
    return lengths


def _patches(config: Any, output: Any) -> Tensor:
    """The patches of what the projector reads, `(tiles, h * w, C)`, without the class token before them."""
    layer = config.vision_feature_layer
    features: Tensor = output.last_hidden_state if layer == -1 else output.hidden_states[layer]
    return features[:, 1:]


def _tile_px(call: NativeCall) -> tuple[int, int]:
    """Height and width of a tile, which the image processor decides."""
    pixels = call.inputs.get("pixel_values")
    height, width = call.config.vision_config.image_size if pixels is None else pixels.shape[-2:]
    return int(height), int(width)


def _tile_hw(call: NativeCall) -> tuple[int, int]:
    height, width = _tile_px(call)
    return height // _patch_px(call.config), width // _patch_px(call.config)


def _tile_cells_hw(call: NativeCall) -> tuple[int, int]:
    (rows, columns), side = _tile_hw(call), cell_side(call.config)
    return rows // side, columns // side


def _patch_px(config: Any) -> int:
    return int(config.vision_config.patch_size[0])


MODELS = (
    PublishedModel(id="OpenGVLab/InternVL3-1B-hf", parameters="1B", licence="Qwen"),
    PublishedModel(id="OpenGVLab/InternVL3-2B-hf", parameters="2B", licence="Qwen"),
    PublishedModel(id="OpenGVLab/InternVL3-8B-hf", parameters="8B", licence="Qwen"),
    PublishedModel(id="OpenGVLab/InternVL3-9B-hf", parameters="9B", licence="MIT"),
    PublishedModel(id="OpenGVLab/InternVL3-14B-hf", parameters="14B", licence="Qwen"),
    PublishedModel(id="OpenGVLab/InternVL3-38B-hf", parameters="38B", licence="Qwen"),
    PublishedModel(id="OpenGVLab/InternVL3-78B-hf", parameters="78B", licence="Qwen"),
    PublishedModel(id="OpenGVLab/InternVL3_5-1B-HF", parameters="1B", licence="Apache-2.0"),
    PublishedModel(id="OpenGVLab/InternVL3_5-2B-HF", parameters="2B", licence="Apache-2.0"),
    PublishedModel(id="OpenGVLab/InternVL3_5-4B-HF", parameters="4B", licence="Apache-2.0"),
    PublishedModel(id="OpenGVLab/InternVL3_5-8B-HF", parameters="8B", licence="Apache-2.0"),
    PublishedModel(id="OpenGVLab/InternVL3_5-14B-HF", parameters="14B", licence="Apache-2.0"),
    PublishedModel(id="OpenGVLab/InternVL3_5-38B-HF", parameters="38B", licence="Apache-2.0"),
    PublishedModel(id="OpenGVLab/InternVL3_5-30B-A3B-HF", parameters="30B-A3B", licence="Apache-2.0"),
    PublishedModel(id="OpenGVLab/InternVL3_5-GPT-OSS-20B-A4B-Preview-HF", parameters="20B-A4B", licence="Apache-2.0"),
    PublishedModel(id="OpenGVLab/InternVL3_5-241B-A28B-HF", parameters="241B-A28B", licence="Apache-2.0"),
)

SPEC = BackboneSpec(
    name="internvl",
    model_types=("internvl",),
    model_class=InternVLForConditionalGeneration,
    parts=Parts(
        vision_tower="model.vision_tower",
        projector="model.multi_modal_projector",
        decoder="model.language_model",
        token_embedding="model.language_model.embed_tokens",
        projector_layers=("model.multi_modal_projector.linear_1", "model.multi_modal_projector.linear_2"),
    ),
    crops=Crops(geometry=geometry, width=width, encode=encode),
    images=Scene(grids_hw=image_grids_hw, grids=image_grids, projected=projected_images),
    tiles=Scene(grids_hw=tile_grids_hw, grids=tile_grids, projected=projected_tiles),
    videos=Scene(grids_hw=video_grids_hw, grids=video_grids, projected=projected_videos),
    cells=Cells(side=cell_side, norm="model.multi_modal_projector.layer_norm"),
    joins_samples=True,  # its processor stacks the videos of a call
    lora_targets={
        # Experts of a mixture are single parameters, not linear layers: of those decoders, attention alone.
        "decoder": r"model\.language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)",
        "projector": r"model\.multi_modal_projector\.linear_[12]",
        "vision_tower": r"model\.vision_tower\.encoder\.layer\.\d+"
        r"\.(attention\.([qkv]_proj|projection_layer)|mlp\.fc[12])",
    },
    pointing="coordinates",
    coordinates=Coordinates(
        unit="thousandths",
        box="<ref>region</ref><box>[[{x0}, {y0}, {x1}, {y1}]]</box>",
        point=None,
        frame="Frame{number}: ",  # as the processor writes before each frame; boxes are those of its picture
        source="https://internvl.readthedocs.io/en/latest/get_started/chat_data_format.html, Grounding / Detection "
        "Data; of a region that is asked about: arXiv:2506.18385",
    ),
    models=MODELS,
    tiny=tiny,
)
