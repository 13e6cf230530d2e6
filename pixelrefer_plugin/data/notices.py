"""What is worth telling while many samples are read: this package's own warnings, the first few of each kind.

What libraries log and warn of meanwhile is for developers, and is not printed.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_OWN = logging.getLogger(__name__.partition(".")[0])
_WITH_HANDLERS = ("transformers", "huggingface_hub", "datasets")  # libraries that print what they log by themselves


class _Notices(logging.Handler):
    """Says the first warnings that each line of code gives, and counts the others."""

    def __init__(self, say: Callable[[str], None], most: int) -> None:
        super().__init__(logging.WARNING)
        self._say = say
        self._most = most
        self._seen: Counter[tuple[str, int]] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        kind = record.pathname, record.lineno
        self._seen[kind] += 1
        if self._seen[kind] <= self._most:
            self._say(record.getMessage())

    @property
    def num_unsaid(self) -> int:
        """How many were counted only."""
        return sum(max(0, count - self._most) for count in self._seen.values())


@contextmanager
def own_warnings(say: Callable[[str], None], *, most: int = 3) -> Iterator[None]:
    """Within the block this package's warnings are said, `most` of each kind, and those of libraries are not.

    Args:
        say: takes a line; at the end also one on how many more there were.
        most: how many of each kind.
    """
    notices = _Notices(say, most)
    _OWN.addHandler(notices)
    try:
        with _errors_only(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        _OWN.removeHandler(notices)
    if notices.num_unsaid:
        say(f"... and {notices.num_unsaid:,} more of these.")


@contextmanager
def _errors_only() -> Iterator[None]:
    """Nothing below an error is printed of what libraries log."""
    quieted: list[logging.Logger | logging.Handler] = [logging.getLogger(name) for name in _WITH_HANDLERS]
    quieted += [] if logging.lastResort is None else [logging.lastResort]  # it prints what no handler takes
    levels = [each.level for each in quieted]
    for each in quieted:
        each.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for each, level in zip(quieted, levels, strict=True):
            each.setLevel(level)
