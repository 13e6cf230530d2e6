"""Options of `coordinates`."""

from dataclasses import dataclass

from pixelrefer_plugin.authoring import check_field


@dataclass(frozen=True)
class CoordinatesConfig:
    """How regions are told in coordinates.

    Attributes:
        max_frames: frames of a video, spread evenly over those that a region lies on, whose coordinates are told.
    """

    max_frames: int = 8

    def __post_init__(self) -> None:
        check_field(1 <= self.max_frames <= 1024, self, "max_frames", "in 1..1024")
