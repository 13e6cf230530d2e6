"""Options and arguments of the command line, and lines of a chat."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import click
import numpy as np
from click.testing import CliRunner
from PIL import Image

from pixelrefer_plugin.cli import main

from ..cases import MOST_CHARACTERS, Try, kind
from ..mutate import TEXTS, json_text, nasty
from .models import model_folder

_TEXTS = [text for text in TEXTS if len(text) < 10_000]  # click says all of a value that it refuses
_REGION = "--box=5,5,30,40"
_REGIONS = (
    "--box=1e999,0,1,1", "--box=nan,nan,nan,nan", "--box=5,5", "--box=0.1,0.1,0.5,0.5", "--box=a,b,c,d",
    "--box=1e300,0,2,2", "--polygon=5,5,40,8,20,40", "--polygon=1,1", "--polygon=" + "1,2," * 5_000 + "1,2",
    "--points=8,8", "--points=8,8;9", "--points=1e308,1e308", "--scribble=3,3;30,30", "--scribble=3,3", "--at=0",
    "--at=99999999999", "--at=1e400s", "--at=-1", "--at=nans", "--mask=MASK", "--mask=PICTURE", "--mask=/dev/zero",
    "--rle={}", "--rle=[", "--rle=/dev/zero", '--rle={"size": [60, 80], "counts": [100, 20, 4680]}',
    '--rle={"size": [1e9, 1e9], "counts": [0]}', "--rle=" + "[" * 5_000,
)  # fmt: skip
# Sound commands, each with what makes it short.
_COMMANDS: dict[str, tuple[str, ...]] = {
    "describe": ("MEDIA", "--model=MODEL", "--max-new-tokens=2", "--device=cpu", _REGION),
    "segment": ("MEDIA", "a car", "--model=MODEL", "--max-new-tokens=2", "--device=cpu", "--out=OUT"),
    "validate": ("DATA", "--workers=1"),
    "convert": ("DATA", "OUT.jsonl"),
    "preview": ("DATA", "--out=OUT.png"),
    "train": ("RECIPE", "--dry-run", "data.workers=0"),
    "merge": ("MODEL", "OUT"),
    "import-official": ("MODEL", "OUT"),
    "plugins": (),
}
_SETTINGS = (
    "model.attn_implementation", "model.dtype", "model.quantize", "lora.targets", "data.train", "optim.steps", "recipe",
    "model.adapter_config", "learning_rates.adapter", "data.max_pixels", "model.tokens", "model.backbone",
    "data.max_tokens",
)  # fmt: skip
_CHAT = (
    "/click {}", "/click 8 8 {}", "/box {}", "/box 5 5 30 40 {}", "/mask {}", "/mask MASK {}", "/segment {}",
    "/objects {}", "/rename {}", "/rename 1 {}", "/drop {}", "/draw OUT/{}", "/save OUT/{}", "/load {}", "/undo {}",
    "/help {}", "/{}", "{}", "[1] {}", "/click 8 8", "/box 5 5 30 40 car", "What is [1]?", "/objects", "/undo",
)  # fmt: skip


@kind("commands", share=8)
def commands(rng: random.Random, folder: Path) -> Try:
    files = _files(folder)
    name = rng.choice(("describe", "describe", *_COMMANDS))
    given = [name, *_COMMANDS[name]]
    for _ in range(rng.choice((1, 1, 2))):
        _changed(rng, name, given)
    files["MEDIA"] = rng.choice((files["PICTURE"], files["PICTURE"], files["FRAMES"]))
    return lambda: _call([_named(each, files) for each in given])


def _changed(rng: random.Random, name: str, given: list[str]) -> None:
    """Another argument, region, setting or option of the command."""
    pick = rng.random()
    if pick < 0.15 and len(given) > 1:
        at = rng.randrange(1, len(given))
        value = rng.choice((*_TEXTS, "FRAMES", "DATA", "/dev/zero", "MASK"))
        given[at] = f"OUT/{value}" if "OUT" in given[at] else value
    elif pick < 0.5 and name in ("describe", "segment"):
        given.append(rng.choice(_REGIONS))
    elif pick < 0.6 and name in ("train", "validate"):
        value = rng.choice((*_TEXTS, "spda", "flash_attention_2", "[1, 2]", "{a: b}", "1e9"))
        given.append(f"{rng.choice(_SETTINGS)}={value}")
    else:
        option = rng.choice([each for each in main.commands[name].params if isinstance(each, click.Option)])
        value = rng.choice(_TEXTS) if rng.random() < 0.7 else json_text(nasty(rng))[:5_000]
        if isinstance(option.type, click.Path) or (option.metavar or "").startswith(("DIR", "FILE", "OUT")):
            # Anybody may write where they like, but not here.
            value = f"OUT/{value}"
        given.append(option.opts[-1] if option.is_flag else f"{option.opts[-1]}={value}")


def _files(folder: Path) -> dict[str, str]:
    """What stands in for the names in the arguments."""
    black, mask = np.zeros((60, 80, 3), np.uint8), np.zeros((60, 80), np.uint8)
    mask[5:30, 5:40] = 255
    (folder / "frames").mkdir()
    for name in ("a.png", "frames/0.png", "frames/1.png"):
        Image.fromarray(black).save(folder / name)
    Image.fromarray(mask).save(folder / "mask.png")
    turns = [{"role": "user", "content": "What is <region>?"}, {"role": "assistant", "content": "A car."}]
    record = {"image": "a.png", "regions": [{"box": [4, 4, 30, 30]}], "messages": turns}
    (folder / "data.jsonl").write_text(json.dumps(record))
    recipe = {
        "model": {"backbone": "builtin:tiny_videollama3", "adapter": "saot"},
        "data": {"train": str(folder / "data.jsonl")},
        "run": {"out": str(folder / "run")},
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    names = {"PICTURE": "a.png", "MASK": "mask.png", "FRAMES": "frames", "DATA": "data.jsonl", "RECIPE": "recipe.yaml"}
    made = {name: str(folder / path) for name, path in (*names.items(), ("OUT", "out"))}
    return {**made, "MODEL": str(model_folder())}


def _named(text: str, files: dict[str, str]) -> str:
    for name, path in files.items():
        text = text.replace(name, path)
    return os.fsdecode(text.replace("\0", "").encode("utf-8", "surrogatepass"))  # as a shell may give it


@kind("chat lines", share=2)
def chat_lines(rng: random.Random, folder: Path) -> Try:
    files = _files(folder)
    (folder / "out").mkdir()
    lines = [rng.choice(_CHAT).format(rng.choice(_TEXTS)) for _ in range(6)]
    text = os.fsencode(_named("\n".join(lines), files))
    given = ["chat", files[rng.choice(("PICTURE", "FRAMES"))], f"--model={files['MODEL']}", "--max-new-tokens=2"]
    return lambda: _call([*given, "--device=cpu"], text)


def _call(given: list[str], text: bytes = b"") -> None:
    """A command, whose errors are told in a few words, and none as a traceback."""
    result = CliRunner().invoke(main, given, input=text)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code in (0, 1, 2), f"exit code {result.exit_code}"
    told = result.output.rpartition("Error: ")[2]
    assert "Traceback (most recent call last)" not in result.output, told[-2_000:]
    assert result.exit_code == 0 or len(told) < MOST_CHARACTERS, f"an error of {len(told)} characters"
