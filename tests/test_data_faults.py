"""What users' files, annotation tools and strangers put into data files: read as it is meant, or refused by name."""

import contextlib
import itertools
import json
import logging
import os
import pickle
import re
import struct
import tracemalloc
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pixelrefer_plugin import DataError, PixelReferError, RegionDataset, SampleError
from pixelrefer_plugin.cli import main
from pixelrefer_plugin.data.checks import check_dataset
from pixelrefer_plugin.data.convert import convert_dataset
from pixelrefer_plugin.data.notices import own_warnings
from pixelrefer_plugin.data.plain_pickle import read_plain_pickle
from pixelrefer_plugin.data.preview import draw_sheet
from pixelrefer_plugin.plugins import get_data_format

HW = (80, 120)
QA = [{"role": "user", "content": "What is <region>?"}, {"role": "assistant", "content": "A car."}]
CAR, DOG = {"id": 1, "name": "car", "supercategory": "vehicle"}, {"id": 2, "name": "dog", "supercategory": "animal"}
BUS = {"id": 3, "name": "bus", "supercategory": "vehicle"}


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.png", "sub/c.png", "my photo.png", "\u00e9t\u00e9.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", HW[::-1], "white").save(tmp_path / name)
    return tmp_path


def box(x, y=10, width=20, height=20):
    """A polygon of four corners."""
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def annotation(id, image, category=1, x=None, **more):
    place = {"segmentation": box(5 * id if x is None and isinstance(id, int) else x or 10), "area": 400}
    return {"id": id, "image_id": image, "category_id": category, **place, **more}


def images(*names, **more):
    return [{"id": id, "file_name": name, "height": HW[0], "width": HW[1], **more} for id, name in enumerate(names, 1)]


def coco(annotations, pictures=None, categories=(CAR, DOG, BUS), **more):
    pictures = images("a.png", "b.png") if pictures is None else pictures
    return {"images": pictures, "annotations": annotations, "categories": list(categories), **more}


def opened(folder, content, format="coco", name="data.json", **options):
    text = content if isinstance(content, str | bytes) else json.dumps(content, ensure_ascii=False)
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return RegionDataset.open(folder / name, format=format, options=options)


