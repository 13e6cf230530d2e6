"""Ref-L4's phrases: descriptions of objects in pictures of Objects365, condensed to a phrase, against condensed truth.

A record: `file_name, height, width, caption, bbox` (x, y, width, height). The truth, `refl4_gt.json`, has COCO's
captions, called by the position of their record among those of Objects365. Source: `evaluation/pixelrefer/
infer_refl4.py` and `evaluation/refl4/gpt.py` in https://github.com/alibaba-damo-academy/PixelRefer.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pixelrefer_plugin.authoring import (
    Answer,
    BenchmarkFile,
    BenchmarkSpec,
    DataError,
    JudgeRequest,
    Prompt,
    PublishedFigure,
    Question,
    RecordPlace,
    Scores,
    Tools,
    check_field,
    official_records,
    question_prompt,
    require_same_answer,
    text_in,
)

from . import tiny
from .asking import CODE, FROM, PAPER, box_region, picture_question, read_predictions
from .condensing import condense, condense_request, is_long, judge_prompt
from .config import PictureConfig
from .scoring import figures_of_captions
from .truth import read_truth

_QUESTION = "Describe <region> in one short sentence."
_OFFICIAL = (f"{CODE}/pixelrefer/infer_refl4.py", "a2f0b2521b41bf955cf213bfc7aefc639029c264594bc1e69953a2f002734e87")
_RECORDS = BenchmarkFile("ref-l4-val.json", f"Objects and their descriptions, from {FROM}.")
_TRUTH = BenchmarkFile(
    "refl4_gt.json", f"The descriptions, condensed to phrases by GPT-4o, from {FROM}.", optional=True
)
_IMAGES = BenchmarkFile("images", "The pictures, from https://huggingface.co/datasets/JierunChen/Ref-L4.")
_SPLIT = "objects365"  # in the names of pictures that are asked about
_JUDGE = "GPT-4o"
_TABLE_1 = {  # METEOR and CIDEr
    "DAM-3B": (17.2, 56.4),
    "PAM-3B": (17.2, 59.7),
    "Ferret-7B": (10.7, 39.7),
    "DAM-8B": (19.4, 70.0),
    "SPHINX-V-13B": (10.7, 32.4),
    "PixelRefer-Lite-2B": (13.0, 92.9),
    "PixelRefer-Lite-7B": (12.6, 89.4),
    "PixelRefer-2B": (14.1, 102.2),
    "PixelRefer-7B": (13.8, 98.2),
}


@dataclass(frozen=True, kw_only=True)
class RefL4PhrasesConfig(PictureConfig):
    """As `PictureConfig`.

    Attributes:
        condense: whether a judge condenses answers of more than five words; where there is none, they are scored as
            they are, under a name that says so.
    """

    condense: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_field(isinstance(self.condense, bool), self, "condense", "true or false")


def open_questions(config: RefL4PhrasesConfig, folder: Path) -> list[Question]:
    """The questions, one for each record about a picture of Objects365.

    Raises:
        DataError: it names the file, the record and what is wrong; or the truth does not belong to the records.
    """
    text = prompts(config)[0].text
    questions: list[Question] = []
    for record, place in official_records(folder, _RECORDS, Path(folder) / config.images):
        if _SPLIT in str(record.get("file_name")):
            questions.append(_question(record, place, text, id=str(len(questions))))
    if not questions:
        raise DataError(f"'{Path(folder) / _RECORDS.path}' has no record with '{_SPLIT}' in its 'file_name'.")
    path = Path(folder) / _TRUTH.path
    phrases = read_truth(path, [question.references[0] for question in questions]) if path.exists() else None
    if phrases is None:
        return questions
    return [
        replace(each, references=(phrase,), facts={**each.facts, "condensed": True})
        for each, phrase in zip(questions, phrases, strict=True)
    ]


def _question(record: Mapping[str, Any], place: RecordPlace, text: str, *, id: str) -> Question:
    image = record.get("file_name")
    question = picture_question(record, place, image=image, region=lambda: box_region(record.get("bbox")), text=text)
    return replace(question, id=id, facts={**question.facts, "medium": image, "condensed": False})


def score(config: RefL4PhrasesConfig, questions: Sequence[Question], answers: Sequence[Answer], tools: Tools) -> Scores:
    """CIDEr, METEOR, BLEU-4 and ROUGE-L of condensed answers; without a judge, of the answers as they are.

    Raises:
        JudgeError: there is a judge, and answers of it are missing.
    """
    texts = [None if answer.failure else answer.text for answer in answers]
    plain = "" if all(question.facts["condensed"] for question in questions) else "truth not condensed"
    long = sum(text is not None and is_long(text) for text in texts)
    if not long or not (config.condense and tools.judge):
        reading = ", ".join(filter(None, ["answers not condensed" if long else "", plain]))
        figures, notes = figures_of_captions(questions, texts, tokens=config.tokens, reading=reading)
        return Scores(figures=figures, notes=[*notes, *_notes(long, plain)])
    found = condense(config, answers, tools)
    figures, notes = figures_of_captions(
        questions,
        found.texts,
        tokens=config.tokens,
        official=None if plain else found.official,
        reading=plain,
        judge=tools.judge,
    )
    return Scores(figures=figures, unread=found.unread, notes=[*notes, *_notes(0, plain)], details=found.phrases)


def _notes(long: int, plain: str) -> list[str]:
    told = f"{long:,} answers have more than five words and were not condensed by a judge: not comparable to published."
    missing = f"'{_TRUTH.path}' is not there: answers are compared with the descriptions as they are written."
    return [note for note, holds in ((told, long), (missing, plain)) if holds]


def prompts(config: RefL4PhrasesConfig) -> list[Prompt]:
    """What the model and the judge are asked."""
    file, sha256 = _OFFICIAL
    asked = question_prompt(config.question, config.official_code, own=_QUESTION, file=file, sha256=sha256)
    return [asked, judge_prompt(config)] if config.condense else [asked]


def _predictions(config: RefL4PhrasesConfig, path: str | Path, questions: Sequence[Question]) -> Iterator[Answer]:
    return (answer for answer, _ in read_predictions(path, questions, medium="image"))


def _judged(
    config: RefL4PhrasesConfig, path: str | Path, questions: Sequence[Question], answers: Sequence[Answer]
) -> Iterator[tuple[JudgeRequest, str]]:
    """What the judge made of long answers, as the official script writes it: predictions with `pred_gpt`.

    Raises:
        EvaluationError: as `read_predictions`; or another answer was condensed than the one that is scored.
    """
    prompt = judge_prompt(config)
    text_of = {answer.id: answer.text for answer in answers}
    for answer, record in read_predictions(path, questions, medium="image"):
        if answer.id not in text_of or not is_long(answer.text):
            continue
        require_same_answer(answer.text, text_of[answer.id], id=answer.id, where=f"'{path}'")
        request = condense_request(config, prompt, answer.id, text_of[answer.id])
        yield request, text_in(record, "pred_gpt", f"'{path}', the answer to question '{answer.id}'")


SPEC = BenchmarkSpec(
    name="ref_l4_phrases",
    about="Ref-L4: descriptions of objects, condensed to phrases by a judge and compared (CIDEr, METEOR).",
    config=RefL4PhrasesConfig,
    files=(_RECORDS, _TRUTH, _IMAGES),
    open=open_questions,
    score=score,
    published=tuple(
        PublishedFigure(model, name, value / 100, f"{PAPER}, Table 1", judge=_JUDGE)
        for model, row in _TABLE_1.items()
        for name, value in zip(("meteor", "cider"), row, strict=True)
    ),
    prompts=prompts,
    answer_formats={"pixelrefer": _predictions},
    judged_formats={"pixelrefer": _judged},
    tiny=tiny.ref_l4_phrases,
)
