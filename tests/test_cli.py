"""The command line, on a tiny real model and a real photograph."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from pixelrefer_plugin import RegionModel, cli, get_backbone, plugins
from pixelrefer_plugin.cli import main
from pixelrefer_plugin.quickstart import run as quickstart_run

ROOT = Path(__file__).parent.parent
skimage_data = pytest.importorskip("skimage.data")


@dataclasses.dataclass(frozen=True)
class Files:
    """What the commands are given: pictures, masks and models in one folder."""

    root: Path

    def __getattr__(self, name):
        return str(self.root / name.replace("__", "."))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    made = Files(tmp_path_factory.mktemp("cli"))
    Image.fromarray(skimage_data.astronaut()).resize((200, 160)).save(made.astronaut__png)
    mask = np.zeros((160, 200), dtype=np.uint8)
    mask[20:90, 60:120] = 255
    Image.fromarray(mask).save(made.mask__png)
    Path(made.rle__json).write_text(json.dumps({"size": [160, 200], "counts": [500, 700, 32_000 - 1200]}))
    backbone, native = get_backbone("videollama3").tiny(0)
    backbone.save_pretrained(made.plain)
    native.save_pretrained(made.plain)
    model = RegionModel.attach(backbone, adapter="saot")
    model.save_pretrained(made.model, model.make_processor(native), include_backbone=True)
    model.detach()
    return made


@pytest.fixture
def run(monkeypatch):
    """Runs `pixelrefer` in this process, off-line."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return lambda *arguments: CliRunner().invoke(main, [str(each) for each in arguments])


@pytest.fixture
def describe(run, files):
    """Runs `pixelrefer describe` on the photograph, with short answers."""
    return lambda *arguments, model="model": run(
        "describe", files.astronaut__png, "--model", getattr(files, model), "--max-new-tokens", 4, *arguments
    )


def error_line(result, exit_code=2):
    """The one line on stderr of a command that failed as it should, without a traceback."""
    assert result.exit_code == exit_code, result.output
    assert isinstance(result.exception, SystemExit)
    lines = result.stderr.splitlines()
    assert sum(line.startswith("Error: ") for line in lines) == 1
    assert lines[-1].startswith("Error: ")
    return lines[-1]


# -- help and version --------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [[], ["plugins"], ["describe"], ["quickstart"]], ids=" ".join)
def test_every_help_has_an_example(run, command):
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "Example:\n" in result.output
    assert "\n    pixelrefer " in result.output


def test_version(run):
    assert run("--version").output == "pixelrefer, version 0.1.0\n"


def test_the_installed_command(files):
    command = Path(sys.executable).parent / "pixelrefer"
    result = subprocess.run([command, "plugins"], capture_output=True, text=True, check=True)
    assert result.stderr == ""
    assert "saot" in result.stdout


