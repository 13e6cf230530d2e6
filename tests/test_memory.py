"""ObjectMemory: what it takes, keeps, writes and refuses; and how a processor lists its objects before a question."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import sketch
from conftest import assistant, picture, user
from PIL import Image

from pixelrefer_plugin import (
    DataError,
    FrameSampling,
    ImageError,
    ObjectMemory,
    PixelReferError,
    PromptError,
    Region,
    RegionError,
    SourceError,
    VideoError,
    VideoRegion,
    load_video,
)
from pixelrefer_plugin.sources import CheckedSource
from pixelrefer_plugin.testing import make_pair

HEIGHT, WIDTH = 56, 84
IMAGE = picture(HEIGHT, WIDTH)
FRAMES = np.stack([picture(HEIGHT, WIDTH, seed=index) for index in range(20)])
BOX, OTHER = Region.from_box((8, 8, 40, 30)), Region.from_box((50, 10, 80, 50))
CLICK = Region.from_points([(20, 20)])


def blob(x0=10, y0=10, x1=30, y1=40, hw=(HEIGHT, WIDTH)):
    mask = np.zeros(hw, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return Region.from_mask(mask)


def clip(num_frames=4):
    """Frames 0, 6, 13 and 19 of the film."""
    return load_video(FRAMES, fps=4.0, sampling=FrameSampling(num_frames=num_frames))


@dataclass(frozen=True)
class Segmented:
    """What an answer gives for an object, as far as a memory reads it."""

    id: int | None
    region: object


def contents(memory):
    return [(each.id, each.name, each.region) for each in memory]


@pytest.fixture
def memory():
    """Of an image: an unnamed box under 1, a mask called `cat` under 5; room for four."""
    made = ObjectMemory(IMAGE, max_objects=4)
    made.add(BOX)
    made.add(blob(), id=5, name="cat")
    return made


@pytest.fixture
def film():
    """Of a video: an object on two of its four frames, known to be gone on a third."""
    made = ObjectMemory(clip())
    made.add(VideoRegion({0: BOX, 6: blob()}, absent=[19]), name="dog")
    return made


# -- a container -------------------------------------------------------------------------------------------


def test_ids_go_on_from_the_highest_and_may_be_chosen(memory):
    assert memory.add(OTHER) == 6
    assert memory.add(CLICK, id=2, name="dot") == 2
    assert [(each.id, each.name) for each in memory] == [(1, None), (5, "cat"), (6, None), (2, "dot")]
    assert len(memory) == 4
    assert 5 in memory
    assert 7 not in memory
    assert memory[6].region == OTHER


def test_rename_drop_and_clear(memory):
    memory.rename(1, "door")
    memory.rename(5, None)
    assert [(each.id, each.name) for each in memory] == [(1, "door"), (5, None)]
    memory.drop(1)
    assert [each.id for each in memory] == [5]
    memory.clear()
    assert not memory
    assert memory.add(BOX) == 1


def test_objects_may_be_dropped_in_a_loop(memory):
    for each in memory:
        memory.drop(each.id)
    assert not memory


def test_a_copy_goes_its_own_way_and_may_be_taken_over(memory):
    before, copied = contents(memory), memory.copy()
    copied.drop(1)
    copied.add(OTHER, name="house")
    assert contents(memory) == before
    memory.restore(copied)
    assert contents(memory) == contents(copied) != before
    copied.clear()
    assert len(memory) == 2
    with pytest.raises(PromptError, match="can be restored from its own copies only"):
        memory.restore(ObjectMemory(IMAGE))


def test_a_mapping_of_frames_is_an_object_of_a_video(film):
    assert film.add({13: BOX}) == 2
    assert film[2].region == VideoRegion({13: BOX})


def test_regions_lie_on_its_only_picture_whatever_they_said(memory, film):
    assert memory[memory.add(OTHER.on_image(3))].region.image_index == 0
    assert film[film.add(VideoRegion({0: BOX}, video_index=2))].region.video_index == 0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda m: m.add(Region.from_points([(90, 20)])), RegionError, r"Object 6: The point reaches \(90, 20\), outs"),
        (lambda m: m.add(Region.from_box((100, 2, 120, 9))), RegionError, r"Object 6: The box .* outside its image"),
        (lambda m: m.add(blob(hw=(80, 80))), RegionError, "Object 6: The mask is of width 80 and height 80 but its im"),
        (lambda m: m.add(VideoRegion({0: BOX})), RegionError, "A region of an image is a Region, got VideoRegion"),
        (lambda m: m.add((1, 2, 3, 4)), RegionError, "A region of an image is a Region, got tuple"),
        (lambda m: m.add(BOX, id=5), PromptError, "The id 5 is taken: two objects cannot have one id"),
        (lambda m: m.add(BOX, id=0), PromptError, "id must be an integer >= 1, got 0"),
        (lambda m: m.add(BOX, id=10**9), PromptError, "id may have 9 digits, got 1000000000"),
        (lambda m: m.add(BOX, id=True), PromptError, "id must be an integer >= 1, got True"),
        (lambda m: m.add(BOX, id="7"), PromptError, "id must be an integer >= 1, got '7'"),
        (lambda m: m.add(BOX, name=" "), PromptError, "name must be a text, or None for none, got ' '"),
        (lambda m: m[7], PromptError, "The memory has no object 7. Its objects: 1, 5."),
        (lambda m: m.drop(7), PromptError, "The memory has no object 7"),
        (lambda m: m.rename(7, "x"), PromptError, "The memory has no object 7"),
        (lambda m: m.rename(1, 3), PromptError, "name must be a text, or None for none, got 3"),
    ],
    ids=[
        "click outside", "box outside", "mask of another size", "video region", "no region", "taken", "zero", "long",
        "bool",
        "text", "blank name", "get", "drop", "rename", "name no text",
    ],
)  # fmt: skip
def test_refused_changes_leave_it_as_it_was(memory, change, error, message):
    before = contents(memory)
    with pytest.raises(error, match=message):
        change(memory)
    assert contents(memory) == before


@pytest.mark.parametrize(
    ("region", "error", "message"),
    [
        (BOX, RegionError, r"is a VideoRegion or \{frame index: region\}, got Region: say on which frame"),
        ({1: BOX}, VideoError, r"Object 2: .*frame 1 is not among the sampled frames 0, 6, 13, 19"),
        ({6: Region.from_points([(20, 60)])}, RegionError, r"Object 2, frame 6: The point reaches \(20, 60\), outside"),
        ({}, RegionError, "Object 2: A VideoRegion maps one frame or more"),
    ],
    ids=["no frame", "not sampled", "outside", "empty"],
)
def test_refused_objects_of_a_video(film, region, error, message):
    before = contents(film)
    with pytest.raises(error, match=message):
        film.add(region)
    assert contents(film) == before


def test_it_holds_no_more_than_its_most(memory):
    memory.add(OTHER)
    memory.add(OTHER)
    before = contents(memory)
    with pytest.raises(PromptError, match="may hold 4 objects and has 4: there is no room for 1 more. Drop some, or"):
        memory.add(BOX)
    assert contents(memory) == before
    memory.drop(1)
    assert memory.add(BOX) == 8
    for most in (0, 2.5, None):
        with pytest.raises(PromptError, match="max_objects must be an integer >= 1, got"):
            ObjectMemory(IMAGE, max_objects=most)


def test_it_reads_its_image_as_others_do(tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "image.png")
    for media in (IMAGE, Image.fromarray(IMAGE), tmp_path / "image.png"):
        assert ObjectMemory(media).image_hw == (HEIGHT, WIDTH)
        assert not ObjectMemory(media).is_video
    with pytest.raises(ImageError, match="'nowhere.png' cannot be read"):
        ObjectMemory("nowhere.png")
    assert ObjectMemory(clip()).is_video


# -- by a region source ------------------------------------------------------------------------------------


class Grown:
    """A source that finds a fixed mask for every prompt, on every sampled frame of a video; or nothing."""

    def __init__(self, found=True):
        self.found = blob() if found else None

    def segment(self, image, prompts):
        return [self.found for _ in prompts]

    def track(self, video, prompts):
        return [self.found and VideoRegion(dict.fromkeys(video.frame_indices, self.found)) for _ in prompts]


def test_a_source_turns_clicks_into_masks_and_tracks(memory, film):
    source = CheckedSource("grown", Grown())
    assert memory[memory.add(CLICK, source=source)].region == blob()
    assert list(film[film.add({6: CLICK}, source=source)].region.frames) == [0, 6, 13, 19]


def test_where_a_source_finds_nothing_nothing_is_added(memory, film):
    for each, region in ((memory, CLICK), (film, {6: CLICK})):
        before = contents(each)
        with pytest.raises(SourceError, match="'grown' finds it nowhere"):
            each.add(region, source=CheckedSource("grown", Grown(found=False)))
        assert contents(each) == before


# -- from an answer ----------------------------------------------------------------------------------------


def test_an_answers_objects_keep_the_numbers_that_it_gave(memory):
    assert memory.add_answer([Segmented(3, blob()), Segmented(2, OTHER)]) == [3, 2]
    assert [each.id for each in memory] == [1, 5, 3, 2]
    memory.clear()
    assert memory.add_answer([Segmented(None, blob()), Segmented(4, OTHER), Segmented(None, BOX)]) == [1, 4, 5]
    memory.clear()
    assert memory.add_answer([Segmented(9, blob()), Segmented(9, OTHER)], ids=[1, 2]) == [1, 2]
    assert memory.add_answer([]) == []


@pytest.mark.parametrize(
    ("objects", "ids", "error", "message"),
    [
        ([Segmented(2, blob()), Segmented(3, None)], None, PromptError, "Object 1 of the answer is seen nowhere, so"),
        ([Segmented(2, blob()), Segmented(5, BOX)], None, PromptError, "Object 1: The id 5 is taken: two objects cann"),
        ([Segmented(2, blob()), Segmented(2, BOX)], None, PromptError, "Object 1: The id 2 is taken: two objects cann"),
        ([Segmented(2, BOX), Segmented(3, BOX)], [7, 7], PromptError, "Object 1: The id 7 is taken"),
        ([Segmented(2, BOX), Segmented(0, BOX)], None, PromptError, "Object 1: An object's id must be an integer >= 1"),
        ([Segmented(2, BOX), Segmented(3, BOX)], [7], PromptError, "one for each of the 2 objects, got 1"),
        ([Segmented(None, BOX)] * 3, None, PromptError, "may hold 4 objects and has 2: there is no room for 3 more"),
        ([Segmented(2, BOX), Segmented(3, blob(hw=(60, 50)))], None, RegionError, "Object 3: The mask is of width 50"),
        ([Segmented(2, BOX), Segmented(3, VideoRegion({0: BOX}))], None, RegionError, "Object 3: A region of an image"),
    ],
    ids=["nowhere", "taken", "twice", "ids twice", "zero", "fewer ids", "too many", "another size", "of a video"],
)
def test_an_answer_is_remembered_whole_or_not_at_all(memory, objects, ids, error, message):
    before = contents(memory)
    with pytest.raises(error, match=message):
        memory.add_answer(objects, ids=ids)
    assert contents(memory) == before


# -- files -------------------------------------------------------------------------------------------------


def masks(memory):
    """Its objects with their regions as pixels, frame by frame."""
    found = {}
    for each in memory:
        region = each.region
        shapes = {None: region} if isinstance(region, Region) else region.frames
        pixels = {frame: shape.to_mask(memory.image_hw) for frame, shape in shapes.items()}
        found[each.id] = (each.name, pixels, getattr(region, "absent", ()))
    return found


def kinds(memory):
    """Of its objects' regions, clicks and boxes with what they are."""
    shapes = [getattr(each.region, "frames", {None: each.region}) for each in memory]
    drawn = ("box", "points")
    return [{frame: each.data if each.kind in drawn else None for frame, each in of.items()} for of in shapes]


