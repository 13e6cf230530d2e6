"""A report as one HTML page that needs nothing else: no address, no script; pictures are in it.

Answers of models and of judges are text from outside: every text is escaped, what no page may hold is replaced, and
long ones are cut. It knows reports; no model.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from importlib import metadata
from importlib.resources import files
from pathlib import Path

from ...errors import counted
from ...files import write_text_whole
from ..scoring.resampling import RESAMPLES, Difference, Estimate
from .pictures import Thumbnail, thumbnails
from .report import SHARES, BenchmarkReport, Column, Report, best_and_worst
from .text import UNKNOWN, interval, number, signed, told_counts, told_ranking

GALLERY = 8
"""Best answers in a gallery, and as many of the worst."""

_MOST_CHARACTERS = 1500  # of a text
_KEPT = "\n\t\u200c\u200d"  # beside what can be printed: the joiners of Indic scripts and of emoji
_MOST_LISTED = 100  # of answers that could not be read
_BAR_PX = 120


def save_page(report: Report, path: str | os.PathLike[str], *, gallery: int = GALLERY) -> None:
    """Write the page, whole or not at all.

    Args:
        report: what it shows.
        path: of the file.
        gallery: so many of the best answers of a benchmark, and of the worst, are shown with their pictures.

    Raises:
        PixelReferError: it cannot be written.
    """
    write_text_whole(Path(path), page_of(report, gallery=gallery))


def page_of(report: Report, *, gallery: int = GALLERY) -> str:
    """The page as text."""
    style = files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    names = ", ".join(each.spec.name for each in report.benchmarks)
    labels = list(dict.fromkeys(column.label for each in report.benchmarks for column in each.columns))
    head = f"Benchmarks: {names}" if len(report.benchmarks) > 1 else f"Benchmark {names}"
    body = "\n".join(
        [
            f"<header><h1>{text(head)}</h1>",
            f"<p>{text(', '.join(labels))}</p>{_facts(report)}</header>",
            _contents(report.benchmarks),
            "<main>",
            *(_section(each, number, gallery) for number, each in enumerate(report.benchmarks, 1)),
            "</main>",
        ]
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<title>{text(head)}</title>
<style>
{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def text(value: str, most: int = _MOST_CHARACTERS) -> str:
    """A text of anybody's as it may stand between tags or in an attribute: escaped, cut, without what is no text."""
    cut = value[:most]
    plain = "".join(each if each.isprintable() or each in _KEPT else "\ufffd" for each in cut)
    more = f" ... ({len(value):,} characters)" if len(value) > most else ""
    return escape(plain + more, quote=True)


def _said(value: str) -> str:
    """What somebody said: in its own direction, so that it does not turn what stands beside it."""
    return f'<bdi class="said">{text(value)}</bdi>' if value.strip() else '<em class="none">(empty)</em>'


def _facts(report: Report) -> str:
    facts = {
        "Made": report.made.strftime("%Y-%m-%d %H:%M UTC"),
        "Command": report.command,
        "Version": f"pixelrefer-plugin {metadata.version('pixelrefer-plugin')}",
    }
    return _pairs({name: text(value) for name, value in facts.items() if value})


def _pairs(pairs: Mapping[str, str]) -> str:
    return "<dl>" + "".join(f"<dt>{text(name)}</dt><dd>{value}</dd>" for name, value in pairs.items()) + "</dl>"


def _contents(benchmarks: Sequence[BenchmarkReport]) -> str:
    if len(benchmarks) < 2:
        return ""
    items = "".join(f'<li><a href="#b{n}">{text(each.spec.name)}</a></li>' for n, each in enumerate(benchmarks, 1))
    return f'<nav aria-label="Benchmarks"><ul>{items}</ul></nav>'


# -- a benchmark -------------------------------------------------------------------------------------------


def _section(report: BenchmarkReport, place: int, gallery: int) -> str:
    parts = [
        f'<h2 id="b{place}">{text(report.spec.name)}</h2>',
        f"<p>{text(report.spec.about)}</p>",
        _pairs(_about(report)),
        _notes(told_ranking(report) if report.is_ranked else ()),
        _notes(report.all_notes),
        _figures(report),
        _published(report),
        *(_split(report, name) for name in _splits(report)),
        _unread(report),
        _gallery(report, gallery),
        _prompts(report),
    ]
    return f'<section aria-labelledby="b{place}">\n' + "\n".join(filter(None, parts)) + "\n</section>"


