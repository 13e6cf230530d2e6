"""The plugin host: finds plugins by entry point, imports each on first use, keeps a broken one apart.

It knows plugins by name only. Listing reads package metadata and source text; nothing is imported.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from . import hookspecs
from .errors import PluginError

if TYPE_CHECKING:
    from .contracts import AdapterSpec, BackboneSpec

logger = logging.getLogger(__name__)

GROUP = hookspecs.PROJECT
_KIND_OF_HOOK = {"register_adapters": "adapter", "register_backbones": "backbone"}


@dataclass(frozen=True)
class PluginInfo:
    """One installed plugin, as its package metadata and its source text describe it.

    Attributes:
        name: the entry point's name.
        kind: `adapter`, `backbone`, `adapter+backbone`, or `unknown` where the source does not tell.
        module: the module that the entry point names.
        distribution: the distribution that declares it.
        version: that distribution's version.
        status: `ready`, `loaded`, or `broken: <why>`.
    """

    name: str
    kind: str
    module: str
    distribution: str
    version: str
    status: str

    @property
    def origin(self) -> str:
        """Where the plugin comes from, for error messages."""
        return f"'{self.name}' ({self.module}, from {self.distribution} {self.version})"


class PluginHost:
    """Loads plugins of one entry-point group and hands out what they register.

    Args:
        entry_points: the entry points to serve; by default those installed in the group.
    """

    def __init__(self, entry_points: list[metadata.EntryPoint] | None = None) -> None:
        found = metadata.entry_points(group=GROUP) if entry_points is None else entry_points
        self._entry_points = sorted(found, key=lambda point: point.name)
        self._failures: dict[metadata.EntryPoint, str] = {}
        self._loaded: set[metadata.EntryPoint] = set()
        self._specs: dict[str, dict[str, Any]] = {"adapter": {}, "backbone": {}}
        self._owners: dict[tuple[str, str], list[metadata.EntryPoint]] = {}

    def list(self) -> list[PluginInfo]:
        """Every installed plugin, broken ones included, without importing any."""
        return [self._info(point) for point in self._entry_points]

    def check(self) -> list[PluginInfo]:
        """Import every plugin and say which work: like `list`, with what importing revealed."""
        for point in self._entry_points:
            self._load(point)
        return self.list()

    def adapter(self, name: str) -> AdapterSpec:
        """The adapter registered under `name`; raises `PluginError` with the nearest names."""
        spec: AdapterSpec = self._get("adapter", name)
        return spec

    def backbone(self, name: str) -> BackboneSpec:
        """The backbone registered under `name`; raises `PluginError` with the nearest names."""
        spec: BackboneSpec = self._get("backbone", name)
        return spec

    def backbone_for(self, model_type: str) -> BackboneSpec:
        """The backbone that serves a Hugging Face `config.model_type`.

        Raises:
            PluginError: no installed plugin serves it.
        """
        for point in self._entry_points:
            if "backbone" in self._info(point).kind or self._info(point).kind == "unknown":
                self._load(point)
            for spec in self._specs["backbone"].values():
                if model_type in spec.model_types:
                    return spec  # type: ignore[no-any-return]
        served = sorted({kind for spec in self._specs["backbone"].values() for kind in spec.model_types})
        raise PluginError(
            f"No installed backbone plugin serves model type '{model_type}'. Served: {', '.join(served)}. "
            f"To add one, write a backbone plugin: docs/backbone-plugin.md.{self._failure_notes()}"
        )

    def _get(self, kind: str, name: str) -> Any:
        named_so = [point for point in self._entry_points if point.name == name]
        for point in named_so:
            self._load(point)
        if name not in self._specs[kind]:  # one module may register several, under an entry point's other name
            for point in self._entry_points:
                self._load(point)
        self._refuse_two_owners(kind, name)
        if name in self._specs[kind]:
            return self._specs[kind][name]
        for point in named_so:
            if point in self._failures:
                raise PluginError(f"Plugin {_origin(point)} is installed but {self._failures[point]}.")
        known = sorted(self._specs[kind])
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"Did you mean '{near[0]}'? " if near else ""
        raise PluginError(
            f"No {kind} is called '{name}'. {hint}Installed {kind}s: {', '.join(known)}."
            + self._failure_notes()
        )

    def _load(self, point: metadata.EntryPoint) -> None:
        """Import one plugin and run its hooks; a failure is kept with its reason and harms no other."""
        if point in self._loaded or point in self._failures:
            return
        try:
            self._register(point, point.load())
        except PluginError as error:
            self._failures[point] = str(error)
        except Exception as error:  # whatever a stranger's import raises must not take the host down
            self._failures[point] = f"fails to load: {type(error).__name__}: {error}"
        else:
            self._loaded.add(point)
            return
        logger.warning("Plugin %s %s.", _origin(point), self._failures[point])

    def _register(self, point: metadata.EntryPoint, module: Any) -> None:
        """Run the hooks of one module, each plugin in a manager of its own so that none sees another."""
        manager = pluggy.PluginManager(hookspecs.PROJECT)
        manager.add_hookspecs(hookspecs)
        try:
            manager.register(module, name=point.name)
            manager.check_pending()
        except pluggy.PluginValidationError as error:
            known = ", ".join(_KIND_OF_HOOK)
            raise PluginError(f"has a hook that does not exist or has wrong arguments: {error}. "
                              f"Hooks are {known}") from error
        if not any(manager.hook.__dict__[hook].get_hookimpls() for hook in _KIND_OF_HOOK):
            raise PluginError(f"implements none of the hooks {', '.join(_KIND_OF_HOOK)} with @hookimpl")
        pending: list[tuple[str, Any]] = []
        manager.hook.register_adapters(register=lambda spec: pending.append(("adapter", spec)))
        manager.hook.register_backbones(register=lambda spec: pending.append(("backbone", spec)))
        for kind, spec in pending:
            self._owners.setdefault((kind, spec.name), []).append(point)
            self._specs[kind].setdefault(spec.name, spec)

    def _refuse_two_owners(self, kind: str, name: str) -> None:
        owners = self._owners.get((kind, name), [])
        if len(owners) > 1:
            raise PluginError(
                f"The {kind} name '{name}' is registered twice: by {' and by '.join(map(_origin, owners))}. "
                "Uninstall one of the two."
            )

    def _info(self, point: metadata.EntryPoint) -> PluginInfo:
        kind, problem = _read_without_importing(point.module)
        twins = [twin for twin in self._entry_points if twin.name == point.name and twin != point]
        if point in self._loaded:
            status = "loaded"
        elif point in self._failures:
            status = f"broken: {self._failures[point]}"
        elif twins:
            status = f"broken: the name is taken twice, also by {_origin(twins[0])}"
        else:
            status = f"broken: {problem}" if problem else "ready"
        dist = point.dist
        return PluginInfo(
            name=point.name,
            kind=kind,
            module=point.module,
            distribution=dist.name if dist else "unknown",
            version=dist.version if dist else "unknown",
            status=status,
        )

    def _failure_notes(self) -> str:
        notes = [f" Plugin {_origin(point)} {why}." for point, why in self._failures.items()]
        return "".join(notes)


def _origin(point: metadata.EntryPoint) -> str:
    dist = f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown distribution"
    return f"'{point.name}' ({point.module}, from {dist})"


def _read_without_importing(module: str) -> tuple[str, str]:
    """What a plugin's source says: its kind, and the first defect that can be seen without importing it."""
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError) as error:
        return "unknown", f"module {module} cannot be found: {error}"
    if found is None:
        return "unknown", f"module {module} cannot be found"
    if found.origin is None or not found.origin.endswith(".py"):
        return "unknown", ""
    try:
        tree = ast.parse(Path(found.origin).read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError, OSError) as error:
        return "unknown", f"{type(error).__name__}: {error}"
    hooks = [node for node in tree.body if isinstance(node, ast.FunctionDef) and _is_hookimpl(node)]
    kinds = sorted(_KIND_OF_HOOK[node.name] for node in hooks if node.name in _KIND_OF_HOOK)
    return "+".join(kinds) or "unknown", _first_defect(tree, hooks)


