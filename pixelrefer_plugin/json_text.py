"""JSON from files of others: one reader with limits. What it refuses, it refuses with a `ValueError` that says where.

Python's own reader takes `NaN`, halves of characters, and as much depth as the call stack holds; whoever walks, shows
or writes such a value later fails in a place that says nothing of the file.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

import numpy as np

from .files import open_regular

MOST_DEPTH = 100
"""Lists and objects within each other."""
MOST_DIGITS = 1000
"""Of an integer; more than a float holds, less than Python reads."""

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_STRING_OR_CONSTANT = re.compile(r'"(?:[^"\\]|\\.)*"|(-?\b(?:NaN|Infinity)\b)', re.DOTALL)


class _Constant(ValueError):
    """`NaN` or an infinity stands in the text."""


def _refuse_constant(name: str) -> Any:
    raise _Constant(f"{name} is no number of JSON")


def _integer(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"the integer {text[:20]}... has {len(text)} digits, at most {MOST_DIGITS} are read")
    return int(text)


DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=_integer)
"""For texts in which more follows the value. Of the limits it has those of numbers; `require_sound` has the others."""


def _lenient_integer(text: str) -> float:
    return int(text) if len(text) <= MOST_DIGITS else float(text)


LENIENT_DECODER = json.JSONDecoder(parse_int=_lenient_integer)
"""For a first look at a text that `parse_json` reads later, and then refuses: takes `NaN` and all digits, as floats."""


def parse_json(text: str | bytes, *, file_names: bool = False) -> Any:
    """The value that a JSON text is.

    Args:
        text: if it is bytes, UTF-8 with or without a mark at its start.
        file_names: take halves of characters, which Python's file names have where the disk's are not in UTF-8.

    Raises:
        ValueError: no JSON; `NaN` or an infinity; half a character; nested deeper than `MOST_DEPTH`; an integer of
            more than `MOST_DIGITS` digits. The message says which, and where it can be told.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")
    try:
        value = DECODER.decode(text)
    except _Constant as error:
        raise _with_place(error, text) from error
    except RecursionError as error:
        raise ValueError(f"it is nested deeper than {MOST_DEPTH} levels ({error})") from error
    require_sound(value, text, file_names=file_names)
    return value


def read_json(path: str | os.PathLike[str], *, file_names: bool = False) -> Any:
    """The value in a JSON file. The arguments are those of `parse_json`.

    Raises:
        OSError: it cannot be read, or is no regular file.
        ValueError: as `parse_json`.
    """
    with open_regular(path) as file:
        return parse_json(file.read(), file_names=file_names)


def require_sound(value: Any, text: str, *, file_names: bool = False) -> None:
    """Refuse a value that was parsed from `text`, if it is nested too deep or has halves of characters.

    Raises:
        ValueError: it is or has.
    """
    if text.count("[") + text.count("{") > MOST_DEPTH and _depth(text) > MOST_DEPTH:
        raise ValueError(f"it is nested deeper than {MOST_DEPTH} levels")
    if not file_names and _SURROGATE.search(text):  # halves of a character, which no tokenizer and no file takes
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(f"{error.object[error.start]!r} is half a character (surrogates not allowed)") from error


def _depth(text: str) -> int:
    """The most brackets that are open at once, outside strings."""
    bare = np.frombuffer(_STRING.sub(b"", text.encode("utf-8", "surrogatepass")), dtype=np.uint8) | 32
    steps = (bare == ord("{")).astype(np.int32) - (bare == ord("}"))  # [ and { differ by that bit, ] and } too
    return int(np.cumsum(steps).max(initial=0))


def _with_place(error: _Constant, text: str) -> ValueError:
    found = next((each for each in _STRING_OR_CONSTANT.finditer(text) if each[1]), None)
    if found is None:
        return ValueError(str(error))
    line = text.count("\n", 0, found.start()) + 1
    column = found.start() - text.rfind("\n", 0, found.start())
    return ValueError(f"{error}: line {line} column {column} (character {found.start() + 1})")
