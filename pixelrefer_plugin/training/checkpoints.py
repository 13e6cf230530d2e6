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
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch

from ..errors import TrainingError, counted, shown, text_of
from ..files import put_folder, restore_folder

MODEL_FOLDER = "model"
RUN_FILE = "run.json"
_FOLDER = "checkpoints"
_FILES, _PROCESSES = "written_files", "num_processes"  # keys of run.json
_MOST_SUMMED = 2**26  # bytes
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
    """Record the configuration that a checkpoint belongs to, and what its files are like, all others being there."""
    record = {**run, _FILES: {name: _likeness(checkpoint / name) for name in _files_in(checkpoint)}}
    (checkpoint / RUN_FILE).write_text(json.dumps(record, indent=2, default=str) + "\n", encoding="utf-8")


def require_resumable(checkpoint: Path, run: Mapping[str, Any], *, files: Sequence[str]) -> None:
    """Refuse to resume from an incomplete or damaged checkpoint, or from another configuration's.

    Args:
        checkpoint: its folder.
        run: the configuration of the run that resumes.
        files: what must be in it, besides the configuration.

    Raises:
        TrainingError: names what is missing or has changed since it was written, or each setting that differs and
            both of its values; or it was written by another number of processes.
    """
    record = _read_run(checkpoint)
    likenesses = record.pop(_FILES, {})
    _require_as_many(checkpoint, record.get(_PROCESSES), run.get(_PROCESSES))
    missing = [name for name in files if not _is_there(checkpoint / name)]
    if missing:
        raise _not_whole(checkpoint, missing)
    _require_as_written(checkpoint, likenesses)
    earlier = dict(_flat(record))
    now = dict(_flat(json.loads(json.dumps(run, default=str))))
    differing = [key for key in sorted({*earlier, *now}) if not _may_go_on(key, earlier.get(key), now.get(key))]
    if differing:
        listed = "; ".join(f"{key} was {shown(earlier.get(key))}, is {shown(now.get(key))}" for key in differing)
        raise TrainingError(
            f"'{checkpoint}' was written by a run with other settings: {listed}. Resume with the settings it had, or "
            "start anew in another output folder."
        )


def _is_there(path: Path) -> bool:
    return path.is_dir() if path.name == MODEL_FOLDER else path.is_file()


def _read_run(checkpoint: Path) -> dict[str, Any]:
    path = checkpoint / RUN_FILE
    if not path.is_file():
        raise _not_whole(checkpoint, [RUN_FILE])
    with reading(checkpoint, RUN_FILE):
        record = json.loads(path.read_bytes())
        if not isinstance(record, dict) or not isinstance(record.get(_FILES, {}), dict):
            raise ValueError(f"it holds {shown(record)}")
        return record


def _require_as_many(checkpoint: Path, earlier: Any, now: Any) -> None:
    if isinstance(earlier, int) and isinstance(now, int) and earlier != now:
        writers = counted(earlier, "process", "processes")
        raise TrainingError(
            f"'{checkpoint}' was written by {writers}, here {'are' if now > 1 else 'is'} {now}: each takes "
            f"other samples then. Resume with {writers}, or start anew from the checkpoint's model: "
            f"model.backbone={checkpoint / MODEL_FOLDER}."
        )


def _require_as_written(checkpoint: Path, likenesses: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of which a file has changed since; those of earlier versions do not say what they were."""
    missing = [name for name in likenesses if not (checkpoint / name).is_file()]
    if missing:
        raise _not_whole(checkpoint, missing)
    for name, likeness in likenesses.items():
        if _likeness(checkpoint / name) != likeness:
            raise damaged(checkpoint, name, "it is not as it was written")


def _not_whole(checkpoint: Path, missing: Sequence[str]) -> TrainingError:
    return TrainingError(
        f"'{checkpoint}' is not a whole checkpoint: it has no {', '.join(missing)}. {_other_way(checkpoint)}"
    )


def damaged(checkpoint: Path, file: str, reason: object) -> TrainingError:
    """The error for a checkpoint that cannot be resumed from."""
    text = text_of(reason).rstrip(".") or type(reason).__name__
    return TrainingError(f"'{checkpoint}' is damaged, in {file}: {text}. {_other_way(checkpoint)}")


@contextmanager
def reading(checkpoint: Path, file: str) -> Iterator[None]:
    """Whatever is raised while a file of a checkpoint is read is a `TrainingError` that says what to do.

    torch, pickle, safetensors and the Hugging Face `Trainer` raise exceptions of many kinds on damaged files.
    """
    try:
        yield
    except (TrainingError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise damaged(checkpoint, file, error) from error


def _other_way(checkpoint: Path) -> str:
    """What to do in place of resuming from a checkpoint."""
    if _NAME.fullmatch(checkpoint.name):
        earlier = [each for each in list_checkpoints(checkpoint.parents[1]) if step_of(each) < step_of(checkpoint)]
        if checkpoint.parent.name == _FOLDER and earlier:
            return f"Delete this folder, and the run resumes from '{earlier[-1]}'."
    return "Start anew: there is no earlier one."


def _files_in(checkpoint: Path) -> list[str]:
    return sorted(
        each.relative_to(checkpoint).as_posix()
        for each in checkpoint.rglob("*")
        if each.is_file() and each != checkpoint / RUN_FILE
    )


def _likeness(path: Path) -> str:
    """The size of a file, and a checksum where that takes no time."""
    size = path.stat().st_size
    return f"{size}" if size > _MOST_SUMMED else f"{size} {blake2b(path.read_bytes(), digest_size=16).hexdigest()}"


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
