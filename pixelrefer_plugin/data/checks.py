"""What is wrong with samples: each is opened as training opens it, and all its defects are found, not only the first.

It knows samples and datasets; no file format and no command line.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..contracts.messages import PLACEHOLDER, REGION_MARKER, Turn, read_turns
from ..contracts.samples import SAMPLE_FAULTS, RegionSample, defect_of, marker_defects, medium_of
from ..conversation.reading import named_frames
from ..errors import (
    DataError,
    Defect,
    DefectKind,
    FrameError,
    ImageError,
    PromptError,
    RegionError,
    SampleError,
    VideoError,
    sample_name,
)
from ..media.images import image_hw, is_on_its_side, load_image
from ..media.video import FOLDER_FPS, FrameSampling, Video, frame_times, load_video
from ..regions.region import Region, VideoRegion
from .schema import write_record
from .workers import run_in_order

if TYPE_CHECKING:
    from ..contracts.messages import Conversation
    from .dataset import RegionDataset


class Processor(Protocol):
    """What a check needs of a processor; `RegionProcessor` is one."""

    @property
    def sampling(self) -> FrameSampling:
        """Which frames of videos are read."""
        ...

    def __call__(
        self, conversations: Conversation, regions: Sequence[Region | VideoRegion], /, *, labels: bool
    ) -> Mapping[str, Any]:
        """The tensors of a conversation."""
        ...


@dataclass(frozen=True)
class CheckedSample:
    """What was found out about one sample.

    Attributes:
        index: of the sample in its dataset.
        id: its id.
        where: file and line.
        defects: all that is wrong with it; none for a good sample.
        num_images: pictures that it shows.
        num_videos: videos that it shows.
        num_regions: regions that it shows; None where its record cannot be read.
        num_masks: masks that its answers give; None likewise.
        num_tokens: its length as the decoder sees it; None where no processor was given, or it is not good.
        record: it in our own schema, where that was asked for and it is good.
    """

    index: int
    id: str
    where: str
    defects: tuple[Defect, ...]
    num_images: int = 0
    num_videos: int = 0
    num_regions: int | None = None
    num_masks: int | None = None
    num_tokens: int | None = None
    record: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """As `RegionSample.name`."""
        return sample_name(self.id, self.where)


def defects_of(
    sample: RegionSample | SampleError,
    *,
    processor: Processor | None = None,
    max_tokens: int | None = None,
    quick: bool = False,
) -> list[Defect]:
    """Everything that is wrong with a sample. `RegionProcessor` takes one without defects, to learn from.

    Args:
        sample: the sample, or the error that says why it cannot be read.
        processor: the one it shall fit. It is tried on, which tells its tokens too. Without it the frames that are
            read of a video are those of the default rule, and texts are not searched for the backbone's own tokens.
        max_tokens: the most tokens it may have, object tokens included; for this `processor` is needed.
        quick: read headers of pictures only, and those frames of videos only that regions name. With a processor,
            which reads everything, this saves reading twice.

    Raises:
        DataError: `max_tokens` without `processor`.
    """
    return list(SampleCheck(processor, max_tokens, quick)(0, sample).defects)


def check_dataset(
    dataset: RegionDataset,
    *,
    processor: Processor | None = None,
    max_tokens: int | None = None,
    quick: bool = False,
    limit: int | None = None,
    workers: int | None = None,
    media_root: Path | None = None,
) -> Generator[CheckedSample, None, None]:
    """Check the samples of a dataset, in order. The second use of an id is a defect too, in our own format.

    Memory does not grow with the pictures; of each sample a hash of its id is kept.

    Args:
        dataset: the samples.
        processor: as for `defects_of`.
        max_tokens: as for `defects_of`.
        quick: as for `defects_of`.
        limit: check only so many, the first.
        workers: processes that check; by default one for each core that may be used.
        media_root: give the `record` of each good sample, with media paths relative to this folder.

    Raises:
        DataError: the file cannot be read any more, or processes cannot be started.
    """
    job = _Job(dataset, SampleCheck(processor, max_tokens, quick, media_root))
    total = len(dataset) if limit is None else min(limit, len(dataset))
    results = run_in_order(job, total, workers=workers or usable_cores(), died=partial(_killed, dataset.name))
    return _with_repeated_ids(results, dataset)


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class _Job:
    """What a worker process does."""

    dataset: RegionDataset
    check: SampleCheck

    def __call__(self, indices: Sequence[int]) -> list[CheckedSample]:
        samples = self.dataset.__getitems__(list(indices))
        return [self.check(index, sample) for index, sample in zip(indices, samples, strict=True)]


def _killed(dataset_name: str, index: int) -> CheckedSample:
    """What is told of a sample that cannot be looked at a second time."""
    message = "the process that read it died: out of memory, or a decoder crashed on its media."
    return CheckedSample(index, str(index), f"{dataset_name} record {index + 1}", (Defect("media", message),))


def _with_repeated_ids(
    results: Iterable[CheckedSample], dataset: RegionDataset
) -> Generator[CheckedSample, None, None]:
    """The results; where an id was used before, which reading that sample again confirms, with that as a defect.

    Not in other formats, where it may be the id of the picture.
    """
    if dataset.format != "regions":
        yield from results
        return
    first_uses: dict[int, int] = {}
    for checked in results:
        first = first_uses.setdefault(hash(checked.id), checked.index)
        if first != checked.index:
            (earlier,) = dataset.__getitems__([first])
            earlier_id = earlier.sample_id if isinstance(earlier, SampleError) else earlier.id
            if earlier_id == checked.id:
                defect = Defect("format", f"its id was used before, by {earlier.where or f'sample {first}'}.")
                yield replace(checked, defects=(*checked.defects, defect), record=None)
                continue
        yield checked


@dataclass
class Spread:
    """Least, most and mean of numbers that come one by one."""

    count: int = 0
    total: int = 0
    least: int = 0
    most: int = 0

    def add(self, number: int) -> None:
        """Take in one more."""
        self.least = min(self.least, number) if self.count else number
        self.most = max(self.most, number)
        self.count += 1
        self.total += number

    @property
    def mean(self) -> float:
        return self.total / max(1, self.count)


@dataclass
class CheckSummary:
    """What all checked samples come to.

    Attributes:
        samples: how many were checked.
        good: how many of them have no defect.
        defects: how many defects there are.
        kinds: how many samples have a defect of each kind.
        images: pictures, of all samples that could be read, as the following.
        videos: videos.
        regions: regions that each sample shows.
        masks: masks that the answers of each sample give.
        tokens: tokens of each good sample, where they were counted.
    """

    samples: int = 0
    good: int = 0
    defects: int = 0
    kinds: Counter[DefectKind] = field(default_factory=Counter)
    images: int = 0
    videos: int = 0
    regions: Spread = field(default_factory=Spread)
    masks: Spread = field(default_factory=Spread)
    tokens: Spread = field(default_factory=Spread)

    def add(self, checked: CheckedSample) -> None:
        """Count one more sample."""
        self.samples += 1
        self.good += not checked.defects
        self.defects += len(checked.defects)
        self.kinds.update({defect.kind for defect in checked.defects})
        self.images += checked.num_images
        self.videos += checked.num_videos
        if checked.num_regions is not None:
            self.regions.add(checked.num_regions)
        if checked.num_masks is not None:
            self.masks.add(checked.num_masks)
        if checked.num_tokens is not None:
            self.tokens.add(checked.num_tokens)


# -- one sample --------------------------------------------------------------------------------------------


class _Opened(NamedTuple):
    """A picture or video of a sample.

    Attributes:
        hw: its height and width; None where it cannot be read.
        content: what was decoded, for the processor to take; None where it was not, or only in part.
        lacks: frames that regions name and the video does not have, each with the reason.
        is_turned: whether a picture lies on its side in its file, and its EXIF says so.
    """

    hw: tuple[int, int] | None
    content: Any = None
    lacks: Mapping[int, str] = {}
    is_turned: bool = False


_TURNED = (
    " It lies on its side in its file, and its EXIF says to turn it, as viewers do and as is done here; the record is "
    "of it as it lies. Turn the pictures for good (mogrify -auto-orient) and annotate these, or turn the regions "
    "and exchange width and height."
)
_UNREADABLE = _Opened(None)


@dataclass(frozen=True)
class SampleCheck:
    """How samples are checked; see `defects_of` and `check_dataset`."""

    processor: Processor | None = None
    max_tokens: int | None = None
    quick: bool = False
    media_root: Path | None = None

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.processor is None:
            raise DataError("max_tokens needs a processor, which counts them: give it, or leave max_tokens out.")

    def __call__(self, index: int, sample: RegionSample | SampleError) -> CheckedSample:
        """What there is to say about one sample."""
        if isinstance(sample, SampleError):
            return CheckedSample(index, sample.sample_id, sample.where, sample.defects)
        try:
            turns = read_turns(sample.messages)
        except PromptError as error:
            return CheckedSample(index, sample.id, sample.where, (Defect("format", str(error)),))
        reading = _Reading(sample, self)
        defects = [*marker_defects(turns, sample.regions), *_text_defects(turns), *reading.defects]
        num_tokens = None
        if self.processor is not None and not defects:
            num_tokens, defects = self._tried(self.processor, sample, reading)
        return CheckedSample(
            index,
            sample.id,
            sample.where,
            tuple(defects),
            num_images=len(reading.images),
            num_videos=len(reading.videos),
            num_regions=max(0, len(sample.regions) - len(sample.targets)),
            num_masks=len(sample.targets),
            num_tokens=num_tokens,
            record=write_record(sample, self.media_root) if self.media_root is not None and not defects else None,
        )

    @property
    def sampling(self) -> FrameSampling:
        """Which frames of videos training reads."""
        return FrameSampling() if self.processor is None else self.processor.sampling

    def _tried(self, processor: Processor, sample: RegionSample, reading: _Reading) -> tuple[int | None, list[Defect]]:
        """The sample's tokens, or what the processor has against it."""
        try:
            inputs = processor(reading.messages(), sample.regions, labels=True)
        except SAMPLE_FAULTS as fault:
            return None, [defect_of(fault)]
        num_tokens = int(inputs["attention_mask"].sum())
        if self.max_tokens is None or num_tokens <= self.max_tokens:
            return num_tokens, []
        return None, [Defect("too long", f"it has {num_tokens} tokens, at most {self.max_tokens} are allowed.")]


