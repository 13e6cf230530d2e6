"""What the checks find, on real pictures and videos; that training agrees; that processes lose nothing."""

import json
import subprocess
import sys
import textwrap

import dying_job
import numpy as np
import pytest
import stencil
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from videos import truncate, write_video

from pixelrefer_plugin import DataError, FrameSampling, Region, RegionDataset, SampleError, VideoRegion, load_video
from pixelrefer_plugin.contracts.messages import PLACEHOLDER
from pixelrefer_plugin.contracts.samples import RegionSample
from pixelrefer_plugin.data.checks import CheckSummary, check_dataset, defects_of
from pixelrefer_plugin.data.workers import run_in_order
from pixelrefer_plugin.testing import make_pair
from pixelrefer_plugin.training.collator import RegionCollator

HW = (48, 64)
BOX = {"box": [4, 4, 30, 30]}


@pytest.fixture(scope="module")
def processors():
    """One of each framework."""
    made = {adapter: make_pair(adapter, "videollama3") for adapter in ("saot", "oci")}
    yield {adapter: each.processor for adapter, each in made.items()}
    for each in made.values():
        each.model.detach()


@pytest.fixture
def masking(monkeypatch):
    """A processor whose adapter gives masks; of videos it reads four frames."""
    stencil.install(monkeypatch)
    made = make_pair("stencil", "videollama3")
    made.processor.sampling = FrameSampling(num_frames=4)
    yield made.processor
    made.model.detach()


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """A folder of pictures and videos of 64x48, sound and not."""
    folder = tmp_path_factory.mktemp("media")
    noise = np.random.default_rng(0).integers(0, 256, (*HW, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "good.jpg", quality=95)
    Image.fromarray(noise).save(folder / "good.png")
    Image.fromarray(noise).save(folder / "turned.jpg", exif=turned_exif())
    truncate(Image.fromarray(noise).save(folder / "cut.jpg", quality=95) or folder / "cut.jpg", 0.7)
    (folder / "text.jpg").write_text("no picture")
    Image.fromarray(noise).save(folder / "moving.gif", save_all=True, append_images=[Image.fromarray(noise[::-1])])
    Image.fromarray(np.zeros(HW, np.uint8)).save(folder / "empty_mask.png")
    write_video(folder / "good.mp4", 10, fps=10)
    truncate(write_video(folder / "cut.mp4", 10, fps=10), 0.6)
    for name in ("frames", "one_bad_frame"):
        (folder / name).mkdir()
        for index in range(4):
            Image.fromarray(noise).save(folder / name / f"{index}.png")
    truncate(folder / "one_bad_frame" / "2.png", 0.5)
    return folder


def turned_exif():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def row(*, question="What is <region>?", answer="A thing.", **keys):
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"id": "one", "image": "good.jpg", "regions": [BOX], "messages": turns} | keys


def video_row(frames, *, video="good.mp4", **keys):
    return row(image=None, video=video, regions=[{"frames": frames}], **keys)


def read(record, media):
    """The sample of a record, or the error of reading it."""
    return RegionDataset.from_rows([record], media_root=media).__getitems__([0])[0]


def kinds(sample, **options):
    return [defect.kind for defect in defects_of(sample, **options)]


GOOD = {
    "a box": row(),
    "a declared size": row(size=[48, 64]),
    "a png": row(image="good.png"),
    "a turned picture": row(image="turned.jpg", size=[64, 48], regions=[{"box": [4, 50, 40, 64]}]),
    "no region": row(question="What?", regions=None),
    "no picture": row(question="Who?", regions=None, image=None),
    "a region in the answer": row(question="Where?", answer="At <region>."),
    "two pictures": row(
        image=None, images=["good.jpg", "good.png"], regions=[BOX | {"image": 1}], size=[None, [48, 64]]
    ),
    "a video": video_row({"3": BOX, "9": BOX}, size=[48, 64]),
    "a folder": video_row({"3": BOX}, video={"path": "frames", "fps": 2}),
    "a video without regions": row(question="What?", image=None, video="good.mp4", regions=None),
}

