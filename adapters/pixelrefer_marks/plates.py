"""Where numbers go: inside a mask where it is thickest, as set-of-mark has it, or beside one that is too small.

Yang et al. 2023, arXiv:2310.11441, section 2.2: the point farthest from the mask's edge, smaller masks taken off first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pixelrefer_plugin.authoring import Box, RegionMask

_MOST_HIDDEN = 0.15  # share of a mask that its number may cover
_NEARLY = 0.95  # of the greatest distance from a mask's edge
_RINGS = 8  # around an object, each a plate's side wider, that are searched for room


@dataclass(frozen=True)
class Plate:
    """The ground of a number.

    Attributes:
        size_wh: width and height, in pixels.
        text_xy: where the number is written within it.
    """

    size_wh: tuple[int, int]
    text_xy: tuple[float, float]

    @classmethod
    def of(cls, text_box: tuple[float, float, float, float], pad_px: int) -> Plate:
        """A plate for a text that covers `text_box` when it is written at (0, 0)."""
        x0, y0, x1, y1 = text_box
        return cls((math.ceil(x1 - x0) + 2 * pad_px, math.ceil(y1 - y0) + 2 * pad_px), (pad_px - x0, pad_px - y0))


def place_plates(
    masks: Sequence[RegionMask], sizes_wh: Sequence[tuple[int, int]], *, fills: Sequence[bool], gap_px: int
) -> list[Box]:
    """A box for each plate, on the picture, which is larger, and on no other plate where that can be avoided.

    Args:
        masks: of one picture, large ones first.
        sizes_wh: the plates' widths and heights.
        fills: whether each plate may lie inside its mask.
        gap_px: how far a plate beside a mask stays off it.
    """
    boxes: list[Box] = []
    smaller: list[RegionMask] = []
    for mask, size_wh, fill in reversed(list(zip(masks, sizes_wh, fills, strict=True))):
        inside = _inside(mask, size_wh, smaller, boxes) if fill else None
        others = [other.box_xyxy for other in masks if other is not mask]
        boxes.append(inside or _beside(mask, size_wh, gap_px, others, boxes))
        smaller.append(mask)
    return boxes[::-1]


def _inside(
    mask: RegionMask, size_wh: tuple[int, int], smaller: Sequence[RegionMask], taken: Sequence[Box]
) -> Box | None:
    """A plate where the mask, less smaller ones and plates, is thickest; None without room, or if it hides too much.

    Smaller masks are drawn over this one, so that its number must lie beside them.
    """
    import cv2

    if math.prod(size_wh) > _MOST_HIDDEN * mask.area:
        return None
    free = mask.window.copy()
    for other in smaller:
        _take_off(free, mask, other.box_xyxy, other.window)
    for box in taken:
        _take_off(free, mask, box, None)
    inner = cv2.distanceTransform(np.pad(free, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    most = float(inner.max())
    if most < math.hypot(*size_wh) / 2:
        return None
    rows, columns = np.nonzero(inner >= _NEARLY * most)
    middle = (len(free) - 1) / 2, (free.shape[1] - 1) / 2
    nearest = np.argmin((rows - middle[0]) ** 2 + (columns - middle[1]) ** 2)
    x, y = mask.box_xyxy[0] + int(columns[nearest]), mask.box_xyxy[1] + int(rows[nearest])
    return _on_picture(x - size_wh[0] // 2, y - size_wh[1] // 2, size_wh, mask.image_hw)


def _take_off(free: np.ndarray, mask: RegionMask, box: Box, window: np.ndarray | None) -> None:
    """Remove what another mask, or all of a box, covers from a mask's window."""
    x0, y0, x1, y1 = mask.box_xyxy
    left, top, right, bottom = max(x0, box[0]), max(y0, box[1]), min(x1, box[2]), min(y1, box[3])
    if left >= right or top >= bottom:
        return
    part = free[top - y0 : bottom - y0, left - x0 : right - x0]
    part &= False if window is None else ~window[top - box[1] : bottom - box[1], left - box[0] : right - box[0]]


def _beside(
    mask: RegionMask, size_wh: tuple[int, int], gap_px: int, others: Sequence[Box], taken: Sequence[Box]
) -> Box:
    """The nearest place around the mask that no plate has, of those equally near the one that hides least."""
    own = _grown(mask.box_xyxy, gap_px)
    for ring in range(_RINGS):
        around = _grown(mask.box_xyxy, gap_px + ring * min(size_wh))
        places = [_on_picture(x, y, size_wh, mask.image_hw) for x, y in _around(around, size_wh)]
        clear = [place for place in places if not any(_common(place, other) for other in taken)]
        if ring == 0:
            clear = [place for place in clear if not _common(place, mask.box_xyxy)] or clear
        if clear:
            return min(clear, key=lambda place: 4 * _common(place, own) + sum(_common(place, each) for each in others))
    return _on_picture(own[0], own[1] - size_wh[1], size_wh, mask.image_hw)


def _around(box: Box, size_wh: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Upper left corners of plates around a box: above, below, right and left of it, at its ends and its middle."""
    (x0, y0, x1, y1), (width, height) = box, size_wh
    across, down = (x0, x1 - width, (x0 + x1 - width) // 2), (y0, y1 - height, (y0 + y1 - height) // 2)
    for y in (y0 - height, y1):
        yield from ((x, y) for x in (*across, x0 - width, x1))
    for x in (x1, x0 - width):
        yield from ((x, y) for y in down)


def _on_picture(x: int, y: int, size_wh: tuple[int, int], image_hw: tuple[int, int]) -> Box:
    """A plate moved onto the picture, which is larger."""
    left = max(0, min(x, image_hw[1] - size_wh[0]))
    top = max(0, min(y, image_hw[0] - size_wh[1]))
    return left, top, left + size_wh[0], top + size_wh[1]


def _grown(box: Box, by_px: int) -> Box:
    return box[0] - by_px, box[1] - by_px, box[2] + by_px, box[3] + by_px


def _common(one: Box, other: Box) -> int:
    """How many pixels two boxes share."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    return max(across, 0) * max(down, 0)
