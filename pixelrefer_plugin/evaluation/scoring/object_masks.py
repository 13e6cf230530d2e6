"""gIoU, cIoU and J&F of masks that answers have, by the masks that are expected, for any file.

The i-th mask of an answer stands for the i-th one that is expected; one that is not there counts as empty. It knows
questions, answers and masks; no file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...contracts.figures import Combine, Figure
from ...contracts.questions import Answer, Question
from ...errors import EvaluationError, RegionError, placed
from ...regions.mask import RegionMask
from ...regions.region import Region, VideoRegion
from ..metrics.masks import Overlap, VideoScore, j_and_f, overlap, volume_overlap
from .groups import canvas_hw


@dataclass(frozen=True)
class ObjectScore:
    """How well the mask of one expected object is: of all pixels, and of the frames where it lies on a video."""

    overlap: Overlap
    video: VideoScore | None


def mask_figures(questions: Sequence[Question], answers: Sequence[Answer]) -> list[Figure]:
    """`giou`, the mean IoU of the expected objects; `ciou`, all intersections over all unions; where objects lie on
    videos `j_and_f`, `j` and `f`, the means over objects. Of a video all known frames together count as one picture.

    Questions without targets, and those that could not be asked, have no value.

    Raises:
        EvaluationError: masks of an answer are of another size than those expected.
    """
    scores = [_scores_of(*pair) for pair in zip(questions, answers, strict=True)]
    overlaps = [[each.overlap for each in found] for found in scores]
    figures = [
        _mean_figure("giou", [[each.iou for each in found] for found in overlaps]),
        _ratio_figure("ciou", overlaps),
    ]
    videos = [[each.video for each in found if each.video is not None] for found in scores]
    if any(videos):
        figures.append(_mean_figure("j_and_f", [[each.j_and_f for each in found] for found in videos]))
        figures.append(_mean_figure("j", [[each.j for each in found] for found in videos]))
        figures.append(_mean_figure("f", [[each.f for each in found] for found in videos]))
    return figures


def _mean_figure(name: str, values: Sequence[Sequence[float]]) -> Figure:
    """The mean over objects, of which a question may have several."""
    sums, counts = np.array([sum(each) for each in values], dtype=float), np.array([len(each) for each in values])
    return _quotient(name, sums, counts)


def _ratio_figure(name: str, overlaps: Sequence[Sequence[Overlap]]) -> Figure:
    shared = np.array([sum(each.intersection for each in found) for found in overlaps], dtype=float)
    union = np.array([sum(each.union for each in found) for found in overlaps], dtype=float)
    both_empty = np.array([bool(found) for found in overlaps]) & (union == 0)  # nothing expected, nothing given: right
    return _quotient(name, np.where(both_empty, 1.0, shared), np.where(both_empty, 1.0, union))


def _quotient(name: str, above: np.ndarray, below: np.ndarray) -> Figure:
    values = np.where(below > 0, above / np.maximum(below, 1), np.nan)
    combine: Combine = lambda positions: float(above[positions].sum() / below[positions].sum())  # noqa: E731
    return Figure(name=name, values=values, combine=combine)


def _scores_of(question: Question, answer: Answer) -> tuple[ObjectScore, ...]:
    with placed(subject=f"Question '{question.id}'"):
        return () if answer.failure else object_scores(question, answer)


def object_scores(question: Question, answer: Answer) -> tuple[ObjectScore, ...]:
    """How well the i-th object of an answer fits the i-th one expected; one that is not there counts as empty.

    Raises:
        EvaluationError: a mask is of another size, or no frame is known of which a mask is expected.
    """
    given = [*answer.objects, *[None] * len(question.targets)]
    return tuple(_score(found, target, answer) for found, target in zip(given, question.targets, strict=False))


def _score(found: Region | VideoRegion | None, target: Region | VideoRegion, answer: Answer) -> ObjectScore:
    if isinstance(target, Region):
        image_hw = answer.image_hw or canvas_hw(target)
        if image_hw is None:
            raise EvaluationError(f"an expected mask is given as {target.kind}, which tells no mask.")
        return ObjectScore(overlap(_mask(found, None, image_hw), _mask(target, None, image_hw)), None)
    named = sorted({*target.frames, *target.absent})
    known = [frame for frame in answer.frames if frame in named] if answer.frames else named
    image_hw = answer.image_hw or _frame_hw(target)
    if not known or image_hw is None:
        raise EvaluationError("a target names no frame that is sampled, so no mask can be compared with it.")
    pair = [_mask(found, frame, image_hw) for frame in known], [_mask(target, frame, image_hw) for frame in known]
    return ObjectScore(volume_overlap(*pair), j_and_f(*pair))


def _frame_hw(target: VideoRegion) -> tuple[int, int] | None:
    """A size that the object fits on each of its frames; None where one tells none."""
    sizes = [canvas_hw(each) for each in target.frames.values()]
    known = [each for each in sizes if each is not None]
    return (max(h for h, _ in known), max(w for _, w in known)) if len(known) == len(sizes) else None


def _mask(region: Region | VideoRegion | None, frame: int | None, image_hw: tuple[int, int]) -> RegionMask | None:
    """An object's pixels on a picture, or on a frame of its video; None where it is not there."""
    if isinstance(region, VideoRegion):
        region = region.frames.get(-1 if frame is None else frame)
    try:
        return None if region is None else region.to_mask(image_hw)
    except RegionError as error:
        raise EvaluationError(f"a mask does not fit its picture of {image_hw}, (height, width): {error}") from error
