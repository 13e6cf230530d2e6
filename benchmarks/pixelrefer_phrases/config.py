"""Options of the benchmarks `visual_genome`, `ref_l4_phrases` and `hc_stvg`."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from pixelrefer_plugin.authoring import REGION_MARKER, Tokens, check_field

Masks = Literal["one", "all"]


@dataclass(frozen=True, kw_only=True)
class CaptionConfig:
    """What the model is asked, and how its captions are split into words.

    Attributes:
        tokens: `ptb`: the official tokenizer, which needs Java; `nltk`: one that needs none, whose figures carry that
            name; `auto`: `ptb` where there is Java, else `nltk`.
        question: to ask instead of the default one, with one `<region>`.
        official_code: folder of a clone of alibaba-damo-academy/PixelRefer, to ask the model and the judge what the
            official code asks. Without it, prompts of our own words are used.
    """

    tokens: Tokens = "auto"
    question: str | None = None
    official_code: str | None = None

    def __post_init__(self) -> None:
        check_field(self.tokens in get_args(Tokens), self, "tokens", f"one of {', '.join(get_args(Tokens))}")
        once = self.question is None or (isinstance(self.question, str) and self.question.count(REGION_MARKER) == 1)
        check_field(once, self, "question", f"a text with one {REGION_MARKER}")
        check_field(self.official_code is None or _is_path(self.official_code), self, "official_code", "a folder")


@dataclass(frozen=True, kw_only=True)
class PictureConfig(CaptionConfig):
    """As `CaptionConfig`, about pictures.

    Attributes:
        images: folder of the pictures; where it is relative, below the benchmark's folder.
    """

    images: str = "images"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_field(_is_path(self.images), self, "images", "a folder")


@dataclass(frozen=True, kw_only=True)
class HcStvgConfig(CaptionConfig):
    """As `CaptionConfig`, about videos.

    Attributes:
        masks: `one`: the person is marked on the frame that the record names, and the video is shown at `fps`, as
            PixelRefer has it; read from `hc_stvg_val.json`. `all`: the person is marked on every frame that has a mask,
            and these alone are shown, as PixelRefer-Lite has it; read from `hc-stvg-val-allframe.json`.
        fps: frames per second that are shown, with one mask.
        max_frames: of a video, with one mask.
        videos: folder of the videos; where it is relative, below the benchmark's folder.
    """

    masks: Masks = "one"
    fps: float = 1.0
    max_frames: int = 768
    videos: str = "video_parts"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_field(self.masks in get_args(Masks), self, "masks", f"one of {', '.join(get_args(Masks))}")
        check_field(0 < self.fps < float("inf"), self, "fps", "a number > 0")
        check_field(isinstance(self.max_frames, int) and self.max_frames >= 1, self, "max_frames", "an integer >= 1")
        check_field(_is_path(self.videos), self, "videos", "a folder")


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and bool(value)
