"""Reads DLC-Bench's files: a question for each annotated region, with what the judge is asked about its description.

`qa.json` maps ids of annotations to `[{"question", "choices": [[text, score]], "type": "positive" or "negative"}]`,
`class_names.json` maps them to a class, `annotations.json` is a COCO file.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pixelrefer_plugin.authoring import (
    BenchmarkFile,
    DataError,
    Defect,
    Question,
    RecordPlace,
    Region,
    RegionError,
    collecting,
    questions_of,
    read_json,
    read_sample,
    read_segmentation,
    shown,
)

from .config import DlcConfig
from .prompts import question_of

_ORIGIN = (
    "from https://huggingface.co/datasets/nvidia/DLC-Bench; also in evaluation/DLC-Bench/annotations of "
    "https://github.com/Haochen-Wang409/Grasp-Any-Region"
)
FILES = (
    BenchmarkFile("qa.json", f"Questions about the description of each region, {_ORIGIN}."),
    BenchmarkFile("class_names.json", f"The class of each region, {_ORIGIN}."),
    BenchmarkFile("annotations.json", f"The regions, as COCO has them, {_ORIGIN}."),
    BenchmarkFile(
        "images",
        "Pictures of Objects365, from https://huggingface.co/datasets/nvidia/DLC-Bench; answers that are there are "
        "scored without them, unless the judge sees them.",
        optional=True,
    ),
)
LETTERS = "ABCDE"
_MOST_CHOICES = len(LETTERS)


@dataclass(frozen=True)
class Item:
    """One question to the judge.

    Attributes:
        question: its text.
        choices: the texts of the choices.
        scores: of the choices.
        kind: `positive`: about what is there; `negative`: about what is not.
    """

    question: str
    choices: tuple[str, ...]
    scores: tuple[float, ...]
    kind: Literal["positive", "negative"]


def open_questions(config: DlcConfig, folder: Path) -> list[Question]:
    """The questions, in the order of `qa.json`. The pictures need not be there: only who looks at them misses them.

    Raises:
        DataError: a file is missing or of another form; it names the file, and where it comes from.
    """
    items, names, annotations = (_read(folder, file) for file in FILES[:3])
    regions = _by_id(annotations, folder / FILES[2].path)
    images = Path(config.images) if config.images else folder / FILES[3].path
    asked = question_of(config)
    found = []
    for index, (id, given) in enumerate(items.items()):
        place = RecordPlace(f"{folder / FILES[0].path} item '{id}'", index, images)
        if id not in names or not isinstance(names[id], str) or id not in regions:
            missing = FILES[2].path if id not in regions else FILES[1].path
            raise DataError(f"'{folder / missing}' has nothing of item '{id}' of {FILES[0].path}: two versions?")
        facts = {"class_name": names[id], "items": _items(given, place)}
        found.append(_question(id, asked, regions[id], place, facts))
    return found


def _read(folder: Path, file: BenchmarkFile) -> Mapping[str, Any]:
    path = folder / file.path
    try:
        value = read_json(path)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"'{path}' of DLC-Bench cannot be read: {why}. {file.about}") from error
    if not isinstance(value, Mapping) or not value:
        raise DataError(f"'{path}' of DLC-Bench must be an object, got {shown(value)}. {file.about}")
    return value


def _by_id(annotations: Mapping[str, Any], path: Path) -> dict[str, dict[str, Any]]:
    """The annotations by id, each with its image's `file_name`, `height` and `width`."""
    lists = [annotations.get(key) for key in ("images", "annotations")]
    if not all(isinstance(each, list) and all(isinstance(one, Mapping) for one in each) for each in lists):
        raise DataError(f"'{path}' must be a COCO file with lists 'images' and 'annotations'. {FILES[2].about}")
    images = {str(each.get("id")): each for each in lists[0] or []}
    return {
        str(each.get("id")): {**each, "of_image": images.get(str(each.get("image_id")), {})} for each in lists[1] or []
    }


def _question(
    id: str, asked: str, annotation: Mapping[str, Any], place: RecordPlace, facts: Mapping[str, Any]
) -> Question:
    defects: list[Defect] = []
    region: Region | None = None
    with collecting(defects, "region", "its mask"):
        region = read_segmentation(annotation.get("segmentation"))
        if region is None:
            raise RegionError(f"annotation {id} has no segmentation.")
    image = annotation["of_image"]
    record = {
        "id": id,
        "image": image.get("file_name"),
        "size": [image.get("height"), image.get("width")],
        "messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": facts["class_name"]}],
    }
    (question,) = questions_of(read_sample(record, place, regions=[region], defects=defects))
    return replace(question, references=(), facts=facts)  # the class is no description


def _items(given: Any, place: RecordPlace) -> tuple[Item, ...]:
    if not isinstance(given, list) or not given:
        raise DataError(f"{place.where} must be a list of questions, got {shown(given)}. {FILES[0].about}")
    return tuple(_item(each, f"{place.where}, question {number}") for number, each in enumerate(given, 1))


def _item(given: Any, where: str) -> Item:
    choices = given.get("choices") if isinstance(given, Mapping) else None
    if not (
        isinstance(choices, list)
        and 0 < len(choices) <= _MOST_CHOICES
        and all(map(_is_choice, choices))
        and isinstance(given.get("question"), str)
        and given.get("type") in ("positive", "negative")
    ):
        expected = "{question, choices: 1 to 5 of [text, score], type: positive or negative}"
        raise DataError(f"{where} must be {expected}, got {shown(given, 200)}. {FILES[0].about}")
    texts, scores = ([choice[side] for choice in choices] for side in (0, 1))
    return Item(given["question"], tuple(texts), tuple(map(float, scores)), given["type"])


def _is_choice(choice: Any) -> bool:
    if not isinstance(choice, list) or len(choice) != 2:
        return False
    text, score = choice
    is_number = isinstance(score, int | float) and not isinstance(score, bool) and math.isfinite(score)
    return isinstance(text, str) and is_number
