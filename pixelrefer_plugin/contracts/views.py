"""What an adapter asks to be encoded for a region: views, and the plan that names them.

A view lays itself out: it says which of the things that a batch offers (`BatchLayout`) it is read from. A new kind of
view is one class here or in a plugin. It knows boxes and patches; no tensor and no backbone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from ..errors import PixelReferError, shown
from ..regions.mask import Box

Resample = Literal["bicubic", "opencv_linear", "opencv_area"]
"""How a part of a picture is resized: antialiased bicubic, or `cv2.resize` with INTER_LINEAR or INTER_AREA."""

_RESAMPLES = ("bicubic", "opencv_linear", "opencv_area")


@dataclass(frozen=True)
class PatchGeometry:
    """How a backbone's vision tower cuts pixels into patches.

    Attributes:
        patch_size: side of a square patch in pixels; Ω of the paper is its square.
        grid_multiple: rows and columns of a crop's grid must be multiples of this (2 for towers that merge
            2x2 patches).
    """

    patch_size: int
    grid_multiple: int = 1

    def whole_patches(self, side_px: float) -> int:
        """The nearest allowed number of patches for a side of `side_px`, at least `grid_multiple`."""
        step = self.patch_size * self.grid_multiple
        return max(1, round(side_px / step)) * self.grid_multiple


class BatchLayout(Protocol):
    """What a batch offers to the views of its regions.

    `numbers` are the regions of the batch that have the view, ascending; `views` their views, one each.
    """

    def on_crops(self, numbers: Sequence[int], views: Sequence[CropView]) -> Any:
        """Regions that each read a crop of their own; equal crops of one picture are encoded once."""
        ...

    def on_scene(self, numbers: Sequence[int], *, tiled: bool) -> Any:
        """Regions that read the backbone's own pass over their pictures."""
        ...

    def as_drawn(self, numbers: Sequence[int]) -> Any:
        """Regions that are read as they were drawn: nothing is encoded."""
        ...


class View(ABC):
    """Something that is encoded for a region, or read of it.

    Attributes:
        reads_pixels: whether its layout needs the region's box.
        reads_scene: whether its layout needs the backbone's own pass, and the region's mask.
    """

    reads_pixels: ClassVar[bool] = True
    reads_scene: ClassVar[bool] = False

    @property
    def kind(self) -> str:
        """What it is, for comparison: in one place of their plans, all regions of a batch have views of one kind."""
        return type(self).__name__

    def refusal(
        self, geometry: PatchGeometry, image_hw: tuple[int, int], *, framework: str, backbone: str
    ) -> str | None:
        """Why an adapter must not ask for it; None where it may.

        Args:
            geometry: the backbone's patches.
            image_hw: size of the region's picture.
            framework: the adapter's.
            backbone: the backbone's name, for the text.
        """
        return None

    @classmethod
    @abstractmethod
    def lay_out(cls, batch: BatchLayout, numbers: Sequence[int], views: Sequence[Any]) -> Any:
        """Lay the views of a batch out.

        Args:
            batch: what it offers.
            numbers: the regions that have the view, ascending.
            views: their views, all of one kind.

        Returns:
            What one of the batch's methods returned.
        """


