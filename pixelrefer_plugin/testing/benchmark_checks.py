"""Checks of a benchmark. Each raises `AssertionError` and says what is wrong.

They read the official files that the benchmark's `tiny` writes, or a folder that is given. No model is asked: answers
are made from what the questions expect.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..contracts.benchmark import BenchmarkSpec, JudgeRequest
from ..contracts.figures import Scores
from ..contracts.messages import marker_kinds, marker_mismatch, read_turns
from ..contracts.questions import Answer, Question
from ..errors import DataError, EvaluationError, JudgeError, shown
from ..plugins import get_benchmark
from ..regions.region import Region, VideoRegion
from .running import require_strict_config, run_check

_HW = (48, 64)  # of masks whose picture is not known
_ODD_TEXTS = (
    "",
    " ",
    ".",
    "\n\r\u2028",
    "A\x00B",
    "<seg> <region>",
    "(",
    "9" * 5000,
    "no " * 20_000,
    "\U0001f408",
    "Z.",
)
_ODD_JUDGEMENTS = (
    *("", "I cannot say.", "<html><body>502</body></html>", "{", '{"score": "NaN"}'),
    *("1e999", "1e307 0.001", "9" * 50_000),
)
_TOLERANCE = 1e-9


class OfflineTools:
    """What the kit lends to a benchmark: a judge that says one thing, and an encoder that knows words apart.

    Args:
        judgement: what the judge answers to everything; None: there is no judge.
    """

    def __init__(self, judgement: str | None = None) -> None:
        self._judgement = judgement

    @property
    def judge(self) -> str:
        """Name of the judge."""
        return "" if self._judgement is None else "kit"

    def ask_judge(self, requests: Sequence[JudgeRequest]) -> list[str]:
        """As `Tools` has it."""
        if self._judgement is None and requests:
            raise JudgeError(f"There is no judge, and {len(requests)} of {len(requests)} answers are missing.")
        return [self._judgement or ""] * len(requests)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """`(n, 64)` float32 of length 1: texts of equal words are equal."""
        vectors = np.full((len(texts), 64), 1e-3, dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                vectors[row, sum(word.encode()) % 64] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@dataclass(frozen=True, eq=False)
class BenchmarkCase:
    """A benchmark and a folder with its official files.

    Attributes:
        spec: the benchmark.
        folder: with its files.
        options: of the benchmark.
    """

    spec: BenchmarkSpec
    folder: Path
    options: Mapping[str, Any] = field(default_factory=dict)

    def open(self, folder: Path | None = None) -> list[Question]:
        """Its questions, from its own folder or from another."""
        return list(self.spec.open(self.spec.make_config(self.options), folder or self.folder))

    def score(self, questions: Sequence[Question], answers: Sequence[Answer], judgement: str = "8 8") -> Scores:
        """What it says of answers."""
        config = self.spec.make_config(self.options)
        return self.spec.score(config, questions, answers, OfflineTools(judgement))

    def is_scored_elsewhere(self) -> bool:
        """Whether its truth is not public: it writes answers for a server, and refuses to score them."""
        if self.spec.export is None:
            return False
        questions = self.open()
        try:
            self.score(questions, [Answer(id=question.id, text="") for question in questions])
        except EvaluationError:
            return True
        return False


def check_benchmark(name: str, *, folder: str | Path | None = None, **options: Any) -> list[str]:
    """Run every check of a benchmark.

    Args:
        name: the benchmark, installed.
        folder: one with its official files; by default the benchmark's `tiny` writes them. Give few questions.
        options: of the benchmark.

    Returns:
        The names of the checks, all passed.

    Raises:
        AssertionError: the first check that fails, and what is wrong.
    """
    spec = get_benchmark(name)
    if folder is not None:
        return [run_check(check, BenchmarkCase(spec, Path(folder), options)) for check in BENCHMARK_CHECKS]
    if spec.tiny is None:
        raise AssertionError(f"{name}: there are no files to read: set BenchmarkSpec.tiny, or give folder=...")
    with tempfile.TemporaryDirectory() as made:
        spec.tiny(Path(made))
        return [run_check(check, BenchmarkCase(spec, Path(made), options)) for check in BENCHMARK_CHECKS]


def benchmark_options_are_strict(case: BenchmarkCase) -> None:
    """The config is a frozen dataclass whose defaults keep its own rules; unknown options are refused by name."""
    require_strict_config(case.spec)


def its_questions_can_be_asked(case: BenchmarkCase) -> None:
    """There are questions; each ends with a message of the user, its markers stand for its regions, its media are
    there, and no two have one id."""
    questions = case.open()
    assert questions, f"{case.spec.name}: the folder has no questions"
    ids = [question.id for question in questions]
    twice = sorted({each for each in ids if ids.count(each) > 1})
    assert not twice, f"{case.spec.name}: several questions have the id {shown(twice[0])}"
    for question in questions:
        turns = read_turns(question.asked.messages)
        assert not turns[-1].is_answer, f"{case.spec.name}: question {shown(question.id)} ends with an answer"
        mismatch = marker_mismatch(marker_kinds(turns), len(question.asked.regions))
        assert not mismatch, f"{case.spec.name}: question {shown(question.id)}: {mismatch}"
        missing = [path for path in question.asked.paths if not Path(path).exists()]
        assert not missing, f"{case.spec.name}: question {shown(question.id)} shows {missing[0]}, which is not there"


def it_opens_alike_each_time(case: BenchmarkCase) -> None:
    """Opened again, a folder has the same questions in the same order."""
    first, again = case.open(), case.open()
    assert [_told(each) for each in first] == [_told(each) for each in again], f"{case.spec.name}: other questions"


def a_missing_file_is_named(case: BenchmarkCase) -> None:
    """Without one of its files, unless that is optional, `open` raises `DataError` that names it. Of media alone it is
    enough that a question shows one that is not there."""
    for file in case.spec.files:
        if file.optional:
            continue
        with tempfile.TemporaryDirectory() as copied:
            folder = Path(copied) / "official"
            shutil.copytree(case.folder, folder)
            for found in [*folder.glob(file.path)]:
                shutil.rmtree(found) if found.is_dir() else found.unlink()
            refusal = _refusal(case, folder)
        assert refusal, f"{case.spec.name}: it opens without {file.path}"
        is_named = Path(file.path).name in refusal
        assert is_named, f"{case.spec.name}: without {file.path} the error does not name it: {refusal}"


def figures_fit_their_questions(case: BenchmarkCase) -> None:
    """Every figure has a value or NaN for each question, and a label of its own; of all questions taken twice it is
    what it is of all; in another order of the questions too."""
    if case.is_scored_elsewhere():
        return
    questions = case.open()
    answers = [_right_answer(question) for question in questions]
    scores = case.score(questions, answers)
    labels = [figure.label for figure in scores.figures]
    assert labels, f"{case.spec.name}: it gives no figure"
    assert len(set(labels)) == len(labels), f"{case.spec.name}: two figures are called alike: {', '.join(labels)}"
    back = {figure.label: figure for figure in case.score(questions[::-1], answers[::-1]).figures}
    for figure in scores.figures:
        got = np.asarray(figure.values).shape
        assert got == (len(questions),), f"{case.spec.name}: {figure.label} has {got} values"
        whole, twice = figure.of(), figure.of(np.tile(np.arange(len(questions)), 2))
        assert _equal(whole, twice), f"{case.spec.name}: {figure.label} is {whole}, of all twice {twice}"
        reverse = back[figure.label].of()
        assert _equal(whole, reverse), f"{case.spec.name}: {figure.label} is {whole}, in another order {reverse}"


def right_answers_score_more(case: BenchmarkCase) -> None:
    """What is expected scores at least as much as empty answers, in the main figure; more, unless a judge decides."""
    if case.is_scored_elsewhere():
        return
    questions = case.open()
    right = case.score(questions, [_right_answer(question) for question in questions]).figures[0].of()
    empty = case.score(questions, [Answer(id=question.id, text="") for question in questions]).figures[0].of()
    if "judge" not in case.spec.needs and any(question.references or question.targets for question in questions):
        assert right > empty, f"{case.spec.name}: right answers score {right}, empty ones {empty}"


def odd_answers_are_scored(case: BenchmarkCase) -> None:
    """No text that a model may give stops the scoring: an answer that cannot be read counts, or is told as unread."""
    if case.is_scored_elsewhere():
        return
    questions = case.open()
    for text in _ODD_TEXTS:
        case.score(questions, [Answer(id=question.id, text=text) for question in questions])


def odd_judgements_are_told(case: BenchmarkCase) -> None:
    """No text that a judge may give stops the scoring or makes a figure infinite; where nothing in it can be read, that
    is told as unread."""
    if "judge" not in case.spec.needs:
        return
    questions = case.open()
    for text in _ODD_JUDGEMENTS:
        scores = case.score(questions, [_right_answer(question) for question in questions], text)
        assert scores.unread or text[:1].isdigit(), f"{case.spec.name}: {shown(text)} is read without a word"
        endless = [each.label for each in scores.figures if np.isinf([*each.values, each.of()]).any()]
        assert not endless, f"{case.spec.name}: {endless[0]} is infinite where the judge says {shown(text)}"


def answers_are_exported(case: BenchmarkCase) -> None:
    """Where answers can be exported, files are written, of right answers and of empty ones."""
    if case.spec.export is None:
        return
    questions = case.open()
    config = case.spec.make_config(case.options)
    right = [_right_answer(question) for question in questions]
    for answers in (right, [Answer(id=question.id, text="") for question in questions]):
        with tempfile.TemporaryDirectory() as made:
            case.spec.export(config, questions, answers, Path(made))
            assert any(path.is_file() for path in Path(made).rglob("*")), f"{case.spec.name}: it exports no file"


def _refusal(case: BenchmarkCase, folder: Path) -> str:
    """What is said of a folder's files; the media that are missing, where nothing is; empty where all are there."""
    try:
        questions = case.open(folder)
    except DataError as error:
        return str(error)
    missing = [str(path) for question in questions for path in question.asked.paths if not Path(path).exists()]
    return " ".join(missing)


