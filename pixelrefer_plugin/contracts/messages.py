"""Chat messages, the markers in their texts, and what a conversation is once it is read.

A read conversation has placeholders in its texts for regions and for the answers of the assistant; its `slots`
say which is which, in order. It knows no tokenizer and no model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import PromptError, did_you_mean, shown

REGION_MARKER = "<region>"
"""What stands for the next region in a user's text."""

MASK_MARKER = "<seg>"
"""What stands for the next region in an assistant's answer, where its mask is meant."""

MOST_DIGITS = 9
"""Of an object's id."""

MARKER = re.compile(rf"(?:\[(?P<id>[0-9]{{1,{MOST_DIGITS}}})\] ?)?(?P<kind>{REGION_MARKER}|{MASK_MARKER})")
"""Either of them, with the number in brackets that may stand before it."""

CALLED_ID = re.compile(r"\[([0-9]+)\]")
"""A number in brackets: what calls an object. With blanks, `[ 12 ]`, it is text like any other."""

PLACEHOLDER = "<|region_pad|>"
"""The special token that object tokens replace, where the tokenizer has none of its own for that. It never reaches
the decoder."""

PART_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "text": (),
    "image": ("min_pixels", "max_pixels"),
    "video": ("fps", "times_s", "sample_fps", "nframes", "max_frames", "video_start", "video_end"),
}
"""The keys that a content part may have beside `type` and the one of its kind, by that kind."""

# Keys that messages for other programs carry, which would change the question if they were passed over.
_AREA_OF_VIDEO = "Size the frames by the processor's own options, videos_kwargs={...}, or leave it out."
_SIDES = "Bound a picture's area with max_pixels and min_pixels, or resize it first."
_HINTS = {
    **dict.fromkeys(("resized_height", "resized_width"), _SIDES),
    **dict.fromkeys(("total_pixels", "max_pixels", "min_pixels"), _AREA_OF_VIDEO),
    "min_frames": "Give nframes, or sampling=FrameSampling(...).",
}

Message = Mapping[str, Any]
Conversation = Sequence[Message]


def read_texts(conversation: Conversation) -> list[tuple[str, str]]:
    """Role and text of each message, the texts of its parts joined.

    Raises:
        PromptError: a message is malformed, or there is none.
    """
    return [(turn.role, turn.text()) for turn in read_turns(conversation)]


def read_turns(conversation: Conversation) -> list[Turn]:
    """The messages of a conversation, checked; raises as `read_texts`."""
    if isinstance(conversation, str | bytes | Mapping) or not isinstance(conversation, Iterable):
        raise PromptError(f"a conversation must be a list of messages, got {shown(conversation)}.")
    turns = [_turn(message) for message in conversation]
    if not turns:
        raise PromptError("the conversation has no message.")
    return turns


@dataclass(frozen=True)
class Turn:
    """One message: its role and its parts, checked."""

    role: str
    parts: Sequence[Mapping[str, Any]]

    @property
    def is_answer(self) -> bool:
        """Whether the assistant says it."""
        return self.role == "assistant"

    def text(self) -> str:
        """Its texts, joined."""
        return "".join(part["text"] for part in self.parts if part["type"] == "text")

    def markers(self) -> Iterator[re.Match[str]]:
        """Its markers in order, each with the number in brackets before it, where there is one."""
        texts = [self.text()] if self.is_answer else [part["text"] for part in self.parts if part["type"] == "text"]
        return (found for text in texts for found in MARKER.finditer(text))


def asked(text: str) -> Turn:
    """A user's message that is a text alone."""
    return Turn("user", [{"type": "text", "text": text}])


def marker_kinds(turns: Iterable[Turn]) -> list[str]:
    """The markers of messages in order, `<region>` or `<seg>` each."""
    return [marker["kind"] for turn in turns for marker in turn.markers()]


def marker_mismatch(kinds: Sequence[str], num_regions: int, *, where: str = "its texts have") -> str:
    """What is wrong where there are more or fewer markers than regions; empty where there are as many.

    Args:
        kinds: the markers, as `marker_kinds` gives them.
        num_regions: how many regions were given with them.
        where: what has them, the beginning of the sentence.
    """
    if len(kinds) == num_regions:
        return ""
    num_masks = kinds.count(MASK_MARKER)
    found = f"{len(kinds) - num_masks} {REGION_MARKER}" + (f" and {num_masks} {MASK_MARKER}" if num_masks else "")
    given = f"{num_regions} {'region was' if num_regions == 1 else 'regions were'} given"
    each = f"{REGION_MARKER} and {MASK_MARKER}" if num_masks else REGION_MARKER
    return f"{where} {found} but {given}. Each {each} stands for one region, in order."


def require_unicode(text: str) -> None:
    """Refuse what no tokenizer takes: half a character, as bytes of another encoding leave it.

    Raises:
        PromptError: there is one.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PromptError(
            f"the text {shown(text)} is no Unicode: {error.reason}. Is it in another encoding?"
        ) from error


def meant_itself(called: str) -> str:
    """What to do, for a message, where a number in brackets is to call nothing."""
    return f"Where the number itself is meant, write [ {called} ]."


def _turn(message: Any) -> Turn:
    if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
        raise PromptError(f"a message must have 'role' and 'content', got {shown(message)}.")
    role, content = message["role"], message["content"]
    if not isinstance(role, str):
        raise PromptError(f"a message's role must be a text such as 'user', got {shown(role)}.")
    if others := [key for key in _present(message) if key not in ("role", "content")]:
        raise PromptError(f"a message has 'role' and 'content' alone, got {shown(others[0])} too. Leave it out.")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, Sequence) or not all(isinstance(part, Mapping) for part in content):
        raise PromptError(f"a message's content must be text or a list of parts, got {shown(content)}.")
    parts = [_present(part) for part in content]
    for part in parts:
        _check_part(part, role)
    return Turn(role, parts)


def _present(given: Mapping[str, Any]) -> dict[str, Any]:
    """What is there: tables of data give every part all keys, None where one has no value."""
    return {key: value for key, value in given.items() if value is not None}


def _check_part(part: Mapping[str, Any], role: str) -> None:
    kind = part.get("type")
    if kind != "text" and role == "assistant":
        raise PromptError(f"an assistant's message must be text, got {shown(part)}.")
    if not isinstance(kind, str) or kind not in PART_OPTIONS or kind not in part:
        raise PromptError(f"a content part must be text, image or video with a key of that name, got {shown(part)}.")
    for key in part:
        if key not in ("type", kind, *PART_OPTIONS[kind]):
            raise _unknown_key(key, kind)
    if kind == "text" and not isinstance(part["text"], str):
        raise PromptError(f"a text part must be a string, got {shown(part['text'])}.")
    if kind == "text":
        require_unicode(part["text"])


def _unknown_key(key: Any, kind: str) -> PromptError:
    known = PART_OPTIONS[kind]
    takes = f"It takes {', '.join(known)}." if known else "It takes none."
    hint = _HINTS.get(key, did_you_mean(key, known) or "Leave it out.").strip() if isinstance(key, str) else ""
    return PromptError(f"a content part with {kind} has no option {shown(key)}. {takes} {hint}".strip())
