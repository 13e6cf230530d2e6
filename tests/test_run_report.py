"""What a run says of itself: what its data share, the first batch, lines in a log, and what to doubt at the end."""

import json
import re
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from rich.console import Console
from test_train import BASE, config, configured, data, mask_config, quietly, write_records  # noqa: F401

from pixelrefer_plugin import Region, cli
from pixelrefer_plugin.contracts.questions import Answer, Question
from pixelrefer_plugin.contracts.samples import RegionSample
from pixelrefer_plugin.data.dataset import MixedDataset, RegionDataset
from pixelrefer_plugin.data.overlap import Overlap, find_overlap
from pixelrefer_plugin.errors import ConfigError
from pixelrefer_plugin.evaluation.answers import ObjectScore, ScoredAnswer
from pixelrefer_plugin.evaluation.metrics.masks import Overlap as MaskOverlap
from pixelrefer_plugin.evaluation.predicting import progress
from pixelrefer_plugin.plugins import get_data_format
from pixelrefer_plugin.training import building
from pixelrefer_plugin.training.outcome import warnings_of
from pixelrefer_plugin.training.report import ProgressLines
from pixelrefer_plugin.training.trainer import RegionTrainer

# -- what both sides have -------------------------------------------------------------------------------------


def record(id, image, answer="red", box=(7, 7, 28, 28), **more):
    return {
        "id": id,
        "image": image,
        "regions": [{"box": list(box)}],
        "messages": [{"role": "user", "content": "what is <region>?"}, {"role": "assistant", "content": answer}],
        **more,
    }


def opened(folder, name, *records):
    return RegionDataset.open(write_records(folder / f"{name}.jsonl", records))


@pytest.mark.parametrize(
    ("held_out", "media", "samples"),
    [
        (record("x", "b.png"), [], []),
        (record("a", "b.png"), [], []),  # ids are often numbers that begin anew
        (record("x", "a.png", "blue"), ["a.png"], []),
        (record("x", "a.png", box=(1, 1, 9, 9)), ["a.png"], []),
        (record("x", "a.png"), ["a.png"], ["held-out.jsonl line 1, sample 'x'"]),
        (record("x", "sub/../a.png"), ["a.png"], ["held-out.jsonl line 1, sample 'x'"]),
        (record("x", "link.png"), ["a.png"], ["held-out.jsonl line 1, sample 'x'"]),
        (record("x", "a.png", box=()), [], []),
    ],
    ids=["nothing", "id", "picture", "another region", "all", "another path", "link", "malformed"],
)
def test_what_both_sides_have_is_found(tmp_path, held_out, media, samples):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.png").touch()
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    found = find_overlap(opened(tmp_path, "train", record("a", "a.png")), opened(tmp_path, "held-out", held_out))
    assert found == Overlap(tuple(str(tmp_path / each) for each in media), tuple(samples))


def test_copies_under_other_names_are_found(tmp_path):
    for name, content in {"a": b"1234", "b": b"1234", "c": b"1235", "d": b"", "e": b"", "f": b"12345"}.items():
        (tmp_path / f"{name}.png").write_bytes(content)
    train = opened(tmp_path, "train", record("a", "a.png"), record("d", "d.png"))
    held_out = opened(tmp_path, "held-out", *(record(each, f"{each}.png") for each in "bcefg"))
    found = find_overlap(train, held_out)
    assert found.media == (str(tmp_path / "b.png"),)
    assert found.samples == ("held-out.jsonl line 1, sample 'b'",)


def test_videos_and_their_frames_are_compared(tmp_path):
    def video(id, source):
        regions = [{"frames": {"0": {"box": [1, 1, 9, 9]}}}]
        found = record(id, None, regions=regions, video=source)
        del found["image"]
        return found

    train = opened(tmp_path, "train", video("a", "a.mp4"), video("b", {"path": ["1.png", "2.png"], "fps": 2}))
    held_out = opened(tmp_path, "held-out", video("c", "a.mp4"), record("d", "2.png"), video("e", "b.mp4"))
    assert find_overlap(train, held_out).media == (str(tmp_path / "a.mp4"), str(tmp_path / "2.png"))


def test_the_note_counts_and_names_a_few():
    assert Overlap().note == ""
    note = Overlap(tuple("abcd"), ("x",)).note
    assert "share 4 pictures or videos (a, b, c, ...) and 1 whole sample (x): held-out figures" in note
    assert "1 picture or video (a)" in Overlap(("a",)).note


def test_what_both_sides_have_is_said_before_a_run_and_in_a_check(config, data, tmp_path):  # noqa: F811
    own = config(data={"eval": str(data / "train.jsonl")})
    result, printed = quietly(own, dry_run=True)
    assert "note: training and held-out data share 12 pictures or videos" in printed
    assert any("12 whole samples" in note for note in result["notes"])
    assert "share" not in quietly(config(), dry_run=True)[1]
    (tmp_path / "run.yaml").write_text(own.to_yaml())
    checked = CliRunner().invoke(cli.main, ["validate", "--config", str(tmp_path / "run.yaml"), "--quick"])
    assert "note: training and held-out data share 12 pictures or videos" in checked.stderr


