"""Checks of an adapter alone. Each raises `AssertionError` and says what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..contracts.adapter import AdapterSpec, Planner
from ..contracts.messages import MASK_MARKER, PLACEHOLDER, REGION_MARKER
from ..contracts.pointing import Pointer, Pointing
from ..contracts.views import CropView, PatchGeometry, RegionPlan
from ..conversation.pointer_calls import pointing_problem
from ..errors import PromptError
from ..media.video import Video
from ..regions.mask import RegionMask
from .pairs import awkward_masks, drawn_regions, pointed_media
from .running import require_strict_config

# That the tower is given for one crop. With a preset as many as image processors let one picture have: weights may have
# been trained so.
_MOST_PATCHES, _MOST_PATCHES_OF_PRESETS = 4096, 8192


def config_is_frozen_and_strict(spec: AdapterSpec) -> None:
    """The config is a frozen dataclass with defaults, and unknown options are refused by name."""
    require_strict_config(spec)


def presets_are_options(spec: AdapterSpec) -> None:
    """Every preset makes a config, also beside options of the user's, which then count."""
    for name, options in spec.presets.items():
        config = spec.make_config(name)
        assert config == spec.make_config({"preset": name}), f"{spec.name}: preset '{name}' makes two configs"
        usual = spec.make_config(None)
        for option in options:
            overridden = spec.make_config({**options, option: getattr(usual, option)})
            same = overridden == spec.make_config({"preset": name, option: getattr(usual, option)})
            assert same, f"{spec.name}: {option} beside preset '{name}' is not what counts"


def plan_is_pure_and_bounded(spec: AdapterSpec) -> None:
    """Planning twice gives the same, by default and with each preset; every mask gets a token or more and the same
    kinds of view, by default also a patch; crops keep to the grid, and the tower is given 4096 patches at most for
    one, with a preset 8192."""
    for preset in (None, *spec.presets):
        usual, most_patches = None, _MOST_PATCHES if preset is None else _MOST_PATCHES_OF_PRESETS
        for multiple in (1, 2):
            geometry = PatchGeometry(patch_size=14, grid_multiple=multiple)
            for mask in awkward_masks():
                first, second = (_planner(spec, preset).plan(mask, geometry) for _ in range(2))
                _check_same_plan(spec.name, first, second, "planned twice")
                usual = usual or first.view_kinds
                _check_plan(spec, first, mask=mask, usual=usual, multiple=multiple, most_patches=most_patches)
                masks = [view.mask for view in first.views if isinstance(view, CropView) and view.mask is not None]
                seen = preset is not None or all(each.any() for each in masks)
                assert seen, f"{spec.name}: a crop's mask has no patch inside the region, it is all zero"


def _check_plan(
    spec: AdapterSpec,
    plan: RegionPlan,
    *,
    mask: RegionMask,
    usual: tuple[str | None, ...],
    multiple: int,
    most_patches: int,
) -> None:
    kinds = plan.view_kinds
    reads_scene = any(view is not None and view.reads_scene for view in plan.views)
    hidden = spec.framework == "object-only" and reads_scene
    assert not hidden, f"{spec.name}: Object-Only, yet it asks for the scene, which is not run"
    assert kinds == usual, f"{spec.name}: views {kinds} for one mask, {usual} for another"
    for view in plan.views:
        if isinstance(view, CropView):
            _check_crop(spec.name, view, mask=mask, multiple=multiple, most_patches=most_patches)


def _check_same_plan(name: str, one: RegionPlan, other: RegionPlan, how: str) -> None:
    assert one.num_tokens == other.num_tokens, f"{name}: {how}, {one.num_tokens} tokens and {other.num_tokens}"
    for view, again in zip(one.views, other.views, strict=True):
        if isinstance(view, CropView) and isinstance(again, CropView):
            crops = [(each.box_xyxy, each.grid_hw, each.tower_hw, each.resample) for each in (view, again)]
            assert crops[0] == crops[1], f"{name}: {how}, the crops {crops[0]} and {crops[1]}"
            same = (view.mask is again.mask is None) or np.array_equal(np.asarray(view.mask), np.asarray(again.mask))
            assert same, f"{name}: {how}, two masks"


def _check_crop(name: str, crop: CropView, *, mask: RegionMask, multiple: int, most_patches: int) -> None:
    (x0, y0, x1, y1), (h, w), (height, width) = crop.box_xyxy, crop.tower_hw, mask.image_hw
    inside = 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
    assert inside, f"{name}: the crop {crop.box_xyxy} is not inside its image of {width}x{height} pixels"
    assert (h % multiple, w % multiple) == (0, 0), (
        f"{name}: a crop of {h}x{w} patches where the grid must be multiples of {multiple}; "
        "size it with geometry.whole_patches()"
    )
    assert h * w <= most_patches, f"{name}: a crop of {h}x{w} patches"


