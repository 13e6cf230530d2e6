"""The plugin host: finds plugins by entry point, imports each on first use, keeps a broken one apart.

It knows plugins by name only. Listing reads package metadata and source text; nothing is imported. A plugin that
says no `PLUGIN_API`, or another than the host's, is not imported at all.
"""

from __future__ import annotations

import ast
import difflib
import logging
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module, metadata
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import pluggy

from . import hookspecs
from .contracts.checks import require_name
from .contracts.plugin_api import NOT_SAID, api_defect
from .errors import PixelReferError, PluginCodeError, PluginError, SpliceError

if TYPE_CHECKING:
    from .contracts.adapter import AdapterLayout, AdapterSpec
    from .contracts.backbone import BackboneSpec
    from .contracts.data_format import DataFormatSpec
    from .contracts.region_source import RegionSourceSpec

logger = logging.getLogger(__name__)

GROUP = hookspecs.PROJECT

Kind = Literal["adapter", "backbone", "region source", "data format"]


class _Hook(NamedTuple):
    """What a hook registers: things of one kind, each described by a class of a module of `contracts`."""

    kind: Kind
    module: str  # by name: listing plugins imports no contracts
    spec: str


_HOOKS = {
    "register_adapters": _Hook("adapter", "adapter", "AdapterSpec"),
    "register_backbones": _Hook("backbone", "backbone", "BackboneSpec"),
    "register_region_sources": _Hook("region source", "region_source", "RegionSourceSpec"),
    "register_data_formats": _Hook("data format", "data_format", "DataFormatSpec"),
}
_HOOK_NAMES = ", ".join(_HOOKS)


@dataclass(frozen=True)
class PluginInfo:
    """One installed plugin, as its package metadata and its source text describe it.

    Attributes:
        name: the entry point's name.
        kind: `adapter`, `backbone`, `region source`, `data format`, several of them joined by `+`, or `unknown` where
            the source does not tell.
        module: the module that the entry point names.
        distribution: the distribution that declares it.
        version: that distribution's version.
        status: `ready` (nothing seen that would keep it from loading), `loaded`, or `broken: <why>`.
        api: the `PLUGIN_API` that its module says; None where that is not known without importing it.
        specs: kind and name of all that it registers, once it is loaded; empty before.
    """

    name: str
    kind: str
    module: str
    distribution: str
    version: str
    status: str
    api: int | None = None
    specs: tuple[tuple[str, str], ...] = ()

    @property
    def is_broken(self) -> bool:
        """Whether it is known that this plugin does not work."""
        return self.status.startswith("broken")


@dataclass(eq=False)  # by identity: two distributions may declare equal entry points
class _Plugin:
    """One entry point, what its source tells, and what became of loading it."""

    point: metadata.EntryPoint
    failure: str = ""
    specs: dict[Kind, list[Any]] | None = None  # what it registered, once loaded

    @property
    def name(self) -> str:
        return self.point.name

    @property
    def module(self) -> str:
        return self.point.value.partition(":")[0].strip()

    @cached_property
    def distribution(self) -> tuple[str, str]:
        """Name and version of the distribution that declares it."""
        return _name_and_version(self.point.dist)

    @property
    def origin(self) -> str:
        return f"'{self.name}' ({self.module}, from {' '.join(self.distribution)})"

    @cached_property
    def source(self) -> _Source:
        return _read_source(self.module)

    def api_defect(self, found: Any) -> str:
        """As `api_defect`, of this plugin."""
        return api_defect(found, module=self.module, distribution=self.distribution[0])

    @property
    def refusal(self) -> str:
        """Why it is not imported, as its source tells: its contract is another, or a hook does not exist."""
        told = self.source.api
        return ("" if told is _NOT_KNOWN else self.api_defect(told)) or self.source.misspelt

    def may_have(self, kind: Kind) -> bool:
        """Whether it registers something of this kind, as far as its source tells; or would, were it not refused."""
        return not self.source.kinds or kind in self.source.kinds or bool(self.refusal)


