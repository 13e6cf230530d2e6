"""The picture of held-out answers that a training leaves: what is drawn, of pictures, videos and masks, in any text."""

import logging

import numpy as np
import pytest
from conftest import picture
from PIL import Image
from videos import grey_frames, write_video

from pixelrefer_plugin import Region, RegionSample, VideoRegion
from pixelrefer_plugin.contracts.questions import Answer
from pixelrefer_plugin.data import preview
from pixelrefer_plugin.evaluation import answers_picture
from pixelrefer_plugin.evaluation.answers import ObjectScore, ScoredAnswer
from pixelrefer_plugin.evaluation.answers_picture import draw_answers
from pixelrefer_plugin.evaluation.asking.questions import questions_of
from pixelrefer_plugin.evaluation.metrics.masks import Overlap

HW = (48, 64)
PICTURE = {"type": "image", "image": Image.fromarray(picture(*HW))}
LEFT, RIGHT = Region.from_box((2, 2, 30, 40)), Region.from_box((34, 2, 60, 40))


def asked(question="what is <region>?", expected="a cat", regions=(LEFT,), part=None, turns=()):
    first = {"role": "user", "content": [part or PICTURE, {"type": "text", "text": question}]}
    messages = (first, {"role": "assistant", "content": expected}, *turns)
    return list(questions_of(RegionSample("s", messages, regions, where="held_out.jsonl line 3")))[-1]


def answered(given="a cat", objects=(), ious=(), **options):
    question = asked(**options)
    scores = tuple(ObjectScore(Overlap(round(100 * iou), 100), None) for iou in ious)
    return ScoredAnswer(question, Answer(id=question.id, text=given, objects=objects, image_hw=HW), scores)


@pytest.fixture
def drawn(monkeypatch):
    """What is put together on sheets: the lines of each tile as text, its pictures' regions and labels."""
    tiles, panels = [], []
    stacked, draw = answers_picture.stacked, preview.draw_regions

    def noted(above, pictures, below, pen):
        tiles.append(["".join(run.text for run in line) for line in (*above, *below)])
        return stacked(above, pictures, below, pen)

    def seen(image, masks, *, labels):
        panels.append({label: mask for label, mask in zip(labels, masks, strict=True) if mask is not None})
        return draw(image, masks, labels=labels)

    monkeypatch.setattr(answers_picture, "stacked", noted)
    monkeypatch.setattr(preview, "draw_regions", seen)
    return tiles, panels


def test_region_question_expected_and_given_are_drawn(drawn):
    tiles, panels = drawn
    sheet = draw_answers([answered("a dog")])
    assert tiles == [
        ["held_out.jsonl line 3   id s", "asked: what is  1 ?", "expected: a cat", "given: a dog"],
    ]
    assert [set(panel) for panel in panels] == [{"1"}]
    assert np.asarray(sheet).std() > 0


@pytest.mark.parametrize(
    ("good", "bad", "expected"),
    [(9, 9, "bbbbbbbbgggg"), (1, 20, "b" * 11 + "g"), (20, 2, "bb" + "g" * 10), (1, 1, "bg")],
)
def test_a_few_right_and_a_few_wrong_ones_are_drawn(drawn, good, bad, expected):
    tiles, _ = drawn
    answers = [*(answered("A cat.") for _ in range(good)), *(answered("dog") for _ in range(bad))]
    draw_answers(answers)
    assert "".join("g" if tile[-1] == "given: A cat." else "b" for tile in tiles) == expected


def test_masks_expected_and_given_are_drawn_beside_what_was_asked_about(drawn):
    tiles, panels = drawn
    question = {
        "question": "segment what <region> holds",
        "expected": "<seg> and <seg>",
        "regions": (LEFT, RIGHT, LEFT),
    }
    draw_answers([answered("<seg>, <seg>", (RIGHT, None), (1.0, 0.25), **question)])
    assert [sorted(panel) for panel in panels] == [["1", "expected 1", "expected 2", "given"]]
    assert tiles[0][1:] == [
        "asked: segment what  1  holds",
        "expected:  expected 1  and  expected 2 ",
        "given:  given , <seg>",
        "IoU 1.00, 0.25",
    ]


@pytest.mark.parametrize(("iou", "is_right"), [(0.5, True), (0.4, False)])
def test_a_right_text_with_a_wrong_mask_is_wrong(iou, is_right):
    options = {"question": "segment it", "expected": "<seg>", "regions": (LEFT,)}
    assert answers_picture._is_right(answered("<seg>", (LEFT,), (iou,), **options)) is is_right


def test_a_video_is_shown_by_its_frames(drawn, tmp_path):
    tiles, panels = drawn
    part = {"type": "video", "video": str(write_video(tmp_path / "clip.mp4", grey_frames(12, hw=HW)))}
    region = VideoRegion({3: LEFT, 7: RIGHT})
    draw_answers([answered(part=part, regions=(region,))])
    assert [set(panel) for panel in panels] == [{"1"}, {"1"}]
    assert "cannot be shown" not in " ".join(tiles[0])


def test_only_the_last_question_of_a_conversation_is_drawn(drawn):
    tiles, panels = drawn
    turns = ({"role": "user", "content": "and <region>?"}, {"role": "assistant", "content": "a dog"})
    draw_answers([answered("a dog", regions=(LEFT, RIGHT), turns=turns)])
    (panel,) = panels
    assert panel["1"].box_xyxy[0] > 0.5 * panel["1"].image_hw[1]  # the right one
    assert tiles[0][1:3] == ["question 2 of its conversation", "asked: and  1 ?"]


@pytest.mark.parametrize(
    "text", ["кошка на столе", "猫がテーブルの上にいる", "قطة على الطاولة", "👩‍🚀\u0000\n<region>", " "]
)
def test_texts_of_any_kind_are_drawn(text, caplog):
    with caplog.at_level(logging.ERROR):  # fonts that lack letters are warned of
        assert draw_answers([answered(text, expected=text.replace("<region>", ""))]).width > 100


def test_a_long_text_is_wrapped_and_cut(drawn):
    tiles, _ = drawn
    sheet = draw_answers([answered("word " * 3000), answered("x" * 100_000)])
    assert sheet.height < 1500
    assert all(tile[-1].endswith(" ...") for tile in tiles)


def test_a_picture_that_is_gone_is_told(drawn, tmp_path):
    tiles, _ = drawn
    draw_answers([answered(part={"type": "image", "image": str(tmp_path / "gone.png")})])
    assert "The picture cannot be shown" in " ".join(tiles[0])


def test_without_answers_there_is_no_picture():
    assert draw_answers([]) is None
