"""Samples: the schema, files of records read lazily, datasets and mixtures of them."""

import contextlib
import json
import multiprocessing
import os
import pickle
import sys
import tracemalloc
import types
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pixelrefer_plugin import (
    DataError,
    MixedDataset,
    PixelReferError,
    PluginError,
    Region,
    RegionDataset,
    RegionSample,
    SampleError,
    VideoRegion,
    plugins,
)
from pixelrefer_plugin.authoring import DataFormatSpec
from pixelrefer_plugin.contracts.samples import RecordPlace
from pixelrefer_plugin.data import records
from pixelrefer_plugin.data.records import JsonRecords, peek
from pixelrefer_plugin.data.schema import is_record, read_sample, write_record

ROOT = Path("/data/set")
IMAGE_HW = (24, 32)
QUESTION = {"role": "user", "content": "What is <region>?"}
ANSWER = {"role": "assistant", "content": "A car."}
MASKED = [{"role": "user", "content": "Segment the car."}, {"role": "assistant", "content": "<seg>"}]


def place(media_root=ROOT, index=11):
    return RecordPlace("train.jsonl line 12", index, media_root)


def record(**changes):
    """A sound record with one region, changed; None takes a key away."""
    sound = {
        "id": "street-1",
        "image": "street.jpg",
        "regions": [{"box": [1, 2, 9, 8]}],
        "messages": [QUESTION, ANSWER],
    }
    return {key: value for key, value in (sound | changes).items() if value is not None}


def read(media_root=ROOT, **changes):
    return read_sample(record(**changes), place(media_root))


def about_video(**region):
    return {"image": None, "video": "clip.mp4", "regions": [region]}


def mask_png(folder):
    labels = np.zeros(IMAGE_HW, dtype=np.uint8)
    labels[4:8, 5:9], labels[10:12, 1:3] = 1, 3
    Image.fromarray(labels).save(folder / "labels.png")


# -- reading -----------------------------------------------------------------------------------------------


def test_a_record_becomes_a_sample():
    sample = read(size=[720, 1280], _note="kept out")
    assert (sample.id, sample.where, sample.media_hw) == ("street-1", "train.jsonl line 12", ((720, 1280),))
    assert sample.regions == (Region.from_box((1, 2, 9, 8)),)
    shown = {"type": "image", "image": "/data/set/street.jpg"}
    assert sample.messages == (
        {"role": "user", "content": [shown, {"type": "text", "text": "What is <region>?"}]},
        {"role": "assistant", "content": "A car."},
    )


def test_a_record_without_media_and_regions():
    sample = read(id=None, image=None, regions=None, messages=[{"role": "user", "content": "Hello?"}, ANSWER])
    assert (sample.id, sample.regions, sample.media("image")) == ("11", (), [])
    assert sample.messages[0]["content"] == "Hello?"


SHAPES = {
    "box": ({"box": [1.5, 2, 9, 8]}, Region.from_box((1.5, 2, 9, 8))),
    "polygon": ({"polygon": [1, 1, 9, 1, 9, 9]}, Region.from_polygon([1, 1, 9, 1, 9, 9])),
    "polygons": (
        {"polygon": [[1, 1, 9, 1, 9, 9], [2, 2, 4, 2, 4, 4]]},
        Region.from_polygon([[1, 1, 9, 1, 9, 9], [2, 2, 4, 2, 4, 4]]),
    ),
    "points": ({"points": [[3, 4]]}, Region.from_points([(3, 4)])),
    "points with a radius": ({"points": [[3, 4]], "radius": 2}, Region.from_points([(3, 4)], radius_px=2)),
    "scribble": ({"scribble": [[3, 4], [9, 9]], "width": 3}, Region.from_scribble([(3, 4), (9, 9)], width_px=3)),
    "rle": ({"rle": {"size": [2, 3], "counts": [1, 3, 2]}}, Region.from_rle({"size": [2, 3], "counts": [1, 3, 2]})),
    "another image": ({"box": [1, 2, 9, 8], "image": 1}, Region.from_box((1, 2, 9, 8), image_index=1)),
    "columns that a row lacks": ({"box": [1, 2, 9, 8], "points": None, "image": None}, Region.from_box((1, 2, 9, 8))),
}


@pytest.mark.parametrize(("written", "region"), SHAPES.values(), ids=SHAPES)
def test_regions_of_every_kind(written, region):
    assert read(image=None, images=["a.jpg", "b.jpg"], regions=[written]).regions == (region,)


def test_regions_from_mask_pictures(tmp_path):
    mask_png(tmp_path)
    everything, labelled = (read(tmp_path, regions=[{"mask": "labels.png"} | which]) for which in ({}, {"value": 3}))
    assert everything.regions[0].to_mask(IMAGE_HW).area == 20
    assert labelled.regions[0].to_mask(IMAGE_HW).box_xyxy == (1, 10, 3, 12)


def test_regions_of_a_video():
    frames = {"12": {"box": [1, 2, 9, 8]}, "0": {"points": [[3, 4]], "radius": 2}, "_note": "", "7": None}
    sample = read(**about_video(frames=frames))
    expected = {0: Region.from_points([(3, 4)], radius_px=2), 12: Region.from_box((1, 2, 9, 8))}
    assert sample.regions == (VideoRegion(expected),)
    assert sample.media("video") == [{"type": "video", "video": "/data/set/clip.mp4"}]


def test_a_mask_in_an_answer_is_the_next_region():
    """One list of regions, in the order of all markers."""
    boxes = [{"box": [1, 2, 3 + number, 8]} for number in range(4)]
    messages = [
        QUESTION,
        {"role": "assistant", "content": "[1] <seg>, left of <region>."},
        {"role": "user", "content": "And the other one?"},
        {"role": "assistant", "content": [{"type": "text", "text": "It is "}, {"type": "text", "text": "<seg>."}]},
    ]
    sample = read(regions=boxes, messages=messages)
    assert [region.data for region in sample.regions] == [(1, 2, 3 + number, 8) for number in range(4)]
    assert sample.targets == (1, 3)
    assert read().targets == ()


def test_frames_on_which_an_object_is_absent():
    box = {"box": [1, 2, 9, 8]}
    about = {"image": None, "video": "clip.mp4", "messages": MASKED}
    sample = read(**about, regions=[{"frames": {"3": box}, "absent": [12, "7", 12]}])
    assert sample.regions == (VideoRegion({3: Region.from_box((1, 2, 9, 8))}, absent=(7, 12)),)
    (without,) = read(**about, regions=[{"frames": {"3": box}, "absent": None}]).regions
    assert without.absent == ()


