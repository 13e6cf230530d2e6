"""How far a long task has come: a bar on a terminal, lines elsewhere. It knows numbers only."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

_LOOK_EVERY_S = 0.5


class Progress(Protocol):
    """What is told how far a task has come."""

    def start(self, total: int, done: int) -> None:
        """The task begins, of which a part may be done."""
        ...

    def show(self, count: Callable[[], int]) -> None:
        """Some more is done; `count` says how much in all. It is called as often as that is shown."""
        ...

    def stop(self) -> None:
        """The task has ended, well or not."""
        ...


class Silent:
    """Shows nothing."""

    def start(self, total: int, done: int) -> None:
        """As `Progress` has it."""

    def show(self, count: Callable[[], int]) -> None:
        """As `Progress` has it."""

    def stop(self) -> None:
        """As `Progress` has it."""


class Pace:
    """When a line is due, and how long a task will take: about twenty lines over all of it, more where they are far
    apart in time.

    Args:
        total: steps of the task.
        done: steps that had been done before it began.
    """

    LINES = 20
    AT_LEAST_EVERY_S = 60.0

    def __init__(self, total: int, done: int) -> None:
        self._total, self._first = total, done
        self._start_s = self._told_s = time.monotonic()
        self._due = done + 1

    def is_due(self, done: int) -> bool:
        """Whether a line is; then the next one is due later."""
        now_s = time.monotonic()
        if done < min(self._due, self._total) and now_s - self._told_s < self.AT_LEAST_EVERY_S:
            return False
        interval = max(1, self._total // self.LINES)
        self._due, self._told_s = (done // interval + 1) * interval, now_s
        return True

    def rate(self, done: int) -> float:
        """Steps per second so far."""
        return (done - self._first) / max(time.monotonic() - self._start_s, 1e-9)

    def left(self, done: int) -> str:
        """How long the rest takes, `, 0:01:30 left`; empty where nothing is left."""
        if done >= self._total:
            return ""
        left_s = (time.monotonic() - self._start_s) / max(done - self._first, 1) * (self._total - done)
        return f", {timedelta(seconds=round(left_s))} left"


class AnswerLines:
    """Lines such as `120/500 answers (24%), 3.1/s, 0:02:02 left`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._looked_s = 0.0

    def start(self, total: int, done: int) -> None:
        """As `Progress` has it."""
        self._total, self._pace = total, Pace(total, done)
        if done:
            self._say(f"{done:,} of {total:,} answers are there")

    def show(self, count: Callable[[], int]) -> None:
        """As `Progress` has it."""
        if time.monotonic() - self._looked_s < _LOOK_EVERY_S:
            return
        self._looked_s, done = time.monotonic(), count()
        if self._pace.is_due(done):
            rate, left = self._pace.rate(done), self._pace.left(done)
            self._say(f"{done:,}/{self._total:,} answers ({done / self._total:.0%}), {rate:.2g}/s{left}")

    def stop(self) -> None:
        """As `Progress` has it."""

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


class AnswerBar:
    """One bar, with the rate and the time left."""

    def __init__(self, console: Console) -> None:
        self._bar = RichProgress(
            TextColumn("answers"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            redirect_stdout=False,
        )
        self._looked_s = 0.0

    def start(self, total: int, done: int) -> None:
        """As `Progress` has it."""
        self._pace = Pace(total, done)
        self._task = self._bar.add_task("answers", total=total, completed=done, rate="")
        self._bar.start()

    def show(self, count: Callable[[], int]) -> None:
        """As `Progress` has it."""
        if time.monotonic() - self._looked_s < _LOOK_EVERY_S:
            return
        self._looked_s, done = time.monotonic(), count()
        self._bar.update(self._task, completed=done, rate=f"{self._pace.rate(done):.2g}/s")

    def stop(self) -> None:
        """As `Progress` has it."""
        self._bar.stop()


def on_stderr() -> Progress:
    """A bar where stderr is a terminal, else lines."""
    console = Console(stderr=True)
    return AnswerBar(console) if console.is_terminal else AnswerLines(console)
