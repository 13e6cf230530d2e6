"""Model folders, LoRA and official checkpoints: each of their files damaged, and files that bring code."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pixelrefer_plugin import Region, RegionModel, RegionProcessor, attach, get_backbone

from ..cases import Try, kind, linked, replaced, template
from ..mutate import TEXTS, changed_bytes, changed_json, nasty

CODE = "raise SystemExit('this code has run')\n"
_TEMPLATES = (
    "{{ 1 / 0 }}", "{% for a in range(10 ** 9) %}{% endfor %}", "{{ 'x' * 10 ** 11 }}",
    "{{ messages.__class__.__mro__ }}", "{{ cycler.__init__.__globals__.os.system('true') }}",
    "{{ raise_exception('no') }}", "{% include '/etc/passwd' %}", "{{ messages[99].role }}",
    "{{ " + "(" * 5_000 + " }}", "{% if %}", "{{ undefined.name }}", "", "{{ messages }}",
    "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "{{ range(10 ** 9) | list }}", "{{ (9 ** 9) ** 9 ** 3 }}",
)  # fmt: skip


def model_folder(lora: bool = True) -> Path:
    """A small whole model folder, with LoRA or without."""
    return template("model-lora" if lora else "model", lambda folder: _write_model(folder, lora=lora)) / "model"


def _write_model(folder: Path, *, lora: bool) -> None:
    bare, native = get_backbone("videollama3").tiny(0)
    model, processor = attach(bare, native, adapter="saot", adapter_config={"num_tokens": 2}, train_backbone=True)
    if lora:
        model.add_lora(r=2)
    model.save_pretrained(folder / "model", processor)


@kind("model folders", share=4)
def model_folders(rng: random.Random, folder: Path) -> Try:
    made = linked(model_folder(lora=rng.random() < 0.3), folder / "model")
    damage(rng, made, _files(made))
    return _loaded(rng, made)


@kind("processor files", share=5)
def processor_files(rng: random.Random, folder: Path) -> Try:
    made = linked(model_folder(), folder / "model")
    damage(rng, made, _files(made / "processor"))
    return lambda: _answer(RegionProcessor.from_pretrained(made))


@kind("lora folders", share=3)
def lora_folders(rng: random.Random, folder: Path) -> Try:
    made = linked(model_folder(), folder / "model")
    damage(rng, made, _files(made / "lora"))
    return lambda: RegionModel.from_pretrained(made)


@kind("code in folders", share=2)
def code_in_folders(rng: random.Random, folder: Path) -> Try:
    """Folders that ask for code of theirs to be run."""
    made = linked(model_folder(), folder / "model")
    place = made / rng.choice(("processor", "backbone", "lora", "."))
    replaced(place / "evil.py", CODE)
    file = rng.choice(sorted(place.glob("*.json")) or [made / "processor" / "config.json"])
    classes = ("AutoTokenizer", "AutoProcessor", "AutoConfig", "AutoImageProcessor", "AutoModel", "AutoVideoProcessor")
    values = json.loads(file.read_text())
    values["auto_map"] = {each: ["evil.X", "evil.X"] if each == "AutoTokenizer" else "evil.X" for each in classes}
    for name in rng.sample(
        ("tokenizer_class", "processor_class", "image_processor_type", "model_type", "peft_type"), 2
    ):
        values[name] = rng.choice(("X", "evil.X", "subprocess.Popen", "../evil"))
    replaced(file, json.dumps(values))
    return _loaded(rng, made)


@kind("official checkpoints", share=2)
def official_checkpoints(rng: random.Random, folder: Path) -> Try:
    from pixelrefer_plugin.official.importing import import_official

    made = linked(template("official", _write_official), folder / "official")
    damage(rng, made, _files(made))
    return lambda: import_official(made / "checkpoint", folder / "model")


def _write_official(folder: Path) -> None:
    from official_checkpoint import official

    official().write(folder / "checkpoint", "bin")


def _loaded(rng: random.Random, made: Path) -> Try:
    use = rng.choice(("model", "model", "both"))

    def try_it() -> None:
        model = RegionModel.from_pretrained(made)
        if use == "both":
            processor = RegionProcessor.from_pretrained(made)
            model.generate(**_answer(processor), max_new_tokens=2)

    return try_it


def _answer(processor: RegionProcessor) -> Any:
    """A question as the processor writes it."""
    parts = [{"type": "image", "image": np.zeros((60, 80, 3), np.uint8)}, {"type": "text", "text": "What is <region>?"}]
    inputs = processor([{"role": "user", "content": parts}], [Region.from_box((5, 5, 30, 40))])
    processor.decode(inputs["input_ids"], inputs)
    return inputs


# -- damage ------------------------------------------------------------------------------------------------


def _files(folder: Path) -> list[Path]:
    return sorted(each for each in folder.rglob("*") if each.is_file())


def damage(rng: random.Random, root: Path, files: list[Path]) -> None:
    """Make one of a folder's files, or two, what they should not be."""
    for path in rng.sample(files, rng.choice((1, 1, 1, 2))):
        ways: tuple[Callable[..., None], ...] = _BY_SUFFIX.get(path.suffix, (_other_bytes,))
        (rng.choice(ways) if rng.random() < 0.85 else rng.choice(_ANY))(rng, root, path)


