"""What is given for a path and is none: addresses, and paths as other systems and addresses write them."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")


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
    plain = unquote(text)
    if plain != text and os.path.exists(plain):
        return f" It is written as in an address, with % for some characters. Write {plain[-200:]!r}, which is there."
    return ""
