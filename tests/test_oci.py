"""OCI against Algorithm 1 written out per region, and what must not depend on which regions come together."""

import copy
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from conftest import CountOps, picture
from einops import rearrange
from PIL import Image
from pixelrefer_oci.attention import GridAttention, _flash_kernel, absorbing_is_cheaper
from pixelrefer_oci.module import Oci
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from pixelrefer_plugin import PixelReferError, RegionMask, attach, get_adapter, get_backbone
from pixelrefer_plugin.authoring import EncodedView, FeatureGrids, PatchGeometry, Shapes
from pixelrefer_plugin.contracts.encoded import PatchRows
from pixelrefer_plugin.tokens.layouts import Features, PlannedRegion
from pixelrefer_plugin.tokens.region_batch import make_region_batch

OCI, SAOT = get_adapter("oci"), get_adapter("saot")
GEOMETRY = PatchGeometry(patch_size=14)
WIDTH, DECODER_WIDTH = 16, 10
SMALL = {"local_px": 56, "global_px": 70, "num_heads": 4}
TABLE_9 = [(False, False), (True, False), (False, True), (True, True)]

IMAGES = [Image.fromarray(picture(*image_hw, seed=seed)) for seed, image_hw in enumerate([(120, 160), (90, 70)])]


def box(picture, *box_xyxy):
    """A region of one of `IMAGES`: all pixels of a box."""
    left, top, right, bottom = box_xyxy
    width, height = IMAGES[picture].size
    return picture, RegionMask(np.ones((bottom - top, right - left), bool), box_xyxy, (height, width))


def stroke(picture, row):
    """A region of one pixel's height across the image: few patches, so fewer tokens than n."""
    return box(picture, 0, row, IMAGES[picture].width, row + 1)


def speck(picture):
    """A region of one token: few pixels in a corner, and one so far away that it is lost beside them."""
    width, height = IMAGES[picture].size
    dense = np.zeros((height, width), bool)
    dense[:2, :2] = dense[-1, -1] = True
    return picture, RegionMask.from_dense(dense)


SEVERAL = [
    box(0, 20, 30, 90, 100),
    speck(1),
    box(1, 30, 30, 50, 50),
    stroke(0, 100),
    box(0, 60, 20, 66, 25),
    box(1, 0, 0, 70, 90),
    box(0, 20, 30, 90, 100),
]


def batch_of(regions, config, geometry=GEOMETRY):
    """The `(picture, mask)` regions, planned and cut out."""
    planner = OCI.planner(config)
    planned = [[PlannedRegion(mask, mask.box_xyxy, planner.plan(mask, geometry), picture)] for picture, mask in regions]
    return make_region_batch(
        [planned],
        adapter="oci",
        placeholder_id=9,
        pictures=IMAGES,
        geometry=geometry,
        pixel_mean=[0.5] * 3,
        pixel_std=[0.5] * 3,
    )


def encode(batch, *, width=WIDTH, dtype=torch.float32):
    """The batch's views by a tower of one layer: a crop has the same features in every batch."""
    tower = torch.randn(3 * 14 * 14, width, generator=torch.Generator().manual_seed(7)) / 14
    crops = batch.normalised_crops(torch.float32)
    of_crop = [rearrange(crop, "c (h y) (w x) -> (h w) (c y x)", y=14, x=14) @ tower for crop in crops]
    features = Features(FeatureGrids(torch.cat(of_crop).to(dtype), batch.crop_grids_hw))
    return tuple(layout.encoded(features) for layout in batch.views)


def shapes(width=WIDTH, decoder=DECODER_WIDTH):
    return Shapes(crop=width, scene=width, decoder=decoder)


def build(config, *, width=WIDTH) -> Oci:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Oci.build(config, shapes(width)).eval()


def run(module, config, regions):
    batch = batch_of(regions, config)
    return module(encode(batch), batch.counts)


def options(**changed):
    return OCI.make_config(SMALL | changed)


# --- the paper, written out ---------------------------------------------------------------------------------


def paper_attention(attention) -> nn.MultiheadAttention:
    """torch's own attention with the same weights; its bias of the keys, which changes nothing, is random."""
    made = nn.MultiheadAttention(attention.q.in_features, attention.num_heads, batch_first=True)
    projections = (attention.q, attention.k, attention.v)
    made.in_proj_weight.data = torch.cat([each.weight for each in projections])
    made.in_proj_bias.data = torch.cat([attention.q.bias, torch.randn_like(attention.q.bias), attention.v.bias])
    made.out_proj.load_state_dict(attention.out.state_dict())
    return made.eval()


