"""Ways of pointing at regions, compared on one backbone: `pixelrefer evaluate --adapters`, and the same from Python."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import picture
from PIL import Image

from pixelrefer_plugin import attach, compare_adapters, get_adapter, get_backbone, load
from pixelrefer_plugin.cli import main
from pixelrefer_plugin.errors import CheckpointError, EvaluationError, PixelReferError
from pixelrefer_plugin.evaluation.reports.text import told_standing
from pixelrefer_plugin.evaluation.scoring import comparing
from pixelrefer_plugin.evaluation.scoring.resampling import estimate
from pixelrefer_plugin.evaluation.scoring.standing import standing_of
from pixelrefer_plugin.evaluation.scoring.ways import read_ways

TOKENS = 2


def trained(folder, source, *, include_backbone=False):
    """A model folder with LoRA that changes what the backbone says."""
    model, processor = load(source, adapter="maskpool", adapter_config=get_adapter("maskpool").tiny)
    model.add_lora(r=2)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.5)
    model.save_pretrained(folder, processor, include_backbone=include_backbone)
    model.detach()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Plain backbones with and without a convention for coordinates, models trained on them, and questions."""
    folder = tmp_path_factory.mktemp("ways")
    for name in ("qwen2_5_vl", "videollama3"):
        backbone, native = get_backbone(name).tiny(0)
        backbone.save_pretrained(folder / name)
        native.save_pretrained(folder / name)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trained(folder / "street", folder / "qwen2_5_vl")
        trained(folder / "whole", folder / "qwen2_5_vl", include_backbone=True)
        trained(folder / "other", folder / "videollama3")
    Image.fromarray(picture(70, 90)).save(folder / "a.png")
    turns = [{"role": "user", "content": "What is <region>?"}, {"role": "assistant", "content": "cat"}]
    boxes = [[4, 4, 20 + 40 * (at % 2), 20 + 40 * (at % 2)] for at in range(4)]
    samples = [
        {"id": f"q{at}", "image": "a.png", "regions": [{"box": box}], "messages": turns} for at, box in enumerate(boxes)
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps(each) + "\n" for each in samples))
    clicked = [{**samples[0], "regions": [{"box": [4, 4, 300, 300]}]}, *samples[1:]]
    (folder / "outside.jsonl").write_text("".join(json.dumps(each) + "\n" for each in clicked))
    (folder / "clip").mkdir()
    for number in range(4):
        Image.fromarray(picture(70, 90, seed=number)).save(folder / "clip" / f"{number}.png")
    clip = {"video": {"path": "clip", "fps": 2}, "messages": turns}
    moving = [{**clip, "id": f"m{at}", "regions": [{"frames": {"0": {"box": box}}}]} for at, box in enumerate(boxes)]
    (folder / "clips.jsonl").write_text("".join(json.dumps(each) + "\n" for each in moving))
    return folder


@pytest.fixture
def run(monkeypatch, site, tmp_path):
    """Runs `pixelrefer evaluate MODEL FILE --adapters WAYS` in the folder of the files."""
    monkeypatch.chdir(site)

    def invoke(model, ways, *options, file="data.jsonl", code=0):
        words = ("evaluate", model, file, "--adapters", ways, "--out", tmp_path / "out", "--max-new-tokens", TOKENS)
        result = CliRunner().invoke(main, [*map(str, words), *options], env={"COLUMNS": "120"})
        assert result.exit_code == code, result.output
        return result

    return invoke


def report_in(folder):
    [benchmark] = json.loads((folder / "report.json").read_text(encoding="utf-8"))["benchmarks"]
    return benchmark


# -- the comparison ----------------------------------------------------------------------------------------


