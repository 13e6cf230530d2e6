"""A canvas that remembers which pixels each object covers. Coordinates are pixels of the finished picture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Colour = tuple[int, int, int]
Point = tuple[float, float]

_CURVE_STEPS = 8  # of a curve, between two of its points
_CIRCLE = tuple((math.cos(step * math.pi / 16), math.sin(step * math.pi / 16)) for step in range(32))


@dataclass(frozen=True, eq=False)
class DrawnObject:
    """An object of a picture.

    Attributes:
        category: what it is.
        mask_hw: where it is seen, bool, as large as the picture.
    """

    category: str
    mask_hw: NDArray[np.bool_]


class Canvas:
    """A picture that is drawn larger than it becomes, so that edges are smooth.

    Args:
        size_wh: width and height of the finished picture.
        scale: how many times larger it is drawn.
    """

    def __init__(self, size_wh: tuple[int, int], scale: int) -> None:
        self.size_wh = size_wh
        self.scale = scale
        self.image = Image.new("RGB", (size_wh[0] * scale, size_wh[1] * scale))
        self._pen = ImageDraw.Draw(self.image)
        self._objects: list[tuple[str, str | None, Image.Image]] = []
        self._targets: list[ImageDraw.ImageDraw] = []

    def copy(self) -> Canvas:
        """Another canvas with the same on it."""
        other = Canvas(self.size_wh, self.scale)
        other.image.paste(self.image)
        other._objects = list(self._objects)
        return other

    @contextmanager
    def drawing(self, category: str, name: str | None = None) -> Iterator[None]:
        """What is drawn within is one object, in front of all earlier ones; with others of its name, parts of one."""
        mask = Image.new("1", self.image.size)
        self._targets.append(ImageDraw.Draw(mask))
        yield
        self._targets.pop()
        self._objects.append((category, name, mask))

    # -- shapes --------------------------------------------------------------------------------------------

    def polygon(self, points: Sequence[Point], fill: Colour) -> None:
        """A polygon."""
        large = self._large(points)
        self._pen.polygon(large, fill=fill)
        for mask in self._targets:
            mask.polygon(large, fill=1)

    def curve(self, points: Sequence[Point], fill: Colour) -> None:
        """A smooth closed shape through points."""
        self.polygon(smooth(points), fill)

    def ellipse(self, centre: Point, radii: Point, fill: Colour) -> None:
        """An ellipse with level axes."""
        self.polygon([(centre[0] + radii[0] * x, centre[1] + radii[1] * y) for x, y in _CIRCLE], fill)

    def stroke(self, points: Sequence[Point], width: float, fill: Colour) -> None:
        """A line with round ends and corners."""
        for (x0, y0), (x1, y1) in pairwise(points):
            length = math.hypot(x1 - x0, y1 - y0) or 1.0
            across, down = (y0 - y1) / length * width / 2, (x1 - x0) / length * width / 2
            corners = [(x0 + across, y0 + down), (x1 + across, y1 + down), (x1 - across, y1 - down)]
            self.polygon([*corners, (x0 - across, y0 - down)], fill)
        for point in points:
            self.ellipse(point, (width / 2, width / 2), fill)

    def rectangle(self, x0: float, y0: float, x1: float, y1: float, fill: Colour) -> None:
        """An upright rectangle."""
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], fill)

    def ring(self, centre: Point, radius: float, width: float, fill: Colour) -> None:
        """A circle's line."""
        outer, inner = radius + width / 2, radius - width / 2
        turn = [*_CIRCLE, _CIRCLE[0]]
        there = [(centre[0] + outer * x, centre[1] + outer * y) for x, y in turn]
        back = [(centre[0] + inner * x, centre[1] + inner * y) for x, y in turn[::-1]]
        self.polygon([*there, *back], fill)  # a polygon that overlaps itself is empty there

    # -- light ---------------------------------------------------------------------------------------------

    def gradient(self, box_xyxy: tuple[float, float, float, float], top: Colour, bottom: Colour) -> None:
        """A rectangle whose colour changes from top to bottom."""
        x0, y0, x1, y1 = (round(each * self.scale) for each in box_xyxy)
        share = np.linspace(0, 1, max(y1 - y0, 1))[:, None, None]
        rows = np.array(top) * (1 - share) + np.array(bottom) * share
        band = np.broadcast_to(rows.round().astype(np.uint8), (rows.shape[0], max(x1 - x0, 1), 3))
        self.image.paste(Image.fromarray(np.ascontiguousarray(band)), (x0, y0))

    def shade(self, points: Sequence[Point], fill: Colour, opacity: float, blur: float = 0.0) -> None:
        """A shadow or a glow: a shape that lets through what is below it, and belongs to no object."""
        large = self._large(points)
        margin = math.ceil(3 * blur * self.scale) + 1
        xs, ys = zip(*large, strict=True)
        left, top = math.floor(min(xs)) - margin, math.floor(min(ys)) - margin
        layer = Image.new("L", (math.ceil(max(xs)) + margin - left, math.ceil(max(ys)) + margin - top))
        moved = [(x - left, y - top) for x, y in large]
        ImageDraw.Draw(layer).polygon(moved, fill=round(255 * opacity))
        if blur:
            layer = layer.filter(ImageFilter.GaussianBlur(blur * self.scale))
        self.image.paste(fill, (left, top), layer)

    # -- the finished picture ------------------------------------------------------------------------------

    def picture(self) -> Image.Image:
        """The picture, with a little grain and darker corners."""
        pixels = np.asarray(self.image.reduce(self.scale), dtype=np.float32)
        return Image.fromarray((pixels * _vignette(self.size_wh) + _grain(self.size_wh)).clip(0, 255).astype(np.uint8))

    def objects(self) -> list[DrawnObject]:
        """The objects that are seen, those behind first, without what later ones cover."""
        hidden = np.zeros((self.size_wh[1], self.size_wh[0]), dtype=bool)
        found: dict[str | int, tuple[str, NDArray[np.bool_]]] = {}
        for number, (category, name, mask) in reversed(list(enumerate(self._objects))):
            covered = np.asarray(mask.convert("L").reduce(self.scale)) >= 128
            seen = covered & ~hidden
            earlier = found.get(name or number)
            found[name or number] = (category, seen if earlier is None else seen | earlier[1])
            hidden |= covered
        return [DrawnObject(category, seen) for category, seen in reversed(found.values()) if seen.any()]

    def _large(self, points: Sequence[Point]) -> list[Point]:
        return [(x * self.scale - 0.5, y * self.scale - 0.5) for x, y in points]  # Pillow's are centres of pixels


