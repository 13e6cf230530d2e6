"""Pointer of `crops`. Knows regions, pictures and words; knows no backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from pixelrefer_plugin.authoring import (
    Box,
    Part,
    PlacedRegion,
    PointedMedium,
    PointedRegion,
    Pointer,
    Pointing,
    PromptError,
    Video,
)

from .config import CropsConfig
from .windows import window_on, windows_through

_DIMMED = 0.35  # of its brightness
_GREY = 127
_NO_OUTLINE = ("points", "scribble")
_PLACES = (
    ("at the upper left", "at the top", "at the upper right"),
    ("on the left", "in the middle", "on the right"),
    ("at the lower left", "at the bottom", "at the lower right"),
)


class CropsPointer(Pointer[CropsConfig]):
    """Shows each region enlarged behind its picture; on a video by a second video, whose crop follows the object."""

    def point(self, on: PointedMedium, regions: Sequence[PointedRegion]) -> Pointing:
        kind = "video" if on.is_video else "picture"
        if len(regions) > self.config.max_crops:
            raise PromptError(
                f"{len(regions)} regions on one {kind} need as many further {kind}s; adapter 'crops' shows at most "
                f"{self.config.max_crops}. Ask about fewer at a time, raise its option max_crops, or take adapter "
                "'marks', which draws all on one."
            )
        beside: list[Part] = []
        words = []
        for number, region in enumerate(regions, on.number + 1):
            beside += [self._crop(on, region), f"{kind.capitalize()} {number} shows region {region.number} enlarged.\n"]
            words.append(f"region {region.number} ({_whereabouts(on, region, kind)}shown enlarged in {kind} {number})")
        return Pointing(tuple(words), beside=tuple(beside))

    def _crop(self, on: PointedMedium, region: PointedRegion) -> Image.Image | Video:
        if not isinstance(on.media, Video):
            (placed,) = region.places
            window = window_on(placed, self.config.context)
            return self._enlarged(self._cut_out(np.asarray(on.media), window, placed))
        frames = on.media.frames_nhwc
        at = {place.position: place for place in region.places}
        windows = windows_through(region.places, len(frames), self.config.context)
        cut_out = [self._cut_out(frames[index], window, at.get(index)) for index, window in enumerate(windows)]
        return replace(on.media, frames_nhwc=np.stack([np.asarray(self._enlarged(each)) for each in cut_out]))

    def _cut_out(self, pixels: np.ndarray, window: Box, placed: PlacedRegion | None) -> np.ndarray:
        """A part of a picture, what is not the region as `background` says."""
        x0, y0, x1, y1 = window
        part = pixels[y0:y1, x0:x1]
        if placed is None or self.config.background == "keep" or placed.region.kind in _NO_OUTLINE:
            return part
        outside = ~placed.mask.dense()[y0:y1, x0:x1]
        shown = part.copy()
        shown[outside] = np.round(part[outside] * _DIMMED) if self.config.background == "dim" else _GREY
        return shown

    def _enlarged(self, pixels: np.ndarray) -> Image.Image:
        """A picture whose longer side is `min_px` at least."""
        picture = Image.fromarray(pixels)
        scale = self.config.min_px / max(picture.size)
        if scale <= 1:
            return picture
        wide, high = (max(1, round(side * scale)) for side in picture.size)
        return picture.resize((wide, high), Image.Resampling.BICUBIC)


def _whereabouts(on: PointedMedium, region: PointedRegion, kind: str) -> str:
    """In which ninth of its picture a region lies; of a video, nothing: it may move."""
    if on.is_video:
        return ""
    (x0, y0, x1, y1), (height, width) = region.places[0].mask.box_xyxy, on.image_hw
    if max((x1 - x0) / width, (y1 - y0) / height) > 2 / 3:
        return ""
    place = _PLACES[int(1.5 * (y0 + y1) / height)][int(1.5 * (x0 + x1) / width)]
    return f"{place} of {kind} {on.number}, "
