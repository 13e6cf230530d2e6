"""The plugin host, on real `.dist-info` folders: what it lists, loads, refuses and reports."""

import inspect
import json
import pickle
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from pixelrefer_plugin import (
    AdapterSpec,
    BackboneSpec,
    PluginError,
    RegionModel,
    RegionProcessor,
    get_adapter,
    hookspecs,
    list_plugins,
    plugins,
)
from pixelrefer_plugin.plugins import GROUP, PluginHost, host

DOCS = Path(__file__).parent.parent / "docs"
HOOKS = sorted(name for name, each in inspect.getmembers(hookspecs) if name.startswith("register_") and callable(each))

ADAPTER = """
from pixelrefer_plugin import AdapterSpec, hookimpl

@hookimpl
def register_adapters(register):
    register(AdapterSpec(name={name!r}, config=object, plan=None, build=None))
"""

READER = """
from dataclasses import dataclass

from pixelrefer_plugin.authoring import AdapterLayout, AdapterSpec, hookimpl

@dataclass
class Config:
    pass

@hookimpl
def register_adapters(register):
    layout = AdapterLayout(model="Acme", prefix="acme.", recognises=bool, weights=dict, options=dict)
    register(AdapterSpec(name={name!r}, config=Config, planner=object, module=object, layouts={{"acme_7b": layout}}))
"""

BACKBONE = """
from pixelrefer_plugin import BackboneSpec, hookimpl

REST = (
    "model_class vision_tower projector decoder token_embedding geometry vision_width encode_crops "
    "scene_grids scene_grids_hw lora_targets tiny"
)

@hookimpl
def register_backbones(register):
    register(BackboneSpec(name={name!r}, model_types=({model_type!r},), **dict.fromkeys(REST.split())))
"""

SOURCE = """
from pixelrefer_plugin import RegionSourceSpec, hookimpl

@hookimpl
def register_region_sources(register):
    register(RegionSourceSpec(name={name!r}, config=object, build=None))
"""


FORMAT = """
from pixelrefer_plugin import DataFormatSpec, hookimpl

@hookimpl
def register_data_formats(register):
    register(DataFormatSpec(name={name!r}, config=object, recognises=None, open_file=object))
"""


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
        "regions": "data format",
        "llava_onevision": "backbone",
        "qwen2_5_vl": "backbone",
        "videollama3": "backbone",
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
        ("from plug_elsewhere import register_adapters", "unknown"),
    ],
    ids=["adapter", "backbone", "region source", "data format", "both", "hook defined elsewhere"],
)
def test_kind_is_read_from_the_source(site, source, kind):
    site.install("acme", name="acme", source=source)
    assert only(site.host().plugins()).kind == kind


def test_listing_imports_nothing_in_a_fresh_process(site):
    site.install("boom", name="boom", module="plug_boom.deep", source="raise RuntimeError('imported')")
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

NOT_A_SPEC = ADAPTER.replace("AdapterSpec(name={name!r}, config=object, plan=None, build=None)", "{name!r}")
BROKEN = {
    "raises at import": ("raise RuntimeError('no luck')", "fails to load: RuntimeError: no luck"),
    "exits at import": ("import sys\nsys.exit('bye')", "fails to load: SystemExit: bye"),
    "missing module": ("import plug_not_there", "No module named 'plug_not_there'"),
    "syntax error": ("def broken(:", "SyntaxError: invalid syntax"),
    "misspelt hook": (ADAPTER.replace("register_adapters", "register_adaptors"), "register_adaptors"),
    "wrong arguments": (ADAPTER.replace("(register)", "(registry)"), "registry"),
    "no hooks": ("x = 1", "implements none of the hooks register_adapters, register_backbones"),
    "hook without mark": (ADAPTER.replace("@hookimpl", ""), "implements none of the hooks"),
    "hook raises": (ADAPTER.replace("register(Ad", "1 / 0; register(Ad"), "fails to load: ZeroDivisionError"),
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
        ADAPTER + "    register(AdapterSpec(name={name!r}, config=object, plan=None, build=None))",
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
        ("import plug_not_there.deep", "it imports 'plug_not_there', which is not installed"),
        ("def broken(:", "SyntaxError"),
        (ADAPTER.replace("register_adapters", "register_adaptors"), "did you mean 'register_adapters'"),
        (
            ADAPTER.replace("register_adapters", "frobnicate"),
            "hooks are register_adapters, register_backbones",
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
    site.install("broken", name="broken", source="raise RuntimeError('no luck')")
    site.install("fine", name="fine", source=BACKBONE.format(name="fine", model_type="fine_vl"))
    assert site.host().backbone_for("fine_vl").name == "fine"
    assert "from broken 1.0) fails to load: RuntimeError: no luck." in caplog.text


def test_optional_imports_are_no_defect(site):
    source = "try:\n    import plug_not_there\nexcept ImportError:\n    pass\n" + ADAPTER.format(name="acme")
    site.install("acme", name="acme", source=source)
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
        + "    register(AdapterSpec(name='large', config=object, plan=None, build=None))",
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
    with pytest.raises(PluginError, match=r"No backbone is called 'xyz'\. Installed backbones: llava_onevision, "):
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


def test_a_model_type_served_twice_is_used_by_name(site, monkeypatch):
    """As in `RegionModel.attach(..., backbone_plugin=...)`: model and processor follow the choice, not the type."""
    source = "from pixelrefer_videollama3.backbone import SPEC\n" + BACKBONE.replace("BackboneSpec, ", "").replace(
        "BackboneSpec(name={name!r}, model_types=({model_type!r},), **dict.fromkeys(REST.split()))",
        "replace(SPEC, name={name!r})",
    ).replace("REST", "from dataclasses import replace\nREST")
    site.install("one", name="one", source=source.format(name="one"))
    site.install("two", name="two", source=source.format(name="two"))
    served = site.host()
    monkeypatch.setattr(served, "adapter", host().adapter)
    monkeypatch.setattr(plugins, "host", lambda: served)
    backbone, native = served.backbone("two").tiny(0)
    with pytest.raises(PluginError, match="is served by"):
        RegionModel.attach(backbone)
    model = RegionModel.attach(backbone, backbone_plugin="two")
    model.save_pretrained(site.root / "model", model.make_processor(native), include_backbone=True)
    model.detach()
    RegionModel.from_pretrained(site.root / "model").detach()
    RegionProcessor.from_pretrained(site.root / "model")


# -- hooks -------------------------------------------------------------------------------------------------

EXERCISED = {
    "register_adapters": lambda served: served.adapter("acme"),
    "register_backbones": lambda served: served.backbone("acme"),
    "register_region_sources": lambda served: served.region_source("acme"),
    "register_data_formats": lambda served: served.data_format("acme"),
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
    }[hook]
    site.install("acme", name="acme", source=source.format(name="acme", model_type="m"))
    assert EXERCISED[hook](site.host()).name == "acme"


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented(hook):
    assert hook in (DOCS / "plugins.md").read_text(encoding="utf-8")
    assert getattr(hookspecs, hook).__doc__
