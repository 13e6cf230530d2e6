"""Conversations whose regions are pointed at in words and pictures: rewritten so that no region is left in them.

What stands for a region becomes words, and pictures are replaced or shown besides, as a pointer says. The result is a
conversation like any other. It knows the wording of the conversation, not of the pointer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from PIL import Image

from ..contracts.messages import MARKER, REGION_MARKER, Turn
from ..contracts.pointing import Part, PlacedRegion, PointedMedium, PointedRegion
from ..contracts.samples import MEDIA_KINDS, MediaKind, Medium, medium_of
from ..errors import Place, placed
from ..media.video import Video
from ..regions.region import Region, VideoRegion
from .sample import PointingStyle, WrittenRegion, taken_id

OBJECTS = "The objects are:\n"
"""What stands before the list of a memory's objects."""


@dataclass(frozen=True, eq=False)
class Media:
    """What a conversation shows, each kind in its order.

    Attributes:
        images: its pictures.
        videos: its videos, sampled.
        image_options: of each picture, what its content part asks of the native image processor.
    """

    images: Sequence[Image.Image]
    videos: Sequence[Video]
    image_options: Sequence[Mapping[str, int]]

    def __getitem__(self, medium: Medium) -> Image.Image | Video:
        kind, index = medium
        return self.images[index] if kind == "image" else self.videos[index]

    def count(self, kind: MediaKind) -> int:
        """How many images, or videos, there are."""
        return len(self.images if kind == "image" else self.videos)


def point_at(
    turns: Sequence[Turn],
    media: Media,
    *,
    listed: Sequence[WrittenRegion],
    at_marker: Sequence[WrittenRegion | None],
    style: PointingStyle,
) -> tuple[list[Turn], Media]:
    """Rewrite a conversation.

    Args:
        turns: its messages.
        media: what they show.
        listed: the objects of its memory, which are listed behind what they lie on.
        at_marker: for each marker in order the region that is meant there.
        style: how regions are pointed at.

    Raises:
        RegionError: a region does not fit its picture.
        PromptError: the pointer cannot point at a region.
    """
    numbered = _numbered(turns, listed, at_marker)
    return _Rewriting(media, numbered, style).rewritten(turns, listed, at_marker)


@dataclass(frozen=True, eq=False)
class _Numbered:
    """A region, what it is called by, and how errors call it."""

    region: Region | VideoRegion
    number: int
    place: Place


def _numbered(
    turns: Sequence[Turn], listed: Sequence[WrittenRegion], at_marker: Sequence[WrittenRegion | None]
) -> dict[Region | VideoRegion, _Numbered]:
    """A number for each region: its id in the memory, the one that stands before its marker, or the next free one.

    Equal regions are one object.

    Raises:
        PromptError: two of them are given one number.
    """
    markers = [marker for turn in turns for marker in turn.markers()]
    given = [None if marker["id"] is None else int(marker["id"]) for marker in markers]
    taken = {each.id for each in listed} | set(given)
    numbered = {each.region: _Numbered(each.region, each.id, each.place) for each in listed if each.id is not None}
    free = (each for each in count(1) if each not in taken)
    region_of: dict[int | None, Region | VideoRegion] = {each.id: each.region for each in listed}
    for written, id in zip(at_marker, given, strict=True):
        if written is None:
            continue
        if id == 0 or (id is not None and region_of.setdefault(id, written.region) != written.region):
            raise taken_id(id).set_place(**written.place)
        if written.region in numbered:
            continue
        number = id or next(free)
        taken.add(number)
        numbered[written.region] = _Numbered(written.region, number, written.place)
    return numbered


