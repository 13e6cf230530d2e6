"""Accuracy of MVBench over all questions, read sanely and as PixelRefer's script reads."""

import string
from collections.abc import Sequence

import numpy as np

from pixelrefer_plugin.authoring import Answer, Figure, Question, Scores, Tools, read_choice, shown

from .config import MvbenchConfig


def score_mvbench(
    config: MvbenchConfig, questions: Sequence[Question], answers: Sequence[Answer], _tools: Tools
) -> Scores:
    """The share of right answers. One in which no candidate can be read, or more than one, is wrong."""
    pairs = list(zip(questions, answers, strict=True))
    read = [read_choice(answer.text, question.facts["candidates"]) for question, answer in pairs]
    # The official inference answers "A" to a question at which it fails.
    official = [
        read_choice("A" if answer.failure else answer.text, question.facts["candidates"], "mvbench")
        for question, answer in pairs
    ]
    right = [string.ascii_uppercase[question.facts["gt"]] for question in questions]
    return Scores(
        figures=[
            Figure(name="accuracy", values=np.array([*map(_agree, read, right)])),
            Figure(name="accuracy", values=np.array([*map(_agree, official, right)]), reading="official"),
        ],
        unread={
            answer.id: f"No option, or more than one, can be read in {shown(answer.text)}. It counts as wrong."
            for answer, letter in zip(answers, read, strict=True)
            if letter is None and not answer.failure
        },
        details={answer.id: f"Read as {letter}." for answer, letter in zip(answers, read, strict=True) if letter},
    )


def _agree(read: str | None, right: str) -> float:
    return float(read == right)
