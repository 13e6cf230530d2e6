"""`marks`: what is drawn, where, and what is said of it."""

import logging

import numpy as np
import pytest
from conftest import user
from PIL import Image
from pixelrefer_marks.config import STYLES, MarksConfig
from pixelrefer_marks.palette import COLOURS, choose_colours
from pixelrefer_marks.plates import place_plates
from pixelrefer_marks.pointer import MarksPointer

from pixelrefer_plugin import ObjectMemory, PromptError, Region, VideoRegion, get_adapter
from pixelrefer_plugin.authoring import PlacedRegion, PointedMedium, PointedRegion
from pixelrefer_plugin.media.video import load_video
from pixelrefer_plugin.testing import make_pair

RGB = {colour.name: colour.rgb for colour in COLOURS}
GREY = np.full((200, 300, 3), 128, np.uint8)
BOX = Region.from_box((60, 50, 160, 150))


def placed(region, hw, position=0, time_s=None):
    return PlacedRegion(region, region.to_mask(hw), position, time_s)


def point(media, regions, *, number=1, has_others=False, coordinates=None, **options):
    media = media if hasattr(media, "frames_nhwc") else Image.fromarray(media)
    on = PointedMedium(media=media, number=number, has_others=has_others, coordinates=coordinates)
    pointed = []
    for called, region in enumerate(regions, 1):
        frames = region if isinstance(region, dict) else {0: region}
        times_s = media.times_s if on.is_video else {0: None}
        places = tuple(placed(each, on.image_hw, at, times_s[at]) for at, each in frames.items())
        pointed.append(PointedRegion(called, places))
    return MarksPointer(MarksConfig(**options)).point(on, pointed)


def drawn(pointing):
    return np.asarray(pointing.media)


def where(pixels, name):
    return (pixels == RGB[name]).all(axis=-1)


def colour_told(words):
    return next(name for name in RGB if f" {name}" in words)


@pytest.mark.parametrize(
    ("style", "words"),
    [
        ("outline", "region 1 (outlined in red)"),
        ("tint", "region 1 (tinted red)"),
        ("both", "region 1 (outlined and tinted in red)"),
        ("box", "region 1 (in the red box)"),
    ],
)
def test_words_of_each_style(style, words):
    assert point(GREY, [BOX], style=style).words == (words,)


@pytest.mark.parametrize("style", STYLES)
def test_only_the_mark_changes(style):
    made = drawn(point(GREY, [BOX], style=style, numbers=False))
    changed = (made != GREY).any(axis=-1)
    near = np.zeros(changed.shape, bool)
    near[44:156, 54:166] = True
    assert changed.any()
    assert not (changed & ~near).any()
    assert changed[100, 110] == (style in ("tint", "both"))


def test_the_picture_given_stays_as_it_is():
    pixels = GREY.copy()
    picture = Image.fromarray(pixels)
    on = PointedMedium(media=picture, number=1, has_others=False, coordinates=None)
    made = MarksPointer(MarksConfig(style="both")).point(on, [PointedRegion(1, (placed(BOX, (200, 300)),))])
    assert (np.asarray(picture) == 128).all()
    assert made.media.size == picture.size
    assert made.media.mode == "RGB"


def test_an_outline_lies_around_its_region():
    made = where(drawn(point(GREY, [BOX], numbers=False)), "red")
    assert made[100, 59]
    assert made[49, 100]
    assert made[100, 160]
    assert not made[50:150, 60:160].any()


def test_a_tint_is_as_opaque_as_it_is_said():
    made = drawn(point(GREY, [BOX], style="tint", opacity=0.25, numbers=False))
    assert made[100, 100] == pytest.approx(0.75 * 128 + 0.25 * np.array(RGB["red"]), abs=1)


def test_a_hole_is_outlined_and_not_tinted():
    mask = np.zeros((200, 300), bool)
    mask[40:160, 60:220] = True
    mask[80:120, 110:170] = False
    made = drawn(point(GREY, [Region.from_mask(mask)], style="both", numbers=False))
    assert where(made, "red")[80, 140]
    assert (made[100, 140] == 128).all()


def test_gaps_that_a_line_would_fill_stay_to_be_seen():
    """As between the spokes of a wheel; what lies around the object is outlined all the same."""
    mask = np.zeros((200, 300), bool)
    mask[40:160, 60:220:5] = mask[40:160, 61:220:5] = True
    made = drawn(point(GREY, [Region.from_mask(mask)], numbers=False))
    assert (made[50:150, 65:210] == 128).all()
    assert where(made, "red")[100, 58]


@pytest.mark.parametrize(
    "region",
    [
        Region.from_box((0, 0, 300, 200)),
        Region.from_box((0, 0, 1, 1)),
        Region.from_box((299, 199, 300, 200)),
        Region.from_points([(299.5, 0.5)]),
    ],
    ids=["whole image", "first pixel", "last pixel", "click in a corner"],
)
@pytest.mark.parametrize("style", ["outline", "box"])
def test_marks_at_the_border_are_seen(region, style):
    assert where(drawn(point(GREY, [region], style=style, numbers=False)), "red").sum() > 8


