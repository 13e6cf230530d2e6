"""Words a read conversation for the chat template: a placeholder for each region and answer, and the list of objects.

It knows the wording and nothing that is not in the conversation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ..contracts.messages import MARKER, MASK_MARKER, REGION_MARKER, Turn
from ..contracts.samples import Medium, medium_of
from ..errors import PromptError
from ..media.video import Video
from ..regions.region import Region
from .sample import PromptStyle, Slot, WrittenRegion

OBJECTS_ALONE = "The highlighted regions are as follows:\n"
"""What stands before the list of a memory's objects where the decoder sees nothing of what they lie on."""


class Written(NamedTuple):
    """A conversation as `PromptWriter` words it; see `ReadSample`."""

    messages: list[dict[str, Any]]
    slots: list[Slot]
    regions: list[WrittenRegion]


class PromptWriter:
    """Writes a conversation's messages, its slots, and its regions in the order in which their placeholders stand.

    Args:
        videos: those of the conversation, sampled.
        shows_media: whether the backbone itself is shown the pictures and videos.
        listed: the regions that are listed before the first question.
        at_marker: for each marker in order the region that is written there; None for an `<seg>`.
        style: how it is worded.
    """

    def __init__(
        self,
        videos: Sequence[Video],
        *,
        shows_media: bool,
        listed: Sequence[WrittenRegion],
        at_marker: Sequence[WrittenRegion | None],
        style: PromptStyle,
    ) -> None:
        self._videos = videos
        self._shows_media = shows_media
        self._listed = listed
        self._at_marker = iter(at_marker)
        self._style = style
        self._slots: list[Slot] = []
        self._regions: list[WrittenRegion] = []

    def write(self, turns: Sequence[Turn]) -> Written:
        """Word the conversation; once, as the writer goes through its markers.

        Raises:
            PromptError: a text holds a special token, or the listed regions lie on several images or videos.
        """
        listing = _turn_with(turns, *self._listed_medium()) if self._listed else None
        messages = []
        for turn in turns:
            _refuse_special_tokens(turn.text(), self._style)
            content = list(self._answer(turn) if turn.is_answer else self._question(turn, lists=turn is listing))
            messages.append({"role": turn.role, "content": content})
        return Written(messages, self._slots, self._regions)

    def _listed_medium(self) -> Medium:
        """What the listed objects lie on."""
        media = {medium_of(each.region): None for each in self._listed}
        if len(media) > 1:
            names = " and ".join(f"{kind} {index}" for kind, index in media)
            raise PromptError(
                f"its regions lie on {names}. Adapter '{self._style.adapter}' lists regions that are no clicks and no "
                "boxes before the question, which may be of one image or video only. Split the conversation."
            )
        return next(iter(media))

    def _question(self, turn: Turn, *, lists: bool) -> Iterator[dict[str, Any]]:
        """A user's message; the list of objects follows its last picture or video, before the text there."""
        last_medium = max((index for index, part in enumerate(turn.parts) if part["type"] != "text"), default=-1)
        for index, part in enumerate(turn.parts):
            if part["type"] == "text":
                opens = lists and index == last_medium + 1
                yield self._text((self._list() if opens else "") + self._with_regions(part["text"]))
            elif self._shows_media:
                yield {"type": part["type"]}
        if lists and last_medium + 1 == len(turn.parts):
            yield self._text(self._list())

    def _text(self, text: str) -> dict[str, Any]:
        self._slots.extend(Slot() for _ in range(text.count(self._style.placeholder)))
        return {"type": "text", "text": text}

    def _answer(self, turn: Turn) -> Iterator[dict[str, Any]]:
        self._slots.append(Slot(self._with_regions(turn.text())))
        yield {"type": "text", "text": self._style.placeholder}

    def _with_regions(self, text: str) -> str:
        return MARKER.sub(self._next_region, text)

    def _next_region(self, marker: re.Match[str]) -> str:
        """What is written for the next marker, with the number that stands before it."""
        written = next(self._at_marker)
        before = marker.group().removesuffix(marker["kind"])
        if written is None:
            assert self._style.mask_token is not None, "markers for masks are refused where there are none"
            return before + self._style.mask_token
        if written.id is not None:
            return f"[{written.id}]"
        self._regions.append(written)
        return before + self._bracket(written)

    def _bracket(self, written: WrittenRegion) -> str:
        """One placeholder for each picture that the region lies on: `[..]`, or `[Time 1.0s:..,Time 2.0s:..]`."""
        placeholder = self._style.placeholder
        if isinstance(written.region, Region):
            return f"[{placeholder}]"
        if not self._style.object_only:
            return f"[{placeholder * len(written.frames)}]"
        video = self._videos[written.region.video_index]
        times_s = [video.times_s[video.position(frames[0])] for frames in written.frames]
        return "[" + ",".join(self._style.frame_label(time_s) + placeholder for time_s in times_s) + "]"

    def _list(self) -> str:
        """The objects of the conversation's memory, each under its number."""
        self._regions.extend(self._listed)
        return self._introduction() + "".join(f"[{each.id}]: {self._entry(each)}\n" for each in self._listed)

    def _introduction(self) -> str:
        if self._style.object_only:
            return OBJECTS_ALONE
        region = self._listed[0].region
        if isinstance(region, Region):
            return self._style.list_heading(num_frames=None)
        return self._style.list_heading(num_frames=len(self._videos[region.video_index]))

    def _entry(self, written: WrittenRegion) -> str:
        if self._style.object_only:
            return self._bracket(written)
        if isinstance(written.region, Region):
            return self._style.placeholder
        video, together = self._videos[written.region.video_index], self._style.frames_together
        entries = []
        for frames in written.frames:
            first = video.position(frames[0]) // together * together + 1
            last = min(first + together - 1, len(video))
            entries.append((f"<{first}>-<{last}> " if last > first else f"<{first}> ") + self._style.placeholder)
        return " ".join(entries)


def _turn_with(turns: Sequence[Turn], kind: str, index: int) -> Turn:
    """The message that shows one image or video."""
    shown = [turn for turn in turns for part in turn.parts if part["type"] == kind]
    return shown[index]


def _refuse_special_tokens(text: str, style: PromptStyle) -> None:
    for token in style.special_tokens:
        if token in text:
            mask = f", {MASK_MARKER} in an answer for a mask," if style.mask_token else ""
            raise PromptError(
                f"the text holds the special token {token!r}. "
                f"Write {REGION_MARKER} for a region{mask} and pass pictures as content parts."
            )
