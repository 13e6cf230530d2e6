"""The two benchmarks: their files, questions, scores and published figures."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pixelrefer_plugin.authoring import (
    Answer,
    BenchmarkFile,
    BenchmarkSpec,
    Prompt,
    PublishedFigure,
    Question,
    Scores,
    Tools,
    label_figures,
    question_prompt,
)

from .config import RecognitionConfig
from .records import open_questions, read_predictions
from .tiny import tiny

_DATA = "https://huggingface.co/datasets/sunshine-lwt/Osprey-ValData"
_IMAGES = BenchmarkFile("images", "The pictures of COCO 2017, train and val, from https://cocodataset.org.")
_CODE = "PixelRefer/evaluation/pixelrefer/infer_paco_lvis.py"

_LVIS_QUESTION = "Name the object in <region> with one word or a short phrase."
_PACO_QUESTION = (
    "Which object, or which part of an object, is in <region>? Answer with its category. For a part, give the category "
    "of the whole, a colon and the part, such as chair:leg."
)
# The SHA-256 of the official questions
_LVIS_OFFICIAL = "637504fbbe4511b8242519f63739215916078d98dade17539c6ca1c6df27ffd1"
_PACO_OFFICIAL = "af522f1ae466a413903925b368f7573e42500519802d69d26ce253cc3aa93ca1"

_PAPER = "PixelRefer (arXiv 2510.23603)"
_TABLE_1 = {  # SSim and SIoU on LVIS, then on PACO
    "PAM-3B": (88.6, 78.3, 87.4, 74.9),
    "Osprey-7B": (65.2, 38.2, 73.1, 52.7),
    "Ferret-7B": (63.8, 36.6, 58.7, 26.0),
    "DAM-8B": (89.0, 77.7, 84.2, 73.2),
    "SPHINX-V-13B": (87.1, 62.9, 79.9, 55.0),
    "PixelRefer-Lite-2B": (89.4, 82.0, 89.3, 81.9),
    "PixelRefer-Lite-7B": (89.6, 82.5, 90.3, 83.1),
    "PixelRefer-2B": (89.8, 82.5, 90.1, 82.7),
    "PixelRefer-7B": (90.5, 82.7, 91.7, 85.3),
}
_TABLE_8 = {"PixelRefer-2B": 86.2, "PixelRefer-2B with mask pooling": 79.4}  # LVIS_Avg


def _published(first: int) -> tuple[PublishedFigure, ...]:
    return tuple(
        PublishedFigure(model, name, row[first + offset] / 100, f"{_PAPER}, Table 1")
        for model, row in _TABLE_1.items()
        for offset, name in enumerate(("ssim", "siou"))
    )


def score(config: RecognitionConfig, questions: Sequence[Question], answers: Sequence[Answer], tools: Tools) -> Scores:
    """SSim, SIoU and their mean. An answer without a word is worth nothing, officially what the encoder makes of it.

    Raises:
        EvaluationError: there is no sentence encoder.
    """
    said = [None if answer.failure else answer.text for answer in answers]
    figures, notes = label_figures(said, [question.expected for question in questions], tools.encode)
    return Scores(figures=figures, notes=notes)


def _prompt(config: RecognitionConfig, own: str, sha256: str) -> Prompt:
    return question_prompt(config.question, config.official_code, own=own, file=_CODE, sha256=sha256)


def _spec(
    name: str, about: str, file: BenchmarkFile, question: str, official: str, published: tuple[PublishedFigure, ...]
) -> BenchmarkSpec:
    def open_them(config: RecognitionConfig, folder: Path) -> list[Question]:
        text = _prompt(config, question, official).text
        return open_questions(file, text, Path(folder) / config.images, Path(folder))

    def prompts(config: RecognitionConfig) -> list[Prompt]:
        return [_prompt(config, question, official)]

    return BenchmarkSpec(
        name=name,
        about=about,
        config=RecognitionConfig,
        files=(file, _IMAGES),
        open=open_them,
        score=score,
        needs=("sentences",),
        published=published,
        prompts=prompts,
        answer_formats={"pixelrefer": read_predictions},
        tiny=partial(tiny, file=file.path),
    )


SPECS = (
    _spec(
        "lvis",
        "LVIS: the category of an object in a picture, compared in meaning (SSim) and in words (SIoU).",
        BenchmarkFile("lvis_val_1k_category.json", f"4,004 objects in 1,000 pictures of LVIS, from {_DATA}."),
        _LVIS_QUESTION,
        _LVIS_OFFICIAL,
        (
            *_published(0),
            *(
                PublishedFigure(model, "average", value / 100, f"{_PAPER}, Table 8")
                for model, value in _TABLE_8.items()
            ),
        ),
    ),
    _spec(
        "paco",
        "PACO: the category of an object or of a part, compared in meaning (SSim) and in words (SIoU).",
        BenchmarkFile("paco_val_1k_category.json", f"4,263 objects and parts in 1,000 pictures of PACO, from {_DATA}."),
        _PACO_QUESTION,
        _PACO_OFFICIAL,
        _published(2),
    ),
)
