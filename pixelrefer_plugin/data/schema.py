"""This package's own sample schema (docs/data.md): a record becomes a `RegionSample`, and back.

All that is wrong with a record is found at once. No picture or video is opened, except masks that are pictures.
It knows no files of records and no model.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..contracts.messages import Turn
from ..contracts.samples import MEDIA_KINDS, MediaKind, RecordPlace, RegionSample, marker_defects
from ..errors import (
    DataError,
    Defect,
    DefectKind,
    ImageError,
    PixelReferError,
    RegionError,
    did_you_mean,
    placed,
    shown,
)
from ..media.paths import why_no_path
from ..regions.given import compress_rle
from ..regions.mask import RegionMask
from ..regions.region import Region, VideoRegion

_MEDIA_MARKERS = {f"<{kind}>": kind for kind in MEDIA_KINDS}
_MEDIA_MARKER = re.compile(f"({'|'.join(_MEDIA_MARKERS)})")
_ROLES = ("system", "user", "assistant")
_MEDIA_KEYS = ("image", "images", "video", "videos")
_MOST_CHARACTERS = 4096  # of a path
_KEYS = ("id", *_MEDIA_KEYS, "size", "regions", "messages")


class _Shape(NamedTuple):
    """How one kind of region is made, and which keys beside it are options of its constructor."""

    make: Callable[..., Region]
    options: Mapping[str, str] = {}


_SHAPES = {
    "box": _Shape(Region.from_box),
    "polygon": _Shape(Region.from_polygon),
    "points": _Shape(Region.from_points, {"radius": "radius_px"}),
    "scribble": _Shape(Region.from_scribble, {"width": "width_px"}),
    "rle": _Shape(Region.from_rle),
    "mask": _Shape(Region.from_png, {"value": "value"}),
}


def is_record(record: Mapping[str, Any]) -> bool:
    """Whether a record has the form of this schema, sound or not: messages, and nothing of other formats; or regions
    without messages, and no key that this schema does not have."""
    if "messages" not in record:
        return isinstance(record.get("regions"), list) and set(_present(record)) <= set(_KEYS)
    return isinstance(record["messages"], list) and not {"conversations", "annotation", "annotations"} & set(record)


def read_sample(
    record: Mapping[str, Any],
    place: RecordPlace,
    *,
    regions: Sequence[Region | VideoRegion | None] | None = None,
    defects: Sequence[Defect] = (),
    clip: bool = False,
) -> RegionSample:
    """The sample of a record of this schema, or of a foreign record that was translated to it.

    Args:
        record: one object of the file, or a row of a table. Keys that begin with `_` and values that are None count as
            absent. A row may hold pictures for paths, and `Region`s.
        place: where it stands.
        regions: those of a foreign record, in place of the record's own, in the order of their `<region>`s; None for
            one that is among the defects.
        defects: what was found wrong with a foreign record while it was translated.
        clip: cut off what of a region lies outside its picture or video, whose size the record then has to say.

    Raises:
        SampleError: with these defects and all others of the record.
    """
    reading = _Reading(place, defects, clip=clip)
    sample = reading.sample(_present(record), regions)
    if reading.defects:
        raise place.error(sample.id, reading.defects)
    return sample


class _Reading:
    """One record being read; goes on after a defect, so that all of them are found."""

    def __init__(self, place: RecordPlace, defects: Sequence[Defect], *, clip: bool) -> None:
        self.place = place
        self.clip = clip
        self.defects = list(defects)

    def attempt(
        self, kind: DefectKind, subject: str | None, read: Callable[..., Any], *values: Any, otherwise: Any = None
    ) -> Any:
        """What `read(*values)` returns; a defect, and `otherwise`, where it refuses them."""
        try:
            return read(*values)
        except PixelReferError as error:
            found: DefectKind = "media" if isinstance(error, ImageError) else kind
            self.defects.append(Defect(found, error.set_place(subject=subject).in_sample))
            return otherwise

    def sample(self, record: Mapping[str, Any], made: Sequence[Region | VideoRegion | None] | None) -> RegionSample:
        self.attempt("format", None, _require_known, record, _KEYS, "A sample")
        media: dict[MediaKind, list[Any]] = {kind: self.media(record, kind) for kind in MEDIA_KINDS}
        num_media = sum(map(len, media.values()))
        given_regions = self.list_of(record, "regions") if made is None else made
        if given_regions and not set(_MEDIA_KEYS) & set(record):
            message = f"it has regions but no picture or video: expected one of {', '.join(_MEDIA_KEYS)}."
            self.defects.append(Defect("media", message))
        id = self.attempt("format", "id", _id, record, self.place, otherwise=str(self.place.index))
        read = self.given_regions(given_regions or ()) if made is None else made
        regions = self.placed(read, media)
        media_hw = self.attempt("format", "size", _sizes_hw, record.get("size"), num_media, otherwise=())
        if self.clip:
            regions = self.clipped(regions, len(media["image"]), media_hw)
        return RegionSample(
            id=id,
            regions=regions,
            messages=self.messages(record, None if given_regions is None else regions, media),
            where=self.place.where,
            media_hw=media_hw,
        )

    def list_of(self, record: Mapping[str, Any], key: str) -> Sequence[Any] | None:
        """A list of the record, empty where it has none; None, and a defect, where it has something else."""
        given = record.get(key, [])
        if isinstance(given, list | tuple):
            return given
        self.defects.append(Defect("format", f"'{key}' must be a list, got {shown(given)}."))
        return None

    def media(self, record: Mapping[str, Any], kind: MediaKind) -> list[Any]:
        """Its pictures or its videos as content parts."""
        if kind in record and f"{kind}s" in record:
            self.defects.append(Defect("format", f"it has both '{kind}' and '{kind}s'. Put all into '{kind}s'."))
            return []
        given = [record[kind]] if kind in record else self.list_of(record, f"{kind}s") or ()
        read = _image_part if kind == "image" else _video_part
        return [
            self.attempt("format", f"{kind} {index}", read, value, self.place, otherwise={"type": kind})
            for index, value in enumerate(given)
        ]

    def given_regions(self, given: Sequence[Any]) -> list[Region | VideoRegion | None]:
        """The record's own regions; None for a defective one."""
        return [
            self.attempt("region", f"region {number}", _read_region, value, self.place)
            for number, value in enumerate(given)
        ]

    def placed(
        self, regions: Sequence[Region | VideoRegion | None], media: Mapping[MediaKind, Sequence[Any]]
    ) -> tuple[Any, ...]:
        """The regions; None, and a defect, for one that lies on a picture or video that the sample does not have."""
        counts = {kind: len(values) for kind, values in media.items()}
        return tuple(
            None if region is None else self.attempt("region", f"region {number}", _on_medium, region, counts)
            for number, region in enumerate(regions)
        )

    def clipped(
        self, regions: Sequence[Any], num_images: int, media_hw: Sequence[tuple[int, int] | None]
    ) -> tuple[Any, ...]:
        """The regions without what lies outside; None, and a defect, for one of which nothing is left."""
        return tuple(
            None
            if region is None
            else self.attempt("region", f"region {number}", _clipped, region, num_images, media_hw)
            for number, region in enumerate(regions)
        )

    def messages(
        self, record: Mapping[str, Any], regions: Sequence[Any] | None, media: Mapping[MediaKind, list[Any]]
    ) -> tuple[Mapping[str, Any], ...]:
        if self.place.use == "regions":
            shown_media = [part for kind in MEDIA_KINDS for part in media[kind]]
            return ({"role": "user", "content": shown_media},)
        given = self.list_of(record, "messages")
        if given is not None and not given:
            self.defects.append(Defect("format", "it has no 'messages': expected a list of one or more."))
        turns = [self.attempt("format", f"message {index}", _turn, each) for index, each in enumerate(given or ())]
        if not turns or None in turns:
            return ()
        if regions is not None:
            self.defects += marker_defects([Turn(*each) for each in turns], regions)
        self.attempt("answer", None, _require_answers, turns, self.place)
        for kind in ("video", "image"):  # pictures are put in front of the videos
            self.attempt("markers", None, _place_media, turns, kind, media[kind])
        return tuple({"role": turn.role, "content": _content(turn.parts)} for turn in turns)


