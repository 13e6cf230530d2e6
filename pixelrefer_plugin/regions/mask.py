"""A region as pixels: the part of a mask inside its box, and the share of grid cells that it covers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from ..errors import RegionError

Box = tuple[int, int, int, int]


FloatBox = tuple[float, float, float, float]


@dataclass(frozen=True, init=False)
class RegionMask:
    """A binary mask kept compactly: the tight box around it and one bit for each pixel inside. Immutable.

    Attributes:
        box_xyxy: tight box in original pixels, end-exclusive.
        image_hw: size of the image the mask lies on.
        area: number of pixels set, the paper's `|M|`.
    """

    box_xyxy: Box
    image_hw: tuple[int, int]
    area: int
    _bits: bytes = field(repr=False)  # the rows inside the box, each of whole bytes; none where every pixel is set

    def __init__(self, window: np.ndarray | None, box_xyxy: Box, image_hw: tuple[int, int]) -> None:
        """Pack the pixels inside the mask's box.

        Args:
            window: `(h, w)` bool, the mask inside `box_xyxy`; its first and last row and column are not empty.
                None for a mask that fills its box.
            box_xyxy: tight box in original pixels, end-exclusive.
            image_hw: size of the image the mask lies on.

        Raises:
            RegionError: the window is not of its box's size.
        """
        x0, y0, x1, y1 = box_xyxy
        if window is not None and window.shape != (y1 - y0, x1 - x0):
            raise RegionError(f"A mask's window must be of its box {box_xyxy}, (h, w), got shape {window.shape}.")
        box_area = (y1 - y0) * (x1 - x0)
        area = box_area if window is None else int(np.count_nonzero(window))
        bits = b"" if area == box_area else np.packbits(np.ascontiguousarray(window), axis=1).tobytes()
        for name, value in (("box_xyxy", box_xyxy), ("image_hw", image_hw), ("area", area), ("_bits", bits)):
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        height, width = self.image_hw
        return f"RegionMask({self.area:,} px in {self.box_xyxy} on {width}x{height})"

    @classmethod
    def from_dense(cls, mask: np.ndarray) -> RegionMask:
        """Compact a `(H, W)` bool mask. Raises `RegionError` when no pixel is set."""
        height, width = mask.shape
        compact = trimmed_mask(mask, (0, 0), (height, width))
        if compact is None:
            raise RegionError(f"The region is empty: no pixel of its {height}x{width} mask is set.")
        return compact

    @classmethod
    def union(cls, masks: Sequence[RegionMask]) -> RegionMask:
        """What any of several masks of one image covers; one or more of them."""
        if len(masks) == 1:
            return masks[0]
        assert len({mask.image_hw for mask in masks}) == 1, "the masks must lie on images of one size"
        left, top = (min(mask.box_xyxy[side] for mask in masks) for side in (0, 1))
        right, bottom = (max(mask.box_xyxy[side] for mask in masks) for side in (2, 3))
        window = np.zeros((bottom - top, right - left), dtype=bool)
        for mask in masks:
            x0, y0, x1, y1 = mask.box_xyxy
            window[y0 - top : y1 - top, x0 - left : x1 - left] |= mask.window
        return cls(window, (left, top, right, bottom), masks[0].image_hw)

    @property
    def window(self) -> np.ndarray:
        """The mask inside `box_xyxy`, `(h, w)` bool, read-only; unpacked anew each time."""
        x0, y0, x1, y1 = self.box_xyxy
        if not self._bits:
            return np.broadcast_to(np.True_, (y1 - y0, x1 - x0))
        rows = np.frombuffer(self._bits, dtype=np.uint8).reshape(y1 - y0, -1)
        pixels = np.unpackbits(rows, axis=1, count=x1 - x0)
        pixels.setflags(write=False)
        return pixels.view(bool)

    def dense(self) -> np.ndarray:
        """The mask at full size, `(H, W)` bool."""
        mask = np.zeros(self.image_hw, dtype=bool)
        x0, y0, x1, y1 = self.box_xyxy
        mask[y0:y1, x0:x1] = self.window
        return mask

    def to_rle(self) -> dict[str, Any]:
        """As COCO's compressed run-length encoding, `{"size": [height, width], "counts": text}`."""
        from pycocotools import mask as coco

        encoded = coco.encode(np.asfortranarray(self.dense(), dtype=np.uint8))
        return {"size": [int(side) for side in self.image_hw], "counts": encoded["counts"].decode("ascii")}

    def coverage(self, box_xyxy: FloatBox, grid_hw: tuple[int, int]) -> np.ndarray:
        """Share of each cell that the mask covers, when `box_xyxy` is cut into a grid of equal cells.

        Args:
            box_xyxy: the box that the grid spans, in original pixels; may reach beyond the image.
            grid_hw: rows and columns of the grid.

        Returns:
            `(h, w)` float32 in [0, 1], exact area ratios, in raster order.
        """
        x0, y0, x1, y1 = box_xyxy
        left, top, right, bottom = self.box_xyxy
        down = _cell_edges(y0, y1, grid_hw[0], top, bottom)
        across = _cell_edges(x0, x1, grid_hw[1], left, right)
        if self._bits:
            pixels = _summed_by_cell(_summed_by_cell(self.window.view(np.uint8), down).T, across).T
        else:
            pixels = np.diff(down)[:, None] * np.diff(across)
        per_cell = math.prod(grid_hw) / ((y1 - y0) * (x1 - x0))
        return np.minimum(pixels * per_cell, 1).astype(np.float32, order="C")


