"""An adapter's masks: the hidden states that they are made of, the losses that they add, the objects that they become.

It knows the contract `MaskModule`, batches and answers; no backbone, and nothing of how masks are made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, make_dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ..contracts.masks import PredictedMasks, SegmentedObject
from ..errors import PromptError, SpliceError
from ..plugins import in_plugin, require_result
from .hidden_states import GeneratedStates, TaughtStates
from .mask_batch import MaskBatch
from .objects import ForcedMask, find_mentions, segmented_objects, used_clips


class AdapterMasks:
    """What the host does with the masks of an adapter's module.

    Args:
        adapter: the module, a `MaskModule`; it is never copied, so that its weights are those that train.
        name: the adapter's.
        token_id: of the token that stands for a mask; None where it is not known yet.
    """

    def __init__(self, adapter: nn.Module, *, name: str, token_id: int | None) -> None:
        self._adapter: Any = adapter
        self._name = name
        self._token_id = token_id

    # -- learning ------------------------------------------------------------------------------------------------

    def reader(self, input_ids: Tensor, masks: MaskBatch | None) -> TaughtStates | None:
        """What reads the hidden states that masks are learnt from: those before their tokens. None: there are none.

        Args:
            input_ids: `(rows, length)` of a batch with labels.
            masks: its masks.

        Raises:
            SpliceError: a sample has more or fewer tokens for masks than masks, or the masks were lost on the way.
        """
        promised = masks.objects_per_sample if masks is not None and masks.targets is not None else None
        if self._token_id is None:
            return None
        at = input_ids.eq(self._token_id).cpu()
        found = at.sum(dim=1).tolist()
        if promised is None and any(found):
            raise SpliceError(
                "The batch's answers give masks, but it has none to learn from. Was 'masks' dropped on the way? With "
                "the Hugging Face Trainer use RegionTrainer, or remove_unused_columns=False and a collator that keeps "
                "it."
            )
        for sample, (got, expected) in enumerate(zip(found, promised or found, strict=True)):
            if got != expected or at[sample, 0]:
                raise SpliceError(
                    f"Sample {sample} has {expected} masks to learn, but its text has {got} tokens for them"
                    f"{', one of them with nothing before it' if at[sample, 0] else ''}. Was it truncated, or edited "
                    "after the processor made it?"
                )
        rows, columns = torch.nonzero(at, as_tuple=True)
        return TaughtStates(rows, columns - 1, input_ids.shape) if len(rows) else None

    def losses(self, hidden: Tensor, masks: MaskBatch) -> dict[str, Tensor]:
        """The adapter's losses, by name, `(S,)` each.

        Args:
            hidden: `(S, D)`, of each object.
            masks: of the batch, with targets, where the adapter is.

        Raises:
            SpliceError: the adapter returns something else.
        """
        clips, clip_of_object = used_clips(masks.clips, _clip_of_taught(masks))
        with in_plugin("adapter", self._name, "mask_losses"):
            losses: dict[str, Tensor] = self._adapter.mask_losses(hidden, clips, clip_of_object, masks.targets)
            require_result("adapter", self._name, "mask_losses", Mapping, losses)
            shapes = {name: tuple(getattr(each, "shape", ("no tensor",))) for name, each in losses.items()}
            if set(shapes.values()) != {(len(hidden),)}:
                raise SpliceError(
                    f"Adapter '{self._name}' must return a loss of each of {len(hidden)} objects from mask_losses, "
                    f"{{name: ({len(hidden)},)}}, got {shapes}."
                )
        return losses

    def added_to(self, output: Any, losses: Mapping[str, Tensor]) -> Any:
        """The backbone's output with losses of masks, scalars, added to its own.

        Every parameter of the adapter that trains then has a gradient, if only zero, whatever parts of it the batch
        needed: each of several processes has one for all of them.
        """
        loss = output.loss
        mask_loss = torch.zeros((), device=loss.device)
        for each in losses.values():
            mask_loss = mask_loss + each.to(loss.device)
        if torch.is_grad_enabled():
            trained = [each.sum().to(loss.device) for each in self._adapter.parameters() if each.requires_grad]
            loss = loss + 0 * sum(trained)
        given = {item.name: getattr(output, item.name) for item in fields(output)}
        given |= {"loss": loss + mask_loss, "mask_loss": mask_loss.detach()}
        kind: Any = type(output)
        return _output_class(kind)(**given, mask_losses={name: each.detach() for name, each in losses.items()})

    # -- answers -------------------------------------------------------------------------------------------------

    def objects(
        self, output: Any, states: GeneratedStates, masks: MaskBatch, *, start: int
    ) -> list[list[SegmentedObject]]:
        """The objects of each generated sequence. The head runs once for all of them, or not at all.

        Args:
            output: what the backbone's `generate` returned.
            states: read meanwhile.
            masks: of the batch, where the adapter is.
            start: position at which the answers begin.

        Raises:
            SpliceError: a state was not read, or the adapter does not return what it promised.
        """
        sequences, beams = output.sequences, getattr(output, "beam_indices", None)
        per_sample = len(sequences) // len(masks.clip_of_sample)
        objects: list[list[SegmentedObject]] = [[] for _ in sequences]
        mentions = find_mentions(sequences, masks, start=start)
        clips = [masks.clip_of_sample[each.row // per_sample] for each in mentions]
        placed = [(mention, clip) for mention, clip in zip(mentions, clips, strict=True) if clip is not None]
        if not placed:
            return objects
        # A beam's row is the one that its token was chosen in.
        rows = [each.row if beams is None else int(beams[each.row, each.column - start]) for each, _ in placed]
        hidden = states.states(rows, [each.column - 1 for each, _ in placed]).to(masks.clips.pixels.device)
        clip_of_object = [clip for _, clip in placed]
        with in_plugin("adapter", self._name, "predict_masks"):
            predicted = self._adapter.predict_masks(hidden, *used_clips(masks.clips, clip_of_object))
            require_result("adapter", self._name, "predict_masks", PredictedMasks, predicted)
            found = segmented_objects(
                predicted, masks, ids=[each.id for each, _ in placed], clip_of_object=clip_of_object
            )
        for (mention, _), each in zip(placed, found, strict=True):
            objects[mention.row].append(each)
        return objects


def _clip_of_taught(masks: MaskBatch) -> list[int]:
    """The clip of each object of a batch to learn from."""
    clip_of_object: list[int] = []
    for clip, count in zip(masks.clip_of_sample, masks.objects_per_sample, strict=True):
        if count:
            assert clip is not None, "a sample with masks to learn has pictures for them"
            clip_of_object += [clip] * count
    return clip_of_object


@cache
def _output_class(of_backbone: Any) -> Any:
    """A backbone's output with the masks' losses: a class of its own, since whatever takes an output apart and puts it
    together again (distributed training, mixed precision) knows a class's fields only."""
    added = [(name, Any, None) for name in ("mask_loss", "mask_losses")]
    return make_dataclass(f"{of_backbone.__name__}WithMasks", added, bases=(of_backbone,))


