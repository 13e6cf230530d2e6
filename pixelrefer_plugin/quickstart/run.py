"""The quickstart: what a builder does with a real model, on one that is small enough for any machine.

Attach an adapter to a frozen base that knows scenes but nothing of regions, add LoRA, train on questions about
regions, ask about digits that no training has seen, save one folder, load it, and ask again.
"""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ..contracts.options import check_field
from ..entry import attach, load
from ..errors import CheckpointError, PixelReferError, PluginError
from ..files import require_writable_folder, write_text_whole
from ..model import RegionModel
from ..plugins import get_adapter, get_backbone, result_of
from ..processor import RegionProcessor
from ..training.groups import trainable_groups
from ..training.report import say, size_of
from ..weights.model_folder import library_versions
from .asking import Manner, ask
from .drawing import draw_answers, draw_losses, draw_masks
from .real_model import RealModel, open_real_model, peak_memory
from .showing import ask_without_training
from .tasks import Answers, Example, FindAndName, Stage, Task, WhatItTurns, WhichDigit, WhichDigitInWords, digit_in

DTYPES = ("auto", "bfloat16", "float16", "float32")
DEVICES = ("auto", "cpu", "cuda")
_MOST_TOKENS = 12  # of a real model's answer, which may be a sentence
BASES = {"videollama3": "builtin:tiny_videollama3", "llava_onevision": "builtin:tiny_llava_onevision"}
"""The tiny models that are pre-trained, by their backbones: on scenes, and on scenes and places."""
# Enough for digits; the papers' 32 tokens, and 224 and 336 pixels, are for photographs.
ADAPTER_OPTIONS: dict[str, dict[str, Any]] = {
    "saot": {"num_tokens": 8},
    "oci": {"num_tokens": 8, "local_px": 56, "global_px": 112},
    "unipixel": {"sam2": "micro", "sam2_checkpoint": str(Path(__file__).parent / "tiny_sam2"), "picture_px": 128},
}


