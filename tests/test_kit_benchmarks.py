"""The kit for benchmarks: those that are built in pass, and each check can fail.

This module is a plugin with one benchmark, for the length of a test: what it registers is the test's.
"""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from conftest import install_plugin, user

from pixelrefer_plugin import DataError
from pixelrefer_plugin.authoring import (
    BenchmarkFile,
    BenchmarkSpec,
    EvaluationError,
    Figure,
    JudgeRequest,
    Question,
    Region,
    RegionSample,
    Scores,
    check_field,
    hookimpl,
    shown,
)
from pixelrefer_plugin.plugins import get_benchmark, installed
from pixelrefer_plugin.testing import BENCHMARK_CHECKS, BenchmarkCase, check_benchmark, write_tiny_picture

PLUGIN_API = 1
registered = {}


@hookimpl
def register_benchmarks(register):
    register(registered["spec"])


@pytest.fixture
def install(monkeypatch):
    """Installs a benchmark beside the built-in ones."""

    def installed_spec(spec):
        monkeypatch.setitem(registered, "spec", spec)
        install_plugin(monkeypatch, "acme", __name__)

    return installed_spec


def _name(check):
    return check.__name__


@pytest.mark.usefixtures("without_java")
@pytest.mark.parametrize("check", BENCHMARK_CHECKS, ids=_name)
@pytest.mark.parametrize("name", installed("benchmark"))
def test_benchmark(name, check, tmp_path):
    spec = get_benchmark(name)
    spec.tiny(tmp_path)
    check(BenchmarkCase(spec, tmp_path))


# -- one of our own ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Config:
    limit: int = 10


@dataclass(frozen=True)
class Unruly:
    limit: int = 0

    def __post_init__(self):
        check_field(self.limit > 0, self, "limit", "a number > 0")


def tiny(folder):
    write_tiny_picture(folder / "a.png")
    labels = {"1": "cat", "2": "dog", "3": "red car"}
    (folder / "labels.json").write_text(json.dumps(labels), encoding="utf-8")


def open_labels(config, folder):
    path = folder / "labels.json"
    if not path.is_file():
        raise DataError(f"'{path}' is not there. It is made by hand.")
    labels = json.loads(path.read_text(encoding="utf-8"))
    return [question(folder, id, label) for id, label in list(labels.items())[: config.limit]]


def question(folder, id, label, *, text="What is <region>?"):
    asked = RegionSample(id, (user(str(folder / "a.png"), text),), (Region.from_box((1, 1, 9, 9)),))
    return Question(id=id, asked=with_paths(asked, folder), references=(label,))


def with_paths(sample, folder):
    image = {"type": "image", "image": str(folder / "a.png")}
    parts = [image, *(part for part in sample.messages[0]["content"] if part["type"] == "text")]
    return replace(sample, messages=({"role": "user", "content": parts},))


def score(config, questions, answers, tools):
    right = [float(answer.text == each.expected) for each, answer in zip(questions, answers, strict=True)]
    return Scores(figures=[Figure(name="exact", values=np.array(right))])


SPEC = BenchmarkSpec(
    name="acme",
    about="Names of things.",
    config=Config,
    files=(BenchmarkFile("labels.json", "Labels, made by hand."),),
    open=open_labels,
    score=score,
    tiny=tiny,
)


def judged(config, questions, answers, tools):
    requests = [JudgeRequest(each.id, "", [{"role": "user", "content": each.text}]) for each in questions]
    unread, values = {}, np.full(len(questions), np.nan)
    for row, (each, said) in enumerate(zip(questions, tools.ask_judge(requests), strict=True)):
        if re.match(r"\d{1,2}\b(?!e)", said):
            values[row] = float(said.split()[0])
        else:
            unread[each.id] = shown(said)
    return Scores(figures=[Figure(name="score", values=values, judge=tools.judge)], unread=unread)


def test_a_sound_benchmark_passes(install):
    install(SPEC)
    assert check_benchmark("acme") == [check.__name__ for check in BENCHMARK_CHECKS]
    assert check_benchmark("acme", limit=2) == [check.__name__ for check in BENCHMARK_CHECKS]


def test_a_judged_benchmark_passes(install):
    install(replace(SPEC, score=judged, needs=("judge",)))
    assert check_benchmark("acme") == [check.__name__ for check in BENCHMARK_CHECKS]


def test_a_benchmark_whose_truth_is_not_public_passes(install):
    def refuse(config, questions, answers, tools):
        raise EvaluationError("a server scores it")

    def export(config, questions, answers, folder):
        (folder / "answers.json").write_text(json.dumps([answer.text for answer in answers]), encoding="utf-8")

    install(replace(SPEC, score=refuse, export=export))
    assert check_benchmark("acme") == [check.__name__ for check in BENCHMARK_CHECKS]
    install(replace(SPEC, score=refuse))
    with pytest.raises(AssertionError, match="a server scores it"):
        check_benchmark("acme")


def test_a_folder_may_be_given(install, tmp_path):
    install(replace(SPEC, tiny=None))
    with pytest.raises(AssertionError, match=r"there are no files to read: set BenchmarkSpec\.tiny, or give folder="):
        check_benchmark("acme")
    tiny(tmp_path)
    assert check_benchmark("acme", folder=tmp_path)


# -- mistakes ----------------------------------------------------------------------------------------------


def asking(change):
    """A benchmark whose questions are changed."""
    return {"open": lambda config, folder: [change(each, folder) for each in open_labels(config, folder)]}


def scoring(change):
    """A benchmark whose figure is changed."""

    def changed(config, questions, answers, tools):
        (figure,) = score(config, questions, answers, tools).figures
        return Scores(figures=change(figure))

    return {"score": changed}


