"""`Region` and `RegionMask`: what they accept, what they refuse and how, and that pixels are exact."""

import copy
import dataclasses
import pickle
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pycocotools import mask as coco

from pixelrefer_plugin import ImageError, Region, RegionError, VideoRegion
from pixelrefer_plugin.authoring import RegionMask

IMAGE_HW = (24, 32)
SIDES = st.integers(1, 20)


@st.composite
def masks(draw):
    """A mask of a small image with at least one pixel."""
    mask = draw(hnp.arrays(bool, draw(st.tuples(SIDES, SIDES)), fill=st.booleans()))
    if not mask.any():
        mask[draw(st.integers(0, mask.shape[0] - 1)), draw(st.integers(0, mask.shape[1] - 1))] = True
    return mask


def disk(image_hw, x, y, radius):
    """The pixels whose centre is within `radius` of (x, y), by brute force."""
    rows, columns = np.indices(image_hw) + 0.5
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


A_MASK = disk(IMAGE_HW, 12, 9, 6)
A_RLE = {"size": [3, 4], "counts": [4, 2, 6]}
EVERY_KIND = {
    "mask": Region.from_mask(A_MASK),
    "box": Region.from_box((2, 3, 10, 12)),
    "polygon": Region.from_polygon([2, 2, 20, 2, 11, 18]),
    "points": Region.from_points([(5, 5), (20, 12)], radius_px=3),
    "rle": Region.from_rle({"size": list(IMAGE_HW), "counts": [100, 50, 24 * 32 - 150]}),
    "scribble": Region.from_scribble([(2, 2), (20, 12), (28, 3)], width_px=4),
}


# -- the value ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("region", EVERY_KIND.values(), ids=EVERY_KIND)
class TestEveryKind:
    def test_is_a_hashable_value(self, region):
        twin = copy.deepcopy(region)
        assert twin == region
        assert hash(twin) == hash(region)
        assert {region, twin} == {region}
        assert region != region.on_image(1)

    def test_survives_pickling(self, region):
        thawed = pickle.loads(pickle.dumps(region))
        assert thawed == region
        assert thawed.to_mask(IMAGE_HW) == region.to_mask(IMAGE_HW)

    def test_is_frozen(self, region):
        with pytest.raises(dataclasses.FrozenInstanceError):
            region.kind = "box"

    def test_becomes_a_mask_of_its_image(self, region):
        mask = region.to_mask(IMAGE_HW)
        assert mask.image_hw == IMAGE_HW
        assert mask.dense().shape == IMAGE_HW
        assert mask.area == mask.dense().sum() > 0

    def test_moves_to_another_image(self, region):
        moved = region.on_image(2)
        assert (moved.image_index, region.image_index) == (2, 0)
        assert moved.to_mask(IMAGE_HW) == region.to_mask(IMAGE_HW)


def test_kinds_are_checked():
    with pytest.raises(RegionError, match=r"one of mask, box, polygon, points, rle, scribble, got 'circle'"):
        Region("circle", (1, 2))


@pytest.mark.parametrize("index", [-1, 1.0, "0", None])
def test_image_index_is_checked(index):
    with pytest.raises(RegionError, match="image_index must be an integer >= 0"):
        Region.from_box((0, 0, 1, 1), image_index=index)


def test_image_index_may_be_a_numpy_integer():
    assert Region.from_box((0, 0, 1, 1), image_index=np.int64(2)) == Region.from_box((0, 0, 1, 1), image_index=2)


# -- RegionMask --------------------------------------------------------------------------------------------


@given(masks())
def test_mask_roundtrip_is_exact_and_tight(mask):
    compact = RegionMask.from_dense(mask)
    assert np.array_equal(compact.dense(), mask)
    assert compact.area == mask.sum()
    x0, y0, x1, y1 = compact.box_xyxy
    assert compact.window.shape == (y1 - y0, x1 - x0)
    for border in (compact.window[0], compact.window[-1], compact.window[:, 0], compact.window[:, -1]):
        assert border.any()
    assert RegionMask.from_dense(compact.dense()) == compact


@settings(deadline=None)
@given(masks(), st.data())
def test_coverage_is_the_exact_share_of_each_cell(mask, data):
    height, width = mask.shape
    x0, y0 = data.draw(st.integers(-3, width - 1)), data.draw(st.integers(-3, height - 1))
    x1, y1 = data.draw(st.integers(x0 + 1, width + 3)), data.draw(st.integers(y0 + 1, height + 3))
    rows, columns = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 7))
    # Brute force on a raster so fine that cells and pixels both consist of whole points.
    framed = np.pad(mask, 3)[y0 + 3 : y1 + 3, x0 + 3 : x1 + 3]
    fine = framed.repeat(rows, axis=0).repeat(columns, axis=1)
    expected = fine.reshape(rows, y1 - y0, columns, x1 - x0).mean(axis=(1, 3))
    got = RegionMask.from_dense(mask).coverage((x0, y0, x1, y1), (rows, columns))
    assert got.shape == (rows, columns)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert np.array_equal(got == 0, expected == 0)  # a cell beside the mask has exactly none of it


