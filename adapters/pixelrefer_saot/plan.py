"""Dynamic Object Processing: which part of the image SAOT encodes for one region, and at what scale."""

import math

import numpy as np

from pixelrefer_plugin import Box, CropView, PatchGeometry, RegionMask, RegionPlan

from .config import SaotConfig


def plan(config: SaotConfig, mask: RegionMask, geometry: PatchGeometry) -> RegionPlan:
    """Scale, crop and mask grid of one region (PixelRefer eq. 2 and 3).

    Small objects grow to n patches, large ones shrink to 100; the box gets context on all sides; the mask
    is taken to the patch grid.
    """
    scale = object_scale(mask.area, config, geometry)
    scale = _fit(scale, mask.box_xyxy, config, geometry)
    box = _with_context(mask, context_px=config.context_patches * geometry.patch_size / scale)
    grid_hw = (
        geometry.whole_patches((box[3] - box[1]) * scale),
        geometry.whole_patches((box[2] - box[0]) * scale),
    )
    patches = patches_of_region(mask, box, grid_hw)
    num_tokens = min(config.num_tokens, int(patches.sum()))
    return RegionPlan(num_tokens=num_tokens, views=(CropView(box, grid_hw, patches),))


def object_scale(area_px: int, config: SaotConfig, geometry: PatchGeometry) -> float:
    """The scaling ratio s of eq. 2 for an object of `area_px` pixels."""
    patch_area = geometry.patch_size**2
    if area_px > config.large_patches * patch_area:
        return math.sqrt(config.large_patches * patch_area / area_px)
    if area_px < config.num_tokens * patch_area:
        return math.sqrt(config.num_tokens * patch_area / area_px)
    return 1.0


def patches_of_region(mask: RegionMask, box: Box, grid_hw: tuple[int, int]) -> np.ndarray:
    """The region on the patch grid, `(h, w)` float32 of 0 and 1, never empty.

    A patch is inside when the region covers it at least half as much as it covers the patch it covers most:
    half of the patch for a solid object, and a thin line is not lost.
    """
    covered = mask.coverage(box, grid_hw)
    return (covered >= 0.5 * covered.max()).astype(np.float32)


def _fit(scale: float, box: Box, config: SaotConfig, geometry: PatchGeometry) -> float:
    """Lower the scale until box and context take at most `max_patches` patches."""
    context = 2 * config.context_patches
    height, width = ((box[3] - box[1]) / geometry.patch_size, (box[2] - box[0]) / geometry.patch_size)
    # (height·s + context)(width·s + context) <= max_patches is quadratic in s.
    a, b, c = height * width, context * (height + width), context**2 - config.max_patches
    if c >= 0:
        return min(scale, 1 / max(height, width))
    return min(scale, (math.sqrt(b * b - 4 * a * c) - b) / (2 * a))


def _with_context(mask: RegionMask, *, context_px: float) -> Box:
    """The mask's box with context on all sides, in whole pixels, clipped to the image."""
    x0, y0, x1, y1 = mask.box_xyxy
    height, width = mask.image_hw
    return (
        max(0, math.floor(x0 - context_px)),
        max(0, math.floor(y0 - context_px)),
        min(width, math.ceil(x1 + context_px)),
        min(height, math.ceil(y1 + context_px)),
    )
