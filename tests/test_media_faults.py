"""What users' files and careless or hostile input have shown, in pictures, videos and regions."""

import os
import re
import struct
import subprocess
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image, features
from pycocotools import mask as coco

from pixelrefer_plugin import (
    FrameSampling,
    ImageError,
    PixelReferError,
    Region,
    RegionError,
    VideoError,
    VideoRegion,
    load_image,
    load_video,
)
from pixelrefer_plugin.media.images import image_hw
from pixelrefer_plugin.media.video import frame_times
from pixelrefer_plugin.regions.filling import filling

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
    region = Region.from_box(box)
    if not expected.any():
        with pytest.raises(RegionError, match="outside"):
            region.clipped(IMAGE_HW)
        return
    assume(max(x2, y2) > 1.01)  # shares of the picture's sides
    got = region.clipped(IMAGE_HW)
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
    outline = _part_inside(Region.from_scribble(_shifted([*points, points[0]]), width_px=3))
    assert not ((got != expected) & ~outline).any()


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


# -- polygons of many points -----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' decode
@settings(deadline=None)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.lists(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=9), min_size=1, max_size=4),
    st.sampled_from([1, 2, 5, 10, 1000]),
)
def test_polygons_of_several_rings_are_filled_as_coco_fills_them(image_hw, shares, grain):
    sizes = np.array(image_hw[::-1]) + 2
    rings = [tuple((np.round(np.array(ring) * sizes * grain) / grain - 1).ravel().tolist()) for ring in shares]
    expected = coco.decode(coco.merge(coco.frPyObjects([list(ring) for ring in rings], *image_hw))).astype(bool)
    filled = filling(rings, image_hw)
    assert filled.is_empty == (not expected.any())
    if not filled.is_empty:
        assert np.array_equal(filled.mask(image_hw).dense(), expected)


def zigzag(count, hw):
    """A polygon that runs across the whole picture so many times."""
    height, width = hw
    return [number for index in range(count) for number in (0 if index % 2 else width, index % height)]


def test_an_outline_longer_than_the_picture_can_show_is_refused_before_it_is_followed():
    region = Region.from_polygon(zigzag(108_000, (3000, 4000)))
    for use in (region.to_mask, region.require_on, region.clipped):
        with pytest.raises(RegionError, match=r"outline passes 432,000,000 columns.*Give its mask instead"):
            use((3000, 4000))


def test_memory_of_a_long_outline_is_linear_in_the_picture():
    hw = (1000, 1200)
    region = Region.from_polygon(zigzag(3000, hw))  # pycocotools takes 450 MB
    tracemalloc.start()
    region.to_mask(hw)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 160e6


# -- clicks and scribbles that are too many or too wide ----------------------------------------------------


@pytest.mark.parametrize("radius", [1e5, 1e200, 1.7e308])
def test_a_click_wider_than_the_picture_covers_it(radius):
    hw = (3000, 4000)
    for region in (
        Region.from_points([(0, 0)] * 10_000, radius_px=radius),
        Region.from_points([(index % 4000, index % 3000) for index in range(10_000)], radius_px=radius),
        Region.from_scribble([(index % 4000, index % 3000) for index in range(10_000)], width_px=radius),
    ):
        region.require_on(hw)
        assert region.to_mask(hw).area == 3000 * 4000


def test_a_click_that_is_given_often_is_drawn_once():
    assert Region.from_points([(50, 40)] * 10**5).to_mask(IMAGE_HW) == Region.from_points([(50, 40)]).to_mask(IMAGE_HW)


@pytest.mark.parametrize("make", [Region.from_points, Region.from_scribble])
def test_clicks_and_scribbles_that_would_take_minutes_are_refused(make):
    points = [(index % 4000, 7 * index % 3000) for index in range(10_000)]
    region = make(points, **({"radius_px": 1200} if make == Region.from_points else {"width_px": 2400}))
    for use in (region.to_mask, region.require_on):
        with pytest.raises(RegionError, match="cannot be drawn in reasonable time: .* 2400 pixels wide.*or a mask"):
            use((3000, 4000))


