"""What foreign data formats share: their turns and masks become messages and regions for `schema.read_sample`.

It knows no file format; each format reads its own keys and hands over what it found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ..contracts.samples import RegionSample
from ..errors import Defect, DefectKind, PixelReferError, RegionError, shown
from ..regions.region import Region, VideoRegion

_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_MOST_DIGITS = 10  # of a frame index
EVERY_FRAME: Any = object()
"""In place of a frame's index: all that have a mask."""

_MEDIA_MARKER = re.compile(r"(<image>|<video>)")


@contextmanager
def collecting(defects: list[Defect], kind: DefectKind, subject: str) -> Iterator[None]:
    """Notes an error of this package as a defect of `subject`, and goes on."""
    try:
        yield
    except PixelReferError as error:
        defects.append(Defect(kind, error.set_place(subject=subject).in_sample))


def read_turns(turns: Any, defects: list[Defect]) -> list[dict[str, str]]:
    """Our messages from LLaVA's turns, `{"from": "human", "value": text}`.

    Line ends around `<image>` and `<video>` belong to the marker. A turn that is malformed is noted and left out.
    """
    if not isinstance(turns, list | tuple):
        defects.append(Defect("format", f"'conversations' must be a list of turns, got {shown(turns)}."))
        return []
    messages = []
    for number, turn in enumerate(turns):
        role = _ROLES.get(str(turn.get("from"))) if isinstance(turn, Mapping) else None
        if role is None or not isinstance(turn.get("value"), str):
            expected = "{'from': 'human', 'gpt' or 'system', 'value': text}"
            defects.append(Defect("format", f"turn {number} must be {expected}, got {shown(turn)}."))
        else:
            messages.append({"role": role, "content": _without_blanks(turn["value"])})
    return messages


def _without_blanks(text: str) -> str:
    """A text without the blanks around its markers of media."""
    pieces = _MEDIA_MARKER.split(text)
    for index in range(1, len(pieces), 2):
        pieces[index - 1], pieces[index + 1] = pieces[index - 1].rstrip(), pieces[index + 1].lstrip()
    return "".join(pieces)


def read_segmentation(value: Any) -> Region | None:
    """The region of a COCO `segmentation`: polygons, or RLE of either kind, by itself or under that key.

    None where there is no mask: null, nothing, or an RLE of background alone.

    Raises:
        RegionError: it is malformed.
    """
    if isinstance(value, Mapping) and "segmentation" in value:
        value = value["segmentation"]
    if value is None or (isinstance(value, Mapping | Sequence) and not value):
        return None
    if isinstance(value, Mapping):
        is_rle = bool({"size", "counts"} & set(value))
        return Region.from_rle(value) if is_rle and not _is_blank(value.get("counts")) else None
    return Region.from_polygon(value)


def _is_blank(counts: Any) -> bool:
    """Whether run lengths have no foreground. A compressed run ends at a character without the bit for 'goes on'."""
    if isinstance(counts, str | bytes) and counts:
        codes = counts.encode(errors="replace") if isinstance(counts, str) else counts
        return sum(not (code - 48) & 32 for code in codes) == 1
    return isinstance(counts, Sequence) and bool(counts) and not any(counts[1::2])


def size_of(record: Mapping[str, Any]) -> list[Any] | None:
    """`[height, width]` of a record that says either, unchecked; `read_sample` checks it."""
    sides = [record.get("height"), record.get("width")]
    return None if sides == [None, None] else sides


def read_video_objects(objects: Any, defects: list[Defect], *, frame: Any = EVERY_FRAME) -> list[VideoRegion | None]:
    """The objects of a record's `annotation`, each as `read_masks_by_frame` reads it; None, and a defect, for one that
    cannot be read."""
    if not isinstance(objects, list):
        defects.append(Defect("format", f"'annotation' must be a list of objects, got {shown(objects)}."))
        return []
    regions: list[VideoRegion | None] = [None] * len(objects)
    for number, found in enumerate(objects):
        with collecting(defects, "region", f"object {number}"):
            regions[number] = read_masks_by_frame(found, frame=frame)
    return regions


def read_masks_by_frame(found: Any, *, frame: Any = EVERY_FRAME) -> VideoRegion:
    """An object of a video from its masks, `{"36": segmentation, "37": null}`; frames without a mask are left out.

    Args:
        found: the masks, by the frame's index as a text.
        frame: take that of this frame alone, whatever stands in a record as its index.

    Raises:
        RegionError: these are no masks by frame, or there is no mask.
    """
    if not isinstance(found, Mapping) or not all(map(_is_frame, found)):
        raise RegionError(f"it must map frame indices to masks, such as {{'36': ...}}, got {shown(found)}.")
    if frame is not EVERY_FRAME:
        if str(frame) not in found:
            raise RegionError(f"it has no mask on frame {shown(frame)}, which 'frame_idx' names.")
        found = {str(frame): found[str(frame)]}
    masks = {int(name): read_segmentation(given) for name, given in found.items()}
    frames = {index: mask for index, mask in masks.items() if mask is not None}
    if not frames:
        raise RegionError(f"it has no mask on {'any frame' if frame is EVERY_FRAME else f'frame {next(iter(found))}'}.")
    return VideoRegion(frames)


def _is_frame(name: Any) -> bool:
    return isinstance(name, str) and name.isascii() and name.isdigit() and len(name) <= _MOST_DIGITS


def with_video_options(sample: RegionSample, options: Mapping[str, Any]) -> RegionSample:
    """A sample whose videos are read with options of their content part, such as `fps` or `nframes`."""

    def changed(message: Mapping[str, Any]) -> Mapping[str, Any]:
        if isinstance(message["content"], str):
            return message
        parts = [{**part, **options} if part["type"] == "video" else part for part in message["content"]]
        return {**message, "content": parts}

    return replace(sample, messages=tuple(map(changed, sample.messages)))