def test_what_is_saved_is_loaded(memory, film, tmp_path):
    memory.add(Region.from_points([(20, 20), (30.5, 20)], radius_px=4))
    film.add({13: CLICK})
    for each, media in ((memory, IMAGE), (film, clip())):
        each.save(tmp_path / "memory.json")
        again = ObjectMemory.load(tmp_path / "memory.json", media)
        assert masks(again) == masks(each)
        assert kinds(again) == kinds(each)
        assert again.max_objects == each.max_objects
        assert [path.name for path in tmp_path.iterdir()] == ["memory.json"]
    again.clear()
    again.save(tmp_path / "memory.json")
    assert not ObjectMemory.load(tmp_path / "memory.json", clip())


def test_a_file_is_plain_json_with_cocos_run_lengths(film, tmp_path):
    from pycocotools import mask as coco

    film.save(tmp_path / "memory.json")
    data = json.loads((tmp_path / "memory.json").read_text())
    assert (data["format"], data["version"]) == ("pixelrefer-memory", 1)
    assert data["media"] == {"kind": "video", "size": [HEIGHT, WIDTH], "num_frames": 20}
    (written,) = data["objects"]
    assert written["absent"] == [19]
    assert coco.area(written["frames"]["6"]) == blob().to_mask((HEIGHT, WIDTH)).area
    assert coco.toBbox(written["frames"]["6"]).tolist() == [10, 10, 20, 30]


