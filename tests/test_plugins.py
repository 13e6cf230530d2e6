"""The plugin host, on real `.dist-info` folders: what it lists, loads, refuses and reports."""

import importlib
import inspect
import json
import pickle
import py_compile
import re
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pixelrefer_plugin import (
    DataError,
    PixelReferError,
    PluginError,
    RegionDataset,
    RegionModel,
    RegionProcessor,
    attach,
    get_adapter,
    hookspecs,
    list_plugins,
    plugins,
)
from pixelrefer_plugin.authoring import AdapterSpec, BackboneSpec
from pixelrefer_plugin.contracts import checks
from pixelrefer_plugin.plugins import GROUP, PluginHost, host
from pixelrefer_plugin.testing import check_backbone
from pixelrefer_plugin.testing.mask_checks import masks_survive_saving

DOCS = Path(__file__).parent.parent / "docs"
HOOKS = sorted(name for name, each in inspect.getmembers(hookspecs) if name.startswith("register_") and callable(each))

ADAPTER = """
from dataclasses import dataclass

from pixelrefer_plugin.authoring import AdapterModule, AdapterSpec, Planner, hookimpl

PLUGIN_API = 1

@dataclass(frozen=True)
class Config:
    pass

@hookimpl
def register_adapters(register):
    register(AdapterSpec(name={name!r}, config=Config, planner=Planner, module=AdapterModule))
"""

READER = """
from dataclasses import dataclass

from pixelrefer_plugin.authoring import AdapterLayout, AdapterModule, AdapterSpec, Planner, hookimpl

PLUGIN_API = 1

@dataclass(frozen=True)
class Config:
    pass

@hookimpl
def register_adapters(register):
    layout = AdapterLayout(model="Acme", prefix="acme.", recognises=bool, weights=dict, options=dict)
    register(
        AdapterSpec(
            name={name!r}, config=Config, planner=Planner, module=AdapterModule, layouts={{"acme_7b": layout}}
        )
    )
"""

BACKBONE = """
from pixelrefer_plugin.authoring import BackboneSpec, Crops, Parts, Scene, hookimpl

PLUGIN_API = 1
PARTS = dict(
    model_class=object,
    parts=Parts(vision_tower="v", projector="p", decoder="d", token_embedding="e"),
    crops=Crops(geometry=print, width=print, encode=print),
    images=Scene(grids_hw=print, grids=print),
    lora_targets=dict(decoder="d"),
    tiny=print,
)

@hookimpl
def register_backbones(register):
    register(BackboneSpec(name={name!r}, model_types=({model_type!r},), **PARTS))
"""

CONFIG = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Config:
    size: int = 1
"""

SOURCE = (
    CONFIG
    + """
from pixelrefer_plugin.authoring import RegionSourceSpec, hookimpl

PLUGIN_API = 1

@hookimpl
def register_region_sources(register):
    register(RegionSourceSpec(name={name!r}, config=Config, build=object))
"""
)


FORMAT = (
    CONFIG
    + """
from pixelrefer_plugin.authoring import DataFormatSpec, hookimpl

PLUGIN_API = 1

@hookimpl
def register_data_formats(register):
    register(DataFormatSpec(name={name!r}, config=Config, recognises=bool, open_file=object))
"""
)


BENCHMARK = (
    CONFIG
    + """
from pixelrefer_plugin.authoring import BenchmarkSpec, hookimpl

PLUGIN_API = 1

@hookimpl
def register_benchmarks(register):
    register(BenchmarkSpec(name={name!r}, about="A test.", config=Config, files=(), open=list, score=object))
"""
)


class Site:
    """A folder of distributions, as `site-packages` is one."""

    def __init__(self, root):
        self.root = root

    def install(self, distribution, *, name, source, module=None, version="1.0"):
        """A distribution with one plugin; returns its module's name."""
        module = module or f"plug_{distribution.replace('-', '_')}"
        self.write_module(module, source)
        info = self.root / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = {module}\n")
        return module

    def write_module(self, module, source):
        """A module file, of a package where the name is dotted."""
        path = self.root.joinpath(*module.split(".")).with_suffix(".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)

    def host(self):
        """A host that sees this folder only."""
        found = metadata.distributions(path=[str(self.root)])
        return PluginHost(point for each in found for point in each.entry_points)


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield Site(tmp_path)
    for module in set(sys.modules) - before:
        if module.startswith("plug_"):
            del sys.modules[module]


def only(plugins):
    (plugin,) = plugins
    return plugin


# -- listing -----------------------------------------------------------------------------------------------


def test_builtin_plugins_come_in_by_entry_points():
    kinds = {plugin.name: plugin.kind for plugin in list_plugins() if plugin.distribution == "pixelrefer-plugin"}
    assert kinds == {
        "coordinates": "adapter",
        "crops": "adapter",
        "marks": "adapter",
        "maskpool": "adapter",
        "oci": "adapter",
        "unipixel": "adapter",
        "saot": "adapter",
        "sam2": "region source",
        "coco": "data format",
        "dam": "data format",
        "osprey": "data format",
        "pixelrefer": "data format",
        "refvos": "data format",
        "paco": "benchmark",
        "hc_stvg": "benchmark",
        "regions": "data format",
        "idefics3": "backbone",
        "llava_onevision": "backbone",
        "internvl": "backbone",
        "gemma3": "backbone",
        "gemma4": "backbone",
        "qwen2_5_vl": "backbone",
        "qwen3_vl": "backbone",
        "qwen3_5": "backbone",
        "videollama3": "backbone",
        "pope": "benchmark",
        "videorefer_q": "benchmark",
        "ferret_reasoning": "benchmark",
        "ref_l4_detailed": "benchmark",
        "videorefer_d": "benchmark",
        "dlc_bench": "benchmark",
        "mevis": "benchmark",
        "pixelqa": "benchmark",
        "reasonseg": "benchmark",
    }


def test_every_installed_plugin_works():
    assert [plugin for plugin in list_plugins(check=True) if plugin.is_broken] == []


def test_listing_says_name_kind_module_distribution_version_status(site):
    module = site.install("acme-tokens", name="acme", source=ADAPTER.format(name="acme"), version="3.1")
    plugin = only(site.host().plugins())
    assert (plugin.name, plugin.kind, plugin.module) == ("acme", "adapter", module)
    assert (plugin.distribution, plugin.version, plugin.status) == ("acme-tokens", "3.1", "ready")


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (ADAPTER.format(name="a"), "adapter"),
        (BACKBONE.format(name="b", model_type="m"), "backbone"),
        (SOURCE.format(name="s"), "region source"),
        (FORMAT.format(name="f"), "data format"),
        (ADAPTER.format(name="a") + BACKBONE.format(name="b", model_type="m"), "adapter+backbone"),
        ("from plug_elsewhere import PLUGIN_API, register_adapters", "unknown"),
    ],
    ids=["adapter", "backbone", "region source", "data format", "both", "hook defined elsewhere"],
)
def test_kind_is_read_from_the_source(site, source, kind):
    site.install("acme", name="acme", source=source)
    assert only(site.host().plugins()).kind == kind


