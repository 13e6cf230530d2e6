"""Expansion: each placeholder of a tokenized prompt becomes the tokens that it stands for, as ids.

It comes after the backbone's own processor, so that this runs once and knows nothing of regions. It knows ids, slots
and promised counts; no picture and no adapter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import PromptError
from .sample import Slot

IGNORE_INDEX = -100


class Expansion:
    """Writes object tokens' placeholders, and answers, where their slots stand.

    Args:
        tokenizer: the backbone's, which knows the placeholder.
        placeholder: the token that stands in the texts, and whose id is written for object tokens.
        space: white space before an answer in the texts that is the answer's own: a prompt for it ends before.
    """

    def __init__(self, tokenizer: Any, placeholder: str, space: str = "") -> None:
        self._tokenizer = tokenizer
        self._placeholder = placeholder
        self._space = space
        self._placeholder_id: int = tokenizer.convert_tokens_to_ids(placeholder)
        self._special_ids = frozenset(tokenizer.all_special_ids)

    def write(
        self,
        inputs: Any,
        slots: Sequence[Sequence[Slot]],
        counts: Sequence[Iterable[int]],
        *,
        labels: bool,
        padding_side: str,
    ) -> None:
        """Expand every row of a batch in place, and pad again.

        Args:
            inputs: native tensors, padded; those of the shape of `input_ids` are expanded alike.
            slots: per row what its placeholders stand for.
            counts: per row the tokens promised for each region and picture, in order.
            labels: add `labels`.
            padding_side: `left` or `right`.

        Raises:
            PromptError: a row has more or fewer placeholders than slots.
        """
        shape = inputs["input_ids"].shape
        per_token = [name for name, value in inputs.items() if isinstance(value, Tensor) and value.shape == shape]
        ids_of = self._tokenized(slots)
        space_ids = self._tokenizer(self._space, add_special_tokens=False)["input_ids"] if self._space else []
        rows = [
            self._expand_row(
                row, inputs, per_token, slots=slots[row], counts=iter(counts[row]), ids_of=ids_of, space_ids=space_ids
            )
            for row in range(len(slots))
        ]
        padding = {"input_ids": self._pad_id, "labels": IGNORE_INDEX}
        for name in [*per_token, "labels"] if labels else per_token:
            inputs[name] = _pad([row[name] for row in rows], padding.get(name, 0), padding_side)

    def _expand_row(
        self,
        row: int,
        inputs: Any,
        per_token: Sequence[str],
        *,
        slots: Sequence[Slot],
        counts: Iterator[int],
        ids_of: Mapping[str, list[int]],
        space_ids: Sequence[int],
    ) -> dict[str, list[int]]:
        real = inputs["attention_mask"][row].bool()
        tokens = {name: inputs[name][row][real].tolist() for name in per_token}
        input_ids = tokens["input_ids"]
        at = [position for position, token in enumerate(input_ids) if token == self._placeholder_id]
        if len(at) != len(slots):
            raise PromptError(f"the chat template rendered {len(at)} of {len(slots)} regions and answers.", sample=row)
        out: dict[str, list[int]] = {name: [] for name in [*per_token, "labels"]}
        start = 0
        for position, slot in zip(at, slots, strict=True):
            answers = slot.answer is not None
            own_space = answers and input_ids[position - len(space_ids) : position] == space_ids
            spaces = len(space_ids) if own_space else 0
            self._copy(tokens, slice(start, position - spaces), out, supervised=False)
            ids = self._slot_ids(slot, counts, ids_of, space=self._space if spaces else "")
            for name in per_token:
                out[name] += ids if name == "input_ids" else [tokens[name][position]] * len(ids)
            out["labels"] += [IGNORE_INDEX if not answers or each == self._placeholder_id else each for each in ids]
            start = position + 1
            if answers and start < len(input_ids) and input_ids[start] in self._special_ids:
                self._copy(tokens, slice(start, start + 1), out, supervised=True)  # the token that ends the turn
                start += 1
        self._copy(tokens, slice(start, None), out, supervised=False)
        return out

    def _copy(
        self, tokens: Mapping[str, list[int]], part: slice, out: dict[str, list[int]], *, supervised: bool
    ) -> None:
        for name, values in tokens.items():
            out[name] += values[part]
        ids = tokens["input_ids"][part]
        out["labels"] += ids if supervised else [IGNORE_INDEX] * len(ids)

    def _slot_ids(self, slot: Slot, counts: Iterator[int], ids_of: Mapping[str, list[int]], *, space: str) -> list[int]:
        if slot.answer is None:
            return [self._placeholder_id] * next(counts)
        first, *others = slot.answer.split(self._placeholder)
        ids = list(ids_of[space + first])
        for text in others:
            ids += [self._placeholder_id] * next(counts) + ids_of[text]
        return ids

    def _tokenized(self, slots: Sequence[Sequence[Slot]]) -> dict[str, list[int]]:
        """The ids of every text in an answer, all from one call."""
        answers = [slot.answer for row in slots for slot in row if slot.answer is not None]
        answers += [self._space + answer for answer in answers] if self._space else []
        texts = list(dict.fromkeys(text for answer in answers for text in answer.split(self._placeholder)))
        if not texts:
            return {}
        return dict(zip(texts, self._tokenizer(texts, add_special_tokens=False)["input_ids"], strict=True))

    @property
    def _pad_id(self) -> int:
        pad = self._tokenizer.pad_token_id
        return int(pad if pad is not None else self._tokenizer.eos_token_id)


def _pad(rows: Sequence[Sequence[int]], value: int, side: str) -> Tensor:
    length = max(map(len, rows))
    fills = [[value] * (length - len(row)) for row in rows]
    padded = [[*row, *fill] if side == "right" else [*fill, *row] for row, fill in zip(rows, fills, strict=True)]
    return torch.tensor(padded, dtype=torch.int64)
