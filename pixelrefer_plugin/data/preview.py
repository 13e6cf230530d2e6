"""Draws samples on one sheet: pictures with their regions, numbered, and below them the texts that speak of these.

What is shown and what is to be learnt are counted apart: `2` is the second region of the questions, `seg 2` the second
mask of the answers, in the picture as in the texts.

It knows samples and pixels; no file format and no model.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from ..contracts.messages import MARKER, MASK_MARKER, read_texts
from ..contracts.samples import RegionSample
from ..errors import DataError, RegionError, SampleError
from ..files import require_writable, written_whole
from ..media.images import load_image
from ..media.lettering import Lettering
from ..media.video import FrameSampling, Video, load_video
from ..overlay import COLOURS_RGB, PICTURE_SUFFIXES, draw_regions
from ..regions.mask import Box, RegionMask
from ..regions.region import Region, VideoRegion
from .checks import defects_of, times_of

if TYPE_CHECKING:
    from .dataset import RegionDataset


_MAX_COLUMNS = 4
_TILE_PX = 460  # width of a tile's contents
_PAD_PX = 12
_TEXT_PX = 15
_LINE_PX = 20
_MAX_LINES = 14
_MAX_PANELS = 6
_FRAMES_WITHOUT_REGIONS = 3
_MAX_ASPECT = 4  # of a picture; of a longer one the part around its regions is shown
_MAX_SCALE = 8  # of a small picture
_MOST_DEFECTS = 8  # of a sample that are written out
_MOST_LETTERS = 4000  # of a text; more than its lines take
_LONGEST_WORD = 200  # that is measured at once

_GREY, _INK, _PALE, _RED = (236, 236, 236), (20, 20, 20), (110, 110, 110), (190, 0, 0)
_ROLES = {"user": "Q: ", "assistant": "A: ", "system": "System: "}
_LIGHT = 140  # a colour at least as light as this is written on in black


Pointed = Callable[[Sequence[Mapping[str, Any]], Sequence[Region | VideoRegion]], Sequence[Mapping[str, Any]]]
"""`pointed(messages, regions) -> messages` that say in words and pictures which regions are meant."""


def draw_sheet(
    dataset: RegionDataset,
    *,
    count: int = 16,
    seed: int = 0,
    font: Path | None = None,
    pointed: Pointed | None = None,
) -> Image.Image:
    """A picture of some samples, drawn by lot, in the order of the file. Those with defects say what they are.

    Args:
        dataset: the samples.
        count: how many; all where there are fewer.
        seed: of the lot.
        font: a TrueType or OpenType file to write with; letters that it lacks are taken from fonts of this machine.
        pointed: what a model is shown instead, such as `RegionProcessor.pointed`. None: the samples as they are.

    Raises:
        PixelReferError: of `pointed`, where a sample without defects cannot be shown so.
        DataError: the font cannot be read, or there are no samples.
    """
    if not len(dataset):
        raise DataError(f"{dataset.name} has no samples to draw.")
    indices = sorted(random.Random(seed).sample(range(len(dataset)), min(count, len(dataset))))
    pen = Pen.load(font)
    samples = [_shown_to_a_model(each, pointed) if pointed else each for each in dataset.__getitems__(indices)]
    tiles = [_tile(sample, pen, first=1 if pointed else 0) for sample in samples]
    title = f"{dataset.name}: {len(tiles)} of {len(dataset):,} samples, format {dataset.format}"
    return arranged(tiles, title, pen)


def save_sheet(path: Path, sheet: Image.Image) -> None:
    """Write a sheet; it replaces what is there.

    Raises:
        PixelReferError: it cannot be written.
    """
    with written_whole(path) as made:
        sheet.save(made, quality=92)


def require_sheet_path(path: Path) -> None:
    """Refuse a path that a sheet cannot be written to, before work goes into drawing it.

    Raises:
        DataError: it is not a picture's.
        PixelReferError: no file can be written there.
    """
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        raise DataError(f"A sheet is a file of type {' or '.join(PICTURE_SUFFIXES)}, got '{path}'.")
    require_writable(path)


# -- tiles -------------------------------------------------------------------------------------------------


def arranged(tiles: Sequence[Image.Image], title: str, pen: Pen) -> Image.Image:
    """The tiles in rows, each row as high as its highest tile."""
    columns = min(_MAX_COLUMNS, math.ceil(math.sqrt(len(tiles))))
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    heights = [max(tile.height for tile in row) for row in rows]
    width = columns * (_TILE_PX + 3 * _PAD_PX) + _PAD_PX
    top = _LINE_PX + 2 * _PAD_PX
    sheet = Image.new("RGB", (width, top + sum(heights) + len(rows) * _PAD_PX), _GREY)
    pen.lettering.write(ImageDraw.Draw(sheet), (_PAD_PX, _PAD_PX), title, fill=_INK)
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            left = _PAD_PX + column * (_TILE_PX + 3 * _PAD_PX)
            sheet.paste("white", (left, top, left + tile.width, top + height))
            sheet.paste(tile, (left, top))
        top += height + _PAD_PX
    return sheet


def _shown_to_a_model(sample: RegionSample | SampleError, pointed: Pointed) -> RegionSample | SampleError:
    if isinstance(sample, SampleError) or defects_of(sample):
        return sample
    shown = replace(sample, messages=tuple(pointed(sample.messages, sample.regions)), regions=(), media_hw=())
    named = {frame for each in sample.regions if isinstance(each, VideoRegion) for frame in each.frames}
    most = max(1, _MAX_PANELS // max(1, len(shown.media("video"))))

    def shortened(content: Any) -> Any:
        if isinstance(content, str):
            return content
        return [
            {**part, "video": _few_frames(part["video"], named, most)} if part["type"] == "video" else part
            for part in content
        ]

    messages = tuple({**each, "content": shortened(each["content"])} for each in shown.messages)
    return replace(shown, messages=messages)


def _few_frames(video: Video, named: Collection[int], most: int) -> Video:
    """A sampled video with those of its frames that regions name alone, or a few where none does."""
    here = [position for position, frame in enumerate(video.frame_indices) if frame in named] or range(len(video))
    least = min(len(here), most if named else _FRAMES_WITHOUT_REGIONS)
    kept = [here[position] for position in np.linspace(0, len(here) - 1, least).round().astype(int)]
    return replace(
        video,
        frames_nhwc=video.frames_nhwc[kept],
        frame_indices=tuple(video.frame_indices[position] for position in kept),
        times_s=tuple(video.times_s[position] for position in kept),
    )


def _tile(sample: RegionSample | SampleError, pen: Pen, *, first: int) -> Image.Image:
    defects = defects_of(sample)
    name = f"{sample.where}   id {sample.sample_id if isinstance(sample, SampleError) else sample.id}".strip()
    lines = [*pen.wrapped([Run(name, _PALE)], most=2)]
    for defect in defects[:_MOST_DEFECTS]:
        lines += pen.wrapped([Run(f"{defect.kind}: {defect.message}", _RED)], most=6)
    if len(defects) > _MOST_DEFECTS:
        lines += pen.wrapped([Run(f"... and {len(defects) - _MOST_DEFECTS:,} defects more", _RED)])
    pictures, texts = None, []
    if isinstance(sample, RegionSample) and not any(defect.kind == "format" for defect in defects):
        texts = list(_texts(sample, pen))
        if not any(defect.kind == "media" for defect in defects):
            pictures = _media(sample, pen, first=first)
    if len(texts) > _MAX_LINES:
        texts[_MAX_LINES - 1 :] = [[Run(f"... {len(texts) - _MAX_LINES + 1} lines more", _PALE)]]
    return stacked(lines, pictures, texts, pen)


def stacked(
    above: Sequence[Sequence[Run]], pictures: Image.Image | None, below: Sequence[Sequence[Run]], pen: Pen
) -> Image.Image:
    """A tile: lines, pictures, lines."""
    pictures_px = 0 if pictures is None else pictures.height + _PAD_PX
    height = 2 * _PAD_PX + (len(above) + len(below)) * _LINE_PX + pictures_px
    tile = Image.new("RGB", (_TILE_PX + 2 * _PAD_PX, height), "white")
    pen.write(tile, above, top=_PAD_PX)
    top = _PAD_PX + len(above) * _LINE_PX
    if pictures is not None:
        tile.paste(pictures, (_PAD_PX, top + _PAD_PX // 2))
    pen.write(tile, below, top=top + pictures_px)
    return tile


# -- texts -------------------------------------------------------------------------------------------------


class Run(NamedTuple):
    """Words of one colour; a region's label stands on a plate of its colour."""

    text: str
    fill: tuple[int, int, int] = _INK
    plate: tuple[int, int, int] | None = None


