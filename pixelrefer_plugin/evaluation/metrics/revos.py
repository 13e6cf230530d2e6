"""Accuracy A and robustness R of a mask on a frame, as ReVOS has them (Yan et al., VISA, ECCV 2024).

They say what J and F do not: how much of the background is left alone. Each is a number of one frame; a video's is the
mean over its frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...regions.mask import RegionMask
from .masks import Mask, overlap, without

_TINY = 1e-6  # the official code adds it to the pixels of the foreground


def pixel_accuracy(predicted: Mask, expected: Mask, image_hw: tuple[int, int]) -> float:
    """A: share of the picture's pixels on which both masks agree.

    Args:
        predicted: the mask found.
        expected: the true one.
        image_hw: size of the picture; the masks may both be None.

    Raises:
        RegionError: one is no mask, or they are of different sizes.
    """
    found = overlap(predicted, expected)
    return 1 - (found.union - found.intersection) / (image_hw[0] * image_hw[1])


def robustness(predicted: Mask, expected: Mask, foreground: Mask) -> float:
    """R: 1 less the pixels that are wrongly set, in shares of the foreground's; 0 at least.

    Where there is no foreground it is 1 if none is wrongly set, else 0.

    Args:
        predicted: the mask found.
        expected: the true one.
        foreground: what any expression about the video means on this frame.

    Raises:
        RegionError: one is no mask, or they are of different sizes.
    """
    wrong, of_foreground = _area(without(predicted, expected)), _area(foreground)
    if not wrong:
        return 1.0
    return max(1 - wrong / of_foreground, 0.0) if of_foreground else 0.0


def official_accuracy_and_robustness(
    predicted: RegionMask | None,
    objects: Sequence[RegionMask],
    foreground: Sequence[RegionMask],
    image_hw: tuple[int, int],
    *,
    value: int,
) -> tuple[float, float]:
    """A and R of a frame as the official code computes them, which compares the values of pixels.

    A predicted pixel is `value`, an expected one the number of objects that cover it, and the arithmetic is of eight
    bits. So with pictures of 0 and 255 no pixel of an object is ever right, and the figures say little (source:
    VISA's and UniPixel's `eval_revos.py`).

    Args:
        predicted: the mask found.
        objects: the expression's true objects, one by one.
        foreground: the objects of the video, one by one or together; a pixel counts as often as it is covered.
        image_hw: size of the frame.
        value: what a set pixel is in the predicted picture: 255 as UniPixel writes it, or 1.
    """
    given, true = np.zeros(image_hw, dtype=np.uint8), np.zeros(image_hw, dtype=np.uint8)
    if predicted is not None:
        given[predicted.dense()] = value
    for mask in objects:
        true += mask.dense()
    wrong = int(((1 - true) * given).sum(dtype=np.int64))  # of eight bits on purpose
    return float((given == true).mean()), max(1 - wrong / (sum(mask.area for mask in foreground) + _TINY), 0.0)


def _area(mask: Mask) -> int:
    if mask is None:
        return 0
    return mask.area if isinstance(mask, RegionMask) else int(np.count_nonzero(mask))
