"""What an adapter's module reads: the views of a batch's regions, encoded.

Shape letters: R regions that have the view, P patches of its grids, concatenated, M (region, patch) pairs inside the
regions' masks, C width of the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

DrawnKind = Literal["points", "box"]
"""How a region was drawn that is read so: clicks, or a box."""


@dataclass(frozen=True, eq=False)
class FeatureGrids:
    """Patch features of several images or crops, concatenated.

    Attributes:
        features: `(P, C)`, grid after grid, each in raster order (row by row, left to right).
        grids_hw: rows and columns of each grid; their areas add up to P.
    """

    features: Tensor
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
        return cls(torch.cat([part.features for part in parts]), sum((part.grids_hw for part in parts), ()))

    def __len__(self) -> int:
        return len(self.grids_hw)

    def __getitem__(self, index: int) -> Tensor:
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
        rows, first = [], 0
        for h, w in self.grids_hw:
            patches = torch.arange(first, first + h * w).view(h // side, side, w // side, side)
            rows.append(patches.transpose(1, 2).flatten())
            first += h * w
        cells = self.features[torch.cat(rows).to(self.features.device)].view(first // side**2, -1)
        return FeatureGrids(cells, tuple((h // side, w // side) for h, w in self.grids_hw))

    def pooled(self, side: int) -> FeatureGrids:
        """Cells of `side * side` patches, each as the mean of its patches.

        Returns:
            Grids of `(h / side, w / side)` cells of width C.
        """
        cells = self.merged(side)
        return FeatureGrids(cells.features.unflatten(1, (side**2, -1)).mean(dim=1), cells.grids_hw)


@dataclass(frozen=True, eq=False)
class PatchRows:
    """Which rows of the features each (region, patch) pair is made of. An `EncodedView` reads them.

    Attributes:
        index: `(K,)` int64, rows of the features: one for each pair, or, where the features are stretched, up to four.
        weights: `(K,)` float32, each row's share of its pair; those of a pair add up to 1. None: one row each.
        starts: `(M,)` int64, where the rows of each pair begin. None: one row each.
    """

    index: Tensor
    weights: Tensor | None = None
    starts: Tensor | None = None


@dataclass(frozen=True, eq=False)
class EncodedView:
    """One view of the regions of a batch that have it, encoded: what an adapter's module reads.

    The masks come as coordinates, so that selecting inside them is one gather and needs no device sync.

    Attributes:
        regions: which regions of the batch have the view, ascending; R of them. What follows speaks of these.
        grids: the features of this view; `grids.features` is `(P, C)`.
        grid_of_region: for each region, which grid it reads; regions may share one.
        patch_weights: `(M,)` float32, the weight of each patch in its region's mask, region by region.
        patch_ij: `(M, 2)` float32, row and column of the patch in its grid; between patches where the features
            are stretched (`CropView.encoded_hw`).
        region_of_patch: `(M,)` int64, the place in `regions` of each pair's region, ascending.
        patches_per_region: for each region how many pairs are its own; sums to M.
        boxes_xyxy: `(R, 4)` float32, the part of the image that each region's grid spans, in original pixels; beyond
            the image where the backbone pads it.
        region_boxes_xyxy: `(R, 4)` float32, the region's own box, in original pixels, end-exclusive.
        images_hw: `(R, 2)` float32, the size of each region's image.
        rows: which rows of the features the pairs are; read by `patch_features` and `pooled`.
    """

    regions: tuple[int, ...]
    grids: FeatureGrids
    grid_of_region: tuple[int, ...]
    patch_weights: Tensor
    patch_ij: Tensor
    region_of_patch: Tensor
    patches_per_region: tuple[int, ...]
    boxes_xyxy: Tensor
    region_boxes_xyxy: Tensor
    images_hw: Tensor
    rows: PatchRows

    def patch_features(self) -> Tensor:
        """The features inside the masks, stretched where the tower was given fewer patches than the mask has.

        Returns:
            `(M, C)`, a copy in the features' dtype, region by region.
        """
        features = self.grids.features
        if self.rows.weights is None:
            return features[self.rows.index]
        # A weighted sum of rows: no (K, C) copy. As `interpolate` does, in float32 where the features are of half.
        exact = features.to(torch.promote_types(features.dtype, torch.float32))
        weights = self.rows.weights.to(exact.dtype)
        blended = embedding_bag(self.rows.index, exact, self.rows.starts, mode="sum", per_sample_weights=weights)
        return blended.to(features.dtype)

    def pooled(self, weights: Tensor | None = None, *, dtype: torch.dtype | None = None) -> Tensor:
        """One vector for each region: the sum of its patches' features, weighted, or their plain mean.

        No `(M, C)` copy is made where the features are not stretched, and every run gives the same bits.

        Args:
            weights: `(M,)`, of each pair. None: the mean.
            dtype: of the sum; by default the features' own.

        Returns:
            `(R, C)`; zeros for a region without pairs.
        """
        features, index = self.grids.features.to(dtype or self.grids.features.dtype), self.rows.index
        if self.rows.weights is not None:
            features = self.patch_features().to(features.dtype)
            index = torch.arange(len(features), device=features.device)
        starts = self._starts(index.device)
        if weights is None:
            return embedding_bag(index, features, starts, mode="mean")
        return embedding_bag(index, features, starts, mode="sum", per_sample_weights=weights.to(features.dtype))

    def totals(self, weights: Tensor) -> Tensor:
        """`(R,)`: the sum of each region's weights, in the order in which `pooled` adds."""
        every_pair = torch.arange(len(weights), device=weights.device)
        return embedding_bag(every_pair, weights[:, None], self._starts(weights.device), mode="sum")[:, 0]

    def _starts(self, device: torch.device) -> Tensor:
        """`(R,)`: where the pairs of each region begin."""
        ends = torch.tensor(self.patches_per_region).cumsum(0)
        return torch.cat([ends.new_zeros(1), ends[:-1]]).to(device, non_blocking=True)


@dataclass(frozen=True, eq=False)
class EncodedPrompts:
    """The regions of a batch that are read as they were drawn: what a `PromptView` becomes. R counts these.

    Attributes:
        regions: which regions of the batch they are, ascending.
        kinds: of each: `points` for clicks, or `box`.
        points_xy: `(Q, 2)` float32, region by region, in original pixels: the clicks, or the upper left and the lower
            right corner of a box.
        region_of_point: `(Q,)` int64, the place in `regions` of each point's region, ascending.
        images_hw: `(R, 2)` float32, the size of each region's picture.
        frame_position: `(R,)` float32, which of the sampled frames of its video each region lies on, from 0; 0 on an
            image.
        num_frames: `(R,)` float32, how many frames of that video are sampled; 1 for an image.
    """

    regions: tuple[int, ...]
    kinds: tuple[DrawnKind, ...]
    points_xy: Tensor
    region_of_point: Tensor
    images_hw: Tensor
    frame_position: Tensor
    num_frames: Tensor