def run(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def answers(dataset):
    """Question and answer of each sample, and where its regions begin."""
    return [
        (
            sample.messages[0]["content"][1]["text"],
            sample.messages[1]["content"],
            [each.data for each in sample.regions],
        )
        for sample in dataset
    ]


def num_masks(dataset):
    return [sample.messages[1]["content"].count("<seg>") for sample in dataset]


# -- every object ------------------------------------------------------------------------------------------

ONE_NAME = ["car", "Car", " car ", "CAR", "ca\u200br", "\uff43\uff41\uff52"]
SAME_NAMES = [
    *itertools.product(ONE_NAME[:1], ONE_NAME),
    ("traffic light", "traffic_light"),
    ("traffic light", "traffic\u00a0light"),
    ("traffic light", "Traffic  Light"),
    ("café", unicodedata.normalize("NFD", "café")),
    ("straße", "STRASSE"),
]


@pytest.mark.parametrize(("one", "other"), SAME_NAMES, ids=lambda name: repr(name))
def test_categories_that_are_one_name_are_asked_about_at_once(one, other, folder):
    twins = [{"id": 1, "name": one}, {"id": 2, "name": other}, DOG | {"id": 3}]
    content = coco([annotation(1, 1, 1), annotation(2, 1, 2), annotation(3, 1, 3)], categories=twins)
    assert num_masks(opened(folder, content, task="segment")) == [2, 1]
    for name in (one, other):
        assert num_masks(opened(folder, content, task="segment", categories=[name])) == [2]


@pytest.mark.parametrize("other", ["a.png", "./a.png", "sub/../a.png", "sub//..//a.png", "absolute"])
def test_images_that_are_one_picture_are_asked_about_at_once(other, folder):
    name = str(folder / "a.png") if other == "absolute" else other
    content = coco([annotation(1, 1), annotation(2, 2), annotation(3, 2, 2)], images("a.png", name))
    assert num_masks(opened(folder, content, task="segment")) == [2, 1]
    (sample,) = opened(folder, content, task="segment", per_image=True)
    assert [message["content"] for message in sample.messages[1::2]] == ["[1] <seg>, [2] <seg>", "<seg>"]


def test_images_of_one_picture_but_of_other_sizes_are_a_defect(folder):
    pictures = [*images("a.png"), {"id": 2, "file_name": "a.png", "height": 40, "width": 60}]
    dataset = opened(folder, coco([annotation(1, 1), annotation(2, 2)], pictures), task="segment")
    with pytest.raises(SampleError, match=r"images 1 and 2 are one file, but of sizes .* \[80, 120\] and \[40, 60\]"):
        dataset[0]


def pixels(x):
    """The polygon `box(x)` as run lengths of pixels."""
    mask = np.zeros(HW, bool)
    mask[10:30, x : x + 20] = True
    changes = np.flatnonzero(np.diff(mask.T.ravel().astype(int))) + 1
    runs = np.diff([0, *changes.tolist(), mask.size]).tolist()
    return {"size": list(HW), "counts": runs}


SAME_MASK = {
    "as it is": box(10),
    "from another corner": [[*box(10)[0][2:], *box(10)[0][:2]]],
    "the other way round": [
        [each for pair in reversed(list(zip(box(10)[0][::2], box(10)[0][1::2], strict=True))) for each in pair]
    ],
    "closed": [[*box(10)[0], *box(10)[0][:2]]],
    "in two parts": [box(10, width=12)[0], box(22, width=8)[0]],
    "as pixels": pixels(10),
}


@pytest.mark.parametrize("other", SAME_MASK.values(), ids=SAME_MASK)
@pytest.mark.parametrize("sized", [True, False])
def test_objects_that_are_one_mask_are_one_object(other, sized, folder):
    pictures = images("a.png", **({} if sized else {"height": None, "width": None}))
    same = coco([annotation(1, 1, x=10), annotation(2, 1, segmentation=other), annotation(3, 1, x=60)], pictures)
    knows_pixels = sized or isinstance(other, dict)
    if knows_pixels or other == box(10):
        assert num_masks(opened(folder, same, task="segment")) == [2]


def test_a_question_by_a_wider_class_has_all_its_objects(folder):
    content = coco([annotation(1, 1, 1), annotation(2, 1, 3), annotation(3, 1, 2), annotation(4, 2, 3)])
    question = "Segment every {supercategory}."
    dataset = opened(folder, content, task="segment", question=question)
    assert [(asked, answer) for asked, answer, _ in answers(dataset)] == [
        ("Segment every vehicle.", "[1] <seg>, [2] <seg>"),
        ("Segment every animal.", "<seg>"),
        ("Segment every vehicle.", "<seg>"),
    ]
    with pytest.raises(DataError, match="1 left out, beside one that is left out, so that not every object"):
        opened(folder, content, task="segment", question=question, categories="car")
    both = opened(folder, content, task="segment", question="Segment all you see.")
    assert num_masks(both) == [3, 1]
    vehicles = opened(folder, content, task="segment", question="Segment all vehicles.", categories=["car", "bus"])
    assert num_masks(vehicles) == [2, 1]
    with pytest.raises(PixelReferError, match="questions that all name the same fields of a category"):
        opened(folder, content, task="segment", question=["Every {name}?", "Every {supercategory}?"])
    with pytest.raises(SampleError, match=r"have several {name}, 'car' and 'bus': the answer names one"):
        opened(folder, content, task="segment", question=question, answer="{name}: {masks}")[0]


def test_an_object_of_a_narrower_category_keeps_the_wider_one_from_being_asked(folder):
    vehicle = {"id": 4, "name": "Vehicle", "supercategory": "none"}
    content = coco([annotation(1, 1, 4), annotation(2, 1, 1), annotation(3, 2, 4)], categories=[CAR, vehicle])
    dataset = opened(folder, content, task="segment")
    assert [sample.id for sample in dataset] == ["1-2", "2-3"]
    assert dataset.left_out == {"beside one of a narrower category, which is no answer of theirs": 1}


def test_what_lacks_the_field_of_a_question_is_not_asked_about(folder):
    content = coco([annotation(1, 1)], categories=[{"id": 1, "name": "car"}])
    with pytest.raises(SampleError, match="asks for 'supercategory'"):
        opened(folder, content, task="segment", question="Every {supercategory}?")[0]


def test_an_object_of_an_unknown_category_may_be_of_any(folder):
    content = coco([annotation(1, 1), annotation(2, 1, 77), annotation(3, 2)])
    dataset = opened(folder, content, task="segment")
    assert dataset.left_out == {"beside one of an unknown category, which may be theirs": 1}
    with pytest.raises(SampleError, match="its category_id is of no category in the file: 77"):
        dataset[0]
    assert dataset[1].id == "2-3"


def test_lvis_does_not_ask_about_several_categories_at_once(folder):
    pictures = images("a.png", neg_category_ids=[2], not_exhaustive_category_ids=[])
    content = coco([annotation(1, 1)], pictures, categories=[CAR, CAR | {"id": 9, "name": "Car"}])
    with pytest.raises(DataError, match="looks for some categories only in each picture"):
        opened(folder, content, "lvis", task="segment")
    assert len(opened(folder, content, "lvis")) == 1


@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(0, 3), st.booleans()), min_size=1, max_size=12
    ),
    st.sampled_from(["{name}", "{supercategory}"]),
)
def test_no_question_about_every_object_misses_one(tmp_path_factory, found, asked):
    """Whatever pictures, categories and masks are the same: a brute-force search finds no other object."""
    folder = tmp_path_factory.mktemp("every")
    names = {1: ("car", "vehicle"), 2: ("Car", "vehicle"), 3: ("bus", "Vehicle"), 4: ("dog", "animal")}
    files = {1: "a.png", 2: "b.png", 3: "./a.png"}
    content = coco(
        [
            annotation(number, image, category, x=10 + 25 * place, iscrowd=int(crowd))
            for number, (image, category, place, crowd) in enumerate(found, 1)
        ],
        [{"id": id, "file_name": name, "height": HW[0], "width": HW[1]} for id, name in files.items()],
        [{"id": id, "name": name, "supercategory": wider} for id, (name, wider) in names.items()],
    )
    try:
        dataset = opened(folder, content, task="segment", question=f"Every {asked}?", max_masks=20)
    except DataError:
        return
    there = {}
    for image, category, place, crowd in found:
        key = (os.path.normpath(files[image]), names[category][asked != "{name}"].casefold())
        there.setdefault(key, []).append((place, crowd))
    for sample in dataset:
        (picture,) = sample.media("image")
        what = sample.messages[0]["content"][1]["text"].removeprefix("Every ").removesuffix("?").casefold()
        objects = there.pop((Path(picture["image"]).name, what))
        assert not any(crowd for _, crowd in objects)
        assert len(sample.regions) == len({place for place, _ in objects})
    assert all(any(crowd for _, crowd in objects) for objects in there.values())


