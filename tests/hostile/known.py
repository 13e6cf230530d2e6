"""Inputs that once did harm, each with its right outcome."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import resource
import signal
import struct
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image

from pixelrefer_plugin import DataError, Region, RegionDataset, RegionModel, RegionProcessor, load_image
from pixelrefer_plugin.data.checks import check_dataset
from pixelrefer_plugin.data.convert import convert_dataset
from pixelrefer_plugin.data.plain_pickle import read_plain_pickle
from pixelrefer_plugin.data.preview import draw_sheet
from pixelrefer_plugin.training.config import TrainConfig

from .cases import Try, kind, linked, replaced
from .guard import INSTALLED
from .kinds.conversations import small_processor
from .kinds.models import CODE, model_folder
from .kinds.plugins import METADATA, POINTS, installed, read_sound_samples
from .kinds.recipes import ALIASES

Right = Literal["named", "returned", "sound"]


class Known(NamedTuple):
    """A fixed input. `right` is the only verdict that is right; `sound`: an error of this package or a result."""

    make: Callable[[Path], Try]
    right: Right


KNOWN: dict[str, Known] = {}


def known(right: Right) -> Callable[[Callable[[Path], Try]], Callable[[Path], Try]]:
    """Registers a function that writes an input into a folder and returns what is tried, by its name."""

    def register(make: Callable[[Path], Try]) -> Callable[[Path], Try]:
        KNOWN[make.__name__] = Known(make, right)
        return make

    return register


@kind("known", share=0)
def known_inputs(rng: random.Random, folder: Path) -> Try:
    """They are numbered by the names of their folders."""
    return list(KNOWN.values())[int(folder.name.rpartition("-")[2])].make(folder)


# -- files of samples --------------------------------------------------------------------------------------

_TURNS = [{"role": "user", "content": "What is <region>?"}, {"role": "assistant", "content": "A car."}]


def _picture(folder: Path, name: str = "a.png") -> None:
    Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(folder / name)


def _record(folder: Path, region: str) -> Path:
    _picture(folder)
    text = f'{{"image": "a.png", "regions": [{region}], "messages": {json.dumps(_TURNS)}}}'
    return replaced(folder / "data.jsonl", text)


def _coco(folder: Path, name: str = "coco.json", **fields: str) -> Path:
    """A file of one annotation, whose fields are JSON."""
    _picture(folder)
    written = {"id": "1", "image_id": "1", "category_id": "1", "bbox": "[1, 1, 5, 5]", **fields}
    annotation = ", ".join(f'"{key}": {value}' for key, value in written.items())
    images, categories = '[{"id": 1, "file_name": "a.png"}]', '[{"id": 1, "name": "car"}]'
    return replaced(
        folder / name, f'{{"images": {images}, "annotations": [{{{annotation}}}], "categories": {categories}}}'
    )


def _defects(path: Path, format: str = "auto") -> None:
    """All of its samples have defects, and all of those can be told."""
    for checked in check_dataset(RegionDataset.open(path, format=format), workers=1):
        assert checked.defects
        assert all(len(defect.message) < 1_000 for defect in checked.defects)


@known("returned")
def radius_overflow(folder: Path) -> Try:
    """A click as large as the picture, and larger."""
    path = _record(folder, '{"points": [[5, 5]], "radius": 1e200}')
    return lambda: list(check_dataset(RegionDataset.open(path), workers=1))


@known("returned")
def deep_box(folder: Path) -> Try:
    """Of a depth that the reader of JSON may still take, and `repr` does not."""

    def try_it() -> None:
        for depth in range(900, 1_000, 2):
            with contextlib.suppress(DataError):
                _defects(_record(folder, f'{{"box": {"[" * depth}{"]" * depth}}}'))

    return try_it


@known("sound")
def convert_rle_overflow(folder: Path) -> Try:
    path = _record(folder, '{"rle": {"size": [100000, 100000], "counts": [0, 10000000000]}}')
    return lambda: convert_dataset(RegionDataset.open(path), folder / "out.jsonl")


@known("returned")
def convert_held_out_frames(folder: Path) -> Try:
    """Sound samples: videos that are lists of frames."""
    frames: list[str] = []
    for name in ("a.png", "b.png", "c.png"):
        _picture(folder, name)
        frames.append(name)
    video = {"regions": [{"frames": {"0": {"box": [1, 1, 9, 9]}}}], "messages": _TURNS}
    records = [{"id": name, "video": {"path": [name, name], "fps": 2}, **video} for name in frames]
    path = replaced(folder / "data.jsonl", "\n".join(map(json.dumps, records)))
    return lambda: convert_dataset(RegionDataset.open(path), folder / "out.jsonl", held_out=folder / "held.jsonl")


@known("sound")
def digits_coco(folder: Path) -> Try:
    return lambda: _defects(_coco(folder, area="9" * 5_000), "coco")


@known("sound")
def surrogate_id(folder: Path) -> Try:
    return lambda: _defects(_coco(folder, id='"\\ud800"'), "coco")


@known("sound")
def preview_no_sentences(folder: Path) -> Try:
    _coco(folder, "instances.json")
    refs = [{"ref_id": 1, "ann_id": 1, "split": "train", "sentences": []}]
    path = replaced(folder / "refs.json", json.dumps(refs))
    return lambda: draw_sheet(RegionDataset.open(path, format="refcoco"))


@known("named")
def pickle_memo(folder: Path) -> Try:
    """Nine bytes that ask for 4 GiB."""
    path = replaced(folder / "refs.p", b"\x80\x02]r" + struct.pack("<I", 0x10000000) + b".")
    return lambda: read_plain_pickle(path)


# -- media and regions -------------------------------------------------------------------------------------


@known("sound")
def polygon_segfault(folder: Path) -> Try:
    """More than 2^31 points along its edges."""
    ring = [value for at in range(108_000) for value in (0 if at % 2 else 4_000, at % 3_000)]
    return lambda: Region.from_polygon(ring).to_mask((3_000, 4_000))


@known("sound")
def clicks_quadratic(folder: Path) -> Try:
    return lambda: Region.from_points([(0, 0)] * 10_000, radius_px=1e5).to_mask((3_000, 4_000))


@known("named")
def eps_starts_ghostscript(folder: Path) -> Try:
    eps = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n%%EOF\n"
    path = replaced(folder / "street.png", eps)
    return lambda: load_image(path)


@known("named")
def pipe_picture(folder: Path) -> Try:
    os.mkfifo(folder / "p.png")
    return lambda: load_image(folder / "p.png")


# -- configurations ----------------------------------------------------------------------------------------


def _recipe(folder: Path, text: str) -> Try:
    path = replaced(folder / "recipe.yaml", text)
    return lambda: TrainConfig.load(path)


@known("named")
def yaml_aliases(folder: Path) -> Try:
    return _recipe(folder, ALIASES)


@known("named")
def yaml_bool(folder: Path) -> Try:
    return _recipe(folder, "recipe: !!bool maybe\n")


@known("named")
def yaml_int(folder: Path) -> Try:
    return _recipe(folder, "optim: {steps: !!int ''}\n")


# -- model folders -----------------------------------------------------------------------------------------


def _folder(folder: Path) -> Path:
    return linked(model_folder(), folder / "model")


def _edit(path: Path, **fields: Any) -> None:
    replaced(path, json.dumps({**json.loads(path.read_text()), **fields}))


@known("sound")
def code_auto_map(folder: Path) -> Try:
    """Code of the folder, that may be run when somebody says yes; the guard hears it."""
    made = _folder(folder)
    replaced(made / "processor" / "evil.py", f"{CODE}from transformers import Qwen2Tokenizer as X\n")
    auto_map = {"AutoTokenizer": ["evil.X", "evil.X"]}
    _edit(made / "processor" / "tokenizer_config.json", auto_map=auto_map, tokenizer_class="X")
    return lambda: RegionProcessor.from_pretrained(made)


@known("named")
def lora_bias(folder: Path) -> Try:
    made = _folder(folder)
    _edit(made / "lora" / "adapter_config.json", bias="x")
    return lambda: RegionModel.from_pretrained(made)


@known("named")
def folder_config_field(folder: Path) -> Try:
    made = _folder(folder)
    _edit(made / "processor" / "config.json", tie_word_embeddings=5)
    return lambda: RegionProcessor.from_pretrained(made)


class _Touches:
    def __reduce__(self) -> Any:
        return os.system, ("true",)


@known("named")
def folder_pickle_bin(folder: Path) -> Try:
    made = _folder(folder)
    (made / "backbone" / "model.safetensors").unlink()
    torch.save({"w": _Touches()}, made / "backbone" / "pytorch_model.bin")
    return lambda: RegionModel.from_pretrained(made)


@known("named")
def template_error(folder: Path) -> Try:
    made = _folder(folder)
    replaced(made / "processor" / "chat_template.jinja", "{{ 1/0 }}")
    return lambda: RegionProcessor.from_pretrained(made)([{"role": "user", "content": "x"}])


@known("named")
def weights_full_disk(folder: Path) -> Try:
    model, processor = RegionModel.from_pretrained(model_folder()), small_processor()

    def try_it() -> None:
        with _small_files():
            model.save_pretrained(folder / "model", processor)

    return try_it


@contextmanager
def _small_files() -> Any:
    """No file may become larger than 100 kB, as on a full disk."""
    earlier, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, earlier[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, earlier)
        signal.signal(signal.SIGXFSZ, handler)


@known("returned")
def save_between_renames(folder: Path) -> Try:
    """Processes that are killed before their first step that moves a folder, before their second, ... leave one."""
    made = _folder(folder)
    model, processor = RegionModel.from_pretrained(made), small_processor()
    for number in itertools.count(1):
        if (pid := os.fork()) == 0:
            _die_before_move(number)
            model.save_pretrained(made, processor, overwrite=True)
            os._exit(0)
        if os.waitpid(pid, 0)[1] == 0:
            break
        RegionModel.from_pretrained(made)
    assert number > 1
    return lambda: RegionModel.from_pretrained(made)


_MOVES = {"os.rename", "os.mkdir", "shutil.rmtree", "ctypes.dlsym"}  # that of two folders is a function of C


def _die_before_move(number: int) -> None:
    seen = itertools.count(1)

    def heard(event: str, arguments: Any) -> None:
        if event in _MOVES and next(seen) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(heard)


# -- conversations -----------------------------------------------------------------------------------------


@known("named")
def messages_number(folder: Path) -> Try:
    processor: Any = small_processor()
    return lambda: processor([5])


@known("named")
def messages_deep(folder: Path) -> Try:
    processor, content = small_processor(), "x"
    for _ in range(3_000):
        content = [content]  # type: ignore[assignment]
    return lambda: processor([{"role": "user", "content": content}])


# -- plugins: the files of everybody else are read as ever -------------------------------------------------


def _plugin(folder: Path, *, metadata: str = METADATA, points: str = POINTS, source: str) -> Try:
    info = folder / INSTALLED / "evil-1.dist-info"
    replaced(info / "METADATA", metadata)
    replaced(info / "entry_points.txt", points)
    replaced(folder / INSTALLED / "evil_mod.py", f"PLUGIN_API = 1\n{source}")
    path = _record(folder, '{"box": [1, 1, 9, 9]}')
    return lambda: installed(folder / INSTALLED, lambda: read_sound_samples(path))


@known("returned")
def plugin_deep_source(folder: Path) -> Try:
    return _plugin(folder, source=f"x = a{'.b' * 50_000}")


@known("returned")
def plugin_no_name(folder: Path) -> Try:
    points = "[pixelrefer_plugin]\nsaot = evil_mod\n"
    return _plugin(folder, metadata="Metadata-Version: 2.1\n", points=points, source="raise RuntimeError('x')")


@known("returned")
def plugin_base_exception(folder: Path) -> Try:
    return _plugin(folder, source="class B(BaseException): pass\nraise B('x')")


@known("returned")
def plugin_recognises_raises(folder: Path) -> Try:
    source = """
from dataclasses import dataclass
from pixelrefer_plugin.authoring import DataFormatSpec, hookimpl
@dataclass(frozen=True)
class Config: pass
@hookimpl
def register_data_formats(register):
    register(DataFormatSpec(name="evil", config=Config, recognises=lambda r: 1 / 0, read_record=lambda c, r, p: 5))
"""
    return _plugin(folder, source=source)
