"""Reads the sampled frames of a video: a file, a folder of frames, an array, or a list of pictures.

It knows frames, times and pixels; nothing of models or regions. A video that cannot be read raises `VideoError`.
"""

from __future__ import annotations

import logging
import math
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

from .errors import FrameError, ImageError, VideoError
from .images import load_image

logger = logging.getLogger(__name__)

_DEFAULT_NUM_FRAMES = 16
_FOLDER_FPS = 1.0
_ROUNDING_S = 1e-6  # k / fps and a frame's own time differ in the last digits of a float
_DECLARED_SLACK_S = 0.5  # a header may round what it declares
_MAX_PIXELS = 2**31 - 1  # FFmpeg's own limit


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _check_fps(value: Any, name: str) -> None:
    is_number = isinstance(value, float | np.floating) or _is_integer(value)
    if not is_number or not 0 < value < math.inf:
        raise VideoError(f"{name} must be a finite number > 0, got {value!r}.")


@dataclass(frozen=True)
class FrameSampling:
    """Which frames of a video are read: a number of them spread evenly, or so many per second.

    Attributes:
        num_frames: frames spread evenly from the first to the last; all where the video has fewer. 16 when
            neither this nor `fps` is given.
        fps: instead, the frames on screen at 0, 1/fps, 2/fps, ... seconds.
        max_frames: an upper bound in both cases; where `fps` asks for more, so many are spread evenly instead.

    Raises:
        VideoError: both are given, or a value is no number of that kind.
    """

    num_frames: int | None = None
    fps: float | None = None
    max_frames: int = 128

    def __post_init__(self) -> None:
        if self.num_frames is None and self.fps is None:
            object.__setattr__(self, "num_frames", _DEFAULT_NUM_FRAMES)
        elif self.num_frames is not None and self.fps is not None:
            raise VideoError(
                f"FrameSampling takes num_frames or fps, got both ({self.num_frames} and {self.fps}). Leave one out."
            )
        for name in ("num_frames", "max_frames"):
            value = getattr(self, name)
            if value is None:
                continue
            if not _is_integer(value) or value < 1:
                raise VideoError(f"FrameSampling.{name} must be an integer >= 1, got {value!r}.")
            object.__setattr__(self, name, int(value))  # NumPy's numbers cannot be saved with a model
        if self.fps is not None:
            _check_fps(self.fps, "FrameSampling.fps")
            object.__setattr__(self, "fps", float(self.fps))

    def choose(self, times_s: Sequence[float]) -> list[int]:
        """Indices of the sampled frames, ascending.

        Args:
            times_s: when each frame of the video is shown, ascending, the first at 0.
        """
        if self.fps is None:
            return _spread(len(times_s), min(self.num_frames or _DEFAULT_NUM_FRAMES, self.max_frames))
        # Frame i is on screen at tick k if it starts at or before it and the next one starts after it.
        starts_s = np.array([*times_s, _end_s(times_s)])
        first_ticks = np.ceil((starts_s - _ROUNDING_S) * self.fps)
        chosen = np.flatnonzero(np.diff(first_ticks) > 0).tolist()
        return chosen if len(chosen) <= self.max_frames else _spread(len(times_s), self.max_frames)


@dataclass(frozen=True, eq=False)
class Video:
    """The sampled frames of a video.

    Attributes:
        frames_nhwc: `(T, H, W, 3)` uint8, upright RGB. Not to be written to.
        frame_indices: ascending; the index of each among all frames of the source.
        times_s: when each is shown, in seconds from the first frame of the source.
        num_source_frames: how many frames the source has.
        duration_s: how long the source is shown.
        name: what to call it at the start of a message, such as `Video 'clip.mp4'`.
    """

    frames_nhwc: np.ndarray
    frame_indices: tuple[int, ...]
    times_s: tuple[float, ...]
    num_source_frames: int
    duration_s: float
    name: str

    def __len__(self) -> int:
        return len(self.frame_indices)

    @property
    def image_hw(self) -> tuple[int, int]:
        """Height and width of every frame, in pixels."""
        _, height, width, _ = self.frames_nhwc.shape
        return height, width

    @property
    def fps(self) -> float:
        """Frames per second of the source, on average."""
        return self.num_source_frames / self.duration_s

    def position(self, frame_index: int) -> int:
        """Where a frame of the source is among the sampled ones.

        Raises:
            VideoError: it is not among them.
        """
        if frame_index not in self.frame_indices:
            raise FrameError(
                f"{self.name}: frame {frame_index} is not among the sampled frames "
                f"{_listed(self.frame_indices)}. Name it in load_video(..., frames=...).",
                frame=frame_index,
            )
        return self.frame_indices.index(frame_index)

    def picture(self, position: int) -> Image.Image:
        """The sampled frame at `position`, made anew each time."""
        return Image.fromarray(self.frames_nhwc[position])