class _Rewriting:
    """The rewriting of one conversation."""

    def __init__(
        self,
        media: Media,
        numbered: Mapping[Region | VideoRegion, _Numbered],
        style: PointingStyle,
    ) -> None:
        self._media = media
        self._numbered = numbered
        self._style = style
        self._shown: dict[MediaKind, list[Any]] = {kind: [] for kind in MEDIA_KINDS}
        self._options: list[Mapping[str, int]] = []
        self._words: dict[Region | VideoRegion, str] = {}
        self._said_beside: set[Part] = set()

    def rewritten(
        self, turns: Sequence[Turn], listed: Sequence[WrittenRegion], at_marker: Sequence[WrittenRegion | None]
    ) -> tuple[list[Turn], Media]:
        """The rewritten messages, and what they show; once, as the rewriting goes through its pictures."""
        order = iter([(medium, self._show(medium)) for medium in self._in_order(turns)])
        list_behind = medium_of(listed[0].region) if listed else None
        regions = iter(at_marker)
        made = []
        for turn in turns:
            parts: list[Mapping[str, Any]] = []
            for part in [{"type": "text", "text": turn.text()}] if turn.is_answer else turn.parts:
                if part["type"] == "text":
                    text = MARKER.sub(lambda marker: self._said(marker, next(regions)), part["text"])
                    parts.append({"type": "text", "text": text})
                    continue
                medium, beside = next(order)
                parts += [part, *map(_content_part, beside)]
                if medium == list_behind:
                    parts.append({"type": "text", "text": self._list(listed)})
            made.append(replace(turn, parts=parts))
        return made, Media(self._shown["image"], self._shown["video"], self._options)

    def _in_order(self, turns: Sequence[Turn]) -> Iterator[Medium]:
        counts: dict[MediaKind, int] = dict.fromkeys(MEDIA_KINDS, 0)
        for turn in turns:
            for part in turn.parts:
                if part["type"] != "text":
                    kind: MediaKind = part["type"]
                    yield kind, counts[kind]
                    counts[kind] += 1

    def _show(self, medium: Medium) -> Sequence[Part]:
        """Take an image or video up, as it is or as the pointer has it; what is shown beside it."""
        kind, index = medium
        media = self._media[medium]
        options = self._media.image_options[index] if kind == "image" else {}
        regions = [each for each in self._numbered.values() if medium_of(each.region) == medium]
        if not regions:
            self._take(media, options)
            return ()
        on = PointedMedium(
            media=media,
            number=len(self._shown[kind]) + 1,
            has_others=self._media.count(kind) > 1,
            coordinates=self._style.coordinates(media, options),
        )
        pointing = self._style.point(on, [_pointed(each, media) for each in regions])
        self._words |= dict(zip((each.region for each in regions), pointing.words, strict=True))
        self._take(media if pointing.media is None else pointing.media, options)
        for part in pointing.beside:
            if not isinstance(part, str):
                self._take(part, options)
        return self._unsaid(pointing.beside)

    def _unsaid(self, beside: Sequence[Part]) -> Sequence[Part]:
        """What is shown beside a picture; of texts alone, those that have not been said beside another."""
        if not all(isinstance(part, str) for part in beside):
            return beside
        unsaid = [part for part in dict.fromkeys(beside) if part not in self._said_beside]
        self._said_beside.update(unsaid)
        return unsaid

    def _take(self, media: Image.Image | Video, options: Mapping[str, int]) -> None:
        if isinstance(media, Video):
            self._shown["video"].append(media)
        else:
            self._shown["image"].append(media)
            self._options.append(options)

    def _said(self, marker: Any, written: WrittenRegion | None) -> str:
        assert written is not None, "masks are refused where an adapter gives none"
        return str(marker.group().removesuffix(REGION_MARKER)) + self._words[written.region]

    def _list(self, listed: Sequence[WrittenRegion]) -> str:
        return OBJECTS + "".join(f"[{each.id}]: {self._words[each.region]}\n" for each in listed)


def _pointed(each: _Numbered, media: Image.Image | Video) -> PointedRegion:
    with placed(**each.place):
        return PointedRegion(each.number, tuple(_places(each.region, media)))


def _places(region: Region | VideoRegion, media: Image.Image | Video) -> Iterator[PlacedRegion]:
    if isinstance(region, Region):
        assert isinstance(media, Image.Image), "regions are known to lie on what there is"
        yield PlacedRegion(region, region.to_mask((media.height, media.width)))
        return
    assert isinstance(media, Video), "regions are known to lie on what there is"
    for frame, shape in region.frames.items():
        position = media.position(frame)
        with placed(frame=frame):
            mask = shape.to_mask(media.image_hw)
        yield PlacedRegion(shape, mask, position, media.times_s[position])


def _content_part(part: Part) -> Mapping[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    return {"type": "video" if isinstance(part, Video) else "image"}
