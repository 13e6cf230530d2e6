"""Mask pooling: the mean of the scene's patches inside the region, through a 2-layer MLP.

The baseline of PixelRefer's Table 8 and Fig. 12, after Osprey (arXiv:2312.10032) and VideoRefer
(arXiv:2501.00599). A region smaller than a patch is blurred with its surroundings: that is its weakness.
"""

from torch import Tensor, nn

from pixelrefer_plugin.authoring import AdapterModule, EncodedView, Shapes

from .config import MaskPoolConfig


class MaskPool(AdapterModule):
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
    def build(cls, config: MaskPoolConfig, shapes: Shapes) -> "MaskPool":
        """The module that a config describes."""
        return cls(vision_width=shapes.scene, decoder_width=shapes.decoder)

    def forward(self, views: tuple[EncodedView], counts: tuple[int, ...]) -> Tensor:
        """Pool the scene inside each mask, patches weighted by the share that the region covers.

        Returns:
            `(R, D)`, one token per region.
        """
        (scene,) = views
        share = scene.patch_weights / scene.totals(scene.patch_weights)[scene.region_of_patch]
        return self.mlp(scene.pooled(share, dtype=next(self.mlp.parameters()).dtype))
