"""Options of SAOT. The defaults are the paper's."""

import math
from dataclasses import dataclass

from pixelrefer_plugin import check_field


@dataclass(frozen=True)
class SaotConfig:
    """Options of the Scale-Adaptive Object Tokenizer (PixelRefer §4.2.1).

    Attributes:
        num_tokens: n, the most tokens an object gets. The paper's best is 32 (Table 7).
        large_patches: objects larger than this many patches are shrunk to it (100 in eq. 2).
        context_patches: context around the object's box, in patches a side after scaling.
        max_patches: upper bound of a crop's patches. Objects that fill little of their box (lines, speckles)
            are scaled down to it; compact ones never reach it.
        kmeans_iterations: rounds of Abundant Feature Aggregation (eq. 6).
    """

    num_tokens: int = 32
    large_patches: int = 100
    context_patches: int = 2
    max_patches: int = 1024
    kmeans_iterations: int = 5

    def __post_init__(self) -> None:
        check_field(self.num_tokens >= 1, self, "num_tokens", ">= 1")
        check_field(self.large_patches >= self.num_tokens, self, "large_patches", f">= num_tokens ({self.num_tokens})")
        check_field(self.context_patches >= 0, self, "context_patches", ">= 0")
        # A square object of large_patches with its context, and a patch more for whole pixels and patches.
        room = math.ceil((math.sqrt(self.large_patches) + 2 * self.context_patches + 1) ** 2)
        check_field(
            self.max_patches >= room,
            self,
            "max_patches",
            f">= {room}, room for {self.large_patches} large_patches and their context",
        )
        check_field(self.kmeans_iterations >= 1, self, "kmeans_iterations", ">= 1")
