"""VideoRefer-Bench-D: its files, what is shown and asked, how a judge's answer is read, and the figures."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from judged import DictJudge, answers_to, ask_tiny_model
from pixelrefer_videorefer_d.config import VideoReferDConfig
from pixelrefer_videorefer_d.dimensions import (
    DIMENSIONS,
    REPOSITORIES,
    official_dimensions,
    official_summary,
    read_dimensions,
)
from pixelrefer_videorefer_d.prompts import QUESTION, judge_request, prompts

from pixelrefer_plugin.errors import DataError, EvaluationError, JudgeError, PixelReferError
from pixelrefer_plugin.plugins import get_benchmark

GOLDEN = Path(__file__).parents[2] / "shared" / "evaluation" / "golden"
SPEC = get_benchmark("videorefer_d")
RIGHT = dict(zip(DIMENSIONS, (5.0, 4.0, 3.0, 2.0), strict=True))
PLAIN = "\n".join(f"{number}. {name}: {value:g}" for number, (name, value) in enumerate(RIGHT.items(), 1))


@pytest.fixture
def folder(tmp_path):
    SPEC.tiny(tmp_path)
    return tmp_path


def opened(folder, **options):
    return SPEC.open(SPEC.make_config(options), folder)


def edited(folder, change):
    """The folder with other records."""
    path = folder / "VideoRefer-Bench-D.json"
    records = json.loads(path.read_text())
    change(records)
    path.write_text(json.dumps(records))
    return folder


# -- the reading of a judge's answer -----------------------------------------------------------------------

SAME = {
    "plain": PLAIN,
    "explained": PLAIN.replace("\n", "\nExplanation: 2 of 3 fit.\n"),
    "bold": PLAIN.replace("Subject Correspondence", "**Subject Correspondence**"),
    "bold with the colon": "\n".join(f"**{name}:** {value:g}" for name, value in RIGHT.items()),
    "bold scores": "\n".join(f"- {name}: **{value:g}**" for name, value in RIGHT.items()),
    "no numbers": "\n".join(f"{name}: {value:g}" for name, value in RIGHT.items()),
    "bracketed numbers": PLAIN.replace(". ", ") "),
    "lower case": PLAIN.lower(),
    "initials behind": "\n".join(
        f"1. {name} ({name[0]}{name.split()[1][0]}): {value:g}" for name, value in RIGHT.items()
    ),
    "initials alone": "SC: 5\nAD: 4, TD: 3, HD: 2",
    "initials in brackets": "(SC) 5 (AD) 4 (TD) 3 (HD) 2",
    "no blank": PLAIN.replace(": ", ":"),
    "a blank before the colon": PLAIN.replace(":", " :"),
    "shares": PLAIN.replace("\n", "/5\n") + "/5",
    "out of": PLAIN.replace("\n", " out of 5\n"),
    "full stops": PLAIN.replace("\n", ".\n") + ".",
    "dashes": PLAIN.replace(":", " -"),
    "headings": PLAIN.replace("1.", "### 1.").replace("2.", "### 2."),
    "a score line": PLAIN.replace(": ", "\n- Score: "),
    "the scale": PLAIN.replace(":", " (0-5):"),
    "brackets": "\n".join(f"{name} ({value:g}/5)" for name, value in RIGHT.items()),
    "table": "| Dimension | Score |\n|---|---|\n" + "\n".join(f"| {n} | {v:g} |" for n, v in RIGHT.items()),
    "json": json.dumps(RIGHT),
    "json in a fence": f"```json\n{json.dumps(RIGHT)}\n```\nDone.",
    "json of texts": json.dumps({name: f"{value:g}/5" for name, value in RIGHT.items()}),
    "json keys": json.dumps({name.lower().replace(" ", "_"): value for name, value in RIGHT.items()}),
    "json within": json.dumps({"scores": {n: {"score": v, "reason": "1 fits"} for n, v in RIGHT.items()}}),
    "json list": json.dumps([{"dimension": n, "score": v} for n, v in RIGHT.items()]),
    "the later one counts": f"1. Subject Correspondence: 1\n{PLAIN}",
}


@pytest.mark.parametrize("text", SAME.values(), ids=SAME)
def test_a_judge_is_understood(text):
    assert read_dimensions(text) == RIGHT


PARTLY = {
    "words": ("1. Subject Correspondence: five\n2. Appearance Description: 4", {"Appearance Description": 4}),
    "above": ("Subject Correspondence: 7\nTemporal Description: 5", {"Temporal Description": 5}),
    "below": ("Subject Correspondence: -1", {}),
    "another scale": ("Subject Correspondence: 8/10", {}),
    "a range": ("Subject Correspondence: 4-5", {}),
    "percent": ("Subject Correspondence: 4%", {}),
    "null": ('{"Subject Correspondence": null, "HD": 1}', {"Hallucination Detection": 1}),
    "true": ('{"Subject Correspondence": true}', {}),
    "many digits": ("Subject Correspondence: " + "9" * 5000, {}),
    "halves": ("Subject Correspondence: 3.5", {"Subject Correspondence": 3.5}),
    "nothing": ("", {}),
    "html": ("<html><body>502 Bad Gateway 1. 5</body></html>", {}),
    "no judgement": ("I cannot judge this.", {}),
}


@pytest.mark.parametrize(("text", "expected"), PARTLY.values(), ids=PARTLY)
def test_what_is_no_score_from_0_to_5_is_left_out(text, expected):
    assert read_dimensions(text) == expected


LONG = {
    "items": "1. " * 10**5,
    "digits": "1" * 10**6,
    "blanks": "1. " + " " * 10**6,
    "colons": "1. a" + ": " * 10**5,
    "names": "Subject Correspondence" * 10**4,
    "blanks behind a name": "Subject Correspondence" + " " * 10**6 + "x",
    "braces": "{" * 10**6,
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_very_long_answers_take_no_time(text):
    assert read_dimensions(text) == {}
    assert official_dimensions(text).scores == {}


OFFICIAL = {
    "plain": (PLAIN, RIGHT, ()),
    "7 is taken": ("1. Subject Correspondence: 7", {"Subject Correspondence": 7}, ()),
    "the later one counts": (
        "1. Subject Correspondence: 5\n9. Subject Correspondence: 1",
        {"Subject Correspondence": 1},
        (),
    ),
    "bold": ("1. **Subject Correspondence**: 4", {}, ("**Subject Correspondence**",)),
    "bracketed number": ("1) Subject Correspondence: 4", {}, ()),
    "initials": ("1. Subject Correspondence (SC): 4", {}, ("Subject Correspondence (SC)",)),
    "no blank behind the colon": ("1. Subject Correspondence:4", {}, ()),
    "score on the next line": ("1. Subject Correspondence:\n4", {"Subject Correspondence": 4}, ()),
    "name on the next line": ("1.\nSubject Correspondence: 4", {"Subject Correspondence": 4}, ()),
    "name on two lines": ("1. Subject\nCorrespondence: 4", {}, ()),
    "a number before": ("21. Subject Correspondence: 4", {"Subject Correspondence": 4}, ()),
    "a colon before": ("1. Note: Subject Correspondence: 4", {}, ("Note: Subject Correspondence",)),
    "another item on the line": (
        "1. x 2. Subject Correspondence: 4 3. Temporal Description: 2",
        {"Temporal Description": 2},
        ("x 2. Subject Correspondence",),
    ),
    "a dot behind the score": ("1. Subject Correspondence: 5. 2. HD: 1", {"Subject Correspondence": 5}, ("HD",)),
    "its dot is no item": ("1. Subject Correspondence: 5. HD: 1", {"Subject Correspondence": 5}, ()),
}


@pytest.mark.parametrize(("text", "scores", "others"), OFFICIAL.values(), ids=OFFICIAL)
def test_the_official_scripts_read_it_in_their_way(text, scores, others):
    reading = official_dimensions(text)
    assert (reading.scores, reading.other_keys, reading.failed, reading.kept) == (scores, others, False, True)


@pytest.mark.parametrize("text", [None, "1. Subject Correspondence: 5..", f"{PLAIN}\n5. Sum: ..."])
def test_the_official_scripts_give_up_what_has_no_number(text):
    for repository in REPOSITORIES:
        reading = official_dimensions(text, repository)
        assert reading.failed
        assert (reading.scores, reading.kept) == ({}, repository == "pixelrefer")


def test_an_unknown_repository_is_refused():
    with pytest.raises(EvaluationError, match="one of pixelrefer, videorefer, unipixel, got 'gar'"):
        official_dimensions(PLAIN, "gar")


def test_the_official_average_is_of_the_dimensions():
    readings = [official_dimensions(text) for text in (PLAIN, "1. Subject Correspondence: 1", None)]
    assert official_summary(readings) == {
        "Subject Correspondence": 3,
        "Appearance Description": 4,
        "Temporal Description": 3,
        "Hallucination Detection": 2,
        "all": 3,
    }


def test_the_official_average_of_nothing_is_refused():
    with pytest.raises(EvaluationError, match="no score for Appearance Description in 1 answers.*divides by zero"):
        official_summary([official_dimensions("1. Subject Correspondence: 1")])


# -- golden numbers ----------------------------------------------------------------------------------------


def golden(name):
    path = GOLDEN / name
    if not path.exists():
        pytest.skip(f"{name} is not here")
    return json.loads(path.read_text())


@pytest.mark.parametrize("repository", REPOSITORIES)
def test_golden_readings(repository):
    for item in golden("videorefer_bench_d.json")["items"]:
        reading, expected = official_dimensions(item["judge_answer"], repository), item[repository]
        assert reading.scores == expected["scores"], item["judge_answer"]
        assert list(reading.other_keys) == expected["other_keys"]
        assert (int(reading.kept), reading.failed) == (expected["kept"], bool(expected["errors"]))


def test_golden_answers_are_understood_where_they_can_be():
    items = [item for item in golden("videorefer_bench_d.json")["items"] if item["judge_answer"] is not None]
    assert all(read_dimensions(item["judge_answer"]).items() >= item["pixelrefer"]["scores"].items() for item in items)


# -- questions ---------------------------------------------------------------------------------------------


def test_one_mask_and_a_frame_per_second(folder):
    questions = opened(folder)
    assert [question.id for question in questions] == ["0", "1", "2"]
    question = questions[1]
    (part,) = question.asked.media("video")
    assert part["video"] == str(folder / "Panda-70M-part" / "yard.mp4")
    assert (part["fps"], part["max_frames"]) == (1.0, 768)
    assert list(question.asked.regions[0].frames) == [5]
    assert (question.text, question.references) == (QUESTION, ("A grey lamp swings slowly.",))


def test_all_masks_and_only_their_frames(folder):
    (part,) = opened(folder, masks="all")[0].asked.media("video")
    assert (part["nframes"], part["max_frames"]) == (3, 3)
    assert list(opened(folder, masks="all")[0].asked.regions[0].frames) == [2, 5, 7]


def test_frames_without_a_mask_are_passed_over(folder):
    def change(records):
        records[0]["annotation"][0]["2"]["segmentation"] = {"size": [48, 64], "counts": [48 * 64]}

    question = opened(edited(folder, change), masks="all")[0]
    assert list(question.asked.regions[0].frames) == [5, 7]
    assert question.asked.media("video")[0]["nframes"] == 2


@pytest.mark.parametrize(
    ("change", "told"),
    {
        "no frame": (lambda records: records[1].pop("frame_idx"), "record 2, sample '1'.*no mask on frame None"),
        "another frame": (lambda records: records[1].update(frame_idx="3"), "no mask on frame '3'"),
        "no annotation": (lambda records: records[1].pop("annotation"), "'annotation' must be a list"),
        "two objects": (lambda records: records[1]["annotation"].append({}), "object 1"),
        "no caption": (lambda records: records[1].pop("caption"), "sample '1'"),
        "no video": (lambda records: records[1].pop("video"), "sample '1'"),
        "a broken mask": (
            lambda records: records[1]["annotation"][0]["5"].update(segmentation={"size": [4, 4], "counts": "?"}),
            "sample '1'.*object 0",
        ),
        "no object": (lambda records: records.insert(1, "x"), "record 2"),
        "no frames": (lambda records: records[1].update(annotation=[[]]), "frame indices"),
    }.values(),
)
def test_a_broken_record_is_named(folder, change, told):
    with pytest.raises(DataError, match=f"VideoRefer-Bench-D.json.*{told}"):
        opened(edited(folder, change))


def test_a_number_as_frame_is_taken(folder):
    assert opened(edited(folder, lambda records: records[0].update(frame_idx=5)))[0].asked.regions


def test_a_missing_file_is_named_with_its_origin(tmp_path):
    with pytest.raises(DataError, match=r"VideoRefer-Bench-D\.json.*huggingface.co/datasets/DAMO-NLP-SG"):
        opened(tmp_path)


@pytest.mark.parametrize(
    "options",
    [{"masks": "two"}, {"fps": 0}, {"max_frames": 0}, {"question": "What?"}, {"videos": ""}, {"official_code": 3}],
    ids=str,
)
def test_options_are_checked(options):
    with pytest.raises(PixelReferError, match=next(iter(options))):
        SPEC.make_config(options)


# -- prompts -----------------------------------------------------------------------------------------------


def test_prompts_are_our_own_words_unless_a_clone_is_named():
    assert {prompt.origin for prompt in SPEC.prompts(VideoReferDConfig())} == {"own words"}
    assert SPEC.prompts(VideoReferDConfig(question="Is it <region>?"))[0].origin == "option question"


def test_the_judge_sees_both_descriptions_as_they_are():
    config = VideoReferDConfig()
    request = judge_request(config, prompts(config), "7", "a {pred} \\1", "a {answer}\0")
    assert "a {pred} \\1\n" in request.messages[1]["content"]
    assert "a {answer}\0\n" in request.messages[1]["content"]
    assert all(name in request.messages[0]["content"] for name in DIMENSIONS)
    assert request.options == {"temperature": 0.0}


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A folder like the official repository, with texts of our own and their hashes."""
    from pixelrefer_videorefer_d import prompts as module

    folder = tmp_path / "clone"
    system, labels = "Rate.\\nThis\xa0one.", ("Truth - ", "Said - ")
    files = {
        module._OFFICIAL_SYSTEM[0]: system,
        module._JUDGE_CODE: f"a = {labels[0]!r} + 'x'\nb = {labels[1]!r}\n",
        module._QUESTIONS["one"][0]: "q = '<video>\\nTell of <region>.'\n",
        module._QUESTIONS["all"][0]: "q = 'It is <region>. Tell.'\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(module, "_OFFICIAL_SYSTEM", (module._OFFICIAL_SYSTEM[0], sha256(system)))
    monkeypatch.setattr(module, "_LABELS", tuple(map(sha256, labels)))
    texts = {"one": "<video>\nTell of <region>.", "all": "It is <region>. Tell."}
    hashes = {masks: (file, sha256(texts[masks])) for masks, (file, _) in module._QUESTIONS.items()}
    monkeypatch.setattr(module, "_QUESTIONS", hashes)
    return folder


def test_official_prompts_are_read_from_a_clone(clone):
    config = VideoReferDConfig(official_code=str(clone))
    question, system, user = prompts(config)
    assert (question.text, system.text) == ("Tell of <region>.", "Rate.\\nThis\xa0one.")
    assert all(each.origin.startswith("PixelRefer/evaluation/") for each in (question, system, user))
    request = judge_request(config, [question, system, user], "0", "a cup", "a mug")
    assert request.messages[1]["content"] == [{"type": "text", "text": "Truth - a cup\nSaid - a mug\n"}]
    assert request.options == {}
    assert prompts(VideoReferDConfig(official_code=str(clone), masks="all"))[0].text == "It is <region>. Tell."


def test_a_changed_clone_is_refused(clone):
    (clone / "PixelRefer/evaluation/videorefer_bench_d/system.txt").write_text("Rate kindly.")
    with pytest.raises(DataError, match="system.txt"):
        prompts(VideoReferDConfig(official_code=str(clone)))


# -- scores ------------------------------------------------------------------------------------------------


def judged(folder, said, **options):
    questions = opened(folder, **options)
    answers = answers_to(questions, ["a car", "", "a dog"])
    judge = DictJudge(said)
    return SPEC.score(SPEC.make_config(options), questions, answers, judge), judge


def figures(scores, reading=""):
    return {figure.name: figure for figure in scores.figures if figure.reading == reading}


def test_each_dimension_counts_what_has_a_score(folder):
    scores, judge = judged(folder, {"0": PLAIN, "1": "1. **Subject Correspondence**: 1", "2": "SC 3, HD: 4"})
    found = figures(scores)
    assert scores.figures[0].name == "average"
    assert found["subject_correspondence"].of() == 3
    assert found["hallucination_detection"].of() == 3
    assert [found[name].counted for name in found] == [3, 3, 1, 1, 2]
    assert found["average"].of() == (3 + 4 + 3 + 3) / 4
    assert {figure.scale for figure in scores.figures} == {1.0}
    assert {figure.judge for figure in scores.figures} == {"dict"}
    official = figures(scores, "official")
    assert official["average"].of() == (5 + 4 + 3 + 2) / 4
    assert official["subject_correspondence"].counted == 1
    assert set(scores.unread) == {"1", "2"}
    assert "Temporal Description" in scores.unread["2"]
    assert any("Subject Correspondence 3, Appearance Description 1" in note for note in scores.notes)
    assert any("1 names that are no dimension, such as '**Subject" in note for note in scores.notes)
    assert len(judge.requests) == 3


def test_figures_are_right_for_some_of_the_questions(folder):
    scores, _ = judged(folder, {"0": PLAIN, "1": PLAIN.replace("5", "1"), "2": "SC: 3"})
    average = figures(scores)["average"]
    assert average.of(np.array([1, 1, 0])) == ((1 + 1 + 5) / 3 + 4 + 3 + 2) / 4
    assert np.isnan(average.of(np.array([2])))
    assert average.values.tolist() == [3.5, 2.5, 3.0]


@pytest.mark.parametrize("said", ["", "<html>502</html>", "9" * 100_000, "\0\ud83d", "1. Subject Correspondence: 5.."])
def test_a_judge_may_say_anything(folder, said):
    scores, _ = judged(folder, dict.fromkeys("012", said))
    assert np.isnan(scores.figures[0].of())
    assert set(scores.unread) == {"0", "1", "2"}
    assert not figures(scores, "official")
    assert any("divides by zero" in note for note in scores.notes)
    assert all(len(text) < 500 for text in (*scores.unread.values(), *scores.details.values()))


def test_questions_that_could_not_be_asked_are_not_judged(folder):
    questions = opened(folder)
    answers = answers_to(questions, ["a car", "", "a dog"], failures={"1": "the video is broken"})
    judge = DictJudge(dict.fromkeys("02", PLAIN))
    scores = SPEC.score(VideoReferDConfig(), questions, answers, judge)
    assert [request.id for request in judge.requests] == ["0", "2"]
    assert scores.figures[0].counted == 2


def test_without_a_judge_its_answers_are_missing(folder):
    with pytest.raises(JudgeError, match="3 of 3"):
        judged(folder, {})


def test_published_figures_name_their_judge():
    assert all(figure.judge and figure.source for figure in SPEC.published)
    by_row = {(figure.model, figure.figure): figure.value for figure in SPEC.published}
    rows = {model for model, name in by_row if name == "average"}
    for model in rows - {"PixelRefer-Lite-2B, several masks"}:  # printed as 3.53, where its dimensions have 3.5425
        four = [by_row[model, name.lower().replace(" ", "_")] for name in DIMENSIONS]
        assert abs(sum(four) / 4 - by_row[model, "average"]) < 0.0076, model


# -- files of others ---------------------------------------------------------------------------------------


def written(folder, lines):
    path = folder / "theirs.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def predictions(folder):
    return [
        {"video": question.facts["video"], "Answer": question.expected, "pred": f"answer {question.id}"}
        for question in opened(folder)
    ]


def test_official_predictions_are_matched_by_video_and_reference(folder):
    path = written(folder, predictions(folder)[::-1])
    answers = list(SPEC.answer_formats["videorefer"](VideoReferDConfig(), path, opened(folder)))
    assert [(answer.id, answer.text) for answer in answers] == [(id, f"answer {id}") for id in "210"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda lines: lines[0].update(video="other.mp4"), "line 1 is about no question.*other.mp4"),
        (lambda lines: lines.append(lines[0]), "line 4 is one too many"),
        (lambda lines: lines[1].pop("pred"), "line 2: 'pred' must be a text"),
        (lambda lines: lines.insert(0, 3), "line 1 must be an object"),
    ],
)
def test_predictions_that_do_not_fit_are_named(folder, change, told):
    lines = predictions(folder)
    change(lines)
    path = written(folder, lines)
    with pytest.raises(EvaluationError, match=told):
        list(SPEC.answer_formats["videorefer"](VideoReferDConfig(), path, opened(folder)))


