"""`Region`: what the user points at, in original pixels, from the command line to the adapter.

A region remembers what was given (a box, a polygon, ...) and becomes a mask once its image's size is known.
It knows geometry only: no model, no patch size, no tokens.

Coordinates are continuous: pixel (row i, column j) covers `[j, j+1) x [i, i+1)`; x runs right, y runs down.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from .errors import RegionError

Box = tuple[int, int, int, int]

# How far a coordinate may lie outside its image before the region is refused: annotation tools round.
OUTSIDE_TOLERANCE_PX = 1.0


@dataclass(frozen=True, eq=False)
class RegionMask:
    """A binary mask kept compactly: the tight box around it and the pixels inside that box.

    Attributes:
        window: `(h, w)` bool, the mask inside `box_xyxy`; its first and last row and column are not empty.
        box_xyxy: tight box in original pixels, end-exclusive.
        image_hw: size of the image the mask lies on.
    """

    window: np.ndarray
    box_xyxy: Box
    image_hw: tuple[int, int]

    @classmethod
    def from_dense(cls, mask: np.ndarray) -> RegionMask:
        """Compact a `(H, W)` bool mask. Raises `RegionError` when no pixel is set."""
        rows, columns = mask.any(axis=1), mask.any(axis=0)
        if not rows.any():
            height, width = mask.shape
            raise RegionError(f"The region is empty: no pixel of its {height}x{width} mask is set.")
        y0, y1 = int(rows.argmax()), len(rows) - int(rows[::-1].argmax())
        x0, x1 = int(columns.argmax()), len(columns) - int(columns[::-1].argmax())
        window = np.ascontiguousarray(mask[y0:y1, x0:x1])
        return cls(window, (x0, y0, x1, y1), (mask.shape[0], mask.shape[1]))

    @cached_property
    def area(self) -> int:
        """Number of pixels set, the paper's `|M|`."""
        return int(np.count_nonzero(self.window))

    def dense(self) -> np.ndarray:
        """The mask at full size, `(H, W)` bool."""
        mask = np.zeros(self.image_hw, dtype=bool)
        x0, y0, x1, y1 = self.box_xyxy
        mask[y0:y1, x0:x1] = self.window
        return mask

    def coverage(self, box_xyxy: Box, grid_hw: tuple[int, int]) -> np.ndarray:
        """Share of each cell that the mask covers, when `box_xyxy` is cut into a grid of equal cells.

        Args:
            box_xyxy: the box that the grid spans, in original pixels.
            grid_hw: rows and columns of the grid.

        Returns:
            `(h, w)` float32 in [0, 1], exact area ratios, in raster order.
        """
        x0, y0, x1, y1 = box_xyxy
        left, top, right, bottom = self.box_xyxy
        down = _overlap(y0, y1, grid_hw[0], top, bottom)
        across = _overlap(x0, x1, grid_hw[1], left, right)
        return down @ self.window.astype(np.float32) @ across.T

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RegionMask):
            return NotImplemented
        same_place = (self.box_xyxy, self.image_hw) == (other.box_xyxy, other.image_hw)
        return same_place and np.array_equal(self.window, other.window)

    def __hash__(self) -> int:
        return hash((self.box_xyxy, self.image_hw, self.window.tobytes()))


def _overlap(start: float, stop: float, cells: int, first_pixel: int, end_pixel: int) -> np.ndarray:
    """`(cells, pixels)`: the share of each cell of [start, stop) that lies in each pixel."""
    edges = np.linspace(start, stop, cells + 1, dtype=np.float64)[:, None]
    pixels = np.arange(first_pixel, end_pixel, dtype=np.float64)[None]
    shared = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return (np.clip(shared, 0, None) * (cells / (stop - start))).astype(np.float32)


