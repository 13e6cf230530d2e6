"""`pixelrefer preview`: samples drawn on one sheet, as they are or as a model is shown them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..errors import counted
from .checking import load_processor
from .data import data_options, echo_left_out, open_dataset, quiet, require_other_file
from .options import CheckedCommand, adapter_name_option, adapter_option, require_none, seed_option
from .values import MODEL, READ, WRITTEN, WholeType


@click.command(cls=CheckedCommand, short_help="Draw samples with their regions and texts on one sheet.")
@click.argument("path", metavar="FILE", type=READ)
@click.option("-n", "count", type=WholeType(1, 200), default=16, show_default=True, help="How many samples.")
@click.option(
    "--out",
    metavar="FILE",
    type=WRITTEN,
    default=Path("sheet.png"),
    show_default=True,
    help="The picture, .png or .jpg.",
)
@seed_option("Of the lot that picks them.")
@click.option(
    "--font",
    metavar="FILE",
    type=READ,
    help="A .ttf or .otf font to write with; letters that it lacks come from other fonts of this machine.",
)
@click.option(
    "--model",
    metavar="DIR_OR_ID",
    type=MODEL,
    help="Draw what this model or backbone is shown, with an adapter that points at regions in words and pictures.",
)
@adapter_name_option
@adapter_option
@data_options
def preview(
    path: Path,
    count: int,
    out: Path,
    seed: int,
    font: Path | None,
    model: str | None,
    adapter: str | None,
    adapter_options: tuple[tuple[str, Any], ...],
    format_name: str,
    options: tuple[tuple[str, Any], ...],
    media_root: Path | None,
    strict_media: bool,
) -> None:
    """Draw some samples on one sheet: their pictures with numbered regions, and their texts.

    Masks to learn are called seg 1, seg 2, ..., in the pictures as in the answers. Of a video the frames that
    regions name are drawn. A sample with defects says what they are.

    \b
    Example:
      pixelrefer preview train.jsonl -n 16 --out sheet.png
      pixelrefer preview train.jsonl --model OWNER/BACKBONE --adapter marks
    """
    from ..data.preview import draw_sheet, require_sheet_path, save_sheet
    from .asking import choose_adapter, require_model

    given = {"--adapter": adapter, "--adapter-option": adapter_options}
    require_none([f"{name} needs --model." for name, value in given.items() if value and model is None])
    require_sheet_path(out)
    require_other_file("--out", out, path)
    dataset = open_dataset(path, format_name, options, media_root, strict_media=strict_media)
    if model is not None and adapter is None:
        require_model(model)
        chosen = choose_adapter(model, None)
        adapter = chosen.name
        if chosen.told:
            click.echo(chosen.told, err=True)
    processor = None if model is None else load_processor(model, adapter, dict(adapter_options))
    with quiet():
        pointed = None if processor is None else processor.pointed
        sheet = draw_sheet(dataset, count=count, seed=seed, font=font, pointed=pointed)
        save_sheet(out, sheet)
    click.echo(f"Drew {min(count, len(dataset))} of {counted(len(dataset), 'sample')}: '{out}'.")
    echo_left_out(dataset)
