"""Java programs, run once on a text. It knows where Java is; no metric."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from ...errors import EvaluationError, shown

_SECONDS = 600.0  # that a program may take, and as long again for every so many lines
_LINES = 2000


@cache
def find_java() -> str | None:
    """The command that runs Java; None where there is none that runs."""
    command = shutil.which("java")
    if command is None:
        return None
    try:  # macOS has a `java` that only says where to get one
        done = subprocess.run([command, "-version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return command if done.returncode == 0 else None


def run_java(what: str, arguments: Sequence[str | Path], lines: Sequence[str]) -> list[str]:
    """What a Java program writes about lines of text: one line for each.

    The text goes through pipes, so that nothing is written into the program's folder.

    Args:
        what: the program does, for messages.
        arguments: of `java`.
        lines: without line breaks.

    Raises:
        EvaluationError: there is no Java, it fails, takes too long, or writes another number of lines.
    """
    command = find_java()
    if command is None:
        raise EvaluationError(
            f"{what} needs Java, and no `java` that runs is on the path. Install a JRE of 8 or later."
        )
    text = "".join(f"{line}\n" for line in lines)
    seconds = _SECONDS * (1 + len(lines) / _LINES)
    try:
        done = subprocess.run(
            [command, "-Dfile.encoding=UTF-8", *map(str, arguments)],
            input=text.encode("utf-8", "replace"),
            capture_output=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as error:
        raise EvaluationError(f"{what} has not ended after {seconds:,.0f} seconds, on {len(lines):,} lines.") from error
    except OSError as error:
        raise EvaluationError(f"{what} cannot run '{command}': {error.strerror or error}.") from error
    written = done.stdout.decode("utf-8", "replace").split("\n")[:-1]
    if done.returncode or len(written) != len(lines):
        said = shown(done.stderr.decode("utf-8", "replace").strip()[-300:], 200)
        raise EvaluationError(
            f"{what} failed: expected {len(lines):,} lines of Java, got {len(written):,}, exit status "
            f"{done.returncode}. Java said {said}."
        )
    return [line.removesuffix("\r") for line in written]
