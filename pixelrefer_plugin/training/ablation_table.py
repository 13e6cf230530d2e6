"""Figures of an ablation's cells: rows over the seeds with intervals, comparisons of settings, tables.

It reads what a finished run has left in its folder; it trains nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

_SHARE_ENDINGS = ("exact_match", "_small", "_large", "giou", "ciou", "j_and_f")
_NOT_COLUMNS = ("loss", "mask_loss")
# 97.5 % quantiles of Student's t, for 1, 2, ... degrees of freedom.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
_NORMAL = 1.96
_SAME = 1e-9

SMALL, LARGE, GAP = "exact_match_small", "exact_match_large", "exact_match_large_less_small"


@dataclass(frozen=True)
class FinishedCell:
    """What a finished run has to say.

    Attributes:
        labels: its value on each axis.
        seed: of the training.
        figures: by name, such as `exact_match`; `exact_match_small` and `_large` of small and of large regions, and
            how much less the small ones have.
        seconds: that it took.
    """

    labels: Mapping[str, str]
    seed: int
    figures: Mapping[str, float]
    seconds: float

    @classmethod
    def read(cls, folder: Path, labels: Mapping[str, str], seed: int, *, small_px: int) -> FinishedCell:
        """Those of a run's folder.

        Raises:
            OSError: it has no results.
            ValueError: its results cannot be read.
        """
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        found = {
            name.removeprefix("eval_"): float(value)
            for name, value in metrics.items()
            if name.startswith("eval_") and type(value) in (int, float)
        }
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        return cls(labels, seed, found | _by_size(folder / "answers.jsonl", small_px), float(record["seconds"]))


def _by_size(path: Path, small_px: int) -> dict[str, float]:
    """Exact answers about small and about large regions, where there are both."""
    if not path.is_file():
        return {}
    answers = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    sized = [each for each in answers if each.get("area_px") is not None]
    small = [bool(each["exact"]) for each in sized if each["area_px"] < small_px]
    large = [bool(each["exact"]) for each in sized if each["area_px"] >= small_px]
    if not small or not large:
        return {}
    return {SMALL: fmean(small), LARGE: fmean(large), GAP: fmean(large) - fmean(small)}


@dataclass(frozen=True)
class Mean:
    """A figure over several seeds.

    Attributes:
        values: of each seed.
        mean: of them.
        low: lower end of its 95 % interval by Student's t; NaN of a single value, and of values that are all the same
            and so tell nothing of chance.
        high: upper end.
    """

    values: tuple[float, ...]
    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """Of at least one value."""
        mean, count = fmean(values), len(values)
        if count < 2 or max(values) - min(values) < _SAME:
            return cls(tuple(values), mean, math.nan, math.nan)
        quantile = _T[count - 2] if count - 2 < len(_T) else _NORMAL
        half = quantile * stdev(values) / math.sqrt(count)
        return cls(tuple(values), mean, mean - half, mean + half)

    def as_record(self) -> dict[str, Any]:
        """For JSON, which has no NaN."""
        return {name: None if value != value else value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Row:
    """One setting: its figures over all its seeds."""

    labels: Mapping[str, str]
    seeds: tuple[int, ...]
    figures: Mapping[str, Mean]

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        figures = {name: mean.as_record() for name, mean in self.figures.items()}
        return {"labels": dict(self.labels), "seeds": list(self.seeds), "figures": figures}


def rows_of(cells: Sequence[FinishedCell], axes: Sequence[str]) -> list[Row]:
    """The settings that have a finished cell, in the grid's order."""
    together: dict[tuple[str, ...], list[FinishedCell]] = {}
    for cell in cells:
        together.setdefault(tuple(cell.labels[axis] for axis in axes), []).append(cell)
    return [
        Row(
            found[0].labels,
            tuple(cell.seed for cell in found),
            {name: Mean.of([cell.figures[name] for cell in found]) for name in _common(found)},
        )
        for found in together.values()
    ]


def _common(cells: Sequence[FinishedCell]) -> list[str]:
    return [name for name in cells[0].figures if all(name in cell.figures for cell in cells)]


# -- comparisons -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """What is said: that one setting has a larger figure than another."""

    more: Mapping[str, str]
    less: Mapping[str, str]
    figure: str
    about: str = ""


