"""Small pictures and videos for tests, and for the example files of data formats and benchmarks."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from PIL import Image

TINY_HW = (48, 64)
"""Height and width of the pictures and videos that are written here."""


def write_tiny_picture(path: Path, *, seed: int = 0) -> None:
    """Write a noise picture of `TINY_HW`, in the format that the file's name ends in; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*TINY_HW, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_tiny_video(path: Path, *, frames: int = 8, fps: int = 4) -> None:
    """Write a video of plain grey frames of `TINY_HW`, in the format that the file's name ends in; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.height, stream.width = TINY_HW
        for level in np.linspace(20, 230, frames).astype(np.uint8):
            pixels = np.full((*TINY_HW, 3), level, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
