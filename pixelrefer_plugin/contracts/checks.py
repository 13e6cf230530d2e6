"""Checks of the specs that plugins register, for their `__post_init__`: each says what was expected and what came.

The host adds which plugin and distribution a spec is from.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from ..errors import PixelReferError, shown

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}")


def require_name(spec: Any) -> None:
    """Refuse a spec whose `name` is not one that users can write on a command line.

    Raises:
        PixelReferError: it is not a text of lowercase letters, digits, `_`, `-` and `.`, 100 of them at most.
    """
    if not isinstance(spec.name, str) or not _NAME.fullmatch(spec.name):
        raise PixelReferError(
            f"{type(spec).__name__}.name must be a text of lowercase letters, digits, '_', '-' and '.', beginning "
            f"with a letter or digit, 100 at most, such as 'my_plugin'; got {shown(spec.name)}."
        )


def require_config(spec: Any) -> None:
    """Refuse a spec whose `config` is not a frozen dataclass with a default for each field.

    Raises:
        PixelReferError: it is an instance, another class, not frozen, or has fields without a default.
    """
    if problem := _config_problem(spec.config):
        raise _refusal(spec, "config", "a frozen dataclass with a default for each field", problem)


def require_callables(spec: Any, *fields: str, optional: Collection[str] = ()) -> None:
    """Refuse a spec in which one of these fields cannot be called.

    Args:
        spec: the spec.
        fields: what must be callable.
        optional: what may also be None.

    Raises:
        PixelReferError: a field is something else.
    """
    for field in (*fields, *optional):
        value = getattr(spec, field)
        if not callable(value) and not (value is None and field in optional):
            what = "a function or None" if field in optional else "a function"
            raise _refusal(spec, field, what, f"{shown(value)}{_class_hint(value)}")


def require_kinds(spec: Any, **kinds: type | tuple[type, ...]) -> None:
    """Refuse a spec in which a field is not of its kind.

    Args:
        spec: the spec.
        **kinds: the class of each field, or several that are allowed.

    Raises:
        PixelReferError: a field is of another class.
    """
    for field, kind in kinds.items():
        value, allowed = getattr(spec, field), kind if isinstance(kind, tuple) else (kind,)
        if not isinstance(value, allowed):
            names = " or ".join("None" if each is type(None) else f"a {each.__name__}" for each in allowed)
            raise _refusal(spec, field, names, shown(value))


def require_subclass(spec: Any, field: str, parent: type) -> None:
    """Refuse a spec in which a field is not a class derived from `parent`.

    Raises:
        PixelReferError: it is an instance, a function, or another class.
    """
    value = getattr(spec, field)
    if not isinstance(value, type) or not issubclass(value, parent):
        raise _refusal(spec, field, f"a class derived from {parent.__name__}", f"{shown(value)}{_class_hint(value)}")


def require_values(spec: Any, field: str, *kinds: type) -> None:
    """Refuse a spec in which a mapping has a key that is no text, or a value that is of none of these kinds.

    Raises:
        PixelReferError: it has.
    """
    for key, value in getattr(spec, field).items():
        if not isinstance(key, str):
            raise _refusal(spec, field, "a mapping by texts", f"the key {shown(key)}")
        if not isinstance(value, kinds):
            names = " or ".join("None" if each is type(None) else f"a {each.__name__}" for each in kinds)
            raise _refusal(spec, f"{field}[{shown(key)}]", names, shown(value))


def require_items(spec: Any, **kinds: type) -> None:
    """Refuse a spec in which an item of a tuple is not of its kind.

    Args:
        spec: the spec.
        **kinds: the class of the items, by the tuple's field.

    Raises:
        PixelReferError: an item is of another class.
    """
    for field, kind in kinds.items():
        for number, each in enumerate(getattr(spec, field)):
            if not isinstance(each, kind):
                raise _refusal(spec, f"{field}[{number}]", f"a {kind.__name__}", shown(each))


def require_functions(spec: Any, field: str) -> None:
    """Refuse a spec in which a mapping does not give functions by texts.

    Raises:
        PixelReferError: a key is no text, or a value cannot be called.
    """
    require_values(spec, field, object)
    for key, value in getattr(spec, field).items():
        if not callable(value):
            raise _refusal(spec, f"{field}[{shown(key)}]", "a function", f"{shown(value)}{_class_hint(value)}")


def require_finite(spec: Any, field: str) -> None:
    """Refuse a spec in which a number is infinite or none.

    Raises:
        PixelReferError: it is.
    """
    if not math.isfinite(getattr(spec, field)):
        raise _refusal(spec, field, "a finite number", shown(getattr(spec, field)))


def require_texts(spec: Any, field: str, *, optional: bool = False) -> None:
    """Refuse a spec in which a field is not a tuple of texts, one or more, or any number where they are optional.

    Raises:
        PixelReferError: it is something else, such as one text.
    """
    value = getattr(spec, field)
    is_tuple = isinstance(value, tuple) and (optional or bool(value))
    if not is_tuple or not all(isinstance(each, str) and each for each in value):
        hint = f". Write ({shown(value)},)" if isinstance(value, str) else ""
        raise _refusal(spec, field, "a tuple of names", f"{shown(value)}{hint}")


def require_patterns(spec: Any, field: str) -> None:
    """Refuse a spec in which a field does not map names to regular expressions.

    Raises:
        PixelReferError: it is no mapping, or one of its values is not a text or does not compile.
    """
    patterns = getattr(spec, field)
    if not isinstance(patterns, Mapping):
        raise _refusal(spec, field, "a mapping of names to regular expressions", shown(patterns))
    for name, pattern in patterns.items():
        try:
            if not isinstance(pattern, str):
                raise TypeError(f"a {type(pattern).__name__} is no text")
            re.compile(pattern)
        except (re.error, TypeError, OverflowError, RecursionError) as error:
            got = f"{shown(pattern)}: {error}"
            raise _refusal(spec, f"{field}[{shown(name)}]", "a regular expression", got) from error


def require_known(spec: Any, field: str, known: Collection[str]) -> None:
    """Refuse a spec in which a field, a mapping or a sequence, has a name that is not one of `known`.

    Raises:
        PixelReferError: it has.
    """
    unknown = [each for each in getattr(spec, field) if each not in known]
    if unknown:
        raise _refusal(spec, field, f"among {', '.join(known)}", ", ".join(map(shown, unknown)))


def _refusal(spec: Any, field: str, expected: str, got: str) -> PixelReferError:
    whose = f" of '{spec.name}'" if hasattr(spec, "name") else ""  # the parts of a spec have no name
    return PixelReferError(f"{type(spec).__name__}.{field}{whose} must be {expected}, got {got}.")


def _config_problem(config: Any) -> str:
    if not isinstance(config, type):
        return f"{shown(config)}{_class_hint(config)}"
    params = getattr(config, "__dataclass_params__", None)
    if params is None:
        return f"the class {config.__name__}, which is no dataclass. Write @dataclass(frozen=True) above it"
    if not params.frozen:
        return f"{config.__name__}, which can be changed. Write @dataclass(frozen=True) above it"
    without = [each.name for each in dataclasses.fields(config) if each.init and _has_no_default(each)]
    return f"{config.__name__}, which has no default for {', '.join(without)}" if without else ""


def _class_hint(value: Any) -> str:
    """What to do, for a message, where an object was given in place of its class."""
    is_of_plugin = type(value).__module__ != "builtins"
    return f". Give the class {type(value).__name__} itself" if is_of_plugin else ""


def _has_no_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
