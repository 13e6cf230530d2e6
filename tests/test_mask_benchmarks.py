"""RefCOCO, RefCOCO+, RefCOCOg, ReasonSeg: official layouts, what counts, and whole runs."""

import json
import pickle
from dataclasses import replace

import cv2
import numpy as np
import pytest
import stencil
import torch
from PIL import Image

from pixelrefer_plugin import Region, VideoRegion
from pixelrefer_plugin.contracts.questions import Answer
from pixelrefer_plugin.errors import DataError, PixelReferError
from pixelrefer_plugin.evaluation.asking.engine import ModelEngine
from pixelrefer_plugin.plugins import get_benchmark
from pixelrefer_plugin.testing import TINY_HW, make_pair

REFCOCOS = {
    "refcoco": "refcoco/refs(unc).p",
    "refcoco_plus": "refcoco+/refs(unc).p",
    "refcocog": "refcocog/refs(umd).p",
}
NAMES = (*REFCOCOS, "reasonseg")


def tiny(name, folder, **options):
    spec = get_benchmark(name)
    spec.tiny(folder)
    config = spec.make_config(options)
    return spec, config, list(spec.open(config, folder))


def scored(spec, config, questions, answers):
    scores = spec.score(config, questions, answers, None)
    return {figure.label: figure for figure in scores.figures}, scores


def answer(question, region):
    return Answer(id=question.id, text="<seg>", objects=(region,), image_hw=TINY_HW)


def values(figures):
    return {label: figure.of() for label, figure in figures.items()}


# -- what is asked -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REFCOCOS)
def test_each_sentence_is_a_question(tmp_path, name):
    _, _, questions = tiny(name, tmp_path)
    assert [each.id for each in questions] == ["0-0", "0-1", "1-0"]
    texts = [each.text for each in questions]
    assert texts == ["Segment the red car.", "Segment car on the left.", "Segment tram."]
    assert all(each.segment and len(each.targets) == 1 for each in questions)
    assert questions[2].facts["box"] == (30, 8, 50, 40)
    assert questions[0].asked.paths == [
        str(tmp_path / "images/mscoco/images/train2014/COCO_train2014_000000000000.jpg")
    ]
    assert (tmp_path / REFCOCOS[name]).is_file()


def test_splits_are_asked_alone(tmp_path):
    spec, _, _ = tiny("refcoco", tmp_path)
    for split, first in (("testA", "2-0"), ("testB", "4-0")):
        questions = spec.open(spec.make_config({"split": split}), tmp_path)
        assert (questions[0].id, len(questions)) == (first, 3)
    spec, _, questions = tiny("refcocog", tmp_path / "g", split="test")
    assert [each.id for each in questions] == ["2-0", "2-1", "3-0"]


def test_reasonseg_asks_sentences_and_phrases_in_their_own_way(tmp_path):
    spec, config, questions = tiny("reasonseg", tmp_path)
    assert [(each.id, each.type, each.text) for each in questions] == [
        ("1-0", "sentence", "What could a dog sleep on? Answer with the mask."),
        ("2-0", "phrase", "Segment the seat."),
        ("2-1", "phrase", "Segment what one sits on."),
    ]
    assert [prompt.text for prompt in spec.prompts(config)] == [config.question, config.sentence]


def test_pictures_may_lie_elsewhere(tmp_path):
    spec, _, _ = tiny("refcoco", tmp_path)
    questions = spec.open(spec.make_config({"images": "coco"}), tmp_path)
    assert questions[0].asked.paths == [str(tmp_path / "coco" / "COCO_train2014_000000000000.jpg")]


# -- figures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_true_masks_score_1(tmp_path, name):
    spec, config, questions = tiny(name, tmp_path)
    figures, scores = scored(spec, config, questions, [answer(each, each.targets[0]) for each in questions])
    assert set(values(figures).values()) == {1.0}
    assert next(iter(figures)) == ("giou" if name == "reasonseg" else "ciou")
    assert not scores.unread


def test_ciou_sums_over_the_questions_that_are_looked_at(tmp_path):
    spec, config, questions = tiny("refcoco", tmp_path)
    half = Region.from_box((30, 8, 50, 24))
    answers = [answer(questions[0], questions[0].targets[0]), Answer(id=questions[1].id, text="none"), None]
    answers[2] = answer(questions[2], half)
    figures, _ = scored(spec, config, questions, answers)
    small = questions[0].targets[0].to_mask(TINY_HW).area
    assert figures["ciou"].of() == pytest.approx((small + 320) / (small + small + 640))
    assert figures["giou"].of() == pytest.approx((1 + 0 + 0.5) / 3)
    repeated = np.array([2, 0, 2])
    assert figures["ciou"].of(repeated) == pytest.approx((small + 640) / (small + 1280))
    assert figures["giou"].of(repeated) == pytest.approx(2 / 3)
    assert figures["box_accuracy"].values.tolist() == [1, 0, 1]
    assert figures["box_accuracy (official)"].values.tolist() == [1, 0, 0]  # 19 x 15 of 20 x 32 pixels


