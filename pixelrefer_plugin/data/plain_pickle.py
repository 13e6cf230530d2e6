"""Reads pickles of plain values: numbers, texts, lists, tuples, mappings. Nothing in them can run."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any, NoReturn

from ..errors import DataError


class _PlainUnpickler(pickle.Unpickler):
    """Whatever a pickle can run, it has to name first."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise DataError(f"it names {module}.{name}, but may hold plain values only")


def read_plain_pickle(path: str | os.PathLike[str]) -> Any:
    """The value that is pickled in a file, by any version of Python.

    Raises:
        DataError: it cannot be read, is no pickle, or holds more than plain values.
    """
    try:
        data = Path(path).read_bytes()
        return _PlainUnpickler(io.BytesIO(data), encoding="utf-8", errors="replace").load()
    except OSError as error:
        raise DataError(f"Cannot read '{path}': {error.strerror or error}.") from error
    except DataError as error:
        raise DataError(
            f"'{path}' is refused: {error}. Convert it to JSON where it comes from, if you trust it."
        ) from error
    except Exception as error:  # a damaged pickle fails in many ways
        raise DataError(f"'{path}' is no pickle that can be read: {error}. Is the file complete?") from error
