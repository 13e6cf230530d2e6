"""`crops`: what is shown enlarged, and what is said of it."""

import numpy as np
import pytest
from conftest import picture, user
from PIL import Image
from pixelrefer_crops.config import CropsConfig
from pixelrefer_crops.pointer import CropsPointer
from pixelrefer_crops.windows import window_on, windows_through

from pixelrefer_plugin import ObjectMemory, PromptError, Region, get_adapter
from pixelrefer_plugin.authoring import PlacedRegion, PointedMedium, PointedRegion
from pixelrefer_plugin.media.video import load_video
from pixelrefer_plugin.testing import make_pair

HW = (200, 300)
PIXELS = picture(*HW)
BOX = Region.from_box((100, 50, 180, 90))


def placed(region, position=0, time_s=None, hw=HW):
    return PlacedRegion(region, region.to_mask(hw), position, time_s)


def point(media, regions, *, number=1, **options):
    media = media if hasattr(media, "frames_nhwc") else Image.fromarray(media)
    on = PointedMedium(media=media, number=number, has_others=False, coordinates=None)
    pointed = []
    for called, region in enumerate(regions, 1):
        frames = region if isinstance(region, dict) else {0: region}
        times_s = media.times_s if on.is_video else {0: None}
        places = tuple(placed(each, at, times_s[at], on.image_hw) for at, each in frames.items())
        pointed.append(PointedRegion(called, places))
    return CropsPointer(CropsConfig(**options)).point(on, pointed)


def shown(pointing, index=0):
    return np.asarray(pointing.beside[2 * index])


@pytest.mark.parametrize(
    ("region", "context", "expected"),
    [
        (BOX, 0.25, (80, 30, 200, 110)),
        (BOX, 0, (100, 50, 180, 90)),
        (Region.from_box((0, 0, 300, 200)), 1, (0, 0, 300, 200)),
        (Region.from_box((0, 0, 1, 1)), 0.25, (0, 0, 32, 32)),
        (Region.from_box((299, 199, 300, 200)), 0.25, (268, 168, 300, 200)),
        (Region.from_box((20, 100, 280, 101)), 0, (20, 84, 280, 117)),
        (Region.from_points([(150, 100)], radius_px=3), 0, (112, 62, 187, 137)),
    ],
    ids=["context", "none", "whole image", "first pixel", "last pixel", "thin", "click"],
)
def test_windows(region, context, expected):
    assert window_on(placed(region), context) == expected


@pytest.mark.parametrize("hw", [(1, 1), (5, 7), (20, 900), (900, 20)])
def test_pictures_of_any_size(hw):
    pointing = point(picture(*hw), [Region.from_box((0, 0, 1, 1)), Region.from_box((0, 0, hw[1], hw[0]))], min_px=64)
    assert [max(shown(pointing, index).shape[:2]) >= 64 for index in (0, 1)] == [True, True]


def test_words_and_numbers():
    pointing = point(PIXELS, [BOX, Region.from_box((250, 160, 299, 199))], number=3)
    assert pointing.words == (
        "region 1 (in the middle of picture 3, shown enlarged in picture 4)",
        "region 2 (at the lower right of picture 3, shown enlarged in picture 5)",
    )
    assert pointing.beside[1::2] == ("Picture 4 shows region 1 enlarged.\n", "Picture 5 shows region 2 enlarged.\n")
    assert pointing.media is None


def test_a_large_region_has_no_place_in_words():
    assert point(PIXELS, [Region.from_box((0, 0, 300, 200))]).words == ("region 1 (shown enlarged in picture 2)",)


def test_a_large_crop_is_the_pictures_own_pixels():
    assert (shown(point(PIXELS, [BOX], min_px=1)) == PIXELS[30:110, 80:200]).all()


def test_a_small_crop_is_enlarged_with_its_proportions():
    assert shown(point(PIXELS, [BOX], min_px=360)).shape == (240, 360, 3)


@pytest.mark.parametrize(("background", "outside"), [("keep", 1.0), ("dim", 0.35), ("remove", None)])
def test_backgrounds(background, outside):
    made = shown(point(PIXELS, [BOX], background=background, min_px=1))
    assert (made[20:60, 20:100] == PIXELS[50:90, 100:180]).all(), "the region itself"
    expected = 127 if outside is None else PIXELS[30:50, 80:200] * outside
    assert np.abs(made[:20].astype(float) - expected).max() <= 1


def test_a_hole_is_background():
    mask = np.zeros(HW, bool)
    mask[50:150, 100:200] = True
    mask[90:110, 140:160] = False
    made = shown(point(PIXELS, [Region.from_mask(mask)], background="remove", context=0, min_px=1))
    assert (made[45:55, 45:55] == 127).all()
    assert (made[:40] == PIXELS[50:90, 100:200]).all()


