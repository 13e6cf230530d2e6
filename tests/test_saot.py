"""SAOT against the paper written out in loops, and the properties that its k-means must have."""

import math

import numpy as np
import pytest
import torch
from conftest import CountOps
from pixelrefer_saot.kmeans import aggregate
from pixelrefer_saot.module import Saot, relative_positions
from torch.nn.functional import interpolate

from pixelrefer_plugin import (
    EncodedView,
    FeatureGrids,
    PatchGeometry,
    PixelReferError,
    RegionMask,
    get_adapter,
)
from pixelrefer_plugin.region_batch import PlannedRegion, RegionBatch, make_region_batch

SAOT = get_adapter("saot")
CONFIG = SAOT.make_config()
GEOMETRY = PatchGeometry(patch_size=14)


def ellipse(image_hw, centre_xy, size_wh):
    """A `RegionMask` of the pixels whose centres lie in an ellipse."""
    y, x = np.mgrid[: image_hw[0], : image_hw[1]] + 0.5
    inside = ((x - centre_xy[0]) / size_wh[0]) ** 2 + ((y - centre_xy[1]) / size_wh[1]) ** 2 <= 0.25
    return RegionMask.from_dense(inside)


def batch_of(masks, config=CONFIG, geometry=GEOMETRY) -> RegionBatch:
    """The regions of one blank image, planned and laid out."""
    from PIL import Image

    height, width = masks[0].image_hw
    return make_region_batch(
        [[[PlannedRegion(mask, SAOT.plan(config, mask, geometry), picture=0)] for mask in masks]],
        adapter="saot",
        placeholder_id=9,
        pictures=[Image.new("RGB", (width, height))],
        geometry=geometry,
        pixel_mean=[0.5] * 3,
        pixel_std=[0.5] * 3,
    )


def encode(batch, features) -> tuple[EncodedView]:
    """The batch's only view with these features, one `(h * w, C)` per crop."""
    (layout,) = batch.views
    return (layout.encoded(FeatureGrids(torch.cat(features), layout.grids_hw)),)


def random_features(batch, width, *, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(h * w, width, generator=generator, dtype=dtype) for h, w in batch.views[0].grids_hw]


def build(config=CONFIG, *, vision_width=12, decoder_width=10) -> Saot:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SAOT.build(config, vision_width=vision_width, decoder_width=decoder_width).eval()


def smooth_tokens(rows, columns, width, *, seed):
    """Low-frequency random fields over a grid, much like a tower's features of one object."""
    coarse = torch.randn(1, width, 3, 3, generator=torch.Generator().manual_seed(seed))
    return interpolate(coarse, (rows, columns), mode="bicubic")[0].flatten(1).T.contiguous()


# --- the paper, written out ---------------------------------------------------------------------------------


def paper_scale(area, n, patch_px):
    omega = patch_px * patch_px
    if area > 100 * omega:
        return math.sqrt(omega * 100 / area)
    if area < n * omega:
        return math.sqrt(omega * n / area)
    return 1.0


