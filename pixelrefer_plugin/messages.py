"""Reads chat messages: which pictures they hold, where regions and answers stand, and whether all of it fits.

A read conversation has placeholders in its texts for regions and for the answers of the assistant; its `slots`
say which is which, in order. It knows no tokenizer and no model.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from .errors import FrameError, PromptError, VideoError, about
from .images import load_image
from .regions import Region, VideoRegion
from .video import FrameSampling, Video, load_video

REGION_MARKER = "<region>"
"""What stands for the next region in a user's text."""

PLACEHOLDER = "<|region_pad|>"
"""The special token that object tokens replace, where the tokenizer has none of its own for that. It never reaches
the decoder."""

Message = Mapping[str, Any]
Conversation = Sequence[Message]


@dataclass(frozen=True)
class PromptStyle:
    """What one adapter and one backbone make of a conversation.

    Attributes:
        object_only: regions take the place of the pictures and videos they lie on, and those of a video tell
            their times.
        special_tokens: tokens that must not stand in a text: the placeholder, and the backbone's own for pictures
            and videos.
        sampling: which frames of a video are read; those that regions name are always among them.
        placeholder: the token that stands for the regions and answers in the rendered texts.
        frame_label: what stands before a frame's object tokens, of its time in seconds, where regions tell it.
    """

    object_only: bool
    special_tokens: tuple[str, ...]
    sampling: FrameSampling
    placeholder: str
    frame_label: Callable[[float], str]


@dataclass(frozen=True)
class Slot:
    """What one placeholder in the texts stands for: the next region on one picture, or an `answer` of the
    assistant, which may hold placeholders of its own."""

    answer: str | None = None


@dataclass(frozen=True, eq=False)
class Sample:
    """One conversation, read.

    Attributes:
        regions: its regions, in the order of their `<region>`s.
        images: its pictures, upright RGB.
        videos: its videos, sampled.
        messages: its messages for the chat template, a placeholder in each slot's place.
        slots: what the placeholders stand for, in order.
        shows_media: whether the backbone itself is shown the pictures and videos.
    """

    regions: Sequence[Region | VideoRegion]
    images: list[Image.Image]
    videos: list[Video]
    shows_media: bool
    messages: list[dict[str, Any]] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)


class ImageReader:
    """Reads pictures, each once: conversations of a batch that show the same file or object share the picture."""

    def __init__(self) -> None:
        self._read: dict[Any, tuple[Any, Image.Image]] = {}

    def __call__(self, source: Any) -> Image.Image:
        """The picture of `source`, upright RGB."""
        key = os.fspath(source) if isinstance(source, str | os.PathLike) else id(source)
        if key not in self._read:
            self._read[key] = (source, load_image(source))  # keeping the source keeps its id from being used again
        return self._read[key][1]


def read_conversation(
    conversation: Conversation, regions: Sequence[Any], *, index: int, style: PromptStyle, read_image: ImageReader
) -> Sample:
    """Check one conversation against its regions.

    Args:
        conversation: its messages.
        regions: its regions.
        index: which sample of the batch it is, for messages.
        style: how it is rendered.
        read_image: of the batch.

    Raises:
        PromptError: the messages are malformed, or do not fit the regions.
        ImageError: a picture cannot be read.
        VideoError: a video cannot be read, or has no such frame as a region names.
    """
    with about(f"Sample {index}"):
        turns = _turns(conversation)
        given = [_as_region(region, number) for number, region in enumerate(regions)]
        _require_as_many_markers(turns, given)
        sample = _with_media(turns, given, style, read_image)
        _render(turns, sample, style)
        return sample


def read_texts(conversation: Conversation) -> list[tuple[str, str]]:
    """Role and text of each message, the texts of its parts joined.

    Raises:
        PromptError: a message is malformed, or there is none.
    """
    return [(turn.role, turn.text()) for turn in _turns(conversation)]


def _turns(conversation: Conversation) -> list[_Turn]:
    turns = [_turn(message) for message in conversation]
    if not turns:
        raise PromptError("the conversation has no message.")
    return turns


@dataclass(frozen=True)
class _Turn:
    """One message: its role and its parts, checked."""

    role: str
    parts: Sequence[Mapping[str, Any]]

    @property
    def is_answer(self) -> bool:
        return self.role == "assistant"

    def text(self) -> str:
        return "".join(part["text"] for part in self.parts if part["type"] == "text")


