"""`RegionBatch`: promised = delivered for whatever regions come, shared crops, views, pixels."""

import math
import pickle
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import scene_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn.functional import interpolate

from pixelrefer_plugin import (
    PluginError,
    Region,
    RegionMask,
    RegionModel,
    TokenIds,
    get_adapter,
    get_backbone,
    load_video,
)
from pixelrefer_plugin.authoring import (
    AdapterModule,
    AdapterSpec,
    Cells,
    CropView,
    FeatureGrids,
    NativeCall,
    PatchGeometry,
    Planner,
    PromptView,
    RegionPlan,
    SceneView,
    Shapes,
)
from pixelrefer_plugin.conversation.sample import ReadSample
from pixelrefer_plugin.tokens.crops import VideoFrame
from pixelrefer_plugin.tokens.layouts import Features, PlannedRegion, PromptLayout
from pixelrefer_plugin.tokens.region_batch import make_region_batch
from pixelrefer_plugin.tokens.scene import plan_scene

GEOMETRY = PatchGeometry(patch_size=14)
WIDTH = 4


def photo(height, width, seed=0):
    """A picture with structure at every scale, so that a wrong crop shows."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    smooth = Image.fromarray(noise).resize((max(1, width // 8), max(1, height // 8))).resize((width, height))
    return Image.blend(Image.fromarray(noise), smooth, 0.5)


def box_mask(box_xyxy, image_hw):
    left, top, right, bottom = box_xyxy
    return RegionMask(np.ones((bottom - top, right - left), bool), box_xyxy, image_hw)


def make_batch(adapter, regions, images, *, geometry=GEOMETRY, samples=None, scene_grids_hw=None, config=None):
    """The batch of `(image, mask)` regions, by default all of one sample."""
    config = config or adapter.make_config()
    planner = adapter.planner(config)
    planned = [[PlannedRegion(mask, mask.box_xyxy, planner.plan(mask, geometry), image)] for image, mask in regions]
    starts = np.cumsum([0, *(samples or [len(planned)])])
    return make_region_batch(
        [planned[start:end] for start, end in pairwise(starts)],
        adapter=adapter.name,
        placeholder_id=9,
        pictures=images,
        scene=scene_of(images, scene_grids_hw or [(3, 4)] * len(images)),
        geometry=geometry,
        pixel_mean=[0.4, 0.5, 0.6],
        pixel_std=[0.2, 0.3, 0.4],
    )


def encoded(layout, grids):
    """A view with the features of its own grids; the crops of the views before it hold nothing."""
    if layout.crops is None:
        return layout.encoded(Features(None, {layout.tiled: grids}))
    first = layout.crops.start
    before = FeatureGrids(grids.features.new_full((first, grids.features.shape[1]), math.nan), ((1, 1),) * first)
    return layout.encoded(Features(FeatureGrids.joined([before, grids])))


def deliver(module, batch, generator):
    """What the module makes of random features on the right grids."""
    views = []
    for layout in batch.views:
        patches = sum(h * w for h, w in layout.grids_hw)
        views.append(encoded(layout, FeatureGrids(torch.randn(patches, WIDTH, generator=generator), layout.grids_hw)))
    return module(tuple(views), batch.counts)


# --- promised = delivered -----------------------------------------------------------------------------------

_SIDES = st.one_of(st.integers(1, 30), st.integers(1, 400), st.sampled_from([1, 2, 13, 14, 15, 28, 719, 1280, 2000]))


@st.composite
def masks(draw):
    """A mask on an image: boxes, pixels, lines, speckles and blots, inside and at the borders."""
    height, width = draw(_SIDES), draw(_SIDES)
    dense = np.zeros((height, width), bool)
    kind = draw(st.sampled_from(["whole", "pixel", "box", "border", "row", "column", "corners", "speckles", "blot"]))
    y, x = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    bottom, right = draw(st.integers(y + 1, height)), draw(st.integers(x + 1, width))
    dice = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if kind == "whole":
        dense[:] = True
    elif kind == "pixel":
        dense[y, x] = True
    elif kind == "border":
        dense[draw(st.sampled_from([np.s_[0, :], np.s_[-1, :], np.s_[:, 0], np.s_[:, -1]]))] = True
    elif kind == "row":
        dense[y] = True
    elif kind == "column":
        dense[:, x] = True
    elif kind == "corners":
        dense[0, 0] = dense[-1, -1] = True
    elif kind == "speckles":
        dense[dice.integers(0, height, 9), dice.integers(0, width, 9)] = True
    elif kind == "blot":
        dense[y:bottom, x:right] = dice.random((bottom - y, right - x)) < dice.random()
        dense[y, x] = True
    else:
        dense[y:bottom, x:right] = True
    return RegionMask.from_dense(dense)


@pytest.mark.parametrize("name", ["saot", "maskpool"])
def test_promised_tokens_are_delivered(name):
    adapter = get_adapter(name)
    config = adapter.make_config()
    module = adapter.module.build(config, Shapes(crop=WIDTH, scene=WIDTH, decoder=3)).eval()
    generator = torch.Generator().manual_seed(0)

    @settings(
        max_examples=1000,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(mask=masks(), multiple=st.sampled_from([1, 2]), merge=st.sampled_from([14, 28]))
    def check(mask, multiple, merge):
        geometry = PatchGeometry(14, multiple)
        height, width = mask.image_hw
        plan = adapter.planner(config).plan(mask, geometry)
        assert plan.num_tokens >= 1
        for view in plan.views:
            if isinstance(view, CropView):
                check_crop(view, mask, config, multiple)
        batch = make_batch(
            adapter,
            [(0, mask)],
            [Image.new("RGB", (width, height))],
            geometry=geometry,
            scene_grids_hw=[(-(-height // merge), -(-width // merge))],
        )
        with torch.no_grad():
            tokens = deliver(module, batch, generator)
        assert tokens.shape == (plan.num_tokens, 3)
        assert tokens.isfinite().all()

    check()


def check_crop(view, mask, config, multiple):
    rows, columns = view.grid_hw
    assert rows >= 1
    assert columns >= 1
    assert rows % multiple == columns % multiple == 0
    assert rows * columns <= config.max_patches
    assert view.mask.shape == view.grid_hw
    left, top, right, bottom = view.box_xyxy
    tight = mask.box_xyxy
    assert 0 <= left <= tight[0] < tight[2] <= right <= mask.image_hw[1]
    assert 0 <= top <= tight[1] < tight[3] <= bottom <= mask.image_hw[0]


# --- crops --------------------------------------------------------------------------------------------------


BOXES = [(40, 30, 140, 110), (0, 0, 300, 200), (5, 190, 6, 191), (250, 0, 300, 9), (17, 20, 297, 23)]


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("grid_hw", [(10, 11), (2, 31), (1, 1)])
def test_a_crop_is_the_box_resized_as_pillow_does(box, grid_hw):
    image = photo(200, 300)
    crop = crops_of([CropView(box, grid_hw)], image)[0]
    expected = image.crop(box).resize((grid_hw[1] * 14, grid_hw[0] * 14), Image.Resampling.BICUBIC)
    assert crop.dtype == torch.uint8
    apart = (crop.permute(1, 2, 0).int() - torch.from_numpy(np.array(expected)).int()).abs()
    # Both round between their two passes, and may begin with another one of them: in rare places that adds up to 2.
    assert apart.max() <= 2
    assert (apart > 1).float().mean() < 1e-3
    values = torch.from_numpy(np.array(image.crop(box))).permute(2, 0, 1)[None].double()
    exact = interpolate(values, crop.shape[1:], mode="bicubic", antialias=True)[0].clamp(0, 255)
    errors = [(each - exact).abs().mean() for each in (crop, torch.from_numpy(np.array(expected)).permute(2, 0, 1))]
    assert errors[0] <= errors[1] + 0.01, "less exact than Pillow"


def test_a_crop_sees_nothing_beyond_its_box():
    outside = np.asarray(photo(200, 300)).copy()
    inside = outside[30:110, 40:140].copy()
    outside[:] = 255
    outside[30:110, 40:140] = inside
    view = CropView((40, 30, 140, 110), (4, 5))
    assert torch.equal(crops_of([view], photo(200, 300))[0], crops_of([view], Image.fromarray(outside))[0])


@pytest.mark.parametrize(("resample", "method"), [("opencv_linear", "INTER_LINEAR"), ("opencv_area", "INTER_AREA")])
@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("grid_hw", [(10, 11), (2, 31), (1, 1)])
def test_opencvs_crops_are_its_own_call(box, grid_hw, resample, method):
    import cv2

    image = photo(200, 300)
    left, top, right, bottom = box
    part = np.asarray(image)[top:bottom, left:right]
    expected = cv2.resize(part, (grid_hw[1] * 14, grid_hw[0] * 14), interpolation=getattr(cv2, method))
    (crop,) = crops_of([CropView(box, grid_hw, resample=resample)], image)
    assert np.array_equal(crop.permute(1, 2, 0), expected)


@pytest.mark.parametrize("encoded_hw", [(4, 5), (12, 6)])
def test_what_the_tower_may_not_be_given_is_resized_once_more(encoded_hw):
    import cv2

    image, box = photo(200, 300), (40, 30, 140, 110)
    part = np.asarray(image)[30:110, 40:140]
    large = Image.fromarray(cv2.resize(part, (140, 112), interpolation=cv2.INTER_LINEAR))
    expected = large.resize((encoded_hw[1] * 14, encoded_hw[0] * 14), Image.Resampling.BICUBIC)
    view = CropView(box, (8, 10), resample="opencv_linear", encoded_hw=encoded_hw)
    assert np.array_equal(crops_of([view], image)[0].permute(1, 2, 0), np.asarray(expected))


def test_crops_that_are_resized_in_another_way_are_not_shared():
    same = [CropView((0, 0, 40, 40), (2, 2)), CropView((0, 0, 40, 40), (2, 2), np.ones((2, 2), np.float32))]
    other = [CropView((0, 0, 40, 40), (2, 2), resample="opencv_area"), CropView((0, 0, 40, 40), (2, 2), None)]
    assert len(crops_of(same, photo(60, 90))) == 1
    assert len(crops_of([*same, *other], photo(60, 90))) == 2


@pytest.mark.parametrize("repeated", [1, 9])
def test_frames_of_videos_are_cut_as_pictures_are(repeated):
    images = [photo(60, 90, seed=seed) for seed in range(3)]
    video = load_video(np.stack([np.asarray(image) for image in images]), fps=1.0)
    views = [CropView((x, 5, x + 60, 50), (3, 4)) for x in range(repeated)]
    regions = [
        [PlannedRegion(None, view.box_xyxy, RegionPlan(1, (view,)), picture)] for picture in range(3) for view in views
    ]
    frames = [VideoFrame(video, position) for position in range(3)]
    assert torch.equal(batch_of(regions, frames).pixels, batch_of(regions, images).pixels)


def batch_of(regions, pictures):
    return make_region_batch(
        [regions],
        adapter="any",
        placeholder_id=9,
        pictures=pictures,
        geometry=GEOMETRY,
        pixel_mean=[0.4, 0.5, 0.6],
        pixel_std=[0.2, 0.3, 0.4],
    )


def batch_of_views(views, image):
    """The batch of regions on one picture, each planned as one of `views`."""
    return batch_of([[PlannedRegion(None, view.box_xyxy, RegionPlan(1, (view,)), 0)] for view in views], [image])


def crops_of(views, image):
    return batch_of_views(views, image).crops


@pytest.mark.parametrize("threads", [1, 2])
def test_crops_are_the_same_on_any_number_of_threads(threads):
    images = [photo(200, 300, seed=1), photo(120, 90, seed=2)]
    regions = [(0, box_mask((x, 20, x + 30, 90), (200, 300))) for x in range(0, 260, 20)]
    regions.append((1, box_mask((3, 4, 50, 60), (120, 90))))
    expected = [make_batch(get_adapter("saot"), [region], images).crops[0] for region in regions]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        batch = make_batch(get_adapter("saot"), regions, images)
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, batch.crops, expected))


def test_identical_crops_are_encoded_once():
    box = (40, 30, 140, 110)
    ring = np.ones((80, 100), bool)
    ring[20:60, 20:80] = False
    solid = box_mask(box, (200, 300))
    images = [photo(200, 300, seed=1), photo(200, 300, seed=2)]
    adapter = get_adapter("saot")
    config = adapter.make_config({"num_tokens": 1})  # neither grows nor shrinks: the scale is 1
    holed = RegionMask(ring, box, (200, 300))
    batch = make_batch(adapter, [(0, solid), (0, holed), (1, solid), (0, solid)], images, config=config)
    assert len(batch.crops) == 2
    assert batch.views[0].grid_of_region == (0, 0, 1, 0)
    inside = batch.views[0].rows.index.split(batch.views[0].patches_per_region)
    assert set(inside[1].tolist()) < set(inside[0].tolist()) == set(inside[3].tolist())
    assert inside[2].tolist() == (inside[0] + math.prod(batch.crop_grids_hw[0])).tolist()


def test_normalised_crops_are_what_the_image_processor_makes():
    from einops import rearrange
    from transformers.models.video_llama_3.image_processing_pil_video_llama_3 import (
        VideoLlama3ImageProcessorPil,
    )

    image = photo(112, 84)
    native = VideoLlama3ImageProcessorPil(
        merge_size=1, do_resize=False, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4]
    )
    batch = make_batch(get_adapter("saot"), [(0, box_mask((0, 0, 84, 112), (112, 84)))], [image])
    (crop,) = batch.normalised_crops(torch.float32)
    assert crop.shape == (3, 112, 84), "the whole image at scale 1"
    patches = rearrange(crop, "c (h ph) (w pw) -> (h w) (c ph pw)", ph=14, pw=14)
    expected = torch.as_tensor(native([image], return_tensors="pt")["pixel_values"])
    torch.testing.assert_close(patches, expected, atol=1e-5, rtol=0)
    assert batch.normalised_crops(torch.bfloat16)[0].dtype == torch.bfloat16
    assert batch.crops[0].dtype == torch.uint8


def test_crops_are_normalised_alike_all_at_once_and_one_by_one():
    """On other devices than a CPU they are normalised all at once."""
    _, batch = stretched_batch()
    moved = batch.to("meta").normalised_crops(torch.bfloat16)
    assert [(each.shape, each.dtype) for each in moved] == [(each.shape, torch.bfloat16) for each in batch.crops]
    apart = [(crop / 255 - batch.pixel_mean[:, None, None]) / batch.pixel_std[:, None, None] for crop in batch.crops]
    for crop, expected in zip(batch.normalised_crops(torch.float32), apart, strict=True):
        torch.testing.assert_close(crop, expected, atol=1e-5, rtol=0)


# --- stretched features -------------------------------------------------------------------------------------

SHAPES = [
    ((9, 7), (4, 3)),
    ((6, 40), (6, 5)),
    ((5, 5), (1, 1)),
    ((3, 4), (3, 4)),
    ((2, 3), (7, 5)),
    ((90, 80), (31, 33)),
]


def scattered(grid_hw, seed):
    mask = np.random.default_rng(seed).random(grid_hw) < 0.6
    mask[-1, -1] = True
    return mask.astype(np.float32)


def stretched_batch(shapes=SHAPES):
    views = [
        CropView((index, 0, index + 50, 40), grid_hw, scattered(grid_hw, index), encoded_hw=encoded_hw)
        for index, (grid_hw, encoded_hw) in enumerate(shapes)
    ]
    return views, batch_of_views(views, photo(60, 90))


def random_grids(layout, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(sum(h * w for h, w in layout.grids_hw), WIDTH, generator=generator, dtype=dtype)
    return FeatureGrids(features, layout.grids_hw)


def interpolated(grid, view):
    """The patches of a view's mask, of the whole grid stretched by torch; the grid as towers give it, `(h, w, C)`."""
    # In another layout of memory torch computes where to read in another order, which is up to 1e-5 apart.
    whole = interpolate(grid.permute(2, 0, 1)[None], view.grid_hw, mode="bilinear", align_corners=False)
    return whole[0].permute(1, 2, 0)[torch.from_numpy(view.mask) > 0]


