"""How good masks are: J, F and J&F of videos, gIoU and cIoU of pictures, and the published score of PixelQA.

It knows masks, as arrays or as `RegionMask`; no model, no data set and no files. Everywhere a mask is a `(H, W)` array
of booleans or integers (non-zero is inside), a `RegionMask`, or None where the object is not on the picture. Which
definition is whose, and where published scripts differ: docs/metrics.md.
"""

from __future__ import annotations

import math
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ...errors import PixelReferError, RegionError, shown
from ...regions.mask import RegionMask
from .choices import UNIPIXEL, read_choice

Mask = np.ndarray | RegionMask | None

BOUND = 0.008
"""How far a boundary may be off, as a share of the picture's diagonal: DAVIS's."""


@dataclass(frozen=True)
class Overlap:
    """Pixels of two masks, or of two sequences of them, together: in both, and in either."""

    intersection: int
    union: int

    @property
    def iou(self) -> float:
        """Intersection over union; 1 where both are empty."""
        return self.intersection / self.union if self.union else 1.0


@dataclass(frozen=True)
class VideoScore:
    """Region similarity J and accuracy F of one object in one video, or the means of several."""

    j: float
    f: float

    @property
    def j_and_f(self) -> float:
        """Their mean, J&F."""
        return (self.j + self.f) / 2


# -- one picture -------------------------------------------------------------------------------------------


def overlap(predicted: Mask, expected: Mask) -> Overlap:
    """Pixels in both masks, and in either.

    Raises:
        RegionError: one is no mask, or they are of different sizes.
    """
    found, true = _pair(predicted, expected)
    areas = sum(mask.area for mask in (found, true) if mask is not None)
    shared = 0 if found is None or true is None else _shared(found, true)
    return Overlap(shared, areas - shared)


def region_similarity(predicted: Mask, expected: Mask) -> float:
    """J: intersection over union; 1 where both masks are empty (Perazzi et al., CVPR 2016; DAVIS 2017).

    Raises:
        RegionError: one is no mask, or they are of different sizes.
    """
    return overlap(predicted, expected).iou


def boundary_accuracy(predicted: Mask, expected: Mask, *, bound: float = BOUND) -> float:
    """F: how well the boundaries of two masks match, as DAVIS defines it (Perazzi et al., CVPR 2016).

    A boundary pixel is one that differs from its neighbour to the right, below, or both. It is matched where the other
    boundary has a pixel within the bound, rounded up to whole pixels. F is the harmonic mean of the shares that are
    matched, of the predicted boundary and of the expected one. Where neither mask has a boundary it is 1, where one has
    none 0; like an empty mask, one that covers the whole picture has none.

    Args:
        predicted: the mask found.
        expected: the true one.
        bound: share of the diagonal; from 1 on, pixels.

    Raises:
        RegionError: one is no mask, or they are of different sizes.
        PixelReferError: the bound is not positive.
    """
    if not 0 < bound < math.inf:
        raise PixelReferError(f"bound must be a positive number, got {shown(bound)}.")
    found, true = _pair(predicted, expected)
    drawn = [mask for mask in (found, true) if mask is not None]
    if not drawn:
        return 1.0
    image_hw, box = drawn[0].image_hw, _box_around(drawn)
    boundary, true_boundary = (_boundary(mask, box, image_hw) for mask in (found, true))
    length, true_length = np.count_nonzero(boundary), np.count_nonzero(true_boundary)
    if not length or not true_length:
        return float(length == true_length)
    disk = _disk(math.ceil(bound * math.hypot(*image_hw)) if bound < 1 else math.ceil(bound))
    precision = np.count_nonzero(boundary & _grown(true_boundary, disk)) / length
    recall = np.count_nonzero(true_boundary & _grown(boundary, disk)) / true_length
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def without(mask: Mask, void: Mask) -> RegionMask | None:
    """A mask without the pixels that a benchmark does not count, its void ones; None where no pixel is left.

    Raises:
        RegionError: one is no mask, or they are of different sizes.
    """
    kept, cleared = _pair(mask, void)
    if kept is None or cleared is None:
        return kept
    pixels = kept.dense() & ~cleared.dense()
    return RegionMask.from_dense(pixels) if pixels.any() else None


