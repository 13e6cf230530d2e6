"""`Question` and `Answer`: what a model is asked in a measurement, what is expected, and what it said.

They know no model and no file format; benchmarks and held-out files make questions, an engine answers them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import EvaluationError, shown
from ..regions.region import Region, VideoRegion
from .messages import read_turns
from .samples import RegionSample


@dataclass(frozen=True, eq=False, kw_only=True)
class Question:
    """One question, and what is known about the right answer.

    Attributes:
        id: unique among the questions of its benchmark or file. Answers are matched by it.
        asked: what is asked: a conversation that ends with a message of the user, with the regions that it shows.
        references: right answers, in words; one or more for a question that is scored by words. May be empty.
        targets: masks that are expected, in order. May be empty.
        segment: whether the model is asked for masks; an answer without any may be right.
        localize: whether the objects that it points at are found first, and the question is asked with their masks at
            hand (`pixel_qa`); with `segment` alone. The answer then has a mask for each region, in the order of the
            `<region>`s.
        type: kind of question, such as `relation`. Figures are also given for each type. May be empty.
        facts: what else the scores need, by the benchmark's own keys, such as the options of a multiple choice.
    """

    id: str
    asked: RegionSample
    references: tuple[str, ...] = ()
    targets: tuple[Region | VideoRegion, ...] = ()
    segment: bool = False
    localize: bool = False
    type: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.localize and not self.segment:
            raise EvaluationError(
                f"Question {shown(self.id)} has localize=True, which needs segment=True: it asks for masks."
            )

    @property
    def text(self) -> str:
        """What the user asks last."""
        return read_turns(self.asked.messages)[-1].text()

    @property
    def expected(self) -> str:
        """The first of the right answers; empty where there is none in words."""
        return self.references[0] if self.references else ""


@dataclass(frozen=True, eq=False, kw_only=True)
class Answer:
    """What a model, or another system, said to a question.

    Attributes:
        id: of the question.
        text: the words; `<seg>` where a mask is given.
        objects: the masks, in their order; None for one that is nowhere.
        image_hw: `(height, width)` of the picture or frames that masks were made on; None where none were asked for.
        frames: indices of a video's frames that masks were made on; empty for a picture.
        failure: why the question could not be asked, where bad samples are passed over; else empty.
    """

    id: str
    text: str
    objects: tuple[Region | VideoRegion | None, ...] = ()
    image_hw: tuple[int, int] | None = None
    frames: tuple[int, ...] = ()
    failure: str = ""
