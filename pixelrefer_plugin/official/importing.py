"""`import_official`: a checkpoint that an adapter's authors published becomes a model folder.

The backbone's part is read as any checkpoint in a foreign layout is (`..weights.foreign`), the adapter's as the
adapter's `layouts` say. It knows no adapter and no backbone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ..contracts.adapter import AdapterLayout, AdapterSpec
from ..entry import attach
from ..errors import CheckpointError, PromptError, shown
from ..plugins import adapter_for_layout, adapter_layouts, in_plugin, require_result
from ..weights import model_folder
from ..weights.foreign import ForeignCheckpoint, find_foreign
from ..weights.hub import without_where

if TYPE_CHECKING:
    from torch import Tensor

    from ..model import RegionModel
    from ..processor import RegionProcessor

_SAMPLING = (
    "temperature", "top_k", "top_p", "top_h", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"
)  # fmt: skip
_DTYPES = ("float32", "float16", "bfloat16")


class _Official(NamedTuple):
    """An official checkpoint and the adapter that reads it."""

    checkpoint: ForeignCheckpoint
    adapter: AdapterSpec

    @property
    def name(self) -> str:
        """What the user called the checkpoint."""
        return self.checkpoint.name

    @property
    def model_type(self) -> str:
        """What its `config.json` calls it."""
        return str(self.checkpoint.data["model_type"])

    @property
    def layout(self) -> AdapterLayout:
        """How it holds the adapter."""
        return self.adapter.layouts[self.model_type]


def import_official(
    src: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    vision_tower: str | os.PathLike[str] | None = None,
    adapter_options: Mapping[str, Any] | None = None,
    dtype: str | None = None,
    overwrite: bool = False,
    **where: Any,
) -> Path:
    """Make a model folder of an official checkpoint, backbone included.

    The weights are copied from file to file, so memory does not depend on their size. `RegionModel.from_pretrained` and
    everything else takes the result like any other folder.

    Args:
        src: the checkpoint, of a `model_type` that the `layouts` of an installed adapter name: a folder or hub id, with
            `pytorch_model.bin` or safetensors, whole or in shards.
        out: the folder to write; it appears whole or not at all.
        vision_tower: the vision tower's own folder or hub id, where it is not where the checkpoint says.
        adapter_options: options of the adapter that replace those that the checkpoint was trained with.
        dtype: of the backbone's weights, `float32`, `float16` or `bfloat16`; by default as they are. The adapter's
            are float32.
        overwrite: replace an earlier model folder.
        **where: where files of the hub come from: `revision`, `token`, `cache_dir`, `local_files_only`.

    Returns:
        `out`.

    Raises:
        CheckpointError: `src` is no official checkpoint or not whole: files, keys or tokens are missing or left over,
            a file holds anything but tensors, a shape does not fit; or `out` exists.
    """
    if dtype not in (None, *_DTYPES):
        raise CheckpointError(f"dtype must be {', '.join(_DTYPES)} or left out, got {shown(dtype)}.")
    if unknown := without_where(where):
        raise CheckpointError(f"import_official takes no option {', '.join(map(repr, unknown))}.")
    model_folder.require_free(out, overwrite=overwrite)
    official = _find(src, vision_tower, where)
    weights = _adapter_weights(official)
    options = {**_trained_options(official), **(adapter_options or {})}
    _write(official, out, weights, options, dtype=dtype, overwrite=overwrite)
    return Path(out)


def _find(
    src: str | os.PathLike[str], vision_tower: str | os.PathLike[str] | None, where: Mapping[str, Any]
) -> _Official:
    found = find_foreign(src, vision_tower=vision_tower, where=where) if not model_folder.is_model_folder(src) else None
    adapter = adapter_for_layout(found.data["model_type"]) if found else None
    if found is None or adapter is None:
        got = f", got '{found.data['model_type']}'" if found else ""
        layouts = adapter_layouts()
        models = dict.fromkeys(layout.model for layout in layouts.values())
        raise CheckpointError(
            f"'{src}' is not an official {' or '.join(models)} checkpoint: expected a config.json with the model_type "
            f"{' or '.join(map(repr, layouts))}{got}."
        )
    return _Official(found, adapter)


def _adapter_weights(official: _Official) -> dict[str, Tensor]:
    """The adapter's weights under its module's names; every other weight must be the backbone's."""
    model, prefix = official.layout.model, official.layout.prefix
    others = official.checkpoint.others
    if left_over := sorted(key for key in others if not key.startswith(prefix)):
        raise CheckpointError(
            f"'{official.name}' holds weights that belong to no part of {model}: {model_folder.some(left_over)}."
        )
    state = {key.removeprefix(prefix): tensor for key, tensor in others.items()}
    if not state:
        raise CheckpointError(
            f"'{official.name}' holds no weights of {model}'s adapter: no key begins with '{prefix}'. Is it a "
            "checkpoint from before it was trained?"
        )
    model_folder.require_finite(state, source=official.checkpoint.folder)
    with in_plugin("adapter", official.adapter.name, "layouts"):
        _require_recognised(official, state)
        weights = official.layout.weights(state)
        require_result("adapter", official.adapter.name, "layouts", dict, weights)
    return weights


