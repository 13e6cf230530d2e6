"""Options of the format `osprey`."""

from dataclasses import dataclass
from typing import Literal

from pixelrefer_plugin.authoring import check_field

Mention = Literal["auto", "inline", "list"]
_MENTIONS = ("auto", "inline", "list")


@dataclass(frozen=True)
class OspreyConfig:
    """How Osprey-724K is read.

    Attributes:
        mention: how texts point at regions. `inline`: each `<region2>` of a question becomes that region. `list`: the
            regions are listed before the first question, and texts call them by number, as Osprey was trained for
            most of its files. `auto`: inline where all regions are pointed at in questions and none in answers, else
            the list.
        suffix: what is added to every question, such as Osprey's ` Answer the question using a single word or
            phrase.` for its short-form and part-level files.
        coco_2017_names: read `COCO_train2014_000000000009.jpg` as `000000000009.jpg`, the name that the picture has in
            COCO 2017, which Osprey used throughout.
    """

    mention: Mention = "auto"
    suffix: str = ""
    coco_2017_names: bool = True

    def __post_init__(self) -> None:
        check_field(self.mention in _MENTIONS, self, "mention", f"one of {', '.join(_MENTIONS)}")
        check_field(isinstance(self.suffix, str), self, "suffix", "a text")
        check_field(isinstance(self.coco_2017_names, bool), self, "coco_2017_names", "true or false")
