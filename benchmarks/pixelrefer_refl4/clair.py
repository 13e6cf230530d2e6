"""How the score of CLAIR is read in a judge's answer: of one that understands it, and of the official script.

CLAIR: Chan et al., EMNLP 2023, https://github.com/davidmchan/clair. Official script: `PixelRefer/evaluation/clair/
clair.py` in https://github.com/alibaba-damo-academy/PixelRefer.
"""

import json
import re
from typing import Any, NamedTuple

from pixelrefer_plugin.authoring import read_score

MOST = 100.0
_UNKNOWN = "Unknown"
_NUMBER = re.compile(r"\d*\.?\d+")
_REASON = re.compile(r"reason(.*)", re.IGNORECASE)


def read_clair(text: str) -> float | None:
    """The score that a judge gives, 0 to 1; None where it gives none from 0 to 100, or one that may be meant otherwise.

    A number between 0 and 1 may be a share of 1 or less than a hundredth: it is not guessed which.
    """
    score = read_score(text, most=MOST)
    return None if score is None or 0 < score < 1 else score / MOST


class OfficialClair(NamedTuple):
    """What the official script makes of a judge's answer: score and reason. The score may lie outside 0 to 1."""

    score: float
    reason: Any


def official_clair(text: str) -> OfficialClair | None:
    """As the official script reads one answer: what stands between the first brace and the next, as JSON; else the
    first number anywhere, as a share of 1 where it is below 1.

    None where there is neither: the script then asks again, five times in all, and takes 0.
    """
    return _of_object(text) or _of_number(text)


def _of_object(text: str) -> OfficialClair | None:
    pieces = text.split("{", 2)
    if len(pieces) < 2:
        return None
    try:
        given = json.loads(f"{{{pieces[1].partition('}')[0]}}}")
        return OfficialClair(float(given["score"]) / MOST, given.get("reason", _UNKNOWN))
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        return None


def _of_number(text: str) -> OfficialClair | None:
    found = _NUMBER.search(text)
    if found is None:
        return None
    score = float(found[0])
    reason = _REASON.search(text)
    told = _UNKNOWN if reason is None else reason[1].replace(":", "").strip()
    return OfficialClair(score * 100 / MOST if score < 1 else score / MOST, told)