def test_the_times_of_a_folder_of_frames():
    one = read(**about_video(frames={"0": {"box": [1, 2, 9, 8]}}) | {"video": {"path": "frames", "fps": 2}})
    other = read(**about_video(frames={"0": {"box": [1, 2, 9, 8]}}) | {"video": {"path": "/f", "times_s": [0, 0.5]}})
    assert one.media("video") == [{"type": "video", "video": "/data/set/frames", "fps": 2}]
    assert other.media("video") == [{"type": "video", "video": "/f", "times_s": [0, 0.5]}]


def kinds_of(content):
    return [part.get("text") or Path(part[part["type"]]).name for part in content]


TEXT = {"role": "user", "content": "then?"}
PLACED = {
    "in front, pictures first": ("<region>", ["a", "b", "v", "<region>"]),
    "pictures marked": ("<image>x<image>\n<region>", ["v", "a", "x", "b", "\n<region>"]),
    "all marked": ("<video><image><region><image>", ["v", "a", "<region>", "b"]),
    "as parts": (
        [
            {"type": "video"},
            {"type": "text", "text": "<image>"},
            {"type": "image"},
            {"type": "text", "text": "<region>"},
            {"type": "image"},
        ],
        ["v", "<image>", "a", "<region>", "b"],
    ),
}


@pytest.mark.parametrize(("content", "expected"), PLACED.values(), ids=PLACED)
def test_where_media_stand(content, expected):
    system = {"role": "system", "content": "Be brief."}
    messages = [system, {"role": "user", "content": content}, ANSWER, TEXT, ANSWER]
    sample = read(image=None, images=["a", "b"], video="v", messages=messages)
    assert kinds_of(sample.messages[1]["content"]) == expected
    assert [sample.messages[index]["content"] for index in (0, 3)] == ["Be brief.", "then?"]


def test_markers_in_several_messages_are_one_series():
    messages = [{"role": "user", "content": "<image><region>"}, ANSWER, {"role": "user", "content": "<image>"}, ANSWER]
    sample = read(image=None, images=["a", "b"], messages=messages)
    assert [kinds_of(sample.messages[index]["content"]) for index in (0, 2)] == [["a", "<region>"], ["b"]]


BOX = {"box": [1, 2, 9, 8]}
DEFECTS = {
    "misspelt key": ({"imgae": "x"}, "format", r"no key 'imgae'\. Did you mean 'image'\?"),
    "strange key": ({"zzz": 1}, "format", r"no key 'zzz'\. Its keys: id, image, "),
    "id of no use": ({"id": [1]}, "format", r"id: must be a text or an integer, got \[1\]"),
    "image and images": ({"images": ["a"]}, "format", "both 'image' and 'images'"),
    "images not a list": ({"image": None, "images": "a"}, "format", "'images' must be a list, got 'a'"),
    "image not a path": ({"image": 3}, "format", "image 0: must be a path, got 3"),
    "image an empty path": ({"image": ""}, "format", "image 0: must be a path, got ''"),
    "video without path": ({"video": {"fps": 2}}, "format", "video 0: must be a path, got None"),
    "video with odd key": (
        {"video": {"path": "v", "fsp": 2}},
        "format",
        "A video has no key 'fsp'. Did you mean 'fps'",
    ),
    "fps not positive": ({"video": {"path": "v", "fps": 0}}, "format", "'fps' must be a number > 0, got 0"),
    "times not seconds": ({"video": {"path": "v", "times_s": ["0"]}}, "format", "'times_s' must be a list of seconds"),
    "fps and times": ({"video": {"path": "v", "fps": 1, "times_s": [0]}}, "format", "both 'fps' and 'times_s'"),
    "size of none": ({"size": [0, 4]}, "format", r"size: must be two positive integers .*got \[0, 4\]"),
    "sizes of others": ({"size": [[4, 4], [4, 4]]}, "format", r"for each picture and then each video \(1 here\)"),
    "regions not a list": ({"regions": {"box": 1}}, "format", "'regions' must be a list"),
    "no media": ({"image": None}, "media", "it has regions but no picture or video: expected one of image, images"),
    "region not an object": ({"regions": [[1, 2, 3, 4]]}, "region", r"region 0: must be an object such as \{\"box\""),
    "region of no kind": (
        {"regions": [{"bbox": [1, 2, 3, 4]}]},
        "region",
        "expected one of box, polygon, .*got 'bbox'",
    ),
    "region of two kinds": ({"regions": [BOX | {"points": [[1, 2]]}]}, "region", "got box and points"),
    "option of another kind": ({"regions": [BOX | {"radius": 2}]}, "region", "with 'box' has no key 'radius'"),
    "inverted box": ({"regions": [{"box": [9, 2, 1, 8]}]}, "region", "region 0: .* is it inverted"),
    "empty RLE": ({"regions": [{"rle": {"size": [2, 2], "counts": [4]}}]}, "region", "no foreground run"),
    "missing mask": ({"regions": [{"mask": "no.png"}]}, "media", r"region 0: Mask '/data/set/no\.png' .*No such file"),
    "value not integer": ({"regions": [{"mask": "no.png", "value": "3"}]}, "region", "'value' must be an integer"),
    "image not there": ({"regions": [BOX | {"image": 1}]}, "region", "lies on image 1, but the sample has 1 image\\."),
    "negative image": ({"regions": [BOX | {"image": -1}]}, "region", "which image of the sample, from 0, got -1"),
    "no frame said": (about_video(**BOX), "region", "0 images\\. On a video, say on which frame"),
    "frame of no number": (about_video(frames={"a": BOX}), "region", "must be frame indices from 0, got 'a'"),
    "frame twice": (about_video(frames={"1": BOX, "01": BOX}), "region", "frame 1: is named twice"),
    "bad frame": (about_video(frames={"1": {"box": [1]}}), "region", "region 0, frame 1: A box must be four numbers"),
    "frame not an object": (about_video(frames={"1": [1]}), "region", "frame 1: must be an object"),
    "no frames": (about_video(frames={}), "region", "one frame or more"),
    "frames a list": (about_video(frames=[BOX]), "region", "'frames' must be an object"),
    "video not there": (
        about_video(frames={"1": BOX}, video=1),
        "region",
        "lies on video 1, but the sample has 1 video\\.",
    ),
    "no messages": ({"messages": None}, "format", "no 'messages'"),
    "messages empty": ({"messages": []}, "format", "no 'messages'"),
    "message not an object": ({"messages": ["<region>", ANSWER]}, "format", "message 0: must be an object with 'role'"),
    "key of another schema": (
        {"messages": [{"from": "human", "value": "<region>"}]},
        "format",
        "no key 'from', 'value'",
    ),
    "role": ({"messages": [QUESTION, ANSWER | {"role": "gpt"}]}, "format", "one of system, user, assistant, got 'gpt'"),
    "content": ({"messages": [QUESTION | {"content": 3}, ANSWER]}, "format", "text or a list of parts, got 3"),
    "part": ({"messages": [QUESTION, ANSWER | {"content": [{"type": "text"}]}]}, "format", "a content part must be"),
    "part with a path": (
        {"messages": [QUESTION | {"content": [{"type": "image", "image": "x"}]}, ANSWER]},
        "format",
        "for the next of the sample's",
    ),
    "picture in an answer": (
        {"messages": [QUESTION, ANSWER | {"content": [{"type": "image"}]}]},
        "format",
        "must be text",
    ),
    "marker in an answer": (
        {"messages": [QUESTION, ANSWER | {"content": "<image>"}]},
        "format",
        "texts of the user only",
    ),
    "too many <region>": ({"regions": None}, "markers", "1 <region> but 0 regions were given"),
    "too few <region>": ({"regions": [BOX, BOX]}, "markers", "1 <region> but 2 regions were given"),
    "more <region> and <seg>": (
        {"messages": [QUESTION, ANSWER | {"content": "<seg>"}]},
        "markers",
        "1 <region> and 1 <seg> but 1 region was given. Each <region> and <seg> stands for one region, in order",
    ),
    "fewer <seg>": ({"regions": [BOX, BOX], "messages": MASKED}, "markers", "0 <region> and 1 <seg> but 2 regions we"),
    "<seg> in a question": (
        {"messages": [QUESTION | {"content": "Is it <seg>?"}, ANSWER]},
        "markers",
        "message 0: <seg> stands for a mask in answers only, here is one of the user. Write <region>",
    ),
    "<seg> in the system's text": (
        {"messages": [{"role": "system", "content": "Say <seg>."}, TEXT, ANSWER]},
        "markers",
        "message 0: <seg> .* one of the system",
    ),
    "<seg> on two pictures": (
        {
            "image": None,
            "images": ["a", "b"],
            "regions": [BOX, BOX | {"image": 1}],
            "messages": [TEXT, ANSWER | {"content": "<seg><seg>"}],
        },
        "region",
        "its <seg> lie on image 0, image 1. All masks of a sample must lie on one picture or video",
    ),
    "<seg> on a picture and a video": (
        {
            "video": "v",
            "regions": [BOX, {"frames": {"0": BOX}}],
            "messages": [TEXT, ANSWER | {"content": "<seg><seg>"}],
        },
        "region",
        "its <seg> lie on image 0, video 0",
    ),
    "<seg> for a click": (
        {"regions": [{"points": [[3, 4]]}], "messages": MASKED},
        "region",
        "region 0 is given as points, but <seg> stands for it, .* Give that: rle, mask or polygon",
    ),
    "<seg> for a scribble on a frame": (
        about_video(frames={"1": BOX, "2": {"scribble": [[3, 4], [5, 6]]}}) | {"messages": MASKED},
        "region",
        "region 0 is given as scribble",
    ),
    "absent no list": (about_video(frames={"1": BOX}, absent=3), "region", "'absent' must be a list of frame indices"),
    "absent no frame": (
        about_video(frames={"1": BOX}, absent=[-3]),
        "region",
        "items of 'absent' must be frame indices from 0, got -3",
    ),
    "absent where it is": (about_video(frames={"1": BOX}, absent=[2, 1]), "region", "region 0: .*frame 1.* absent"),
    "absent on a picture": ({"regions": [BOX | {"absent": [1]}]}, "region", "with 'box' has no key 'absent'"),
    "too many <image>": (
        {"messages": [QUESTION | {"content": "<image><image><region>"}, ANSWER]},
        "markers",
        "2 <image> but it has 1 image\\.",
    ),
    "<video> without one": (
        {"messages": [QUESTION | {"content": "<video><region>"}, ANSWER]},
        "markers",
        "1 <video> but",
    ),
    "nobody asks": (
        {"messages": [ANSWER | {"content": "<region>"}]},
        "markers",
        "no message of the user to show its image",
    ),
    "no answer": ({"messages": [QUESTION]}, "answer", "its last message is of the user"),
    "empty answer": ({"messages": [QUESTION, ANSWER | {"content": " \n"}]}, "answer", "message 1: the answer is empty"),
}


