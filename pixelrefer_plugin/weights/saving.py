"""What goes from a model into its folder and comes back: manifest, adapter, LoRA, and the backbone where it is ours.

It is given the parts of a model; it knows no `RegionModel` and no `RegionProcessor`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..contracts.adapter import AdapterSpec
from ..contracts.backbone import BackboneSpec
from ..contracts.module import Shapes
from ..conversation.token_ids import TokenIds
from ..errors import CheckpointError, PixelReferError
from ..media.video import FrameSampling
from ..tokens.devices import is_offloaded
from . import model_folder
from .loading import load_backbone
from .lora import Lora, bare_name, module_paths
from .model_folder import Manifest


class SavedProcessor(Protocol):
    """What a folder has of a processor."""

    sampling: FrameSampling
    region_token: str | None
    tokens: TokenIds

    @property
    def image_backend(self) -> str:
        """`pil` or `torchvision`."""
        ...

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write its files."""
        ...


@dataclass(frozen=True, eq=False)
class ModelParts:
    """The parts of a model that a folder holds, or names.

    Attributes:
        backbone: the Hugging Face model.
        backbone_spec: its plugin's spec.
        adapter: the adapter's module.
        adapter_spec: its plugin's spec.
        adapter_config: its options.
        tokens: the ids that the processor agrees on.
        shapes: what the adapter's module was built for.
        lora: on the backbone, if any.
    """

    backbone: Any
    backbone_spec: BackboneSpec
    adapter: nn.Module
    adapter_spec: AdapterSpec
    adapter_config: Any
    tokens: TokenIds
    shapes: Shapes
    lora: Lora | None


# -- writing -----------------------------------------------------------------------------------------------


