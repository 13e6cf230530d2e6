"""Questions of labelled samples: one for each answer that a sample has, asked as a user would ask it.

It knows samples; no model and no files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from ..contracts.messages import REGION_MARKER, marker_kinds, read_turns
from ..contracts.questions import Question
from ..contracts.samples import RegionSample
from ..data.turns import first_turns


def questions_of(sample: RegionSample) -> Iterator[Question]:
    """A question for each answer of a sample, with the sample's own answers, masks included, to those before it.

    A sample that ends with a message of the user has one more, of which no right answer is known. Answers that point by
    `<region>` are passed over: no text that a model gives could be compared with them. The id of a question is the
    sample's, and behind the first one `id#2`, `id#3`, by the number of the answer.
    """
    turns = read_turns(sample.messages)
    ends = [index + 1 for index, turn in enumerate(turns) if turn.is_answer]
    for number, end in enumerate(ends):
        expected = turns[end - 1].text()
        if end > 1 and REGION_MARKER not in expected:
            answered = first_turns(sample, ends[: number + 1])
            before = len(marker_kinds(turns[: end - 1]))
            targets = answered.regions[before:]
            yield Question(
                id=_id(sample, number),
                asked=replace(answered, messages=answered.messages[:-1], regions=answered.regions[:before]),
                references=(expected.strip(),),
                targets=targets,
                segment=bool(targets),
            )
    if not turns[-1].is_answer:
        yield Question(id=_id(sample, len(ends)), asked=sample)


def with_unique_ids(questions: Iterable[Question]) -> Iterator[Question]:
    """The questions, those whose id an earlier one has under an id of their own: `cat`, `cat~2`, `cat~3`."""
    seen: dict[str, int] = {}
    for question in questions:
        id = question.id
        while id in seen:
            seen[question.id] += 1
            id = f"{question.id}~{seen[question.id]}"
        seen[id] = 1
        yield question if id == question.id else replace(question, id=id)


def _id(sample: RegionSample, number: int) -> str:
    return sample.id if number == 0 else f"{sample.id}#{number + 1}"
