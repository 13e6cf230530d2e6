"""Things of a street: people, a cyclist, cars, trees. Each stands where its pen does; units are metres."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .canvas import Colour, Pen, darker, lighter, mixed

TYRE = (32, 33, 38)
GLASS = (108, 138, 158)


@dataclass(frozen=True)
class Person:
    """How somebody looks: skin, hair, and the colours of coat, trousers, shoes and bag (None: without one)."""

    coat: Colour = (206, 66, 52)
    trousers: Colour = (44, 58, 92)
    skin: Colour = (224, 172, 138)
    hair: Colour = (66, 44, 34)
    shoes: Colour = (48, 38, 38)
    bag: Colour | None = None
    long_hair: bool = False


def draw_person(pen: Pen, look: Person, phase: float, stride: float = 1.0) -> None:
    """Somebody who walks, 1.7 units tall.

    Args:
        pen: where the feet are.
        look: colours.
        phase: of the walk, in radians; a step takes pi.
        stride: how far the legs swing; 0 stands still.
    """
    swing = math.sin(phase) * stride
    pen.shadow(-0.25, 0.01, (0.5, 0.045))
    with pen.canvas.drawing("person"):
        _leg(pen, -swing, look, behind=True)
        _arm(pen, swing, look, behind=True)
        _leg(pen, swing, look, behind=False)
        _body(pen, look)
        _head(pen, look)
        _arm(pen, -swing, look, behind=False)


def _leg(pen: Pen, swing: float, look: Person, *, behind: bool) -> None:
    cloth = darker(look.trousers, 0.3) if behind else look.trousers
    hip = (0.0, 0.84)
    knee = (0.21 * swing + 0.03, 0.45)
    lift = 0.06 * max(0.0, -swing)
    foot = (0.36 * swing - 0.03 * (swing < 0), 0.07 + lift)
    pen.stroke([hip, knee], 0.175, cloth)
    pen.stroke([knee, foot], 0.135, cloth)
    x, y = foot
    heel = 0.04 * max(0.0, swing)  # toes up in front, heel up behind
    shoe = darker(look.shoes) if behind else look.shoes
    sole = [(x - 0.07, y - 0.07), (x + 0.16, y - 0.07 + heel), (x + 0.17, y - 0.02 + heel), (x + 0.05, y + 0.05)]
    pen.curve([*sole, (x - 0.06, y + 0.05)], shoe)


def _body(pen: Pen, look: Person) -> None:
    coat = look.coat
    outline = [(-0.19, 0.7), (0.17, 0.7), (0.2, 0.9), (0.165, 1.15), (0.15, 1.36), (0.05, 1.45), (-0.09, 1.44)]
    pen.curve([*outline, (-0.17, 1.33), (-0.185, 1.05)], coat)
    pen.curve([(-0.19, 0.71), (-0.06, 0.72), (-0.07, 1.1), (-0.1, 1.4), (-0.17, 1.3), (-0.185, 1.0)], darker(coat, 0.2))
    pen.stroke([(0.13, 0.74), (0.125, 1.3)], 0.012, darker(coat, 0.45))
    if look.bag is not None:
        pen.stroke([(0.1, 1.42), (-0.14, 0.95)], 0.03, darker(look.bag, 0.3))
        pen.curve([(-0.34, 0.78), (-0.1, 0.76), (-0.08, 1.0), (-0.3, 1.02)], look.bag)
        pen.curve([(-0.33, 0.92), (-0.09, 0.9), (-0.085, 1.0), (-0.3, 1.02)], darker(look.bag, 0.2))


def _head(pen: Pen, look: Person) -> None:
    pen.stroke([(0.01, 1.4), (0.02, 1.5)], 0.085, darker(look.skin, 0.2))
    if look.long_hair:
        pen.curve([(-0.12, 1.36), (-0.02, 1.36), (-0.01, 1.6), (0.0, 1.7), (-0.09, 1.68), (-0.13, 1.55)], look.hair)
    face = [(-0.06, 1.5), (0.03, 1.445), (0.1, 1.47), (0.115, 1.53), (0.135, 1.555), (0.115, 1.58)]
    pen.curve([*face, (0.11, 1.65), (0.03, 1.7), (-0.06, 1.66), (-0.09, 1.58)], look.skin)
    fringe = [(-0.115, 1.5), (-0.05, 1.51), (-0.02, 1.6), (0.05, 1.645), (0.12, 1.645)]
    pen.curve([*fringe, (0.09, 1.71), (0.0, 1.735), (-0.09, 1.7)], look.hair)
    pen.ellipse(-0.015, 1.57, (0.02, 0.028), darker(look.skin, 0.12))
    pen.ellipse(0.082, 1.585, (0.009, 0.012), (40, 30, 30))
    pen.stroke([(0.088, 1.49), (0.108, 1.492)], 0.012, (176, 92, 84))


def _arm(pen: Pen, swing: float, look: Person, *, behind: bool) -> None:
    cloth = darker(look.coat, 0.35) if behind else darker(look.coat, 0.08)
    shoulder = (-0.03, 1.36)
    elbow = (-0.05 + 0.16 * swing, 1.09)
    hand = (0.04 + 0.29 * swing, 0.87 + 0.05 * abs(swing))
    pen.ellipse(*hand, (0.05, 0.055), darker(look.skin, 0.25) if behind else look.skin)
    pen.stroke([shoulder, elbow], 0.115, cloth)
    pen.stroke([elbow, (hand[0] - 0.02, hand[1] + 0.06)], 0.095, cloth)


def draw_car(pen: Pen, paint: Colour, turned: float = 0.0) -> None:
    """A car of 4.1 by 1.5 units; `turned` is how far its wheels have, in radians."""
    pen.shadow(0.0, 0.02, (2.2, 0.13), 0.5)
    with pen.canvas.drawing("car"):
        _car_body(pen, paint)
        for x in (-1.22, 1.3):
            pen.ellipse(x, 0.33, (0.41, 0.4), darker(paint, 0.6))
            _wheel(pen, x, turned)


def _car_body(pen: Pen, paint: Colour) -> None:
    shell = [(-2.03, 0.3), (-2.06, 0.62), (-1.98, 0.93), (-1.62, 0.98), (-1.12, 1.38), (-0.72, 1.47), (0.1, 1.47)]
    shell += [(0.42, 1.38), (0.98, 1.0), (1.72, 0.88), (2.02, 0.68), (2.06, 0.42), (2.0, 0.26), (0.0, 0.22)]
    pen.curve(shell, paint)
    low = [(-2.03, 0.26), (-2.05, 0.5), (-1.2, 0.56), (1.2, 0.52), (2.06, 0.46), (2.02, 0.26), (0.0, 0.21)]
    pen.polygon(low, darker(paint, 0.3))
    edge = [(-1.98, 0.9), (-1.5, 0.95), (0.95, 0.97), (1.7, 0.86), (1.7, 0.83), (-1.98, 0.87)]
    pen.polygon(edge, lighter(paint, 0.45))
    pen.polygon([(-1.45, 0.99), (-1.02, 1.33), (-0.72, 1.39), (-0.34, 1.39), (-0.34, 0.98)], GLASS)
    pen.polygon([(-0.24, 0.98), (-0.24, 1.39), (0.08, 1.39), (0.36, 1.31), (0.83, 1.0)], GLASS)
    pen.polygon([(-1.1, 0.99), (-0.72, 1.37), (-0.55, 1.38), (-0.9, 0.98)], lighter(GLASS, 0.4))
    pen.polygon([(0.1, 0.98), (0.3, 1.3), (0.38, 1.28), (0.28, 0.98)], lighter(GLASS, 0.4))
    pen.stroke([(-0.29, 0.3), (-0.29, 0.97)], 0.022, darker(paint, 0.4))
    pen.stroke([(0.86, 0.5), (0.8, 0.97)], 0.022, darker(paint, 0.4))
    pen.stroke([(-0.18, 0.82), (0.02, 0.82)], 0.045, darker(paint, 0.5))
    pen.curve([(1.78, 0.66), (1.95, 0.62), (1.98, 0.73), (1.74, 0.8)], (255, 246, 210))
    pen.curve([(-2.06, 0.68), (-1.9, 0.66), (-1.84, 0.84), (-2.02, 0.86)], (196, 32, 30))
    pen.polygon([(0.98, 0.98), (1.12, 1.0), (1.1, 1.1), (0.96, 1.1)], darker(paint, 0.3))


def _wheel(pen: Pen, x: float, turned: float) -> None:
    pen.ellipse(x, 0.31, (0.32, 0.32), TYRE)
    pen.ellipse(x, 0.31, (0.21, 0.21), (168, 172, 178))
    for spoke in range(5):
        angle = -turned + spoke * 2 * math.pi / 5
        pen.stroke([(x, 0.31), (x + 0.18 * math.cos(angle), 0.31 + 0.18 * math.sin(angle))], 0.045, (84, 88, 96))
    pen.ellipse(x, 0.31, (0.06, 0.06), (58, 60, 66))


def draw_cyclist(pen: Pen, look: Person, frame: Colour, turned: float = 0.0) -> None:
    """Somebody on a bicycle, 1.75 units long, a person and a bicycle; `turned` is the pedals' angle in radians."""
    pen.shadow(0.0, 0.01, (0.95, 0.05))
    pedals = [(0.17 * math.cos(turned + half), 0.28 + 0.17 * math.sin(turned + half)) for half in (math.pi, 0.0)]
    with pen.canvas.drawing("person", "cyclist"):
        _riding_leg(pen, pedals[0], look, behind=True)
    with pen.canvas.drawing("bicycle"):
        _bicycle(pen, frame, pedals, turned)
    with pen.canvas.drawing("person", "cyclist"):
        _riding_leg(pen, pedals[1], look, behind=False)
        _rider(pen, look)


