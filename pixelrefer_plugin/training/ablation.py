"""`run_ablation`: trains and evaluates every cell of a grid of settings, what `pixelrefer ablate` calls.

out/
    cells/          a run's folder for each cell, as `pixelrefer train` leaves it
    ablation.json   the grid, its cells, the figures of each row, and what was to be compared
    ablation.md     the same as tables

A cell that is finished is not trained again; one that fails is listed, and the others go on. It knows configurations
and runs; figures and tables are made in `ablation_table.py`.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from rich.console import Console

from ..errors import ConfigError, PixelReferError, TrainingError, counted, shown, text_of
from ..evaluation.predicting.processes import is_first_process
from ..evaluation.scoring.groups import SMALL_PX
from ..files import write_text_whole
from .ablation_table import Comparison, FinishedCell, compared, markdown_of, rows_of, tables_of
from .building import choose_recipe, has_bf16
from .config import Positive, Section, TrainConfig, refusal, validated
from .report import hardware, say, versions, write_json
from .run import CONFIG_FILE, run_training
from .yaml_file import read_yaml

_logger = logging.getLogger(__name__)

CELLS_FOLDER = "cells"
_MOST_CELLS = 10_000


class ComparedSection(Section):
    """Which of two settings is said to have the larger figure."""

    more: Annotated[dict[str, str], Field(min_length=1)]
    """The one with the larger figure: its value on each axis that matters. Along the others, cell is compared with
    cell."""
    less: Annotated[dict[str, str], Field(min_length=1)]
    """The other one, on the same axes."""
    figure: str = "exact_match"
    """What is compared, as the tables call it."""
    about: str = ""
    """Where it is said, such as `Table 8`."""


class Grid(Section):
    """An ablation. Read one with `load`."""

    base: str
    """The training configuration that every cell begins with; a relative path is relative to the grid's file."""
    out: str
    """Folder of the ablation."""
    title: str = ""
    """Heading of the tables."""
    axes: Annotated[dict[str, dict[str, dict[str, Any]]], Field(min_length=1)]
    """What varies: by name, its values, and of each value the settings of the training configuration, as dotted keys.
    Every combination is a cell."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of every cell."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], Field(min_length=1)] = (0,)
    """Every cell is trained once with each."""
    figures: tuple[str, ...] = ()
    """Columns of the tables, in order; by default all that the runs have."""
    small_px: Positive = SMALL_PX
    """Regions of fewer pixels are small."""
    compare: tuple[ComparedSection, ...] = ()
    """What is said to be more than what."""

    @classmethod
    def load(cls, path: str | os.PathLike[str], settings: Sequence[str] = ()) -> Grid:
        """Read a YAML file.

        Args:
            path: the file.
            settings: `dotted.key=value` each, written over what the file says.

        Raises:
            ConfigError: everything that is wrong, a line each, with file and line.
        """
        document = read_yaml(Path(path), settings, named=["settings"])
        grid = validated(document, cls)
        problems = list(_broken_rules(grid))
        if problems:
            raise refusal(document, problems)
        return grid.model_copy(update={"base": str(Path(path).parent / grid.base)})


@dataclass(frozen=True)
class Cell:
    """One training of an ablation.

    Attributes:
        labels: its value on each axis.
        seed: of the training.
        folder: of the run.
        config: of the run.
    """

    labels: Mapping[str, str]
    seed: int
    folder: Path
    config: TrainConfig

    @property
    def name(self) -> str:
        """What it is called in messages: `tokens 8, seed 0`."""
        return ", ".join([*(f"{axis} {label}" for axis, label in self.labels.items()), f"seed {self.seed}"])


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


def cells_of(grid: Grid) -> list[Cell]:
    """Every combination of the axes, with the first seed, then with the others; checked.

    Raises:
        ConfigError: the configuration of a cell is wrong; names the cell.
    """
    cells: list[Cell] = []
    for seed, labels in itertools.product(grid.seeds, itertools.product(*grid.axes.values())):
        chosen = dict(zip(grid.axes, labels, strict=True))
        settings = dict(grid.settings)
        for axis, label in chosen.items():
            settings |= grid.axes[axis][label]
        folder = Path(grid.out, CELLS_FOLDER, _folder_name(chosen, seed))
        own = {**settings, "optim.seed": seed, "run.out": str(folder)}
        cells.append(Cell(chosen, seed, folder, _config(grid, chosen, own)))
    return cells


def _config(grid: Grid, labels: Mapping[str, str], settings: Mapping[str, Any]) -> TrainConfig:
    try:
        return TrainConfig.load(grid.base, [f"{key}={json.dumps(value)}" for key, value in settings.items()])
    except ConfigError as error:
        told = ", ".join(f"{axis} {label}" for axis, label in labels.items())
        raise ConfigError("\n".join(f"cell '{told}': {line}" for line in error.message.splitlines())) from error


def _folder_name(labels: Mapping[str, str], seed: int) -> str:
    """Letters that every file system takes; `_broken_rules` sees to it that no two are the same."""
    return ",".join([*map(_plain, labels.values()), f"seed-{seed}"])


def _plain(label: str) -> str:
    return re.sub(r"[^\w.+=-]+", "-", label).strip("-.")


def _broken_rules(grid: Grid) -> Iterator[tuple[str, str]]:
    for axis, values in grid.axes.items():
        if not values:
            yield f"axes.{axis}", "must have a value, got none."
        folders = [_plain(label).casefold() for label in values]
        if len({*folders}) < len(folders) or "" in folders:
            yield f"axes.{axis}", "must have values that differ in letters or digits, which name the cells' folders."
    if len({*grid.seeds}) < len(grid.seeds):
        yield "seeds", f"must differ, got {shown(list(grid.seeds))}."
    number = len(grid.seeds)
    for values in grid.axes.values():
        number *= len(values)
    if number > _MOST_CELLS:
        yield "axes", f"make {number:,} cells, at most {_MOST_CELLS:,} are taken. Leave values out."
    for index, each in enumerate(grid.compare):
        for side, labels in (("more", each.more), ("less", each.less)):
            for axis, label in labels.items():
                if label not in grid.axes.get(axis, {}):
                    known = ", ".join(f"{name} {value}" for name, values in grid.axes.items() for value in values)
                    yield f"compare.{index}.{side}.{axis}", f"must be a value of an axis ({known}), got {shown(label)}."
        if each.more.keys() != each.less.keys():
            yield f"compare.{index}", "must name the same axes on both sides."


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
