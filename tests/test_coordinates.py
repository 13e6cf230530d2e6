"""Adapter `coordinates`: the words that stand for a region, on each backbone by its own convention and without one."""

import logging
from dataclasses import replace

import numpy as np
import pytest
from conftest import picture, user
from PIL import Image

from pixelrefer_plugin import (
    FrameSampling,
    PixelReferError,
    PluginError,
    PromptError,
    Region,
    RegionProcessor,
    VideoRegion,
)
from pixelrefer_plugin.authoring import Coordinates, PlacedRegion, PointedMedium, PointedRegion, SaidCoordinates
from pixelrefer_plugin.media.video import load_video
from pixelrefer_plugin.plugins import get_adapter, get_backbone

BOX, CLICKS = Region.from_box((8, 8, 40, 30)), Region.from_points([(20, 20), (50, 28)], radius_px=4)
PHOTO = picture(56, 84)
FRAMES = np.stack([picture(56, 84, seed=index) for index in range(20)])
CLIP = {"type": "video", "video": FRAMES, "fps": 4.0}
EXPLAINED = (
    "An object is named by its box, [left, top, right, bottom], or by points on it, (x, y). They count {} of the "
    "width and height of the picture, from its upper left corner.\n"
)


@pytest.fixture(scope="module")
def processors():
    """A processor of each backbone, made once."""
    made = {}

    def processor_of(backbone, **options):
        key = (backbone, *sorted(options.items()))
        if key not in made:
            model, native = get_backbone(backbone).tiny(0)
            made[key] = RegionProcessor(native, model.config, adapter="coordinates", adapter_config=options)
        return made[key]

    return processor_of


def told(processor, conversation, regions, **options):
    """The last user's text as the model reads it, without its pictures."""
    ids = processor(conversation, regions, **options)["input_ids"][0]
    text = processor.tokenizer.decode(ids).rpartition("<|im_start|>user")[2].partition("<|im_end|>")[0]
    for token in ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>", "<image>", "<video>"):
        text = text.replace(token, "")
    return text.strip()


# -- each backbone's own convention ------------------------------------------------------------------------

# The tiny Qwen2.5-VL makes 56x84 pixels of 56x84; VideoLLaMA3 counts thousandths of 84 and 56, rounded down;
# LLaVA-OneVision pads the picture to 84x84, so that y = 8 becomes (8 + 14) / 84.
OF_BOX = {
    "qwen2_5_vl": '{"bbox_2d": [8, 8, 40, 30]}',
    "videollama3": "[95, 142, 476, 535]",
    "llava_onevision": "[0.1, 0.26, 0.48, 0.52]",
}
OF_CLICKS = {
    "qwen2_5_vl": '{"point_2d": [20, 20]} and {"point_2d": [50, 28]}',
    "videollama3": "[190, 285, 642, 571]",  # without a convention for points the box of what is near them
    "llava_onevision": "[0.19, 0.36, 0.64, 0.55]",
}


@pytest.mark.parametrize("backbone", OF_BOX)
def test_boxes_and_clicks_are_said_as_the_backbone_reads_them(processors, backbone):
    processor = processors(backbone)
    asked = user(PHOTO, "what is <region> doing?")
    assert told(processor, [asked], [BOX]) == f"what is {OF_BOX[backbone]} doing?"
    assert told(processor, [asked], [CLICKS]) == f"what is {OF_CLICKS[backbone]} doing?"


def test_the_example_of_the_authors_of_videollama3():
    """Their notebook asks about (150, 50, 530, 300) of a photograph of 640x424 as [234, 117, 828, 707]."""
    said = SaidCoordinates(get_backbone("videollama3").coordinates, (424, 640), (424, 640))
    assert said.box((150, 50, 530, 300)) == "[234, 117, 828, 707]"
    assert said.point(1, 2) is None
    assert said.frame(number=1, time_s=0.5) is None


