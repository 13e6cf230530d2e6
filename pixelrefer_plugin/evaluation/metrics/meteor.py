"""METEOR 1.5: how each caption is aligned with its references, by its Java program, and scores of such statistics.

A corpus is scored by the sum of its captions' statistics. That is done here, in numpy, so that any part of a corpus,
thousands of times over, costs no Java. Source: Denkowski and Lavie, Meteor Universal (WMT 2014), and
`MeteorScorer.java` of https://github.com/cmu-mtlab/meteor for English.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...errors import EvaluationError, shown
from .extra import folder_of
from .java import run_java

_JAR = Path("meteor") / "meteor-1.5.jar"
_NUM_STATISTICS = 23
"""Words of caption and reference, function words of both; for each matcher content words of both and function words of
both that it matched; chunks, and matched words of both."""

# The program's own parameters for English
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_MATCHERS = np.array([1.0, 0.6, 0.8, 0.6])  # exact, stem, synonym, paraphrase


def meteor_statistics(captions: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """`(n, 23)` float64, of each tokenized caption with the reference that it fits best.

    A caption that is its reference, word by word, has no chunks, as where the program sums up a corpus.

    Raises:
        EvaluationError: no Java, or it fails.
    """
    if not captions:
        return np.zeros((0, _NUM_STATISTICS))
    lines = [
        " ||| ".join(["SCORE", *map(_without_bars, others), _without_bars(caption)])
        for caption, others in zip(captions, references, strict=True)
    ]
    options: list[str | Path] = [
        "-Xmx2G",
        "-jar",
        folder_of("pycocoevalcap") / _JAR,
        "-",
        "-",
        "-stdio",
        "-l",
        "en",
        "-norm",
    ]
    written = run_java("METEOR", options, lines)
    try:
        statistics = np.array([[float(each) for each in line.split()] for line in written])
        statistics = statistics.reshape(len(lines), _NUM_STATISTICS)
    except ValueError as error:
        raise EvaluationError(f"METEOR gave no statistics, but {shown(written[0])}.") from error
    matched = _by_matcher(statistics).sum(axis=-3)  # (n, content or function, text)
    is_whole = (matched.sum(axis=-2) == statistics[:, 0:2]).all(axis=-1) & (statistics[:, 20] == 1)
    statistics[is_whole, 20] = 0
    return statistics


def meteor_scores(statistics: np.ndarray) -> np.ndarray:
    """`(...)`, 0 to 1, of statistics `(..., 23)`, of captions or summed over captions."""
    lengths, functions = statistics[..., 0:2], statistics[..., 2:4]  # of caption and reference
    matched = _by_matcher(statistics)
    weighted = np.einsum("m,...mt->...t", _MATCHERS, _DELTA * matched[..., 0, :] + (1 - _DELTA) * matched[..., 1, :])
    shares = _share(weighted, _DELTA * (lengths - functions) + (1 - _DELTA) * functions)
    precision, recall = shares[..., 0], shares[..., 1]
    mean = _share(precision * recall, _ALPHA * precision + (1 - _ALPHA) * recall)
    fragments = _share(statistics[..., 20], statistics[..., 21:23].mean(axis=-1))
    return np.asarray(mean * (1 - _GAMMA * fragments**_BETA))


def _by_matcher(statistics: np.ndarray) -> np.ndarray:
    """`(..., 4, 2, 2)`: how many words each matcher matched, content and function words, of caption and reference."""
    return statistics[..., 4:20].reshape(*statistics.shape[:-1], 4, 2, 2)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """The quotient; 0 where there is nothing."""
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=whole != 0)


def _without_bars(text: str) -> str:
    """A text without what separates texts in the program's input, which pycocoevalcap removes likewise."""
    return " ".join(text.replace("|||", " ").split())
