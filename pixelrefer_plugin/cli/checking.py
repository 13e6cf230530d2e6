"""`pixelrefer validate`: what is wrong with a data file, before anything learns from it."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from ..errors import counted
from .data import (
    MAX_LINES,
    by_count,
    data_options,
    echo_left_out,
    left_out,
    limit_option,
    open_dataset,
    progress_bar,
    quiet,
    require_other_file,
    stopping,
)
from .options import CheckedCommand, adapter_name_option, adapter_option
from .reporting import Failure, plain, quiet_libraries
from .values import COUNT, MODEL, RECIPE, WRITTEN, WholeType, path_problem

if TYPE_CHECKING:
    from ..data import RegionDataset
    from ..data.checks import CheckedSample, CheckSummary, Spread
    from ..processor import RegionProcessor
    from ..training.config import TrainConfig


@click.command(cls=CheckedCommand, short_help="Find every defect of a data file.")
@click.argument("files", metavar="FILE | [KEY=VALUE]...", nargs=-1)
@data_options
@click.option(
    "--model", metavar="DIR_OR_ID", type=MODEL, help="Also try each sample on the processor of this model or backbone."
)
@adapter_name_option
@adapter_option
@click.option(
    "--max-tokens",
    type=COUNT,
    help="The most tokens a sample may have; needs --model.",
)
@click.option(
    "--config",
    metavar="CONFIG.yaml",
    type=RECIPE,
    help="Check the files of a training configuration, with its model and budgets; KEY=VALUE as for train.",
)
@click.option("--workers", type=WholeType(1, 1024), help="Processes that check. [default: one for each core]")
@click.option("--quick", is_flag=True, help="Read headers of pictures, and only those frames that regions name.")
@limit_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON Lines: each bad sample, at the end the summary.")
@click.option(
    "--fix-out",
    metavar="FILE",
    type=WRITTEN,
    help="Write the good samples, as JSON Lines in this package's schema.",
)
def validate(
    files: tuple[str, ...],
    config: Path | None,
    workers: int | None,
    quick: bool,
    limit: int | None,
    as_json: bool,
    fix_out: Path | None,
    **how: Any,
) -> None:
    """Find every defect of a data file: of its records, media, regions, texts and lengths.

    With --config, of all files that a training run would read, as it would read them; what the run would skip or
    shorten is a defect here.

    Exit code 0: all samples are good. 1: some have defects. 2: the file cannot be checked.

    \b
    Example:
      pixelrefer validate train.jsonl
      pixelrefer validate train.json --model runs/street/model --max-tokens 4096 --fix-out good.jsonl
      pixelrefer validate --config lora.yaml data.train=street.jsonl
    """
    from ..data.checks import CheckSummary, check_dataset

    summaries: list[CheckSummary] = []
    with quiet(), stopping(lambda: sum(each.samples for each in summaries), "checked"):
        task = _task_of_file(files, fix_out, **how) if config is None else _task_of_config(config, files, fix_out, how)
        for dataset, most in task.parts:
            total = min(limit or len(dataset), most or len(dataset), len(dataset))
            summaries.append(CheckSummary())
            results = check_dataset(
                dataset,
                processor=task.processor,
                max_tokens=task.max_tokens,
                quick=quick,
                limit=total,
                workers=workers,
                media_root=fix_out and fix_out.parent,
            )
            if config is not None and not as_json:
                click.secho(dataset.name, bold=True)
            _check_part(results, _Report(dataset, summaries[-1], as_json), fix_out, total)
    raise SystemExit(1 if any(each.defects for each in summaries) else 0)


@dataclass(frozen=True)
class _Task:
    """What is to be checked, and against what.

    Attributes:
        parts: datasets, and how many samples of each are used; None for all.
        processor: the one that they shall fit.
        max_tokens: the most tokens of a sample.
    """

    parts: Sequence[tuple[RegionDataset, int | None]]
    processor: RegionProcessor | None
    max_tokens: int | None


def _task_of_file(
    files: Sequence[str],
    fix_out: Path | None,
    *,
    model: str | None,
    adapter: str | None,
    adapter_options: tuple[tuple[str, Any], ...],
    max_tokens: int | None,
    format_name: str,
    options: tuple[tuple[str, Any], ...],
    media_root: Path | None,
    strict_media: bool,
) -> _Task:
    if len(files) != 1:
        raise click.UsageError(f"Give one FILE, or --config CONFIG.yaml; got {len(files)} files.")
    for_processor = {"--adapter": adapter, "--adapter-option": adapter_options, "--max-tokens": max_tokens}
    for option, value in for_processor.items():
        if model is None and value:
            raise click.UsageError(f"{option} needs --model, whose processor it is for.")
    if problem := path_problem(files[0], reads=True):
        raise click.UsageError(f"FILE: {problem}")
    path = Path(files[0])
    require_other_file("--fix-out", fix_out, path)
    dataset = open_dataset(path, format_name, options, media_root, strict_media=strict_media)
    processor = None if model is None else load_processor(model, adapter, dict(adapter_options))
    return _Task([(dataset, None)], processor, max_tokens)


def _task_of_config(config: Path, settings: Sequence[str], fix_out: Path | None, how: Mapping[str, Any]) -> _Task:
    """The files that a training run would read, and its processor, with its budgets."""
    given = [name for name, value in how.items() if value not in (None, (), "auto", False)] + ["fix_out"] * bool(
        fix_out
    )
    if given:
        option_of = {each.name: each.opts[0] for each in click.get_current_context().command.params}
        names = ", ".join(option_of[name] for name in given)
        raise click.UsageError(f"--config says what is checked and how; leave out {names}.")
    from ..training.config import TrainConfig

    checked = TrainConfig.load(config, settings)
    from ..training.building import build_data, open_source  # with torch: after what is told at once
    from ..training.run import common_samples

    parts = [(open_source(source), source.limit) for source in (*checked.data.train, *checked.data.eval)]
    sides = [build_data(sources, seed=checked.optim.seed) for sources in (checked.data.train, checked.data.eval)]
    for note in common_samples(*sides):
        click.echo(plain(f"note: {note}"), err=True)
    return _Task(parts, _training_processor(checked), checked.data.max_tokens)


def _training_processor(config: TrainConfig) -> RegionProcessor:
    quiet_libraries()
    from ..training.building import build_processor

    with _explained(config.model.backbone):
        return build_processor(config)


def _check_part(
    results: Generator[CheckedSample, None, None], report: _Report, fix_out: Path | None, total: int
) -> None:
    with closing(results), _fixed_file(fix_out) as fixed:
        _check_each(results, report, fixed, total=total)
        if fixed is not None and not report.summary.good:
            raise _NothingGoodError
    report.finish(fix_out)


def _check_each(results: Iterator[CheckedSample], report: _Report, fixed: IO[bytes] | None, *, total: int) -> None:
    from ..data.convert import RecordLines

    lines = RecordLines()
    is_shown = sys.stdout is not None and sys.stdout.isatty()
    with progress_bar(total, "Checking", hidden=report.as_json and is_shown) as advance:
        for checked in results:
            report.add(checked)
            if fixed is not None and checked.record is not None:
                fixed.write(lines.line(checked.record))
            advance()


class _NothingGoodError(Exception):
    """Unwinds what would put an empty file in its place."""


@contextmanager
def _fixed_file(path: Path | None) -> Iterator[IO[bytes] | None]:
    """The file that good samples go to; it is not made where there are none."""
    from ..files import written_whole

    if path is None:
        yield None
        return
    try:
        with written_whole(path) as made, open(made, "wb") as file:
            yield file
    except _NothingGoodError:
        pass


def load_processor(model: str, adapter: str | None, adapter_options: Mapping[str, Any]) -> RegionProcessor:
    """The processor of a model folder or of a plain backbone.

    Raises:
        Failure: it cannot be loaded.
    """
    from .asking import require_model, require_named_adapter

    require_model(model)
    require_named_adapter(model, adapter)
    quiet_libraries()
    from ..processor import RegionProcessor

    with _explained(model):
        return RegionProcessor.from_pretrained(model, adapter=adapter, adapter_config=adapter_options or None)


@contextmanager
def _explained(model: str) -> Iterator[None]:
    """Where its processor cannot be loaded, says so."""
    from ..errors import CheckpointError

    try:
        yield
    except (OSError, CheckpointError) as error:  # what the hub's client raises for networks, and what we make of it
        raise Failure(f"The processor of '{model}' cannot be loaded: {error}") from error


class _Report:
    """Prints what is found: bad samples, then what all come to."""

    def __init__(self, dataset: RegionDataset, summary: CheckSummary, as_json: bool) -> None:
        self.summary = summary
        self.as_json = as_json
        self._dataset = dataset
        self._lines: list[str] = []

    def add(self, checked: CheckedSample) -> None:
        """Take in a sample. As JSON it is printed at once, as lines once the progress bar is out of the way."""
        self.summary.add(checked)
        if self.as_json and checked.defects:
            defects = [defect._asdict() for defect in checked.defects]
            _echo_json({"where": checked.where, "id": checked.id, "index": checked.index, "defects": defects})
        elif len(self._lines) < MAX_LINES:
            self._lines += [plain(f"{checked.name}: {each.kind}: {each.message}") for each in checked.defects]

    def finish(self, fix_out: Path | None) -> None:
        """Print the rest."""
        if self.as_json:
            _echo_json({"summary": self._as_json(fix_out)})
            return
        for line in self._lines[:MAX_LINES]:
            click.echo(line)
        if self.summary.defects > MAX_LINES:
            click.echo(f"... and {counted(self.summary.defects - MAX_LINES, 'defect')} more; --json prints all.")
        if self.summary.defects:
            _print_table(self.summary)
        click.echo(_totals(self.summary))
        echo_left_out(self._dataset)
        if fix_out is not None:
            click.echo(_fixed(self.summary, fix_out))

    def _as_json(self, fix_out: Path | None) -> dict[str, Any]:
        found = self.summary
        return {
            "file": self._dataset.name,
            "format": self._dataset.format,
            "left_out": dict(self._dataset.left_out),
            "samples": found.samples,
            "good": found.good,
            "defects": found.defects,
            "kinds": dict(by_count(found.kinds)),
            "images": found.images,
            "videos": found.videos,
            "regions": _spread_as_json(found.regions),
            "masks": _spread_as_json(found.masks),
            "tokens": _spread_as_json(found.tokens) if found.tokens.count else None,
            "fix_out": str(fix_out) if fix_out is not None and found.good else None,
        }


def _spread_as_json(spread: Spread) -> dict[str, Any]:
    return {**dataclasses.asdict(spread), "mean": round(spread.mean, 3)}


def _print_table(summary: CheckSummary) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    table.add_column("defect")
    table.add_column("samples", justify="right")
    table.add_column("share", justify="right")
    rows = [*by_count(summary.kinds), ("any", summary.samples - summary.good)]
    for position, (kind, count) in enumerate(rows):
        is_last_kind = position == len(rows) - 2
        table.add_row(kind, f"{count:,}", f"{100 * count / summary.samples:.1f} %", end_section=is_last_kind)
    Console().print(table)


def _totals(summary: CheckSummary) -> str:
    bad = summary.samples - summary.good
    regions, masks, tokens = summary.regions, summary.masks, summary.tokens
    lines = [
        f"{counted(summary.samples, 'sample')}: {summary.good:,} good, {bad:,} with defects.",
        f"They show {counted(summary.images, 'image')} and {counted(summary.videos, 'video')}, and have "
        f"{counted(regions.total, 'region')} "
        f"({regions.least:,} to {regions.most:,} each, {regions.mean:.1f} on average).",
    ]
    if masks.total:
        lines.append(
            f"Their answers give {counted(masks.total, 'mask')} ({masks.least:,} to {masks.most:,} each, "
            f"{masks.mean:.1f} on average)."
        )
    if tokens.count:
        lines.append(f"Good ones have {tokens.least:,} to {tokens.most:,} tokens, {tokens.mean:,.0f} on average.")
    return "\n".join(lines)


def _fixed(summary: CheckSummary, path: Path) -> str:
    if not summary.good:
        return f"No sample is good: '{path}' is not written."
    wrote = f"Wrote {counted(summary.good, 'sample')} to '{path}'."
    return f"{wrote} {left_out(summary.samples - summary.good, summary.kinds)}"


def _echo_json(value: Mapping[str, Any]) -> None:
    click.echo(json.dumps(value, ensure_ascii=False).encode(errors="backslashreplace"))