def _other_bytes(rng: random.Random, root: Path, path: Path) -> None:
    replaced(path, changed_bytes(rng, path.read_bytes()))


def _other_fields(rng: random.Random, root: Path, path: Path) -> None:
    try:
        values = json.loads(path.read_bytes())
    except ValueError:
        _other_bytes(rng, root, path)
        return
    if isinstance(values, dict) and rng.random() < 0.3:
        values[rng.choice((*_FIELDS, *TEXTS))] = rng.choice((nasty(rng), 10**6, "auto", {"a": "b"}))
    replaced(path, changed_json(rng, values))


_FIELDS = (
    "auto_map", "tokenizer_class", "architectures", "model_type", "quantization_config", "dtype", "torch_dtype",
    "attn_implementation", "_attn_implementation", "chat_template", "num_hidden_layers", "vocab_size", "r",
    "rank_pattern", "target_modules", "layers_to_transform", "modules_to_save", "peft_type", "bias",
    "init_lora_weights", "use_dora", "trainable_token_indices", "base_model_name_or_path", "backbone_id",
    "adapter_config", "eos_token_id", "cache_dir",
)  # fmt: skip


def _other_header(rng: random.Random, root: Path, path: Path) -> None:
    """Other names, types, shapes or offsets in a safetensors file, or other values."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    names = [name for name in header if name != "__metadata__"]
    pick, name = rng.random(), rng.choice(names)
    if pick < 0.25:
        made = changed_json(rng, header)
    elif pick < 0.5:
        header[name]["dtype"] = rng.choice(("F16", "BF16", "I32", "F64", "F8_E4M3", "BOOL", "U8", "X"))
        made = json.dumps(header).encode()
    elif pick < 0.75:
        header[name]["shape"] = rng.choice(([], [0], header[name]["shape"][::-1], [2**40], [1, *header[name]["shape"]]))
        made = json.dumps(header).encode()
    else:
        data = data[: 8 + length] + b"\xff\xff\xff\x7f" * ((len(data) - 8 - length) // 4)  # NaN
        made = data[8 : 8 + length]
    replaced(path, struct.pack("<Q", len(made)) + made + data[8 + length :])


class _Runs:
    """What pickle makes a call of."""

    def __reduce__(self) -> Any:
        return os.system, ("true",)


def _other_pickle(rng: random.Random, root: Path, path: Path) -> None:
    made = rng.choice(({"w": _Runs()}, _Runs(), [1, 2], {"w": torch.ones(1)}, {}, {"w": None}, {1: torch.ones(2)}, "x"))
    file = io.BytesIO()
    if rng.random() < 0.5:
        torch.save(made, file)
    else:
        pickle.dump(made, file)
    replaced(path, file.getvalue())


def _as_pickle(rng: random.Random, root: Path, path: Path) -> None:
    path.unlink()
    _other_pickle(rng, root, path.with_name("pytorch_model.bin"))


def _other_template(rng: random.Random, root: Path, path: Path) -> None:
    replaced(path, rng.choice(_TEMPLATES))


def _nothing(rng: random.Random, root: Path, path: Path) -> None:
    path.unlink()


def _empty(rng: random.Random, root: Path, path: Path) -> None:
    replaced(path, b"")


def _folder(rng: random.Random, root: Path, path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(rng: random.Random, root: Path, path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _link(rng: random.Random, root: Path, path: Path) -> None:
    path.unlink()
    path.symlink_to(rng.choice((path, "/dev/zero", "missing", "/etc/passwd")))


def _exchanged(rng: random.Random, root: Path, path: Path) -> None:
    replaced(path, rng.choice(_files(root)).read_bytes())


_ANY = (_nothing, _empty, _folder, _pipe, _link, _exchanged, _other_bytes)
_BY_SUFFIX: dict[str, tuple[Callable[..., None], ...]] = {
    ".json": (_other_fields, _other_fields, _other_fields, _other_bytes),
    ".jinja": (_other_template, _other_template, _other_bytes),
    ".safetensors": (_other_header, _other_header, _other_bytes, _as_pickle),
    ".bin": (_other_pickle, _other_bytes),
    ".pt": (_other_pickle, _other_bytes),
    ".pth": (_other_pickle, _other_bytes),
}
