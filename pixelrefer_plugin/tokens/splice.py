"""The splice: object tokens take the place of placeholders in the decoder's input embeddings.

One mechanism for every backbone: a forward pre-hook on the decoder, there for the length of one call. It sees
`inputs_embeds` after the native image merge, in `forward` and at every step of `generate`. It knows
positions and embeddings; no adapter, no backbone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import SpliceError


@contextmanager
def spliced(decoder: nn.Module, slots: Tensor, object_tokens: Callable[[], Tensor]) -> Iterator[None]:
    """Within this context, every call of `decoder` has object tokens where the placeholders stand.

    Args:
        decoder: the module that is called with `inputs_embeds` of shape `(rows, length, D)`. Its rows may be
            the prompt's, each repeated (beam search), and `length` any stretch of the sequence (caching).
        slots: `(batch, length)` from `number_slots`.
        object_tokens: called once, at the first stretch with a placeholder; returns `(slots.max() + 1, D)`.

    Raises:
        SpliceError: the decoder is called without `inputs_embeds`.
    """
    made: list[Tensor] = []
    caller = threading.get_ident()

    def write(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if threading.get_ident() != caller or kwargs is None:  # another thread's call of the same model
            return None
        embeds = kwargs.get("inputs_embeds")
        if embeds is None:
            raise SpliceError(
                f"{type(module).__name__} was called without inputs_embeds; the backbone plugin's `decoder` "
                "path must name the module that receives them."
            )
        here = _slots_of_call(slots, embeds, start=cached_length(kwargs) or 0)
        rows, columns = torch.nonzero(here >= 0, as_tuple=True)
        if not len(rows):
            return args, kwargs
        if not made:
            made.append(object_tokens())
        tokens = made[0].to(embeds)[here[rows, columns]]
        at = (rows.to(embeds.device), columns.to(embeds.device))
        return args, {**kwargs, "inputs_embeds": embeds.index_put(at, tokens)}

    handle = decoder.register_forward_pre_hook(write, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def cached_length(kwargs: Mapping[str, Any]) -> int | None:
    """How much of the sequence the cache of a decoder call holds already; None where it is called without one.

    The decoder's argument is called `cache` from transformers 5.24 on, `past_key_values` before.
    """
    cache = kwargs.get("cache", kwargs.get("past_key_values"))
    return None if cache is None else int(cache.get_seq_length())


def _slots_of_call(slots: Tensor, embeds: Tensor, *, start: int) -> Tensor:
    """The slots of the rows and the stretch of sequence, from `start` on, that one decoder call covers."""
    stretch = slots[:, start : start + embeds.shape[1]]
    return stretch.repeat_interleave(embeds.shape[0] // slots.shape[0], dim=0)


def number_slots(input_ids: Tensor, placeholder_id: int, promised: Sequence[int]) -> Tensor:
    """Number the placeholders of a batch in reading order; -1 everywhere else.

    Args:
        input_ids: `(batch, length)`.
        placeholder_id: id of the placeholder token.
        promised: object tokens promised in each sample.

    Returns:
        `(batch, length)` int64 on the CPU.

    Raises:
        SpliceError: a sample holds more or fewer placeholders than its regions promised.
    """
    at = (input_ids == placeholder_id).cpu()
    found = at.sum(dim=1).tolist()
    if len(found) != len(promised):
        raise SpliceError(f"The regions are of {len(promised)} samples, but input_ids has {len(found)} rows.")
    for sample, (got, expected) in enumerate(zip(found, promised, strict=True)):
        if got != expected:
            raise SpliceError(
                f"The regions of sample {sample} promised {expected} object tokens but its text holds {got} "
                "placeholders. Was it truncated, or edited after the processor made it?"
            )
    return torch.where(at, at.flatten().cumsum(0).view_as(at) - 1, -1)
