"""What a conversation is once it is read, and how an adapter and a backbone want it worded.

A read conversation has placeholders in its texts for regions and for the answers of the assistant; its `slots`
say which is which, in order. It knows no tokenizer and no model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from ..contracts.pointing import PointedMedium, PointedRegion, Pointing, SaidCoordinates
from ..errors import Place, PromptError
from ..media.video import FrameSampling, Video
from ..regions.region import Region, VideoRegion


@dataclass(frozen=True)
class PointingStyle:
    """How an adapter without object tokens points at regions.

    Attributes:
        point: `point(on, regions) -> Pointing`, what its pointer says of one image or video, checked.
        coordinates: `coordinates(media, options) -> SaidCoordinates | None`, how the backbone is told coordinates on an
            image, whose content part asks for these options of the native processor, or on a video.
    """

    point: Callable[[PointedMedium, Sequence[PointedRegion]], Pointing]
    coordinates: Callable[[Image.Image | Video, Mapping[str, int]], SaidCoordinates | None]


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
        list_heading: what stands before the list of objects, told the `num_frames` of their video, None on an image.
        mask_token: the token that is written for a mask in an answer; None where the adapter gives none.
        drawn: kinds of regions whose tokens, made of their clicks or their box, stand where their `<region>` does. The
            others are objects of the conversation's memory. Empty: all stand where their `<region>` does.
        frames_together: consecutive sampled frames whose pixels of one region are planned together.
        pointing: how regions are pointed at, of an adapter that makes no object tokens.
    """

    adapter: str
    object_only: bool
    special_tokens: tuple[str, ...]
    sampling: FrameSampling
    placeholder: str
    frame_label: Callable[[float], str]
    list_heading: Callable[..., str]
    mask_token: str | None = None
    drawn: tuple[str, ...] = ()
    frames_together: int = 1
    pointing: PointingStyle | None = None

    def is_drawn(self, region: Region | VideoRegion) -> bool:
        """Whether a region is read as it was drawn, on each of its frames."""
        shapes = region.frames.values() if isinstance(region, VideoRegion) else (region,)
        return all(each.kind in self.drawn for each in shapes)

    def is_listed(self, region: Region | VideoRegion) -> bool:
        """Whether a region is an object of the conversation's memory, listed before the first question."""
        return bool(self.drawn) and not self.is_drawn(region)


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
        number: which of the conversation's regions it is, in the order of all its markers; None for an object of an
            `ObjectMemory`.
        id: the number under which it is listed before the first question; None where its tokens stand at its
            `<region>`.
        is_drawn: its tokens are made of its clicks or its box.
        frames: its frames on a video, those together that are planned together; none on an image.
    """

    region: Region | VideoRegion
    number: int | None
    id: int | None
    is_drawn: bool = False
    frames: tuple[tuple[int, ...], ...] = ()

    @property
    def place(self) -> Place:
        """How errors call it."""
        return Place(object_id=self.id) if self.number is None else Place(region=self.number)


@dataclass(frozen=True, eq=False)
class ReadSample:
    """One conversation, read.

    Attributes:
        targets: the regions of its `<seg>`s by their numbers, which count all its markers in order.
        images: its pictures, upright RGB.
        videos: its videos, sampled.
        image_options: of each picture, what its content part asks of the native image processor.
        messages: its messages for the chat template, a placeholder in each slot's place.
        slots: what the placeholders stand for, in order.
        regions: its regions, the targets left out and a memory's objects included, in the order in which their
            placeholders stand.
        shows_media: whether the backbone itself is shown the pictures and videos.
    """

    targets: Mapping[int, Region | VideoRegion]
    images: list[Image.Image]
    videos: list[Video]
    messages: list[dict[str, Any]]
    slots: list[Slot]
    regions: list[WrittenRegion]
    shows_media: bool
    image_options: Sequence[Mapping[str, int]] = ()

    def conversation(self, placeholder: str) -> list[dict[str, Any]]:
        """Its messages with its pictures, its videos and its answers, where no object tokens stand in them.

        Args:
            placeholder: what stands for each answer in `messages`.
        """
        images = zip(self.images, self.image_options, strict=True)
        media: dict[str, Iterator[dict[str, Any]]] = {
            "image": iter([{"image": image, **options} for image, options in images]),
            "video": iter([{"video": video} for video in self.videos]),
        }
        answers = (slot.answer or "" for slot in self.slots)
        return [
            {
                "role": message["role"],
                "content": [
                    {"type": "text", "text": next(answers) if part["text"] == placeholder else part["text"]}
                    if part["type"] == "text"
                    else {"type": part["type"], **next(media[part["type"]])}
                    for part in message["content"]
                ],
            }
            for message in self.messages
        ]


def taken_id(id: int) -> PromptError:
    """What to say of a number that an object cannot have: 0, or another object's."""
    if id == 0:
        return PromptError("ids count from 1, got 0.")
    return PromptError(f"the id {id} is taken: two objects cannot have one id. Leave it out.")
