"""SSim and SIoU: how near a named category is to the right one, in meaning and in words.

Source: Osprey (https://arxiv.org/abs/2312.10032), section 4.1, as `evaluation/eval_paco_lvis.py` in
https://github.com/alibaba-damo-academy/PixelRefer computes them. It knows texts; no model and no files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ...contracts.figures import Figure
from ...errors import EvaluationError, shown

Encode = Callable[[Sequence[str]], np.ndarray]
"""From texts to `(n, width)` embeddings of length 1, as `Tools.encode`."""

_SEPARATORS = str.maketrans(dict.fromkeys("_:,.()", " "))


def normalised_label(text: str) -> str:
    """A label as it is compared: `_ : , . ( )` become spaces, blanks at both ends go, letters are lowercase.

    Hyphens stay, and so do several blanks in a row.
    """
    return text.translate(_SEPARATORS).strip().lower()


def siou(prediction: str, answer: str, *, official: bool = False) -> float:
    """Shared words over all words of two labels, each word counted once: 0 to 1.

    Two labels that are both empty after normalisation are equal: 1.

    Args:
        prediction: what was said.
        answer: what is right.
        official: as the official script reads them: it stops at two labels that are both empty.

    Raises:
        EvaluationError: the official script stops here.
    """
    said, right = (set(normalised_label(text).split()) for text in (prediction, answer))
    if said or right:
        return len(said & right) / len(said | right)
    if official:
        raise EvaluationError(
            f"The official script divides by zero (ZeroDivisionError) where prediction and answer are both empty after "
            f"normalisation, got {shown(prediction)} and {shown(answer)}. The default reading gives 1 here."
        )
    return 1.0


def ssim(predictions: Sequence[str], answers: Sequence[str], encode: Encode, *, official: bool = False) -> np.ndarray:
    """`(n,)` cosine similarity of the embeddings of each prediction and its answer, both normalised: -1 to 1.

    Args:
        predictions: what was said.
        answers: what is right, as many.
        encode: the sentence encoder; all-MiniLM-L6-v2 for published figures.
        official: as the official script reads them: it encodes an empty prediction too, which is at 0.32 to `dog`.
            The default gives 0 to a prediction that says nothing about an answer that says something.
    """
    said, right = ([normalised_label(text) for text in texts] for texts in (predictions, answers))
    if not said:
        return np.zeros(0)
    texts = list(dict.fromkeys([*said, *right]))  # labels recur
    row = {text: index for index, text in enumerate(texts)}
    vectors = encode(texts)
    of_said, of_right = (vectors[[row[text] for text in each]] for each in (said, right))
    cosines = np.einsum("nw,nw->n", of_said, of_right).astype(np.float64)
    is_mute = np.array([not one and bool(other) for one, other in zip(said, right, strict=True)])
    return cosines if official else np.where(is_mute, 0.0, cosines)


def label_figures(
    predictions: Sequence[str | None], answers: Sequence[str], encode: Encode
) -> tuple[list[Figure], list[str]]:
    """`ssim`, `siou` and their mean `average`, sane and official, and notes on where the two readings part.

    The official script prints nothing where prediction and answer are both empty: there are no official figures then,
    and a note says so. Table 8's `LVIS_Avg` of PixelRefer fits `average`.

    Args:
        predictions: what was said, None where nothing was asked: not counted.
        answers: what is right, as many.
        encode: as in `ssim`.
    """
    sane = _figures(predictions, answers, encode, official=False)
    try:
        official = _figures(predictions, answers, encode, official=True)
    except EvaluationError as error:
        return sane, [f"There is no official figure: {error}"]
    silent = sum(text is not None and not normalised_label(text) for text in predictions)
    told = f"{silent:,} of {len(predictions):,} answers are empty: SSim 0, in the official reading up to 0.3."
    return [*sane, *official], [told] if silent else []


def _figures(
    predictions: Sequence[str | None], answers: Sequence[str], encode: Encode, *, official: bool
) -> list[Figure]:
    pairs = [(one, other) for one, other in zip(predictions, answers, strict=True) if one is not None]
    shared = np.array([siou(one, other, official=official) for one, other in pairs])
    similar = ssim([one for one, _ in pairs], [other for _, other in pairs], encode, official=official)
    counted = np.array([text is not None for text in predictions], dtype=bool)
    figures = []
    for name, measured in {"ssim": similar, "siou": shared, "average": (similar + shared) / 2}.items():
        values = np.full(len(predictions), np.nan)
        values[counted] = measured
        figures.append(Figure(name=name, values=values, reading="official" if official else ""))
    return figures
