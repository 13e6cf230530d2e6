"""Pictures of several coloured handwritten digits on photographs, and true answers about them.

Everything in a picture is real: the digits are scikit-learn's `load_digits` (8x8 scans of handwriting), the
backgrounds are the photographs that scikit-image and scikit-learn carry inside their wheels, so nothing is
downloaded. Knows nothing of any model, and asks nothing about regions: a base trained on these questions has
still to learn what a region is.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Split = Literal["train", "held-out"]
SPLITS: tuple[Split, ...] = ("train", "held-out")

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (235, 45, 45),
    "green": (50, 215, 70),
    "blue": (80, 125, 255),
    "yellow": (250, 230, 60),
    "pink": (245, 105, 225),
    "white": (245, 245, 245),
}
WHICH_DIGITS = "which digits are there?"
WHICH_COLOURS = "which colours are there?"
HOW_MANY = "how many digits are there?"

_SPLIT_SEED = 20260101  # never change: the shipped base has seen the train samples of exactly this split
_NUM_HELD_OUT = 400
_HELD_OUT_STRIP = 0.25  # of each photograph's width, at its right; a twentieth between the strips is not used
_PHOTOGRAPH_GAIN = 0.55  # photographs are darkened so that strokes stay legible
_STROKE_THRESHOLD = 0.5
_CLEARLY_LARGER = 1.25
_SOURCE_PX = 8
_PAD_PX = 2  # zeros around the 8x8 scan, so that rotated strokes are not cut off


@dataclass(frozen=True)
class Digit:
    """One digit of a scene, in original pixels of the picture.

    Attributes:
        label: The digit, 0 to 9.
        colour: A key of `COLOURS`.
        box_xyxy: Tight box of the strokes, whole pixels, end exclusive.
        mask_hw: Strokes, bool, as large as the picture.
        size_px: Side of the square that the 8x8 scan was scaled to; `box_xyxy` lies about within it.
        sample: Index of the scan in `load_digits`.
    """

    label: int
    colour: str
    box_xyxy: tuple[int, int, int, int]
    mask_hw: NDArray[np.bool_]
    size_px: int
    sample: int


@dataclass(frozen=True)
class Scene:
    """A picture, RGB uint8 `(h, w, 3)`, and the digits in it."""

    image_hwc: NDArray[np.uint8]
    digits: tuple[Digit, ...]


@dataclass(frozen=True)
class Question:
    """A question about a whole scene and its true answer; `kind` groups questions in reports."""

    kind: str
    text: str
    answer: str


@cache
def digit_samples(split: Split) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices into `load_digits` and labels of one split; 400 samples, stratified, are held out for good."""
    labels = _digit_scans()[1]
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(labels))
    held_out = np.concatenate([order[labels[order] == label][: _NUM_HELD_OUT // 10] for label in range(10)])
    indices = held_out if split == "held-out" else np.setdiff1d(np.arange(len(labels)), held_out)
    return indices, labels[indices]


def make_scene(
    split: Split,
    rng: np.random.Generator,
    *,
    picture_hw: tuple[int, int] = (112, 112),
    num_digits: tuple[int, int] = (3, 6),
    sizes_px: tuple[float, float] = (8, 56),
    jitter: float = 0.0,
) -> Scene:
    """Draws a scene.

    Args:
        split: Which digit samples, and which part of the photographs, to draw from.
        rng: The only source of randomness.
        picture_hw: Height and width of the picture in pixels.
        num_digits: Fewest and most digits, both inclusive. A crowded picture may end with fewer, never none.
        sizes_px: Smallest and largest digit; sizes are log-uniform between them, so small ones are common.
        jitter: Strength of random rotation, shear, stretch and stroke weight; 0 renders scans as they are.

    Raises:
        ValueError: The smallest digit does not fit the picture.
    """
    smallest, largest = sizes_px[0], min(sizes_px[1], *picture_hw)
    if smallest > largest:
        raise ValueError(f"make_scene: a digit of {smallest} px does not fit a picture of {picture_hw} (h, w).")
    canvas = background(split, rng, picture_hw)
    indices, labels = digit_samples(split)
    wanted = int(rng.integers(num_digits[0], num_digits[1] + 1))
    sizes = np.exp(rng.uniform(math.log(smallest), math.log(largest), wanted)).round().astype(int)
    squares = free_squares(rng, picture_hw, np.sort(sizes)[::-1])
    colours = rng.permutation(list(COLOURS)) if wanted <= len(COLOURS) else rng.choice(list(COLOURS), wanted)
    digits = []
    for (x, y, size), colour in zip(squares, colours, strict=False):
        pick = int(rng.integers(len(indices)))
        alpha = render(int(indices[pick]), size, rng, jitter)
        mask = paint(canvas, alpha, x, y, shade(str(colour), rng))
        digits.append(Digit(int(labels[pick]), str(colour), tight_box(mask), mask, size, int(indices[pick])))
    return Scene(canvas.round().clip(0, 255).astype(np.uint8), tuple(digits))


def largest_digit(scene: Scene) -> Digit | None:
    """The digit with the most pixels; None where the next one has nearly as many."""
    largest, *others = sorted(scene.digits, key=lambda digit: int(digit.mask_hw.sum()), reverse=True)
    clear = all(largest.mask_hw.sum() >= _CLEARLY_LARGER * other.mask_hw.sum() for other in others[:1])
    return largest if others and clear else None


def scene_questions(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Questions about a whole scene in random order, none of which gives away the answer of another one.

    Each digit that a unique colour or a unique label singles out is asked about once, by colour or by label.
    """
    colours = [digit.colour for digit in scene.digits]
    labels = [digit.label for digit in scene.digits]
    names = [name for name in COLOURS if name in colours]
    questions = [
        Question("digits", WHICH_DIGITS, " ".join(map(str, sorted(set(labels))))),
        Question("colours", WHICH_COLOURS, " ".join(names)),
        Question("count", HOW_MANY, str(len(scene.digits))),
    ]
    for digit in scene.digits:
        by_colour = Question("digit of colour", f"which digit is {digit.colour}?", str(digit.label))
        by_label = Question("colour of digit", f"what colour is the {digit.label}?", digit.colour)
        choices = [by_colour] * (colours.count(digit.colour) == 1) + [by_label] * (labels.count(digit.label) == 1)
        if choices:
            questions.append(choices[int(rng.integers(len(choices)))])
    return [questions[i] for i in rng.permutation(len(questions))]


@cache
def _digit_scans() -> tuple[tuple[Image.Image, ...], NDArray[np.int64]]:
    """Padded scans, float images 0 to 1, and their labels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    padded = np.pad(digits.images / digits.images.max(), ((0, 0), (_PAD_PX, _PAD_PX), (_PAD_PX, _PAD_PX)))
    return tuple(Image.fromarray(scan.astype(np.float32)) for scan in padded), digits.target.astype(np.int64)


@cache
def _photographs(split: Split) -> tuple[Image.Image, ...]:
    """The split's part of every photograph: left of the unused gap for train, right of it for held-out."""
    from skimage import data
    from sklearn.datasets import load_sample_image

    arrays = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket(), data.stereo_motorcycle()[0]]
    arrays += [load_sample_image("china.jpg"), load_sample_image("flower.jpg")]
    parts = []
    for array in arrays:
        width = array.shape[1]
        first = round(width * (1 - _HELD_OUT_STRIP))
        part = array[:, first:] if split == "held-out" else array[:, : first - width // 20]
        parts.append(Image.fromarray(np.ascontiguousarray(part)))
    return tuple(parts)


def background(split: Split, rng: np.random.Generator, picture_hw: tuple[int, int]) -> NDArray[np.float32]:
    """A random crop of a random photograph at a random zoom, darkened."""
    photographs = _photographs(split)
    photograph = photographs[int(rng.integers(len(photographs)))]
    height, width = picture_hw
    widest = min(photograph.width / width, photograph.height / height)
    zoom = math.exp(rng.uniform(math.log(min(0.5, widest)), math.log(min(2.0, widest))))
    x = rng.uniform(0, photograph.width - width * zoom)
    y = rng.uniform(0, photograph.height - height * zoom)
    box = (x, y, min(x + width * zoom, photograph.width), min(y + height * zoom, photograph.height))
    crop = photograph.resize((width, height), Image.Resampling.BILINEAR, box=box)
    return np.asarray(crop, dtype=np.float32) * _PHOTOGRAPH_GAIN


def free_squares(
    rng: np.random.Generator, picture_hw: tuple[int, int], sizes: NDArray[np.int64], tries: int = 20
) -> list[tuple[int, int, int]]:
    """Squares `(x, y, size)` that do not overlap, largest first; one without room shrinks, then goes."""
    height, width = picture_hw
    placed: list[tuple[int, int, int]] = []
    for wanted in sizes.tolist():
        for attempt in range(tries):
            size = max(wanted * (tries - attempt) // tries, int(sizes[-1]))
            x, y = int(rng.integers(width - size + 1)), int(rng.integers(height - size + 1))
            if all(x + size <= a or a + s <= x or y + size <= b or b + s <= y for a, b, s in placed):
                placed.append((x, y, size))
                break
    return placed


def render(sample: int, size: int, rng: np.random.Generator, jitter: float) -> NDArray[np.float32]:
    """Opacity `(size, size)` of one digit: its scan, bicubically enlarged."""
    matrix = np.eye(2) * (_SOURCE_PX / size)
    gain = 1.3
    if jitter:
        angle, shear, stretch_x, stretch_y, weight = rng.uniform(-1, 1, 5) * jitter
        turn = np.array(
            [
                [math.cos(0.25 * angle), -math.sin(0.25 * angle)],
                [math.sin(0.25 * angle), math.cos(0.25 * angle)],
            ]
        )
        matrix = (
            turn @ np.array([[1, 0.2 * shear], [0, 1]]) @ np.diag(np.exp([0.15 * stretch_x, 0.15 * stretch_y])) @ matrix
        )
        gain *= math.exp(0.3 * weight)
    centre = _PAD_PX + _SOURCE_PX / 2
    shift = centre - matrix @ np.full(2, size / 2)
    coefficients = (*matrix[0], shift[0], *matrix[1], shift[1])
    scan = _digit_scans()[0][sample]
    drawn = scan.transform((size, size), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC)
    return np.clip(np.asarray(drawn) * gain, 0, 1)


def shade(colour: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """A slightly different hue of a named colour for each digit."""
    return np.clip(np.array(COLOURS[colour]) + rng.uniform(-15, 15, 3), 0, 255)


def paint(
    canvas: NDArray[np.float32], alpha: NDArray[np.float32], x: int, y: int, rgb: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Blends strokes into the canvas in place; returns where they cover it, as large as the canvas."""
    rows, columns = slice(y, y + alpha.shape[0]), slice(x, x + alpha.shape[1])
    window = canvas[rows, columns]
    window += alpha[..., None] * (rgb.astype(np.float32) - window)
    mask = np.zeros(canvas.shape[:2], dtype=bool)
    # Every scan holds a full-strength pixel, but the faintest may miss the threshold between pixel centres.
    mask[rows, columns] = alpha >= min(_STROKE_THRESHOLD, float(alpha.max()))
    return mask


def tight_box(mask_hw: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask_hw.any(1)), np.flatnonzero(mask_hw.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