def _texts(sample: RegionSample, pen: Pen) -> Iterator[list[Run]]:
    """The lines of its messages, every marker with its region's label."""
    texts = read_texts(sample.messages)
    marks = plates(_labels(texts))
    for role, text in texts:
        yield from pen.wrapped([Run(_ROLES.get(role, f"{role}: "), _PALE), *with_plates(text, marks)])


def with_plates(text: str, marks: Iterator[Run]) -> Iterator[Run]:
    """A text with the next of the plates in place of each of its markers; a marker for which none is left stays."""
    end = 0
    for marker in MARKER.finditer(text):
        yield Run(text[end : marker.start("kind")])
        yield next(marks, Run(marker["kind"]))
        end = marker.end()
    yield Run(text[end:])


def _labels(texts: Iterable[tuple[str, str]]) -> list[str]:
    """What each region is called, in order: `1`, `2`, ... if it is shown, `seg 1`, `seg 2`, ... if it is a target."""
    seen: Counter[str] = Counter()
    labels = []
    for marker in (found["kind"] for _, text in texts for found in MARKER.finditer(text)):
        seen[marker] += 1
        labels.append(f"{'seg ' if marker == MASK_MARKER else ''}{seen[marker]}")
    return labels


def plates(labels: Iterable[str]) -> Iterator[Run]:
    """The label of each region on a plate of the colour that it is drawn in."""
    for number, label in enumerate(labels):
        colour = COLOURS_RGB[number % len(COLOURS_RGB)]
        yield Run(f" {label} ", _INK if _is_light(colour) else (255, 255, 255), colour)


