"""The main job. The short run proves that every part works, the slow one that it learns."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from pixelrefer_plugin import RegionModel, RegionProcessor
from pixelrefer_plugin.cli import main
from pixelrefer_plugin.quickstart.run import QuickstartOptions, run_quickstart
from pixelrefer_plugin.quickstart.tasks import Answers, WhatItTurns, WhichDigit


def short(tmp_path, **options):
    return QuickstartOptions(
        **{"steps": 2, "eval_scenes": 2, "pictures_per_step": 2, "out": tmp_path / "out", **options}
    )


def test_it_trains_evaluates_draws_saves_and_reloads(tmp_path):
    metrics = run_quickstart(short(tmp_path))
    out = tmp_path / "out"
    assert json.loads((out / "metrics.json").read_text()) == metrics
    assert metrics["reloaded_answers_identical"]
    assert metrics["accuracy"].keys() == metrics["accuracy_before"].keys()
    assert metrics["steps"] == 2
    for name in ("answers.png", "loss.png"):
        with Image.open(out / name) as picture:
            assert min(picture.size) > 300
    RegionProcessor.from_pretrained(out / "model")
    RegionModel.from_pretrained(out / "model").detach()


@pytest.mark.parametrize("video", [False, True], ids=["pictures", "clips"])
@pytest.mark.parametrize("adapter", ["maskpool", "saot", "oci"])
@pytest.mark.parametrize("backbone", ["videollama3", "qwen2_5_vl", "llava_onevision"])
def test_every_pair_runs_from_scratch(tmp_path, backbone, adapter, video):
    metrics = run_quickstart(
        short(tmp_path, steps=1, eval_scenes=1, backbone=backbone, adapter=adapter, video=video, from_scratch=True)
    )
    assert metrics["reloaded_answers_identical"]


def test_clips_are_asked_about_and_drawn(tmp_path):
    metrics = run_quickstart(short(tmp_path, video=True))
    assert set(metrics["accuracy"]) == {"all", "digit", "colour"}
    assert set(metrics["controls"]) == {"colour"}
    assert (tmp_path / "out" / "answers.png").is_file()


def test_the_seed_decides(tmp_path):
    one, same, other = (
        run_quickstart(short(tmp_path, seed=seed, out=tmp_path / name))["final_loss"]
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert one == same != other


def answered(task, texts_of):
    """Answers to one example of a task, each made of its true one."""
    example = task.example("held-out", np.random.default_rng(0), jitter=0.0)
    return Answers([example], [[texts_of(asked.answer) for asked in example.asked]])


def test_pictures_are_scored_by_size():
    task = WhichDigit()
    right = task.accuracy(answered(task, lambda answer: answer))
    assert right["all"] == 1.0
    assert set(right) > {"small (< 16 px)", "large (> 32 px)"}
    assert task.accuracy(answered(task, lambda answer: "?"))["all"] == 0.0


def test_clips_are_scored_by_digit_and_colour():
    task = WhatItTurns()
    half = task.accuracy(answered(task, lambda answer: answer[0] + " grey"))
    assert half == {"all": 0.0, "digit": 1.0, "colour": 0.0}
    assert set(task.accuracy(answered(task, lambda answer: answer)).values()) == {1.0}


def test_the_control_points_at_the_first_frame_only():
    example = WhatItTurns().example("train", np.random.default_rng(0), jitter=1.0)
    [harder] = WhatItTurns().controls([example])["colour"]
    for asked, control in zip(example.asked, harder.asked, strict=True):
        frames = list(asked.region.frames)
        assert len(frames) == 2
        assert list(control.region.frames) == [frames[0]]
        assert control.answer == asked.answer


def test_bad_options_are_refused(tmp_path):
    (tmp_path / "out").mkdir()
    result = CliRunner().invoke(main, ["quickstart", "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "exists. Choose another with --out, or allow --overwrite" in result.output
    result = CliRunner().invoke(main, ["quickstart", "--adapter", "saott", "--out", str(tmp_path / "new")])
    assert result.exit_code == 2
    assert "Did you mean 'saot'" in result.output
    assert not (tmp_path / "new").exists()
    result = CliRunner().invoke(main, ["quickstart", "--adapter", "unipixel", "--out", str(tmp_path / "new")])
    assert result.exit_code == 2
    assert "adapter 'unipixel' gives masks. Train it on your own data" in " ".join(result.output.split())
    assert not (tmp_path / "new").exists()
    result = CliRunner().invoke(main, ["quickstart", "--steps", "0", "--out", str(tmp_path / "new")])
    assert result.exit_code == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"adapter": "oci"}, {"video": True}, {"video": True, "adapter": "oci"}], ids=str
)
def test_the_quickstart_reaches_its_bar(tmp_path, options):
    metrics = run_quickstart(QuickstartOptions(out=tmp_path / "out", **options))
    assert metrics["accuracy"]["all"] >= 0.90
    assert metrics["accuracy_before"]["all"] <= 0.25
    assert metrics["controls"].get("colour", 0.0) <= 0.25  # before it turns, a digit does not show what it turns to
    assert metrics["reloaded_answers_identical"]
