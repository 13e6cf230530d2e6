"""Crops: the parts of pictures that plans ask for, cut out and resized."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from ..contracts.views import Resample
from ..media.video import Video
from ..regions.mask import Box


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """A sampled frame of a video; its picture is made when it is needed, and not kept."""

    video: Video
    position: int


Picture = Image.Image | VideoFrame


def first_of_each(pictures: Sequence[Picture]) -> list[int]:
    """For each picture the first that is the same object: conversations of a batch may share one."""
    first: dict[Any, int] = {}
    return [
        first.setdefault((id(each.video), each.position) if isinstance(each, VideoFrame) else id(each), index)
        for index, each in enumerate(pictures)
    ]


def picture_hw(picture: Picture) -> tuple[int, int]:
    if isinstance(picture, VideoFrame):
        return picture.video.image_hw
    return picture.height, picture.width


@dataclass(frozen=True)
class Crop:
    """What makes a crop; regions that ask for the same one share it."""

    picture: int
    box_xyxy: Box
    grid_hw: tuple[int, int]
    tower_hw: tuple[int, int]
    resample: Resample


def cut_crops(crops: Sequence[Crop], pictures: Sequence[Picture], patch_size: int) -> Tensor:
    """The crops' pixels, `(3, N)` uint8, made on as many threads as torch would use."""
    sides_hw = [(crop.tower_hw[0] * patch_size, crop.tower_hw[1] * patch_size) for crop in crops]
    ends = np.cumsum([0, *(height * width for height, width in sides_hw)])
    pixels = np.empty((3, int(ends[-1])), dtype=np.uint8)
    sources = _sources(crops, pictures)

    def write(index: int) -> None:
        crop = crops[index]
        part = _part_hwc(sources[crop.picture], crop.box_xyxy)
        height, width = (side * patch_size for side in crop.grid_hw)
        resized = _resized(part, (height, width), crop.resample)
        if crop.tower_hw != crop.grid_hw:  # `CropView.encoded_hw`
            tower_wh = sides_hw[index][::-1]
            resized = np.asarray(Image.fromarray(resized).resize(tower_wh, Image.Resampling.BICUBIC))
        pixels[:, ends[index] : ends[index + 1]].reshape(3, *sides_hw[index])[:] = resized.transpose(2, 0, 1)

    threads = min(len(crops), torch.get_num_threads())
    if threads < 2:
        list(map(write, range(len(crops))))
    else:
        with ThreadPoolExecutor(threads) as pool:  # resizing needs no interpreter's lock
            list(pool.map(write, range(len(crops))))
    return torch.from_numpy(pixels)


def _sources(crops: Sequence[Crop], pictures: Sequence[Picture]) -> dict[int, Image.Image | np.ndarray]:
    """The pictures to cut from: as `(H, W, 3)` arrays where they are that already, and where the crops of one add up to
    more than it, so that turning it into one costs less than turning each crop."""
    wanted_px: Counter[int] = Counter()
    for crop in crops:
        left, top, right, bottom = crop.box_xyxy
        wanted_px[crop.picture] += (right - left) * (bottom - top)
    sources: dict[int, Image.Image | np.ndarray] = {}
    for index, area_px in wanted_px.items():
        picture = pictures[index]
        if isinstance(picture, VideoFrame):
            sources[index] = picture.video.frames_nhwc[picture.position]
        else:
            sources[index] = np.asarray(picture) if area_px > math.prod(picture.size) else picture
    return sources


def _part_hwc(source: Image.Image | np.ndarray, box_xyxy: Box) -> np.ndarray:
    """A copy of the pixels in the box, `(h, w, 3)` uint8."""
    left, top, right, bottom = box_xyxy
    return np.array(source[top:bottom, left:right] if isinstance(source, np.ndarray) else source.crop(box_xyxy))


def _resized(part: np.ndarray, side_hw: tuple[int, int], resample: Resample) -> np.ndarray:
    """`(h, w, 3)` uint8 at another size."""
    if resample == "bicubic":  # what Pillow's bicubic makes of it, but for the last bit, in a quarter of the time
        batch = torch.from_numpy(part).permute(2, 0, 1)[None]
        (resized,) = interpolate(batch, side_hw, mode="bicubic", antialias=True)
        return resized.permute(1, 2, 0).numpy()
    import cv2

    method = {"opencv_linear": cv2.INTER_LINEAR, "opencv_area": cv2.INTER_AREA}[resample]
    return cv2.resize(part, side_hw[::-1], interpolation=method)
