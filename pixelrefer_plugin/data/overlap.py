"""Whether training and held-out samples show the same pictures, or are the same: then held-out figures say too much.

It reads records and compares paths; it decodes nothing.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..contracts.samples import RegionSample
from ..errors import PixelReferError

_MOST_READ = 50_000  # samples of a side
_NAMED = 3


@dataclass(frozen=True)
class Overlap:
    """What two sides of a run's data have in common.

    Attributes:
        media: pictures and videos that both show, by their paths.
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
    shared: dict[str, None] = {}
    same = []
    for sample in _read(held_out):
        media = _media(sample)
        shared.update(dict.fromkeys(each for each in media if each in seen_media))
        if media and _identity(sample, media) in seen:
            same.append(sample.name)
    return Overlap(tuple(shared), tuple(dict.fromkeys(same)))


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