def test_stretched_features_are_what_torch_interpolates():
    views, batch = stretched_batch()
    (layout,) = batch.views
    assert batch.crop_grids_hw == layout.grids_hw == tuple(encoded_hw for _, encoded_hw in SHAPES)
    view = encoded(layout, random_grids(layout))
    expected = [interpolated(view.grids[index], each) for index, each in enumerate(views)]
    torch.testing.assert_close(view.patch_features(), torch.cat(expected), atol=1e-6, rtol=0)
    assert layout.patches_per_region == tuple(map(len, expected))


def test_positions_are_where_the_stretched_features_are_read():
    _, batch = stretched_batch()
    (layout,) = batch.views
    rows_and_columns = [torch.cartesian_prod(torch.arange(h), torch.arange(w)) for h, w in layout.grids_hw]
    grids = FeatureGrids(torch.cat(rows_and_columns).float(), layout.grids_hw)
    torch.testing.assert_close(encoded(layout, grids).patch_features(), layout.patch_ij, atol=1e-5, rtol=0)
    starts = layout.rows.starts.tolist()
    for pair, (start, end) in enumerate(pairwise([*starts, len(layout.rows.index)])):
        corners, shares = grids.features[layout.rows.index[start:end]], layout.rows.weights[start:end]
        assert 1 <= end - start <= 4
        assert (shares > 0).all()
        assert shares.sum().item() == pytest.approx(1, abs=1e-5)
        assert (corners - layout.patch_ij[pair]).abs().max() < 1, "a patch that is not around the place"
        assert (corners[shares.argmax()] - layout.patch_ij[pair]).abs().max() <= 0.5 + 1e-5
    assert layout.patch_ij.dtype == torch.float32


