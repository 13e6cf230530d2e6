"""What of a region lies inside its picture, as a region of the same kind wherever that can say it.

Annotation tools and trackers give boxes and outlines that reach out of the picture; here is what to do about them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, pairwise
from typing import Any

import numpy as np

from ..errors import RegionError, shown
from .given import looks_normalised
from .mask import RegionMask
from .rasterize import CHECKS, NOISE_PX, RASTERIZERS, Point

_FARTHEST_PX = 1e9  # arithmetic on pixels is exact to here, and no picture is as wide


def clipped(kind: str, data: Any, image_hw: tuple[int, int]) -> tuple[str, Any]:
    """Kind and data of the part of a region that lies inside its image.

    Raises:
        RegionError: nothing of it does, or it is refused for another reason than where it lies.
    """
    if kind not in _CLIPPERS:
        CHECKS[kind](data, image_hw)
        return kind, data
    coordinates = list(_coordinates(kind, data))
    if looks_normalised(coordinates):
        CHECKS[kind](data, image_hw)
        return kind, data
    if max(map(abs, coordinates)) > _FARTHEST_PX:
        raise RegionError(f"The {kind} {shown(data)} reaches far outside its image. Check that it is in pixels.")
    inside = _CLIPPERS[kind](data, image_hw)
    if inside is None or looks_normalised(_coordinates(*inside)):
        height, width = image_hw
        raise RegionError(
            f"The {kind} {shown(data)} lies outside its image of width {width} and height {height}; to clip it "
            "leaves nothing."
        )
    CHECKS[inside[0]](inside[1], image_hw)
    return inside


def _coordinates(kind: str, data: Any) -> Iterable[float]:
    """Every x and y of a region; none of a mask."""
    if kind == "box":
        return data
    return chain.from_iterable(data if kind == "polygon" else data[0] if kind in ("points", "scribble") else ())


def _clipped_box(box: tuple[float, ...], image_hw: tuple[int, int]) -> tuple[str, Any] | None:
    x1, y1, x2, y2 = box
    height, width = image_hw
    inside = x1, y1, x2, y2 = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
    is_there = inside == box or (x2 - x1 > NOISE_PX and y2 - y1 > NOISE_PX)
    return ("box", inside) if is_there else None


def _clipped_polygon(rings: Sequence[tuple[float, ...]], image_hw: tuple[int, int]) -> tuple[str, Any] | None:
    height, width = image_hw
    kept = []
    for ring in rings:
        points = np.array(ring).reshape(-1, 2)
        for axis, side in ((0, width), (1, height)):
            points = _kept_side(points, points[:, axis], axis, 0.0)
            points = _kept_side(points, side - points[:, axis], axis, float(side))
        if len(points) > 2:
            kept.append(tuple(points.ravel().tolist()))
    return ("polygon", tuple(kept)) if kept else None


def _kept_side(points: np.ndarray, inwards: np.ndarray, axis: int, border: float) -> np.ndarray:
    """A ring's part on one side of a line (Sutherland and Hodgman 1974).

    Args:
        points: `(n, 2)`.
        inwards: `(n,)`, how far each point lies inside of the line.
        axis: 0 where the line is upright, 1 where it is level.
        border: where on that axis the line lies.
    """
    is_inside = inwards >= 0
    if is_inside.all():
        return points
    following = np.roll(points, -1, axis=0)
    crosses = is_inside != np.roll(is_inside, -1)
    span = np.where(crosses, inwards - np.roll(inwards, -1), 1.0)
    crossings = points + (inwards / span)[:, None] * (following - points)
    crossings[:, axis] = border
    return np.stack([points, crossings], axis=1)[np.stack([is_inside, crosses], axis=1)]


def _clipped_points(data: tuple[Any, float], image_hw: tuple[int, int]) -> tuple[str, Any] | None:
    """The clicks inside; one whose disk reaches in is moved to the border."""
    points, radius = data
    height, width = image_hw
    moved = [(min(max(x, 0.0), float(width)), min(max(y, 0.0), float(height))) for x, y in points]
    kept = tuple(to for (x, y), to in zip(points, moved, strict=True) if math.hypot(x - to[0], y - to[1]) <= radius)
    return ("points", (kept, radius)) if kept else None


def _clipped_scribble(data: tuple[Any, float], image_hw: tuple[int, int]) -> tuple[str, Any] | None:
    """The line's part inside; a mask where it leaves the picture and comes back."""
    points, line_width = data
    pieces: list[list[Point]] = []
    for start, stop in pairwise(points):
        piece = _clipped_line(start, stop, image_hw)
        if piece is None:
            continue
        if pieces and pieces[-1][-1] == piece[0]:
            pieces[-1].append(piece[1])
        else:
            pieces.append(list(piece))
    lines = [("scribble", (tuple(piece), line_width)) for piece in pieces]
    if len(lines) < 2:
        return lines[0] if lines else None
    return "mask", RegionMask.union([RASTERIZERS[kind](line, image_hw) for kind, line in lines])


def _clipped_line(start: Point, stop: Point, image_hw: tuple[int, int]) -> tuple[Point, Point] | None:
    """The part of a straight line inside the image (Liang and Barsky 1984)."""
    height, width = image_hw
    first, last = 0.0, 1.0
    for begin, end, side in ((start[0], stop[0], width), (start[1], stop[1], height)):
        if begin == end:
            if not 0 <= begin <= side:
                return None
            continue
        shares = sorted((-begin / (end - begin), (side - begin) / (end - begin)))
        first, last = max(first, shares[0]), min(last, shares[1])
    if first > last:
        return None
    return _on_line(start, stop, first, image_hw), _on_line(start, stop, last, image_hw)


def _on_line(start: Point, stop: Point, share: float, image_hw: tuple[int, int]) -> Point:
    if share in (0, 1):
        return stop if share else start
    height, width = image_hw
    x, y = (begin + share * (end - begin) for begin, end in zip(start, stop, strict=True))
    return min(max(x, 0.0), float(width)), min(max(y, 0.0), float(height))


_CLIPPERS: dict[str, Callable[[Any, tuple[int, int]], tuple[str, Any] | None]] = {
    "box": _clipped_box,
    "polygon": _clipped_polygon,
    "points": _clipped_points,
    "scribble": _clipped_scribble,
}
"""What has a place in its image without being of its size, as masks and run lengths are."""