def _present(given: Mapping[str, Any]) -> dict[str, Any]:
    """Without notes, and without the None that tables have for what a row lacks."""
    return {key: value for key, value in given.items() if value is not None and not str(key).startswith("_")}


def _require_known(given: Iterable[str], known: Sequence[str], what: str) -> None:
    unknown = [str(key) for key in given if key not in known]
    if not unknown:
        return
    hint = did_you_mean(unknown[0], known)
    raise DataError(f"{what} has no key {', '.join(map(shown, unknown[:20]))}.{hint} Its keys: {', '.join(known)}.")


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _id(record: Mapping[str, Any], place: RecordPlace) -> str:
    given = record.get("id", place.index)
    if not _is_integer(given) and not (isinstance(given, str) and given):
        raise DataError(f"must be a text or an integer, got {shown(given)}.")
    return str(given)


# -- pictures and videos -----------------------------------------------------------------------------------


def _image_part(value: Any, place: RecordPlace) -> dict[str, Any]:
    if isinstance(value, Image.Image | np.ndarray):
        return {"type": "image", "image": value}
    return {"type": "image", "image": _path(value, place)}


def _video_part(value: Any, place: RecordPlace) -> dict[str, Any]:
    given = _present(value) if isinstance(value, Mapping) else {"path": value}
    _require_known(given, ("path", "fps", "times_s"), "A video")
    if {"fps", "times_s"} <= set(given):
        raise DataError("has both 'fps' and 'times_s'. Leave one out.")
    if "fps" in given and not (_is_number(given["fps"]) and given["fps"] > 0):
        raise DataError(f"'fps' must be a number > 0, got {shown(given['fps'])}.")
    times_s = given.get("times_s", [])
    if not isinstance(times_s, list | tuple) or not all(map(_is_number, times_s)):
        raise DataError(f"'times_s' must be a list of seconds, got {shown(times_s)}.")
    path = given.pop("path", None)
    frames = [_path(frame, place) for frame in path] if isinstance(path, list | tuple) and path else None
    return {"type": "video", "video": frames or _path(path, place)} | given