def test_listing_imports_nothing_in_a_fresh_process(site):
    site.install("boom", name="boom", module="plug_boom.deep", source="PLUGIN_API = 1\nraise RuntimeError('imported')")
    site.write_module("plug_boom.__init__", "raise RuntimeError('imported')")
    code = """
import json, sys
from pixelrefer_plugin import list_plugins
found = {plugin.name: plugin.status for plugin in list_plugins()}
heavy = [name for name in ("torch", "transformers", "plug_boom", "pixelrefer_saot") if name in sys.modules]
print(json.dumps([found["boom"], found["saot"], heavy]))
"""
    environment = {"PYTHONPATH": str(site.root), "PATH": ""}
    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(out.stdout) == ["ready", "ready", []]


def test_a_module_is_imported_on_first_use_and_once(site):
    module = site.install("acme", name="acme", source=ADAPTER.format(name="acme"))
    other = site.install("other", name="other", source=ADAPTER.format(name="other"))
    served = site.host()
    served.plugins()
    assert module not in sys.modules
    spec = served.adapter("acme")
    assert isinstance(spec, AdapterSpec)
    assert served.adapter("acme") is spec
    assert module in sys.modules
    assert other not in sys.modules
    assert {plugin.name: plugin.status for plugin in served.plugins()} == {"acme": "loaded", "other": "ready"}


def test_plugin_info_is_plain_data(site):
    site.install("acme", name="acme", source=ADAPTER.format(name="acme"))
    plugin = only(site.host().plugins())
    assert pickle.loads(pickle.dumps(plugin)) == plugin


# -- broken plugins ----------------------------------------------------------------------------------------

API = "PLUGIN_API = 1\n"
NOT_A_SPEC = ADAPTER.replace(
    "AdapterSpec(name={name!r}, config=Config, planner=Planner, module=AdapterModule)", "{name!r}"
)
BROKEN = {
    "raises at import": (f"{API}raise RuntimeError('no luck')", "fails to load: RuntimeError: no luck"),
    "exits at import": (f"{API}import sys\nsys.exit('bye')", "fails to load: SystemExit: bye"),
    "stops generating at import": (f"{API}raise GeneratorExit('odd')", "fails to load: GeneratorExit: odd"),
    "raises what cannot be shown": (
        f"{API}class Odd(Exception):\n    __str__ = None\nraise Odd",
        "fails to load: Odd: (Odd, which cannot be shown)",
    ),
    "missing module": (f"{API}import plug_not_there", "No module named 'plug_not_there'"),
    "syntax error": ("def broken(:", "SyntaxError: invalid syntax"),
    "misspelt hook": (ADAPTER.replace("register_adapters", "register_adaptors"), "register_adaptors"),
    "wrong arguments": (ADAPTER.replace("(register)", "(registry)"), "registry"),
    "no hooks": (f"{API}x = 1", "implements none of the hooks register_adapters, register_backbones"),
    "hook without mark": (ADAPTER.replace("@hookimpl", ""), "implements none of the hooks"),
    "hook raises": (
        ADAPTER.replace("register(Ad", "1 / 0; register(Ad"),
        "fails in its hook register_adapters: ZeroDivisionError",
    ),
    "hook exits": (
        ADAPTER.replace("register(Ad", "raise SystemExit(3); register(Ad"),
        "fails in its hook register_adapters: SystemExit: 3",
    ),
    "unknown field": (
        ADAPTER.replace("planner=Planner", "plannner=Planner"),
        "fails in its hook register_adapters: TypeError: AdapterSpec.__init__() got an unexpected keyword argument",
    ),
    "a class for a spec": (
        ADAPTER.replace(
            "AdapterSpec(name={name!r}, config=Config, planner=Planner, module=AdapterModule)", "AdapterSpec"
        ),
        "must register AdapterSpec objects as adapters, got the class AdapterSpec itself",
    ),
    "what cannot be shown for a spec": (
        f"{ADAPTER}    class Odd:\n        __repr__ = None\n    register(Odd())",
        "must register AdapterSpec objects as adapters, got (Odd, which cannot be shown)",
    ),
    "registers nothing": (ADAPTER.replace("register(Ad", "(Ad"), "registers nothing"),
    "not a spec": (NOT_A_SPEC, "must register AdapterSpec objects as adapters, got 'acme'"),
    "spec of the other kind": (
        BACKBONE.replace("register_backbones", "register_adapters").replace("{model_type!r}", "'m'"),
        "must register AdapterSpec objects as adapters",
    ),
    "adapter as region source": (
        ADAPTER.replace("register_adapters", "register_region_sources"),
        "must register RegionSourceSpec objects as region sources",
    ),
    "format as adapter": (
        FORMAT.replace("register_data_formats", "register_adapters"),
        "must register AdapterSpec objects as adapters",
    ),
    "registers a name twice": (
        ADAPTER + "    register(AdapterSpec(name={name!r}, config=Config, planner=Planner, module=AdapterModule))",
        "registers the adapter 'acme' twice",
    ),
}


