"""Foreign data formats, in records written as the real files have them: read, refused, and taken by a processor."""

import contextlib
import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import stencil
from conftest import picture
from PIL import Image
from pycocotools import mask as coco
from videos import HW, write_video

from pixelrefer_plugin import DataError, PixelReferError, Region, RegionDataset, SampleError, VideoRegion
from pixelrefer_plugin.contracts.samples import RecordPlace, RegionSample
from pixelrefer_plugin.data import schema
from pixelrefer_plugin.data.json_object import read_span, scan_object
from pixelrefer_plugin.plugins import get_data_format, list_data_formats
from pixelrefer_plugin.testing import make_pair
from pixelrefer_plugin.training.collator import RegionCollator

HEIGHT, WIDTH = HW
SQUARE = [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]]


def rle(box_xyxy=(10, 10, 30, 30)):
    """A box as compressed RLE, as in JSON."""
    mask = np.zeros(HW, np.uint8, order="F")
    x0, y0, x1, y1 = box_xyxy
    mask[y0:y1, x0:x1] = 1
    encoded = coco.encode(mask)
    return {"size": [HEIGHT, WIDTH], "counts": encoded["counts"].decode()}


BLANK = rle((0, 0, 0, 0))
UNCOMPRESSED = {"size": [HEIGHT, WIDTH], "counts": [10 * HEIGHT + 10, 20, HEIGHT * WIDTH - 10 * HEIGHT - 30]}


def turns(question, answer="A red car."):
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


IMAGE = {
    "image": "images/street.png",
    "conversations": turns("<image>\nWhat is the relationship of <region> and <region>?"),
    "masks": [rle(), SQUARE],
    "width": WIDTH,
    "height": HEIGHT,
}
VIDEO = {
    "video": ["videos/street.mp4"],
    "conversations": turns("<video>\nWhat is the relationship of <region> and <region>?"),
    "masks": [{"0": rle()}, {"3": rle(), "5": UNCOMPRESSED, "7": BLANK}],
}
VIDEOREFER = {
    "id": 7,
    "video": "videos/street.mp4",
    "conversations": turns("<video>\nWhat is <region> doing in the video?"),
    "annotation": [{"0": {"segmentation": rle()}, "4": {"segmentation": None}, "6": {"segmentation": SQUARE}, "8": {}}],
}
OSPREY = {
    "id": 9,
    "file_name": "COCO_train2014_000000000009.jpg",
    "height": HEIGHT,
    "width": WIDTH,
    "conversations": turns("What is the color of <region2>, and of <region1>?", "Red and blue."),
    "annotation": [
        {"bbox": [10, 10, 20, 20], "segmentation": SQUARE},
        {"bbox": [10, 10, 20, 20], "segmentation": rle()},
    ],
}
OSPREY_DESCRIPTION = {
    **{key: value for key, value in OSPREY.items() if key != "conversations"},
    "description": ["<region1>: A red car, parked.", "<region2>: A blue bus."],
}
DAM_REGION = {
    "img_id": 31,
    "ann_id": 4,
    "image": "images/street.png",
    "tar_file": "LVIS_0.tar",
    "mask_rle": rle(),
    "caption": "A red car with a white roof.",
}
COCO = {
    "info": {"year": 2017},
    "licenses": [{"id": 1, "name": "CC"}],
    "images": [
        {"id": 31, "file_name": "images/street.png", "height": HEIGHT, "width": WIDTH, "license": 1},
        {"id": 32, "file_name": "images/street.png", "height": HEIGHT, "width": WIDTH, "license": 1},
    ],
    "annotations": [
        {
            "id": 1,
            "image_id": 31,
            "category_id": 3,
            "segmentation": SQUARE,
            "area": 400.0,
            "bbox": [10, 10, 20, 20],
            "iscrowd": 0,
        },
        {"id": 2, "image_id": 32, "category_id": 5, "bbox": [4.5, 4, 10, 6], "area": 60.0, "iscrowd": 0},
        {
            "id": 3,
            "image_id": 31,
            "category_id": 3,
            "segmentation": UNCOMPRESSED,
            "area": 20,
            "bbox": [10, 10, 1, 20],
            "iscrowd": 1,
        },
        {
            "id": 4,
            "image_id": 31,
            "category_id": 5,
            "segmentation": rle(),
            "area": 400,
            "bbox": [10, 10, 20, 20],
            "iscrowd": 0,
        },
    ],
    "categories": [
        {"id": 3, "name": "car", "supercategory": "vehicle"},
        {"id": 5, "name": "Straßenbahn", "supercategory": "vehicle"},
    ],
}
LVIS = {
    "images": [
        {
            "id": 30,
            "coco_url": "http://images.cocodataset.org/train2017/000000000030.png",
            "height": HEIGHT,
            "width": WIDTH,
            "neg_category_ids": [7],
            "not_exhaustive_category_ids": [],
        }
    ],
    "annotations": [
        {"id": 1, "image_id": 30, "category_id": 2, "segmentation": SQUARE, "area": 400.0, "bbox": [10, 10, 20, 20]}
    ],
    "categories": [
        {
            "id": 2,
            "name": "bow_(weapon)",
            "synonyms": ["bow_(weapon)", "long_bow"],
            "synset": "bow.n.04",
            "frequency": "f",
        }
    ],
}
REFS = [
    {
        "ref_id": 50,
        "ann_id": 1,
        "image_id": 31,
        "category_id": 3,
        "file_name": "COCO_train2014_000000000031_1.jpg",
        "split": "train",
        "sent_ids": [1, 2],
        "sentences": [
            {"sent_id": 1, "sent": "the red car", "raw": "The red car!", "tokens": ["the", "red", "car"]},
            {"sent_id": 2, "sent": "car on the left", "raw": "car on the left", "tokens": ["car", "on", "the", "left"]},
        ],
    },
    {
        "ref_id": 51,
        "ann_id": 4,
        "image_id": 31,
        "category_id": 5,
        "file_name": "COCO_train2014_000000000031_4.jpg",
        "split": "testA",
        "sent_ids": [3],
        "sentences": [{"sent_id": 3, "sent": "tram", "raw": "tram", "tokens": ["tram"]}],
    },
]
REFVOS = {
    "videos": {
        "0a": {
            "expressions": {
                "0": {"exp": "a dog on the left.", "obj_id": "1"},
                "1": {"exp": "both animals", "obj_id": ["1", "2"]},
                "2": {"exp": "a bird", "obj_id": []},
            },
            "frames": ["00000", "00005", "00010", "00015"],
        },
        "0b": {"expressions": {"0": {"exp": "a cat", "obj_id": 2}}, "frames": ["00000", "00005"]},
    }
}
OURS = {
    "image": "images/street.png",
    "regions": [{"box": [1, 1, 9, 9]}],
    "messages": [{"role": "user", "content": "What is <region>?"}, {"role": "assistant", "content": "A car."}],
}

