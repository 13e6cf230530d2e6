"""LVIS and PACO on small files in the official layout, sound and broken."""

import hashlib
import json

import numpy as np
import pytest

from pixelrefer_plugin.contracts.questions import Answer
from pixelrefer_plugin.errors import DataError, EvaluationError, PixelReferError
from pixelrefer_plugin.evaluation.asking.engine import ModelEngine
from pixelrefer_plugin.plugins import get_benchmark
from pixelrefer_plugin.testing import OfflineTools, check_benchmark, write_tiny_picture

FILES = {"lvis": "lvis_val_1k_category.json", "paco": "paco_val_1k_category.json"}


@pytest.fixture
def folder(tmp_path):
    """The official files of LVIS, small."""
    get_benchmark("lvis").tiny(tmp_path)
    return tmp_path


def opened(folder, name="lvis", **options):
    spec = get_benchmark(name)
    return spec.open(spec.make_config(options), folder)


def write(folder, records, name="lvis"):
    (folder / FILES[name]).write_text(json.dumps(records), encoding="utf-8")


def record(**changes):
    polygon = {"segmentation": [[5, 5, 25, 5, 25, 25]]}
    return {
        "file_name": "000000000009.jpg",
        "height": 48,
        "width": 64,
        "categories": ["dog"],
        "annotations": [polygon],
    } | changes


def scored(questions, texts, name="lvis"):
    spec = get_benchmark(name)
    answers = [Answer(id=question.id, text=text) for question, text in zip(questions, texts, strict=True)]
    return spec.score(spec.make_config({}), questions, answers, OfflineTools())


@pytest.mark.parametrize("name", ["lvis", "paco"])
def test_conformance(name):
    check_benchmark(name)


def test_a_question_for_each_annotation(folder):
    questions = opened(folder)
    assert [question.id for question in questions] == [
        "000000000009.jpg#0",
        "000000000009.jpg#1",
        "000000000010.jpg#0",
    ]
    assert [question.expected for question in questions] == ["dog", "dog:ear", "car_(automobile)"]
    assert [region.kind for question in questions for region in question.asked.regions] == ["polygon", "rle", "rle"]
    for question, path in zip(questions[1:], ["train2017/000000000009.jpg", "val2017/000000000010.jpg"], strict=True):
        assert question.asked.paths == [str(folder / "images" / path)]
    assert questions[0].asked.media_hw == ((48, 64),)


def test_pictures_lie_in_one_folder_too(folder, tmp_path):
    other = tmp_path / "coco"
    for number in (9, 10):
        write_tiny_picture(other / f"{number:012}.jpg")
    assert opened(folder, images=str(other))[0].asked.paths == [str(other / "000000000009.jpg")]


def test_two_records_of_a_picture_have_ids_of_their_own(folder):
    write(folder, [record(), record()])
    assert [question.id for question in opened(folder)] == ["000000000009.jpg#0", "000000000009.jpg#1"]


def test_what_is_asked(folder, tmp_path):
    assert "<region>" in opened(folder)[0].text
    get_benchmark("paco").tiny(tmp_path / "paco")
    assert "colon" in opened(tmp_path / "paco", "paco")[0].text
    assert opened(folder, question="What is <region>?")[0].text == "What is <region>?"
    origins = [
        get_benchmark("lvis").prompts(get_benchmark("lvis").make_config(options))[0].origin
        for options in ({}, {"question": "What is <region>?"})
    ]
    assert origins == ["own words", "option question"]


def test_the_official_question_is_read_from_a_clone(folder, tmp_path, monkeypatch):
    from pixelrefer_recognition import benchmarks

    text = "Name <region>, officially."
    code = tmp_path / "clone" / "PixelRefer" / "evaluation" / "pixelrefer" / "infer_paco_lvis.py"
    code.parent.mkdir(parents=True)
    code.write_text(f"question = {text!r}\n", encoding="utf-8")
    clone = str(tmp_path / "clone")
    with pytest.raises(DataError, match=r"infer_paco_lvis.py' has not the official text"):
        opened(folder, official_code=clone)
    digest = hashlib.sha256(text.encode()).hexdigest()
    spec = benchmarks._spec("lvis", "it", benchmarks.SPECS[0].files[0], "own <region>", digest, ())
    config = spec.make_config({"official_code": clone})
    assert spec.open(config, folder)[0].text == text
    assert spec.prompts(config)[0].origin == "PixelRefer/evaluation/pixelrefer/infer_paco_lvis.py"