def test_what_a_format_left_out_is_said(config, monkeypatch):  # noqa: F811
    said = "2 left out, iscrowd (skip_crowd=false keeps them)"
    monkeypatch.setattr(RegionDataset, "left_out_text", said, raising=False)
    result, printed = quietly(config(), dry_run=True)
    assert f"train.jsonl: {said}" in printed
    assert any(said in note for note in result["notes"])


# -- the first batch ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batching", ["grouped", "shuffled"])
def test_the_first_batch_is_the_one_that_training_takes(config, monkeypatch, batching):  # noqa: F811
    taken = []
    get = RegionTrainer.get_batch_samples

    def noting(self, *args):
        batches, number = get(self, *args)
        taken.append(batches[0])
        return batches, number

    own = config(optim={"steps": 1, "batch_size": 5}, data={"batching": batching}, evaluation={"samples": 0})
    monkeypatch.setattr(building.RegionCollator, "seen", [], raising=False)
    call = building.RegionCollator.__call__
    monkeypatch.setattr(
        building.RegionCollator, "__call__", lambda self, samples: (self.seen.append(samples), call(self, samples))[1]
    )
    first = quietly(own, dry_run=True)[0]["first_batch"]
    tried = [each.id for each in building.RegionCollator.seen[0]]
    monkeypatch.setattr(RegionTrainer, "get_batch_samples", noting)
    quietly(own)
    (batch,) = taken
    assert [name.split("'")[1] for name in batch["sample_names"]] == tried
    assert first["tokens"] == batch["input_ids"].numel()
    assert first["rows"] == 5
    assert first["tokens_of_padding"] == (batch["attention_mask"] == 0).sum()


def test_memory_is_that_of_the_whole_batch(config):  # noqa: F811
    def needed(size):
        return quietly(config(optim={"batch_size": size}), dry_run=True)[0]["first_batch"]

    one, four = needed(1), needed(4)
    per_token = (four["memory_bytes"] - one["memory_bytes"]) / (four["tokens"] - one["tokens"])
    assert per_token > 1000
    assert four["tokens"] >= 4 * min(one["tokens"], 50)


# -- while it runs --------------------------------------------------------------------------------------------


def lines_of(total, *, log_every=7, first=0, seconds_a_step=0.0, monkeypatch=None):
    clock = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    with (console := Console(width=200)).capture() as printed:
        lines = ProgressLines(console)
        state = SimpleNamespace(global_step=first, max_steps=total)
        lines.on_train_begin(None, state, None)
        for step in range(first + 1, total + 1):
            state.global_step = step
            clock[0] += seconds_a_step
            logs = step % log_every == 0
            lines.on_step_end(None, state, SimpleNamespace(should_log=logs))
            if logs:
                lines.on_log(None, state, None, {"loss": 1 / step, "learning_rate": 0.001})
    return printed.get().splitlines()


@pytest.mark.parametrize(("total", "least", "most"), [(1, 1, 1), (10, 10, 10), (1000, 20, 22), (99_999, 20, 22)])
def test_a_log_has_about_twenty_lines(monkeypatch, total, least, most):
    lines = lines_of(total, monkeypatch=monkeypatch)
    assert least <= len(lines) <= most
    assert lines[-1].startswith(f"step {total}/{total} (100%)")
    assert all("\x1b" not in line and "\r" not in line for line in lines)


def test_lines_have_loss_rate_and_time_left(monkeypatch):
    lines = lines_of(140, first=40, seconds_a_step=2.0, monkeypatch=monkeypatch)
    assert lines[0] == "step 41/140 (29%), 0:03:18 left"
    assert lines[1] == "step 42/140 (30%), loss 0.0238, learning rate 0.001, 0:03:16 left"


def test_slow_steps_are_told_each_minute(monkeypatch):
    assert len(lines_of(200, seconds_a_step=61.0, monkeypatch=monkeypatch)) == 200


def test_the_last_evaluation_is_not_made_twice(config, monkeypatch):  # noqa: F811
    calls = []
    evaluate = RegionTrainer.evaluation_loop
    monkeypatch.setattr(
        RegionTrainer, "evaluation_loop", lambda self, *a, **k: (calls.append(1), evaluate(self, *a, **k))[1]
    )
    _, printed = quietly(config(run={"eval_every": 2}, optim={"steps": 4}))
    assert len(calls) == 2
    assert "\x1b" not in printed
    assert "step 4/4 (100%), loss" in printed
    assert "now held-out samples" not in printed


# -- what to doubt --------------------------------------------------------------------------------------------


