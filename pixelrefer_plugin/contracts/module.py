"""The torch side of an adapter's contract: its module, and the shapes that it is built for.

Shape letters: D decoder width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from .masks import Clips, MaskTargets, PredictedMasks


@dataclass(frozen=True)
class Shapes:
    """What an adapter's module is built for.

    Attributes:
        crop: width of the features of its crops.
        scene: width of the features of its scene views: of a patch, of a cell, or D, as `AdapterSpec.scene` says.
        decoder: width D of the object tokens.
        projector: `(out, in)` of the projector's linear layers, first to last; none where the backbone's plugin does
            not name them.
    """

    crop: int
    scene: int
    decoder: int
    projector: tuple[tuple[int, int], ...] = ()


class AdapterModule(nn.Module, ABC):
    """What makes object tokens of encoded views. The host keeps it in float32, whatever the backbone's dtype.

    An answer must not depend on the other regions of a batch, nor on chance: no random numbers in inference.
    """

    @classmethod
    @abstractmethod
    def build(cls, config: Any, shapes: Shapes) -> AdapterModule:
        """The module that a config describes, with random weights.

        Raises:
            PixelReferError: the config does not fit the shapes.
        """

    @abstractmethod
    def forward(self, views: Any, counts: tuple[int, ...]) -> Tensor:
        """Make the tokens that were promised for the regions of a batch.

        Args:
            views: one `EncodedView` or `EncodedPrompts` for each view of the plans, of the regions that have it; None
                for one that no region of the batch has.
            counts: tokens promised for each region.

        Returns:
            `(sum(counts), D)`, region by region.
        """

    def start_from(self, projector_layers: Sequence[nn.Module]) -> None:
        """Take over weights, where the module is attached untrained.

        Args:
            projector_layers: the linear layers of the backbone's projector, first to last; none where its plugin does
                not name them or they are quantized.
        """

    def set_attn_implementation(self, name: str) -> None:
        """Attend as the backbone was loaded to: `sdpa`, `eager`, `flash_attention_2`, ..."""


class NoTokens(AdapterModule):
    """Stands where an adapter that makes no object tokens has no module: it has no parameters and is never called."""

    @classmethod
    def build(cls, config: Any, shapes: Shapes) -> NoTokens:
        return cls()

    def forward(self, views: Any, counts: tuple[int, ...]) -> Tensor:
        raise NotImplementedError("an adapter with a pointer makes no object tokens")


@runtime_checkable
class MaskModule(Protocol):
    """What the module of an adapter with `AdapterSpec.masks` has besides.

    S counts the objects of a batch. Both methods encode each picture once, whatever the objects.
    """

    def predict_masks(self, hidden: Tensor, clips: Clips, clip_of_object: Sequence[int]) -> PredictedMasks:
        """The mask of each object on every picture of its clip.

        Args:
            hidden: `(S, D)`, the hidden states that predicted the objects' tokens, in the backbone's dtype.
            clips: the pictures.
            clip_of_object: for each object the index of its clip.
        """
        ...

    def mask_losses(
        self, hidden: Tensor, clips: Clips, clip_of_object: Sequence[int], targets: MaskTargets
    ) -> Mapping[str, Tensor]:
        """`{name: (S,)}`: the weighted losses of each object, not divided by their number."""
        ...
