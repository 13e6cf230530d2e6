"""k-means of object tokens: against Lloyd's algorithm in plain loops, how good its clusters are, and what they must
not depend on."""

import numpy as np
import pytest
import torch
from conftest import CountOps
from hypothesis import given, settings
from hypothesis import strategies as st
from pixelrefer_saot.kmeans import KMeans, groups_of, padded_length
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.nn.functional import interpolate, one_hot

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def aggregate(tokens, *, num_clusters, iterations=5, start="even", grouped_for=CPU):
    """Per region `(n, C)` means, in the regions' order; None for a region of no more than n tokens."""
    lengths = [len(each) for each in tokens]
    groups = groups_of(lengths, num_clusters=num_clusters, start=start, device=grouped_for)
    kmeans, flat = KMeans.started(start, iterations=iterations), torch.cat(list(tokens))
    means = [None] * len(tokens)
    for group in groups:
        of_group = kmeans(flat, *map(torch.from_numpy, group.arrays))
        for region, each in zip(group.regions, of_group, strict=True):
            means[region] = each
    return means


def smooth_tokens(rows, columns, width, *, seed):
    """Low-frequency random fields over a grid, much like a tower's features of one object."""
    coarse = torch.randn(1, width, 3, 3, generator=torch.Generator().manual_seed(seed))
    return interpolate(coarse, (rows, columns), mode="bicubic")[0].flatten(1).T.contiguous()


def random_tokens(rows, columns, width, *, seed):
    return torch.randn(rows * columns, width, generator=torch.Generator().manual_seed(seed))


# --- the algorithm, written out -----------------------------------------------------------------------------


def even_start(tokens, n):
    """The middles of n stretches of the tokens, each moved by a fifth of the way to the mean of all."""
    mean = sum(tokens) / len(tokens)
    return [0.8 * tokens[int((k + 0.5) * len(tokens) / n)] + 0.2 * mean for k in range(n)]


def plain_kmeans(tokens, centroids, *, iterations):
    """Lloyd's algorithm; an empty cluster stays where it is."""
    for _ in range(iterations):
        clusters = [[] for _ in centroids]
        for token in tokens:
            distances = [((token - centroid) ** 2).sum().item() for centroid in centroids]
            clusters[distances.index(min(distances))].append(token)
        centroids = [
            sum(members) / len(members) if members else old for members, old in zip(clusters, centroids, strict=True)
        ]
    return centroids


def exact_means(tokens, n):
    exact = list(tokens.double())
    return torch.stack(plain_kmeans(exact, even_start(exact, n), iterations=5))


