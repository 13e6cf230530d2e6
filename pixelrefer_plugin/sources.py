"""The door to region sources: loads one by name and checks what goes in and comes out, the same for all.

It knows prompts, pictures and sampled frames; no model. Errors name the object by its place among the prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .errors import Place, PluginError, RegionError, SourceError, placed
from .media.images import load_image
from .media.video import Video
from .plugins import get_region_source, in_plugin
from .regions.region import Region, VideoRegion

if TYPE_CHECKING:
    from PIL import Image

    from .contracts.region_source import RegionSource


_MOST_TRACKED = 1000


def load_region_source(name: str, **options: Any) -> CheckedSource:
    """A region source, its model loaded: it finds the masks of objects from boxes, clicks or rough masks.

        source = load_region_source("NAME")
        [cat] = source.segment(image, [Region.from_points([(120, 80)])])
        [cat] = source.track(video, [VideoRegion({0: Region.from_box((90, 60, 180, 140))})])

    `segment` and `track` return one region per prompt, in order, on the prompt's own image or video. Before
    the model runs they refuse a prompt that lies outside its picture, or on a frame that is not sampled.

    Args:
        name: the region source, as `pixelrefer plugins` lists it.
        options: of its config.

    Raises:
        PluginError: no region source is called so, or its code fails; from `segment` and `track` also: it has no such
            method.
        PixelReferError: an unknown option, or a value that breaks a rule.
        SourceError: it is not installed or its model cannot be loaded; from `segment` and `track`: an object
            is found nowhere.
    """
    spec = get_region_source(name)
    with in_plugin("region source", spec.name, "config"):
        config = spec.make_config(options)
    with in_plugin("region source", spec.name, "build"):
        source = spec.build(config)
        _require_methods(source, spec.name)
    return CheckedSource(spec.name, source)


def _require_methods(source: Any, name: str) -> None:
    for method in ("segment", "track"):
        if not callable(getattr(source, method, None)):
            raise PluginError(
                f"Region source '{name}' must build something with the methods segment and track, got a "
                f"{type(source).__name__} without {method}. Report it to the plugin's author."
            )


class CheckedSource:
    """A region source behind the checks that all of them share: an object that is found nowhere is an error."""

    def __init__(self, name: str, source: RegionSource) -> None:
        self._name = name
        self._source = source

    def segment(self, image: Image.Image, prompts: Sequence[Region]) -> list[Region]:
        """The mask of each prompt on one picture, in order."""
        _require_list(prompts)
        image = load_image(image)
        image_hw = (image.height, image.width)
        for index, prompt in enumerate(prompts):
            with placed(**_object(index)):
                _require_type(prompt, Region, "segment reads a picture; for a VideoRegion use track")
                prompt.require_on(image_hw)
        if not prompts:
            return []
        with in_plugin("region source", self._name, "segment"):
            found = self._one_each(self._source.segment(image, prompts), prompts, Region, where="on the image")
            for index, region in enumerate(found):
                self._require_size(index, region, image_hw)
        return [region.on_image(prompt.image_index) for region, prompt in zip(found, prompts, strict=True)]

    def track(self, video: Video, prompts: Sequence[VideoRegion | Mapping[int, Region]]) -> list[VideoRegion]:
        """The mask of each prompt on the sampled frames where it is seen, in order."""
        _require_list(prompts)
        _require_type(video, Video, "track reads sampled frames: load_video(path)")
        if len(prompts) > _MOST_TRACKED:
            raise SourceError(
                f"track follows {_MOST_TRACKED} objects at once at most, whose masks it keeps for all frames, got "
                f"{len(prompts)}. Ask for them in parts."
            )
        objects = [_on_frames(prompt, video, index) for index, prompt in enumerate(prompts)]
        if not objects:
            return []
        with in_plugin("region source", self._name, "track"):
            tracked = self._source.track(video, objects)
            found = self._one_each(tracked, objects, VideoRegion, where="on any sampled frame")
            for index, region in enumerate(found):
                strays = sorted(set(region.frames) - set(video.frame_indices))
                if strays:
                    raise self._broken(index, f"must return sampled frames only, got frame {strays[0]}")
                self._require_size(index, region, video.image_hw)
        return [region.on_video(each.video_index) for region, each in zip(found, objects, strict=True)]

    def _one_each(self, found: Any, prompts: Sequence[Any], wanted: type, *, where: str) -> Sequence[Any]:
        """What the source returned, checked to be one region for each prompt."""
        if not isinstance(found, Sequence) or len(found) != len(prompts):
            got = len(found) if isinstance(found, Sequence) else f"a {type(found).__name__}"
            raise SourceError(
                f"Region source '{self._name}' must return a list of one region per prompt, {len(prompts)}, got {got}."
            )
        for index, region in enumerate(found):
            if region is None:
                raise SourceError(
                    f"region source '{self._name}' finds it nowhere {where}. Move the box or clicks, add clicks, or "
                    "use the region as it is."
                ).set_place(**_object(index))
            if not isinstance(region, wanted):
                raise self._broken(index, f"must return a {wanted.__name__} or None, got {type(region).__name__}")
        return found

    def _require_size(self, index: int, region: Region | VideoRegion, image_hw: tuple[int, int]) -> None:
        try:
            region.require_on(image_hw)
        except RegionError as error:
            raise self._broken(index, f"returned a region that does not fit its picture: {error}") from error

    def _broken(self, index: int, what: str) -> SourceError:
        return SourceError(
            f"region source '{self._name}' {what.rstrip('.')}. Report it to the plugin's author."
        ).set_place(**_object(index))


def _object(index: int) -> Place:
    """What errors call the object of a prompt."""
    return Place(region=index, subject=f"object {index}")


def _on_frames(prompt: Any, video: Video, index: int) -> VideoRegion:
    """A prompt, checked to lie on sampled frames."""
    with placed(**_object(index)):
        region = VideoRegion(prompt) if isinstance(prompt, Mapping) else prompt
        _require_type(region, VideoRegion, "track needs to know the frame: {frame index: region}")
        for frame in region.frames:
            video.position(frame)
        region.require_on(video.image_hw)
        return region


def _require_list(prompts: Any) -> None:
    if not isinstance(prompts, Sequence) or isinstance(prompts, str | bytes):
        raise SourceError(f"prompts must be a list, one for each object, got {type(prompts).__name__}.")


def _require_type(value: Any, wanted: type, hint: str) -> None:
    if not isinstance(value, wanted):
        raise SourceError(f"expected a {wanted.__name__}, got {type(value).__name__}. Note that {hint}.")
