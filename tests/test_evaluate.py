"""Measuring from the command line: a benchmark of a plugin and files of one's own, on a tiny model."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import install_plugin, picture
from PIL import Image

from pixelrefer_plugin import Region, RegionSample, VideoRegion, evaluate, load, plugins, score_answers
from pixelrefer_plugin.cli import main
from pixelrefer_plugin.contracts.questions import Answer, Question
from pixelrefer_plugin.errors import DataError, EvaluationError
from pixelrefer_plugin.evaluation.predicting.fingerprints import digest_of_questions
from pixelrefer_plugin.evaluation.scoring.object_masks import mask_figures
from pixelrefer_plugin.evaluation.scoring.opening import open_benchmark
from pixelrefer_plugin.evaluation.scoring.own_file import own_benchmark
from pixelrefer_plugin.evaluation.scoring.scoring import score


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A model folder with LoRA on a backbone that lies beside it, and the files of the benchmarks."""
    folder = tmp_path_factory.mktemp("evaluate")
    backbone, native = plugins.get_backbone("videollama3").tiny(0)
    backbone.save_pretrained(folder / "backbone")
    native.save_pretrained(folder / "backbone")
    model, processor = load(
        folder / "backbone", adapter="maskpool", adapter_config=plugins.get_adapter("maskpool").tiny
    )
    model.save_pretrained(folder / "frozen" / "model", processor)
    model.save_pretrained(folder / "whole" / "model", processor, include_backbone=True)
    model.add_lora(r=2)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.5)
    model.save_pretrained(folder / "street" / "model", processor)
    import naming

    for name in ("naming", "naming-graded", "naming-masks", "naming-plain", "naming-silent"):
        (folder / "data" / name).mkdir(parents=True)
        naming.tiny(folder / "data" / name)
    for name in ("naming-twice", "naming-none", "naming-broken", "naming-lazy"):
        shutil.copytree(folder / "data" / "naming", folder / "data" / name)
    return folder


@pytest.fixture(autouse=True)
def plugin(monkeypatch):
    install_plugin(monkeypatch, "naming", "naming")
    monkeypatch.delenv("PIXELREFER_BENCHMARKS", raising=False)


@pytest.fixture
def run(site, tmp_path):
    """`run(command, *arguments)`: the words are told what `MODEL`, `DATA` and `OUT` are."""
    known = {"MODEL": site / "street" / "model", "DATA": site / "data", "OUT": tmp_path / "out"}

    def invoke(*arguments, code=0):
        words = [re.sub("MODEL|DATA|OUT", lambda found: str(known[found[0]]), each) for each in arguments]
        result = CliRunner().invoke(main, words, env={"COLUMNS": "100"})
        assert result.exit_code == code, result.output + (result.stderr or "")
        return result

    return invoke


def report_in(folder):
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def write_answers(path, texts):
    path.write_text("".join(json.dumps({"id": id, "given": text}) + "\n" for id, text in texts.items()))
    return str(path)


RIGHT = {f"n{number}": "cat" for number in range(6)}
HALF = {id: "cat" if number % 2 else "dog" for number, id in enumerate(RIGHT)}


# -- evaluate ----------------------------------------------------------------------------------------------


