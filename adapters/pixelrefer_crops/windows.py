"""Where crops lie: around a region on a picture, and with an object through a video. It knows boxes; no pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pixelrefer_plugin.authoring import Box, PlacedRegion

_LEAST_PX = 32  # fewer pixels of the picture show nothing, however much they are enlarged
_SHARE_OF_CLICKS = 0.25  # of the picture's longer side: a click does not tell how large its object is
_MOST_SLENDER = 8  # longer side by shorter side; image processors refuse pictures that are far more so


def window_on(placed: PlacedRegion, context: float) -> Box:
    """The crop of a region on one picture, within the picture."""
    return _around(_middle(placed), _size_wh(placed, context), placed.mask.image_hw)


def windows_through(places: Sequence[PlacedRegion], num_frames: int, context: float) -> list[Box]:
    """A crop for each frame of a video, all of one size, that follows an object.

    It is as large as the object's largest crop. Between the frames on which the object is known it moves evenly; before
    the first and behind the last it stays.

    Args:
        places: the object on frames of the video, in the order of time.
        num_frames: how many frames there are.
        context: share of the box's longer side that is shown around it.
    """
    sizes = [_size_wh(place, context) for place in places]
    size_wh = max(wide for wide, _ in sizes), max(high for _, high in sizes)
    known = [place.position for place in places]
    xs, ys = zip(*map(_middle, places), strict=True)
    every = np.arange(num_frames)
    middles = zip(np.interp(every, known, xs), np.interp(every, known, ys), strict=True)
    return [_around((float(x), float(y)), size_wh, places[0].mask.image_hw) for x, y in middles]


def _middle(placed: PlacedRegion) -> tuple[float, float]:
    x0, y0, x1, y1 = placed.mask.box_xyxy
    return (x0 + x1) / 2, (y0 + y1) / 2


def _size_wh(placed: PlacedRegion, context: float) -> tuple[int, int]:
    """Width and height of a crop that shows a region with its context; no larger than the picture."""
    (x0, y0, x1, y1), (height, width) = placed.mask.box_xyxy, placed.mask.image_hw
    longer = max(x1 - x0, y1 - y0)
    wide, high = (side + 2 * math.ceil(context * longer) for side in (x1 - x0, y1 - y0))
    least = max(_LEAST_PX, math.ceil(max(wide, high) / _MOST_SLENDER))
    if placed.region.kind == "points":
        least = max(least, math.ceil(_SHARE_OF_CLICKS * max(height, width)))
    return min(max(wide, least), width), min(max(high, least), height)


def _around(middle_xy: tuple[float, float], size_wh: tuple[int, int], image_hw: tuple[int, int]) -> Box:
    """A window of a size around a point, moved into the picture."""
    x, y = (
        min(max(round(middle - side / 2), 0), most - side)
        for middle, side, most in zip(middle_xy, size_wh, image_hw[::-1], strict=True)
    )
    return x, y, x + size_wh[0], y + size_wh[1]
