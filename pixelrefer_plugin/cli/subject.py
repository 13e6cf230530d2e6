"""What `pixelrefer describe`, `segment` and `chat` are about: a picture or video and the regions on it, read, checked.

All of it happens before a model is loaded, which takes minutes. A region source, where one is asked for, and the
overlay belong here too. Torch is imported by region sources only.
"""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import click
from PIL import Image

from ..contracts.messages import MASK_MARKER, REGION_MARKER, asked, marker_kinds, marker_mismatch
from ..errors import RegionError, SourceError, VideoError, counted, placed, shown
from ..media.images import is_on_its_side, load_image
from ..media.video import FOLDER_FPS, FrameSampling, Video, frame_at, frame_times, is_video_source, load_video
from ..overlay import require_overlay_path, save_overlay
from ..plugins import get_region_source, installed
from ..regions.region import Region, VideoRegion
from ..sources import CheckedSource, load_region_source
from ..weights.model_folder import is_model_folder, read_manifest
from .options import GivenRegion, require_none
from .reporting import Failure, quiet_libraries


@dataclass(frozen=True, kw_only=True)
class Request:
    """The options of a command that are about the picture or video; those that it lacks are left out.

    Attributes:
        path: the picture, the video, or the folder of frames.
        given: the regions, in order.
        prompt: what to ask about all of them, or about each where it has one `<region>` and they are more; None to
            have each described.
        model: model folder or id; it may say how frames are sampled.
        track: whether the regions are followed through the video.
        source: name of the region source.
        source_options: its options.
        device: where it runs, where it has such an option.
        frames: how many frames to sample.
        fps: how many frames to sample per second.
        frame_rate: how fast the frames of a folder follow each other.
        overlay: where to draw what is asked about.
        clip: whether regions are cut off at the border of the picture.
        named_frames: frames of a video that are sampled too.
    """

    path: Path
    given: Sequence[GivenRegion]
    prompt: str | None
    model: str
    track: bool = False
    source: str | None = None
    source_options: Mapping[str, Any] = field(default_factory=dict)
    device: str = "auto"
    frames: int | None
    fps: float | None
    frame_rate: float | None
    overlay: Path | None = None
    clip: bool = False
    named_frames: Sequence[int] = ()

    def __post_init__(self) -> None:
        problems = []
        if not self.given and self.prompt is None:
            problems.append("Give a region (--box, --mask, --polygon, ...), or a --prompt.")
        elif not self.given:
            needy = {"--track": self.track, "--source": self.source, "--save-overlay": self.overlay}
            problems += [f"{name} needs a region: give --box, --points, --mask, ..." for name in _given(needy)]
        if self.source_options and not (self.track or self.source):
            problems.append("--source-option needs --source or --track.")
        if self.frames and self.fps:
            problems.append("--fps and --frames exclude each other.")
        if self.prompt is not None and (wrong := self._wrong_markers(self.prompt)):
            problems.append(wrong)
        require_none(problems)

    def _wrong_markers(self, prompt: str) -> str:
        if MASK_MARKER in prompt:
            return (
                f"The prompt holds {MASK_MARKER}, which stands for a mask in an answer. Write {REGION_MARKER} for a "
                "region."
            )
        if self.is_about_each:
            return ""
        return marker_mismatch(marker_kinds([asked(prompt)]), len(self.given), where="The prompt has")

    @property
    def is_about_each(self) -> bool:
        """Whether each region is asked about in a conversation of its own."""
        if self.prompt is None:
            return True
        return len(self.given) > 1 and len(marker_kinds([asked(self.prompt)])) == 1

    @cached_property
    def is_video(self) -> bool:
        _require_there(self.path)
        return is_video_source(self.path)

    def require_fitting_media(self) -> None:
        """Refuse options that are for another kind of media, and an overlay that cannot be written."""
        problems = []
        if not self.is_video:
            shapes = [shape for each in self.given for shape in each.shapes]
            for_videos = {
                "--at": any(each.at for each in shapes),
                "--same": any(each.others for each in self.given),
                "A folder of masks": any(each.is_folder for each in shapes),
                "--track": self.track,
                "--frames": self.frames,
                "--fps": self.fps,
                "--frame-rate": self.frame_rate,
            }
            problems += [f"{name} is for videos, but '{self.path}' is a picture." for name in _given(for_videos)]
        elif self.frame_rate and not self.path.is_dir():
            problems.append(f"--frame-rate is for folders of frames; '{self.path}' tells its own times.")
        require_none(problems)
        if self.overlay is not None:
            require_overlay_path(self.overlay, is_video=self.is_video)
            read = [
                self.path,
                *(Path(shape.text) for each in self.given for shape in each.shapes if shape.kind == "mask"),
            ]
            if self.overlay.resolve() in [each.resolve() for each in read]:
                raise click.UsageError(f"--save-overlay would replace '{self.overlay}', which is read. Rename it.")

    def sampling(self) -> FrameSampling:
        """As the options say, else as the model was trained, else the default."""
        if self.frames is None and self.fps is None and is_model_folder(self.model):
            return read_manifest(self.model).frame_sampling
        most = max(self.frames or 0, FrameSampling.max_frames)
        return FrameSampling(num_frames=self.frames, fps=self.fps, max_frames=most)


