"""Options of `marks`."""

from dataclasses import dataclass
from typing import Literal

from pixelrefer_plugin.authoring import check_field

Style = Literal["outline", "tint", "both", "box"]
"""How a region is marked: its outline, a tint over its pixels, both, or the outline of its box."""

Unmarked = Literal["no", "before", "after"]
"""Whether the picture without marks is shown besides, and on which side of the marked one."""

STYLES: tuple[Style, ...] = ("outline", "tint", "both", "box")
_UNMARKED: tuple[Unmarked, ...] = ("no", "before", "after")


@dataclass(frozen=True)
class MarksConfig:
    """How regions are marked.

    Lengths are shares of the square root of the picture's area, so that marks look alike on pictures of every size.

    Attributes:
        style: `outline`, `tint`, `both`, or `box` for the outline of the region's box.
        numbers: whether a region's number is drawn on it. Without numbers there may be as many regions as colours, 8.
        opacity: of a tint, up to 1, which hides what is under it.
        unmarked: whether the picture without marks is shown besides: `no`, `before` or `after` the marked one.
        line_width: of outlines; 2 pixels at least.
        number_size: height of a number's font; 11 pixels at least, or 8 where many numbers would hide the picture. A
            picture of so few pixels that a number would take half of its height or width has none.
        least_size: longer side that a mark has at least; the mark of a smaller region grows to it.
    """

    style: Style = "outline"
    numbers: bool = True
    opacity: float = 0.4
    unmarked: Unmarked = "no"
    line_width: float = 0.006
    number_size: float = 0.04
    least_size: float = 0.02

    def __post_init__(self) -> None:
        check_field(self.style in STYLES, self, "style", f"one of {', '.join(STYLES)}")
        check_field(isinstance(self.numbers, bool), self, "numbers", "true or false")
        check_field(self.unmarked in _UNMARKED, self, "unmarked", f"one of {', '.join(_UNMARKED)}")
        check_field(0 < self.opacity <= 1, self, "opacity", "in (0, 1]")
        check_field(0 < self.line_width <= 0.1, self, "line_width", "in (0, 0.1]")
        check_field(0 < self.number_size <= 0.5, self, "number_size", "in (0, 0.5]")
        check_field(0 < self.least_size <= 0.5, self, "least_size", "in (0, 0.5]")
