"""Options of the benchmark `ferret_reasoning`."""

from dataclasses import dataclass
from typing import Literal

from pixelrefer_plugin.authoring import check_field

Task = Literal["reason", "description"]
Order = Literal["model_first", "reference_first"]
Brackets = Literal["model", "second"]
_CHOICES = {
    "task": ("reason", "description"),
    "order": ("model_first", "reference_first"),
    "brackets": ("model", "second"),
}


@dataclass(frozen=True)
class FerretConfig:
    """What is asked, and what the judge sees.

    Attributes:
        task: `reason`: Ferret-Reasoning. `description`: referring description, the other half of Ferret-Bench.
        order: which answer the judge sees first. `model_first`, as PixelRefer has it; `reference_first`, as Ferret and
            GAR have it. Judges favour a place, and the quotient is another one, so figures of the two do not compare.
        brackets: of which answer boxes such as ` [0.1, 0.2, 0.3, 0.4]` are taken out before the judge sees it: the
            `model`'s, or, as the official code does it, whatever stands in brackets in the `second` answer.
        data: folder of Ferret's `ferret_gpt4_data`; where it is relative, below the benchmark's folder.
        images: folder of the pictures of COCO; where it is relative, below the benchmark's folder.
        official_code: folder of a clone of alibaba-damo-academy/PixelRefer, to frame what the judge sees as the
            official code does. Without it, the frame is of our own words. The task itself is Ferret's `rule.json`.
    """

    task: Task = "reason"
    order: Order = "model_first"
    brackets: Brackets = "model"
    data: str = "."
    images: str = "val2017"
    official_code: str | None = None

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            check_field(getattr(self, name) in known, self, name, f"one of {', '.join(known)}")
        for name in ("data", "images", "official_code"):
            given = getattr(self, name)
            is_text = isinstance(given, str) and bool(given)
            check_field(is_text or (given is None and name == "official_code"), self, name, "a text")
