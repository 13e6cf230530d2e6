"""Mask pooling against the coverage-weighted mean written out in loops."""

import numpy as np
import pytest
import torch
from conftest import scene_of
from PIL import Image

from pixelrefer_plugin import RegionMask, get_adapter
from pixelrefer_plugin.authoring import FeatureGrids, PatchGeometry, Shapes
from pixelrefer_plugin.tokens.layouts import Features, PlannedRegion
from pixelrefer_plugin.tokens.region_batch import make_region_batch

MASKPOOL = get_adapter("maskpool")
GEOMETRY = PatchGeometry(patch_size=14)

# Two images of 60x90 and 40x40 pixels, seen as 4x6 and 2x3 patches.
IMAGES_HW = ((60, 90), (40, 40))
GRIDS_HW = ((4, 6), (2, 3))


def mask_of(image, seed):
    """Scattered pixels in a random window of one of the images."""
    rng = np.random.default_rng(seed)
    dense = np.zeros(IMAGES_HW[image], bool)
    top, left = rng.integers(0, 20, 2)
    dense[top : top + rng.integers(1, 20), left : left + rng.integers(1, 20)] = True
    return RegionMask.from_dense(dense & (rng.random(dense.shape) < 0.8))


REGIONS = [(0, mask_of(0, 1)), (0, mask_of(0, 2)), (1, mask_of(1, 3))]
PIXEL = (0, RegionMask(np.ones((1, 1), bool), (89, 59, 90, 60), (60, 90)))
WHOLE = (1, RegionMask(np.ones((40, 40), bool), (0, 0, 40, 40), (40, 40)))


def encode(regions, features):
    images = [Image.new("RGB", (width, height)) for height, width in IMAGES_HW]
    planner = MASKPOOL.planner(MASKPOOL.make_config())
    batch = make_region_batch(
        [[[PlannedRegion(mask, mask.box_xyxy, planner.plan(mask, GEOMETRY), image)] for image, mask in regions]],
        adapter="maskpool",
        placeholder_id=9,
        pictures=images,
        scene=scene_of(images, GRIDS_HW),
        geometry=GEOMETRY,
        pixel_mean=[0.5] * 3,
        pixel_std=[0.5] * 3,
    )
    assert batch.crops == ()
    (layout,) = batch.views
    return (layout.encoded(Features(None, {False: FeatureGrids(features, layout.grids_hw)})),), batch.counts


def scene_features(dtype=torch.float32):
    return torch.randn(4 * 6 + 2 * 3, 5, generator=torch.Generator().manual_seed(0), dtype=dtype)


def build():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MASKPOOL.module.build(MASKPOOL.make_config(), Shapes(crop=4, scene=5, decoder=7)).eval()


def pooled_pixel_by_pixel(image, mask, features):
    """The mean feature of the mask's pixels, each a mix of the patches it lies on."""
    (height, width), (rows, columns) = IMAGES_HW[image], GRIDS_HW[image]
    first = 0 if image == 0 else 4 * 6
    total, area = torch.zeros(features.shape[1], dtype=torch.float64), 0
    for y, x in zip(*np.nonzero(mask.dense()), strict=True):
        for i in range(rows):
            for j in range(columns):
                down = min((i + 1) * height / rows, y + 1) - max(i * height / rows, y)
                across = min((j + 1) * width / columns, x + 1) - max(j * width / columns, x)
                if down > 0 and across > 0:
                    total += down * across * features[first + i * columns + j].double()
        area += 1
    return total / area


@pytest.mark.parametrize(
    "regions",
    [REGIONS, [PIXEL], [WHOLE], [WHOLE, PIXEL, *REGIONS]],
    ids=["several", "one pixel", "whole image", "all"],
)
def test_a_token_is_the_mean_of_the_regions_pixels(regions):
    module, features = build(), scene_features()
    views, counts = encode(regions, features)
    assert counts == (1,) * len(regions)
    pooled = torch.stack([pooled_pixel_by_pixel(image, mask, features) for image, mask in regions]).float()
    torch.testing.assert_close(module(views, counts), module.mlp(pooled), atol=1e-5, rtol=0)


def test_a_regions_token_does_not_change_when_another_joins():
    module, features = build(), scene_features()
    together = module(*encode(REGIONS, features))
    for index, region in enumerate(REGIONS):
        torch.testing.assert_close(module(*encode([region], features))[0], together[index])


def test_a_patch_that_no_region_reads_may_hold_anything():
    features = scene_features()
    expected = build()(*encode(REGIONS[:2], features))
    features[4 * 6 :] = float("nan")
    assert torch.equal(build()(*encode(REGIONS[:2], features)), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_taken(dtype):
    features = scene_features(dtype)
    exact = build()(*encode(REGIONS, features.float()))
    assert torch.equal(build()(*encode(REGIONS, features)), exact)
    lowered = build().to(dtype)(*encode(REGIONS, features))
    assert lowered.dtype == dtype
    torch.testing.assert_close(lowered.float(), exact, atol=0.03, rtol=0.03)


def test_gradients_equal_finite_differences():
    module, features = build().double(), scene_features(torch.float64).requires_grad_()
    names, parameters = zip(*module.named_parameters(), strict=True)

    def run(features, *values):
        return torch.func.functional_call(module, dict(zip(names, values, strict=True)), encode(REGIONS, features))

    assert torch.autograd.gradcheck(run, (features, *parameters))
