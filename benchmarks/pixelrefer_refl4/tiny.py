"""Small files in the official layout of Ref-L4, for the conformance kit."""

import json
from pathlib import Path

from pixelrefer_plugin.testing import TINY_HW, write_tiny_picture

_CAPTIONS = (["A red car.", "A car with a white roof."], ["A grey lamp."], "A dog that lies still.")


def tiny(folder: Path) -> None:
    """Three objects of Objects365, one with a text for its captions, and one of COCO, which does not count."""
    names = [*(f"objects365_v1_{number}.jpg" for number in range(3)), "COCO_val2014_000000000003.jpg"]
    height, width = TINY_HW
    records = []
    for number, (name, caption) in enumerate(zip(names, [*_CAPTIONS, ["A cat."]], strict=True)):
        write_tiny_picture(folder / "images" / name, seed=number)
        box = [5.5 * number, 4.2, 20.0, 30.9]
        records.append({"file_name": name, "height": height, "width": width, "caption": caption, "bbox": box})
    text = "".join(f"{json.dumps(record)}\n" for record in records)
    (folder / "ref-l4-val.json").write_text(text, encoding="utf-8")
