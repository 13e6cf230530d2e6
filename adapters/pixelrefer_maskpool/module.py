"""Mask pooling: the mean of the scene's patches inside the region, through a 2-layer MLP.

The baseline of PixelRefer's Table 8 and Fig. 12, after Osprey (arXiv:2312.10032) and VideoRefer
(arXiv:2501.00599). A region smaller than a patch is blurred with its surroundings: that is its weakness.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

from pixelrefer_plugin import EncodedView

from .config import MaskPoolConfig


class MaskPool(nn.Module):
    """One object token per region.

    Args:
        vision_width: width C of the patch features.
        decoder_width: width D of the object tokens.
    """

    def __init__(self, *, vision_width: int, decoder_width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(vision_width, decoder_width), nn.GELU(), nn.Linear(decoder_width, decoder_width)
        )

    @classmethod
    def build(cls, config: MaskPoolConfig, *, vision_width: int, decoder_width: int) -> "MaskPool":
        """The module that a config describes."""
        return cls(vision_width=vision_width, decoder_width=decoder_width)

    def forward(self, views: tuple[EncodedView, ...], counts: tuple[int, ...]) -> Tensor:
        """Pool the scene inside each mask, patches weighted by the share that the region covers.

        Returns:
            `(R, D)`, one token per region.
        """
        (scene,) = views
        dtype = self.mlp[0].weight.dtype
        ends = torch.tensor(scene.patches_per_region, device=scene.patch_rows.device).cumsum(0)
        starts = torch.cat((ends.new_zeros(1), ends[:-1]))
        weights = scene.patch_weights
        # embedding_bag is a weighted sum of rows: no (M, C) copy, and the same bits on every run.
        every_pair = torch.arange(len(weights), device=weights.device)
        total = embedding_bag(every_pair, weights[:, None], starts, mode="sum")[:, 0]
        share = (weights / total[scene.region_of_patch]).to(dtype)
        features = scene.grids.features.to(dtype)
        pooled = embedding_bag(scene.patch_rows, features, starts, mode="sum", per_sample_weights=share)
        return self.mlp(pooled)
