"""Accuracy of the letters, and J and F of the masks as PixelQA has them (unipixel/eval/infer_pixelqa.py).

J is the IoU of an object's whole volume, F the harmonic mean of precision and recall of its pixels: not DAVIS's.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pixelrefer_plugin.authoring import (
    Answer,
    EvaluationError,
    Figure,
    Overlap,
    PixelReferError,
    Question,
    RegionMask,
    Scores,
    Tools,
    VideoRegion,
    masks_on,
    overlap,
    read_choice,
)

_TINY = 1e-6  # the official code adds it to denominators


def score(config: Any, questions: Sequence[Question], answers: Sequence[Answer], _tools: Tools) -> Scores:
    """Accuracy, J&F, J and F. A question's J and F are means over its objects, the benchmark's over all objects."""
    unread: dict[str, str] = {}
    volumes = [_volumes(*pair, unread) for pair in zip(questions, answers, strict=True)]
    figures = [*_accuracies(questions, answers)]
    for reading, measure in (("", _sane), ("official", _official)):
        found = [np.array([measure(*each) for each in of_question]).reshape(-1, 2) for of_question in volumes]
        for name, weights in (("j_and_f", (0.5, 0.5)), ("j", (1, 0)), ("f", (0, 1))):
            figures.append(_mean_of_objects(name, [each @ np.array(weights) for each in found], reading))
    notes = ["PixelQA's J and F are of the pixels of whole videos, so they do not compare with those of DAVIS."]
    return Scores(figures=figures, unread=unread, notes=notes)


def _accuracies(questions: Sequence[Question], answers: Sequence[Answer]) -> list[Figure]:
    """In the sane reading, and as UniPixel's code reads letters; where that code stops, an answer is wrong."""
    figures = []
    for reading, reader in (("", "default"), ("official", "unipixel")):
        right = [_is_right(*pair, reader) for pair in zip(questions, answers, strict=True)]
        figures.append(Figure(name="accuracy", values=np.array(right, dtype=np.float64), reading=reading))
    return figures


def _is_right(question: Question, answer: Answer, reader: Any) -> bool:
    try:
        return read_choice(answer.text, question.facts["options"], reader) == question.facts["letter"]
    except EvaluationError:
        return False


_Volume = tuple[Overlap, int, int]
"""Of an object: pixels of both masks, and the areas of the one found and of the true one."""


def _volumes(question: Question, answer: Answer, unread: dict[str, str]) -> list[_Volume]:
    """What is compared of each object, on the frames about which the truth says something and that were asked."""
    if answer.failure:
        unread[question.id] = answer.failure
    found = []
    for number, target in enumerate(question.targets):
        assert isinstance(target, VideoRegion), "an object of a video"
        known = sorted({*target.frames, *target.absent})
        frames = [frame for frame in known if frame in answer.frames] or known
        truth = _truth(target, frames)
        size_hw = next(region.data[1] for region in target.frames.values())
        try:
            given = masks_on(answer, number, frames, size_hw)
        except PixelReferError as error:
            unread[question.id] = str(error)
            given = [None] * len(frames)
        found.append(_volume(given, truth))
    return found


def _truth(target: VideoRegion, frames: Sequence[int]) -> list[RegionMask | None]:
    regions = [target.frames.get(frame) for frame in frames]
    return [None if region is None else region.to_mask(region.data[1]) for region in regions]


def _volume(given: Sequence[RegionMask | None], truth: Sequence[RegionMask | None]) -> _Volume:
    pairs = [overlap(*pair) for pair in zip(given, truth, strict=True)]
    area, true_area = (sum(mask.area for mask in masks if mask is not None) for masks in (given, truth))
    both = Overlap(sum(each.intersection for each in pairs), sum(each.union for each in pairs))
    return both, area, true_area


def _sane(both: Overlap, area: int, true_area: int) -> tuple[float, float]:
    return both.iou, 2 * both.intersection / (area + true_area) if area + true_area else 1.0


def _official(both: Overlap, area: int, true_area: int) -> tuple[float, float]:
    precision, recall = both.intersection / (area + _TINY), both.intersection / (true_area + _TINY)
    return both.intersection / (both.union + _TINY), 2 * precision * recall / (precision + recall + _TINY)


def _mean_of_objects(name: str, of_question: Sequence[np.ndarray], reading: str) -> Figure:
    sums = np.array([each.sum() for each in of_question])
    counts = np.array([len(each) for each in of_question])
    return Figure(name=name, values=sums / counts, combine=_weighted(sums, counts), reading=reading)


def _weighted(sums: np.ndarray, counts: np.ndarray) -> Callable[[np.ndarray], float]:
    return lambda positions: float(sums[positions].sum() / counts[positions].sum())
