"""Whether training and held-out samples show the same pictures, or are the same: then held-out figures say too much.

It compares files, by their paths and, where they are of one size, by their contents. Only samples whose files are on
both sides are read.
"""

from __future__ import annotations

import filecmp
import hashlib
import os
import pickle
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from ..contracts.samples import RegionSample
from ..errors import PixelReferError, counted
from ..files import open_regular
from .dataset import files_shown

_MOST_READ = 50_000  # samples of a side
_MOST_COMPARED = 20_000  # files whose beginnings are read
_HEAD_BYTES = 2**16
_NAMED = 3


@dataclass(frozen=True)
class Overlap:
    """What two sides of a run's data have in common.

    Attributes:
        media: pictures and videos that both show, by the paths that the held-out data has for them.
        samples: names of held-out samples that are training samples too: same media, regions and texts.
    """

    media: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """What the user should know; empty where they have nothing in common."""
        said = []
        if self.media:
            said.append(f"{counted(len(self.media), 'picture or video', 'pictures or videos')} {_some(self.media)}")
        if self.samples:
            said.append(f"{counted(len(self.samples), 'whole sample')} {_some(self.samples)}")
        if not said:
            return ""
        return f"training and held-out data share {' and '.join(said)}: held-out figures will look too good"


def find_overlap(train: Any, held_out: Any) -> Overlap:
    """What two datasets have in common, of at most 50,000 samples of each, spread evenly.

    Args:
        train: `len(train)` samples; `train[index]` gives one, or raises an error of this package. `train.media(index)`
            may tell its files.
        held_out: likewise.
    """
    of_train = dict(_media(train))
    copies = _Copies({path for paths in of_train.values() for path in paths})
    shared: dict[str, None] = {}
    twins: dict[int, tuple[str, ...]] = {}
    for index, paths in _media(held_out):
        originals = tuple(map(copies.original, paths))
        there = [path for path, original in zip(paths, originals, strict=True) if original in copies.paths]
        shared.update(dict.fromkeys(there))
        if paths and len(there) == len(paths):
            twins[index] = originals
    wanted = set(twins.values())
    candidates = {index: paths for index, paths in of_train.items() if paths in wanted}
    seen = {_identity(sample, candidates[index]) for index, sample in _read(train, candidates)}
    same = [sample.name for index, sample in _read(held_out, twins) if _identity(sample, twins[index]) in seen]
    return Overlap(tuple(shared), tuple(dict.fromkeys(same)))


class _Copies:
    """Finds among some files the one that another file is a copy of.

    Attributes:
        paths: of the files.
    """

    def __init__(self, paths: set[str]) -> None:
        self.paths = paths
        self._heads: dict[str, bytes] = {}

    def original(self, path: str) -> str:
        """The file that has the same bytes as the one at `path`; that path itself where there is none."""
        if path in self.paths:
            return path
        alike = self._of_size.get(_size(path), ()) if len(self._heads) < _MOST_COMPARED else ()
        return next((each for each in alike if self._is_same(each, path)), path)

    @cached_property
    def _of_size(self) -> dict[int, list[str]]:
        found: dict[int, list[str]] = defaultdict(list)
        for path in sorted(self.paths):
            if size := _size(path):
                found[size].append(path)
        return found

    def _is_same(self, one: str, other: str) -> bool:
        try:
            return self._head(one) == self._head(other) and filecmp.cmp(one, other, shallow=False)
        except OSError:  # what is wrong with it, its sample says
            return False

    def _head(self, path: str) -> bytes:
        if path not in self._heads:
            with open_regular(path) as file:
                self._heads[path] = hashlib.blake2b(file.read(_HEAD_BYTES), digest_size=16).digest()
        return self._heads[path]


def _size(path: str) -> int:
    """Of a file that is there; 0 of others."""
    try:
        return os.path.getsize(path) if os.path.isfile(path) else 0
    except (OSError, ValueError):
        return 0


def _media(dataset: Any) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The files that each of at most 50,000 samples shows, each by the one path that it really has."""
    length = len(dataset)
    for index in np.unique(np.linspace(0, length - 1, min(length, _MOST_READ), dtype=int)).tolist():
        with suppress(PixelReferError):  # what is wrong with it, its batch says
            yield index, tuple(_real(os.fspath(path)) for path in files_shown(dataset, index))


@lru_cache(maxsize=2**18)  # frames of a video are shown by many samples
def _real(path: str) -> str:
    return os.path.realpath(path)


def _read(dataset: Any, indices: Iterable[int]) -> Iterator[tuple[int, RegionSample]]:
    for index in indices:
        with suppress(PixelReferError):
            yield index, dataset[index]


def _identity(sample: RegionSample, media: tuple[str, ...]) -> int:
    texts = [
        [part.get("text") for part in message["content"]]
        if not isinstance(message["content"], str)
        else message["content"]
        for message in sample.messages
    ]
    return hash((media, repr(texts), pickle.dumps(sample.regions)))


def _some(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:_NAMED])
    return f"({shown}{', ...' if len(names) > _NAMED else ''})"
