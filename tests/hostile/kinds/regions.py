"""Regions and what is made of them, given in Python: any values of any types."""

from __future__ import annotations

import decimal
import fractions
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pixelrefer_plugin import Region, VideoRegion, load_image, load_video, save_overlay
from pixelrefer_plugin.media.video import FrameSampling

from ..cases import Try, kind
from ..mutate import changed, nasty

_HW = (60, 80)


def _cyclic() -> list[Any]:
    made: list[Any] = [1]
    made.append(made)
    return made


def _deep(depth: int) -> list[Any]:
    made: list[Any] = []
    for _ in range(depth):
        made = [made]
    return made


_STRANGE: tuple[Callable[[], Any], ...] = (
    object, dict, set, tuple, bytes, _cyclic, lambda: _deep(990), lambda: _deep(5_000), lambda: (each for each in "ab"),
    lambda: range(10**12), lambda: float, lambda: 1 + 2j, lambda: decimal.Decimal("NaN"),
    lambda: decimal.Decimal("1e99"), lambda: fractions.Fraction(10**400, 3), lambda: np.float64("nan"),
    lambda: np.int8(-3), lambda: np.datetime64("NaT"), lambda: np.zeros(_HW, bool), lambda: np.ones(_HW, np.uint8),
    lambda: np.full(_HW, np.nan), lambda: np.ones((0, 80)), lambda: np.ones((*_HW, 3)), lambda: np.ones(_HW, object),
    lambda: np.array(["a", None], object), lambda: np.ones(()), lambda: np.ones(_HW, complex),
    lambda: np.ones(_HW, "M8[s]"), lambda: np.ones(3, "V8"), lambda: np.ones(_HW, "f2"), lambda: np.ma.masked_all(_HW),
    lambda: np.lib.stride_tricks.as_strided(np.zeros(1), (10**6, 10**6), (0, 0)), lambda: torch.ones(_HW),
    lambda: torch.ones(_HW, device="meta"), lambda: torch.ones(_HW, dtype=torch.bfloat16),
    lambda: torch.ones(4, requires_grad=True), lambda: torch.eye(3).to_sparse(), lambda: Image.new("1", _HW[::-1]),
    lambda: Image.new("RGB", (1, 1)), lambda: "1,2,3,4", lambda: b"\0" * 100_000, lambda: 10**5_000,
    lambda: [10**5_000],
)  # fmt: skip
_SOUND: dict[str, Any] = {
    "from_mask": np.ones(_HW, bool),
    "from_box": [5, 5, 30, 40],
    "from_polygon": [[5, 5, 40, 8, 20, 40]],
    "from_points": [[8, 8], [20, 20]],
    "from_scribble": [[3, 3], [30, 30], [10, 40]],
    "from_rle": {"size": list(_HW), "counts": [100, 20, 40, 20, 4620]},
    "from_png": None,
}
_RLE_TEXTS = (
    "PPY11m0000",
    "",
    "0",
    "~~~~",
    "oooooooooooooooooo",
    "a" * 5_000,
    "\0",
    "é",
    "P" * 100_000,
    b"PPY1",
    b"\xff",
)
_OPTION = {"from_points": "radius_px", "from_scribble": "width_px", "from_png": "value"}


def any_value(rng: random.Random) -> Any:
    """A value of any type."""
    return rng.choice(_STRANGE)() if rng.random() < 0.5 else nasty(rng)


@kind("regions", share=14)
def regions(rng: random.Random, folder: Path) -> Try:
    name = rng.choice(tuple(_SOUND))
    value: Any = folder / "mask.png" if name == "from_png" else _SOUND[name]
    Image.fromarray(np.ones(_HW, np.uint8)).save(folder / "mask.png")
    options: dict[str, Any] = {}
    size: Any = _HW
    strange = rng.choice(("value", "value", "changed", "changed", "option", "image", "size"))
    if strange == "value":
        value = any_value(rng)
    elif strange == "changed" and isinstance(value, list | dict):
        value = changed(rng, value)
    elif strange == "option" and name in _OPTION:
        options[_OPTION[name]] = any_value(rng)
    elif strange == "image":
        options["image_index"] = any_value(rng)
    elif strange == "size":
        size = any_value(rng) if rng.random() < 0.5 else (60, any_value(rng))
    use = rng.choice((_mask, _rle, _overlay, _frames))
    return lambda: use(getattr(Region, name)(value, **options), size, folder)


def _mask(region: Region, size: Any, folder: Path) -> None:
    mask = region.to_mask(size)
    assert mask.area > 0
    mask.coverage((0, 0, 10, 10), (3, 3))


