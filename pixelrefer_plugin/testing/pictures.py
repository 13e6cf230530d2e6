"""Small pictures for tests and for the example files of data formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

TINY_HW = (48, 64)
"""Height and width of the pictures that `write_tiny_picture` writes."""


def write_tiny_picture(path: Path, *, seed: int = 0) -> None:
    """Write a noise picture of `TINY_HW`, in the format that the file's name ends in; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*TINY_HW, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
