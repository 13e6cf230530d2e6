"""What judges reply, files of what they have said, and the files of a benchmark that asks them."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pixelrefer_plugin.contracts.benchmark import JudgeRequest
from pixelrefer_plugin.contracts.questions import Answer
from pixelrefer_plugin.evaluation.judging import Judge
from pixelrefer_plugin.evaluation.judging.server import read_reply
from pixelrefer_plugin.plugins import get_benchmark

from ..cases import Try, kind, linked, replaced, template
from ..mutate import TEXTS, changed_bytes, changed_json

_REPLY: dict[str, Any] = {
    "id": "1",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "A"}, "finish_reason": "stop"}],
    "usage": {"total_tokens": 3},
}
_REQUESTS = [
    JudgeRequest("1", str(part), [{"role": "user", "content": f"Is it {part}?"}], {"max_tokens": 3})
    for part in range(3)
]


@kind("judge replies", share=8)
def judge_replies(rng: random.Random, folder: Path) -> Try:
    data = changed_json(rng, _REPLY) if rng.random() < 0.8 else changed_bytes(rng, json.dumps(_REPLY).encode())
    return lambda: read_reply(data.decode("utf-8", "replace"))


@kind("judge answers", share=8)
def judge_answers(rng: random.Random, folder: Path) -> Try:
    path = folder / "judge.jsonl"
    Judge.open("m", cache=path).import_answers([(each, "A") for each in _REQUESTS], origin="x")
    lines = path.read_bytes().splitlines()
    made = [changed_json(rng, json.loads(line)) if rng.random() < 0.3 else line for line in lines]
    data = b"\n".join(made)
    replaced(path, changed_bytes(rng, data) if rng.random() < 0.3 else data)
    return lambda: _asked_again(path)


def _asked_again(path: Path) -> list[str]:
    judge = Judge.open("m", cache=path)
    judge.import_answers([(_REQUESTS[0], "B")], origin="y")
    again = Judge.open("m", cache=path)
    return again.ask(_REQUESTS[:1])


@kind("judged files", share=8)
def judged_files(rng: random.Random, folder: Path) -> Try:
    spec = get_benchmark("dlc_bench")
    official = linked(template("dlc", _write_dlc), folder / "dlc")
    path = official / rng.choice(("qa.json", "class_names.json", "annotations.json", "pred.json", "eval.json"))
    replaced(path, changed_json(rng, json.loads(path.read_bytes())))
    said = [rng.choice((*TEXTS, "A", "B", "A. Yes", "(C)")) for _ in range(4)]
    return lambda: _scored(spec, official, said)


def _write_dlc(folder: Path) -> None:
    spec = get_benchmark("dlc_bench")
    spec.tiny(folder)
    items = {
        question.id: {
            "pred": "A lamp.",
            "prompt": ["?", *(" ".join((each.question, *each.choices)) for each in question.facts["items"])],
            "response": ["A. Yes", "B", "B", "A"],
        }
        for question in spec.open(spec.make_config(), folder)
    }
    (folder / "eval.json").write_text(json.dumps(items))
    (folder / "pred.json").write_text(json.dumps(dict.fromkeys(items, "A lamp.")))


class _Saying:
    judge = "m"

    def __init__(self, said: Sequence[str]) -> None:
        self.said = said

    def ask_judge(self, requests: Sequence[JudgeRequest]) -> list[str]:
        return [self.said[number % len(self.said)] for number in range(len(requests))]


def _scored(spec: Any, folder: Path, said: Sequence[str]) -> list[float]:
    config = spec.make_config()
    questions = spec.open(config, folder)
    given = {answer.id: answer for answer in spec.answer_formats["dam"](config, folder / "pred.json", questions)}
    answers = [given.get(question.id, Answer(id=question.id, text="A lamp.")) for question in questions]
    Judge("m").import_answers(spec.judged_formats["dam"](config, folder / "eval.json", questions, answers), origin="x")
    return [figure.of() for figure in spec.score(config, questions, answers, _Saying(said)).figures]