def test_a_view_that_is_not_stretched_reads_its_patches_bit_by_bit():
    alone, together = SHAPES[3:4], SHAPES
    for shapes, index in ((alone, 0), (together, 3)):
        views, batch = stretched_batch(shapes)
        (layout,) = batch.views
        assert (layout.rows.weights is None) == (layout.rows.starts is None) == (shapes is alone)
        view = encoded(layout, random_grids(layout))
        own = layout.region_of_patch == index
        expected = view.grids[index][torch.from_numpy(views[index].mask) > 0]
        assert torch.equal(view.patch_features()[own], expected)
        rows = layout.rows.index if shapes is alone else layout.rows.index[layout.rows.starts[own]]
        assert torch.equal(view.grids.features[rows], expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_stretched_features_keep_their_dtype(dtype):
    _, batch = stretched_batch()
    (layout,) = batch.views
    view = encoded(layout, random_grids(layout, dtype))
    exact = encoded(layout, FeatureGrids(view.grids.features.double(), layout.grids_hw)).patch_features()
    assert view.patch_features().dtype == dtype
    torch.testing.assert_close(view.patch_features().double(), exact, atol=0.02, rtol=0)


def test_gradients_flow_through_stretched_features():
    _, batch = stretched_batch(SHAPES[:3])
    (layout,) = batch.views
    features = random_grids(layout, torch.float64).features.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda features: encoded(layout, FeatureGrids(features, layout.grids_hw)).patch_features(), (features,)
    )


