"""`TokenIds`: the ids of tokens that a model and its processor agree on, and how a tokenizer learns those tokens.

Made once for both, so that neither learns an id from a batch. It knows native processors and tokenizers; no model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..contracts.messages import PLACEHOLDER
from ..errors import PromptError, shown

_RESERVED = re.compile(r"<\|?(reserved|unused)[\w ]*\|?>")


@dataclass(frozen=True)
class TokenIds:
    """The ids of tokens that a model and its processor agree on.

    Attributes:
        placeholder: of the token that stands for each object token.
        mask: of the token that stands for a mask in an answer; None where the adapter gives no masks.
        native: of the tokens that the native processor and its tokenizer have as attributes, by the attribute's name,
            such as `image_token`.
    """

    placeholder: int
    mask: int | None = None
    native: Mapping[str, int] = field(default_factory=dict)

    def agree_with(self, other: TokenIds) -> bool:
        """Whether batches made for one of them can be read with the other."""
        return (self.placeholder, self.mask) == (other.placeholder, other.mask)


def teach_tokens(native: Any, *, rows: int, mask_token: str | None = None, region_token: str | None = None) -> TokenIds:
    """Teach a native processor's tokenizer the placeholder and the token that stands for a mask, in place.

    Args:
        native: the backbone's own processor.
        rows: of the backbone's embedding table.
        mask_token: the token that stands for a mask, of an adapter that gives masks.
        region_token: a token that the tokenizer has for object tokens already. By default one of our own is added; it
            needs no row, since its embedding is never read.

    Raises:
        PromptError: the tokenizer does not have `region_token` as a token of its own, or there is no room for the
            token that stands for a mask, and none is reserved.
    """
    tokenizer = native.tokenizer
    if region_token is None:
        tokenizer.add_special_tokens({"extra_special_tokens": [PLACEHOLDER]}, replace_extra_special_tokens=False)
    else:
        _require_region_token(native, region_token)
    mask = None if mask_token is None else _mask_id(tokenizer, mask_token, rows=rows)
    return TokenIds(tokenizer.convert_tokens_to_ids(region_token or PLACEHOLDER), mask, native_token_ids(native))


def add_tokens(tokenizer: Any, tokens: Sequence[str], *, rows: int, stand_in: str | None = None) -> list[int]:
    """Teach a tokenizer tokens, in place; those it knows already are left as they are.

    Args:
        tokenizer: the backbone's.
        tokens: such as `["<defect>"]`.
        rows: of the backbone's embedding table.
        stand_in: the reserved token that stands for a mask, where one does.

    Returns:
        Their ids.

    Raises:
        PromptError: no tokens, the embedding table has no spare rows for them, or one stands for masks
            already.
    """
    if isinstance(tokens, str) or not tokens or not all(isinstance(each, str) and each for each in tokens):
        raise PromptError(f"Expected a list of tokens, got {shown(tokens)}.")
    if stand_in in tokens:
        raise PromptError(f"The token {shown(stand_in)} stands for masks already. Take another one.")
    known = tokenizer.get_vocab()
    new = [each for each in dict.fromkeys(tokens) if each not in known]
    if new and len(tokenizer) + len(new) > rows:
        reserved = [each for each in reserved_tokens(tokenizer) if each != stand_in]
        hint = f", or the tokens that it has in reserve, such as {shown(reserved[0])}" if reserved else ""
        raise PromptError(
            f"The backbone's embedding table has {rows} rows, {len(tokenizer)} of them in use: there is no "
            f"room for {len(new)} new tokens, and tables are never resized. Use words the tokenizer knows{hint}."
        )
    tokenizer.add_tokens(new)
    return [tokenizer.convert_tokens_to_ids(each) for each in tokens]


def reserved_tokens(tokenizer: Any) -> list[str]:
    """Tokens that a tokenizer's makers added for later use, such as `<|reserved_special_token_0|>`, in the order of
    their ids. The embedding table has a row for each."""
    added = sorted(tokenizer.get_added_vocab().items(), key=lambda entry: entry[1])
    return [token for token, _ in added if _RESERVED.fullmatch(token)]


def _mask_id(tokenizer: Any, token: str, *, rows: int) -> int:
    """The id of the token that stands for a mask: its own; in a full table that of the first reserved token."""
    is_full = token not in tokenizer.get_vocab() and len(tokenizer) >= rows
    reserved = reserved_tokens(tokenizer) if is_full else []
    return int(
        tokenizer.convert_tokens_to_ids(reserved[0]) if reserved else add_tokens(tokenizer, [token], rows=rows)[0]
    )


def media_tokens(native: Any) -> tuple[str, ...]:
    """The native processor's tokens for pictures and videos; not every backbone has both."""
    tokens = (getattr(native, name, None) for name in ("image_token", "video_token"))
    return tuple(token for token in tokens if token)


