"""Captions as tokens, as pycocoevalcap's scorers take them: by Stanford's PTB tokenizer in Java, or by NLTK's.

It knows texts and tokenizers; no metric.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from ...errors import EvaluationError, shown
from .extra import eval_module, folder_of
from .java import find_java, run_java

Tokens = Literal["auto", "ptb", "nltk"]
"""`ptb`: exact, needs Java. `nltk`: needs none; near on most captions. `auto`: `ptb` where Java runs, else `nltk`."""

MOST_CHARACTERS = 20_000
"""Of a caption; what is longer is cut, so that no text takes the tokenizers for ever."""

_JAR = Path("tokenizer") / "stanford-corenlp-3.4.1.jar"
_CLASS = "edu.stanford.nlp.process.PTBTokenizer"
# What str.splitlines and Java break lines at, and other control characters, of which tokenizers make nothing good
_BREAKS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff]+")
_OFFICIAL_BREAKS = re.compile("[\r\x0b\x0c\u2028\u2029]")  # at which the PTB tokenizer ends a line
_FULL_STOP = re.compile(r"(?<=[^\s.])\.(?=\s)")
_TYPOGRAPHY = str.maketrans(  # as the PTB tokenizer writes them
    {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": " -- ", "\u2014": " -- ", "\u2026": " ... "}
    | {"|": " | "}
)
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
# pycocoevalcap removes these. It names brackets in capitals, which the lowercase tokens never are: brackets stay.
_PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])


def one_line(text: str) -> str:
    """A caption on one line, at most `MOST_CHARACTERS` long: runs of line breaks and control characters are a space.

    The official tokenizer takes each of `\\r`, U+2028 and their like for the end of a caption, so that all later
    captions are compared with the wrong references.
    """
    return _BREAKS.sub(" ", text[:MOST_CHARACTERS])


def breaks_officially(text: str) -> bool:
    """Whether the official tokenizer takes part of a caption for its end. Of line breaks it replaces `\\n` alone."""
    return bool(_OFFICIAL_BREAKS.search(text))


def chosen_tokens(tokens: Tokens) -> Literal["ptb", "nltk"]:
    """Which tokenizer is meant.

    Raises:
        EvaluationError: there is no such tokenizer, or no Java for it.
    """
    if tokens not in get_args(Tokens):
        raise EvaluationError(f"tokens must be one of {', '.join(get_args(Tokens))}, got {shown(tokens)}.")
    if tokens == "auto":
        return "ptb" if find_java() else "nltk"
    if tokens == "ptb" and not find_java():
        raise EvaluationError(
            "tokens=ptb needs Java, and no `java` that runs is on the path. Install a JRE of 8 or later, or take "
            "tokens=nltk, whose figures carry that name."
        )
    return tokens


def tokenized(captions: Sequence[str], tokens: Tokens) -> list[str]:
    """The tokens of each caption, lowercase, without punctuation, with a space between them.

    Raises:
        EvaluationError: as `chosen_tokens`; or the extra `eval` is missing, or Java fails.
    """
    lines = [one_line(caption) for caption in captions]
    split = _ptb if chosen_tokens(tokens) == "ptb" else _nltk
    return [" ".join(token for token in row if token not in _PUNCTUATION) for row in split(lines)]


def _ptb(lines: Sequence[str]) -> list[list[str]]:
    if not lines:
        return []
    jar = folder_of("pycocoevalcap") / _JAR
    options: list[str | Path] = ["-cp", jar, _CLASS, "-preserveLines", "-lowerCase", "-encoding", "UTF-8"]
    return [line.split(" ") for line in run_java("The PTB tokenizer", options, lines)]


def _nltk(lines: Sequence[str]) -> list[list[str]]:
    tokenizer = eval_module("nltk.tokenize.destructive").NLTKWordTokenizer()
    rows = [tokenizer.tokenize(_FULL_STOP.sub(" .", line.translate(_TYPOGRAPHY))) for line in lines]
    return [[_BRACKETS.get(token, token.lower()) for token in row] for row in rows]
