"""`run_ablation`: trains and evaluates every cell of a grid of settings, what `pixelrefer ablate` calls.

out/
    cells/          a run's folder for each cell, as `pixelrefer train` leaves it
    ablation.json   the grid, its cells, the figures of each row, and what was to be compared
    ablation.md     the same as tables

A cell that is finished is not trained again; one that fails is listed, and the others go on. It knows configurations
and runs; figures and tables are made in `ablation_table.py`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from ..errors import ConfigError, PixelReferError, TrainingError, counted, text_of
from ..evaluation.predicting.processes import is_first_process
from ..files import write_text_whole
from .ablation_table import Comparison, FinishedCell, compared, markdown_of, rows_of, tables_of
from .building import choose_recipe, has_bf16
from .config import TrainConfig
from .grid import Cell, Grid, cells_of
from .report import hardware, say, versions, write_json
from .run import CONFIG_FILE, run_training

_logger = logging.getLogger(__name__)


def run_ablation(
    grid: Grid,
    *,
    overwrite: bool = False,
    dry_run: bool = False,
    train: bool = True,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train every cell that is not finished, and write the tables; on several processes each of them calls this.

    Args:
        grid: what to do.
        overwrite: train cells again that were trained with other settings.
        dry_run: check every cell's configuration and say which are to be trained; nothing is written.
        train: otherwise only the tables are made, of the cells that are finished.
        console: where to print; only the first process prints.

    Returns:
        What `ablation.json` holds; of a dry run the cells alone; with `interrupted` where the user stopped it.

    Raises:
        ConfigError: a cell's configuration is wrong.
        TrainingError: a cell's folder holds a run with other settings, or the folder cannot be written.
    """
    is_first = is_first_process()
    console = (console or Console()) if is_first else Console(quiet=True)
    cells = cells_of(grid)
    left = [cell for cell in cells if not _is_finished(cell, overwrite=overwrite)]
    say(console, f"{grid.out}: {counted(len(cells), 'cell')}, {len(cells) - len(left):,} finished")
    if dry_run:
        for cell in cells:
            say(console, f"{'to train' if cell in left else 'finished'}: {cell.name}")
        return {"cells": [{**cell.labels, "seed": cell.seed, "finished": cell not in left} for cell in cells]}
    failed: dict[str, str] = {}
    for number, cell in enumerate(left if train else (), 1):
        say(console, f"-- {number}/{len(left)}: {cell.name}")
        if _trained(cell, failed, console=console):
            return {"interrupted": cell.name}
    result = _result(grid, cells, failed)
    if is_first:
        _write(grid, result, console)
    return result


# -- training ----------------------------------------------------------------------------------------------


def _is_finished(cell: Cell, *, overwrite: bool) -> bool:
    """Whether a cell was trained to its end; one with other settings is refused, or is to be trained again."""
    if _has_other_settings(cell):
        if overwrite:
            return False
        raise TrainingError(
            f"'{cell.folder}' was trained with other settings than the grid has now. Train it again: --overwrite. Or "
            "choose another out."
        )
    return (cell.folder / "metrics.json").is_file()


def _has_other_settings(cell: Cell) -> bool:
    """Whether its folder holds a run, finished or not, of another configuration."""
    path = cell.folder / CONFIG_FILE
    if not path.is_file():
        return False
    resolved = cell.config.resolved(has_bf16=has_bf16(), recipe=choose_recipe(cell.config))
    try:
        return TrainConfig.load(path) != resolved  # keys that an earlier version did not have are their defaults
    except ConfigError:
        return True


def _trained(cell: Cell, failed: dict[str, str], *, console: Console) -> bool:
    """Train a cell, or note why that failed; whether the user stopped it."""
    anew = _has_other_settings(cell)
    try:
        result = run_training(cell.config, resume=not anew, overwrite=anew, console=console)
    except (PixelReferError, RuntimeError, OSError, MemoryError) as error:
        failed[cell.folder.name] = text_of(error)
        say(console, f"failed: {cell.name}: {text_of(error)}")
        _logger.debug("cell %s", cell.name, exc_info=True)
        return False
    return "interrupted" in result


# -- results -----------------------------------------------------------------------------------------------


def _result(grid: Grid, cells: Sequence[Cell], failed: Mapping[str, str]) -> dict[str, Any]:
    finished: list[FinishedCell] = []
    records: list[dict[str, Any]] = []
    for cell in cells:
        record: dict[str, Any] = {**cell.labels, "seed": cell.seed, "folder": cell.folder.name}
        try:
            found = FinishedCell.read(cell.folder, cell.labels, cell.seed, small_px=grid.small_px)
        except (OSError, ValueError, KeyError, TypeError):
            state = "failed" if cell.folder.name in failed else "not trained"
            records.append({**record, "state": state, "error": failed.get(cell.folder.name, "")})
            continue
        finished.append(found)
        records.append({**record, "state": "finished", "figures": dict(found.figures), "seconds": found.seconds})
    rows = rows_of(finished, list(grid.axes))
    comparisons = [
        compared(finished, Comparison(each.more, each.less, each.figure, each.about)) for each in grid.compare
    ]
    return {
        "title": grid.title or Path(grid.out).name,
        "grid": grid.model_dump(mode="json"),
        "cells": records,
        "rows": [row.as_record() for row in rows],
        "comparisons": [each.as_record() for each in comparisons],
        "tables": tables_of(rows, list(grid.axes), grid.figures, comparisons),
        "hardware": hardware(),
        "versions": versions(cells[0].config),
        "written": time.strftime("%Y-%m-%d"),
    }


def _write(grid: Grid, result: Mapping[str, Any], console: Console) -> None:
    out = Path(grid.out)
    text = markdown_of(result)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "ablation.json", {name: value for name, value in result.items() if name != "tables"})
        write_text_whole(out / "ablation.md", text)
    except OSError as error:
        raise TrainingError(f"out '{out}' cannot be written: {error.strerror}. Choose another out.") from error
    say(console, text)
    say(console, f"written to {out}: ablation.json, ablation.md")
