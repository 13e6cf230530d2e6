"""`RegionBatch`: the regions of a batch, planned and cut out, ready for the vision tower and the adapter.

Built on the CPU by the processor, read by the model. It knows plans, crops and masks; no model, no text.

A *picture* here is an image or a frame of a video. A region of a video is there once for each of its frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..contracts.views import PatchGeometry, View
from ..plugins import in_plugin
from .crops import Picture, cut_crops, first_of_each, picture_hw
from .layouts import GridLayout, LayoutSheet, PlannedRegion, PromptLayout, SceneLayout


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
        images_hw: size of the picture of each region and frame, as `counts`.
        scene: how the backbone's own pass sees the pictures; None where no region reads it.
        pixels: `(3, N)` uint8, the pixels of all distinct crops, one after another, view by view.
        patch_size: side of a patch in pixels.
        crop_grids_hw: patches of each crop, as the tower is given them.
        pixel_mean: `(3,)` float32 in [0, 1], what the backbone's image processor subtracts.
        pixel_std: `(3,)` float32, what it divides by.
        views: the layout of each of the adapter's views; None for one that no region of the batch has.
    """

    adapter: str
    placeholder_id: int
    counts: tuple[int, ...]
    frames_per_region: tuple[int, ...]
    regions_per_sample: tuple[int, ...]
    numbers: tuple[int | None, ...]
    images_hw: tuple[tuple[int, int], ...]
    scene: SceneLayout | None
    pixels: Tensor
    patch_size: int
    crop_grids_hw: tuple[tuple[int, int], ...]
    pixel_mean: Tensor
    pixel_std: Tensor
    views: tuple[GridLayout | PromptLayout | None, ...]

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
    if is_dataclass(value) and not isinstance(value, type):
        mapped = {item.name: _map_tensors(getattr(value, item.name), function) for item in fields(value)}
        return replace(value, **mapped)
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
    """
    regions = [planned for sample in samples for region in sample for planned in region]
    images_hw = [picture_hw(pictures[region.picture]) for region in regions]
    sheet = LayoutSheet(regions, images_hw=images_hw, first_alike=first_of_each(pictures), scene=scene)
    of_regions = [view for region in regions for view in region.plan.views if view is not None]
    lays_out_itself = any(view.lay_out.__module__ != View.__module__ for view in of_regions)
    with in_plugin("adapter", adapter, "lay_out") if lays_out_itself else nullcontext():
        views = tuple(sheet.view(index) for index in range(len(regions[0].plan.views)))
    return RegionBatch(
        adapter=adapter,
        placeholder_id=placeholder_id,
        counts=tuple(region.plan.num_tokens for region in regions),
        frames_per_region=tuple(len(region) for sample in samples for region in sample),
        regions_per_sample=tuple(len(sample) for sample in samples),
        numbers=tuple(region[0].number for sample in samples for region in sample),
        images_hw=tuple(images_hw),
        scene=scene,
        pixels=cut_crops(sheet.crops, pictures, geometry.patch_size),
        patch_size=geometry.patch_size,
        crop_grids_hw=tuple(crop.tower_hw for crop in sheet.crops),
        pixel_mean=torch.tensor(pixel_mean, dtype=torch.float32),
        pixel_std=torch.tensor(pixel_std, dtype=torch.float32),
        views=views,
    )