def test_a_model_is_measured_and_reported(run, tmp_path):
    said = run("evaluate", "MODEL", "naming", "--data", "DATA", "--out", "OUT", "--device", "cpu")
    out = tmp_path / "out"
    assert "naming: 6 questions" in said.output
    assert "Published: Some-7B: accuracy 50.0 (A paper, Table 1)" in said.output
    assert f"report: {out / 'report.html'}" in said.output
    [benchmark] = report_in(out)["benchmarks"]
    [answers] = benchmark["answers"]
    assert (answers["label"], answers["count"]) == ("street", 6)
    assert benchmark["prompts"][0]["text"] == "What is <region>?"
    assert "evaluate" in report_in(out)["command"]
    lines = [json.loads(line) for line in (out / "naming" / "answers.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == list(RIGHT)
    assert "street" in (out / "report.html").read_text(encoding="utf-8")


def test_answers_that_are_there_are_not_asked_again(run, tmp_path, monkeypatch):
    asked = ("evaluate", "MODEL", "naming", "--data", "DATA", "--out", "OUT", "--device", "cpu")
    run(*asked)
    before = report_in(tmp_path / "out")["benchmarks"]
    monkeypatch.setattr("pixelrefer_plugin.evaluation.asking.engine.ModelEngine.answer", None)
    monkeypatch.setattr("pixelrefer_plugin.evaluation.asking.engine.ModelEngine.prepare", None)
    run(*asked)
    assert report_in(tmp_path / "out")["benchmarks"] == before


def test_answers_about_other_regions_are_not_kept(run, tmp_path):
    own = own_file(tmp_path, [{**named("a", "cat"), "regions": [{"box": [0, 0, 4, 4]}]}])
    asked = ("evaluate", "MODEL", str(own), "--out", "OUT", "--device", "cpu")
    run(*asked)
    own.write_text(own.read_text().replace("[0, 0, 4, 4]", "[2, 2, 6, 6]"))
    assert "holds answers of another run: what is asked" in run(*asked, code=2).stderr
    run(*asked, "--overwrite")


def test_a_quick_look_says_that_it_is_one(run, tmp_path):
    run("evaluate", "MODEL", "naming", "--data", "DATA", "--out", "OUT", "--limit", "2", "--device", "cpu")
    [benchmark] = report_in(tmp_path / "out")["benchmarks"]
    assert (benchmark["questions"], benchmark["questions_of_benchmark"]) == (2, 6)
    assert "Of 6 questions 2 were scored: --limit 2." in benchmark["notes"]
    assert (tmp_path / "out" / "naming" / "first-2-answers.jsonl").is_file()


def test_the_backbone_stands_beside_the_model(run, tmp_path, site):
    out = tmp_path / "out"
    run("evaluate", "MODEL", "naming", "naming-plain", "--data", "DATA", "--out", "OUT", "--base", "--device", "cpu")
    with_regions, without = report_in(out)["benchmarks"]
    assert [each["label"] for each in with_regions["answers"]] == ["street"]
    assert [each["label"] for each in without["answers"]] == ["base", "street"]
    assert [each["of"] for each in without["differences"]] == ["street"]
    given = {
        name: [json.loads(line)["given"] for line in (out / "naming-plain" / name).read_text().splitlines()]
        for name in ("answers.jsonl", "base-answers.jsonl")
    }
    assert given["answers.jsonl"] != given["base-answers.jsonl"]
    run(
        "evaluate", str(site / "backbone"), "naming-plain", "--adapter", "maskpool", "--data", "DATA",
        "--out", str(tmp_path / "bare"), "--device", "cpu",
    )  # fmt: skip
    lines = (tmp_path / "bare" / "naming-plain" / "answers.jsonl").read_text().splitlines()
    assert [json.loads(line)["given"] for line in lines] == given["base-answers.jsonl"]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (("backbone", "--adapter", "maskpool"), "is a plain backbone itself"),
        (("frozen/model",), "has no LoRA, so without regions it says what its backbone says"),
        (("whole/model",), "holds a backbone of its own, trained or merged"),
    ],
    ids=["plain", "no LoRA", "own backbone"],
)
def test_a_base_that_there_is_not(run, site, model, message):
    asked = ("naming-plain", "--data", "DATA", "--out", "OUT", "--base")
    said = run("evaluate", str(site / model[0]), *asked, *model[1:], code=2)
    assert message in " ".join(said.output.split())


