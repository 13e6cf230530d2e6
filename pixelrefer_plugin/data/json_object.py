"""Reads a JSON file that holds one large object without keeping it: its arrays' elements are found, then let go.

`scan_object` goes through the file once; `read_span` parses an element again when it is needed. What a process keeps of
a COCO file is some tens of bytes for each annotation, not the annotation.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from json.decoder import JSONDecodeError
from typing import Any, NamedTuple

from ..errors import DataError, shown
from ..files import open_regular
from ..json_text import LENIENT_DECODER, parse_json

_BLANKS = re.compile(r"[ \t\n\r]*")
_BOM = b"\xef\xbb\xbf".decode("latin-1")


class Element(NamedTuple):
    """An element of an array that the object holds, or another of its values.

    Attributes:
        key: of the object.
        number: in the array, from 0; None for a value that is no array.
        value: parsed, to choose by: `NaN` and integers of more digits than are read are floats in it, and it may be
            nested deep. `read_span` refuses those.
        start: byte offset of its first byte.
        stop: of the byte after its last.
    """

    key: str
    number: int | None
    value: Any
    start: int
    stop: int


def scan_object(path: str | os.PathLike[str]) -> Iterator[Element]:
    """Every element of the arrays in a JSON object, and its other values, in the order of the file.

    Raises:
        DataError: the file cannot be read, is no JSON in UTF-8, holds no object, or has a key twice.
    """
    # As Latin-1 a character is a byte, so that positions are offsets; JSON's structure is ASCII all the same.
    try:
        with open_regular(path) as file:
            text = file.read().decode("latin-1")
    except OSError as error:
        raise DataError(f"Cannot read '{path}': {error.strerror or error}.") from error
    try:
        yield from _scan(text)
    except UnicodeDecodeError as error:
        raise DataError(
            f"'{path}' is not UTF-8: {error}. Convert it where it comes from, or with iconv -t UTF-8."
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"'{path}' is no JSON object that can be read: {error}. Is the file complete?") from error


def read_span(path: str | os.PathLike[str], start: int, stop: int) -> Any:
    """Parse the element at these offsets.

    Raises:
        DataError: the file is gone, or no longer the one that was scanned; or it is JSON that `parse_json` refuses.
    """
    try:
        with open_regular(path) as file:
            file.seek(start)
            data = file.read(stop - start)
    except OSError as error:
        raise DataError(f"Cannot read '{path}': {error.strerror or error}.") from error
    try:
        return parse_json(data)
    except (JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"'{path}' has no JSON in UTF-8 at byte {start} (has it changed?): {error}.") from error
    except ValueError as error:
        raise DataError(f"'{path}', what begins at byte {start}: {error}.") from error


def _scan(text: str) -> Iterator[Element]:
    position = _skip(text, len(_BOM) if text.startswith(_BOM) else 0)
    position = _expect(text, position, "{")
    keys: set[str] = set()
    while text[position : position + 1] != "}":
        key, position = _value(text, position)
        if not isinstance(key, str):
            raise JSONDecodeError("Expecting a key", text, position)
        if key in keys:  # what comes last would count, or all of it, as readers differ
            raise JSONDecodeError(f"The key {shown(key)} is there twice", text, position)
        keys.add(key)
        position = _expect(text, _skip(text, position), ":")
        if text[position : position + 1] == "[":
            position = yield from _scan_array(text, position, key)
        else:
            value, stop = _value(text, position)
            yield Element(key, None, value, position, stop)
            position = stop
        position = _next(text, position, "}")


def _scan_array(text: str, position: int, key: str) -> Any:
    """Yields the elements; returns the position after the array."""
    position = _expect(text, position, "[")
    index = 0
    while text[position : position + 1] != "]":
        value, stop = _value(text, position)
        yield Element(key, index, value, position, stop)
        index += 1
        position = _next(text, stop, "]")
    return position + 1


def _value(text: str, position: int) -> tuple[Any, int]:
    """The value at a position, its texts read as UTF-8, and where it ends."""
    value, stop = LENIENT_DECODER.raw_decode(text, position)
    part = text[position:stop]
    if not part.isascii():
        value = LENIENT_DECODER.decode(_as_utf8(part, position))
    return value, stop


def _as_utf8(part: str, position: int) -> str:
    data = part.encode("latin-1")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        at = position + error.start
        reason = f"{error.reason} at byte {at} of the file"
        raise UnicodeDecodeError("utf-8", data, error.start, error.end, reason) from None


def _next(text: str, position: int, end: str) -> int:
    """The position of the next item, or of `end`."""
    position = _skip(text, position)
    return position if text[position : position + 1] == end else _expect(text, position, ",")


def _expect(text: str, position: int, character: str) -> int:
    if text[position : position + 1] != character:
        raise JSONDecodeError(f"Expecting '{character}'", text, position)
    return _skip(text, position + 1)


def _skip(text: str, position: int) -> int:
    found = _BLANKS.match(text, position)
    assert found is not None, "a pattern of any number of spaces matches everywhere"
    return found.end()
