"""Reads pickles of plain values: numbers, texts, lists, tuples, mappings. Nothing in them can run.

Python's own reader obeys what a pickle says of sizes before it has seen that many bytes: nine bytes make it take
gigabytes. So the instructions are gone through first, and what they made is walked through afterwards.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import pickletools
from typing import Any, NoReturn

from ..errors import DataError
from ..files import open_regular
from ..json_text import MOST_DEPTH, MOST_DIGITS

_MOST_BITS = math.floor(MOST_DIGITS * math.log2(10))  # of an integer
_SIZE_BYTES = {  # of the size that stands in front of an argument
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
_LINES = {ord(each.code): 1 for each in pickletools.opcodes if each.arg and each.arg.n == pickletools.UP_TO_NEWLINE}
_LINES |= dict.fromkeys(b"ci", 2)
"""Instruction -> lines of its argument."""
_SIZED = {ord(each.code): _SIZE_BYTES[each.arg.n] for each in pickletools.opcodes if each.arg and each.arg.n < -1}
"""Instruction -> bytes of the size of its argument, which stands in front of it."""
_FIXED = {ord(each.code): each.arg.n if each.arg else 0 for each in pickletools.opcodes} | dict.fromkeys(_LINES, 0)
"""Instruction -> bytes of its argument, for all others."""
_PUT, _LONG_PUT, _FRAME, _STOP = b"pr\x95."


class _PlainUnpickler(pickle.Unpickler):
    """Whatever a pickle can run, it has to name first."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise DataError(f"it names {module}.{name}, but may hold plain values only")


def read_plain_pickle(path: str | os.PathLike[str]) -> Any:
    """The value that is pickled in a file, by any version of Python.

    Memory and time are bounded by the size of the file.

    Raises:
        DataError: it cannot be read, is no pickle, or holds more than plain values.
    """
    try:
        with open_regular(path) as file:
            data = file.read()
        _require_modest(data)
        value = _PlainUnpickler(io.BytesIO(data), encoding="utf-8", errors="replace").load()
        _require_plain(value, most=len(data))
    except OSError as error:
        raise DataError(f"Cannot read '{path}': {error.strerror or error}.") from error
    except DataError as error:
        raise DataError(
            f"'{path}' is refused: {error}. Convert it to JSON where it comes from, if you trust it."
        ) from error
    except Exception as error:  # a damaged pickle fails in many ways
        raise DataError(f"'{path}' is no pickle that can be read: {error}. Is the file complete?") from error
    return value


def _require_modest(data: bytes) -> None:
    """Refuse sizes of more bytes than there are, and places in the memo beyond the number of instructions.

    Raises:
        ValueError: it has such, or is no pickle.
    """
    position, count, end = 0, 0, len(data)
    while position < end:
        code = data[position]
        position += 1
        count += 1
        if code in _SIZED:
            start = position + _SIZED[code]
            position = start + int.from_bytes(data[position:start], "little")
        elif code in _LINES:
            start = position
            for _ in range(_LINES[code]):
                position = data.find(b"\n", position) + 1 or end + 1
            if code == _PUT:
                _require_place(int(data[start : position - 1]), count)
        elif code in _FIXED:
            start = position
            position += _FIXED[code]
            if code == _LONG_PUT:
                _require_place(int.from_bytes(data[start:position], "little"), count)
            elif code == _FRAME and int.from_bytes(data[start:position], "little") > end - position:
                raise ValueError(f"instruction {count} says that more bytes follow than there are")
            elif code == _STOP:
                return
        else:
            raise ValueError(f"instruction {count} is {bytes([code])!r}, which there is not")
    raise ValueError("it ends before its last instruction")


def _require_place(place: int, count: int) -> None:
    if not 0 <= place <= count:
        raise ValueError(f"instruction {count} keeps a value at place {place}, beyond the number of instructions")


def _require_plain(value: Any, *, most: int) -> None:
    """Refuse what is no tree of plain values, or one that is deep, or larger than the file by values that are shared.

    Raises:
        DataError: it is.
    """
    level, seen = [value], 0
    for _ in range(MOST_DEPTH + 1):
        below: list[Any] = []
        for each in level:
            kind = type(each)
            if kind is dict:
                below += each.keys()
                below += each.values()
            elif kind is list or kind is tuple:
                below += each
            elif kind is str:
                if not each.isascii() and any("\ud800" <= letter <= "\udfff" for letter in each):
                    raise DataError("it holds half a character")
            elif kind is int:
                if each.bit_length() > _MOST_BITS:
                    raise DataError(f"it holds an integer of more than {MOST_DIGITS} digits")
            elif each is not None and kind not in (bool, float, bytes, bytearray):
                raise DataError(f"it holds a {kind.__name__}, but may hold plain values only")
            if seen + len(below) > most:
                raise DataError("it holds more values than it has bytes, by repeating them")
        seen += len(below)
        level = below
        if not level:
            return
    raise DataError(f"it is nested deeper than {MOST_DEPTH} levels")
