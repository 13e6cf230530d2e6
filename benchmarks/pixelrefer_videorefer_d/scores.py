"""Asks the judge, and makes figures of its answers."""

from collections.abc import Mapping, Sequence

import numpy as np

from pixelrefer_plugin.authoring import Answer, EvaluationError, Figure, Question, Scores, Tools, excerpt, shown

from .config import VideoReferDConfig
from .dimensions import DIMENSIONS, official_dimensions, official_summary, read_dimensions
from .prompts import judge_request, prompts

_MOST_OFFICIAL = 1e100  # of a score, which the official script does not bound


def score(config: VideoReferDConfig, questions: Sequence[Question], answers: Sequence[Answer], tools: Tools) -> Scores:
    """The average of the four dimensions, and each; a dimension counts the answers that have a score for it.

    Raises:
        JudgeError: there is no judge and answers are missing.
    """
    asked = prompts(config)
    judged = [index for index, answer in enumerate(answers) if not answer.failure]
    said = tools.ask_judge(
        [
            judge_request(config, asked, questions[index].id, questions[index].facts["caption"], answers[index].text)
            for index in judged
        ]
    )
    read, official = (np.full((len(questions), len(DIMENSIONS)), np.nan) for _ in range(2))
    unread: dict[str, str] = {}
    readings = [official_dimensions(text) for text in said]
    for index, text, reading in zip(judged, said, readings, strict=True):
        found = read_dimensions(text)
        read[index], official[index] = _row(found), _row(reading.scores)
        if missing := [name for name in DIMENSIONS if name not in found]:
            unread[questions[index].id] = f"the judge gave no score from 0 to 5 for {', '.join(missing)}: {shown(text)}"
    figures = _figures(read, tools.judge)
    notes = [_counts(read)]
    try:
        official_summary(readings)
        _require_measurable(official)
    except EvaluationError as error:
        notes.append(f"There are no official figures. {error}")
    else:
        figures += _figures(official, tools.judge, reading="official")
        notes.append(f"In the official reading: {_counts(official)}")
    if dropped := sum(reading.failed for reading in readings):
        notes.append(
            f"The official scripts give up {dropped} records: of VideoRefer and UniPixel, they leave them out of their "
            "files, of PixelRefer, they keep them without scores. The figures are the same."
        )
    if others := {key for reading in readings for key in reading.other_keys}:
        notes.append(
            f"The official scripts read {len(others)} names that are no dimension, such as {shown(min(others))}, and "
            "drop their scores."
        )
    details = {questions[index].id: excerpt(text) for index, text in zip(judged, said, strict=True)}
    return Scores(figures=figures, unread=unread, notes=notes, details=details)


def _require_measurable(table: np.ndarray) -> None:
    """Refuse scores such as one of 400 digits, which no mean survives; raises `EvaluationError`."""
    if len(beyond := table[table > _MOST_OFFICIAL]):
        raise EvaluationError(f"The official script reads {len(beyond)} scores above {_MOST_OFFICIAL:g}.")


def _row(found: Mapping[str, float]) -> list[float]:
    return [found.get(name, np.nan) for name in DIMENSIONS]


def _figures(table: np.ndarray, judge: str, reading: str = "") -> list[Figure]:
    """The average, and each dimension.

    Args:
        table: `(n, 4)` float64, NaN where there is no score.
        judge: who gave them.
        reading: how they were read.
    """
    given = ~np.isnan(table)
    sums, counts = np.where(given, table, 0).sum(axis=1), given.sum(axis=1)
    of_each = np.divide(sums, counts, out=np.full(len(table), np.nan), where=counts > 0)

    def average(positions: np.ndarray) -> float:
        """The mean of the dimensions' means; NaN where one has no score."""
        chosen = table[positions]
        counts = (~np.isnan(chosen)).sum(axis=0)
        return float((np.nansum(chosen, axis=0) / counts).mean()) if counts.all() else float("nan")

    whole = Figure(name="average", values=of_each, combine=average, scale=1.0, reading=reading, judge=judge)
    return [
        whole,
        *(
            Figure(name=name.lower().replace(" ", "_"), values=column, scale=1.0, reading=reading, judge=judge)
            for name, column in zip(DIMENSIONS, table.T, strict=True)
        ),
    ]


def _counts(table: np.ndarray) -> str:
    counts = (~np.isnan(table)).sum(axis=0)
    told = ", ".join(f"{name} {count}" for name, count in zip(DIMENSIONS, counts, strict=True))
    return f"answers with a score, of {len(table)}: {told}."