BAD = {
    "missing picture": (row(image="none.jpg"), ["media"]),
    "truncated picture": (row(image="cut.jpg"), ["media"]),
    "no picture at all": (row(image="text.jpg"), ["media"]),
    "animated picture": (row(image="moving.gif"), ["media"]),
    "folder for a picture": (row(image="frames"), ["media"]),
    "missing video": (video_row({"0": BOX}, video="none.mp4"), ["media"]),
    "truncated video": (video_row({"0": BOX}, video="cut.mp4"), ["media"]),
    "picture for a video": (video_row({"0": BOX}, video="good.jpg"), ["media"]),
    "bad frame in a folder": (video_row({"0": BOX}, video={"path": "one_bad_frame", "fps": 1}), ["media"]),
    "wrong size": (row(size=[64, 48]), ["size"]),
    "wrong size of a video": (video_row({"0": BOX}, size=[48, 65]), ["size"]),
    "size before turning": (row(image="turned.jpg", size=[48, 64]), ["size"]),
    "too few markers": (row(regions=[BOX, BOX]), ["markers"]),
    "too many markers": (row(question="<region> or <region>?"), ["markers"]),
    "placeholder in the text": (row(question=f"<region> {PLACEHOLDER}"), ["markers"]),
    "outside": (row(regions=[{"box": [4, 4, 70, 30]}]), ["region"]),
    "another size's mask": (row(regions=[{"rle": {"size": [2, 2], "counts": [1, 3]}}]), ["region"]),
    "inverted box": (row(regions=[{"box": [30, 4, 4, 30]}]), ["region"]),
    "empty mask": (row(regions=[{"mask": "empty_mask.png"}]), ["region"]),
    "missing mask": (row(regions=[{"mask": "none.png"}]), ["media"]),
    "no such image": (row(regions=[BOX | {"image": 1}]), ["region"]),
    "missing frame": (video_row({"2": BOX, "10": BOX}), ["region"]),
    "outside on one frame": (video_row({"2": BOX, "3": {"box": [0, 0, 9, 99]}}), ["region"]),
    "empty answer": (row(answer="  "), ["answer"]),
    "no answer": (row(messages=[{"role": "user", "content": "<region>?"}]), ["answer"]),
    "unknown key": (row(imagee="x"), ["format"]),
    "no object": (7, ["format"]),
    "everything": (
        row(
            image="cut.jpg",
            images=None,
            video="good.mp4",
            size=[None, [1, 1]],
            regions=[{"frames": {"0": BOX, "11": BOX}}],
        ),
        ["media", "size", "region"],
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_training_takes_what_has_no_defects(name, media, processors):
    sample = read(GOOD[name], media)
    assert kinds(sample) == kinds(sample, quick=True) == []
    assert kinds(sample, processor=processors["saot"]) == kinds(sample, processor=processors["saot"], quick=True) == []
    assert RegionCollator(processors["saot"])([sample])["sample_names"] == (sample.name,)


@pytest.mark.parametrize("name", BAD)
def test_training_refuses_what_has_defects(name, media, processors):
    record, expected = BAD[name]
    sample = read(record, media)
    assert kinds(sample) == expected
    assert kinds(sample, processor=processors["saot"]) == expected
    with pytest.raises(SampleError):
        RegionCollator(processors["saot"])([sample])


RLE = {"rle": {"size": list(HW), "counts": [500, 20, 48 * 64 - 520]}}
TALL_RLE = {"rle": {"size": [64, 48], "counts": [500, 20, 48 * 64 - 520]}}
ASKED = {"question": "Segment it.", "answer": "It is <seg>."}


def masked_video_row(frames, **keys):
    return video_row(frames, **ASKED) | {"regions": [{"frames": frames, **keys}]}


GOOD_MASKS = {
    "a mask": row(**ASKED, regions=[RLE]),
    "a region and masks": row(answer="[1] <seg>, [2] <seg>", regions=[BOX, RLE, RLE]),
    "on the second picture": row(**ASKED, image=None, images=["turned.jpg", "good.png"], regions=[RLE | {"image": 1}]),
    "a video": masked_video_row({"3": RLE}, absent=[0, 9]),
    "more frames of a video than are read": masked_video_row({str(frame): RLE for frame in range(10)}),
    "a region on other frames": video_row({"2": BOX}, answer="<seg>")
    | {"regions": [{"frames": {"2": BOX}}, {"frames": {str(frame): RLE for frame in range(5, 10)}}]},
    "frames of a folder": masked_video_row({"3": RLE}, absent=[1]) | {"video": {"path": "frames", "fps": 2}},
}

BAD_MASKS = {
    "outside": (row(**ASKED, regions=[{"box": [4, 4, 70, 30]}]), ["region"]),
    "of another size": (row(**ASKED, regions=[TALL_RLE]), ["region"]),
    "empty": (row(**ASKED, regions=[{"mask": "empty_mask.png"}]), ["region"]),
    "wrong size": (row(**ASKED, size=[64, 48], regions=[RLE]), ["size"]),
    "too many markers": (row(question="Segment it.", answer="<seg> <seg>", regions=[RLE]), ["markers"]),
    "in the question": (row(question="Is it <seg>?", regions=[RLE]), ["markers"]),
    "on two pictures": (
        row(**ASKED | {"answer": "<seg><seg>"}, image=None, images=["good.jpg", "good.png"])
        | {"regions": [RLE, RLE | {"image": 1}]},
        ["region"],
    ),
    "missing frame": (masked_video_row({"2": RLE, "10": RLE}), ["region"]),
    "missing absent frame": (masked_video_row({"2": RLE}, absent=[12]), ["region"]),
    "all frames missing": (masked_video_row({"12": RLE}, absent=[14]), ["region", "region"]),
    "of another size on one frame": (masked_video_row({"2": RLE, "3": TALL_RLE}), ["region"]),
}


@pytest.mark.parametrize("name", GOOD_MASKS)
def test_training_takes_masks_without_defects(name, media, masking):
    sample = read(GOOD_MASKS[name], media)
    assert kinds(sample) == kinds(sample, quick=True) == []
    assert kinds(sample, processor=masking) == kinds(sample, processor=masking, quick=True) == []
    assert RegionCollator(masking)([sample])["sample_names"] == (sample.name,)


@pytest.mark.parametrize("name", BAD_MASKS)
def test_training_refuses_masks_with_defects(name, media, masking):
    record, expected = BAD_MASKS[name]
    sample = read(record, media)
    assert kinds(sample) == expected
    assert kinds(sample, processor=masking) == expected
    with pytest.raises(SampleError):
        RegionCollator(masking)([sample])


def test_all_frames_of_a_target_are_checked_and_not_only_those_that_are_read(media, masking):
    frames = {str(frame): RLE for frame in range(10)} | {"4": TALL_RLE}
    sample = read(masked_video_row(frames), media)
    (defect,) = defects_of(sample, processor=masking)
    assert defect.message.startswith("region 0, frame 4: The RLE")


def test_masks_need_an_adapter_that_gives_some(media, processors):
    sample = read(GOOD_MASKS["a mask"], media)
    (defect,) = defects_of(sample, processor=processors["saot"])
    assert defect == ("format", defect.message)
    assert defect.message.startswith("adapter 'saot' gives no masks, but an answer holds <seg>")


def test_tokens_of_a_sample_with_masks_are_counted_as_training_counts_them(media, masking):
    record = GOOD_MASKS["a region on other frames"]
    (checked,) = check_dataset(RegionDataset.from_rows([record], media_root=media), processor=masking)
    sample = read(record, media)
    inputs = masking(list(sample.messages), list(sample.regions), labels=True)
    assert checked.num_tokens == inputs["input_ids"].shape[1]
    assert (checked.num_regions, checked.num_masks) == (1, 1)


def test_a_picture_without_region_is_bad_only_for_object_only_adapters(media, processors):
    sample = read(GOOD["two pictures"], media)
    assert kinds(sample, processor=processors["saot"]) == []
    (defect,) = defects_of(sample, processor=processors["oci"])
    assert defect.kind == "format"
    assert "image 0 has no region" in defect.message


def test_the_backbones_own_tokens_are_found_by_its_processor(media, processors):
    token = processors["saot"].native.image_token
    sample = read(row(question=f"<region> {token}"), media)
    (defect,) = defects_of(sample, processor=processors["saot"])
    assert f"special token {token!r}" in defect.message


def test_a_missing_frame_is_named_beside_what_else_is_wrong(media):
    sample = read(video_row({"2": {"box": [0, 0, 9, 99]}, "10": BOX, "12": BOX}), media)
    messages = [defect.message for defect in defects_of(sample)]
    assert messages[0].startswith("region 0, frame 2: The box")
    assert messages[1] == "region 0: the video has 10 frames, counted from 0: there is no frame 10."
    assert messages[2] == "region 0: the video has 10 frames, counted from 0: there is no frame 12."


def test_quick_reads_headers_and_named_frames_only(media):
    assert kinds(read(row(image="cut.jpg"), media), quick=True) == []
    assert kinds(read(row(image="text.jpg"), media), quick=True) == ["media"]
    assert kinds(read(row(image="turned.jpg", size=[48, 64]), media), quick=True) == ["size"]
    folder = {"path": "one_bad_frame", "fps": 1}
    assert kinds(read(video_row({"0": BOX}, video=folder), media), quick=True) == []
    assert kinds(read(video_row({"2": BOX}, video=folder), media), quick=True) == ["media"]


def test_tokens_are_counted_as_training_counts_them(media, processors):
    processor = processors["saot"]
    for record in (GOOD["a box"], GOOD["a video"]):
        sample = read(record, media)
        length = processor(list(sample.messages), list(sample.regions), labels=True)["input_ids"].shape[1]
        assert defects_of(sample, processor=processor, max_tokens=length) == []
        (defect,) = defects_of(sample, processor=processor, max_tokens=length - 1)
        assert defect == ("too long", f"it has {length} tokens, at most {length - 1} are allowed.")
        (checked,) = check_dataset(RegionDataset.from_rows([record], media_root=media), processor=processor)
        assert checked.num_tokens == length
        assert RegionCollator(processor, max_tokens=length)([sample])["input_ids"].shape[1] == length
        with pytest.raises(SampleError, match=f"{length} tokens"):
            RegionCollator(processor, max_tokens=length - 1)([sample])


def test_a_limit_of_tokens_needs_a_processor(media):
    with pytest.raises(DataError, match="max_tokens needs a processor"):
        defects_of(read(row(), media), max_tokens=8)


def test_a_picture_too_large_to_decode_is_a_defect(media, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 48 * 64 - 1)
    (defect,) = defects_of(read(row(), media))
    assert defect.kind == "media"
    assert "too large to decode safely" in defect.message


def test_messages_that_no_processor_takes_are_a_defect():
    sample = RegionSample("x", ({"role": "user"},))
    (defect,) = defects_of(sample)
    assert defect.kind == "format"
    assert "must have 'role' and 'content'" in defect.message


def test_media_in_memory_are_checked_as_files_are(media):
    video = load_video(media / "good.mp4", frames=[3])
    part = {"type": "video", "video": video}
    texts = (
        {"role": "user", "content": [part, {"type": "text", "text": "<region>"}]},
        {"role": "assistant", "content": "x"},
    )
    region = VideoRegion({3: Region.from_box((0, 0, 9, 9)), 20: Region.from_box((0, 0, 9, 9))})
    (defect,) = defects_of(RegionSample("x", texts, (region,)))
    assert defect == ("region", "region 0: frame 20 is not among the sampled ones.")
    picture = Image.new("RGB", (64, 48))
    assert defects_of(read(row(image=picture), media)) == []
    assert kinds(read(row(image=np.asarray(picture), size=[1, 1]), media), quick=True) == ["size"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    image=st.sampled_from(["good.jpg", "good.jpg", "turned.jpg", "cut.jpg"]),
    boxes=st.lists(st.tuples(*[st.integers(-2, 70)] * 4), min_size=1, max_size=3),
    markers=st.integers(-1, 1),
    size=st.sampled_from([None, [48, 64], [64, 48]]),
    answer=st.sampled_from(["", "Yes.", "No <region>."]),
    video=st.booleans(),
)
def test_defects_are_there_just_where_training_refuses(image, boxes, markers, size, answer, video, media, processors):
    shapes = [{"box": [min(x, u), min(y, v), max(x, u), max(y, v)]} for x, y, u, v in boxes]
    question = "<region>" * max(0, len(boxes) + (markers if not markers or len(boxes) > 1 else 0))
    if video:
        record = row(question=question, answer=answer, image=None, video="good.mp4", size=size)
        record["regions"] = [{"frames": {str(3 * number): shape}} for number, shape in enumerate(shapes)]
    else:
        record = row(question=question, answer=answer, image=image, size=size, regions=shapes)
    sample = read(record, media)
    try:
        RegionCollator(processors["saot"])([sample])
        accepted = True
    except SampleError:
        accepted = False
    assert (defects_of(sample) == []) == accepted


# -- datasets ----------------------------------------------------------------------------------------------


@pytest.fixture
def mixed_file(media):
    """70 samples, three chunks: of one kind and another, bad ones among them."""
    records = [row(id=f"s{index}", image="good.jpg" if index % 3 else "good.png") for index in range(70)]
    records[5] = row(id="s5", image="none.jpg")
    records[40] = row(id="s7")
    records[66] = row(id="s66", regions=[{"box": [0, 0, 999, 9]}])
    path = media / "mixed.jsonl"
    path.write_text("\n".join(map(json.dumps, [*records, "no object"])))
    return path


def test_processes_find_what_one_finds(mixed_file):
    dataset = RegionDataset.open(mixed_file)
    alone = list(check_dataset(dataset, workers=1))
    assert [each.index for each in alone] == list(range(71))
    assert {each.index: [defect.kind for defect in each.defects] for each in alone if each.defects} == {
        5: ["media"],
        40: ["format"],
        66: ["region"],
        70: ["format"],
    }
    assert alone[40].defects[0].message == "its id was used before, by mixed.jsonl line 8."
    assert list(check_dataset(dataset, workers=2)) == alone
    assert list(check_dataset(dataset, workers=2, limit=6)) == alone[:6]


def test_a_processor_goes_with_the_processes(mixed_file, processors):
    dataset = RegionDataset.open(mixed_file)
    alone = list(check_dataset(dataset, processor=processors["saot"], max_tokens=400, workers=1))
    assert list(check_dataset(dataset, processor=processors["saot"], max_tokens=400, workers=2)) == alone
    assert all((each.num_tokens is None) == bool(each.defects) for each in alone if each.index != 40)


def test_records_of_good_samples_read_back(mixed_file, media):
    checked = list(check_dataset(RegionDataset.open(mixed_file), media_root=media, workers=1))
    records = [each.record for each in checked if each.record is not None]
    assert len(records) == 67
    assert all(each.record is None for each in checked if each.defects)
    again = RegionDataset.from_rows(records, media_root=media)
    assert not any(each.defects for each in check_dataset(again, workers=1))


def test_the_summary_adds_up(mixed_file, media):
    summary = CheckSummary()
    for checked in check_dataset(RegionDataset.open(mixed_file), workers=1):
        summary.add(checked)
    assert (summary.samples, summary.good, summary.defects) == (71, 67, 4)
    assert summary.kinds == {"media": 1, "format": 2, "region": 1}
    assert (summary.images, summary.videos, summary.regions.total, summary.regions.least) == (70, 0, 70, 1)
    assert summary.regions.count == 70, "one of the 71 could not be read: how many it has is not known"
    assert summary.tokens.count == 0


def test_the_summary_counts_regions_and_masks_apart(media):
    rows = [row(id="a"), row(id="b", **ASKED, regions=[RLE]), GOOD_MASKS["a region and masks"] | {"id": "c"}]
    summary = CheckSummary()
    for checked in check_dataset(RegionDataset.from_rows(rows, media_root=media)):
        summary.add(checked)
    assert (summary.regions.total, summary.regions.least, summary.regions.most) == (2, 0, 1)
    assert (summary.masks.total, summary.masks.least, summary.masks.most) == (3, 0, 2)


def test_ids_with_one_hash_are_told_apart(media):
    records = [row(id=str(hash_twin)) for hash_twin in (0, 2**61 - 1)]
    assert not any(each.defects for each in check_dataset(RegionDataset.from_rows(records, media_root=media)))


def test_a_death_costs_one_result():
    results = list(run_in_order(dying_job.doubled, 140, workers=2, died=lambda index: f"died at {index}"))
    assert results == [f"died at {index}" if index in dying_job.DEADLY else 2 * index for index in range(140)]


def test_a_job_that_few_indices_have_needs_no_process():
    assert list(run_in_order(lambda indices: list(indices), 20, workers=8, died=str)) == list(range(20))
    assert list(run_in_order(lambda indices: list(indices), 0, workers=8, died=str)) == []


def test_a_script_without_guard_is_told_so(tmp_path, media):
    Image.new("RGB", (64, 48)).save(tmp_path / "good.jpg")
    (tmp_path / "data.jsonl").write_text("\n".join(json.dumps(row(id=str(index))) for index in range(40)))
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        from pathlib import Path
        from pixelrefer_plugin import DataError, RegionDataset
        from pixelrefer_plugin.data.checks import check_dataset
        try:
            list(check_dataset(RegionDataset.open(Path(__file__).parent / "data.jsonl"), workers=2))
        except DataError as error:
            print(error)
        """)
    )
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=True)
    assert "call from below `if __name__ == '__main__':`" in run.stdout
