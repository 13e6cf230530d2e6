"""Abundant Feature Aggregation: many similar tokens of an object become n means (PixelRefer eq. 6)."""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad
from torch.nn.utils.rnn import pad_sequence

# Objects are padded to a multiple of this many tokens and run together with those of the same padded length.
# An object's arithmetic is then the same whatever else is in the batch, and little of it is spent on padding.
_BLOCK = 16


def aggregate(tokens: Sequence[Tensor], *, num_clusters: int, iterations: int) -> list[Tensor]:
    """k-means over each object's tokens, objects of about one size at once.

    Deterministic: the first centroids are tokens spaced evenly in raster order, where the paper draws them
    at random. A token as near to two centroids goes to the first; a cluster that loses all its tokens keeps
    its last centroid. Gradients flow through the means; the assignment of tokens to clusters has none.

    Args:
        tokens: per object `(m_i, C)`, each with more than `num_clusters` rows.
        num_clusters: n.
        iterations: rounds.

    Returns:
        Per object `(n, C)`, the cluster means.
    """
    of_length: dict[int, list[int]] = defaultdict(list)
    for index, each in enumerate(tokens):
        of_length[-(-len(each) // _BLOCK) * _BLOCK].append(index)
    means: dict[int, Tensor] = {}
    for length, members in of_length.items():
        first, *others = [tokens[index] for index in members]
        padded = pad_sequence([pad(first, (0, 0, 0, length - len(first))), *others], batch_first=True)
        lengths = torch.tensor([len(tokens[index]) for index in members], device=padded.device)
        means |= zip(members, _cluster_means(padded, lengths, num_clusters, iterations), strict=True)
    return [means[index] for index in range(len(tokens))]


def _cluster_means(padded: Tensor, lengths: Tensor, num_clusters: int, iterations: int) -> Tensor:
    """`(objects, n, C)`, at least in float32 whatever the tokens or autocast say: assignments hang on it."""
    with torch.autocast(padded.device.type, enabled=False):
        exact = padded.to(torch.promote_types(padded.dtype, torch.float32))
        with torch.no_grad():
            weights = _cluster_weights(exact, lengths, num_clusters, iterations)
        return (weights.transpose(1, 2) @ exact).to(padded.dtype)


def _cluster_weights(padded: Tensor, lengths: Tensor, num_clusters: int, iterations: int) -> Tensor:
    """`(objects, m, n)`: column k weighs the tokens whose mean is centroid k; padding weighs nothing.

    Distances come from the tokens' Gram matrix, since a centroid is a weighting of tokens: after one matrix
    product per object a round costs nothing that depends on the width C.
    """
    longest = padded.shape[1]
    real = (torch.arange(longest, device=padded.device) < lengths[:, None])[..., None]
    # Distances do not change when tokens are shifted, but their rounding does: remove what all share.
    centred = padded - padded.sum(dim=1, keepdim=True) / lengths[:, None, None]
    gram = centred @ centred.transpose(1, 2)
    steps = torch.arange(num_clusters, device=padded.device)
    seeds = (steps * lengths[:, None]) // num_clusters
    weights = one_hot(seeds, longest).transpose(1, 2).to(gram.dtype)
    for _ in range(iterations):
        to_centroid = gram @ weights
        centroid_norm = (weights * to_centroid).sum(dim=1, keepdim=True)
        nearest = (centroid_norm - 2 * to_centroid).argmin(dim=2)
        members = one_hot(nearest, num_clusters).to(gram.dtype) * real
        sizes = members.sum(dim=1, keepdim=True)
        weights = torch.where(sizes > 0, members / sizes.clamp(min=1), weights)
    return weights
