"""A backbone's contract: how one family of multimodal LLMs is read and fed. It knows no adapter.

A spec is made of parts, mostly data: where the modules are (`Parts`), how crops are encoded (`Crops`), how the
backbone's own pass sees pictures and videos (`Scene`), what its projector reads (`Cells`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..errors import PixelReferError, shown
from ..regions.mask import FloatBox
from .checks import (
    require_callables,
    require_items,
    require_kinds,
    require_known,
    require_name,
    require_patterns,
    require_texts,
    require_values,
)
from .views import PatchGeometry

if TYPE_CHECKING:
    import torch

    from .encoded import FeatureGrids

LORA_SCOPES = ("decoder", "projector", "vision_tower")
"""Parts of a backbone whose linear layers LoRA may adapt."""

GridsHw = tuple[tuple[int, int], ...]
"""Rows and columns of several grids."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Where the parts of a backbone are in its model: dotted paths, looked up when it is attached.

    Attributes:
        vision_tower: the module whose call encodes images.
        projector: the module that maps vision features to the decoder.
        decoder: the text decoder, where object tokens are spliced in.
        token_embedding: the decoder's token embedding.
        projector_layers: the projector's linear layers, first to last.
        final_norm: the norm behind the decoder's last layer. None: `norm` in the decoder.
        patches: the module in the vision tower that returns its patches, where the tower itself returns what it pooled
            of them. None: the tower returns them.
    """

    vision_tower: str
    projector: str
    decoder: str
    token_embedding: str
    projector_layers: tuple[str, ...] = ()
    final_norm: str | None = None
    patches: str | None = None

    def __post_init__(self) -> None:
        require_kinds(self, vision_tower=str, projector=str, decoder=str, token_embedding=str)
        require_kinds(self, final_norm=(str, type(None)), patches=(str, type(None)))
        require_texts(self, "projector_layers", optional=True)

    @property
    def norm(self) -> str:
        """Path of the norm behind the decoder's last layer."""
        return self.final_norm or f"{self.decoder}.norm"

    @property
    def scene_source(self) -> str:
        """Path of the module whose outputs `Scene.grids` is given."""
        return self.patches or self.vision_tower


@dataclass(frozen=True, kw_only=True)
class Crops:
    """How crops of any size go through the vision tower.

    Attributes:
        geometry: `geometry(config) -> PatchGeometry`.
        width: `width(config) -> C`, the width of what `encode` returns.
        encode: `encode(model, crops) -> FeatureGrids`. `crops` are `(3, H, W)` float tensors, normalised as the
            backbone's image processor does, sides whole multiples of the grid. One packed tower call where the tower
            allows.
    """

    geometry: Callable[[Any], PatchGeometry]
    width: Callable[[Any], int]
    encode: Callable[[Any, list[torch.Tensor]], FeatureGrids]

    def __post_init__(self) -> None:
        require_callables(self, "geometry", "width", "encode")


@dataclass(frozen=True)
class ShownMedium:
    """A picture or a video that a batch shows.

    Attributes:
        kind: which of the two it is.
        image_hw: height and width in original pixels, of a video those of its frames.
        num_frames: how many frames of a video are shown; 1 of an image.
    """

    kind: Literal["image", "video"]
    image_hw: tuple[int, int]
    num_frames: int = 1


@dataclass(frozen=True, eq=False)
class NativeCall:
    """A call of the backbone, as the functions of a `Scene` are told of it.

    Attributes:
        config: the backbone's config.
        inputs: the native processor's tensors.
        token_ids: ids of the tokens that the native processor and its tokenizer name, by attribute: `image_token`,
            `video_token`, ...; for families whose config does not have them.
        model: the backbone, while it is called; None where grids are only planned.
        shown: for each sample of the batch its pictures and videos, in the order of its messages; for families whose
            tensors do not tell pictures from videos, or not their shape. A call may hold each sample several times,
            row after row (beam search).
    """

    config: Any
    inputs: Mapping[str, Any]
    token_ids: Mapping[str, int] = dataclasses.field(default_factory=dict)
    model: Any = None
    shown: tuple[tuple[ShownMedium, ...], ...] = ()


def _one_frame(config: Any) -> int:
    return 1