def _text_defects(turns: Sequence[Turn]) -> Iterator[Defect]:
    if any(PLACEHOLDER in turn.text() for turn in turns):
        yield Defect(
            "markers", f"its texts hold the special token {PLACEHOLDER!r}. Write {REGION_MARKER} for a region."
        )
    if not turns[-1].is_answer:
        yield Defect("answer", f"it ends without an answer: its last message is of the {turns[-1].role}.")
    for index, turn in enumerate(turns):
        if turn.is_answer and not turn.text().strip():
            yield Defect("answer", f"message {index}: the answer is empty.")


class _Reading:
    """The media of one sample, opened, and its regions put on them."""

    def __init__(self, sample: RegionSample, check: SampleCheck) -> None:
        self._sample = sample
        self._check = check
        self._targets = frozenset(sample.targets)
        self.defects: list[Defect] = []
        self.images = [
            self._open(f"image {index}", self._image, part) for index, part in enumerate(sample.media("image"))
        ]
        self.videos = [
            self._open(f"video {index}", partial(self._video, index=index), part)
            for index, part in enumerate(sample.media("video"))
        ]
        self.defects += self._wrong_sizes()
        for number, region in enumerate(sample.regions):
            misfits = self._misfits(region, is_target=number in self._targets)
            self.defects += [Defect("region", f"region {number}{reason}") for reason in misfits]

    def messages(self) -> list[dict[str, Any]]:
        """The sample's messages with what was decoded in place of paths, so that it is not decoded again."""
        contents = {"image": iter(self.images), "video": iter(self.videos)}
        messages = []
        for message in self._sample.messages:
            parts = message["content"]
            if not isinstance(parts, str):
                parts = [_filled(part, contents) for part in parts]
            messages.append({**message, "content": parts})
        return messages

    def _open(self, name: str, read: Any, part: Mapping[str, Any]) -> _Opened:
        try:
            opened: _Opened = read(part)
        except (ImageError, VideoError) as error:
            self.defects.append(Defect("media", f"{name}: {error}"))
            return _UNREADABLE
        return opened

    def _image(self, part: Mapping[str, Any]) -> _Opened:
        is_turned = is_on_its_side(part["image"])
        if self._check.quick:
            return _Opened(image_hw(part["image"]), is_turned=is_turned)
        picture = load_image(part["image"])
        return _Opened((picture.height, picture.width), picture, is_turned=is_turned)

    def _video(self, part: Mapping[str, Any], *, index: int) -> _Opened:
        source, times = part["video"], times_of(part)
        regions: tuple[list[VideoRegion], list[VideoRegion]] = ([], [])  # those that are shown, and targets
        for number, region in enumerate(self._sample.regions):
            if isinstance(region, VideoRegion) and region.video_index == index:
                regions[number in self._targets].append(region)
        named = named_frames(source, *regions, sampling=self._check.sampling, times=times)
        try:
            video = self._load(source, named, times)
        except FrameError:
            video = self._load(source, named & _frames_there(source, times), times)
        lacks = {}
        for frame in named.union(*map(_known_frames, regions[1])):
            if isinstance(source, Video) and frame in named and frame not in video.frame_indices:
                lacks[frame] = f"frame {frame} is not among the sampled ones."
            elif frame >= (count := video.num_source_frames):
                lacks[frame] = f"the video has {count} frames, counted from 0: there is no frame {frame}."
        return _Opened(video.image_hw, None if self._check.quick or lacks else video, lacks)

    def _load(self, source: Any, named: set[int], times: Mapping[str, Any]) -> Video:
        sampling = self._check.sampling
        if self._check.quick:
            most = sampling.max_frames
            sampling = FrameSampling(num_frames=max(1, min(len(named), most)), max_frames=most)
        return load_video(source, sampling=sampling, frames=named, **times)

    def _wrong_sizes(self) -> Iterator[Defect]:
        names = [f"image {index}" for index in range(len(self.images))]
        names += [f"video {index}" for index in range(len(self.videos))]
        for name, opened, said_hw in zip(names, (*self.images, *self.videos), self._sample.media_hw, strict=False):
            if opened.hw is not None and said_hw is not None and opened.hw != tuple(said_hw):
                (height, width), (said_height, said_width) = opened.hw, said_hw
                text = (
                    f"{name} is {width} px wide and {height} high, but the record says {said_width} and {said_height}."
                )
                turned = _TURNED if opened.is_turned and opened.hw == tuple(said_hw)[::-1] else ""
                yield Defect("size", f"{text}{turned}")

    def _misfits(self, region: Region | VideoRegion, *, is_target: bool) -> Iterator[str]:
        """Why a region does not lie on its picture, or on frames of its video."""
        kind, index = medium_of(region)
        media = self.images if kind == "image" else self.videos
        if index >= len(media):
            yield f" lies on {kind} {index}, but the sample has {len(media)} {kind}s."
            return
        opened = media[index]
        shapes: Mapping[int, Region | None] = {0: region} if isinstance(region, Region) else region.frames
        if is_target and isinstance(region, VideoRegion):
            shapes = _known_frames(region)
        for frame, shape in shapes.items():
            if frame in opened.lacks:
                yield f": {opened.lacks[frame]}"
            elif shape is not None and opened.hw is not None and (reason := _misfit(shape, opened.hw)):
                yield f"{f', frame {frame}' if kind == 'video' else ''}: {reason}"


