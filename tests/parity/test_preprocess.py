"""What the preset `official` has the tower encode, against the official code's own results and rules."""

import math

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from parity.conftest import cases
from pixelrefer_plugin import Region, RegionMask, RegionProcessor, get_adapter, get_backbone
from pixelrefer_plugin.authoring import PatchGeometry

SAOT, OCI = get_adapter("saot"), get_adapter("oci")
GEOMETRY = PatchGeometry(patch_size=14)
PREPROCESSED = cases("preprocess/*.npz")


def official(adapter, **options):
    return adapter.make_config({"preset": "official", **options})


def read(path):
    with np.load(path) as arrays:
        return dict(arrays)


def processed(case, adapter):
    """The `RegionBatch` of a case's regions, all asked about in one conversation."""
    backbone, native = get_backbone("videollama3").tiny(0)
    options = {"preset": "official", "num_tokens": int(case["n_tokens_max"])}
    processor = RegionProcessor(native, backbone.config, adapter=adapter, adapter_config=options)
    images = [Image.fromarray(case[f"image_{index}"]) for index in range(case["mask_ids"].max() + 1)]
    parts = [{"type": "image", "image": image} for image in images]
    parts += [{"type": "text", "text": "<region>" * len(case["masks"])}]
    placed = zip(case["masks"], case["mask_ids"], strict=True)
    regions = [Region.from_mask(mask, image_index=int(image)) for mask, image in placed]
    return processor([{"role": "user", "content": parts}], regions)["regions"]


def crops_of(batch, view):
    """The pixels that each region's grid of a view was made from, `(H, W, 3)`."""
    layout = batch.views[view]
    return [batch.crops[layout.crops.start + grid].permute(1, 2, 0).numpy() for grid in layout.grid_of_region]


def mask_grids(batch):
    """The `(h, w)` mask of each region that the layout's pairs stand for."""
    layout = batch.views[0]
    grids = []
    for region, grid in enumerate(layout.grid_of_region):
        patches = layout.patch_ij[layout.region_of_patch == region].long()
        filled = torch.zeros(layout.grids_hw[grid], dtype=torch.bool)
        filled[patches[:, 0], patches[:, 1]] = True
        grids.append(filled.numpy())
    return grids


def assert_pixels(got, expected):
    assert got.shape == expected.shape
    assert np.abs(got.astype(int) - expected.astype(int)).max() <= 1, "beyond what builds of OpenCV differ by"


@pytest.mark.parametrize("path", PREPROCESSED)
def test_saot_prepares_what_the_official_code_does(path):
    case = read(path)
    batch = processed(case, "saot")
    assert batch.counts == tuple(case["full_u8_mask_nums"])
    crops, grids = crops_of(batch, 0), mask_grids(batch)
    for index, (row0, col0, row1, col1) in enumerate(case["full_u8_bbox"]):
        assert batch.views[0].boxes_xyxy[index].tolist() == [col0, row0, col1, row1]
        assert batch.views[0].images_hw[index].tolist() == case["full_u8_raw_hw"][index].tolist()
        assert np.array_equal(grids[index], case[f"full_u8_mask_{index}"] > 0)
        if f"full_crop_{index}" in case:
            assert_pixels(crops[index], case[f"full_crop_{index}"])


@pytest.mark.parametrize("path", PREPROCESSED)
def test_oci_prepares_what_the_official_code_does(path):
    case = read(path)
    batch = processed(case, "oci")
    assert batch.counts == tuple(case["lite_mask_nums"])
    crops, local_crops, global_crops = (crops_of(batch, view) for view in range(3))
    grids = mask_grids(batch)
    for index, (row0, col0, row1, col1) in enumerate(case["lite_bbox"]):
        assert batch.views[0].boxes_xyxy[index].tolist() == [col0, row0, col1 + 1, row1 + 1], "the crop's, not its box"
        assert np.array_equal(grids[index], case[f"lite_mask_{index}"] > 0)
        for name, made in (("crop", crops), ("local224", local_crops)):
            if f"lite_{name}_{index}" in case:
                assert_pixels(made[index], case[f"lite_{name}_{index}"])
        if f"lite_raw336_{case['mask_ids'][index]}" in case:
            assert_pixels(global_crops[index], case[f"lite_raw336_{case['mask_ids'][index]}"])


