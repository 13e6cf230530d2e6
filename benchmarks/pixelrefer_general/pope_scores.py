"""Accuracy, F1, precision, recall and the share of yes, each the mean over the splits, as the official code has it."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from pixelrefer_plugin.authoring import Answer, Figure, Question, Scores, Tools, read_yes_no, shown

from .config import PopeConfig


def score_pope(config: PopeConfig, questions: Sequence[Question], answers: Sequence[Answer], _tools: Tools) -> Scores:
    """Figures of the sane reading, and of PixelRefer's `eval_pope.py`.

    An answer that says neither yes nor no is wrong in the sane reading: neither a true positive nor a false one.
    """
    read = [read_yes_no(answer.text) for answer in answers]
    official = [None if answer.failure else read_yes_no(answer.text, "pope") for answer in answers]
    figures = [*_figures(questions, read, ""), *_figures(questions, official, "official")]
    unread = {
        answer.id: f"Neither yes nor no can be read in {shown(answer.text)}. It counts as wrong."
        for answer, said in zip(answers, read, strict=True)
        if said is None and not answer.failure
    }
    return Scores(figures=figures, unread=unread, notes=_notes(questions, official))


def _figures(questions: Sequence[Question], read: Sequence[str | None], reading: str) -> list[Figure]:
    names, split_of = np.unique([question.type for question in questions], return_inverse=True)
    truth = np.array([question.expected == "yes" for question in questions], dtype=bool)
    said_yes = np.array([each == "yes" for each in read], dtype=bool)
    right = np.array([each == question.expected for each, question in zip(read, questions, strict=True)], dtype=float)
    true_positive, yes = (truth & said_yes).astype(float), truth.astype(float) + said_yes

    def sums(values: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Of each split that the positions touch."""
        counts = np.bincount(split_of[positions], minlength=len(names))
        return np.bincount(split_of[positions], weights=values[positions], minlength=len(names))[counts > 0]

    def mean_over_splits(values: np.ndarray, positions: np.ndarray) -> float:
        return float((sums(values, positions) / sums(np.ones_like(values), positions)).mean())

    def f1(positions: np.ndarray) -> float:
        """Of each split 2 TP / (2 TP + FP + FN); 0 where there is no yes, in truth or in answers."""
        return float((2 * sums(true_positive, positions) / np.maximum(sums(yes, positions), 1)).mean())

    of_question = {
        "accuracy": right,
        "precision": np.where(said_yes, right, np.nan),
        "recall": np.where(truth, right, np.nan),
        "yes_share": said_yes.astype(float),
    }
    accuracy, *others = (
        Figure(name=name, values=values, combine=partial(mean_over_splits, values), reading=reading)
        for name, values in of_question.items()
    )
    return [accuracy, Figure(name="f1", values=right, combine=f1, reading=reading), *others]


def _notes(questions: Sequence[Question], official: Sequence[str | None]) -> list[str]:
    """Splits in which no right answer is read as yes: the official code divides by zero there."""
    notes = []
    for split in dict.fromkeys(question.type for question in questions):
        pairs = [(question, read) for question, read in zip(questions, official, strict=True) if question.type == split]
        if not any(question.expected == read == "yes" for question, read in pairs):
            notes.append(
                f"Reading official: eval_pope.py stops with a ZeroDivisionError at the split {split}, since no answer "
                "is rightly read as yes there."
            )
    return notes