@torch.no_grad()
def paper_object_tokens(module, config, region):
    """Algorithm 1 for one region by itself."""
    batch = batch_of([region], config)
    crop, local_view, global_view = encode(batch)
    local_attention, global_attention = module.attentions["local"], module.attentions["global"]
    f_l, f_g = local_view.grids.features, global_view.grids.features
    t_r = module.saot.object_features(crop, batch.counts)
    t_l = t_r + paper_attention(local_attention)(local_attention.norm(t_r), f_l, f_l)[0]
    t_o = t_l + paper_attention(global_attention)(global_attention.norm(t_l), f_g, f_g)[0]
    return module.saot.mlp(t_o)


@pytest.mark.parametrize("num_tokens", [1, 8, 32])
def test_it_computes_what_algorithm_1_says(num_tokens):
    config = options(num_tokens=num_tokens)
    module = build(config)
    expected = [paper_object_tokens(module, config, region) for region in SEVERAL]
    assert {1, num_tokens} <= {len(tokens) for tokens in expected}, "counts must differ"
    torch.testing.assert_close(run(module, config, SEVERAL), torch.cat(expected), atol=1e-5, rtol=0)


def test_an_objects_tokens_do_not_change_when_others_join():
    config = options()
    module, counts = build(config), batch_of(SEVERAL, config).counts
    together = run(module, config, SEVERAL).split(counts)
    for order in ([0], [1], [2], [3], [4], [5], [4, 2, 0], [3, 1], [6, 5, 4, 3, 2, 1, 0]):
        delivered = run(module, config, [SEVERAL[index] for index in order])
        alone = delivered.split([counts[index] for index in order])
        for index, tokens in zip(order, alone, strict=True):
            torch.testing.assert_close(tokens, together[index], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("use_local", "use_global"), TABLE_9)
def test_without_infusion_it_is_saot_bit_for_bit(use_local, use_global):
    config = options(use_local=use_local, use_global=use_global)
    module, batch = build(config), batch_of(SEVERAL, config)
    for attention in module.attentions.values():
        nn.init.zeros_(attention.out.weight)
        nn.init.zeros_(attention.out.bias)
    saot = SAOT.module.build(SAOT.make_config(), shapes())
    saot.load_state_dict(module.saot.state_dict())
    views = encode(batch)
    assert torch.equal(module(views, batch.counts), saot(views[:1], batch.counts))


@pytest.mark.parametrize(("use_local", "use_global"), TABLE_9)
def test_what_is_switched_off_is_neither_encoded_nor_built(use_local, use_global):
    config = options(use_local=use_local, use_global=use_global)
    module, batch = build(config), batch_of(SEVERAL, config)
    used = [name for name, on in (("local", use_local), ("global", use_global)) if on]
    assert len(batch.views) == 1 + len(used)
    assert list(module.attentions) == used
    module(encode(batch), batch.counts).square().sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


# --- the plan -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patch_size", "grid_multiple", "local_side", "global_side"),
    [(14, 1, 16, 24), (14, 2, 16, 24), (16, 1, 14, 21), (16, 2, 14, 20)],
)
def test_contexts_are_squares_of_whole_patches(patch_size, grid_multiple, local_side, global_side):
    geometry = PatchGeometry(patch_size, grid_multiple)
    config, (_, mask) = OCI.make_config(), box(0, 60, 20, 66, 25)
    crop, local_view, global_view = OCI.planner(config).plan(mask, geometry).views
    (saot_crop,) = SAOT.planner(SAOT.make_config()).plan(mask, geometry).views
    assert (crop.box_xyxy, crop.grid_hw) == (saot_crop.box_xyxy, saot_crop.grid_hw)
    assert np.array_equal(crop.mask, saot_crop.mask)
    assert (local_view.box_xyxy, local_view.grid_hw) == (crop.box_xyxy, (local_side, local_side))
    assert (global_view.box_xyxy, global_view.grid_hw) == ((0, 0, 160, 120), (global_side, global_side))
    assert local_view.mask is None
    assert global_view.mask is None


@pytest.mark.parametrize("num_tokens", [1, 4, 32])
def test_as_many_tokens_as_saot(num_tokens):
    for _, mask in SEVERAL:
        promised = SAOT.planner(SAOT.make_config({"num_tokens": num_tokens})).plan(mask, GEOMETRY).num_tokens
        assert OCI.planner(options(num_tokens=num_tokens)).plan(mask, GEOMETRY).num_tokens == promised