def box_without_specks(mask: Mask, *, min_area_px: int = 10) -> tuple[int, int, int, int] | None:
    """The box around a mask without its small parts, end-exclusive `(x0, y0, x1, y1)`; None where nothing is left.

    Parts are connected over their corners too. UniPixel's box accuracy takes it (unipixel/eval/infer_seg.py).

    Args:
        mask: the mask.
        min_area_px: pixels of the smallest part that counts.

    Raises:
        RegionError: it is no mask.
    """
    import cv2

    found, _ = _pair(mask, None)
    if found is None:
        return None
    x0, y0, _, _ = found.box_xyxy
    _, _, stats, _ = cv2.connectedComponentsWithStats(found.window.astype(np.uint8), connectivity=8)
    parts = stats[1:][stats[1:, cv2.CC_STAT_AREA] >= min_area_px]
    if not len(parts):
        return None
    left, top, width, height = parts[:, :4].T
    return (
        int(left.min()) + x0,
        int(top.min()) + y0,
        int((left + width).max()) + x0,
        int((top + height).max()) + y0,
    )


def box_iou(first_xyxy: Sequence[float], second_xyxy: Sequence[float]) -> float:
    """Intersection over union of two boxes `(x0, y0, x1, y1)`; 0 where they have no area together."""
    width, height = (
        max(min(first_xyxy[side + 2], second_xyxy[side + 2]) - max(first_xyxy[side], second_xyxy[side]), 0.0)
        for side in (0, 1)
    )
    areas = ((box[2] - box[0]) * (box[3] - box[1]) for box in (first_xyxy, second_xyxy))
    union = sum(areas) - width * height
    return width * height / union if union > 0 else 0.0


def _pair(predicted: Mask, expected: Mask) -> tuple[RegionMask | None, RegionMask | None]:
    """Both masks compactly, None where no pixel is set."""
    sizes = {_image_hw(mask) for mask in (predicted, expected) if mask is not None}
    if len(sizes) > 1:
        raise RegionError(
            f"The masks to compare must be of one size, got a predicted one of {_image_hw(predicted)} and an expected "
            f"one of {_image_hw(expected)}, each (height, width). Bring predictions to the original size."
        )
    return _compact(predicted), _compact(expected)


def _image_hw(mask: Mask) -> tuple[int, int]:
    if isinstance(mask, RegionMask):
        return mask.image_hw
    array = np.asarray(mask)
    if array.ndim != 2 or array.dtype.kind not in "biu":
        raise RegionError(
            "A mask to compare must be a (H, W) array of booleans or integers, a RegionMask, or None, "
            f"got {array.dtype} {array.shape}. Threshold probabilities (mask > 0.5) or logits (mask > 0)."
        )
    return array.shape


def _compact(mask: Mask) -> RegionMask | None:
    if mask is None or isinstance(mask, RegionMask):
        return mask
    array = np.asarray(mask)
    return RegionMask.from_dense(array.astype(bool, copy=False)) if array.any() else None


def _shared(first: RegionMask, second: RegionMask) -> int:
    """Pixels in both masks, counted where their boxes meet."""
    left, top = (max(first.box_xyxy[axis], second.box_xyxy[axis]) for axis in (0, 1))
    right, bottom = (min(first.box_xyxy[axis], second.box_xyxy[axis]) for axis in (2, 3))
    if left >= right or top >= bottom:
        return 0
    parts = []
    for mask in (first, second):
        x0, y0, _, _ = mask.box_xyxy
        parts.append(mask.window[top - y0 : bottom - y0, left - x0 : right - x0])
    return int(np.count_nonzero(parts[0] & parts[1]))


def _box_around(masks: Sequence[RegionMask]) -> tuple[int, int, int, int]:
    """The box of all of them, with a row more above and a column more to the left: boundaries reach there."""
    x0, y0, x1, y1 = np.array([mask.box_xyxy for mask in masks]).T.tolist()
    return max(min(x0) - 1, 0), max(min(y0) - 1, 0), max(x1), max(y1)


def _boundary(mask: RegionMask | None, box_xyxy: tuple[int, int, int, int], image_hw: tuple[int, int]) -> np.ndarray:
    """The boundary pixels of a mask within a box that holds them all, `(h, w)` bool."""
    left, top, right, bottom = box_xyxy
    # One row and column more, of what lies beyond the box: nothing, or at the picture's edge its last pixels again.
    pixels = np.zeros((bottom - top + 1, right - left + 1), dtype=bool)
    if mask is not None:
        x0, y0, x1, y1 = mask.box_xyxy
        pixels[y0 - top : y1 - top, x0 - left : x1 - left] = mask.window
    if bottom == image_hw[0]:
        pixels[-1] = pixels[-2]
    if right == image_hw[1]:
        pixels[:, -1] = pixels[:, -2]
    here, after, below, across = pixels[:-1, :-1], pixels[:-1, 1:], pixels[1:, :-1], pixels[1:, 1:]
    return (here ^ after) | (here ^ below) | (here ^ across)