FILES = {
    "regions": [OURS],
    "pixelrefer": [IMAGE, VIDEO],
    "videorefer": [VIDEOREFER],
    "osprey": [OSPREY, OSPREY_DESCRIPTION],
    "dam": {"31": [DAM_REGION], "32": [{**DAM_REGION, "img_id": 32}]},
    "dam_regions": [DAM_REGION],
    "coco": COCO,
    "lvis": LVIS,
    "refcoco": REFS,
    "refvos": REFVOS,
}
NUM_REGIONS = {
    "regions": [1],
    "pixelrefer": [2, 2],
    "videorefer": [1],
    "osprey": [2, 2],
    "dam": [1, 1],
    "dam_regions": [1],
    "coco": [1, 1, 1],
    "lvis": [1],
    "refcoco": [1, 1],
    "refvos": [1, 1, 1],
}


@pytest.fixture
def media_root(tmp_path):
    """The pictures and videos that the records name."""
    for name in ("images/street.png", "000000000009.jpg", "31.jpg", "train2017/000000000030.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(picture(HEIGHT, WIDTH)).save(tmp_path / name)
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos/street.mp4", 12)
    (tmp_path / "instances.json").write_text(json.dumps(COCO, ensure_ascii=False), encoding="utf-8")
    write_label_maps(tmp_path)
    return tmp_path


DOG, CAT = (10, 10, 30, 30), (34, 4, 60, 20)
SEEN = {  # which of the objects 1 and 2 are on each frame of each video
    ("0a", "00000"): {1: DOG},
    ("0a", "00005"): {1: DOG, 2: CAT},
    ("0a", "00010"): {2: CAT},
    ("0a", "00015"): {},
    ("0b", "00000"): {2: CAT},
    ("0b", "00005"): {},
}


def write_label_maps(folder):
    """Frames and label maps as Ref-YouTube-VOS has them."""
    for (video, frame), objects in SEEN.items():
        for kind in ("JPEGImages", "Annotations"):
            (folder / kind / video).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(HEIGHT, WIDTH)).save(folder / "JPEGImages" / video / f"{frame}.jpg")
        labels = Image.new("P", (WIDTH, HEIGHT))
        labels.putpalette([0, 0, 0, 236, 95, 103, 249, 145, 87])
        for number, (x0, y0, x1, y1) in objects.items():
            labels.paste(number, (x0, y0, x1, y1))
        labels.save(folder / "Annotations" / video / f"{frame}.png")


@pytest.fixture
def masking(monkeypatch):
    """A processor whose adapter gives masks."""
    stencil.install(monkeypatch)
    made = make_pair("stencil", "videollama3")
    yield made.processor
    made.model.detach()


