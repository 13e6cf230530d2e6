"""`RegionProcessor`: chat messages, pictures and regions become one batch that a `RegionModel` takes.

The backbone's own Hugging Face processor does the chat template, the images and the videos. This one has the
regions planned, and writes as many placeholders for each as its plan promises. Where masks are wanted, it prepares the
pictures for them. It knows no model.
"""

from __future__ import annotations

import copy
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from transformers import BatchFeature

from .contracts.adapter import AdapterSpec, Framework, Planner
from .contracts.backbone import BackboneSpec, NativeCall
from .contracts.messages import MASK_MARKER, PLACEHOLDER, REGION_MARKER, Conversation
from .contracts.pointing import Pointer
from .contracts.views import PatchGeometry, RegionPlan
from .conversation.arguments import checked_sampling, memories_of, region_lists_of, require_choices
from .conversation.expansion import IGNORE_INDEX, Expansion
from .conversation.memory import ObjectMemory
from .conversation.native_call import NativeProcessing
from .conversation.native_options import require_allowed
from .conversation.pointer_calls import PointerCalls
from .conversation.reading import ImageReader, read_conversation
from .conversation.sample import PointingStyle, PromptStyle, ReadSample
from .conversation.templates import space_before_answers
from .conversation.token_ids import TokenIds, add_tokens, media_tokens, require_media_tokens, teach_tokens
from .errors import CheckpointError, PluginError, PromptError, refusing, shown
from .masks.mask_batch import MaskBatch, make_mask_batch
from .media.video import FrameSampling
from .plugins import backbone_for, count_of, get_adapter, get_backbone, in_plugin, result_of
from .regions.mask import RegionMask
from .regions.region import Region, VideoRegion
from .tokens.crops import Picture, VideoFrame
from .tokens.layouts import PlannedRegion, SceneLayout
from .tokens.planning import RegionPlanning
from .tokens.region_batch import RegionBatch, make_region_batch
from .tokens.scene import plan_scene, scene_readings
from .weights.loading import image_backend
from .weights.opening import OpenedCheckpoint, open_checkpoint

_WRITES_ID = re.compile(r"[0-9\[\] ]+")
_MAY_WRITE_ID = re.compile("[0-9\\[\\] \u0120\u2581]+")  # vocabularies have signs of their own for a space
_HIGHEST_ID = 2**24  # of a token; a list as long as the highest one is made


