"""The model that `pixelrefer describe`, `segment`, `chat` and `predict` ask: loaded, told in plain words why where it
cannot be, and asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import CheckpointError
from ..evaluation.predicting.processes import is_first_process
from ..plugins import get_adapter, require_adapter_name, training_free
from ..weights.hub import find_model_folder, is_path
from ..weights.model_folder import BUILTIN_PREFIX, is_model_folder, read_manifest
from .reporting import EMPTY, Failure, for_terminal, quiet_libraries

if TYPE_CHECKING:
    from transformers import TextStreamer

    from ..model import RegionModel
    from ..processor import RegionProcessor
    from ..regions.region import Region, VideoRegion
    from ..tokens.region_batch import RegionBatch


def require_model(source: str) -> None:
    """Refuse the path of a folder that is not there; whether the hub has an id is known when it is loaded."""
    if is_path(source) and not is_model_folder(source) and not Path(source).is_dir():
        raise CheckpointError(f"Expected a model folder at '{source}', found none.")


@dataclass(frozen=True)
class ChosenAdapter:
    """The adapter that a model is asked with.

    Attributes:
        name: None where the model folder brings its own.
        told: what the user is told of the choice; may be empty.
    """

    name: str | None
    told: str = ""


def require_adapter(source: str, adapter: str | None) -> None:
    """Refuse a backbone here that no adapter can be taken for; what the hub has is known when it is loaded."""
    if _is_here(source):
        _chosen_adapter(source, adapter)


def choose_adapter(source: str, adapter: str | None) -> ChosenAdapter:
    """The adapter to ask a model with: of a plain backbone the one that is named, else one that needs no training.

    Args:
        source: a model folder, or a plain backbone's id or path.
        adapter: what the user names, if anything.

    Raises:
        PluginError: no plugin serves the backbone, or no installed adapter does without training.
        Failure: there is no such model.
    """
    with loading(source):
        return _chosen_adapter(source, adapter)


def _chosen_adapter(source: str, adapter: str | None) -> ChosenAdapter:
    if find_model_folder(source, {}) is not None:
        return ChosenAdapter(adapter)
    if adapter is None:
        return _pointing_adapter(source)
    if get_adapter(adapter).is_training_free:
        return ChosenAdapter(adapter)
    return ChosenAdapter(
        adapter,
        f"Warning: '{source}' is a plain backbone; its adapter '{adapter}' is untrained: what it says about regions "
        "means nothing yet.",
    )


def _pointing_adapter(source: str) -> ChosenAdapter:
    """The adapter that the plugin of a plain backbone names, or where that is not here another without training."""
    from ..weights.opening import require_backbone  # with torch, which a plain backbone costs

    spec = require_backbone(source)
    known = training_free()
    if spec.pointing in known:
        why = "needs no training"
        return ChosenAdapter(spec.pointing, f"Asking '{source}' with adapter '{spec.pointing}', which {why}. {_OTHERS}")
    if not known:
        require_adapter_name(None, write="--adapter ")
    told = (
        f"Asking '{source}' with adapter '{known[0]}', which needs no training: '{spec.pointing}', which backbone "
        f"'{spec.name}' is asked with, is not among the installed adapters. {_OTHERS}"
    )
    return ChosenAdapter(known[0], told)


_OTHERS = "--adapter names another."


def _is_here(source: str) -> bool:
    return Path(source).exists() or source.startswith(BUILTIN_PREFIX)


def require_mask_head(source: str, adapter: str | None) -> None:
    """Refuse a model folder or a backbone here that gives no masks; the hub's tell when they are loaded."""
    if not _is_here(source):
        return
    if find_model_folder(source, {}) is None:
        require_named_adapter(source, adapter)
    name = read_manifest(source).adapter if is_model_folder(source) else adapter
    assert name is not None, "a plain backbone needs one"
    if get_adapter(name).masks is None:
        raise Failure(
            f"'{source}' gives no masks: its adapter '{name}' has no mask head. Take a model that was trained with an "
            "adapter that has one."
        )


