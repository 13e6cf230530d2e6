"""Writes the samples: pictures, a clip, masks, a COCO file and files of questions, into one folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from ..errors import PixelReferError, counted
from ..files import require_writable_folder, write_text_whole, written_whole
from ..overlay import write_mp4
from .canvas import Canvas, DrawnObject
from .kitchen import Kitchen
from .street import FPS, NUM_FRAMES, SHOWN_FRAME, SIZE_WH, Street

NUM_PICTURES = 20
"""In `images/`: streets and kitchens in turn."""

_NEW_SEED = 99
_CLIP_SCALE = 2
_IMAGES_SCALE = 3
_LEAST_PIXELS = 40  # of an object that is annotated
_QUALITY = 92

README = """Pictures to try pixelrefer-plugin with, written by `pixelrefer samples`.

All of them are drawn by the code of that package, by nothing else, and are under its licence, Apache-2.0.

street.jpg       a street: a woman crosses it, a red car, a cyclist; the frame of street.mp4 at 3 s
street.mp4       five seconds of it, 30 frames a second
kitchen.jpg      a table with fruit and crockery
new.jpg          another kitchen, which is not among those of images/
car.png          mask of the car in street.jpg
street.jsonl     questions about street.jpg and street.mp4, with answers
regions.jsonl    a question about each object of street.jpg and kitchen.jpg, without answers
images/          more streets and kitchens
instances.json   their objects, a COCO file with exact boxes and masks
"""


@dataclass(frozen=True)
class Samples:
    """What is written.

    Attributes:
        folder: where to; it is made where it is not there.
        overwrite: replace files of these names.
        num_pictures: in `images/`.
        num_frames: of the clip.
    """

    folder: Path
    overwrite: bool = False
    num_pictures: int = NUM_PICTURES
    num_frames: int = NUM_FRAMES

    @property
    def pictures(self) -> list[str]:
        """Names of the pictures in `images/`."""
        return [f"{'street' if index % 2 == 0 else 'kitchen'}-{index:02}.jpg" for index in range(self.num_pictures)]

    @property
    def names(self) -> list[str]:
        """All that is written, below the folder."""
        single = ["street.jpg", "kitchen.jpg", "new.jpg", "street.mp4", "car.png", "street.jsonl", "regions.jsonl"]
        return [*single, "instances.json", "SAMPLES.txt", *(f"images/{name}" for name in self.pictures)]


def write_samples(samples: Samples) -> list[Path]:
    """Draw and write everything; returns the paths. The same on every machine, up to what encoders make of it.

    Raises:
        PixelReferError: a file is there already and is not to be replaced, or cannot be written.
    """
    folder = samples.folder
    _refuse_existing(samples)
    require_writable_folder(folder / "images")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    street = Street()
    canvas = street.moving(street.still(), SHOWN_FRAME)
    kitchen = Kitchen().drawn()
    _write_picture(folder / "street.jpg", canvas)
    _write_picture(folder / "kitchen.jpg", kitchen)
    _write_picture(folder / "new.jpg", Kitchen(_NEW_SEED).drawn())
    _write_mask(folder / "car.png", _only(canvas.objects(), "car").mask_hw)
    records = {"street.jsonl": list(_questions(street, canvas)), "regions.jsonl": list(_regions(canvas, kitchen))}
    for name, lines in records.items():
        write_text_whole(folder / name, "".join(json.dumps(each) + "\n" for each in lines))
    _write_clip(folder / "street.mp4", street, samples.num_frames)
    _write_coco(samples)
    write_text_whole(folder / "SAMPLES.txt", README)
    return [folder / name for name in samples.names]


def _refuse_existing(samples: Samples) -> None:
    there = [name for name in samples.names if (samples.folder / name).exists()]
    if there and not samples.overwrite:
        others = f" and {counted(len(there) - 1, 'other file')}" if len(there) > 1 else ""
        raise PixelReferError(
            f"'{samples.folder / there[0]}'{others} would be replaced. Name another folder, or allow --overwrite."
        )


def _write_picture(path: Path, canvas: Canvas) -> None:
    with written_whole(path) as made:
        canvas.picture().save(made, quality=_QUALITY)


def _write_mask(path: Path, mask_hw: NDArray[np.bool_]) -> None:
    with written_whole(path) as made:
        Image.fromarray(mask_hw.astype(np.uint8) * 255).save(made)


def _write_clip(path: Path, street: Street, num_frames: int) -> None:
    still = street.still(_CLIP_SCALE)
    pictures = (street.moving(still, frame).picture() for frame in range(num_frames))
    with written_whole(path) as made:
        write_mp4(made, pictures, [1 / FPS] * num_frames, bit_rate=1_500_000)


# -- objects as COCO and as regions ---------------------------------------------------------------------------


def _only(objects: Sequence[DrawnObject], category: str) -> DrawnObject:
    [found] = [each for each in objects if each.category == category]
    return found


def _box_xyxy(mask_hw: NDArray[np.bool_]) -> list[int]:
    """The tight box, end exclusive."""
    rows, columns = np.flatnonzero(mask_hw.any(1)), np.flatnonzero(mask_hw.any(0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


def _rle(mask_hw: NDArray[np.bool_]) -> dict[str, Any]:
    lengths = coco_mask.encode(np.asfortranarray(mask_hw, dtype=np.uint8))
    return {"size": list(mask_hw.shape), "counts": lengths["counts"].decode()}


def _annotated(canvas: Canvas) -> list[DrawnObject]:
    return [each for each in canvas.objects() if each.mask_hw.sum() >= _LEAST_PIXELS]


def _write_coco(samples: Samples) -> None:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    categories: dict[str, int] = {}
    for number, name in enumerate(samples.pictures, start=1):
        canvas = _picture(number)
        _write_picture(samples.folder / "images" / name, canvas)
        images.append({"id": number, "file_name": name, "width": SIZE_WH[0], "height": SIZE_WH[1]})
        for each in _annotated(canvas):
            x0, y0, x1, y1 = _box_xyxy(each.mask_hw)
            annotation = {
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": categories.setdefault(each.category, len(categories) + 1),
                "segmentation": _rle(each.mask_hw),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": int(each.mask_hw.sum()),
                "iscrowd": 0,
            }
            annotations.append(annotation)
    listed = [{"id": id, "name": name} for name, id in categories.items()]
    whole = {"images": images, "annotations": annotations, "categories": listed}
    write_text_whole(samples.folder / "instances.json", json.dumps(whole) + "\n")


def _picture(number: int) -> Canvas:
    if number % 2 == 0:
        return Kitchen(number).drawn(_IMAGES_SCALE)
    street = Street.drawn_by_lot(number)
    return street.moving(street.still(_IMAGES_SCALE), SHOWN_FRAME)


# -- files of questions ---------------------------------------------------------------------------------------


def _questions(street: Street, canvas: Canvas) -> Iterator[dict[str, Any]]:
    """Some about the picture, and one about the clip."""
    objects = canvas.objects()
    woman = {"box": _box_xyxy(objects[-1].mask_hw)}
    car, bicycle = ({"rle": _rle(_only(objects, name).mask_hw)} for name in ("car", "bicycle"))
    yield _record("street-1", "street.jpg", [woman], "What is <region> doing?", "Crossing the street.")
    yield _record("street-2", "street.jpg", [car], "What is <region>?", "A red car.")
    between = "What is between <region> and <region>?"
    yield _record("street-3", "street.jpg", [woman, bicycle], between, "A red car.")
    frames = {}
    for frame in (30, SHOWN_FRAME):
        seen = _only(street.moving(street.still(_CLIP_SCALE), frame).objects(), "car")
        frames[str(frame)] = {"box": _box_xyxy(seen.mask_hw)}
    moving = {"frames": frames}
    answer = "To the right, along the street."
    yield _record("street-4", "street.mp4", [moving], "Where does <region> go?", answer)


def _record(id: str, file: str, regions: Sequence[dict[str, Any]], question: str, answer: str) -> dict[str, Any]:
    kind = "video" if file.endswith(".mp4") else "image"
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"id": id, kind: file, "regions": list(regions), "messages": messages}


def _regions(street: Canvas, kitchen: Canvas) -> Iterator[dict[str, Any]]:
    """A question about each object, without the answer."""
    for name, canvas in (("street", street), ("kitchen", kitchen)):
        for number, each in enumerate(_annotated(canvas), start=1):
            messages = [{"role": "user", "content": "What is <region>?"}]
            regions = [{"box": _box_xyxy(each.mask_hw)}]
            yield {"id": f"{name}-{number}", "image": f"{name}.jpg", "regions": regions, "messages": messages}
