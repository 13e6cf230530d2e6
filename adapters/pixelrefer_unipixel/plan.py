"""What one region costs: a token for each click, one for a box, one for a mask on a frame; nothing to encode."""

from pixelrefer_plugin.authoring import PatchGeometry, Planner, PromptView, Region, RegionMask, RegionPlan, SceneView

from .config import UniPixelConfig


class UniPixelPlanner(Planner[UniPixelConfig]):
    """Clicks and boxes are prompts; whatever has pixels of its own is an object of the memory."""

    def plan(self, mask: RegionMask, geometry: PatchGeometry) -> RegionPlan:
        """One token of the object memory, read off the scene."""
        return RegionPlan(num_tokens=1, views=(SceneView(), None))

    def plan_drawn(self, region: Region) -> RegionPlan:
        """One token for each click, one for a box; neither reads the scene."""
        clicks = region.data[0] if region.kind == "points" else ()
        return RegionPlan(num_tokens=max(1, len(clicks)), views=(None, PromptView()))

    def list_heading(self, *, num_frames: int | None) -> str:
        """In the words that the released weights were trained with."""
        if num_frames is None:
            return "Here is an image with the following highlighted regions:\n"
        return (
            f"Here is a video with {num_frames} frames denoted as <1> to <{num_frames}>. "
            "The highlighted regions are as follows:\n"
        )