class RegionProcessor:
    """Turns conversations with regions into model inputs.

    Args:
        native: the backbone's own processor; it is copied, and the copy learns the placeholder token and, of an adapter
            that gives masks, the token that stands for one.
        config: the backbone's config.
        adapter: name of the adapter.
        adapter_config: its options: a mapping, the name of a preset, or its config object. The key `preset` of a
            mapping names a preset that the other options override.
        backbone_plugin: name of the backbone plugin; by default found by `config.model_type`.
        sampling: which frames of a video are read; by default 16, spread evenly.
        region_token: a token that the tokenizer has for object tokens already, as official checkpoints' have; its id
            is written for each. By default a token of our own is added.

    Attributes:
        tokens: the ids that a model for this processor's batches is given.

    Raises:
        PromptError: the tokenizer does not have `region_token` as a token of its own, or there is no room for the
            token that stands for a mask; or it does not know the native processor's tokens for pictures and videos.
    """

    def __init__(
        self,
        native: Any,
        config: Any,
        *,
        adapter: str,
        adapter_config: Mapping[str, Any] | str | Any | None = None,
        backbone_plugin: str | None = None,
        sampling: FrameSampling | None = None,
        region_token: str | None = None,
    ) -> None:
        self.sampling = checked_sampling(sampling) or FrameSampling()
        if any(getattr(native, name, None) is None for name in ("tokenizer", "image_processor")):
            raise PromptError(
                "Expected the backbone's own processor, with a tokenizer and an image processor, as AutoProcessor "
                f"gives it, got a {type(native).__name__}."
            )
        _require_sound(native)
        require_media_tokens(native, config)
        self.native = copy.deepcopy(native)
        self.tokenizer = self.native.tokenizer
        self.region_token = region_token
        self._placeholder = region_token or PLACEHOLDER
        self._config = config
        self._backbone: BackboneSpec = backbone_for(config.model_type, backbone_plugin)
        self._adapter: AdapterSpec = get_adapter(adapter)
        with in_plugin("adapter", self._adapter.name, "config"):
            self._adapter_config = self._adapter.make_config(adapter_config)
        self._planner = _planner_of(self._adapter, self._adapter_config)
        self._pointer = _pointer_of(self._adapter, self._adapter_config)
        self._noted: set[str] = set()
        self._geometry: PatchGeometry = result_of(
            "backbone", self._backbone.name, "crops.geometry", PatchGeometry, self._backbone.crops.geometry, config
        )
        self._id_texts: dict[int, str] | None = None
        head = self._adapter.masks
        self.tokens: TokenIds = teach_tokens(
            self.native, rows=self._rows, mask_token=None if head is None else head.token, region_token=region_token
        )

    def __call__(
        self,
        conversations: Conversation | Sequence[Conversation],
        regions: Sequence[Any] | None = None,
        *,
        labels: bool = False,
        memory: ObjectMemory | Sequence[ObjectMemory | None] | None = None,
        segment: bool = False,
        sampling: FrameSampling | None = None,
        padding_side: str | None = None,
        **native_options: Any,
    ) -> BatchFeature:
        """Prepare one conversation or a batch of them.

        Args:
            conversations: messages `{"role": ..., "content": ...}`; content is text, or parts
                `{"type": "text", "text": ...}`, `{"type": "image", "image": path, picture or array}`,
                `{"type": "video", "video": path, folder of frames, array or Video}`, the latter with `fps` or
                `times_s` where the frames alone do not tell. A picture may have `min_pixels` and `max_pixels`, alike
                in a batch; a video `nframes` or, of a file, `fps`, and `max_frames`: which frames are read. Any other
                key is refused. `<region>` in a text stands for the next region, `<seg>`
                in an answer of the assistant for the mask of the next one.
            regions: the regions of the conversation in the order of their `<region>`s and `<seg>`s, or one such list
                per conversation: a `Region` on an image, a `VideoRegion` or `{frame index: Region}` on a video.
                `image_index` and `video_index` count the images and the videos of their own conversation.
                With an Object-Only adapter, regions take the place of the pictures they lie on. Adapters that read
                clicks and boxes as they were drawn (`AdapterSpec.drawn`) have every other region, and those of
                answers, listed before the first question, and called by number.
            labels: add `labels` for training: the answers of the assistant and the token that ends each,
                everything else -100. Otherwise a prompt for generation is made.
            memory: objects that are listed before the first question, where texts call them by id (`[3]`); they lie
                on the conversation's only image or video. For a batch a list, None for conversations without.
            segment: prepare the pictures for masks, which `RegionModel.generate` then gives beside the text. Each
                conversation must show one image or one video.
            sampling: which frames of videos are read, in place of the processor's own rule. Frames that
                regions name are always among them.
            padding_side: by default `right` with labels and `left` without, as generation needs.
            **native_options: options of the backbone's own processor.

        Returns:
            The native tensors, plus `regions` (a `RegionBatch`) when the batch has any, and `masks` (a `MaskBatch`)
            with `segment`, or with `labels` when an answer has an `<seg>`.

        Raises:
            PromptError: more or fewer markers than regions, a region on an image that is not there, a special token
                or an `<seg>` in a user's text, an id that the memory does not hold, two objects with one id, masks of
                an adapter that gives none, or a template that does not render a message.
            RegionError: a region that does not fit its image; the message names sample and region.
            ImageError: a picture that cannot be read.
            VideoError: a video that cannot be read, or a frame that it does not have.
        """
        if not isinstance(conversations, Sequence) or isinstance(conversations, str):
            raise PromptError(f"Expected a list of messages or of conversations, got {shown(conversations)}.")
        require_choices(segment=segment, labels=labels, padding_side=padding_side)
        single = bool(conversations) and isinstance(conversations[0], Mapping)
        batch: Sequence[Any] = [conversations] if single else conversations
        if not batch:
            raise PromptError("Expected a conversation or a list of conversations, got none.")
        region_lists = region_lists_of(regions, single=single, num_conversations=len(batch))
        memories = memories_of(memory, single=single, num_conversations=len(batch))
        require_allowed(self.native, native_options)
        self._require_masks_wanted_rightly(segment=segment, labels=labels)
        style = self._style(checked_sampling(sampling) or self.sampling, native_options)
        read_image = ImageReader()
        samples = [
            read_conversation(
                conversation, list(of_sample), index=index, style=style, read_image=read_image, memory=memories[index]
            )
            for index, (conversation, of_sample) in enumerate(zip(batch, region_lists, strict=True))
        ]
        planned = self._planned(samples)
        inputs = self._native_processing.inputs(samples, native_options, add_generation_prompt=not labels)
        answers = any(slot.answer is not None for sample in samples for slot in sample.slots)
        space = space_before_answers(self.native) if answers else ""
        Expansion(self.tokenizer, self._placeholder, space).write(
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
        if segment or (labels and any(sample.targets for sample in samples)):
            inputs["masks"] = self._mask_batch(samples, learn=labels)
        return inputs

    def decode(self, generated: Any, inputs: Mapping[str, Any]) -> list[str]:
        """The answers of `RegionModel.generate`, without prompt and special tokens; `<seg>` stands for each mask."""
        answers = getattr(generated, "sequences", generated)[:, inputs["input_ids"].shape[1] :]
        if self._mask_token is None:
            texts: list[str] = self.tokenizer.batch_decode(answers, skip_special_tokens=True)
            return [text.strip() for text in texts]
        skipped = set(self.tokenizer.all_special_ids) - {self.tokens.mask}  # a checkpoint's own may be special
        kept = [[token for token in answer if token not in skipped] for answer in answers.tolist()]
        texts = self.tokenizer.batch_decode(kept, skip_special_tokens=False)
        return [text.replace(self._mask_token, MASK_MARKER).strip() for text in texts]

    def add_tokens(self, tokens: Sequence[str]) -> list[int]:
        """Teach the tokenizer new tokens, for texts and answers; their rows train with `add_lora(token_ids=...)`.

        Args:
            tokens: such as `["<defect>"]`. Those it knows already are left as they are.

        Returns:
            Their ids.

        Raises:
            PromptError: no tokens, the backbone's embedding table has no spare rows for them, or a reserved one
                stands for masks already.
        """
        head = self._adapter.masks
        stand_in = None if head is None or self._mask_token == head.token else self._mask_token
        ids = add_tokens(self.tokenizer, tokens, rows=self._rows, stand_in=stand_in)
        self._id_texts = None
        return ids

    @property
    def localize(self) -> str:
        """How the first pass of `pixel_qa` asks for the objects of a question, `{}`."""
        return "{}" if self._adapter.masks is None else self._adapter.masks.localize

    @property
    def framework(self) -> Framework:
        """What the decoder sees: scene tokens and object tokens, or object tokens alone."""
        return self._adapter.framework

    @property
    def makes_object_tokens(self) -> bool:
        """Whether regions become object tokens; else they are pointed at in words and pictures."""
        return self._planner is not None

    def plan(self, mask: RegionMask) -> RegionPlan:
        """What the adapter asks for, and promises, for one region on one picture.

        Raises:
            PromptError: it makes no object tokens.
        """
        if self._planner is None:
            raise PromptError(
                f"Adapter '{self._adapter.name}' makes no object tokens, so there is no plan of them: it points at "
                "regions in words and pictures."
            )
        return self._planner.plan(mask, self._geometry)

    def pointed(
        self, conversation: Conversation, regions: Sequence[Any] = (), *, memory: ObjectMemory | None = None
    ) -> list[dict[str, Any]]:
        """What the backbone is shown of a conversation: the same messages with the words and pictures that stand for
        its regions.

        Args:
            conversation: its messages, as the processor takes them.
            regions: in the order of its markers.
            memory: objects that are listed.

        Raises:
            PromptError: the adapter makes object tokens, which are no words; or as a call of the processor.
        """
        if self._pointer is None:
            raise PromptError(
                f"Adapter '{self._adapter.name}' makes object tokens, which cannot be shown. Take an adapter that "
                "points at regions in words and pictures."
            )
        style = self._style(self.sampling, {})
        sample = read_conversation(
            conversation, list(regions), index=0, style=style, read_image=ImageReader(), memory=memory
        )
        return sample.conversation(self._placeholder)

    def is_listed(self, region: Region | VideoRegion) -> bool:
        """Whether a region is listed before the first question, so that its tokens do not stand where its `<region>`
        does: with an adapter that reads some kinds as they were drawn, every other one is."""
        return self._style(self.sampling, {}).is_listed(region)

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
            adapter: name of the adapter. A plain backbone needs one; for a model folder it must be the one it was made
                with.
            adapter_config: its options or the name of a preset, only for a plain backbone.
            backbone_plugin: name of the backbone plugin; by default the folder's own, or found by the model type.
            region_token: a token of the tokenizer's that stands for object tokens, only for a plain backbone; by
                default one is added.
            **native_options: options of `AutoProcessor.from_pretrained`.

        Raises:
            CheckpointError: files are missing or damaged, or the folder was made with another adapter.
            PluginError: a plain backbone without `adapter`, or no plugin of that name.
        """
        opened = open_checkpoint(
            folder,
            native_options,
            adapter=adapter,
            adapter_config=adapter_config,
            backbone_plugin=backbone_plugin,
            region_token=region_token,
        )
        return cls.from_opened(opened, native_options)

    @classmethod
    def from_opened(cls, opened: OpenedCheckpoint, native_options: Mapping[str, Any]) -> RegionProcessor:
        """The processor of what has been opened; raises as `from_pretrained`."""
        native, config = opened.load_processor(native_options)
        with refusing(CheckpointError, f"No processor can be made of '{opened.name}'"):
            processor = cls(
                native,
                config,
                adapter=opened.adapter,
                adapter_config=opened.adapter_config,
                backbone_plugin=opened.backbone_plugin,
                sampling=opened.sampling,
                region_token=opened.region_token,
            )
        opened.require_tokens(processor.tokens)
        return processor

    def __repr__(self) -> str:
        tokens = f"placeholder {self.tokens.placeholder} {shown(self._placeholder)}, mask {self.tokens.mask}"
        frames = ", ".join(f"{name} {value}" for name, value in vars(self.sampling).items() if value is not None)
        return (
            f"RegionProcessor(\n  native: {type(self.native).__name__}, of backbone {self._backbone.name}\n"
            f"  adapter: {self._adapter.name}\n  tokens: {tokens}\n  sampling: {frames}\n)"
        )

    def __getstate__(self) -> dict[str, Any]:  # specs hold functions that cannot be pickled: their names travel
        names = {"_backbone": self._backbone.name, "_adapter": self._adapter.name}
        return self.__dict__ | names | {"_planner": None, "_pointer": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        specs = {"_backbone": get_backbone(state["_backbone"]), "_adapter": get_adapter(state["_adapter"])}
        self.__dict__.update(state | specs)
        self._planner = _planner_of(self._adapter, self._adapter_config)
        self._pointer = _pointer_of(self._adapter, self._adapter_config)

    def _planned(self, samples: Sequence[ReadSample]) -> list[list[list[PlannedRegion]]]:
        """Per sample and region the plan of each picture that it lies on; none where there are no object tokens."""
        if self._planner is None:
            return [[] for _ in samples]
        return RegionPlanning(self._adapter, self._planner, self._geometry, self._backbone.name).plan(samples)

    @property
    def _native_processing(self) -> NativeProcessing:
        return NativeProcessing(self.native, self._backbone)

    @property
    def mixes_media(self) -> bool:
        """Whether a batch may hold pictures and videos."""
        return self._native_processing.mixes_media

    def _require_masks_wanted_rightly(self, *, segment: bool, labels: bool) -> None:
        if not segment:
            return
        if self._adapter.masks is None:
            raise PromptError(
                f"segment=True, but adapter '{self._adapter.name}' gives no masks. Take an adapter with a mask head."
            )
        if labels:
            raise PromptError(
                f"segment=True asks for masks of a prompt, labels=True prepares what to learn from: {MASK_MARKER} in "
                "an answer says which masks to learn. Leave segment out."
            )

    def _style(self, sampling: FrameSampling, native_options: Mapping[str, Any]) -> PromptStyle:
        special = [self._placeholder, *media_tokens(self.native)]
        if self._mask_token not in (None, MASK_MARKER):
            special.append(self._mask_token)
        return PromptStyle(
            adapter=self._adapter.name,
            object_only=self._adapter.framework == "object-only",
            special_tokens=tuple(special),
            sampling=sampling,
            placeholder=self._placeholder,
            frame_label=self._frame_label,
            mask_token=self._mask_token,
            list_heading=self._list_heading,
            drawn=self._adapter.drawn,
            frames_together=self._frames_together,
            pointing=self._pointing_style(native_options),
        )

    def _pointing_style(self, native_options: Mapping[str, Any]) -> PointingStyle | None:
        if self._pointer is None:
            return None
        return PointerCalls(
            adapter=self._adapter.name,
            pointer=self._pointer,
            backbone=self._backbone,
            native=self.native,
            native_options=native_options,
            reserved=(REGION_MARKER, MASK_MARKER, self._placeholder, *media_tokens(self.native)),
            noted=self._noted,
        ).style

    @property
    def _frames_together(self) -> int:
        """Sampled frames that one grid of the decoder's scene tokens stands for, where the adapter reads these."""
        videos = self._backbone.videos
        if not self._adapter.on_scene_tokens or videos is None:
            return 1
        step = "videos.frames_per_grid"
        return count_of("backbone", self._backbone.name, step, videos.frames_per_grid, self._config)

    def _region_batch(
        self, samples: Sequence[ReadSample], planned: Sequence[Sequence[Sequence[PlannedRegion]]], inputs: BatchFeature
    ) -> RegionBatch:
        image_processor = self.native.image_processor
        pictures: list[Picture] = [image for sample in samples for image in sample.images]
        videos = [video for sample in samples for video in sample.videos]
        pictures += [VideoFrame(video, position) for video in videos for position in range(len(video))]
        readings = scene_readings(region for sample in planned for frames in sample for region in frames)
        return make_region_batch(
            planned,
            adapter=self._adapter.name,
            placeholder_id=self.tokens.placeholder,
            pictures=pictures,
            scene=self._scene(samples, inputs, readings) if readings else None,
            geometry=self._geometry,
            pixel_mean=image_processor.image_mean,
            pixel_std=image_processor.image_std,
        )

    def _scene(self, samples: Sequence[ReadSample], inputs: BatchFeature, readings: frozenset[bool]) -> SceneLayout:
        call = NativeCall(self._config, inputs, self.tokens.native)
        return plan_scene(samples, self._backbone, self._adapter, call, readings=readings)

    def _mask_batch(self, samples: Sequence[ReadSample], *, learn: bool) -> MaskBatch:
        head, token_id = self._adapter.masks, self.tokens.mask
        assert head is not None, "masks are refused where there is no head"
        assert token_id is not None, "the token of a head is added"
        return make_mask_batch(
            samples,
            adapter=self._adapter.name,
            head=head,
            config=self._adapter_config,
            token_id=token_id,
            id_texts=self._texts_of_ids(),
            learn=learn,
        )

    def _texts_of_ids(self) -> dict[int, str]:
        """The tokens that an object's number is written with: those of digits, square brackets and spaces alone."""
        if self._id_texts is None:
            vocabulary = self.tokenizer.get_vocab()
            ids = [id for token, id in vocabulary.items() if _MAY_WRITE_ID.fullmatch(token)]
            texts = self.tokenizer.batch_decode([[id] for id in ids], clean_up_tokenization_spaces=False)
            self._id_texts = {id: text for id, text in zip(ids, texts, strict=True) if _WRITES_ID.fullmatch(text)}
        return self._id_texts

    def _frame_label(self, time_s: float) -> str:
        """What stands before a frame's object tokens."""
        return self._text_of_planner("frame_label", time_s)

    def _list_heading(self, *, num_frames: int | None) -> str:
        """What stands before the list of a conversation's objects."""
        return self._text_of_planner("list_heading", num_frames=num_frames)

    def _text_of_planner(self, method: str, *args: Any, **options: Any) -> str:
        """What a method of the planner writes; it must be plain text."""
        with in_plugin("adapter", self._adapter.name, method):
            text = getattr(self._planner, method)(*args, **options)
            special = (self._placeholder, *media_tokens(self.native), *self.tokenizer.all_special_tokens)
            if not isinstance(text, str) or any(token in text for token in special):
                raise PluginError(
                    f"Adapter '{self._adapter.name}' must return text without special tokens from Planner.{method}, "
                    f"got {shown(text)}."
                )
        return text

    @property
    def _mask_token(self) -> str | None:
        """What is written for a mask: the adapter's token, or a reserved one of the tokenizer's that stands for it."""
        return None if self.tokens.mask is None else str(self.tokenizer.convert_ids_to_tokens(self.tokens.mask))

    @property
    def _rows(self) -> int:
        """Rows of the backbone's embedding table."""
        return int(self._config.get_text_config().vocab_size)


def _pointer_of(adapter: AdapterSpec, config: Any) -> Pointer[Any] | None:
    if adapter.pointer is None:
        return None
    return result_of("adapter", adapter.name, "pointer", Pointer, adapter.pointer, config)


def _planner_of(adapter: AdapterSpec, config: Any) -> Planner[Any] | None:
    if adapter.planner is None:
        return None
    with in_plugin("adapter", adapter.name, "planner"):
        planner = adapter.planner(config)
        if not isinstance(planner, Planner):
            raise PluginError(
                f"AdapterSpec.planner of '{adapter.name}' must make a Planner, got a {type(planner).__name__}."
            )
    return planner


def _require_sound(native: Any) -> None:
    """Refuse a native processor whose own files hold what nothing can be made of.

    Raises:
        PromptError: ids of tokens that no model has, or a mean or a deviation of pixels that is not three numbers.
    """
    highest = max(native.tokenizer.get_vocab().values(), default=0)
    if highest > _HIGHEST_ID:
        raise PromptError(f"The tokenizer has the token id {shown(highest)}; no model has more than {_HIGHEST_ID:,}.")
    for name in ("image_mean", "image_std"):
        values: Any = getattr(native.image_processor, name, None)
        is_listed = isinstance(values, Sequence) and len(values) == 3
        if not is_listed or not all(isinstance(each, int | float) and math.isfinite(each) for each in values):
            raise PromptError(f"{name} of the image processor must be three numbers, got {shown(values)}.")


def _counts(regions: Sequence[Sequence[PlannedRegion]]) -> Iterator[int]:
    """The tokens promised for each placeholder of a sample's texts."""
    return (planned.plan.num_tokens for region in regions for planned in region)
