"""UniPixel: each of its parts by hand and alone, then the whole adapter on every backbone."""

import math
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import assistant, picture, user
from pixelrefer_unipixel.config import OFFICIAL_CHECKPOINTS, UniPixelConfig
from pixelrefer_unipixel.mask_head import MaskHead
from pixelrefer_unipixel.memory import MemoryEncoder
from pixelrefer_unipixel.module import UniPixel
from pixelrefer_unipixel.plan import UniPixelPlanner
from pixelrefer_unipixel.prompts import FourierFeatures, SparsePromptEncoder
from pixelrefer_unipixel.sam2 import sam2_config
from torch import nn
from torch.nn.functional import gelu
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoPromptEncoder

from pixelrefer_plugin import (
    PixelReferError,
    PluginError,
    Region,
    RegionMask,
    RegionModel,
    VideoRegion,
    attach,
    get_adapter,
    get_backbone,
)
from pixelrefer_plugin.authoring import (
    Clips,
    EncodedPrompts,
    EncodedView,
    FeatureGrids,
    MaskTargets,
    NativeCall,
    PatchGeometry,
    PromptView,
    RegionPlan,
    SceneView,
    Shapes,
)
from pixelrefer_plugin.contracts.encoded import PatchRows
from pixelrefer_plugin.testing import make_pair
from pixelrefer_plugin.tokens.scene import captured_scene

S, D, C = 64, 48, 20
PICTURE_PX = 64

# --- options and plan ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [*OFFICIAL_CHECKPOINTS, "micro"])
def test_every_size_is_one_of_sam2s(size):
    config = UniPixelConfig(sam2=size, sam2_checkpoint=None)
    assert sam2_config(config.sam2, picture_px=config.picture_px).image_size == config.picture_px


@pytest.mark.parametrize(
    ("options", "checkpoint"),
    [
        ({}, "facebook/sam2.1-hiera-base-plus"),
        ({"sam2": "tiny"}, "facebook/sam2.1-hiera-tiny"),
        ({"sam2": "large", "sam2_checkpoint": "mine.pt"}, "mine.pt"),
        ({"sam2": "micro", "sam2_checkpoint": None}, None),
        ({"sam2_checkpoint": None}, None),
    ],
    ids=["default", "another published size", "a file", "random and micro", "random"],
)
def test_sam2_starts_from_the_published_weights_of_its_size(options, checkpoint):
    assert UniPixelConfig(**options).start_checkpoint == checkpoint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sam2": "huge"}, "sam2 must be one of 'tiny', 'small', 'base_plus', 'large', 'micro', got 'huge'"),
        ({"sam2": "micro"}, "sam2_checkpoint must be None .* no published SAM 2 of size 'micro', got 'official'"),
        ({"sam2_checkpoint": ""}, "sam2_checkpoint must be a hub name, a folder, a .pt file or None, got ''"),
        ({"picture_px": 500}, "picture_px must be a multiple of 32, .* got 500"),
        ({"picture_px": 0}, "picture_px must be an integer >= 1, got 0"),
        ({"prompt_tokens": 0}, "prompt_tokens must be an integer >= 1, got 0"),
        ({"max_objects": 2.5}, "max_objects must be an integer >= 1, got 2.5"),
        ({"propagate": 1}, "propagate must be True or False, got 1"),
        ({"dice_weight": -1}, "dice_weight must be a finite number >= 0, got -1"),
        ({"mask_weight": "much"}, "mask_weight must be a finite number >= 0, got 'much'"),
    ],
)
def test_options_that_break_a_rule_are_refused(options, message):
    with pytest.raises(PixelReferError, match=f"UniPixelConfig.{message}"):
        get_adapter("unipixel").make_config(options)


MASK = np.zeros((40, 60), bool)
MASK[3:9, 5:20] = True


