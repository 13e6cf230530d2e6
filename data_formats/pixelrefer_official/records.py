"""Reads records of the official training files of PixelRefer and VideoRefer.

PixelRefer keeps an object's masks under `masks`, VideoRefer under `annotation`, each mask in a `segmentation` of its
own; on videos both map frame indices to masks. What else the official code takes is taken here: no width and height,
frames without a mask, one video as a list, a list of frames with `timestamps`, answers before the first question.
Source: `VideoRefer/training.md`, `PixelRefer/README.md` and the `train.py` of each in
https://github.com/alibaba-damo-academy/PixelRefer.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from itertools import dropwhile
from typing import Any

from pixelrefer_plugin.authoring import (
    Defect,
    RecordPlace,
    Region,
    RegionError,
    RegionSample,
    VideoRegion,
    collecting,
    read_sample,
    read_segmentation,
    read_turns,
    shown,
    size_of,
)

from .config import OfficialConfig

_MOST_DIGITS = 10  # of a frame index
_FOREIGN_KEYS = {"messages", "file_name"}  # of our own schema, and of Osprey


def is_pixelrefer(record: Mapping[str, Any]) -> bool:
    """Turns, and perhaps `masks`."""
    return _has_turns(record) and record.get("annotation") is None


def is_videorefer(record: Mapping[str, Any]) -> bool:
    """Turns and `annotation`."""
    return _has_turns(record) and record.get("annotation") is not None


def _has_turns(record: Mapping[str, Any]) -> bool:
    return isinstance(record.get("conversations"), list | tuple) and not _FOREIGN_KEYS & set(record)


def read_record(config: OfficialConfig, record: Mapping[str, Any], place: RecordPlace) -> RegionSample:
    """The sample of one record; raises `SampleError` with all that is wrong with it."""
    defects: list[Defect] = []
    turns = read_turns(record.get("conversations"), defects)
    translated = {
        "id": record.get("id"),
        **_media(config, record, place),
        "messages": list(dropwhile(lambda message: message["role"] == "assistant", turns)),
    }
    objects = _objects(record, defects)
    frame_of = _frames_named(record, objects)
    regions: list[Region | VideoRegion | None] = []
    for number, found in enumerate(objects):
        region: Region | VideoRegion | None = None
        with collecting(defects, "region", f"object {number}"):
            region = _video_object(found, frame_of) if "video" in translated else _image_object(found)
            if region is None:
                raise RegionError(f"it has no mask{' on any frame' if 'video' in translated else ''}.")
        regions.append(region)
    return read_sample(translated, place, regions=regions, defects=defects)


def _media(config: OfficialConfig, record: Mapping[str, Any], place: RecordPlace) -> dict[str, Any]:
    """Its pictures or its video, and their size; a picture comes before a video, as in the official code."""
    size = size_of(record)
    image, video = record.get("image"), record.get("video")
    if image is not None:
        images = list(image) if isinstance(image, list | tuple) else [image]
        return {"images": images, "size": size and [size, *[None] * (len(images) - 1)]}
    if video is None:
        return {}
    if isinstance(video, list | tuple) and len(video) == 1:
        (video,) = video
    times: dict[str, Any] = {}
    if isinstance(video, list | tuple) and record.get("timestamps"):
        times = {"times_s": record["timestamps"]}
    elif isinstance(video, list | tuple) or os.path.isdir(place.path(str(video))):
        times = {"fps": config.folder_fps}
    return {"video": {"path": video, **times}, "size": size}


def _objects(record: Mapping[str, Any], defects: list[Defect]) -> Sequence[Any]:
    given = {key: record[key] for key in ("masks", "annotation") if record.get(key) is not None}
    if len(given) > 1:
        defects.append(Defect("format", "it has both 'masks' and 'annotation'; expected one of them."))
    for key, objects in given.items():
        if not isinstance(objects, list | tuple):
            defects.append(Defect("format", f"'{key}' must be a list of objects, got a {type(objects).__name__}."))
            return []
    return next(iter(given.values()), [])


def _image_object(found: Any) -> Region | None:
    if _is_by_frame(found) and len(found) == 1:  # VideoRefer puts a picture's mask on frame "0"
        found = next(iter(found.values()))
    return read_segmentation(found)


def _video_object(found: Any, frame_of: Callable[[int], int]) -> VideoRegion | None:
    """One object; frames without a mask are left out. None where no frame has one."""
    if not _is_by_frame(found):
        raise RegionError("it must map frame indices to masks, such as {'12': {'size': ..., 'counts': ...}}.")
    frames: dict[int, Region] = {}
    for key, value in found.items():
        region = read_segmentation(value)
        if region is None:
            continue
        frame = frame_of(int(key))
        if frame in frames:
            raise RegionError(f"it has two masks on frame {frame}.")
        frames[frame] = region
    return VideoRegion(frames) if frames else None


def _is_by_frame(found: Any) -> bool:
    return isinstance(found, Mapping) and all(str(key).isdecimal() and len(str(key)) < _MOST_DIGITS for key in found)


def _frames_named(record: Mapping[str, Any], objects: Sequence[Any]) -> Callable[[int], int]:
    """From the frame indices that the objects name to those of the video.

    They are the same, except where the frames with masks are listed apart, under `masked_video`: one for each index,
    in the order in which the objects first name them. Each must be among the frames of the video.
    """
    masked, video = record.get("masked_video"), record.get("video")
    if not masked or not isinstance(video, list | tuple) or len(video) == 1:
        return lambda frame: frame
    order = dict.fromkeys(int(key) for found in objects if _is_by_frame(found) for key in found)
    is_list = isinstance(masked, list | tuple)
    path_of = dict(zip(order, masked, strict=False)) if is_list else {}

    def index(frame: int) -> int:
        if not is_list or len(masked) != len(order):
            count = len(masked) if is_list else shown(masked)
            raise RegionError(f"'masked_video' must have a picture for each of {len(order)} frames, got {count}.")
        path = path_of[frame]
        if video.count(path) != 1:
            how_often = "is there several times in" if path in video else "is not one of"
            raise RegionError(f"the picture of frame {frame} in 'masked_video', {shown(path)}, {how_often} 'video'.")
        return video.index(path)

    return index
