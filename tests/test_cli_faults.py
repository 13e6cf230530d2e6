"""What people and programs give the command line by mistake: each value of each option is refused by name, in one line,
before a model is loaded."""

import json
import os

import click
import huggingface_hub.constants
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from pixelrefer_plugin import attach, get_backbone
from pixelrefer_plugin.cli import main
from pixelrefer_plugin.cli.asking import LoadedModel
from pixelrefer_plugin.errors import PixelReferError

LONG = "a" * 10**6
REACHED = "all of it was taken, and the work would begin"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sound files that a command can be given, and what is none: a folder, a pipe."""
    made = tmp_path_factory.mktemp("faults")
    Image.new("RGB", (120, 80), "white").save(made / "a.png")
    mask = np.zeros((80, 120), dtype=np.uint8)
    mask[10:40, 10:50] = 255
    Image.fromarray(mask).save(made / "mask.png")
    turns = [{"role": "user", "content": "What is <region>?"}, {"role": "assistant", "content": "It."}]
    sample = {"id": "1", "image": "a.png", "regions": [{"box": [1, 1, 9, 9]}], "messages": turns}
    (made / "train.jsonl").write_text(json.dumps(sample) + "\n")
    config = f"model: {{backbone: {made}, adapter: saot}}\ndata: {{train: {made}/train.jsonl}}\n"
    (made / "train.yaml").write_text(config)
    (made / "frames").mkdir()
    for index in range(3):
        Image.new("RGB", (64, 48), (index * 80,) * 3).save(made / "frames" / f"{index}.png")
    backbone, native = get_backbone("videollama3").tiny(0)
    model, processor = attach(backbone, native, adapter="saot")
    model.save_pretrained(made / "model", processor, include_backbone=True)
    model.detach()
    (made / "folder").mkdir()
    os.mkfifo(made / "pipe")
    return made


@pytest.fixture
def run(monkeypatch, folder, tmp_path):
    """Runs a command in an empty folder, off-line, to where work would begin."""

    def reached(*args, **options):
        raise PixelReferError(REACHED)

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    for place in ("entry.load", "training.run.run_training", "official.import_official"):
        monkeypatch.setattr(f"pixelrefer_plugin.{place}", reached)
    monkeypatch.setattr("pixelrefer_plugin.quickstart.run.run_quickstart", reached)
    monkeypatch.setattr(LoadedModel, "open", reached)
    return lambda *arguments, **options: CliRunner().invoke(main, [str(each) for each in arguments], **options)


def sound(command, folder, tmp_path):
    """What a command needs: its arguments by name, and its options."""
    picture, model, data = folder / "a.png", ("--model", folder / "model"), folder / "train.jsonl"
    return {
        "plugins": ({}, ()),
        "describe": ({"path": picture}, (*model, "--box", "1,1,9,9")),
        "segment": ({"path": picture, "text": "it"}, (*model, "--out", tmp_path / "out")),
        "chat": ({"path": folder / "frames"}, model),
        "quickstart": ({}, ()),
        "train": ({"config": folder / "train.yaml", "settings": "run.out=x"}, ()),
        "merge": ({"folder": folder / "model", "out": tmp_path / "out"}, ()),
        "import-official": ({"src": folder / "model", "out": tmp_path / "out"}, ()),
        "validate": ({"files": data}, ()),
        "convert": ({"source": data, "out": tmp_path / "out.jsonl"}, ()),
        "preview": ({"path": data}, ("--out", tmp_path / "sheet.png")),
    }[command]


MAY_END = {"validate": (0, 1, 2), "preview": (0, 2), "convert": (0, 2)}
PARAMETERS = [
    (name, parameter.name)
    for name, command in sorted(main.commands.items())
    for parameter in command.params
    if not getattr(parameter, "is_flag", False) and not getattr(parameter, "count", False)
]


def bad_values(folder):
    return {
        "empty": "",
        "blank": " ",
        "not a number": "nan",
        "infinite": "inf",
        "too large": "1e400",
        "negative": "-1",
        "huge": "9" * 5000,
        "long": LONG,
        "long words": "word " * 200_000,
        "NUL": "a\0b",
        "no UTF-8": "a\udcffb",
        "terminal": "\x1b]0;a\x07",
        "lines": "a\nb\rc",
        "folder": str(folder / "folder"),
        "pipe": str(folder / "pipe"),
        "device": "/dev/null",
        "missing": str(folder / "missing.png"),
        "below a file": str(folder / "a.png" / "b"),
        "deep JSON": "a=" + "[" * 100_000,
        "digits": "a=" + "9" * 5000,
        "no value": "=",
        "pairs": "1,2;3",
        "address": "https://example.org/a.png",
        "picture": str(folder / "a.png"),
    }


@pytest.mark.parametrize(("command", "parameter"), PARAMETERS, ids=lambda value: value)
def test_any_value_of_any_option_is_taken_or_refused_in_a_short_line(run, folder, tmp_path, command, parameter):
    arguments, options = sound(command, folder, tmp_path)
    (given,) = (each for each in main.commands[command].params if each.name == parameter)
    for kind, value in bad_values(folder).items():
        changed = {**arguments, parameter: value} if isinstance(given, click.Argument) else arguments
        extra = () if isinstance(given, click.Argument) else (f"{given.opts[0]}={value}",)
        if given.opts[0] == "-n":
            extra = ("-n", value)
        result = run(command, *options, *extra, "--", *changed.values(), input="")
        told = f"{command} {parameter}, {kind}: {result.exit_code} {result.stderr[-3000:]!r} {result.exception!r}"
        assert isinstance(result.exception, SystemExit | None), told
        assert result.exit_code in ((0, 1, 2) if command in ("validate", "preview", "convert", "plugins") else (2,)), (
            told
        )
        errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
        assert bool(errors) == (result.exit_code == 2), told
        assert all(len(line) < 2200 for line in result.stderr.splitlines()), told
        assert not set("\x1b\x07\0") & set(result.stderr), told
    assert not (folder / "folder" / "x").exists()
