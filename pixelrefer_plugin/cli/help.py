"""Help that fits its terminal, however narrow: click itself writes 50 columns at least, and examples as they stand."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable

import click

_NARROW = 60  # columns; below them a description stands under its option, not beside it
_LEAST = 20
_VALUE = r"""(?:"[^"]*"|'[^']*'|[^\s"'])+"""
_WORD = re.compile(rf"--[a-z-]+ (?![-\\]){_VALUE}|{_VALUE}")  # an option and its value are one


class HelpFormatter(click.HelpFormatter):
    """Writes help as wide as the terminal, or as `max_width`."""

    def __init__(self, indent_increment: int = 2, width: int | None = None, max_width: int | None = None) -> None:
        columns = shutil.get_terminal_size().columns if width is None else width
        fitting = max(min(columns, max_width or 80) - 2, _LEAST) if width is None else width
        super().__init__(indent_increment, fitting, max_width)

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """As click has it; in narrow terminals one below the other."""
        if self.width >= _NARROW:
            super().write_dl(rows, col_max, col_spacing)
            return
        for term, text in rows:
            self.write_text(term)
            with self.indentation(), self.indentation():
                self.write_text(text)

    def getvalue(self) -> str:
        """As click has it, but for examples that are too long: they go on in a further line, as a shell reads it."""
        return "".join(_fitted(line, self.width) for line in super().getvalue().splitlines(keepends=True))


class HelpContext(click.Context):
    """Has help written so."""

    formatter_class = HelpFormatter


def _fitted(line: str, width: int) -> str:
    if len(line.rstrip("\n")) <= width or ("pixelrefer" not in line and not line.startswith("    ")):
        return line
    indent = " " * (len(line) - len(line.lstrip()))
    words = _WORD.findall(line)
    lines, current = [], indent + words[0]
    for word in words[1:]:
        if word == "\\":
            current += " \\"
        elif len(current) + len(word) + 3 > width:
            lines.append(f"{current} \\")
            current = f"{indent}    {word}"
        else:
            current += f" {word}"
    return "\n".join([*lines, current]) + "\n"
