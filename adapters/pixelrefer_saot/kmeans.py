"""Abundant Feature Aggregation: many similar tokens of an object become n cluster means (PixelRefer eq. 6)."""

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def aggregate(tokens: tuple[Tensor, ...], *, num_clusters: int, iterations: int) -> Tensor:
    """k-means over each object's tokens, all objects at once.

    Deterministic: the first centroids are tokens spaced evenly in raster order, where the paper draws them
    at random. A cluster that loses all its tokens keeps its last centroid. Gradients flow through the
    means; the assignment of tokens to clusters has none.

    Distances come from the tokens' Gram matrix, since a centroid is a weighting of tokens: after one matrix
    product per object a round costs nothing that depends on the width C.

    Args:
        tokens: per object `(m_i, C)`, each with more than `num_clusters` rows.
        num_clusters: n.
        iterations: rounds.

    Returns:
        `(objects, n, C)`, cluster means.
    """
    padded = pad_sequence(tokens, batch_first=True)
    lengths = torch.tensor([len(each) for each in tokens], device=padded.device)
    with torch.no_grad():
        weights = _cluster_weights(padded.float(), lengths, num_clusters, iterations)
    return weights.transpose(1, 2).to(padded.dtype) @ padded


def _cluster_weights(padded: Tensor, lengths: Tensor, num_clusters: int, iterations: int) -> Tensor:
    """`(objects, m, n)`: column k weighs the tokens whose mean is centroid k; padding weighs nothing."""
    longest = padded.shape[1]
    real = (torch.arange(longest, device=padded.device) < lengths[:, None])[..., None]
    # Distances do not change when tokens are shifted, but their rounding does: remove what all have in common.
    centred = (padded - padded.sum(dim=1, keepdim=True) / lengths[:, None, None]) * real
    gram = centred @ centred.transpose(1, 2)
    steps = torch.arange(num_clusters, device=padded.device)
    seeds = (steps * lengths[:, None]) // num_clusters
    weights = torch.nn.functional.one_hot(seeds, longest).transpose(1, 2).to(gram.dtype)
    for _ in range(iterations):
        to_centroid = gram @ weights
        centroid_norm = (weights * to_centroid).sum(dim=1, keepdim=True)
        nearest = (centroid_norm - 2 * to_centroid).argmin(dim=2)
        members = torch.nn.functional.one_hot(nearest, num_clusters).to(gram.dtype) * real
        sizes = members.sum(dim=1, keepdim=True)
        weights = torch.where(sizes > 0, members / sizes.clamp(min=1), weights)
    return weights
