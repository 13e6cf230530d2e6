"""Benchmarks while training and at the end: figures in the log and in metrics.json, a report, and what is refused."""

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import stencil
import torch
from accelerate import PartialState
from test_train import config, data, quietly, write_mask_samples  # noqa: F401
from training_runs import in_processes, make_parts, mixed_rows

from pixelrefer_plugin import RegionDataset
from pixelrefer_plugin.evaluation.predicting.answer_file import read_answers
from pixelrefer_plugin.training.benchmarks import RunBenchmarks, open_benchmarks
from pixelrefer_plugin.training.config import EvaluationSection, TrainConfig
from pixelrefer_plugin.training.trainer import RegionTrainer


class Judge(BaseHTTPRequestHandler):
    """An OpenAI-compatible address that says the same to everything."""

    said = "score: 7"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": self.said}}
        reply = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        body = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        """Say nothing."""


@pytest.fixture
def judge_url():
    with ThreadingHTTPServer(("127.0.0.1", 0), Judge) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


@pytest.fixture
def own(data):  # noqa: F811
    """The path of the held-out samples, as a benchmark of the user's own."""
    return str(data / "held-out.jsonl")


def with_benchmarks(*benchmarks, **more):
    return {"max_new_tokens": 4, "benchmarks": list(benchmarks), **more}


def metrics_of(run):
    return json.loads((run / "metrics.json").read_text())


# -- figures and report ------------------------------------------------------------------------------------


def test_figures_are_logged_while_training_and_kept_at_the_end(config, own, tmp_path, monkeypatch):  # noqa: F811
    logs = []
    log = RegionTrainer.log
    monkeypatch.setattr(
        RegionTrainer,
        "log",
        lambda self, entry, *a: (logs.append((self.state.global_step, entry)), log(self, entry, *a)),
    )
    run = config(evaluation=with_benchmarks({"name": own, "max_new_tokens": 4}, benchmarks_every=3, samples=0))
    result, printed = quietly(run)
    assert [step for step, entry in logs if "eval_held-out_exact" in entry] == [3, 4]
    metrics = metrics_of(tmp_path / "out")
    assert metrics["eval_held-out_exact"] == result["eval_held-out_exact"] == logs[-1][1]["eval_held-out_exact"]
    assert "benchmark held-out: 6 questions" in printed
    assert "held-out exact" in printed
    folder = tmp_path / "out" / "evaluation"
    report = json.loads((folder / "report.json").read_text())
    assert [each["name"] for each in report["benchmarks"]] == ["held-out"]
    assert "<html" in (folder / "report.html").read_text()
    (opened,) = open_benchmarks(run.evaluation, gives_masks=False)
    answers = read_answers(folder / "held-out" / "answers.jsonl", opened.opened.questions)
    right = [
        question.expected == answer.text for question, answer in zip(opened.opened.questions, answers, strict=True)
    ]
    assert sum(right) / len(right) == metrics["eval_held-out_exact"]


def test_benchmarks_need_no_held_out_data(config, own):  # noqa: F811
    result, _ = quietly(
        config(data={"eval": None}, run={"eval_every": 2}, evaluation=with_benchmarks({"name": own, "limit": 2}))
    )
    assert "eval_loss" not in result
    assert 0 <= result["eval_held-out_exact"] <= 1


@pytest.mark.slow
def test_a_resumed_run_may_have_other_benchmarks(config, own):  # noqa: F811
    quietly(config())
    result, printed = quietly(config(evaluation=with_benchmarks({"name": own, "limit": 2})), resume=True)
    assert "resumed from" in printed
    assert "eval_held-out_exact" in result


@pytest.mark.slow
def test_benchmarks_do_not_change_what_is_learnt(config, own):  # noqa: F811
    plain, _ = quietly(config())
    asked, _ = quietly(config(evaluation=with_benchmarks(own, benchmarks_every=1)), overwrite=True)
    assert asked["last_loss"] == plain["last_loss"]
    assert asked["eval_loss"] == plain["eval_loss"]


# -- judges ------------------------------------------------------------------------------------------------


@pytest.fixture
def judged(own, tmp_path):
    """A benchmark of the user's own that needs a judge."""
    (tmp_path / "rubric.txt").write_text("The same colour is good.")
    options = {"metrics": ["judge"], "rubric": str(tmp_path / "rubric.txt")}
    return {"name": own, "limit": 2, "max_new_tokens": 4, "options": options}


def test_a_judge_is_asked_and_named(config, judged, judge_url, tmp_path):  # noqa: F811
    result, _ = quietly(config(evaluation=with_benchmarks(judged, judge={"model": "wise", "url": judge_url})))
    assert "wise" in result["judges"].values()
    (name,) = result["judges"]
    assert result[name] > 0
    assert (tmp_path / "out" / "evaluation" / "judge.jsonl").read_text().count("\n") == 2