def _right_answer(question: Question) -> Answer:
    known = next((size for size in question.asked.media_hw if size is not None), _HW)
    return Answer(
        id=question.id,
        text=question.expected,
        objects=question.targets,
        image_hw=(_size(question) or known) if question.segment else None,
        frames=tuple(sorted({frame for each in question.targets for frame in _frames_of(each)})),
    )


def _size(question: Question) -> tuple[int, int] | None:
    """Of the masks that are expected, where these know it."""
    for target in question.targets:
        for region in target.frames.values() if isinstance(target, VideoRegion) else (target,):
            if region.kind == "rle":
                height, width = region.data[1]
                return height, width
            if region.kind == "mask":
                return region.data.image_hw
    return None


def _frames_of(target: Region | VideoRegion) -> Iterator[int]:
    if isinstance(target, VideoRegion):
        yield from (*target.frames, *target.absent)


def _told(question: Question) -> tuple[Any, ...]:
    return question.id, question.text, question.references, question.type, len(question.targets)


def _equal(first: float, second: float) -> bool:
    return first == second or bool(np.isnan(first) and np.isnan(second)) or abs(first - second) < _TOLERANCE


BENCHMARK_CHECKS: tuple[Callable[[BenchmarkCase], None], ...] = (
    benchmark_options_are_strict,
    its_questions_can_be_asked,
    it_opens_alike_each_time,
    a_missing_file_is_named,
    figures_fit_their_questions,
    right_answers_score_more,
    odd_answers_are_scored,
    odd_judgements_are_told,
    answers_are_exported,
)
