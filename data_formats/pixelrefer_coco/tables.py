"""A COCO file, indexed: where its annotations and images stand, and what they are chosen by.

Annotations are parsed once, to find them, and then let go; one is parsed again when its sample is asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixelrefer_plugin.authoring import DataError, Element, read_span, scan_object

Id = int | float | str | None
"""Of an annotation, an image or a category; None where it has none that can be used."""


@dataclass(frozen=True, eq=False)
class CocoTables:
    """The annotations, images and categories of one file. A is the number of annotations.

    Attributes:
        path: of the file.
        annotation_spans: `(A, 2)` byte offsets.
        annotation_ids: of each annotation, or None.
        image_row: `(A,)` its image, counted from 0; -1 where the file has none with its `image_id`.
        category_ids: of each annotation, or None.
        is_crowd: `(A,)` bool.
        area_px: `(A,)`; of its box where it has no `area`; NaN where it has neither.
        image_spans: byte offsets of the images.
        partial: image, counted from 0, and category of which that image has objects without an annotation, as LVIS
            tells them.
        categories: id -> category.
    """

    path: Path
    annotation_spans: np.ndarray
    annotation_ids: list[Id]
    image_row: np.ndarray
    category_ids: list[Id]
    is_crowd: np.ndarray
    area_px: np.ndarray
    image_spans: np.ndarray
    partial: frozenset[tuple[int, Id]]
    categories: Mapping[Id, Mapping[str, Any]]

    @classmethod
    def open(cls, path: Path) -> "CocoTables":
        """Index a file; raises `DataError` where it is not of this kind."""
        found: dict[str, list[Element]] = {"annotations": [], "images": [], "categories": []}
        annotations = []
        partial: set[tuple[int, Id]] = set()
        for element in scan_object(path):
            if element.number is None or element.key not in found:
                continue
            if element.key == "annotations":
                annotations.append(_annotation_columns(element.value))
            if element.key == "images":
                partial |= {(element.number, id) for id in _not_exhaustive(element.value)}
            found[element.key].append(element if element.key == "categories" else element._replace(value=_id(element)))
        for key in ("annotations", "images"):
            if not found[key]:
                raise DataError(
                    f"'{path}' has no {key}: expected a list of them under '{key}', as COCO's instances have."
                )
        ids, image_ids, category_ids, crowd, area_px = zip(*annotations, strict=True)
        row_of_image = _rows([element.value for element in found["images"]], "image", path)
        return cls(
            path=path,
            annotation_spans=_spans(found["annotations"]),
            annotation_ids=list(ids),
            image_row=np.array([row_of_image.get(id, -1) for id in image_ids], dtype=np.int64),
            category_ids=list(category_ids),
            is_crowd=np.array(crowd, dtype=bool),
            area_px=np.array(area_px, dtype=np.float64),
            image_spans=_spans(found["images"]),
            partial=frozenset(partial),
            categories=_categories(path, found["categories"]),
        )

    def __len__(self) -> int:
        return len(self.annotation_spans)

    def annotation(self, row: int) -> Any:
        """The annotation, parsed."""
        return read_span(self.path, *map(int, self.annotation_spans[row]))

    def image(self, row: int) -> Any:
        """The image, parsed."""
        return read_span(self.path, *map(int, self.image_spans[row]))


def _annotation_columns(annotation: Any) -> tuple[Id, Id, Id, bool, float]:
    if not isinstance(annotation, Mapping):
        return None, None, None, False, np.nan
    id, image_id, category_id = (hashable(annotation.get(key)) for key in ("id", "image_id", "category_id"))
    return id, image_id, category_id, annotation.get("iscrowd") in (1, True), _area_px(annotation)


def _not_exhaustive(image: Any) -> list[Id]:
    found = image.get("not_exhaustive_category_ids") if isinstance(image, Mapping) else None
    return [hashable(id) for id in found] if isinstance(found, list) else []


def _area_px(annotation: Mapping[str, Any]) -> float:
    area, box = annotation.get("area"), annotation.get("bbox")
    try:
        if isinstance(area, int | float):
            return float(area)
        if isinstance(box, list) and len(box) == 4 and all(isinstance(side, int | float) for side in box):
            return float(box[2] * box[3])
    except OverflowError:  # JSON's integers have no limit
        return np.inf
    return np.nan


def _id(element: Element) -> Id:
    return hashable(element.value.get("id")) if isinstance(element.value, Mapping) else None


def hashable(id: Any) -> Id:
    """An id as it is, or None where it is neither a number nor a text."""
    return id if isinstance(id, int | float | str) else None


def _spans(elements: list[Element]) -> np.ndarray:
    return np.array([(element.start, element.stop) for element in elements], dtype=np.int64)


def _rows(ids: Sequence[Id], kind: str, path: Path) -> dict[Id, int]:
    rows: dict[Id, int] = {}
    for row, id in enumerate(ids):
        if id is not None and rows.setdefault(id, row) != row:
            raise DataError(f"'{path}' has two {kind}s with id {id!r}: which one is meant cannot be known.")
    return rows


def _categories(path: Path, elements: list[Element]) -> dict[Id, Mapping[str, Any]]:
    categories = [read_span(path, element.start, element.stop) for element in elements]
    sound = [each for each in categories if isinstance(each, Mapping) and isinstance(each.get("name"), str)]
    _rows([hashable(each.get("id")) for each in sound], "categorie", path)
    return {hashable(each.get("id")): each for each in sound}
