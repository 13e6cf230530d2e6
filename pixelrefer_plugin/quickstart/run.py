"""The quickstart: what a builder does with a real model, on one that is small enough for any machine.

Attach an adapter to a frozen base that knows scenes but nothing of regions, add LoRA, train on "which digit
is <region>?", ask about digits that no training has seen, save one folder, load it, and ask again.
"""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ..checkpoint import library_versions
from ..contracts import check_field
from ..errors import CheckpointError
from ..model import RegionModel
from ..plugins import get_backbone
from ..processor import RegionProcessor
from ..regions import Region
from .scenes import Scene, make_scene

BASE = Path(__file__).parent / "tiny_videollama3"
BASE_BACKBONE = "videollama3"
QUESTION = "which digit is <region>?"
# Smallest size in a band and the first beyond it, in pixels.
SIZE_BANDS_PX = {"small": (0, 16), "medium": (16, 33), "large": (33, math.inf)}
_BAND_RANGES = {"small": " (< 16 px)", "medium": " (16 to 32 px)", "large": " (> 32 px)"}

# Enough for digits; the papers' 32 are for photographs.
ADAPTER_OPTIONS: dict[str, dict[str, Any]] = {"saot": {"num_tokens": 8}}

_EVAL_BATCH = 32


@dataclass(frozen=True)
class QuickstartOptions:
    """What a quickstart may be told.

    Attributes:
        backbone: name of the backbone plugin. Only `videollama3` has a pre-trained tiny base; the others start
            from random weights.
        adapter: name of the adapter.
        from_scratch: start from random weights and train everything.
        steps: training steps.
        seed: of the data, the weights and the order of training.
        out: folder for the results; must not exist unless `overwrite`.
        overwrite: replace the results of an earlier quickstart.
        pictures_per_step: scenes in a training step.
        eval_scenes: held-out scenes to ask about, before and after.
        learning_rate: of the adapter; LoRA and, from scratch, the backbone take a third of it.
    """

    backbone: str = BASE_BACKBONE
    adapter: str = "saot"
    from_scratch: bool = False
    steps: int = 400
    seed: int = 0
    out: Path = Path("runs/quickstart")
    overwrite: bool = False
    pictures_per_step: int = 8
    eval_scenes: int = 120
    learning_rate: float = 3e-3

    def __post_init__(self) -> None:
        check_field(self.steps >= 1, self, "steps", ">= 1")
        check_field(self.seed >= 0, self, "seed", ">= 0")
        check_field(self.pictures_per_step >= 1, self, "pictures_per_step", ">= 1")
        check_field(self.eval_scenes >= 1, self, "eval_scenes", ">= 1")


@dataclass
class Answers:
    """What the model answered about held-out regions.

    Attributes:
        scenes: the scenes asked about.
        texts: per scene, the answer about each digit.
    """

    scenes: Sequence[Scene]
    texts: list[list[str]] = field(default_factory=list)

    def accuracy(self, smallest_px: float = 0, end_px: float = math.inf) -> float:
        """Share of right answers about digits of `smallest_px <= size < end_px`."""
        right = [
            text == str(digit.label)
            for scene, texts in zip(self.scenes, self.texts, strict=True)
            for digit, text in zip(scene.digits, texts, strict=True)
            if smallest_px <= digit.size_px < end_px
        ]
        return sum(right) / len(right) if right else math.nan

    def by_size(self) -> dict[str, float]:
        """Accuracy over all digits and per size band."""
        bands = {name: self.accuracy(*band) for name, band in SIZE_BANDS_PX.items()}
        return {"all": self.accuracy(), **bands}


def run_quickstart(options: QuickstartOptions, console: Console | None = None) -> dict[str, Any]:
    """Run the main job from end to end and write its results to `options.out`.

    Returns:
        What `metrics.json` holds.

    Raises:
        CheckpointError: `options.out` exists and is not to be overwritten.
        PluginError: backbone or adapter is unknown.
    """
    console = console or Console()
    _refuse_existing(options)
    model, processor = make_model(options)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    scenes = [make_scene("held-out", _rng(options.seed, 2, index)) for index in range(options.eval_scenes)]
    console.print(_headline(model, options))
    before = ask(model, processor, scenes)
    started = time.perf_counter()
    losses = train(model, processor, options, console)
    seconds = time.perf_counter() - started
    after = ask(model, processor, scenes)
    metrics = {
        "accuracy": after.by_size(),
        "accuracy_before": before.by_size(),
        "regions": sum(len(scene.digits) for scene in scenes),
        "seconds": round(seconds, 1),
        "steps": options.steps,
        "final_loss": float(np.mean(losses[-20:])),
        "options": {**asdict(options), "out": str(options.out)},
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "versions": library_versions(),
    }
    model.save_pretrained(out / "model", processor, overwrite=options.overwrite)
    metrics["reloaded_answers_identical"] = reload_and_ask(out / "model", scenes).texts == after.texts
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    draw_answers(after, out / "answers.png")
    draw_losses(losses, out / "loss.png")
    _report(metrics, out, console)
    return metrics


