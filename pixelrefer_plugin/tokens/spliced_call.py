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

from ..contracts.backbone import BackboneSpec, NativeCall
from ..contracts.encoded import FeatureGrids
from ..contracts.module import AdapterModule, Shapes
from ..conversation.token_ids import TokenIds
from ..errors import PluginError, SpliceError
from ..plugins import in_plugin, require_result
from .devices import device_of, with_weights
from .layouts import Features
from .region_batch import RegionBatch
from .scene import captured_scene
from .splice import number_slots, spliced

# Hooks of one call must not be there while another thread registers its own: torch does not guard that.
_ONE_CALL: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()

# Crops go through the tower in one call; on a CPU in calls of so many values (patches times their width), 1,536 patches
# of a real tower: what a larger call works on no longer fits the caches, and it takes half as long again
# (speed/many_regions.py).
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
        tokens: ids that its processor agrees on.
        shapes: what the adapter's module was built for.
        num_embeddings: rows of the token embedding.
    """

    backbone: Any
    spec: BackboneSpec
    adapter: AdapterModule
    adapter_name: str
    tokens: TokenIds
    shapes: Shapes
    num_embeddings: int

    @property
    def device(self) -> torch.device:
        """Where the backbone takes its input ids."""
        return device_of(self.backbone.get_submodule(self.spec.parts.token_embedding))

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
        slots = number_slots(input_ids, self.tokens.placeholder, regions.tokens_per_sample())
        call = NativeCall(self.backbone.config, {"input_ids": input_ids, **inputs}, self.tokens.native)
        with self.alone(), self._spliced(slots, regions, call):
            yield self._readable(input_ids)

    def object_tokens(self, regions: RegionBatch, scene: Mapping[bool, FeatureGrids] | None = None) -> Tensor:
        """Encode the regions and tokenize them; `scene` are the grids of `regions.scene`, by whether they are tiled.

        Returns:
            `(sum(regions.counts), D)`.
        """
        return self.tokenize(regions, Features(self.encode(regions), scene or {}))

    def encode(self, regions: RegionBatch) -> FeatureGrids | None:
        """All crops of the batch through the vision tower."""
        if not regions.crop_grids_hw:
            return None
        tower = self.backbone.get_submodule(self.spec.parts.vision_tower)
        device, dtype = device_of(tower), next(tower.parameters()).dtype
        crops = regions.to(device).normalised_crops(dtype)
        most = _VALUES_A_CALL / self.shapes.crop if device.type == "cpu" else math.inf
        packs = _packs([h * w for h, w in regions.crop_grids_hw], most)
        # Where crops are of other sizes than the tower's own, some towers read their table of positions directly.
        tables = [module for module in tower.modules() if isinstance(module, nn.Embedding)]
        with in_plugin("backbone", self.spec.name, "crops.encode"), with_weights(tables):
            encoded = [self.spec.crops.encode(self.backbone, crops[pack]) for pack in packs]
            for each in encoded:
                require_result("backbone", self.spec.name, "crops.encode", FeatureGrids, each)
            grids = FeatureGrids.joined(encoded)
            if grids.grids_hw != regions.crop_grids_hw:
                raise SpliceError(
                    f"Backbone '{self.spec.name}' was given crops of {regions.crop_grids_hw} patches "
                    f"and returned {grids.grids_hw}."
                )
            if grids.features.shape[1] != self.shapes.crop:
                raise PluginError(
                    f"Backbone '{self.spec.name}' says that features of crops have width {self.shapes.crop} "
                    f"(crops.width), and returned width {grids.features.shape[1]}."
                )
        return grids

    def tokenize(self, regions: RegionBatch, features: Features) -> Tensor:
        """The adapter's object tokens of the batch, as many as were promised.

        Args:
            regions: the planned regions, on the backbone's device.
            features: what was encoded for them.
        """
        features = features.to(self.device)
        views = tuple(layout and layout.encoded(features) for layout in regions.views)
        with in_plugin("adapter", self.adapter_name, "forward"):
            tokens = self.adapter(views, regions.counts)
            self._require_promised(tokens, regions.counts)
        return tokens

    def _require_promised(self, tokens: Any, counts: Sequence[int]) -> None:
        expected = (sum(counts), self.shapes.decoder)
        promised = (
            f"Adapter '{self.adapter_name}' promised {expected[0]} object tokens of width {expected[1]} for "
            f"{len(counts)} regions"
        )
        if not isinstance(tokens, Tensor):
            raise SpliceError(f"{promised} but its module returned {type(tokens).__name__}, not a tensor.")
        if tuple(tokens.shape) != expected:
            raise SpliceError(f"{promised} but returned {tuple(tokens.shape)}.")
        if not tokens.is_floating_point():
            raise SpliceError(f"{promised} but returned integers ({tokens.dtype}).")
        if tokens.is_meta and not any(each.is_meta for each in self.adapter.parameters()):
            raise SpliceError(f"{promised} but returned a tensor without values, on the device 'meta'.")

    @contextmanager
    def _spliced(self, slots: Tensor, regions: RegionBatch, call: NativeCall) -> Iterator[None]:
        """While no other thread splices into this backbone."""
        regions = regions.to(self.device, non_blocking=True)
        crops = self.encode(regions)
        decoder = self.backbone.get_submodule(self.spec.parts.decoder)
        with (
            captured_scene(self.backbone, self.spec, regions.scene, call) as scene,
            spliced(decoder, slots, lambda: self.tokenize(regions, Features(crops, scene()))),
        ):
            yield

    def _require_own(self, regions: RegionBatch) -> None:
        if regions.adapter != self.adapter_name:
            raise SpliceError(
                f"The regions were planned for adapter '{regions.adapter}', this model has '{self.adapter_name}'."
            )
        if regions.placeholder_id != self.tokens.placeholder:
            raise SpliceError(
                f"The batch has object tokens where token {regions.placeholder_id} stands, this model has them where "
                f"token {self.tokens.placeholder} stands. Make it with the processor that was made with the model."
            )

    def _require_no_placeholders(self, input_ids: Tensor) -> None:
        """A batch that lost its `regions` on the way would have the decoder read the placeholder's unused embedding."""
        if (input_ids == self.tokens.placeholder).any():
            raise SpliceError(
                "The batch has placeholders for object tokens but no 'regions'. Was it dropped on the way? With the "
                "Hugging Face Trainer use RegionTrainer, or remove_unused_columns=False and a collator that keeps it."
            )

    def _readable(self, input_ids: Tensor) -> Tensor:
        """Another id stands in for the placeholder where the embedding table has no spare row for it, or where the
        backbone looks ids up elsewhere too."""
        stand_in = self.spec.stand_in_id
        if stand_in is not None:
            with in_plugin("backbone", self.spec.name, "stand_in_id"):
                return input_ids.masked_fill(input_ids == self.tokens.placeholder, stand_in(self.backbone.config))
        if self.tokens.placeholder < self.num_embeddings:
            return input_ids
        return input_ids.masked_fill(input_ids == self.tokens.placeholder, _READABLE_ID)


def _packs(sizes: Sequence[int], most: float) -> list[slice]:
    """Runs of consecutive items of at most `most` in all, or of one that is larger."""
    starts, total = [0], 0
    for index, size in enumerate(sizes):
        if total and total + size > most:
            starts.append(index)
            total = 0
        total += size
    return [slice(start, end) for start, end in pairwise([*starts, len(sizes)])]
