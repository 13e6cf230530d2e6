"""`run_training`: from a configuration to a folder with a trained model, what `pixelrefer train` calls.

out/
    model/          a model folder, as `RegionModel.from_pretrained` reads it
    config.yaml     the whole configuration
    run.json        how it came to be: command, versions, hardware, samples, seconds
    metrics.json    losses, and how well held-out questions were answered
    answers.jsonl   those questions and answers
    answers.png     some right and some wrong ones, drawn
    evaluation/     answers to benchmarks, with a report
    skipped.jsonl   samples that were left out, and why
    logs/           for TensorBoard
    checkpoints/    to resume from
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import PrinterCallback, TrainerCallback, TrainingArguments
from transformers.integrations.integration_utils import TensorBoardCallback

from ..conversation.expansion import IGNORE_INDEX
from ..data.overlap import find_overlap
from ..data.preview import save_sheet
from ..errors import CheckpointError, TrainingError
from ..evaluation.answers import HeldOutAnswers
from ..evaluation.answers_picture import draw_answers
from ..evaluation.predicting.processes import is_first_process
from ..files import write_text_whole
from ..weights import hub
from ..weights.model_folder import written_whole
from .benchmarks import FOLDER, AskedBenchmark, RunBenchmarks, check_scorer, open_benchmarks
from .building import (
    BuiltData,
    BuiltModel,
    build_collator,
    build_data,
    build_model,
    check_masks,
    choose_recipe,
    has_bf16,
    num_processes,
    training_arguments,
)
from .checkpoints import MODEL_FOLDER, latest_checkpoint, step_of
from .collator import RegionCollator
from .config import TrainConfig
from .outcome import warnings_of
from .report import (
    Plan,
    ProgressBar,
    ProgressLines,
    held_out_metrics,
    make_plan,
    print_plan,
    run_record,
    say,
    size_of,
    spelled,
    write_json,
    write_lines,
)
from .run_lock import LOCK_FILE, locked, require_not_in_use
from .sampling import sample_order
from .trainer import RegionTrainer

_logger = logging.getLogger(__name__)

CONFIG_FILE = "config.yaml"
_WRITTEN = (
    MODEL_FOLDER,
    CONFIG_FILE,
    "run.json",
    "metrics.json",
    "answers.jsonl",
    "answers.png",
    FOLDER,
    "skipped.jsonl",
    "logs",
    "checkpoints",
)


@dataclass(frozen=True)
class _Parts:
    """What a run is made of."""

    config: TrainConfig
    args: TrainingArguments
    built: BuiltModel
    train: BuiltData
    held_out: BuiltData
    collator: RegionCollator
    answers: HeldOutAnswers | None
    benchmarks: Sequence[AskedBenchmark]
    plan: Plan


def run_training(
    config: TrainConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train, evaluate, save; on several processes each of them calls this.

    Args:
        config: what to do.
        resume: go on from the newest checkpoint of `run.out`, or begin where there is none.
        overwrite: replace the run that is in `run.out`.
        dry_run: stop before the first step, with everything loaded, checked and printed.
        console: where to print; only the first process prints.

    Returns:
        What `metrics.json` holds; with `interrupted`, the step, where the user stopped it.

    Raises:
        PixelReferError: something does not fit, or a guard stopped the training.
    """
    out = Path(config.run.out)
    if is_first_process():  # the others may come when it has begun to write there
        require_not_in_use(out)
        _require_free(out, resume=resume, overwrite=overwrite)
    else:
        console = Console(quiet=True)
    console = console or Console()
    parts = _prepare(config.resolved(has_bf16=has_bf16(), recipe=choose_recipe(config)))
    print_plan(console, parts.config, parts.plan)
    if dry_run:
        return _tried_batch(parts, console)
    with _held(out) if is_first_process() else nullcontext():
        with parts.args.main_process_first():
            if is_first_process():
                _require_free(out, resume=resume, overwrite=overwrite)  # as it may no longer be
                _claim(out, parts.config, overwrite=overwrite)
        return _train(parts, out, console, resume=resume)


def _prepare(config: TrainConfig) -> _Parts:
    args = training_arguments(config)
    built = build_model(config, args.device)
    train = build_data(config.data.train, seed=config.optim.seed)
    held_out = build_data(config.data.eval, seed=config.optim.seed)
    collator = build_collator(built.processor, config.data)
    notes = [*built.notes, *check_masks(built, train)]
    if is_first_process():
        notes += [*_left_out(train, held_out), *common_samples(train, held_out)]
    built = replace(built, notes=notes)
    answers = _held_out_answers(config, built, held_out)
    benchmarks = open_benchmarks(config.evaluation, gives_masks=built.model.adapter_spec.masks is not None)
    check_scorer(config.evaluation, benchmarks)
    asked = {each.name: len(each.opened.questions) for each in benchmarks}
    plan = make_plan(config, built, train, held_out, args, benchmarks=asked)
    return _Parts(config, args, built, train, held_out, collator, answers, benchmarks, plan)