def answer(given, expected="red", masks=()):
    asked = RegionSample("s", ({"role": "user", "content": "x"},), ())
    scores = tuple(ObjectScore(MaskOverlap(*each), None) for each in masks)
    targets = (Region.from_box((0, 0, 1, 1)),) * len(masks)
    question = Question(id="s", asked=asked, references=(expected,), targets=targets)
    return ScoredAnswer(question, Answer(id="s", text=given), scores)


def log(*losses, step=100, **more):
    return [{"loss": loss, "step": step, **more} for loss in losses]


GOOD = [answer("red"), answer("blue", "blue"), answer("red"), answer("red", "blue")]


@pytest.mark.parametrize(
    ("history", "answers", "expected"),
    [
        (log(3.0, 1.0), GOOD, None),
        (log(7.0, 6.5), GOOD, "nothing was learnt"),
        (log(1.0, 1.1), GOOD, "did not fall: it was 1 at first and is 1.1"),
        (log(1.0, 1.1, step=4), GOOD, None),
        (log(9.0, 5.0, lm_loss=6.9), GOOD, "nothing was learnt"),
        ([], [], None),
        (log(3.0, 1.0), [answer("red", each) for each in ("red", "blue", "red", "red")], "the same, 'red', where 2"),
        (log(3.0, 1.0), [answer("Red.") for _ in range(4)], None),
        (log(3.0, 1.0), [answer("red", each) for each in ("red", "blue")], None),
        (log(3.0, 1.0), [answer(each) for each in ("", ".", " ")], "all 3 held-out answers are empty"),
        ([], [answer("<seg>", "<seg>", [(0, 9)]), answer("<seg>", "<seg>", [(0, 5)])], "none of the 2 .* 2 of the te"),
        ([], [answer("<seg>", "<seg>", [(0, 9)]), answer("<seg>", "<seg>", [(1, 5)])], None),
        ([], [answer("<seg>", "<seg>", [(0, 0)])], None),
    ],
)  # fmt: skip
def test_a_dead_run_is_told(history, answers, expected):
    warnings = warnings_of(history, answers, vocab_size=1024)
    if expected is None:
        assert warnings == []
    else:
        (warning,) = warnings
        assert re.search(expected, warning)


def test_warnings_are_printed_and_kept(config, tmp_path):  # noqa: F811
    frozen = {"adapter": 1e-30, "lora": 1e-30}
    result, printed = quietly(config(optim={"steps": 24}, learning_rates=frozen, run={"save_every": None}))
    assert result["warnings"]
    assert all(f"warning: {each}" in printed for each in result["warnings"])
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["warnings"] == result["warnings"]


# -- what is not installed ------------------------------------------------------------------------------------


def test_packages_that_are_missing_are_named_together(config, monkeypatch):  # noqa: F811
    monkeypatch.setattr(building, "find_spec", lambda name: None)
    own = config(run={"report_to": ["wandb", "mlflow"]}, model={"quantize": "nf4", "backbone": BASE})
    with pytest.raises(ConfigError) as caught:
        quietly(own)
    needed = {
        "run.report_to": ["wandb", "mlflow"],
        "model.quantize": ["bitsandbytes"],
    }
    expected = [f"{key}: needs {package}, which is not" for key, packages in needed.items() for package in packages]
    lines = str(caught.value).splitlines()
    assert all(line.startswith(each) for line, each in zip(lines, expected, strict=True))
    assert "pip install 'pixelrefer-plugin[qlora]', or leave it out." in lines[2]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("spda", "There is no attention implementation 'spda', only eager, "),
        ("spda", "Did you mean 'sdpa'?"),
        ("eagre", "Did you mean 'eager'?"),
        ("x" * 500, "There is no attention implementation"),
        ("flex_attention", "'flex_attention' cannot be used here: "),
        ("nobody/kernel", "'nobody/kernel' is code from the hub"),
    ],
)
def test_an_attention_implementation_that_is_not_there_is_one_line(config, name, expected):  # noqa: F811
    with pytest.raises(ConfigError) as caught:
        quietly(config(model={"attn_implementation": name}))
    message = str(caught.value)
    assert message.startswith("model.attn_implementation: ")
    assert expected in message
    assert len(message.splitlines()) == 1
    assert len(message) < 500


def test_masks_are_not_read_to_compare_what_is_shown(tmp_path, monkeypatch):
    path = get_data_format("refvos").tiny(tmp_path)
    dataset = RegionDataset.open(path, format="refvos")
    mixed = MixedDataset([(dataset, 2)])
    paths = [sample.paths for sample in dataset]
    assert [dataset.media(index) for index in range(len(dataset))] == paths
    assert [mixed.media(index) for index in range(len(mixed))] == [*paths, *paths]
    first = building._First(dataset, 1)
    assert first.media(0) == paths[0]
    whole = find_overlap(mixed, dataset)
    assert len(whole.samples) == len(dataset)
    other = opened(tmp_path, "other", record("a", "a.png"))
    monkeypatch.setattr(type(dataset._samples._file), "__getitem__", lambda *_: pytest.fail("its masks were read"))
    assert find_overlap(dataset, other) == Overlap()
