"""Layouts: where each region's features lie in the encoded views of a batch, as (region, patch) pairs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..contracts.views import Corners, CropView, EncodedPrompts, EncodedView, FeatureGrids, PromptKind, RegionPlan
from ..regions.mask import FloatBox, RegionMask
from ..regions.region import Region
from .crops import Crop


@dataclass(frozen=True, eq=False)
class PlannedRegion:
    """One region on one picture, with its plan.

    Attributes:
        mask: its pixels on its picture. None where no view of the plan is a `SceneView`: nothing else reads them.
        plan: what the adapter asks for.
        picture: that picture's index among all pictures of the batch.
        drawn: the clicks or the box, where it was planned as it was drawn; None where it is read by its mask.
        frame_position: which of the sampled frames of its video that picture is, from 0; 0 on an image.
        num_frames: how many frames of that video are sampled; 1 for an image.
        number: which of the regions given with its sample it is, counted along all markers; None where it was not
            given with the sample (an object of an `ObjectMemory`).
    """

    mask: RegionMask | None
    plan: RegionPlan
    picture: int
    drawn: Region | None = None
    frame_position: int = 0
    num_frames: int = 1
    number: int | None = None


@dataclass(frozen=True)
class SceneLayout:
    """How the backbone's own vision pass will see the pictures of a batch.

    Attributes:
        grids_hw: rows and columns of each grid: the images', then the videos'.
        grid_of_picture: which grid shows each picture; frames may share one.
        boxes_xyxy: per picture what its grid spans, in its original pixels.
        image_grids_per_sample: how many of the images' grids belong to each sample.
        video_grids_per_sample: how many of the videos' grids belong to each sample.
        merged_side: rows and columns of patches that each of their cells joins; 1 where the cells are patches.
    """

    grids_hw: tuple[tuple[int, int], ...]
    grid_of_picture: tuple[int, ...]
    boxes_xyxy: tuple[FloatBox, ...]
    image_grids_per_sample: tuple[int, ...]
    video_grids_per_sample: tuple[int, ...]
    merged_side: int = 1


@dataclass(frozen=True, eq=False)
class ViewLayout:
    """One view of all regions of a batch, before it is encoded; see `EncodedView` for the fields they share.

    Attributes:
        crops: which crops of the batch are this view's grids, or None when they are the scene's.
    """

    crops: slice | None
    grids_hw: tuple[tuple[int, int], ...]
    grid_of_region: tuple[int, ...]
    patch_rows: Tensor
    patch_weights: Tensor
    patch_ij: Tensor
    region_of_patch: Tensor
    patches_per_region: tuple[int, ...]
    boxes_xyxy: Tensor
    images_hw: Tensor
    corners: Corners | None = None

    def encoded(self, grids: FeatureGrids) -> EncodedView:
        """This view with its grids' features."""
        shared = {item.name: getattr(self, item.name) for item in dataclasses.fields(EncodedView)[1:]}
        return EncodedView(grids=grids, **shared)


@dataclass(frozen=True, eq=False)
class PromptLayout:
    """A `PromptView` of all regions of a batch. Nothing is left to encode.

    Attributes:
        prompts: the regions as they were drawn.
    """

    prompts: EncodedPrompts

    @property
    def images_hw(self) -> Tensor:
        """`(R, 2)` float32, the size of each region's image."""
        return self.prompts.images_hw

    def encoded(self) -> EncodedPrompts:
        """What the adapter's module reads."""
        return self.prompts


def crop_layout(
    regions: Sequence[PlannedRegion],
    index: int,
    crops: list[Crop],
    first_alike: Sequence[int],
    images_hw: Sequence[tuple[int, int]],
) -> ViewLayout:
    """The layout of a view of crops; those it needs are added to `crops`."""
    first_crop = len(crops)
    grid_of: dict[Crop, int] = {}
    views: list[CropView] = []
    grid_of_region = []
    for region in regions:
        view = region.plan.views[index]
        assert isinstance(view, CropView), f"view {index} of every region must be of one kind, got {view!r}"
        crop = Crop(first_alike[region.picture], view.box_xyxy, view.grid_hw, view.tower_hw, view.resample)
        views.append(view)
        grid_of_region.append(grid_of.setdefault(crop, len(grid_of)))
    crops.extend(grid_of)
    return _layout(
        crops=slice(first_crop, len(crops)),
        grids_hw=tuple(crop.tower_hw for crop in grid_of),
        grid_of_region=grid_of_region,
        masks=[_NO_PAIRS if view.mask is None else view.mask for view in views],
        boxes_xyxy=[view.box_xyxy for view in views],
        images_hw=images_hw,
    )