def test_a_long_freehand_line_is_drawn():
    angles = np.linspace(0, 60, 4000)
    spiral = [(400 + 5 * a * np.cos(a), 300 + 4 * a * np.sin(a)) for a in angles]
    assert 10_000 < Region.from_scribble(spiral, width_px=4).to_mask((600, 800)).area < 200_000


# -- masks of formats that change values -------------------------------------------------------------------

SHAPE = np.zeros(IMAGE_HW, np.uint8)
SHAPE[13:41, 9:66] = 255
SHAPE[20:30, 20:30] = 0


def _saved(folder, name, picture=None, **options):
    picture = Image.fromarray(SHAPE) if picture is None else picture
    picture.save(folder / name, **options)
    return folder / name


LOSSY = {
    "jpeg_called.png": ("JPEG", {}, "is a JPEG"),
    "mask.jfif": ("JPEG", {"quality": 95}, "is a JPEG"),
    "mask": ("JPEG", {}, "is a JPEG"),
    "mask.webp": ("WEBP", {"quality": 90}, "is a lossy WebP"),
    "webp_called.png": ("WEBP", {}, "is a lossy WebP"),
    "mask.jp2": ("JPEG2000", {"irreversible": True}, "is a lossy JPEG 2000"),
    "mask.tif": ("TIFF", {"compression": "jpeg"}, "is a TIFF with jpeg compression"),
}


@pytest.mark.parametrize("name", LOSSY)
def test_masks_of_lossy_formats_are_known_by_what_they_are(tmp_path, name):
    kind, options, message = LOSSY[name]
    path = _saved(tmp_path, name, format=kind, **options)
    for value in (None, 255):
        with pytest.raises(RegionError, match=rf"{message}, which blurs a mask's values\. Save masks as PNG"):
            Region.from_png(path, value=value)
    if kind == "JPEG":
        with Image.open(path) as picture, pytest.raises(RegionError, match=message):
            Region.from_mask(picture)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_an_avif_mask_is_refused(tmp_path):
    path = _saved(tmp_path, "avif_called.png", format="AVIF")
    with pytest.raises(RegionError, match="is an AVIF, which blurs"):
        Region.from_png(path)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("jpg_by_name.jpg", {"format": "PNG"}),
        ("mask.webp", {"lossless": True}),
        ("mask.jp2", {}),
        ("mask.tif", {"compression": "tiff_lzw"}),
        ("mask.gif", {}),
        ("mask.bmp", {}),
        ("mask.pgm", {}),
        ("mask.tga", {}),
    ],
)
def test_masks_of_exact_formats_are_read_under_any_name(tmp_path, caplog, name, options):
    region = Region.from_png(_saved(tmp_path, name, **options))
    assert np.array_equal(region.to_mask(IMAGE_HW).dense(), SHAPE > 0)
    assert not caplog.records


