"""Answers on their way to a file: parts beside it, one for each process, and at the end one file, written whole.

While answers are missing there is a folder `answers.jsonl.parts` beside `answers.jsonl`: in it `header.json`, which
says whose they are, and for each process `0.jsonl`, `1.jsonl`, ... with the answers that it has got so far, each with
the place of its question. Whatever ends the processes, what is whole in the parts is kept. At the end there is
`answers.jsonl`, and `answers.jsonl.run.json` says what the header said. Processes on several machines share the folder.

It knows lines of JSON with places; no questions and no model.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import EvaluationError, counted, shown
from ...files import explained, lock_file, require_writable, to_disk, write_text_whole, written_whole
from ...json_text import read_json

_PLACE = re.compile(rb'\{"at": ([0-9]{1,15}), ')
_HEADER, _STOPPED, _FAILED = "header.json", "stopped.json", "failed"
_TO_DISK_EVERY_S = 30.0
_LOOK_EVERY_S = 0.2
_MOST_FAILURES = 1000  # that are kept with their reasons
_MOST_DIFFERENCES = 5  # that a message names


@dataclass(frozen=True)
class Failures:
    """Questions that could not be asked: how many, and why, by id, of the first thousand."""

    number: int
    reasons: Mapping[str, str]


class AnswerParts:
    """The parts of one file of answers.

    Args:
        out: the file.
        fingerprint: what the answers depend on: model, files and settings, by name.
        questions: how many there are.

    Attributes:
        folder: where the parts are.
    """

    def __init__(self, out: Path, fingerprint: Mapping[str, Any], questions: int) -> None:
        self.out = out
        self.folder = out.with_name(f"{out.name}.parts")
        self._record = out.with_name(f"{out.name}.run.json")
        self._questions = questions
        self._header = json.loads(json.dumps({**fingerprint, "questions": questions}))
        self._locks: list[int] = []
        self._part: int | None = None
        self._rank = 0
        self._on_disk_s = time.monotonic()
        self._counted: dict[str, tuple[int, int]] = {}  # of a part, by its name: bytes looked at, lines found in them

    # -- the first process begins --------------------------------------------------------------------------

    def begin(self, *, overwrite: bool) -> np.ndarray | None:
        """Take hold of the file, for this process and those that work with it.

        Args:
            overwrite: whether other answers that are there may be replaced. Those of the same model, files and settings
                are gone on with all the same, unless they are complete.

        Returns:
            `(questions,)` bool, which are answered already; None where all are, in the file itself.

        Raises:
            EvaluationError: another process writes it, or what is there is of another model, of other files or
                settings.
            PixelReferError: the file cannot be written.
        """
        require_writable(self.out)
        with explained(self.folder):
            self.folder.mkdir(exist_ok=True)
            self._lock_all()
            try:
                return self._begun(self.folder / _HEADER, overwrite=overwrite)
            finally:
                if not (self.folder / _HEADER).exists():
                    self._remove()
                    self.close()

    def _begun(self, header: Path, *, overwrite: bool) -> np.ndarray | None:
        if header.exists() and self._differences(header) and (overwrite or not self.answered()):
            self._remove_but_locks()
        elif header.exists():
            self._require_same(header, self.folder)
        elif self.out.exists() and not overwrite:
            self._require_same(self._record, self.out)
            return None
        if not header.exists():
            write_text_whole(header, json.dumps(self._header, indent=2) + "\n")
        for path in (self.folder / _STOPPED, *self.folder.glob("*.finished")):
            path.unlink(missing_ok=True)
        for path in _parts(self.folder):
            _cut_torn_line(path)
        return _Index(_parts(self.folder), self._questions).is_there

    def _lock_all(self) -> None:
        """Lock the place of each process, so that none writes that an earlier call has left behind; keep the first."""
        names = {"0.lock", *(each.name for each in self.folder.glob("*.lock"))}
        try:
            for name in sorted(names, key=lambda each: each != "0.lock"):
                self._lock(name)
        except BlockingIOError as error:
            self.close()
            raise EvaluationError(
                f"'{self.out}' is being written by another process. Wait until it has ended, or name another file."
            ) from error
        for descriptor in self._locks[1:]:
            os.close(descriptor)
        del self._locks[1:]

    def _lock(self, name: str) -> None:
        descriptor = lock_file(self.folder / name)
        self._locks += [] if descriptor is None else [descriptor]

    def _require_same(self, path: Path, what: Path) -> None:
        if differences := self._differences(path):
            raise EvaluationError(
                f"'{what}' holds answers of another run: {differences} Name another file, or give --overwrite "
                "(overwrite=True) to replace them."
            )

    def _differences(self, path: Path) -> str:
        """How the run that a file tells of differs from this one, in sentences; empty where it does not."""
        try:
            there = read_json(path, file_names=True)
        except (OSError, ValueError):
            return f"which is not known, as there is no '{path.name}' beside it that says so."
        if not isinstance(there, Mapping):
            return f"which is not known, as '{path.name}' holds no object."
        here = self._header
        names = [name for name in {**here, **there} if here.get(name) != there.get(name) and name != _FAILED]
        return " ".join(
            f"{name}: {shown(there.get(name))} there, {shown(here.get(name))} now."
            for name in names[:_MOST_DIFFERENCES]
        )

    def _remove_but_locks(self) -> None:
        for path in self.folder.iterdir():
            if path.suffix != ".lock":
                path.unlink()
        self._counted.clear()

    # -- every process -------------------------------------------------------------------------------------

    def open_part(self, rank: int) -> None:
        """Open the part of a process, for what is appended to it.

        Raises:
            EvaluationError: the folder is not there, on a machine that does not share it.
            PixelReferError: it cannot be written.
        """
        self._rank = rank
        if not self.folder.is_dir():
            raise EvaluationError(
                f"Process {rank} does not see '{self.folder}'. All machines must share the folder of the answers."
            )
        with explained(self.folder):
            if rank:
                self._lock(f"{rank}.lock")
            self._part = os.open(self.folder / f"{rank}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

    def append(self, lines: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
        """Write answers, each with the place of its question.

        Raises:
            PixelReferError: they cannot be written, such as for a full disk.
        """
        assert self._part is not None, "open_part comes first"
        data = b"".join(_as_part(place, line) for place, line in lines)
        with explained(self.out):
            while data:
                data = data[os.write(self._part, data) :]
            if time.monotonic() - self._on_disk_s > _TO_DISK_EVERY_S:
                os.fsync(self._part)
                self._on_disk_s = time.monotonic()

    def finish_part(self) -> None:
        """Say that this process has done its share."""
        assert self._part is not None, "open_part comes first"
        with explained(self.out):
            os.fsync(self._part)
            (self.folder / f"{self._rank}.finished").touch()

    def stop(self, why: str) -> None:
        """Tell the other processes that this one fails, as far as that can still be told."""
        with suppress(OSError):
            (self.folder / _STOPPED).write_text(json.dumps({"process": self._rank, "why": why}), encoding="utf-8")

    def require_going_on(self) -> None:
        """Notice that another process has failed.

        Raises:
            EvaluationError: one has.
        """
        path = self.folder / _STOPPED
        if not path.exists():
            return
        try:
            told = read_json(path)
            said = f"process {told['process']} has failed: {told['why']}"
        except (OSError, ValueError, TypeError, KeyError):
            said = "another process has failed."
        raise EvaluationError(f"Stopped, as {said} What is answered is kept: the same command goes on from there.")

    def answered(self) -> int:
        """How many answers there are by now, of all processes."""
        for path in _parts(self.folder):
            start, lines = self._counted.get(path.name, (0, 0))
            with suppress(OSError), open(path, "rb") as file:
                file.seek(start)
                found = file.read()
                self._counted[path.name] = start + len(found), lines + found.count(b"\n")
        return sum(lines for _, lines in self._counted.values())

    def close(self) -> None:
        """Let go of everything."""
        for descriptor in (*self._locks, *([] if self._part is None else [self._part])):
            os.close(descriptor)
        self._locks, self._part = [], None

    # -- the first process ends ----------------------------------------------------------------------------

    def wait_for(self, processes: int) -> None:
        """Wait until all the processes have done their shares.

        Raises:
            EvaluationError: one has failed, or has ended before it was done.
        """
        for rank in range(1, processes):
            while not (self.folder / f"{rank}.finished").exists():
                self.require_going_on()
                self._require_alive(rank)
                time.sleep(_LOOK_EVERY_S)

    def _require_alive(self, rank: int) -> None:
        """Notice by its lock that a process is gone, where there are locks."""
        with suppress(BlockingIOError):
            descriptor = lock_file(self.folder / f"{rank}.lock")
            if descriptor is None:
                return
            os.close(descriptor)
            if not (self.folder / f"{rank}.finished").exists():
                raise EvaluationError(
                    f"Process {rank} ended before it had answered its share. What is answered is kept: the same "
                    "command goes on from there."
                )

    def merge(self) -> Failures:
        """Write the file, in the order of the questions, and remove the parts.

        Raises:
            EvaluationError: an answer is missing.
            PixelReferError: the file cannot be written.
        """
        index = _Index(_parts(self.folder), self._questions)
        if missing := self._questions - int(index.is_there.sum()):
            raise EvaluationError(
                f"'{self.folder}' lacks {counted(missing, 'answer')} of {self._questions:,}. The same command asks for "
                "them."
            )
        failed = 0
        reasons: dict[str, str] = {}
        with written_whole(self.out) as made, open(made, "wb") as file:
            for line in index.lines():
                file.write(line)
                if (failure := _failure(line)) is not None:
                    failed += 1
                    reasons |= [failure] if failed <= _MOST_FAILURES else []
        write_text_whole(self._record, json.dumps({**self._header, _FAILED: failed}, indent=2) + "\n")
        self._remove()
        return Failures(failed, reasons)

    def _remove(self) -> None:
        """Remove the folder: first what says that there are answers to go on from, the lock last."""
        last = {_HEADER: -1, "0.lock": 1}
        with suppress(OSError):
            for path in sorted(self.folder.iterdir(), key=lambda each: last.get(each.name, 0)):
                path.unlink()
            self.folder.rmdir()
            to_disk(self.folder.parent)


# -- parts -------------------------------------------------------------------------------------------------


def _parts(folder: Path) -> list[Path]:
    return sorted(each for each in folder.glob("*.jsonl") if each.stem.isdigit())


def _as_part(place: int, line: Mapping[str, Any]) -> bytes:
    """A line of a part: that of the file, with the place before everything else."""
    text = json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace")
    return b'{"at": %d, %b\n' % (place, text[1:])


def _failure(line: bytes) -> tuple[str, str] | None:
    """Id and reason of a question that could not be asked."""
    record = json.loads(line) if b'"failure": ' in line else {}
    return (record["id"], record["failure"]) if record.get("failure") else None


def _cut_torn_line(path: Path) -> None:
    """Cut off what stands behind the last end of a line: a process ended while it wrote that."""
    with open(path, "r+b") as file:
        end = size = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - (1 << 16))
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            end = start + newline + 1 if newline >= 0 else start
            if newline >= 0:
                break
        if end < size:
            file.truncate(end)


class _Index:
    """Where the answer to each question stands in the parts.

    Args:
        paths: of the parts.
        questions: how many there are.

    Attributes:
        is_there: `(questions,)` bool.
    """

    def __init__(self, paths: Sequence[Path], questions: int) -> None:
        self._paths = paths
        self._part = np.full(questions, -1, dtype=np.int32)
        self._bounds = np.zeros((questions, 2), dtype=np.int64)
        for number, path in enumerate(paths):
            for place, start, end in _whole_lines(path):
                if place < questions and self._part[place] < 0:
                    self._part[place] = number
                    self._bounds[place] = start, end
        self.is_there = self._part >= 0

    def lines(self) -> Iterator[bytes]:
        """Those of the file, in the order of the questions."""
        with ExitStack() as stack:
            files = [stack.enter_context(open(path, "rb")) for path in self._paths]
            for part, (start, end) in zip(self._part.tolist(), self._bounds.tolist(), strict=True):
                files[part].seek(start)
                line = files[part].read(end - start)
                found = _PLACE.match(line)
                assert found is not None, "the index has lines with places alone"
                yield b"{" + line[found.end() :]


def _whole_lines(path: Path) -> Iterator[tuple[int, int, int]]:
    """Place, start and end of each line of a part that is one: a disk may have lost some of it."""
    end = 0
    with open(path, "rb") as file:
        for line in file:
            start, end = end, end + len(line)
            found = _PLACE.match(line)
            if found is not None and line.endswith(b"}\n") and _is_json(line):
                yield int(found[1]), start, end


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