@dataclass(frozen=True)
class Region:
    """What the user points at on one image: an immutable, validated value in original pixels.

    Make one with a `from_...` constructor. What can be checked without the image is checked there, the
    rest in `to_mask`.

    Attributes:
        kind: what was given: `mask`, `box`, `polygon`, `points`, `rle` or `scribble`.
        data: that, in the form its constructor keeps it.
        image_index: which image of the sample the region lies on.
    """

    kind: str
    data: Any
    image_index: int = 0

    def __post_init__(self) -> None:
        if self.kind not in _RASTERIZERS:
            raise RegionError(f"Region.kind must be one of {', '.join(_RASTERIZERS)}, got '{self.kind}'.")
        if not isinstance(self.image_index, int) or self.image_index < 0:
            raise RegionError(f"Region.image_index must be an integer >= 0, got {self.image_index!r}.")

    @classmethod
    def from_mask(cls, mask: np.ndarray, *, image_index: int = 0) -> Region:
        """A region from a mask of its image's size.

        Args:
            mask: `(H, W)`, bool or a number type in which non-zero means inside.
            image_index: which image of the sample it lies on.

        Raises:
            RegionError: not two-dimensional, not finite, or empty.
        """
        array = np.asarray(mask)
        if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "biuf":
            raise RegionError(f"A mask must be a (H, W) array of booleans or numbers, got {array.dtype} "
                              f"{tuple(array.shape)}.")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise RegionError("A mask must be finite, got NaN or infinity.")
        return cls("mask", RegionMask.from_dense(array != 0), image_index)

    @classmethod
    def from_box(cls, box_xyxy: Sequence[float], *, image_index: int = 0) -> Region:
        """A region from a box `(x1, y1, x2, y2)`: every pixel that the box touches.

        Raises:
            RegionError: not four finite numbers, inverted, or without area.
        """
        box = _finite(box_xyxy, what="A box", shape="x1,y1,x2,y2")
        if len(box) != 4:
            raise RegionError(f"A box must be four numbers x1,y1,x2,y2, got {len(box)}: {box}.")
        x1, y1, x2, y2 = box
        if x2 < x1 or y2 < y1:
            raise RegionError(f"A box must have x1 < x2 and y1 < y2, got {box}: is it inverted, or x,y,width,height?")
        if x1 == x2 or y1 == y2:
            raise RegionError(f"A box must have an area, got {box}.")
        return cls("box", box, image_index)

    @classmethod
    def from_polygon(cls, polygon: Sequence[Any], *, image_index: int = 0) -> Region:
        """A region from a polygon, or from several that belong together (as COCO's `segmentation`).

        Args:
            polygon: `[x0, y0, x1, y1, ...]`, `[(x0, y0), ...]`, or a list of such polygons.
            image_index: which image of the sample it lies on.

        Raises:
            RegionError: fewer than three points, an odd number of coordinates, or not finite.
        """
        rings = [_ring(part) for part in _parts(polygon)]
        return cls("polygon", tuple(rings), image_index)

    @classmethod
    def from_points(
        cls, points_xy: Sequence[Sequence[float]], *, radius_px: float = 10.0, image_index: int = 0
    ) -> Region:
        """A region from clicks: a disk of `radius_px` around each.

        Raises:
            RegionError: no point, not pairs of finite numbers, or a radius that is not positive.
        """
        points = _pairs(points_xy, what="Points")
        return cls("points", (points, _positive(radius_px, "radius_px")), image_index)

    @classmethod
    def from_scribble(
        cls, points_xy: Sequence[Sequence[float]], *, width_px: float = 10.0, image_index: int = 0
    ) -> Region:
        """A region from a freehand line through `points_xy`, `width_px` wide, with round ends.

        Raises:
            RegionError: fewer than two points, not pairs of finite numbers, or a width that is not positive.
        """
        points = _pairs(points_xy, what="A scribble")
        if len(points) < 2:
            raise RegionError("A scribble needs at least two points; for a click use Region.from_points.")
        return cls("scribble", (points, _positive(width_px, "width_px")), image_index)

    @classmethod
    def from_rle(cls, rle: Mapping[str, Any], *, image_index: int = 0) -> Region:
        """A region from COCO run-length encoding, compressed (`counts` a string) or not (a list).

        Args:
            rle: `{"size": [height, width], "counts": ...}`.
            image_index: which image of the sample it lies on.

        Raises:
            RegionError: keys missing, sizes or counts malformed, or runs that do not add up to the size.
        """
        if not isinstance(rle, Mapping) or not {"size", "counts"} <= set(rle):
            raise RegionError(f"An RLE must be a mapping with 'size' and 'counts', got {_short(rle)}.")
        height_width = _finite(rle["size"], what="RLE size", shape="[height, width]")
        if len(height_width) != 2 or any(side != int(side) or side < 1 for side in height_width):
            raise RegionError(f"RLE size must be two positive integers [height, width], got {_short(rle['size'])}.")
        height, width = (int(side) for side in height_width)
        runs = _rle_runs(rle["counts"], total=height * width)
        return cls("rle", (runs, height, width), image_index)

    @classmethod
    def from_png(
        cls, path: str | os.PathLike[str], *, value: int | None = None, image_index: int = 0
    ) -> Region:
        """A region from a mask picture: non-zero pixels, or those equal to `value` in a label map.

        Grey, black-and-white, 16-bit and palette pictures are read by value (a palette's by index, as DAVIS
        has it). Of a picture with transparency the mask is where it is not transparent.

        Raises:
            RegionError: the file is missing or damaged, a colour picture, or the mask is empty.
        """
        try:
            with Image.open(path) as picture:
                array = _mask_values(picture, path)
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise RegionError(f"Mask '{os.fspath(path)}' cannot be read: {error}.") from error
        mask = array != 0 if value is None else array == value
        if not mask.any():
            wanted = "non-zero" if value is None else f"equal to {value}"
            raise RegionError(f"Mask '{os.fspath(path)}' is empty: no pixel is {wanted}; it has {_values(array)}.")
        return cls.from_mask(mask, image_index=image_index)

    def on_image(self, image_index: int) -> Region:
        """The same region on another image of the sample."""
        return replace(self, image_index=image_index)

    def to_mask(self, image_hw: tuple[int, int]) -> RegionMask:
        """The region as pixels of an image of `image_hw`.

        Raises:
            RegionError: it was made for an image of another size, lies outside, or covers no pixel.
        """
        return _RASTERIZERS[self.kind](self.data, image_hw)


