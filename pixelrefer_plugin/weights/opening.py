"""`OpenedCheckpoint`: a model folder or a plain backbone that was found, and what to make a model and processor with.

Opening reads no weights. It knows folders, the hub and plugins by name; no model and no processor of ours.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoImageProcessor

from ..contracts.backbone import BackboneSpec
from ..conversation.token_ids import TokenIds, teach_tokens
from ..errors import CheckpointError, PluginError, refusing
from ..media.video import FrameSampling
from ..plugins import Kind, backbone_for, get_adapter, get_backbone, require_adapter_name
from . import hub, model_folder
from .loading import image_backend, load_backbone, load_config, load_native_processor
from .model_folder import Manifest


@dataclass(frozen=True)
class OpenedCheckpoint:
    """A model folder or a plain backbone, and what a model and a processor of it are made with.

    Attributes:
        name: what was opened: a folder or a hub id.
        adapter: name of the adapter.
        adapter_config: its options.
        backbone_plugin: name of the backbone plugin; None where the model type says which.
        region_token: the tokenizer's own token for object tokens; None where one is added.
        root: the model folder on disk; None for a plain backbone.
        manifest: what the model folder says; None for a plain backbone.
    """

    name: str | os.PathLike[str]
    adapter: str
    adapter_config: Any
    backbone_plugin: str | None
    region_token: str | None
    root: Path | None = None
    manifest: Manifest | None = None

    @property
    def sampling(self) -> FrameSampling | None:
        """Which frames of a video the folder's processor reads; None for a plain backbone."""
        return None if self.manifest is None else self.manifest.frame_sampling

    def load_processor(self, options: Mapping[str, Any]) -> tuple[Any, Any]:
        """The native processor and the backbone's config.

        Args:
            options: of `AutoProcessor.from_pretrained`.

        Raises:
            CheckpointError: files are missing or damaged.
        """
        if self.root is None or self.manifest is None:
            return load_native_processor(self.name, **options)
        files = self.root / model_folder.PROCESSOR_FOLDER
        if not files.is_dir():
            raise CheckpointError(
                f"Expected the processor's files at '{files}', found nothing. Is the folder complete?"
            )
        native, config = load_native_processor(files, **options)
        if image_backend(native) != self.manifest.image_backend:
            with refusing(CheckpointError, f"No image processor can be loaded from '{files}'"):
                native.image_processor = AutoImageProcessor.from_pretrained(
                    files, backend=self.manifest.image_backend, trust_remote_code=False
                )
        return native, config

    def load_backbone(self, backbone: Any, options: Mapping[str, Any]) -> Any:
        """The backbone, frozen by nobody yet.

        Args:
            backbone: where it is, or the loaded model, for a model folder; None: as the folder says.
            options: of its `from_pretrained`.

        Raises:
            CheckpointError: files or weights are missing or damaged, or it is of another type than the folder's.
        """
        if self.root is None or self.manifest is None:
            if backbone is not None:
                raise CheckpointError(f"backbone is for model folders, but '{self.name}' is a plain backbone itself.")
            return load_backbone(self.name, backbone_plugin=self.backbone_plugin, **options)
        if backbone is None:
            backbone = model_folder.locate_backbone(self.manifest.backbone_id, self.root)
            if self.manifest.backbone_id == model_folder.BACKBONE_FOLDER:  # written as safetensors
                options = {"use_safetensors": True, **options}
            if self.manifest.backbone_revision:
                options = {"revision": self.manifest.backbone_revision, **options}
        if not isinstance(backbone, nn.Module):
            backbone = load_backbone(backbone, backbone_plugin=self.manifest.backbone, **options)
        if getattr(backbone.config, "model_type", None) != self.manifest.model_type:
            raise CheckpointError(
                f"'{self.name}' was made for a backbone of type '{self.manifest.model_type}', "
                f"got '{backbone.config.model_type}'."
            )
        return backbone

    def token_ids(self, options: Mapping[str, Any]) -> TokenIds:
        """What the folder says; of a plain backbone, what its own processor's tokenizer makes of our tokens.

        Args:
            options: that say where files come from.
        """
        if self.manifest is not None:
            return self.manifest.tokens
        native, config = self.load_processor(hub.where_options(options))
        head = get_adapter(self.adapter).masks
        with refusing(CheckpointError, f"The tokenizer of '{self.name}' cannot be used"):
            return teach_tokens(
                native,
                rows=config.get_text_config().vocab_size,
                mask_token=None if head is None else head.token,
                region_token=self.region_token,
            )

    def require_tokens(self, tokens: TokenIds) -> None:
        """Refuse a folder whose processor has other ids than its model was saved with.

        Raises:
            CheckpointError: names both.
        """
        if self.manifest is not None and not self.manifest.tokens.agree_with(tokens):
            own = self.manifest.tokens
            raise CheckpointError(
                f"'{self.name}' is damaged: its {model_folder.MANIFEST_FILE} has the ids {own.placeholder} and "
                f"{own.mask} for placeholder and mask, its processor's files have {tokens.placeholder} and "
                f"{tokens.mask}."
            )