@dataclass(frozen=True)
class Compared:
    """Whether that is so here.

    Attributes:
        said: what is said.
        difference: of the figure, between cells that are alike in all but what is compared, the seed included; None
            where no two of them are finished.
    """

    said: Comparison
    difference: Mean | None

    @property
    def verdict(self) -> str:
        """`holds` or `the reverse holds` where the interval leaves out 0; else `not decided`."""
        if self.difference is None:
            return "not run"
        if self.difference.low > 0:
            return "holds"
        return "the reverse holds" if self.difference.high < 0 else "not decided"

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        difference = None if self.difference is None else self.difference.as_record()
        return {**asdict(self.said), "difference": difference, "verdict": self.verdict}


def compared(cells: Sequence[FinishedCell], said: Comparison) -> Compared:
    """Cell by cell, of the same seed and the same values on all other axes."""
    more, less = (_by_rest(cells, labels, said.figure) for labels in (said.more, said.less))
    differences = [value - less[rest] for rest, value in more.items() if rest in less]
    return Compared(said, Mean.of(differences) if differences else None)


def _by_rest(cells: Sequence[FinishedCell], labels: Mapping[str, str], figure: str) -> dict[Any, float]:
    """The figure of the cells with these labels, by their seed and their other labels."""
    return {
        (cell.seed, *(label for axis, label in cell.labels.items() if axis not in labels)): cell.figures[figure]
        for cell in cells
        if figure in cell.figures and all(cell.labels[axis] == label for axis, label in labels.items())
    }


# -- tables ------------------------------------------------------------------------------------------------


def tables_of(
    rows: Sequence[Row], axes: Sequence[str], figures: Sequence[str], comparisons: Sequence[Compared]
) -> list[list[list[str]]]:
    """Two tables as cells of text: settings by figures, and what was compared."""
    columns = [*figures] or [
        name for name in dict.fromkeys(name for row in rows for name in row.figures) if name not in _NOT_COLUMNS
    ]
    head = [*axes, "seeds", *(column.replace("_", " ") for column in columns)]
    body = [
        [*(row.labels[axis] for axis in axes), str(len(row.seeds)), *(_told(row, column) for column in columns)]
        for row in rows
    ]
    said = [["said to have more", "than", "figure", "in", "difference", "here"]]
    said += [list(_comparison_cells(each)) for each in comparisons]
    return [[head, *body], said if comparisons else []]


def _told(row: Row, column: str) -> str:
    mean = row.figures.get(column)
    return "-" if mean is None else _with_interval(mean, column)


def _with_interval(mean: Mean, name: str, sign: str = "") -> str:
    """`94.2 (91.0 to 97.4)`: the mean and its interval; shares times 100."""
    scale, form = (100, ".1f") if name.endswith(_SHARE_ENDINGS) else (1, ".4g")
    value, low, high = (f"{scale * each:{sign}{form}}" for each in (mean.mean, mean.low, mean.high))
    return value if mean.low != mean.low else f"{value} ({low} to {high})"


def _comparison_cells(each: Compared) -> Iterator[str]:
    yield ", ".join(each.said.more.values())
    yield ", ".join(each.said.less.values())
    yield each.said.figure.replace("_", " ")
    yield each.said.about
    yield "-" if each.difference is None else _with_interval(each.difference, each.said.figure, "+")
    yield each.verdict


def markdown_of(result: Mapping[str, Any]) -> str:
    """An ablation's result as Markdown."""
    parts = [f"# {result['title']}", _about_intervals(result)]
    parts += [_table(table) for table in result["tables"] if table]
    missing = [each for each in result["cells"] if each["state"] != "finished"]
    if missing:
        lines = [
            f"- {each['folder']}: {each['state']}{'. ' + each['error'] if each['error'] else ''}" for each in missing
        ]
        parts.append("\n".join(["Cells without a result:", "", *lines]))
    return "\n\n".join(parts) + "\n"


def _about_intervals(result: Mapping[str, Any]) -> str:
    small = result["grid"]["small_px"]
    return (
        "Means over the seeds with their 95 % intervals (Student's t); shares times 100. Differences are of cells that "
        f"are alike in all else, the seed included. Small regions have fewer than {small:,} pixels."
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
