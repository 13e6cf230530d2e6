"""One list of exports for a module whose names are imported on first use.

The list is the module's own `if TYPE_CHECKING:` block, where type checkers and editors find it too. Each name is
imported `as` itself there, which is how a type checker knows that it is exported.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any


def lazy_exports(module: str) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """What a module assigns to `__all__`, `__getattr__` and `__dir__`, so that its exports cost nothing until used.

    Args:
        module: its `__name__`.

    Returns:
        The exported names, sorted; a function that imports one; a function that lists them.
    """
    homes = dict(_exports(module))
    names = sorted(homes)

    def imported(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return getattr(import_module(homes[name], sys.modules[module].__package__), name)

    return names, imported, lambda: names


def _exports(module: str) -> Iterator[tuple[str, str]]:
    """Each exported name and the module that has it, relative as it is written."""
    loader: Any = sys.modules[module].__spec__.loader  # type: ignore[union-attr]
    for node in ast.parse(loader.get_source(module)).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for each in node.body:
                if isinstance(each, ast.ImportFrom):
                    home = "." * each.level + (each.module or "")
                    yield from ((alias.name, home) for alias in each.names if alias.name == alias.asname)