@dataclass(frozen=True, kw_only=True)
class Scene:
    """How a backbone's own vision pass sees pictures, or videos, for adapters that read its features (`SceneView`).

    One grid for each picture in its order, or for each run of frames, video after video in the order of time.

    Attributes:
        grids_hw: `grids_hw(call) -> ((h, w), ...)`, the grids' sizes, known beforehand.
        grids: `grids(call, outputs) -> FeatureGrids`, from what each call of the vision tower, or of its
            `Parts.patches`, in this pass returned, in their order: the first is the images', where there are any,
            unless one call takes all media. The same features as `Crops.encode` gives: an adapter may read both.
        boxes_xyxy: `boxes_xyxy(call, sizes_hw) -> ((x0, y0, x1, y1), ...)`, what a grid spans of each picture, or of
            the frames of each video, whose sizes in original pixels are given; beyond it where the backbone pads.
            None: the whole of it.
        frames_per_grid: `frames_per_grid(config) -> int`, of videos: consecutive frames that one grid stands for; a
            last grid may stand for fewer.
        projected: `projected(call, outputs) -> FeatureGrids`, from what each call of the projector returned: the
            features of the decoder's scene tokens, on the grid of `Cells`. None: adapters cannot read them.
        resize_frames: `resize_frames(video_processor, frames_nhwc) -> frames_nhwc`, a video's frames at the size that
            its video processor brings them to, where that is to be done otherwise than the processor does it.
        least_frames: of videos: how many frames the video processor asks for; a shorter video has its last repeated.
    """

    grids_hw: Callable[[NativeCall], GridsHw]
    grids: Callable[[NativeCall, Sequence[Any]], FeatureGrids]
    boxes_xyxy: Callable[[NativeCall, Sequence[tuple[int, int]]], Sequence[FloatBox]] | None = None
    frames_per_grid: Callable[[Any], int] = _one_frame
    projected: Callable[[NativeCall, Sequence[Any]], FeatureGrids] | None = None
    resize_frames: Callable[[Any, np.ndarray], np.ndarray] | None = None
    least_frames: int = 1

    def __post_init__(self) -> None:
        optional = ("boxes_xyxy", "projected", "resize_frames")
        require_callables(self, "grids_hw", "grids", "frames_per_grid", optional=optional)
        require_kinds(self, least_frames=int)
        if self.least_frames < 1:
            raise PixelReferError(f"Scene.least_frames must be 1 or more, got {shown(self.least_frames)}.")


@dataclass(frozen=True, kw_only=True)
class Cells:
    """What the projector reads, where it joins square cells of patches, each as one vector.

    Attributes:
        side: `side(config) -> int`, rows and columns of patches in a cell.
        pooled: whether that vector is the mean of the cell's patches. Otherwise it is its patches in a row.
        norm: path of a norm of the projector's that such a cell goes through whole before the first linear layer.
    """

    side: Callable[[Any], int]
    norm: str | None = None
    pooled: bool = False

    def __post_init__(self) -> None:
        require_callables(self, "side")
        require_kinds(self, norm=(str, type(None)), pooled=bool)


SeenSize = Callable[[Any, tuple[int, int], int | None, Mapping[str, Any]], tuple[int, int]]
"""`seen_hw(processor, image_hw, num_frames, options) -> (h, w)`."""

_UNITS = ("pixels", "thousandths", "fractions")
_ROUNDINGS = ("nearest", "down")
_MOST_DECIMALS = 9
_OF_A_BOX = {"x0": "1", "y0": "2", "x1": "3", "y1": "4"}
_OF_A_POINT = {"x": "1", "y": "2"}
_OF_A_FRAME = {"number": 1, "time_s": 0.5}


@dataclass(frozen=True, kw_only=True)
class Coordinates:
    """How a backbone was trained to read and write coordinates in text.

    Attributes:
        unit: `pixels` of the picture as the backbone's processor resizes it; `thousandths` of its width and height,
            from 0 to 1000; `fractions` of them, from 0 to 1.
        box: how a box is written, a template with `{x0}`, `{y0}`, `{x1}`, `{y1}`.
        point: how a point is written, a template with `{x}` and `{y}`. None: it was not trained on points.
        frame: what stands before the coordinates on a frame of a video, a template with `{number}`, of the sampled
            frames from 1, and `{time_s}`, such as `{time_s:.1f}`. None: it was not trained on regions of videos.
        decimals: of fractions, at most: `0.8`, not `0.80`.
        rounding: of pixels and thousandths, to the `nearest` whole number or `down`.
        of_square: they count on the picture in the middle of the smallest square that holds it.
        seen_hw: `seen_hw(processor, image_hw, num_frames, options) -> (h, w)`: to which size the image processor, or
            for a number of frames the video processor, brings pictures of a size, with options of the call. Needed for
            pixels.
        source: where this is documented: an address, or a paper and its section.
    """

    unit: Literal["pixels", "thousandths", "fractions"]
    box: str
    point: str | None
    frame: str | None
    source: str
    decimals: int = 2
    rounding: Literal["nearest", "down"] = "nearest"
    of_square: bool = False
    seen_hw: SeenSize | None = None

    def __post_init__(self) -> None:
        text = (str, type(None))
        require_kinds(self, unit=str, box=str, point=text, frame=text, source=str, decimals=int, of_square=bool)
        require_callables(self, optional=("seen_hw",))
        for field, allowed in (("unit", _UNITS), ("rounding", _ROUNDINGS)):
            if (value := getattr(self, field)) not in allowed:
                raise PixelReferError(
                    f"Coordinates.{field} must be {' or '.join(map(repr, allowed))}, got {shown(value)}."
                )
        if not 1 <= self.decimals <= _MOST_DECIMALS:
            raise PixelReferError(f"Coordinates.decimals must be in 1..{_MOST_DECIMALS}, got {shown(self.decimals)}.")
        if self.unit == "pixels" and self.seen_hw is None:
            raise PixelReferError("Coordinates in pixels need seen_hw, the size that a picture is brought to.")
        for field, values in (("box", _OF_A_BOX), ("point", _OF_A_POINT), ("frame", _OF_A_FRAME)):
            _require_template(field, getattr(self, field), values)


