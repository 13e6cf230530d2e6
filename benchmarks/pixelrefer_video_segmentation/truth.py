"""True masks of videos' objects, read one frame at a time: run lengths in a large file, or label maps in folders."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pixelrefer_plugin.authoring import (
    DataError,
    RegionError,
    RegionMask,
    official_json,
    read_mask,
    read_plain_pickle,
    read_segmentation,
    read_span,
    scan_object,
    shown,
)

_MOST_CHARACTERS = 60  # of an id in a message


class Masks(Protocol):
    """The masks of the objects that an expression means."""

    def objects(self, frame: int) -> list[RegionMask]:
        """One by one, on a frame; without those that are not seen there.

        Raises:
            DataError: they cannot be read.
        """
        ...


@dataclass(frozen=True, eq=False)
class RunLengths:
    """Run lengths of every annotation, frame by frame.

    Attributes:
        path: of the file.
        read: by annotation, what its file has for a frame.
        lengths: by annotation, how many frames there are.
    """

    path: Path
    read: Callable[[str, int], Any]
    lengths: Mapping[str, int]

    @classmethod
    def open_json(cls, path: Path, *, below: str | None = None) -> "RunLengths":
        """A JSON object of lists, one item a frame, or of objects that hold such a list `below` a key."""
        if below is not None:
            return cls._of(path, {key: each.get(below) for key, each in read_object(path).items()})
        spans: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for element in scan_object(path):
            if element.number is not None:
                spans[element.key].append((element.start, element.stop))

        def read(key: str, frame: int) -> Any:
            return read_span(path, *spans[key][frame])

        return cls(path, read, {key: len(found) for key, found in spans.items()})

    @classmethod
    def open_pickle(cls, path: Path) -> "RunLengths":
        """The same object, pickled."""
        return cls._of(path, read_plain_pickle(path))

    @classmethod
    def _of(cls, path: Path, found: Any) -> "RunLengths":
        if not isinstance(found, Mapping) or not all(isinstance(each, list) for each in found.values()):
            raise DataError(f"'{path}' must hold an object of lists, one item a frame.")
        of_key = {str(key): each for key, each in found.items()}
        return cls(path, lambda key, frame: of_key[key][frame], {key: len(each) for key, each in of_key.items()})

    def one(self, key: str, frame: int) -> list[RegionMask]:
        """What an annotation has on a frame: none, one mask, or several.

        Raises:
            DataError: there is no such annotation, or it has too few frames, or run lengths are malformed.
        """
        if frame >= self.lengths.get(key, 0):
            raise DataError(
                f"'{self.path}' has masks of {self.lengths.get(key, 0)} frames for '{key[:_MOST_CHARACTERS]}', "
                f"expected one of frame {frame}."
            )
        found = self.read(key, frame)
        try:
            regions = [read_segmentation(each) for each in (found if isinstance(found, list) else [found])]
            return [region.to_mask(region.data[1]) for region in regions if region is not None]
        except (RegionError, TypeError, ValueError, IndexError) as error:
            raise DataError(f"'{self.path}', '{key[:_MOST_CHARACTERS]}', frame {frame}: {error}") from error


@dataclass(frozen=True, eq=False)
class Annotations:
    """An expression's objects in a file of run lengths."""

    masks: RunLengths
    keys: tuple[str, ...]

    def objects(self, frame: int) -> list[RegionMask]:
        """As `Masks.objects`."""
        found = [mask for key in self.keys for mask in self.masks.one(key, frame)]
        sizes = sorted({mask.image_hw for mask in found})
        if len(sizes) > 1:
            raise DataError(
                f"'{self.masks.path}', frame {frame}: the masks of annotations {', '.join(self.keys)} must be of one "
                f"size, got {sizes}, each (height, width)."
            )
        return found


@dataclass(frozen=True, eq=False)
class LabelMaps:
    """An expression's objects in pictures that hold an object's number at each of its pixels."""

    folder: Path
    names: Sequence[str]
    numbers: tuple[int, ...]

    def objects(self, frame: int) -> list[RegionMask]:
        """As `Masks.objects`."""
        path = self.folder / f"{self.names[frame]}.png"
        try:
            labels = np.asarray(read_mask(path, name=f"Mask '{path}'"))
        except RegionError as error:
            raise DataError(str(error)) from error
        if labels.ndim != 2:
            raise DataError(f"Mask '{path}' is a colour picture; expected a palette or one channel.")
        return [RegionMask.from_dense(labels == number) for number in self.numbers if (labels == number).any()]


@dataclass(frozen=True, eq=False)
class Foreground:
    """What any expression about a video means, frame by frame."""

    masks: RunLengths
    video: str

    def covered(self, frame: int) -> list[RegionMask]:
        """The masks of a frame, whose union it is; raises as `Masks.objects`."""
        return self.masks.one(self.video, frame)


def read_object(path: Path) -> Mapping[str, Any]:
    """A JSON object of objects.

    Raises:
        DataError: it cannot be read, or is none.
    """
    found = official_json(path)
    if not isinstance(found, Mapping) or not all(isinstance(each, Mapping) for each in found.values()):
        raise DataError(f"'{path}' must hold an object of objects, got {shown(found)}.")
    return found
