"""The plugin host: finds plugins by entry point, imports each on first use, keeps a broken one apart.

It knows plugins by name only. Listing reads package metadata and source text; nothing is imported. A plugin that
says no `PLUGIN_API`, or another than the host's, is not imported at all.
"""

from __future__ import annotations

import logging
import operator
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, cached_property
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

import pluggy

from . import hookspecs
from .contracts.plugin_api import NOT_SAID, api_defect
from .contracts.plugin_source import HOOK_NAMES, HOOKS, NOT_KNOWN, Hook, PluginSource, misspelt_hook, read_source
from .contracts.plugin_source import Kind as Kind
from .errors import PixelReferError, PluginCodeError, PluginError, SpliceError, did_you_mean, shown, text_of

if TYPE_CHECKING:
    from .contracts.adapter import AdapterLayout, AdapterSpec
    from .contracts.backbone import BackboneSpec
    from .contracts.benchmark import BenchmarkSpec
    from .contracts.data_format import DataFormatSpec
    from .contracts.region_source import RegionSourceSpec

logger = logging.getLogger(__name__)

GROUP = hookspecs.PROJECT

_MOST_CHARACTERS = 500  # of what is wrong with a plugin
_MOST_NEAREST, _NEAR = 3, 0.45  # model types that a message names, and how alike they must be


@dataclass(frozen=True)
class PluginInfo:
    """One installed plugin, as its package metadata and its source text describe it.

    Attributes:
        name: the entry point's name.
        kind: `adapter`, `backbone`, `region source`, `data format`, `benchmark`, several of them joined by `+`, or
            `unknown` where the source does not tell.
        module: the module that the entry point names.
        distribution: the distribution that declares it.
        version: that distribution's version.
        status: `ready` (nothing seen that would keep it from loading), `loaded`, or `broken: <why>`.
        api: the `PLUGIN_API` that its module says; None where that is not known without importing it.
        specs: kind and name of all that it registers, once it is loaded; empty before.
        training_free: names of its adapters that need no training; before it is loaded, as far as its source tells.
    """

    name: str
    kind: str
    module: str
    distribution: str
    version: str
    status: str
    api: int | None = None
    specs: tuple[tuple[Kind, str], ...] = ()
    training_free: tuple[str, ...] = ()

    @property
    def is_broken(self) -> bool:
        """Whether it is known that this plugin does not work."""
        return self.status.startswith("broken")


