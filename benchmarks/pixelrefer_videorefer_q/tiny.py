"""Small files in the official layout of VideoRefer-Bench-Q, for the conformance kit."""

import json
from pathlib import Path
from typing import Any

from pixelrefer_plugin.authoring import Region
from pixelrefer_plugin.testing import TINY_HW, write_tiny_picture

_VIDEOS = ("DAVIS/JPEGImages/480p/lamp", "MeViS/valid_u/JPEGImages/yard")
_OPTIONS = ["(A) a lamp", "(B) a rope", "(C) a book", "(D) nothing"]
_TYPES = ("Basic Questions", "Relationship Questions", "Future Predictions")


def tiny(folder: Path) -> None:
    """Three questions about two videos of six frames; one is about two objects."""
    for video in _VIDEOS:
        for frame in range(6):
            write_tiny_picture(folder / video / f"{frame:05}.jpg", seed=frame)
    records = [
        {
            "id": number,
            "video": _VIDEOS[number % 2],
            "Question": question,
            "type": _TYPES[number],
            "options": _OPTIONS,
            "Answer": _OPTIONS[number],
            "frame_idx": "3",
            "annotation": [_object(left) for left in range(5, 5 + 10 * question.count("<region>"), 10)],
        }
        for number, question in enumerate(
            (
                "What does <object0><region> hold?",
                "What is between <object0><region> and <object1><region>?",
                "What will <object2><region> take next?",
            )
        )
    ]
    (folder / "VideoRefer-Bench-Q.json").write_text(json.dumps(records), encoding="utf-8")


def _object(left: int) -> dict[str, Any]:
    """Masks on two of the frames; on one between them the object is not seen."""
    masks = {str(frame): Region.from_box((left + frame, 5, left + frame + 20, 30)) for frame in (1, 3)}
    seen = {frame: {"segmentation": mask.to_mask(TINY_HW).to_rle()} for frame, mask in masks.items()}
    return seen | {"2": {"segmentation": None}}
