"""What a benchmark says of itself: its files, options, formats and published figures."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from ...contracts.benchmark import BenchmarkSpec

_INDENT = "  "
_FIELD = re.compile(r"^    (\w+): (.*)$")


def described(spec: BenchmarkSpec) -> dict[str, Any]:
    """It as plain values, for JSON."""
    return {
        "name": spec.name,
        "about": spec.about,
        "needs": list(spec.needs),
        "max_new_tokens": spec.max_new_tokens,
        "files": [dataclasses.asdict(file) for file in spec.files],
        "options": {
            name: {"default": repr(default), "about": about}
            for name, (default, about) in options_of(spec.config).items()
        },
        "answer_formats": sorted(spec.answer_formats),
        "judged_formats": sorted(spec.judged_formats),
        "published": [dataclasses.asdict(figure) for figure in spec.published],
    }


def told(spec: BenchmarkSpec, *, width: int) -> str:
    """It as text for people."""
    return "\n".join(line for part in _parts(spec) for line in _wrapped(part, width))


def told_in_short(specs: Sequence[BenchmarkSpec], *, width: int) -> str:
    """A list of them: each one's name, and beside it what it is and needs."""
    wide = max((len(spec.name) for spec in specs), default=0)
    lines = []
    for spec in specs:
        needs = f" (needs {', '.join(spec.needs)})" if spec.needs else ""
        indent = " " * (wide + 2)
        lines += textwrap.wrap(
            f"{spec.name.ljust(wide)}  {_plain(spec.about)}{needs}", max(width, wide + 30), subsequent_indent=indent
        )
    return "\n".join(lines)


def options_of(config: type[Any]) -> dict[str, tuple[Any, str]]:
    """The default of each option, and what the docstring of its class, or of a class that it is made from, says."""
    docstrings = [each.__dict__.get("__doc__") or "" for each in reversed(config.__mro__)]
    about = {name: text for each in docstrings for name, text in _documented(inspect.cleandoc(each))}
    return {
        field.name: (
            field.default if field.default_factory is dataclasses.MISSING else field.default_factory(),
            about.get(field.name, ""),
        )
        for field in dataclasses.fields(config)
        if field.init
    }


def _documented(docstring: str) -> Iterator[tuple[str, str]]:
    """Names and texts of the section `Attributes`."""
    name, lines = "", list[str]()
    for line in docstring.partition("Attributes:\n")[2].splitlines():
        if line.strip() and not line.startswith("    "):
            break
        if found := _FIELD.match(line):
            yield from [(name, " ".join(lines))] if name else []
            name, lines = found[1], [found[2]]
        elif line.strip():
            lines.append(line.strip())
    yield from [(name, " ".join(lines))] if name else []


def _parts(spec: BenchmarkSpec) -> Iterator[str]:
    yield f"{spec.name}: {spec.about}"
    yield f"Needs: {', '.join(spec.needs) or 'nothing'}. Answers: {spec.max_new_tokens:,} tokens at most."
    if spec.files:
        yield "Files:"
    for file in spec.files:
        yield f"{_INDENT}{file.path}{' (optional)' if file.optional else ''}: {file.about}"
    if options := options_of(spec.config):
        yield "Options:"
        for name, (default, about) in options.items():
            yield f"{_INDENT}{name} [{default!r}]: {about}"
    for kind, formats in (("answers", spec.answer_formats), ("a judge's answers", spec.judged_formats)):
        if formats:
            yield f"Formats of {kind}: {', '.join(sorted(formats))}"
    if spec.published:
        yield "Published:"
    for (model, judge, source), figures in published_by_model(spec).items():
        told = ", ".join(f"{name} {value:g}" for name, value in figures.items())
        yield f"{_INDENT}{model}: {told}{f', judge {judge}' if judge else ''} ({source})"


def published_by_model(spec: BenchmarkSpec) -> dict[tuple[str, str, str], dict[str, float]]:
    """The published figures by their names, those of a model, a judge and a source together."""
    found: dict[tuple[str, str, str], dict[str, float]] = {}
    for each in spec.published:
        found.setdefault((each.model, each.judge, each.source), {})[each.figure] = each.value
    return found


def _wrapped(part: str, width: int) -> list[str]:
    plain = _plain(part)
    indent = _INDENT if plain.startswith(_INDENT) else ""
    return textwrap.wrap(plain.strip(), width, initial_indent=indent, subsequent_indent=f"{indent}{_INDENT}") or [""]


def _plain(text: str) -> str:
    """Without what a terminal would obey."""
    return "".join(each if each.isprintable() else " " for each in text)
