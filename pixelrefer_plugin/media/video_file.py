"""Reads the sampled frames of a video file with PyAV: all times from its packets, each frame by seeking.

It knows containers, packets and frames; which frames are wanted is decided in `video`.
"""

from __future__ import annotations

import logging
import os
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, groupby, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition
from PIL import Image

from ..errors import VideoError
from .images import load_image
from .paths import path_shown, why_missing

logger = logging.getLogger(__name__)

_DECLARED_SLACK_S = 0.5  # a header may round what it declares
_MAX_PIXELS = 2**31 - 1  # FFmpeg's own limit
_MOST_SAMPLED_PIXELS = 2**30  # of all sampled frames together, at 3 bytes each: 128 frames of 4K
_RESTART_S = 1.0  # a step back by more is a clock that starts again, by less a jitter
_REPAIR = "Convert it, for example with: ffmpeg -i INPUT OUTPUT.mp4"


@dataclass(frozen=True, eq=False)
class FoundVideo:
    """A video whose frames have been found but not read.

    Attributes:
        name: what to call it in messages.
        times_s: when each of its frames is shown; the first at 0.
        duration_s: how long it is shown.
        read: `read(indices)`, the pixels of these frames, `(T, H, W, 3)` uint8.
    """

    name: str
    times_s: tuple[float, ...]
    duration_s: float
    read: Callable[[Sequence[int]], np.ndarray]


def end_of(times_s: Sequence[float]) -> float:
    """When a video ends of which only the frames' starts are known."""
    return 2 * times_s[-1] - times_s[-2] if len(times_s) > 1 else 1.0


def stack_frames(pictures: Iterable[np.ndarray], indices: Sequence[int], name: str) -> np.ndarray:
    """Pictures of frames `indices` in one array, filled as they come so that each is in memory once."""
    frames_nhwc = np.empty((len(indices), 0, 0, 3), np.uint8)
    for position, (index, picture) in enumerate(zip(indices, pictures, strict=True)):
        if position == 0:
            _require_memory(len(indices), picture.shape[:2], name)
            frames_nhwc = np.empty((len(indices), *picture.shape), np.uint8)
        height, width = frames_nhwc.shape[1:3]
        if picture.shape[:2] != (height, width):
            raise VideoError(
                f"{name}: frame {index} is {picture.shape[1]}x{picture.shape[0]}, expected {width}x{height} "
                f"as frame {indices[0]}. All frames must be of one size."
            )
        frames_nhwc[position] = picture
        del picture  # not to be held while the next one is made
    return frames_nhwc


def _require_memory(count: int, image_hw: tuple[int, ...], name: str) -> None:
    height, width = image_hw
    if count * height * width > _MOST_SAMPLED_PIXELS:
        raise VideoError(
            f"{name}: {count} frames of {width}x{height} take {count * height * width * 3 / 1e9:.1f} GB. Sample fewer "
            f"frames: FrameSampling(num_frames={max(1, _MOST_SAMPLED_PIXELS // (height * width))}) fits."
        )


class _Packet(NamedTuple):
    """What a packet says of its frame; times in ticks of the stream."""

    pts: int
    dts: int
    duration: int
    is_key: bool  # it can be decoded without those before it
    is_shown: bool  # an edit list may cut out frames that others are decoded from
    is_whole: bool


@dataclass(frozen=True, eq=False)
class _Timeline:
    """When the frames of a file are shown, from its packets.

    Attributes:
        pts: presentation time of each shown frame, ascending, in ticks of the stream.
        tick_s: how long a tick is.
        duration_s: from the first frame until the last one's end.
        keys: packets from which decoding can start, ascending.
        is_by_order: whether `pts` says only when frames are shown, not which is which: several had one time in the
            file, or a time went back. A frame is then known by how many are decoded before it.
    """

    pts: tuple[float, ...]
    tick_s: float
    duration_s: float
    keys: tuple[_Packet, ...] = ()
    is_by_order: bool = False

    def time_s(self, index: int) -> float:
        return (self.pts[index] - self.pts[0]) * self.tick_s

    def key_before(self, index: int) -> _Packet | None:
        """From where to decode a frame; None where that is the beginning."""
        after = bisect_right(self.keys, self.pts[index], key=lambda key: key.pts)
        return self.keys[after - 1] if after > 1 else None