class _UnusableError(PluginError):
    """A plugin cannot be used; the text reads on from the plugin's name."""


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
        told = self.point.pattern.match(self.point.value)
        return told["module"] if told else self.point.value

    @cached_property
    def distribution(self) -> tuple[str, str]:
        """Name and version of the distribution that declares it."""
        return _name_and_version(self.point.dist)

    @property
    def origin(self) -> str:
        return f"'{self.name}' ({self.module}, from {' '.join(self.distribution)})"

    @cached_property
    def source(self) -> PluginSource:
        return read_source(self.module)

    def api_defect(self, found: Any) -> str:
        """As `api_defect`, of this plugin."""
        return api_defect(found, module=self.module, distribution=self.distribution[0])

    @property
    def refusal(self) -> str:
        """Why it is not imported, as its source tells: its contract is another, or a hook does not exist."""
        told = self.source.api
        return ("" if told is NOT_KNOWN else self.api_defect(told)) or self.source.misspelt

    @cached_property
    def registered(self) -> dict[Kind, list[Any]] | _UnusableError:
        """What it registers, looked at alone, or why it cannot be used. Imports it."""
        try:
            return _registered_by(self)
        except _UnusableError as error:
            return error

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
        self._warned: set[str] = set()

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

    def benchmark(self, name: str) -> BenchmarkSpec:
        """The benchmark registered under `name`; raises `PluginError` with the nearest name."""
        return cast("BenchmarkSpec", self._get("benchmark", name))

    def names(self, kind: Kind) -> list[str]:
        """The names of everything of one kind that is installed; a broken plugin is logged and left out."""
        self._load_each(plugin for plugin in self._plugins if plugin.may_have(kind))
        return sorted({spec.name for _, spec in self._registered(kind)})

    def training_free(self) -> list[str]:
        """The names of the adapters that need no training; a broken plugin is logged and left out."""
        return sorted({spec.name for _, spec in self._adapters() if spec.is_training_free})

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
            raise self._unserved(model_type, [spec for _, spec in backbones])
        return cast("BackboneSpec", serving[0][1])

    def _unserved(self, model_type: str, backbones: Sequence[BackboneSpec]) -> PluginError:
        """Says which of the installed backbones are nearest, and how one is added."""
        types = sorted({each for spec in backbones for each in spec.model_types})
        return PluginError(
            f"No installed backbone plugin serves model type {shown(model_type)}. Served: {_listed(types)}."
            f"{self.nearest_served(model_type)}{_unknown_to_transformers(model_type)} To add one, write a "
            f"backbone plugin: docs/plugins.md#a-backbone.{self.failure_notes()}"
        )

    def nearest_served(self, model_type: Any) -> str:
        """A sentence that names the served model types which are nearest to another one; empty where none is near."""
        self._load_each(plugin for plugin in self._plugins if plugin.may_have("backbone"))
        served = {each: spec.name for _, spec in self._registered("backbone") for each in spec.model_types}
        near = get_close_matches(text_of(model_type).lower(), served, n=_MOST_NEAREST, cutoff=_NEAR)
        told = [f"'{each}' (backbone '{served[each]}')" for each in near]
        return f" The nearest that is served, by name: {_listed(told)}." if near else ""

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
            self._load_each(named_so)
            if all(plugin.specs is None for plugin in named_so):
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
                raise PluginError(_sentence(plugin, f"is installed but {plugin.failure}"))
        raise self._unknown(kind, name)

    def _unknown(self, kind: Kind, name: Any) -> PluginError:
        self.plugins(check=True)
        known = sorted({spec.name for _, spec in self._registered(kind)})
        hint = did_you_mean(text_of(name).lower(), known, cutoff=0.5) if name else ""
        return PluginError(
            f"No {kind} is called {shown(name)}.{hint} Installed {kind}s: {_listed(known)}.{self.failure_notes()}"
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
                logger.warning("%s", _sentence(plugin, plugin.failure))

    def _load(self, plugin: _Plugin) -> None:
        """Import one plugin and run its hooks; a failure is kept with its reason and harms no other."""
        with self._loading:
            if plugin.specs is not None or plugin.failure:
                return
            registered = plugin.registered
            if isinstance(registered, _UnusableError):
                plugin.failure = registered.message.rstrip(".")
            elif taken := self._taken_name(plugin, registered):
                plugin.failure = taken
            else:
                plugin.specs = registered

    def _taken_name(self, plugin: _Plugin, registered: dict[Kind, list[Any]]) -> str:
        """Which name of what a plugin registers is another's; empty where none is. A plugin that is called alike and is
        broken takes none."""
        for kind, specs in registered.items():
            for spec in specs:
                owners = (other for other in self._plugins if other is not plugin and other.name == spec.name)
                for owner in owners:
                    is_twin = owner.name == plugin.name
                    if not is_twin or not isinstance(owner.registered, _UnusableError):
                        return f"registers the {kind} '{spec.name}', a name that plugin {owner.origin} has"
        return ""

    def _info(self, plugin: _Plugin) -> PluginInfo:
        twins = [other for other in self._plugins if other.name == plugin.name and other is not plugin]
        problem = plugin.failure or plugin.refusal
        if plugin.specs is None:  # one that is loaded shows what its source only lets fear
            problem = problem or plugin.source.defect
        if twins and plugin.specs is None and not isinstance(plugin.__dict__.get("registered"), _UnusableError):
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
            training_free=plugin.source.training_free
            if plugin.specs is None
            else tuple(spec.name for spec in plugin.specs["adapter"] if spec.is_training_free),
        )

    def failure_notes(self) -> str:
        """What is known to be wrong with plugins, for a message about one that is not found; may be empty."""
        told = [(each, each.failure or each.source.unmarked) for each in self._plugins]
        return "".join(f" {_sentence(plugin, what)}" for plugin, what in told if what)

    def warn_once(self, text: str) -> None:
        """Log something about a plugin, the first time that it is said."""
        if text not in self._warned:
            self._warned.add(text)
            logger.warning("%s", text)


