"""J and F of expressions, and ReVOS's A and R, in the sane reading and as UniPixel's scripts have them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from pixelrefer_plugin.authoring import (
    Answer,
    DataError,
    EvaluationError,
    Figure,
    Question,
    RegionMask,
    Scores,
    Tools,
    boundary_accuracy,
    masks_on,
    official_accuracy_and_robustness,
    pixel_accuracy,
    region_similarity,
    robustness,
)

from .config import RevosConfig, VideoConfig
from .pictures import PictureAnswer
from .truth import Foreground, Masks

REFERRING, REASONING = "referring", "reasoning"
TYPES = (REFERRING, REASONING)


@dataclass(eq=False)
class _Measured:
    """What is known of every answer.

    Attributes:
        shares: `(questions, measures)`, each the mean over the frames.
        unread: why an answer counts 0, by the question's id.
        broken: positions of answers on which the official code's process dies.
        between: how many frames took their mask from another one.
    """

    shares: np.ndarray
    unread: dict[str, str] = field(default_factory=dict)
    broken: list[int] = field(default_factory=list)
    between: int = 0


_Frames = list[tuple[RegionMask | None, list[RegionMask]]]
"""Of each frame the mask found, and the true objects."""

_Measure = Callable[[Question, Answer, _Frames, tuple[int, int]], np.ndarray]


def score_expressions(
    config: VideoConfig, questions: Sequence[Question], answers: Sequence[Answer], _tools: Tools
) -> Scores:
    """J&F, J and F: means over expressions of means over frames (unipixel/eval/eval_seg.py).

    The official reading leaves an expression out of which a picture is missing.

    Raises:
        EvaluationError: the true masks are not public.
    """
    measured = _measure(questions, answers, lambda _question, _answer, frames, _hw: _j_and_f(frames), 2)
    figures = [_figure(name, values) for name, values in _named(measured.shares)]
    dropped = _dropped(measured.broken, len(questions), config.official_workers)
    notes = _notes(measured)
    if dropped is None:
        notes.append(
            f"The official code has no certain result: {len(measured.broken)} answers lack a picture, each of which "
            f"ends one of its {config.official_workers} processes."
        )
        return Scores(figures=figures, unread=measured.unread, notes=notes)
    official = np.where(dropped[:, None], np.nan, measured.shares)
    figures += [_figure(name, values, reading="official") for name, values in _named(official)]
    return Scores(figures=figures, unread=measured.unread, notes=notes)


def score_revos(config: RevosConfig, questions: Sequence[Question], answers: Sequence[Answer], _tools: Tools) -> Scores:
    """J&F, J, F, A and R: means over expressions by type, and the mean of the types (unipixel/eval/eval_revos.py).

    Expressions of another type are not counted. The official reading rounds what each expression has to two decimals
    of a percentage, and computes A and R of the values of pixels.
    """

    def measure(question: Question, answer: Answer, frames: _Frames, image_hw: tuple[int, int]) -> np.ndarray:
        value = config.official_value or (answer.value if isinstance(answer, PictureAnswer) else 255)
        return np.concatenate([_j_and_f(frames), _a_and_r(question.facts["foreground"], frames, image_hw, value)])

    measured = _measure(questions, answers, measure, 6)
    by_type = _mean_of_types(np.array([question.type for question in questions]))
    measured.shares[[question.type not in TYPES for question in questions]] = np.nan
    rounded = np.round(100 * measured.shares[:, [0, 1, 4, 5]], 2) / 100
    figures = []
    for shares, reading in ((measured.shares[:, :4], ""), (rounded, "official")):
        named = [*_named(shares), ("accuracy", shares[:, 2]), ("robustness", shares[:, 3])]
        figures += [_figure(name, values, reading=reading, types=by_type) for name, values in named]
    return Scores(figures=figures, unread=measured.unread, notes=_notes(measured))


def refuse_hidden(config: Any, questions: Sequence[Question], answers: Sequence[Answer], _tools: Tools) -> Scores:
    """For benchmarks whose true masks are not public; raises `EvaluationError`."""
    raise EvaluationError(
        "The true masks of this benchmark are not public: its server scores answers. Write them as pictures "
        "<video>/<expression>/<frame>.png (pixelrefer score ... --export DIR) and hand in a ZIP file of that folder."
    )


def _measure(questions: Sequence[Question], answers: Sequence[Answer], measure: _Measure, width: int) -> _Measured:
    measured = _Measured(np.zeros((len(questions), width)))
    for position, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        if answer.failure:
            measured.unread[question.id] = answer.failure
            if isinstance(answer, PictureAnswer) and answer.ends_process:
                measured.broken.append(position)
            continue
        truth: Masks = question.facts["truth"]
        num_frames = len(question.facts["frames"])
        expected = [truth.objects(frame) for frame in range(num_frames)]
        size_hw = _size_of(expected, answer, question)
        try:
            given = masks_on(answer, 0, range(num_frames), size_hw)
        except EvaluationError as error:
            measured.unread[question.id] = str(error)
            measured.broken.append(position)
            continue
        if answer.objects and answer.frames:
            measured.between += num_frames - len(answer.frames)
        measured.shares[position] = measure(question, answer, list(zip(given, expected, strict=True)), size_hw)
    return measured


def _size_of(expected: Sequence[Sequence[RegionMask]], answer: Answer, question: Question) -> tuple[int, int]:
    """Of the frames: as the true masks have it; without any as the foreground, or else the answer, says."""
    sizes = sorted({mask.image_hw for masks in expected for mask in masks})
    if len(sizes) > 1:
        raise DataError(f"The true masks of question '{question.id}' must be of one size, got {sizes}.")
    foreground: Foreground | None = question.facts["foreground"]
    if not sizes and foreground is not None:
        covered = (mask for frame in range(len(expected)) for mask in foreground.covered(frame))
        sizes = [mask.image_hw for mask in islice(covered, 1)]
    return sizes[0] if sizes else answer.image_hw or (1, 1)


def _j_and_f(frames: _Frames) -> np.ndarray:
    pairs = [(given, _union(objects)) for given, objects in frames]
    return np.array(
        [
            np.mean([region_similarity(*pair) for pair in pairs]),
            np.mean([boundary_accuracy(*pair) for pair in pairs]),
        ]
    )


def _a_and_r(found: Foreground, frames: _Frames, image_hw: tuple[int, int], value: int) -> np.ndarray:
    """A and R, and both as the official code has them; means over the frames."""
    rows = []
    for frame, (given, objects) in enumerate(frames):
        truth, covered = _union(objects), found.covered(frame)
        if other := next((mask.image_hw for mask in covered if mask.image_hw != image_hw), None):
            raise DataError(f"The foreground of video '{found.video}' is of {other}, its true masks are of {image_hw}.")
        official = official_accuracy_and_robustness(given, objects, covered, image_hw, value=value)
        sane = pixel_accuracy(given, truth, image_hw), robustness(given, truth, _union(covered))
        rows.append([*sane, *official])
    return np.mean(np.array(rows), axis=0)


def _union(masks: list[RegionMask]) -> RegionMask | None:
    return RegionMask.union(masks) if masks else None


def _named(shares: np.ndarray) -> list[tuple[str, np.ndarray]]:
    return [("j_and_f", shares[:, :2].mean(axis=1)), ("j", shares[:, 0]), ("f", shares[:, 1])]


def _figure(name: str, values: np.ndarray, *, reading: str = "", types: Any = None) -> Figure:
    combine = None if types is None else types(values)
    return Figure(name=name, values=values.astype(np.float64), combine=combine, reading=reading)


def _mean_of_types(type_of: np.ndarray) -> Callable[[np.ndarray], Callable[[np.ndarray], float]]:
    """The mean of each type that is among some questions, and the mean of these."""

    def of(values: np.ndarray) -> Callable[[np.ndarray], float]:
        def combine(positions: np.ndarray) -> float:
            kinds = type_of[positions]
            return float(np.mean([values[positions[kinds == kind]].mean() for kind in np.unique(kinds)]))

        return combine

    return of


def _dropped(broken: Sequence[int], length: int, workers: int) -> np.ndarray | None:
    """Which answers the official code leaves out; None where that is left to chance.

    Each broken answer ends a process. One process works in order, so that nothing after it is scored.
    """
    dropped = np.zeros(length, dtype=bool)
    if workers == 1 and broken:
        dropped[broken[0] :] = True
    elif len(broken) >= workers:
        return None
    dropped[list(broken)] = True
    return dropped


def _notes(measured: _Measured) -> list[str]:
    if not measured.between:
        return []
    return [f"{measured.between} frames on which the model was not asked have the mask of the nearest frame it was."]
