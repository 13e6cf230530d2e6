"""Visual Genome: a short caption of a region that a box marks.

A record: `image[0], height, width, caption, mask, boxes[0]` (x, y, width, height); the box is shown, as
`evaluation/pixelrefer/infer_vg.py` in https://github.com/alibaba-damo-academy/PixelRefer does, not the mask.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pixelrefer_plugin.authoring import (
    Answer,
    BenchmarkFile,
    BenchmarkSpec,
    Prompt,
    PublishedFigure,
    Question,
    RecordPlace,
    Region,
    official_records,
    question_prompt,
    read_segmentation,
)

from . import tiny
from .asking import CODE, FROM, PAPER, box_region, picture_question, read_predictions
from .config import PictureConfig
from .scoring import score_captions

_QUESTION = "Describe <region> in a short phrase."
_OFFICIAL = (f"{CODE}/pixelrefer/infer_vg.py", "232d21efc60f879b35c4dcb8c902d01e8798495fc1fb8cdd726c65e2df52419f")
_RECORDS = BenchmarkFile("vg_val_5000.json", f"Regions of Visual Genome and their captions, from {FROM}.")
_IMAGES = BenchmarkFile("images", "The pictures of Visual Genome, from https://visualgenome.org.")
_TABLE_1 = {  # METEOR and CIDEr
    "PAM-3B": (20.8, 142.3),
    "SPHINX-V-13B": (20.6, 141.8),
    "PixelRefer-Lite-2B": (18.6, 155.0),
    "PixelRefer-Lite-7B": (19.0, 161.4),
    "PixelRefer-2B": (19.7, 161.2),
    "PixelRefer-7B": (19.7, 168.2),
}


def open_questions(config: PictureConfig, folder: Path) -> list[Question]:
    """The questions, one for each record; raises `DataError` that names the file, the record and what is wrong."""
    text = prompts(config)[0].text
    records = official_records(folder, _RECORDS, Path(folder) / config.images)
    return [_question(record, place, text) for record, place in records]


def _question(record: Mapping[str, Any], place: RecordPlace, text: str) -> Question:
    image = _first(record.get("image"))
    question = picture_question(record, place, image=image, region=lambda: _region(record), text=text)
    return replace(question, facts={**question.facts, "medium": image})


def _region(record: Mapping[str, Any]) -> Region:
    """The box; where it has no area, with which the official code shows nothing, the mask."""
    box = _first(record.get("boxes"))
    is_flat = isinstance(box, list) and 0 in box[2:]
    return (read_segmentation(record.get("mask")) if is_flat else None) or box_region(box)


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else value


def prompts(config: PictureConfig) -> list[Prompt]:
    """What is asked."""
    file, sha256 = _OFFICIAL
    return [question_prompt(config.question, config.official_code, own=_QUESTION, file=file, sha256=sha256)]


def _predictions(config: PictureConfig, path: str | Path, questions: Sequence[Question]) -> Iterator[Answer]:
    return (answer for answer, _ in read_predictions(path, questions, medium="image"))


SPEC = BenchmarkSpec(
    name="visual_genome",
    about="Visual Genome: a short caption of a region of a picture, compared with a person's (CIDEr, METEOR).",
    config=PictureConfig,
    files=(_RECORDS, _IMAGES),
    open=open_questions,
    score=score_captions,
    published=tuple(
        PublishedFigure(model, name, value / 100, f"{PAPER}, Table 1")
        for model, row in _TABLE_1.items()
        for name, value in zip(("meteor", "cider"), row, strict=True)
    ),
    prompts=prompts,
    answer_formats={"pixelrefer": _predictions},
    tiny=tiny.visual_genome,
)