def test_a_judge_that_is_silent_ends_no_training(config, judged, tmp_path):  # noqa: F811
    (tmp_path / "none.jsonl").write_text("")
    judge = {"model": "wise", "cache": str(tmp_path / "none.jsonl")}
    result, _ = quietly(config(evaluation=with_benchmarks(judged, judge=judge)))
    (warning,) = [each for each in result["warnings"] if "could not be scored" in each]
    assert "2 of 2 answers of judge 'wise' are missing" in warning
    lines = (tmp_path / "out" / "evaluation" / "held-out" / "answers.jsonl").read_text().splitlines()
    assert len(lines) == 2


# -- what is refused ---------------------------------------------------------------------------------------


def refused(config, evaluation, match, **more):  # noqa: F811
    """Refused before the first step, and by a dry run."""
    for dry_run in (True, False):
        with pytest.raises(ValueError, match=match):
            quietly(config(evaluation=evaluation, **more), dry_run=dry_run)


def test_a_missing_judge_is_told_before_the_first_step(config, judged, tmp_path):  # noqa: F811
    refused(config, with_benchmarks(judged), r"evaluation\.judge: benchmark 'held-out' needs a judge")
    assert not (tmp_path / "out").exists()


def test_a_model_without_masks_is_not_asked_for_them(config, data):  # noqa: F811
    refused(config, with_benchmarks(str(data / "masks.jsonl")), "'masks' asks for masks, and this model gives none")


@pytest.mark.parametrize(
    ("benchmark", "match"),
    [
        ("nowhere.jsonl", "nowhere.jsonl"),
        ("lviss", "lviss"),
        ({"name": "OWN", "options": {"metric": "exact"}}, "metric"),
        ({"name": "OWN", "options": {"metrics": ["exakt"]}}, "exakt.*Did you mean 'exact'"),
    ],
)
def test_benchmarks_that_cannot_be_asked_are_refused(config, own, benchmark, match):  # noqa: F811
    if isinstance(benchmark, dict):
        benchmark = {**benchmark, "name": own}
    refused(config, with_benchmarks(benchmark), match)


def test_two_benchmarks_of_one_name_are_refused(config, own):  # noqa: F811
    refused(config, with_benchmarks(own, own), "two are called 'held-out'")


def test_masks_of_several_pictures_are_refused(config, own, tmp_path, monkeypatch):  # noqa: F811
    stencil.install(monkeypatch)
    (path,) = [write_mask_samples(tmp_path, "masks", 1)]
    record = json.loads(path.read_text())
    del record["image"]
    record["images"] = ["masks-0.png", "masks-0.png"]
    path.write_text(json.dumps(record) + "\n")
    model = {"adapter": "stencil", "adapter_config": None}
    refused(config, with_benchmarks(str(path)), "2 pictures and videos", model=model)


@pytest.mark.parametrize(
    ("evaluation", "match"),
    [
        ({"benchmarks": [{"nam": "x"}]}, r"evaluation\.benchmarks\.0\.nam: there is no such key. Did you mean 'name'"),
        ({"benchmarks_every": 5}, r"evaluation\.benchmarks_every: needs benchmarks"),
        (
            {"judge": {"url": "http://me:secret@x/v1", "model": "m"}},
            r"evaluation\.judge\.url: must not hold a password(?!.*secret)",
        ),
        ({"judge": {"url": "http://x"}}, r"evaluation\.judge\.model: is missing"),
    ],
)
def test_the_configuration_is_checked(config, evaluation, match):  # noqa: F811
    with pytest.raises(ValueError, match=match):
        config(evaluation=evaluation)


def test_a_name_alone_is_a_benchmark():
    values = {"model": {"backbone": "x/y"}, "data": {"train": __file__}, "run": {"out": "nowhere"}}
    read = TrainConfig.from_mapping({**values, "evaluation": {"benchmarks": "lvis"}})
    assert [each.name for each in read.evaluation.benchmarks] == ["lvis"]


# -- several processes -------------------------------------------------------------------------------------


def ask(out, path):
    """The figures and answers of a tiny model, in every process."""
    rank = os.environ.get("RANK", "alone")
    if rank != "alone":
        torch.set_num_threads(1)
        assert PartialState(cpu=True).num_processes == 2
    model, processor = make_parts()
    section = EvaluationSection(benchmarks=({"name": path, "max_new_tokens": 3},), batch_size=2)
    benchmarks = RunBenchmarks(open_benchmarks(section, gives_masks=False), processor, section, out)
    figures = benchmarks(model)
    answers = [each.text for each in benchmarks._answers["own"]]
    (out / f"rank{rank}.json").write_text(json.dumps([figures, answers]))
    if rank != "alone":
        torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_answer_as_one(tmp_path):
    path = tmp_path / "own.jsonl"
    rows = mixed_rows(5)
    for index, row in enumerate(rows):
        row["image"].save(tmp_path / f"{index}.png")
        row["image"] = f"{index}.png"
    path.write_text("".join(json.dumps({k: v for k, v in row.items() if v is not None}) + "\n" for row in rows))
    assert len(RegionDataset.open(path)) == 5
    assert in_processes(ask, tmp_path, str(path), number=2) == [0, 0]
    ask(tmp_path, str(path))
    alone = json.loads((tmp_path / "rankalone.json").read_text())
    assert [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)] == [alone, alone]
