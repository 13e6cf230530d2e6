"""Reads answers that PixelRefer's and UniPixel's own scripts have written."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from pixelrefer_plugin.authoring import Answer, Question, matched, text_in

from .config import VideoReferQConfig


def read_pixelrefer(config: VideoReferQConfig, path: str | Path, questions: Sequence[Question]) -> Iterator[Answer]:
    """Lines of `PixelRefer/evaluation/pixelrefer/infer_videorefer_q.py`: `video`, `Answer`, `pred`, `type`.

    They have no id. Those of one video, answer and type go with its questions in their order.

    Raises:
        EvaluationError: the file cannot be read, or a line is about no question, or is one too many: the official
            code answers a random other question in the place of one that it cannot load.
    """
    for record, question, where in matched(path, questions, of_record=_key, of_question=lambda each: _key(each.facts)):
        yield Answer(id=question.id, text=text_in(record, "pred", where))


def _key(record: Mapping[str, Any]) -> Hashable:
    return _video(record.get("video")), str(record.get("Answer")).strip(), str(record.get("type"))


def read_unipixel(config: VideoReferQConfig, path: str | Path, questions: Sequence[Question]) -> Iterator[Answer]:
    """Records of `unipixel/eval/infer_videorefer_q.py`: `video_path`, `question`, `options`, `response`.

    Raises:
        EvaluationError: the file cannot be read, or a record is about no question, or is one too many.
    """
    for record, question, where in matched(
        path, questions, of_record=_unipixel_key, of_question=lambda each: _asked_key(each.facts, "video", "Question")
    ):
        yield Answer(id=question.id, text=text_in(record, "response", where))


def _unipixel_key(record: Mapping[str, Any]) -> Hashable:
    return _asked_key(record, "video_path", "question")


def _asked_key(record: Mapping[str, Any], video: str, question: str) -> Hashable:
    """The video, the question before its list of options, and the options."""
    asked = str(record.get(question)).partition("\nOptions:")[0].strip()
    options = record.get("options")
    return _video(record.get(video)), asked, tuple(map(str, options)) if isinstance(options, list) else ()


def _video(path: Any) -> str:
    """The last part of a video's path: where its folder is differs from machine to machine."""
    return PurePosixPath(str(path)).name
