"""A street with houses, trees, people, a car and a cyclist, at any moment of a clip of five seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .canvas import Canvas, Colour, Pen, darker, lighter, mixed
from .things import Person, draw_car, draw_cyclist, draw_person, draw_tree

SIZE_WH = (640, 360)
FPS = 30
NUM_FRAMES = 150
SHOWN_FRAME = 90
"""The frame of the clip that is the picture."""

_HORIZON = 150.0  # the camera is one metre above the ground: `y - _HORIZON` pixels at y are a metre
_VANISHING_X = 350.0
_HAZE = (214, 222, 230)
_COATS = ((206, 62, 50), (44, 110, 142), (232, 168, 56), (92, 70, 128), (58, 126, 88))
_PAINTS = ((200, 40, 38), (38, 92, 160), (234, 234, 230), (52, 120, 84), (226, 172, 52))
_WALLS = ((222, 190, 150), (196, 120, 92), (232, 222, 200), (158, 176, 170), (206, 152, 108), (176, 96, 84))

WOMAN = Person(bag=(236, 196, 92), long_hair=True)


@dataclass(frozen=True)
class Street:
    """How a street looks, and where those on it are at three seconds.

    Attributes:
        seed: of houses and leaves.
        woman: who crosses the street.
        car: its paint.
        woman_x: where she is, her middle.
        car_x: where the car is.
        cyclist_x: where the cyclist is.
    """

    seed: int = 0
    woman: Person = WOMAN
    car: Colour = _PAINTS[0]
    woman_x: float = 186.0
    car_x: float = 366.0
    cyclist_x: float = 560.0

    @classmethod
    def drawn_by_lot(cls, seed: int) -> Street:
        """Another street of the same kind."""
        dice = np.random.default_rng([7, seed])
        coat = _COATS[int(dice.integers(len(_COATS)))]
        return cls(
            seed=seed,
            woman=Person(coat=coat, bag=(236, 196, 92) if dice.random() < 0.5 else None, long_hair=dice.random() < 0.5),
            car=_PAINTS[int(dice.integers(len(_PAINTS)))],
            woman_x=float(dice.uniform(120, 330)),
            car_x=float(dice.uniform(250, 480)),
            cyclist_x=float(dice.uniform(440, 580)),
        )

    def still(self, scale: int = 4) -> Canvas:
        """What does not move."""
        canvas = Canvas(SIZE_WH, scale)
        _sky(canvas)
        _houses(canvas, np.random.default_rng([1, self.seed]))
        _ground(canvas)
        _far_side(canvas, np.random.default_rng([2, self.seed]))
        return canvas

    def moving(self, still: Canvas, frame: int) -> Canvas:
        """All of a frame of the clip: what does not move, and in front of it what does."""
        canvas, seconds = still.copy(), (frame - SHOWN_FRAME) / FPS
        car_x = self.car_x + 92 * seconds
        draw_car(_pen(canvas, car_x, 200), self.car, turned=(car_x / 50) / 0.31)
        rider_x = self.cyclist_x - 58 * seconds
        rider = Person(coat=(52, 132, 150), trousers=(54, 54, 62), shoes=(230, 230, 226))
        draw_cyclist(_pen(canvas, rider_x, 228, heads=-1), rider, (226, 92, 38), turned=-rider_x / 30)
        woman_x = self.woman_x + 62 * seconds
        draw_person(_pen(canvas, woman_x, 309), self.woman, phase=1.35 + 3.4 * seconds, stride=0.82)
        return canvas


def _pen(canvas: Canvas, x: float, y: float, heads: int = 1) -> Pen:
    """A pen for metres, for what stands on the ground at y."""
    return Pen(canvas, (x, y), y - _HORIZON, heads)


def _sky(canvas: Canvas) -> None:
    width = SIZE_WH[0]
    canvas.gradient((0, 0, width, _HORIZON + 30), (98, 152, 206), (236, 226, 206))
    for x, y, size in ((70, 34, 30), (250, 22, 24), (452, 40, 34), (596, 20, 22)):
        for dx, dy, share in ((-1.1, 0.1, 0.55), (-0.35, -0.2, 0.8), (0.4, -0.05, 0.7), (1.1, 0.12, 0.5)):
            centre = (x + dx * size, y + dy * size)
            turns = np.linspace(0, 2 * math.pi, 24, endpoint=False).tolist()
            radii = (share * size, 0.42 * share * size)
            cloud = [(centre[0] + radii[0] * math.cos(t), centre[1] + radii[1] * math.sin(t)) for t in turns]
            canvas.shade(cloud, (255, 252, 244), 0.5, blur=4)


def _houses(canvas: Canvas, dice: np.random.Generator) -> None:
    """Both rows: one far down the street that leads away, and the one that faces us, with a gap for that street."""
    for step in range(9, 0, -1):  # the rows beside the street that leads away
        for side in (-1, 1):
            near, far = 26.0 / step**0.75, 26.0 / (step + 1) ** 0.75
            wall = mixed(_WALLS[int(dice.integers(len(_WALLS)))], _HAZE, 0.25 + 0.06 * step)
            _receding(canvas, side, near, far, darker(wall, 0.12 if side > 0 else 0.0), dice.uniform(4.0, 4.8))
    for start, end in ((-30.0, 300.0), (402.0, 660.0)):
        x = start
        while x < end:
            wide = float(dice.uniform(62, 88))
            wide = end - x if end - x - wide < 50 else wide  # the last one of the row
            _house(canvas, x, wide, dice)
            x += wide


def _receding(canvas: Canvas, side: int, near: float, far: float, wall: Colour, tall: float) -> None:
    """A house beside the street that leads away; `near` and `far` are pixels of a metre there."""
    half = 2.6
    x0, x1 = _VANISHING_X + side * half * near, _VANISHING_X + side * half * far
    high0, high1 = _HORIZON - tall * near * 0.8, _HORIZON - tall * far * 0.8
    canvas.polygon([(x0, high0), (x1, high1), (x1, _HORIZON + far), (x0, _HORIZON + near)], wall)
    for share in (0.3, 0.62):
        for floor in (0.3, 0.62):
            left, right = x0 + (x1 - x0) * share, x0 + (x1 - x0) * (share + 0.16)
            top0, foot0 = high0 + (high1 - high0) * share, _HORIZON + near + (far - near) * share
            y0, y1 = top0 + (foot0 - top0) * floor, top0 + (foot0 - top0) * (floor + 0.18)
            canvas.polygon([(left, y0), (right, y0), (right, y1), (left, y1)], darker(wall, 0.4))


def _house(canvas: Canvas, x: float, wide: float, dice: np.random.Generator) -> None:
    foot, unit = 170.0, 20.0
    floors = int(dice.integers(2, 4))
    top = foot - floors * 2.0 * unit - 14
    wall = mixed(_WALLS[int(dice.integers(len(_WALLS)))], _HAZE, 0.14)
    roof = mixed((138, 66, 52) if dice.random() < 0.6 else (86, 88, 98), _HAZE, 0.16)
    high = float(dice.uniform(16, 30))
    if dice.random() < 0.5:
        canvas.polygon([(x - 2, top), (x + wide / 2, top - high), (x + wide + 2, top)], roof)
        canvas.polygon([(x + wide / 2, top - high), (x + wide + 2, top), (x + wide * 0.62, top)], darker(roof, 0.25))
    else:
        ridge = top - high * 0.7
        canvas.polygon([(x - 2, top), (x + 8, ridge), (x + wide - 8, ridge), (x + wide + 2, top)], roof)
    canvas.rectangle(x + wide * 0.7, top - high * 0.9, x + wide * 0.7 + 7, top - high * 0.2, darker(roof, 0.2))
    canvas.gradient((max(x, 0), top, min(x + wide, 640), foot + 4), lighter(wall, 0.18), darker(wall, 0.08))
    canvas.rectangle(x + wide - 5, top, x + wide, foot + 4, darker(wall, 0.14))
    canvas.rectangle(x, top, x + wide, top + 2.2, darker(wall, 0.25))
    columns = max(2, round(wide / 22))
    for floor in range(floors):
        y = top + 9 + floor * 2.0 * unit
        if floor < floors - 1:
            for column in range(columns):
                _window(canvas, x + wide * (column + 0.5) / columns, y, wall, dice)
        else:
            _shop(canvas, x, wide, y, foot + 4, dice)


def _window(canvas: Canvas, x: float, y: float, wall: Colour, dice: np.random.Generator) -> None:
    glass = (70, 88, 104) if dice.random() < 0.75 else (240, 208, 138)
    canvas.rectangle(x - 6.2, y - 1.2, x + 6.2, y + 21.2, lighter(wall, 0.55))
    canvas.rectangle(x - 5, y, x + 5, y + 20, glass)
    canvas.polygon([(x - 5, y), (x + 1, y), (x - 5, y + 11)], lighter(glass, 0.28))
    canvas.rectangle(x - 0.5, y, x + 0.5, y + 20, lighter(wall, 0.5))
    canvas.rectangle(x - 5, y + 8.6, x + 5, y + 9.5, lighter(wall, 0.5))
    canvas.rectangle(x - 7.2, y + 20.6, x + 7.2, y + 22.6, darker(wall, 0.2))


def _shop(canvas: Canvas, x: float, wide: float, y: float, foot: float, dice: np.random.Generator) -> None:
    cloth = [(178, 58, 52), (52, 104, 92), (60, 84, 132), (214, 158, 66)][int(dice.integers(4))]
    canvas.rectangle(x + 5, y + 4, x + wide - 26, foot - 6, (74, 90, 102))
    canvas.polygon([(x + 5, foot - 6), (x + 5, y + 10), (x + 16, y + 10), (x + 8, foot - 6)], (112, 128, 138))
    canvas.rectangle(x + wide - 22, y + 4, x + wide - 8, foot, darker(cloth, 0.35))
    canvas.rectangle(x + wide - 20, y + 7, x + wide - 10, y + 20, (96, 112, 122))
    stripes = max(4, round((wide - 26) / 6))
    left, step = x + 3, (wide - 27) / stripes
    for stripe in range(stripes):
        tone = cloth if stripe % 2 == 0 else (240, 234, 222)
        x0, x1 = left + stripe * step, left + (stripe + 1) * step
        canvas.polygon([(x0 + 1, y), (x1 + 1, y), (x1 - 1, y + 10), (x0 - 1, y + 10)], tone)
    below = [(x + 5, y + 10), (x + wide - 26, y + 10), (x + wide - 26, y + 14), (x + 5, y + 14)]
    canvas.shade(below, (16, 20, 30), 0.35, 1)


def _ground(canvas: Canvas) -> None:
    width, height = SIZE_WH
    canvas.gradient((0, 172, width, 184), (184, 176, 168), (198, 190, 180))  # the far pavement
    canvas.polygon([(0, 180.5), (width, 180.5), (width, 183), (0, 183)], (150, 146, 142))
    canvas.gradient((0, 183, width, 338), (104, 106, 114), (74, 76, 86))  # the road
    street = [(_VANISHING_X - 3, _HORIZON + 1), (_VANISHING_X + 3, _HORIZON + 1), (408, 184), (292, 184)]
    canvas.polygon(street, (112, 114, 121))
    dice = np.random.default_rng(3)
    for _ in range(2400):  # the grain of asphalt, finer where it is far
        y = 184 + 153 * dice.uniform() ** 0.8
        x, size = dice.uniform(0, width), (y - _HORIZON) / 160
        tone = int(74 + 30 * dice.uniform() + 18 * (338 - y) / 150)
        canvas.rectangle(x, y, x + 1.4 * size, y + 0.6 * size, (tone, tone + 2, tone + 8))
    for x in range(-80, 760, 74):  # the middle line
        canvas.polygon([(x, 213), (x + 38, 213), (x + 36, 216), (x - 3, 216)], (222, 220, 210))
    for stripe in range(-4, 5):  # the crossing, towards us
        near, far = stripe * 92 + 160, stripe * 26 + 262
        canvas.polygon([(far, 236), (far + 13, 236), (near + 46, 334), (near, 334)], (226, 224, 216))
    canvas.gradient((0, 338, width, 344), (176, 172, 166), (150, 146, 142))
    canvas.gradient((0, 344, width, height), (186, 178, 168), (160, 152, 144))
    for x in range(-200, 900, 58):
        canvas.stroke([(320 + (x - 320) * 0.92, 344), (x, height)], 0.8, (142, 136, 130))


def _far_side(canvas: Canvas, dice: np.random.Generator) -> None:
    for x, y, unit in ((434, 179, 27), (612, 179, 29)):
        draw_tree(Pen(canvas, (x, y), unit), (104, 142, 62), dice)
    draw_tree(Pen(canvas, (82, 180), 30.2), (92, 138, 66), dice)
    _lamp(canvas, 268, 180)
    _bench(canvas, 520, 179)
    man = Person(coat=(64, 74, 88), trousers=(112, 98, 84), hair=(120, 116, 112))
    draw_person(Pen(canvas, (474, 180), 27, heads=-1), man, phase=0.9)
    child = Person(coat=(240, 190, 60), trousers=(72, 104, 150))
    draw_person(Pen(canvas, (456, 180), 18, heads=-1), child, phase=2.2)


def _lamp(canvas: Canvas, x: float, y: float) -> None:
    pen = Pen(canvas, (x, y), 27)
    with canvas.drawing("street lamp"):
        pen.stroke([(0, 0), (0, 4.2)], 0.1, (56, 62, 66))
        pen.polygon([(-0.16, 0), (0.16, 0), (0.1, 0.5), (-0.1, 0.5)], (46, 52, 56))
        pen.stroke([(0, 4.2), (0.5, 4.5)], 0.07, (56, 62, 66))
        pen.curve([(0.3, 4.4), (0.8, 4.4), (0.7, 4.62), (0.4, 4.62)], (70, 76, 80))
        pen.curve([(0.36, 4.36), (0.74, 4.36), (0.7, 4.42), (0.4, 4.42)], (255, 240, 196))


def _bench(canvas: Canvas, x: float, y: float) -> None:
    pen = Pen(canvas, (x, y), 26)
    wood = (150, 102, 66)
    pen.shadow(0, 0.02, (1.0, 0.06))
    with canvas.drawing("bench"):
        for at in (-0.7, 0.7):
            pen.stroke([(at, 0.0), (at, 0.85)], 0.08, (58, 60, 64))
        for height in (0.45, 0.62, 0.8):
            pen.stroke([(-0.9, height), (0.9, height)], 0.1, wood if height > 0.5 else darker(wood))