def share_of_pixels(start, stop, cells, pixels):
    """`(cells, pixels)`: how much of each pixel each cell has, over the cell's size, plainly."""
    edges = np.linspace(start, stop, cells + 1)
    shares = np.zeros((cells, pixels))
    for cell, (first, last) in enumerate(pairwise(edges)):
        for pixel in range(pixels):
            shares[cell, pixel] = max(0.0, min(last, pixel + 1) - max(first, pixel)) / (last - first)
    return shares


@pytest.mark.parametrize(
    ("box", "grid_hw"),
    [
        ((0, 0, 250, 300), (20, 25)),
        ((0, 0, 250, 300), (1, 1)),
        ((-30, 20, 271, 280), (17, 13)),
        ((10.3, 20.9, 55.1, 77.7), (6, 5)),
        ((100, 100, 110, 110), (30, 40)),
        ((-60, -60, 0, 300), (4, 4)),
        ((0, 0, 250, 300), (299, 249)),
    ],
    ids=["whole cells", "one cell", "beyond the image", "part", "finer than pixels", "beside", "as fine as pixels"],
)
@pytest.mark.parametrize("density", [0.001, 0.5, 0.999])
def test_coverage_of_large_masks(box, grid_hw, density):
    dense = np.random.default_rng(0).random((300, 250)) < density
    x0, y0, x1, y1 = box
    expected = share_of_pixels(y0, y1, grid_hw[0], 300) @ dense @ share_of_pixels(x0, x1, grid_hw[1], 250).T
    got = RegionMask.from_dense(dense).coverage(box, grid_hw)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert got.max() <= 1
    assert np.array_equal(got == 0, expected == 0)


def test_coverage_of_a_box_between_pixels():
    mask = RegionMask.from_dense(np.ones((2, 2), dtype=bool))
    np.testing.assert_allclose(mask.coverage((0.5, 0.0, 2.5, 2.0), (1, 2)), [[1.0, 0.5]])


def test_mask_keeps_no_view_of_the_frame():
    frame = np.zeros((8, 8), dtype=bool)
    frame[2:4, 2:4] = True
    compact = RegionMask.from_dense(frame)
    frame[:] = False
    assert compact.area == compact.window.sum() == 4
    full = np.ones((3, 3), dtype=bool)
    whole = RegionMask.from_dense(full)
    full[:] = False
    assert whole.area == whole.window.sum() == 9


def test_a_mask_that_fills_its_box_keeps_no_pixels():
    box = (3, 5, 3700, 2100)
    filled, drawn = np.zeros((2160, 3840), dtype=bool), Region.from_box(box).to_mask((2160, 3840))
    filled[5:2100, 3:3700] = True
    assert RegionMask.from_dense(filled) == drawn == RegionMask(None, box, (2160, 3840))
    assert len(pickle.dumps(drawn)) < 1000
    assert (drawn.area, drawn.window.all(), drawn.window.shape) == (2095 * 3697, True, (2095, 3697))
    np.testing.assert_allclose(drawn.coverage((0, 0, 3840, 2160), (1, 1)), [[2095 * 3697 / (2160 * 3840)]], rtol=1e-6)
    assert np.array_equal(drawn.coverage((2, 4, 6, 8), (4, 4)), np.pad(np.ones((3, 3)), ((1, 0), (1, 0))))


def test_a_window_is_of_the_size_of_its_box():
    with pytest.raises(RegionError, match=r"window must be of its box \(0, 0, 2, 3\), \(h, w\), got shape \(2, 3\)"):
        RegionMask(np.ones((2, 3), dtype=bool), (0, 0, 2, 3), (4, 4))


@pytest.mark.parametrize("again", [lambda mask: mask, copy.deepcopy, lambda mask: pickle.loads(pickle.dumps(mask))])
def test_mask_is_read_only_however_copied(again):
    mask = again(RegionMask.from_dense(A_MASK))
    with pytest.raises(ValueError, match="read-only"):
        mask.window[0, 0] = True
    with pytest.raises(dataclasses.FrozenInstanceError):
        mask.image_hw = (1, 1)


def test_masks_differ_by_place_image_and_pixels():
    one = RegionMask(np.ones((1, 1), dtype=bool), (0, 0, 1, 1), (4, 4))
    assert one == RegionMask(np.ones((1, 1), dtype=bool), (0, 0, 1, 1), (4, 4))
    assert one != RegionMask(np.ones((1, 1), dtype=bool), (1, 0, 2, 1), (4, 4))
    assert one != RegionMask(np.ones((1, 1), dtype=bool), (0, 0, 1, 1), (4, 5))
    assert one != "mask"


def test_small_masks_of_a_4k_frame_stay_compact():
    frame = np.zeros((2160, 3840), dtype=bool)
    tracemalloc.start()
    try:
        kept = []
        for index in range(100):
            y, x = divmod(index * 7, 1800)
            frame[y : y + 20, x : x + 20] = True
            kept.append(Region.from_mask(frame))
            frame[y : y + 20, x : x + 20] = False
        assert tracemalloc.get_traced_memory()[0] < 2e5  # bytes, for 40 kB of pixels
    finally:
        tracemalloc.stop()
    assert len(kept) == 100


