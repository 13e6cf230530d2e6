"""What judges have said, in a file of JSON lines: one per answer, appended as it comes.

A line has `key`, `judge`, `id`, `part`, `messages`, `options`, `answer`, `origin` and, where there is one, `note`. The
key is the SHA-256 of the canonical JSON of judge, messages and options, so it can be made from the line alone.
Pictures stand in it by their SHA-256. A process that dies while it writes leaves half a line, which is passed over.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...errors import DataError, shown, text_of
from ...files import open_regular, require_path

_log = logging.getLogger(__name__)
_TEXTS = ("key", "judge", "answer", "origin")


class JudgeAnswers:
    """Answers by the key of their request; of two to the same request the later one.

    Several threads and processes may read a file, and append to it: each line is written at once.

    Args:
        path: of the file, made with the first answer; None keeps them in memory alone.

    Raises:
        DataError: the file cannot be read, or is something else.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = None if path is None else Path(path)
        self._answers: dict[str, tuple[str, str]] = {}
        self._lock = threading.Lock()
        if self.path is not None:
            self._read(self.path)

    def __len__(self) -> int:
        return len(self._answers)

    def __contains__(self, key: str) -> bool:
        return key in self._answers

    def text(self, key: str) -> str:
        """The answer."""
        return self._answers[key][0]

    def origin(self, key: str) -> str:
        """Where the answer is from: `asked`, or the name that was given with an import."""
        return self._answers[key][1]

    def add(self, key: str, answer: str, *, origin: str, request: Mapping[str, Any], note: str = "") -> None:
        """Keep an answer.

        Args:
            key: of its request.
            answer: its text.
            origin: where it is from.
            request: the request, as the file has it.
            note: what is odd about the answer.

        Raises:
            DataError: the file cannot be written.
        """
        line = {"key": key, **request, "answer": answer, "origin": origin, **({"note": note} if note else {})}
        if self.path is not None:
            with self._lock:
                self._append(self.path, json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
        self._answers[key] = (answer, origin)

    def _read(self, path: Path) -> None:
        require_path(path, DataError)
        if not path.parent.is_dir():
            raise DataError(f"There can be no judge's answers '{path}': there is no folder '{path.parent}'.")
        if not path.exists():
            return
        try:
            with open_regular(path) as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        self._take(path, number, line)
        except OSError as error:
            raise DataError(f"The judge's answers '{path}' cannot be read: {error.strerror or error}.") from error

    def _take(self, path: Path, number: int, line: bytes) -> None:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == 1 and line.endswith(b"\n"):
                raise DataError(
                    f"'{path}' is no file of judge's answers: line 1 is no JSON ({text_of(error)})."
                ) from error
            _log.warning("'%s' line %d is half a line, as an interruption leaves it; it is passed over.", path, number)
            return
        if not isinstance(record, dict) or not all(isinstance(record.get(name), str) for name in _TEXTS):
            raise DataError(
                f"'{path}' is no file of judge's answers: line {number} must be an object with the texts "
                f"{', '.join(_TEXTS)}, got {shown(record)}. Name another file."
            )
        self._answers[record["key"]] = (record["answer"], record["origin"])

    def _append(self, path: Path, line: bytes) -> None:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                size = os.lseek(descriptor, 0, os.SEEK_END)
                if size and os.lseek(descriptor, -1, os.SEEK_END) and os.read(descriptor, 1) != b"\n":
                    line = b"\n" + line  # behind half a line
                while line:
                    line = line[os.write(descriptor, line) :]
            finally:
                os.close(descriptor)
        except OSError as error:
            raise DataError(f"The judge's answer cannot be written to '{path}': {error.strerror or error}.") from error


def key_of(judge: str, messages: Sequence[Any], options: Mapping[str, Any]) -> str:
    """The key of a request.

    Args:
        judge: its name.
        messages: as `without_pictures` gives them.
        options: that the request is sent with.
    """
    text = json.dumps([judge, messages, options], ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def without_pictures(messages: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Messages as the file has them: the SHA-256 of each picture's URL in its place."""
    return [{**message, "content": _content(message["content"])} for message in messages]


def _content(content: Any) -> Any:
    return content if isinstance(content, str) else [_part(part) for part in content]


def _part(part: Mapping[str, Any]) -> Mapping[str, Any]:
    if part.get("type") != "image_url":
        return part
    return {**part, "image_url": {**part["image_url"], "url": f"sha256:{_sha256(part['image_url']['url'])}"}}


@lru_cache(maxsize=8)  # several requests in a row show one picture
def _sha256(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()