def drawn_regions_are_planned_purely(spec: AdapterSpec) -> None:
    """Where kinds are listed in `drawn`: a region of such a kind gets a plan, planning it twice gives the same, and its
    views are of the kinds that `plan` asks for, or none in their place, by default and with each preset."""
    geometry, mask = PatchGeometry(patch_size=14), awkward_masks()[0]
    for preset in (None, *spec.presets):
        usual = _planner(spec, preset).plan(mask, geometry).view_kinds
        for region in drawn_regions():
            if region.kind not in spec.drawn:
                continue
            first, second = (_planner(spec, preset).plan_drawn(region) for _ in range(2))
            _check_same_plan(spec.name, first, second, f"a region of kind '{region.kind}' planned twice")
            kinds = first.view_kinds
            alike = len(kinds) == len(usual) and all(
                None in pair or pair[0] == pair[1] for pair in zip(kinds, usual, strict=True)
            )
            assert alike, f"{spec.name}: views {kinds} for a drawn '{region.kind}', {usual} for a mask"


def plans_together_are_as_many(spec: AdapterSpec) -> None:
    """`Planner.together` gives back a plan for each it is given, the same ones each time, for one region as for
    several, by default and with each preset."""
    geometry = PatchGeometry(patch_size=14, grid_multiple=2)
    masks = [mask for mask in awkward_masks() if mask.image_hw == (90, 130)]
    for preset in (None, *spec.presets):
        planner = _planner(spec, preset)
        alone = [planner.plan(mask, geometry) for mask in masks]
        for plans in (alone[:1], alone, alone[::-1]):
            first, second = (list(planner.together(plans)) for _ in range(2))
            assert len(first) == len(plans), f"{spec.name}: {len(first)} plans for {len(plans)} regions"
            for one, other, given in zip(first, second, plans, strict=True):
                _check_same_plan(spec.name, one, other, "planned together twice")
                same = one.view_kinds == given.view_kinds
                assert same, f"{spec.name}: views {one.view_kinds} planned together, {given.view_kinds} alone"


def pointing_is_pure(spec: AdapterSpec) -> None:
    """Pointing twice at the same regions gives the same words and pictures, by default and with each preset, and leaves
    the picture as it was; each region has words, and a video shown in place of one has as many frames."""
    for preset in (None, *spec.presets):
        pointer = _pointer(spec, preset)
        for on, regions in pointed_media():
            before = _pixels(on.media)
            try:
                first, second = (pointer.point(on, regions) for _ in range(2))
            except PromptError:
                assert on.is_video or on.coordinates is None, f"{spec.name}: it cannot point at regions of an image"
                continue
            problem = pointing_problem(first, on, len(regions), (REGION_MARKER, MASK_MARKER, PLACEHOLDER))
            assert not problem, f"{spec.name} {problem}"
            assert first.words == second.words, f"{spec.name}: pointing twice, the words {first.words}, {second.words}"
            shown = [list(map(_pixels, _all_media(each))) for each in (first, second)]
            same = all(np.array_equal(one, other) for one, other in zip(*shown, strict=True))
            assert same, f"{spec.name}: pointing twice shows two pictures"
            assert np.array_equal(_pixels(on.media), before), f"{spec.name}: it draws on the picture that it is given"


def _pointer(spec: AdapterSpec, preset: str | None) -> Pointer[Any]:
    assert spec.pointer is not None, f"{spec.name}: it has no pointer"
    return spec.pointer(spec.make_config(preset))


def _all_media(pointing: Pointing) -> list[Any]:
    shown = (pointing.media, *pointing.beside)
    return [each for each in shown if each is not None and not isinstance(each, str)]


def _pixels(media: Any) -> np.ndarray:
    return media.frames_nhwc if isinstance(media, Video) else np.asarray(media)


def _planner(spec: AdapterSpec, preset: str | None) -> Planner[Any]:
    planner = spec.make_planner(spec.make_config(preset))
    assert planner is not None, f"{spec.name}: it has no planner"
    return planner


ADAPTER_CHECKS: tuple[Callable[[AdapterSpec], None], ...] = (
    config_is_frozen_and_strict,
    presets_are_options,
    plan_is_pure_and_bounded,
    drawn_regions_are_planned_purely,
    plans_together_are_as_many,
)
"""Of an adapter that makes object tokens."""

POINTER_CHECKS: tuple[Callable[[AdapterSpec], None], ...] = (
    config_is_frozen_and_strict,
    presets_are_options,
    pointing_is_pure,
)
"""Of an adapter that points in words and pictures."""
