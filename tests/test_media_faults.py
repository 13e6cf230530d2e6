"""What users' files and careless or hostile input have shown, in pictures, videos and regions."""

import pytest
from hypothesis import assume, given
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
