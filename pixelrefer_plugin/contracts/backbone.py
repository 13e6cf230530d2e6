"""A backbone's contract: how one family of multimodal LLMs is read and fed. It knows no adapter."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import PixelReferError
from ..regions.mask import FloatBox
from .views import FeatureGrids, PatchGeometry

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class VideoScene:
    """How a backbone's own vision pass sees videos, for adapters that read its features (`SceneView`).

    The tower is called once for all videos of a batch, after its call for the images where there are any.

    Attributes:
        grids: `grids(model, inputs, tower_output) -> FeatureGrids`, video after video in the order of time.
        grids_hw: `grids_hw(config, inputs) -> ((h, w), ...)`, those grids' sizes, known beforehand.
        frames_per_grid: `frames_per_grid(config) -> int`, consecutive frames that one grid stands for; a last
            grid may stand for fewer.
        box_xyxy: `box_xyxy(config, frame_hw) -> (x0, y0, x1, y1)`, what a grid spans, in pixels of its frame.
            None: the whole frame.
    """

    grids: Callable[[Any, Mapping[str, Any], Any], FeatureGrids]
    grids_hw: Callable[[Any, Mapping[str, Any]], tuple[tuple[int, int], ...]]
    frames_per_grid: Callable[[Any], int]
    box_xyxy: Callable[[Any, tuple[int, int]], FloatBox] | None = None


@dataclass(frozen=True, kw_only=True)
class CheckpointLayout:
    """A layout, other than transformers' own, that a backbone's checkpoints also come in.

    Their files are read as data; code that lies beside them is never run.

    Attributes:
        key_mapping: pairs of a regular expression and its replacement: the first that matches the start of a
            weight's key makes it the native one. A weight that none matches is not the backbone's.
        make_processor: `make_processor(folder, data, preprocessing) -> processor`, the native one. `data` is what
            `config.json` holds, `preprocessing` what `preprocessor_config.json` holds, the vision tower's where that
            has a folder of its own.
        make_config: `make_config(data, shapes, tower, processor) -> config`, the native one. `shapes` are those of the
            weights under their native keys, `tower` is the vision tower's own `config.json`, None where it has none.
        vision_tower: `vision_tower(data) -> str | None`, the folder or hub id that `data` names as the vision
            tower's. None: the tower's config is within the checkpoint's.
        tower_prefix: what stands before the keys of a tower's own folder where its weights are within a checkpoint.
    """

    key_mapping: tuple[tuple[str, str], ...]
    make_processor: Callable[[Path, Mapping[str, Any], Mapping[str, Any]], Any]
    make_config: Callable[[Mapping[str, Any], Mapping[str, tuple[int, ...]], Mapping[str, Any] | None, Any], Any]
    vision_tower: Callable[[Mapping[str, Any]], str | None]
    tower_prefix: str


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """A backbone: how one family of multimodal LLMs is read and fed. Mostly data.

    Dotted paths are looked up on the live model when it is attached, so a renamed module fails loudly.

    Attributes:
        name: what users call it.
        model_types: the Hugging Face `config.model_type`s it serves.
        model_class: the native transformers class, for loading checkpoints.
        vision_tower: path of the module whose call encodes images.
        projector: path of the module that maps vision features to the decoder.
        decoder: path of the text decoder, where object tokens are spliced in.
        token_embedding: path of the decoder's token embedding.
        geometry: `geometry(config) -> PatchGeometry`.
        vision_width: `vision_width(config) -> C`, the width of what `encode_crops` returns.
        encode_crops: `encode_crops(model, crops) -> FeatureGrids`. `crops` are `(3, H, W)` float tensors,
            normalised as the backbone's image processor does, sides whole multiples of the grid. One packed
            tower call where the tower allows.
        scene_grids: `scene_grids(model, inputs, tower_output) -> FeatureGrids`, one grid per image, from what
            the tower returned in the native pass; `inputs` are the native processor's tensors. The same
            features as `encode_crops` gives: an adapter may read both.
        scene_grids_hw: `scene_grids_hw(config, inputs) -> ((h, w), ...)`, those grids' sizes, known beforehand.
        scene_boxes_xyxy: `scene_boxes_xyxy(config, inputs) -> ((x0, y0, x1, y1), ...)`, what each of those
            grids spans, in pixels of its original image; beyond it where the backbone pads. None: the whole
            image.
        lora_targets: regular expressions of the linear layers that LoRA may adapt, per scope: `decoder`,
            and where wanted `projector`, `vision_tower`.
        video_scene: how its own pass sees videos. None: it takes none, or adapters cannot read its features of
            them; those that read crops only do not need it.
        tiny: `tiny(seed) -> (model, processor)`: the real classes with a tiny random config, made in memory.
        layouts: other layouts of its checkpoints, by the `model_type` of their `config.json`.
        resize_frames: `resize_frames(video_processor, frames_nhwc) -> frames_nhwc`, a video's frames at the size that
            its video processor brings them to, where that is to be done otherwise than the processor does it.
        merged_side: `merged_side(config) -> int`, where the projector reads square cells of patches, each as one
            vector, the patches of such a cell in a row. None: it reads patches, or what the tower merged itself.
        cell_norm: path of a norm of the projector's that such a cell goes through whole before the first linear layer.
        projector_layers: paths of the projector's linear layers, first to last.
        final_norm: path of the norm behind the decoder's last layer. None: `norm` in the decoder.
    """

    name: str
    model_types: tuple[str, ...]
    model_class: type[Any]
    vision_tower: str
    projector: str
    decoder: str
    token_embedding: str
    geometry: Callable[[Any], PatchGeometry]
    vision_width: Callable[[Any], int]
    encode_crops: Callable[[Any, list[torch.Tensor]], FeatureGrids]
    scene_grids: Callable[[Any, Mapping[str, Any], Any], FeatureGrids]
    scene_grids_hw: Callable[[Any, Mapping[str, Any]], tuple[tuple[int, int], ...]]
    lora_targets: Mapping[str, str]
    tiny: Callable[[int], tuple[Any, Any]]
    scene_boxes_xyxy: Callable[[Any, Mapping[str, Any]], tuple[FloatBox, ...]] | None = None
    video_scene: VideoScene | None = None
    layouts: Mapping[str, CheckpointLayout] = dataclasses.field(default_factory=dict)
    resize_frames: Callable[[Any, np.ndarray], np.ndarray] | None = None
    merged_side: Callable[[Any], int] | None = None
    cell_norm: str | None = None
    projector_layers: tuple[str, ...] = ()
    final_norm: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.model_types, str):  # ("qwen2_vl") is no tuple, and `in` would match parts of it
            raise PixelReferError(
                f"BackboneSpec.model_types must be a tuple of names, got '{self.model_types}'. "
                f"Write ('{self.model_types}',)."
            )
