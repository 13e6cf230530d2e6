"""Small files of the Describe Anything data set, for the conformance kit."""

import json
from pathlib import Path
from typing import Any

from pixelrefer_plugin.authoring import Region
from pixelrefer_plugin.testing import TINY_HW, write_tiny_picture


def tiny_annotations(folder: Path) -> Path:
    """Two regions, each of another picture."""
    path = folder / "annotations.json"
    path.write_text(json.dumps({str(each["img_id"]): [each] for each in _regions(folder)}), encoding="utf-8")
    return path


def tiny_regions(folder: Path) -> Path:
    """The same in JSON Lines."""
    path = folder / "regions.jsonl"
    path.write_text("".join(f"{json.dumps(each)}\n" for each in _regions(folder)), encoding="utf-8")
    return path


def _regions(folder: Path) -> list[dict[str, Any]]:
    write_tiny_picture(folder / "street.png")
    return [
        {
            "img_id": img_id,
            "ann_id": 4,
            "image": "street.png",
            "tar_file": "LVIS_0.tar",
            "mask_rle": Region.from_box((5, 5, 25, 30)).to_mask(TINY_HW).to_rle(),
            "caption": "A red car with a white roof.",
        }
        for img_id in (31, 32)
    ]
