"""Options of `crops`."""

from dataclasses import dataclass
from typing import Literal

from pixelrefer_plugin.authoring import check_field

Background = Literal["keep", "dim", "remove"]
"""What becomes of what is not the region: it stays, it is darkened, or it is grey."""

_BACKGROUNDS: tuple[Background, ...] = ("keep", "dim", "remove")


@dataclass(frozen=True)
class CropsConfig:
    """How regions are shown enlarged.

    Attributes:
        context: how much a crop shows around the region's box, as a share of the box's longer side.
        background: `keep`, `dim` or `remove` what is not the region. Around clicks and scribbles, which have no
            outline, and on frames of a video on which nothing is known of it, it stays.
        min_px: longer side of a crop at least; smaller ones are enlarged to it.
        max_crops: the most regions of one image or video; each takes the tokens of a further picture or video.
    """

    context: float = 0.25
    background: Background = "keep"
    min_px: int = 336
    max_crops: int = 16

    def __post_init__(self) -> None:
        check_field(0 <= self.context <= 100, self, "context", "in 0..100")
        check_field(self.background in _BACKGROUNDS, self, "background", f"one of {', '.join(_BACKGROUNDS)}")
        check_field(1 <= self.min_px <= 4096, self, "min_px", "in 1..4096")
        check_field(1 <= self.max_crops <= 256, self, "max_crops", "in 1..256")
