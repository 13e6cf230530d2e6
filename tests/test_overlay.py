"""Overlays: what is drawn where, in which colours, for how long; and files that are whole or not there."""

from itertools import pairwise

import av
import numpy as np
import pytest
from conftest import picture
from PIL import Image
from videos import grey_frames, write_video

from pixelrefer_plugin import (
    FrameSampling,
    PixelReferError,
    Region,
    RegionError,
    VideoRegion,
    load_image,
    load_video,
    overlay,
)
from pixelrefer_plugin.overlay import COLOURS_RGB, draw_regions, require_overlay_path, save_overlay

BOX = Region.from_box((10, 20, 60, 50))
HW = (90, 120)


def grey(hw=HW, level=128):
    return Image.new("RGB", hw[::-1], (level, level, level))


def drawn(regions, hw=HW, **options):
    """Regions on a grey picture, as an array; None for one that is not on it."""
    masks = [region and region.to_mask(hw) for region in regions]
    labels = [str(number) for number in range(1, len(masks) + 1)]
    return np.asarray(draw_regions(grey(hw), masks, labels=labels, **options))


def count(pixels, colour):
    return int((pixels == colour).all(axis=-1).sum())


def near(pixels, region, distance):
    """Which pixels are inside a region's box, or that near to it."""
    x0, y0, x1, y1 = region.to_mask(pixels.shape[:2]).box_xyxy
    inside = np.zeros(pixels.shape[:2], bool)
    inside[max(0, y0 - distance) : y1 + distance, max(0, x0 - distance) : x1 + distance] = True
    return inside


# -- drawing -----------------------------------------------------------------------------------------------


def test_only_the_region_its_outline_and_its_label_change():
    pixels = drawn([BOX])
    changed = (pixels != 128).any(axis=-1)
    assert changed[20:50, 10:60].all()
    assert not changed[~near(pixels, BOX, 16)].any()
    assert len(np.unique(pixels[21:49, 11:59].reshape(-1, 3), axis=0)) == 1  # tinted evenly


def test_what_is_under_a_tint_stays_visible():
    photo = Image.fromarray(picture(*HW))
    tinted = np.asarray(draw_regions(photo, [BOX.to_mask(HW)], labels=["1"]))[25:45, 15:55]
    before = np.asarray(photo)[25:45, 15:55]
    for channel in range(3):
        assert np.corrcoef(tinted[..., channel].ravel(), before[..., channel].ravel())[0, 1] > 0.99


def test_the_picture_given_is_left_as_it_is():
    given = grey()
    draw_regions(given, [BOX.to_mask(HW)], labels=["1"])
    assert (np.asarray(given) == 128).all()


def test_each_object_has_a_colour_of_its_own():
    boxes = [Region.from_box((x, y, x + 20, y + 20)) for y in (20, 60, 100) for x in (10, 60, 110)]
    pixels = drawn(boxes[:7], hw=(130, 150))
    assert all(count(pixels, colour) > 20 for colour in COLOURS_RGB)
    assert len(set(COLOURS_RGB)) == 7
    eight = drawn(boxes[:8], hw=(130, 150))
    assert count(eight, COLOURS_RGB[0]) > count(pixels, COLOURS_RGB[0])


def test_an_absent_object_keeps_its_colour():
    pixels = drawn([None, BOX])
    assert count(pixels, COLOURS_RGB[0]) == 0
    assert count(pixels, COLOURS_RGB[1]) > 20


def test_without_regions_nothing_is_drawn():
    assert (drawn([]) == 128).all()
    assert (drawn([None, None]) == 128).all()


@pytest.mark.parametrize("hw", [(12, 12), (28, 40), (31, 500), (400, 30), (1080, 1920)], ids=str)
@pytest.mark.parametrize(
    "box", [(0, 0, 1, 1), (0.4, 0.4, 0.6, 0.6), (0, 0, 0.1, 0.1), (0.9, 0.9, 1, 1)],
    ids=["whole picture", "middle", "first corner", "last corner"],
)  # fmt: skip
def test_outline_and_label_show_on_any_size(hw, box):
    region = Region.from_box(np.array(box) * [hw[1], hw[0], hw[1], hw[0]])
    pixels = drawn([region], hw=hw)
    assert pixels.shape == (*hw, 3)
    assert count(pixels, COLOURS_RGB[0]) >= 20
    assert count(pixels, (0, 0, 0)) >= 10


