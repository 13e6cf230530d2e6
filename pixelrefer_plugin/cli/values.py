"""Types of the command line's values: paths, models and texts. What cannot be one is refused before anything is read,
and an address, an escaped or a backslashed path is named as what it is.

It looks at names, and at what lies on the disk under them; it opens nothing.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import click

from ..contracts.messages import require_unicode
from ..errors import PromptError, shown
from ..media.paths import other_readings, path_shown

MOST_TEXT = 10_000
"""Characters of a question: far more than people write, far fewer than fill a model's context."""

_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)://(?P<rest>.*)", re.DOTALL)
_HUB = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/(?P<id>[^/?#\s]+/[^/?#\s]+)/?")
_MISSING = (errno.ENOENT, errno.ENOTDIR)


class PathType(click.ParamType[Path]):
    """A path: of what is read, or of what is to be written.

    Args:
        reads: whether what it names is read; then a pipe or a device, which may have one wait for ever, is refused.
        takes_pipes: whether a pipe is read all the same, by a reader that waits for a while only.
    """

    name = "path"

    def __init__(self, *, reads: bool, takes_pipes: bool = False) -> None:
        self._reads = reads
        self._takes_pipes = takes_pipes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Check `value`."""
        if isinstance(value, Path):  # a default
            return value
        if problem := path_problem(value, reads=self._reads, takes_pipes=self._takes_pipes):
            self.fail(problem, param, ctx)
        return Path(value)


class ModelType(click.ParamType[str]):
    """A model folder, or the id of a repository on the hub."""

    name = "model"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check `value`."""
        text = str(value)
        if found := _HUB.fullmatch(text):
            self.fail(f"{path_shown(text)} is an address. Write the id alone: {found['id']}.", param, ctx)
        problem = text_problem(text) or path_problem(text, reads=True)
        if not problem and os.path.isfile(text):
            problem = f"{path_shown(text)} is a file, expected the folder of a model, or an id such as OWNER/NAME."
        if problem:
            self.fail(problem, param, ctx)
        return text


class TextType(click.ParamType[str]):
    """A text or a name, not empty."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check `value`."""
        if problem := text_problem(value):
            self.fail(problem, param, ctx)
        return str(value)


class WholeType(click.ParamType[int]):
    """A whole number.

    Args:
        least: the smallest.
        most: the largest, more than anybody needs and less than a machine breaks at.
    """

    name = "integer"

    def __init__(self, least: int = 1, most: int = 10**9) -> None:
        self._least, self._most = least, most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Check `value`."""
        try:
            number = int(value)
        except ValueError:
            self.fail(f"Expected a whole number, got {shown(value)}.", param, ctx)
        if not self._least <= number <= self._most:
            wanted = f"{self._least:,} or more" if number < self._least else f"{self._most:,} at most"
            self.fail(f"Expected {wanted}, got {shown(number)}.", param, ctx)
        return number


READ = PathType(reads=True)
WRITTEN = PathType(reads=False)
RECIPE = PathType(reads=True, takes_pipes=True)
MODEL = ModelType()
TEXT = TextType()
COUNT = WholeType()


def text_problem(text: str) -> str:
    """What is wrong with a text that must say something; empty where nothing is."""
    if not text.strip():
        return "It is empty."
    if len(text) > MOST_TEXT:
        return f"It has {len(text):,} characters, at most {MOST_TEXT:,} are taken."
    if "\0" in text:
        return f"{path_shown(text)} has a NUL character, which no text has."
    try:
        require_unicode(text)
    except PromptError:
        return f"{path_shown(text)} is no Unicode. Is it in another encoding than UTF-8?"
    return ""


def path_problem(text: str, *, reads: bool, takes_pipes: bool = False) -> str:
    """What is wrong with a path, and what to write instead; empty where nothing is, or the path is merely missing."""
    if not text.strip():
        return "It is empty, expected a path."
    if "\0" in text:
        return f"{path_shown(text)} has a NUL character, which no path has."
    try:
        mode = os.stat(text).st_mode
    except OSError as error:
        if error.errno not in _MISSING:
            return f"{path_shown(text)} cannot be used: {error.strerror or error}."
        return _address(text, reads=reads) or (_meant(text) if reads else "")
    is_pipe = takes_pipes and stat.S_ISFIFO(mode)
    if reads and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or is_pipe):
        return f"{path_shown(text)} is neither a file nor a folder."
    return ""


def _address(text: str, *, reads: bool) -> str:
    found = _SCHEME.fullmatch(text)
    if found is None:
        return ""
    if found["scheme"].lower() == "file":
        path = unquote(found["rest"]).removeprefix("localhost")
        return f"{path_shown(text)} is an address. Write the path alone: {path_shown(path)}."
    if not reads:
        return f"{path_shown(text)} is an address. Files are written on this machine only: give a path."
    return f"{path_shown(text)} is an address, and nothing is downloaded. Download it first, then give the file's path."


def _meant(text: str) -> str:
    """What is there under a name that is written a little otherwise."""
    for why, path in other_readings(text):
        if os.path.exists(path):
            return f"There is no {path_shown(text)}: {why}. There is {path_shown(path)}."
    return ""
