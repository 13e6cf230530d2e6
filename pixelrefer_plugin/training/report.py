"""What a run tells about itself: the plan before the first step, the bar while it runs, the files it leaves.

It prints to a rich console and writes JSON; it decides nothing.
"""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn
from transformers import TrainerCallback, TrainingArguments

from ..errors import counted
from ..evaluation.predicting.progress import Pace
from ..files import write_text_whole
from ..weights.model_folder import library_versions
from .building import BuiltData, BuiltModel, Part
from .config import TrainConfig
from .groups import parameter_groups
from .recipes import Recipe

_GIB = 2**30
_SHARES = ("exact_match", "giou", "ciou", "j_and_f")  # what metrics end with that are shares of a whole


@dataclass(frozen=True)
class Group:
    """A parameter group in numbers; `rate` is None where it is frozen."""

    name: str
    parameters: int
    trainable: int
    rate: float | None


@dataclass(frozen=True)
class Memory:
    """What a process holds, in bytes, before anything is spread over processes.

    Attributes:
        weights: of the whole model.
        gradients: of what trains.
        optimizer: AdamW's two moments.
        per_token: of activations, a rough guess per token of a batch.
    """

    weights: int
    gradients: int
    optimizer: int
    per_token: int

    @property
    def held(self) -> int:
        """Weights, gradients and optimizer together."""
        return self.weights + self.gradients + self.optimizer


@dataclass(frozen=True)
class Plan:
    """What will happen, in numbers."""

    recipe: Recipe
    groups: Sequence[Group]
    train: Sequence[Part]
    eval: Sequence[Part]
    samples_per_epoch: int
    steps: int
    epochs: float
    batch_size: int
    accumulated: int
    processes: int
    memory: Memory
    notes: Sequence[str]
    benchmarks: Mapping[str, int] = field(default_factory=dict)