@pytest.mark.parametrize(("changes", "kind", "message"), DEFECTS.values(), ids=DEFECTS)
def test_a_defect_is_named(changes, kind, message):
    with pytest.raises(SampleError, match=message) as caught:
        read(**changes)
    assert [defect.kind for defect in caught.value.defects] == [kind]
    assert str(caught.value).startswith("train.jsonl line 12, sample '")


def test_all_defects_of_a_record_are_told_at_once():
    wrong = [{"box": [9, 2, 1, 8]}, {"box": [1, 2, 9, 8]}, {"points": []}]
    with pytest.raises(SampleError) as caught:
        read(colour="red", size=[1], regions=wrong, messages=[QUESTION])
    kinds = [defect.kind for defect in caught.value.defects]
    assert sorted(kinds) == ["answer", "format", "format", "markers", "region", "region"]
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.defects) == (str(caught.value), caught.value.defects)


EVERYTHING = {
    "images": ["a.jpg", "b.jpg"],
    "video": {"path": "frames", "times_s": [0, 1]},
    "size": [[24, 32], None, [3, 3]],
    "regions": [
        {"box": [1, 2, 3, 4]},
        {"polygon": [1, 1, 9, 1, 9, 9], "image": 1},
        {"points": [[1, 2]], "radius": 3},
        {"scribble": [[1, 2], [3, 4]], "width": 3},
        {"rle": {"size": [2, 2], "counts": [1, 2, 1]}},
        {"mask": "labels.png", "value": 3},
        {"frames": {"0": {"box": [1, 2, 3, 4]}}, "video": 0},
        {"frames": {"0": {"rle": {"size": [2, 2], "counts": [1, 2, 1]}}}, "absent": [1], "video": 0},
    ],
    "messages": [
        {"role": "user", "content": f"<image><image>{'<region>' * 7}"},
        {"role": "assistant", "content": [{"type": "text", "text": "x <seg>"}]},
    ],
}
ODD = [
    *(None, True, False, 0, -1, 3, 2.5, float("inf"), float("nan"), 10**400, "", "x", "3", "<region>", "<image>"),
    *([], [1], [[1]], [[]], [None], ["a"], [1, 2, 3, 4], [[1, 2], [3]], [{"box": 1}], [1, "a"], [10**400] * 6),
    *({}, {"a": 1}, {1: 2}, {"type": "text"}, {"path": [1]}, {"0": {"box": [1, 2, 3, 4]}}, {"0": 3}),
    *({"size": [2, 2], "counts": "x"}, {"size": [2, 2], "counts": [1, 2, 1]}, {"size": [1e99, 2], "counts": []}),
]  # fmt: skip


def with_odd_values(value, odd):
    """Copies of a JSON value, each with `odd` in one place of it."""
    yield odd
    if isinstance(value, dict | list):
        places_in = list(value) if isinstance(value, dict) else range(len(value))
        for each in places_in:
            for changed in with_odd_values(value[each], odd):
                copied = value.copy()
                copied[each] = changed
                yield copied


