"""Polygons as pixels, exactly as COCO's own tools draw them, in memory of the part of the picture that they take.

The rule is that of pycocotools (`maskApi.c`, `rleFrPoly`): corners are rounded to a fifth of a pixel, an edge is a
line of such steps, and where it passes a column's middle, the pixels below change sides. Its C code keeps every step
of every edge and counts them in 32 bits, so a long outline ends the process; here only the passes are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np

from ..errors import RegionError
from .mask import Box, RegionMask, trimmed_mask

_STEPS = 5  # in a pixel
_MIDDLE = 2  # the passes that count lie between this step of a column and the next one
_PASSES_AT_A_TIME = 2**16
_FEWEST_PASSES = 2**22  # that every picture may have, however small


class Filling(NamedTuple):
    """Where the rings of a polygon begin and end, column by column.

    Attributes:
        box_xyxy: the part of the image in which they lie, end-exclusive.
        changes: places in that part, counted down each column, by which a ring is left at every second.
    """

    box_xyxy: Box
    changes: np.ndarray

    @property
    def is_empty(self) -> bool:
        """Whether no pixel's middle lies inside."""
        return not len(self.changes)

    def mask(self, image_hw: tuple[int, int]) -> RegionMask:
        """The pixels of an image of `image_hw` whose middle lies in any of the rings; there must be one."""
        x0, y0, x1, y1 = self.box_xyxy
        order = np.argsort(self.changes, kind="stable")
        depth = np.cumsum(1 - 2 * (order % 2))  # in how many rings the pixels are from each change on
        is_border = np.diff(depth > 0, prepend=False)
        borders = self.changes[order[is_border]]
        pixels = np.repeat(
            np.arange(len(borders) + 1) % 2 == 1, np.diff(borders, prepend=0, append=(x1 - x0) * (y1 - y0))
        )
        mask = trimmed_mask(pixels.reshape(x1 - x0, y1 - y0).T, (x0, y0), image_hw)
        assert mask is not None, "a change is followed by a pixel"
        return mask


def filling(rings: Sequence[tuple[float, ...]], image_hw: tuple[int, int]) -> Filling:
    """What of an image lies in any of the rings.

    Args:
        rings: each `x0, y0, x1, y1, ...`, a pixel or less outside of the image.
        image_hw: size of the image.

    Raises:
        RegionError: the outline is far longer than the picture has pixels.
    """
    height, width = image_hw
    ring, start, stop = _edges(rings)
    columns = np.sort(np.stack([start[:, 0], stop[:, 0]]), axis=0)
    first = np.maximum(-((_MIDDLE - columns[0]) // _STEPS), 0)
    end = np.minimum((columns[1] - _MIDDLE - 1) // _STEPS + 1, width)
    passes = np.maximum(end - first, 0)
    if passes.sum() > max(_FEWEST_PASSES, height * width):
        raise RegionError(
            f"The polygon's outline passes {passes.sum():,} columns of pixels, more than a picture of width {width} "
            f"and height {height} can show. Give its mask instead, or fewer points."
        )
    if not passes.any():
        return Filling((0, 0, 0, 0), np.empty(0, np.int64))
    x0, x1 = int(first[passes > 0].min()), int(end[passes > 0].max())
    y0, y1 = (np.clip([start[:, 1].min() // _STEPS, start[:, 1].max() // _STEPS + 1], 0, height)).tolist()
    size = (x1 - x0) * (y1 - y0) + 1
    keys = []
    for edge, column in _passes(first, passes):
        row = _rows_below(start[edge], stop[edge], column, height)
        keys.append(ring[edge] * size + (column - x0) * (y1 - y0) + row - y0)
    return Filling((x0, y0, x1, y1), _changes(np.concatenate(keys)) % size)


def _passes(first: np.ndarray, passes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Edge and column of every pass, some at a time.

    Args:
        first: `(n,)`, the first column that each edge passes.
        passes: `(n,)`, how many it passes.
    """
    before = np.cumsum(passes) - passes
    borders = np.flatnonzero(np.diff(before // _PASSES_AT_A_TIME, prepend=-1)).tolist()
    for begin, end in pairwise([*borders, len(passes)]):
        counts = passes[begin:end]
        edge = np.repeat(np.arange(begin, end), counts)
        yield edge, np.arange(len(edge)) - np.repeat(before[begin:end] - before[begin] - first[begin:end], counts)


def _edges(rings: Sequence[tuple[float, ...]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every edge the number of its ring, `(n,)`, and its two ends in steps, `(n, 2)` each."""
    lengths = np.array([len(ring) // 2 for ring in rings])
    numbers = np.fromiter(chain.from_iterable(rings), np.float64, 2 * int(lengths.sum())).reshape(-1, 2)
    start = np.trunc(_STEPS * numbers + 0.5).astype(np.int64)
    following = np.arange(1, len(start) + 1)
    following[np.cumsum(lengths) - 1] -= lengths
    return np.repeat(np.arange(len(rings)), lengths), start, start[following]


def _rows_below(start: np.ndarray, stop: np.ndarray, column: np.ndarray, height: int) -> np.ndarray:
    """The first row, `(n,)`, below the place where each edge passes its column's middle; `height` where there is none.

    Args:
        start: `(n, 2)`, in steps.
        stop: `(n, 2)`, in steps.
        column: `(n,)`, one that the edge passes.
        height: of the image.
    """
    across, down = np.abs(stop - start).T
    is_flat = across >= down
    turns = np.where(is_flat, start[:, 0] > stop[:, 0], start[:, 1] > stop[:, 1])[:, None]
    (x0, y0), (x1, y1) = np.where(turns, stop, start).T, np.where(turns, start, stop).T
    slope = np.where(is_flat, y1 - y0, x1 - x0) / np.where(is_flat, across, down)
    before = _STEPS * column + _MIDDLE
    flat = [np.trunc(y0 + slope * (before + side - x0) + 0.5) for side in (0, 1)]
    step = np.where(is_flat, np.minimum(*flat), y0 + _steps_before(x0, slope, before, is_flat))
    return np.ceil(np.clip((step + 0.5) / _STEPS - 0.5, 0, height)).astype(np.int64)


def _steps_before(x0: np.ndarray, slope: np.ndarray, before: np.ndarray, is_flat: np.ndarray) -> np.ndarray:
    """How many steps down a steep edge is still on its first side of a column's middle; anything for a flat one."""
    slope = np.where(is_flat, 1.0, slope)

    def has_passed(steps: np.ndarray) -> np.ndarray:
        x = np.trunc(x0 + slope * steps + 0.5)
        return np.where(slope > 0, x > before, x <= before)

    steps = np.floor((before + 0.5 - x0) / slope)
    steps -= has_passed(steps)  # rounding shifts it by one step at most
    return steps + ~has_passed(steps + 1)


def _changes(keys: np.ndarray) -> np.ndarray:
    """The places that are passed an odd number of times, ascending; passing twice changes nothing."""
    keys.sort()
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    return keys[starts[np.diff(starts, append=len(keys)) % 2 == 1]]