def test_answers_alone(run, tmp_path):
    said = run(
        "evaluate", "MODEL", "naming-graded", "--data", "DATA", "--out", "OUT", "--answers-only", "--device", "cpu"
    )
    path = tmp_path / "out" / "naming-graded" / "answers.jsonl"
    assert f"answers: {path}" in said.output
    assert not (tmp_path / "out" / "report.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("naming-graded",), "Benchmark 'naming-graded' needs a judge"),
        (("naming-masks",), "gives no masks: its adapter 'maskpool' has no mask head"),
        (("nameing",), "Did you mean 'naming'"),
        (("naming-twice",), "questions 0 and 6 both have the id 'n0'"),
        (("naming-none",), "Benchmark 'naming-none' has no questions"),
        (("naming-broken",), "ZeroDivisionError"),
        (("naming-lazy",), "failed in question 1"),
        (("naming", "naming"), "Two benchmarks are called 'naming'"),
        (("naming", "--option", "prompts=?"), "has no option 'prompts'"),
        (("naming", "--option", "naming.prompt={"), "prompt must be a text without braces"),
        (("naming", "--option", "namin.prompt=?"), "Did you mean 'naming'"),
        (("naming", "--base", "--judge-url", "http://localhost:1/v1"), "--judge-url needs --judge-model"),
        (("naming", "--base"), "each of these benchmarks shows regions"),
        (("missing.jsonl",), "There is no data file 'missing.jsonl'"),
    ],
)
def test_what_is_refused_before_anything_is_asked(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.setattr("pixelrefer_plugin.cli.asking._load", None)
    said = run("evaluate", "MODEL", *arguments, "--data", "DATA", "--out", "OUT", code=2)
    assert message in " ".join(said.output.split())
    assert list(tmp_path.rglob("answers*")) == []


def test_missing_files_are_named_with_their_origin(run, site, tmp_path):
    (tmp_path / "data" / "naming").mkdir(parents=True)
    said = run("evaluate", "MODEL", "naming", "--data", str(tmp_path / "data"), "--out", "OUT", code=2)
    told = " ".join(said.output.split())
    assert "lacks 2 of 3 files" in told
    assert "'questions.json' (the list of questions, from the authors' site)" in told
    assert "'pictures' (the pictures, from the same site)" in told
    assert "extra.txt" not in told


def test_where_the_files_are(site, tmp_path, monkeypatch):
    with pytest.raises(EvaluationError, match="not known where the files of benchmark 'naming' are"):
        open_benchmark("naming")
    assert len(open_benchmark("naming", site / "data").questions) == 6
    assert len(open_benchmark(f"naming={site / 'data' / 'naming'}").questions) == 6
    monkeypatch.setenv("PIXELREFER_BENCHMARKS", str(site / "data"))
    assert len(open_benchmark("naming").questions) == 6
    shutil.copy(site / "data" / "naming" / "questions.json", tmp_path)
    with pytest.raises(DataError, match="lacks 1 of 3 files"):
        open_benchmark(f"naming={tmp_path}")
    assert len(open_benchmark(f"naming={tmp_path}", options={"images": str(site / "data")}).questions) == 6


# -- score -------------------------------------------------------------------------------------------------


def test_answers_are_scored_side_by_side(run, tmp_path):
    half, right = write_answers(tmp_path / "half.jsonl", HALF), write_answers(tmp_path / "right.jsonl", RIGHT)
    said = run("score", "naming", half, f"best={right}", "--data", "DATA", "--out", "OUT")
    assert "+50.0" in said.output
    [benchmark] = report_in(tmp_path / "out")["benchmarks"]
    assert [each["label"] for each in benchmark["answers"]] == ["half", "best"]
    assert [each["figures"][0]["value"] for each in benchmark["answers"]] == [0.5, 1.0]
    assert "accuracy (official): the same as the default reading." in benchmark["notes"]
    [difference] = benchmark["differences"]
    assert difference["figures"]["accuracy"]["value"] == 0.5
    assert difference["groups"]["size"]["under 2,000 px"]["value"] == 0.0


def test_answers_to_other_words_are_told(run, tmp_path):
    path = tmp_path / "a.jsonl"
    asked = {"n0": "What is <region>?", "n1": "What colour is <region>?", "n2": "", "n3": None}
    lines = [{"id": id, "given": "cat", **({"question": asked[id]} if id in asked else {})} for id in RIGHT]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = " ".join(run("score", "naming", str(path), "--data", "DATA").output.split())
    assert "Note: a: 1 answer to a question in other words than the benchmark's, such as 'n1'." in said


def test_json_alone_is_printed(run, tmp_path):
    path = write_answers(tmp_path / "a.jsonl", RIGHT)
    said = run("score", "naming", path, "--data", "DATA", "--json")
    assert json.loads(said.stdout)["benchmarks"][0]["answers"][0]["figures"][0]["value"] == 1.0


def test_answers_of_another_system(run, tmp_path):
    path = tmp_path / "theirs.tsv"
    path.write_text("".join(f"{id}\t{text}\n" for id, text in HALF.items()))
    said = run("score", "naming", str(path), "--answers-format", "lines", "--data", "DATA", "--json")
    assert json.loads(said.stdout)["benchmarks"][0]["answers"][0]["figures"][0]["value"] == 0.5


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"n0": "cat"}, "6 questions: it lacks"),
        ({**RIGHT, "n9": "cat"}, "what was not asked"),
        ({}, "no answers|empty"),
    ],
    ids=["fewer", "others", "none"],
)
def test_answers_that_do_not_fit(run, tmp_path, texts, message):
    path = write_answers(tmp_path / "a.jsonl", texts)
    said = run("score", "naming", path, "--data", "DATA", code=2)
    assert re.search(message, " ".join(said.output.split()))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n0\tcat\nn0\tdog\n", "has more than one answer for 1 id, 'n0'"),
        ("n0\tcat\nn7\tdog\n", "answers what was not asked: 1 id, 'n7'"),
        ("n0\tcat\n", "it lacks 5 ids, 'n1'"),
        ("", "it lacks 6 ids"),
    ],
    ids=["twice", "others", "fewer", "none"],
)
def test_answers_of_another_system_that_do_not_fit(run, tmp_path, text, message):
    (tmp_path / "a.tsv").write_text(text)
    said = run("score", "naming", str(tmp_path / "a.tsv"), "--answers-format", "lines", "--data", "DATA", code=2)
    assert re.search(message, " ".join(said.output.split()))


