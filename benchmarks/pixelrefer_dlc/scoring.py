"""Scores of descriptions, from what a judge answers about each of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pixelrefer_plugin.authoring import (
    Answer,
    EvaluationError,
    Figure,
    JudgeRequest,
    Question,
    Scores,
    Tools,
    shown,
)

from .choices import official_choice, sane_choice
from .config import DlcConfig, DlcPicturesConfig
from .items import Item
from .prompts import judge_prompts
from .requests import RECOGNITION, YES_NO, parts_of, requests_of

_BLIND = "Pictures were left out of the requests (without_pictures): a judge that was asked here saw none."
ReadChoice = Callable[[str, Sequence[str]], int | None]


@dataclass(frozen=True)
class ItemScore:
    """What the judge's answers make of one description.

    Attributes:
        positive: mean score of the questions about what is there; NaN without any.
        negative: mean score of those about what is not.
        recognised: whether the judge takes it for the right class. Where not, no question scores more than 0.
        unread: which of the judge's answers could not be read; they score 0.
    """

    positive: float
    negative: float
    recognised: bool
    unread: tuple[str, ...] = ()


FAILED = ItemScore(positive=0.0, negative=0.0, recognised=False)
"""Of a question that the model could not be asked."""


def score(config: DlcConfig, questions: Sequence[Question], answers: Sequence[Answer], tools: Tools) -> Scores:
    """Scores of the answers; the main figure is the mean of `pos` and `neg`, as the paper has it.

    The judge's answers are read twice: sanely, and as the official scripts do.
    """
    prompts = judge_prompts(config)
    requests = [
        [] if answer.failure else requests_of(config, prompts, question, answer)
        for question, answer in zip(questions, answers, strict=True)
    ]
    said = _split(tools.ask_judge([each for item in requests for each in item]), requests)
    sane = [score_item(*each, sane_choice) for each in zip(questions, said, strict=True)]
    notes = [_BLIND] if isinstance(config, DlcPicturesConfig) and config.without_pictures else []
    figures = _figures(sane, tools.judge)
    try:
        official = [official_score(*each) for each in zip(questions, said, strict=True)]
        figures += _figures(official, tools.judge, reading="official")
    except EvaluationError as error:
        notes.append(f"There is no official figure: {error}")
    failures = {each.id: f"the model was not asked: {each.failure}" for each in answers if each.failure}
    unread = {question.id: _told(each) for question, each in zip(questions, sane, strict=True) if each.unread}
    details = {
        question.id: _details(*each) for question, each in zip(questions, zip(said, sane, strict=True), strict=True)
    }
    return Scores(figures=figures, unread={**unread, **failures}, notes=notes, details=details)


def score_item(question: Question, said: Sequence[str], read: ReadChoice) -> ItemScore:
    """The score of one description.

    Args:
        question: whose.
        said: the judge's answers, recognition first; none where the model was not asked.
        read: which choice an answer is.
    """
    if not said:
        return FAILED
    items: Sequence[Item] = question.facts["items"]
    chosen = [
        read(answer, choices) for answer, choices in zip(said, [YES_NO, *(i.choices for i in items)], strict=True)
    ]
    recognised = chosen[0] == YES_NO.index("Yes")
    scores = [0.0 if index is None else item.scores[index] for index, item in zip(chosen[1:], items, strict=True)]
    counted = scores if recognised else [min(0.0, each) for each in scores]
    unread = tuple(part for part, index in zip(parts_of(question), chosen, strict=True) if index is None)
    return ItemScore(_mean(items, counted, "positive"), _mean(items, counted, "negative"), recognised, unread)


def official_score(question: Question, said: Sequence[str]) -> ItemScore:
    """The score as the official scripts have it.

    Raises:
        EvaluationError: they stop at one of the judge's answers.
    """
    try:
        scored = score_item(question, said, official_choice)
    except EvaluationError as error:
        raise EvaluationError(f"Item '{question.id}': {error}") from error
    except IndexError as error:
        raise EvaluationError(
            f"Item '{question.id}': the official scripts of DLC-Bench stop at a letter that is no choice, in "
            f"{shown(list(said))}."
        ) from error
    if RECOGNITION in scored.unread or (said and official_choice(said[0], YES_NO) not in (0, 1)):
        raise EvaluationError(
            f"Item '{question.id}': the official scripts of DLC-Bench stop at {shown(said[0])}, which is neither Yes "
            "nor No."
        )
    return scored


def _mean(items: Sequence[Item], scores: Sequence[float], kind: str) -> float:
    of_kind = [score for item, score in zip(items, scores, strict=True) if item.kind == kind]
    return sum(of_kind) / len(of_kind) if of_kind else float("nan")


def _split(said: Sequence[str], requests: Sequence[Sequence[JudgeRequest]]) -> list[list[str]]:
    """The judge's answers of each question."""
    left = iter(said)
    return [[next(left) for _ in item] for item in requests]


def _figures(scores: Sequence[ItemScore], judge: str, reading: str = "") -> list[Figure]:
    positive = np.array([each.positive for each in scores], dtype=np.float64)
    negative = np.array([each.negative for each in scores], dtype=np.float64)
    recognised = np.array([each.recognised for each in scores], dtype=np.float64)

    def average(positions: np.ndarray) -> float:
        """Half of each mean; an item without questions of a kind is left out of that mean alone."""
        return _mean_of([_mean_of(positive[positions]), _mean_of(negative[positions])])

    each = np.array([_mean_of(pair) for pair in zip(positive, negative, strict=True)], dtype=np.float64)
    figures = [Figure(name="avg", values=each, combine=average, reading=reading, judge=judge)]
    named = {"pos": positive, "neg": negative, "recognition": recognised}
    return figures + [Figure(name=name, values=values, reading=reading, judge=judge) for name, values in named.items()]


def _mean_of(values: Sequence[float] | np.ndarray) -> float:
    known = np.asarray(values)[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _told(scored: ItemScore) -> str:
    return f"the judge's answer cannot be read: {', '.join(scored.unread)}"


def _details(said: Sequence[str], scored: ItemScore) -> str:
    parts = [RECOGNITION, *map(str, range(1, len(said)))]
    told = [f"{part}: {shown(answer)}" for part, answer in zip(parts, said, strict=False)]
    return "\n".join([f"pos {scored.positive:g}, neg {scored.negative:g}", *told])
