"""Answers as pictures, `<folder>/<video>/<expression>/<frame>.png`: what servers and the official code read."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pixelrefer_plugin.authoring import (
    MASK_MARKER,
    Answer,
    DataError,
    EvaluationError,
    PixelReferError,
    Question,
    Region,
    RegionMask,
    VideoRegion,
    masks_on,
    read_mask,
)


def export(config: Any, questions: Sequence[Question], answers: Sequence[Answer], folder: Path) -> None:
    """Write a picture for each frame of each expression: 255 where the object is, else 0.

    Raises:
        EvaluationError: nothing says how large the frames of a video are.
    """
    sizes: dict[str, tuple[int, int]] = {}
    for question, answer in zip(questions, answers, strict=True):
        names = question.facts["frames"]
        size_hw = answer.image_hw or sizes.get(question.facts["video"]) or _size_of(question)
        sizes[question.facts["video"]] = size_hw
        place = folder / question.facts["video"] / question.facts["expression"]
        place.mkdir(parents=True, exist_ok=True)
        for name, mask in zip(names, masks_on(answer, 0, range(len(names)), size_hw), strict=True):
            _picture(mask, size_hw).save(place / f"{name}.png")


def _picture(mask: RegionMask | None, size_hw: tuple[int, int]) -> Image.Image:
    pixels = np.zeros(size_hw, dtype=np.uint8) if mask is None else mask.dense().astype(np.uint8) * 255
    return Image.fromarray(pixels)


def _size_of(question: Question) -> tuple[int, int]:
    """Of the first frame of its video."""
    first = question.asked.media("video")[0]["video"][0]
    try:
        with Image.open(first) as picture:
            return picture.height, picture.width
    except (OSError, ValueError) as error:
        raise EvaluationError(
            f"The answer to question '{question.id}' does not say how large its frames are, and '{first}' cannot be "
            f"read: {error}."
        ) from error


@dataclass(frozen=True, eq=False, kw_only=True)
class PictureAnswer(Answer):
    """An answer that was read from pictures.

    Attributes:
        value: what a set pixel is there; 255 where none is set.
        ends_process: whether the official code's process ends at it.
    """

    value: int = 255
    ends_process: bool = False


def read_pictures(config: Any, path: Path, questions: Sequence[Question]) -> Iterator[Answer]:
    """The answers in a folder of such pictures; a pixel is of the object where it is not 0.

    An expression of which a picture is missing, or is of another size than the others, has an answer with a `failure`.

    Raises:
        DataError: there is no such folder, or it has none of the videos.
    """
    path = Path(path)
    if not any((path / question.facts["video"]).is_dir() for question in questions):
        raise DataError(
            f"'{path}' has no folder of a video, expected '<video>/<expression>/<frame>.png' below it, such as "
            f"'{questions[0].facts['video'] if questions else ''}'."
        )
    for question in questions:
        yield _answer(question, path)


def _answer(question: Question, path: Path) -> PictureAnswer:
    video = path / question.facts["video"]
    if not video.is_dir():
        return PictureAnswer(id=question.id, text="", failure=f"'{video}' is missing.")
    found: dict[int, np.ndarray] = {}
    for frame, name in enumerate(question.facts["frames"]):
        picture = video / question.facts["expression"] / f"{name}.png"
        try:
            found[frame] = np.asarray(read_mask(picture, name=f"'{picture}'"))
        except PixelReferError as error:
            return PictureAnswer(id=question.id, text="", failure=str(error), ends_process=True)
    sizes = {pixels.shape[:2] for pixels in found.values()}
    if len(sizes) > 1:
        told = f"its pictures are of several sizes: {sorted(sizes)}."
        return PictureAnswer(id=question.id, text="", failure=told, ends_process=True)
    return PictureAnswer(
        id=question.id,
        text=MASK_MARKER,
        objects=(_object(found),),
        image_hw=sizes.pop(),
        frames=tuple(found),
        value=min(max(int(pixels.max()) for pixels in found.values()), 255) or 255,
    )


def _object(found: Mapping[int, np.ndarray]) -> VideoRegion | None:
    inside = {frame: pixels.reshape(*pixels.shape[:2], -1) != 0 for frame, pixels in found.items()}
    regions = {frame: Region.from_mask(pixels.max(axis=2)) for frame, pixels in inside.items() if pixels.any()}
    absent = tuple(frame for frame in inside if frame not in regions)
    return VideoRegion(regions, absent=absent) if regions else None
