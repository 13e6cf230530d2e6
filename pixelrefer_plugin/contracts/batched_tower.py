"""Vision towers that take batches of pictures of one size, as SigLIP and InternViT do: how crops go through them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .encoded import FeatureGrids


def encode_by_size(
    crops: Sequence[Tensor], patch_size: int, features_of: Callable[[Tensor, tuple[int, int]], Tensor]
) -> FeatureGrids:
    """Encode crops with one call of the tower for those of each size.

    Args:
        crops: normalised, `(3, H, W)` each, of whole patches.
        patch_size: of the tower, in pixels.
        features_of: `features_of(pixels, grid_hw)`, the patch features `(N, h * w, C)` in raster order of pictures
            `(N, 3, H, W)`, which are `grid_hw` patches each.

    Returns:
        A grid for each crop, in their order.
    """
    grids_hw = tuple((crop.shape[1] // patch_size, crop.shape[2] // patch_size) for crop in crops)
    features: dict[int, Tensor] = {}
    for grid_hw in dict.fromkeys(grids_hw):
        same = [index for index, each in enumerate(grids_hw) if each == grid_hw]
        encoded = features_of(torch.stack([crops[index] for index in same]), grid_hw)
        features.update(zip(same, encoded, strict=True))
    return FeatureGrids(torch.cat([features[index] for index in range(len(crops))]), grids_hw)
