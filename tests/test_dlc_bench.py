"""DLC-Bench: its files, what its judges are asked and how their answers score, and what others have published."""

import base64
import hashlib
import io
import json
import os
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from judge_server import serving
from PIL import Image
from pixelrefer_dlc.choices import official_choice, sane_choice
from pixelrefer_dlc.prompts import _english, judge_prompts
from pixelrefer_dlc.requests import requests_of
from pixelrefer_dlc.scoring import official_score

from pixelrefer_plugin import plugins
from pixelrefer_plugin.contracts.questions import Answer
from pixelrefer_plugin.errors import DataError, EvaluationError, JudgeError, PixelReferError
from pixelrefer_plugin.evaluation.judging import Judge, ScoringTools
from pixelrefer_plugin.testing import TINY_HW

GOLDEN = Path(__file__).parents[2] / "shared/evaluation/golden"
NAMES = ("dlc_bench", "dlc_bench_images")
CLONES = "PIXELREFER_DLC_REPOSITORY"


def golden(name):
    path = GOLDEN / name
    if not path.exists():
        pytest.skip(f"there is no {path}")
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(params=NAMES)
def spec(request):
    return plugins.get_benchmark(request.param)


@pytest.fixture
def text_judge():
    return plugins.get_benchmark("dlc_bench")


@pytest.fixture
def picture_judge():
    return plugins.get_benchmark("dlc_bench_images")


@pytest.fixture
def folder(tmp_path, text_judge):
    """Two regions, 11 and 12, with two positive questions and a negative one each."""
    (tmp_path / "dlc").mkdir()
    text_judge.tiny(tmp_path / "dlc")
    return tmp_path / "dlc"


def rewrite(path, change):
    value = json.loads(path.read_text())
    path.write_text(json.dumps(change(value)))


def tools_saying(answers, name="tiny-judge"):
    """A judge that says what a list or function has, in the order of the requests, in memory."""

    class Saying:
        judge = name

        def ask_judge(self, requests):
            self.requests = list(requests)
            said = answers(self.requests) if callable(answers) else answers
            assert len(said) == len(self.requests)
            return list(said)

    return Saying()


def scored(spec, folder, said, texts=("A lamp.", "Two shoes."), **options):
    config = spec.make_config(options)
    questions = spec.open(config, folder)
    answers = [Answer(id=each.id, text=text) for each, text in zip(questions, texts, strict=True)]
    return spec.score(config, questions, answers, tools_saying(said))


def figures(scores):
    return {figure.label: figure.of() for figure in scores.figures}


# -- the official files ------------------------------------------------------------------------------------


def test_regions_are_asked_about_in_the_order_of_qa_json(text_judge, folder):
    rewrite(folder / "qa.json", lambda items: dict(reversed(items.items())))
    questions = text_judge.open(text_judge.make_config(None), folder)
    assert [question.id for question in questions] == ["12", "11"]
    assert [question.facts["class_name"] for question in questions] == ["shoes", "lamp"]
    assert [question.references for question in questions] == [(), ()]
    assert questions[1].asked.regions[0].to_mask(TINY_HW).box_xyxy == (5, 5, 25, 30)
    assert questions[1].asked.media_hw == (TINY_HW,)
    assert [Path(path) for path in questions[1].asked.paths] == [folder / "images" / "street.jpg"]


def test_options_say_what_is_asked_and_where_pictures_are(text_judge, folder):
    config = text_judge.make_config({"question": "What is <region> like?", "images": "/pictures"})
    question = text_judge.open(config, folder)[0]
    assert question.text == "What is <region> like?"
    assert question.asked.paths == ["/pictures/street.jpg"]


