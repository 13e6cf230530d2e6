"""Why a folder or a repository is no checkpoint that can be loaded, and what to take instead. It knows file names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, shown
from ..json_text import read_json
from ..plugins import nearest_served, published_models

_NATIVE_SUFFIX = "-hf"
"""What ends the names of many checkpoints that were converted to the layout of transformers' own class."""

_IMAGE_PROCESSOR = ("preprocessor_config.json", "processor_config.json")
_TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tokenizer_config.json")
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json")
_MOST_NAMED = 4
_CODE = "Code that lies beside weights is never run here."


# -- files that are missing --------------------------------------------------------------------------------


def require_config(name: str) -> None:
    """Refuse a folder without `config.json`, and say what it holds instead; what the hub has is known when it is read.

    Raises:
        CheckpointError: it is none of a model.
    """
    folder = Path(name)
    if not folder.is_dir() or (folder / "config.json").exists():
        return
    start = f"No model can be loaded from '{name}': it has no config.json"
    if (folder / "adapter_config.json").is_file():
        raise CheckpointError(
            f"{start}, but a LoRA of PEFT{_base_of(folder / 'adapter_config.json')}. Merge it into its model, save the "
            "whole with its processor, and name that folder."
        )
    if gguf := _found(folder, ("*.gguf",)):
        raise CheckpointError(
            f"{start}, but weights in GGUF ({_named(gguf)}), which are not read. Take the checkpoint in safetensors."
        )
    if parts := _found(folder, (*_IMAGE_PROCESSOR, *_TOKENIZER)):
        raise CheckpointError(
            f"{start}, so it is no model: what is there is a processor ({_named(parts)}). Name the folder that has the "
            "model's config.json and weights too."
        )
    raise CheckpointError(f"{start}, so it is no model. Is it the right folder?")


def require_weights(name: str) -> None:
    """Refuse a folder with a config and no weights.

    Raises:
        CheckpointError: says what is there.
    """
    folder = Path(name)
    if not folder.is_dir() or _found(folder, _WEIGHTS):
        return
    there = _found(folder, ("*",))
    raise CheckpointError(
        f"The weights in '{name}' cannot be read: there are none. Expected model.safetensors, or several with an "
        f"index, found {_named(there)}. Is the download complete?"
    )


def missing_of_processor(name: str) -> str:
    """What a folder lacks of a processor, for the end of a message; empty where nothing is seen to be missing."""
    folder = Path(name)
    if not folder.is_dir():
        return ""
    parts = {"an image processor": _IMAGE_PROCESSOR, "a tokenizer": _TOKENIZER}
    missing = [f"{what} ({files[0]})" for what, files in parts.items() if not _found(folder, files)]
    if not missing:
        return ""
    return (
        f" The folder has no files of {' and of '.join(missing)}. Save the processor beside the model: "
        f"AutoProcessor.from_pretrained(ID).save_pretrained({name!r})."
    )


def _base_of(path: Path) -> str:
    try:
        base = read_json(path, file_names=True)["base_model_name_or_path"]
    except (OSError, ValueError, TypeError, KeyError):
        return ""
    return f" for {shown(base)}" if base else ""


def _found(folder: Path, patterns: Sequence[str]) -> list[str]:
    return sorted({each.name for pattern in patterns for each in folder.glob(pattern)})


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return (", ".join(names[:_MOST_NAMED]) or "nothing") + more


# -- code of its own ---------------------------------------------------------------------------------------


def own_code_refusal(name: str, data: Mapping[str, Any]) -> CheckpointError | None:
    """What to say of a checkpoint whose config names code of its own, where no class of transformers' reads it.

    Args:
        name: a folder or hub id.
        data: what its `config.json` holds.

    Returns:
        None where it names none.
    """
    told = data.get("auto_map")
    if not told:
        return None
    files = list(dict.fromkeys(_files_of(told)))
    kind = f"no class of its type {shown(data['model_type'])}" if data.get("model_type") else "no class for it"
    return CheckpointError(
        f"No model can be loaded from '{name}': it needs code of its own{f' ({_named(files)})' if files else ''}, "
        f"which auto_map in its config.json names; transformers {metadata.version('transformers')} has {kind}. {_CODE} "
        f"{_instead_of(name)}{nearest_served(data.get('model_type'))}"
    )


def _files_of(auto_map: Any) -> Iterator[str]:
    """The modules that `auto_map` names: `module.Class`, `owner/name--module.Class`, or lists of such."""
    values = auto_map.values() if isinstance(auto_map, Mapping) else [auto_map]
    for value in values:
        for each in value if isinstance(value, list | tuple) else [value]:
            if isinstance(each, str) and "." in each:
                yield f"{each.rpartition('--')[2].rpartition('.')[0]}.py"


def _instead_of(name: str) -> str:
    """Which checkpoint to take."""
    known = {_stem(each): each for each in published_models()}
    if twin := known.get(_stem(name)):
        return f"Take the same model in transformers' own layout: '{twin}'."
    native = f"{name.rstrip('/')}{_NATIVE_SUFFIX}"
    return (
        "Take the same model in the layout of transformers' own class, whose name often ends in "
        f"'{_NATIVE_SUFFIX}', as '{native}' would."
    )


def _stem(name: str) -> str:
    """What checkpoints of one model have in common in their names."""
    last = name.rstrip("/").rpartition("/")[2].lower()
    return last.removesuffix(_NATIVE_SUFFIX)
