"""What stops a training run that would learn nothing, or unlearn everything: batches without answers, groups that no
gradient reaches, losses that are not numbers. Each says which samples or which parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from ..errors import TrainingError
from ..expansion import IGNORE_INDEX
from ..model import RegionModel
from .groups import NamedParameters, trainable_groups

_SHOWN = 8


def require_supervised(labels: Tensor, sample_names: Sequence[str]) -> None:
    """Refuse a batch of samples with nothing to learn. One without samples, all of them skipped, may pass.

    Raises:
        TrainingError: names the samples.
    """
    if sample_names and not (labels != IGNORE_INDEX).any():
        raise TrainingError(
            f"A batch has no supervised token, so nothing would be learnt from it: {listed(sample_names)}. Has every "
            "sample an answer of the assistant? `pixelrefer validate` says which have none."
        )


def not_finite(value: float, what: str, sample_names: Sequence[str], *, step: int, last: Path | None) -> TrainingError:
    """The error that stops a run before its weights are spoilt.

    Args:
        value: infinite, or not a number.
        what: it is: the loss, or the norm of the gradients.
        sample_names: of the batches it is of.
        step: the optimizer step that would have been the next.
        last: the newest checkpoint, if there is one.
    """
    kept = f"The last good checkpoint is '{last}'" if last else "No checkpoint was written before"
    return TrainingError(
        f"The {what} of step {step} is {value}, on {listed(sample_names) or 'no samples'}. Nothing of this step was "
        f"applied. {kept}. Look at these samples, lower the learning rates, or train in bf16 or fp32 instead of fp16."
    )


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return "; ".join(names[:_SHOWN]) + more


class GradientGuard(TrainerCallback):
    """After the first optimizer step that saw regions, every group that trains must have had a gradient.

    LoRA's A matrices have none at first, by design, and single layers may rest: a group counts as a whole.

    Args:
        model: the model; sharded or wrapped later, its parameters stay the same objects or take the same names.
        watch: record gradients as they are made, for engines that keep them elsewhere (DeepSpeed).
    """

    def __init__(self, model: RegionModel, *, watch: bool = False) -> None:
        self._model = model
        self._seen_regions = False
        self._done = False
        self._watched: dict[str, float] = {}
        self._handles = self._watch(trainable_groups(model)) if watch else []

    def saw(self, inputs: Mapping[str, Any]) -> None:
        """Take note of a batch: the guard speaks after one in which an answer is about a region."""
        regions = inputs.get("regions")
        if self._done or self._seen_regions or regions is None:
            return
        answered = (inputs["labels"] != IGNORE_INDEX).any(dim=1).tolist()
        self._seen_regions = any(
            number > 0 and has_answer for number, has_answer in zip(regions.regions_per_sample, answered, strict=True)
        )

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Raises TrainingError where a group had no gradient; on every process alike."""
        if self._done:
            return
        groups = trainable_groups(self._model)
        largest = [self._watched.get(name, _largest_gradient(members)) for name, members in groups.items()]
        everywhere = gather_object([[float(self._seen_regions), *largest]])
        seen, *largest = (max(column) for column in zip(*everywhere, strict=True))
        if not seen:
            return
        self._done = True
        for handle in self._handles:
            handle.remove()
        for (name, members), value in zip(groups.items(), largest, strict=True):
            if value <= 0:
                raise _no_gradient(name, members, made=value == 0)

    def _watch(self, groups: Mapping[str, NamedParameters]) -> list[Any]:
        def note(gradient: Tensor, name: str) -> None:
            self._watched[name] = max(self._watched.get(name, _NONE), _largest(gradient))

        return [
            parameter.register_hook(lambda gradient, name=name: note(gradient, name))
            for name, members in groups.items()
            for _, parameter in members
        ]


_NONE = -1.0  # of a group for which no gradient was made at all


def _largest_gradient(members: NamedParameters) -> float:
    return max((_largest(each.grad) for _, each in members if each.grad is not None), default=_NONE)


def _largest(gradient: Tensor) -> float:
    """This process's part of it, where it is spread over several."""
    local = gradient.to_local() if isinstance(gradient, DTensor) else gradient
    return local.abs().max().item() if local.numel() else _NONE


def _no_gradient(name: str, members: NamedParameters, *, made: bool) -> TrainingError:
    reason = (
        "they are exactly zero: something on the way from the loss multiplies them by zero"
        if made
        else "none was computed: it is not on the way to the loss, or its output is detached"
    )
    number = sum(parameter.numel() for _, parameter in members)
    return TrainingError(
        f"Group '{name}' trains ({number:,} parameters, such as '{members[0][0]}') but had no gradient in the first "
        f"step with regions; {reason}. Freeze it, or look at its module's forward."
    )
