"""Benchmarks: their official files, what a model and a judge may say, and what other systems wrote about them."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

from pixelrefer_plugin.contracts.benchmark import BenchmarkSpec
from pixelrefer_plugin.contracts.questions import Answer
from pixelrefer_plugin.plugins import get_benchmark, host
from pixelrefer_plugin.testing import OfflineTools

from ..cases import Try, kind, replaced
from ..mutate import TEXTS, changed_bytes, changed_json, nasty

_JUDGEMENTS = (
    *TEXTS,
    '{"score": 7, "reason": "fits"}',
    "8 9\nBoth fit.",
    "1. Subject Correspondence: 5\n2. Appearance Description: 4/5\n**Temporal Description**: 3",
    "Score: 7/10",
    "9" * 50_000,
    "8" + " " * 50_000 + "9",
    "1. " * 20_000,
    '{"score": ' * 2_000,
    "<html><body>502 Bad Gateway</body></html>",
)


@kind("files of benchmarks", share=10)
def official_files(rng: random.Random, folder: Path) -> Try:
    spec = _made(rng, folder)
    os.mkfifo(folder / "pipe")
    files = sorted(each for each in folder.rglob("*.json*") if each.is_file())
    chosen = rng.choice(files)
    replaced(chosen, _changed(rng, chosen.read_bytes()))
    options = _options(rng, spec)
    text = rng.choice(TEXTS)
    return lambda: _use(spec, options, folder, text)


@kind("answers of judges", share=6)
def judgements(rng: random.Random, folder: Path) -> Try:
    spec = _made(rng, folder)
    pieces = [rng.choice(_JUDGEMENTS) for _ in range(rng.choice((1, 1, 2, 3)))]
    said = "".join(pieces)
    if rng.random() < 0.3:
        said = changed_bytes(rng, said.encode("utf-8", "replace")).decode("utf-8", "replace")
    text = rng.choice(TEXTS)
    return lambda: _use(spec, {}, folder, text, said)


@kind("answers of other systems", share=6)
def published(rng: random.Random, folder: Path) -> Try:
    spec = _made(rng, folder)
    questions = spec.open(spec.make_config({}), folder)
    lines = [changed_json(rng, _record(question.facts)) if rng.random() < 0.5 else b"" for question in questions]
    plain = [json.dumps(_record(question.facts)).encode() for question in questions]
    path = folder / "theirs.jsonl"
    path.write_bytes(b"\n".join(changed or sound for changed, sound in zip(lines, plain, strict=True)))

    def try_it() -> None:
        config = spec.make_config({})
        answers = [Answer(id=question.id, text="x") for question in questions]
        for read in spec.answer_formats.values():
            list(read(config, path, questions))
        for read in spec.judged_formats.values():
            list(read(config, path, questions, answers))

    return try_it


def _made(rng: random.Random, folder: Path) -> BenchmarkSpec:
    """A benchmark, with its small files in the folder."""
    specs = [get_benchmark(name) for name in sorted(host().names("benchmark"))]
    spec = rng.choice([each for each in specs if each.tiny is not None])
    assert spec.tiny is not None
    spec.tiny(folder)
    return spec


def _changed(rng: random.Random, data: bytes) -> bytes:
    try:
        return changed_json(rng, json.loads(data)) if rng.random() < 0.7 else changed_bytes(rng, data)
    except ValueError:
        lines = data.splitlines() or [b"{}"]
        number = rng.randrange(len(lines))
        lines[number] = changed_json(rng, json.loads(lines[number] or b"{}"))
        return b"\n".join(lines)


def _options(rng: random.Random, spec: BenchmarkSpec) -> dict[str, Any]:
    """Options of the benchmark, most of the time none."""
    known = list(getattr(spec.config, "__dataclass_fields__", {})) or ["x"]
    return {} if rng.random() < 0.8 else {rng.choice((*known, rng.choice(TEXTS))): nasty(rng)}


def _use(spec: BenchmarkSpec, options: dict[str, Any], folder: Path, text: str, said: str = "8 8") -> Any:
    os.environ["PATH"] = ""  # of this worker: METEOR's program takes seconds to start
    config = spec.make_config(options)
    questions = spec.open(config, folder)
    answers = [Answer(id=question.id, text=text) for question in questions]
    scores = spec.score(config, questions, answers, OfflineTools(said))
    return [figure.of() for figure in scores.figures]


def _record(facts: Any) -> dict[str, Any]:
    """What official scripts write about a question, as far as its facts say it."""
    reference = facts.get("caption", "")
    return {
        **{key: facts[key] for key in ("image", "video") if key in facts},
        "Answer": reference,
        "pred": "x",
        "gpt": "1. Subject Correspondence: 5",
        "content": "8 9",
        "answer1": "x",
        "question_id": 0,
        "score": 0.5,
        "reason": "x",
    }
