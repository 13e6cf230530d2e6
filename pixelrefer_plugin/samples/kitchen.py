"""A kitchen: a table with fruit, crockery and a vase, in front of a tiled wall with a window."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .canvas import Canvas, Colour, Pen, darker, lighter, mixed

SIZE_WH = (640, 360)

_TABLE_Y = 222.0
_GLAZES: tuple[Colour, ...] = (
    (70, 116, 150),
    (206, 96, 74),
    (236, 230, 216),
    (88, 132, 104),
    (222, 176, 84),
)
_PETALS: tuple[Colour, ...] = ((236, 120, 110), (244, 196, 76), (224, 150, 196), (248, 240, 226))
_WOOD = (186, 132, 86)


@dataclass(frozen=True)
class Kitchen:
    """A kitchen.

    Attributes:
        seed: of what stands where on the table, and of colours.
    """

    seed: int = 0

    def drawn(self, scale: int = 4) -> Canvas:
        """The picture."""
        canvas = Canvas(SIZE_WH, scale)
        dice = np.random.default_rng([11, self.seed])
        _wall(canvas)
        _window(canvas)
        _shelf(canvas, dice)
        _table(canvas)
        _vase(Pen(canvas, (80, 180), 150), dice)
        for (x, y), draw in sorted(zip(_SPOTS, _order(dice, self.seed), strict=True), key=lambda each: each[0][1]):
            moved = 0.0 if self.seed == 0 else float(dice.uniform(-9, 9))
            draw(Pen(canvas, (x + moved, y), y * 0.36), dice)
        return canvas


def _order(dice: np.random.Generator, seed: int) -> list[Callable[[Pen, np.random.Generator], None]]:
    return list(_THINGS) if seed == 0 else [_THINGS[int(index)] for index in dice.permutation(len(_THINGS))]


def _wall(canvas: Canvas) -> None:
    width = SIZE_WH[0]
    canvas.gradient((0, 0, width, _TABLE_Y + 6), (226, 222, 206), (204, 198, 182))
    dice = np.random.default_rng(5)
    for row in range(4):
        for column in range(17):
            x, y = column * 40 - 20 * (row % 2), 92 + row * 24
            tone = mixed((236, 238, 232), (196, 212, 210), float(dice.uniform(0.1, 0.6)))
            canvas.rectangle(x + 1, y + 1, x + 39, y + 23, tone)
            canvas.polygon([(x + 2, y + 2), (x + 38, y + 2), (x + 34, y + 5), (x + 5, y + 5)], lighter(tone, 0.6))
            canvas.rectangle(x + 1, y + 21.5, x + 39, y + 23, darker(tone, 0.12))
    canvas.rectangle(0, 188, width, 196, (150, 112, 80))
    canvas.gradient((0, 196, width, 240), (112, 132, 128), (86, 104, 102))
    for x in range(-30, width, 134):  # doors of cupboards below the worktop
        canvas.rectangle(x + 6, 202, x + 128, 250, (124, 146, 140))
        canvas.rectangle(x + 12, 207, x + 122, 250, (112, 134, 128))
        canvas.rectangle(x + 106, 212, x + 118, 215, (214, 190, 130))


def _window(canvas: Canvas) -> None:
    x0, y0, x1, y1 = 236, 8, 416, 158
    canvas.rectangle(x0 - 10, y0 - 10, x1 + 10, y1 + 10, (244, 240, 230))
    canvas.rectangle(x0 - 14, y1 + 8, x1 + 14, y1 + 15, (226, 220, 208))
    canvas.gradient((x0, y0, x1, y1), (128, 178, 220), (236, 236, 216))
    hills: list[tuple[float, float]] = [(x, 118 + 9 * math.sin(x / 26)) for x in range(x0, x1 + 1, 6)]
    canvas.polygon([*hills, (x1, y1), (x0, y1)], (134, 168, 112))
    nearer: list[tuple[float, float]] = [(x, 134 + 7 * math.sin(x / 19 + 1)) for x in range(x0, x1 + 1, 6)]
    canvas.polygon([*nearer, (x1, y1), (x0, y1)], (98, 140, 84))
    for x, y, radius in ((268, 112, 17), (284, 118, 13), (386, 108, 19)):
        canvas.rectangle(x - 2, y, x + 2, y + 26, (92, 70, 54))
        canvas.ellipse((x, y), (radius, radius * 0.95), (82, 124, 70))
        canvas.ellipse((x + 4, y - 4), (radius * 0.6, radius * 0.55), (112, 154, 88))
    for x in (x0 + 56, x1 - 56):
        canvas.rectangle(x - 3, y0, x + 3, y1, (240, 236, 226))
    canvas.rectangle(x0, 62, x1, 67, (240, 236, 226))
    canvas.shade([(x0, y0), (x0 + 80, y0), (x0 + 20, y1), (x0, y1)], (255, 255, 255), 0.14)


def _shelf(canvas: Canvas, dice: np.random.Generator) -> None:
    canvas.shade([(452, 74), (632, 74), (632, 86), (452, 86)], (30, 30, 40), 0.3, 3)
    for x in (462, 490, 518, 546):
        tone = _GLAZES[int(dice.integers(len(_GLAZES)))]
        pen = Pen(canvas, (x, 66), 40)
        with canvas.drawing("cup"):
            pen.ring(0.3, 0.28, 0.15, 0.07, darker(tone, 0.15))
            _turned(pen, [(0.25, 0.0), (0.3, 0.12), (0.31, 0.58)], tone)
            pen.ellipse(0, 0.58, (0.31, 0.06), darker(tone, 0.35))
    book = 574.0
    while book < 618:
        wide, tall = float(dice.uniform(7, 11)), float(dice.uniform(36, 50))
        tone = darker(_GLAZES[int(dice.integers(len(_GLAZES)))], float(dice.uniform(0.0, 0.3)))
        with canvas.drawing("book"):
            canvas.rectangle(book, 66 - tall, book + wide, 66, tone)
            canvas.rectangle(book, 66 - tall + 6, book + wide, 66 - tall + 8, lighter(tone, 0.5))
            canvas.rectangle(book + wide - 1.2, 66 - tall, book + wide, 66, darker(tone, 0.3))
        book += wide + 1
    canvas.rectangle(446, 66, 634, 72, (172, 124, 84))
    canvas.rectangle(446, 71, 634, 74, (128, 88, 58))


def _table(canvas: Canvas) -> None:
    canvas.gradient((0, 240, SIZE_WH[0], SIZE_WH[1]), (96, 112, 108), (70, 74, 76))
    canvas.polygon([(-32, 340), (672, 340), (672, 360), (-32, 360)], darker(_WOOD, 0.45))
    dice = np.random.default_rng(9)
    for plank in range(-7, 9):
        far, near = 320 + plank * 36, 320 + plank * 45
        tone = mixed(darker(_WOOD, 0.1), lighter(_WOOD, 0.16), float(dice.uniform()))
        corners = [(far, _TABLE_Y), (far + 36, _TABLE_Y), (near + 45, 340), (near, 340)]
        canvas.polygon(corners, tone)
        canvas.stroke([(far, _TABLE_Y), (near, 340)], 0.9, darker(_WOOD, 0.35))
        for _ in range(7):  # the grain of the wood
            share, start = float(dice.uniform(0.1, 0.9)), float(dice.uniform(0, 0.7))
            ends = [start, start + float(dice.uniform(0.1, 0.3))]
            line = [
                (far + share * 36 + (near + share * 45 - far - share * 36) * each, _TABLE_Y + (340 - _TABLE_Y) * each)
                for each in ends
            ]
            canvas.stroke(line, 0.7, darker(tone, 0.14))
    canvas.polygon([(-32, 338), (672, 338), (672, 343), (-32, 343)], lighter(_WOOD, 0.25))
    canvas.shade([(250, _TABLE_Y), (420, _TABLE_Y), (470, 338), (180, 338)], (255, 240, 200), 0.16, 12)


def _turned(pen: Pen, side: list[tuple[float, float]], tone: Colour) -> None:
    """What a potter turns: its right side, from the foot up, with light from the right."""
    base = side[0][1]
    round_foot = [(side[0][0] * math.cos(t), base - 0.05 * math.sin(t)) for t in np.linspace(0, math.pi, 9).tolist()]
    left = [(-x, y) for x, y in side]
    pen.polygon([*side[::-1], *round_foot, *left], tone)
    for share, shade in ((0.45, 0.1), (0.7, 0.2), (0.86, 0.32)):
        pen.polygon([*[(-x * share, y) for x, y in side[::-1]], *left], darker(tone, shade))
    bright = [(x * 0.42, y) for x, y in side]
    pen.polygon([*[(x * 0.72, y) for x, y in side[::-1]], *bright], lighter(tone, 0.3))


def _vase(pen: Pen, dice: np.random.Generator) -> None:
    glaze = _GLAZES[int(dice.integers(len(_GLAZES)))]
    petals = _PETALS[int(dice.integers(len(_PETALS)))]
    pen.shadow(-0.08, -0.01, (0.28, 0.04), 0.4)
    with pen.canvas.drawing("vase"):
        stems = ((-0.17, 0.83), (0.0, 0.92), (0.17, 0.8), (-0.07, 0.7), (0.09, 0.68), (-0.18, 0.62), (0.19, 0.61))
        for x, y in stems:
            pen.stroke([(x * 0.15, 0.4), (x * 0.7, 0.4 + (y - 0.4) * 0.6), (x, y)], 0.016, (84, 122, 70))
        for x, y in ((-0.2, 0.5), (0.2, 0.5), (0.13, 0.58), (-0.12, 0.56)):
            pen.curve(
                [(x * 0.4, y - 0.08), (x * 0.9, y - 0.05), (x * 1.25, y + 0.04), (x * 0.7, y + 0.02)], (96, 138, 78)
            )
        for x, y in stems[::-1]:
            _flower(pen, x, y, petals)
        _turned(pen, [(0.11, 0.0), (0.17, 0.1), (0.185, 0.2), (0.14, 0.32), (0.085, 0.39), (0.1, 0.43)], glaze)


def _flower(pen: Pen, x: float, y: float, petals: Colour) -> None:
    for index in range(7):
        angle = 2 * math.pi * index / 7
        at = (x + 0.05 * math.cos(angle), y + 0.05 * math.sin(angle))
        pen.ellipse(*at, (0.034, 0.034), mixed(darker(petals, 0.25), lighter(petals, 0.2), 0.5 + 0.5 * math.sin(angle)))
    pen.ellipse(x, y, (0.028, 0.028), (232, 178, 62))


# -- on the table: units are a third of the table's depth, all from where they stand ----------------------------


def _bowl(pen: Pen, dice: np.random.Generator) -> None:
    glaze = _GLAZES[int(dice.integers(len(_GLAZES)))]
    pen.shadow(-0.12, 0.0, (0.75, 0.11), 0.45)
    with pen.canvas.drawing("bowl", "bowl"):
        pen.ellipse(0, 0.46, (0.7, 0.15), darker(glaze, 0.4))
    for x, y, tone in ((-0.34, 0.5, (198, 52, 46)), (0.02, 0.6, (226, 178, 64)), (0.36, 0.5, (132, 172, 68))):
        _apple(Pen(pen.canvas, pen.at(x, y - 0.2), pen.unit), tone, shadow=False)
    with pen.canvas.drawing("bowl", "bowl"):
        front = [(0.7 * math.cos(t), 0.46 - 0.15 * math.sin(t)) for t in np.linspace(0, math.pi, 19).tolist()]
        under = [(-0.6, 0.24), (-0.38, 0.06), (-0.22, 0.0), (0.22, 0.0), (0.38, 0.06), (0.6, 0.24)]
        pen.polygon([*front, *under], glaze)
        pen.polygon([*[(x * 0.75, y) for x, y in front[10:]], *front[:9:-1], *under[:3]], darker(glaze, 0.12))
        pen.polygon([front[13], front[18], under[0], under[1], (-0.34, 0.2)], darker(glaze, 0.28))
        pen.curve([(0.36, 0.3), (0.52, 0.34), (0.44, 0.18), (0.32, 0.12)], lighter(glaze, 0.4))
        pen.stroke(front, 0.028, lighter(glaze, 0.3))


def _apple(pen: Pen, tone: Colour, *, shadow: bool = True) -> None:
    if shadow:
        pen.shadow(-0.08, 0.01, (0.27, 0.06), 0.45)
    with pen.canvas.drawing("apple"):
        round_ = [(0.0, 0.42), (0.13, 0.46), (0.25, 0.37), (0.25, 0.2), (0.14, 0.03), (0.0, 0.02)]
        pen.curve([*round_, *[(-x, y) for x, y in round_[1:-1][::-1]]], tone)
        shade = [(-0.13, 0.44), (-0.25, 0.36), (-0.25, 0.2), (-0.13, 0.04), (-0.04, 0.03), (-0.16, 0.2)]
        pen.curve(shade, darker(tone, 0.25))
        pen.curve([(0.1, 0.39), (0.18, 0.34), (0.17, 0.24), (0.1, 0.28)], lighter(tone, 0.5))
        pen.curve([(-0.05, 0.415), (0.06, 0.415), (0.04, 0.38), (-0.04, 0.38)], darker(tone, 0.4))
        pen.stroke([(0.0, 0.39), (0.03, 0.52)], 0.03, (92, 66, 46))
        pen.curve([(0.03, 0.47), (0.12, 0.55), (0.2, 0.54), (0.12, 0.47)], (100, 148, 72))


def _red_apple(pen: Pen, dice: np.random.Generator) -> None:
    tones: tuple[Colour, ...] = ((198, 50, 46), (132, 172, 68), (222, 172, 62))
    _apple(pen, tones[int(dice.integers(len(tones)))])


def _orange(pen: Pen, dice: np.random.Generator) -> None:
    del dice
    tone = (238, 146, 46)
    pen.shadow(-0.08, 0.01, (0.26, 0.06), 0.45)
    with pen.canvas.drawing("orange"):
        pen.ellipse(0, 0.24, (0.25, 0.235), darker(tone, 0.2))
        pen.ellipse(0.03, 0.26, (0.2, 0.19), tone)
        pen.ellipse(0.08, 0.31, (0.1, 0.09), lighter(tone, 0.3))
        pen.ellipse(-0.01, 0.44, (0.025, 0.015), (110, 128, 62))


def _mug(pen: Pen, dice: np.random.Generator) -> None:
    glaze = _GLAZES[int(dice.integers(len(_GLAZES)))]
    pen.shadow(-0.12, 0.0, (0.38, 0.07), 0.45)
    with pen.canvas.drawing("cup"):
        pen.ring(0.34, 0.32, 0.17, 0.075, darker(glaze, 0.1))
        _turned(pen, [(0.25, 0.02), (0.29, 0.1), (0.31, 0.62)], glaze)
        pen.ellipse(0, 0.62, (0.31, 0.075), lighter(glaze, 0.25))
        pen.ellipse(0, 0.612, (0.26, 0.056), (82, 52, 36))
    for x, bend in ((-0.08, 0.05), (0.08, -0.04)):
        rise = [pen.at(x + bend * math.sin(4 * t), 0.72 + 0.35 * t) for t in np.linspace(0, 1, 9).tolist()]
        pen.canvas.shade([*rise, *[(px + 2.5, py) for px, py in rise[::-1]]], (255, 255, 255), 0.3, 1.5)


def _bottle(pen: Pen, dice: np.random.Generator) -> None:
    del dice
    glass = (72, 112, 76)
    pen.shadow(-0.12, 0.0, (0.3, 0.06), 0.45)
    with pen.canvas.drawing("bottle"):
        _turned(pen, [(0.2, 0.02), (0.21, 0.1), (0.21, 0.8), (0.08, 1.05), (0.07, 1.36), (0.085, 1.4)], glass)
        pen.polygon([(-0.205, 0.28), (0.205, 0.28), (0.205, 0.64), (-0.205, 0.64)], (240, 232, 206))
        pen.polygon([(-0.205, 0.28), (-0.1, 0.28), (-0.1, 0.64), (-0.205, 0.64)], (212, 202, 176))
        pen.ellipse(0.03, 0.46, (0.09, 0.1), (146, 152, 62))
        pen.polygon([(-0.075, 1.38), (0.075, 1.38), (0.07, 1.52), (-0.07, 1.52)], (190, 150, 104))


def _plate(pen: Pen, dice: np.random.Generator) -> None:
    glaze = lighter(_GLAZES[int(dice.integers(len(_GLAZES)))], 0.5)
    pen.shadow(-0.05, -0.02, (0.86, 0.22), 0.4)
    with pen.canvas.drawing("plate"):
        pen.ellipse(0, 0.0, (0.82, 0.235), darker(glaze, 0.25))
        pen.ellipse(0, 0.03, (0.82, 0.23), glaze)
        pen.ellipse(0, 0.02, (0.56, 0.145), darker(glaze, 0.12))
        pen.ellipse(0.01, 0.015, (0.54, 0.135), lighter(glaze, 0.3))
    with pen.canvas.drawing("cake"):
        pen.polygon([(-0.34, 0.02), (0.3, -0.04), (0.36, 0.08), (0.36, 0.36), (-0.34, 0.28)], (150, 96, 60))
        pen.polygon([(-0.34, 0.28), (0.3, 0.22), (0.36, 0.36), (0.0, 0.4)], (108, 62, 44))
        pen.polygon([(-0.34, 0.02), (0.3, -0.04), (0.3, 0.22), (-0.34, 0.28)], (176, 118, 76))
        pen.polygon([(-0.34, 0.13), (0.3, 0.07), (0.3, 0.11), (-0.34, 0.17)], (246, 232, 208))
        pen.polygon([(-0.34, 0.26), (0.3, 0.2), (0.3, 0.24), (-0.34, 0.3)], (96, 52, 40))
        pen.ellipse(0.14, 0.36, (0.07, 0.065), (190, 36, 48))


def _knife(pen: Pen, dice: np.random.Generator) -> None:
    del dice
    pen.shadow(0.0, -0.03, (0.6, 0.05), 0.35)
    with pen.canvas.drawing("knife"):
        pen.curve([(-0.08, 0.0), (0.4, -0.02), (0.64, 0.03), (0.5, 0.09), (-0.08, 0.1)], (198, 204, 208))
        pen.polygon([(-0.08, 0.06), (0.46, 0.05), (0.5, 0.085), (-0.08, 0.1)], (232, 236, 238))
        pen.stroke([(-0.52, 0.05), (-0.12, 0.05)], 0.1, (70, 48, 40))
        for x in (-0.44, -0.3, -0.18):
            pen.ellipse(x, 0.05, (0.018, 0.018), (196, 180, 140))


_SPOTS = ((318, 290), (150, 318), (470, 262), (196, 254), (508, 322), (404, 324), (552, 276), (98, 276))
_THINGS = (_bowl, _plate, _bottle, _mug, _red_apple, _knife, _orange, _red_apple)
