"""The weights of a checkpoint folder, in whichever files they lie: safetensors or torch's `.bin`, whole or in shards.

Tensors are mapped from the disk: opening costs no memory, reading one reads that one. Nothing in a file is executed. It
knows files and keys; no model.
"""

from __future__ import annotations

import os
import pickle
import re
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import json_text
from ..errors import CheckpointError, shown

if TYPE_CHECKING:
    from torch import Tensor

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""The names that transformers gives them, the preferred one first; shards are listed in `NAME.index.json`."""


def open_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint folder, mapped from its files.

    Raises:
        CheckpointError: there are none; a file is missing, damaged, or holds anything but tensors; an index names
            what is not there. The message names file and key.
    """
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return _open_file(folder / name)
        if (index := folder / f"{name}.index.json").is_file():
            return _open_shards(index)
    expected = " or ".join(f"{name} (whole, or in shards with {name}.index.json)" for name in WEIGHT_FILES)
    raise CheckpointError(f"'{folder}' holds no weights: expected {expected}. Is the download complete?")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is no such file.

    Raises:
        CheckpointError: the file holds anything else.
    """
    if not path.is_file():
        return {}
    try:
        data = json_text.read_json(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"'{path}' is not readable JSON: {error}.") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"'{path}' must hold a JSON object, got {type(data).__name__}.")
    return data


def _open_shards(index: Path) -> dict[str, Tensor]:
    file_of = read_json(index).get("weight_map")
    if not isinstance(file_of, dict) or not all(isinstance(name, str) for name in file_of.values()):
        raise CheckpointError(f"'{index}' must say in 'weight_map' which file holds each weight.")
    weights: dict[str, Tensor] = {}
    for name in sorted(set(file_of.values())):
        shard = index.parent / name
        if Path(name).name != name or not os.path.isfile(shard):  # which says no to what can be no name
            raise CheckpointError(f"'{index}' names the shard '{name}', which is not beside it. Download it again.")
        held = _open_file(shard)
        _require_named(shard, held, (key for key, file in file_of.items() if file == name))
        if twice := sorted(weights.keys() & held.keys()):
            raise CheckpointError(f"'{shard}' holds '{twice[0]}', which another shard holds too.")
        weights |= held
    return weights


def _require_named(shard: Path, held: Mapping[str, Tensor], named: Iterable[str]) -> None:
    if absent := sorted(set(named) - held.keys()):
        raise CheckpointError(
            f"'{shard}' lacks '{absent[0]}', which the index says it holds ({len(absent)} such). Download it again."
        )


def _open_file(path: Path) -> dict[str, Tensor]:
    return _open_safetensors(path) if path.suffix == ".safetensors" else _open_bin(path)


def _open_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as opened:
            return {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118  # not a mapping
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"'{path}' cannot be read: {error}. Download it again.") from error


def _open_bin(path: Path) -> dict[str, Tensor]:
    """A pickle, read by torch's reader that knows tensors and plain values and calls nothing else."""
    import torch

    def load(mmap: bool) -> Any:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)

    try:
        found = _mapped_if_possible(load)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"'{path}' holds something else than tensors, which is refused and was not run: {_reason(error)} Use "
            "the checkpoint's safetensors files."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, AttributeError, TypeError, struct.error) as error:
        raise CheckpointError(f"'{path}' cannot be read: {_reason(error)} Download it again.") from error
    return _tensors_only(path, found)


def _mapped_if_possible(load: Callable[[bool], Any]) -> Any:
    try:
        return load(True)
    except RuntimeError:  # a file of before torch 1.6 is no archive and cannot be mapped
        return load(False)


def _tensors_only(path: Path, found: Any) -> dict[str, Tensor]:
    import torch

    if not isinstance(found, dict):
        raise CheckpointError(f"'{path}' must hold tensors by name, got {type(found).__name__}.")
    for key, value in found.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise CheckpointError(
                f"'{path}' must hold tensors by name and nothing else, got {type(value).__name__} as {shown(key)}."
            )
        if value.layout != torch.strided or value.device.type != "cpu":
            raise CheckpointError(
                f"'{path}' must hold plain tensors, got {shown(key)} with layout {value.layout} on "
                f"device {value.device}."
            )
    return {key: value.detach() for key, value in found.items()}


def _reason(error: Exception) -> str:
    """Torch's own words in one line, without its advice to read the file in the way that runs what it holds."""
    said = (str(error) or type(error).__name__).strip()
    found = re.search(r"WeightsUnpickler error: (.+)", said)
    line = found.group(1) if found else said.splitlines()[0].partition(" In PyTorch 2.6")[0]
    return line.rstrip(". ") + "."
