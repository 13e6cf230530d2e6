"""Options of the benchmarks of expressions about pictures."""

from dataclasses import dataclass
from typing import Any, ClassVar

from pixelrefer_plugin.authoring import check_field

_PHRASE = "{expression}"


@dataclass(frozen=True)
class RefcocoConfig:
    """What of RefCOCO or RefCOCO+ is asked, and how.

    Attributes:
        split: `val`, `testA` or `testB`.
        question: the template of the question; `{expression}` is what somebody said of the object.
        images: folder of the pictures of COCO's train2014, where it is not below the benchmark's as LISA has it.
    """

    SPLITS: ClassVar[tuple[str, ...]] = ("val", "testA", "testB")

    split: str = "val"
    question: str = "Segment {expression}."
    images: str | None = None

    def __post_init__(self) -> None:
        check_field(self.split in self.SPLITS, self, "split", f"one of {', '.join(self.SPLITS)}")
        check_field(_is_template(self.question), self, "question", f"a text with one {_PHRASE}")
        check_field(self.images is None or isinstance(self.images, str), self, "images", "a folder")


@dataclass(frozen=True)
class RefcocogConfig(RefcocoConfig):
    """As `RefcocoConfig`, with the splits of RefCOCOg by UMD.

    Attributes:
        split: `val` or `test`.
    """

    SPLITS: ClassVar[tuple[str, ...]] = ("val", "test")


@dataclass(frozen=True)
class ReasonSegConfig:
    """What of ReasonSeg is asked, and how.

    Attributes:
        split: `val` or `test`.
        question: the template for phrases; `{expression}` is the text.
        sentence: the template for sentences, which are questions or statements themselves.
    """

    split: str = "val"
    question: str = "Segment {expression}."
    sentence: str = "{expression} Answer with the mask."

    def __post_init__(self) -> None:
        check_field(self.split in ("val", "test"), self, "split", "val or test")
        for name in ("question", "sentence"):
            check_field(_is_template(getattr(self, name)), self, name, f"a text with one {_PHRASE}")


def _is_template(text: Any) -> bool:
    return isinstance(text, str) and text.count(_PHRASE) == 1