def test_specks_do_not_count_for_boxes(tmp_path):
    spec, config, questions = tiny("refcoco", tmp_path)
    mask = questions[2].targets[0].to_mask(TINY_HW).dense()
    mask[0:3, 0:3] = True  # nine pixels
    figures, _ = scored(spec, config, questions, [answer(each, Region.from_mask(mask)) for each in questions])
    assert figures["box_accuracy"].values.tolist() == [0, 0, 1]
    mask[0:3, 3:4] = True
    figures, _ = scored(spec, config, questions, [answer(each, Region.from_mask(mask)) for each in questions])
    assert figures["box_accuracy"].values.tolist() == [0, 0, 0]


def plain_labels(shapes, hw):
    """Larger polygons first, outlines included, each pixel of the last one drawn on it."""

    def filled(points):
        canvas = np.zeros(hw, np.uint8)
        corners = np.array([points], np.int32)
        return cv2.fillPoly(cv2.polylines(canvas, corners, True, 1, 1), corners, 1).astype(bool)

    labels = np.zeros(hw, object)
    for label, points in sorted(shapes, key=lambda shape: -filled(shape[1]).sum()):
        labels[filled(points)] = label
    return labels


def test_void_pixels_are_cleared_on_both_sides(tmp_path):
    spec, config, questions = tiny("reasonseg", tmp_path)
    shapes = json.loads((tmp_path / "val" / "1.json").read_text())["shapes"]
    labels = plain_labels([(each["label"], each["points"]) for each in shapes if each["label"] != "flag"], TINY_HW)
    target, void = labels == "target", labels == "ignore"
    assert (target.sum(), void.sum()) == (21 * 21 - 36, 36)
    assert np.array_equal(questions[0].targets[0].to_mask(TINY_HW).dense(), target)
    with_void, without_target = Region.from_mask(target | void), Region.from_mask(void)
    for region, sane, official in ((with_void, 1, 405 / 441), (without_target, 0, 0)):
        figures, _ = scored(spec, config, questions[:1], [answer(questions[0], region)])
        assert values(figures) == pytest.approx(
            {"giou": sane, "ciou": sane, "giou (official)": official, "ciou (official)": official}
        )


def test_the_official_code_loses_its_label_for_void_pixels():
    canvas = np.ones((9, 9), np.uint8)
    cv2.fillPoly(canvas, np.array([[[2, 2], [6, 2], [6, 6]]], np.int32), -1)
    assert set(np.unique(canvas)) == {0, 1}


def test_an_empty_answer_to_a_picture_without_a_target_is_right(tmp_path):
    get_benchmark("reasonseg").tiny(tmp_path)
    path = tmp_path / "val" / "1.json"
    content = json.loads(path.read_text())
    content["shapes"] = [each for each in content["shapes"] if each["label"] == "ignore"]
    path.write_text(json.dumps(content))
    spec = get_benchmark("reasonseg")
    config = spec.make_config()
    questions = spec.open(config, tmp_path)[:1]
    figures, _ = scored(spec, config, questions, [Answer(id="1-0", text="there is none")])
    assert set(values(figures).values()) == {1.0}


def test_answers_that_cannot_be_compared_are_listed(tmp_path):
    spec, config, questions = tiny("refcoco", tmp_path)
    right = [answer(each, each.targets[0]) for each in questions]
    answers = [
        replace(right[0], image_hw=(5, 5)),
        replace(right[1], objects=(VideoRegion({0: right[1].objects[0]}),)),
        replace(right[2], failure="its picture is missing"),
    ]
    figures, scores = scored(spec, config, questions, answers)
    assert set(values(figures).values()) == {0.0}
    assert [scores.unread[each.id] for each in questions] == [
        "The masks of the answer to question '0-0' are of (5, 5), expected (48, 64), each (height, width): the size of "
        "the original picture. Bring them to it.",
        "The answer to question '0-1' has a mask of a video, expected one of a picture.",
        "its picture is missing",
    ]


