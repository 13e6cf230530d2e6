"""How figures are written for people: numbers with their intervals, the same in the terminal and on the page."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence

from ...errors import counted
from ..scoring.resampling import Difference, Estimate
from ..scoring.scoring import Result
from ..scoring.standing import Standing
from .report import BenchmarkReport

UNKNOWN = "-"
"""What stands for a figure that no question has."""

_PASSWORD = re.compile(r"(?<=://)[^/@\s]+@")
_IN_QUERY = re.compile(r"(?<=[?&])([^=&\s']+)=[^&\s']+")
_ASSIGNED = re.compile(r"([\w.-]*(?:key|token|secret|password)=)[^\s']+", re.IGNORECASE)


def without_secrets(words: Sequence[str]) -> str:
    """A command as a report shows it: without what may be a password in an address, or the value of a key."""
    command = _IN_QUERY.sub(r"\1=***", _PASSWORD.sub("***@", shlex.join(words)))
    return _ASSIGNED.sub(r"\1***", command)


def number(value: float, scale: float) -> str:
    """A figure as papers print it: with one decimal where it is a share, else with two or three digits."""
    if math.isnan(value):
        return UNKNOWN
    return f"{value * scale:.{decimals(scale)}f}"


def decimals(scale: float) -> int:
    """How many decimals a figure of a scale has."""
    return 1 if scale >= 10 else 2


def interval(estimate: Estimate | Difference, scale: float) -> str:
    """The ends of its interval, `61.0 to 64.2`; empty where it has none."""
    if math.isnan(estimate.low):
        return ""
    return f"{number(estimate.low, scale)} to {number(estimate.high, scale)}"


def signed(difference: Difference, scale: float) -> str:
    """A difference with its sign, `+2.1`."""
    if math.isnan(difference.value):
        return UNKNOWN
    return f"{difference.value * scale:+.{decimals(scale)}f}"


def told_standing(standing: Standing, scale: float) -> str:
    """Which set of answers is best, and whether that is decided, in a sentence or two."""
    if not standing.behind:
        return f"{standing.best} alone has a figure."
    if standing.is_decided:
        label, nearest = next(iter(standing.behind.items()))
        return (
            f"{standing.best} is best, and that is decided: {label}, the nearest, is {signed(nearest, scale)} "
            f"({interval(nearest, scale)})."
        )
    level = [label for label in standing.undecided if standing.behind[label].value == 0]
    told = [
        f"{label} {signed(standing.behind[label], scale)} ({interval(standing.behind[label], scale) or 'no interval'})"
        for label in standing.undecided
        if label not in level
    ]
    *most, last = [standing.best, *level]
    first = f"{', '.join(most)} and {last}" if most else last
    behind = f"; {', '.join(told)} may be as good" if told else ""
    return f"{first} {'are level' if level else 'is best'}{behind}: not decided, more questions would tell."


def told_ranking(report: BenchmarkReport) -> list[str]:
    """Lines about a comparison of ways: which is best, for regions of each size too, and which could not be asked."""
    scale = report.figure(report.labels[0]).figure.scale
    lines = [told_standing(report.standing, scale)] if report.standing is not None else []
    lines += [f"{group}: {told_standing(each, scale)}" for group, each in report.standings_by_size.items()]
    return lines + [f"{label} could not be asked: {why}" for label, why in report.not_asked.items()]


def told_counts(result: Result) -> str:
    """How many answers there are, and how many of them are odd."""
    odd = {"could not be asked": result.failed, "empty": result.empty, "could not be read": result.unread}
    told = [f"{len(found):,} {name}" for name, found in odd.items() if found]
    return ", ".join([counted(len(result.ids), "answer"), *told])
