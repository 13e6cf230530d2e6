"""Default questions for annotations that come without any, by task, and the choice among them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

from ..contracts.messages import MASK_MARKER, REGION_MARKER, asked, marker_kinds
from ..contracts.options import check_field

RECOGNITION_QUESTIONS = (
    "What is <region>?",
    "What kind of object is <region>?",
    "Name the object in <region>.",
    "Which category does <region> belong to?",
    "What do you see in <region>?",
)
"""Answered by a category."""

PHRASE_QUESTIONS = (
    "Describe <region> in a short phrase.",
    "Give a short description of <region> that tells it apart from the rest.",
    "How would you refer to <region> in a few words?",
    "Which object is <region>? Answer with a short phrase.",
    "Briefly, what is <region>?",
)
"""Answered by a phrase."""

CAPTION_QUESTIONS = (
    "Describe <region> in detail.",
    "Please give a detailed description of <region>.",
    "What can you tell me about <region>? Go into detail.",
    "Write a thorough description of <region>.",
    "Look closely at <region> and describe everything you notice about it.",
)
"""Answered by a few sentences."""

SEGMENT_QUESTIONS = (
    "Segment {phrase}.",
    "Please segment {phrase}.",
    "Can you give me the mask of {phrase}?",
    "Where is {phrase}? Answer with its mask.",
    "Find {phrase} and segment it.",
)
"""Answered by the mask of what a phrase says."""

SEGMENT_EVERY_QUESTIONS = (
    "Segment every {name}.",
    "Please segment each {name} in this picture.",
    "Can you give me the mask of every {name}?",
    "Where is any {name}? Answer with masks.",
    "Find every {name} and segment it.",
)
"""Answered by the masks of all objects of a category."""


def choose(questions: Sequence[str], key: object) -> str:
    """One of the questions, the same whenever it is asked for with an equal key, on any machine."""
    return questions[zlib.crc32(str(key).encode()) % len(questions)]


def checked_questions(config: Any, name: str, *, num_shown: int = 1) -> tuple[str, ...]:
    """The questions of a config's field, a text or several, for its `__post_init__`.

    Args:
        config: the config.
        name: of the field.
        num_shown: how many regions each question is about: one, or none where the answer is a mask.

    Raises:
        PixelReferError: there are none, or one does not ask about so many regions.
    """
    given = getattr(config, name)
    questions = (given,) if isinstance(given, str) else tuple(given)
    is_sound = bool(questions) and all(
        isinstance(each, str) and marker_kinds([asked(each)]) == [REGION_MARKER] * num_shown for each in questions
    )
    rule = f"with one {REGION_MARKER}" if num_shown else f"without {REGION_MARKER} and {MASK_MARKER}"
    check_field(is_sound, config, name, f"a question {rule}, or several such")
    return questions
