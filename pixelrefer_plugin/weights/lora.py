"""LoRA on a backbone, by PEFT: put on, saved, loaded, folded in, and taken off without a trace.

Its files are PEFT's own. Their keys hold module paths, which transformers has renamed before; a model folder records
where each part of the backbone was, and loading takes keys to where it is now. A key that leads nowhere is an error:
PEFT alone would only warn and leave LoRA at zero. It knows the backbone's spec; no adapter and no regions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..contracts.backbone import BackboneSpec
from ..errors import AttachError, CheckpointError, refusing, shown
from ..tokens.devices import bring_weights, device_of, is_offloaded, offloads, send_weights_away, with_weights
from . import model_folder
from .lora_config import read_lora_config

_PREFIX = "base_model.model."  # of every key in PEFT's files
_PARTS = ("token_embedding", "projector", "vision_tower", "decoder")  # one may lie inside another: innermost first
_HEAD = "head"


class Lora:
    """PEFT's wrapper around a backbone's layers, and what it added to the backbone."""

    def __init__(self, backbone: Any, config: Any) -> None:
        """Put LoRA on; under gradient checkpointing PEFT hooks the embeddings too, which is remembered."""
        from peft import get_peft_model

        hooks_before = {id(module): set(module._forward_hooks) for module in backbone.modules()}
        attributes_before = set(vars(backbone))
        self._backbone = backbone
        with _ready_to_wrap(backbone, config):
            self._wrapped = get_peft_model(backbone, config)
        for module in list(backbone.modules()):
            _bring_token_table(module)
        self._added_hooks = [
            (module, key)
            for module in backbone.modules()
            for key in set(module._forward_hooks) - hooks_before.get(id(module), set())
        ]
        self._added_attributes = set(vars(backbone)) - attributes_before
        self._require_values()

    @classmethod
    def add(
        cls,
        backbone: Any,
        spec: BackboneSpec,
        *,
        scopes: Sequence[str],
        targets: Sequence[str] | None,
        token_ids: Sequence[int],
        r: int,
        alpha: int,
        dropout: float,
    ) -> Lora:
        """Fresh LoRA, which changes nothing yet. The arguments are those of `RegionModel.add_lora`."""
        from peft import LoraConfig

        config = LoraConfig(
            r=r,
            lora_alpha=alpha,
            lora_dropout=dropout,
            target_modules=_chosen_layers(backbone, spec, scopes, targets) if scopes or not token_ids else _no_layers(),
            trainable_token_indices=_token_rows(backbone, spec, token_ids),
        )
        with refusing(AttachError, f"LoRA cannot be added in scopes {list(scopes)}"):
            return cls(backbone, config)

    @classmethod
    def load(cls, backbone: Any, spec: BackboneSpec, folder: Path, *, paths: Mapping[str, str]) -> Lora:
        """LoRA from a model folder.

        Args:
            backbone: the model to put it on.
            spec: its plugin's spec.
            folder: with PEFT's files.
            paths: where the parts of the backbone were when it was saved.

        Raises:
            CheckpointError: files are missing or damaged, or a layer is not in this backbone.
        """
        source = folder / model_folder.LORA_FILE
        weights = _moved(model_folder.read_tensors(source), paths, module_paths(backbone, spec))
        config = read_lora_config(folder, weights)
        layers, rows = _layers_of(weights, ".lora_"), _layers_of(weights, ".token_adapter.")
        _require_layers(backbone, [*layers, *rows], source)
        config.target_modules = layers or _no_layers()
        if config.trainable_token_indices:
            ids = next(iter(config.trainable_token_indices.values()))
            with _of_folder(folder):
                _require_rows(backbone, spec, ids)
            config.trainable_token_indices = {layer: list(ids) for layer in rows}
        cannot = f"LoRA in '{folder}' cannot be put on this backbone"
        with refusing(CheckpointError, cannot), _of_folder(folder):
            lora = cls(backbone, config)
        try:
            with refusing(CheckpointError, cannot):
                lora._set(weights, source)
        except BaseException:
            lora.remove()
            raise
        return lora

    def load_weights(self, spec: BackboneSpec, folder: Path, *, paths: Mapping[str, str]) -> None:
        """Weights of the same layers, from a model folder, in place of the present ones."""
        source = folder / model_folder.LORA_FILE
        self._set(_moved(model_folder.read_tensors(source), paths, module_paths(self._backbone, spec)), source)

    def save(self, folder: Path, state_dict: Mapping[str, Tensor] | None = None) -> None:
        """Write PEFT's files; `state_dict` holds the backbone's gathered weights where they are spread out."""
        gathered = None if state_dict is None else {_PREFIX + key: tensor for key, tensor in state_dict.items()}
        self._wrapped.save_pretrained(folder, save_embedding_layers=False, state_dict=gathered)

    def merge(self) -> None:
        """Fold LoRA into the backbone's own weights.

        Raises:
            AttachError: some of these are offloaded.
        """
        if is_offloaded(self._backbone):
            raise AttachError(
                "LoRA cannot be merged into a backbone that is offloaded to the CPU or the disk. Load the folder "
                "without device_map, as `pixelrefer merge` does."
            )
        self._wrapped.merge_and_unload(safe_merge=True)
        self._clear()

    def remove(self) -> None:
        """Take LoRA off, and what PEFT left on the backbone."""
        self._wrapped.unload()
        self._clear()

    def _require_values(self) -> None:
        """Refuse LoRA that was put on the meta device, where it would hold no values and say nothing of it."""
        without = [name for name, each in self._backbone.named_parameters() if is_lora(name) and each.is_meta]
        if without:
            self.remove()
            raise AttachError(
                f"LoRA cannot be put on layers of this kind while they are offloaded, such as "
                f"'{_layer_of(without[0])}'. Load the backbone without device_map, or keep these layers on a device."
            )

    def _clear(self) -> None:
        for module, key in self._added_hooks:
            module._forward_hooks.pop(key, None)
        for name in self._added_attributes & set(vars(self._backbone)):
            delattr(self._backbone, name)

    def _set(self, weights: Mapping[str, Tensor], source: Path) -> None:
        from peft import get_peft_model_state_dict, set_peft_model_state_dict

        expected = get_peft_model_state_dict(self._wrapped, save_embedding_layers=False)
        model_folder.require_same_tensors(weights, expected, source=source)
        set_peft_model_state_dict(self._wrapped, dict(weights))


@contextmanager
def _of_folder(folder: Path) -> Iterator[None]:
    try:
        yield
    except AttachError as error:
        raise CheckpointError(f"LoRA in '{folder}' cannot be put on this backbone: {error}") from error


@contextmanager
def _ready_to_wrap(backbone: nn.Module, config: Any) -> Iterator[None]:
    """Within this context, offloaded layers can be wrapped: PEFT puts what it adds beside a layer's weight.

    Where the weight is away, that would be the meta device, which holds no values. A linear layer gets a weight that
    is as large and takes no memory; of a table some rows are read, so its own weight is brought.
    """
    away = [module for module in backbone.modules() if offloads(module)]
    linear = [module for module in away if type(module) is nn.Linear and not _is_table(backbone, module, config)]
    weights = [layer.weight for layer in linear]
    for layer, weight in zip(linear, weights, strict=True):
        blank = torch.zeros((), dtype=weight.dtype, device=device_of(layer)).expand(weight.shape)
        layer.weight = nn.Parameter(blank, requires_grad=weight.requires_grad)
    try:
        with with_weights(module for module in away if _is_table(backbone, module, config)):
            yield
    finally:
        for layer, weight in zip(linear, weights, strict=True):
            layer.weight = weight.requires_grad_(layer.weight.requires_grad)


def _is_table(backbone: Any, module: nn.Module, config: Any) -> bool:
    """Whether a module is the embedding or the head, and some of its rows are to train."""
    tables = (backbone.get_input_embeddings(), backbone.get_output_embeddings())
    return bool(config.trainable_token_indices) and any(module is each for each in tables)


def _bring_token_table(module: nn.Module) -> None:
    """Of an offloaded table, whose weight PEFT reads without calling it: have it there for the length of a call."""
    from accelerate.hooks import ModelHook, add_hook_to_module
    from peft.tuners.trainable_tokens import TrainableTokensLayer

    if not isinstance(module, TrainableTokensLayer) or not offloads(module.base_layer):
        return

    class BringTable(ModelHook):
        def pre_forward(self, module: Any, *args: Any, **kwargs: Any) -> Any:
            return bring_weights(module.base_layer, *args, **kwargs)

        def post_forward(self, module: Any, output: Any) -> Any:
            return send_weights_away(module.base_layer, output)

    add_hook_to_module(module, BringTable())


def is_lora(parameter_name: str) -> bool:
    """Whether a parameter of a backbone is LoRA's, trained token rows included."""
    return "lora_" in parameter_name or "trainable_tokens_" in parameter_name