def trimmed_mask(part: np.ndarray, origin_xy: tuple[int, int], image_hw: tuple[int, int]) -> RegionMask | None:
    """The mask whose pixels lie in `part`, a bool part of the image from `origin_xy` on; None where no pixel is set."""
    rows = np.flatnonzero(part.any(axis=1))
    if not len(rows):
        return None
    y0, y1 = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(part[y0:y1].any(axis=0))
    x0, x1 = int(columns[0]), int(columns[-1]) + 1
    x, y = origin_xy
    return RegionMask(part[y0:y1, x0:x1], (x + x0, y + y0, x + x1, y + y1), image_hw)


def _cell_edges(start: float, stop: float, cells: int, first_pixel: int, end_pixel: int) -> np.ndarray:
    """`(cells + 1,)`: the edges of the cells of [start, stop), counted from `first_pixel`, within the pixels."""
    # Divided last, so that an edge on a whole pixel is exact.
    edges = start - first_pixel + np.arange(cells + 1) * (stop - start) / cells
    return np.minimum(np.maximum(edges, 0), end_pixel - first_pixel)


_SMALL = 2**14  # numbers; up to here a matrix product takes less time than a call for each cell


def _summed_by_cell(rows: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """`(cells, m)`: what of the rows, `(n, m)`, lies between neighbouring `edges`, in rows and their parts."""
    if rows.size <= _SMALL:
        before_edge = edges[:, None] - np.arange(len(rows))
        np.minimum(np.maximum(before_edge, 0, out=before_edge), 1, out=before_edge)
        return (before_edge[1:] - before_edge[:-1]).astype(np.float32) @ rows.astype(np.float32)
    first = edges.astype(np.intp)
    # Pixels are counted in the smallest integers that hold a cell's rows: more of them are added at a time.
    dtype = np.min_scalar_type(np.diff(first).max()) if rows.dtype == np.uint8 else rows.dtype
    whole = np.empty((len(edges) - 1, rows.shape[1]), dtype)
    for cell, (start, stop) in enumerate(pairwise(first.tolist())):
        np.add.reduce(rows[start:stop], axis=0, out=whole[cell])
    cut_off = (edges - first)[:, None] * rows[np.minimum(first, len(rows) - 1)]
    return whole - cut_off[:-1] + cut_off[1:]