@pytest.mark.parametrize("how", ["made of a JPEG", "resized", "label map", "soft alpha"])
def test_a_mask_of_many_values_is_told_once(tmp_path, caplog, how):
    picture = Image.fromarray(SHAPE)
    if how == "made of a JPEG":
        with Image.open(_saved(tmp_path, "x.jpg", picture)) as jpeg:
            picture = jpeg.copy()
    elif how == "resized":
        picture = picture.resize((40, 30), Image.Resampling.BICUBIC)
    elif how == "label map":
        picture = Image.fromarray(
            np.where(SHAPE > 0, np.indices(IMAGE_HW)[1].astype(np.uint8) // 20 + 1, 0).astype("u1")
        )
    else:
        alpha = picture.resize((40, 30), Image.Resampling.BILINEAR)
        picture = Image.merge("RGBA", [alpha, alpha, alpha, alpha])
    path = _saved(tmp_path, "mask.png", picture)
    for _ in range(2):
        Region.from_png(path)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert re.search(r"Mask '.*mask\.png' has \d+ values, from 0 to \d+, and all but 0 count as inside", record.message)


def test_a_value_of_a_label_map_is_read_without_a_word(tmp_path, caplog):
    labels = np.arange(IMAGE_HW[0] * IMAGE_HW[1], dtype=np.int64).reshape(IMAGE_HW) // 500
    path = _saved(tmp_path, "labels.png", Image.fromarray(labels.astype(np.uint8)))
    assert np.array_equal(Region.from_png(path, value=4).to_mask(IMAGE_HW).dense(), labels == 4)
    assert not caplog.records
    for value in ("4", 4.5, -1, True, [4]):
        with pytest.raises(RegionError, match="value of a mask must be an integer"):
            Region.from_png(path, value=value)


@pytest.mark.parametrize("white", [4, 15, 255, 300, 1023, 65535])
def test_labels_of_a_pgm_are_what_is_stored(tmp_path, white):
    labels = np.where(SHAPE > 0, min(white, 3), 1)
    body = labels.astype("u1" if white < 256 else ">u2").tobytes()
    (tmp_path / "labels.pgm").write_bytes(b"P5\n80 60\n%d\n" % white + body)
    region = Region.from_png(tmp_path / "labels.pgm", value=3)
    assert np.array_equal(region.to_mask(IMAGE_HW).dense(), SHAPE > 0)


# -- grey of fewer bits than its container has -------------------------------------------------------------


def _png_with_sbit(path, bits):
    """Write a PNG's significant bits behind its header."""
    content = path.read_bytes()
    body = b"sBIT" + bytes([bits])
    chunk = struct.pack(">I", 1) + body + struct.pack(">I", zlib.crc32(body))
    path.write_bytes(content[:33] + chunk + content[33:])


def _grey_file(folder, kind, values, bits):
    path = folder / f"grey.{kind}"
    if kind == "pgm":
        height, width = values.shape
        path.write_bytes(b"P5\n%d %d\n%d\n" % (width, height, 2**bits - 1) + values.astype(">u2").tobytes())
        return path
    options = {"tiffinfo": {281: 2**bits - 1}} if kind == "tif" else {}
    Image.fromarray(values.astype(np.uint16)).save(path, **options)
    if kind == "png":
        _png_with_sbit(path, bits)
    return path


@pytest.mark.parametrize("kind", ["pgm", "png", "tif"])
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bits=st.integers(9, 15), seed=st.integers(0, 100))
def test_grey_is_scaled_by_the_bits_that_its_file_names(tmp_path, kind, bits, seed):
    values = np.random.default_rng(seed).integers(0, 2**bits, (6, 9))
    values[0, 0] = 2**bits - 1
    got = np.asarray(load_image(_grey_file(tmp_path, kind, values, bits)))
    assert np.abs(got[..., 0] - values * 255 / (2**bits - 1)).max() < 1.01
    assert got.max() == 255


def test_significant_bits_of_values_that_are_scaled_already_change_nothing(tmp_path):
    values = np.arange(54).reshape(6, 9) * 1213
    assert np.asarray(load_image(_grey_file(tmp_path, "png", values, 12)))[..., 0].tolist() == (values // 257).tolist()


@pytest.mark.parametrize("name", ["grey.png", "grey.tif", "grey.jp2", "grey.pgm"])
@pytest.mark.parametrize("bits", [9, 10, 12, 14])
def test_grey_that_names_no_bits_is_told(tmp_path, caplog, name, bits):
    values = np.full((6, 9), 2**bits - 75, np.uint16)
    path = _saved(tmp_path, name, Image.fromarray(values))
    for _ in range(2):
        load_image(path)
    (record,) = caplog.records
    assert f"has 16 bits, but its greatest value is {2**bits - 75} of 65535, as if {bits} bits" in record.message


def test_colours_of_12_bits_in_16_are_told(tmp_path, caplog):
    colour = np.random.default_rng(0).integers(0, 4096, (6, 9, 3)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "colour.png"), colour)
    load_image(tmp_path / "colour.png")
    assert "has 16 bits, but its greatest value is" in caplog.text