def scene_layout(
    regions: Sequence[PlannedRegion], scene: SceneLayout, images_hw: Sequence[tuple[int, int]]
) -> ViewLayout:
    boxes = [scene.boxes_xyxy[region.picture] for region in regions]
    grid_of_region = [scene.grid_of_picture[region.picture] for region in regions]
    placed = zip(regions, boxes, grid_of_region, strict=True)
    return _layout(
        crops=None,
        grids_hw=scene.grids_hw,
        grid_of_region=grid_of_region,
        masks=[_scene_mask(region.mask, box, scene.grids_hw[grid]) for region, box, grid in placed],
        boxes_xyxy=boxes,
        images_hw=images_hw,
    )


def prompt_layout(regions: Sequence[PlannedRegion], images_hw: Sequence[tuple[int, int]]) -> PromptLayout:
    kinds, points = zip(*(_drawn_points(region.drawn) for region in regions), strict=True)
    region_of_point = np.repeat(np.arange(len(regions)), [len(each) for each in points])
    return PromptLayout(
        EncodedPrompts(
            kinds=kinds,
            points_xy=torch.tensor([each for of_region in points for each in of_region]).float().view(-1, 2),
            region_of_point=torch.from_numpy(region_of_point),
            images_hw=torch.tensor(images_hw, dtype=torch.float32),
            frame_position=torch.tensor([region.frame_position for region in regions], dtype=torch.float32),
            num_frames=torch.tensor([region.num_frames for region in regions], dtype=torch.float32),
        )
    )


def _drawn_points(drawn: Region | None) -> tuple[PromptKind, Sequence[tuple[float, float]]]:
    """The clicks of a region, or the upper left and the lower right corner of its box."""
    if drawn is None:
        return "mask", ()
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


def _layout(
    *,
    crops: slice | None,
    grids_hw: tuple[tuple[int, int], ...],
    grid_of_region: Sequence[int],
    masks: Sequence[np.ndarray],
    boxes_xyxy: Sequence[FloatBox],
    images_hw: Sequence[tuple[int, int]],
) -> ViewLayout:
    """Masks as (region, patch) pairs: the rows of the concatenated features that each region reads."""
    flat = np.concatenate([mask.ravel() for mask in masks])
    first_of_mask = np.cumsum([0, *(mask.size for mask in masks)])
    inside = np.flatnonzero(flat)
    per_region = np.diff(np.searchsorted(inside, first_of_mask))
    of_patch = np.repeat(np.arange(len(masks)), per_region)
    masks_hw = np.array([mask.shape for mask in masks])[of_patch]
    read_hw = np.array([grids_hw[grid] for grid in grid_of_region])[of_patch]
    first_row = np.cumsum([0, *(h * w for h, w in grids_hw)])[np.array(grid_of_region)][of_patch]
    ij = np.stack(np.divmod(inside - first_of_mask[of_patch], masks_hw[:, 1]), axis=1)
    corners = None
    if (masks_hw != read_hw).any():
        ij = _source_ij(ij, masks_hw, read_hw)
        corners = _corners(ij, read_hw, first_row)
    row, column = np.rint(ij).astype(np.int64).T
    return ViewLayout(
        crops=crops,
        grids_hw=grids_hw,
        grid_of_region=tuple(grid_of_region),
        patch_rows=torch.from_numpy(first_row + row * read_hw[:, 1] + column),
        patch_weights=torch.from_numpy(flat[inside].astype(np.float32, copy=False)),
        patch_ij=torch.from_numpy(ij.astype(np.float32)),
        region_of_patch=torch.from_numpy(of_patch),
        patches_per_region=tuple(per_region.tolist()),
        boxes_xyxy=torch.tensor(boxes_xyxy, dtype=torch.float32),
        images_hw=torch.tensor(images_hw, dtype=torch.float32),
        corners=corners,
    )


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


def _corners(ij: np.ndarray, grids_hw: np.ndarray, first_row: np.ndarray) -> Corners:
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
    return Corners(
        rows=torch.from_numpy(rows[used]),
        weights=torch.from_numpy(weights[used]),
        starts=torch.from_numpy(np.cumsum(used.sum(axis=1)) - used.sum(axis=1)),
    )
