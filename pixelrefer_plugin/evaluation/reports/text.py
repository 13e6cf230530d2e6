"""How figures are written for people: numbers with their intervals, the same in the terminal and on the page."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence

from ...errors import counted
from ..scoring.resampling import Difference, Estimate
from ..scoring.scoring import Result

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


def told_counts(result: Result) -> str:
    """How many answers there are, and how many of them are odd."""
    odd = {"could not be asked": result.failed, "empty": result.empty, "could not be read": result.unread}
    told = [f"{len(found):,} {name}" for name, found in odd.items() if found]
    return ", ".join([counted(len(result.ids), "answer"), *told])