# -- references --------------------------------------------------------------------------------------------

TWICE = coco([annotation(7, 1), annotation(7, 2, 2, x=60), annotation(8, 2)])


def ref(**changes):
    return {"ref_id": 1, "ann_id": 7, "split": "train", "sentences": ["the red car"], **changes}


def refs(folder, reference, content=TWICE, **options):
    (folder / "instances.json").write_text(json.dumps(content), encoding="utf-8")
    return opened(folder, [reference], "refcoco", "refs.json", **options)


@pytest.mark.parametrize(
    ("own", "name"),
    [({"image_id": 1}, "a.png"), ({"image_id": "2"}, "b.png"), ({"file_name": "b.png"}, "b.png")],
    ids=repr,
)
@pytest.mark.parametrize("id", [7, "7", 7.0])
def test_an_id_that_is_used_twice_is_told_apart_by_the_references_own_image(own, name, id, folder):
    (sample,) = refs(folder, ref(ann_id=id, **own))
    assert Path(sample.media("image")[0]["image"]).name == name


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (ref(), "reference 1 refers to annotation 7, an id that .*instances.json' has twice"),
        (ref(ann_id=8, image_id=1), "annotation 8, which is not of its own image, image_id 1"),
        (ref(ann_id=8, image_id="nowhere"), "not of its own image, image_id 'nowhere'"),
        (ref(ann_id=8, file_name="a.png"), "not of its own image, file_name 'a.png'"),
        (ref(ann_id=8, image_id=2, file_name="./a.png"), "not of its own image, file_name './a.png'"),
        (ref(ann_id=True), "refers to annotation True, which .* does not have"),
        (ref(ann_id="07"), "refers to annotation '07', which .* does not have"),
        (ref(ann_id=None), "refers to annotation None, which .* does not have"),
        (ref(ann_id=[7]), r"refers to annotation \[7\], which .* does not have"),
        (ref(split=["train"]), "the 'split' of a reference must be a text, got"),
    ],
    ids=lambda value: "" if isinstance(value, str) else repr(value),
)
def test_references_of_which_it_is_not_known_what_they_mean(reference, message, folder):
    with pytest.raises(DataError, match=message):
        refs(folder, reference)


def test_all_references_that_are_refused_are_told(folder):
    (folder / "instances.json").write_text(json.dumps(TWICE), encoding="utf-8")
    wrong = [ref(ref_id=number, ann_id=number) for number in range(100, 103)]
    with pytest.raises(DataError, match="reference 100 .*; reference 101 .*; reference 102 "):
        opened(folder, wrong, "refcoco", "refs.json")


@pytest.mark.parametrize("own", [1, "1", 1.0])
@pytest.mark.parametrize("said", [1, "1", 1.0])
def test_an_id_is_the_same_as_a_text_and_as_a_number(own, said, folder):
    content = coco([annotation(1, said, said)], [{**images("a.png")[0], "id": own}], [CAR | {"id": own}])
    (sample,) = opened(folder, content)
    assert sample.messages[1]["content"] == "car"
    content["images"].append({**images("b.png")[0], "id": said})
    with pytest.raises(DataError, match="two images with id 1"):
        opened(folder, content)