def test_judges_answers_are_imported(folder):
    lines = [line | {"gpt": PLAIN} for line in predictions(folder)]
    lines[1]["gpt"] = None
    questions, config = opened(folder), VideoReferDConfig()
    path = written(folder, lines)
    answers = list(SPEC.answer_formats["videorefer"](config, path, questions))
    found = list(SPEC.judged_formats["videorefer"](config, path, questions, answers))
    assert [(request.id, text) for request, text in found] == [("0", PLAIN), ("2", PLAIN)]
    judge = DictJudge({}, otherwise=PLAIN)
    SPEC.score(config, questions, answers, judge)
    assert [judge.requests[0].messages, judge.requests[2].messages] == [request.messages for request, _ in found]


def test_judges_answers_about_other_answers_are_refused(folder):
    path = written(folder, [line | {"gpt": PLAIN} for line in predictions(folder)])
    questions = opened(folder)
    with pytest.raises(EvaluationError, match="line 1: the judge was asked about 'answer 0'.*another model"):
        list(SPEC.judged_formats["videorefer"](VideoReferDConfig(), path, questions, answers_to(questions, "abc")))


# -- whole runs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("masks", ["one", "all"])
def test_a_whole_run_with_a_tiny_model(folder, masks):
    questions = opened(folder, masks=masks)
    answers = ask_tiny_model(questions)
    judge = DictJudge({}, otherwise=PLAIN)
    scores = SPEC.score(SPEC.make_config({"masks": masks}), questions, answers, judge)
    assert scores.figures[0].of() == 3.5
    for answer, request in zip(answers, judge.requests, strict=True):
        assert answer.text in request.messages[1]["content"]
    assert not scores.unread


def test_a_missing_video_is_named(folder):
    shutil.rmtree(folder / "Panda-70M-part")
    with pytest.raises(PixelReferError, match=r"street\.mp4"):
        ask_tiny_model(opened(folder)[:1])


def test_a_number_beyond_all_measure_leaves_the_official_figures_out(folder):
    said = PLAIN.replace("Correspondence: 5", f"Correspondence: {'9' * 400}")
    scores, _ = judged(folder, {"0": said, "1": PLAIN, "2": PLAIN})
    assert not figures(scores, "official")
    assert any("reads 1 scores above 1e+100" in note for note in scores.notes)
    assert set(scores.unread) == {"0"}
