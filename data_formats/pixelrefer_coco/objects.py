"""Objects that are one: annotations of one class whose masks are the same pixels."""

from collections.abc import Sequence
from typing import Any

from pixelrefer_plugin.authoring import Region, RegionError

_MOST_PIXELS = 1 << 26  # of a picture on which masks are compared by their pixels


def distinct(regions: Sequence[Region | None], size_hw: Sequence[Any] | None) -> list[int]:
    """The positions of the regions without those that are the same as an earlier one; None is the same as no other.

    Args:
        regions: masks of one picture.
        size_hw: its height and width as the file says them, unchecked; None where it does not.
    """
    known = [_hw(region, size_hw) for region in regions]
    hw = next((each for each in known if each is not None), None)
    kept: list[int] = []
    seen: list[Any] = []
    for position, region in enumerate(regions):
        value = None if region is None else _value(region, hw)
        if value is None or value not in seen:
            kept.append(position)
            seen.append(value)
    return kept


def _hw(region: Region | None, size_hw: Sequence[Any] | None) -> tuple[int, int] | None:
    """The picture's size, as the file has it or else a run-length mask."""
    said = size_hw if size_hw is not None else region.data[1] if region is not None and region.kind == "rle" else ()
    sides = [int(side) for side in said if isinstance(side, int | float) and 1 <= side <= _MOST_PIXELS]
    return (sides[0], sides[1]) if len(sides) == 2 and sides[0] * sides[1] <= _MOST_PIXELS else None


def _value(region: Region, hw: tuple[int, int] | None) -> Any:
    """Equal for the same objects: pixels, or the geometry as it was given where there can be none."""
    try:
        return (region.kind, region.data) if hw is None else region.to_rle(hw)
    except RegionError:
        return region.kind, region.data
