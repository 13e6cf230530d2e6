"""Options of UniPixel. The defaults are the published model's."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pixelrefer_plugin.authoring import check_field

OFFICIAL = "official"
"""As `sam2_checkpoint`: the published SAM 2.1 of the size that `sam2` names."""

OFFICIAL_CHECKPOINTS: Mapping[str, str] = MappingProxyType(
    {
        "tiny": "facebook/sam2.1-hiera-tiny",
        "small": "facebook/sam2.1-hiera-small",
        "base_plus": "facebook/sam2.1-hiera-base-plus",
        "large": "facebook/sam2.1-hiera-large",
    }
)

_SIZES = (*OFFICIAL_CHECKPOINTS, "micro")
_STRIDE_PX = 32  # of the coarsest level of SAM 2's image encoder
_LOSS_WEIGHTS = ("mask_weight", "dice_weight", "iou_weight", "presence_weight")


@dataclass(frozen=True)
class UniPixelConfig:
    """Options of UniPixel.

    Attributes:
        sam2: size of the SAM 2.1 that makes the masks: `tiny`, `small`, `base_plus`, `large`, or `micro`, one of a few
            hundred thousand parameters for tests, which nobody has published.
        sam2_checkpoint: the weights that it starts from when the adapter is attached untrained: a model of the Hugging
            Face hub, a folder that transformers saved, an official `.pt` file, or `official`, the published one of its
            size. None: random. A trained adapter holds its own.
        picture_px: side of the square that SAM 2 is given, in pixels.
        prompt_tokens: prompt tokens that SAM 2 is given for each `<seg>`.
        propagate: on a video, SAM 2's memory carries the mask from the first frame on. Off, each frame is
            segmented by itself from the same prompt tokens.
        max_objects: most masks that one training sample may have.
        mask_weight: weight of the focal loss of the mask's pixels.
        dice_weight: weight of the dice loss.
        iou_weight: weight of the loss of the IoU that SAM 2 predicts.
        presence_weight: weight of the loss of whether the object is on a frame.
    """

    sam2: str = "base_plus"
    sam2_checkpoint: str | None = OFFICIAL
    picture_px: int = 768
    prompt_tokens: int = 2
    propagate: bool = True
    max_objects: int = 5
    mask_weight: float = 100.0
    dice_weight: float = 5.0
    iou_weight: float = 5.0
    presence_weight: float = 5.0

    def __post_init__(self) -> None:
        check_field(self.sam2 in _SIZES, self, "sam2", f"one of {', '.join(map(repr, _SIZES))}")
        if self.sam2_checkpoint is not None:
            object.__setattr__(self, "sam2_checkpoint", str(self.sam2_checkpoint))  # a Path is welcome
            check_field(self.sam2_checkpoint != "", self, "sam2_checkpoint", "a hub name, a folder, a .pt file or None")
        published = self.sam2 in OFFICIAL_CHECKPOINTS or self.sam2_checkpoint != OFFICIAL
        rule = f"None or a checkpoint of yours, since there is no published SAM 2 of size '{self.sam2}'"
        check_field(published, self, "sam2_checkpoint", rule)
        for name in ("picture_px", "prompt_tokens", "max_objects"):
            value = getattr(self, name)
            check_field(type(value) is int and value >= 1, self, name, "an integer >= 1")
            check_field(value <= 2**13, self, name, f"at most {2**13}")
        whole = self.picture_px % _STRIDE_PX == 0
        check_field(whole, self, "picture_px", f"a multiple of {_STRIDE_PX}, the coarsest stride of SAM 2's encoder")
        check_field(isinstance(self.propagate, bool), self, "propagate", "True or False")
        for name in _LOSS_WEIGHTS:
            value = getattr(self, name)
            numeric = isinstance(value, int | float) and not isinstance(value, bool)
            check_field(numeric and 0 <= value < float("inf"), self, name, "a finite number >= 0")

    @property
    def start_checkpoint(self) -> str | None:
        """The hub id, folder or file that SAM 2 starts from; None for random weights."""
        return OFFICIAL_CHECKPOINTS[self.sam2] if self.sam2_checkpoint == OFFICIAL else self.sam2_checkpoint

    @property
    def loss_weights(self) -> dict[str, float]:
        """The weight of each part of the loss, by name."""
        return {name.removesuffix("_weight"): float(getattr(self, name)) for name in _LOSS_WEIGHTS}
