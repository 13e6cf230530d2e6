"""Layouts: where each region's features lie in the encoded views of a batch, as (region, patch) pairs.

Made before anything is encoded; with the features of the crops or of the scene a layout becomes what an adapter reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import torch
from torch import Tensor

from ..contracts.adapter import SceneFeatures
from ..contracts.backbone import ShownMedium
from ..contracts.encoded import DrawnKind, EncodedPrompts, EncodedView, FeatureGrids, PatchRows
from ..contracts.views import CropView, RegionPlan
from ..errors import PluginError, SpliceError, shown
from ..regions.mask import Box, FloatBox, RegionMask
from ..regions.region import Region
from .crops import Crop


@dataclass(frozen=True, eq=False)
class PlannedRegion:
    """One region on one picture, with its plan.

    Attributes:
        mask: its pixels on its picture. None where no view of the plan reads the scene: nothing else needs them.
        box_xyxy: its own box, end-exclusive; None where it is read as it was drawn alone.
        plan: what the adapter asks for.
        picture: that picture's index among all pictures of the batch.
        drawn: the clicks or the box, where it was planned as it was drawn; None where it is read by its mask.
        frame_position: which of the sampled frames of its video that picture is, from 0; 0 on an image.
        num_frames: how many frames of that video are sampled; 1 for an image.
        number: which of the regions given with its sample it is, counted along all markers; None where it was not
            given with the sample (an object of an `ObjectMemory`).
    """

    mask: RegionMask | None
    box_xyxy: Box | None
    plan: RegionPlan
    picture: int
    drawn: Region | None = None
    frame_position: int = 0
    num_frames: int = 1
    number: int | None = None


@dataclass(frozen=True)
class SceneGrids:
    """One way in which the backbone's own pass shows the pictures of a batch: whole, or the tiles of each.

    Attributes:
        grids_hw: rows and columns of each grid: the images', then the videos'.
        boxes_xyxy: per picture what its grid spans, in its original pixels.
    """

    grids_hw: tuple[tuple[int, int], ...]
    boxes_xyxy: tuple[FloatBox, ...]


@dataclass(frozen=True)
class SceneLayout:
    """How the backbone's own vision pass will see the pictures of a batch.

    Attributes:
        whole: each picture as a whole; None where no region reads it so.
        tiled: each picture as its tiles; likewise.
        grid_of_picture: which grid shows each picture; frames may share one.
        image_grids_per_sample: how many of the images' grids belong to each sample.
        video_grids_per_sample: how many of the videos' grids belong to each sample.
        features: what the features are.
        cell_side: rows and columns of patches that each of their cells joins; 1 where the features are of patches.
        shown: for each sample its pictures and videos, in the order of its messages.
    """

    whole: SceneGrids | None
    tiled: SceneGrids | None
    grid_of_picture: tuple[int, ...]
    image_grids_per_sample: tuple[int, ...]
    video_grids_per_sample: tuple[int, ...]
    features: SceneFeatures = "patches"
    cell_side: int = 1
    shown: tuple[tuple[ShownMedium, ...], ...] = ()

    def grids(self, *, tiled: bool) -> SceneGrids:
        """The grids of one way."""
        found = self.tiled if tiled else self.whole
        assert found is not None, "a scene is planned in each way that a view of the batch reads it"
        return found


@dataclass(frozen=True, eq=False)
class Features:
    """What was encoded for a batch.

    Attributes:
        crops: of its crops; None where it has none.
        scene: of the backbone's own pass, by whether the pictures are tiled; only what regions read.
    """

    crops: FeatureGrids | None
    scene: Mapping[bool, FeatureGrids] = field(default_factory=dict)

    def to(self, device: torch.device) -> Features:
        """The same on another device: the tower need not be where the adapter is."""
        scene = {tiled: _moved(grids, device) for tiled, grids in self.scene.items()}
        return Features(None if self.crops is None else _moved(self.crops, device), scene)


def _moved(grids: FeatureGrids, device: torch.device) -> FeatureGrids:
    return FeatureGrids(grids.features.to(device), grids.grids_hw)


@dataclass(frozen=True, eq=False)
class GridLayout:
    """One view of regions of a batch that read grids, before these are encoded; see `EncodedView` for the fields that
    they share.

    Attributes:
        crops: which crops of the batch are this view's grids; None when they are the scene's.
        tiled: where they are the scene's, whether they are the pictures' tiles.
        grids_hw: rows and columns of each grid.
    """

    crops: slice | None
    tiled: bool
    grids_hw: tuple[tuple[int, int], ...]
    regions: tuple[int, ...]
    grid_of_region: tuple[int, ...]
    patch_weights: Tensor
    patch_ij: Tensor
    region_of_patch: Tensor
    patches_per_region: tuple[int, ...]
    boxes_xyxy: Tensor
    region_boxes_xyxy: Tensor
    images_hw: Tensor
    rows: PatchRows

    def encoded(self, features: Features) -> EncodedView:
        """This view with its grids' features.

        Raises:
            SpliceError: the vision tower gave other grids than were planned.
        """
        grids = features.scene.get(self.tiled) if self.crops is None else _part(features.crops, self.crops)
        if grids is None or grids.grids_hw != self.grids_hw:
            raise SpliceError(
                f"The regions were planned on grids {self.grids_hw}, the vision tower gave {grids and grids.grids_hw}."
            )
        shared = {item.name: getattr(self, item.name) for item in fields(EncodedView) if item.name != "grids"}
        return EncodedView(grids=grids, **shared)


@dataclass(frozen=True, eq=False)
class PromptLayout:
    """A `PromptView` of regions of a batch. Nothing is left to encode.

    Attributes:
        prompts: the regions as they were drawn.
    """

    prompts: EncodedPrompts

    def encoded(self, features: Features) -> EncodedPrompts:
        """What the adapter's module reads."""
        return self.prompts


