"""Asks a question in two passes: first for the masks of what it points at, then itself, with these at hand.

It knows `pixel_qa` and questions; no files and no scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...chat import pixel_qa
from ...contracts.questions import Answer, Question
from ...contracts.samples import RegionSample
from ...conversation.reading import media_source, named_frames, video_options
from ...errors import PromptError
from ...media.images import load_image
from ...media.video import FrameSampling, Video, load_video
from ...regions.region import VideoRegion

if TYPE_CHECKING:
    from PIL import Image

    from ...model import RegionModel
    from ...processor import RegionProcessor


def answer_localized(
    model: RegionModel,
    processor: RegionProcessor,
    question: Question,
    asked: RegionSample,
    options: Mapping[str, Any],
) -> Answer:
    """The answer of the second pass, with the masks of the first.

    Args:
        model: the model; its adapter must give masks.
        processor: its processor.
        question: the question; one message that shows one picture or video.
        asked: its sample, with the frames of its video where it is known which ones are needed.
        options: of the model's `generate`.

    Raises:
        PromptError: the question shows none or several, or is a conversation; or as `pixel_qa`.
    """
    media = _medium(asked, processor.sampling)
    found = pixel_qa(model, processor, media, question.text, asked.regions, **options)
    by_number = {each.id: each.region for each in found.objects}
    objects = tuple(by_number.get(number + 1) for number in range(len(asked.regions)))
    if isinstance(media, Video):
        image_hw, frames = media.image_hw, tuple(media.frame_indices)
    else:
        image_hw, frames = (media.height, media.width), ()
    return Answer(id=question.id, text=found.text, objects=objects, image_hw=image_hw, frames=frames)


def _medium(asked: RegionSample, sampling: FrameSampling) -> Image.Image | Video:
    images, videos = asked.media("image"), asked.media("video")
    if len(asked.messages) != 1 or len(images) + len(videos) != 1:
        raise PromptError(
            f"{asked.name}: it is asked in two passes, so it must be one message with one picture or video, got "
            f"{len(asked.messages)} messages and {len(images) + len(videos)} pictures and videos."
        )
    return load_image(images[0]["image"]) if images else _loaded(videos[0], asked.regions, sampling)


def _loaded(part: Mapping[str, Any], regions: Sequence[Any], sampling: FrameSampling) -> Video:
    if isinstance(part["video"], Video):
        return part["video"]
    source = media_source(part)
    sampling, times = video_options(part, source, sampling)
    pointed = [region for region in regions if isinstance(region, VideoRegion)]
    frames = named_frames(source, pointed, [], sampling=sampling, times=times)
    return load_video(source, sampling=sampling, frames=frames, **times)
