"""What the scripts that train the quickstart's tiny models share: scenes, turns, a training loop, small files."""

import math
import multiprocessing
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pixelrefer_plugin.quickstart.scenes import Question, Scene, make_scene

IGNORED = -100
_SCENES_PER_JOB = 100


def scene_pool(
    count: int, *, seed: int, num_digits: tuple[int, int], sizes_px: tuple[float, float], jitter: float = 1.0
) -> list[Scene]:
    """Training scenes drawn beforehand by two processes: drawing a batch takes longer than a tiny model's step."""
    jobs = [
        ([seed, number], min(_SCENES_PER_JOB, count - first), num_digits, sizes_px, jitter)
        for number, first in enumerate(range(0, count, _SCENES_PER_JOB))
    ]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        return [scene for scenes in pool.starmap(_draw, jobs) for scene in scenes]


def _draw(
    seed: Sequence[int], count: int, num_digits: tuple[int, int], sizes_px: tuple[float, float], jitter: float
) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [make_scene("train", rng, num_digits=num_digits, sizes_px=sizes_px, jitter=jitter) for _ in range(count)]


def pick(scenes: Sequence[Scene], count: int, rng: np.random.Generator) -> list[Scene]:
    """A batch of a pool, with replacement."""
    return [scenes[index] for index in rng.integers(len(scenes), size=count)]


def conversation(questions: Sequence[Question]) -> list[dict]:
    """User and assistant turns; the picture comes with the first question."""
    turns = []
    for question in questions:
        image = [] if turns else [{"type": "image"}]
        turns.append({"role": "user", "content": [*image, {"type": "text", "text": question.text}]})
        turns.append({"role": "assistant", "content": question.answer})
    return turns


def answer_labels(ids: Tensor, tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """Labels: ids after each `<|im_start|>assistant\\n` up to its `<|im_end|>`, the rest ignored."""
    header = tokenizer("<|im_start|>assistant\n")["input_ids"]
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    labels = torch.full_like(ids, IGNORED)
    for row, kept in zip(ids.tolist(), labels, strict=True):
        for start in range(len(header), len(row)):
            if row[start - len(header) : start] == header:
                stop = row.index(end, start) + 1
                kept[start:stop] = torch.tensor(row[start:stop])
    return labels


def right_answers(logits: Tensor, labels: Tensor) -> list[bool]:
    """For each row whether greedy decoding would write its answer.

    It does just when every token of the answer, its end included, is the likeliest after the right ones before it.
    """
    guesses, wanted = logits[:, :-1].argmax(-1), labels[:, 1:]
    right: list[bool] = ((guesses == wanted) | (wanted == IGNORED)).all(1).tolist()
    return right


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over the first 3 %, then a cosine to a hundredth."""
    warm_up = max(1, round(0.03 * steps))
    if step < warm_up:
        return peak * (step + 1) / warm_up
    progress = (step - warm_up) / max(1, steps - warm_up)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def descend(
    name: str,
    module: torch.nn.Module,
    loss_at: Callable[[float], Tensor],
    *,
    steps: int,
    peak_lr: float,
    slow: str = "",
    slow_share: float = 1.0,
) -> None:
    """Runs one stage.

    Args:
        name: of the stage, for the log.
        module: what is trained; parameters that need no gradient stay as they are.
        loss_at: draws a batch at a share of the stage that is done, and returns its loss.
        steps: of the stage.
        peak_lr: the highest learning rate.
        slow: parameters with this in their names are trained at a share of the rate.
        slow_share: that share.
    """
    optimizer = _optimizer_for(module, peak_lr, slow, slow_share)
    module.train()
    began, recent = time.perf_counter(), []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, group["peak"])
        loss = loss_at(step / steps)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        recent.append(loss.item())
        if (step + 1) % 100 == 0:
            seconds = time.perf_counter() - began
            print(f"{name} {step + 1:6d}  loss {np.mean(recent):.3f}  {seconds:6.0f} s", flush=True)
            recent = []


def _optimizer_for(module: torch.nn.Module, peak_lr: float, slow: str, slow_share: float) -> torch.optim.AdamW:
    """AdamW over what is trained; biases, norms and the embedding table do not decay."""
    groups = []
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        decay = 0.05 if parameter.ndim > 1 and "embed_tokens" not in name else 0.0
        peak = peak_lr * (slow_share if slow and slow in name else 1.0)
        groups.append({"params": [parameter], "weight_decay": decay, "lr": peak, "peak": peak})
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), foreach=False, fused=True)


def save_halves(model: PreTrainedModel, folder: Path) -> None:
    """A Hugging Face folder; weights are stored in float16 and load as the float32 that the config names."""
    model.save_pretrained(folder)
    weights = folder / "model.safetensors"
    halves = {name: tensor.half() for name, tensor in safetensors.torch.load_file(weights).items()}
    weights.write_bytes(safetensors.torch.save(halves, metadata={"format": "pt"}))