def _given(options: Mapping[str, Any]) -> list[str]:
    return [name for name, value in options.items() if value]


def _require_there(path: Path) -> None:
    """Refuse what is missing, and not called like a picture or a video, of which who reads it tells."""
    kind = (mimetypes.guess_type(path)[0] or "").partition("/")[0]
    if kind not in ("image", "video") and not path.exists():
        raise VideoError(f"'{path}' does not exist. Expected a picture, a video, or a folder of its frames.")


@dataclass(frozen=True, eq=False)
class Subject:
    """A picture or a video, and the regions on it.

    Attributes:
        media: the picture, or the sampled frames.
        regions: one for each region option, in order.
        times_s: when each frame of the video is shown, sampled or not; empty of a picture.
    """

    media: Image.Image | Video
    regions: Sequence[Region | VideoRegion]
    times_s: Sequence[float] = ()

    @property
    def kind(self) -> str:
        """`image` or `video`."""
        return "video" if isinstance(self.media, Video) else "image"

    @property
    def frames(self) -> tuple[int, ...]:
        """The sampled frames of a video; none of a picture."""
        return self.media.frame_indices if isinstance(self.media, Video) else ()

    @property
    def part(self) -> dict[str, Any]:
        """It as a part of a chat message."""
        return {"type": self.kind, self.kind: self.media}

    @property
    def frames_of_regions(self) -> list[list[int]]:
        """The frames that each region of a video lies on."""
        return [list(region.frames) for region in self.regions if isinstance(region, VideoRegion)]


def prepare(request: Request) -> Subject:
    """Read what is asked about, find the masks where a region source shall, and draw the overlay.

    Raises:
        PixelReferError: something does not fit; the message names the option.
    """
    request.require_fitting_media()
    subject = _read_video(request) if request.is_video else _read_picture(request)
    if request.track or request.source:
        quiet_libraries()
        subject = replace(subject, regions=_found(subject, request, _load_source(request)))
    if request.overlay is not None:
        save_overlay(request.overlay, subject.media, subject.regions)
    return subject


def _read_picture(request: Request) -> Subject:
    picture = load_image(request.path)
    given = _fitted(request, (picture.height, picture.width))
    return Subject(picture, [each.region for each in given])


def _read_video(request: Request) -> Subject:
    if request.path.is_dir() and request.frame_rate is None:
        click.echo(
            f"Warning: folder '{request.path}' says nothing about time: taken as {FOLDER_FPS:g} frame per second. "
            "Give --frame-rate.",
            err=True,
        )
    times_s = frame_times(request.path, fps=_frame_rate(request))
    for shape in (shape for each in request.given for shape in each.shapes if isinstance(shape.region, VideoRegion)):
        _require_clear_numbers(shape, request.path)
    named = [frame for each in request.given for frame in _over_time(each, times_s).frames]
    there = [frame for frame in request.named_frames if frame < len(times_s)]  # of others, who reads them tells
    video = read_frames(request, [*named, *there])
    given = _fitted(request, video.image_hw)
    return Subject(video, [_over_time(each, times_s) for each in given], times_s)


def _require_clear_numbers(masks: GivenRegion, path: Path) -> None:
    """Refuse masks whose numbers may be names of a folder's frames as well as their indices, where these differ."""
    assert isinstance(masks.region, VideoRegion), "a folder of masks"
    found = [re.search(r"(\d{1,9})$", each.stem) for each in path.iterdir()] if path.is_dir() else []
    numbers = sorted(int(each[1]) for each in found if each)
    named = {*masks.region.frames, *masks.region.absent}
    if numbers != list(range(len(numbers))) and named <= set(numbers):
        raise click.UsageError(
            f"{masks.option}: the frames of '{path}' are called {numbers[0]} to {numbers[-1]}, so {min(named):05d}.png "
            "may mean the frame of that name, or that index from 0. Rename the frames, counted from 0; or give each "
            "mask by itself: --mask FILE.png --at INDEX --same --mask ..."
        )


def _over_time(given: GivenRegion, times_s: Sequence[float]) -> VideoRegion:
    """One object, on each frame that it is given on."""
    frames: dict[int, Region] = {}
    absent: list[int] = []
    for each in given.shapes:
        here = each.region.frames if isinstance(each.region, VideoRegion) else {_frame_of(each, times_s): each.region}
        absent += each.region.absent if isinstance(each.region, VideoRegion) else ()
        for frame, region in here.items():
            if frame in frames:
                raise click.UsageError(f"{given.option}: frame {frame} is named twice. Name another frame.")
            frames[frame] = region
    with placed(subject=given.option):
        if max((*frames, *absent)) >= len(times_s):
            raise _no_frame(max((*frames, *absent)), times_s)
        return VideoRegion(frames, absent=tuple(absent))