def open_file(path: Path) -> FoundVideo:
    """Find the frames of a video file.

    Raises:
        VideoError: there is no such file, or it is no video, has no frames or no times, or is truncated.
    """
    name = f"Video {path_shown(path)}"
    if not os.path.exists(path):
        raise VideoError(f"{name} does not exist.{why_missing(path)}")
    if not os.path.isfile(path):
        raise VideoError(f"{name} is neither a file nor a folder.")
    with _opened(path, name) as (container, stream):
        timeline = _read_timeline(container, stream, name) or _decoded_timeline(path, name)

    def read(indices: Sequence[int]) -> np.ndarray:
        try:
            return read_by(indices, timeline.key_before)
        except VideoError:  # some streams cannot be decoded from where their index says: then from the beginning
            return read_by(indices, lambda index: None)

    def read_by(indices: Sequence[int], start_of: Callable[[int], _Packet | None]) -> np.ndarray:
        with _opened(path, name) as (container, stream):
            return stack_frames(_decoded(container, stream, timeline, indices, start_of, name), indices, name)

    times_s = tuple(timeline.time_s(index) for index in range(len(timeline.pts)))
    return FoundVideo(name, times_s, timeline.duration_s, read)


@contextmanager
def _opened(path: Path, name: str) -> Iterator[tuple[Any, Any]]:
    """The container and its video stream. `Any`: PyAV's stubs don't tell a video stream from the others."""
    limits = {"protocol_whitelist": "file"}  # playlists don't reach beyond this machine
    try:
        with av.open(f"file:{path}", options=limits, metadata_errors="replace") as container:
            # Pictures and texts (played as ANSI art) open too.
            if container.format.name.endswith("_pipe") or container.format.name in ("image2", "tty"):
                raise VideoError(f"{name} is not a video: its format is {container.format.long_name}.")
            stream = _video_stream(container)
            if stream is None or stream.disposition & Disposition.attached_pic:
                raise VideoError(f"{name} has no video stream.")
            if stream.codec_context is None:
                raise VideoError(f"{name} is encoded with a codec that FFmpeg does not know, or its header is damaged.")
            yield container, stream
    except av.FFmpegError as error:
        raise VideoError(f"{name} cannot be read as a video: {error.strerror}.") from error


def _video_stream(container: Any) -> Any:
    try:
        return container.streams.best("video")
    except IndexError:  # PyAV, for a stream that turns up while the damaged file is searched
        return None


def _read_timeline(container: Any, stream: Any, name: str) -> _Timeline | None:
    """Presentation times of all frames, without decoding any; None where they do not tell the frames apart.

    Raises:
        VideoError: there are no frames, they have no times, or the file ends before its header says.
    """
    num_listed = len(stream.index_entries)  # before reading: all packets where the header lists them, else few
    packets = _packets(container, stream, name)
    shown = sorted(packet for packet in packets if packet.is_shown)
    if not shown:
        raise VideoError(f"{name} has no frames.")
    tick_s = float(stream.time_base)
    last_s = shown[-1].duration * tick_s
    end_s = (shown[-1].pts - shown[0].pts) * tick_s + last_s
    if last_s <= 0:
        end_s = end_of([(each - shown[0].pts) * tick_s for each in sorted({packet.pts for packet in shown})])
    ends_early = shown[0].pts * tick_s + end_s < _declared_end_s(stream) - _DECLARED_SLACK_S
    if len(packets) < num_listed or not packets[-1].is_whole or ends_early:
        raise VideoError(f"{name} is truncated: it ends after {end_s:.3f} s, frame {len(shown) - 1}.")
    if not _is_in_step(packets, reorders=stream.codec_context.has_b_frames):
        return None
    keys = tuple(sorted(packet for packet in packets if packet.is_key))
    if keys and not packets[0].is_key:
        first = keys[0].pts
        before, shown = len(shown), [packet for packet in shown if packet.pts >= first]
        if not shown:
            raise VideoError(f"{name} has no frame that can be decoded: it ends before its first key frame.")
        if len(shown) < before:
            logger.warning(
                "%s begins between key frames: %d frames before the first one cannot be decoded and do not count.",
                name,
                before - len(shown),
            )
    pts = tuple(packet.pts for packet in shown)
    end_s = (pts[-1] - pts[0]) * tick_s + last_s if last_s > 0 else end_of([(each - pts[0]) * tick_s for each in pts])
    return _Timeline(pts, tick_s, end_s, keys)