BROKEN = {
    "no class": ("class_names.json", lambda names: {"11": "lamp"}, r"class_names.json' has nothing of item '12'"),
    "no region": (
        "annotations.json",
        lambda coco: {**coco, "annotations": coco["annotations"][1:]},
        r"annotations.json' has nothing of item '11'",
    ),
    "no COCO": ("annotations.json", lambda coco: {"images": []}, "must be a COCO file"),
    "a list": ("qa.json", lambda items: [], "qa.json' of DLC-Bench must be an object, got .*huggingface"),
    "no questions": ("qa.json", lambda items: {**items, "11": []}, "item '11' must be a list of questions"),
    "a question that is a text": ("qa.json", lambda items: {**items, "12": ["?"]}, "item '12', question 1 must be"),
    "a type": (
        "qa.json",
        lambda items: {**items, "11": [{**items["11"][0], "type": "recognition"}]},
        "item '11', question 1 must be",
    ),
    "a score": (
        "qa.json",
        lambda items: {**items, "11": [{**items["11"][0], "choices": [["Yes", True]]}]},
        "item '11', question 1 must be",
    ),
    "six choices": (
        "qa.json",
        lambda items: {**items, "11": [{**items["11"][0], "choices": [["Yes", 1]] * 6}]},
        "1 to 5 of",
    ),
    "no mask": (
        "annotations.json",
        lambda coco: {**coco, "annotations": [{**each, "segmentation": []} for each in coco["annotations"]]},
        "item '11', sample '11': its mask: annotation 11 has no segmentation",
    ),
    "no picture's name": (
        "annotations.json",
        lambda coco: {**coco, "images": []},
        "item '11'",
    ),
}


@pytest.mark.parametrize(("file", "change", "message"), BROKEN.values(), ids=BROKEN)
def test_a_file_of_another_form_is_named(spec, folder, file, change, message):
    rewrite(folder / file, change)
    with pytest.raises(DataError, match=message):
        spec.open(spec.make_config(None), folder)


@pytest.mark.parametrize(
    "options", [{"images": ""}, {"official_code": 3}, {"question": "Describe it."}, {"question": ["<region>"]}]
)
def test_options_are_checked(spec, options):
    with pytest.raises(PixelReferError, match=f"{next(iter(options))} must be"):
        spec.make_config(options)


# -- which choice an answer is -----------------------------------------------------------------------------

COLOURS = ("red", "dark red", "blue", "a dark red cup")
YES_NO = ("Yes", "No")


def test_the_official_reading_is_that_of_the_official_code():
    cases = golden("judge_parsing.json")["dlc_parse"]
    for case in cases["items"]:
        choices = cases["choices"][case["choices"]]
        if isinstance(case["index"], dict):
            with pytest.raises(EvaluationError, match="official scripts of DLC-Bench stop"):
                official_choice(case["judge_answer"], choices)
        else:
            assert official_choice(case["judge_answer"], choices) == case["index"], case


OFFICIAL = {
    "the letter": ("B", YES_NO, 1),
    "in lower case": (" b \n", YES_NO, 1),
    "letter and text": ("A. Yes", YES_NO, 0),
    "the text": ("no", YES_NO, 1),
    "one text within": ("I would say no here", YES_NO, 1),
    "the letter of another text": ("A. No", YES_NO, 1),  # the text that is there wins
    "a letter that is no choice": ("E.", YES_NO, 4),
    "a letter and the beginning of a text": ("B. dark", COLOURS, 1),
    "the last of several": ("red, no: blue", COLOURS, 2),
    "the shorter one, which begins later": ("it is a dark red cup", COLOURS, 0),
    "of those that begin together the longest": ("it is a red cup", ("red", "red cup"), 1),
    "a part of several": ("dark", COLOURS, 3),
    "a letter and a line break": ("B\nbecause", COLOURS, 1),
    "a letter in parentheses": ("(B)", COLOURS, None),
    "a sentence": ("The answer is B", ("one", "two"), None),
    "a digit": ("7", COLOURS, None),
    "two letters": ("bc", COLOURS, None),
}


@pytest.mark.parametrize(("answer", "choices", "index"), OFFICIAL.values(), ids=OFFICIAL)
def test_the_official_reading(answer, choices, index):
    assert official_choice(answer, choices) == index


@pytest.mark.parametrize("answer", ["", " \n", "E", "C"])
def test_where_the_official_code_stops(answer):
    with pytest.raises(EvaluationError, match="official scripts of DLC-Bench stop"):
        official_choice(answer, YES_NO)


SANE = {
    "the letter": ("B", YES_NO, 1),
    "in parentheses": ("(B)", COLOURS, 1),
    "a sentence": ("The answer is B", YES_NO, 1),
    "letter and text": ("D. a dark red cup", COLOURS, 3),
    "the text": ("a dark red cup", COLOURS, 3),
    "yes, and more": ("No, not at all", YES_NO, 1),
    "both": ("Yes or no", YES_NO, None),
    "nothing": ("", YES_NO, None),
    "a letter that is no choice": ("E", YES_NO, None),
    "HTML": ("<html><body>502</body></html>", YES_NO, None),
    "a refusal": ("I cannot say.", COLOURS, None),
}


