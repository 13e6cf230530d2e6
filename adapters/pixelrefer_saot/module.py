"""The tokenizer itself: features inside the mask, their positions, k-means, MLP (PixelRefer §4.2.1).

Shape letters as in `pixelrefer_plugin.contracts`: M (region, patch) pairs inside a mask, C vision width,
D decoder width.
"""

import torch
from torch import Tensor, nn

from pixelrefer_plugin import EncodedView

from .config import SaotConfig
from .kmeans import aggregate


class Saot(nn.Module):
    """At most n object tokens per region.

    Args:
        vision_width: width C of the patch features.
        decoder_width: width D of the object tokens.
        kmeans_iterations: rounds of k-means for objects with more than n patches.
    """

    def __init__(self, *, vision_width: int, decoder_width: int, kmeans_iterations: int) -> None:
        super().__init__()
        self.kmeans_iterations = kmeans_iterations
        self.position = nn.Linear(2, vision_width)
        self.mlp = nn.Sequential(
            nn.Linear(vision_width, decoder_width), nn.GELU(), nn.Linear(decoder_width, decoder_width)
        )

    @classmethod
    def build(cls, config: SaotConfig, *, vision_width: int, decoder_width: int) -> "Saot":
        """The module that a config describes."""
        return cls(vision_width=vision_width, decoder_width=decoder_width, kmeans_iterations=config.kmeans_iterations)

    def forward(self, views: tuple[EncodedView, ...], counts: tuple[int, ...]) -> Tensor:
        """Turn the encoded crops into the promised tokens.

        Args:
            views: one view, the objects' crops.
            counts: tokens promised per region; a region with more patches than that is aggregated.

        Returns:
            `(sum(counts), D)`, region by region.
        """
        (crops,) = views
        return self.mlp(self.object_features(crops, counts))

    def object_features(self, crops: EncodedView, counts: tuple[int, ...]) -> Tensor:
        """The tokens before the MLP, still of the tower's width: eq. 5 and 6.

        Returns:
            `(sum(counts), C)`, region by region.
        """
        features = crops.grids.features[crops.patch_rows].to(self.position.weight.dtype)
        features += self.position(relative_positions(crops).to(features.dtype))  # eq. 5; in place, on a copy
        return self._aggregate(features.split(crops.patches_per_region), counts)

    def _aggregate(self, per_region: tuple[Tensor, ...], counts: tuple[int, ...]) -> Tensor:
        """Cluster means for regions with more patches than tokens, the patches themselves for the others."""
        crowded = [index for index, count in enumerate(counts) if len(per_region[index]) > count]
        if not crowded:
            return torch.cat(per_region)
        means = aggregate(
            [per_region[index] for index in crowded],
            num_clusters=counts[crowded[0]],  # n: a region with fewer tokens has no more patches than those
            iterations=self.kmeans_iterations,
        )
        mean_of = dict(zip(crowded, means, strict=True))
        return torch.cat([mean_of.get(index, tokens) for index, tokens in enumerate(per_region)])


def relative_positions(view: EncodedView) -> Tensor:
    """Where each patch in a mask lies in its whole image (eq. 4).

    `x = ((j/w')·w_b + x_b)/(W-1)` and `y = ((i/h')·h_b + y_b)/(H-1)`, the box being the crop's.

    Returns:
        `(M, 2)` float32: x and y.
    """
    grids_hw = torch.tensor([view.grids.grids_hw[which] for which in view.grid_of_region])
    grids_wh = grids_hw.flip(1).to(view.boxes_xyxy)
    corner_xy = view.boxes_xyxy[:, :2]
    cell_xy = (view.boxes_xyxy[:, 2:] - corner_xy) / grids_wh
    extent_xy = (view.images_hw.flip(1) - 1).clamp(min=1)
    of_patch = view.region_of_patch
    return (view.patch_ij.flip(1) * cell_xy[of_patch] + corner_xy[of_patch]) / extent_xy[of_patch]