FRAME_HW = (1080, 1920)
FRAME_BYTES = 1080 * 1920
NOISE = np.random.default_rng(0).random(FRAME_HW) < 0.5
ELLIPSE = ((np.indices(FRAME_HW) - [[[500]], [[900]]]) ** 2 / [[[160_000]], [[640_000]]]).sum(axis=0) < 1
ELLIPSE_RLE = coco.encode(np.asfortranarray(ELLIPSE.astype(np.uint8)))
# How many dense masks of a byte a pixel it takes to make one compact: one; where it is drawn column by column, the
# same by rows as well; and the bits.
LARGE = {
    "mask": (lambda: Region.from_mask(NOISE), 0.5),
    "uint8 mask": (lambda: Region.from_mask(NOISE.view(np.uint8)), 1.5),
    "box": (lambda: Region.from_box((0, 0, 1920, 1080)), 0.01),
    "polygon": (lambda: Region.from_polygon([0, 0, 1920, 0, 0, 1080]), 2.25),
    "points": (lambda: Region.from_points([(100, 100), (300, 200)]), 0.2),
    "scribble": (lambda: Region.from_scribble([(0, 0), (1900, 1000)], width_px=30), 1.5),
    "rle": (lambda: Region.from_rle(ELLIPSE_RLE), 2.25),
}


@pytest.mark.parametrize(("make", "most_frames"), LARGE.values(), ids=LARGE)
def test_masks_of_whole_frames_take_a_bit_for_each_pixel(make, most_frames):
    make().to_mask(FRAME_HW)  # imports
    tracemalloc.start()
    try:
        kept = [make().to_mask(FRAME_HW) for _ in range(4)]
        now, peak = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        kept[0].coverage((0, 0, 1920, 1080), (40, 70))
        of_coverage = tracemalloc.get_traced_memory()[1] - now
    finally:
        tracemalloc.stop()
    assert now < len(kept) * (FRAME_BYTES / 8 + 2000)
    assert peak < now + most_frames * FRAME_BYTES
    assert of_coverage < 2 * FRAME_BYTES


# -- masks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mask",
    [
        A_MASK,
        A_MASK.astype(np.uint8) * 255,
        A_MASK.astype(np.int64),
        A_MASK.astype(np.float32),
        A_MASK.tolist(),
    ],
)
def test_mask_of_any_number_type(mask):
    assert np.array_equal(Region.from_mask(mask).to_mask(IMAGE_HW).dense(), A_MASK)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((4, 4), dtype=bool), "region is empty: no pixel of its 4x4 mask is set"),
        (np.zeros((0, 4), dtype=bool), r"must be a \(H, W\) array .* got bool \(0, 4\)"),
        (np.ones((4, 4, 3), dtype=bool), r"must be a \(H, W\) array .* got bool \(4, 4, 3\)"),
        (np.ones(4, dtype=bool), r"got bool \(4,\)"),
        (np.array([["a"]]), r"must be a \(H, W\) array"),
        (None, r"must be a \(H, W\) array"),
        ([[1, 0], [1]], r"must be a \(H, W\) array"),
        (np.full((4, 4), np.nan), "must hold 0 and 1 only"),
        (np.full((4, 4), 0.3), r"threshold probabilities \(mask > 0.5\)"),
        (np.full((4, 4), -3.0), r"or logits \(mask > 0\)"),
    ],
    ids=["empty", "no rows", "colour", "flat", "text", "none", "ragged", "nan", "probabilities", "logits"],
)
def test_mask_refused(mask, message):
    with pytest.raises(RegionError, match=message):
        Region.from_mask(mask)


def test_mask_of_another_size():
    with pytest.raises(
        RegionError, match="mask is of width 32 and height 24 but its image is of width 24 and height 32"
    ):
        Region.from_mask(A_MASK).to_mask((32, 24))


# -- boxes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "pixels"),
    [
        ((2, 3, 10, 12), (2, 3, 10, 12)),
        ((2.4, 3.6, 9.1, 11.2), (2, 3, 10, 12)),
        ((0, 0, 32, 24), (0, 0, 32, 24)),
        ((-1, -0.5, 33, 25), (0, 0, 32, 24)),
        ((5, 5, 6, 6), (5, 5, 6, 6)),
        ((5.2, 5.2, 5.3, 5.3), (5, 5, 6, 6)),
        ((31.9999, 23.9999, 32, 24), (31, 23, 32, 24)),
        ((2.0001, 3, 9.9999, 12), (2, 3, 10, 12)),
        ((1.9999, 3, 10.0001, 12), (2, 3, 10, 12)),
        (np.array([2, 3, 10, 12], dtype=np.float32), (2, 3, 10, 12)),
    ],
    ids=[
        "whole",
        "touched",
        "image",
        "rounded out",
        "pixel",
        "sliver",
        "corner",
        "noise in",
        "noise out",
        "array",
    ],
)
def test_box_is_every_pixel_it_touches(box, pixels):
    mask = Region.from_box(box).to_mask(IMAGE_HW)
    assert mask.box_xyxy == pixels
    assert mask.window.all()


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((10, 3, 2, 12), r"x1 < x2 and y1 < y2, got .* inverted, or x,y,width,height\?"),
        ((2, 12, 10, 3), "is it inverted"),
        ((2, 3, 2, 12), "must have an area"),
        ((2, 3, 10, 3), "must have an area"),
        ((2, 3, 10, float("nan")), "must be finite numbers x1,y1,x2,y2"),
        ((2, 3, float("inf"), 12), "must be finite"),
        ((2, 3, 10), "four numbers x1,y1,x2,y2, got 3"),
        ((2, 3, 10, 12, 14), "got 5"),
        (("2", "3", "10", "12"), "must be numbers"),
        ("1234", "must be numbers"),
        (None, "must be numbers"),
        ((2, 3, 10, None), "must be numbers"),
        ((2, 3, 10, 10**400), "must be numbers"),
        ([(2, 3), (10, 12)], "must be numbers"),
    ],
)
def test_box_refused(box, message):
    with pytest.raises(RegionError, match=message):
        Region.from_box(box)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((40, 3, 50, 12), r"reaches \(40, 3\), outside its image of width 32 and height 24"),
        ((2, 3, 33.5, 12), r"reaches \(33.5, 12\), outside"),
        ((-1.5, 3, 10, 12), r"reaches \(-1.5, 3\), outside"),
        ((-1, 3, -0.1, 12), "lies outside its image"),
        ((32, 3, 33, 12), "lies outside its image"),
        ((2, 24.2, 10, 25), "lies outside its image"),
    ],
)
def test_box_outside(box, message):
    with pytest.raises(RegionError, match=message):
        Region.from_box(box).to_mask(IMAGE_HW)


