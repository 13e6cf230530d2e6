"""Reads chat messages: which pictures they hold, where regions and answers stand, and whether all of it fits.

A read conversation has one placeholder in its texts for each region and for each answer of the assistant; its
`slots` say which is which, in order. It knows no tokenizer and no model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from .errors import ImageError, PromptError
from .images import load_image
from .regions import Region

REGION_MARKER = "<region>"
"""What stands for the next region in a user's text."""

PLACEHOLDER = "<|region_pad|>"
"""The special token that object tokens replace. It never reaches the decoder."""

Message = Mapping[str, Any]
Conversation = Sequence[Message]


@dataclass(frozen=True)
class Slot:
    """What one placeholder in the texts stands for: the next region, or an assistant's `answer`."""

    answer: str | None = None

    @property
    def num_regions(self) -> int:
        """Regions that stand here; an answer may point at some, or at none."""
        return 1 if self.answer is None else self.answer.count(REGION_MARKER)


@dataclass(frozen=True, eq=False)
class Sample:
    """One conversation, read.

    Attributes:
        regions: its regions, in the order of their `<region>`s.
        messages: its messages for the chat template, a placeholder in each slot's place.
        slots: what the placeholders stand for, in order.
        images: its pictures, upright RGB.
        videos: its videos, as they were given.
        video_metadata: what was said about each, or None.
    """

    regions: Sequence[Region]
    messages: list[dict[str, Any]] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)
    images: list[Image.Image] = field(default_factory=list)
    videos: list[Any] = field(default_factory=list)
    video_metadata: list[Any] = field(default_factory=list)


def read_conversation(
    conversation: Conversation, regions: Sequence[Region], *, index: int, special_tokens: Sequence[str]
) -> Sample:
    """Check one conversation against its regions.

    Args:
        conversation: its messages.
        regions: its regions.
        index: which sample of the batch it is, for messages.
        special_tokens: tokens that must not stand in a text: the backbone's own for pictures and videos.

    Raises:
        PromptError: the messages are malformed, or do not fit the regions.
        ImageError: a picture cannot be read.
    """
    try:
        reader = _Reader(Sample(regions), (PLACEHOLDER, *special_tokens))
        if not conversation:
            raise PromptError("the conversation has no message.")
        for message in conversation:
            reader.read(message)
        _check_regions(reader.sample)
    except (PromptError, ImageError) as error:
        raise type(error)(f"Sample {index}: {error}") from error
    return reader.sample


def _check_regions(sample: Sample) -> None:
    wanted = sum(slot.num_regions for slot in sample.slots)
    if wanted != len(sample.regions):
        raise PromptError(
            f"its texts have {wanted} {REGION_MARKER} but {len(sample.regions)} regions were given. "
            f"Each {REGION_MARKER} stands for one region, in order."
        )
    for number, region in enumerate(sample.regions):
        if not isinstance(region, Region):
            raise PromptError(
                f"region {number}: expected a Region, got {region!r}. "
                "Make one with Region.from_box, from_mask, from_polygon, from_points, from_rle or from_scribble."
            )
        if region.image_index >= len(sample.images):
            raise PromptError(
                f"region {number} lies on image {region.image_index}, "
                f"but the conversation has {len(sample.images)} images."
            )


@dataclass(frozen=True)
class _Reader:
    """Reads message after message into a sample."""

    sample: Sample
    refused: tuple[str, ...]

    def read(self, message: Any) -> None:
        if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
            raise PromptError(f"a message must have 'role' and 'content', got {message!r}.")
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not isinstance(parts, Sequence) or not all(isinstance(part, Mapping) for part in parts):
            raise PromptError(f"a message's content must be text or a list of parts, got {content!r}.")
        read = self._answer if message["role"] == "assistant" else self._question
        self.sample.messages.append({"role": message["role"], "content": list(read(parts))})

    def _question(self, parts: Sequence[Message]) -> Iterator[dict[str, Any]]:
        for part in parts:
            kind = part.get("type")
            if kind not in ("text", "image", "video") or kind not in part:
                raise PromptError(f"a content part must be text, image or video with a key of that name, got {part!r}.")
            if kind == "text":
                yield {"type": "text", "text": self._with_placeholders(part["text"])}
                continue
            if kind == "image":
                self.sample.images.append(load_image(part["image"]))
            else:
                self.sample.videos.append(part["video"])
                self.sample.video_metadata.append(part.get("video_metadata"))
            yield {"type": kind}

    def _with_placeholders(self, text: str) -> str:
        self._refuse_special_tokens(text)
        self.sample.slots.extend(Slot() for _ in range(text.count(REGION_MARKER)))
        return text.replace(REGION_MARKER, f"[{PLACEHOLDER}]")

    def _answer(self, parts: Sequence[Message]) -> Iterator[dict[str, Any]]:
        if any(part.get("type") != "text" or "text" not in part for part in parts):
            raise PromptError(f"an assistant's message must be text, got {list(parts)!r}.")
        answer = "".join(str(part["text"]) for part in parts)
        self._refuse_special_tokens(answer)
        self.sample.slots.append(Slot(answer))
        yield {"type": "text", "text": PLACEHOLDER}

    def _refuse_special_tokens(self, text: str) -> None:
        if not isinstance(text, str):
            raise PromptError(f"a text part must be a string, got {text!r}.")
        for token in self.refused:
            if token in text:
                raise PromptError(
                    f"the text holds the special token {token!r}. "
                    f"Write {REGION_MARKER} for a region and pass pictures as content parts."
                )
