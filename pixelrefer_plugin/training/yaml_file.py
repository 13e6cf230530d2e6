"""Reads a YAML file with what PyYAML forgets: the line of each key, keys given twice, and `1e-3` as a number.

It also writes `key=value` over what a file says. It knows nothing of what the keys mean.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError

# YAML 1.1, which PyYAML reads, takes `1e-3` for a text; this is what YAML 1.2 calls a float.
_FLOAT = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?$")


class _Loader(yaml.SafeLoader):
    """Safe: plain values only."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            name = self.construct_object(key, deep=True)
            if not isinstance(name, Hashable):  # such as a template's {{ name }} that was not filled in
                raise yaml.constructor.ConstructorError(None, None, f"{name} cannot be a key", key.start_mark)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key '{name}' is given twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]  # dates stay texts
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


@dataclass(frozen=True)
class Document:
    """The mapping that a file holds, and where each of its keys stands.

    Attributes:
        name: what to call it in messages.
        values: the mapping.
        places: `file line 3` or the override itself, by dotted key.
        named: dotted keys of mappings whose own keys are names that may have dots in them.
    """

    name: str
    values: dict[str, Any]
    places: dict[str, str] = field(default_factory=dict)
    named: Sequence[str] = ()

    def place(self, key: str) -> str:
        """Where a key is set, or the nearest key above it; the document's name where none is."""
        while key and key not in self.places:
            key = key.rpartition(".")[0]
        return self.places.get(key, self.name)

    def set(self, setting: str) -> None:
        """Write one `dotted.key=value` over what is there; numbers in the key count the items of a list.

        Raises:
            ConfigError: it is not of that form, or leads through something that holds no keys.
        """
        key, equals, text = setting.partition("=")
        if not key or not equals:
            raise ConfigError(f"Expected key=value, such as optim.epochs=2, got '{setting}'.")
        value = _parse(text, f"'{setting}'")
        *path, last = self._parts(key)
        holder: Any = self.values
        for depth, part in enumerate(path):
            holder = _step(holder, part, setting, ".".join(path[: depth + 1]))
        if isinstance(holder, list):
            holder[_index(holder, last, setting)] = value
        else:
            holder[last] = value
        for place in [each for each in self.places if self._parts(each)[: len(path) + 1] == [*path, last]]:
            del self.places[place]  # what stood below the key is gone
        self.places[key] = f"'{setting}'"

    def _parts(self, key: str) -> list[str]:
        """The keys that a dotted one leads through."""
        for above in self.named:
            if key.startswith(f"{above}."):
                return [*above.split("."), key.removeprefix(f"{above}.")]
        return key.split(".")


def read_yaml(path: Path, settings: Sequence[str] = (), *, named: Sequence[str] = ()) -> Document:
    """Read a YAML file that holds a mapping, and write settings over it.

    Args:
        path: the file.
        settings: `dotted.key=value` each, the value as YAML.
        named: as `Document.named`.

    Raises:
        ConfigError: the file cannot be read or is no mapping, or a setting is malformed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"'{path}' cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    values = _parse(text, f"'{path}'")
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(f"'{path}' must hold keys and values, such as 'recipe: lora', got {values!r:.60}.")
    try:
        document = Document(path.name, values, dict(_places(path.name, yaml.compose(text, Loader=_Loader))), named)
    except RecursionError as error:
        raise ConfigError(f"'{path}' is no valid YAML: a value contains itself.") from error
    for setting in settings:
        document.set(setting)
    return document


def _parse(text: str, name: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        where = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{name}{where} is no valid YAML: {error.problem}.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{name} is no valid YAML: {' '.join(str(error).split())}.") from error
    except (ValueError, RecursionError) as error:  # of numbers and lists without end
        raise ConfigError(f"{name} is no valid YAML: {error}.") from error


def _places(name: str, node: yaml.Node | None, above: str = "") -> Iterator[tuple[str, str]]:
    children: Iterable[tuple[str, yaml.Node, yaml.Node]] = ()
    if isinstance(node, yaml.MappingNode):
        children = ((str(key.value), key, value) for key, value in node.value)
    elif isinstance(node, yaml.SequenceNode):
        children = ((str(index), value, value) for index, value in enumerate(node.value))
    for key, start, value in children:
        dotted = f"{above}.{key}" if above else key
        yield dotted, f"{name} line {start.start_mark.line + 1}"
        yield from _places(name, value, dotted)


def _step(holder: Any, part: str, setting: str, reached: str) -> Any:
    """What a key's part leads to, made where a mapping lacks it."""
    if isinstance(holder, list):
        inner = holder[_index(holder, part, setting)]
    else:
        if holder.get(part) is None:
            holder[part] = {}
        inner = holder[part]
    if not isinstance(inner, dict | list):
        raise ConfigError(f"'{setting}' cannot be set: '{reached}' is {inner!r} and holds no keys.")
    return inner


def _index(items: list[Any], part: str, setting: str) -> int:
    if not part.isdecimal() or int(part) >= len(items):
        raise ConfigError(f"'{setting}' cannot be set: expected a number below {len(items)}, got '{part}'.")
    return int(part)
