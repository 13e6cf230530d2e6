"""Abundant Feature Aggregation: many similar tokens of an object become n means (PixelRefer eq. 6).

Which regions run together is decided on the CPU from numbers that it knows beforehand (`groups_of`), so that the work
itself (`KMeans`) is tensors alone: no device sync, and one graph for `torch.compile` whatever the regions.

Shape letters: B regions of a group, L their padded length, n clusters, M tokens of all regions, C width.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

# How far the first centroids of an even start lie on the way from a token to the mean of all: a token by itself
# attracts too few of the others. Measured in tests/test_kmeans.py.
_EVEN_PULL = 0.2


@dataclass(frozen=True, eq=False)
class Group:
    """Regions that are clustered together, as indices.

    Attributes:
        regions: which ones.
        rows: `(B, L)` int64, the rows of their tokens; past a region's own, its first one again.
        lengths: `(B, 1)` int64, tokens of each.
        seeds: `(B, n)` int64, which of a region's tokens its first centroids are.
    """

    regions: tuple[int, ...]
    rows: np.ndarray
    lengths: np.ndarray
    seeds: np.ndarray

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What `KMeans` reads."""
        return self.rows, self.lengths, self.seeds


def padded_length(length: int) -> int:
    """The next of the lengths 1, 2, .. 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, ..: less than a quarter more."""
    step = max(1, (1 << (length - 1).bit_length()) >> 3)
    return -(-length // step) * step


def groups_of(lengths: Sequence[int], *, num_clusters: int, start: str, device: torch.device) -> list[Group]:
    """Which regions of more than `num_clusters` tokens are clustered together, and from which tokens.

    On a GPU regions of about one length are, for few and large kernels. On a CPU each is by itself: there it costs no
    more, and a region's means are the same to the last bit whatever else is in the batch, which no library promises of
    its batched products.

    Args:
        lengths: tokens of each region; they lie one region after another.
        num_clusters: n.
        start: `even`: tokens spaced evenly in raster order. `random`: the first n of a permutation by torch's
            global generator, one for each region that is clustered, in their order, as the official code draws it.
        device: where the tokens are.
    """
    crowded = [region for region, length in enumerate(lengths) if length > num_clusters]
    seeds = {region: _seeds(lengths[region], num_clusters, start) for region in crowded}
    first_row = np.cumsum([0, *lengths])
    groups = []
    for padded, regions in _of_about_one_length(crowded, lengths) if device.type != "cpu" else _alone(crowded, lengths):
        own = np.array([lengths[region] for region in regions])[:, None]
        steps = np.arange(padded)
        rows = first_row[regions][:, None] + np.where(steps < own, steps, 0)
        groups.append(Group(tuple(regions), rows, own, np.stack([seeds[region] for region in regions])))
    return groups


def _alone(regions: Sequence[int], lengths: Sequence[int]) -> list[tuple[int, list[int]]]:
    return [(lengths[region], [region]) for region in regions]


def _of_about_one_length(regions: Sequence[int], lengths: Sequence[int]) -> list[tuple[int, list[int]]]:
    of_length: dict[int, list[int]] = defaultdict(list)
    for region in regions:
        of_length[padded_length(lengths[region])].append(region)
    return list(of_length.items())


def _seeds(length: int, num_clusters: int, start: str) -> np.ndarray:
    if start == "random":
        return torch.randperm(length)[:num_clusters].numpy()
    return (2 * np.arange(num_clusters) + 1) * length // (2 * num_clusters)


class KMeans(nn.Module):
    """Lloyd's algorithm for the regions of one group; no parameters, a module so that it can be compiled.

    A token as near to two centroids goes to the first; a cluster that loses all its tokens keeps its last centroid.
    Gradients flow through the means; the assignment of tokens to clusters has none.

    Args:
        iterations: rounds.
        pull: how far each first centroid is moved from its token towards the region's mean, 0 to 1.
    """

    def __init__(self, *, iterations: int, pull: float) -> None:
        super().__init__()
        self.iterations = iterations
        self.pull = pull

    @classmethod
    def started(cls, start: str, *, iterations: int) -> "KMeans":
        """k-means for the seeds that `groups_of` gives for `start`: random ones stay the tokens that they are."""
        return cls(iterations=iterations, pull=_EVEN_PULL if start == "even" else 0.0)

    def forward(self, tokens: Tensor, rows: Tensor, lengths: Tensor, seeds: Tensor) -> Tensor:
        """Cluster means.

        Args:
            tokens: `(M, C)`, those of all regions.
            rows: `(B, L)`, `lengths` `(B, 1)` and `seeds` `(B, n)`, as in `Group`.

        Returns:
            `(B, n, C)`, computed in float32 at least whatever the tokens or autocast say: assignments hang on it.
        """
        with torch.autocast(tokens.device.type, enabled=False):
            padded = tokens[rows].to(torch.promote_types(tokens.dtype, torch.float32))
            # Distances do not change when all tokens are shifted, but their rounding does: remove what they share.
            shift = padded[:, :1].detach()
            shifted = padded - shift
            with torch.no_grad():
                weights = self._weights(shifted, lengths, seeds)
            return torch.baddbmm(shift, weights.transpose(1, 2), shifted).to(tokens.dtype)

    def _weights(self, shifted: Tensor, lengths: Tensor, seeds: Tensor) -> Tensor:
        """`(B, L, n)`: column k weighs the tokens whose mean is centroid k; padding weighs nothing.

        Distances come from the tokens' Gram matrix, since a centroid is a weighting of tokens: after one matrix
        product per region a round costs nothing that depends on the width C.
        """
        length = shifted.shape[1]
        gram = shifted @ shifted.transpose(1, 2)
        clusters = torch.arange(seeds.shape[1], device=seeds.device)
        real = (torch.arange(length, device=seeds.device) < lengths)[..., None]
        seeded = (torch.arange(length, device=seeds.device)[:, None] == seeds[:, None]).to(gram.dtype)
        weights = (1 - self.pull) * seeded + self.pull * real.to(gram.dtype) / lengths[..., None]
        for _ in range(self.iterations):
            to_centroid = gram @ weights
            centroid_norm = (weights * to_centroid).sum(dim=1, keepdim=True)
            nearest = torch.add(centroid_norm, to_centroid, alpha=-2).argmin(dim=2, keepdim=True)
            members = ((nearest == clusters) & real).to(gram.dtype)
            sizes = members.sum(dim=1, keepdim=True)
            weights = torch.where(sizes > 0, members / sizes.clamp(min=1), weights)
        return weights