@pytest.mark.parametrize("name", ["red", "blue", "yellow", "green"])
def test_the_colour_told_is_drawn_and_is_not_the_pictures(name):
    pixels = np.full((120, 160, 3), RGB[name], np.uint8)
    pointing = point(pixels, [Region.from_box((30, 30, 90, 90))], numbers=False)
    told = colour_told(pointing.words[0])
    assert told != name
    assert where(drawn(pointing), told).sum() > 100


def test_each_region_has_its_colour_until_they_are_used_up():
    boxes = [Region.from_box((10 + 30 * index, 20, 30 + 30 * index, 60)) for index in range(9)]
    pointing = point(GREY, boxes)
    names = [colour_told(words) for words in pointing.words]
    assert sorted(names[:8]) == sorted(RGB)
    assert names[8] != names[7]
    for name in names:
        assert where(drawn(pointing), name).any()


def test_a_further_region_changes_no_colour():
    boxes = [Region.from_box((10 + 30 * index, 20, 30 + 30 * index, 60)) for index in range(5)]
    assert point(GREY, boxes[:3]).words == point(GREY, boxes).words[:3]


def test_neighbours_differ_where_colours_return():
    pixels = [np.full((4, 3), 128, np.uint8)] * 12
    near = [set() for _ in range(11)] + [{0, 8, 9}]
    chosen = choose_colours(pixels, near)
    assert chosen[11] not in (chosen[0], chosen[8], chosen[9])


def test_more_regions_than_colours_need_numbers():
    boxes = [Region.from_box((index, 0, index + 9, 9)) for index in range(9)]
    with pytest.raises(PromptError, match=r"9 regions on one picture .* 8 colours\. Set the option numbers=true"):
        point(GREY, boxes, numbers=False)


def test_a_small_region_lies_over_a_large_one():
    large, small = Region.from_box((20, 20, 280, 180)), Region.from_box((100, 60, 160, 120))
    for order in ([large, small], [small, large]):
        pointing = point(GREY, order, style="tint", opacity=1, numbers=False)
        told = dict(zip(order, map(colour_told, pointing.words), strict=True))
        made = drawn(pointing)
        assert tuple(made[90, 130]) == RGB[told[small]]
        assert tuple(made[30, 30]) == RGB[told[large]]


def test_equal_regions_have_outlines_side_by_side():
    for box in (BOX, Region.from_box((0, 0, 300, 200))):
        made = drawn(point(GREY, [box, box, box], numbers=False))
        counts = [where(made, name).sum() for name in ("red", "blue", "yellow")]
        assert min(counts) > 400


def test_a_number_lies_where_its_mask_is_thickest():
    mask = np.zeros((200, 300), bool)
    mask[90:110, 20:280] = True
    mask[20:180, 180:280] = True
    (box,) = place_plates([Region.from_mask(mask).to_mask((200, 300))], [(16, 20)], fills=[True], gap_px=3)
    assert mask[box[1] : box[3], box[0] : box[2]].all()
    assert 200 < (box[0] + box[2]) / 2 < 260


def test_numbers_of_small_regions_lie_beside_them_and_on_the_picture():
    corners = [(0, 0), (290, 0), (0, 190), (290, 190), (150, 100), (152, 102)]
    masks = [Region.from_box((x, y, x + 10, y + 10)).to_mask((200, 300)) for x, y in corners]
    boxes = place_plates(masks, [(18, 22)] * 6, fills=[True] * 6, gap_px=3)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        assert 0 <= x0 < x1 <= 300
        assert 0 <= y0 < y1 <= 200
        left, top, right, bottom = mask.box_xyxy
        assert x1 <= left or x0 >= right or y1 <= top or y0 >= bottom, "on its region"
    covered = np.zeros((200, 300), int)
    for x0, y0, x1, y1 in boxes:
        covered[y0:y1, x0:x1] += 1
    assert covered.max() == 1, "one number on another"


def test_numbers_can_be_told_apart():
    one, two = (drawn(point(GREY, [BOX] * count))[..., 0] for count in (1, 2))
    assert (one != two).any()
    assert (drawn(point(GREY, [BOX])) != drawn(point(GREY, [BOX], numbers=False))).any()


def test_without_numbers_words_name_the_colour_alone():
    assert point(GREY, [BOX], numbers=False).words == ("the region outlined in red",)


def test_a_tiny_region_grows_and_that_is_said_once():
    tiny = [Region.from_box((150 + index, 100, 151 + index, 101)) for index in range(2)]
    pointing = point(GREY, tiny, numbers=False)
    assert len(pointing.notes) == 1
    assert "too small" in pointing.notes[0]
    rows, columns = np.nonzero(where(drawn(pointing), "red"))
    assert np.ptp(rows) >= 4
    assert np.ptp(columns) >= 4
    assert not point(GREY, [BOX]).notes