def _disk(radius_px: int) -> np.ndarray:
    """`(2 r + 1, 2 r + 1)` uint8: 1 within the radius of the centre."""
    steps = np.arange(-radius_px, radius_px + 1)
    return (steps[:, None] ** 2 + steps**2 <= radius_px**2).astype(np.uint8)


def _grown(boundary: np.ndarray, disk: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.dilate(boundary.view(np.uint8), disk).view(bool)


# -- one video ---------------------------------------------------------------------------------------------


def j_and_f(
    predicted: Sequence[Mask] | np.ndarray, expected: Sequence[Mask] | np.ndarray, *, skip_ends: bool = False
) -> VideoScore:
    """J and F of one object in one video, as DAVIS has them: the means over the frames.

    On a frame where the object is neither expected nor predicted both are 1; where it is one of the two, 0.

    Args:
        predicted: the object's mask on each of T frames, such as a `(T, H, W)` array.
        expected: the true masks of the same frames.
        skip_ends: leave the first and the last frame out, as DAVIS 2017 does in its semi-supervised task, where the
            first one is given. Ref-DAVIS17, MeViS, Ref-YouTube-VOS and ReVOS count every frame.

    Raises:
        PixelReferError: different numbers of frames, or none that counts.
        RegionError: one is no mask, or they are of different sizes.
    """
    pairs = _frames(predicted, expected)
    if skip_ends:
        pairs = pairs[1:-1]
    if not pairs:
        raise PixelReferError("J&F needs a frame that counts, got none. With skip_ends=True, the ends do not.")
    return VideoScore(
        math.fsum(region_similarity(*pair) for pair in pairs) / len(pairs),
        math.fsum(boundary_accuracy(*pair) for pair in pairs) / len(pairs),
    )


def volume_overlap(predicted: Sequence[Mask] | np.ndarray, expected: Sequence[Mask] | np.ndarray) -> Overlap:
    """Pixels of one object in both of two videos of masks, all frames together, and in either.

    Raises:
        PixelReferError: different numbers of frames.
        RegionError: one is no mask, or they are of different sizes.
    """
    found = [overlap(*pair) for pair in _frames(predicted, expected)]
    return Overlap(sum(each.intersection for each in found), sum(each.union for each in found))


def _frames(predicted: Sequence[Mask] | np.ndarray, expected: Sequence[Mask] | np.ndarray) -> list[tuple[Mask, Mask]]:
    if len(predicted) != len(expected):
        raise PixelReferError(
            f"Masks of as many frames must be compared, got {len(predicted)} predicted and {len(expected)} expected. "
            "None stands for a frame without the object."
        )
    return list(zip(predicted, expected, strict=True))


# -- many samples ------------------------------------------------------------------------------------------


@dataclass
class MaskScores:
    """Running figures of a benchmark. They do not depend on the order, nor on how samples are spread over processes.

    Attributes:
        overlaps: of each sample so far.
        videos: J and F of each object of a video so far.
    """

    overlaps: list[Overlap] = field(default_factory=list)
    videos: list[VideoScore] = field(default_factory=list)

    def add(self, predicted: Mask, expected: Mask) -> Overlap:
        """Count one sample: an object, or, where a benchmark wants it so, all of a picture's objects as one mask."""
        self.overlaps.append(overlap(predicted, expected))
        return self.overlaps[-1]

    def add_video(
        self, predicted: Sequence[Mask] | np.ndarray, expected: Sequence[Mask] | np.ndarray, *, skip_ends: bool = False
    ) -> VideoScore:
        """Count one object of a video: J and F as `j_and_f` has them, and the overlap of all frames together."""
        self.overlaps.append(volume_overlap(predicted, expected))
        self.videos.append(j_and_f(predicted, expected, skip_ends=skip_ends))
        return self.videos[-1]

    def merge(self, other: MaskScores) -> None:
        """Count what another process, or another part of the data, has counted."""
        self.overlaps.extend(other.overlaps)
        self.videos.extend(other.videos)

    @property
    def giou(self) -> float:
        """Mean of the samples' IoU; an empty mask where none is expected has 1 (ReasonSeg, gRefCOCO).

        Raises:
            PixelReferError: nothing was counted.
        """
        self._require(self.overlaps)
        return math.fsum(each.iou for each in self.overlaps) / len(self.overlaps)

    @property
    def ciou(self) -> float:
        """Intersections of all samples over their unions, so that large objects count more (RefCOCO's oIoU).

        Raises:
            PixelReferError: nothing was counted.
        """
        self._require(self.overlaps)
        return Overlap(sum(each.intersection for each in self.overlaps), sum(each.union for each in self.overlaps)).iou

    @property
    def video(self) -> VideoScore:
        """Mean J and F of the objects of videos.

        Raises:
            PixelReferError: no video was counted.
        """
        self._require(self.videos)
        return _mean(self.videos)

    def _require(self, counted: Sequence[object]) -> None:
        if not counted:
            raise PixelReferError("There is no mean of nothing: call add, or add_video for J and F, first.")


def _mean(scores: Sequence[VideoScore]) -> VideoScore:
    j, f = (math.fsum(values) / len(scores) for values in ([each.j for each in scores], [each.f for each in scores]))
    return VideoScore(j, f)


# -- PixelQA -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class PixelQAResult:
    """One question of PixelQA, answered.

    Attributes:
        given: the model's answer: `B`, `(B)`, `b. a dog`.
        expected: the letter of the right option.
        predicted: masks of each object, frame by frame. Objects that the answer lacks may be missing at the end.
        truth: the true masks of each object.
        options: the texts of the options, in order, with labels or without; of none given every letter is offered.
    """

    given: str
    expected: str
    predicted: Sequence[Sequence[Mask] | np.ndarray]
    truth: Sequence[Sequence[Mask] | np.ndarray]
    options: Sequence[str] = ()


@dataclass(frozen=True)
class PixelQAScore:
    """What `pixel_qa_score` gives: the share of right answers, and mean J and F of all objects."""

    accuracy: float
    masks: VideoScore


def pixel_qa_score(
    results: Iterable[PixelQAResult], *, reading: Literal["default", "official"] = "default"
) -> PixelQAScore:
    """The score of PixelQA as it was published (UniPixel, NeurIPS 2025), which is not DAVIS's.

    J is the IoU of an object's whole volume, all frames together, and F the harmonic mean of precision and recall of
    its pixels, not of its boundary. Both are averaged over the objects of all questions.

    Args:
        results: of each question.
        reading: how a letter is found in an answer. `default`: as `read_choice` has it. `official`: as UniPixel's
            `eval_general.py` does, which takes `**B**`, `[B]` and `The answer is B` for wrong.

    Raises:
        PixelReferError: no results, an answer that is expected is no letter, or masks that do not fit; in the official
            reading also an empty answer, at which the official code stops.
    """
    answered = list(results)
    scores = [score for each in answered for score in _volume_scores(each)]
    if not answered or not scores:
        raise PixelReferError(f"PixelQA is scored on questions with objects, got {len(answered)} questions.")
    right = sum(_choice(each, reading) == _expected_choice(each) for each in answered)
    return PixelQAScore(right / len(answered), _mean(scores))


def _volume_scores(result: PixelQAResult) -> list[VideoScore]:
    surplus = len(result.predicted) - len(result.truth)
    if surplus > 0:
        raise PixelReferError(f"A question about {len(result.truth)} objects got masks of {surplus} more.")
    missing = [[None] * len(true) for true in result.truth[len(result.predicted) :]]
    found = [volume_overlap(*pair) for pair in zip([*result.predicted, *missing], result.truth, strict=True)]
    # The harmonic mean of I / |P| and I / |T| is 2 I / (|P| + |T|), and |P| + |T| = I + U.
    return [VideoScore(each.iou, 2 * each.iou / (1 + each.iou)) for each in found]


def _choice(result: PixelQAResult, reading: Literal["default", "official"]) -> str | None:
    options = result.options or [""] * 26
    return read_choice(result.given, options, UNIPIXEL if reading == "official" else reading)


def _expected_choice(result: PixelQAResult) -> str:
    choice = next((each for each in result.expected.upper() if each in string.ascii_uppercase), "")
    if not choice:
        raise PixelReferError(f"A question's right option must be a letter, got '{result.expected}'.")
    return choice