def _is_hookimpl(node: ast.FunctionDef) -> bool:
    return any("hookimpl" in ast.unparse(decorator) for decorator in node.decorator_list)


def _first_defect(tree: ast.Module, hooks: list[ast.FunctionDef]) -> str:
    for node in hooks:
        if node.name not in _KIND_OF_HOOK:
            near = difflib.get_close_matches(node.name, _KIND_OF_HOOK, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            return f"no hook is called '{node.name}'{hint}"
    for name in _top_level_imports(tree):
        if importlib.util.find_spec(name) is None:
            return f"it imports '{name}', which is not installed"
    return ""


def _top_level_imports(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module.partition(".")[0]


@cache
def host() -> PluginHost:
    """The host of the installed plugins, made once per process."""
    return PluginHost()


def list_plugins(*, check: bool = False) -> list[PluginInfo]:
    """Every installed plugin, broken ones included.

    Args:
        check: import each plugin and report what that reveals. Without it nothing is imported.
    """
    return host().check() if check else host().list()


def get_adapter(name: str) -> AdapterSpec:
    """The adapter called `name`. Raises `PluginError` that suggests the nearest name."""
    return host().adapter(name)


def get_backbone(name: str) -> BackboneSpec:
    """The backbone called `name`. Raises `PluginError` that suggests the nearest name."""
    return host().backbone(name)


def backbone_for(model_type: str) -> BackboneSpec:
    """The backbone that serves a Hugging Face `config.model_type`, e.g. `qwen2_5_vl`."""
    return host().backbone_for(model_type)