@pytest.mark.parametrize("device", [CPU, GPU], ids=str)
def test_means_are_those_of_the_plain_algorithm(device):
    tokens = [smooth_tokens(rows, 7, 16, seed=rows) for rows in (5, 9, 12, 11, 5)]
    for each, means in zip(tokens, aggregate(tokens, num_clusters=32, grouped_for=device), strict=True):
        torch.testing.assert_close(means, exact_means(each, 32).float(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("device", [CPU, GPU], ids=str)
def test_a_random_start_is_the_first_of_one_permutation_per_region(device):
    tokens = [smooth_tokens(rows, 7, 16, seed=rows) for rows in (9, 4, 12)]
    torch.manual_seed(3)
    means = aggregate(tokens, num_clusters=30, start="random", grouped_for=device)
    torch.manual_seed(3)
    for each, delivered in zip(tokens, means, strict=True):
        if len(each) <= 30:
            assert delivered is None, "and no number is drawn for it"
            continue
        exact = list(each.double())
        expected = plain_kmeans(exact, [exact[index] for index in torch.randperm(len(each))[:30]], iterations=5)
        torch.testing.assert_close(delivered.double(), torch.stack(expected), atol=1e-5, rtol=0)


def test_a_cluster_without_tokens_keeps_its_last_centroid():
    near, far = torch.eye(4)[:1].expand(5, 4), 9 * torch.eye(4)[1:2].expand(4, 4)
    tokens = torch.cat([near, far]).contiguous()
    (means,) = aggregate([tokens], num_clusters=3)
    expected = torch.stack(plain_kmeans(list(tokens), even_start(list(tokens), 3), iterations=5))
    torch.testing.assert_close(means, expected, atol=1e-6, rtol=0)
    assert not torch.isclose(means[:, None], tokens[[0, -1]]).all(dim=2).any(dim=1).all(), "one is neither's mean"


# --- how good ---------------------------------------------------------------------------------------------------


def within_cluster_squares(tokens, centroids):
    return float((torch.cdist(tokens.double(), centroids.double()) ** 2).min(dim=1).values.sum())


def lloyd_from(tokens, starts, iterations):
    """k-means from many random starts at once: `(starts, n, C)` centroids."""
    centroids = tokens[starts]
    for _ in range(iterations):
        nearest = torch.cdist(tokens.expand(len(starts), -1, -1), centroids).argmin(dim=2)
        members = one_hot(nearest, starts.shape[1]).to(tokens)
        sizes = members.sum(dim=1)[..., None]
        centroids = torch.where(sizes > 0, members.transpose(1, 2) @ tokens / sizes.clamp(min=1), centroids)
    return centroids


@pytest.mark.parametrize(("num_clusters", "iterations"), [(32, 5), (16, 3)])
@pytest.mark.parametrize("width", [24, 192])
@pytest.mark.parametrize("make_tokens", [smooth_tokens, random_tokens])
def test_the_even_start_is_no_worse_than_random_ones(make_tokens, width, num_clusters, iterations):
    generator, ratios = torch.Generator().manual_seed(0), []
    for seed in range(20):
        tokens = make_tokens(7 + seed % 4, 8 + seed % 3, width, seed=seed)
        (means,) = aggregate([tokens], num_clusters=num_clusters, iterations=iterations)
        starts = torch.stack([torch.randperm(len(tokens), generator=generator)[:num_clusters] for _ in range(100)])
        random_squares = [within_cluster_squares(tokens, each) for each in lloyd_from(tokens, starts, iterations)]
        ratios.append(within_cluster_squares(tokens, means) / np.mean(random_squares))
    assert np.mean(ratios) <= 1


# --- what it must not depend on -----------------------------------------------------------------------------------


def wall_tokens(rows, columns, width, *, seed):
    """A blank wall: tokens on a lattice, where many are as near to one centroid as to another."""
    linear = torch.randn(2, width, generator=torch.Generator().manual_seed(seed))
    return torch.cartesian_prod(torch.arange(rows) / 50.0, torch.arange(columns) / 40.0) @ linear


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_regions_means_are_the_same_bits_in_any_batch_and_order(data):
    width = data.draw(st.sampled_from([3, 16, 17, 48, 192]), label="width")
    make_tokens = data.draw(st.sampled_from([smooth_tokens, random_tokens, wall_tokens]), label="kind")
    sizes = data.draw(st.lists(st.tuples(st.integers(1, 14), st.integers(1, 14)), min_size=1, max_size=12))
    tokens = [make_tokens(*size, width, seed=index) for index, size in enumerate(sizes)]
    num_clusters = data.draw(st.sampled_from([1, 4, 7, 32]), label="clusters")
    together = aggregate(tokens, num_clusters=num_clusters)
    chosen = data.draw(st.permutations(range(len(tokens))), label="order")
    chosen = chosen[: data.draw(st.integers(1, len(chosen)), label="regions")]
    for index, means in zip(chosen, aggregate([tokens[i] for i in chosen], num_clusters=num_clusters), strict=True):
        if len(tokens[index]) > num_clusters:
            assert torch.equal(means, together[index])


@given(
    st.lists(st.integers(1, 3000), min_size=1, max_size=60), st.sampled_from([1, 8, 32]), st.sampled_from([CPU, GPU])
)
def test_less_than_a_quarter_of_padding(lengths, num_clusters, device):
    groups = groups_of(lengths, num_clusters=num_clusters, start="even", device=device)
    assert sorted(region for group in groups for region in group.regions) == [
        region for region, length in enumerate(lengths) if length > num_clusters
    ]
    first = np.cumsum([0, *lengths])
    for group in groups:
        padded = group.rows.shape[1]
        for region, rows, length in zip(group.regions, group.rows, group.lengths[:, 0], strict=True):
            assert length == lengths[region] <= padded < 1.25 * length
            assert list(rows[:length]) == list(range(first[region], first[region] + length))
            assert set(rows[length:]) <= {first[region]}


def test_lengths_grow_geometrically():
    assert len({padded_length(length) for length in range(1, 1025)}) == 36
    assert [padded_length(length) for length in (1, 7, 9, 33, 100, 1000)] == [1, 7, 10, 40, 112, 1024]


def test_identical_tokens_stay_that_token():
    token = torch.randn(12, generator=torch.Generator().manual_seed(0))
    tokens = token.expand(60, 12).clone().requires_grad_()
    (means,) = aggregate([tokens], num_clusters=32)
    torch.testing.assert_close(means, token.expand(32, 12), atol=1e-6, rtol=0)
    means.sum().backward()
    assert tokens.grad.isfinite().all()


@pytest.mark.parametrize("offset", [0.0, 1e2, 1e4])
def test_an_offset_that_all_tokens_share_costs_no_precision(offset):
    tokens = smooth_tokens(10, 11, 64, seed=3) + offset
    (means,) = aggregate([tokens], num_clusters=32)
    torch.testing.assert_close(means.double(), exact_means(tokens, 32), atol=1e-6 * max(1.0, offset), rtol=0)


def test_autocast_does_not_change_the_means():
    tokens = smooth_tokens(9, 10, 32, seed=0)
    (expected,) = aggregate([tokens], num_clusters=32)
    with torch.autocast("cpu", torch.bfloat16):
        (means,) = aggregate([tokens], num_clusters=32)
    assert torch.equal(means, expected)


@pytest.mark.parametrize("device", [CPU, GPU], ids=str)
def test_gradients_are_those_of_the_means(device):
    tokens = [smooth_tokens(rows, 7, 16, seed=rows).double().requires_grad_() for rows in (5, 9, 5)]
    weights = [torch.randn(8, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    means = aggregate(tokens, num_clusters=8, grouped_for=device)
    sum((each * weight).sum() for each, weight in zip(means, weights, strict=True)).backward()
    for each, weight in zip(tokens, weights, strict=True):
        leaf = each.detach().clone().requires_grad_()
        plain = list(leaf.unbind())
        expected = torch.stack(plain_kmeans(plain, even_start(plain, 8), iterations=5))
        (expected * weight).sum().backward()
        torch.testing.assert_close(each.grad, leaf.grad, atol=1e-9, rtol=0)


def test_there_is_no_loop_over_clusters_tokens_or_regions_of_a_size():
    def ops(regions, tokens, clusters):
        with CountOps() as counter:
            aggregate(torch.randn(regions, tokens, 16), num_clusters=clusters, grouped_for=GPU)
        return counter.count - regions  # the test takes the tokens apart

    assert ops(2, 40, 4) == ops(2, 40, 32) == ops(2, 1000, 32)
    assert ops(20, 40, 4) - ops(2, 40, 4) <= 18  # and the means


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_nothing_waits_for_the_device(device):
    """On tensors of shapes alone, which need no GPU and refuse what would wait for one."""
    (group,) = groups_of([100, 110], num_clusters=32, start="even", device=GPU)
    with FakeTensorMode():
        tokens = torch.randn(210, 16, device=device, requires_grad=True)
        arrays = [torch.from_numpy(each).to(device) for each in group.arrays]
        total = KMeans.started("even", iterations=5)(tokens, *arrays).sum()
        if device == "cpu":  # autograd asks for the GPU itself
            total.backward()
            assert tokens.grad.shape == tokens.shape
        with pytest.raises(DataDependentOutputException):
            total.item()
