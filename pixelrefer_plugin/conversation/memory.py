"""`ObjectMemory`: the objects of one image or video that a conversation calls by number, kept from turn to turn.

It knows regions, and the size and frames of what they lie on. It knows no model and no text: a processor writes its
objects into a prompt anew with every call, and no call changes it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..contracts.messages import MOST_DIGITS
from ..errors import (
    DataError,
    FrameError,
    ImageError,
    PixelReferError,
    PromptError,
    RegionError,
    SourceError,
    placed,
    shown,
)
from ..files import written_whole
from ..json_text import read_json
from ..media.images import load_image
from ..media.video import Video
from ..regions.region import Region, VideoRegion

if TYPE_CHECKING:
    from ..contracts.masks import SegmentedObject
    from ..contracts.region_source import RegionSource

_FRAME_INDEX = re.compile(rf"0|[1-9][0-9]{{0,{MOST_DIGITS - 1}}}")
_FORMAT = "pixelrefer-memory"
_VERSION = 1


@dataclass(frozen=True)
class MemoryObject:
    """An object of a memory.

    Attributes:
        id: the number that texts call it by, from 1.
        name: what the user calls it; not part of a prompt.
        region: where it is: a `Region` on an image, a `VideoRegion` on a video.
    """

    id: int
    name: str | None
    region: Region | VideoRegion


class ObjectMemory:
    """The objects of one image or video, by their ids.

        memory = ObjectMemory(image)
        cat = memory.add(Region.from_box((90, 60, 180, 140)), name="cat")
        inputs = processor([user(image, f"what does [{cat}] look at?")], memory=memory)

    Iterating gives its objects in the order in which they were added. Whatever raises leaves the memory as it was.

    Args:
        media: the image, as `load_image` takes it, or a `Video` (of `load_video`), whose sampled frames count.
        max_objects: the most objects that it may hold.

    Raises:
        ImageError: the image cannot be read.
        PromptError: `max_objects` is no integer >= 1.
    """

    def __init__(
        self, media: str | os.PathLike[str] | Image.Image | np.ndarray | Video, *, max_objects: int = 32
    ) -> None:
        self.media: Image.Image | Video = media if isinstance(media, Video) else load_image(media)
        if not _is_count(max_objects):
            raise PromptError(f"ObjectMemory.max_objects must be an integer >= 1, got {shown(max_objects)}.")
        self.max_objects = max_objects
        self._objects: dict[int, MemoryObject] = {}

    @property
    def is_video(self) -> bool:
        """Whether its objects lie on a video."""
        return isinstance(self.media, Video)

    @property
    def image_hw(self) -> tuple[int, int]:
        """Height and width of the image, or of the video's frames."""
        return self.media.image_hw if isinstance(self.media, Video) else (self.media.height, self.media.width)

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[MemoryObject]:
        return iter(list(self._objects.values()))

    def __contains__(self, id: object) -> bool:
        return id in self._objects

    def __getitem__(self, id: int) -> MemoryObject:
        """The object called by `id`. Raises `PromptError` that lists the ids that there are."""
        if id not in self._objects:
            held = ", ".join(map(str, self._objects)) or "none"
            raise PromptError(f"The memory has no object {shown(id)}. Its objects: {held}.")
        return self._objects[id]

    def add(
        self,
        region: Region | VideoRegion | Mapping[int, Region],
        *,
        id: int | None = None,
        name: str | None = None,
        source: RegionSource | None = None,
    ) -> int:
        """Remember an object.

        Args:
            region: on an image a `Region`; on a video a `VideoRegion` or `{frame index: Region}`, on sampled frames.
            id: what it is called by; by default one more than the highest there is.
            name: what the user calls it.
            source: a region source (`load_region_source`) that finds the object's mask, or its masks on all
                sampled frames, from the clicks or the box given. By default their own pixels are taken.

        Returns:
            Its id.

        Raises:
            RegionError: the region does not fit the image or the frame.
            FrameError: it lies on a frame that is not sampled.
            PromptError: the id is taken or no integer >= 1, or the memory is full.
            SourceError: the source finds nothing there.
        """
        (added,) = self._added([(region, id, name)])
        if source is not None:
            added = replace(added, region=self._found(added.region, source))
        self._objects[added.id] = added
        return added.id

    def add_answer(self, objects: Sequence[SegmentedObject], *, ids: Sequence[int] | None = None) -> list[int]:
        """Remember the objects of an answer: all of them or, where one cannot be, none.

        Args:
            objects: what `RegionModel.generate` segmented in one conversation's answer.
            ids: what they are called by. By default each by the number that the answer gave it, or else by one more
                than the highest there is.

        Returns:
            Their ids, in order.

        Raises:
            PromptError: an object is seen nowhere, two have one id, an id is taken, or they are more than the memory
                may hold.
            RegionError: a mask does not fit the memory's image or video.
        """
        if ids is not None and len(ids) != len(objects):
            raise PromptError(f"ids must be one for each of the {len(objects)} objects, got {len(ids)}.")
        wanted: Sequence[int | None] = [each.id for each in objects] if ids is None else ids
        given: list[tuple[Any, int | None, str | None]] = []
        for number, (each, id) in enumerate(zip(objects, wanted, strict=True)):
            if each.region is None:
                raise PromptError(
                    f"Object {number} of the answer is seen nowhere, so there is nothing to remember. Leave it out."
                )
            given.append((each.region, id, None))
        added = self._added(given)
        self._objects.update({each.id: each for each in added})
        return [each.id for each in added]

    def checked(self, region: Any) -> Region | VideoRegion:
        """A region, known to lie on the image, or on sampled frames of the video. It need not be an object.

        Raises:
            RegionError: it does not fit the image or the frame, or is none.
            FrameError: it lies on a frame that is not sampled.
        """
        if isinstance(self.media, Video):
            region = VideoRegion(region) if isinstance(region, Mapping) else region
            if not isinstance(region, VideoRegion):
                raise RegionError(
                    f"A region of a video is a VideoRegion or {{frame index: region}}, got {type(region).__name__}: "
                    "say on which frame it lies."
                )
            for frame in region.frames:
                self.media.position(frame)
            region.require_on(self.image_hw)
            beyond = [frame for frame in region.absent if frame >= self.media.num_source_frames]
            if beyond:
                raise FrameError(
                    f"The object is said to be absent from frame {beyond[0]}, but the video has "
                    f"{self.media.num_source_frames} frames."
                )
            return region.on_video(0)
        if not isinstance(region, Region):
            raise RegionError(f"A region of an image is a Region, got {type(region).__name__}.")
        region.require_on(self.image_hw)
        return region.on_image(0)

    def rename(self, id: int, name: str | None) -> None:
        """Call an object by another name. Raises `PromptError` where there is no such object."""
        self._objects[id] = replace(self[id], name=_checked_name(name))

    def drop(self, id: int) -> None:
        """Forget an object; the others keep their ids. Raises `PromptError` where there is no such object."""
        del self._objects[self[id].id]

    def clear(self) -> None:
        """Forget all objects."""
        self._objects.clear()

    def copy(self) -> ObjectMemory:
        """Another memory of the same image or video, with the same objects."""
        copied = ObjectMemory.__new__(ObjectMemory)
        copied.media, copied.max_objects, copied._objects = self.media, self.max_objects, dict(self._objects)
        return copied

    def restore(self, copied: ObjectMemory) -> None:
        """Hold what a copy of this memory holds, and nothing else.

        Raises:
            PromptError: it is no copy of this memory.
        """
        if copied.media is not self.media:
            raise PromptError("A memory can be restored from its own copies only: the other one's media are others.")
        self.max_objects, self._objects = copied.max_objects, dict(copied._objects)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the objects as JSON, their masks in COCO's run-length encoding; the file appears whole or not at all.

        Boxes and clicks are written beside their masks, and come back as they were drawn. The image or video itself is
        not written.

        Raises:
            PixelReferError: the file cannot be written.
        """
        media: dict[str, Any] = {"kind": _KINDS[self.is_video], "size": list(self.image_hw)}
        if isinstance(self.media, Video):
            media["num_frames"] = self.media.num_source_frames
        written = {
            "format": _FORMAT,
            "version": _VERSION,
            "media": media,
            "max_objects": self.max_objects,
            "objects": [self._written(each) for each in self],
        }
        with written_whole(Path(path)) as made:
            made.write_text(json.dumps(written), encoding="utf-8")

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], media: str | os.PathLike[str] | Image.Image | np.ndarray | Video
    ) -> ObjectMemory:
        """Read what `save` wrote.

        Args:
            path: the file.
            media: the image or the video that the memory was made for.

        Raises:
            DataError: the file cannot be read, is no memory or a damaged one, or was made for another image or video.
            ImageError: the image cannot be read.
        """
        data = _read_json(path)
        with _damaged(path):
            memory = cls(media, max_objects=_field(data, "max_objects", int))
            memory._require_same_media(_field(data, "media", dict))
            listed = _field(data, "objects", list)
            given = []
            for number, each in enumerate(listed):
                with placed(subject=f"object {number}"):
                    given.append((memory._read(each), _field(each, "id", int), each.get("name")))
            memory._objects.update({each.id: each for each in memory._added(given)})
        return memory

    @staticmethod
    def saved_frames(path: str | os.PathLike[str]) -> list[int]:
        """The frames of a video that the objects of a saved memory lie on; none of an image's.

            frames = ObjectMemory.saved_frames("objects.json")
            memory = ObjectMemory.load("objects.json", load_video("street.mp4", frames=frames))

        Raises:
            DataError: the file cannot be read, is no memory or a damaged one.
        """
        data = _read_json(path)
        with _damaged(path):
            if _field(_field(data, "media", dict), "kind", str) != _KINDS[True]:
                return []
            frames: set[int] = set()
            for number, each in enumerate(_field(data, "objects", list)):
                with placed(subject=f"object {number}"):
                    frames.update(_read_frames(each))
        return sorted(frames)

    def _added(self, given: Sequence[tuple[Any, int | None, str | None]]) -> list[MemoryObject]:
        """Checked objects from regions, ids and names, the memory as it is."""
        if len(self) + len(given) > self.max_objects:
            raise PromptError(
                f"The memory may hold {self.max_objects} objects and has {len(self)}: there is no room for "
                f"{len(given)} more. Drop some, or make it with a higher max_objects."
            )
        taken, added = set(self._objects), []
        for number, (region, id, name) in enumerate(given):
            which = "" if len(given) == 1 else f"Object {number}: "
            id = max(taken, default=0) + 1 if id is None else id
            if not _is_count(id):
                raise PromptError(f"{which}An object's id must be an integer >= 1, got {shown(id)}.")
            if id >= 10**MOST_DIGITS:
                raise PromptError(f"{which}An object's id may have {MOST_DIGITS} digits, got {shown(id)}.")
            if id in taken:
                raise PromptError(f"{which}The id {id} is taken: two objects cannot have one id. Leave it out.")
            taken.add(id)
            with placed(object_id=id):
                added.append(MemoryObject(int(id), _checked_name(name), self.checked(region)))
        return added

    def _found(self, region: Region | VideoRegion, source: RegionSource) -> Region | VideoRegion:
        """What a region source makes of clicks or a box."""
        found: Region | VideoRegion | None
        if isinstance(self.media, Video):
            assert isinstance(region, VideoRegion), "checked"
            [found] = source.track(self.media, [region])
        else:
            assert isinstance(region, Region), "checked"
            [found] = source.segment(self.media, [region])
        if found is None:
            raise SourceError("The region source finds the object nowhere. Move the box or clicks, or add clicks.")
        return self.checked(found)

    def _written(self, each: MemoryObject) -> dict[str, Any]:
        region = each.region
        if isinstance(region, Region):
            return {"id": each.id, "name": each.name, "rle": _written_shape(region, self.image_hw)}
        frames = {str(frame): _written_shape(shape, self.image_hw) for frame, shape in region.frames.items()}
        return {"id": each.id, "name": each.name, "frames": frames, "absent": list(region.absent)}

    def _read(self, written: Any) -> Region | VideoRegion:
        if not self.is_video:
            return _read_shape(_field(_object(written), "rle", dict))
        regions = {}
        for frame, shape in _read_frames(written).items():
            with placed(frame=frame):
                regions[frame] = _read_shape(shape)
        return VideoRegion(regions, absent=tuple(_field(written, "absent", list)))

    def _require_same_media(self, written: Mapping[str, Any]) -> None:
        kind, size = _field(written, "kind", str), _field(written, "size", list)
        if kind != _KINDS[self.is_video]:
            raise DataError(f"it was made for {_an(kind)}, got {_an(_KINDS[self.is_video])}.")
        if size != list(self.image_hw):
            raise DataError(
                f"it was made for pictures of [height, width] {shown(size)}, got {list(self.image_hw)}. Is it another "
                f"{kind}?"
            )
        if isinstance(self.media, Video):
            num_frames = _field(written, "num_frames", int)
            if num_frames != self.media.num_source_frames:
                raise DataError(
                    f"it was made for a video of {shown(num_frames)} frames, got one of "
                    f"{self.media.num_source_frames}. Is it another video?"
                )


def _object(written: Any) -> dict[str, Any]:
    if not isinstance(written, dict):
        raise DataError(f"expected a JSON object, got {type(written).__name__}.")
    return written


def _read_frames(written: Any) -> dict[int, Any]:
    """What is written of each frame of an object of a video."""
    frames = _field(_object(written), "frames", dict)
    for name in frames:
        if not _FRAME_INDEX.fullmatch(name):
            raise DataError(f"the keys of 'frames' must be frame indices, got {shown(name)}.")
    return {int(name): shape for name, shape in frames.items()}


def _written_shape(shape: Region, image_hw: tuple[int, int]) -> dict[str, Any]:
    """Its pixels as COCO has them, and beside them the box or the clicks that they were made from: there are adapters
    to which a click is no mask."""
    drawn: dict[str, Any] = {}
    if shape.kind == "box":
        drawn = {"box": list(shape.data)}
    elif shape.kind == "points":
        points, radius_px = shape.data
        drawn = {"points": [list(point) for point in points], "radius_px": radius_px}
    return shape.to_rle(image_hw) | drawn


def _read_shape(written: Any) -> Region:
    drawn: Mapping[str, Any] = written if isinstance(written, Mapping) else {}
    if "box" in drawn:
        return Region.from_box(drawn["box"])
    if "points" in drawn:
        return Region.from_points(drawn["points"], radius_px=drawn.get("radius_px", 0.0))
    return Region.from_rle(written)


_KINDS = {False: "image", True: "video"}


def _an(kind: str) -> str:
    return {"image": "an image", "video": "a video"}.get(kind, repr(kind))


def _is_count(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) >= 1


def _checked_name(name: Any) -> str | None:
    if name is None or (isinstance(name, str) and name.strip()):
        return name
    raise PromptError(f"An object's name must be a text, or None for none, got {shown(name)}.")


@contextmanager
def _damaged(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns what is wrong with the data of a file into an error that names the file."""
    try:
        yield
    except ImageError:  # the image that was given with it
        raise
    except PixelReferError as error:
        raise DataError(f"Memory '{path}' cannot be used: {error}") from error


def _read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        data = read_json(path, file_names=True)
    except OSError as error:
        raise DataError(f"Memory '{path}' cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise DataError(f"Memory '{path}' is no JSON that can be read: {error}. Is the file complete?") from error
    if not isinstance(data, dict) or data.get("format") != _FORMAT:
        raise DataError(f"'{path}' is no memory that ObjectMemory.save wrote.")
    version = data.get("version")
    if type(version) is not int or version != _VERSION:
        raise DataError(
            f"Memory '{path}' is of format version {shown(version)}, this package reads {_VERSION}. Is it from a "
            "newer one?"
        )
    return data


def _field(data: Mapping[str, Any], name: str, kind: type) -> Any:
    value = data.get(name)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise DataError(f"'{name}' must be of type {kind.__name__}, got {shown(value)}.")
    return value
