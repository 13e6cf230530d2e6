"""cIoU, gIoU and box accuracy of masks on pictures (unipixel/eval/infer_seg.py, unipixel/eval/eval_refcoco.py)."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pixelrefer_plugin.authoring import (
    Answer,
    EvaluationError,
    Figure,
    Overlap,
    Question,
    RegionError,
    RegionMask,
    Scores,
    Tools,
    box_iou,
    box_without_specks,
    mask_of,
    overlap,
    without,
)

_ENOUGH = 0.5  # IoU of a box that is right


def score_refcoco(config: Any, questions: Sequence[Question], answers: Sequence[Answer], _tools: Tools) -> Scores:
    """cIoU, gIoU and box accuracy.

    A box is right where its IoU with the true one is 0.5 or more; small parts of the mask are left out. The official
    reading takes the last pixel inside for the end of a box.
    """
    found, unread = _found(questions, answers)
    figures = _ious([overlap(mask, _truth(question)) for mask, question in zip(found, questions, strict=True)])
    boxes = [box_without_specks(mask) for mask in found]
    for reading, beyond in (("", 0), ("official", 1)):
        right = [_is_right(box, each.facts["box"], beyond) for box, each in zip(boxes, questions, strict=True)]
        figures.append(Figure(name="box_accuracy", values=np.array(right, dtype=np.float64), reading=reading))
    return Scores(figures=figures, unread=unread)


def score_reasonseg(config: Any, questions: Sequence[Question], answers: Sequence[Answer], _tools: Tools) -> Scores:
    """gIoU and cIoU, without void pixels.

    The official reading, UniPixel's, counts void pixels as background: its label for them, -1, becomes 0 where OpenCV
    draws it.
    """
    found, unread = _found(questions, answers)
    pairs = list(zip(found, questions, strict=True))
    counted = [overlap(without(mask, each.facts["void"]), _truth(each)) for mask, each in pairs]
    everywhere = [overlap(mask, _truth(each)) for mask, each in pairs]
    figures = [*_ious(counted)[::-1], *_ious(everywhere, reading="official")[::-1]]
    return Scores(figures=figures, unread=unread)


def _found(questions: Sequence[Question], answers: Sequence[Answer]) -> tuple[list[RegionMask | None], dict[str, str]]:
    """The first mask of each answer, and why one counts as empty."""
    found: list[RegionMask | None] = []
    unread = {}
    for question, answer in zip(questions, answers, strict=True):
        mask = None
        if answer.failure:
            unread[question.id] = answer.failure
        else:
            try:
                mask = mask_of(answer, 0, question.facts["image_hw"])
            except EvaluationError as error:
                unread[question.id] = str(error)
        found.append(mask)
    return found, unread


def _truth(question: Question) -> RegionMask | None:
    """The true mask; None where no pixel of it lies on the picture."""
    if not question.targets:
        return None
    try:
        return question.targets[0].to_mask(question.facts["image_hw"])  # type: ignore[union-attr]
    except RegionError:
        return None


def _ious(overlaps: Sequence[Overlap], *, reading: str = "") -> list[Figure]:
    """cIoU and gIoU."""
    ious = np.array([each.iou for each in overlaps], dtype=np.float64)
    return [
        Figure(name="ciou", values=ious, combine=_summed(overlaps), reading=reading),
        Figure(name="giou", values=ious, reading=reading),
    ]


def _summed(overlaps: Sequence[Overlap]) -> Callable[[np.ndarray], float]:
    """Intersections of some questions over their unions."""
    intersections, unions = np.array([(each.intersection, each.union) for each in overlaps], dtype=np.int64).T

    def combine(positions: np.ndarray) -> float:
        return Overlap(int(intersections[positions].sum()), int(unions[positions].sum())).iou

    return combine


def _is_right(box: Sequence[int] | None, true_xyxy: Sequence[float], beyond: int) -> bool:
    if box is None:
        return False
    x0, y0, x1, y1 = box
    return box_iou((x0, y0, x1 - beyond, y1 - beyond), true_xyxy) >= _ENOUGH