def test_an_image_is_encoded_once_and_projected_once():
    config = options()
    module, batch = build(config), batch_of(SEVERAL, config)
    assert [len(view.grids_hw) for view in batch.views] == [6, 5, 2], "one region is there twice"
    rows = {}
    for name, module_ in module.named_modules():
        if name.endswith((".k", ".v")):
            module_.register_forward_hook(
                lambda _, inputs, output, name=name: rows.update({name: rows.get(name, 0) + output[..., 0].numel()})
            )
    module(encode(batch), batch.counts)
    assert rows == {
        "attentions.local.k": 5 * 4 * 4,
        "attentions.local.v": 5 * 4 * 4,
        "attentions.global.k": 2 * 5 * 5,
        "attentions.global.v": 2 * 5 * 5,
    }


# --- the attention ------------------------------------------------------------------------------------------


def test_eager_equals_sdpa():
    config, sdpa, eager = options(), build(options()), build(options())
    eager.set_attn_implementation("eager")
    assert {each.attn_implementation for each in eager.attentions.values()} == {"eager"}
    torch.testing.assert_close(run(eager, config, SEVERAL), run(sdpa, config, SEVERAL), atol=1e-6, rtol=1e-5)
    eager.set_attn_implementation("flex_attention")
    assert torch.equal(run(eager, config, SEVERAL), run(sdpa, config, SEVERAL))


@pytest.mark.parametrize(("asked", "used"), [("eager", "eager"), ("sdpa", "sdpa")])
def test_it_attends_as_the_backbone_was_asked_to(asked, used):
    backbone, native = get_backbone("videollama3").tiny(0)
    backbone.set_attn_implementation(asked)
    model, _ = attach(backbone, native, adapter="oci")
    assert {each.attn_implementation for each in model.adapter.attentions.values()} == {used}
    model.detach()


def view_of(grids, grid_of_region):
    """A view that is read whole, of these `(h, w, C)` grids."""
    grids_hw = tuple(tuple(grid.shape[:2]) for grid in grids)
    features = torch.cat([grid.flatten(0, 1) for grid in grids])
    nothing = torch.zeros(0)
    return EncodedView(
        regions=tuple(range(len(grid_of_region))),
        grids=FeatureGrids(features, grids_hw),
        grid_of_region=grid_of_region,
        patch_weights=nothing,
        patch_ij=nothing,
        region_of_patch=nothing,
        patches_per_region=(0,) * len(grid_of_region),
        boxes_xyxy=nothing,
        region_boxes_xyxy=nothing,
        images_hw=nothing,
        rows=PatchRows(nothing.long()),
    )


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_few_tokens_take_the_projections_upon_themselves(implementation):
    """And get what they would have got from projected patches, forward and backward."""
    generator = torch.Generator().manual_seed(0)
    attention = GridAttention(32, num_heads=4)
    attention.attn_implementation = implementation
    queries = torch.randn(3, 2, 4, 8, generator=generator, requires_grad=True)
    patches = torch.randn(3, 49, 32, generator=generator, requires_grad=True)
    assert absorbing_is_cheaper(2, num_patches=49, width=32, num_heads=4)
    delivered = attention._attend(queries, patches)
    keys, values = (project(patches).unflatten(-1, (4, 8)) for project in (attention.k, attention.v))
    weights = torch.einsum("gthe,gshe->gths", queries, keys).div(8**0.5).softmax(-1)
    expected = torch.einsum("gths,gshe->gthe", weights, values)
    torch.testing.assert_close(delivered, expected, atol=1e-6, rtol=1e-5)
    leaves = [queries, patches, attention.k.weight, attention.v.weight, attention.v.bias]
    direction = torch.randn(expected.shape, generator=generator)
    for each, plain in zip(
        torch.autograd.grad(delivered, leaves, direction), torch.autograd.grad(expected, leaves, direction), strict=True
    ):
        torch.testing.assert_close(each, plain, atol=2e-5, rtol=1e-5)


def add_lora(attention, name):
    """As PEFT does: a layer around the layer, which has its weight too."""

    class Lora(nn.Module):
        def __init__(self, base):
            super().__init__()
            self.base, self.change = base, nn.Linear(base.in_features, base.out_features, bias=False)
            self.weight, self.bias = base.weight, base.bias

        def forward(self, x):
            return self.base(x) + self.change(x)

    setattr(attention, name, Lora(getattr(attention, name)))


