"""Reads MVBench: a JSON file for each task, `[{"video", "question", "candidates", "answer", "start", "end"}]`.

Source: https://huggingface.co/datasets/OpenGVLab/MVBench, `PixelRefer/evaluation/pixelrefer/infer_mvbench.py` in
https://github.com/alibaba-damo-academy/PixelRefer.
"""

import math
import os
import string
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from pixelrefer_plugin.authoring import (
    Answer,
    BenchmarkFile,
    Defect,
    EvaluationError,
    Prompt,
    PublishedFigure,
    Question,
    RecordPlace,
    RegionSample,
    matched,
    official_records,
    official_text,
    questions_of,
    read_sample,
    shown,
    with_unique_ids,
)

from .config import MvbenchConfig
from .tasks import TASKS, Task

_FROM = "from https://huggingface.co/datasets/OpenGVLab/MVBench"
FILES = (
    *(BenchmarkFile(f"json/{task.file}", f"the questions of {name}, {_FROM}.") for name, task in TASKS.items()),
    *(
        BenchmarkFile(f"video/{folder}", f"videos, unpacked from the files in video/, {_FROM}.")
        for folder in sorted({task.videos for task in TASKS.values()})
    ),
)
PUBLISHED = (PublishedFigure("PixelRefer-2B", "accuracy", 0.634, "PixelRefer (arXiv 2510.23603), Table 10, last row"),)
INSTRUCTION = "Reply with the letter of the right option and nothing else."
_FOLDER_FPS = 3.0  # of the frames of TVQA
_CODE = "PixelRefer/evaluation/pixelrefer/infer_mvbench.py"
_SHA256 = (
    "b5fee25716a410ba5ee10aea51ea7095b7bd52c42a0c7665b202592f3c52ada1",
    "9e9eb25e016e976ab1e815d7c890918d58cd59307d232bdace161a8e9c5107b4",
    "9c10856d63583dc78a6fcd28ee3d64a3c9bf420984df6cf534e6dbb6029a184a",
)


def prompts(config: MvbenchConfig) -> list[Prompt]:
    """The template of a question; raises `DataError` where the official code is not what it must be."""
    if config.official_code is not None:
        before, between, sentence = (official_text(config.official_code, _CODE, each) for each in _SHA256)
        return [Prompt("question", f"{before}{{question}}{between}{{options}}\n{sentence}", _CODE)]
    origin = "own words" if config.instruction is None else "option instruction"
    return [Prompt("question", f"{{question}}\n{{options}}\n{config.instruction or INSTRUCTION}", origin)]


def asked(template: str, question: str, candidates: Sequence[str]) -> str:
    """The text of a question, its options labelled, each in a line of its own."""
    before, _, rest = template.partition("{question}")
    between, _, after = rest.partition("{options}")
    options = "\n".join(f"({letter}) {each}" for letter, each in zip(string.ascii_uppercase, candidates, strict=False))
    return f"{before}{question}{between}{options}{after}"


def open_questions(config: MvbenchConfig, folder: Path) -> list[Question]:
    """The questions of each task; raises `DataError` that names the file, the record and what is wrong."""
    folder = Path(folder)
    (template,) = prompts(config)
    questions = (each for name in config.tasks for each in _of_task(config, template.text, folder, name))
    return list(with_unique_ids(questions))


def _of_task(config: MvbenchConfig, template: str, folder: Path, name: str) -> Iterator[Question]:
    task = TASKS[name]
    file = BenchmarkFile(f"{config.json}/{task.file}", f"the questions of {name}, {_FROM}. Option tasks leaves it out.")
    for record, place in official_records(folder, file, folder / config.videos / task.videos):
        yield _question(config, template, name, record, place)