def paper_kmeans(tokens, n, iterations):
    """Lloyd's algorithm from tokens evenly spaced in raster order; an empty cluster stays where it is."""
    centroids = [tokens[(k * len(tokens)) // n] for k in range(n)]
    for _ in range(iterations):
        clusters = [[] for _ in range(n)]
        for token in tokens:
            distances = [float(((token - centroid) ** 2).sum()) for centroid in centroids]
            clusters[distances.index(min(distances))].append(token)
        centroids = [
            sum(members) / len(members) if members else old for members, old in zip(clusters, centroids, strict=True)
        ]
    return centroids


@torch.no_grad()
def paper_object_tokens(module, mask, n, patch_px, features_of_grid):
    """Eq. 2 to 6 for one object, in float64. `features_of_grid(h, w)` is the vision encoder."""
    window, (x0, y0, x1, y1), (image_h, image_w) = mask.window, mask.box_xyxy, mask.image_hw
    scale = paper_scale(int(window.sum()), n, patch_px)
    context = 2 * patch_px / scale
    x_b, y_b = max(0, math.floor(x0 - context)), max(0, math.floor(y0 - context))
    w_b = min(image_w, math.ceil(x1 + context)) - x_b
    h_b = min(image_h, math.ceil(y1 + context)) - y_b
    columns, rows = max(1, round(w_b * scale / patch_px)), max(1, round(h_b * scale / patch_px))
    covered = paper_mask_grid(mask.dense()[y_b : y_b + h_b, x_b : x_b + w_b], rows, columns)
    features = features_of_grid(rows, columns).double()
    weight, bias = module.position.weight.double(), module.position.bias.double()
    tokens = []
    for i in range(rows):
        for j in range(columns):
            if covered[i][j] >= 0.5 * max(map(max, covered)):
                position = torch.tensor(
                    [((j / columns) * w_b + x_b) / (image_w - 1), ((i / rows) * h_b + y_b) / (image_h - 1)],
                    dtype=torch.float64,
                )
                tokens.append(features[i * columns + j] + weight @ position + bias)
    if len(tokens) > n:
        tokens = paper_kmeans(tokens, n, 5)
    first, last = module.mlp[0], module.mlp[2]
    out = []
    for token in tokens:
        hidden = first.weight.double() @ token + first.bias.double()
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
        out.append(last.weight.double() @ hidden + last.bias.double())
    return torch.stack(out).float()


def paper_mask_grid(pixels, rows, columns):
    """Share of each cell that the pixels cover."""
    height, width = pixels.shape
    covered = [[0.0] * columns for _ in range(rows)]
    for i in range(rows):
        for j in range(columns):
            top, bottom, left, right = (
                i * height / rows,
                (i + 1) * height / rows,
                j * width / columns,
                (j + 1) * width / columns,
            )
            for y in range(int(top), min(height, math.ceil(bottom))):
                for x in range(int(left), min(width, math.ceil(right))):
                    if pixels[y, x]:
                        area = (min(bottom, y + 1) - max(top, y)) * (min(right, x + 1) - max(left, x))
                        covered[i][j] += max(0.0, area) / ((bottom - top) * (right - left))
    return covered


OBJECTS = {
    "one pixel": RegionMask(np.ones((1, 1), bool), (40, 25, 41, 26), (70, 90)),
    "small, grows": ellipse((150, 200), (70, 60), (31, 24)),
    "medium, stays": ellipse((260, 300), (140, 120), (121, 118)),
    "large, shrinks": ellipse((260, 300), (150, 130), (250, 240)),
    "at a corner": ellipse((150, 200), (2, 3), (40, 30)),
    "whole image": RegionMask(np.ones((60, 50), bool), (0, 0, 50, 60), (60, 50)),
}


@pytest.mark.parametrize("mask", OBJECTS.values(), ids=OBJECTS)
def test_it_computes_what_the_paper_says(mask):
    module, batch = build(), batch_of([mask])
    features = random_features(batch, 12)
    expected = paper_object_tokens(module, mask, 32, 14, lambda rows, columns: features[0])
    delivered = module(encode(batch, features), batch.counts)
    assert delivered.shape == expected.shape
    torch.testing.assert_close(delivered, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("multiple", [1, 2])
def test_an_object_covers_about_as_many_patches_as_equation_2_says(multiple):
    geometry = PatchGeometry(patch_size=14, grid_multiple=multiple)
    for side, expected in [(3, 32), (30, 32), (60, 32), (100, 51), (139, 98.6), (400, 100), (900, 100)]:
        mask = RegionMask(np.ones((side, side), bool), (50, 50, 50 + side, 50 + side), (1000, 1000))
        patches = SAOT.plan(CONFIG, mask, geometry).views[0].mask.sum()
        assert patches == pytest.approx(expected, rel=0.35), f"a square of {side} px"


def test_few_patches_come_out_as_they_are_in_raster_order():
    mask = ellipse((150, 200), (70, 60), (40, 38))
    module, batch = build(), batch_of([mask])
    features = random_features(batch, 12)
    (view,) = encode(batch, features)
    rows = np.flatnonzero(SAOT.plan(CONFIG, mask, GEOMETRY).views[0].mask)
    assert len(rows) == batch.counts[0] < 32
    expected = module.mlp(features[0][rows] + module.position(relative_positions(view)))
    torch.testing.assert_close(module((view,), batch.counts), expected)


def test_positions_of_an_image_one_pixel_wide_are_finite():
    batch = batch_of([RegionMask(np.ones((5, 1), bool), (0, 3, 1, 8), (20, 1))])
    assert relative_positions(encode(batch, random_features(batch, 4))[0]).isfinite().all()


# --- bounds -------------------------------------------------------------------------------------------------


def line(length):
    return RegionMask(np.ones((1, length), bool), (0, 1000, length, 1001), (3000, 4000))


def speckles(image_hw):
    dense = np.zeros(image_hw, bool)
    dense[0, 0] = dense[-1, -1] = True
    return RegionMask.from_dense(dense)


def diagonal(side):
    return RegionMask.from_dense(np.eye(side, dtype=bool))


EXTREMES = {
    "a pixel": RegionMask(np.ones((1, 1), bool), (2000, 1500, 2001, 1501), (3000, 4000)),
    "a line across": line(4000),
    "a short line": line(100),
    "a diagonal": diagonal(2000),
    "speckles in two corners": speckles((2000, 2000)),
    "an image of one pixel": speckles((1, 1)),
    "an image of one row": speckles((1, 3000)),
    "an image of one column": speckles((3000, 1)),
    "a whole image of one row": RegionMask(np.ones((1, 9000), bool), (0, 0, 9000, 1), (1, 9000)),
}


@pytest.mark.parametrize("multiple", [1, 2])
@pytest.mark.parametrize("mask", EXTREMES.values(), ids=EXTREMES)
def test_a_crop_stays_bounded(mask, multiple):
    plan = SAOT.plan(CONFIG, mask, PatchGeometry(14, multiple))
    assert math.prod(plan.views[0].grid_hw) <= CONFIG.max_patches
    assert 1 <= plan.num_tokens <= 32


def test_a_crop_that_is_too_large_is_not_shrunk_more_than_it_must():
    assert math.prod(SAOT.plan(CONFIG, diagonal(2000), GEOMETRY).views[0].grid_hw) > 0.75 * CONFIG.max_patches


def test_bounds_hold_for_the_tightest_config_too():
    config = SAOT.make_config({"num_tokens": 1, "large_patches": 1, "context_patches": 0, "max_patches": 4})
    for mask in EXTREMES.values():
        for multiple in (1, 2, 4):
            grid = SAOT.plan(config, mask, PatchGeometry(14, multiple)).views[0].grid_hw
            assert math.prod(grid) <= max(4, multiple**2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_tokens": 0}, r"num_tokens must be >= 1, got 0"),
        ({"num_tokens": 101}, r"large_patches must be >= num_tokens \(101\), got 100"),
        ({"context_patches": -1}, r"context_patches must be >= 0, got -1"),
        ({"max_patches": 200}, r"max_patches must be >= 225, room for 100 large_patches"),
        ({"kmeans_iterations": 0}, r"kmeans_iterations must be >= 1, got 0"),
        ({"tokens": 3}, r"no option 'tokens'. Its options: num_tokens"),
    ],
)
def test_a_wrong_option_is_refused(options, message):
    with pytest.raises(PixelReferError, match=message):
        SAOT.make_config(options)


# --- k-means ------------------------------------------------------------------------------------------------


def within_cluster_squares(tokens, centroids):
    return float((torch.cdist(tokens.double(), centroids.double()) ** 2).min(dim=1).values.sum())


def lloyd_from(tokens, starts, iterations):
    """k-means from many random starts at once: `(starts, n, C)` centroids."""
    centroids = tokens[starts]
    for _ in range(iterations):
        nearest = torch.cdist(tokens.expand(len(starts), -1, -1), centroids).argmin(dim=2)
        members = torch.nn.functional.one_hot(nearest, starts.shape[1]).to(tokens)
        sizes = members.sum(dim=1)[..., None]
        centroids = torch.where(sizes > 0, members.transpose(1, 2) @ tokens / sizes.clamp(min=1), centroids)
    return centroids


# Random features have no order, so an even start is one more random start: as good, within chance.
@pytest.mark.parametrize(("kind", "worst"), [("smooth", 0.95), ("random", 1.01)])
def test_the_even_start_is_as_good_as_random_ones(kind, worst):
    generator, ratios = torch.Generator().manual_seed(0), []
    for seed in range(40):
        rows, columns = 7 + seed % 4, 8 + seed % 3
        tokens = (
            smooth_tokens(rows, columns, 24, seed=seed)
            if kind == "smooth"
            else torch.randn(rows * columns, 24, generator=generator)
        )
        (means,) = aggregate([tokens], num_clusters=32, iterations=5)
        starts = torch.stack([torch.randperm(len(tokens), generator=generator)[:32] for _ in range(100)])
        random_squares = [within_cluster_squares(tokens, each) for each in lloyd_from(tokens, starts, 5)]
        ratios.append(within_cluster_squares(tokens, means) / np.mean(random_squares))
    assert np.mean(ratios) <= worst


def test_means_are_those_of_the_plain_algorithm():
    tokens = [smooth_tokens(rows, 7, 16, seed=rows) for rows in (5, 9, 12)]
    for each, means in zip(tokens, aggregate(tokens, num_clusters=32, iterations=5), strict=True):
        expected = torch.stack(paper_kmeans(list(each.double()), 32, 5)).float()
        torch.testing.assert_close(means, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("features", ["smooth", "constant with positions"])
def test_an_objects_means_do_not_depend_on_what_else_is_in_the_batch(features):
    sizes = [(6, 7), (9, 10), (8, 12), (9, 11), (16, 16), (6, 6), (10, 10), (30, 20)]
    if features == "smooth":
        tokens = [smooth_tokens(*size, 48, seed=index) for index, size in enumerate(sizes)]
    else:  # a blank wall: tokens on a lattice, where many are as near to one centroid as to another
        linear = torch.randn(2, 48, generator=torch.Generator().manual_seed(1))
        tokens = [torch.cartesian_prod(torch.arange(h) / 50.0, torch.arange(w) / 40.0) @ linear for h, w in sizes]
    alone = [aggregate([each], num_clusters=32, iterations=5)[0] for each in tokens]
    for order in (range(8), reversed(range(8)), [3, 1, 6], [2, 3, 7, 1]):
        order = list(order)
        together = aggregate([tokens[index] for index in order], num_clusters=32, iterations=5)
        for index, means in zip(order, together, strict=True):
            torch.testing.assert_close(means, alone[index], atol=1e-6, rtol=1e-6)


def test_identical_tokens_stay_that_token():
    token = torch.randn(12, generator=torch.Generator().manual_seed(0))
    tokens = token.expand(60, 12).clone().requires_grad_()
    (means,) = aggregate([tokens], num_clusters=32, iterations=5)
    torch.testing.assert_close(means, token.expand(32, 12), atol=1e-6, rtol=0)
    means.sum().backward()
    assert tokens.grad.isfinite().all()


@pytest.mark.parametrize("offset", [0.0, 1e2, 1e4])
def test_an_offset_that_all_tokens_share_costs_no_precision(offset):
    tokens = smooth_tokens(10, 11, 64, seed=3) + offset
    (means,) = aggregate([tokens], num_clusters=32, iterations=5)
    exact = torch.stack(paper_kmeans(list(tokens.double()), 32, 5))
    torch.testing.assert_close(means.double(), exact, atol=1e-6 * max(1.0, offset), rtol=0)


def test_autocast_does_not_change_the_means():
    tokens = smooth_tokens(9, 10, 32, seed=0)
    (expected,) = aggregate([tokens], num_clusters=32, iterations=5)
    with torch.autocast("cpu", torch.bfloat16):
        (means,) = aggregate([tokens], num_clusters=32, iterations=5)
    assert torch.equal(means, expected)


def test_there_is_no_loop_over_clusters_tokens_or_objects_of_a_size():
    def ops(objects, tokens, clusters):
        with CountOps() as counter:
            aggregate(list(torch.randn(objects, tokens, 4)), num_clusters=clusters, iterations=5)
        return counter.count

    assert ops(2, 40, 4) == ops(2, 40, 32) == ops(2, 1000, 32)
    assert ops(20, 40, 4) - ops(2, 40, 4) < 4 * 18  # a few views and copies per object, none per round


# --- the module ---------------------------------------------------------------------------------------------

SEVERAL = [ellipse((300, 400), (200, 150), wh) for wh in ((9, 12), (60, 50), (180, 90), (390, 290), (120, 125))]


def test_a_regions_tokens_do_not_change_when_another_joins():
    module = build()
    together = batch_of(SEVERAL)
    features = random_features(together, 12)
    delivered = module(encode(together, features), together.counts).split(together.counts)
    for order in ([0], [1], [2], [3], [4], [4, 2, 0], [3, 1]):
        batch = batch_of([SEVERAL[index] for index in order])
        alone = module(encode(batch, [features[index] for index in order]), batch.counts).split(batch.counts)
        for index, tokens in zip(order, alone, strict=True):
            torch.testing.assert_close(tokens, delivered[index], atol=1e-6, rtol=1e-6)


def test_it_answers_the_same_twice():
    module, batch = build(), batch_of(SEVERAL)
    views = encode(batch, random_features(batch, 12))
    assert torch.equal(module(views, batch.counts), module(views, batch.counts))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_features_are_taken(dtype):
    module, batch = build(), batch_of(SEVERAL)
    features = [each.to(dtype) for each in random_features(batch, 12)]
    exact = module(encode(batch, [each.float() for each in features]), batch.counts)
    assert torch.equal(module(encode(batch, features), batch.counts), exact)
    lowered = build().to(dtype)(encode(batch, features), batch.counts)
    assert lowered.dtype == dtype
    # A token that is about as near to two centroids may go to the other one.
    assert (lowered.float() - exact).abs().median() < 0.01


def test_features_are_not_written_to():
    module, batch = build(), batch_of(SEVERAL)
    features = random_features(batch, 12)
    views = encode(batch, features)
    module(views, batch.counts)
    assert torch.equal(views[0].grids.features, torch.cat(features))


def test_gradients_equal_finite_differences():
    options = {"num_tokens": 4, "large_patches": 9, "context_patches": 0, "kmeans_iterations": 3}
    config = SAOT.make_config(options)
    masks = [
        ellipse((60, 80), (30, 30), (40, 30)),
        RegionMask(np.ones((4, 4), bool), (9, 9, 13, 13), (60, 80)),
    ]
    module, batch = build(config, vision_width=3, decoder_width=2).double(), batch_of(masks, config)
    assert max(batch.views[0].patches_per_region) > 4, "one of them must be aggregated"
    assert min(batch.views[0].patches_per_region) <= 4, "and one not"
    features = [each.requires_grad_() for each in random_features(batch, 3, dtype=torch.float64)]
    names, parameters = zip(*module.named_parameters(), strict=True)

    def run(*values):
        weights = dict(zip(names, values[len(features) :], strict=True))
        views = encode(batch, list(values[: len(features)]))
        return torch.func.functional_call(module, weights, (views, batch.counts))

    assert torch.autograd.gradcheck(run, (*features, *parameters))
    run(*features, *parameters).square().sum().backward()
    assert all(each.grad.abs().sum() > 0 for each in (*features, *parameters))