def test_a_part_is_scored_where_that_is_asked_for(run, tmp_path):
    first = write_answers(tmp_path / "first.jsonl", {f"n{n}": "cat" for n in (0, 1, 2)})
    second = write_answers(tmp_path / "second.jsonl", {f"n{n}": "dog" for n in (1, 2, 3)})
    run("score", "naming", first, second, "--data", "DATA", "--out", "OUT", "--partial")
    [benchmark] = report_in(tmp_path / "out")["benchmarks"]
    assert (benchmark["questions"], benchmark["questions_of_benchmark"]) == (2, 6)
    assert "Of 6 questions 2 were scored: the others are not answered in every file." in benchmark["notes"]
    other = write_answers(tmp_path / "other.jsonl", {"n5": "dog"})
    said = run("score", "naming", first, other, "--data", "DATA", "--partial", code=2)
    assert "No question of benchmark 'naming' is answered in all of the files" in said.output


def test_empty_and_unread_answers_are_counted(run, tmp_path):
    path = write_answers(tmp_path / "a.jsonl", {**RIGHT, "n2": "", "n3": "  "})
    said = run("score", "naming", path, "--data", "DATA", "--out", "OUT")
    assert "6 answers, 2 empty, 2 could not be read" in said.output
    [answers] = report_in(tmp_path / "out")["benchmarks"][0]["answers"]
    assert answers["empty"] == ["n2", "n3"]
    assert answers["unread"] == {"n2": "no word", "n3": "no word"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("naming", "A", "--answers-format", "line"), "Did you mean 'lines'"),
        (("naming-masks", "A", "--answers-format", "x"), "It has: none"),
        (("naming", "A", "A"), "Two sets of answers are called"),
        (("naming-silent", "A"), "must return Scores"),
        (("naming-graded", "A", "--judge-model", "gpt"), "6 of 6 answers of judge 'gpt' are missing"),
        (("naming-graded", "A", "--judged", "A"), "--judged needs --judge-model"),
    ],
)
def test_what_cannot_be_scored(run, tmp_path, arguments, message):
    path = write_answers(tmp_path / "a.jsonl", RIGHT)
    words = [path if each == "A" else each for each in arguments]
    assert message in " ".join(run("score", *words, "--data", "DATA", code=2).output.split())


# -- from Python --------------------------------------------------------------------------------------------


