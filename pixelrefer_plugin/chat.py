"""`Chat`: several turns about one image or video, whose objects are called by number. `pixel_qa`: two passes in one.

It keeps what was said and which objects are known, and hands all of it to the processor with every question. It knows
no prompt format and no adapter: where a region's tokens stand, the processor says.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from .contracts.messages import (
    CALLED_ID,
    MARKER,
    MASK_MARKER,
    MOST_DIGITS,
    REGION_MARKER,
    asked,
    marker_mismatch,
    meant_itself,
    require_unicode,
)
from .conversation.memory import MemoryObject, ObjectMemory
from .errors import PromptError, placed, shown
from .media.video import Video
from .regions.region import Region, VideoRegion

if TYPE_CHECKING:
    from .contracts.masks import SegmentedObject
    from .model import RegionModel
    from .processor import RegionProcessor

_MASK = re.compile(rf"(?:\[ *(?P<id>[0-9]{{1,{MOST_DIGITS}}}) *\] *)?{MASK_MARKER}")
_DEFAULTS: dict[str, Any] = {"max_new_tokens": 128, "do_sample": False}


@dataclass(frozen=True)
class Reply:
    """What the model says.

    Attributes:
        text: its words; `<seg>` stands where it gives a mask. A number in brackets before that is the object's id in
            the memory, where the objects are remembered.
        objects: what it gives masks of, in that order.
    """

    text: str
    objects: tuple[SegmentedObject, ...]

    def numbered_after(self, id: int) -> Reply:
        """The same answer with other ids, from `id + 1`: for objects beside those of another conversation."""
        seen = count(id + 1)
        ids = [None if each.region is None else next(seen) for each in self.objects]
        objects = tuple(replace(each, id=new) for each, new in zip(self.objects, ids, strict=True))
        return Reply(_renumbered(self.text, ids), objects)


class RememberError(PromptError):
    """An answer has more objects than the memory has room for.

    Attributes:
        reply: the answer. The chat and its memory are as they were before the question.
    """

    def __init__(self, message: str, *, reply: Reply) -> None:
        super().__init__(message)
        self.reply = reply


@dataclass(frozen=True, eq=False)
class _Exchange:
    """A question and its answer, as the next prompt holds them.

    Attributes:
        question: as the user typed it.
        asked: with `<region>` in the places where tokens stand.
        regions: of those.
        introduced: the memory's objects whose tokens stand in this question, by id.
        answer: with `<seg>` for masks.
        masks: what those stand for.
        changed: objects of the memory that this turn changed or made, by id.
    """

    question: str
    asked: str
    regions: tuple[Region | VideoRegion, ...]
    introduced: Mapping[int, Region | VideoRegion]
    answer: str = ""
    masks: tuple[Region | VideoRegion, ...] = ()
    changed: Mapping[int, _Change] = field(default_factory=dict)


@dataclass(frozen=True)
class _Change:
    """An object of the memory before and after a turn; before None for what was not there."""

    before: MemoryObject | None
    after: MemoryObject


class Chat:
    """A conversation about one image or video.

        chat = Chat(model, processor, load_image("street.jpg"))
        chat.ask("Please segment the tallest giraffe.", segment=True)      # becomes object 1
        chat.ask("What does [1] eat?")
        chat.ask("And what is <region>?", [Region.from_points([(80, 40)])])

    `[2]` in a question calls object 2 of `memory`, whose objects the user may add, rename and drop between turns. They
    are shown to the model as its adapter reads them: where a region's tokens stand at its `<region>`, an object's stand
    where a question first calls it, `[2] <region>`; what the adapter has listed before the first question is listed
    there, called or not. What fails leaves chat and memory as they were.

    Args:
        model: the model.
        processor: its processor.
        media: the image, as `load_image` takes it, or a `Video` (of `load_video`), whose sampled frames count.
        memory: objects that are known already, on the same image or video; by default none.
        list_objects: list all objects before the first question, whatever the adapter: for models that learnt it so.

    Raises:
        ImageError: the image cannot be read.
        PromptError: the memory was made for an image or video of another kind or size.

    Attributes:
        memory: the objects.
    """

    def __init__(
        self,
        model: RegionModel,
        processor: RegionProcessor,
        media: str | os.PathLike[str] | Image.Image | np.ndarray | Video,
        *,
        memory: ObjectMemory | None = None,
        list_objects: bool = False,
    ) -> None:
        own = ObjectMemory(media)
        if memory is not None and (memory.is_video, memory.image_hw) != (own.is_video, own.image_hw):
            raise PromptError(
                f"The memory was made for {_described(memory)}, the chat is about {_described(own)}. "
                "Make one with ObjectMemory(media)."
            )
        self.memory = own if memory is None else memory
        self._media = own.media
        self._model = model
        self._processor = processor
        self._list_objects = list_objects
        self._turns: list[_Exchange] = []

    @property
    def history(self) -> list[tuple[str, str]]:
        """Questions and answers so far."""
        return [(turn.question, turn.answer) for turn in self._turns]

    def ask(
        self,
        text: str,
        regions: Sequence[Region | VideoRegion | Mapping[int, Region]] = (),
        *,
        segment: bool = False,
        force_mask: bool = False,
        remember: bool = True,
        **generate_options: Any,
    ) -> Reply:
        """Ask the next question.

        A region whose tokens do not stand at its `<region>`, such as a mask where the adapter reads clicks and boxes as
        they were drawn, becomes an object of the memory, if it is none yet, and the question calls it by its id. What
        the answer gives masks of become objects too: each under the number that the answer gives it, if that is free
        or the question called it, or else under the next free one.

        Args:
            text: what to ask; `<region>` stands for the next region, `[2]` for object 2. `[3] <region>` gives a
                region its number itself.
            regions: in the order of their `<region>`s.
            segment: make a mask wherever the answer has an `<seg>`.
            force_mask: let the answer have one at least; implies `segment`.
            remember: keep the answer's objects.
            **generate_options: of the model's `generate`. By default `max_new_tokens=128, do_sample=False`.

        Raises:
            PromptError: text and regions do not fit together, the memory has no such object or no room for the
                regions, or masks are asked of an adapter that gives none.
            RememberError: the memory has no room for the answer's objects.
            RegionError: a region does not fit the image or the frame.
            FrameError: a region lies on a frame that is not sampled.
        """
        _require_text(text)
        if not isinstance(regions, Sequence):
            raise PromptError(f"Expected a list of regions, got {type(regions).__name__}. Write [region] for one.")
        memory, turn = self._read(text, [self._checked(each, number) for number, each in enumerate(regions)])
        reply = self._answered(memory, turn, segment or force_mask, force_mask, generate_options)
        if remember:
            reply = _remember(reply, memory, called=set(map(int, CALLED_ID.findall(text))), own=self._own_numbers())
        answer, masks = _as_history(reply, self._whole(), has_head=self._processor.tokens.mask is not None)
        changed = _changed(self.memory, memory)
        self.memory.restore(memory)
        self._turns.append(replace(turn, answer=answer, masks=masks, changed=changed))
        return reply

    def undo(self) -> None:
        """Forget the last question and its answer; objects that it made or changed are as they were before it.

        One that the user has since dropped, or put something else in the place of, is left as it is.

        Raises:
            PromptError: nothing was asked yet.
        """
        if not self._turns:
            raise PromptError("There is no question to undo.")
        memory = self.memory.copy()
        for id, change in self._turns[-1].changed.items():
            if id not in memory or memory[id].region != change.after.region:
                continue
            if change.before is None:
                memory.drop(id)
            else:
                give_region(memory, id, change.before.region)
        self.memory.restore(memory)
        self._turns.pop()

    @property
    def frames(self) -> list[int]:
        """The frames of a video that objects, or regions in what was said, lie on."""
        said = (region for turn in self._turns for region in (*turn.regions, *turn.masks))
        regions = [*(each.region for each in self.memory), *said]
        return sorted({frame for each in regions if isinstance(each, VideoRegion) for frame in each.frames})

    def resample(self, video: Video) -> None:
        """Go on with other sampled frames of the same video, such as one to point at.

            chat.resample(load_video("herd.mp4", frames=[*chat.frames, 105]))

        Raises:
            PromptError: it is another video, or the chat is about an image.
            FrameError: one of `frames` is not among those sampled.
        """
        before = self._media
        if not isinstance(before, Video) or _length_and_size(video) != _length_and_size(before):
            raise PromptError(f"The chat is about {_described(self.memory)}; other frames must be of the same video.")
        for frame in self.frames:
            video.position(frame)
        self._media = self.memory.media = video

    def clear(self) -> None:
        """Forget what was said. The objects stay: `memory.clear()` forgets those."""
        self._turns.clear()

    # -- questions -----------------------------------------------------------------------------------------

    def _checked(self, region: Any, number: int) -> Region | VideoRegion:
        """A region of the question, which the processor would count with those of all others."""
        with placed(region=number, subject=f"Region {number} of the question"):
            return self.memory.checked(region)

    def _read(self, text: str, regions: Sequence[Region | VideoRegion]) -> tuple[ObjectMemory, _Exchange]:
        """The question as the processor takes it, and the memory that it makes of this one."""
        markers = list(asked(text).markers())
        if mismatch := marker_mismatch([each["kind"] for each in markers], len(regions), where="The question has"):
            raise PromptError(f"{mismatch} [2] calls object 2.")
        memory = self.memory.copy()
        standing: list[Region | VideoRegion | None] = []
        written = []
        taken = self._own_numbers()
        for marker, region in zip(markers, regions, strict=True):
            number = int(marker["id"]) if marker["id"] else None
            if number == 0:
                raise PromptError("An object's ids count from 1, got 0.")
            if number is not None and (number in memory or number in taken):
                raise PromptError(f"The id {number} is taken: two objects cannot have one id. Leave it out.")
            if not self._processor.is_listed(region):
                standing.append(region)
                written.append(marker.group())
                taken |= {number} if number else set()
            else:
                known = next((each.id for each in memory if number is None and each.region == region), None)
                standing.append(None)
                written.append(f"[{known or memory.add(region, id=number or _next_id(memory, taken))}]")
        return memory, self._introducing(text, markers, written, standing, memory)

    def _own_numbers(self) -> set[int]:
        """The numbers that questions gave to regions that are no objects of the memory: `[3] <region>`."""
        found = (marker for turn in self._turns for marker in asked(turn.question).markers() if marker["id"])
        return {int(marker["id"]) for marker in found} - {each.id for each in self.memory}

    def _introducing(
        self,
        text: str,
        markers: Sequence[re.Match[str]],
        written: Sequence[str],
        standing: Sequence[Region | VideoRegion | None],
        memory: ObjectMemory,
    ) -> _Exchange:
        """The question with its regions where they stand, and the tokens of each object that it is first to call."""
        shown = {id: region for turn in self._turns for id, region in turn.introduced.items()}
        own = self._own_numbers() | {int(marker["id"]) for marker in markers if marker["id"]}
        introduced: dict[int, Region | VideoRegion] = {}
        regions: list[Region | VideoRegion] = []

        def with_tokens(called: re.Match[str]) -> str:
            id = int(called[1])
            if id not in memory:
                if id not in own:
                    raise _unknown(id, memory)
                return called.group()
            region = memory[id].region
            if self._is_listed(region) or {**shown, **introduced}.get(id) == region:
                return called.group()
            introduced[id] = region
            regions.append(region)
            return f"{called.group()} {REGION_MARKER}"

        pieces, end = [], 0
        for marker, instead, region in zip(markers, written, standing, strict=True):
            pieces += [CALLED_ID.sub(with_tokens, text[end : marker.start()]), instead]
            regions += [] if region is None else [region]
            end = marker.end()
        pieces.append(CALLED_ID.sub(with_tokens, text[end:]))
        return _Exchange(text, "".join(pieces), tuple(regions), introduced)

    def _is_listed(self, region: Region | VideoRegion) -> bool:
        """Whether an object is listed before the first question, rather than shown where it is first called."""
        return self._list_objects or self._processor.is_listed(region)

    def _answered(
        self, memory: ObjectMemory, turn: _Exchange, segment: bool, force_mask: bool, options: Mapping[str, Any]
    ) -> Reply:
        listed = memory.copy()
        for each in memory:
            if not self._is_listed(each.region):
                listed.drop(each.id)
        turns = [*self._turns, turn]
        regions = [region for each in turns for region in (*each.regions, *each.masks)]
        inputs = self._processor(list(self._messages(turns)), regions, memory=listed, segment=segment)
        inputs = inputs.to(self._model.device, dtype=self._model.backbone.dtype)
        generated = self._model.generate(**inputs, **_DEFAULTS | {"force_mask": force_mask, **options})
        objects = generated.objects[0] if segment else ()
        return Reply(self._processor.decode(generated, inputs)[0], tuple(objects))

    def _messages(self, turns: Sequence[_Exchange]) -> Iterator[dict[str, Any]]:
        kind = "video" if isinstance(self._media, Video) else "image"
        shown: list[dict[str, Any]] = [{"type": kind, kind: self._media}]
        for turn in turns:
            yield {"role": "user", "content": [*shown, {"type": "text", "text": turn.asked}]}
            shown = []
            if turn is not turns[-1]:
                yield {"role": "assistant", "content": turn.answer}

    def _whole(self) -> Region | VideoRegion:
        """The whole image, or all of a video's first sampled frame."""
        height, width = self.memory.image_hw
        whole = Region.from_box((0, 0, width, height))
        return VideoRegion({self._media.frame_indices[0]: whole}) if isinstance(self._media, Video) else whole


