"""Files of samples, in every data format: records, options, and the media and masks that lie beside them."""

from __future__ import annotations

import json
import os
import pickle
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pixelrefer_plugin.data.checks import check_dataset
from pixelrefer_plugin.data.convert import convert_dataset
from pixelrefer_plugin.data.dataset import RegionDataset
from pixelrefer_plugin.data.preview import draw_sheet
from pixelrefer_plugin.plugins import get_data_format

from ..cases import MOST_CHARACTERS, Try, kind, replaced
from ..mutate import NUMBERS, TEXTS, changed, changed_bytes, changed_json, nasty

_FORMATS = ("coco", "lvis", "refcoco", "refvos", "dam", "dam_regions", "osprey", "pixelrefer", "videorefer", "regions")
_RLE = {"size": [48, 64], "counts": [100, 20, 28, 20, 2904]}
_SHAPES: tuple[dict[str, Any], ...] = (
    {"box": [2, 3, 30, 40]},
    {"polygon": [[5, 5, 40, 8, 20, 40]]},
    {"points": [[8, 8], [20, 20]], "radius": 4},
    {"scribble": [[3, 3], [30, 30], [10, 40]], "width": 3},
    {"rle": _RLE},
    {"rle": {"size": [48, 64], "counts": "PPY11m0000"}},
    {"mask": "street.png", "value": 1},
    {"box": [2, 3, 30, 40], "image": 0},
)


@kind("own records", share=14)
def own_records(rng: random.Random, folder: Path) -> Try:
    path = get_data_format("regions").tiny(folder)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    records[0]["regions"][0] = rng.choice(_SHAPES)
    records[1]["regions"][0]["frames"]["1"] = rng.choice(_SHAPES)
    return _used(rng, folder, _rewritten(rng, path, records), "regions")


@kind("foreign records", share=20)
def foreign_records(rng: random.Random, folder: Path) -> Try:
    name = rng.choice(_FORMATS)
    path = get_data_format(name).tiny(folder)
    text = path.read_text()
    lines = text.splitlines()
    records = json.loads(text) if len(lines) == 1 else [json.loads(line) for line in lines]
    if name == "refcoco" and rng.random() < 0.4:
        path = folder / "instances.json"
        records = json.loads(path.read_text())
        _rewritten(rng, path, records)
        return _used(rng, folder, folder / "refs.json", name)
    if rng.random() < 0.1:
        _damage_one(rng, folder)
    return _used(rng, folder, _rewritten(rng, path, records), name)


@kind("pickles", share=6)
def pickles(rng: random.Random, folder: Path) -> Try:
    refs = json.loads(get_data_format("refcoco").tiny(folder).read_text())
    data = rng.choice(_PICKLES)(rng, refs)
    path = replaced(folder / "refs.p", data)
    return _used(rng, folder, path, "refcoco")


def _plain(rng: random.Random, refs: Any) -> bytes:
    return pickle.dumps(changed(rng, refs), rng.randrange(6))


def _damaged(rng: random.Random, refs: Any) -> bytes:
    return changed_bytes(rng, pickle.dumps(refs, rng.randrange(6)))


def _running(rng: random.Random, refs: Any) -> bytes:
    module, name = rng.choice((("os", "system"), ("builtins", "eval"), ("posix", "system"), ("codecs", "lookup")))
    call = f"c{module}\n{name}\n(V1\ntR.".encode()
    long = b"\x80\x04\x8c%c%s\x8c%c%s\x93(K\x01tR." % (len(module), module.encode(), len(name), name.encode())
    return rng.choice((call, long, b"\x80\x02" + call))