def make_plan(
    config: TrainConfig,
    built: BuiltModel,
    train: BuiltData,
    held_out: BuiltData,
    args: TrainingArguments,
    *,
    benchmarks: Mapping[str, int] | None = None,
) -> Plan:
    """Count everything.

    Args:
        config: resolved.
        built: the model.
        train: training samples.
        held_out: held-out samples.
        args: the trainer's.
        benchmarks: how many questions of each are asked.
    """
    accumulated, processes = args.gradient_accumulation_steps, max(1, args.world_size)
    batches = -(-len(train) // (args.per_device_train_batch_size * processes))
    steps_per_epoch = max(1, -(-batches // accumulated))
    steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * steps_per_epoch)
    return Plan(
        recipe=built.recipe,
        groups=_groups(built),
        train=train.parts,
        eval=held_out.parts,
        samples_per_epoch=len(train),
        steps=steps,
        epochs=steps / steps_per_epoch,
        batch_size=args.per_device_train_batch_size,
        accumulated=accumulated,
        processes=processes,
        memory=_memory(config, built.model),
        notes=built.notes,
        benchmarks=benchmarks or {},
    )


def _groups(built: BuiltModel) -> list[Group]:
    return [
        Group(
            name,
            parameters=sum(_num_values(each) for _, each in members),
            trainable=sum(_num_values(each) for _, each in members if each.requires_grad),
            rate=built.rates.get(name),
        )
        for name, members in parameter_groups(built.model, built.rates).items()
    ]


def _num_values(parameter: nn.Parameter) -> int:
    """Packed 4-bit weights hold two values a byte, and remember their shape."""
    packed = getattr(parameter, "quant_state", None)
    return int(packed.shape.numel()) if packed is not None else _num_held(parameter)


def _num_held(tensor: Any) -> int:
    """Under ZeRO-3 the parameter itself is empty, and knows how large it is together."""
    return int(getattr(tensor, "ds_numel", tensor.numel()))


def _memory(config: TrainConfig, model: nn.Module) -> Memory:
    held = [*model.parameters(), *model.buffers()]
    trained = [each for each in model.parameters() if each.requires_grad]
    gradients = sum(_num_held(each) * each.element_size() for each in trained)
    return Memory(
        weights=sum(_num_held(each) * each.element_size() for each in held),
        gradients=gradients,
        optimizer=2 * gradients,
        per_token=_activation_bytes_per_token(config, model),
    )


def _activation_bytes_per_token(config: TrainConfig, model: Any) -> int:
    """About what a decoder layer keeps of a token for the way back: its input where activations are computed again,
    else some ten values of the hidden width and four of the MLP's; and logits with their gradient in float32."""
    text = model.backbone.config.get_text_config()
    value = 2 if config.optim.precision == "bf16" else 4
    layer = 10 * text.hidden_size + 4 * text.intermediate_size
    again = config.optim.gradient_checkpointing
    kept = text.num_hidden_layers * text.hidden_size + layer if again else text.num_hidden_layers * layer
    return kept * value + 2 * 4 * text.vocab_size


# -- before ------------------------------------------------------------------------------------------------


def print_plan(console: Console, config: TrainConfig, plan: Plan) -> None:
    """Everything that the user may want to stop for."""
    say(console, f"{config.run.out}: recipe {plan.recipe.name} on {config.model.backbone}. {plan.recipe.about}")
    say(console, _aligned(_group_rows(plan.groups)))
    say(console, _aligned(_data_rows(plan)))
    accumulated = f" x {plan.accumulated} accumulated" if plan.accumulated > 1 else ""
    processes = f" x {plan.processes} processes" if plan.processes > 1 else ""
    together = plan.batch_size * plan.accumulated * plan.processes
    say(
        console,
        f"{plan.steps:,} steps of {together} samples ({plan.batch_size}{accumulated}{processes}), "
        f"{plan.epochs:.3g} epochs; {config.optim.precision}, weights {config.model.dtype}"
        f"{', decoder ' + config.model.quantize if config.model.quantize else ''}",
    )
    say(console, _memory_line(plan))
    for name, count in plan.benchmarks.items():
        say(console, f"benchmark {name}: {counted(count, 'question')}")
    for note in plan.notes:
        say(console, f"note: {note}")


def say(console: Console, line: str) -> None:
    """Print a line as it is: paths may hold what rich takes for markup, and are not to be broken."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _group_rows(groups: Iterable[Group]) -> Iterator[tuple[str, ...]]:
    yield "group", "parameters", "trained", "learning rate"
    for group in groups:
        rate = "frozen" if group.rate is None else f"{group.rate:g}"
        yield group.name, f"{group.parameters:,}", f"{group.trainable:,}" if group.trainable else "-", rate


def _data_rows(plan: Plan) -> Iterator[tuple[str, ...]]:
    yield "samples", "in the file", "per epoch", "format"
    for kind, parts in (("train", plan.train), ("held out", plan.eval)):
        for part in parts:
            yield f"{kind}: {part.name}", f"{part.num_samples:,}", f"{part.num_per_epoch:,}", part.format


def _aligned(rows: Iterable[tuple[str, ...]]) -> str:
    """Columns, the first to the left, the others to the right; nothing is cut off, however narrow the terminal."""
    lines = list(rows)
    first, *others = (max(map(len, column)) for column in zip(*lines, strict=True))
    return "\n".join(
        "  ".join([line[0].ljust(first), *(cell.rjust(width) for cell, width in zip(line[1:], others, strict=True))])
        for line in lines
    )


def _memory_line(plan: Plan) -> str:
    memory = plan.memory
    spread = ", before FSDP or DeepSpeed spreads it" if plan.processes > 1 else ""
    return (
        f"memory per process{spread}: {size_of(memory.held)} (weights {size_of(memory.weights)}, gradients "
        f"{size_of(memory.gradients)}, optimizer {size_of(memory.optimizer)}), and roughly "
        f"{size_of(1000 * memory.per_token)} of activations for every 1,000 tokens of a batch"
    )


def size_of(number: float) -> str:
    """Bytes, for people."""
    return f"{number / _GIB:.2f} GiB" if number >= _GIB / 10 else f"{number / 2**20:.1f} MiB"


# -- while it runs -----------------------------------------------------------------------------------------


class ProgressBar(TrainerCallback):
    """One bar, with the last loss; held-out results are printed above it."""

    def __init__(self, console: Console) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[shown]}"),
            TimeRemainingColumn(),
            console=console,
        )

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Show it."""
        self._task = self._bar.add_task("training", total=state.max_steps, completed=state.global_step, shown="")
        self._bar.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move it."""
        self._bar.update(self._task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        """Show the loss beside it, and held-out results above it."""
        logs = logs or {}
        if "loss" in logs:
            of_masks = f", {logs['mask_loss']:.4f} of masks" if logs.get("mask_loss") else ""
            self._bar.update(self._task, shown=f"loss {logs['loss']:.4f}{of_masks}")
        held_out = held_out_metrics(logs)
        if held_out:
            say(self._bar.console, f"step {state.global_step}: {spelled(held_out)}")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave it as it is."""
        self.stop()

    def stop(self) -> None:
        """Give the terminal back, also after an error."""
        self._bar.stop()


class ProgressLines(TrainerCallback):
    """The same for logs, at the pace of `Pace`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._loss = ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count from here."""
        self._pace = Pace(state.max_steps, state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tell it, unless its loss is told in a moment."""
        if not control.should_log:
            self._tell(state)

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        """Tell it with the loss and the rate; held-out results in a line of their own."""
        logs = logs or {}
        if "loss" in logs:
            of_masks = f" ({logs['mask_loss']:.4f} of masks)" if logs.get("mask_loss") else ""
            self._loss = f", loss {logs['loss']:.4f}{of_masks}, learning rate {logs.get('learning_rate', 0.0):.2g}"
            self._tell(state)
        held_out = held_out_metrics(logs)
        if held_out:
            say(self._console, f"step {state.global_step}: {spelled(held_out)}")

    def stop(self) -> None:
        """There is nothing to give back."""

    def _tell(self, state: Any) -> None:
        step, total = state.global_step, state.max_steps
        if self._pace.is_due(step):
            say(self._console, f"step {step}/{total} ({step / total:.0%}){self._loss}{self._pace.left(step)}")


def held_out_metrics(logs: Mapping[str, Any]) -> dict[str, float]:
    """Those of the trainer's log entries that tell how well the model does; not how fast."""
    timing = ("_runtime", "_per_second", "_time")
    return {
        name: value
        for name, value in logs.items()
        if name.startswith("eval_") and not name.endswith(timing) and isinstance(value, int | float)
    }


def spelled(metrics: Mapping[str, float]) -> str:
    """Metrics in a line, shares as percentages."""
    return ", ".join(
        f"{name.removeprefix('eval_').replace('_', ' ')} "
        + (f"{value:.1%}" if name.endswith(_SHARES) else f"{value:.4g}")
        for name, value in metrics.items()
    )


# -- after -------------------------------------------------------------------------------------------------


def run_record(config: TrainConfig, plan: Plan, *, seconds: float, started: str, resumed_at: int) -> dict[str, Any]:
    """What `run.json` holds: how this result came to be."""
    return {
        "command": sys.argv,
        "started": started,
        "seconds": round(seconds, 1),
        "resumed_at_step": resumed_at,
        "seed": config.optim.seed,
        "steps": plan.steps,
        "samples": {
            kind: [{"path": part.name, "format": part.format, "samples": part.num_samples} for part in parts]
            for kind, parts in (("train", plan.train), ("eval", plan.eval))
        },
        "parameters": {group.name: {"all": group.parameters, "trained": group.trainable} for group in plan.groups},
        "learning_rates": {group.name: group.rate for group in plan.groups if group.rate is not None},
        "processes": plan.processes,
        "hardware": hardware(),
        "versions": versions(config),
    }


def hardware() -> dict[str, Any]:
    """What a run was made on."""
    accelerators = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerators": accelerators,
    }


def versions(config: TrainConfig) -> dict[str, str]:
    """Of Python and the packages that a run is made with."""
    others = ["accelerate", *(["bitsandbytes"] if config.model.quantize else [])]
    return {
        "python": platform.python_version(),
        **library_versions(),
        **{name: metadata.version(name) for name in others},
    }


def write_json(path: Path, value: Any) -> None:
    """A JSON file, readable by people."""
    write_text_whole(path, _utf_8(json.dumps(value, indent=2, ensure_ascii=False)) + "\n")


def write_lines(path: Path, records: Iterable[Any]) -> None:
    """A JSON Lines file."""
    write_text_whole(path, "".join(_utf_8(json.dumps(record, ensure_ascii=False)) + "\n" for record in records))


def _utf_8(text: str) -> str:
    """Names of files need not be."""
    return text.encode(errors="backslashreplace").decode()