def _known_frames(target: VideoRegion) -> dict[int, Region | None]:
    """The frames about which a target says something, ascending; None for those that the object is absent from."""
    frames = {**target.frames, **dict.fromkeys(target.absent)}
    return {frame: frames[frame] for frame in sorted(frames)}


def times_of(part: Mapping[str, Any]) -> dict[str, Any]:
    """What a video's content part says about its times; of a folder that says nothing, how it will be taken."""
    times = {key: part[key] for key in ("fps", "times_s") if key in part}
    is_path = isinstance(part["video"], str | os.PathLike)
    if not times and is_path and os.path.isdir(part["video"]):
        times["fps"] = FOLDER_FPS  # the warning about that belongs to training
    return times


def _misfit(region: Region, hw: tuple[int, int]) -> str:
    """Why a region does not lie on a picture; nothing where it does."""
    try:
        region.require_on(hw)
    except RegionError as error:
        return str(error)
    return ""


def _frames_there(source: Any, times: Mapping[str, Any]) -> Set[int]:
    """The frames that can be read of a video."""
    return set(source.frame_indices if isinstance(source, Video) else range(len(frame_times(source, **times))))


def _filled(part: Mapping[str, Any], contents: Mapping[str, Iterator[_Opened]]) -> Mapping[str, Any]:
    kind = part["type"]
    if kind == "text":
        return part
    content = next(contents[kind]).content
    return part if content is None else {"type": kind, kind: content}
