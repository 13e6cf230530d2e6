"""Dynamic Object Processing: which part of the image SAOT encodes for one region, and at what scale."""

import math

import numpy as np

from pixelrefer_plugin import Box, CropView, PatchGeometry, RegionMask, RegionPlan

from .config import SaotConfig

# Steps in which a crop beyond `max_patches` is shrunk: it ends within a tenth of the largest allowed scale.
_SHRINK = 0.9


def plan(config: SaotConfig, mask: RegionMask, geometry: PatchGeometry) -> RegionPlan:
    """Scale, crop and mask grid of one region (PixelRefer eq. 2 and 3).

    Small objects grow to n patches, large ones shrink to 100; the box gets context on all sides; the mask
    is taken to the patch grid.
    """
    box, grid_hw = object_crop(mask, config, geometry)
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


def object_crop(mask: RegionMask, config: SaotConfig, geometry: PatchGeometry) -> tuple[Box, tuple[int, int]]:
    """The object's box with context, and the patch grid it is resized to.

    Eq. 2 knows the object's area, not its box: where a line or speckles would need more than `max_patches`,
    the scale is lowered.
    """
    most_patches = max(config.max_patches, geometry.grid_multiple**2)  # no grid is smaller than that
    scale = object_scale(mask.area, config, geometry)
    while True:
        box = _with_context(mask, context_px=config.context_patches * geometry.patch_size / scale)
        left, top, right, bottom = box
        grid_hw = (
            geometry.whole_patches((bottom - top) * scale),
            geometry.whole_patches((right - left) * scale),
        )
        if math.prod(grid_hw) <= most_patches:
            return box, grid_hw
        scale *= _SHRINK


def patches_of_region(mask: RegionMask, box: Box, grid_hw: tuple[int, int]) -> np.ndarray:
    """The region on the patch grid, `(h, w)` float32 of 0 and 1, never empty.

    A patch is inside when the region covers it at least half as much as it covers the patch it covers most:
    half of the patch for a solid object, and a thin line is not lost.
    """
    covered = mask.coverage(box, grid_hw)
    return (covered >= 0.5 * covered.max()).astype(np.float32)


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