def _is_in_step(packets: Sequence[_Packet], *, reorders: bool) -> bool:
    """Whether every shown frame has a time of its own, and times follow the order in which frames are decoded."""
    pts = [packet.pts for packet in packets if packet.is_shown]
    ascending = [pts]
    if reorders:  # the frames between two key frames may come in any order, the key frames not
        ascending = [[packet.dts for packet in packets], [packet.pts for packet in packets if packet.is_key]]
    return len(set(pts)) == len(pts) and all(a <= b for times in ascending for a, b in pairwise(times))


def _decoded_timeline(path: Path, name: str) -> _Timeline:
    """The timeline of a file whose times do not tell its frames apart, by decoding all of it.

    Times that start again go on where they stopped; frames of one time share the time until the next one.
    """
    pts = []
    with _opened(path, name) as (container, stream):
        try:
            for frame in _decoded_frames(stream, container.demux(stream)):
                pts.append(frame.pts)
        except av.FFmpegError as error:
            raise VideoError(f"{name}: frame {len(pts)} cannot be decoded: {error.strerror}. {_REPAIR}") from error
    tick_s = float(stream.time_base)
    times = _ascending(pts, restart=_RESTART_S / tick_s)
    if len(times) > 1 and times[-1] <= times[0]:
        raise _without_times(name, container)
    if not times:
        raise VideoError(f"{name} has no frames.")
    end_s = end_of([(each - times[0]) * tick_s for each in times])
    return _Timeline(tuple(times), tick_s, end_s, is_by_order=True)


