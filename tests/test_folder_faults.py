"""Model folders that are damaged or hostile: every fault has a name, nothing of them runs, and sizes are bounded first."""

import json
import os
import random
import shutil
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from pixelrefer_plugin import (
    CheckpointError,
    PixelReferError,
    PromptError,
    RegionModel,
    RegionProcessor,
    attach,
    get_adapter,
    get_backbone,
    load,
)
from pixelrefer_plugin.weights.loading import load_backbone, load_native_processor, require_loadable

QUESTION = [{"role": "user", "content": "What is it?"}]


@pytest.fixture(scope="session")
def sound(tmp_path_factory):
    """A folder with all parts: adapter, LoRA, rows of tokens, backbone and processor."""
    backbone, native = get_backbone("videollama3").tiny(0)
    model, processor = attach(
        backbone, native, adapter="saot", adapter_config=get_adapter("saot").tiny, train_backbone=True
    )
    model.add_lora(r=2, token_ids=(5, 6))
    folder = tmp_path_factory.mktemp("sound") / "model"
    model.save_pretrained(folder, processor)
    model.detach()
    return folder


@pytest.fixture
def folder(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "model")


def edit(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def opened(folder):
    """Open a folder in all ways, and use what comes out; raises what is no error of this package."""
    told = []
    for way in (RegionProcessor.from_pretrained, RegionModel.from_pretrained, load):
        try:
            made = way(folder)
        except PixelReferError as error:
            told.append(str(error))
            continue
        processors = [each for each in (made if isinstance(made, tuple) else [made]) if hasattr(each, "decode")]
        for processor in processors:
            try:
                processor(QUESTION)
            except PixelReferError as error:
                told.append(str(error))
    return told


# -- damage ------------------------------------------------------------------------------------------------


def cut(path, draw):
    os.truncate(path, draw.randrange(path.stat().st_size))


def scribble(path, draw):
    data = bytearray(path.read_bytes())
    for _ in range(draw.choice((1, 8, 64))):
        data[draw.randrange(min(len(data), 4096))] = draw.randrange(256)
    path.write_bytes(data)


def remove(path, draw):
    path.unlink()


def make_folder(path, draw):
    path.unlink()
    path.mkdir()


def make_link_to_itself(path, draw):
    path.unlink()
    path.symlink_to(path)


def make_list(path, draw):
    path.write_text(draw.choice(("[]", "null", "5", '"x"', "", "{}", "[" * 5000, "\ud83d".encode("utf-8", "replace").decode())))


VALUES = (None, -1, 0, 1.5, 10**30, "", "x" * 1000, [], {}, [[[[["x"]]]]], True, {"a": {"b": {}}}, [None], "../../x")


def change_value(path, draw):
    """One value anywhere in a JSON file becomes another."""
    value = json.loads(path.read_text())
    places = []

    def walk(at):
        for key in at if isinstance(at, dict) else range(min(len(at), 20)):
            places.append((at, key))
            if isinstance(at[key], dict | list):
                walk(at[key])

    walk(value)
    at, key = draw.choice(places)
    at[key] = draw.choice(VALUES)
    path.write_text(json.dumps(value))


ANY_FILE = (cut, scribble, remove, make_folder, make_link_to_itself)
OF_JSON = (make_list, change_value, change_value, change_value, change_value)


def damage(folder, seed):
    draw = random.Random(seed)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".md")
    path = files[seed % len(files)]
    kinds = (*ANY_FILE, *(OF_JSON if path.suffix == ".json" else ()))
    kind = draw.choice(kinds)
    kind(path, draw)
    return f"{kind.__name__} of {path.relative_to(folder)}"


def check_seed(folder, seed):
    what = damage(folder, seed)
    try:
        told = opened(folder)
    except Exception as error:
        raise AssertionError(f"seed {seed}, {what}: {type(error).__name__}: {error}") from error
    assert all(len(text) < 3000 for text in told), what


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(24))
def test_damage_has_a_name(folder, seed):
    check_seed(folder, seed)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(24, 1000))
def test_more_damage_has_a_name(folder, seed):
    check_seed(folder, seed)
