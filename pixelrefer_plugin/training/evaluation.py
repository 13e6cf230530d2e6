"""Asks a model the questions of held-out samples, as a user would, and compares its answers with theirs.

It knows samples, the processor and `RegionModel.generate`; no trainer and no files.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from ..data.sample import RegionSample
from ..errors import PixelReferError, SampleError, about
from ..messages import REGION_MARKER, read_texts
from .collator import first_turns

if TYPE_CHECKING:
    from ..model import RegionModel
    from ..processor import RegionProcessor


@dataclass(frozen=True)
class Question:
    """One turn of a held-out sample: what was said before it, and the answer that the sample has.

    Attributes:
        asked: the sample, cut off before that answer.
        turn: which of the sample's answers it is, from 0.
        text: what the user asked last.
        expected: the sample's answer.
    """

    asked: RegionSample
    turn: int
    text: str
    expected: str


@dataclass(frozen=True)
class Answer:
    """What the model said to a question."""

    question: Question
    given: str

    @property
    def is_exact(self) -> bool:
        """Whether it is the sample's answer, apart from case, space and punctuation."""
        return normalized(self.given) == normalized(self.question.expected)

    def as_record(self) -> dict[str, Any]:
        """It as a line of `answers.jsonl`."""
        question = self.question
        return {
            "id": question.asked.id,
            "where": question.asked.where,
            "turn": question.turn,
            "question": question.text,
            "expected": question.expected,
            "given": self.given,
            "exact": self.is_exact,
        }


def normalized(text: str) -> str:
    """A text without case, punctuation and repeated space, for comparison."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    letters = "".join(" " if unicodedata.category(each).startswith("P") else each for each in folded)
    return " ".join(letters.split())


def questions(sample: RegionSample) -> Iterator[Question]:
    """A question for each answer of a sample, with the sample's own answers to those before it.

    Answers that point at a region are passed over: no text that a model gives could be compared with them.
    """
    texts = read_texts(sample.messages)
    ends = [index for index, (role, _) in enumerate(texts) if role == "assistant"]
    for turn, index in enumerate(ends):
        text = texts[index][1]
        if index and REGION_MARKER not in text:
            asked = first_turns(sample, [*(end + 1 for end in ends[:turn]), index])
            yield Question(asked, turn, texts[index - 1][1], text.strip())


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
        self._on_bad_sample = on_bad_sample
        spread = np.linspace(0, len(dataset) - 1, min(samples, len(dataset)), dtype=int)
        self._questions = self._read(dataset.__getitems__(spread.tolist()))
        self.answers: list[Answer] = []

    def __call__(self, model: RegionModel) -> dict[str, float]:
        """Ask everything.

        Returns:
            `exact_match`, the share of answers that are exactly the sample's; empty where there are no questions.

        Raises:
            SampleError: a sample cannot be used, and shall not be passed over.
        """
        was_training = model.training
        model.eval()
        if isinstance(model, FSDPModule):
            register_fsdp_forward_method(model, "generate")  # gathers what `forward` would
        try:
            self.answers = self._ask_all(model)
        finally:
            model.train(was_training)
        if not self.answers:
            return {}
        return {"exact_match": sum(answer.is_exact for answer in self.answers) / len(self.answers)}

    def _read(self, found: Sequence[RegionSample | SampleError]) -> list[Question]:
        errors = [each for each in found if isinstance(each, SampleError)]
        if errors and self._on_bad_sample == "error":
            raise errors[0]
        return [question for each in found if isinstance(each, RegionSample) for question in questions(each)]

    def _ask_all(self, model: RegionModel) -> list[Answer]:
        """Every process asks its share, in as many batches as the others: where weights are spread over processes,
        all of them work on every token."""
        asked = self._questions
        batches = [asked[start : start + self._batch_size] for start in range(0, len(asked), self._batch_size)]
        state = PartialState()
        rank, world = state.process_index, state.num_processes
        found: list[tuple[int, list[Answer]]] = []
        for first in range(0, len(batches), world):
            own = first + rank
            answers = self._ask(model, batches[min(own, len(batches) - 1)])
            if own < len(batches):
                found.append((own, answers))
        return [answer for _, answers in sorted(gather_object(found), key=lambda each: each[0]) for answer in answers]

    def _ask(self, model: RegionModel, batch: Sequence[Question]) -> list[Answer]:
        try:
            given = self._generate(model, batch)
        except PixelReferError:
            if len(batch) > 1:  # one of them is to blame, or they do not go together
                return [answer for question in batch for answer in self._ask(model, [question])]
            if self._on_bad_sample == "skip":
                return []
            with about(batch[0].asked.name):
                raise
        return [Answer(question, text) for question, text in zip(batch, given, strict=True)]

    @torch.no_grad()
    def _generate(self, model: RegionModel, batch: Sequence[Question]) -> list[str]:
        conversations = [list(question.asked.messages) for question in batch]
        regions = [list(question.asked.regions) for question in batch]
        inputs = self._processor(conversations, regions)
        inputs = inputs.to(model.device, dtype=model.backbone.dtype)
        generated = model.generate(
            **inputs,
            max_new_tokens=self._max_new_tokens,
            do_sample=False,
            num_beams=1,
            synced_gpus=_is_spread(model),
        )
        return self._processor.decode(generated, inputs)


def _is_spread(model: RegionModel) -> bool:
    """Whether weights lie on several processes (FSDP2, ZeRO-3), all of which then work on every token."""
    return any(isinstance(each, DTensor) or hasattr(each, "ds_shape") for each in model.parameters())