def test_python_measures_as_the_command_does(run, site, tmp_path):
    run("evaluate", "MODEL", "naming", "--data", "DATA", "--out", "OUT", "--device", "cpu")
    model, processor = load(site / "street" / "model")
    report = evaluate(model, processor, {"naming": {}}, tmp_path / "python", data_root=site / "data")
    [ours], [theirs] = report.as_json()["benchmarks"], report_in(tmp_path / "out")["benchmarks"]
    assert ours["answers"][0]["figures"] == theirs["answers"][0]["figures"]
    assert report_in(tmp_path / "python")["benchmarks"] == [ours]
    answers = {name: tmp_path / name / "naming" / "answers.jsonl" for name in ("python", "out")}
    [both] = score_answers("naming", answers, data_root=site / "data").as_json()["benchmarks"]
    assert both["differences"][0]["figures"]["letters"]["value"] == 0.0
    with pytest.raises(EvaluationError, match="no answers to score"):
        score_answers("naming", {}, data_root=site / "data")


# -- judges ------------------------------------------------------------------------------------------------


def test_published_answers_of_a_judge_are_taken(run, tmp_path):
    path = write_answers(tmp_path / "a.jsonl", RIGHT)
    grades = {"n0": "yes", "n1": "no", "n2": "yes", "n3": "<b>maybe</b>", "n4": "yes", "n5": "yes"}
    (tmp_path / "grades.json").write_text(json.dumps(grades))
    said = run(
        "score", "naming-graded", path, "--judge-model", "gpt-4", "--judged", str(tmp_path / "grades.json"),
        "--data", "DATA", "--out", "OUT",
    )  # fmt: skip
    assert "grade (judge gpt-4)" in said.output
    [benchmark] = report_in(tmp_path / "out")["benchmarks"]
    [answers] = benchmark["answers"]
    assert benchmark["judge"] == "gpt-4"
    assert (answers["figures"][0]["value"], answers["figures"][0]["counted"]) == (0.8, 5)
    assert answers["unread"] == {"n3": "neither yes nor no: <b>maybe</b>"}
    assert any("grades.json" in note for note in benchmark["notes"])
    again = run("score", "naming-graded", path, "--judge-model", "gpt-4", "--data", "DATA", "--out", "OUT", "--json")
    assert json.loads(again.stdout)["benchmarks"][0]["answers"][0]["figures"][0]["value"] == 0.8


# -- benchmarks --------------------------------------------------------------------------------------------


def test_benchmarks_are_listed(run):
    said = run("benchmarks")
    assert re.search(r"naming-graded +Names of things, naming-graded\. \(needs judge\)", said.output)
    names = [each["name"] for each in json.loads(run("benchmarks", "--json").stdout)]
    assert {"naming", "naming-masks"} <= set(names)


def test_a_benchmark_is_described(run):
    said = " ".join(run("benchmarks", "naming").output.split())
    for expected in (
        "questions.json: the list of questions, from the authors' site", "extra.txt (optional)",
        "prompt ['What is <region>?']: what is asked, with one `<region>`; it may be long, and goes on in another",
        "images [None]: folder of the pictures", "Formats of answers: lines",
        "Some-7B: accuracy 0.5 (A paper, Table 1)",
    ):  # fmt: skip
        assert expected in said
    described = json.loads(run("benchmarks", "naming", "--json").stdout)
    assert described["options"]["images"] == {
        "default": "None",
        "about": "folder of the pictures; None: the benchmark's own.",
    }
    assert "Did you mean 'naming'" in run("benchmarks", "namin", code=2).output


# -- files of one's own ------------------------------------------------------------------------------------


def own_file(folder, records):
    Image.fromarray(picture(48, 64)).save(folder / "a.png")
    path = folder / "Held Out.jsonl"
    path.write_text("".join(json.dumps({"image": "a.png", **record}) + "\n" for record in records))
    return path


def named(id, answer, **more):
    messages = [{"role": "user", "content": "What is <region>?"}, *([assistant_text(answer)] if answer else [])]
    return {"id": id, "messages": messages, "regions": [{"box": [4, 4, 30, 30]}], **more}


def assistant_text(text):
    return {"role": "assistant", "content": text}


def values_of(result, name):
    return next(each.figure.values.tolist() for each in result.figures if each.figure.name == name)


def scored(path, options, texts, tools=None):
    spec, config, questions = own_benchmark(path, options)
    answers = [Answer(id=each.id, text=text) for each, text in zip(questions, texts, strict=True)]
    return score(spec, config, questions, answers, tools)