def test_whatever_a_record_holds_is_a_sample_or_a_sample_error(tmp_path):
    mask_png(tmp_path)
    everything = read_sample(EVERYTHING, place(tmp_path))
    assert (len(everything.regions), everything.targets) == (8, (7,))
    refused = 0
    for changed in (each for odd in ODD for each in with_odd_values(EVERYTHING, odd) if isinstance(each, dict)):
        try:
            write_record(read_sample(changed, place(tmp_path)), tmp_path)
        except SampleError:
            refused += 1
    assert refused > 1000


# -- writing -----------------------------------------------------------------------------------------------

coordinates = st.one_of(st.integers(0, 24), st.floats(0, 24))
points = st.lists(st.tuples(coordinates, coordinates), min_size=2, max_size=4)
masks = st.integers(0, 2**12 - 1).map(
    lambda seed: np.pad(np.random.default_rng(seed).random((5, 7)) > 0.5, ((1, 18), (0, 25)), constant_values=True)
)
boxes = st.tuples(st.floats(0, 9), st.floats(0, 9), st.integers(10, 24), st.integers(10, 24)).map(Region.from_box)
polygons = st.lists(st.lists(coordinates, min_size=6, max_size=10).filter(lambda ring: len(ring) % 2 == 0), min_size=1)
solids = st.one_of(
    boxes,
    polygons.map(Region.from_polygon),
    masks.map(Region.from_mask),
    masks.map(lambda mask: Region.from_rle({"size": mask.shape, "counts": runs_of(mask)})),
)
shapes = st.one_of(
    solids,
    st.builds(lambda xy, r: Region.from_points(xy, radius_px=r), points, st.floats(0.1, 9)),
    st.builds(lambda xy, w: Region.from_scribble(xy, width_px=w), points, st.integers(1, 9)),
)


def on_frames(shapes):
    return st.builds(
        lambda frames, absent: VideoRegion(frames, absent=tuple(absent - frames.keys())),
        st.dictionaries(st.integers(0, 999), shapes, min_size=1, max_size=3),
        st.sets(st.integers(0, 999), max_size=3),
    )


video_regions, video_solids = on_frames(shapes), on_frames(solids)
words = st.sampled_from(["what is ", "<image>", "<video>", "é☃", "\n", '"', "{", "<", "regions>"])
texts = st.lists(words, max_size=4).map("".join)
paths = st.sampled_from(["/data/set/a.jpg", "/data/set/deep/ü b.jpg", "/elsewhere/c.jpg", "/data/set2/d.jpg"])
image_parts = paths.map(lambda path: {"type": "image", "image": path})
video_parts = st.builds(
    lambda path, times: {"type": "video", "video": path} | times,
    paths,
    st.sampled_from([{}, {"fps": 2}, {"fps": 0.5}, {"times_s": [0, 0.5, 3]}]),
)


def runs_of(mask):
    flat = np.concatenate([[False], mask.T.ravel()])
    changes = np.flatnonzero(np.diff(flat))
    return [int(run) for run in np.diff(np.concatenate([[0], changes, [mask.size]]))]


@st.composite
def samples(draw):
    media = draw(st.lists(st.one_of(image_parts, video_parts), max_size=4))
    counts = {kind: sum(part["type"] == kind for part in media) for kind in ("image", "video")}
    regions = []
    for _ in range(draw(st.integers(0, 3)) if media else 0):
        shape = draw(shapes)
        if counts["image"] and (not counts["video"] or draw(st.booleans())):
            regions.append(shape.on_image(draw(st.integers(0, counts["image"] - 1))))
        else:
            regions.append(draw(video_regions).on_video(draw(st.integers(0, counts["video"] - 1))))
    num_masks = draw(st.integers(0, 2)) if media else 0
    targets = [draw(solids if counts["image"] else video_solids) for _ in range(num_masks)]
    asked = [
        {"type": "text", "text": draw(texts)},
        *[{"type": "text", "text": f"<region>{draw(texts)}"} for _ in regions],
    ]
    in_front = draw(st.booleans())
    asked = media + asked if in_front else draw(st.permutations(media + asked))
    answer = f"yes {draw(texts)}{'<seg>, ' * num_masks}"
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    if draw(st.booleans()):
        messages = [{"role": "system", "content": draw(texts)}, *messages]
    if draw(st.booleans()):
        messages += [{"role": "user", "content": draw(texts)}, {"role": "assistant", "content": f"no {draw(texts)}"}]
    sizes_hw = st.none() | st.tuples(st.integers(1, 99), st.integers(1, 99))
    media_hw = tuple(draw(sizes_hw) for _ in media) if draw(st.booleans()) else ()
    return RegionSample(draw(st.text(min_size=1)), tuple(messages), (*regions, *targets), media_hw=media_hw)


def meaning(sample):
    """A sample in one form whatever it was made from."""

    def shape(region):
        if region.kind in ("mask", "rle"):
            return region.to_mask(IMAGE_HW)
        return region.kind, region.data

    def region(each):
        if isinstance(each, Region):
            return shape(each), each.image_index
        return {frame: shape(there) for frame, there in each.frames.items()}, each.absent, each.video_index

    def content(given):
        parts = [{"type": "text", "text": given}] if isinstance(given, str) else given
        joined = []
        for part in parts:
            if part["type"] == "text" and joined and isinstance(joined[-1], str):
                joined[-1] += part["text"]
            else:
                joined.append(part["text"] if part["type"] == "text" else part)
        return [part for part in joined if part != ""]

    messages = [(message["role"], content(message["content"])) for message in sample.messages]
    sizes = sample.media_hw if any(sample.media_hw) else ()
    return sample.id, messages, [region(each) for each in sample.regions], sizes


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(samples())
def test_what_is_written_reads_as_the_same(sample):
    written = json.loads(json.dumps(write_record(sample, ROOT), allow_nan=False))
    assert meaning(read_sample(written, RecordPlace("", 0, ROOT))) == meaning(sample)


@pytest.mark.parametrize("written", [shape for shape, _ in SHAPES.values()], ids=SHAPES)
def test_what_is_read_is_written_as_it_was(written):
    expected = record(image=None, images=["a.jpg", "/b.jpg"], regions=[written], size=[[4, 5], None])
    again = write_record(read_sample(expected, place()), ROOT)
    assert read_sample(again, place()).regions == read_sample(expected, place()).regions
    assert {key: value for key, value in again.items() if key != "regions"} == {
        key: value for key, value in expected.items() if key != "regions"
    }


def test_a_picture_in_memory_cannot_be_written():
    sample = read(image=Image.new("RGB", (8, 8)))
    with pytest.raises(SampleError, match=r"sample 'street-1': its image is in memory \(Image\)\. Save it to a file"):
        write_record(sample, ROOT)