def _question(
    config: MvbenchConfig, template: str, name: str, record: Mapping[str, Any], place: RecordPlace
) -> Question:
    defects: list[Defect] = []
    text, answer = record.get("question"), record.get("answer")
    for key in ("question", "video"):
        if not isinstance(record.get(key), str) or not record[key].strip():
            defects.append(Defect("format", f"'{key}' must be a text, got {shown(record.get(key))}."))
    candidates = _candidates(record, defects)
    bounds = _bounds(TASKS[name], record, defects)
    translated = {
        "id": f"{TASKS[name].file.removesuffix('.json')}_{place.index}",
        "video": record.get("video"),
        "messages": [
            {"role": "user", "content": asked(template, str(text), candidates)},
            {"role": "assistant", "content": str(answer)},
        ],
    }
    sample = read_sample(translated, place, regions=[], defects=defects)
    (question,) = questions_of(sample)
    # The official code takes the last candidate that equals the answer.
    index = len(candidates) - 1 - candidates[::-1].index(str(answer))
    facts = {"task_type": name, "video": record["video"], "candidates": candidates, "gt": index}
    references = (f"({string.ascii_uppercase[index]}) {answer}",)
    question = replace(question, references=references, type=name, facts=facts)
    return replace(question, asked=_shown_frames(config, question.asked, bounds))


def _candidates(record: Mapping[str, Any], defects: list[Defect]) -> list[str]:
    candidates, answer = record.get("candidates"), record.get("answer")
    are_texts = isinstance(candidates, list) and all(isinstance(each, str) for each in candidates)
    if not isinstance(candidates, list) or not are_texts or not 2 <= len(candidates) <= 26:
        defects.append(Defect("format", f"'candidates' must be a list of 2 to 26 texts, got {shown(candidates)}."))
        return []
    if answer not in candidates:
        defects.append(Defect("answer", f"'answer' must be one of {shown(candidates, 200)}, got {shown(answer)}."))
    return candidates


# -- frames ------------------------------------------------------------------------------------------------


def _bounds(task: Task, record: Mapping[str, Any], defects: list[Defect]) -> tuple[float, float] | None:
    """When the part of a video begins and ends, in seconds, mended as the official code does; None: all of it."""
    if not task.is_bound:
        return None
    given = [record.get(key) for key in ("start", "end")]
    times = [float(each) for each in given if isinstance(each, int | float) and abs(each) < 1e9]
    if len(times) < 2:
        defects.append(Defect("format", f"'start' and 'end' must be seconds, got {shown(given)}."))
        return None
    start, end = sorted(max(each, 0.0) for each in times)
    return start, end if end > start else start + 1


def _shown_frames(config: MvbenchConfig, sample: RegionSample, bounds: tuple[float, float] | None) -> RegionSample:
    """The sample with what its video is told about frames."""
    messages = [
        {**message, "content": [_with_frames(config, part, bounds) for part in message["content"]]}
        for message in sample.messages
    ]
    return replace(sample, messages=tuple(messages))


def _with_frames(
    config: MvbenchConfig, part: Mapping[str, Any], bounds: tuple[float, float] | None
) -> Mapping[str, Any]:
    if part["type"] != "video":
        return part
    clip = {"video_start": bounds[0], "video_end": bounds[1]} if bounds else {}
    if not os.path.isdir(part["video"]):
        return {**part, **clip, "fps": config.fps, "max_frames": config.max_frames}
    with os.scandir(part["video"]) as found:
        end = sum(each.is_file() for each in found) / _FOLDER_FPS
    seconds = min(bounds[1], end) - bounds[0] if bounds else end
    count = min(max(math.ceil(seconds * config.fps), 1), config.max_frames)
    return {**part, **clip, "fps": _FOLDER_FPS, "nframes": count, "max_frames": config.max_frames}


# -- answers of others -------------------------------------------------------------------------------------


def read_predictions(config: MvbenchConfig, path: str | Path, questions: Sequence[Question]) -> Iterator[Answer]:
    """Lines of `infer_mvbench.py`: `video`, `task_type`, `pred`, `gt`, the last two indices of candidates.

    They hold no texts: an answer is the letter that was read by the official code, or the third, where it read none.

    Raises:
        EvaluationError: the file cannot be read, or a line is about no question, or is one too many.
    """
    for record, question, where in matched(path, questions, of_record=_key, of_question=lambda each: _key(each.facts)):
        read = record.get("pred")
        if not isinstance(read, int) or isinstance(read, bool) or not 0 <= read < 26:
            raise EvaluationError(f"{where}: 'pred' must be the index of a candidate, got {shown(read)}.")
        yield Answer(id=question.id, text=f"({string.ascii_uppercase[read]})")


def _key(record: Mapping[str, Any]) -> Hashable:
    return str(record.get("task_type")), PurePosixPath(str(record.get("video"))).name, str(record.get("gt"))
