"""The requests to the judge about one description: whether it is of the class, and then each question of `qa.json`."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from pixelrefer_plugin.authoring import (
    Answer,
    DataError,
    JudgeRequest,
    PixelReferError,
    Question,
    Region,
    picture_part,
    read_picture,
)

from .config import DlcConfig, DlcPicturesConfig
from .items import FILES, LETTERS, Item
from .prompts import JudgePrompts

RECOGNITION = "recognition"
YES_NO = ("Yes", "No")
_OPTIONS = {"temperature": 0, "max_tokens": 300}
_LEAST_PX = 56  # of a side of what is taken for the object's box


def requests_of(config: DlcConfig, prompts: JudgePrompts, question: Question, answer: Answer) -> list[JudgeRequest]:
    """The requests about one answer, recognition first.

    Raises:
        DataError: the judge shall see a picture that cannot be read.
    """
    asked: list[tuple[str, Sequence[str]]] = [(prompts.recognition(question.facts["class_name"]), YES_NO)]
    asked += [(item.question, item.choices) for item in _items(question)]
    before = list(_seen(config, prompts, question))
    return [
        JudgeRequest(question.id, part, [{"role": "user", "content": _content(prompts, before, text)}], _OPTIONS)
        for part, text in zip(parts_of(question), [_text(prompts, answer.text, *each) for each in asked], strict=True)
    ]


def parts_of(question: Question) -> list[str]:
    """What the requests about an answer are called, in order."""
    return [RECOGNITION, *(str(number) for number in range(1, len(_items(question)) + 1))]


def _items(question: Question) -> Sequence[Item]:
    items: Sequence[Item] = question.facts["items"]
    return items


def _text(prompts: JudgePrompts, description: str, question: str, choices: Sequence[str]) -> str:
    lines = [question, *(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))]
    return prompts.template.format(pred_caption=description, question_text_str="\n".join(lines).strip())


def _content(prompts: JudgePrompts, before: list[dict[str, Any]], text: str) -> str | list[dict[str, Any]]:
    return [*before, {"type": "text", "text": prompts.frame.format(text)}] if before else text


def _seen(config: DlcConfig, prompts: JudgePrompts, question: Question) -> Iterator[dict[str, Any]]:
    """What a judge sees before it reads: the object's surroundings, and its mask there."""
    if not isinstance(config, DlcPicturesConfig):
        return
    for caption, picture in zip(prompts.captions, _pictures(config, question), strict=True):
        yield {"type": "text", "text": caption}
        yield picture


def _pictures(config: DlcPicturesConfig, question: Question) -> tuple[dict[str, Any], dict[str, Any]]:
    if config.without_pictures:
        return {"type": "text", "text": f"(picture of {question.id})"}, {"type": "text", "text": "(mask)"}
    path = str(question.asked.paths[0])
    try:
        return _cropped(path, question)
    except PixelReferError as error:
        raise DataError(
            f"The judge shall see '{path}' of item '{question.id}': {error} {FILES[-1].about} The option images names "
            "another folder; without_pictures=true leaves pictures out, to score published answers of a judge."
        ) from error


@lru_cache(maxsize=1)
def _cropped(path: str, question: Question) -> tuple[dict[str, Any], dict[str, Any]]:
    """The picture and the mask, cut to three times the object's box, which counts as 56 pixels wide and high at least.

    As Haochen-Wang409/Grasp-Any-Region has it: evaluation/DLC-Bench/eval_gpt_with_image.py.
    """
    picture = read_picture(path, name=f"The picture '{path}'").convert("RGB")
    (region,) = question.asked.regions
    assert isinstance(region, Region), "items.py reads no other"
    mask = region.to_mask((picture.height, picture.width))
    x1, y1, x2, y2 = mask.box_xyxy
    width, height = max(x2 - x1, _LEAST_PX), max(y2 - y1, _LEAST_PX)
    left, top = int((x1 + x2) / 2 - width / 2), int((y1 + y2) / 2 - height / 2)
    box = (
        max(left - width, 0),
        max(top - height, 0),
        min(left + 2 * width, picture.width),
        min(top + 2 * height, picture.height),
    )
    return picture_part(picture.crop(box)), picture_part(mask.dense()[box[1] : box[3], box[0] : box[2]])