@pytest.mark.parametrize("values", [np.zeros((4, 5)), np.full((4, 5), 30_000), np.arange(20).reshape(4, 5) * 3000])
def test_grey_of_16_bits_is_read_without_a_word(tmp_path, caplog, values):
    path = _saved(tmp_path, "grey.png", Image.fromarray(values.astype(np.uint16)))
    assert np.asarray(load_image(path))[..., 0].tolist() == (values // 257).tolist()
    assert not caplog.records


# -- pictures that do more than show themselves ------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".eps", ".ps", ".tif"])
def test_no_picture_starts_a_program(tmp_path, monkeypatch, suffix):
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda *arguments, **options: started.append(arguments))
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", "gs")
    path = tmp_path / f"street{suffix}"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n%%EOF\n")
    for read in (load_image, image_hw, Region.from_png, lambda path: load_video([path], fps=1)):
        with pytest.raises(PixelReferError, match="is not a picture in a format that Pillow reads: PNG, JPEG, WebP"):
            read(path)
    with Image.open(path) as picture, pytest.raises(ImageError, match="EPS is not read, for it takes another program"):
        load_image(picture)
    assert not started


@pytest.mark.parametrize("kind", ["PSD", "FITS", "PCX", "XBM"])
def test_formats_that_are_not_named_are_not_read(tmp_path, kind):
    content = {
        "PSD": b"8BPS\0\1" + b"\0" * 40,
        "FITS": b"SIMPLE  =                    T",
        "XBM": b"#define x_width 8\n",
    }
    path = tmp_path / "picture.png"
    path.write_bytes(content.get(kind, b"\x0a\x05\x01\x08" + b"\0" * 130))
    with pytest.raises(ImageError, match="is not a picture in a format that Pillow reads"):
        load_image(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.timeout(20)
def test_pipes_and_devices_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "pipe.mp4")
    frames = tmp_path / "frames"
    frames.mkdir()
    os.mkfifo(frames / "0.png")
    reads = [
        lambda: load_image(tmp_path / "pipe.png"),
        lambda: image_hw(tmp_path / "pipe.png"),
        lambda: Region.from_png(tmp_path / "pipe.png"),
        lambda: load_video(tmp_path / "pipe.mp4"),
        lambda: load_video(frames, fps=1),
        lambda: load_video([tmp_path / "pipe.png"], fps=1),
        lambda: load_image("/dev/zero"),
        lambda: load_video("/dev/zero"),
    ]
    for read in reads:
        with pytest.raises(PixelReferError, match="no regular file|neither a file nor a folder|no pictures in it"):
            read()


def test_pages_of_a_tiff_are_not_counted_to_the_end(tmp_path):
    pages = [Image.new("L", (2, 2))] * 300
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ImageError, match=r"several pages \(100 frames or more\)"):
        load_image(tmp_path / "pages.tif")
    pages[0].save(tmp_path / "three.tif", save_all=True, append_images=pages[:2])
    with pytest.raises(ImageError, match=r"several pages \(3 frames\)"):
        image_hw(tmp_path / "three.tif")


def test_a_jpeg_of_very_many_scans_is_refused(tmp_path):
    path = _saved(tmp_path, "many.jpg", Image.new("RGB", (3000, 3000), "red"), progressive=True)
    content = path.read_bytes()
    start = content.rindex(b"\xff\xda")
    path.write_bytes(content[:start] + content[start:-2] * 500 + content[-2:])
    with pytest.raises(ImageError, match="takes too long to decode: 3000x3000 pixels are stored 5.. times over"):
        load_image(path)


@pytest.mark.parametrize("most", [300, 10**6])
def test_long_paths_are_shown_short(most):
    with pytest.raises(ImageError) as caught:
        load_image("data:image/png;base64," + "A" * most)
    assert len(str(caught.value)) < 500


# -- what a notebook shows ---------------------------------------------------------------------------------

