"""Reads a YAML file with what PyYAML forgets: the line of each key, keys given twice, and `1e-3` as a number.

It also writes `key=value` over what a file says. It knows nothing of what the keys mean.
"""

from __future__ import annotations

import errno
import os
import re
import select
import stat
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError, shown, text_of

# YAML 1.1, which PyYAML reads, takes `1e-3` for a text; this is what YAML 1.2 calls a float.
_FLOAT = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?$")


_PLAIN = ("null", "bool", "int", "float", "str", "seq", "map")
_MOST_CHARACTERS = 2**19
_MOST_VALUES = 100_000
_MOST_DIGITS = 100
_MOST_WAIT_S = 10  # for a pipe


class _Loader(yaml.SafeLoader):
    """Safe: plain values only, of which every one that cannot be read is a `yaml.MarkedYAMLError`."""

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        value = super().construct_scalar(node)
        is_number = node.tag.rpartition(":")[2] in ("int", "float")
        if is_number and len(value) > _MOST_DIGITS:
            raise _refused(f"Exceeds the limit of {_MOST_DIGITS} digits: {shown(value)}", node)
        if any("\ud800" <= each <= "\udfff" or each == "\0" for each in value):
            raise _refused(f"{shown(value)} has a character that no text has", node)
        return value

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception as error:  # PyYAML lets through what its look-ups and conversions raise, of many kinds
            tag = node.tag.rpartition(":")[2]
            raise _refused(f"{shown(node.value)} is no value of the tag !!{tag}", node) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():  # what is none, the call below refuses
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            name = self.construct_object(key, deep=True)
            if not isinstance(name, Hashable):  # such as a template's {{ name }} that was not filled in
                raise yaml.constructor.ConstructorError(None, None, f"{shown(name)} cannot be a key", key.start_mark)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {shown(name)} is given twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def _refused(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


_Loader.yaml_constructors = {
    tag: construct
    for tag, construct in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in _PLAIN  # without dates, bytes, sets, and lists of pairs
}
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
            raise ConfigError(f"Expected key=value, such as optim.epochs=2, got {shown(setting)}.")
        value, _ = _parse(text, shown(setting))
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
        self.places[key] = shown(setting)

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
        text = _read(path).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ConfigError(f"'{path}' cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    values, node = _parse(text, f"'{path}'")
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(f"'{path}' must hold keys and values, such as 'recipe: lora', got {shown(values)}.")
    document = Document(path.name, values, dict(_places(path.name, node)), named)
    for setting in settings:
        document.set(setting)
    return document


def _read(path: Path) -> bytes:
    """The bytes of a file, or of a pipe that somebody writes to, such as a shell's `<(...)`.

    Raises:
        OSError: it cannot be read, is neither, is too large, or nothing comes for a while.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        mode = os.fstat(descriptor).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
            raise OSError(errno.EINVAL, "it is no regular file")
        content = b""
        while len(content) <= _MOST_CHARACTERS:
            if stat.S_ISFIFO(mode) and not select.select([file], [], [], _MOST_WAIT_S)[0]:
                raise OSError(errno.ETIMEDOUT, f"it is a pipe to which nobody has written for {_MOST_WAIT_S} s")
            part = file.read(_MOST_CHARACTERS)
            if not part:
                return content
            content += part
    raise OSError(errno.EFBIG, f"it has more than {_MOST_CHARACTERS:,} characters")


def _parse(text: str, name: str) -> tuple[Any, yaml.Node | None]:
    """The value of a text, and the tree that it was made from.

    Raises:
        ConfigError: it is no YAML, has other than plain values, or is too large.
    """
    if len(text) > _MOST_CHARACTERS:
        raise ConfigError(f"{name[:60]}... is too long: more than {_MOST_CHARACTERS:,} characters.")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, None
        _require_bounded(node)
        return loader.construct_document(node), node
    except yaml.MarkedYAMLError as error:
        where = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{name}{where} is no valid YAML: {text_of(error.problem)}.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{name} is no valid YAML: {text_of(error)}.") from error
    except RecursionError as error:  # of lists without end
        raise ConfigError(f"{name} is no valid YAML: {error}.") from error


def _require_bounded(root: yaml.Node) -> None:
    """Refuse what becomes too large: aliases of aliases multiply.

    Raises:
        yaml.MarkedYAMLError: it has too many values, or contains itself.
    """
    sizes: dict[int, int] = {}
    above: set[int] = set()

    def size(node: yaml.Node) -> int:
        if id(node) in above:
            raise _refused("a value contains itself", node)
        if id(node) not in sizes:
            above.add(id(node))
            sizes[id(node)] = 1 + sum(map(size, _children(node)))
            above.remove(id(node))
        if sizes[id(node)] > _MOST_VALUES:
            raise _refused(f"more than {_MOST_VALUES:,} values, its aliases written out", node)
        return sizes[id(node)]

    size(root)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [each for pair in node.value for each in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


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
        raise ConfigError(f"{shown(setting)} cannot be set: '{reached}' is {shown(inner)} and holds no keys.")
    return inner


def _index(items: list[Any], part: str, setting: str) -> int:
    if not part.isdecimal() or int(part) >= len(items):
        raise ConfigError(f"{shown(setting)} cannot be set: expected a number below {len(items)}, got '{part}'.")
    return int(part)
