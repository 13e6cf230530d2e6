"""Scores answers by a benchmark's own rule, checks what it says, and splits and resamples its figures.

It knows the contract of benchmarks; no benchmark, no model and no report.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...contracts.benchmark import BenchmarkSpec, Tools
from ...contracts.figures import Figure, Scores
from ...contracts.questions import Answer, Question
from ...errors import EvaluationError, PluginError, counted, shown
from ...plugins import in_plugin
from .groups import Split, Traits, splits_of
from .resampling import Difference, Estimate, difference, estimate

_CLOSE = 1e-12


@dataclass(frozen=True, eq=False)
class FigureResult:
    """A figure of a benchmark, in whole and in groups.

    Attributes:
        figure: the figure.
        overall: of all questions.
        groups: of each group of each split: `groups["size"]["under 2,000 px"]`.
    """

    figure: Figure
    overall: Estimate
    groups: Mapping[str, Mapping[str, Estimate]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Result:
    """What a benchmark says of one set of answers.

    Attributes:
        benchmark: its name.
        ids: of the questions, in order.
        figures: the main one first, without official readings that equal the default one.
        splits: how the questions are grouped.
        same_readings: the figures of those readings.
        unread: why an answer could not be read, by the question's id.
        failed: why a question could not be asked, by its id.
        empty: ids of answers without a word and without a mask.
        notes: of the benchmark, what a reader must know.
        details: what explains the value of a question, by its id.
    """

    benchmark: str
    ids: Sequence[str]
    figures: Sequence[FigureResult]
    splits: Sequence[Split]
    same_readings: Sequence[FigureResult] = ()
    unread: Mapping[str, str] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    empty: Sequence[str] = ()
    notes: Sequence[str] = ()
    details: Mapping[str, str] = field(default_factory=dict)

    @property
    def main(self) -> FigureResult:
        """The figure by which answers are best and worst."""
        return self.figures[0]

    def figure(self, label: str) -> FigureResult | None:
        """The figure of a label, readings that equal the default one included; None where there is none."""
        found = (each for each in (*self.figures, *self.same_readings) if each.figure.label == label)
        return next(found, None)


@dataclass(frozen=True, eq=False)
class Comparison:
    """How two sets of answers to the same questions differ, the second less the first.

    Attributes:
        overall: of each figure that both have, by its label.
        groups: of the main figure, for each group of the splits that the questions make: `groups["size"][...]`.
    """

    overall: Mapping[str, Difference]
    groups: Mapping[str, Mapping[str, Difference]]


def score(
    spec: BenchmarkSpec, config: Any, questions: Sequence[Question], answers: Sequence[Answer], tools: Tools
) -> Result:
    """The figures of answers to a benchmark's questions.

    Args:
        spec: the benchmark.
        config: its options.
        questions: what was asked.
        answers: the i-th is to the i-th question.
        tools: what it may use.

    Raises:
        EvaluationError: there are no questions, or the answers are not those to them.
        PluginError: the benchmark gives something else than `Scores` of these questions, or its code fails.
        JudgeError: answers of a judge are missing.
    """
    _require_aligned(spec, questions, answers)
    with in_plugin("benchmark", spec.name, "score"):
        scores = spec.score(config, questions, answers, tools)
    figures = [_without_failures(figure, answers) for figure in _checked(spec, scores, len(answers))]
    ids = [answer.id for answer in answers]
    same = _same_readings(figures)
    splits = splits_of([Traits.of(question) for question in questions], answers)
    return Result(
        benchmark=spec.name,
        ids=ids,
        figures=[_split(figure, splits) for figure in figures if figure not in same],
        splits=splits,
        same_readings=[_split(figure, splits) for figure in same],
        unread=_texts(spec, "unread", scores.unread, set(ids)),
        failed={each.id: each.failure for each in answers if each.failure},
        empty=[each.id for each in answers if is_empty(each)],
        notes=[str(note) for note in scores.notes],
        details=_texts(spec, "details", scores.details, set(ids)),
    )


def is_empty(answer: Answer) -> bool:
    """Whether an answer has neither words nor masks, though it was asked for."""
    return not answer.failure and not answer.text.strip() and not any(answer.objects)


def compare(first: Result, second: Result) -> Comparison:
    """How much better the second set of answers is than the first, on the same draws of the same questions.

    Raises:
        EvaluationError: the questions are not the same.
    """
    if list(first.ids) != list(second.ids):
        raise EvaluationError(
            f"Answers are compared on the same questions, got {counted(len(first.ids), 'question')} of "
            f"'{first.benchmark}' and {len(second.ids):,} of '{second.benchmark}'."
        )
    every = (*first.figures, *first.same_readings)
    pairs = [(each, other) for each in every if (other := second.figure(each.figure.label))]
    overall = {each.figure.label: difference(each.overall, other.overall) for each, other in pairs}
    main = second.figure(first.main.figure.label)
    splits = [split.name for split in first.splits if split.of_questions] if main else []
    return Comparison(
        overall,
        {
            name: {
                group: difference(before, main.groups[name][group]) for group, before in first.main.groups[name].items()
            }
            for name in splits
            if main is not None
        },
    )


def _split(figure: Figure, splits: Sequence[Split]) -> FigureResult:
    groups = {
        split.name: {name: estimate(figure, positions) for name, positions in split.groups.items()} for split in splits
    }
    return FigureResult(figure, estimate(figure, np.arange(len(figure.values))), groups)


# -- checks ------------------------------------------------------------------------------------------------


def _require_aligned(spec: BenchmarkSpec, questions: Sequence[Question], answers: Sequence[Answer]) -> None:
    if not len(questions):
        raise EvaluationError(f"Benchmark '{spec.name}' has no questions, so there is nothing to score.")
    if len(questions) != len(answers):
        raise EvaluationError(
            f"Benchmark '{spec.name}' has {counted(len(questions), 'question')}, got {counted(len(answers), 'answer')}."
        )
    for question, answer in zip(questions, answers, strict=True):
        if question.id != answer.id:
            raise EvaluationError(
                f"Benchmark '{spec.name}': question {shown(question.id)} stands beside an answer to "
                f"{shown(answer.id)}. Bring the answers into the order of the questions."
            )


def _checked(spec: BenchmarkSpec, scores: Any, count: int) -> list[Figure]:
    """The figures that a benchmark returns, once it is known that they are some."""
    if not isinstance(scores, Scores):
        raise _fault(spec, f"must return Scores from score, got {shown(scores)}")
    figures = list(scores.figures) if isinstance(scores.figures, Sequence) else []
    if not figures or not all(isinstance(each, Figure) for each in figures):
        raise _fault(spec, f"must return one Figure or more in Scores.figures, got {shown(scores.figures)}")
    labels = [figure.label for figure in figures]
    if twice := next((label for label in labels if labels.count(label) > 1), ""):
        raise _fault(spec, f"has two figures '{twice}'")
    return [_checked_figure(spec, figure, count) for figure in figures]


def _checked_figure(spec: BenchmarkSpec, figure: Figure, count: int) -> Figure:
    try:
        values = np.asarray(figure.values, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.shape != (count,):
        raise _fault(
            spec,
            f"figure '{figure.label}' must have a number for each of {counted(count, 'question')}, "
            f"got {shown(figure.values)}",
        )
    if np.isinf(values).any():
        raise _fault(spec, f"figure '{figure.label}' is infinite for question {int(np.isinf(values).argmax()) + 1}")
    if not math.isfinite(figure.scale) or figure.scale <= 0:
        raise _fault(spec, f"figure '{figure.label}' must have a scale above 0, got {shown(figure.scale)}")
    combine = None if figure.combine is None else _guarded(spec, figure.label, figure.combine)
    return replace(figure, values=values, combine=combine)


def _without_failures(figure: Figure, answers: Sequence[Answer]) -> Figure:
    """A figure without the questions that could not be asked; an official reading counts them as its script does."""
    failed = np.array([bool(answer.failure) for answer in answers])
    if figure.reading or not failed.any():
        return figure
    return replace(figure, values=np.where(failed, np.nan, figure.values))


def _guarded(spec: BenchmarkSpec, label: str, combine: Callable[[np.ndarray], float]) -> Callable[[np.ndarray], float]:
    """A figure's rule, whatever its code does."""

    def guarded(positions: np.ndarray) -> float:
        with in_plugin("benchmark", spec.name, "combine"):
            value = float(combine(positions))
        if math.isinf(value):
            raise _fault(spec, f"figure '{label}' is infinite for {counted(len(positions), 'question')}")
        return value

    return guarded


