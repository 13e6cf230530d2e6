"""What one region costs: a token for each click, one for a box, one for a mask on a frame; nothing to encode."""

from pixelrefer_plugin import PatchGeometry, PromptView, Region, RegionMask, RegionPlan, SceneView

from .config import UniPixelConfig

_VIEWS = (SceneView(), PromptView())


def plan(config: UniPixelConfig, mask: RegionMask, geometry: PatchGeometry) -> RegionPlan:
    """One token of the object memory."""
    return RegionPlan(num_tokens=1, views=_VIEWS)


def plan_drawn(config: UniPixelConfig, region: Region) -> RegionPlan | None:
    """One token for each click and one for a box; None for whatever has pixels of its own, an object of the memory."""
    if region.kind == "points":
        clicks, _radius_px = region.data
        return RegionPlan(num_tokens=len(clicks), views=_VIEWS)
    if region.kind == "box":
        return RegionPlan(num_tokens=1, views=_VIEWS)
    return None
