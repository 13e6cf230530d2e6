"""Which of several sets of answers to the same questions is best, and whether that is decided.

A lead is decided where its interval of paired draws leaves out 0. It knows estimates; no benchmark and no model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .resampling import Difference, Estimate, difference
from .scoring import Result


@dataclass(frozen=True)
class Standing:
    """The best of several sets of answers by one figure, and how far the others are behind.

    Attributes:
        best: label of the best one; of those that are equal the first.
        behind: of each other one that has the figure, by its label, nearest first: its figure less the best one's.
    """

    best: str
    behind: Mapping[str, Difference]

    @property
    def undecided(self) -> list[str]:
        """Labels of the others that may be as good: the interval of the difference reaches 0, or there is none."""
        return [label for label, each in self.behind.items() if not each.high < 0]

    @property
    def is_decided(self) -> bool:
        """Whether it is better than every other one."""
        return bool(self.behind) and not self.undecided


def ordered(results: Mapping[str, Result]) -> list[str]:
    """Labels by the main figure, best first; those without one last."""
    return sorted(results, key=lambda label: _place(results[label].main.overall))


def standing_of(estimates: Mapping[str, Estimate]) -> Standing | None:
    """Of figures of the same questions by label; None where none of them is known."""
    known = {label: each for label, each in estimates.items() if not math.isnan(each.value)}
    if not known:
        return None
    best, *others = sorted(known, key=lambda label: _place(known[label]))
    return Standing(best, {label: difference(known[best], known[label]) for label in others})


def standings_by_group(results: Mapping[str, Result], split: str) -> dict[str, Standing]:
    """Of the main figure, for each group of a split that the questions make."""
    first = next(iter(results.values()))
    groups: Sequence[str] = list(first.main.groups.get(split, ()))
    found = {
        group: standing_of({label: each.main.groups[split][group] for label, each in results.items()})
        for group in groups
    }
    return {group: standing for group, standing in found.items() if standing is not None}


def _place(estimate: Estimate) -> float:
    return math.inf if math.isnan(estimate.value) else -estimate.value
