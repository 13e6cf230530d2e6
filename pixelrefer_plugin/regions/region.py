"""`Region`: what the user points at, in original pixels, from the command line to the adapter.

A region remembers what was given (a box, a polygon, ...) and becomes a mask once its image's size is known.
It knows geometry only: no model, no patch size, no tokens.

Coordinates are continuous: pixel (row i, column j) covers `[j, j+1) x [i, i+1)`; x runs right, y runs down.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image

from ..errors import RegionError, counted, placed, shown
from ..media.paths import path_shown
from .clipping import clipped
from .given import (
    finite_numbers,
    is_index,
    looks_normalised,
    mask_values,
    number_pairs,
    polygon_rings,
    positive_number,
    read_mask,
    require_hw,
    require_lossless,
    rle_runs,
    tell_of_many_values,
    whole_numbers,
)
from .mask import RegionMask
from .rasterize import CHECKS, RASTERIZERS


@dataclass(frozen=True)
class Region:
    """What the user points at on one image: an immutable, validated value in original pixels.

    Make one with a `from_...` constructor. What can be checked without the image is checked there, the
    rest in `to_mask`.

    Attributes:
        kind: what was given: `mask`, `box`, `polygon`, `points`, `rle` or `scribble`.
        data: that, in the form its constructor keeps it.
        image_index: which image of the sample the region lies on.
    """

    kind: str
    data: Any
    image_index: int = 0

    def __repr__(self) -> str:
        where = f", image_index={self.image_index}" if self.image_index else ""
        return f"Region({self.kind} {_described(self.kind, self.data)}{where})"

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str) or self.kind not in RASTERIZERS:
            raise RegionError(f"Region.kind must be one of {', '.join(RASTERIZERS)}, got {shown(self.kind)}.")
        if not isinstance(self.data, RegionMask if self.kind == "mask" else tuple):
            raise RegionError(f"A Region is made by Region.from_{self.kind}, not of {shown(self.data)}.")
        if not is_index(self.image_index):
            raise RegionError(f"Region.image_index must be an integer >= 0, got {shown(self.image_index)}.")

    @classmethod
    def from_mask(cls, mask: np.ndarray, *, image_index: int = 0) -> Region:
        """A region from a mask of its image's size.

        Args:
            mask: `(H, W)`, booleans, integers of which all but 0 mean inside, or floats that are 0 or 1.
            image_index: which image of the sample it lies on.

        Raises:
            RegionError: not two-dimensional, empty, or probabilities or logits that need a threshold.
        """
        try:
            array = np.asarray(mask)
        except Exception as error:  # of whatever was given
            raise RegionError(f"A mask must be a (H, W) array of booleans or numbers, got {shown(mask)}.") from error
        if isinstance(mask, Image.Image):
            require_lossless(mask, "The mask")
        if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "biuf":
            raise RegionError(f"A mask must be a (H, W) array of booleans or numbers, got {array.dtype} {array.shape}.")
        if array.dtype.kind == "f" and not ((array == 0) | (array == 1)).all():
            raise RegionError(
                "A mask of floats must hold 0 and 1 only. Pass booleans: threshold probabilities "
                "(mask > 0.5) or logits (mask > 0)."
            )
        return cls("mask", RegionMask.from_dense(array.astype(bool, copy=False)), image_index)

    @classmethod
    def from_box(cls, box_xyxy: Sequence[float], *, image_index: int = 0) -> Region:
        """A region from a box `(x1, y1, x2, y2)`: every pixel that the box touches.

        Raises:
            RegionError: not four finite numbers, inverted, or without area.
        """
        box = finite_numbers(box_xyxy, what="A box", shape="x1,y1,x2,y2")
        if len(box) != 4:
            raise RegionError(f"A box must be four numbers x1,y1,x2,y2, got {len(box)}: {shown(box)}.")
        x1, y1, x2, y2 = box
        if x2 < x1 or y2 < y1:
            hint = " All coordinates lie within 0 and 1, but pixels are expected." if looks_normalised(box) else ""
            raise RegionError(
                f"A box must have x1 < x2 and y1 < y2, got {box}: is it inverted, or x,y,width,height?{hint}"
            )
        if x1 == x2 or y1 == y2:
            raise RegionError(f"A box must have an area, got {box}.")
        return cls("box", box, image_index)

    @classmethod
    def from_polygon(cls, polygon: Sequence[Any], *, image_index: int = 0) -> Region:
        """A region from a polygon, or from several that belong together (as COCO's `segmentation`).

        Args:
            polygon: `[x0, y0, x1, y1, ...]`, `[(x0, y0), ...]`, or a list of such polygons.
            image_index: which image of the sample it lies on.

        Raises:
            RegionError: fewer than three points, an odd number of coordinates, or not finite.
        """
        return cls("polygon", polygon_rings(polygon), image_index)

    @classmethod
    def from_points(
        cls, points_xy: Sequence[Sequence[float]], *, radius_px: float = 10.0, image_index: int = 0
    ) -> Region:
        """A region from clicks: a disk of `radius_px` around each.

        Raises:
            RegionError: no point, not pairs of finite numbers, or a radius that is not positive.
        """
        points = number_pairs(points_xy, what="Points")
        return cls("points", (points, positive_number(radius_px, "radius_px")), image_index)

    @classmethod
    def from_scribble(
        cls, points_xy: Sequence[Sequence[float]], *, width_px: float = 10.0, image_index: int = 0
    ) -> Region:
        """A region from a freehand line through `points_xy`, `width_px` wide, with round ends.

        Raises:
            RegionError: fewer than two points, not pairs of finite numbers, or a width that is not positive.
        """
        points = number_pairs(points_xy, what="A scribble")
        if len(points) < 2:
            raise RegionError("A scribble needs at least two points; for a click use Region.from_points.")
        return cls("scribble", (points, positive_number(width_px, "width_px")), image_index)

    @classmethod
    def from_rle(cls, rle: Mapping[str, Any], *, image_index: int = 0) -> Region:
        """A region from COCO run-length encoding, compressed (`counts` a string) or not (a list).

        Args:
            rle: `{"size": [height, width], "counts": ...}`.
            image_index: which image of the sample it lies on.

        Raises:
            RegionError: keys missing, sizes or counts malformed, or runs that do not add up to the size.
        """
        if not isinstance(rle, Mapping) or "size" not in rle or "counts" not in rle:
            raise RegionError(f"An RLE must be a mapping with 'size' and 'counts', got {shown(rle)}.")
        size_hw = whole_numbers(rle["size"], what="RLE size", shape="[height, width]")
        if len(size_hw) != 2 or min(size_hw) < 1:
            raise RegionError(f"RLE size must be two positive integers [height, width], got {shown(rle['size'])}.")
        runs = rle_runs(rle["counts"], total=math.prod(size_hw))
        return cls("rle", (runs, size_hw), image_index)

    @classmethod
    def from_png(cls, path: str | os.PathLike[str], *, value: int | None = None, image_index: int = 0) -> Region:
        """A region from a mask picture: non-zero pixels, or those equal to `value` in a label map.

        Grey, black-and-white, 16-bit and palette pictures are read by value (a palette's by index, as DAVIS
        has it), as are colour pictures whose channels are equal. Where a picture has an alpha channel and
        no `value` is asked for, the mask is where it is not transparent. Where it has more than two values and none
        is asked for, that is logged as a warning: it is a label map, or its edges were blurred.

        Raises:
            RegionError: a colour picture, of a format that changes values such as JPEG, or an empty mask.
            ImageError: the file is missing or damaged.
        """
        name = f"Mask {path_shown(path)}" if isinstance(path, str | os.PathLike) else "The mask"
        if value is not None and not is_index(value):
            raise RegionError(f"The value of a mask must be an integer >= 0, got {shown(value)}.")
        values = mask_values(read_mask(path, name=name), name, use_alpha=value is None)
        if value is None and len(kinds := np.unique(values)) > 2:
            tell_of_many_values(name, len(kinds), int(kinds[0]), int(kinds[-1]))
        mask = values != 0 if value is None else values == value
        if not mask.any():
            wanted = "non-zero" if value is None else f"equal to {value}"
            raise RegionError(
                f"{name} is empty: no pixel is {wanted}, its values are {int(values.min())} to {int(values.max())}."
            )
        return cls.from_mask(mask, image_index=image_index)

    def on_image(self, image_index: int) -> Region:
        """The same region on another image of the sample."""
        return replace(self, image_index=image_index)

    def clipped(self, image_hw: tuple[int, int]) -> Region:
        """The part of it that lies inside an image of `image_hw`; itself where that is all of it.

        Boxes, polygons and scribbles are cut off at the border; a scribble that leaves the image and comes back
        becomes a mask. Clicks outside are left out, but for those whose disk reaches in: they move to the border.

        Raises:
            RegionError: nothing of it lies inside, its coordinates are shares of the image's sides, or it is a mask
                of another size.
        """
        kind, data = clipped(self.kind, self.data, require_hw(image_hw))
        return replace(self, kind=kind, data=data)

    def to_mask(self, image_hw: tuple[int, int]) -> RegionMask:
        """The region as pixels of an image of `image_hw`.

        Raises:
            RegionError: it was made for an image of another size, lies outside, or covers no pixel.
        """
        return RASTERIZERS[self.kind](self.data, require_hw(image_hw))

    def require_on(self, image_hw: tuple[int, int]) -> None:
        """Check that it fits an image of `image_hw`, without its pixels; raises as `to_mask`."""
        CHECKS[self.kind](self.data, require_hw(image_hw))

    def to_rle(self, image_hw: tuple[int, int]) -> dict[str, Any]:
        """Its pixels as COCO's compressed run-length encoding; raises as `to_mask`."""
        return self.to_mask(image_hw).to_rle()


@dataclass(frozen=True)
class VideoRegion:
    """One object of a video: what the user points at, on one frame, on some, or on all.

    Attributes:
        frames: frame index in the video -> the region there, ascending, read-only. Indices count all the
            frames of the source, from 0, not the sampled ones. The frames named are always sampled; for an `<seg>` of
            an answer, as many of them, spread evenly, as are sampled anyway.
        video_index: which video of the sample it lies on.
        absent: frames on which the object is known not to be seen, ascending, none of them in `frames`. They teach the
            masks of an answer's `<seg>`; of a region in a question they say nothing. About the frames that are
            in neither nothing is known.
    """

    frames: Mapping[int, Region]
    video_index: int = 0
    absent: tuple[int, ...] = ()

    def __repr__(self) -> str:
        frames = list(self.frames)
        kinds = "/".join(dict.fromkeys(region.kind for region in self.frames.values()))
        first = ", ".join(map(str, frames[:3])) + (f", ... {frames[-1]}" if len(frames) > 3 else "")
        absent = f", absent on {len(self.absent)}" if self.absent else ""
        where = f", video_index={self.video_index}" if self.video_index else ""
        return f"VideoRegion({kinds} on {counted(len(frames), 'frame')}: {first}{absent}{where})"

    def __post_init__(self) -> None:
        if not isinstance(self.frames, Mapping) or not self.frames:
            raise RegionError(f"A VideoRegion maps one frame or more to regions, got {shown(self.frames)}.")
        for frame, region in self.frames.items():
            if not is_index(frame):
                raise RegionError(f"A VideoRegion's frames must be integers >= 0, got {shown(frame)}.")
            if not isinstance(region, Region):
                raise RegionError(f"A VideoRegion has a Region on each frame, got {shown(region)} on frame {frame}.")
        if not is_index(self.video_index):
            raise RegionError(f"VideoRegion.video_index must be an integer >= 0, got {shown(self.video_index)}.")
        ordered = {int(frame): self.frames[frame] for frame in sorted(self.frames)}
        object.__setattr__(self, "frames", MappingProxyType(ordered))
        object.__setattr__(self, "absent", self._checked_absent())

    def _checked_absent(self) -> tuple[int, ...]:
        given = self.absent
        if isinstance(given, str | bytes) or not isinstance(given, Iterable):
            raise RegionError(f"VideoRegion.absent must be a list of frame indices, got {shown(given)}.")
        try:
            frames = list(given)
        except Exception as error:  # of whatever was given
            raise RegionError(f"VideoRegion.absent must be a list of frame indices, got {shown(given)}.") from error
        for frame in frames:
            if not is_index(frame):
                raise RegionError(f"VideoRegion.absent must be frame indices, integers >= 0, got {shown(frame)}.")
            if frame in self.frames:
                raise RegionError(f"A VideoRegion has a region on frame {frame}, but says that it is absent there.")
        return tuple(sorted({int(frame) for frame in frames}))

    def thinned(self, num_frames: int) -> VideoRegion:
        """The same object on at most `num_frames` of the frames about which something is known, spread evenly.

        Frames with a region and absent ones are thinned together; one with a region is always kept.

        Raises:
            RegionError: `num_frames` is less than 1.
        """
        if not is_index(num_frames) or num_frames < 1:
            raise RegionError(f"A VideoRegion keeps one frame or more, got num_frames={shown(num_frames)}.")
        known = sorted({*self.frames, *self.absent})
        kept = [
            known[index] for index in np.linspace(0, len(known) - 1, min(num_frames, len(known))).round().astype(int)
        ]
        if not any(frame in self.frames for frame in kept):
            kept[0] = min(self.frames, key=lambda frame: abs(frame - kept[0]))
        frames = {frame: self.frames[frame] for frame in kept if frame in self.frames}
        return replace(self, frames=frames, absent=tuple(frame for frame in kept if frame not in frames))

    def require_on(self, image_hw: tuple[int, int]) -> None:
        """Check that it fits a video of frames of `image_hw`; raises as `Region.require_on`, with the frame."""
        for frame, region in self.frames.items():
            with placed(frame=frame):
                region.require_on(image_hw)

    def clipped(self, image_hw: tuple[int, int]) -> VideoRegion:
        """The parts of its regions inside frames of `image_hw`; raises as `Region.clipped`, with the frame."""
        inside = {}
        for frame, region in self.frames.items():
            with placed(frame=frame):
                inside[frame] = region.clipped(image_hw)
        return replace(self, frames=inside)

    def on_video(self, video_index: int) -> VideoRegion:
        """The same object on another video of the sample."""
        return replace(self, video_index=video_index)

    def __hash__(self) -> int:
        return hash((tuple(self.frames.items()), self.video_index, self.absent))

    def __reduce__(self) -> tuple[Any, ...]:  # a read-only mapping cannot be pickled
        return VideoRegion, (dict(self.frames), self.video_index, self.absent)


def _described(kind: str, data: Any) -> str:
    """A region's data in a few words."""
    if kind == "box":
        return f"({', '.join(f'{each:g}' for each in data)})"
    if kind == "polygon":
        points = counted(sum(len(ring) // 2 for ring in data), "point")
        return f"of {points}" if len(data) == 1 else f"of {len(data)} rings, {points}"
    if kind in ("points", "scribble"):
        points, extent = data
        told = f"({points[0][0]:g}, {points[0][1]:g})" if len(points) == 1 else f"of {counted(len(points), 'point')}"
        return f"{told}, {'radius' if kind == 'points' else 'width'} {extent:g} px"
    if kind == "mask":
        return f"of {data.area:,} px in {data.box_xyxy} on {data.image_hw[1]}x{data.image_hw[0]}"
    runs, (height, width) = data
    return f"of {sum(runs[1::2]):,} px on {width}x{height}"
