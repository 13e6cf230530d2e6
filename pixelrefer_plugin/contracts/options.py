"""Options of a plugin: a frozen dataclass that checks itself, made from a mapping."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..errors import PixelReferError, shown


def make_config(config: type[Any], options: Mapping[str, Any] | Any | None, *, owner: str) -> Any:
    if isinstance(options, config):
        return options
    if options is not None and not isinstance(options, Mapping):
        raise PixelReferError(
            f"Options of {owner} must be a mapping or a {config.__name__}, got {type(options).__name__}."
        )
    known = [item.name for item in dataclasses.fields(config)]
    unknown = sorted(set(options or {}) - set(known))
    if unknown:
        raise PixelReferError(
            f"{owner.capitalize()} has no option {', '.join(map(repr, unknown))}. Its options: {', '.join(known)}."
        )
    try:
        return config(**(options or {}))
    except TypeError as error:  # a check compared a value of the wrong type
        raise PixelReferError(f"{owner.capitalize()} was given an option of the wrong type: {error}.") from error


def check_field(condition: bool, config: Any, name: str, rule: str) -> None:
    """Refuse a config value: names the field, the rule, and what was got.

    Raises:
        PixelReferError: `condition` is false.
    """
    if not condition:
        raise PixelReferError(f"{type(config).__name__}.{name} must be {rule}, got {shown(getattr(config, name))}.")