VideoSource = str | os.PathLike[str] | np.ndarray | Sequence[Any] | Video


def load_video(
    source: VideoSource,
    *,
    sampling: FrameSampling = FrameSampling(),
    frames: Iterable[int] = (),
    fps: float | None = None,
    times_s: Sequence[float] | None = None,
) -> Video:
    """Read the sampled frames of a video, upright.

    A file is sought through, not decoded as a whole: memory is that of the sampled frames. Its times are those of
    its packets, exact for variable frame rates too.

    Args:
        source: path of a video file; path of a folder of pictures, one a frame, in natural order (2.jpg before
            10.jpg); an `(N, H, W, 3)` uint8 array; a sequence of pictures of one size, each of a kind that
            `load_image` reads; or a `Video`, which is returned as it is.
        sampling: which frames to read.
        frames: indices of frames that must be among those read. Each takes the place of the sampled frame nearest
            to it; more are read only where more are named than sampled.
        fps: frames per second of a folder (1 by default), array or sequence.
        times_s: instead of `fps`, when each of their frames is shown, ascending.

    Raises:
        VideoError: the video is missing, damaged, truncated, has no frames or no times, or has no such frame.
    """
    named = _checked_frames(frames)
    if isinstance(source, Video):
        for index in named:
            source.position(index)
        return source
    opened = _open(source, fps=fps, times_s=times_s)
    indices = _chosen(opened, sampling, named)
    return Video(
        frames_nhwc=opened.read(indices),
        frame_indices=tuple(indices),
        times_s=tuple(opened.times_s[index] for index in indices),
        num_source_frames=len(opened.times_s),
        duration_s=opened.duration_s,
        name=opened.name,
    )


def frame_times(
    source: VideoSource, *, fps: float | None = None, times_s: Sequence[float] | None = None
) -> tuple[float, ...]:
    """When each frame of a video is shown, in seconds from the first one. Decodes none.

    Args:
        source: as for `load_video`, but not a `Video`, which knows its sampled frames only.
        fps: as for `load_video`.
        times_s: as for `load_video`.

    Raises:
        VideoError: as `load_video`.
    """
    return _open(source, fps=fps, times_s=times_s).times_s


def frame_at(times_s: Sequence[float], seconds: float) -> int:
    """Index of the frame on screen at a time.

    Args:
        times_s: when each frame is shown, ascending, the first at 0. The last one is taken to stay as long as the
            one before it, or a second where it is the only one.
        seconds: the time, from the first frame.

    Raises:
        VideoError: the video has not begun or is over then.
    """
    end_s = _end_s(times_s)
    if not 0 <= seconds < end_s:
        raise VideoError(
            f"No frame is on screen at {seconds} s: the video has {len(times_s)} frames, from 0 to {end_s:.3f} s."
        )
    return bisect_right(times_s, seconds + _ROUNDING_S) - 1


# -- choosing ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Source:
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


def _open(source: VideoSource, *, fps: float | None, times_s: Sequence[float] | None) -> _Source:
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if os.path.isdir(path):  # unlike Path's, these take what may not be looked at as absent
            return _open_folder(path, fps, times_s)
        if fps is not None or times_s is not None:
            raise VideoError(f"Video '{path}' is a file and has its own times. Leave out fps and times_s.")
        return _open_file(path)
    if hasattr(source, "__array__"):
        return _open_array(np.asarray(source), fps, times_s)
    if isinstance(source, Sequence) and not isinstance(source, bytes):
        return _open_pictures(source, "The list of pictures", fps, times_s)
    raise VideoError(
        "A video must be the path of a file or of a folder of frames, an (N, H, W, 3) array or a sequence of pictures, "
        f"got {type(source).__name__}."
    )


def _checked_frames(frames: Iterable[int]) -> list[int]:
    named = set(frames)
    for index in named:
        if not _is_integer(index) or index < 0:
            raise VideoError(f"frames must be integers counted from 0, got {index!r}.")
    return sorted(map(int, named))


def _chosen(source: _Source, sampling: FrameSampling, named: list[int]) -> list[int]:
    """The sampled frames; each named one takes the place of the one nearest to it, so that their number stays."""
    if named and named[-1] >= len(source.times_s):
        raise FrameError(
            f"{source.name} has {len(source.times_s)} frames, counted from 0: there is no frame {named[-1]}.",
            frame=named[-1],
        )
    if len(named) > sampling.max_frames:
        step = math.ceil(len(named) / sampling.max_frames)
        raise VideoError(
            f"{source.name}: {len(named)} frames are named but max_frames is {sampling.max_frames}. "
            f"Name every {step}. of them only, or raise FrameSampling.max_frames."
        )
    sampled = set(sampling.choose(source.times_s))
    free = sampled - set(named)
    for index in set(named) - sampled:
        if free:
            free.remove(min(free, key=lambda other: (abs(other - index), other)))
    return sorted([*named, *free])