@pytest.mark.parametrize("id", [77, "x", None, True, [1], {"a": 1}, 1.5, 10**400])
def test_an_unknown_image_or_category_is_shown(id, folder):
    dataset = opened(folder, coco([annotation(1, id, id)]))
    with pytest.raises(SampleError) as caught:
        dataset[0]
    said = " ".join(defect.message for defect in caught.value.defects)
    assert "its image_id is of no image in the file: " in said
    assert "its category_id is of no category in the file: " in said
    assert len(said) < 600


def test_masks_of_one_frame_or_pictures_of_one_name_are_not_confused(folder):
    rle = pixels(10)
    talk = [{"from": "human", "value": "<video>\nWhat is <region>?"}, {"from": "gpt", "value": "A car."}]
    record = {"video": "a.mp4", "conversations": talk, "masks": [{"1": rle, "01": rle}]}
    with pytest.raises(SampleError, match="object 0: it has two masks on frame 1"):
        opened(folder, [record], "pixelrefer")[0]
    frames = {"video": ["a.png", "b.png", "a.png"], "timestamps": [0, 1, 2], "conversations": talk}
    for masked, message in [
        (["a.png"], "several times"),
        (["a.png", "b.png"], "a picture for each of 1 frames, got 2"),
    ]:
        with pytest.raises(SampleError, match=message):
            opened(folder, [{**frames, "masks": [{"0": rle}], "masked_video": masked}], "pixelrefer")[0]
    described = {
        "id": 1,
        "file_name": "a.png",
        "annotation": [{"segmentation": box(1)}, {"segmentation": box(50)}],
        "description": ["<region2>: A dog.", "<region1>: A car."],
    }
    with pytest.raises(SampleError, match="description 1 is of <region2>"):
        opened(folder, [described], "osprey")[0]


# -- what is left out --------------------------------------------------------------------------------------

CROWD = "iscrowd (skip_crowd=false keeps them)"


def test_crowds_are_said_to_be_left_out(folder):
    content = coco([annotation(1, 1), annotation(2, 1, iscrowd=1), annotation(3, 2, iscrowd=1)])
    assert opened(folder, content).left_out == {
        CROWD: 2,
    }
    for command in (["validate"], ["preview", "--out", folder / "sheet.png"], ["convert"]):
        more = [folder / "out.jsonl"] if command == ["convert"] else []
        result = run(command[0], folder / "data.json", *more, *command[1:])
        assert f"data.json: 2 left out, {CROWD}" in result.output, command
    assert json.loads(run("validate", folder / "data.json", "--json").stdout)["summary"]["left_out"] == {CROWD: 2}
    assert opened(folder, content, skip_crowd=False).left_out == {}
    with pytest.raises(
        DataError, match=r"None of the 1 annotations .*options. 1 left out, iscrowd \(skip_crowd=false keeps"
    ):
        opened(folder, coco([annotation(1, 1, iscrowd=1)], images("a.png")))


@pytest.mark.parametrize("crowd", [1, True, 1.0, "1"])
def test_a_crowd_is_one_however_it_is_written(crowd, folder):
    assert opened(folder, coco([annotation(1, 1), annotation(2, 2, iscrowd=crowd)])).left_out == {CROWD: 1}


def test_every_filter_is_counted(folder):
    content = coco([annotation(1, 1), annotation(2, 1, 2), annotation(3, 2, area=4), annotation(4, 2, iscrowd=1)])
    content["images"] += [{"id": 9, "file_name": "sub/c.png"}]
    dataset = opened(folder, content, min_area_px=9, categories="car")
    assert sum(dataset.left_out.values()) == 4
    assert [reason.split(" (")[0] for reason in dataset.left_out] == [
        "iscrowd",
        "smaller than min_area_px=9",
        "of other categories",
        "images without an annotation",
    ]
    whole = opened(folder, content, task="segment", max_masks=1)
    assert whole.left_out["beside one that is left out, so that not every object would be answered"] == 1
    many = coco([annotation(1, 1), annotation(2, 1), annotation(3, 2)])
    assert opened(folder, many, task="segment", max_masks=1).left_out == {
        "more than max_masks=1 in one answer (a larger one keeps them)": 2
    }


def test_references_and_expressions_that_are_left_out_are_counted(folder):
    (folder / "instances.json").write_text(json.dumps(coco([annotation(7, 1)])), encoding="utf-8")
    given = [ref(), ref(ref_id=2, split="val"), ref(ref_id=3, sentences=[])]
    dataset = opened(folder, given, "refcoco", "refs.json")
    assert dataset.left_out == {"of other splits than split=train": 1, "references without sentences": 1}
    with pytest.raises(DataError, match=r"no sentences of the split 'train': 1 left out, references without"):
        opened(folder, given[2:], "refcoco", "refs.json")
    (folder / "Annotations").mkdir()
    found = {"0": {"exp": "a cat", "obj_id": "1"}, "1": {"exp": "a bird", "obj_id": []}}
    videos = {"videos": {"v": {"expressions": found, "frames": ["0"]}}}
    assert list(opened(folder, videos, "refvos", "meta.json").left_out.values()) == [1]