def gone(question, folder):
    image = {"type": "image", "image": str(folder / "b.png")}
    content = [image, {"type": "text", "text": "What is <region>?"}]
    return replace(question, asked=replace(question.asked, messages=({"role": "user", "content": content},)))


def answered(question, folder):
    messages = (*question.asked.messages, {"role": "assistant", "content": "a cat"})
    return replace(question, asked=replace(question.asked, messages=messages))


def by_position(config, questions, answers, tools):
    values = np.array([float(len(each.expected) * row) for row, each in enumerate(questions)])
    return Scores(figures=[Figure(name="exact", values=values)])


def anything(config, folder):
    path = folder / "labels.json"
    return open_labels(config, folder) if path.is_file() else [question(folder, "1", "cat")]


def growing():
    count = iter(range(1000))
    return asking(lambda question, folder: replace(question, id=f"{question.id}-{next(count)}"))


def strict(config, questions, answers, tools):
    if not all(answer.text.isalnum() or " " in answer.text for answer in answers):
        raise ValueError("an answer without letters")
    return score(config, questions, answers, tools)


def trusting(config, questions, answers, tools):
    requests = [JudgeRequest(each.id, "", []) for each in questions]
    said = tools.ask_judge(requests)
    return Scores(figures=[Figure(name="score", values=np.array([float(len(each) > 3) for each in said]))])


def boundless(config, questions, answers, tools):
    said = tools.ask_judge([JudgeRequest(each.id, "", []) for each in questions])
    values = [float(each.split()[0]) if each[:1].isdigit() else np.nan for each in said]
    unread = {each.id: "no number" for each, value in zip(questions, values, strict=True) if np.isnan(value)}
    return Scores(figures=[Figure(name="score", values=np.array(values))], unread=unread)


MISTAKES = {
    "defaults that it refuses": ({"config": Unruly}, "benchmark_options_are_strict", "limit must be a number > 0"),
    "no questions": ({"open": lambda *args: []}, "its_questions_can_be_asked", "the folder has no questions"),
    "one id for all": (
        asking(lambda question, folder: replace(question, id="1")),
        "its_questions_can_be_asked",
        "several questions have the id '1'",
    ),
    "the answer is told": (asking(answered), "its_questions_can_be_asked", "question '1' ends with an answer"),
    "no region": (
        asking(lambda question, folder: replace(question, asked=replace(question.asked, regions=()))),
        "its_questions_can_be_asked",
        "1 <region> but 0 regions were given",
    ),
    "no picture": (asking(gone), "its_questions_can_be_asked", "b.png, which is not there"),
    "other questions each time": (growing(), "it_opens_alike_each_time", "other questions"),
    "opens without its file": ({"open": anything}, "a_missing_file_is_named", "it opens without labels.json"),
    "too few values": (
        scoring(lambda figure: [replace(figure, values=figure.values[1:])]),
        "figures_fit_their_questions",
        "has (2,) values",
    ),
    "two figures of one name": (
        scoring(lambda figure: [figure, figure]),
        "figures_fit_their_questions",
        "two figures are called alike",
    ),
    "a sum": (
        scoring(lambda figure: [replace(figure, combine=lambda rows: float(len(rows)))]),
        "figures_fit_their_questions",
        "of all twice",
    ),
    "the order counts": (
        {"score": by_position},
        "figures_fit_their_questions",
        "in another order",
    ),
    "always right": (
        scoring(lambda figure: [replace(figure, values=np.ones(3))]),
        "right_answers_score_more",
        "right answers score 1.0, empty ones 1.0",
    ),
    "stops at odd answers": ({"score": strict}, "odd_answers_are_scored", "an answer without letters"),
    "takes anything from the judge": (
        {"score": trusting, "needs": ("judge",)},
        "odd_judgements_are_told",
        "is read without a word",
    ),
    "takes any number from the judge": (
        {"score": boundless, "needs": ("judge",)},
        "odd_judgements_are_told",
        "score is infinite where the judge says",
    ),
    "exports nothing": ({"export": lambda *given: None}, "answers_are_exported", "it exports no file"),
}


@pytest.mark.parametrize(("changes", "check", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_has_a_clear_message(install, tmp_path, changes, check, message):
    spec = replace(SPEC, **changes)
    tiny(tmp_path)
    (found,) = [each for each in BENCHMARK_CHECKS if each.__name__ == check]
    with pytest.raises((AssertionError, ValueError), match=re.escape(message)):
        found(BenchmarkCase(spec, tmp_path))


def test_every_check_can_fail():
    assert {check for _, check, _ in MISTAKES.values()} == {check.__name__ for check in BENCHMARK_CHECKS}


# -- the example of the docs -------------------------------------------------------------------------------

EXAMPLE = re.compile(r"## Write a benchmark\n.*?```python\n(.*?)```", re.DOTALL)


def test_the_example_of_the_docs_passes(install, tmp_path):
    page = (Path(__file__).parents[1] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    (code,) = EXAMPLE.findall(page)
    written = {}
    exec(code, written)
    found = []
    written["register_benchmarks"](found.append)
    write_tiny_picture(tmp_path / "a.png")
    record = {"image": "a.png", "regions": [{"box": [1, 1, 9, 9]}]}
    asked = {"role": "user", "content": "What colour is <region>?"}
    lines = [
        record | {"id": colour, "messages": [asked, {"role": "assistant", "content": colour}]}
        for colour in ("red", "blue")
    ]
    (tmp_path / "colours.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in lines), encoding="utf-8")
    (spec,) = found
    install(replace(spec, name="acme"))
    assert check_benchmark("acme", folder=tmp_path) == [check.__name__ for check in BENCHMARK_CHECKS]
