"""Readers of answers to a multiple choice, and of yes and no: the sane reading, and those of official code by name.

They know texts; no benchmark and no files. Answers may be any text, of any length.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal

from ...errors import EvaluationError, did_you_mean, shown

ChoiceReading = Literal["default", "pixelrefer", "unipixel", "mvbench"]
YesNoReading = Literal["default", "pope"]
UNIPIXEL: Final = "unipixel"

_LETTERS = string.ascii_uppercase
_LABELLED = re.compile(r"\s*\(?([A-Za-z])[).:](?:\s+|$)(.*)", re.DOTALL)


def option_texts(options: Sequence[str]) -> dict[str, str]:
    """The letter of each option and its text, in order: `(A) a lamp`, `A. a lamp` and `a lamp` are option A.

    Options have the letters that they are labelled with, where all have a label.

    Raises:
        EvaluationError: there is no option, or there are more than 26.
    """
    _require_countable(options)
    labelled = [_LABELLED.match(option) for option in options]
    letters = [each[1].upper() for each in labelled if each]
    if sorted(letters) == list(_LETTERS[: len(options)]):
        return {letter: each[2].strip() for letter, each in zip(letters, labelled, strict=True) if each}
    return {letter: option.strip() for letter, option in zip(_LETTERS, options, strict=False)}


def read_choice(answer: str, options: Sequence[str], reading: ChoiceReading = "default") -> str | None:
    """The letter of the option that an answer chooses, a capital; None where it chooses none, or several.

    Readings:

    - `default`: a letter that is offered, in any usual dress (`B`, `(b)`, `B.`, `The answer is (B).`, `**B**`), or the
      text of one option. A word that begins with a letter is no letter, and an article is none.
    - `pixelrefer`: PixelRefer's `evaluation/eval_videorefer_q_bench.py`: a capital in parentheses, else a capital
      before a parenthesis, else the first character that is no full stop. It may be a letter that is not offered.
    - `unipixel`: UniPixel's `unipixel/eval/eval_general.py`: of what stands before the first space, parentheses and
      full stops apart, the first character, where it is offered.
    - `mvbench`: PixelRefer's `evaluation/pixelrefer/infer_mvbench.py`: the first capital that is offered, anywhere in
      the answer, else the first option whose text is in it, else the third.

    Args:
        answer: the model's.
        options: their texts, with labels or without, in order; 1 to 26.
        reading: which one.

    Raises:
        EvaluationError: the official code stops at such an answer; never in the default reading. Or there is no such
            reading, or there are no options.
    """
    _require_countable(options)
    return _named(reading, _CHOICE_READERS)(answer, options)


def read_yes_no(answer: str, reading: YesNoReading = "default") -> str | None:
    """`yes` or `no`, as an answer says it; None where it says neither.

    Readings:

    - `default`: the first of the words yes and no; without them no where the answer denies (`isn't`, `not`), yes where
      it affirms (`there is`).
    - `pope`: PixelRefer's `evaluation/eval_pope.py`: no where `No`, `not` or `no` is a word of what stands before the
      first full stop, commas apart; else yes.

    Raises:
        EvaluationError: there is no such reading.
    """
    return _named(reading, _YES_NO_READERS)(answer)


def _require_countable(options: Sequence[str]) -> None:
    if isinstance(options, str) or not 1 <= len(options) <= len(_LETTERS):
        raise EvaluationError(f"A multiple choice has a list of 1 to 26 options, got {shown(options)}.")


def _named(reading: str, readers: dict[str, Callable[..., str | None]]) -> Callable[..., str | None]:
    if reading not in readers:
        near = did_you_mean(reading, readers)
        known = ", ".join(readers)
        raise EvaluationError(f"There is no reading {shown(reading)} of such answers.{near} Known: {known}.")
    return readers[reading]


# -- the default reading of a choice -----------------------------------------------------------------------

_BEFORE = r"(?<![0-9A-Za-z\u00c0-\u024f])(?<![A-Za-z][.'-])"  # no part of a Latin word; may follow a Chinese one
_AFTER = r"(?![0-9A-Za-z\u00c0-\u024f]|['-][A-Za-z])"
_CLOSED = r"(?=[)\]}>.:,\"'\n]|$)"
_NO_ARTICLE = r"(?![AI] (?!(?:is|because|since|or|and)\b)[a-z])"  # `A lamp`, `I think`
_LETTER = rf"{_NO_ARTICLE}(?:[A-Z]{_AFTER}|[a-z]{_CLOSED})"
_DRESS = r"[\s:=\"'(\[{<-]{0,6}"

_LONE = re.compile(r"[\W_]*([A-Za-z])[\W_]*")
_LEADING = re.compile(r"[^\w]*([A-Za-z])(?:[)\].:,]|\n|$|(?<=[A-Z]) (?:is|because|since)\b)")
_ENCLOSED = re.compile(rf"[(\[{{]\s?([A-Za-z])\s?[)\]}}]|{_BEFORE}([A-Za-z])\)")
_CAPITAL = re.compile(rf"{_BEFORE}{_NO_ARTICLE}([A-Z]){_AFTER}")
_DECLARED = tuple(
    re.compile(
        rf"\b(?:(?i:{word}))(?: (?:choice|option|letter))?(?: (?:is|are|would be|should be|must be))?"
        rf"{_DRESS}(?:(?i:option|choice|letter) {_DRESS})?({_LETTER})"
    )
    for word in ("final answer", "answer", "options?|choices?")
)
"""What declares a letter, the most certain first."""
_JOINED = re.compile(
    r"[\s)\]}>\"']{0,4}(?:,|/|&|\+|or\b|and\b| ?(?=[(\[]))"
    rf"[\s(\[{{<\"']{{0,4}}(?:or |and )?[(\[{{<\"']{{0,2}}({_LETTER})"
)
_DENYING = re.compile(
    r"(?:\b(?:not|nor|neither|except|than|instead of)|n't)(?: (?:an?|the|option|choice|answer))*[\W_]*$", re.IGNORECASE
)
_ARTICLE = re.compile(r"^(?:an?|the) (?=.)")
_MOST_DENYING = 40  # characters before what is denied


def _default_choice(answer: str, options: Sequence[str]) -> str | None:
    texts = option_texts(options)
    said = _plain(answer)
    stages = (_whole, _declared, _leading, _enclosed, _capitals, _contained)
    for stage in stages:
        found = {letter for letter in stage(said, texts) if letter in texts}
        if found:
            return found.pop() if len(found) == 1 else None
    return None


def _plain(answer: str) -> str:
    """An answer without its thoughts, markup and the like; blanks in a row are one."""
    said = unicodedata.normalize("NFKC", answer.rpartition("</think>")[2])
    said = re.sub(r"\\(?:boxed|text(?:bf)?|mathrm)|[*`$]|</?[A-Za-z]{2,12}>", "", said.replace("\u2019", "'"))
    lines = (" ".join(line.split()) for line in said.split("\n"))
    return "\n".join(line for line in lines if line)


def _whole(said: str, texts: dict[str, str]) -> Iterable[str]:
    """The answer is nothing but a letter, or an option's text."""
    if alone := _LONE.fullmatch(said):
        return [alone[1].upper()]
    return [letter for letter, text in texts.items() if _folded(text) and _folded(text) == _folded(said)]