def saved(memory, path):
    memory.save(path)
    return json.loads(path.read_text())


def without(data, *keys):
    """The data without one thing, found by keys and indices."""
    return changed(data, *keys, value=None, delete=True)


def changed(data, *keys, value, delete=False):
    inner = data
    for key in keys[:-1]:
        inner = inner[key]
    if delete:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    return data


FULL_RLE = {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * WIDTH]}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: [d], "is no memory that ObjectMemory.save wrote"),
        (lambda d: changed(d, "format", value="coco"), "is no memory that ObjectMemory.save wrote"),
        (lambda d: changed(d, "version", value=2), "is of format version 2, this package reads 1. Is it from a newer"),
        (lambda d: changed(d, "version", value=True), "is of format version True"),
        (lambda d: changed(d, "version", value=1.0), "is of format version 1.0"),
        (lambda d: without(d, "media"), "cannot be used: 'media' must be of type dict, got None"),
        (lambda d: changed(d, "media", "size", value=[84, 56]), r"made for pictures of \[height, width\] \[84, 56\]"),
        (lambda d: changed(d, "media", "kind", value="video"), "it was made for a video, got an image"),
        (lambda d: changed(d, "max_objects", value=1), "may hold 1 objects and has 0: there is no room for 2"),
        (lambda d: changed(d, "max_objects", value=True), "'max_objects' must be of type int, got True"),
        (lambda d: changed(d, "max_objects", value=-4), "max_objects must be an integer >= 1, got -4"),
        (lambda d: changed(d, "objects", value={"1": 2}), "'objects' must be of type list"),
        (lambda d: changed(d, "objects", 0, value=7), "object 0: expected a JSON object, got int"),
        (lambda d: without(d, "objects", 0, "rle"), "object 0: 'rle' must be of type dict, got None"),
        (lambda d: changed(d, "objects", 1, "rle", "counts", value="~~~"), "object 1: RLE counts are not COCO's"),
        (lambda d: changed(d, "objects", 1, "rle", "counts", value=[5, 10**40]), "object 1: RLE counts must add up to"),
        (lambda d: changed(d, "objects", 1, "rle", "size", value=[2, 9]), "object 1: RLE counts must add up to"),
        (lambda d: changed(d, "objects", 1, "rle", value={"size": [1, 2], "counts": [1, 1]}), "The RLE is of width 2"),
        (lambda d: changed(d, "objects", 0, "rle", "box", value=[1, 2, 3]), "object 0: A box must be four numbers"),
        (lambda d: changed(d, "objects", 0, "rle", "box", value="abcd"), "object 0: A box must be"),
        (lambda d: changed(d, "objects", 0, "rle", "box", value=[0, 0, 900, 9]), "Object 1: The box .* outside its"),
        (lambda d: changed(d, "objects", 1, "rle", "points", value=[7]), "object 1: Points must be"),
        (lambda d: changed(d, "objects", 1, "rle", "points", value=[[7, 7]]), "object 1: radius_px must be"),
        (lambda d: changed(d, "objects", 1, "rle", "points", value=[[7, float("nan")]]), "NaN is no number of JSON"),
        (lambda d: changed(d, "objects", 1, "id", value=1), "The id 1 is taken: two objects cannot have one id"),
        (lambda d: changed(d, "objects", 1, "id", value=-1), "id must be an integer >= 1, got -1"),
        (lambda d: changed(d, "objects", 1, "id", value="1"), "object 1: 'id' must be of type int, got '1'"),
        (lambda d: changed(d, "objects", 1, "name", value=["a"]), r"name must be a text, or None for none, got"),
    ],
    ids=[
        "list", "format", "version", "true", "float", "no media", "size", "kind", "too many", "bool", "negative most",
        "objects", "int", "no rle", "garbled", "huge run", "rle size", "another size", "box", "box text", "box outside",
        "points", "no radius", "nan", "twice", "negative id",
        "id text", "name",
    ],
)  # fmt: skip
def test_damaged_files_of_an_image(memory, tmp_path, spoil, message):
    path = tmp_path / "memory.json"
    path.write_text(json.dumps(spoil(saved(memory, path))))
    with pytest.raises(DataError, match=message) as raised:
        ObjectMemory.load(path, IMAGE)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda d: changed(d, "media", "num_frames", value=50),
            "made for a video of 50 frames, got one of 20. Is it an",
        ),
        (lambda d: changed(d, "objects", 0, "frames", value={}), "object 0: A VideoRegion maps one frame or more"),
        (
            lambda d: changed(d, "objects", 0, "frames", value={"1": FULL_RLE}),
            "frame 1 is not among the sampled frames",
        ),
        (lambda d: changed(d, "objects", 0, "frames", value={"-1": FULL_RLE}), "must be frame indices, got '-1'"),
        (
            lambda d: changed(d, "objects", 0, "frames", value={"9" * 5000: FULL_RLE}),
            "must be frame indices, got '9999",
        ),
        (
            lambda d: changed(d, "objects", 0, "frames", value={"6": FULL_RLE, "06": FULL_RLE}),
            "must be frame indices, got '06'",
        ),
        (lambda d: changed(d, "objects", 0, "absent", value=[20]), "absent from frame 20, but the video has 20 frames"),
        (lambda d: changed(d, "objects", 0, "frames", value={"6": 3}), "object 0, frame 6: An RLE must be a mapping"),
        (lambda d: changed(d, "objects", 0, "absent", value=[6]), "object 0: .* a region on frame 6, but says that it"),
        (lambda d: changed(d, "objects", 0, "absent", value=["x"]), "object 0: .*absent must be frame indices"),
    ],
    ids=[
        "another video",
        "no frames",
        "not sampled",
        "negative",
        "huge",
        "two names",
        "beyond",
        "no rle",
        "both",
        "absent",
    ],
)
def test_damaged_files_of_a_video(film, tmp_path, spoil, message):
    path = tmp_path / "memory.json"
    path.write_text(json.dumps(spoil(saved(film, path))))
    with pytest.raises(DataError, match=message):
        ObjectMemory.load(path, clip())