def _require_recognised(official: _Official, state: Mapping[str, Tensor]) -> None:
    """Refuse the weights of another official model than `config.json` says."""
    if official.layout.recognises(state):
        return
    holds = [each.model for each in adapter_layouts().values() if each.recognises(state)]
    if holds:
        raise CheckpointError(
            f"'{official.name}' is given as {official.layout.model} (model_type '{official.model_type}'), but its "
            f"adapter is that of {holds[0]}. Are config.json and the weights of one checkpoint?"
        )


def _trained_options(official: _Official) -> dict[str, Any]:
    """The options that the checkpoint's adapter was trained with."""
    preset = official.layout.preset
    with in_plugin("adapter", official.adapter.name, "layouts"):
        said = official.layout.options(official.checkpoint.data)
        require_result("adapter", official.adapter.name, "layouts", Mapping, said)
    return {**({"preset": preset} if preset else {}), **said}


def _write(
    official: _Official,
    out: str | os.PathLike[str],
    adapter_weights: Mapping[str, Tensor],
    options: Mapping[str, Any],
    *,
    dtype: str | None,
    overwrite: bool,
) -> None:
    """The folder, by way of a model without memory of its own: weights stay in their files until they are written."""
    found = official.checkpoint
    if dtype is not None:
        found.set_dtype(getattr(torch, dtype))
    backbone_weights = found.weights()
    model, processor = _attached(official, options)
    try:
        model_folder.require_same_tensors(adapter_weights, model.adapter.state_dict(), source=found.folder)
        weights = {f"adapter.{key}": tensor for key, tensor in adapter_weights.items()}
        weights |= {f"backbone.{key}": tensor for key, tensor in backbone_weights.items()}
        model.save_pretrained(out, processor, overwrite=overwrite, include_backbone=True, state_dict=weights)
    finally:
        model.detach()


def _attached(official: _Official, options: Mapping[str, Any]) -> tuple[RegionModel, RegionProcessor]:
    found = official.checkpoint
    try:
        return attach(
            _hollow(official),
            found.processor,
            adapter=official.adapter.name,
            adapter_config=options,
            backbone_plugin=found.spec.name,
            region_token=official.layout.region_token,
        )
    except PromptError as error:
        raise CheckpointError(f"'{official.name}' cannot be imported: {error}") from error


def _hollow(official: _Official) -> Any:
    """The backbone without its weights, which generates as its authors' code does."""
    found = official.checkpoint
    with torch.device("meta"):
        backbone = found.spec.model_class(found.config).to(found.config.dtype)
    found.set_generation(backbone)
    if official.layout.is_greedy:
        backbone.generation_config.update(do_sample=False, **dict.fromkeys(_SAMPLING))
    return backbone
