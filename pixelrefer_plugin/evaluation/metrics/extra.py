"""Packages of the extra `eval`, imported when they are used."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

from ...errors import EvaluationError


def eval_module(name: str) -> Any:
    """A module of the extra `eval`.

    Raises:
        EvaluationError: its package is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise _missing(name) from error


def folder_of(package: str) -> Path:
    """The folder of a package of the extra `eval`.

    Raises:
        EvaluationError: it is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise _missing(package)
    return Path(next(iter(spec.submodule_search_locations)))


def _missing(name: str) -> EvaluationError:
    package = name.split(".")[0]
    return EvaluationError(f"This measurement needs {package}, which is missing: pip install 'pixelrefer-plugin[eval]'")