def _about(report: BenchmarkReport) -> dict[str, str]:
    lines = {"Questions": f"{len(report.questions):,}"}
    if report.judge:
        lines["Judge"] = text(report.judge)
    if report.encoder:
        lines["Sentence encoder"] = text(report.encoder)
    for column in report.columns:
        lines[f"Answers of {column.label}"] = f"{text(column.source)}: {text(told_counts(column.result))}"
    return lines


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    return '<ul class="notes">' + "".join(f"<li>{text(note)}</li>" for note in notes) + "</ul>"


def _table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first cell of a row is its heading; cells are HTML."""
    top = "".join(f'<th scope="col">{each}</th>' for each in head)
    lines = "\n".join(
        f'<tr><th scope="row">{row[0]}</th>' + "".join(f"<td>{each}</td>" for each in row[1:]) + "</tr>" for row in rows
    )
    return (
        f'<div class="wide"><table><caption>{caption}</caption><thead><tr>{top}</tr></thead>\n'
        f"<tbody>\n{lines}\n</tbody></table></div>"
    )


def _head(report: BenchmarkReport, first: str) -> list[str]:
    labels = [text(column.label) for column in report.columns]
    return [first, *labels, *(f"{label} less {labels[0]}" for label in labels[1:])]


def _figures(report: BenchmarkReport) -> str:
    rows = []
    for label in report.labels:
        figure = report.figure(label).figure
        found = [column.result.figure(label) for column in report.columns]
        most = 1.0 if figure.scale == SHARES else max([each.overall.high for each in found if each] + [0.0])
        cells = [_cell(each.overall if each else None, figure.scale, most) for each in found]
        apart = [_difference(each.overall.get(label), figure.scale) for each in report.comparisons]
        rows.append([text(label), *cells, *apart])
    note = f"Shares are in per cent. With 95 % intervals by bootstrap, {RESAMPLES:,} draws of the questions at most."
    return _table("Figures", _head(report, "Figure"), rows) + f"<p><small>{note}</small></p>"


def _cell(estimate: Estimate | None, scale: float, most: float) -> str:
    if estimate is None or not estimate.is_known:
        return UNKNOWN
    ends = interval(estimate, scale)
    said = f'<b>{number(estimate.value, scale)}</b> <span class="ends">{ends}</span>'
    return f"{said}<small>of {estimate.counted:,}</small>{_bar(estimate, most)}"


def _bar(estimate: Estimate, most: float) -> str:
    """The figure as a bar with its interval; it says nothing that the numbers do not."""
    if not most > 0:
        return ""
    place = [_BAR_PX * min(max(each / most, 0.0), 1.0) for each in (estimate.value, estimate.low, estimate.high)]
    line = ""
    if estimate.low == estimate.low:  # has an interval
        line = f'<line stroke="#1a1c1e" stroke-width="2" x1="{place[1]:.1f}" x2="{place[2]:.1f}" y1="5" y2="5"/>'
    return (
        f'<svg class="bar" width="{_BAR_PX}" height="10" viewBox="0 0 {_BAR_PX} 10" aria-hidden="true">'
        f'<rect class="all" fill="#d5d9dd" width="{_BAR_PX}" height="10"/>'
        f'<rect class="part" fill="#0072b2" width="{place[0]:.1f}" height="10"/>'
        f"{line}</svg>"
    )


def _difference(difference: Difference | None, scale: float) -> str:
    if difference is None:
        return UNKNOWN
    kind = "sure" if difference.is_sure else "unsure"
    ends = interval(difference, scale)
    return f'<span class="{kind}">{signed(difference, scale)}</span> <span class="ends">{ends}</span>'


def _published(report: BenchmarkReport) -> str:
    if not report.published:
        return ""
    names = list(dict.fromkeys(name for each in report.published for name in each.figures))
    scales = {name: report.scale_of(name) for name in names}
    rows = [
        [
            text(each.model),
            *(number(each.figures.get(name, math.nan), scales[name]) for name in names),
            text(each.judge or "none"),
            text(each.source),
        ]
        for each in report.published
    ]
    return _table("Published figures", ["Model", *map(text, names), "Judge", "Source"], rows)


def _splits(report: BenchmarkReport) -> list[str]:
    return list(dict.fromkeys(split.name for column in report.columns for split in column.result.splits))


def _split(report: BenchmarkReport, name: str) -> str:
    """Every figure by one kind of group."""
    found = [next((s for s in column.result.splits if s.name == name), None) for column in report.columns]
    groups = list(dict.fromkeys(group for split in found if split for group in split.groups))
    about = next(split.about for split in found if split)
    rows = []
    for label in report.labels:
        figure = report.figure(label).figure
        for group in groups:
            cells = [_cell(_of_group(column, label, name, group), figure.scale, 0.0) for column in report.columns]
            is_main = label == report.labels[0]
            apart = [
                _difference(each.groups.get(name, {}).get(group) if is_main else None, figure.scale)
                for each in report.comparisons
            ]
            rows.append([f"{text(label)}, {text(group)}", *cells, *apart])
    return _table(text(about), _head(report, "Figure and group"), rows)


def _of_group(column: Column, label: str, split: str, group: str) -> Estimate | None:
    found = column.result.figure(label)
    return None if found is None else found.groups.get(split, {}).get(group)


def _unread(report: BenchmarkReport) -> str:
    lists = []
    for column in report.columns:
        told = {**column.result.unread, **column.result.failed}
        if told:
            items = "".join(
                f"<li>{text(id, 200)}: {text(why, 400)}</li>" for id, why in list(told.items())[:_MOST_LISTED]
            )
            rest = len(told) - _MOST_LISTED
            more = f"<p>And {rest:,} more, in report.json.</p>" if rest > 0 else ""
            head = f"{text(column.label)}: {counted(len(told), 'answer')} could not be read or asked for"
            lists.append(f"<details><summary>{head}</summary><ul>{items}</ul>{more}</details>")
    return "".join(lists)


def _prompts(report: BenchmarkReport) -> str:
    if not report.prompts:
        return ""
    told = "".join(
        f"<dt>{text(each.name)} ({text(each.origin)}; SHA-256 {each.sha256})</dt><dd>{_said(each.text)}</dd>"
        for each in report.prompts
    )
    return f"<details><summary>Prompts</summary><dl>{told}</dl></details>"


# -- gallery -----------------------------------------------------------------------------------------------


def _gallery(report: BenchmarkReport, count: int) -> str:
    """The best and the worst answers of the last column, of ways that are compared those of the best one, with what the
    others say to the same questions."""
    of = report.columns[0 if report.is_ranked else -1]
    if not count or not of.result.main.figure.counted:
        return ""
    best, worst = best_and_worst(of.result, count)
    by = text(f"{of.label}, by {of.result.main.figure.label}")
    parts = []
    for name, positions in (("Worst", worst), ("Best", best)):
        if positions:
            tiles = "\n".join(_tile(report, position) for position in positions)
            parts.append(f'<h3>{name} answers of {by}</h3>\n<div class="tiles">\n{tiles}\n</div>')
    return "\n".join(parts)


def _tile(report: BenchmarkReport, position: int) -> str:
    question = report.questions[position]
    answers = [(column.label, column.answers[position]) for column in report.columns]
    pictures = "".join(_figure(each, question.id) for each in thumbnails(question, answers))
    told = {"Question": _said(question.text)}
    if question.references:
        told["Expected"] = "<br>".join(map(_said, question.references[:5]))
    for column in report.columns:
        told[f"{column.label} says"] = "".join(_given(column, position))
    place = f'<p class="id">{text(question.id, 200)}</p>'
    return f'<article><div class="pictures">{pictures}</div>{_pairs(told)}{place}</article>'


def _given(column: Column, position: int) -> Iterator[str]:
    answer, figure = column.answers[position], column.result.main.figure
    value = number(float(figure.values[position]), figure.scale)
    yield f'{_said(answer.text)} <span class="value">{text(figure.name)} {value}</span>'
    for kind, texts in (("why", column.result.details), ("unread", column.result.unread)):
        if answer.id in texts:
            yield f'<br><small class="{kind}">{text(texts[answer.id], 600)}</small>'
    if answer.failure:
        yield f'<br><small class="unread">{text(answer.failure, 600)}</small>'


def _figure(each: Thumbnail, id: str) -> str:
    caption = f"<figcaption>{text(each.caption)}</figcaption>"
    if not each.url:
        return f"<figure>{caption}</figure>"
    about = text(f"{each.caption}, question {id}", 200)
    picture = f'<img src="{each.url}" width="{each.width}" height="{each.height}" alt="{about}">'
    return f"<figure>{picture}{caption}</figure>"
