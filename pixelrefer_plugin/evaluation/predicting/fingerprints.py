"""Short digests of models, files and questions, to tell whether answers are of the same ones."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path, PurePath
from typing import Any

import torch

from ...contracts.questions import Question
from ...errors import EvaluationError
from ...files import open_regular
from ...regions.region import Region, VideoRegion

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


def digest_of_questions(questions: Iterable[Question]) -> str:
    """Of what is asked, in order: ids, the whole conversations, names of pictures and videos, and the regions.

    Pictures are told by their file names alone, so that a folder of data may move. What is expected does not count:
    it changes no answer.
    """
    found = blake2b(digest_size=16)
    for question in questions:
        for each in _asked(question):
            found.update(each.encode("utf-8", "replace") + b"\0")
    return found.hexdigest()


def _asked(question: Question) -> Iterator[str]:
    yield question.id
    for message in question.asked.messages:
        yield str(message["role"])
        content = message["content"]
        for part in [{"text": content}] if isinstance(content, str) else content:
            for key, value in sorted(part.items()):
                yield f"{key}={_medium(value) if key in ('image', 'video') else value}"
    for region in question.asked.regions:
        yield _pointed_at(region)
    yield f"segment={question.segment} localize={question.localize}"


def _medium(value: Any) -> str:
    return PurePath(value).name if isinstance(value, str | os.PathLike) else type(value).__name__


def _pointed_at(region: Region | VideoRegion) -> str:
    if isinstance(region, VideoRegion):
        frames = " ".join(f"{frame}:{_pointed_at(each)}" for frame, each in region.frames.items())
        return f"video {region.video_index} {frames}"
    data = region.to_rle(region.data.image_hw) if region.kind == "mask" else region.data
    return f"{region.kind} {region.image_index} {data}"