def common_samples(train: BuiltData, held_out: BuiltData) -> list[str]:
    """What the user should know of pictures and samples that are on both sides."""
    if not len(train) or not len(held_out):
        return []
    note = find_overlap(train.dataset, held_out.dataset).note
    return [note] if note else []


def _left_out(train: BuiltData, held_out: BuiltData) -> list[str]:
    """What data formats left out of the files, and why."""
    parts = [part for side in (train, held_out) for part in side.parts]
    return [f"{part.name}: {part.left_out}" for part in parts if part.left_out]


def _held_out_answers(config: TrainConfig, built: BuiltModel, held_out: BuiltData) -> HeldOutAnswers | None:
    section = config.evaluation
    if not len(held_out) or not section.samples:
        return None
    return HeldOutAnswers(
        held_out.dataset,
        built.processor,
        samples=section.samples,
        max_new_tokens=section.max_new_tokens,
        batch_size=section.batch_size,
        on_bad_sample=config.data.on_bad_sample,
    )


def _tried_batch(parts: _Parts, console: Console) -> dict[str, Any]:
    """Make the first batch, as the data loader would: of similar lengths it is the longest of many."""
    order = sample_order(
        parts.train.dataset,
        batching=parts.config.data.batching,
        batch_size=parts.config.optim.batch_size,
        length_of=parts.collator.estimated_tokens,
        seed=parts.config.optim.seed,
        num_processes=num_processes(),
    )
    batch = parts.collator(parts.train.dataset.__getitems__(list(islice(order, parts.config.optim.batch_size))))
    rows, length = batch["input_ids"].shape
    facts = {
        "rows": rows,
        "tokens": rows * length,
        "tokens_of_padding": int((batch["attention_mask"] == 0).sum()),
        "supervised_tokens": int((batch["labels"] != IGNORE_INDEX).sum()),
        "skipped": len(batch["skipped"]),
    }
    if "masks" in batch:
        facts["masks_to_learn"] = sum(batch["masks"].objects_per_sample)
    say(console, "first batch: " + ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in facts.items()))
    memory = parts.plan.memory
    needed = memory.held + memory.per_token * rows * length
    say(console, f"memory per process with this batch: roughly {size_of(needed)}")
    say(console, "dry run: stopped before the first step; nothing was written")
    return {"first_batch": {**facts, "memory_bytes": needed}, "notes": list(parts.plan.notes)}


# -- the folder --------------------------------------------------------------------------------------------


def _require_free(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse to mix with another run, or with files that are not a run's."""
    names = {each.name for each in out.iterdir()} if out.is_dir() else set()
    if all(name == LOCK_FILE or name.endswith(".partial") for name in names):  # those a killed run may leave
        return
    if not (out / CONFIG_FILE).is_file():
        raise TrainingError(
            f"'{out}' has files but is no run of pixelrefer train: it has no {CONFIG_FILE}. Choose another run.out."
        )
    if not (resume or overwrite):
        raise TrainingError(
            f"'{out}' holds another run. Go on with it: --resume. Replace it: --overwrite. Or choose another run.out."
        )


@contextmanager
def _held(out: Path) -> Iterator[None]:
    """The folder, made and locked for this run while the block runs."""
    with ExitStack() as stack:
        with _told_of(out):
            out.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(out))
        yield


