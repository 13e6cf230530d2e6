"""Draws held-out answers on one sheet, some right and some wrong: region, question, what was expected and given.

It knows scored answers and pixels; no model and no files but those that the questions show.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

import numpy as np
from PIL import Image

from ..contracts.messages import MASK_MARKER
from ..data.preview import Pen, Run, arranged, pictures_of, plates, stacked, with_plates
from ..errors import PixelReferError, text_of
from .answers import ScoredAnswer
from .scoring.groups import regions_asked_about

_MOST_LINES = 6  # of a text
_GOOD_IOU = 0.5
_GREEN, _RED, _PALE = (0, 120, 60), (190, 0, 0), (110, 110, 110)


def draw_answers(answers: Sequence[ScoredAnswer], *, right: int = 4, wrong: int = 8) -> Image.Image | None:
    """A picture of some answers, spread evenly over those that are right and those that are wrong, wrong ones first.

    An answer is right that says what is expected, and whose masks overlap those expected with an IoU of 0.5 on average.
    Where there are fewer of one kind, more of the other are drawn.

    Args:
        answers: all of them.
        right: how many right ones.
        wrong: how many wrong ones.

    Returns:
        The picture; None where there are no answers.
    """
    if not answers:
        return None
    good = [answer for answer in answers if _is_right(answer)]
    bad = [answer for answer in answers if not _is_right(answer)]
    most = right + wrong
    chosen_bad = _spread(bad, max(wrong, most - len(good)))
    chosen_good = _spread(good, most - len(chosen_bad))
    pen = Pen.load(None)
    tiles = [_tile(answer, pen) for answer in (*chosen_bad, *chosen_good)]
    title = (
        f"Held-out answers: {len(good):,} of {len(answers):,} right ({len(good) / len(answers):.1%}). Drawn: "
        f"{len(chosen_bad)} of {len(bad):,} wrong ones, {len(chosen_good)} of {len(good):,} right ones"
    )
    return arranged(tiles, title, pen)


def _is_right(answer: ScoredAnswer) -> bool:
    ious = [each.overlap.iou for each in answer.scores]
    return answer.is_exact and (not ious or fmean(ious) >= _GOOD_IOU)


def _spread(answers: Sequence[ScoredAnswer], most: int) -> list[ScoredAnswer]:
    places = np.linspace(0, len(answers) - 1, min(most, len(answers))).round().astype(int)
    return [answers[place] for place in places]


# -- tiles -------------------------------------------------------------------------------------------------


def _tile(answer: ScoredAnswer, pen: Pen) -> Image.Image:
    question = answer.question
    shown = () if regions_asked_about(question) is question.targets else regions_asked_about(question)
    given = [each for each in answer.answer.objects if each is not None]
    labels = [
        *_numbered("", len(shown)),
        *_numbered("expected", len(question.targets)),
        *_numbered("given", len(given)),
    ]
    head = pen.wrapped([Run(f"{question.asked.where}   id {question.id}".strip(), _PALE)], most=2)
    try:
        pictures = pictures_of(question.asked, [*shown, *question.targets, *given], labels, pen)
    except (PixelReferError, OSError) as error:
        pictures = None
        head += pen.wrapped([Run(f"The picture cannot be shown: {text_of(error)}", _RED)], most=3)
    return stacked(head, pictures, list(_texts(answer, labels, len(shown), pen)), pen)


def _numbered(kind: str, count: int) -> list[str]:
    """`1`, `2` of the regions that are asked about; `expected`, or `expected 1`, `expected 2` of several."""
    if kind and count == 1:
        return [kind]
    return [f"{kind} {number}".strip() for number in range(1, count + 1)]


def _texts(answer: ScoredAnswer, labels: Sequence[str], num_shown: int, pen: Pen) -> Iterator[list[Run]]:
    """Question, expected and given answer, every marker with the label of its region."""
    marks = list(plates(labels))
    num_expected = len(answer.question.targets)
    asked, expected = marks[:num_shown], marks[num_shown : num_shown + num_expected]
    objects = iter(marks[num_shown + num_expected :])
    given = [next(objects) if each is not None else Run(MASK_MARKER) for each in answer.answer.objects]
    if answer.turn:
        yield from pen.wrapped([Run(f"question {answer.turn + 1} of its conversation", _PALE)])
    yield from _lines("asked: ", answer.question.text, asked, pen)
    yield from _lines("expected: ", answer.question.expected, expected, pen)
    said = answer.given if answer.given.strip() else "(nothing)"
    yield from _lines("given: ", said, given, pen, _GREEN if _is_right(answer) else _RED)
    if answer.scores:
        overlaps = ", ".join(f"{each.overlap.iou:.2f}" for each in answer.scores)
        yield from pen.wrapped([Run(f"IoU {overlaps}", _PALE)])


def _lines(
    what: str, text: str, marks: Sequence[Run], pen: Pen, fill: tuple[int, int, int] | None = None
) -> list[list[Run]]:
    runs = list(with_plates(text, iter(marks)))
    coloured = [run if fill is None or run.plate is not None else run._replace(fill=fill) for run in runs]
    return pen.wrapped([Run(what, _PALE), *coloured], most=_MOST_LINES)