def save_model(
    folder: str | os.PathLike[str],
    parts: ModelParts,
    processor: SavedProcessor,
    *,
    overwrite: bool,
    include_backbone: bool,
    state_dict: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a model folder, whole or not at all.

    Args:
        folder: where; must not exist unless `overwrite`.
        parts: of the model.
        processor: the one that the model was trained with.
        overwrite: replace an earlier model folder.
        include_backbone: write the backbone's own weights too.
        state_dict: weights in place of the parts' own, under `adapter.` and `backbone.`.

    Raises:
        CheckpointError: the folder exists, or the processor has other token ids than the model.
    """
    if not parts.tokens.agree_with(processor.tokens):
        raise CheckpointError(
            f"This processor is not the model's: it has the token ids {processor.tokens.placeholder} and "
            f"{processor.tokens.mask} for placeholder and mask, the model has {parts.tokens.placeholder} and "
            f"{parts.tokens.mask}. Save the processor that the model was made with."
        )
    adapter, backbone = _part_of(state_dict, "adapter"), _part_of(state_dict, "backbone")
    with model_folder.written_whole(folder, overwrite=overwrite) as made:
        model_folder.write_manifest(made, _manifest(parts, processor, include_backbone))
        save_file(_contiguous(adapter or parts.adapter.state_dict()), made / model_folder.ADAPTER_FILE)
        processor.save_pretrained(made / model_folder.PROCESSOR_FOLDER)
        if parts.lora is not None:
            parts.lora.save(made / model_folder.LORA_FOLDER, backbone)
        if include_backbone:
            _save_backbone(parts.backbone, made / model_folder.BACKBONE_FOLDER, backbone)


def _manifest(parts: ModelParts, processor: SavedProcessor, include_backbone: bool) -> Manifest:
    config = parts.backbone.config
    return Manifest(
        adapter=parts.adapter_spec.name,
        adapter_config=asdict(parts.adapter_config),
        backbone=parts.backbone_spec.name,
        backbone_id=model_folder.BACKBONE_FOLDER
        if include_backbone
        else model_folder.portable_backbone_id(parts.backbone.name_or_path),
        backbone_revision=None if include_backbone else getattr(config, "_commit_hash", None),
        model_type=config.model_type,
        vision_width=parts.shapes.scene,
        decoder_width=parts.shapes.decoder,
        image_backend=processor.image_backend,
        lora=parts.lora is not None,
        module_paths=module_paths(parts.backbone, parts.backbone_spec),
        frame_sampling=processor.sampling,
        region_token=processor.region_token,
        tokens=parts.tokens,
        plugins=model_folder.origins_of(adapter=parts.adapter_spec.name, backbone=parts.backbone_spec.name),
        versions=model_folder.library_versions(),
    )


def _save_backbone(backbone: Any, folder: Path, state_dict: Mapping[str, Tensor] | None) -> None:
    """The backbone as its own class writes it, without the LoRA that may be on it."""
    own = state_dict if state_dict is not None else _weights_of(backbone)
    weights = {bare: own[name] for name, bare in _bare_names(own)}
    device_map = vars(backbone).pop("hf_device_map", None)  # by which transformers would look for them elsewhere
    try:
        backbone.save_pretrained(folder, state_dict=weights)
    finally:
        if device_map is not None:
            backbone.hf_device_map = device_map


def _weights_of(backbone: nn.Module) -> Mapping[str, Tensor]:
    """Its own weights, those that are offloaded among them."""
    if not is_offloaded(backbone):
        return backbone.state_dict()
    from accelerate.utils.modeling import get_state_dict_offloaded_model

    held: Mapping[str, Tensor] = get_state_dict_offloaded_model(backbone)
    return held


def _contiguous(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def _part_of(state_dict: Mapping[str, Tensor] | None, part: str) -> dict[str, Tensor] | None:
    """The weights of one child of the model, under the child's own keys."""
    if state_dict is None:
        return None
    prefix = f"{part}."
    return {name.removeprefix(prefix): each for name, each in state_dict.items() if name.startswith(prefix)}


def _bare_names(state: Mapping[str, Tensor]) -> list[tuple[str, str]]:
    """The names of a backbone's own weights, with LoRA on it and without."""
    return [(name, bare) for name in state if (bare := bare_name(name)) is not None]


# -- reading -----------------------------------------------------------------------------------------------


def load_into(parts: ModelParts, root: Path, manifest: Manifest) -> Lora | None:
    """The weights of a folder, into the parts of a model that was just made for it.

    Args:
        parts: of the model, its backbone loaded.
        root: the folder on disk.
        manifest: what it says.

    Returns:
        The LoRA that was put on the backbone, if the folder has one.

    Raises:
        CheckpointError: weights are missing, damaged or left over.
    """
    _load_adapter(parts.adapter, root)
    if not manifest.lora:
        return None
    return Lora.load(parts.backbone, parts.backbone_spec, root / model_folder.LORA_FOLDER, paths=manifest.module_paths)


def reload(parts: ModelParts, folder: str | os.PathLike[str]) -> None:
    """The weights of a folder that a model wrote earlier, in place of its present ones.

    Raises:
        CheckpointError: the folder is damaged, or its parts are not those of this model.
    """
    root, manifest = Path(folder), model_folder.read_manifest(folder, adapter=parts.adapter_spec.name)
    require_widths(parts.shapes, manifest, folder)
    if manifest.lora != (parts.lora is not None):
        has, lacks = ("the folder", "this model") if manifest.lora else ("this model", "the folder")
        raise CheckpointError(f"'{folder}' does not fit: {has} has LoRA, {lacks} has none.")
    _load_adapter(parts.adapter, root)
    if parts.lora is not None:
        parts.lora.load_weights(parts.backbone_spec, root / model_folder.LORA_FOLDER, paths=manifest.module_paths)
    if manifest.backbone_id == model_folder.BACKBONE_FOLDER:
        _load_backbone(parts, root / model_folder.BACKBONE_FOLDER)


def require_adapter_fits(spec: AdapterSpec, config: Any, shapes: Shapes, root: Path) -> None:
    """Refuse a folder whose adapter's weights are not those that its options describe. Takes no memory for either.

    A module that cannot be made without memory is left to be compared once it is there.

    Raises:
        CheckpointError: as `model_folder.require_same_tensors`.
    """
    source = root / model_folder.ADAPTER_FILE
    held = model_folder.hollow_tensors(source)
    try:
        with torch.device("meta"):
            expected = spec.build(config, shapes).state_dict()
    except (PixelReferError, MemoryError):
        raise
    except Exception:  # of a plugin's code
        return
    model_folder.require_same_tensors(held, expected, source=source)


def require_widths(shapes: Shapes, manifest: Manifest, name: str | os.PathLike[str]) -> None:
    """Refuse a backbone of another size than a folder was made for.

    Raises:
        CheckpointError: says which widths differ.
    """
    made_for, has = (manifest.vision_width, manifest.decoder_width), (shapes.scene, shapes.decoder)
    if made_for != has:
        raise CheckpointError(
            f"'{name}' was made for a backbone with patch features of width {made_for[0]} and a decoder of "
            f"width {made_for[1]}, got widths {has[0]} and {has[1]}. Is it a model of another size?"
        )


def _load_adapter(adapter: nn.Module, root: Path) -> None:
    source = root / model_folder.ADAPTER_FILE
    weights = model_folder.read_tensors(source)
    model_folder.require_same_tensors(weights, adapter.state_dict(), source=source)
    adapter.load_state_dict(weights)


def _load_backbone(parts: ModelParts, folder: Path) -> None:
    """The backbone's own weights, under whatever LoRA is on it."""
    if is_offloaded(parts.backbone):
        raise CheckpointError(
            "The weights of a backbone that is offloaded to the CPU or the disk cannot be replaced. Load the model "
            "without device_map."
        )
    saved = load_backbone(folder, backbone_plugin=parts.backbone_spec.name).state_dict()
    own = parts.backbone.state_dict()
    parts.backbone.load_state_dict({**own, **{name: saved[bare] for name, bare in _bare_names(own)}})
