"""`SplicedCall`: calls of a backbone that read object tokens where the placeholders stand.

It knows a backbone, its plugin's spec and an adapter's module; no `RegionModel`, no processor, no masks.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ..contracts.backbone import BackboneSpec
from ..contracts.views import EncodedPrompts, EncodedView, FeatureGrids
from ..errors import SpliceError
from .layouts import PromptLayout, ViewLayout
from .region_batch import RegionBatch
from .scene import captured_scene
from .splice import number_slots, spliced

# Hooks of one call must not be there while another thread registers its own: torch does not guard that.
_ONE_CALL: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()

# Crops go through the tower in one call; on a CPU in calls of so many values (patches times their width), 1,536 patches
# of a real tower: what a larger call works on no longer fits the caches, and it takes half as long again
# (benchmarks/many_regions.py).
_VALUES_A_CALL = 1536 * 1152

# Stands in for placeholder ids beyond the embedding table; its embedding is overwritten by the splice.
_READABLE_ID = 0


@dataclass(frozen=True, eq=False)
class SplicedCall:
    """How one model's backbone is called with object tokens.

    Attributes:
        backbone: the Hugging Face model.
        spec: its plugin's spec.
        adapter: the adapter's module.
        adapter_name: name of the adapter.
        placeholder: id of the token that stands for each object token.
        vision_width: of the patch features that the adapter reads.
        decoder_width: of its object tokens.
        num_embeddings: rows of the token embedding.
    """

    backbone: Any
    spec: BackboneSpec
    adapter: nn.Module
    adapter_name: str
    placeholder: int
    vision_width: int
    decoder_width: int
    num_embeddings: int

    @property
    def device(self) -> torch.device:
        """Where the backbone takes its input ids."""
        # With LoRA on the rows of tokens the embedding is a wrapper of PEFT's.
        device: torch.device = self.backbone.get_submodule(self.spec.token_embedding).weight.device
        return device

    def alone(self) -> threading.RLock:
        """Held while hooks are on the backbone."""
        return _ONE_CALL.setdefault(self.backbone, threading.RLock())

    @contextmanager
    def regions_in(self, input_ids: Tensor, regions: RegionBatch | None, inputs: Mapping[str, Any]) -> Iterator[Tensor]:
        """Splice for the length of one call; yields the ids that the backbone may read.

        Args:
            input_ids: `(batch, length)`.
            regions: the batch's regions; None: it has none.
            inputs: the other native tensors of the call.

        Raises:
            SpliceError: placeholders and object tokens do not match, or the regions are another model's.
        """
        if regions is None:
            self._require_no_placeholders(input_ids)
            yield input_ids
            return
        self._require_own(regions)
        slots = number_slots(input_ids, self.placeholder, regions.tokens_per_sample())
        with self.alone(), self._spliced(slots, regions, {"input_ids": input_ids, **inputs}):
            yield self._readable(input_ids)

    def object_tokens(self, regions: RegionBatch, scene: FeatureGrids | None = None) -> Tensor:
        """Encode the regions and tokenize them; `scene` are the grids of `regions.scene`.

        Returns:
            `(sum(regions.counts), D)`.
        """
        return self.tokenize(regions, self.encode(regions), scene)

    def encode(self, regions: RegionBatch) -> FeatureGrids | None:
        """All crops of the batch through the vision tower."""
        if not regions.crop_grids_hw:
            return None
        tower = self.backbone.get_submodule(self.spec.vision_tower)
        parameter = next(tower.parameters())
        crops = regions.to(parameter.device).normalised_crops(parameter.dtype)
        most = _VALUES_A_CALL / self.vision_width if parameter.device.type == "cpu" else math.inf
        packs = _packs([h * w for h, w in regions.crop_grids_hw], most)
        grids = FeatureGrids.joined([self.spec.encode_crops(self.backbone, crops[pack]) for pack in packs])
        if grids.grids_hw != regions.crop_grids_hw:
            raise SpliceError(
                f"Backbone '{self.spec.name}' was given crops of {regions.crop_grids_hw} patches "
                f"and returned {grids.grids_hw}."
            )
        return grids

    def tokenize(self, regions: RegionBatch, crops: FeatureGrids | None, scene: FeatureGrids | None) -> Tensor:
        """The adapter's object tokens of the batch, as many as were promised.

        Args:
            regions: the planned regions, on the backbone's device.
            crops: their encoded crops.
            scene: the backbone's own features.
        """
        views = tuple(_encoded(layout, crops, scene) for layout in regions.views)
        tokens: Tensor = self.adapter(views, regions.counts)
        expected = (sum(regions.counts), self.decoder_width)
        if tuple(tokens.shape) != expected:
            raise SpliceError(
                f"Adapter '{self.adapter_name}' promised {expected[0]} object tokens of width {expected[1]} "
                f"for {len(regions.counts)} regions but returned {tuple(tokens.shape)}."
            )
        return tokens

    @contextmanager
    def _spliced(self, slots: Tensor, regions: RegionBatch, native: Mapping[str, Any]) -> Iterator[None]:
        """While no other thread splices into this backbone."""
        regions = regions.to(self.device, non_blocking=True)
        crops = self.encode(regions)
        decoder = self.backbone.get_submodule(self.spec.decoder)
        with (
            captured_scene(self.backbone, self.spec, regions.scene, native) as scene,
            spliced(decoder, slots, lambda: self.tokenize(regions, crops, scene())),
        ):
            yield

    def _require_own(self, regions: RegionBatch) -> None:
        if regions.adapter != self.adapter_name:
            raise SpliceError(
                f"The regions were planned for adapter '{regions.adapter}', this model has '{self.adapter_name}'."
            )
        if regions.placeholder_id != self.placeholder:
            raise SpliceError(
                f"The batch has object tokens where token {regions.placeholder_id} stands, this model has them where "
                f"token {self.placeholder} stands. Make it with the processor that was made with the model."
            )

    def _require_no_placeholders(self, input_ids: Tensor) -> None:
        """A batch that lost its `regions` on the way would have the decoder read the placeholder's unused embedding."""
        if (input_ids == self.placeholder).any():
            raise SpliceError(
                "The batch has placeholders for object tokens but no 'regions'. Was it dropped on the way? With the "
                "Hugging Face Trainer use RegionTrainer, or remove_unused_columns=False and a collator that keeps it."
            )

    def _readable(self, input_ids: Tensor) -> Tensor:
        """Where the embedding table has no spare row for the placeholder, another id stands in for it."""
        if self.placeholder < self.num_embeddings:
            return input_ids
        return input_ids.masked_fill(input_ids == self.placeholder, _READABLE_ID)


