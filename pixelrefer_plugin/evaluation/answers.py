"""Asks a model the questions of held-out samples, as a user would, and compares its answers with theirs: the texts, and
where masks are expected the masks too.

It knows samples, the processor and `RegionModel.generate`; no trainer and no files.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from ..contracts.messages import MASK_MARKER, REGION_MARKER, Message, marker_kinds, read_turns
from ..contracts.samples import RegionSample
from ..conversation.reading import media_source, named_frames, video_options
from ..data.turns import first_turns
from ..errors import PixelReferError, PromptError, SampleError, placed
from ..media.video import FrameSampling, Video, load_video
from ..regions.mask import RegionMask
from ..regions.region import Region, VideoRegion
from .mask_metrics import MaskScores, Overlap, VideoScore, j_and_f, overlap, volume_overlap

if TYPE_CHECKING:
    from ..contracts.masks import SegmentedObject
    from ..masks.mask_batch import MaskBatch
    from ..model import RegionModel
    from ..processor import RegionProcessor


@dataclass(frozen=True)
class Question:
    """One turn of a held-out sample: what was said before it, and the answer that the sample has.

    Attributes:
        asked: the sample, cut off before that answer.
        turn: which of the sample's answers it is, from 0.
        text: what the user asked last.
        expected: the sample's answer.
        targets: what its `<seg>`s stand for, in order.
    """

    asked: RegionSample
    turn: int
    text: str
    expected: str
    targets: tuple[Region | VideoRegion, ...] = ()


@dataclass(frozen=True)
class ObjectScore:
    """How well the mask of one expected object is: of all pixels, and of the frames where it lies on a video."""

    overlap: Overlap
    video: VideoScore | None


@dataclass(frozen=True)
class Answer:
    """What the model said to a question.

    Attributes:
        question: the question.
        given: the model's text; `<seg>` where it gave a mask.
        objects: the score of each expected object, in order. One for which there is no mask counts as empty.
    """

    question: Question
    given: str
    objects: tuple[ObjectScore, ...] = ()

    @property
    def is_exact(self) -> bool:
        """Whether it is the sample's answer, apart from case, space and punctuation."""
        return normalized(self.given) == normalized(self.question.expected)

    def as_record(self) -> dict[str, Any]:
        """It as a line of `answers.jsonl`."""
        question = self.question
        record: dict[str, Any] = {
            "id": question.asked.id,
            "where": question.asked.where,
            "turn": question.turn,
            "question": question.text,
            "expected": question.expected,
            "given": self.given,
            "exact": self.is_exact,
        }
        if self.objects:
            record["ious"] = [each.overlap.iou for each in self.objects]
        videos = [each.video.j_and_f for each in self.objects if each.video is not None]
        return record | {"j_and_f": videos} if videos else record


