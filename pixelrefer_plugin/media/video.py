"""Reads the sampled frames of a video: a file, a folder of frames, an array, or a list of pictures.

It knows frames, times and pixels; nothing of models or regions. A video that cannot be read raises `VideoError`.
"""

from __future__ import annotations

import logging
import math
import mimetypes
import os
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import FrameError, ImageError, VideoError, shown
from .formats import num_frames, opened, picture_suffixes
from .images import load_image
from .paths import path_shown
from .video_file import FoundVideo, end_of, open_file, stack_frames

logger = logging.getLogger(__name__)

_DEFAULT_NUM_FRAMES = 16
FOLDER_FPS = 1.0
"""How fast the frames of a folder are taken to follow each other, where nothing says so."""

_LONGEST_NAME = 48  # characters of a video's name in its repr
_LATEST_S = 1e9  # when a part of a video may begin or end
_ROUNDING_S = 1e-6  # k / fps and a frame's own time differ in the last digits of a float


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _check_fps(value: Any, name: str) -> None:
    is_number = isinstance(value, float | np.floating) or _is_integer(value)
    is_number = is_number and not (isinstance(value, int) and value.bit_length() > 1000)  # no float holds it
    if not is_number or not 0 < value < math.inf:
        raise VideoError(f"{name} must be a finite number > 0, got {shown(value)}.")


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
            if value is None and name == "num_frames":
                continue
            if not _is_integer(value) or value < 1:
                raise VideoError(f"FrameSampling.{name} must be an integer >= 1, got {shown(value)}.")
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
        starts_s = np.array([*times_s, end_of(times_s)])
        first_ticks = np.ceil((starts_s - _ROUNDING_S) * min(self.fps, 1 / _ROUNDING_S))
        chosen = np.flatnonzero(np.diff(first_ticks) > 0).tolist()
        return chosen if len(chosen) <= self.max_frames else _spread(len(times_s), self.max_frames)


@dataclass(frozen=True)
class ClipSampling(FrameSampling):
    """Frames of a part of a video, as `FrameSampling` chooses them of a whole one.

    Attributes:
        start_s: when the part begins, in seconds from the first frame; the frame that is on screen then is in it.
        end_s: when it ends; a frame that is first shown then is not in it. None: with the video.

    Raises:
        VideoError: as `FrameSampling`; or the times are no numbers, or the part ends before it begins.
    """

    start_s: float = 0.0
    end_s: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("start_s", "end_s"):
            value = getattr(self, name)
            is_number = isinstance(value, float | np.floating) or _is_integer(value)
            if value is not None and not (is_number and 0 <= value < _LATEST_S):
                raise VideoError(f"A part of a video begins and ends at seconds >= 0, got {shown(value)}.")
        if self.end_s is not None and self.end_s <= self.start_s:
            raise VideoError(f"A part of a video must end after it begins, got {self.start_s:g} to {self.end_s:g} s.")

    def choose(self, times_s: Sequence[float]) -> list[int]:
        """As `FrameSampling.choose`, of the part's frames alone.

        Raises:
            VideoError: the video is over before the part begins.
        """
        first = frame_at(times_s, self.start_s)
        last = len(times_s) if self.end_s is None else bisect_left(times_s, self.end_s - _ROUNDING_S)
        part_s = [each - times_s[first] for each in times_s[first : max(last, first + 1)]]
        return [first + index for index in super().choose(part_s)]


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

    def __repr__(self) -> str:
        height, width = self.image_hw
        name = self.name if len(self.name) <= _LONGEST_NAME else f"...{self.name[-_LONGEST_NAME:]}"
        frames = f"{len(self)} of {self.num_source_frames:,} frames, {width}x{height}"
        return f"Video({frames}, {self.duration_s:.4g} s: {name})"

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
    its packets, exact for variable frame rates too. Where they do not tell its frames apart, since several have one
    time or a time goes back, it is decoded as a whole and its frames are counted as they come. Frames before the first
    key frame cannot be decoded and do not count.

    Args:
        source: path of a video file; path of a folder of pictures, one a frame, whose names differ in their numbers
            only, in natural order (2.jpg before 10.jpg); an `(N, H, W, 3)` uint8 array; a sequence of pictures of one
            size, each of a kind that `load_image` reads; or a `Video`, which is returned as it is.
        sampling: which frames to read.
        frames: indices of frames that must be among those read. Each takes the place of the sampled frame nearest
            to it; more are read only where more are named than sampled.
        fps: frames per second of a folder (1 by default), array or sequence.
        times_s: instead of `fps`, when each of their frames is shown, ascending.

    Raises:
        VideoError: the video is missing, damaged, truncated, has no frames or no times, or has no such frame; a folder
            has pictures that are not frames; the sampled frames do not fit into some 3 GB.
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


