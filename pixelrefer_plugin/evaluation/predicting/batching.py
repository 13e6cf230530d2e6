"""Which questions are asked together: those of about the same length, those that ask for masks apart from the others.

It knows questions; no model and no files of answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ...contracts.messages import Message
from ...contracts.questions import Question
from ...contracts.samples import RegionSample
from ...errors import PixelReferError, SampleError
from ...media.images import image_hw

BATCHES_OF_WINDOW = 64
"""So many batches' questions are looked at together, and held."""

_CHARACTERS_OF_TOKEN = 4
_PIXELS_OF_TOKEN = 28 * 28
_MOST_OF_PICTURE = 4096
_TOKENS_OF_REGION = 32
_TOKENS_OF_VIDEO = 8192


@dataclass(frozen=True, eq=False)
class Asked:
    """A question with its place among all.

    Attributes:
        place: from 0.
        question: None where it cannot be read.
        length: about how many tokens it has.
        fault: why it cannot be read.
    """

    place: int
    question: Question | None
    length: int = 0
    fault: SampleError | None = None


def batches_of(questions: Sequence[Question], is_there: np.ndarray, batch_size: int) -> Iterator[list[Asked]]:
    """Batches of the questions that have no answer yet. Which ones are put together depends on all questions, not on
    those that are answered; these are left out of their batches.

    Args:
        questions: read as they are needed, some batches ahead.
        is_there: `(questions,)` bool, which have an answer.
        batch_size: questions of a batch.
    """
    window = batch_size * BATCHES_OF_WINDOW
    for start in range(0, len(questions), window):
        end = min(start + window, len(questions))
        if is_there[start:end].all():
            continue
        found = [_asked(questions, place) for place in range(start, end)]
        for kind in (None, (False, False), (True, False), (True, True)):
            alike = [each for each in found if _kind(each) == kind]
            alike.sort(key=lambda each: (-each.length, each.place))  # what takes most memory comes first
            for first in range(0, len(alike), batch_size):
                batch = [each for each in alike[first : first + batch_size] if not is_there[each.place]]
                if batch:
                    yield batch


def _kind(asked: Asked) -> tuple[bool, bool] | None:
    """Whether it asks for masks, and whether in two passes; None where it cannot be read."""
    question = asked.question
    return None if question is None else (question.segment, question.localize)


def _asked(questions: Sequence[Question], place: int) -> Asked:
    try:
        question = questions[place]
    except SampleError as fault:
        return Asked(place, None, fault=fault)
    return Asked(place, question, _length(question.asked))


def _length(sample: RegionSample) -> int:
    """About how many tokens it has: its texts, and the area of its pictures, of which headers are read at most."""
    texts = sum(map(_characters, sample.messages))
    pictures = sum(
        _tokens_of(part["image"], known) for part, known in zip(sample.media("image"), _sizes(sample), strict=False)
    )
    media = pictures + _TOKENS_OF_VIDEO * len(sample.media("video"))
    return texts // _CHARACTERS_OF_TOKEN + media + _TOKENS_OF_REGION * len(sample.regions)


def _characters(message: Message) -> int:
    content = message["content"]
    return len(content) if isinstance(content, str) else sum(len(part.get("text", "")) for part in content)


def _sizes(sample: RegionSample) -> list[tuple[int, int] | None]:
    pictures = len(sample.media("image"))
    return [*sample.media_hw[:pictures], *[None] * (pictures - len(sample.media_hw))]


def _tokens_of(picture: object, known_hw: tuple[int, int] | None) -> int:
    try:
        height, width = known_hw or image_hw(picture)  # type: ignore[arg-type]  # whatever else it is, it is refused
    except PixelReferError:  # told when it is asked
        return 0
    return min(height * width // _PIXELS_OF_TOKEN, _MOST_OF_PICTURE)
