"""Short clips of coloured handwritten digits that move to the left or to the right over photographs.

Made of the same real digits and photographs as `scenes.py`. Each digit has a lane of its own, so none hides another.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .scenes import COLOURS, Question, Split, background, digit_samples, paint, render, shade, tight_box

Direction = Literal["left", "right"]
DIRECTIONS: tuple[Direction, ...] = ("left", "right")

NUM_FRAMES = 8
FPS = 4.0
_TRAVEL = (0.35, 0.9)  # of the way that a digit could go
_LANE_GAP_PX = 2


@dataclass(frozen=True)
class MovingDigit:
    """One digit of a clip.

    Attributes:
        label: The digit, 0 to 9.
        colour: A key of `COLOURS`.
        direction: Where it moves.
        boxes_xyxy: Per frame the tight box of its strokes, whole pixels, end exclusive.
        size_px: Side of the square that the 8x8 scan was scaled to.
        sample: Index of the scan in `load_digits`.
    """

    label: int
    colour: str
    direction: Direction
    boxes_xyxy: tuple[tuple[int, int, int, int], ...]
    size_px: int
    sample: int


@dataclass(frozen=True)
class Clip:
    """Frames, RGB uint8 `(n, h, w, 3)`, `FPS` a second, and the digits that move through them."""

    frames_nhwc: NDArray[np.uint8]
    digits: tuple[MovingDigit, ...]


def make_clip(
    split: Split,
    rng: np.random.Generator,
    *,
    picture_hw: tuple[int, int] = (112, 112),
    num_digits: tuple[int, int] = (2, 3),
    sizes_px: tuple[float, float] = (10, 36),
    jitter: float = 0.0,
) -> Clip:
    """Draws a clip.

    Args:
        split: Which digit samples, and which part of the photographs, to draw from.
        rng: The only source of randomness.
        picture_hw: Height and width of the frames in pixels.
        num_digits: Fewest and most digits, both inclusive.
        sizes_px: Smallest and largest digit, log-uniform between; no larger than its lane.
        jitter: As in `make_scene`.
    """
    height, width = picture_hw
    still = background(split, rng, picture_hw)
    frames = np.repeat(still[None], NUM_FRAMES, axis=0)
    indices, labels = digit_samples(split)
    wanted = int(rng.integers(num_digits[0], num_digits[1] + 1))
    lane = height // wanted
    digits = []
    for number, colour in enumerate(rng.permutation(list(COLOURS))[:wanted]):
        size = round(math.exp(rng.uniform(*np.log(sizes_px))))
        size = min(size, lane - _LANE_GAP_PX)
        y = number * lane + int(rng.integers(lane - size + 1))
        direction = DIRECTIONS[int(rng.integers(2))]
        pick = int(rng.integers(len(indices)))
        alpha, rgb = render(int(indices[pick]), size, rng, jitter), shade(str(colour), rng)
        places = _path(rng, width - size, direction)
        masks = [paint(frame, alpha, x, y, rgb) for frame, x in zip(frames, places, strict=True)]
        boxes = tuple(tight_box(mask) for mask in masks)
        digits.append(MovingDigit(int(labels[pick]), str(colour), direction, boxes, size, int(indices[pick])))
    return Clip(frames.round().clip(0, 255).astype(np.uint8), tuple(digits))


def motion_question(clip: Clip) -> Question:
    """A question about a whole clip: where each colour moves, in the order of `COLOURS`."""
    moves = {digit.colour: digit.direction for digit in clip.digits}
    answer = " ".join(f"{colour} {moves[colour]}" for colour in COLOURS if colour in moves)
    return Question("motion", "where does each colour move?", answer)


def _path(rng: np.random.Generator, room: int, direction: Direction) -> list[int]:
    """The left edge in each frame: steady, some way of `room` pixels, from anywhere it fits."""
    travel = room * rng.uniform(*_TRAVEL)
    start = rng.uniform(0, room - travel)
    places = np.linspace(start, start + travel, NUM_FRAMES).round().astype(int).tolist()
    return places if direction == "right" else places[::-1]