@pytest.mark.parametrize(("source", "problem"), BROKEN.values(), ids=BROKEN)
def test_a_broken_plugin_is_reported_and_harms_no_other(site, source, problem):
    site.install("acme-broken", name="acme", source=source.replace("{name!r}", "'acme'"), version="2.0")
    site.install("fine", name="fine", source=ADAPTER.format(name="fine"))
    served = site.host()
    assert served.adapter("fine").name == "fine"
    with pytest.raises(PluginError, match=r"'acme' .*from acme-broken 2\.0") as error:
        served.adapter("acme")
    assert problem in str(error.value)
    broken, fine = served.plugins(check=True)
    assert broken.is_broken
    assert problem in broken.status
    assert "\n" not in broken.status
    assert (fine.name, fine.status) == ("fine", "loaded")


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("PLUGIN_API = 1\nimport plug_not_there.deep", "it imports 'plug_not_there', which is not installed"),
        ("def broken(:", "SyntaxError"),
        (ADAPTER.replace("register_adapters", "register_adaptors"), "Did you mean 'register_adapters'?"),
        (
            ADAPTER.replace("register_adapters", "frobnicate"),
            "Hooks are register_adapters, register_backbones",
        ),
    ],
    ids=["missing module", "syntax error", "misspelt hook", "made-up hook"],
)
def test_what_cannot_work_is_seen_without_importing(site, source, problem):
    module = site.install("acme", name="acme", source=source.replace("{name!r}", "'acme'"))
    plugin = only(site.host().plugins())
    assert plugin.is_broken
    assert problem in plugin.status
    assert module not in sys.modules


@pytest.mark.parametrize("module", ["plug_gone", "plug_gone.deep", "json.plug_gone", "not a module!"])
def test_a_module_that_is_not_there_is_reported(site, module):
    site.install("acme", name="acme", source="", module="plug_here")
    (site.root / "acme-1.0.dist-info" / "entry_points.txt").write_text(f"[{GROUP}]\nacme = {module}\n")
    plugin = only(site.host().plugins())
    assert plugin.status == f"broken: module {module} cannot be found"
    with pytest.raises(PluginError, match=r"from acme 1\.0"):
        site.host().adapter("acme")


def test_a_broken_plugin_is_logged_when_another_was_asked_for(site, caplog):
    site.install("broken", name="broken", source=f"{API}raise RuntimeError('no luck')")
    site.install("fine", name="fine", source=BACKBONE.format(name="fine", model_type="fine_vl"))
    assert site.host().backbone_for("fine_vl").name == "fine"
    assert "from broken 1.0) fails to load: RuntimeError: no luck." in caplog.text


def test_optional_imports_are_no_defect(site):
    source = "try:\n    import plug_not_there\nexcept ImportError:\n    pass\n" + ADAPTER.format(name="acme")
    site.install("acme", name="acme", source=source)
    assert only(site.host().plugins()).status == "ready"


# -- the contract's version --------------------------------------------------------------------------------

VERSIONS = {
    "none": ("", r"expected the line PLUGIN_API = 1 in plug_acme, got none.*pip install --upgrade acme\. .*docs/plug"),
    "newer": ("PLUGIN_API = 2", r"for PLUGIN_API 2, pixelrefer-plugin has 1\. .* --upgrade pixelrefer-plugin$"),
    "older": ("PLUGIN_API = 0", r"for PLUGIN_API 0, pixelrefer-plugin has 1\. .* --upgrade acme$"),
    "annotated": ("PLUGIN_API: int = 2", r"for PLUGIN_API 2, "),
    "a text": ("PLUGIN_API = '1'", r"has PLUGIN_API = '1' in plug_acme, expected a whole number: 1"),
    "a boolean": ("PLUGIN_API = True", r"has PLUGIN_API = True in plug_acme, expected a whole number: 1"),
}


@pytest.mark.parametrize(("line", "message"), VERSIONS.values(), ids=VERSIONS)
def test_a_plugin_of_another_contract_is_refused_without_being_imported(site, line, message):
    module = site.install("acme", name="acme", source=ADAPTER.format(name="acme").replace("PLUGIN_API = 1", line))
    served = site.host()
    assert re.search(message, only(served.plugins()).status)
    with pytest.raises(PluginError, match=r"^Plugin 'acme' \(plug_acme, from acme 1\.0\) is installed but ") as error:
        served.adapter("acme")
    assert re.search(message, str(error.value).rstrip("."))
    assert module not in sys.modules


@pytest.mark.parametrize(
    ("line", "is_fine"),
    [
        ("PLUGIN_API = int('1')", True),
        ("PLUGIN_API = int('2')", False),
        ("from plug_numbers import *", True),
        ("from plug_numbers import PLUGIN_API_2 as PLUGIN_API", False),
        ("# PLUGIN_API", False),
    ],
)
def test_a_number_that_the_source_does_not_tell_is_read_from_the_module(site, line, is_fine):
    site.write_module("plug_numbers", "PLUGIN_API, PLUGIN_API_2 = 1, 2")
    site.install("acme", name="acme", source=ADAPTER.format(name="acme").replace("PLUGIN_API = 1", line))
    served = site.host()
    assert only(served.plugins()).status == "ready"
    assert only(served.plugins()).api is None
    assert only(served.plugins(check=True)).is_broken is not is_fine
    assert is_fine or "PLUGIN_API" in only(served.plugins()).status