def test_a_single_pixel_is_outlined():
    pixels = drawn([Region.from_box((80, 60, 81, 61))])
    assert count(pixels[58:64, 78:84], COLOURS_RGB[0]) >= 4


def test_lines_grow_with_the_picture():
    widths = []
    for scale in (1, 10):
        hw = (90 * scale, 120 * scale)
        column = drawn([Region.from_box([10 * scale, 20 * scale, 60 * scale, 50 * scale])], hw=hw)[:, 55 * scale]
        widths.append((column == COLOURS_RGB[0]).all(axis=-1).sum())
    assert widths == [2, 8]


def test_labels_do_not_cover_each_other():
    alone = count(drawn([BOX]), COLOURS_RGB[0])
    together = drawn([BOX, BOX, BOX])
    outline = 2 * (50 + 30)
    assert count(together, COLOURS_RGB[0]) == pytest.approx(alone - outline, abs=outline / 4)
    assert count(together, COLOURS_RGB[1]) > 40


def test_a_label_leaves_a_small_object_free():
    corner = Region.from_box((0, 0, 8, 8))
    pixels = drawn([corner])
    assert len(np.unique(pixels[:8, :8].reshape(-1, 3), axis=0)) == 1


# -- pictures ----------------------------------------------------------------------------------------------


def test_a_png_holds_what_draw_regions_draws(tmp_path):
    photo = Image.fromarray(picture(*HW))
    save_overlay(tmp_path / "a.png", photo, [BOX])
    expected = draw_regions(photo, [BOX.to_mask(HW)], labels=["1"])
    assert np.array_equal(load_image(tmp_path / "a.png"), expected)


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.PNG"])
def test_pictures_are_written_by_suffix(tmp_path, name):
    save_overlay(tmp_path / name, grey(), [BOX])
    with Image.open(tmp_path / name) as saved:
        assert saved.format == ("PNG" if name.lower().endswith("png") else "JPEG")
        assert saved.size == (120, 90)


def test_labels_are_numbers_unless_they_are_given(tmp_path):
    save_overlay(tmp_path / "numbers.png", grey(), [BOX])
    save_overlay(tmp_path / "one.png", grey(), [BOX], labels=["1"])
    save_overlay(tmp_path / "cat.png", grey(), [BOX], labels=["cat"])
    numbers, one, cat = ((tmp_path / f"{name}.png").read_bytes() for name in ("numbers", "one", "cat"))
    assert numbers == one != cat


# -- videos ------------------------------------------------------------------------------------------------


@pytest.fixture
def video():
    """Five frames of odd size; the second and the third follow each other faster than people see."""
    return load_video(grey_frames(5, hw=(61, 85)), times_s=[0, 1, 1.05, 2, 3.5])


REGIONS = [VideoRegion({1: Region.from_box((5, 20, 60, 50)), 3: Region.from_box((20, 20, 80, 60))})]
DURATIONS_S = [1.0, 0.2, 0.95, 1.5, 1.5]


def packets(path):
    """Start and duration of each frame of a video, in seconds."""
    with av.open(str(path)) as container:
        found = [packet for packet in container.demux(video=0) if packet.size]
        return sorted((float(p.pts * p.time_base), float(p.duration * p.time_base)) for p in found)


@pytest.mark.parametrize("encoders", [("libx264", "mpeg4"), ("mpeg4",)], ids=["best", "always there"])
def test_an_mp4_shows_each_frame_for_its_time(tmp_path, video, monkeypatch, encoders):
    monkeypatch.setattr(overlay, "_ENCODERS", encoders)
    save_overlay(tmp_path / "a.mp4", video, REGIONS)
    starts, durations = zip(*packets(tmp_path / "a.mp4"), strict=True)
    assert durations == pytest.approx(DURATIONS_S, abs=2e-3)
    assert [after - before for before, after in pairwise(starts)] == pytest.approx(DURATIONS_S[:-1], abs=2e-3)
    again = load_video(tmp_path / "a.mp4")
    assert again.image_hw == (62, 86)
    assert again.duration_s == pytest.approx(sum(DURATIONS_S), abs=2e-3)