def _turn(message: Any) -> _Turn:
    if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
        raise PromptError(f"a message must have 'role' and 'content', got {message!r}.")
    content = message["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, Sequence) or not all(isinstance(part, Mapping) for part in parts):
        raise PromptError(f"a message's content must be text or a list of parts, got {content!r}.")
    for part in parts:
        kind = part.get("type")
        if kind != "text" and message["role"] == "assistant":
            raise PromptError(f"an assistant's message must be text, got {parts!r}.")
        if kind not in ("text", "image", "video") or kind not in part:
            raise PromptError(f"a content part must be text, image or video with a key of that name, got {part!r}.")
        if kind == "text" and not isinstance(part["text"], str):
            raise PromptError(f"a text part must be a string, got {part['text']!r}.")
    return _Turn(message["role"], parts)


def _as_region(region: Any, number: int) -> Region | VideoRegion:
    if isinstance(region, Region | VideoRegion):
        return region
    if isinstance(region, Mapping):
        with about(f"region {number}"):
            return VideoRegion(region)
    raise PromptError(
        f"region {number}: expected a Region, or {{frame index: Region}} on a video, got {region!r}. "
        "Make one with Region.from_box, from_mask, from_polygon, from_points, from_rle or from_scribble."
    )


def _require_as_many_markers(turns: Sequence[_Turn], regions: Sequence[Any]) -> None:
    wanted = sum(turn.text().count(REGION_MARKER) for turn in turns)
    if wanted != len(regions):
        raise PromptError(
            f"its texts have {wanted} {REGION_MARKER} but {len(regions)} regions were given. "
            f"Each {REGION_MARKER} stands for one region, in order."
        )


def _with_media(
    turns: Sequence[_Turn], regions: Sequence[Region | VideoRegion], style: PromptStyle, read_image: ImageReader
) -> Sample:
    """The sample with its pictures read, each video's frames sampled so that its regions lie on them."""
    parts = [part for turn in turns for part in turn.parts]
    images = [read_image(part["image"]) for part in parts if part["type"] == "image"]
    given_videos = [part for part in parts if part["type"] == "video"]
    _require_on_media(regions, num_images=len(images), num_videos=len(given_videos))
    videos = [
        _read_video(part, dict(_regions_of_video(regions, index)), style) for index, part in enumerate(given_videos)
    ]
    shows_media = not (style.object_only and regions)
    if not shows_media:
        _require_regions_everywhere(regions, num_images=len(images), num_videos=len(videos))
    return Sample(regions, images, videos, shows_media)


def _regions_of_video(regions: Sequence[Region | VideoRegion], index: int) -> Iterator[tuple[int, VideoRegion]]:
    """Those that lie on one video, with their numbers."""
    for number, region in enumerate(regions):
        if isinstance(region, VideoRegion) and region.video_index == index:
            yield number, region


def _read_video(part: Mapping[str, Any], regions: Mapping[int, VideoRegion], style: PromptStyle) -> Video:
    """The video of a content part, with the frames that its regions name."""
    times = {key: part[key] for key in ("fps", "times_s") if key in part}
    named = {frame for region in regions.values() for frame in region.frames}
    try:
        return load_video(part["video"], sampling=style.sampling, frames=named, **times)
    except FrameError as error:
        number = next(number for number, region in regions.items() if error.frame in region.frames)
        raise VideoError(f"region {number}: {error}") from error


def _require_on_media(regions: Sequence[Region | VideoRegion], *, num_images: int, num_videos: int) -> None:
    for number, region in enumerate(regions):
        if isinstance(region, VideoRegion):
            kind, at, there = "video", region.video_index, num_videos
        else:
            kind, at, there = "image", region.image_index, num_images
        if at >= there:
            hint = ""
            if kind == "image" and num_videos and not num_images:
                hint = " On a video, say on which frame: {frame index: region}."
            raise PromptError(f"region {number} lies on {kind} {at}, but the conversation has {there} {kind}s.{hint}")


def _require_regions_everywhere(regions: Sequence[Region | VideoRegion], *, num_images: int, num_videos: int) -> None:
    """In the Object-Only framework, what has no region is not seen at all."""
    seen_images = {each.image_index for each in regions if isinstance(each, Region)}
    seen_videos = {each.video_index for each in regions if isinstance(each, VideoRegion)}
    for kind, there, seen in (("image", num_images, seen_images), ("video", num_videos, seen_videos)):
        for index in sorted(set(range(there)) - seen):
            raise PromptError(
                f"{kind} {index} has no region. With an Object-Only adapter the decoder sees pictures through their "
                f"regions alone: give it one (a box of the whole picture will do), or leave it out."
            )


def _render(turns: Sequence[_Turn], sample: Sample, style: PromptStyle) -> None:
    """Write the sample's messages and slots."""
    texts = iter([_region_text(region, sample, style) for region in sample.regions])
    for turn in turns:
        _refuse_special_tokens(turn.text(), style.special_tokens)
        render = _answer if turn.is_answer else _question
        content = list(render(turn, texts, sample, style.placeholder))
        sample.messages.append({"role": turn.role, "content": content})


def _region_text(region: Region | VideoRegion, sample: Sample, style: PromptStyle) -> str:
    """One placeholder for each picture that the region lies on: `[..]`, or `[Time 1.0s:..,Time 2.0s:..]`."""
    if isinstance(region, Region):
        return f"[{style.placeholder}]"
    if not style.object_only:
        return f"[{style.placeholder * len(region.frames)}]"
    video = sample.videos[region.video_index]
    times_s = [video.times_s[video.position(frame)] for frame in region.frames]
    return "[" + ",".join(style.frame_label(time_s) + style.placeholder for time_s in times_s) + "]"


def _with_regions(text: str, texts: Iterator[str]) -> str:
    first, *others = text.split(REGION_MARKER)
    return first + "".join(next(texts) + other for other in others)


def _question(turn: _Turn, texts: Iterator[str], sample: Sample, placeholder: str) -> Iterator[dict[str, Any]]:
    for part in turn.parts:
        if part["type"] == "text":
            text = _with_regions(part["text"], texts)
            sample.slots.extend(Slot() for _ in range(text.count(placeholder)))
            yield {"type": "text", "text": text}
        elif sample.shows_media:
            yield {"type": part["type"]}


def _answer(turn: _Turn, texts: Iterator[str], sample: Sample, placeholder: str) -> Iterator[dict[str, Any]]:
    sample.slots.append(Slot(_with_regions(turn.text(), texts)))
    yield {"type": "text", "text": placeholder}


def _refuse_special_tokens(text: str, refused: Sequence[str]) -> None:
    for token in refused:
        if token in text:
            raise PromptError(
                f"the text holds the special token {token!r}. "
                f"Write {REGION_MARKER} for a region and pass pictures as content parts."
            )