# -- records -----------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
json_objects = st.lists(st.dictionaries(st.text(), json_values, max_size=3), min_size=1, max_size=5)
awkward_text = st.text(alphabet='\\"[]{},:\nü ', max_size=8)


@pytest.fixture
def file(tmp_path):
    def write(content, name="train.json"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return path

    return write


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    objects=json_objects | st.lists(st.dictionaries(awkward_text, awkward_text), min_size=1, max_size=4),
    layout=st.sampled_from(["lines", "array", "pretty array"]),
    ascii_only=st.booleans(),
    newline=st.sampled_from(["\n", "\r\n"]),
    blank=st.sampled_from(["", "\n", " \t\n\n"]),
    bom=st.booleans(),
    chunk_bytes=st.integers(1, 40),
)
def test_records_are_what_json_says(file, monkeypatch, objects, layout, ascii_only, newline, blank, bom, chunk_bytes):
    monkeypatch.setattr(records, "_CHUNK_BYTES", chunk_bytes)
    if layout == "lines":
        written = [json.dumps(each, ensure_ascii=ascii_only) + newline + blank for each in objects]
        text = blank + "".join(written)
    else:
        indent = 2 if layout == "pretty array" else None
        text = blank + json.dumps(objects, ensure_ascii=ascii_only, indent=indent).replace("\n", newline) + blank
    found = JsonRecords(file("\ufeff" * bom + text))
    assert len(found) == len(objects)
    assert list(found) == objects
    assert found[-1] == objects[-1]
    assert list(pickle.loads(pickle.dumps(found))) == objects


def test_places_count_lines_and_records_from_one(file):
    lines = JsonRecords(file('\n{"a": 1}\n\n  \n{"a": 2}\n', "train.jsonl"))
    assert [lines.where(index) for index in range(2)] == ["train.jsonl line 2", "train.jsonl line 5"]
    packed = JsonRecords(file('{"a": 1}\n{"a": 2}', "train.jsonl"))
    assert [packed.where(index) for index in range(2)] == ["train.jsonl line 1", "train.jsonl line 2"]
    array = JsonRecords(file('[{"a": 1},\n\n{"a": 2}]'))
    assert [array.where(index) for index in range(2)] == ["train.json record 1", "train.json record 2"]


DEFECTIVE_LINES = {
    "cut": ('{"a": "b', "Unterminated string starting at at character 7"),
    "two in a line": ('{"a": 1} {"a": 2}', "Extra data at character 10"),
    "not a number": ('{"a": NaN}', "NaN is no number of JSON"),
    "infinite": ('{"a": [-Infinity]}', "-Infinity is no number of JSON"),
    "no UTF-8": (b'{"a": "\xff"}', "'utf-8' codec can't decode byte 0xff"),
    "half a character": ('{"a": "\\ud800"}', "surrogates not allowed"),
    "zeros": (b"\0\0\0\0", "Expecting value at character 1"),
    "too deep": ('{"a": ' + "[" * 100_000, "recursion"),
    "no JSON at all": ("hello", "Expecting value"),
}


@pytest.mark.parametrize(("line", "message"), DEFECTIVE_LINES.values(), ids=DEFECTIVE_LINES)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_defective_line_harms_no_other(file, line, message, at):
    lines = [b'{"a": 1}', b'{"a": 2}']
    lines.insert(at, line if isinstance(line, bytes) else line.encode())
    found = JsonRecords(file(b"\n".join(lines), "train.jsonl"))
    with pytest.raises(SampleError, match=rf"^train\.jsonl line {at + 1}, sample '{at}': it is not JSON: .*{message}"):
        found[at]
    assert [found[index] for index in range(3) if index != at] == [{"a": 1}, {"a": 2}]


def test_a_defective_record_of_an_array_harms_no_other(file):
    found = JsonRecords(file('[{"a": 1}, {"a": oops}, {"a": 3} {"a": 4}]'))
    assert (found[0], found[2]) == ({"a": 1}, {"a": 3})
    with pytest.raises(SampleError, match=r"train\.json record 2, sample '1': it is not JSON: Expecting value"):
        found[1]
    with pytest.raises(SampleError, match=r"train\.json record 4, .*expected a comma between this record and the one"):
        found[3]


UNREADABLE = {
    "empty": ("", "is empty"),
    "blank": (" \n\n\ufeff"[:3], "is empty"),
    "gzip": (b"\x1f\x8b\x08\0", r"compressed by gzip.* Run gunzip"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "is UTF-16, expected UTF-8"),
    "an empty array": ("[ ]", "got an empty array"),
    "array of numbers": ("[1, 2]", "expected JSON objects and commas between them up to the end.*, got '1, 2'"),
    "comma at the end": ('[{"a": 1},]', "up to the end of the array, got ','"),
    "text after the array": ('[{"a": 1}]\n[{"a": 2}]', "expected nothing after the end of its array, got .*a"),
    "array cut between": ('[{"a": 1},', "an array that is not closed: it ends after 1 whole records"),
    "array cut in a string": ('[{"a": 1}, {"a": "]}]', "ends after 1 whole records"),
    "one object over lines": ('{\n  "images": [\n    {"id": 1}\n  ]\n}', "one JSON object over several lines.* coco"),
    "one object in lines of records": ('{"images": [\n{"id": 1},\n{"id": 2}\n]}', "one JSON object over several lines"),
    "one object, cut": ('{"images": [\n{"id": 1},\n{"id":', "one JSON object over several lines"),
}


@pytest.mark.parametrize(("content", "message"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_file_that_cannot_be_read(file, content, message):
    with pytest.raises(DataError, match=message) as caught:
        JsonRecords(file(content))
    assert not isinstance(caught.value, SampleError)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"no\.jsonl' cannot be read: No such file"):
        RegionDataset.open(tmp_path / "no.jsonl")


def test_a_file_that_changes_is_refused_by_another_process(file):
    path = file('{"a": 1}\n{"a": 2}\n')
    found = JsonRecords(path)
    path.write_text('{"a": 1}\n\n{"a": 2}\n')
    with pytest.raises(DataError, match="has changed since it was opened"):
        pickle.loads(pickle.dumps(found))[0]


def test_an_index_beyond_the_end(file):
    found = JsonRecords(file('{"a": 1}\n'))
    for index in (1, -2):
        with pytest.raises(IndexError, match=rf"has 1 records: there is no record {index}"):
            found[index]


@pytest.mark.parametrize("layout", ["lines", "array"])
def test_opening_keeps_little_in_memory(file, monkeypatch, layout):
    monkeypatch.setattr(records, "_CHUNK_BYTES", 1 << 14)
    monkeypatch.setattr(records, "_PEEK_BYTES", 1 << 14)
    line = json.dumps({"text": "x" * 300, "list": [{}]})
    num_records = 10_000
    text = "\n".join([line] * num_records) if layout == "lines" else f"[{','.join([line] * num_records)}]"
    path = file(text)
    tracemalloc.start()
    try:
        found = JsonRecords(path)
        kept_bytes, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found) == num_records
    assert kept_bytes < 12 * num_records
    assert peak_bytes < 60 * num_records < len(text) / 5