def test_a_file_of_ones_own_is_scored_by_its_words(tmp_path):
    path = own_file(tmp_path, [named("a", "A black cat."), named("b", "dog"), named("c", None)])
    result = scored(path, {"metrics": "siou,exact"}, ["a black cat", "hot dog", "x"])
    assert result.benchmark == "held-out"
    np.testing.assert_allclose(values_of(result, "siou"), [1.0, 0.5, np.nan])
    np.testing.assert_allclose(values_of(result, "exact"), [1.0, 0.0, np.nan])
    assert [each.figure.name for each in result.figures] == ["siou", "exact"]
    assert [each.figure.name for each in scored(path, None, ["", "", ""]).figures] == ["exact"]


class Letters:
    """Encodes a text by the letters that it has; says yes."""

    judge = "me"

    def encode(self, texts):
        vectors = np.array([[text.count(each) for each in "abcdefghijklmnopqrstuvwxyz"] for text in texts], dtype=float)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)

    def ask_judge(self, requests):
        return ['{"score": 5}' for _ in requests]


def test_ssim_of_a_file_of_ones_own(tmp_path):
    path = own_file(tmp_path, [named("a", "cat"), named("b", "dog")])
    np.testing.assert_allclose(
        values_of(scored(path, {"metrics": ["ssim"]}, ["act", "cat"], Letters()), "ssim"), [1, 0]
    )


def test_a_judge_with_a_rubric(tmp_path):
    path = own_file(tmp_path, [named("a", None), named("b", None)])
    (tmp_path / "rubric.txt").write_text("It names the animal.")
    options = {"metrics": "judge", "rubric": str(tmp_path / "rubric.txt")}
    result = scored(path, options, ["cat", "dog"], Letters())
    assert result.main.figure.judge == "me"
    assert result.main.overall.value == 5
    spec, config, _ = own_benchmark(path, options)
    assert spec.needs == ("judge",)
    assert spec.prompts(config)[0].text == "It names the animal."


def test_masks_of_a_file_of_ones_own(run, tmp_path):
    mask = np.zeros((48, 64), dtype=bool)
    mask[:24, :32] = True
    rle = Region.from_mask(mask).to_rle((48, 64))
    records = [
        {
            "id": name,
            "messages": [{"role": "user", "content": "Segment it."}, assistant_text("It is <seg>.")],
            "regions": [{"rle": rle}],
        }
        for name in "abc"
    ]
    path = own_file(tmp_path, records)
    half = mask.copy()
    half[:12] = False
    lines = [
        {"id": "a", "given": "It is <seg>.", "size": [48, 64], "masks": [rle]},
        {"id": "b", "given": "<seg>", "size": [48, 64], "masks": [Region.from_mask(half).to_rle((48, 64))]},
        {"id": "c", "given": "no"},
    ]
    answers = tmp_path / "answers.jsonl"
    answers.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run("score", str(path), str(answers), "--out", "OUT")
    [benchmark] = report_in(tmp_path / "out")["benchmarks"]
    found = {each["name"]: each["value"] for each in benchmark["answers"][0]["figures"]}
    assert found == pytest.approx({"giou": 0.5, "ciou": 0.5, "exact": 1 / 3})
    assert own_benchmark(path)[0].needs == ("masks",)


def test_masks_on_videos_are_compared_on_the_frames_that_both_know():
    mask = np.zeros((20, 30), dtype=bool)
    mask[5:15, 5:15] = True
    here, moved = Region.from_mask(mask), Region.from_mask(np.roll(mask, 5, axis=1))
    content = [{"type": "video", "video": "a.mp4"}, {"type": "text", "text": "Segment it."}]
    asked = RegionSample("v", ({"role": "user", "content": content},))
    target = VideoRegion({0: here, 4: here}, absent=(8,))
    question = Question(id="v", asked=asked, targets=(target,), segment=True)
    given = VideoRegion({0: here, 2: here, 4: moved})
    answers = {
        "seen": Answer(id="v", text="<seg>", objects=(given,), image_hw=(20, 30), frames=(0, 2, 4, 8)),
        "none": Answer(id="v", text="no"),
        "failed": Answer(id="v", text="", failure="no such video"),
        "surplus": Answer(id="v", text="<seg>", objects=(target, given), image_hw=(20, 30), frames=(0, 4, 8)),
    }
    found = {
        name: {figure.name: figure.of() for figure in mask_figures([question], [answer])}
        for name, answer in answers.items()
    }
    assert found["seen"]["giou"] == found["seen"]["ciou"] == pytest.approx(150 / 250)
    assert found["seen"]["j"] == pytest.approx((1 + 50 / 150 + 1) / 3)
    assert found["none"]["ciou"] == 0
    assert found["none"]["j"] == pytest.approx(1 / 3)  # right where it is not seen
    assert np.isnan(found["failed"]["giou"])
    assert found["surplus"] == {"giou": 1.0, "ciou": 1.0, "j_and_f": 1.0, "j": 1.0, "f": 1.0}


