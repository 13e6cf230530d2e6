"""Draws marks on a copy of a picture. Knows masks, colours and numbers; knows no regions and no words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from pixelrefer_plugin.authoring import Lettering, RegionMask

from .config import MarksConfig
from .palette import Colour
from .plates import Plate, place_plates
from .shapes import Shape, Sizes, distances_outside

_MOST_SAMPLED = 2048


@dataclass(frozen=True, eq=False)
class Mark:
    """A region's mark on one picture.

    Attributes:
        number: of the region.
        shape: what is drawn.
        colour: in which colour.
    """

    number: int
    shape: Shape
    colour: Colour

    @property
    def mask(self) -> RegionMask:
        """The pixels of the shape."""
        return self.shape.mask


def draw_marks(pixels: np.ndarray, marks: Sequence[Mark], sizes: Sizes, config: MarksConfig) -> np.ndarray:
    """A copy of a picture with marks on it: small ones over large ones, and numbers over all.

    Args:
        pixels: `(H, W, 3)` uint8.
        marks: what is drawn.
        sizes: of lines and numbers.
        config: how it is drawn.
    """
    drawn = pixels.copy()
    ordered = sorted(marks, key=lambda mark: (-mark.mask.area, mark.number))
    lines = _lines(ordered, sizes)
    if config.style in ("tint", "both"):
        for mark in ordered:
            _tint(drawn, pixels, mark, config.opacity)
    for mark, line in zip(ordered, lines, strict=True):
        if mark.shape.is_dots:
            _fill(drawn, mark, sizes)
        elif config.style != "tint":
            _outline(drawn, mark, line, sizes)
    return _with_numbers(drawn, ordered, sizes) if config.numbers else drawn


def pixels_under(pixels: np.ndarray, shape: Shape, sizes: Sizes) -> np.ndarray:
    """`(n, 3)`: what of a picture lies in the shape and around it, some of it evenly."""
    reach = sizes.line_px + sizes.halo_px
    outside, (x, y) = distances_outside(shape.mask, reach)
    rows, columns = np.nonzero(outside <= reach)
    step = -(-len(rows) // _MOST_SAMPLED)
    return pixels[y + rows[::step], x + columns[::step]]


def _lines(marks: Sequence[Mark], sizes: Sizes) -> list[int]:
    """How far from its shape each outline begins: beyond those of later shapes that have the same box, nearly."""
    near, step = sizes.line_px, sizes.line_px + sizes.halo_px
    starts = []
    for index, mark in enumerate(marks, 1):
        same = [other for other in marks[index:] if _far_apart(mark.mask, other.mask) <= near]
        starts.append(step * len(same))
    return starts


def _far_apart(one: RegionMask, other: RegionMask) -> int:
    """How far the sides of two boxes lie apart at most, in pixels."""
    return max(abs(a - b) for a, b in zip(one.box_xyxy, other.box_xyxy, strict=True))


def _tint(drawn: np.ndarray, pixels: np.ndarray, mark: Mark, opacity: float) -> None:
    """Lay the colour over the picture's own pixels, not over a larger mark's tint."""
    import cv2

    x0, y0, x1, y1 = mark.mask.box_xyxy
    own = pixels[y0:y1, x0:x1]
    colour = np.full_like(own, mark.colour.rgb)
    tinted = cv2.addWeighted(own, 1 - opacity, colour, opacity, 0)
    np.copyto(drawn[y0:y1, x0:x1], tinted, where=mark.mask.window[..., None])


def _fill(drawn: np.ndarray, mark: Mark, sizes: Sizes) -> None:
    """A click's dots, each with an edge of black or white."""
    outside, (x, y) = distances_outside(mark.mask, sizes.halo_px)
    part = drawn[y : y + outside.shape[0], x : x + outside.shape[1]]
    part[outside <= sizes.halo_px] = mark.colour.contrast
    part[outside == 0] = mark.colour.rgb


def _outline(drawn: np.ndarray, mark: Mark, start_px: int, sizes: Sizes) -> None:
    """A line around the shape and inside its holes, with an edge of black or white; inside the picture where the shape
    reaches its border."""
    line_end = start_px + sizes.line_px
    halo_end = line_end + sizes.halo_px
    outside, (x, y) = distances_outside(mark.mask, halo_end)
    height, width = outside.shape
    part = drawn[y : y + height, x : x + width]
    depth = _depth((x, y), (height, width), mark.mask.image_hw)
    at_border = (outside == 0) & (depth > start_px)
    part[((outside > line_end) & (outside <= halo_end)) | (at_border & (depth > line_end) & (depth <= halo_end))] = (
        mark.colour.contrast
    )
    part[((outside > start_px) & (outside <= line_end)) | (at_border & (depth <= line_end))] = mark.colour.rgb


def _depth(start_xy: tuple[int, int], part_hw: tuple[int, int], image_hw: tuple[int, int]) -> np.ndarray:
    """How many pixels each pixel of a part of a picture lies inside its border; 1 in its outermost rows and columns."""
    down, across = (
        np.minimum(np.arange(start, start + count) + 1, size - np.arange(start, start + count))
        for start, count, size in zip(start_xy[::-1], part_hw, image_hw, strict=True)
    )
    return np.minimum(down[:, None], across)


def _with_numbers(drawn: np.ndarray, marks: Sequence[Mark], sizes: Sizes) -> np.ndarray:
    """Each number on a plate of its mark's colour with an edge of black or white, where the picture has room for it."""
    lettering = Lettering(sizes.font_px)
    pad_px = sizes.halo_px + max(1, sizes.font_px // 8)
    plates = [Plate.of(lettering.box(str(mark.number)), pad_px) for mark in marks]
    if any(2 * wide > drawn.shape[1] or 2 * high > drawn.shape[0] for wide, high in (each.size_wh for each in plates)):
        return drawn
    boxes = place_plates(
        [mark.mask for mark in marks],
        [plate.size_wh for plate in plates],
        fills=[not mark.shape.is_dots for mark in marks],
        gap_px=sizes.line_px + sizes.halo_px,
    )
    for mark, (x0, y0, x1, y1) in zip(marks, boxes, strict=True):
        edge = sizes.halo_px
        drawn[y0:y1, x0:x1] = mark.colour.contrast
        drawn[y0 + edge : y1 - edge, x0 + edge : x1 - edge] = mark.colour.rgb
    picture = Image.fromarray(drawn)
    for mark, plate, (x0, y0, _, _) in zip(marks, plates, boxes, strict=True):
        at = (x0 + plate.text_xy[0], y0 + plate.text_xy[1])
        lettering.write(ImageDraw.Draw(picture), at, str(mark.number), fill=mark.colour.contrast)
    return np.asarray(picture)
