"""Dynamic Object Processing: which part of the image SAOT encodes for one region, and at what scale."""

import math

import numpy as np

from pixelrefer_plugin.authoring import Box, CropView, PatchGeometry, Planner, RegionMask, RegionPlan, Resample

from .config import FEWEST_ENCODED_PATCHES, CropResample, SaotConfig

# Steps in which a crop beyond the bound is shrunk: it ends within a tenth of the largest allowed scale.
_SHRINK = 0.9

# Most patches of a grid whose features are stretched, more than the official code's one pixel in 32 tokens has
# (320 x 320). Beyond, the scale is lowered: two pixels at the ends of a 4K frame would cost gigabytes.
_MOST_STRETCHED_PATCHES = 2**17


class SaotPlanner(Planner[SaotConfig]):
    """One crop for each region, scaled to its size (PixelRefer §4.2.1)."""

    def plan(self, mask: RegionMask, geometry: PatchGeometry) -> RegionPlan:
        return plan(self.config, mask, geometry)


def plan(config: SaotConfig, mask: RegionMask, geometry: PatchGeometry) -> RegionPlan:
    """Scale, crop and mask grid of one region (PixelRefer eq. 2 and 3).

    Small objects grow to n patches, large ones shrink to 100; the box gets context on all sides; the mask
    is taken to the patch grid.
    """
    box, grid_hw = object_crop(mask, config, geometry)
    patches = patches_of_region(mask, box, grid_hw, config)
    num_tokens = config.num_tokens if config.pad_to_num_tokens else min(config.num_tokens, int(patches.sum()))
    crop = CropView(
        box,
        grid_hw,
        patches,
        resample=_resample_of_crop(config.resample, box, grid_hw, geometry),
        encoded_hw=_stretched_from(grid_hw, config, geometry) if config.stretch_large_grids else None,
    )
    return RegionPlan(num_tokens=num_tokens, views=(crop,))


def object_scale(area_px: int, config: SaotConfig, geometry: PatchGeometry) -> float:
    """The scaling ratio s of eq. 2 for an object of `area_px` pixels.

    With `round_scale_up` in the order of the official code's operations (`resize_image_mask` in `mm_utils.py`),
    since a last bit decides whether a side that is rounded up gets another patch.
    """
    patch_area = geometry.patch_size**2
    if area_px > config.large_patches * patch_area:
        number = np.float32 if config.single_precision_scale else np.float64
        if config.round_scale_up:
            return 1 / math.sqrt(number(area_px) / number(patch_area) / number(config.large_patches))
        return math.sqrt(number(config.large_patches * patch_area) / number(area_px))
    if area_px < config.num_tokens * patch_area:
        scale = math.sqrt(config.num_tokens * patch_area / area_px)
        return math.ceil(scale) if config.round_scale_up else scale
    return 1.0


def object_crop(mask: RegionMask, config: SaotConfig, geometry: PatchGeometry) -> tuple[Box, tuple[int, int]]:
    """The object's box with context, and the patch grid it is resized to.

    Eq. 2 knows the object's area, not its box: where a line or speckles would need more patches than allowed,
    the scale is lowered.
    """
    most_patches = _MOST_STRETCHED_PATCHES if config.stretch_large_grids else config.max_patches
    most_patches = max(most_patches, geometry.grid_multiple**2)  # no grid is smaller than that
    scale = object_scale(mask.area, config, geometry)
    while True:
        scale_of_context = 1.0 if config.context_in_source_pixels else scale
        box = _with_context(mask, context_px=config.context_patches * geometry.patch_size / scale_of_context)
        if config.drop_last_row_and_column:
            box = _without_last_row_and_column(box)
        left, top, right, bottom = box
        grid_hw = (
            _whole_patches((bottom - top) * scale, config, geometry),
            _whole_patches((right - left) * scale, config, geometry),
        )
        if math.prod(grid_hw) <= most_patches:
            return box, grid_hw
        scale *= _SHRINK


