"""The parts of a `RegionModel` that train, or do not, each with a learning rate of its own.

It knows where a backbone's parts are by its plugin's paths, and LoRA by PEFT's names.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from ..errors import TrainingError
from ..lora import is_lora
from ..model import RegionModel

GROUPS = ("adapter", "lora", "token_rows", "vision_tower", "projector", "decoder")
"""`lora` is LoRA wherever it lies; `token_rows` the trained rows of the embedding and the head; `decoder` all of the
backbone that is neither vision tower nor projector, embedding and head included."""

NamedParameters = list[tuple[str, nn.Parameter]]


def parameter_groups(model: RegionModel) -> dict[str, NamedParameters]:
    """All parameters, trainable or not, each in exactly one of `GROUPS`; groups without any are left out.

    Where one part of the backbone lies inside another (Qwen2.5-VL's projector inside its vision tower), the inner
    one has its parameters.
    """
    spec = model.backbone_spec
    parts = {f"backbone.{spec.vision_tower}.": "vision_tower", f"backbone.{spec.projector}.": "projector"}
    groups: dict[str, NamedParameters] = {name: [] for name in GROUPS}
    for name, parameter in model.named_parameters():
        groups[_group_of(name, parts)].append((name, parameter))
    return {name: members for name, members in groups.items() if members}


def trainable_groups(model: RegionModel) -> dict[str, NamedParameters]:
    """The trainable parameters, by group; groups that are frozen as a whole are left out."""
    groups = {
        name: [(each, parameter) for each, parameter in members if parameter.requires_grad]
        for name, members in parameter_groups(model).items()
    }
    return {name: members for name, members in groups.items() if members}


def optimizer_groups(
    model: RegionModel, *, learning_rate: float, learning_rates: Mapping[str, float], weight_decay: float
) -> list[dict[str, object]]:
    """Parameter groups as torch's optimizers take them: matrices decay, biases, norms and other vectors do not.

    Args:
        model: what trains.
        learning_rate: of groups that have none of their own.
        learning_rates: of others, by name.
        weight_decay: of matrices.

    Raises:
        TrainingError: nothing trains, or a learning rate is for a group that does not.
    """
    groups = trainable_groups(model)
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
        raise TrainingError("Nothing trains: every parameter is frozen. Unfreeze the adapter, or add LoRA.")
    for name in learning_rates:
        if name not in GROUPS:
            raise TrainingError(f"A learning rate is given for {name!r}; parameter groups are {', '.join(GROUPS)}.")
        if name not in groups:
            raise TrainingError(
                f"A learning rate is given for '{name}', which does not train. What trains: {', '.join(groups)}."
            )


def _group_of(name: str, parts: Mapping[str, str]) -> str:
    if name.startswith("adapter."):
        return "adapter"
    if "trainable_tokens_" in name:
        return "token_rows"
    if is_lora(name):
        return "lora"
    inside = [path for path in parts if name.startswith(path)]
    return parts[max(inside, key=len)] if inside else "decoder"


def _is_matrix(parameter: nn.Parameter) -> bool:
    shape = getattr(parameter, "ds_shape", parameter.shape)  # under ZeRO-3 the parameter itself is empty
    return len(shape) > 1
