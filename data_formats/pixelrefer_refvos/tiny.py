"""A small file as Ref-YouTube-VOS has them, with frames and label maps, for the conformance kit."""

import json
from pathlib import Path

from PIL import Image

from pixelrefer_plugin.testing import TINY_HW, write_tiny_picture

_FRAMES = ("00000", "00005")


def tiny(folder: Path) -> Path:
    """Two expressions about the objects of a video: one object, and both of them."""
    for frame in _FRAMES:
        write_tiny_picture(folder / "JPEGImages" / "0a" / f"{frame}.jpg")
        _write_labels(folder / "Annotations" / "0a" / f"{frame}.png")
    expressions = {
        "0": {"exp": "a dog on the left", "obj_id": "1"},
        "1": {"exp": "both animals", "obj_id": ["1", "2"]},
    }
    path = folder / "meta_expressions.json"
    videos = {"0a": {"expressions": expressions, "frames": list(_FRAMES)}}
    path.write_text(json.dumps({"videos": videos}), encoding="utf-8")
    return path


def _write_labels(path: Path) -> None:
    """A label map with two objects."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = TINY_HW
    labels = Image.new("P", (width, height))
    labels.putpalette([0, 0, 0, 236, 95, 103, 249, 145, 87])
    labels.paste(1, (4, 4, 24, 30))
    labels.paste(2, (30, 8, 50, 40))
    labels.save(path)
