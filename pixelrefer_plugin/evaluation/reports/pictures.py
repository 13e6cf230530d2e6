"""Small pictures of questions and answers for a report: what was asked about, what was expected, what was given.

It knows questions, answers and pixels; no figures and no page.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ...contracts.questions import Answer, Question
from ...data.checks import times_of
from ...errors import PixelReferError, counted, text_of
from ...media.images import load_image
from ...media.video import FrameSampling, load_video
from ...overlay import draw_regions
from ...regions.mask import RegionMask
from ...regions.region import Region, VideoRegion
from ..scoring.groups import regions_asked_about

THUMBNAIL_PX = 320
"""Longer side of a picture in a report."""

_QUALITY = 80
_SMALL_SHARE = 0.04  # of the picture: a region whose box covers less is shown from near too
_CONTEXT = 3.0  # how much of what lies around it that shows, in sides of its box
_LEAST_CONTEXT_PX = 48


@dataclass(frozen=True)
class Thumbnail:
    """A picture for a report.

    Attributes:
        caption: what it shows.
        width: in pixels.
        height: in pixels.
        url: the picture as a `data:` URL of a JPEG; empty where there is none, and the caption says why.
    """

    caption: str
    width: int = 0
    height: int = 0
    url: str = ""


def thumbnails(question: Question, answers: Sequence[tuple[str, Answer]]) -> list[Thumbnail]:
    """What a question is about, with its regions drawn; where masks are expected or given, these too.

    Of several pictures the one with the regions is shown, of a video a frame with them. What cannot be read is a
    thumbnail without a picture, whose caption says why.

    Args:
        question: what was asked.
        answers: those to it, each with the name of its model.
    """
    try:
        return list(_drawn(question, answers))
    except (PixelReferError, OSError, ValueError) as error:
        return [Thumbnail(f"The picture cannot be shown: {text_of(error, 200)}")]


def _drawn(question: Question, answers: Sequence[tuple[str, Answer]]) -> list[Thumbnail]:
    asked = regions_asked_about(question)
    shown = [] if asked is question.targets else list(asked)
    picture, frame, note = _picture(question, [*shown, *question.targets], answers)
    if picture is None:
        return []
    found = [_thumbnail(picture, shown, frame, note or "asked")]
    if len(shown) == 1 and (near := _near(picture, shown[0], frame)):
        found.append(near)
    if question.targets or any(answer.objects for _, answer in answers):
        found.append(_thumbnail(picture, question.targets, frame, "expected"))
        found += [_thumbnail(picture, answer.objects, frame, f"given by {label}") for label, answer in answers]
    return found


def _picture(
    question: Question, regions: Sequence[Region | VideoRegion], answers: Sequence[tuple[str, Answer]]
) -> tuple[Image.Image | None, int | None, str]:
    """The picture, or the frame and its number; None where nothing is shown. And what there is besides."""
    videos, images = question.asked.media("video"), question.asked.media("image")
    on_video = next((each for each in regions if isinstance(each, VideoRegion)), None)
    if videos and (on_video is not None or not images):
        part = videos[min(on_video.video_index if on_video else 0, len(videos) - 1)]
        frame = _frame(on_video, answers)
        video = load_video(part["video"], sampling=FrameSampling(num_frames=1), frames=[frame], **times_of(part))
        return video.picture(list(video.frame_indices).index(frame)), frame, f"frame {frame}"
    if not images:
        return None, None, ""
    index = next((each.image_index for each in regions if isinstance(each, Region)), 0)
    note = f"image {index + 1} of {counted(len(images), 'image')}" if len(images) > 1 else ""
    return load_image(images[min(index, len(images) - 1)]["image"]), None, note


def _frame(region: VideoRegion | None, answers: Sequence[tuple[str, Answer]]) -> int:
    """A frame that the region lies on, one that masks were given on if there is one."""
    given = {frame for _, answer in answers for frame in answer.frames}
    named = list(region.frames) if region is not None else []
    both = [frame for frame in named if frame in given]
    return (both or named or sorted(given) or [0])[0]


def _thumbnail(
    picture: Image.Image, regions: Sequence[Region | VideoRegion | None], frame: int | None, caption: str
) -> Thumbnail:
    whole = (0, 0, picture.width, picture.height)
    return _part(picture, [_mask(each, frame, picture) for each in regions], whole, caption)


def _near(picture: Image.Image, region: Region | VideoRegion, frame: int | None) -> Thumbnail | None:
    """A small region with what lies around it; None where it is not small."""
    mask = _mask(region, frame, picture)
    if mask is None:
        return None
    x0, y0, x1, y1 = mask.box_xyxy
    if (x1 - x0) * (y1 - y0) > _SMALL_SHARE * picture.width * picture.height:
        return None
    side = min(max(_CONTEXT * max(x1 - x0, y1 - y0), _LEAST_CONTEXT_PX), *picture.size)
    left = int(np.clip((x0 + x1 - side) / 2, 0, picture.width - side))
    top = int(np.clip((y0 + y1 - side) / 2, 0, picture.height - side))
    return _part(picture, [mask], (left, top, left + int(side), top + int(side)), "from near")


def _part(
    picture: Image.Image, masks: Sequence[RegionMask | None], box: tuple[int, int, int, int], caption: str
) -> Thumbnail:
    """A part of a picture, as large as a thumbnail, with what of the masks lies in it."""
    sides = box[2] - box[0], box[3] - box[1]
    scale = THUMBNAIL_PX / max(sides)
    width, height = (max(1, round(side * scale)) for side in sides)
    small = picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)
    scaled = [None if mask is None else _scaled(mask, box, (height, width)) for mask in masks]
    labels = [str(number) for number in range(1, len(masks) + 1)]
    drawn = draw_regions(small, scaled, labels=labels) if any(scaled) else small
    file = io.BytesIO()
    drawn.save(file, "JPEG", quality=_QUALITY)
    return Thumbnail(caption, width, height, f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}")


def _scaled(mask: RegionMask, box: tuple[int, int, int, int], grid_hw: tuple[int, int]) -> RegionMask | None:
    """The mask on the part as it is drawn; an object of less than a pixel keeps one, one that lies outside none."""
    covered = mask.coverage(box, grid_hw)
    return RegionMask.from_dense(covered >= min(0.5, covered.max())) if covered.max() > 0 else None


def _mask(region: Region | VideoRegion | None, frame: int | None, picture: Image.Image) -> RegionMask | None:
    """Its pixels on the picture or frame; None where it is not there, or does not fit."""
    if isinstance(region, VideoRegion):
        region = region.frames.get(-1 if frame is None else frame)
    try:
        return None if region is None else region.to_mask((picture.height, picture.width))
    except PixelReferError:
        return None
