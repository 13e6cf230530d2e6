"""Reads Osprey's questions about LVIS and PACO, and the answers that the official inference writes.

A record is a picture: `file_name, height, width, categories[], annotations[{segmentation}]`; a question is asked about
each annotation. Data: https://huggingface.co/datasets/sunshine-lwt/Osprey-ValData; answers:
`evaluation/pixelrefer/infer_paco_lvis.py` in https://github.com/alibaba-damo-academy/PixelRefer.
"""

import os
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pixelrefer_plugin.authoring import (
    Answer,
    BenchmarkFile,
    Defect,
    Question,
    RecordPlace,
    Region,
    RegionError,
    collecting,
    matched,
    official_records,
    questions_of,
    read_sample,
    read_segmentation,
    shown,
    size_of,
    text_in,
)

_FOLDERS = ("", "train2017", "val2017")  # that a picture may be in


def open_questions(file: BenchmarkFile, text: str, images: Path, folder: Path) -> list[Question]:
    """The questions, one for each annotation.

    Args:
        file: of the questions.
        text: what is asked.
        images: folder of the pictures.
        folder: of the benchmark.

    Raises:
        DataError: it names the file, the record and what is wrong.
    """
    asked_of: Counter[str] = Counter()  # questions, by picture
    questions = []
    for record, place in official_records(folder, file, images):
        for question in _questions(record, text, place):
            name = question.facts["image"]
            questions.append(replace(question, id=f"{name}#{asked_of[name]}"))
            asked_of[name] += 1
    return questions


def _questions(record: Mapping[str, Any], text: str, place: RecordPlace) -> Iterator[Question]:
    """The questions about one picture; their ids are yet to be given."""
    if problem := _problem(record):
        raise place.error(str(place.index), [Defect("format", problem)])
    name, picture = record["file_name"], _picture(record["file_name"], place.media_root)
    for number, (category, annotation) in enumerate(zip(record["categories"], record["annotations"], strict=True)):
        defects: list[Defect] = []
        region: Region | None = None
        with collecting(defects, "region", f"annotation {number}"):
            region = read_segmentation(annotation)
            if region is None:
                raise RegionError("it has no mask.")
        translated = {
            "id": f"{name}#{number}",
            "image": picture,
            "size": size_of(record),
            "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": category}],
        }
        sample = read_sample(translated, place, regions=[region], defects=defects)
        for question in questions_of(sample):
            yield replace(question, facts={"image": name, "category": category})


def _problem(record: Mapping[str, Any]) -> str:
    """What of a record is not as it must be; empty where nothing is."""
    if not isinstance(record.get("file_name"), str) or not record["file_name"]:
        return f"a record must be an object with a 'file_name', got {shown(record)}."
    categories, annotations = record.get("categories"), record.get("annotations")
    if not isinstance(categories, list) or not isinstance(annotations, list) or len(categories) != len(annotations):
        got = f"{shown(categories, 40)} and {shown(annotations, 40)}"
        return f"'categories' and 'annotations' must be lists of the same length, got {got}."
    if others := [each for each in categories if not isinstance(each, str)]:
        return f"'categories' must be texts, got {shown(others[0])}."
    return ""


def _picture(name: str, images: Path) -> str:
    """A picture's path below the folder of pictures; where it is nowhere, the last one that was tried."""
    paths = [f"{folder}/{name}" if folder else name for folder in _FOLDERS]
    return next((path for path in paths if os.path.exists(images / path)), name)


def read_predictions(config: Any, path: str | Path, questions: Sequence[Question]) -> Iterator[Answer]:
    """Answers as the official inference writes them: `image`, `Answer` (the category) and `pred` of each line.

    Several objects of one category in one picture go together in their order; which of them is which changes no
    figure but those by size.

    Raises:
        EvaluationError: the file cannot be read, or a line is about no question, or is one too many.
    """
    for record, question, where in matched(path, questions, of_record=_key_of_record, of_question=_key):
        yield Answer(id=question.id, text=text_in(record, "pred", where))


def _key(question: Question) -> Hashable:
    return question.facts["image"], question.facts["category"].strip()


def _key_of_record(record: Mapping[str, Any]) -> Hashable:
    return str(record.get("image")), str(record.get("Answer")).strip()