def _registered_by(plugin: _Plugin) -> dict[Kind, list[Any]]:
    """Import a plugin and run its hooks.

    Raises:
        _UnusableError: it cannot be used.
    """
    if plugin.refusal:
        raise _UnusableError(plugin.refusal)
    if not plugin.point.pattern.match(plugin.point.value):
        raise _UnusableError(f"names no module in its entry point: expected 'NAME = MODULE', got {plugin.point.value}")
    with _failing("fails to load", plugin.distribution[0]):
        module = plugin.point.load()
        told = getattr(module, "PLUGIN_API", NOT_SAID)
    if defect := plugin.api_defect(told):
        raise _UnusableError(defect)
    return _run_hooks(module, plugin.source.unmarked)


@contextmanager
def _failing(step: str, distribution: str = "") -> Iterator[None]:
    """Whatever a plugin's code raises in this step stays there, as an `_UnusableError`; but Ctrl-C is the user's."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, _UnusableError) or type(error) is KeyboardInterrupt:
            raise
        cause = "" if isinstance(error, PixelReferError) else f"{type(error).__name__}: "
        hint = _install_hint(error, distribution)
        text = f"{step}: {cause}{text_of(error, _MOST_CHARACTERS)}"
        raise _UnusableError(f"{text.rstrip('.')}. {hint}" if hint else text) from error


def _run_hooks(module: Any, unmarked: str) -> dict[Kind, list[Any]]:
    """What one plugin registers. Each has a manager of its own, so that no plugin sees another.

    Args:
        module: the plugin.
        unmarked: see `PluginSource`.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        with _failing("fails to load"):
            manager.register(module)
            marked = [name for name in dir(module) if _is_required(manager.parse_hookimpl_opts(module, name))]
    except _UnusableError as error:
        if isinstance(error.__cause__, pluggy.PluginValidationError):
            raise _UnusableError(f"has a hook with wrong arguments: {text_of(error.__cause__)}") from error
        raise
    if problem := misspelt_hook(marked):
        raise _UnusableError(problem)
    if not manager.get_hookcallers(module):
        hint = f". It {unmarked}" if unmarked else ""
        raise _UnusableError(f"implements none of the hooks {HOOK_NAMES} with @hookimpl{hint}")
    specs: dict[Kind, list[Any]] = {hook.kind: [] for hook in HOOKS.values()}
    for name, hook in HOOKS.items():
        with _failing(f"fails in its hook {name}"):
            getattr(manager.hook, name)(register=_Registrar(hook, specs[hook.kind]))
    if not any(specs.values()):
        raise _UnusableError("registers nothing: its hooks never call register")
    return specs


def _is_required(options: Any) -> bool:
    """Whether a name of a module is a hook that must exist."""
    return options is not None and not options["optionalhook"]


@dataclass
class _Registrar:
    """The `register` that a hook is given: takes specs of one kind, each name once."""

    hook: Hook
    specs: list[Any]

    def __call__(self, spec: Any) -> None:
        wanted = getattr(import_module(f".contracts.{self.hook.module}", __package__), self.hook.spec)
        if not isinstance(spec, wanted):
            got = f"the class {spec.__name__} itself" if isinstance(spec, type) else shown(spec)
            raise _UnusableError(f"must register {self.hook.spec} objects as {self.hook.kind}s, got {got}")
        wanted.__post_init__(spec)  # whatever a class derived from it, or object.__setattr__, left out
        if any(spec.name == earlier.name for earlier in self.specs):
            raise _UnusableError(f"registers the {self.hook.kind} '{spec.name}' twice")
        self.specs.append(spec)


