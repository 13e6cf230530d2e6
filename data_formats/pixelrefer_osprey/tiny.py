"""A small file as Osprey-724K has them, for the conformance kit."""

import json
from pathlib import Path
from typing import Any

from pixelrefer_plugin.testing import TINY_HW, write_tiny_picture


def tiny(folder: Path) -> Path:
    """A conversation about two regions of a picture, and a description of each of them."""
    write_tiny_picture(folder / "000000000009.jpg")
    turns = [
        {"from": "human", "value": "What is <region2>, and what is <region1>?"},
        {"from": "gpt", "value": "A bus and a car."},
    ]
    records = [
        {**_picture(9), "conversations": turns},
        {**_picture(10), "description": ["<region1>: A red car, parked.", "<region2>: A blue bus."]},
    ]
    path = folder / "osprey.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


def _picture(id: int) -> dict[str, Any]:
    return {
        "id": id,
        "file_name": "COCO_train2014_000000000009.jpg",
        "height": TINY_HW[0],
        "width": TINY_HW[1],
        "annotation": [
            {"bbox": [5, 5, 20, 20], "segmentation": [[5, 5, 25, 5, 25, 25]]},
            {"bbox": [30, 8, 20, 30], "segmentation": [[30, 8, 50, 8, 50, 38, 30, 38]]},
        ],
    }
