"""Reads Ferret-Bench: the regions of Osprey's file beside Ferret's own, matched by id and picture; and answers and
reviews as the official scripts write them.

Source: `PixelRefer/evaluation/` in https://github.com/alibaba-damo-academy/PixelRefer, `ferret/eval/` in
https://github.com/apple/ml-ferret.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pixelrefer_plugin.authoring import (
    Answer,
    BenchmarkFile,
    DataError,
    Defect,
    EvaluationError,
    JudgeRequest,
    Question,
    RecordPlace,
    Region,
    RegionError,
    SampleError,
    collecting,
    matched,
    official_records,
    path_shown,
    questions_of,
    read_json,
    read_sample,
    read_segmentation,
    shown,
    text_in,
)

from .config import FerretConfig
from .files import RULES, category_of, judge_file, regions_file
from .prompts import judge_request, prompts, shown_answers

_EXPECTED = "expected an object with 'question_id', 'image' and 'text'"


def open_questions(config: FerretConfig, folder: Path) -> list[Question]:
    """The questions, in the order of Osprey's file.

    Raises:
        DataError: a file is missing or is something else; a record is broken; or an id is in one file alone, twice in
            one, or of another picture in another.
    """
    data = folder / config.data
    role, rule = _rule(config, data)
    texts = {name: _texts(data, judge_file(config, data, name)) for name in ("question", "context", "answer")}
    questions = []
    for record, place in official_records(folder, regions_file(config), folder / config.images):
        question = _question(record, place)
        facts = {name: _text_for(question, found, name, config, data) for name, found in texts.items()}
        shared = {"role": role, "rule": rule, "category": category_of(config), "image": question.facts["image"]}
        facts = {**shared, **facts, "reference": facts["answer"]}
        questions.append(replace(question, references=(facts["answer"],), type=category_of(config), facts=facts))
    return questions


def _rule(config: FerretConfig, data: Path) -> tuple[str, str]:
    """What the two who answer are called, and what the judge is told to do."""
    path, category = data / RULES.path, category_of(config)
    try:
        given = read_json(path)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path_shown(path)} cannot be read: {getattr(error, 'strerror', None) or error}. It is expected below "
            f"{path_shown(data)}: {RULES.about}"
        ) from error
    rule = given.get(category) if isinstance(given, Mapping) else None
    if not isinstance(rule, Mapping) or not all(isinstance(rule.get(key), str) for key in ("role", "prompt")):
        raise DataError(
            f"{path_shown(path)} must have an object with 'role' and 'prompt' under '{category}', got {shown(rule)}."
        )
    return rule["role"], rule["prompt"]


def _texts(data: Path, file: BenchmarkFile) -> dict[str, tuple[str, str]]:
    """By question id, the picture and the text of each record of one of Ferret's files."""
    found: dict[str, tuple[str, str]] = {}
    for record, place in _objects(data, file):
        if not isinstance(record.get("text"), str) or "question_id" not in record:
            raise DataError(f"{path_shown(data / file.path)} {place.where}: {_EXPECTED}, got {shown(record)}.")
        id = str(record["question_id"])
        if id in found:
            raise DataError(f"{path_shown(data / file.path)} {place.where}: question {id} is there twice.")
        found[id] = (str(record.get("image")), record["text"])
    return found


def _objects(data: Path, file: BenchmarkFile) -> Iterator[tuple[Mapping[str, Any], RecordPlace]]:
    """The records of one of Ferret's files; one that is no object is told what it should be."""
    try:
        yield from official_records(data, file)
    except SampleError as error:
        raise DataError(f"{str(error).rstrip('.')}: {_EXPECTED}.") from error


def _text_for(
    question: Question, texts: Mapping[str, tuple[str, str]], name: str, config: FerretConfig, data: Path
) -> str:
    """The text of a question in one of Ferret's files."""
    path = data / judge_file(config, data, name).path
    if question.id not in texts:
        raise DataError(f"{path_shown(path)} has no question {question.id}, which '{question.asked.where}' has.")
    image, text = texts[question.id]
    if image != question.facts["image"]:
        raise DataError(
            f"{path_shown(path)} has picture {shown(image)} for question {question.id}, but {question.asked.where} has "
            f"{shown(question.facts['image'])}. They are of different versions or tasks."
        )
    return text


def _question(record: Mapping[str, Any], place: RecordPlace) -> Question:
    """A question as Osprey's file has it."""
    defects: list[Defect] = []
    region: Region | None = None
    with collecting(defects, "region", "its 'annotation'"):
        region = read_segmentation(record.get("annotation"))
        if region is None:
            raise RegionError("it has no mask.")
    translated = {
        "id": record.get("question_id"),
        "image": record.get("image"),
        "messages": [{"role": "user", "content": record.get("text")}, {"role": "assistant", "content": "?"}],
    }
    sample = read_sample(translated, place, regions=[region], defects=defects)
    (asked,) = questions_of(sample)
    return replace(asked, facts={"image": record["image"]})


# -- files of others ---------------------------------------------------------------------------------------


def read_predictions(config: FerretConfig, path: str | Path, questions: Sequence[Question]) -> Iterator[Answer]:
    """Answers as official inference writes them: `question_id`, `image` and `pred` of each; Ferret, Osprey and GAR call
    the latter `text`.

    Where no picture is asked about twice, as in the official files, answers are matched by it alone: GAR numbers them
    in another way than the questions.

    Raises:
        EvaluationError: the file cannot be read, or a line is about no question, or is one too many.
    """

    by_picture = len({question.facts["image"] for question in questions}) == len(questions)

    def of_record(record: Mapping[str, Any]) -> tuple[str, str]:
        return "" if by_picture else str(record.get("question_id")), str(record.get("image"))

    def of_question(question: Question) -> tuple[str, str]:
        return "" if by_picture else question.id, question.facts["image"]

    for record, question, where in matched(path, questions, of_record=of_record, of_question=of_question):
        yield Answer(id=question.id, text=text_in(record, "pred" if "pred" in record else "text", where))


def read_reviews(
    config: FerretConfig, path: str | Path, questions: Sequence[Question], answers: Sequence[Answer]
) -> Iterator[tuple[JudgeRequest, str]]:
    """Reviews as the official scripts write them: `question_id`, `content`, and `answer1` and `answer2` as the judge
    saw them.

    Raises:
        EvaluationError: as `read_predictions`; or the judge saw another answer than the one that is scored, or the two
            in another order than the option says.
    """
    asked = prompts(config)
    text_of = {answer.id: answer.text for answer in answers}
    for record, question, where in matched(
        path,
        questions,
        of_record=lambda record: str(record.get("question_id")),
        of_question=lambda each: each.id,
    ):
        if question.id not in text_of:
            continue
        given = text_of[question.id]
        _require_same(config, record, question, given, where)
        yield judge_request(config, asked, question.id, question.facts, given), text_in(record, "content", where)


def _require_same(config: FerretConfig, record: Mapping[str, Any], question: Question, given: str, where: str) -> None:
    name = "answer1" if config.order == "model_first" else "answer2"
    if name not in record:
        return
    seen = text_in(record, name, where).strip()
    place = 0 if config.order == "model_first" else 1
    if seen in (given.strip(), shown_answers(config, question.facts, given)[place].strip()):
        return
    raise EvaluationError(
        f"{where}: the judge saw {shown(seen)} as '{name}', but the answer to question {question.id} is "
        f"{shown(given)}. These are reviews of another model, or in the other order: see the option order."
    )