def _ascending(pts: Sequence[int | None], *, restart: float) -> list[float]:
    """Times in the order of the frames, each greater than the one before as far as any differ.

    Args:
        pts: what the frames say, None where they say nothing.
        restart: a step back of so many ticks is a clock that starts again.
    """
    steps = [b - a for a, b in pairwise(pts) if a is not None and b is not None and b > a]
    step = sorted(steps)[len(steps) // 2] if steps else 0
    known: list[float] = []
    offset: float = 0
    for each in pts:
        last = known[-1] if known else None
        at = last if each is None else each + offset
        if last is not None and at is not None and each is not None and last - at > restart:
            offset += last + step - at
            at = last + step
        known.append(at if last is None or at is None else max(at, last))  # type: ignore[arg-type]
    return _spread_runs([each or 0 for each in known])


def _spread_runs(times: Sequence[float]) -> list[float]:
    """Equal times, spread evenly until the next one; the last ones as far apart as those before them."""
    runs = [(time, len(list(run))) for time, run in groupby(times)]
    spread: list[float] = []
    length = 0.0
    for index, (time, count) in enumerate(runs):
        length = runs[index + 1][0] - time if index + 1 < len(runs) else length
        spread += [time + length * part / count for part in range(count)]
    return spread


def _packets(container: Any, stream: Any, name: str) -> list[_Packet]:
    """All packets, in decoding order."""
    packets = []
    for packet in container.demux(stream):
        if packet.size == 0:  # the end mark, or a frame that an AVI dropped
            continue
        if packet.pts is None:
            raise _without_times(name, container)
        dts = packet.pts if packet.dts is None else packet.dts
        flags = (packet.is_keyframe, not packet.is_discard, not packet.is_corrupt)
        packets.append(_Packet(packet.pts, dts, packet.duration or 0, *flags))
    # AVI stores no presentation times; they are guessed, wrongly where the codec reorders frames unnoticed.
    in_order = all(earlier.pts < later.pts for earlier, later in pairwise(packets))
    if container.format.name == "avi" and stream.codec_context.has_b_frames and in_order:
        raise _without_times(name, container)
    return packets


def _without_times(name: str, container: Any) -> VideoError:
    return VideoError(
        f"{name} has no presentation times: its format, {container.format.long_name}, does not store them. {_REPAIR}"
    )


def _declared_end_s(stream: Any) -> float:
    """When the stream ends by Matroska's statistics tag, `HH:MM:SS.fraction`; 0 where there is none."""
    found = re.fullmatch(r"(\d+):(\d\d):(\d\d\.\d+)", stream.metadata.get("DURATION", ""))
    if found is None:
        return 0.0
    hours, minutes, seconds = map(float, found.groups())
    return 3600 * hours + 60 * minutes + seconds


def _decoded(
    container: Any,
    stream: Any,
    timeline: _Timeline,
    indices: Sequence[int],
    start_of: Callable[[int], _Packet | None],
    name: str,
) -> Iterator[np.ndarray]:
    """The frames at `indices`, ascending, upright. Seeks to where decoding each must start, unless it is on the way."""
    orientation: _Orientation | None = None
    for key, run in groupby(indices, start_of):
        packets = container.demux(stream) if key is None else _packets_from(container, stream, key)
        frames = enumerate(_decoded_frames(stream, packets))
        for index in run:
            frame = _frame_of(frames, timeline, index, name)
            # Asked for once: a frame and its side data hold each other in memory until the garbage collector runs.
            orientation = orientation or _Orientation.of(frame)
            picture = orientation.upright(_rgb(frame))
            del frame  # not to be held while the next one is decoded
            yield picture
            del picture


def _decoded_frames(stream: Any, packets: Iterable[Any]) -> Iterator[Any]:
    codec = stream.codec_context
    if not codec.is_open:
        codec.thread_count = 1  # each thread would hold frames of its own
        codec.options = {"max_pixels": str(Image.MAX_IMAGE_PIXELS or _MAX_PIXELS)}
    return chain.from_iterable(packet.decode() for packet in packets)


def _packets_from(container: Any, stream: Any, key: _Packet) -> Iterator[Any]:
    """The stream's packets from a key frame on, or from one before it."""
    # Some formats seek by decoding time, others by presentation time, and may so land behind the key frame.
    for target in (key.pts, key.dts):
        container.seek(target, stream=stream)
        packets = container.demux(stream)
        first = next(packets)
        if first.pts is not None and first.pts <= key.pts:
            break
    return chain([first], packets)


def _frame_of(frames: Iterator[tuple[int, Any]], timeline: _Timeline, index: int, name: str) -> Any:
    """A frame among those that are decoded, counted from where decoding starts."""
    pts = timeline.pts[index]

    def is_reached(number: int, frame: Any) -> bool:
        return number >= index if timeline.is_by_order else frame.pts is not None and frame.pts >= pts

    try:
        frame = next((frame for number, frame in frames if is_reached(number, frame)), None)
    except av.FFmpegError as error:
        raise _undecodable(name, timeline, index, error.strerror) from error
    if frame is None or not (timeline.is_by_order or frame.pts == pts):
        raise _undecodable(name, timeline, index, "it is missing from the stream")
    if frame.is_corrupt:
        raise _undecodable(name, timeline, index, "its data is damaged")
    return frame


def _undecodable(name: str, timeline: _Timeline, index: int, reason: str | None) -> VideoError:
    return VideoError(
        f"{name}: frame {index}, at {timeline.time_s(index):.3f} s, cannot be decoded: {reason}. {_REPAIR}"
    )


def _rgb(frame: Any) -> np.ndarray:
    """A decoded frame as `(H, W, 3)` uint8, transparency over white as `load_image` has it."""
    if any(component.is_alpha for component in frame.format.components):
        return np.asarray(load_image(Image.fromarray(frame.to_ndarray(format="rgba"))))
    return frame.to_ndarray(format="rgb24")


@dataclass(frozen=True)
class _Orientation:
    """How players turn or mirror a video's frames before they show them."""

    swaps_axes: bool = False
    row_step: int = 1
    column_step: int = 1

    @classmethod
    def of(cls, frame: Any) -> _Orientation:
        """What a frame's display matrix says, quarter turns and reflections.

        The matrix `a b u, c d v, x y w` shows the pixel of column p and row q at column ap + cq + x and row
        bp + dq + y (FFmpeg's `libavutil/display.h`; ISO/IEC 14496-12, track header).
        """
        side_data = frame.side_data.get(SideDataType.DISPLAYMATRIX)
        if side_data is None:
            return cls()
        a, b, _, c, d = np.frombuffer(side_data, np.int32)[:5].tolist()
        swaps_axes = abs(b) > abs(a)
        row, column = (b, c) if swaps_axes else (d, a)
        return cls(swaps_axes, -1 if row < 0 else 1, -1 if column < 0 else 1)

    def upright(self, rgb: np.ndarray) -> np.ndarray:
        """The picture as it is shown; a view."""
        turned = rgb.swapaxes(0, 1) if self.swaps_axes else rgb
        return turned[:: self.row_step, :: self.column_step]
