"""What OCI has the tower encode for one region: its crop as SAOT plans it, what surrounds it, the whole image."""

from collections.abc import Sequence
from dataclasses import replace

from pixelrefer_saot.plan import plan as plan_object

from pixelrefer_plugin.authoring import CropView, PatchGeometry, Planner, RegionMask, RegionPlan

from .config import OciConfig


class OciPlanner(Planner[OciConfig]):
    """The crops that the infusion reads, and what stands before a frame's tokens."""

    def plan(self, mask: RegionMask, geometry: PatchGeometry) -> RegionPlan:
        return plan(self.config, mask, geometry)

    def together(self, plans: Sequence[RegionPlan]) -> Sequence[RegionPlan]:
        return share_local_crop(self.config, plans)

    def frame_label(self, time_s: float) -> str:
        return self.config.label_of_frame(time_s)


def plan(config: OciConfig, mask: RegionMask, geometry: PatchGeometry) -> RegionPlan:
    """SAOT's crop and tokens, then `LocalCrop` and the raw image, both resized to squares (PixelRefer Algorithm 1).

    The local crop is the object's box with SAOT's context. Regions of one image ask for the same global crop,
    which the host has encoded once.
    """
    of_object = plan_object(config, mask, geometry)
    (crop,) = of_object.views
    assert isinstance(crop, CropView), "SAOT asks for a crop"
    height, width = mask.image_hw
    resample = config.context_resample
    context_views = {
        "local": CropView(crop.box_xyxy, _square_hw(config.local_px, geometry), resample=resample),
        "global": CropView((0, 0, width, height), _square_hw(config.global_px, geometry), resample=resample),
    }
    return RegionPlan(of_object.num_tokens, (crop, *(context_views[name] for name in config.contexts)))


def share_local_crop(config: OciConfig, plans: Sequence[RegionPlan]) -> Sequence[RegionPlan]:
    """The plans of one picture's regions, all with the first one's local crop where the config says so.

    PixelRefer-Lite's code keeps the local crop per picture, not per object (`pixelreferlite/mm_utils.py`,
    `resize_image_mask`), and so its weights were trained.
    """
    if not config.share_local_crop or "local" not in config.contexts:
        return plans
    at = 1 + config.contexts.index("local")
    shared = plans[0].views[at]
    return [replace(plan, views=(*plan.views[:at], shared, *plan.views[at + 1 :])) for plan in plans]


def _square_hw(side_px: int, geometry: PatchGeometry) -> tuple[int, int]:
    side = geometry.whole_patches(side_px)
    return (side, side)