@pytest.mark.parametrize("suffix", ["mp4", "gif"])
def test_regions_are_drawn_on_their_frames_only(tmp_path, video, suffix):
    save_overlay(tmp_path / f"a.{suffix}", video, REGIONS)
    again = load_video(tmp_path / f"a.{suffix}").frames_nhwc[:, :61, :85].astype(int)
    spread = np.ptp(again, axis=(1, 2, 3))
    assert spread[[1, 3]].min() > 80
    assert spread[[0, 2, 4]].max() < 10
    assert again[[0, 2, 4]].mean(axis=(1, 2, 3)) == pytest.approx([10, 22, 34], abs=3)


def test_a_gif_shows_each_frame_for_its_time_and_repeats(tmp_path, video):
    save_overlay(tmp_path / "a.GIF", video, REGIONS)
    with Image.open(tmp_path / "a.GIF") as saved:
        assert (saved.n_frames, saved.size, saved.info["loop"]) == (5, (85, 61), 0)
        durations = []
        for index in range(5):
            saved.seek(index)
            durations.append(saved.info["duration"] / 1000)
    assert durations == DURATIONS_S


@pytest.mark.parametrize("suffix", ["mp4", "gif"])
def test_a_video_of_one_frame(tmp_path, suffix):
    one = load_video(grey_frames(1), fps=2)
    save_overlay(tmp_path / f"a.{suffix}", one, [VideoRegion({0: Region.from_box((5, 5, 20, 20))})])
    again = load_image(tmp_path / "a.gif") if suffix == "gif" else load_video(tmp_path / "a.mp4").picture(0)
    assert again.size == (64, 48)
    assert np.ptp(np.asarray(again)) > 80


def test_an_overlay_of_the_sampled_frames_of_a_file(tmp_path):
    sampled = load_video(write_video(tmp_path / "v.mp4", 30, fps=10), sampling=FrameSampling(num_frames=4))
    save_overlay(tmp_path / "a.mp4", sampled, [])
    starts = [start for start, _ in packets(tmp_path / "a.mp4")]
    assert starts == pytest.approx(sampled.times_s, abs=2e-3)


# -- files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "is_video", "message"),
    [
        ("a.mp4", False, "An overlay of a picture is a file of type .png or .jpg or .jpeg, got '.*a.mp4'"),
        ("a.webm", True, "An overlay of a video is a file of type .mp4 or .gif, got '.*a.webm'"),
        ("a.png", True, "An overlay of a video is a file of type .mp4 or .gif, got"),
        ("a", False, "An overlay of a picture is a file of type"),
        ("gone/a.png", False, "cannot be written: there is no folder '.*gone'"),
    ],
)
def test_paths_that_cannot_be(tmp_path, name, is_video, message):
    with pytest.raises(PixelReferError, match=message):
        require_overlay_path(tmp_path / name, is_video=is_video)


def test_a_path_that_fits(tmp_path):
    assert require_overlay_path(str(tmp_path / "a.mp4"), is_video=True) == tmp_path / "a.mp4"


def test_what_fails_leaves_the_earlier_file_and_nothing_else(tmp_path, video):
    target = tmp_path / "a.mp4"
    target.write_bytes(b"precious")
    with pytest.raises(RegionError, match="outside its image"):
        save_overlay(target, video, [VideoRegion({3: Region.from_box((0, 0, 900, 9))})])
    assert target.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [target]


def test_an_earlier_overlay_is_replaced(tmp_path):
    save_overlay(tmp_path / "a.png", grey(), [BOX])
    save_overlay(tmp_path / "a.png", grey(), [])
    assert (np.asarray(load_image(tmp_path / "a.png")) == 128).all()
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(PixelReferError, match=r"a\.png' cannot be written: it is a folder"):
        save_overlay(tmp_path / "a.png", grey(), [BOX])