def test_a_file_tells_the_frames_that_it_needs(film, memory, tmp_path):
    path = tmp_path / "memory.json"
    film.save(path)
    frames = ObjectMemory.saved_frames(path)
    assert frames == sorted({frame for each in film for frame in each.region.frames})
    assert frames
    others = load_video(FRAMES, fps=4.0, sampling=FrameSampling(num_frames=1), frames=frames)
    assert [each.id for each in ObjectMemory.load(path, others)] == [each.id for each in film]
    memory.save(path)
    assert ObjectMemory.saved_frames(path) == []
    path.write_text(json.dumps(changed(saved(film, path), "objects", 0, value=7)))
    with pytest.raises(DataError, match="memory.json' cannot be used: object 0: expected a JSON object, got int"):
        ObjectMemory.saved_frames(path)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        ObjectMemory.saved_frames(tmp_path / "gone.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no JSON that can be read"),
        (b'{"format": "pixelrefer-memory", "version": 1', "is no JSON that can be read.* Is the file complete"),
        (b"\xff\xfe\x00", "is no JSON that can be read"),
        (b"[" * 100_000, "is no JSON that can be read"),
        (b"1" * 10_000, "is no JSON that can be read"),
    ],
    ids=["empty", "cut off", "no text", "deep", "long number"],
)
def test_files_that_are_no_json(tmp_path, content, message):
    (tmp_path / "memory.json").write_bytes(content)
    with pytest.raises(DataError, match=message):
        ObjectMemory.load(tmp_path / "memory.json", IMAGE)