def _mask_to_mask(mask: RegionMask, image_hw: tuple[int, int]) -> RegionMask:
    _require_size(mask.image_hw, image_hw, what="The mask")
    return mask


def _box_to_mask(box: tuple[float, ...], image_hw: tuple[int, int]) -> RegionMask:
    x1, y1, x2, y2 = box
    _require_inside([(x1, y1), (x2, y2)], image_hw, what=f"The box {box}")
    height, width = image_hw
    # Half a thousandth of a pixel is arithmetic noise of whoever scaled the box, not a pixel touched.
    left, top = (max(0, math.floor(start + 5e-4)) for start in (x1, y1))
    right, bottom = min(width, math.ceil(x2 - 5e-4)), min(height, math.ceil(y2 - 5e-4))
    left, top = min(left, width - 1), min(top, height - 1)
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    window = np.ones((bottom - top, right - left), dtype=bool)
    return RegionMask(window, (left, top, right, bottom), image_hw)


def _polygon_to_mask(rings: tuple[tuple[float, ...], ...], image_hw: tuple[int, int]) -> RegionMask:
    from pycocotools import mask as coco

    for ring in rings:
        _require_inside(list(zip(ring[::2], ring[1::2], strict=True)), image_hw, what="The polygon")
    encoded = coco.merge(coco.frPyObjects([list(ring) for ring in rings], *image_hw))
    dense = coco.decode(encoded).astype(bool)
    if not dense.any():
        raise RegionError(f"The polygon {_short(rings)} covers no pixel's centre of the image: is it flat?")
    return RegionMask.from_dense(dense)


def _points_to_mask(data: tuple[Any, float], image_hw: tuple[int, int]) -> RegionMask:
    points, radius = data
    _require_inside(points, image_hw, what="The point", strictly=True)
    height, width = image_hw
    canvas = Image.new("1", (width, height))
    draw = ImageDraw.Draw(canvas)
    for x, y in points:
        _disk(draw, x, y, radius, image_hw)
    return RegionMask.from_dense(np.asarray(canvas))


def _scribble_to_mask(data: tuple[Any, float], image_hw: tuple[int, int]) -> RegionMask:
    points, line_width = data
    _require_inside(points, image_hw, what="The scribble", strictly=True)
    height, width = image_hw
    canvas = Image.new("1", (width, height))
    draw = ImageDraw.Draw(canvas)
    draw.line([(x - 0.5, y - 0.5) for x, y in points], fill=1, width=max(1, round(line_width)))
    for x, y in points:
        _disk(draw, x, y, line_width / 2, image_hw)
    return RegionMask.from_dense(np.asarray(canvas))


def _disk(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, image_hw: tuple[int, int]) -> None:
    """Draw a disk and, however small it is, the pixel under its centre."""
    draw.ellipse((x - radius, y - radius, x + radius - 1, y + radius - 1), fill=1) if radius >= 1 else None
    draw.point((min(int(x), image_hw[1] - 1), min(int(y), image_hw[0] - 1)), fill=1)


def _rle_to_mask(data: tuple[np.ndarray, int, int], image_hw: tuple[int, int]) -> RegionMask:
    runs, height, width = data
    _require_size((height, width), image_hw, what="The RLE")
    values = np.arange(len(runs)) % 2 == 1
    columns_first = np.repeat(values, runs).reshape(width, height)
    return RegionMask.from_dense(columns_first.T)


_RASTERIZERS = {
    "mask": _mask_to_mask,
    "box": _box_to_mask,
    "polygon": _polygon_to_mask,
    "points": _points_to_mask,
    "rle": _rle_to_mask,
    "scribble": _scribble_to_mask,
}


def _require_size(got_hw: tuple[int, int], image_hw: tuple[int, int], *, what: str) -> None:
    if tuple(got_hw) != tuple(image_hw):
        raise RegionError(
            f"{what} is {got_hw[0]}x{got_hw[1]} (height x width) but its image is {image_hw[0]}x{image_hw[1]}. "
            "Regions are given in the pixels of the original image."
        )