def opened(folder, content, name="data.json", **options):
    """The dataset of a file with this content."""
    (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return RegionDataset.open(folder / name, options=options)


def read(format, record, **options):
    """The sample of one record."""
    spec = get_data_format(format)
    return spec.read_record(spec.make_config(options), record, RecordPlace("data.json record 1", 0, Path("/media")))


def defects_of(format, record, **options):
    with pytest.raises(SampleError) as caught:
        read(format, record, **options)
    return caught.value.defects


def texts(sample):
    """What is said, turn by turn."""
    contents = [message["content"] for message in sample.messages]
    return [
        content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
        for content in contents
    ]


# -- all formats -------------------------------------------------------------------------------------------


def test_the_table_has_every_installed_format():
    assert sorted(FILES) == [spec.name for spec in list_data_formats()]


@pytest.mark.parametrize("format", FILES)
def test_every_record_is_recognised_by_its_format_alone(format):
    content = FILES[format]
    for record in content if isinstance(content, list) else [content]:
        assert [spec.name for spec in list_data_formats() if spec.recognises(record)] == [format]


@pytest.mark.parametrize("format", FILES)
def test_a_file_is_recognised_read_and_taken_by_a_processor(format, media_root, masking):
    dataset = opened(media_root, FILES[format])
    assert dataset.format == format
    samples = [dataset[index] for index in range(len(dataset))]
    assert [len(sample.regions) for sample in samples] == NUM_REGIONS[format]
    batch = RegionCollator(masking)(samples)
    masks = batch["masks"].objects_per_sample if "masks" in batch else [0] * len(samples)
    taken = zip(batch["regions"].regions_per_sample, masks, strict=True)
    assert [shown + learnt for shown, learnt in taken][: len(samples)] == NUM_REGIONS[format]


@pytest.mark.parametrize("format", FILES)
def test_every_format_and_option_is_documented(format):
    text = (Path(__file__).parent.parent / "docs/data-formats.md").read_text(encoding="utf-8")
    options = [field.name for field in dataclasses.fields(get_data_format(format).config)]
    assert [name for name in (format, *options) if f"`{name}`" not in text] == []


@pytest.mark.parametrize("format", FILES)
def test_samples_written_in_our_schema_are_the_same(format, media_root):
    dataset = opened(media_root, FILES[format])
    for sample in (dataset[index] for index in range(len(dataset))):
        record = json.loads(json.dumps(schema.write_record(sample, media_root)))
        again = schema.read_sample(record, RecordPlace("", 0, media_root))
        assert (again.id, again.messages, again.media_hw) == (sample.id, sample.messages, sample.media_hw)
        for region, other in zip(sample.regions, again.regions, strict=True):
            assert getattr(region, "absent", ()) == getattr(other, "absent", ())
            frames = region.frames if isinstance(region, VideoRegion) else {0: region}
            others = other.frames if isinstance(other, VideoRegion) else {0: other}
            assert {frame: each.to_mask(HW) for frame, each in frames.items()} == {
                frame: each.to_mask(HW) for frame, each in others.items()
            }


@pytest.mark.parametrize("format", FILES)
def test_a_dataset_reads_the_same_after_pickling(format, media_root):
    dataset = opened(media_root, FILES[format])
    again = pickle.loads(pickle.dumps(dataset))
    assert [again[index].messages for index in range(len(again))] == [
        dataset[index].messages for index in range(len(dataset))
    ]


JUNK = [
    None,
    0,
    -1,
    2.5,
    True,
    "",
    "text",
    [],
    {},
    [None],
    [[]],
    [{}],
    {"a": None},
    [1, 2, 3],
    {"0": 7},
    {"segmentation": "x"},
    {"size": [0, 0], "counts": "!"},
    {"size": "x", "counts": []},
    [{"0": {"segmentation": {"counts": None}}}],
    [{"from": "human"}],
    [{"from": None, "value": 3}],
    float("inf"),
]


@pytest.mark.parametrize("junk", JUNK, ids=repr)
@pytest.mark.parametrize(
    ("format", "record"),
    [
        ("pixelrefer", IMAGE),
        ("pixelrefer", VIDEO),
        ("videorefer", VIDEOREFER),
        ("osprey", OSPREY),
        ("osprey", OSPREY_DESCRIPTION),
        ("dam_regions", DAM_REGION),
    ],
)
def test_junk_in_a_record_is_a_sample_or_a_sample_error(format, record, junk):
    for key in record:
        changed = {**record, key: junk}
        with contextlib.suppress(SampleError):
            assert isinstance(read(format, changed), RegionSample)


@pytest.mark.parametrize("table", ["annotations", "images", "categories"])
@pytest.mark.parametrize("task", ["recognition", "qa", "segment"])
def test_junk_in_a_coco_file_is_an_error_of_the_file_or_of_a_sample(table, task, media_root):
    changes = [{**COCO[table][0], key: junk} for key in COCO[table][0] for junk in JUNK]
    for change in [*changes, *JUNK]:
        (media_root / "junk.json").write_text(json.dumps({**COCO, table: [change, *COCO[table][1:]]}), encoding="utf-8")
        with contextlib.suppress(DataError):
            dataset = RegionDataset.open(media_root / "junk.json", format="coco", options={"task": task})
            assert isinstance(dataset[0], RegionSample)


# -- PixelRefer and VideoRefer -----------------------------------------------------------------------------


def test_media_stand_where_their_marker_was_and_sizes_are_kept():
    sample = read("pixelrefer", IMAGE)
    assert sample.media_hw == (HW,)
    assert sample.messages[0]["content"] == [
        {"type": "image", "image": "/media/images/street.png"},
        {"type": "text", "text": "What is the relationship of <region> and <region>?"},
    ]
    assert (sample.id, sample.where) == ("0", "data.json record 1")


def test_a_record_without_a_marker_shows_its_picture_first():
    sample = read("pixelrefer", {**IMAGE, "conversations": turns("<region> or <region>?")})
    assert [part["type"] for part in sample.messages[0]["content"]] == ["image", "text"]


def test_several_pictures_belong_to_one_record_and_masks_lie_on_the_first():
    several = {"image": ["a.png", "b.png"], "conversations": turns("<image><image>\n<region> and <region>?")}
    sample = read("pixelrefer", {**IMAGE, **several})
    assert [part["image"] for part in sample.media("image")] == ["/media/a.png", "/media/b.png"]
    assert [region.image_index for region in sample.regions] == [0, 0]
    assert sample.media_hw == (HW, None)


@pytest.mark.parametrize(
    "record", [{"conversations": turns("Hello?")}, {**IMAGE, "masks": [], "conversations": turns("Hi?")}]
)
def test_records_without_regions_are_samples_too(record):
    assert read("pixelrefer", record).regions == ()


def test_an_object_of_a_video_is_one_region_on_its_frames():
    first, second = read("pixelrefer", VIDEO).regions
    assert list(first.frames) == [0]
    assert list(second.frames) == [3, 5], "a mask without a pixel is no mask"
    assert second.frames[5].to_mask(HW).area == 20


def test_frames_without_a_segmentation_are_left_out_of_the_object():
    (region,) = read("videorefer", VIDEOREFER).regions
    assert list(region.frames) == [0, 6]


def test_an_object_without_any_mask_is_a_defect():
    nothing = {"0": {"segmentation": None}, "3": {}, "5": {"segmentation": []}}
    (defect,) = defects_of("videorefer", {**VIDEOREFER, "annotation": [nothing]})
    assert defect == ("region", "object 0: it has no mask on any frame.")


def test_a_picture_may_have_its_mask_on_frame_zero():
    image = {"image": "a.png", "conversations": turns("<image>\nWhat is <region>?")}
    (region,) = read("videorefer", {**image, "annotation": [{"0": {"segmentation": rle()}}]}).regions
    assert region.to_mask(HW).box_xyxy == (10, 10, 30, 30)


def test_a_list_of_frames_has_times_and_masked_frames_are_found_in_it():
    frames = {
        "video": ["f/0.png", "f/1.png", "f/2.png"],
        "timestamps": [0, 0.5, 1.0],
        "masked_video": ["f/2.png", "f/1.png"],
        "masks": [{"20": rle()}, {"10": rle(), "20": rle()}],
    }
    sample = read("pixelrefer", {**VIDEO, **frames})
    assert sample.media("video") == [
        {"type": "video", "video": ["/media/f/0.png", "/media/f/1.png", "/media/f/2.png"], "times_s": [0, 0.5, 1.0]}
    ]
    assert [list(region.frames) for region in sample.regions] == [[2], [1, 2]]
    missing = {**VIDEO, **frames, "masked_video": ["f/9.png", "f/1.png"]}
    found = defects_of("pixelrefer", missing)
    assert [defect.kind for defect in found] == ["region", "region"]
    assert "'f/9.png', is not one of 'video'" in found[0].message


def test_a_folder_of_frames_has_the_official_rate(media_root):
    (media_root / "frames").mkdir()
    dataset = opened(media_root, [{**VIDEO, "video": "frames"}])
    assert dataset[0].media("video")[0]["fps"] == 3.0
    dataset = opened(media_root, [{**VIDEO, "video": "frames"}], folder_fps=6)
    assert dataset[0].media("video")[0]["fps"] == 6


def test_answers_before_the_first_question_are_left_out():
    begun = [{"from": "gpt", "value": "Hello."}, *IMAGE["conversations"]]
    assert read("pixelrefer", {**IMAGE, "conversations": begun}).messages == read("pixelrefer", IMAGE).messages


def test_all_that_is_wrong_is_said_at_once():
    wrong = {
        **VIDEO,
        "width": 0,
        "height": 48,
        "masks": [rle(), {"first": rle()}, {"0": [1, 2]}],
        "conversations": [*turns("<video>\nWhat is <region>?", " "), {"from": "robot", "value": "?"}],
    }
    kinds = [defect.kind for defect in defects_of("pixelrefer", wrong)]
    assert sorted(kinds) == ["answer", "format", "format", "markers", "region", "region", "region"]


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"annotation": []}, "format", "both 'masks' and 'annotation'"),
        ({"masks": {"0": rle()}}, "format", "'masks' must be a list of objects, got a dict"),
        ({"conversations": turns("<video>\n<region> and <region>?")}, "markers", "<video>"),
        ({"conversations": turns("<image>\n<region>?")}, "markers", "1 <region> but 2 regions were given"),
        ({"masks": [rle(), {"size": [48, 64], "counts": [5]}]}, "region", "object 1: "),
    ],
)
def test_what_does_not_fit_is_named(change, kind, message):
    found = defects_of("pixelrefer", {**IMAGE, **change})
    assert any(defect.kind == kind and message in defect.message for defect in found), found


def test_rows_of_a_hugging_face_dataset_are_read_as_records(media_root):
    from datasets import Dataset

    rows = Dataset.from_list([VIDEO, {**VIDEO, "masks": [{"1": rle()}, {"2": rle()}]}])
    dataset = RegionDataset.from_rows(rows, format="auto", media_root=media_root)
    assert dataset.format == "pixelrefer"
    # A table has every frame that any row names; those that a row lacks are null.
    assert [list(region.frames) for region in dataset[1].regions] == [[1], [2]]


# -- Osprey ------------------------------------------------------------------------------------------------


def test_osprey_questions_point_at_regions_in_their_own_order():
    sample = read("osprey", OSPREY)
    assert texts(sample) == ["What is the color of <region>, and of <region>?", "Red and blue."]
    assert [region.kind for region in sample.regions] == ["rle", "polygon"], "the second is mentioned first"
    assert sample.media("image")[0]["image"] == "/media/000000000009.jpg"
    assert sample.media_hw == (HW,)


