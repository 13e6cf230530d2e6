"""A small file of this package's own samples, for the conformance kit."""

import json
from pathlib import Path

from pixelrefer_plugin.testing import TINY_HW, write_tiny_picture


def tiny(folder: Path) -> Path:
    """Two samples in JSON Lines: a box and a mask on a picture, an object on frames of a video."""
    for name in ("street.png", "frames/0.png", "frames/1.png"):
        write_tiny_picture(folder / name)
    records = [
        {
            "id": "street",
            "image": "street.png",
            "size": TINY_HW,
            "regions": [{"box": [2, 3, 30, 40]}, {"polygon": [[5, 5, 40, 8, 20, 40]]}],
            "messages": [
                {"role": "user", "content": "<image>What is <region>?"},
                {"role": "assistant", "content": "A car, beside a bus: <seg>."},
            ],
        },
        {
            "id": "clip",
            "video": {"path": ["frames/0.png", "frames/1.png"], "fps": 2},
            "regions": [{"frames": {"1": {"points": [[8, 8]]}}}],
            "messages": [
                {"role": "user", "content": "What does <region> do?"},
                {"role": "assistant", "content": "It turns."},
            ],
        },
    ]
    path = folder / "regions.jsonl"
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return path
