"""A report as a table for the terminal, 60 columns wide or more."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...errors import counted
from ..scoring.resampling import Difference, Estimate
from .report import BenchmarkReport, Report
from .text import UNKNOWN, interval, number, signed, told_counts, told_ranking

LEAST_WIDTH = 60
_MOST_NOTES = _MOST_PUBLISHED = 12
_MOST_GROUPS = 24
_MOST_CHARACTERS = 300  # of a note or a name


def table_of(report: Report, *, width: int) -> str:
    """All benchmarks of a report, one below the other, as text without colours or what a terminal would obey."""
    file = io.StringIO()
    console = Console(
        file=file, width=max(LEAST_WIDTH, width), color_system=None, highlight=False, markup=False, emoji=False
    )
    for each in report.benchmarks:
        _print(console, each)
    return "\n".join(line.rstrip() for line in file.getvalue().rstrip().splitlines())


def _print(console: Console, report: BenchmarkReport) -> None:
    judge = f", judge {report.judge}" if report.judge else ""
    console.print(_text(f"{report.spec.name}: {counted(len(report.questions), 'question')}{judge}"))
    if report.is_ranked:
        for label in report.labels:
            console.print(_ranked(report, label))
        for line in told_ranking(report):
            console.print(_text(line))
    else:
        console.print(_figures(report))
    for column in report.columns:
        console.print(_text(f"{column.label}: {told_counts(column.result)}"))
    for note in report.all_notes[:_MOST_NOTES]:
        console.print(_text(f"Note: {note}"))
    for each in report.published[:_MOST_PUBLISHED]:
        told = ", ".join(f"{name} {number(value, report.scale_of(name))}" for name, value in each.figures.items())
        by = f", judge {each.judge}" if each.judge else ""
        console.print(_text(f"Published: {each.model}: {told}{by} ({each.source})"))
    if len(report.published) > _MOST_PUBLISHED:
        console.print(_text(f"... and {len(report.published) - _MOST_PUBLISHED} more."))
    console.print()


def _figures(report: BenchmarkReport) -> Table:
    """Every figure, and the main one by groups."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("figure", overflow="fold", ratio=None)
    for column in report.columns:
        table.add_column(_text(column.label), overflow="fold")
    for column in report.columns[1:]:
        table.add_column(_text(f"{column.label} less {report.columns[0].label}"), overflow="fold")
    for row in _rows(report):
        table.add_row(*(_text(cell) for cell in row))
    return table


def _ranked(report: BenchmarkReport, label: str) -> Table:
    """A figure of every way, the best first, and the main one for regions of each size; those not asked at the end."""
    sizes = list(report.columns[0].result.main.groups.get("size", ())) if label == report.labels[0] else []
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    head = [label, "all", *([f"less {report.columns[0].label}"] if len(report.columns) > 1 else []), *sizes]
    for each in head:
        table.add_column(_text(each), overflow="fold")
    scale = report.figure(label).figure.scale
    apart = [None, *(each.overall.get(label) for each in report.comparisons)]
    for column, difference in zip(report.columns, apart, strict=True):
        found = column.result.figure(label)
        cells = [column.label, _cell(found.overall if found else None, scale)]
        cells += [_apart(difference, scale)] if len(report.columns) > 1 else []
        cells += [_cell(column.result.main.groups["size"].get(size), scale) for size in sizes]
        table.add_row(*(_text(cell) for cell in cells))
    for name in report.not_asked:
        table.add_row(_text(name), _text("not asked"))
    return table


def _rows(report: BenchmarkReport) -> Iterator[Sequence[str]]:
    for label in report.labels:
        scale = report.figure(label).figure.scale
        found = [column.result.figure(label) for column in report.columns]
        cells = [_cell(each.overall if each else None, scale) for each in found]
        yield [label, *cells, *(_apart(each.overall.get(label), scale) for each in report.comparisons)]
        if label == report.labels[0]:
            yield from _groups(report, scale)


def _groups(report: BenchmarkReport, scale: float) -> Iterator[Sequence[str]]:
    mains = [column.result.main for column in report.columns]
    for split in dict.fromkeys(name for main in mains for name in main.groups):
        groups = list(dict.fromkeys(name for main in mains for name in main.groups.get(split, ())))
        for group in groups[:_MOST_GROUPS]:
            found = [main.groups.get(split, {}).get(group) for main in mains]
            counted = max(each.counted for each in found if each)
            apart = [each.groups.get(split, {}).get(group) for each in report.comparisons]
            yield [
                f"  {group} (n {counted:,})",
                *(_cell(each, scale) for each in found),
                *(_apart(each, scale) for each in apart),
            ]
        if len(groups) > _MOST_GROUPS:
            yield [f"  ... and {len(groups) - _MOST_GROUPS:,} more groups"]


def _cell(estimate: Estimate | None, scale: float) -> str:
    if estimate is None:
        return UNKNOWN
    ends = interval(estimate, scale)
    return number(estimate.value, scale) + (f" ({ends})" if ends else "")


def _apart(difference: Difference | None, scale: float) -> str:
    if difference is None:
        return UNKNOWN
    ends = interval(difference, scale)
    return signed(difference, scale) + (f" ({ends})" if ends else "")


def _text(value: str) -> Text:
    """On one line of bounded length, without what a terminal would obey."""
    plain = "".join(each if each.isprintable() else " " for each in value)
    return Text(plain if len(plain) <= _MOST_CHARACTERS else f"{plain[: _MOST_CHARACTERS - 3]}...")