def require_media_tokens(native: Any, config: Any) -> None:
    """Refuse a native processor whose tokenizer does not read its tokens for pictures and videos as what they are.

    Args:
        native: the backbone's own processor.
        config: the backbone's config, which may say their ids.

    Raises:
        PromptError: such a token is none of the tokenizer's vocabulary, is split into several, or has another id than
            the config says.
    """
    known = native.tokenizer.get_vocab()
    for kind in ("image", "video"):
        token, id = getattr(native, f"{kind}_token", None), _configured_id(config, kind)
        if not token or (kind == "video" and id is None):  # one that is written as other tokens before it is read
            continue
        if id is not None and id == getattr(native.tokenizer, f"{kind}_token_id", None):
            id = None  # prompts have another token, which is written as this one before the model reads it
        if problem := _problem_of_token(native.tokenizer, known, str(token), id):
            path = getattr(native.tokenizer, "name_or_path", "")
            name = type(native.tokenizer).__name__ + (f" of {shown(path)}" if path else "")
            raise PromptError(
                f"{type(native).__name__} writes {shown(token)} where {'an' if kind == 'image' else 'a'} {kind} "
                f"stands, but its tokenizer, {name}, {problem}. Was the tokenizer replaced? Take the one of "
                "the checkpoint that the model is from."
            )


def _configured_id(config: Any, kind: str) -> int | None:
    """What a config says is the id of the token for pictures or for videos."""
    found = (getattr(config, f"{kind}_token_{name}", None) for name in ("id", "index"))
    return next((each for each in found if isinstance(each, int)), None)


def _problem_of_token(tokenizer: Any, known: Mapping[str, int], token: str, expected: int | None) -> str:
    """What is wrong with a token, for a message that begins with the tokenizer; empty where nothing is."""
    if token not in known:
        return f"has no such token among its {len(known):,}"
    ids = tokenizer(token * 2, add_special_tokens=False)["input_ids"]
    if ids.count(known[token]) != 2:
        pieces = tokenizer.convert_ids_to_tokens(tokenizer(token, add_special_tokens=False)["input_ids"])
        return f"splits it into {shown(pieces)}: it is in the vocabulary, but is no token that is kept whole"
    if expected is not None and known[token] != expected:
        return f"has it under the id {known[token]}, while the model's config says {expected}"
    return ""


def _require_region_token(native: Any, token: str) -> None:
    """An added token is never split, nor joined to what stands beside it; any other might be."""
    if token not in native.tokenizer.get_added_vocab():
        raise PromptError(
            f"The tokenizer has no token {shown(token)} of its own for object tokens. Is it the tokenizer of the "
            "checkpoint that was trained with it? Leave region_token out, and a token is added."
        )
    if token in media_tokens(native):
        raise PromptError(f"The token {shown(token)} stands for pictures or videos; it cannot be region_token as well.")


def native_token_ids(native: Any) -> dict[str, int]:
    """Ids of the tokens that a native processor and its tokenizer name; the processor's names go first."""
    known = native.tokenizer.get_vocab()
    named = {**native.tokenizer.special_tokens_map, **vars(native)}
    return {
        name: known[token]
        for name, token in sorted(named.items())
        if name.endswith("_token") and isinstance(token, str) and token in known
    }
