"""Checks of what users give as coordinates, rings and run lengths."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from PIL import Image

from ..errors import RegionError, shown


def finite_numbers(values: Any, *, what: str, shape: str) -> tuple[float, ...]:
    try:
        numbers = list(values)
        finite = [math.isfinite(number) for number in numbers]  # refuses the digits of a string, as `float` does not
    except (TypeError, ValueError, OverflowError) as error:
        raise RegionError(f"{what} must be numbers {shape}, got {shown(values)}.") from error
    if not all(finite):
        raise RegionError(f"{what} must be finite numbers {shape}, got {shown(values)}.")
    return tuple(float(number) for number in numbers)


def whole_numbers(values: Any, *, what: str, shape: str) -> tuple[int, ...]:
    try:
        numbers = list(values)
        integers = tuple(int(number) for number in numbers)
    except (TypeError, ValueError, OverflowError) as error:
        raise RegionError(f"{what} must be integers {shape}, got {shown(values)}.") from error
    if any(integer != number for integer, number in zip(integers, numbers, strict=True)):
        raise RegionError(f"{what} must be integers {shape}, got {shown(values)}.")
    return integers


def positive_number(value: float, name: str) -> float:
    (number,) = finite_numbers([value], what=name, shape="in pixels")
    if number <= 0:
        raise RegionError(f"{name} must be positive, got {value}.")
    return number


def number_pairs(points_xy: Any, *, what: str) -> tuple[tuple[float, float], ...]:
    try:
        pairs = [finite_numbers(point, what=what, shape="(x, y)") for point in points_xy]
    except TypeError as error:
        raise RegionError(f"{what} must be a list of (x, y), got {shown(points_xy)}.") from error
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise RegionError(f"{what} must be one or more (x, y), got {shown(points_xy)}.")
    return tuple((x, y) for x, y in pairs)


_NORMALISED_SLACK = 0.01  # detectors give boxes that reach a little outside
_NOISE = 1e-6  # coordinates that were scaled differ from whole numbers in their last digits


def looks_normalised(coordinates: Iterable[float]) -> bool:
    """Whether they are shares of a picture's sides: all within 0 and 1, and not all of them 0 or 1."""
    are_whole = True
    for coordinate in coordinates:
        if not -_NORMALISED_SLACK <= coordinate <= 1 + _NORMALISED_SLACK:
            return False
        are_whole = are_whole and abs(coordinate - round(coordinate)) <= _NOISE
    return not are_whole


def polygon_parts(polygon: Any) -> list[Any]:
    """A list of polygons from any of the three accepted nestings."""
    try:
        depth_of_first = np.ndim(polygon[0])
        nested = depth_of_first == 2 or (depth_of_first == 1 and len(polygon[0]) != 2)
    except (TypeError, IndexError, KeyError, ValueError) as error:
        raise RegionError(f"A polygon must be a list of coordinates, got {shown(polygon)}.") from error
    return list(polygon) if nested else [polygon]


def polygon_ring(part: Any) -> tuple[float, ...]:
    try:
        flat = np.asarray(part, dtype=np.float64).ravel()
    except (TypeError, ValueError, OverflowError) as error:
        raise RegionError(f"A polygon must be numbers x0,y0,x1,y1,..., got {shown(part)}.") from error
    if len(flat) % 2 or len(flat) < 6:
        raise RegionError(
            f"A polygon needs three or more (x, y), so an even number >= 6 of coordinates, got {len(flat)}."
        )
    return finite_numbers(flat, what="A polygon", shape="x0,y0,x1,y1,...")


_MOST_RLE_DIGITS = 11  # of 5 bits: no run of a picture needs as many, and 64 bits hold them


def rle_runs(counts: Any, *, total: int) -> tuple[int, ...]:
    """Run lengths, starting with the background's, checked to add up to `total`."""
    if isinstance(counts, str | bytes):
        runs = decompress_rle(counts)
    else:
        runs = whole_numbers(counts, what="RLE counts", shape="[n0, n1, ...]")
    if any(run < 0 for run in runs):
        raise RegionError(f"RLE counts must be >= 0, got {min(runs)}.")
    if sum(runs) != total:
        raise RegionError(f"RLE counts must add up to height x width = {total}, got a sum of {sum(runs)}.")
    if not any(runs[1::2]):
        raise RegionError("The region is empty: its RLE has no foreground run.")
    return runs


def decompress_rle(counts: str | bytes) -> tuple[int, ...]:
    """Undo COCO's compression: base-48 digits of 5 bits, each run from the third on a difference to the run
    two before (pycocotools `maskApi.c`, `rleFrString`). Not by its C code, which trusts its input."""
    text = counts.encode(errors="surrogatepass") if isinstance(counts, str) else counts
    digits = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    if not len(digits):
        return ()
    is_last = (digits & 32) == 0
    starts = np.concatenate([[0], np.flatnonzero(is_last) + 1])  # of each number; the end, if the last one is whole
    place = np.arange(len(digits)) - starts[np.cumsum(is_last) - is_last]
    if ((digits < 0) | (digits >= 64) | (place > _MOST_RLE_DIGITS)).any():
        raise RegionError(f"RLE counts are not COCO's compressed form: {shown(counts)}.")
    if not is_last[-1]:
        raise RegionError(f"RLE counts end in the middle of a number: {shown(counts)}.")
    runs = np.add.reduceat((digits & 31) << (5 * place), starts[:-1])
    runs -= np.where(digits[is_last] & 16, 1 << (5 * (place[is_last] + 1)), 0)
    runs[1::2], runs[2::2] = runs[1::2].cumsum(), runs[2::2].cumsum()
    return tuple(runs.tolist())


def mask_values(picture: Image.Image, name: str, *, use_alpha: bool) -> np.ndarray:
    """One number per pixel, `(H, W)`, whichever of the usual forms the mask picture has."""
    values = np.asarray(picture)
    if picture.mode in ("RGBA", "LA"):
        values, alpha = values[..., :-1], values[..., -1]
        if use_alpha and alpha.min() < 255:
            return alpha
    if values.ndim == 3 and (values == values[..., :1]).all():
        values = values[..., 0]
    if values.ndim != 2 or picture.mode == "F":
        raise RegionError(f"{name} is a colour picture (mode {picture.mode}); expected one channel.")
    return values