def test_a_compiled_plugin_tells_its_number_when_it_is_imported(site):
    module = site.install("acme", name="acme", source=ADAPTER.format(name="acme"))
    source = site.root / f"{module}.py"
    py_compile.compile(source, source.with_suffix(".pyc"))
    source.unlink()
    served = site.host()
    assert (only(served.plugins()).kind, only(served.plugins()).api) == ("unknown", None)
    assert served.adapter("acme").name == "acme"


def test_the_number_is_listed(site):
    site.install("acme", name="acme", source=ADAPTER.format(name="acme"))
    assert only(site.host().plugins()).api == 1


# -- what is registered ------------------------------------------------------------------------------------

SPECS = {
    "no name": (SOURCE, "name='acme'", "name=None", r"RegionSourceSpec\.name must be a text of .*; got None"),
    "an empty name": (FORMAT, "name='acme'", "name=''", r"DataFormatSpec\.name must be a text of .*; got ''"),
    "a name in capitals": (ADAPTER, "name='acme'", "name='Acme'", r"AdapterSpec\.name must be .* lowercase .*'Acme'"),
    "a name with a blank": (SOURCE, "name='acme'", "name='a b'", r"RegionSourceSpec\.name must be .*; got 'a b'"),
    "a config object": (
        SOURCE,
        "config=Config",
        "config=Config()",
        r"RegionSourceSpec\.config of 'acme' must be a frozen dataclass .* Give the class Config itself",
    ),
    "a plain class": (FORMAT, "@dataclass(frozen=True)", "", r"config of 'acme' .* the class Config, which is no data"),
    "a config that changes": (FORMAT, "(frozen=True)", "()", r"got Config, which can be changed\. Write @dataclass\("),
    "no default": (SOURCE, "size: int = 1", "size: int", r"got Config, which has no default for size"),
    "no function to build": (
        SOURCE,
        "build=object",
        "build=None",
        r"build of 'acme' must be a function, got None",
    ),
    "no function to read": (
        FORMAT,
        "open_file=object",
        "open_file=3",
        r"open_file of .* must be a function or None",
    ),
    "no way to read": (FORMAT, ", open_file=object", "", r"'acme' must have read_record or open_file, and not both"),
}


@pytest.mark.parametrize(("source", "old", "new", "message"), SPECS.values(), ids=SPECS)
def test_a_spec_that_breaks_its_contract_says_what_was_expected(site, source, old, new, message):
    text = source.format(name="acme")
    assert old in text
    site.install("acme", name="acme", source=text.replace(old, new))
    site.install("fine", name="fine", source=SOURCE.format(name="fine"))
    served = site.host()
    with pytest.raises(
        PluginError, match=r"No region source is called 'other'\. Installed region sources: fine\. Plugin 'acme'"
    ):
        served.region_source("other")
    status = served.plugins()[0].status
    assert re.search(r"^broken: fails in its hook register_\w+: .*" + message, status), status


@dataclass(frozen=True)
class Spec:
    """What the checks of a spec are about."""

    names: object = ("a",)
    patterns: object = field(default_factory=lambda: {"decoder": "a+"})
    name: str = "acme"


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (
            lambda: checks.require_texts(Spec(names="qwen"), "names"),
            r"Spec\.names of 'acme' .* tuple .* Write \('qwen',\)",
        ),
        (lambda: checks.require_texts(Spec(names=("a", 3)), "names"), r"must be a tuple of names, got \('a', 3\)"),
        (lambda: checks.require_texts(Spec(names=()), "names"), r"must be a tuple of names, got \(\)"),
        (lambda: checks.require_patterns(Spec(patterns=None), "patterns"), r"must be a mapping .*, got None"),
        (
            lambda: checks.require_patterns(Spec(patterns={"decoder": "("}), "patterns"),
            r"Spec\.patterns\['decoder'\] of 'acme' must be a regular expression, got '\(': missing \)",
        ),
        (lambda: checks.require_patterns(Spec(patterns={"decoder": 3}), "patterns"), r"regular expression, got 3"),
        (
            lambda: checks.require_known(Spec(patterns={"decodre": "a"}), "patterns", ("decoder", "projector")),
            r"must be among decoder, projector, got 'decodre'",
        ),
    ],
)
def test_checks_for_specs(check, message):
    with pytest.raises(PixelReferError, match=message):
        check()


def test_checks_for_specs_let_sound_ones_pass():
    checks.require_texts(Spec(), "names")
    checks.require_patterns(Spec(), "patterns")
    checks.require_known(Spec(), "patterns", ("decoder",))


def test_all_that_one_plugin_registers_is_listed_once_it_is_loaded(site):
    more = "    register(RegionSourceSpec(name='large', config=Config, build=object))"
    site.install("pack", name="pack", source=SOURCE.format(name="small") + more)
    served = site.host()
    assert only(served.plugins()).specs == ()
    assert only(served.plugins(check=True)).specs == (("region source", "small"), ("region source", "large"))


# -- whatever else is wrong --------------------------------------------------------------------------------


