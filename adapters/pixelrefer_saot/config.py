"""Options of SAOT. The defaults are the paper's; `OFFICIAL` are those of the released weights."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from pixelrefer_plugin.authoring import Resample, check_field

_CHOICES = {
    "resample": ("bicubic", "opencv_linear", "opencv_linear_or_area"),
    "mask_resize": ("coverage", "uint8_linear", "any_linear"),
    "kmeans_start": ("even", "random"),
}
_INTEGERS = {"num_tokens": 1, "large_patches": 1, "context_patches": 0, "max_patches": 1, "kmeans_iterations": 1}
_MOST = {  # far beyond what is of use; a folder from elsewhere may say anything, and would be obeyed
    "num_tokens": 2**12,
    "large_patches": 2**16,
    "context_patches": 2**10,
    "max_patches": 2**18,
    "kmeans_iterations": 2**10,
}
_SWITCHES = (
    "use_position",
    "round_scale_up",
    "single_precision_scale",
    "context_in_source_pixels",
    "drop_last_row_and_column",
    "round_grid_up",
    "stretch_large_grids",
    "pad_to_num_tokens",
    "swap_position_axes",
    "inclusive_position_box",
)

CropResample = Resample | Literal["opencv_linear_or_area"]
"""How a crop is resized; `opencv_linear_or_area`: by area where both sides shrink, else linearly."""

FEWEST_ENCODED_PATCHES = 16
"""What the official image processor brings the smallest crops to (its `min_pixels`, 56 x 56)."""


@dataclass(frozen=True)
class SaotConfig:
    """Options of the Scale-Adaptive Object Tokenizer (PixelRefer §4.2.1).

    From `round_scale_up` on they are where the official code does otherwise than the paper says. Released weights
    were trained with that code and expect it: the preset `official` (`OFFICIAL`; `pixelrefer_oci.config.OFFICIAL` for
    PixelRefer-Lite). `docs/fidelity.md` has the whole list.

    Attributes:
        num_tokens: n, the most tokens an object gets. The paper's best is 32 (Table 7).
        large_patches: objects larger than this many patches are shrunk to it. 100 in eq. 2 and in PixelRefer's
            code, 50 in PixelRefer-Lite's.
        context_patches: context around the object's box, in patches a side; see `context_in_source_pixels`. 0: none
            (Table 8, without expansion).
        max_patches: upper bound of what the vision tower is given for one object, in patches. Objects that fill
            little of their box (lines, speckles) would need more; compact ones never do. The official image
            processor's is 8192.
        kmeans_iterations: rounds of Abundant Feature Aggregation (eq. 6). 5 in PixelRefer's code, 3 in
            PixelRefer-Lite's.
        use_position: tell each patch where it lies. Off, its layer does not exist (Table 8).
        round_scale_up: the scale of an object that grows is rounded up to a whole number. Paper: eq. 2 as it is.
            Official code, full and Lite: rounded up.
        single_precision_scale: the scale of an object that shrinks is computed in float32, which can tip a side over
            to one patch more. Paper: not said, here float64. Official code, full: float32, since its masks are
            torch's.
        context_in_source_pixels: the context is `context_patches` patches of the original image. Paper: of the
            scaled image. Official code, full and Lite: 28 pixels of the original image.
        drop_last_row_and_column: the crop ends a pixel early below and on the right, so an image's last row and
            column are never seen. Paper: the whole box. Official code, full: the last pixel taken for the end.
            Of an object that lies wholly in what is dropped, the patches next to it are the region's.
        round_grid_up: rows and columns of the grid are rounded up. Paper: whole patches, here the nearest.
            Official code, full and Lite: up.
        resample: how the crop is resized. Paper: not said, here `bicubic` with antialiasing. Official code, full:
            `opencv_linear`, without antialiasing even where it shrinks; Lite: `opencv_linear_or_area`, by area
            where both sides shrink.
        mask_resize: how the mask is taken to the patches. Paper: not said, here `coverage`: a patch is inside that
            is covered at least half as much as the one that is covered most. Official code, full: `uint8_linear`,
            torch's bilinear resize of the mask's 0 and 1 as bytes, rounded after each axis; Lite: `any_linear`,
            OpenCV's bilinear resize, of which all that is not zero is inside.
        stretch_large_grids: an object that needs more than `max_patches` keeps its grid; the tower is given a
            smaller one whose features are stretched. Paper: no such objects, here the scale is lowered instead.
            Official code, full and Lite: stretched, also from a crop of less than 16 patches to one of so many.
        pad_to_num_tokens: always `num_tokens` tokens, zeros after an object's own, which pass on through what
            follows like any other. Paper: as many as there are patches. Official code, Lite: padded.
        swap_position_axes: a patch's x is computed from the box's rows and its y from the columns. Paper: eq. 4 as
            it is. Official code, full and Lite: swapped.
        inclusive_position_box: the box that positions are computed from ends a pixel before the crop does. Paper:
            the crop's. Official code, Lite: a pixel less.
        kmeans_start: first centroids of k-means. Paper: not said, here `even`, from tokens evenly spaced in raster
            order: the same result each time. Official code, full and Lite: `random`, `torch.randperm` of torch's
            global generator on the CPU, one draw for each region with more patches than tokens, in their order.
    """

    num_tokens: int = 32
    large_patches: int = 100
    context_patches: int = 2
    max_patches: int = 1024
    kmeans_iterations: int = 5
    use_position: bool = True
    round_scale_up: bool = False
    single_precision_scale: bool = False
    context_in_source_pixels: bool = False
    drop_last_row_and_column: bool = False
    round_grid_up: bool = False
    resample: CropResample = "bicubic"
    mask_resize: str = "coverage"
    stretch_large_grids: bool = False
    pad_to_num_tokens: bool = False
    swap_position_axes: bool = False
    inclusive_position_box: bool = False
    kmeans_start: str = "even"

    def __post_init__(self) -> None:
        for name, least in _INTEGERS.items():
            value = getattr(self, name)
            check_field(type(value) is int and value >= least, self, name, f"an integer >= {least}")
            check_field(value <= _MOST[name], self, name, f"at most {_MOST[name]}")
        for switch in _SWITCHES:
            check_field(isinstance(getattr(self, switch), bool), self, switch, "True or False")
        check_field(self.large_patches >= self.num_tokens, self, "large_patches", f">= num_tokens ({self.num_tokens})")
        room, what = self._room()
        check_field(self.max_patches >= room, self, "max_patches", f">= {room}, room for {what}")
        for name, choices in _CHOICES.items():
            check_field(getattr(self, name) in choices, self, name, f"one of {', '.join(map(repr, choices))}")

    def _room(self) -> tuple[int, str]:
        """The fewest patches that `max_patches` must leave for a crop, and what for."""
        if self.stretch_large_grids:
            return FEWEST_ENCODED_PATCHES, "the smallest crop"
        # A square object of large_patches with its context, and a patch more for whole pixels and patches.
        room = math.ceil((math.sqrt(self.large_patches) + 2 * self.context_patches + 1) ** 2)
        return room, f"{self.large_patches} large_patches and their context"


OFFICIAL: Mapping[str, Any] = MappingProxyType(
    {
        "max_patches": 8192,
        "round_scale_up": True,
        "single_precision_scale": True,
        "context_in_source_pixels": True,
        "drop_last_row_and_column": True,
        "round_grid_up": True,
        "resample": "opencv_linear",
        "mask_resize": "uint8_linear",
        "stretch_large_grids": True,
        "swap_position_axes": True,
        "kmeans_start": "random",
    }
)
"""What PixelRefer's released weights were trained with, where the official code departs from the paper."""
