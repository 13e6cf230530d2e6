"""Random numbers that depend on nothing but the seed and the place in the training.

What a sample's preparation draws follows from seed, epoch and batch; what the model draws, such as dropout, from seed,
step and process. So neither the number of worker processes, nor an evaluation, nor a stop in between changes what is
learnt. It knows no model and no trainer.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler


def seed_random(*parts: object) -> None:
    """Seed the generators of Python, numpy and torch from all of the parts together."""
    seed = int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=7).digest(), "big")
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def seeded(*parts: object) -> Iterator[None]:
    """Within the block the generators are seeded from the parts; afterwards those of the CPU are as they were."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed_random(*parts)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


class EpochSampler(Sampler[Any]):
    """The indices of another sampler, each with the number of the epoch, so that worker processes know it too."""

    def __init__(self, indices: Any) -> None:
        self.indices = indices
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """The next pass is this epoch."""
        self.epoch = epoch
        self.indices.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((self.epoch, index) for index in self.indices)


class SeededBatch(list[Any]):
    """Samples of a batch, and what their random numbers follow from."""

    place: tuple[object, ...] = ()


class SeededDataset(Dataset[Any]):
    """Another dataset, which reads a batch with random numbers of that batch.

    Args:
        dataset: has `__getitem__` and `__len__`, perhaps `__getitems__`.
        seed: of all random numbers.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]

    def __getitems__(self, keys: Sequence[tuple[int, int] | int]) -> SeededBatch:
        """A batch by `(epoch, index)` each; without an epoch, of held-out samples, an index alone."""
        indices = [key if isinstance(key, int) else key[1] for key in keys]
        place = (self.seed, *keys)
        with seeded(*place, "read"):
            several = getattr(self.dataset, "__getitems__", None)
            batch = SeededBatch(several(indices) if several else [self.dataset[index] for index in indices])
        batch.place = place
        return batch


class SeededCollator:
    """Another collator, which prepares a `SeededBatch` with random numbers of that batch."""

    def __init__(self, collator: Callable[[Sequence[Any]], Any]) -> None:
        self.collator = collator

    def __call__(self, samples: Sequence[Any]) -> Any:
        if not isinstance(samples, SeededBatch):
            return self.collator(samples)
        with seeded(*samples.place):
            return self.collator(list(samples))