def _bicycle(pen: Pen, frame: Colour, pedals: list[tuple[float, float]], turned: float) -> None:
    for x in (-0.53, 0.55):
        pen.ring(x, 0.33, 0.31, 0.045, TYRE)
        for spoke in range(6):
            angle = -turned + spoke * math.pi / 6
            reach = (0.29 * math.cos(angle), 0.29 * math.sin(angle))
            pen.stroke([(x - reach[0], 0.33 - reach[1]), (x + reach[0], 0.33 + reach[1])], 0.008, (120, 122, 128))
    crank, seat, head = (0.0, 0.28), (-0.2, 0.8), (0.4, 0.82)
    pen.stroke([(-0.53, 0.33), crank, head, (-0.15, 0.7)], 0.045, frame)
    pen.stroke([(-0.53, 0.33), (-0.16, 0.7)], 0.03, frame)
    pen.stroke([crank, seat], 0.045, frame)
    pen.stroke([(0.55, 0.33), head, (0.38, 0.95), (0.5, 0.98)], 0.04, darker(frame, 0.3))
    pen.curve([(-0.34, 0.8), (-0.08, 0.82), (-0.1, 0.87), (-0.32, 0.88)], TYRE)
    pen.ring(*crank, 0.09, 0.03, (70, 72, 78))
    for pedal in pedals:
        pen.stroke([crank, pedal], 0.03, (70, 72, 78))