def _part(grids: FeatureGrids | None, which: slice) -> FeatureGrids | None:
    """A run of consecutive grids."""
    if grids is None or (which.start, which.stop) == (0, len(grids)):
        return grids
    areas = [h * w for h, w in grids.grids_hw]
    first, end = sum(areas[: which.start]), sum(areas[: which.stop])
    return FeatureGrids(grids.features[first:end], grids.grids_hw[which])


class LayoutSheet:
    """Lays out the views of a batch, and collects the crops that they ask for: a `BatchLayout`.

    Args:
        regions: all regions of the batch.
        images_hw: size of each one's picture.
        first_alike: for each picture of the batch the first that is the same object: conversations may share one.
        scene: how the backbone's own pass sees the pictures; None where no view reads it.
    """

    def __init__(
        self,
        regions: Sequence[PlannedRegion],
        *,
        images_hw: Sequence[tuple[int, int]],
        first_alike: Sequence[int],
        scene: SceneLayout | None,
    ) -> None:
        self.crops: list[Crop] = []
        self._regions = regions
        self._images_hw = images_hw
        self._first_alike = first_alike
        self._scene = scene

    def view(self, index: int) -> GridLayout | PromptLayout | None:
        """The view at one place of the plans, of the regions that have it; None where none has."""
        having = [(number, region.plan.views[index]) for number, region in enumerate(self._regions)]
        numbers = [number for number, view in having if view is not None]
        views = [view for _, view in having if view is not None]
        if not views:
            return None
        layout = type(views[0]).lay_out(self, numbers, views)
        if not isinstance(layout, GridLayout | PromptLayout):
            view = type(views[0]).__name__
            raise PluginError(f"{view}.lay_out must return what a method of its batch returned, got {shown(layout)}.")
        return layout

    def on_crops(self, numbers: Sequence[int], views: Sequence[CropView]) -> GridLayout:
        """See `BatchLayout`."""
        first, grid_of = len(self.crops), dict[Crop, int]()
        grid_of_region = []
        for number, view in zip(numbers, views, strict=True):
            picture = self._first_alike[self._regions[number].picture]
            crop = Crop(picture, view.box_xyxy, view.grid_hw, view.tower_hw, view.resample)
            grid_of_region.append(grid_of.setdefault(crop, len(grid_of)))
        self.crops.extend(grid_of)
        return self._layout(
            numbers,
            crops=slice(first, len(self.crops)),
            grids_hw=tuple(crop.tower_hw for crop in grid_of),
            grid_of_region=grid_of_region,
            masks=[_NO_PAIRS if view.mask is None else view.mask for view in views],
            boxes_xyxy=[view.box_xyxy for view in views],
        )

    def on_scene(self, numbers: Sequence[int], *, tiled: bool) -> GridLayout:
        """See `BatchLayout`."""
        assert self._scene is not None, "a scene is planned where a view reads it"
        scene, regions = self._scene.grids(tiled=tiled), [self._regions[number] for number in numbers]
        boxes = [scene.boxes_xyxy[region.picture] for region in regions]
        grid_of_region = [self._scene.grid_of_picture[region.picture] for region in regions]
        placed = zip(regions, boxes, grid_of_region, strict=True)
        return self._layout(
            numbers,
            tiled=tiled,
            grids_hw=scene.grids_hw,
            grid_of_region=grid_of_region,
            masks=[_scene_mask(region.mask, box, scene.grids_hw[grid]) for region, box, grid in placed],
            boxes_xyxy=boxes,
        )

    def as_drawn(self, numbers: Sequence[int]) -> PromptLayout:
        """See `BatchLayout`."""
        regions = [self._regions[number] for number in numbers]
        kinds, points = zip(*(_drawn_points(region.drawn) for region in regions), strict=True)
        region_of_point = np.repeat(np.arange(len(regions)), [len(each) for each in points])
        return PromptLayout(
            EncodedPrompts(
                regions=tuple(numbers),
                kinds=kinds,
                points_xy=torch.tensor([each for of_region in points for each in of_region]).float().view(-1, 2),
                region_of_point=torch.from_numpy(region_of_point),
                images_hw=self._sizes(numbers),
                frame_position=torch.tensor([region.frame_position for region in regions], dtype=torch.float32),
                num_frames=torch.tensor([region.num_frames for region in regions], dtype=torch.float32),
            )
        )

    def _sizes(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor([self._images_hw[number] for number in numbers], dtype=torch.float32)

    def _layout(
        self,
        numbers: Sequence[int],
        *,
        grids_hw: tuple[tuple[int, int], ...],
        grid_of_region: Sequence[int],
        masks: Sequence[np.ndarray],
        boxes_xyxy: Sequence[FloatBox],
        crops: slice | None = None,
        tiled: bool = False,
    ) -> GridLayout:
        """Masks as (region, patch) pairs: the rows of the concatenated features that each region reads."""
        pairs = _pairs(masks, grids_hw, grid_of_region)
        return GridLayout(
            crops=crops,
            tiled=tiled,
            grids_hw=grids_hw,
            regions=tuple(numbers),
            grid_of_region=tuple(grid_of_region),
            patch_weights=torch.from_numpy(pairs.weights),
            patch_ij=torch.from_numpy(pairs.ij),
            region_of_patch=torch.from_numpy(pairs.region),
            patches_per_region=tuple(pairs.per_region.tolist()),
            boxes_xyxy=torch.tensor(boxes_xyxy, dtype=torch.float32),
            region_boxes_xyxy=torch.tensor([self._box(number) for number in numbers], dtype=torch.float32),
            images_hw=self._sizes(numbers),
            rows=pairs.rows,
        )

    def _box(self, number: int) -> Box:
        box = self._regions[number].box_xyxy
        assert box is not None, "a region that reads a grid has a box"
        return box


def _drawn_points(drawn: Region | None) -> tuple[DrawnKind, Sequence[tuple[float, float]]]:
    """The clicks of a region, or the upper left and the lower right corner of its box."""
    assert drawn is not None, "only a region that is planned as it was drawn has a PromptView"
    if drawn.kind == "points":
        points, _radius_px = drawn.data
        return "points", points
    assert drawn.kind == "box", f"only clicks and boxes are read as they are drawn, got {drawn.kind!r}"
    left, top, right, bottom = drawn.data
    return "box", ((left, top), (right, bottom))


def _scene_mask(mask: RegionMask | None, box_xyxy: FloatBox, grid_hw: tuple[int, int]) -> np.ndarray:
    """The share of each patch that the region covers; its nearest patch where the grid ends short of it."""
    assert mask is not None, "a region that reads the scene keeps its mask"
    coverage = mask.coverage(box_xyxy, grid_hw)
    if not coverage.any():
        x0, y0, x1, y1 = box_xyxy
        left, top, right, bottom = mask.box_xyxy
        row = int(((top + bottom) / 2 - y0) / (y1 - y0) * grid_hw[0])
        column = int(((left + right) / 2 - x0) / (x1 - x0) * grid_hw[1])
        coverage[np.clip(row, 0, grid_hw[0] - 1), np.clip(column, 0, grid_hw[1] - 1)] = 1
    return coverage


_NO_PAIRS = np.zeros((1, 1), dtype=np.float32)  # stands in for the mask of a view that is read whole


@dataclass(frozen=True, eq=False)
class _Pairs:
    """The (region, patch) pairs of a view, M in all.

    Attributes:
        weights: `(M,)` float32.
        ij: `(M, 2)` float32, rows and columns in the grid that is read.
        region: `(M,)` int64, the place of each pair's region among the view's.
        per_region: `(R,)`.
        rows: of the concatenated features.
    """

    weights: np.ndarray
    ij: np.ndarray
    region: np.ndarray
    per_region: np.ndarray
    rows: PatchRows


def _pairs(masks: Sequence[np.ndarray], grids_hw: Sequence[tuple[int, int]], grid_of_region: Sequence[int]) -> _Pairs:
    flat = np.concatenate([mask.ravel() for mask in masks])
    first_of_mask = np.cumsum([0, *(mask.size for mask in masks)])
    inside = np.flatnonzero(flat)
    per_region = np.diff(np.searchsorted(inside, first_of_mask))
    of_patch = np.repeat(np.arange(len(masks)), per_region)
    masks_hw = np.array([mask.shape for mask in masks])[of_patch]
    read_hw = np.array([grids_hw[grid] for grid in grid_of_region])[of_patch]
    first_row = np.cumsum([0, *(h * w for h, w in grids_hw)])[np.array(grid_of_region)][of_patch]
    ij = np.stack(np.divmod(inside - first_of_mask[of_patch], masks_hw[:, 1]), axis=1)
    if (masks_hw != read_hw).any():
        ij = _source_ij(ij, masks_hw, read_hw)
        rows = _blended_rows(ij, read_hw, first_row)
    else:
        rows = PatchRows(torch.from_numpy(first_row + ij[:, 0] * read_hw[:, 1] + ij[:, 1]))
    weights = flat[inside].astype(np.float32, copy=False)
    return _Pairs(weights, ij.astype(np.float32), of_patch, per_region, rows)


def _source_ij(ij: np.ndarray, masks_hw: np.ndarray, grids_hw: np.ndarray) -> np.ndarray:
    """Where torch's `interpolate(mode="bilinear", align_corners=False)` reads a grid for each place of a larger one.

    Args:
        ij: `(M, 2)` rows and columns.
        masks_hw: `(M, 2)` size of the grid that they are on.
        grids_hw: `(M, 2)` size of the one that is read.

    Returns:
        `(M, 2)` float32, rows and columns of the latter, clamped to it; whole numbers where the two are of one size.
    """
    scale = grids_hw.astype(np.float32) / masks_hw.astype(np.float32)
    return np.clip(scale * (ij + np.float32(0.5)) - np.float32(0.5), 0, grids_hw - 1).astype(np.float32)


def _blended_rows(ij: np.ndarray, grids_hw: np.ndarray, first_row: np.ndarray) -> PatchRows:
    """The patches around each place and their bilinear weights, those of weight zero left out.

    Args:
        ij: `(M, 2)` float32, rows and columns, clamped to the grids.
        grids_hw: `(M, 2)` size of each one's grid.
        first_row: `(M,)` where that grid's features begin.
    """
    low = ij.astype(np.int64)
    high = np.minimum(low + 1, grids_hw - 1)
    share = ij - low
    (top, left), (bottom, right), (down, across) = low.T, high.T, share.astype(np.float32).T
    above, below = first_row + top * grids_hw[:, 1], first_row + bottom * grids_hw[:, 1]
    rows = np.stack([above + left, above + right, below + left, below + right], axis=1)
    weights = np.stack([(1 - down) * (1 - across), (1 - down) * across, down * (1 - across), down * across], axis=1)
    used = weights > 0
    return PatchRows(
        index=torch.from_numpy(rows[used]),
        weights=torch.from_numpy(weights[used]),
        starts=torch.from_numpy(np.cumsum(used.sum(axis=1)) - used.sum(axis=1)),
    )
