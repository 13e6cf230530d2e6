"""Checks of what users give as coordinates, rings and run lengths."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
from PIL import Image

from ..errors import RegionError, shown
from ..media.formats import lossy_format, stored_white
from ..media.images import decoded, read_with

logger = logging.getLogger(__name__)


_GREATEST_INDEX = 2**31


def is_index(value: Any) -> bool:
    """Whether it is an integer that counts something from 0."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and 0 <= int(value) < _GREATEST_INDEX


_MOST_NUMBERS = 2**22  # of an outline
_MOST_RUNS = 2**24
_MOST_IN_A_POINT = 2**10
_MOST_PIXELS = 2**31


def _listed(values: Any, most: int = _MOST_NUMBERS) -> list[Any]:
    numbers = list(islice(values, most + 1))
    if len(numbers) > most:
        raise ValueError(f"more than {most:,} values")
    return numbers


def require_hw(image_hw: Any) -> tuple[int, int]:
    """The size of an image, checked. Raises `RegionError`."""
    hw = whole_numbers(image_hw, what="The size of an image", shape="(height, width)")
    if len(hw) != 2 or min(hw) < 1:
        raise RegionError(f"The size of an image must be two positive integers (height, width), got {shown(image_hw)}.")
    if hw[0] * hw[1] > _MOST_PIXELS:
        raise RegionError(f"An image may have {_MOST_PIXELS:,} pixels, got {shown(image_hw)}.")
    return hw[0], hw[1]


def finite_numbers(values: Any, *, what: str, shape: str) -> tuple[float, ...]:
    try:
        numbers = _listed(values, _MOST_IN_A_POINT)
        finite = [math.isfinite(number) for number in numbers]  # refuses the digits of a string, as `float` does not
    except Exception as error:  # of whatever was given
        raise RegionError(f"{what} must be numbers {shape}, got {shown(values)}.") from error
    if not all(finite):
        raise RegionError(f"{what} must be finite numbers {shape}, got {shown(values)}.")
    return tuple(float(number) for number in numbers)


def whole_numbers(values: Any, *, what: str, shape: str) -> tuple[int, ...]:
    try:
        numbers = _listed(values, _MOST_RUNS)
        integers = tuple(int(number) for number in numbers)
    except Exception as error:  # of whatever was given
        raise RegionError(f"{what} must be integers {shape}, got {shown(values)}.") from error
    if any(integer != number for integer, number in zip(integers, numbers, strict=True)):
        raise RegionError(f"{what} must be integers {shape}, got {shown(values)}.")
    return integers


def positive_number(value: float, name: str) -> float:
    (number,) = finite_numbers([value], what=name, shape="in pixels")
    if number <= 0:
        raise RegionError(f"{name} must be positive, got {shown(value)}.")
    return number


def number_pairs(points_xy: Any, *, what: str) -> tuple[tuple[float, float], ...]:
    try:
        pairs = [finite_numbers(point, what=what, shape="(x, y)") for point in _listed(points_xy)]
    except RegionError:
        raise
    except Exception as error:  # of whatever was given
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


def polygon_rings(polygon: Any) -> tuple[tuple[float, ...], ...]:
    """The rings of a polygon, each `x0, y0, x1, y1, ...`."""
    rings: list[tuple[float, ...]] = []
    total = 0
    for part in _polygon_parts(polygon):
        rings.append(_polygon_ring(part))
        total += len(rings[-1])
        if total > _MOST_NUMBERS:
            raise RegionError(f"A polygon may have {_MOST_NUMBERS:,} coordinates, got more: {shown(polygon)}.")
    return tuple(rings)


def _polygon_parts(polygon: Any) -> list[Any]:
    """A list of polygons from any of the three accepted nestings."""
    try:
        depth_of_first = np.ndim(polygon[0])
        nested = depth_of_first == 2 or (depth_of_first == 1 and len(polygon[0]) != 2)
        return _listed(polygon) if nested else [polygon]
    except Exception as error:  # of whatever was given
        raise RegionError(f"A polygon must be a list of coordinates, got {shown(polygon)}.") from error


def _polygon_ring(part: Any) -> tuple[float, ...]:
    try:
        given = np.asarray(part if hasattr(part, "__array__") else _listed(part))
        if given.dtype.kind not in "biufO":
            raise ValueError("the digits of a string are no numbers")
        flat = given.astype(np.float64).ravel()
    except Exception as error:  # of whatever was given
        raise RegionError(f"A polygon must be numbers x0,y0,x1,y1,..., got {shown(part)}.") from error
    if not np.isfinite(flat).all():
        raise RegionError(f"A polygon must be finite numbers x0,y0,x1,y1,..., got {shown(part)}.")
    if len(flat) % 2 or len(flat) < 6:
        raise RegionError(
            f"A polygon needs three or more (x, y), so an even number >= 6 of coordinates, got {len(flat)}."
        )
    return tuple(flat.tolist())


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


def compress_rle(runs: Sequence[int]) -> str:
    """COCO's compressed form of runs of any length, which pycocotools keeps in 32 bits."""
    characters = []
    for index, run in enumerate(runs):
        rest, is_last = run - (runs[index - 2] if index > 2 else 0), False
        while not is_last:
            digit, rest = rest & 31, rest >> 5
            is_last = rest == (-1 if digit & 16 else 0)
            characters.append(chr(48 + digit + (0 if is_last else 32)))
    return "".join(characters)


def read_mask(path: str | os.PathLike[str], *, name: str) -> Image.Image:
    """A mask's picture in the mode it was stored in.

    Raises:
        RegionError: its format changes values, so that a mask's edges are not what they were.
        ImageError: it is missing, damaged or no picture.
    """

    def exact(picture: Image.Image, name: str) -> Image.Image:
        require_lossless(picture, name)
        white = stored_white(picture)
        values = decoded(picture, name)
        if white is None:
            return values
        full = 65535 if values.mode.startswith("I") else 255
        return Image.fromarray(np.rint(np.asarray(values) * (white / full)).astype(np.int32))

    return read_with(exact, path, name=name)


def require_lossless(picture: Image.Image, name: str) -> None:
    kind = lossy_format(picture)
    if kind:
        article = "an" if kind[0] in "A" else "a"
        raise RegionError(f"{name} is {article} {kind}, which blurs a mask's values. Save masks as PNG.")


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


@lru_cache(maxsize=1024)  # once for each file, not in each epoch
def tell_of_many_values(name: str, count: int, least: int, greatest: int) -> None:
    logger.warning(
        "%s has %d values, from %d to %d, and all but 0 count as inside. Of a label map, say which value is meant; "
        "a mask that was resized or saved as a JPEG once should be made anew, with two values.",
        name,
        count,
        least,
        greatest,
    )