def test_an_osprey_region_that_is_mentioned_twice_is_given_twice():
    one = {**OSPREY, "annotation": OSPREY["annotation"][:1]}
    sample = read("osprey", {**one, "conversations": turns("Is <region1> red?") + turns("Is <region1> a car?")})
    assert [region.kind for region in sample.regions] == ["polygon", "polygon"]


@pytest.mark.parametrize(
    "conversations",
    [
        turns("What is left of <region1>?", "That is <region2>."),
        turns("What is the color of <region1>?"),
        turns("What is in the picture?"),
    ],
)
def test_osprey_regions_are_listed_where_questions_do_not_name_them_all(conversations):
    sample = read("osprey", {**OSPREY, "conversations": conversations})
    question, answer = texts(sample)
    assert question.startswith("There are 2 regions in the picture: region1 <region>, region2 <region>.\n")
    assert "<region2>" not in question + answer
    assert [region.kind for region in sample.regions] == ["polygon", "rle"]


def test_osprey_options():
    listed = read("osprey", OSPREY, mention="list", suffix=" Answer briefly.", coco_2017_names=False)
    assert texts(listed)[0] == (
        "There are 2 regions in the picture: region1 <region>, region2 <region>.\n"
        "What is the color of region2, and of region1? Answer briefly."
    )
    assert listed.media("image")[0]["image"].endswith("COCO_train2014_000000000009.jpg")
    with pytest.raises(PixelReferError, match="OspreyConfig.mention must be one of auto, inline, list, got 'all'"):
        read("osprey", OSPREY, mention="all")


@pytest.mark.parametrize("marker", ["<mask><pos>", "<mask>", "<region>"])
def test_osprey_regions_without_numbers_come_in_order(marker):
    sample = read("osprey", {**OSPREY, "conversations": turns(f"Is {marker} left of {marker}?")})
    assert texts(sample)[0] == "Is <region> left of <region>?"
    assert [region.kind for region in sample.regions] == ["polygon", "rle"]


def test_osprey_descriptions_are_asked_for_one_by_one():
    sample = read("osprey", OSPREY_DESCRIPTION)
    first, answer, second, other = texts(sample)
    assert (answer, other) == ("A red car, parked.", "A blue bus.")
    assert first.count("<region>") == second.count("<region>") == 1
    assert texts(read("osprey", OSPREY_DESCRIPTION)) == texts(sample)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conversations": turns("What is <region3>?")}, "its texts have <region3> but it has 2 regions"),
        ({"annotation": [{"bbox": [1, 2, 3, 4]}, {"segmentation": None}]}, "region1: it has no mask"),
        ({"file_name": None}, "image 0: "),
        ({"conversations": None, "description": ["<region1>: A car."]}, "1 descriptions but 2 regions"),
    ],
)
def test_osprey_records_that_are_refused(change, message):
    assert any(message in defect.message for defect in defects_of("osprey", {**OSPREY, **change}))


# -- Describe Anything -------------------------------------------------------------------------------------


def test_dam_regions_are_asked_to_be_described():
    sample = read("dam_regions", DAM_REGION)
    assert sample.id == "31_4"
    assert texts(sample)[1] == DAM_REGION["caption"]
    assert sample.media("image")[0]["image"] == "/media/images/street.png"
    assert texts(read("dam_regions", DAM_REGION, question="What is <region>?"))[0] == "What is <region>?"


def test_dam_pictures_may_be_as_unpacked_from_its_shards():
    assert read("dam_regions", DAM_REGION, images="shards").media("image")[0]["image"] == "/media/31.jpg"


@pytest.mark.parametrize("question", ["Describe it.", "<region> and <region>?", (), 3])
def test_a_question_asks_about_one_region(question):
    with pytest.raises(PixelReferError, match=r"question|wrong type"):
        read("dam_regions", DAM_REGION, question=question)


def test_a_defective_dam_region_harms_no_other(media_root):
    dataset = opened(media_root, {"31": [DAM_REGION, {**DAM_REGION, "mask_rle": BLANK, "caption": None}, "x"]})
    assert dataset[0].id == "31_4"
    with pytest.raises(SampleError, match=r"'mask_rle' is empty.*'caption' must be a text, got None"):
        dataset[1]
    with pytest.raises(SampleError, match="a region must be an object, got 'x'"):
        dataset[2]
    with pytest.raises(DataError, match="has no regions"):
        RegionDataset.open(_written(media_root / "none.json", "{}"), format="dam")


def _written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


# -- COCO --------------------------------------------------------------------------------------------------


def test_coco_annotations_become_questions_about_masks_and_boxes(media_root):
    dataset = opened(media_root, COCO)
    samples = [dataset[index] for index in range(len(dataset))]
    assert [sample.id for sample in samples] == ["1", "2", "4"]
    assert [texts(sample)[1] for sample in samples] == ["car", "Straßenbahn", "Straßenbahn"]
    assert [sample.regions[0].kind for sample in samples] == ["polygon", "box", "rle"]
    assert samples[1].regions[0].data == (4.5, 4.0, 14.5, 10.0)
    assert samples[0].media_hw == (HW,)
    assert samples[0].where == "data.json annotations[0]"


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        ({"skip_crowd": False}, ["1", "2", "3", "4"]),
        ({"min_area_px": 100}, ["1", "4"]),
        ({"categories": ["car"]}, ["1"]),
        ({"categories": "Straßenbahn"}, ["2", "4"]),
        ({"per_image": True}, ["31-1", "32-2"]),
        ({"per_image": True, "max_turns": 1}, ["31-1", "31-4", "32-2"]),
    ],
)
def test_coco_options_choose_annotations(options, ids, media_root):
    dataset = opened(media_root, COCO, **options)
    assert [dataset[index].id for index in range(len(dataset))] == ids


def test_a_crowd_in_uncompressed_rle_is_read(media_root):
    dataset = opened(media_root, COCO, skip_crowd=False)
    assert dataset[2].regions[0].to_mask(HW).area == 20


def test_all_annotations_of_a_picture_are_turns_of_one_sample(media_root):
    sample = opened(media_root, COCO, per_image=True)[0]
    assert [message["role"] for message in sample.messages] == ["user", "assistant"] * 2
    assert texts(sample)[1::2] == ["car", "Straßenbahn"]
    assert len(sample.media("image")) == 1
    assert len(sample.regions) == 2


def test_boxes_in_place_of_masks(media_root):
    dataset = opened(media_root, COCO, region="box")
    assert {dataset[index].regions[0].kind for index in range(len(dataset))} == {"box"}
    with pytest.raises(SampleError, match="annotation 2: it has no 'segmentation'"):
        opened(media_root, COCO, region="mask")[1]


def with_annotation(**changes):
    """The COCO file with one annotation, changed; None takes a key away."""
    annotation = {key: value for key, value in {**COCO["annotations"][0], **changes}.items() if value is not None}
    return {**COCO, "annotations": [annotation]}


@pytest.mark.parametrize(
    "changes", [{"area": 10**400}, {"area": None, "bbox": [1, 1, 10**400, 4], "segmentation": None}]
)
def test_numbers_too_large_to_be_an_area_choose_nothing(changes, media_root):
    dataset = opened(media_root, with_annotation(**changes), min_area_px=100)
    assert len(dataset) == 1


