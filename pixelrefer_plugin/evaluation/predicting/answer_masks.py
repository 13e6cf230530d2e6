"""The masks of an answer as pixels, on a picture or on every frame that a benchmark lists."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from ...contracts.questions import Answer
from ...errors import EvaluationError, RegionError
from ...regions.mask import RegionMask
from ...regions.region import Region, VideoRegion


def mask_of(answer: Answer, number: int, image_hw: tuple[int, int]) -> RegionMask | None:
    """Mask `number` of an answer about a picture of `image_hw`; None where the answer lacks it or it is nowhere.

    Raises:
        EvaluationError: it is of a picture of another size, or of a video.
    """
    found = answer.objects[number] if number < len(answer.objects) else None
    if found is None:
        return None
    if isinstance(found, VideoRegion):
        raise EvaluationError(f"The answer to question '{answer.id}' has a mask of a video, expected one of a picture.")
    _require_size(answer, image_hw)
    return _pixels(answer, found, image_hw)


def masks_on(answer: Answer, number: int, frames: Sequence[int], image_hw: tuple[int, int]) -> list[RegionMask | None]:
    """Mask `number` of an answer about a video, on each of `frames`; None where it is not seen, or there is none.

    A model is asked on some frames. A frame between them has the mask of the nearest one of these, the earlier where
    two are as near.

    Args:
        answer: its `frames` are those that it was made on; where it has none, those that the object names.
        number: which of its masks.
        frames: indices of the frames wanted.
        image_hw: size of the frames.

    Raises:
        EvaluationError: it is of frames of another size, or of a picture.
    """
    found = answer.objects[number] if number < len(answer.objects) else None
    if found is None:
        return [None] * len(frames)
    if not isinstance(found, VideoRegion):
        raise EvaluationError(f"The answer to question '{answer.id}' has a mask of a picture, expected one of a video.")
    _require_size(answer, image_hw)
    asked = sorted(answer.frames or {*found.frames, *found.absent})
    known = {frame: _pixels(answer, region, image_hw) for frame, region in found.frames.items()}
    return [known.get(_nearest(asked, frame)) for frame in frames]


def _nearest(asked: Sequence[int], frame: int) -> int:
    after = bisect_left(asked, frame)
    around = asked[max(after - 1, 0) : after + 1]
    return min(around, key=lambda other: abs(other - frame))


def _require_size(answer: Answer, image_hw: tuple[int, int]) -> None:
    if answer.image_hw is not None and tuple(answer.image_hw) != tuple(image_hw):
        raise EvaluationError(
            f"The masks of the answer to question '{answer.id}' are of {answer.image_hw}, expected {image_hw}, each "
            "(height, width): the size of the original picture. Bring them to it."
        )


def _pixels(answer: Answer, region: Region, image_hw: tuple[int, int]) -> RegionMask:
    try:
        return region.to_mask(image_hw)
    except RegionError as error:
        raise EvaluationError(f"A mask of the answer to question '{answer.id}': {error}") from error
