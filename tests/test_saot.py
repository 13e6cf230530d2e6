"""SAOT against the paper written out in loops. Its k-means has a file of its own."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from pixelrefer_saot.linear import Linear, onednn_is_faster
from pixelrefer_saot.module import Saot, relative_positions
from test_kmeans import even_start, plain_kmeans

from pixelrefer_plugin import PixelReferError, RegionMask, get_adapter
from pixelrefer_plugin.authoring import EncodedView, FeatureGrids, PatchGeometry, Shapes
from pixelrefer_plugin.tokens.layouts import Features, PlannedRegion
from pixelrefer_plugin.tokens.region_batch import RegionBatch, make_region_batch

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

    planner = SAOT.planner(config)
    height, width = masks[0].image_hw
    return make_region_batch(
        [[[PlannedRegion(mask, mask.box_xyxy, planner.plan(mask, geometry), picture=0)] for mask in masks]],
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
    return (layout.encoded(Features(FeatureGrids(torch.cat(features), layout.grids_hw))),)


def random_features(batch, width, *, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(h * w, width, generator=generator, dtype=dtype) for h, w in batch.views[0].grids_hw]


def build(config=CONFIG, *, vision_width=12, decoder_width=10) -> Saot:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Saot.build(config, Shapes(crop=vision_width, scene=vision_width, decoder=decoder_width)).eval()


# --- the paper, written out ---------------------------------------------------------------------------------


def paper_scale(area, n, patch_px):
    omega = patch_px * patch_px
    if area > 100 * omega:
        return math.sqrt(omega * 100 / area)
    if area < n * omega:
        return math.sqrt(omega * n / area)
    return 1.0


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
        tokens = plain_kmeans(tokens, even_start(tokens, n), iterations=5)
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
        patches = SAOT.planner(CONFIG).plan(mask, geometry).views[0].mask.sum()
        assert patches == pytest.approx(expected, rel=0.35), f"a square of {side} px"


def test_few_patches_come_out_as_they_are_in_raster_order():
    mask = ellipse((150, 200), (70, 60), (40, 38))
    module, batch = build(), batch_of([mask])
    features = random_features(batch, 12)
    (view,) = encode(batch, features)
    rows = np.flatnonzero(SAOT.planner(CONFIG).plan(mask, GEOMETRY).views[0].mask)
    assert len(rows) == batch.counts[0] < 32
    expected = module.mlp(features[0][rows] + module.position(relative_positions(view)))
    torch.testing.assert_close(module((view,), batch.counts), expected)


def test_positions_of_an_image_one_pixel_wide_are_finite():
    batch = batch_of([RegionMask(np.ones((5, 1), bool), (0, 3, 1, 8), (20, 1))])
    assert relative_positions(encode(batch, random_features(batch, 4))[0]).isfinite().all()


# --- bounds -------------------------------------------------------------------------------------------------


def test_without_positions_a_patch_is_what_the_tower_says():
    config = dataclasses.replace(CONFIG, use_position=False)
    module = build(config)
    batch = batch_of([ellipse((120, 160), (60, 60), (30, 20))], config)
    features = random_features(batch, 12)
    (view,) = encode(batch, features)
    assert torch.equal(module.placed_features(view), view.patch_features())
    assert not [name for name, _ in module.named_parameters() if name.startswith("position")]
    assert module((view,), batch.counts).shape == (sum(batch.counts), 10)


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
    plan = SAOT.planner(CONFIG).plan(mask, PatchGeometry(14, multiple))
    assert math.prod(plan.views[0].grid_hw) <= CONFIG.max_patches
    assert 1 <= plan.num_tokens <= 32


def test_a_crop_that_is_too_large_is_not_shrunk_more_than_it_must():
    assert math.prod(SAOT.planner(CONFIG).plan(diagonal(2000), GEOMETRY).views[0].grid_hw) > 0.75 * CONFIG.max_patches


def test_bounds_hold_for_the_tightest_config_too():
    config = SAOT.make_config({"num_tokens": 1, "large_patches": 1, "context_patches": 0, "max_patches": 4})
    for mask in EXTREMES.values():
        for multiple in (1, 2, 4):
            grid = SAOT.planner(config).plan(mask, PatchGeometry(14, multiple)).views[0].grid_hw
            assert math.prod(grid) <= max(4, multiple**2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_tokens": 0}, r"num_tokens must be an integer >= 1, got 0"),
        ({"num_tokens": "32"}, r"num_tokens must be an integer >= 1, got '32'"),
        ({"max_patches": 512.5}, r"max_patches must be an integer >= 1, got 512.5"),
        ({"large_patches": True}, r"large_patches must be an integer >= 1, got True"),
        ({"preset": "official", "max_patches": 15}, r"max_patches must be >= 16, room for the smallest crop, got 15"),
        ({"num_tokens": 101}, r"large_patches must be >= num_tokens \(101\), got 100"),
        ({"context_patches": -1}, r"context_patches must be an integer >= 0, got -1"),
        ({"max_patches": 200}, r"max_patches must be >= 225, room for 100 large_patches"),
        ({"kmeans_iterations": 0}, r"kmeans_iterations must be an integer >= 1, got 0"),
        ({"tokens": 3}, r"no option 'tokens'. Its options: num_tokens"),
    ],
)
def test_a_wrong_option_is_refused(options, message):
    with pytest.raises(PixelReferError, match=message):
        SAOT.make_config(options)


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


def test_all_at_once_what_came_before_the_means_is_the_same_bits():
    module, together = build(), batch_of(SEVERAL)
    features = random_features(together, 12)
    (view,) = encode(together, features)
    delivered = module.object_features(view, together.counts).split(together.counts)
    for order in ([0], [2], [4, 2, 0], [3, 1]):
        batch = batch_of([SEVERAL[index] for index in order])
        (view,) = encode(batch, [features[index] for index in order])
        for index, tokens in zip(order, module.object_features(view, batch.counts).split(batch.counts), strict=True):
            assert torch.equal(tokens, delivered[index])


def test_missing_tokens_are_zeros_that_pass_the_mlp():
    config = SAOT.make_config({"pad_to_num_tokens": True})
    module, batch = build(config), batch_of(SEVERAL, config)
    assert set(batch.counts) == {32}
    (view,) = encode(batch, random_features(batch, 12))
    assert min(view.patches_per_region) < 32 < max(view.patches_per_region)
    own = tuple(min(32, patches) for patches in view.patches_per_region)
    tokens = module.object_features(view, batch.counts).split(batch.counts)
    expected = module.object_features(view, own).split(own)
    for delivered, real, count in zip(tokens, expected, own, strict=True):
        assert torch.equal(delivered[:count], real)
        assert not delivered[count:].any()
    torch.testing.assert_close(module((view,), batch.counts), module.mlp(torch.cat(tokens)))


def test_a_swapped_box_gives_x_from_rows_and_y_from_columns():
    batch = batch_of([ellipse((300, 400), (200, 150), (60, 50))])
    (view,) = encode(batch, random_features(batch, 12))
    (left, top, right, bottom), (rows, columns) = view.boxes_xyxy[0].tolist(), view.grids.grids_hw[0]
    for inclusive in (False, True):
        delivered = relative_positions(view, swap_axes=True, inclusive_box=inclusive)
        for (i, j), (x, y) in zip(view.patch_ij.tolist(), delivered.tolist(), strict=True):
            assert x == pytest.approx((j / columns * (bottom - inclusive - top) + top) / 399, abs=1e-6)
            assert y == pytest.approx((i / rows * (right - inclusive - left) + left) / 299, abs=1e-6)


def test_a_random_start_repeats_with_the_seed_only():
    config = SAOT.make_config({"kmeans_start": "random"})
    module, batch = build(config), batch_of(SEVERAL, config)
    views = encode(batch, random_features(batch, 12))

    def run(seed):
        torch.manual_seed(seed)
        return module(views, batch.counts)

    assert torch.equal(run(0), run(0))
    assert not torch.equal(run(0), run(1))


# torch looks at an attribute of which it warns.
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
def test_compiled_it_needs_no_graph_for_a_new_shape():
    eager, compiled = build(), build()
    compiled.compile(dynamic=True, fullgraph=True, backend="aot_eager")
    orders = ([1, 2, 3, 4], [2], [4, 3, 3], [0, 1, 2, 3, 4], [3], [2, 4, 1, 3, 2])
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    for order in orders:
        batch = batch_of([SEVERAL[index] for index in order])
        views = encode(batch, random_features(batch, 12))
        torch.testing.assert_close(compiled(views, batch.counts), eager(views, batch.counts), atol=1e-5, rtol=0)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2, "k-means and the MLP"
    assert not torch._dynamo.utils.counters["graph_break"]


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
def test_given_to_torch_compile_it_has_no_break_and_no_graph_for_a_new_shape():
    module = build()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(module, dynamic=True, backend="aot_eager")
    num_graphs = []
    for order in ([1, 2, 3, 4], [2], [4, 3, 3], [0, 1, 2, 3, 4], [3], [2, 4, 1, 3, 2], [1, 1, 0]):
        batch = batch_of([SEVERAL[index] for index in order])
        views = encode(batch, random_features(batch, 12))
        torch.testing.assert_close(compiled(views, batch.counts), module(views, batch.counts), atol=1e-5, rtol=0)
        num_graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert set(num_graphs) == {3}, "k-means and the two layers of the MLP"
    assert not torch._dynamo.utils.counters["graph_break"]


def linear_pair(*, bias=True):
    """Our layer and torch's with the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = Linear(768, 640, bias=bias)
    same = torch.nn.Linear(768, 640, bias=bias)
    same.load_state_dict(layer.state_dict())
    return layer, same