@pytest.mark.parametrize("task", ["phrase", "caption"])
@pytest.mark.parametrize("field", ["caption", "phrase", "description"])
def test_texts_of_annotations(task, field, media_root):
    sample = opened(media_root, with_annotation(**{field: "a red car"}), task=task)[0]
    assert texts(sample)[1] == "a red car"


def test_a_text_may_be_one_of_several_or_the_images(media_root):
    several = opened(media_root, with_annotation(said=["a car", "the car"]), task="phrase", caption_field="said")
    assert texts(several[0])[1] in ("a car", "the car")
    image = {**COCO, "images": [{**image, "caption": "left car"} for image in COCO["images"]]}
    assert texts(opened(media_root, image, task="phrase")[0])[1] == "left car"


@pytest.mark.parametrize(
    ("question", "asked"),
    [("Is it red?", "About <region>: Is it red?"), ("Is <region> red?", "Is <region> red?")],
)
def test_questions_and_answers_of_annotations(question, asked, media_root):
    sample = opened(media_root, with_annotation(question=question, answer="Yes."), task="qa")[0]
    assert texts(sample) == [asked, "Yes."]


def test_own_templates(media_root):
    content = with_annotation(material="steel")
    options = {"question": "Is <region> a {supercategory}?", "answer": "Yes: a {name} of {material}."}
    assert texts(opened(media_root, content, **options)[0]) == ["Is <region> a vehicle?", "Yes: a car of steel."]


def test_the_choice_of_a_question_is_the_annotations(media_root):
    questions = [f"{number}: <region>?" for number in range(4)]
    many = [{**COCO["annotations"][0], "id": id} for id in range(60)]
    dataset = opened(media_root, {**COCO, "annotations": many}, question=questions)
    asked = [texts(dataset[index])[0] for index in range(60)]
    assert set(asked) == set(questions)
    again = opened(media_root, {**COCO, "annotations": many[::-1]}, question=questions)
    assert [texts(again[59 - index])[0] for index in range(60)] == asked


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "guess"}, "CocoConfig.task must be one of recognition, phrase, caption, qa, segment, .* got 'guess'"),
        ({"task": "segment", "question": "<region>?"}, "question must be a question without <region> and <seg>"),
        ({"task": "segment", "question": "Is it <seg>?"}, "question must be a question without <region> and <seg>"),
        ({"task": "segment", "answer": "<seg>"}, "answer must be a text with one {masks}, which becomes <seg>"),
        ({"task": "segment_phrase", "answer": "{phrase}"}, "answer must be a text with one {masks}"),
        ({"task": "segment", "region": "box"}, "region must be mask or auto where masks are asked for, task=segment"),
        ({"task": "segment", "max_masks": 0}, "max_masks must be an integer >= 1"),
        ({"task": "segment", "categories": ["car"]}, "No picture of .* has a category with all its objects annotated"),
        ({"region": "point"}, "CocoConfig.region must be one of auto, mask, box"),
        ({"question": "What is it?"}, "a question with one <region>"),
        ({"answer": "{name.upper}"}, "CocoConfig.answer must be a text in which"),
        ({"answer": "{"}, "CocoConfig.answer must be a text in which"),
        ({"max_turns": 0}, "CocoConfig.max_turns must be an integer >= 1"),
        ({"min_area": 3}, "has no option 'min_area'"),
        ({"categories": ["cat"]}, "has no category 'cat'. It has: Straßenbahn, car"),
        ({"min_area_px": 1e6}, "None of the 4 annotations of .* is left"),
    ],
)
def test_coco_options_that_are_refused(options, message, media_root):
    with pytest.raises(PixelReferError, match=message):
        opened(media_root, COCO, **options)


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (with_annotation(image_id=99), "media", "image_id is of no image in the file"),
        (with_annotation(segmentation=[[1, 2, 3, 4]]), "region", "annotation 1: A polygon needs three or more"),
        (with_annotation(segmentation=[], bbox=None), "region", "annotation 1: it has no 'bbox'"),
        (with_annotation(segmentation=[], bbox=[1, 2, 0, 4]), "region", "a width and a height > 0"),
        (with_annotation(segmentation=[], bbox=[1, 2]), "region", "must be four numbers"),
        (with_annotation(category_id=77), "answer", "asks for 'name'"),
        ({**COCO, "annotations": ["x"]}, "format", "its annotation: it must be an object, got 'x'"),
        ({**COCO, "images": [{"id": 31}], "annotations": COCO["annotations"][:1]}, "format", "image 0: "),
    ],
)
def test_a_defective_annotation_is_an_error_of_its_sample(content, kind, message, media_root):
    (media_root / "bad.json").write_text(json.dumps(content), encoding="utf-8")
    dataset = RegionDataset.open(media_root / "bad.json", format="coco")
    with pytest.raises(SampleError) as caught:
        dataset[0]
    assert any(defect.kind == kind and message in defect.message for defect in caught.value.defects)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no JSON object that can be read"),
        ("[]", "no JSON object that can be read"),
        (json.dumps(COCO)[:-40], "no JSON object that can be read.*Is the file complete"),
        ('{"images": [{"id": 1, "file_name": "a"}]}', "has no annotations"),
        ('{"annotations": [{"id": 1}]}', "has no images"),
        (json.dumps({**COCO, "images": COCO["images"] * 2}), "two images with id 31"),
    ],
)
def test_files_that_are_not_coco(text, message, media_root):
    with pytest.raises(DataError, match=message):
        RegionDataset.open(_written(media_root / "bad.json", text), format="coco")


def test_a_missing_file_is_named(media_root):
    with pytest.raises(DataError, match=r"Cannot read .*none\.json"):
        RegionDataset.open(media_root / "none.json", format="coco")


@pytest.mark.parametrize("form", ["bom", "crlf", "pretty"])
def test_elements_are_found_again_by_their_bytes(form, tmp_path):
    text = json.dumps(COCO, ensure_ascii=False, indent=2 if form != "bom" else None)
    data = text.replace("\n", "\r\n" if form == "crlf" else "\n").encode("utf-8-sig" if form == "bom" else "utf-8")
    (tmp_path / "coco.json").write_bytes(data)
    found = list(scan_object(tmp_path / "coco.json"))
    again = [read_span(tmp_path / "coco.json", element.start, element.stop) for element in found]
    arrays = ("licenses", "images", "annotations", "categories")
    assert again == [COCO["info"], *(each for key in arrays for each in COCO[key])]


def test_a_file_that_changed_since_is_an_error_of_the_sample(media_root):
    dataset = opened(media_root, COCO)
    _written(media_root / "data.json", json.dumps(COCO, indent=4))
    with pytest.raises(SampleError, match="has it changed"):
        dataset[0]


def test_lvis_names_and_places(media_root):
    sample = opened(media_root, LVIS)[0]
    assert texts(sample)[1] == "bow (weapon)"
    assert sample.media("image")[0]["image"] == str(media_root / "train2017/000000000030.png")
    assert texts(opened(media_root, LVIS, answer="{synonyms}")[0])[1] == "bow (weapon), long bow"


# -- masks as answers --------------------------------------------------------------------------------------


