"""The main job. The short run proves that every part works, the slow one that it learns."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from pixelrefer_plugin import Region, RegionModel, RegionProcessor
from pixelrefer_plugin.cli import main
from pixelrefer_plugin.quickstart.run import QuickstartOptions, run_quickstart, stages, training_batches
from pixelrefer_plugin.quickstart.tasks import Answers, FindAndName, Given, WhatItTurns, WhichDigit


def short(tmp_path, **options):
    return QuickstartOptions(
        **{"steps": 2, "eval_scenes": 2, "pictures_per_step": 2, "out": tmp_path / "out", **options}
    )


def test_it_trains_evaluates_draws_saves_and_reloads(tmp_path):
    metrics = run_quickstart(short(tmp_path))
    out = tmp_path / "out"
    assert json.loads((out / "metrics.json").read_text()) == metrics
    assert metrics["reloaded_answers_identical"]
    assert metrics["scores"].keys() == metrics["scores_before"].keys()
    assert metrics["steps"] == 2
    for name in ("answers.png", "loss.png"):
        with Image.open(out / name) as picture:
            assert min(picture.size) > 300
    RegionProcessor.from_pretrained(out / "model")
    RegionModel.from_pretrained(out / "model").detach()


@pytest.mark.parametrize(
    ("adapter", "video"),
    [*((adapter, video) for adapter in ("maskpool", "saot", "oci") for video in (False, True)), ("unipixel", False)],
)
@pytest.mark.parametrize("backbone", ["videollama3", "qwen2_5_vl", "llava_onevision"])
def test_every_pair_runs_from_scratch(tmp_path, backbone, adapter, video):
    metrics = run_quickstart(
        short(tmp_path, steps=1, eval_scenes=1, backbone=backbone, adapter=adapter, video=video, from_scratch=True)
    )
    assert metrics["reloaded_answers_identical"]


def test_clips_are_asked_about_and_drawn(tmp_path):
    metrics = run_quickstart(short(tmp_path, video=True))
    assert set(metrics["scores"]) == {"all", "digit", "colour"}
    assert set(metrics["controls"]) == {"colour"}
    assert (tmp_path / "out" / "answers.png").is_file()


def test_the_seed_decides(tmp_path):
    one, same, other = (
        run_quickstart(short(tmp_path, seed=seed, out=tmp_path / name))["final_loss"]
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert one == same != other


def answered(task, given_of):
    """Answers to one example of a task, each made of what was asked."""
    example = task.example("held-out", np.random.default_rng(0), jitter=0.0)
    return Answers([example], [[given_of(asked) for asked in example.asked]])


def said(text_of):
    return lambda asked: Given(text_of(asked.answer))


def test_pictures_are_scored_by_size():
    task = WhichDigit()
    right = task.scores(answered(task, said(lambda answer: answer)))
    assert right["all"] == 1.0
    assert set(right) > {"small (< 16 px)", "large (> 32 px)"}
    assert task.scores(answered(task, said(lambda answer: "?")))["all"] == 0.0


def test_clips_are_scored_by_digit_and_colour():
    task = WhatItTurns()
    half = task.scores(answered(task, said(lambda answer: answer[0] + " grey")))
    assert half == {"all": 0.0, "digit": 1.0, "colour": 0.0}
    assert set(task.scores(answered(task, said(lambda answer: answer))).values()) == {1.0}


def test_words_and_masks_are_scored_apart():
    task = FindAndName()
    truth = task.scores(answered(task, lambda asked: Given(asked.answer, asked.mask)))
    assert set(truth.values()) == {1.0}
    words = task.scores(answered(task, lambda asked: Given(asked.answer)))
    assert {name for name, score in words.items() if score == 0.0} == {name for name in words if "cIoU" in name}
    everything = Region.from_box((0, 0, 112, 112))
    masks = task.scores(answered(task, lambda asked: Given("?", asked.mask and everything)))
    assert all((score > 0) == ("cIoU" in name) for name, score in masks.items())
    assert max(masks.values()) < 0.5


def test_an_earlier_mask_is_asked_about_as_the_model_gave_it():
    example = FindAndName().example("held-out", np.random.default_rng(0), jitter=0.0)
    later = [asked for asked in example.asked if asked.found_by is not None]
    assert later
    for asked in later:
        assert asked.found_by in example.asked
        assert asked.region == asked.found_by.mask  # what training has in its place
        assert asked.answer not in asked.question


def test_a_mask_that_was_not_given_is_not_asked_about(tmp_path):
    metrics = run_quickstart(short(tmp_path, adapter="unipixel"))  # says nothing of use after two steps
    assert metrics["scores"]["segment the digit X, cIoU"] == metrics["scores"]["mask of an earlier answer: which digit"]
    assert metrics["reloaded_answers_identical"]
    with Image.open(tmp_path / "out" / "answers.png") as picture:
        assert min(picture.size) > 300


def test_a_lesson_has_no_question_without_its_answer():
    task, rng = FindAndName(("segment", "largest")), np.random.default_rng(0)
    example = task.example("train", rng, jitter=1.0)
    assert {asked.kind for asked in example.asked} <= {"segment", "largest"}
    lesson = task.lesson(example, rng)
    assert 0 < len(lesson) < len(example.asked)
    assert all((asked.mask is not None) == ("<seg>" in asked.answer) for asked in lesson)


def test_clicks_are_learnt_first_and_on_the_decoder_as_it_is():
    (clicks, first), (everything, rest) = stages(FindAndName(), 20)
    assert (clicks.kinds, clicks.rates["backbone"], everything.kinds) == (("click",), 0, None)
    assert [*first, *rest] == [*range(20)]
    assert len(first) == 5
    options = QuickstartOptions(adapter="unipixel", pictures_per_step=4)
    (conversations, regions) = next(training_batches(FindAndName(), clicks, first, options))
    assert {turn["content"][-1]["text"] for turns in conversations for turn in turns[::2]} == {
        "which digit is <region>?"
    }
    assert {region.kind for given in regions for region in given} == {"points"}


@pytest.mark.parametrize("task", [WhichDigit(), FindAndName(("segment", "largest"))], ids=["regions", "masks"])
def test_what_has_one_stage_learns_all_the_while(task):
    assert [(stage.kinds, steps) for stage, steps in stages(task, 7)] == [(None, range(7))]


def test_a_scene_that_nothing_can_be_asked_about_is_drawn_again():
    """The first one here has the same digit twice, in one size."""
    example = FindAndName(("segment", "largest")).example("train", np.random.default_rng(75), jitter=1.0)
    assert example.asked


def test_the_control_points_at_the_first_frame_only():
    example = WhatItTurns().example("train", np.random.default_rng(0), jitter=1.0)
    [harder] = WhatItTurns().controls([example])["colour"]
    for asked, control in zip(example.asked, harder.asked, strict=True):
        frames = list(asked.region.frames)
        assert len(frames) == 2
        assert list(control.region.frames) == [frames[0]]
        assert control.answer == asked.answer


def test_bad_options_are_refused(tmp_path):
    (tmp_path / "out" / "model").mkdir(parents=True)
    result = CliRunner().invoke(main, ["quickstart", "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "exists. Choose another with --out, or allow --overwrite" in result.output
    (tmp_path / "file").touch()
    for out in ("file", "file/out", "/proc/nowhere"):
        result = CliRunner().invoke(main, ["quickstart", "--overwrite", "--out", str(tmp_path / out)])
        assert result.exit_code == 2
        assert f"Error: '{tmp_path / out}' cannot be written: " in result.output
    result = CliRunner().invoke(main, ["quickstart", "--adapter", "saott", "--out", str(tmp_path / "new")])
    assert result.exit_code == 2
    assert "Did you mean 'saot'" in result.output
    assert not (tmp_path / "new").exists()
    masks_of_clips = ["quickstart", "--adapter", "unipixel", "--video", "--out", str(tmp_path / "new")]
    result = CliRunner().invoke(main, masks_of_clips)
    assert result.exit_code == 2
    assert "adapter 'unipixel' is about pictures; leave out --video" in " ".join(result.output.split())
    assert not (tmp_path / "new").exists()
    result = CliRunner().invoke(main, ["quickstart", "--steps", "0", "--out", str(tmp_path / "new")])
    assert result.exit_code == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"adapter": "oci"}, {"video": True}, {"video": True, "adapter": "oci"}], ids=str
)
def test_the_quickstart_reaches_its_bar(tmp_path, options):
    metrics = run_quickstart(QuickstartOptions(out=tmp_path / "out", **options))
    assert metrics["scores"]["all"] >= 0.90
    assert metrics["scores_before"]["all"] <= 0.25
    assert metrics["controls"].get("colour", 0.0) <= 0.25  # before it turns, a digit does not show what it turns to
    assert metrics["reloaded_answers_identical"]


@pytest.mark.slow
def test_clicks_and_masks_reach_their_bars(tmp_path):
    metrics = run_quickstart(QuickstartOptions(adapter="unipixel", out=tmp_path / "out"))
    scores = metrics["scores"]
    assert scores["click: which digit"] >= 0.85
    assert scores["mask of an earlier answer: which digit"] >= 0.80
    assert scores["segment the digit X, cIoU"] >= 0.60
    assert scores["segment the largest, cIoU"] >= 0.60
    assert scores["say which the largest is"] >= 0.80
    assert metrics["scores_before"]["click: which digit"] <= 0.5  # it names any digit of the picture
    assert metrics["reloaded_answers_identical"]
