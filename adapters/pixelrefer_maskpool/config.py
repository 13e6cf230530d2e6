"""What mask pooling may be told (nothing), and what one region costs: one token, no extra encoding."""

from dataclasses import dataclass

from pixelrefer_plugin.authoring import PatchGeometry, Planner, RegionMask, RegionPlan, SceneView


@dataclass(frozen=True)
class MaskPoolConfig:
    """Mask pooling has no options."""


class MaskPoolPlanner(Planner[MaskPoolConfig]):
    """One token per region, read off the scene's own patches."""

    def plan(self, mask: RegionMask, geometry: PatchGeometry) -> RegionPlan:
        return RegionPlan(num_tokens=1, views=(SceneView(),))