@pytest.mark.parametrize("encoded_hw", [None, (1, 2)])
def test_a_region_without_a_patch_has_no_pairs(encoded_hw):
    nothing = CropView((0, 0, 40, 40), (3, 2), np.zeros((3, 2), np.float32), encoded_hw=encoded_hw)
    something = CropView((0, 0, 50, 40), (2, 2), np.eye(2, dtype=np.float32))
    for views, pairs in (([nothing], (0,)), ([nothing, something], (0, 2)), ([something, nothing], (2, 0))):
        (layout,) = batch_of_views(views, photo(60, 90)).views
        view = encoded(layout, random_grids(layout))
        assert view.patches_per_region == pairs
        assert view.patch_features().shape == (sum(pairs), WIDTH)
        assert view.patch_ij.shape == (sum(pairs), 2)


# --- layout -------------------------------------------------------------------------------------------------


def test_the_layout_is_the_masks_as_coordinates():
    regions = [(0, box_mask((40, 30, 140, 110), (200, 300))), (1, box_mask((3, 4, 9, 60), (120, 90)))]
    adapter = get_adapter("saot")
    batch = make_batch(adapter, regions, [photo(200, 300), photo(120, 90)], samples=[1, 0, 1])
    (layout,) = batch.views
    for index, (_, mask) in enumerate(regions):
        plan = adapter.planner(adapter.make_config()).plan(mask, GEOMETRY)
        (view,) = plan.views
        own = layout.region_of_patch == index
        i, j = np.nonzero(view.mask)
        first = math.prod(batch.crop_grids_hw[0]) * index
        assert layout.patch_ij[own].tolist() == np.stack([i, j], axis=1).tolist()
        assert layout.rows.index[own].tolist() == (first + i * view.grid_hw[1] + j).tolist()
        assert layout.patch_weights[own].tolist() == view.mask[i, j].tolist()
        assert layout.patches_per_region[index] == len(i)
        assert layout.boxes_xyxy[index].tolist() == list(view.box_xyxy)
        assert layout.region_boxes_xyxy[index].tolist() == list(mask.box_xyxy)
        assert layout.images_hw[index].tolist() == list(mask.image_hw)
        assert batch.images_hw[index] == mask.image_hw
    assert layout.regions == (0, 1)
    assert batch.regions_per_sample == (1, 0, 1)
    assert batch.tokens_per_sample() == [batch.counts[0], 0, batch.counts[1]]