def _require_text(text: Any) -> None:
    """Refuse what is no question, whatever the memory holds."""
    if not isinstance(text, str):
        raise PromptError(f"A question must be a text, got {shown(text)}.")
    require_unicode(text)
    if MASK_MARKER in text:
        raise PromptError(
            f"The question holds {MASK_MARKER}, which stands for a mask in an assistant's answer. Write "
            f"{REGION_MARKER} for a region."
        )
    for called in CALLED_ID.findall(text):
        if len(called) > MOST_DIGITS:
            raise PromptError(f"The text calls object [{called[:5]}..., but ids have {MOST_DIGITS} digits at most.")


def _unknown(id: int, memory: ObjectMemory) -> PromptError:
    held = ", ".join(str(each.id) for each in memory) or "none"
    return PromptError(f"The memory has no object {id}. Its objects: {held}. {meant_itself(str(id))}")


def _length_and_size(video: Video) -> tuple[int, tuple[int, int]]:
    return video.num_source_frames, video.image_hw


def _described(memory: ObjectMemory) -> str:
    height, width = memory.image_hw
    return f"{'a video' if memory.is_video else 'an image'} of width {width} and height {height}"


# -- memory ------------------------------------------------------------------------------------------------


def _changed(memory: ObjectMemory, after: ObjectMemory) -> dict[int, _Change]:
    """The objects that are new or other ones in a later state of a memory."""
    before = {each.id: each for each in memory}
    return {each.id: _Change(before.get(each.id), each) for each in after if before.get(each.id) != each}


