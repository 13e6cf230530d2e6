"""The quickstart's pictures: answers drawn beside the regions, and the loss."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from ..files import written_whole
from ..overlay import draw_regions
from ..regions.region import Region, VideoRegion
from .scenes import Scene
from .tasks import Answers, Asked, Example, Given


def draw_answers(answers: Answers, title: str, path: Path, *, columns: int = 4, rows: int = 2) -> None:
    """Some held-out examples with their regions; right answers green, wrong ones red with the truth behind.

    A clip is drawn as a multiple exposure, with the regions of all frames.
    """
    figure, axes = _panels(title, columns, rows)
    for axis, example, given in zip(axes, answers.examples, answers.given, strict=False):
        axis.imshow(_still(example))
        for asked, each in zip(example.asked, given, strict=True):
            _draw_answer(axis, asked, each.text)
    _save(figure, path)


def draw_masks(answers: Answers, title: str, path: Path, *, columns: int = 4, rows: int = 2) -> None:
    """Some held-out examples, each with one question and its answer: the kinds of question take turns.

    A click is a cross; the mask that was given is laid over the picture, as is one that was asked about.
    """
    figure, axes = _panels(title, columns, rows)
    kinds = list(dict.fromkeys(asked.kind for asked, _ in answers.pairs()))
    for number, (axis, example, given) in enumerate(zip(axes, answers.examples, answers.given, strict=False)):
        axis.imshow(_still(example))
        pairs = dict(zip(example.asked, given, strict=True))
        kind = kinds[number % len(kinds)]
        asked = next((each for each in pairs if each.kind == kind), example.asked[0])
        about = asked.region if asked.found_by is None else pairs[asked.found_by].mask
        _draw_question(axis, asked, pairs[asked], about)
    _save(figure, path)


def draw_sheet(
    pictures: Sequence[tuple[Image.Image, Sequence[Region]]], texts: Sequence[Sequence[str]], title: str, path: Path
) -> None:
    """Pictures with their regions, and below each some lines of text."""
    rows = math.ceil(len(pictures) / 3)
    figure = Figure(figsize=(13.5, 0.5 + 4.8 * rows), layout="constrained")
    axes = figure.subplots(2 * rows, 3, squeeze=False, height_ratios=[3, 1.8] * rows)
    for axis in axes.ravel():
        axis.axis("off")
    for number, ((picture, regions), lines) in enumerate(zip(pictures, texts, strict=True)):
        row, column = divmod(number, 3)
        masks = [region.to_mask((picture.height, picture.width)) for region in regions]
        labels = [str(label + 1) for label in range(len(masks))]
        axes[2 * row, column].imshow(draw_regions(picture, masks, labels=labels))
        wrapped = "\n".join(part for line in lines for part in textwrap.wrap(_printable(line), 58, max_lines=3))
        below = axes[2 * row + 1, column]
        below.text(0, 1, wrapped, transform=below.transAxes, va="top", fontsize=9, parse_math=False)
    figure.suptitle(_printable(title))
    _save(figure, path)


def _panels(title: str, columns: int, rows: int) -> tuple[Figure, Any]:
    figure = Figure(figsize=(3.2 * columns, 3.4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    figure.suptitle(title)
    return figure, axes


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
    _save(figure, path)


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
    shown = _printable(text[:8])
    says = shown if right else f"{shown} (is {asked.answer})"
    background = {"facecolor": "black", "alpha": 0.7, "pad": 1, "lw": 0}
    axis.text(x1, max(y1 - 2, 6), says, color=colour, fontsize=10, bbox=background, va="bottom", parse_math=False)


def _draw_question(axis: Any, asked: Asked, given: Given, about: Region | VideoRegion | None) -> None:
    says = _printable(given.text[:16])
    right = given.text == asked.answer
    axis.set_title(
        f"{asked.question}\n{says}" + ("" if right else f" (is {asked.answer})"),
        fontsize=8,
        color="black" if right else "red",
        parse_math=False,
    )
    assert not isinstance(about, VideoRegion)
    if about is not None and about.kind == "points":
        clicks, _ = about.data
        axis.plot(*zip(*clicks, strict=True), "x", color="white", ms=9, mew=3)
        axis.plot(*zip(*clicks, strict=True), "x", color="black", ms=8, mew=1.5)
    for mask, colour in ((given.mask, (0, 1, 1)), (about, (1, 0.6, 0))):
        if mask is not None and mask.kind != "points":
            _lay_over(axis, mask, colour)


def _lay_over(axis: Any, mask: Region, colour: tuple[float, float, float]) -> None:
    """A mask over the picture that is drawn already."""
    height, width = axis.images[0].get_array().shape[:2]
    inside = mask.to_mask((height, width)).dense()
    layer = np.zeros((height, width, 4))
    layer[inside] = (*colour, 0.75)
    axis.imshow(layer)


def _printable(text: str) -> str:
    return "".join(each if each.isascii() and each.isprintable() else "?" for each in text)


def _boxes_xyxy(asked: Asked) -> Iterator[Any]:
    """The boxes that were given, frame by frame."""
    if isinstance(asked.region, VideoRegion):
        yield from (region.data for region in asked.region.frames.values())
    elif asked.region is not None:
        yield asked.region.data


def _save(figure: Any, path: Path) -> None:
    with written_whole(path) as made:
        figure.savefig(made, dpi=110)