# --- masks of our own, against the rules written out on whole frames ---------------------------------------


def ellipse(image_hw, centre_xy, size_wh):
    y, x = np.mgrid[: image_hw[0], : image_hw[1]] + 0.5
    return ((x - centre_xy[0]) / size_wh[0]) ** 2 + ((y - centre_xy[1]) / size_wh[1]) ** 2 <= 0.25


def boxes(image_hw, *boxes_xyxy):
    mask = np.zeros(image_hw, bool)
    for x0, y0, x1, y1 in boxes_xyxy:
        mask[y0:y1, x0:x1] = True
    return mask


def holes(image_hw):
    mask = boxes(image_hw, (20, 30, 200, 150))
    mask[40:140:7, 30:190:5] = False
    return mask


MASKS = {
    "top left corner": boxes((240, 320), (0, 0, 30, 20)),
    "bottom right corner": boxes((240, 320), (290, 215, 320, 240)),
    "a corner's last pixel and more": boxes((240, 320), (316, 237, 320, 240)),
    "speckles": np.random.default_rng(0).random((240, 320)) < 0.004,
    "dust": np.random.default_rng(1).random((240, 320)) < 0.3,
    "holes": holes((240, 320)),
    "a row": boxes((240, 320), (10, 100, 300, 101)),
    "a column": boxes((240, 320), (100, 10, 101, 230)),
    "a diagonal": np.eye(150, 200, dtype=bool),
    "one pixel": boxes((240, 320), (160, 120, 161, 121)),
    "two pixels apart": boxes((240, 320), (100, 100, 101, 101), (104, 102, 105, 103)),
    "an ellipse that grows": ellipse((240, 320), (100, 90), (41, 37)),
    "an ellipse that stays": ellipse((240, 320), (160, 120), (110, 100)),
    "an ellipse that shrinks": ellipse((480, 640), (300, 250), (420, 310)),
    "at the right border": ellipse((240, 320), (310, 90), (80, 90)),
    "at the bottom border": ellipse((240, 320), (100, 235), (90, 60)),
    "a square whose scale has a long fraction": boxes((500, 600), (100, 3, 400, 303)),
    "the whole image": np.ones((480, 640), bool),
    "a small image": np.ones((30, 40), bool),
    "an odd size": ellipse((241, 317), (150, 100), (133, 71)),
}


def padded_to_patches(side_px, scale):
    return math.ceil(side_px * scale / 14)


def rules_of_the_full_model(mask, n):
    """Departures 1 to 7 and 9, on the whole frame: box, grid, mask grid and count."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = max(0, rows[0] - 28), max(0, columns[0] - 28)
    bottom, right = min(mask.shape[0] - 1, rows[-1] + 28), min(mask.shape[1] - 1, columns[-1] + 28)
    area = torch.tensor(int(mask.sum()))
    scale = math.ceil(math.sqrt(196 * n / area))
    if scale == 1 and area / 196 > 100:
        scale = 1 / math.sqrt(area / 196 / 100)
    grid_hw = padded_to_patches(bottom - top, scale), padded_to_patches(right - left, scale)
    part = torch.from_numpy(mask.astype(np.uint8))[top:bottom, left:right]
    grid = interpolate(part[None, None], size=grid_hw, mode="bilinear", align_corners=False)[0, 0].numpy()
    return (left, top, right, bottom), grid, min(n, int(grid.sum()))


def rules_of_lite(mask, n):
    """Departures 1 to 6, 8 and 9, likewise."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = max(0, rows[0] - 28), max(0, columns[0] - 28)
    bottom, right = min(mask.shape[0], rows[-1] + 29), min(mask.shape[1], columns[-1] + 29)
    area = int(mask.sum())
    scale = math.ceil(math.sqrt(196 * n / area))
    if scale == 1 and area / 196 > 50:
        scale = 1 / math.sqrt(area / 196 / 50)
    grid_hw = padded_to_patches(bottom - top, scale), padded_to_patches(right - left, scale)
    part = mask.astype(np.float32)[top:bottom, left:right]
    return (left, top, right, bottom), cv2.resize(part, grid_hw[::-1], interpolation=cv2.INTER_LINEAR) > 0, n


