"""Every kind of region as a mask, or only checked to fit: boxes, polygons, clicks, scribbles, run lengths."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import chain, pairwise
from typing import Any

import numpy as np
from PIL import Image

from ..errors import RegionError, shown
from .filling import Filling, filling
from .given import looks_normalised
from .mask import Box, RegionMask, trimmed_mask

Point = tuple[float, float]
Points = Sequence[Point]
Line = tuple[Point, Point]

# How far a coordinate may lie outside its image before the region is refused: annotation tools round.
OUTSIDE_TOLERANCE_PX = 1.0

# Half a thousandth of a pixel is arithmetic noise of whoever scaled a box, not a pixel touched.
NOISE_PX = 5e-4

_SMALLEST_SIDE_PX = 2  # on a smaller picture, coordinates within 0 and 1 are as likely pixels as shares of it


def _check_mask(mask: RegionMask, image_hw: tuple[int, int]) -> None:
    _require_size(mask.image_hw, image_hw, what="The mask")


def _mask_to_mask(mask: RegionMask, image_hw: tuple[int, int]) -> RegionMask:
    _check_mask(mask, image_hw)
    return mask


def _box_to_mask(box: tuple[float, ...], image_hw: tuple[int, int]) -> RegionMask:
    return RegionMask(None, _box_in_pixels(box, image_hw), image_hw)


def _box_in_pixels(box: tuple[float, ...], image_hw: tuple[int, int]) -> Box:
    x1, y1, x2, y2 = box
    _require_pixels([(x1, y1), (x2, y2)], image_hw, "box", box)
    _require_inside([(x1, y1), (x2, y2)], image_hw, f"box {box}")
    left, right = _pixels_touched(x1, x2, image_hw[1])
    top, bottom = _pixels_touched(y1, y2, image_hw[0])
    if left >= right or top >= bottom:
        raise RegionError(f"The box {box} lies outside its image of {_size(image_hw)}.")
    return left, top, right, bottom


def _pixels_touched(start: float, stop: float, side: int) -> tuple[int, int]:
    """First and end pixel of a row of `side` that [start, stop] touches; equal where it touches none."""
    first, end = math.floor(start + NOISE_PX), math.ceil(stop - NOISE_PX)
    if first >= end:
        first, end = math.floor(start), math.floor(start) + 1
    return max(first, 0), min(end, side)


def _polygon_to_mask(rings: tuple[tuple[float, ...], ...], image_hw: tuple[int, int]) -> RegionMask:
    return _filled(rings, image_hw).mask(image_hw)


def _filled(rings: tuple[tuple[float, ...], ...], image_hw: tuple[int, int]) -> Filling:
    points = [pair for ring in rings for pair in zip(ring[::2], ring[1::2], strict=True)]
    _require_inside(points, image_hw, "polygon")
    filled = filling(rings, image_hw)
    normalised = _said_of_normalised(points, image_hw, "polygon", rings)
    if filled.is_empty:
        reason = f". {normalised}" if normalised else ": is it flat?"
        raise RegionError(f"The polygon {shown(rings)} covers no pixel's centre of the image{reason}")
    if normalised:
        raise RegionError(normalised)
    return filled


def _check_points(data: tuple[Any, float], image_hw: tuple[int, int]) -> None:
    _require_pixels(data[0], image_hw, "point", data[0])
    _require_inside(data[0], image_hw, "point", slack=0.0)
    _require_drawable(_dots(data), data[1], image_hw, "clicks")


def _points_to_mask(data: tuple[Any, float], image_hw: tuple[int, int]) -> RegionMask:
    _check_points(data, image_hw)
    return _strokes(_dots(data), data[1], image_hw)


def _dots(data: tuple[Any, float]) -> list[Line]:
    return [(point, point) for point in dict.fromkeys(data[0])]


def _check_scribble(data: tuple[Any, float], image_hw: tuple[int, int]) -> None:
    _require_pixels(data[0], image_hw, "scribble", data[0])
    _require_inside(data[0], image_hw, "scribble", slack=0.0)
    _require_drawable(_lines(data), data[1] / 2, image_hw, "scribble")


def _scribble_to_mask(data: tuple[Any, float], image_hw: tuple[int, int]) -> RegionMask:
    _check_scribble(data, image_hw)
    return _strokes(_lines(data), data[1] / 2, image_hw)


def _lines(data: tuple[Any, float]) -> list[Line]:
    return list(dict.fromkeys(pairwise(data[0])))


def _require_drawable(lines: Sequence[Line], radius: float, image_hw: tuple[int, int], what: str) -> None:
    """Refuse lines that are too many and too wide to draw in seconds."""
    height, width = image_hw
    total = 0.0
    for (xa, ya), (xb, yb) in lines:
        if _covers_all(((xa, ya), (xb, yb)), radius, image_hw):
            return
        rows = min(height, abs(yb - ya) + 2 * radius + 2)
        columns = min(width, 2 * radius + 2 + abs(xb - xa) * min(1.0, (_BAND_PX + 2 * radius) / max(abs(yb - ya), 1.0)))
        total += rows * columns + _PIXELS_OF_A_LINE
    if total > _MOST_PIXELS_DRAWN:
        raise RegionError(
            f"The {what} cannot be drawn in reasonable time: {len(lines):,} points and lines, {2 * radius:g} pixels "
            f"wide, on an image of {_size(image_hw)}. Give fewer or narrower ones, or a mask."
        )


def _covers_all(line: Line, radius: float, image_hw: tuple[int, int]) -> bool:
    """Whether every corner of the image, and so every pixel of it, lies within `radius` of a line's first end."""
    (x, y), _ = line
    height, width = image_hw
    return math.hypot(max(x, width - x), max(y, height - y)) <= radius


