"""A question about a picture whose answer is a mask."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixelrefer_plugin.authoring import DataError, Question, Region, RegionMask, RegionSample, read_json


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


def require_there(path: Path, about: str) -> None:
    """Refuse a missing file or folder by its name and its origin; raises `DataError`."""
    if not path.exists():
        raise DataError(f"'{path}' is missing. It is {about[:1].lower()}{about[1:]}")


def read_object(path: Path) -> Mapping[str, Any]:
    """A JSON object; raises `DataError` where the file holds none."""
    try:
        found = read_json(path)
    except OSError as error:
        raise DataError(f"Cannot read '{path}': {error.strerror or error}.") from error
    except ValueError as error:
        raise DataError(f"'{path}' is no JSON that can be read: {error}. Is the file complete?") from error
    if not isinstance(found, Mapping):
        raise DataError(f"'{path}' must hold an object, got {type(found).__name__}.")
    return found