def random_rows(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("bias", [True, False])
def test_the_faster_linear_layer_is_the_same_layer(bias):
    layer, same = linear_pair(bias=bias)
    inputs = random_rows(2, 20, 768)
    with torch.no_grad():
        assert onednn_is_faster(inputs, layer.weight) == torch.backends.mkldnn.is_available()
        torch.testing.assert_close(layer(inputs), same(inputs), atol=1e-5, rtol=1e-5)
    assert torch.equal(layer(inputs), same(inputs)), "with gradients on it is torch's own"


@pytest.mark.parametrize(
    "inputs",
    [
        random_rows(40, 900)[:, 100:868],
        random_rows(768, 40).T,
        random_rows(1, 768).expand(40, 768),
        random_rows(20, 2, 768).transpose(0, 1),
        random_rows(768),
        random_rows(0, 768),
    ],
    ids=["with gaps", "transposed", "one row", "swapped", "a vector", "none"],
)
@torch.no_grad()
def test_it_takes_rows_as_they_lie(inputs):
    layer, same = linear_pair()
    torch.testing.assert_close(layer(inputs), same(inputs), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_weights_and_bias_may_lie_among_others():
    layer, same = linear_pair()
    apart = {
        "weight": torch.stack([layer.weight.detach()] * 2, dim=2)[..., 0],
        "bias": torch.stack([layer.bias.detach()] * 2, dim=1)[:, 0],
    }
    for name, value in apart.items():
        assert not value.is_contiguous()
        setattr(layer, name, torch.nn.Parameter(value))
    inputs = random_rows(40, 768)
    torch.testing.assert_close(layer(inputs), same(inputs), atol=1e-5, rtol=1e-5)


class _Quantised(torch.Tensor):
    """Stands for weights that only pretend to be of float32, as torchao's do."""


# torch sets all its flags for oneDNN again, one of which is for Intel's GPUs.
@pytest.mark.filterwarnings("ignore:TF32 acceleration on top of oneDNN:UserWarning")
@pytest.mark.parametrize("of", ["weight", "disabled", "autocast", "wrong width"])
@torch.no_grad()
def test_what_is_not_for_the_faster_library_is_left_to_torch(of):
    layer, x = Linear(768, 640), random_rows(40, 768)
    if of == "weight":
        assert not onednn_is_faster(x, layer.weight.detach().as_subclass(_Quantised))
    elif of == "disabled":
        with torch.backends.mkldnn.flags(enabled=False):
            assert not onednn_is_faster(x, layer.weight)
    elif of == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x).dtype == torch.bfloat16
    else:
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            layer(random_rows(40, 800))


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


# --- where the official code departs from the paper: the plan -------------------------------------------------


def crop_of(mask, geometry=GEOMETRY, **options):
    return SAOT.planner(SAOT.make_config(options)).plan(mask, geometry).views[0]


def test_a_growing_scale_is_rounded_up():
    mask = RegionMask(np.ones((40, 40), bool), (100, 100, 140, 140), (400, 400))
    scale = math.ceil(math.sqrt(32 * 14**2 / 40**2))
    crop = crop_of(mask, round_scale_up=True, context_patches=0)
    assert scale == 2
    assert (crop.box_xyxy, crop.grid_hw) == ((100, 100, 140, 140), (6, 6)), "40 * 2 / 14 = 5.7"


def test_context_is_counted_in_source_pixels():
    mask = RegionMask(np.ones((300, 300), bool), (500, 400, 800, 700), (1000, 1000))
    assert crop_of(mask, context_in_source_pixels=True).box_xyxy == (472, 372, 828, 728)
    assert crop_of(mask, context_in_source_pixels=True, context_patches=1).box_xyxy == (486, 386, 814, 714)
    assert crop_of(mask).box_xyxy == (440, 340, 860, 760), "28 pixels at a scale of 140 / 300"


def test_the_last_row_and_column_are_dropped():
    whole = RegionMask(np.ones((60, 50), bool), (0, 0, 50, 60), (60, 50))
    assert crop_of(whole, drop_last_row_and_column=True).box_xyxy == (0, 0, 49, 59)
    inside = RegionMask(np.ones((9, 9), bool), (100, 100, 109, 109), (400, 400))
    left, top, right, bottom = crop_of(inside).box_xyxy
    assert crop_of(inside, drop_last_row_and_column=True).box_xyxy == (left, top, right - 1, bottom - 1)


@pytest.mark.parametrize(("multiple", "grid_hw"), [(1, (8, 9)), (2, (8, 10))])
def test_grids_are_rounded_up(multiple, grid_hw):
    mask = RegionMask(np.ones((100, 113), bool), (0, 0, 113, 100), (100, 113))
    crop = crop_of(mask, PatchGeometry(14, multiple), round_grid_up=True)
    assert crop.grid_hw == grid_hw, "7.1 by 8.1 patches"


@pytest.mark.parametrize("mask_resize", ["coverage", "uint8_linear", "any_linear"])
@pytest.mark.parametrize("mask", [*OBJECTS.values(), *EXTREMES.values()], ids=[*OBJECTS, *EXTREMES])
def test_every_way_to_resize_a_mask_promises_what_it_marks(mask, mask_resize):
    plan = SAOT.planner(SAOT.make_config({"mask_resize": mask_resize})).plan(mask, GEOMETRY)
    marked = plan.views[0].mask
    assert set(np.unique(marked)) <= {0.0, 1.0}
    assert plan.num_tokens == min(32, marked.sum()) >= 1


def test_padded_objects_are_promised_all_their_tokens():
    mask = ellipse((150, 200), (70, 60), (40, 38))
    assert SAOT.planner(SAOT.make_config({"pad_to_num_tokens": True})).plan(mask, GEOMETRY).num_tokens == 32
    assert SAOT.planner(CONFIG).plan(mask, GEOMETRY).num_tokens < 32


def test_a_large_grid_is_stretched_instead_of_shrunk():
    shrunk, stretched = (crop_of(diagonal(2000), stretch_large_grids=on) for on in (False, True))
    assert math.prod(shrunk.grid_hw) <= 1024 < math.prod(stretched.grid_hw)
    assert shrunk.encoded_hw is None
    assert 0.9 * 1024 < math.prod(stretched.encoded_hw) <= 1024
    assert crop_of(ellipse((260, 300), (140, 120), (121, 118)), stretch_large_grids=True).encoded_hw is None


def test_the_preset_changes_what_it_says_and_nothing_else():
    official = SAOT.make_config("official")
    changed = {name for name in vars(CONFIG) if getattr(official, name) != getattr(CONFIG, name)}
    assert changed == set(SAOT.presets["official"]), "a preset lists what departs from the default, and only that"
    assert (official.num_tokens, official.large_patches, official.kmeans_iterations) == (32, 100, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resample": "lanczos"}, r"SaotConfig.resample must be one of 'bicubic', 'opencv_linear', .* got 'lanczos'"),
        ({"mask_resize": None}, r"mask_resize must be one of 'coverage', 'uint8_linear', 'any_linear', got None"),
        ({"kmeans_start": "++"}, r"kmeans_start must be one of 'even', 'random', got '\+\+'"),
        ({"round_scale_up": 1}, r"round_scale_up must be True or False, got 1"),
        ({"pad_to_num_tokens": "no"}, r"pad_to_num_tokens must be True or False, got 'no'"),
        ({"preset": "paper"}, r"has no preset 'paper'. Its presets: official"),
        ({"preset": "official", "num_tokens": 0}, r"num_tokens must be an integer >= 1, got 0"),
    ],
)
def test_a_wrong_option_of_the_official_code_is_refused(options, message):
    with pytest.raises(PixelReferError, match=message):
        SAOT.make_config(options)
