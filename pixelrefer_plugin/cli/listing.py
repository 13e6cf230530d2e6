"""The table of `pixelrefer plugins`: a row for each plugin, and for all else that it registers."""

from __future__ import annotations

import dataclasses
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .reporting import plain

if TYPE_CHECKING:
    from ..plugins import Kind, PluginInfo

_COLUMNS = ("name", "kind", "distribution", "version", "status")
_INDENT = "    "
_MOST_CHARACTERS = 30  # of a name or a version


class Listed:
    """A plugin, and what a trial shows of the things that it registers."""

    def __init__(self, plugin: PluginInfo) -> None:
        self.plugin = plugin
        self._cannot_run: dict[tuple[Kind, str], str] = {}

    def try_it(self) -> None:
        """Try all that it registers, unless it is broken."""
        if self.plugin.is_broken or not self.plugin.specs:
            return
        from ..testing.trial import why_it_cannot_run

        reasons = {(kind, name): why_it_cannot_run(kind, name) for kind, name in self.plugin.specs}
        self._cannot_run = {spec: reason for spec, reason in reasons.items() if reason}

    @property
    def fails(self) -> bool:
        """Whether it is broken, or something that it registers cannot run."""
        return self.plugin.is_broken or bool(self._cannot_run)

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        told = dataclasses.asdict(self.plugin)
        if self._cannot_run:
            told["status"] = f"cannot run: {'; '.join(self._cannot_run.values())}"
        return told

    def rows(self) -> Iterator[dict[str, str]]:
        """A row for each thing that it registers, its own name first; one for itself where that is not known."""
        row, name = dataclasses.asdict(self.plugin), self.plugin.name
        specs = () if self.plugin.is_broken else self.plugin.specs
        if name not in (each for _, each in specs):
            yield row
        for kind, other in sorted(specs, key=lambda spec: spec[1] != name):
            reason = self._cannot_run.get((kind, other))
            status = "loaded" if other == name else f"loaded with {name}"
            yield {**row, "name": other, "kind": kind, "status": f"cannot run: {reason}" if reason else status}


def table_of(found: Sequence[Listed]) -> str:
    """The plugins as a table as wide as the terminal; what is wrong with one stands below it, where it is too long."""
    width = max(60, shutil.get_terminal_size().columns)
    rows = [tuple(_cell(column, row[column]) for column in _COLUMNS) for each in found for row in each.rows()]
    widths = [max(len(line[at]) for line in (_COLUMNS, *rows)) for at in range(len(_COLUMNS) - 1)]
    short = max((len(row[-1]) for row in rows if ": " not in row[-1]), default=0)
    gap = 2 if sum(widths) + 2 * len(widths) + short <= width else 1
    return "\n".join(line for row in (_COLUMNS, *rows) for line in _lines(row, [each + gap for each in widths], width))


def training_free_of(found: Sequence[Listed]) -> str:
    """Which adapters need no training, for below the table."""
    names = sorted({name for each in found if not each.plugin.is_broken for name in each.plugin.training_free})
    told = plain(f"Adapters that need no training: {', '.join(names) or 'none'}")
    return textwrap.fill(told, max(60, shutil.get_terminal_size().columns), subsequent_indent=_INDENT)


def _cell(column: str, value: str) -> str:
    """What stands in a column, short enough to leave room for the others."""
    if column == "kind" and value.count("+") > 1:
        return f"{value.count('+') + 1} kinds"
    text = plain(value)
    return text if column == "status" or len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 3]}..."


def _lines(row: Sequence[str], widths: Sequence[int], width: int) -> Iterator[str]:
    *cells, status = row
    start = "".join(cell.ljust(each) for cell, each in zip(cells, widths, strict=True))
    fits = len(start) + len(status) <= width
    word, mark, reason = status.partition(": ") if ": " in status else status.partition(" with ")
    if fits or not reason:
        yield f"{start}{status}"
        return
    yield f"{start}{word}"
    reason = reason if mark == ": " else f"with {reason}"
    yield from textwrap.wrap(reason, width, initial_indent=_INDENT, subsequent_indent=_INDENT)