@pytest.mark.parametrize(("answer", "choices", "index"), SANE.values(), ids=SANE)
def test_the_sane_reading(answer, choices, index):
    assert sane_choice(answer, choices) == index


# -- scores ------------------------------------------------------------------------------------------------
# Of each item: recognition; colour 0, 1, -1; form 0, 0.5; wheels (negative) 1, -1.


def test_scores_of_a_judge(text_judge, folder):
    scores = scored(text_judge, folder, ["A. Yes", "B", "B", "A", "B. No", "B", "A", "A"])
    avg, pos, neg, recognition = scores.figures[:4]
    assert [figure.name for figure in scores.figures[:4]] == ["avg", "pos", "neg", "recognition"]
    assert pos.values.tolist() == [0.75, 0.0]  # (1 + 0.5) / 2; at most 0, the class is wrong
    assert neg.values.tolist() == [1.0, 0.0]
    assert recognition.values.tolist() == [1.0, 0.0]
    assert avg.values.tolist() == [0.875, 0.0]
    assert avg.of() == pytest.approx((0.375 + 0.5) / 2)
    assert not scores.unread
    assert scores.details["12"].splitlines()[:2] == ["pos 0, neg 0", "recognition: 'B. No'"]


def test_a_wrong_class_keeps_what_is_below_zero(text_judge, folder):
    scores = scored(text_judge, folder, ["No", "C", "A", "B", "No", "C", "B", "B"])
    assert scores.figures[1].values.tolist() == [-0.5, -0.5]
    assert scores.figures[2].values.tolist() == [-1.0, -1.0]


def test_a_figure_of_some_questions_is_that_of_a_run_of_them(text_judge, folder):
    rewrite(folder / "qa.json", lambda items: {**items, "12": items["12"][:1]})  # no negative question
    avg = scored(text_judge, folder, ["A", "B", "B", "A", "A", "B"]).figures[0]
    assert avg.of() == pytest.approx((np.mean([0.75, 1.0]) + 1.0) / 2)
    assert avg.of(np.array([0, 0, 1])) == pytest.approx((np.mean([0.75, 0.75, 1.0]) + 1.0) / 2)
    assert avg.of(np.array([1])) == 1.0
    assert avg.of(np.array([0])) == pytest.approx(0.875)


def test_figures_carry_the_judge(spec, folder):
    for figure in scored(spec, folder, ["A"] * 8).figures:
        assert figure.judge == "tiny-judge"
        assert "judge tiny-judge" in figure.label


def test_what_cannot_be_read_scores_nothing_and_is_listed(text_judge, folder):
    scores = scored(text_judge, folder, ["A", "<p>", "B", "A", "perhaps", "B", "B", "A"])
    assert scores.unread == {
        "11": "the judge's answer cannot be read: 1",
        "12": "the judge's answer cannot be read: recognition",
    }
    assert scores.figures[1].values.tolist() == [0.25, 0.0]
    assert scores.figures[3].values.tolist() == [1.0, 0.0]


def test_the_official_reading_stands_beside_the_sane_one(text_judge, folder):
    said = ["A", "The answer is B", "B", "A", "A", "B", "B", "A"]
    both = figures(scored(text_judge, folder, said))
    assert both["pos (judge tiny-judge)"] == 0.75
    assert both["pos (official, judge tiny-judge)"] == 0.5


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("", "Item '11': The official scripts of DLC-Bench stop at the judge's answer ''"),
        ("D.", "Item '11': the official scripts of DLC-Bench stop at a letter that is no choice"),
    ],
)
def test_where_the_official_code_stops_there_is_no_official_figure(text_judge, folder, said, message):
    scores = scored(text_judge, folder, ["A", "B", said, "A", "A", "B", "B", "A"])
    assert not [figure for figure in scores.figures if figure.reading]
    assert any(message in note for note in scores.notes)


@pytest.mark.parametrize("said", ["perhaps", "C.", "E."])
def test_the_official_code_stops_at_a_class_that_is_neither_right_nor_wrong(text_judge, folder, said):
    question = text_judge.open(text_judge.make_config(None), folder)[0]
    with pytest.raises(
        EvaluationError, match="Item '11': the official scripts of DLC-Bench stop at .* neither Yes nor"
    ):
        official_score(question, [said, "B", "B", "A"])


