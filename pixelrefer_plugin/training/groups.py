"""The parts of a `RegionModel` that train, or do not, each with a learning rate of its own.

It knows where a backbone's parts are by its plugin's paths, and LoRA by PEFT's names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..errors import TrainingError
from .recipes import Recipe, listed

if TYPE_CHECKING:
    from ..model import RegionModel

from collections.abc import Iterable

from torch import nn

from ..model import RegionModel
from ..weights.lora import is_lora
from .recipes import GROUPS, PART_OF_ADAPTER, coarse_group

NamedParameters = list[tuple[str, nn.Parameter]]


def parameter_groups(model: RegionModel, named: Iterable[str] = ()) -> dict[str, NamedParameters]:
    """All parameters, trainable or not, each in exactly one group; groups without any are left out.

    Where one part of the backbone lies inside another, such as a projector inside the vision tower, the inner one has
    its parameters.

    Args:
        model: whose.
        named: groups that somebody names. A part of the adapter's module among them, `adapter.PART`, is a group of its
            own, without the parts of it that are named too; what no name is for stays in `adapter`.

    Raises:
        TrainingError: the adapter has no such part; those that it has there are listed.
    """
    spec = model.backbone_spec
    parts = {f"backbone.{spec.parts.vision_tower}.": "vision_tower", f"backbone.{spec.parts.projector}.": "projector"}
    own = _named_parts(model, named)
    groups: dict[str, NamedParameters] = {name: [] for name in (GROUPS[0], *own, *GROUPS[1:])}
    for name, parameter in model.named_parameters():
        groups[_group_of(name, parts, own)].append((name, parameter))
    return {name: members for name, members in groups.items() if members}


def trainable_groups(model: RegionModel, named: Iterable[str] = ()) -> dict[str, NamedParameters]:
    """The trainable parameters, by group as in `parameter_groups`; groups that are frozen as a whole are left out."""
    groups = {
        name: [(each, parameter) for each, parameter in members if parameter.requires_grad]
        for name, members in parameter_groups(model, named).items()
    }
    return {name: members for name, members in groups.items() if members}


def trained_tokens(model: RegionModel) -> set[int]:
    """Ids of the tokens whose rows LoRA has for itself, trainable or not."""
    embedding = model.backbone.get_submodule(model.backbone_spec.parts.token_embedding)
    rows = getattr(embedding, "token_adapter", None)  # PEFT's wrapper
    return set() if rows is None else {each for ids in rows.token_indices.values() for each in ids}


def optimizer_groups(
    model: RegionModel, *, learning_rate: float, learning_rates: Mapping[str, float], weight_decay: float
) -> list[dict[str, object]]:
    """Parameter groups as torch's optimizers take them: matrices decay, biases, norms and other vectors do not.

    Args:
        model: what trains.
        learning_rate: of groups that have none of their own.
        learning_rates: of others, by name, parts of the adapter's module among them.
        weight_decay: of matrices.

    Raises:
        TrainingError: nothing trains, or a learning rate is for a group that does not.
    """
    groups = trainable_groups(model, learning_rates)
    require_learning_rates_used(groups, learning_rates)
    made = []
    for name, members in groups.items():
        for decays in (True, False):
            parameters = [parameter for _, parameter in members if _is_matrix(parameter) == decays]
            if parameters:
                made.append(
                    {
                        "params": parameters,
                        "name": name,
                        "lr": learning_rates.get(name, learning_rate),
                        "weight_decay": weight_decay if decays else 0.0,
                    }
                )
    return made


def require_learning_rates_used(groups: Mapping[str, object], learning_rates: Mapping[str, float]) -> None:
    """Refuse a run in which nothing trains, and learning rates that would do nothing.

    Raises:
        TrainingError: names the groups that do train.
    """
    if not groups:
        raise TrainingError(
            "Nothing trains: every parameter is frozen. Unfreeze the adapter, or add LoRA, as an adapter that has "
            "nothing to train needs."
        )
    for name in learning_rates:
        if coarse_group(name) not in GROUPS:
            raise TrainingError(
                f"A learning rate is given for {name!r}; parameter groups are {', '.join(GROUPS)}, and "
                f"{PART_OF_ADAPTER}PART for a part of the adapter's module."
            )
        if name not in groups:
            raise TrainingError(
                f"A learning rate is given for '{name}', which does not train. What trains: {', '.join(groups)}."
            )


def _named_parts(model: RegionModel, named: Iterable[str]) -> list[str]:
    """The groups among them that are parts of the adapter's module, in the module's order."""
    wanted = {name for name in named if name.startswith(PART_OF_ADAPTER)}
    modules = model.adapter.named_modules(prefix=GROUPS[0])
    there = [name for name, part in modules if any(True for _ in part.parameters())]
    unknown = sorted(wanted - set(there))
    if unknown:
        whole = max((name for name in there if unknown[0].startswith(f"{name}.")), key=len, default=GROUPS[0])
        parts = [name for name in there if name.rpartition(".")[0] == whole]
        raise TrainingError(
            f"Adapter '{model.adapter_spec.name}' has no {', '.join(unknown)}. Its parts: {', '.join(parts) or 'none'}."
        )
    return [name for name in there if name in wanted]


def _group_of(name: str, parts: Mapping[str, str], own: Iterable[str]) -> str:
    if name.startswith(PART_OF_ADAPTER):
        return max((part for part in own if name.startswith(f"{part}.")), key=len, default=GROUPS[0])
    if "trainable_tokens_" in name:
        return "token_rows"
    if is_lora(name):
        return "lora"
    inside = [path for path in parts if name.startswith(path)]
    return parts[max(inside, key=len)] if inside else "decoder"


def _is_matrix(parameter: nn.Parameter) -> bool:
    shape = getattr(parameter, "ds_shape", parameter.shape)  # under ZeRO-3 the parameter itself is empty
    return len(shape) > 1


def apply_recipe(
    model: RegionModel, recipe: Recipe, overrides: Mapping[str, float | None]
) -> tuple[dict[str, float], list[str]]:
    """Make exactly the recipe's groups trainable, those of them that the model has.

    Args:
        model: with its LoRA, if any.
        recipe: says which.
        overrides: learning rates in place of the recipe's, by group; None freezes one. A part of the adapter's module
            (`adapter.PART`) may have one where the recipe trains the whole that it lies in.

    Returns:
        The learning rate of each group that trains; and what the user should know about groups left out.

    Raises:
        TrainingError: a rate is given for a group that does not train here, or for a part that there is not.
    """
    from .groups import parameter_groups

    groups = parameter_groups(model, [*recipe.rates, *overrides])
    rates = {group: recipe.rate_of(group) for group in groups if recipe.trains(group)}
    notes = []
    if model.adapter_spec.is_training_free and recipe.trains("adapter"):
        notes.append(
            f"adapter: '{model.adapter_spec.name}' has nothing to train; it points at regions in words and pictures."
        )
    if "projector" in rates and model.adapter_spec.framework == "object-only":
        del rates["projector"]
        notes.append(
            f"projector: left out, since adapter '{model.adapter_spec.name}' is Object-Only and never runs it."
        )
    idle = sorted(set(overrides) - set(rates))
    if idle:
        raise TrainingError(
            f"learning_rates names {listed(idle)}, which do not train here. Groups that train: {listed(rates)}."
        )
    trained = {group: rate for group, rate in {**rates, **overrides}.items() if rate is not None}
    for group, parameters in groups.items():
        for _, parameter in parameters:
            if parameter.is_floating_point():  # packed 4-bit weights are integers and cannot train
                parameter.requires_grad_(group in trained)
    return trained, notes
