"""The quickstart's pictures: answers drawn beside the regions, and the loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from ..regions import Region
from .scenes import Scene
from .tasks import Answers, Asked, Example


def draw_answers(answers: Answers, title: str, path: Path, *, columns: int = 4, rows: int = 2) -> None:
    """Some held-out examples with their regions; right answers green, wrong ones red with the truth behind.

    A clip is drawn as a multiple exposure, with the regions of all frames.
    """
    figure = Figure(figsize=(3.2 * columns, 3.4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, example, texts in zip(axes, answers.examples, answers.texts, strict=False):
        axis.imshow(_still(example))
        for asked, text in zip(example.asked, texts, strict=True):
            _draw_answer(axis, asked, text)
    for axis in axes:
        axis.axis("off")
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


def draw_losses(losses: Sequence[float], path: Path) -> None:
    """The loss of each step and its running mean."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axis = figure.subplots()
    axis.plot(losses, color="lightsteelblue", lw=0.8, label="step")
    window = max(1, len(losses) // 25)
    mean = np.convolve(losses, np.ones(window) / window, mode="valid")
    axis.plot(np.arange(len(mean)) + window - 1, mean, color="navy", label=f"mean of {window}")
    axis.set(xlabel="step", ylabel="loss", ylim=(0, None))
    axis.legend()
    figure.savefig(path, dpi=110)


def _still(example: Example) -> NDArray[np.uint8]:
    source = example.source
    return source.image_hwc if isinstance(source, Scene) else source.frames_nhwc.max(axis=0)


def _draw_answer(axis: Any, asked: Asked, text: str) -> None:
    right = text == asked.answer
    colour = "lime" if right else "red"
    boxes = list(_boxes_xyxy(asked))
    for number, (x1, y1, x2, y2) in enumerate(boxes):
        solid = 1 if number == 0 else 0.5
        box = Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, color=colour, lw=1.5, alpha=solid)
        axis.add_patch(box)
    x1, y1, *_ = boxes[0]
    shown = "".join(each if each.isascii() and each.isprintable() else "?" for each in text[:8])
    says = shown if right else f"{shown} (is {asked.answer})"
    background = {"facecolor": "black", "alpha": 0.7, "pad": 1, "lw": 0}
    axis.text(x1, max(y1 - 2, 6), says, color=colour, fontsize=10, bbox=background, va="bottom", parse_math=False)


def _boxes_xyxy(asked: Asked) -> Iterator[Any]:
    """The boxes that were given, frame by frame."""
    on_frames = [asked.region] if isinstance(asked.region, Region) else asked.region.frames.values()
    return (region.data for region in on_frames)
