"""How LLaVA-OneVision is read and fed.

Its tower (SigLIP) takes a batch of equal sizes in one call; its learnt positions are for one square size, and
are interpolated for crops. Features are the hidden layers that the projector reads. A single image of a conversation
is seen twice: as a whole, squashed to a square (the base view), and in tiles of that square's size.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LlavaOnevisionForConditionalGeneration
from transformers.image_processing_utils import select_best_resolution

from pixelrefer_plugin.authoring import (
    BackboneSpec,
    Coordinates,
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

from .tiny import tiny

Sizes = Sequence[tuple[int, int]]


def geometry(config: Any) -> PatchGeometry:
    return PatchGeometry(patch_size=config.vision_config.patch_size)


def width(config: Any) -> int:
    layers = config.vision_feature_layer
    return int(config.vision_config.hidden_size) * (1 if isinstance(layers, int) else len(layers))


def encode(model: Any, crops: list[Tensor]) -> FeatureGrids:

    def features_of(pixels: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        output = model.model.vision_tower(
            pixels, interpolate_pos_encoding=True, output_hidden_states=True, return_dict=True
        )
        return _features(model.config, output, grid_hw)

    return encode_by_size(crops, model.config.vision_config.patch_size, features_of)


# -- images as a whole ---------------------------------------------------------------------------------------


def image_grids_hw(call: NativeCall) -> GridsHw:
    return (_base_hw(call.config),) * len(call.inputs["image_sizes"])


def image_grids(call: NativeCall, outputs: Sequence[Any]) -> FeatureGrids:
    """The first tile of each image: the tower sees the tiles of all images, one after another."""
    return _base_views(call, _features(call.config, outputs[0], _base_hw(call.config)))


def projected_images(call: NativeCall, outputs: Sequence[Tensor]) -> FeatureGrids:
    return _base_views(call, outputs[0])


def _base_views(call: NativeCall, features: Tensor) -> FeatureGrids:
    tiles = torch.tensor(_tiles_per_image(call))
    base = (tiles.cumsum(0) - tiles).to(features.device)
    return FeatureGrids(features[base].flatten(0, 1), image_grids_hw(call))


def image_boxes_xyxy(call: NativeCall, sizes_hw: Sizes) -> list[FloatBox]:
    """A single image is squashed to the base view's square, several are each padded to one.

    Where the square is not whole patches (384 px, 14 px each), the tower leaves out what is over at its right
    and bottom.
    """
    seen = _seen_share(call.config)
    boxes: list[FloatBox] = []
    for (h, w), alone in zip(sizes_hw, _is_alone(call), strict=True):
        side_w, side_h = (w, h) if alone else (max(w, h), max(w, h))
        left, top = -((side_w - w) // 2), -((side_h - h) // 2)
        boxes.append((left, top, left + seen * side_w, top + seen * side_h))
    return boxes


# -- images in tiles -----------------------------------------------------------------------------------------


def tile_grids_hw(call: NativeCall) -> GridsHw:
    """The tiles of each image side by side; the base view of one that has no others."""
    rows, columns = _base_hw(call.config)
    return tuple((rows * down, columns * across) for down, across in _tilings(call))


def tile_grids(call: NativeCall, outputs: Sequence[Any]) -> FeatureGrids:
    return _joined_tiles(call, _features(call.config, outputs[0], _base_hw(call.config)))


def projected_tiles(call: NativeCall, outputs: Sequence[Tensor]) -> FeatureGrids:
    return _joined_tiles(call, outputs[0])


def _joined_tiles(call: NativeCall, features: Tensor) -> FeatureGrids:
    rows, columns = _base_hw(call.config)
    grids = []
    for tiles, (down, across) in zip(features.split(_tiles_per_image(call)), _tilings(call), strict=True):
        seen = (tiles[1:] if len(tiles) > 1 else tiles).unflatten(1, (rows, columns)).unflatten(0, (down, across))
        grids.append(seen.transpose(1, 2).flatten(0, 3))
    return FeatureGrids(torch.cat(grids), tile_grids_hw(call))


def tile_boxes_xyxy(call: NativeCall, sizes_hw: Sizes) -> list[FloatBox]:
    """An image in tiles keeps its shape and is padded on two sides; one without lies as in `image_boxes_xyxy`.

    The pixels that the tower leaves out at the end of each tile are taken to be spread over it, less than half a patch.
    """
    side = call.config.vision_config.image_size
    boxes = image_boxes_xyxy(call, sizes_hw)
    for index, ((h, w), (down, across), alone) in enumerate(
        zip(sizes_hw, _tilings(call), _is_alone(call), strict=True)
    ):
        if alone:
            pixel = max(h / (down * side), w / (across * side))  # of the picture, to one of the tiles
            left, top = (w - across * side * pixel) / 2, (h - down * side * pixel) / 2
            boxes[index] = (left, top, left + across * side * pixel, top + down * side * pixel)
    return boxes


def _tilings(call: NativeCall) -> list[tuple[int, int]]:
    """Rows and columns of tiles of each image; one of one that is not cut."""
    pinpoints, side = call.config.image_grid_pinpoints, call.config.vision_config.image_size
    best = [select_best_resolution(size, pinpoints) for size in call.inputs["image_sizes"].tolist()]
    tilings = [(height // side, width // side) for height, width in best]
    return [tiling if alone else (1, 1) for tiling, alone in zip(tilings, _is_alone(call), strict=True)]


# -- videos --------------------------------------------------------------------------------------------------


def video_grids_hw(call: NativeCall) -> GridsHw:
    """Every frame is squashed to the base view's square; its features are those before the native pooling."""
    videos, frames = call.inputs["pixel_values_videos"].shape[:2]
    return (_base_hw(call.config),) * (videos * frames)


