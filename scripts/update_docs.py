"""Writes what the docs say about the command line and the built-in plugins from the code itself.

    scripts/update_docs [--check]

`docs/cli.md` is written whole. In `README.md` the table of the built-in backbones is. In `docs/plugins.md` the lists of
the built-in plugins and of the conformance kit's checks are, and each file of `examples/` between
`<!-- begin:FILE -->` and `<!-- end -->`; in `docs/training.md` the tables of the recipes, those that built-in adapters
bring included, and of all keys, those of ablations too. With --check nothing is written and the exit code is 1 if
anything would change.
"""

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

import click
import yaml

from pixelrefer_plugin import get_adapter, get_backbone, list_plugins
from pixelrefer_plugin.authoring import BackboneSpec, Coordinates
from pixelrefer_plugin.cli import main as cli
from pixelrefer_plugin.training.config import Section, TrainConfig, config_keys
from pixelrefer_plugin.training.grid import Grid
from pixelrefer_plugin.training.recipes import RECIPES, Recipe, recipes_for

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
DISTRIBUTION = "pixelrefer-plugin"
BEGIN, END = "<!-- plugins: begin, written by scripts/update_docs -->", "<!-- plugins: end -->"
CHECKS_BEGIN, CHECKS_END = "<!-- checks: begin, written by scripts/update_docs -->", "<!-- checks: end -->"
RECIPES_BEGIN, RECIPES_END = "<!-- recipes: begin, written by scripts/update_docs -->", "<!-- recipes: end -->"
KEYS_BEGIN, KEYS_END = "<!-- keys: begin, written by scripts/update_docs -->", "<!-- keys: end -->"
BACKBONES_BEGIN = "<!-- backbones: begin, written by scripts/update_docs -->"
BACKBONES_END = "<!-- backbones: end -->"
GRID_BEGIN, GRID_END = "<!-- grid: begin, written by scripts/update_docs -->", "<!-- grid: end -->"
FILE_BLOCK = re.compile(r"<!-- begin:(?P<file>\S+) -->\n.*?<!-- end -->", re.DOTALL)
WIDTH = 100


def cli_page() -> str:
    """`docs/cli.md`: the help of every command."""
    parts = [
        "# Command line",
        "Written by `scripts/update_docs` from the commands' own help.",
        _help(cli, "pixelrefer"),
    ]
    for name, command in sorted(cli.commands.items()):
        parts += [f"## pixelrefer {name}", _help(command, f"pixelrefer {name}")]
    return "\n\n".join(parts) + "\n"


def plugin_list() -> str:
    """The built-in plugins of each kind, whatever else is installed, with links to their code."""
    links: dict[str, list[str]] = {}
    for plugin in list_plugins():
        if plugin.distribution == DISTRIBUTION:
            folder = f"{plugin.kind.replace(' ', '_')}s/{plugin.module}"
            links.setdefault(f"{plugin.kind}s", []).append(f"[`{plugin.name}`](../{folder})")
    return "\n".join(f"- {kind}: {', '.join(links[kind])}" for kind in sorted(links))


def backbone_table() -> str:
    """The built-in backbones: which published models each serves, under which licence, and how it reads coordinates."""
    rows = ["| backbone | published models | licence | media | coordinates |", "|---|---|---|---|---|"]
    for spec in _backbones():
        ids: dict[tuple[str, str], list[str]] = {}
        for model in spec.models:  # those whose ids differ in their size alone stand together
            size = re.search(re.escape(model.parameters), model.id, re.IGNORECASE)
            before, after = (model.id, "") if size is None else (model.id[: size.start()], model.id[size.end() :])
            ids.setdefault((before, after), []).append("" if size is None else size.group())
        models = ", ".join(
            f"`{before}{sizes[0] if len(sizes) == 1 else '{' + ','.join(sizes) + '}'}{after}`"
            for (before, after), sizes in ids.items()
        )
        licences = ", ".join(dict.fromkeys(model.licence for model in spec.models))
        media = "images" if spec.videos is None else "images, videos"
        rows.append(f"| `{spec.name}` | {models} | {licences} | {media} | {_told(spec.coordinates)} |")
    return "\n".join(rows)


def _backbones() -> Iterator[BackboneSpec]:
    """Those that come with the host, also where one plugin brings several."""
    own = [each for each in list_plugins() if (each.distribution, each.kind) == (DISTRIBUTION, "backbone")]
    names = {each.name for each in own}
    for plugin in own:
        get_backbone(plugin.name)  # loads the plugin, which then says all that it registers
    loaded = (each for each in list_plugins() if each.name in names)
    for name in sorted(name for plugin in loaded for kind, name in plugin.specs if kind == "backbone"):
        yield get_backbone(name)


def _told(coordinates: Coordinates | None) -> str:
    """A convention, by an example and its unit."""
    if coordinates is None:
        return "none documented"
    units = {"pixels": "pixels as resized", "thousandths": "0 to 1000", "fractions": "0 to 1"}
    names = {name: name for name in ("x0", "y0", "x1", "y1")}
    return f"`{coordinates.box.format(**names)}`, {units[coordinates.unit]}"


def readme(current: str) -> str:
    """`README.md` brought up to date."""
    return _between(current, BACKBONES_BEGIN, BACKBONES_END, backbone_table())