def _spread(length: int, count: int) -> list[int]:
    """`count` indices below `length`, evenly from the first to the last; all where there are fewer."""
    return [int(index) for index in np.linspace(0, length - 1, min(length, count)).round()]


def _end_s(times_s: Sequence[float]) -> float:
    """When a video ends of which only the frames' starts are known."""
    return 2 * times_s[-1] - times_s[-2] if len(times_s) > 1 else 1.0


def _listed(indices: Sequence[int]) -> str:
    shown = [str(index) for index in indices]
    return ", ".join(shown if len(shown) <= 16 else [*shown[:8], "...", *shown[-8:]])


# -- frames that are there as pictures ---------------------------------------------------------------------


def _open_folder(folder: Path, fps: float | None, times_s: Sequence[float] | None) -> _Source:
    name = f"Folder '{folder}'"
    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    try:
        files = [path for path in folder.iterdir() if path.suffix.lower() in suffixes and path.name[0] != "."]
    except OSError as error:
        raise VideoError(f"{name} cannot be read: {error.strerror}.") from error
    if fps is None and times_s is None:
        fps = _FOLDER_FPS
        logger.warning("%s says nothing about time: taken as %g frame per second. Give fps or times_s.", name, fps)
    return _open_pictures(sorted(files, key=_natural), name, fps, times_s)


def _natural(path: Path) -> tuple[list[str | int], str]:
    """A sort key that takes numbers in a name as numbers."""
    parts = re.split(r"(\d+)", path.name)
    return [int(part) if index % 2 else part.casefold() for index, part in enumerate(parts)], path.name


def _open_pictures(pictures: Sequence[Any], name: str, fps: float | None, times_s: Sequence[float] | None) -> _Source:
    def rgb(index: int) -> np.ndarray:
        try:
            return np.asarray(load_image(pictures[index]))
        except ImageError as error:
            raise VideoError(f"{name}: frame {index} cannot be read. {error}") from error

    return _timed(len(pictures), name, fps, times_s, lambda indices: _stack(map(rgb, indices), indices, name))


def _open_array(frames_nhwc: np.ndarray, fps: float | None, times_s: Sequence[float] | None) -> _Source:
    shape = frames_nhwc.shape
    if frames_nhwc.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or 0 in shape[1:]:
        raise VideoError(f"An array of frames must be uint8 of shape (N, H, W, 3), got {frames_nhwc.dtype} {shape}.")
    return _timed(len(frames_nhwc), "The array of frames", fps, times_s, lambda indices: frames_nhwc[list(indices)])


def _timed(
    num_frames: int,
    name: str,
    fps: float | None,
    times_s: Sequence[float] | None,
    read: Callable[[Sequence[int]], np.ndarray],
) -> _Source:
    """A source whose times the user gives."""
    if num_frames == 0:
        raise VideoError(f"{name} has no frames: there are no pictures in it.")
    if (fps is None) == (times_s is None):
        got = "neither" if fps is None else "both"
        raise VideoError(f"{name} says nothing about time: give fps or times_s, got {got}.")
    if fps is not None:
        _check_fps(fps, "fps")
        return _Source(name, tuple(index / fps for index in range(num_frames)), num_frames / fps, read)
    given_s = np.asarray(times_s)
    if given_s.shape != (num_frames,):
        raise VideoError(f"{name} has {num_frames} frames, so times_s must be as many, got shape {given_s.shape}.")
    if given_s.dtype.kind not in "iuf" or not np.isfinite(given_s).all() or (np.diff(given_s) <= 0).any():
        raise VideoError(f"{name}: times_s must be finite numbers, each greater than the one before.")
    shown_s = tuple((given_s - given_s[0]).tolist())
    return _Source(name, shown_s, _end_s(shown_s), read)


def _stack(pictures: Iterable[np.ndarray], indices: Sequence[int], name: str) -> np.ndarray:
    """Pictures of frames `indices` in one array, filled as they come so that each is in memory once."""
    frames_nhwc = np.empty((len(indices), 0, 0, 3), np.uint8)
    for position, (index, picture) in enumerate(zip(indices, pictures, strict=True)):
        if position == 0:
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