@pytest.mark.parametrize("region", [Region.from_points([(150, 100)]), Region.from_scribble([(90, 90), (150, 100)])])
def test_what_has_no_outline_keeps_its_background(region):
    kept, removed = (shown(point(PIXELS, [region], background=each)) for each in ("keep", "remove"))
    assert (kept == removed).all()


def test_the_picture_given_stays_as_it_is():
    pixels = PIXELS.copy()
    point(pixels, [BOX], background="remove")
    assert (pixels == PIXELS).all()


def test_too_many_regions():
    boxes = [Region.from_box((index, 0, index + 9, 9)) for index in range(3)]
    with pytest.raises(PromptError, match=r"3 regions on one picture need .* at most 2\. .* max_crops, .* 'marks'"):
        point(PIXELS, boxes, max_crops=2)
    assert len(point(PIXELS, boxes, max_crops=3).words) == 3


def test_a_window_follows_an_object():
    places = [
        placed(Region.from_box((100, 80, 140, 120)), 1),
        placed(Region.from_box((180, 80, 220, 100)), 5),
    ]
    windows = windows_through(places, 7, 0)
    assert {(x1 - x0, y1 - y0) for x0, y0, x1, y1 in windows} == {(40, 40)}
    assert [x0 for x0, *_ in windows] == [100, 100, 120, 140, 160, 180, 180]
    assert [y0 for _, y0, *_ in windows] == [80, 80, 78, 75, 72, 70, 70]


def test_a_window_stays_within_the_frames():
    places = [placed(Region.from_box((0, 0, 60, 20)), 0), placed(Region.from_box((280, 180, 300, 200)), 3)]
    for x0, y0, x1, y1 in windows_through(places, 4, 1):
        assert 0 <= x0 < x1 <= 300
        assert 0 <= y0 < y1 <= 200


def test_videos_are_as_long_and_timed_alike():
    video = load_video(np.stack([picture(*HW, seed=seed) for seed in range(5)]), fps=2.0)
    pointing = point(video, [{1: BOX, 3: BOX}], background="remove", min_px=1)
    crop, told = pointing.beside
    assert pointing.words == ("region 1 (shown enlarged in video 2)",)
    assert told == "Video 2 shows region 1 enlarged.\n"
    assert (crop.times_s, crop.frame_indices, crop.duration_s) == (video.times_s, video.frame_indices, video.duration_s)
    assert (crop.frames_nhwc[2] == video.frames_nhwc[2, 30:110, 80:200]).all(), "nothing is known there"
    assert (crop.frames_nhwc[1, 20:60, 20:100] == video.frames_nhwc[1, 50:90, 100:180]).all()
    assert (crop.frames_nhwc[1, :20] == 127).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"background": "blur"}, "CropsConfig.background must be one of keep, dim, remove, got 'blur'"),
        ({"context": -1}, "CropsConfig.context must be in"),
        ({"min_px": 0}, "CropsConfig.min_px must be in"),
        ({"max_crops": 0}, "CropsConfig.max_crops must be in"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        get_adapter("crops").make_config(options)


def test_pictures_count_on_through_a_conversation():
    pair = make_pair("crops", "llava_onevision")
    one, other = (Image.fromarray(picture(*HW, seed=seed)) for seed in (1, 2))
    asked = [user(one, "Is <region> like"), user(other, " <region> here?")]
    asked = [{"role": "user", "content": [*asked[0]["content"], *asked[1]["content"]]}]
    ids = pair.processor(asked, [BOX, Region.from_box((100, 50, 180, 90), image_index=1)])["input_ids"][0]
    text = pair.processor.tokenizer.decode(ids)
    assert "Picture 2 shows region 1 enlarged" in text
    assert "Picture 4 shows region 2 enlarged" in text
    assert "region 2 (in the middle of picture 3, shown enlarged in picture 4)" in text
    pair.model.detach()


def test_a_memory_lists_its_objects():
    pair = make_pair("crops", "qwen2_5_vl")
    memory = ObjectMemory(Image.fromarray(PIXELS))
    memory.add(BOX, id=7)
    ids = pair.processor([user(Image.fromarray(PIXELS), "What is [7]?")], memory=memory)["input_ids"][0]
    text = pair.processor.tokenizer.decode(ids)
    assert "[7]: region 7 (in the middle of picture 1, shown enlarged in picture 2)" in text
    assert "Picture 2 shows region 7 enlarged" in text
    pair.model.detach()