# -- polygons ----------------------------------------------------------------------------------------------

TRIANGLE = [2.0, 2.0, 20.0, 2.0, 11.0, 18.0]
SQUARE = [24.0, 10.0, 30.0, 10.0, 30.0, 16.0, 24.0, 16.0]


def paired(ring):
    return list(zip(ring[::2], ring[1::2], strict=True))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' decode
@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 32, width=32), st.floats(0, 24, width=32)), min_size=3, max_size=8))
def test_polygon_is_as_coco_draws_it(points):
    flat = [float(number) for point in points for number in point]
    assume(max(flat) > 1.1)  # shares of the image's sides are refused
    expected = coco.decode(coco.frPyObjects([flat], *IMAGE_HW))[..., 0].astype(bool)
    region = Region.from_polygon(points)
    assert region == Region.from_polygon(flat)
    if expected.any():
        assert np.array_equal(region.to_mask(IMAGE_HW).dense(), expected)
    else:
        with pytest.raises(RegionError, match="covers no pixel"):
            region.to_mask(IMAGE_HW)


@pytest.mark.parametrize(
    "polygon",
    [TRIANGLE, paired(TRIANGLE), np.array(paired(TRIANGLE)), [TRIANGLE], [paired(TRIANGLE)], tuple(TRIANGLE)],
    ids=["flat", "pairs", "array", "list of flat", "list of pairs", "tuple"],
)
def test_polygon_in_each_form(polygon):
    assert Region.from_polygon(polygon) == EVERY_KIND["polygon"]


def test_polygons_together_are_one_region():
    both = Region.from_polygon([TRIANGLE, SQUARE]).to_mask(IMAGE_HW).dense()
    apart = [Region.from_polygon(ring).to_mask(IMAGE_HW).dense() for ring in (TRIANGLE, SQUARE)]
    assert np.array_equal(both, apart[0] | apart[1])


@pytest.mark.parametrize(
    ("polygon", "message"),
    [
        ([], "must be a list of coordinates"),
        (None, "must be a list of coordinates"),
        ({"x": 1}, "must be a list of coordinates"),
        ([1, 2, 3, 4], "even number >= 6 of coordinates, got 4"),
        ([1, 2, 3, 4, 5, 6, 7], "got 7"),
        ([(1, 2), (3, 4)], "got 4"),
        ([TRIANGLE, [1, 2]], "got 2"),
        ([(1, 2), (3, 4, 5), (6, 7)], "must be numbers x0,y0,x1,y1"),
        ([1, 2, 3, 4, 5, "six"], "must be numbers"),
        ([1, 2, 3, 4, 5, float("nan")], "must be finite"),
        ("1,2,3,4,5,6", "must be numbers"),
    ],
)
def test_polygon_refused(polygon, message):
    with pytest.raises(RegionError, match=message):
        Region.from_polygon(polygon)


@pytest.mark.parametrize(
    ("polygon", "message"),
    [
        ([2, 2, 40, 2, 11, 18], r"polygon reaches \(40, 2\), outside its image of width 32 and height 24"),
        ([2, 2, 20, 2, 11, -3], r"reaches \(11, -3\)"),
        ([2, 2, 10, 2, 20, 2], "covers no pixel's centre"),
    ],
    ids=["right", "above", "flat"],
)
def test_polygon_does_not_fit(polygon, message):
    with pytest.raises(RegionError, match=message):
        Region.from_polygon(polygon).to_mask(IMAGE_HW)


# -- points and scribbles ----------------------------------------------------------------------------------


@given(st.floats(0, 32), st.floats(0, 24), st.floats(0.01, 40))
def test_a_point_is_a_disk_and_the_pixel_under_it(x, y, radius):
    assume(max(x, y) > 1.1)  # shares of the image's sides are refused
    got = Region.from_points([(x, y)], radius_px=radius).to_mask(IMAGE_HW).dense()
    expected = disk(IMAGE_HW, x, y, max(radius, 0.5))
    expected[min(int(y), 23), min(int(x), 31)] = True
    assert np.array_equal(got, expected)