def bare_name(parameter_name: str) -> str | None:
    """What a parameter of a backbone is called without LoRA; None for LoRA's own."""
    if is_lora(parameter_name):
        return None
    return parameter_name.replace(".token_adapter.base_layer.", ".").replace(".base_layer.", ".")


def _layer_of(parameter_name: str) -> str:
    """The layer that a parameter of LoRA's was added to."""
    return re.split(r"\.(?:lora_|token_adapter\.)", parameter_name)[0]


def module_paths(backbone: Any, spec: BackboneSpec) -> dict[str, str]:
    """Where the parts of a backbone are, for a model folder to record."""
    paths = {part: str(getattr(spec.parts, part)) for part in _PARTS}
    head = backbone.get_output_embeddings()
    found = [name for name, module in backbone.named_modules() if module is head and head is not None]
    return {**paths, _HEAD: found[0]} if found else paths


def _chosen_layers(
    backbone: nn.Module, spec: BackboneSpec, scopes: Sequence[str], targets: Sequence[str] | None
) -> list[str]:
    """The layers that LoRA adapts, by their full names."""
    unknown = sorted(set(scopes) - set(spec.lora_targets))
    if unknown or not scopes:
        known = ", ".join(spec.lora_targets)
        raise AttachError(f"LoRA scopes of '{spec.name}' are {known}; got {list(scopes)}.")
    chosen: list[str] = []
    for scope in scopes:
        inside = [name for name, _ in backbone.named_modules() if re.fullmatch(spec.lora_targets[scope], name)]
        if not inside:
            raise AttachError(f"LoRA scope '{scope}' of '{spec.name}' matches no layer of this backbone.")
        chosen += inside
    if targets is None:
        return chosen
    layers = sorted({name.rpartition(".")[2] for name in chosen})
    missing = sorted(set(targets) - set(layers))
    if missing or not targets:
        raise AttachError(
            f"LoRA targets {missing or list(targets)} match no layer in scopes {list(scopes)} of '{spec.name}'. "
            f"Layers there: {', '.join(layers)}."
        )
    return [name for name in chosen if name.rpartition(".")[2] in targets]


