"""A COCO file, indexed: where its annotations and images stand, and what they are chosen by.

Annotations are parsed once, to find them, and then let go; one is parsed again when its sample is asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixelrefer_plugin import DataError
from pixelrefer_plugin.data.json_object import Element, read_span, scan_object


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
    annotation_ids: list[Any]
    image_row: np.ndarray
    category_ids: list[Any]
    is_crowd: np.ndarray
    area_px: np.ndarray
    image_spans: np.ndarray
    partial: frozenset[tuple[int, Any]]
    categories: Mapping[Any, Mapping[str, Any]]

    @classmethod
    def open(cls, path: Path) -> "CocoTables":
        """Index a file; raises `DataError` where it is not of this kind."""
        found: dict[str, list[Element]] = {"annotations": [], "images": [], "categories": []}
        annotations = []
        partial: set[tuple[int, Any]] = set()
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


def _annotation_columns(annotation: Any) -> tuple[Any, Any, Any, bool, float]:
    if not isinstance(annotation, Mapping):
        return None, None, None, False, np.nan
    ids = (hashable(annotation.get(key)) for key in ("id", "image_id", "category_id"))
    return (*ids, annotation.get("iscrowd") in (1, True), _area_px(annotation))


def _not_exhaustive(image: Any) -> list[Any]:
    found = image.get("not_exhaustive_category_ids") if isinstance(image, Mapping) else None
    return [hashable(id) for id in found] if isinstance(found, list) else []


def _area_px(annotation: Mapping[str, Any]) -> float:
    area, box = annotation.get("area"), annotation.get("bbox")
    is_box = isinstance(box, list) and len(box) == 4 and all(isinstance(side, int | float) for side in box)
    try:
        return float(area if isinstance(area, int | float) else box[2] * box[3] if is_box else np.nan)
    except OverflowError:  # JSON's integers have no limit
        return np.inf


def _id(element: Element) -> Any:
    return hashable(element.value.get("id")) if isinstance(element.value, Mapping) else None


def hashable(id: Any) -> Any:
    """An id as it is, or None where it is neither a number nor a text."""
    return id if isinstance(id, int | float | str) else None


def _spans(elements: list[Element]) -> np.ndarray:
    return np.array([(element.start, element.stop) for element in elements], dtype=np.int64)


def _rows(ids: list[Any], kind: str, path: Path) -> dict[Any, int]:
    rows: dict[Any, int] = {}
    for row, id in enumerate(ids):
        if id is not None and rows.setdefault(id, row) != row:
            raise DataError(f"'{path}' has two {kind}s with id {id!r}: which one is meant cannot be known.")
    return rows


def _categories(path: Path, elements: list[Element]) -> dict[Any, Mapping[str, Any]]:
    categories = [read_span(path, element.start, element.stop) for element in elements]
    sound = [each for each in categories if isinstance(each, Mapping) and isinstance(each.get("name"), str)]
    _rows([hashable(each.get("id")) for each in sound], "categorie", path)
    return {hashable(each.get("id")): each for each in sound}