def test_ctrl_c_while_a_plugin_loads_is_the_users(site):
    site.install("acme", name="acme", source="PLUGIN_API = 1\nraise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        site.host().plugins(check=True)


@pytest.mark.parametrize("kind", ["adapter", "backbone", "region_source", "data_format"])
def test_a_misspelt_hook_is_told_wherever_its_plugin_is_asked_for(site, kind):
    source = BACKBONE.format(name="acme", model_type="acme_vl").replace("register_backbones", "register_backbone")
    site.install("acme-vl", name="acme", source=source)
    message = r"from acme-vl 1\.0\) .*has a hook 'register_backbone', which does not exist\. Did you mean 'register_bac"
    with pytest.raises(PluginError, match=message):
        getattr(site.host(), kind)("acme")
    with pytest.raises(PluginError, match=message):
        site.host().adapter("other")
    with pytest.raises(PluginError, match=message):
        site.host().backbone_for("acme_vl")


def test_a_misspelt_hook_that_only_importing_shows_is_told_as_well(site):
    mark = "@hookimpl\ndef"
    source = ADAPTER.format(name="acme").replace(mark, "@hookimpl(trylast=True)\ndef")
    site.install("acme", name="acme", source=source.replace("register_adapters", "register_adaptors"))
    with pytest.raises(PluginError, match=r"'register_adaptors', which does not exist\. Did you mean 'register_adap"):
        site.host().adapter("acme")


def test_a_file_of_no_known_format_tells_of_a_broken_plugin(site, monkeypatch):
    source = FORMAT.format(name="acme").replace("register_data_formats", "register_data_format")
    site.install("acme", name="acme", source=source)
    served = site.host()
    monkeypatch.setattr(plugins, "host", lambda: served)
    with pytest.raises(DataError, match=r"No data format recognises rows.* Did you mean 'register_data_formats'\?"):
        RegionDataset.from_rows([{"acme": 1}], format="auto")


@pytest.mark.parametrize(
    "text",
    [b"Version: 1.0\n", b"Name: \xff\xfe\nVersion: 1.0\n", b"", None],
    ids=["no name", "bytes", "empty", "no file"],
)
def test_a_distribution_without_a_name_that_can_be_read_has_its_plugins(site, text):
    site.install("acme", name="acme", source=ADAPTER.format(name="acme"))
    file = site.root / "acme-1.0.dist-info" / "METADATA"
    file.unlink() if text is None else file.write_bytes(text)
    served = site.host()
    assert only(served.plugins()).distribution == "unknown"
    assert served.adapter("acme").name == "acme"


def test_a_distribution_that_cannot_be_read_harms_no_other(site, caplog):
    site.install("acme", name="acme", source=ADAPTER.format(name="acme"))
    site.install("other", name="other", source=ADAPTER.format(name="other"))
    (site.root / "acme-1.0.dist-info" / "entry_points.txt").write_bytes(b"[pixelrefer_plugin]\n\xff = x\n")
    found = [plugin.name for plugin in PluginHost().plugins()]
    assert "other" in found
    assert "saot" in found
    assert "acme" not in found
    assert "The entry points of distribution acme cannot be read" in caplog.text


@pytest.mark.parametrize("source", ["(" * 3000, "x = '\\0'", "# coding: nonsense\n"], ids=["deep", "null", "encoding"])
def test_a_source_that_cannot_be_parsed_is_listed_as_broken(site, source):
    site.install("acme", name="acme", source=source.replace("\\0", "\0"))
    assert only(site.host().plugins()).is_broken
    with pytest.raises(PluginError, match=r"from acme 1\.0"):
        site.host().adapter("acme")


def test_what_a_source_warns_of_is_not_the_users(site):
    site.install("acme", name="acme", source=ADAPTER.format(name="acme") + "\nx = '\\d'\n")
    assert only(site.host().plugins()).status == "ready"


# -- names -------------------------------------------------------------------------------------------------


def test_one_entry_point_name_in_two_distributions(site):
    site.install("first", name="same", source=ADAPTER.format(name="same"))
    site.install("second", name="same", source=ADAPTER.format(name="same"))
    served = site.host()
    with pytest.raises(PluginError, match=r"Two plugins are called 'same': .*from first 1\.0.*from second 1\.0"):
        served.adapter("same")
    one, two = served.plugins()
    assert "taken twice, also by 'same' (plug_second, from second 1.0)" in one.status
    assert "taken twice, also by 'same' (plug_first, from first 1.0)" in two.status


@pytest.mark.parametrize("source", ["1 / 0", "PLUGIN_API = 1\nraise SystemExit", "def broken(:", "PLUGIN_API = 9"])
@pytest.mark.parametrize("broken", ["a-first", "z-last"])
def test_a_broken_plugin_takes_no_name_from_one_that_works(site, source, broken, caplog):
    site.install("own", name="same", source=FORMAT.format(name="same"))
    site.install(broken, name="same", source=source)
    assert [spec.name for spec in site.host().data_formats()] == ["same"]
    served = site.host()
    assert served.data_format("same").name == "same"
    assert f"from {broken} 1.0" in caplog.text
    status = {plugin.distribution: plugin for plugin in served.plugins(check=True)}
    assert status["own"].status == "loaded"
    assert status[broken].is_broken
    assert "taken twice" not in status[broken].status


def test_equal_entry_points_in_two_distributions(site):
    site.install("first", name="same", source=ADAPTER.format(name="same"), module="plug_same")
    site.install("fork", name="same", source=ADAPTER.format(name="same"), module="plug_same")
    with pytest.raises(PluginError, match=r"from first 1\.0.*from fork 1\.0"):
        site.host().adapter("same")


def test_one_adapter_name_from_two_modules(site):
    site.install("first", name="one", source=ADAPTER.format(name="same"))
    site.install("second", name="two", source=ADAPTER.format(name="same"))
    with pytest.raises(PluginError, match=r"'same' is registered by .*from first 1\.0.*from second 1\.0"):
        site.host().adapter("same")


@pytest.mark.parametrize("intruder_first", [True, False])
def test_a_name_belongs_to_the_entry_point_that_has_it(site, intruder_first):
    site.install("owner", name="same", source=ADAPTER.format(name="same"))
    site.install("intruder", name="other", source=ADAPTER.format(name="same"))
    served = site.host()
    if intruder_first:
        with pytest.raises(PluginError, match=r"from intruder 1\.0.*'same', a name that .*from owner 1\.0"):
            served.adapter("other")
    assert served.adapter("same").name == "same"
    assert [plugin.is_broken for plugin in served.plugins(check=True)] == [True, False]


def test_one_module_may_register_several(site):
    site.install(
        "pack",
        name="pack",
        source=ADAPTER.format(name="small")
        + "    register(AdapterSpec(name='large', config=Config, planner=Planner, module=AdapterModule))",
    )
    served = site.host()
    assert served.adapter("large").name == "large"
    assert served.adapter("small").name == "small"
    with pytest.raises(PluginError, match=r"No adapter is called 'pack'. Installed adapters: large, small\."):
        served.adapter("pack")


@pytest.mark.parametrize("wrong", ["soat", "SAOT", "saott"])
def test_an_unknown_name_suggests_the_nearest(wrong):
    with pytest.raises(PluginError, match=f"No adapter is called '{wrong}'. Did you mean 'saot'?"):
        get_adapter(wrong)


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(PluginError, match=r"No backbone is called 'xyz'\. Installed backbones: .*llava_onevision, "):
        host().backbone("xyz")


def test_an_unknown_region_source_lists_what_there_is(site):
    site.install("acme", name="acme", source=SOURCE.format(name="acme"))
    with pytest.raises(PluginError, match=r"No region source is called 'acne'\. Did you mean 'acme'\?"):
        site.host().region_source("acne")


def test_data_formats_come_by_name_or_all(site, caplog):
    site.install("one", name="zebra", source=FORMAT.format(name="zebra"))
    site.install("two", name="acme", source=FORMAT.format(name="acme"))
    site.install("broken", name="broken", source=FORMAT.format(name="broken") + "\nraise RuntimeError('no luck')")
    adapter = site.install("other", name="other", source=ADAPTER.format(name="other"))
    served = site.host()
    assert [spec.name for spec in served.data_formats()] == ["acme", "zebra"]
    assert served.data_format("acme").name == "acme"
    assert adapter not in sys.modules
    assert "from broken 1.0) fails to load: RuntimeError: no luck." in caplog.text
    with pytest.raises(PluginError, match=r"No data format is called 'acne'\. Did you mean 'acme'\?"):
        served.data_format("acne")


def test_no_plugins_at_all(site):
    with pytest.raises(PluginError, match=r"Installed adapters: none\."):
        site.host().adapter("saot")


# -- model types -------------------------------------------------------------------------------------------


def test_backbone_by_model_type(site):
    site.install("one", name="one", source=BACKBONE.format(name="one", model_type="one_vl"))
    adapter = site.install("two", name="two", source=ADAPTER.format(name="two"))
    source = site.install("three", name="three", source=SOURCE.format(name="three"))
    spec = site.host().backbone_for("one_vl")
    assert isinstance(spec, BackboneSpec)
    assert spec.name == "one"
    assert not {adapter, source} & set(sys.modules)


def test_an_adapter_by_the_model_type_of_an_official_checkpoint(site):
    site.install("acme", name="acme", source=READER.format(name="acme"))
    site.install("other", name="other", source=READER.format(name="other").replace("acme_7b", "acme_2b"))
    site.install("broken", name="broken", source="1 / 0")
    served = site.host()
    assert served.adapter_for_layout("acme_7b").name == "acme"
    assert served.adapter_for_layout("acme_3b") is None
    assert {model_type: layout.model for model_type, layout in served.adapter_layouts().items()} == {
        "acme_2b": "Acme",
        "acme_7b": "Acme",
    }


def test_official_checkpoints_that_two_adapters_read_are_refused(site):
    for name in ("acme", "other"):
        site.install(name, name=name, source=READER.format(name=name))
    with pytest.raises(PluginError, match=r"'acme_7b' are read by 'acme' \(plug_acme, .* Uninstall one of them"):
        site.host().adapter_for_layout("acme_7b")


def test_a_layout_names_a_preset_that_there_is(site):
    source = READER.format(name="acme").replace("options=dict", "preset='best', options=dict")
    site.install("acme", name="acme", source=source)
    with pytest.raises(PluginError, match="Adapter 'acme' has no preset 'best'. Its presets: none"):
        site.host().adapter("acme")


def test_an_unserved_model_type_says_how_to_serve_it():
    with pytest.raises(PluginError, match=r"'gpt2'\. Served: .*qwen2_5_vl.*docs/plugins\.md"):
        host().backbone_for("gpt2")


def test_a_model_type_served_twice_is_refused(site):
    site.install("one", name="one", source=BACKBONE.format(name="one", model_type="same_vl"))
    site.install("two", name="two", source=BACKBONE.format(name="two", model_type="same_vl"))
    with pytest.raises(PluginError, match=r"from one 1\.0.*from two 1\.0.*backbone_plugin='one' or 'two'"):
        site.host().backbone_for("same_vl")


@pytest.fixture
def served_twice(site, monkeypatch):
    """Two plugins for the model type of a built-in one."""
    source = "from pixelrefer_videollama3.backbone import SPEC\n" + BACKBONE.replace("BackboneSpec, ", "").replace(
        "BackboneSpec(name={name!r}, model_types=({model_type!r},), **PARTS)",
        "replace(SPEC, name={name!r})",
    ).replace("PARTS = ", "from dataclasses import replace\nPARTS = ")
    site.install("one", name="one", source=source.format(name="one"))
    site.install("two", name="two", source=source.format(name="two"))
    served = site.host()
    monkeypatch.setattr(served, "adapter", host().adapter)
    monkeypatch.setattr(served, "distribution_of", lambda kind, name: None)
    monkeypatch.setattr(plugins, "host", lambda: served)
    return served


def test_a_model_type_served_twice_is_used_by_name(site, served_twice):
    """As in `attach(..., backbone_plugin=...)`: model and processor follow the choice, not the type."""
    backbone, native = served_twice.backbone("two").tiny(0)
    with pytest.raises(PluginError, match="is served by"):
        attach(backbone, native, adapter="saot")
    model, processor = attach(backbone, native, adapter="saot", backbone_plugin="two")
    model.save_pretrained(site.root / "model", processor, include_backbone=True)
    model.detach()
    RegionModel.from_pretrained(site.root / "model").detach()
    RegionProcessor.from_pretrained(site.root / "model")


def test_the_kit_checks_a_second_plugin_of_a_model_type(served_twice):
    assert "saving_and_loading_changes_nothing" in check_backbone("two")


def test_the_kit_checks_masks_with_a_second_plugin_of_a_model_type(served_twice):
    masks_survive_saving("unipixel", "two")


# -- hooks -------------------------------------------------------------------------------------------------

EXERCISED = {
    "register_adapters": lambda served: served.adapter("acme"),
    "register_backbones": lambda served: served.backbone("acme"),
    "register_region_sources": lambda served: served.region_source("acme"),
    "register_data_formats": lambda served: served.data_format("acme"),
    "register_benchmarks": lambda served: served.benchmark("acme"),
}


def test_every_hook_has_a_test():
    assert sorted(EXERCISED) == HOOKS


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_called(site, hook):
    source = {
        "register_adapters": ADAPTER,
        "register_backbones": BACKBONE,
        "register_region_sources": SOURCE,
        "register_data_formats": FORMAT,
        "register_benchmarks": BENCHMARK,
    }[hook]
    site.install("acme", name="acme", source=source.format(name="acme", model_type="m"))
    assert EXERCISED[hook](site.host()).name == "acme"


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented(hook):
    assert hook in (DOCS / "plugins.md").read_text(encoding="utf-8")
    assert getattr(hookspecs, hook).__doc__


# -- hostile plugins ---------------------------------------------------------------------------------------

ODD = "class Odd(BaseException):\n    def __str__(self):\n        raise SystemExit\n"
HOSTILE = {
    "base exception": (f"{API}{ODD}raise Odd", "fails to load: Odd: (Odd, which cannot be shown)"),
    "an interrupt of its own": (f"{API}class Own(KeyboardInterrupt): pass\nraise Own('x')", "fails to load: Own: x"),
    "an error of this package": (
        f"{API}from pixelrefer_plugin import PluginError\nraise PluginError('No.')",
        "fails to load: No",
    ),
    "a long text": (f"{API}raise ValueError('x' * 10**6)", "ValueError: xxx"),
    "a module that answers oddly": (
        f"{API}def __getattr__(name):\n    raise Odd\n{ODD}",
        "implements none of the hooks",
    ),
    "a module that lists oddly": (f"{API}def __dir__():\n    raise Odd\n{ODD}", "fails to load: Odd"),
    "a deep expression": ("PLUGIN_API = 1\nx = a" + ".b" * 50000, "RecursionError"),
    "a deep decorator": ("PLUGIN_API = 1\n@a" + ".b" * 3000 + "\ndef f(): pass", "plug_acme"),
    "a hook that leaves a deep trace": (
        ADAPTER.replace("register(Ad", "register_adapters(register); register(Ad"),
        "fails in its hook register_adapters: RecursionError",
    ),
    "a name that is none": (SOURCE.replace("name={name!r}", "name=None"), "RegionSourceSpec.name must be"),
    "a name that has no hash": (FORMAT.replace("name={name!r}", "name=[1]"), "DataFormatSpec.name must be"),
    "a huge name": (SOURCE.replace("name={name!r}", "name='x' * 10**6"), "RegionSourceSpec.name must be"),
    "a name set afterwards": (
        SOURCE.replace(
            "    register(Reg",
            "    make = lambda spec: (object.__setattr__(spec, 'name', None), register(spec))\n    make(Reg",
        ),
        "RegionSourceSpec.name must be",
    ),
    "a spec that checks nothing": (
        SOURCE.replace(
            "@hookimpl", "class Spec(RegionSourceSpec):\n    def __post_init__(self): pass\n\n@hookimpl"
        ).replace("RegionSourceSpec(name={name!r}, config=Config,", "Spec(name={name!r}, config=Config(),"),
        "Give the class Config itself",
    ),
    "a planner that is an object": (
        ADAPTER.replace("planner=Planner", "planner=Config()"),
        "AdapterSpec.planner of 'acme' must be a function, got Config(). Give the class Config itself",
    ),
    "a module that is an object": (
        ADAPTER.replace("module=AdapterModule", "module=Config()"),
        "AdapterSpec.module of 'acme' must be a class derived from AdapterModule, got Config(). Give the class Config",
    ),
    "presets that are none": (ADAPTER.replace("planner=", "presets={'a': 3}, planner="), "presets['a'] of 'acme'"),
    "layouts that are none": (ADAPTER.replace("planner=", "layouts={'a': 3}, planner="), "layouts['a'] of 'acme'"),
    "recipes that are none": (ADAPTER.replace("planner=", "recipes={'a': 3}, planner="), "recipes['a'] of 'acme'"),
    "model types in one text": (BACKBONE.replace("({model_type!r},)", "'qwen'"), "BackboneSpec.model_types of 'acme'"),
    "no model types": (BACKBONE.replace("({model_type!r},)", "None"), "BackboneSpec.model_types of 'acme'"),
    "numbers as model types": (BACKBONE.replace("({model_type!r},)", "(1, 2)"), "BackboneSpec.model_types of 'acme'"),
    "a number that is too long": (f"{API}PLUGIN_API = 10**5000", "an integer of 16610 bits"),
    "a hook without its mark": (
        ADAPTER.replace("@hookimpl\n", ""),
        "It has a function 'register_adapters' without @hookimpl above it",
    ),
    "a misspelt hook without its mark": (
        ADAPTER.replace("@hookimpl\n", "").replace("register_adapters", "register_adaptors"),
        "It has a function 'register_adaptors', which is no hook. Did you mean 'register_adapters'",
    ),
}


@pytest.mark.parametrize(("source", "problem"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_plugin_harms_no_other(site, source, problem):
    site.install("acme", name="acme", source=source.replace("{name!r}", "'acme'").replace("{model_type!r}", "'m'"))
    for kind, text in (("adapter", ADAPTER), ("source", SOURCE), ("format", FORMAT)):
        site.install(f"fine-{kind}", name=f"fine-{kind}", source=text.format(name=f"fine-{kind}"))
    served = site.host()
    assert len(served.plugins()) == 4
    assert served.adapter("fine-adapter").name == "fine-adapter"
    assert [spec.name for spec in served.data_formats()] == ["fine-format"]
    for ask in (served.adapter, served.region_source, served.backbone, served.data_format, served.backbone_for):
        with pytest.raises(PluginError, match="acme") as error:
            ask("other")
        assert len(str(error.value)) < 1500
    broken = served.plugins(check=True)[0]
    assert broken.is_broken
    assert problem in f"{broken.status} {broken.module}"
    assert len(broken.status) < 700
    assert "\n" not in broken.status


@pytest.mark.parametrize("name", [None, 5, [], "", "x" * 10**6, b"saot", "a\nb"])
def test_a_name_may_be_anything(site, name):
    site.install("acme", name="acme", source=ADAPTER.format(name="acme"))
    served = site.host()
    for ask in (served.adapter, served.region_source, served.backbone, served.data_format, served.backbone_for):
        with pytest.raises(PluginError, match=r"^No ") as error:
            ask(name)
        assert len(str(error.value)) < 500
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text", [b"acme\n", b"[pixelrefer_plugin\nacme = x", b"[pixelrefer_plugin]\nacme\n", b"\0\0", b"\xff"]
)
def test_entry_points_that_are_none_harm_no_other(site, text, caplog):
    site.install("acme", name="acme", source=ADAPTER.format(name="acme"))
    (site.root / "acme-1.0.dist-info" / "entry_points.txt").write_bytes(text)
    assert "saot" in [plugin.name for plugin in PluginHost().plugins()]


@pytest.mark.parametrize("value", ["plug_acme:", "plug_acme:a b", "= x", "plug_acme [extra", "1 2 3"])
def test_an_entry_point_that_names_no_module_is_broken(site, value):
    site.install("acme", name="acme", source=ADAPTER.format(name="acme"))
    (site.root / "acme-1.0.dist-info" / "entry_points.txt").write_text(f"[{GROUP}]\nacme = {value}\n")
    served = site.host()
    assert [plugin.name for plugin in served.plugins()] == ["acme"]
    with pytest.raises(PluginError, match=r"from acme 1\.0"):
        served.adapter("acme")
    assert only(served.plugins(check=True)).is_broken


def test_an_entry_point_may_have_extras(site):
    site.install("acme", name="acme", source=ADAPTER.format(name="acme"))
    (site.root / "acme-1.0.dist-info" / "entry_points.txt").write_text(f"[{GROUP}]\nacme = plug_acme [fast]\n")
    served = site.host()
    assert (only(served.plugins()).kind, only(served.plugins()).module) == ("adapter", "plug_acme")
    assert served.adapter("acme").name == "acme"


def test_a_plugin_that_loads_is_not_broken_by_what_its_source_lets_fear(site):
    source = ADAPTER.format(name="acme").replace("PLUGIN_API = 1", "PLUGIN_API = 1\nimport plug_late")
    site.install("acme", name="acme", source=source)
    served = site.host()
    assert "it imports 'plug_late'" in only(served.plugins()).status
    site.write_module("plug_late", "")
    assert only(served.plugins(check=True)).status == "loaded"


@pytest.mark.parametrize("kind", ["adapter", "backbone", "region_source", "data_format"])
def test_a_function_that_looks_like_a_hook_is_told_where_something_is_not_found(site, kind):
    """The plugin works: one of its hooks is found, another lacks its mark."""
    unmarked = "\ndef register_backbone(register):\n    pass\n"
    site.install("acme", name="acme", source=ADAPTER.format(name="acme") + unmarked)
    with pytest.raises(PluginError, match=r"Plugin 'acme' .* has a function 'register_backbone', which is no hook"):
        getattr(site.host(), kind)("other")
    with pytest.raises(PluginError, match=r"has a function 'register_backbone', .* Did you mean 'register_backbones'"):
        site.host().backbone_for("acme_vl")


LINES = st.sampled_from(
    [
        f"[{GROUP}]",
        "acme = plug_acme",
        "Name: acme",
        "PLUGIN_API = 1",
        "@hookimpl",
        "def register_adapters(r): pass",
        "= = [",
    ]
)
FILES = st.binary(max_size=200) | st.lists(st.text(max_size=20) | LINES, max_size=8).map(
    lambda lines: "\n".join(lines).encode("utf-8", "surrogatepass")
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["METADATA", "entry_points.txt", "plug_acme.py"]), FILES)
def test_whatever_stands_in_a_plugins_files_listing_goes_on(site, file, content):
    info = site.root / "acme-1.0.dist-info"
    if not info.exists():
        site.install("acme", name="acme", source="")
    for name, sound in {
        "METADATA": b"Name: acme\nVersion: 1.0\n",
        "entry_points.txt": f"[{GROUP}]\nacme = plug_acme\n".encode(),
        "plug_acme.py": ADAPTER.format(name="acme").encode(),
    }.items():
        path = site.root / name if name.endswith(".py") else info / name
        path.write_bytes(content if name == file else sound)
    importlib.invalidate_caches()
    found = PluginHost().plugins()
    assert "saot" in [plugin.name for plugin in found]
    assert json.loads(json.dumps([asdict(plugin) for plugin in found]))