def _sentence(plugin: _Plugin, what: str) -> str:
    return f"Plugin {plugin.origin} {what}{'' if what.endswith('?') else '.'}"


def _unknown_to_transformers(model_type: str) -> str:
    """What to say where transformers itself has no class for a model type; empty where it has one."""
    from transformers import CONFIG_MAPPING  # with a model in hand it is imported already

    if text_of(model_type) in CONFIG_MAPPING:
        return ""
    return (
        f" transformers {metadata.version('transformers')} does not know this type either: the plugin would need a "
        "class of its own, or a release of transformers that has one."
    )


def _both(plugins: Iterable[_Plugin]) -> str:
    return " and ".join(plugin.origin for plugin in plugins)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


# -- distributions -----------------------------------------------------------------------------------------


def _installed_points() -> Iterator[metadata.EntryPoint]:
    """The entry points of the group. As `metadata.entry_points`, but a distribution that cannot be read harms no other.

    Of two folders of one distribution, as an upgrade may leave them, the first on the path counts.
    """
    seen = set()
    for found in metadata.distributions():
        name, _ = _name_and_version(found)
        key = _normal(name)
        if key in seen and name != _UNKNOWN:
            continue
        seen.add(key)
        try:
            yield from found.entry_points.select(group=GROUP)
        except Exception as error:  # not UTF-8, or not as entry points are written
            logger.warning("The entry points of distribution %s cannot be read: %s.", name, text_of(error))


_UNKNOWN = "unknown"


def _normal(name: str) -> str:
    """A distribution's name as all ways of writing it have in common."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _name_and_version(found: metadata.Distribution | None) -> tuple[str, str]:
    try:
        told = found.metadata if found else None
        name, version = (told[key] if told and key in told else _UNKNOWN for key in ("Name", "Version"))
    except Exception:  # not UTF-8, or gone
        return _UNKNOWN, _UNKNOWN
    return text_of(name), text_of(version)


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


def get_benchmark(name: str) -> BenchmarkSpec:
    """The benchmark called `name`. Raises `PluginError` that suggests the nearest name."""
    return host().benchmark(name)


def failure_notes() -> str:
    """What is known to be wrong with installed plugins, for a message about one that is not found; may be empty."""
    return host().failure_notes()


def warn_once(text: str) -> None:
    """Log something about a plugin, the first time in this process that it is said."""
    host().warn_once(text)


def backbone_for(model_type: str, name: str | None = None) -> BackboneSpec:
    """The backbone that serves a Hugging Face `config.model_type`, or the one called `name`."""
    return host().backbone(name) if name else host().backbone_for(model_type)


def installed(kind: Kind) -> list[str]:
    """The names of everything of one kind that is installed; a broken plugin is logged and left out."""
    return host().names(kind)


def distribution_of(kind: Kind, name: str) -> tuple[str, str] | None:
    """Name and version of the distribution that provides a plugin; None where that is not known."""
    return host().distribution_of(kind, name)


def training_free() -> list[str]:
    """The names of the installed adapters that need no training; a broken plugin is logged and left out."""
    return host().training_free()


def nearest_served(model_type: Any) -> str:
    """A sentence that names the served model types which are nearest to another one; empty where none is near."""
    return host().nearest_served(model_type)


def published_models() -> list[str]:
    """The ids of all published models that installed backbones name; a broken plugin is logged and left out."""
    return [model.id for name in installed("backbone") for model in get_backbone(name).models]


@contextmanager
def in_plugin(kind: Kind, name: str, step: str) -> Iterator[None]:
    """Says of an exception which plugin's code it comes out of, and what that was asked to do.

    An exception that memory does not suffice stays what it is, for code that then tries a smaller batch; so does
    Ctrl-C. Any other is wrapped, `SystemExit` too: no plugin ends the process. An error about the plugin has a note
    with the plugin's distribution.

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
        label = f"{kind} '{name}'"
        if error.plugin is None:
            error.plugin, error.step = label, step
        if error.plugin == label and error.distribution is None:
            _tell_distribution(error, kind, name)
        raise
    except BaseException as error:
        if _is_of_memory(error) or type(error) is KeyboardInterrupt:
            raise
        wrapped = PluginCodeError.of(error, f"{kind} '{name}'", step)
        _tell_distribution(wrapped, kind, name)
        if hint := _install_hint(error, (wrapped.distribution or "").partition(" ")[0]):
            wrapped.message, wrapped.cause = f"{wrapped.message} {hint}", f"{wrapped.cause}. {hint}"
        raise wrapped from error