def _strokes(lines: Sequence[Line], radius: float, image_hw: tuple[int, int]) -> RegionMask:
    """The pixels whose centre lies within `radius` of a line, and the pixels under the lines' ends."""
    height, width = image_hw
    if any(_covers_all(line, radius, image_hw) for line in lines):
        return RegionMask(None, (0, 0, width, height), image_hw)
    radius = max(radius, 0.5)  # less would leave gaps in a line
    ends = np.array(lines).reshape(-1, 2)
    left, top = np.maximum(np.floor(ends.min(axis=0) - radius), 0).astype(int).tolist()
    right, bottom = np.minimum(np.ceil(ends.max(axis=0) + radius), [width, height]).astype(int).tolist()
    part = np.zeros((bottom - top, right - left), dtype=bool)
    for line in lines:
        _draw_line(part, (left, top), line, radius)
    columns, rows = np.minimum(ends.astype(int), [width - 1, height - 1]).T
    part[rows - top, columns - left] = True
    mask = trimmed_mask(part, (left, top), image_hw)
    assert mask is not None, "the pixels under the lines' ends are set"
    return mask


_MOST_PIXELS_DRAWN = 2**28  # some seconds; pixels under several lines count for each
_PIXELS_OF_A_LINE = 2**12  # what the calls for a line cost, in pixels
_BAND_PX = 64  # rows drawn at a time: a long line is far from most pixels of its box


def _draw_line(part: np.ndarray, origin_xy: tuple[int, int], line: Line, radius: float) -> None:
    """Set the pixels whose centre lies within `radius` of a line, in the part of the image from `origin_xy` on."""
    (xa, ya), (xb, yb) = line
    x0, y0 = origin_xy
    height, width = part.shape
    length_2 = (xb - xa) ** 2 + (yb - ya) ** 2
    end = min(y0 + height, math.ceil(max(ya, yb) + radius))
    for top in range(max(y0, math.floor(min(ya, yb) - radius)), end, _BAND_PX):
        bottom = min(top + _BAND_PX, end)
        x_near = [xa, xb]
        if abs(yb - ya) > 1:
            x_near = [xa + min(max((y - ya) / (yb - ya), 0), 1) * (xb - xa) for y in (top - radius, bottom + radius)]
        left, right = max(x0, math.floor(min(x_near) - radius)), min(x0 + width, math.ceil(max(x_near) + radius))
        x, y = np.arange(left, right)[None] + 0.5, np.arange(top, bottom)[:, None] + 0.5
        along = np.clip(((x - xa) * (xb - xa) + (y - ya) * (yb - ya)) / length_2, 0, 1) if length_2 else 0.0
        distance_2 = (x - xa - along * (xb - xa)) ** 2 + (y - ya - along * (yb - ya)) ** 2
        part[top - y0 : bottom - y0, left - x0 : right - x0] |= distance_2 <= radius**2