def make_model(options: QuickstartOptions) -> tuple[RegionModel, RegionProcessor]:
    """The base with a fresh adapter: frozen and with LoRA, or, from scratch, all of it to be trained."""
    torch.manual_seed(options.seed)
    adapter_config = ADAPTER_OPTIONS.get(options.adapter)
    if options.from_scratch or options.backbone != BASE_BACKBONE:
        backbone, native = get_backbone(options.backbone).tiny(options.seed)
        model = RegionModel.attach(
            backbone, adapter=options.adapter, adapter_config=adapter_config, train_backbone=True
        )
        return model, model.make_processor(native)
    model = RegionModel.from_pretrained(BASE, adapter=options.adapter, adapter_config=adapter_config)
    model.add_lora(r=16, alpha=32)
    processor = RegionProcessor.from_pretrained(BASE, adapter=options.adapter, adapter_config=adapter_config)
    return model, processor


def train(model: RegionModel, processor: RegionProcessor, options: QuickstartOptions, console: Console) -> list[float]:
    """Train what is trainable; returns the loss of each step."""
    optimizer = _optimizer(model, options)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _cosine(step, options.steps))
    losses = []
    model.train()
    with _progress(console) as progress:
        task = progress.add_task("training", total=options.steps, loss=math.nan)
        for conversations, regions in training_batches(options):
            inputs = processor(conversations, regions, labels=True)
            loss = model(**inputs).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
            losses.append(loss.item())
            progress.update(task, advance=1, loss=float(np.mean(losses[-20:])))
    model.eval()
    return losses


def training_batches(options: QuickstartOptions) -> Iterator[tuple[list[Any], list[list[Region]]]]:
    """Per step some scenes, each with one conversation that asks about all its digits in turn."""
    for step in range(options.steps):
        rng = _rng(options.seed, 1, step)
        scenes = [make_scene("train", rng, jitter=1.0) for _ in range(options.pictures_per_step)]
        conversations, regions = [], []
        for scene in scenes:
            order = rng.permutation(len(scene.digits))
            turns = [turn for index in order for turn in _turn(scene.digits[index].label)]
            turns[0]["content"].insert(0, {"type": "image", "image": scene.image_hwc})
            conversations.append(turns)
            regions.append([Region.from_box(scene.digits[index].box_xyxy) for index in order])
        yield conversations, regions


def ask(model: RegionModel, processor: RegionProcessor, scenes: Sequence[Scene]) -> Answers:
    """Ask about every digit of every scene, each in a conversation of its own."""
    asked = [(_prompt(scene), [Region.from_box(digit.box_xyxy)]) for scene in scenes for digit in scene.digits]
    texts: list[str] = []
    for start in range(0, len(asked), _EVAL_BATCH):
        conversations, regions = zip(*asked[start : start + _EVAL_BATCH], strict=True)
        inputs = processor(conversations, regions)
        generated = model.generate(**inputs, max_new_tokens=4, do_sample=False)
        texts += processor.decode(generated, inputs)
    answers = iter(texts)
    return Answers(scenes, [[next(answers) for _ in scene.digits] for scene in scenes])


def reload_and_ask(folder: Path, scenes: Sequence[Scene]) -> Answers:
    """Load the saved folder, as its user would, and ask the same again."""
    return ask(RegionModel.from_pretrained(folder), RegionProcessor.from_pretrained(folder), scenes)


