"""Files of answers, and what an interruption may have left of them; files of questions without answers."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pixelrefer_plugin import RegionSample
from pixelrefer_plugin.contracts.questions import Answer, Question
from pixelrefer_plugin.evaluation.asking.question_file import Asking, FileQuestions, open_files
from pixelrefer_plugin.evaluation.predicting.answer_file import read_answers
from pixelrefer_plugin.evaluation.predicting.answering import answer_questions
from pixelrefer_plugin.plugins import get_data_format

from ..cases import Try, kind, replaced
from ..mutate import changed_bytes, changed_json, nasty

_RLE = {"size": [48, 64], "counts": [100, 20, 28, 20, 2904]}
_LINES: tuple[dict[str, Any], ...] = (
    {"id": "0", "question": "what?", "given": "a cat"},
    {"id": "1", "given": "<seg> <seg>", "masks": [_RLE, None], "size": [48, 64]},
    {"id": "2", "given": "<seg>", "masks": [{"frames": {"0": _RLE, "7": None}}], "size": [48, 64], "frames": [0, 7]},
    {"id": "3", "given": "", "failure": "its picture is missing."},
)
_FINGERPRINT = {"model": "m"}


class _Echo:
    """Says what it is asked."""

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        return [Answer(id=question.id, text=question.text) for question in questions]


def _questions() -> list[Question]:
    messages = ({"role": "user", "content": "what?"},)
    return [Question(id=str(number), asked=RegionSample(str(number), messages)) for number in range(4)]


@kind("answer files", share=8)
def answer_files(rng: random.Random, folder: Path) -> Try:
    lines = b"\n".join(changed_json(rng, each) if rng.random() < 0.5 else json.dumps(each).encode() for each in _LINES)
    path = replaced(folder / "answers.jsonl", changed_bytes(rng, lines) if rng.random() < 0.3 else lines)
    partial = rng.random() < 0.5
    return lambda: read_answers(path, _questions(), partial=partial)


@kind("answer parts", share=4)
def answer_parts(rng: random.Random, folder: Path) -> Try:
    parts = folder / "answers.jsonl.parts"
    parts.mkdir()
    lines = b"".join(b'{"at": %d, %b\n' % (place, json.dumps(line)[1:].encode()) for place, line in enumerate(_LINES))
    header = {**_FINGERPRINT, "questions": 4}
    replaced(parts / "header.json", changed_json(rng, header) if rng.random() < 0.3 else json.dumps(header).encode())
    for rank in range(rng.randrange(1, 3)):
        replaced(parts / f"{rank}.jsonl", changed_bytes(rng, lines))
    if rng.random() < 0.3:
        replaced(parts / "stopped.json", changed_json(rng, {"process": 1, "why": "?"}))
    overwrite = rng.random() < 0.5
    out = folder / "answers.jsonl"

    def try_it() -> None:
        answer_questions(_Echo(), _questions(), out, batch_size=2, fingerprint=_FINGERPRINT, overwrite=overwrite)

    return try_it


@kind("questions", share=6)
def questions(rng: random.Random, folder: Path) -> Try:
    path = get_data_format("regions").tiny(folder)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        record["messages"] = record["messages"][: rng.randrange(3)]
        if rng.random() < 0.3:
            del record["messages"]
    replaced(path, b"\n".join(changed_json(rng, each) for each in records))
    prompt = rng.choice((None, None, "Describe <region>.", nasty(rng)))
    segment = rng.random() < 0.3

    def try_it() -> None:
        asking = Asking(prompt if prompt is None else str(prompt), segment)
        asked = FileQuestions(open_files([path], format="regions", use=asking.use), asking, on_bad_sample="skip")
        answer_questions(_Echo(), asked, folder / "out.jsonl", batch_size=2, fingerprint={}, on_bad_sample="skip")

    return try_it
