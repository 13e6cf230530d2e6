"""`RegionBatch`: the regions of a batch, planned and cut out, ready for the vision tower and the adapter.

Built on the CPU by the processor, read by the model. It knows plans, crops and masks; no model, no text.

A *picture* here is an image or a frame of a video. A region of a video is there once for each of its frames.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .contracts import CropView, EncodedView, FeatureGrids, PatchGeometry, RegionPlan, SceneView
from .regions import Box, FloatBox, RegionMask
from .video import Video


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """A sampled frame of a video; its picture is made when it is needed, and not kept."""

    video: Video
    position: int


Picture = Image.Image | VideoFrame


@dataclass(frozen=True, eq=False)
class PlannedRegion:
    """One region on one picture, with its mask and its plan.

    Attributes:
        mask: its pixels on its picture.
        plan: what the adapter asks for.
        picture: that picture's index among all pictures of the batch.
    """

    mask: RegionMask
    plan: RegionPlan
    picture: int


@dataclass(frozen=True)
class SceneLayout:
    """How the backbone's own vision pass will see the pictures of a batch.

    Attributes:
        grids_hw: rows and columns of each grid: the images', then the videos'.
        grid_of_picture: which grid shows each picture; frames may share one.
        boxes_xyxy: per picture what its grid spans, in its original pixels.
        image_grids_per_sample: how many of the images' grids belong to each sample.
        video_grids_per_sample: how many of the videos' grids belong to each sample.
    """

    grids_hw: tuple[tuple[int, int], ...]
    grid_of_picture: tuple[int, ...]
    boxes_xyxy: tuple[FloatBox, ...]
    image_grids_per_sample: tuple[int, ...]
    video_grids_per_sample: tuple[int, ...]


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

    def encoded(self, grids: FeatureGrids) -> EncodedView:
        """This view with its grids' features."""
        shared = {item.name: getattr(self, item.name) for item in dataclasses.fields(EncodedView)[1:]}
        return EncodedView(grids=grids, **shared)