def _texts(spec: BenchmarkSpec, name: str, said: Any, ids: set[str]) -> dict[str, str]:
    if not isinstance(said, Mapping):
        raise _fault(spec, f"must have texts by question in Scores.{name}, got {shown(said)}")
    if others := [id for id in said if id not in ids]:
        raise _fault(spec, f"names question {shown(others[0])} in Scores.{name}, which was not asked")
    return {id: str(text) for id, text in said.items()}


def _fault(spec: BenchmarkSpec, problem: str) -> PluginError:
    error = PluginError(f"Benchmark '{spec.name}': {problem}. Report it to its author.")
    error.plugin, error.step = f"benchmark '{spec.name}'", "score"
    return error


def _same_readings(figures: Sequence[Figure]) -> list[Figure]:
    """The readings that say the same as the default one."""
    default = {(figure.name, figure.judge): figure for figure in figures if not figure.reading}
    return [
        figure
        for figure in figures
        if figure.reading and (other := default.get((figure.name, figure.judge))) and _equal(figure, other)
    ]


def _equal(first: Figure, second: Figure) -> bool:
    whole = np.array([first.of(), second.of()])
    return bool(
        np.allclose(first.values, second.values, rtol=0, atol=_CLOSE, equal_nan=True)
        and np.allclose(whole[0], whole[1], rtol=0, atol=_CLOSE, equal_nan=True)
    )