def test_ways_are_asked_the_same_questions_and_put_side_by_side(run, tmp_path):
    ways = "coordinates,few=coordinates[max_frames=2],maskpool=street,own=whole"
    result = run("qwen2_5_vl", ways)
    report = report_in(tmp_path / "out")
    labels = [each["label"] for each in report["answers"]]
    assert sorted(labels) == ["coordinates", "few", "maskpool", "own"]
    values = [each["figures"][0]["value"] for each in report["answers"]]
    assert values == sorted(values, reverse=True)
    assert report["ranking"]["best"] == labels[0]
    assert set(report["ranking"]["size"]) == {"under 2,000 px", "2,000 px and more"}
    assert [each["of"] for each in report["differences"]] == labels[1:]
    assert {each["to"] for each in report["differences"]} == {labels[0]}
    assert f"less {labels[0]}" in result.stdout
    assert (
        "own: 'whole' holds a backbone of its own, which is loaded by itself." in result.stderr
        or "own: asked on" in (result.stdout)
    )
    assert "level" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for folder in labels:
        assert len((tmp_path / "out" / folder / "data" / "answers.jsonl").read_text().splitlines()) == 4


def test_answers_are_those_of_each_way_alone(run, site, tmp_path):
    run("qwen2_5_vl", "maskpool=street,coordinates", "--device", "cpu")
    for label, asked in (("maskpool", ["street"]), ("coordinates", ["qwen2_5_vl", "--adapter", "coordinates"])):
        alone = ["evaluate", *asked, "data.jsonl", "--out", str(tmp_path / label), "--max-new-tokens", str(TOKENS)]
        assert CliRunner().invoke(main, alone).exit_code == 0
        compared = tmp_path / "out" / label / "data" / "answers.jsonl"
        assert compared.read_text() == (tmp_path / label / "data" / "answers.jsonl").read_text()
    texts = {
        way: (tmp_path / "out" / way / "data" / "answers.jsonl").read_text() for way in ("maskpool", "coordinates")
    }
    assert len(set(texts.values())) == 2, "LoRA changes what is said, and is taken off again"


def test_the_backbone_is_loaded_once_and_only_for_what_is_asked(run, monkeypatch, tmp_path):
    loaded = []
    original = comparing.load_backbone
    monkeypatch.setattr(
        comparing, "load_backbone", lambda *given, **kw: (loaded.append(given), original(*given, **kw))[1]
    )
    run("qwen2_5_vl", "coordinates,few=coordinates[max_frames=2],maskpool=street")
    assert len(loaded) == 1
    before = report_in(tmp_path / "out")
    run("qwen2_5_vl", "coordinates,few=coordinates[max_frames=2],maskpool=street")
    assert len(loaded) == 1, "all answers are there"
    assert report_in(tmp_path / "out") == before
    run("qwen2_5_vl", "coordinates,few=coordinates[max_frames=3]", code=2)
    run("qwen2_5_vl", "coordinates,few=coordinates[max_frames=3]", "--overwrite")


def test_a_way_that_cannot_be_asked_is_named_and_the_others_go_on(run, tmp_path):
    result = run("videollama3", "coordinates,maskpool=other", file="clips.jsonl")
    report = report_in(tmp_path / "out")
    assert [each["label"] for each in report["answers"]] == ["maskpool"]
    assert "videos" in report["not_asked"]["coordinates"]
    assert "coordinates   not asked" in result.stdout
    assert "coordinates could not be asked: " in result.stdout
    skipped = run("videollama3", "coordinates,maskpool=other", "--on-bad-sample", "skip", file="clips.jsonl")
    assert "coordinates could not be asked: " in skipped.stdout
    assert (
        "could not be asked in any of 1 way. coordinates: "
        in run("videollama3", "coordinates", file="clips.jsonl", code=2).stderr
    )
    twice = run("videollama3", "one=coordinates,two=coordinates[max_frames=3]", file="clips.jsonl", code=2).stderr
    assert "any of 2 ways. one, two: " in twice
    assert twice.count("It is documented how") == 1


def test_figures_are_of_the_questions_that_every_way_was_asked(run, tmp_path):
    run("qwen2_5_vl", "coordinates,maskpool=street", "--on-bad-sample", "skip", file="outside.jsonl")
    report = report_in(tmp_path / "out")
    assert {each["count"] for each in report["answers"]} == {3}
    [note] = [each for each in report["notes"] if "could be asked in every way" in each]
    assert "3 questions of 4" in note


