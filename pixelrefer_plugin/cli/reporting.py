"""What users see: errors in one line without a traceback, and nothing of what libraries tell developers."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from logging import ERROR, getLogger
from typing import Any

import click

from ..errors import ConfigError, PixelReferError

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C ended, as shells have it: 128 and the number of the signal."""


class Failure(click.ClickException):
    """An error of the user's: one line on stderr, of a configuration one for each wrong key; exit code 2."""

    exit_code = 2

    def __init__(self, error: Exception | str) -> None:
        super().__init__(str(error) if isinstance(error, ConfigError) else plain(str(error)))


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
