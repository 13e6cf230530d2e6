"""Records of a benchmark's official files, and of the files that other systems write about them.

It knows JSON and questions; no benchmark.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..contracts.benchmark import BenchmarkFile
from ..contracts.questions import Question
from ..contracts.samples import RecordPlace
from ..data.records import JsonRecords
from ..errors import DataError, Defect, EvaluationError, SampleError, counted, shown
from ..json_text import read_json
from ..media.paths import path_shown

Key = Callable[[Mapping[str, Any]], Hashable]


def official_records(
    folder: str | os.PathLike[str], file: BenchmarkFile, media_root: str | os.PathLike[str] = ""
) -> Iterator[tuple[Mapping[str, Any], RecordPlace]]:
    """The records of an official file, JSON Lines or a JSON array, each with its place.

    Args:
        folder: of the benchmark.
        file: the file.
        media_root: folder that paths in the records are below.

    Raises:
        DataError: it is missing or no such file; the message says what it is and where it comes from.
        SampleError: a record is no object.
    """
    path = Path(folder) / file.path
    try:
        records = JsonRecords(path)
    except DataError as error:
        raise DataError(f"{str(error).rstrip('.')}. It is expected below {path_shown(folder)}: {file.about}") from error
    for index in range(len(records)):
        place = RecordPlace(records.where(index), index, Path(media_root))
        record = records[index]
        if not isinstance(record, Mapping):
            raise place.error(str(index), [Defect("format", f"a record must be an object, got {shown(record)}.")])
        yield record, place


def require_there(path: Path, about: str) -> None:
    """Refuse a missing file or folder by its name and its origin.

    Args:
        path: of it.
        about: what it is and where it comes from, a sentence.

    Raises:
        DataError: it is missing.
    """
    if not path.exists():
        raise DataError(f"{path_shown(path)} is missing. It is {about[:1].lower()}{about[1:]}")


def official_json(path: Path) -> Any:
    """What an official JSON file holds.

    Raises:
        DataError: it cannot be read, or is no JSON.
    """
    try:
        return read_json(path)
    except OSError as error:
        raise DataError(f"Cannot read {path_shown(path)}: {error.strerror or error}.") from error
    except ValueError as error:
        raise DataError(f"{path_shown(path)} is no JSON that can be read: {error}. Is the file complete?") from error


def matched(
    path: str | os.PathLike[str], questions: Sequence[Question], *, of_record: Key, of_question: Callable[..., Hashable]
) -> Iterator[tuple[Mapping[str, Any], Question, str]]:
    """The records of a file that others wrote, each with the question that it is about and what to call it.

    Several questions of one key, and several records of it, go together in their order.

    Args:
        path: of the file, JSON Lines or a JSON array.
        questions: those of the benchmark.
        of_record: the key of a record, an object.
        of_question: the key of a question.

    Raises:
        EvaluationError: the file cannot be read, a record is no object, is about no question, or is one too many.
    """
    waiting: dict[Hashable, list[Question]] = {}
    for question in questions:
        waiting.setdefault(of_question(question), []).append(question)
    left = {key: iter(found) for key, found in waiting.items()}
    for record, where in _objects(path):
        key = of_record(record)
        if key not in left:
            raise EvaluationError(f"{where} is about no question of the benchmark: there is none of {shown(key)}.")
        next_one = next(left[key], None)
        if next_one is None:
            raise EvaluationError(
                f"{where} is one too many: the benchmark has {counted(len(waiting[key]), 'question')} about "
                f"{shown(key)}. Were files of several runs, or the parts of a file and their sum, put together?"
            )
        yield record, next_one, where


def text_in(record: Mapping[str, Any], key: str, where: str) -> str:
    """A text of a record.

    Raises:
        EvaluationError: there is none.
    """
    value = record.get(key)
    if not isinstance(value, str):
        raise EvaluationError(f"{where}: '{key}' must be a text, got {shown(value)}.")
    return value


def require_same_answer(judged: str, scored: str, *, id: str, where: str) -> None:
    """Refuse what a judge said of another answer than the one that is scored; blanks at the ends do not count.

    Args:
        judged: what the judge was asked about.
        scored: the answer.
        id: of the question.
        where: what the record is called.

    Raises:
        EvaluationError: they are not the same.
    """
    if judged.strip() != scored.strip():
        raise EvaluationError(
            f"{where}: the judge was asked about {shown(judged)}, but the answer to question '{id}' is "
            f"{shown(scored)}. These are the judge's answers about another model."
        )


def _objects(path: str | os.PathLike[str]) -> Iterator[tuple[Mapping[str, Any], str]]:
    try:
        records = JsonRecords(path)
        for index in range(len(records)):
            record = records[index]
            if not isinstance(record, Mapping):
                raise EvaluationError(f"{records.where(index)} must be an object, got {shown(record)}.")
            yield record, records.where(index)
    except SampleError as error:
        raise EvaluationError(str(error)) from error
    except DataError as error:
        raise EvaluationError(f"The file cannot be read: {error}") from error