@dataclass(frozen=True)
class QuickstartOptions:
    """What a quickstart may be told.

    Attributes:
        backbone: name of the backbone plugin; by default the one of the pre-trained tiny base that suits the adapter:
            `videollama3`, or `llava_onevision` for adapters that give masks. Others start from random weights.
        adapter: name of the adapter.
        video: ask about digits that move through clips, instead of those in pictures.
        from_scratch: start from random weights and train everything.
        steps: training steps; by default as many as the task needs.
        seed: of the data, the weights and the order of training.
        out: folder for the results; must not exist unless `overwrite`.
        overwrite: replace the results of an earlier quickstart.
        pictures_per_step: scenes or clips in a training step; by default 8, of a model that is named 4.
        eval_scenes: held-out scenes or clips to ask about, before and after; by default 120, of a model that is named
            20.
        learning_rate: of the adapter; LoRA and, from scratch, the backbone take a share of it that the task says. By
            default 3e-3, of a model that is named 1e-3.
        model: hub id or folder of a real backbone, which is asked with every adapter that needs no training, and then
            taught digits; by default a tiny one.
        dtype: of the real backbone's weights: `auto` is bfloat16 on a GPU and float32 on a CPU.
        device: where the real backbone runs: `auto`, `cpu` or `cuda`.
    """

    backbone: str | None = None
    adapter: str = "saot"
    video: bool = False
    from_scratch: bool = False
    steps: int | None = None
    seed: int = 0
    out: Path = Path("runs/quickstart")
    overwrite: bool = False
    pictures_per_step: int | None = None
    eval_scenes: int | None = None
    learning_rate: float | None = None
    model: str | None = None
    dtype: str = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        check_field(self.steps is None or self.steps >= 1, self, "steps", ">= 1")
        check_field(self.seed >= 0, self, "seed", ">= 0")
        check_field(self.pictures_per_step is None or self.pictures_per_step >= 1, self, "pictures_per_step", ">= 1")
        check_field(self.eval_scenes is None or self.eval_scenes >= 1, self, "eval_scenes", ">= 1")
        check_field(self.dtype in DTYPES, self, "dtype", f"one of {', '.join(DTYPES)}")
        check_field(self.device in DEVICES, self, "device", f"one of {', '.join(DEVICES)}")
        self._require_fitting()

    def _require_fitting(self) -> None:
        """Refuse options that exclude each other.

        Raises:
            PixelReferError: names them.
        """
        tiny = {"backbone": self.backbone, "video": self.video, "from_scratch": self.from_scratch}
        real = {"dtype": self.dtype != "auto", "device": self.device != "auto"}
        if self.model is not None and (given := [name for name, value in tiny.items() if value]):
            raise PixelReferError(f"--{given[0].replace('_', '-')} is for the tiny models; leave it out with --model.")
        if self.model is None and (given := [name for name, value in real.items() if value]):
            raise PixelReferError(f"--{given[0]} is for a real model: name one with --model.")

    @property
    def task(self) -> Task:
        """What is asked.

        Raises:
            PluginError: there is no such adapter, or none of its tasks is about clips.
        """
        adapter = get_adapter(self.adapter)
        if self.model is not None:
            if adapter.masks is not None or adapter.is_training_free:
                raise PluginError(
                    f"The quickstart teaches a real model with an adapter that learns to read regions, such as 'saot'; "
                    f"'{self.adapter}' {'gives masks' if adapter.masks is not None else 'needs no training'}."
                )
            return WhichDigitInWords()
        if adapter.masks is not None:
            if self.video:
                raise PluginError(f"The quickstart of adapter '{self.adapter}' is about pictures; leave out --video.")
            return FindAndName()
        return WhatItTurns() if self.video else WhichDigit()

    @property
    def base(self) -> tuple[str, str | None]:
        """The backbone, and the pre-trained base; None for random weights."""
        suits = "videollama3" if get_adapter(self.adapter).masks is None else "llava_onevision"
        backbone = self.backbone or suits
        return backbone, BASES[suits] if backbone == suits and not self.from_scratch else None

    @property
    def step_size(self) -> int:
        """Scenes or clips in a training step."""
        return self.pictures_per_step or (8 if self.model is None else 4)

    @property
    def num_scenes(self) -> int:
        """Held-out scenes or clips."""
        return self.eval_scenes or (120 if self.model is None else 20)

    @property
    def rate(self) -> float:
        """Learning rate of the adapter."""
        return self.learning_rate or (3e-3 if self.model is None else 1e-3)

    @property
    def num_steps(self) -> int:
        """Training steps, the task's where none are given."""
        return self.steps or self.task.steps