def _path(value: Any, place: RecordPlace) -> str:
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else value
    if not isinstance(path, str) or not path or "\0" in path or len(path) > _MOST_CHARACTERS:
        length = f" of {len(path):,} characters" if isinstance(path, str) and len(path) > _MOST_CHARACTERS else ""
        reason = why_no_path(path) if isinstance(path, str) else ""
        raise DataError(f"must be a path, got {shown(value)}{length}{reason and f': {reason}'}.")
    if reason := why_no_path(path):
        raise ImageError(f"{shown(path)} is no path: {reason}.")
    return place.path(path)


def _is_number(value: Any) -> bool:
    return (isinstance(value, float | np.floating) or _is_integer(value)) and abs(value) <= sys.float_info.max


def _sizes_hw(given: Any, num_media: int) -> tuple[tuple[int, int] | None, ...]:
    if given is None:
        return ()
    is_pair = isinstance(given, list | tuple) and len(given) == 2 and not all(map(_may_be_size, given))
    sizes = [given] if is_pair and num_media == 1 else given
    if not isinstance(sizes, list | tuple) or len(sizes) != num_media or (is_pair and num_media != 1):
        raise DataError(
            f"must be [height, width], or a list of such for each picture and then each video ({num_media} here), "
            f"got {shown(given)}."
        )
    return tuple(None if size is None else _size_hw(size) for size in sizes)


def _may_be_size(value: Any) -> bool:
    return value is None or isinstance(value, list | tuple)


def _size_hw(given: Any) -> tuple[int, int]:
    sides = tuple(given) if isinstance(given, list | tuple) else ()
    if len(sides) != 2 or not all(_is_whole(side) and side > 0 for side in sides):
        raise DataError(f"must be two positive integers [height, width], got {shown(given)}.")
    return int(sides[0]), int(sides[1])


