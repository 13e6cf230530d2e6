"""What an adapter and a backbone promise: the two specs that plugins register, and the values in between.

The host speaks to plugins only in these terms. An adapter never sees a backbone, a backbone never an adapter.

Shape letters: R regions of a batch, P patches of a view (all its grids, concatenated), M (region, patch)
pairs inside a mask, C vision width, D decoder width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np

from ..errors import PixelReferError
from ..regions.region import Box, FloatBox, Region, RegionMask, VideoRegion

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import nn

    from ..media.video import Video
    from .samples import RecordPlace, RegionSample

Resample = Literal["bicubic", "opencv_linear", "opencv_area"]
"""How a part of a picture is resized: antialiased bicubic, or `cv2.resize` with INTER_LINEAR or INTER_AREA."""

_RESAMPLES = ("bicubic", "opencv_linear", "opencv_area")

Framework = Literal["vision-object", "object-only"]
"""What the decoder sees: scene tokens and object tokens, or object tokens alone."""

_FRAMEWORKS = ("vision-object", "object-only")

PromptKind = Literal["points", "box", "mask"]
"""How a region was drawn: clicks, a box, or anything that is read by its pixels."""

_PRESET = "preset"


@dataclass(frozen=True)
class PatchGeometry:
    """How a backbone's vision tower cuts pixels into patches.

    Attributes:
        patch_size: side of a square patch in pixels; Ω of the paper is its square.
        grid_multiple: rows and columns of a crop's grid must be multiples of this (2 for towers that merge
            2x2 patches).
    """

    patch_size: int
    grid_multiple: int = 1

    def whole_patches(self, side_px: float) -> int:
        """The nearest allowed number of patches for a side of `side_px`, at least `grid_multiple`."""
        step = self.patch_size * self.grid_multiple
        return max(1, round(side_px / step)) * self.grid_multiple


@dataclass(frozen=True, eq=False)
class CropView:
    """A part of the image, resized to whole patches, that the vision tower shall encode.

    Attributes:
        box_xyxy: the part, in original pixels, end-exclusive.
        grid_hw: patches it is resized to; its pixels are `grid_hw * patch_size`.
        mask: `(h, w)` float32 weights of the patches that belong to the region; zero elsewhere, and everywhere
            where it has no patch. None where the adapter reads the whole grid: the view then has no (region,
            patch) pairs.
        resample: how the part becomes those pixels. The two of OpenCV are its very calls on the uint8 RGB part.
        encoded_hw: patches that the tower is given instead, where `grid_hw` is more than it may be given. The
            pixels are brought on to `encoded_hw * patch_size` by antialiased bicubic, and the features are
            stretched back to `grid_hw` bilinearly, as torch's `interpolate(align_corners=False)` does, where the
            mask reads them. None: `grid_hw`.
    """

    box_xyxy: Box
    grid_hw: tuple[int, int]
    mask: np.ndarray | None = None
    resample: Resample = "bicubic"
    encoded_hw: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        _require_integers("CropView.box_xyxy", self.box_xyxy, length=4)
        _require_integers("CropView.grid_hw", self.grid_hw, length=2)
        if self.encoded_hw is not None:
            _require_integers("CropView.encoded_hw", self.encoded_hw, length=2)
        if self.resample not in _RESAMPLES:
            raise PixelReferError(
                f"CropView.resample must be one of {', '.join(map(repr, _RESAMPLES))}, got {self.resample!r}."
            )
        if self.mask is not None and self.mask.shape != tuple(self.grid_hw):
            raise PixelReferError(
                f"CropView.mask must be one weight per patch, {tuple(self.grid_hw)}, got {self.mask.shape}."
            )

    @property
    def tower_hw(self) -> tuple[int, int]:
        """Rows and columns of patches that the tower is given: `encoded_hw`, or else `grid_hw`."""
        return self.encoded_hw or self.grid_hw


def _require_integers(name: str, value: Any, *, length: int) -> None:
    if not isinstance(value, tuple) or len(value) != length or any(int(each) != each for each in value):
        raise PixelReferError(f"{name} must be a tuple of {length} integers, got {value!r}.")


@dataclass(frozen=True)
class SceneView:
    """The image as the backbone's own vision pass encodes it: captured there, never computed twice.

    Its mask is the share of each patch that the region covers (`RegionMask.coverage`).
    """


@dataclass(frozen=True)
class PromptView:
    """The region as it was drawn, clicks or a box, rather than its pixels. Nothing is encoded for it; the module is
    given an `EncodedPrompts` in its place."""


View = CropView | SceneView | PromptView


@dataclass(frozen=True)
class RegionPlan:
    """What one region costs, known before anything is encoded.

    Attributes:
        num_tokens: object tokens that the adapter will return for it; as many placeholders are written.
        views: what must be encoded. All regions of one adapter have the same views in the same order.
    """

    num_tokens: int
    views: tuple[View, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.num_tokens, int | np.integer) or self.num_tokens < 1:
            raise PixelReferError(f"RegionPlan.num_tokens must be an integer >= 1, got {self.num_tokens!r}.")
        is_tuple = isinstance(self.views, tuple) and bool(self.views)
        if not is_tuple or not all(isinstance(view, CropView | SceneView | PromptView) for view in self.views):
            raise PixelReferError(f"RegionPlan.views must be a tuple of views, at least one, got {self.views!r}.")

    @property
    def view_kinds(self) -> tuple[str, ...]:
        """What its views are, for comparison: a crop that is read whole is of another kind than one with a mask."""
        return tuple(
            "whole crop" if isinstance(view, CropView) and view.mask is None else type(view).__name__
            for view in self.views
        )


@dataclass(frozen=True, eq=False)
class FeatureGrids:
    """Patch features of several images or crops, concatenated.

    Attributes:
        features: `(P, C)`, grid after grid, each in raster order (row by row, left to right).
        grids_hw: rows and columns of each grid; their areas add up to P.
    """

    features: torch.Tensor
    grids_hw: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        total = sum(h * w for h, w in self.grids_hw)
        assert tuple(self.features.shape[:-1]) == (total,), (
            f"FeatureGrids.features must be (P, C) with P = {total} for grids {self.grids_hw}, "
            f"got {tuple(self.features.shape)}"
        )

    @classmethod
    def joined(cls, parts: Sequence[FeatureGrids]) -> FeatureGrids:
        """The grids of several, one after another."""
        if len(parts) == 1:
            return parts[0]
        import torch

        return cls(torch.cat([part.features for part in parts]), sum((part.grids_hw for part in parts), ()))

    def __len__(self) -> int:
        return len(self.grids_hw)

    def __getitem__(self, index: int) -> torch.Tensor:
        """Grid `index` as `(h, w, C)`."""
        start = sum(h * w for h, w in self.grids_hw[:index])
        h, w = self.grids_hw[index]
        return self.features[start : start + h * w].view(h, w, -1)

    def merged(self, side: int) -> FeatureGrids:
        """Cells of `side * side` patches, each as one vector: its patches row by row.

        Returns:
            Grids of `(h / side, w / side)` cells of width `side**2 * C`; these grids themselves where `side` is 1.
        """
        if side == 1:
            return self
        assert all(h % side == w % side == 0 for h, w in self.grids_hw), f"no cells of {side}x{side} in {self.grids_hw}"
        import torch

        rows, first = [], 0
        for h, w in self.grids_hw:
            patches = torch.arange(first, first + h * w).view(h // side, side, w // side, side)
            rows.append(patches.transpose(1, 2).flatten())
            first += h * w
        cells = self.features[torch.cat(rows).to(self.features.device)].view(first // side**2, -1)
        return FeatureGrids(cells, tuple((h // side, w // side) for h, w in self.grids_hw))


@dataclass(frozen=True, eq=False)
class Corners:
    """The patches that each (region, patch) pair is blended of, where the features of a view are stretched.

    Attributes:
        rows: `(K,)` int64, rows of the features: four for a pair that lies between patches, else one.
        weights: `(K,)` float32, each row's share; those of a pair add up to 1.
        starts: `(M,)` int64, where the rows of each pair begin.
    """

    rows: torch.Tensor
    weights: torch.Tensor
    starts: torch.Tensor


@dataclass(frozen=True, eq=False)
class EncodedView:
    """One view of all regions of a batch, encoded: what an adapter's module reads.

    The masks come as coordinates, so that selecting inside them is one gather and needs no device sync.

    Attributes:
        grids: the patch features of this view as the tower made them; `grids.features` is `(P, C)`.
        grid_of_region: for each region, which grid it reads; regions may share one.
        patch_rows: `(M,)` int64, rows of `grids.features` inside each region's mask, region by region; the nearest
            ones where the features are stretched (`CropView.encoded_hw`). `patch_features` reads both.
        patch_weights: `(M,)` float32, that mask's weight there.
        patch_ij: `(M, 2)` float32, row and column of the patch in its grid; between patches where the features
            are stretched.
        region_of_patch: `(M,)` int64, the region of each pair, ascending.
        patches_per_region: for each region how many pairs are its own; sums to M.
        boxes_xyxy: `(R, 4)` float32, the part of the image that each region's grid spans.
        images_hw: `(R, 2)` float32, the size of each region's image.
        corners: what stretched features are blended of; None where no grid of the view is stretched.
    """

    grids: FeatureGrids
    grid_of_region: tuple[int, ...]
    patch_rows: torch.Tensor
    patch_weights: torch.Tensor
    patch_ij: torch.Tensor
    region_of_patch: torch.Tensor
    patches_per_region: tuple[int, ...]
    boxes_xyxy: torch.Tensor
    images_hw: torch.Tensor
    corners: Corners | None = None

    def patch_features(self) -> torch.Tensor:
        """The features inside the masks, stretched where the tower was given fewer patches than the mask has.

        Returns:
            `(M, C)`, a copy in the features' dtype, region by region.
        """
        features = self.grids.features
        if self.corners is None:
            return features[self.patch_rows]
        import torch
        from torch.nn.functional import embedding_bag

        # A weighted sum of rows: no (K, C) copy. As `interpolate` does, in float32 where the features are of half.
        exact = features.to(torch.promote_types(features.dtype, torch.float32))
        weights = self.corners.weights.to(exact.dtype)
        blended = embedding_bag(self.corners.rows, exact, self.corners.starts, mode="sum", per_sample_weights=weights)
        return blended.to(features.dtype)


@dataclass(frozen=True, eq=False)
class EncodedPrompts:
    """The regions of a batch as they were drawn: what a `PromptView` becomes.

    Attributes:
        kinds: of each region: `points` for clicks, `box`, or `mask` for one that is read by its pixels, of which
            there are no points here.
        points_xy: `(Q, 2)` float32, region by region, in original pixels: the clicks, or the upper left and the lower
            right corner of a box.
        region_of_point: `(Q,)` int64, ascending.
        images_hw: `(R, 2)` float32, the size of each region's picture.
        frame_position: `(R,)` float32, which of the sampled frames of its video each region lies on, from 0; 0 on an
            image.
        num_frames: `(R,)` float32, how many frames of that video are sampled; 1 for an image.
    """

    kinds: tuple[PromptKind, ...]
    points_xy: torch.Tensor
    region_of_point: torch.Tensor
    images_hw: torch.Tensor
    frame_position: torch.Tensor
    num_frames: torch.Tensor


@dataclass(frozen=True, eq=False)
class Clips:
    """The pictures that a batch's masks are made on. A clip is one picture, or the sampled frames of one video.

    Attributes:
        pixels: `(N, 3, px, px)` uint8 RGB, clip after clip, each picture squeezed to the head's square.
        lengths: pictures of each clip; they add up to N.
    """

    pixels: torch.Tensor
    lengths: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class MaskTargets:
    """What the masks of a batch should be. K counts (object, picture) pairs: object by object, each on all pictures of
    its clip in order.

    Attributes:
        masks: `(A, px, px)` bool, the annotated ones, squeezed as the pictures are.
        row_of_pair: `(K,)` int64, the row of `masks` of each pair; `ABSENT` where the object is known not to be on that
            picture, `UNKNOWN` where nothing is known.
    """

    masks: torch.Tensor
    row_of_pair: torch.Tensor

    ABSENT: ClassVar[int] = -1
    UNKNOWN: ClassVar[int] = -2


@dataclass(frozen=True, eq=False)
class PredictedMasks:
    """Masks as a head gives them, for the (object, picture) pairs of `MaskTargets`.

    Attributes:
        logits: `(K, h, w)` on the head's square at any resolution, above zero inside.
        iou: `(K,)` what the head believes the mask's IoU to be.
        presence: `(K,)` logit of whether the object is on that picture at all.
    """

    logits: torch.Tensor
    iou: torch.Tensor
    presence: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class MaskHeadSpec:
    """Masks beside text: what an adapter's module reads in the decoder, and where.

    In an answer, the token stands for an object; its mask is made from the hidden state that predicts it: that of the
    position before, behind the decoder's last layer and before its final norm. It is captured by a hook of one call.

    The adapter's module has two methods. S counts the objects of a batch.

        predict_masks(hidden (S, D), clips, clip_of_object) -> PredictedMasks
        mask_losses(hidden (S, D), clips, clip_of_object, targets) -> {name: (S,) weighted loss of each object}

    `clip_of_object` is a sequence of S indices into the clips. Both encode each picture once, whatever the objects.

    Attributes:
        token: what stands for a mask in an answer, such as `<seg>`. Its rows of the embedding and of the head train.
        picture_px: `picture_px(config) -> int`, side of the square that pictures are squeezed to.
        max_objects: `max_objects(config) -> int`, of one training sample.
    """

    token: str
    picture_px: Callable[[Any], int]
    max_objects: Callable[[Any], int]


@dataclass(frozen=True, kw_only=True)
class AdapterRecipe:
    """What an adapter's authors train, and how fast.

    Attributes:
        about: what it is for, in a line.
        rates: learning rate of each parameter group that trains: those of `pixelrefer train`, or `adapter.PART` for
            a part of the adapter's module, by its dotted path there. None: that part stays as it is, though the whole
            trains.
        lora: options of `RegionModel.add_lora` that its LoRA has by default; None: it adds none.
    """

    about: str
    rates: Mapping[str, float | None]
    lora: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class AdapterSpec:
    """An adapter: how a region becomes object tokens.

    A region of a video is planned and tokenized frame by frame, as if each of its frames were an image.

    Attributes:
        name: what users call it.
        config: frozen dataclass of its options, each with a default; checks itself in `__post_init__`.
        plan: `plan(config, mask, geometry) -> RegionPlan`. Pure, on the CPU, one region at a time.
        build: `build(config, vision_width=C, decoder_width=D) -> nn.Module`. The module is called with one
            `EncodedView` per view and `counts`, the tokens promised per region, and returns `(sum(counts), D)`.
            A module with a method `set_attn_implementation(name)` is told what the backbone was loaded with; one with
            `start_from(projector_layers)` is given, when it is attached untrained, the linear layers of the backbone's
            projector, none where its plugin does not name them or they are quantized.
        framework: `vision-object` when scene tokens stay in the sequence. `object-only` when the decoder sees
            object tokens and text alone: the backbone's own image path is not run, so no view may be a
            `SceneView`.
        presets: named sets of options, such as those of published weights. Options beside a preset override it.
        plan_together: `plan_together(config, plans) -> plans`, for adapters whose regions on one picture depend on
            each other: the plans of one conversation's regions on one picture or video frame, in their order;
            as many come back. Pure. None: each region's plan stands.
        frame_label: `frame_label(config, time_s) -> str`, what stands before a frame's object tokens in an
            Object-Only video. None: `Time 1.0s:`.
        plan_drawn: `plan_drawn(config, region) -> RegionPlan | None`, for adapters that read clicks and boxes as they
            were drawn: the plan of a region whose tokens stand where its `<region>` does. None for one that is read by
            its mask, with `plan`: an object of the conversation's memory, introduced by a number before the first
            question. Without `plan_drawn` all regions are planned by their masks and stand where their `<region>` does.
        reads_merged: its scene views are on the grid of the decoder's scene tokens
            (`BackboneSpec.merged_side`), and `vision_width` is that of a merged cell. Frames of an object that share
            one such grid are planned together, by the union of their masks. No view may be a `CropView`.
        mask_head: what it reads in the decoder to give masks. None: it gives text alone.
        recipes: recipes of its own for `pixelrefer train`, by name.
        tiny: options that make it small, for tests and the conformance kit, as `BackboneSpec.tiny` makes a backbone.
    """

    name: str
    config: type[Any]
    plan: Callable[[Any, RegionMask, PatchGeometry], RegionPlan]
    build: Callable[..., nn.Module]
    framework: Framework = "vision-object"
    presets: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    plan_together: Callable[[Any, Sequence[RegionPlan]], Sequence[RegionPlan]] | None = None
    frame_label: Callable[[Any, float], str] | None = None
    plan_drawn: Callable[[Any, Region], RegionPlan | None] | None = None
    reads_merged: bool = False
    mask_head: MaskHeadSpec | None = None
    recipes: Mapping[str, AdapterRecipe] = dataclasses.field(default_factory=dict)
    tiny: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.framework not in _FRAMEWORKS:
            raise PixelReferError(
                f"AdapterSpec.framework of '{self.name}' must be {' or '.join(map(repr, _FRAMEWORKS))}, "
                f"got {self.framework!r}."
            )
        if _PRESET in getattr(self.config, "__dataclass_fields__", {}):
            raise PixelReferError(
                f"{self.config.__name__} has an option '{_PRESET}', the word that names one of AdapterSpec.presets "
                "among an adapter's options. Call it something else."
            )

    def make_config(self, options: Mapping[str, Any] | Any | None = None) -> Any:
        """A checked config from keyword options, from a preset, from a config object, or the default one.

        Args:
            options: options as a mapping, in which `preset` names a preset that the others override; the name of
                a preset; or a config object.

        Raises:
            PixelReferError: an unknown option or preset (the known ones are listed) or a value that breaks a rule.
        """
        if isinstance(options, str):
            options = self._preset(options)
        elif isinstance(options, Mapping) and _PRESET in options:
            own = {name: value for name, value in options.items() if name != _PRESET}
            options = {**self._preset(options[_PRESET]), **own}
        return _make_config(self.config, options, owner=f"adapter '{self.name}'")

    def _preset(self, name: Any) -> Mapping[str, Any]:
        if not isinstance(name, str) or name not in self.presets:
            raise PixelReferError(
                f"Adapter '{self.name}' has no preset {name!r}. Its presets: {', '.join(self.presets) or 'none'}."
            )
        return self.presets[name]


class RegionSource(Protocol):
    """Turns prompts (boxes, clicks, rough masks) into masks. What a `RegionSourceSpec` builds.

    Prompts lie inside their pictures and on sampled frames: the host sees to that, and names an object for which
    None is returned.
    """

    def segment(self, image: Image.Image, prompts: Sequence[Region]) -> Sequence[Region | None]:
        """The mask of each prompt on one picture, which is encoded once; None where nothing is found."""
        ...

    def track(self, video: Video, prompts: Sequence[VideoRegion]) -> Sequence[VideoRegion | None]:
        """The mask of each prompt on every sampled frame where the object is seen, before and after the
        frames that the prompt names; all objects in one pass. None where it is seen nowhere."""
        ...


@dataclass(frozen=True, kw_only=True)
class RegionSourceSpec:
    """A region source: a model that finds an object's mask from a box or clicks.

    Attributes:
        name: what users call it.
        config: frozen dataclass of its options, each with a default; checks itself in `__post_init__`.
        build: `build(config) -> RegionSource`: loads the model.
    """

    name: str
    config: type[Any]
    build: Callable[[Any], RegionSource]

    def make_config(self, options: Mapping[str, Any] | Any | None = None) -> Any:
        """As `AdapterSpec.make_config`."""
        return _make_config(self.config, options, owner=f"region source '{self.name}'")


class SampleFile(Protocol):
    """The samples of one file, read when they are asked for.

    `__getitem__` raises `SampleError` for a sample that cannot be used, and can do so for each one anew.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> RegionSample: ...


