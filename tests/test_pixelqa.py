"""PixelQA: what is asked, what counts, and whole runs in two passes."""

import json
from dataclasses import replace

import numpy as np
import pytest
import stencil
import torch

from pixelrefer_plugin import PixelQAResult, Region, VideoRegion, pixel_qa_score
from pixelrefer_plugin.contracts.questions import Answer, Question
from pixelrefer_plugin.contracts.samples import RegionSample
from pixelrefer_plugin.errors import DataError, PixelReferError, PromptError
from pixelrefer_plugin.evaluation.asking.engine import ModelEngine
from pixelrefer_plugin.plugins import get_benchmark
from pixelrefer_plugin.testing import TINY_HW, make_pair


def tiny(folder, **options):
    spec = get_benchmark("pixelqa")
    spec.tiny(folder)
    config = spec.make_config(options)
    return spec, config, list(spec.open(config, folder))


def scored(spec, config, questions, answers):
    scores = spec.score(config, questions, answers, None)
    return {figure.label: figure for figure in scores.figures}, scores


def perfect(question):
    return Answer(
        id=question.id,
        text=question.facts["letter"],
        objects=question.targets,
        image_hw=TINY_HW,
        frames=(0, 1, 2),
    )


# -- what is asked -----------------------------------------------------------------------------------------


def test_objects_are_numbered_and_pointed_at(tmp_path):
    _, _, (first, second) = tiny(tmp_path)
    assert first.text == (
        "What does [1] <region> hold?\n(A) a lamp\n(B) a rope\n(C) a book\n(D) nothing\n"
        "Answer with the letter of the right option."
    )
    assert second.text.startswith("Is [1] <region> larger than [2] <region>? And is [1] red?\n(A)")
    assert [each.type for each in (first, second)] == ["Basic Questions", "Relationship Questions"]
    assert [each.facts["letter"] for each in (first, second)] == ["B", "A"]
    assert all(each.segment and each.localize for each in (first, second))
    assert [target.absent for target in second.targets] == [(), (2,)]


def test_marks_are_points_boxes_or_both(tmp_path):
    spec, _, questions = tiny(tmp_path)
    marks = {}
    for mark in ("point", "box", "mixed"):
        questions = spec.open(spec.make_config({"mark": mark}), tmp_path)
        regions = [region for question in questions for region in question.asked.regions]
        assert [list(region.frames) for region in regions] == [[1], [1], [1]]
        marks[mark] = [region.frames[1] for region in regions]
    assert [each.kind for each in marks["point"]] == ["points"] * 3
    assert [each.data for each in marks["box"]] == [(4, 4, 24, 30), (4, 4, 24, 30), (30, 8, 50, 40)]
    assert [each.kind for each in marks["mixed"]] == ["points", "box", "points"]
    ((x, y),), _ = marks["point"][2].data
    assert 39 <= x <= 41  # the middle of its width
    assert 17 <= y <= 31  # as far from its ends as from its sides


# -- figures -----------------------------------------------------------------------------------------------


def test_right_letters_and_masks_score_1(tmp_path):
    spec, config, questions = tiny(tmp_path)
    figures, scores = scored(spec, config, questions, [perfect(each) for each in questions])
    sane = {label: figure.of() for label, figure in figures.items() if not figure.reading}
    assert sane == {"accuracy": 1, "j_and_f": 1, "j": 1, "f": 1}
    assert next(iter(figures)) == "accuracy"
    assert {label: figure.of() for label, figure in figures.items()} == pytest.approx(
        dict.fromkeys(figures, 1), abs=1e-5
    )
    assert not scores.unread


def test_masks_score_as_pixel_qa_score_has_them_on_any_questions(tmp_path):
    spec, config, questions = tiny(tmp_path)
    moved = VideoRegion({frame: Region.from_box((8, 4, 28, 30)) for frame in range(3)})
    answers = [replace(perfect(each), objects=(moved,)) for each in questions]  # the second object lacks a mask
    figures, _ = scored(spec, config, questions, answers)

    def dense(region):
        frames = [region.frames.get(frame) for frame in range(3)] if region else [None] * 3
        return [None if each is None else each.to_mask(TINY_HW) for each in frames]

    for positions in ([0], [1], [0, 1], [1, 1, 0]):
        expected = pixel_qa_score(
            [
                PixelQAResult("A", "A", [dense(moved)], [dense(target) for target in questions[position].targets])
                for position in positions
            ]
        ).masks
        chosen = np.array(positions)
        for reading in ("", " (official)"):
            assert figures[f"j{reading}"].of(chosen) == pytest.approx(expected.j, abs=1e-5)
            assert figures[f"f{reading}"].of(chosen) == pytest.approx(expected.f, abs=1e-5)
            assert figures[f"j_and_f{reading}"].of(chosen) == pytest.approx(expected.j_and_f, abs=1e-5)


def test_only_frames_that_were_asked_count(tmp_path):
    spec, config, questions = tiny(tmp_path)
    late = replace(perfect(questions[1]), frames=(2,))
    figures, _ = scored(spec, config, questions[1:], [late])
    assert figures["j"].of() == 1  # the second object is not seen on that frame, neither expected nor found
    assert figures["j (official)"].of() == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize(
    ("text", "sane", "official"),
    [("B", 1, 1), ("(b) a rope", 1, 1), ("**B**", 1, 0), ("The answer is (B).", 1, 0), ("", 0, 0), ("A", 0, 0)],
)
def test_letters_are_read_in_two_ways(tmp_path, text, sane, official):
    spec, config, questions = tiny(tmp_path)
    figures, _ = scored(spec, config, questions[:1], [replace(perfect(questions[0]), text=text)])
    assert figures["accuracy"].of() == sane
    assert figures["accuracy (official)"].of() == official


