"""The tokenizer itself: features inside the mask, their positions, k-means, MLP (PixelRefer §4.2.1).

Shape letters as in `pixelrefer_plugin.contracts`: R regions, M (region, patch) pairs inside a mask, C vision width,
D decoder width; n tokens of a region at most.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pixelrefer_plugin.authoring import AdapterModule, EncodedView, Shapes

from .config import SaotConfig
from .kmeans import Group, KMeans, groups_of
from .linear import Linear


class Saot(AdapterModule):
    """At most n object tokens per region.

    Args:
        config: the options; those that the plan reads have done their part by now.
        vision_width: width C of the patch features.
        decoder_width: width D of the object tokens.
    """

    def __init__(self, config: SaotConfig, *, vision_width: int, decoder_width: int) -> None:
        super().__init__()
        self.num_tokens = config.num_tokens
        self.kmeans_start = config.kmeans_start
        self.swap_position_axes = config.swap_position_axes
        self.inclusive_position_box = config.inclusive_position_box
        self.position = nn.Linear(2, vision_width) if config.use_position else None
        self.kmeans = KMeans.started(config.kmeans_start, iterations=config.kmeans_iterations)
        self.mlp = nn.Sequential(Linear(vision_width, decoder_width), nn.GELU(), Linear(decoder_width, decoder_width))

    @classmethod
    def build(cls, config: SaotConfig, shapes: Shapes) -> "Saot":
        """The module that a config describes."""
        return cls(config, vision_width=shapes.crop, decoder_width=shapes.decoder)

    def compile(self, *args: Any, **options: Any) -> None:
        """Compile what works on tensors alone, with the arguments of `torch.compile`.

        With `dynamic=True` one graph each serves all numbers and sizes of regions; what is decided about them in
        Python is marked `torch.compiler.disable` and stays outside, also where `torch.compile` is given this module.
        """
        self.kmeans.compile(*args, **options)
        self.mlp.compile(*args, **options)

    @torch.compiler.disable(recursive=False)
    def forward(self, views: tuple[EncodedView, ...], counts: tuple[int, ...]) -> Tensor:
        """Turn the encoded crops into the promised tokens.

        Args:
            views: one view, the objects' crops.
            counts: tokens promised per region; a region with more patches than n is aggregated, one with fewer
                patches than promised is filled up with zeros, which the MLP then reads.

        Returns:
            `(sum(counts), D)`, region by region.
        """
        (crops,) = views
        return self.mlp(self.object_features(crops, counts))

    @torch.compiler.disable(recursive=False)
    def object_features(self, crops: EncodedView, counts: tuple[int, ...]) -> Tensor:
        """The tokens before the MLP, still of the tower's width: eq. 5 and 6.

        Returns:
            `(sum(counts), C)`, region by region.
        """
        features = self.placed_features(crops)
        kept, rows, *of_groups = self._indices(crops.patches_per_region, counts, features.device)
        means = []
        for at in range(0, len(of_groups), 3):  # in a comprehension, all of them would be one graph
            means.append(self.kmeans(features, *of_groups[at : at + 3]))
        zeros = features.new_zeros(1, features.shape[1])
        return torch.cat([features[kept], *(each.flatten(0, 1) for each in means), zeros])[rows]

    @torch.compiler.disable
    def _indices(self, patches_per_region: Sequence[int], counts: Sequence[int], device: torch.device) -> list[Tensor]:
        """What `_order` says, then the rows, lengths and seeds of each group of k-means, in one copy to `device`."""
        groups = groups_of(patches_per_region, num_clusters=self.num_tokens, start=self.kmeans_start, device=device)
        arrays = _order(patches_per_region, counts, groups)
        return _on_device([*arrays, *(each for group in groups for each in group.arrays)], device)

    @torch.compiler.disable
    def placed_features(self, crops: EncodedView) -> Tensor:
        """`(M, C)`: features with their positions (eq. 5), where those are used."""
        features = crops.patch_features().to(next(self.mlp.parameters()).dtype)
        if self.position is None:
            return features
        positions = relative_positions(
            crops, swap_axes=self.swap_position_axes, inclusive_box=self.inclusive_position_box
        )
        features += self.position(positions.to(features.dtype))  # in place, on a copy
        return features


def _order(
    patches_per_region: Sequence[int], counts: Sequence[int], groups: Sequence[Group]
) -> tuple[np.ndarray, np.ndarray]:
    """Where the tokens come from: an aggregated region's means, or its patches; then the zeros that it lacks.

    Returns:
        Rows of the patches of regions that are not aggregated; and for each token, region by region, its row among
        those patches, followed by the means of all groups, followed by a row of zeros.
    """
    means = {region: group.seeds.shape[1] for group in groups for region in group.regions}
    patches = {region: count for region, count in enumerate(patches_per_region) if region not in means}
    own = patches | means
    *starts, zeros = np.cumsum([0, *own.values()])
    start_of = dict(zip(own, starts, strict=True))
    rows = [
        part
        for region, count in enumerate(counts)
        for part in (start_of[region] + np.arange(own[region]), np.full(count - own[region], zeros))
    ]
    first_patch = np.cumsum([0, *patches_per_region])
    kept = [np.arange(0), *(np.arange(*first_patch[region : region + 2]) for region in patches)]
    return np.concatenate(kept), np.concatenate(rows)


def _on_device(arrays: Sequence[np.ndarray], device: torch.device) -> list[Tensor]:
    """The index arrays as tensors on `device`, by one copy that the CPU does not wait for."""
    flat = torch.from_numpy(np.concatenate([each.ravel() for each in arrays])).to(device, non_blocking=True)
    parts = flat.split([each.size for each in arrays])
    return [part.view(each.shape) for part, each in zip(parts, arrays, strict=True)]


@torch.compiler.disable
def relative_positions(view: EncodedView, *, swap_axes: bool = False, inclusive_box: bool = False) -> Tensor:
    """Where each patch in a mask lies in its whole image (eq. 4).

    `x = ((j/w')·w_b + x_b)/(W-1)` and `y = ((i/h')·h_b + y_b)/(H-1)`, the box being the crop's.

    Args:
        view: the encoded crops.
        swap_axes: x from the box's rows and y from its columns, as the official code reads its (row, column) box.
        inclusive_box: the box ends a pixel before the crop does, as in PixelRefer-Lite's code.

    Returns:
        `(M, 2)` float32: x and y.
    """
    grids_wh = np.array([view.grids.grids_hw[which][::-1] for which in view.grid_of_region], dtype=np.float32)
    boxes = view.boxes_xyxy
    corner_xy = boxes[:, :2]
    extent_xy = boxes[:, 2:] - corner_xy - float(inclusive_box)
    if swap_axes:
        corner_xy, extent_xy = corner_xy.flip(1), extent_xy.flip(1)
    image_xy = (view.images_hw.flip(1) - 1).clamp(min=1)
    grid_xy = torch.from_numpy(grids_wh).to(boxes.device, non_blocking=True)
    per_patch = torch.stack([grid_xy, extent_xy, corner_xy, image_xy])[:, view.region_of_patch]
    grid_xy, extent_xy, corner_xy, image_xy = per_patch.unbind()
    return (view.patch_ij.flip(1) / grid_xy * extent_xy + corner_xy) / image_xy
