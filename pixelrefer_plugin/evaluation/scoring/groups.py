"""Which questions belong together in a report: by size of the region, by type, by length of the answer.

It knows questions, answers and regions; no figures and no files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...contracts.messages import read_turns
from ...contracts.questions import Answer, Question
from ...errors import PixelReferError
from ...regions.region import Region, VideoRegion

SMALL_PX = 2000
"""Regions of fewer pixels are small, as the PixelRefer paper reports them."""

SMALL, LARGE = f"under {SMALL_PX:,} px", f"{SMALL_PX:,} px and more"
UNKNOWN = "not known"

_BINS = ((0, "none"), (1, "1 word"), (5, "2 to 5 words"), (20, "6 to 20 words"), (50, "21 to 50 words"))
_LONGEST = "51 words and more"
_MOST_SIDE_PX = 1 << 15


@dataclass(frozen=True, eq=False)
class Split:
    """All questions of a report, in groups.

    Attributes:
        name: by what: `size`, `type` or `length`.
        about: that, as a heading.
        groups: positions of each group's questions, ascending int64, by the group's name.
        of_questions: whether the questions alone say which group they are in, so that it is the same for every model.
    """

    name: str
    about: str
    groups: dict[str, np.ndarray]
    of_questions: bool = True


@dataclass(frozen=True)
class Traits:
    """What a question is grouped by.

    Attributes:
        area_px: of the region that is asked about; of a video the mean of the frames that it is given on; of several
            the smallest. None where it is not known.
        type: as `Question.type`.
        words: of the first right answer; None where none is known.
    """

    area_px: float | None
    type: str
    words: int | None

    @classmethod
    def of(cls, question: Question) -> Traits:
        """Those of a question; the only place that looks into its masks."""
        words = len(question.expected.split()) if question.references else None
        return cls(_area_px(question), question.type, words)


def splits_of(traits: Sequence[Traits], answers: Sequence[Answer]) -> list[Split]:
    """Every split that has more than one group."""
    sizes = [_size(each.area_px) for each in traits]
    is_referenced = any(each.words is not None for each in traits)
    lengths = [
        (UNKNOWN if each.words is None else _length(each.words)) if is_referenced else _length(len(answer.text.split()))
        for each, answer in zip(traits, answers, strict=True)
    ]
    types = [each.type or UNKNOWN for each in traits]
    named = sorted(set(types) - {UNKNOWN})
    order = [*(name for _, name in _BINS), _LONGEST, UNKNOWN]
    found = [
        Split("size", "By size of the region", _grouped(sizes, [SMALL, LARGE, UNKNOWN])),
        Split("type", "By type of question", _grouped(types, [*named, UNKNOWN])),
        Split(
            "length",
            f"By length of the {'expected' if is_referenced else 'given'} answer",
            _grouped(lengths, order),
            of_questions=is_referenced,
        ),
    ]
    return [each for each in found if len(each.groups) > 1]


def _grouped(names: Sequence[str], order: Sequence[str]) -> dict[str, np.ndarray]:
    array = np.array(names, dtype=object)
    return {name: found for name in dict.fromkeys(order) if len(found := np.flatnonzero(array == name))}


def _size(area_px: float | None) -> str:
    if area_px is None:
        return UNKNOWN
    return SMALL if area_px < SMALL_PX else LARGE


def _length(words: int) -> str:
    return next((name for most, name in _BINS if words <= most), _LONGEST)


# -- areas -------------------------------------------------------------------------------------------------


def _area_px(question: Question) -> float | None:
    areas = [_region_area_px(region) for region in regions_asked_about(question)]
    known = [each for each in areas if each is not None]
    return min(known) if known and len(known) == len(areas) else None


def regions_asked_about(question: Question) -> tuple[Region | VideoRegion, ...]:
    """The regions of the user's last message; where it has none and asks for masks, those that are expected."""
    count = sum(1 for _ in read_turns(question.asked.messages)[-1].markers())
    return question.asked.regions[-count:] if count else question.targets


def _region_area_px(region: Region | VideoRegion) -> float | None:
    """Its pixels, without the picture; None of clicks and scribbles, which tell no size."""
    if isinstance(region, VideoRegion):
        areas = [_region_area_px(each) for each in region.frames.values()]
        known = [each for each in areas if each is not None]
        return sum(known) / len(known) if known else None
    image_hw = canvas_hw(region)
    try:
        return float(region.to_mask(image_hw).area) if image_hw is not None else None
    except PixelReferError:
        return None


def canvas_hw(region: Region) -> tuple[int, int] | None:
    """The size of its picture where it tells it, else of one that it just fits; None where it tells no size."""
    if region.kind == "mask":
        return region.data.image_hw
    if region.kind == "rle":
        return tuple(region.data[1])
    if region.kind not in ("box", "polygon"):
        return None
    numbers = region.data if region.kind == "box" else [each for ring in region.data for each in ring]
    right, bottom = (math.ceil(max(numbers[axis::2])) + 1 for axis in (0, 1))
    return (bottom, right) if min(right, bottom) > 0 and max(right, bottom) <= _MOST_SIDE_PX else None
