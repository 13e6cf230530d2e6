"""Distributions of strangers beside the installed ones: their metadata, entry points and code."""

from __future__ import annotations

import importlib
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from pixelrefer_plugin import RegionDataset, plugins
from pixelrefer_plugin.data.checks import check_dataset

from ..cases import Try, kind, replaced
from ..guard import INSTALLED
from ..mutate import changed_bytes

METADATA = "Metadata-Version: 2.1\nName: evil\nVersion: 1\n"
POINTS = "[pixelrefer_plugin]\nevil = evil_mod\n"
_HEAD = "from pixelrefer_plugin.authoring import hookimpl\nfrom dataclasses import dataclass\nPLUGIN_API = 1\n"
_FORMAT = """
from pixelrefer_plugin.authoring import DataFormatSpec
@dataclass(frozen=True)
class Config:
    pass
@hookimpl
def register_data_formats(register):
    register(DataFormatSpec(name={name}, config={config}, recognises={recognises}, {reader}))
"""
_RAISING = "class B(BaseException):\n    def __str__(self): raise B('x')\n    __repr__ = __str__\n"
_SOURCES: tuple[str, ...] = (  # without KeyboardInterrupt, which is taken for the user's
    "raise RuntimeError('x')", "raise SystemExit(3)", "raise MemoryError",
    f"{_RAISING}raise B", "def f(n): return f(n + 1)\nf(0)", "x = a" + ".b" * 50_000, "(" * 5_000,
    "x = " + "-" * 100_000 + "1", "\0", "\ufeff", "# -*- coding: latin-99 -*-\n", "import missing_of_this_plugin",
    "import evil_mod.sub", "from evil_mod import x", "import sys\nsys.modules[__name__] = None",
    "import sys\nsys.modules[__name__] = 5", "def __getattr__(name): raise 5",
    "def __getattr__(name): raise RuntimeError('x')", "PLUGIN_API = 'x'", "PLUGIN_API = None",
    "PLUGIN_API = 10 ** 5000", "PLUGIN_API = [1]", "PLUGIN_API = True",
    f"{_HEAD}@hookimpl\ndef register_adaptors(register): pass", _HEAD,
    f"{_HEAD}@hookimpl\ndef register_adapters(): pass", f"{_HEAD}@hookimpl\ndef register_adapters(register, x): pass",
    f"{_HEAD}@hookimpl\ndef register_adapters(register): raise RuntimeError('x')",
    f"{_HEAD}{_RAISING}@hookimpl\ndef register_data_formats(register): raise B",
    f"{_HEAD}@hookimpl\ndef register_data_formats(register): raise SystemExit",
)  # fmt: skip
_VALUES = (
    "None",
    "5",
    "'evil'",
    "'regions'",
    "''",
    "'a b'",
    "object()",
    "Config",
    "[]",
    "b'x'",
    "'x' * 100000",
    "'\\ud800'",
)
_CALLS = (
    "lambda r: True", "lambda r: False", "lambda r: 1 / 0", "lambda r: 'yes'", "lambda r: exit()", "lambda: True",
    "None", "print", "5", "lambda r: r.clear()", "lambda r: [].append(r) or r['x']",
)  # fmt: skip
_READERS = (
    "read_record=lambda c, r, p: 5", "read_record=lambda c, r, p: 1 / 0", "read_record=lambda c: 1", "read_record=5",
    "open_file=lambda c, p, r: 5", "open_file=lambda c, p, r: 1 / 0", "open_file=lambda c, p, r: object()", "",
    "open_file=lambda c, p, r: [5]", "open_file=lambda c, p, r: {}", "open_file=lambda c, p, r: exit()",
    "open_file=None", "read_record=lambda c, r, p: exit()",
    "open_file=lambda c, p, r: type('F', (), {'__len__': lambda s: -1})()",
    "open_file=lambda c, p, r: type('F', (), {'__len__': lambda s: 2, '__getitem__': lambda s, i: 1 / 0})()",
)  # fmt: skip


@kind("plugins", share=5)
def stranger(rng: random.Random, folder: Path) -> Try:
    site, info = folder / INSTALLED, folder / INSTALLED / "evil-1.dist-info"
    metadata, points = METADATA.encode(), POINTS.encode()
    if rng.random() < 0.3:
        metadata = rng.choice((b"", b"\xff\xfe", b"Name:\n", b"Name: \xff\nVersion: x\n", changed_bytes(rng, metadata)))
    if rng.random() < 0.3:
        lines = (
            b"evil_mod:x.y",
            b"evil_mod :",
            b"",
            b"a b",
            b"os",
            b"evil_mod:x [y]",
            b"\xff",
            b"..x",
            b"sys:exit",
            b"=",
        )
        points = rng.choice((b"[pixelrefer_plugin]\nevil = " + rng.choice(lines), changed_bytes(rng, points)))
    replaced(info / "METADATA", metadata)
    replaced(info / "entry_points.txt", points)
    replaced(site / "evil_mod.py", _source(rng))
    path = _sound_file(folder)
    uses: tuple[Callable[[Path], None], ...] = (_list, _list_loaded, read_sound_samples, _samples, _missing)
    use = rng.choice(uses)
    return lambda: installed(site, lambda: use(path))


def _source(rng: random.Random) -> str:
    if rng.random() < 0.5:
        return rng.choice(("", "PLUGIN_API = 1\n")) + rng.choice(_SOURCES)
    made = _FORMAT.format(
        name=rng.choice(_VALUES) if rng.random() < 0.3 else "'evil'",
        config=rng.choice(_VALUES) if rng.random() < 0.3 else "Config",
        recognises=rng.choice(_CALLS),
        reader=rng.choice(_READERS),
    )
    return _HEAD + made


def _sound_file(folder: Path) -> Path:
    Image.new("RGB", (80, 60)).save(folder / "a.png")
    turns = [{"role": "user", "content": "What is <region>?"}, {"role": "assistant", "content": "A car."}]
    record = {"image": "a.png", "regions": [{"box": [4, 4, 30, 30]}], "messages": turns}
    return replaced(folder / "data.jsonl", json.dumps(record))


def installed(site: Path, use: Callable[[], None]) -> None:
    """Do something while what is in a folder is installed."""
    sys.path.insert(0, str(site))
    importlib.invalidate_caches()
    plugins.host.cache_clear()
    try:
        use()
    finally:
        sys.path.remove(str(site))
        sys.modules.pop("evil_mod", None)
        plugins.host.cache_clear()


def _list(path: Path) -> None:
    for each in plugins.host().plugins():
        assert len(each.status) < 2_000, f"a status of {len(each.status)} characters"


def _list_loaded(path: Path) -> None:
    plugins.host().plugins(check=True)


def read_sound_samples(path: Path) -> None:
    """The files of everybody else must be read as ever, unless another format claims them too."""
    (checked,) = check_dataset(RegionDataset.open(path), workers=1)
    assert not checked.defects, checked.defects


def _samples(path: Path) -> None:
    for format in ("auto", "evil"):
        list(check_dataset(RegionDataset.open(path, format=format), workers=1))


def _missing(path: Path) -> None:
    plugins.host().adapter("not installed")
