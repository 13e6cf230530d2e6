"""Config, planner and module of `croppool`. Knows features and masks; knows no backbone."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pixelrefer_plugin.authoring import (
    AdapterModule,
    CropView,
    EncodedView,
    PatchGeometry,
    Planner,
    RegionMask,
    RegionPlan,
    Shapes,
    check_field,
)

TOKENS_PER_REGION = 2


@dataclass(frozen=True)
class CropPoolConfig:
    """Options of croppool.

    Attributes:
        side_patches: rows and columns of the crop, in patches; rounded to what the backbone's tower allows.
        context: how much the crop shows around the region's box, as a share of the box's longer side.
    """

    side_patches: int = 8
    context: float = 0.25

    def __post_init__(self) -> None:
        check_field(1 <= self.side_patches <= 64, self, "side_patches", "in 1..64")
        check_field(self.context >= 0, self, "context", ">= 0")


class CropPoolPlanner(Planner[CropPoolConfig]):
    """One crop of the region's box with context, squeezed to a square grid; always two tokens."""

    def plan(self, mask: RegionMask, geometry: PatchGeometry) -> RegionPlan:
        x0, y0, x1, y1 = mask.box_xyxy
        height, width = mask.image_hw
        margin = math.ceil(self.config.context * max(x1 - x0, y1 - y0))
        box = (max(0, x0 - margin), max(0, y0 - margin), min(width, x1 + margin), min(height, y1 + margin))
        side = geometry.whole_patches(self.config.side_patches * geometry.patch_size)
        crop = CropView(box_xyxy=box, grid_hw=(side, side), mask=mask.coverage(box, (side, side)))
        return RegionPlan(num_tokens=TOKENS_PER_REGION, views=(crop,))


class CropPool(AdapterModule):
    """The mean of the patches in the mask and the mean of the whole crop, each through one MLP."""

    def __init__(self, vision_width: int, decoder_width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(vision_width, decoder_width), nn.GELU(), nn.Linear(decoder_width, decoder_width)
        )

    @classmethod
    def build(cls, config: CropPoolConfig, shapes: Shapes) -> "CropPool":
        return cls(shapes.crop, shapes.decoder)

    def forward(self, views: tuple[EncodedView], counts: tuple[int, ...]) -> Tensor:
        """Returns `(sum(counts), D)`: both tokens of the first region, both of the second, ..."""
        (crops,) = views
        dtype = next(self.mlp.parameters()).dtype
        weights = crops.patch_weights / crops.totals(crops.patch_weights)[crops.region_of_patch]
        surroundings = [crops.grids[index].flatten(0, 1).mean(dim=0) for index in crops.grid_of_region]
        pooled = torch.stack([crops.pooled(weights, dtype=dtype), torch.stack(surroundings).to(dtype)], dim=1)
        return self.mlp(pooled).flatten(0, 1)  # from (R, 2, C)
