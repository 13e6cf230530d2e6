"""Loads plain backbones and their processors by transformers' native classes. Code from the hub is never run."""

from __future__ import annotations

import importlib.util
import os
import pickle
from collections.abc import Mapping
from typing import Any

from safetensors import SafetensorError
from transformers import AutoConfig, AutoProcessor

from ..errors import CheckpointError, PixelReferError, did_you_mean, refusing, shown
from ..plugins import adapter_layouts, backbone_for
from . import model_folder
from .foreign import find_foreign, require_bounded
from .hub import where_options, without_where
from .unreadable import missing_of_processor, require_config, require_weights


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
    require_loadable(options)
    name_or_path = _resolved(name_or_path)
    options.setdefault("dtype", "auto")
    foreign = find_foreign(name_or_path, backbone_plugin=backbone_plugin, where=where_options(options))
    if foreign is not None:
        layout = adapter_layouts().get(foreign.data["model_type"])
        model_folder.require_no_others(foreign.others, source=name_or_path, layout=layout)
        return foreign.load(**without_where(options))
    spec = backbone_for(_native_config(name_or_path, options).model_type, backbone_plugin)
    require_weights(name_or_path)
    cannot = f"The backbone in '{name_or_path}' cannot be loaded"
    with refusing(CheckpointError, cannot):
        try:
            model, report = spec.model_class.from_pretrained(name_or_path, output_loading_info=True, **options)
        except pickle.UnpicklingError as error:
            held = "a file holds something else than tensors, which was not run. Use safetensors."
            raise CheckpointError(f"The weights in '{name_or_path}' cannot be read: {held}") from error
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"The weights in '{name_or_path}' cannot be read: {error}") from error
        except ImportError as error:
            needs = f"{cannot} without a package: {error}. Install it, or leave the option out."
            raise CheckpointError(needs) from error
    # transformers fills what is missing with random weights and only warns.
    model_folder.require_no_missing(report["missing_keys"], source=name_or_path)
    if model.can_generate():
        require_bounded(model.generation_config.to_dict(), os.fspath(name_or_path))
    return model


def require_loadable(options: Mapping[str, Any]) -> None:
    """Refuse options of `from_pretrained` that cannot hold for any backbone, before anything is loaded.

    Args:
        options: those that a backbone is to be loaded with.

    Raises:
        CheckpointError: they would run code from the hub, name an implementation of attention that does not exist, or
            need a package that is not installed.
    """
    if options.get("trust_remote_code"):
        raise CheckpointError("Code that lies in a checkpoint is never run here. Leave trust_remote_code out.")
    given = options.get("attn_implementation")
    for name in given.values() if isinstance(given, Mapping) else [given]:
        if name is not None:
            _require_attention(name)
    quantization = options.get("quantization_config")
    needs = ("load_in_4bit", "load_in_8bit")
    is_bnb = any(options.get(key) or getattr(quantization, key, None) for key in needs)
    is_bnb = is_bnb or (isinstance(quantization, Mapping) and any(quantization.get(key) for key in needs))
    if is_bnb and importlib.util.find_spec("bitsandbytes") is None:
        raise CheckpointError("A backbone in 4 or 8 bits needs bitsandbytes: pip install bitsandbytes.")


_FLASH = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}


def _require_attention(name: Any) -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    known = ["eager", *ALL_ATTENTION_FUNCTIONS.valid_keys()]
    if isinstance(name, str) and "/" in name:
        raise CheckpointError(
            f"The attention implementation {shown(name)} is code from the hub, which is never run here. Take one of: "
            f"{', '.join(each for each in known if '|' not in each)}."
        )
    if name not in known:
        hint = did_you_mean(name, known, cutoff=0.5)
        there = ", ".join(each for each in known if "|" not in each)
        raise CheckpointError(f"There is no attention implementation {shown(name)}, only {there}.{hint}")
    package = _FLASH.get(name.rpartition("|")[2])
    if package is not None and not any(map(importlib.util.find_spec, (package, "kernels"))):
        raise CheckpointError(
            f"The attention implementation '{name}' needs the package {package.replace('_', '-')}, which is not "
            "installed: pip install flash-attn. Without it, take 'sdpa'."
        )