@contextmanager
def _told_of(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TrainingError(f"run.out '{out}' cannot be written: {error.strerror}. Choose another run.out.") from error


def _claim(out: Path, config: TrainConfig, *, overwrite: bool) -> None:
    """Make the folder this run's; nothing but what runs write is deleted."""
    with _told_of(out):
        for name in _WRITTEN if overwrite else ():
            path = out / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        if latest_checkpoint(out) is None:  # else its settings stand until it is clear that these may follow
            _write_config(out, config)


def _write_config(out: Path, config: TrainConfig) -> None:
    write_text_whole(out / CONFIG_FILE, config.to_yaml())


# -- training ----------------------------------------------------------------------------------------------


def _train(parts: _Parts, out: Path, console: Console, *, resume: bool) -> dict[str, Any]:
    progress = ProgressBar(console) if console.is_terminal or console.is_jupyter else ProgressLines(console)
    interruption = _Interruption(console)
    benchmarks = _run_benchmarks(parts, out)
    trainer = _make_trainer(parts, out, benchmarks, [progress, interruption])
    checkpoint = latest_checkpoint(out) if resume else None
    say(console, f"resumed from {checkpoint}" if checkpoint else "from the beginning")
    started, start_s = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    try:
        with interruption.caught():
            _take_steps(trainer, checkpoint, parts.plan)
    finally:
        progress.stop()
    if interruption.asked:
        _write_skipped(trainer, out, console)
        return {"interrupted": trainer.state.global_step, "resumable": latest_checkpoint(out) is not None}
    _write_model(trainer, checkpoint, out)
    metrics = {
        "steps": trainer.state.global_step,
        "last_loss": _last_loss(trainer),
        **_held_out_result(trainer, checkpoint, parts.held_out, console),
        **_benchmark_result(trainer, benchmarks, console),
        "skipped_samples": _write_skipped(trainer, out, console),
        "warnings": [*_warnings(trainer, parts), *(benchmarks.problems if benchmarks else ())],
    }
    if is_first_process():
        seconds = time.perf_counter() - start_s
        resumed_at = step_of(checkpoint) if checkpoint else 0
        record = run_record(parts.config, parts.plan, seconds=seconds, started=started, resumed_at=resumed_at)
        _write_config(out, parts.config)
        _write_results(out, metrics, record, parts.answers)
        if benchmarks is not None:
            benchmarks.write()
        _report(out, metrics, parts.config, console)
    return metrics


def _take_steps(trainer: RegionTrainer, checkpoint: Path | None, plan: Plan) -> None:
    """Those that are left; behind the last one the Hugging Face loop would take another."""
    if checkpoint is not None and step_of(checkpoint) >= plan.steps:
        trainer.restore(checkpoint)
    else:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


def _write_model(trainer: RegionTrainer, checkpoint: Path | None, out: Path) -> None:
    """Where no step was left, the model is the checkpoint's: a run may be stopped between its last one and this.

    Raises:
        TrainingError: it cannot be written; says where its weights are.
    """
    try:
        _put_model(trainer, checkpoint, out)
    except CheckpointError as error:
        raise TrainingError(f"The training is finished, but {error} {_where_weights_are(trainer, out)}") from error


def _where_weights_are(trainer: RegionTrainer, out: Path) -> str:
    last = latest_checkpoint(out)
    if last is None or step_of(last) != trainer.state.global_step:
        return "No checkpoint has its weights: run.save_every is null. Make room before the next run, or set it."
    return (
        f"Nothing is lost: '{last / MODEL_FOLDER}' is its model folder, and loads as it is. Make room, then run the "
        "same command with --resume: it writes the model without training again."
    )


def _put_model(trainer: RegionTrainer, checkpoint: Path | None, out: Path) -> None:
    if checkpoint is None or step_of(checkpoint) < trainer.state.global_step:
        trainer.save_model(str(out / MODEL_FOLDER))
    elif is_first_process():
        with written_whole(out / MODEL_FOLDER, overwrite=True) as made:
            shutil.copytree(checkpoint / MODEL_FOLDER, made, dirs_exist_ok=True)


def _run_benchmarks(parts: _Parts, out: Path) -> RunBenchmarks | None:
    if not parts.benchmarks:
        return None
    section, on_bad_sample = parts.config.evaluation, parts.config.data.on_bad_sample
    return RunBenchmarks(parts.benchmarks, parts.built.processor, section, out, on_bad_sample=on_bad_sample)


def _make_trainer(
    parts: _Parts, out: Path, benchmarks: RunBenchmarks | None, callbacks: list[TrainerCallback]
) -> RegionTrainer:
    config = parts.config
    if "tensorboard" in config.run.report_to:
        board = _Board()
        board.logging_dir = str(out / "logs")
        callbacks = [*callbacks, board]
    trainer = RegionTrainer(
        parts.built.model,
        parts.args,
        processor=parts.built.processor,
        collator=parts.collator,
        train_dataset=parts.train.dataset,
        eval_dataset=parts.held_out.dataset,
        learning_rates=parts.built.rates,
        batching=config.data.batching,
        run=config.model_dump(mode="json"),
        answers=parts.answers,
        benchmarks=benchmarks,
        benchmarks_every=config.evaluation.benchmarks_every or config.run.eval_every,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)  # the bar shows it
    return trainer


def _warnings(trainer: RegionTrainer, parts: _Parts) -> list[str]:
    text = parts.built.model.backbone.config.get_text_config()
    given = parts.answers.answers if parts.answers is not None else []
    return warnings_of(trainer.state.log_history, given, vocab_size=text.vocab_size)


def _last_loss(trainer: RegionTrainer) -> float | None:
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return losses[-1] if losses else None


def _held_out_result(
    trainer: RegionTrainer, checkpoint: Path | None, held_out: BuiltData, console: Console
) -> dict[str, float]:
    """How well the finished model does; the evaluation of the last step serves where this process made it, and so has
    its answers. A loss of nothing, all samples having been left out, is none."""
    if not len(held_out):
        return {}
    step = trainer.state.global_step
    took_steps = checkpoint is None or step_of(checkpoint) < step
    last = [entry for entry in trainer.state.log_history if took_steps and entry.get("step") == step]
    known = next((entry for entry in last if "eval_loss" in entry), None)
    if known is None:  # which takes its time, and may have samples that stop it
        say(console, "the model is written; now held-out samples")
        known = trainer.evaluate()
    metrics = held_out_metrics(known)
    return {name: value for name, value in metrics.items() if not math.isnan(value)}


def _benchmark_result(trainer: RegionTrainer, benchmarks: RunBenchmarks | None, console: Console) -> dict[str, Any]:
    """The figures of the finished model, and whose opinion the judged ones are."""
    if benchmarks is None:
        return {}
    say(console, "the model is written; now benchmarks")
    figures = trainer.measure()
    judges = {f"eval_{name}": judge for name, judge in benchmarks.judges.items()}
    return {**figures, "judges": judges} if judges else figures


def _write_skipped(trainer: RegionTrainer, out: Path, console: Console) -> int:
    skipped = trainer.all_skipped()
    if skipped and is_first_process():
        write_lines(out / "skipped.jsonl", ({"skipped": each} for each in skipped))
        say(console, f"{len(skipped)} samples were left out: {out / 'skipped.jsonl'}")
    return len(skipped)


def _write_results(
    out: Path, metrics: Mapping[str, Any], record: Mapping[str, Any], answers: HeldOutAnswers | None
) -> None:
    write_json(out / "metrics.json", metrics)
    write_json(out / "run.json", record)
    if answers is not None:
        write_lines(out / "answers.jsonl", (answer.as_record() for answer in answers.answers))
        picture = draw_answers(answers.answers)
        if picture is not None:
            save_sheet(out / "answers.png", picture)


def _report(out: Path, metrics: Mapping[str, Any], config: TrainConfig, console: Console) -> None:
    held_out = held_out_metrics(metrics)
    told = f"; held out: {spelled(held_out)}" if held_out else ""
    say(console, f"trained {metrics['steps']} steps{told}")
    for warning in metrics["warnings"]:
        say(console, f"warning: {warning}")
    say(console, f"written to {out}: {', '.join(name for name in _WRITTEN if (out / name).exists())}")
    if config.run.push_to_hub:
        address = hub.upload(
            out / MODEL_FOLDER,
            config.run.push_to_hub,
            private=None,
            token=None,
            commit_message="Upload a region model trained by pixelrefer train",
        )
        say(console, f"pushed: {address}")


# -- processes and interruption ----------------------------------------------------------------------------


class _Board(TensorBoardCallback):
    """TensorBoard's files are not worth a training: where they cannot be written, there are no more of them."""

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        """Write an entry."""
        try:
            super().on_log(*args, **kwargs)
        except OSError as error:
            self._give_up(error)

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """Close the files."""
        try:
            super().on_train_end(*args, **kwargs)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        _logger.warning("No more entries for TensorBoard: %s", error)
        self.tb_writer = None
        self._SummaryWriter: Any = None  # with which another one would be made


class _Interruption(TrainerCallback):
    """Ctrl-C, or a scheduler's SIGTERM, ends the training behind the present step, with a checkpoint.

    Several processes would have to agree on the step: there the signal ends them at once, and the newest checkpoint
    is what remains.
    """

    def __init__(self, console: Console) -> None:
        self.asked = False
        self._console = console
        self._process = os.getpid()

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Signals are noted while the block runs."""
        if num_processes() > 1 or threading.current_thread() is not threading.main_thread():
            yield
            return
        earlier = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        if os.getpid() != self._process:  # a data loader's worker: the training process ends it
            return
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        say(self._console, "stopping after this step; once more stops at once")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop, and save where the run saves at all."""
        if self.asked:
            control.should_training_stop = True
            control.should_save = args.save_strategy != "no"
