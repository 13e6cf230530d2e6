"""What users see: errors in one line without a traceback, and nothing of what libraries tell developers."""

from __future__ import annotations

import json
import os
import traceback
import warnings
from collections.abc import Mapping
from logging import ERROR, getLogger
from typing import IO, Any

import click

from ..errors import ConfigError, PixelReferError, PluginCodeError, PluginError, SampleError, SpliceError, sample_name

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C ended, as shells have it: 128 and the number of the signal."""


TRACEBACK = "PIXELREFER_TRACEBACK"
"""Environment variable: where it is set and not empty, an error is shown with its traceback."""


class Failure(click.ClickException):
    """An error of the user's: one line on stderr, of a configuration one for each wrong key; exit code 2.

    Where the code of a plugin failed, three lines: which plugin in which step; at which place; why.
    """

    exit_code = 2

    def __init__(self, error: Exception | str) -> None:
        super().__init__(told(error))

    def show(self, file: IO[Any] | None = None) -> None:
        if os.environ.get(TRACEBACK) and self.__cause__ is not None:
            click.echo("".join(traceback.format_exception(self.__cause__)), file=file, err=file is None, nl=False)
        super().show(file)


def told(error: Exception | str) -> str:
    """The text of an error, as the command line shows it."""
    if isinstance(error, ConfigError):
        return str(error)
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
    """Reports `PixelReferError` as a `Failure`, and Ctrl-C, instead of a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        # Pillow warns of a picture that reading it then refuses.
        warnings.filterwarnings("ignore", message=".*could be decompression bomb", category=RuntimeWarning)
        try:
            return super().invoke(ctx)
        except PixelReferError as error:
            raise Failure(error) from error
        except KeyboardInterrupt:
            click.echo("\nStopped.", err=True)
            raise SystemExit(INTERRUPTED) from None


def plain(text: str) -> str:
    """On one line, and without what a terminal would obey."""
    return "".join(each if each.isprintable() else " " for each in " ".join(text.split()))


def json_of(record: Mapping[str, Any]) -> str:
    """For `--json`: readable in any script, and UTF-8 though a file's name is not."""
    return json.dumps(record, ensure_ascii=False).encode(errors="backslashreplace").decode()


def quiet_libraries() -> None:
    """Keep the libraries' progress bars and notes to developers out of what the user reads."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    hub_logging.set_verbosity_error()
    getLogger("bitsandbytes").setLevel(ERROR)  # says on import which kernels it does without
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message="This DataLoader will create .* worker processes", category=UserWarning)
