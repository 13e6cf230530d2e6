"""What is read in the decoder: the hidden states behind its last layer, captured on the way to its final norm.

One mechanism for every backbone, like the splice: two forward pre-hooks that are there for the length of one call. It
knows positions and hidden states; no token, no adapter, no backbone.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..errors import SpliceError
from ..tokens.splice import cached_length

_NEVER_CALLED = (
    "The decoder's final norm was not called, so no hidden states were read. The backbone plugin's `final_norm` path "
    "must name the norm behind the decoder's last layer."
)


class Reader(Protocol):
    """Keeps what it needs of the hidden states of a call."""

    def keep(self, hidden: Tensor, *, start: int, cached: bool) -> None:
        """See one pass of the decoder.

        Args:
            hidden: `(rows, length, D)`, in the graph where there is one.
            start: position in the sequence of the first of them.
            cached: whether the pass goes on from a cache, and will not be made again.
        """
        ...


@contextmanager
def captured_hidden(decoder: nn.Module, norm: nn.Module, reader: Reader) -> Iterator[None]:
    """Within this context, `reader` sees what every pass of `decoder` hands to its final norm.

    Args:
        decoder: the module that is called with the cache, where there is one.
        norm: the norm behind the decoder's last layer.
        reader: keeps what it needs.
    """
    hooks = _Hooks(reader)
    handles = (
        decoder.register_forward_pre_hook(hooks.see_decoder, with_kwargs=True),
        norm.register_forward_pre_hook(hooks.see_norm, with_kwargs=True),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Hooks:
    """The decoder tells how far the cache has come, its norm what is in the layers; other threads' calls are not
    looked at."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._caller = threading.get_ident()
        self._start = 0
        self._cached = False

    def see_decoder(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> None:
        if threading.get_ident() == self._caller and kwargs is not None:
            length = cached_length(kwargs)
            self._cached = length is not None
            self._start = length or 0

    def see_norm(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> None:
        if threading.get_ident() == self._caller:
            (hidden, *_) = (*args, *(kwargs or {}).values())
            self._reader.keep(hidden, start=self._start, cached=self._cached)


class TaughtStates:
    """The hidden states of some positions of a batch that is learnt from, gradients and all.

    Args:
        rows: `(S,)` int64, rows of the batch.
        columns: `(S,)` int64, positions in them.
        shape: `(rows, length)` of the batch.
    """

    def __init__(self, rows: Tensor, columns: Tensor, shape: tuple[int, ...]) -> None:
        self._at = (rows, columns)
        self._shape = shape
        self._states: Tensor | None = None

    def keep(self, hidden: Tensor, *, start: int, cached: bool) -> None:
        """See the decoder's one pass."""
        if tuple(hidden.shape[:2]) != tuple(self._shape):
            raise SpliceError(
                f"The decoder was given {tuple(hidden.shape[:2])} positions for input_ids of shape "
                f"{tuple(self._shape)}. Masks are learnt from whole sequences, one position for each token."
            )
        self._states = hidden[tuple(each.to(hidden.device) for each in self._at)]

    def states(self) -> Tensor:
        """`(S, D)`.

        Raises:
            SpliceError: the norm was never called.
        """
        if self._states is None:
            raise SpliceError(_NEVER_CALLED)
        return self._states


class GeneratedStates:
    """The hidden states that predicted the tokens of an answer, by their positions.

    With a cache a position may be computed again, where guessed tokens before it were wrong: the last time counts.
    Without one every pass computes all positions, and under beam search with its rows in another order: a position
    counts when its pass ends in it.

    Args:
        first: the position that predicts the answer's first token, the prompt's last.
    """

    def __init__(self, first: int) -> None:
        self._first = first
        self._at: dict[int, Tensor] = {}

    def keep(self, hidden: Tensor, *, start: int, cached: bool) -> None:
        """See one pass of the decoder."""
        end = start + hidden.shape[1]
        for column in range(max(self._first, start if cached else end - 1), end):
            self._at[column] = hidden[:, column - start].clone()  # a view would keep the whole prompt's

    def states(self, rows: Sequence[int], columns: Sequence[int]) -> Tensor:
        """`(S, D)`, of row and position each.

        Raises:
            SpliceError: the decoder did not come by one of them.
        """
        if not self._at:
            raise SpliceError(_NEVER_CALLED)
        missing = sorted(set(columns) - set(self._at))
        if missing:
            raise SpliceError(
                f"The decoder's hidden state at position {missing[0]} was not seen, so no mask can be made there. "
                "Masks need a way of generating that runs the backbone's own decoder token by token."
            )
        return torch.stack([self._at[column][row] for row, column in zip(rows, columns, strict=True)])
