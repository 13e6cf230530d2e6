"""Questions from the records of VideoRefer-Bench-Q, of which PixelQA is made.

A record is `id, video, Question, type, options, Answer, frame_idx, annotation`, the last a list of objects, each
`{frame: {"segmentation": RLE}}`. Source: unipixel/dataset/sub_classes/evaluation/videorefer.py.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pixelrefer_plugin.authoring import (
    DataError,
    Question,
    Region,
    RegionError,
    RegionMask,
    RegionSample,
    VideoRegion,
    official_json,
    read_segmentation,
    require_there,
    shown,
)

from .config import PixelQAConfig

FILE = "VideoRefer-Bench-Q.json"
ABOUT = (
    "The questions of VideoRefer-Bench-Q, from https://huggingface.co/datasets/DAMO-NLP-SG/VideoRefer-Bench; PixelQA "
    "asks the same with points and boxes."
)
_NAMED = re.compile(r"<object(\d{1,9})>")
_LETTER = re.compile(r"\s*\(?([A-Za-z])\b")


def open_questions(config: PixelQAConfig, folder: Path) -> list[Question]:
    """The questions, in the order of the file.

    Raises:
        DataError: the file is missing, or a record is malformed.
    """
    path = Path(folder) / FILE
    require_there(path, ABOUT)
    records = official_json(path)
    if not isinstance(records, list) or not records or not all(isinstance(each, Mapping) for each in records):
        raise DataError(f"'{path}' must hold a list of questions, got {shown(records)}.")
    found = []
    for number, record in enumerate(records):
        try:
            found.append(_question(config, record, number, Path(folder) / config.images))
        except (DataError, RegionError) as error:
            raise DataError(f"'{path}', question {number}: {error}") from error
    return found


def _question(config: PixelQAConfig, record: Mapping[str, Any], number: int, folder: Path) -> Question:
    options = record.get("options")
    if not isinstance(options, list) or not options or not all(isinstance(each, str) for each in options):
        raise DataError(f"its 'options' must be a list of texts, got {shown(options)}.")
    texts = {key: record.get(key) for key in ("video", "Question", "Answer")}
    wrong = next((key for key, value in texts.items() if not isinstance(value, str) or not value.strip()), None)
    if wrong:
        raise DataError(f"its '{wrong}' must be a text, got {shown(record.get(wrong))}.")
    frame, objects = _objects(record)
    marks = _marks(config, objects, frame, number)
    asked = _with_markers(str(texts["Question"]).strip(), len(objects))
    text = config.question.replace("{options}", "\n".join(options)).replace("{question}", asked)
    id = f"{number}" if record.get("id") is None else f"{record['id']}"
    content = [_video(config, folder / str(texts["video"])), {"type": "text", "text": text}]
    return Question(
        id=id,
        asked=RegionSample(id, ({"role": "user", "content": content},), tuple(marks)),
        references=(str(texts["Answer"]),),
        targets=tuple(objects),
        segment=True,
        localize=True,
        type=str(record.get("type") or ""),
        facts={"letter": _letter(str(texts["Answer"])), "options": tuple(options)},
    )


def _video(config: PixelQAConfig, path: Path) -> dict[str, Any]:
    part = {"type": "video", "video": str(path)}
    return {**part, "fps": config.folder_fps} if path.is_dir() else part


def _letter(answer: str) -> str:
    found = _LETTER.match(answer)
    if not found:
        raise DataError(f"its 'Answer' must begin with the letter of an option, got {shown(answer)}.")
    return found[1].upper()


def _with_markers(question: str, num_objects: int) -> str:
    """`<object0><region>` as `[1] <region>`, and each later `<object0>` as `[1]`."""
    if question.count("<region>") != num_objects:
        raise DataError(
            f"its 'Question' must have a <region> for each of its {num_objects} objects, got {shown(question)}."
        )
    numbered = _NAMED.sub(lambda name: f"[{int(name[1]) + 1}]", question)
    return re.sub(r"\](?=<region>)", "] ", numbered)


def _objects(record: Mapping[str, Any]) -> tuple[int, list[VideoRegion]]:
    """The frame that shows what is meant, and the true masks of each object.

    About a frame on which another object is annotated an object without a mask is known to be absent.
    """
    annotation = record.get("annotation")
    if not isinstance(annotation, list) or not annotation or not all(isinstance(each, Mapping) for each in annotation):
        raise DataError(f"its 'annotation' must be a list of objects, got {shown(annotation)}.")
    of_object = [_masks(each) for each in annotation]
    found = [region for masks in of_object for region in masks.values() if region is not None]
    if other := next((region.kind for region in found if region.kind != "rle"), ""):
        raise DataError(f"its masks must be run lengths, got a {other}.")
    if len(sizes := sorted({tuple(region.data[1]) for region in found})) > 1:
        raise DataError(f"its masks must be of one size, got {sizes}, each (height, width).")
    known = sorted({frame for masks in of_object for frame in masks})
    frame = _index(record.get("frame_idx"))
    if frame not in known:
        raise DataError(f"its 'frame_idx' must be an annotated frame, got {shown(record.get('frame_idx'))}.")
    objects = []
    for number, masks in enumerate(of_object):
        frames = {index: region for index, region in masks.items() if region is not None}
        if frame not in frames:
            raise DataError(f"object {number} has no mask on frame {frame}, where it is to be pointed at.")
        objects.append(VideoRegion(frames, absent=tuple(index for index in known if index not in frames)))
    return frame, objects


def _masks(annotation: Mapping[str, Any]) -> dict[int, Region | None]:
    return {_index(frame): read_segmentation(each) for frame, each in annotation.items()}


def _index(frame: Any) -> int:
    text = str(frame)
    if not text.isdecimal() or len(text) > 9:
        raise DataError(f"a frame must be named by its number, got {shown(frame)}.")
    return int(text)


def _marks(config: PixelQAConfig, objects: Sequence[VideoRegion], frame: int, number: int) -> list[VideoRegion]:
    """What points at each object, on one frame. Mixed marks take turns, and begin with the other one in the next
    question; the official code draws them by lot."""
    found = []
    for place, each in enumerate(objects):
        region = each.frames[frame]
        mask = region.to_mask(region.data[1])
        is_point = config.mark == "point" or (config.mark == "mixed" and (place + number) % 2 == 0)
        found.append(VideoRegion({frame: _point(mask) if is_point else Region.from_box(mask.box_xyxy)}))
    return found


def _point(mask: RegionMask) -> Region:
    """The centre of the pixel that lies deepest in a mask (SAM 2's `sample_one_point_from_error_center`)."""
    import cv2

    depths = cv2.distanceTransform(np.pad(mask.window.astype(np.uint8), 1), cv2.DIST_L2, 0)[1:-1, 1:-1]
    y, x = np.unravel_index(int(np.argmax(depths)), depths.shape)
    x0, y0, _, _ = mask.box_xyxy
    return Region.from_points([(x0 + int(x) + 0.5, y0 + int(y) + 0.5)])
