"""`answer_questions`: the answers to any number of questions in a file, by one process or by many, whatever ends them.

It knows engines, questions and files of answers; no model.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from threading import Event, Thread
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from ...contracts.questions import Answer, Question
from ...errors import EvaluationError, PixelReferError
from ..asking.engine import Engine, PreparingEngine
from .answer_file import answer_line, failure_line
from .answer_parts import AnswerParts, Failures
from .batching import Asked, batches_of
from .progress import Progress, Silent

ResultT = TypeVar("ResultT")
Line = tuple[int, Mapping[str, Any]]
"""An answer's line, and the place of its question."""

_AHEAD = 2  # batches that are prepared while the model answers one


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What has become of questions.

    Attributes:
        path: of the file of answers.
        questions: how many there are.
        asked: how many this process has asked.
        failures: those that could not be asked. Known to the first process, when it has written the file in this call.
        seconds: of this process.
    """

    path: Path
    questions: int
    asked: int = 0
    failures: Failures = field(default=Failures(0, {}))
    seconds: float = 0.0

    @property
    def was_finished(self) -> bool:
        """Whether all answers were there before."""
        return not self.asked and not self.seconds


def answer_questions(
    engine: Engine | Callable[[], Engine],
    questions: Sequence[Question],
    out: str | os.PathLike[str],
    *,
    batch_size: int,
    fingerprint: Mapping[str, Any],
    on_bad_sample: Literal["error", "skip"] = "error",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Prediction:
    """Answer questions, in batches of about one length, and write a file with a line for each, in their order.

    Every answer is on its way to the disk as it is made, in a folder `OUT.parts`. Whatever ends this, another call goes
    on from there, with another number of processes too. Of several processes, started by `accelerate launch` or
    `torchrun`, each answers a share; the first one writes the file at the end. Batches are the same however often it is
    interrupted and by how many processes it is done, but for one that an interruption cut in two.

    Args:
        engine: answers a batch; a `PreparingEngine` prepares the next one meanwhile. Or what makes one, called where
            there is something to ask.
        questions: read as they are needed, so they may be many. Their ids are unique. One that cannot be read raises
            `SampleError`.
        out: the file, in a folder that all processes share.
        batch_size: questions asked at once, at most. A batch that takes too much memory is asked in two halves, and
            none as large is asked any more.
        fingerprint: what the answers depend on besides the questions' number, by name: plain values. The answers that
            are there must be of the same.
        on_bad_sample: stop at a question that cannot be asked, or write a line with its `failure` and go on.
        overwrite: replace answers of another fingerprint, and a file that is complete.
        progress: is told of it.

    Raises:
        EvaluationError: `out` is in use or of another fingerprint, or another process failed.
        PixelReferError: a question cannot be asked, and shall not be passed over; what is answered is kept.
    """
    started = time.monotonic()
    parts = AnswerParts(Path(out), fingerprint, len(questions))
    processes = _Processes()
    try:
        is_there = processes.of_first(lambda: parts.begin(overwrite=overwrite))
        if is_there is None:
            return Prediction(path=parts.out, questions=len(questions))
        processes.agreed(lambda: parts.open_part(processes.rank))
        with _telling(parts):
            engine = engine() if callable(engine) else engine
            run = _Run(engine, questions, parts, batch_size, on_bad_sample, progress or Silent())
            run.ask(is_there, processes)
            parts.finish_part()
        failures = Failures(0, {})
        if processes.rank == 0:
            parts.wait_for(processes.number)
            failures = parts.merge()
        return Prediction(
            path=parts.out,
            questions=len(questions),
            asked=run.asked,
            failures=failures,
            seconds=time.monotonic() - started,
        )
    finally:
        parts.close()


class _telling:
    """Lets the other processes know of an error that ends this one."""

    def __init__(self, parts: AnswerParts) -> None:
        self._parts = parts

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if error is not None:
            self._parts.stop(str(error) or type(error).__name__)


class _Run:
    """The share of one process."""

    def __init__(
        self,
        engine: Engine,
        questions: Sequence[Question],
        parts: AnswerParts,
        batch_size: int,
        on_bad_sample: Literal["error", "skip"],
        progress: Progress,
    ) -> None:
        self._engine = engine
        self._questions = questions
        self._parts = parts
        self._batch_size = batch_size
        self._on_bad_sample = on_bad_sample
        self._progress = progress
        self._too_much = float("inf")  # of a batch's length times its questions
        self.asked = 0

    def ask(self, is_there: np.ndarray, processes: _Processes) -> None:
        """Ask every question of this process's share, and write the answers."""
        own = (
            batch
            for number, batch in enumerate(batches_of(self._questions, is_there, self._batch_size))
            if number % processes.number == processes.rank
        )
        self._progress.start(len(is_there), int(np.count_nonzero(is_there)))
        try:
            with closing(_prepared(self._engine, own)) as ahead:
                for batch, prepared in ahead:
                    self._parts.require_going_on()
                    for lines in self._answered(batch, prepared):
                        self._parts.append(lines)
                        self.asked += len(lines)
                        self._progress.show(self._parts.answered)
        finally:
            self._progress.stop()

    def _answered(self, batch: Sequence[Asked], prepared: Any = None) -> Iterator[list[Line]]:
        """The lines of a batch, in as many steps as it takes."""
        if len(batch) > 1 and _cost(batch) >= self._too_much:
            yield from self._in_halves(batch)
            return
        found = self._try(batch, prepared)
        if isinstance(found, list):
            yield found
        elif len(batch) > 1:
            yield from self._in_halves(batch)
        elif self._on_bad_sample == "skip":
            yield [(batch[0].place, _failed(batch[0], found))]
        else:
            raise found

    def _in_halves(self, batch: Sequence[Asked]) -> Iterator[list[Line]]:
        half = len(batch) // 2
        yield from self._answered(batch[:half])
        yield from self._answered(batch[half:])

    def _try(self, batch: Sequence[Asked], prepared: Any) -> list[Line] | PixelReferError:
        """The lines of a batch, or why there are none."""
        try:
            return self._lines(batch, prepared)
        except PixelReferError as error:
            question = batch[0].question
            return error if question is None else error.set_place(sample=0, subject=question.asked.name)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            del prepared
        return self._out_of_memory(batch)

    def _out_of_memory(self, batch: Sequence[Asked]) -> PixelReferError:
        """Make room; no batch as large as this one is asked any more."""
        gc.collect()
        clear_device_cache()
        self._too_much = min(self._too_much, _cost(batch))
        name = batch[0].question.asked.name if batch[0].question else ""
        return EvaluationError("it takes more memory than there is, asked alone.").set_place(subject=name)

    def _lines(self, batch: Sequence[Asked], prepared: Any) -> list[Line]:
        if isinstance(prepared, BaseException):
            raise prepared
        asked = _readable(batch)
        if prepared is None:
            answers = self._engine.answer(asked)
        else:
            assert isinstance(self._engine, PreparingEngine), "who else would have prepared it"
            answers = self._engine.finish(prepared)
        return [
            (each.place, answer_line(question, answer))
            for each, question, answer in zip(batch, asked, answers, strict=True)
        ]


