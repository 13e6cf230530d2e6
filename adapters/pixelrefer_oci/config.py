"""Options of OCI: SAOT's, and those of the two attentions.

The defaults are the paper's; `OFFICIAL` are those of the released weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from types import MappingProxyType
from typing import Any

from pixelrefer_saot.config import OFFICIAL as OFFICIAL_SAOT
from pixelrefer_saot.config import SaotConfig

from pixelrefer_plugin.authoring import PixelReferError, Resample, check_field, shown

_LONGEST_FORMAT = 4  # such as `06.2f`; of a label from elsewhere the width would be obeyed


@dataclass(frozen=True)
class OciConfig(SaotConfig):
    """Options of Object-Centric Infusion (PixelRefer §4.3), besides those of SAOT.

    From `context_resample` on they are where the official code does otherwise than the paper says, as there.

    Attributes:
        local_px: side of the square that the object's surroundings are resized to, in pixels.
        global_px: side of the square that the whole image is resized to, in pixels.
        num_heads: heads of each attention; must divide the tower's width.
        use_local: infuse what surrounds the object. Off, its attention does not exist (Table 9).
        use_global: infuse the whole image. Off, its attention does not exist (Table 9).
        context_resample: how the two squares are made. Paper: not said, here `bicubic` with antialiasing. Official
            code: `opencv_area`.
        share_local_crop: regions on one picture are all given the first one's surroundings. Paper: each its own.
            Official code: the first one's, a cache that is kept per picture.
        frame_label: what stands before the tokens of each frame of a video; `{time_s}` is when it is shown, in
            seconds. Paper: not said. Official code: `Time {time_s:.1f}:`, without the unit.
    """

    local_px: int = 224
    global_px: int = 336
    num_heads: int = 8
    use_local: bool = True
    use_global: bool = True
    context_resample: Resample = "bicubic"
    share_local_crop: bool = False
    frame_label: str = "Time {time_s:.1f}s:"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("local_px", "global_px", "num_heads"):
            value = getattr(self, name)
            check_field(type(value) is int and value >= 1, self, name, "an integer >= 1")
            check_field(value <= 2**13, self, name, f"at most {2**13}")
        for switch in ("use_local", "use_global", "share_local_crop"):
            check_field(isinstance(getattr(self, switch), bool), self, switch, "True or False")
        resamples = ("bicubic", "opencv_area")
        check_field(self.context_resample in resamples, self, "context_resample", "one of 'bicubic', 'opencv_area'")
        self._check_frame_label()

    @property
    def contexts(self) -> tuple[str, ...]:
        """What is infused, in this order: the views after the object's crop, and the attentions that read them."""
        used = {"local": self.use_local, "global": self.use_global}
        return tuple(name for name, is_used in used.items() if is_used)

    def label_of_frame(self, time_s: float) -> str:
        """What stands before the object tokens of a frame that is shown after `time_s` seconds."""
        return self.frame_label.format(time_s=time_s)

    def _check_frame_label(self) -> None:
        try:
            fields = [each[1:] for each in Formatter().parse(self.frame_label) if each[1] is not None]
            if any(name != "time_s" or len(spec or "") > _LONGEST_FORMAT for name, spec, _ in fields):
                raise ValueError("another field, or a format that may be wide")
            self.label_of_frame(0.0)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise PixelReferError(
                "OciConfig.frame_label must be a format string of time_s alone, such as 'Time {time_s:.1f}s:', "
                f"got {shown(self.frame_label)}."
            ) from error


OFFICIAL: Mapping[str, Any] = MappingProxyType(
    {
        **OFFICIAL_SAOT,
        "large_patches": 50,
        "kmeans_iterations": 3,
        "single_precision_scale": False,
        "drop_last_row_and_column": False,
        "resample": "opencv_linear_or_area",
        "mask_resize": "any_linear",
        "pad_to_num_tokens": True,
        "inclusive_position_box": True,
        "context_resample": "opencv_area",
        "share_local_crop": True,
        "frame_label": "Time {time_s:.1f}:",
    }
)
"""What PixelRefer-Lite's released weights were trained with, where the official code departs from the paper."""
