"""Small files in the official layouts, for the conformance kit."""

import json
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from pixelrefer_plugin.authoring import Region
from pixelrefer_plugin.testing import TINY_HW, write_tiny_picture

_FRAMES = ("00000", "00005", "00010")
_BOXES = ((4, 4, 24, 30), (30, 8, 50, 40))
_EXPRESSIONS = {
    "0": {"exp": "a dog on the left", "obj_id": [1], "anno_id": [0], "type_id": 0},
    "1": {"exp": "which animals run?", "obj_id": [1, 2], "anno_id": [0, 1], "type_id": 1},
    "2": {"exp": "the sheep", "obj_id": [2], "anno_id": [1], "type_id": 0},
}


def mevis(folder: Path) -> None:
    """Its public split and the other one."""
    for split in ("valid_u", "valid"):
        _write_expressions(folder / split / "meta_expressions.json", ("exp",) if split == "valid" else None)
        _write_frames(folder / split / "JPEGImages")
    _write_json(folder / "valid_u" / "mask_dict.json", _masks())


def ref_youtube_vos(folder: Path) -> None:
    """Expressions and frames; masks are not public."""
    _write_expressions(folder / "meta_expressions" / "valid" / "meta_expressions.json", ("exp",))
    _write_frames(folder / "valid" / "JPEGImages")


def ref_davis17(folder: Path) -> None:
    """Expressions, frames, and masks by the number of the expression."""
    _write_expressions(folder / "meta_expressions" / "valid" / "meta_expressions.json", ("exp", "obj_id"))
    _write_frames(folder / "DAVIS" / "JPEGImages" / "480p")
    (folder / "valid").mkdir()
    masks = _masks()
    of_expression = {str(number): masks[key] for number, key in enumerate(("0", "0", "1"))}
    (folder / "valid" / "mask_dict.pkl").write_bytes(pickle.dumps(of_expression))
    _write_labels(folder / "DAVIS" / "Annotations" / "480p")


def revos(folder: Path) -> None:
    """Expressions of both types, masks, the foreground, and frames."""
    _write_expressions(folder / "meta_expressions_valid_.json")
    masks = _masks()
    _write_json(folder / "mask_dict.json", masks)
    both = [[each for each in of_frame if each] for of_frame in zip(masks["0"], masks["1"], strict=True)]
    _write_json(folder / "mask_dict_foreground.json", {"0a": {"masks_rle": both}})
    _write_frames(folder)


def ref_sav(folder: Path) -> None:
    """Expressions, masks and frames."""
    _write_expressions(folder / "valid" / "meta_expressions_valid.json")
    _write_json(folder / "valid" / "mask_dict.json", _masks())
    _write_frames(folder / "valid" / "videos")


def _masks() -> dict[str, list[Any]]:
    """Two objects, the second of which is not seen on the last frame."""
    first, second = (Region.from_box(box).to_rle(TINY_HW) for box in _BOXES)
    return {"0": [first] * 3, "1": [second, second, None]}


def _write_expressions(path: Path, keys: Iterable[str] | None = None) -> None:
    """With some of the keys of each expression, or all."""
    kept = {
        id: {key: value for key, value in each.items() if keys is None or key in keys}
        for id, each in _EXPRESSIONS.items()
    }
    _write_json(path, {"videos": {"0a": {"frames": list(_FRAMES), "expressions": kept}}})


def _write_frames(folder: Path) -> None:
    (folder / "0a").mkdir(parents=True)
    for seed, name in enumerate(_FRAMES):
        write_tiny_picture(folder / "0a" / f"{name}.jpg", seed=seed)


def _write_labels(folder: Path) -> None:
    (folder / "0a").mkdir(parents=True)
    for number, name in enumerate(_FRAMES):
        labels = Image.new("P", TINY_HW[::-1])
        labels.putpalette([0, 0, 0, 236, 95, 103, 249, 145, 87])
        for value, box in enumerate(_BOXES[: 1 if number == 2 else 2], start=1):
            labels.paste(value, box)
        labels.save(folder / "0a" / f"{name}.png")


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