class PluginHost:
    """Loads plugins of one entry-point group and hands out what they register.

    A name belongs to the plugin whose entry point has it, whichever is loaded first. A name that no entry
    point has belongs to the one plugin that registers it.

    Args:
        entry_points: the entry points to serve; by default those installed in the group.
    """

    def __init__(self, entry_points: Iterable[metadata.EntryPoint] | None = None) -> None:
        found = _installed_points() if entry_points is None else entry_points
        plugins = [_Plugin(point) for point in found]
        self._plugins = sorted(plugins, key=lambda plugin: (plugin.name, plugin.distribution))
        self._loading = threading.RLock()

    def plugins(self, *, check: bool = False) -> list[PluginInfo]:
        """Every installed plugin, broken ones included.

        Args:
            check: import each one and report what that reveals. Without it nothing is imported.
        """
        if check:
            for plugin in self._plugins:
                self._load(plugin)
        return [self._info(plugin) for plugin in self._plugins]

    def adapter(self, name: str) -> AdapterSpec:
        """The adapter registered under `name`; raises `PluginError` with the nearest name."""
        return cast("AdapterSpec", self._get("adapter", name))

    def backbone(self, name: str) -> BackboneSpec:
        """The backbone registered under `name`; raises `PluginError` with the nearest name."""
        return cast("BackboneSpec", self._get("backbone", name))

    def region_source(self, name: str) -> RegionSourceSpec:
        """The region source registered under `name`; raises `PluginError` with the nearest name."""
        return cast("RegionSourceSpec", self._get("region source", name))

    def data_format(self, name: str) -> DataFormatSpec:
        """The data format registered under `name`; raises `PluginError` with the nearest name."""
        return cast("DataFormatSpec", self._get("data format", name))

    def data_formats(self) -> list[DataFormatSpec]:
        """Every installed data format, by name; a broken plugin is logged and left out."""
        self._load_each(plugin for plugin in self._plugins if plugin.may_have("data format"))
        return sorted((spec for _, spec in self._registered("data format")), key=lambda spec: spec.name)

    def names(self, kind: Kind) -> list[str]:
        """The names of everything of one kind that is installed; a broken plugin is logged and left out."""
        self._load_each(plugin for plugin in self._plugins if plugin.may_have(kind))
        return sorted({spec.name for _, spec in self._registered(kind)})

    def distribution_of(self, kind: Kind, name: str) -> tuple[str, str] | None:
        """Name and version of the distribution that provides it; None where its entry point belongs to none.

        Raises:
            PluginError: there is none of that kind and name.
        """
        spec = self._get(kind, name)
        plugin = next(plugin for plugin, each in self._registered(kind) if each is spec)
        return plugin.distribution if plugin.point.dist else None

    def backbone_for(self, model_type: str) -> BackboneSpec:
        """The backbone that serves a Hugging Face `config.model_type`, its own or one of its other layouts.

        Raises:
            PluginError: no installed plugin serves it, or more than one does.
        """
        self._load_each(plugin for plugin in self._plugins if plugin.may_have("backbone"))
        backbones = list(self._registered("backbone"))
        serving = [(plugin, spec) for plugin, spec in backbones if model_type in (*spec.model_types, *spec.layouts)]
        if len(serving) > 1:
            names = " or ".join(f"'{spec.name}'" for _, spec in serving)
            raise PluginError(
                f"Model type '{model_type}' is served by {_both(plugin for plugin, _ in serving)}. "
                f"Say which: attach(..., backbone_plugin={names}); or uninstall one."
            )
        if not serving:
            served = sorted({each for _, spec in backbones for each in spec.model_types})
            raise PluginError(
                f"No installed backbone plugin serves model type '{model_type}'. Served: {_listed(served)}. "
                f"To add one, write a backbone plugin: docs/plugins.md.{self.failure_notes()}"
            )
        return cast("BackboneSpec", serving[0][1])

    def adapter_layouts(self) -> dict[str, AdapterLayout]:
        """Every layout of official checkpoints that installed adapters read, by the checkpoints' `model_type`."""
        found = {model_type: layout for _, spec in self._adapters() for model_type, layout in spec.layouts.items()}
        return dict(sorted(found.items()))

    def adapter_for_layout(self, model_type: str) -> AdapterSpec | None:
        """The adapter that reads official checkpoints of a `model_type`; None where no installed one does.

        Raises:
            PluginError: more than one does.
        """
        reading = [(plugin, spec) for plugin, spec in self._adapters() if model_type in spec.layouts]
        if len(reading) > 1:
            raise PluginError(
                f"Official checkpoints of model type '{model_type}' are read by "
                f"{_both(plugin for plugin, _ in reading)}. Uninstall one of them."
            )
        return reading[0][1] if reading else None

    def _adapters(self) -> list[tuple[_Plugin, AdapterSpec]]:
        self._load_each(plugin for plugin in self._plugins if plugin.may_have("adapter"))
        return list(self._registered("adapter"))

    def _get(self, kind: Kind, name: str) -> Any:
        named_so = [plugin for plugin in self._plugins if plugin.name == name]
        if len(named_so) > 1:
            raise PluginError(f"Two plugins are called '{name}': {_both(named_so)}. Uninstall one of them.")
        for plugin in named_so:
            self._load(plugin)
        if not named_so:  # a plugin may register more than its entry point's name
            self._load_each(plugin for plugin in self._plugins if plugin.may_have(kind))
        found = [(plugin, spec) for plugin, spec in self._registered(kind) if spec.name == name]
        if len(found) > 1:
            raise PluginError(
                f"The {kind} '{name}' is registered by {_both(plugin for plugin, _ in found)}. Uninstall one of them."
            )
        if found:
            return found[0][1]
        for plugin in named_so:
            if plugin.failure:
                raise PluginError(f"Plugin {plugin.origin} is installed but {plugin.failure}.")
        raise self._unknown(kind, name)

    def _unknown(self, kind: Kind, name: str) -> PluginError:
        self.plugins(check=True)
        known = sorted({spec.name for _, spec in self._registered(kind)})
        near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
        hint = f"Did you mean '{near[0]}'? " if near else ""
        return PluginError(
            f"No {kind} is called '{name}'. {hint}Installed {kind}s: {_listed(known)}.{self.failure_notes()}"
        )

    def _registered(self, kind: Kind) -> Iterator[tuple[_Plugin, Any]]:
        for plugin in self._plugins:
            for spec in (plugin.specs or {}).get(kind, []):
                yield plugin, spec

    def _load_each(self, plugins: Iterable[_Plugin]) -> None:
        """Load plugins that were not asked for by name; log those that turn out broken."""
        for plugin in plugins:
            known = plugin.failure
            self._load(plugin)
            if plugin.failure and not known:
                logger.warning("Plugin %s %s.", plugin.origin, plugin.failure)

    def _load(self, plugin: _Plugin) -> None:
        """Import one plugin and run its hooks; a failure is kept with its reason and harms no other."""
        with self._loading:
            if plugin.specs is not None or plugin.failure:
                return
            try:
                specs = _registered_by(plugin)
                self._refuse_taken_names(plugin, specs)
            except PluginError as error:
                plugin.failure = _text_of(error).rstrip(".")
            else:
                plugin.specs = specs

    def _refuse_taken_names(self, plugin: _Plugin, specs: dict[Kind, list[Any]]) -> None:
        for kind, registered in specs.items():
            for spec in registered:
                for other in self._plugins:
                    if other is not plugin and other.name == spec.name:
                        raise PluginError(f"registers the {kind} '{spec.name}', a name that plugin {other.origin} has")

    def _info(self, plugin: _Plugin) -> PluginInfo:
        twins = [other for other in self._plugins if other.name == plugin.name and other is not plugin]
        problem = plugin.failure or plugin.refusal or plugin.source.defect
        if twins:
            problem = f"the name is taken twice, also by {twins[0].origin}"
        status = "ready" if plugin.specs is None else "loaded"
        told = plugin.source.api
        return PluginInfo(
            plugin.name,
            plugin.source.kind,
            plugin.module,
            *plugin.distribution,
            status=f"broken: {problem}" if problem else status,
            api=told if type(told) is int else None,
            specs=tuple((kind, spec.name) for kind, specs in (plugin.specs or {}).items() for spec in specs),
        )

    def failure_notes(self) -> str:
        """What is known to be wrong with plugins, for a message about one that is not found; may be empty."""
        return "".join(f" Plugin {each.origin} {each.failure}." for each in self._plugins if each.failure)


