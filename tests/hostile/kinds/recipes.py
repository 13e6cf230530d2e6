"""Files of training configurations, and settings written over them."""

from __future__ import annotations

import random
from pathlib import Path

import yaml

from pixelrefer_plugin.training.config import TrainConfig

from ..cases import Try, kind, replaced
from ..mutate import TEXTS, changed, changed_bytes

_SOUND = {
    "model": {"backbone": "builtin:tiny_videollama3", "adapter": "saot", "adapter_config": {"num_tokens": 4}},
    "data": {"train": ["data.jsonl", {"path": "data.jsonl", "weight": 2.0}], "eval": "data.jsonl", "max_tokens": 512},
    "recipe": "lora",
    "lora": {"r": 4, "targets": ["q_proj"]},
    "learning_rates": {"adapter": 1e-3, "lora": None},
    "optim": {"steps": 2, "batch_size": 2, "global_batch_size": 4, "schedule": "linear"},
    "run": {"out": "out", "save_every": None, "report_to": []},
    "evaluation": {"samples": 2},
}
ALIASES = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{each}: &a{each} [{', '.join([f'*a{each - 1}'] * 9)}]\n" for each in range(1, 9)
)
_TEXTS = (
    ALIASES, f"{ALIASES}data: *a8\n", "a: &a [*a]\n", "data: &d {train: *d}\n", "<<: *missing\n", "a: &a {<<: *a}\n",
    "recipe: !!bool maybe\n", "optim: {steps: !!int ''}\n", "optim: {steps: !!int 0x}\n", "recipe: !!float x\n",
    "recipe: !!timestamp x\n", "recipe: !!binary x\n", "recipe: !!python/object/apply:os.system [true]\n",
    "recipe: !!python/name:os.system\n", "recipe: !!set {a, b}\n", "recipe: !!omap [a: 1]\n",
    "recipe: !!pairs [a: 1]\n", "recipe: 2001-99-99\n", "recipe: 1:99:99\n", "recipe: 1_0\n", "? [a, b]\n: c\n",
    "? {a: b}\n: c\n", "[" * 5_000, "{a: " * 5_000, "- " * 5_000, "a: " * 2_000, "!!merge x", "a: 'x",
    "%TAG ! x\n---\n", "---\na: 1\n---\nb: 2\n", "\t a: 1", "a: \x00", "a: 1\na: 2\n", "recipe: " + "9" * 10_000 + "\n",
    "optim: {steps: 1e999999}\n", "x: &x\n- *x\n", "<<: [1, 2]\n", "<<: {a: 1}\n", "<<: 5\n", "recipe: |\n  x\n",
    "=: 1\n", "recipe: =\n", "null: 1\n", "1: 2\n", "[]", "data: {train: !!null ''}\n",
    "recipe: !<tag:yaml.org,2002:int> x\n", "recipe: .inf\n", "recipe: 0b2\n", "0o8: 09\n",
)  # fmt: skip


@kind("recipes", share=8)
def recipes(rng: random.Random, folder: Path) -> Try:
    (folder / "data.jsonl").write_text("{}\n")
    pick = rng.random()
    if pick < 0.25:
        data = rng.choice(_TEXTS).encode("utf-8", "surrogatepass")
    else:
        values = changed(rng, _SOUND) if pick < 0.8 else _SOUND
        data = yaml.safe_dump(values, allow_unicode=True).encode("utf-8", "surrogatepass")
        data = changed_bytes(rng, data) if pick > 0.75 else data
    path = replaced(folder / "recipe.yaml", data.replace(b"data.jsonl", bytes(folder / "data.jsonl")))
    settings = [_setting(rng) for _ in range(rng.choice((0, 0, 1, 3)))]
    return lambda: TrainConfig.load(path, settings).to_yaml()


def _setting(rng: random.Random) -> str:
    sections = (*_SOUND, "data.train.0", "optim.steps", "learning_rates.adapter", "a.b.c", "", ".", "model..x")
    return f"{rng.choice(sections)}{rng.choice(('=', '=', '=', '', '==', ':'))}{rng.choice((*TEXTS, *_TEXTS))}"