def test_descriptors_are_given_back(file):
    path = file('{"a": 1}\n')
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        assert JsonRecords(path)[0] == {"a": 1}
    assert len(os.listdir("/proc/self/fd")) == before


# -- peeking -----------------------------------------------------------------------------------------------

PEEKED = {
    "lines": ('{"a": 1}\n{"a": 2}', {"a": 1}),
    "array": ('\n[\n {"a": [1, 2]}, {"b": 2}]', {"a": [1, 2]}),
    "object": ('{\n"a": 1,\n"b": {"c": []}}', {"a": 1, "b": {"c": []}}),
    "a defective first line": ('{"a": "\n{"b": 2}', {"b": 2}),
    "a line of another kind": ('[1]\n{"b": 2}'.replace("[1]", "oops"), {"b": 2}),
}


@pytest.mark.parametrize(("content", "first"), PEEKED.values(), ids=PEEKED)
def test_peeking_shows_the_first_object(file, content, first):
    assert peek(file(content)) == first


@pytest.mark.parametrize("length", range(2, 120))
def test_peeking_into_a_part_of_an_object(file, monkeypatch, length):
    whole = {"info": {"a": 'q"\\'}, "n": -1.5e3, "images": [{"id": 1, "x": [1, 2]}] * 12, "é": True}
    monkeypatch.setattr(records, "_PEEK_BYTES", length)
    seen = peek(file(json.dumps(whole)))
    assert list(seen) == list(whole)[: len(seen)]
    if "images" in seen:
        assert seen["images"] == whole["images"][: len(seen["images"])]
        assert len(seen["images"]) <= 8
    assert seen.get("info", {}).items() <= whole["info"].items()


@pytest.mark.parametrize("length", range(2, 150))
def test_peeking_into_objects_within_an_object(file, monkeypatch, length):
    one = {"expressions": {"0": {"exp": 'a "red" car', "obj_id": "1"}, "1": {}}, "frames": ["00000", "00005"]}
    whole = {"videos": {"first": one, "second": one}}
    monkeypatch.setattr(records, "_PEEK_BYTES", length)
    seen = peek(file(json.dumps(whole)))
    assert_is_begun(seen, whole)
    if length >= 70:
        assert seen["videos"]["first"]["expressions"]["0"]["exp"] == 'a "red" car'


def assert_is_begun(seen, whole):
    """What is seen of an object is its first keys with their values, the last of which may be begun only."""
    assert list(seen) == list(whole)[: len(seen)]
    for key in seen:
        if isinstance(seen[key], dict):
            assert_is_begun(seen[key], whole[key])
        elif isinstance(seen[key], list):
            assert seen[key] == whole[key][: len(seen[key])]
        else:
            assert seen[key] == whole[key]


ODD_OBJECTS = {
    "a key that is no text": '{"a": {[1]: 2, "b": 1',
    "no comma": '{"a": {"b": 1 "c": 2',
    "no colon": '{"a": {"b" 1, "c": 2',
    "closed too often": '{"a": {"b": 1}}}, "c": {"d',
}


@pytest.mark.parametrize("content", ODD_OBJECTS.values(), ids=ODD_OBJECTS)
def test_peeking_into_what_is_no_json(file, content):
    with contextlib.suppress(DataError):
        assert peek(file(content)) == {"a": {"b": 1}}


def test_peeking_goes_on_after_a_long_list(file, monkeypatch):
    monkeypatch.setattr(records, "_PEEK_BYTES", 4000)
    whole = {"images": [{"id": index} for index in range(100)], "annotations": [{"id": index} for index in range(500)]}
    seen = peek(file(json.dumps(whole)))
    assert {key: len(items) for key, items in seen.items()} == {"images": 8, "annotations": 8}


@pytest.mark.parametrize("content", ["hello", "[1, 2]", '"text"', "[]", '{"a": oops}'])
def test_peeking_into_what_holds_no_objects(file, content):
    with pytest.raises(DataError, match="must hold JSON objects"):
        peek(file(content))


# -- datasets ----------------------------------------------------------------------------------------------


@pytest.fixture
def train_file(file):
    lines = [json.dumps(record(id=f"s{number}", image=f"{number}.jpg")) for number in range(6)]
    lines[2] = "oops"
    lines[4] = json.dumps(record(id="s4", regions=[]))
    return file("\n".join(lines), "train.jsonl")


def test_a_dataset_reads_its_file(train_file):
    dataset = RegionDataset.open(train_file)
    assert (len(dataset), dataset.format, dataset.name) == (6, "regions", "train.jsonl")
    assert dataset[1].name == "train.jsonl line 2, sample 's1'"
    assert dataset[-1].media("image")[0]["image"] == str(train_file.parent / "5.jpg")
    with pytest.raises(SampleError, match="line 3, sample '2': it is not JSON"):
        dataset[2]
    with pytest.raises(SampleError, match="line 5, sample 's4': .* 0 regions"):
        dataset[4]
    with pytest.raises(IndexError, match=r"train\.jsonl has 6 samples: there is no sample 6"):
        dataset[6]


def ids(found):
    return [each.id if isinstance(each, RegionSample) else type(each).__name__ for each in found]


def test_a_batch_has_errors_for_bad_samples(train_file):
    dataset = RegionDataset.open(train_file)
    assert ids(dataset.__getitems__([0, 2, 4, -1])) == ["s0", "SampleError", "SampleError", "s5"]


def test_media_root(train_file, tmp_path):
    (tmp_path / "pictures").mkdir()
    dataset = RegionDataset.open(train_file, media_root=tmp_path / "pictures")
    assert dataset[0].media("image")[0]["image"] == str(tmp_path / "pictures" / "0.jpg")
    with pytest.raises(DataError, match="media_root must be a folder that is there, got 'nowhere'"):
        RegionDataset.open(train_file, media_root="nowhere")