def test_files_that_cannot_be_read_or_written(memory, tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        ObjectMemory.load(tmp_path / "gone.json", IMAGE)
    with pytest.raises(PixelReferError, match="cannot be written"):
        memory.save(tmp_path / "gone" / "memory.json")
    memory.save(tmp_path / "memory.json")
    with pytest.raises(ImageError, match="'nowhere.png' cannot be read"):
        ObjectMemory.load(tmp_path / "memory.json", "nowhere.png")


# -- in a prompt -------------------------------------------------------------------------------------------


@pytest.fixture
def processor(monkeypatch):
    sketch.install(monkeypatch)
    return sketch.make_processor()


def prompt(processor, inputs, row=0):
    """What follows the pictures in a user's first message, `*` for each placeholder."""
    text = sketch.text_of(processor, inputs["input_ids"][row])
    return text.split("<|vision_end|>")[-1].split("<|im_start|>user\n")[-1].split("<|im_end|>")[0]


def test_objects_of_an_image_are_listed_before_the_question(processor, memory):
    inputs = processor([user(IMAGE, "is [5] near [1]?")], memory=memory)
    expected = "Here is an image with the following highlighted regions:\n[1]: *\n[5]: *\nis [5] near [1]?"
    assert prompt(processor, inputs) == expected
    assert inputs["regions"].counts == (1, 1)
    assert sketch.read_as(inputs) == ("mask", "mask")


@pytest.mark.parametrize("adapter", ["maskpool", "saot"])
def test_every_adapter_takes_a_memory(adapter, memory):
    pair = make_pair(adapter, "videollama3")
    inputs = pair.processor([user(IMAGE, "is [5] near <region>?")], [OTHER], memory=memory)
    count = "*" * (inputs["regions"].counts[0])
    assert prompt(pair.processor, inputs) == (
        "Here is an image with the following highlighted regions:\n"
        f"[1]: {count}\n[5]: {count}\nis [5] near [{'*' * inputs['regions'].counts[2]}]?"
    )
    pair.model(**inputs)
    pair.model.detach()


def test_object_only_adapters_list_their_times(film, memory):
    pair = make_pair("oci", "videollama3")
    one = "*" * pair.model.adapter_config.num_tokens
    of_image = pair.processor([user(IMAGE, "is [5] near [1]?")], memory=memory)
    assert prompt(pair.processor, of_image) == (
        f"The highlighted regions are as follows:\n[1]: [{one}]\n[5]: [{one}]\nis [5] near [1]?"
    )
    of_video = pair.processor([user({"type": "video", "video": film.media}, "what does [1] do?")], memory=film)
    assert prompt(pair.processor, of_video) == (
        f"The highlighted regions are as follows:\n[1]: [Time 0.0s:{one},Time 1.5s:{one}]\nwhat does [1] do?"
    )
    assert not any(name.startswith("pixel_values") for name in (*of_image, *of_video))
    pair.model.detach()


def shown(*parts):
    return user({"type": "video", "video": clip()}, *parts)


@pytest.mark.parametrize(
    ("adapter", "backbone", "entries"),
    [
        ("sketch", "videollama3", "<1> * <2> *"),
        ("sketch", "qwen2_5_vl", "<1> * <2> *"),
        ("sketch-merged", "qwen2_5_vl", "<1>-<2> *"),
        ("sketch-merged", "llava_onevision", "<1> * <2> *"),
    ],
)
def test_objects_of_a_video_tell_which_frames_show_them(monkeypatch, film, adapter, backbone, entries):
    sketch.install(monkeypatch)
    processor = sketch.make_processor(adapter, backbone)
    inputs = processor([shown("what does [1] do?")], memory=film)
    assert (
        "Here is a video with 4 frames denoted as <1> to <4>. The highlighted regions are as follows:\n"
        f"[1]: {entries}\nwhat does [1] do?"
    ) in sketch.text_of(processor, inputs["input_ids"][0])
    assert inputs["regions"].frames_per_region == (entries.count("*"),)


def test_the_last_grid_of_an_odd_number_of_frames_stands_for_one(monkeypatch):
    sketch.install(monkeypatch)
    processor = sketch.make_processor("sketch-merged", "qwen2_5_vl")
    memory = ObjectMemory(clip(5))
    memory.add({memory.media.frame_indices[at]: blob() for at in (0, 2, 4)})
    inputs = processor([user({"type": "video", "video": memory.media}, "what does [1] do?")], memory=memory)
    assert "[1]: <1>-<2> * <3>-<4> * <5> *\n" in sketch.text_of(processor, inputs["input_ids"][0])


def test_the_conversations_own_regions_get_the_next_ids(processor, memory):
    regions = [blob(30, 10, 50, 40), CLICK, blob(40, 10, 60, 30)]
    inputs = processor([user(IMAGE, "<region>, <region> or [5]?"), assistant("[5]"), user("and <region>?")], regions,
                       memory=memory)  # fmt: skip
    text = sketch.text_of(processor, inputs["input_ids"][0])
    assert "regions:\n[1]: *\n[5]: *\n[6]: *\n[7]: *\n[6], [*] or [5]?<|im_end|>" in text
    assert "and [7]?" in text
    assert sketch.read_as(inputs) == ("mask", "mask", "mask", "mask", "points")
    assert inputs["regions"].numbers == (None, None, 0, 2, 1)


def test_an_object_that_the_memory_holds_is_called_by_its_id(processor, memory):
    memory.add(blob(), id=9)  # a second one of the same pixels
    inputs = processor([user(IMAGE, "what is <region>?")], [blob()], memory=memory)
    assert prompt(processor, inputs).endswith("[1]: *\n[5]: *\n[9]: *\nwhat is [5]?")


def test_without_any_object_brackets_are_text(processor):
    assert "what is [7]?" in prompt(processor, processor([user(IMAGE, "what is [7]?")]))
    assert "[7] [*]?" in prompt(processor, processor([user(IMAGE, "[7] <region>?")], [CLICK]))


def test_a_click_may_be_given_a_number(processor, memory):
    inputs = processor([user(IMAGE, "is [7] <region> near [5]? where is [7]?")], [CLICK], memory=memory)
    assert prompt(processor, inputs).endswith("is [7] [*] near [5]? where is [7]?")


def test_a_number_with_blanks_in_its_brackets_is_text(processor, memory):
    inputs = processor([user(IMAGE, "is [5] in row [ 12 ]?")], memory=memory)
    assert prompt(processor, inputs).endswith("is [5] in row [ 12 ]?")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "what is [7]?",
            r"Sample 0: the text calls object \[7\], which the memory does not hold. It holds \[1\], \[5\].*"
            r"Where the number itself is meant, write \[ 7 \]",
        ),
        ("what is [05]?", r"calls object \[05\]"),
        ("[" + "9" * 6000 + "]", r"calls object \[9999"),
    ],
)
def test_an_id_that_the_memory_does_not_hold(processor, memory, text, message):
    with pytest.raises(PromptError, match=message):
        processor([user(IMAGE, text)], [blob()] * text.count("<region>"), memory=memory)


