"""What a region costs: a token for each cell of a fixed grid, read off the tiles of the backbone's own pass."""

from dataclasses import dataclass

from pixelrefer_plugin.authoring import PatchGeometry, Planner, RegionMask, RegionPlan, SceneView, check_field


@dataclass(frozen=True)
class ReplayConfig:
    """`side`: rows and columns of the grid that a region's box is resampled to."""

    side: int = 4

    def __post_init__(self) -> None:
        check_field(isinstance(self.side, int) and 1 <= self.side <= 16, self, "side", "an integer in 1..16")


class ReplayPlanner(Planner[ReplayConfig]):
    def plan(self, mask: RegionMask, geometry: PatchGeometry) -> RegionPlan:
        return RegionPlan(num_tokens=self.config.side**2, views=(SceneView(tiled=True),))
