"""PEFT's `adapter_config.json`, read as data: what makes LoRA what it is is taken, what would run or grow is refused.

Among PEFT's own fields some name modules to import, and some are regular expressions or sizes that are obeyed before
any weight is looked at. Here each is checked against the weights beside it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import CheckpointError, shown
from .tensors import read_json

CONFIG_FILE = "adapter_config.json"

# Of no effect on a model that is loaded: what trained it, and how it began.
_IGNORED = {
    "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "init_lora_weights", "target_modules", "layers_to_transform", "layers_pattern", "exclude_modules",
    "megatron_core", "qalora_group_size", "runtime_config", "ensure_weight_tying",
}  # fmt: skip
_NAME = re.compile(r"\^?[\w.]+")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**31


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) < 1e9 and math.isfinite(value)


def _is_pattern(of: Callable[[Any], bool]) -> Callable[[Any], bool]:
    def is_pattern(value: Any) -> bool:
        return isinstance(value, dict) and all(_NAME.fullmatch(key) and of(each) for key, each in value.items())

    return is_pattern


def _are_rows(value: Any) -> bool:
    if value is None:
        return True
    rows = [tuple(each) for each in value.values() if isinstance(each, list)] if isinstance(value, dict) else []
    plain = all(type(row) is int and row >= 0 for each in rows for row in each)
    return bool(rows) and len(rows) == len(value) and plain and len({*rows}) == 1


_READ: dict[str, tuple[Callable[[Any], bool], str]] = {
    "r": (_is_count, "a whole number of 1 or more"),
    "lora_alpha": (_is_number, "a finite number"),
    "lora_dropout": (lambda value: _is_number(value) and 0 <= value < 1, "a number from 0 to below 1"),
    "use_rslora": (lambda value: isinstance(value, bool), "true or false"),
    "use_dora": (lambda value: isinstance(value, bool), "true or false"),
    "rank_pattern": (_is_pattern(_is_count), "whole numbers by the names of layers"),
    "alpha_pattern": (_is_pattern(_is_number), "finite numbers by the names of layers"),
    "trainable_token_indices": (_are_rows, "null, or the same ids of tokens for each layer"),
}


def read_lora_config(folder: Path, weights: Mapping[str, Tensor]) -> Any:
    """PEFT's config of a folder, without the layers it is for.

    Args:
        folder: with PEFT's files.
        weights: those of the folder.

    Raises:
        CheckpointError: the file is missing or damaged; it is of another method than LoRA, or asks for a variant of it
            that is not loaded here; or its ranks are not those of the weights.
    """
    from peft import LoraConfig

    path = folder / CONFIG_FILE

    def unreadable(why: str) -> CheckpointError:
        return CheckpointError(f"'{folder}' has no readable {CONFIG_FILE}: {why}")

    if not path.is_file():
        raise unreadable("the file is missing.")
    data = read_json(path)
    if data.get("peft_type") != "LORA":
        raise unreadable(f"peft_type must be 'LORA', got {shown(data.get('peft_type'))}.")
    if not data.get("target_modules"):
        raise unreadable("it names no target_modules.")
    _refuse_variants(path, data)
    for name, (is_sound, expected) in _READ.items():
        if name in data and not is_sound(data[name]):
            raise unreadable(f"{name} must be {expected}, got {shown(data[name])}.")
    _require_ranks(path, data, weights)
    return LoraConfig(**{name: data[name] for name in _READ if name in data})


def _refuse_variants(path: Path, data: Mapping[str, Any]) -> None:
    """Refuse what is neither read nor without effect: `bias`, other layers saved in full, layers made of others."""
    for name, value in data.items():
        if name in _READ or name in _IGNORED or name == "peft_type" or value in (None, False, {}, []):
            continue
        if name != "bias" or value != "none":
            raise CheckpointError(
                f"'{path}' asks for {shown(name)}: {shown(value)}, which is not loaded here. Plain LoRA, rsLoRA, DoRA "
                "and rows of tokens are. Merge it into its backbone with PEFT."
            )


def _require_ranks(path: Path, data: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Refuse ranks that no weight has: as many numbers would be made before the weights are read."""
    there = {int(tensor.shape[0]) for key, tensor in weights.items() if ".lora_A." in key and tensor.dim() == 2}
    pattern = data.get("rank_pattern") or {}
    said = {data.get("r", 8), *pattern.values()}
    if there and (max(said) > max(there) or (not pattern and said != there)):
        raise CheckpointError(
            f"'{path}' says that the rank is {shown(max(said))}, but the weights beside it have rank "
            f"{', '.join(map(str, sorted(there)))}. Are the two of one model?"
        )
    rows: list[int] = next(iter((data.get("trainable_token_indices") or {}).values()), [])
    for key, tensor in weights.items():
        if ".token_adapter." in key and tensor.dim() and len(tensor) != len(rows):
            raise CheckpointError(f"'{path}' names {len(rows)} rows of tokens, but '{key}' has {len(tensor)}.")
