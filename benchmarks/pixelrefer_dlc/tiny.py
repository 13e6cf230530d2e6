"""Small files of DLC-Bench, for the conformance kit."""

import json
from pathlib import Path
from typing import Any

from pixelrefer_plugin.authoring import Region
from pixelrefer_plugin.testing import TINY_HW, write_tiny_picture

_BOXES = {"11": (5, 5, 25, 30), "12": (30, 10, 60, 40)}
_NAMES = {"11": "lamp", "12": "shoes"}


def tiny(folder: Path) -> None:
    """Two regions of one picture, with three questions about each."""
    height, width = TINY_HW
    write_tiny_picture(folder / "images" / "street.jpg")
    annotations = [
        {"id": int(id), "image_id": 1, "category_id": 1, "segmentation": Region.from_box(box).to_mask(TINY_HW).to_rle()}
        for id, box in _BOXES.items()
    ]
    images = [{"id": 1, "file_name": "street.jpg", "height": height, "width": width}]
    files = {
        "annotations.json": {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "Thing"}]},
        "class_names.json": _NAMES,
        "qa.json": {id: _questions(name) for id, name in _NAMES.items()},
    }
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value), encoding="utf-8")


def _questions(name: str) -> list[dict[str, Any]]:
    colour = ["No colour is named.", "The colour is named, and it is red.", "The colour is named, and it is not red."]
    wheels = [f"Wheels of the {name} are not mentioned.", "Wheels are mentioned."]
    return [
        {
            "question": f"What of the {name}'s colour?",
            "choices": list(zip(colour, (0, 1, -1), strict=True)),
            "type": "positive",
        },
        {"question": f"And of the {name}'s form?", "choices": [["Left out.", 0], ["Round.", 0.5]], "type": "positive"},
        {
            "question": f"Does it have wheels, the {name}?",
            "choices": list(zip(wheels, (1, -1), strict=True)),
            "type": "negative",
        },
    ]
