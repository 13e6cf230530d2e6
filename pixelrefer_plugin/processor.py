"""`RegionProcessor`: chat messages, pictures and regions become one batch that a `RegionModel` takes.

The backbone's own Hugging Face processor does the chat template, the images and the videos. This one plans
the regions, and writes as many placeholders for each as its plan promises. It knows no model.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from transformers import AutoImageProcessor, BatchFeature
from transformers.video_utils import VideoMetadata

from . import checkpoint, hub
from .contracts import AdapterSpec, BackboneSpec, CropView, Framework, RegionPlan, SceneView
from .errors import CheckpointError, PluginError, PromptError, about
from .expansion import IGNORE_INDEX, Expansion
from .loading import load_native_processor
from .messages import PLACEHOLDER, Conversation, ImageReader, PromptStyle, Sample, read_conversation
from .plugins import backbone_for, get_adapter, get_backbone
from .region_batch import Picture, PlannedRegion, RegionBatch, VideoFrame, make_region_batch
from .regions import Region, RegionMask
from .scene import plan_scene
from .video import FrameSampling, Video


class RegionProcessor:
    """Turns conversations with regions into model inputs.

    Args:
        native: the backbone's own processor; it is copied, and the copy learns the placeholder token.
        config: the backbone's config.
        adapter: name of the adapter.
        adapter_config: its options: a mapping, the name of a preset, or its config object. The key `preset` of a
            mapping names a preset that the other options override.
        backbone_plugin: name of the backbone plugin; by default found by `config.model_type`.
        sampling: which frames of a video are read; by default 16, spread evenly.
        region_token: a token that the tokenizer has for object tokens already, such as the official checkpoints'
            `<REGION>`; its id is written for each. By default a token of our own is added.

    Raises:
        PromptError: the tokenizer does not have `region_token` as a token of its own.
    """

    def __init__(
        self,
        native: Any,
        config: Any,
        *,
        adapter: str = "saot",
        adapter_config: Mapping[str, Any] | str | Any | None = None,
        backbone_plugin: str | None = None,
        sampling: FrameSampling | None = None,
        region_token: str | None = None,
    ) -> None:
        self.sampling = _checked_sampling(sampling) or FrameSampling()
        self.native = copy.deepcopy(native)
        self.tokenizer = self.native.tokenizer
        self.region_token = region_token
        if region_token is None:
            ours = {"extra_special_tokens": [PLACEHOLDER]}
            self.tokenizer.add_special_tokens(ours, replace_extra_special_tokens=False)
        else:
            self._require_region_token(region_token)
        self._placeholder = region_token or PLACEHOLDER
        self.placeholder_id: int = self.tokenizer.convert_tokens_to_ids(self._placeholder)
        self._config = config
        self._backbone: BackboneSpec = backbone_for(config.model_type, backbone_plugin)
        self._adapter: AdapterSpec = get_adapter(adapter)
        self._adapter_config = self._adapter.make_config(adapter_config)
        self._geometry = self._backbone.geometry(config)

    def __call__(
        self,
        conversations: Conversation | Sequence[Conversation],
        regions: Sequence[Any] | None = None,
        *,
        labels: bool = False,
        sampling: FrameSampling | None = None,
        padding_side: str | None = None,
        **native_options: Any,
    ) -> BatchFeature:
        """Prepare one conversation or a batch of them.

        Args:
            conversations: messages `{"role": ..., "content": ...}`; content is text, or parts
                `{"type": "text", "text": ...}`, `{"type": "image", "image": path, picture or array}`,
                `{"type": "video", "video": path, folder of frames, array or Video}`, the latter with `fps` or
                `times_s` where the frames alone do not tell. `<region>` in a text stands for the next region.
            regions: the regions of the conversation in the order of their `<region>`s, or one such list per
                conversation: a `Region` on an image, a `VideoRegion` or `{frame index: Region}` on a video.
                `image_index` and `video_index` count the images and the videos of their own conversation.
                With an Object-Only adapter, regions take the place of the pictures they lie on.
            labels: add `labels` for training: the answers of the assistant and the token that ends each,
                everything else -100. Otherwise a prompt for generation is made.
            sampling: which frames of videos are read, in place of the processor's own rule. Frames that
                regions name are always among them.
            padding_side: by default `right` with labels and `left` without, as generation needs.
            **native_options: options of the backbone's own processor.

        Returns:
            The native tensors, plus `regions` (a `RegionBatch`) when the batch has any.

        Raises:
            PromptError: more or fewer `<region>` than regions, a region on an image that is not there, a
                special token in a text, or a template that does not render a message.
            RegionError: a region that does not fit its image; the message names sample and region.
            ImageError: a picture that cannot be read.
            VideoError: a video that cannot be read, or a frame that it does not have.
        """
        if not isinstance(conversations, Sequence) or isinstance(conversations, str):
            raise PromptError(f"Expected a list of messages or of conversations, got {conversations!r}.")
        if padding_side not in (None, "left", "right"):
            raise PromptError(f"padding_side must be 'left' or 'right', got {padding_side!r}.")
        single = bool(conversations) and isinstance(conversations[0], Mapping)
        batch: Sequence[Any] = [conversations] if single else conversations
        if not batch:
            raise PromptError("Expected a conversation or a list of conversations, got none.")
        region_lists = [regions or []] if single else (regions or [[] for _ in batch])
        if not all(isinstance(each, Sequence) for each in (region_lists, *region_lists)):
            raise PromptError("Expected a list of regions for one conversation, and a list of such lists for a batch.")
        if len(region_lists) != len(batch):
            raise PromptError(f"Got {len(batch)} conversations but {len(region_lists)} lists of regions.")
        style = PromptStyle(
            object_only=self._adapter.framework == "object-only",
            special_tokens=(self._placeholder, *self._media_tokens),
            sampling=_checked_sampling(sampling) or self.sampling,
            placeholder=self._placeholder,
            frame_label=self._frame_label,
        )
        read_image = ImageReader()
        samples = [
            read_conversation(conversation, list(of_sample), index=index, style=style, read_image=read_image)
            for index, (conversation, of_sample) in enumerate(zip(batch, region_lists, strict=True))
        ]
        planned = self._plan(samples)
        inputs = self._native_inputs(samples, add_generation_prompt=not labels, **native_options)
        Expansion(self.tokenizer, self._placeholder).write(
            inputs,
            [sample.slots for sample in samples],
            [_counts(regions) for regions in planned],
            labels=labels,
            padding_side=padding_side or ("right" if labels else "left"),
        )
        if labels and not (inputs["labels"] != IGNORE_INDEX).any():
            raise PromptError("labels=True, but no conversation has an answer of the assistant to learn from.")
        if any(planned):
            inputs["regions"] = self._region_batch(samples, planned, inputs)
        return inputs

    def decode(self, generated: Any, inputs: Mapping[str, Any]) -> list[str]:
        """The answers of `RegionModel.generate`, without the prompt and without special tokens."""
        answers = getattr(generated, "sequences", generated)[:, inputs["input_ids"].shape[1] :]
        texts: list[str] = self.tokenizer.batch_decode(answers, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def add_tokens(self, tokens: Sequence[str]) -> list[int]:
        """Teach the tokenizer new tokens, for texts and answers; their rows train with `add_lora(token_ids=...)`.

        Args:
            tokens: such as `["<defect>"]`. Those it knows already are left as they are.

        Returns:
            Their ids.

        Raises:
            PromptError: no tokens, or the backbone's embedding table has no spare rows for them.
        """
        if isinstance(tokens, str) or not tokens or not all(isinstance(each, str) and each for each in tokens):
            raise PromptError(f"Expected a list of tokens, got {tokens!r}.")
        rows = self._config.get_text_config().vocab_size
        new = [each for each in dict.fromkeys(tokens) if each not in self.tokenizer.get_vocab()]
        if new and len(self.tokenizer) + len(new) > rows:
            raise PromptError(
                f"The backbone's embedding table has {rows} rows, {len(self.tokenizer)} of them in use: there is no "
                f"room for {len(new)} new tokens, and tables are never resized. Use words the tokenizer knows."
            )
        self.tokenizer.add_tokens(new)
        return [self.tokenizer.convert_tokens_to_ids(each) for each in tokens]

    @property
    def framework(self) -> Framework:
        """What the decoder sees: scene tokens and object tokens, or object tokens alone."""
        return self._adapter.framework

    def plan(self, mask: RegionMask) -> RegionPlan:
        """What the adapter asks for, and promises, for one region on one picture."""
        return self._adapter.plan(self._adapter_config, mask, self._geometry)

    @property
    def image_backend(self) -> str:
        """The library that the native processor resizes images with, `pil` or `torchvision`."""
        return image_backend(self.native)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the native processor's files, placeholder token included, and the backbone's config."""
        self.native.save_pretrained(folder)
        self._config.save_pretrained(folder)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike[str],
        *,
        adapter: str | None = None,
        adapter_config: Mapping[str, Any] | str | None = None,
        backbone_plugin: str | None = None,
        region_token: str | None = None,
        **native_options: Any,
    ) -> RegionProcessor:
        """The processor of a folder that `RegionModel.save_pretrained` wrote, or of a plain backbone.

        Args:
            folder: such a folder, on disk or on the hub, or a backbone's id or path, for which `adapter` says how
                to plan regions.
            adapter: name of the adapter, only for a plain backbone (default `saot`).
            adapter_config: its options or the name of a preset, likewise.
            backbone_plugin: name of the backbone plugin, likewise; by default found by the model type.
            region_token: a token of the tokenizer's that stands for object tokens, likewise; by default one is added.
            **native_options: options of `AutoProcessor.from_pretrained`.

        Raises:
            CheckpointError: files are missing or damaged, or the folder was made with another adapter.
        """
        found = hub.model_folder(folder, native_options)
        if found is None:
            native, config = load_native_processor(folder, **native_options)
            return cls(
                native,
                config,
                adapter=adapter or "saot",
                adapter_config=adapter_config,
                backbone_plugin=backbone_plugin,
                region_token=region_token,
            )
        checkpoint.refuse_adapter_config(folder, adapter_config)
        checkpoint.refuse_region_token(folder, region_token)
        manifest = checkpoint.read_manifest(found, adapter=adapter)
        files = found / checkpoint.PROCESSOR_FOLDER
        if not files.is_dir():
            raise CheckpointError(
                f"Expected the processor's files at '{files}', found nothing. Is the folder complete?"
            )
        native, config = load_native_processor(files, **native_options)
        if image_backend(native) != manifest.image_backend:
            native.image_processor = AutoImageProcessor.from_pretrained(files, backend=manifest.image_backend)
        return cls(
            native,
            config,
            adapter=manifest.adapter,
            adapter_config=manifest.adapter_config,
            backbone_plugin=manifest.backbone,
            sampling=manifest.frame_sampling,
            region_token=manifest.region_token,
        )

    def __getstate__(self) -> dict[str, Any]:  # specs hold functions that cannot be pickled: their names travel
        return self.__dict__ | {"_backbone": self._backbone.name, "_adapter": self._adapter.name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        specs = {"_backbone": get_backbone(state["_backbone"]), "_adapter": get_adapter(state["_adapter"])}
        self.__dict__.update(state | specs)

    def _native_inputs(self, samples: Sequence[Sample], *, add_generation_prompt: bool, **options: Any) -> BatchFeature:
        """Run the backbone's own processor on the rendered conversations, padded on the right."""
        texts = [
            self.native.apply_chat_template(
                sample.messages, add_generation_prompt=add_generation_prompt, tokenize=False
            )
            for sample in samples
        ]
        shown = [sample for sample in samples if sample.shows_media]
        media: dict[str, Any] = {}
        if any(sample.images for sample in shown):
            media["images"] = [sample.images for sample in shown if sample.images]
        if any(sample.videos for sample in shown):
            videos = [video for sample in shown for video in sample.videos]
            if getattr(self.native, "video_processor", None) is None:
                raise PromptError(f"Backbone '{self._backbone.name}' takes no videos: its processor has none for them.")
            frames = [self._resized(video.frames_nhwc) for video in videos]
            media["videos"] = [np.require(each, requirements="W") for each in frames]  # as torch wants it
            media["video_metadata"] = [_native_metadata(video) for video in videos]
            # They are sampled, and a frame three pixels high would pass for one with channels first.
            sampled = {"do_sample_frames": False, "input_data_format": "channels_last"}
            media["videos_kwargs"] = {**options.pop("videos_kwargs", {}), **sampled}
        _refuse_own_options(options)
        try:
            native = self._native_for(media)
            return native(text=texts, **media, padding=True, padding_side="right", return_tensors="pt", **options)
        except ValueError as error:
            raise PromptError(
                f"The backbone's own processor refuses this batch: {error}{_lengths_note(shown)}"
            ) from error

    def _resized(self, frames_nhwc: np.ndarray) -> np.ndarray:
        """A video's frames as the native processor shall have them."""
        resize = self._backbone.resize_frames
        return frames_nhwc if resize is None else resize(self.native.video_processor, frames_nhwc)

    def _native_for(self, media: Mapping[str, Any]) -> Any:
        """The native processor; where one token stands for pictures and videos, told which of them it is."""
        image_token, video_token = (getattr(self.native, name, None) for name in ("image_token", "video_token"))
        if image_token is None or image_token != video_token:
            return self.native
        if {"images", "videos"} <= media.keys():
            raise PromptError(
                f"Backbone '{self._backbone.name}' has one token, {image_token!r}, for pictures and videos here, so a "
                "batch may hold pictures or videos, got both. Put them in separate batches."
            )
        native = copy.copy(self.native)
        native.video_token = video_token if "videos" in media else None
        native.image_token = image_token if "images" in media else None
        return native

    def _plan(self, samples: Sequence[Sample]) -> list[list[list[PlannedRegion]]]:
        """Per sample and region the plan of each picture that the region lies on."""
        first_image = 0
        first_frame = sum(len(sample.images) for sample in samples)  # frames come after all images
        planned = []
        for index, sample in enumerate(samples):
            placed = list(_place(sample, first_image, first_frame))
            alone = [
                [self._plan_region(each, f"Sample {index}, region {number}") for each in of_region]
                for number, of_region in enumerate(placed)
            ]
            with about(f"Sample {index}"):
                planned.append(self._plan_together(alone, placed))
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
                f"Adapter '{self._adapter.name}' must plan the same kinds of views for every region, got {listed}."
            )

    def _plan_region(self, placed: _Placed, where: str) -> PlannedRegion:
        with about(f"{where}{placed.frame}"):
            mask = placed.region.to_mask(placed.image_hw)
            plan = self.plan(mask)
            self._require_allowed(plan, placed.image_hw)
        reads_scene = any(isinstance(view, SceneView) for view in plan.views)
        return PlannedRegion(mask=mask if reads_scene else None, plan=plan, picture=placed.picture)

    def _plan_together(
        self, alone: list[list[PlannedRegion]], placed: Sequence[Sequence[_Placed]]
    ) -> list[list[PlannedRegion]]:
        """Plans of one conversation's regions that depend on each other, picture by picture."""
        together = self._adapter.plan_together
        if together is None:
            return alone
        planned = [list(of_region) for of_region in alone]
        on_picture: dict[int, list[tuple[int, int]]] = {}
        for number, of_region in enumerate(alone):
            for at, region in enumerate(of_region):
                on_picture.setdefault(region.picture, []).append((number, at))
        for places in on_picture.values():
            plans = together(self._adapter_config, [alone[number][at].plan for number, at in places])
            if not isinstance(plans, Sequence) or len(plans) != len(places):
                got = len(plans) if isinstance(plans, Sequence) else repr(plans)
                raise PluginError(
                    f"Adapter '{self._adapter.name}' must return as many plans from plan_together as it was given, "
                    f"{len(places)}, got {got}."
                )
            for (number, at), plan in zip(places, plans, strict=True):
                with about(f"region {number}"):
                    self._require_allowed(plan, placed[number][at].image_hw)
                planned[number][at] = replace(alone[number][at], plan=plan)
        return planned

    def _require_allowed(self, plan: Any, image_hw: tuple[int, int]) -> None:
        """Refuse a plan that an adapter must not make; the error is its author's to read."""
        name = f"Adapter '{self._adapter.name}'"
        if not isinstance(plan, RegionPlan):
            raise PluginError(f"{name} must plan a RegionPlan, got {plan!r}.")
        for view in plan.views:
            if isinstance(view, CropView):
                self._require_allowed_crop(view, image_hw, name)
            elif self._adapter.framework == "object-only":
                raise PluginError(
                    f"{name} is Object-Only but asks for a SceneView: the backbone's own image path is not run. Its "
                    "plan should ask for crops."
                )

    def _require_allowed_crop(self, crop: CropView, image_hw: tuple[int, int], name: str) -> None:
        multiple = self._geometry.grid_multiple
        if min(crop.grid_hw) < 1 or any(side < 1 or side % multiple for side in crop.tower_hw):
            raise PluginError(
                f"{name} asks for a crop of {crop.tower_hw[0]}x{crop.tower_hw[1]} patches, but "
                f"backbone '{self._backbone.name}' takes multiples of {multiple}. "
                "Its plan should size crops with geometry.whole_patches()."
            )
        x0, y0, x1, y1 = crop.box_xyxy
        if not (0 <= x0 < x1 <= image_hw[1] and 0 <= y0 < y1 <= image_hw[0]):
            raise PluginError(
                f"{name} asks for the crop {tuple(crop.box_xyxy)}, which is not inside its picture of width "
                f"{image_hw[1]} and height {image_hw[0]}."
            )

    def _region_batch(
        self, samples: Sequence[Sample], planned: Sequence[Sequence[Sequence[PlannedRegion]]], inputs: BatchFeature
    ) -> RegionBatch:
        image_processor = self.native.image_processor
        pictures: list[Picture] = [image for sample in samples for image in sample.images]
        videos = [video for sample in samples for video in sample.videos]
        pictures += [VideoFrame(video, position) for video in videos for position in range(len(video))]
        first = next(region for sample in planned for frames in sample for region in frames)
        wants_scene = any(isinstance(view, SceneView) for view in first.plan.views)
        return make_region_batch(
            planned,
            adapter=self._adapter.name,
            placeholder_id=self.placeholder_id,
            pictures=pictures,
            scene=plan_scene(samples, self._backbone, self._config, inputs) if wants_scene else None,
            videos=videos,
            geometry=self._geometry,
            pixel_mean=image_processor.image_mean,
            pixel_std=image_processor.image_std,
        )

    def _frame_label(self, time_s: float) -> str:
        """What stands before a frame's object tokens."""
        if self._adapter.frame_label is None:
            return f"Time {time_s:.1f}s:"
        label = self._adapter.frame_label(self._adapter_config, time_s)
        special = (self._placeholder, *self._media_tokens, *self.tokenizer.all_special_tokens)
        if not isinstance(label, str) or any(token in label for token in special):
            raise PluginError(
                f"Adapter '{self._adapter.name}' must label a frame with text without special tokens, got {label!r}."
            )
        return label

    def _require_region_token(self, token: str) -> None:
        """An added token is never split, nor joined to what stands beside it; any other might be."""
        if token not in self.tokenizer.get_added_vocab():
            raise PromptError(
                f"The tokenizer has no token {token!r} of its own for object tokens. Is it the tokenizer of the "
                "checkpoint that was trained with it? Leave region_token out, and a token is added."
            )
        if token in self._media_tokens:
            raise PromptError(f"The token {token!r} stands for pictures or videos; it cannot be region_token as well.")

    @property
    def _media_tokens(self) -> tuple[str, ...]:
        """The native processor's tokens for pictures and videos; not every backbone has both."""
        tokens = (getattr(self.native, name, None) for name in ("image_token", "video_token"))
        return tuple(token for token in tokens if token)