@pytest.mark.parametrize("num_tokens", [16, 32])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize(("adapter", "rules"), [(SAOT, rules_of_the_full_model), (OCI, rules_of_lite)])
def test_the_plan_follows_the_official_rules(adapter, rules, mask, num_tokens):
    box_xyxy, grid, count = rules(mask, num_tokens)
    plan = adapter.planner(official(adapter, num_tokens=num_tokens)).plan(RegionMask.from_dense(mask), GEOMETRY)
    crop = plan.views[0]
    assert crop.box_xyxy == box_xyxy
    assert crop.grid_hw == grid.shape
    if count:
        assert np.array_equal(crop.mask, (grid > 0).astype(np.float32))
        assert plan.num_tokens == count
    else:  # the official code leaves such an object without a token
        assert plan.num_tokens == min(num_tokens, crop.mask.sum()) >= 1


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_lite_resizes_by_area_where_both_sides_shrink(mask):
    crop = OCI.planner(official(OCI)).plan(RegionMask.from_dense(mask), GEOMETRY).views[0]
    left, top, right, bottom = crop.box_xyxy
    shrinks = 14 * crop.grid_hw[0] < bottom - top and 14 * crop.grid_hw[1] < right - left
    assert crop.resample == ("opencv_area" if shrinks else "opencv_linear")


def test_both_ways_of_resizing_are_among_the_masks():
    config = official(OCI)
    plans = [OCI.planner(config).plan(RegionMask.from_dense(mask), GEOMETRY) for mask in MASKS.values()]
    assert {plan.views[0].resample for plan in plans} == {"opencv_area", "opencv_linear"}


@pytest.mark.parametrize("area_px", [19_601, 90_000, 122_500, 400_000, 2_000_003])
def test_single_precision_is_what_torch_computes(area_px):
    from pixelrefer_saot.plan import object_scale

    in_torch = 1 / math.sqrt(torch.tensor(area_px) / 196 / 100)
    assert object_scale(area_px, official(SAOT), GEOMETRY) == in_torch
    in_double = 1 / math.sqrt(area_px / 196 / 50)
    assert object_scale(area_px, official(OCI), GEOMETRY) == in_double


# --- what the official code leaves open or breaks on -------------------------------------------------------


def smart_resize(grid_hw, budget):
    """The official image processor's rule for a crop of whole patches, in patches."""
    height, width = (14 * side for side in grid_hw)
    most_px, fewest_px = 196 * budget, 56 * 56
    if height * width > most_px:
        shrink = math.sqrt(height * width / most_px)
        return math.floor(height / shrink / 14), math.floor(width / shrink / 14)
    if height * width < fewest_px:
        grow = math.sqrt(fewest_px / (height * width))
        return math.ceil(height * grow / 14), math.ceil(width * grow / 14)
    return grid_hw


@pytest.mark.parametrize("budget", [500, 8192, 9477])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("adapter", [SAOT, OCI])
def test_the_tower_is_given_what_the_official_image_processor_would(adapter, mask, budget):
    config = official(adapter, max_patches=budget)
    crop = adapter.planner(config).plan(RegionMask.from_dense(mask), GEOMETRY).views[0]
    assert (crop.encoded_hw or crop.grid_hw) == smart_resize(crop.grid_hw, budget)
    assert crop.encoded_hw != crop.grid_hw


def test_the_smallest_crops_are_enlarged_as_there():
    mask = boxes((2, 2), (0, 0, 2, 2))
    crop = SAOT.planner(official(SAOT, num_tokens=16)).plan(RegionMask.from_dense(mask), GEOMETRY).views[0]
    assert (crop.grid_hw, crop.encoded_hw) == ((2, 2), (4, 4))


DROPPED = {
    "a pixel in the last row": boxes((100, 120), (40, 99, 41, 100)),
    "a pixel in the last column": boxes((100, 120), (119, 40, 120, 41)),
    "the last row": boxes((100, 120), (0, 99, 120, 100)),
    "the last row and column": boxes((100, 120), (0, 99, 120, 100), (119, 0, 120, 100)),
    "an image of one row": boxes((1, 120), (30, 0, 50, 1)),
    "an image of one column": boxes((120, 1), (0, 30, 1, 50)),
    "an image of one pixel": boxes((1, 1), (0, 0, 1, 1)),
}


