"""What users see: errors in one line without a traceback, and nothing of what libraries tell developers."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from logging import ERROR, getLogger
from typing import IO, Any

import click

from ..errors import ConfigError, PixelReferError, PluginCodeError, PluginError, SampleError, SpliceError, sample_name
from .help import HelpContext
from .options import CheckedCommand

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C ended, as shells have it: 128 and the number of the signal."""


EMPTY = "(empty answer)"
"""What people are shown for an answer without a word."""

_OBEYED = re.compile(r"[\x07\x08\x0b-\x0f\x1b\x7f-\x9f]")

_MOST_WORD = 300  # characters without a blank, in a message
_MOST_LINE = 2000
_MOST_OF_CLICK = 900


TRACEBACK = "PIXELREFER_TRACEBACK"
"""Environment variable: where it is set and not empty, an error is shown with its traceback."""


class Failure(click.ClickException):
    """An error of the user's: one line on stderr, of a configuration one for each wrong key; exit code 2.

    Where the code of a plugin failed, three lines: which plugin in which step; at which place; why.
    """

    exit_code = 2

    def __init__(self, *errors: Exception | str) -> None:
        super().__init__("\nError: ".join(map(told, errors)))

    def show(self, file: IO[Any] | None = None) -> None:
        if os.environ.get(TRACEBACK) and self.__cause__ is not None:
            click.echo("".join(traceback.format_exception(self.__cause__)), file=file, err=file is None, nl=False)
        super().show(file)


def told(error: Exception | str) -> str:
    """The text of an error, as the command line shows it."""
    if isinstance(error, ConfigError):
        return "\n".join(shortened(_printable(line)) for line in str(error).splitlines())
    fault = error.__cause__ if isinstance(error, SampleError) else error
    if not isinstance(fault, PluginCodeError) or fault.plugin is None:
        origin = fault.origin if isinstance(fault, PluginError | SpliceError) else ""
        return "\n".join(map(plain, filter(None, [str(error), origin])))
    origin = f" ({fault.distribution})" if fault.distribution else ""
    lines = [f"{fault.plugin[0].upper()}{fault.plugin[1:]}{origin} failed in {fault.step}."]
    if place := _place(error, fault):
        lines.append(f"Where: {place}.")
    return "\n".join(map(plain, [*lines, f"Why: {fault.cause}"]))


def _place(error: object, failure: PluginCodeError) -> str:
    """The sample by its name where it is known, else by its index; and the place in it."""
    if not isinstance(error, SampleError):
        return failure.place
    return ", ".join(filter(None, (sample_name(error.sample_id, error.where), failure.place_in_sample)))


class ReportingGroup(click.Group):
    """Reports `PixelReferError` as a `Failure`, Ctrl-C and what the system refuses, instead of a traceback."""

    command_class = CheckedCommand
    context_class = HelpContext

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        """As click has it."""
        for stream in (sys.stdout, sys.stderr):  # names of files need not be Unicode, nor the terminal be UTF-8
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        with _shortening(), _told_refusals():
            return super().make_context(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        # Pillow warns of a picture that reading it then refuses.
        warnings.filterwarnings("ignore", message=".*could be decompression bomb", category=RuntimeWarning)
        try:
            with _shortening(), _told_refusals():
                return super().invoke(ctx)
        except PixelReferError as error:
            raise Failure(error) from error
        except KeyboardInterrupt:
            click.echo("\nStopped.", err=True)
            raise SystemExit(INTERRUPTED) from None


@contextmanager
def _told_refusals() -> Iterator[None]:
    """What the system refuses, such as a full disk, is told as an error of the user's."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EPIPE:  # whoever reads the output has seen enough: click ends quietly
            raise
        name = f"'{error.filename}': " if error.filename else ""
        raise Failure(f"{name}{error.strerror or error}.") from error


@contextmanager
def _shortening() -> Iterator[None]:
    """Click puts values into its messages as they are, however long; each line of them is shown as ours are."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        lines = error.format_message().splitlines()
        raise click.UsageError(
            "\n".join(_ends(plain(line), _MOST_OF_CLICK, "...") for line in lines), error.ctx
        ) from error


def plain(text: str) -> str:
    """On one line of bounded length, and without what a terminal would obey."""
    return shortened(_printable(" ".join(text.split())))


def _printable(line: str) -> str:
    return "".join(each if each.isprintable() else " " for each in line)


def for_terminal(text: str) -> str:
    """A text of a model's, in its lines, without what a terminal would obey."""
    return _OBEYED.sub(" ", text)


def shortened(line: str) -> str:
    """A line without what is too long for one to read: of long words, and of the line, the middle is left out."""
    line = re.sub(rf"\S{{{_MOST_WORD + 1},}}", lambda found: _ends(found[0], _MOST_WORD, "..."), line)
    return _ends(line, _MOST_LINE, " ... ")


def _ends(text: str, most: int, between: str) -> str:
    if len(text) <= most:
        return text
    half = (most - len(between)) // 2
    return f"{text[:half]}{between}{text[-half:]}"


def json_of(record: Mapping[str, Any]) -> str:
    """For `--json`: readable in any script, and UTF-8 though a file's name is not."""
    return json.dumps(record, ensure_ascii=False).encode(errors="backslashreplace").decode()


_NOISY = ("bitsandbytes", "kernels", "accelerate", "peft", "torchao", "torch", "PIL", "httpx", "filelock")
"""Loggers that say which kernels they do without, and the like."""
_OF_OTHERS = r"(?!pixelrefer)"


def quiet_libraries() -> None:
    """Keep the libraries' progress bars and notes to developers out of what the user reads."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else tokenizers warn as soon as a process is forked
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    hub_logging.set_verbosity_error()
    if "TRANSFORMERS_VERBOSITY" not in os.environ:
        logging.set_verbosity_error()
    for name in _NOISY:
        getLogger(name).setLevel(ERROR)
    warnings.filterwarnings("ignore", module=_OF_OTHERS)
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message="This DataLoader will create .* worker processes", category=UserWarning)