def tensors_of(batch):
    layout = batch.views[0]
    names = ("patch_weights", "patch_ij", "region_of_patch", "boxes_xyxy", "region_boxes_xyxy", "images_hw")
    tensors = [*batch.crops, batch.pixels, batch.pixel_mean, batch.pixel_std, layout.rows.index]
    if layout.rows.weights is not None:
        tensors += [layout.rows.weights, layout.rows.starts]
    return [*tensors, *(getattr(layout, name) for name in names)]


def test_a_pickled_batch_is_the_same():
    _, batch = stretched_batch()
    again = pickle.loads(pickle.dumps(batch))
    assert all(map(torch.equal, tensors_of(again), tensors_of(batch)))
    assert (again.crop_grids_hw, again.views[0].crops) == (batch.crop_grids_hw, batch.views[0].crops)


@pytest.mark.parametrize("shapes", [SHAPES, [((3, 4), None)]], ids=["stretched", "plain"])
def test_to_moves_every_tensor_and_nothing_else(shapes):
    _, batch = stretched_batch(shapes)
    moved = batch.to("meta")
    assert {each.device.type for each in tensors_of(moved)} == {"meta"}
    assert {each.device.type for each in tensors_of(batch)} == {"cpu"}
    assert (moved.counts, moved.crop_grids_hw, moved.adapter) == (
        batch.counts,
        batch.crop_grids_hw,
        batch.adapter,
    )
    assert moved.views[0].crops == batch.views[0].crops
    assert moved.views[0].patches_per_region == batch.views[0].patches_per_region


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="pinned memory needs an accelerator")
def test_pin_memory_pins_every_tensor():
    batch = make_batch(get_adapter("saot"), [(0, box_mask((4, 3, 40, 30), (60, 90)))], [photo(60, 90)])
    assert all(each.is_pinned() for each in tensors_of(batch.pin_memory()))


# --- regions as they were drawn -----------------------------------------------------------------------------

CLICKS = Region.from_points([(3, 4), (20.5, 8)])
BOX = Region.from_box((2, 3, 18.5, 30))


def drawn_batch(drawn, *, image_hw=(60, 90), **fields):
    """A batch of regions on one picture, each drawn as given, or read by its mask where that is None."""
    planned = []
    for each in drawn:
        if each is None:
            mask = Region.from_box((4, 5, 9, 9)).to_mask(image_hw)
            planned.append([PlannedRegion(mask, mask.box_xyxy, RegionPlan(1, (SceneView(), None)), 0, **fields)])
            continue
        num_tokens = len(each.data[0]) if each.kind == "points" else 1
        planned.append([PlannedRegion(None, None, RegionPlan(num_tokens, (None, PromptView())), 0, each, **fields)])
    return make_region_batch(
        [planned],
        adapter="drawn",
        placeholder_id=9,
        pictures=[photo(*image_hw)],
        scene=scene_of([photo(*image_hw)], [(3, 4)]),
        geometry=GEOMETRY,
        pixel_mean=[0.5] * 3,
        pixel_std=[0.5] * 3,
    )


def prompts_in(batch):
    return batch.views[1].encoded(Features(None))


