"""What foreign data formats share: their turns and masks become messages and regions for `schema.read_sample`.

It knows no file format; each format reads its own keys and hands over what it found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ..errors import Defect, DefectKind, PixelReferError, shown
from ..regions.region import Region

_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
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
