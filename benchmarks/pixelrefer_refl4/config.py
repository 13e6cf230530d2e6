"""Options of the benchmark `ref_l4_detailed`."""

from dataclasses import dataclass
from typing import Literal

from pixelrefer_plugin.authoring import REGION_MARKER, check_field

Bullets = Literal["whole", "characters"]
_BULLETS = ("whole", "characters")


@dataclass(frozen=True)
class RefL4DetailedConfig:
    """Where pictures are, and what the model and the judge are asked.

    Attributes:
        images: folder of the pictures; where it is relative, below the benchmark's folder.
        bullets: how a reference that is one text, not a list of texts, is listed for the judge: `whole`, as one item,
            or `characters`, each character as an item, as the official code does it.
        question: to ask instead of the default one, with one `<region>`.
        official_code: folder of a clone of alibaba-damo-academy/PixelRefer, to ask the model and the judge what the
            official code asks. Without it, prompts of our own words are used.
    """

    images: str = "images"
    bullets: Bullets = "whole"
    question: str | None = None
    official_code: str | None = None

    def __post_init__(self) -> None:
        check_field(self.bullets in _BULLETS, self, "bullets", f"one of {', '.join(_BULLETS)}")
        for name in ("images", "question", "official_code"):
            given = getattr(self, name)
            is_text = isinstance(given, str) and bool(given)
            check_field(is_text or (given is None and name != "images"), self, name, "a text")
        once = self.question is None or self.question.count(REGION_MARKER) == 1
        check_field(once, self, "question", f"a text with one {REGION_MARKER}")