def _is_light(colour: tuple[int, int, int]) -> bool:
    red, green, blue = colour
    return 0.299 * red + 0.587 * green + 0.114 * blue > _LIGHT  # ITU-R BT.601


@dataclass(frozen=True)
class Pen:
    """Breaks texts into lines, and writes them."""

    lettering: Lettering

    @classmethod
    def load(cls, path: Path | None) -> Pen:
        try:
            return cls(Lettering(_TEXT_PX, None if path is None else str(path)))
        except OSError as error:
            raise DataError(f"Font '{path}' cannot be read: {error}. Give a .ttf or .otf file.") from error

    def wrapped(self, runs: Iterable[Run], *, width_px: int = _TILE_PX, most: int | None = None) -> list[list[Run]]:
        """The runs in lines no wider than that; of more than `most` lines the last one ends in dots."""
        lines: list[list[Run]] = [[]]
        left_px = float(width_px)
        for word in (piece for run in runs for piece in self._pieces(run, width_px)):
            if word.text == "\n" or (self._width(word) > left_px and lines[-1]):
                lines.append([])
                left_px = width_px
            if word.text == "\n" or (word.text.isspace() and not lines[-1]):
                continue
            lines[-1].append(word)
            left_px -= self._width(word)
        if most is None or len(lines) <= most:
            return lines
        last = lines[most - 1]
        return [*lines[: most - 1], [*last[:-1], Run(" ...", last[-1].fill if last else _PALE)]]

    def _pieces(self, run: Run, width_px: int) -> Iterator[Run]:
        """Words, blanks and line ends; a word wider than a line in pieces."""
        if run.plate is not None:
            yield run
            return
        text = run.text[:_MOST_LETTERS]
        printable = "".join(each if each.isprintable() or each == "\n" else " " for each in text)
        for word in re.findall(r"\n|[^\S\n]+|\S+", printable):
            while (width := self._width(run._replace(text=(head := word[:_LONGEST_WORD])))) > width_px or head != word:
                end = max(1, int(len(head) * min(1, width_px / max(1, width))) - 1)
                yield run._replace(text=word[:end])
                word = word[end:]
            yield run._replace(text=word)

    def _width(self, run: Run) -> float:
        return self.lettering.length(run.text)

    def write(self, tile: Image.Image, lines: Iterable[Sequence[Run]], *, top: int, start: int = _PAD_PX) -> None:
        """Write lines from `top` down, each from `start` on."""
        draw = ImageDraw.Draw(tile)
        for line in lines:
            left = float(start)
            for run in line:
                if run.plate is not None:
                    draw.rectangle((left, top, left + self._width(run) - 1, top + _LINE_PX - 3), fill=run.plate)
                self.lettering.write(draw, (left, top), run.text, fill=run.fill)
                left += self._width(run)
            top += _LINE_PX


