"""Folders of training runs that `--resume` goes on with: each file of their checkpoints damaged."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from pixelrefer_plugin.training.config import TrainConfig
from pixelrefer_plugin.training.run import run_training

from ..cases import Try, kind, linked, template
from .models import _files, damage


@kind("checkpoints", share=2)
def checkpoints(rng: random.Random, folder: Path) -> Try:
    source = template("run", _write_run)
    out = linked(source / "out", folder / "out")
    files = [each for each in _files(out / "checkpoints") if "model" not in each.parts or rng.random() < 0.2]
    damage(rng, out, files)
    return lambda: _train(source, out, resume=True)


def _write_run(folder: Path) -> None:
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(folder / "a.png")
    turns = [{"role": "user", "content": "What is <region>?"}, {"role": "assistant", "content": "A car."}]
    record = {"image": "a.png", "regions": [{"box": [4, 4, 30, 30]}], "messages": turns}
    (folder / "data.jsonl").write_text("".join(f"{json.dumps({'id': str(each), **record})}\n" for each in range(4)))
    _train(folder, folder / "out", resume=False)
    shutil.rmtree(folder / "out" / "model")
    for record in folder.glob("out/checkpoints/*/run.json"):  # the folder goes to its place when it is whole
        record.write_text(record.read_text().replace(str(folder), str(folder.with_name("run"))))


def _train(source: Path, out: Path, *, resume: bool) -> None:
    """Two steps, with a checkpoint after the first; resumed, the second one."""
    config = TrainConfig.from_mapping(
        {
            "model": {
                "backbone": "builtin:tiny_videollama3", "adapter": "saot", "adapter_config": {"num_tokens": 2},
            },
            "data": {"train": str(source / "data.jsonl"), "workers": 0},
            "optim": {"steps": 3 if resume else 2},
            "run": {"out": str(out), "save_every": 2, "keep": 1, "report_to": []},
        }
    )  # fmt: skip
    run_training(config, resume=resume, console=Console(quiet=True))