def result_of(kind: Kind, name: str, step: str, wanted: type, function: Callable[..., Any], *args: Any) -> Any:
    """What a plugin's function returns, which must be of a class. Raises as `in_plugin`, else `PluginError`."""
    with in_plugin(kind, name, step):
        result = function(*args)
        require_result(kind, name, step, wanted, result)
    return result


def count_of(kind: Kind, name: str, step: str, function: Callable[..., Any], *args: Any) -> int:
    """The integer, 1 or more, that a plugin's function returns. Raises as `result_of`."""
    with in_plugin(kind, name, step):
        result = function(*args)
        is_count = hasattr(result, "__index__") and not isinstance(result, bool) and operator.index(result) >= 1
        if not is_count:
            raise PluginError(_wrong_result(kind, name, step, "an integer >= 1", result))
    return operator.index(result)


def require_result(kind: Kind, name: str, step: str, wanted: type, result: Any) -> None:
    """Refuse what a plugin's code returned, where it is of another class; within `in_plugin`.

    Raises:
        PluginError: it is.
    """
    if not isinstance(result, wanted):
        raise PluginError(_wrong_result(kind, name, step, f"a {wanted.__name__}", result))


def _wrong_result(kind: Kind, name: str, step: str, expected: str, result: Any) -> str:
    got = shown(result) if result is None or isinstance(result, int | float | str) else f"a {type(result).__name__}"
    return f"{kind.capitalize()} '{name}' must return {expected} from {step}, got {got}. Report it to its author."


def _tell_distribution(error: PixelReferError, kind: Kind, name: str) -> None:
    try:
        provider = distribution_of(kind, name)
    except PluginError:  # not one of the installed
        return
    if provider is not None:
        error.distribution = " ".join(provider)
        if isinstance(error, PluginError | SpliceError):
            error.add_note(error.origin)


def _install_hint(error: BaseException, distribution: str) -> str:
    """What to install, where a module is missing: the extra of the plugin's distribution that has it, if one does."""
    missing = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    try:
        if not missing or find_spec(missing) is not None:
            return ""
        required = metadata.requires(distribution) or []
    except Exception:  # no such distribution, or one that cannot be read
        required = []
    for line in required:
        found = re.match(r"([\w.-]+).*;.*extra *== *['\"]([\w.-]+)['\"]", line)
        if found and _normal(found[1]) == _normal(missing):
            return f"Install it: pip install '{distribution}[{found[2]}]'"
    return f"Install the package that has {missing}"


def _is_of_memory(error: BaseException) -> bool:
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
        f"{_adapters_told()}."
    )


def _adapters_told() -> str:
    """The installed adapters, those that need no training first."""
    free = training_free()
    learned = [name for name in installed("adapter") if name not in free]
    kinds = [(free, "need no training"), (learned, "have to be trained")]
    return "; ".join(f"{', '.join(names)} ({what})" for names, what in kinds if names) or "none"


def adapter_layouts() -> dict[str, AdapterLayout]:
    """Every layout of official checkpoints that installed adapters read, by the checkpoints' `model_type`."""
    return host().adapter_layouts()


def adapter_for_layout(model_type: str) -> AdapterSpec | None:
    """The adapter that reads official checkpoints of a `model_type`; None where no installed one does."""
    return host().adapter_for_layout(model_type)