# -- bad files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REFCOCOS)
def test_a_missing_file_is_named_with_its_origin(tmp_path, name):
    spec, config, _ = tiny(name, tmp_path)
    for file in spec.files[:2]:
        content = (tmp_path / file.path).read_bytes()
        (tmp_path / file.path).unlink()
        with pytest.raises(DataError, match=r"is missing.*lichengunc/refer") as error:
            spec.open(config, tmp_path)
        assert file.path in str(error.value)
        (tmp_path / file.path).write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda refs, _: refs.clear(), "must hold a list of references"),
        (lambda refs, _: refs[0].pop("ann_id"), "reference 0: it must have"),
        (lambda refs, _: refs[0].update(ann_id=99), "has no annotation 99, of reference 0"),
        (lambda refs, _: refs[0].update(sentences=[{"sent": 3}]), "sentence 0 must have a text"),
        (lambda refs, _: [each.update(split="train") for each in refs], "no references of the split 'val'"),
        (lambda _, found: found.pop("images"), "a list 'images'"),
        (lambda _, found: found["annotations"][0].update(image_id=77), "no image of annotation 0"),
        (lambda _, found: found["annotations"][0].update(image_id={"a": 1}), "no image of annotation 0"),
        (lambda _, found: found["annotations"][0].update(bbox=None), "annotation 0: its 'bbox' must be"),
        (lambda _, found: found["annotations"][0].update(segmentation=[[1, 2]]), "annotation 0: "),
        (
            lambda _, found: found["annotations"][0].update(segmentation={"size": [9, 9], "counts": [1, 80]}),
            r"run lengths are of \(9, 9\), its image is \(48, 64\)",
        ),
        (lambda _, found: found["images"][0].update(height="x"), "its image must have file_name, height and width"),
    ],
)
def test_a_malformed_file_of_refcoco_says_where(tmp_path, spoil, message):
    spec, config, _ = tiny("refcoco", tmp_path)
    refs_path, instances_path = (tmp_path / file.path for file in spec.files[:2])
    refs, found = pickle.loads(refs_path.read_bytes()), json.loads(instances_path.read_text())
    spoil(refs, found)
    refs_path.write_bytes(pickle.dumps(refs))
    instances_path.write_text(json.dumps(found))
    with pytest.raises(DataError, match=message):
        spec.open(config, tmp_path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda record: record.update(text="no list"), "its 'text' must be a list of texts"),
        (lambda record: record.update(shapes=None), "its 'shapes' must be a list"),
        (lambda record: record["shapes"][0].update(label="other"), "shape 0: its label must be"),
        (lambda record: record["shapes"][1].update(points=[[1, "a"]]), "shape 1: its 'points' must be pairs"),
        (lambda record: record["shapes"][1].update(points=[[1e12, 0]]), "shape 1: its 'points' must be pairs"),
    ],
)
def test_a_malformed_file_of_reasonseg_says_where(tmp_path, spoil, message):
    spec, config, _ = tiny("reasonseg", tmp_path)
    path = tmp_path / "val" / "1.json"
    record = json.loads(path.read_text())
    spoil(record)
    path.write_text(json.dumps(record))
    with pytest.raises(DataError, match=message):
        spec.open(config, tmp_path)


def test_reasonseg_says_what_is_missing(tmp_path):
    spec, config, _ = tiny("reasonseg", tmp_path)
    (tmp_path / "val" / "2.json").unlink()
    with pytest.raises(DataError, match=r"2\.json' is missing.*dvlab-research/LISA"):
        spec.open(config, tmp_path)
    (tmp_path / "val" / "1.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"1\.jpg' cannot be read"):
        spec.open(config, tmp_path)
    with pytest.raises(DataError, match=r"val' is missing.*dvlab-research/LISA"):
        spec.open(config, tmp_path / "nowhere")
    (tmp_path / "empty" / "val").mkdir(parents=True)
    with pytest.raises(DataError, match="has no pictures"):
        spec.open(config, tmp_path / "empty")


def test_reasonseg_reads_files_that_are_not_utf8_and_turned_pictures(tmp_path):
    spec, config, _ = tiny("reasonseg", tmp_path)
    path = tmp_path / "val" / "2.json"
    content = json.dumps(json.loads(path.read_text()) | {"text": ["the dog\u2019s seat"]}, ensure_ascii=False)
    path.write_bytes(content.encode("cp1252"))
    turned = Image.Exif()
    turned[274] = 6
    Image.new("RGB", (64, 48)).save(tmp_path / "val" / "2.jpg", exif=turned)
    question = spec.open(config, tmp_path)[1]
    assert question.text == "Segment the dog\u2019s seat."
    assert question.facts["image_hw"] == (64, 48)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("refcoco", {"split": "test"}),
        ("refcocog", {"split": "testA"}),
        ("refcoco_plus", {"question": "Segment it."}),
        ("refcoco", {"images": 1}),
        ("reasonseg", {"split": "train"}),
        ("reasonseg", {"sentence": 3}),
    ],
)
def test_options_are_checked(name, options):
    with pytest.raises(PixelReferError, match=next(iter(options))):
        get_benchmark(name).make_config(options)


# -- a model -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_run(tmp_path, monkeypatch, name):
    stencil.install(monkeypatch)
    pair = make_pair("stencil", "videollama3")
    with torch.no_grad():
        pair.model.adapter.judge.bias[1] = 5.0
    spec, config, questions = tiny(name, tmp_path)
    engine = ModelEngine(pair.model, pair.processor, max_new_tokens=3, options={"force_mask": True})
    figures, scores = scored(spec, config, questions, engine.answer(questions))
    pair.model.detach()
    assert 0 < figures["ciou"].of() < 1
    assert not scores.unread