def run_quickstart(options: QuickstartOptions, console: Console | None = None) -> dict[str, Any]:
    """Run the main job from end to end and write its results to `options.out`.

    Returns:
        What `metrics.json` holds.

    Raises:
        CheckpointError: `options.out` exists and is not to be overwritten.
        PixelReferError: it cannot be written.
        PluginError: backbone or adapter is unknown, or the adapter has no task about clips.
    """
    console = console or Console()
    _refuse_existing(options)
    task = options.task
    real = open_named(options, console)
    out = Path(options.out)
    examples = [
        task.example("held-out", _rng(options.seed, 2, index), jitter=0.0) for index in range(options.num_scenes)
    ]
    manner = Manner() if real is None else Manner(options.step_size, _MOST_TOKENS, real.options, digit_in)
    without = {} if real is None else ask_without_training(real, task, examples, manner, out, console)
    model, processor = make_model(options, real)
    out.mkdir(parents=True, exist_ok=True)
    console.print(_headline(model, options))
    before = ask(model, processor, examples, manner)
    started = time.perf_counter()
    losses = train(model, processor, task, options, console, manner)
    seconds = time.perf_counter() - started
    after = ask(model, processor, examples, manner)
    metrics = {
        "scores": task.scores(after),
        "scores_before": task.scores(before),
        "controls": {
            name: task.scores(ask(model, processor, harder, manner))[name]
            for name, harder in task.controls(examples).items()
        },
        "questions": sum(len(example.asked) for example in examples),
        "seconds": round(seconds, 1),
        "steps": options.num_steps,
        "final_loss": float(np.mean(losses[-20:])),
        "options": {**asdict(options), "out": str(options.out)},
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "versions": library_versions(),
        **without,
    }
    model.save_pretrained(out / "model", processor, overwrite=options.overwrite)
    if real is not None:
        model.detach()  # a second one may not fit
    again = reload_and_ask(out / "model", examples, manner, None if real is None else real.backbone)
    metrics["reloaded_answers_identical"] = again.given == after.given
    if real is not None:
        metrics["peak_memory_bytes"] = peak_memory(real.device)
    write_text_whole(out / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    _draw(task, after, losses, out)
    _report(metrics, task, out, console)
    return metrics


def open_named(options: QuickstartOptions, console: Console) -> RealModel | None:
    """The real model that is named, if one is."""
    if options.model is None:
        return None
    return open_real_model(
        options.model, device=options.device, dtype=options.dtype, tell=lambda line: say(console, line)
    )


def make_model(options: QuickstartOptions, real: RealModel | None = None) -> tuple[RegionModel, RegionProcessor]:
    """The base with a fresh adapter: frozen and with LoRA, or, from scratch, all of it to be trained."""
    torch.manual_seed(options.seed)
    adapter_config = ADAPTER_OPTIONS.get(options.adapter)
    if real is not None:
        model, processor = real.with_adapter(options.adapter, adapter_config)
        model.add_lora(r=16, alpha=32)
        return model, processor
    name, base = options.base
    if base is None:
        backbone, native = result_of("backbone", name, "tiny", tuple, get_backbone(name).tiny, options.seed)
        return attach(backbone, native, adapter=options.adapter, adapter_config=adapter_config, train_backbone=True)
    model, processor = load(base, adapter=options.adapter, adapter_config=adapter_config)
    model.add_lora(r=16, alpha=32)
    return model, processor


def train(
    model: RegionModel,
    processor: RegionProcessor,
    task: Task,
    options: QuickstartOptions,
    console: Console,
    manner: Manner | None = None,
) -> list[float]:
    """Train what is trainable; returns the loss of each step."""
    manner = manner or Manner()
    losses: list[float] = []
    model.train()
    with _progress(console) as progress:
        bar = progress.add_task("training", total=options.num_steps, loss=math.nan)
        for stage, steps in stages(task, options.num_steps):
            optimizer = _optimizer(model, stage, options)
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(_cosine, steps=len(steps)))
            for conversations, regions in training_batches(task, stage, steps, options):
                inputs = manner.inputs(model, processor, conversations, regions, labels=True)
                loss = model(**inputs).loss
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                schedule.step()
                losses.append(loss.item())
                progress.update(bar, advance=1, loss=float(np.mean(losses[-20:])))
    model.eval()
    return losses


def stages(task: Task, num_steps: int) -> Iterator[tuple[Stage, range]]:
    """Each stage of a training and its steps, as their numbers in the whole."""
    ends = [round(share * num_steps) for share in accumulate(stage.share for stage in task.stages)]
    for stage, start, end in zip(task.stages, [0, *ends], ends, strict=False):
        if start < end:
            yield stage, range(start, end)


def training_batches(
    task: Task, stage: Stage, steps: Iterable[int], options: QuickstartOptions
) -> Iterator[tuple[list[Any], list[list[Any]]]]:
    """Per step some examples, each with one conversation."""
    for step in steps:
        rng = _rng(options.seed, 1, step)
        examples = [task.example("train", rng, jitter=1.0) for _ in range(options.step_size)]
        conversations, regions = [], []
        for example in examples:
            lesson = task.lesson(_asked_in(stage, example), rng)
            turns = [turn for each in lesson for turn in _turn(each.question, each.answer)]
            turns[0]["content"].insert(0, example.part)
            conversations.append(turns)
            regions.append([region for each in lesson for region in (each.region, each.mask) if region is not None])
        yield conversations, regions


def _asked_in(stage: Stage, example: Example) -> Example:
    if stage.kinds is None:
        return example
    return replace(example, asked=tuple(each for each in example.asked if each.kind in stage.kinds))


