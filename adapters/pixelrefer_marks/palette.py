"""Colours that have a plain name, and the choice of one that stands out where it is drawn."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

Rgb = tuple[int, int, int]

_DISTINCT = 30.0  # CIELAB units; a difference that is seen at a glance
_BRIGHT = 110


@dataclass(frozen=True)
class Colour:
    """A colour and the word for it.

    Attributes:
        name: as a question calls it.
        rgb: what is drawn.
    """

    name: str
    rgb: Rgb

    @property
    def contrast(self) -> Rgb:
        """Black or white, whichever is read on it."""
        red, green, blue = self.rgb
        bright = 0.299 * red + 0.587 * green + 0.114 * blue > _BRIGHT  # ITU-R BT.601
        return (0, 0, 0) if bright else (255, 255, 255)


COLOURS = (
    Colour("red", (230, 0, 20)),
    Colour("blue", (0, 70, 255)),
    Colour("yellow", (255, 230, 0)),
    Colour("green", (0, 200, 0)),
    Colour("magenta", (255, 0, 220)),
    Colour("cyan", (0, 230, 255)),
    Colour("orange", (255, 130, 0)),
    Colour("purple", (130, 0, 200)),
)
"""In the order in which they are taken where all stand out."""


def choose_colours(pixels_under: Sequence[np.ndarray], near: Sequence[Collection[int]]) -> list[Colour]:
    """A colour for each region: the first of those taken least that stands out, or the one that stands out most.

    Where there are more regions than colours, those near each other have different ones if they can. A region's colour
    depends on the regions before it alone, so that a further region changes none.

    Args:
        pixels_under: for each region in order, `(n, 3)` uint8, what its mark is drawn over; n is one or more.
        near: for each region the indices of those that lie near it.
    """
    chosen: list[Colour] = []
    for pixels, around in zip(pixels_under, near, strict=True):
        beside = {chosen[index] for index in around if index < len(chosen)}
        free = [colour for colour in COLOURS if colour not in beside] or list(COLOURS)
        fewest = min(map(chosen.count, free))
        free = [colour for colour in free if chosen.count(colour) == fewest]
        contrasts = _contrasts(pixels, free)
        distinct = [colour for colour, contrast in zip(free, contrasts, strict=True) if contrast >= _DISTINCT]
        chosen.append(distinct[0] if distinct else free[int(np.argmax(contrasts))])
    return chosen


def _contrasts(pixels: np.ndarray, colours: Sequence[Colour]) -> list[float]:
    """For each colour the distance in CIELAB that three quarters of the pixels have from it at least."""
    under = _lab(pixels)
    drawn = _lab(np.array([colour.rgb for colour in colours], dtype=np.uint8))
    distances = np.linalg.norm(under[:, None] - drawn, axis=-1)
    return [float(each) for each in np.percentile(distances, 25, axis=0)]


def _lab(pixels: np.ndarray) -> np.ndarray:
    import cv2

    return np.asarray(cv2.cvtColor(pixels[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB))[0]
