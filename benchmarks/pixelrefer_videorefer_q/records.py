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
    EVERY_FRAME,
    BenchmarkFile,
    Defect,
    Question,
    RecordPlace,
    RegionSample,
    VideoRegion,
    official_records,
    questions_of,
    read_choice,
    read_sample,
    read_video_objects,
    shown,
    with_unique_ids,
    with_video_options,
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


def open_questions(config: VideoReferQConfig, folder: Path) -> list[Question]:
    """The questions, one for each record; raises `DataError` that names the file, the record and what is wrong."""
    folder = Path(folder)
    (template,) = prompts(config)
    records = official_records(folder, BenchmarkFile(config.annotations, _QUESTIONS), folder / config.videos)
    return list(with_unique_ids(_question(config, template.text, *each) for each in records))


def _question(config: VideoReferQConfig, template: str, record: Mapping[str, Any], place: RecordPlace) -> Question:
    defects: list[Defect] = []
    options = _options(record, defects)
    letter = _right(record, options, defects)
    for key in ("Question", "type", "video"):
        if not isinstance(record.get(key), str) or not record[key].strip():
            defects.append(Defect("format", f"'{key}' must be a text, got {shown(record.get(key))}."))
    named = EVERY_FRAME if config.masks == "all" else record.get("frame_idx")
    regions = read_video_objects(record.get("annotation"), defects, frame=named)
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


# -- frames ------------------------------------------------------------------------------------------------


def _shown_frames(config: VideoReferQConfig, sample: RegionSample) -> RegionSample:
    """The sample with what its video is told about frames."""
    named = {frame for region in sample.regions if isinstance(region, VideoRegion) for frame in region.frames}
    (video,) = sample.media("video")
    return with_video_options(sample, _frames(config, video["video"], len(named)))


def _frames(config: VideoReferQConfig, video: str, num_named: int) -> dict[str, float]:
    is_folder = os.path.isdir(video)
    times = {"fps": config.folder_fps} if is_folder else {}
    if config.masks == "all":
        return {**times, "nframes": num_named, "max_frames": num_named}
    if not is_folder:
        return {"fps": config.fps, "max_frames": config.max_frames}
    with os.scandir(video) as found:
        seconds = sum(each.is_file() for each in found) / config.folder_fps
    count = min(max(math.ceil(seconds * config.fps), 1), config.max_frames)
    return {**times, "nframes": count, "max_frames": config.max_frames}
