"""Reads what others have published of DLC-Bench: descriptions, and answers of their judges."""

from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from typing import Any

from pixelrefer_plugin.authoring import (
    Answer,
    DataError,
    JudgeRequest,
    Question,
    open_regular,
    parse_json,
    read_json,
    shown,
)

from .config import DlcConfig
from .prompts import judge_prompts
from .requests import requests_of

_FAILED = "Error:"


def read_predictions(config: DlcConfig, path: str | PathLike[str], questions: Sequence[Question]) -> Iterator[Answer]:
    """Answers in DAM's and GAR's form: `{id: text, "query": what was asked}`.

    Raises:
        DataError: the file is of another form.
    """
    for id, text in _object(path).items():
        if id == "query":
            continue
        if not isinstance(text, str):
            raise DataError(f"'{path}': the description of '{id}' must be a text, got {shown(text)}.")
        yield _answer(id, text)


def read_lines(config: DlcConfig, path: str | PathLike[str], questions: Sequence[Question]) -> Iterator[Answer]:
    """Answers as PixelRefer's `infer_dam.py` writes them: lines of `{"id", "image", "pred"}`.

    Raises:
        DataError: the file is of another form.
    """
    try:
        with open_regular(path) as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _of_line(line, f"'{path}' line {number}")
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror or error}.") from error


def read_judged(
    config: DlcConfig, path: str | PathLike[str], questions: Sequence[Question], answers: Sequence[Answer]
) -> Iterator[tuple[JudgeRequest, str]]:
    """A judge's answers, as `eval_model_outputs.py` of DAM, and the scripts made of it, write them beside predictions.

    Each item has `pred`, the description that was judged, which must be the answer that is scored; `prompt` and
    `response`, recognition first. Items that the file lacks are passed over.

    Raises:
        DataError: the file is of another form, or it judged other descriptions, or asked other questions.
    """
    judged, prompts = _object(path), judge_prompts(config)
    for question, answer in zip(questions, answers, strict=True):
        if question.id not in judged or answer.failure:
            continue
        where = f"'{path}' item '{question.id}'"
        requests = requests_of(config, prompts, question, answer)
        said, asked = _judged(judged[question.id], where, len(requests), answer)
        for request, prompt, item in zip(requests[1:], asked[1:], question.facts["items"], strict=False):
            if any(text not in prompt for text in (item.question, *item.choices)):
                raise DataError(f"{where}: question {request.part} of qa.json was not asked. Is it of another version?")
        for request, prompt, text in zip(requests, asked, said, strict=False):
            if prompts.is_official and _text(request) != prompt:
                raise DataError(f"{where}: {request.part} was asked in other words than those of official_code.")
            if text is not None:
                yield request, text


def _judged(item: Any, where: str, count: int, answer: Answer) -> tuple[list[str | None], list[str]]:
    """The judge's answers of an item, None for one that was not given, and what it was asked."""
    said, asked = (item.get("response"), item.get("prompt")) if isinstance(item, Mapping) else (None, None)
    if not (
        isinstance(said, list)
        and isinstance(asked, list)
        and len(said) == len(asked) <= count
        and all(isinstance(text, str | None) for text in said)
        and all(isinstance(text, str) for text in asked)
    ):
        expected = f"an object with pred, and lists response and prompt of equal length, at most {count} texts"
        raise DataError(f"{where} must be {expected}, got {shown(item, 200)}.")
    if item.get("pred") != answer.text:
        raise DataError(
            f"{where} judges another description than the one that is scored: {shown(item.get('pred'))} there, "
            f"{shown(answer.text)} here. Give the predictions that belong to it."
        )
    return said, asked


def _text(request: JudgeRequest) -> str:
    """The words of a request, without what stands around them where pictures are shown."""
    content = request.messages[-1]["content"]
    return content if isinstance(content, str) else content[-1]["text"][1:-1]


def _of_line(line: bytes, where: str) -> Answer:
    try:
        record = parse_json(line)
    except ValueError as error:
        raise DataError(f"{where} is no JSON: {error}.") from error
    if not isinstance(record, Mapping) or not all(isinstance(record.get(key), str) for key in ("id", "pred")):
        raise DataError(f"{where} must be an object with the texts id and pred, got {shown(record)}.")
    return _answer(record["id"], record["pred"])


def _answer(id: str, text: str) -> Answer:
    """An answer; the official scripts take a text that begins so for none."""
    return Answer(id=id, text="", failure=text) if text.startswith(_FAILED) else Answer(id=id, text=text)


def _object(path: str | PathLike[str]) -> Mapping[str, Any]:
    try:
        value = read_json(path)
    except (OSError, ValueError) as error:
        raise DataError(f"'{path}' cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    if not isinstance(value, Mapping):
        raise DataError(f"'{path}' must be an object of items by id, got {shown(value)}.")
    return value