def _is_whole(value: Any) -> bool:
    """Whether it is an integer, or a float that is one: tables write 640 as 640.0."""
    return _is_integer(value) or (isinstance(value, float | np.floating) and float(value).is_integer())


# -- regions -----------------------------------------------------------------------------------------------


def _on_medium(region: Region | VideoRegion, counts: Mapping[MediaKind, int]) -> Region | VideoRegion:
    """A region, known to lie on a picture or video that the sample has (or the sample has none at all)."""
    kind: MediaKind = "image" if isinstance(region, Region) else "video"
    index = region.image_index if isinstance(region, Region) else region.video_index
    if index >= counts[kind] and any(counts.values()):
        hint = "" if kind == "video" or counts["image"] else ' On a video, say on which frame: {"frames": {"0": ...}}.'
        raise RegionError(f"it lies on {kind} {index}, but the sample has {_count(counts[kind], kind)}.{hint}")
    return region


def _clipped(
    region: Region | VideoRegion, num_images: int, media_hw: Sequence[tuple[int, int] | None]
) -> Region | VideoRegion:
    medium = region.image_index if isinstance(region, Region) else num_images + region.video_index
    hw = media_hw[medium] if medium < len(media_hw) else None
    if hw is None:
        raise RegionError("clip needs the size of the picture or video that it lies on: say its height and width.")
    return region.clipped(hw)


def _read_region(value: Any, place: RecordPlace) -> Region | VideoRegion:
    if isinstance(value, Region | VideoRegion):
        return value
    if not isinstance(value, Mapping):
        raise RegionError(f'must be an object such as {{"box": [x1, y1, x2, y2]}}, got {shown(value)}.')
    given = _present(value)
    if "frames" in given:
        return _read_video_region(given, place)
    image_index = _index(given.pop("image", 0), "image")
    return _read_shape(given, place).on_image(image_index)


def _read_video_region(given: Mapping[str, Any], place: RecordPlace) -> VideoRegion:
    _require_known(given, ("frames", "absent", "video"), "A region of a video")
    frames = given["frames"]
    if not isinstance(frames, Mapping):
        raise RegionError(f'\'frames\' must be an object such as {{"0": {{"box": ...}}}}, got {shown(frames)}.')
    regions: dict[int, Region] = {}
    for name, value in _present(frames).items():
        frame = _frame(name, "the keys of 'frames'")
        with placed(frame=frame):
            if frame in regions:
                raise RegionError("is named twice.")
            if not isinstance(value, Mapping):
                raise RegionError(f'must be an object such as {{"box": ...}}, got {shown(value)}.')
            regions[frame] = _read_shape(_present(value), place)
    return VideoRegion(regions, _index(given.get("video", 0), "video"), _absent(given.get("absent", ())))


def _absent(frames: Any) -> tuple[int, ...]:
    if not isinstance(frames, list | tuple):
        raise RegionError(f"'absent' must be a list of frame indices, got {shown(frames)}.")
    return tuple(_frame(frame, "the items of 'absent'") for frame in frames)


def _frame(name: Any, what: str) -> int:
    if _is_integer(name) and name >= 0:
        return int(name)
    if isinstance(name, str) and name.isascii() and name.isdigit():
        return int(name)
    raise RegionError(f"{what} must be frame indices from 0, got {shown(name)}.")


def _index(value: Any, kind: MediaKind) -> int:
    if not _is_integer(value) or value < 0:
        raise RegionError(f"'{kind}' must say which {kind} of the sample, from 0, got {shown(value)}.")
    return int(value)


def _read_shape(given: Mapping[str, Any], place: RecordPlace) -> Region:
    kinds = [kind for kind in _SHAPES if kind in given]
    if len(kinds) != 1:
        got = " and ".join(kinds) or ", ".join(map(repr, given)) or "nothing"
        raise RegionError(f"expected one of {', '.join(_SHAPES)}, got {got}.")
    (kind,) = kinds
    make, options = _SHAPES[kind]
    _require_known(given, (kind, *options), f"A region with '{kind}'")
    value = given[kind]
    if kind == "mask" and not isinstance(value, Image.Image):
        value = _path(value, place)
    if "value" in given and not _is_integer(given["value"]):
        raise RegionError(f"'value' must be an integer, got {shown(given['value'])}.")
    return make(value, **{name: given[key] for key, name in options.items() if key in given})