def _encoded(
    layout: ViewLayout | PromptLayout, crops: FeatureGrids | None, scene: FeatureGrids | None
) -> EncodedView | EncodedPrompts:
    """One view of all regions, with the grids that it reads."""
    if isinstance(layout, PromptLayout):
        return layout.encoded()
    grids = scene if layout.crops is None else _part(crops, layout.crops)
    if grids is None or grids.grids_hw != layout.grids_hw:
        raise SpliceError(
            f"The regions were planned on grids {layout.grids_hw}, the vision tower gave {grids and grids.grids_hw}."
        )
    return layout.encoded(grids)


def _packs(sizes: Sequence[int], most: float) -> list[slice]:
    """Runs of consecutive items of at most `most` in all, or of one that is larger."""
    starts, total = [0], 0
    for index, size in enumerate(sizes):
        if total and total + size > most:
            starts.append(index)
            total = 0
        total += size
    return [slice(start, end) for start, end in pairwise([*starts, len(sizes)])]


def _part(grids: FeatureGrids | None, which: slice) -> FeatureGrids | None:
    """A run of consecutive grids."""
    if grids is None or (which.start, which.stop) == (0, len(grids)):
        return grids
    areas = [h * w for h, w in grids.grids_hw]
    first, end = sum(areas[: which.start]), sum(areas[: which.stop])
    return FeatureGrids(grids.features[first:end], grids.grids_hw[which])