def _checked_sampling(sampling: Any) -> FrameSampling | None:
    if sampling is None or isinstance(sampling, FrameSampling):
        return sampling
    raise PromptError(f"sampling must be a FrameSampling, such as FrameSampling(num_frames=8), got {sampling!r}.")


def _refuse_own_options(options: Mapping[str, Any]) -> None:
    """Options of the native processor that are decided here."""
    hints = {
        **dict.fromkeys(("num_frames", "fps", "do_sample_frames", "video_metadata"), "say sampling=FrameSampling(...)"),
        **dict.fromkeys(("padding", "return_tensors"), "batches are always padded tensors"),
    }
    for name in options:
        if name in hints:
            raise PromptError(f"The option '{name}' of the native processor is not to be given: {hints[name]}.")


def _lengths_note(samples: Sequence[Sample]) -> str:
    """What may be the matter where a backbone stacks its videos."""
    lengths = [len(video) for sample in samples for video in sample.videos]
    if len(set(lengths)) < 2:
        return ""
    return f" Its videos have {lengths} frames: some backbones take several only if all have as many."


def _counts(regions: Sequence[Sequence[PlannedRegion]]) -> Iterator[int]:
    """The tokens promised for each placeholder of a sample's texts."""
    return (planned.plan.num_tokens for region in regions for planned in region)


@dataclass(frozen=True)
class _Placed:
    """A region on one picture of the batch; `frame` tells which of a video, for messages."""

    region: Region
    image_hw: tuple[int, int]
    picture: int
    frame: str = ""


def _place(sample: Sample, first_image: int, first_frame: int) -> Iterator[list[_Placed]]:
    """Each region of a sample on its picture, or on those of its frames."""
    first_of_video = [first_frame, *(first_frame + np.cumsum([len(video) for video in sample.videos]))]
    for region in sample.regions:
        if isinstance(region, Region):
            width, height = sample.images[region.image_index].size
            yield [_Placed(region, (height, width), first_image + region.image_index)]
        else:
            video, first = sample.videos[region.video_index], int(first_of_video[region.video_index])
            yield [
                _Placed(each, video.image_hw, first + video.position(frame), f", frame {frame}")
                for frame, each in region.frames.items()
            ]


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


def image_backend(native: Any) -> str:
    """`pil` or `torchvision`: which of transformers' two image processors `native` holds."""
    return "pil" if type(native.image_processor).__name__.endswith("Pil") else "torchvision"
