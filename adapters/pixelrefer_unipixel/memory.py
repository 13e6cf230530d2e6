"""Masks as objects in memory (`<mem>`): the scene's features inside a mask, as one token. Knows no backbone."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pixelrefer_plugin.authoring import EncodedView


class MemoryEncoder(nn.Module):
    """One token for each region: the mean of the cells that its mask touches, through a 2-layer MLP.

    A cell counts alike however little of it is touched, as in the official code, which max-pools the mask.

    Args:
        vision_width: width C of the scene's cells.
        decoder_width: width D of the tokens.
    """

    def __init__(self, *, vision_width: int, decoder_width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(vision_width, vision_width), nn.GELU(), nn.Linear(vision_width, decoder_width)
        )

    def forward(self, scene: EncodedView) -> Tensor:
        """`(R, D)`: the tokens of the view's regions."""
        return self.mlp(scene.pooled(dtype=next(self.mlp.parameters()).dtype))

    @torch.no_grad()
    def start_from(self, projector_layers: Sequence[nn.Module]) -> bool:
        """Take over the backbone's projector, where its linear layers are two of the MLP's own sizes.

        Returns:
            Whether they are.
        """
        own = [layer for layer in self.mlp if isinstance(layer, nn.Linear)]
        if [layer.weight.shape for layer in own] != [layer.weight.shape for layer in projector_layers]:
            return False
        for layer, source in zip(own, projector_layers, strict=True):
            layer.weight.copy_(source.get_parameter("weight"))
            if source.bias is None:
                nn.init.zeros_(layer.bias)
            else:
                layer.bias.copy_(source.get_parameter("bias"))
        return True
