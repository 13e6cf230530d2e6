"""Writes samples in this package's own schema: a whole file or none, and a held-out part that shares no picture.

It knows samples and files; no file format but ours.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from ..contracts.samples import RegionSample
from ..errors import DataError, SampleError
from ..files import written_whole
from .schema import write_record

if TYPE_CHECKING:
    from .dataset import RegionDataset


@dataclass
class Conversion:
    """What a conversion wrote, and what it left out.

    Attributes:
        written: samples in the file.
        held_out: samples in the held-out file.
        num_left_out: samples that cannot be used.
        defects: of those, how many have a defect of each kind.
        left_out: the errors of the first of them.
    """

    written: int = 0
    held_out: int = 0
    num_left_out: int = 0
    defects: Counter[str] = field(default_factory=Counter)
    left_out: list[SampleError] = field(default_factory=list)

    def leave_out(self, error: SampleError, *, remember: int) -> None:
        """Count a sample that cannot be used; remember what is wrong with the first ones."""
        self.num_left_out += 1
        self.defects.update({defect.kind for defect in error.defects})
        if len(self.left_out) < remember:
            self.left_out.append(error)


def convert_dataset(
    dataset: RegionDataset,
    out: Path,
    *,
    held_out: Path | None = None,
    held_out_share: float = 0.1,
    on_bad_sample: Literal["error", "skip"] = "error",
    limit: int | None = None,
    remember: int = 50,
    progress: Callable[[], None] = lambda: None,
) -> Conversion:
    """Write a dataset's samples in our own schema, as JSON Lines. Media paths are relative to the file's folder.

    Args:
        dataset: the samples.
        out: where to; both files appear whole or not at all, and replace what is there.
        held_out: where a part of the samples goes instead. Samples that share a picture or video, directly or
            through others, stay together; which ones are held out depends on the media paths alone.
        held_out_share: how large that part is, about; at least one picture's samples stay on either side.
        on_bad_sample: a sample that cannot be used stops the conversion, or is left out.
        limit: convert only so many, the first.
        remember: errors that are kept, of the samples left out.
        progress: called after each sample.

    Raises:
        SampleError: a sample cannot be used.
        PixelReferError: a file cannot be written, or the samples cannot be parted.
    """
    found, made = Conversion(), RecordLines()
    groups = None if held_out is None else _MediaGroups(out.parent)
    with ExitStack() as files:
        target = files.enter_context(_written(out))
        held_target = None if held_out is None else files.enter_context(_written(held_out))
        lines = target if held_target is None else files.enter_context(_spool(out))
        for index in range(len(dataset) if limit is None else min(limit, len(dataset))):
            try:
                sample = dataset[index]
                lines.write(made.line(write_record(sample, out.parent)))
            except SampleError as error:
                if on_bad_sample == "error":
                    raise
                found.leave_out(error, remember=remember)
            else:
                found.written += 1
                if groups is not None:
                    groups.add(sample)
            progress()
        _require_some(found, dataset)
        if groups is not None and held_target is not None:
            found.held_out = _part(lines, groups.held_out(held_out_share), target, held_target)
            found.written -= found.held_out
    return found


class RecordLines:
    """Makes the lines of a JSON Lines file of records. Of those with one id all but the first get a number behind it.

    Other formats call a sample by its picture's id, so that it comes again. A hash of each id is kept.
    """

    def __init__(self) -> None:
        self._uses: dict[int, int] = {}

    def line(self, record: Mapping[str, Any]) -> bytes:
        """The next line."""
        text = json.dumps({**record, "id": self._unused(record["id"])}, ensure_ascii=False)
        return text.encode(errors="backslashreplace") + b"\n"  # half a surrogate pair becomes JSON's own escape for it

    def _unused(self, id: str) -> str:
        number = self._uses.get(hash(id), 0) + 1
        while hash(unused := f"{id}-{number}" if number > 1 else id) in self._uses:
            number += 1
        self._uses[hash(id)] = number
        self._uses.setdefault(hash(unused), 1)
        return unused


@contextmanager
def _written(path: Path) -> Iterator[IO[bytes]]:
    with written_whole(path) as made, open(made, "wb") as file:
        yield file


@contextmanager
def _spool(out: Path) -> Iterator[IO[bytes]]:
    """A file that is gone afterwards, on the disk where there is room for the result."""
    with tempfile.TemporaryFile(dir=out.parent) as file:
        yield file


def _require_some(found: Conversion, dataset: RegionDataset) -> None:
    if not found.written:
        raise DataError(f"{dataset.name}: none of its {found.num_left_out} samples can be used; nothing is written.")


def _part(lines: IO[bytes], is_held_out: Iterator[bool], target: IO[bytes], held_target: IO[bytes]) -> int:
    """Copy each line to where it belongs; returns how many are held out."""
    count = 0
    lines.seek(0)
    for line, held in zip(lines, is_held_out, strict=True):
        (held_target if held else target).write(line)
        count += held
    return count


class _MediaGroups:
    """Samples that share a picture or video, directly or through others, in one group (union-find over hashes).

    Args:
        folder: paths are hashed as seen from here, so that moving all of it changes nothing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = os.path.abspath(folder)
        self._parents: dict[int, int] = {}
        self._medium_of_sample = array("Q")

    def add(self, sample: RegionSample) -> None:
        """Take in the next sample."""
        keys = [self._key(os.path.relpath(path, self._folder)) for path in sample.paths] or [
            self._key(f"id {sample.id}")
        ]
        self._medium_of_sample.append(keys[0])
        first = self._group(keys[0])
        for key in keys[1:]:
            other = self._group(key)
            first, other = min(first, other), max(first, other)  # whatever the order, the least stands for all
            self._parents[other] = first

    def held_out(self, share: float) -> Iterator[bool]:
        """For each sample, in order, whether it is held out."""
        sizes = Counter(self._group(key) for key in self._medium_of_sample)
        if len(sizes) < 2:
            raise DataError(
                "No part of the samples can be held out: all of them share their pictures. Leave --held-out away, or "
                "hold out another file."
            )
        wanted = share * sum(sizes.values())
        held: set[int] = set()
        count = 0
        for group in sorted(sizes)[:-1]:  # by hash: as good as drawn, and the same every time
            if count + sizes[group] / 2 <= wanted:
                held.add(group)
                count += sizes[group]
        held = held or {min(sizes, key=lambda group: (sizes[group], group))}
        return (self._group(key) in held for key in self._medium_of_sample)

    def _group(self, key: int) -> int:
        while (parent := self._parents.setdefault(key, key)) != key:
            self._parents[key] = self._parents[parent]
            key = parent
        return key

    @staticmethod
    def _key(name: str) -> int:
        digest = hashlib.blake2b(Path(name).as_posix().encode(errors="surrogateescape"), digest_size=8).digest()
        return int.from_bytes(digest, "big")