def test_a_format_need_not_say_what_it_leaves_out(folder):
    (folder / "own.jsonl").write_text(
        json.dumps({"image": "a.png", "regions": [{"box": [1, 1, 9, 9]}], "messages": QA})
    )
    dataset = RegionDataset.open(folder / "own.jsonl")
    assert (dataset.left_out, dataset.left_out_text) == ({}, "")
    assert "left out" not in run("validate", folder / "own.jsonl").output


# -- texts and numbers -------------------------------------------------------------------------------------

NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z", "P"]), min_size=1, max_size=8)


@given(NAMES, NAMES)
def test_ids_and_names_may_be_in_any_script(tmp_path_factory, id, name):
    folder = tmp_path_factory.mktemp("script")
    content = coco([annotation(id, id, id)], [{**images("a.png")[0], "id": id}], [{"id": id, "name": name}])
    (sample,) = opened(folder, content, categories=[name])
    assert sample.id in (id, unicodedata.normalize("NFC", id))
    assert sample.messages[1]["content"] == " ".join(name.replace("_", " ").split())
    (referred,) = refs(folder, ref(ann_id=id, image_id=id), content)
    assert Path(referred.media("image")[0]["image"]).name == "a.png"


def test_a_file_that_is_not_utf8_is_named(folder):
    text = json.dumps(coco([annotation(1, 1, note="Straße")]), ensure_ascii=False)
    with pytest.raises(DataError, match=r"is not UTF-8: .* at byte \d+ of the file"):
        opened(folder, text.encode("latin-1"))


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("format", ["auto", "coco"])
def test_nan_is_told_with_its_place_and_harms_no_other_sample(word, format, folder):
    content = coco([annotation(1, 1, area="HERE"), annotation(2, 2)], info={"version": "HERE"})
    text = json.dumps(content).replace('"HERE"', word)
    dataset = opened(folder, text, format)
    assert dataset.format == "coco"
    with pytest.raises(SampleError, match=rf"annotations\[0\].*at byte \d+: {word} is no number of JSON: line 1"):
        dataset[0]
    assert dataset[1].id == "2"


def test_nan_in_records_is_told_with_its_place(folder):
    record = {"image": "a.png", "regions": [{"box": [1, 1, 9, 9]}], "messages": QA}
    text = f'{json.dumps(record)[:-1]}, "_score": NaN}}\n{json.dumps(record)}\n'
    dataset = opened(folder, text, "auto", "own.jsonl")
    assert dataset.format == "regions"
    with pytest.raises(SampleError, match="it is not JSON: NaN is no number of JSON: line 1 column"):
        dataset[0]
    assert dataset[1].regions


def test_a_key_that_is_there_twice_is_refused(folder):
    text = json.dumps(coco([annotation(1, 1)]))
    with pytest.raises(DataError, match="The key 'images' is there twice"):
        opened(folder, text[:-1] + ', "images": []}')


def test_json_of_great_depth_is_named_where_the_format_is_looked_for(folder):
    with pytest.raises(DataError, match="nested deeper than 100 levels"):
        opened(folder, '{"a": ' + "[" * 50_000 + "]" * 50_000 + "}", "auto")


# -- media -------------------------------------------------------------------------------------------------


def record(image, **more):
    return {"image": image, "regions": [{"box": [1, 1, 9, 9]}], "messages": QA, **more}


def found(folder, *records, **how):
    """The defects of records."""
    dataset = opened(folder, "".join(f"{json.dumps(each)}\n" for each in records), "regions", "own.jsonl")
    return [[*map(tuple, checked.defects)] for checked in check_dataset(dataset, workers=1, **how)]


NO_PATHS = {
    "sub\\c.png": "written with backslashes, as in Windows. Write '/': .*sub/c.png', which is there",
    "my%20photo.png": "%20 and the like are escapes of addresses. Write .*my photo.png', which is there",
    "e\u0301te\u0301.png": "letters are composed otherwise. Write .*\u00e9t\u00e9.png', which is there",
    "a.png ": "Blanks or quotes stand around it. Write .*a.png', which is there",
    "file:///data/my%20photo.png": "is an address of a file. Give its path, '/data/my photo.png'",
    "https://example.org/a.png": r"is an address \(https://\), and nothing is loaded from the network. Download it",
    "s3://bucket/a.png": r"is an address \(s3://\)",
    "data:image/png;base64," + "A" * 600_000: "is the file itself, as a data: address",
    "x" * 1_000_000: "must be a path, got 'xxx.*of 1,000,000 characters",
    "": "must be a path, got ''",
    "a\0.png": "must be a path",
}


