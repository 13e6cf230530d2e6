"""What a finished run should be doubted for: a loss that did not fall, answers that are all alike, masks that miss.

It reads the log and the answers; it knows no model and no files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import shown
from ..evaluation.answers import ScoredAnswer, normalized

_FEWEST_STEPS = 20  # below them a loss says nothing
_FEWEST_ANSWERS = 4
_NEAR_CHANCE = 0.9  # of the loss of guessing


def warnings_of(
    log_history: Sequence[Mapping[str, Any]], answers: Sequence[ScoredAnswer], *, vocab_size: int
) -> list[str]:
    """What to doubt, a sentence each.

    Args:
        log_history: of the trainer.
        answers: to the held-out questions; may be empty.
        vocab_size: how many tokens the decoder chooses from.
    """
    return [*_of_loss(log_history, vocab_size), *_of_texts(answers), *_of_masks(answers)]


def _of_loss(log_history: Sequence[Mapping[str, Any]], vocab_size: int) -> Iterator[str]:
    entries = [entry for entry in log_history if "loss" in entry]
    if not entries or entries[-1].get("step", 0) < _FEWEST_STEPS:
        return
    losses = [entry.get("lm_loss", entry["loss"]) for entry in entries]  # of the text alone
    chance = math.log(vocab_size)
    if losses[-1] >= _NEAR_CHANCE * chance:
        yield (
            f"the last training loss is {losses[-1]:.3g}, and guessing among {vocab_size:,} tokens has {chance:.3g}: "
            "nothing was learnt. Look at the samples, and at the learning rates."
        )
    elif len(losses) > 1 and losses[-1] >= losses[0]:
        yield (
            f"the training loss did not fall: it was {losses[0]:.3g} at first and is {losses[-1]:.3g}. Look at the "
            "learning rates, and whether the samples can be learnt."
        )


def _of_texts(answers: Sequence[ScoredAnswer]) -> Iterator[str]:
    given = [normalized(answer.given) for answer in answers]
    expected = {normalized(answer.question.expected) for answer in answers}
    if given and not any(given) and any(expected):
        yield f"all {len(given):,} held-out answers are empty, or punctuation alone."
    elif len(given) >= _FEWEST_ANSWERS and len(set(given)) == 1 and len(expected) > 1:
        yield (
            f"all {len(given):,} held-out answers are the same, {shown(answers[0].given)}, where {len(expected):,} "
            "different ones are expected: the regions may not be looked at."
        )


def _of_masks(answers: Sequence[ScoredAnswer]) -> Iterator[str]:
    overlaps = [score.overlap for answer in answers for score in answer.scores if score.overlap.union]
    if overlaps and not any(each.intersection for each in overlaps):
        exact = sum(answer.is_exact for answer in answers if answer.scores)
        texts = f", though {exact:,} of the texts are exact" if exact else ""
        yield (
            f"none of the {len(overlaps):,} held-out masks has a pixel of the expected one: they are empty or "
            f"elsewhere{texts}."
        )
