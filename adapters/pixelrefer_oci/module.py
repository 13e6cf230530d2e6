"""The infusion itself: SAOT's tokens read their surroundings, then the whole image, then the MLP (Algorithm 1).

Shape letters as in `pixelrefer_plugin.contracts.adapter`: C vision width, D decoder width.
"""

from collections.abc import Iterable
from typing import Any, cast

import torch
from pixelrefer_saot.module import Saot
from torch import Tensor, nn

from pixelrefer_plugin.authoring import AdapterModule, EncodedView, PixelReferError, Shapes

from .attention import ATTEND, FLASH, GridAttention
from .config import OciConfig


class Oci(AdapterModule):
    """SAOT's object tokens, enriched with context so that the decoder needs no scene tokens.

    Args:
        saot: the tokenizer; its MLP comes after the infusion.
        contexts: names of what is infused, in the order of the views after the object's crop.
        vision_width: width C of the patch features.
        num_heads: heads of each attention.
    """

    def __init__(
        self,
        saot: Saot,
        *,
        contexts: tuple[str, ...],
        vision_width: int,
        num_heads: int,
    ) -> None:
        super().__init__()
        self.saot = saot
        self.attentions = nn.ModuleDict(
            {context: GridAttention(vision_width, num_heads=num_heads) for context in contexts}
        )

    @classmethod
    def build(cls, config: OciConfig, shapes: Shapes) -> "Oci":
        """The module that a config describes.

        Raises:
            PixelReferError: the tower's width cannot be split among the heads.
        """
        if shapes.crop % config.num_heads:
            raise PixelReferError(
                f"OciConfig.num_heads must divide the width of the vision tower's features, {shapes.crop}, "
                f"got {config.num_heads}. Choose a divisor of {shapes.crop}."
            )
        return cls(
            Saot.build(config, shapes),
            contexts=config.contexts,
            vision_width=shapes.crop,
            num_heads=config.num_heads,
        )

    def set_attn_implementation(self, name: str) -> None:
        """Attend as the backbone does: `sdpa`, `eager` or `flash_attention_2`; by `sdpa` where it is another."""
        for attention in cast("Iterable[GridAttention]", self.attentions.values()):
            attention.attn_implementation = name if name in (*ATTEND, FLASH) else "sdpa"

    def compile(self, *args: Any, **options: Any) -> None:
        """Compile what works on tensors alone, with the arguments of `torch.compile`; see `Saot.compile`.

        Where `torch.compile` is given this module, its attentions run as they are.
        """
        self.saot.compile(*args, **options)
        for attention in self.attentions.values():
            attention.compile(*args, **options)

    @torch.compiler.disable(recursive=False)
    def forward(self, views: tuple[EncodedView, ...], counts: tuple[int, ...]) -> Tensor:
        """Turn the encoded crops into the promised tokens.

        Args:
            views: the objects' crops, then one view per context.
            counts: tokens promised per region.

        Returns:
            `(sum(counts), D)`, region by region.
        """
        crops, *context_views = views
        tokens = self.saot.object_features(crops, counts)
        for attention, view in zip(self.attentions.values(), context_views, strict=True):
            tokens = tokens + attention(tokens, counts, view)
        return self.saot.mlp(tokens)
