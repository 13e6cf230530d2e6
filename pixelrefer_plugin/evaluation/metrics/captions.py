"""BLEU, ROUGE-L, CIDEr and METEOR of captions, by pycocoevalcap's scorers, as figures that any part of a run has.

Scorers: https://github.com/salaniz/pycocoevalcap, called directly: its wrapper `COCOEvalCap` starts SPICE, which needs
the network, before it scores anything. It knows texts; no model and no files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple, get_args

import numpy as np

from ...contracts.figures import Combine, Figure
from ...errors import EvaluationError, counted, shown
from .caption_tokens import MOST_CHARACTERS, Tokens, breaks_officially, chosen_tokens, tokenized
from .extra import eval_module
from .java import find_java
from .meteor import meteor_scores, meteor_statistics

CaptionMetric = Literal["meteor", "cider", "bleu_4", "rouge_l", "bleu_1", "bleu_2", "bleu_3"]
CAPTION_METRICS: tuple[CaptionMetric, ...] = get_args(CaptionMetric)
"""In the order that papers print them."""

OFFICIAL_WORDS = 100
"""Words that PixelRefer's script for Visual Genome keeps of a prediction."""

_MOST_TOKENS = 2500  # of a caption: ROUGE-L takes time that is quadratic in them
_SMALL, _TINY = 1e-9, 1e-15  # of pycocoevalcap's BLEU
_NLTK = "nltk tokens"


class CaptionPair(NamedTuple):
    """A caption and what it is compared with.

    Attributes:
        prediction: what was said; None where nothing was asked: not counted.
        references: what is right, one or more; without any the pair is not counted.
    """

    prediction: str | None
    references: Sequence[str]

    @property
    def is_counted(self) -> bool:
        """Whether there is something to compare."""
        return self.prediction is not None and bool(self.references)


def first_words(text: str, most: int = OFFICIAL_WORDS) -> str:
    """The first words of a text that single spaces separate, as PixelRefer's `change2eval_format.py` cuts it."""
    return " ".join(text.split(" ")[:most])


def caption_figures(
    pairs: Sequence[CaptionPair],
    *,
    metrics: Sequence[CaptionMetric] = CAPTION_METRICS,
    tokens: Tokens = "auto",
    reading: str = "",
    judge: str = "",
) -> tuple[list[Figure], list[str]]:
    """Figures of captions, in the order of `metrics`, and notes on what a reader must know of them.

    Every figure is right on any part of the pairs, with repetitions: CIDEr is the mean of values that stand on the
    document frequencies of all pairs, BLEU and METEOR are computed from summed statistics.

    Args:
        pairs: captions with their references, in the order of the questions.
        metrics: which. METEOR is left out, with a note, where there is no Java.
        tokens: by which tokenizer. Figures from NLTK's carry its name in their reading.
        reading: of the figures.
        judge: of the figures, where one had a part in the captions.

    Raises:
        EvaluationError: an unknown metric or tokenizer; the extra `eval` is missing; Java is, for `tokens=ptb`; or it
            fails.
    """
    if unknown := [each for each in metrics if each not in CAPTION_METRICS]:
        raise EvaluationError(f"metrics must be of {', '.join(CAPTION_METRICS)}, got {shown(unknown[0])}.")
    chosen = chosen_tokens(tokens)
    scored = [pair for pair in pairs if pair.is_counted]
    captions = _Captions.of(scored, chosen)
    measured = _measured(captions, metrics)
    told = ", ".join(filter(None, [reading, _NLTK if chosen == "nltk" else ""]))
    row = np.cumsum([pair.is_counted for pair in pairs]) - 1  # of each pair, among those that are counted
    figures = []
    for name in metrics:
        if name in measured:
            values = np.array([0.0 if pair.is_counted else np.nan for pair in pairs])
            values[~np.isnan(values)] = measured[name].values
            combine = _on_rows(measured[name].combine, row)
            figures.append(Figure(name=name, values=values, combine=combine, reading=told, judge=judge))
    return figures, _notes(scored, captions, metrics, chosen, num_left_out=sum(not pair.references for pair in pairs))


class _Captions(NamedTuple):
    """Tokenized captions, each with its references."""

    predictions: list[str]
    references: list[list[str]]
    num_cut: int

    @classmethod
    def of(cls, pairs: Sequence[CaptionPair], tokens: Literal["ptb", "nltk"]) -> _Captions:
        """All tokenized at once, for Java takes a while to start."""
        texts = [text for pair in pairs for text in (pair.prediction or "", *pair.references)]
        split = [line.split(" ") for line in tokenized(texts, tokens)]
        rows = iter(" ".join(line[:_MOST_TOKENS]) for line in split)
        taken = [(next(rows), [next(rows) for _ in pair.references]) for pair in pairs]
        num_cut = sum(
            len(text) > MOST_CHARACTERS or len(line) > _MOST_TOKENS for text, line in zip(texts, split, strict=True)
        )
        return cls([prediction for prediction, _ in taken], [references for _, references in taken], num_cut)


