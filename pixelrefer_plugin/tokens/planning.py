"""Plans the regions of conversations: asks the adapter about each, picture by picture, and checks what it answers.

It knows regions, plans and patches; no text, no pixels and no model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..contracts.adapter import AdapterSpec, Planner
from ..contracts.views import PatchGeometry, RegionPlan
from ..conversation.sample import ReadSample, WrittenRegion
from ..errors import PluginError, placed, shown
from ..plugins import in_plugin
from ..regions.mask import RegionMask
from ..regions.region import Region
from .layouts import PlannedRegion


@dataclass(frozen=True)
class RegionPlanning:
    """Has one adapter plan the regions of batches.

    Attributes:
        adapter: that adapter.
        planner: made for its options.
        geometry: the backbone's patches.
        backbone: the backbone plugin's name.
    """

    adapter: AdapterSpec
    planner: Planner[Any]
    geometry: PatchGeometry
    backbone: str

    def plan(self, samples: Sequence[ReadSample]) -> list[list[list[PlannedRegion]]]:
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
            with placed(sample=index):
                alone = [[self._plan_region(each) for each in of_region] for of_region in places]
                planned.append(self._plan_together(alone, places))
            first_image += len(sample.images)
            first_frame += sum(map(len, sample.videos))
        self._require_alike([region.plan for sample in planned for frames in sample for region in frames])
        return planned

    def _require_alike(self, plans: Sequence[RegionPlan]) -> None:
        """All regions of a batch are laid out view by view, so their plans must have the same views, or none."""
        listed = list(dict.fromkeys(plan.view_kinds for plan in plans))
        alike = len(set(map(len, listed))) < 2 and all(
            len(set(kinds) - {None}) < 2 for kinds in zip(*listed, strict=True)
        )
        if not alike:
            raise PluginError(
                f"Adapter '{self.adapter.name}' must plan the same kinds of views for every region, or None in place "
                f"of one, got {' and '.join(map(str, listed))}."
            )

    def _plan_region(self, at: _Placed) -> PlannedRegion:
        with placed(**at.written.place):
            drawn = next(iter(at.shapes.values())) if at.written.is_drawn else None
            mask = _mask(at) if drawn is None else None
            with placed(frame=at.frame):
                plan = self._ask(mask, drawn, at.image_hw)
            views = [view for view in plan.views if view is not None]
            if mask is None and any(view.reads_pixels for view in views):
                mask = _mask(at)
        return PlannedRegion(
            mask=mask if any(view.reads_scene for view in views) else None,
            box_xyxy=None if mask is None else mask.box_xyxy,
            plan=plan,
            picture=at.picture,
            drawn=drawn,
            frame_position=at.frame_position,
            num_frames=at.num_frames,
            number=at.written.number,
        )

    def _ask(self, mask: RegionMask | None, drawn: Region | None, image_hw: tuple[int, int]) -> RegionPlan:
        if drawn is not None:
            drawn.require_on(image_hw)
            with in_plugin("adapter", self.adapter.name, "plan_drawn"):
                return self._allowed(self.planner.plan_drawn(drawn), image_hw)
        assert mask is not None, "a region that is not read as it was drawn has a mask"
        with in_plugin("adapter", self.adapter.name, "plan"):
            return self._allowed(self.planner.plan(mask, self.geometry), image_hw)

    def _plan_together(
        self, alone: list[list[PlannedRegion]], at: Sequence[Sequence[_Placed]]
    ) -> list[list[PlannedRegion]]:
        """Plans of one conversation's regions that may depend on each other, picture by picture."""
        planned = [list(of_region) for of_region in alone]
        on_picture: dict[int, list[tuple[int, int]]] = {}
        for number, of_region in enumerate(alone):
            for frame, region in enumerate(of_region):
                on_picture.setdefault(region.picture, []).append((number, frame))
        for places in on_picture.values():
            given = [alone[number][frame].plan for number, frame in places]
            for (number, frame), plan in zip(places, self._together(given), strict=True):
                if plan is not alone[number][frame].plan:
                    with placed(**at[number][frame].written.place), in_plugin("adapter", self.adapter.name, "together"):
                        plan = self._allowed(plan, at[number][frame].image_hw)
                    planned[number][frame] = replace(alone[number][frame], plan=plan)
        return planned

    def _together(self, given: Sequence[RegionPlan]) -> Sequence[RegionPlan]:
        with in_plugin("adapter", self.adapter.name, "together"):
            plans = self.planner.together(given)
            if not isinstance(plans, Sequence) or len(plans) != len(given):
                got = len(plans) if isinstance(plans, Sequence) else repr(plans)
                raise PluginError(
                    f"Adapter '{self.adapter.name}' must return as many plans from Planner.together as it was given, "
                    f"{len(given)}, got {got}."
                )
        return plans

    def _allowed(self, plan: Any, image_hw: tuple[int, int]) -> RegionPlan:
        """The plan, unless it is one that an adapter must not make; the error is its author's to read."""
        name = f"Adapter '{self.adapter.name}'"
        if not isinstance(plan, RegionPlan):
            raise PluginError(f"{name} must plan a RegionPlan, got {shown(plan)}.")
        for view in plan.views:
            if view is None:
                continue
            reason = view.refusal(self.geometry, image_hw, framework=self.adapter.framework, backbone=self.backbone)
            if reason:
                raise PluginError(f"{name} asks for {reason}")
        return plan


def _mask(at: _Placed) -> RegionMask:
    """A region's pixels on one picture, those of frames that are planned together in one."""
    masks = []
    for frame, region in at.shapes.items():
        with placed(frame=frame):
            masks.append(region.to_mask(at.image_hw))
    return RegionMask.union(masks)


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


def _place(sample: ReadSample, first_image: int, first_frame: int) -> Iterator[list[_Placed]]:
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
