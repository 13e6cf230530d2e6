"""Files of answers: JSON Lines, one for each question, as `pixelrefer predict` writes them and scores read them.

It knows questions, answers and JSON; no model and no benchmark.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ...contracts.questions import Answer, Question
from ...data.conversation import read_segmentation
from ...data.records import JsonRecords
from ...errors import DataError, EvaluationError, PixelReferError, SampleError, counted, placed, shown
from ...regions.region import Region, VideoRegion

_MOST_NAMED = 5  # ids that a message names
_MOST_MASKS = 10_000  # of an answer
_MOST_SIDE = 2**16  # of a picture, in pixels


def answer_line(question: Question, answer: Answer) -> dict[str, Any]:
    """An answer as one line of the file: a JSON object.

    Returns:
        `id`, `question` and `given`, the texts; `expected` and `where` as far as they are known. Where masks were asked
        for `size`, `[height, width]`, and `masks`: for each object null, a COCO RLE, or of a video `{"frames": {"12":
        RLE}}`; and of a video `frames`, the indices of those that masks were made on. `failure` says why a question
        could not be asked.

    Raises:
        RegionError: an object does not fit the answer's `image_hw`.
    """
    line: dict[str, Any] = {"id": question.id, "question": question.text, "given": answer.text}
    known = {"expected": question.expected, "where": question.asked.where, "failure": answer.failure}
    line |= {name: value for name, value in known.items() if value}
    if answer.image_hw is None:
        return line
    line |= {"masks": [_written(each, answer.image_hw) for each in answer.objects], "size": list(answer.image_hw)}
    return line | ({"frames": list(answer.frames)} if answer.frames else {})


def failure_line(id: str, where: str, failure: str) -> dict[str, Any]:
    """The line of a question that could not even be read."""
    return {"id": id, "question": "", "given": "", **({"where": where} if where else {}), "failure": failure}


def read_answers(path: str | os.PathLike[str], questions: Iterable[Question], *, partial: bool = False) -> list[Answer]:
    """The answers of a file in the order of the questions. What a line says beside its answer is passed over.

    Args:
        path: of a JSON Lines file, or of a JSON array of the same objects.
        questions: those that were asked; gone through once.
        partial: whether questions may lack an answer. Those are left out of what is returned, which is shorter then.

    Raises:
        EvaluationError: the file cannot be read; a line is no answer; an id is there twice, is that of no question, or
            is missing.
    """
    return in_order(path, iter_answers(path), questions, partial=partial)


def in_order(
    path: str | os.PathLike[str], answers: Iterable[Answer], questions: Iterable[Question], *, partial: bool = False
) -> list[Answer]:
    """Answers that were read from a file, by this package or a benchmark, in the order of the questions.

    Raises:
        EvaluationError: as `read_answers`, of ids.
    """
    found: dict[str, Answer] = {}
    repeated: list[str] = []
    for answer in answers:
        if answer.id in found:
            repeated.append(answer.id)
        found[answer.id] = answer
    if repeated:
        raise EvaluationError(f"{_named(path)} has more than one answer for {_some(repeated)}. Keep one of each.")
    asked = [question.id for question in questions]
    _require_same(path, asked, found, partial=partial)
    return [found[id] for id in asked if id in found]


def asked_otherwise(path: str | os.PathLike[str], questions: Iterable[Question]) -> list[str]:
    """Ids of the answers whose line has another text of the question than the questions have.

    Args:
        path: as in `read_answers`, which has read it.
        questions: those of `read_answers`; gone through once.
    """
    texts = {question.id: question.text for question in questions}
    found = []
    for record in JsonRecords(path):
        said, id = record.get("question"), str(record.get("id"))
        if isinstance(said, str) and said and id in texts and said.split() != texts[id].split():
            found.append(id)
    return found


def iter_answers(path: str | os.PathLike[str]) -> Iterator[Answer]:
    """The answers of a file, one after another, as they stand in it.

    Raises:
        EvaluationError: the file cannot be read, or a line is no answer; it names the line.
    """
    with _explained(path):
        records = JsonRecords(path)
    for index in range(len(records)):
        with _explained(path, cut_off=index + 1 == len(records)):
            record = records[index]
        yield _read(record, records.where(index))


@contextmanager
def _explained(path: str | os.PathLike[str], *, cut_off: bool = False) -> Iterator[None]:
    hint = " It is the last line: was the file cut off while it was written or copied?" if cut_off else ""
    try:
        yield
    except SampleError as error:
        told = " ".join(defect.message for defect in error.defects)
        raise EvaluationError(f"{error.where}: {told}{hint}") from error
    except DataError as error:
        raise EvaluationError(f"{_named(path)} holds no answers: {error}") from error


def _named(path: str | os.PathLike[str]) -> str:
    return f"Answer file {shown(os.fspath(path))}"


def _require_same(
    path: str | os.PathLike[str], asked: Sequence[str], found: Mapping[str, Answer], *, partial: bool
) -> None:
    """Refuse answers to other questions, and where all are needed too few."""
    known = set(asked)
    if unknown := [id for id in found if id not in known]:
        raise EvaluationError(
            f"{_named(path)} answers what was not asked: {_some(unknown)}. There are {counted(len(asked), 'question')}"
            f"{f', such as {shown(asked[0])}' if asked else ''}. Is it of another file or benchmark?"
        )
    missing = [id for id in asked if id not in found]
    if missing and not partial:
        raise EvaluationError(
            f"{_named(path)} has {counted(len(found), 'answer')} for {counted(len(asked), 'question')}: it lacks "
            f"{_some(missing)}. Ask those too, or score those that are there (--partial)."
        )


def _some(ids: Collection[str]) -> str:
    named = ", ".join(shown(each) for each in list(dict.fromkeys(ids))[:_MOST_NAMED])
    different = len(set(ids))
    return f"{counted(different, 'id')}, {'' if different <= _MOST_NAMED else 'first '}{named}"


# -- one line ----------------------------------------------------------------------------------------------


def _read(record: Any, where: str) -> Answer:
    with placed(subject=where):
        id = _id(record)
    with placed(subject=f"{where}, answer {shown(id)}"):
        failure = record.get("failure", "")
        if not isinstance(failure, str):
            raise EvaluationError(f"'failure' must be a text, got {shown(failure)}.")
        given = record.get("given", "" if failure else None)
        if not isinstance(given, str):
            raise EvaluationError(f"'given' must be a text, the answer, got {shown(given)}.")
        if record.get("masks") is None:
            return Answer(id=id, text=given, failure=failure)
        image_hw = _size_hw(record.get("size"))
        return Answer(
            id=id,
            text=given,
            objects=_objects(record["masks"], image_hw),
            image_hw=image_hw,
            frames=_frames(record.get("frames", [])),
            failure=failure,
        )


def _id(record: Any) -> str:
    if not isinstance(record, Mapping):
        raise EvaluationError(f"expected an object with 'id' and 'given', got {shown(record)}.")
    id = record.get("id")
    if isinstance(id, int) and not isinstance(id, bool):
        return str(id)
    if not isinstance(id, str) or not id:
        raise EvaluationError(f"'id' must be a text, got {shown(id)}.")
    return id


def _size_hw(given: Any) -> tuple[int, int]:
    if (
        not isinstance(given, list)
        or len(given) != 2
        or not all(_is_index(side, _MOST_SIDE) and side for side in given)
    ):
        raise EvaluationError(f"'size' must be [height, width] of the picture that masks lie on, got {shown(given)}.")
    return given[0], given[1]


def _frames(given: Any) -> tuple[int, ...]:
    if not isinstance(given, list) or not all(map(_is_index, given)):
        raise EvaluationError(f"'frames' must be a list of frame indices, got {shown(given)}.")
    return tuple(given)


def _is_index(value: Any, most: int = 2**53) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _objects(given: Any, image_hw: tuple[int, int]) -> tuple[Region | VideoRegion | None, ...]:
    if not isinstance(given, list) or len(given) > _MOST_MASKS:
        raise EvaluationError(f"'masks' must be a list of {_MOST_MASKS:,} at most, got {shown(given)}.")
    found = []
    for number, each in enumerate(given):
        try:
            found.append(_object(each, image_hw))
        except PixelReferError as error:
            raise EvaluationError(f"mask {number}: {error.in_sample}") from error
    return tuple(found)


def _object(given: Any, image_hw: tuple[int, int]) -> Region | VideoRegion | None:
    if not isinstance(given, Mapping) or "frames" not in given:
        return _mask(given, image_hw)
    frames = given["frames"]
    if not isinstance(frames, Mapping) or not all(_is_frame(name) for name in frames):
        raise EvaluationError(f'expected {{"frames": {{"12": RLE}}}}, got {shown(given)}.')
    masks: dict[int, Region] = {}
    for name, each in frames.items():
        with placed(frame=int(name)):
            mask = _mask(each, image_hw)
        if mask is not None:
            masks[int(name)] = mask
    return VideoRegion(masks) if masks else None


def _is_frame(name: Any) -> bool:
    return isinstance(name, str) and name.isascii() and name.isdigit() and len(name) < 10


def _mask(given: Any, image_hw: tuple[int, int]) -> Region | None:
    """A mask; None where it is null, or has no pixel."""
    if given is None:
        return None
    if not isinstance(given, Mapping) or not {"size", "counts"} <= set(given):
        raise EvaluationError(
            f'expected null or an RLE {{"size": [height, width], "counts": ...}}, got {shown(given)}.'
        )
    if given["size"] != list(image_hw):
        raise EvaluationError(f"its size is {shown(given['size'])}, that of the answer {list(image_hw)}.")
    return read_segmentation(given)


def _written(region: Region | VideoRegion | None, image_hw: tuple[int, int]) -> dict[str, Any] | None:
    if region is None or isinstance(region, Region):
        return None if region is None else region.to_rle(image_hw)
    return {"frames": {str(frame): each.to_rle(image_hw) for frame, each in region.frames.items()}}