class _Measured(NamedTuple):
    """The value of each caption, and of any of them together where that is not their mean."""

    values: np.ndarray
    combine: Combine | None = None


def _on_rows(combine: Combine | None, row: np.ndarray) -> Combine | None:
    """The same, from positions of pairs of which some are not counted."""
    return combine and (lambda positions: combine(row[positions]))


def _measured(captions: _Captions, metrics: Sequence[str]) -> dict[str, _Measured]:
    """What can be measured here, by name."""
    measured = {}
    if "meteor" in metrics and find_java():
        measured["meteor"] = _from_sums(meteor_statistics(captions.predictions, captions.references), meteor_scores)
    if "cider" in metrics:
        measured["cider"] = _Measured(_cider(captions))
    if "rouge_l" in metrics:
        measured["rouge_l"] = _Measured(_rouge_l(captions))
    if any(name.startswith("bleu") for name in metrics):
        statistics = _bleu_statistics(captions)
        for words in range(1, 5):
            measured[f"bleu_{words}"] = _from_sums(statistics, partial(_bleu, words=words))
    return measured


def _from_sums(statistics: np.ndarray, score: Callable[[np.ndarray], np.ndarray]) -> _Measured:
    """The scores of captions, and of several together by the sum of their statistics."""
    return _Measured(score(statistics), lambda rows: float(score(statistics[rows].sum(axis=0))))


def _cider(captions: _Captions) -> np.ndarray:
    """CIDEr of each caption, 0 to 10, with the document frequencies of all references."""
    if not any(text.strip() for references in captions.references for text in references):
        return np.zeros(len(captions.predictions))  # the scorer fails without a word
    references = dict(enumerate(captions.references))
    predictions = {index: [text] for index, text in enumerate(captions.predictions)}
    _, values = eval_module("pycocoevalcap.cider.cider").Cider().compute_score(references, predictions)
    return np.asarray(values, dtype=np.float64)


def _rouge_l(captions: _Captions) -> np.ndarray:
    scorer = eval_module("pycocoevalcap.rouge.rouge").Rouge()
    pairs = zip(captions.predictions, captions.references, strict=True)
    return np.array([scorer.calc_score([prediction], references) for prediction, references in pairs], dtype=np.float64)


def _bleu_statistics(captions: _Captions) -> np.ndarray:
    """`(n, 10)`: of 1 to 4 words, how many groups are right and how many there are; then both lengths."""
    scorer = eval_module("pycocoevalcap.bleu.bleu_scorer")
    pairs = zip(captions.predictions, captions.references, strict=True)
    cooked = [scorer.cook_test(one, scorer.cook_refs(references), eff="closest") for one, references in pairs]
    rows = [[*each["correct"], *each["guess"], each["testlen"], each["reflen"]] for each in cooked]
    return np.array(rows, dtype=np.float64).reshape(len(rows), 10)


def _bleu(statistics: np.ndarray, *, words: int) -> np.ndarray:
    """`(...)` BLEU of statistics `(..., 10)`, of captions or summed, as `BleuScorer.compute_score` of pycocoevalcap."""
    precisions = (statistics[..., :words] + _TINY) / (statistics[..., 4 : 4 + words] + _SMALL)
    ratio = (statistics[..., 8] + _TINY) / (statistics[..., 9] + _SMALL)
    brevity = np.exp(np.minimum(0.0, 1 - 1 / ratio))
    return np.asarray(precisions.prod(axis=-1) ** (1 / words) * brevity)


def _notes(
    pairs: Sequence[CaptionPair], captions: _Captions, metrics: Sequence[str], tokens: str, *, num_left_out: int
) -> list[str]:
    broken = sum(breaks_officially(text) for each in pairs for text in (each.prediction or "", *each.references))
    notes = {
        "METEOR is missing: it needs Java, and no `java` that runs is on the path.": (
            "meteor" in metrics and not find_java()
        ),
        "Captions are split by NLTK's tokenizer: near to published figures, which stand on the PTB tokenizer in Java, "
        "and not the same.": tokens == "nltk",
        f"{counted(broken, 'text')} with line breaks other than \\n: these are spaces here. The official script would "
        "compare later captions with wrong references.": broken > 0,
        f"{counted(captions.num_cut, 'text')} cut to {MOST_CHARACTERS:,} characters and {_MOST_TOKENS:,} words.": (
            captions.num_cut > 0
        ),
        f"{counted(num_left_out, 'question')} without a right answer: not counted.": num_left_out > 0,
    }
    return [note for note, holds in notes.items() if holds]
