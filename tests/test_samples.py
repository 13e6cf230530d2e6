"""What `pixelrefer samples` writes: pictures whose objects are where the files say, drawn the same each time."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from pixelrefer_plugin import PixelReferError, Region, RegionDataset, load_video
from pixelrefer_plugin.cli import main
from pixelrefer_plugin.samples.canvas import Canvas, Pen
from pixelrefer_plugin.samples.street import NUM_FRAMES, SHOWN_FRAME, Street
from pixelrefer_plugin.samples.writing import Samples, write_samples


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Fewer pictures, and a shorter clip."""
    path = tmp_path_factory.mktemp("samples")
    write_samples(Samples(path, num_pictures=4, num_frames=6))
    return path


def box_of(mask_hw):
    rows, columns = np.nonzero(mask_hw)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_all_that_is_promised_is_there(folder):
    samples = Samples(folder, num_pictures=4)
    written = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert written == sorted(samples.names)
    described = (folder / "SAMPLES.txt").read_text()
    assert all(name in described for name in samples.names if "/" not in name and name != "SAMPLES.txt")
    assert "Apache-2.0" in described


@pytest.mark.parametrize("name", ["street.jpg", "kitchen.jpg", "new.jpg", "car.png"])
def test_pictures_are_of_one_size(folder, name):
    with Image.open(folder / name) as picture:
        assert picture.size == (640, 360)


def test_the_picture_is_the_clips_frame_at_three_seconds():
    street = Street()
    still = street.still(1)
    shown = street.moving(still, SHOWN_FRAME)
    cars = {frame: next(each for each in street.moving(still, frame).objects() if each.category == "car").mask_hw
            for frame in (0, SHOWN_FRAME, NUM_FRAMES - 1)}  # fmt: skip
    lefts = [box_of(mask)[0] for mask in cars.values()]
    assert lefts == sorted(lefts)
    assert lefts[0] + 200 < lefts[-1]  # it moves
    assert cars[SHOWN_FRAME][180, 320]  # where the README clicks at 3 s
    assert len(still.objects()) < len(shown.objects())


def test_the_clip_has_its_times(folder):
    video = load_video(folder / "street.mp4")
    assert video.num_source_frames == 6
    assert video.fps == pytest.approx(30, abs=0.1)
    assert video.image_hw == (360, 640)


def test_annotations_are_of_what_is_seen(folder):
    coco = json.loads((folder / "instances.json").read_text())
    assert {"car", "person", "bicycle", "cup", "apple"} <= {each["name"] for each in coco["categories"]}
    claimed = {}
    for annotation in coco["annotations"]:
        mask = Region.from_rle(annotation["segmentation"]).to_mask((360, 640)).dense()
        x0, y0, x1, y1 = box_of(mask)
        assert annotation["bbox"] == [x0, y0, x1 - x0, y1 - y0]
        assert annotation["area"] == mask.sum() >= 40
        before = claimed.setdefault(annotation["image_id"], np.zeros_like(mask))
        assert not (before & mask).any()  # no pixel shows two objects
        before |= mask
    assert sorted(claimed) == [1, 2, 3, 4]


def test_the_car_is_where_its_mask_is(folder):
    mask = np.asarray(Image.open(folder / "car.png")) > 0
    red, green, blue = np.asarray(Image.open(folder / "street.jpg").convert("RGB"), dtype=int)[mask].mean(0)
    assert red > 1.3 * max(green, blue)


def test_files_of_questions_have_no_defects(folder):
    questions = RegionDataset.open(folder / "street.jsonl")
    assert [sample.id for sample in map(questions.__getitem__, range(len(questions)))] == [
        f"street-{number}" for number in range(1, 5)
    ]
    regions = [json.loads(line) for line in (folder / "regions.jsonl").read_text().splitlines()]
    assert {each["image"] for each in regions} == {"street.jpg", "kitchen.jpg"}
    assert len({each["id"] for each in regions}) == len(regions) > 20


def test_the_same_is_drawn_each_time():
    first, again = (np.asarray(Street.drawn_by_lot(3).still(1).picture()) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, np.asarray(Street.drawn_by_lot(5).still(1).picture()))


def test_what_is_there_is_not_replaced(tmp_path):
    (tmp_path / "street.jpg").write_text("mine")
    result = CliRunner().invoke(main, ["samples", str(tmp_path)])
    assert result.exit_code == 2
    assert f"'{tmp_path / 'street.jpg'}' would be replaced. Name another folder, or allow --overwrite." in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["street.jpg"]
    (tmp_path / "new.jpg").touch()
    with pytest.raises(PixelReferError, match="street.jpg' and 1 other file would be replaced"):
        write_samples(Samples(tmp_path))
    write_samples(Samples(tmp_path, overwrite=True, num_pictures=1, num_frames=1))
    assert (tmp_path / "street.jpg").stat().st_size > 10_000


def test_a_folder_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "file").touch()
    result = CliRunner().invoke(main, ["samples", str(tmp_path / "file")])
    assert result.exit_code == 2
    assert "cannot be written" in result.output


# -- the canvas --------------------------------------------------------------------------------------------------


def test_what_is_covered_is_not_seen():
    canvas = Canvas((20, 10), 4)
    with canvas.drawing("back"):
        canvas.rectangle(2, 2, 12, 8, (255, 0, 0))
    with canvas.drawing("front"):
        canvas.rectangle(8, 0, 18, 10, (0, 0, 255))
    with canvas.drawing("hidden"):
        canvas.rectangle(9, 4, 11, 6, (0, 0, 0))
    with canvas.drawing("last"):
        canvas.rectangle(9, 4, 11, 6, (0, 255, 0))
    found = {each.category: each.mask_hw for each in canvas.objects()}
    assert list(found) == ["back", "front", "last"]
    assert box_of(found["back"]) == [2, 2, 8, 8]
    assert found["front"].sum() == 100 - 4
    assert not any((one & other).any() for one in found.values() for other in found.values() if one is not other)


def test_parts_of_one_name_are_one_object():
    canvas = Canvas((20, 10), 4)
    for x, category, name in ((0, "bowl", "bowl"), (4, "apple", None), (8, "bowl", "bowl")):
        with canvas.drawing(category, name):
            canvas.rectangle(x, 0, x + 6, 6, (9, 9, 9))
    assert {each.category: int(each.mask_hw.sum()) for each in canvas.objects()} == {"bowl": 24 + 36, "apple": 24}


def test_shadows_and_what_stands_outside_belong_to_no_object():
    canvas = Canvas((20, 10), 2)
    pen = Pen(canvas, (10, 9), 2.0, heads=-1)
    pen.shadow(0, 0, (3, 0.5))
    with canvas.drawing("away"):
        pen.ring(50, 50, 1, 0.3, (0, 0, 0))
    with canvas.drawing("ring"):
        pen.ring(0, 2, 1.5, 0.5, (200, 0, 0))
    [ring] = canvas.objects()
    assert ring.category == "ring"
    assert not ring.mask_hw[5, 10]  # it is empty inside
    assert pen.at(1, 1) == (8.0, 7.0)  # it heads to the left