def test_answers_alone_are_scored_later(run, tmp_path):
    said = run("qwen2_5_vl", "coordinates,maskpool=street", "--answers-only")
    assert str(tmp_path / "out" / "maskpool" / "data" / "answers.jsonl") in said.stdout
    assert not (tmp_path / "out" / "report.json").exists()


@pytest.mark.slow
def test_processes_share_the_questions_of_every_way(site, tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    asked = ["evaluate", "videollama3", "clips.jsonl", "--adapters", "coordinates,maskpool=other", "--device", "cpu"]
    how = ["--out", str(tmp_path / "out"), "--max-new-tokens", str(TOKENS), "--batch-size", "1"]
    command = [*launch, "-m", "pixelrefer_plugin", *asked, *how]
    result = subprocess.run(command, cwd=site, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    report = report_in(tmp_path / "out")
    assert [(each["label"], each["count"]) for each in report["answers"]] == [("maskpool", 4)]
    assert list(report["not_asked"]) == ["coordinates"]


@pytest.mark.parametrize(
    ("model", "ways", "message"),
    [
        (
            "qwen2_5_vl",
            "saot",
            "'saot' has to be trained: .* saot=FOLDER. Adapters that need no training: .*coord",
        ),
        ("qwen2_5_vl", "x=saot", "x=FOLDER"),
        ("qwen2_5_vl", "coordinate", "No adapter is called 'coordinate'. Did you mean 'coordinates'?"),
        ("qwen2_5_vl", "coordinates[side=3]", "Adapter 'coordinates' has no option 'side'"),
        ("qwen2_5_vl", "coordinates[side]", r"expected OPTION=VALUE in the brackets, got 'side'"),
        ("qwen2_5_vl", "coordinates[", r"Expected NAME, NAME\[OPTION=VALUE,...\], LABEL=NAME, or NAME=FOLDER"),
        (
            "qwen2_5_vl",
            "coordinates,coordinates",
            "2 ways of pointing would be called 'coordinates'.* LABEL=",
        ),
        ("qwen2_5_vl", ",", "There is no adapter to compare"),
        ("qwen2_5_vl", "mine=gone", "there is no folder 'gone' here, and no adapter is called so"),
        ("qwen2_5_vl", "mine=videollama3", "no folder of a trained model, which has a pixelrefer.json"),
        ("qwen2_5_vl", "saot=street", "'street' was made with adapter 'maskpool', not 'saot'"),
        ("qwen2_5_vl", "mine=other", "of type 'video_llama_3', but 'qwen2_5_vl' is of type 'qwen2_5_vl'"),
        ("street", "coordinates", "'street' is the folder of a trained model.* NAME=street"),
    ],
)
def test_what_is_no_way_is_refused_before_anything_is_asked(run, monkeypatch, model, ways, message):
    monkeypatch.setattr(comparing, "ask_in_ways", lambda *given: pytest.fail("it is asked"))
    said = run(model, ways, code=2).stderr
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(" ".join(said.split()))


def test_a_model_of_another_size_is_refused(site, tmp_path):
    wide = tmp_path / "wide"
    config = json.loads((site / "street" / "pixelrefer.json").read_text())
    (wide).mkdir()
    for each in (site / "street").iterdir():
        (wide / each.name).symlink_to(each)
    (wide / "pixelrefer.json").unlink()
    (wide / "pixelrefer.json").write_text(json.dumps({**config, "decoder_width": config["decoder_width"] * 2}))
    with pytest.raises(PixelReferError, match=r"wide: .*model of another size|no regular file|not one of"):
        compare_adapters(site / "qwen2_5_vl", f"coordinates,mine={wide}", str(site / "data.jsonl"), tmp_path / "out")


@pytest.mark.parametrize(
    "option", [["--adapter", "saot"], ["--adapter-option", "a=1"], ["--base"], ["--backbone", "x"]]
)
def test_options_of_one_model_are_refused(run, option):
    assert f"{option[0]} and --adapters exclude each other" in run("qwen2_5_vl", "coordinates", *option, code=2).stderr


# -- from Python -------------------------------------------------------------------------------------------


def test_python_compares_as_the_command_does(run, site, tmp_path):
    run("qwen2_5_vl", "coordinates,maskpool=street", "--device", "cpu")
    backbone, native = get_backbone("qwen2_5_vl").tiny(0)
    before = {name: each.clone() for name, each in backbone.state_dict().items()}
    trains = {name: each.requires_grad for name, each in backbone.named_parameters()}
    report = compare_adapters(
        backbone,
        ["coordinates", f"maskpool={site / 'street'}"],
        str(site / "data.jsonl"),
        tmp_path / "python",
        native_processor=native,
        max_new_tokens=TOKENS,
    )
    [ours] = report.as_json()["benchmarks"]
    theirs = report_in(tmp_path / "out")
    assert ours["ranking"] == theirs["ranking"]
    assert [each["figures"] for each in ours["answers"]] == [each["figures"] for each in theirs["answers"]]
    assert report.benchmarks[0].standing.best == ours["ranking"]["best"]
    assert all(each.equal(before[name]) for name, each in backbone.state_dict().items())
    assert {name: each.requires_grad for name, each in backbone.named_parameters()} == trains
    attach(backbone, native, adapter="coordinates")[0].detach()
    with pytest.raises(EvaluationError, match="needs its own processor"):
        compare_adapters(backbone, "coordinates", str(site / "data.jsonl"), tmp_path / "none")


def test_ways_are_read_as_they_are_written(site, monkeypatch):
    monkeypatch.chdir(site)
    one, two, three = read_ways(["coordinates, few=coordinates[max_frames=2]", "mine=street"])
    assert (one.label, one.adapter, dict(one.options), one.folder) == ("coordinates", "coordinates", {}, "")
    assert (two.label, dict(two.options)) == ("few", {"max_frames": 2})
    assert (three.label, three.adapter, three.folder, three.has_own_backbone) == ("mine", "maskpool", "street", False)
    [unnamed] = read_ways("coordinates[max_frames=4]")
    assert (unnamed.label, unnamed.name_of_folder) == ("coordinates[max_frames=4]", "coordinates-max_frames-4")
    with pytest.raises(CheckpointError):
        read_ways("mine=./gone/away")


# -- which is best -----------------------------------------------------------------------------------------


def estimates(**values):
    from pixelrefer_plugin.authoring import Figure

    every = {label: np.asarray(each, dtype=float) for label, each in values.items()}
    return {
        label: estimate(Figure(name="x", values=each), np.arange(len(each))) for label, each in every.items()
    }  # fmt: skip


def test_a_lead_is_decided_where_its_interval_leaves_out_0():
    found = standing_of(estimates(a=[0.0] * 40, b=[1.0] * 40, c=[1.0] * 20 + [0.0] * 20))
    assert (found.best, list(found.behind), found.is_decided) == ("b", ["c", "a"], True)
    assert told_standing(found, 100.0).startswith("b is best, and that is decided: c, the nearest, is -50.0 (")


def test_a_lead_that_may_be_chance_is_not_decided():
    found = standing_of(estimates(a=[1.0, 0.0] * 10, b=[0.0, 1.0] * 9 + [1.0, 1.0], c=[0.0] * 20))
    assert (found.best, found.undecided, found.is_decided) == ("b", ["a"], False)
    assert "b is best; a -5.0 (" in told_standing(found, 100.0)
    assert "not decided" in told_standing(found, 100.0)


def test_equal_ways_are_level():
    found = standing_of(estimates(a=[1.0, 0.0], b=[1.0, 0.0]))
    assert told_standing(found, 100.0) == "a and b are level: not decided, more questions would tell."
    found = standing_of(estimates(a=[1.0, 0.0], b=[1.0, 0.0], c=[1.0, 0.0]))
    assert told_standing(found, 100.0).startswith("a, b and c are level: ")


def test_what_has_no_figure_has_no_standing():
    assert standing_of(estimates(a=[np.nan, np.nan])) is None
    found = standing_of(estimates(a=[np.nan, np.nan], b=[1.0, 1.0]))
    assert (found.best, found.is_decided, told_standing(found, 100.0)) == ("b", False, "b alone has a figure.")
