"""Options of a plugin: a frozen dataclass that checks itself, made from a mapping."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..errors import PixelReferError, PluginCodeError, PluginError, shown, text_of


def make_config(config: type[Any], options: Mapping[str, Any] | Any | None, *, owner: str) -> Any:
    """A checked config of a plugin, from options, or the default one.

    Args:
        config: its class.
        options: by name; None for the defaults; or a config, which is returned.
        owner: the plugin, such as `adapter 'saot'`.

    Raises:
        PixelReferError: an unknown option, or a value that the config refuses.
        PluginError: the config refuses its own defaults; or `PluginCodeError`: its code fails on them.
    """
    if isinstance(options, config):
        return options
    if options is not None and not isinstance(options, Mapping):
        raise PixelReferError(
            f"Options of {owner} must be a mapping or a {config.__name__}, got {type(options).__name__}."
        )
    known = [item.name for item in dataclasses.fields(config) if item.init]
    unknown = [name for name in options or {} if name not in known]
    if unknown:
        raise PixelReferError(
            f"{owner.capitalize()} has no option {', '.join(sorted(map(shown, unknown)))}. Its options: "
            f"{', '.join(known) or 'none'}."
        )
    if not options:
        return _default(config, owner)
    try:
        return config(**options)
    except PixelReferError:
        raise
    except TypeError as error:  # a check compared a value of the wrong type
        _default(config, owner)
        problem = f"of the wrong type: {text_of(error)}"
        raise PixelReferError(f"{owner.capitalize()} was given an option {problem.rstrip('.')}.") from error
    except Exception as error:
        _default(config, owner)
        problem = f"that it refuses: {type(error).__name__}: {text_of(error)}"
        raise PixelReferError(f"{owner.capitalize()} was given an option {problem.rstrip('.')}.") from error


def _default(config: type[Any], owner: str) -> Any:
    """The config without options, whose faults are the plugin's, not the user's."""
    try:
        return config()
    except PixelReferError as error:
        fault = PluginError(f"{owner.capitalize()} refuses the defaults of its own options: {error}")
        fault.plugin, fault.step = owner, "config"
        raise fault from error
    except Exception as error:
        raise PluginCodeError.of(error, owner, "config") from error


def check_field(condition: bool, config: Any, name: str, rule: str) -> None:
    """Refuse a config value: names the field, the rule, and what was got.

    Raises:
        PixelReferError: `condition` is false.
    """
    if not condition:
        raise PixelReferError(f"{type(config).__name__}.{name} must be {rule}, got {shown(getattr(config, name))}.")
