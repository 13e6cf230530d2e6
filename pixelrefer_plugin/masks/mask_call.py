"""`MaskCall`: calls of a backbone whose hidden states become masks of objects, to learn from or as answers.

It knows a `SplicedCall` and an adapter with a mask head; no `RegionModel` and no processor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import LogitsProcessorList

from ..errors import SpliceError
from ..tokens.region_batch import RegionBatch
from ..tokens.spliced_call import SplicedCall
from .adapter_masks import AdapterMasks, forced_mask, generation_option
from .hidden_states import GeneratedStates, Reader, captured_hidden
from .mask_batch import MaskBatch
from .objects import GeneratedMasks


@dataclass(frozen=True, eq=False)
class MaskCall:
    """How one model's backbone is called where masks are learnt or asked for.

    Attributes:
        spliced: how it is called with object tokens.
        token_id: id of the token that stands for a mask; None where the adapter gives none.
    """

    spliced: SplicedCall
    token_id: int | None

    def require_own(self, masks: MaskBatch | None, input_ids: Tensor) -> None:
        """Refuse the masks of another model, or of another batch.

        Raises:
            SpliceError: says which.
        """
        if masks is None:
            return
        name = self.spliced.adapter_name
        if masks.adapter != name or self.token_id is None:
            raise SpliceError(f"The masks are of adapter '{masks.adapter}', this model has '{name}'.")
        if masks.token_id != self.token_id:
            raise SpliceError(
                f"The batch has masks where token {masks.token_id} stands, this model gives them where token "
                f"{self.token_id} stands. Make it with the processor that was made with the model."
            )
        if len(masks.clip_of_sample) != len(input_ids):
            raise SpliceError(
                f"The masks are of {len(masks.clip_of_sample)} samples, but input_ids has {len(input_ids)} rows."
            )

    def learn(
        self,
        input_ids: Tensor,
        regions: RegionBatch | None,
        masks: MaskBatch | None,
        num_objects: Tensor | int | None,
        inputs: Mapping[str, Any],
    ) -> Any:
        """The backbone's forward with labels, and the losses of the masks added to its own.

        Args:
            input_ids: `(batch, length)`.
            regions: the batch's regions.
            masks: what the masks should be.
            num_objects: what the objects' losses are divided by; None: the number of the batch's own.
            inputs: the other arguments of the backbone's forward.
        """
        head, inputs = self._head, {**inputs, "return_dict": True}
        reader = head.reader(input_ids, masks)
        with self.spliced.regions_in(input_ids, regions, inputs) as readable_ids, self._read_by(reader):
            output = self.spliced.backbone(input_ids=readable_ids, **inputs)
        if reader is None or masks is None:
            return head.added_to(output, {})
        device = self.spliced.device
        hidden = reader.states().to(device)
        losses = head.losses(hidden, masks.to(device, non_blocking=True))
        divisor = len(hidden) if num_objects is None else num_objects
        return head.added_to(output, {name: each.sum() / divisor for name, each in losses.items()})

    def generate(
        self,
        input_ids: Tensor,
        regions: RegionBatch | None,
        masks: MaskBatch,
        force_mask: bool,
        inputs: Mapping[str, Any],
    ) -> GeneratedMasks:
        """The backbone's `generate`, and the objects that its answers give masks of.

        Args:
            input_ids: `(batch, length)`, left-padded.
            regions: the batch's regions.
            masks: the pictures that masks are made on.
            force_mask: let no answer end without a mask.
            inputs: the other arguments of the backbone's `generate`.
        """
        backbone, start = self.spliced.backbone, input_ids.shape[1]
        own = backbone.generation_config
        options = {**inputs, "return_dict_in_generate": True}
        if force_mask:
            given = inputs.get("logits_processor") or ()
            last = forced_mask(masks, start=start, options=inputs, own=own)
            options["logits_processor"] = LogitsProcessorList([*given, last])
        states = GeneratedStates(start - 1)
        with self.spliced.regions_in(input_ids, regions, inputs) as readable_ids, self._read_by(states):
            output = backbone.generate(input_ids=readable_ids, **options)
        objects = self._head.objects(output, states, masks.to(self.spliced.device), start=start)
        asked = generation_option("return_dict_in_generate", inputs, (inputs.get("generation_config"), own))
        return GeneratedMasks(output.sequences, objects, output if asked else None)

    @property
    def _head(self) -> AdapterMasks:
        return AdapterMasks(self.spliced.adapter, name=self.spliced.adapter_name, token_id=self.token_id)

    @contextmanager
    def _read_by(self, reader: Reader | None) -> Iterator[None]:
        """Capture hidden states for the length of one call, where somebody reads them."""
        if reader is None:
            yield
            return
        backbone, spec = self.spliced.backbone, self.spliced.spec
        decoder, norm = backbone.get_submodule(spec.parts.decoder), backbone.get_submodule(spec.parts.norm)
        with self.spliced.alone(), captured_hidden(decoder, norm, reader):
            yield
