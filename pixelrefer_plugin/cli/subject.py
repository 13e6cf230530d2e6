"""What `pixelrefer describe`, `segment` and `chat` are about: a picture or video and the regions on it, read, checked.

All of it happens before a model is loaded, which takes minutes. A region source, where one is asked for, and the
overlay belong here too. Torch is imported by region sources only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import click
from PIL import Image

from ..contracts.messages import MASK_MARKER, REGION_MARKER, asked, marker_kinds, marker_mismatch
from ..errors import PromptError, SourceError, VideoError, placed
from ..media.images import load_image
from ..media.video import FOLDER_FPS, FrameSampling, Video, frame_at, frame_times, is_video_source, load_video
from ..overlay import require_overlay_path, save_overlay
from ..plugins import get_region_source, installed
from ..regions.region import Region, VideoRegion
from ..sources import CheckedSource, load_region_source
from ..weights.model_folder import is_model_folder, read_manifest
from .options import GivenRegion
from .reporting import quiet_libraries


@dataclass(frozen=True, kw_only=True)
class Request:
    """The options of a command that are about the picture or video; those that it lacks are left out.

    Attributes:
        path: the picture, the video, or the folder of frames.
        given: the regions, in order.
        prompt: what to ask about all of them, None to ask about each.
        model: model folder or id; it may say how frames are sampled.
        track: whether the regions are followed through the video.
        source: name of the region source.
        source_options: its options.
        device: where it runs, where it has such an option.
        frames: how many frames to sample.
        fps: how many frames to sample per second.
        frame_rate: how fast the frames of a folder follow each other.
        overlay: where to draw what is asked about.
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
    named_frames: Sequence[int] = ()

    def __post_init__(self) -> None:
        if not self.given and self.prompt is None:
            raise click.UsageError("Give a region (--box, --mask, --polygon, ...), or a --prompt.")
        if not self.given:
            needy = {"--track": self.track, "--source": self.source, "--save-overlay": self.overlay}
            _refuse(needy, "needs a region: give --box, --points, --mask, ...")
        if not (self.track or self.source):
            _refuse({"--source-option": self.source_options}, "needs --source or --track.")
        if self.frames:
            _refuse({"--fps": self.fps}, "and --frames exclude each other.")
        if self.prompt is not None:
            _require_as_many_markers(self.prompt, len(self.given))

    @cached_property
    def is_video(self) -> bool:
        return is_video_source(self.path)

    def require_fitting_media(self) -> None:
        """Refuse options that are for another kind of media, and an overlay that cannot be written."""
        if not self.is_video:
            for_videos = {
                "--at": any(each.at for each in self.given),
                "--track": self.track,
                "--frames": self.frames,
                "--fps": self.fps,
                "--frame-rate": self.frame_rate,
            }
            _refuse(for_videos, f"is for videos, but '{self.path}' is a picture.")
        elif not self.path.is_dir():
            _refuse({"--frame-rate": self.frame_rate}, f"is for folders of frames; '{self.path}' tells its own times.")
        if self.overlay is not None:
            require_overlay_path(self.overlay, is_video=self.is_video)
            read = [self.path, *(Path(each.text) for each in self.given if each.kind == "mask")]
            if self.overlay.resolve() in [each.resolve() for each in read]:
                raise click.UsageError(f"--save-overlay would replace '{self.overlay}', which is read. Rename it.")

    def sampling(self) -> FrameSampling:
        """As the options say, else as the model was trained, else the default."""
        if self.frames is None and self.fps is None and is_model_folder(self.model):
            return read_manifest(self.model).frame_sampling
        most = max(self.frames or 0, FrameSampling.max_frames)
        return FrameSampling(num_frames=self.frames, fps=self.fps, max_frames=most)


def _require_as_many_markers(prompt: str, num_regions: int) -> None:
    if MASK_MARKER in prompt:
        raise PromptError(
            f"The prompt holds {MASK_MARKER}, which stands for a mask in an answer. Write {REGION_MARKER} for a region."
        )
    if mismatch := marker_mismatch(marker_kinds([asked(prompt)]), num_regions, where="The prompt has"):
        raise PromptError(mismatch)


def _refuse(options: Mapping[str, Any], why: str) -> None:
    for name, value in options.items():
        if value:
            raise click.UsageError(f"{name} {why}")


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
    _require_inside(request.given, (picture.height, picture.width))
    return Subject(picture, [each.region for each in request.given])


def _read_video(request: Request) -> Subject:
    if request.path.is_dir() and request.frame_rate is None:
        click.echo(
            f"Warning: folder '{request.path}' says nothing about time: taken as {FOLDER_FPS:g} frame per second. "
            "Give --frame-rate.",
            err=True,
        )
    times_s = frame_times(request.path, fps=_frame_rate(request))
    frames = [_frame_of(each, times_s) for each in request.given]
    there = [frame for frame in request.named_frames if frame < len(times_s)]  # of others, who reads them tells
    video = read_frames(request, [*frames, *there])
    _require_inside(request.given, video.image_hw)
    regions = [VideoRegion({frame: each.region}) for frame, each in zip(frames, request.given, strict=True)]
    return Subject(video, regions, times_s)


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
            raise VideoError(
                f"the video has {len(times_s)} frames, counted from 0: there is no frame {given.at.index}."
            )
        return given.at.index


def _require_inside(given: Sequence[GivenRegion], image_hw: tuple[int, int]) -> None:
    for number, each in enumerate(given):
        with placed(region=number, subject=each.option):
            each.region.require_on(image_hw)


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
    if not isinstance(subject.media, Video):
        return _segmented(subject.media, request.given, source)
    prompts: list[Any] = list(subject.regions)
    if not request.track:
        return _segmented_frames(subject.media, prompts, request.given, source)
    with _listing(request.given):
        return source.track(subject.media, prompts)


def _segmented(picture: Image.Image, given: Sequence[GivenRegion], source: CheckedSource) -> list[Region]:
    with _listing(given):
        return source.segment(picture, [each.region for each in given])


def _segmented_frames(
    video: Video, prompts: Sequence[VideoRegion], given: Sequence[GivenRegion], source: CheckedSource
) -> list[VideoRegion]:
    """Each object on its one frame; objects on the same frame are found together, so that it is encoded once."""
    frames = [next(iter(prompt.frames)) for prompt in prompts]
    found: dict[int, VideoRegion] = {}
    for frame in sorted(set(frames)):
        numbers = [number for number, each in enumerate(frames) if each == frame]
        picture = video.picture(video.position(frame))
        regions = _segmented(picture, [given[number] for number in numbers], source)
        found.update({number: VideoRegion({frame: region}) for number, region in zip(numbers, regions, strict=True)})
    return [found[number] for number in range(len(prompts))]


@contextmanager
def _listing(given: Sequence[GivenRegion]) -> Iterator[None]:
    """Says behind a source's error, which counts objects, which options they are."""
    try:
        yield
    except SourceError as error:
        options = ", ".join(f"{number}: {each.option}" for number, each in enumerate(given))
        error.message += f" (Objects: {options}.)"
        raise