def test_the_generated_docs_are_up_to_date():
    script = [sys.executable, ROOT / "scripts" / "update_docs.py", "--check"]
    result = subprocess.run(script, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


# -- plugins -----------------------------------------------------------------------------------------------


def test_plugins_table(run):
    header, *rows = run("plugins").output.splitlines()
    assert header.split() == ["name", "kind", "distribution", "version", "status"]
    assert "saot" in [row.split()[0] for row in rows]
    start = header.index("kind")
    assert {row[start:].split()[0] for row in rows} <= {"adapter", "backbone", "adapter+backbone"}


def test_plugins_json(run):
    (saot,) = [each for each in json.loads(run("plugins", "--json").output) if each["name"] == "saot"]
    assert saot.pop("status") in ("ready", "loaded")
    assert saot == {
        "name": "saot",
        "kind": "adapter",
        "module": "pixelrefer_saot",
        "distribution": "pixelrefer-plugin",
        "version": "0.1.0",
    }


def test_plugins_check(run, monkeypatch):
    result = run("plugins", "--check")
    assert result.exit_code == 0
    assert all(row.split()[-1] == "loaded" for row in result.output.splitlines()[1:])
    broken = plugins.PluginInfo("x", "adapter", "x", "acme", "1", "broken: fails to load: ValueError: no luck")
    monkeypatch.setattr(plugins, "list_plugins", lambda check: [broken])
    result = run("plugins", "--check")
    assert result.exit_code == 1
    assert "no luck" in result.stdout
    assert run("plugins").exit_code == 0


# -- describe ----------------------------------------------------------------------------------------------


def test_one_region_streams_its_answer(describe):
    result = describe("--box", "10,20,60,90")
    assert result.exit_code == 0, result.output
    streamed = result.stdout
    result = describe("--box", "10,20,60,90", "--json")
    answer = json.loads(result.stdout)["answers"][0]
    assert answer
    assert streamed.strip() == answer


def test_answers_arrive_token_by_token(describe, monkeypatch):
    from transformers import TextStreamer

    calls = []
    monkeypatch.setattr(TextStreamer, "put", lambda self, value: calls.append(value.numel()))
    monkeypatch.setattr(TextStreamer, "end", lambda self: calls.append("end"))
    assert describe("--box", "10,20,60,90").exit_code == 0
    prompt, *tokens, end = calls
    assert prompt > 1
    assert set(tokens) == {1}
    assert end == "end"


def test_every_kind_in_the_order_given(describe, files):
    given = [
        ("points", "30,40;50,60"),
        ("box", "10,20,60,90"),
        ("rle", files.rle__json),
        ("mask", files.mask__png),
        ("box", "100,20,160,90"),
        ("polygon", "10,10,90,20,40,80"),
        ("scribble", "5,5;60,70;100,30"),
        ("points", "1,2"),
        ("rle", json.dumps({"size": [160, 200], "counts": [0, 900, 31_100]})),
    ]
    result = describe("--json", *[each for kind, text in given for each in (f"--{kind}", text)])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [(region["kind"], region["given"]) for region in found["regions"]] == given
    assert all(region["tokens"] >= 1 for region in found["regions"])
    assert len(found["answers"]) == len(given)
    assert found["prompt"] == "Describe <region>."
    assert found["image"] == files.astronaut__png
    assert found["model"] == files.model
    assert found["seconds"] > 0


def test_several_regions_without_a_prompt_are_asked_about_one_by_one(describe):
    alone = [json.loads(describe("--json", "--box", box).stdout) for box in ("10,20,60,90", "90,5,160,80")]
    together = json.loads(describe("--json", "--box", "10,20,60,90", "--box", "90,5,160,80").stdout)
    assert together["answers"] == [each["answers"][0] for each in alone]
    printed = describe("--box", "10,20,60,90", "--box", "90,5,160,80").stdout
    assert [line for line in printed.splitlines() if line.startswith("box ")] == ["box 10,20,60,90", "box 90,5,160,80"]


def test_a_prompt_asks_about_all_regions_at_once(describe):
    question = "Is <region> left of <region>?"
    result = describe("--json", "--box", "10,20,60,90", "--points", "90,50", "--prompt", question)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["prompt"] == question
    assert len(found["answers"]) == 1
    assert len(found["regions"]) == 2


def test_a_prompt_without_regions(describe):
    found = json.loads(describe("--json", "--prompt", "which colours are there?").stdout)
    assert found["regions"] == []
    assert len(found["answers"]) == 1


def test_a_plain_backbone_works_and_warns(describe):
    result = describe("--box", "10,20,60,90", "--adapter", "maskpool", "--json", model="plain")
    assert result.exit_code == 0, result.output
    assert "Warning: " in result.stderr
    assert "its adapter 'maskpool' is untrained" in result.stderr
    assert len(json.loads(result.stdout)["answers"]) == 1


def test_a_model_folder_does_not_warn(describe):
    assert "Warning" not in describe("--box", "10,20,60,90", "--json").stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--box", "60,20,10,90"], "Invalid value for '--box': A box must have x1 < x2 and y1 < y2"),
        (["--box", "ten,20,60,90"], "Expected numbers separated by commas, got 'ten,20,60,90'"),
        (["--box", "10 20 60 90"], "Invalid value for '--box': Expected numbers separated by commas"),
        (["--box", "nan,20,60,90"], "Invalid value for '--box': A box must be finite"),
        (["--box", "10,20,60"], "must be four numbers"),
        (["--box", ""], "Invalid value for '--box'"),
        (["--box", "10,20,600,90"], "--box 10,20,600,90: The box (10.0, 20.0, 600.0, 90.0) reaches (600, 90), outside"),
        (["--mask", "gone.png"], "Invalid value for '--mask': Mask 'gone.png' cannot be read: No such file"),
        (["--polygon", "1,2,3,4"], "Invalid value for '--polygon': A polygon needs three or more"),
        (["--points", "1,2,3"], "Invalid value for '--points': Points must be one or more (x, y)"),
        (["--points", "1,2;"], "Invalid value for '--points'"),
        (["--scribble", "1,2"], "Invalid value for '--scribble': A scribble needs at least two points"),
        (["--rle", "gone.json"], "Invalid value for '--rle': Expected JSON or a JSON file, got 'gone.json'"),
        (["--rle", "{'size': 3}"], "Invalid value for '--rle': Expected JSON {'size': [height, width], "),
        (["--rle", '{"size": [2, 2]}'], "Invalid value for '--rle': An RLE must be a mapping with"),
        (["--rle", '{"size": [2, 2], "counts": [1, 3]}'], "width 2 and height 2 but its image is of width 200"),
        (["--box", "1,1,9,9", "--prompt", "what is it?"], "The prompt has 0 <region> but 1 regions were given"),
        (["--prompt", "<region>?"], "The prompt has 1 <region> but 0 regions were given"),
        (["--box", "1,1,9,9", "--prompt", "<region> <|region_pad|>"], "special token '<|region_pad|>'"),
        ([], "Give a region (--box, --mask, --polygon, ...), or a --prompt"),
        (["--box", "1,1,9,9", "--adapter", "maskpool"], "was made with adapter 'saot', not 'maskpool'"),
        (["--box", "1,1,9,9", "--max-new-tokens", "0"], "Invalid value for '--max-new-tokens'"),
        (["--box", "1,1,9,9", "--frobnicate"], "No such option"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(describe, arguments, message):
    assert message in error_line(describe(*arguments))


def test_an_unknown_adapter_suggests_the_nearest(describe):
    result = describe("--box", "1,1,9,9", "--adapter", "soat", model="plain")
    assert "No adapter is called 'soat'. Did you mean 'saot'?" in error_line(result)


@pytest.mark.parametrize(
    ("image", "message"),
    [("gone.png", "Image '{}' cannot be read: No such file"), ("rle.json", "Image '{}' is not a picture")],
)
def test_bad_images(run, files, image, message):
    path = str(files.root / image)
    result = run("describe", path, "--model", files.model, "--box", "1,1,9,9")
    assert message.format(path) in error_line(result)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("./no-such-folder", "Expected a model folder at './no-such-folder', found none"),
        ("nobody/no-such-model", "No model can be loaded from 'nobody/no-such-model'"),
        ("not an id", "No model can be loaded from 'not an id'"),
    ],
)
def test_unknown_models(run, files, model, message):
    result = run("describe", files.astronaut__png, "--model", model, "--adapter", "saot", "--box", "1,1,9,9")
    assert message in error_line(result)