def _declared(said: str, texts: dict[str, str]) -> Iterable[str]:
    """`The answer is B`, `Option B`."""
    for declaring in _DECLARED:
        found = [letter for each in declaring.finditer(said) for letter in _with_joined(said, each)]
        if any(letter in texts for letter in found):
            return found
    return []


def _leading(said: str, texts: dict[str, str]) -> Iterable[str]:
    """The answer begins with a label, `B. a rope`, and is no list of all options."""
    label = _LEADING.match(said)
    if label is None:
        return []
    listed = set(_enclosed(said, texts))
    return listed if listed >= set(texts) else _with_joined(said, label)


def _enclosed(said: str, texts: dict[str, str]) -> Iterable[str]:
    """`(B)` anywhere."""
    found = (each for each in _ENCLOSED.finditer(said) if not _is_denied(said, each.start()))
    return [(each[1] or each[2]).upper() for each in found]


def _capitals(said: str, texts: dict[str, str]) -> Iterable[str]:
    """A capital that stands for itself, anywhere."""
    return [each[1] for each in _CAPITAL.finditer(said) if not _is_denied(said, each.start())]


def _contained(said: str, texts: dict[str, str]) -> Iterable[str]:
    """The text of an option, without its article, anywhere; of `a car` and `a car park` the longer one."""
    folded = _folded(said)
    bare = {letter: _ARTICLE.sub("", _folded(text)) for letter, text in texts.items()}
    found = {letter: text for letter, text in bare.items() if _has(folded, text)}
    return [letter for letter, text in found.items() if not any(text in other for other in {*found.values()} - {text})]


