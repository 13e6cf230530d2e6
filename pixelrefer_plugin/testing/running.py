"""How the kit runs a check, and the check that all kinds of plugins share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

from ..errors import PixelReferError, text_of

_MOST_CHARACTERS = 500  # of another library's exception


def run_check(check: Callable[..., None], *subject: Any) -> str:
    """Run one check, and return its name.

    Raises:
        AssertionError: with the check's name, what is wrong, whatever was raised, and what the check demands.
    """
    try:
        check(*subject)
    except (Exception, SystemExit) as error:
        own = str(error) if isinstance(error, AssertionError | PixelReferError) else text_of(error, _MOST_CHARACTERS)
        detail = own if isinstance(error, AssertionError) else f"{type(error).__name__}: {own}"
        demand = " ".join((check.__doc__ or "").split())
        raise AssertionError(f"{check.__name__}: {detail}\nThe check demands: {demand}") from error
    return check.__name__


class SpecWithConfig(Protocol):
    """A spec of any kind that has options."""

    @property
    def name(self) -> str: ...

    @property
    def config(self) -> type[Any]: ...

    def make_config(self, options: Any = None) -> Any: ...


def require_strict_config(spec: SpecWithConfig) -> None:
    """Refuse a config that is not a frozen dataclass with defaults, or takes options that it does not have.

    Raises:
        AssertionError: it is not, or does.
    """
    assert dataclasses.is_dataclass(spec.config), f"{spec.name}: config must be a dataclass"
    assert spec.config.__dataclass_params__.frozen, f"{spec.name}: config must be frozen"  # type: ignore[attr-defined]
    spec.make_config(None)
    try:
        spec.make_config({"no_such_option": 1})
    except PixelReferError as error:
        if "no_such_option" in str(error):
            return
        raise AssertionError(f"{spec.name}: the refusal of an unknown option does not name it: {error}") from error
    raise AssertionError(f"{spec.name}: an unknown option was accepted")
