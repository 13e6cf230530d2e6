"""What is told of a measurement: its benchmarks, the answers that were scored, and how sure the figures are; as JSON.

It knows results; no model. The terminal's table and the page are made of the same report.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...contracts.benchmark import BenchmarkSpec, Prompt
from ...contracts.questions import Answer, Question
from ...errors import EvaluationError, shown
from ...files import write_text_whole
from ...plugins import distribution_of, get_benchmark, host, in_plugin
from ..scoring.listing import published_by_model
from ..scoring.resampling import RESAMPLES, SHARE, Difference, Estimate
from ..scoring.scoring import Comparison, FigureResult, Result, compare
from ..scoring.standing import Standing, standing_of, standings_by_group

FORMAT = 1
SHARES = 100.0
"""The scale of figures from 0 to 1 that people read in percent."""

_LIBRARIES = ("pixelrefer-plugin", "torch", "transformers", "numpy")


@dataclass(frozen=True, eq=False)
class Column:
    """One set of answers.

    Attributes:
        label: what to call it.
        source: the model, or the file that the answers were read from.
        answers: in the order of the questions.
        result: their score.
    """

    label: str
    source: str
    answers: Sequence[Answer]
    result: Result


class PublishedModel(NamedTuple):
    """What one source says of one model: figures by their names."""

    model: str
    judge: str
    source: str
    figures: Mapping[str, float]


@dataclass(frozen=True, eq=False, kw_only=True)
class BenchmarkReport:
    """A benchmark, and the sets of answers to the same questions of it.

    Attributes:
        spec: the benchmark.
        config: its options.
        questions: those that were scored.
        columns: one or more, the first is what the others are compared with.
        asked_of: how many questions the benchmark has, where fewer were scored; else None.
        why_fewer: why fewer were scored.
        judge: the judge's name; empty where there was none.
        encoder: the sentence encoder's; empty where none was used.
        notes: what a reader of the figures must know, beside what the benchmark says.
        is_ranked: whether the columns are ways of asking one model, the best first.
        not_asked: why a way could not be asked, by its label; it has no column.
    """

    spec: BenchmarkSpec
    config: Any
    questions: Sequence[Question]
    columns: Sequence[Column]
    asked_of: int | None = None
    why_fewer: str = ""
    judge: str = ""
    encoder: str = ""
    notes: Sequence[str] = ()
    is_ranked: bool = False
    not_asked: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        labels = [column.label for column in self.columns]
        if twice := next((label for label in labels if labels.count(label) > 1), ""):
            raise EvaluationError(f"Two sets of answers are called {shown(twice)}. Give each a name: NAME=FILE.")

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """Each column but the first, compared with the first."""
        return [compare(self.columns[0].result, other.result) for other in self.columns[1:]]

    @cached_property
    def standing(self) -> Standing | None:
        """Which column is best by the main figure, and whether that is decided; None where none has it."""
        return standing_of({column.label: column.result.main.overall for column in self.columns})

    @cached_property
    def standings_by_size(self) -> dict[str, Standing]:
        """The same for regions of each size."""
        return standings_by_group({column.label: column.result for column in self.columns}, "size")

    @cached_property
    def labels(self) -> list[str]:
        """Of all figures that a column shows, in order, the main one first."""
        return list(dict.fromkeys(each.figure.label for column in self.columns for each in column.result.figures))

    def figure(self, label: str) -> FigureResult:
        """A figure of the first column that has it: its scale and judge are the same in all."""
        return next(found for column in self.columns if (found := column.result.figure(label)))

    def scale_of(self, name: str) -> float:
        """Of the figures of a name; that of shares where there is none."""
        found = (self.figure(label).figure for label in self.labels)
        return next((figure.scale for figure in found if figure.name == name), SHARES)

    @cached_property
    def published(self) -> list[PublishedModel]:
        """The published figures, those of a model, a source and a judge together."""
        return [PublishedModel(*who, figures) for who, figures in published_by_model(self.spec).items()]

    @cached_property
    def prompts(self) -> list[Prompt]:
        """What was asked with."""
        if self.spec.prompts is None:
            return []
        with in_plugin("benchmark", self.spec.name, "prompts"):
            return list(self.spec.prompts(self.config))

    @cached_property
    def all_notes(self) -> list[str]:
        """What a reader must know, each once."""
        same = (each.figure.label for column in self.columns for each in column.result.same_readings)
        return list(
            dict.fromkeys(
                [
                    *self._of_fewer,
                    *self.notes,
                    *(note for column in self.columns for note in column.result.notes),
                    *(f"{label}: the same as the default reading." for label in same if label not in self.labels),
                ]
            )
        )

    @property
    def _of_fewer(self) -> list[str]:
        if self.asked_of is None:
            return []
        return [f"Of {self.asked_of:,} questions {len(self.questions):,} were scored: {self.why_fewer}."]


@dataclass(frozen=True, eq=False, kw_only=True)
class Report:
    """All that was measured by one command.

    Attributes:
        benchmarks: one or more.
        command: what was typed; empty where it was a call in Python.
        made: when, in UTC.
    """

    benchmarks: Sequence[BenchmarkReport]
    command: str = ""
    made: datetime = field(default_factory=lambda: datetime.now(UTC))

    def as_json(self) -> dict[str, Any]:
        """For `report.json`. Figures are as they are computed, before their scale; what is not known is null."""
        return {
            "format": FORMAT,
            "made": self.made.isoformat(timespec="seconds"),
            "command": self.command,
            "versions": {name: metadata.version(name) for name in _LIBRARIES},
            "interval": {"share": SHARE, "resamples": RESAMPLES, "method": "bootstrap, percentiles"},
            "benchmarks": [_benchmark(each) for each in self.benchmarks],
        }

    def save_json(self, path: str | os.PathLike[str]) -> None:
        """Write `as_json`, whole or not at all.

        Raises:
            PixelReferError: it cannot be written.
        """
        text = json.dumps(self.as_json(), indent=2, ensure_ascii=False, allow_nan=False)
        write_text_whole(Path(path), text.encode("utf-8", "replace").decode() + "\n")


def best_and_worst(result: Result, count: int) -> tuple[list[int], list[int]]:
    """Positions of the best and of the worst answers by the main figure, `count` each at most, none in both.

    What is as good as the best is never among the worst, nor what is as bad as the worst among the best. Where all are
    as good as each other, they are the worst if they have no point, else the best. Among answers that are as good as
    each other they are spread evenly over the questions.
    """
    values = result.main.figure.values
    known = np.flatnonzero(~np.isnan(values))
    if not len(known):
        return [], []
    least, most = values[known].min(), values[known].max()
    if least == most:
        some = _lowest(values, known, min(count, len(known)))
        return (some, []) if most > 0 else ([], some)
    below = known[values[known] < most]
    worst = _lowest(values, below, min(count, math.ceil(len(known) / 2), len(below)))
    above = np.setdiff1d(known[values[known] > least], worst)
    return _lowest(-values, above, min(count, len(above))), worst


def _lowest(values: np.ndarray, positions: np.ndarray, count: int) -> list[int]:
    if not count:
        return []
    ordered = positions[np.argsort(values[positions], kind="stable")]
    limit = values[ordered[count - 1]]
    sure = [int(each) for each in ordered if values[each] < limit]
    tied = [int(each) for each in ordered if values[each] == limit]
    spread = np.linspace(0, len(tied) - 1, count - len(sure)).round().astype(int)
    return sure + [tied[each] for each in spread]


# -- JSON --------------------------------------------------------------------------------------------------


def _benchmark(report: BenchmarkReport) -> dict[str, Any]:
    spec = report.spec
    plugin = _plugin(spec)
    return {
        "name": spec.name,
        "about": spec.about,
        **({"plugin": plugin} if plugin else {}),
        "options": plain_options(report.config),
        "prompts": [
            {"name": each.name, "origin": each.origin, "sha256": each.sha256, "text": each.text}
            for each in report.prompts
        ],
        "questions": len(report.questions),
        "questions_of_benchmark": len(report.questions) if report.asked_of is None else report.asked_of,
        "judge": report.judge or None,
        "sentence_encoder": report.encoder or None,
        "notes": report.all_notes,
        "answers": [_column(column) for column in report.columns],
        "differences": [
            {"of": column.label, "to": report.columns[0].label, **_comparison(found)}
            for column, found in zip(report.columns[1:], report.comparisons, strict=True)
        ],
        "published": [dataclasses.asdict(each) for each in spec.published],
        **(_ranking(report) if report.is_ranked else {}),
    }


def _ranking(report: BenchmarkReport) -> dict[str, Any]:
    """Which way is best, and which could not be asked."""
    return {
        "ranking": {
            "figure": report.labels[0],
            **_standing(report.standing),
            "size": {group: _standing(each) for group, each in report.standings_by_size.items()},
        },
        "not_asked": dict(report.not_asked),
    }


def _standing(found: Standing | None) -> dict[str, Any]:
    if found is None:
        return {"best": None, "decided": False, "undecided": [], "behind": {}}
    return {
        "best": found.best,
        "decided": found.is_decided,
        "undecided": found.undecided,
        "behind": {label: _difference(each) for label, each in found.behind.items()},
    }


def _plugin(spec: BenchmarkSpec) -> str:
    """The distribution that it is from; empty for a file of the user's."""
    if spec.name not in host().names("benchmark") or get_benchmark(spec.name) is not spec:
        return ""
    return " ".join(distribution_of("benchmark", spec.name) or ())


