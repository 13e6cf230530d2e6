"""What an adapter that gives masks is handed, and what it returns.

Shape letters: N pictures, K (object, picture) pairs, S objects, D decoder width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from ..regions.region import Region, VideoRegion
from .checks import require_callables, require_kinds

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Clips:
    """The pictures that a batch's masks are made on. A clip is one picture, or the sampled frames of one video.

    Attributes:
        pixels: `(N, 3, px, px)` uint8 RGB, clip after clip, each picture squeezed to the head's square.
        lengths: pictures of each clip; they add up to N.
    """

    pixels: torch.Tensor
    lengths: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class MaskTargets:
    """What the masks of a batch should be. K counts (object, picture) pairs: object by object, each on all pictures of
    its clip in order.

    Attributes:
        masks: `(A, px, px)` bool, the annotated ones, squeezed as the pictures are.
        row_of_pair: `(K,)` int64, the row of `masks` of each pair; `ABSENT` where the object is known not to be on that
            picture, `UNKNOWN` where nothing is known.
    """

    masks: torch.Tensor
    row_of_pair: torch.Tensor

    ABSENT: ClassVar[int] = -1
    UNKNOWN: ClassVar[int] = -2


@dataclass(frozen=True, eq=False)
class PredictedMasks:
    """Masks as a head gives them, for the (object, picture) pairs of `MaskTargets`.

    Attributes:
        logits: `(K, h, w)` on the head's square at any resolution, above zero inside.
        iou: `(K,)` what the head believes the mask's IoU to be.
        presence: `(K,)` logit of whether the object is on that picture at all.
    """

    logits: torch.Tensor
    iou: torch.Tensor
    presence: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Masks:
    """Masks beside text: what an adapter's module reads in the decoder, and where. The module is a `MaskModule`.

    In an answer, the token stands for an object; its mask is made from the hidden state that predicts it: that of the
    position before, behind the decoder's last layer and before its final norm. It is captured by a hook of one call.

    Attributes:
        token: what stands for a mask in an answer. Its rows of the embedding and of the head train.
        picture_px: `picture_px(config) -> int`, side of the square that pictures are squeezed to.
        max_objects: `max_objects(config) -> int`, of one training sample.
        localize: how the model is asked for masks of the objects that a question is about, `{}` for the question.
    """

    token: str
    picture_px: Callable[[Any], int]
    max_objects: Callable[[Any], int]
    localize: str = "{} Please segment the objects that this is about."

    def __post_init__(self) -> None:
        require_kinds(self, token=str, localize=str)
        require_callables(self, "picture_px", "max_objects")


@dataclass(frozen=True)
class SegmentedObject:
    """An object that an answer names and gives a mask of.

    Attributes:
        id: the number that stands in brackets before its mask, as in `[2] <seg>`; None where none does.
        region: its mask in original pixels; on a video on each sampled frame where it is seen. None where it is
            nowhere.
        score: what the model believes the masks' IoU to be, over the pictures where it is seen, in [0, 1].
        presence: index of each sampled frame, 0 for an image -> the probability that the object is on it.
    """

    id: int | None
    region: Region | VideoRegion | None
    score: float
    presence: Mapping[int, float] = field(default_factory=dict)
