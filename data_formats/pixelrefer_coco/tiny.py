"""Small files as COCO, LVIS and RefCOCO have them, for the conformance kit."""

import json
from pathlib import Path
from typing import Any

from pixelrefer_plugin.testing import TINY_HW, write_tiny_picture

_SIZE = {"height": TINY_HW[0], "width": TINY_HW[1]}


def tiny_coco(folder: Path) -> Path:
    """A mask and a box, each on a picture of its own."""
    for name in ("street.jpg", "tram.jpg"):
        write_tiny_picture(folder / name)
    images = [{"id": 31, "file_name": "street.jpg", **_SIZE}, {"id": 32, "file_name": "tram.jpg", **_SIZE}]
    categories = [{"id": 3, "name": "car", "supercategory": "vehicle"}, {"id": 5, "name": "tram"}]
    masked = {"segmentation": [[5, 5, 25, 5, 25, 25]], "iscrowd": 0}
    return _written(
        folder / "instances.json",
        {
            "images": images,
            "annotations": [_annotation(1, 31, 3) | masked, _annotation(2, 32, 5)],
            "categories": categories,
        },
    )


def tiny_lvis(folder: Path) -> Path:
    """Two masks on a picture that is found by its address."""
    write_tiny_picture(folder / "train2017" / "000000000030.jpg")
    image = {
        "id": 30,
        "coco_url": "http://images.cocodataset.org/train2017/000000000030.jpg",
        "neg_category_ids": [7],
        "not_exhaustive_category_ids": [],
    }
    category = {"id": 2, "name": "bow_(weapon)", "synonyms": ["bow_(weapon)", "long_bow"], "synset": "bow.n.04"}
    masks = [
        _annotation(1, 30, 2) | {"segmentation": [[5, 5, 25, 5, 25, 25]]},
        _annotation(2, 30, 2) | {"segmentation": [[30, 5, 50, 5, 50, 25]]},
    ]
    return _written(folder / "lvis.json", {"images": [image | _SIZE], "annotations": masks, "categories": [category]})


def tiny_refcoco(folder: Path) -> Path:
    """What two people said of an object, and one of another; the objects are those of `tiny_coco`."""
    tiny_coco(folder)
    refs = [
        {"ref_id": 50, "ann_id": 1, "split": "train", "sentences": [{"sent": "the red car"}, {"sent": "a car"}]},
        {"ref_id": 51, "ann_id": 2, "split": "train", "sentences": [{"sent": "tram"}]},
    ]
    return _written(folder / "refs.json", refs)


def _annotation(id: int, image_id: int, category_id: int) -> dict[str, Any]:
    return {"id": id, "image_id": image_id, "category_id": category_id, "bbox": [5, 5, 20, 20], "area": 400.0}


def _written(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