@pytest.mark.parametrize(("path", "message"), NO_PATHS.items(), ids=[key[:20] for key in NO_PATHS])
@pytest.mark.parametrize("quick", [True, False])
def test_what_is_no_path_is_named_as_what_it_is(path, message, quick, folder):
    ((defect, *others),) = found(folder, record(path), quick=quick)
    assert re.search(message, defect[1])
    assert sum(len(each[1]) for each in (defect, *others)) < 1000
    mask = {"image": "a.png", "regions": [{"mask": path}], "messages": QA}
    ((defect, *_),) = found(folder, mask, quick=quick)
    assert re.search(message, defect[1])
    video = {"video": path, "messages": [{**QA[0], "content": "What is it?"}, QA[1]]}
    ((defect, *_),) = found(folder, video, quick=quick)
    assert re.search(message, defect[1])


@given(st.text(max_size=40) | st.text("./\\\\%~:é\u0301 ab", max_size=40), st.sampled_from(["image", "video"]))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_a_path_or_a_defect(folder, text, kind):
    of_kind = record(text) if kind == "image" else {"video": text, "messages": [{**QA[0], "content": "What?"}, QA[1]]}
    for quick in (True, False):
        (defects,) = found(folder, of_kind, quick=quick)
        assert defects or (folder / text).exists()
        assert sum(len(message) for _, message in defects) < 1500


@pytest.mark.parametrize("quick", [True, False])
def test_a_picture_that_its_exif_turns_is_told(quick, folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (120, 80)).save(folder / "turned.jpg", exif=exif)
    ((defect,),) = found(folder, record("turned.jpg", size=[80, 120]), quick=quick)
    assert defect[0] == "size"
    assert "its EXIF says to turn it" in defect[1]
    assert found(folder, record("turned.jpg", size=[120, 80]), quick=quick) == [[]]
    ((defect,),) = found(folder, record("a.png", size=[120, 80]), quick=quick)
    assert "EXIF" not in defect[1]


@pytest.mark.parametrize("size", [[80, 120], [80.0, 120.0]])
def test_sizes_may_be_whole_floats(size, folder):
    assert found(folder, record("a.png", size=size)) == [[]]
    pictures = [{**images("a.png")[0], "height": size[0], "width": size[1]}]
    assert opened(folder, coco([annotation(1, 1)], pictures))[0].media_hw == ((80, 120),)


@pytest.mark.parametrize("side", ["120", 120.5, -120, 0, True, [120]])
def test_sizes_that_are_no_integers_are_shown(side, folder):
    ((defect,),) = found(folder, record("a.png", size=[80, side]))
    assert repr(side) in defect[1]
    pictures = [{**images("a.png")[0], "width": side}]
    with pytest.raises(SampleError, match="size: must be two positive integers"):
        opened(folder, coco([annotation(1, 1)], pictures))[0]