def test_a_folder_that_is_no_model(run, files, tmp_path):
    result = run("describe", files.astronaut__png, "--model", tmp_path, "--box", "1,1,9,9")
    assert f"No model can be loaded from '{tmp_path}'" in error_line(result)


def test_a_plain_backbone_without_its_processor(run, files, tmp_path):
    get_backbone("videollama3").tiny(0)[0].save_pretrained(tmp_path)
    result = run("describe", files.astronaut__png, "--model", tmp_path, "--box", "1,1,9,9")
    assert str(tmp_path) in error_line(result)


def test_a_backbone_that_no_plugin_serves(run, files, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    result = run("describe", files.astronaut__png, "--model", tmp_path, "--box", "1,1,9,9")
    assert "No installed backbone plugin serves model type 'gpt2'" in error_line(result)


def test_cuda_that_is_not_there(describe, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "torch finds no CUDA device here" in error_line(describe("--box", "1,1,9,9", "--device", "cuda"))
    assert describe("--box", "1,1,9,9", "--device", "auto").exit_code == 0


def test_a_network_failure_is_one_line(describe, monkeypatch):
    def fail(*args, **kwargs):
        raise ConnectionError("the hub\nis away")

    monkeypatch.setattr(RegionModel, "from_pretrained", fail)
    assert error_line(describe("--box", "1,1,9,9")).endswith("cannot be loaded: the hub is away")


# -- quickstart --------------------------------------------------------------------------------------------


def test_quickstart_passes_its_options_on(run, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(quickstart_run, "run_quickstart", lambda options: seen.append(options))
    assert run("quickstart").exit_code == 0
    assert run(
        "quickstart", "--backbone", "qwen2_5_vl", "--adapter", "maskpool", "--from-scratch",
        "--steps", 7, "--seed", 3, "--out", tmp_path, "--overwrite",
    ).exit_code == 0  # fmt: skip
    assert seen == [
        quickstart_run.QuickstartOptions(),
        quickstart_run.QuickstartOptions(
            backbone="qwen2_5_vl",
            adapter="maskpool",
            from_scratch=True,
            steps=7,
            seed=3,
            out=tmp_path,
            overwrite=True,
        ),
    ]


def test_quickstart_says_which_extra_is_missing(run, monkeypatch):
    def fail(options):
        raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn.datasets")

    monkeypatch.setattr(quickstart_run, "run_quickstart", fail)
    assert "needs sklearn, which is missing: pip install 'pixelrefer-plugin[quickstart]'" in error_line(
        run("quickstart")
    )


def test_quickstart_hides_no_other_import_error(run, monkeypatch):
    def fail(options):
        raise ImportError("a bug of ours")

    monkeypatch.setattr(quickstart_run, "run_quickstart", fail)
    assert isinstance(run("quickstart").exception, ImportError)


def test_quickstart_bad_input_is_one_line(run, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    assert str(tmp_path) in error_line(run("quickstart", "--out", tmp_path))
    assert "No backbone is called 'vidollama3'. Did you mean 'videollama3'?" in error_line(
        run("quickstart", "--backbone", "vidollama3", "--out", tmp_path / "new")
    )
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_the_host_catches_only_its_own_errors(run, monkeypatch):
    def fail(**options):
        raise KeyError("a bug of ours")

    monkeypatch.setattr(cli.plugins, "callback", fail)
    assert isinstance(run("plugins").exception, KeyError)