def test_relative_paths_are_good_after_a_change_of_folder(train_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = RegionDataset.open("train.jsonl")
    monkeypatch.chdir("/")
    assert dataset[0].media("image")[0]["image"] == str(tmp_path / "0.jpg")


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # Python 3.12 on, if a library has threads
@pytest.mark.parametrize("copied", [False, True], ids=["as it is", "pickled"])
def test_a_data_loader_with_workers_reads_it(train_file, copied):
    from torch.utils.data import DataLoader, Subset

    dataset = RegionDataset.open(train_file)
    assert dataset[0].id == "s0"  # the file is open when the workers start
    dataset = pickle.loads(pickle.dumps(dataset)) if copied else dataset
    options = {"batch_size": 2, "num_workers": 2, "collate_fn": ids, "multiprocessing_context": "fork"}
    assert list(DataLoader(dataset, **options)) == [["s0", "s1"], ["SampleError", "s3"], ["SampleError", "s5"]]
    assert list(DataLoader(Subset(dataset, [5, 2]), **options)) == [["s5", "SampleError"]]


def read_ids(dataset, queue):
    queue.put(ids(dataset.__getitems__(range(len(dataset)))))


def test_a_spawned_process_reads_it(train_file):
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    dataset = MixedDataset([(RegionDataset.open(train_file), 1)])
    process = context.Process(target=read_ids, args=(dataset, queue))
    process.start()
    process.join()
    assert queue.get() == ["s0", "s1", "SampleError", "s3", "SampleError", "s5"]


def test_a_record_that_is_no_object(file):
    dataset = RegionDataset.open(file(f"{json.dumps(record())}\n[1]\n", "a.jsonl"))
    with pytest.raises(SampleError, match=r"a\.jsonl line 2, sample '1': it must be a JSON object, got a list"):
        dataset[1]


def test_a_sample_goes_through_the_processor(tmp_path, file, pair):
    processor = pair.processor
    Image.new("RGB", (64, 48), "green").save(tmp_path / "street.jpg")
    sample = RegionDataset.open(file(json.dumps(record())))[0]
    inputs = processor([sample.messages], [sample.regions], labels=True)
    assert inputs["regions"].regions_per_sample == (1,)
    assert "A car." in processor.tokenizer.decode(inputs["labels"][inputs["labels"] >= 0])


# -- formats -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NoConfig:
    """No options."""


def format_called(name, key, **how):
    return DataFormatSpec(name=name, config=NoConfig, recognises=lambda record: key in record, **how)


class TwoSamples:
    def __init__(self, config, path, media_root):
        self.place = RecordPlace(path.name, 0, media_root)

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return read_sample(record(id=index), self.place)


FORMATS = {
    "first": format_called("first", "one", read_record=lambda config, record, place: None),
    "second": format_called("second", "both", read_record=lambda config, record, place: read(id=record["both"][0])),
    "third": format_called("third", "both", read_record=lambda config, record, place: read()),
    "whole": format_called("whole", "categories", open_file=TwoSamples),
}


@pytest.fixture
def formats(monkeypatch):
    """Formats of others, in place of those installed."""
    monkeypatch.setattr(plugins, "list_data_formats", lambda: list(FORMATS.values()))
    monkeypatch.setattr(plugins, "get_data_format", FORMATS.__getitem__)


def test_a_format_is_found_by_the_first_record(formats, file):
    assert RegionDataset.open(file('{"one": 1}')).format == "first"
    assert RegionDataset.open(file('{"both": ["1"]}'), format="second")[0].id == "1"


def test_a_format_may_read_the_whole_file(formats, file):
    dataset = RegionDataset.open(file('{\n"categories": []}'))
    assert (dataset.format, len(dataset), dataset[1].id) == ("whole", 2, "1")
    with pytest.raises(DataError, match=r"'whole' reads whole files, not rows\. Use RegionDataset\.open"):
        RegionDataset.from_rows([{"categories": []}], format="whole")


def test_a_file_of_no_known_format(formats, file):
    with pytest.raises(
        DataError, match=r"No data format recognises '.*train\.json': first, .* keys .*: 'x', 'y'\. Say"
    ):
        RegionDataset.open(file('{"x": 1, "y": 2}'))


def test_a_file_that_two_formats_recognise(formats, file):
    with pytest.raises(DataError, match="More than one data format recognises .*: second, third"):
        RegionDataset.open(file('{"both": 1}'))


def test_a_format_must_read_samples(formats, file):
    with pytest.raises(PluginError, match="'first' must read a RegionSample, got None"):
        RegionDataset.open(file('{"one": 1}'))[0]


def test_an_error_in_a_format_does_not_end_the_data(formats, file):
    dataset = RegionDataset.open(file('{"both": ["1"]}\n{"both": []}'), format="second")
    found = iter(dataset)
    assert next(found).id == "1"
    with pytest.raises(SampleError, match="sample '1': Data format 'second' failed in read_record: IndexError: list i"):
        next(found)


def test_options_of_a_format_are_checked(train_file):
    with pytest.raises(PixelReferError, match="Data format 'regions' has no option 'colour'"):
        RegionDataset.open(train_file, options={"colour": "red"})
    with pytest.raises(PluginError, match="No data format is called 'region'. Did you mean 'regions'?"):
        RegionDataset.open(train_file, format="region")


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ({}, True),
        ({"imgae": "x"}, True),
        ({"conversations": []}, False),
        ({"annotations": []}, False),
        ({"messages": 3}, False),
    ],
    ids=["sound", "misspelt", "conversations", "annotations", "messages of another kind"],
)
def test_what_is_recognised_as_regions(changes, known):
    assert is_record(record(**changes)) is known


# -- documentation -----------------------------------------------------------------------------------------


def blocks(page, language):
    text = (Path(__file__).parent.parent / "docs" / page).read_text(encoding="utf-8")
    return [block.partition("```")[0] for block in text.split(f"```{language}\n")[1:]]


def test_the_samples_of_the_documentation_are_sound():
    street, frames, masks, video, change = map(json.loads, blocks("data.md", "json"))
    assert len(read_sample(street, place()).regions) == 2
    assert list(read(**about_video(**frames)).regions[0].frames) == [0, 12]
    assert read_sample(masks, place()).targets == (1, 2)
    (target,) = read_sample(video, place()).regions
    assert (list(target.frames), target.absent) == ([0, 5], (10, 15))
    content = read_sample(change, place()).messages[0]["content"]
    assert kinds_of(content) == ["before.jpg", " was yesterday, ", "after.jpg", " is today. What has changed?"]


def test_the_format_of_the_documentation_works(monkeypatch, file):
    (source,) = [block for block in blocks("plugins.md", "python") if "DataFormatSpec(" in block]
    written = {"__name__": "clicks"}
    monkeypatch.setitem(sys.modules, "clicks", types.SimpleNamespace(**written))  # where dataclasses look
    exec(source, written)
    found = []
    written["register_data_formats"](found.append)
    monkeypatch.setattr(plugins, "list_data_formats", lambda: found)
    lines = [
        {"photo": "a.jpg", "click": [3, 4], "label": "A car."},
        {"photo": "b.jpg", "click": [3], "label": "A bus."},
    ]
    dataset = RegionDataset.open(file("\n".join(map(json.dumps, lines))))
    assert dataset.format == "clicks"
    assert dataset[0].regions == (Region.from_points([(3, 4)]),)
    with pytest.raises(SampleError, match=r"line 2, sample 'b\.jpg': region 0: Points must be one or more"):
        dataset[1]