SPECIMENS = {
    "Region(box (1, 2.5, 30, 40))": lambda: Region.from_box((1, 2.5, 30, 40)),
    "Region(polygon of 3 points, image_index=2)": lambda: Region.from_polygon([1, 2, 30, 4, 5, 60], image_index=2),
    "Region(polygon of 500 rings, 1,500 points)": lambda: Region.from_polygon([[1, 2, 30, 4, 5, 60]] * 500),
    "Region(points (3, 4), radius 10 px)": lambda: Region.from_points([(3, 4)]),
    "Region(scribble of 5,000 points, width 3 px)": lambda: Region.from_scribble([(3, 4)] * 5000, width_px=3),
    "Region(mask of 100,000,000 px in (0, 0, 10000, 10000) on 10000x10000)": lambda: Region.from_mask(
        np.ones((10**4, 10**4), bool)
    ),
    "Region(rle of 4 px on 3x2)": lambda: Region.from_rle({"size": [2, 3], "counts": [2, 4]}),
    "VideoRegion(box on 1 frame: 3)": lambda: VideoRegion({3: Region.from_box((1, 2, 3, 4))}),
    "VideoRegion(box/points on 200 frames: 0, 1, 2, ... 199, absent on 2, video_index=1)": lambda: VideoRegion(
        {index: Region.from_points([(1, 2)]) if index % 2 else Region.from_box((1, 2, 3, 4)) for index in range(200)},
        video_index=1,
        absent=(300, 301),
    ),
    "RegionMask(6 px in (1, 2, 4, 4) on 9x8)": lambda: Region.from_box((1, 2, 4, 4)).to_mask((8, 9)),
    "Video(4 of 100 frames, 20x10, 25 s: The array of frames)": lambda: load_video(
        np.zeros((100, 10, 20, 3), np.uint8), fps=4, sampling=FrameSampling(num_frames=4)
    ),
    "FrameSampling(num_frames=None, fps=2.0, max_frames=128)": lambda: FrameSampling(fps=2),
}


@pytest.mark.parametrize("expected", SPECIMENS)
def test_reprs_are_short_and_hold_no_pixels(expected):
    assert repr(SPECIMENS[expected]()) == expected
    assert len(expected) <= 120


# -- values of any type ------------------------------------------------------------------------------------


class Hostile:
    """Raises whatever is asked of it."""

    def _refuse(self, *arguments):
        raise RuntimeError("x" * 10_000)

    __len__ = __iter__ = __getitem__ = __array__ = __float__ = __int__ = __index__ = __bool__ = _refuse
    __contains__ = __eq__ = __lt__ = __gt__ = __le__ = __ge__ = __repr__ = __str__ = _refuse
    __hash__ = object.__hash__


def _nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


ODD = [
    None, True, 5, -1, 10**400, 10**5000, 1.5, float("nan"), float("inf"), 1e308, 2 + 1j, "", "1,2,3,4", "x" * 10**5,
    b"\xff" * 1000, bytearray(9), {}, {"x": 1}, {0: [1, 2, 3, 4, 5, 6]}, set(), {1, 2, 3, 4}, frozenset({(1, 2)}),
    [], [[]], [[[]]], [None] * 4, [1, 2, 3, None], ["1", "2", "3", "4"], [[1, 2], [3]], [(1, 2, 3)] * 3, [10**400] * 6,
    _nested(50), _nested(5000), (each for each in (1, 2)), range(4), range(10**4), object(), Hostile(), [Hostile()] * 4,
    lambda: 1, int, np.array(5), np.zeros((2, 2)), np.zeros((0, 4)), np.array([None, "x"]), np.array("text"),
    np.zeros((2, 2, 2), complex), np.array(["2020-01-01"] * 4, "datetime64[D]"), torch.zeros(3, 3), torch.zeros(()),
    torch.ones(4, requires_grad=True), torch.ones((3, 3), requires_grad=True), Image.new("RGB", (3, 3)), "\ud800",
    "a\0b",    [1, 2, 3, 4], [float("nan")] * 6, {"size": None, "counts": None}, {"size": [2, 2], "counts": Hostile()},
    {"size": [2, 2], "counts": [-1, 5]}, {"size": [2, 2], "counts": "\ud800"}, {"size": Hostile(), "counts": [4]},
    {"size": [10**400, 1], "counts": [1]}, {"size": [1, 10**9], "counts": [0, 10**9]}, {"size": [0, 4], "counts": []},
    {"size": [2, 2], "counts": "o" * 10**5}, {"size": [True, 2], "counts": [0, 2]}, {"size": "22", "counts": [0, 4]},
]  # fmt: skip

