"""Pointer of `coordinates`. Knows regions and conventions; knows no backbone."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from pixelrefer_plugin.authoring import (
    Coordinates,
    PlacedRegion,
    PointedMedium,
    PointedRegion,
    Pointer,
    Pointing,
    PromptError,
    SaidCoordinates,
)

from .config import UNITS, CoordinatesConfig

UNDOCUMENTED = (
    "It is not documented how this backbone reads coordinates. Adapter 'coordinates' writes thousandths of the "
    "picture's width and height, and tells the model so. Adapter 'marks', which draws regions on the picture, needs no "
    "convention."
)


class CoordinatesPointer(Pointer[CoordinatesConfig]):
    """Writes each region as its backbone was trained to read it: boxes, and clicks as points where it knows points.

    Where the backbone has no convention, or another is asked for, the conversation says once how coordinates count.
    """

    def point(self, on: PointedMedium, regions: Sequence[PointedRegion]) -> Pointing:
        unit = self.config.convention
        if unit == "backbone" and on.coordinates is not None:
            return Pointing(self._words(on, regions, on.coordinates))
        notes = (UNDOCUMENTED,) if unit == "backbone" else ()
        said = _plain(on, "thousandths" if unit == "backbone" else unit)
        return Pointing(self._words(on, regions, said), beside=(_explained(on, said),), notes=notes)

    def _words(self, on: PointedMedium, regions: Sequence[PointedRegion], said: SaidCoordinates) -> tuple[str, ...]:
        if on.is_video:
            number = f" in video {on.number}" if on.has_others else ""
            most = self.config.max_frames
            return tuple(f"the object{number} ({_over_time(each.places, said, most)})" for each in regions)
        number = f" in picture {on.number}" if on.has_others else ""
        return tuple(f"{_shape(each.places[0], said)}{number}" for each in regions)


def _shape(placed: PlacedRegion, said: SaidCoordinates) -> str:
    """A region on one picture: its clicks, the box that was drawn, or the tight box of its pixels."""
    region = placed.region
    if region.kind == "points":
        points, _ = region.data
        clicks = [said.point(x, y) for x, y in points]
        if None not in clicks:
            return " and ".join(map(str, clicks))
    return said.box(region.data if region.kind == "box" else placed.mask.box_xyxy)


def _over_time(places: Sequence[PlacedRegion], said: SaidCoordinates, most: int) -> str:
    """A region's coordinates on frames of its video; of frames that have one time in words, on the first."""
    timed = [(_frame(each, said), each) for each in places]
    told = [next(same) for _, same in groupby(timed, key=lambda each: each[0])]
    return "; ".join(f"{frame}{_shape(placed, said)}" for frame, placed in _spread(told, most))


def _frame(placed: PlacedRegion, said: SaidCoordinates) -> str:
    assert placed.time_s is not None, "of a video"
    frame = said.frame(number=placed.position + 1, time_s=placed.time_s)
    if frame is None:
        raise PromptError(
            "It is documented how this backbone reads coordinates on images, but not how on videos. Take adapter "
            "'marks', or give 'coordinates' the option convention='thousandths', which tells the model how they count."
        )
    return frame


def _spread(told: Sequence[tuple[str, PlacedRegion]], most: int) -> Sequence[tuple[str, PlacedRegion]]:
    """At most so many of them, evenly from the first to the last; the middle one where it is one."""
    if len(told) <= most:
        return told
    if most == 1:
        return told[len(told) // 2 :][:1]
    return [told[round(index * (len(told) - 1) / (most - 1))] for index in range(most)]


# -- a convention that the conversation itself explains --------------------------------------------------------


def _plain(on: PointedMedium, unit: str) -> SaidCoordinates:
    """Coordinates in a unit of ours; pixels are those that the backbone sees, where its plugin knows how many."""
    documented = on.coordinates
    in_pixels = documented is not None and documented.convention.unit == "pixels"
    return SaidCoordinates(_PLAIN[unit], on.image_hw, documented.seen_hw if documented and in_pixels else on.image_hw)


def _explained(on: PointedMedium, said: SaidCoordinates) -> str:
    """How coordinates count, for the model."""
    kind = "video" if on.is_video else "picture"
    unit = f"{said.convention.unit} of the width and height of the {kind}"
    if said.convention.unit == "pixels":
        height, width = said.seen_hw
        unit = f"pixels of {f'{kind} {on.number}' if on.has_others else f'the {kind}'}, {width} wide and {height} high"
    return (
        f"An object is named by its box, [left, top, right, bottom], or by points on it, (x, y). They count {unit}, "
        "from its upper left corner.\n"
    )


def _as_given(processor: Any, image_hw: tuple[int, int], num_frames: int | None, options: Any) -> tuple[int, int]:
    return image_hw


_PLAIN: dict[str, Coordinates] = {
    unit: Coordinates(
        unit=unit,
        box="[{x0}, {y0}, {x1}, {y1}]",
        point="({x}, {y})",
        frame="at {time_s:.1f} seconds ",
        seen_hw=_as_given,
        source="the conversation itself",
    )
    for unit in UNITS
}