def forced_mask(masks: MaskBatch, *, start: int, options: Mapping[str, Any], own: Any) -> ForcedMask:
    """What lets no answer end without a mask.

    Args:
        masks: of the batch.
        start: position at which the answers begin.
        options: what the backbone's `generate` is given.
        own: the backbone's own generation config.

    Raises:
        PromptError: nothing says how long an answer may be.
    """
    configs: Sequence[Any] = (options.get("generation_config"), own)
    ends, new_tokens, length = (
        generation_option(name, options, configs) for name in ("eos_token_id", "max_new_tokens", "max_length")
    )
    if new_tokens is not None:
        length = start + new_tokens
    if length is None or length <= start:
        raise PromptError("force_mask=True needs to know how long an answer may be. Pass max_new_tokens.")
    return ForcedMask(
        masks.token_id,
        end_ids=[] if ends is None else [ends] if isinstance(ends, int) else ends,
        start=start,
        max_length=length,
        wanted=[clip is not None for clip in masks.clip_of_sample],
    )


def generation_option(name: str, options: Mapping[str, Any], configs: Sequence[Any]) -> Any:
    """An option of `generate` as it will be understood: given, or else of the first config that has it."""
    values = (options.get(name), *(getattr(config, name, None) for config in configs))
    return next((each for each in values if each is not None), None)
