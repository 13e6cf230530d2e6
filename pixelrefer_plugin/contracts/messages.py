"""Chat messages, the markers in their texts, and what a conversation is once it is read.

A read conversation has placeholders in its texts for regions and for the answers of the assistant; its `slots`
say which is which, in order. It knows no tokenizer and no model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from ..errors import PromptError
from ..media.video import FrameSampling, Video
from ..regions.region import Region, VideoRegion

REGION_MARKER = "<region>"
"""What stands for the next region in a user's text."""

MASK_MARKER = "<seg>"
"""What stands for the next region in an assistant's answer, where its mask is meant."""

MOST_DIGITS = 9
"""Of an object's id."""

MARKER = re.compile(rf"(?:\[(?P<id>[0-9]{{1,{MOST_DIGITS}}})\] ?)?(?P<kind>{REGION_MARKER}|{MASK_MARKER})")
"""Either of them, with the number in brackets that may stand before it."""

CALLED_ID = re.compile(r"\[([0-9]+)\]")
"""A number in brackets: what calls an object. With blanks, `[ 12 ]`, it is text like any other."""

PLACEHOLDER = "<|region_pad|>"
"""The special token that object tokens replace, where the tokenizer has none of its own for that. It never reaches
the decoder."""

Message = Mapping[str, Any]
Conversation = Sequence[Message]


@dataclass(frozen=True)
class PromptStyle:
    """What one adapter and one backbone make of a conversation.

    Attributes:
        adapter: name of the adapter, for messages.
        object_only: regions take the place of the pictures and videos they lie on, and those of a video tell
            their times.
        special_tokens: tokens that must not stand in a text: the placeholder, the one for masks, and the backbone's
            own for pictures and videos.
        sampling: which frames of a video are read; those that regions name are always among them.
        placeholder: the token that stands for the regions and answers in the rendered texts.
        frame_label: what stands before a frame's object tokens, of its time in seconds, where regions tell it.
        mask_token: the token that is written for a mask in an answer; None where the adapter gives none.
        is_drawn: whether a region's tokens, made of its clicks or its box, stand where its `<region>` does. The others
            are objects of the conversation's memory. None: all stand where their `<region>` does.
        frames_together: consecutive sampled frames whose pixels of one region are planned together.
    """

    adapter: str
    object_only: bool
    special_tokens: tuple[str, ...]
    sampling: FrameSampling
    placeholder: str
    frame_label: Callable[[float], str]
    mask_token: str | None = None
    is_drawn: Callable[[Region | VideoRegion], bool] | None = None
    frames_together: int = 1


@dataclass(frozen=True)
class Slot:
    """What one placeholder in the texts stands for: the next region on one picture, or an `answer` of the
    assistant, which may hold placeholders of its own."""

    answer: str | None = None


@dataclass(frozen=True)
class WrittenRegion:
    """A region whose object tokens stand in the texts.

    Attributes:
        region: that region.
        name: what to call it in messages, such as `region 2`.
        number: which of the conversation's regions it is, in the order of all its markers; None for an object of an
            `ObjectMemory`.
        id: the number under which it is listed before the first question; None where its tokens stand at its
            `<region>`.
        is_drawn: its tokens are made of its clicks or its box.
        frames: its frames on a video, those together that are planned together; none on an image.
    """

    region: Region | VideoRegion
    name: str
    number: int | None
    id: int | None
    is_drawn: bool = False
    frames: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, eq=False)
class Sample:
    """One conversation, read.

    Attributes:
        targets: the regions of its `<seg>`s by their numbers, which count all its markers in order.
        images: its pictures, upright RGB.
        videos: its videos, sampled.
        messages: its messages for the chat template, a placeholder in each slot's place.
        slots: what the placeholders stand for, in order.
        regions: its regions, the targets left out and a memory's objects included, in the order in which their
            placeholders stand.
        shows_media: whether the backbone itself is shown the pictures and videos.
    """

    targets: Mapping[int, Region | VideoRegion]
    images: list[Image.Image]
    videos: list[Video]
    shows_media: bool
    messages: list[dict[str, Any]] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)
    regions: list[WrittenRegion] = field(default_factory=list)


def read_texts(conversation: Conversation) -> list[tuple[str, str]]:
    """Role and text of each message, the texts of its parts joined.

    Raises:
        PromptError: a message is malformed, or there is none.
    """
    return [(turn.role, turn.text()) for turn in read_turns(conversation)]


def read_turns(conversation: Conversation) -> list[Turn]:
    """The messages of a conversation, checked; raises as `read_texts`."""
    turns = [_turn(message) for message in conversation]
    if not turns:
        raise PromptError("the conversation has no message.")
    return turns


@dataclass(frozen=True)
class Turn:
    """One message: its role and its parts, checked."""

    role: str
    parts: Sequence[Mapping[str, Any]]

    @property
    def is_answer(self) -> bool:
        """Whether the assistant says it."""
        return self.role == "assistant"

    def text(self) -> str:
        """Its texts, joined."""
        return "".join(part["text"] for part in self.parts if part["type"] == "text")

    def markers(self) -> Iterator[re.Match[str]]:
        """Its markers in order, each with the number in brackets before it, where there is one."""
        texts = [self.text()] if self.is_answer else [part["text"] for part in self.parts if part["type"] == "text"]
        return (found for text in texts for found in MARKER.finditer(text))


def require_unicode(text: str) -> None:
    """Refuse what no tokenizer takes: half a character, as bytes of another encoding leave it.

    Raises:
        PromptError: there is one.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PromptError(f"the text {text!r} is no Unicode: {error.reason}. Is it in another encoding?") from error


def meant_itself(called: str) -> str:
    """What to do, for a message, where a number in brackets is to call nothing."""
    return f"Where the number itself is meant, write [ {called} ]."


def _turn(message: Any) -> Turn:
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
        if kind == "text":
            require_unicode(part["text"])
    return Turn(message["role"], parts)