def reload_and_ask(folder: Path, examples: Sequence[Example], manner: Manner, backbone: Any = None) -> Answers:
    """Load the saved folder, as its user would, and ask the same again.

    Args:
        folder: where it is.
        examples: what to ask about.
        manner: how to ask.
        backbone: the loaded backbone, where that is too large to be loaded twice.
    """
    model, processor = load(folder, backbone=backbone)
    return ask(model.to(model.backbone.device), processor, examples, manner)


def _turn(question: str, answer: str) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": [{"type": "text", "text": question}]},
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
    ]


def _rng(seed: int, purpose: int, index: int) -> np.random.Generator:
    """An independent stream for each use, so that more evaluation does not change the training."""
    return np.random.default_rng([seed, purpose, index])


def _optimizer(model: RegionModel, stage: Stage, options: QuickstartOptions) -> torch.optim.Optimizer:
    rates = stage.rates
    groups = [
        {
            "params": [parameter for _, parameter in members],
            "lr": options.rate * rates.get(name, 1.0 if name.startswith("adapter") else rates["backbone"]),
        }
        for name, members in trainable_groups(model, [name for name in rates if name != "backbone"]).items()
    ]
    return torch.optim.AdamW(groups, weight_decay=0.01)


def _cosine(step: int, steps: int, *, warmup: float = 0.03) -> float:
    """Linear warm-up, then cosine down to zero: the papers' schedule."""
    first = max(1, round(warmup * steps))
    if step < first:
        return (step + 1) / first
    return 0.5 * (1 + math.cos(math.pi * (step - first) / max(1, steps - first)))


def _refuse_existing(options: QuickstartOptions) -> None:
    out = Path(options.out)
    is_empty = out.is_dir() and not any(out.iterdir())  # left by a run that ended before it made anything
    if out.exists() and not is_empty and not options.overwrite:
        raise CheckpointError(f"'{options.out}' exists. Choose another with --out, or allow --overwrite.")
    require_writable_folder(out)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def _headline(model: RegionModel, options: QuickstartOptions) -> str:
    own = [each.numel() for name, each in model.backbone.named_parameters() if "lora_" not in name]
    lora = [each.numel() for name, each in model.backbone.named_parameters() if "lora_" in name]
    adapter = [each.numel() for each in model.adapter.parameters()]
    backbone = f"{sum(lora):,} of LoRA, backbone frozen" if lora else "all of the backbone"
    name = options.model or options.base[0]
    return (
        f"backbone {name}: {sum(own):,} parameters; "
        f"training {sum(adapter):,} of adapter {options.adapter} and {backbone}"
    )


def _draw(task: Task, answers: Answers, losses: Sequence[float], out: Path) -> None:
    if isinstance(task, FindAndName):
        draw_masks(answers, f"{task.title}   held-out {task.about}", out / "answers.png")
    else:
        title = f"{task.title}   held-out {task.about}: {task.scores(answers)['all']:.1%}"
        draw_answers(answers, title, out / "answers.png")
    draw_losses(losses, out / "loss.png")


def _report(metrics: dict[str, Any], task: Task, out: Path, console: Console) -> None:
    table = Table(title=f"Held-out {task.about}, {metrics['questions']} questions: {task.title}")
    for column in ("", "before", "after"):
        table.add_column(column, justify="right" if column else "left")
    for adapter, scores in metrics.get("scores_without_training", {}).items():
        told = "cannot be asked" if "refused" in scores else f"{scores['all']:.1%}"
        table.add_row(f"with adapter {adapter}, which needs no training", told, "")
    for name, score in metrics["scores"].items():
        table.add_row(name, f"{metrics['scores_before'][name]:.1%}", f"{score:.1%}")
    for name, score in metrics["controls"].items():
        table.add_row(f"{name}, pointed at on the first frame only", "", f"{score:.1%}")
    console.print(table)
    same = "identical" if metrics["reloaded_answers_identical"] else "DIFFERENT"
    console.print(f"trained in {metrics['seconds']:.0f} s; saved, loaded back: answers {same}")
    if metrics.get("peak_memory_bytes"):
        console.print(f"at most {size_of(metrics['peak_memory_bytes'])} of memory were in use")
    sheet = " without_training.png" if "without_training" in metrics else ""
    console.print(f"written to {out}: model/ metrics.json answers.png loss.png{sheet}")
