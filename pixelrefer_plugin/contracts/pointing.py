"""The contract of an adapter that makes no object tokens: it points at regions in words and pictures instead.

Such an adapter has nothing to train. Before a conversation is worded, its `Pointer` is told each image or video with
the regions on it, and says what stands in place of each `<region>`, whether other pictures are shown, and what is shown
beside them. It knows no tokenizer and no model.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from PIL import Image

from ..media.video import Video
from ..regions.mask import FloatBox, RegionMask
from ..regions.region import Region
from .backbone import Coordinates

Config = TypeVar("Config")

Part = str | Image.Image | Video
"""What may be shown beside a picture or video: text, a further picture, a further video."""


@dataclass(frozen=True, eq=False)
class PlacedRegion:
    """A region on one picture: an image, or a sampled frame of a video.

    Attributes:
        region: as it was given: a box, clicks, a polygon, a mask, a scribble.
        mask: its pixels there.
        position: which of the sampled frames it is, from 0; 0 on an image.
        time_s: when that frame is shown, in seconds; None on an image.
    """

    region: Region
    mask: RegionMask
    position: int = 0
    time_s: float | None = None


@dataclass(frozen=True, eq=False)
class PointedRegion:
    """A region that is to be pointed at.

    Attributes:
        number: what it is called by, from 1; no two regions of a conversation have the same.
        places: where it lies: on the image, or on each of its frames in the order of time.
    """

    number: int
    places: tuple[PlacedRegion, ...]


@dataclass(frozen=True)
class SaidCoordinates:
    """How a backbone is told coordinates on one picture: its convention, and the sizes that it needs.

    Attributes:
        convention: the backbone's.
        image_hw: height and width of the picture in original pixels.
        seen_hw: height and width that the backbone's processor brings it to.
    """

    convention: Coordinates
    image_hw: tuple[int, int]
    seen_hw: tuple[int, int]

    def box(self, box_xyxy: FloatBox) -> str:
        """A box, given in original pixels, as the backbone was trained to read it."""
        x0, y0, x1, y1 = box_xyxy
        (left, top), (right, bottom) = self._said(x0, y0), self._said(x1, y1)
        return self.convention.box.format(x0=left, y0=top, x1=right, y1=bottom)

    def point(self, x: float, y: float) -> str | None:
        """A point, given in original pixels; None where the backbone has no convention for points."""
        if self.convention.point is None:
            return None
        across, down = self._said(x, y)
        return self.convention.point.format(x=across, y=down)

    def frame(self, *, number: int, time_s: float) -> str | None:
        """What stands before the coordinates on a frame of a video; None where there is no convention for videos.

        Args:
            number: which of the sampled frames it is, from 1.
            time_s: when it is shown, in seconds.
        """
        return None if self.convention.frame is None else self.convention.frame.format(number=number, time_s=time_s)

    def _said(self, x: float, y: float) -> tuple[str, str]:
        """One point in the convention's unit, as digits."""
        height, width = self.image_hw
        x, y = min(max(x, 0.0), width), min(max(y, 0.0), height)
        if self.convention.of_square:
            side = max(height, width)
            x, y, height, width = x + (side - width) // 2, y + (side - height) // 2, side, side
        if self.convention.unit == "fractions":
            return str(round(x / width, self.convention.decimals)), str(round(y / height, self.convention.decimals))
        high, wide = self.seen_hw if self.convention.unit == "pixels" else (1000, 1000)
        whole = math.floor if self.convention.rounding == "down" else round
        return str(whole(x * wide / width)), str(whole(y * high / height))


@dataclass(frozen=True, eq=False)
class PointedMedium:
    """An image or video, and how the conversation shows it.

    Attributes:
        media: the image, upright RGB, or the video with its sampled frames.
        number: which of the images, or of the videos, that the conversation shows it is, from 1. What is shown beside
            it counts on from there, each kind by itself.
        has_others: whether the conversation itself shows further images or videos.
        coordinates: how the backbone is told coordinates on it; None where no convention is known.
    """

    media: Image.Image | Video
    number: int
    has_others: bool
    coordinates: SaidCoordinates | None

    @property
    def is_video(self) -> bool:
        """Whether it is a video."""
        return isinstance(self.media, Video)

    @property
    def image_hw(self) -> tuple[int, int]:
        """Height and width of the image, or of the video's frames."""
        return self.media.image_hw if isinstance(self.media, Video) else (self.media.height, self.media.width)


@dataclass(frozen=True, eq=False)
class Pointing:
    """How the regions of one image or video are pointed at.

    Attributes:
        words: for each region what stands where its `<region>` does.
        media: what is shown in place of the image or video: one of the same kind, a video with as many frames. None:
            it is shown as it is.
        beside: what is shown right behind it, in order. Chat templates may show all pictures before all texts, so that
            a text should call a picture by its number. Where they are texts alone, one that the conversation holds
            already is not said again.
        notes: what the user should know, such as that a mark was made larger; each is said once.
    """

    words: tuple[str, ...]
    media: Image.Image | Video | None = None
    beside: tuple[Part, ...] = ()
    notes: tuple[str, ...] = ()


class Pointer(ABC, Generic[Config]):
    """Points at regions in words and pictures. One is made for a processor; all methods are pure.

    Args:
        config: the adapter's options.
    """

    def __init__(self, config: Config) -> None:
        self.config = config

    @abstractmethod
    def point(self, on: PointedMedium, regions: Sequence[PointedRegion]) -> Pointing:
        """How the regions of one image or video are pointed at.

        Args:
            on: the image or video.
            regions: those on it, one or more, in the order in which the conversation first calls them.

        Raises:
            PromptError: they cannot be pointed at here, such as on videos; says which adapter can.
        """