def saved_quantized(name_or_path: str | os.PathLike[str]) -> bool:
    """Whether a checkpoint says of itself that its weights are quantized, as far as its files are here."""
    try:
        config = _native_config(os.fspath(name_or_path), {"local_files_only": True})
    except PixelReferError:
        return False
    return getattr(config, "quantization_config", None) is not None


def load_config(name_or_path: str | os.PathLike[str], **options: Any) -> Any:
    """Load a plain backbone's native config.

    Args:
        name_or_path: as for `load_backbone`.
        **options: those of its `from_pretrained` that say where files come from.

    Raises:
        PluginError: no plugin serves this kind of model.
        CheckpointError: nothing loadable is there.
    """
    name_or_path = _resolved(name_or_path)
    foreign = find_foreign(name_or_path, where=where_options(options))
    return _native_config(name_or_path, options) if foreign is None else foreign.config


def _resolved(name_or_path: str | os.PathLike[str]) -> str:
    """A path or hub id, known to be of a model as far as it is here."""
    name = model_folder.resolved(name_or_path)
    require_config(name)
    return name


_NEVER_RUN = " Code that lies in a checkpoint is never run."


def _native_config(name_or_path: str, options: Mapping[str, Any]) -> Any:
    with refusing(CheckpointError, f"No model can be loaded from '{name_or_path}'", _NEVER_RUN):
        return _read_config(name_or_path, options)


def _read_config(name_or_path: str, options: Mapping[str, Any]) -> Any:
    config = AutoConfig.from_pretrained(name_or_path, trust_remote_code=False, **where_options(options))
    if "/" in str(getattr(config, "_attn_implementation", "")):
        raise CheckpointError(
            f"The config of '{name_or_path}' asks for attention of code from the hub, "
            f"{shown(config._attn_implementation)}, which is never run here."
        )
    return config


def load_native_processor(name_or_path: str | os.PathLike[str], **options: Any) -> tuple[Any, Any]:
    """Load a backbone's own processor and its config.

    Args:
        name_or_path: hub id, folder, or `builtin:NAME`; as for `load_backbone`.
        **options: options of `AutoProcessor.from_pretrained`.

    Raises:
        PluginError: no plugin serves this kind of model.
        CheckpointError: files are missing or damaged.
    """
    name_or_path = _resolved(name_or_path)
    foreign = find_foreign(name_or_path, where=where_options(options))
    if foreign is not None:
        return foreign.processor, foreign.config
    require_loadable(options)
    options = {**options, "trust_remote_code": False}
    note = missing_of_processor(name_or_path) or _NEVER_RUN
    with refusing(CheckpointError, f"No processor can be loaded from '{name_or_path}'", note):
        native = AutoProcessor.from_pretrained(name_or_path, **options)
        config = _read_config(name_or_path, options)
        _require_processor_of(config, native)
        return native, config


def _require_processor_of(config: Any, native: Any) -> None:
    """Refuse a processor of another kind of model: files may name any that transformers has.

    Raises:
        CheckpointError: names both.
    """
    from transformers.models.auto import processing_auto

    expected = vars(processing_auto)["PROCESSOR_MAPPING_NAMES"].get(config.model_type)
    parts = [name for name in ("tokenizer", "image_processor") if getattr(native, name, None) is None]
    if (expected and type(native).__name__ != expected) or parts:
        raise CheckpointError(
            f"its files make a {type(native).__name__}{f' without {parts[0]}' if parts else ''}, which is not the "
            f"processor of a model of type '{config.model_type}'{f', {expected}' if expected else ''}"
        )


def image_backend(native: Any) -> str:
    """`pil` or `torchvision`: which of transformers' two image processors `native` holds."""
    return "pil" if type(native.image_processor).__name__.endswith("Pil") else "torchvision"