@dataclass(frozen=True, eq=False)
class CropView(View):
    """A part of the image, resized to whole patches, that the vision tower shall encode.

    Attributes:
        box_xyxy: the part, in original pixels, end-exclusive.
        grid_hw: patches it is resized to; its pixels are `grid_hw * patch_size`.
        mask: `(h, w)` float32 weights of the patches that belong to the region; zero elsewhere, and everywhere
            where it has no patch. None where the adapter reads the whole grid: the view then has no (region,
            patch) pairs.
        resample: how the part becomes those pixels. The two of OpenCV are its very calls on the uint8 RGB part.
        encoded_hw: patches that the tower is given instead, where `grid_hw` is more than it may be given. The
            pixels are brought on to `encoded_hw * patch_size` by antialiased bicubic, and the features are
            stretched back to `grid_hw` bilinearly, as torch's `interpolate(align_corners=False)` does, where the
            mask reads them. None: `grid_hw`.
    """

    box_xyxy: Box
    grid_hw: tuple[int, int]
    mask: np.ndarray | None = None
    resample: Resample = "bicubic"
    encoded_hw: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        _require_integers("CropView.box_xyxy", self.box_xyxy, length=4)
        _require_integers("CropView.grid_hw", self.grid_hw, length=2)
        if self.encoded_hw is not None:
            _require_integers("CropView.encoded_hw", self.encoded_hw, length=2)
        if self.resample not in _RESAMPLES:
            raise PixelReferError(
                f"CropView.resample must be one of {', '.join(map(repr, _RESAMPLES))}, got {self.resample!r}."
            )
        if self.mask is not None and self.mask.shape != tuple(self.grid_hw):
            raise PixelReferError(
                f"CropView.mask must be one weight per patch, {tuple(self.grid_hw)}, got {self.mask.shape}."
            )

    @property
    def tower_hw(self) -> tuple[int, int]:
        """Rows and columns of patches that the tower is given: `encoded_hw`, or else `grid_hw`."""
        return self.encoded_hw or self.grid_hw

    @property
    def kind(self) -> str:
        """A crop that is read whole is of another kind than one with a mask."""
        return "whole crop" if self.mask is None else type(self).__name__

    def refusal(
        self, geometry: PatchGeometry, image_hw: tuple[int, int], *, framework: str, backbone: str
    ) -> str | None:
        multiple, (height, width), (x0, y0, x1, y1) = geometry.grid_multiple, image_hw, self.box_xyxy
        if min(self.grid_hw) < 1 or any(side < 1 or side % multiple for side in self.tower_hw):
            return (
                f"a crop of {self.tower_hw[0]}x{self.tower_hw[1]} patches, but backbone '{backbone}' takes "
                f"multiples of {multiple}. Its plan should size crops with geometry.whole_patches()."
            )
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            return (
                f"the crop {tuple(self.box_xyxy)}, which is not inside its picture of width {width} and height "
                f"{height}."
            )
        return None

    @classmethod
    def lay_out(cls, batch: BatchLayout, numbers: Sequence[int], views: Sequence[CropView]) -> Any:
        return batch.on_crops(numbers, views)


def _require_integers(name: str, value: Any, *, length: int) -> None:
    if not isinstance(value, tuple) or len(value) != length or any(int(each) != each for each in value):
        raise PixelReferError(f"{name} must be a tuple of {length} integers, got {shown(value)}.")


@dataclass(frozen=True)
class SceneView(View):
    """The image as the backbone's own vision pass encodes it: captured there, never computed twice.

    Its mask is the share of each patch that the region covers (`RegionMask.coverage`). What its features are, patches
    of the tower, cells of the projector or projected scene tokens, `AdapterSpec.scene` says.

    Attributes:
        tiled: where the backbone cuts an image into tiles and shows it as a whole besides: read the tiles, joined to
            one grid of the image, rather than the whole. The same as the whole where it cuts none.
    """

    tiled: bool = False

    reads_scene: ClassVar[bool] = True

    @property
    def kind(self) -> str:
        """The whole and its tiles are two kinds."""
        return "tiled scene" if self.tiled else type(self).__name__

    def refusal(
        self, geometry: PatchGeometry, image_hw: tuple[int, int], *, framework: str, backbone: str
    ) -> str | None:
        if framework == "object-only":
            return (
                "a SceneView, but it is Object-Only: the backbone's own image path is not run. Its plan should ask for "
                "crops."
            )
        return None

    @classmethod
    def lay_out(cls, batch: BatchLayout, numbers: Sequence[int], views: Sequence[SceneView]) -> Any:
        return batch.on_scene(numbers, tiled=views[0].tiled)


@dataclass(frozen=True)
class PromptView(View):
    """The region as it was drawn, clicks or a box, rather than its pixels. Nothing is encoded for it; the module is
    given an `EncodedPrompts` in its place. Only a region that is planned as it was drawn has one."""

    reads_pixels: ClassVar[bool] = False

    @classmethod
    def lay_out(cls, batch: BatchLayout, numbers: Sequence[int], views: Sequence[PromptView]) -> Any:
        return batch.as_drawn(numbers)


@dataclass(frozen=True)
class RegionPlan:
    """What one region costs, known before anything is encoded.

    Attributes:
        num_tokens: object tokens that the adapter will return for it; as many placeholders are written.
        views: what must be encoded. All regions of one adapter have as many, in the same order; None where this
            region does not need one that others have.
    """

    num_tokens: int
    views: tuple[View | None, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.num_tokens, int | np.integer) or self.num_tokens < 1:
            raise PixelReferError(f"RegionPlan.num_tokens must be an integer >= 1, got {shown(self.num_tokens)}.")
        is_tuple = isinstance(self.views, tuple) and any(view is not None for view in self.views)
        if not is_tuple or not all(view is None or isinstance(view, View) for view in self.views):
            raise PixelReferError(f"RegionPlan.views must be a tuple of views, at least one, got {shown(self.views)}.")

    @property
    def view_kinds(self) -> tuple[str | None, ...]:
        """What its views are, for comparison; None where it has none."""
        return tuple(None if view is None else view.kind for view in self.views)