def _registered_by(plugin: _Plugin) -> dict[Kind, list[Any]]:
    """Import a plugin and run its hooks.

    Raises:
        PluginError: it cannot be used; the text reads on from the plugin's name.
    """
    if plugin.refusal:
        raise PluginError(plugin.refusal)
    with _failing("fails to load"):
        module = plugin.point.load()
        if defect := plugin.api_defect(getattr(module, "PLUGIN_API", NOT_SAID)):
            raise PluginError(defect)
        return _run_hooks(module)


@contextmanager
def _failing(step: str) -> Iterator[None]:
    """Whatever a plugin's code raises in this step stays there, as a `PluginError`; but Ctrl-C is the user's."""
    try:
        yield
    except (PluginError, KeyboardInterrupt):
        raise
    except PixelReferError as error:
        raise PluginError(f"{step}: {_text_of(error)}") from error
    except BaseException as error:
        raise PluginError(f"{step}: {type(error).__name__}: {_text_of(error)}") from error


def _run_hooks(module: Any) -> dict[Kind, list[Any]]:
    """What one plugin registers. Each has a manager of its own, so that no plugin sees another."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(module)
    except pluggy.PluginValidationError as error:
        raise PluginError(f"has a hook with wrong arguments: {_text_of(error)}") from error
    marked = [name for name in dir(module) if _is_required(manager.parse_hookimpl_opts(module, name))]
    if problem := _misspelt(marked):
        raise PluginError(problem)
    if not manager.get_hookcallers(module):
        raise PluginError(f"implements none of the hooks {_HOOK_NAMES} with @hookimpl")
    specs: dict[Kind, list[Any]] = {hook.kind: [] for hook in _HOOKS.values()}
    for name, hook in _HOOKS.items():
        with _failing(f"fails in its hook {name}"):
            getattr(manager.hook, name)(register=_Registrar(hook, specs[hook.kind]))
    if not any(specs.values()):
        raise PluginError("registers nothing: its hooks never call register")
    return specs


def _is_required(options: Any) -> bool:
    """Whether a name of a module is a hook that must exist."""
    return options is not None and not options["optionalhook"]


@dataclass
class _Registrar:
    """The `register` that a hook is given: takes specs of one kind, each name once."""

    hook: _Hook
    specs: list[Any]

    def __call__(self, spec: Any) -> None:
        wanted = getattr(import_module(f".contracts.{self.hook.module}", __package__), self.hook.spec)
        if not isinstance(spec, wanted):
            got = f"the class {spec.__name__} itself" if isinstance(spec, type) else _text_of(spec, repr)
            raise PluginError(f"must register {self.hook.spec} objects as {self.hook.kind}s, got {got}")
        require_name(spec)
        if any(spec.name == earlier.name for earlier in self.specs):
            raise PluginError(f"registers the {self.hook.kind} '{spec.name}' twice")
        self.specs.append(spec)


_NOT_KNOWN: Any = object()
"""In place of a plugin's `PLUGIN_API`, where only importing it tells."""