def is_video_source(source: Any) -> bool:
    """Whether a source is one of `load_video` and none of `load_image`: a file by what it holds, else by its name.

    Raises:
        VideoError: it is a path, but neither of a file nor of a folder.
    """
    if not isinstance(source, str | os.PathLike):
        several = isinstance(source, Sequence) and not isinstance(source, bytes | Image.Image)
        return isinstance(source, Video) or several or getattr(source, "ndim", 0) == 4
    if os.path.isdir(source):
        return True
    if os.path.exists(source) and not os.path.isfile(source):  # opening a pipe would wait for its other end
        raise VideoError(f"{path_shown(source)} is neither a file nor a folder.")
    try:
        with opened(source) as picture:
            return picture.format == "GIF" and bool(num_frames(picture))
    except OSError:  # missing, or nothing that Pillow knows
        return not (mimetypes.guess_type(str(source))[0] or "").startswith("image/")
    except Exception:  # a picture that is damaged or too large: reading it will tell
        return False


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
    end_s = end_of(times_s)
    if not 0 <= seconds < end_s:
        raise VideoError(
            f"No frame is on screen at {seconds} s: the video has {len(times_s)} frames, from 0 to {end_s:.3f} s."
        )
    return bisect_right(times_s, seconds + _ROUNDING_S) - 1


# -- choosing ----------------------------------------------------------------------------------------------


def _open(source: VideoSource, *, fps: float | None, times_s: Sequence[float] | None) -> FoundVideo:
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if os.path.isdir(path):  # unlike Path's, these take what may not be looked at as absent
            return _open_folder(path, fps, times_s)
        if fps is not None or times_s is not None:
            raise VideoError(f"Video {path_shown(path)} is a file and has its own times. Leave out fps and times_s.")
        return open_file(path)
    if hasattr(source, "__array__"):
        try:
            frames_nhwc = np.asarray(source)
        except Exception as error:  # of whatever was given
            raise VideoError(f"An array of frames must be uint8 of shape (N, H, W, 3), got {shown(source)}.") from error
        return _open_array(frames_nhwc, fps, times_s)
    if isinstance(source, Sequence) and not isinstance(source, bytes):
        return _open_pictures(source, "The list of pictures", fps, times_s)
    raise VideoError(
        "A video must be the path of a file or of a folder of frames, an (N, H, W, 3) array or a sequence of pictures, "
        f"got {type(source).__name__}."
    )


def _checked_frames(frames: Iterable[int]) -> list[int]:
    try:
        named = set(frames)
    except Exception as error:  # of whatever was given
        raise VideoError(f"frames must be integers counted from 0, got {shown(frames)}.") from error
    for index in named:
        if not _is_integer(index) or index < 0:
            raise VideoError(f"frames must be integers counted from 0, got {shown(index)}.")
    return sorted(map(int, named))


def _chosen(source: FoundVideo, sampling: FrameSampling, named: list[int]) -> list[int]:
    """The sampled frames; each named one takes the place of the one nearest to it, so that their number stays."""
    if named and named[-1] >= len(source.times_s):
        raise FrameError(
            f"{source.name} has {len(source.times_s)} frames, counted from 0: there is no frame {shown(named[-1])}.",
            frame=named[-1],
        )
    if len(named) > sampling.max_frames:
        raise VideoError(
            f"{source.name}: {len(named)} frames are named but max_frames is {sampling.max_frames}. "
            "Name fewer (VideoRegion.thinned does it for a region), or raise FrameSampling.max_frames."
        )
    sampled = set(sampling.choose(source.times_s))
    free = sampled - set(named)
    for index in sorted(set(named) - sampled):
        if free:
            free.remove(min(free, key=lambda other: (abs(other - index), other)))
    return sorted([*named, *free])


def _spread(length: int, count: int) -> list[int]:
    """`count` indices below `length`, evenly from the first to the last; all where there are fewer."""
    return [int(index) for index in np.linspace(0, length - 1, min(length, count)).round()]


def _listed(indices: Sequence[int]) -> str:
    shown = [str(index) for index in indices]
    return ", ".join(shown if len(shown) <= 16 else [*shown[:8], "...", *shown[-8:]])


# -- frames that are there as pictures ---------------------------------------------------------------------


def _open_folder(folder: Path, fps: float | None, times_s: Sequence[float] | None) -> FoundVideo:
    name = f"Folder {path_shown(folder)}"
    suffixes = picture_suffixes()
    try:
        files = [path for path in folder.iterdir() if path.suffix.lower() in suffixes and path.name[0] != "."]
        frames = _frames_among([path for path in files if not path.is_dir()], name)
    except OSError as error:
        raise VideoError(f"{name} cannot be read: {error.strerror}.") from error
    if fps is None and times_s is None:
        fps = FOLDER_FPS
        logger.warning("%s says nothing about time: taken as %g frame per second. Give fps or times_s.", name, fps)
    return _open_pictures(frames, name, fps, times_s)


_HOW_TO_SAY = "Keep the frames in a folder of their own, or give a list of their paths."


