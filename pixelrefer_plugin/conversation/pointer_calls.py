"""Calls of an adapter's pointer: what it is told of the backbone's coordinates, and what it must not say.

It knows the contracts of adapters and backbones, and native processors' sizes; no conversation.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from ..contracts.backbone import BackboneSpec
from ..contracts.pointing import PointedMedium, PointedRegion, Pointer, Pointing, SaidCoordinates
from ..errors import PluginError, shown
from ..media.video import Video
from ..plugins import in_plugin, result_of
from .native_options import known_to, size_of_area
from .sample import PointingStyle

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, kw_only=True)
class PointerCalls:
    """Calls of one adapter's pointer for one backbone.

    Attributes:
        adapter: the adapter's name, for messages.
        pointer: its pointer.
        backbone: the backbone.
        native: the backbone's own processor.
        native_options: of the call that the batch is made with.
        reserved: markers and tokens that must not stand in what it says.
        noted: what has been logged; more is added.
    """

    adapter: str
    pointer: Pointer[Any]
    backbone: BackboneSpec
    native: Any
    native_options: Mapping[str, Any]
    reserved: Sequence[str]
    noted: set[str]

    @property
    def style(self) -> PointingStyle:
        """How conversations are told of them."""
        return PointingStyle(self.point, self.coordinates)

    def point(self, on: PointedMedium, regions: Sequence[PointedRegion]) -> Pointing:
        """What the pointer says of one image or video.

        Raises:
            PluginError: it is not what the contract asks for.
        """
        with in_plugin("adapter", self.adapter, "point"):
            pointing = self.pointer.point(on, regions)
            if problem := pointing_problem(pointing, on, len(regions), self.reserved):
                raise PluginError(f"Adapter '{self.adapter}' {problem}")
        for note in dict.fromkeys(pointing.notes):
            if note not in self.noted:
                self.noted.add(note)
                logger.warning("%s", note)
        return pointing

    def coordinates(self, media: Image.Image | Video, options: Mapping[str, int]) -> SaidCoordinates | None:
        """How the backbone is told coordinates on an image or video; None where no convention is known.

        Args:
            media: the image, or the video with its sampled frames.
            options: what an image's content part asks of the native processor.
        """
        convention = self.backbone.coordinates
        if convention is None:
            return None
        hw = media.image_hw if isinstance(media, Video) else (media.height, media.width)
        if convention.seen_hw is None:
            return SaidCoordinates(convention, hw, hw)
        of_video = isinstance(media, Video)
        kind, part = ("videos_kwargs", "video_processor") if of_video else ("images_kwargs", "image_processor")
        component = getattr(self.native, part, None)
        if component is None:  # it takes no videos, which is said of the whole batch
            return None
        given = {**self.native_options, **self.native_options.get(kind, {})}
        if options and {*options} <= known_to(self.native, "images_kwargs"):  # else refused with the whole batch
            given["size"] = size_of_area(options, self.native)
        count = len(media) if isinstance(media, Video) else None
        step = "coordinates.seen_hw"
        seen = result_of("backbone", self.backbone.name, step, tuple, convention.seen_hw, component, hw, count, given)
        if len(seen) != 2 or not all(isinstance(each, int) and each > 0 for each in seen):
            raise PluginError(
                f"Backbone '{self.backbone.name}' must return (height, width) in pixels from {step}, got {shown(seen)}."
            )
        return SaidCoordinates(convention, hw, seen)


def pointing_problem(pointing: Any, on: PointedMedium, num_regions: int, reserved: Sequence[str]) -> str:
    """What a pointer must not say, for a message that begins with the adapter's name; empty where it says none of it.

    Args:
        pointing: what it returned.
        on: the image or video.
        num_regions: how many regions it was given.
        reserved: markers and tokens that must not stand in a text.
    """
    if not isinstance(pointing, Pointing):
        return f"must return a Pointing from Pointer.point, got {shown(pointing)}."
    if len(pointing.words) != num_regions:
        return f"must return words for each of {num_regions} regions from Pointer.point, got {len(pointing.words)}."
    texts = [*pointing.words, *(each for each in pointing.beside if isinstance(each, str))]
    for text in texts:
        if not isinstance(text, str) or any(token in text for token in reserved):
            return f"must return text without markers and tokens of pictures from Pointer.point, got {shown(text)}."
    if other := next((each for each in pointing.beside if not isinstance(each, str | Image.Image | Video)), None):
        return f"may show texts, pictures and videos beside a picture, got {shown(other)}."
    if pointing.media is not None and not isinstance(pointing.media, type(on.media) if on.is_video else Image.Image):
        return f"must show {'a video' if on.is_video else 'a picture'} in place of one, got {shown(pointing.media)}."
    if isinstance(on.media, Video) and isinstance(pointing.media, Video) and len(pointing.media) != len(on.media):
        return f"must show a video of {len(on.media)} frames in place of one, got {shown(pointing.media)}."
    return ""
