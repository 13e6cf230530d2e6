"""What imports what: the package is light, the host knows no plugin, plugins know only the host."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib import import_module, metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BUILT_IN = ("adapters", "backbones", "region_sources", "data_formats", "benchmarks")
ADAPTERS = sorted(path.name for path in (ROOT / "adapters").glob("pixelrefer_*"))
BACKBONES = sorted(path.name for path in (ROOT / "backbones").glob("pixelrefer_*"))
REGION_SOURCES = sorted(path.name for path in (ROOT / "region_sources").glob("pixelrefer_*"))
DATA_FORMATS = sorted(path.name for path in (ROOT / "data_formats").glob("pixelrefer_*"))
BENCHMARKS = sorted(path.name for path in (ROOT / "benchmarks").glob("pixelrefer_*"))
HEAVY = (
    "torch", "torchvision", "transformers", "peft", "accelerate", "cv2", "gradio", "matplotlib", "pydantic",
    "datasets",
)  # fmt: skip


def imported_after(code):
    """The heavy modules in a fresh process that ran `code`."""
    report = f"; import json, sys; print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    run = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])


def click_call(*arguments):
    return f"from pixelrefer_plugin.cli import main; main({list(arguments)!r}, standalone_mode=False)"


@pytest.mark.parametrize(
    "code",
    [
        "import pixelrefer_plugin",
        "from pixelrefer_plugin.authoring import AdapterSpec, BackboneSpec, DataFormatSpec, RegionSourceSpec",
        "import pixelrefer_plugin; pixelrefer_plugin.Region.from_box((0, 0, 2, 2)).to_mask((4, 4))",
        "import pixelrefer_plugin; pixelrefer_plugin.list_plugins()",
        "import pixelrefer_plugin.data",
        "from pixelrefer_plugin.testing import check_data_format; check_data_format('lvis')",
        "from pixelrefer_plugin.testing import check_region_source",
        "import pixelrefer_plugin; pixelrefer_plugin.RegionDataset.from_rows([{'messages': []}], format='auto')",
        click_call("--help"),
        click_call("describe", "--help"),
        click_call("quickstart", "--help"),
        click_call("validate", "--help"),
        click_call("convert", "--help"),
        click_call("preview", "--help"),
        click_call("import-official", "--help"),
        click_call("train", "--help"),
        click_call("merge", "--help"),
        click_call("plugins"),
        click_call("plugins", "--json"),
        click_call("--version"),
    ],
    ids=[
        "package",
        "authoring",
        "regions",
        "listing",
        "data",
        "kit for data formats",
        "kit for region sources",
        "data formats",
        "help",
        "describe help",
        "quickstart help",
        "validate help",
        "convert help",
        "preview help",
        "import help",
        "train help",
        "merge help",
        "plugins",
        "plugins json",
        "version",
    ],
)
def test_light_things_import_nothing_heavy(code):
    assert imported_after(code) == []


def test_the_check_itself_sees_heavy_imports():
    assert "torch" in imported_after("import sys; sys.modules['torch'] = sys")


def names_used(path):
    """Every module that a file imports, or names in a string of its own as `import_module` would take it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield (node.module or "").partition(".")[0]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value.partition(".")[0]


def used_under(folder, forbidden):
    return sorted(
        f"{path.relative_to(ROOT)}: {name}"
        for path in folder.rglob("*.py")
        for name in names_used(path)
        if name in forbidden
    )


def test_the_host_imports_no_plugin():
    assert ADAPTERS
    assert BACKBONES
    assert REGION_SOURCES
    assert DATA_FORMATS
    assert (
        used_under(ROOT / "pixelrefer_plugin", {*ADAPTERS, *BACKBONES, *REGION_SOURCES, *DATA_FORMATS, *BENCHMARKS})
        == []
    )