# -- what the processor takes ------------------------------------------------------------------------------

SCENE = np.random.default_rng(3).integers(0, 256, (48, 64, 3), dtype=np.uint8)
PART = Region.from_box((10, 8, 30, 30))


def picture_sources(folder):
    Image.fromarray(SCENE).save(folder / "scene.png")
    return {
        "Path": folder / "scene.png",
        "str": str(folder / "scene.png"),
        "PIL": Image.fromarray(SCENE),
        "RGBA": Image.fromarray(SCENE).convert("RGBA"),
        "array": SCENE,
    }


@pytest.mark.parametrize("kind", ["Path", "str", "PIL", "RGBA", "array"])
def test_overlays_of_each_kind_of_picture(tmp_path, kind):
    source = picture_sources(tmp_path)[kind]
    save_overlay(tmp_path / "expected.png", Image.fromarray(SCENE), [PART])
    save_overlay(tmp_path / "got.png", source, [PART])
    assert (tmp_path / "got.png").read_bytes() == (tmp_path / "expected.png").read_bytes()


def test_overlays_of_grey_and_turned_pictures(tmp_path):
    save_overlay(tmp_path / "grey.png", SCENE[..., 0], [PART])
    turned = Image.fromarray(SCENE)
    turned.getexif()[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=turned.getexif())
    save_overlay(tmp_path / "upright.png", tmp_path / "turned.jpg", [Region.from_box((1, 1, 40, 60))])
    with Image.open(tmp_path / "upright.png") as drawn_picture:
        assert drawn_picture.size == (48, 64)


@pytest.mark.parametrize("kind", ["file", "folder", "list", "array", "Video"])
def test_overlays_of_each_kind_of_video(tmp_path, kind):
    frames = grey_frames(8)
    (tmp_path / "frames").mkdir()
    for index, pixels in enumerate(frames):
        Image.fromarray(pixels).save(tmp_path / "frames" / f"{index}.png")
    pictures = [tmp_path / "frames" / f"{index}.png" for index in range(8)]
    sources = {
        "file": lambda: write_video(tmp_path / "a.mp4", 8),
        "folder": lambda: str(tmp_path / "frames"),
        "list": lambda: pictures,
        "array": lambda: frames,
        "Video": lambda: load_video(frames, fps=4, sampling=FrameSampling(num_frames=3), frames=[5]),
    }
    times = {} if kind in ("file", "Video") else {"fps": 4}
    sampling = FrameSampling(num_frames=3)
    save_overlay(tmp_path / "o.gif", sources[kind](), [{5: PART}, PART], sampling=sampling, **times)
    with Image.open(tmp_path / "o.gif") as moving:
        assert moving.n_frames == 3


@pytest.mark.parametrize(
    ("media", "regions", "options", "message"),
    [
        (SCENE, [None], {}, "Region 0: expected a Region"),
        (SCENE, [PART, "box"], {}, "Region 1: expected a Region, or .* got 'box'"),
        (SCENE, [VideoRegion({0: PART})], {}, "lies on a frame of a video, but what is drawn is a picture"),
        (SCENE, [PART], {"labels": [1]}, "labels of save_overlay must be texts, got 1"),
        (SCENE, [PART], {"labels": []}, "needs a label for each region, 1, got 0"),
        ("gone.png", [PART], {}, r"Image 'gone\.png' cannot be read: No such file"),
        (None, [PART], {}, "must be a file path, a PIL image or a numpy array, got NoneType"),
        (5, [PART], {}, "must be a file path, a PIL image or a numpy array, got int"),
        (b"scene", [PART], {}, "must be a file path, a PIL image or a numpy array, got bytes"),
    ],
)
def test_overlays_of_nothing_that_can_be_drawn(tmp_path, media, regions, options, message):
    with pytest.raises(PixelReferError, match=message):
        save_overlay(tmp_path / "o.png", media, regions, **options)
    assert not list(tmp_path.iterdir())