# -- files -------------------------------------------------------------------------------------------------


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
    """

    pts: tuple[int, ...]
    tick_s: float
    duration_s: float
    keys: tuple[_Packet, ...]

    def time_s(self, index: int) -> float:
        return (self.pts[index] - self.pts[0]) * self.tick_s

    def key_before(self, index: int) -> _Packet | None:
        """From where to decode a frame; None where that is the beginning."""
        after = bisect_right(self.keys, self.pts[index], key=lambda key: key.pts)
        return self.keys[after - 1] if after > 1 else None


def _open_file(path: Path) -> _Source:
    name = f"Video '{path}'"
    if not os.path.exists(path):
        raise VideoError(f"{name} does not exist.")
    if not os.path.isfile(path):
        raise VideoError(f"{name} is neither a file nor a folder.")
    with _opened(path, name) as (container, stream):
        timeline = _read_timeline(container, stream, name)

    def read(indices: Sequence[int]) -> np.ndarray:
        try:
            return read_by(indices, timeline.key_before)
        except VideoError:  # some streams cannot be decoded from where their index says: then from the beginning
            return read_by(indices, lambda index: None)

    def read_by(indices: Sequence[int], start_of: Callable[[int], _Packet | None]) -> np.ndarray:
        with _opened(path, name) as (container, stream):
            return _stack(_decoded(container, stream, timeline, indices, start_of, name), indices, name)

    times_s = tuple(timeline.time_s(index) for index in range(len(timeline.pts)))
    return _Source(name, times_s, timeline.duration_s, read)


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


def _read_timeline(container: Any, stream: Any, name: str) -> _Timeline:
    """Presentation times of all frames, without decoding any.

    Raises:
        VideoError: there are no frames, they have no times, or the file ends before its header says.
    """
    num_listed = len(stream.index_entries)  # before reading: all packets where the header lists them, else few
    packets = _packets(container, stream, name)
    shown = sorted(packet for packet in packets if packet.is_shown)
    if not shown:
        raise VideoError(f"{name} has no frames.")
    tick_s = float(stream.time_base)
    pts = tuple(dict.fromkeys(packet.pts for packet in shown))
    last_s = shown[-1].duration * tick_s
    times_s = [(each - pts[0]) * tick_s for each in pts]
    duration_s = times_s[-1] + last_s if last_s > 0 else _end_s(times_s)
    ends_early = pts[0] * tick_s + duration_s < _declared_end_s(stream) - _DECLARED_SLACK_S
    if len(packets) < num_listed or not packets[-1].is_whole or ends_early:
        raise VideoError(f"{name} is truncated: it ends after {duration_s:.3f} s, frame {len(pts) - 1}.")
    return _Timeline(pts, tick_s, duration_s, tuple(sorted(packet for packet in packets if packet.is_key)))


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
        f"{name} has no presentation times: its format, {container.format.long_name}, does not store them. "
        "Convert it, for example with: ffmpeg -i INPUT OUTPUT.mp4"
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
    codec = stream.codec_context
    codec.thread_count = 1  # each thread would hold frames of its own
    codec.options = {"max_pixels": str(Image.MAX_IMAGE_PIXELS or _MAX_PIXELS)}
    turn: _Turn | None = None
    for key, run in groupby(indices, start_of):
        packets = container.demux(stream) if key is None else _packets_from(container, stream, key)
        frames = chain.from_iterable(packet.decode() for packet in packets)
        for index in run:
            frame = _frame_of(frames, timeline, index, name)
            # Asked for once: a frame and its side data hold each other in memory until the garbage collector runs.
            turn = turn or _Turn.of(frame)
            picture = turn.upright(_rgb(frame))
            del frame  # not to be held while the next one is decoded
            yield picture
            del picture


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


def _frame_of(frames: Iterator[Any], timeline: _Timeline, index: int, name: str) -> Any:
    pts = timeline.pts[index]
    try:
        frame = next((frame for frame in frames if frame.pts is not None and frame.pts >= pts), None)
    except av.FFmpegError as error:
        raise _undecodable(name, timeline, index, error.strerror) from error
    if frame is None or frame.pts != pts:
        raise _undecodable(name, timeline, index, "it is missing from the stream")
    if frame.is_corrupt:
        raise _undecodable(name, timeline, index, "its data is damaged")
    return frame


def _undecodable(name: str, timeline: _Timeline, index: int, reason: str | None) -> VideoError:
    return VideoError(f"{name}: frame {index}, at {timeline.time_s(index):.3f} s, cannot be decoded: {reason}.")


def _rgb(frame: Any) -> np.ndarray:
    """A decoded frame as `(H, W, 3)` uint8, transparency over white as `load_image` has it."""
    if any(component.is_alpha for component in frame.format.components):
        return np.asarray(load_image(Image.fromarray(frame.to_ndarray(format="rgba"))))
    return frame.to_ndarray(format="rgb24")


@dataclass(frozen=True)
class _Turn:
    """How players turn or mirror a video's frames before they show them."""

    swaps_axes: bool = False
    row_step: int = 1
    column_step: int = 1

    @classmethod
    def of(cls, frame: Any) -> _Turn:
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
