"""What the quickstart asks: about a digit of a picture, or about one that moves through a clip."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from ..regions import Region, VideoRegion
from .clips import FPS, NUM_FRAMES, Clip, make_clip
from .scenes import Scene, Split, make_scene

# Smallest size in a band and the first beyond it, in pixels.
_SIZE_BANDS_PX = {
    "small (< 16 px)": (0, 16),
    "medium (16 to 32 px)": (16, 33),
    "large (> 32 px)": (33, math.inf),
}


@dataclass(frozen=True, eq=False)
class Asked:
    """One thing asked: the region, the true answer, and the size of the digit in pixels."""

    region: Region | VideoRegion
    answer: str
    size_px: int


@dataclass(frozen=True, eq=False)
class Example:
    """A scene or a clip as part of a message, and what is asked about it."""

    source: Scene | Clip
    part: dict[str, Any]
    asked: tuple[Asked, ...]


@dataclass(eq=False)
class Answers:
    """What the model answered about held-out regions.

    Attributes:
        examples: the examples asked about.
        texts: per example, the answer to each thing asked.
    """

    examples: Sequence[Example]
    texts: list[list[str]] = field(default_factory=list)

    def share(self, right: Callable[[str, Asked], bool], among: Callable[[Asked], bool] = lambda asked: True) -> float:
        """Share of answers that are `right`, among the questions that count; nan where none does."""
        judged = [
            right(text, asked)
            for example, texts in zip(self.examples, self.texts, strict=True)
            for asked, text in zip(example.asked, texts, strict=True)
            if among(asked)
        ]
        return sum(judged) / len(judged) if judged else math.nan


class Task(Protocol):
    """A task of the quickstart."""

    question: str
    about: str  # what is asked about, for headings
    steps: int  # of training, by default
    backbone_rate: float  # learning rate of LoRA or the backbone, as a share of the adapter's

    def example(self, split: Split, rng: np.random.Generator, *, jitter: float) -> Example:
        """A new example."""

    def accuracy(self, answers: Answers) -> dict[str, float]:
        """The share of right answers, `all` and by what matters for this task."""

    def controls(self, examples: Sequence[Example]) -> dict[str, list[Example]]:
        """The same examples with less to go by, under the name of the accuracy to compare: `all` or another."""


class WhichDigit:
    """Which digit is the region of a picture?"""

    question = "which digit is <region>?"
    about = "digits"
    steps = 400
    backbone_rate = 1 / 3

    def example(self, split: Split, rng: np.random.Generator, *, jitter: float) -> Example:
        """A scene of several digits, each asked about by its box."""
        scene = make_scene(split, rng, jitter=jitter)
        asked = [Asked(Region.from_box(each.box_xyxy), str(each.label), each.size_px) for each in scene.digits]
        return Example(scene, {"type": "image", "image": scene.image_hwc}, tuple(asked))

    def accuracy(self, answers: Answers) -> dict[str, float]:
        """Over all digits, and by their size."""
        bands = {
            band: answers.share(_is_right, lambda asked, low=low, end=end: low <= asked.size_px < end)  # type: ignore[misc]
            for band, (low, end) in _SIZE_BANDS_PX.items()
        }
        return {"all": answers.share(_is_right), **bands}

    def controls(self, examples: Sequence[Example]) -> dict[str, list[Example]]:
        """None."""
        return {}


class WhatItTurns:
    """Which digit is the object of a clip, and what colour does it turn? The latter takes frames from either side."""

    question = "which digit is <region>, and what colour does it turn?"
    about = "moving digits"
    steps = 600  # the loss stays on a plateau until the two frames are told apart; when that happens varies
    backbone_rate = 1.0

    def example(self, split: Split, rng: np.random.Generator, *, jitter: float) -> Example:
        """A clip of several digits, each pointed at on two frames: one before it turns, and one after."""
        clip = make_clip(split, rng, jitter=jitter)
        asked = []
        for digit in clip.digits:
            frames = (int(rng.integers(digit.turns_at)), int(rng.integers(digit.turns_at, NUM_FRAMES)))
            region = VideoRegion({frame: Region.from_box(digit.boxes_xyxy[frame]) for frame in frames})
            asked.append(Asked(region, f"{digit.label} {digit.colours[1]}", digit.size_px))
        return Example(clip, {"type": "video", "video": clip.frames_nhwc, "fps": FPS}, tuple(asked))

    def accuracy(self, answers: Answers) -> dict[str, float]:
        """Both right, and either."""
        return {
            "all": answers.share(_is_right),
            "digit": answers.share(lambda text, asked: text.split(" ")[0] == asked.answer.split(" ")[0]),
            "colour": answers.share(lambda text, asked: text.split(" ")[-1] == asked.answer.split(" ")[-1]),
        }

    def controls(self, examples: Sequence[Example]) -> dict[str, list[Example]]:
        """Each object pointed at on its first frame only, where it still has its first colour."""
        return {"colour": [replace(each, asked=tuple(map(_on_first_frame, each.asked))) for each in examples]}


def _is_right(text: str, asked: Asked) -> bool:
    return text == asked.answer


def _on_first_frame(asked: Asked) -> Asked:
    assert isinstance(asked.region, VideoRegion)
    return replace(asked, region=VideoRegion(dict([next(iter(asked.region.frames.items()))])))
