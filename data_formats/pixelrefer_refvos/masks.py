"""The masks of videos' objects, read when a sample is: label maps in folders, or run lengths in one large file."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pixelrefer_plugin.authoring import (
    DataError,
    Region,
    RegionError,
    RegionMask,
    read_mask,
    read_segmentation,
    read_span,
    scan_object,
)

Known = dict[int, Region | None]
"""Frame -> the object's mask, None where it is known to be absent; frames about which nothing is known are left out."""


class Masks(Protocol):
    """Where masks are kept."""

    def key(self, expression: Mapping[str, Any]) -> tuple[str, ...]:
        """What the objects of an expression are called there.

        Raises:
            RegionError: it does not say so, or there are no such objects.
        """
        ...

    def read(self, video: str, names: Mapping[int, str], keys: Sequence[tuple[str, ...]]) -> list[Known]:
        """For each of `keys` the masks of its objects together, on the frames with these names.

        Raises:
            PixelReferError: masks that are there cannot be read.
        """
        ...


@dataclass(frozen=True)
class LabelMaps:
    """Pictures that hold an object's number at each of its pixels, `<folder>/<video>/<frame>.png`."""

    folder: Path

    def key(self, expression: Mapping[str, Any]) -> tuple[str, ...]:
        """`obj_id`: a number, several in a list, or several in a text, with commas."""
        found = _listed(expression, "obj_id")
        wrong = [each for each in found if not each.isdecimal() or int(each) == 0]
        if wrong:
            raise RegionError(f"'obj_id' must be numbers from 1, got {wrong[0]!r}.")
        return tuple(found)

    def read(self, video: str, names: Mapping[int, str], keys: Sequence[tuple[str, ...]]) -> list[Known]:
        """As `Masks.read`; of a frame without a label map nothing is known."""
        known: list[Known] = [{} for _ in keys]
        for frame, name in names.items():
            path = self.folder / video / f"{name}.png"
            if not path.exists():
                continue
            labels = _labels(path)
            for of_key, numbers in zip(known, keys, strict=True):
                inside = np.isin(labels, [int(number) for number in numbers])
                of_key[frame] = Region.from_mask(inside) if inside.any() else None
        return known


def _labels(path: Path) -> np.ndarray:
    picture = read_mask(path, name=f"Mask '{path}'")
    if picture.mode not in ("P", "L", "1", "I", "I;16"):
        raise RegionError(
            f"Mask '{path}' is a colour picture (mode {picture.mode}); expected a palette or one channel."
        )
    return np.asarray(picture)


@dataclass(frozen=True, eq=False)
class RunLengths:
    """A JSON file that maps an annotation's number to its run lengths on each frame, null where it is absent.

    Attributes:
        path: of the file.
        spans: annotation -> `(n, 2)` byte offsets, frame by frame.
    """

    path: Path
    spans: Mapping[str, np.ndarray]

    @classmethod
    def open(cls, path: Path) -> "RunLengths":
        """Index a file; raises `DataError` where it is not of this kind."""
        found: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for element in scan_object(path):
            if element.number is not None:
                found[element.key].append((element.start, element.stop))
        if not found:
            raise DataError(f"'{path}' has no masks: expected an object of lists, one item a frame.")
        return cls(path, {key: np.array(spans, dtype=np.int64) for key, spans in found.items()})

    def key(self, expression: Mapping[str, Any]) -> tuple[str, ...]:
        """`anno_id`: the keys of its objects in the file."""
        found = _listed(expression, "anno_id")
        unknown = [each for each in found if each not in self.spans]
        if unknown:
            raise RegionError(f"'anno_id' is {unknown[0]}, which '{self.path}' does not have.")
        return tuple(found)

    def read(self, video: str, names: Mapping[int, str], keys: Sequence[tuple[str, ...]]) -> list[Known]:
        """As `Masks.read`."""
        return [{frame: self._together(key, frame) for frame in names} for key in keys]

    def _together(self, key: tuple[str, ...], frame: int) -> Region | None:
        regions = [each for each in (self._one(annotation, frame) for annotation in key) if each is not None]
        if len(regions) < 2:
            return regions[0] if regions else None
        _, size_hw = regions[0].data
        return Region("mask", RegionMask.union([region.to_mask(size_hw) for region in regions]))

    def _one(self, annotation: str, frame: int) -> Region | None:
        spans = self.spans[annotation]
        if frame >= len(spans):
            raise RegionError(
                f"annotation {annotation} has masks of {len(spans)} frames, expected one of frame {frame}."
            )
        start, stop = spans[frame].tolist()
        return read_segmentation(read_span(self.path, start, stop))


def _listed(expression: Mapping[str, Any], key: str) -> list[str]:
    """Ids that may be one, a list, or a text with commas, as texts."""
    ids = expression.get(key)
    found = ids.split(",") if isinstance(ids, str) else ids if isinstance(ids, list) else [ids]
    texts = [str(each).strip() for each in found if each is not None and str(each).strip()]
    if not texts:
        raise RegionError(f"it has no '{key}', got {ids!r}.")
    return texts