def test_media_may_be_anywhere_unless_the_root_is_strict(folder):
    root = folder / "root"
    root.mkdir()
    Image.new("RGB", HW[::-1]).save(root / "in.png")
    (root / "link.png").symlink_to(folder / "a.png")
    (root / "inner.png").symlink_to(root / "in.png")
    sound = ["in.png", "./in.png", "inner.png", str(root / "in.png"), "../root/in.png"]
    outside = ["../a.png", str(folder / "a.png"), "link.png", "missing/../../a.png"]
    records = [record(path) for path in (*sound, *outside)]
    records += [{"video": {"path": ["in.png", path], "fps": 1}, "messages": QA[1:]} for path in outside[:1]]
    records += [{"image": "in.png", "regions": [{"mask": path}], "messages": QA} for path in outside]
    (root / "own.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in records))
    strict = RegionDataset.open(root / "own.jsonl", strict_media=True)
    results = strict.__getitems__(list(range(len(records))))
    refused = [isinstance(each, SampleError) and "leads out of the media root" in str(each) for each in results]
    assert refused == [False] * len(sound) + [True] * (len(records) - len(sound))
    plain = RegionDataset.open(root / "own.jsonl")
    assert not any("leads out" in str(each) for each in plain.__getitems__(list(range(len(records)))))
    pictures = [{"id": 1, "file_name": "../a.png"}]
    (root / "coco.json").write_text(json.dumps(coco([annotation(1, 1)], pictures)))
    with pytest.raises(SampleError, match="leads out of the media root"):
        RegionDataset.open(root / "coco.json", strict_media=True)[0]
    result = run("validate", root / "coco.json", "--strict-media")
    assert (result.exit_code, "leads out of the media root" in result.output) == (1, True)
    rows = RegionDataset.from_rows([record("../a.png")], media_root=root, strict_media=True)
    with pytest.raises(SampleError, match="leads out"):
        rows[0]


def test_a_held_out_part_of_videos_that_are_lists_of_frames(folder):
    talk = [{**QA[0], "content": "What is it?"}, QA[1]]
    frames = [["a.png", "b.png"], ["b.png", "my photo.png"], ["sub/c.png"], ["sub/c.png", "sub/c.png"]]
    records = [
        {"id": str(number), "video": {"path": path, "fps": 2}, "messages": talk} for number, path in enumerate(frames)
    ]
    dataset = opened(folder, "".join(f"{json.dumps(each)}\n" for each in records), "regions", "own.jsonl")
    convert_dataset(dataset, folder / "out.jsonl", held_out=folder / "held.jsonl", held_out_share=0.5)
    parts = [
        [json.loads(line)["id"] for line in (folder / name).read_text().splitlines()]
        for name in ("out.jsonl", "held.jsonl")
    ]
    assert sorted(parts) == [["0", "1"], ["2", "3"]]


@pytest.mark.parametrize("quick", [True, False])
def test_shares_of_a_pictures_sides_are_no_pixels(quick, folder):
    shares = [0.08, 0.12, 0.41, 0.49]
    ring = [0.1, 0.1, 0.5, 0.1, 0.5, 0.6]
    shapes = [{"box": shares}, {"polygon": ring}, {"points": [[0.5, 0.25]]}, {"scribble": [[0.1, 0.2], [0.6, 0.7]]}]
    for shape in shapes:
        ((defect,),) = found(folder, {**record("a.png"), "regions": [shape]}, quick=quick)
        assert "pixels are expected" in defect[1]
    for more in ({"segmentation": [ring]}, {"segmentation": [], "bbox": [0.08, 0.12, 0.33, 0.37]}):
        (checked,) = check_dataset(opened(folder, coco([annotation(1, 1, **more)], images("a.png"))), quick=quick)
        assert [defect.kind for defect in checked.defects] == ["region"]
    talk = [{"from": "human", "value": "<image>What is <region>?"}, {"from": "gpt", "value": "A car."}]
    rows = [{"image": "a.png", "conversations": talk, "masks": [[ring]]}]
    (checked,) = check_dataset(opened(folder, rows, "pixelrefer"), quick=quick)
    assert [defect.kind for defect in checked.defects] == ["region"]
    assert found(folder, {**record("a.png"), "regions": [{"box": [0, 0, 1, 1]}]}, quick=quick) == [[]]


def test_regions_a_little_outside_are_clipped_where_that_is_asked_for(folder):
    outside = {"box": [100, 60, 121.5, 83]}
    own = {**record("a.png", size=[80, 120]), "regions": [outside]}
    assert [kind for kind, _ in found(folder, own)[0]] == ["region"]
    (sample,) = opened(folder, [own], "regions", clip=True)
    assert sample.regions[0].data == (100, 60, 120, 80)
    with pytest.raises(SampleError, match="region 0: clip needs the size of the picture"):
        opened(folder, [{**record("a.png"), "regions": [outside]}], "regions", clip=True)[0]
    with pytest.raises(SampleError, match="region 0"):
        opened(folder, [{**own, "regions": [{"box": [200, 60, 221, 83]}]}], "regions", clip=True)[0]
    content = coco([annotation(1, 1, segmentation=[], bbox=[100, 60, 21.5, 23])], images("a.png"))
    (sample,) = opened(folder, content, clip=True)
    assert sample.regions[0].data == (100, 60, 120, 80)
    video = {"video": "v.mp4", "size": [80, 120], "regions": [{"frames": {"0": outside}}], "messages": QA}
    (sample,) = opened(folder, [video], "regions", clip=True)
    assert sample.regions[0].frames[0].data == (100, 60, 120, 80)


# -- hostile -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02]r" + struct.pack("<I", 0x10000000) + b".",
        b"\x80\x02]r" + struct.pack("<I", 0xFFFFFFFF) + b".",
        b"(lp268435456\n.",
        b"(lp00000000000000000000000268435456\n.",
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"x.",
        b"\x80\x05\x8e" + struct.pack("<Q", 1 << 40) + b"x.",
        b"\x80\x05\x95" + struct.pack("<Q", 1 << 40) + b"].",
        b"\x80\x02X" + struct.pack("<I", 1 << 31) + b"x.",
        b"\x80\x02\x8b" + struct.pack("<I", 1 << 30) + b"x.",
        b"I" + b"9" * 100_000 + b"\n.",
        b"]" + b"2\x86" * 300 + b".",
        b"(" * 200 + b"t" * 200 + b".",
        b"V\\ud800\n.",
        pickle.dumps({1, 2}, protocol=4),
    ],
    ids=lambda data: repr(data[:16]),
)
def test_a_small_pickle_takes_little(data, tmp_path):
    (tmp_path / "refs.p").write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"refs\.p' is (no pickle that can be read|refused)"):
            read_plain_pickle(tmp_path / "refs.p")
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.binary()
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text("abc"), inner),
)


@given(PLAIN, st.integers(3, 5))
def test_plain_pickles_are_read_as_python_reads_them(tmp_path_factory, value, protocol):
    path = tmp_path_factory.mktemp("plain") / "value.p"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    assert read_plain_pickle(path) == value


