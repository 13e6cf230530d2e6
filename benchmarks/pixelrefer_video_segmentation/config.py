"""Options of the benchmarks of expressions about videos."""

import math
from dataclasses import dataclass
from typing import Literal

from pixelrefer_plugin.authoring import check_field

_PHRASE = "{expression}"


@dataclass(frozen=True)
class VideoConfig:
    """How a model is asked for the mask of an expression.

    Attributes:
        question: the template of the question; `{expression}` is the expression.
        frames: the most frames of a video that a model is asked on, spread evenly. Frames between them get the mask of
            the nearest one of these.
        fps: how many of the listed frames there are to a second.
        images: folder of the videos, `<video>/<frame>.jpg`, where it is not below the benchmark's as it is published.
        official_workers: how many processes the official code scores with. One that misses a picture dies, and leaves
            the expression out; so the official reading is undefined where as many are missed, but for one process.
    """

    question: str = "Segment {expression}."
    frames: int = 128
    fps: float = 6.0
    images: str | None = None
    official_workers: int = 128

    def __post_init__(self) -> None:
        has_phrase = isinstance(self.question, str) and self.question.count(_PHRASE) == 1
        check_field(has_phrase, self, "question", f"a text with one {_PHRASE}")
        for name in ("frames", "official_workers"):
            value = getattr(self, name)
            is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 1
            check_field(is_count, self, name, "an integer >= 1")
        check_field(isinstance(self.fps, int | float) and 0 < self.fps < math.inf, self, "fps", "a number > 0")
        check_field(self.images is None or isinstance(self.images, str), self, "images", "a folder")


@dataclass(frozen=True)
class MevisConfig(VideoConfig):
    """As `VideoConfig`.

    Attributes:
        split: `valid_u`, whose masks are public, or `valid`, which a server scores.
    """

    split: Literal["valid_u", "valid"] = "valid_u"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_field(self.split in ("valid_u", "valid"), self, "split", "valid_u or valid")


@dataclass(frozen=True)
class RefYoutubeVosConfig(VideoConfig):
    """As `VideoConfig`."""


@dataclass(frozen=True)
class RefDavisConfig(VideoConfig):
    """As `VideoConfig`. The frames are DAVIS's own, 24 to a second."""

    fps: float = 24.0


@dataclass(frozen=True)
class RevosConfig(VideoConfig):
    """As `VideoConfig`.

    Attributes:
        sentence: the template for expressions that are questions themselves.
        official_value: what a set pixel is in the pictures that the official code reads; its accuracy and robustness
            depend on it. By default as the pictures have it, and 255 where answers are none: UniPixel writes that.
    """

    sentence: str = "{expression} Answer with the mask."
    official_value: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        has_phrase = isinstance(self.sentence, str) and self.sentence.count(_PHRASE) == 1
        check_field(has_phrase, self, "sentence", f"a text with one {_PHRASE}")
        is_value = self.official_value is None or self.official_value in range(1, 256)
        check_field(is_value, self, "official_value", "an integer from 1 to 255")


@dataclass(frozen=True)
class RefSavConfig(VideoConfig):
    """As `VideoConfig`. The expressions are descriptions of several words or sentences."""

    question: str = "Segment the object that this describes: {expression}"
