"""Asks the judge, and makes figures of its answers."""

import math
from collections.abc import Sequence

import numpy as np

from pixelrefer_plugin.authoring import Answer, Figure, Question, Scores, Tools, excerpt, shown

from .clair import official_clair, read_clair
from .config import RefL4DetailedConfig
from .prompts import judge_prompt, judge_request

_CHARACTERS = (
    "References that are one text were listed for the judge character by character, as the official code does it."
)

_MOST_OFFICIAL = 1e100  # of a score, which the official script does not bound


def score(
    config: RefL4DetailedConfig, questions: Sequence[Question], answers: Sequence[Answer], tools: Tools
) -> Scores:
    """CLAIR, 0 to 1 (papers print it times 100), in the default and in the official reading.

    An answer of the judge without a score is not counted and listed; in the official reading it is 0.

    Raises:
        JudgeError: there is no judge and answers are missing.
    """
    prompt = judge_prompt(config)
    judged = [index for index, answer in enumerate(answers) if not answer.failure]
    said = tools.ask_judge(
        [
            judge_request(config, prompt, questions[index].id, answers[index].text, questions[index].facts["caption"])
            for index in judged
        ]
    )
    read, official = np.full(len(questions), np.nan), np.full(len(questions), np.nan)
    unread: dict[str, str] = {}
    for index, text in zip(judged, said, strict=True):
        value, theirs = read_clair(text), official_clair(text)
        if value is None:
            unread[questions[index].id] = f"the judge gave no clear score from 0 to 100: {shown(text)}"
        else:
            read[index] = value
        official[index] = 0.0 if theirs is None else _finite(theirs.score)
    texts = any(isinstance(question.facts["caption"], str) for question in questions)
    notes = [f"{len(unread)} answers of the judge have no clear score; the official reading makes a number of each."]
    return Scores(
        figures=[
            Figure(name="clair", values=read, judge=tools.judge),
            Figure(name="clair", values=official, reading="official", judge=tools.judge),
        ],
        unread=unread,
        notes=[*(notes if unread else []), *([_CHARACTERS] if texts and config.bullets == "characters" else [])],
        details={questions[index].id: excerpt(text) for index, text in zip(judged, said, strict=True)},
    )


def _finite(value: float) -> float:
    """NaN for a score beyond all measure, which the official script takes, and which no mean survives."""
    return value if abs(value) < _MOST_OFFICIAL else math.nan