@pytest.mark.parametrize("mask", DROPPED.values(), ids=DROPPED)
def test_an_object_that_is_cut_away_has_the_patches_next_to_it(mask):
    plan = SAOT.planner(official(SAOT)).plan(RegionMask.from_dense(mask), GEOMETRY)
    (crop,) = plan.views
    assert plan.num_tokens == min(32, crop.mask.sum()) >= 1
    if min(mask.shape) == 1:
        left, top, right, bottom = crop.box_xyxy
        assert min(right - left, bottom - top) == 1, "the official code fails here"
        return
    box, grid, count = rules_of_the_full_model(mask, 32)
    assert (crop.box_xyxy, crop.grid_hw, count) == (box, grid.shape, 0)
    assert crop.mask[-1].any() == mask[-1].any()
    assert crop.mask[:, -1].any() == mask[:, -1].any()
    assert crop.mask[:-30, :-30].any() == 0, "only what is next to the border"


LINE = MASKS["a row"]


def test_a_line_that_the_official_resize_misses_is_where_it_is_covered():
    _, grid, count = rules_of_the_full_model(LINE, 16)
    assert (grid.any(), count) == (False, 0), "or the case shows nothing"
    plan = SAOT.planner(official(SAOT, num_tokens=16)).plan(RegionMask.from_dense(LINE), GEOMETRY)
    (crop,) = plan.views
    assert plan.num_tokens == 16
    assert crop.mask.any(axis=1).sum() == 1, "a line lies in one row of patches"
    assert crop.mask.sum() > 0.7 * crop.grid_hw[1]


def test_lite_pads_the_tokens_of_an_object_without_a_patch():
    mask = boxes((700, 700), (0, 3, 700, 4))
    _, grid, _ = rules_of_lite(mask, 1)
    assert not grid.any(), "or the case shows nothing"
    plan = OCI.planner(official(OCI, num_tokens=1, large_patches=2)).plan(RegionMask.from_dense(mask), GEOMETRY)
    assert (plan.num_tokens, plan.views[0].mask.any()) == (1, False)
    unpadded = official(OCI, num_tokens=1, large_patches=2, pad_to_num_tokens=False)
    assert OCI.planner(unpadded).plan(RegionMask.from_dense(mask), GEOMETRY).views[0].mask.any()


@pytest.mark.parametrize("multiple", [1, 2])
@pytest.mark.parametrize("adapter", [SAOT, OCI])
def test_two_pixels_on_a_large_frame_cost_no_gigabytes(adapter, multiple):
    mask = boxes((2160, 3840), (5, 5, 6, 6), (3800, 2100, 3801, 2101))
    crop = adapter.planner(official(adapter)).plan(RegionMask.from_dense(mask), PatchGeometry(14, multiple)).views[0]
    assert 2**16 < math.prod(crop.grid_hw) <= 2**17
    assert 0.9 * 8192 < math.prod(crop.encoded_hw) <= 8192


@pytest.mark.parametrize("image_hw", [(1, 9000), (9000, 1), (1, 20_000)])
@pytest.mark.parametrize("multiple", [1, 2, 4])
def test_the_budget_holds_for_the_thinnest_images(image_hw, multiple):
    region = RegionMask(np.ones(image_hw, bool), (0, 0, *image_hw[::-1]), image_hw)
    config = official(SAOT, max_patches=256)
    crop = SAOT.planner(config).plan(region, PatchGeometry(14, multiple)).views[0]
    encoded = crop.encoded_hw or crop.grid_hw
    assert all(side >= multiple and side % multiple == 0 for side in encoded)
    assert math.prod(encoded) <= 256


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("adapter", [SAOT, OCI])
def test_towers_that_merge_patches_get_whole_merges(adapter, mask):
    plan = adapter.planner(official(adapter)).plan(RegionMask.from_dense(mask), PatchGeometry(14, 2))
    for view in plan.views:
        assert all(side % 2 == 0 for side in (*view.grid_hw, *(view.encoded_hw or ())))
    assert plan.views[0].mask.shape == plan.views[0].grid_hw