def test_points_together_are_one_region():
    both = Region.from_points([(5, 5), (20, 12)], radius_px=3).to_mask(IMAGE_HW).dense()
    assert np.array_equal(both, disk(IMAGE_HW, 5, 5, 3) | disk(IMAGE_HW, 20, 12, 3))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 32), st.floats(0, 24)), min_size=2, max_size=4),
    st.floats(1, 12),
)
def test_a_scribble_is_the_disks_along_its_line(points, line_width):
    assume(max(map(max, points)) > 1.1)  # shares of the image's sides are refused
    got = Region.from_scribble(points, width_px=line_width).to_mask(IMAGE_HW).dense()
    inner, outer = np.zeros(IMAGE_HW, dtype=bool), np.zeros(IMAGE_HW, dtype=bool)
    for (xa, ya), (xb, yb) in pairwise(points):
        for share in np.linspace(0, 1, 100):
            x, y = xa + share * (xb - xa), ya + share * (yb - ya)
            inner |= disk(IMAGE_HW, x, y, line_width / 2 - 1e-9)
            outer |= disk(IMAGE_HW, x, y, line_width / 2 + 0.25)  # the line between two samples
    for x, y in points:
        outer[min(int(y), 23), min(int(x), 31)] = True
    assert not (inner & ~got).any()
    assert not (got & ~outer).any()


@pytest.mark.parametrize(
    "points",
    [
        [(3.2, 5.1), (288.7, 395.5)],
        [(288.7, 5.1), (3.2, 395.5)],
        [(10.5, 200), (280.1, 200)],
        [(150, 399), (150, 1.5)],
        [(20, 30), (40, 390), (290, 380)],
    ],
    ids=["down", "back", "flat", "upright", "two"],
)
@pytest.mark.parametrize("line_width", [1, 37.5, 900])
def test_a_long_scribble_is_every_pixel_near_its_line(points, line_width):
    rows, columns = np.indices((400, 300)) + 0.5
    expected = np.zeros((400, 300), dtype=bool)
    for a, b in pairwise(np.array(points)):
        along = np.clip(((columns - a[0]) * (b - a)[0] + (rows - a[1]) * (b - a)[1]) / ((b - a) ** 2).sum(), 0, 1)
        distance = np.hypot(columns - a[0] - along * (b - a)[0], rows - a[1] - along * (b - a)[1])
        expected |= distance <= line_width / 2
    for x, y in points:
        expected[int(y), int(x)] = True
    assert np.array_equal(Region.from_scribble(points, width_px=line_width).to_mask((400, 300)).dense(), expected)


@pytest.mark.parametrize("line_width", [0.001, 0.5, 1])
def test_a_thin_scribble_has_no_gaps(line_width):
    mask = Region.from_scribble([(1.3, 1.2), (30.6, 17.9)], width_px=line_width).to_mask(IMAGE_HW).dense()
    assert mask[:, 1:31].any(axis=0).all()


@pytest.mark.parametrize(
    ("points", "options", "message"),
    [
        ([], {}, r"one or more \(x, y\)"),
        ([(1, 2, 3)], {}, r"one or more \(x, y\)"),
        ((1, 2), {}, r"must be numbers \(x, y\)"),
        (None, {}, r"list of \(x, y\)"),
        ([("1", "2")], {}, "must be numbers"),
        ([(1, float("nan"))], {}, "must be finite"),
        ([(1, 2)], {"radius_px": 0}, "radius_px must be positive, got 0"),
        ([(1, 2)], {"radius_px": float("inf")}, "radius_px must be finite"),
        ([(1, 2)], {"radius_px": "wide"}, "radius_px must be numbers"),
    ],
)
def test_points_refused(points, options, message):
    with pytest.raises(RegionError, match=message):
        Region.from_points(points, **options)


def test_scribble_refused():
    with pytest.raises(RegionError, match=r"at least two points; for a click use Region\.from_points"):
        Region.from_scribble([(1, 2)])
    with pytest.raises(RegionError, match="width_px must be positive, got -1"):
        Region.from_scribble([(1, 2), (3, 4)], width_px=-1)


@pytest.mark.parametrize("point", [(-0.1, 5), (32.1, 5), (5, 24.1)])
def test_points_outside(point):
    with pytest.raises(RegionError, match=r"The point reaches .* outside its image"):
        Region.from_points([(5, 5), point]).to_mask(IMAGE_HW)
    with pytest.raises(RegionError, match=r"The scribble reaches .* outside its image"):
        Region.from_scribble([(5, 5), point]).to_mask(IMAGE_HW)


# -- run-length encoding -----------------------------------------------------------------------------------


def uncompressed(mask):
    """Run lengths by brute force, column by column, the background's first."""
    runs, value = [0], False
    for pixel in mask.T.ravel():
        if pixel == value:
            runs[-1] += 1
        else:
            runs.append(1)
            value = pixel
    return {"size": list(mask.shape), "counts": runs}


