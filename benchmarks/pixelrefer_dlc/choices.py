"""Which choice a judge's answer is, as the official scripts read it. The sane reading is `read_choice` of the host."""

from collections.abc import Sequence

from pixelrefer_plugin.authoring import EvaluationError, read_choice, shown

from .items import LETTERS

_LABELS = LETTERS.lower()


def sane_choice(answer: str, choices: Sequence[str]) -> int | None:
    """The index of the choice that an answer is; None where it is none, or several."""
    letter = read_choice(answer, choices)
    return None if letter is None else LETTERS.index(letter)


def official_choice(answer: str, choices: Sequence[str]) -> int | None:
    """The index that the official scripts read, which may be none of the choices.

    Source: NVlabs/describe-anything: evaluation/eval_model_outputs.py, `parse_pred`. In this order: the choice or its
    letter, alone; the one choice whose text stands in the answer; a letter and a full stop at the beginning; of
    several choices the last, of these the longest; the longest choice that the answer stands in; a letter and a line
    break.

    Raises:
        EvaluationError: the official scripts stop there.
    """
    said = answer.strip().lower()
    texts = [choice.strip().lower() for choice in choices]
    for index, text in enumerate(texts):
        if said in (text, f"{_LABELS[index]}. {text}", _LABELS[index]):
            return index
    within = [index for index, text in enumerate(texts) if text in said]
    if len(within) == 1:
        return within[0]
    if not said or (len(said) == 1 and said in _LABELS):
        raise EvaluationError(f"The official scripts of DLC-Bench stop at the judge's answer {shown(answer)}.")
    label = _LABELS.find(said[0])
    if label >= 0 and said[1] == ".":
        return label
    if within:
        return max(within, key=lambda index: (said.index(texts[index]), len(texts[index])))
    around = [index for index, text in enumerate(texts) if said in text]
    if around:
        return max(around, key=lambda index: len(texts[index]))
    return label if label >= 0 and said[1] == "\n" else None
