"""`Engine`, what answers questions, and `ModelEngine`, which asks a region model, a batch at a time. A
`PreparingEngine` gets the next batch ready, in another thread, while it answers one.

It knows questions, the processor and `RegionModel.generate`; no files and no scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch.distributed.tensor import DTensor

from ...contracts.messages import Message
from ...contracts.questions import Answer, Question
from ...contracts.samples import RegionSample
from ...conversation.reading import media_source, named_frames, video_options
from ...errors import PromptError
from ...media.video import FrameSampling, Video, load_video
from ...regions.region import VideoRegion
from .localized import answer_localized

if TYPE_CHECKING:
    from ...masks.mask_batch import MaskBatch
    from ...masks.objects import GeneratedMasks
    from ...model import RegionModel
    from ...processor import RegionProcessor


class Engine(Protocol):
    """What answers questions: a model in this process, or a server."""

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """The answers to questions of which all ask for masks, or none does; as if each were asked alone.

        Raises:
            PixelReferError: one of them cannot be asked. With one question alone it is that one.
        """
        ...


@runtime_checkable
class PreparingEngine(Engine, Protocol):
    """An engine that does part of the work beforehand. `answer(questions)` is `finish(prepare(questions))`."""

    def prepare(self, questions: Sequence[Question]) -> Any:
        """What can be done without the model, such as to read pictures. May be called by another thread.

        Raises:
            PixelReferError: as `answer`.
        """
        ...

    def finish(self, prepared: Any) -> list[Answer]:
        """The answers to questions that were prepared; raises as `answer`."""
        ...


@dataclass(frozen=True, eq=False)
class PreparedQuestions:
    """Questions as the processor gives them to the model, on the CPU; without inputs those asked one by one."""

    questions: Sequence[Question]
    inputs: Any
    segment: bool


class ModelEngine:
    """Asks a region model greedily.

    Args:
        model: the model, in evaluation mode.
        processor: prepares questions.
        max_new_tokens: of an answer.
        options: further options of `generate`, such as `num_beams`.
    """

    def __init__(
        self,
        model: RegionModel,
        processor: RegionProcessor,
        *,
        max_new_tokens: int,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._model = model
        self._processor = processor
        self._preparing = deepcopy(processor)  # a tokenizer is not for two threads
        self._is_preparing = Lock()
        self._options = {
            "do_sample": False,
            "num_beams": 1,
            "max_new_tokens": max_new_tokens,
            "synced_gpus": _is_spread(model),
            **(options or {}),
        }

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """As `Engine` has it."""
        return self.finish(self.prepare(questions))

    def prepare(self, questions: Sequence[Question]) -> PreparedQuestions:
        """As `PreparingEngine` has it."""
        if any(question.localize for question in questions):  # its second pass shows what the first one found
            return PreparedQuestions(questions, None, segment=False)
        segment = questions[0].segment
        asked = [_on_known_frames(question, self._processor.sampling) for question in questions]
        with self._is_preparing:
            inputs = self._preparing(
                [list(each.messages) for each in asked], [list(each.regions) for each in asked], segment=segment
            )
        return PreparedQuestions(questions, inputs, segment)

    @torch.no_grad()
    def finish(self, prepared: PreparedQuestions) -> list[Answer]:
        """As `PreparingEngine` has it."""
        questions, segment = prepared.questions, prepared.segment
        if prepared.inputs is None:
            return [answer for question in questions for answer in self._one_by_one(question)]
        inputs = prepared.inputs.to(self._model.device, dtype=self._model.backbone.dtype)
        generated = self._model.generate(**inputs, **self._options)
        texts = self._processor.decode(generated, inputs)
        if not segment:
            return [Answer(id=question.id, text=text) for question, text in zip(questions, texts, strict=True)]
        return [
            _with_masks(question, text, generated, inputs["masks"], row)
            for row, (question, text) in enumerate(zip(questions, texts, strict=True))
        ]

    def _one_by_one(self, question: Question) -> list[Answer]:
        if not question.localize:
            return self.answer([question])
        asked = _on_known_frames(question, self._processor.sampling)
        return [answer_localized(self._model, self._processor, question, asked, self._options)]


def require_askable(question: Question) -> None:
    """Refuse a question that asks for masks, but not clearly of which picture or video.

    Raises:
        PromptError: it shows none, or several.
    """
    if question.segment and (shown := _num_media(question.asked)) != 1:
        raise PromptError(
            f"{question.asked.name}: it asks for masks, but shows {shown} pictures and videos; a model is asked for "
            "masks of the only one. Leave it out of the questions, or of the held-out samples."
        )


def _num_media(sample: RegionSample) -> int:
    return len(sample.media("image")) + len(sample.media("video"))


def _with_masks(question: Question, text: str, generated: GeneratedMasks, masks: MaskBatch, row: int) -> Answer:
    clip = masks.clip_of_sample[row]
    assert clip is not None, "masks were asked for in every row"
    return Answer(
        id=question.id,
        text=text,
        objects=tuple(each.region for each in generated.objects[row]),
        image_hw=masks.images_hw[clip],
        frames=tuple(masks.frame_indices[clip] or ()),
    )


def _on_known_frames(question: Question, sampling: FrameSampling) -> RegionSample:
    """What is asked, on frames of its video about which the targets say something: no others can be compared."""
    targets = [target for target in question.targets if isinstance(target, VideoRegion)]
    videos = question.asked.media("video")
    if not targets or len(videos) != 1 or isinstance(videos[0]["video"], Video):
        return question.asked
    source = media_source(videos[0])
    sampling, times = video_options(videos[0], source, sampling)
    answered = set(question.asked.targets)
    pointed = [region for number, region in enumerate(question.asked.regions) if number not in answered]
    regions = [region for region in pointed if isinstance(region, VideoRegion)]
    frames = named_frames(source, regions, targets, sampling=sampling, times=times)
    video = load_video(source, sampling=sampling, frames=frames, **times)
    return replace(question.asked, messages=tuple(_with_video(each, video) for each in question.asked.messages))


def _with_video(message: Message, video: Video) -> Message:
    """A message with the sampled frames of its video in the video's place."""
    if isinstance(message["content"], str):
        return message
    parts = [{"type": "video", "video": video} if part["type"] == "video" else part for part in message["content"]]
    return {**message, "content": parts}


def _is_spread(model: RegionModel) -> bool:
    """Whether weights lie on several processes (FSDP2, ZeRO-3), all of which then work on every token."""
    return any(isinstance(each, DTensor) or hasattr(each, "ds_shape") for each in model.parameters())
