"""Options of the formats `dam` and `dam_regions`."""

from dataclasses import dataclass
from typing import Literal

from pixelrefer_plugin.authoring import CAPTION_QUESTIONS, check_field, checked_questions

Images = Literal["source", "shards"]
_IMAGES = ("source", "shards")


@dataclass(frozen=True)
class DamConfig:
    """How the Describe Anything data set is read.

    Attributes:
        images: where pictures are below the media root. `source`: at the path that the file names, in the data set
            that they come from. `shards`: as `<img_id>.jpg`, the name that they have in the tar files.
        question: to ask instead of the default ones, or several to choose from; each with one `<region>`.
    """

    images: Images = "source"
    question: str | tuple[str, ...] = CAPTION_QUESTIONS

    def __post_init__(self) -> None:
        check_field(self.images in _IMAGES, self, "images", f"one of {', '.join(_IMAGES)}")
        object.__setattr__(self, "question", checked_questions(self, "question"))