def test_llava_counts_on_the_picture_padded_to_a_square():
    convention = get_backbone("llava_onevision").coordinates
    wide, tall = (SaidCoordinates(convention, hw, hw) for hw in ((100, 200), (200, 100)))
    assert wide.box((0, 0, 200, 100)) == "[0.0, 0.25, 1.0, 0.75]"
    assert tall.box((0, 0, 100, 200)) == "[0.25, 0.0, 0.75, 1.0]"
    assert wide.box((40, 30, 100, 80)) == "[0.2, 0.4, 0.5, 0.65]"


@pytest.mark.parametrize(
    ("region", "box"),
    {
        "a box as it was drawn": (Region.from_box((8.4, 8.6, 40.4, 30)), (8, 9, 40, 30)),
        "a mask": (Region.from_mask(np.pad(np.ones((10, 20)), ((6, 40), (4, 60)))), (4, 6, 24, 16)),
        "a polygon": (Region.from_polygon([10, 10, 30, 10, 30, 40, 10, 40]), (10, 10, 30, 40)),
        "a scribble": (Region.from_scribble([(20, 20), (40, 20)], width_px=4), (18, 18, 42, 22)),
        "the whole picture": (Region.from_box((0, 0, 84, 56)), (0, 0, 84, 56)),
    }.values(),
)
def test_every_kind_of_region_has_a_box(processors, region, box):
    text = told(processors("qwen2_5_vl"), [user(PHOTO, "<region>")], [region])
    assert text == '{"bbox_2d": [' + ", ".join(map(str, box)) + "]}"


def test_several_regions_and_one_that_is_named_twice(processors):
    other = Region.from_box((50, 10, 80, 50))
    asked = [user(PHOTO, "is <region> left of <region>, or [7] <region>?")]
    expected = (
        'is {"bbox_2d": [8, 8, 40, 30]} left of {"bbox_2d": [50, 10, 80, 50]}, or [7] {"bbox_2d": [8, 8, 40, 30]}?'
    )
    assert told(processors("qwen2_5_vl"), asked, [BOX, other, BOX]) == expected


def test_of_several_pictures_the_words_say_which(processors):
    asked = [user(PHOTO, picture(60, 40), "compare <region> to <region>")]
    regions = [BOX, replace(BOX, image_index=1)]
    expected = "compare [95, 142, 476, 535] in picture 1 to [200, 133, 1000, 500] in picture 2"
    assert told(processors("videollama3"), asked, regions) == expected


# -- pixels of the picture that the model sees -------------------------------------------------------------

SIZES = [(1, 1), (1, 150), (150, 1), (14, 14), (13, 2600), (27, 1300), (500, 333), (20, 900), (777, 12), (641, 853)]
OPTIONS = [
    {},
    {"images_kwargs": {"size": {"shortest_edge": 5000, "longest_edge": 50000}}},
    {"images_kwargs": {"merge_size": 1}},
]
PARTS = [
    {},
    {"max_pixels": 30000},
    {"min_pixels": 200000},
    {"max_pixels": 500},
    {"min_pixels": 1000, "max_pixels": 3000},
]
ASKED = [*((each, {}) for each in OPTIONS), *(({}, each) for each in PARTS[1:])]


@pytest.mark.parametrize(("options", "part"), ASKED)
def test_pixels_are_those_that_the_native_processor_makes(processors, options, part):
    """A region of the whole picture ends where the native processor's grid of patches does."""
    processor = processors("qwen2_5_vl")
    for hw in SIZES:
        shown = {"type": "image", "image": Image.new("RGB", hw[::-1]), **part}
        whole = Region.from_box((0, 0, hw[1], hw[0]))
        inputs = processor(
            [{"role": "user", "content": [shown, {"type": "text", "text": "<region>"}]}], [whole], **options
        )
        _, rows, columns = inputs["image_grid_thw"][0].tolist()
        text = processor.tokenizer.decode(inputs["input_ids"][0])
        assert f"[0, 0, {14 * columns}, {14 * rows}]" in text, hw