def instances(*found, images=2, **keys):
    """A COCO file of `(picture, category)`s, of 3 (car) and 5; their ids count from 1."""
    annotations = [
        {"id": number, "image_id": image, "category_id": category, "segmentation": square(number), "area": 400.0}
        for number, (image, category) in enumerate(found, start=1)
    ]
    pictures = [{"id": id, "file_name": f"images/{id}.png", "height": HEIGHT, "width": WIDTH} for id in range(images)]
    return {"images": pictures, "annotations": annotations, "categories": COCO["categories"]} | keys


def square(number):
    """The mask of one object; different objects have different masks."""
    return [[side + number for side in SQUARE[0]]]


def changed(content, id, **changes):
    return {**content, "annotations": [each | (changes if each["id"] == id else {}) for each in content["annotations"]]}


def test_a_category_is_answered_by_the_masks_of_all_its_objects(media_root):
    dataset = opened(media_root, instances((0, 3), (0, 5), (1, 5), (0, 3)), task="segment")
    samples = list(dataset)
    assert [sample.id for sample in samples] == ["0-1", "0-2", "1-3"]
    assert [texts(sample)[1] for sample in samples] == ["[1] <seg>, [2] <seg>", "<seg>", "<seg>"]
    assert [sample.targets for sample in samples] == [(0, 1), (0,), (0,)]
    assert "car" in texts(samples[0])[0]
    assert samples[0].media_hw == (HW,)
    (own,) = opened(media_root, instances((0, 3)), task="segment", question="the {name}?", answer="Here: {masks}.")
    assert texts(own) == ["the car?", "Here: <seg>."]


WHOLE = instances((0, 3), (0, 3), (0, 5), (1, 3))
NOT_WHOLE = {
    "all are whole": (WHOLE, {}, ["0-1", "0-3", "1-4"]),
    "one is a crowd": (changed(WHOLE, 2, iscrowd=1), {}, ["0-3", "1-4"]),
    "crowds are objects": (changed(WHOLE, 2, iscrowd=1), {"skip_crowd": False}, ["0-1", "0-3", "1-4"]),
    "one is small": (changed(WHOLE, 1, area=4), {"min_area_px": 9}, ["0-3", "1-4"]),
    "too many": (WHOLE, {"max_masks": 1}, ["0-3", "1-4"]),
    "of some categories": (WHOLE, {"categories": "car"}, ["0-1", "1-4"]),
    "LVIS says so": (
        WHOLE | {"images": [WHOLE["images"][0] | {"not_exhaustive_category_ids": [3]}, WHOLE["images"][1]]},
        {},
        ["0-3", "1-4"],
    ),
}


@pytest.mark.parametrize(("content", "options", "ids"), NOT_WHOLE.values(), ids=NOT_WHOLE)
def test_a_category_is_asked_about_only_where_it_is_annotated_whole(content, options, ids, media_root):
    (media_root / "data.json").write_text(json.dumps(content), encoding="utf-8")
    dataset = RegionDataset.open(media_root / "data.json", format="coco", options={"task": "segment", **options})
    assert [sample.id for sample in dataset] == ids


@pytest.mark.parametrize(
    ("options", "answers"),
    [
        ({}, [["[1] <seg>, [2] <seg>", "<seg>"], ["<seg>"]]),
        ({"max_masks": 2}, [["[1] <seg>, [2] <seg>"], ["<seg>"], ["<seg>"]]),
        ({"max_turns": 1}, [["[1] <seg>, [2] <seg>"], ["<seg>"], ["<seg>"]]),
    ],
)
def test_all_categories_of_a_picture_are_turns_of_one_sample(options, answers, media_root):
    content = instances((0, 3), (1, 5), (0, 3), (0, 5))
    samples = list(opened(media_root, content, task="segment", per_image=True, **options))
    assert [texts(sample)[1::2] for sample in samples] == answers
    assert [sample.id.split("-")[0] for sample in samples] == ["0"] * (len(answers) - 1) + ["1"]


def test_a_mask_is_needed_to_learn_one(media_root):
    content = instances((0, 3), (0, 5))
    content["annotations"][0] |= {"segmentation": [], "bbox": [1, 1, 9, 9]}
    dataset = opened(media_root, content, task="segment")
    with pytest.raises(SampleError, match="annotation 1: it has no 'segmentation'"):
        dataset[0]
    assert dataset[1].targets == (0,)


def test_a_text_of_an_annotation_is_answered_by_its_mask(media_root):
    content = with_annotation(phrase="the red car.")
    (sample,) = opened(media_root, content, task="segment_phrase", question="Where is {phrase}?")
    assert texts(sample) == ["Where is the red car?", "<seg>"]
    with pytest.raises(SampleError, match="asks for 'phrase'"):
        opened(media_root, COCO, task="segment_phrase")[0]


def test_expressions_are_answered_by_masks(media_root, masking):
    samples = list(opened(media_root, REFS, task="segment"))
    assert [sample.id for sample in samples] == ["50-0", "50-1"]
    assert ["the red car" in texts(samples[0])[0], texts(samples[0])[1]] == [True, "<seg>"]
    assert [sample.targets for sample in samples] == [(0,), (0,)]
    assert samples[0].regions[0].kind == "polygon"
    (sample,) = opened(media_root, REFS, task="segment", per_image=True, question="{phrase}?", answer="Sure: {masks}")
    assert texts(sample) == ["the red car?", "Sure: <seg>", "car on the left?", "Sure: <seg>"]
    assert len(list(opened(media_root, REFS, task="segment", per_image=True, max_masks=1))) == 2
    assert RegionCollator(masking)([sample])["masks"].objects_per_sample == (2, 0)
    with pytest.raises(PixelReferError, match=r"RefCocoConfig\.task must be one of phrase, segment, got 'qa'"):
        opened(media_root, REFS, task="qa")


@pytest.mark.parametrize("content", [instances((0, 3)), LVIS, REFS], ids=["coco", "lvis", "refcoco"])
def test_default_questions_about_masks_are_whole_sentences(content, media_root):
    question, answer = texts(opened(media_root, content, task="segment")[0])
    assert question[-1] in ".?"
    assert not {"{", "<"} & set(question)
    assert answer == "<seg>"


# -- videos with expressions -------------------------------------------------------------------------------


def known(sample, number=0):
    """The frames of a target, with the box of each, and those on which it is absent."""
    region = sample.regions[number]
    return {frame: each.to_mask(HW).box_xyxy for frame, each in region.frames.items()}, region.absent


def test_expressions_about_videos_are_answered_by_masks(media_root):
    samples = list(opened(media_root, REFVOS))
    assert [sample.id for sample in samples] == ["0a-0", "0a-1", "0b-0"], "a bird is nowhere: there is no mask to learn"
    assert "a dog on the left" in texts(samples[0])[0]
    assert ".." not in texts(samples[0])[0]
    assert texts(samples[0])[1] == "<seg>"
    (video,) = samples[0].media("video")
    assert video["video"] == [
        str(media_root / f"JPEGImages/0a/{name}.jpg") for name in REFVOS["videos"]["0a"]["frames"]
    ]
    assert video["fps"] == 6
    assert known(samples[0]) == ({0: DOG, 1: DOG}, (2, 3))
    assert known(samples[2]) == ({0: CAT}, (1,))


