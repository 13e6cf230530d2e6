"""Options of the benchmark `videorefer_q`."""

import re
from dataclasses import dataclass
from typing import Literal

from pixelrefer_plugin.authoring import check_field

Masks = Literal["one", "all"]
_MASKS = ("one", "all")


@dataclass(frozen=True)
class VideoReferQConfig:
    """What is shown of a video, and how the model is asked.

    Attributes:
        masks: `one`: the objects are marked on the frame that the record names, and the video is shown at `fps`, as
            PixelRefer has it. `all`: they are marked on every frame that has a mask, and these alone are shown, as
            PixelRefer-Lite has it.
        fps: frames per second that are shown, with one mask.
        folder_fps: frames per second of a video that is a folder of frames, which has no times; the official code
            takes 3.
        max_frames: of a video, with one mask.
        annotations: file of the questions, below the benchmark's folder.
        videos: folder that the paths of the videos are below; where it is relative, below the benchmark's folder.
        instruction: what stands behind the options instead of the default sentence.
        official_code: folder of a clone of alibaba-damo-academy/PixelRefer, to ask the model what the official code
            asks. Without it, a prompt of our own words is used.
    """

    masks: Masks = "one"
    fps: float = 1.0
    folder_fps: float = 3.0
    max_frames: int = 768
    annotations: str = "VideoRefer-Bench-Q.json"
    videos: str = "."
    instruction: str | None = None
    official_code: str | None = None

    def __post_init__(self) -> None:
        check_field(self.masks in _MASKS, self, "masks", f"one of {', '.join(_MASKS)}")
        for name in ("fps", "folder_fps"):
            check_field(0 < getattr(self, name) < float("inf"), self, name, "a number > 0")
        is_count = isinstance(self.max_frames, int) and not isinstance(self.max_frames, bool) and self.max_frames >= 1
        check_field(is_count, self, "max_frames", "an integer >= 1")
        for name in ("annotations", "videos"):
            check_field(_is_text(getattr(self, name)), self, name, "a text")
        for name in ("instruction", "official_code"):
            check_field(getattr(self, name) is None or _is_text(getattr(self, name)), self, name, "a text")
        both = self.instruction is not None and self.official_code is not None
        check_field(not both, self, "instruction", "left out where official_code says what is asked")


def _is_text(value: object) -> bool:
    """Whether it is a text, of characters that a path may have."""
    return isinstance(value, str) and bool(value) and not re.search("[\0\ud800-\udfff]", value)
