"""What users' files and careless or hostile input have shown, in pictures, videos and regions."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pixelrefer_plugin import Region, RegionError, VideoRegion

IMAGE_HW = (60, 80)

# -- shares of a picture, taken for pixels ---------------------------------------------------------------

SHARES = st.floats(0, 1, width=32).filter(lambda share: 1e-3 < share < 1 - 1e-3)


def _regions_of(shares):
    """The kinds of region that can be made of eight coordinates."""
    points = list(zip(shares[::2], shares[1::2], strict=True))
    (x1, x2), (y1, y2) = sorted(shares[:4:2]), sorted(shares[1:4:2])
    assume(x1 < x2 and y1 < y2)
    return [
        Region.from_box((x1, y1, x2, y2)),
        Region.from_polygon(points),
        Region.from_polygon([points[:3], points[1:]]),
        Region.from_points(points),
        Region.from_points(points[:1]),
        Region.from_scribble(points),
    ]


@given(st.lists(SHARES, min_size=8, max_size=8), st.sampled_from([(60, 80), (3, 3), (1, 500), (4000, 3000)]))
def test_shares_of_a_picture_are_not_taken_for_pixels(shares, image_hw):
    _, width = image_hw
    for region in _regions_of(shares):
        for use in (region.to_mask, region.require_on, region.to_rle, VideoRegion({3: region}).require_on):
            with pytest.raises(RegionError, match=f"pixels are expected. Multiply x by the width {width} and y by"):
                use(image_hw)


@pytest.mark.parametrize(
    ("region", "area"),
    [
        (Region.from_box((0, 0, 1, 1)), 1),
        (Region.from_box((0, 0, 0.9999999, 1)), 1),  # scaled, and rounded by it
        (Region.from_box((0, 0, 1.5, 1)), 2),
        (Region.from_box((0.5, 0.5, 1.5, 0.9)), 2),
        (Region.from_points([(0, 0)], radius_px=1), 1),
        (Region.from_points([(1, 1)], radius_px=1), 4),
        (Region.from_points([(0.5, 0.5), (9.5, 9.5)], radius_px=0.5), 2),
        (Region.from_scribble([(0, 0), (1, 0)], width_px=1), 2),
    ],
)
def test_pixels_of_the_corner_stay_pixels(region, area):
    assert region.to_mask(IMAGE_HW).area == area


def test_on_a_picture_of_a_few_pixels_parts_of_pixels_are_pixels():
    assert Region.from_box((0.25, 0.25, 0.75, 0.75)).to_mask((2, 2)).area == 1
    assert Region.from_points([(0.5, 0.5)], radius_px=0.5).to_mask((1, 1)).area == 1


def test_an_inverted_box_of_shares_is_told_as_one():
    with pytest.raises(RegionError, match="lie within 0 and 1, but pixels are expected"):
        Region.from_box((0.5, 0.5, 0.2, 0.2))  # x, y, width, height


# -- regions that reach out of their picture -------------------------------------------------------------

FAR = st.floats(-100, 200, width=32)
PADDED_HW = (400, 400)
OFFSET = 150  # where the picture of IMAGE_HW lies in the padded one


def _shifted(points, by=OFFSET):
    return [(x + by, y + by) for x, y in points]


def _part_inside(padded):
    """What of a mask of the padded picture lies on the picture itself."""
    height, width = IMAGE_HW
    return padded.to_mask(PADDED_HW).dense()[OFFSET : OFFSET + height, OFFSET : OFFSET + width]


@given(st.tuples(FAR, FAR, FAR, FAR))
def test_a_clipped_box_is_its_part_inside(corners):
    x1, x2 = sorted(corners[:2])
    y1, y2 = sorted(corners[2:])
    assume(x2 - x1 > 0.01 and y2 - y1 > 0.01)
    box = (x1, y1, x2, y2)
    expected = _part_inside(Region.from_box([each + OFFSET for each in box]))
    try:
        got = Region.from_box(box).clipped(IMAGE_HW)
    except RegionError as error:
        assert expected.sum() <= 1 + 80, error  # a row or column that it touches by less than the noise of scaling
        return
    assert got.kind == "box"
    assert np.array_equal(got.to_mask(IMAGE_HW).dense(), expected)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-100, 200), st.integers(-100, 200)), min_size=3, max_size=6))
def test_a_clipped_polygon_is_its_part_inside(points):
    try:
        expected = _part_inside(Region.from_polygon(_shifted(points)))
    except RegionError:
        return  # flat
    try:
        got = Region.from_polygon(points).clipped(IMAGE_HW).to_mask(IMAGE_HW).dense()
    except RegionError:
        assert expected.sum() < 200  # slivers along the border
        return
    outline = _near_the_outline(expected)
    assert not ((got != expected) & ~outline).any()


def _near_the_outline(mask):
    """Pixels beside one of the other kind, or at the picture's border."""
    padded = np.pad(mask, 1, constant_values=False)
    around = [padded[1 + dy : 61 + dy, 1 + dx : 81 + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    inner = np.zeros(IMAGE_HW, bool)
    inner[1:-1, 1:-1] = True
    return (np.any(around, axis=0) & ~np.all(around, axis=0)) | ~inner


@settings(deadline=None)
@given(st.lists(st.tuples(FAR, FAR), min_size=2, max_size=5), st.floats(2, 12))
def test_a_clipped_scribble_stays_on_its_line(points, line_width):
    try:
        region = Region.from_scribble(points, width_px=line_width).clipped(IMAGE_HW)
    except RegionError:
        return
    full = _part_inside(Region.from_scribble(_shifted(points), width_px=line_width + 2.5))
    assert not (region.to_mask(IMAGE_HW).dense() & ~full).any()


def test_clicks_outside_are_left_out_and_those_that_reach_in_moved():
    clicks = Region.from_points([(-3, 5), (40, 30), (85, 70), (500, 500)], radius_px=5, image_index=2)
    assert clicks.clipped(IMAGE_HW) == Region.from_points([(0, 5), (40, 30)], radius_px=5, image_index=2)


def test_what_lies_inside_is_not_changed_by_clipping():
    mask = np.zeros(IMAGE_HW, bool)
    mask[3:9, 4:8] = True
    inside = [
        Region.from_box((3.5, 4, 50, 20)),
        Region.from_polygon([(3, 4), (50.5, 6), (9, 30)]),
        Region.from_points([(3, 4), (80, 60)]),
        Region.from_scribble([(3, 4), (80, 60), (0, 0)]),
        Region.from_mask(mask),
        Region.from_rle(Region.from_mask(mask).to_rle(IMAGE_HW)),
    ]
    for region in inside:
        assert region.clipped(IMAGE_HW) == region
        assert VideoRegion({4: region}, absent=(5,)).clipped(IMAGE_HW) == VideoRegion({4: region}, absent=(5,))


def test_a_scribble_that_comes_back_is_a_mask_without_a_line_along_the_border():
    region = Region.from_scribble([(10, 10), (10, -500), (70, -500), (70, 10)], width_px=3).clipped(IMAGE_HW)
    assert region.kind == "mask"
    assert not region.to_mask(IMAGE_HW).dense()[:, 15:65].any()


@pytest.mark.parametrize(
    ("region", "message"),
    [
        (Region.from_box((-20, -20, -1, -1)), r"box \(-20.0, .*lies outside its image of width 80 and height 60"),
        (Region.from_box((-20, -20, 0.4, 0.4)), "to clip it leaves nothing"),
        (Region.from_polygon([(-9, -9), (-2, -9), (-2, -1)]), "lies outside"),
        (Region.from_points([(-20, 5)]), "lies outside"),
        (Region.from_scribble([(-20, 5), (-1, 80)]), "lies outside"),
        (Region.from_box((0.1, 0.1, 0.9, 0.9)), "pixels are expected"),
        (Region.from_box((1e300, 1, 2e300, 5)), "far outside"),
        (Region.from_mask(np.ones((3, 3))), "The mask is of width 3"),
    ],
)
def test_what_cannot_be_clipped_is_refused(region, message):
    with pytest.raises(RegionError, match=message):
        region.clipped(IMAGE_HW)
    with pytest.raises(RegionError, match=f"Frame 7: .*{message}"):
        VideoRegion({7: region}).clipped(IMAGE_HW)