@pytest.mark.parametrize("num_frames", [1, 2, 3, 15])
@pytest.mark.parametrize("size", [{}, {"size": {"shortest_edge": 784, "longest_edge": 5000}}])
@pytest.mark.parametrize("capped", [True, False])
def test_pixels_of_videos_are_those_that_the_native_processor_makes(processors, num_frames, size, capped):
    """Frames share what fits into the context, the more of them the less."""
    processor, sampling = processors("qwen2_5_vl"), FrameSampling(num_frames=num_frames)
    kept, processor.native.video_processor.max_video_tokens = processor.native.video_processor.max_video_tokens, 40
    for hw in ((40, 90), (120, 30), (200, 200)):
        frames = np.zeros((num_frames, *hw, 3), dtype=np.uint8)
        asked = [user({"type": "video", "video": frames, "fps": 2.0}, "<region>")]
        whole = VideoRegion({0: Region.from_box((0, 0, hw[1], hw[0]))})
        options = {**size, "cap_pixels_per_frame": capped}
        inputs = processor(asked, [whole], sampling=sampling, videos_kwargs=options)
        _, rows, columns = inputs["video_grid_thw"][0].tolist()
        assert f"[0, 0, {14 * columns}, {14 * rows}]" in processor.tokenizer.decode(inputs["input_ids"][0]), hw
    processor.native.video_processor.max_video_tokens = kept


def test_a_picture_that_the_native_processor_refuses_is_refused_as_such(processors):
    with pytest.raises(PromptError, match="aspect ratio must be smaller than 200"):
        told(processors("qwen2_5_vl"), [user(picture(1, 300), "<region>")], [Region.from_box((0, 0, 9, 1))])


# -- videos ------------------------------------------------------------------------------------------------


def test_regions_of_videos_are_told_with_their_times(processors):
    one, moving = VideoRegion({6: BOX}), VideoRegion({0: BOX, 6: CLICKS, 19: BOX})
    text = told(processors("qwen2_5_vl"), [user(CLIP, "does <region> reach <region>?")], [moving, one])
    assert text == (
        'does the object (at 0.0 seconds {"bbox_2d": [8, 8, 40, 30]}; '
        'at 1.5 seconds {"point_2d": [20, 20]} and {"point_2d": [50, 28]}; '
        'at 4.8 seconds {"bbox_2d": [8, 8, 40, 30]}) reach the object (at 1.5 seconds {"bbox_2d": [8, 8, 40, 30]})?'
    )


@pytest.mark.parametrize(("most", "times"), [(1, ["2.5"]), (2, ["0.0", "4.8"]), (3, ["0.0", "2.5", "4.8"])])
def test_of_many_frames_some_are_told_evenly(processors, most, times):
    text = told(
        processors("qwen2_5_vl", max_frames=most),
        [user(CLIP, "<region>")],
        [VideoRegion(dict.fromkeys(range(20), BOX))],
    )
    assert [each.partition(" seconds")[0] for each in text.split("at ")[1:]] == times


def test_consecutive_frames_of_one_time_in_words_are_told_once(processors):
    """At 60 frames a second four of them are shown at 0.0, 0.0, 0.0 and 0.1 seconds."""
    fast = {**CLIP, "fps": 60.0}
    region = VideoRegion({0: BOX, 1: CLICKS, 2: BOX, 4: BOX})
    text = told(processors("qwen2_5_vl"), [user(fast, "<region>")], [region])
    assert text == 'the object (at 0.0 seconds {"bbox_2d": [8, 8, 40, 30]}; at 0.1 seconds {"bbox_2d": [8, 8, 40, 30]})'


def test_of_several_videos_the_words_say_which(processors):
    asked = [user(CLIP, CLIP, "follow <region>")]
    text = told(processors("qwen2_5_vl"), asked, [VideoRegion({0: BOX}, video_index=1)])
    assert text == 'follow the object in video 2 (at 0.0 seconds {"bbox_2d": [8, 8, 40, 30]})'