def test_a_listed_region_may_be_given_a_number(processor, memory):
    regions = [blob(30, 10, 50, 40), blob(40, 10, 60, 30)]
    inputs = processor([user(IMAGE, "is [9] <region> near <region> or [9]?")], regions, memory=memory)
    assert prompt(processor, inputs).endswith("[5]: *\n[9]: *\n[10]: *\nis [9] near [10] or [9]?")


def test_no_listed_region_gets_the_number_of_a_click(processor):
    inputs = processor([user(IMAGE, "is <region> on [1] <region>?")], [blob(), CLICK])
    assert prompt(processor, inputs).endswith("[2]: *\nis [2] on [1] [*]?")


def test_questions_that_are_answered_may_give_a_click_the_number_of_an_object(processor, memory):
    turns = [user(IMAGE, "segment [5] <region>"), assistant("here"), user("what is [5]?")]
    assert "segment [5] [*]" in sketch.text_of(processor, processor(turns, [CLICK], memory=memory)["input_ids"][0])


@pytest.mark.parametrize(
    ("text", "regions", "message"),
    [
        ("[5] <region>?", [CLICK], "Sample 0, region 0: the id 5 is taken: two objects cannot have one id"),
        ("[5] <region>?", [blob(30, 10, 50, 40)], "Sample 0, region 0: the id 5 is taken"),
        ("[7] <region> [7] <region>?", [CLICK, BOX], "region 1: the id 7 is taken"),
        ("[7] <region> [7] <region>?", [CLICK, blob(30, 10, 50, 40)], "region 1: the id 7 is taken"),
        ("[7] <region> [7] <region>?", [blob(30, 10, 50, 40), blob(40, 10, 60, 30)], "region 1: the id 7 is taken"),
        ("[7] <region>?", [blob()], r"region 0: it is called \[7\], but is object \[5\] already. Write \[5\]"),
        ("[0] <region>?", [CLICK], "region 0: ids count from 1, got 0"),
        ("[0] <region>?", [blob(30, 10, 50, 40)], "region 0: ids count from 1, got 0"),
    ],
    ids=[
        "a click, the memory's", "a mask, the memory's", "click and box", "click and mask", "masks", "known",
        "zero click", "zero mask",
    ],
)  # fmt: skip
def test_two_objects_cannot_have_one_id(processor, memory, text, regions, message):
    with pytest.raises(PromptError, match=message):
        processor([user(IMAGE, text)], regions, memory=memory)


