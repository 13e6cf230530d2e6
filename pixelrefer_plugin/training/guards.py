"""What stops a training run that would learn nothing, or unlearn everything: batches without answers, masks for a
decoder that never asks for one, groups that no gradient reaches, losses that are not numbers. Each says which samples
or which parameters.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from ..conversation.expansion import IGNORE_INDEX
from ..errors import TrainingError
from ..model import RegionModel
from ..tokens.layouts import PromptLayout
from .groups import NamedParameters, trainable_groups, trained_tokens
from .recipes import coarse_group, recipes_for

_SHOWN = 8
_SPEAKERS = ("lora", "token_rows", "decoder")

_logger = logging.getLogger(__name__)


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


def says_masks(model: RegionModel, trained: Container[str], token_id: int) -> bool:
    """Whether something trains that could make the decoder say the token that a mask is made for.

    Args:
        model: whose adapter has a mask head.
        trained: the groups that train.
        token_id: of that token.
    """
    return any(group in trained and (group != "token_rows" or token_id in trained_tokens(model)) for group in _SPEAKERS)


def never_said(model: RegionModel, sample_names: Sequence[str]) -> TrainingError:
    """The error that stops a run which would teach masks that are never asked for.

    Args:
        model: whose adapter has a mask head.
        sample_names: of samples with masks to learn.
    """
    head = model.adapter_spec.masks
    assert head is not None
    recipes = recipes_for(model.adapter_spec).values()
    fit = [recipe.name for recipe in recipes if any(recipe.trains(group) for group in _SPEAKERS)]
    return TrainingError(
        f"There are masks to learn, in {listed(sample_names)}, but the decoder is frozen: it would never say "
        f"'{head.token}', and no mask would ever be made. Train that token's rows (token_rows), LoRA or the decoder; "
        f"recipes that do: {', '.join(fit)}."
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
    """After the first optimizer step that saw regions or masks, every group that trains must have had a gradient.

    LoRA's A matrices have none at first, by design, and single layers may rest: a group counts as a whole. Where the
    adapter trains in parts (`adapter.PART`, or without some of them), one may have nothing to do in a step, such as
    that for clicks where there are none: after `PATIENCE` steps it is an error where samples of every kind were seen or
    no part had a gradient, else a warning.

    Args:
        model: the model; sharded or wrapped later, its parameters stay the same objects or take the same names.
        named: groups that somebody names, as in `parameter_groups`.
        watch: record gradients as they are made, for engines that keep them elsewhere (DeepSpeed).
    """

    PATIENCE = 50

    def __init__(self, model: RegionModel, *, named: Iterable[str] = (), watch: bool = False) -> None:
        self._model = model
        self._named = tuple(named)
        groups = trainable_groups(model, self._named)
        self._waiting = dict.fromkeys(groups)  # groups that have had no gradient, in order
        of_adapter = [name for name in groups if coarse_group(name) == "adapter"]
        self._parts = of_adapter if _in_parts(model, of_adapter) else []
        self._seen: set[str] = set()  # kinds of work that samples had
        self._steps = 0  # in which, or before which, there was any
        self._watched: dict[str, float] = {}
        self._handles = self._watch(groups) if watch else []

    def saw(self, inputs: Mapping[str, Any]) -> None:
        """Take note of a batch: the guard speaks after one in which an answer is about a region, or has a mask."""
        if self._waiting:
            is_about_regions = self._model.adapter_spec.is_training_free  # in words: there is no knowing of which
            self._seen |= {_BY_MASK} if is_about_regions and _is_answered(inputs) else _work_in(inputs)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Raises TrainingError where a group had no gradient; on every process alike."""
        if not self._waiting:
            return
        groups = trainable_groups(self._model, self._named)
        largest = {name: self._watched.get(name, _largest_gradient(groups[name])) for name in self._waiting}
        everywhere = gather_object([(self._seen, largest)])
        self._seen = set().union(*(seen for seen, _ in everywhere))
        if not self._seen:
            return
        self._steps += 1
        values = {name: max(each[name] for _, each in everywhere) for name in self._waiting}
        self._waiting = {name: None for name, value in values.items() if value <= 0}
        for name in self._waiting:
            if name not in self._parts:
                raise _no_gradient(name, groups[name], made=values[name] == 0)
        if self._waiting and self._steps >= self.PATIENCE:
            self._judge_parts(groups)
        if not self._waiting:
            self._stop_watching()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A short run is over before its parts are judged: they are named all the same."""
        if self._steps:
            self._warn()

    def _judge_parts(self, groups: Mapping[str, NamedParameters]) -> None:
        lacking = _kinds_of_work(self._model) - self._seen
        if lacking and len(self._waiting) < len(self._parts):
            self._warn()
            return
        name = next(iter(self._waiting))
        reason = (
            f"no sample so far has {' or '.join(sorted(lacking))}"
            if lacking
            else "samples of every kind were seen: its output is detached, or multiplied by zero"
        )
        raise TrainingError(
            f"Group '{name}' trains ({_described(groups[name])}) but had no gradient in {self._steps} steps; {reason}. "
            f"Freeze it (learning_rates: {{{name}: null}}), look at the data, or at its module's forward."
        )

    def _warn(self) -> None:
        lacking = " or ".join(sorted(_kinds_of_work(self._model) - self._seen)) or "what it is for"
        for name in self._waiting if PartialState().is_main_process else ():
            _logger.warning(
                "Group '%s' trains but had no gradient in %d steps: has any sample %s?",
                name,
                self._steps,
                lacking,
            )
        self._waiting = {}

    def _stop_watching(self) -> None:
        for handle in self._handles:
            handle.remove()

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


# What samples may have for an adapter to work on.
_BY_MASK, _DRAWN, _TO_LEARN = "regions that are read by their masks", "clicks or boxes", "masks to learn"


def _in_parts(model: RegionModel, groups: Sequence[str]) -> bool:
    """Whether the adapter does not train as one."""
    return list(groups) != ["adapter"] or not all(each.requires_grad for each in model.adapter.parameters())


def _is_answered(inputs: Mapping[str, Any]) -> bool:
    return bool((inputs["labels"] != IGNORE_INDEX).any())


def _work_in(inputs: Mapping[str, Any]) -> set[str]:
    """What the answers of a batch are about."""
    found = set()
    regions, masks = inputs.get("regions"), inputs.get("masks")
    if regions is not None:
        answered = (inputs["labels"] != IGNORE_INDEX).any(dim=1).tolist()
        if any(number and has for number, has in zip(regions.regions_per_sample, answered, strict=True)):
            drawn = [view.prompts.regions for view in regions.views if isinstance(view, PromptLayout)]
            number = len(drawn[0]) if drawn else 0
            found = {*([_DRAWN] if number else []), *([_BY_MASK] if number < len(regions.counts) else [])}
    if masks is not None and any(masks.objects_per_sample):
        found.add(_TO_LEARN)
    return found


def _kinds_of_work(model: RegionModel) -> set[str]:
    """All that there is for the model's adapter."""
    spec = model.adapter_spec
    return {_BY_MASK, *([_DRAWN] if spec.drawn else []), *([_TO_LEARN] if spec.masks else [])}


def _no_gradient(name: str, members: NamedParameters, *, made: bool) -> TrainingError:
    reason = (
        "they are exactly zero: something on the way from the loss multiplies them by zero"
        if made
        else "none was computed: it is not on the way to the loss, or its output is detached"
    )
    return TrainingError(
        f"Group '{name}' trains ({_described(members)}) but had no gradient in the first step with regions; {reason}. "
        "Freeze it, or look at its module's forward."
    )


def _described(members: NamedParameters) -> str:
    number = sum(parameter.numel() for _, parameter in members)
    return f"{number:,} parameters, such as '{members[0][0]}'"
