"""Reads one picture, of whatever kind users have, into upright 8-bit RGB.

It knows files and pixels; nothing of models. A picture that cannot be read raises `ImageError`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.Image import Transpose

from ..errors import ImageError
from .paths import why_missing

_EXIF_ORIENTATION = 0x0112
_TURN_OF_ORIENTATION = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_LYING = (5, 6, 7, 8)  # orientations whose height and width are exchanged
_MAX_16_BIT = 65535

ReadT = TypeVar("ReadT")


def load_image(source: str | os.PathLike[str] | Image.Image | np.ndarray) -> Image.Image:
    """Read a picture as upright RGB, the frame in which regions are given.

    EXIF rotation is applied, transparency is laid over white, 16-bit grey is scaled to 8 bits. The result
    carries no metadata, so that nobody rotates it a second time.

    Args:
        source: a file path, a PIL image, or a `(H, W)` or `(H, W, 3)` uint8 array.

    Returns:
        A new, loaded PIL image of mode RGB.

    Raises:
        ImageError: the picture is missing, damaged, truncated, animated, of an unknown kind, or so large
            that decoding it could exhaust memory (Pillow's `Image.MAX_IMAGE_PIXELS`).
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    name = "The image" if isinstance(source, Image.Image) else f"Image '{source}'"
    rgb = _to_rgb(read_picture(source, name=name), name)
    rgb.info.clear()
    return rgb


def read_picture(source: str | os.PathLike[str] | Image.Image, *, name: str) -> Image.Image:
    """One decoded picture, upright, in the mode it was stored in.

    Args:
        source: a file path or a PIL image, which is left as it is.
        name: what to call it in messages.

    Raises:
        ImageError: as `load_image`.
    """
    return _read(source, name, _decoded)


def image_hw(source: str | os.PathLike[str] | Image.Image | np.ndarray) -> tuple[int, int]:
    """Height and width that `load_image` would give, from the picture's header: no pixels are decoded, but a TIFF's.

    Raises:
        ImageError: as `load_image`, as far as the header tells.
    """
    if isinstance(source, np.ndarray):
        return (source.shape[0], source.shape[1])
    return _read(source, "The image" if isinstance(source, Image.Image) else f"Image '{source}'", _upright_hw)


def is_on_its_side(source: str | os.PathLike[str] | Image.Image | np.ndarray) -> bool:
    """Whether a picture's EXIF has its height and width exchanged; False where it cannot be read."""
    if isinstance(source, np.ndarray):
        return False

    def lies(picture: Image.Image, name: str) -> bool:
        return _orientation(partial(Image.Image.getexif, picture)) in _LYING

    try:
        return _read(source, "", lies)
    except ImageError:
        return False


def _read(source: str | os.PathLike[str] | Image.Image, name: str, read: Callable[[Image.Image, str], ReadT]) -> ReadT:
    """What `read(picture, name)` makes of an opened picture."""
    if not isinstance(source, str | os.PathLike | Image.Image):
        raise ImageError(f"{name} must be a file path, a PIL image or a numpy array, got {type(source).__name__}.")
    try:
        if isinstance(source, Image.Image):
            return read(source, name)
        with Image.open(source) as picture:
            return read(picture, name)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(name, str(error)) from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is not a picture in a format that Pillow reads.") from error
    except FileNotFoundError as error:
        raise ImageError(f"{name} cannot be read: {error.strerror}.{why_missing(error.filename)}") from error
    except Exception as error:  # decoders meet damaged data with errors of every kind
        reason = str(getattr(error, "strerror", None) or error)
        raise ImageError(f"{name} cannot be read: {reason.strip(' .')}.") from error


def _decoded(picture: Image.Image, name: str) -> Image.Image:
    _require_one_picture(picture, name)
    picture.load()
    turn = _TURN_OF_ORIENTATION.get(_orientation(picture.getexif))
    return picture.copy() if turn is None else picture.transpose(turn)


def _upright_hw(picture: Image.Image, name: str) -> tuple[int, int]:
    if picture.format == "TIFF":  # Pillow turns these itself, and its versions differ in when the size says so
        picture = _decoded(picture, name)
        return (picture.height, picture.width)
    _require_one_picture(picture, name)
    width, height = picture.size
    # A PNG's own `getexif` decodes it, for EXIF that follows the pixels, which hardly any program writes.
    return (width, height) if _orientation(partial(Image.Image.getexif, picture)) in _LYING else (height, width)


def _require_one_picture(picture: Image.Image, name: str) -> None:
    limit, (width, height) = Image.MAX_IMAGE_PIXELS, picture.size
    if limit is not None and width * height > limit:
        raise _too_large(name, f"{width}x{height} pixels exceed the limit of {limit}.")
    if not width or not height:
        raise ImageError(f"{name} has no pixels: its size is {width}x{height}.")
    frames = getattr(picture, "n_frames", 1)
    if frames > 1 and picture.format != "MPO":  # phones keep depth and gain maps in frames after the photo
        raise ImageError(
            f"{name} is animated or has several pages ({frames} frames), expected one picture: save the frame you mean."
        )


def _orientation(read_exif: Callable[[], Image.Exif]) -> Any:
    try:
        return read_exif().get(_EXIF_ORIENTATION)
    except Exception:  # a picture is worth reading though its metadata is damaged, however Pillow finds out
        return None


def _too_large(name: str, how: str) -> ImageError:
    return ImageError(f"{name} is too large to decode safely: {how} Raise PIL.Image.MAX_IMAGE_PIXELS if you trust it.")


def _from_array(array: np.ndarray) -> Image.Image:
    right_shape = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if array.dtype != np.uint8 or not right_shape or 0 in array.shape:
        raise ImageError(f"An image array must be uint8 of shape (H, W) or (H, W, 3), got {array.dtype} {array.shape}.")
    return Image.fromarray(array).convert("RGB")


def _to_rgb(picture: Image.Image, name: str) -> Image.Image:
    if picture.mode.startswith("I"):
        return _from_16_bit(picture, name)
    if picture.mode in ("F", "LAB"):
        raise ImageError(f"{name} has pixels of mode {picture.mode}, which is not read; convert it to 8-bit RGB.")
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return picture.convert("RGB")


def _from_16_bit(picture: Image.Image, name: str) -> Image.Image:
    pixels = np.asarray(picture)
    if pixels.min() < 0 or pixels.max() > _MAX_16_BIT:
        raise ImageError(f"{name} has 32-bit pixels of unknown range; convert it to 8 or 16 bits.")
    return Image.fromarray((pixels // 257).astype(np.uint8)).convert("RGB")
