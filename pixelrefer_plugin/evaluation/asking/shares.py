"""Asks questions on all processes of a job, each of them a share, in as many batches as the others.

Where weights are spread over processes (FSDP2, ZeRO-3) all of them work on every token, so that no process may have
fewer batches. It knows questions and processes; no scores and no files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from accelerate import PartialState
from accelerate.utils import gather_object
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method

from ...contracts.questions import Question
from ...errors import PixelReferError, placed

if TYPE_CHECKING:
    from ...model import RegionModel

T = TypeVar("T")
Batch = Sequence[tuple[int, Question]]
"""Questions that are asked at once, each with its place among all."""


@contextmanager
def ready_to_answer(model: RegionModel) -> Iterator[None]:
    """The model in evaluation mode while the block runs; under FSDP2 `generate` gathers what `forward` would."""
    was_training = model.training
    model.eval()
    if isinstance(model, FSDPModule):
        register_fsdp_forward_method(model, "generate")
    try:
        yield
    finally:
        model.train(was_training)


def ask_in_shares(
    questions: Sequence[Question],
    ask: Callable[[Sequence[Question]], Sequence[T]],
    *,
    batch_size: int,
    instead: Callable[[Question, PixelReferError], T] | None = None,
) -> list[T]:
    """What `ask` returns for each question, in their order, on every process.

    Args:
        questions: all of them; those that ask for masks are asked apart from the others.
        ask: asks a batch; called on every process equally often.
        batch_size: questions that a process asks at once.
        instead: what stands for a question that cannot be asked; None: its error is raised.

    Raises:
        PixelReferError: a question cannot be asked; it names the sample.
    """
    batches = [*_batches(questions, batch_size, segment=False), *_batches(questions, batch_size, segment=True)]
    state = PartialState()
    rank, world = state.process_index, state.num_processes
    found: list[tuple[int, T]] = []
    for first in range(0, len(batches), world):
        own = first + rank
        answers = _asked(batches[min(own, len(batches) - 1)], ask, instead)
        if own < len(batches):
            found.extend(answers)
    return [answer for _, answer in sorted(gather_object(found), key=lambda each: each[0])]


def _batches(questions: Sequence[Question], batch_size: int, *, segment: bool) -> list[Batch]:
    asked = [each for each in enumerate(questions) if each[1].segment is segment]
    return [asked[start : start + batch_size] for start in range(0, len(asked), batch_size)]


def _asked(
    batch: Batch,
    ask: Callable[[Sequence[Question]], Sequence[T]],
    instead: Callable[[Question, PixelReferError], T] | None,
) -> list[tuple[int, T]]:
    try:
        answers = ask([question for _, question in batch])
        return [(place, answer) for (place, _), answer in zip(batch, answers, strict=True)]
    except PixelReferError as error:
        if len(batch) > 1:  # one of them is to blame, or they do not go together
            return [answer for each in batch for answer in _asked([each], ask, instead)]
        ((place, question),) = batch
        if instead is not None:
            return [(place, instead(question, error))]
        with placed(sample=0, subject=question.asked.name):
            raise