def _require_template(field: str, template: str | None, values: Mapping[str, Any]) -> None:
    if template is None:
        return
    try:
        template.format(**values)
    except (LookupError, ValueError) as error:
        raise PixelReferError(
            f"Coordinates.{field} must be a template with {', '.join(f'{{{name}}}' for name in values)}, braces of its "
            f"own doubled; got {shown(template)}: {error}."
        ) from error
    named = {name for _, name, _, _ in Formatter().parse(template)}
    if field != "frame" and (missing := [name for name in values if name not in named]):
        raise PixelReferError(
            f"Coordinates.{field} must say {', '.join(f'{{{name}}}' for name in values)}; {shown(template)} leaves "
            f"{', '.join(missing)} out."
        )


@dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """A published model that a backbone plugin serves, for the table of backbones.

    Attributes:
        id: on the hub.
        parameters: how many, as its authors say, such as `3B`; of a mixture of experts `30B-A3B`.
        licence: as its model card names it.
    """

    id: str
    parameters: str
    licence: str

    def __post_init__(self) -> None:
        require_kinds(self, id=str, parameters=str, licence=str)


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

    def __post_init__(self) -> None:
        require_kinds(self, key_mapping=tuple, tower_prefix=str)
        require_callables(self, "make_processor", "make_config", "vision_tower")


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """A backbone: how one family of multimodal LLMs is read and fed. Mostly data.

    Attributes:
        name: what users call it.
        model_types: the Hugging Face `config.model_type`s it serves.
        model_class: the native transformers class, for loading checkpoints.
        parts: where its modules are.
        crops: how crops go through its vision tower.
        images: how its own pass sees images.
        videos: how its own pass sees videos. None: it takes none, or adapters cannot read its features of them; those
            that read crops only do not need it.
        tiles: where it cuts an image into tiles and shows it as a whole besides: the tiles, joined to one grid of each
            image. `images` is then the whole. None: it cuts none.
        cells: what its projector reads. None: patches, or what the tower joined itself.
        mixes_media: whether a batch may hold pictures and videos.
        joins_samples: whether the tensors of a batch are those of its samples, one after another, the texts' padded.
            Samples whose videos have several lengths then go through the native processor one by one, where it stacks
            the videos of a call.
        lora_targets: regular expressions of the linear layers that LoRA may adapt, per scope: `decoder`,
            and where wanted `projector`, `vision_tower`.
        layouts: other layouts of its checkpoints, by the `model_type` of their `config.json`.
        coordinates: how it was trained to read coordinates in text. None: it was not, or nothing is documented.
        pointing: the adapter without object tokens that commands take for a plain model, where the user names none.
        models: published models of the family that it serves.
        stand_in_id: `stand_in_id(config) -> int`, the id that the decoder is shown where object tokens stand, for
            families that look ids up in further tables than the token embedding. None: any, as no other table is read.
        tiny: `tiny(seed) -> (model, processor)`: the real classes with a tiny random config, made in memory.
    """

    name: str
    model_types: tuple[str, ...]
    model_class: type[Any]
    parts: Parts
    crops: Crops
    images: Scene
    lora_targets: Mapping[str, str]
    tiny: Callable[[int], tuple[Any, Any]]
    videos: Scene | None = None
    tiles: Scene | None = None
    cells: Cells | None = None
    mixes_media: bool = True
    joins_samples: bool = False
    layouts: Mapping[str, CheckpointLayout] = dataclasses.field(default_factory=dict)
    coordinates: Coordinates | None = None
    pointing: str = "marks"
    models: tuple[PublishedModel, ...] = ()
    stand_in_id: Callable[[Any], int] | None = None

    def __post_init__(self) -> None:
        require_name(self)
        require_texts(self, "model_types")
        require_kinds(self, model_class=type, parts=Parts, crops=Crops, images=Scene, mixes_media=bool, layouts=Mapping)
        require_kinds(self, joins_samples=bool)
        scene = (Scene, type(None))
        require_kinds(self, videos=scene, tiles=scene, cells=(Cells, type(None)))
        require_kinds(self, coordinates=(Coordinates, type(None)), models=tuple, pointing=str)
        require_items(self, models=PublishedModel)
        require_patterns(self, "lora_targets")
        require_known(self, "lora_targets", LORA_SCOPES)
        require_values(self, "layouts", CheckpointLayout)
        require_callables(self, "tiny", optional=("stand_in_id",))

    def cell_side(self, config: Any) -> int:
        """Rows and columns of patches that a scene token stands for in the tower's grids; 1 where it is one patch."""
        return 1 if self.cells is None else self.cells.side(config)

    def cell_patches(self, config: Any) -> int:
        """How many patches' features stand in a row in what the projector reads of a cell."""
        return 1 if self.cells is None or self.cells.pooled else self.cells.side(config) ** 2