@dataclass(frozen=True, kw_only=True)
class DataFormatSpec:
    """A data format: how the records of a file become training samples.

    A format whose file is a list of independent records (JSON Lines, or a JSON array) gives `read_record`; the
    host finds the records, reads each when it is needed, and takes rows of a Hugging Face dataset the same way. One
    whose file has to be read as a whole, such as COCO's, gives `open_file` instead.

    Attributes:
        name: what users call it.
        config: frozen dataclass of its options, each with a default; checks itself in `__post_init__`.
        recognises: `recognises(record) -> bool`: whether a file is of this format, by its first record, or by the
            top-level object of a JSON file that holds one (long lists in it are cut short). Must not say yes to
            another format's.
        read_record: `read_record(config, record, place) -> RegionSample`; raises `SampleError`
            (`place.error(id, defects)`) with everything that is wrong with the record.
        open_file: `open_file(config, path, media_root) -> SampleFile`.
    """

    name: str
    config: type[Any]
    recognises: Callable[[Mapping[str, Any]], bool]
    read_record: Callable[[Any, Mapping[str, Any], RecordPlace], RegionSample] | None = None
    open_file: Callable[[Any, Path, Path], SampleFile] | None = None

    def __post_init__(self) -> None:
        if (self.read_record is None) == (self.open_file is None):
            raise PixelReferError(f"DataFormatSpec '{self.name}' must have read_record or open_file, and not both.")

    def make_config(self, options: Mapping[str, Any] | Any | None = None) -> Any:
        """As `AdapterSpec.make_config`."""
        return _make_config(self.config, options, owner=f"data format '{self.name}'")


def _make_config(config: type[Any], options: Mapping[str, Any] | Any | None, *, owner: str) -> Any:
    if isinstance(options, config):
        return options
    if options is not None and not isinstance(options, Mapping):
        raise PixelReferError(
            f"Options of {owner} must be a mapping or a {config.__name__}, got {type(options).__name__}."
        )
    known = [item.name for item in dataclasses.fields(config)]
    unknown = sorted(set(options or {}) - set(known))
    if unknown:
        raise PixelReferError(
            f"{owner.capitalize()} has no option {', '.join(map(repr, unknown))}. Its options: {', '.join(known)}."
        )
    try:
        return config(**(options or {}))
    except TypeError as error:  # a check compared a value of the wrong type
        raise PixelReferError(f"{owner.capitalize()} was given an option of the wrong type: {error}.") from error


def check_field(condition: bool, config: Any, name: str, rule: str) -> None:
    """Refuse a config value: names the field, the rule, and what was got.

    Raises:
        PixelReferError: `condition` is false.
    """
    if not condition:
        raise PixelReferError(f"{type(config).__name__}.{name} must be {rule}, got {getattr(config, name)!r}.")


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
