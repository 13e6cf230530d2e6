"""What the quickstart asks: about a digit of a picture, about one that moves through a clip, or for masks."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from ..contracts.messages import MASK_MARKER
from ..evaluation.metrics.masks import MaskScores
from ..regions.region import Region, VideoRegion
from .clips import FPS, NUM_FRAMES, Clip, make_clip
from .scenes import Digit, Scene, Split, largest_digit, make_scene

# Smallest size in a band and the first beyond it, in pixels.
_SIZE_BANDS_PX = {
    "small (< 16 px)": (0, 16),
    "medium (16 to 32 px)": (16, 33),
    "large (> 32 px)": (33, math.inf),
}


@dataclass(frozen=True, eq=False)
class Asked:
    """One thing asked.

    Attributes:
        question: with `<region>` where the region is meant.
        answer: what is right; `<seg>` in it stands for the mask.
        size_px: of the digit, in pixels.
        region: what is asked about; None where words say it.
        mask: of the digit, where the answer gives one.
        kind: what is measured together.
        found_by: an earlier question; a model is asked about the mask that it has answered there, in place of `region`.
    """

    question: str
    answer: str
    size_px: int
    region: Region | VideoRegion | None = None
    mask: Region | None = None
    kind: str = ""
    found_by: Asked | None = None


@dataclass(frozen=True, eq=False)
class Example:
    """A scene or a clip as part of a message, and what is asked about it."""

    source: Scene | Clip
    part: dict[str, Any]
    asked: tuple[Asked, ...]


@dataclass(frozen=True)
class Given:
    """What the model answered: words, and the first mask among them."""

    text: str
    mask: Region | None = None


@dataclass(frozen=True)
class Answers:
    """What the model answered about held-out examples.

    Attributes:
        examples: the examples asked about.
        given: per example, the answer to each thing asked.
    """

    examples: Sequence[Example]
    given: Sequence[Sequence[Given]]

    def pairs(self) -> Iterator[tuple[Asked, Given]]:
        """All that was asked, with its answer."""
        for example, given in zip(self.examples, self.given, strict=True):
            yield from zip(example.asked, given, strict=True)

    def share(
        self, right: Callable[[Given, Asked], bool], among: Callable[[Asked], bool] = lambda asked: True
    ) -> float:
        """Share of answers that are `right`, among the questions that count; nan where none does."""
        judged = [right(given, asked) for asked, given in self.pairs() if among(asked)]
        return sum(judged) / len(judged) if judged else math.nan


@dataclass(frozen=True)
class Stage:
    """A part of a training, with a schedule of its own.

    Attributes:
        rates: learning rates as shares of the adapter's: of `backbone`, and of parts of the adapter.
        share: of all steps.
        kinds: what is asked meanwhile; None: everything.
    """

    rates: Mapping[str, float]
    share: float = 1.0
    kinds: tuple[str, ...] | None = None


class Task(Protocol):
    """A task of the quickstart."""

    title: str
    about: str  # what is asked about, for headings
    steps: int  # of training, by default
    stages: Sequence[Stage]  # of training, one after another

    def example(self, split: Split, rng: np.random.Generator, *, jitter: float) -> Example:
        """A new example."""

    def lesson(self, example: Example, rng: np.random.Generator) -> list[Asked]:
        """What one training conversation asks about an example, in order."""

    def scores(self, answers: Answers) -> dict[str, float]:
        """How good the answers are, from 0 to 1: by name, what matters most first."""

    def controls(self, examples: Sequence[Example]) -> dict[str, list[Example]]:
        """The same examples with less to go by, under the name of the score to compare."""


class WhichDigit:
    """Which digit is the region of a picture?"""

    title = "which digit is <region>?"
    about = "digits"
    steps = 400
    stages: Sequence[Stage] = (Stage({"backbone": 1 / 3}),)

    def example(self, split: Split, rng: np.random.Generator, *, jitter: float) -> Example:
        """A scene of several digits, each asked about by its box."""
        scene = make_scene(split, rng, jitter=jitter)
        asked = [
            Asked(self.title, str(each.label), each.size_px, Region.from_box(each.box_xyxy)) for each in scene.digits
        ]
        return Example(scene, _image_part(scene), tuple(asked))

    def lesson(self, example: Example, rng: np.random.Generator) -> list[Asked]:
        """All digits in turn."""
        return _shuffled(example.asked, rng)

    def scores(self, answers: Answers) -> dict[str, float]:
        """Over all digits, and by their size."""
        bands = {
            band: answers.share(_is_right, lambda asked, low=low, end=end: low <= asked.size_px < end)  # type: ignore[misc]
            for band, (low, end) in _SIZE_BANDS_PX.items()
        }
        return {"all": answers.share(_is_right), **bands}

    def controls(self, examples: Sequence[Example]) -> dict[str, list[Example]]:
        """None."""
        return {}


class WhichDigitInWords(WhichDigit):
    """Which digit is the region? Of a model that knows words, and answers in sentences unless it is told not to."""

    title = "Which digit is <region>? Answer with the digit alone."
    steps = 200
    stages: Sequence[Stage] = (Stage({"backbone": 1 / 5}),)


_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_NUMBERS = re.compile(rf"\b(?:\d+|{'|'.join(_NUMBER_WORDS)})\b", re.IGNORECASE)


def digit_in(text: str) -> str:
    """The digit that a text names, as a numeral or in words; the text itself where it names none or several."""
    found = {each.lower() for each in _NUMBERS.findall(text)}
    named = {str(_NUMBER_WORDS.index(each)) if each in _NUMBER_WORDS else each for each in found}
    only = next(iter(named)) if len(named) == 1 else ""
    return only if len(only) == 1 else text.strip()


class WhatItTurns:
    """Which digit is the object of a clip, and what colour does it turn? The latter takes frames from either side."""

    title = "which digit is <region>, and what colour does it turn?"
    about = "moving digits"
    steps = 600  # the loss stays on a plateau until the two frames are told apart; when that happens varies
    stages: Sequence[Stage] = (Stage({"backbone": 1.0}),)

    def example(self, split: Split, rng: np.random.Generator, *, jitter: float) -> Example:
        """A clip of several digits, each pointed at on two frames: one before it turns, and one after."""
        clip = make_clip(split, rng, jitter=jitter)
        asked = []
        for digit in clip.digits:
            frames = (int(rng.integers(digit.turns_at)), int(rng.integers(digit.turns_at, NUM_FRAMES)))
            region = VideoRegion({frame: Region.from_box(digit.boxes_xyxy[frame]) for frame in frames})
            asked.append(Asked(self.title, f"{digit.label} {digit.colours[1]}", digit.size_px, region))
        return Example(clip, {"type": "video", "video": clip.frames_nhwc, "fps": FPS}, tuple(asked))

    def lesson(self, example: Example, rng: np.random.Generator) -> list[Asked]:
        """All digits in turn."""
        return _shuffled(example.asked, rng)

    def scores(self, answers: Answers) -> dict[str, float]:
        """Both right, and either."""
        return {
            "all": answers.share(_is_right),
            "digit": answers.share(lambda given, asked: given.text.split(" ")[0] == asked.answer.split(" ")[0]),
            "colour": answers.share(lambda given, asked: given.text.split(" ")[-1] == asked.answer.split(" ")[-1]),
        }

    def controls(self, examples: Sequence[Example]) -> dict[str, list[Example]]:
        """Each object pointed at on its first frame only, where it still has its first colour."""
        return {"colour": [replace(each, asked=tuple(map(_on_first_frame, each.asked))) for each in examples]}


class FindAndName:
    """Clicks and earlier masks in, masks and words out.

    Args:
        kinds: what is asked, of `KINDS`. Where masks are not asked for, those of `memory` are the true ones.
    """

    KINDS = ("click", "segment", "largest", "memory")

    title = "clicks and masks in, words and masks out"
    about = "digits"
    steps = 1200
    # As published, clicks come first, on the decoder as it is: LoRA unlearns where things are before they are learnt.
    CLICKS = Stage({"backbone": 0.0, "adapter.mask_decoder": 0.0}, share=0.25, kinds=("click",))
    ALL = Stage({"backbone": 0.15, "adapter.mask_decoder": 0.1}, share=0.75)

    def __init__(self, kinds: Sequence[str] = KINDS) -> None:
        self.kinds = tuple(kinds)
        self.stages: Sequence[Stage] = (
            (self.CLICKS, self.ALL) if "click" in self.kinds else (replace(self.ALL, share=1.0),)
        )

    def example(self, split: Split, rng: np.random.Generator, *, jitter: float) -> Example:
        """A scene of digits that a mask can show, each asked about in every way; another where that is in none."""
        asked: list[Asked] = []
        while not asked:
            scene = make_scene(split, rng, num_digits=(2, 4), sizes_px=(20, 56), jitter=jitter)
            asked = [each for each in self._questions(scene, rng) if each.kind in self.kinds]
        return Example(scene, _image_part(scene), tuple(asked))

    def _questions(self, scene: Scene, rng: np.random.Generator) -> Iterator[Asked]:
        labels = [digit.label for digit in scene.digits]
        for digit in scene.digits:
            yield from self._about(digit, rng, named=labels.count(digit.label) == 1)
        largest = largest_digit(scene)
        if largest is not None:
            question = "segment the largest digit and say which it is"
            yield _asked(largest, question, f"{largest.label} {MASK_MARKER}", "largest", finds=True)

    def _about(self, digit: Digit, rng: np.random.Generator, *, named: bool) -> Iterator[Asked]:
        question, label = "which digit is <region>?", str(digit.label)
        ys, xs = np.nonzero(digit.mask_hw)
        one = int(rng.integers(len(xs)))
        click = Region.from_points([(int(xs[one]), int(ys[one]))])
        yield _asked(digit, question, label, "click", region=click)
        if named:
            segment = _asked(digit, f"segment the digit {label}", MASK_MARKER, "segment", finds=True)
            yield segment
            found_by = segment if "segment" in self.kinds else None
            yield _asked(digit, question, label, "memory", region=segment.mask, found_by=found_by)

    def lesson(self, example: Example, rng: np.random.Generator) -> list[Asked]:
        """Half of all that can be asked."""
        asked = _shuffled(example.asked, rng)
        return asked[: (len(asked) + 1) // 2]

    def scores(self, answers: Answers) -> dict[str, float]:
        """Words right, by kind; and how well masks overlap."""

        def right(kind: str) -> float:
            return answers.share(_is_right, lambda asked: asked.kind == kind)

        return {
            "click: which digit": right("click"),
            "mask of an earlier answer: which digit": right("memory"),
            "segment the digit X, cIoU": _ciou(answers, "segment"),
            "segment the largest, cIoU": _ciou(answers, "largest"),
            "say which the largest is": right("largest"),
        }

    def controls(self, examples: Sequence[Example]) -> dict[str, list[Example]]:
        """None."""
        return {}


def _asked(digit: Digit, question: str, answer: str, kind: str, *, finds: bool = False, **options: Any) -> Asked:
    mask = Region.from_mask(digit.mask_hw) if finds else None
    return Asked(question, answer, digit.size_px, mask=mask, kind=kind, **options)


def _ciou(answers: Answers, kind: str) -> float:
    """Intersections of all masks of a kind over their unions; one that was not given counts as empty."""
    scores = MaskScores()
    for example, all_given in zip(answers.examples, answers.given, strict=True):
        assert isinstance(example.source, Scene)
        height, width = example.source.image_hwc.shape[:2]
        for asked, given in zip(example.asked, all_given, strict=True):
            if asked.kind == kind:
                found, true = (
                    None if region is None else region.to_mask((height, width)) for region in (given.mask, asked.mask)
                )
                scores.add(found, true)
    return scores.ciou if scores.overlaps else math.nan


def _image_part(scene: Scene) -> dict[str, Any]:
    return {"type": "image", "image": scene.image_hwc}


def _shuffled(asked: Sequence[Asked], rng: np.random.Generator) -> list[Asked]:
    return [asked[index] for index in rng.permutation(len(asked))]


def _is_right(given: Given, asked: Asked) -> bool:
    return given.text == asked.answer


def _on_first_frame(asked: Asked) -> Asked:
    assert isinstance(asked.region, VideoRegion)
    return replace(asked, region=VideoRegion(dict([next(iter(asked.region.frames.items()))])))