@pytest.mark.parametrize(
    ("region", "num_tokens"),
    [
        (Region.from_points([(3, 4)]), 1),
        (Region.from_points([(3, 4), (9, 9), (20, 5)]), 3),
        (Region.from_box((1, 2, 30, 20)), 1),
        (Region.from_mask(MASK), None),
        (Region.from_polygon([1, 1, 20, 1, 20, 20]), None),
        (Region.from_scribble([(1, 1), (20, 20)]), None),
    ],
    ids=["click", "clicks", "box", "mask", "polygon", "scribble"],
)
def test_clicks_and_boxes_are_drawn_and_all_else_is_memory(region, num_tokens):
    planner = UniPixelPlanner(UniPixelConfig())
    assert (region.kind in get_adapter("unipixel").drawn) == (num_tokens is not None)
    if num_tokens is not None:
        assert planner.plan_drawn(region) == RegionPlan(num_tokens, (None, PromptView()))
    by_mask = planner.plan(region.to_mask((40, 60)), PatchGeometry(14))
    assert by_mask == RegionPlan(1, (SceneView(), None))


def test_the_recipes_are_the_three_published_stages():
    recipes = get_adapter("unipixel").recipes
    assert list(recipes) == ["unipixel_stage1", "unipixel_stage2", "unipixel_stage3"]
    assert recipes["unipixel_stage1"].rates == {
        "adapter.prompt_encoder": 1e-3,
        "adapter.prompt_encoder.kind": None,
        "adapter.prompt_encoder.padding": None,
    }
    assert recipes["unipixel_stage2"].rates == {"adapter.mask_head": 1e-3, "token_rows": 1e-3}
    assert recipes["unipixel_stage3"].rates["adapter.mask_decoder"] == 5e-6
    assert [bool(recipe.lora) for recipe in recipes.values()] == [False, True, True]


# --- clicks and boxes ---------------------------------------------------------------------------------------


def prompts_of(*drawn, images_hw=(40, 60), position=0, num_frames=1):
    """`EncodedPrompts` of regions on one frame, and the tokens that each of them is promised; None is a mask, which is
    left out."""
    regions = tuple(index for index, each in enumerate(drawn) if each is not None)
    kinds = tuple(drawn[index].kind for index in regions)
    points = [
        list(data[0]) if kind == "points" else [data[:2], data[2:]]
        for kind, data in zip(kinds, (drawn[index].data for index in regions), strict=True)
    ]
    prompts = EncodedPrompts(
        regions=regions,
        kinds=kinds,
        points_xy=torch.tensor([each for own in points for each in own]).float().view(-1, 2),
        region_of_point=torch.tensor([place for place, own in enumerate(points) for _ in own]).long(),
        images_hw=torch.tensor([images_hw] * len(regions)).float(),
        frame_position=torch.full((len(regions),), float(position)),
        num_frames=torch.full((len(regions),), float(num_frames)),
    )
    return prompts, [len(own) if kind == "points" else 1 for kind, own in zip(kinds, points, strict=True)]


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return SparsePromptEncoder(sam_width=S, decoder_width=D, picture_px=PICTURE_PX)


@pytest.fixture
def sam_encoder():
    """SAM 2's own prompt encoder, with random weights."""
    torch.manual_seed(1)
    return Sam2VideoPromptEncoder(sam2_config("micro", picture_px=PICTURE_PX).prompt_encoder_config)


CLICK = Region.from_points([(20, 10)])
CLICKS = Region.from_points([(20, 10), (50, 35)])
BOX = Region.from_box((10, 5, 30, 20))


def tokens(encoder, *drawn, **where):
    with torch.no_grad():
        return encoder(*prompts_of(*drawn, **where))


def test_a_click_is_what_sam_makes_of_it_then_the_official_layers(encoder, sam_encoder):
    """Two vectors of SAM, `2S -> 3S`; the time, `S -> 3S`; both, `6S`, GELU, `D`: each layer by hand."""
    encoder.start_from(sam_encoder)
    x, y = 20 * PICTURE_PX / 60, 10 * PICTURE_PX / 40  # on the squeezed picture
    with torch.no_grad():
        sparse, _ = sam_encoder(torch.tensor([[[[x, y]]]]), torch.ones(1, 1, 1).long(), None, None)
        assert sparse.shape == (1, 1, 2, S)
        place = encoder.click.weight @ sparse.flatten() + encoder.click.bias
        angle = 2 * math.pi * (2 * (3 / 7) - 1) * encoder.time.directions[0]
        time = torch.cat([angle.sin(), angle.cos()]) + encoder.time_kind.weight[0]
        both = torch.cat([place, encoder.frame.weight @ time + encoder.frame.bias])
        assert both.shape == (6 * S,)
        expected = encoder.out[1](gelu(both))
    torch.testing.assert_close(tokens(encoder, CLICK, position=3, num_frames=8)[0], expected)


