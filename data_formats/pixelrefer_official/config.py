"""Options of the formats `pixelrefer` and `videorefer`."""

import math
from dataclasses import dataclass

from pixelrefer_plugin.authoring import check_field


@dataclass(frozen=True)
class OfficialConfig:
    """How the official training files are read.

    Attributes:
        folder_fps: frames per second of videos that are folders or lists of frames and come without times; the
            official code takes 3.
    """

    folder_fps: float = 3.0

    def __post_init__(self) -> None:
        check_field(0 < self.folder_fps < math.inf, self, "folder_fps", "a number > 0")
