"""ReasonSeg (LISA, CVPR 2024): beside each picture a JSON file with its texts and polygons; a question for each text.

Source: https://github.com/dvlab-research/LISA; polygons are drawn as `unipixel/dataset/utils.py: process_masks` does.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pixelrefer_plugin.authoring import (
    BenchmarkFile,
    DataError,
    Question,
    Region,
    RegionMask,
    open_regular,
    parse_json,
    require_there,
    shown,
)

from .asking import question_of
from .config import ReasonSegConfig

_LISA = "https://github.com/dvlab-research/LISA"
FILES = (
    BenchmarkFile("val", f"The pictures of ReasonSeg's val with their JSON files, from {_LISA}.", True),
    BenchmarkFile("test", f"The pictures of ReasonSeg's test with their JSON files, from {_LISA}.", True),
)
_TARGET, _VOID = 1, 2
_LABELS = {"target": _TARGET, "ignore": _VOID}
_SKIPPED = "flag"
_ORIENTATION = 274  # EXIF; from 5 on the sides change places


def open_reasonseg(config: ReasonSegConfig, folder: Path) -> list[Question]:
    """The questions of a split, by the names of the pictures.

    Raises:
        DataError: the split is missing, a picture has no JSON file, or one is malformed.
    """
    place = Path(folder) / config.split
    require_there(place, next(file.about for file in FILES if file.path == config.split))
    pictures = sorted(place.glob("*.jpg"))
    if not pictures:
        raise DataError(f"'{place}' has no pictures '*.jpg'. Take it from {_LISA}.")
    return [question for picture in pictures for question in _questions(picture, config)]


def _questions(picture: Path, config: ReasonSegConfig) -> Iterator[Question]:
    path = picture.with_suffix(".json")
    require_there(path, f"The texts and polygons of '{picture.name}', from {_LISA}.")
    record = _read(path)
    texts = record.get("text")
    if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise DataError(f"'{path}': its 'text' must be a list of texts, got {shown(texts)}.")
    image_hw = _size_of(picture)
    target, void = draw(_shapes(record, path), image_hw)
    is_sentence = bool(record.get("is_sentence"))
    for number, text in enumerate(texts):
        yield question_of(
            f"{picture.stem}-{number}",
            picture,
            image_hw,
            text,
            config.sentence if is_sentence else config.question,
            target=None if target is None else Region("mask", target),
            void=void,
            type="sentence" if is_sentence else "phrase",
        )


def _read(path: Path) -> Mapping[str, Any]:
    """Some of the official files are not UTF-8 but Windows's Western encoding."""
    try:
        with open_regular(path) as file:
            data = file.read()
    except OSError as error:
        raise DataError(f"Cannot read '{path}': {error.strerror or error}.") from error
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        data = data.decode("cp1252", errors="replace").encode("utf-8")
    try:
        record = parse_json(data)
    except ValueError as error:
        raise DataError(f"'{path}' is no JSON that can be read: {error}. Is the file complete?") from error
    if not isinstance(record, Mapping):
        raise DataError(f"'{path}' must hold an object, got {shown(record)}.")
    return record


def _shapes(record: Mapping[str, Any], path: Path) -> list[tuple[int, np.ndarray]]:
    """Label and corners of each polygon, whole pixels."""
    shapes = record.get("shapes")
    if not isinstance(shapes, list) or not all(isinstance(shape, Mapping) for shape in shapes):
        raise DataError(f"'{path}': its 'shapes' must be a list of objects, got {shown(shapes)}.")
    found = []
    for number, shape in enumerate(shapes):
        label = shape.get("label")
        if label == _SKIPPED:
            continue
        if label not in _LABELS:
            raise DataError(f"'{path}', shape {number}: its label must be target, ignore or flag, got {shown(label)}.")
        try:
            points = np.array(shape.get("points"), dtype=np.float64)
        except (TypeError, ValueError):
            points = np.zeros(0)
        if points.ndim != 2 or points.shape[1] != 2 or not len(points) or not (np.abs(points) < 2**20).all():
            raise DataError(f"'{path}', shape {number}: its 'points' must be pairs of numbers.")
        found.append((_LABELS[label], points.astype(np.int32)))
    return found


def draw(
    shapes: Sequence[tuple[int, np.ndarray]], image_hw: tuple[int, int]
) -> tuple[RegionMask | None, RegionMask | None]:
    """The pixels of the target, and the void ones; None where there are none.

    Larger polygons are drawn first, so that smaller ones lie on them. A polygon has its outline.

    Args:
        shapes: label and `(n, 2)` int32 corners x, y of each polygon.
        image_hw: size of the picture.
    """
    areas = [int(_drawn(np.zeros(image_hw, dtype=np.uint8), points, 1).sum()) for _, points in shapes]
    labels = np.zeros(image_hw, dtype=np.uint8)
    for index in np.argsort(areas)[::-1].tolist():
        label, points = shapes[index]
        _drawn(labels, points, label)
    target, void = (
        RegionMask.from_dense(labels == label) if (labels == label).any() else None for label in (_TARGET, _VOID)
    )
    return target, void


def _drawn(canvas: np.ndarray, points: np.ndarray, label: int) -> np.ndarray:
    """The canvas, with a polygon and its outline drawn on it."""
    import cv2

    cv2.polylines(canvas, [points], True, label, 1)
    cv2.fillPoly(canvas, [points], label)
    return canvas


def _size_of(picture: Path) -> tuple[int, int]:
    """Height and width as it is looked at."""
    try:
        with Image.open(picture) as opened:
            is_turned = opened.getexif().get(_ORIENTATION, 1) >= 5
            return (opened.width, opened.height) if is_turned else (opened.height, opened.width)
    except (OSError, ValueError) as error:
        raise DataError(f"'{picture}' cannot be read: {error}.") from error
