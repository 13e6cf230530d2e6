"""Reads one picture, of whatever kind users have, into upright 8-bit RGB.

It knows files and pixels; nothing of models. A picture that cannot be read raises `ImageError`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.Image import Transpose

from ..errors import ImageError, PixelReferError
from .formats import PILLOW_READS, greatest_value, num_frames, opened, takes_too_long
from .paths import path_shown, why_missing

logger = logging.getLogger(__name__)

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
_MOST_BITS_RECORDED = 14  # of 16: pictures that use fewer are seldom merely dark

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
    rgb = read_with(_rgb, source, name=_named(source))
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
    return read_with(decoded, source, name=name)


def image_hw(source: str | os.PathLike[str] | Image.Image | np.ndarray) -> tuple[int, int]:
    """Height and width that `load_image` would give, from the picture's header: no pixels are decoded, but a TIFF's.

    Raises:
        ImageError: as `load_image`, as far as the header tells.
    """
    if isinstance(source, np.ndarray):
        _require_array(source)
        return (source.shape[0], source.shape[1])
    return read_with(_upright_hw, source, name=_named(source))


def is_on_its_side(source: str | os.PathLike[str] | Image.Image | np.ndarray) -> bool:
    """Whether a picture's EXIF has its height and width exchanged; False where it cannot be read."""
    if isinstance(source, np.ndarray):
        return False

    def lies(picture: Image.Image, name: str) -> bool:
        return _orientation(partial(Image.Image.getexif, picture)) in _LYING

    try:
        return read_with(lies, source, name="")
    except ImageError:
        return False


def read_with(
    read: Callable[[Image.Image, str], ReadT], source: str | os.PathLike[str] | Image.Image, *, name: str
) -> ReadT:
    """What `read(picture, name)` makes of a picture whose header has been read.

    Raises:
        ImageError: it is missing, no picture, or whatever a decoder finds wrong with it.
        PixelReferError: as `read` does.
    """
    if not isinstance(source, str | os.PathLike | Image.Image):
        raise ImageError(f"{name} must be a file path, a PIL image or a numpy array, got {type(source).__name__}.")
    try:
        with opened(source) as picture:
            return read(picture, name)
    except PixelReferError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(name, str(error)) from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is not a picture {PILLOW_READS}.") from error
    except FileNotFoundError as error:
        raise ImageError(f"{name} cannot be read: {error.strerror}.{why_missing(error.filename)}") from error
    except Exception as error:  # decoders meet damaged data with errors of every kind
        reason = " ".join(str(getattr(error, "strerror", None) or error or type(error).__name__).split())
        raise ImageError(f"{name} cannot be read: {reason.strip(' .')[:200]}.") from error


def _named(source: Any) -> str:
    """What to call a picture in messages."""
    return f"Image {path_shown(source)}" if isinstance(source, str | os.PathLike) else "The image"


def decoded(picture: Image.Image, name: str) -> Image.Image:
    """An opened picture's pixels, upright; raises as `read_picture`."""
    _require_one_picture(picture, name)
    if reason := takes_too_long(picture):
        raise ImageError(f"{name} takes too long to decode: {reason} Save it anew.")
    picture.load()
    turn = _TURN_OF_ORIENTATION.get(_orientation(picture.getexif))
    return picture.copy() if turn is None else picture.transpose(turn)


def _upright_hw(picture: Image.Image, name: str) -> tuple[int, int]:
    if picture.format == "TIFF":  # Pillow turns these itself, and its versions differ in when the size says so
        picture = decoded(picture, name)
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
    if frames := num_frames(picture):
        raise ImageError(
            f"{name} is animated or has several pages ({frames}), expected one picture: save the frame you mean."
        )


def _orientation(read_exif: Callable[[], Image.Exif]) -> Any:
    try:
        return read_exif().get(_EXIF_ORIENTATION)
    except Exception:  # a picture is worth reading though its metadata is damaged, however Pillow finds out
        return None


def _too_large(name: str, how: str) -> ImageError:
    return ImageError(f"{name} is too large to decode safely: {how} Raise PIL.Image.MAX_IMAGE_PIXELS if you trust it.")


def _from_array(array: np.ndarray) -> Image.Image:
    _require_array(array)
    return Image.fromarray(array).convert("RGB")


def _require_array(array: np.ndarray) -> None:
    right_shape = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if array.dtype != np.uint8 or not right_shape or 0 in array.shape:
        raise ImageError(f"An image array must be uint8 of shape (H, W) or (H, W, 3), got {array.dtype} {array.shape}.")


def _rgb(picture: Image.Image, name: str) -> Image.Image:
    white = greatest_value(picture) if picture.mode.startswith("I") else _MAX_16_BIT
    has_16_bits = any(";16" in str(tile[-1]) for tile in getattr(picture, "tile", ()))
    picture = decoded(picture, name)
    if picture.mode.startswith("I"):
        return _from_16_bit(picture, name, white)
    if picture.mode in ("F", "LAB"):
        raise ImageError(f"{name} has pixels of mode {picture.mode}, which is not read; convert it to 8-bit RGB.")
    if has_16_bits:  # Pillow keeps the upper 8 of them
        _tell_of_dark(256 * max(high for _, high in _as_pairs(picture.getextrema())), name)
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        paper = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(paper, rgba).convert("RGB")
    return picture.convert("RGB")


def _as_pairs(extrema: Any) -> list[tuple[int, int]]:
    """Least and greatest value of each colour, without alpha's."""
    pairs = list(extrema) if isinstance(extrema[0], tuple) else [extrema]
    return pairs[: -1 if len(pairs) in (2, 4) else None]


def _from_16_bit(picture: Image.Image, name: str, white: int) -> Image.Image:
    """8 bits from more.

    Args:
        picture: its values are at most 65535.
        name: what to call it.
        white: the value of white by the file's header; heeded where no pixel is brighter.
    """
    pixels = np.asarray(picture)
    brightest = int(pixels.max())
    if pixels.min() < 0 or brightest > _MAX_16_BIT:
        raise ImageError(f"{name} has 32-bit pixels of unknown range; convert it to 8 or 16 bits.")
    if brightest > white or white == _MAX_16_BIT:
        white = _MAX_16_BIT
        _tell_of_dark(brightest, name)
    return Image.fromarray((pixels.astype(np.uint32) * 255 // white).astype(np.uint8)).convert("RGB")


@lru_cache(maxsize=1024)  # once for each file, not in each epoch
def _tell_of_dark(brightest: int, name: str) -> None:
    """Warn of a picture of 16 bits that was probably recorded with fewer: read as it says, it is almost black."""
    if 0 < brightest < 2**_MOST_BITS_RECORDED:
        logger.warning(
            "%s has 16 bits, but its greatest value is %d of 65535, as if %d bits were used: it is read as nearly "
            "black. If it was recorded with fewer bits, scale its values so that white is 65535.",
            name,
            brightest,
            brightest.bit_length(),
        )