def require_named_adapter(source: str, adapter: str | None) -> None:
    """Refuse a plain backbone here without `--adapter`, where none can be chosen for the user."""
    if _is_here(source) and find_model_folder(source, {}) is None:
        from ..weights.opening import require_backbone

        require_backbone(source)
        require_adapter_name(adapter, write="--adapter ")


@dataclass(frozen=True)
class LoadedModel:
    """A model and its processor, ready to be asked."""

    model: RegionModel
    processor: RegionProcessor
    max_new_tokens: int

    @classmethod
    def open(
        cls,
        source: str,
        *,
        backbone: str | None,
        adapter: str | None,
        adapter_options: Mapping[str, Any],
        device: str,
        max_new_tokens: int,
        dtype: str | None = None,
    ) -> LoadedModel:
        """Load the model, and tell which adapter it is asked with where that is chosen, or has never been trained."""
        quiet_libraries()
        place = torch_device(device)
        chosen = choose_adapter(source, adapter)
        model, processor = _load(source, backbone, chosen.name, adapter_options, dtype)
        if chosen.told and is_first_process():
            click.echo(chosen.told, err=True)
        return cls(model.to(place), processor, max_new_tokens)

    def ask(
        self, question: str, part: dict[str, Any], regions: Sequence[Region | VideoRegion], *, stream: bool
    ) -> tuple[str, Sequence[int]]:
        """Ask about regions of a picture or video, the other `part` of the message.

        Returns:
            The answer, printed as it comes where `stream`, and the object tokens of each region.
        """
        inputs = self.processor([{"role": "user", "content": [part, {"type": "text", "text": question}]}], regions)
        inputs = inputs.to(self.model.device, dtype=self.model.backbone.dtype)
        generated = self.model.generate(
            **inputs,
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            num_beams=1,
            streamer=printing(self.processor.tokenizer) if stream else None,
        )
        return self.processor.decode(generated, inputs)[0], _tokens_of(regions, inputs)


def printing(tokenizer: Any) -> TextStreamer:
    """What prints an answer as it comes, without what a terminal would obey."""
    from transformers import TextStreamer

    class Printing(TextStreamer):
        has_words = False

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            self.has_words = self.has_words or bool(text.strip())
            text = text if self.has_words or not stream_end else EMPTY
            click.echo(for_terminal(text), nl=stream_end)

    return Printing(tokenizer, skip_prompt=True, skip_special_tokens=True)


def _tokens_of(regions: Sequence[Region | VideoRegion], inputs: Mapping[str, Any]) -> list[int]:
    """The object tokens of each region; equal ones may share theirs. None where the adapter makes none."""
    batch: RegionBatch | None = inputs.get("regions")
    if batch is None:
        return [0] * len(regions)
    tokens = {
        regions[number]: count
        for number, count in zip(batch.numbers, batch.tokens_per_region(), strict=True)
        if number is not None
    }
    return [tokens[region] for region in regions]


def _load(
    source: str, backbone: str | None, adapter: str | None, adapter_options: Mapping[str, Any], dtype: str | None
) -> tuple[RegionModel, RegionProcessor]:
    from ..entry import load

    if backbone and find_model_folder(source, {}) is None:
        raise click.UsageError(f"--backbone is for model folders, but '{source}' is a plain backbone itself.")
    of_weights: dict[str, Any] = {} if dtype is None else {"dtype": dtype}
    with loading(source):
        return load(source, adapter=adapter, adapter_config=adapter_options or None, backbone=backbone, **of_weights)


@contextmanager
def loading(source: str) -> Iterator[None]:
    """Says of what cannot be loaded what it is called, and whether it is here."""
    try:
        yield
    except (OSError, CheckpointError) as error:  # what the hub's client raises for networks, and what we make of it
        here = "" if _is_here(source) else f" (There is no folder '{source}' here.)"
        raise Failure(f"'{source}' cannot be loaded: {error}{here}") from error


def torch_device(device: str) -> str:
    """What torch calls the device of `--device`.

    Raises:
        Failure: there is none.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise Failure("--device cuda: torch finds no CUDA device here. Use --device cpu.")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device