def _riding_leg(pen: Pen, pedal: tuple[float, float], look: Person, *, behind: bool) -> None:
    cloth = darker(look.trousers, 0.3) if behind else look.trousers
    hip, foot = np.array((-0.18, 0.92)), np.array((pedal[0], pedal[1] + 0.09))
    reach = foot - hip
    length = float(np.hypot(*reach))
    bend = math.sqrt(max(0.42**2 - (length / 2) ** 2, 0.0))
    middle = hip + reach / 2 + bend * np.array((-reach[1], reach[0])) / length
    pen.stroke([tuple(hip), tuple(middle)], 0.17, cloth)
    pen.stroke([tuple(middle), tuple(foot)], 0.125, cloth)
    x, y = pedal
    pen.curve([(x - 0.1, y), (x + 0.13, y), (x + 0.14, y + 0.05), (x - 0.02, y + 0.1), (x - 0.1, y + 0.08)], look.shoes)


def _rider(pen: Pen, look: Person) -> None:
    back = [
        (-0.31, 0.88),
        (-0.1, 0.84),
        (0.02, 1.05),
        (0.2, 1.27),
        (0.2, 1.4),
        (0.08, 1.46),
        (-0.1, 1.32),
        (-0.27, 1.1),
    ]
    pen.curve(back, look.coat)
    pen.stroke([(0.1, 1.38), (0.24, 1.16), (0.46, 1.03)], 0.1, darker(look.coat, 0.12))
    pen.ellipse(0.49, 1.02, (0.05, 0.05), look.skin)
    pen.stroke([(0.15, 1.4), (0.2, 1.5)], 0.085, darker(look.skin, 0.2))
    face = [(0.12, 1.51), (0.2, 1.45), (0.29, 1.47), (0.32, 1.55), (0.3, 1.62), (0.22, 1.68), (0.13, 1.65)]
    pen.curve(face, look.skin)
    helmet = [(0.06, 1.57), (0.2, 1.6), (0.36, 1.61), (0.31, 1.71), (0.2, 1.76), (0.09, 1.71)]
    pen.curve(helmet, (238, 196, 60))
    pen.ellipse(0.265, 1.565, (0.01, 0.013), (40, 30, 30))