def _frames_among(files: Sequence[Path], name: str) -> list[Path]:
    """The pictures of a folder that are its frames, in natural order.

    Frames differ in their numbers only. One that has no number among numbered ones, such as a cover, is left out.

    Raises:
        VideoError: several pictures have one number, such as masks beside the frames, or names of several kinds.
    """
    kinds: dict[str, list[Path]] = {}
    for path in sorted(files, key=_natural):
        kinds.setdefault(re.sub(r"\d+", "#", path.stem.casefold()), []).append(path)
    numbered = {kind: paths for kind, paths in kinds.items() if "#" in kind}
    if len(numbered) > 1:
        listed = " and ".join(f"'{paths[0].name}' ({len(paths)} of its kind)" for paths in list(numbered.values())[:3])
        raise VideoError(f"{name} has pictures whose names are numbered in different ways: {listed}. {_HOW_TO_SAY}")
    if not numbered:
        numbered = {"": sorted(files, key=_natural)}
    (frames,) = numbered.values()
    others = [path for kind, paths in kinds.items() if "#" not in kind for path in paths if path not in frames]
    if len(others) >= len(frames) > 0 and others:
        raise VideoError(
            f"{name} has pictures with numbers, such as '{frames[0].name}', and as many without, such as "
            f"'{others[0].name}'. {_HOW_TO_SAY}"
        )
    for earlier, later in pairwise(frames):
        if _number_of(earlier) == _number_of(later):
            raise VideoError(
                f"{name} has two pictures for one frame: '{earlier.name}' and '{later.name}'. {_HOW_TO_SAY}"
            )
    if others:
        listed = ", ".join(f"'{path.name}'" for path in others[:3])
        has, is_ = ("has", "is") if len(others) == 1 else ("have", "are")
        said = f"{listed} {has} no number as the {len(frames)} frames have, and {is_} left out."
        logger.warning("%s: %s", name, said)
    return frames


def _number_of(path: Path) -> list[str | int]:
    return _natural(path.with_suffix(""))[0]


def _natural(path: Path) -> tuple[list[str | int], str]:
    """A sort key that takes numbers in a name as numbers."""
    parts = re.split(r"(\d+)", path.name)
    return [int(part) if index % 2 else part.casefold() for index, part in enumerate(parts)], path.name


def _open_pictures(
    pictures: Sequence[Any], name: str, fps: float | None, times_s: Sequence[float] | None
) -> FoundVideo:
    def rgb(index: int) -> np.ndarray:
        try:
            return np.asarray(load_image(pictures[index]))
        except ImageError as error:
            raise VideoError(f"{name}: frame {index} cannot be read. {error}") from error

    return _timed(len(pictures), name, fps, times_s, lambda indices: stack_frames(map(rgb, indices), indices, name))


def _open_array(frames_nhwc: np.ndarray, fps: float | None, times_s: Sequence[float] | None) -> FoundVideo:
    shape = frames_nhwc.shape
    if frames_nhwc.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or 0 in shape[1:]:
        raise VideoError(f"An array of frames must be uint8 of shape (N, H, W, 3), got {frames_nhwc.dtype} {shape}.")
    return _timed(len(frames_nhwc), "The array of frames", fps, times_s, lambda indices: frames_nhwc[list(indices)])


_MOST_FRAMES = 2**23  # three days at 30 a second


def _timed(
    num_frames: int,
    name: str,
    fps: float | None,
    times_s: Sequence[float] | None,
    read: Callable[[Sequence[int]], np.ndarray],
) -> FoundVideo:
    """A source whose times the user gives."""
    if num_frames == 0:
        raise VideoError(f"{name} has no frames: there are no pictures in it.")
    if num_frames > _MOST_FRAMES:
        raise VideoError(f"{name} has {num_frames:,} frames, at most {_MOST_FRAMES:,} are read. Give a part of them.")
    if (fps is None) == (times_s is None):
        got = "neither" if fps is None else "both"
        raise VideoError(f"{name} says nothing about time: give fps or times_s, got {got}.")
    if fps is not None:
        _check_fps(fps, "fps")
        return FoundVideo(name, tuple(index / fps for index in range(num_frames)), num_frames / fps, read)
    try:
        given_s = np.asarray(times_s)
    except Exception as error:  # of whatever was given
        raise VideoError(f"{name}: times_s must be numbers, got {shown(times_s)}.") from error
    if given_s.shape != (num_frames,):
        raise VideoError(f"{name} has {num_frames} frames, so times_s must be as many, got shape {given_s.shape}.")
    if given_s.dtype.kind not in "iuf" or not np.isfinite(given_s).all() or (np.diff(given_s) <= 0).any():
        raise VideoError(f"{name}: times_s must be finite numbers, each greater than the one before.")
    shown_s = tuple((given_s - given_s[0]).tolist())
    return FoundVideo(name, shown_s, end_of(shown_s), read)
