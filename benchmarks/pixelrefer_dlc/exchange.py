"""Reads what others have published of DLC-Bench: descriptions, and answers of their judges."""

import logging
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
from .prompts import JudgePrompts, judge_prompts
from .requests import requests_of

_log = logging.getLogger(__name__)
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

    Each item has `pred`, the description that was judged, and `prompt` and `response`, recognition first. Items about
    another description than the one that is scored, and those that the file lacks, are passed over; how many is logged.

    Raises:
        DataError: the file is of another form, asked other questions, or has nothing about these descriptions.
    """
    judged, prompts = _object(path), judge_prompts(config)
    others: list[str] = []
    num_scored = 0
    for question, answer in zip(questions, answers, strict=True):
        if question.id not in judged or answer.failure:
            continue
        where = f"'{path}' item '{question.id}'"
        item = _item(judged[question.id], where)
        if item["pred"] != answer.text:
            others.append(f"{where}: {shown(item['pred'])} there, {shown(answer.text)} here")
            continue
        num_scored += 1
        yield from _of_item(item, where, question, requests_of(config, prompts, question, answer), prompts)
    if not num_scored:
        why = f"judges other descriptions: {others[0]}" if others else "judges none of the questions that are scored"
        raise DataError(f"'{path}' {why}. Give the predictions that belong to it.")
    if others:
        _log.warning("%d of %d descriptions are not those that '%s' judges.", len(others), len(questions), path)


def _item(item: Any, where: str) -> Mapping[str, Any]:
    said, asked = (item.get("response"), item.get("prompt")) if isinstance(item, Mapping) else (None, None)
    if not (
        isinstance(said, list)
        and isinstance(asked, list)
        and len(said) == len(asked)
        and all(isinstance(text, str | None) for text in said)
        and all(isinstance(text, str) for text in [*asked, item.get("pred")])
    ):
        expected = "an object with a text pred, and lists of texts response and prompt, of equal length"
        raise DataError(f"{where} must be {expected}, got {shown(item, 200)}.")
    checked: Mapping[str, Any] = item
    return checked


def _of_item(
    item: Mapping[str, Any],
    where: str,
    question: Question,
    requests: Sequence[JudgeRequest],
    prompts: JudgePrompts,
) -> Iterator[tuple[JudgeRequest, str]]:
    """The requests of an item that the judge answered; what it was asked must be what is asked now."""
    said, asked = item["response"], item["prompt"]
    if len(said) > len(requests):
        raise DataError(f"{where} has {len(said)} answers, but there are {len(requests)} questions.")
    for request, prompt, one in zip(requests[1:], asked[1:], question.facts["items"], strict=False):
        if any(text not in prompt for text in (one.question, *one.choices)):
            raise DataError(f"{where}: question {request.part} of qa.json was not asked. Is it of another version?")
    for request, prompt, text in zip(requests, asked, said, strict=False):
        if prompts.is_official and _text(request) != prompt:
            raise DataError(f"{where}: {request.part} was asked in other words than those of official_code.")
        if text is not None:
            yield request, text


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
