"""Pointer of `marks`. Knows regions, pictures and words; knows no backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from pixelrefer_plugin.authoring import (
    Box,
    PlacedRegion,
    PointedMedium,
    PointedRegion,
    Pointer,
    Pointing,
    PromptError,
    Video,
)

from .config import MarksConfig
from .drawing import Mark, draw_marks, pixels_under
from .palette import COLOURS, Colour, choose_colours
from .shapes import Shape, Sizes, shape_of

_GREW = "A region was too small for its mark to be seen: the mark was drawn larger than the region."
_LOOKS = {
    "outline": "outlined in {0}",
    "tint": "tinted {0}",
    "both": "outlined and tinted in {0}",
    "box": "in the {0} box",
}


class MarksPointer(Pointer[MarksConfig]):
    """Marks each region in a colour of its own, with its number, on a copy of the picture or of each frame it is on."""

    def point(self, on: PointedMedium, regions: Sequence[PointedRegion]) -> Pointing:
        if not self.config.numbers and len(regions) > len(COLOURS):
            raise PromptError(
                f"{len(regions)} regions on one picture cannot be told apart by {len(COLOURS)} colours. Set the option "
                "numbers=true of adapter 'marks', or ask about fewer at a time."
            )
        sizes = Sizes.on(on, len(regions), self.config)
        frames = on.media.frames_nhwc if isinstance(on.media, Video) else np.asarray(on.media)[None]
        shapes = [{each.position: shape_of(each, sizes, self.config) for each in region.places} for region in regions]
        under = [_under(frames, of_region, sizes) for of_region in shapes]
        colours = choose_colours(under, _near(shapes, 2 * sizes.font_px))
        marked = self._marked(frames, regions, shapes, colours, sizes)
        words = tuple(self._words(on, *each) for each in zip(regions, colours, strict=True))
        has_grown = any(shape.has_grown for of_region in shapes for shape in of_region.values())
        return self._shown(on, _like(on, marked), words, (_GREW,) if has_grown else ())

    def _marked(
        self,
        frames: np.ndarray,
        regions: Sequence[PointedRegion],
        shapes: Sequence[Mapping[int, Shape]],
        colours: Sequence[Colour],
        sizes: Sizes,
    ) -> np.ndarray:
        """A copy of the frames with marks on those that a region lies on."""
        marks: dict[int, list[Mark]] = {}
        for region, of_region, colour in zip(regions, shapes, colours, strict=True):
            for position, shape in of_region.items():
                marks.setdefault(position, []).append(Mark(region.number, shape, colour))
        drawn = frames.copy()
        for position, on_frame in marks.items():
            drawn[position] = draw_marks(frames[position], on_frame, sizes, self.config)
        return drawn

    def _shown(
        self, on: PointedMedium, marked: Image.Image | Video, words: tuple[str, ...], notes: tuple[str, ...]
    ) -> Pointing:
        kind, first, second = _kind(on), on.number, on.number + 1
        if self.config.unmarked == "no":
            return Pointing(words, marked, notes=notes)
        if self.config.unmarked == "after":
            told = f"{kind.capitalize()} {second} is {kind} {first} without the marks.\n"
            return Pointing(words, marked, (on.media, told), notes)
        told = f"{kind.capitalize()} {second} is {kind} {first} with marks on it.\n"
        return Pointing(words, None, (marked, told), notes)

    def _words(self, on: PointedMedium, region: PointedRegion, colour: Colour) -> str:
        looks = " or ".join(dict.fromkeys(self._look(place, colour) for place in region.places))
        mark = f"{looks}{self._where(on)}{_when(on, region)}"
        return f"region {region.number} ({mark})" if self.config.numbers else f"the region {mark}"

    def _look(self, place: PlacedRegion, colour: Colour) -> str:
        if place.region.kind != "points":
            return _LOOKS[self.config.style].format(colour.name)
        points, _ = place.region.data
        return f"marked by a {colour.name} dot" if len(points) == 1 else f"marked by {colour.name} dots"

    def _where(self, on: PointedMedium) -> str:
        """On which of several pictures, or videos, its mark is."""
        if not on.has_others and self.config.unmarked == "no":
            return ""
        return f" in {_kind(on)} {on.number + (self.config.unmarked == 'before')}"


def _under(frames: np.ndarray, shapes: Mapping[int, Shape], sizes: Sizes) -> np.ndarray:
    """What a region's marks are drawn over, on all its frames."""
    return np.concatenate([pixels_under(frames[position], shape, sizes) for position, shape in shapes.items()])


def _near(shapes: Sequence[Mapping[int, Shape]], reach_px: int) -> list[set[int]]:
    """For each region those whose boxes lie within a distance of its own, on a frame that has both."""
    pairs = [
        (one, other)
        for one, of_one in enumerate(shapes)
        for other, of_other in enumerate(shapes)
        if one != other
        for position in of_one.keys() & of_other.keys()
        if _gap_px(of_one[position].mask.box_xyxy, of_other[position].mask.box_xyxy) <= reach_px
    ]
    return [{other for one, other in pairs if one == index} for index in range(len(shapes))]


def _gap_px(one: Box, other: Box) -> int:
    """How far two boxes lie apart, across or down; at most 0 where they overlap."""
    across = max(one[0], other[0]) - min(one[2], other[2])
    down = max(one[1], other[1]) - min(one[3], other[3])
    return max(across, down)


def _when(on: PointedMedium, region: PointedRegion) -> str:
    """On which frames of a video it is marked, where that is not on all."""
    if not isinstance(on.media, Video) or len(region.places) == len(on.media):
        return ""
    first, last = region.places[0].time_s, region.places[-1].time_s
    if len(region.places) == 1:
        return f" on the frame at {first:.1f} seconds"
    return f" on {len(region.places)} frames from {first:.1f} to {last:.1f} seconds"


def _kind(on: PointedMedium) -> str:
    return "video" if on.is_video else "picture"


def _like(on: PointedMedium, frames_nhwc: np.ndarray) -> Image.Image | Video:
    """The drawn frames as what they were: a video, or a picture."""
    if isinstance(on.media, Video):
        return replace(on.media, frames_nhwc=frames_nhwc)
    return Image.fromarray(frames_nhwc[0])