# -- pictures ----------------------------------------------------------------------------------------------


class Panel(NamedTuple):
    """A picture of a sample, or a frame of its video, and what lies on it.

    `regions` has one entry for each region of the sample, None where that lies elsewhere, `labels` what it is called.
    """

    picture: Image.Image
    regions: Sequence[Region | None]
    labels: Sequence[str]
    caption: str


def _media(sample: RegionSample, pen: Pen, *, first: int) -> Image.Image | None:
    """Its pictures and frames, regions drawn on, counted from `first`; None where there are none."""
    labels = _labels(read_texts(sample.messages))
    labels += [f"{number}" for number in range(len(labels) + 1, len(sample.regions) + 1)]  # those without a marker
    return pictures_of(sample, sample.regions, labels, pen, first=first)


def pictures_of(
    sample: RegionSample, regions: Sequence[Region | VideoRegion], labels: Sequence[str], pen: Pen, *, first: int = 0
) -> Image.Image | None:
    """The pictures and frames of a sample with these regions drawn on, side by side; None where there are none.

    Several are counted from `first`: as the fields of a file count them, or as words do that a model is told.

    Raises:
        PixelReferError: one cannot be read.
    """
    panels = list(_panels(sample, regions, labels, first))
    if not panels:
        return None
    columns = math.ceil(math.sqrt(min(len(panels), _MAX_PANELS)))
    slot_px = (_TILE_PX - (columns - 1) * _PAD_PX) // columns
    slot_wh = (slot_px, round(slot_px * (0.78 if columns == 1 else 1)))
    drawn, captions = zip(*(_drawn(panel, slot_wh) for panel in panels[:_MAX_PANELS]), strict=True)
    rest = f" ... {len(panels) - len(drawn)} more" if len(panels) > len(drawn) else ""
    return _grid(drawn, [*captions[:-1], captions[-1] + rest], columns, slot_px, pen)