def test_a_box_is_what_sam_makes_of_its_corners(encoder, sam_encoder):
    """Three vectors of SAM, `3S -> 3S`: two corners and the padding point."""
    encoder.start_from(sam_encoder)
    scale = torch.tensor([PICTURE_PX / 60, PICTURE_PX / 40])
    corners = torch.tensor([[10.0, 5.0], [30.0, 20.0]]) * scale
    with torch.no_grad():
        sparse, _ = sam_encoder(corners[None, None], torch.tensor([[[2, 3]]]), None, None)
        same, _ = sam_encoder(None, None, corners.view(1, 1, 4), None)
        assert sparse.shape == (1, 1, 3, S)
        torch.testing.assert_close(sparse, same)
        place = encoder.box(sparse.flatten())
        time = encoder.frame(encoder.time(torch.zeros(1)) + encoder.time_kind.weight[0])
        expected = encoder.out(torch.cat([place, time]))
    torch.testing.assert_close(tokens(encoder, BOX)[0], expected)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"drawn": Region.from_points([(21, 10)])}, id="a click elsewhere"),
        pytest.param({"drawn": BOX}, id="a box"),
        pytest.param({"images_hw": (40, 61)}, id="on a wider picture"),
        pytest.param({"position": 2}, id="on another frame"),
        pytest.param({"num_frames": 9}, id="in a longer video"),
    ],
)
def test_what_is_drawn_where_and_when_changes_the_token(encoder, other):
    usual = {"drawn": CLICK, "position": 1, "num_frames": 8}
    changed = {**usual, **other}
    one, two = tokens(encoder, usual.pop("drawn"), **usual), tokens(encoder, changed.pop("drawn"), **changed)
    assert (one - two).abs().max() > 1e-3


def test_a_batch_has_the_tokens_of_its_regions_in_order(encoder):
    together = tokens(encoder, BOX, None, CLICKS, BOX, None, CLICK)
    alone = torch.cat([tokens(encoder, each) for each in (BOX, CLICKS, BOX, CLICK)])
    assert together.shape == (5, D)
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(together[1], tokens(encoder, CLICK)[0])  # one token for each click


@pytest.mark.parametrize("drawn", [CLICK, BOX], ids=["click", "box"])
def test_a_batch_of_one_kind_needs_no_other(encoder, drawn):
    assert encoder(*prompts_of(drawn)).shape == (1, D)


def test_the_copy_of_sams_encoder_is_its_own(encoder, sam_encoder):
    encoder.start_from(sam_encoder)
    before = sam_encoder.point_embed.weight.clone()
    assert torch.equal(encoder.kind.weight, before)
    with torch.no_grad():
        encoder.kind.weight.add_(1)
    assert torch.equal(sam_encoder.point_embed.weight, before)


