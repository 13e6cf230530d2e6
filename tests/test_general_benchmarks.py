"""POPE and MVBench, on small files in the official layouts."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from pixelrefer_plugin import DataError, EvaluationError, PixelReferError, SampleError
from pixelrefer_plugin.authoring import Answer
from pixelrefer_plugin.evaluation.asking.engine import ModelEngine
from pixelrefer_plugin.plugins import get_benchmark
from pixelrefer_plugin.testing import OfflineTools, write_tiny_picture, write_tiny_video

SPLITS = ("adversarial", "popular", "random")
CODE = "PixelRefer/evaluation/pixelrefer/infer_mvbench.py"


def opened(name, folder, **options):
    spec = get_benchmark(name)
    return spec.open(spec.make_config(options), folder)


def scored(name, questions, texts, failure=""):
    spec = get_benchmark(name)
    pairs = zip(questions, texts, strict=True)
    answers = [Answer(id=question.id, text=text, failure=failure) for question, text in pairs]
    return spec.score(spec.make_config(), questions, answers, OfflineTools())


def values_of(scores, positions=None):
    return {figure.label: figure.of(positions) for figure in scores.figures}


def read(name, path, questions, lines):
    spec = get_benchmark(name)
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return list(spec.answer_formats["pixelrefer"](spec.make_config(), path, questions))


# -- POPE --------------------------------------------------------------------------------------------------


def pope(folder, **labels):
    """Files of POPE whose questions have these labels, split by split."""
    write_tiny_picture(folder / "val2014" / "a.jpg")
    for split in SPLITS:
        lines = [
            {"question_id": number, "image": "a.jpg", "text": "Is there a cup in the image?", "label": label}
            for number, label in enumerate(labels.get(split, ["yes"]))
        ]
        (folder / f"coco_pope_{split}.json").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return folder


def test_pope_becomes_questions(tmp_path):
    questions = opened("pope", pope(tmp_path, popular=["no", "yes"]))
    assert [each.id for each in questions] == ["adversarial_0", "popular_0", "popular_1", "random_0"]
    assert [each.type for each in questions] == ["adversarial", "popular", "popular", "random"]
    assert [each.expected for each in questions] == ["yes", "no", "yes", "yes"]
    assert questions[0].text == "Is there a cup in the image?\nAnswer yes or no."
    assert Path(questions[0].asked.media("image")[0]["image"]).is_file()


def test_some_splits_and_another_instruction(tmp_path):
    pope(tmp_path)
    (tmp_path / "coco_pope_popular.json").unlink()
    questions = opened("pope", tmp_path, splits=["random", "adversarial"], instruction="", images=str(tmp_path))
    assert [each.type for each in questions] == ["adversarial", "random"]
    assert questions[0].text == "Is there a cup in the image?"
    assert opened("pope", tmp_path, splits="random")[0].type == "random"
    with pytest.raises(DataError, match=r"coco_pope_popular\.json.*the questions of the split popular.*RUCAIBox/POPE"):
        opened("pope", tmp_path)
    spec = get_benchmark("pope")
    assert spec.prompts(spec.make_config())[0].origin == "own words"
    assert spec.prompts(spec.make_config({"instruction": "?"}))[0].text == "{question}\n?"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"question_id": 1, "image": "a.jpg", "text": "Is it?", "label": "Yes"}',
            "'label' must be yes or no, got 'Yes'",
        ),
        ('{"question_id": 1, "image": "a.jpg", "text": 3, "label": "yes"}', "'text' must be a text, got 3"),
        ('{"question_id": 1, "image": 3, "text": "Is it?", "label": "yes"}', "'image' must be a text, got 3"),
        ('{"question_id": 1, "text": "Is it?", "label": "yes"}', "'image' must be a text, got None"),
        ("[]", "a record must be an object"),
        ("{", "not JSON"),
    ],
)
def test_a_broken_record_of_pope_is_named(tmp_path, line, message):
    pope(tmp_path)
    with (tmp_path / "coco_pope_popular.json").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(SampleError, match=message) as error:
        opened("pope", tmp_path)
    assert "coco_pope_popular.json line 2" in str(error.value)


def by_hand(truth, said):
    """Accuracy, F1, precision and recall of one split."""
    tp = sum(a == b == "yes" for a, b in zip(truth, said, strict=True))
    right = sum(a == b for a, b in zip(truth, said, strict=True))
    precision, recall = tp / said.count("yes"), tp / truth.count("yes")
    return right / len(truth), 2 * precision * recall / (precision + recall), precision, recall


def test_figures_of_pope_are_means_over_the_splits(tmp_path):
    truth = {"adversarial": ["yes", "no", "no"], "popular": ["yes", "yes"], "random": ["no", "yes", "no", "no"]}
    said = {"adversarial": ["yes", "yes", "no"], "popular": ["yes", "no"], "random": ["no", "yes", "yes", "yes"]}
    questions = opened("pope", pope(tmp_path, **truth))
    scores = scored("pope", questions, [each for split in SPLITS for each in said[split]])
    expected = np.mean([by_hand(truth[split], said[split]) for split in SPLITS], axis=0)
    got = values_of(scores)
    names = ("accuracy", "f1", "precision", "recall")
    assert [got[name] for name in names] == pytest.approx(expected.tolist())
    assert [got[f"{name} (official)"] for name in names] == pytest.approx(expected.tolist())
    assert got["yes_share"] == pytest.approx(np.mean([2 / 3, 1 / 2, 3 / 4]))
    assert list(got)[:2] == ["accuracy", "f1"]
    popular = values_of(scores, np.array([3, 4, 3, 4]))
    assert [popular[name] for name in names] == pytest.approx(by_hand(truth["popular"], said["popular"]))
    assert not scores.unread
    assert not scores.notes


def test_pope_is_read_sanely_and_as_the_official_code_reads(tmp_path):
    questions = opened("pope", pope(tmp_path, adversarial=["no", "no", "yes", "yes"]), splits="adversarial")
    scores = scored("pope", questions, ["NO", "There isn't one.", "Perhaps", "Yes, no doubt"])
    accuracy, official = (scores.figures[index].values.tolist() for index in (0, 5))
    assert (accuracy, official) == ([1, 1, 0, 1], [0, 0, 1, 0])
    assert list(scores.unread) == ["adversarial_2"]
    got = values_of(scores)
    assert (got["precision"], got["recall"], got["yes_share"]) == (1, 0.5, 0.25)


def test_pope_says_where_the_official_code_divides_by_zero(tmp_path):
    questions = opened("pope", pope(tmp_path, popular=["no"]))
    scores = scored("pope", questions, ["yes", "no", ""])
    assert [note.split("split ")[1].split(",")[0] for note in scores.notes] == ["popular"]
    got = values_of(scores)
    assert got["accuracy"] == pytest.approx(2 / 3)
    assert got["f1"] == pytest.approx(1 / 3)
    nothing = values_of(scored("pope", questions, ["", "", ""]))
    assert (nothing["accuracy"], nothing["f1"], nothing["recall"]) == (0, 0, 0)
    assert np.isnan(nothing["precision"])


def test_official_answers_to_pope_find_their_questions(tmp_path):
    questions = opened("pope", pope(tmp_path, adversarial=["no", "yes", "no"]))
    lines = [
        {"category": "random", "Answer": "yes", "pred": "r"},
        {"category": "adversarial", "Answer": "no", "pred": "a"},
        {"category": "adversarial", "Answer": "yes", "pred": "b"},
        {"category": "adversarial", "Answer": "no", "pred": "c"},
    ]
    answers = read("pope", tmp_path / "answers.jsonl", questions, lines)
    assert {answer.id: answer.text for answer in answers} == {
        "random_0": "r",
        "adversarial_0": "a",
        "adversarial_1": "b",
        "adversarial_2": "c",
    }
    with pytest.raises(EvaluationError, match="about no question of the benchmark"):
        read("pope", tmp_path / "answers.jsonl", questions, [{"category": "easy", "Answer": "yes", "pred": "r"}])


# -- MVBench -----------------------------------------------------------------------------------------------


def mvbench(folder, task="Action Sequence", **changes):
    """The file of a task with one question."""
    record = {
        "video": "clip.mp4",
        "question": "What happens?",
        "candidates": ["walking", "running.", "a red car", "the car"],
        "answer": "a red car",
        "start": 0.5,
        "end": 2.0,
    }
    record = {key: value for key, value in (record | changes).items() if value is not ...}
    (folder / "json").mkdir(exist_ok=True)
    name = task.lower().replace(" ", "_")
    (folder / "json" / f"{name}.json").write_text(json.dumps([record]), encoding="utf-8")
    write_tiny_video(folder / "video" / "star" / "Charades_v1_480" / "clip.mp4", frames=12)
    return folder


def asked_video(folder, task="Action Sequence", **options):
    (question,) = opened("mvbench", folder, tasks=task, **options)
    (video,) = question.asked.media("video")
    return {key: value for key, value in video.items() if key not in ("type", "video")}


def test_mvbench_becomes_questions(tmp_path):
    get_benchmark("mvbench").tiny(tmp_path)
    questions = opened("mvbench", tmp_path)
    assert len({each.type for each in questions}) == len(questions) == 20
    assert questions[0].id == "action_sequence_0"
    assert questions[0].text.splitlines()[:3] == ["What of Action Sequence?", "(A) a lamp", "(B) a rope"]
    assert questions[0].references == ("(B) a rope",)
    assert all(Path(path).exists() for each in questions for path in each.asked.paths)
    two = opened("mvbench", tmp_path, tasks=["State Change", "Action Count"])
    assert [each.type for each in two] == ["Action Count", "State Change"]


def test_a_part_of_a_video_is_shown_where_a_question_is_about_one(tmp_path):
    part = {"video_start": 0.5, "video_end": 2.0, "fps": 1.0, "max_frames": 128}
    assert asked_video(mvbench(tmp_path)) == part
    assert asked_video(mvbench(tmp_path, start=2.0, end=0.5), fps=2.0, max_frames=8) == part | {
        "fps": 2,
        "max_frames": 8,
    }
    assert asked_video(mvbench(tmp_path, start=2, end=2)) == part | {"video_start": 2, "video_end": 3}
    assert asked_video(mvbench(tmp_path, start=-3, end=1)) == part | {"video_start": 0, "video_end": 1}
    mvbench(tmp_path, "Action Antonym", start=..., end=...)
    assert asked_video(tmp_path, "Action Antonym") == {"fps": 1.0, "max_frames": 128}


def test_a_folder_of_frames_has_three_a_second(tmp_path):
    folder = tmp_path / "video" / "tvqa" / "frames_fps3_hq" / "clip"
    for frame in range(1, 13):
        write_tiny_picture(folder / f"{frame:05}.jpg", seed=frame)
    mvbench(tmp_path, "Episodic Reasoning", video="clip", start=1.0, end=3.0)
    part = {"video_start": 1, "video_end": 3, "fps": 3.0, "nframes": 2, "max_frames": 128}
    assert asked_video(tmp_path, "Episodic Reasoning") == part
    mvbench(tmp_path, "Episodic Reasoning", video="clip", start=1.0, end=300.0)
    assert asked_video(tmp_path, "Episodic Reasoning")["nframes"] == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"candidates": ["walking"]}, "'candidates' must be a list of 2 to 26 texts"),
        ({"candidates": ["walking", 3]}, "'candidates' must be a list"),
        ({"candidates": ...}, "'candidates' must be a list of 2 to 26 texts, got None"),
        ({"answer": "flying"}, r"'answer' must be one of .*'walking'.*got 'flying'"),
        ({"question": ""}, "'question' must be a text, got ''"),
        ({"start": ...}, r"'start' and 'end' must be seconds, got \[None, 2.0\]"),
        ({"end": "2"}, "'start' and 'end' must be seconds"),
        ({"end": 1e30}, "'start' and 'end' must be seconds"),
        ({"video": 3}, "'video' must be a text, got 3"),
        ({"video": ["a.jpg"]}, "'video' must be a text"),
        ({"video": ...}, "'video' must be a text, got None"),
    ],
)
def test_a_broken_record_of_mvbench_is_named(tmp_path, changes, message):
    with pytest.raises(SampleError, match=message) as error:
        opened("mvbench", mvbench(tmp_path, **changes), tasks="Action Sequence")
    assert "action_sequence.json record 1" in str(error.value)


def test_a_missing_task_is_named_with_its_origin(tmp_path):
    with pytest.raises(DataError, match=r"action_prediction\.json.*the questions of Action Prediction.*OpenGVLab"):
        opened("mvbench", mvbench(tmp_path))


def test_the_official_prompt_of_mvbench_is_read_from_the_official_code(tmp_path, monkeypatch):
    opened("mvbench", mvbench(tmp_path), tasks="Action Sequence")  # imports the plugin
    pieces = ("Q: ", "\nO:\n", "Choose.")
    hashes = tuple(hashlib.sha256(each.encode()).hexdigest() for each in pieces)
    monkeypatch.setattr(sys.modules["pixelrefer_general.mvbench"], "_SHA256", hashes)
    (tmp_path / CODE).parent.mkdir(parents=True)
    (tmp_path / CODE).write_text("x = f'Q: {question}\\nO:\\n{options}Choose.'\nre.findall(f'[\\(,\\ ]*', x)")
    (question,) = opened("mvbench", tmp_path, tasks="Action Sequence", official_code=str(tmp_path))
    listed = "(A) walking\n(B) running.\n(C) a red car\n(D) the car\n"
    assert question.text == f"Q: What happens?\nO:\n{listed}Choose."
    spec = get_benchmark("mvbench")
    assert spec.prompts(spec.make_config({"official_code": str(tmp_path)}))[0].origin == CODE
    assert spec.prompts(spec.make_config({"instruction": "?"}))[0].text == "{question}\n{options}\n?"


def test_mvbench_is_read_sanely_and_as_the_official_code_reads(tmp_path):
    get_benchmark("mvbench").tiny(tmp_path)
    questions = opened("mvbench", tmp_path, tasks=["Action Count", "Action Antonym", "Action Sequence", "State Change"])
    scores = scored("mvbench", questions, ["b", "Because", "The answer is (B).", "A, B"])
    values = {figure.label: figure.values.tolist() for figure in scores.figures}
    assert values == {"accuracy": [1, 0, 1, 0], "accuracy (official)": [0, 1, 1, 0]}
    assert list(scores.unread) == ["action_antonym_0", "state_change_0"]
    assert scores.details["action_sequence_0"] == "Read as B."
    failed = scored("mvbench", questions, [""] * 4, failure="no such video")
    assert not failed.unread
    assert values_of(failed) == {"accuracy": 0, "accuracy (official)": 0}


def test_the_third_option_is_right_where_the_official_code_can_read_nothing(tmp_path):
    questions = opened("mvbench", mvbench(tmp_path), tasks="Action Sequence")
    assert values_of(scored("mvbench", questions, ["?"])) == {"accuracy": 0, "accuracy (official)": 1}


def test_official_answers_to_mvbench_find_their_questions(tmp_path):
    questions = opened("mvbench", mvbench(tmp_path), tasks="Action Sequence")
    line = {"video": "videos/star/Charades_v1_480/clip.mp4", "task_type": "Action Sequence", "pred": 2, "gt": 2}
    (answer,) = read("mvbench", tmp_path / "answers.jsonl", questions, [line])
    assert (answer.id, answer.text) == ("action_sequence_0", "(C)")
    assert values_of(scored("mvbench", questions, [answer.text])) == {"accuracy": 1, "accuracy (official)": 1}
    with pytest.raises(EvaluationError, match="'pred' must be the index of a candidate, got -1"):
        read("mvbench", tmp_path / "answers.jsonl", questions, [line | {"pred": -1}])
    with pytest.raises(EvaluationError, match="about no question of the benchmark"):
        read("mvbench", tmp_path / "answers.jsonl", questions, [line | {"gt": 1}])


# -- options, and whole runs -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("pope", {"splits": ["easy"]}),
        ("pope", {"splits": []}),
        ("pope", {"images": ""}),
        ("pope", {"instruction": None}),
        ("pope", {"official_code": "a"}),
        ("mvbench", {"tasks": "Action"}),
        ("mvbench", {"tasks": 3}),
        ("mvbench", {"fps": 0}),
        ("mvbench", {"max_frames": True}),
        ("mvbench", {"videos": ""}),
        ("mvbench", {"json": "a\0"}),
        ("mvbench", {"instruction": "a", "official_code": "b"}),
    ],
)
def test_wrong_options_are_refused_by_name(name, options):
    with pytest.raises(PixelReferError, match=next(iter(options))):
        get_benchmark(name).make_config(options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("pope", {"splits": "random"}),
        ("mvbench", {"tasks": ["Action Sequence", "Action Antonym", "Episodic Reasoning"]}),
    ],
)
def test_a_model_is_asked(tmp_path, pair, name, options):
    get_benchmark(name).tiny(tmp_path)
    questions = opened(name, tmp_path, **options)
    answers = ModelEngine(pair.model, pair.processor, max_new_tokens=3).answer(questions)
    scores = scored(name, questions, [answer.text for answer in answers])
    assert len(answers) == len(questions)
    assert 0 <= scores.figures[0].of() <= 1