# Names of plugins that are words of the host's own besides.
WORDS_OF_THE_HOST = {
    "regions": "what all of it is about: a field of records and batches, and a word of messages",
    "pixelrefer": "the name of the command",
    "coordinates": "numbers that say where something is; a field of a backbone's spec, and a word of messages",
    "crops": "parts of pictures; a field of a backbone's spec, and a word of messages",
}
# What holds names of plugins, by file of the host.
NAMES_ALLOWED = {
    "contracts/backbone.py": {"marks"},  # what commands take for a plain model whose backbone names no other adapter
    "cli/__init__.py": {"saot"},  # the default of `pixelrefer quickstart`, whose demonstration is about that adapter
    "evaluation/metrics/choices.py": {"pope", "unipixel"},  # readings have the names of the code that reads so
}


def built_in_names():
    """The names of the plugins that come with the host, and those of their packages."""
    points = metadata.distribution("pixelrefer-plugin").entry_points.select(group="pixelrefer_plugin")
    return {name for point in points for name in (point.name, point.module)} - WORDS_OF_THE_HOST.keys()


def strings_of(path):
    """The string constants of a file except its docstrings, which may cite."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    statements = [statement for body in bodies for statement in body if isinstance(statement, ast.Expr)]
    cited = {id(statement.value) for statement in statements}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in cited:
            yield node.value


def named_in(path, names):
    return {word for text in strings_of(path) for word in re.findall(r"\w+", text) if word in names}


def test_the_host_holds_no_name_of_a_plugin(tmp_path):
    host, names = ROOT / "pixelrefer_plugin", built_in_names()
    assert {"saot", "pixelrefer_saot", "videollama3", "sam2", "coco"} <= names
    files = {path.relative_to(host): path for path in host.rglob("*.py")}
    found = {
        file.as_posix(): named
        for file, path in files.items()
        if file.parts[0] not in ("quickstart", "testing") and (named := named_in(path, names))
    }
    assert found == NAMES_ALLOWED
    (tmp_path / "one.py").write_text('"""Like saot."""\nx = f"a {1} saot" or {"oci": 1}\n"""As coco."""\n')
    assert named_in(tmp_path / "one.py", names) == {"saot", "oci"}


def test_plugins_of_a_kind_know_none_of_another():
    kinds = {
        "adapters": ADAPTERS,
        "backbones": BACKBONES,
        "region_sources": REGION_SOURCES,
        "data_formats": DATA_FORMATS,
        "benchmarks": BENCHMARKS,
    }
    for folder in kinds:
        others = {name for other, names in kinds.items() if other != folder for name in names}
        assert used_under(ROOT / folder, others) == []


def packages_in(*folders):
    return sorted(path.parent for folder in folders for path in ROOT.glob(f"{folder}/*/__init__.py"))


def test_every_package_is_type_checked():
    packages = packages_in(*BUILT_IN, "examples/*")
    names = {package.name for package in packages}
    assert {*ADAPTERS, *BACKBONES, *REGION_SOURCES, *DATA_FORMATS, *BENCHMARKS, "pixelrefer_croppool"} <= names
    mypy = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]
    assert set(mypy["packages"]) == {"pixelrefer_plugin", *names}
    folders = {package.parent.relative_to(ROOT).as_posix() for package in packages}
    assert set(mypy["mypy_path"]) == {f"$MYPY_CONFIG_FILE_DIR/{folder}" for folder in folders}


def test_every_installed_package_is_marked_as_typed():
    packages = [ROOT / "pixelrefer_plugin", *packages_in(*BUILT_IN)]
    assert [package.name for package in packages if not (package / "py.typed").is_file()] == []


PUBLIC = {"pixelrefer_plugin", "pixelrefer_plugin.authoring", "pixelrefer_plugin.testing"}


@pytest.mark.parametrize("module", sorted(PUBLIC))
def test_every_export_exists_and_is_listed(module):
    public = import_module(module)
    for name in public.__all__:
        assert getattr(public, name) is not None
    assert dir(public) == public.__all__ == sorted(public.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        public.nonsense  # noqa: B018


def test_a_module_lists_its_exports_once():
    """What type checkers read is what is exported."""
    import pixelrefer_plugin.authoring as authoring

    text = Path(authoring.__file__).read_text(encoding="utf-8")
    assert authoring.__all__ == sorted(re.findall(r"import (\w+) as \1\n", text))
    assert {"hookimpl", "AdapterSpec", "FeatureGrids", "Region", "read_sample"} <= set(authoring.__all__)
