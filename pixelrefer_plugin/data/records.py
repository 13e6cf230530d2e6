"""`JsonRecords`: the records of a JSON Lines file or a JSON array, found in one pass and parsed when asked for.

What is kept is one 64-bit offset per record. It knows JSON and bytes; nothing of samples or formats.
"""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .. import plugins
from ..errors import DataError, Defect, SampleError
from ..files import open_regular
from ..json_text import LENIENT_DECODER, parse_json, require_sound

_CHUNK_BYTES = 1 << 20
_PEEK_BYTES = 1 << 20
_PEEK_ITEMS = 8  # of a long list that `peek` keeps
_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
_PICKLES = (".p", ".pkl", ".pickle")
_WORDS = ("true", "false", "null", "NaN", "Infinity", "-Infinity")
_NEWLINE, _QUOTE, _BACKSLASH, _OPENING, _CLOSING = b'\n"\\{}'


class JsonRecords(Sequence[Any]):
    """The records of one file, JSON Lines or a JSON array: told apart by the first byte that is not blank.

    Opening finds where each record begins and parses none. It can be pickled; each process opens the file itself.

    Args:
        path: of the file, UTF-8.

    Raises:
        DataError: the file is missing, empty, compressed, one JSON object, or an array that is not closed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.path.abspath(path))
        with _opened(self.path) as file:
            self._version = _version(file.fileno())
            start, first = _first_byte(file, self.path)
            self._is_array = first == b"["
            self._line_numbers: np.ndarray | None = None
            if self._is_array:
                self._bounds = _array_bounds(file, start, self.path)
            else:
                _refuse_one_object(file, start, self.path)
                self._bounds, self._line_numbers = _line_bounds(file, start)
        self._descriptor: int | None = None

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __getitem__(self, index: Any) -> Any:
        """Record `index`, parsed.

        Raises:
            SampleError: it is not JSON.
            DataError: the file is no longer what it was when it was opened.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"'{self.path}' has {len(self)} records: there is no record {index}.")
        index = int(index) % len(self)
        raw = self._read(int(self._bounds[index]), int(self._bounds[index + 1])).strip(_SPACE)
        try:
            return parse_json(self._without_comma(raw, index))
        except ValueError as error:
            at = f"{error.msg} at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else error
            defect = Defect("format", f"it is not JSON: {at}.")
            raise SampleError(str(index), self.where(index), [defect]) from error

    def where(self, index: int) -> str:
        """What to call a record in messages: `train.jsonl line 12`, `train.json record 12`, both counted from 1."""
        if self._is_array:
            return f"{self.path.name} record {index + 1}"
        number = index + 1 if self._line_numbers is None else self._line_numbers[index]
        return f"{self.path.name} line {number}"

    def _without_comma(self, raw: bytes, index: int) -> bytes:
        """A record of an array without the comma that parts it from the one before."""
        if not self._is_array or index == 0:
            return raw
        if not raw.startswith(b","):
            raise ValueError("expected a comma between this record and the one before")
        return raw[1:]

    def _read(self, start: int, end: int) -> bytes:
        if self._descriptor is None:
            with _opened(self.path) as file:
                self._descriptor = os.dup(file.fileno())
            weakref.finalize(self, os.close, self._descriptor)
            if _version(self._descriptor) != self._version:
                raise DataError(f"'{self.path}' has changed since it was opened. Open it again.")
        return os.pread(self._descriptor, end - start, start)  # has no position, so forked processes may share it

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_descriptor": None}


