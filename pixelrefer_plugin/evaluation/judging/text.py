"""Reads a score in the answer of a judge: text from outside, of any shape and length.

What is not clear is not guessed: the caller counts and lists what could not be read. It knows no benchmark.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ...json_text import DECODER

MOST_CHARACTERS = 100_000
"""Of an answer; what stands behind them is not read."""

_MOST_OBJECTS = 200
_MARKS = re.compile(r"[*_`#]")
_NUMBER = r"[-+]?(?:\d+(?:\.\d+)?|\.\d+)"
_OUT_OF = rf"(?:\s*(?:/|out\s+of)\s*(?P<most>{_NUMBER}))?"
_ENDS = r"(?![\d%]|\.\d|\s*[-\u2013]\s*\d)"  # of a number: "0-10" is a scale and "85%" a share, not scores
_LABELLED = re.compile(
    rf"(?P<final>\b(?:final|overall|total)\s+)?\b(?:score|rating|grade)\b[\s\"']*+(?:is|of|[:=])?+[\s\"':=]*+"
    rf"(?P<value>{_NUMBER}){_OUT_OF}{_ENDS}",
    re.IGNORECASE | re.ASCII,
)
_RATIO = re.compile(rf"(?<![\d./])(?P<value>{_NUMBER})\s*(?:/|out\s+of)\s*(?P<most>{_NUMBER}){_ENDS}", re.ASCII)
_ALONE = re.compile(rf"[\s\"'(\[]*(?P<value>{_NUMBER}){_OUT_OF}[\s\"'.)\]]*", re.ASCII)


def json_objects(text: str) -> list[Mapping[str, Any]]:
    """The JSON objects that stand in a text, in order, those within others not. Of a long text its beginning is read.

    `NaN`, infinities and integers beyond all measure make an object none.
    """
    text = text[:MOST_CHARACTERS]
    found: list[Mapping[str, Any]] = []
    position = text.find("{")
    for _ in range(_MOST_OBJECTS):
        if position < 0:
            break
        try:
            value, end = DECODER.raw_decode(text, position)
        except (ValueError, RecursionError):
            end = position + 1
        else:
            found.append(value)
        position = text.find("{", end)
    return found


def read_number(value: Any, *, most: float) -> float | None:
    """A number from 0 to `most`: of JSON, or a text such as `7`, `7.5` or `**7**`; `7/10` where `most` is 10, `70%`
    where it is 100.

    None where it is something else, or out of range.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if 0 <= value <= most else None
    if not isinstance(value, str):
        return None
    return _alone(value, most)


def read_score(text: str, *, most: float) -> float | None:
    """The score from 0 to `most` that a judge gives; None where it gives none, or several that differ.

    In this order: `score` of the last JSON object that has it; what is called a score, rating or grade in words; a
    number out of `most`, such as `7/10`; an answer that is a number alone. Where scores in words differ, the last one
    counts if it is called final, overall or total.
    """
    scores = [value for each in json_objects(text) for key, value in each.items() if key.casefold() == "score"]
    if scores:
        return read_number(scores[-1], most=most)
    plain = _plain(text[:MOST_CHARACTERS], most)
    labelled = list(_LABELLED.finditer(plain))
    if labelled and labelled[-1]["final"]:
        return _value(labelled[-1], most)
    for found in (labelled, [each for each in _RATIO.finditer(plain) if float(each["most"]) == most]):
        if found:
            values = {_value(each, most) for each in found}
            return values.pop() if len(values) == 1 else None
    return _alone(text, most)


def excerpt(text: str, most: int = 300) -> str:
    """A judge's answer as a report shows it: on one line, at most `most` characters."""
    line = " ".join(text[: 4 * most].split())
    return line if len(line) <= most and len(text) <= 4 * most else f"{line[: most - 3]}..."


def _alone(text: str, most: float) -> float | None:
    whole = _plain(text, most) if len(text) <= MOST_CHARACTERS else ""
    return _value(_ALONE.fullmatch(whole), most)


def _plain(text: str, most: float) -> str:
    """A text without marks of emphasis; without signs of per cent too where the best score is 100."""
    return _MARKS.sub("", text.replace("%", "") if most == 100 else text)


def _value(found: re.Match[str] | None, most: float) -> float | None:
    if found is None or (found["most"] is not None and float(found["most"]) != most):
        return None
    value = float(found["value"])
    return value if 0 <= value <= most else None