def test_an_empty_memory_holds_nothing(processor):
    memory = ObjectMemory(IMAGE)
    assert "regions" not in processor([user(IMAGE, "what is it?")], memory=memory)
    with pytest.raises(PromptError, match=r"calls object \[1\], which the memory does not hold. It holds no objects"):
        processor([user(IMAGE, "what is [1]?")], memory=memory)


def test_questions_that_are_answered_may_call_what_was_dropped(processor, memory):
    turns = [user(IMAGE, "what is [1]?"), assistant("[1] is a cat"), user("and [5]?")]
    memory.drop(1)
    assert "[5]: *\nwhat is [1]?" in sketch.text_of(processor, processor(turns, memory=memory)["input_ids"][0])
    with pytest.raises(PromptError, match=r"calls object \[1\]"):
        processor([*turns[:2], user("and [1]?")], memory=memory)
    with pytest.raises(PromptError, match=r"calls object \[1\]"):
        processor(turns[:2], memory=memory, labels=True)


def test_a_batch_has_a_memory_for_each_conversation(processor, memory):
    batch = [[user(IMAGE, "what is [1]?")], [user(IMAGE, "what is [1]?")]]
    inputs = processor(batch, memory=[memory, None])
    assert inputs["regions"].regions_per_sample == (2, 0)
    assert prompt(processor, inputs, row=1) == "what is [1]?"
    for given, message in [
        (memory, "Expected a list of memories for a batch, .* got one memory"),
        ([memory], "Got 2 conversations but 1 memories"),
        ([memory, 3], "memory must be an ObjectMemory, or for a batch a list"),
    ]:
        with pytest.raises(PromptError, match=message):
            processor(batch, memory=given)
    with pytest.raises(PromptError, match="memory must be an ObjectMemory"):
        processor(batch[0], memory={1: BOX})


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        (["what is [1]?"], PromptError, "must be all that the conversation shows; it has 0 images and 0 videos"),
        ([IMAGE, IMAGE, "what is [1]?"], PromptError, "it has 2 images and 0 videos"),
        ([picture(60, 90), "[1]?"], PromptError, "of width 84 and height 56, the conversation's is of width 90 and h"),
        ([{"type": "video", "video": FRAMES, "fps": 4.0}, "[1]?"], PromptError, "lie on an image, which must be all"),
    ],
    ids=["none", "two", "size", "kind"],
)
def test_a_memory_of_other_media(processor, memory, parts, error, message):
    with pytest.raises(error, match=message):
        processor([user(*parts)], memory=memory)


def test_a_memorys_frames_are_sampled(processor, film):
    film = ObjectMemory(load_video(FRAMES, fps=4.0, sampling=FrameSampling(num_frames=20)))
    film.add({7: BOX})
    part = {"type": "video", "video": FRAMES, "fps": 4.0}
    inputs = processor([user(part, "[1]?")], memory=film, sampling=FrameSampling(num_frames=4), segment=True)
    assert inputs["masks"].frame_indices == ((0, 7, 13, 19),)
    with pytest.raises(VideoError, match="Sample 0, object 1 of the memory: .*frame 7 is not among the sampled frames"):
        processor([shown("[1]?")], memory=film)


def test_a_call_leaves_the_memory_as_it_was(processor, memory):
    before = contents(memory)
    processor([user(IMAGE, "<region> and [1]")], [blob()], memory=memory)
    with pytest.raises(PromptError, match="calls object"):
        processor([user(IMAGE, "<region> and [8]")], [blob()], memory=memory)
    assert contents(memory) == before