@pytest.mark.parametrize("backbone", ["videollama3", "llava_onevision"])
def test_without_a_convention_for_videos_another_adapter_is_named(processors, backbone):
    asked, region = [user(CLIP, "follow <region>")], VideoRegion({0: BOX})
    with pytest.raises(PromptError, match=r"Sample 0: .* not how on videos\. Take adapter 'marks'.*convention='thousa"):
        told(processors(backbone), asked, [region])
    text = told(processors(backbone, convention="thousandths"), asked, [region])
    assert text.rpartition("s:")[2] == (  # VideoLLaMA3's own times of frames
        EXPLAINED.format("thousandths").replace("picture", "video")
        + "follow the object (at 0.0 seconds [95, 143, 476, 536])"
    )


# -- a convention that the conversation explains -----------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "box", "clicks"),
    [
        ("thousandths", "[95, 143, 476, 536]", "(238, 357) and (595, 500)"),
        ("fractions", "[0.1, 0.14, 0.48, 0.54]", "(0.24, 0.36) and (0.6, 0.5)"),
    ],
)
def test_units_that_are_asked_for_are_explained_once(processors, unit, box, clicks, caplog):
    text = told(processors("videollama3", convention=unit), [user(PHOTO, "<region>, <region>")], [BOX, CLICKS])
    assert text == f"{EXPLAINED.format(unit)}{box}, {clicks}"
    two = told(
        processors("videollama3", convention=unit),
        [user(PHOTO, PHOTO, "<region>, <region>")],
        [BOX, replace(BOX, image_index=1)],
    )
    assert two == f"{EXPLAINED.format(unit)}{box} in picture 1, {box} in picture 2"
    assert not caplog.records


def test_pixels_are_told_with_the_picture_that_they_count(processors):
    wide = user(picture(400, 600), "<region>")
    seen = told(processors("qwen2_5_vl", convention="pixels"), [wide], [Region.from_box((0, 0, 600, 400))])
    assert seen.endswith(
        "They count pixels of the picture, 392 wide and 252 high, from its upper left corner.\n[0, 0, 392, 252]"
    )
    given = told(processors("videollama3", convention="pixels"), [wide], [Region.from_box((0, 0, 600, 400))])
    assert given.endswith("pixels of the picture, 600 wide and 400 high, from its upper left corner.\n[0, 0, 600, 400]")


def test_a_backbone_of_which_nothing_is_documented_is_told_how_they_count(monkeypatch, caplog):
    spec = replace(get_backbone("videollama3"), coordinates=None)
    monkeypatch.setattr("pixelrefer_plugin.processor.backbone_for", lambda *args: spec)
    model, native = spec.tiny(0)
    processor = RegionProcessor(native, model.config, adapter="coordinates")
    with caplog.at_level(logging.WARNING):
        texts = [told(processor, [user(PHOTO, "what is <region>?")], [BOX]) for _ in range(2)]
    assert texts == [f"{EXPLAINED.format('thousandths')}what is [95, 143, 476, 536]?"] * 2
    assert [record.getMessage().partition(". ")[0] for record in caplog.records] == [
        "It is not documented how this backbone reads coordinates"
    ]
    assert "Adapter 'marks'" in caplog.text
    clip = told(processor, [user(CLIP, "follow <region>")], [VideoRegion({0: BOX})])
    assert clip.endswith("follow the object (at 0.0 seconds [95, 143, 476, 536])")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"convention": "yards"}, "must be one of backbone, thousandths, fractions, pixels, got 'yards'"),
        ({"max_frames": 0}, r"max_frames must be in 1\.\.1024, got 0"),
        ({"frames": 8}, "Adapter 'coordinates' has no option 'frames'. Its options: convention, max_frames"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(PixelReferError, match=message):
        get_adapter("coordinates").make_config(options)


# -- conventions, as plugins give them ---------------------------------------------------------------------

THOUSANDTHS = {
    "unit": "thousandths",
    "box": "[{x0}, {y0}, {x1}, {y1}]",
    "point": None,
    "frame": None,
    "source": "a test",
}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"unit": "inches"}, "unit must be 'pixels' or 'thousandths' or 'fractions', got 'inches'"),
        ({"unit": "pixels"}, "in pixels need seen_hw"),
        ({"rounding": "up"}, "rounding must be 'nearest' or 'down', got 'up'"),
        ({"decimals": 0}, r"decimals must be in 1\.\.9, got 0"),
        ({"decimals": "2"}, "decimals must be a int, got '2'"),
        ({"of_square": 1}, "of_square must be a bool"),
        ({"box": None}, "box must be a str"),
        ({"box": "[{left}]"}, r"box must be a template with {x0}, {y0}, {x1}, {y1}.*got '\[{left}\]'"),
        ({"box": '{"bbox_2d": [{x0}]}'}, "box must be a template .* braces of its own doubled"),
        ({"box": "[{x0}, {y0}, {y1}]"}, r"box must say {x0}, {y0}, {x1}, {y1}; '.*' leaves x1 out"),
        ({"point": "here"}, "point must say {x}, {y}; 'here' leaves x, y out"),
        ({"point": "{0}"}, "point must be a template"),
        ({"point": "{x:d}"}, "point must be a template"),
        ({"frame": "at {seconds}"}, "frame must be a template with {number}, {time_s}"),
        ({"seen_hw": 14}, "seen_hw must be a function"),
    ],
)
def test_conventions_are_checked(fields, message):
    with pytest.raises(PixelReferError, match=message):
        Coordinates(**THOUSANDTHS | fields)