# -- messages ----------------------------------------------------------------------------------------------


class _Message(NamedTuple):
    """One message: content parts, of which `{"type": "image"}` and `{"type": "video"}` are yet to be filled."""

    role: str
    parts: list[dict[str, Any]]

    @property
    def text(self) -> str:
        return "".join(part["text"] for part in self.parts if part["type"] == "text")


def _turn(message: Any) -> _Message:
    if not isinstance(message, Mapping):
        raise DataError(f"must be an object with 'role' and 'content', got {shown(message)}.")
    given = _present(message)
    _require_known(given, ("role", "content"), "A message")
    role, content = given.get("role"), given.get("content")
    if role not in _ROLES:
        raise DataError(f"'role' must be one of {', '.join(_ROLES)}, got {shown(role)}.")
    if isinstance(content, str):
        parts = _parts_of_text(content, role)
    elif isinstance(content, list | tuple):
        parts = [_part(part) for part in content]
    else:
        raise DataError(f"'content' must be a text or a list of parts, got {shown(content)}.")
    if role == "assistant" and any(part["type"] != "text" for part in parts):
        raise DataError("an answer must be text: put pictures and videos into a message of the user.")
    return _Message(role, parts)


def _parts_of_text(text: str, role: str) -> list[dict[str, Any]]:
    pieces = [piece for piece in _MEDIA_MARKER.split(text) if piece]
    markers = [piece for piece in pieces if piece in _MEDIA_MARKERS]
    if markers and role != "user":
        raise DataError(f"{markers[0]} stands for a picture or video in texts of the user only, here is one of {role}.")
    return [
        {"type": _MEDIA_MARKERS[piece]} if piece in _MEDIA_MARKERS else {"type": "text", "text": piece}
        for piece in pieces
    ]


def _part(part: Any) -> dict[str, Any]:
    given = _present(part) if isinstance(part, Mapping) else {}
    if given.get("type") == "text" and isinstance(given.get("text"), str) and len(given) == 2:
        return given
    if given.get("type") in MEDIA_KINDS and len(given) == 1:
        return given
    raise DataError(
        'a content part must be {"type": "text", "text": ...}, or {"type": "image"} or {"type": "video"} for the next '
        f"of the sample's, got {shown(part)}."
    )


def _require_answers(turns: Sequence[_Message], place: RecordPlace) -> None:
    last = turns[-1].role
    if place.use == "learn" and last != "assistant":
        raise DataError(
            f"it has no answer to learn: its last message is of the {last}, not the assistant. A model answers such "
            "questions with pixelrefer predict."
        )
    if last == "system":
        raise DataError("it has no question: its last message is of the system, not the user.")
    for index, turn in enumerate(turns):
        if turn.role == "assistant" and not turn.text.strip():
            raise DataError(f"message {index}: the answer is empty.")


def _place_media(turns: Sequence[_Message], kind: MediaKind, media: Sequence[Any]) -> None:
    """Fill the parts that stand for media of one kind; without such, put them before the user's first text."""
    marked = [part for turn in turns for part in turn.parts if part["type"] == kind]
    if not marked and media:
        asked = next((turn for turn in turns if turn.role == "user"), None)
        if asked is None:
            raise DataError(f"it has no message of the user to show its {kind} in.")
        asked.parts[:0] = media
    elif len(marked) != len(media):
        raise DataError(
            f"its messages have {len(marked)} <{kind}> but it has {_count(len(media), kind)}. Each <{kind}> stands for "
            f"one, in order; without any, the {kind}s stand before the first question."
        )
    for part, filling in zip(marked, media, strict=False):
        part.update(filling)


