"""Reads conversations: their pictures and videos, what their markers stand for, and whether all of it fits together.

It knows messages, regions and media; no tokenizer and no model. How it is worded, `prompt_writer` says.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
from PIL import Image

from ..contracts.messages import (
    CALLED_ID,
    MASK_MARKER,
    PART_OPTIONS,
    REGION_MARKER,
    Conversation,
    Turn,
    marker_kinds,
    marker_mismatch,
    meant_itself,
    read_turns,
)
from ..contracts.samples import Medium, medium_of
from ..errors import FrameError, ImageError, Place, PromptError, VideoError, placed, shown
from ..media.images import load_image
from ..media.video import ClipSampling, FrameSampling, Video, VideoSource, frame_times, load_video
from ..regions.region import Region, VideoRegion
from .memory import MemoryObject, ObjectMemory
from .pointing import Media, point_at
from .sample import PromptStyle, ReadSample, WrittenRegion, taken_id
from .writing import PromptWriter


class ImageReader:
    """Reads pictures, each once: conversations of a batch that show the same file or object share the picture."""

    def __init__(self) -> None:
        self._read: dict[Any, tuple[Any, Image.Image]] = {}

    def __call__(self, source: Any) -> Image.Image:
        """The picture of `source`, upright RGB."""
        key = os.fspath(source) if isinstance(source, str | os.PathLike) else id(source)
        if key not in self._read:
            self._read[key] = (source, load_image(source))  # keeping the source keeps its id from being used again
        return self._read[key][1]


def read_conversation(
    conversation: Conversation,
    regions: Sequence[Any],
    *,
    index: int,
    style: PromptStyle,
    read_image: ImageReader,
    memory: ObjectMemory | None = None,
) -> ReadSample:
    """Check one conversation against its regions.

    Args:
        conversation: its messages.
        regions: its regions, in the order of its markers, `<region>` and `<seg>` alike.
        index: which sample of the batch it is, for messages.
        style: how it is rendered.
        read_image: of the batch.
        memory: objects that are listed before its first question, under their ids.

    Raises:
        PromptError: the messages are malformed, or do not fit the regions or the memory.
        ImageError: a picture cannot be read.
        VideoError: a video cannot be read, or has no such frame as a region names.
    """
    with placed(sample=index):
        turns = read_turns(conversation)
        _refuse_misplaced_masks(turns, style)
        given = [_as_region(region, number) for number, region in enumerate(regions)]
        _require_as_many_markers(turns, given)
        objects = _Objects.of(turns, given, style, memory)
        _require_known_ids(turns, objects, memory)
        _require_own_ids(turns, objects)
        images, videos = _read_media(turns, objects, style, read_image, memory)
        shows_media = not (style.object_only and objects.written)
        if not shows_media:
            _require_regions_everywhere(objects.written, num_images=len(images), num_videos=len(videos))
        media = Media(images, videos, [image_options(part) for part in _parts(turns, "image")])
        if style.pointing is not None:
            listed, at_marker = objects.listed, objects.at_marker
            turns, media = point_at(turns, media, listed=listed, at_marker=at_marker, style=style.pointing)
            objects = _Objects((), (), {})
        objects = objects.with_frames(videos, style)
        writer = PromptWriter(
            media.videos, shows_media=shows_media, listed=objects.listed, at_marker=objects.at_marker, style=style
        )
        return ReadSample(
            objects.targets,
            list(media.images),
            list(media.videos),
            *writer.write(turns),
            shows_media=shows_media,
            image_options=media.image_options,
        )


def _as_region(region: Any, number: int) -> Region | VideoRegion:
    if isinstance(region, Region | VideoRegion):
        return region
    if isinstance(region, Mapping):
        with placed(region=number):
            return VideoRegion(region)
    raise PromptError(
        f"expected a Region, or {{frame index: Region}} on a video, got {shown(region)}. "
        "Make one with Region.from_box, from_mask, from_polygon, from_points, from_rle or from_scribble.",
        region=number,
    )


def _refuse_misplaced_masks(turns: Sequence[Turn], style: PromptStyle) -> None:
    for turn in turns:
        if MASK_MARKER not in turn.text():
            continue
        if not turn.is_answer:
            raise PromptError(
                f"the {turn.role}'s text holds {MASK_MARKER}, which stands for a mask in an assistant's answer. "
                f"Write {REGION_MARKER} for a region."
            )
        if style.mask_token is None:
            raise PromptError(
                f"adapter '{style.adapter}' gives no masks, but an answer holds {MASK_MARKER}. Take an adapter with a "
                "mask head, or leave the marker out."
            )


def _require_as_many_markers(turns: Sequence[Turn], regions: Sequence[Any]) -> None:
    if mismatch := marker_mismatch(marker_kinds(turns), len(regions)):
        raise PromptError(mismatch)


@dataclass(frozen=True, eq=False)
class _Objects:
    """What the markers of a conversation stand for, and what its memory holds.

    Attributes:
        listed: the objects that are listed before the first question: a memory's, then the conversation's own.
        at_marker: for each marker in order the region that is written there; a listed one is called by its id. None
            for an `<seg>`.
        targets: the regions of the `<seg>`s, by the number of their marker.
    """

    listed: tuple[WrittenRegion, ...]
    at_marker: tuple[WrittenRegion | None, ...]
    targets: Mapping[int, Region | VideoRegion]

    @classmethod
    def of(
        cls,
        turns: Sequence[Turn],
        given: Sequence[Region | VideoRegion],
        style: PromptStyle,
        memory: ObjectMemory | None,
    ) -> _Objects:
        markers = [(marker, turn.is_answer) for turn in turns for marker in turn.markers()]
        drawn = [
            # What an answer says must be words: it calls its regions by their ids.
            marker["kind"] == REGION_MARKER and not in_answer and style.is_drawn(region)
            for (marker, in_answer), region in zip(markers, given, strict=True)
        ]
        ids = [None if marker["id"] is None else int(marker["id"]) for marker, _ in markers]
        listing = _Listing(memory or (), taken={id for id, is_drawn in zip(ids, drawn, strict=True) if id and is_drawn})
        at_marker: list[WrittenRegion | None] = []
        targets = {}
        for number, ((marker, _), region) in enumerate(zip(markers, given, strict=True)):
            if marker["kind"] == MASK_MARKER:
                targets[number] = region
                at_marker.append(None)
            elif drawn[number] or not style.drawn:
                at_marker.append(WrittenRegion(region, number, None, is_drawn=drawn[number]))
            else:
                at_marker.append(listing.object_of(region, number=number, id=ids[number]))
        return cls(tuple(listing.objects), tuple(at_marker), targets)

    @property
    def written(self) -> list[WrittenRegion]:
        """All regions that have object tokens."""
        return [*self.listed, *(each for each in self.at_marker if each is not None and each.id is None)]

    def with_frames(self, videos: Sequence[Video], style: PromptStyle) -> _Objects:
        """The same once it is known which frames are sampled."""

        def placed(each: WrittenRegion) -> WrittenRegion:
            if isinstance(each.region, Region):
                return each
            together = 1 if each.is_drawn else style.frames_together
            return replace(each, frames=_frames_together(each.region, videos[each.region.video_index], together))

        return replace(
            self,
            listed=tuple(map(placed, self.listed)),
            at_marker=tuple(None if each is None else placed(each) for each in self.at_marker),
        )


class _Listing:
    """The objects that are listed before the first question: those of a memory, and what is added to them.

    Args:
        memory: that memory's objects.
        taken: numbers that the conversation gives to regions which are not listed.
    """

    def __init__(self, memory: Iterable[MemoryObject], *, taken: Set[int]) -> None:
        self.objects = [WrittenRegion(each.region, None, each.id) for each in memory]
        self._known = {each.region: each for each in reversed(self.objects)}
        self._taken = {*taken, *(each.id for each in self.objects if each.id is not None)}

    def object_of(self, region: Region | VideoRegion, *, number: int, id: int | None) -> WrittenRegion:
        """The object that a region is, `id` where it is given one; equal regions are one object."""
        known = self._known.get(region)
        if known is None:
            free = max(self._taken, default=0) + 1 if id is None else id
            if free in self._taken or free == 0:
                raise taken_id(free).set_place(region=number)
            self._taken.add(free)
            self._known[region] = known = WrittenRegion(region, number, free)
            self.objects.append(known)
        elif id not in (None, known.id):
            raise PromptError(
                f"it is called [{id}], but is object [{known.id}] already. Write [{known.id}], or no number.",
                region=number,
            )
        return known


def _frames_together(region: VideoRegion, video: Video, together: int) -> tuple[tuple[int, ...], ...]:
    """A region's frames; those of each run of `together` sampled ones in one."""
    runs: dict[int, list[int]] = {}
    for frame in region.frames:
        runs.setdefault(video.position(frame) // together, []).append(frame)
    return tuple(map(tuple, runs.values()))


def _require_known_ids(turns: Sequence[Turn], objects: _Objects, memory: ObjectMemory | None) -> None:
    """Where objects are listed, a number in brackets calls one of them.

    `[3] <region>` gives a click or a box a number itself. Questions that have been answered may call objects that
    the memory held then.
    """
    if memory is None and not objects.listed:
        return
    known = {str(each.id) for each in objects.listed}
    markers = (marker for turn in turns for marker in turn.markers())
    for marker, written in zip(markers, objects.at_marker, strict=True):
        if marker["id"] and written is not None and written.id is None:
            known.add(marker["id"])
    for turn in _open_questions(turns):
        for called in CALLED_ID.findall(turn.text()):
            if called not in known:
                listed = ", ".join(f"[{each.id}]" for each in objects.listed) or "no objects"
                raise PromptError(
                    f"the text calls object [{called}], which the memory does not hold. It holds {listed}. Add the "
                    f"object, or point at it: {REGION_MARKER}. {meant_itself(called)}"
                )


def _require_own_ids(turns: Sequence[Turn], objects: _Objects) -> None:
    """The number that a question gives a click or a box itself calls nothing else.

    In questions that have been answered it may: what was drawn then may be a listed object now.
    """
    listed = {each.id for each in objects.listed}
    asked = _open_questions(turns)
    at_marker = iter(objects.at_marker)
    for turn in turns:
        named: dict[int, Region | VideoRegion] = {}
        for marker in turn.markers():
            written = next(at_marker)
            if written is None or not written.is_drawn or marker["id"] is None:
                continue
            id = int(marker["id"])
            is_asked = any(turn is each for each in asked)
            if is_asked and (id == 0 or id in listed or named.setdefault(id, written.region) != written.region):
                raise taken_id(id).set_place(**written.place)


def _open_questions(turns: Sequence[Turn]) -> list[Turn]:
    """The messages that are no answers; of a prompt those after the last answer."""
    answers = [index for index, turn in enumerate(turns) if turn.is_answer]
    first = answers[-1] + 1 if answers and not turns[-1].is_answer else 0
    return [turn for turn in turns[first:] if not turn.is_answer]


def _read_media(
    turns: Sequence[Turn],
    objects: _Objects,
    style: PromptStyle,
    read_image: ImageReader,
    memory: ObjectMemory | None,
) -> tuple[list[Image.Image], list[Video]]:
    """Its pictures, and its videos, whose frames are sampled so that its regions lie on them."""
    given_images, given_videos = _parts(turns, "image"), _parts(turns, "video")
    if memory:
        _require_only_medium(memory, num_images=len(given_images), num_videos=len(given_videos))
    named = [(each.place, each.region) for each in objects.written]
    targets = [(Place(region=number), region) for number, region in objects.targets.items()]
    _require_on_media([*named, *targets], num_images=len(given_images), num_videos=len(given_videos))
    images = [read_image(media_source(part)) for part in given_images]
    videos = [
        _read_video(part, _on_video(named, index), _on_video(targets, index), style)
        for index, part in enumerate(given_videos)
    ]
    if memory:
        _require_memorys_size(memory, images, videos)
    return images, videos


def _parts(turns: Sequence[Turn], kind: str) -> list[Mapping[str, Any]]:
    return [part for turn in turns for part in turn.parts if part["type"] == kind]


def _require_only_medium(memory: ObjectMemory, *, num_images: int, num_videos: int) -> None:
    wanted = (0, 1) if memory.is_video else (1, 0)
    if (num_images, num_videos) != wanted:
        raise PromptError(
            f"the memory's objects lie on {'a video' if memory.is_video else 'an image'}, which must be all that the "
            f"conversation shows; it has {num_images} images and {num_videos} videos."
        )


def _require_memorys_size(memory: ObjectMemory, images: Sequence[Image.Image], videos: Sequence[Video]) -> None:
    height, width = videos[0].image_hw if videos else (images[0].height, images[0].width)
    if (height, width) != memory.image_hw:
        raise PromptError(
            f"the memory's objects lie on pictures of width {memory.image_hw[1]} and height {memory.image_hw[0]}, the "
            f"conversation's is of width {width} and height {height}. Is it another one?"
        )


def _on_video(regions: Sequence[tuple[Place, Region | VideoRegion]], index: int) -> list[tuple[Place, VideoRegion]]:
    """Those that lie on one video."""
    return [
        (place, region) for place, region in regions if isinstance(region, VideoRegion) and region.video_index == index
    ]


def _read_video(
    part: Mapping[str, Any],
    regions: Sequence[tuple[Place, VideoRegion]],
    targets: Sequence[tuple[Place, VideoRegion]],
    style: PromptStyle,
) -> Video:
    """The video of a content part, with the frames that its regions name, and those of its targets that there is
    room for."""
    source = media_source(part)
    sampling, times = video_options(part, source, style.sampling)
    try:
        named = named_frames(
            source,
            [region for _, region in regions],
            [region for _, region in targets],
            sampling=sampling,
            times=times,
        )
        video = load_video(source, sampling=sampling, frames=named, **times)
        _require_in_video([region for _, region in targets], video)
        return video
    except FrameError as error:
        naming = (place for place, region in [*regions, *targets] if error.frame in {*region.frames, *region.absent})
        error.set_place(**next(naming, Place()))
        raise


def image_options(part: Mapping[str, Any]) -> dict[str, int]:
    """What the content part of a picture asks of the native image processor.

    Raises:
        PromptError: an area is no positive integer, or one that no memory holds.
    """
    return {key: _count(part[key], key, most=_MOST_PIXELS) for key in PART_OPTIONS["image"] if key in part}


def video_options(
    part: Mapping[str, Any], source: Any, sampling: FrameSampling
) -> tuple[FrameSampling, dict[str, Any]]:
    """How the content part of a video wants it read: which frames, and what `load_video` is told of its times.

    `nframes` and `max_frames` are of the sampling. So is `fps` of a file, which has its own times; of frames it is the
    rate at which they follow each other, as `sample_fps` is. `video_start` and `video_end`, in seconds, have frames
    sampled between them alone; frames that regions name may lie outside.

    Args:
        part: the content part.
        source: its video.
        sampling: which frames are read where the part does not say.

    Raises:
        PromptError: options that exclude each other, or do not fit this kind of video.
        VideoError: a value is no number of its kind.
    """
    given = {key: part[key] for key in PART_OPTIONS["video"] if key in part}
    if isinstance(source, Video) and given:
        raise PromptError(f"the frames of a Video are sampled already, {shown(next(iter(given)))} has no effect on it.")
    is_file = isinstance(source, str | os.PathLike) and not os.path.isdir(source)
    if "sample_fps" in given:
        if is_file or "fps" in given:
            raise PromptError("'sample_fps' is of a video that is given as frames, without 'fps'. Leave it out.")
        given["fps"] = given.pop("sample_fps")
    most = _count(given.pop("max_frames"), "max_frames") if "max_frames" in given else None
    if "nframes" in given:
        if is_file and "fps" in given:
            raise PromptError("a video takes 'nframes' or 'fps', got both. Leave one out.")
        count = _count(given.pop("nframes"), "nframes")
        sampling = FrameSampling(num_frames=count, max_frames=most or max(count, sampling.max_frames))
    elif is_file and "fps" in given:
        sampling = FrameSampling(fps=given.pop("fps"), max_frames=most or sampling.max_frames)
    elif most is not None:
        sampling = replace(sampling, max_frames=most)
    start_s, end_s = given.pop("video_start", None), given.pop("video_end", None)
    if start_s is not None or end_s is not None:
        sampling = ClipSampling(
            sampling.num_frames,
            sampling.fps,
            sampling.max_frames,
            start_s=0.0 if start_s is None else start_s,
            end_s=end_s,
        )
    return sampling, given


_MOST_PIXELS = 2**28


def _count(value: Any, name: str, *, most: int = 2**31) -> int:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or not 1 <= value <= most:
        raise PromptError(f"{name} of a content part must be a whole number from 1 to {most:,}, got {shown(value)}.")
    return int(value)


def media_source(part: Mapping[str, Any]) -> Any:
    """The picture or video of a content part; of a `file://` address the path.

    Raises:
        ImageError: it is an address on the net, or holds the picture's bytes themselves.
        VideoError: as much of a video.
    """
    kind = part["type"]
    source = part[kind]
    expected = "Give a path, a PIL image or an array." if kind == "image" else "Give a path or the frames."
    what = "bytes of a file" if isinstance(source, bytes | bytearray | memoryview) else ""
    if isinstance(source, str):
        scheme = source[:8].lower()
        if scheme.startswith("file://"):
            return url2pathname(urlsplit(source).path)
        what = "a data: URL" if scheme.startswith("data:") else what
        what = "an address on the net" if scheme.startswith(("http://", "https://")) else what
    elif kind == "image" and not what and not isinstance(source, os.PathLike | Image.Image | np.ndarray):
        raise ImageError(f"An image must be a file path, a PIL image or a numpy array, got {shown(source)}.")
    if what:
        error = ImageError if kind == "image" else VideoError
        raise error(f"{'An image' if kind == 'image' else 'A video'} cannot be {what}: {shown(source)}. {expected}")
    return source


def named_frames(
    source: VideoSource,
    regions: Sequence[VideoRegion],
    targets: Sequence[VideoRegion],
    *,
    sampling: FrameSampling,
    times: Mapping[str, Any],
) -> set[int]:
    """The frames of a video that must be among those read: `load_video(..., frames=...)`.

    Args:
        source: the video.
        regions: those of `<region>`s, all of whose frames are read.
        targets: those of `<seg>`s, whose frames are read as far as there is room; none of a `Video`, whose frames are
            read already.
        sampling: how many frames there are.
        times: what else `load_video` is told of the video's times.

    Raises:
        VideoError: as `load_video`.
    """
    named = {frame for region in regions for frame in region.frames}
    if targets and not isinstance(source, Video):
        named |= _target_frames(targets, named, _num_sampled(source, sampling, times))
    return named


def _num_sampled(source: Any, sampling: FrameSampling, times: Mapping[str, Any]) -> int:
    """How many frames are sampled where none is named; of a short video fewer may be."""
    if sampling.fps is None:
        return min(sampling.num_frames or sampling.max_frames, sampling.max_frames)
    return len(sampling.choose(frame_times(source, **times)))


def _target_frames(targets: Sequence[VideoRegion], named: Set[int], num_frames: int) -> set[int]:
    """The frames that are sampled for targets, beside those that regions name.

    All about which a target says something, or, where they would be more than `num_frames` with the others, so many
    spread evenly; but one at least with each target.
    """
    known = sorted({frame for target in targets for frame in (*target.frames, *target.absent)} - named)
    room = min(len(known), max(num_frames - len(named), 0))
    chosen = {known[round(place * (len(known) - 1) / max(room - 1, 1))] for place in range(room)}
    for target in targets:
        frames = list(target.frames)
        if not any(frame in named or frame in chosen for frame in frames):
            chosen.add(frames[len(frames) // 2])
    return chosen


def _require_in_video(targets: Sequence[VideoRegion], video: Video) -> None:
    for region in targets:
        last = max((*region.frames, *region.absent))
        if last >= video.num_source_frames:
            raise FrameError(
                f"{video.name} has {video.num_source_frames} frames, counted from 0: there is no frame {last}.",
                frame=last,
            )


def _require_on_media(
    regions: Sequence[tuple[Place, Region | VideoRegion]], *, num_images: int, num_videos: int
) -> None:
    for place, region in regions:
        kind, at = medium_of(region)
        there = num_images if kind == "image" else num_videos
        if at >= there:
            hint = ""
            if kind == "image" and num_videos and not num_images:
                hint = " On a video, say on which frame: {frame index: region}."
            raise PromptError(f"it lies on {kind} {at}, but the conversation has {there} {kind}s.{hint}").set_place(
                **place
            )


def _require_regions_everywhere(written: Sequence[WrittenRegion], *, num_images: int, num_videos: int) -> None:
    """In the Object-Only framework, what has no region is not seen at all."""
    seen = {medium_of(each.region) for each in written}
    media: list[Medium] = [("image", index) for index in range(num_images)]
    media += [("video", index) for index in range(num_videos)]
    for kind, index in media:
        if (kind, index) not in seen:
            raise PromptError(
                f"{kind} {index} has no region. With an Object-Only adapter the decoder sees pictures through their "
                f"regions alone: give it one (a box of the whole picture will do), or leave it out."
            )
