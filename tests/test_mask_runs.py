"""Benchmarks of masks from the command line: a tiny model is measured, its answers are exported and read again."""

import json

import pytest
from click.testing import CliRunner

from pixelrefer_plugin import load, plugins
from pixelrefer_plugin.cli import main

NAMES = ("mevis", "ref_youtube_vos", "revos", "reasonseg", "refcoco", "pixelqa")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A model folder whose adapter gives masks, and the files of the benchmarks."""
    folder = tmp_path_factory.mktemp("masks")
    backbone, native = plugins.get_backbone("qwen2_5_vl").tiny(0)
    backbone.save_pretrained(folder / "backbone")
    native.save_pretrained(folder / "backbone")
    for name in ("unipixel", "maskpool"):
        options = plugins.get_adapter(name).tiny
        model, processor = load(folder / "backbone", adapter=name, adapter_config=options)
        model.save_pretrained(folder / name, processor)
        model.detach()
    for name in NAMES:
        (folder / "data" / name).mkdir(parents=True)
        plugins.get_benchmark(name).tiny(folder / "data" / name)
    return folder


@pytest.fixture
def run(site):
    def invoke(*arguments, code=0):
        words = [str(each) for each in (*arguments, "--data", site / "data")]
        result = CliRunner().invoke(main, words, env={"COLUMNS": "100"})
        assert result.exit_code == code, result.output + (result.stderr or "")
        return result

    return invoke


def evaluated(run, site, out, *names, model="unipixel", code=0, more=()):
    return run(
        *("evaluate", site / model, *names, "--out", out, "--device", "cpu", "--max-new-tokens", 4, *more), code=code
    )


def test_a_model_is_measured(run, site, tmp_path):
    names = [name for name in NAMES if name != "ref_youtube_vos"]
    said = evaluated(run, site, tmp_path, *names).output
    assert "j_and_f" in said
    assert "giou" in said
    reports = json.loads((tmp_path / "report.json").read_text())["benchmarks"]
    assert [each["name"] for each in reports] == names


def test_answers_are_exported_for_a_server_and_read_again(run, site, tmp_path):
    evaluated(run, site, tmp_path, "mevis", "ref_youtube_vos", more=("--answers-only",))
    for name in ("mevis", "ref_youtube_vos"):
        answers, folder = tmp_path / name / "answers.jsonl", tmp_path / f"{name}-pictures"
        assert str(folder) in run("score", name, answers, "--export", folder).output
        assert len(list(folder.rglob("*.png"))) == 9
        assert "not empty" in run("score", name, answers, "--export", folder, code=2).output
    hidden = run("score", "ref_youtube_vos", tmp_path / "ref_youtube_vos" / "answers.jsonl", code=2)
    assert "not public" in hidden.output
    told = json.loads(run("score", "mevis", tmp_path / "mevis" / "answers.jsonl", "--json").output)
    again = run("score", "mevis", tmp_path / "mevis-pictures", "--answers-format", "png", "--json")
    figures = [
        [each["value"] for each in found["benchmarks"][0]["answers"][0]["figures"]]
        for found in (told, json.loads(again.output))
    ]
    assert figures[0] == pytest.approx(figures[1])


def test_what_cannot_be_exported_is_said(run, site, tmp_path):
    evaluated(run, site, tmp_path, "reasonseg", "mevis", more=("--answers-only",))
    reasonseg, mevis = (tmp_path / name / "answers.jsonl" for name in ("reasonseg", "mevis"))
    out = tmp_path / "pictures"
    assert "no other form of answers" in run("score", "reasonseg", reasonseg, "--export", out, code=2).output
    assert "One file of answers" in run("score", "mevis", mevis, f"b={mevis}", "--export", out, code=2).output
    lines = mevis.read_text().splitlines()
    mevis.write_text("\n".join(lines[:1]) + "\n")
    assert "it lacks" in run("score", "mevis", mevis, "--export", out, code=2).output
    assert not out.exists()


def test_a_model_without_masks_is_refused_before_it_is_asked(run, site, tmp_path):
    said = evaluated(run, site, tmp_path / "out", "mevis", model="maskpool", code=2).output
    assert "mask" in said
    assert not (tmp_path / "out" / "mevis" / "answers.jsonl").exists()


def test_options_are_explained_that_a_config_has_from_another(run):
    told = CliRunner().invoke(main, ["benchmarks", "revos", "--json"]).output
    options = json.loads(told)["options"]
    assert set(options) >= {"frames", "fps", "images", "sentence", "official_value"}
    assert all(option["about"] for option in options.values())
