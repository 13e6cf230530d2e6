"""`Figure` and `Scores`: what a measurement gives, so that every report can split it and resample it.

They know no benchmark and no model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

Combine = Callable[[np.ndarray], float]
"""From positions of questions, `(k,)` int64, with repetitions, to the figure of those questions alone."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Figure:
    """One number of a measurement, with what it is made of.

    Attributes:
        name: such as `siou` or `accuracy`, in lowercase letters.
        values: `(n,)` float64, the value of each question, in the order of the questions; NaN where it has none.
        combine: the figure of some of the questions; None: the mean of their values, without those that have none.
        scale: what the number is multiplied by where people read it: 100 for shares, as papers print them.
        reading: how answers were read, where there is more than one way: `official` reproduces the official code with
            its oddities. Empty: the sane reading.
        judge: the judge whose opinion it is; empty where there is none. Shown wherever the figure is.
    """

    name: str
    values: np.ndarray
    combine: Combine | None = None
    scale: float = 100.0
    reading: str = ""
    judge: str = ""

    @property
    def label(self) -> str:
        """The name with the reading and the judge: `accuracy (official)`."""
        notes = [self.reading, f"judge {self.judge}" if self.judge else ""]
        told = ", ".join(filter(None, notes))
        return f"{self.name} ({told})" if told else self.name

    @property
    def counted(self) -> int:
        """How many questions have a value."""
        return int(np.count_nonzero(~np.isnan(self.values)))

    def of(self, positions: np.ndarray | None = None) -> float:
        """The figure of some questions, or of all; NaN where none of them has a value."""
        chosen = np.arange(len(self.values)) if positions is None else positions
        valued = chosen[~np.isnan(self.values[chosen])]
        if not len(valued):
            return float("nan")
        return float(self.values[valued].mean()) if self.combine is None else float(self.combine(valued))


@dataclass(frozen=True, eq=False, kw_only=True)
class Scores:
    """What a benchmark says of answers.

    Attributes:
        figures: the main one first.
        unread: why an answer, of the model or of its judge, could not be read, by the question's id. Such an answer has
            the value that the benchmark's rules give it; it is counted and listed.
        notes: what a reader of the figures must know, a sentence each.
        details: what explains the value of a question, by its id, such as the judge's answer.
    """

    figures: Sequence[Figure]
    unread: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    details: Mapping[str, str] = field(default_factory=dict)
