"""Options of the benchmark `videorefer_d`."""

from dataclasses import dataclass
from typing import Literal

from pixelrefer_plugin.authoring import REGION_MARKER, check_field

Masks = Literal["one", "all"]
_MASKS = ("one", "all")


@dataclass(frozen=True)
class VideoReferDConfig:
    """What is shown of a video, and what the model and the judge are asked.

    Attributes:
        masks: `one`: the object is marked on the frame that the record names, and the video is shown at `fps`, as
            PixelRefer has it. `all`: it is marked on every frame that has a mask, and these alone are shown, as
            PixelRefer-Lite has it.
        fps: frames per second that are shown, with one mask.
        max_frames: of a video, with one mask.
        videos: folder of the videos; where it is relative, below the benchmark's folder.
        question: to ask instead of the default one, with one `<region>`.
        official_code: folder of a clone of alibaba-damo-academy/PixelRefer, to ask the model and the judge what the
            official code asks. Without it, prompts of our own words are used.
    """

    masks: Masks = "one"
    fps: float = 1.0
    max_frames: int = 768
    videos: str = "Panda-70M-part"
    question: str | None = None
    official_code: str | None = None

    def __post_init__(self) -> None:
        check_field(self.masks in _MASKS, self, "masks", f"one of {', '.join(_MASKS)}")
        check_field(0 < self.fps < float("inf"), self, "fps", "a number > 0")
        check_field(isinstance(self.max_frames, int) and self.max_frames >= 1, self, "max_frames", "an integer >= 1")
        for name in ("videos", "question", "official_code"):
            given = getattr(self, name)
            is_text = isinstance(given, str) and bool(given)
            check_field(is_text or (given is None and name != "videos"), self, name, "a text")
        once = self.question is None or self.question.count(REGION_MARKER) == 1
        check_field(once, self, "question", f"a text with one {REGION_MARKER}")