CONSTRUCTORS = {
    "mask": Region.from_mask,
    "box": Region.from_box,
    "polygon": Region.from_polygon,
    "points": Region.from_points,
    "radius": lambda value: Region.from_points([(1, 2)], radius_px=value),
    "scribble": Region.from_scribble,
    "width": lambda value: Region.from_scribble([(1, 2), (3, 4)], width_px=value),
    "rle": Region.from_rle,
    "image_index": lambda value: Region.from_box((1, 2, 3, 4), image_index=value),
    "kind": lambda value: Region(value, (1, 2, 3, 4)),
    "data of a box": lambda value: Region("box", value),
    "data of a mask": lambda value: Region("mask", value),
    "frames": VideoRegion,
    "frame": lambda value: VideoRegion({value: Region.from_box((1, 2, 3, 4))}),
    "region of a frame": lambda value: VideoRegion({0: value}),
    "video_index": lambda value: VideoRegion({0: Region.from_box((1, 2, 3, 4))}, video_index=value),
    "absent": lambda value: VideoRegion({0: Region.from_box((1, 2, 3, 4))}, absent=value),
    "thinned": lambda value: VideoRegion({0: Region.from_box((1, 2, 3, 4))}).thinned(value),
    "png": Region.from_png,
    "value": lambda value: Region.from_png("gone.png", value=value),
    "load_image": load_image,
    "image_hw": image_hw,
    "load_video": lambda value: load_video(value, fps=2),
    "frame_times": frame_times,
    "pictures": lambda value: load_video([value], fps=2),
    "fps": lambda value: load_video(np.zeros((2, 4, 4, 3), np.uint8), fps=value),
    "times_s": lambda value: load_video(np.zeros((2, 4, 4, 3), np.uint8), times_s=value),
    "named frames": lambda value: load_video(np.zeros((2, 4, 4, 3), np.uint8), fps=2, frames=value),
    "num_frames": lambda value: FrameSampling(num_frames=value),
    "sampled fps": lambda value: FrameSampling(fps=value),
    "max_frames": lambda value: FrameSampling(max_frames=value),
}


def test_only_the_number_of_frames_may_be_left_open():
    with pytest.raises(VideoError, match=r"FrameSampling\.max_frames must be an integer >= 1, got None"):
        FrameSampling(max_frames=None)
    assert FrameSampling(num_frames=None).num_frames == 16


@pytest.mark.parametrize("name", CONSTRUCTORS)
@pytest.mark.filterwarnings("ignore")  # NumPy's, of what it makes of them
def test_values_of_any_type_are_taken_or_refused_by_name(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for value in ODD:
        try:
            made = CONSTRUCTORS[name](value)
            if isinstance(made, Region):
                made.to_mask(IMAGE_HW)
        except TypeError as error:  # Python's own, of a key that cannot be hashed
            assert name == "frame"
            assert "unhashable" in str(error)  # noqa: PT017
        except PixelReferError as error:
            text = str(error)
            assert len(text) < 700
            assert "\n" not in text


@settings(deadline=None, max_examples=300)
@given(
    st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=4), st.lists, max_leaves=9)
)
def test_json_values_make_regions_or_are_refused(value):
    for name in ("box", "polygon", "points", "scribble", "rle", "mask", "frames"):
        try:
            made = CONSTRUCTORS[name](value)
            made.require_on(IMAGE_HW)
        except RegionError:
            pass
