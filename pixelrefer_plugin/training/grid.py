"""`Grid`: an ablation as its YAML file says it, and the cells that it makes. It trains nothing."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from ..errors import ConfigError, shown
from ..evaluation.scoring.groups import SMALL_PX
from .config import Positive, Section, TrainConfig, refusal, validated
from .yaml_file import read_yaml

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
