"""Samples with fewer turns: what is left of a conversation when it is cut, and its regions with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from itertools import pairwise

from ..contracts.messages import Message, marker_kinds, read_turns
from ..contracts.samples import MEDIA_KINDS, Medium, RegionSample, medium_of
from ..regions.region import Region, VideoRegion


def with_fewer_turns(sample: RegionSample) -> Iterator[RegionSample]:
    """The sample without its last turn, without its last two, and so on to its first alone."""
    roles = [message["role"] for message in sample.messages]
    ends = [index + 1 for index, role in enumerate(roles) if role == "assistant"]
    for last in range(len(ends) - (ends[-1] == len(roles)) - 1, -1, -1):
        yield first_turns(sample, ends[: last + 1])


def first_turns(sample: RegionSample, ends: Sequence[int]) -> RegionSample:
    """The messages up to the last of `ends`, each the end of a turn, with their regions and what these lie on.

    A turn without regions may be about any of the pictures: with one, all of them stay.
    """
    counts = [len(marker_kinds([turn])) for turn in read_turns(sample.messages)]
    regions = sample.regions[: sum(counts[: ends[-1]])]
    every_turn_has_one = all(sum(counts[start:end]) for start, end in pairwise([0, *ends]))
    gone = {medium_of(each) for each in sample.regions[len(regions) :]} - {medium_of(each) for each in regions}
    messages, new_index = _without_media(sample.messages[: ends[-1]], gone if every_turn_has_one else set())
    media = [(kind, index) for kind in MEDIA_KINDS for index in range(len(sample.media(kind)))]
    return replace(
        sample,
        messages=messages,
        regions=tuple(_moved(each, new_index) for each in regions),
        media_hw=tuple(hw for medium, hw in zip(media, sample.media_hw, strict=False) if medium in new_index),
    )


def _without_media(messages: Sequence[Message], gone: Set[Medium]) -> tuple[tuple[Message, ...], dict[Medium, int]]:
    """The messages without some pictures and videos, and of each that stays which it is now."""
    seen: Counter[str] = Counter()
    new_index: dict[Medium, int] = {}
    left = []
    for message in messages:
        if isinstance(message["content"], str):
            left.append(message)
            continue
        parts = []
        for part in message["content"]:
            if part["type"] != "text":
                medium = (part["type"], seen[part["type"]])
                seen[part["type"]] += 1
                if medium in gone:
                    continue
                new_index[medium] = sum(kind == part["type"] for kind, _ in new_index)
            parts.append(part)
        left.append({**message, "content": parts})
    return tuple(left), new_index


def _moved(region: Region | VideoRegion, new_index: Mapping[Medium, int]) -> Region | VideoRegion:
    """The region on what it lies on, wherever that is now.

    Where that is gone, because a turn that is dropped shows it, the old index is one that no longer exists.
    """
    medium = medium_of(region)
    index = new_index.get(medium, medium[1])
    return region.on_image(index) if isinstance(region, Region) else region.on_video(index)
