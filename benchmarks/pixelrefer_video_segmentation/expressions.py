"""Questions from expressions about videos: `{"videos": {video: {"expressions": {id: {"exp", ...}}, "frames": [...]}}}`.

Sources: https://github.com/henghuiding/MeViS, https://youtube-vos.org/dataset/rvos, https://github.com/cilinyan/ReVOS-api,
UniPixel (unipixel/dataset/sub_classes/segmentation.py, unipixel/eval/eval_seg.py).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from pixelrefer_plugin.authoring import (
    DataError,
    Question,
    Region,
    RegionMask,
    RegionSample,
    VideoRegion,
    require_there,
    shown,
)

from .config import VideoConfig
from .truth import Foreground, Masks, read_object


@dataclass(frozen=True, eq=False)
class Expression:
    """One expression about a video.

    Attributes:
        video: name of the video.
        id: of the expression in its video.
        text: what it says.
        frames: names of the video's frames.
        record: the expression as the file has it.
        number: how many stand before it, with videos and expressions in the order of their names.
    """

    video: str
    id: str
    text: str
    frames: tuple[str, ...]
    record: Mapping[str, Any]
    number: int

    def listed(self, key: str) -> tuple[str, ...]:
        """Ids that may be one, a list, or a text with commas; none where there are none."""
        ids = self.record.get(key)
        found = ids.split(",") if isinstance(ids, str) else ids if isinstance(ids, list) else [ids]
        return tuple(str(each).strip() for each in found if each is not None and str(each).strip())


def read_expressions(path: Path, about: str) -> list[Expression]:
    """Every expression of a file, in its order.

    Args:
        path: of the file.
        about: what it is and where it comes from, for messages.

    Raises:
        DataError: it is missing or malformed.
    """
    require_there(path, about)
    videos = read_object(path).get("videos")
    if not isinstance(videos, Mapping) or not videos:
        raise DataError(f"'{path}' must hold an object 'videos', one entry a video, got {shown(videos)}.")
    numbers = _numbers(videos)
    return [each for video in videos for each in _of_video(path, video, videos[video], numbers)]


def _numbers(videos: Mapping[str, Any]) -> dict[tuple[str, str], int]:
    """The place of each expression where all are in the order of their names: how masks of Ref-DAVIS17 are keyed."""
    pairs = [
        (video, id)
        for video, found in videos.items()
        if isinstance(found, Mapping) and isinstance(found.get("expressions"), Mapping)
        for id in found["expressions"]
    ]
    return {pair: number for number, pair in enumerate(sorted(pairs))}


def _of_video(path: Path, video: str, found: Any, numbers: Mapping[tuple[str, str], int]) -> Iterator[Expression]:
    expressions = found.get("expressions") if isinstance(found, Mapping) else None
    if not isinstance(expressions, Mapping):
        raise DataError(f"'{path}', video '{video[:60]}': it must hold an object 'expressions', got {shown(found)}.")
    names = found.get("frames")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise DataError(f"'{path}', video '{video[:60]}': its 'frames' must be a list of names, got {shown(names)}.")
    frames = tuple(names)
    for name in (video, *frames, *expressions):
        _require_inside(path, name)
    for id, record in expressions.items():
        text = record.get("exp") if isinstance(record, Mapping) else None
        if not isinstance(text, str) or not text.strip():
            raise DataError(
                f"'{path}', video '{video[:60]}', expression '{id[:60]}': its 'exp' must be a text, got {shown(text)}."
            )
        yield Expression(video, id, text.strip(), frames, record, numbers[video, id])


def _require_inside(path: Path, name: str) -> None:
    """Refuse a name that would be read, or written, outside the folder that it is below."""
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or not parts.parts:
        raise DataError(f"'{path}': the name {shown(name)} leads out of its folder.")


def question_of(
    expression: Expression,
    config: VideoConfig,
    folder: Path,
    *,
    truth: Masks | None,
    template: str | None = None,
    type: str = "",
    foreground: Foreground | None = None,
) -> Question:
    """What a model is asked about an expression.

    Its target is the object on one frame, among those that are asked, for readers of a report to see. All true masks
    are read from `facts["truth"]` when answers are scored.
    """
    pictures = [str(folder / expression.video / f"{name}.jpg") for name in expression.frames]
    asked = min(len(pictures), config.frames)
    video = {"type": "video", "video": pictures, "fps": config.fps, "nframes": asked}
    template = template or config.question
    text = expression.text if template.startswith("{") else expression.text.rstrip(".")
    question = {"type": "text", "text": template.replace("{expression}", text)}
    id = f"{expression.video}/{expression.id}"
    return Question(
        id=id,
        asked=RegionSample(id, ({"role": "user", "content": [video, question]},)),
        targets=() if truth is None else _seen(truth, len(pictures), asked),
        segment=True,
        type=type,
        facts={
            "video": expression.video,
            "expression": expression.id,
            "frames": expression.frames,
            "truth": truth,
            "foreground": foreground,
        },
    )


def _seen(truth: Masks, num_frames: int, asked: int) -> tuple[VideoRegion, ...]:
    """The object on the first of the asked frames where it is seen."""
    for frame in np.linspace(0, num_frames - 1, asked).round().astype(int).tolist():
        objects = truth.objects(frame)
        if objects:
            return (VideoRegion({frame: Region("mask", RegionMask.union(objects))}),)
    return ()


def first_there(folder: Path, *places: str, given: str | None = None) -> Path:
    """The folder that is given, or the first of some places below another that is there, or else the first."""
    if given is not None:
        return folder / given
    return next((folder / place for place in places if (folder / place).is_dir()), folder / places[0])
