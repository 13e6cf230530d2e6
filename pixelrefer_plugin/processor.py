"""`RegionProcessor`: chat messages, pictures and regions become one batch that a `RegionModel` takes.

The backbone's own Hugging Face processor does the chat template, the images and the videos. This one plans
the regions, and writes as many placeholders for each as its plan promises. It knows no model.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor, BatchFeature

from . import checkpoint
from .contracts import AdapterSpec, BackboneSpec, CropView
from .errors import CheckpointError, PluginError, PromptError, RegionError
from .loading import load_native_processor
from .messages import PLACEHOLDER, REGION_MARKER, Conversation, Sample, Slot, read_conversation
from .plugins import backbone_for, get_adapter
from .region_batch import PlannedRegion, RegionBatch, make_region_batch
from .regions import Region

IGNORE_INDEX = -100


class RegionProcessor:
    """Turns conversations with regions into model inputs.

    Args:
        native: the backbone's own processor; it is copied, and the copy learns the placeholder token.
        config: the backbone's config.
        adapter: name of the adapter.
        adapter_config: its options, as a mapping or its config object.
        backbone_plugin: name of the backbone plugin; by default found by `config.model_type`.
    """

    def __init__(
        self,
        native: Any,
        config: Any,
        *,
        adapter: str = "saot",
        adapter_config: Mapping[str, Any] | Any | None = None,
        backbone_plugin: str | None = None,
    ) -> None:
        self.native = copy.deepcopy(native)
        self.tokenizer = self.native.tokenizer
        self.tokenizer.add_special_tokens({"extra_special_tokens": [PLACEHOLDER]}, replace_extra_special_tokens=False)
        self.placeholder_id: int = self.tokenizer.convert_tokens_to_ids(PLACEHOLDER)
        self._special_ids = frozenset(self.tokenizer.all_special_ids)
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
        padding_side: str | None = None,
        **native_options: Any,
    ) -> BatchFeature:
        """Prepare one conversation or a batch of them.

        Args:
            conversations: messages `{"role": ..., "content": ...}`; content is text, or parts
                `{"type": "text", "text": ...}`, `{"type": "image", "image": path, picture or array}`,
                `{"type": "video", "video": decoded frames, "video_metadata": ...}`. `<region>` in a text
                stands for the next region.
            regions: the regions of the conversation in the order of their `<region>`s, or one such list per
                conversation. `Region.image_index` counts the images of its own conversation.
            labels: add `labels` for training: the answers of the assistant and the token that ends each,
                everything else -100. Otherwise a prompt for generation is made.
            padding_side: by default `right` with labels and `left` without, as generation needs.
            **native_options: options of the backbone's own processor.

        Returns:
            The native tensors, plus `regions` (a `RegionBatch`) when the batch has any.

        Raises:
            PromptError: more or fewer `<region>` than regions, a region on an image that is not there, a
                special token in a text, or a template that does not render a message.
            RegionError: a region that does not fit its image; the message names sample and region.
            ImageError: a picture that cannot be read.
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
        samples = [
            read_conversation(conversation, list(of_sample), index=index, special_tokens=self._media_tokens)
            for index, (conversation, of_sample) in enumerate(zip(batch, region_lists, strict=True))
        ]
        planned = self._plan(samples)
        inputs = self._native_inputs(samples, add_generation_prompt=not labels, **native_options)
        self._expand(inputs, samples, planned, labels=labels, side=padding_side or ("right" if labels else "left"))
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
        adapter_config: Mapping[str, Any] | None = None,
        **native_options: Any,
    ) -> RegionProcessor:
        """The processor of a folder that `RegionModel.save_pretrained` wrote, or of a plain backbone.

        Args:
            folder: such a folder, or a backbone's id or path, for which `adapter` says how to plan regions.
            adapter: name of the adapter, only for a plain backbone (default `saot`).
            adapter_config: its options, likewise.
            **native_options: options of `AutoProcessor.from_pretrained`.

        Raises:
            CheckpointError: files are missing or damaged, or the folder was made with another adapter.
        """
        if not checkpoint.is_model_folder(folder):
            native, config = load_native_processor(folder, **native_options)
            return cls(native, config, adapter=adapter or "saot", adapter_config=adapter_config)
        checkpoint.refuse_adapter_config(folder, adapter_config)
        manifest = checkpoint.read_manifest(folder, adapter=adapter)
        files = Path(folder) / checkpoint.PROCESSOR_FOLDER
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
        )

    def _native_inputs(self, samples: Sequence[Sample], *, add_generation_prompt: bool, **options: Any) -> BatchFeature:
        """Run the backbone's own processor on the rendered conversations, padded on the right."""
        texts = [
            self.native.apply_chat_template(
                sample.messages, add_generation_prompt=add_generation_prompt, tokenize=False
            )
            for sample in samples
        ]
        media: dict[str, Any] = {}
        if any(sample.images for sample in samples):
            media["images"] = [sample.images for sample in samples if sample.images]
        if any(sample.videos for sample in samples):
            media["videos"] = [video for sample in samples for video in sample.videos]
            metadata = [item for sample in samples for item in sample.video_metadata]
            known = [item is not None for item in metadata]
            if any(known) and not all(known):
                raise PromptError("Give video_metadata for every video of a batch, or for none.")
            if all(known):
                media["video_metadata"] = metadata
        return self.native(text=texts, **media, padding=True, padding_side="right", return_tensors="pt", **options)

    def _plan(self, samples: Sequence[Sample]) -> list[list[PlannedRegion]]:
        planned, first_image = [], 0
        for index, sample in enumerate(samples):
            planned.append(
                [
                    self._plan_region(region, sample.images, where=(index, number), first_image=first_image)
                    for number, region in enumerate(sample.regions)
                ]
            )
            first_image += len(sample.images)
        return planned

    def _plan_region(
        self, region: Region, images: Sequence[Image.Image], *, where: tuple[int, int], first_image: int
    ) -> PlannedRegion:
        width, height = images[region.image_index].size
        try:
            mask = region.to_mask((height, width))
        except RegionError as error:
            raise RegionError(f"Sample {where[0]}, region {where[1]}: {error}") from error
        plan = self._adapter.plan(self._adapter_config, mask, self._geometry)
        for view in plan.views:
            if isinstance(view, CropView):
                self._require_allowed(view.grid_hw)
        return PlannedRegion(mask=mask, plan=plan, image=first_image + region.image_index)

    def _require_allowed(self, grid_hw: tuple[int, int]) -> None:
        multiple = self._geometry.grid_multiple
        if any(side < 1 or side % multiple for side in grid_hw):
            raise PluginError(
                f"Adapter '{self._adapter.name}' asks for a crop of {grid_hw[0]}x{grid_hw[1]} patches, but "
                f"backbone '{self._backbone.name}' takes multiples of {multiple}. "
                "Its plan should size crops with geometry.whole_patches()."
            )

    def _region_batch(
        self, samples: Sequence[Sample], planned: Sequence[Sequence[PlannedRegion]], inputs: BatchFeature
    ) -> RegionBatch:
        image_processor = self.native.image_processor
        boxes = self._backbone.scene_boxes_xyxy
        return make_region_batch(
            planned,
            adapter=self._adapter.name,
            placeholder_id=self.placeholder_id,
            images=[image for sample in samples for image in sample.images],
            images_per_sample=[len(sample.images) for sample in samples],
            scene_grids_hw=self._backbone.scene_grids_hw(self._config, inputs),
            geometry=self._geometry,
            pixel_mean=image_processor.image_mean,
            pixel_std=image_processor.image_std,
            scene_boxes_xyxy=boxes and boxes(self._config, inputs),
        )

    def _expand(
        self,
        inputs: BatchFeature,
        samples: Sequence[Sample],
        planned: Sequence[Sequence[PlannedRegion]],
        *,
        labels: bool,
        side: str,
    ) -> None:
        """Write the promised placeholders, and the answers, where their slots stand; pad again."""
        shape = inputs["input_ids"].shape
        per_token = [name for name, value in inputs.items() if isinstance(value, Tensor) and value.shape == shape]
        rows = [
            self._expand_row(row, inputs, per_token, sample=sample, regions=regions, index=row)
            for row, (sample, regions) in enumerate(zip(samples, planned, strict=True))
        ]
        padding = {"input_ids": self._pad_id, "labels": IGNORE_INDEX}
        for name in [*per_token, "labels"] if labels else per_token:
            inputs[name] = _pad([row[name] for row in rows], padding.get(name, 0), side)

    def _expand_row(
        self,
        row: int,
        inputs: BatchFeature,
        per_token: Sequence[str],
        *,
        sample: Sample,
        regions: Sequence[PlannedRegion],
        index: int,
    ) -> dict[str, list[int]]:
        real = inputs["attention_mask"][row].bool()
        tokens = {name: inputs[name][row][real].tolist() for name in per_token}
        input_ids = tokens["input_ids"]
        at = [position for position, token in enumerate(input_ids) if token == self.placeholder_id]
        if len(at) != len(sample.slots):
            raise PromptError(
                f"Sample {index}: the chat template rendered {len(at)} of {len(sample.slots)} regions and answers."
            )
        counts = iter([region.plan.num_tokens for region in regions])
        out: dict[str, list[int]] = {name: [] for name in [*per_token, "labels"]}
        start = 0
        for position, slot in zip(at, sample.slots, strict=True):
            self._copy(tokens, slice(start, position), out, supervised=False)
            ids = self._slot_ids(slot, counts)
            answers = slot.answer is not None
            for name in per_token:
                out[name] += ids if name == "input_ids" else [tokens[name][position]] * len(ids)
            out["labels"] += [IGNORE_INDEX if not answers or each == self.placeholder_id else each for each in ids]
            start = position + 1
            if answers and start < len(input_ids) and input_ids[start] in self._special_ids:
                self._copy(tokens, slice(start, start + 1), out, supervised=True)  # the token that ends the turn
                start += 1
        self._copy(tokens, slice(start, None), out, supervised=False)
        return out

    def _copy(
        self, tokens: Mapping[str, list[int]], part: slice, out: dict[str, list[int]], *, supervised: bool
    ) -> None:
        for name, values in tokens.items():
            out[name] += values[part]
        ids = tokens["input_ids"][part]
        out["labels"] += ids if supervised else [IGNORE_INDEX] * len(ids)

    def _slot_ids(self, slot: Slot, counts: Any) -> list[int]:
        if slot.answer is None:
            return [self.placeholder_id] * next(counts)
        pieces = slot.answer.split(REGION_MARKER)
        ids = self._tokenize(pieces[0] + ("[" if len(pieces) > 1 else ""))
        for number, piece in enumerate(pieces[1:], start=1):
            closing = "]" + piece + ("[" if number < len(pieces) - 1 else "")
            ids += [self.placeholder_id] * next(counts) + self._tokenize(closing)
        return ids

    def _tokenize(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    @property
    def _media_tokens(self) -> list[str]:
        """The native processor's tokens for pictures and videos; not every backbone has both."""
        tokens = (getattr(self.native, name, None) for name in ("image_token", "video_token"))
        return [token for token in tokens if token]

    @property
    def _pad_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else self.tokenizer.eos_token_id)


def image_backend(native: Any) -> str:
    """`pil` or `torchvision`: which of transformers' two image processors `native` holds."""
    return "pil" if type(native.image_processor).__name__.endswith("Pil") else "torchvision"


def _pad(rows: Sequence[Sequence[int]], value: int, side: str) -> Tensor:
    length = max(map(len, rows))
    fills = [[value] * (length - len(row)) for row in rows]
    padded = [[*row, *fill] if side == "right" else [*fill, *row] for row, fill in zip(rows, fills, strict=True)]
    return torch.tensor(padded, dtype=torch.int64)
