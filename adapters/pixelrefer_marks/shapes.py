"""What of a region is drawn on one picture: sizes in pixels, and the shape that the mark has."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pixelrefer_plugin.authoring import PlacedRegion, PointedMedium, Region, RegionMask

from .config import MarksConfig

_LEAST_LINE_PX = 2
_LEAST_FONT_PX = 11
_SMALLEST_FONT_PX = 8  # of which digits can be read
_LEAST_SEEN_LINE_PX = 1.5
_LEAST_SEEN_FONT_PX = 14
_MOST_COVERED = 0.3  # share of the picture that numbers may cover together
_DOT = 2.0  # radius of a click's dot, in widths of a line


@dataclass(frozen=True)
class Sizes:
    """Lengths on one picture, in its pixels.

    Attributes:
        line_px: width of an outline.
        halo_px: width of the edge of black or white around it.
        font_px: height of a number's font.
        least_px: longer side of the smallest mark.
    """

    line_px: int
    halo_px: int
    font_px: int
    least_px: int

    @classmethod
    def on(cls, medium: PointedMedium, num_regions: int, config: MarksConfig) -> Sizes:
        """Those for a picture: by its size, larger where the backbone is known to see it much smaller, and numbers
        smaller where many would hide it."""
        height, width = medium.image_hw
        side = math.sqrt(height * width)
        shrunk = 1.0
        if medium.coordinates is not None:
            shrunk = min(1.0, math.sqrt(math.prod(medium.coordinates.seen_hw)) / side)
        line_px = max(_LEAST_LINE_PX, round(max(config.line_width * side, _LEAST_SEEN_LINE_PX / shrunk)))
        font_px = max(_LEAST_FONT_PX, round(max(config.number_size * side, _LEAST_SEEN_FONT_PX / shrunk)))
        return cls(
            line_px=min(line_px, max(1, min(height, width) // 8)),
            halo_px=max(1, round(line_px / 3)),
            font_px=max(_SMALLEST_FONT_PX, min(font_px, int(side * math.sqrt(_MOST_COVERED / num_regions)))),
            least_px=max(4, round(config.least_size * side)),
        )


@dataclass(frozen=True, eq=False)
class Shape:
    """What is drawn of a region on one picture.

    Attributes:
        mask: its pixels; of clicks their dots.
        is_dots: whether it is the dots of clicks, which are filled.
        has_grown: whether it is larger than the region, which would not be seen.
    """

    mask: RegionMask
    is_dots: bool = False
    has_grown: bool = False


def shape_of(placed: PlacedRegion, sizes: Sizes, config: MarksConfig) -> Shape:
    """The shape of a region's mark."""
    if placed.region.kind == "points":
        return Shape(_dots(placed, sizes), is_dots=True)
    mask = placed.mask
    x0, y0, x1, y1 = mask.box_xyxy
    has_grown = max(x1 - x0, y1 - y0) < sizes.least_px
    if has_grown:
        mask = RegionMask.union([mask, _disk(mask, sizes.least_px / 2)])
    elif config.style == "tint" and _is_thin(mask, sizes.line_px):
        mask, has_grown = _thickened(mask, sizes.line_px), True
    elif config.style in ("outline", "both"):
        mask = _without_gaps(mask, sizes.line_px)
    if config.style == "box":
        mask = RegionMask(None, mask.box_xyxy, mask.image_hw)
    return Shape(mask, has_grown=has_grown)


def _dots(placed: PlacedRegion, sizes: Sizes) -> RegionMask:
    points, _ = placed.region.data
    return Region.from_points(points, radius_px=_DOT * sizes.line_px).to_mask(placed.mask.image_hw)


def _disk(mask: RegionMask, radius_px: float) -> RegionMask:
    """A disk around the middle of a mask's box, moved into the picture."""
    x0, y0, x1, y1 = mask.box_xyxy
    height, width = mask.image_hw
    x = min(max((x0 + x1) / 2, radius_px), max(width - radius_px, width / 2))
    y = min(max((y0 + y1) / 2, radius_px), max(height - radius_px, height / 2))
    return Region.from_points([(x, y)], radius_px=radius_px).to_mask(mask.image_hw)


def _is_thin(mask: RegionMask, line_px: int) -> bool:
    """Whether it is nowhere as thick as a line is wide."""
    import cv2

    inside = np.pad(mask.window, 1).astype(np.uint8)
    return 2 * float(cv2.distanceTransform(inside, cv2.DIST_L2, 5).max()) - 1 < line_px


def _without_gaps(mask: RegionMask, line_px: int) -> RegionMask:
    """The mask with its gaps filled that an outline on both sides would fill: spokes of a wheel stay to be seen."""
    import cv2

    reach = 2 * line_px
    outside = np.pad(~mask.window, reach + 1, constant_values=True).astype(np.uint8)
    grown = (cv2.distanceTransform(outside, cv2.DIST_L2, 5) <= reach).astype(np.uint8)
    closed = cv2.distanceTransform(np.pad(grown, 1), cv2.DIST_L2, 5) > reach
    inner = slice(reach + 2, -(reach + 2))
    return RegionMask(closed[inner, inner] | mask.window, mask.box_xyxy, mask.image_hw)


def _thickened(mask: RegionMask, by_px: int) -> RegionMask:
    outside, (x, y) = distances_outside(mask, by_px)
    part = np.zeros(mask.image_hw, dtype=bool)
    part[y : y + outside.shape[0], x : x + outside.shape[1]] = outside <= by_px
    return RegionMask.from_dense(part)


def distances_outside(mask: RegionMask, margin_px: int) -> tuple[np.ndarray, tuple[int, int]]:
    """How far each pixel around a mask lies from it.

    Returns:
        `(h, w)` float32 of the mask's box with a margin, within the picture; 0 inside the mask. And the `(x, y)` where
        this part of the picture begins.
    """
    import cv2

    (x0, y0, x1, y1), (height, width) = mask.box_xyxy, mask.image_hw
    left, top = max(0, x0 - margin_px), max(0, y0 - margin_px)
    right, bottom = min(width, x1 + margin_px), min(height, y1 + margin_px)
    outside = np.ones((bottom - top, right - left), dtype=np.uint8)
    outside[y0 - top : y1 - top, x0 - left : x1 - left] = ~mask.window
    return cv2.distanceTransform(outside, cv2.DIST_L2, 5), (left, top)
