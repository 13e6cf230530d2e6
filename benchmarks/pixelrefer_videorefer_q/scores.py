"""Accuracy of VideoRefer-Bench-Q, read sanely, as PixelRefer's script reads, and as UniPixel's does."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from pixelrefer_plugin.authoring import Answer, EvaluationError, Figure, Question, Scores, Tools, read_choice, shown

from .config import VideoReferQConfig

_NAMES = {"official": "PixelRefer's eval_videorefer_q_bench.py", "unipixel": "UniPixel's eval_general.py"}


def score(config: VideoReferQConfig, questions: Sequence[Question], answers: Sequence[Answer], _tools: Tools) -> Scores:
    """The share of right answers over all questions, as the official code has it; of each type the host says it.

    An answer in which no option can be read, or more than one, is wrong.
    """
    asked = list(zip(questions, answers, strict=True))
    read = [read_choice(answer.text, question.facts["options"]) for question, answer in asked]
    right = [question.facts["letter"] for question in questions]
    official, unipixel = (_official(questions, answers, reading) for reading in ("pixelrefer", "unipixel"))
    figures = [
        Figure(name="accuracy", values=_agreeing(read, right)),
        Figure(name="accuracy", values=_agreeing(official[0], right), reading="official"),
        Figure(name="accuracy", values=_agreeing(unipixel[0], right), reading="unipixel"),
    ]
    pairs = list(zip(answers, read, strict=True))
    return Scores(
        figures=figures,
        unread={each.id: _unread(each) for each, letter in pairs if letter is None and not each.failure},
        notes=[*_notes("official", official[1]), *_notes("unipixel", unipixel[1])],
        details={answer.id: f"Read as {letter}." for answer, letter in pairs if letter is not None},
    )


def _official(
    questions: Sequence[Question], answers: Sequence[Answer], reading: Literal["pixelrefer", "unipixel"]
) -> tuple[list[str | None], list[str]]:
    """What an official script reads, None where it stops; and the ids of those answers."""
    letters: list[str | None] = []
    stops: list[str] = []
    for question, answer in zip(questions, answers, strict=True):
        # PixelRefer's inference writes "A" for a question at which it fails.
        text = "A" if answer.failure and reading == "pixelrefer" else answer.text
        try:
            letters.append(read_choice(text, question.facts["options"], reading))
        except EvaluationError:
            letters.append(None)
            stops.append(answer.id)
    return letters, stops


def _agreeing(read: Sequence[str | None], right: Sequence[str]) -> np.ndarray:
    return np.array([letter == expected for letter, expected in zip(read, right, strict=True)], dtype=np.float64)


def _unread(answer: Answer) -> str:
    return f"No option, or more than one, can be read in {shown(answer.text)}. It counts as wrong."


def _notes(reading: str, stops: Sequence[str]) -> list[str]:
    if not stops:
        return []
    return [
        f"Reading {reading}: {_NAMES[reading]} stops with an IndexError at {len(stops)} of the answers, such as that "
        f"to {shown(stops[0])}. They are counted as wrong."
    ]
