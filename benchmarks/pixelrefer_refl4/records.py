"""Reads Ref-L4's validation file as PixelRefer processed it, and files of answers and scores of its scripts.

Source: `PixelRefer/evaluation/` in https://github.com/alibaba-damo-academy/PixelRefer.
"""

import json
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
    collecting,
    matched,
    official_records,
    path_shown,
    questions_of,
    read_sample,
    require_same_answer,
    shown,
    size_of,
    text_in,
)

from .config import RefL4DetailedConfig
from .prompts import judge_prompt, judge_request, question_of

QUESTIONS = BenchmarkFile(
    "ref-l4-val.json",
    "JSON lines with an object and its captions each, from "
    "https://huggingface.co/datasets/CircleRadon/referring_evaluation.",
)
FILES = (
    QUESTIONS,
    BenchmarkFile("images", "folder of the pictures, from https://huggingface.co/datasets/JierunChen/Ref-L4."),
)
_SCORED = "objects365"
"""Part of the name of each picture that counts; the others are COCO's, which models are trained on."""
_GIVEN_UP = ("Parsing failure", "Error: ")
"""How reasons begin that the official script gives where it could not read the judge's answer."""


def open_questions(config: RefL4DetailedConfig, folder: Path) -> list[Question]:
    """The questions, one for each record of a picture of Objects365.

    Raises:
        DataError: the file, the record and what is wrong.
    """
    question = question_of(config).text
    found = []
    for record, place in official_records(folder, QUESTIONS, folder / config.images):
        if _SCORED in str(record.get("file_name")):
            found.append(_question(question, record, place))
    if not found:
        raise DataError(f"{path_shown(folder / QUESTIONS.path)} has no record whose 'file_name' holds '{_SCORED}'.")
    return found


def _question(question: str, record: Mapping[str, Any], place: RecordPlace) -> Question:
    defects: list[Defect] = []
    region: Region | None = None
    with collecting(defects, "region", "'bbox'"):
        region = _box(record)
    caption = record.get("caption")
    references = [caption] if isinstance(caption, str) else caption
    if not isinstance(references, list) or not references or not all(isinstance(each, str) for each in references):
        defects.append(Defect("answer", f"'caption' must be a text or a list of texts, got {shown(caption)}."))
        references = ["?"]
    translated = {
        "image": record["file_name"],
        "size": size_of(record),
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": references[0]}],
    }
    sample = read_sample(translated, place, regions=[region], defects=defects)
    (asked,) = questions_of(sample)
    facts = {"image": record["file_name"], "caption": caption}
    return replace(asked, references=tuple(references), facts=facts)


def _box(record: Mapping[str, Any]) -> Region:
    """The region of a box `[x, y, width, height]`, cut to whole pixels and to the picture as by the official code."""
    given = record.get("bbox")
    if not isinstance(given, list) or len(given) != 4 or not all(map(_is_number, given)):
        raise RegionError(f"must be [x, y, width, height], got {shown(given)}.")
    x, y, width, height = map(int, given)
    box = [max(0, x), max(0, y), x + width, y + height]
    for end, side in ((2, record.get("width")), (3, record.get("height"))):
        box[end] = min(box[end], side) if isinstance(side, int) else box[end]
    return Region.from_box(box)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**31


# -- files of others ---------------------------------------------------------------------------------------


def read_predictions(config: RefL4DetailedConfig, path: str | Path, questions: Sequence[Question]) -> Iterator[Answer]:
    """Answers as the official inference writes them: `image`, `Answer` (the references) and `pred` of each.

    Raises:
        EvaluationError: the file cannot be read, or a line is about no question, or is one too many.
    """
    for record, question, where in _matched(path, questions):
        yield Answer(id=question.id, text=text_in(record, "pred", where))


def read_judged(
    config: RefL4DetailedConfig, path: str | Path, questions: Sequence[Question], answers: Sequence[Answer]
) -> Iterator[tuple[JudgeRequest, str]]:
    """Scores as the official script writes them: the keys of `read_predictions`, `score` and `reason`.

    What the judge said is not in that file. It is put together again from score and reason; where the script could not
    read it, as a text without a score.

    Raises:
        EvaluationError: as `read_predictions`; `score` is no number; or an answer that was judged is another than the
            one that is scored.
    """
    prompt = judge_prompt(config)
    text_of = {answer.id: answer.text for answer in answers}
    for record, question, where in _matched(path, questions):
        if record.get("score") is None or question.id not in text_of:
            continue
        given = text_of[question.id]
        require_same_answer(text_in(record, "pred", where), given, id=question.id, where=where)
        request = judge_request(config, prompt, question.id, given, question.facts["caption"])
        yield request, _said(record, where)


def _said(record: Mapping[str, Any], where: str) -> str:
    """The judge's answer from which the script read this score and this reason."""
    score, reason = record["score"], record.get("reason", "")
    if not _is_number(score):
        raise EvaluationError(f"{where}: 'score' must be a number, got {shown(score)}.")
    if isinstance(reason, str) and reason.startswith(_GIVEN_UP):
        return "There was no score."
    return json.dumps({"score": round(score * 100, 9), "reason": str(reason).translate({ord("{"): "(", ord("}"): ")"})})


def _matched(path: str | Path, questions: Sequence[Question]) -> Iterator[tuple[Mapping[str, Any], Question, str]]:
    def of_record(record: Mapping[str, Any]) -> tuple[str, str]:
        return str(record.get("image")), json.dumps(record.get("Answer"))

    def of_question(question: Question) -> tuple[str, str]:
        return str(question.facts["image"]), json.dumps(question.facts["caption"])

    return matched(path, questions, of_record=of_record, of_question=of_question)
