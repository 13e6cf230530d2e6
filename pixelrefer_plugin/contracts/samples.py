"""`RegionSample`: one training sample, not opened yet: paths, regions and texts, and where it was read.

It knows no file format and no model; data formats make it, the collator reads its pictures.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import (
    Defect,
    DefectKind,
    ImageError,
    PixelReferError,
    PluginCodeError,
    PromptError,
    RegionError,
    SampleError,
    VideoError,
    sample_name,
    shown,
)
from ..regions.region import Region, VideoRegion
from .messages import MASK_MARKER, REGION_MARKER, Turn, marker_kinds, marker_mismatch, read_turns

MediaKind = Literal["image", "video"]
MEDIA_KINDS: tuple[MediaKind, ...] = ("image", "video")

Medium = tuple[MediaKind, int]
"""`image` or `video`, and which of a sample's images or videos."""


_KIND_OF_FAULT: Mapping[type[PixelReferError], DefectKind] = {
    ImageError: "media",
    VideoError: "media",
    RegionError: "region",
    PromptError: "format",
    PluginCodeError: "plugin",
}
SAMPLE_FAULTS = tuple(_KIND_OF_FAULT)
"""What is raised where one sample is to blame, or where the code of a plugin fails on it."""


def defect_of(fault: PixelReferError) -> Defect:
    """What one of `SAMPLE_FAULTS` says of its sample."""
    kind = next(kind for error_type, kind in _KIND_OF_FAULT.items() if isinstance(fault, error_type))
    return Defect(kind, fault.in_sample)