def test_answers_that_cannot_be_compared_are_listed(tmp_path):
    spec, config, questions = tiny(tmp_path)
    answers = [
        replace(perfect(questions[0]), image_hw=(5, 5)),
        Answer(id=questions[1].id, text="", failure="its video is missing"),
    ]
    figures, scores = scored(spec, config, questions, answers)
    assert figures["accuracy"].values.tolist() == [1, 0]
    assert figures["j"].of() == 0
    assert "(5, 5)" in scores.unread["0"]
    assert scores.unread["1"] == "its video is missing"


# -- bad files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda records: records.clear(), "must hold a list of questions"),
        (lambda records: records[1].update(options=[]), "question 1: its 'options' must be"),
        (lambda records: records[1].update(Answer="?"), "question 1: its 'Answer' must begin with the letter"),
        (lambda records: records[1].update(video=None), "question 1: its 'video' must be a text"),
        (lambda records: records[1].update(Question="What?"), "a <region> for each of its 2 objects"),
        (lambda records: records[1].update(annotation=None), "its 'annotation' must be a list"),
        (lambda records: records[1].update(frame_idx="9"), "its 'frame_idx' must be an annotated frame"),
        (lambda records: records[1].update(frame_idx="2"), "object 1 has no mask on frame 2"),
        (lambda records: records[1]["annotation"][0].update(x=None), "a frame must be named by its number"),
        (
            lambda records: records[1]["annotation"][0].update({"1": {"segmentation": [[1, 1, 9, 1, 9, 9]]}}),
            "its masks must be run lengths",
        ),
        (
            lambda records: records[1]["annotation"][0]["2"]["segmentation"].update(size=[64, 48]),
            "its masks must be of one size",
        ),
    ],
)
def test_a_malformed_file_says_where(tmp_path, spoil, message):
    spec, config, _ = tiny(tmp_path)
    path = tmp_path / "VideoRefer-Bench-Q.json"
    records = json.loads(path.read_text())
    spoil(records)
    path.write_text(json.dumps(records))
    with pytest.raises(DataError, match=message):
        spec.open(config, tmp_path)


@pytest.mark.parametrize("options", [{"mark": "mask"}, {"question": "{question}"}, {"images": ""}, {"folder_fps": 0}])
def test_options_are_checked(options):
    with pytest.raises(PixelReferError, match=next(iter(options))):
        get_benchmark("pixelqa").make_config(options)


# -- a model -----------------------------------------------------------------------------------------------


@pytest.fixture(params=["stencil", "unipixel"])
def pair(request, monkeypatch):
    if request.param == "stencil":
        stencil.install(monkeypatch)
    backbone = "qwen2_5_vl" if request.param == "unipixel" else "videollama3"
    made = make_pair(request.param, backbone)
    yield made
    made.model.detach()


def test_a_whole_run_in_two_passes(tmp_path, pair):
    if hasattr(pair.model.adapter, "judge"):
        with torch.no_grad():
            pair.model.adapter.judge.bias[1] = 5.0
    spec, config, questions = tiny(tmp_path)
    engine = ModelEngine(pair.model, pair.processor, max_new_tokens=4, options={"force_mask": True})
    answers = engine.answer(questions)
    assert [len(each.objects) for each in answers] == [1, 2]
    assert all(each.image_hw == TINY_HW and set(each.frames) <= {0, 1, 2, 3} for each in answers)
    figures, scores = scored(spec, config, questions, answers)
    assert 0 <= figures["j"].of() <= 1
    assert not scores.unread


def test_a_conversation_is_not_asked_in_two_passes(pair):
    message = {"role": "user", "content": [{"type": "text", "text": "What is it?"}]}
    question = Question(id="a", asked=RegionSample("a", (message,)), segment=True, localize=True)
    engine = ModelEngine(pair.model, pair.processor, max_new_tokens=4)
    with pytest.raises(PromptError, match="one message with one picture or video"):
        engine.answer([question])


def test_a_picture_and_a_video_of_which_nothing_is_expected_are_asked_in_two_passes(tmp_path, pair):
    _, _, questions = tiny(tmp_path)
    engine = ModelEngine(pair.model, pair.processor, max_new_tokens=4, options={"force_mask": True})
    (video,) = engine.answer([replace(questions[0], targets=())])
    assert (video.frames, video.image_hw, len(video.objects)) == ((0, 1, 2, 3), TINY_HW, 1)
    picture = {"type": "image", "image": str(tmp_path / "videos" / "DAVIS" / "a" / "00000.jpg")}
    asked = RegionSample(
        "a",
        ({"role": "user", "content": [picture, {"type": "text", "text": "What is <region>?"}]},),
        (Region.from_box((4, 4, 24, 30)),),
    )
    (answer,) = engine.answer([Question(id="a", asked=asked, segment=True, localize=True)])
    assert (answer.frames, answer.image_hw, len(answer.objects)) == ((), TINY_HW, 1)
