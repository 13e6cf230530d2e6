"""Small files in the official layout, for the conformance kit."""

import json
from pathlib import Path
from typing import Any

from pixelrefer_plugin.authoring import Region
from pixelrefer_plugin.testing import TINY_HW, write_tiny_picture

_FIRST, _SECOND = (4, 4, 24, 30), (30, 8, 50, 40)


def tiny(folder: Path) -> None:
    """A question about one object of a video, and one about two, of which the second is not seen everywhere."""
    for frame in range(4):
        write_tiny_picture(folder / "videos" / "DAVIS" / "a" / f"{frame:05}.jpg", seed=frame)
    first = {str(frame): _mask(_FIRST) for frame in range(3)}
    records = [
        _record(0, "What does <object0><region> hold?", "(B) a rope", [first], "Basic Questions"),
        _record(
            1,
            "Is <object0><region> larger than <object1><region>? And is <object0> red?",
            "(A) a lamp",
            [first, {"0": _mask(_SECOND), "1": _mask(_SECOND)}],
            "Relationship Questions",
        ),
    ]
    (folder / "VideoRefer-Bench-Q.json").write_text(json.dumps(records), encoding="utf-8")


def _mask(box: tuple[int, int, int, int]) -> dict[str, Any]:
    return {"segmentation": Region.from_box(box).to_rle(TINY_HW)}


def _record(id: int, question: str, answer: str, objects: list[dict[str, Any]], type: str) -> dict[str, Any]:
    return {
        "id": id,
        "video": "DAVIS/a",
        "Question": question,
        "type": type,
        "options": ["(A) a lamp", "(B) a rope", "(C) a book", "(D) nothing"],
        "Answer": answer,
        "frame_idx": "1",
        "annotation": objects,
    }
