"""`ScoringTools`: what the host lends to a benchmark while it scores, see `contracts.benchmark.Tools`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...contracts.benchmark import JudgeRequest
from ...errors import JudgeError, counted
from .judge import ASKED, Judge

if TYPE_CHECKING:
    import numpy as np

    from ..metrics.sentences import SentenceEncoder


class ScoringTools:
    """A judge and a sentence encoder, each where there is one.

    Args:
        judge: None where there is none; a benchmark that needs one then says how many answers it would take.
        sentences: where the sentence encoder is, see `load_sentence_encoder`; it is opened when it is first used.

    Attributes:
        notes: what a reader of the figures must know about the judge's answers, a sentence each.
    """

    def __init__(self, judge: Judge | None = None, sentences: str | None = None) -> None:
        self._judge = judge
        self._sentences = sentences
        self._encoder: SentenceEncoder | None = None
        self.notes: list[str] = []

    @property
    def judge(self) -> str:
        """See `Tools`."""
        return "" if self._judge is None else self._judge.name

    @property
    def encoder(self) -> str:
        """Name of the sentence encoder; empty where none was used."""
        return "" if self._encoder is None else self._encoder.name

    @property
    def encoder_notes(self) -> Sequence[str]:
        """What a reader of its figures must know, such as that published ones are made with another model."""
        return () if self._encoder is None else self._encoder.notes

    def ask_judge(self, requests: Sequence[JudgeRequest]) -> list[str]:
        """See `Tools`."""
        if self._judge is None:
            raise JudgeError(
                f"{counted(len(requests), 'answer')} of a judge are missing: there is no judge. Give --judge-url and "
                "--judge-model, or import answers that were published."
            )
        answers = self._judge.ask(requests)
        for origin, count in self._judge.origins(requests).items():
            if origin != ASKED:
                self.notes.append(f"{count:,} of {counted(len(requests), 'answer')} of the judge are from {origin}.")
        return answers

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """See `Tools`."""
        from ..metrics.sentences import load_sentence_encoder

        if self._encoder is None:
            self._encoder = load_sentence_encoder(self._sentences)
        return self._encoder.encode(texts)
