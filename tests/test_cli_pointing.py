"""Commands on a plain backbone: it is asked with an adapter that needs no training, which is told."""

import dataclasses
import json

import pytest
from click.testing import CliRunner
from conftest import picture
from PIL import Image

from pixelrefer_plugin import get_adapter, get_backbone, load, plugins
from pixelrefer_plugin.cli import main
from pixelrefer_plugin.cli.asking import choose_adapter
from pixelrefer_plugin.errors import PluginError


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A plain backbone whose plugin names `coordinates`, a picture, and a data file."""
    folder = tmp_path_factory.mktemp("pointing")
    backbone, native = get_backbone("qwen2_5_vl").tiny(0)
    backbone.save_pretrained(folder / "plain")
    native.save_pretrained(folder / "plain")
    Image.fromarray(picture(60, 80)).save(folder / "a.png")
    turns = [{"role": "user", "content": "What is <region>?"}, {"role": "assistant", "content": "cat"}]
    sample = {"id": "1", "image": "a.png", "regions": [{"box": [4, 4, 30, 30]}], "messages": turns}
    (folder / "data.jsonl").write_text(json.dumps(sample) + "\n")
    return folder


@pytest.fixture
def run(monkeypatch, site):
    """Runs a command in the folder of the files."""
    monkeypatch.chdir(site)
    return lambda *words, code=0, **options: _checked(CliRunner().invoke(main, [*map(str, words)], **options), code)


def _checked(result, code):
    assert result.exit_code == code, result.output
    return result


TOLD = "Asking 'plain' with adapter 'coordinates', which needs no training. --adapter names another.\n"


def test_describe_says_which_adapter_it_takes(run):
    asked = ("describe", "a.png", "--model", "plain", "--max-new-tokens", 2, "--json")
    result = run(*asked, "--box", "4,4,30,30", "--points", "9,9")
    told = json.loads(result.stdout)
    assert TOLD in result.stderr
    assert told["adapter"] == "coordinates"
    assert [each["tokens"] for each in told["regions"]] == [0, 0]
    assert json.loads(run(*asked, "--prompt", "What is this?").stdout)["regions"] == []


def test_an_adapter_that_is_named_is_taken(run):
    asked = ("describe", "a.png", "--model", "plain", "--max-new-tokens", 2, "--box", "4,4,30,30")
    assert run(*asked, "--adapter", "coordinates").stderr == ""
    learned = run(*asked, "--adapter", "maskpool", "--json")
    assert "its adapter 'maskpool' is untrained: what it says about regions means nothing yet" in learned.stderr
    assert json.loads(learned.stdout)["regions"][0]["tokens"] > 0
    assert (
        "has no option 'side'. Its options: convention, max_frames"
        in run(*asked, "--adapter-option", "side=3", code=2).stderr
    )
    run(*asked, "--adapter-option", "max_frames=3")


def test_a_chat_calls_objects_by_number(run):
    lines = "/box 4 4 30 30 cat\nWhat is [1]?\n/segment it\n"
    result = run("chat", "a.png", "--model", "plain", "--max-new-tokens", 2, input=lines)
    assert result.stderr.startswith(TOLD)
    assert "[1] cat: box 4, 4, 30, 30" in result.stdout
    assert "gives no masks" in result.stderr


def test_predict_keeps_the_adapter_in_its_fingerprint(run, tmp_path):
    asked = ("predict", "plain", "data.jsonl", "--out", tmp_path / "a.jsonl", "--max-new-tokens", 2)
    assert TOLD in run(*asked).stderr
    assert json.loads((tmp_path / "a.jsonl.run.json").read_text())["adapter"] == "coordinates"
    assert "has all 1 answers already" in run(*asked, "--adapter", "coordinates").stdout
    assert "adapter: 'coordinates' there, 'maskpool' now" in run(*asked, "--adapter", "maskpool", code=2).stderr


def test_evaluate_keeps_the_adapter_in_its_fingerprint(run, tmp_path):
    asked = ("evaluate", "plain", "data.jsonl", "--out", tmp_path / "out", "--max-new-tokens", 2)
    assert TOLD in run(*asked).stderr
    assert TOLD not in run(*asked).stderr, "nothing is asked again"
    assert json.loads((tmp_path / "out/data/answers.jsonl.run.json").read_text())["adapter"] == "coordinates"


def test_without_the_backbones_own_another_one_is_taken(monkeypatch, site):
    monkeypatch.chdir(site)
    own = dataclasses.replace(get_backbone("qwen2_5_vl"), pointing="pointing-stick")
    monkeypatch.setattr("pixelrefer_plugin.weights.opening.backbone_for", lambda *given: own)
    chosen = choose_adapter("plain", None)
    assert get_adapter(chosen.name).is_training_free
    assert chosen.told.startswith(
        f"Asking 'plain' with adapter '{chosen.name}', which needs no training: 'pointing-stick'"
    )
    assert "is not among the installed adapters. --adapter names another." in chosen.told
    monkeypatch.setattr("pixelrefer_plugin.cli.asking.training_free", list)
    with pytest.raises(PluginError, match="Write --adapter NAME with one of the installed adapters"):
        choose_adapter("plain", None)


def test_python_does_not_choose_but_lists(site):
    with pytest.raises(PluginError, match=r"Write adapter=NAME .*: .*coordinates.* \(need no training\); .*maskpool"):
        load(site / "plain")


def test_a_model_folder_brings_its_own(run, site, tmp_path):
    model, processor = load(site / "plain", adapter="coordinates")
    model.save_pretrained(tmp_path / "model", processor)
    asked = ("describe", "a.png", "--model", tmp_path / "model", "--box", "4,4,30,30", "--max-new-tokens", 2)
    assert run(*asked).stderr == ""
    assert "brings its adapter's options" in run(*asked, "--adapter-option", "max_frames=3", code=2).stderr


def test_validate_counts_the_tokens_of_a_named_adapter_alone(run):
    assert "Write --adapter NAME" in run("validate", "data.jsonl", "--model", "plain", code=2).stderr
    run("validate", "data.jsonl", "--model", "plain", "--adapter", "coordinates")


# -- plugins -----------------------------------------------------------------------------------------------


def test_plugins_tells_what_needs_no_training(run):
    assert "Adapters that need no training: " in run("plugins").stdout
    listed = {each["name"]: each["training_free"] for each in json.loads(run("plugins", "--json").stdout)}
    assert listed["coordinates"] == ["coordinates"]
    assert listed["saot"] == []


def test_what_a_source_tells_is_what_is_registered():
    told = {each.name: each.training_free for each in plugins.PluginHost().plugins() if each.kind == "adapter"}
    loaded = {each.name: each.training_free for each in plugins.PluginHost().plugins(check=True) if each.name in told}
    assert told == loaded