def test_an_expression_about_several_objects_has_one_mask_of_all(media_root):
    both = opened(media_root, REFVOS)[1]
    assert known(both) == ({0: DOG, 1: (10, 4, 60, 30), 2: CAT}, (3,))
    assert both.regions[0].frames[1].to_mask(HW).area == 20 * 20 + 26 * 16


def run_lengths():
    """The same masks as `mask_dict.json` of MeViS has them: by annotation, null where an object is absent."""
    of_video = {video: [frame for each, frame in SEEN if each == video] for video, _ in SEEN}
    return {
        f"{index}{number}": [
            rle(SEEN[video, frame][number]) if number in SEEN[video, frame] else None for frame in names
        ]
        for index, (video, names) in enumerate(of_video.items())
        for number in (1, 2)
    }


def as_mevis(**changes):
    """The same expressions with `anno_id`, as MeViS has them."""
    videos = json.loads(json.dumps(REFVOS["videos"]))
    ids = {("0a", "0"): ["01"], ("0a", "1"): ["01", "02"], ("0a", "2"): [], ("0b", "0"): ["12"]}
    for (video, id), annotations in ids.items():
        expression = videos[video]["expressions"][id]
        expression["anno_id"] = annotations
        expression["obj_id"] = list(range(len(annotations)))
    return {"videos": videos} | changes


def test_run_lengths_say_the_same_as_label_maps(media_root):
    (media_root / "mevis").mkdir()
    _written(media_root / "mevis/mask_dict.json", json.dumps(run_lengths()))
    _written(media_root / "mevis/meta_expressions.json", json.dumps(as_mevis()))
    dataset = RegionDataset.open(media_root / "mevis/meta_expressions.json", media_root=media_root)
    for sample, expected in zip(dataset, opened(media_root, REFVOS), strict=True):
        assert (sample.id, sample.messages, known(sample)) == (expected.id, expected.messages, known(expected))
        one, other = sample.regions[0].frames, expected.regions[0].frames
        assert {frame: each.to_mask(HW) for frame, each in one.items()} == {
            frame: each.to_mask(HW) for frame, each in other.items()
        }


def test_masks_and_frames_may_lie_elsewhere(media_root):
    (media_root / "Annotations").rename(media_root / "labels")
    (media_root / "JPEGImages/0a").rename(media_root / "0a")
    dataset = opened(media_root, REFVOS, masks="labels", frames=".", fps=5)
    (video,) = dataset[0].media("video")
    assert (video["video"][0], video["fps"]) == (str(media_root / "0a/00000.jpg"), 5)
    assert known(dataset[0]) == ({0: DOG, 1: DOG}, (2, 3))
    _written(media_root / "masks.json", json.dumps(run_lengths()))
    assert known(opened(media_root, as_mevis(), masks="masks.json")[0]) == ({0: DOG, 1: DOG}, (2, 3))


def test_expressions_of_a_video_are_turns_of_one_sample(media_root, masking):
    samples = list(opened(media_root, REFVOS, per_video=True, question="{phrase}?", answer="It is <seg>."))
    assert [sample.id for sample in samples] == ["0a-0", "0b-0"]
    assert texts(samples[0]) == ["a dog on the left?", "It is <seg>.", "both animals?", "It is <seg>."]
    assert [known(samples[0], number)[1] for number in (0, 1)] == [(2, 3), (3,)]
    assert RegionCollator(masking)(samples[:1])["masks"].objects_per_sample == (2, 0)
    assert len(opened(media_root, REFVOS, per_video=True, max_turns=1)) == 3


def test_masks_of_fewer_frames_may_be_read(media_root):
    assert known(opened(media_root, REFVOS, max_frames=2)[0]) == ({0: DOG}, (3,))
    for name in ("00000", "00005"):
        (media_root / f"Annotations/0a/{name}.png").unlink()
    assert known(opened(media_root, REFVOS, max_frames=2)[1]) == ({2: CAT}, (3,)), "it was on none of the two"


def test_of_a_frame_without_a_label_map_nothing_is_known(media_root):
    (media_root / "Annotations/0a/00005.png").unlink()
    (media_root / "Annotations/0a/00015.png").unlink()
    assert known(opened(media_root, REFVOS)[0]) == ({0: DOG}, (2,))


def without_expressions(**keys):
    return {"videos": {"0a": {"expressions": {"0": {"exp": "a dog", **keys}}, "frames": ["00000"]}}}


REFUSED_REFVOS = {
    "no JSON": ("{", {}, "is no JSON that can be read"),
    "no videos": ('{"videos": []}', {}, "must hold an object 'videos'"),
    "no expressions": ('{"videos": {"0a": {"expressions": ["a dog"]}}}', {}, "with 'expressions' for each"),
    "no objects": (
        json.dumps(without_expressions()),
        {},
        "no expression with an 'obj_id' or 'anno_id'.*for submissions",
    ),
    "no masks": (json.dumps(REFVOS), {"masks": "none"}, r"expected 'mask_dict\.json' beside it or the folder .*none"),
    "no run lengths": (json.dumps(REFVOS), {"masks": "data.json"}, "has no masks: expected an object of lists"),
    "question without phrase": (json.dumps(REFVOS), {"question": "Segment it."}, "a text with one {phrase}"),
    "question with a region": (json.dumps(REFVOS), {"question": "{phrase} <region>"}, "without <region> and <seg>"),
    "answer without mask": (json.dumps(REFVOS), {"answer": "There."}, "answer must be a text with one <seg>"),
    "answer with a region": (json.dumps(REFVOS), {"answer": "<seg> <region>"}, "answer must be a text with one <seg>"),
    "fps": (json.dumps(REFVOS), {"fps": 0}, "fps must be a number > 0"),
    "max_turns": (json.dumps(REFVOS), {"max_turns": 0}, "max_turns must be an integer >= 1"),
    "max_frames": (json.dumps(REFVOS), {"max_frames": 0}, "max_frames must be an integer >= 1"),
    "frames": (json.dumps(REFVOS), {"frames": ""}, "frames must be a folder"),
    "masks": (json.dumps(REFVOS), {"masks": ""}, "masks must be a folder or a JSON file"),
}


@pytest.mark.parametrize(("text", "options", "message"), REFUSED_REFVOS.values(), ids=REFUSED_REFVOS)
def test_files_of_expressions_that_are_refused(text, options, message, media_root):
    with pytest.raises(PixelReferError, match=message):
        RegionDataset.open(_written(media_root / "data.json", text), format="refvos", options=options)


def expressions(frames=("00000", "00005"), exp="a dog", **keys):
    return {"videos": {"0a": {"expressions": {"0": {"exp": exp, **keys}}, "frames": frames}}}