def peek(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """The first record of a file, or its top-level object: enough to tell its format.

    At most the first mebibyte is read. Of an object that goes on after it what there is so far is returned, long lists
    cut short.

    Raises:
        DataError: the file is missing, empty, compressed, a pickle, or does not begin with an object.
    """
    path = Path(path)
    with _opened(path) as file:
        start, first = _first_byte(file, path)
        text = _window(file, start + (first == b"["))
    # A defective first line tells nothing, the lines after it may.
    for candidate in [text.lstrip()] if first == b"[" else [text, *text.split("\n")[1:]]:
        found = _first_object(candidate)
        if found is not None:
            return found[0]
    if path.suffix in _PICKLES:
        raise DataError(
            f"'{path}' is a pickle by its name, whose format is not guessed. If it is RefCOCO's references, say "
            "format='refcoco' (--format refcoco)."
        )
    try:
        require_sound(None, text, file_names=True)
    except ValueError as error:
        raise DataError(f"'{path}' is no JSON that is read: {error}.") from error
    raise DataError(
        f"'{path}' must hold JSON objects, one a line or in an array; it begins with {text[:40]!r}. "
        "See docs/data.md for the formats that are read."
    )


# -- opening -----------------------------------------------------------------------------------------------


def _opened(path: Path) -> BinaryIO:
    try:
        return open_regular(path)
    except OSError as error:
        raise DataError(f"Data file '{path}' cannot be read: {error.strerror}.") from error


def _version(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_size, status.st_mtime_ns


def _first_byte(file: BinaryIO, path: Path) -> tuple[int, bytes]:
    """Where the JSON begins, and its first byte: `{` or `[`, or whatever a defective first line begins with."""
    head = file.read(4)
    if head.startswith(b"\x1f\x8b"):
        raise DataError(f"'{path}' is compressed by gzip, so its records cannot be read one by one. Run gunzip on it.")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"'{path}' is UTF-16, expected UTF-8. Convert it: iconv -f UTF-16 -t UTF-8.")
    start = len(_BOM) if head.startswith(_BOM) else 0
    file.seek(start)
    while chunk := file.read(_CHUNK_BYTES):
        if rest := chunk.lstrip(_SPACE):
            return file.tell() - len(rest), rest[:1]
    raise DataError(f"'{path}' is empty: it has no records.")


def _chunks(file: BinaryIO, start: int) -> Iterator[tuple[int, np.ndarray]]:
    """The bytes of a file from `start` on, chunk by chunk, each with its offset."""
    file.seek(start)
    while chunk := file.read(_CHUNK_BYTES):
        yield start, np.frombuffer(chunk, dtype=np.uint8)
        start += len(chunk)


def _is_blank(chunk: np.ndarray) -> np.ndarray:
    return (chunk == 32) | (chunk == 10) | (chunk == 13) | (chunk == 9)


# -- lines -------------------------------------------------------------------------------------------------


def _line_bounds(file: BinaryIO, start: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Where each line with something in it begins, then where the file ends; and the lines' numbers, if some are blank.

    `start` may lie behind blank lines: they are counted, too.
    """
    file.seek(0)
    first_number = 1 + file.read(start).count(b"\n")
    starts, filled = [np.array([start])], []
    has_content, end = False, start
    for offset, chunk in _chunks(file, start):
        ends = np.flatnonzero(chunk == _NEWLINE)
        starts.append(offset + ends + 1)
        # Each piece of a line: the first goes on from the chunk before, the last goes on in the next.
        pieces = np.append(0, ends)
        filled_pieces = np.logical_or.reduceat(~_is_blank(chunk), pieces)
        filled_pieces[0] |= has_content
        filled.append(filled_pieces[:-1])
        has_content, end = bool(filled_pieces[-1]), offset + len(chunk)
    is_filled = np.append(np.concatenate(filled), has_content)
    bounds = np.append(np.concatenate(starts)[is_filled], end)
    if first_number == 1 and is_filled[: len(bounds) - 1].all():
        return bounds, None
    return bounds, first_number + np.flatnonzero(is_filled)


def _refuse_one_object(file: BinaryIO, start: int, path: Path) -> None:
    """A first line that is not JSON may be a defective record, or the first of an object over several lines."""
    text = _window(file, start)
    line, _, rest = text.partition("\n")
    found = _first_object(text) if rest.strip() and not _is_json(line) else None
    if found is not None and found[1] > len(line):
        raise DataError(
            f"'{path}' is one JSON object over several lines, expected one record a line, or an array of records. "
            f"Is it of another format? Installed are {', '.join(plugins.installed('data format'))}."
        )


# -- arrays ------------------------------------------------------------------------------------------------


def _array_bounds(file: BinaryIO, start: int, path: Path) -> np.ndarray:
    """Where the first record of an array begins, then where each ends."""
    scan = _BracketScan()
    found = [np.array([start + 1])]
    for offset, chunk in _chunks(file, start):
        positions, is_opening, depths = scan.outside_strings(chunk)
        closing = np.flatnonzero(depths == 0)[:1]
        is_end = (depths == 1) & ~is_opening
        is_end[int(closing[0]) if len(closing) else len(is_end) :] = False
        found.append(offset + positions[is_end] + 1)
        if len(closing):
            bounds = np.concatenate(found)
            _require_sound_end(file, bounds, offset + int(positions[closing[0]]), path)
            return bounds
    num_whole = sum(map(len, found)) - 1
    raise DataError(
        f"'{path}' is an array that is not closed: it ends after {num_whole} whole records. Is it part of a file?"
    )


class _BracketScan:
    """Finds the brackets of JSON text that do not stand in strings; carries what it has seen from chunk to chunk."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False  # whether the next chunk's first byte is

    def outside_strings(self, chunk: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions of the brackets, whether each opens, and how deep the text is after each."""
        folded = chunk | 32  # [ and { become one byte, ] and } another
        is_structural = (chunk == _QUOTE) | (folded == _OPENING) | (folded == _CLOSING)
        is_structural[self._escaped_positions(chunk)] = False
        positions = np.flatnonzero(is_structural)
        is_quote = chunk[positions] == _QUOTE
        in_string = (np.cumsum(is_quote) + self._in_string) % 2 == 1
        positions = positions[~is_quote & ~in_string]
        is_opening = folded[positions] == _OPENING
        depths = self._depth + np.cumsum(np.where(is_opening, 1, -1))
        self._in_string = bool(in_string[-1]) if len(in_string) else self._in_string
        self._depth = int(depths[-1]) if len(depths) else self._depth
        return positions, is_opening, depths

    def _escaped_positions(self, chunk: np.ndarray) -> np.ndarray:
        """The bytes after an odd number of backslashes in a row."""
        slashes = np.flatnonzero(chunk == _BACKSLASH)
        if self._escaped and len(slashes) and slashes[0] == 0:
            slashes = slashes[1:]
        first_of_row = np.flatnonzero(np.diff(slashes, prepend=-2) > 1)
        in_row = np.diff(first_of_row, append=len(slashes))
        escaped = (slashes[first_of_row] + in_row)[in_row % 2 == 1]
        if self._escaped:
            escaped = np.append(0, escaped)
        self._escaped = bool(len(escaped)) and bool(escaped[-1] == len(chunk))
        return escaped[escaped < len(chunk)]


def _require_sound_end(file: BinaryIO, bounds: np.ndarray, closing: int, path: Path) -> None:
    """Nothing but blanks between the last record and the end of the array, and after that."""
    file.seek(int(bounds[-1]))
    odd = file.read(closing - int(bounds[-1])).strip(_SPACE)
    if odd or len(bounds) == 1:
        got = f"got {_shown(odd)}" if odd else "got an empty array"
        raise DataError(f"'{path}': expected JSON objects and commas between them up to the end of the array, {got}.")
    file.seek(closing + 1)
    while chunk := file.read(_CHUNK_BYTES):
        if odd := chunk.strip(_SPACE):
            raise DataError(f"'{path}': expected nothing after the end of its array, got {_shown(odd)}.")


def _shown(text: bytes) -> str:
    return repr(text[:40].decode("utf-8", errors="replace"))


# -- parsing -----------------------------------------------------------------------------------------------


def _is_json(text: str) -> bool:
    try:
        LENIENT_DECODER.decode(text.strip())
    except (ValueError, RecursionError):
        return False
    return True


def _window(file: BinaryIO, start: int) -> str:
    file.seek(start)
    return file.read(_PEEK_BYTES).decode("utf-8", errors="replace")


def _first_object(text: str) -> tuple[dict[str, Any], int] | None:
    """The object that a text begins with and where it ends, as far as the text goes; None where it is no object."""
    if not text.startswith("{"):
        return None
    try:
        return LENIENT_DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        found = _cut_object(text)
        return None if found is None else (found, len(text))


class _Cut(Exception):
    """The text ends here."""


def _cut_object(text: str) -> dict[str, Any] | None:
    """The keys of an object that the text ends in; None where it is no JSON before that."""
    found: dict[str, Any] = {}
    try:
        _read_members(text, 1, found)
    except _Cut:
        return found
    except (ValueError, RecursionError):
        return None
    return None


def _read_members(text: str, position: int, found: dict[str, Any]) -> int:
    """Put what stands in an object from `position` on into `found`; returns where the object ends."""
    position = _skip_blanks(text, position)
    while text[position] != "}":
        key, position = _value(text, position)
        if not isinstance(key, str):
            raise ValueError("expected a key")
        position = _after(text, position, ":")
        position = _skip_blanks(text, _read_member(text, position, found, key))
        if text[position] != "}":
            position = _skip_blanks(text, _after(text, position, ","))
    return position + 1


def _read_member(text: str, position: int, found: dict[str, Any], key: str) -> int:
    """Put the value at `position` into `found`, of a list the first items, of an object what there is of it; returns
    where it ends."""
    position = _skip_blanks(text, position)
    if text[position] == "{":
        found[key] = {}
        return _read_members(text, position + 1, found[key])
    if text[position] != "[":
        found[key], position = _value(text, position)
        return position
    items = found[key] = []
    position = _skip_blanks(text, position + 1)
    while text[position] != "]":
        item, position = _value(text, position)
        items += [item] * (len(items) < _PEEK_ITEMS)
        position = _skip_blanks(text, position)
        if text[position] != "]":
            position = _skip_blanks(text, _after(text, position, ","))
    return position + 1


def _value(text: str, position: int) -> tuple[Any, int]:
    position = _skip_blanks(text, position)
    try:
        value, end = LENIENT_DECODER.raw_decode(text, position)
    except json.JSONDecodeError as error:
        in_escape = "uXXXX" in error.msg and error.pos + len("uXXXX") >= len(text)
        in_string = error.msg.startswith("Unterminated string")
        rest = text[error.pos :]
        in_number = not rest.strip(".eE+-")  # such as the point of 2.5
        if in_string or in_escape or in_number or any(word.startswith(rest) for word in _WORDS):
            raise _Cut from error
        raise
    if isinstance(value, int | float) and not text[end:].strip("0123456789.eE+-"):  # of a number this may be a part
        raise _Cut
    return value, end


def _after(text: str, position: int, expected: str) -> int:
    position = _skip_blanks(text, position)
    if text[position] != expected:
        raise ValueError(f"expected {expected}")
    return position + 1


def _skip_blanks(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    if position == len(text):
        raise _Cut
    return position
