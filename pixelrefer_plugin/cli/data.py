"""`pixelrefer convert` and `preview`, and what all commands about data files have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import DataError, counted
from .options import CheckedCommand, FunctionT, setting_option
from .reporting import INTERRUPTED, plain
from .values import COUNT, READ, TEXT, WRITTEN

if TYPE_CHECKING:
    from ..data import RegionDataset
    from ..data.convert import Conversion

MAX_LINES = 50


class _FormatOption(click.Option):
    """Lists the installed formats, which are only asked for when help is."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """As click has it."""
        from ..plugins import list_data_formats

        self.help = f"Data format: {', '.join(['auto', *(spec.name for spec in list_data_formats())])}."
        return super().get_help_record(ctx)


def data_options(command: FunctionT) -> FunctionT:
    """Adds the options that say how a data file is read."""
    for option in (
        click.option(
            "--media-root",
            metavar="DIR",
            type=READ,
            help="Where relative media paths begin. [default: the file's folder]",
        ),
        click.option(
            "--strict-media", is_flag=True, help="Refuse samples whose media lie elsewhere: for files of strangers."
        ),
        setting_option("--option", "options", help="An option of the format."),
        click.option(
            "--format",
            "format_name",
            metavar="NAME",
            type=TEXT,
            default="auto",
            show_default=True,
            cls=_FormatOption,
        ),
    ):
        command = option(command)
    return command


limit_option = click.option("--limit", type=COUNT, help="Read only so many samples, the first.")


# -- convert -----------------------------------------------------------------------------------------------


@click.command(cls=CheckedCommand, short_help="Write any data format in this package's own.")
@click.argument("source", metavar="SRC", type=READ)
@click.argument("out", metavar="OUT.jsonl", type=WRITTEN)
@data_options
@click.option(
    "--held-out",
    metavar="FILE",
    type=WRITTEN,
    help="Write a part of the samples there instead. No picture or video is in both files.",
)
@click.option(
    "--held-out-share",
    type=click.FloatRange(min=0, max=1, min_open=True, max_open=True),
    help="How large that part is. [default: 0.1]",
)
@click.option(
    "--on-bad-sample",
    type=click.Choice(["error", "skip"]),
    default="error",
    show_default=True,
    help="Stop at a sample that cannot be used, or leave it out and say so.",
)
@limit_option
@click.option("--overwrite", is_flag=True, help="Replace files that are there.")
def convert(
    source: Path,
    out: Path,
    format_name: str,
    options: tuple[tuple[str, Any], ...],
    media_root: Path | None,
    strict_media: bool,
    held_out: Path | None,
    held_out_share: float | None,
    on_bad_sample: Any,
    limit: int | None,
    overwrite: bool,
) -> None:
    """Write any data format in this package's own. See docs/data.md.

    Pictures and videos stay where they are, and are not opened; their paths are written relative to OUT's folder.

    \b
    Example:
      pixelrefer convert instances.json train.jsonl --media-root images --held-out held_out.jsonl
      pixelrefer convert videorefer.json train.jsonl --on-bad-sample skip
    """
    from ..data.convert import convert_dataset

    if held_out is None and held_out_share is not None:
        raise click.UsageError("--held-out-share needs --held-out, the file that this part is written to.")
    require_other_file("OUT", out, source)
    require_other_file("--held-out", held_out, source)
    require_other_file("--held-out", held_out, out)
    _require_free([each for each in (out, held_out) if each is not None], overwrite=overwrite)
    with quiet(), stopping(lambda: 0, "written"):
        dataset = open_dataset(source, format_name, options, media_root, strict_media=strict_media)
        with progress_bar(min(limit or len(dataset), len(dataset)), "Converting") as advance:
            found = convert_dataset(
                dataset,
                out,
                held_out=held_out,
                held_out_share=0.1 if held_out_share is None else held_out_share,
                on_bad_sample=on_bad_sample,
                limit=limit,
                remember=MAX_LINES,
                progress=advance,
            )
    _print_conversion(found, out, held_out)
    echo_left_out(dataset)


def _print_conversion(found: Conversion, out: Path, held_out: Path | None) -> None:
    for error in found.left_out:
        click.echo(plain(f"Left out: {error}"), err=True)
    if found.num_left_out > len(found.left_out):
        click.echo(f"... and {found.num_left_out - len(found.left_out):,} more.", err=True)
    click.echo(f"Wrote {counted(found.written, 'sample')} to '{out}'.")
    if held_out is not None:
        share = found.held_out / (found.written + found.held_out)
        click.echo(
            f"Wrote {counted(found.held_out, 'sample')} ({share:.1%}) to '{held_out}', of other pictures and videos."
        )
    if found.num_left_out:
        click.echo(left_out(found.num_left_out, found.defects))


def _require_free(paths: list[Path], *, overwrite: bool) -> None:
    for path in paths:
        if path.exists() and not overwrite:
            raise DataError(f"'{path}' exists. Give another name, or --overwrite to replace it.")


# -- common ------------------------------------------------------------------------------------------------


def left_out(count: int, kinds: Mapping[Any, int]) -> str:
    """How many samples were, and why."""
    if not count:
        return "None was left out."
    listed = ", ".join(f"{kind} {number:,}" for kind, number in by_count(kinds))
    return f"Left out {count:,} for their defects: {listed}."


def echo_left_out(dataset: RegionDataset) -> None:
    """Say what of a file makes no sample, where the format left out something."""
    if dataset.left_out:
        click.echo(plain(f"{dataset.name}: {dataset.left_out_text}."))


def by_count(kinds: Mapping[Any, int]) -> list[tuple[str, int]]:
    """The most frequent first."""
    return sorted(kinds.items(), key=lambda item: (-item[1], item[0]))


def open_dataset(
    path: Path,
    format_name: str,
    options: tuple[tuple[str, Any], ...],
    media_root: Path | None,
    *,
    strict_media: bool,
) -> RegionDataset:
    from ..data import RegionDataset

    return RegionDataset.open(
        path, format=format_name, media_root=media_root, strict_media=strict_media, options=dict(options)
    )


def require_other_file(option: str, path: Path | None, read: Path) -> None:
    """Refuse to write over a file that another argument names."""
    if path is not None and path.resolve() == read.resolve():
        raise DataError(f"{option} would replace '{path}', which is the file of another argument. Rename it.")


def quiet() -> AbstractContextManager[None]:
    """Without what libraries log and warn of; what this package warns of is printed, the first of each kind."""
    from ..data.notices import own_warnings

    return own_warnings(lambda text: click.echo(plain(f"Warning: {text}"), err=True))


@contextmanager
def stopping(count: Callable[[], int], done: str) -> Iterator[None]:
    """Ctrl-C ends the command with one line."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"Stopped: {counted(count(), 'sample')} {done}.", err=True)
        raise SystemExit(INTERRUPTED) from None


@contextmanager
def progress_bar(total: int, label: str, *, hidden: bool = False) -> Iterator[Callable[[], None]]:
    """A progress bar on stderr, where that is a terminal; gives what is to be called after each sample."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = console.is_terminal and not hidden
    with Progress(*columns, console=console, transient=True, disable=not shown, redirect_stdout=False) as bar:
        task = bar.add_task(label, total=total)
        yield lambda: bar.advance(task)
