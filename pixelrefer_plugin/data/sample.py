"""`RegionSample`: one training sample, not opened yet: paths, regions and texts, and where it was read.

It knows no file format and no model; data formats make it, the collator reads its pictures.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..errors import ImageError, PixelReferError, PromptError, RegionError, SampleError, VideoError, sample_name
from ..regions import Region, VideoRegion

DefectKind = Literal["format", "media", "size", "markers", "region", "answer", "too long"]
"""What may be wrong with a sample: its record; a picture or video that cannot be read; one of another size than
the file says; more or fewer `<region>` than regions; a region that is empty, malformed or outside; no answer to
learn from; more tokens than allowed."""


class Defect(NamedTuple):
    """One thing that is wrong with a sample; `message` reads on from `sample 'x': `."""

    kind: DefectKind
    message: str


_KIND_OF_FAULT: Mapping[type[PixelReferError], DefectKind] = {
    ImageError: "media",
    VideoError: "media",
    RegionError: "region",
    PromptError: "format",
}
SAMPLE_FAULTS = tuple(_KIND_OF_FAULT)
"""What the processor raises where a sample is to blame, not an adapter or a backbone's plugin."""


def defect_of(fault: PixelReferError) -> Defect:
    """What the processor says, by one of `SAMPLE_FAULTS`, of a sample that it was given alone."""
    kind = next(kind for error_type, kind in _KIND_OF_FAULT.items() if isinstance(fault, error_type))
    return Defect(kind, re.sub(r"^Sample 0(: |, )", "", str(fault)))


@dataclass(frozen=True, eq=False)
class RegionSample:
    """One conversation, about any number of regions, with the answers to learn.

    Attributes:
        id: of the sample, for messages; unique within its file where the file has ids.
        messages: as `RegionProcessor` takes them; pictures and videos are content parts that hold paths (or, in
            rows that come from memory, pictures).
        regions: in the order of their `<region>`s.
        where: file and line or number, for messages; empty where it was made in memory.
        media_hw: height and width that the file says each image, then each video, has; None where it does not.
    """

    id: str
    messages: tuple[Mapping[str, Any], ...]
    regions: tuple[Region | VideoRegion, ...] = ()
    where: str = ""
    media_hw: tuple[tuple[int, int] | None, ...] = ()

    @property
    def name(self) -> str:
        """What to call it at the start of a message: `train.jsonl line 12, sample 'street-1'`."""
        return sample_name(self.id, self.where)

    def error(self, *defects: Defect) -> SampleError:
        """The error that says what is wrong with this sample."""
        return SampleError(self.id, self.where, defects)

    def media(self, kind: Literal["image", "video"]) -> list[Mapping[str, Any]]:
        """Its content parts of one kind, in order."""
        return [
            part
            for message in self.messages
            if not isinstance(message["content"], str)
            for part in message["content"]
            if part["type"] == kind
        ]


@dataclass(frozen=True)
class RecordPlace:
    """Where a record stands, and where its relative paths begin.

    Attributes:
        where: file and line or number, such as `train.jsonl line 12`.
        index: of the record in its file, from 0; the sample's id where the record has none.
        media_root: folder that relative media paths are below.
    """

    where: str
    index: int
    media_root: Path

    def path(self, relative: str | os.PathLike[str]) -> str:
        """A media path that can be opened from anywhere."""
        return str(self.media_root / relative)

    def error(self, id: str, defects: Sequence[Defect]) -> SampleError:
        """The error that says what is wrong with the record here."""
        return SampleError(id, self.where, defects)
