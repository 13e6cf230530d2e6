"""A backbone's checkpoint in another layout than transformers' own: found, checked, and made native.

What differs is the backbone plugin's to say (`CheckpointLayout`). It knows keys and shapes; no adapter.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..contracts.backbone import BackboneSpec, CheckpointLayout
from ..errors import CheckpointError, PluginError, refusing, shown
from ..plugins import backbone_for
from . import hub, model_folder
from .tensors import open_weights, read_json
from .unreadable import own_code_refusal

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class ForeignCheckpoint:
    """Such a checkpoint, on disk.

    Attributes:
        name: what the user called it, for messages.
        folder: where its files are.
        data: what its `config.json` holds.
        tower_folder: where the vision tower's own files are; None where there are none, or none are needed.
        spec: the backbone that serves it.
        layout: how it is read.
    """

    name: str
    folder: Path
    data: Mapping[str, Any]
    tower_folder: Path | None
    spec: BackboneSpec
    layout: CheckpointLayout

    @cached_property
    def _weights(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The backbone's weights under their native keys, and what is not the backbone's under its own."""
        held = open_weights(self.folder)
        prefix = self.layout.tower_prefix
        if self.tower_folder is not None and not any(key.startswith(prefix) for key in held):
            held |= {f"{prefix}{key}": tensor for key, tensor in open_weights(self.tower_folder).items()}
        own: dict[str, Tensor] = {}
        others: dict[str, Tensor] = {}
        for key, tensor in held.items():
            native = self._native_key(key)
            if native is None:
                others[key] = self._float(key, tensor)
            elif native in own:
                raise CheckpointError(f"'{self.name}' holds '{native}' twice, once as '{key}'.")
            else:
                own[native] = self._float(key, tensor)
        return own, others

    @property
    def others(self) -> dict[str, Tensor]:
        """Weights that are not the backbone's, under their own keys."""
        return self._weights[1]

    @cached_property
    def processor(self) -> Any:
        """The native processor."""
        beside = self.tower_folder or self.folder
        preprocessing = read_json(beside / "preprocessor_config.json")
        with _unusable(self.name, "no processor"):
            return self.layout.make_processor(self.folder, self.data, preprocessing)

    @cached_property
    def config(self) -> Any:
        """The native config. Sizes are those of the weights, and the head is tied where the weights say so."""
        own = self._weights[0]
        shapes = {key: tuple(tensor.shape) for key, tensor in own.items()}
        tower = read_json(self.tower_folder / "config.json") if self.tower_folder else None
        processor = self.processor
        with _unusable(self.name, "no config"):
            config = self.layout.make_config(self.data, shapes, tower, processor)
        tied = all(self._is_tied(head, embedding) for head, embedding in self._tied_keys())
        for part in (config, config.get_text_config()):
            part.tie_word_embeddings = tied
            part.dtype = next(own[embedding].dtype for _, embedding in self._tied_keys())
        return config

    def weights(self) -> dict[str, Tensor]:
        """The backbone's weights under their native keys, exactly those that its class has, of one dtype.

        Raises:
            CheckpointError: some are missing or left over, or of another shape.
        """
        import torch

        config = self.config
        with _unusable(self.name, "no model"), torch.device("meta"):
            expected = self.spec.model_class(config).state_dict()
        own = dict(self._weights[0])
        if config.tie_word_embeddings:
            for head, _ in self._tied_keys():
                own.pop(head, None)
                expected.pop(head)
        model_folder.require_same_tensors(own, expected, source=self.folder)
        return {key: tensor.to(config.dtype) for key, tensor in own.items()}

    def set_dtype(self, dtype: torch.dtype) -> None:
        """What `weights` are from now on, in place of the embedding's own."""
        for part in (self.config, self.config.get_text_config()):
            part.dtype = dtype

    def load(self, **options: Any) -> Any:
        """The backbone itself, of its native class.

        Args:
            **options: of its `from_pretrained`.
        """
        config, weights = self.config, self.weights()
        with _unusable(self.name, "no model"):
            model = self.spec.model_class.from_pretrained(None, config=config, state_dict=weights, **options)
        model.name_or_path = model.config.name_or_path = self.name
        self.set_generation(model)
        return model

    def set_generation(self, model: Any) -> None:
        """How the checkpoint says that its model generates."""
        from transformers import GenerationConfig

        if (self.folder / "generation_config.json").is_file():
            with _unusable(self.name, "no generation config"):
                model.generation_config = GenerationConfig.from_pretrained(self.folder)
        if model.generation_config.pad_token_id is None:
            model.generation_config.pad_token_id = self.processor.tokenizer.pad_token_id

    def _native_key(self, key: str) -> str | None:
        for pattern, replacement in self.layout.key_mapping:
            native, matches = re.subn(rf"\A(?:{pattern})", replacement, key)
            if matches:
                return native
        return None

    def _float(self, key: str, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point() or tensor.element_size() == 1:  # float8 is nothing without its scales
            raise CheckpointError(
                f"'{self.name}': '{key}' is of type {tensor.dtype}, expected floating point of 16 bits or more. "
                "Quantized checkpoints cannot be read: take the full one."
            )
        return tensor

    def _tied_keys(self) -> list[tuple[str, str]]:
        """The keys of head and embedding."""
        return list((self.spec.model_class._tied_weights_keys or {}).items())

    def _is_tied(self, head: str, embedding: str) -> bool:
        """Whether head and embedding are one: the weights know better than the config."""
        own = self._weights[0]
        if embedding not in own:
            raise CheckpointError(f"'{self.name}' holds no '{embedding}'. Is it complete?")
        if head in own:
            return bool(own[head].equal(own[embedding]))
        if self.data.get("tie_word_embeddings"):
            return True
        raise CheckpointError(
            f"'{self.name}' says that its head is not tied to its embedding, but holds no '{head}'. Is it complete?"
        )


def _unusable(name: str, what: str) -> AbstractContextManager[None]:
    """Values in a checkpoint's files that transformers stumbles over, in whichever way, as one error."""
    can = f"{what.capitalize()} can be made of what the files of '{name}' say"
    return refusing(CheckpointError, can, " Are they damaged? Download them again.")


def find_foreign(
    name_or_path: str | os.PathLike[str],
    *,
    backbone_plugin: str | None = None,
    vision_tower: str | os.PathLike[str] | None = None,
    where: Mapping[str, Any],
) -> ForeignCheckpoint | None:
    """The checkpoint of that name, where it is in another layout than transformers' own.

    Args:
        name_or_path: a folder or hub id.
        backbone_plugin: name of the backbone plugin; by default found by the model type.
        vision_tower: where the vision tower's own folder is, if not where `config.json` says.
        where: options that say where files of the hub come from.

    Returns:
        None where the model type is one that transformers knows.

    Raises:
        PluginError: no plugin serves its model type.
        CheckpointError: there is no readable `config.json`, or no vision tower.
    """
    from transformers import CONFIG_MAPPING, PreTrainedConfig

    name = os.fspath(name_or_path)
    model_folder.require_plain_files(name)
    with refusing(CheckpointError, f"No model can be loaded from '{name}'"):  # whichever JSON it holds
        data, _ = PreTrainedConfig.get_config_dict(name, **where)
    if not isinstance(data, dict):
        raise CheckpointError(f"The config.json of '{name}' must hold a JSON object, got {type(data).__name__}.")
    model_type = str(data.get("model_type") or "")
    if model_type in CONFIG_MAPPING or not (model_type or data.get("auto_map")):
        require_bounded(data, name)  # those of another layout are compared with the weights
        return None
    spec = _spec_of(name, data, backbone_plugin)
    if model_type not in spec.layouts:
        raise own_code_refusal(name, data) or CheckpointError(
            f"'{name}' is of type '{model_type}', which backbone '{spec.name}' does not read. It reads: "
            f"{', '.join((*spec.model_types, *spec.layouts))}."
        )
    layout = spec.layouts[model_type]
    folder = hub.checkpoint_folder(name, where)
    tower = vision_tower or layout.vision_tower(data)
    tower_folder = None
    if tower:
        asked = vision_tower is not None
        tower_folder = _tower_folder(os.fspath(tower), folder, layout, asked=asked, where=where)
    return ForeignCheckpoint(name, folder, data, tower_folder, spec, layout)


def _spec_of(name: str, data: Mapping[str, Any], backbone_plugin: str | None) -> BackboneSpec:
    """The backbone that reads a layout; where none does and the checkpoint brings code for it, that is what is said."""
    try:
        return backbone_for(str(data.get("model_type") or ""), backbone_plugin)
    except PluginError as error:
        refusal = own_code_refusal(name, data)
        if refusal is None or backbone_plugin is not None:
            raise
        raise refusal from error


_MOST_LAYERS, _MOST = 2**12, 2**31


def require_bounded(values: Mapping[str, Any], source: str) -> None:
    """Refuse sizes that no model has, and that would be obeyed before a weight is read.

    Raises:
        CheckpointError: names the field.
    """
    for name, value in values.items():
        if isinstance(value, Mapping):
            require_bounded(value, source)
        counts = str(name) == "depth" or ("num" in str(name) and ("layer" in str(name) or "head" in str(name)))
        most = _MOST_LAYERS if counts else _MOST
        if isinstance(value, int) and abs(value) > most:
            raise CheckpointError(f"The config of '{source}' says {shown(name)}: {shown(value)}, above {most:,}.")


def _tower_folder(
    tower: str, folder: Path, layout: CheckpointLayout, *, asked: bool, where: Mapping[str, Any]
) -> Path | None:
    """Where the vision tower's files are: as named, in the checkpoint's folder, beside it, or on the hub.

    A checkpoint that holds the tower's weights may do without its folder.
    """
    last = Path(tower).name
    places = [Path(tower)] if asked else [folder / tower, folder / last, folder.parent / last, Path(tower)]
    for place in places:
        if os.path.isfile(place / "config.json"):  # whatever a config names
            model_folder.require_plain_files(place)
            return place
    if any(key.startswith(layout.tower_prefix) for key in open_weights(folder)) and not asked:
        return None
    if not hub.is_path(tower):
        return hub.checkpoint_folder(tower, {**where, "revision": None})
    if asked:
        raise CheckpointError(f"Expected the vision tower's folder, with its config.json, at '{tower}', found none.")
    raise CheckpointError(
        f"'{folder}' names the vision tower '{tower}', which is neither in it nor beside it. Say where its folder is: "
        "--vision-tower PATH, in Python vision_tower=PATH."
    )
