"""Ferret-Bench: its files side by side, what the judge sees, how reviews are read, and the quotient."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from judged import DictJudge, answers_to, ask_tiny_model
from pixelrefer_ferret.config import FerretConfig
from pixelrefer_ferret.pairs import FAILED, READERS, official_pair, quotient, read_pair
from pixelrefer_ferret.prompts import judge_request, prompts, shown_answers, without_brackets

from pixelrefer_plugin.errors import DataError, EvaluationError, JudgeError, PixelReferError
from pixelrefer_plugin.evaluation.judging import Judge, ScoringTools
from pixelrefer_plugin.evaluation.scoring.measuring import JudgedFile, Scorer
from pixelrefer_plugin.evaluation.scoring.opening import OpenBenchmark
from pixelrefer_plugin.plugins import get_benchmark

GOLDEN = Path(__file__).parents[2] / "shared" / "evaluation" / "golden" / "judge_parsing.json"
SPEC = get_benchmark("ferret_reasoning")


@pytest.fixture
def folder(tmp_path):
    SPEC.tiny(tmp_path)
    return tmp_path


def opened(folder, **options):
    return SPEC.open(SPEC.make_config(options), folder)


def edited(folder, name, change):
    """The folder with other records in one of its files."""
    path = folder / name
    text = path.read_text()
    records = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]
    change(records)
    path.write_text(json.dumps(records) if text.startswith("[") else "".join(f"{json.dumps(r)}\n" for r in records))
    return folder


# -- the reading of a review -------------------------------------------------------------------------------

# The review, the default reading, and those of PixelRefer's and Osprey's and of GAR's scripts.
READ = {
    "plain": ("8 9\nReason", (8, 9), (8, 9), (8, 9)),
    "comma": ("8,9\nReason", (8, 9), (8, 9), (8, 9)),
    "comma and blank": ("8, 9", (8, 9), FAILED, FAILED),
    "two blanks": ("8  9", (8, 9), FAILED, FAILED),
    "a blank behind": ("8 9 ", (8, 9), FAILED, (8, 9)),
    "a blank before": (" 8 9", (8, 9), FAILED, FAILED),
    "an empty line before": ("\n8 9", (8, 9), FAILED, FAILED),
    "tab": ("8\t9", (8, 9), FAILED, FAILED),
    "halves": ("8.5 9.0", (8.5, 9), (8.5, 9), (8.5, 9)),
    "and": ("8 and 9", (8, 9), FAILED, FAILED),
    "shares": ("8/10 9/10\nReason", (8, 9), FAILED, FAILED),
    "bold": ("**8 9**", (8, 9), FAILED, FAILED),
    "brackets": ("[8, 9]", (8, 9), FAILED, FAILED),
    "scores": ("Scores: 8 9", (8, 9), FAILED, FAILED),
    "words behind": ("8 9 since the first is short", (8, 9), FAILED, (8, 9)),
    "names": ("Assistant 1: 8, Assistant 2: 9", (8, 9), FAILED, FAILED),
    "names on two lines": ("Assistant 1: 8/10\nAssistant 2: **9**\nReason", (8, 9), FAILED, FAILED),
    "names with scores": ("Answer 1 score: 8; answer 2 score: 9", (8, 9), FAILED, FAILED),
    "json": ('{"assistant_1": 8, "assistant_2": 9, "reason": "1 of 2"}', (8, 9), FAILED, FAILED),
    "three numbers": ("8, 9.5, 7", None, FAILED, FAILED),
    "three plain numbers": ("8 9 7", None, FAILED, (8, 9)),
    "one number": ("8", None, FAILED, FAILED),
    "one name": ("Assistant 1: 8", None, FAILED, FAILED),
    "above": ("11 9", None, (11, 9), (11, 9)),
    "below": ("-1 9", None, (-1, 9), (-1, 9)),
    "another scale": ("80/100 90/100", None, FAILED, FAILED),
    "words": ("eight nine", None, FAILED, FAILED),
    "nothing": ("", None, FAILED, FAILED),
    "html": ("<html>502 Bad Gateway</html>", None, FAILED, FAILED),
    "numbers in prose": ("There are 2 dogs and 3 cats.", None, FAILED, FAILED),
}


@pytest.mark.parametrize(("review", "read", "strict", "gar"), READ.values(), ids=READ)
def test_all_readings(review, read, strict, gar):
    assert read_pair(review) == read
    assert official_pair(review, "pixelrefer") == strict
    assert official_pair(review, "gar") == gar


@pytest.mark.parametrize(
    "review", ["{" * 10**6, "9" * 10**6, " " * 10**6, "8" + " " * 10**6, "assistant 1" * 10**5, "1," * 10**6]
)
def test_very_long_reviews_take_no_time(review):
    assert read_pair(review) is None
    assert {official_pair(review, reader) for reader in READERS} <= {FAILED, (1.0, 1.0)}


def test_very_much_text_behind_the_scores_is_passed_over():
    assert read_pair("8 9\n" + "x" * 10**6) == (8, 9)


def test_the_quotient_is_rounded_as_in_the_official_scripts():
    pairs = np.array([[7, 8], [6, 9], [8, 7]], dtype=float)
    assert quotient(pairs, "model_first") == round(7 / 8 * 100, 1)
    assert quotient(pairs, "reference_first") == round(8 / 7 * 100, 1)
    assert quotient(np.array([[1, 3], [1, 3], [2, 4]], dtype=float), "model_first") == round(1.333 / 3.333 * 100, 1)


def test_a_quotient_of_nothing():
    assert np.isnan(quotient(np.array([[3.0, 0.0]]), "model_first"))
    assert np.isnan(quotient(np.array([[np.inf, 1.0]]), "model_first"))
    with pytest.raises(EvaluationError, match="no reviews"):
        quotient(np.empty((0, 2)), "model_first")


def golden():
    if not GOLDEN.exists():
        pytest.skip("the golden numbers are not here")
    return json.loads(GOLDEN.read_text())["ferret"]


def test_golden_readings():
    for item in golden()["parse"]:
        for reader, key in (("pixelrefer", "pixelrefer_osprey"), ("gar", "gar_ferret")):
            assert list(official_pair(item["judge_answer"], reader)) == item[key], (reader, item["judge_answer"])


def test_golden_brackets():
    for item in golden()["postprocess"]:
        for category in ("refer_reason", "reason"):
            assert without_brackets(item["text"], category) == item[category]


def test_golden_summaries():
    summary = golden()["summary"]
    pairs = np.array(summary["tuples"], dtype=float)
    read = pairs[(pairs != FAILED).any(axis=1)]
    for found, key in (
        (quotient(pairs, "model_first"), "pixelrefer_printed"),
        (quotient(read, "model_first"), "pixelrefer_printed_without_failed"),
        (quotient(pairs, "reference_first"), "gar_printed"),
    ):
        assert f"all {found}" == summary[key][1]


# -- questions ---------------------------------------------------------------------------------------------


def test_files_are_matched_by_id_whatever_their_order(folder):
    edited(folder, "refer_reason/answer.jsonl", list.reverse)
    edited(folder, "refer_reason/context.jsonl", list.reverse)
    questions = opened(folder)
    assert [question.id for question in questions] == ["0", "1", "3"]
    assert [question.expected for question in questions] == [
        "It keeps rain out.",
        "They are about to leave.",
        "It gives light.",
    ]
    assert {question.type for question in questions} == {"refer_reason"}
    question = questions[0]
    assert question.text == "What is the purpose of the object <region>?"
    assert question.facts["question"] == "What is the purpose of the object [0.078, 0.104, 0.469, 0.833]?"
    assert question.asked.paths == [str(folder / "val2017" / "000000000000.jpg")]
    assert len(question.asked.regions) == 1


def test_ferrets_files_may_lie_elsewhere(folder, tmp_path_factory):
    data = tmp_path_factory.mktemp("ml-ferret") / "ferret_gpt4_data"
    data.mkdir()
    for name in ("refer_reason", "rule.json"):
        (folder / name).rename(data / name)
    with pytest.raises(DataError, match=r"rule\.json.*ml-ferret"):
        opened(folder)
    assert len(opened(folder, data=str(data))) == 3


def test_descriptions_are_the_other_half(folder):
    (folder / "box_refer_reason.json").rename(folder / "box_refer_caption.json")
    (folder / "refer_reason").rename(folder / "refer_caption")
    rule = json.loads((folder / "rule.json").read_text())
    (folder / "rule.json").write_text(json.dumps({"refer_desc": rule["refer_reason"]}))
    assert {question.type for question in opened(folder, task="description")} == {"refer_desc"}


FILES = ("box_refer_reason.json", "refer_reason/question.jsonl", "refer_reason/context.jsonl", "rule.json")


@pytest.mark.parametrize("name", [*FILES, "refer_reason/answer.jsonl"])
def test_a_missing_file_is_named_with_its_origin(folder, name):
    (folder / name).unlink()
    with pytest.raises(DataError, match=rf"{Path(name).name}.*https://github\.com/"):
        opened(folder)


@pytest.mark.parametrize(
    ("name", "change", "told"),
    {
        "one is missing": (
            "refer_reason/answer.jsonl",
            lambda records: records.pop(1),
            r"answer\.jsonl' has no question 1",
        ),
        "of another picture": (
            "refer_reason/context.jsonl",
            lambda records: records[2].update(image="000000000009.jpg"),
            r"context\.jsonl' has picture '000000000009\.jpg' for question 3.*versions or tasks",
        ),
        "twice": (
            "refer_reason/question.jsonl",
            lambda records: records.append(records[0]),
            r"question\.jsonl.*line 4.*question 0 is there twice",
        ),
        "no text": ("refer_reason/answer.jsonl", lambda records: records[0].pop("text"), "line 1.*'text'"),
        "no object": ("refer_reason/answer.jsonl", lambda records: records.insert(1, [3]), "line 2.*expected an obj"),
        "no mask": (
            "box_refer_reason.json",
            lambda records: records[1].pop("annotation"),
            "record 2, sample '1'.*no mask",
        ),
        "no marker": ("box_refer_reason.json", lambda records: records[1].update(text="Why?"), "record 2, sample '1'"),
        "no picture": ("box_refer_reason.json", lambda records: records[1].pop("image"), "record 2, sample '1'"),
    }.values(),
)  # fmt: skip
def test_files_that_do_not_fit_are_named(folder, name, change, told):
    with pytest.raises(DataError, match=told):
        opened(edited(folder, name, change))


@pytest.mark.parametrize("rule", [[], {}, {"refer_reason": {"role": "A"}}, {"refer_reason": "score"}], ids=str)
def test_a_rule_without_the_task_is_refused(folder, rule):
    (folder / "rule.json").write_text(json.dumps(rule))
    with pytest.raises(
        DataError, match=r"rule\.json' must have an object with 'role' and 'prompt' under 'refer_reason'"
    ):
        opened(folder)


@pytest.mark.parametrize("options", [{"task": "x"}, {"order": "x"}, {"brackets": "x"}, {"data": ""}], ids=str)
def test_options_are_checked(options):
    with pytest.raises(PixelReferError, match=next(iter(options))):
        SPEC.make_config(options)


# -- what the judge sees -----------------------------------------------------------------------------------

FACTS = {
    "context": "a {role}",
    "question": "Why?",
    "role": "Assistant",
    "rule": "Score.",
    "reference": "GPT [1, 2, 3, 4] says",
    "category": "refer_reason",
}


def seen(pred="A [0.1, 0.2, 0.3, 0.4] dog [sic]", **options):
    return shown_answers(FerretConfig(**options), FACTS, pred)


def test_boxes_are_taken_out_of_the_models_answer():
    assert seen() == ("A dog [sic]", "GPT [1, 2, 3, 4] says")
    assert seen(order="reference_first") == ("GPT [1, 2, 3, 4] says", "A dog [sic]")


def test_the_official_code_takes_brackets_out_of_the_second_answer():
    assert seen(brackets="second") == ("A [0.1, 0.2, 0.3, 0.4] dog [sic]", "GPT says")
    assert seen(brackets="second", order="reference_first") == ("GPT [1, 2, 3, 4] says", "A dog")


def test_very_many_brackets_take_no_time():
    assert without_brackets("[" * 10**6, "refer_reason") == "[" * 10**6
    assert seen(pred="[1" * 10**5)[0] == "[1" * 10**5
    assert seen(pred="[" + "1," * 10**5)[0] == "[" + "1," * 10**5


def test_the_judge_sees_all_of_it():
    config = FerretConfig()
    request = judge_request(config, prompts(config), "7", FACTS, "a {rule}")
    text = request.messages[1]["content"]
    for each in ("a {role}", "Why?", "Answer of Assistant 1:\na {rule}\n", "Answer of Assistant 2:\nGPT", "Score."):
        assert each in text
    assert request.options == {"temperature": 0.0, "max_tokens": 1024}
    assert {prompt.origin for prompt in prompts(config)} == {"own words"}


def test_the_official_frame_is_read_from_a_clone(tmp_path, monkeypatch):
    from pixelrefer_ferret import prompts as module

    def sha256(text):
        return hashlib.sha256(text.encode()).hexdigest()

    pieces = [f"<{number}>" for number in range(len(module._PIECES))]
    fields = [field for _, field in module._PIECES]
    code = "text = f'" + "".join(f"{p}{{x}}" for p in pieces[:-1]) + f"{pieces[-1]}'\nsystem = 'Be fair.'\n"
    (tmp_path / module._CODE).parent.mkdir(parents=True)
    (tmp_path / module._CODE).write_text(code)
    monkeypatch.setattr(module, "_PIECES", tuple(zip(map(sha256, pieces), fields, strict=True)))
    monkeypatch.setattr(module, "_SYSTEM_SHA256", sha256("Be fair."))
    config = FerretConfig(official_code=str(tmp_path))
    request = judge_request(config, prompts(config), "7", FACTS, "a dog")
    assert request.messages[0]["content"] == "Be fair."
    assert request.messages[1]["content"] == [
        {
            "type": "text",
            "text": "<0>a {role}<1>Why?<2>Assistant<3>a dog<4>Assistant<5>Assistant<6>GPT [1, 2, 3, 4] says"
            "<7>Assistant<8>Score.<9>",
        }
    ]
    assert request.options == {}
    with pytest.raises(DataError, match=r"2\.eval_ferret\.py"):
        prompts(FerretConfig(official_code=str(tmp_path / "elsewhere")))


# -- scores ------------------------------------------------------------------------------------------------


def judged(folder, said, **options):
    questions = opened(folder, **options)
    judge = DictJudge(said)
    answers = answers_to(questions, ["rain", "", "light"])
    return SPEC.score(SPEC.make_config(options), questions, answers, judge), judge


def by_label(scores):
    return {(figure.name, figure.reading): figure for figure in scores.figures}


def test_what_cannot_be_read_is_left_out_or_counted_as_minus_one(folder):
    scores, _ = judged(folder, {"0": "8 9", "1": "7 9 ", "3": "cannot say"})
    found = by_label(scores)
    assert scores.figures[0] is found["score", ""]
    assert found["score", ""].of() == round(7.5 / 9 * 100, 1)
    assert found["score", "official pixelrefer"].of() == round(2 / 2.333 * 100, 1)
    assert found["score", "official gar"].of() == round(4.667 / 5.667 * 100, 1)
    assert (found["model_score", ""].of(), found["reference_score", ""].of()) == (7.5, 9)
    assert set(scores.unread) == {"3"}
    assert "official pixelrefer: 2 reviews are not read" in " ".join(scores.notes)
    assert {(figure.scale, figure.judge) for figure in scores.figures} == {(1.0, "dict")}
    assert found["score", ""].values.tolist()[:2] == [8, 7]


def test_the_other_order_is_recorded(folder):
    scores, judge = judged(folder, dict.fromkeys("013", "8 4"), order="reference_first")
    assert by_label(scores)["score", ""].of() == 50
    assert by_label(scores)["model_score", ""].of() == 4
    assert "second, as in Ferret and GAR" in scores.notes[0]
    assert "Answer of Assistant 2:\nrain" in judge.requests[0].messages[1]["content"]
    first, _ = judged(folder, dict.fromkeys("013", "8 4"))
    assert by_label(first)["score", ""].of() == 200
    assert "first, as in PixelRefer" in first.notes[0]


def test_figures_are_right_for_some_of_the_questions(folder):
    figure = by_label(judged(folder, {"0": "8 9", "1": "5 10", "3": "?"})[0])["score", ""]
    assert figure.of(np.array([1, 1, 0])) == round(6 / 9.667 * 100, 1)
    assert figure.of(np.array([1, 2])) == 50
    assert np.isnan(figure.of(np.array([2])))


@pytest.mark.parametrize(
    "said", ["", "<html>502</html>", "\0\ud83d", "nan nan", "0 0", "1e999 1", "1e307 0.001", "1e308 1"]
)
def test_a_judge_may_say_anything(folder, said):
    scores, _ = judged(folder, dict.fromkeys("013", said))
    assert not any(np.isinf(figure.values).any() or np.isinf(figure.of()) for figure in scores.figures)
    assert set(scores.unread) == (set() if said == "0 0" else {"0", "1", "3"})


def test_questions_that_could_not_be_asked_are_not_judged(folder):
    questions = opened(folder)
    answers = answers_to(questions, ["rain", "", "light"], failures={"1": "the picture is broken"})
    judge = DictJudge(dict.fromkeys("03", "8 8"))
    scores = SPEC.score(FerretConfig(), questions, answers, judge)
    assert [request.id for request in judge.requests] == ["0", "3"]
    assert {figure.counted for figure in scores.figures} == {2}


def test_without_a_judge_its_answers_are_missing(folder):
    with pytest.raises(JudgeError, match="3 of 3"):
        judged(folder, {})


# -- files of others ---------------------------------------------------------------------------------------


def written(folder, lines):
    path = folder / "theirs.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def predictions(folder, key="pred"):
    return [
        {"question_id": int(each.id), "image": each.facts["image"], key: f"answer {each.id}", "category": "reason"}
        for each in opened(folder)
    ]


@pytest.mark.parametrize("key", ["pred", "text"])
def test_official_predictions_are_matched_by_id_and_picture(folder, key):
    path = written(folder, predictions(folder, key)[::-1])
    answers = list(SPEC.answer_formats["ferret"](FerretConfig(), path, opened(folder)))
    assert [(answer.id, answer.text) for answer in answers] == [(id, f"answer {id}") for id in "310"]


def test_predictions_may_be_numbered_in_another_way(folder):
    lines = [line | {"question_id": number} for number, line in enumerate(predictions(folder))]
    answers = list(SPEC.answer_formats["ferret"](FerretConfig(), written(folder, lines), opened(folder)))
    assert [answer.id for answer in answers] == ["0", "1", "3"]


def test_of_two_questions_about_a_picture_the_id_counts(folder):
    for name in (
        "box_refer_reason.json",
        *(f"refer_reason/{each}.jsonl" for each in ("question", "context", "answer")),
    ):
        edited(folder, name, lambda records: [record.update(image="000000000000.jpg") for record in records])
    path = written(folder, predictions(folder)[::-1])
    answers = list(SPEC.answer_formats["ferret"](FerretConfig(), path, opened(folder)))
    assert [(answer.id, answer.text) for answer in answers] == [(id, f"answer {id}") for id in "310"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda lines: lines[1].update(image="x.jpg"), r"line 2 is about no question.*x\.jpg"),
        (lambda lines: lines.append(lines[0]), "line 4 is one too many"),
        (lambda lines: lines[2].pop("pred"), "line 3: 'text' must be a text"),
    ],
)
def test_predictions_that_do_not_fit_are_named(folder, change, told):
    lines = predictions(folder)
    change(lines)
    with pytest.raises(EvaluationError, match=told):
        list(SPEC.answer_formats["ferret"](FerretConfig(), written(folder, lines), opened(folder)))


def reviews(questions, order):
    for question in questions:
        given = {"model_first": "answer1", "reference_first": "answer2"}[order]
        other = {"answer1": "answer2", "answer2": "answer1"}[given]
        texts = {given: f"answer {question.id}", other: question.expected}
        yield {"question_id": int(question.id), "content": f"{question.id} 8\nReason", "tuple": [0, 8], **texts}


@pytest.mark.parametrize("order", ["model_first", "reference_first"])
def test_reviews_are_imported(folder, order):
    config, questions = FerretConfig(order=order), opened(folder)
    answers = answers_to(questions, [f"answer {question.id} [0.1, 0.2, 0.3, 0.4]" for question in questions])
    path = written(folder, list(reviews(questions, order)))
    found = list(SPEC.judged_formats["ferret"](config, path, questions, answers))
    judge = DictJudge({request.id: text for request, text in found})
    scores = SPEC.score(config, questions, answers, judge)
    assert [request.messages for request in judge.requests] == [request.messages for request, _ in found]
    assert scores.details == {"0": "0 8 Reason", "1": "1 8 Reason", "3": "3 8 Reason"}


def test_reviews_in_the_other_order_are_refused(folder):
    questions = opened(folder)
    answers = answers_to(questions, [f"answer {question.id}" for question in questions])
    path = written(folder, list(reviews(questions, "reference_first")))
    with pytest.raises(EvaluationError, match="line 1: the judge saw 'It keeps rain out.' as 'answer1'.*option order"):
        list(SPEC.judged_formats["ferret"](FerretConfig(), path, questions, answers))


def test_reviews_of_one_set_of_answers_are_taken_for_it_alone(folder):
    questions = opened(folder)
    one, other = (answers_to(questions, [f"{word} {each.id}" for each in questions]) for word in ("answer", "reply"))
    judge = Judge("a")
    files = [JudgedFile(written(folder, list(reviews(questions, "model_first"))))]
    scorer = Scorer(judge=judge, tools=ScoringTools(judge), judged=files)
    benchmark = OpenBenchmark(SPEC, FerretConfig(), questions)
    assert scorer.report(benchmark, [("one", "", one)]).columns[0].result.main.overall.counted == 3
    with pytest.raises(JudgeError, match="3 of 3 answers of judge 'a' are missing"):
        scorer.report(benchmark, [("one", "", one), ("other", "", other)])
    with pytest.raises(EvaluationError, match="reviews of another model"):
        scorer.report(benchmark, [("other", "", other)])


# -- whole runs --------------------------------------------------------------------------------------------


def test_a_whole_run_with_a_tiny_model(folder):
    questions = opened(folder)
    answers = ask_tiny_model(questions)
    judge = DictJudge({}, otherwise="6 8\nBoth fit.")
    scores = SPEC.score(FerretConfig(), questions, answers, judge)
    assert scores.figures[0].of() == 75
    assert not scores.unread
