"""Short clips of coloured handwritten digits that move over photographs and change their colour on the way.

Made of the same real digits and photographs as `scenes.py`. Each digit has a lane of its own, so none hides another.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .scenes import COLOURS, Split, background, digit_samples, paint, render, shade, tight_box

NUM_FRAMES = 8
FPS = 4.0
_TRAVEL = (0.35, 0.9)  # of the way that a digit could go
_TURNS = (2, 7)  # when digits change colour: from the third frame to the last but one
_LANE_GAP_PX = 2


@dataclass(frozen=True)
class MovingDigit:
    """One digit of a clip.

    Attributes:
        label: The digit, 0 to 9.
        colours: Before and after it turns, keys of `COLOURS`.
        turns_at: The first frame in the second colour.
        boxes_xyxy: Per frame the tight box of its strokes, whole pixels, end exclusive.
        size_px: Side of the square that the 8x8 scan was scaled to.
        sample: Index of the scan in `load_digits`.
    """

    label: int
    colours: tuple[str, str]
    turns_at: int
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
    colours = [str(each) for each in rng.permutation(list(COLOURS))[: 2 * wanted]]
    for number in range(wanted):
        size = round(math.exp(rng.uniform(*np.log(sizes_px))))
        size = min(size, lane - _LANE_GAP_PX)
        y = number * lane + int(rng.integers(lane - size + 1))
        before_after = (colours[2 * number], colours[2 * number + 1])
        turns_at = int(rng.integers(*_TURNS))
        pick = int(rng.integers(len(indices)))
        alpha = render(int(indices[pick]), size, rng, jitter)
        shades = [shade(each, rng) for each in before_after]
        boxes = [
            tight_box(paint(frame, alpha, x, y, shades[at >= turns_at]))
            for at, (frame, x) in enumerate(zip(frames, _path(rng, width - size), strict=True))
        ]
        digits.append(MovingDigit(int(labels[pick]), before_after, turns_at, tuple(boxes), size, int(indices[pick])))
    return Clip(frames.round().clip(0, 255).astype(np.uint8), tuple(digits))


def _path(rng: np.random.Generator, room: int) -> list[int]:
    """The left edge in each frame: steady to one side, some way of `room` pixels, from anywhere it fits."""
    travel = room * rng.uniform(*_TRAVEL)
    start = rng.uniform(0, room - travel)
    places = np.linspace(start, start + travel, NUM_FRAMES).round().astype(int).tolist()
    return places if rng.random() < 0.5 else places[::-1]