def test_a_question_that_was_not_asked_scores_nothing_and_asks_nobody(text_judge, folder):
    config = text_judge.make_config(None)
    questions = text_judge.open(config, folder)
    answers = [Answer(id="11", text="A lamp."), Answer(id="12", text="", failure="no such picture")]
    tools = tools_saying(["A", "B", "B", "A"])
    scores = text_judge.score(config, questions, answers, tools)
    assert {request.id for request in tools.requests} == {"11"}
    assert scores.figures[0].values.tolist() == [0.875, 0.0]
    assert scores.unread == {"12": "the model was not asked: no such picture"}


def test_without_a_judge_it_is_told_what_is_missing(spec, folder):
    config = spec.make_config(None)
    questions = spec.open(config, folder)
    answers = [Answer(id=question.id, text="A lamp.") for question in questions]
    with pytest.raises(JudgeError, match="8 answers of a judge are missing"):
        spec.score(config, questions, answers, ScoringTools())


def test_published_figures_are_of_figures_that_it_gives(spec, folder):
    known = {figure.name for figure in scored(spec, folder, ["A"] * 8).figures}
    assert {each.figure for each in spec.published} <= known
    assert all(each.judge and each.source and -1 <= each.value <= 1 for each in spec.published)


# -- what judges are asked ---------------------------------------------------------------------------------


def test_a_judge_over_http(spec, folder):
    """A judge that says yes, and takes the last choice."""

    def reply(body, number):
        content = body["messages"][0]["content"]
        lines = (content if isinstance(content, str) else content[-1]["text"]).strip().splitlines()
        return "A. Yes" if lines[-2:] == ["A. Yes", "B. No"] else lines[-1]

    config = spec.make_config(None)
    questions = spec.open(config, folder)
    answers = [Answer(id=question.id, text=f"It is {question.id}, {{red}}.") for question in questions]
    with serving(reply) as server:
        tools = ScoringTools(Judge.open("tiny-judge", url=server.url))
        scores = spec.score(config, questions, answers, tools)
    assert scores.figures[1].values.tolist() == [-0.25, -0.25]
    assert scores.figures[2].values.tolist() == [-1.0, -1.0]
    assert len(server.requests) == 8
    assert {(body["temperature"], body["max_tokens"]) for body in server.requests} == {(0, 300)}
    assert all("{red}." in json.dumps(body["messages"]) for body in server.requests)


def requests_about(spec, folder, text="A lamp.", **options):
    config = spec.make_config(options)
    question = spec.open(config, folder)[0]
    return requests_of(config, judge_prompts(config), question, Answer(id=question.id, text=text))


def test_requests_hold_the_description_and_the_question(text_judge, folder):
    recognition, first, *_ = requests_about(text_judge, folder, "A red lamp {pred_caption}.")
    assert [each.part for each in requests_about(text_judge, folder)] == ["recognition", "1", "2", "3"]
    assert "'lamp'" in recognition.messages[0]["content"]
    assert recognition.messages[0]["content"].endswith("A. Yes\nB. No")
    assert "A red lamp {pred_caption}." in first.messages[0]["content"]
    assert "What of the lamp's colour?\nA. No colour is named.\nB. The colour" in first.messages[0]["content"]


def test_a_judge_sees_the_surroundings_and_the_mask(picture_judge, folder):
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "images" / "street.png")
    mask = np.zeros((300, 400), dtype=np.uint8)
    mask[100:180, 150:170] = 1  # 20 wide, which counts as 56, and 80 high

    def larger(coco):
        from pixelrefer_plugin import Region

        rle = Region.from_mask(mask).to_mask((300, 400)).to_rle()
        image = {"id": 1, "file_name": "street.png", "height": 300, "width": 400}
        return {"images": [image], "annotations": [{**each, "segmentation": rle} for each in coco["annotations"]]}

    rewrite(folder / "annotations.json", larger)
    requests = requests_about(picture_judge, folder)
    before, picture, between, shown, question = requests[0].messages[0]["content"]
    assert before["text"] != between["text"]
    assert question["text"].endswith("B. No")
    left, top, width, height = 132 - 56, 100 - 80, 3 * 56, 3 * 80
    assert np.array_equal(opened(picture), pixels[top : top + height, left : left + width])
    assert np.array_equal(opened(shown), mask[top : top + height, left : left + width] * 255)
    assert requests[0].messages[0]["content"][:4] == requests[3].messages[0]["content"][:4]


