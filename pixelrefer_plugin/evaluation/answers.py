"""Asks a model the questions of held-out samples, as a user would, and compares its answers with theirs: the texts, and
where masks are expected the masks too.

It knows samples, the processor and the model that it is given; no trainer and no files.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..contracts.messages import read_turns
from ..contracts.questions import Answer, Question
from ..contracts.samples import RegionSample
from ..errors import PromptError, SampleError
from .asking.engine import ModelEngine, require_askable
from .asking.questions import questions_of
from .asking.shares import ask_in_shares, ready_to_answer
from .metrics.masks import MaskScores
from .scoring.groups import Traits
from .scoring.object_masks import ObjectScore as ObjectScore
from .scoring.object_masks import object_scores

if TYPE_CHECKING:
    from ..model import RegionModel
    from ..processor import RegionProcessor


@dataclass(frozen=True, eq=False)
class ScoredAnswer:
    """What the model said to a question, and how good its masks are.

    Attributes:
        question: the question.
        answer: what was said.
        scores: of each expected object, in order. One for which there is no mask counts as empty.
    """

    question: Question
    answer: Answer
    scores: tuple[ObjectScore, ...] = ()

    @property
    def given(self) -> str:
        """The model's text; `<seg>` where it gave a mask."""
        return self.answer.text

    @property
    def turn(self) -> int:
        """Which of the sample's answers it stands for, from 0."""
        return sum(each.is_answer for each in read_turns(self.question.asked.messages))

    @property
    def is_exact(self) -> bool:
        """Whether it is the sample's answer, apart from case, space and punctuation."""
        return normalized(self.given) == normalized(self.question.expected)

    def as_record(self) -> dict[str, Any]:
        """It as a line of `answers.jsonl`."""
        question = self.question
        record: dict[str, Any] = {
            "id": question.asked.id,
            "where": question.asked.where,
            "turn": self.turn,
            "question": question.text,
            "expected": question.expected,
            "given": self.given,
            "exact": self.is_exact,
            "area_px": Traits.of(question).area_px,
        }
        if self.scores:
            record["ious"] = [each.overlap.iou for each in self.scores]
        videos = [each.video.j_and_f for each in self.scores if each.video is not None]
        return record | {"j_and_f": videos} if videos else record


def normalized(text: str) -> str:
    """A text without case, punctuation and repeated space, for comparison."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    letters = "".join(" " if unicodedata.category(each).startswith("P") else each for each in folded)
    return " ".join(letters.split())


class HeldOutAnswers:
    """Asks the questions of a dataset's samples; called with a model, returns how well it did.

    The samples are read at once, so that a malformed one is told before hours of training; pictures when asked about.

    Args:
        dataset: `dataset.__getitems__(indices)` gives samples, and errors in place of bad ones.
        processor: prepares them.
        samples: at most so many, spread evenly over the dataset.
        max_new_tokens: of an answer.
        batch_size: questions that a process asks at once.
        on_bad_sample: stop at a sample that cannot be used, or pass over it.

    Raises:
        SampleError: a sample cannot be used, and shall not be passed over.
        PromptError: a sample expects masks, but has not one picture or video alone.

    Attributes:
        answers: those of the latest call, in the order of the dataset, on every process.
    """

    def __init__(
        self,
        dataset: Any,
        processor: RegionProcessor,
        *,
        samples: int,
        max_new_tokens: int,
        batch_size: int,
        on_bad_sample: Literal["error", "skip"] = "error",
    ) -> None:
        self._processor = processor
        self._max_new_tokens = max_new_tokens
        self._batch_size = batch_size
        self._passes_over = on_bad_sample == "skip"
        spread = np.linspace(0, len(dataset) - 1, min(samples, len(dataset)), dtype=int)
        self._questions = self._read(dataset.__getitems__(spread.tolist()))
        self.answers: list[ScoredAnswer] = []

    def __call__(self, model: RegionModel) -> dict[str, float]:
        """Ask everything.

        Returns:
            `exact_match`, the share of answers whose text is exactly the sample's. Where masks are expected,
            `mask_giou` and `mask_ciou` of the expected objects, and `j_and_f` of those on videos. Empty where there are
            no questions.

        Raises:
            SampleError: a sample cannot be used, and shall not be passed over.
        """
        with ready_to_answer(model):
            engine = ModelEngine(model, self._processor, max_new_tokens=self._max_new_tokens)
            answers = ask_in_shares(
                self._questions,
                lambda batch: _scored(batch, engine.answer(batch)),
                batch_size=self._batch_size,
                instead=(lambda question, error: None) if self._passes_over else None,
            )
        self.answers = [answer for answer in answers if answer is not None]
        if not self.answers:
            return {}
        return {"exact_match": sum(answer.is_exact for answer in self.answers) / len(self.answers), **self._of_masks()}

    def _of_masks(self) -> dict[str, float]:
        scored = [score for answer in self.answers for score in answer.scores]
        if not scored:
            return {}
        scores = MaskScores(
            [each.overlap for each in scored], [each.video for each in scored if each.video is not None]
        )
        numbers = {"mask_giou": scores.giou, "mask_ciou": scores.ciou}
        return numbers | {"j_and_f": scores.video.j_and_f} if scores.videos else numbers

    def _read(self, found: Sequence[RegionSample | SampleError]) -> list[Question]:
        read: list[Question] = []
        for each in found:
            if isinstance(each, RegionSample):
                read += [question for question in questions_of(each) if question.references and self._may_ask(question)]
            elif not self._passes_over:
                raise each
        return read

    def _may_ask(self, question: Question) -> bool:
        try:
            require_askable(question)
        except PromptError:
            if not self._passes_over:
                raise
            return False
        return True


# -- masks -------------------------------------------------------------------------------------------------


def _scored(questions: Sequence[Question], answers: Sequence[Answer]) -> list[ScoredAnswer | None]:
    return [
        ScoredAnswer(question, answer, object_scores(question, answer))
        for question, answer in zip(questions, answers, strict=True)
    ]