@pytest.mark.parametrize(
    ("drawn", "regions", "kinds", "points", "region_of_point"),
    [
        pytest.param([CLICKS], (0,), ("points",), [[3, 4], [20.5, 8]], [0, 0], id="clicks"),
        pytest.param([BOX], (0,), ("box",), [[2, 3], [18.5, 30]], [0, 0], id="a box"),
        pytest.param(
            [None, BOX, None, CLICKS],
            (1, 3),
            ("box", "points"),
            [[2, 3], [18.5, 30], [3, 4], [20.5, 8]],
            [0, 0, 1, 1],
            id="all kinds",
        ),
    ],
)
def test_a_prompt_view_holds_the_regions_as_they_were_drawn(drawn, regions, kinds, points, region_of_point):
    batch = drawn_batch(drawn, frame_position=2, num_frames=5)
    _, layout = batch.views
    prompts = prompts_in(batch)
    assert isinstance(layout, PromptLayout)
    assert (prompts.regions, prompts.kinds) == (regions, kinds)
    assert prompts.points_xy.tolist() == points
    assert prompts.points_xy.shape == (len(points), 2)
    assert prompts.region_of_point.tolist() == region_of_point
    assert (prompts.points_xy.dtype, prompts.region_of_point.dtype) == (torch.float32, torch.int64)
    assert prompts.frame_position.tolist() == [2.0] * len(regions)
    assert prompts.num_frames.tolist() == [5.0] * len(regions)
    assert prompts.images_hw.tolist() == [[60.0, 90.0]] * len(regions)
    assert batch.images_hw == ((60, 90),) * len(drawn)
    assert batch.crop_grids_hw == ()


@pytest.mark.parametrize(
    ("drawn", "of_scene", "of_prompts"),
    [
        ([None, None], (0, 1), None),
        ([CLICKS, BOX], None, (0, 1)),
        ([CLICKS, None, None, BOX, None], (1, 2, 4), (0, 3)),
    ],
    ids=["masks", "drawn", "mixed"],
)
def test_a_view_is_of_the_regions_that_have_it(drawn, of_scene, of_prompts):
    scene, prompts = drawn_batch(drawn).views
    assert (scene and scene.regions) == of_scene
    assert (prompts and prompts.prompts.regions) == of_prompts
    if scene is not None:
        assert len(scene.grid_of_region) == len(scene.patches_per_region) == len(of_scene)
        assert scene.region_of_patch.unique().tolist() == list(range(len(of_scene)))
        assert scene.boxes_xyxy.tolist() == [[0, 0, 90, 60]] * len(of_scene)
        assert scene.region_boxes_xyxy.tolist() == [[4, 5, 9, 9]] * len(of_scene)
        assert scene.images_hw.tolist() == [[60, 90]] * len(of_scene)


def test_crops_are_of_the_regions_that_ask_for_one():
    """Not every region has a crop, and one has two: each view numbers its own regions and grids."""
    boxes = [(0, 0, 30, 20), (10, 5, 50, 40), (20, 10, 90, 60)]
    views = [
        (None, CropView(boxes[0], (1, 2), np.ones((1, 2), np.float32))),
        (CropView(boxes[1], (3, 2)), None),
        (CropView(boxes[2], (2, 2)), CropView(boxes[2], (2, 2), np.eye(2, dtype=np.float32))),
    ]
    planned = [
        [PlannedRegion(None, box, RegionPlan(1, of_region), 0)] for box, of_region in zip(boxes, views, strict=True)
    ]
    first, second = batch_of(planned, [photo(60, 90)]).views
    assert (first.regions, first.grid_of_region, first.crops) == ((1, 2), (0, 1), slice(0, 2))
    assert (second.regions, second.grid_of_region, second.crops) == ((0, 2), (0, 1), slice(2, 4))
    assert (first.grids_hw, second.grids_hw) == (((3, 2), (2, 2)), ((1, 2), (2, 2)))
    assert (first.patches_per_region, second.patches_per_region) == ((0, 0), (2, 2))
    assert second.region_of_patch.tolist() == [0, 0, 1, 1]
    assert second.region_boxes_xyxy.tolist() == [list(map(float, boxes[0])), list(map(float, boxes[2]))]


def test_regions_on_an_image_lie_on_the_first_of_one_frame():
    prompts = prompts_in(drawn_batch([CLICKS]))
    assert (prompts.frame_position.tolist(), prompts.num_frames.tolist()) == ([0.0], [1.0])


def test_prompts_move_and_are_pickled_with_their_batch():
    batch = drawn_batch([CLICKS, None])
    names = ("points_xy", "region_of_point", "images_hw", "frame_position", "num_frames")
    moved, again = prompts_in(batch.to("meta")), prompts_in(pickle.loads(pickle.dumps(batch)))
    prompts = prompts_in(batch)
    assert {getattr(moved, name).device.type for name in names} == {"meta"}
    assert all(torch.equal(getattr(again, name), getattr(prompts, name)) for name in names)
    assert again.kinds == moved.kinds == ("points",)
    assert again.regions == moved.regions == (0,)


