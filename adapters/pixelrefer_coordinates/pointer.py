"""Pointer of `coordinates`. Knows regions and conventions; knows no backbone."""

from collections.abc import Sequence

from pixelrefer_plugin.authoring import (
    PlacedRegion,
    PointedMedium,
    PointedRegion,
    Pointer,
    Pointing,
    PromptError,
    SaidCoordinates,
)

from .config import CoordinatesConfig


class CoordinatesPointer(Pointer[CoordinatesConfig]):
    """Writes each region as its backbone was trained to read it: boxes, and clicks as points where it knows them."""

    def point(self, on: PointedMedium, regions: Sequence[PointedRegion]) -> Pointing:
        if on.coordinates is None:
            raise PromptError("no convention for coordinates is known of this backbone. Take adapter 'marks'.")
        return Pointing(tuple(self._words(each, on.coordinates, is_video=on.is_video) for each in regions))

    def _words(self, region: PointedRegion, said: SaidCoordinates, *, is_video: bool) -> str:
        if not is_video:
            return _shape(region.places[0], said)
        return ", ".join(_on_frame(each, said) for each in _spread(region.places, self.config.max_frames))


def _shape(placed: PlacedRegion, said: SaidCoordinates) -> str:
    x0, y0, x1, y1 = placed.mask.box_xyxy
    return said.box((x0, y0, x1, y1))


def _on_frame(placed: PlacedRegion, said: SaidCoordinates) -> str:
    assert placed.time_s is not None, "of a video"
    frame = said.frame(number=placed.position + 1, time_s=placed.time_s)
    if frame is None:
        raise PromptError("this backbone has no convention for coordinates on videos. Take adapter 'marks'.")
    return f"{frame}{_shape(placed, said)}"


def _spread(places: Sequence[PlacedRegion], most: int) -> list[PlacedRegion]:
    if len(places) <= most:
        return list(places)
    last = len(places) - 1
    return [places[round(index * last / max(most - 1, 1))] for index in range(most)]