@dataclass(frozen=True, eq=False)
class RegionSample:
    """One conversation, about any number of regions, with the answers to learn.

    Attributes:
        id: of the sample, for messages; unique within its file where the file has ids.
        messages: as `RegionProcessor` takes them; pictures and videos are content parts that hold paths (or, in
            rows that come from memory, pictures).
        regions: in the order of their markers: a `<region>` stands for one that is shown, a `<seg>` in an answer for
            one whose mask is to be learnt, a target.
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

    @property
    def problem(self) -> str:
        """Which field is of another type than it must be, as code of a data format may leave it; empty where none is.

        What a message or a region says is not looked at.
        """
        sizes = all(size is None or (isinstance(size, tuple) and len(size) == 2) for size in self._listed("media_hw"))
        checks = {
            "id": (isinstance(self.id, str), "a text"),
            "where": (isinstance(self.where, str), "a text"),
            "messages": (all(map(_is_message, self._listed("messages"))), "a tuple of messages"),
            "regions": (
                all(isinstance(region, Region | VideoRegion) for region in self._listed("regions")),
                "a tuple of Region and VideoRegion",
            ),
            "media_hw": (sizes, "a tuple of sizes (height, width) and None"),
        }
        wrong = [(name, expected) for name, (is_sound, expected) in checks.items() if not is_sound]
        return "".join(f"{name} must be {expected}, got {shown(getattr(self, name))}" for name, expected in wrong[:1])

    def _listed(self, field: str) -> Sequence[Any]:
        """A field that is a tuple or list; something that is no item of one where it is something else."""
        value = getattr(self, field)
        return value if isinstance(value, tuple | list) else (...,)

    def error(self, *defects: Defect) -> SampleError:
        """The error that says what is wrong with this sample."""
        return SampleError(self.id, self.where, defects)

    def blamed(self, fault: PixelReferError) -> SampleError:
        """The error that says what one of `SAMPLE_FAULTS` says of this sample."""
        return _caused(self.error(defect_of(fault)), fault)

    @property
    def targets(self) -> tuple[int, ...]:
        """Which of its regions are targets, by number.

        Raises:
            PromptError: its messages are malformed.
        """
        kinds = marker_kinds(read_turns(self.messages))
        return tuple(number for number, kind in enumerate(kinds) if kind == MASK_MARKER)

    def media(self, kind: MediaKind) -> list[Mapping[str, Any]]:
        """Its content parts of one kind, in order."""
        return [
            part
            for message in self.messages
            if not isinstance(message["content"], str)
            for part in message["content"]
            if part["type"] == kind
        ]

    @property
    def paths(self) -> list[str | os.PathLike[str]]:
        """The files that it shows; of a video that is a list of frames all of these. What lies in memory has none."""
        return [file for kind in MEDIA_KINDS for part in self.media(kind) for file in files_of(part[kind])]


def files_of(medium: Any) -> list[str | os.PathLike[str]]:
    """The files of a picture or video of a content part; none where it lies in memory."""
    given = medium if isinstance(medium, list | tuple) else [medium]
    return [each for each in given if isinstance(each, str | os.PathLike)]


RecordUse = Literal["learn", "ask", "regions"]
"""What a record is read for: to learn its answers; to be asked, so that it may end with a message of the user; or for
the media and regions in it alone, whatever its messages say, if it has any."""


@dataclass(frozen=True)
class RecordPlace:
    """Where a record stands, where its relative paths begin, and what it is read for.

    Attributes:
        where: file and line or number, such as `train.jsonl line 12`.
        index: of the record in its file, from 0; the sample's id where the record has none.
        media_root: folder that relative media paths are below.
        strict_media: whether a path that leads out of that folder is refused.
        use: what the record is read for, and so what it must have.
    """

    where: str
    index: int
    media_root: Path
    strict_media: bool = False
    use: RecordUse = "learn"

    def path(self, relative: str | os.PathLike[str]) -> str:
        """A media path that can be opened from anywhere.

        Raises:
            ImageError: it leads out of the media root, which `strict_media` forbids.
        """
        path = str(self.media_root / relative)
        if self.strict_media:
            require_below(path, self.media_root)
        return path

    def error(self, id: str, defects: Sequence[Defect]) -> SampleError:
        """The error that says what is wrong with the record here."""
        return SampleError(id, self.where, defects)

    def blamed(self, fault: PixelReferError) -> SampleError:
        """The error that says what one of `SAMPLE_FAULTS` says of the record here, whose id is not known."""
        return _caused(self.error(str(self.index), [defect_of(fault)]), fault)


def require_below(path: str | os.PathLike[str], media_root: Path) -> None:
    """Refuse a media path that leads out of the media root: absolute, by `..`, or by a symbolic link.

    Raises:
        ImageError: it does.
    """
    root = Path(os.path.realpath(media_root))
    try:
        is_below = Path(os.path.realpath(path)).is_relative_to(root)
    except (OSError, ValueError):  # no path at all, or links in a circle
        is_below = False
    if not is_below:
        raise ImageError(
            f"The path {shown(str(path))} leads out of the media root '{media_root}', which strict_media forbids."
        )


def _is_message(message: Any) -> bool:
    """Whether it has the shape of a message: what its parts are, and hold, is not looked at."""
    if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
        return False
    content = message["content"]
    if isinstance(content, str):
        return True
    return isinstance(content, Sequence) and all(isinstance(part, Mapping) and "type" in part for part in content)


def _caused(error: SampleError, fault: PixelReferError) -> SampleError:
    error.plugin, error.step, error.distribution = fault.plugin, fault.step, fault.distribution
    error.__cause__ = fault
    return error


def medium_of(region: Region | VideoRegion) -> Medium:
    """What a region lies on: of which kind, and which of them."""
    return ("image", region.image_index) if isinstance(region, Region) else ("video", region.video_index)


def marker_defects(turns: Sequence[Turn], regions: Sequence[Region | VideoRegion | None]) -> Iterator[Defect]:
    """What is wrong with the markers of a sample.

    Args:
        turns: its messages.
        regions: its regions, in the order of their markers; None for one that is known to be defective.
    """
    kinds = marker_kinds(turns)
    if mismatch := marker_mismatch(kinds, len(regions)):
        yield Defect("markers", mismatch)
    for index, turn in enumerate(turns):
        if not turn.is_answer and MASK_MARKER in turn.text():
            yield Defect(
                "markers",
                f"message {index}: {MASK_MARKER} stands for a mask in answers only, here is one of the {turn.role}. "
                f"Write {REGION_MARKER} for a region that is shown.",
            )
    if not mismatch:  # else which region a marker stands for is not known
        targets = {number: regions[number] for number, kind in enumerate(kinds) if kind == MASK_MARKER}
        yield from _target_defects({number: region for number, region in targets.items() if region is not None})


def _target_defects(targets: Mapping[int, Region | VideoRegion]) -> Iterator[Defect]:
    for number, target in targets.items():
        shapes = [target] if isinstance(target, Region) else target.frames.values()
        if strokes := sorted({shape.kind for shape in shapes} & {"points", "scribble"}):
            yield Defect(
                "region",
                f"region {number} is given as {strokes[0]}, but {MASK_MARKER} stands for it, so its mask is learnt. "
                "Give that: rle, mask or polygon.",
            )
    media = sorted({medium_of(target) for target in targets.values()})
    if len(media) > 1:
        listed = ", ".join(f"{kind} {index}" for kind, index in media)
        yield Defect(
            "region", f"its {MASK_MARKER} lie on {listed}. All masks of a sample must lie on one picture or video."
        )