def test_a_region_that_is_read_by_neither_clicks_nor_box_cannot_be_drawn():
    with pytest.raises(AssertionError, match="only clicks and boxes are read as they are drawn, got 'polygon'"):
        drawn_batch([Region.from_polygon([1, 1, 20, 1, 20, 20])])


# --- one vector for each region -----------------------------------------------------------------------------

POOLED = {
    "plain": [((3, 4), None), ((2, 5), None), ((1, 1), None)],
    "stretched": SHAPES,
}


@pytest.mark.parametrize("dtype", [None, torch.float64], ids=["own dtype", "float64"])
@pytest.mark.parametrize(
    "empty", [None, 0, 1, 2], ids=["all have patches", "first empty", "middle empty", "last empty"]
)
@pytest.mark.parametrize("shapes", POOLED.values(), ids=POOLED)
def test_pooled_is_the_mean_or_the_weighted_sum_of_each_regions_patches(shapes, empty, dtype):
    views = [
        CropView((index, 0, index + 50, 40), grid_hw, scattered(grid_hw, index) * (index != empty), encoded_hw=encoded)
        for index, (grid_hw, encoded) in enumerate(shapes[:3])
    ]
    (layout,) = batch_of_views(views, photo(60, 90)).views
    view = encoded(layout, random_grids(layout))
    weights = torch.rand(len(view.patch_weights), generator=torch.Generator().manual_seed(1))
    of_region = [slice(start, end) for start, end in pairwise(np.cumsum([0, *view.patches_per_region]))]
    features = view.patch_features().to(dtype or torch.float32)
    means = [features[own].mean(dim=0) if own.stop > own.start else torch.zeros(WIDTH) for own in of_region]
    sums = [weights[own].to(features.dtype) @ features[own] for own in of_region]
    pooled, weighted = view.pooled(dtype=dtype), view.pooled(weights, dtype=dtype)
    assert pooled.dtype == weighted.dtype == features.dtype
    torch.testing.assert_close(pooled, torch.stack([each.to(features.dtype) for each in means]))
    torch.testing.assert_close(weighted, torch.stack(sums))
    torch.testing.assert_close(view.totals(weights), torch.stack([weights[own].sum() for own in of_region]))
    if empty is not None:
        assert view.patches_per_region[empty] == 0
        assert not pooled[empty].any()
        assert not weighted[empty].any()


@pytest.mark.parametrize("shapes", POOLED.values(), ids=POOLED)
def test_pooled_is_of_all_a_views_regions_when_none_has_a_patch(shapes):
    views = [
        CropView((0, 0, 50, 40), grid_hw, np.zeros(grid_hw, np.float32), encoded_hw=encoded)
        for grid_hw, encoded in shapes[:2]
    ]
    (layout,) = batch_of_views(views, photo(60, 90)).views
    view = encoded(layout, random_grids(layout))
    assert torch.equal(view.pooled(), torch.zeros(2, WIDTH))
    assert torch.equal(view.pooled(torch.zeros(0)), torch.zeros(2, WIDTH))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shapes", POOLED.values(), ids=POOLED)