def opened(part):
    assert part["type"] == "image_url"
    kind, _, data = part["image_url"]["url"].partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_a_picture_that_is_missing_is_named(picture_judge, folder):
    (folder / "images" / "street.jpg").unlink()
    with pytest.raises(DataError, match=r"street.jpg' of item '11': .*Objects365.*without_pictures"):
        requests_about(picture_judge, folder)


def test_a_text_judge_needs_no_pictures(text_judge, folder):
    (folder / "images" / "street.jpg").unlink()
    assert len(requests_about(text_judge, folder)) == 4


def test_pictures_may_be_left_out_and_that_is_noted(picture_judge, folder):
    (folder / "images" / "street.jpg").unlink()
    scores = scored(picture_judge, folder, ["A"] * 8, without_pictures=True)
    assert any("without_pictures" in note for note in scores.notes)


def test_prompts_are_told(spec):
    question, judge, recognition = spec.prompts(spec.make_config(None))
    assert {each.origin for each in (question, judge, recognition)} == {"own words"}
    assert "<region>" in question.text
    assert "CLASS" in recognition.text


def test_a_clone_without_the_official_script_is_named(spec, tmp_path):
    with pytest.raises(DataError, match=r"no official script of DLC-Bench: expected .*describe-anything"):
        spec.prompts(spec.make_config({"official_code": str(tmp_path)}))


def test_an_official_script_of_another_version_is_refused(spec, tmp_path):
    for file in ("eval_llama_without_image.py", "eval_gpt_with_image.py"):
        path = tmp_path / "evaluation" / "DLC-Bench" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("prompt = 'Another one.'\n")
    with pytest.raises(DataError, match="another version of Haochen-Wang409/Grasp-Any-Region"):
        spec.prompts(spec.make_config({"official_code": str(tmp_path)}))


def test_a_name_with_its_article():
    is_plural, with_article = _english()
    assert [with_article(name) for name in ("lamp", "egg", "hour")] == ["a lamp", "an egg", "an hour"]
    assert [is_plural(name) for name in ("lamp", "shoes", "bus")] == [False, True, False]
    assert is_plural("wine glass")  # as the official prompts have it


def test_inflect_of_another_version_is_refused(monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda name: "7.6.0")
    with pytest.raises(EvaluationError, match=r"inflect 7.6.0, not inflect<7.6.*pip install"):
        _english()


# -- what others have published ----------------------------------------------------------------------------


def test_predictions_of_others_are_read(spec, tmp_path):
    path = tmp_path / "pred.json"
    path.write_text(json.dumps({"11": "A lamp.", "12": "Error: no picture", "query": "Describe it."}))
    first, second = spec.answer_formats["dam"](spec.make_config(None), path, [])
    assert (first.id, first.text, first.failure) == ("11", "A lamp.", "")
    assert (second.id, second.text, second.failure) == ("12", "", "Error: no picture")


def test_lines_of_pixelrefer_are_read(spec, tmp_path):
    path = tmp_path / "pred.jsonl"
    path.write_text('{"id": "11", "image": "a.jpg", "pred": "A lamp."}\n\n{"id": "12", "pred": ""}\n')
    answers = list(spec.answer_formats["pixelrefer"](spec.make_config(None), path, []))
    assert [(each.id, each.text) for each in answers] == [("11", "A lamp."), ("12", "")]


@pytest.mark.parametrize(
    ("format", "text", "message"),
    [
        ("dam", "[]", "must be an object of items"),
        ("dam", '{"11": 3}', "the description of '11' must be a text, got 3"),
        ("dam", "{", "cannot be read"),
        ("pixelrefer", "[1]\n", "line 1 must be an object"),
        ("pixelrefer", '\n{"id": 11, "pred": "A lamp."}\n', "line 2 must be an object with the texts"),
        ("pixelrefer", "{\n", "line 1 is no JSON"),
    ],
)
def test_predictions_of_another_form_are_refused(spec, tmp_path, format, text, message):
    path = tmp_path / "pred.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        list(spec.answer_formats[format](spec.make_config(None), path, []))


