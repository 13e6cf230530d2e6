"""What a plugin's source text tells without being run: its hooks, its `PLUGIN_API`, and what keeps it from loading."""

from __future__ import annotations

import ast
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..errors import did_you_mean, nearest, text_of
from .plugin_api import NOT_SAID

Kind = Literal["adapter", "backbone", "region source", "data format", "benchmark"]


class Hook(NamedTuple):
    """What a hook registers: things of one kind, each described by a class of a module of `contracts`."""

    kind: Kind
    module: str  # by name: listing plugins imports no contracts
    spec: str


HOOKS = {
    "register_adapters": Hook("adapter", "adapter", "AdapterSpec"),
    "register_backbones": Hook("backbone", "backbone", "BackboneSpec"),
    "register_region_sources": Hook("region source", "region_source", "RegionSourceSpec"),
    "register_data_formats": Hook("data format", "data_format", "DataFormatSpec"),
    "register_benchmarks": Hook("benchmark", "benchmark", "BenchmarkSpec"),
}
HOOK_NAMES = ", ".join(HOOKS)

NOT_KNOWN: Any = object()
"""In place of a plugin's `PLUGIN_API`, where only importing it tells."""

_MOST_BYTES = 2**22  # of a source that is read: a plugin's module registers things, and little else


@dataclass(frozen=True)
class PluginSource:
    """What a plugin's source text tells, and which defects are visible without importing it.

    Attributes:
        kinds: what it registers; empty where the text does not tell.
        api: its `PLUGIN_API`, `NOT_SAID` or `NOT_KNOWN`.
        misspelt: which of its hooks does not exist; may be empty.
        unmarked: which of its functions look like hooks and are none; may be empty.
        defect: what else keeps it from loading; may be empty.
        training_free: names of the adapters that it registers with a pointer, where both are written out.
    """

    kinds: tuple[Kind, ...] = ()
    api: Any = NOT_KNOWN
    misspelt: str = ""
    unmarked: str = ""
    defect: str = ""
    training_free: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """The kinds as users see them."""
        return "+".join(self.kinds) or "unknown"


def read_source(module: str) -> PluginSource:
    """What the source text of a module tells. Nothing is imported, and nothing that stands there is an exception."""
    found = _find_without_importing(module)
    if found is None:
        return PluginSource(defect=f"module {module} cannot be found")
    if found.origin is None or not found.origin.endswith(".py"):
        return PluginSource()
    try:
        path = Path(found.origin)
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            return PluginSource()
        return _told_by(path.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError, MemoryError) as error:
        return PluginSource(defect=f"{type(error).__name__}: {text_of(error)}")


def _told_by(text: bytes) -> PluginSource:
    tree = _parsed(text)
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    hooks = [node.name for node in functions if _is_hook(node)]
    others = [node.name for node in functions if not node.decorator_list]
    kinds = sorted({HOOKS[name].kind for name in hooks if name in HOOKS})
    return PluginSource(
        tuple(kinds),
        _told_api(tree, text),
        misspelt_hook(hooks),
        _unmarked_hook(others),
        _missing_import(tree),
        tuple(_pointing_adapters(tree)),
    )


def _pointing_adapters(tree: ast.Module) -> Iterator[str]:
    """The names in calls `AdapterSpec(name="NAME", pointer=...)`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "AdapterSpec":
            given = {each.arg: each.value for each in node.keywords}
            name = given.get("name")
            if "pointer" in given and isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield name.value


def _parsed(text: bytes) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a stranger's text, of which only some is of interest
        return ast.parse(text)


def _told_api(tree: ast.Module, text: bytes) -> Any:
    """The `PLUGIN_API` of a module's text; `NOT_KNOWN` where it is not a literal, or may come by `import *`."""
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        is_it = any(isinstance(target, ast.Name) and target.id == "PLUGIN_API" for target in targets)
        if is_it and isinstance(value := getattr(node, "value", None), ast.Constant):
            return value.value
    has_stars = any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in tree.body)
    return NOT_KNOWN if has_stars or b"PLUGIN_API" in text else NOT_SAID


def _find_without_importing(module: str) -> ModuleSpec | None:
    """`importlib.util.find_spec`, which would import the parents of a dotted name, without doing so."""
    try:
        name, *parts = module.split(".")
        found = find_spec(name)
        for part in parts:
            if found is None or found.submodule_search_locations is None:
                return None
            name = f"{name}.{part}"
            found = PathFinder.find_spec(name, list(found.submodule_search_locations))
    except Exception:  # of a module's own finder or parent
        return None
    return found


def _is_hook(node: ast.FunctionDef) -> bool:
    """Whether it is marked by a bare `@hookimpl`; one with options is left for pluggy to judge."""
    return any(ast.unparse(each).split(".")[-1] == "hookimpl" for each in node.decorator_list)


def misspelt_hook(hooks: Iterable[str]) -> str:
    """What is wrong with the name of a function that is marked as a hook; empty where each of them is one."""
    for name in hooks:
        if name not in HOOKS:
            hint = did_you_mean(name, HOOKS) or f" Hooks are {HOOK_NAMES}"
            return f"has a hook '{name}', which does not exist.{hint}"
    return ""


def _unmarked_hook(functions: Iterable[str]) -> str:
    """What is to be done with a function that is no hook, but is called as one, or nearly."""
    for name in functions:
        if name in HOOKS:
            return f"has a function '{name}' without @hookimpl above it"
        if near := nearest(name, HOOKS, cutoff=0.85):
            return f"has a function '{name}', which is no hook. Did you mean '{near}', with @hookimpl above it?"
    return ""


def _missing_import(tree: ast.Module) -> str:
    for name in _top_level_imports(tree):
        if name not in sys.modules and _find_without_importing(name) is None:
            return f"it imports '{name}', which is not installed"
    return ""


def _top_level_imports(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module.partition(".")[0]