def _check_rle(data: tuple[Any, tuple[int, int]], image_hw: tuple[int, int]) -> None:
    _require_size(data[1], image_hw, what="The RLE")
    pixels, limit = math.prod(image_hw), Image.MAX_IMAGE_PIXELS
    if limit is not None and pixels > limit:
        raise RegionError(
            f"The RLE is of {pixels:,} pixels, but a picture may have {limit:,}. Raise "
            "PIL.Image.MAX_IMAGE_PIXELS if you trust it."
        )


def _rle_to_mask(data: tuple[Any, tuple[int, int]], image_hw: tuple[int, int]) -> RegionMask:
    _check_rle(data, image_hw)
    return _runs_to_mask(data[0], image_hw)


def _runs_to_mask(runs: Sequence[int], image_hw: tuple[int, int]) -> RegionMask:
    """The mask of run lengths, not all of them the background's, which COCO counts column by column."""
    height, _ = image_hw
    ends = np.cumsum(runs)
    is_inside = np.arange(len(runs)) % 2 == 1
    drawn = np.flatnonzero(is_inside & (np.diff(ends, prepend=0) > 0))
    first_column, end_column = ends[drawn[0] - 1] // height, -(-ends[drawn[-1]] // height)
    ends = np.clip(ends, first_column * height, end_column * height)
    pixels = np.repeat(is_inside, np.diff(ends, prepend=first_column * height))
    mask = trimmed_mask(pixels.reshape(-1, height).T, (int(first_column), 0), image_hw)
    assert mask is not None, "a run of the foreground is not empty"
    return mask


CHECKS: dict[str, Callable[[Any, tuple[int, int]], Any]] = {
    "mask": _check_mask,
    "box": _box_in_pixels,
    "polygon": _filled,
    "points": _check_points,
    "rle": _check_rle,
    "scribble": _check_scribble,
}
"""For each kind what raises where a region does not fit its image: what rasterising it would raise, at less cost."""

RASTERIZERS: dict[str, Callable[[Any, tuple[int, int]], RegionMask]] = {
    "mask": _mask_to_mask,
    "box": _box_to_mask,
    "polygon": _polygon_to_mask,
    "points": _points_to_mask,
    "rle": _rle_to_mask,
    "scribble": _scribble_to_mask,
}


def _require_size(got_hw: tuple[int, int], image_hw: tuple[int, int], *, what: str) -> None:
    if got_hw != tuple(image_hw):
        raise RegionError(
            f"{what} is of {_size(got_hw)} but its image is of {_size(image_hw)}. "
            "Regions are given in the pixels of the original image."
        )


def _require_pixels(points_xy: Points, image_hw: tuple[int, int], kind: str, given: Any) -> None:
    normalised = _said_of_normalised(points_xy, image_hw, kind, given)
    if normalised:
        raise RegionError(normalised)


def _said_of_normalised(points_xy: Points, image_hw: tuple[int, int], kind: str, given: Any) -> str:
    """What a message says of coordinates that are shares of the image's sides; nothing of others."""
    if max(image_hw) <= _SMALLEST_SIDE_PX or not looks_normalised(chain.from_iterable(points_xy)):
        return ""
    height, width = image_hw
    return (
        f"All coordinates of the {kind} {shown(given)} lie within 0 and 1, but pixels are expected. "
        f"Multiply x by the width {width} and y by the height {height}."
    )


def _require_inside(
    points_xy: Sequence[tuple[float, float]],
    image_hw: tuple[int, int],
    what: str,
    *,
    slack: float = OUTSIDE_TOLERANCE_PX,
) -> None:
    height, width = image_hw
    for x, y in points_xy:
        if not (-slack <= x <= width + slack and -slack <= y <= height + slack):
            raise RegionError(
                f"The {what} reaches ({x:g}, {y:g}), outside its image of {_size(image_hw)}. "
                "Clip it, or check that it is in original pixels."
            )


def _size(hw: tuple[int, int]) -> str:
    return f"width {hw[1]} and height {hw[0]}"