def _with_joined(said: str, found: re.Match[str]) -> list[str]:
    """The letter of a match, and the one that is joined to it: `A or B`."""
    joined = _JOINED.match(said, found.end(1))
    return [found[1].upper(), *([joined[1].upper()] if joined else [])]


def _is_denied(said: str, start: int) -> bool:
    return bool(_DENYING.search(said[max(0, start - _MOST_DENYING) : start]))


def _has(said: str, text: str) -> bool:
    """Whether words contain others, in a place where they are not denied."""
    places = re.finditer(rf"(?<!\w){re.escape(text)}(?!\w)", said) if text else ()
    return any(not _is_denied(said, each.start()) for each in places)


def _folded(text: str) -> str:
    return " ".join(re.sub(r"^[\W_]+|[\W_]+$", "", text.casefold()).split())


# -- official readings of a choice -------------------------------------------------------------------------


def _pixelrefer_choice(answer: str, options: Sequence[str]) -> str | None:
    found = re.search(r"\(([A-Z])\)", answer) or re.search(r"([A-Z])\)", answer)
    read = found[1] if found else _first(answer.replace(".", ""), answer, "PixelRefer's eval_videorefer_q_bench.py")
    return next((letter for letter in _LETTERS if letter.lower() == read.lower()), None)


def _unipixel_choice(answer: str, options: Sequence[str]) -> str | None:
    word = answer.lower().split(" ")[0].translate({ord(each): None for each in "()."})
    read = _first(word, answer, "UniPixel's eval_general.py")
    return next((letter for letter in _LETTERS[: len(options)] if letter.lower() == read), None)


def _mvbench_choice(answer: str, options: Sequence[str]) -> str | None:
    letters = _LETTERS[: len(options)]
    said = answer.replace("answer", "").replace("Answer", "")
    at = next((place for place, character in enumerate(said) if character in letters), None)
    if at is None:
        texts = [option.strip().strip(".").lower() for option in options]
        return next((letter for letter, text in zip(letters, texts, strict=True) if text in said.lower()), _LETTERS[2])
    before, after = said[:at], said[at + 1 :]
    dress = before[len(before.rstrip("(, ")) :], after[: len(after) - len(after.lstrip("), "))]
    read = f"{dress[0]}{said[at]}{dress[1]}".strip().strip("()")
    return read if read in letters else _LETTERS[2]


def _first(text: str, answer: str, code: str) -> str:
    if not text:
        raise EvaluationError(
            f"{code} stops with an IndexError at the answer {shown(answer)}: it takes the first character of nothing. "
            "The default reading takes it for an answer that chooses nothing."
        )
    return text[0]


_CHOICE_READERS: dict[str, Callable[..., str | None]] = {
    "default": _default_choice,
    "pixelrefer": _pixelrefer_choice,
    "unipixel": _unipixel_choice,
    "mvbench": _mvbench_choice,
}


# -- yes and no --------------------------------------------------------------------------------------------

_YES_OR_NO = re.compile(r"\b(?:yes ?(?:/|or) ?no)\b", re.IGNORECASE)
_YES_NO = re.compile(r"\b(?:(yes|yeah|yep)|(no|nope))\b", re.IGNORECASE)
_DENIES = re.compile(r"\b(?:not|none|cannot|without|false|incorrect)\b|n't\b", re.IGNORECASE)
_AFFIRMS = re.compile(r"\b(?:there (?:is|are)|there's|true|correct|i (?:can )?see)\b", re.IGNORECASE)


def _default_yes_no(answer: str) -> str | None:
    said = _YES_OR_NO.sub(" ", _plain(answer))
    if found := _YES_NO.search(said):
        return "yes" if found[1] else "no"
    if _DENIES.search(said):
        return "no"
    return "yes" if _AFFIRMS.search(said) else None


def _pope_yes_no(answer: str) -> str:
    words = answer.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


_YES_NO_READERS: dict[str, Callable[..., str | None]] = {"default": _default_yes_no, "pope": _pope_yes_no}