@given(st.binary(max_size=60))
def test_no_bytes_are_an_unnamed_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("bytes") / "value.p"
    path.write_bytes(b"\x80\x04" + data)
    with contextlib.suppress(DataError):
        read_plain_pickle(path)


def test_named_pipes_are_not_waited_for(folder):
    os.mkfifo(folder / "instances.json")
    os.mkfifo(folder / "refs.p")
    for name, format in (
        ("instances.json", "coco"),
        ("refs.p", "refcoco"),
        ("instances.json", "dam"),
        ("refs.p", "auto"),
    ):
        with pytest.raises(DataError, match="regular file"):
            RegionDataset.open(folder / name, format=format)
    (folder / "refs.json").write_text(json.dumps([ref()]))
    with pytest.raises(DataError, match="regular file"):
        RegionDataset.open(folder / "refs.json", format="refcoco")


HOSTILE = {
    "huge": 10**400,
    "large": 1e308,
    "long": "x" * 100_000,
    "blanks": " " * 100_000,
    "deep": json.loads("[" * 90 + "]" * 90),
    "NUL": "\0",
    "runs": {"size": [10**5, 10**5], "counts": [0, 10**10]},
}


def places(value, at=()):
    """Where each value in lists and objects stands."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inside:
        yield (*at, key)
        yield from places(each, (*at, key))


def replaced(value, at, new):
    if not at:
        return new
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[at[0]] = replaced(value[at[0]], at[1:], new)
    return changed


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("format", ["regions", "coco", "pixelrefer", "osprey", "dam_regions"])
def test_no_value_of_a_field_is_an_unnamed_error(format, hostile, tmp_path):
    example = get_data_format(format).tiny(tmp_path)
    lines = example.suffix == ".jsonl"
    text = example.read_text()
    content = [json.loads(line) for line in text.splitlines()] if lines else json.loads(text)
    first = {re.sub(r"\d+", "", repr(at)): at for at in reversed(list(places(content)))}
    for at in first.values():
        broken = replaced(content, at, hostile)
        example.write_text("".join(f"{json.dumps(each)}\n" for each in broken) if lines else json.dumps(broken))
        try:
            dataset = RegionDataset.open(example, format=format)
        except PixelReferError as error:
            told = str(error)
        else:
            told = ""
        assert len(told) < 2000, at
        if told:
            continue
        for checked in check_dataset(dataset, workers=1, quick=True):
            assert len(checked.name) < 1000, at
            assert all(kind != "plugin" and len(message) < 2000 for kind, message in checked.defects), at
        with contextlib.suppress(PixelReferError):
            convert_dataset(dataset, tmp_path / "out.jsonl", on_bad_sample="skip")


def test_a_sheet_of_texts_without_end_is_drawn(folder):
    for name, text in (("one word", "x" * 200_000), ("blanks", " " * 200_000), ("lines", "\n" * 20_000)):
        talk = [QA[0], {"role": "assistant", "content": f"A car.{text}"}]
        rows = [record("a.png", id=f"1{text[:900]}") | {"messages": talk}]
        assert draw_sheet(opened(folder, rows, "regions", "own.json")).height < 2000, name
    many = record("a.png") | {"regions": [0] * 5000}
    assert draw_sheet(opened(folder, [many], "regions", "own.json")).height < 2000


# -- what is told while many samples are read --------------------------------------------------------------


def test_the_first_warnings_of_a_kind_are_printed(tmp_path):
    for number in range(5):
        dark = np.full((8, 8), 100 + number, np.uint16)
        Image.fromarray(dark).save(tmp_path / f"{number}.png")
    turns = [{"role": "user", "content": "What is <region>?"}, {"role": "assistant", "content": "It."}]
    records = [
        {"id": str(number), "image": f"{number}.png", "regions": [{"box": [1, 1, 5, 5]}], "messages": turns}
        for number in range(5)
    ]
    (tmp_path / "dark.jsonl").write_text("\n".join(map(json.dumps, records)))
    result = CliRunner().invoke(main, ["validate", str(tmp_path / "dark.jsonl")])
    assert result.exit_code == 0
    told = result.stderr.splitlines()
    assert len(told) == 4
    assert all(line.startswith("Warning: Image '") and "has 16 bits" in line for line in told[:3])
    assert told[3] == "Warning: ... and 2 more of these."


def test_libraries_are_not_printed_and_what_they_log_later_is(capsys):
    library = logging.getLogger("a_library")
    said = []
    with own_warnings(said.append, most=1):
        library.warning("for developers")
        warnings.warn("for developers", stacklevel=1)
        for _ in range(3):
            logging.getLogger("pixelrefer_plugin.data").warning("for users")
    assert said == ["for users", "... and 2 more of these."]
    assert logging.lastResort.level == logging.WARNING