def _content(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


# -- writing -----------------------------------------------------------------------------------------------


def write_record(sample: RegionSample, media_root: str | os.PathLike[str]) -> dict[str, Any]:
    """The record that `read_sample` reads as this sample.

    Masks become run lengths. Media paths below `media_root` are written relative to it, others from the root.

    Raises:
        SampleError: a picture or video is in memory, so that there is no path to write.
    """
    record: dict[str, Any] = {"id": sample.id}
    for kind in MEDIA_KINDS:
        media = [_written_media(sample, part, kind, Path(media_root)) for part in sample.media(kind)]
        if media:
            record |= {kind: media[0]} if len(media) == 1 else {f"{kind}s": media}
    if any(sample.media_hw):
        sizes = [size and list(size) for size in sample.media_hw]
        record["size"] = sizes[0] if len(sizes) == 1 else sizes
    if sample.regions:
        record["regions"] = [_written_region(region) for region in sample.regions]
    record["messages"] = _written_messages(sample)
    return record


def _written_media(sample: RegionSample, part: Mapping[str, Any], kind: MediaKind, media_root: Path) -> Any:
    source = part[kind]
    is_frames = kind == "video" and isinstance(source, list | tuple)
    paths = list(source) if is_frames else [source]
    for path in paths:
        if not isinstance(path, str | os.PathLike):
            message = f"its {kind} is in memory ({type(path).__name__}). Save it to a file and give the path."
            raise sample.error(Defect("media", message))
    written = [_relative(path, media_root) for path in paths]
    times = {key: part[key] for key in ("fps", "times_s") if key in part}
    return {"path": written if is_frames else written[0], **times} if times or is_frames else written[0]


def _relative(path: str | os.PathLike[str], media_root: Path) -> str:
    """Below the root where it is, else absolute."""
    absolute, root = Path(os.path.abspath(path)), os.path.abspath(media_root)
    return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else str(absolute)


def _written_region(region: Region | VideoRegion) -> dict[str, Any]:
    if isinstance(region, Region):
        on_image = {"image": int(region.image_index)} if region.image_index else {}
        return _written_shape(region) | on_image
    frames = {str(frame): _written_shape(there) for frame, there in region.frames.items()}
    on_video = {"video": int(region.video_index)} if region.video_index else {}
    absent = {"absent": list(region.absent)} if region.absent else {}
    return {"frames": frames} | absent | on_video


def _written_shape(region: Region) -> dict[str, Any]:
    data = region.data
    if region.kind == "box":
        return {"box": _plain(data)}
    if region.kind == "polygon":
        return {"polygon": [_plain(ring) for ring in data]}
    if region.kind in ("points", "scribble"):
        points, extent_px = data
        extent = "radius" if region.kind == "points" else "width"
        return {region.kind: [_plain(point) for point in points], extent: extent_px}
    return {"rle": _written_rle(region)}


def _written_rle(region: Region) -> dict[str, Any]:
    if region.kind == "mask":
        mask: RegionMask = region.data
        return mask.to_rle()
    runs, size_hw = region.data
    return {"size": list(size_hw), "counts": compress_rle(runs)}


def _plain(numbers: Iterable[float]) -> list[float]:
    """Whole numbers without the `.0`."""
    return [int(number) if number.is_integer() else number for number in numbers]


def _written_messages(sample: RegionSample) -> list[dict[str, Any]]:
    contents = [_written_parts(message["content"]) for message in sample.messages]
    roles = [message["role"] for message in sample.messages]
    asked = contents[roles.index("user")] if "user" in roles else []
    in_front = [{"type": kind} for kind in MEDIA_KINDS for _ in sample.media(kind)]
    if asked[: len(in_front)] == in_front:  # where reading puts them unasked
        del asked[: len(in_front)]
    return [{"role": role, "content": _written_content(parts)} for role, parts in zip(roles, contents, strict=True)]


def _written_parts(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [dict(part) if part["type"] == "text" else {"type": part["type"]} for part in content]


def _written_content(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """A text, unless media stand in it, or what would be taken for a marker of media."""
    is_text = all(part["type"] == "text" for part in parts)
    text = "".join(part["text"] for part in parts) if is_text else ""
    return text if is_text and not _MEDIA_MARKER.search(text) else parts
