"""`RegionBatch`: promised = delivered for whatever regions come, shared crops, views, pixels."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import scene_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from pixelrefer_plugin import (
    AdapterSpec,
    CropView,
    FeatureGrids,
    PatchGeometry,
    RegionMask,
    RegionModel,
    RegionPlan,
    get_adapter,
    get_backbone,
)
from pixelrefer_plugin.region_batch import PlannedRegion, make_region_batch

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
    planned = [[PlannedRegion(mask, adapter.plan(config, mask, geometry), image)] for image, mask in regions]
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


def deliver(module, batch, generator):
    """What the module makes of random features on the right grids."""
    views = []
    for layout in batch.views:
        patches = sum(h * w for h, w in layout.grids_hw)
        views.append(layout.encoded(FeatureGrids(torch.randn(patches, WIDTH, generator=generator), layout.grids_hw)))
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
    module = adapter.build(config, vision_width=WIDTH, decoder_width=3).eval()
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
        plan = adapter.plan(config, mask, geometry)
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


def test_a_crop_is_the_box_resized_by_pillow():
    image = photo(200, 300)
    batch = make_batch(get_adapter("saot"), [(0, box_mask((40, 30, 140, 110), (200, 300)))], [image])
    (box,), (grid,) = batch.views[0].boxes_xyxy.int().tolist(), batch.crop_grids_hw
    expected = image.resize((grid[1] * 14, grid[0] * 14), Image.Resampling.BICUBIC, box=tuple(box))
    (crop,) = batch.crops
    assert crop.dtype == torch.uint8
    assert np.array_equal(crop.permute(1, 2, 0), np.asarray(expected))


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
    inside = batch.views[0].patch_rows.split(batch.views[0].patches_per_region)
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


# --- layout -------------------------------------------------------------------------------------------------


def test_the_layout_is_the_masks_as_coordinates():
    regions = [(0, box_mask((40, 30, 140, 110), (200, 300))), (1, box_mask((3, 4, 9, 60), (120, 90)))]
    adapter = get_adapter("saot")
    batch = make_batch(adapter, regions, [photo(200, 300), photo(120, 90)], samples=[1, 0, 1])
    (layout,) = batch.views
    for index, (_, mask) in enumerate(regions):
        plan = adapter.plan(adapter.make_config(), mask, GEOMETRY)
        (view,) = plan.views
        own = layout.region_of_patch == index
        i, j = np.nonzero(view.mask)
        first = math.prod(batch.crop_grids_hw[0]) * index
        assert layout.patch_ij[own].tolist() == np.stack([i, j], axis=1).tolist()
        assert layout.patch_rows[own].tolist() == (first + i * view.grid_hw[1] + j).tolist()
        assert layout.patch_weights[own].tolist() == view.mask[i, j].tolist()
        assert layout.patches_per_region[index] == len(i)
        assert layout.boxes_xyxy[index].tolist() == list(view.box_xyxy)
        assert layout.images_hw[index].tolist() == list(mask.image_hw)
    assert batch.regions_per_sample == (1, 0, 1)
    assert batch.tokens_per_sample() == [batch.counts[0], 0, batch.counts[1]]


def tensors_of(batch):
    layout = batch.views[0]
    names = ("patch_rows", "patch_weights", "patch_ij", "region_of_patch", "boxes_xyxy", "images_hw")
    return [*batch.crops, batch.pixel_mean, batch.pixel_std, *(getattr(layout, name) for name in names)]


def test_to_moves_every_tensor_and_nothing_else():
    batch = make_batch(get_adapter("saot"), [(0, box_mask((4, 3, 40, 30), (60, 90)))], [photo(60, 90)])
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


# --- an adapter with two views ------------------------------------------------------------------------------


@dataclass(frozen=True)
class TwoViewConfig:
    """No options."""


def two_view_plan(config, mask, geometry):
    """The object's own box, and the whole image squashed to 3x3 patches, which all its regions share."""
    height, width = mask.image_hw
    whole = mask.coverage((0, 0, width, height), (3, 3))
    own = CropView(mask.box_xyxy, (2, 2), np.ones((2, 2), np.float32))
    return RegionPlan(num_tokens=2, views=(own, CropView((0, 0, width, height), (3, 3), whole)))


class TwoViewPool(nn.Module):
    """One token per view: the weighted sum of its patches."""

    def forward(self, views, counts):
        sums = []
        for view in views:
            rows = view.grids.features[view.patch_rows] * view.patch_weights[:, None]
            sums.append(rows.new_zeros(len(counts), rows.shape[1]).index_add(0, view.region_of_patch, rows))
        return torch.stack(sums, dim=1).flatten(0, 1)


TWO_VIEWS = AdapterSpec(
    name="two_views",
    config=TwoViewConfig,
    plan=two_view_plan,
    build=lambda config, *, vision_width, decoder_width: TwoViewPool(),
)
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
    model = RegionModel(backbone, backbone_spec=spec, adapter_spec=TWO_VIEWS, adapter_config=TwoViewConfig())
    batch = make_batch(TWO_VIEWS, TWO_VIEW_REGIONS, [photo(60, 90), photo(70, 40)])
    tokens = model.object_tokens(batch)
    features = [spec.encode_crops(backbone, [crop]).features for crop in batch.normalised_crops(torch.float32)]
    expected = []
    for (image, mask), own in zip(TWO_VIEW_REGIONS, (0, 1, 2, 1), strict=True):
        height, width = IMAGE_HW[image]
        share = torch.from_numpy(mask.coverage((0, 0, width, height), (3, 3))).flatten()
        expected += [features[own].sum(dim=0), share @ features[3 + image]]
    torch.testing.assert_close(tokens, torch.stack(expected), atol=1e-4, rtol=1e-4)