def read_frames(request: Request, frames: Sequence[int]) -> Video:
    """The video, sampled as the options say, with these frames among those sampled."""
    sampling, num_named = request.sampling(), len(set(frames))
    if num_named > sampling.max_frames:
        raise VideoError(
            f"{num_named} frames of '{request.path}' are named, but {sampling.max_frames} are sampled at most. Give "
            f"--frames {num_named}."
        )
    return load_video(request.path, sampling=sampling, frames=frames, fps=_frame_rate(request))


def _frame_rate(request: Request) -> float | None:
    """Of a folder; None for a file, which knows its times."""
    return request.frame_rate or FOLDER_FPS if request.path.is_dir() else None


def _frame_of(given: GivenRegion, times_s: Sequence[float]) -> int:
    if given.at is None:
        return 0
    with placed(subject=given.option):
        if given.at.index is None:
            return frame_at(times_s, given.at.time_s)
        if not 0 <= given.at.index < len(times_s):
            raise _no_frame(given.at.index, times_s)
        return given.at.index


def _no_frame(frame: int, times_s: Sequence[float]) -> VideoError:
    frames = counted(len(times_s), "frame")
    return VideoError(f"the video has {frames}, counted from 0: there is no frame {shown(frame)}.")


def _fitted(request: Request, image_hw: tuple[int, int]) -> list[GivenRegion]:
    """The regions, cut off where that is asked for. Those that do not fit are refused, all of them at once."""
    problems: list[RegionError] = []
    fitted = []
    for number, each in enumerate(request.given):
        shapes = []
        for shape in each.shapes:
            try:
                with placed(region=number, subject=shape.option):
                    region = shape.region.clipped(image_hw) if request.clip else shape.region
                    region.require_on(image_hw)
                    shapes.append(replace(shape, region=region))
            except RegionError as error:
                error.message += fitting_hint(shape.region, request, image_hw)
                problems.append(error)
        if len(shapes) == len(each.shapes):
            fitted.append(replace(shapes[0], others=tuple(shapes[1:])))
    if problems:
        raise Failure(*problems) from problems[0]
    return fitted


def fitting_hint(region: Region | VideoRegion, request: Request, image_hw: tuple[int, int]) -> str:
    """What to do, for the message, where a region does not fit a picture or video of `image_hw`."""
    height, width = image_hw
    if not request.is_video and is_on_its_side(request.path) and _fits(region.require_on, (width, height)):
        return (
            " It would fit the picture before it is turned: its EXIF data say how it is to be held, and so it is "
            f"{width} wide and {height} high. Give regions of the upright picture."
        )
    if not request.clip and _fits(region.clipped, image_hw):
        return " --clip cuts off what lies outside."
    return ""


def _fits(check: Callable[[tuple[int, int]], Any], image_hw: tuple[int, int]) -> bool:
    try:
        check(image_hw)
    except RegionError:
        return False
    return True


# -- regions from a source ---------------------------------------------------------------------------------


def _load_source(request: Request) -> CheckedSource:
    name = request.source or _only_source()
    options = dict(request.source_options)
    if "device" in {item.name for item in fields(get_region_source(name).config)}:
        options.setdefault("device", request.device)
    return load_region_source(name, **options)


def _only_source() -> str:
    """The region source, where one is installed and no other."""
    names = installed("region source")
    if len(names) != 1:
        there = f"Installed: {', '.join(names)}." if names else "None is installed."
        raise click.UsageError(f"--track needs to know the region source: write --source NAME. {there}")
    return names[0]


def _found(subject: Subject, request: Request, source: CheckedSource) -> Sequence[Region | VideoRegion]:
    """What the source makes of the regions."""
    prompts: list[Any] = list(subject.regions)
    if not isinstance(subject.media, Video):
        return _segmented(subject.media, prompts, request.given, source)
    if not request.track:
        return _segmented_frames(subject.media, prompts, request.given, source)
    with _listing(request.given):
        return source.track(subject.media, prompts)


def _segmented(
    picture: Image.Image, prompts: Sequence[Any], given: Sequence[GivenRegion], source: CheckedSource
) -> list[Region]:
    with _listing(given):
        return source.segment(picture, prompts)


def _segmented_frames(
    video: Video, prompts: Sequence[VideoRegion], given: Sequence[GivenRegion], source: CheckedSource
) -> list[VideoRegion]:
    """Each object on its frames; objects on the same frame are found together, so that it is encoded once."""
    found: list[dict[int, Region]] = [{} for _ in prompts]
    for frame in sorted({frame for prompt in prompts for frame in prompt.frames}):
        numbers = [number for number, prompt in enumerate(prompts) if frame in prompt.frames]
        here = [prompts[number].frames[frame] for number in numbers]
        regions = _segmented(video.picture(video.position(frame)), here, [given[each] for each in numbers], source)
        for number, region in zip(numbers, regions, strict=True):
            found[number][frame] = region
    return [VideoRegion(frames, absent=prompt.absent) for frames, prompt in zip(found, prompts, strict=True)]


@contextmanager
def _listing(given: Sequence[GivenRegion]) -> Iterator[None]:
    """Says behind a source's error, which counts objects, which options they are."""
    try:
        yield
    except SourceError as error:
        options = ", ".join(f"{number}: {each.option}" for number, each in enumerate(given))
        error.message += f" (Objects: {options}.)"
        raise