@settings(deadline=None)
@given(masks())
def test_rle_of_both_kinds_is_as_coco_has_it(mask):
    compressed = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    as_text = {"size": compressed["size"], "counts": compressed["counts"].decode("ascii")}
    regions = [Region.from_rle(rle) for rle in (uncompressed(mask), compressed, as_text)]
    assert len(set(regions)) == 1
    assert np.array_equal(regions[0].to_mask(mask.shape).dense(), mask)


@given(st.binary(max_size=12) | st.text(max_size=12))
def test_any_compressed_text_is_read_or_refused(counts):
    try:
        region = Region.from_rle({"size": [5, 5], "counts": counts})
    except RegionError:
        return
    assert region.to_mask((5, 5)).area > 0


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        (None, "mapping with 'size' and 'counts'"),
        ({"counts": [4, 2, 6]}, "mapping with 'size' and 'counts'"),
        ({"size": [3, 4]}, "mapping with 'size' and 'counts'"),
        ({**A_RLE, "size": [3]}, r"two positive integers \[height, width\]"),
        ({**A_RLE, "size": [0, 4]}, "two positive integers"),
        ({**A_RLE, "size": [3.5, 4]}, "RLE size must be integers"),
        ({**A_RLE, "size": "34"}, "RLE size must be integers"),
        ({**A_RLE, "size": None}, "RLE size must be integers"),
        ({**A_RLE, "counts": [4, 2, 5]}, "add up to height x width = 12, got a sum of 11"),
        ({**A_RLE, "counts": [4, -2, 10]}, "counts must be >= 0, got -2"),
        ({**A_RLE, "counts": [4, 2.5, 5.5]}, "RLE counts must be integers"),
        ({**A_RLE, "counts": [4, float("nan"), 6]}, "RLE counts must be integers"),
        ({**A_RLE, "counts": [4, float("inf"), 6]}, "RLE counts must be integers"),
        ({**A_RLE, "counts": ["4", "2", "6"]}, "RLE counts must be integers"),
        ({**A_RLE, "counts": 12}, "RLE counts must be integers"),
        ({**A_RLE, "counts": []}, "got a sum of 0"),
        ({**A_RLE, "counts": [12]}, "no foreground run"),
        ({**A_RLE, "counts": [12, 0]}, "no foreground run"),
        ({**A_RLE, "counts": "42!"}, "not COCO's compressed form"),
        ({**A_RLE, "counts": "4é6"}, "not COCO's compressed form"),
        ({**A_RLE, "counts": "o" * 100}, "not COCO's compressed form"),
        ({**A_RLE, "counts": "42X"}, "end in the middle of a number"),
        ({**A_RLE, "counts": ""}, "got a sum of 0"),
        ({**A_RLE, "counts": "4\ud8006"}, "not COCO's compressed form"),
        ({**A_RLE, "counts": "P" * 11 + "0"}, "add up to height x width = 12, got a sum of 0"),
        ({**A_RLE, "counts": "P" * 12 + "0"}, "not COCO's compressed form"),
        ({**A_RLE, "counts": "4O6"}, "counts must be >= 0, got -1"),
        ({"size": [10**9, 10**9], "counts": [4, 2, 6]}, "height x width = 1000000000000000000"),
    ],
)
def test_rle_refused(rle, message):
    with pytest.raises(RegionError, match=message):
        Region.from_rle(rle)


def test_rle_truncated():
    rle = coco.encode(np.asfortranarray(A_MASK.astype(np.uint8)))
    with pytest.raises(RegionError, match="RLE counts"):
        Region.from_rle({**rle, "counts": rle["counts"][:-3]})


def test_rle_of_a_huge_size_allocates_nothing():
    tracemalloc.start()
    try:
        region = Region.from_rle({"size": [10**9, 10**9], "counts": [5, 10**18 - 5]})
        with pytest.raises(RegionError, match=r"RLE is of width 1000000000 .* but its image is of width 32"):
            region.to_mask(IMAGE_HW)
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


# -- mask pictures -----------------------------------------------------------------------------------------

INDEX = A_MASK.astype(np.uint8) * 3


def palette_picture(index):
    picture = Image.fromarray(index).convert("P")
    picture.putdata(index.ravel().tolist())
    picture.putpalette([7, 7, 7, 0, 0, 0, 9, 9, 9, 200, 10, 10])  # the palette's colours say nothing
    return picture


def rgba_picture(alpha, grey=0):
    colour = np.full((*A_MASK.shape, 3), grey, dtype=np.uint8)
    return Image.fromarray(np.dstack([colour, alpha]))


