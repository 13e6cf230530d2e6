"""Small files in the official layouts of the three benchmarks, for the conformance kit."""

import json
from pathlib import Path
from typing import Any

from pixelrefer_plugin.authoring import Region
from pixelrefer_plugin.testing import TINY_HW, write_tiny_picture, write_tiny_video

_CAPTIONS = ("a red lamp on a table", "the left ear of a brown dog", "green leaves over a fence")
_SIZE = {"height": TINY_HW[0], "width": TINY_HW[1]}


def visual_genome(folder: Path) -> None:
    """Three regions of two pictures."""
    records = []
    for number, caption in enumerate(_CAPTIONS):
        image = f"VG_100K/{1 + number % 2}.jpg"
        write_tiny_picture(folder / "images" / image)
        box = [4 * number, 3, 20, 12]
        records.append({"image": [image], **_SIZE, "caption": caption, "mask": _mask(number), "boxes": [box]})
    _write(folder / "vg_val_5000.json", records)


def ref_l4_phrases(folder: Path) -> None:
    """Three objects in two pictures of Objects365 and one of COCO, with their phrases."""
    lines = [{"file_name": "coco_1.jpg", **_SIZE, "caption": "A cat.", "bbox": [1, 1, 5, 5]}]
    for number, caption in enumerate(_CAPTIONS):
        image = f"objects365_v1_{1 + number % 2}.jpg"
        write_tiny_picture(folder / "images" / image)
        described = f"This is {caption}. Behind it stands something else."
        lines.append({"file_name": image, **_SIZE, "caption": described, "bbox": [4.0 * number, 3.5, 20.2, 12.9]})
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (folder / "ref-l4-val.json").write_text(text, encoding="utf-8")
    truth = [{"image_id": str(id), "id": str(id), "caption": caption} for id, caption in enumerate(_CAPTIONS)]
    _write(folder / "refl4_gt.json", {"images": [{"id": each["id"]} for each in truth], "annotations": truth})


def hc_stvg(folder: Path) -> None:
    """Three persons in two videos, in both shapes of records."""
    one, every = [], []
    for number, caption in enumerate(_CAPTIONS):
        video = f"{1 + number % 2}.mp4"
        write_tiny_video(folder / "video_parts" / video)
        one.append({"video": video, "frame_idx": 5, "mask": _mask(number), "caption": caption})
        masks = {str(frame): _mask(number + frame) for frame in (2, 5)}
        turns = [{"from": "human", "value": "What is it?"}, {"from": "gpt", "value": caption}]
        every.append({"video": [video], "masks": [masks], "conversations": turns})
    _write(folder / "hc_stvg_val.json", one)
    _write(folder / "hc-stvg-val-allframe.json", every)


def _mask(left: int) -> dict[str, Any]:
    return Region.from_box((left, 5, left + 20, 30)).to_mask(TINY_HW).to_rle()


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