@dataclass(frozen=True)
class _Source:
    """What a plugin's source text tells: its kinds, its `PLUGIN_API`, and defects visible without importing it."""

    kinds: tuple[Kind, ...] = ()
    api: Any = _NOT_KNOWN
    misspelt: str = ""
    defect: str = ""

    @property
    def kind(self) -> str:
        """The kinds as users see them."""
        return "+".join(self.kinds) or "unknown"


def _read_source(module: str) -> _Source:
    found = _find_without_importing(module)
    if found is None:
        return _Source(defect=f"module {module} cannot be found")
    if found.origin is None or not found.origin.endswith(".py"):
        return _Source()
    try:
        text = Path(found.origin).read_bytes()
        tree = _parsed(text)
    except (SyntaxError, ValueError, OSError, RecursionError, MemoryError) as error:
        return _Source(defect=f"{type(error).__name__}: {error}")
    hooks = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and _is_hook(node)]
    kinds = sorted({_HOOKS[name].kind for name in hooks if name in _HOOKS})
    return _Source(tuple(kinds), _told_api(tree, text), _misspelt(hooks), _missing_import(tree))


def _parsed(text: bytes) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a stranger's text, of which only some is of interest
        return ast.parse(text)


def _told_api(tree: ast.Module, text: bytes) -> Any:
    """The `PLUGIN_API` of a module's text; `_NOT_KNOWN` where it is not a literal, or may come by `import *`."""
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        is_it = any(isinstance(target, ast.Name) and target.id == "PLUGIN_API" for target in targets)
        if is_it and isinstance(value := getattr(node, "value", None), ast.Constant):
            return value.value
    has_stars = any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in tree.body)
    return _NOT_KNOWN if has_stars or b"PLUGIN_API" in text else NOT_SAID


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
    except (ImportError, ValueError):
        return None
    return found


