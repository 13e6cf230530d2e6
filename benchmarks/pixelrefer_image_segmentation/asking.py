"""A question about a picture whose answer is a mask."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixelrefer_plugin.authoring import DataError, Question, Region, RegionMask, RegionSample, official_json


def question_of(
    id: str,
    picture: Path,
    image_hw: tuple[int, int],
    text: str,
    template: str,
    *,
    target: Region | None,
    void: RegionMask | None = None,
    box_xyxy: tuple[float, ...] | None = None,
    type: str = "",
) -> Question:
    """What a model is asked about a text.

    Args:
        id: of the question.
        picture: its file.
        image_hw: its size.
        text: the expression.
        template: of the question.
        target: the true mask; None where it is empty.
        void: pixels that are not counted.
        box_xyxy: the true box, where the benchmark has one.
        type: kind of question.
    """
    expression = text.strip() if template.startswith("{") else text.strip().rstrip(".")
    content = [
        {"type": "image", "image": str(picture)},
        {"type": "text", "text": template.replace("{expression}", expression)},
    ]
    return Question(
        id=id,
        asked=RegionSample(id, ({"role": "user", "content": content},), media_hw=(image_hw,)),
        targets=() if target is None else (target,),
        segment=True,
        type=type,
        facts={"image_hw": image_hw, "void": void, "box": box_xyxy},
    )


def read_object(path: Path) -> Mapping[str, Any]:
    """A JSON object; raises `DataError` where the file holds none."""
    found = official_json(path)
    if not isinstance(found, Mapping):
        raise DataError(f"'{path}' must hold an object, got {type(found).__name__}.")
    return found
