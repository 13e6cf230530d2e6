"""What callers give the processor beside conversations: checked, and dealt out to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import PromptError, shown
from ..media.video import FrameSampling
from .memory import ObjectMemory

_MOST_REGIONS = 2**20


def checked_sampling(sampling: Any) -> FrameSampling | None:
    """The rule by which videos are sampled, where one is given.

    Raises:
        PromptError: it is something else.
    """
    if sampling is None or isinstance(sampling, FrameSampling):
        return sampling
    raise PromptError(f"sampling must be a FrameSampling, such as FrameSampling(num_frames=8), got {shown(sampling)}.")


def require_choices(*, segment: Any, labels: Any, padding_side: Any) -> None:
    """Refuse what is no choice of these options.

    Raises:
        PromptError: names the option.
    """
    for name, value in (("segment", segment), ("labels", labels)):
        if not isinstance(value, bool | np.bool_):
            raise PromptError(f"{name} must be True or False, got {shown(value)}.")
    if padding_side is not None and (not isinstance(padding_side, str) or padding_side not in ("left", "right")):
        raise PromptError(f"padding_side must be 'left' or 'right', got {shown(padding_side)}.")


def region_lists_of(regions: Any, *, single: bool, num_conversations: int) -> Sequence[Sequence[Any]]:
    """The regions of each conversation.

    Raises:
        PromptError: they are not a list for each.
    """
    if regions is not None and not isinstance(regions, Sequence):
        raise PromptError(f"Expected a list of regions, got {shown(regions)}.")
    lists: Any = [regions or []] if single else (regions or [[] for _ in range(num_conversations)])
    if not all(isinstance(each, Sequence) for each in (lists, *lists)):
        raise PromptError("Expected a list of regions for one conversation, and a list of such lists for a batch.")
    if len(lists) != num_conversations:
        raise PromptError(f"Got {num_conversations} conversations but {len(lists)} lists of regions.")
    if most := next((len(each) for each in lists if len(each) > _MOST_REGIONS), 0):
        raise PromptError(f"A conversation may have {_MOST_REGIONS:,} regions, got {most:,}.")
    return list(lists)


def memories_of(memory: Any, *, single: bool, num_conversations: int) -> list[ObjectMemory | None]:
    """The memory of each conversation.

    Raises:
        PromptError: they are not one or None for each.
    """
    if isinstance(memory, ObjectMemory) and not single:
        raise PromptError("Expected a list of memories for a batch, one or None for each conversation, got one memory.")
    memories: Any = [memory] if single else memory
    if memories is None:
        return [None] * num_conversations
    if not isinstance(memories, Sequence) or not all(isinstance(each, ObjectMemory | None) for each in memories):
        raise PromptError(
            f"memory must be an ObjectMemory, or for a batch a list of them and None, got {shown(memory)}."
        )
    if len(memories) != num_conversations:
        raise PromptError(f"Got {num_conversations} conversations but {len(memories)} memories.")
    return list(memories)