def _is_hook(node: ast.FunctionDef) -> bool:
    """Whether it is marked by a bare `@hookimpl`; one with options is left for pluggy to judge."""
    return any(ast.unparse(each).split(".")[-1] == "hookimpl" for each in node.decorator_list)


def _misspelt(hooks: Iterable[str]) -> str:
    for name in hooks:
        if name not in _HOOKS:
            near = difflib.get_close_matches(name, _HOOKS, n=1)
            hint = f"Did you mean '{near[0]}'?" if near else f"Hooks are {_HOOK_NAMES}"
            return f"has a hook '{name}', which does not exist. {hint}"
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


def _both(plugins: Iterable[_Plugin]) -> str:
    return " and ".join(plugin.origin for plugin in plugins)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _text_of(value: object, show: Callable[[object], str] = str) -> str:
    """A stranger's object as text, on one line."""
    try:
        return " ".join(show(value).split())
    except KeyboardInterrupt:
        raise
    except BaseException:  # from its own __str__ or __repr__
        return f"({type(value).__name__}, which cannot be shown)"


# -- distributions -----------------------------------------------------------------------------------------


def _installed_points() -> Iterator[metadata.EntryPoint]:
    """The entry points of the group. As `metadata.entry_points`, but a distribution that cannot be read harms no other.

    Of two folders of one distribution, as an upgrade may leave them, the first on the path counts.
    """
    seen = set()
    for found in metadata.distributions():
        name, _ = _name_and_version(found)
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in seen and name != _UNKNOWN:
            continue
        seen.add(key)
        try:
            yield from found.entry_points.select(group=GROUP)
        except (ValueError, AttributeError) as error:  # not UTF-8, or not as entry points are written
            logger.warning("The entry points of distribution %s cannot be read: %s.", name, _text_of(error))


_UNKNOWN = "unknown"


def _name_and_version(found: metadata.Distribution | None) -> tuple[str, str]:
    try:
        told = found.metadata if found else None
    except (ValueError, OSError):  # not UTF-8, or gone
        told = None
    name, version = (told[key] if told and key in told else _UNKNOWN for key in ("Name", "Version"))
    return name, version


@cache
def host() -> PluginHost:
    """The host of the installed plugins, made once per process."""
    return PluginHost()