def test_half_precision_is_pooled_in_the_dtype_that_is_asked_for(shapes, dtype):
    _, batch = stretched_batch(shapes)
    (layout,) = batch.views
    view = encoded(layout, random_grids(layout, dtype))
    exact = [each.double().mean(dim=0) for each in view.patch_features().split(view.patches_per_region)]
    assert view.pooled().dtype == dtype
    assert view.pooled(dtype=torch.float32).dtype == torch.float32
    torch.testing.assert_close(view.pooled(dtype=torch.float32).double(), torch.stack(exact), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(view.pooled().double(), torch.stack(exact), atol=0.02, rtol=0.02)


@pytest.mark.parametrize("shapes", POOLED.values(), ids=POOLED)
def test_gradients_flow_through_what_is_pooled(shapes):
    _, batch = stretched_batch(shapes[:3])
    (layout,) = batch.views
    features = random_grids(layout, torch.float64).features.requires_grad_()
    weights = torch.rand(len(layout.patch_weights), dtype=torch.float64, requires_grad=True)

    def pooled(features, weights):
        view = encoded(layout, FeatureGrids(features, layout.grids_hw))
        return view.pooled(), view.pooled(weights), view.totals(weights)

    assert torch.autograd.gradcheck(pooled, (features, weights))


# --- merged grids -------------------------------------------------------------------------------------------


def test_merged_cells_hold_their_patches_row_by_row():
    grids_hw = ((2, 4), (4, 2), (6, 6))
    features = torch.randn(sum(h * w for h, w in grids_hw), WIDTH)
    grids = FeatureGrids(features, grids_hw)
    merged = grids.merged(2)
    assert merged.grids_hw == ((1, 2), (2, 1), (3, 3))
    for index, (h, w) in enumerate(merged.grids_hw):
        for i in range(h):
            for j in range(w):
                patches = [grids[index][2 * i + down, 2 * j + right] for down in (0, 1) for right in (0, 1)]
                assert torch.equal(merged[index][i, j], torch.cat(patches))
    assert grids.merged(1) is grids


def test_grids_that_are_not_whole_cells_are_not_merged():
    with pytest.raises(AssertionError, match="no cells of 2x2"):
        FeatureGrids(torch.zeros(6, WIDTH), ((2, 3),)).merged(2)


def planned_scene(grids_hw, *, cell_side):
    """The scene of one picture that a backbone's own pass sees on a grid of that size."""
    spec = get_backbone("videollama3")
    images = replace(spec.images, grids_hw=lambda call: (grids_hw,))
    spec = replace(spec, images=images, cells=Cells(side=lambda config: cell_side))
    sample = ReadSample(
        targets={}, images=[photo(60, 90)], videos=[], messages=[], slots=[], regions=[], shows_media=True
    )
    adapter = replace(get_adapter("maskpool"), scene="cells")
    return plan_scene([sample], spec, adapter, NativeCall(None, {}), readings=frozenset([False]))


def test_a_scene_of_cells_is_planned_on_cells():
    scene = planned_scene((4, 6), cell_side=2)
    assert (scene.whole.grids_hw, scene.cell_side) == (((2, 3),), 2)
    assert scene.whole.boxes_xyxy == ((0, 0, 90, 60),)
    assert scene.tiled is None
    assert planned_scene((4, 6), cell_side=1).whole.grids_hw == ((4, 6),)


def test_a_backbone_that_promises_cells_that_its_grids_do_not_have_is_refused():
    refusal = r"'videollama3' .* cells of 2x2 patches \(BackboneSpec.cells\), but .* has 4x5 patches"
    with pytest.raises(PluginError, match=refusal):
        planned_scene((4, 5), cell_side=2)


# --- an adapter with two views ------------------------------------------------------------------------------


@dataclass(frozen=True)
class TwoViewConfig:
    """No options."""


class TwoViewPlanner(Planner[TwoViewConfig]):
    def plan(self, mask, geometry):
        """The object's own box, and the whole image squashed to 3x3 patches, which all its regions share."""
        height, width = mask.image_hw
        whole = mask.coverage((0, 0, width, height), (3, 3))
        own = CropView(mask.box_xyxy, (2, 2), np.ones((2, 2), np.float32))
        return RegionPlan(num_tokens=2, views=(own, CropView((0, 0, width, height), (3, 3), whole)))


class TwoViewPool(AdapterModule):
    """One token per view: the weighted sum of its patches."""

    @classmethod
    def build(cls, config, shapes):
        return cls()

    def forward(self, views, counts):
        sums = []
        for view in views:
            rows = view.patch_features() * view.patch_weights[:, None]
            sums.append(rows.new_zeros(len(counts), rows.shape[1]).index_add(0, view.region_of_patch, rows))
        return torch.stack(sums, dim=1).flatten(0, 1)


TWO_VIEWS = AdapterSpec(name="two_views", config=TwoViewConfig, planner=TwoViewPlanner, module=TwoViewPool)
IMAGE_HW = ((60, 90), (70, 40))
TWO_VIEW_REGIONS = [
    (0, box_mask((4, 3, 40, 30), (60, 90))),
    (1, box_mask((1, 2, 15, 50), (70, 40))),
    (0, box_mask((50, 3, 88, 60), (60, 90))),
    (1, box_mask((1, 2, 15, 50), (70, 40))),
]


def test_views_share_the_whole_image_among_its_regions():
    batch = make_batch(TWO_VIEWS, TWO_VIEW_REGIONS, [photo(60, 90), photo(70, 40)])
    own, whole = batch.views
    assert own.crops == slice(0, 3)
    assert own.grid_of_region == (0, 1, 2, 1)
    assert whole.crops == slice(3, 5)
    assert whole.grid_of_region == (0, 1, 0, 1)
    assert batch.crop_grids_hw == ((2, 2),) * 3 + ((3, 3),) * 2
    assert len(batch.crops) == 5


@torch.no_grad()
def test_each_view_reads_the_features_of_its_own_crops():
    backbone, _ = get_backbone("videollama3").tiny(0)
    spec = get_backbone("videollama3")
    parts = {"backbone_spec": spec, "adapter_spec": TWO_VIEWS, "adapter_config": TwoViewConfig()}
    model = RegionModel(backbone, **parts, tokens=TokenIds(placeholder=9))
    batch = make_batch(TWO_VIEWS, TWO_VIEW_REGIONS, [photo(60, 90), photo(70, 40)])
    tokens = model.object_tokens(batch)
    features = [spec.crops.encode(backbone, [crop]).features for crop in batch.normalised_crops(torch.float32)]
    expected = []
    for (image, mask), own in zip(TWO_VIEW_REGIONS, (0, 1, 2, 1), strict=True):
        height, width = IMAGE_HW[image]
        share = torch.from_numpy(mask.coverage((0, 0, width, height), (3, 3))).flatten()
        expected += [features[own].sum(dim=0), share @ features[3 + image]]
    torch.testing.assert_close(tokens, torch.stack(expected), atol=1e-4, rtol=1e-4)
