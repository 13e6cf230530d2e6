"""What SAM 2 is asked: a region as clicks, a box or a mask. Knows geometry only; neither engine."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pixelrefer_plugin.authoring import Region, RegionMask, SourceError

# SAM 2 is trained with up to eight clicks on a frame (SAM 2 paper, §5, "Training").
_CLICKS_ON_SCRIBBLE = 8

_MOST_CLICKS = 1000  # each is a token to which all others attend


@dataclass(frozen=True, eq=False)
class Prompt:
    """One of three, in pixels of the original picture.

    Attributes:
        points_xy: `(P, 2)` float32, clicks on the object.
        box_xyxy: `(4,)` float32, the box around it.
        mask: its mask, kept compact: taken over on its own frame, tracked to the others.
    """

    points_xy: np.ndarray | None = None
    box_xyxy: np.ndarray | None = None
    mask: RegionMask | None = None


def prompt_of(region: Region, image_hw: tuple[int, int]) -> Prompt:
    """A region as SAM 2 takes it: boxes and clicks as they are, a scribble as clicks along it, others as masks."""
    if region.kind == "box":
        return Prompt(box_xyxy=np.array(region.data, dtype=np.float32))
    if region.kind == "points":
        points = region.data[0]
        if len(points) > _MOST_CLICKS:
            most = f"{_MOST_CLICKS} clicks on an object at most"
            raise SourceError(f"SAM 2 takes {most}, got {len(points)}. Give fewer, or a mask.")
        return Prompt(points_xy=np.array(points, dtype=np.float32))
    if region.kind == "scribble":
        return Prompt(points_xy=_clicks_along(region.data[0]))
    return Prompt(mask=region.to_mask(image_hw))


def _clicks_along(points_xy: tuple[tuple[float, float], ...]) -> np.ndarray:
    """Clicks spread evenly over a line's length, none at its ends, which easily overshoot the object."""
    x, y = np.array(points_xy).T
    lengths = [np.hypot(x1 - x0, y1 - y0) for (x0, y0), (x1, y1) in pairwise(points_xy)]
    travelled = np.cumsum([0.0, *lengths])
    at = (np.arange(_CLICKS_ON_SCRIBBLE) + 0.5) / _CLICKS_ON_SCRIBBLE * travelled[-1]
    return np.stack([np.interp(at, travelled, x), np.interp(at, travelled, y)], axis=1).astype(np.float32)
