"""Reads the records of VideoRefer-Bench-Q.

A record is `{"id", "video", "Question", "type", "options", "Answer", "frame_idx", "annotation"}`; `annotation` has an
object for each `<region>` of the question, and maps frame indices to masks, of which some may be null. A video is a
folder of frames or a file. Source: `VideoRefer/benchmark/README.md` and
`PixelRefer/evaluation/pixelrefer/infer_videorefer_q.py` in https://github.com/alibaba-damo-academy/PixelRefer.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pixelrefer_plugin.authoring import (
    BenchmarkFile,
    Defect,
    Question,
    RecordPlace,
    Region,
    RegionError,
    RegionSample,
    VideoRegion,
    collecting,
    official_records,
    questions_of,
    read_choice,
    read_sample,
    read_segmentation,
    shown,
    with_unique_ids,
)

from .config import VideoReferQConfig
from .prompts import asked, prompts

_QUESTIONS = "the 1,000 questions, from https://huggingface.co/datasets/DAMO-NLP-SG/VideoRefer-Bench."
FILES = (
    BenchmarkFile("VideoRefer-Bench-Q.json", _QUESTIONS),
    BenchmarkFile(
        "DAVIS/JPEGImages/480p",
        "frames of DAVIS 2017, TrainVal, Test-Dev and Test-Challenge, from https://davischallenge.org/davis2017/code.html.",
    ),
    BenchmarkFile(
        "MeViS/valid_u/JPEGImages", "frames of MeViS, from https://codalab.lisn.upsaclay.fr/competitions/15094."
    ),
)
_MOST_DIGITS = 9  # of a frame index


def open_questions(config: VideoReferQConfig, folder: Path) -> list[Question]:
    """The questions, one for each record; raises `DataError` that names the file, the record and what is wrong."""
    folder = Path(folder)
    records = official_records(folder, BenchmarkFile(config.annotations, _QUESTIONS))
    (template,) = prompts(config)
    media_root = folder / config.videos
    places = (RecordPlace(records.where(index), index, media_root) for index in range(len(records)))
    return list(with_unique_ids(_question(config, template.text, records[place.index], place) for place in places))


def _question(config: VideoReferQConfig, template: str, record: Any, place: RecordPlace) -> Question:
    if not isinstance(record, Mapping):
        raise place.error(str(place.index), [Defect("format", f"a record must be an object, got {shown(record)}.")])
    defects: list[Defect] = []
    options = _options(record, defects)
    letter = _right(record, options, defects)
    for key in ("Question", "type", "video"):
        if not isinstance(record.get(key), str) or not record[key].strip():
            defects.append(Defect("format", f"'{key}' must be a text, got {shown(record.get(key))}."))
    regions = _regions(config, record, defects)
    text = asked(config, template, str(record.get("Question")).strip(), options)
    translated = {
        "id": record.get("id"),
        "video": record.get("video"),
        "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": str(record.get("Answer"))}],
    }
    sample = read_sample(translated, place, regions=regions, defects=defects)
    (question,) = questions_of(sample)
    facts = {key: record[key] for key in ("video", "Question", "Answer", "type", "options")} | {"letter": letter}
    return replace(question, asked=_shown_frames(config, question.asked), type=record["type"], facts=facts)


def _options(record: Mapping[str, Any], defects: list[Defect]) -> Sequence[str]:
    options = record.get("options")
    if isinstance(options, list) and 2 <= len(options) <= 26 and all(isinstance(each, str) for each in options):
        return options
    defects.append(Defect("format", f"'options' must be a list of 2 to 26 texts, got {shown(options)}."))
    return ()


def _right(record: Mapping[str, Any], options: Sequence[str], defects: list[Defect]) -> str:
    answer = record.get("Answer")
    letter = read_choice(answer, options) if isinstance(answer, str) and options else None
    if options and letter is None:
        listed = " ".join(options)
        defects.append(Defect("answer", f"'Answer' must be one of {shown(listed, 200)}, got {shown(answer)}."))
    return letter or ""


def _regions(
    config: VideoReferQConfig, record: Mapping[str, Any], defects: list[Defect]
) -> list[VideoRegion | Region | None]:
    objects = record.get("annotation")
    if not isinstance(objects, list):
        defects.append(Defect("format", f"'annotation' must be a list of objects, got {shown(objects)}."))
        return []
    regions: list[VideoRegion | Region | None] = []
    for number, found in enumerate(objects):
        region: VideoRegion | None = None
        with collecting(defects, "region", f"object {number}"):
            region = _region(config, found, record.get("frame_idx"))
        regions.append(region)
    return regions


def _region(config: VideoReferQConfig, found: Any, named: Any) -> VideoRegion:
    """An object, on the frame that the record names or on all that have a mask."""
    if not isinstance(found, Mapping) or not all(map(_is_frame, found)):
        raise RegionError(f"it must map frame indices to masks, such as {{'57': ...}}, got {shown(found)}.")
    if config.masks == "one":
        if not _is_frame(str(named)) or str(named) not in found:
            raise RegionError(f"it has no mask on frame {shown(named)}, which 'frame_idx' names.")
        found = {str(named): found[str(named)]}
    masks: dict[int, Region] = {}
    for frame, given in found.items():
        mask = read_segmentation(given)
        if mask is not None:
            masks[int(frame)] = mask
    if not masks:
        raise RegionError(f"it has no mask on {f'frame {named}' if config.masks == 'one' else 'any frame'}.")
    return VideoRegion(masks)


def _is_frame(name: Any) -> bool:
    return isinstance(name, str) and name.isascii() and name.isdigit() and len(name) <= _MOST_DIGITS


# -- frames ------------------------------------------------------------------------------------------------


def _shown_frames(config: VideoReferQConfig, sample: RegionSample) -> RegionSample:
    """The sample with what its video is told about frames."""
    named = {frame for region in sample.regions if isinstance(region, VideoRegion) for frame in region.frames}
    messages = [
        {**message, "content": [_with_frames(config, part, len(named)) for part in message["content"]]}
        for message in sample.messages
    ]
    return replace(sample, messages=tuple(messages))


def _with_frames(config: VideoReferQConfig, part: Mapping[str, Any], num_named: int) -> Mapping[str, Any]:
    if part["type"] != "video":
        return part
    is_folder = os.path.isdir(part["video"])
    times = {"fps": config.folder_fps} if is_folder else {}
    if config.masks == "all":
        return {**part, **times, "nframes": num_named, "max_frames": num_named}
    if not is_folder:
        return {**part, "fps": config.fps, "max_frames": config.max_frames}
    with os.scandir(part["video"]) as found:
        seconds = sum(each.is_file() for each in found) / config.folder_fps
    count = min(max(math.ceil(seconds * config.fps), 1), config.max_frames)
    return {**part, **times, "nframes": count, "max_frames": config.max_frames}
