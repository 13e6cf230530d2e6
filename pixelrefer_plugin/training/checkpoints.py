"""Checkpoints of a training run: whole or absent, the newest found, resumed only by the run that wrote them.

    out/checkpoints/checkpoint-120/
        model/                        a model folder, as `RegionModel.save_pretrained` writes it
        optimizer.pt scheduler.pt rng_state.pth trainer_state.json      the Hugging Face `Trainer`'s own
        run.json                      the configuration that it belongs to

It knows folders; what is in them is the trainer's business.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import TrainingError
from ..files import put_folder, restore_folder

MODEL_FOLDER = "model"
RUN_FILE = "run.json"
_FOLDER = "checkpoints"
_NAME = re.compile(r"checkpoint-(\d+)")
_LEFT_OVER = re.compile(r"\.(checkpoint-\d+)\.(partial|discarded|earlier)")

# Settings that do not change what is learnt, so that a resumed run may have others.
_FREE = ("run.", "evaluation.", "data.eval", "data.workers")
# Settings that a resumed run may raise, to train longer; None is less than any number.
_GROWING = ("optim.steps", "optim.epochs", "max_steps", "num_train_epochs")


def checkpoints_folder(out: str | os.PathLike[str]) -> Path:
    """Where the checkpoints of a run's output folder are."""
    return Path(out) / _FOLDER


def list_checkpoints(out: str | os.PathLike[str]) -> list[Path]:
    """The checkpoints of a run's output folder, the oldest first."""
    folder = checkpoints_folder(out)
    found = [each for each in folder.iterdir() if _NAME.fullmatch(each.name)] if folder.is_dir() else []
    return sorted(found, key=step_of)


def latest_checkpoint(out: str | os.PathLike[str]) -> Path | None:
    """The newest checkpoint of a run's output folder; None where there is none."""
    return next(reversed(list_checkpoints(out)), None)


def step_of(checkpoint: Path) -> int:
    """The optimizer step after which a checkpoint was written."""
    match = _NAME.fullmatch(checkpoint.name)
    assert match is not None, checkpoint
    return int(match[1])


def checkpoint_path(out: str | os.PathLike[str], step: int) -> Path:
    """Where the checkpoint of a step goes."""
    return checkpoints_folder(out) / f"checkpoint-{step}"


def partial_folder(checkpoint: Path) -> Path:
    """Where a checkpoint is made, until it is whole: it stands in this folder under its own name."""
    return checkpoint.with_name(f".{checkpoint.name}.partial")


def publish(checkpoint: Path) -> None:
    """Put a whole checkpoint from its partial folder in its place, once all of it is on the disk."""
    partial = partial_folder(checkpoint)
    put_folder(partial / checkpoint.name, checkpoint)  # in place of an earlier run's past this step
    partial.rmdir()


def discard(checkpoint: Path) -> None:
    """Delete a checkpoint; an interruption leaves nothing that looks like one."""
    discarded = checkpoint.with_name(f".{checkpoint.name}.discarded")
    checkpoint.rename(discarded)
    shutil.rmtree(discarded)


def rotate(out: str | os.PathLike[str], *, keep: int | None, best: str | None) -> None:
    """Delete the oldest checkpoints beyond `keep`, but never the newest, nor the best one."""
    checkpoints = list_checkpoints(out)
    kept = {checkpoints[-1], *([Path(best)] if best else [])} if checkpoints else set()
    excess = len(checkpoints) - max(keep, len(kept)) if keep else 0
    for checkpoint in [each for each in checkpoints if each not in kept][: max(excess, 0)]:
        discard(checkpoint)


def remove_left_over(out: str | os.PathLike[str]) -> None:
    """Delete what an interrupted run left unfinished, and put back a checkpoint that it was replacing; nothing else in
    the folder is touched."""
    folder = checkpoints_folder(out)
    for path in list(folder.iterdir()) if folder.is_dir() else ():
        found = _LEFT_OVER.fullmatch(path.name)
        if found is not None and found[2] == "earlier":
            restore_folder(folder / found[1])
        elif found is not None:
            shutil.rmtree(path)


def write_run(checkpoint: Path, run: Mapping[str, Any]) -> None:
    """Record the configuration that a checkpoint belongs to."""
    (checkpoint / RUN_FILE).write_text(json.dumps(run, indent=2, default=str) + "\n", encoding="utf-8")


def require_resumable(checkpoint: Path, run: Mapping[str, Any], *, files: Sequence[str]) -> None:
    """Refuse to resume from an incomplete checkpoint, or from another configuration's.

    Args:
        checkpoint: its folder.
        run: the configuration of the run that resumes.
        files: what must be in it, besides the configuration.

    Raises:
        TrainingError: names what is missing, or each setting that differs and both of its values.
    """
    missing = [name for name in (*files, RUN_FILE) if not (checkpoint / name).exists()]
    if missing:
        raise TrainingError(f"'{checkpoint}' is not a whole checkpoint: it has no {', '.join(missing)}.")
    earlier = dict(_flat(json.loads((checkpoint / RUN_FILE).read_text(encoding="utf-8"))))
    now = dict(_flat(json.loads(json.dumps(run, default=str))))
    differing = [key for key in sorted({*earlier, *now}) if not _may_go_on(key, earlier.get(key), now.get(key))]
    if differing:
        listed = "; ".join(f"{key} was {earlier.get(key)!r}, is {now.get(key)!r}" for key in differing)
        raise TrainingError(
            f"'{checkpoint}' was written by a run with other settings: {listed}. Resume with the settings it had, or "
            "start anew in another output folder."
        )


def _may_go_on(key: str, earlier: Any, now: Any) -> bool:
    if key in _GROWING and all(isinstance(each, int | float | None) for each in (earlier, now)):
        return (now or 0) >= (earlier or 0)
    return bool(earlier == now) or key.startswith(_FREE)


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings under dotted keys; lists count as one value."""
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from _flat(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item
