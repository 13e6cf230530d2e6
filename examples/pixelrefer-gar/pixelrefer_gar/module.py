"""RoI-aligned feature replay (Grasp Any Region, arXiv:2510.18876): scene tokens resampled in a region's own box."""

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from pixelrefer_plugin.authoring import AdapterModule, EncodedView, Shapes

from .plan import ReplayConfig


class Replay(AdapterModule):
    """Scene tokens in each region's box, read again; a learnt vector marks those in its mask."""

    def __init__(self, side: int, width: int) -> None:
        super().__init__()
        self.side = side
        self.inside = nn.Parameter(torch.zeros(width))

    @classmethod
    def build(cls, config: ReplayConfig, shapes: Shapes) -> "Replay":
        return cls(config.side, shapes.scene)

    def forward(self, views: tuple[EncodedView], counts: tuple[int, ...]) -> Tensor:
        """`(sum(counts), D)`, row by row of each region's grid."""
        (scene,) = views
        tokens = []
        for region, grid in enumerate(scene.grid_of_region):
            features = scene.grids[grid].to(self.inside.dtype)  # (h, w, D)
            of_region = scene.region_of_patch == region
            mask = features.new_zeros(features.shape[:2])
            mask[scene.patch_ij[of_region].long().unbind(1)] = scene.patch_weights[of_region]
            marked = (features + mask[..., None] * self.inside).permute(2, 0, 1)[None]
            cells = roi_align(marked, [box_on_grid(scene, region, features)], self.side, sampling_ratio=2, aligned=True)
            tokens.append(cells[0].flatten(1).T)
        return torch.cat(tokens)


def box_on_grid(scene: EncodedView, region: int, features: Tensor) -> Tensor:
    """`(1, 4)`: the region's own box in cells of the grid that shows it."""
    corner, end = scene.boxes_xyxy[region].split(2)
    cells_per_px = torch.tensor(features.shape[1::-1]).to(corner) / (end - corner)
    return ((scene.region_boxes_xyxy[region] - corner.repeat(2)) * cells_per_px.repeat(2))[None]