def video_grids(call: NativeCall, outputs: Sequence[Any]) -> FeatureGrids:
    features = _features(call.config, outputs[-1], _base_hw(call.config))
    return FeatureGrids(features.flatten(0, 1), video_grids_hw(call))


def projected_videos(call: NativeCall, outputs: Sequence[Tensor]) -> FeatureGrids:
    return FeatureGrids(outputs[-1].flatten(0, 1), video_grids_hw(call))


def video_boxes_xyxy(call: NativeCall, sizes_hw: Sizes) -> list[FloatBox]:
    seen = _seen_share(call.config)
    return [(0, 0, seen * w, seen * h) for h, w in sizes_hw]


# -- what they share -----------------------------------------------------------------------------------------


def _seen_share(config: Any) -> float:
    return float(_base_hw(config)[0] * config.vision_config.patch_size / config.vision_config.image_size)


def _features(config: Any, output: Any, grid_hw: tuple[int, int]) -> Tensor:
    """The hidden layers that the projector reads, `(images, h * w, C)`."""
    layers = config.vision_feature_layer
    layers = [layers] if isinstance(layers, int) else layers
    features = torch.cat([output.hidden_states[layer] for layer in layers], dim=-1)
    if config.vision_feature_select_strategy == "default":
        features = features[:, 1:]
    if features.shape[1] != grid_hw[0] * grid_hw[1]:
        strategy = config.vision_feature_select_strategy
        raise PixelReferError(
            f"vision_feature_select_strategy '{strategy}' gives {features.shape[1]} features for "
            f"{grid_hw[0]}x{grid_hw[1]} patches. 'default' is for towers with a class token, which it drops; "
            "SigLIP has none and needs 'full'."
        )
    return features


def _base_hw(config: Any) -> tuple[int, int]:
    side = config.vision_config.image_size // config.vision_config.patch_size
    return side, side


def _is_alone(call: NativeCall) -> list[bool]:
    """For each image whether it is its sample's only one, as the native model reads it."""
    counts = call.inputs.get("batch_num_images")
    if counts is None:
        return [True] * len(call.inputs["image_sizes"])
    return [count == 1 for count in counts.tolist() for _ in range(count)]


def _tiles_per_image(call: NativeCall) -> list[int]:
    """The base view and its tiles where a sample has one image, the base view alone where it has several."""
    tilings = zip(_tilings(call), _is_alone(call), strict=True)
    return [1 + down * across if alone else 1 for (down, across), alone in tilings]


SPEC = BackboneSpec(
    name="llava_onevision",
    model_types=("llava_onevision",),
    model_class=LlavaOnevisionForConditionalGeneration,
    parts=Parts(
        vision_tower="model.vision_tower",
        projector="model.multi_modal_projector",
        decoder="model.language_model",
        token_embedding="model.language_model.embed_tokens",
        projector_layers=("model.multi_modal_projector.linear_1", "model.multi_modal_projector.linear_2"),
    ),
    crops=Crops(geometry=geometry, width=width, encode=encode),
    images=Scene(grids_hw=image_grids_hw, grids=image_grids, boxes_xyxy=image_boxes_xyxy, projected=projected_images),
    tiles=Scene(grids_hw=tile_grids_hw, grids=tile_grids, boxes_xyxy=tile_boxes_xyxy, projected=projected_tiles),
    videos=Scene(grids_hw=video_grids_hw, grids=video_grids, boxes_xyxy=video_boxes_xyxy, projected=projected_videos),
    lora_targets={
        "decoder": r"model\.language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)",
        "projector": r"model\.multi_modal_projector\.linear_\d",
        "vision_tower": r"model\.vision_tower\.(vision_model\.)?encoder\.layers\.\d+"
        r"\.(self_attn\.(q_proj|k_proj|v_proj|out_proj)|mlp\.fc\d)",
    },
    # Those of the Visual Genome and RefCOCO samples of LLaVA-1.5's mix, which is part of its training data.
    coordinates=Coordinates(
        unit="fractions",
        of_square=True,
        box="[{x0}, {y0}, {x1}, {y1}]",
        point=None,
        frame=None,
        source="https://github.com/haotian-liu/LLaVA/issues/606",
    ),
    models=(
        PublishedModel(id="llava-hf/llava-onevision-qwen2-0.5b-ov-hf", parameters="0.5B", licence="Apache-2.0"),
        PublishedModel(id="llava-hf/llava-onevision-qwen2-7b-ov-hf", parameters="7B", licence="Apache-2.0"),
        PublishedModel(id="llava-hf/llava-onevision-qwen2-72b-ov-hf", parameters="72B", licence="Apache-2.0"),
    ),
    tiny=tiny,
)