def test_figures(folder):
    questions = opened(folder)
    scores = scored(questions, ["Dog.", "ear", "truck"])
    by_label = {figure.label: figure for figure in scores.figures}
    assert scores.figures[0].name == "ssim"
    assert list(by_label["siou"].values) == pytest.approx([1, 0.5, 0])
    assert by_label["siou"].of() == by_label["siou (official)"].of() == pytest.approx(0.5)
    assert by_label["average"].of() == pytest.approx((by_label["ssim"].of() + 0.5) / 2)


def test_empty_answers_and_failures(folder):
    questions = opened(folder)
    scores = scored(questions, ["", "dog ear", "car automobile"])
    by_label = {figure.label: figure for figure in scores.figures}
    assert by_label["ssim"].values[0] == 0 < by_label["ssim (official)"].values[0]
    assert scores.notes[0].startswith("1 of 3 answers are empty")
    answers = [Answer(id=question.id, text="", failure="no such picture") for question in questions]
    spec = get_benchmark("lvis")
    failed = spec.score(spec.make_config({}), questions, answers, OfflineTools())
    assert all(np.isnan(figure.of()) for figure in failed.figures)


# -- answers of others ---------------------------------------------------------------------------------------


def predictions(folder, *lines):
    path = folder / "output.json"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    spec = get_benchmark("lvis")
    return list(spec.answer_formats["pixelrefer"](spec.make_config({}), path, opened(folder)))


def line(image="000000000009.jpg", answer="dog", **changes):
    return {"image": image, "Answer": answer, "pred": "a dog", "region_num": 0} | changes


def test_official_predictions_find_their_questions(folder):
    answers = predictions(
        folder, line("000000000010.jpg", "car_(automobile)", pred="bus"), line(answer="dog:ear", pred="ear"), line()
    )
    assert {answer.id: answer.text for answer in answers} == {
        "000000000010.jpg#0": "bus",
        "000000000009.jpg#1": "ear",
        "000000000009.jpg#0": "a dog",
    }


def test_one_prediction_is_a_file_too(folder):
    assert [answer.text for answer in predictions(folder, line())] == ["a dog"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([line(), line(answer="cat")], r"line 2 is about no question.*'cat'"),
        ([line(image="other.jpg"), line()], r"line 1 is about no question"),
        ([line(), line()], "line 2 is one too many"),
        ([line(pred=None), line(answer="dog:ear")], "'pred' must be a text, got None"),
        ([line(), 3], "must be an object"),
        ([{"pred": "dog"}, line()], "is about no question"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(folder, lines, message):
    with pytest.raises(EvaluationError, match=message):
        predictions(folder, *lines)


def test_no_predictions_are_refused(folder):
    with pytest.raises(EvaluationError, match="cannot be read"):
        predictions(folder)


# -- official files that are missing or of another version ---------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"file_name": 3}, r"record 2.*'file_name'"),
        ({"categories": ["dog", "cat"]}, r"record 2.*lists of the same length"),
        ({"categories": None}, "lists of the same length"),
        ({"categories": [3]}, "'categories' must be texts, got 3"),
        ({"categories": [" "]}, "the answer is empty"),
        ({"annotations": [{"segmentation": [[1, 2]]}]}, "annotation 0"),
        ({"annotations": [{"segmentation": []}]}, "annotation 0: it has no mask"),
        ({"annotations": [None]}, "annotation 0: it has no mask"),
        ({"height": "high"}, "size"),
    ],
)
def test_a_broken_record_names_file_and_place(folder, broken, message):
    write(folder, [record(), record(**broken)])
    with pytest.raises(DataError, match=message) as caught:
        opened(folder)
    assert FILES["lvis"] in str(caught.value)


@pytest.mark.parametrize("content", ["", "[", "{}", "[1, 2]", '"a"'])
def test_a_file_that_is_none_is_refused(folder, content):
    (folder / FILES["lvis"]).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=FILES["lvis"]):
        opened(folder)


def test_a_missing_file_says_where_it_comes_from(tmp_path):
    with pytest.raises(DataError, match=r"paco_val_1k_category.json.*Osprey-ValData"):
        opened(tmp_path, "paco")


@pytest.mark.parametrize("options", [{"question": "What?"}, {"images": ""}, {"official_code": 3}, {"nothing": 1}])
def test_options_are_checked(options):
    with pytest.raises(PixelReferError, match=next(iter(options))):
        get_benchmark("lvis").make_config(options)


@pytest.mark.parametrize("name", ["lvis", "paco"])
def test_a_model_is_asked_and_scored(pair, tmp_path, name):
    spec = get_benchmark(name)
    spec.tiny(tmp_path)
    questions = opened(tmp_path, name)
    answers = ModelEngine(pair.model, pair.processor, max_new_tokens=4).answer(questions)
    scores = spec.score(spec.make_config({}), questions, answers, OfflineTools())
    assert all(np.isfinite(figure.values).all() for figure in scores.figures)
