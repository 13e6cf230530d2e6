"""Options of `coordinates`."""

from dataclasses import dataclass
from typing import Literal

from pixelrefer_plugin.authoring import check_field

UNITS: tuple[Literal["thousandths", "fractions", "pixels"], ...] = ("thousandths", "fractions", "pixels")
CONVENTIONS = ("backbone", *UNITS)


@dataclass(frozen=True)
class CoordinatesConfig:
    """How regions are told in coordinates.

    Attributes:
        convention: `backbone`: as the backbone was trained to read them; where nothing is documented of it, in
            thousandths. `thousandths` or `fractions` of the picture's width and height, or `pixels` of the picture as
            the backbone sees it, where its plugin knows that size, else of the original: so in any case, and the
            conversation says so.
        max_frames: frames of a video, spread evenly over those that a region lies on, whose coordinates are told.
    """

    convention: str = "backbone"
    max_frames: int = 8

    def __post_init__(self) -> None:
        check_field(self.convention in CONVENTIONS, self, "convention", f"one of {', '.join(CONVENTIONS)}")
        check_field(1 <= self.max_frames <= 1024, self, "max_frames", "in 1..1024")