def _grid(
    pictures: Sequence[Image.Image], captions: Sequence[str], columns: int, slot_px: int, pen: Pen
) -> Image.Image:
    lines = [pen.wrapped([Run(caption, _PALE)], width_px=slot_px) if caption else [] for caption in captions]
    rows = [range(start, min(start + columns, len(pictures))) for start in range(0, len(pictures), columns)]
    heights = [max(pictures[index].height + len(lines[index]) * _LINE_PX for index in row) for row in rows]
    grid = Image.new("RGB", (_TILE_PX, sum(heights) + (len(rows) - 1) * _PAD_PX // 2), "white")
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for column, index in enumerate(row):
            left = column * (slot_px + _PAD_PX)
            grid.paste(pictures[index], (left, top))
            pen.write(grid, lines[index], top=top + pictures[index].height, start=left)
        top += height + _PAD_PX // 2
    return grid


def _panels(
    sample: RegionSample, regions: Sequence[Region | VideoRegion], labels: Sequence[str], first: int
) -> Iterator[Panel]:
    """Each picture, and of each video the frames that regions name, or a few where none does."""
    images = sample.media("image")
    for index, part in enumerate(images):
        here = [each if isinstance(each, Region) and each.image_index == index else None for each in regions]
        caption = f"picture {index + first}" if len(images) > 1 else ""
        yield Panel(load_image(part["image"]), here, labels, caption)
    videos = sample.media("video")
    for index, part in enumerate(videos):
        for panel in _frames(part, [_of_video(each, index) for each in regions], labels):
            yield panel._replace(caption=f"video {index + first}, {panel.caption}") if len(videos) > 1 else panel


def _of_video(region: Region | VideoRegion, index: int) -> Mapping[int, Region | None]:
    """The frames of one video that a region names, None where it says that the object is absent."""
    if isinstance(region, Region) or region.video_index != index:
        return {}
    return {**region.frames, **dict.fromkeys(region.absent)}


def _frames(
    part: Mapping[str, Any], regions: Sequence[Mapping[int, Region | None]], labels: Sequence[str]
) -> Iterator[Panel]:
    named = sorted({frame for frames in regions for frame in frames})
    spread = np.linspace(0, len(named) - 1, min(len(named), _MAX_PANELS)).round().astype(int)
    wanted = [named[position] for position in spread]
    sampling = FrameSampling(num_frames=len(wanted) or _FRAMES_WITHOUT_REGIONS)
    video = load_video(part["video"], sampling=sampling, frames=wanted, **times_of(part))
    rest = f" ... {len(named) - len(wanted)} more" if len(named) > len(wanted) else ""
    for position, (frame, time_s) in enumerate(zip(video.frame_indices, video.times_s, strict=True)):
        pairs = zip(labels, regions, strict=False)
        absent = [label for label, frames in pairs if frame in frames and frames[frame] is None]
        note = f", without {', '.join(absent)}" if absent else ""
        caption = f"frame {frame}, {time_s:.1f} s{note}" + (rest if position == len(video) - 1 else "")
        yield Panel(video.picture(position), [each.get(frame) for each in regions], labels, caption)


def _drawn(panel: Panel, slot_wh: tuple[int, int]) -> tuple[Image.Image, str]:
    """The picture, or the part of it that its regions lie on, as large as fits, regions drawn on; and its caption."""
    masks = [None if region is None else _mask(region, panel.picture) for region in panel.regions]
    part = _part(panel.picture.size, [mask.box_xyxy for mask in masks if mask is not None])
    part_wh = (part[2] - part[0], part[3] - part[1])
    scale = min(_MAX_SCALE, *(slot / side for slot, side in zip(slot_wh, part_wh, strict=True)))
    width, height = (max(1, round(side * scale)) for side in part_wh)
    small = panel.picture.resize((width, height), Image.Resampling.LANCZOS, box=part, reducing_gap=3.0)
    drawn = [None if mask is None else _scaled(mask, part, (height, width)) for mask in masks]
    note = "" if part_wh == panel.picture.size else f"part of {panel.picture.width}x{panel.picture.height}"
    return draw_regions(small, drawn, labels=panel.labels[: len(drawn)]), ", ".join(filter(None, (panel.caption, note)))


def _mask(region: Region, picture: Image.Image) -> RegionMask | None:
    """Its mask; None where it does not fit, which the tile says in words."""
    try:
        return region.to_mask((picture.height, picture.width))
    except RegionError:
        return None


def _scaled(mask: RegionMask, part: Box, grid_hw: tuple[int, int]) -> RegionMask:
    """The mask on the part of the picture as it is drawn; an object of less than a pixel keeps one."""
    covered = mask.coverage(part, grid_hw)
    return RegionMask.from_dense(covered >= min(0.5, covered.max()))


def _part(picture_wh: tuple[int, int], boxes: Sequence[Box]) -> Box:
    """The whole picture, unless it is so long that nothing could be seen on it."""
    lengths = [min(side, _MAX_ASPECT * other) for side, other in zip(picture_wh, picture_wh[::-1], strict=True)]
    starts = [0, 0]
    for axis in (0, 1):
        first = min((box[axis] for box in boxes), default=0)
        end = max((box[axis + 2] for box in boxes), default=picture_wh[axis])
        lengths[axis] = max(lengths[axis], end - first) if boxes else lengths[axis]
        starts[axis] = min(max(0, (first + end - lengths[axis]) // 2), picture_wh[axis] - lengths[axis])
    return starts[0], starts[1], starts[0] + lengths[0], starts[1] + lengths[1]
