"""Small files in the official layouts, for the conformance kit."""

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pixelrefer_plugin.authoring import BenchmarkFile
from pixelrefer_plugin.testing import TINY_HW, write_tiny_picture


def refcoco(folder: Path, files: Sequence[BenchmarkFile], splits: Sequence[str]) -> None:
    """Two objects in each split, one with two sentences."""
    for file in files[:2]:
        (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
    refs, images, annotations = [], [], []
    for number, split in enumerate(splits):
        name = f"COCO_train2014_{number:012}.jpg"
        write_tiny_picture(folder / files[2].path / name, seed=number)
        images.append({"id": number, "file_name": name, "height": TINY_HW[0], "width": TINY_HW[1]})
        first, second = 2 * number, 2 * number + 1
        annotations += [
            _annotation(first, number, [[5, 5, 25, 5, 25, 25]], [5, 5, 20, 20]),
            _annotation(second, number, [[30, 8, 50, 8, 50, 40, 30, 40]], [30, 8, 20, 32]),
        ]
        refs += [
            _ref(first, split, "the red car", "car on the left."),
            _ref(second, split, "tram"),
        ]
    (folder / files[0].path).write_bytes(pickle.dumps(refs))
    content = {"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "car"}]}
    (folder / files[1].path).write_text(json.dumps(content), encoding="utf-8")


def _annotation(id: int, image_id: int, polygons: list[list[int]], box: list[int]) -> dict[str, Any]:
    return {"id": id, "image_id": image_id, "category_id": 3, "segmentation": polygons, "bbox": box, "iscrowd": 0}


def _ref(id: int, split: str, *sentences: str) -> dict[str, Any]:
    return {"ref_id": id, "ann_id": id, "split": split, "sentences": [{"sent": sentence} for sentence in sentences]}


def reasonseg(folder: Path) -> None:
    """A sentence with a polygon and void pixels in it, and two phrases."""
    square, inner = [[5, 5], [25, 5], [25, 25], [5, 25]], [[10, 10], [15, 10], [15, 15], [10, 15]]
    for split in ("val", "test"):
        write_tiny_picture(folder / split / "1.jpg")
        shapes = [_shape("ignore", inner), _shape("target", square), _shape("flag", inner)]
        _write(folder / split / "1.json", ["What could a dog sleep on?"], shapes, is_sentence=True)
        write_tiny_picture(folder / split / "2.jpg", seed=1)
        _write(
            folder / split / "2.json", ["the seat", "what one sits on."], [_shape("target", inner)], is_sentence=False
        )


def _shape(label: str, points: list[list[int]]) -> dict[str, Any]:
    return {"label": label, "shape_type": "polygon", "points": points}


def _write(path: Path, texts: list[str], shapes: list[dict[str, Any]], *, is_sentence: bool) -> None:
    named = [{**shape, "image_name": path.with_suffix(".jpg").name} for shape in shapes]
    content = {"text": texts, "is_sentence": is_sentence, "shapes": named}
    path.write_text(json.dumps(content), encoding="utf-8")
