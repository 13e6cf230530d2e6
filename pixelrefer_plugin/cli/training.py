"""`pixelrefer train`, `pixelrefer ablate` and `pixelrefer merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..evaluation.predicting.processes import leave_the_others
from ..files import require_writable_folder
from .options import CheckedCommand, dtype_option
from .reporting import INTERRUPTED, Failure, quiet_libraries
from .values import MODEL, RECIPE, WRITTEN


@click.command(cls=CheckedCommand, short_help="Fine-tune a model on regions of your own.")
@click.argument("config", metavar="CONFIG.yaml", type=RECIPE)
@click.argument("settings", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint of the run's folder.")
@click.option("--overwrite", is_flag=True, help="Replace the run that is in the folder.")
@click.option("--dry-run", is_flag=True, help="Load and check everything, print the plan, stop before the first step.")
def train(config: Path, settings: tuple[str, ...], resume: bool, overwrite: bool, dry_run: bool) -> None:
    """Fine-tune a model on regions of your own. docs/training.md has all keys; examples/recipes/ has files to start
    from.

    KEY=VALUE is written over what the file says; keys are dotted, values are YAML.

    \b
    Example:
      pixelrefer train lora.yaml data.train=street.jsonl run.out=runs/street --dry-run
      pixelrefer train lora.yaml optim.epochs=3 learning_rates.lora=1e-4
      pixelrefer train lora.yaml --resume
      accelerate launch --num_processes 8 -m pixelrefer_plugin train lora.yaml
    """
    if resume and overwrite:
        raise click.UsageError("--resume and --overwrite exclude each other.")
    try:
        result = _run(config, settings, resume=resume, overwrite=overwrite, dry_run=dry_run)
    except KeyboardInterrupt:
        click.echo("stopped at once; --resume goes on from the newest checkpoint, if there is one", err=True)
        raise SystemExit(INTERRUPTED) from None
    if "interrupted" in result:
        how = "--resume goes on from there" if result["resumable"] else "nothing was saved: run.save_every is null"
        click.echo(f"stopped at step {result['interrupted']}; {how}", err=True)
        raise SystemExit(INTERRUPTED)


def _run(path: Path, settings: tuple[str, ...], *, resume: bool, overwrite: bool, dry_run: bool) -> dict[str, Any]:
    from ..training.config import TrainConfig

    config = TrainConfig.load(path, settings)
    quiet_libraries()
    from ..training.run import run_training

    result = run_training(config, resume=resume, overwrite=overwrite, dry_run=dry_run)
    leave_the_others()
    return result


@click.command(cls=CheckedCommand, short_help="Train and compare a grid of settings.")
@click.argument("grid", metavar="GRID.yaml", type=RECIPE)
@click.argument("settings", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--overwrite", is_flag=True, help="Train cells again that were trained with other settings.")
@click.option("--dry-run", is_flag=True, help="Check every cell's configuration, list the cells, train none.")
@click.option("--tables", "tables_only", is_flag=True, help="Make the tables of the cells that are finished.")
def ablate(grid: Path, settings: tuple[str, ...], overwrite: bool, dry_run: bool, tables_only: bool) -> None:
    """Train and evaluate every cell of a grid of settings, with several seeds, and print tables.

    A grid has a training configuration to begin with and axes: names of values, each with the keys that it sets. Every
    combination is a run of pixelrefer train, in a folder of its own. What is finished is not trained again, so that the
    same command goes on with a grid that was stopped. docs/training.md has all keys; examples/ablations/ has files to
    start from.

    KEY=VALUE is written over what the grid's file says; keys are dotted, values are YAML.

    \b
    Example:
      python -m pixelrefer_plugin.quickstart.ablation_data ablation-data
      pixelrefer ablate examples/ablations/table8.yaml --dry-run
      pixelrefer ablate examples/ablations/table8.yaml seeds=[0,1] out=runs/table8
    """
    from ..training.ablation import run_ablation
    from ..training.grid import Grid

    chosen = Grid.load(grid, settings)
    quiet_libraries()
    try:
        result = run_ablation(chosen, overwrite=overwrite, dry_run=dry_run, train=not tables_only)
    except KeyboardInterrupt:
        result = {"interrupted": True}
    if "interrupted" in result:
        click.echo("stopped; the same command goes on from here", err=True)
        raise SystemExit(INTERRUPTED)
    leave_the_others()
    if any(cell.get("state") == "failed" for cell in result["cells"]):
        raise SystemExit(1)


@click.command(cls=CheckedCommand, short_help="Fold a model folder's LoRA into its backbone.")
@click.argument("folder", metavar="DIR_OR_ID", type=MODEL)
@click.argument("out", type=WRITTEN)
@click.option("--backbone", metavar="DIR_OR_ID", type=MODEL, help="Where the backbone is, if it has moved.")
@dtype_option("Of the merged weights; auto is the backbone's own.")
def merge(folder: str, out: Path, backbone: str | None, dtype: str) -> None:
    """Fold a model folder's LoRA into its backbone, and write both as one folder that needs no other.

    \b
    Example:
      pixelrefer merge runs/street/model runs/street/merged --dtype bfloat16
    """
    from .asking import require_model

    require_model(folder)
    if out.exists():
        raise Failure(f"'{out}' exists. Choose another folder.")
    require_writable_folder(out)
    quiet_libraries()
    from ..entry import load

    model, processor = load(folder, backbone=backbone, dtype=dtype)
    model.merge_lora()
    model.save_pretrained(out, processor)
    click.echo(f"written to {out}")