def test_random_directions_are_saved(encoder):
    state = encoder.state_dict()
    assert state["place.directions"].shape == (2, S // 2)
    assert state["time.directions"].shape == (1, S // 2)


def test_fourier_features_in_half_precision_are_computed_in_single():
    exact = FourierFeatures(2, S)
    half = FourierFeatures(2, S).to(torch.bfloat16)
    half.load_state_dict({"directions": exact.directions.bfloat16()})
    exact.directions.copy_(half.directions)
    places = torch.rand(9, 2)
    assert half(places).dtype == torch.bfloat16
    torch.testing.assert_close(half(places).float(), exact(places), atol=5e-3, rtol=0)


def test_fourier_features_are_exact_under_autocast():
    features, places = FourierFeatures(2, S), torch.rand(9, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = features(places)
    assert torch.equal(mixed, features(places))


# --- masks as memory ----------------------------------------------------------------------------------------


def scene_view(pairs, grids_hw=((2, 3), (2, 2)), seed=0, *, regions=None):
    """A scene whose regions each touch `(grid, {cell: share})`; by default all regions of the batch."""
    areas = [h * w for h, w in grids_hw]
    features = torch.randn(sum(areas), C, generator=torch.Generator().manual_seed(seed))
    first = np.cumsum([0, *areas])
    rows = [first[grid] + cell for grid, cells in pairs for cell in cells]
    per_region = [len(cells) for _, cells in pairs]
    return EncodedView(
        regions=tuple(range(len(pairs))) if regions is None else regions,
        grids=FeatureGrids(features, grids_hw),
        grid_of_region=tuple(grid for grid, _ in pairs),
        patch_weights=torch.tensor([share for _, cells in pairs for share in cells.values()]),
        patch_ij=torch.zeros(len(rows), 2),
        region_of_patch=torch.arange(len(pairs)).repeat_interleave(torch.tensor(per_region)),
        patches_per_region=tuple(per_region),
        boxes_xyxy=torch.zeros(len(pairs), 4),
        region_boxes_xyxy=torch.zeros(len(pairs), 4),
        images_hw=torch.full((len(pairs), 2), 28.0),
        rows=PatchRows(torch.tensor(rows, dtype=torch.int64)),
    )


PAIRS = [(0, {0: 1.0, 4: 0.1}), (1, {3: 1.0}), (0, {1: 0.5, 2: 0.5, 5: 1.0})]


def test_memory_is_the_plain_mean_of_the_touched_cells():
    memory, view = MemoryEncoder(vision_width=C, decoder_width=D), scene_view(PAIRS)
    features = view.grids.features
    means = torch.stack([features[[0, 4]].mean(dim=0), features[9], features[[1, 2, 5]].mean(dim=0)])
    torch.testing.assert_close(memory(view), memory.mlp(means))
    torch.testing.assert_close(memory(scene_view([PAIRS[2], PAIRS[0]])), memory.mlp(means[[2, 0]]))


def test_memory_takes_over_the_projector_where_it_fits():
    memory = MemoryEncoder(vision_width=C, decoder_width=D)
    layers = [nn.Linear(C, C), nn.Linear(C, D, bias=False)]
    assert memory.start_from(layers)
    view = scene_view(PAIRS[1:2])
    means = view.grids.features[[9]]
    torch.testing.assert_close(memory(view), layers[1](gelu(layers[0](means))))
    assert memory.mlp[0].weight.data_ptr() != layers[0].weight.data_ptr()


@pytest.mark.parametrize(
    "layers",
    [[], [nn.Linear(C, D)], [nn.Linear(C, D), nn.Linear(D, D)], [nn.Linear(C + 1, C), nn.Linear(C, D)]],
    ids=["none", "one", "another hidden width", "another vision width"],
)
def test_memory_keeps_its_own_weights_where_the_projector_does_not_fit(layers):
    memory = MemoryEncoder(vision_width=C, decoder_width=D)
    before = memory.mlp[0].weight.clone()
    assert not memory.start_from(layers)
    assert torch.equal(memory.mlp[0].weight, before)


# --- from hidden states to SAM's prompts --------------------------------------------------------------------


def test_the_mask_head_normalises_and_makes_prompt_tokens():
    head = MaskHead(decoder_width=D, sam_width=S, prompt_tokens=2)
    hidden = torch.randn(3, D)
    made = head(hidden)
    assert made.shape == (3, 2, S)
    norm, first, _, last = head.mlp
    normed = hidden / hidden.pow(2).mean(dim=-1, keepdim=True).add(1e-6).sqrt() * norm.weight
    by_hand = last(gelu(first(normed)))
    torch.testing.assert_close(made.flatten(1), by_hand)
    torch.testing.assert_close(head(100 * hidden), made, atol=1e-4, rtol=1e-4)


# --- the module ---------------------------------------------------------------------------------------------

TINY = {"sam2": "micro", "sam2_checkpoint": None, "picture_px": PICTURE_PX}


def build(**options):
    torch.manual_seed(0)
    return UniPixel.build(UniPixelConfig(**{**TINY, **options}), Shapes(crop=C + 1, scene=C, decoder=D))


def views_of(*drawn):
    """What the module reads of these regions, each mask as `PAIRS` says in its place; None for what none has."""
    masks = tuple(index for index, each in enumerate(drawn) if each is None)
    scene = scene_view([PAIRS[index] for index in masks], regions=masks) if masks else None
    return scene, prompts_of(*drawn)[0] if len(masks) < len(drawn) else None


@pytest.mark.parametrize(
    "drawn",
    [
        pytest.param((None, None, None), id="masks"),
        pytest.param((CLICK, BOX, CLICKS), id="drawn"),
        pytest.param((CLICKS, None, BOX), id="mixed"),
        pytest.param((None, CLICKS, None), id="mixed, masks outside"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_each_region_goes_to_its_part_and_the_tokens_come_in_order(drawn, dtype):
    module = build().to(dtype)
    counts = [1 if each is None else prompts_of(each)[1][0] for each in drawn]
    made = module(views_of(*drawn), tuple(counts))
    expected = [
        module.memory(scene_view([PAIRS[index]])) if each is None else module.prompt_encoder(*prompts_of(each))
        for index, each in enumerate(drawn)
    ]
    assert made.dtype == dtype
    torch.testing.assert_close(made, torch.cat(expected))


@pytest.mark.parametrize(
    ("drawn", "idle"), [((None,), "prompt_encoder"), ((CLICK,), "memory")], ids=["masks only", "clicks only"]
)
def test_a_part_without_work_is_not_run(drawn, idle):
    module = build()
    for part in (idle, "mask_head", "mask_decoder"):
        module.get_submodule(part).register_forward_pre_hook(lambda *_: pytest.fail("it was run"))
    module(views_of(*drawn), (1,))


def test_an_untrained_adapter_takes_over_sam2_and_the_projector(tmp_path):
    """SAM 2's weights first, then the copy of its prompt encoder."""
    source = build(picture_px=96).mask_decoder.sam2
    source.save_pretrained(tmp_path)
    module = build(sam2_checkpoint=str(tmp_path))
    layers = [nn.Linear(C, C), nn.Linear(C, D)]
    own = module.mask_head.mlp[1].weight.clone()
    module.start_from(layers)
    sam2 = module.mask_decoder.sam2
    assert torch.equal(sam2.memory_encoder.projection.weight, source.memory_encoder.projection.weight)
    assert torch.equal(module.prompt_encoder.kind.weight, source.prompt_encoder.point_embed.weight)
    assert torch.equal(module.prompt_encoder.place.directions, source.shared_image_embedding.positional_embedding)
    assert torch.equal(module.memory.mlp[2].weight, layers[1].weight)
    assert torch.equal(module.mask_head.mlp[1].weight, own)


def test_a_trained_adapter_needs_no_checkpoint(tmp_path):
    """It holds SAM 2's weights itself: nothing but the folder is read."""
    build().mask_decoder.sam2.save_pretrained(tmp_path / "sam2")
    options = {**TINY, "sam2_checkpoint": str(tmp_path / "sam2")}
    bare, native = get_backbone("videollama3").tiny(0)
    model, processor = attach(bare, native, adapter="unipixel", adapter_config=options)
    model.save_pretrained(tmp_path / "model", processor)
    shutil.rmtree(tmp_path / "sam2")
    loaded = RegionModel.from_pretrained(tmp_path / "model", backbone=get_backbone("videollama3").tiny(0)[0])
    assert loaded.adapter_config == model.adapter_config
    torch.testing.assert_close(loaded.adapter.state_dict(), model.adapter.state_dict(), atol=0, rtol=0)


# Two objects on a clip of three pictures, one on a single picture.
DICE = torch.Generator().manual_seed(0)
CLIPS = Clips(torch.randint(256, (4, 3, PICTURE_PX, PICTURE_PX), generator=DICE).byte(), (3, 1))
MASKS = torch.rand(7, PICTURE_PX, PICTURE_PX, generator=DICE) > torch.linspace(0.2, 0.8, 7)[:, None, None]
HIDDEN = torch.randn(3, D, generator=DICE)


def targets_of(*rows):
    return MaskTargets(MASKS, torch.tensor(rows))


@torch.no_grad()
def test_options_reach_the_parts_that_they_are_for():
    costs = {
        dice: build(dice_weight=dice).eval().mask_losses(HIDDEN[:1], CLIPS, [1], targets_of(0)) for dice in (1.0, 3.0)
    }
    for name in ("mask", "dice", "iou", "presence"):
        torch.testing.assert_close(costs[3.0][name], (3 if name == "dice" else 1) * costs[1.0][name])
    assert build(prompt_tokens=3).mask_head(HIDDEN).shape == (3, 3, S)
    carried, alone = (
        build(propagate=propagate).eval().predict_masks(HIDDEN[:1], CLIPS, [0]) for propagate in (True, False)
    )
    assert (carried.iou - alone.iou).abs().gt(1e-6).tolist() == [False, True, True]


@torch.no_grad()
def test_an_objects_losses_are_of_its_own_clip():
    module = build().eval()
    together = module.mask_losses(HIDDEN, CLIPS, [1, 0, 0], targets_of(0, 1, 2, 3, 4, MaskTargets.ABSENT, 6))
    alone = [
        module.mask_losses(HIDDEN[:1], CLIPS, [1], targets_of(0)),
        module.mask_losses(HIDDEN[1:2], CLIPS, [0], targets_of(1, 2, 3)),
        module.mask_losses(HIDDEN[2:], CLIPS, [0], targets_of(4, MaskTargets.ABSENT, 6)),
    ]
    for name, costs in together.items():
        torch.testing.assert_close(costs, torch.cat([each[name] for each in alone]), atol=1e-4, rtol=1e-4)


# --- on every backbone --------------------------------------------------------------------------------------

BACKBONES = ["videollama3", "qwen2_5_vl", "llava_onevision"]
TRIANGLE = Region.from_polygon([8, 10, 50, 12, 20, 60])
VIDEO = {"type": "video", "video": np.stack([picture(70, 70, seed=frame) for frame in range(5)]), "fps": 2.0}

on_every_backbone = pytest.mark.parametrize("backbone", BACKBONES)


@pytest.fixture
def unipixel(backbone):
    made = make_pair("unipixel", backbone)
    yield made
    made.model.detach()


def object_tokens(pair, inputs):
    """The tokens that the adapter makes in the decoder's place, and the scene that it reads."""
    spec, call = pair.model.backbone_spec, NativeCall(pair.model.backbone.config, inputs)
    with torch.no_grad(), captured_scene(pair.model.backbone, spec, inputs["regions"].scene, call) as scene:
        pair.model(**inputs)
        return pair.model.object_tokens(inputs["regions"], scene()), scene()[False]


def test_a_backbone_plugin_that_says_nothing_new_is_served(monkeypatch):
    """One written before: cells are patches, the memory starts at random, and videos are refused with the reason."""
    spec = get_backbone("qwen2_5_vl")
    spec = replace(spec, cells=None, parts=replace(spec.parts, projector_layers=()), videos=None)
    for module in ("model", "processor"):
        monkeypatch.setattr(f"pixelrefer_plugin.{module}.backbone_for", lambda *_: spec)
    pair = make_pair("unipixel", "qwen2_5_vl")
    assert pair.model.adapter.memory.mlp[0].in_features == spec.crops.width(pair.model.backbone.config)
    inputs = pair.processor([user(picture(70, 120), "is <region> left of <region>?")], [CLICK, TRIANGLE], segment=True)
    generated = pair.model.generate(**inputs, force_mask=True, max_new_tokens=2, suppress_tokens=pair.media_ids)
    assert [len(row) for row in generated.objects] == [1]
    with pytest.raises(PluginError, match="does not say how its own pass sees videos"):
        pair.processor([user(VIDEO, "what is <region>?")], [VideoRegion({0: TRIANGLE})])
    pair.model.detach()


@on_every_backbone
def test_attaching_starts_from_the_backbones_projector(unipixel):
    model = unipixel.model
    layers = [model.backbone.get_submodule(path) for path in model.backbone_spec.parts.projector_layers]
    assert len(layers) == 2
    for layer, source in zip((model.adapter.memory.mlp[0], model.adapter.memory.mlp[2]), layers, strict=True):
        assert torch.equal(layer.weight, source.weight)
        assert torch.equal(layer.bias, source.bias)
        assert layer.weight.data_ptr() != source.weight.data_ptr()


@on_every_backbone
def test_click_box_and_mask_in_one_conversation(unipixel):
    """The mask's token is listed first, made of the cells that the decoder's scene tokens are made of."""
    adapter = unipixel.model.adapter
    question = user(picture(70, 120), "is <region> left of <region>, and <region> below <region>?")
    regions = [Region.from_points([(20, 30)]), Region.from_box((60, 10, 110, 60)), TRIANGLE, CLICKS]
    inputs = unipixel.processor([question], regions)
    assert inputs["regions"].counts == (1, 1, 1, 2)
    tokens, scene = object_tokens(unipixel, inputs)
    box = inputs["regions"].scene.whole.boxes_xyxy[0]
    touched = torch.from_numpy(TRIANGLE.to_mask((70, 120)).coverage(box, scene.grids_hw[0]) > 0).flatten()
    assert scene.features.shape[1] == adapter.memory.mlp[0].in_features
    with torch.no_grad():
        remembered = adapter.memory.mlp(scene.features[touched].mean(dim=0, keepdim=True))
        prompts, counts = prompts_of(regions[0], regions[1], CLICKS, images_hw=(70, 120))
        drawn = adapter.prompt_encoder(prompts, counts)
    torch.testing.assert_close(tokens, torch.cat([remembered, drawn]), atol=1e-5, rtol=1e-5)


@on_every_backbone
def test_an_object_of_a_video_has_a_token_for_each_grid_that_shows_it(unipixel):
    """Of the five frames it is on 0, 1 and 4; Qwen2.5-VL shows two frames in one grid, and their masks count as one."""
    spec, model = unipixel.model.backbone_spec, unipixel.model
    shapes = {0: TRIANGLE, 1: Region.from_box((40, 30, 70, 68)), 4: Region.from_box((0, 40, 20, 70))}
    masks = {frame: shape.to_mask((70, 70)).dense() for frame, shape in shapes.items()}
    region = VideoRegion({frame: Region.from_mask(mask) for frame, mask in masks.items()})
    inputs = unipixel.processor([user(VIDEO, "does <region> follow <region>?")], [region, VideoRegion({3: CLICK})])
    together = spec.videos.frames_per_grid(model.backbone.config)
    seen = {0: masks[0] | masks[1], 2: masks[4]} if together == 2 else masks
    assert inputs["regions"].counts == (1,) * (len(seen) + 1)
    tokens, scene = object_tokens(unipixel, inputs)
    area, box = np.prod(scene.grids_hw[0]), inputs["regions"].scene.whole.boxes_xyxy[0]
    touched = [
        np.flatnonzero(RegionMask.from_dense(mask).coverage(box, scene.grids_hw[grid])) + grid * area
        for grid, mask in seen.items()
    ]
    with torch.no_grad():
        means = torch.stack([scene.features[rows].mean(dim=0) for rows in touched])
        drawn = model.adapter.prompt_encoder(*prompts_of(CLICK, images_hw=(70, 70), position=3, num_frames=5))
        expected = torch.cat([model.adapter.memory.mlp(means), drawn])
    torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=1e-5)


def learning_inputs(pair, parts, answer, regions):
    return pair.processor([user(*parts), assistant(answer)], regions, labels=True)


@on_every_backbone
def test_a_mask_on_a_later_frame_teaches_all_of_sam2_that_it_takes(unipixel):
    """Known on frame 4 alone: what frame 0 was and how it is remembered learn from it, and the hidden state too."""
    model = unipixel.model
    model.add_lora()
    target = VideoRegion({4: TRIANGLE})
    inputs = learning_inputs(unipixel, (VIDEO, "segment it"), "it is <seg>", [target])
    model.train()(**inputs).loss.backward()
    adapter = dict(model.adapter.named_parameters())
    for part in ("mask_head", "mask_decoder.sam2.memory_encoder", "mask_decoder.sam2.memory_attention"):
        gradients = [each.grad for name, each in adapter.items() if name.startswith(part)]
        assert gradients, part
        assert any(each.any() for each in gradients), f"nothing reaches {part}"
    backbone = dict(model.backbone.named_parameters())
    assert any(each.grad is not None and each.grad.any() for name, each in backbone.items() if "lora_" in name)
    frozen = [name for name in backbone if "lora_" not in name and "trainable_tokens_" not in name]
    assert all(backbone[name].grad is None for name in frozen)


@on_every_backbone
def test_clicks_masks_and_answers_with_masks_reach_every_part(unipixel):
    regions = [Region.from_points([(20, 30)]), TRIANGLE, TRIANGLE]
    inputs = learning_inputs(unipixel, (picture(70, 120), "<region> or <region>?"), "[1] <seg>", regions)
    output = unipixel.model.train()(**inputs)
    output.loss.backward()
    assert set(output.mask_losses) == {"mask", "dice", "iou", "presence"}
    for name, child in unipixel.model.adapter.named_children():
        assert any(each.grad.any() for each in child.parameters()), f"nothing reaches {name}"


@on_every_backbone
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_masks_have_the_original_size(backbone, dtype):
    """With a head that takes every object for present, and every pixel for its own."""
    pair = make_pair("unipixel", backbone, dtype=dtype)
    decoder = pair.model.adapter.mask_decoder.sam2.mask_decoder
    with torch.no_grad():
        decoder.pred_obj_score_head.proj_out.bias.fill_(20)
        decoder.upscale_conv2.bias.fill_(5)
        for each in decoder.output_hypernetworks_mlps:
            each.proj_out.bias.fill_(5)
    asked = [[user(each, "segment it")] for each in (picture(70, 120), VIDEO, picture(110, 60))]
    inputs = pair.processor(asked, [[], [], []], segment=True)
    options = {"do_sample": False, "max_new_tokens": 3, "suppress_tokens": pair.media_ids}
    generated = pair.model.generate(**inputs, force_mask=True, **options)
    (wide,), (video,), (tall,) = generated.objects
    assert wide.region == Region.from_mask(np.ones((70, 120), bool))
    assert tall.region == Region.from_mask(np.ones((110, 60), bool))
    assert video.region == VideoRegion(dict.fromkeys(range(5), Region.from_mask(np.ones((70, 70), bool))))
    assert [list(each.presence) for each in (wide, video, tall)] == [[0], [0, 1, 2, 3, 4], [0]]
    assert all(text.endswith("<seg>") for text in pair.processor.decode(generated, inputs))
    pair.model.detach()


@on_every_backbone
def test_sam2_sees_a_picture_once_for_all_its_objects(unipixel):
    seen = []
    encoder = unipixel.model.adapter.mask_decoder.sam2.vision_encoder
    encoder.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append([*args, *kwargs.values()][0].shape[0]), with_kwargs=True
    )
    regions = [TRIANGLE, Region.from_box((60, 10, 110, 60))]
    inputs = learning_inputs(unipixel, (picture(70, 120), "segment them"), "[1] <seg>, [2] <seg>", regions)
    unipixel.model(**inputs)
    assert sum(seen) == 1


@on_every_backbone
def test_lora_of_the_recipes_is_on_every_attention_layer_and_nothing_else(unipixel):
    backbone, spec = unipixel.model.backbone, unipixel.model.backbone_spec
    lora = get_adapter("unipixel").recipes["unipixel_stage3"].lora
    scopes = "|".join(f"({spec.lora_targets[scope]})" for scope in lora["scopes"])
    linear = [name for name, module in backbone.named_modules() if isinstance(module, nn.Linear)]
    reached = [name for name in linear if re.fullmatch(scopes, name) and name.split(".")[-1] in lora["targets"]]
    attention = [name for name in linear if re.search(r"\.(self_)?attn\.", name)]
    assert reached == attention