def test_masks_of_another_size_are_refused():
    target = Region.from_mask(np.ones((20, 30), dtype=bool))
    asked = RegionSample("a", ({"role": "user", "content": "Segment it."},))
    question = Question(id="a", asked=asked, targets=(target,), segment=True)
    answer = Answer(id="a", text="", objects=(Region.from_mask(np.ones((10, 15), dtype=bool)),), image_hw=(10, 15))
    with pytest.raises(EvaluationError, match=r"Question 'a': a mask does not fit its picture of \(10, 15\)"):
        mask_figures([question], [answer])


@pytest.mark.usefixtures("without_java")
def test_captions_of_a_file_of_ones_own(tmp_path):
    path = own_file(tmp_path, [named("a", "a black cat on a mat"), named("b", "a dog in the snow"), named("c", None)])
    result = scored(path, {"metrics": "captions"}, ["a black cat on a mat", "a red bus", "x"])
    values = values_of(result, "rouge_l")
    assert values[0] == pytest.approx(1.0)
    assert 0 < values[1] < 0.5
    assert np.isnan(values[2])
    assert {"cider", "bleu_4"} <= {each.figure.name for each in result.figures}
    assert any("METEOR is missing: it needs Java" in note for note in result.notes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": "exakt"}, "no metric 'exakt'. Did you mean 'exact'"),
        ({"metrics": []}, "metrics must be one or more of"),
        ({"metrics": "judge"}, "needs a rubric"),
        ({"metrics": "judge", "rubric": "missing.txt"}, "rubric 'missing.txt' cannot be read"),
        ({"metrics": "masks"}, "has no answers with masks"),
        ({"best": 0}, "best must be a number above 0"),
        ({"metric": "exact"}, "has no option 'metric'"),
        ({"metrics": "siou"}, "has no right answers, which metric 'siou' compares with"),
    ],
)
def test_options_of_a_file_that_do_not_fit(tmp_path, options, message):
    path = own_file(tmp_path, [named("a", None)])
    with pytest.raises(ValueError, match=message):
        own_benchmark(path, options)


def test_a_file_of_ones_own_from_the_command_line(run, tmp_path):
    path = own_file(tmp_path, [named("a", "cat"), named("a", "dog")])
    run("evaluate", "MODEL", str(path), "--out", "OUT", "--max-new-tokens", "4", "--device", "cpu")
    [benchmark] = report_in(tmp_path / "out")["benchmarks"]
    assert benchmark["name"] == "held-out"
    assert "plugin" not in benchmark
    lines = [json.loads(line)["id"] for line in (tmp_path / "out" / "held-out" / "answers.jsonl").open()]
    assert lines == ["a", "a~2"]


def test_answers_about_other_regions_are_told_apart():
    message = {"role": "user", "content": "What is <region>?"}
    boxes = [Region.from_box((0, 0, side, side)) for side in (4, 5)]
    regions = [*boxes, VideoRegion({3: boxes[0]}), VideoRegion({4: boxes[0]}), Region.from_mask(np.eye(4, dtype=bool))]
    asked = [Question(id="a", asked=RegionSample("a", (message,), (each,))) for each in regions]
    assert len({digest_of_questions([each]) for each in asked}) == len(asked)
    assert digest_of_questions(asked[:1]) == digest_of_questions([replace(asked[0], references=("a cat",))])
