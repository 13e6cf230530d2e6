"""Reads `refl4_gt.json`: condensed descriptions, COCO's captions by position, and whether these are the right ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pixelrefer_plugin.authoring import DataError, read_json, shown

_OTHER = "It is from another version than the records, or made from their parts in another order."


def read_truth(path: Path, captions: Sequence[str]) -> list[str]:
    """The phrase of each record, found by its id, which is the position of the record.

    The official scripts make the ids from a listing of files without an order. So phrases must also share more words
    with the captions of their records than with those of the records that follow.

    Args:
        path: of the file.
        captions: of the records, in their order.

    Raises:
        DataError: it cannot be read, lacks a phrase, has one too many, or is in another order.
    """
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise DataError(f"Cannot read '{path}': {error}.") from error
    by_id: dict[str, str] = {}
    for number, entry in enumerate(_entries(found, path)):
        id, phrase = str(entry.get("image_id")), entry.get("caption")
        if not isinstance(phrase, str) or id in by_id:
            why = "a second phrase of it" if id in by_id else f"its 'caption' is {shown(phrase)}"
            raise DataError(
                f"'{path}', annotation {number}, 'image_id' {shown(id)}: {why}. Expected one text for each."
            )
        by_id[id] = phrase.strip()
    missing = [id for id in map(str, range(len(captions))) if id not in by_id]
    if missing or len(by_id) != len(captions):
        lacking = f", and none with 'image_id' {missing[0]}" if missing else ""
        raise DataError(f"'{path}' has {len(by_id):,} phrases for {len(captions):,} records{lacking}. {_OTHER}")
    phrases = [by_id[str(index)] for index in range(len(captions))]
    shifted = [*captions[1:], *captions[:1]]
    if _shared(phrases, captions) < _shared(phrases, shifted):
        raise DataError(
            f"The phrases of '{path}' fit the descriptions that follow theirs better than their own. {_OTHER}"
        )
    return phrases


def _entries(found: Any, path: Path) -> list[Mapping[str, Any]]:
    entries = found.get("annotations") if isinstance(found, Mapping) else None
    if not isinstance(entries, list) or not all(isinstance(each, Mapping) for each in entries):
        raise DataError(f"'{path}' must hold an object with a list 'annotations' of objects, got {shown(found)}.")
    return entries


def _shared(phrases: Sequence[str], captions: Sequence[str]) -> int:
    """How many words of phrases are in their captions."""
    pairs = zip(phrases, captions, strict=True)
    return sum(len(set(phrase.lower().split()) & set(caption.lower().split())) for phrase, caption in pairs)