def _greedy(rng: random.Random, refs: Any) -> bytes:
    """A few bytes that ask for much."""
    size = rng.choice((2**28, 2**31, 2**32 - 1))
    little, long = struct.pack("<I", size), struct.pack("<Q", size * rng.choice((1, 2**20)))
    made = (
        b"\x80\x02]r" + little + b".",
        b"\x80\x02Nr" + little + b"j" + little + b".",
        b"\x80\x03B" + little + b"x.",
        b"\x80\x03X" + little + b"x.",
        b"\x80\x02\x8b" + little + b"1.",
        b"\x80\x04\x8e" + long + b"x.",
        b"\x80\x05\x96" + long + b"x.",
        b"\x80\x04\x95" + long + b"N.",
        b"]" + b"q\x00" * 10_000 + b".",
        b"I" + b"9" * 200_000 + b"\n.",
        b"L" + b"9" * 200_000 + b"L\n.",
        b"]" * 300_000 + b"a" * 299_999 + b".",
        b"(" * 300_000 + b"t" * 300_000 + b".",
        b"]" + b"2a" * 100 + b".",
        b"](" + b"h\x00" * 50 + b"e.",
        _doubling(rng.choice((10, 40, 200))),
        b"\x80\x02" + b"P1\n.",
        b"\x80\x02\x82\x01.",
        b"0.", b".", b"",
    )  # fmt: skip
    return rng.choice(made)


def _doubling(times: int) -> bytes:
    """A list of twice the same list of twice the same list ..."""
    return b"]q\x00" + b"".join(b"]q%c(h%ch%ce" % (each, each - 1, each - 1) for each in range(1, times + 1)) + b"."


_PICKLES: tuple[Callable[[random.Random, Any], bytes], ...] = (_plain, _plain, _damaged, _running, _greedy)


def _rewritten(rng: random.Random, path: Path, records: Any) -> Path:
    """A file of the records, changed; lines or an array as it comes."""
    if not isinstance(records, list) or rng.random() < 0.3:
        return replaced(path, changed_json(rng, records))
    return replaced(path, b"\n".join(changed_json(rng, each) for each in records))


def _damage_one(rng: random.Random, folder: Path) -> None:
    files = sorted(each for each in folder.rglob("*") if each.is_file())
    chosen = rng.choice(files)
    replaced(chosen, changed_bytes(rng, chosen.read_bytes()))


def _options(rng: random.Random, name: str) -> dict[str, Any]:
    """Options of the format, most of the time none."""
    if rng.random() < 0.85:
        return {}
    known = list(getattr(get_data_format(name).config, "__dataclass_fields__", {})) or ["x"]
    return {rng.choice((*known, *known, rng.choice(TEXTS))): nasty(rng)}


def _used(rng: random.Random, folder: Path, path: Path, name: str) -> Try:
    """Open the file and do one of the things that are done with it."""
    os.mkfifo(folder / "pipe")
    options = _options(rng, name)
    format = name if rng.random() < 0.5 else "auto"
    use = rng.choice((_check, _check, _check, _convert, _hold_out, _preview))

    def try_it() -> None:
        use(RegionDataset.open(path, format=format, options=options), folder)

    return try_it


def _check(dataset: RegionDataset, folder: Path) -> None:
    for checked in check_dataset(dataset, workers=1, media_root=folder, limit=200):
        for defect in checked.defects:
            assert len(defect.message) <= MOST_CHARACTERS, f"a defect of {len(defect.message)} characters"


def _convert(dataset: RegionDataset, folder: Path) -> None:
    convert_dataset(dataset, folder / "out.jsonl", on_bad_sample="skip", limit=500)


def _hold_out(dataset: RegionDataset, folder: Path) -> None:
    convert_dataset(dataset, folder / "out.jsonl", held_out=folder / "held.jsonl", on_bad_sample="skip", limit=500)


def _preview(dataset: RegionDataset, folder: Path) -> None:
    draw_sheet(dataset, count=4)


@kind("rows", share=4)
def rows(rng: random.Random, folder: Path) -> Try:
    """Rows in memory, which may hold anything."""
    path = get_data_format("regions").tiny(folder)
    records: Any = [json.loads(line) for line in path.read_text().splitlines()]
    records[0]["regions"][0] = rng.choice(_SHAPES)
    records = changed(rng, records)
    strange: Any = rng.choice((object(), b"\0" * 1_000_000, {1, 2}, 1j, range(10**9), *NUMBERS, records, len))
    if isinstance(records, list) and rng.random() < 0.5:
        target: Any = rng.choice([each for each in records if isinstance(each, dict)] or [{}])
        target[rng.choice(("image", "regions", "messages", "id", "size", "video", 5))] = strange

    def try_it() -> None:
        _check(RegionDataset.from_rows(records, media_root=folder), folder)

    return try_it