@pytest.mark.parametrize("format", ["dam", "pixelrefer"])
def test_predictions_that_are_missing(spec, tmp_path, format):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        list(spec.answer_formats[format](spec.make_config(None), tmp_path / "no.json", []))


class Judged:
    """Published answers of a judge about the tiny files."""

    def __init__(self, spec, folder, path):
        self.spec, self.path = spec, path
        self.config = spec.make_config({"without_pictures": True} if spec.name == "dlc_bench_images" else None)
        self.questions = spec.open(self.config, folder)
        self.answers = [Answer(id=question.id, text="A lamp.") for question in self.questions]
        self.items = {question.id: self.item(question) for question in self.questions}

    def item(self, question):
        asked = [" ".join((item.question, *item.choices)) for item in question.facts["items"]]
        return {"pred": "A lamp.", "prompt": ["Is it?", *asked], "response": ["A. Yes", "B", "B", "A"], "score": 1}

    def read(self):
        self.path.write_text(json.dumps({**self.items, "avg_pos": 0.5}))
        return list(self.spec.judged_formats["dam"](self.config, self.path, self.questions, self.answers))


@pytest.fixture
def judged(spec, folder, tmp_path):
    return Judged(spec, folder, tmp_path / "x_eval.json")


def test_published_judgements_are_scored_without_asking(judged):
    judge = Judge("Llama")
    assert judge.import_answers(judged.read(), origin="x_eval.json") == 8
    tools = ScoringTools(judge)
    scores = judged.spec.score(judged.config, judged.questions, judged.answers, tools)
    assert scores.figures[0].of() == 0.875
    assert tools.notes == ["8 of 8 answers of the judge are from x_eval.json."]


def test_judgements_that_are_missing_are_counted(judged):
    judged.items["11"]["response"][1] = None
    del judged.items["12"]
    judge = Judge("Llama")
    assert judge.import_answers(judged.read(), origin="x_eval.json") == 3
    with pytest.raises(JudgeError, match="5 of 8 answers of judge 'Llama' are missing"):
        judged.spec.score(judged.config, judged.questions, judged.answers, ScoringTools(judge))


def test_judgements_of_other_descriptions_are_passed_over(judged, caplog):
    judged.items["12"]["pred"] = "Two shoes."
    assert {request.id for request, _ in judged.read()} == {"11"}
    assert "1 of 2 descriptions are not those that" in caplog.text


def test_judgements_of_other_descriptions_alone_are_refused(judged):
    for item in judged.items.values():
        item["pred"] = "A wall."
    with pytest.raises(DataError, match="judges other descriptions: .*item '11': 'A wall.' there, 'A lamp.' here"):
        judged.read()


def test_judgements_of_other_items_alone_are_refused(judged):
    judged.items = {}
    with pytest.raises(DataError, match="judges none of the questions that are scored"):
        judged.read()


def test_more_judgements_than_questions_are_refused(judged):
    for name in ("prompt", "response"):
        judged.items["11"][name] += ["A"]
    with pytest.raises(DataError, match="item '11' has 5 answers, but there are 4 questions"):
        judged.read()


def test_judgements_of_other_questions_are_refused(judged):
    judged.items["12"]["prompt"][2] = "What of the size?"
    with pytest.raises(DataError, match="item '12': question 2 of qa.json was not asked"):
        judged.read()


@pytest.mark.parametrize(
    "change",
    [
        {"pred": None},
        {"response": ["A"] * 3},
        {"response": "A"},
        {"response": [1, 2, 3, 4]},
        {"prompt": None},
    ],
)
def test_judgements_of_another_form_are_refused(judged, change):
    judged.items["11"].update(change)
    with pytest.raises(DataError, match="item '11' must be an object with a text pred, and lists of texts"):
        judged.read()


def test_an_item_of_judgements_that_is_none(judged):
    judged.items["11"] = 3
    with pytest.raises(DataError, match="item '11' must be an object"):
        judged.read()


# -- the published answers themselves, where there are clones -----------------------------------------------

CACHES = {
    ("dam_3b_v1", "_eval"): (0.510, 0.830, 0.670),
    ("dam_3b_joint_v1", "_eval"): (0.568, 0.848, 0.708),
    ("gar_1b", "_eval"): (0.489, 0.870, 0.679),
    ("gar_8b", "_eval"): (0.502, 0.846, 0.674),
    ("gar_1b", "_eval_gpt"): (0.658, 0.876, 0.767),
    ("gar_8b", "_eval_gpt"): (0.680, 0.860, 0.770),
}
_GAR = "evaluation/DLC-Bench"