def draw_answers(answers: Answers, path: Path, *, columns: int = 4, rows: int = 2) -> None:
    """Some held-out scenes with their regions; right answers green, wrong ones red with the truth behind."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    figure = Figure(figsize=(3.2 * columns, 3.4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, scene, texts in zip(axes, answers.scenes, answers.texts, strict=False):
        axis.imshow(scene.image_hwc)
        axis.axis("off")
        for digit, text in zip(scene.digits, texts, strict=True):
            x1, y1, x2, y2 = digit.box_xyxy
            right = text == str(digit.label)
            colour = "lime" if right else "red"
            axis.add_patch(Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, color=colour, lw=1.5))
            says = text[:8] if right else f"{text[:8]} (is {digit.label})"
            box = {"facecolor": "black", "alpha": 0.7, "pad": 1, "lw": 0}
            axis.text(x1, max(y1 - 2, 6), says, color=colour, fontsize=10, bbox=box, va="bottom")
    for axis in axes[len(answers.scenes) :]:
        axis.axis("off")
    figure.suptitle(f"{QUESTION}   held-out digits, accuracy {answers.accuracy():.1%}")
    figure.savefig(path, dpi=110)


def draw_losses(losses: Sequence[float], path: Path) -> None:
    """The loss of each step and its running mean."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axis = figure.subplots()
    axis.plot(losses, color="lightsteelblue", lw=0.8, label="step")
    window = max(1, len(losses) // 25)
    mean = np.convolve(losses, np.ones(window) / window, mode="valid")
    axis.plot(np.arange(len(mean)) + window - 1, mean, color="navy", label=f"mean of {window}")
    axis.set(xlabel="step", ylabel="loss", ylim=(0, None))
    axis.legend()
    figure.savefig(path, dpi=110)


def _turn(label: int) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
        {"role": "assistant", "content": [{"type": "text", "text": str(label)}]},
    ]


def _prompt(scene: Scene) -> list[dict[str, Any]]:
    parts = [{"type": "image", "image": scene.image_hwc}, {"type": "text", "text": QUESTION}]
    return [{"role": "user", "content": parts}]


def _rng(seed: int, purpose: int, index: int) -> np.random.Generator:
    """An independent stream for each use, so that more evaluation does not change the training."""
    return np.random.default_rng([seed, purpose, index])


def _optimizer(model: RegionModel, options: QuickstartOptions) -> torch.optim.Optimizer:
    backbone = [each for each in model.backbone.parameters() if each.requires_grad]
    groups = [
        {"params": list(model.adapter.parameters()), "lr": options.learning_rate},
        {"params": backbone, "lr": options.learning_rate / 3},
    ]
    return torch.optim.AdamW(groups, weight_decay=0.01)


def _cosine(step: int, steps: int, *, warmup: float = 0.03) -> float:
    """Linear warm-up, then cosine down to zero: the papers' schedule."""
    first = max(1, round(warmup * steps))
    if step < first:
        return (step + 1) / first
    return 0.5 * (1 + math.cos(math.pi * (step - first) / max(1, steps - first)))


def _refuse_existing(options: QuickstartOptions) -> None:
    if Path(options.out).exists() and not options.overwrite:
        raise CheckpointError(f"'{options.out}' exists. Choose another with --out, or allow --overwrite.")


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(),
        console=console,
    )


def _headline(model: RegionModel, options: QuickstartOptions) -> str:
    own = [each.numel() for name, each in model.backbone.named_parameters() if "lora_" not in name]
    lora = [each.numel() for name, each in model.backbone.named_parameters() if "lora_" in name]
    adapter = [each.numel() for each in model.adapter.parameters()]
    backbone = f"{sum(lora):,} of LoRA, backbone frozen" if lora else "all of the backbone"
    return (
        f"backbone {options.backbone}: {sum(own):,} parameters; "
        f"training {sum(adapter):,} of adapter {options.adapter} and {backbone}"
    )


def _report(metrics: dict[str, Any], out: Path, console: Console) -> None:
    table = Table(title=f"Held-out digits, {metrics['regions']} regions: {QUESTION}")
    for column in ("size of the region", "before", "after"):
        table.add_column(column, justify="left" if column.startswith("size") else "right")
    for band, accuracy in metrics["accuracy"].items():
        table.add_row(band + _BAND_RANGES.get(band, ""), f"{metrics['accuracy_before'][band]:.1%}", f"{accuracy:.1%}")
    console.print(table)
    same = "identical" if metrics["reloaded_answers_identical"] else "DIFFERENT"
    console.print(f"trained in {metrics['seconds']:.0f} s; saved, loaded back: answers {same}")
    console.print(f"written to {out}: model/ metrics.json answers.png loss.png")