@pytest.mark.parametrize(
    ("picture", "value"),
    [
        (Image.fromarray(A_MASK.astype(np.uint8) * 255), None),
        (Image.fromarray(INDEX), 3),
        (Image.fromarray(A_MASK), None),
        (Image.fromarray(A_MASK), 1),
        (Image.fromarray(A_MASK.astype(np.uint16) * 40000), None),
        (Image.fromarray(A_MASK.astype(np.uint16) * 40000), 40000),
        (palette_picture(INDEX), None),
        (palette_picture(INDEX), 3),
        (rgba_picture(A_MASK.astype(np.uint8) * 128), None),
        (Image.fromarray(np.dstack([INDEX] * 3 + [np.full_like(INDEX, 255)])), None),
        (Image.fromarray(np.dstack([INDEX] * 3 + [A_MASK.astype(np.uint8)])), 3),
        (Image.fromarray(np.dstack([INDEX] * 3)), None),
        (Image.merge("LA", [Image.new("L", (32, 24)), Image.fromarray(A_MASK.astype(np.uint8) * 255)]), None),
    ],
    ids=[
        "grey", "grey value", "1 bit", "1 bit value", "16 bit", "16 bit value", "palette", "palette value",
        "alpha", "opaque alpha", "alpha and value", "equal channels", "grey and alpha",
    ],
)  # fmt: skip
def test_mask_picture_in_each_form(tmp_path, picture, value):
    picture.save(tmp_path / "mask.png")
    region = Region.from_png(tmp_path / "mask.png", value=value)
    assert np.array_equal(region.to_mask(IMAGE_HW).dense(), A_MASK)
    assert region == Region.from_mask(A_MASK)


def test_mask_picture_with_other_labels(tmp_path):
    labels = INDEX.copy()
    labels[:2] = 5
    Image.fromarray(labels).save(tmp_path / "mask.png")
    assert np.array_equal(Region.from_png(tmp_path / "mask.png", value=3).to_mask(IMAGE_HW).dense(), A_MASK)


@pytest.mark.parametrize(
    ("picture", "value", "message"),
    [
        (Image.new("L", (4, 3)), None, r"mask\.png' is empty: no pixel is non-zero, its values are 0 to 0"),
        (Image.new("L", (4, 3), 9), 3, "no pixel is equal to 3, its values are 9 to 9"),
        (Image.new("RGBA", (4, 3)), None, "is empty"),
        (Image.new("RGB", (4, 3), "red"), None, r"colour picture \(mode RGB\); expected one channel"),
        (Image.new("RGBA", (4, 3), "red"), None, r"colour picture \(mode RGBA\)"),
    ],
    ids=["empty", "value not there", "all transparent", "colour", "opaque colour"],
)
def test_mask_picture_refused(tmp_path, picture, value, message):
    picture.save(tmp_path / "mask.png")
    with pytest.raises(RegionError, match=message):
        Region.from_png(tmp_path / "mask.png", value=value)


def test_mask_picture_must_not_be_lossy(tmp_path):
    Image.fromarray(INDEX).save(tmp_path / "mask.jpg")
    with pytest.raises(RegionError, match=r"is a JPEG, which blurs a mask's values\. Save masks as PNG"):
        Region.from_png(tmp_path / "mask.jpg")


def test_mask_picture_damaged_or_missing(tmp_path):
    path = tmp_path / "mask.png"
    with pytest.raises(ImageError, match=r"Mask '.*mask\.png' cannot be read: No such file"):
        Region.from_png(path)
    noise = np.random.default_rng(0).integers(0, 255, IMAGE_HW, dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ImageError, match=r"Mask '.*mask\.png' cannot be read: "):
        Region.from_png(path)
    path.write_text("not a picture")
    with pytest.raises(ImageError, match="not a picture in a format that Pillow reads"):
        Region.from_png(path)


# -- videos ------------------------------------------------------------------------------------------------


def on_frames(*frames):
    return VideoRegion({frame: Region.from_box((0, 0, 2 + frame, 2)) for frame in frames})


def test_a_video_region_is_ordered_read_only_and_hashable():
    region = on_frames(7, 2, 5)
    assert list(region.frames) == [2, 5, 7]
    with pytest.raises(TypeError, match="does not support item assignment"):
        region.frames[3] = Region.from_box((0, 0, 1, 1))
    assert region == on_frames(2, 5, 7) != region.on_video(1)
    assert len({region, on_frames(2, 5, 7)}) == 1
    assert pickle.loads(pickle.dumps(region)) == region
    assert list(VideoRegion({np.int64(3): Region.from_box((0, 0, 1, 1))}).frames) == [3]


@pytest.mark.parametrize(
    ("num_frames", "kept"), [(1, [0]), (2, [0, 8]), (3, [0, 4, 8]), (9, list(range(9))), (99, list(range(9)))]
)
def test_a_video_region_is_thinned_evenly(num_frames, kept):
    region = on_frames(*range(9))
    assert list(region.thinned(num_frames).frames) == kept
    assert all(region.thinned(num_frames).frames[frame] == region.frames[frame] for frame in kept)


def test_a_video_region_keeps_a_frame():
    with pytest.raises(RegionError, match="keeps one frame or more, got num_frames=0"):
        on_frames(1).thinned(0)


# -- frames where an object is absent ----------------------------------------------------------------------

BOX = Region.from_box((0, 0, 2, 2))


def test_absent_frames_are_kept_in_order_by_every_copy():
    region = VideoRegion({4: BOX, 2: BOX}, absent=[np.int64(9), 0, 9])
    assert region.absent == (0, 9)
    assert VideoRegion({2: BOX}).absent == ()
    for again in (region.on_video(1).on_video(0), pickle.loads(pickle.dumps(region)), region.thinned(4)):
        assert again == region
        assert hash(again) == hash(region)
    assert region != VideoRegion({4: BOX, 2: BOX})