def give_region(memory: ObjectMemory, id: int, region: Region | VideoRegion) -> None:
    """Put another region in the place of an object's."""
    objects = list(memory)
    memory.clear()
    for each in objects:
        memory.add(region if each.id == id else each.region, id=each.id, name=each.name)


def _next_id(memory: ObjectMemory, own: set[int]) -> int:
    return max({each.id for each in memory} | own, default=0) + 1


def _remember(reply: Reply, memory: ObjectMemory, *, called: set[int], own: set[int]) -> Reply:
    """Add an answer's objects to a memory; the reply calls them as the memory does.

    Args:
        reply: the answer.
        memory: changed.
        called: the numbers in the question.
        own: numbers of regions that are no objects of the memory; of these an answer may use those called.
    """
    ids: list[int | None] = []
    for each in reply.objects:
        if each.region is None:
            ids.append(None)
        elif each.id in memory and each.id in called and each.id not in ids:  # what the question called has a new mask
            give_region(memory, each.id, each.region)
            ids.append(each.id)
        else:
            _require_room(memory, reply)
            is_free = each.id is not None and each.id >= 1 and each.id not in memory and each.id not in own - called
            ids.append(memory.add(each.region, id=each.id if is_free else _next_id(memory, own | called)))
    objects = tuple(replace(each, id=id) for each, id in zip(reply.objects, ids, strict=True))
    return Reply(_renumbered(reply.text, ids), objects)


