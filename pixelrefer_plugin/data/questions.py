"""Default questions for annotations that come without any, by task, and the choice among them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

from ..contracts import check_field
from ..messages import REGION_MARKER

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


def choose(questions: Sequence[str], key: object) -> str:
    """One of the questions, the same whenever it is asked for with an equal key, on any machine."""
    return questions[zlib.crc32(str(key).encode()) % len(questions)]


def checked_questions(config: Any, name: str) -> tuple[str, ...]:
    """The questions of a config's field, a text or several, for its `__post_init__`.

    Raises:
        PixelReferError: there are none, or one does not ask about exactly one region.
    """
    given = getattr(config, name)
    questions = (given,) if isinstance(given, str) else tuple(given)
    is_sound = bool(questions) and all(isinstance(each, str) and each.count(REGION_MARKER) == 1 for each in questions)
    check_field(is_sound, config, name, f"a question with one {REGION_MARKER}, or several such")
    return questions
