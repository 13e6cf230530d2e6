"""Ref-L4 with detailed descriptions: its files, what the judge is asked, how CLAIR is read, and the figures."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from judged import DictJudge, answers_to, ask_tiny_model
from pixelrefer_refl4.clair import official_clair, read_clair
from pixelrefer_refl4.config import RefL4DetailedConfig
from pixelrefer_refl4.prompts import judge_prompt, judge_request, prompts

from pixelrefer_plugin import Region
from pixelrefer_plugin.errors import DataError, EvaluationError, JudgeError, PixelReferError
from pixelrefer_plugin.plugins import get_benchmark

GOLDEN = Path(__file__).parents[2] / "shared" / "evaluation" / "golden" / "judge_parsing.json"
SPEC = get_benchmark("ref_l4_detailed")


@pytest.fixture
def folder(tmp_path):
    SPEC.tiny(tmp_path)
    return tmp_path


def opened(folder, **options):
    return SPEC.open(SPEC.make_config(options), folder)


def edited(folder, change):
    """The folder with other records."""
    path = folder / "ref-l4-val.json"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    change(records)
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return folder


# -- the reading of a judge's answer -----------------------------------------------------------------------

# The answer, the default reading, and score and reason of the official one; None where there is no score.
READ = {
    "json": ('{"score": 85, "reason": "same object"}', 0.85, (0.85, "same object")),
    "json with a text": ('{"score": "85", "reason": "x"}', 0.85, (0.85, "x")),
    "no reason": ('{"score": 0}', 0, (0, "Unknown")),
    "hundred": ('{"score": 100}', 1, (1, "Unknown")),
    "below a hundredth or a share": ('{"score": 0.5}', None, (0.005, "Unknown")),
    "a bare share": ("0.85", None, (0.85, "Unknown")),
    "below": ('{"score": -5}', None, (-0.05, "Unknown")),
    "above": ('{"score": 150}', None, (1.5, "Unknown")),
    "a number": ("85", 0.85, (0.85, "Unknown")),
    "a bare negative number": ("-85", None, (0.85, "Unknown")),
    "per cent": ("Score: 85%", 0.85, (0.85, "Unknown")),
    "out of 100": ("I say 85/100, since 2 agree.", 0.85, (0.85, "Unknown")),
    "no score": ("no score", None, None),
    "nothing": ("", None, None),
    "null": ('{"score": null}', None, None),
    "null with a number": ('{"score": null, "reason": "2 dogs"}', None, (0.02, '" "2 dogs"}')),
    "a brace before": ('In {this} case {"score": 40}', 0.4, (0.4, "Unknown")),
    "a number in a brace before": ('{in 2 places} {"score": 40}', 0.4, (0.02, "Unknown")),
    "a brace in the reason": ('{"score": 85, "reason": "says {x} 10"}', 0.85, (0.85, '" "says {x} 10"}')),
    "a reason with a brace first": (
        '{"reason": "in {2} places", "score": 85}', 0.85, (0.02, '" "in {2} places", "score" 85}')
    ),
    "reason first": ('{"reason": "on 2 wheels", "score": 85}', 0.85, (0.85, "on 2 wheels")),
    "words": ("reason: there are 3 dogs; score 90", 0.9, (0.03, "there are 3 dogs; score 90")),
    "a fence": ('```json\n{"score": 70,\n "reason": "a"}\n```', 0.7, (0.7, "a")),
    "no digit before the dot": ('{"score":.85,}', None, (0.85, "Unknown")),
    "two objects": ('{"score": 30} or {"score": 60}', 0.6, (0.3, "Unknown")),
    "cut off": ('{"score": 64, "reason": "it', 0.64, (0.64, '" "it')),
    "true": ('{"score": true}', None, (0.01, "Unknown")),
    "html": ("<html><body>502</body></html>", None, (5.02, "Unknown")),
}  # fmt: skip


@pytest.mark.parametrize(("text", "read", "official"), READ.values(), ids=READ)
def test_both_readings(text, read, official):
    assert read_clair(text) == read
    found = official_clair(text)
    assert found == official or (found.score == pytest.approx(official[0]) and found.reason == official[1])


@pytest.mark.parametrize("text", ["{" * 10**6, '{"a":' * 10**5, "9" * 10**6, "no " * 10**6, "." * 10**6])
def test_very_long_answers_take_no_time(text):
    assert read_clair(text) is None
    official_clair(text)


def golden():
    if not GOLDEN.exists():
        pytest.skip("the golden numbers are not here")
    return json.loads(GOLDEN.read_text())["clair"]


def test_golden_scores():
    for item in golden()["items"]:
        said = item["judge_answer"] if isinstance(item["judge_answer"], list) else [item["judge_answer"]]
        found = next((read for text in said if text is not None and (read := official_clair(text))), None)
        score, reason = (0.0, "Parsing failure") if found is None else found
        assert score == pytest.approx(item["score"], abs=1e-12), item["judge_answer"]
        assert reason == item.get("reason", reason)
        assert (found is None) == (item["calls"] == 5)


def test_golden_scores_that_are_clear_are_read():
    for item in golden()["items"]:
        if isinstance(item["judge_answer"], str) and (read := read_clair(item["judge_answer"])) is not None:
            assert read == pytest.approx(item["score"]) or "reason: there are" in item["judge_answer"]


def test_golden_bullets():
    expected = golden()["prompt_for"]
    for reference, options, key in (
        (expected["Answer_str"], {"bullets": "characters"}, "reference_bullets_when_Answer_is_a_string"),
        ([expected["Answer_str"]], {}, "reference_bullets_when_Answer_is_a_list"),
    ):
        assert len(listed(expected["pred"], reference, **options)) == expected[key]


# -- questions and prompts ---------------------------------------------------------------------------------


def listed(pred, reference, **options):
    """The items of the list of references that the judge is shown."""
    config = RefL4DetailedConfig(**options)
    text = judge_request(config, judge_prompt(config), "0", pred, reference).messages[0]["content"]
    lines = [line.removeprefix("- ") for line in text.split("\n") if line.startswith("- ")]
    assert lines[0] == pred
    return lines[1:]


def test_references_are_listed():
    assert listed("a cup", ["a mug", "a {pred}"]) == ["a mug", "a {pred}"]
    assert listed("a {target_statements}", "a mug") == ["a mug"]
    assert listed("a cup", "mug", bullets="characters") == ["m", "u", "g"]
    assert listed("a cup", ["a mug"], bullets="characters") == ["a mug"]


def test_objects_of_objects365_are_asked_about(folder):
    questions = opened(folder)
    assert [question.id for question in questions] == ["0", "1", "2"]
    assert questions[0].references == ("A red car.", "A car with a white roof.")
    assert questions[2].references == ("A dog that lies still.",)
    assert questions[1].asked.paths == [str(folder / "images" / "objects365_v1_1.jpg")]
    assert questions[1].asked.media_hw == ((48, 64),)
    (region,) = questions[1].asked.regions
    assert region == Region.from_box((5, 4, 25, 34))


@pytest.mark.parametrize(
    ("bbox", "box"),
    [([-3.9, -2.0, 20.0, 10.0], (0, 0, 17, 8)), ([50.9, 40.9, 30.0, 30.0], (50, 40, 64, 48))],
    ids=["above and left", "below and right"],
)
def test_boxes_are_cut_as_by_the_official_code(folder, bbox, box):
    question = opened(edited(folder, lambda records: records[0].update(bbox=bbox)))[0]
    assert question.asked.regions[0] == Region.from_box(box)


@pytest.mark.parametrize(
    ("change", "told"),
    {
        "no box": (lambda records: records[1].pop("bbox"), r"line 2.*'bbox'.*\[x, y, width, height\]"),
        "a box of three": (lambda records: records[1].update(bbox=[1, 2, 3]), "line 2.*'bbox'"),
        "a box without pixels": (lambda records: records[1].update(bbox=[1, 2, 0.9, 3]), "line 2.*'bbox'"),
        "a box far away": (lambda records: records[1].update(bbox=[1e300, 2, 1, 3]), "line 2.*'bbox'"),
        "no caption": (lambda records: records[1].pop("caption"), "line 2.*'caption' must be a text or a list"),
        "no captions": (lambda records: records[1].update(caption=[]), "line 2.*'caption'"),
        "numbers as captions": (lambda records: records[1].update(caption=["a", 3]), "line 2.*'caption'"),
        "an empty caption": (lambda records: records[1].update(caption=" "), "line 2.*answer is empty"),
        "another size": (lambda records: records[1].update(height="x"), "line 2.*size"),
        "no object": (lambda records: records.insert(1, [1]), "line 2.*must be an object"),
        "none that counts": (lambda records: records.__delitem__(slice(0, 3)), "objects365"),
    }.values(),
)
def test_a_broken_record_is_named(folder, change, told):
    with pytest.raises(DataError, match=f"ref-l4-val.json.*{told}"):
        opened(edited(folder, change))


def test_a_missing_file_is_named_with_its_origin(tmp_path):
    with pytest.raises(DataError, match=r"ref-l4-val\.json.*CircleRadon/referring_evaluation"):
        opened(tmp_path)


@pytest.mark.parametrize("options", [{"bullets": "all"}, {"images": ""}, {"question": "What?"}], ids=str)
def test_options_are_checked(options):
    with pytest.raises(PixelReferError, match=next(iter(options))):
        SPEC.make_config(options)


def test_official_prompts_are_read_from_a_clone(tmp_path, monkeypatch):
    from pixelrefer_refl4 import prompts as module

    texts = {
        "QUESTION": (module._QUESTION_CODE, "Tell of <region>."),
        "JUDGE": (module._JUDGE_CODE, "A:\n{candidate_statements}\nB:\n{target_statements}\nSame? {not a field}"),
    }
    for name, (file, text) in texts.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(f"text = {text!r}\n")
        monkeypatch.setattr(module, f"_{name}_SHA256", hashlib.sha256(text.encode()).hexdigest())
    config = RefL4DetailedConfig(official_code=str(tmp_path))
    question, judge = prompts(config)
    assert (question.text, question.origin, judge.origin) == (
        "Tell of <region>.",
        *(file for file, _ in texts.values()),
    )
    request = judge_request(config, judge, "0", "a cup", ["a mug", "mug"])
    assert request.messages[0]["content"] == "A:\n- a cup\n\nB:\n- a mug\n- mug\n\nSame? {not a field}"
    assert request.options == {}
    with pytest.raises(DataError, match="infer_refl4_detail.py"):
        prompts(RefL4DetailedConfig(official_code=str(tmp_path / "elsewhere")))


# -- scores ------------------------------------------------------------------------------------------------


def judged(folder, said, **options):
    questions = opened(folder, **options)
    answers = answers_to(questions, ["a car", "", "a dog"])
    judge = DictJudge(said)
    return SPEC.score(SPEC.make_config(options), questions, answers, judge), judge


def test_both_readings_are_figures(folder):
    scores, _ = judged(folder, {"0": '{"score": 80}', "1": "none", "2": '{"score": 0.5}'})
    read, official = scores.figures
    assert (read.name, read.reading, read.scale, read.judge) == ("clair", "", 100.0, "dict")
    assert (official.name, official.reading) == ("clair", "official")
    assert (read.of(), read.counted) == (0.8, 1)
    assert official.of() == pytest.approx((0.8 + 0 + 0.005) / 3)
    assert set(scores.unread) == {"1", "2"}
    assert np.isnan(read.of(np.array([1, 2])))
    assert official.of(np.array([0, 0, 1])) == pytest.approx(1.6 / 3)
    assert "2 answers of the judge have no clear score" in scores.notes[0]


@pytest.mark.parametrize("said", ["", "<html>no</html>", "\0\ud83d", '{"score": Infinity}', '{"score": NaN}'])
def test_a_judge_may_say_anything(folder, said):
    scores, _ = judged(folder, dict.fromkeys("012", said))
    assert scores.figures[0].counted == 0
    assert set(scores.unread) == {"0", "1", "2"}
    assert not np.isinf(scores.figures[1].values).any()


def test_characters_as_references_are_told(folder):
    scores, judge = judged(folder, dict.fromkeys("012", "80"), bullets="characters")
    assert "character by character" in scores.notes[-1]
    assert "- d\n- o\n- g\n" in judge.requests[2].messages[0]["content"]
    assert "- A red car.\n" in judge.requests[0].messages[0]["content"]
    assert not judged(folder, dict.fromkeys("012", "80"))[0].notes


def test_questions_that_could_not_be_asked_are_not_judged(folder):
    questions = opened(folder)
    answers = answers_to(questions, ["a car", "", "a dog"], failures={"1": "the picture is broken"})
    judge = DictJudge(dict.fromkeys("02", "80"))
    scores = SPEC.score(RefL4DetailedConfig(), questions, answers, judge)
    assert [request.id for request in judge.requests] == ["0", "2"]
    assert [figure.counted for figure in scores.figures] == [2, 2]


def test_without_a_judge_its_answers_are_missing(folder):
    with pytest.raises(JudgeError, match="3 of 3"):
        judged(folder, {})


# -- files of others ---------------------------------------------------------------------------------------


def predictions(folder):
    return [
        {"image": each.facts["image"], "Answer": each.facts["caption"], "pred": f"answer {each.id}"}
        for each in opened(folder)
    ]


def written(folder, lines):
    path = folder / "theirs.json"
    path.write_text(json.dumps(lines))
    return path


def test_official_predictions_are_matched_by_picture_and_references(folder):
    path = written(folder, predictions(folder)[::-1])
    answers = list(SPEC.answer_formats["pixelrefer"](RefL4DetailedConfig(), path, opened(folder)))
    assert [(answer.id, answer.text) for answer in answers] == [(id, f"answer {id}") for id in "210"]


def test_the_sum_of_the_parts_beside_the_parts_is_refused(folder):
    path = written(folder, predictions(folder) * 2)
    with pytest.raises(EvaluationError, match="record 4 is one too many.*their sum"):
        list(SPEC.answer_formats["pixelrefer"](RefL4DetailedConfig(), path, opened(folder)))


def test_official_scores_are_imported(folder):
    scores = [(0.85, "same {place}"), (0.0, "Parsing failure"), (0.57, "x")]
    lines = [line | {"score": s, "reason": r} for line, (s, r) in zip(predictions(folder), scores, strict=True)]
    questions, config, path = opened(folder), RefL4DetailedConfig(), written(folder, lines)
    answers = list(SPEC.answer_formats["pixelrefer"](config, path, questions))
    found = list(SPEC.judged_formats["clair"](config, path, questions, answers))
    said = {request.id: text for request, text in found}
    assert [read_clair(text) for text in said.values()] == [0.85, None, 0.57]
    judge = DictJudge(said)
    result = SPEC.score(config, questions, answers, judge)
    assert [request.messages for request in judge.requests] == [request.messages for request, _ in found]
    assert result.figures[1].values == pytest.approx([0.85, 0, 0.57])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"pred": "else"}, "asked about 'else'.*another model"),
        ({"score": "high"}, "'score' must be a number"),
        ({"image": "x.jpg"}, "about no question"),
    ],
)
def test_official_scores_that_do_not_fit_are_named(folder, change, told):
    lines = [line | {"score": 0.5, "reason": ""} for line in predictions(folder)]
    questions = opened(folder)
    answers = answers_to(questions, [line["pred"] for line in lines])
    lines[1] |= change
    with pytest.raises(EvaluationError, match=f"record 2.*{told}"):
        list(SPEC.judged_formats["clair"](RefL4DetailedConfig(), written(folder, lines), questions, answers))


# -- whole runs --------------------------------------------------------------------------------------------


def test_a_whole_run_with_a_tiny_model(folder):
    questions = opened(folder)
    answers = ask_tiny_model(questions)
    judge = DictJudge({}, otherwise='{"score": 42, "reason": "well"}')
    scores = SPEC.score(RefL4DetailedConfig(), questions, answers, judge)
    assert scores.figures[0].of() == pytest.approx(0.42)
    assert len({request.messages[0]["content"] for request in judge.requests}) == 3