def list_plugins(*, check: bool = False) -> list[PluginInfo]:
    """Every installed plugin, broken ones included.

    Args:
        check: import each plugin and report what that reveals. Without it nothing is imported.
    """
    return host().plugins(check=check)


def get_adapter(name: str) -> AdapterSpec:
    """The adapter called `name`. Raises `PluginError` that suggests the nearest name."""
    return host().adapter(name)


def get_backbone(name: str) -> BackboneSpec:
    """The backbone called `name`. Raises `PluginError` that suggests the nearest name."""
    return host().backbone(name)


def get_region_source(name: str) -> RegionSourceSpec:
    """The region source called `name`. Raises `PluginError` that suggests the nearest name."""
    return host().region_source(name)


def get_data_format(name: str) -> DataFormatSpec:
    """The data format called `name`. Raises `PluginError` that suggests the nearest name."""
    return host().data_format(name)


def list_data_formats() -> list[DataFormatSpec]:
    """Every installed data format, by name."""
    return host().data_formats()


def failure_notes() -> str:
    """What is known to be wrong with installed plugins, for a message about one that is not found; may be empty."""
    return host().failure_notes()


def backbone_for(model_type: str, name: str | None = None) -> BackboneSpec:
    """The backbone that serves a Hugging Face `config.model_type`, or the one called `name`."""
    return host().backbone(name) if name else host().backbone_for(model_type)


def installed(kind: Kind) -> list[str]:
    """The names of everything of one kind that is installed; a broken plugin is logged and left out."""
    return host().names(kind)


def distribution_of(kind: Kind, name: str) -> tuple[str, str] | None:
    """Name and version of the distribution that provides a plugin; None where that is not known."""
    return host().distribution_of(kind, name)


@contextmanager
def in_plugin(kind: Kind, name: str, step: str) -> Iterator[None]:
    """Says of an exception which plugin's code it comes out of, and what that was asked to do.

    An exception that memory does not suffice stays what it is, for code that then tries a smaller batch. An error about
    the plugin has a note with the plugin's distribution.

    Args:
        kind: what the plugin is.
        name: what users call it.
        step: such as `plan`.

    Raises:
        PluginCodeError: in place of an exception that is not of this package, once; that one is its cause.
    """
    try:
        yield
    except PixelReferError as error:
        if error.plugin is None:
            error.plugin, error.step = f"{kind} '{name}'", step
            _tell_distribution(error, kind, name)
        raise
    except Exception as error:
        if _is_of_memory(error):
            raise
        wrapped = PluginCodeError.of(error, f"{kind} '{name}'", step)
        _tell_distribution(wrapped, kind, name)
        raise wrapped from error


def _tell_distribution(error: PixelReferError, kind: Kind, name: str) -> None:
    try:
        provider = distribution_of(kind, name)
    except PluginError:  # not one of the installed
        return
    if provider is not None:
        error.distribution = " ".join(provider)
        if isinstance(error, PluginError | SpliceError):
            error.add_note(error.origin)


def _is_of_memory(error: Exception) -> bool:
    """Python's MemoryError or torch's OutOfMemoryError; listing plugins does not import torch."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def require_adapter_name(name: str | None, *, write: str = "adapter=") -> str:
    """Refuse to choose an adapter for the user.

    Args:
        name: what the user says.
        write: what they write before a name, for the message.

    Raises:
        PluginError: they say nothing.
    """
    if name is not None:
        return name
    raise PluginError(
        f"A plain backbone needs an adapter, and none is named. Write {write}NAME with one of the installed adapters: "
        f"{_listed(installed('adapter'))}."
    )


def adapter_layouts() -> dict[str, AdapterLayout]:
    """Every layout of official checkpoints that installed adapters read, by the checkpoints' `model_type`."""
    return host().adapter_layouts()


def adapter_for_layout(model_type: str) -> AdapterSpec | None:
    """The adapter that reads official checkpoints of a `model_type`; None where no installed one does."""
    return host().adapter_for_layout(model_type)