def _require_room(memory: ObjectMemory, reply: Reply) -> None:
    if len(memory) == memory.max_objects:
        seen = sum(each.region is not None for each in reply.objects)
        raise RememberError(
            f"The answer gives masks of {seen} objects, for all of which the memory has no room: it may hold "
            f"{memory.max_objects}. Drop some, or ask with remember=False.",
            reply=reply,
        )


def _renumbered(text: str, ids: Sequence[int | None]) -> str:
    """An answer whose numbers before masks are those given."""
    numbers = iter(ids)

    def number(found: re.Match[str]) -> str:
        id = next(numbers, None)
        return found.group() if found["id"] is None or id is None else f"[{id}] {MASK_MARKER}"

    return _MASK.sub(number, text)


def _as_history(
    reply: Reply, whole: Region | VideoRegion, *, has_head: bool
) -> tuple[str, tuple[Region | VideoRegion, ...]]:
    """An answer as a later prompt holds it, and what its masks stand for.

    No mask is read in a prompt. Where there is none, because none was asked for or the object is nowhere, the whole
    picture stands for it.
    """
    text = reply.text.replace(REGION_MARKER, "region")
    if not has_head:
        return text.replace(MASK_MARKER, "seg"), ()
    masks = [each.region or whole for each in reply.objects[: text.count(MASK_MARKER)]]
    return text, (*masks, *[whole] * (text.count(MASK_MARKER) - len(masks)))


