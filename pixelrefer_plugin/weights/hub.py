"""Model folders on the Hugging Face hub: found, fetched, uploaded with a card. It knows files and no model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from . import model_folder

# Options of transformers' `from_pretrained` that say where files come from.
_WHERE = ("revision", "cache_dir", "token", "local_files_only")


def where_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the loading options that say where files come from."""
    return {key: options[key] for key in _WHERE if key in options}


def without_where(options: Mapping[str, Any]) -> dict[str, Any]:
    """The other ones."""
    return {key: value for key, value in options.items() if key not in _WHERE}


def is_path(name_or_path: str) -> bool:
    """Whether it can only be a path: an id is NAME or OWNER/NAME."""
    return name_or_path.startswith(("/", ".", "~")) or name_or_path.count("/") > 1


def find_model_folder(name_or_path: str | os.PathLike[str], options: dict[str, Any]) -> Path | None:
    """The model folder of that name, on disk; fetched when it is on the hub.

    Args:
        name_or_path: a path, or a repository on the hub.
        options: of the loading. `revision` is taken out where it is the folder's, not its backbone's.

    Returns:
        None where it is not one of our folders, but a plain backbone, or nothing at all.

    Raises:
        CheckpointError: nothing of that name is on this machine, and the hub cannot be reached.
    """
    from huggingface_hub import hf_hub_download, snapshot_download, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    if model_folder.is_model_folder(name_or_path):
        return Path(name_or_path)
    if Path(name_or_path).exists():
        return None
    where = where_options(options)
    try:
        hf_hub_download(str(name_or_path), model_folder.MANIFEST_FILE, **where)
        folder = snapshot_download(str(name_or_path), **where)
    except LocalEntryNotFoundError as error:
        cache = {key: where[key] for key in ("cache_dir", "revision") if key in where}
        if try_to_load_from_cache(str(name_or_path), "config.json", **cache) is None:
            # Loading it as a plain backbone would try to reach the hub for minutes, a file after the other.
            raise CheckpointError(
                f"No model can be loaded from '{name_or_path}': no such folder is here, nor is that name in the hub's "
                "cache, and the hub cannot be reached."
            ) from error
        return None
    except (HFValidationError, OSError):
        return None  # loading it as a plain backbone says what is the matter
    options.pop("revision", None)
    return Path(folder)


def upload(folder: Path, repo_id: str, *, private: bool | None, token: str | None, commit_message: str) -> str:
    """Upload a model folder and a card for it; returns the address of the commit.

    Raises:
        CheckpointError: the hub refuses, or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, HTTPError  # type: ignore[attr-defined]  # httpx's, whichever

    write_card(folder, repo_id)
    api = HfApi(token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=commit_message))
    except (HFValidationError, HTTPError, OSError) as error:
        raise CheckpointError(f"'{repo_id}' cannot be uploaded: {' '.join(str(error).split())}") from error


def write_card(folder: Path, repo_id: str) -> None:
    """Write `README.md`: what the model is, what it was made from, how to use it."""
    from huggingface_hub import ModelCardData

    manifest = model_folder.read_manifest(folder)
    base = _public_id(manifest.backbone_id)
    gives_masks = manifest.tokens.mask is not None
    tags = ["image-segmentation"] if gives_masks else []
    data = ModelCardData(
        library_name="pixelrefer-plugin",
        base_model=base,
        pipeline_tag="image-text-to-text",
        tags=["region-referring", *tags, manifest.adapter, manifest.backbone],
    )
    made_of = f"adapter `{manifest.adapter}`" + (" and LoRA" if manifest.lora else "")
    backbone = f"`{base}`" if base else f"a backbone of type `{manifest.model_type}`"
    lines = [
        f"---\n{data.to_yaml()}\n---",
        f"# {repo_id.rpartition('/')[2]}\n",
        f"Answers questions about regions of pictures and videos{', and gives masks of what it names' * gives_masks}. "
        "Made with pixelrefer-plugin:",
        f"{made_of} on {backbone}.\n",
        "```python",
        "from pixelrefer_plugin import load\n",
        f'model, processor = load("{repo_id}")',
        "```\n",
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def _public_id(backbone_id: str) -> str | None:
    """The backbone's hub id; a folder of this machine, or one inside the model folder, means nothing to others."""
    is_id = backbone_id.count("/") == 1 and not os.path.isabs(backbone_id)
    return backbone_id if is_id else None


_SMALL_FILES = ("*.json", "*.txt", "*.model", "*.jinja")


def checkpoint_folder(name_or_path: str, where: Mapping[str, Any]) -> Path:
    """The folder of a checkpoint of somebody else's, on disk; fetched when it is on the hub.

    Args:
        name_or_path: a folder, or a repository on the hub. Of its weights the safetensors are fetched, or torch's
            files where it has no others.
        where: options that say where files come from.

    Raises:
        CheckpointError: nothing of that name is there.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, HTTPError  # type: ignore[attr-defined]  # httpx's, whichever

    if Path(name_or_path).is_dir():
        return Path(name_or_path)
    try:
        folder = Path(snapshot_download(name_or_path, allow_patterns=[*_SMALL_FILES, "*.safetensors"], **where))
        if not any(folder.glob("*.safetensors")):
            snapshot_download(name_or_path, allow_patterns=["pytorch_model*.bin"], **where)
    except (HFValidationError, HTTPError, OSError) as error:
        raise CheckpointError(
            f"'{name_or_path}' is no folder and cannot be fetched: {' '.join(str(error).split())}"
        ) from error
    return folder