def normalized(text: str) -> str:
    """A text without case, punctuation and repeated space, for comparison."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    letters = "".join(" " if unicodedata.category(each).startswith("P") else each for each in folded)
    return " ".join(letters.split())


def questions(sample: RegionSample) -> Iterator[Question]:
    """A question for each answer of a sample, with the sample's own answers, masks included, to those before it.

    Answers that point by `<region>` are passed over: no text that a model gives could be compared with them.
    """
    turns = read_turns(sample.messages)
    ends = [index + 1 for index, turn in enumerate(turns) if turn.is_answer]
    for number, end in enumerate(ends):
        expected = turns[end - 1].text()
        if end > 1 and REGION_MARKER not in expected:
            answered = first_turns(sample, ends[: number + 1])
            before = len(marker_kinds(turns[: end - 1]))
            asked = replace(answered, messages=answered.messages[:-1], regions=answered.regions[:before])
            yield Question(asked, number, turns[end - 2].text(), expected.strip(), answered.regions[before:])


class HeldOutAnswers:
    """Asks the questions of a dataset's samples; called with a model, returns how well it did.

    The samples are read at once, so that a malformed one is told before hours of training; pictures when asked about.

    Args:
        dataset: `dataset.__getitems__(indices)` gives samples, and errors in place of bad ones.
        processor: prepares them.
        samples: at most so many, spread evenly over the dataset.
        max_new_tokens: of an answer.
        batch_size: questions that a process asks at once.
        on_bad_sample: stop at a sample that cannot be used, or pass over it.

    Raises:
        SampleError: a sample cannot be used, and shall not be passed over.
        PromptError: a sample expects masks, but has not one picture or video alone.

    Attributes:
        answers: those of the latest call, in the order of the dataset, on every process.
    """

    def __init__(
        self,
        dataset: Any,
        processor: RegionProcessor,
        *,
        samples: int,
        max_new_tokens: int,
        batch_size: int,
        on_bad_sample: Literal["error", "skip"] = "error",
    ) -> None:
        self._processor = processor
        self._max_new_tokens = max_new_tokens
        self._batch_size = batch_size
        self._on_bad_sample = on_bad_sample
        spread = np.linspace(0, len(dataset) - 1, min(samples, len(dataset)), dtype=int)
        self._questions = self._read(dataset.__getitems__(spread.tolist()))
        self.answers: list[Answer] = []

    def __call__(self, model: RegionModel) -> dict[str, float]:
        """Ask everything.

        Returns:
            `exact_match`, the share of answers whose text is exactly the sample's. Where masks are expected,
            `mask_giou` and `mask_ciou` of the expected objects, and `j_and_f` of those on videos. Empty where there are
            no questions.

        Raises:
            SampleError: a sample cannot be used, and shall not be passed over.
        """
        was_training = model.training
        model.eval()
        if isinstance(model, FSDPModule):
            register_fsdp_forward_method(model, "generate")  # gathers what `forward` would
        try:
            self.answers = self._ask_all(model)
        finally:
            model.train(was_training)
        if not self.answers:
            return {}
        return {"exact_match": sum(answer.is_exact for answer in self.answers) / len(self.answers), **self._of_masks()}

    def _of_masks(self) -> dict[str, float]:
        scored = [score for answer in self.answers for score in answer.objects]
        if not scored:
            return {}
        scores = MaskScores(
            [each.overlap for each in scored], [each.video for each in scored if each.video is not None]
        )
        numbers = {"mask_giou": scores.giou, "mask_ciou": scores.ciou}
        return numbers | {"j_and_f": scores.video.j_and_f} if scores.videos else numbers

    def _read(self, found: Sequence[RegionSample | SampleError]) -> list[Question]:
        errors = [each for each in found if isinstance(each, SampleError)]
        if errors and self._on_bad_sample == "error":
            raise errors[0]
        asked = [question for each in found if isinstance(each, RegionSample) for question in questions(each)]
        for question in asked if self._on_bad_sample == "error" else ():
            if not _can_be_asked(question):
                raise PromptError(
                    f"{question.asked.name}: its answer has {MASK_MARKER}, but it shows {_num_media(question.asked)} "
                    "pictures and videos, and a model is asked for masks of the only one. Leave it out of the held-out "
                    "samples."
                )
        return [question for question in asked if _can_be_asked(question)]

    def _ask_all(self, model: RegionModel) -> list[Answer]:
        """Every process asks its share, in as many batches as the others: where weights are spread over processes,
        all of them work on every token."""
        batches = [*self._batches(masks=False), *self._batches(masks=True)]
        state = PartialState()
        rank, world = state.process_index, state.num_processes
        found: list[tuple[int, Answer]] = []
        for first in range(0, len(batches), world):
            own = first + rank
            answers = self._ask(model, batches[min(own, len(batches) - 1)])
            if own < len(batches):
                found.extend(answers)
        return [answer for _, answer in sorted(gather_object(found), key=lambda each: each[0])]

    def _batches(self, *, masks: bool) -> list[list[tuple[int, Question]]]:
        """The questions that expect masks, or those that do not, each with its place among all."""
        asked = [each for each in enumerate(self._questions) if bool(each[1].targets) is masks]
        return [asked[start : start + self._batch_size] for start in range(0, len(asked), self._batch_size)]

    def _ask(self, model: RegionModel, batch: Sequence[tuple[int, Question]]) -> list[tuple[int, Answer]]:
        try:
            return [
                (place, answer)
                for (place, _), answer in zip(batch, self._generate(model, [each for _, each in batch]), strict=True)
            ]
        except PixelReferError:
            if len(batch) > 1:  # one of them is to blame, or they do not go together
                return [answer for each in batch for answer in self._ask(model, [each])]
            if self._on_bad_sample == "skip":
                return []
            with placed(sample=0, subject=batch[0][1].asked.name):
                raise

    @torch.no_grad()
    def _generate(self, model: RegionModel, batch: Sequence[Question]) -> list[Answer]:
        """Answers to questions all of which expect masks, or none of which does."""
        expects_masks = bool(batch[0].targets)
        asked = [_on_known_frames(question, self._processor.sampling) for question in batch]
        inputs = self._processor(
            [list(each.messages) for each in asked], [list(each.regions) for each in asked], segment=expects_masks
        )
        inputs = inputs.to(model.device, dtype=model.backbone.dtype)
        generated = model.generate(
            **inputs,
            max_new_tokens=self._max_new_tokens,
            do_sample=False,
            num_beams=1,
            synced_gpus=_is_spread(model),
        )
        texts = self._processor.decode(generated, inputs)
        if not expects_masks:
            return [Answer(question, text) for question, text in zip(batch, texts, strict=True)]
        return [
            Answer(question, text, _scores(question, objects, inputs["masks"], row))
            for row, (question, text, objects) in enumerate(zip(batch, texts, generated.objects, strict=True))
        ]


# -- masks -------------------------------------------------------------------------------------------------


def _can_be_asked(question: Question) -> bool:
    """Whether it is clear which picture or video its masks are made on, if it expects any."""
    return not question.targets or _num_media(question.asked) == 1


def _num_media(sample: RegionSample) -> int:
    return len(sample.media("image")) + len(sample.media("video"))


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


def _scores(
    question: Question, objects: Sequence[SegmentedObject], masks: MaskBatch, row: int
) -> tuple[ObjectScore, ...]:
    """How well the i-th object of an answer fits the i-th one expected; one that is not there counts as empty."""
    clip = masks.clip_of_sample[row]
    assert clip is not None, "masks were asked for in every row"
    found = [each.region for each in objects[: len(question.targets)]]
    missing = [None] * (len(question.targets) - len(found))
    pairs = zip([*found, *missing], question.targets, strict=True)
    return tuple(_score(region, target, masks.images_hw[clip], masks.frame_indices[clip]) for region, target in pairs)


def _score(
    found: Region | VideoRegion | None,
    target: Region | VideoRegion,
    image_hw: tuple[int, int],
    frames: Sequence[int] | None,
) -> ObjectScore:
    if isinstance(target, Region):
        return ObjectScore(overlap(_mask(found, None, image_hw), _mask(target, None, image_hw)), None)
    known = [frame for frame in frames or () if frame in target.frames or frame in target.absent]
    if not known:
        raise PromptError("a target names no frame that is sampled, so no mask can be compared with it.")
    given = [_mask(found, frame, image_hw) for frame in known]
    expected = [_mask(target, frame, image_hw) for frame in known]
    return ObjectScore(volume_overlap(given, expected), j_and_f(given, expected))


def _mask(region: Region | VideoRegion | None, frame: int | None, image_hw: tuple[int, int]) -> RegionMask | None:
    """An object's pixels on an image, or on a frame of its video; None where it is not there."""
    if isinstance(region, VideoRegion):
        region = None if frame is None else region.frames.get(frame)
    return None if region is None else region.to_mask(image_hw)


def _is_spread(model: RegionModel) -> bool:
    """Whether weights lie on several processes (FSDP2, ZeRO-3), all of which then work on every token."""
    return any(isinstance(each, DTensor) or hasattr(each, "ds_shape") for each in model.parameters())
