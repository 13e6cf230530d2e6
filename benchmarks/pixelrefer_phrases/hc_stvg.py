"""HC-STVG: a caption of a person in a video.

A record: `video, frame_idx, mask (RLE), caption`; with all masks, for PixelRefer-Lite: `video[0], masks[{frame: RLE}],
conversations[1].value`. Source: `evaluation/pixelrefer/infer_hc_stvg.py` and `evaluation/pixelrefer_lite/` in
https://github.com/alibaba-damo-academy/PixelRefer.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pixelrefer_plugin.authoring import (
    EVERY_FRAME,
    Answer,
    BenchmarkFile,
    BenchmarkSpec,
    Defect,
    Prompt,
    PublishedFigure,
    Question,
    RecordPlace,
    Region,
    VideoRegion,
    collecting,
    official_records,
    question_prompt,
    read_masks_by_frame,
    shown,
    with_video_options,
)

from . import tiny
from .asking import CODE, FROM, PAPER, captions_of, made_question, read_predictions
from .config import HcStvgConfig
from .scoring import score_captions

_QUESTION = "Who is <region> in this video, and what does that person do? Answer in one sentence."
_OFFICIAL = {
    "one": (f"{CODE}/pixelrefer/infer_hc_stvg.py", "4e1048aa4a7e5eb3353930d547d85b3e91752709c0dcaf4b72057b9cc87ab6fd"),
    "all": (
        f"{CODE}/pixelrefer_lite/infer_hc_stvg.py",
        "8066aab64cd73efee57a8dddc522b83f859a5355f5811d0750e72de488937131",
    ),
}
_RECORDS = {
    "one": BenchmarkFile(
        "hc_stvg_val.json", f"Persons with a mask on one frame, from {FROM}; for masks=one.", optional=True
    ),
    "all": BenchmarkFile(
        "hc-stvg-val-allframe.json", f"Persons with masks on all frames, from {FROM}; for masks=all.", optional=True
    ),
}
_VIDEOS = BenchmarkFile(
    "video_parts", "The videos of HC-STVG, from https://github.com/tzhhhh123/HC-STVG.", optional=True
)
_METRICS = ("meteor", "cider", "bleu_4", "rouge_l")
_TABLE_4 = {
    "DAM-3B": (18.2, 72.7),
    "PAM-3B": (23.3, 70.3),
    "Merlin-7B": (11.3, 10.5, 3.3, 26.0),
    "Artemis-7B": (18.0, 53.2, 15.5, 40.8),
    "VideoRefer-7B": (18.7, 68.6),
    "DAM-8B": (21.0, 91.0, 19.8, 45.9),
    "PixelRefer-Lite-2B": (21.1, 91.3, 19.0, 45.8),
    "PixelRefer-Lite-7B": (21.9, 92.7, 20.7, 46.5),
    "PixelRefer-2B": (19.5, 78.9, 17.2, 43.8),
    "PixelRefer-7B": (21.1, 97.4, 20.1, 46.1),
}


def open_questions(config: HcStvgConfig, folder: Path) -> list[Question]:
    """The questions, one for each record; raises `DataError` that names the file, the record and what is wrong."""
    text = prompts(config)[0].text
    records = official_records(folder, _RECORDS[config.masks], Path(folder) / config.videos)
    return [_question(config, record, place, text) for record, place in records]


def _question(config: HcStvgConfig, record: Mapping[str, Any], place: RecordPlace, text: str) -> Question:
    defects: list[Defect] = []
    video, masks, caption = _one(record) if config.masks == "one" else _all(record, defects)
    regions: list[Region | VideoRegion | None] = [None]
    with collecting(defects, "region", "the person"):
        regions[0] = read_masks_by_frame(masks, frame=record.get("frame_idx") if config.masks == "one" else EVERY_FRAME)
    question = made_question(
        {"id": str(place.index), "video": video}, place, regions, captions_of(caption, defects), text, defects
    )
    asked = with_video_options(question.asked, _frames(config, question.asked.regions[0]))
    return replace(question, asked=asked, facts={**question.facts, "medium": str(video)})


def _frames(config: HcStvgConfig, region: Region | VideoRegion) -> dict[str, float]:
    """Which frames of the video are shown, as options of its content part."""
    if config.masks == "one" or isinstance(region, Region):
        return {"fps": config.fps, "max_frames": config.max_frames}
    return {"nframes": len(region.frames), "max_frames": len(region.frames)}


def _one(record: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """Video, masks by frame, and caption of a record with one mask."""
    return record.get("video"), {str(record.get("frame_idx")): record.get("mask")}, record.get("caption")


def _all(record: Mapping[str, Any], defects: list[Defect]) -> tuple[Any, Any, Any]:
    """The same of a record with all masks."""
    video, masks, turns = (record.get(key) for key in ("video", "masks", "conversations"))
    if not isinstance(turns, list) or len(turns) < 2 or not isinstance(turns[1], Mapping):
        defects.append(Defect("format", f"'conversations' must be a question and an answer, got {shown(turns)}."))
        turns = [None, {"value": "?"}]
    if not isinstance(masks, list) or len(masks) != 1:
        defects.append(
            Defect("format", f"'masks' must be a list of one object with a mask by frame, got {shown(masks)}.")
        )
        masks = [{}]
    return video[0] if isinstance(video, list) and video else video, masks[0], turns[1].get("value")


def prompts(config: HcStvgConfig) -> list[Prompt]:
    """What is asked."""
    file, sha256 = _OFFICIAL[config.masks]
    return [question_prompt(config.question, config.official_code, own=_QUESTION, file=file, sha256=sha256)]


def _predictions(config: HcStvgConfig, path: str | Path, questions: Sequence[Question]) -> Iterator[Answer]:
    return (answer for answer, _ in read_predictions(path, questions, medium="video"))


SPEC = BenchmarkSpec(
    name="hc_stvg",
    about="HC-STVG: a caption of a person in a video, compared with a person's (CIDEr, METEOR, BLEU-4, ROUGE-L).",
    config=HcStvgConfig,
    files=(*_RECORDS.values(), _VIDEOS),
    open=open_questions,
    score=score_captions,
    published=tuple(
        PublishedFigure(model, name, value / 100, f"{PAPER}, Table 4")
        for model, row in _TABLE_4.items()
        for name, value in zip(_METRICS, row, strict=False)
    ),
    prompts=prompts,
    answer_formats={"pixelrefer": _predictions},
    tiny=tiny.hc_stvg,
)
