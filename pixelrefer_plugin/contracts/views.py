"""What an adapter asks to be encoded for a region, and what its module reads once that is done.

Shape letters: R regions of a batch, P patches of a view (all its grids, concatenated), M (region, patch) pairs inside
a mask, C vision width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..errors import PixelReferError
from ..regions.mask import Box

if TYPE_CHECKING:
    import torch


Resample = Literal["bicubic", "opencv_linear", "opencv_area"]
"""How a part of a picture is resized: antialiased bicubic, or `cv2.resize` with INTER_LINEAR or INTER_AREA."""


_RESAMPLES = ("bicubic", "opencv_linear", "opencv_area")


PromptKind = Literal["points", "box", "mask"]
"""How a region was drawn: clicks, a box, or anything that is read by its pixels."""


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


@dataclass(frozen=True, eq=False)
class CropView:
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


def _require_integers(name: str, value: Any, *, length: int) -> None:
    if not isinstance(value, tuple) or len(value) != length or any(int(each) != each for each in value):
        raise PixelReferError(f"{name} must be a tuple of {length} integers, got {value!r}.")


@dataclass(frozen=True)
class SceneView:
    """The image as the backbone's own vision pass encodes it: captured there, never computed twice.

    Its mask is the share of each patch that the region covers (`RegionMask.coverage`).
    """


@dataclass(frozen=True)
class PromptView:
    """The region as it was drawn, clicks or a box, rather than its pixels. Nothing is encoded for it; the module is
    given an `EncodedPrompts` in its place."""


View = CropView | SceneView | PromptView


@dataclass(frozen=True)
class RegionPlan:
    """What one region costs, known before anything is encoded.

    Attributes:
        num_tokens: object tokens that the adapter will return for it; as many placeholders are written.
        views: what must be encoded. All regions of one adapter have the same views in the same order.
    """

    num_tokens: int
    views: tuple[View, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.num_tokens, int | np.integer) or self.num_tokens < 1:
            raise PixelReferError(f"RegionPlan.num_tokens must be an integer >= 1, got {self.num_tokens!r}.")
        is_tuple = isinstance(self.views, tuple) and bool(self.views)
        if not is_tuple or not all(isinstance(view, CropView | SceneView | PromptView) for view in self.views):
            raise PixelReferError(f"RegionPlan.views must be a tuple of views, at least one, got {self.views!r}.")

    @property
    def view_kinds(self) -> tuple[str, ...]:
        """What its views are, for comparison: a crop that is read whole is of another kind than one with a mask."""
        return tuple(
            "whole crop" if isinstance(view, CropView) and view.mask is None else type(view).__name__
            for view in self.views
        )


@dataclass(frozen=True, eq=False)
class FeatureGrids:
    """Patch features of several images or crops, concatenated.

    Attributes:
        features: `(P, C)`, grid after grid, each in raster order (row by row, left to right).
        grids_hw: rows and columns of each grid; their areas add up to P.
    """

    features: torch.Tensor
    grids_hw: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        total = sum(h * w for h, w in self.grids_hw)
        assert tuple(self.features.shape[:-1]) == (total,), (
            f"FeatureGrids.features must be (P, C) with P = {total} for grids {self.grids_hw}, "
            f"got {tuple(self.features.shape)}"
        )

    @classmethod
    def joined(cls, parts: Sequence[FeatureGrids]) -> FeatureGrids:
        """The grids of several, one after another."""
        if len(parts) == 1:
            return parts[0]
        import torch

        return cls(torch.cat([part.features for part in parts]), sum((part.grids_hw for part in parts), ()))

    def __len__(self) -> int:
        return len(self.grids_hw)

    def __getitem__(self, index: int) -> torch.Tensor:
        """Grid `index` as `(h, w, C)`."""
        start = sum(h * w for h, w in self.grids_hw[:index])
        h, w = self.grids_hw[index]
        return self.features[start : start + h * w].view(h, w, -1)

    def merged(self, side: int) -> FeatureGrids:
        """Cells of `side * side` patches, each as one vector: its patches row by row.

        Returns:
            Grids of `(h / side, w / side)` cells of width `side**2 * C`; these grids themselves where `side` is 1.
        """
        if side == 1:
            return self
        assert all(h % side == w % side == 0 for h, w in self.grids_hw), f"no cells of {side}x{side} in {self.grids_hw}"
        import torch

        rows, first = [], 0
        for h, w in self.grids_hw:
            patches = torch.arange(first, first + h * w).view(h // side, side, w // side, side)
            rows.append(patches.transpose(1, 2).flatten())
            first += h * w
        cells = self.features[torch.cat(rows).to(self.features.device)].view(first // side**2, -1)
        return FeatureGrids(cells, tuple((h // side, w // side) for h, w in self.grids_hw))


@dataclass(frozen=True, eq=False)
class Corners:
    """The patches that each (region, patch) pair is blended of, where the features of a view are stretched.

    Attributes:
        rows: `(K,)` int64, rows of the features: four for a pair that lies between patches, else one.
        weights: `(K,)` float32, each row's share; those of a pair add up to 1.
        starts: `(M,)` int64, where the rows of each pair begin.
    """

    rows: torch.Tensor
    weights: torch.Tensor
    starts: torch.Tensor


@dataclass(frozen=True, eq=False)
class EncodedView:
    """One view of all regions of a batch, encoded: what an adapter's module reads.

    The masks come as coordinates, so that selecting inside them is one gather and needs no device sync.

    Attributes:
        grids: the patch features of this view as the tower made them; `grids.features` is `(P, C)`.
        grid_of_region: for each region, which grid it reads; regions may share one.
        patch_rows: `(M,)` int64, rows of `grids.features` inside each region's mask, region by region; the nearest
            ones where the features are stretched (`CropView.encoded_hw`). `patch_features` reads both.
        patch_weights: `(M,)` float32, that mask's weight there.
        patch_ij: `(M, 2)` float32, row and column of the patch in its grid; between patches where the features
            are stretched.
        region_of_patch: `(M,)` int64, the region of each pair, ascending.
        patches_per_region: for each region how many pairs are its own; sums to M.
        boxes_xyxy: `(R, 4)` float32, the part of the image that each region's grid spans.
        images_hw: `(R, 2)` float32, the size of each region's image.
        corners: what stretched features are blended of; None where no grid of the view is stretched.
    """

    grids: FeatureGrids
    grid_of_region: tuple[int, ...]
    patch_rows: torch.Tensor
    patch_weights: torch.Tensor
    patch_ij: torch.Tensor
    region_of_patch: torch.Tensor
    patches_per_region: tuple[int, ...]
    boxes_xyxy: torch.Tensor
    images_hw: torch.Tensor
    corners: Corners | None = None

    def patch_features(self) -> torch.Tensor:
        """The features inside the masks, stretched where the tower was given fewer patches than the mask has.

        Returns:
            `(M, C)`, a copy in the features' dtype, region by region.
        """
        features = self.grids.features
        if self.corners is None:
            return features[self.patch_rows]
        import torch
        from torch.nn.functional import embedding_bag

        # A weighted sum of rows: no (K, C) copy. As `interpolate` does, in float32 where the features are of half.
        exact = features.to(torch.promote_types(features.dtype, torch.float32))
        weights = self.corners.weights.to(exact.dtype)
        blended = embedding_bag(self.corners.rows, exact, self.corners.starts, mode="sum", per_sample_weights=weights)
        return blended.to(features.dtype)


@dataclass(frozen=True, eq=False)
class EncodedPrompts:
    """The regions of a batch as they were drawn: what a `PromptView` becomes.

    Attributes:
        kinds: of each region: `points` for clicks, `box`, or `mask` for one that is read by its pixels, of which
            there are no points here.
        points_xy: `(Q, 2)` float32, region by region, in original pixels: the clicks, or the upper left and the lower
            right corner of a box.
        region_of_point: `(Q,)` int64, ascending.
        images_hw: `(R, 2)` float32, the size of each region's picture.
        frame_position: `(R,)` float32, which of the sampled frames of its video each region lies on, from 0; 0 on an
            image.
        num_frames: `(R,)` float32, how many frames of that video are sampled; 1 for an image.
    """

    kinds: tuple[PromptKind, ...]
    points_xy: torch.Tensor
    region_of_point: torch.Tensor
    images_hw: torch.Tensor
    frame_position: torch.Tensor
    num_frames: torch.Tensor
