"""Small files in the official layout of LVIS and PACO, for the conformance kit."""

import json
from pathlib import Path

from pixelrefer_plugin.authoring import Region
from pixelrefer_plugin.testing import TINY_HW, write_tiny_picture


def tiny(folder: Path, *, file: str) -> None:
    """Three objects in two pictures, as polygons and as run lengths.

    Args:
        folder: where they are written.
        file: name of that with the questions.
    """
    polygon = {"segmentation": [[5, 5, 25, 5, 25, 25]]}
    mask = {"segmentation": Region.from_box((30, 8, 50, 38)).to_mask(TINY_HW).to_rle()}
    pictures = [
        ("000000000009.jpg", "train2017", ["dog", "dog:ear"], [polygon, mask]),
        ("000000000010.jpg", "val2017", ["car_(automobile)"], [mask]),
    ]
    records = []
    for name, part, categories, annotations in pictures:
        write_tiny_picture(folder / "images" / part / name)
        size = {"height": TINY_HW[0], "width": TINY_HW[1]}
        records.append({"file_name": name, **size, "categories": categories, "annotations": annotations})
    (folder / file).write_text(json.dumps(records), encoding="utf-8")
