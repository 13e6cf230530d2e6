"""Asks the judge, and makes figures of its reviews."""

from collections.abc import Sequence

import numpy as np

from pixelrefer_plugin.authoring import Answer, Figure, Question, Scores, Tools, excerpt, shown

from .config import FerretConfig, Order
from .pairs import FAILED, READERS, official_pair, quotient, read_pair
from .prompts import judge_request, prompts

_ORDERS = {
    "model_first": "The judge saw the model's answer first, as in PixelRefer; Ferret and GAR show it second.",
    "reference_first": "The judge saw the model's answer second, as in Ferret and GAR; PixelRefer shows it first.",
}


def score(config: FerretConfig, questions: Sequence[Question], answers: Sequence[Answer], tools: Tools) -> Scores:
    """The quotient of the means of the model's and of the reference's scores, times 100, and both means, 0 to 10.

    A review that cannot be read is not counted and listed. Official scripts count it as -1 for both answers.

    Raises:
        JudgeError: there is no judge and answers are missing.
    """
    asked = prompts(config)
    judged = [index for index, answer in enumerate(answers) if not answer.failure]
    said = tools.ask_judge(
        [
            judge_request(config, asked, questions[index].id, questions[index].facts, answers[index].text)
            for index in judged
        ]
    )
    pairs = np.full((len(questions), 2), np.nan)
    official = {reader: pairs.copy() for reader in READERS}
    unread: dict[str, str] = {}
    for index, text in zip(judged, said, strict=True):
        pair = read_pair(text)
        if pair is None:
            unread[questions[index].id] = f"the judge gave no two scores from 0 to 10: {shown(text)}"
        else:
            pairs[index] = pair
        for reader, table in official.items():
            table[index] = official_pair(text, reader)
    notes = [_ORDERS[config.order]]
    for reader, table in official.items():
        if failed := int((table == FAILED).all(axis=1).sum()):
            notes.append(f"official {reader}: {failed} reviews are not read; -1 is counted for both of their answers.")
    model = 0 if config.order == "model_first" else 1
    figures = [_quotients(pairs, config.order, tools.judge)]
    figures += [_quotients(table, config.order, tools.judge, f"official {name}") for name, table in official.items()]
    figures += [
        Figure(name="model_score", values=pairs[:, model], scale=1.0, judge=tools.judge),
        Figure(name="reference_score", values=pairs[:, 1 - model], scale=1.0, judge=tools.judge),
    ]
    details = {questions[index].id: excerpt(text) for index, text in zip(judged, said, strict=True)}
    return Scores(figures=figures, unread=unread, notes=notes, details=details)


def _quotients(pairs: np.ndarray, order: Order, judge: str, reading: str = "") -> Figure:
    """The quotient of some of the reviews; the value of each is the model's own score, by which they are sorted."""
    values = np.where(np.isfinite(pairs).all(axis=1), pairs[:, 0 if order == "model_first" else 1], np.nan)
    return Figure(
        name="score",
        values=values,
        combine=lambda positions: quotient(pairs[positions], order),
        scale=1.0,
        reading=reading,
        judge=judge,
    )