def patches_of_region(mask: RegionMask, box: Box, grid_hw: tuple[int, int], config: SaotConfig) -> np.ndarray:
    """The region on the patch grid, `(h, w)` float32 of 0 and 1.

    By coverage, which is never empty, a patch is inside when the region covers it at least half as much as it
    covers the patch it covers most: half of the patch for a solid object, and a thin line is not lost.

    Bilinear resizing, as the official code does it, can miss a thin region. Where its tokens are padded, the grid
    stays empty, as there; elsewhere there would be no token at all, and coverage says which patches are the region's.
    """
    if config.mask_resize != "coverage":
        resize = _uint8_linear if config.mask_resize == "uint8_linear" else _any_linear
        inside = resize(_mask_in_box(mask, box), grid_hw)
        if config.pad_to_num_tokens or inside.any():
            return inside.astype(np.float32)
    covered = mask.coverage(box, grid_hw)
    if not covered.any():  # all of it is in the row and column that were dropped: what is next to it stands in
        left, top, right, bottom = box
        covered = mask.coverage((left, top, right + 1, bottom + 1), grid_hw)
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


def _without_last_row_and_column(box: Box) -> Box:
    """The box when its last pixel is taken for its end; a single row or column stays."""
    left, top, right, bottom = box
    return (left, top, max(left + 1, right - 1), max(top + 1, bottom - 1))


def _whole_patches(side_px: float, config: SaotConfig, geometry: PatchGeometry) -> int:
    if not config.round_grid_up:
        return geometry.whole_patches(side_px)
    return max(1, math.ceil(side_px / (geometry.patch_size * geometry.grid_multiple))) * geometry.grid_multiple


def _resample_of_crop(resample: CropResample, box: Box, grid_hw: tuple[int, int], geometry: PatchGeometry) -> Resample:
    """How a crop is resized: `opencv_linear_or_area` means by area where both sides shrink."""
    if resample != "opencv_linear_or_area":
        return resample
    left, top, right, bottom = box
    rows, columns = grid_hw
    shrinks = rows * geometry.patch_size < bottom - top and columns * geometry.patch_size < right - left
    return "opencv_area" if shrinks else "opencv_linear"


def _stretched_from(grid_hw: tuple[int, int], config: SaotConfig, geometry: PatchGeometry) -> tuple[int, int] | None:
    """The grid that the tower is given for one it cannot be given; None where it can.

    The official image processor's (`smart_resize` in `damovl_encoder/image_processing.py`) with the whole of its
    budget for this one object; within that budget also where a grid is too thin to be shrunk both ways.
    """
    multiple = geometry.grid_multiple
    most_patches = max(config.max_patches, multiple**2)
    patches, step_px = math.prod(grid_hw), geometry.patch_size * multiple
    height_px, width_px = (side * geometry.patch_size for side in grid_hw)
    if patches > most_patches:
        shrink = math.sqrt(patches / most_patches)
        longest = most_patches // multiple**2
        rows, columns = (min(max(1, int(side / shrink / step_px)), longest) for side in (height_px, width_px))
    elif patches < FEWEST_ENCODED_PATCHES:
        grow = math.sqrt(FEWEST_ENCODED_PATCHES / patches)
        rows, columns = (math.ceil(side * grow / step_px) for side in (height_px, width_px))
    else:
        return None
    return rows * multiple, columns * multiple


def _mask_in_box(mask: RegionMask, box: Box) -> np.ndarray:
    """The part of the mask in `box`, which lies in the image, as bytes of 0 and 1."""
    left, top, right, bottom = box
    x0, y0, _, _ = mask.box_xyxy
    part = np.zeros((bottom - top, right - left), dtype=np.uint8)
    seen = mask.window[: bottom - y0, : right - x0]
    part[y0 - top : y0 - top + len(seen), x0 - left : x0 - left + seen.shape[1]] = seen
    return part


def _uint8_linear(part: np.ndarray, grid_hw: tuple[int, int]) -> np.ndarray:
    """PixelRefer's mask grid: torch's bilinear resize of bytes, which rounds to 0 and 1 after each axis."""
    import torch
    from torch.nn.functional import interpolate

    resized = interpolate(torch.from_numpy(part)[None, None], size=grid_hw, mode="bilinear", align_corners=False)
    return resized[0, 0].numpy()


def _any_linear(part: np.ndarray, grid_hw: tuple[int, int]) -> np.ndarray:
    """PixelRefer-Lite's mask grid: all that OpenCV's bilinear resize of numbers leaves above zero."""
    import cv2

    return cv2.resize(part.astype(np.float32), grid_hw[::-1], interpolation=cv2.INTER_LINEAR) > 0
