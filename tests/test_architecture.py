"""What may import what in the host: the order of its parts, no circle, and the public face that plugins see.

Imports are read from the source, those for type checkers and those within functions too.
"""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOST = "pixelrefer_plugin"

GROUND_UP = (
    *("errors", "files", "json_text", "exports", "media", "regions", "contracts", "hookspecs", "plugins"),
    *("conversation", "tokens", "masks", "weights", "overlay", "data", "processor", "model", "entry", "chat"),
    *("evaluation", "authoring", "official", "sources", "training", "testing", "samples", "quickstart", "cli"),
    "__main__",
)
"""Every package and module directly in the host. None imports one that stands after it."""

PUBLIC = {HOST, f"{HOST}.authoring", f"{HOST}.testing"}
"""What a plugin may import of the host."""


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in (ROOT / HOST).rglob("*.py")}


def imported_from(module, path):
    """Every module of the host that a file imports, from the text of its imports."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == HOST)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            if source.split(".")[0] == HOST:
                submodules = (f"{source}.{alias.name}" for alias in node.names)
                yield from (each if each in MODULES else source for each in submodules)


IMPORTS = {module: set(imported_from(module, path)) - {module} for module, path in MODULES.items()}


def part_of(module):
    """The package or module directly in the host."""
    return module.split(".")[1] if "." in module else ""


def edges():
    """Imports between parts of the host, and where each is."""
    found = defaultdict(list)
    for module, imported in IMPORTS.items():
        for each in imported:
            if part_of(module) != part_of(each):
                found[part_of(module), part_of(each)].append(f"{module} imports {each}")
    return found


EDGES = edges()


def test_every_part_has_its_place():
    assert sorted(part for part in {part_of(module) for module in MODULES} if part) == sorted(GROUND_UP)


@pytest.mark.parametrize("part", GROUND_UP)
def test_a_part_imports_those_below_it(part):
    above = GROUND_UP[GROUND_UP.index(part) + 1 :]
    assert [where for upper in above for where in EDGES[part, upper]] == []


def circles(graph):
    """Groups of nodes that reach each other."""
    reached = {node: reachable(graph, node) for node in graph}
    groups = {frozenset(each for each in reached[node] if node in reached.get(each, ())) for node in graph}
    return [sorted(group) for group in groups if group]


def reachable(graph, start):
    seen, waiting = set(), list(graph.get(start, ()))
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting += graph.get(node, ())
    return seen


def test_no_modules_import_each_other_in_a_circle():
    assert circles({module: imported & set(MODULES) for module, imported in IMPORTS.items()}) == []


def test_a_circle_would_be_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


PLUGINS = sorted(
    path
    for folder in ("adapters", "backbones", "region_sources", "data_formats", "benchmarks", "examples")
    for path in (ROOT / folder).rglob("*.py")
)


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: str(path.relative_to(ROOT)))
def test_plugins_import_the_public_face_alone(path):
    assert set(imported_from("plugin", path)) <= PUBLIC