@pytest.mark.parametrize(
    ("absent", "message"),
    [
        ([2], "has a region on frame 2, but says that it is absent there"),
        ([-1], "absent must be frame indices, integers >= 0, got -1"),
        ([True], "absent must be frame indices, integers >= 0, got True"),
        (["3"], "absent must be frame indices, integers >= 0, got '3'"),
        (3, "absent must be a list of frame indices, got 3"),
        ("3", "absent must be a list of frame indices, got '3'"),
    ],
)
def test_refused_absent_frames(absent, message):
    with pytest.raises(RegionError, match=message):
        VideoRegion({2: BOX}, absent=absent)


@pytest.mark.parametrize(
    ("num_frames", "frames", "absent"),
    [(8, [2, 4], [0, 6, 9]), (5, [2, 4], [0, 6, 9]), (3, [4], [0, 9]), (2, [2], [9]), (1, [2], [])],
)
def test_seen_and_absent_frames_are_thinned_together(num_frames, frames, absent):
    thinned = VideoRegion({2: BOX, 4: BOX}, absent=[0, 6, 9]).thinned(num_frames)
    assert (list(thinned.frames), list(thinned.absent)) == (frames, absent)


# -- several masks, and masks as run lengths ---------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_union_of_masks_is_what_any_of_them_covers(count):
    random = np.random.default_rng(count)
    dense = [np.zeros((23, 31), dtype=bool) for _ in range(count)]
    for each in dense:
        row, column = random.integers(0, 20, 2)
        each[row : row + 6, column : column + 9] = random.random(each[row : row + 6, column : column + 9].shape) < 0.6
        each[row, column] = True
    union = RegionMask.union([RegionMask.from_dense(each) for each in dense])
    assert union == RegionMask.from_dense(np.logical_or.reduce(dense))


@pytest.mark.parametrize(
    "region",
    [
        Region.from_box((3.5, 2, 20, 9)),
        Region.from_points([(5, 5), (30, 20)], radius_px=3),
        Region.from_mask(np.eye(23, 31)),
        Region.from_rle({"size": [23, 31], "counts": [10, 0, 0, 40, 663]}),
    ],
    ids=["box", "points", "mask", "rle"],
)
def test_a_region_as_run_lengths_is_the_same_pixels(region):
    written = region.to_rle((23, 31))
    assert written["size"] == [23, 31]
    assert isinstance(written["counts"], str)
    assert Region.from_rle(written).to_mask((23, 31)) == region.to_mask((23, 31))
    with pytest.raises(RegionError):
        region.to_rle((4, 4))


# -- checked without pixels --------------------------------------------------------------------------------

COORDINATES = st.one_of(st.integers(-3, 23), st.floats(-3, 23, allow_nan=False).map(lambda each: round(each, 2)))
PAIRS = st.tuples(COORDINATES, COORDINATES)
SIZES = st.tuples(st.integers(1, 20), st.integers(1, 20))


def some_mask(size_hw):
    mask = np.zeros(size_hw, dtype=bool)
    mask[-1, 0] = True
    return mask


@st.composite
def regions_of_all_kinds(draw):
    """A region that may lie anywhere; None where its coordinates make none."""
    kind = draw(st.sampled_from(["mask", "box", "polygon", "points", "scribble", "rle"]))
    try:
        if kind == "mask":
            return Region.from_mask(some_mask(draw(SIZES)))
        if kind == "rle":
            return Region.from_rle(RegionMask.from_dense(some_mask(draw(SIZES))).to_rle())
        if kind == "box":
            return Region.from_box((*draw(PAIRS), *draw(PAIRS)))
        if kind == "points":
            return Region.from_points(draw(st.lists(PAIRS, min_size=1, max_size=3)), radius_px=draw(st.floats(0.1, 30)))
        if kind == "scribble":
            return Region.from_scribble(draw(st.lists(PAIRS, min_size=2, max_size=4)), width_px=draw(st.floats(0.1, 9)))
        return Region.from_polygon(draw(st.lists(st.lists(PAIRS, min_size=3, max_size=5), min_size=1, max_size=2)))
    except RegionError:
        return None


def outcome(check, image_hw):
    try:
        check(image_hw)
    except RegionError as error:
        return str(error)
    return "it fits"


@settings(max_examples=400, deadline=None)
@given(regions_of_all_kinds(), SIZES)
def test_a_region_is_checked_as_it_is_rasterised(region, image_hw):
    assume(region is not None)
    assert outcome(region.require_on, image_hw) == outcome(region.to_mask, image_hw)


@pytest.mark.parametrize(
    "region",
    [
        Region.from_box((1, 1, 5, 5)),
        Region.from_points([(2, 2)]),
        Region.from_scribble([(2, 2), (4, 4)]),
        Region.from_mask(some_mask((9, 9))),
        Region.from_rle(RegionMask.from_dense(some_mask((9, 9))).to_rle()),
    ],
    ids=lambda region: region.kind,
)
def test_checking_a_region_makes_no_mask(region, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("a mask was made")

    monkeypatch.setattr(RegionMask, "__init__", refuse)
    monkeypatch.setattr("pixelrefer_plugin.regions.rasterize.np", None)
    region.require_on((9, 9))
