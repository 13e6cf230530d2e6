"""Texts of an official repository, read from the user's own clone of it and checked by their SHA-256.

Official prompts and code are not copied into this one. Nothing that is read here is run.
"""

from __future__ import annotations

import ast
import hashlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from ..contracts.benchmark import Prompt
from ..errors import DataError, shown
from ..files import open_regular
from ..media.paths import path_shown

PIXELREFER_REPOSITORY = "alibaba-damo-academy/PixelRefer"
_MOST_BYTES = 4 * 2**20  # of a file; those of the official repositories have some ten thousand


def official_text(
    root: str | os.PathLike[str], file: str, sha256: str, *, repository: str = PIXELREFER_REPOSITORY
) -> str:
    """The string constant of an official Python file that has a SHA-256, such as a prompt.

    Constants are found wherever they stand: as a value, in a concatenation, as the constant part of an f-string.

    Args:
        root: of the user's clone of the repository.
        file: path of the Python file below it, with `/`.
        sha256: of the UTF-8 bytes of the text, in hexadecimal digits.
        repository: `owner/name` on GitHub, for messages.

    Raises:
        DataError: the file is not there, is no Python, or has no such text: it is of another version.
    """
    path = Path(root) / file
    tree = _parsed(_read(path, repository), path, repository)
    for text in _constants(tree):
        if _sha256(text.encode("utf-8", "surrogatepass")) == sha256:
            return text
    raise _other_version(path, repository, f"no string constant of it has the SHA-256 {sha256}")


def question_prompt(question: str | None, official_code: str | None, *, own: str, file: str, sha256: str) -> Prompt:
    """What a model is asked: the user's own question, else the official one, else the one of our own words.

    Args:
        question: the user's.
        official_code: root of the user's clone of the official repository.
        own: the question of our own words.
        file: where the official one is, below the clone.
        sha256: of the official one.

    Raises:
        DataError: the official code is not what it must be.
    """
    if question is not None:
        return Prompt("question", question, "option question")
    if official_code is None:
        return Prompt("question", own)
    return Prompt("question", official_text(official_code, file, sha256), file)


def official_file(
    root: str | os.PathLike[str], file: str, sha256: str, *, repository: str = PIXELREFER_REPOSITORY
) -> str:
    """The whole text of an official file, such as one that holds a prompt; arguments as in `official_text`.

    Raises:
        DataError: the file is not there, is no UTF-8, or is of another version.
    """
    path = Path(root) / file
    data = _read(path, repository)
    if _sha256(data) != sha256:
        raise _other_version(path, repository, f"its SHA-256 is {_sha256(data)}, not {sha256}")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{path_shown(path)} is no text in UTF-8: {error}.") from error


def _read(path: Path, repository: str) -> bytes:
    try:
        with open_regular(path) as file:
            data = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise DataError(
            f"Cannot read {path_shown(path)}: {getattr(error, 'strerror', None) or error}. It is a file of the "
            f"official repository {repository}: name the folder of your clone of it, or leave the option out, and "
            "prompts of our own words are used."
        ) from error
    if len(data) > _MOST_BYTES:
        raise _other_version(path, repository, f"it has more than {_MOST_BYTES:,} bytes")
    return data


def _parsed(data: bytes, path: Path, repository: str) -> ast.AST:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as for an escape that Python does not know
        try:
            return ast.parse(data)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise _other_version(path, repository, f"it is no Python ({shown(str(error))})") from error


def _constants(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _other_version(path: Path, repository: str, why: str) -> DataError:
    return DataError(
        f"{path_shown(path)} has not the official text that is expected: {why}. It is from another version of "
        f"{repository}, or was changed. Check out the version that the documentation of benchmarks names, or leave the "
        "option out, and prompts of our own words are used."
    )