def _rle(region: Region, size: Any, folder: Path) -> None:
    Region.from_rle(region.to_rle(size)).to_mask(size)


def _overlay(region: Region, size: Any, folder: Path) -> None:
    save_overlay(folder / "made.png", Image.new("RGB", _HW[::-1]), [region])


def _frames(region: Region, size: Any, folder: Path) -> None:
    VideoRegion({0: region, 3: region}).require_on(size)


@kind("polygons", share=5)
def polygons(rng: random.Random, folder: Path) -> Try:
    """Many points, far apart, or far outside."""
    height, width = rng.choice((_HW, _HW, (1, 1), (3_000, 4_000), (4, 40_000)))
    reach = rng.choice((1, 1, 1, 1.5, 1_000, 1e9, 1e300))
    count = rng.choice((3, 50, 5_000, 50_000, 200_000))
    zigzag = rng.random() < 0.5
    points = [
        (width * reach * (at % 2 if zigzag else rng.random()), height * min(reach, 1e9) * rng.random())
        for at in range(count)
    ]
    thickness = rng.choice((1, 3, 100, 1e5, 1e18, 1e200))
    make: Callable[[], Region] = rng.choice(
        (
            lambda: Region.from_polygon([value for point in points for value in point]),
            lambda: Region.from_polygon([points] * 20),
            lambda: Region.from_scribble(points, width_px=thickness),
            lambda: Region.from_points(points, radius_px=thickness),
        )
    )
    return lambda: make().to_mask((height, width))


@kind("run lengths", share=8)
def run_lengths(rng: random.Random, folder: Path) -> Try:
    rle: Any = {"size": list(_HW), "counts": [100, 20, 40, 20, 4620]}
    pick = rng.random()
    if pick < 0.4:
        rle = changed(rng, rle)
    elif pick < 0.7:
        rle["counts"] = rng.choice(_RLE_TEXTS) if rng.random() < 0.5 else rng.randbytes(rng.choice((3, 30, 3_000)))
    else:
        side = rng.choice((10**5, 10**9, 2**31, 2**32, 2**40))
        rle = {"size": rng.choice(([side, side], [1, side], [side, 1])), "counts": rng.choice(([0, side], [side * side],
               [0, side * side], [1] * 10_000, "0" * 100, [side, -side, side]))}  # fmt: skip
    hw = rle["size"] if rng.random() < 0.4 and isinstance(rle, dict) and "size" in rle else _HW
    return lambda: Region.from_rle(rle).to_mask(hw)


@kind("video regions", share=4)
def video_regions(rng: random.Random, folder: Path) -> Try:
    box = Region.from_box((5, 5, 30, 40))
    frames: Any = {0: box, 3: box, 4: box}
    absent: Any = (1, 2)
    count: Any = 2
    strange = rng.choice(("frame", "shape", "frames", "absent", "count", "count"))
    if strange == "frame" and _hashable(key := any_value(rng)):
        frames[key] = box
    elif strange == "shape":
        frames[3] = any_value(rng)
    elif strange == "frames":
        frames = any_value(rng)
    elif strange == "absent":
        absent = any_value(rng) if rng.random() < 0.5 else (1, any_value(rng))
    elif strange == "count":
        count = any_value(rng)
    return lambda: VideoRegion(frames, absent=absent).thinned(count).require_on(_HW)


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


@kind("arrays", share=6)
def arrays(rng: random.Random, folder: Path) -> Try:
    """Pictures and videos that are given as values, and what is asked of them."""
    given: dict[str, Any] = {"source": np.zeros((4, *_HW, 3), np.uint8), "fps": 2, "times_s": None, "frames": [0]}
    strange = rng.choice(("source", "source", "pictures", "fps", "times_s", "frames", "sampling", "image", "overlay"))
    value = any_value(rng)
    if strange == "pictures":
        given["source"] = [np.zeros((*_HW, 3), np.uint8), value]
    elif strange == "times_s":
        given.update(fps=None, times_s=value if rng.random() < 0.5 else [0, 1, 2, value])
    elif strange == "frames":
        given["frames"] = value if rng.random() < 0.5 else [0, value]
    elif strange in given:
        given[strange] = value
    options = {rng.choice(("num_frames", "fps", "max_frames")): value} if strange == "sampling" else {}
    name = rng.choice(("a.png", "a.gif", "a.mp4", "a.txt", "b/a.gif", ""))

    def try_it() -> None:
        if strange == "image":
            load_image(value)
            return
        video = load_video(**given, sampling=FrameSampling(**options))
        if strange == "overlay":
            save_overlay(folder / name, video, value if isinstance(value, list) else [value])

    return try_it
