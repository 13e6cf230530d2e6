"""`Region`: what the user points at, in original pixels, from the command line to the adapter.

A region remembers what was given (a box, a polygon, ...) and becomes a mask once its image's size is known.
It knows geometry only: no model, no patch size, no tokens.

Coordinates are continuous: pixel (row i, column j) covers `[j, j+1) x [i, i+1)`; x runs right, y runs down.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image

from ..errors import RegionError
from ..media.images import read_picture

Box = tuple[int, int, int, int]
FloatBox = tuple[float, float, float, float]

# How far a coordinate may lie outside its image before the region is refused: annotation tools round.
OUTSIDE_TOLERANCE_PX = 1.0


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

    @classmethod
    def from_dense(cls, mask: np.ndarray) -> RegionMask:
        """Compact a `(H, W)` bool mask. Raises `RegionError` when no pixel is set."""
        height, width = mask.shape
        compact = _trimmed(mask, (0, 0), (height, width))
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


def _trimmed(part: np.ndarray, origin_xy: tuple[int, int], image_hw: tuple[int, int]) -> RegionMask | None:
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
        if not isinstance(self.image_index, int | np.integer) or self.image_index < 0:
            raise RegionError(f"Region.image_index must be an integer >= 0, got {self.image_index!r}.")

    @classmethod
    def from_mask(cls, mask: np.ndarray, *, image_index: int = 0) -> Region:
        """A region from a mask of its image's size.

        Args:
            mask: `(H, W)`, booleans, integers of which all but 0 mean inside, or floats that are 0 or 1.
            image_index: which image of the sample it lies on.

        Raises:
            RegionError: not two-dimensional, empty, or probabilities or logits that need a threshold.
        """
        try:
            array = np.asarray(mask)
        except (TypeError, ValueError) as error:
            raise RegionError(f"A mask must be a (H, W) array of booleans or numbers: {error}.") from error
        if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "biuf":
            raise RegionError(f"A mask must be a (H, W) array of booleans or numbers, got {array.dtype} {array.shape}.")
        if array.dtype.kind == "f" and not ((array == 0) | (array == 1)).all():
            raise RegionError(
                "A mask of floats must hold 0 and 1 only. Pass booleans: threshold probabilities "
                "(mask > 0.5) or logits (mask > 0)."
            )
        return cls("mask", RegionMask.from_dense(array.astype(bool, copy=False)), image_index)

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
        size_hw = _integers(rle["size"], what="RLE size", shape="[height, width]")
        if len(size_hw) != 2 or min(size_hw) < 1:
            raise RegionError(f"RLE size must be two positive integers [height, width], got {_short(rle['size'])}.")
        runs = _rle_runs(rle["counts"], total=math.prod(size_hw))
        return cls("rle", (runs, size_hw), image_index)

    @classmethod
    def from_png(cls, path: str | os.PathLike[str], *, value: int | None = None, image_index: int = 0) -> Region:
        """A region from a mask picture: non-zero pixels, or those equal to `value` in a label map.

        Grey, black-and-white, 16-bit and palette pictures are read by value (a palette's by index, as DAVIS
        has it), as are colour pictures whose channels are equal. Where a picture has an alpha channel and
        no `value` is asked for, the mask is where it is not transparent.

        Raises:
            RegionError: a colour picture, a JPEG, or an empty mask.
            ImageError: the file is missing or damaged.
        """
        name = f"Mask '{path}'"
        if str(path).lower().endswith((".jpg", ".jpeg")):
            raise RegionError(f"{name} is a JPEG, which blurs a mask's values. Save masks as PNG.")
        values = _mask_values(read_picture(path, name=name), name, use_alpha=value is None)
        mask = values != 0 if value is None else values == value
        if not mask.any():
            wanted = "non-zero" if value is None else f"equal to {value}"
            raise RegionError(
                f"{name} is empty: no pixel is {wanted}, its values are {int(values.min())} to {int(values.max())}."
            )
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

    def to_rle(self, image_hw: tuple[int, int]) -> dict[str, Any]:
        """Its pixels as COCO's compressed run-length encoding; raises as `to_mask`."""
        return self.to_mask(image_hw).to_rle()