def test_a_thin_region_grows_where_it_is_tinted_only():
    wire = Region.from_box((20, 100, 280, 101))
    assert point(GREY, [wire], style="tint").notes
    assert not point(GREY, [wire], style="outline").notes


@pytest.mark.parametrize(
    ("points", "words"),
    [([(100, 80)], "region 1 (marked by a red dot)"), ([(100, 80), (200, 80)], "region 1 (marked by red dots)")],
)
def test_clicks_are_dots(points, words):
    pointing = point(GREY, [Region.from_points(points)])
    assert pointing.words == (words,)
    assert all(where(drawn(pointing), "red")[y, x] for x, y in points)
    assert not pointing.notes


@pytest.mark.parametrize("hw", [(1, 1), (5, 5), (10, 16), (100, 100), (20, 900), (900, 20)])
def test_pictures_of_any_size_stay_as_large(hw):
    pixels = np.full((*hw, 3), 90, np.uint8)
    regions = [Region.from_box((0, 0, max(1, hw[1] // 2), max(1, hw[0] // 2))), Region.from_box((0, 0, hw[1], hw[0]))]
    for style in STYLES:
        assert drawn(point(pixels, regions, style=style)).shape == pixels.shape


def test_lines_and_numbers_grow_with_the_picture():
    heights = []
    for scale in (1, 4):
        pixels = np.full((400 * scale, 400 * scale, 3), 128, np.uint8)
        box = Region.from_box((100 * scale, 100 * scale, 300 * scale, 300 * scale))
        plain, made = (where(drawn(point(pixels, [box], numbers=numbers)), "red") for numbers in (False, True))
        heights.append(np.ptp(np.nonzero(made & ~plain)[0]))
    assert 3 < heights[1] / heights[0] < 5


@pytest.mark.parametrize(
    ("unmarked", "has_others", "words"),
    [
        ("no", True, "region 1 (outlined in red in picture 2)"),
        ("after", False, "region 1 (outlined in red in picture 2)"),
        ("before", False, "region 1 (outlined in red in picture 3)"),
    ],
)
def test_words_name_the_picture_where_there_are_several(unmarked, has_others, words):
    assert point(GREY, [BOX], number=2, has_others=has_others, unmarked=unmarked).words == (words,)


def test_the_unmarked_picture_is_shown_besides():
    after, before = (point(GREY, [BOX], unmarked=side) for side in ("after", "before"))
    assert (np.asarray(after.beside[0]) == 128).all()
    assert after.beside[1] == "Picture 2 is picture 1 without the marks.\n"
    assert before.media is None
    assert (np.asarray(before.beside[0]) == drawn(after)).all()
    assert before.beside[1] == "Picture 2 is picture 1 with marks on it.\n"


def a_video(count=5):
    return load_video([Image.fromarray(GREY)] * count, fps=2.0)


def test_frames_of_a_region_are_marked_and_told():
    video = a_video()
    pointing = point(video, [{1: BOX, 3: BOX}, {2: BOX}, dict.fromkeys(range(5), BOX)])
    assert pointing.words == (
        "region 1 (outlined in red on 2 frames from 0.5 to 1.5 seconds)",
        "region 2 (outlined in blue on the frame at 1.0 seconds)",
        "region 3 (outlined in yellow)",
    )
    frames = pointing.media.frames_nhwc
    marked = [[where(frame, name).any() for name in ("red", "blue", "yellow")] for frame in frames]
    assert [tuple(each) for each in marked] == [(0, 0, 1), (1, 0, 1), (0, 1, 1), (1, 0, 1), (0, 0, 1)]
    assert (video.frames_nhwc == 128).all()
    assert pointing.media.times_s == video.times_s


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"style": "glow"}, "MarksConfig.style must be one of outline, tint, both, box, got 'glow'"),
        ({"opacity": 0}, r"MarksConfig.opacity must be in \(0, 1\], got 0"),
        ({"numbers": 1}, "MarksConfig.numbers must be true or false, got 1"),
        ({"unmarked": True}, "MarksConfig.unmarked must be one of no, before, after"),
        ({"line_width": 3}, "MarksConfig.line_width must be in"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        get_adapter("marks").make_config(options)


def test_a_conversation_with_a_memory_and_a_video(caplog):
    pair = make_pair("marks", "qwen2_5_vl")
    picture = Image.fromarray(GREY)
    memory = ObjectMemory(picture)
    memory.add(BOX, id=7)
    ids = pair.processor([user(picture, "What is [7]?")], memory=memory)["input_ids"][0]
    assert "[7]: region 7 (outlined in red)" in pair.processor.tokenizer.decode(ids)
    clip = {"type": "video", "video": [picture] * 4, "fps": 2}
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            pair.processor([user(clip, "And <region>?")], [VideoRegion({1: Region.from_box((3, 3, 4, 4))})])
    assert sum("too small" in record.message for record in caplog.records) == 1
    pair.model.detach()