def _no_layers() -> str:
    """What PEFT is told where only rows of tokens train."""
    from peft.utils.constants import DUMMY_TARGET_MODULES

    return str(DUMMY_TARGET_MODULES)


def _token_rows(backbone: Any, spec: BackboneSpec, token_ids: Sequence[int]) -> dict[str, list[int]] | None:
    """Which rows of which tables train: those of the embedding, and of the head where it has a table of its own."""
    if not token_ids:
        return None
    _require_rows(backbone, spec, token_ids)
    embedding = backbone.get_submodule(spec.parts.token_embedding)
    tables = [spec.parts.token_embedding]
    head = backbone.get_output_embeddings()
    if head is not None and not _are_one(head, embedding, backbone.config):
        tables.append(module_paths(backbone, spec)[_HEAD])
    return {table: list(token_ids) for table in tables}


def _require_rows(backbone: Any, spec: BackboneSpec, token_ids: Sequence[int]) -> None:
    embedding = backbone.get_submodule(spec.parts.token_embedding)
    beyond = [each for each in token_ids if not 0 <= each < embedding.num_embeddings]
    if beyond:
        raise AttachError(
            f"Token ids {shown(beyond)} are beyond the {embedding.num_embeddings} rows of the backbone's embedding "
            "table."
        )


def _are_one(head: Any, embedding: Any, config: Any) -> bool:
    """Whether head and embedding have one weight; while it is away, they have one each that says nothing."""
    if head.weight.device.type == embedding.weight.device.type == "meta":
        return bool(config.get_text_config().tie_word_embeddings or config.tie_word_embeddings)
    return head.weight is embedding.weight


def _moved(weights: Mapping[str, Tensor], earlier: Mapping[str, str], now: Mapping[str, str]) -> dict[str, Tensor]:
    """The weights under the keys of this backbone, where a part of it has moved since they were saved."""
    # The longest path first: a part may lie inside another.
    moves = sorted(((path, now[part]) for part, path in earlier.items() if part in now), key=lambda each: -len(each[0]))
    moved = {}
    for key, tensor in weights.items():
        name = key.removeprefix(_PREFIX)
        old, new = next((move for move in moves if name.startswith(f"{move[0]}.")), ("", ""))
        moved[_PREFIX + new + name[len(old) :]] = tensor
    return moved


def _layers_of(weights: Iterable[str], marker: str) -> list[str]:
    """The layers of the backbone that weights of one kind belong to."""
    return sorted({key.removeprefix(_PREFIX).partition(marker)[0] for key in weights if marker in key})


def _require_layers(backbone: nn.Module, layers: Iterable[str], source: Path) -> None:
    there = {name for name, _ in backbone.named_modules()}
    missing = [layer for layer in layers if layer not in there]
    if missing:
        raise CheckpointError(
            f"'{source}' has LoRA for {len(missing)} layers that this backbone does not have, such as '{missing[0]}'. "
            "Was it made for another backbone, or has a release of transformers renamed its modules?"
        )
