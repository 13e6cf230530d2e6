"""`import_official`: an official PixelRefer or PixelRefer-Lite checkpoint becomes a model folder.

The backbone's part is read as any checkpoint in a foreign layout is (`..foreign`); the region encoder's goes to the
adapter. It knows both adapters and the backbone by name only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pixelrefer_saot.layouts import REGION_ENCODER, adapter_of, adapter_weights

from ..errors import CheckpointError, PixelReferError
from ..model import RegionModel
from ..processor import RegionProcessor
from ..weights import model_folder
from ..weights.foreign import ForeignCheckpoint, find_foreign
from ..weights.hub import without_where

if TYPE_CHECKING:
    from torch import Tensor

REGION_TOKEN = "<REGION>"
"""What the official prompts write for each object token."""

_PRESET = "official"
_ADAPTER_OF_TYPE = {"pixelrefer_qwen2": "saot", "pixelreferlite_qwen2": "oci"}
_MODEL_OF_ADAPTER = {"saot": "PixelRefer", "oci": "PixelRefer-Lite"}
_OPTION_OF = {"mask_num": "num_tokens", "mm_max_length": "max_patches"}
_SAMPLING = (
    "temperature", "top_k", "top_p", "top_h", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"
)  # fmt: skip
_DTYPES = ("float32", "float16", "bfloat16")


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
        src: the checkpoint: a folder or hub id, with `pytorch_model.bin` or safetensors, whole or in shards.
        out: the folder to write; it appears whole or not at all.
        vision_tower: the vision tower's own folder or hub id, where it is not where the checkpoint says.
        adapter_options: options of the adapter that replace those of its preset `official`.
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
        raise CheckpointError(f"dtype must be {', '.join(_DTYPES)} or left out, got {dtype!r}.")
    if unknown := without_where(where):
        raise CheckpointError(f"import_official takes no option {', '.join(map(repr, unknown))}.")
    model_folder.require_free(out, overwrite=overwrite)
    found = _find(src, vision_tower, where)
    encoder = _region_encoder(found)
    adapter = _adapter_name(found, encoder)
    options = {"preset": _PRESET, **_trained_options(found), **(adapter_options or {})}
    _write(found, out, adapter, options, encoder=encoder, dtype=dtype, overwrite=overwrite)
    return Path(out)


def _find(
    src: str | os.PathLike[str], vision_tower: str | os.PathLike[str] | None, where: Mapping[str, Any]
) -> ForeignCheckpoint:
    found = find_foreign(src, vision_tower=vision_tower, where=where) if not model_folder.is_model_folder(src) else None
    if found is None or found.data["model_type"] not in _ADAPTER_OF_TYPE:
        got = f", got '{found.data['model_type']}'" if found else ""
        raise CheckpointError(
            f"'{src}' is not an official PixelRefer checkpoint: expected a config.json with the model_type "
            f"{' or '.join(map(repr, _ADAPTER_OF_TYPE))}{got}."
        )
    return found


def _region_encoder(found: ForeignCheckpoint) -> dict[str, Tensor]:
    """The region encoder's weights without their prefix; every other weight must be the backbone's."""
    left_over = sorted(key for key in found.others if not key.startswith(REGION_ENCODER))
    if left_over:
        raise CheckpointError(
            f"'{found.name}' holds weights that belong to no part of PixelRefer: {model_folder.some(left_over)}."
        )
    encoder = {key.removeprefix(REGION_ENCODER): tensor for key, tensor in found.others.items()}
    if not encoder:
        raise CheckpointError(
            f"'{found.name}' has no region encoder: no key begins with '{REGION_ENCODER}'. Is it a checkpoint from "
            "before it was trained?"
        )
    return encoder


def _adapter_name(found: ForeignCheckpoint, encoder: Mapping[str, Tensor]) -> str:
    said, holds = _ADAPTER_OF_TYPE[found.data["model_type"]], adapter_of(encoder)
    if said != holds:
        raise CheckpointError(
            f"'{found.name}' is given as {_MODEL_OF_ADAPTER[said]} (model_type '{found.data['model_type']}'), but its "
            f"region encoder is that of {_MODEL_OF_ADAPTER[holds]}. Are config.json and the weights of one checkpoint?"
        )
    return said


def _trained_options(found: ForeignCheckpoint) -> dict[str, int]:
    """What the checkpoint was trained with: the most tokens of an object, and the most patches of its crop."""
    return {option: found.data[name] for name, option in _OPTION_OF.items() if found.data.get(name) is not None}


def _write(
    found: ForeignCheckpoint,
    out: str | os.PathLike[str],
    adapter: str,
    options: Mapping[str, Any],
    *,
    encoder: Mapping[str, Tensor],
    dtype: str | None,
    overwrite: bool,
) -> None:
    """The folder, by way of a model without memory of its own: weights stay in their files until they are written."""
    if dtype is not None:
        found.set_dtype(getattr(torch, dtype))
    backbone_weights = found.weights()
    with torch.device("meta"):
        backbone = found.spec.model_class(found.config).to(found.config.dtype)
    found.set_generation(backbone)
    backbone.generation_config.update(do_sample=False, **dict.fromkeys(_SAMPLING))  # greedy, as the official code
    model = RegionModel.attach(backbone, adapter=adapter, adapter_config=options, backbone_plugin=found.spec.name)
    try:
        ours = adapter_weights(encoder)
        model_folder.require_same_tensors(ours, model.adapter.state_dict(), source=found.folder)
        weights = {f"adapter.{key}": tensor for key, tensor in ours.items()}
        weights |= {f"backbone.{key}": tensor for key, tensor in backbone_weights.items()}
        model.save_pretrained(
            out, _processor(found, model), overwrite=overwrite, include_backbone=True, state_dict=weights
        )
    finally:
        model.detach()


def _processor(found: ForeignCheckpoint, model: RegionModel) -> RegionProcessor:
    try:
        return model.make_processor(found.processor, region_token=REGION_TOKEN)
    except PixelReferError as error:
        raise CheckpointError(f"'{found.name}' cannot be imported: {error}") from error
