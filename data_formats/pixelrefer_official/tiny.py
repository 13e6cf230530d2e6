"""Small files as PixelRefer and VideoRefer have them, for the conformance kit."""

import json
from pathlib import Path
from typing import Any

from pixelrefer_plugin.authoring import Region
from pixelrefer_plugin.testing import TINY_HW, write_tiny_picture

_FRAMES = ["frames/0.png", "frames/1.png", "frames/2.png"]


def tiny_pixelrefer(folder: Path) -> Path:
    """Two objects on a picture, one on frames of a video."""
    image = {"image": "street.png", "width": TINY_HW[1], "height": TINY_HW[0], "masks": [_mask(), _mask(30)]}
    video = {"video": _FRAMES, "masks": [{"0": _mask(), "2": _mask(20)}]}
    questions = {"image": "<image>\nWhere is <region> beside <region>?", "video": "<video>\nWhat does <region> do?"}
    return _written(folder, [{**image, **_turns(questions["image"])}, {**video, **_turns(questions["video"])}])


def tiny_videorefer(folder: Path) -> Path:
    """An object on frames of a video, another on a picture."""
    video = {"id": 7, "video": _FRAMES, "annotation": [{"0": {"segmentation": _mask()}, "1": {"segmentation": None}}]}
    image = {"id": 8, "image": "street.png", "annotation": [{"0": {"segmentation": _mask(30)}}]}
    return _written(
        folder, [{**video, **_turns("<video>\nWhat does <region> do?")}, {**image, **_turns("What is <region>?")}]
    )


def _mask(left: int = 5) -> dict[str, Any]:
    return Region.from_box((left, 5, left + 20, 30)).to_mask(TINY_HW).to_rle()


def _turns(question: str) -> dict[str, Any]:
    return {"conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": "A red car."}]}


def _written(folder: Path, records: list[dict[str, Any]]) -> Path:
    for name in ("street.png", *_FRAMES):
        write_tiny_picture(folder / name)
    path = folder / "train.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    return path