def _require_inside(
    points_xy: Sequence[tuple[float, float]], image_hw: tuple[int, int], *, what: str, strictly: bool = False
) -> None:
    height, width = image_hw
    slack = 0.0 if strictly else OUTSIDE_TOLERANCE_PX
    for x, y in points_xy:
        if not (-slack <= x <= width + slack and -slack <= y <= height + slack):
            raise RegionError(
                f"{what} reaches ({x:g}, {y:g}), outside its image of width {width} and height {height}. "
                "Clip it, or check that it is in original pixels."
            )


def _finite(values: Any, *, what: str, shape: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise RegionError(f"{what} must be numbers {shape}, got {_short(values)}.") from error
    if not all(math.isfinite(number) for number in numbers):
        raise RegionError(f"{what} must be finite, got {_short(numbers)}.")
    return numbers


def _positive(value: float, name: str) -> float:
    (number,) = _finite([value], what=name, shape="in pixels")
    if number <= 0:
        raise RegionError(f"{name} must be positive, got {value}.")
    return number


def _pairs(points_xy: Any, *, what: str) -> tuple[tuple[float, float], ...]:
    try:
        pairs = [_finite(point, what=what, shape="(x, y)") for point in points_xy]
    except TypeError as error:
        raise RegionError(f"{what} must be a list of (x, y), got {_short(points_xy)}.") from error
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise RegionError(f"{what} must be one or more (x, y), got {_short(points_xy)}.")
    return tuple((x, y) for x, y in pairs)


def _parts(polygon: Any) -> list[Any]:
    """A list of polygons from any of the three accepted nestings."""
    try:
        depth_of_first = np.ndim(polygon[0])
        nested = depth_of_first == 2 or (depth_of_first == 1 and len(polygon[0]) != 2)
    except (TypeError, IndexError, KeyError, ValueError) as error:
        raise RegionError(f"A polygon must be a list of coordinates, got {_short(polygon)}.") from error
    return list(polygon) if nested else [polygon]


def _ring(part: Any) -> tuple[float, ...]:
    try:
        flat = np.asarray(part, dtype=np.float64).ravel()
    except (TypeError, ValueError) as error:
        raise RegionError(f"A polygon must be numbers, got {_short(part)}.") from error
    if len(flat) % 2 or len(flat) < 6:
        raise RegionError(f"A polygon needs at least three (x, y), so an even number >= 6 of coordinates, "
                          f"got {len(flat)}.")
    return _finite(flat, what="A polygon", shape="x0,y0,x1,y1,...")


def _rle_runs(counts: Any, *, total: int) -> np.ndarray:
    """Run lengths, starting with the background's, checked to add up to `total`."""
    if isinstance(counts, str | bytes):
        runs = _decompress(counts)
    else:
        numbers = _finite(counts, what="RLE counts", shape="[n0, n1, ...]")
        if any(number != int(number) for number in numbers):
            raise RegionError(f"RLE counts must be integers, got {_short(counts)}.")
        runs = [int(number) for number in numbers]
    if any(run < 0 for run in runs) or sum(runs) != total:
        raise RegionError(f"RLE counts must be >= 0 and add up to height x width = {total}, got a sum of {sum(runs)}.")
    array = np.array(runs, dtype=np.int64)
    if not array[1::2].any():
        raise RegionError("The region is empty: its RLE has no foreground run.")
    return array


def _decompress(counts: str | bytes) -> list[int]:
    """Undo COCO's compression: base-48 digits of 5 bits, each run from the third on a difference to the run
    two before (pycocotools `maskApi.c`, `rleFrString`). In Python, since the C code trusts its input."""
    codes = counts.encode("ascii", "replace") if isinstance(counts, str) else counts
    runs: list[int] = []
    value, shift = 0, 0
    for code in codes:
        digit = code - 48
        if not 0 <= digit < 64 or shift > 60:
            raise RegionError(f"RLE counts are not COCO's compressed form: {_short(counts)}.")
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            if digit & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value, shift = 0, 0
    if shift:
        raise RegionError(f"RLE counts end in the middle of a number: {_short(counts)}.")
    return runs


def _mask_values(picture: Image.Image, path: Any) -> np.ndarray:
    """One number per pixel, whichever of the single-channel forms the mask picture has."""
    if picture.mode in ("RGBA", "LA", "PA"):
        alpha = np.asarray(picture.getchannel("A"))
        if alpha.min() < 255:
            return alpha
        picture = picture.convert("RGB" if picture.mode == "RGBA" else "L")
    array = np.asarray(picture)
    if array.ndim == 3 and (array == array[..., :1]).all():
        return array[..., 0]
    if array.ndim != 2:
        raise RegionError(f"Mask '{os.fspath(path)}' is a colour picture (mode {picture.mode}); expected one channel.")
    return array


def _values(array: np.ndarray) -> str:
    distinct = np.unique(array)
    return f"only the value {distinct[0]}" if len(distinct) == 1 else f"values {distinct[0]} to {distinct[-1]}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
