"""`RegionBatch`: the regions of a batch, planned and cut out, ready for the vision tower and the adapter.

Built on the CPU by the processor, read by the model. It knows plans, crops and masks; no model, no text.

A *picture* here is an image or a frame of a video. A region of a video is there once for each of its frames.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from ..contracts.adapter import (
    Corners,
    CropView,
    EncodedPrompts,
    EncodedView,
    FeatureGrids,
    PatchGeometry,
    PromptKind,
    PromptView,
    RegionPlan,
    Resample,
    SceneView,
)
from ..media.video import Video
from ..regions.region import Box, FloatBox, Region, RegionMask


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """A sampled frame of a video; its picture is made when it is needed, and not kept."""

    video: Video
    position: int


Picture = Image.Image | VideoFrame


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


@dataclass(frozen=True, eq=False)
class RegionBatch:
    """The regions of a batch, sample by sample, in the order of their placeholders; a video's frame by frame.

    Attributes:
        adapter: name of the adapter whose plan this is.
        placeholder_id: id of the token that stands for each object token.
        counts: object tokens promised per region and frame.
        frames_per_region: frames of each region, those that are planned together counted once, 1 for one on an image;
            they add up to the length of `counts`.
        regions_per_sample: regions of each sample, 0 where it has none.
        numbers: which of the regions given with its sample each region is; None for an object of an `ObjectMemory`.
        scene: how the backbone's own pass sees the pictures; None where the adapter does not read it.
        frame_indices: per video of the batch the indices of its sampled frames.
        frame_times_s: per video when each of them is shown, in seconds.
        pixels: `(3, N)` uint8, the pixels of all distinct crops, one after another, view by view.
        patch_size: side of a patch in pixels.
        crop_grids_hw: patches of each crop, as the tower is given them.
        pixel_mean: `(3,)` float32 in [0, 1], what the backbone's image processor subtracts.
        pixel_std: `(3,)` float32, what it divides by.
        views: the layout of each of the adapter's views.
    """

    adapter: str
    placeholder_id: int
    counts: tuple[int, ...]
    frames_per_region: tuple[int, ...]
    regions_per_sample: tuple[int, ...]
    numbers: tuple[int | None, ...]
    scene: SceneLayout | None
    frame_indices: tuple[tuple[int, ...], ...]
    frame_times_s: tuple[tuple[float, ...], ...]
    pixels: Tensor
    patch_size: int
    crop_grids_hw: tuple[tuple[int, int], ...]
    pixel_mean: Tensor
    pixel_std: Tensor
    views: tuple[ViewLayout | PromptLayout, ...]

    @property
    def crops(self) -> tuple[Tensor, ...]:
        """The distinct crops, `(3, H, W)` uint8 each, view by view."""
        return tuple(self._as_crops(self.pixels.split(self._crop_areas_px, dim=1)))

    def tokens_per_region(self) -> list[int]:
        """Object tokens promised for each region, those of all its frames together."""
        return _sums(self.counts, self.frames_per_region)

    def tokens_per_sample(self) -> list[int]:
        """Object tokens promised in each sample."""
        return _sums(self.tokens_per_region(), self.regions_per_sample)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> RegionBatch:
        """The same batch with its tensors on `device`."""
        return _map_tensors(self, lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> RegionBatch:
        """The same batch in pinned memory, as torch's data loader asks for."""
        return _map_tensors(self, lambda tensor: tensor.pin_memory())

    def normalised_crops(self, dtype: torch.dtype) -> list[Tensor]:
        """The crops as the backbone's image processor would normalise them, `(3, H, W)` of `dtype`."""
        if self.pixels.device.type == "cpu":  # crop by crop, while its values are in the cache
            return self._as_crops([self._normalised(part, dtype) for part in self.pixels.split(self._crop_areas_px, 1)])
        return self._as_crops(self._normalised(self.pixels, dtype).split(self._crop_areas_px, 1))

    def _normalised(self, pixels: Tensor, dtype: torch.dtype) -> Tensor:
        """`(3, n)` uint8 as the tower wants it."""
        scale = 1 / (255 * self.pixel_std[:, None])
        shift = -self.pixel_mean[:, None] / self.pixel_std[:, None]
        return pixels.to(torch.float32).mul_(scale).add_(shift).to(dtype)

    @property
    def _crop_areas_px(self) -> list[int]:
        return [h * w * self.patch_size**2 for h, w in self.crop_grids_hw]

    def _as_crops(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """`(3, n)` of each crop as `(3, H, W)`."""
        return [
            part.view(3, h * self.patch_size, w * self.patch_size)
            for part, (h, w) in zip(parts, self.crop_grids_hw, strict=True)
        ]


def _sums(values: Sequence[int], lengths: Sequence[int]) -> list[int]:
    """The sum of each of consecutive runs of `lengths`."""
    return [sum(values[start:end]) for start, end in pairwise(np.cumsum([0, *lengths]))]


def _map_tensors(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """`value` with `function` applied to every tensor in its dataclasses and tuples."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple):
        return tuple(_map_tensors(item, function) for item in value)
    if isinstance(value, RegionBatch | ViewLayout | PromptLayout | EncodedPrompts | Corners):
        names = [item.name for item in dataclasses.fields(value)]
        return dataclasses.replace(value, **{name: _map_tensors(getattr(value, name), function) for name in names})
    return value


def make_region_batch(
    samples: Sequence[Sequence[Sequence[PlannedRegion]]],
    *,
    adapter: str,
    placeholder_id: int,
    pictures: Sequence[Picture],
    geometry: PatchGeometry,
    pixel_mean: Sequence[float],
    pixel_std: Sequence[float],
    scene: SceneLayout | None = None,
    videos: Sequence[Video] = (),
) -> RegionBatch:
    """Cut out what the plans ask for and lay the masks out as coordinates.

    Args:
        samples: the planned regions of each sample, each on its image or on its frames.
        adapter: name of the adapter that planned them.
        placeholder_id: id of the placeholder token.
        pictures: all pictures of the batch, upright RGB, the images' before the videos' frames.
        geometry: the backbone's patches.
        pixel_mean: the image processor's mean, RGB in [0, 1].
        pixel_std: its standard deviation.
        scene: how the backbone's own pass sees them, where a plan has a `SceneView`.
        videos: the videos of the batch.
    """
    regions = [planned for sample in samples for region in sample for planned in region]
    first_alike = _first_alike(pictures)
    images_hw = [_image_hw(pictures[region.picture]) for region in regions]
    crops: list[_Crop] = []
    views: list[ViewLayout | PromptLayout] = []
    for index, view in enumerate(regions[0].plan.views):
        if isinstance(view, SceneView):
            assert scene is not None
            views.append(_scene_layout(regions, scene, images_hw))
        elif isinstance(view, PromptView):
            views.append(_prompt_layout(regions, images_hw))
        else:
            views.append(_crop_layout(regions, index, crops, first_alike, images_hw))
    return RegionBatch(
        adapter=adapter,
        placeholder_id=placeholder_id,
        counts=tuple(region.plan.num_tokens for region in regions),
        frames_per_region=tuple(len(region) for sample in samples for region in sample),
        regions_per_sample=tuple(len(sample) for sample in samples),
        numbers=tuple(region[0].number for sample in samples for region in sample),
        scene=scene,
        frame_indices=tuple(video.frame_indices for video in videos),
        frame_times_s=tuple(video.times_s for video in videos),
        pixels=_cut(crops, pictures, geometry.patch_size),
        patch_size=geometry.patch_size,
        crop_grids_hw=tuple(crop.tower_hw for crop in crops),
        pixel_mean=torch.tensor(pixel_mean, dtype=torch.float32),
        pixel_std=torch.tensor(pixel_std, dtype=torch.float32),
        views=tuple(views),
    )


def _first_alike(pictures: Sequence[Picture]) -> list[int]:
    """For each picture the first that is the same object: conversations of a batch may share one."""
    first: dict[Any, int] = {}
    return [
        first.setdefault((id(each.video), each.position) if isinstance(each, VideoFrame) else id(each), index)
        for index, each in enumerate(pictures)
    ]


def _image_hw(picture: Picture) -> tuple[int, int]:
    if isinstance(picture, VideoFrame):
        return picture.video.image_hw
    return picture.height, picture.width


@dataclass(frozen=True)
class _Crop:
    """What makes a crop; regions that ask for the same one share it."""

    picture: int
    box_xyxy: Box
    grid_hw: tuple[int, int]
    tower_hw: tuple[int, int]
    resample: Resample


def _cut(crops: Sequence[_Crop], pictures: Sequence[Picture], patch_size: int) -> Tensor:
    """The crops' pixels, `(3, N)` uint8, made on as many threads as torch would use."""
    sides_hw = [(crop.tower_hw[0] * patch_size, crop.tower_hw[1] * patch_size) for crop in crops]
    ends = np.cumsum([0, *(height * width for height, width in sides_hw)])
    pixels = np.empty((3, int(ends[-1])), dtype=np.uint8)
    sources = _sources(crops, pictures)

    def write(index: int) -> None:
        crop = crops[index]
        part = _part_hwc(sources[crop.picture], crop.box_xyxy)
        height, width = (side * patch_size for side in crop.grid_hw)
        resized = _resized(part, (height, width), crop.resample)
        if crop.tower_hw != crop.grid_hw:  # as the official image processor brings a crop to what the tower takes
            tower_wh = sides_hw[index][::-1]
            resized = np.asarray(Image.fromarray(resized).resize(tower_wh, Image.Resampling.BICUBIC))
        pixels[:, ends[index] : ends[index + 1]].reshape(3, *sides_hw[index])[:] = resized.transpose(2, 0, 1)

    threads = min(len(crops), torch.get_num_threads())
    if threads < 2:
        list(map(write, range(len(crops))))
    else:
        with ThreadPoolExecutor(threads) as pool:  # resizing needs no interpreter's lock
            list(pool.map(write, range(len(crops))))
    return torch.from_numpy(pixels)


def _sources(crops: Sequence[_Crop], pictures: Sequence[Picture]) -> dict[int, Image.Image | np.ndarray]:
    """The pictures to cut from: as `(H, W, 3)` arrays where they are that already, and where the crops of one add up to
    more than it, so that turning it into one costs less than turning each crop."""
    wanted_px: Counter[int] = Counter()
    for crop in crops:
        left, top, right, bottom = crop.box_xyxy
        wanted_px[crop.picture] += (right - left) * (bottom - top)
    sources: dict[int, Image.Image | np.ndarray] = {}
    for index, area_px in wanted_px.items():
        picture = pictures[index]
        if isinstance(picture, VideoFrame):
            sources[index] = picture.video.frames_nhwc[picture.position]
        else:
            sources[index] = np.asarray(picture) if area_px > math.prod(picture.size) else picture
    return sources


def _part_hwc(source: Image.Image | np.ndarray, box_xyxy: Box) -> np.ndarray:
    """A copy of the pixels in the box, `(h, w, 3)` uint8."""
    left, top, right, bottom = box_xyxy
    return np.array(source[top:bottom, left:right] if isinstance(source, np.ndarray) else source.crop(box_xyxy))


def _resized(part: np.ndarray, side_hw: tuple[int, int], resample: Resample) -> np.ndarray:
    """`(h, w, 3)` uint8 at another size."""
    if resample == "bicubic":  # what Pillow's bicubic makes of it, but for the last bit, in a quarter of the time
        batch = torch.from_numpy(part).permute(2, 0, 1)[None]
        (resized,) = interpolate(batch, side_hw, mode="bicubic", antialias=True)
        return resized.permute(1, 2, 0).numpy()
    import cv2

    method = {"opencv_linear": cv2.INTER_LINEAR, "opencv_area": cv2.INTER_AREA}[resample]
    return cv2.resize(part, side_hw[::-1], interpolation=method)


def _crop_layout(
    regions: Sequence[PlannedRegion],
    index: int,
    crops: list[_Crop],
    first_alike: Sequence[int],
    images_hw: Sequence[tuple[int, int]],
) -> ViewLayout:
    """The layout of a view of crops; those it needs are added to `crops`."""
    first_crop = len(crops)
    grid_of: dict[_Crop, int] = {}
    views: list[CropView] = []
    grid_of_region = []
    for region in regions:
        view = region.plan.views[index]
        assert isinstance(view, CropView), f"view {index} of every region must be of one kind, got {view!r}"
        crop = _Crop(first_alike[region.picture], view.box_xyxy, view.grid_hw, view.tower_hw, view.resample)
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


def _scene_layout(
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


def _prompt_layout(regions: Sequence[PlannedRegion], images_hw: Sequence[tuple[int, int]]) -> PromptLayout:
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