@dataclass(frozen=True)
class VideoRegion:
    """One object of a video: what the user points at, on one frame, on some, or on all.

    Attributes:
        frames: frame index in the video -> the region there, ascending, read-only. Indices count all the
            frames of the source, from 0, not the sampled ones. The frames named are always sampled; for an `<seg>` of
            an answer, as many of them, spread evenly, as are sampled anyway.
        video_index: which video of the sample it lies on.
        absent: frames on which the object is known not to be seen, ascending, none of them in `frames`. They teach the
            masks of an answer's `<seg>`; of a region in a question they say nothing. About the frames that are
            in neither nothing is known.
    """

    frames: Mapping[int, Region]
    video_index: int = 0
    absent: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.frames, Mapping) or not self.frames:
            raise RegionError(f"A VideoRegion maps one frame or more to regions, got {_short(self.frames)}.")
        for frame, region in self.frames.items():
            if not _is_frame(frame):
                raise RegionError(f"A VideoRegion's frames must be integers >= 0, got {frame!r}.")
            if not isinstance(region, Region):
                raise RegionError(f"A VideoRegion has a Region on each frame, got {_short(region)} on frame {frame}.")
        if not isinstance(self.video_index, int | np.integer) or self.video_index < 0:
            raise RegionError(f"VideoRegion.video_index must be an integer >= 0, got {self.video_index!r}.")
        ordered = {int(frame): self.frames[frame] for frame in sorted(self.frames)}
        object.__setattr__(self, "frames", MappingProxyType(ordered))
        object.__setattr__(self, "absent", self._checked_absent())

    def _checked_absent(self) -> tuple[int, ...]:
        given = self.absent
        if isinstance(given, str | bytes) or not isinstance(given, Iterable):
            raise RegionError(f"VideoRegion.absent must be a list of frame indices, got {_short(given)}.")
        frames = list(given)
        for frame in frames:
            if not _is_frame(frame):
                raise RegionError(f"VideoRegion.absent must be frame indices, integers >= 0, got {frame!r}.")
            if frame in self.frames:
                raise RegionError(f"A VideoRegion has a region on frame {frame}, but says that it is absent there.")
        return tuple(sorted({int(frame) for frame in frames}))

    def thinned(self, num_frames: int) -> VideoRegion:
        """The same object on at most `num_frames` of the frames about which something is known, spread evenly.

        Frames with a region and absent ones are thinned together; one with a region is always kept.

        Raises:
            RegionError: `num_frames` is less than 1.
        """
        if num_frames < 1:
            raise RegionError(f"A VideoRegion keeps one frame or more, got num_frames={num_frames}.")
        known = sorted({*self.frames, *self.absent})
        kept = [
            known[index] for index in np.linspace(0, len(known) - 1, min(num_frames, len(known))).round().astype(int)
        ]
        if not any(frame in self.frames for frame in kept):
            kept[0] = min(self.frames, key=lambda frame: abs(frame - kept[0]))
        frames = {frame: self.frames[frame] for frame in kept if frame in self.frames}
        return replace(self, frames=frames, absent=tuple(frame for frame in kept if frame not in frames))

    def on_video(self, video_index: int) -> VideoRegion:
        """The same object on another video of the sample."""
        return replace(self, video_index=video_index)

    def __hash__(self) -> int:
        return hash((tuple(self.frames.items()), self.video_index, self.absent))

    def __reduce__(self) -> tuple[Any, ...]:  # a read-only mapping cannot be pickled
        return VideoRegion, (dict(self.frames), self.video_index, self.absent)


def _is_frame(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) >= 0


def _mask_to_mask(mask: RegionMask, image_hw: tuple[int, int]) -> RegionMask:
    _require_size(mask.image_hw, image_hw, what="The mask")
    return mask


