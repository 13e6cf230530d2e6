"""Reads VideoRefer-Bench-D: its records, and the files of answers and of judges' answers that its scripts write.

Source: `VideoRefer/benchmark/README.md` and `PixelRefer/evaluation/` in
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
    Defect,
    JudgeRequest,
    Question,
    RecordPlace,
    RegionSample,
    VideoRegion,
    matched,
    official_records,
    questions_of,
    read_sample,
    read_video_objects,
    require_same_answer,
    text_in,
    with_video_options,
)

from .config import VideoReferDConfig
from .prompts import judge_request, prompts, question_of

_FROM = "https://huggingface.co/datasets/DAMO-NLP-SG/VideoRefer-Bench"
QUESTIONS = BenchmarkFile("VideoRefer-Bench-D.json", f"the 400 objects and their descriptions, from {_FROM}.")
FILES = (
    QUESTIONS,
    BenchmarkFile("Panda-70M-part", f"folder of the videos, unpacked from Panda-70M-part.zip of {_FROM}."),
)


def open_questions(config: VideoReferDConfig, folder: Path) -> list[Question]:
    """The questions, one for each record; raises `DataError` that names the file, the record and what is wrong."""
    question = question_of(config).text
    records = official_records(folder, QUESTIONS, folder / config.videos)
    return [_question(config, question, record, place) for record, place in records]


def _question(config: VideoReferDConfig, question: str, record: Mapping[str, Any], place: RecordPlace) -> Question:
    defects: list[Defect] = []
    named = EVERY_FRAME if config.masks == "all" else record.get("frame_idx")
    regions = read_video_objects(record.get("annotation"), defects, frame=named)
    translated = {
        "id": record.get("id"),
        "video": record.get("video"),
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": record.get("caption")},
        ],
    }
    sample = read_sample(translated, place, regions=regions, defects=defects)
    (asked,) = questions_of(sample)
    facts = {"video": record["video"], "caption": record["caption"]}
    return replace(asked, asked=_shown_frames(config, asked.asked), facts=facts)


def _shown_frames(config: VideoReferDConfig, sample: RegionSample) -> RegionSample:
    """The sample with the frames of its video that are shown."""
    if config.masks == "one":
        return with_video_options(sample, {"fps": config.fps, "max_frames": config.max_frames})
    count = len({frame for region in sample.regions if isinstance(region, VideoRegion) for frame in region.frames})
    return with_video_options(sample, {"nframes": count, "max_frames": count})


# -- files of others ---------------------------------------------------------------------------------------


def read_predictions(config: VideoReferDConfig, path: str | Path, questions: Sequence[Question]) -> Iterator[Answer]:
    """Answers as the official inference writes them: `video`, `Answer` (the reference) and `pred` of each.

    Raises:
        EvaluationError: the file cannot be read, or a line is about no question, or is one too many.
    """
    for record, question, where in _matched(path, questions):
        yield Answer(id=question.id, text=text_in(record, "pred", where))


def read_judged(
    config: VideoReferDConfig, path: str | Path, questions: Sequence[Question], answers: Sequence[Answer]
) -> Iterator[tuple[JudgeRequest, str]]:
    """A judge's answers as the official scripts write them: the keys of `read_predictions` and `gpt`.

    Records without `gpt`, which the judge did not answer, are passed over.

    Raises:
        EvaluationError: as `read_predictions`; or an answer that was judged is another than the one that is scored.
    """
    asked = prompts(config)
    text_of = {answer.id: answer.text for answer in answers}
    for record, question, where in _matched(path, questions):
        said = record.get("gpt")
        if said is None or question.id not in text_of:
            continue
        given = text_of[question.id]
        if "pred" in record:
            require_same_answer(text_in(record, "pred", where), given, id=question.id, where=where)
        yield judge_request(config, asked, question.id, question.facts["caption"], given), text_in(record, "gpt", where)


def _matched(path: str | Path, questions: Sequence[Question]) -> Iterator[tuple[Mapping[str, Any], Question, str]]:
    return matched(path, questions, of_record=_key, of_question=lambda question: _key(question.facts))


def _key(record: Mapping[str, Any]) -> tuple[str, str]:
    """The video's name and the reference, which older scripts call `caption`; without blanks at their ends."""
    reference = record["Answer"] if "Answer" in record else record.get("caption")
    return str(record.get("video")).strip(), str(reference).strip()
