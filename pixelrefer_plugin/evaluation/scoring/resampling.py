"""How sure a figure is: its interval by bootstrap, of some questions, and of the difference of two models.

The bootstrap is Efron's with percentiles (An Introduction to the Bootstrap, 1993, chapter 13): questions are drawn
again with repetition, as many as there are, and the figure is taken of each draw. Draws depend on the number of
questions alone, so that two models are compared on the same ones. It knows figures; no benchmark and no model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ...contracts.figures import Figure

RESAMPLES = 1000
"""Draws for an interval."""

SHARE = 0.95
"""Of the draws lies within an interval."""

_SEED = 2511
_MOST_VALUES = 2_000_000  # of draws that are kept in memory at a time
_MOST_COMBINED = 1_000_000  # questions that a figure of its own rule is taken of, for one interval
_FEWEST_RESAMPLES = 100


@dataclass(frozen=True, eq=False)
class Estimate:
    """A figure of some questions, and how sure it is.

    Attributes:
        value: the figure; NaN where none of the questions has a value.
        low: lower end of its 95 % interval; NaN where fewer than two questions have a value.
        high: upper end.
        counted: how many of the questions have a value.
        draws: `(resamples,)` float64, the figure of each draw; empty where there is no interval.
    """

    value: float
    low: float
    high: float
    counted: int
    draws: np.ndarray = field(repr=False)

    @property
    def is_known(self) -> bool:
        """Whether any question has a value."""
        return self.counted > 0


@dataclass(frozen=True)
class Difference:
    """How much larger a figure is than another one of the same questions.

    Attributes:
        value: the second less the first; NaN where one of them is not known.
        low: lower end of its 95 % interval; NaN where it has none.
        high: upper end.
    """

    value: float
    low: float
    high: float

    @property
    def is_sure(self) -> bool:
        """Whether its interval leaves out 0."""
        return self.low > 0 or self.high < 0


def estimate(figure: Figure, positions: np.ndarray) -> Estimate:
    """A figure of the questions at some positions, `(k,)` int64, with its interval.

    A figure that is a mean has 1,000 draws. One with a rule of its own has as many as take a million questions
    together, 100 to 1,000.
    """
    counted = int(np.count_nonzero(~np.isnan(figure.values[positions])))
    draws = np.empty(0) if counted < 2 else _draws(figure, positions)
    return Estimate(figure.of(positions), *_ends(draws), counted, draws)


def difference(first: Estimate, second: Estimate) -> Difference:
    """The second figure less the first, of the same questions, with the interval of the same draws."""
    both = min(len(first.draws), len(second.draws))
    return Difference(second.value - first.value, *_ends(second.draws[:both] - first.draws[:both]))


def _ends(draws: np.ndarray) -> tuple[float, float]:
    known = draws[~np.isnan(draws)]
    if not len(known):
        return math.nan, math.nan
    low, high = np.quantile(known, [(1 - SHARE) / 2, (1 + SHARE) / 2])
    return float(low), float(high)


def _draws(figure: Figure, positions: np.ndarray) -> np.ndarray:
    if figure.combine is not None:
        resamples = int(np.clip(_MOST_COMBINED // len(positions), _FEWEST_RESAMPLES, RESAMPLES))
        return np.array([figure.of(positions[row]) for rows in _drawn(len(positions), resamples) for row in rows])
    values = figure.values[positions]
    return np.concatenate([_means(values[rows]) for rows in _drawn(len(positions), RESAMPLES)])


def _means(values: np.ndarray) -> np.ndarray:
    """The mean of each row of `(rows, n)`, without NaN; NaN for a row that has nothing else."""
    known = ~np.isnan(values)
    counts = known.sum(axis=1)
    sums = np.where(known, values, 0.0).sum(axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _drawn(count: int, resamples: int) -> Iterator[np.ndarray]:
    """Rows of `count` numbers below `count` each, `resamples` in all, a few at a time; always the same."""
    generator = np.random.default_rng([_SEED, count])
    rows = max(1, _MOST_VALUES // count)
    for start in range(0, resamples, rows):
        yield generator.integers(0, count, (min(rows, resamples - start), count))
