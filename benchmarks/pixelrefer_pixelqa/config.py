"""Options of PixelQA."""

import math
from dataclasses import dataclass
from typing import Literal

from pixelrefer_plugin.authoring import check_field

Mark = Literal["point", "box", "mixed"]
_MARKS = ("point", "box", "mixed")


@dataclass(frozen=True)
class PixelQAConfig:
    """How objects are pointed at, and how the question is asked.

    Attributes:
        mark: each object is pointed at by a `point`, a `box`, or half of them each (`mixed`).
        question: the template of the question; `{question}` is the record's, `{options}` its options, a line each.
        images: folder of the videos, from the benchmark's.
        folder_fps: frames per second of videos that are folders of frames.
    """

    mark: Mark = "point"
    question: str = "{question}\n{options}\nAnswer with the letter of the right option."
    images: str = "videos"
    folder_fps: float = 3.0

    def __post_init__(self) -> None:
        check_field(self.mark in _MARKS, self, "mark", f"one of {', '.join(_MARKS)}")
        is_template = isinstance(self.question, str) and all(
            self.question.count(field) == 1 for field in ("{question}", "{options}")
        )
        check_field(is_template, self, "question", "a text with one {question} and one {options}")
        check_field(isinstance(self.images, str) and bool(self.images), self, "images", "a folder")
        is_rate = isinstance(self.folder_fps, int | float) and 0 < self.folder_fps < math.inf
        check_field(is_rate, self, "folder_fps", "a number > 0")
