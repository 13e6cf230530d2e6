"""The call of a backbone's own processor: rendered conversations and what they show become its native tensors.

It knows the rules that native processors have for texts, pictures and videos together; no regions.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature
from transformers.video_utils import VideoMetadata

from ..contracts.backbone import BackboneSpec
from ..errors import PluginError, PromptError, refusing, shown, text_of
from ..media.video import Video
from ..plugins import in_plugin, require_result
from .joining import joined_samples
from .native_options import with_area
from .sample import ReadSample
from .templates import render


class NativeProcessing:
    """Calls of one backbone's own processor.

    Args:
        native: that processor.
        backbone: the backbone's spec.
    """

    def __init__(self, native: Any, backbone: BackboneSpec) -> None:
        self._native = native
        self._backbone = backbone

    @property
    def mixes_media(self) -> bool:
        """Whether a batch may hold pictures and videos."""
        return self._backbone.mixes_media and self._token_of_both is None

    def inputs(
        self, samples: Sequence[ReadSample], options: Mapping[str, Any], *, add_generation_prompt: bool
    ) -> BatchFeature:
        """Run the backbone's own processor on the rendered conversations, padded on the right.

        Args:
            samples: the conversations.
            options: of the native processor.
            add_generation_prompt: whether an answer is asked for.

        Raises:
            PromptError: a template does not render a message, the backbone does not take what is shown together, or
                its processor refuses it.
        """
        asked = [each for sample in samples for each in sample.image_options]
        options = with_area(options, asked, self._native)
        texts = [
            render(self._native, sample.messages, add_generation_prompt=add_generation_prompt) for sample in samples
        ]
        self._require_one_medium(samples)
        if self._begun(texts):
            options["add_special_tokens"] = False
        lengths = {len(video) for sample in samples if sample.shows_media for video in sample.videos}
        if len(lengths) < 2 or not self._backbone.joins_samples:
            return self._call(samples, texts, options)
        alone = [self._call([sample], [text], options) for sample, text in zip(samples, texts, strict=True)]
        return joined_samples(alone, pad_token_id=self._native.tokenizer.pad_token_id)

    def _call(self, samples: Sequence[ReadSample], texts: Sequence[str], options: Mapping[str, Any]) -> BatchFeature:
        """One call of the backbone's own processor."""
        shown = [sample for sample in samples if sample.shows_media]
        media: dict[str, Any] = {}
        if any(sample.images for sample in shown):
            # One list for each text: some processors count the pictures of each.
            media["images"] = [sample.images if sample.shows_media else [] for sample in samples]
        if any(sample.videos for sample in shown):
            media |= self._native_videos([video for sample in shown for video in sample.videos], options)
        native = self._native_for(media)
        try:
            with refusing(PromptError, "The backbone's own processor refuses this batch", _lengths_note(shown)):
                own = {**options, **media}
                return native(text=list(texts), padding=True, padding_side="right", return_tensors="pt", **own)
        except MemoryError as error:
            raise PromptError(
                f"The backbone's own processor needs more memory than there is: {text_of(error) or 'MemoryError'}. "
                "Give fewer or smaller pictures, or check the sizes in its preprocessor_config.json."
            ) from error

    def _begun(self, texts: Sequence[str]) -> bool:
        """Whether the chat template writes the token that the tokenizer begins every text with, so that it would be
        there twice."""
        bos = self._native.tokenizer.bos_token
        return bos is not None and all(text.startswith(bos) for text in texts)

    def _long_enough(self, frames_nhwc: np.ndarray) -> np.ndarray:
        """A video's frames, the last repeated until the native processor takes them."""
        least = 1 if self._backbone.videos is None else self._backbone.videos.least_frames
        missing = max(0, least - len(frames_nhwc))
        return np.concatenate([frames_nhwc, *[frames_nhwc[-1:]] * missing]) if missing else frames_nhwc

    def _native_videos(self, videos: Sequence[Video], options: Mapping[str, Any]) -> dict[str, Any]:
        """What the native processor is given of videos. They are sampled, and a frame three pixels high would pass for
        one with channels first."""
        if getattr(self._native, "video_processor", None) is None:
            raise PromptError(
                f"Backbone '{self._backbone.name}' takes no videos: its processor has none for them. Ask about a frame "
                "as an image, or take a backbone that takes videos."
            )
        frames = [self._long_enough(self._resized(video.frames_nhwc)) for video in videos]
        sampled = {"do_sample_frames": False, "input_data_format": "channels_last"}
        return {
            "videos": [np.require(each, requirements="W") for each in frames],  # as torch wants it
            "video_metadata": [_native_metadata(video) for video in videos],
            "videos_kwargs": {**options.get("videos_kwargs", {}), **sampled},
        }

    def _resized(self, frames_nhwc: np.ndarray) -> np.ndarray:
        """A video's frames as the native processor shall have them."""
        videos = self._backbone.videos
        if videos is None or videos.resize_frames is None:
            return frames_nhwc
        step = "videos.resize_frames"
        with in_plugin("backbone", self._backbone.name, step):
            resized = videos.resize_frames(self._native.video_processor, frames_nhwc)
            require_result("backbone", self._backbone.name, step, np.ndarray, resized)
            if resized.ndim != 4 or (len(resized), resized.shape[3]) != (len(frames_nhwc), frames_nhwc.shape[3]):
                raise PluginError(
                    f"Backbone '{self._backbone.name}' must return the frames it was given from {step}, "
                    f"{frames_nhwc.shape} resized, got {resized.shape}."
                )
        return resized

    @property
    def _token_of_both(self) -> str | None:
        """The token that stands for pictures and for videos alike, where the native processor has one."""
        image_token, video_token = (getattr(self._native, name, None) for name in ("image_token", "video_token"))
        return image_token if image_token == video_token else None

    def _require_one_medium(self, samples: Sequence[ReadSample]) -> None:
        showing = [sample for sample in samples if sample.shows_media]
        shows_both = any(each.images for each in showing) and any(each.videos for each in showing)
        if shows_both and not self.mixes_media:
            token = self._token_of_both
            why = (
                f"has one token, {shown(token)}, for pictures and videos here"
                if token
                else "does not mix pictures and videos"
            )
            raise PromptError(
                f"Backbone '{self._backbone.name}' {why}, so a batch may hold pictures or videos, got both. Put them "
                "in separate batches."
            )

    def _native_for(self, media: Mapping[str, Any]) -> Any:
        """The native processor; where one token stands for pictures and videos, told which of them it is."""
        token = self._token_of_both
        if token is None:
            return self._native
        native = copy.copy(self._native)
        native.video_token = token if "videos" in media else None
        native.image_token = token if "images" in media else None
        return native


def _lengths_note(samples: Sequence[ReadSample]) -> str:
    """What may be the matter where a backbone stacks its videos."""
    lengths = [len(video) for sample in samples for video in sample.videos]
    if len(set(lengths)) < 2:
        return ""
    return f" Its videos have {lengths} frames: some backbones take several only if all have as many."


def _native_metadata(video: Video) -> VideoMetadata:
    """What transformers knows of a video's time.

    It takes a frame's time to be its index over the frame rate, which is wrong where the rate varies: what it
    gets as indices are the true times in units of a frame.
    """
    return VideoMetadata(
        total_num_frames=video.num_source_frames,
        fps=video.fps,
        duration=video.duration_s,
        frames_indices=[time_s * video.fps for time_s in video.times_s],  # type: ignore[misc]
    )
