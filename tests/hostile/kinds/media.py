"""Pictures, videos and folders of frames on disk."""

from __future__ import annotations

import io
import os
import random
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pixelrefer_plugin import Region, load_image, load_video
from pixelrefer_plugin.media.images import image_hw
from pixelrefer_plugin.media.video import FrameSampling, frame_at, frame_times

from ..cases import Try, kind, replaced, template
from ..mutate import TEXTS, changed_bytes

_HW = (48, 64)
_SUFFIXES = (
    ".png",
    ".jpg",
    ".webp",
    ".gif",
    ".tif",
    ".bmp",
    ".ppm",
    ".eps",
    ".ico",
    ".jfif",
    "",
    ".mp4",
    ".PNG",
    ".svg",
)
_SAVED: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("PNG", "RGB", {}), ("PNG", "RGBA", {}), ("PNG", "P", {"transparency": 3}), ("PNG", "1", {}), ("PNG", "LA", {}),
    ("PNG", "I;16", {}), ("JPEG", "RGB", {}), ("JPEG", "CMYK", {}), ("JPEG", "L", {"progressive": True}),
    ("WEBP", "RGB", {}), ("WEBP", "RGBA", {"lossless": True}), ("GIF", "P", {"save_all": True, "append": 3}),
    ("PNG", "RGB", {"save_all": True, "append": 3}), ("WEBP", "RGB", {"save_all": True, "append": 3}),
    ("TIFF", "RGB", {}), ("TIFF", "RGB", {"save_all": True, "append": 3}), ("TIFF", "I;16", {}), ("TIFF", "F", {}),
    ("TIFF", "RGB", {"compression": "tiff_lzw"}), ("TIFF", "L", {"compression": "jpeg"}), ("BMP", "RGB", {}),
    ("BMP", "P", {}), ("PPM", "RGB", {}), ("PPM", "L", {}), ("ICO", "RGBA", {}), ("TGA", "RGB", {}), ("PCX", "P", {}),
    ("DDS", "RGB", {}), ("JPEG2000", "RGB", {}), ("EPS", "RGB", {}), ("PDF", "RGB", {}), ("IM", "RGB", {}),
    ("SGI", "RGB", {}), ("MPO", "RGB", {"save_all": True, "append": 1}), ("AVIF", "RGB", {}), ("BLP", "P", {}),
)  # fmt: skip


@cache
def _saved(which: int) -> bytes:
    """A sound picture of one of these formats and modes."""
    format, mode, options = _SAVED[which]
    pixels = np.random.default_rng(which).integers(0, 256, (*_HW, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    picture = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257) if mode == "I;16" else picture.convert(mode)
    options = dict(options)
    if more := options.pop("append", 0):
        options["append_images"] = [picture.rotate(90 * each) for each in range(1, more + 1)]
    file = io.BytesIO()
    try:
        picture.save(file, format, **options)
    except (KeyError, OSError, ValueError):  # this Pillow does not write it
        picture.convert("RGB").save(file, "PNG")
    return file.getvalue()


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png(width: int, height: int, *, depth: int = 8, colour: int = 0, chunks: bytes = b"", rows: bytes = b"") -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunks + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def _tiff_of_pages(count: int) -> bytes:
    """Pages of one pixel, each a directory of its own; the last one leads to the first."""
    pages, start = b"", 8
    for number in range(count):
        tags = [(256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, 0), (277, 1), (278, 1), (279, 1)]
        entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
        following = start + 2 + len(entries) + 4 if number < count - 1 else 8
        pages += struct.pack("<H", len(tags)) + entries + struct.pack("<I", following)
        start = following
    return b"II*\0" + struct.pack("<I", 8) + pages


_EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n%%EOF\n"
_BOMBS: tuple[Callable[[], bytes], ...] = (
    lambda: _png(60_000, 60_000),
    lambda: _png(13_000, 13_000, rows=bytes(13_000 * 13_001)),
    lambda: _png(2**31 - 1, 2**31 - 1),
    lambda: _png(1, 10**8),
    lambda: _png(8, 8, rows=bytes(72), chunks=_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8)))),
    lambda: _png(8, 8, rows=bytes(72), chunks=_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(10**8)))),
    lambda: _png(8, 8, rows=bytes(72), chunks=_chunk(b"eXIf", b"MM\0*\0\0\0\x08" + b"\xff" * 5_000)),
    lambda: _png(8, 8, rows=bytes(72), chunks=_chunk(b"tEXt", b"a\0b") * 50_000),
    lambda: _png(8, 8, depth=16, colour=2, rows=bytes(5_000)),
    lambda: b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + b"\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x02\0;",
    lambda: b"P6 100000 100000 255\n",
    lambda: b"P5 " + b"9" * 5_000 + b" 1 255\n",
    lambda: b"BM" + struct.pack("<IIIIiiHHIIiiII", 100, 0, 54, 40, 60_000, -60_000, 1, 24, 0, 0, 0, 0, 0, 0),
    lambda: _tiff_of_pages(20_000),
    lambda: _tiff_of_pages(2),
    lambda: _EPS,
    lambda: b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 30, len(_EPS)) + bytes(18) + _EPS,
    lambda: b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    lambda: b"#define a_width 99999\n#define a_height 99999\nstatic char a[] = {\n0x00};",
    lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
    lambda: b"",
)  # fmt: skip