@dataclass(frozen=True, eq=False)
class RegionBatch:
    """The regions of a batch, sample by sample, in the order of their `<region>`s; a video's frame by frame.

    Attributes:
        adapter: name of the adapter whose plan this is.
        placeholder_id: id of the token that stands for each object token.
        counts: object tokens promised per region and frame.
        frames_per_region: frames of each region, 1 for one on an image; they add up to the length of `counts`.
        regions_per_sample: regions of each sample, 0 where it has none.
        scene: how the backbone's own pass sees the pictures; None where the adapter does not read it.
        frame_indices: per video of the batch the indices of its sampled frames.
        frame_times_s: per video when each of them is shown, in seconds.
        crops: distinct crops, `(3, H, W)` uint8, view by view.
        crop_grids_hw: patches of each crop.
        pixel_mean: `(3,)` float32 in [0, 1], what the backbone's image processor subtracts.
        pixel_std: `(3,)` float32, what it divides by.
        views: the layout of each of the adapter's views.
    """

    adapter: str
    placeholder_id: int
    counts: tuple[int, ...]
    frames_per_region: tuple[int, ...]
    regions_per_sample: tuple[int, ...]
    scene: SceneLayout | None
    frame_indices: tuple[tuple[int, ...], ...]
    frame_times_s: tuple[tuple[float, ...], ...]
    crops: tuple[Tensor, ...]
    crop_grids_hw: tuple[tuple[int, int], ...]
    pixel_mean: Tensor
    pixel_std: Tensor
    views: tuple[ViewLayout, ...]

    def __getstate__(self) -> dict[str, Any]:
        """Its crops travel as one tensor: from a data loader's worker each would be a shared file of its own."""
        rows = [crop.permute(1, 2, 0).reshape(-1) for crop in self.crops]
        sizes_hw = [crop.shape[1:] for crop in self.crops]
        return self.__dict__ | {"crops": (torch.cat(rows) if rows else None, sizes_hw)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        values, sizes_hw = state["crops"]
        parts = () if values is None else values.split([3 * height * width for height, width in sizes_hw])
        crops = tuple(part.view(*hw, 3).permute(2, 0, 1) for part, hw in zip(parts, sizes_hw, strict=True))
        self.__dict__.update(state | {"crops": crops})

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
        scale = 1 / (255 * self.pixel_std[:, None, None])
        shift = -self.pixel_mean[:, None, None] / self.pixel_std[:, None, None]
        return [(crop * scale).add_(shift).to(dtype) for crop in self.crops]


def _sums(values: Sequence[int], lengths: Sequence[int]) -> list[int]:
    """The sum of each of consecutive runs of `lengths`."""
    return [sum(values[start:end]) for start, end in pairwise(np.cumsum([0, *lengths]))]


def _map_tensors(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """`value` with `function` applied to every tensor in its dataclasses and tuples."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple):
        return tuple(_map_tensors(item, function) for item in value)
    if isinstance(value, RegionBatch | ViewLayout):
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
    crops: list[_Crop] = []
    views = []
    for index in range(len(regions[0].plan.views)):
        if isinstance(regions[0].plan.views[index], SceneView):
            assert scene is not None
            views.append(_scene_layout(regions, scene))
        else:
            views.append(_crop_layout(regions, index, crops, first_alike))
    return RegionBatch(
        adapter=adapter,
        placeholder_id=placeholder_id,
        counts=tuple(region.plan.num_tokens for region in regions),
        frames_per_region=tuple(len(region) for sample in samples for region in sample),
        regions_per_sample=tuple(len(sample) for sample in samples),
        scene=scene,
        frame_indices=tuple(video.frame_indices for video in videos),
        frame_times_s=tuple(video.times_s for video in videos),
        crops=_cut(crops, pictures, geometry.patch_size),
        crop_grids_hw=tuple(crop.grid_hw for crop in crops),
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


@dataclass(frozen=True)
class _Crop:
    """What makes a crop; regions that ask for the same one share it."""

    picture: int
    box_xyxy: Box
    grid_hw: tuple[int, int]


def _cut(crops: Sequence[_Crop], pictures: Sequence[Picture], patch_size: int) -> tuple[Tensor, ...]:
    """The crops' pixels, `(3, H, W)` uint8, resized by Pillow on as many threads as torch would use."""

    def pixels(crop: _Crop) -> Tensor:
        height, width = (side * patch_size for side in crop.grid_hw)
        picture = pictures[crop.picture]
        image = picture.video.picture(picture.position) if isinstance(picture, VideoFrame) else picture
        resized = image.resize((width, height), Image.Resampling.BICUBIC, box=crop.box_xyxy)
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1)

    threads = min(len(crops), torch.get_num_threads())
    if threads < 2:
        return tuple(map(pixels, crops))
    with ThreadPoolExecutor(threads) as pool:  # Pillow resizes without the interpreter's lock
        return tuple(pool.map(pixels, crops))


def _crop_layout(
    regions: Sequence[PlannedRegion], index: int, crops: list[_Crop], first_alike: Sequence[int]
) -> ViewLayout:
    """The layout of a view of crops; those it needs are added to `crops`."""
    first_crop = len(crops)
    grid_of: dict[_Crop, int] = {}
    views: list[CropView] = []
    grid_of_region = []
    for region in regions:
        view = region.plan.views[index]
        assert isinstance(view, CropView), f"view {index} of every region must be of one kind, got {view!r}"
        crop = _Crop(first_alike[region.picture], view.box_xyxy, view.grid_hw)
        views.append(view)
        grid_of_region.append(grid_of.setdefault(crop, len(grid_of)))
    crops.extend(grid_of)
    return _layout(
        regions,
        crops=slice(first_crop, len(crops)),
        grids_hw=tuple(crop.grid_hw for crop in grid_of),
        grid_of_region=grid_of_region,
        masks=[view.mask for view in views],
        boxes_xyxy=[view.box_xyxy for view in views],
    )


def _scene_layout(regions: Sequence[PlannedRegion], scene: SceneLayout) -> ViewLayout:
    boxes = [scene.boxes_xyxy[region.picture] for region in regions]
    grid_of_region = [scene.grid_of_picture[region.picture] for region in regions]
    placed = zip(regions, boxes, grid_of_region, strict=True)
    return _layout(
        regions,
        crops=None,
        grids_hw=scene.grids_hw,
        grid_of_region=grid_of_region,
        masks=[_scene_mask(region.mask, box, scene.grids_hw[grid]) for region, box, grid in placed],
        boxes_xyxy=boxes,
    )


def _scene_mask(mask: RegionMask, box_xyxy: FloatBox, grid_hw: tuple[int, int]) -> np.ndarray:
    """The share of each patch that the region covers; its nearest patch where the grid ends short of it."""
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
    regions: Sequence[PlannedRegion],
    *,
    crops: slice | None,
    grids_hw: tuple[tuple[int, int], ...],
    grid_of_region: Sequence[int],
    masks: Sequence[np.ndarray | None],
    boxes_xyxy: Sequence[FloatBox],
) -> ViewLayout:
    """Masks as (region, patch) pairs: the rows of the concatenated features that each region reads."""
    first_row = np.cumsum([0, *(h * w for h, w in grids_hw)])
    present = [_NO_PAIRS if mask is None else mask for mask in masks]
    inside = [np.flatnonzero(mask) for mask in present]
    weights = [mask.ravel()[rows] for mask, rows in zip(present, inside, strict=True)]
    per_region = [len(each) for each in inside]
    widths = np.array([mask.shape[1] for mask in present])
    region_of_patch = np.repeat(np.arange(len(regions)), per_region)
    flat = np.concatenate(inside)
    return ViewLayout(
        crops=crops,
        grids_hw=grids_hw,
        grid_of_region=tuple(grid_of_region),
        patch_rows=torch.from_numpy(flat + first_row[np.array(grid_of_region)][region_of_patch]),
        patch_weights=torch.from_numpy(np.concatenate(weights)),
        patch_ij=torch.from_numpy(np.stack(np.divmod(flat, widths[region_of_patch]), axis=1)),
        region_of_patch=torch.from_numpy(region_of_patch),
        patches_per_region=tuple(per_region),
        boxes_xyxy=torch.tensor(boxes_xyxy, dtype=torch.float32),
        images_hw=torch.tensor([region.mask.image_hw for region in regions], dtype=torch.float32),
    )
