"""Which kinds of picture files are opened, and what their headers say of the pixels: whether they are exact, and how
many bits of them count.

Pillow opens some 45 formats, one of them by starting another program on the file; here is a list of those that are
only decoded.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image

from ..files import open_regular

_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "AVIF", "HEIF", "JPEG2000", "TGA", "ICO")
PILLOW_READS = "in a format that Pillow reads: PNG, JPEG, WebP, BMP, GIF, TIFF, PPM, AVIF, JPEG 2000, TGA or ICO"
"""How messages call them."""

_STARTS_A_PROGRAM = ("EPS",)
_LOSSY = {"JPEG": "JPEG", "MPO": "JPEG", "AVIF": "AVIF", "HEIF": "HEIF"}
_LOSSY_IN_TIFF = ("jpeg", "tiff_jpeg", "webp")
_MAX_SAMPLE_VALUE, _BITS_PER_SAMPLE = 281, 258  # tags of TIFF
_MOST_PIXELS_OF_SCANS = 2**31  # of all scans of a progressive JPEG together; some ten seconds
_MOST_FRAMES_COUNTED = 100


@contextmanager
def opened(source: str | os.PathLike[str] | Image.Image) -> Iterator[Image.Image]:
    """A picture whose header has been read; a picture of the caller's as it is.

    Raises:
        OSError: the file cannot be read, is no regular one, or is no picture of the formats that are read.
    """
    if isinstance(source, Image.Image):
        if source.format in _STARTS_A_PROGRAM:
            raise OSError(f"{source.format} is not read, for it takes another program; save it as PNG")
        yield source
        return
    with open_regular(source) as file, Image.open(file, formats=picture_formats()) as picture:
        yield picture


def picture_formats() -> list[str]:
    """The formats that are read, as far as this Pillow has them."""
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def picture_suffixes() -> set[str]:
    """The suffixes of their files, in small letters."""
    readable = {*picture_formats(), "MPO"}
    return {suffix for suffix, kind in Image.registered_extensions().items() if kind in readable}


def num_frames(picture: Image.Image) -> str:
    """How many pictures a file holds, counted to a hundred; empty where it is one.

    Formats that say it in their header are asked; of the others as many frames are looked for.
    """
    if picture.format == "MPO":  # phones keep depth and gain maps in frames after the photo
        return ""
    if picture.format not in ("TIFF", "GIF"):
        count = getattr(picture, "n_frames", 1)
        return f"{count} frames" if count > 1 else ""
    at, count = picture.tell(), 1
    try:
        while count < _MOST_FRAMES_COUNTED:
            picture.seek(count)
            count += 1
    except EOFError:
        pass
    finally:
        if count > 1 or at:
            picture.seek(at)
    return "" if count == 1 else f"{count} frames" + (" or more" if count == _MOST_FRAMES_COUNTED else "")


def takes_too_long(picture: Image.Image) -> str:
    """Why decoding a picture would take minutes; empty for others."""
    if picture.format not in ("JPEG", "MPO") or "progressive" not in picture.info:
        return ""
    scans = _content(picture).count(b"\xff\xda")
    width, height = picture.size
    if scans * width * height <= _MOST_PIXELS_OF_SCANS:
        return ""
    return f"{width}x{height} pixels are stored {scans} times over."


def lossy_format(picture: Image.Image) -> str:
    """The name of the format that changed a picture's values a little when it was saved; empty where none did."""
    kind = picture.format or ""
    if kind == "TIFF":
        compression = picture.info.get("compression")
        return f"TIFF with {compression} compression" if compression in _LOSSY_IN_TIFF else ""
    if kind == "WEBP":
        return "" if b"VP8L" in _riff_chunks(_content(picture)) else "lossy WebP"
    if kind == "JPEG2000":
        return "" if _is_reversible(_content(picture)) else "lossy JPEG 2000"
    return _LOSSY.get(kind, "")


def greatest_value(picture: Image.Image) -> int:
    """The value of white by the header of a picture of more than 8 bits; 65535 where it says nothing."""
    most = 0
    if picture.format == "PNG":
        most = 2 ** _significant_bits(_content(picture)) - 1
    elif picture.format == "TIFF":
        tags: Any = getattr(picture, "tag_v2", {})
        bits, said = (_number(tags.get(tag)) for tag in (_BITS_PER_SAMPLE, _MAX_SAMPLE_VALUE))
        most = said or (2**bits - 1 if 8 < bits < 16 else 0)
    return most if 255 < most < 65535 else 65535


def _number(value: Any) -> int:
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else 0


def _content(picture: Image.Image) -> bytes:
    """The bytes of an open picture's file; none where it was made in memory."""
    file = getattr(picture, "fp", None)
    if file is None:
        return b""
    at = file.tell()
    file.seek(0)
    content: bytes = file.read()
    file.seek(at)
    return content


def _riff_chunks(content: bytes) -> set[bytes]:
    names, at = set(), 12
    while at + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, at)
        names.add(name)
        at += 8 + size + size % 2
    return names


def _is_reversible(content: bytes) -> bool:
    """Whether a JPEG 2000's wavelet is the one in integers (ISO/IEC 15444-1, A.6.1)."""
    at = content.find(b"\xff\x4f\xff\x51") + 2
    while at >= 2 and at + 14 <= len(content):
        marker, length = struct.unpack_from(">HH", content, at)
        if marker == 0xFF52:
            return content[at + 13] == 1
        at += 2 + length
    return False


def _significant_bits(content: bytes) -> int:
    """What a PNG's sBIT chunk says of its first channel; 16 where there is none."""
    at = 8
    while at + 9 <= len(content):
        size, name = struct.unpack_from(">I4s", content, at)
        if name == b"sBIT":
            return content[at + 8]
        if name == b"IDAT":
            break
        at += 12 + size
    return 16
