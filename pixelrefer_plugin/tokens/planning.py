"""Plans the regions of conversations: asks the adapter about each, picture by picture, and checks what it answers.

It knows regions, plans and patches; no text, no pixels and no model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..contracts.adapter import AdapterSpec
from ..contracts.backbone import BackboneSpec
from ..contracts.views import CropView, PatchGeometry, RegionPlan, SceneView
from ..conversation.sample import Sample, WrittenRegion
from ..errors import PluginError, placed
from ..regions.mask import RegionMask
from ..regions.region import Region
from .layouts import PlannedRegion


@dataclass(frozen=True)
class Planner:
    """Asks one adapter for plans.

    Attributes:
        adapter: that adapter.
        config: its options.
        backbone: what its plans are for.
        geometry: that backbone's patches.
    """

    adapter: AdapterSpec
    config: Any
    backbone: BackboneSpec
    geometry: PatchGeometry

    def plan(self, samples: Sequence[Sample]) -> list[list[list[PlannedRegion]]]:
        """Per sample and region, in the order of their placeholders, the plan of each picture that it lies on.

        Raises:
            RegionError: a region that does not fit its picture; the message names sample and region.
            PluginError: a plan that the adapter must not make.
        """
        first_image = 0
        first_frame = sum(len(sample.images) for sample in samples)  # frames come after all images
        planned = []
        for index, sample in enumerate(samples):
            places = list(_place(sample, first_image, first_frame))
            alone = [[self._plan_region(each, index) for each in of_region] for of_region in places]
            with placed(sample=index):
                planned.append(self._plan_together(alone, places))
            first_image += len(sample.images)
            first_frame += sum(map(len, sample.videos))
        self._require_one_kind(planned)
        return planned

    def _require_one_kind(self, planned: Sequence[Sequence[Sequence[PlannedRegion]]]) -> None:
        """All regions of a batch are laid out view by view, so their plans must have the same views."""
        kinds = {region.plan.view_kinds for sample in planned for frames in sample for region in frames}
        if len(kinds) > 1:
            listed = " and ".join(str(each) for each in sorted(kinds))
            raise PluginError(
                f"Adapter '{self.adapter.name}' must plan the same kinds of views for every region, got {listed}."
            )

    def _plan_region(self, drawn_at: _Placed, sample: int) -> PlannedRegion:
        masks = []
        for frame, region in drawn_at.shapes.items():
            with placed(**drawn_at.written.place), placed(sample=sample, frame=frame):
                masks.append(region.to_mask(drawn_at.image_hw))
        mask = RegionMask.union(masks)
        drawn = next(iter(drawn_at.shapes.values())) if drawn_at.written.is_drawn else None
        with placed(**drawn_at.written.place), placed(sample=sample, frame=drawn_at.frame):
            plan = self._ask(mask, drawn)
            self._require_allowed(plan, drawn_at.image_hw)
        reads_scene = any(isinstance(view, SceneView) for view in plan.views)
        return PlannedRegion(
            mask=mask if reads_scene else None,
            plan=plan,
            picture=drawn_at.picture,
            drawn=drawn,
            frame_position=drawn_at.frame_position,
            num_frames=drawn_at.num_frames,
            number=drawn_at.written.number,
        )

    def _ask(self, mask: RegionMask, drawn: Region | None) -> Any:
        if drawn is None:
            return self.adapter.plan(self.config, mask, self.geometry)
        assert self.adapter.plan_drawn is not None, "nothing is read as it was drawn without it"
        return self.adapter.plan_drawn(self.config, drawn)

    def _plan_together(
        self, alone: list[list[PlannedRegion]], drawn_at: Sequence[Sequence[_Placed]]
    ) -> list[list[PlannedRegion]]:
        """Plans of one conversation's regions that depend on each other, picture by picture."""
        together = self.adapter.plan_together
        if together is None:
            return alone
        planned = [list(of_region) for of_region in alone]
        on_picture: dict[int, list[tuple[int, int]]] = {}
        for number, of_region in enumerate(alone):
            for at, region in enumerate(of_region):
                on_picture.setdefault(region.picture, []).append((number, at))
        for places in on_picture.values():
            plans = together(self.config, [alone[number][at].plan for number, at in places])
            if not isinstance(plans, Sequence) or len(plans) != len(places):
                got = len(plans) if isinstance(plans, Sequence) else repr(plans)
                raise PluginError(
                    f"Adapter '{self.adapter.name}' must return as many plans from plan_together as it was given, "
                    f"{len(places)}, got {got}."
                )
            for (number, at), plan in zip(places, plans, strict=True):
                with placed(**drawn_at[number][at].written.place):
                    self._require_allowed(plan, drawn_at[number][at].image_hw)
                planned[number][at] = replace(alone[number][at], plan=plan)
        return planned

    def _require_allowed(self, plan: Any, image_hw: tuple[int, int]) -> None:
        """Refuse a plan that an adapter must not make; the error is its author's to read."""
        name = f"Adapter '{self.adapter.name}'"
        if not isinstance(plan, RegionPlan):
            raise PluginError(f"{name} must plan a RegionPlan, got {plan!r}.")
        for view in plan.views:
            if isinstance(view, CropView):
                self._require_allowed_crop(view, image_hw, name)
            elif isinstance(view, SceneView) and self.adapter.framework == "object-only":
                raise PluginError(
                    f"{name} is Object-Only but asks for a SceneView: the backbone's own image path is not run. Its "
                    "plan should ask for crops."
                )

    def _require_allowed_crop(self, crop: CropView, image_hw: tuple[int, int], name: str) -> None:
        if self.adapter.reads_merged:
            raise PluginError(
                f"{name} reads the grid of the decoder's scene tokens (AdapterSpec.reads_merged), but asks for a crop, "
                "whose features would be of another width. Its plan should ask for a SceneView."
            )
        multiple = self.geometry.grid_multiple
        if min(crop.grid_hw) < 1 or any(side < 1 or side % multiple for side in crop.tower_hw):
            raise PluginError(
                f"{name} asks for a crop of {crop.tower_hw[0]}x{crop.tower_hw[1]} patches, but "
                f"backbone '{self.backbone.name}' takes multiples of {multiple}. "
                "Its plan should size crops with geometry.whole_patches()."
            )
        x0, y0, x1, y1 = crop.box_xyxy
        if not (0 <= x0 < x1 <= image_hw[1] and 0 <= y0 < y1 <= image_hw[0]):
            raise PluginError(
                f"{name} asks for the crop {tuple(crop.box_xyxy)}, which is not inside its picture of width "
                f"{image_hw[1]} and height {image_hw[0]}."
            )


