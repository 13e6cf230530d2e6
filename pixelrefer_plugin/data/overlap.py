"""Whether training and held-out samples show the same pictures, or are the same: then held-out figures say too much.

It reads records and compares files, by their paths and, where they are of one size, by their contents. It decodes
nothing.
"""

from __future__ import annotations

import filecmp
import hashlib
import os
import pickle
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..contracts.samples import RegionSample
from ..errors import PixelReferError
from ..files import open_regular

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
            said.append(f"{_counted(len(self.media), 'picture or video', 'pictures or videos')} {_some(self.media)}")
        if self.samples:
            said.append(f"{_counted(len(self.samples), 'whole sample', 'whole samples')} {_some(self.samples)}")
        if not said:
            return ""
        return f"training and held-out data share {' and '.join(said)}: held-out figures will look too good"


def find_overlap(train: Any, held_out: Any) -> Overlap:
    """What two datasets have in common, of at most 50,000 samples of each, spread evenly.

    Args:
        train: `len(train)` samples; `train[index]` gives one, or raises an error of this package.
        held_out: likewise.
    """
    seen_media: set[str] = set()
    seen: set[int] = set()
    for sample in _read(train):
        media = _media(sample)
        seen_media.update(media)
        seen.add(_identity(sample, media))
    copies = _Copies(seen_media)
    shared: dict[str, None] = {}
    same = []
    for sample in _read(held_out):
        media = _media(sample)
        twins = [copies.original(each) for each in media]
        shared.update(dict.fromkeys(path for path, twin in zip(media, twins, strict=True) if twin in seen_media))
        if media and _identity(sample, twins) in seen:
            same.append(sample.name)
    return Overlap(tuple(shared), tuple(dict.fromkeys(same)))


class _Copies:
    """Finds among some files the one that another file is a copy of.

    Args:
        paths: of the files.
    """

    def __init__(self, paths: set[str]) -> None:
        self._paths = paths
        self._heads: dict[str, bytes] = {}

    def original(self, path: str) -> str:
        """The file that has the same bytes as the one at `path`; that path itself where there is none."""
        if path in self._paths:
            return path
        alike = self._of_size.get(_size(path), ()) if len(self._heads) < _MOST_COMPARED else ()
        return next((each for each in alike if self._is_same(each, path)), path)

    @cached_property
    def _of_size(self) -> dict[int, list[str]]:
        found: dict[int, list[str]] = defaultdict(list)
        for path in sorted(self._paths):
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


def _read(dataset: Any) -> Iterator[RegionSample]:
    length = len(dataset)
    for index in np.unique(np.linspace(0, length - 1, min(length, _MOST_READ), dtype=int)).tolist():
        try:
            sample = dataset[index]
        except PixelReferError:  # what is wrong with it, its batch says
            continue
        if isinstance(sample, RegionSample):
            yield sample


def _media(sample: RegionSample) -> list[str]:
    """The files that a sample shows, each by the one path that it really has."""
    found = []
    for kind in ("image", "video"):
        for part in sample.media(kind):
            source = part[kind]
            files = source if isinstance(source, list | tuple) else [source]  # a video may be a list of frames
            found += [os.path.realpath(each) for each in files if isinstance(each, str | os.PathLike)]
    return [os.fsdecode(each) for each in found]


def _identity(sample: RegionSample, media: list[str]) -> int:
    texts = [
        [part.get("text") for part in message["content"]]
        if not isinstance(message["content"], str)
        else message["content"]
        for message in sample.messages
    ]
    return hash((tuple(media), repr(texts), pickle.dumps(sample.regions)))


def _counted(number: int, one: str, several: str) -> str:
    return f"{number:,} {one if number == 1 else several}"


def _some(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:_NAMED])
    return f"({shown}{', ...' if len(names) > _NAMED else ''})"
