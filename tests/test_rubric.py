"""A judge with a rubric of the user's own, and how scores are read in what a judge says."""

import numpy as np
import pytest
from judged import DictJudge, answers_to, region_question

from pixelrefer_plugin.errors import EvaluationError, JudgeError
from pixelrefer_plugin.evaluation.judging.rubric import read_rubric_score, rubric_requests, rubric_scores
from pixelrefer_plugin.evaluation.judging.text import MOST_CHARACTERS, json_objects, read_number, read_score

READ = {
    "json": ('{"reason": "close", "score": 7}', 7),
    "json with a text": ('{"score": "7.5"}', 7.5),
    "json with a share": ('{"score": "7/10"}', 7),
    "json in a fence": ('Sure.\n```json\n{"score": 8, "reason": "a {brace} and 3 dogs"}\n```', 8),
    "other objects before": ('{"thought": 2} then {"Score": 9}', 9),
    "the last of several": ('Like {"score": 3}? No: {"score": 4}', 4),
    "json cut off": ('{"score": 6, "reason": "it is', 6),
    "a brace before": ("In {this} case score: 5", 5),
    "label": ("Score: 7", 7),
    "bold label": ("**Score:** 7/10\nGood.", 7),
    "label and scale": ("The score is 7 out of 10.", 7),
    "rating": ("Rating = 6.5", 6.5),
    "the same twice": ("score: 7 ... so, score 7", 7),
    "final of several": ("Colour score: 4. Shape score: 9. Overall score: 6", 6),
    "a share": ("I would say 8/10, since 2 details are missing.", 8),
    "out of": ("It gets 8 out of 10", 8),
    "number alone": (" 7.\n", 7),
    "bold number": ("**10**", 10),
    "zero": ("0", 0),
}
UNREAD = {
    "nothing": "",
    "blanks": " \n\t",
    "nonsense": "I cannot judge this.",
    "a number of things": "There are 3 dogs.",
    "html": "<!DOCTYPE html><html><head><title>502</title></head><body>Bad Gateway</body></html>",
    "null": '{"score": null}',
    "true": '{"score": true}',
    "list": '{"score": [7]}',
    "above": '{"score": 11}',
    "below": "score: -1",
    "words": "score: seven",
    "another scale": "Score: 4/5",
    "the scale repeated": "Give a score from 0 to 10",
    "a range": "score: 6-8",
    "a percentage": "score: 70%",
    "several that differ": "Colour score: 4. Shape score: 9.",
    "not a number": '{"score": NaN}',
    "many digits": "9" * 5000,
}


@pytest.mark.parametrize(("text", "expected"), READ.values(), ids=READ)
def test_scores_are_read(text, expected):
    assert read_rubric_score(text) == expected


@pytest.mark.parametrize("text", UNREAD.values(), ids=UNREAD)
def test_what_is_not_clear_is_not_guessed(text):
    assert read_rubric_score(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "{" * 10**6,
        '{"a":' * 10**6,
        "score: " * 10**5,
        "score" + " " * 10**5 + "x",
        "final " * 10**5,
        "1/" * 10**6,
        "7" + " " * 10**6 + "x",
        "9" * 10**6,
        '{"score": ' + "9" * 10**5,
        " " * 10**6,
    ],
    ids=["braces", "deep", "labels", "label", "finals", "shares", "number", "digits", "digits in json", "blanks"],
)
def test_very_long_answers_are_unread(text):
    assert read_score(text, most=10) is None


def test_a_score_before_very_much_text_is_read():
    assert read_score('{"score": 3}' + "x" * (2 * MOST_CHARACTERS), most=10) == 3


def test_json_objects_within_others_are_not_told_apart():
    assert json_objects('{"a": {"score": 1}} and {"b": 2}') == [{"a": {"score": 1}}, {"b": 2}]


def test_numbers_have_the_scale_that_is_asked():
    assert (read_number("4/5", most=5), read_number("4/5", most=10), read_number(85, most=100)) == (4, None, 85)


def test_a_request_holds_all_that_the_judge_needs():
    question = region_question("a", "What is <region>?", references=("a cup", "a mug"))
    (request,) = rubric_requests("Colours count.", [question], answers_to([question], ["a red cup"]), most=5)
    text = request.messages[-1]["content"]
    assert (request.id, request.part, request.options["temperature"]) == ("a", "rubric", 0)
    for each in ("Colours count.", "What is <region>?", "a cup", "a mug", "a red cup", "0 (worst) to 5 (best)"):
        assert each in text


def test_a_question_without_right_answers_is_judged_by_the_rubric_alone():
    question = region_question("a", "What is <region>?")
    (request,) = rubric_requests("Be brief.", [question], answers_to([question], [""]))
    assert "<right_answer>" not in request.messages[-1]["content"]


def test_the_figure_is_the_mean_of_what_could_be_read():
    questions = [region_question(id, "What is <region>?") for id in "abcd"]
    answers = answers_to(questions, ["one", "two", "three", "four"], failures={"d": "no picture"})
    judge = DictJudge({"a": '{"score": 4}', "b": "no idea", "c": "Score: 7"})
    scores = rubric_scores("Be right.", questions, answers, judge)
    (figure,) = scores.figures
    assert figure.of() == 5.5
    assert (figure.counted, figure.scale, figure.judge) == (2, 1.0, "dict")
    assert set(scores.unread) == {"b"}
    assert [request.id for request in judge.requests] == ["a", "b", "c"]
    assert "no idea" in scores.unread["b"]
    assert scores.details["a"] == '{"score": 4}'
    assert np.isnan(figure.of(np.array([1, 3])))
    assert figure.of(np.array([0, 0, 2])) == 5


@pytest.mark.parametrize(("rubric", "most", "told"), [(" \n", 10, "rubric is empty"), ("x", 0, "number > 0")])
def test_a_rubric_that_says_nothing_is_refused(rubric, most, told):
    with pytest.raises(EvaluationError, match=told):
        rubric_requests(rubric, [], [], most=most)


def test_without_a_judge_the_answers_are_missing():
    question = region_question("a", "What is <region>?")
    with pytest.raises(JudgeError, match="1 of 1"):
        rubric_scores("Be right.", [question], answers_to([question], ["a cup"]), DictJudge({}))