# -- rows --------------------------------------------------------------------------------------------------


def test_rows_of_a_list(tmp_path):
    rows = [
        record(id=None),
        record(id=None, image=Image.new("RGB", (4, 4)), regions=[Region.from_box((1, 2, 3, 4))]),
        7,
    ]
    dataset = RegionDataset.from_rows(rows, media_root=tmp_path)
    assert dataset[0].name == "row 0, sample '0'"
    assert dataset[0].media("image")[0]["image"] == str(tmp_path / "street.jpg")
    assert dataset[1].media("image")[0]["image"] is rows[1]["image"]
    assert dataset[1].regions == (Region.from_box((1, 2, 3, 4)),)
    assert ids(dataset.__getitems__([0, 2])) == ["0", "SampleError"]
    assert RegionDataset.from_rows(rows, format="auto", name="shard").name == "shards"


def hugging_face(rows):
    from datasets import Dataset

    return Dataset.from_list(rows)


@pytest.mark.parametrize("format", ["auto", "regions", "coco", "refcoco"])
def test_a_pipe_is_refused_as_it_is_read_once_only(format, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="pipe' is no regular file.*Write it to one first"):
        RegionDataset.open(tmp_path / "pipe", format=format)


def test_rows_of_a_hugging_face_dataset(tmp_path):
    from datasets import Image as ImageFeature

    Image.new("RGB", (6, 4), "red").save(tmp_path / "red.png")
    rows = [
        {"image": str(tmp_path / "red.png"), "regions": [{"box": [1, 2, 3, 4]}], "messages": [QUESTION, ANSWER]},
        {
            "image": str(tmp_path / "red.png"),
            "regions": [{"points": [[1, 2]], "radius": 2}],
            "messages": [QUESTION, ANSWER],
        },
        {"messages": [QUESTION | {"content": "Hello?"}, ANSWER]},
    ]
    table = hugging_face(rows).cast_column("image", ImageFeature())
    dataset = RegionDataset.from_rows(table)
    assert dataset[0].media("image")[0]["image"].size == (6, 4)
    assert [sample.regions for sample in dataset] == [
        (Region.from_box((1, 2, 3, 4)),),
        (Region.from_points([(1, 2)], radius_px=2),),
        (),
    ]
    assert ids(pickle.loads(pickle.dumps(dataset)).__getitems__([2, 0])) == ["2", "0"]


def test_a_row_whose_picture_is_damaged(tmp_path):
    from datasets import Image as ImageFeature

    (tmp_path / "bad.png").write_bytes(b"no picture")
    table = hugging_face([{"image": str(tmp_path / "bad.png"), "messages": [QUESTION]}])
    dataset = RegionDataset.from_rows(table.cast_column("image", ImageFeature()))
    with pytest.raises(SampleError, match="row 0, sample '0': it cannot be read: .*cannot identify image") as caught:
        dataset[0]
    assert [defect.kind for defect in caught.value.defects] == ["media"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "There are no rows"),
        ({"train": [], "test": []}, "got dict. Take one of its splits: train, test"),
        (iter([record()]), "must have a length and be read by index.* got list_iterator"),
        ("train.jsonl", "got str"),
    ],
    ids=["none", "splits", "a stream", "a path"],
)
def test_rows_that_are_none(rows, message):
    with pytest.raises(DataError, match=message):
        RegionDataset.from_rows(rows)


# -- mixtures ----------------------------------------------------------------------------------------------


def dataset_of(*names):
    return RegionDataset.from_rows([record(id=name) for name in names], name=names[0])


@settings(deadline=None)
@given(parts=st.lists(st.tuples(st.integers(1, 9), st.sampled_from([1, 2, 3, 1.5, 0.5, 2.25])), min_size=1, max_size=4))
def test_a_mixture_has_each_sample_as_often_as_its_weight(parts):
    datasets = [dataset_of(*[f"{part}-{row}" for row in range(size)]) for part, (size, _) in enumerate(parts)]
    weights = [weight if size > 1 or weight >= 1 else 1 for size, weight in parts]
    mixed = MixedDataset(list(zip(datasets, weights, strict=True)))
    assert len(mixed) == sum(int(w) * len(d) + round(w % 1 * len(d)) for d, w in zip(datasets, weights, strict=True))
    found = ids(mixed)
    for dataset, weight in zip(datasets, weights, strict=True):
        times = [found.count(name) for name in ids(dataset)]
        assert {int(weight), -int(-weight // 1)} >= set(times)
        assert sum(times) == int(weight) * len(dataset) + round(weight % 1 * len(dataset))


def test_a_mixture_draws_by_seed():
    large = dataset_of(*[f"s{number}" for number in range(40)])
    first, same, other = (ids(MixedDataset([(large, 0.25)], seed=seed)) for seed in (0, 0, 1))
    assert first == same != other
    assert len(set(first)) == 10
    twice = MixedDataset([(large, 0.25), (large, 0.25)])
    assert ids(twice)[:10] != ids(twice)[10:]


def test_a_mixture_is_as_a_dataset_is(train_file):
    mixed = MixedDataset([(RegionDataset.open(train_file), 2), (dataset_of("a", "b"), 0.5)])
    assert (len(mixed), mixed.format, mixed.name) == (13, "mixed", "2 x train.jsonl + 0.5 x as")
    assert ids(mixed.__getitems__([0, 6, 2, 8, -2])) == ["s0", "s0", "SampleError", "SampleError", "s5"]
    assert ids(pickle.loads(pickle.dumps(mixed)).__getitems__([12])) == ids([mixed[12]])
    with pytest.raises(IndexError, match="there is no sample 13"):
        mixed[13]


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf"), "2", True, None])
def test_weights_that_are_none(weight):
    with pytest.raises(DataError, match=r"The weight of as must be a number > 0 of passes per epoch"):
        MixedDataset([(dataset_of("a"), weight)])


def test_a_mixture_of_nothing():
    with pytest.raises(DataError, match="one dataset or more, got none"):
        MixedDataset([])
    with pytest.raises(DataError, match=r"Weight 0\.1 leaves no sample of as, which has 1"):
        MixedDataset([(dataset_of("a"), 0.1)])


def test_an_object_is_told_wherever_the_first_mebibyte_ends(tmp_path, monkeypatch):
    annotation = {"id": 1, "bbox": [-10, 2.5, 1.5e-3, 12e5], "iscrowd": False, "name": "M\u00fcll \\", "area": None}
    whole = {"images": [{"id": 1}], "annotations": [annotation] * 3, "categories": []}
    text = json.dumps(whole).replace("0.0015", "1.5e-3")
    path = tmp_path / "one.json"
    for end in range(2, len(text)):
        monkeypatch.setattr(records, "_PEEK_BYTES", end)
        path.write_text(text)
        found = peek(path)
        assert list(found) == list(whole)[: len(found)]
