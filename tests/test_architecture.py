"""What may import what in the host: the order of its packages, no circle, and the public face that plugins see.

Imports are read from the source, those for type checkers and those within functions too.
"""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOST = "pixelrefer_plugin"

GROUND_UP = ("media", "regions", "contracts", "conversation")
"""None of these imports one that stands after it."""

FORBIDDEN = {
    "conversation": ("tokens", "masks"),
    "tokens": ("masks", "model", "processor"),
    "masks": ("model", "processor"),
    "weights": ("model", "processor"),
    "data": ("processor",),
    "evaluation": ("training",),
}

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


@pytest.mark.parametrize("lower", GROUND_UP)
def test_packages_stand_on_those_below(lower):
    above = GROUND_UP[GROUND_UP.index(lower) + 1 :]
    assert [where for upper in above for where in EDGES[lower, upper]] == []


@pytest.mark.parametrize(("part", "other"), [(part, each) for part, others in FORBIDDEN.items() for each in others])
def test_parts_that_must_not_know_each_other(part, other):
    assert EDGES[part, other] == []


def test_nothing_imports_the_command_line():
    assert [where for (part, other), where in EDGES.items() if other == "cli" and part != "__main__"] == []


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


def test_no_packages_import_each_other_in_a_circle():
    graph = defaultdict(set)
    for (part, other), where in EDGES.items():
        if where and part and other:
            graph[part].add(other)
    assert circles(graph) == []


def test_a_circle_would_be_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


PLUGINS = sorted(
    path
    for folder in ("adapters", "backbones", "region_sources", "data_formats", "examples")
    for path in (ROOT / folder).rglob("*.py")
)


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: str(path.relative_to(ROOT)))
def test_plugins_import_the_public_face_alone(path):
    assert set(imported_from("plugin", path)) <= PUBLIC
