"""What mask pooling may be told (nothing), and what one region costs: one token, no extra encoding."""

from dataclasses import dataclass

from pixelrefer_plugin import PatchGeometry, RegionMask, RegionPlan, SceneView


@dataclass(frozen=True)
class MaskPoolConfig:
    """Mask pooling has no options."""


def plan(config: MaskPoolConfig, mask: RegionMask, geometry: PatchGeometry) -> RegionPlan:
    """One token per region, read off the scene's own patches."""
    return RegionPlan(num_tokens=1, views=(SceneView(),))