def published(name):
    """The folder of official files, and the clone and the folder of a model's answers."""
    roots = [Path(root) for root in os.environ.get(CLONES, "").split(os.pathsep) if root]
    files = [root / _GAR / "annotations" for root in roots if (root / _GAR / "annotations/qa.json").is_file()]
    folders = [
        (root, root / below) for root in roots for below in (f"{_GAR}/model_outputs", "evaluation/model_outputs_cache")
    ]
    found = [(root, folder) for root, folder in folders if (folder / f"{name}.json").is_file()]
    if not files or not found:
        pytest.skip(
            f"{CLONES} names no clones, separated by '{os.pathsep}', of Haochen-Wang409/Grasp-Any-Region, which has "
            f"the questions, and of the repository that has {name}.json"
        )
    return files[0], *found[0]


@pytest.mark.parametrize("official", [False, True], ids=["own words", "official words"])
@pytest.mark.parametrize(("name", "suffix"), CACHES)
def test_published_answers_score_what_the_official_script_prints(name, suffix, official):
    files, root, folder = published(name)
    spec = plugins.get_benchmark("dlc_bench_images" if suffix == "_eval_gpt" else "dlc_bench")
    options = {"without_pictures": True} if suffix == "_eval_gpt" else {}
    config = spec.make_config({**options, **({"official_code": str(root)} if official else {})})
    questions = spec.open(config, files)
    given = {each.id: each for each in spec.answer_formats["dam"](config, folder / f"{name}.json", questions)}
    answers = [given[question.id] for question in questions]
    judge = Judge("published")
    judge.import_answers(
        spec.judged_formats["dam"](config, folder / f"{name}{suffix}.json", questions, answers), origin="published"
    )
    scores = spec.score(config, questions, answers, ScoringTools(judge))
    assert not scores.unread
    for reading in ("", "official"):
        named = {figure.name: figure for figure in scores.figures if figure.reading == reading}
        assert tuple(round(named[figure].of(), 3) for figure in ("pos", "neg", "avg")) == CACHES[name, suffix]
        compare_with_golden(f"{name}{suffix.removeprefix('_eval')}", named, questions)
    if official and suffix == "_eval":
        compare_prompts(
            name, [requests_of(config, judge_prompts(config), *each) for each in zip(questions, answers, strict=True)]
        )


def golden_items(name):
    path = GOLDEN / "dlc_bench.json"
    results = json.loads(path.read_text(encoding="utf-8"))["results"] if path.exists() else {}
    return results.get(name, {}).get("items", {})


def compare_with_golden(name, figures, questions):
    """Item by item, where there are golden numbers."""
    items = golden_items(name)
    for position, question in enumerate(questions):
        if question.id in items:
            expected = items[question.id]
            got = {figure: figures[figure].values[position] for figure in ("pos", "neg", "recognition")}
            assert got["pos"] == pytest.approx(expected["score_pos"], abs=1e-6)
            assert got["neg"] == pytest.approx(expected["score_neg"], abs=1e-6)
            assert bool(got["recognition"]) == expected["recognition"]


def compare_prompts(name, requests):
    items = golden_items(name)
    for item in requests:
        texts = [request.messages[0]["content"] for request in item]
        text = json.dumps(texts, ensure_ascii=False, separators=(",", ":"))
        if item[0].id in items:
            assert hashlib.sha256(text.encode()).hexdigest() == items[item[0].id]["prompts_sha256"]


def test_items_score_as_the_official_script_has_them():
    """What is known of each item without its questions: the figure of the whole from the golden items."""
    from pixelrefer_dlc.scoring import ItemScore, _figures

    for name, result in golden("dlc_bench.json")["results"].items():
        items = [
            ItemScore(each["score_pos"], each["score_neg"], each["recognition"]) for each in result["items"].values()
        ]
        got = {figure.name: figure.of() for figure in _figures(items, "judge")}
        for figure, key in (("pos", "avg_pos"), ("neg", "avg_neg"), ("avg", "avg")):
            assert got[figure] == pytest.approx(result[key], abs=1e-6), name
        failed = result["items_where_recognition_failed"]
        assert got["recognition"] == pytest.approx(1 - failed / len(items))