@pytest.mark.parametrize(
    ("fields", "point"),
    [
        ({"unit": "thousandths"}, "(333, 667)"),
        ({"unit": "thousandths", "rounding": "down"}, "(333, 666)"),
        ({"unit": "fractions"}, "(0.33, 0.67)"),
        ({"unit": "fractions", "decimals": 3}, "(0.333, 0.667)"),
        ({"unit": "pixels", "seen_hw": max}, "(100, 134)"),
        ({"unit": "thousandths", "of_square": True}, "(417, 667)"),
    ],
)
def test_points_are_written_in_the_conventions_unit(fields, point):
    convention = Coordinates(**THOUSANDTHS | {"point": "({x}, {y})"} | fields)
    assert SaidCoordinates(convention, (60, 30), (201, 300)).point(10, 40) == point


@pytest.mark.parametrize("seen", [None, (28,), (0, 28), (28.0, 28)])
def test_a_size_that_a_backbone_gives_is_checked(processors, monkeypatch, seen):
    processor = processors("qwen2_5_vl")
    spec = processor._backbone
    changed = replace(spec, coordinates=replace(spec.coordinates, seen_hw=lambda *_: seen))
    monkeypatch.setattr(processor, "_backbone", changed)
    with pytest.raises(PluginError, match="Backbone 'qwen2_5_vl' must return .* from coordinates.seen_hw, got"):
        processor([user(PHOTO, "what is <region>?")], [BOX])


def test_points_beyond_the_picture_are_on_its_edge():
    convention = Coordinates(**THOUSANDTHS | {"point": "({x}, {y})"})
    assert SaidCoordinates(convention, (60, 30), (60, 30)).point(-3, 61) == "(0, 1000)"


def test_frames_have_a_number_and_a_time():
    convention = Coordinates(**THOUSANDTHS | {"frame": "frame {number} at {time_s:.2f}: "})
    video = load_video(FRAMES, fps=4.0, sampling=FrameSampling(num_frames=4))
    said = SaidCoordinates(convention, video.image_hw, video.image_hw)
    on = PointedMedium(media=video, number=1, has_others=False, coordinates=said)
    places = tuple(PlacedRegion(BOX, BOX.to_mask((56, 84)), at, video.times_s[at]) for at in (1, 3))
    spec = get_adapter("coordinates")
    pointing = spec.pointer(spec.make_config(None)).point(on, [PointedRegion(1, places)])
    assert pointing.words == (
        "the object (frame 2 at 1.50: [95, 143, 476, 536]; frame 4 at 4.75: [95, 143, 476, 536])",
    )