@dataclass(frozen=True)
class Pen:
    """Draws in units of a thing's own, with x to where it heads and y up from where it stands.

    Attributes:
        canvas: what it draws on.
        foot: where the thing stands.
        unit: pixels of one unit.
        heads: 1 where it heads to the right, -1 to the left.
    """

    canvas: Canvas
    foot: Point
    unit: float
    heads: int = 1

    def at(self, x: float, y: float) -> Point:
        """A point on the canvas."""
        return self.foot[0] + self.heads * x * self.unit, self.foot[1] - y * self.unit

    def polygon(self, points: Sequence[Point], fill: Colour) -> None:
        """As the canvas's."""
        self.canvas.polygon([self.at(x, y) for x, y in points], fill)

    def curve(self, points: Sequence[Point], fill: Colour) -> None:
        """As the canvas's."""
        self.canvas.curve([self.at(x, y) for x, y in points], fill)

    def ellipse(self, x: float, y: float, radii: Point, fill: Colour) -> None:
        """As the canvas's."""
        self.canvas.ellipse(self.at(x, y), (radii[0] * self.unit, radii[1] * self.unit), fill)

    def stroke(self, points: Sequence[Point], width: float, fill: Colour) -> None:
        """As the canvas's."""
        self.canvas.stroke([self.at(x, y) for x, y in points], width * self.unit, fill)

    def ring(self, x: float, y: float, radius: float, width: float, fill: Colour) -> None:
        """As the canvas's."""
        self.canvas.ring(self.at(x, y), radius * self.unit, width * self.unit, fill)

    def shadow(self, x: float, y: float, radii: Point, opacity: float = 0.35) -> None:
        """A soft shadow on the ground."""
        points = [self.at(x + radii[0] * across, y + radii[1] * up) for across, up in _CIRCLE]
        self.canvas.shade(points, (22, 24, 38), opacity, blur=0.04 * self.unit)


def smooth(points: Sequence[Point]) -> list[Point]:
    """A closed Catmull-Rom curve through points, as a polygon."""
    knots = np.array(points)
    before, after, later = (np.roll(knots, shift, axis=0) for shift in (1, -1, -2))
    steps = np.linspace(0, 1, _CURVE_STEPS, endpoint=False)[:, None, None]
    made = 0.5 * (
        2 * knots
        + (after - before) * steps
        + (2 * before - 5 * knots + 4 * after - later) * steps**2
        + (3 * knots - before - 3 * after + later) * steps**3
    )
    return [(float(x), float(y)) for x, y in made.transpose(1, 0, 2).reshape(-1, 2)]


def mixed(one: Colour, other: Colour, share: float) -> Colour:
    """A colour between two."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def darker(colour: Colour, share: float = 0.25) -> Colour:
    """A colour in the shade."""
    return mixed(colour, (18, 20, 40), share)


def lighter(colour: Colour, share: float = 0.25) -> Colour:
    """A colour in the sun."""
    return mixed(colour, (255, 246, 225), share)


@cache
def _vignette(size_wh: tuple[int, int]) -> NDArray[np.float32]:
    across, down = np.linspace(-1, 1, size_wh[0])[None, :], np.linspace(-1, 1, size_wh[1])[:, None]
    return (1 - 0.09 * (across**2 + down**2))[..., None].astype(np.float32)


@cache
def _grain(size_wh: tuple[int, int]) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(0.5, 1.6, (size_wh[1], size_wh[0], 1)).astype(np.float32)