def _picture(rng: random.Random) -> bytes:
    if rng.random() < 0.15:
        return rng.choice(_BOMBS)()
    data = _saved(rng.randrange(len(_SAVED)))
    return changed_bytes(rng, data) if rng.random() < 0.9 else data


@kind("pictures", share=14)
def pictures(rng: random.Random, folder: Path) -> Try:
    path = replaced(folder / f"picture{rng.choice(_SUFFIXES)}", _picture(rng))
    value = rng.choice((None, None, 0, 1, 255))
    use = rng.choice(("load", "load", "size", "mask", "video"))

    def try_it() -> None:
        if use == "load":
            load_image(path)
        elif use == "size":
            image_hw(path)
        elif use == "mask":
            Region.from_png(path, value=value).to_mask(_HW)
        else:
            load_video([path, path], fps=1)

    return try_it


def _write_videos(folder: Path) -> None:
    from videos import write_video

    for name, options in {
        "a.mp4": {},
        "a.mkv": {"codec": "mpeg4"},
        "a.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
        "a.mov": {"codec": "png", "pix_fmt": "rgb24"},
        "a.webm": {"codec": "libvpx-vp9"},
        "a.ts": {"codec": "mpeg2video"},
        "a.gif": {"codec": "gif", "pix_fmt": "rgb8"},
    }.items():
        write_video(folder / name, 8, **options)


_PLAYLISTS = (
    "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n",
    "ffconcat version 1.0\nfile '{}'\n",
    "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\na=rtpmap:96 H264/90000\n{}",
    "<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'><BaseURL>{}</BaseURL></MPD>",
)


@kind("videos", share=10)
def videos(rng: random.Random, folder: Path) -> Try:
    sources = sorted(template("videos", _write_videos).iterdir())
    source = rng.choice(sources)
    data = source.read_bytes()
    if rng.random() < 0.08:
        data = rng.choice(_PLAYLISTS).format(rng.choice((source, *TEXTS))).encode("utf-8", "replace")
    elif rng.random() < 0.05:
        data = _picture(rng)
    elif rng.random() < 0.95:
        data = changed_bytes(rng, data)
    path = replaced(folder / f"video{rng.choice((source.suffix, source.suffix, '.mp4', '.m3u8', ''))}", data)
    sampling = rng.choice((FrameSampling(), FrameSampling(num_frames=3), FrameSampling(fps=rng.choice((1, 1e-9, 1e9)))))
    named = rng.choice(((), (), (3,), (0, 7), (10**9,)))
    seconds = rng.choice((0, 0.1, 1e9, -1))

    def try_it() -> None:
        if rng_use == "times":
            frame_at(frame_times(path), seconds)
        else:
            load_video(path, sampling=sampling, frames=named)

    rng_use = rng.choice(("load", "load", "times"))
    return try_it


@kind("frame folders", share=5)
def frame_folders(rng: random.Random, folder: Path) -> Try:
    frames = folder / "frames"
    frames.mkdir()
    for number in range(4):
        (frames / f"{number:05}.png").write_bytes(_saved(0))
    for _ in range(rng.choice((0, 1, 1, 2))):
        _put_other(rng, frames)
    fps = rng.choice((None, 1, 1, 30, 1e-300, 1e300))
    times = None if fps else rng.choice(([0, 1, 2, 3], [0, 0, 0, 0], [3, 2, 1, 0], [float("nan")] * 4))
    named = rng.choice(((), (), (0,), (2, 1), (99,)))
    return lambda: load_video(frames, fps=fps, times_s=times, frames=named)


def _put_other(rng: random.Random, frames: Path) -> None:
    """Something else beside the frames, or in the place of one."""
    name = rng.choice(("00001", "00004", "9" * 200, "²", "a b", ".hidden", "-1", "00001_mask", "cover", "\udcff"))
    path = frames / f"{name}{rng.choice(('.png', '.png', '.jpg', '.txt', ''))}"
    if path.is_dir() and not path.is_symlink():
        return
    path.unlink(missing_ok=True)
    pick = rng.random()
    if pick < 0.3:
        path.write_bytes(_saved(rng.randrange(len(_SAVED))))
    elif pick < 0.6:
        path.write_bytes(_picture(rng))
    elif pick < 0.75:
        path.symlink_to(rng.choice((path, "/dev/zero", "missing", "..")))
    elif pick < 0.9:
        os.mkfifo(path)
    else:
        path.mkdir()
