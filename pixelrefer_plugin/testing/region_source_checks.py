"""Checks of a region source. Each raises `AssertionError` and says what is wrong.

They ask about a picture and a video of noise: what the masks look like is not judged.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from ..contracts.region_source import RegionSource, RegionSourceSpec
from ..errors import PixelReferError
from ..media.video import Video
from ..plugins import get_region_source
from ..regions.region import Region, VideoRegion
from .running import require_strict_config, run_check

_HW = (60, 90)
_FRAMES = (0, 3, 6, 9, 12)
_BOX, _CLICKS, _MASK = (
    Region.from_box((10, 10, 40, 30)),
    Region.from_points([(50, 20), (55, 24)]),
    Region.from_mask(np.pad(np.ones((20, 30), dtype=bool), ((5, 35), (50, 10)))),
)
_ON_PICTURE: Mapping[str, Sequence[Region]] = {
    "a box": [_BOX],
    "clicks": [_CLICKS],
    "a mask": [_MASK],
    "several objects": [_MASK, _CLICKS, _BOX, Region.from_polygon([5, 5, 70, 8, 40, 50])],
    "no object": [],
}
_ON_VIDEO: Mapping[str, Sequence[VideoRegion]] = {
    "a box": [VideoRegion({3: _BOX})],
    "clicks": [VideoRegion({12: _CLICKS})],
    "a mask": [VideoRegion({0: _MASK})],
    "an object shown twice": [VideoRegion({0: _BOX, 9: _CLICKS})],
    "several objects": [VideoRegion({6: _CLICKS}), VideoRegion({0: _BOX}), VideoRegion({12: _MASK})],
    "no object": [],
}


@dataclass(frozen=True, eq=False)
class SourceCase:
    """A region source and the options that it is checked with; its model is loaded once.

    Attributes:
        spec: the region source.
        options: of its config, such as a small checkpoint.
    """

    spec: RegionSourceSpec
    options: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def source(self) -> RegionSource:
        """The source, built."""
        return self.spec.build(self.spec.make_config(self.options))


def check_region_source(name: str, **options: Any) -> list[str]:
    """Run every check of a region source.

    Args:
        name: the region source, installed.
        options: of its config, such as `checkpoint` of a small model.

    Returns:
        The names of the checks, all passed.

    Raises:
        AssertionError: the first check that fails, and what is wrong.
    """
    case = SourceCase(get_region_source(name), options)
    return [run_check(check, case) for check in REGION_SOURCE_CHECKS]


def options_are_strict(case: SourceCase) -> None:
    """The config is a frozen dataclass whose defaults keep its own rules; unknown options are refused by name."""
    require_strict_config(case.spec)


def source_can_segment_and_track(case: SourceCase) -> None:
    """What `build` returns has the methods `segment` and `track`."""
    for method in ("segment", "track"):
        found = callable(getattr(case.source, method, None))
        assert found, f"{case.spec.name}: build returned a {type(case.source).__name__}, which has no method {method}"


def pictures_give_a_mask_for_each_prompt(case: SourceCase) -> None:
    """On a picture: as many come back as prompts were given, of any kind, several or none; each is a `Region` of the
    picture's size, or None."""
    for what, prompts in _ON_PICTURE.items():
        found = case.source.segment(_picture(), list(prompts))
        for number, region in enumerate(_one_each(found, prompts, f"{case.spec.name}: {what}: segment")):
            about = f"{case.spec.name}: {what}: segment, object {number}"
            assert region is None or isinstance(region, Region), f"{about}: {type(region).__name__}, expected a Region"
            _require_fitting(region, about)


def videos_give_masks_on_sampled_frames(case: SourceCase) -> None:
    """On a video: as many come back as prompts were given, of any kind, several or none; each is a `VideoRegion`, or
    None, on sampled frames only, with masks of their size."""
    for what, prompts in _ON_VIDEO.items():
        found = case.source.track(_video(), list(prompts))
        for number, region in enumerate(_one_each(found, prompts, f"{case.spec.name}: {what}: track")):
            about = f"{case.spec.name}: {what}: track, object {number}"
            kind = type(region).__name__
            assert region is None or isinstance(region, VideoRegion), f"{about}: {kind}, expected a VideoRegion"
            for frame, there in region.frames.items() if region is not None else ():
                assert frame in _FRAMES, f"{about}: frame {frame} is not one of the sampled frames {_FRAMES}"
                _require_fitting(there, f"{about}, frame {frame}")


def the_same_prompts_give_the_same_masks(case: SourceCase) -> None:
    """Asked again, it finds the same, on pictures and on videos."""
    for what, prompts in _ON_PICTURE.items():
        first, second = (list(case.source.segment(_picture(), list(prompts))) for _ in range(2))
        assert first == second, f"{case.spec.name}: {what}: segment finds other masks when it is asked again"
    for what, on_video in _ON_VIDEO.items():
        one, other = (list(case.source.track(_video(), list(on_video))) for _ in range(2))
        assert one == other, f"{case.spec.name}: {what}: track finds other masks when it is asked again"


def what_is_given_stays_as_it_is(case: SourceCase) -> None:
    """Pictures, frames and prompts are the same after a call as before."""
    picture, video = _picture(), _video()
    prompts, on_video = list(_ON_PICTURE["several objects"]), list(_ON_VIDEO["several objects"])
    before = copy.deepcopy((prompts, on_video))
    case.source.segment(picture, prompts)
    case.source.track(video, on_video)
    assert picture.tobytes() == _picture().tobytes(), f"{case.spec.name}: segment changes its picture"
    assert np.array_equal(video.frames_nhwc, _video().frames_nhwc), f"{case.spec.name}: track changes its frames"
    assert (prompts, on_video) == before, f"{case.spec.name}: the prompts are others after segment and track"


REGION_SOURCE_CHECKS: tuple[Callable[[SourceCase], None], ...] = (
    options_are_strict,
    source_can_segment_and_track,
    pictures_give_a_mask_for_each_prompt,
    videos_give_masks_on_sampled_frames,
    the_same_prompts_give_the_same_masks,
    what_is_given_stays_as_it_is,
)


def _picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*_HW, 3), dtype=np.uint8))


def _video() -> Video:
    frames = np.stack([np.asarray(_picture(frame)) for frame in _FRAMES])
    times_s = tuple(frame / 3 for frame in _FRAMES)
    return Video(frames, _FRAMES, times_s, num_source_frames=15, duration_s=5.0, name="Video of the kit")


def _one_each(found: Any, prompts: Sequence[Any], about: str) -> Sequence[Any]:
    is_list = isinstance(found, Sequence)
    assert is_list, f"{about} returned a {type(found).__name__}, expected a list of one region, or None, per prompt"
    assert len(found) == len(prompts), f"{about} returned {len(found)} regions for {len(prompts)} prompts"
    return found


def _require_fitting(region: Region | None, about: str) -> None:
    try:
        if region is not None:
            region.to_mask(_HW)
    except PixelReferError as error:
        raise AssertionError(f"{about}: its region does not fit its picture: {error}") from error
