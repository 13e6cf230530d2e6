"""Native tensors of samples that were processed alone, joined to those of a batch. It knows no processor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import BatchFeature


def joined_samples(alone: Sequence[Mapping[str, Any]], *, pad_token_id: int) -> BatchFeature:
    """The tensors of a batch: those with a value for each token padded on the right, the others one after another.

    Args:
        alone: the native tensors of each sample.
        pad_token_id: what fills `input_ids` up; the others are filled up with 0.
    """
    longest = max(each["input_ids"].shape[1] for each in alone)
    names = dict.fromkeys(name for each in alone for name in each)
    joined = {}
    for name in names:
        tensors = [each[name] for each in alone if name in each]
        if all(each[name].shape == each["input_ids"].shape for each in alone if name in each):
            fill = pad_token_id if name == "input_ids" else 0
            tensors = [pad(each, (0, longest - each.shape[1]), value=fill) for each in tensors]
        joined[name] = torch.cat(tensors)
    return BatchFeature(joined)