def _box_to_mask(box: tuple[float, ...], image_hw: tuple[int, int]) -> RegionMask:
    x1, y1, x2, y2 = box
    _require_inside([(x1, y1), (x2, y2)], image_hw, what=f"The box {box}")
    left, right = _pixels_touched(x1, x2, image_hw[1])
    top, bottom = _pixels_touched(y1, y2, image_hw[0])
    if left >= right or top >= bottom:
        raise RegionError(f"The box {box} lies outside its image of {_size(image_hw)}.")
    return RegionMask(None, (left, top, right, bottom), image_hw)


def _pixels_touched(start: float, stop: float, side: int) -> tuple[int, int]:
    """First and end pixel of a row of `side` that [start, stop] touches; equal where it touches none."""
    # Half a thousandth of a pixel is arithmetic noise of whoever scaled the box, not a pixel touched.
    first, end = math.floor(start + 5e-4), math.ceil(stop - 5e-4)
    if first >= end:
        first, end = math.floor(start), math.floor(start) + 1
    return max(first, 0), min(end, side)


def _polygon_to_mask(rings: tuple[tuple[float, ...], ...], image_hw: tuple[int, int]) -> RegionMask:
    from pycocotools import mask as coco

    for ring in rings:
        _require_inside(list(zip(ring[::2], ring[1::2], strict=True)), image_hw, what="The polygon")
    encoded = coco.merge(coco.frPyObjects([list(ring) for ring in rings], *image_hw))
    runs = _decompress(encoded["counts"])
    if not any(runs[1::2]):
        raise RegionError(f"The polygon {_short(rings)} covers no pixel's centre of the image: is it flat?")
    return _runs_to_mask(runs, image_hw)


def _points_to_mask(data: tuple[Any, float], image_hw: tuple[int, int]) -> RegionMask:
    points, radius = data
    _require_inside(points, image_hw, what="The point", slack=0.0)
    return _strokes([(point, point) for point in points], radius, image_hw)


def _scribble_to_mask(data: tuple[Any, float], image_hw: tuple[int, int]) -> RegionMask:
    points, line_width = data
    _require_inside(points, image_hw, what="The scribble", slack=0.0)
    return _strokes(list(pairwise(points)), line_width / 2, image_hw)


def _strokes(lines: Sequence[tuple[Any, Any]], radius: float, image_hw: tuple[int, int]) -> RegionMask:
    """The pixels whose centre lies within `radius` of a line, and the pixels under the lines' ends."""
    height, width = image_hw
    radius = max(radius, 0.5)  # less would leave gaps in a line
    ends = np.array(lines).reshape(-1, 2)
    left, top = np.maximum(np.floor(ends.min(axis=0) - radius), 0).astype(int).tolist()
    right, bottom = np.minimum(np.ceil(ends.max(axis=0) + radius), [width, height]).astype(int).tolist()
    part = np.zeros((bottom - top, right - left), dtype=bool)
    for line in lines:
        _draw_line(part, (left, top), line, radius)
    columns, rows = np.minimum(ends.astype(int), [width - 1, height - 1]).T
    part[rows - top, columns - left] = True
    mask = _trimmed(part, (left, top), image_hw)
    assert mask is not None, "the pixels under the lines' ends are set"
    return mask


_BAND_PX = 64  # rows drawn at a time: a long line is far from most pixels of its box


def _draw_line(part: np.ndarray, origin_xy: tuple[int, int], line: tuple[Any, Any], radius: float) -> None:
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


def _rle_to_mask(data: tuple[Any, tuple[int, int]], image_hw: tuple[int, int]) -> RegionMask:
    runs, size_hw = data
    _require_size(size_hw, image_hw, what="The RLE")
    return _runs_to_mask(runs, image_hw)


def _runs_to_mask(runs: Sequence[int], image_hw: tuple[int, int]) -> RegionMask:
    """The mask of run lengths, not all of them the background's, which COCO counts column by column."""
    height, _ = image_hw
    ends = np.cumsum(runs)
    is_inside = np.arange(len(runs)) % 2 == 1
    drawn = np.flatnonzero(is_inside & (np.diff(ends, prepend=0) > 0))
    first_column, end_column = ends[drawn[0] - 1] // height, -(-ends[drawn[-1]] // height)
    ends = np.clip(ends, first_column * height, end_column * height)
    pixels = np.repeat(is_inside, np.diff(ends, prepend=first_column * height))
    mask = _trimmed(pixels.reshape(-1, height).T, (int(first_column), 0), image_hw)
    assert mask is not None, "a run of the foreground is not empty"
    return mask


