"""`pixelrefer predict`, from the command line to the file."""

import json

import pytest
from click.testing import CliRunner
from PIL import Image

from pixelrefer_plugin import attach, get_backbone
from pixelrefer_plugin.cli import main
from pixelrefer_plugin.contracts.questions import Question
from pixelrefer_plugin.evaluation.asking.engine import ModelEngine
from pixelrefer_plugin.evaluation.predicting.answer_file import read_answers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model, and a file of three samples, of which the last has no answer."""
    made = tmp_path_factory.mktemp("predict")
    backbone, native = get_backbone("videollama3").tiny(0)
    model, processor = attach(backbone, native, adapter="saot")
    model.save_pretrained(made / "model", processor, include_backbone=True)
    model.detach()
    Image.effect_noise((64, 48), 90).convert("RGB").save(made / "a.png")
    asked = {"role": "user", "content": "what is <region>?"}
    sample = {"image": "a.png", "regions": [{"box": [2, 2, 20, 30]}]}
    records = [
        {**sample, "id": "s", "messages": [asked, {"role": "assistant", "content": "a cat"}]},
        {**sample, "id": "t", "regions": [{"box": [9, 2, 60, 30]}], "messages": [asked]},
        {**sample, "id": "t", "image": "missing.png", "messages": [asked]},
    ]
    write(made / "sound.jsonl", *records[:2])
    write(made / "all.jsonl", *records)
    return made


def write(path, *records):
    path.write_text("".join(f"{json.dumps(each)}\n" for each in records))


@pytest.fixture
def predict(folder, tmp_path):
    """Runs the command; the answers go to `tmp_path`."""

    def run(*arguments, file="sound.jsonl"):
        given = ["predict", folder / "model", folder / file, "--out", tmp_path / "out.jsonl", "--max-new-tokens", 3]
        return CliRunner().invoke(main, [str(each) for each in (*given, *arguments)])

    return run


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_questions_of_a_file_are_answered(predict, tmp_path):
    result = predict()
    assert (result.exit_code, result.output.splitlines()[-1]) == (0, f"Wrote 2 answers to '{tmp_path / 'out.jsonl'}'.")
    assert [(line["id"], line.get("expected"), line["where"]) for line in lines_of(tmp_path / "out.jsonl")] == [
        ("s", "a cat", "sound.jsonl line 1"),
        ("t", None, "sound.jsonl line 2"),
    ]
    again = predict("--json")
    assert json.loads(again.stdout) == {
        "out": str(tmp_path / "out.jsonl"), "questions": 2, "asked": 0, "failed": 0, "failures": {}, "seconds": 0.0,
    }  # fmt: skip
    assert "has all 2 answers already; nothing was asked" in predict().output


def test_other_settings_are_not_mixed_in(predict):
    predict()
    result = predict("--prompt", "Describe <region>.")
    assert result.exit_code == 2
    assert "holds answers of another run: prompt: None there, 'Describe <region>.' now." in result.output
    assert predict("--prompt", "Describe <region>.", "--overwrite").exit_code == 0


def test_a_bad_sample_stops_or_is_noted(predict, tmp_path):
    result = predict(file="all.jsonl")
    assert result.exit_code == 2
    assert "missing.png" in result.output
    assert not (tmp_path / "out.jsonl").exists()
    result = predict("--on-bad-sample", "skip", "--batch-size", 2, file="all.jsonl")
    assert result.exit_code == 0
    assert result.output.splitlines()[-1].endswith(", 1 of them without words.")
    assert "Not asked: t~2: " in result.output
    lines = lines_of(tmp_path / "out.jsonl")
    assert [line["id"] for line in lines] == ["s", "t", "t~2"]
    assert ["failure" in line for line in lines] == [False, False, True]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--prompt", "Describe it."], "The prompt must have one <region>"),
        (["--segment"], "gives no masks: its adapter 'saot' has no mask head"),
        (["--frames", "3", "--fps", "1"], "--fps and --frames exclude each other"),
        (["--format", "coco"], "sound.jsonl"),
        (["--batch-size", "0"], "Expected 1 or more"),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_is_asked(predict, tmp_path, arguments, told):
    result = predict(*arguments)
    assert result.exit_code == 2
    assert told in result.output
    assert [each.name for each in tmp_path.iterdir()] == []


def test_the_file_that_is_read_is_not_written_over(folder):
    data = folder / "sound.jsonl"
    result = CliRunner().invoke(main, ["predict", str(folder / "model"), str(data), "--out", str(data)])
    assert result.exit_code == 2
    assert "--out would replace" in result.output


def test_ctrl_c_says_how_to_go_on(predict, monkeypatch, tmp_path):
    def interrupted(self, prepared):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ModelEngine, "finish", interrupted)
        result = predict()
    assert result.exit_code == 130
    assert "Stopped. What is answered is kept: the same command goes on from there." in result.output
    assert predict().exit_code == 0
    questions = [Question(id=id, asked=None) for id in ("s", "t")]
    assert len(read_answers(tmp_path / "out.jsonl", questions)) == 2
