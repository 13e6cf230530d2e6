"""A COCO file, indexed: where its annotations and images stand, and what they are chosen by.

Annotations are parsed once, to find them, and then let go; one is parsed again when its sample is asked for.
"""

import math
import re
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixelrefer_plugin.authoring import DataError, Element, read_span, scan_object, shown

Id = int | float | str | None
"""Of an annotation, an image or a category; None where it has none that can be used."""

_WHOLE_NUMBER = re.compile(r"0|-?[1-9][0-9]*")
_MOST_LISTED = 20
_LONGEST = 60  # text that a message has without quotes


@dataclass(frozen=True, eq=False)
class CocoTables:
    """The annotations, images and categories of one file. A is the number of annotations, I that of images.

    Attributes:
        path: of the file.
        annotation_spans: `(A, 2)` byte offsets.
        annotation_ids: of each annotation, or None.
        image_row: `(A,)` its image, counted from 0; -1 where the file has none with its `image_id`.
        category_ids: of each annotation, or None.
        is_crowd: `(A,)` bool.
        area_px: `(A,)`; of its box where it has no `area`; NaN where it has neither.
        image_spans: byte offsets of the images.
        image_ids: of each image, or None.
        picture_row: `(I,)` the first image that has the same picture.
        partial: image, counted from 0, and category of which that image has objects without an annotation, as LVIS
            tells them.
        is_federated: whether only some categories are looked for in each image, as in LVIS.
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
    image_ids: list[Id]
    picture_row: np.ndarray
    partial: frozenset[tuple[int, Id]]
    is_federated: bool
    categories: Mapping[Id, Mapping[str, Any]]

    @classmethod
    def open(cls, path: Path, picture_of: Callable[[Mapping[str, Any]], Hashable]) -> "CocoTables":
        """Index a file.

        Args:
            path: of the file.
            picture_of: what is equal for images of one picture; None where that is not known.

        Raises:
            DataError: it is not of this kind.
        """
        annotations, images, categories = _columns(path, picture_of)
        for key, rows in (("annotations", annotations), ("images", images)):
            if not rows:
                raise DataError(
                    f"'{path}' has no {key}: expected a list of them under '{key}', as COCO's instances have."
                )
        ids, image_ids, category_ids, crowd, area_px, spans = zip(*annotations, strict=True)
        own_ids, pictures, partial, federated, image_spans = zip(*images, strict=True)
        row_of_image = _rows(own_ids, "image", path)
        first: dict[Hashable, int] = {}
        picture_row = [row if key is None else first.setdefault(key, row) for row, key in enumerate(pictures)]
        return cls(
            path=path,
            annotation_spans=np.array(spans, dtype=np.int64),
            annotation_ids=list(ids),
            image_row=np.array([row_of_image.get(id, -1) for id in image_ids], dtype=np.int64),
            category_ids=list(category_ids),
            is_crowd=np.array(crowd, dtype=bool),
            area_px=np.array(area_px, dtype=np.float64),
            image_spans=np.array(image_spans, dtype=np.int64),
            image_ids=list(own_ids),
            picture_row=np.array(picture_row, dtype=np.int64),
            partial=frozenset((row, id) for row, of_image in enumerate(partial) for id in of_image),
            is_federated=any(federated),
            categories=_categories(path, categories),
        )

    def __len__(self) -> int:
        return len(self.annotation_spans)

    @property
    def picture(self) -> np.ndarray:
        """`(A,)` the first image that has an annotation's picture; -1 where it is of none."""
        return np.where(self.image_row < 0, -1, self.picture_row[self.image_row])

    def annotation(self, row: int) -> Any:
        """The annotation, parsed."""
        return read_span(self.path, *map(int, self.annotation_spans[row]))

    def image(self, row: int) -> Any:
        """The image, parsed."""
        return read_span(self.path, *map(int, self.image_spans[row]))


def id_of(value: Any) -> Id:
    """An id in the form in which ids are compared; None where it is neither a number nor a text.

    A whole number that is written as a text, or with `.0`, is that number. Texts are compared in Unicode's form NFC.
    """
    if isinstance(value, float):
        return None if not math.isfinite(value) else int(value) if value.is_integer() else value
    if isinstance(value, str):
        if value.isascii():
            return int(value) if len(value) < 20 and _WHOLE_NUMBER.fullmatch(value) else value
        is_sound = not any("\ud800" <= each <= "\udfff" for each in value)  # no halves of characters
        return unicodedata.normalize("NFC", value) if is_sound else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def listed(values: Iterable[Any], *, quoted: bool = True) -> str:
    """Values for a message, the first ones where there are many."""
    texts = [shown(value) if quoted or len(value) > _LONGEST else value for value in values]
    more = f" and {len(texts) - _MOST_LISTED} more" if len(texts) > _MOST_LISTED else ""
    return ", ".join(texts[:_MOST_LISTED]) + more


def _columns(
    path: Path, picture_of: Callable[[Mapping[str, Any]], Hashable]
) -> tuple[list[Any], list[Any], list[Element]]:
    """What is kept of each annotation and of each image, and the categories."""
    annotations, images, categories = [], [], []
    for element in scan_object(path):
        if element.number is None:
            continue
        span = (element.start, element.stop)
        if element.key == "annotations":
            annotations.append((*_annotation_columns(element.value), span))
        elif element.key == "images":
            images.append((*_image_columns(element.value, picture_of), span))
        elif element.key == "categories":
            categories.append(element)
    return annotations, images, categories


def _annotation_columns(annotation: Any) -> tuple[Id, Id, Id, bool, float]:
    if not isinstance(annotation, Mapping):
        return None, None, None, False, np.nan
    id, image_id, category_id = (id_of(annotation.get(key)) for key in ("id", "image_id", "category_id"))
    return id, image_id, category_id, annotation.get("iscrowd") in (1, "1"), _area_px(annotation)


def _image_columns(
    image: Any, picture_of: Callable[[Mapping[str, Any]], Hashable]
) -> tuple[Id, Hashable, Sequence[Id], bool]:
    if not isinstance(image, Mapping):
        return None, None, (), False
    partial = image.get("not_exhaustive_category_ids")
    ids = [id_of(id) for id in partial] if isinstance(partial, list) else ()
    return id_of(image.get("id")), picture_of(image), ids, "neg_category_ids" in image


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


def _rows(ids: Sequence[Id], kind: str, path: Path) -> dict[Id, int]:
    rows: dict[Id, int] = {}
    twice = {id: None for row, id in enumerate(ids) if id is not None and rows.setdefault(id, row) != row}
    if twice:
        raise DataError(f"'{path}' has two {kind}s with id {listed(twice)}: which one is meant cannot be known.")
    return rows


def _categories(path: Path, elements: list[Element]) -> dict[Id, Mapping[str, Any]]:
    categories = [read_span(path, element.start, element.stop) for element in elements]
    sound = [each for each in categories if isinstance(each, Mapping) and isinstance(each.get("name"), str)]
    ids = [id_of(each.get("id")) for each in sound]
    _rows(ids, "categorie", path)
    return {id: each for id, each in zip(ids, sound, strict=True) if id is not None}