def draw_tree(pen: Pen, green: Colour, dice: np.random.Generator) -> None:
    """A tree of five units by three."""
    pen.shadow(-0.3, 0.02, (1.5, 0.12), 0.3)
    bark = (96, 72, 56)
    with pen.canvas.drawing("tree"):
        pen.polygon([(-0.16, 0.0), (0.16, 0.0), (0.09, 1.0), (0.1, 2.4), (-0.1, 2.4), (-0.09, 1.0)], bark)
        pen.polygon([(-0.16, 0.0), (-0.04, 0.0), (-0.02, 2.4), (-0.1, 2.4), (-0.09, 1.0)], darker(bark, 0.35))
        pen.stroke([(0.0, 1.5), (0.55, 2.3)], 0.09, bark)
        pen.stroke([(0.0, 1.7), (-0.5, 2.4)], 0.08, darker(bark))
        crown = [(0.0, 3.4, 1.1), (-0.65, 2.75, 0.68), (0.7, 2.75, 0.62), (-0.5, 3.6, 0.75), (0.55, 3.6, 0.75)]
        for x, y, radius in [*crown, (0.0, 4.2, 0.78)]:
            pen.ellipse(x, y, (radius, radius * 0.95), darker(green, 0.25))
        for _ in range(150):
            x, y = _in_crown(dice)
            light = 0.5 + 0.25 * x + 0.3 * (y - 3.4)
            tone = mixed(darker(green, 0.3), lighter(green, 0.3), min(max(light + dice.normal(0, 0.18), 0.0), 1.0))
            size = dice.uniform(0.1, 0.21)
            pen.ellipse(x, y, (size, size * 0.8), tone)


def _in_crown(dice: np.random.Generator) -> tuple[float, float]:
    turn, reach = dice.uniform(0, 2 * math.pi), math.sqrt(dice.uniform())
    return 1.12 * reach * math.cos(turn), 3.45 + 1.3 * reach * math.sin(turn)
