"""Reads one picture, of whatever kind users have, into upright 8-bit RGB.

It knows files and pixels; nothing of models. A picture that cannot be read raises `ImageError`.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import ImageError


def load_image(source: str | os.PathLike[str] | Image.Image | np.ndarray) -> Image.Image:
    """Read a picture as upright RGB, the frame in which regions are given.

    EXIF rotation is applied, transparency is laid over white, 16-bit grey is scaled to 8 bits.

    Args:
        source: a file path, a PIL image, or a `(H, W)` or `(H, W, 3)` uint8 array.

    Returns:
        A loaded PIL image of mode RGB.

    Raises:
        ImageError: the picture is missing, damaged, truncated, animated, of an unknown kind, or so large
            that decoding it could exhaust memory (Pillow's `Image.MAX_IMAGE_PIXELS`).
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    name = "image" if isinstance(source, Image.Image) else f"image '{os.fspath(source)}'"
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            image = source if isinstance(source, Image.Image) else Image.open(_existing_file(source))
            return _to_upright_rgb(image, name)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise ImageError(
                f"{name} is too large to decode safely: {error} Raise PIL.Image.MAX_IMAGE_PIXELS if you trust it."
            ) from error
        except UnidentifiedImageError as error:
            raise ImageError(f"{name} is not a picture in a format that Pillow reads.") from error
        except (OSError, SyntaxError, EOFError, MemoryError) as error:
            raise ImageError(f"{name} cannot be read: {error}.") from error


def _existing_file(source: str | os.PathLike[str]) -> Path:
    path = Path(source)
    if not path.is_file():
        raise ImageError(f"Expected an image file at '{path}', found {'a folder' if path.is_dir() else 'nothing'}.")
    return path


def _from_array(array: np.ndarray) -> Image.Image:
    right_shape = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if array.dtype != np.uint8 or not right_shape or 0 in array.shape:
        raise ImageError(
            f"Expected an image array of dtype uint8 and shape (H, W) or (H, W, 3), "
            f"got {array.dtype} {tuple(array.shape)}."
        )
    return Image.fromarray(array).convert("RGB")


def _to_upright_rgb(image: Image.Image, name: str) -> Image.Image:
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise ImageError(
            f"{name} is animated or multi-page ({frames} frames), expected one picture: save the frame you mean."
        )
    image.load()
    upright = ImageOps.exif_transpose(image)
    if upright.mode == "F":
        raise ImageError(f"{name} holds floating-point pixels of unknown range; convert it to 8 bits first.")
    if upright.mode.startswith("I"):
        return _scale_16_bit(upright).convert("RGB")
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        rgba = upright.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return upright.convert("RGB")


def _scale_16_bit(image: Image.Image) -> Image.Image:
    pixels: np.ndarray[Any, Any] = np.asarray(image).astype(np.int64)
    return Image.fromarray((np.clip(pixels, 0, 65535) // 257).astype(np.uint8))
