"""VideoRefer-Bench-Q, on small files in the official layout, and on golden numbers."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from pixelrefer_plugin import DataError, EvaluationError, PixelReferError, SampleError
from pixelrefer_plugin.authoring import Answer, Region, read_choice
from pixelrefer_plugin.evaluation.asking.engine import ModelEngine
from pixelrefer_plugin.plugins import get_benchmark
from pixelrefer_plugin.testing import OfflineTools, write_tiny_picture, write_tiny_video

GOLDEN = Path(__file__).parent.parent.parent / "shared" / "evaluation" / "golden"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="golden numbers are not here")
VIDEO = "DAVIS/JPEGImages/480p/lamp"
OPTIONS = ["(A) a lamp", "(B) a rope", "(C) a book", "(D) nothing"]
MASK = {"segmentation": Region.from_box((5, 5, 25, 30)).to_rle((48, 64))}
FULL = "PixelRefer/evaluation/pixelrefer/infer_videorefer_q.py"
LITE = "PixelRefer/evaluation/pixelrefer_lite/infer_videorefer_q.py"


def record(**changes):
    made = {
        "id": 7,
        "video": VIDEO,
        "Question": "What does <object0><region> hold?",
        "type": "Basic Questions",
        "options": OPTIONS,
        "Answer": "(B) a rope",
        "frame_idx": "3",
        "annotation": [{"1": MASK, "2": {"segmentation": None}, "3": MASK}],
    }
    return {key: value for key, value in (made | changes).items() if value is not ...}


def written(folder, *records, frames=6):
    for frame in range(frames):
        write_tiny_picture(folder / VIDEO / f"{frame:05}.jpg", seed=frame)
    (folder / "VideoRefer-Bench-Q.json").write_text(json.dumps(records), encoding="utf-8")
    return folder


def opened(folder, **options):
    spec = get_benchmark("videorefer_q")
    return spec.open(spec.make_config(options), folder)


def scored(questions, texts, **failures):
    spec = get_benchmark("videorefer_q")
    answers = [
        Answer(id=question.id, text=text, failure=failures.get(f"at_{index}", ""))
        for index, (question, text) in enumerate(zip(questions, texts, strict=True))
    ]
    return spec.score(spec.make_config(), questions, answers, OfflineTools())


def figures_of(scores):
    return {figure.reading or "default": figure for figure in scores.figures}


# -- questions ---------------------------------------------------------------------------------------------


def test_a_record_becomes_a_question(tmp_path):
    (question,) = opened(written(tmp_path, record()))
    assert question.id == "7"
    assert question.type == "Basic Questions"
    assert question.references == ("(B) a rope",)
    assert question.facts["letter"] == "B"
    assert question.text.splitlines()[:-1] == ["What does <object0><region> hold?", *OPTIONS]
    assert not question.segment
    (region,) = question.asked.regions
    assert list(region.frames) == [3]
    assert region.frames[3].to_mask((48, 64)).area == 20 * 25


def test_all_frames_with_a_mask_are_marked_and_they_alone_are_shown(tmp_path):
    (question,) = opened(written(tmp_path, record()), masks="all")
    (region,) = question.asked.regions
    assert list(region.frames) == [1, 3]
    (video,) = question.asked.media("video")
    assert (video["nframes"], video["max_frames"], video["fps"]) == (2, 2, 3.0)


@pytest.mark.parametrize(
    ("frames", "options", "shown"),
    [(6, {}, 2), (7, {}, 3), (1, {}, 1), (6, {"fps": 3.0}, 6), (60, {"max_frames": 4}, 4)],
)
def test_a_folder_is_shown_at_a_frame_a_second(tmp_path, frames, options, shown):
    named = record(frame_idx="0", annotation=[{"0": MASK}])
    (question,) = opened(written(tmp_path, named, frames=frames), **options)
    (video,) = question.asked.media("video")
    assert video["nframes"] == shown
    assert video["fps"] == 3.0


def test_a_video_may_be_a_file_and_lie_elsewhere(tmp_path):
    write_tiny_video(tmp_path / "elsewhere" / "clip.mp4")
    folder = written(tmp_path, record(video="clip.mp4"))
    (question,) = opened(folder, videos=str(tmp_path / "elsewhere"), fps=2.0)
    (video,) = question.asked.media("video")
    assert (Path(video["video"]).is_file(), video["fps"], video["max_frames"]) == (True, 2.0, 768)
    (question,) = opened(folder, videos="elsewhere", masks="all")
    (video,) = question.asked.media("video")
    assert (video["nframes"], "fps" in video) == (2, False)


def test_ids_are_made_unique(tmp_path):
    assert [each.id for each in opened(written(tmp_path, record(), record(), record(id=...)))] == ["7", "7~2", "2"]


def test_other_annotations_can_be_named(tmp_path):
    (written(tmp_path, record()) / "VideoRefer-Bench-Q.json").rename(tmp_path / "all.json")
    assert len(opened(tmp_path, annotations="all.json")) == 1
    with pytest.raises(DataError, match=r"VideoRefer-Bench-Q\.json.*the 1,000 questions.*huggingface"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": ...}, "'options' must be a list of 2 to 26 texts, got None"),
        ({"options": "(A) a lamp"}, "'options' must be a list"),
        ({"options": ["(A) a lamp", 3]}, "'options' must be a list"),
        ({"options": OPTIONS * 7}, "'options' must be a list of 2 to 26"),
        ({"Answer": "(E) a cat"}, r"'Answer' must be one of .*\(A\) a lamp \(B\) a rope.*got '\(E\) a cat'"),
        ({"Answer": None}, "'Answer' must be one of"),
        ({"Question": ...}, "'Question' must be a text, got None"),
        ({"Question": "What does it hold?"}, "region"),
        ({"type": 3}, "'type' must be a text, got 3"),
        ({"annotation": ...}, "'annotation' must be a list of objects, got None"),
        ({"annotation": [[MASK]]}, "object 0.*must map frame indices to masks"),
        ({"annotation": [{"x": MASK}]}, "must map frame indices to masks"),
        ({"annotation": [{"9" * 50: MASK}]}, "must map frame indices to masks"),
        ({"annotation": [{"3": {"segmentation": {"size": [48], "counts": "a"}}}]}, "object 0"),
        ({"frame_idx": "2"}, "object 0.*it has no mask on frame 2"),
        ({"frame_idx": "4"}, "it has no mask on frame '4', which 'frame_idx' names"),
        ({"frame_idx": ...}, "it has no mask on frame None"),
        ({"video": ...}, "'video' must be a text, got None"),
        ({"video": 3}, "'video' must be a text, got 3"),
        ({"video": [VIDEO, VIDEO]}, "'video' must be a text"),
    ],
)
def test_a_broken_record_is_named_with_all_that_is_wrong(tmp_path, changes, message):
    with pytest.raises(SampleError, match=message) as error:
        opened(written(tmp_path, record(), record(**changes)))
    assert "VideoRefer-Bench-Q.json record 2" in str(error.value)


def test_an_object_without_any_mask_is_refused_where_all_are_shown(tmp_path):
    with pytest.raises(SampleError, match="it has no mask on any frame"):
        opened(written(tmp_path, record(annotation=[{"3": {"segmentation": None}}])), masks="all")
    (tmp_path / "VideoRefer-Bench-Q.json").write_text("3\n")
    with pytest.raises(SampleError, match="line 1.*a record must be an object, got 3"):
        opened(tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {"masks": "some"},
        {"fps": 0},
        {"folder_fps": -1},
        {"max_frames": 0},
        {"videos": ""},
        {"annotations": "a\0"},
        {"official_code": "\ud800"},
        {"instruction": ""},
        {"instruction": "a", "official_code": "b"},
        {"mask": "one"},
    ],
)
def test_wrong_options_are_refused_by_name(options):
    with pytest.raises(PixelReferError, match=next(iter(options))):
        get_benchmark("videorefer_q").make_config(options)


# -- prompts -----------------------------------------------------------------------------------------------


def test_the_prompt_is_of_our_own_words_or_of_the_users(tmp_path):
    spec = get_benchmark("videorefer_q")
    (own,) = spec.prompts(spec.make_config())
    assert own.origin == "own words"
    (theirs,) = spec.prompts(spec.make_config({"instruction": "Which letter?"}))
    assert theirs.origin == "option instruction"
    (question,) = opened(written(tmp_path, record(Question="{options}? <region>")), instruction="Which {letter}?")
    assert question.text == "\n".join(["{options}? <region>", *OPTIONS, "Which {letter}?"])


@pytest.mark.parametrize(("masks", "file"), [("one", FULL), ("all", LITE)])
def test_the_official_prompt_is_read_from_the_official_code(tmp_path, monkeypatch, masks, file):
    opened(written(tmp_path, record()))  # imports the plugin
    sentence = ". A sentence."
    hashed = hashlib.sha256(sentence.encode()).hexdigest()
    monkeypatch.setattr(sys.modules["pixelrefer_videorefer_q.prompts"], "_SHA256", hashed)
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(f"question = line['Question'] + ' ' + ' '.join(o) + {sentence!r}")
    (question,) = opened(tmp_path, masks=masks, official_code=str(tmp_path))
    assert question.text == f"What does <object0><region> hold? {' '.join(OPTIONS)}{sentence}"
    spec = get_benchmark("videorefer_q")
    (prompt,) = spec.prompts(spec.make_config({"masks": masks, "official_code": str(tmp_path)}))
    assert prompt.origin == file


def test_official_code_of_another_version_is_refused(tmp_path):
    (tmp_path / FULL).parent.mkdir(parents=True)
    (tmp_path / FULL).write_text("question = 'another'")
    with pytest.raises(DataError, match=rf"{FULL}.*another version of alibaba-damo-academy/PixelRefer"):
        opened(written(tmp_path, record()), official_code=str(tmp_path))


# -- scores ------------------------------------------------------------------------------------------------


def test_answers_are_read_in_three_ways(tmp_path):
    questions = opened(written(tmp_path, *[record(id=number) for number in range(5)]))
    scores = scored(questions, ["(B)", "The answer is B", "(b) a rope", "Because", ""])
    values = {name: figure.values.tolist() for name, figure in figures_of(scores).items()}
    assert values == {"default": [1, 1, 1, 0, 0], "official": [1, 0, 0, 1, 0], "unipixel": [1, 0, 1, 1, 0]}
    assert scores.figures[0].label == "accuracy"
    assert list(scores.unread) == ["3", "4"]
    assert "'Because'" in scores.unread["3"]
    assert scores.details["1"] == "Read as B."
    assert [note.split(":")[0] for note in scores.notes] == ["Reading official", "Reading unipixel"]
    assert "IndexError at 1 of the answers, such as that to '4'" in scores.notes[0]


def test_a_question_that_could_not_be_asked_is_wrong_and_no_answer(tmp_path):
    questions = opened(written(tmp_path, record(), record(id=8, Answer="(A) a lamp")))
    scores = scored(questions, ["", ""], at_0="no such frame", at_1="no such frame")
    assert not scores.unread
    assert figures_of(scores)["default"].of() == 0
    assert figures_of(scores)["official"].of() == 0.5  # whose inference writes "A" where it fails


@needs_golden
def test_a_whole_run_is_the_golden_one(tmp_path):
    golden = json.loads((GOLDEN / "multiple_choice.json").read_text(encoding="utf-8"))["whole"]
    lines = golden["records"]
    options = [f"({letter}) option" for letter in "ABCD"]
    records = [
        record(id=number, options=options, **{key: line[key] for key in ("video", "Answer", "type")})
        for number, line in enumerate(lines)
    ]
    questions = opened(written(tmp_path, *records))
    (tmp_path / "answers.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    spec = get_benchmark("videorefer_q")
    answers = list(spec.answer_formats["pixelrefer"](spec.make_config(), tmp_path / "answers.jsonl", questions))
    assert [answer.id for answer in answers] == [question.id for question in questions]
    figures = figures_of(spec.score(spec.make_config(), questions, answers, OfflineTools()))
    types = np.array([question.type for question in questions])
    for type, expected in golden["pixelrefer"].items():
        chosen = np.flatnonzero((types == type) | (type == "average"))
        assert len(chosen) == expected["all num"]
        assert figures["official"].of(chosen) == pytest.approx(expected["accuracy"], abs=1e-9)
    for type, expected in golden["unipixel"].items():
        assert figures["unipixel"].of(np.flatnonzero(types == type)) == pytest.approx(expected["accuracy"], abs=1e-9)
    assert figures["unipixel"].values.sum() == golden["unipixel_all"]["right"]
    failed = [read_choice(answer.text, options, "unipixel") for answer in answers].count(None)
    assert failed == golden["unipixel_all"]["failed"]


# -- answers of others -------------------------------------------------------------------------------------


def read(format, path, questions, content):
    spec = get_benchmark("videorefer_q")
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return list(spec.answer_formats[format](spec.make_config(), path, questions))


def prediction(**changes):
    return {"video": "lamp", "Answer": "(B) a rope", "pred": "B", "type": "Basic Questions"} | changes


def test_answers_of_pixelrefer_find_their_questions(tmp_path):
    questions = opened(written(tmp_path, record(), record(id=8), record(id=9, Answer="(C) a book")))
    lines = [prediction(Answer="(C) a book", pred="x"), prediction(pred="y"), prediction(pred="z", video=VIDEO)]
    answers = read("pixelrefer", tmp_path / "a.json", questions, lines)
    assert [(answer.id, answer.text) for answer in answers] == [("9", "x"), ("7", "y"), ("8", "z")]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([prediction(), prediction()], "record 2 is one too many"),
        ([prediction(type="Future Predictions")], "record 1 is about no question of the benchmark"),
        ([prediction(pred=3)], "'pred' must be a text, got 3"),
        ("3\n", "line 1 must be an object, got 3"),
        ("", "cannot be read"),
    ],
)
def test_answers_that_fit_no_question_are_refused(tmp_path, lines, message):
    with pytest.raises(EvaluationError, match=message):
        read("pixelrefer", tmp_path / "a.json", opened(written(tmp_path, record())), lines)


def test_answers_of_unipixel_find_their_questions(tmp_path):
    questions = opened(written(tmp_path, record(), record(id=8, Question=" Where is <region>?\n")))
    listed = "\n".join(["", "Options:", *OPTIONS, "And so on."])
    told = {"video_path": f"data/videos/{VIDEO}", "options": OPTIONS, "ans": "B"}
    lines = [
        told | {"question": f"Where is <region>?{listed}", "response": "B) a rope"},
        told | {"question": f"What does <object0><region> hold?{listed}", "response": "C"},
    ]
    answers = read("unipixel", tmp_path / "a.json", questions, lines)
    assert [(answer.id, answer.text) for answer in answers] == [("8", "B) a rope"), ("7", "C")]
    with pytest.raises(EvaluationError, match="'response' must be a text, got None"):
        read("unipixel", tmp_path / "a.json", questions, [lines[0] | {"response": None}])


# -- a whole run -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("masks", ["one", "all"])
def test_a_model_is_asked(tmp_path, pair, masks):
    get_benchmark("videorefer_q").tiny(tmp_path)
    questions = opened(tmp_path, masks=masks)
    engine = ModelEngine(pair.model, pair.processor, max_new_tokens=3)
    answers = engine.answer(questions)
    assert [answer.id for answer in answers] == ["0", "1", "2"]
    scores = scored(questions, [answer.text for answer in answers])
    assert all(0 <= figure.of() <= 1 for figure in scores.figures)
