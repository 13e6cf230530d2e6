"""Draws regions on the picture or video they lie on, so that people can see what was asked about.

It knows pixels, masks and files; no model and no text but the labels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from .errors import PixelReferError, RegionError, placed, shown
from .files import require_writable, written_whole
from .media.images import load_image
from .media.lettering import Lettering
from .media.video import FrameSampling, Video, is_video_source, load_video
from .regions.mask import Box, RegionMask
from .regions.region import Region, VideoRegion

# Okabe and Ito's colours, which people with any kind of colour blindness can tell apart; without black, and in
# an order that sets the first few far apart. https://jfly.uni-koeln.de/color/
COLOURS_RGB = (
    (213, 94, 0),
    (86, 180, 233),
    (240, 228, 66),
    (0, 158, 115),
    (204, 121, 167),
    (0, 114, 178),
    (230, 159, 0),
)

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
VIDEO_SUFFIXES = (".mp4", ".gif")

_TINT = 0.35
_MIN_FRAME_S = 0.2  # sampled frames that follow each other faster than people see are held this long
_ENCODERS = ("libx264", "libopenh264", "mpeg4")  # best first; every build of FFmpeg has the last
_TICKS_PER_S = 1000
_MAX_GIF_MS = 655_350  # what a GIF can store


def draw_regions(picture: Image.Image, masks: Sequence[RegionMask | None], *, labels: Sequence[str]) -> Image.Image:
    """A copy of a picture with objects drawn on it: each tinted, outlined and labelled in a colour of its own.

    Lines and labels grow with the picture. Colours begin anew after the seventh object; the labels do not.

    Args:
        picture: the picture.
        masks: the pixels of each object, None for one that is not on this picture but keeps its colour.
        labels: a short text for each object, such as its number.
    """
    present = [
        (mask, COLOURS_RGB[index % len(COLOURS_RGB)], label)
        for index, (mask, label) in enumerate(zip(masks, labels, strict=True))
        if mask is not None
    ]
    pixels = np.array(picture.convert("RGB"))
    for mask, colour, _ in present:
        _tint(pixels, mask, colour)
    for mask, colour, _ in present:  # after all tints, which would hide the outlines of what lies beneath
        _outline(pixels, mask, colour)
    drawn = Image.fromarray(pixels)
    _write_labels(drawn, present)
    return drawn


def save_overlay(
    path: str | os.PathLike[str],
    media: Any,
    regions: Sequence[Region | VideoRegion | Mapping[int, Region]],
    *,
    labels: Sequence[str] | None = None,
    sampling: FrameSampling | None = None,
    fps: float | None = None,
    times_s: Sequence[float] | None = None,
) -> None:
    """Write a picture, or the sampled frames of a video, with regions drawn on them.

    A frame of a video is shown until the next sampled one, 0.2 seconds at least. A `VideoRegion` is drawn on the
    frames that it names, a `Region` on every one. The file appears whole or not at all; one that is there is replaced.

    Args:
        path: where to; `.png` or `.jpg` for a picture, `.mp4` or `.gif` for a video.
        media: what a message may show: a picture as `load_image` takes it, a `Video`, or a video as `load_video` takes
            it. A folder, a list of pictures and an `(N, H, W, 3)` array are videos; a file is what it holds.
        regions: what to draw, all on this picture or video.
        labels: a short text for each region; by default their numbers, from 1.
        sampling: which frames of a video to draw, those that a region names among them. Of a `Video` all are drawn.
        fps: frames per second of a folder, list or array.
        times_s: instead of `fps`, when each of their frames is shown.

    Raises:
        PixelReferError: the suffix does not fit, labels are missing, or the file cannot be written.
        RegionError: a region does not fit the picture.
        ImageError: the picture cannot be read.
        VideoError: the video cannot be read.
    """
    is_video = is_video_source(media)
    target = require_overlay_path(path, is_video=is_video)
    drawn = [_as_region(region, number, is_video=is_video) for number, region in enumerate(regions)]
    texts = _texts(labels, len(drawn))
    if is_video:
        named = {frame for region in drawn if isinstance(region, VideoRegion) for frame in region.frames}
        frames = () if isinstance(media, Video) else named
        video = load_video(media, sampling=sampling or FrameSampling(), frames=frames, fps=fps, times_s=times_s)
        with written_whole(target) as made:
            write = _write_gif if target.suffix.lower() == ".gif" else write_mp4
            write(made, _drawn_frames(video, drawn, texts), _durations_s(video))
        return
    picture = load_image(media)
    with written_whole(target) as made:
        _drawn(picture, [_on_frame(region, 0) for region in drawn], texts).save(made, quality=95)


def _as_region(region: Any, number: int, *, is_video: bool) -> Region | VideoRegion:
    with placed(region=number):
        if isinstance(region, Mapping):
            region = VideoRegion(region)
        if not isinstance(region, Region | VideoRegion):
            raise RegionError(f"expected a Region, or {{frame index: Region}} on a video, got {shown(region)}.")
        if isinstance(region, VideoRegion) and not is_video:
            raise RegionError("it lies on a frame of a video, but what is drawn is a picture. Give a Region.")
    return region


def _texts(labels: Sequence[str] | None, count: int) -> Sequence[str]:
    if labels is None:
        return [str(number) for number in range(1, count + 1)]
    if len(labels) != count:
        raise PixelReferError(f"save_overlay needs a label for each region, {count}, got {len(labels)}.")
    if wrong := [label for label in labels if not isinstance(label, str)]:
        raise PixelReferError(f"The labels of save_overlay must be texts, got {shown(wrong[0])}.")
    return labels


def require_overlay_path(path: str | os.PathLike[str], *, is_video: bool) -> Path:
    """The path, once it is known that an overlay can be written there: before minutes go into finding what to draw.

    Raises:
        PixelReferError: the suffix is not one for a picture or video, or no file can be written there.
    """
    target = Path(path)
    allowed, kind = (VIDEO_SUFFIXES, "a video") if is_video else (PICTURE_SUFFIXES, "a picture")
    if target.suffix.lower() not in allowed:
        raise PixelReferError(f"An overlay of {kind} is a file of type {' or '.join(allowed)}, got '{target}'.")
    require_writable(target)
    return target


# -- drawing -----------------------------------------------------------------------------------------------


def _tint(pixels: np.ndarray, mask: RegionMask, colour: tuple[int, int, int]) -> None:
    x0, y0, x1, y1 = mask.box_xyxy
    part, inside = pixels[y0:y1, x0:x1], mask.window
    part[inside] = np.round(part[inside] * (1 - _TINT) + np.array(colour) * _TINT)


def _outline(pixels: np.ndarray, mask: RegionMask, colour: tuple[int, int, int]) -> None:
    """A line around the mask, and a thinner dark one around that, which sets it off from what is of its colour."""
    height, width = mask.image_hw
    line_px = max(1, round(min(height, width) / 240))
    dark_px = max(1, line_px // 2)
    margin = line_px + dark_px
    x0, y0, x1, y1 = mask.box_xyxy
    left, top = min(x0, margin), min(y0, margin)
    right, bottom = min(width - x1, margin), min(height - y1, margin)
    inside = np.pad(mask.window, ((top, bottom), (left, right)))
    around = pixels[y0 - top : y1 + bottom, x0 - left : x1 + right]
    line = _grown(inside, line_px)
    around[_grown(line, dark_px) & ~line] = 0
    around[line & ~inside] = colour


def _grown(mask: np.ndarray, steps: int) -> np.ndarray:
    """The mask and what is about so many pixels from it: by rows and columns and by squares in turn, an octagon."""
    for step in range(steps):
        padded = np.pad(mask, 1)
        across = padded[:, :-2] | padded[:, 1:-1] | padded[:, 2:]
        beside = mask | padded[:-2, 1:-1] | padded[2:, 1:-1]
        mask = across[:-2] | across[1:-1] | across[2:] if step % 2 else across[1:-1] | beside
    return mask


def _write_labels(picture: Image.Image, objects: Sequence[tuple[RegionMask, tuple[int, int, int], str]]) -> None:
    """Each label on a plate of its object's colour, where it covers no other label."""
    draw = ImageDraw.Draw(picture)
    size_px = max(11, round(min(picture.size) / 26))
    lettering = Lettering(size_px)
    pad_px = max(1, size_px // 5)
    taken: list[Box] = []
    for mask, colour, label in objects:
        left, top, right, bottom = lettering.box(label)
        width, height = int(right - left) + 2 * pad_px, int(bottom - top) + 2 * pad_px
        plate = _free_place(mask.box_xyxy, (width, height), picture.size, taken)
        taken.append(plate)
        draw.rectangle((plate[0], plate[1], plate[2] - 1, plate[3] - 1), fill=colour, outline="black")
        at = (plate[0] + pad_px - left, plate[1] + pad_px - top)
        lettering.write(draw, at, label, fill="black" if _luminance(colour) > 110 else "white")


def _free_place(box: Box, size_wh: tuple[int, int], picture_wh: tuple[int, int], taken: Sequence[Box]) -> Box:
    """Where a label goes: beside its object if it can, not on another label if it can."""
    (x0, y0, x1, y1), (width, height) = box, size_wh
    corners = [(x0, y0 - height), (x1 - width, y0 - height), (x0, y1), (x1 - width, y1), (x1, y0), (x0 - width, y0)]
    places: list[Box] = []
    for x, y in corners:
        left = max(0, min(x, picture_wh[0] - width))
        top = max(0, min(y, picture_wh[1] - height))
        places.append((left, top, left + width, top + height))
    for obstacles in ([*taken, box], taken):
        for place in places:
            if not any(_overlap(place, other) for other in obstacles):
                return place
    return places[0]


def _overlap(first: Box, second: Box) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def _luminance(colour: tuple[int, int, int]) -> float:
    red, green, blue = colour
    return 0.299 * red + 0.587 * green + 0.114 * blue  # ITU-R BT.601


# -- pictures and frames -----------------------------------------------------------------------------------


def _drawn(picture: Image.Image, regions: Sequence[Region | None], labels: Sequence[str]) -> Image.Image:
    image_hw = (picture.height, picture.width)
    masks = [None if region is None else region.to_mask(image_hw) for region in regions]
    return draw_regions(picture, masks, labels=labels)


def _drawn_frames(
    video: Video, regions: Sequence[Region | VideoRegion], labels: Sequence[str]
) -> Iterator[Image.Image]:
    """The sampled frames, one in memory at a time."""
    for position, index in enumerate(video.frame_indices):
        yield _drawn(video.picture(position), [_on_frame(region, index) for region in regions], labels)


def _on_frame(region: Region | VideoRegion, index: int) -> Region | None:
    return region.frames.get(index) if isinstance(region, VideoRegion) else region


def _durations_s(video: Video) -> list[float]:
    """How long each sampled frame is shown."""
    true_s = [after - before for before, after in pairwise((*video.times_s, video.duration_s))]
    return [max(each, _MIN_FRAME_S) for each in true_s]


# -- files -------------------------------------------------------------------------------------------------


def _write_gif(path: Path, pictures: Iterator[Image.Image], durations_s: Sequence[float]) -> None:
    durations_ms = [min(round(duration_s * 1000), _MAX_GIF_MS) for duration_s in durations_s]
    next(pictures).save(path, save_all=True, append_images=pictures, duration=durations_ms, loop=0)


def write_mp4(
    path: Path, pictures: Iterator[Image.Image], durations_s: Sequence[float], *, bit_rate: int = 8_000_000
) -> None:
    """Write a video with one frame for each picture, which is shown so many seconds."""
    import av

    encoder = next(name for name in _ENCODERS if name in av.codecs_available)
    ticks = np.round(np.cumsum([0.0, *durations_s]) * _TICKS_PER_S).astype(int).tolist()
    ends = dict(pairwise(ticks))
    with av.open(path, "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream: Any = None
        for picture, start in zip(pictures, ends, strict=True):
            frame = av.VideoFrame.from_ndarray(_even(np.asarray(picture)))
            if stream is None:
                stream = _add_stream(container, encoder, frame)
                stream.bit_rate = bit_rate
            frame.pts, frame.time_base = start, stream.codec_context.time_base
            _mux(container, stream, frame, ends)
        _mux(container, stream, None, ends)


def _add_stream(container: Any, encoder: str, frame: Any) -> Any:
    stream = container.add_stream(encoder)
    stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuv420p"
    stream.codec_context.time_base = Fraction(1, _TICKS_PER_S)
    stream.codec_context.max_b_frames = 0  # with them an mp4 tells a frame's duration from another one's
    return stream


def _mux(container: Any, stream: Any, frame: Any, ends: Mapping[int, int]) -> None:
    """Encode a frame, or what is left at the end, and write what is ready."""
    for packet in stream.encode(frame):
        packet.duration = ends[packet.pts] - packet.pts  # encoders guess, and the last frame has no next to end it
        container.mux(packet)


def _even(pixels: np.ndarray) -> np.ndarray:
    """The picture with its last row and column doubled where their number is odd, which video cannot store."""
    height, width, _ = pixels.shape
    return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