def change_output(attention, name):
    getattr(attention, name).register_forward_hook(lambda _, inputs, output: 2 * output)


def replace_forward(attention, name):
    layer = getattr(attention, name)
    plain = layer.forward
    layer.forward = lambda x: 2 * plain(x)


@pytest.mark.parametrize("name", ["k", "v"])
@pytest.mark.parametrize("change", [add_lora, change_output, replace_forward])
def test_a_projection_that_is_more_than_its_weight_is_called(change, name):
    attention = GridAttention(32, num_heads=4)
    change(attention, name)
    queries, patches = torch.randn(3, 2, 4, 8), torch.randn(3, 49, 32)
    assert absorbing_is_cheaper(2, num_patches=49, width=32, num_heads=4)
    keys, values = (project(patches).unflatten(-1, (4, 8)) for project in (attention.k, attention.v))
    weights = torch.einsum("gthe,gshe->gths", queries, keys).div(8**0.5).softmax(-1)
    expected = torch.einsum("gths,gshe->gthe", weights, values)
    torch.testing.assert_close(attention._attend(queries, patches), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("regions_per_grid", [1, 12])
def test_at_its_real_width_it_computes_the_same(implementation, regions_per_grid):
    """Where the products are large enough for the faster library, both ways to read a grid."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        attention = GridAttention(1152, num_heads=8)
        grids, tokens = torch.randn(2, 16, 16, 1152), torch.randn(64 * regions_per_grid, 1152, requires_grad=True)
        direction = torch.randn_like(tokens)
    attention.attn_implementation = implementation
    counts, grid_of_region = (32,) * (2 * regions_per_grid), (0, 1) * regions_per_grid
    delivered = attention(tokens, counts, view_of(grids, grid_of_region))
    reference, normed = paper_attention(attention), attention.norm(tokens).split(counts)
    of_region = [grids[which].flatten(0, 1) for which in grid_of_region]
    expected = torch.cat([reference(each, grid, grid)[0] for each, grid in zip(normed, of_region, strict=True)])
    torch.testing.assert_close(delivered, expected, atol=1e-5, rtol=1e-5)
    (grad,), (expected_grad,) = (torch.autograd.grad(each, tokens, direction) for each in (delivered, expected))
    torch.testing.assert_close(grad, expected_grad, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("num_tokens", "num_patches", "absorbs"), [(32, 256, True), (32, 576, True), (256, 576, False), (1024, 576, False)]
)
def test_many_tokens_of_one_grid_have_it_projected_once(num_tokens, num_patches, absorbs):
    assert absorbing_is_cheaper(num_tokens, num_patches=num_patches, width=1152, num_heads=8) is absorbs


# torch looks at an attribute of which it warns.
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
def test_compiled_it_needs_no_graph_for_a_new_shape():
    config = options(num_tokens=3, local_px=140, global_px=168)
    eager, compiled = build(config, width=8), build(config, width=8)
    compiled.compile(dynamic=True, fullgraph=True, backend="aot_eager")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    for order in ([0, 2, 4], [2, 5], [0, 0, 2, 4, 4, 5], [5, 2, 0, 4], [3, 2, 5]):
        batch = batch_of([SEVERAL[index] for index in order], config)
        views = encode(batch, width=8)
        torch.testing.assert_close(compiled(views, batch.counts), eager(views, batch.counts), atol=1e-5, rtol=0)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs <= 5, "k-means, the MLP, and the attentions for one grid and for several"
    assert not torch._dynamo.utils.counters["graph_break"]


def test_there_is_no_loop_over_regions():
    attention = GridAttention(8, num_heads=2)

    def ops(grid_of_region, tokens_each=3):
        view = view_of(torch.randn(max(grid_of_region) + 1, 4, 4, 8), grid_of_region)
        with CountOps() as counter:
            attention(torch.randn(tokens_each * len(grid_of_region), 8), (tokens_each,) * len(grid_of_region), view)
        return counter.count

    one = ops((0,))
    assert ops(tuple(range(20))) == one, "each its own grid"
    assert ops((0,) * 20) == one, "all one grid"
    assert ops((0, 1) * 10) == one, "two grids, taking turns"


@pytest.mark.parametrize("num_tokens", [4, 32])
def test_nothing_waits_for_the_gpu(num_tokens):
    """On tensors of shapes alone, which need no GPU and refuse what would wait for one."""
    config = options(num_tokens=num_tokens)
    batch = batch_of(SEVERAL, config)
    with FakeTensorMode(allow_non_fake_inputs=True):
        with torch.device("cuda"):
            module = Oci.build(config, shapes(decoder=8))
        on_gpu = batch.to("cuda")
        size = sum(h * w for h, w in batch.crop_grids_hw)
        features = Features(FeatureGrids(torch.randn(size, WIDTH, device="cuda"), batch.crop_grids_hw))
        views = tuple(layout.encoded(features) for layout in on_gpu.views)
        tokens = module(views, batch.counts)
        assert (tokens.shape, tokens.device.type) == ((sum(batch.counts), 8), "cuda")
        with pytest.raises(DataDependentOutputException):
            tokens.sum().item()


def test_grids_of_different_sizes_are_not_mixed_up():
    attention = GridAttention(8, num_heads=2)
    view = view_of([torch.randn(2, 6, 8), torch.randn(3, 4, 8)], (0, 1))
    with pytest.raises(AssertionError, match="grids of one view must be of one size"):
        attention(torch.randn(2, 8), (1, 1), view)


def test_it_answers_the_same_twice_and_as_a_copy():
    config = options()
    module = build(config)
    assert torch.equal(run(module, config, SEVERAL), run(module, config, SEVERAL))
    assert torch.equal(run(copy.deepcopy(module), config, SEVERAL), run(module, config, SEVERAL))


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_bfloat16_is_taken(implementation):
    config = options()
    module, batch = build(config), batch_of(SEVERAL, config)
    module.set_attn_implementation(implementation)
    exact = module(encode(batch), batch.counts)
    lowered = copy.deepcopy(module).bfloat16()(encode(batch, dtype=torch.bfloat16), batch.counts)
    assert lowered.dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        cast = module(encode(batch, dtype=torch.bfloat16), batch.counts)
    cast.float().square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())
    # A token that is about as near to two centroids may go to the other one.
    assert (lowered.float() - exact).abs().median() < 0.01
    assert (cast.float() - exact).abs().median() < 0.01


def test_gradients_equal_finite_differences():
    config = options(num_tokens=4, large_patches=9, context_patches=0, kmeans_iterations=3, num_heads=2)
    module, batch = build(config, width=4).double(), batch_of(SEVERAL[1:3], config)
    views = encode(batch, width=4, dtype=torch.float64)
    names, parameters = zip(*module.named_parameters(), strict=True)

    def tokens(*values):
        weights = dict(zip(names, values, strict=True))
        return torch.func.functional_call(module, weights, (views, batch.counts))

    assert torch.autograd.gradcheck(tokens, parameters, fast_mode=True)
    tokens(*parameters).square().sum().backward()
    assert all(each.grad.abs().max() > 1e-9 for each in parameters)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"local_px": 0}, r"OciConfig.local_px must be an integer >= 1, got 0"),
        ({"global_px": -336}, r"OciConfig.global_px must be an integer >= 1, got -336"),
        ({"num_heads": 0}, r"OciConfig.num_heads must be an integer >= 1, got 0"),
        ({"use_local": "no"}, r"OciConfig.use_local must be True or False, got 'no'"),
        ({"use_global": 1}, r"OciConfig.use_global must be True or False, got 1"),
        ({"num_tokens": 0}, r"OciConfig.num_tokens must be an integer >= 1, got 0"),
        ({"local_px": "224"}, r"OciConfig.local_px must be an integer >= 1, got '224'"),
        ({"global_px": 336.5}, r"OciConfig.global_px must be an integer >= 1, got 336.5"),
        ({"num_heads": True}, r"OciConfig.num_heads must be an integer >= 1, got True"),
        ({"local": 224}, r"Adapter 'oci' has no option 'local'. Its options: num_tokens, .*local_px"),
    ],
)
def test_a_wrong_option_is_refused(wrong, message):
    with pytest.raises(PixelReferError, match=message):
        OCI.make_config(wrong)


def test_heads_must_divide_the_towers_width():
    with pytest.raises(PixelReferError, match=r"num_heads must divide the width .* 1152, got 7. Choose a divisor"):
        Oci.build(options(num_heads=7), shapes(1152, decoder=8))


def test_flash_attention_without_a_gpu_is_refused():
    module = build(options())
    module.set_attn_implementation("flash_attention_2")
    with pytest.raises(PixelReferError, match=r"needs a GPU, got tensors on 'cpu'. Load the backbone with .*'sdpa'"):
        run(module, options(), SEVERAL)


@pytest.mark.skipif(find_spec("flash_attn") is not None, reason="flash-attn is installed")
def test_flash_attention_that_is_not_installed_is_refused():
    with pytest.raises(PixelReferError, match=r"needs the package flash-attn.*pip install.*'sdpa'"):
        _flash_kernel(torch.device("cuda"))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_flash_attention_equals_sdpa(dtype):
    pytest.importorskip("flash_attn")
    generator = torch.Generator().manual_seed(0)
    view = view_of(torch.randn(3, 4, 4, 64, generator=generator).to("cuda", dtype), (0, 1, 0, 2, 1))
    counts = (3, 5, 1, 8, 3)
    tokens = torch.randn(sum(counts), 64, generator=generator).to("cuda", dtype)
    sdpa = GridAttention(64, num_heads=4).to("cuda", dtype)
    flash = GridAttention(64, num_heads=4).to("cuda", dtype)
    flash.attn_implementation = "flash_attention_2"
    flash.load_state_dict(sdpa.state_dict())
    delivered = flash(tokens, counts, view)
    assert delivered.dtype == dtype
    torch.testing.assert_close(delivered, sdpa(tokens, counts, view), atol=2e-2, rtol=0)


# --- where the official code departs from the paper: the plan -------------------------------------------------


def plans_of(config, masks):
    return [OCI.planner(config).plan(mask, GEOMETRY) for mask in masks]


def test_the_first_regions_surroundings_are_shared():
    masks = [box(0, 60, 20, 66, 25)[1], box(0, 5, 5, 90, 80)[1], box(0, 100, 60, 120, 90)[1]]
    config = OCI.make_config({"share_local_crop": True})
    alone = plans_of(config, masks)
    together = OCI.planner(config).together(alone)
    assert {plan.views[1].box_xyxy for plan in together} == {alone[0].views[1].box_xyxy}
    assert len({plan.views[1].box_xyxy for plan in alone}) == 3
    for before, after in zip(alone, together, strict=True):
        assert after.num_tokens == before.num_tokens
        assert (after.views[0], after.views[2]) == (before.views[0], before.views[2])


@pytest.mark.parametrize("options", [{}, {"share_local_crop": True, "use_local": False}])
def test_surroundings_are_each_regions_own_unless_shared(options):
    config = OCI.make_config(options)
    plans = plans_of(config, [box(0, 60, 20, 66, 25)[1], box(0, 5, 5, 90, 80)[1]])
    assert list(OCI.planner(config).together(plans)) == plans


def test_contexts_are_resized_by_area():
    config = OCI.make_config({"context_resample": "opencv_area"})
    crop, local_view, global_view = OCI.planner(config).plan(box(0, 60, 20, 66, 25)[1], GEOMETRY).views
    assert (crop.resample, local_view.resample, global_view.resample) == ("bicubic", "opencv_area", "opencv_area")


@pytest.mark.parametrize(
    ("preset", "time_s", "label"),
    [
        (None, 0.0, "Time 0.0s:"),
        (None, 12.345, "Time 12.3s:"),
        ("official", 1.5, "Time 1.5:"),
        ("official", 90, "Time 90.0:"),
    ],
)
def test_frames_are_labelled(preset, time_s, label):
    assert OCI.planner(OCI.make_config(preset)).frame_label(time_s) == label


def test_the_preset_is_saots_and_lites_own():
    config, official = OCI.make_config(), OCI.make_config("official")
    assert set(OCI.presets["official"]) >= set(SAOT.presets["official"])
    changed = {name for name in vars(config) if getattr(official, name) != getattr(config, name)}
    assert changed == set(OCI.presets["official"]) - {"drop_last_row_and_column", "single_precision_scale"}
    assert (official.num_tokens, official.large_patches, official.kmeans_iterations) == (32, 50, 3)
    assert (official.local_px, official.global_px, official.num_heads) == (224, 336, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context_resample": "opencv_linear"}, r"context_resample must be one of 'bicubic', 'opencv_area', got"),
        ({"share_local_crop": 0}, r"share_local_crop must be True or False, got 0"),
        ({"frame_label": "Frame {index}:"}, r"frame_label must be a format string of time_s alone.*got 'Frame"),
        ({"frame_label": "{"}, r"frame_label must be a format string of time_s alone"),
        ({"frame_label": None}, r"frame_label must be a format string of time_s alone.*got None"),
        ({"preset": "lite"}, r"has no preset 'lite'. Its presets: official"),
    ],
)
def test_a_wrong_option_of_the_official_code_is_refused(options, message):
    with pytest.raises(PixelReferError, match=message):
        OCI.make_config(options)
