"""Loads plain backbones and their processors by transformers' native classes. Code from the hub is never run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from safetensors import SafetensorError
from transformers import AutoConfig, AutoProcessor

from ..errors import CheckpointError
from ..plugins import adapter_layouts, backbone_for
from . import model_folder
from .foreign import find_foreign
from .hub import where_options, without_where


def load_backbone(name_or_path: str | os.PathLike[str], *, backbone_plugin: str | None = None, **options: Any) -> Any:
    """Load a plain backbone with the native class that its plugin names. Code from the hub is never run.

    Args:
        name_or_path: hub id, folder, or `builtin:NAME` for one that this package ships; in transformers' own layout,
            or in another that the plugin names.
        backbone_plugin: name of the backbone plugin; by default found by the checkpoint's model type.
        **options: options of its `from_pretrained`; `dtype` defaults to the checkpoint's own.

    Raises:
        PluginError: no plugin serves this kind of model.
        CheckpointError: nothing loadable is there, or weights are missing; in a foreign layout, also where some are
            left over. Of a native checkpoint, as with transformers itself, what is left over is not read.
    """
    name_or_path = model_folder.resolved(name_or_path)
    options.setdefault("dtype", "auto")
    foreign = find_foreign(name_or_path, backbone_plugin=backbone_plugin, where=where_options(options))
    if foreign is not None:
        layout = adapter_layouts().get(foreign.data["model_type"])
        model_folder.require_no_others(foreign.others, source=name_or_path, layout=layout)
        return foreign.load(**without_where(options))
    spec = backbone_for(_native_config(name_or_path, options).model_type, backbone_plugin)
    try:
        model, report = spec.model_class.from_pretrained(name_or_path, output_loading_info=True, **options)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"The weights in '{name_or_path}' cannot be read: {error}") from error
    # transformers fills what is missing with random weights and only warns.
    model_folder.require_no_missing(report["missing_keys"], source=name_or_path)
    return model


def load_config(name_or_path: str | os.PathLike[str], **options: Any) -> Any:
    """Load a plain backbone's native config.

    Args:
        name_or_path: as for `load_backbone`.
        **options: those of its `from_pretrained` that say where files come from.

    Raises:
        PluginError: no plugin serves this kind of model.
        CheckpointError: nothing loadable is there.
    """
    name_or_path = model_folder.resolved(name_or_path)
    foreign = find_foreign(name_or_path, where=where_options(options))
    return _native_config(name_or_path, options) if foreign is None else foreign.config


def _native_config(name_or_path: str, options: Mapping[str, Any]) -> Any:
    try:
        return AutoConfig.from_pretrained(name_or_path, **where_options(options))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"No model can be loaded from '{name_or_path}': {error}") from error


def load_native_processor(name_or_path: str | os.PathLike[str], **options: Any) -> tuple[Any, Any]:
    """Load a backbone's own processor and its config.

    Args:
        name_or_path: hub id, folder, or `builtin:NAME`; as for `load_backbone`.
        **options: options of `AutoProcessor.from_pretrained`.

    Raises:
        PluginError: no plugin serves this kind of model.
        CheckpointError: files are missing or damaged.
    """
    name_or_path = model_folder.resolved(name_or_path)
    foreign = find_foreign(name_or_path, where=where_options(options))
    if foreign is not None:
        return foreign.processor, foreign.config
    try:
        native = AutoProcessor.from_pretrained(name_or_path, **options)
        return native, AutoConfig.from_pretrained(name_or_path, **where_options(options))
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"No processor can be loaded from '{name_or_path}': {error}") from error


def image_backend(native: Any) -> str:
    """`pil` or `torchvision`: which of transformers' two image processors `native` holds."""
    return "pil" if type(native.image_processor).__name__.endswith("Pil") else "torchvision"