DEFECTIVE_REFVOS = {
    "number of no object": (expressions(obj_id="7"), "region", "expression 0: its object is on no frame"),
    "no number": (expressions(obj_id="dog"), "region", "its masks: 'obj_id' must be numbers from 1, got 'dog'"),
    "background": (expressions(obj_id=0), "region", "'obj_id' must be numbers from 1, got '0'"),
    "only anno_id": (expressions(anno_id=[3]), "region", "its masks: it has no 'obj_id', got None"),
    "no label maps": (expressions(["7", "8"], obj_id=1), "region", "nowhere to be found: no frame has masks"),
    "no frames": (expressions(None, obj_id=1), "format", "its 'frames' must be a list of their names"),
    "no text": (expressions(exp=" ", obj_id=1), "format", "expression 0: its 'exp' must be a text, got ' '"),
}


@pytest.mark.parametrize(("content", "kind", "message"), DEFECTIVE_REFVOS.values(), ids=DEFECTIVE_REFVOS)
def test_a_defective_expression_is_an_error_of_its_sample(content, kind, message, media_root):
    with pytest.raises(SampleError, match=message) as caught:
        opened(media_root, content)[0]
    assert [defect.kind for defect in caught.value.defects] == [kind]
    assert caught.value.where == "data.json video '0a' expression 0"


def test_label_maps_that_cannot_be_read(media_root):
    path = media_root / "Annotations/0a/00000.png"
    dataset = opened(media_root, expressions(obj_id="1"))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(SampleError, match=r"its masks: Mask '.*00000\.png'") as caught:
        dataset[0]
    assert [defect.kind for defect in caught.value.defects] == ["media"]
    Image.new("RGB", (WIDTH, HEIGHT)).save(path)
    with pytest.raises(SampleError, match=r"00000\.png' is a colour picture"):
        dataset[0]


RUN_LENGTH_DEFECTS = {
    "unknown": (["77"], {}, "'anno_id' is 77, which .* does not have"),
    "none": ([], {"obj_id": [1]}, r"it has no 'anno_id', got \[\]"),
    "too few frames": (["short"], {}, "annotation short has masks of 1 frames, expected one of frame 1"),
    "no RLE": (["odd"], {}, "its masks: "),
    "absent everywhere": (["absent"], {}, "its object is on no frame"),
}


@pytest.mark.parametrize(("ids", "keys", "message"), RUN_LENGTH_DEFECTS.values(), ids=RUN_LENGTH_DEFECTS)
def test_defective_run_lengths_are_an_error_of_the_sample(ids, keys, message, media_root):
    lengths = {"short": [rle()], "odd": [{"counts": 3}, None], "absent": [None, BLANK]}
    _written(media_root / "masks.json", json.dumps(lengths))
    with pytest.raises(SampleError, match=message):
        opened(media_root, expressions(anno_id=ids, **keys), masks="masks.json")[0]


def test_expressions_are_found_in_a_large_file(media_root):
    """Larger than what is looked at to find the format."""
    many = {f"v{number:05}": REFVOS["videos"]["0a"] for number in range(6000)}
    path = _written(media_root / "meta_expressions.json", json.dumps({"videos": many}))
    assert path.stat().st_size > 2**20
    assert RegionDataset.open(path).format == "refvos"


# -- RefCOCO -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_references_are_read_from_pickles_and_json_alike(protocol, media_root):
    (media_root / "refs(unc).p").write_bytes(pickle.dumps(REFS, protocol=protocol))
    pickled = RegionDataset.open(media_root / "refs(unc).p", format="refcoco")
    for dataset in (pickled, opened(media_root, REFS, "refs.json")):
        samples = [dataset[index] for index in range(len(dataset))]
        assert [sample.id for sample in samples] == ["50-0", "50-1"]
        assert [texts(sample)[1] for sample in samples] == ["the red car", "car on the left"]
        assert samples[0].regions[0].kind == "polygon"
        assert samples[0].media("image")[0]["image"] == str(media_root / "images/street.png")


def test_pickles_of_the_official_files_hold_bytes_of_python_2(media_root):
    data = b"(lp0\n(dp1\nS'ref_id'\np2\nI50\nsS'ann_id'\np3\nI1\nsS'split'\np4\nS'train'\np5\nsS'sentences'\np6\n"
    data += b"(lp7\n(dp8\nS'sent'\np9\nS'red car'\np10\nsasa."
    (media_root / "refs(google).p").write_bytes(data)
    dataset = RegionDataset.open(media_root / "refs(google).p", format="refcoco")
    assert texts(dataset[0])[1] == "red car"


class _Shouts:
    def __reduce__(self):
        return (Path.touch, (Path("/tmp/never-made-by-a-pickle"),))


@pytest.mark.parametrize("thing", [_Shouts(), np.float64(3), {"a": {1, 2}}], ids=["code", "numpy", "set"])
def test_pickles_with_more_than_plain_values_are_refused_and_do_nothing(thing, media_root):
    (media_root / "refs.p").write_bytes(pickle.dumps([{**REFS[0], "extra": thing}], protocol=2))
    with pytest.raises(DataError, match="may hold plain values only.*Convert it to JSON"):
        RegionDataset.open(media_root / "refs.p", format="refcoco")
    assert not Path("/tmp/never-made-by-a-pickle").exists()


@pytest.mark.parametrize("data", [b"", b"\x80\x05garbage", b"no pickle"])
def test_damaged_pickles_are_named(data, media_root):
    (media_root / "refs.p").write_bytes(data)
    with pytest.raises(DataError, match=r"refs\.p' is no pickle that can be read"):
        RegionDataset.open(media_root / "refs.p", format="refcoco")


@pytest.mark.parametrize(("split", "ids"), [("train", 2), ("testA", 1), ("test", 1)])
def test_splits_of_references(split, ids, media_root):
    assert len(opened(media_root, REFS, split=split)) == ids


def test_references_in_a_pickle_say_how_they_are_read(media_root):
    path = media_root / "refs(unc).p"
    path.write_bytes(pickle.dumps(REFS))
    with pytest.raises(DataError, match=r"RefCOCO.*format='refcoco'"):
        RegionDataset.open(path)


def test_references_that_are_refused(media_root):
    with pytest.raises(DataError, match="no references of the split 'val'. Its splits: testA, train"):
        opened(media_root, REFS, split="val")
    with pytest.raises(DataError, match="refers to annotation 77"):
        opened(media_root, [{**REFS[0], "ann_id": 77}])
    with pytest.raises(DataError, match=r"Cannot read .*elsewhere\.json"):
        opened(media_root, REFS, instances="elsewhere.json")
    with pytest.raises(DataError, match="must hold a list of references"):
        RegionDataset.open(_written(media_root / "refs.json", '[{"ref_id": 1}]'), format="refcoco")


def test_references_of_one_picture_together_and_names_of_2017(media_root):
    instances = json.loads((media_root / "instances.json").read_text(encoding="utf-8"))
    instances["images"][0]["file_name"] = "COCO_train2014_000000000009.jpg"
    _written(media_root / "train.json", json.dumps(instances))
    options = {"per_image": True, "instances": "train.json", "coco_2017_names": True}
    (sample,) = list(opened(media_root, REFS, **options))
    assert texts(sample)[1::2] == ["the red car", "car on the left"]
    assert sample.media("image")[0]["image"] == str(media_root / "000000000009.jpg")
    assert all(isinstance(region, Region) for region in sample.regions)
