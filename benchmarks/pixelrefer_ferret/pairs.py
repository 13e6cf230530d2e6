"""How the two scores of a review are read, and what their means give: understood, and as official scripts do it.

A pair is of answers 1 and 2, in the order in which the judge saw them.
"""

import math
import re

import numpy as np

from pixelrefer_plugin.authoring import EvaluationError, json_objects, read_number

from .config import Order

MOST = 10.0
MOST_CHARACTERS = 100_000
"""Of a review; what stands behind them is not read."""
FAILED = (-1.0, -1.0)
"""What official scripts read where they cannot; they average it with the others."""
READERS = ("pixelrefer", "gar")

_MARKS = re.compile(r"[*_`#\"']")
_NUMBER = r"[-+]?\d+(?:\.\d+)?"
_SHARE = r"(?:\s*(?:/|out of)\s*10(?:\.0+)?)?"
_PAIR = re.compile(
    rf"[\s(\[]*+(?:(?:the\s+)?scores?\b\s*+(?:are\b)?\s*+[:=]?\s*+)?(?P<one>{_NUMBER}){_SHARE}"
    rf"(?:\s*[,;|&]\s*(?:and\s+)?|\s+and\s+|\s+)(?P<two>{_NUMBER}){_SHARE}(?![\d%/]|\.\d|\s*[,;/|-]?\s*[-+]?\d)",
    re.IGNORECASE | re.ASCII,
)
_LABELLED = re.compile(
    rf"\b(?:assistant|answer|response|ai)\s*+[#(]?([12])\)?\s*+(?:scores?|rating)?\s*+(?:[:=]|is\b|-(?=\s))\s*+"
    rf"(?:scores?\b\s*+[:=]?\s*+)?(?P<value>{_NUMBER}){_SHARE}(?![\d%/]|\.\d|\s*-\s*\d)",
    re.IGNORECASE | re.ASCII,
)
_NAMED = re.compile(r"(?:assistant|answer|response|score)?_?([12])")


def read_pair(review: str) -> tuple[float, float] | None:
    """The scores of answers 1 and 2 that a judge gives, each 0 to 10; None where they are not both clear.

    They stand on the first line that is not blank, parted by blanks, a comma or a word; or behind the name of each
    answer; or in a JSON object.
    """
    text = review[:MOST_CHARACTERS]
    plain = _MARKS.sub("", text).strip()
    first = _PAIR.match(plain.split("\n", 1)[0])
    if first is not None:
        return _checked(first["one"], first["two"])
    named = _of_objects(text) or {found[1]: found["value"] for found in _LABELLED.finditer(plain)}
    return _checked(named.get("1"), named.get("2"))


def _of_objects(text: str) -> dict[str, object]:
    """What JSON objects say of answer 1 and of answer 2."""
    pairs = [
        (_NAMED.fullmatch(key.casefold().replace(" ", "_")), each[key]) for each in json_objects(text) for key in each
    ]
    return {found[1]: value for found, value in pairs if found}


def _checked(one: object, two: object) -> tuple[float, float] | None:
    first, second = read_number(one, most=MOST), read_number(two, most=MOST)
    return None if first is None or second is None else (first, second)


def official_pair(review: str, reader: str) -> tuple[float, float]:
    """The scores as an official script reads them: the first line, its commas as blanks, split at each blank.

    Args:
        review: what the judge said.
        reader: `pixelrefer`: there must be two pieces (so too Ferret's own script). `gar`: the first two count.

    Returns:
        The scores, of any size; `FAILED` where they are no numbers.
    """
    pieces = review.split("\n")[0].replace(",", " ").split(" ")
    if reader == "pixelrefer" and len(pieces) != 2:
        return FAILED
    try:
        return float(pieces[0]), float(pieces[1])
    except (ValueError, IndexError):
        return FAILED


def quotient(pairs: np.ndarray, order: Order) -> float:
    """The score of many reviews, rounded as official scripts do it: 100 times the mean of the model's scores, rounded
    to three decimals, over that of the reference, rounded too; the quotient to one decimal.

    Args:
        pairs: `(n, 2)` float64, the scores of answers 1 and 2 of each review.
        order: which of the two is the model's.

    Returns:
        About 100 where the model is as good as the reference; NaN where the reference has a mean of 0, or numbers are
        beyond all measure.

    Raises:
        EvaluationError: there are no reviews.
    """
    if not len(pairs):
        raise EvaluationError("There are no reviews whose scores could be read.")
    with np.errstate(over="ignore"):
        means = [round(mean, 3) for mean in np.asarray(pairs, dtype=np.float64).mean(axis=0).tolist()]
    model, reference = means if order == "model_first" else means[::-1]
    score = model / reference * 100 if reference else math.nan
    return round(score, 1) if math.isfinite(score) and math.isfinite(reference) else math.nan