@dataclass(frozen=True, eq=False)
class _Placed:
    """A region on one picture of the batch.

    Attributes:
        written: that region.
        shapes: what is planned together there, by frame; `{None: ...}` on an image.
        image_hw: the picture's size.
        picture: the picture's index; of several frames the first one's.
        frame_position: which of the sampled frames of its video that is; 0 on an image.
        num_frames: how many of that are sampled; 1 for an image.
    """

    written: WrittenRegion
    shapes: Mapping[int | None, Region]
    image_hw: tuple[int, int]
    picture: int
    frame_position: int = 0
    num_frames: int = 1

    @property
    def frame(self) -> int | None:
        """Which frame of a video it is, the first of several; None on an image."""
        return next(iter(self.shapes))


def _place(sample: Sample, first_image: int, first_frame: int) -> Iterator[list[_Placed]]:
    """Each region of a sample on its picture, or on those of its frames."""
    first_of_video = [first_frame, *(first_frame + np.cumsum([len(video) for video in sample.videos]))]
    for written in sample.regions:
        region = written.region
        if isinstance(region, Region):
            width, height = sample.images[region.image_index].size
            yield [_Placed(written, {None: region}, (height, width), first_image + region.image_index)]
        else:
            video, first = sample.videos[region.video_index], int(first_of_video[region.video_index])
            yield [
                _Placed(
                    written,
                    {frame: region.frames[frame] for frame in frames},
                    video.image_hw,
                    first + video.position(frames[0]),
                    frame_position=video.position(frames[0]),
                    num_frames=len(video),
                )
                for frames in written.frames
            ]