# -- two passes --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class PixelAnswer:
    """What `pixel_qa` gives.

    Attributes:
        text: the answer of the second pass.
        objects: what the first pass found, with the ids that they have in the memory; none where it found nothing.
        memory: the objects that the second pass was told.
    """

    text: str
    objects: tuple[SegmentedObject, ...]
    memory: ObjectMemory


def pixel_qa(
    model: RegionModel,
    processor: RegionProcessor,
    media: str | os.PathLike[str] | Image.Image | np.ndarray | Video,
    question: str,
    regions: Sequence[Region | VideoRegion | Mapping[int, Region]] = (),
    *,
    localize: str | None = None,
    force_mask: bool = False,
    **generate_options: Any,
) -> PixelAnswer:
    """Find the objects of a question, then answer it with their masks at hand (UniPixel's two passes: its memory is
    filled, then injected).

    First the model is asked for masks of the objects, `[1] <region>` for the first region and so on. Its masks fill a
    memory: one for each region by the number that the answer gives, or in order where it gives none, and others
    that it finds relevant. Then it is asked the question, `[1]` for the first region. A region for which
    it gives no mask stays in the question as it was drawn; one that was given by its mask is not searched for.

    Args:
        model: the model; its adapter must give masks.
        processor: its processor.
        media: the image, as `load_image` takes it, or a `Video` (of `load_video`).
        question: `<region>` stands for the next region; `[3] <region>` gives it a number itself.
        regions: clicks, boxes or masks, in the order of their `<region>`s.
        localize: what the first pass asks, `{}` for the question; by default as the adapter says (`Masks.localize`).
        force_mask: let the first pass give one mask at least.
        **generate_options: of the model's `generate`, in both passes.

    Raises:
        PromptError: as `Chat.ask`; or two regions have one number.
        RememberError: the first pass found more objects than a memory holds.
    """
    _require_text(question)
    first = Chat(model, processor, media)
    question, numbers = _numbered(question)
    options: Any = {"remember": False, **generate_options}
    asked_first = (processor.localize if localize is None else localize).replace("{}", question)
    found = first.ask(asked_first, regions, segment=True, force_mask=force_mask, **options)
    memory = first.memory.copy()
    objects = _matched(found, [number for number in numbers if number not in memory], memory)
    left = [region for number, region in zip(numbers, regions, strict=True) if number not in memory]
    told = MARKER.sub(lambda marker: f"[{marker['id']}]" if int(marker["id"]) in memory else marker.group(), question)
    reply = Chat(model, processor, memory.media, memory=memory).ask(told, left, **options)
    return PixelAnswer(reply.text, objects, memory)


def _numbered(question: str) -> tuple[str, list[int]]:
    """A question in which every region has a number, and those."""
    given = [int(marker["id"]) for marker in asked(question).markers() if marker["id"]]
    if len(set(given)) < len(given) or 0 in given:
        raise PromptError(f"Each region's number must be one of its own, from 1, got {', '.join(map(str, given))}.")
    free = (number for number in range(1, 10**9) if number not in given)
    numbers: list[int] = []

    def number(marker: re.Match[str]) -> str:
        numbers.append(int(marker["id"]) if marker["id"] else next(free))
        return f"[{numbers[-1]}] {REGION_MARKER}"

    return MARKER.sub(number, question), numbers


def _matched(found: Reply, searched: Sequence[int], memory: ObjectMemory) -> tuple[SegmentedObject, ...]:
    """Remember what was found: by its number, else as the next that was searched for, else as something new."""
    seen = [each for each in found.objects if each.region is not None]
    by_number: dict[int, SegmentedObject] = {}
    unnamed = []
    for each in seen:
        if each.id is not None and each.id in searched and each.id not in by_number:
            by_number[each.id] = each
        elif each.id is None or each.id not in memory:
            unnamed.append(each)
    missing = [number for number in searched if number not in by_number]
    by_number.update(zip(missing, unnamed, strict=False))
    named = [replace(each, id=number) for number, each in sorted(by_number.items())]
    extra = [replace(each, id=None) for each in unnamed[len(missing) :]]
    try:
        ids = memory.add_answer([*named, *extra])
    except PromptError as error:
        raise RememberError(str(error), reply=found) from error
    return tuple(replace(each, id=id) for each, id in zip([*named, *extra], ids, strict=True))