def _readable(batch: Sequence[Asked]) -> list[Question]:
    """The questions of a batch; raises the error of one that cannot be read."""
    for each in batch:
        if each.fault is not None:
            raise each.fault
    return [each.question for each in batch if each.question is not None]


def _cost(batch: Sequence[Asked]) -> int:
    """What a batch takes, in no unit: its questions are filled up to the longest."""
    return len(batch) * max(1, *(each.length for each in batch))


def _failed(asked: Asked, error: PixelReferError) -> Mapping[str, Any]:
    if asked.fault is not None:
        why = " ".join(defect.message for defect in asked.fault.defects)
        return failure_line(asked.fault.sample_id, asked.fault.where, why)
    assert asked.question is not None, "without a fault there is a question"
    return answer_line(asked.question, Answer(id=asked.question.id, text="", failure=error.in_sample))


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or (isinstance(error, Exception) and should_reduce_batch_size(error))


# -- the next batch, meanwhile -----------------------------------------------------------------------------


def _prepared(engine: Engine, batches: Iterator[list[Asked]]) -> Generator[tuple[list[Asked], Any]]:
    """The batches, each with what the engine has prepared of it, or the exception that this raised; None where it
    prepares nothing. A thread reads and prepares the next ones while the model answers one."""
    ready: Queue[tuple[list[Asked], Any] | BaseException | None] = Queue(_AHEAD)
    is_over = Event()

    def prepare() -> None:
        try:
            for batch in batches:
                ready.put((batch, _prepare(engine, batch)))
                if is_over.is_set():
                    return
            ready.put(None)
        except BaseException as error:
            ready.put(error)

    thread = Thread(target=prepare, name="questions", daemon=True)
    thread.start()
    try:
        while (found := ready.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            yield found
    finally:
        is_over.set()
        while thread.is_alive():
            while not ready.empty():
                ready.get()
            thread.join(0.05)


def _prepare(engine: Engine, batch: Sequence[Asked]) -> Any:
    try:
        return engine.prepare(_readable(batch)) if isinstance(engine, PreparingEngine) else None
    except (PixelReferError, MemoryError, RuntimeError) as error:  # told where the batch is asked
        return error


# -- several processes -------------------------------------------------------------------------------------


class _Processes:
    """This process and those that do the rest: what they have to agree on before they begin. Afterwards they know of
    each other by files alone, as one may need hours more than another, for which no exchange waits."""

    def __init__(self) -> None:
        is_alone = int(os.environ.get("WORLD_SIZE", "1")) < 2 and not PartialState._shared_state
        state = None if is_alone else PartialState(cpu=not torch.accelerator.is_available())
        self.rank = 0 if state is None else state.process_index
        self.number = 1 if state is None else state.num_processes

    def of_first(self, work: Callable[[], ResultT]) -> ResultT:
        """What the first process makes, in every one; an error of this package too."""
        if self.number == 1:
            return work()
        told: list[Any] = [None, None]
        if self.rank == 0:
            try:
                told = [work(), None]
            except PixelReferError as error:
                told = [None, error]
        made, refusal = broadcast_object_list(told)
        if refusal is not None:
            raise refusal
        return made

    def agreed(self, work: Callable[[], None]) -> None:
        """Do something in every process; an error in one ends all."""
        refusals: list[PixelReferError | None] = [None]
        try:
            work()
        except PixelReferError as error:
            refusals = [error]
        for refusal in gather_object(refusals) if self.number > 1 else refusals:
            if refusal is not None:
                raise refusal
