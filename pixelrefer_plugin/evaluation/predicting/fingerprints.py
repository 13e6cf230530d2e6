"""Short digests of models and files, to tell whether answers are of the same ones. It knows tensors and bytes."""

from __future__ import annotations

import os
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch

from ...errors import EvaluationError
from ...files import open_regular

_VALUES_OF_TENSOR = 64
_CHUNK_BYTES = 1 << 20
_MOST_CHUNKS = 256


def digest_of_model(model: torch.nn.Module) -> str:
    """Of a model's weights: their names, shapes and types, and of each some values, spread evenly."""
    found = blake2b(digest_size=16)
    for name, weight in model.named_parameters():
        found.update(f"{name} {tuple(weight.shape)} {weight.dtype}\n".encode())
        if not weight.is_meta and weight.numel():
            values = weight.detach().reshape(-1)
            places = torch.linspace(0, len(values) - 1, min(_VALUES_OF_TENSOR, len(values)), dtype=torch.float64)
            found.update(values[places.long().to(values.device)].double().cpu().numpy().tobytes())
    return found.hexdigest()


def digest_of_path(path: str | os.PathLike[str]) -> str:
    """Of the content of a file, or of all files in a folder; of a large file a quarter of a gibibyte, spread evenly.

    Raises:
        EvaluationError: it cannot be read.
    """
    path = Path(path)
    found = blake2b(digest_size=16)
    inside = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    try:
        for each in inside:
            found.update(f"{each.relative_to(path)} {each.stat().st_size}\n".encode(errors="surrogateescape"))
            _add_content(found, each)
    except OSError as error:
        raise EvaluationError(f"'{path}' cannot be read: {error.strerror or error}.") from error
    return found.hexdigest()


def _add_content(found: Any, path: Path) -> None:
    with open_regular(path) as file:
        chunks = -(-path.stat().st_size // _CHUNK_BYTES)
        step = max(1, chunks / _MOST_CHUNKS)
        for number in range(min(chunks, _MOST_CHUNKS)):
            file.seek(int(number * step) * _CHUNK_BYTES)
            found.update(file.read(_CHUNK_BYTES))
