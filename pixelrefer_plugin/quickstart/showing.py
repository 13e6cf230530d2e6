"""Questions about pictures that everybody has, and what a model says to them before any training.

The pictures are drawn by this package, or photographs that scikit-image carries: coffee and chelsea are CC0, the
astronaut is NASA's and free of rights.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from ..errors import PromptError
from ..model import RegionModel
from ..plugins import training_free
from ..processor import RegionProcessor
from ..regions.region import Region
from ..samples.kitchen import Kitchen
from ..samples.street import SHOWN_FRAME, Street
from ..training.report import say
from .asking import Manner, ask
from .drawing import draw_sheet
from .real_model import RealModel
from .tasks import Example, Task

_MOST_TOKENS = 32


@dataclass(frozen=True, eq=False)
class ShownQuestion:
    """A question about a picture.

    Attributes:
        name: of the picture.
        picture: it.
        text: with `<region>` where a region is meant.
        regions: those, in order.
        truth: what is right.
    """

    name: str
    picture: Image.Image
    text: str
    regions: tuple[Region, ...]
    truth: str


@dataclass(frozen=True)
class Said:
    """What a model said to a question.

    Attributes:
        adapter: that pointed.
        told: the words that it was told, without what stands for pictures.
        answer: empty where it could not be asked.
        refused: why not; empty where it could.
    """

    adapter: str
    told: str = ""
    answer: str = ""
    refused: str = ""


def shown_questions() -> list[ShownQuestion]:
    """The questions, always the same ones."""
    from skimage import data

    scene = Street()
    street = scene.moving(scene.still(), SHOWN_FRAME).picture()
    kitchen = Kitchen().drawn().picture()
    woman, car = (Region.from_box(box) for box in ((121, 33, 261, 310), (256, 126, 474, 203)))
    what = "What is <region>? Answer in a few words."
    photographs = {name: Image.fromarray(getattr(data, name)()) for name in ("coffee", "chelsea", "astronaut")}
    spoon, nose, shuttle = (
        Region.from_box(box) for box in ((318, 65, 428, 330), (224, 222, 292, 269), (350, 0, 462, 292))
    )
    return [
        ShownQuestion("street", street, "What is <region> doing?", (woman,), "crossing the street"),
        ShownQuestion("street", street, "What colour is <region>?", (car,), "red"),
        ShownQuestion("kitchen", kitchen, what, (Region.from_box((527, 229, 577, 275)),), "an orange"),
        ShownQuestion("coffee", photographs["coffee"], what, (spoon,), "a spoon"),
        ShownQuestion("cat", photographs["chelsea"], "Which part of the animal is <region>?", (nose,), "its nose"),
        ShownQuestion("astronaut", photographs["astronaut"], what, (shuttle,), "a model of a space shuttle"),
    ]


def ask_without_training(
    real: RealModel, task: Task, examples: Sequence[Example], manner: Manner, out: Path, console: Console
) -> dict[str, Any]:
    """What a real model says about regions with each adapter that needs no training: to fixed questions, about digits.

    Returns:
        What `metrics.json` holds of it.
    """
    out.mkdir(parents=True, exist_ok=True)
    adapters, questions = training_free(), shown_questions()
    said = ask_shown(real, adapters, questions)
    print_said(console, real.name, questions, said)
    save_sheet(out / "without_training.png", real.name, questions, said)
    scores: dict[str, Any] = {}
    for adapter in adapters:
        model, processor = real.with_adapter(adapter, None)
        try:
            scores[adapter] = task.scores(ask(model, processor, examples, manner))
        except PromptError as error:  # such as a backbone without a convention for coordinates
            scores[adapter] = {"refused": str(error)}
        model.detach()
    told = [
        {"picture": question.name, "question": question.text, "right": question.truth, "said": [*map(asdict, answers)]}
        for question, answers in zip(questions, said, strict=True)
    ]
    return {"without_training": told, "scores_without_training": scores}


def ask_shown(real: RealModel, adapters: Sequence[str], questions: Sequence[ShownQuestion]) -> list[list[Said]]:
    """For each question what the model says with each adapter."""
    said: list[list[Said]] = [[] for _ in questions]
    for adapter in adapters:
        model, processor = real.with_adapter(adapter, None)
        for answers, question in zip(said, questions, strict=True):
            answers.append(_said(model, processor, adapter, question))
        model.detach()
    return said


def _said(model: RegionModel, processor: RegionProcessor, adapter: str, question: ShownQuestion) -> Said:
    picture = {"type": "image", "image": question.picture}
    conversation = [{"role": "user", "content": [picture, {"type": "text", "text": question.text}]}]
    try:
        inputs = Manner().inputs(model, processor, [conversation], [list(question.regions)])
    except PromptError as error:  # such as a backbone without a convention for coordinates
        return Said(adapter, refused=str(error).removeprefix("Sample 0: "))
    with torch.inference_mode():
        generated = model.generate(**inputs, max_new_tokens=_MOST_TOKENS, do_sample=False)
    return Said(adapter, _told(processor, inputs), processor.decode(generated, inputs)[0].strip())


def _told(processor: RegionProcessor, inputs: Any) -> str:
    """The prompt without special tokens, which stand for pictures and turns."""
    text = processor.tokenizer.decode(inputs["input_ids"][0], skip_special_tokens=True)
    return re.sub(r"(\S)\1{7,}", r"\1", " ".join(text.split()))


def print_said(console: Console, name: str, questions: Sequence[ShownQuestion], said: Sequence[Sequence[Said]]) -> None:
    """A table of what the model was told and what it said, and why an adapter cannot ask it."""
    table = Table(title=f"{_plain(name)}, without any training", show_lines=True)
    for column in ("question", "adapter", "what the model was told", "answer", "right"):
        table.add_column(column, overflow="fold")
    for question, answers in zip(questions, said, strict=True):
        for each in answers:
            if not each.refused:
                asked = f"{question.name}: {question.text}"
                table.add_row(
                    *map(_plain, (asked, each.adapter, each.told, each.answer or "(nothing)", question.truth))
                )
    if table.row_count:
        console.print(table)
    for adapter, refused in {(each.adapter, each.refused) for answers in said for each in answers if each.refused}:
        say(console, f"adapter '{adapter}' cannot ask this model: {refused}")


def _plain(text: str) -> str:
    """Without what a terminal or rich would obey."""
    return "".join(each if each.isprintable() else " " for each in text).replace("[", r"\[")


def save_sheet(path: Path, name: str, questions: Sequence[ShownQuestion], said: Sequence[Sequence[Said]]) -> None:
    """The pictures with their regions, and below each what was asked and said."""
    texts = []
    for question, answers in zip(questions, said, strict=True):
        lines = [f"{each.adapter}: {each.answer or each.refused or '(nothing)'}" for each in answers]
        texts.append([question.text, *lines])
    pictures = [(question.picture, question.regions) for question in questions]
    draw_sheet(pictures, texts, f"{name}, without any training", path)
