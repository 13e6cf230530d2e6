"""Questions of labelled samples: one for each answer that a sample has, asked as a user would ask it.

It knows samples; no model and no files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from ...contracts.messages import REGION_MARKER, marker_kinds, read_turns
from ...contracts.questions import Question
from ...contracts.samples import RegionSample, medium_of
from ...data.turns import first_turns
from ...regions.region import Region, VideoRegion

MOST_FRAMES = 16
"""Of a region of a video that the same question is asked about as about others."""


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


def region_questions(sample: RegionSample, prompt: str, *, segment: bool = False) -> Iterator[Question]:
    """The same question about each region of a sample, whatever its own messages say; regions that are equal are one.

    Only the picture or video that a region lies on is shown. Ids are as those of `questions_of`. A region that is known
    on every frame of a video is shown on `MOST_FRAMES` of them, spread evenly.

    Args:
        sample: its regions count, those that an answer has masks of too.
        prompt: a text with one `<region>`.
        segment: whether the model is asked for masks.
    """
    for count, region in enumerate(dict.fromkeys(sample.regions)):
        kind, index = medium_of(region)
        shown = sample.media(kind)[index]
        place = index + (len(sample.media("image")) if kind == "video" else 0)
        asked = RegionSample(
            id=sample.id,
            messages=({"role": "user", "content": [shown, {"type": "text", "text": prompt}]},),
            regions=(_alone(region),),
            where=sample.where,
            media_hw=sample.media_hw[place : place + 1],
        )
        yield Question(id=_id(sample, count), asked=asked, segment=segment)


def _alone(region: Region | VideoRegion) -> Region | VideoRegion:
    """A region on the only picture or video that is shown."""
    return region.on_image(0) if isinstance(region, Region) else region.on_video(0).thinned(MOST_FRAMES)


def with_unique_ids(questions: Iterable[Question]) -> Iterator[Question]:
    """The questions, those whose id an earlier one has under an id of their own: `cat`, `cat~2`, `cat~3`."""
    ids = UniqueIds()
    for question in questions:
        id = ids.of(question.id)
        yield question if id == question.id else replace(question, id=id)


class UniqueIds:
    """Gives each id once: `cat`, `cat~2`, `cat~3`."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def of(self, wanted: str) -> str:
        """That id, or one made of it."""
        id = wanted
        while id in self._seen:
            self._seen[wanted] += 1
            id = f"{wanted}~{self._seen[wanted]}"
        self._seen[id] = 1
        return id


def _id(sample: RegionSample, number: int) -> str:
    return sample.id if number == 0 else f"{sample.id}#{number + 1}"