_RASTERIZERS: dict[str, Callable[[Any, tuple[int, int]], RegionMask]] = {
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


def _require_inside(
    points_xy: Iterable[tuple[float, float]],
    image_hw: tuple[int, int],
    *,
    what: str,
    slack: float = OUTSIDE_TOLERANCE_PX,
) -> None:
    height, width = image_hw
    for x, y in points_xy:
        if not (-slack <= x <= width + slack and -slack <= y <= height + slack):
            raise RegionError(
                f"{what} reaches ({x:g}, {y:g}), outside its image of {_size(image_hw)}. "
                "Clip it, or check that it is in original pixels."
            )


def _size(hw: tuple[int, int]) -> str:
    return f"width {hw[1]} and height {hw[0]}"


def _finite(values: Any, *, what: str, shape: str) -> tuple[float, ...]:
    try:
        numbers = list(values)
        finite = [math.isfinite(number) for number in numbers]  # refuses the digits of a string, as `float` does not
    except (TypeError, ValueError, OverflowError) as error:
        raise RegionError(f"{what} must be numbers {shape}, got {_short(values)}.") from error
    if not all(finite):
        raise RegionError(f"{what} must be finite numbers {shape}, got {_short(values)}.")
    return tuple(float(number) for number in numbers)


def _integers(values: Any, *, what: str, shape: str) -> tuple[int, ...]:
    try:
        numbers = list(values)
        integers = tuple(int(number) for number in numbers)
    except (TypeError, ValueError, OverflowError) as error:
        raise RegionError(f"{what} must be integers {shape}, got {_short(values)}.") from error
    if any(integer != number for integer, number in zip(integers, numbers, strict=True)):
        raise RegionError(f"{what} must be integers {shape}, got {_short(values)}.")
    return integers


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
    except (TypeError, ValueError, OverflowError) as error:
        raise RegionError(f"A polygon must be numbers x0,y0,x1,y1,..., got {_short(part)}.") from error
    if len(flat) % 2 or len(flat) < 6:
        raise RegionError(
            f"A polygon needs three or more (x, y), so an even number >= 6 of coordinates, got {len(flat)}."
        )
    return _finite(flat, what="A polygon", shape="x0,y0,x1,y1,...")


_MOST_RLE_DIGITS = 11  # of 5 bits: no run of a picture needs as many, and 64 bits hold them


def _rle_runs(counts: Any, *, total: int) -> tuple[int, ...]:
    """Run lengths, starting with the background's, checked to add up to `total`."""
    if isinstance(counts, str | bytes):
        runs = _decompress(counts)
    else:
        runs = _integers(counts, what="RLE counts", shape="[n0, n1, ...]")
    if any(run < 0 for run in runs):
        raise RegionError(f"RLE counts must be >= 0, got {min(runs)}.")
    if sum(runs) != total:
        raise RegionError(f"RLE counts must add up to height x width = {total}, got a sum of {sum(runs)}.")
    if not any(runs[1::2]):
        raise RegionError("The region is empty: its RLE has no foreground run.")
    return runs


def _decompress(counts: str | bytes) -> tuple[int, ...]:
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
        raise RegionError(f"RLE counts are not COCO's compressed form: {_short(counts)}.")
    if not is_last[-1]:
        raise RegionError(f"RLE counts end in the middle of a number: {_short(counts)}.")
    runs = np.add.reduceat((digits & 31) << (5 * place), starts[:-1])
    runs -= np.where(digits[is_last] & 16, 1 << (5 * (place[is_last] + 1)), 0)
    runs[1::2], runs[2::2] = runs[1::2].cumsum(), runs[2::2].cumsum()
    return tuple(runs.tolist())


def _mask_values(picture: Image.Image, name: str, *, use_alpha: bool) -> np.ndarray:
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


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
