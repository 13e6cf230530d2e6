"""The four dimensions of VideoRefer-Bench-D, and how their scores are read in a judge's answer.

Two readings: of one that understands what a judge means, and of the official scripts, oddities included.
"""

import re
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pixelrefer_plugin.authoring import EvaluationError, json_objects, read_number, shown

DIMENSIONS = ("Subject Correspondence", "Appearance Description", "Temporal Description", "Hallucination Detection")
MOST = 5.0
MOST_CHARACTERS = 100_000
"""Of a judge's answer; what stands behind them is not read."""

_MARKS = re.compile(r"[*_`#\"']")
_NUMBER = r"[-+]?\d+(?:\.\d+)?"
_NOTE = r"(?:\s*\((?:[A-Z]{2}|0\s*(?:-|\u2013|to)\s*5)\))?+"  # its initials, or the scale
_PARTED = r"\s*+(?:score|rating)?+\s*+(?:[:=|]|is\b|[-\u2013\u2014](?=\s))?+[\s:=|]*+(?:[-\u2022]\s+)?+"
_GIVEN = rf"(?:(?:score|rating)\s*+[:=|]?+\s*+)?+[\[(]?+(?P<value>{_NUMBER}(?:\s*(?:/|out\s+of)\s*\d+(?:\.\d+)?)?)"
_ENDS = r"(?![\d%]|\.\d|\s*[-\u2013]\s*\d)"


def _initials(name: str) -> str:
    return "".join(word[0] for word in name.split())


def _pattern(name: str) -> re.Pattern[str]:
    words = r"\s+".join(name.split())
    return re.compile(rf"\b(?:{words}|{_initials(name)}\b\)?){_NOTE}{_PARTED}{_GIVEN}{_ENDS}", re.IGNORECASE | re.ASCII)


_PATTERNS = {name: _pattern(name) for name in DIMENSIONS}
_KEYS = {re.sub(r"\W", "", key.casefold()): name for name in DIMENSIONS for key in (name, _initials(name))}


def read_dimensions(text: str) -> dict[str, float]:
    """The score of each dimension that a judge's answer gives, 0 to 5; the last one where it gives several.

    Names may be in bold, in any case, shortened to their initials, numbered in any way or not at all; scores may be
    shares of 5, or members of a JSON object. A dimension whose score is out of range, or not a number, is left out.
    """
    found = _of_objects(text)
    if found:
        return {name: value for name, value in found.items() if value is not None}
    plain = _MARKS.sub("", text[:MOST_CHARACTERS])
    last = {name: [each["value"] for each in pattern.finditer(plain)][-1:] for name, pattern in _PATTERNS.items()}
    read = {name: _number(" ".join(values)) for name, values in last.items()}
    return {name: value for name, value in read.items() if value is not None}


def _of_objects(text: str) -> dict[str, float | None]:
    """By dimension, what JSON objects say of it; None where that is no score."""
    found: dict[str, float | None] = {}
    for given in json_objects(text):
        for each in (*(value for value in given.values() if isinstance(value, Mapping)), given):
            named = next((name for value in each.values() if (name := _named(value))), None)
            if named and "score" in each:  # {"dimension": "Subject Correspondence", "score": 4}
                found[named] = _number(each["score"])
            found |= {name: _number(value) for key, value in each.items() if (name := _named(key))}
    return found


def _named(value: Any) -> str | None:
    """The dimension that a text names, alone or behind a number."""
    return _KEYS.get(re.sub(r"[\W_\d]", "", value.casefold())) if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    if isinstance(value, Mapping):
        value = {key.casefold(): each for key, each in value.items()}.get("score")
    return read_number(value, most=MOST)


# -- the official scripts ----------------------------------------------------------------------------------

REPOSITORIES = ("pixelrefer", "videorefer", "unipixel")
_ITEM = re.compile(r"(?<!\d)\d++\.\s++")
_SCORE = re.compile(r":\s+([\d.]+)")


@dataclass(frozen=True)
class OfficialReading:
    """What an official script makes of one answer of a judge.

    Attributes:
        scores: of the dimensions that it finds.
        other_keys: names that it finds and that are no dimension, sorted.
        failed: whether it gave the record up, since a score is no number, such as `5..`, or there is no answer.
        kept: whether the record is in what it writes; the averages are the same either way.
    """

    scores: Mapping[str, float] = field(default_factory=dict)
    other_keys: tuple[str, ...] = ()
    failed: bool = False
    kept: bool = True


def official_dimensions(text: str | None, repository: str = "pixelrefer") -> OfficialReading:
    """A judge's answer as `2.extract_re.py` of a repository reads it: number, dot, name, colon, blank, number.

    Of two scores with one name the later one counts; none is out of range.

    Args:
        text: the answer; None where there is none.
        repository: `pixelrefer`, `videorefer` (both alibaba-damo-academy/PixelRefer) or `unipixel`
            (PolyU-ChenLab/UniPixel).

    Raises:
        EvaluationError: there is no such repository.
    """
    if repository not in REPOSITORIES:
        raise EvaluationError(f"repository must be one of {', '.join(REPOSITORIES)}, got {shown(repository)}.")
    given_up = OfficialReading(failed=True, kept=repository == "pixelrefer")
    if text is None:
        return given_up
    try:
        found = {name: float(score) for name, score in _official_pairs(text)}
    except ValueError:
        return given_up
    scores = {name: found[name] for name in DIMENSIONS if name in found}
    return OfficialReading(scores, tuple(sorted(set(found) - set(scores))))


def _official_pairs(text: str) -> list[tuple[str, str]]:
    """Each name and score, in time that is linear in the text: an answer may be very long.

    A name is what stands between a number with its dot and the next colon that blanks and digits follow, on one line.
    """
    scores = list(_SCORE.finditer(text))
    starts = [each.start() for each in scores]
    newlines = [*(each.start() for each in re.finditer("\n", text)), len(text)]
    pairs: list[tuple[str, str]] = []
    position = 0
    for item in _ITEM.finditer(text):
        number = bisect_left(starts, item.end())
        if item.start() < position or number == len(starts):
            continue
        line_end = newlines[bisect_left(newlines, item.end())]
        if starts[number] < line_end:
            pairs.append((text[item.end() : starts[number]], scores[number][1]))
            position = scores[number].end()
    return pairs


def official_summary(readings: list[OfficialReading]) -> dict[str, float]:
    """What `3.analyze_score.py` prints: the mean of each dimension over the records that have it, and of the four.

    Returns:
        By the name of the dimension, and `all`.

    Raises:
        EvaluationError: a dimension has no score in any record, where the official script divides by zero.
    """
    means: dict[str, float] = {}
    for name in DIMENSIONS:
        found = [each.scores[name] for each in readings if name in each.scores]
        if not found:
            raise EvaluationError(
                f"The official script finds no score for {name} in {len(readings)} answers of the judge, and stops: it "
                "divides by zero."
            )
        means[name] = sum(found) / len(found)
    return {**means, "all": sum(means.values()) / len(DIMENSIONS)}