def _column(column: Column) -> dict[str, Any]:
    result = column.result
    return {
        "label": column.label,
        "source": column.source,
        "count": len(column.answers),
        "failed": dict(result.failed),
        "empty": list(result.empty),
        "unread": dict(result.unread),
        "same_readings": [each.figure.label for each in result.same_readings],
        "figures": [_figure(each) for each in result.figures],
    }


def _figure(found: FigureResult) -> dict[str, Any]:
    figure = found.figure
    return {
        "label": figure.label,
        "name": figure.name,
        "reading": figure.reading,
        "judge": figure.judge,
        "scale": figure.scale,
        **_estimate(found.overall),
        "groups": {
            split: {name: _estimate(each) for name, each in groups.items()} for split, groups in found.groups.items()
        },
    }


def _comparison(found: Comparison) -> dict[str, Any]:
    return {
        "figures": {label: _difference(each) for label, each in found.overall.items()},
        "groups": {
            split: {name: _difference(each) for name, each in groups.items()} for split, groups in found.groups.items()
        },
    }


def _estimate(each: Estimate) -> dict[str, Any]:
    """A figure with its interval; null where it is not known."""
    ends = {"low": _number(each.low), "high": _number(each.high)}
    return {"value": _number(each.value), **ends, "counted": each.counted, "resamples": len(each.draws)}


def _difference(each: Difference) -> dict[str, Any]:
    return {"value": _number(each.value), "low": _number(each.low), "high": _number(each.high)}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def plain_options(config: Any) -> dict[str, Any]:
    """The options of a benchmark as JSON has them."""
    return {each.name: _plain(getattr(config, each.name)) for each in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    """A value of an option as JSON has it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return _number(value)
    return value if isinstance(value, str | int | bool | None) else str(value)