def checks_list() -> str:
    """The names of the conformance kit's checks, by what they are checks of; read without importing torch."""
    lines = []
    for file in sorted((ROOT / "pixelrefer_plugin/testing").glob("*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            is_tuple = isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Tuple)
            if is_tuple and ast.unparse(node.target).endswith("_CHECKS"):
                of = ast.unparse(node.target).removesuffix("_CHECKS").replace("_", " ").lower()
                lines.append(f"- {of}: {', '.join(f'`{ast.unparse(check)}`' for check in node.value.elts)}")
    return "\n".join(lines)


def with_files(page: str) -> str:
    """A page with every `<!-- begin:FILE -->` block filled from that file."""
    return FILE_BLOCK.sub(lambda block: _file_block(block["file"]), page)


def plugins_page(current: str) -> str:
    """`docs/plugins.md` brought up to date."""
    page = _between(current, BEGIN, END, plugin_list())
    return with_files(_between(page, CHECKS_BEGIN, CHECKS_END, checks_list()))


def training_page(current: str) -> str:
    """`docs/training.md` brought up to date."""
    page = _between(current, RECIPES_BEGIN, RECIPES_END, recipe_table())
    page = _between(page, GRID_BEGIN, GRID_END, key_table(Grid))
    return _between(page, KEYS_BEGIN, KEYS_END, key_table(TrainConfig))


def recipe_table() -> str:
    """The recipes and what trains in them how fast."""
    rows = ["| recipe | trains, at learning rate | for |", "|---|---|---|"]
    for recipe, adapter in _recipes():
        rates = ", ".join(
            f"`{group}` {'frozen' if rate is None else f'{rate:g}'}" for group, rate in recipe.rates.items()
        )
        about = recipe.about.replace("<", "\\<")  # such as the name of a token, which would be taken for HTML
        rows.append(f"| `{recipe.name}` | {rates} | {f'Of adapter `{adapter}`: ' if adapter else ''}{about} |")
    return "\n".join(rows)


def _recipes() -> Iterator[tuple[Recipe, str]]:
    """Those of the host, then those that built-in adapters bring, with the adapter's name."""
    yield from ((recipe, "") for recipe in RECIPES.values())
    for plugin in list_plugins():
        if plugin.distribution == DISTRIBUTION and plugin.kind == "adapter":
            own = recipes_for(get_adapter(plugin.name))
            yield from ((recipe, plugin.name) for name, recipe in own.items() if name not in RECIPES)


def key_table(section: type[Section]) -> str:
    """Every key of a configuration, from the class that checks it."""
    rows = ["| key | value | default | |", "|---|---|---|---|"]
    for key, field in config_keys(section):
        default = "" if field.is_required() else f"`{_as_yaml(field.get_default(call_default_factory=True))}`"
        about = " ".join((field.description or "").split())
        rows.append(f"| `{key}` | {_type_name(field.annotation)} | {default} | {about} |")
    return "\n".join(rows)


def _as_yaml(value: object) -> str:
    plain = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True).removesuffix("...\n").strip()


def _type_name(annotation: object) -> str:
    """A type in words, its limits left out: what breaks them is told by the error."""
    names = {str: "text", int: "whole number", float: "number", bool: "true or false", dict: "keys and values"}
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin is Literal:
        return ", ".join(f"`{each}`" for each in arguments)
    if origin in (Union, UnionType):
        return ", ".join(_type_name(each) for each in arguments if each is not type(None))
    if origin is tuple:
        return f"list of {_type_name(arguments[0])}"
    return names.get(origin or annotation, "keys below")


def _between(page: str, begin: str, end: str, text: str) -> str:
    before, found_begin, rest = page.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise SystemExit(f"A page of docs/ must have a line '{begin}' and after it a line '{end}'.")
    return f"{before}{begin}\n{text}\n{end}{after}"


def _file_block(file: str) -> str:
    language = {".py": "python", ".toml": "toml"}[Path(file).suffix]
    text = (ROOT / file).read_text(encoding="utf-8")
    return f"<!-- begin:{file} -->\n```{language}\n{text}```\n<!-- end -->"


def _help(command: click.Command, name: str) -> str:
    context = click.Context(command, info_name=name, terminal_width=WIDTH, max_content_width=WIDTH)
    return f"```\n{command.get_help(context)}\n```"


def _current(page: Path) -> str:
    return page.read_text(encoding="utf-8") if page.exists() else ""


def main() -> int:
    """Write the pages, or with --check say which are out of date."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if anything would change")
    check = parser.parse_args().check
    plugins_file, training_file = DOCS / "plugins.md", DOCS / "training.md"
    readme_file = ROOT / "README.md"
    pages = {
        readme_file: readme(_current(readme_file)),
        DOCS / "cli.md": cli_page(),
        plugins_file: plugins_page(_current(plugins_file)),
        training_file: training_page(_current(training_file)),
    }
    stale = [page for page, text in pages.items() if not page.exists() or page.read_text(encoding="utf-8") != text]
    for page in stale:
        print(f"{page.relative_to(DOCS.parent)}: {'stale, run scripts/update_docs' if check else 'written'}")
        if not check:
            page.parent.mkdir(exist_ok=True)
            page.write_text(pages[page], encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
