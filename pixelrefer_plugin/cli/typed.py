"""What is typed into `pixelrefer chat`: its commands, and how what follows them is read. It knows text only."""

from __future__ import annotations

import os
import re
import shlex
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import PromptError, shown
from .values import path_problem

_COMMANDS = (
    ("/click X Y [NAME] [@FRAME]", "add an object by a click, by several with X Y; X Y; in a video on frame @12, or at "
     "@3.5s"),
    ("/box X1 Y1 X2 Y2 [NAME] [@FRAME]", "by a box"),
    ("/polygon X Y X Y X Y [NAME] [@FRAME]", "by an outline of three or more points"),
    ("/scribble X Y X Y [NAME] [@FRAME]", "by a freehand line through two or more points"),
    ("/mask FILE.png [NAME] [@FRAME]", "by a mask picture; in a video also by a folder, 00012.png for frame 12"),
    ("/segment TEXT", "ask for a mask of what TEXT names, which becomes an object"),
    ("/objects", "list the objects"),
    ("/rename ID NAME, /drop ID", "rename or forget one"),
    ("/draw FILE", "draw them: .png or .jpg, of a video .mp4 or .gif"),
    ("/save FILE.json, /load FILE.json", "write them, or read them in place of these"),
    ("/undo", "forget the last question and its answer, or take back the last change of objects"),
    ("/clear, /clear all", "forget all questions and answers; with all, the objects too"),
    ("/help, /quit", ""),
)  # fmt: skip
_MARGIN = 37  # where descriptions begin


def help_of(width: int) -> str:
    """The commands, in lines of at most `width` columns."""
    beside = width >= 2 * _MARGIN
    lines = textwrap.wrap("A line is a question; [2] in it calls object 2. Commands:", width)
    for usage, what in _COMMANDS:
        margin = " " * (_MARGIN if beside else 6)
        text = textwrap.wrap(what, max(width, 20), initial_indent=margin, subsequent_indent=margin)
        if beside and text and len(usage) + 3 <= _MARGIN:
            lines += [f"  {usage:<{_MARGIN - 2}}{text[0].strip()}", *text[1:]]
        else:
            lines += [*textwrap.wrap(usage, width, initial_indent="  ", subsequent_indent="    "), *text]
    note = "In place of NAME, [2] adds to object 2: a click to its clicks, or what it is on another frame of a video."
    return "\n".join([*lines, *textwrap.wrap(note, width)])


_NUMBERS = re.compile(r"(?:[\s,;]*[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?=[\s,;]|$))+")


@dataclass(frozen=True)
class Typed:
    """Coordinates, and what follows them: a name, and the frame of a video or the time when it is on screen."""

    values: tuple[float, ...]
    name: str | None
    frame: int | None
    time_s: float | None

    @property
    def is_placed(self) -> bool:
        return self.frame is not None or self.time_s is not None

    @classmethod
    def numbers(cls, text: str, count: int, *, usage: str) -> Typed:
        """So many numbers, apart by spaces or commas, and the rest."""
        words = re.split(r"[\s,]+", text.strip(), maxsplit=count)
        try:
            values = tuple(float(word) for word in words[:count])
        except ValueError:
            values = ()
        if len(values) != count:
            raise PromptError(f"Expected {usage}, got {shown(text)}.")
        return cls.of(values, words_of(" ".join(words[count:])))

    @classmethod
    def pairs(cls, text: str, least: int, *, usage: str) -> Typed:
        """So many pairs of numbers or more, apart by spaces, commas or semicolons, and the rest."""
        found = _NUMBERS.match(text)
        values = tuple(float(number) for number in re.split(r"[\s,;]+", found[0].strip(" \t,;"))) if found else ()
        if len(values) % 2 or len(values) < 2 * least:
            raise PromptError(f"Expected {usage}, got {shown(text)}.")
        return cls.of(values, words_of(text[found.end() :] if found else ""))

    @classmethod
    def of(cls, values: tuple[float, ...], rest: Sequence[str]) -> Typed:
        """The rest: words of a name, and `@12` or `@3.5s` at the end."""
        *name, last = rest or [""]
        if not last.startswith("@"):
            return cls(values, " ".join(rest) or None, None, None)
        frame = re.fullmatch(r"@(\d{1,9})", last)
        time = re.fullmatch(r"@(\d{1,9}(?:\.\d*)?)s", last)
        if not frame and not time:
            raise PromptError(f"Expected a frame such as @12, or seconds such as @3.5s, got {shown(last)}.")
        return cls(values, " ".join(name) or None, int(frame[1]) if frame else None, float(time[1]) if time else None)


def words_of(text: str) -> list[str]:
    """The words, as a shell parts them."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise PromptError(f"{shown(text)} cannot be read: {error}. Quotes come in pairs.") from error


def id_of(text: str) -> int:
    """The number of an object, with or without its brackets."""
    if not re.fullmatch(r"\[?\d{1,9}\]?", text):
        raise PromptError(f"Expected the number of an object, got {shown(text)}. /objects lists them.")
    return int(text.strip("[]"))


def path_of(text: str, usage: str, *, reads: bool = False) -> Path:
    """The one path that is typed; `reads` whether what it names is to be read."""
    words = words_of(text)
    if len(words) != 1:
        raise PromptError(f"Expected {usage}, got {shown(text)}.")
    return as_path(words[0], reads=reads)


def as_path(text: str, *, reads: bool) -> Path:
    """A path; no shell has read it."""
    expanded = os.path.expanduser(text)
    if problem := path_problem(expanded, reads=reads):
        raise PromptError(problem)
    return Path(expanded)
