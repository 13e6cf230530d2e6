"""What is given for a path and is none: addresses, and paths as other systems and addresses write them."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterator
from urllib.parse import unquote

from ..errors import shown

_LONGEST = 300  # characters that a message shows as they are
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")

# What people write for a path that is called otherwise, most certain first.
_READINGS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("%20 and the like are escapes of addresses", unquote),
    ("a backslash parts no folders here", lambda text: text.replace("\\", "/")),
    ("backslashes before blanks are a shell's", lambda text: re.sub(r"\\(.)", r"\1", text)),
    ("'~' was not replaced by the shell", os.path.expanduser),
    ("blanks or quotes stand around it", lambda text: text.strip(" \t\r\n'\"")),
    ("its letters are composed otherwise", lambda text: unicodedata.normalize("NFC", text)),
    ("its letters are composed otherwise", lambda text: unicodedata.normalize("NFD", text)),
)


def path_shown(path: str | os.PathLike[str]) -> str:
    """A path in quotes, as messages name it; shortened where it is none but a long text."""
    text = str(path)
    return f"'{text}'" if len(text) <= _LONGEST and text.isprintable() else shown(text)


def other_readings(text: str) -> Iterator[tuple[str, str]]:
    """The paths that a text may be meant for, and why it is written otherwise."""
    for why, read in _READINGS:
        path = read(text)
        if path != text and path:
            yield why, path


def why_no_path(text: str) -> str:
    """Why a text cannot be the path of a picture or video, and what to do; nothing where it can."""
    if text[:5].lower() == "data:" and ("," in text or ";" in text):
        return "it is the file itself, as a data: address, and not its path. Write it to a file, and give its path"
    scheme = _SCHEME.match(text)
    if scheme is None:
        return ""
    if scheme[1].lower() == "file":
        path = unquote(text[scheme.end() :])
        return f"it is an address of a file. Give its path, {path[:200]!r}"
    return f"it is an address ({scheme[1]}://), and nothing is loaded from the network. Download it, and give its path"


def why_missing(path: str | os.PathLike[str]) -> str:
    """A sentence on why a file may not be found under a path that is written in another way; else nothing."""
    text = os.fspath(path)
    if not isinstance(text, str):
        return ""
    if reason := why_no_path(text):
        return f" {reason[0].upper()}{reason[1:]}."
    if "\\" in text and os.sep == "/":
        with_slashes = text.replace("\\", "/")
        found = ", which is there" if os.path.exists(with_slashes) else ""
        return f" It is written with backslashes, as in Windows. Write '/': {with_slashes[-200:]!r}{found}."
    for why, path in other_readings(text):
        if os.path.exists(path):
            return f" {why[0].upper()}{why[1:]}. Write {path[-200:]!r}, which is there."
    return ""
