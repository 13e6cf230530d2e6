"""Mask pooling: the mean of the scene's patches inside the region, through a 2-layer MLP.

The baseline of PixelRefer's Table 8 and Fig. 12, after Osprey (arXiv:2312.10032) and VideoRefer
(arXiv:2501.00599). A region smaller than a patch is blurred with its surroundings: that is its weakness.
"""

import torch
from torch import Tensor, nn

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
        features = scene.grids.features.to(self.mlp[0].weight.dtype)
        weights = scene.patch_weights.to(features.dtype)
        of_patch = scene.region_of_patch
        total = features.new_zeros(len(counts)).index_add(0, of_patch, weights)
        share = (weights / total[of_patch])[:, None]
        pooled = torch.zeros(len(counts), features.shape[1], dtype=features.dtype, device=features.device)
        return self.mlp(pooled.index_add(0, of_patch, features[scene.patch_rows] * share))
