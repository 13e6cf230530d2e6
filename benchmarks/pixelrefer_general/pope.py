"""Reads POPE: `coco_pope_<split>.json`, JSON lines `{"question_id", "image", "text", "label"}`.

Source: https://github.com/RUCAIBox/POPE (`output/coco`), pictures of COCO val2014.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pixelrefer_plugin.authoring import (
    Answer,
    BenchmarkFile,
    Defect,
    Prompt,
    PublishedFigure,
    Question,
    RecordPlace,
    matched,
    official_records,
    questions_of,
    read_sample,
    shown,
    text_in,
    with_unique_ids,
)

from .config import PopeConfig
from .tasks import SPLITS

_FROM = "from https://github.com/RUCAIBox/POPE, output/coco."
FILES = (
    *(BenchmarkFile(f"coco_pope_{split}.json", f"the questions of the split {split}, {_FROM}") for split in SPLITS),
    BenchmarkFile("val2014", "the pictures, COCO val2014, from https://cocodataset.org."),
)
PUBLISHED = (
    PublishedFigure(
        "PixelRefer-2B",
        "accuracy",
        0.887,
        "PixelRefer (arXiv 2510.23603), Table 10, last row; it does not say whether accuracy or F1",
    ),
)


def prompts(config: PopeConfig) -> list[Prompt]:
    """The template of a question."""
    origin = "own words" if config.instruction == PopeConfig.instruction else "option instruction"
    return [Prompt("question", _asked(config, "{question}"), origin)]


def _asked(config: PopeConfig, question: str) -> str:
    return f"{question}\n{config.instruction}" if config.instruction else question


def open_questions(config: PopeConfig, folder: Path) -> list[Question]:
    """The questions of each split; raises `DataError` that names the file, the record and what is wrong."""
    folder = Path(folder)
    questions = (each for split in config.splits for each in _of_split(config, folder, split))
    return list(with_unique_ids(questions))


def _of_split(config: PopeConfig, folder: Path, split: str) -> Iterator[Question]:
    for record, place in official_records(folder, FILES[SPLITS.index(split)], folder / config.images):
        yield _question(config, split, record, place)


def _question(config: PopeConfig, split: str, record: Mapping[str, Any], place: RecordPlace) -> Question:
    defects: list[Defect] = []
    text, label = record.get("text"), record.get("label")
    for key in ("text", "image"):
        if not isinstance(record.get(key), str) or not record[key].strip():
            defects.append(Defect("format", f"'{key}' must be a text, got {shown(record.get(key))}."))
    if label not in ("yes", "no"):
        defects.append(Defect("answer", f"'label' must be yes or no, got {shown(label)}."))
    translated = {
        "id": f"{split}_{shown(record.get('question_id', place.index))}",
        "image": record.get("image"),
        "messages": [
            {"role": "user", "content": _asked(config, str(text))},
            {"role": "assistant", "content": str(label)},
        ],
    }
    sample = read_sample(translated, place, regions=[], defects=defects)
    (question,) = questions_of(sample)
    return replace(question, type=split, facts={"category": split, "Answer": label})


def read_predictions(config: PopeConfig, path: str | Path, questions: Sequence[Question]) -> Iterator[Answer]:
    """Lines that `PixelRefer/evaluation/eval_pope.py` scores: `category`, `Answer`, `pred`; in the order of questions.

    Raises:
        EvaluationError: the file cannot be read, or a line is about no question, or is one too many.
    """
    for record, question, where in matched(path, questions, of_record=_key, of_question=lambda each: _key(each.facts)):
        yield Answer(id=question.id, text=text_in(record, "pred", where))


def _key(record: Mapping[str, Any]) -> Hashable:
    return str(record.get("category")), str(record.get("Answer")).strip()