def open_checkpoint(
    name: str | os.PathLike[str],
    options: dict[str, Any],
    *,
    adapter: str | None = None,
    adapter_config: Any = None,
    backbone_plugin: str | None = None,
    region_token: str | None = None,
) -> OpenedCheckpoint:
    """Find a model folder, on disk or on the hub, or take `name` for a plain backbone's.

    Args:
        name: a folder, a hub id, or `builtin:NAME`.
        options: of the loading. `revision` is taken out where it is the folder's, not its backbone's.
        adapter: name of the adapter. A plain backbone needs one; for a model folder it must be the one it was made
            with.
        adapter_config: its options or the name of a preset, only for a plain backbone.
        backbone_plugin: name of the backbone plugin; for a model folder it must be its own.
        region_token: a token of the tokenizer's that stands for object tokens, only for a plain backbone.

    Raises:
        CheckpointError: the folder is damaged, of another version, or brings what was given.
        PluginError: a plain backbone without an adapter, or a plugin is not installed.
    """
    found = hub.find_model_folder(name, options)
    if found is None:
        require_backbone(name, backbone_plugin, options)
        return OpenedCheckpoint(name, require_adapter_name(adapter), adapter_config, backbone_plugin, region_token)
    model_folder.require_plain_files(found, within=True)
    manifest = model_folder.read_manifest(found, adapter=adapter)
    _refuse_brought(name, manifest, adapter_config, backbone_plugin, region_token)
    _require_plugins(name, manifest)
    return OpenedCheckpoint(
        name, manifest.adapter, manifest.adapter_config, manifest.backbone, manifest.region_token, found, manifest
    )


def require_backbone(
    name: str | os.PathLike[str], backbone_plugin: str | None = None, options: Mapping[str, Any] | None = None
) -> BackboneSpec:
    """Refuse what is no plain backbone that a plugin serves, before anything else is asked of it.

    Args:
        name: a folder, a hub id, or `builtin:NAME`.
        backbone_plugin: name of the backbone plugin; by default found by the model type.
        options: of the loading, of which those are read that say where files come from.

    Returns:
        What its plugin says of it.

    Raises:
        CheckpointError: no model is there.
        PluginError: no plugin serves it.
    """
    config = load_config(name, **hub.where_options(options or {}))
    return backbone_for(config.model_type, backbone_plugin)


def _refuse_brought(
    name: str | os.PathLike[str],
    manifest: Manifest,
    adapter_config: Any,
    backbone_plugin: str | None,
    region_token: str | None,
) -> None:
    """A model folder brings what its weights were trained with; anything else would not fit them."""
    if adapter_config is not None:
        raise CheckpointError(f"'{name}' brings its adapter's options; adapter_config is for a plain backbone.")
    if region_token is not None:
        raise CheckpointError(f"'{name}' brings its region token; region_token is for a plain backbone.")
    if backbone_plugin not in (None, manifest.backbone):
        raise CheckpointError(
            f"'{name}' brings its backbone plugin, '{manifest.backbone}', got '{backbone_plugin}'. Leave it out."
        )


def _require_plugins(name: str | os.PathLike[str], manifest: Manifest) -> None:
    """Refuse a folder whose plugins are not here, and say what to install where the folder knows."""
    _require_plugin(name, manifest, "adapter", manifest.adapter)
    _require_plugin(name, manifest, "backbone", manifest.backbone)


def _require_plugin(name: str | os.PathLike[str], manifest: Manifest, kind: Kind, plugin: str) -> None:
    try:
        get_adapter(plugin) if kind == "adapter" else get_backbone(plugin)
    except PluginError as error:
        if kind not in manifest.plugins:
            raise
        origin = manifest.plugins[kind]
        raise PluginError(
            f"'{name}' was made with the {kind} '{plugin}' of {origin['distribution']} {origin['version']}: "
            f"pip install '{origin['distribution']}>={origin['version']}'. {error}"
        ) from error
