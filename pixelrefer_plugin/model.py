"""`RegionModel`: an unmodified backbone, an adapter, and the splice between them.

It knows the contracts only: which backbone and which adapter it has is the plugins' business.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, ref

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from . import checkpoint
from .contracts import AdapterSpec, BackboneSpec, FeatureGrids
from .errors import AttachError, CheckpointError, SpliceError
from .loading import load_backbone
from .plugins import backbone_for, get_adapter
from .processor import RegionProcessor
from .region_batch import RegionBatch
from .scene import captured_scene
from .splice import number_slots, spliced

# Which backbones have an adapter, without a mark on the backbone itself.
_ATTACHED: WeakKeyDictionary[nn.Module, ReferenceType[RegionModel]] = WeakKeyDictionary()

# Hooks of one call must not be there while another thread registers its own: torch does not guard that.
_ONE_CALL: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()

# Crops go through the tower in one call; on a CPU in calls of so many values (patches times their width), 1,536 patches
# of a real tower: what a larger call works on no longer fits the caches, and it takes half as long again
# (benchmarks/many_regions.py).
_VALUES_A_CALL = 1536 * 1152

# Stands in for placeholder ids beyond the embedding table; its embedding is overwritten by the splice.
_READABLE_ID = 0


class RegionModel(nn.Module):
    """A multimodal LLM that understands regions. Make one with `attach` or `from_pretrained`.

    Attributes:
        backbone: the Hugging Face model, the object that was given, unmodified.
        adapter: the adapter's module, kept in float32 (as PEFT keeps LoRA) whatever the backbone's dtype.
    """

    def __init__(self, backbone: Any, *, backbone_spec: BackboneSpec, adapter_spec: AdapterSpec, adapter_config: Any):
        super().__init__()
        self.backbone = backbone
        self._backbone_spec = backbone_spec
        self._adapter_spec = adapter_spec
        self.adapter_config = adapter_config
        embedding = backbone.get_submodule(backbone_spec.token_embedding)
        self._decoder_width = embedding.embedding_dim
        self._vision_width = backbone_spec.vision_width(backbone.config)
        adapter: Any = adapter_spec.build(
            adapter_config, vision_width=self._vision_width, decoder_width=self._decoder_width
        )
        if hasattr(adapter, "set_attn_implementation"):
            adapter.set_attn_implementation(backbone.config._attn_implementation)
        self.adapter: nn.Module = adapter.to(embedding.weight.device)
        self._was_trainable = {name: each.requires_grad for name, each in backbone.named_parameters()}
        # Whether the backbone's weights are nobody else's: trained here, or loaded from a model folder of ours.
        self._owns_backbone = False
        self._lora: list[Any] = []  # a list hides PEFT's wrapper from nn.Module: the backbone is already here

    @classmethod
    def attach(
        cls,
        backbone: Any,
        *,
        adapter: str = "saot",
        adapter_config: Mapping[str, Any] | Any | None = None,
        backbone_plugin: str | None = None,
        train_backbone: bool = False,
    ) -> RegionModel:
        """Give a backbone region referring. `detach` gives it back as it was.

        Args:
            backbone: a Hugging Face model that a backbone plugin serves.
            adapter: name of the adapter; its weights start at random.
            adapter_config: its options, as a mapping or its config object.
            backbone_plugin: name of the backbone plugin; by default found by `backbone.config.model_type`.
            train_backbone: leave the backbone's own weights trainable; by default they are frozen.

        Raises:
            AttachError: the backbone already has an adapter, or lacks a module that its plugin names.
            PluginError: no plugin of that name, or none that serves this backbone.
        """
        owner = _ATTACHED.get(backbone)
        if owner is not None and owner() is not None:
            raise AttachError(
                f"This {type(backbone).__name__} already has an adapter. Call detach() on its RegionModel first."
            )
        spec = backbone_for(backbone.config.model_type, backbone_plugin)
        _require_modules(backbone, spec)
        adapter_spec = get_adapter(adapter)
        model = cls(
            backbone,
            backbone_spec=spec,
            adapter_spec=adapter_spec,
            adapter_config=adapter_spec.make_config(adapter_config),
        )
        _ATTACHED[backbone] = ref(model)
        model._owns_backbone = train_backbone
        if not train_backbone:
            backbone.requires_grad_(False)
        return model

    def detach(self) -> Any:
        """Take the adapter and LoRA off again and return the backbone as it was before `attach`."""
        owner = _ATTACHED.get(self.backbone)
        if owner is None or owner() is not self:
            return self.backbone  # detached before; another model may have it by now
        if self._lora:
            self._unwrap()
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_(self._was_trainable[name])
        _ATTACHED.pop(self.backbone, None)
        return self.backbone

    def make_processor(self, native: Any) -> RegionProcessor:
        """The `RegionProcessor` that plans for this model's adapter, around the backbone's own processor."""
        return RegionProcessor(
            native,
            self.backbone.config,
            adapter=self._adapter_spec.name,
            adapter_config=self.adapter_config,
            backbone_plugin=self._backbone_spec.name,
        )

    @property
    def device(self) -> torch.device:
        """Where the backbone takes its input ids."""
        device: torch.device = self._embedding().weight.device
        return device

    def forward(
        self, *, input_ids: Tensor, labels: Tensor | None = None, regions: RegionBatch | None = None, **inputs: Any
    ) -> Any:
        """The backbone's own forward, with object tokens where the placeholders stand.

        Args:
            input_ids: `(batch, length)`, as `RegionProcessor` makes them.
            labels: `(batch, length)`, -100 where nothing is to be learnt.
            regions: the batch's regions; without any this is the backbone, bit for bit.
            **inputs: whatever else the backbone takes.

        Returns:
            The backbone's own output; with `labels` it has a `loss`.

        Raises:
            SpliceError: placeholders and object tokens do not match.
        """
        if labels is not None:
            inputs["labels"] = labels
        with self._regions_in(input_ids, regions, inputs) as readable_ids:
            return self.backbone(input_ids=readable_ids, **inputs)

    def gradient_checkpointing_enable(self, **options: Any) -> None:
        """The backbone's own, as the Hugging Face `Trainer` calls it."""
        self.backbone.gradient_checkpointing_enable(**options)

    def gradient_checkpointing_disable(self) -> None:
        """The backbone's own."""
        self.backbone.gradient_checkpointing_disable()

    @torch.no_grad()
    def generate(self, *, input_ids: Tensor, regions: RegionBatch | None = None, **inputs: Any) -> Any:
        """The backbone's own `generate`: greedy, sampling, beams, streamers and caches work as usual.

        Args:
            input_ids: `(batch, length)`, left-padded, as `RegionProcessor` makes them.
            regions: the batch's regions.
            **inputs: whatever else the backbone's `generate` takes.

        Returns:
            What the backbone's `generate` returns, the prompt included.
        """
        with self._regions_in(input_ids, regions, inputs) as readable_ids:
            return self.backbone.generate(input_ids=readable_ids, **inputs)

    def object_tokens(self, regions: RegionBatch, scene: FeatureGrids | None = None) -> Tensor:
        """Encode the regions and tokenize them.

        Args:
            regions: the planned regions, on any device.
            scene: the backbone's own features, the grids of `regions.scene`, for an adapter that reads them.

        Returns:
            `(sum(regions.counts), D)`.

        Raises:
            SpliceError: the adapter does not return what it promised.
        """
        return self._tokenize(regions, self._encode(regions), scene)

    def add_lora(
        self, *, scopes: tuple[str, ...] = ("decoder",), r: int = 16, alpha: int = 32, dropout: float = 0.0
    ) -> None:
        """Add LoRA (PEFT) to the backbone; the adapter keeps training in full.

        Args:
            scopes: which parts of the backbone: `decoder`, `projector`, `vision_tower`.
            r: rank.
            alpha: scaling numerator.
            dropout: dropout on LoRA's input.

        Raises:
            AttachError: LoRA is there already, a scope is unknown, or its pattern matches no layer.
        """
        from peft import LoraConfig

        if self._lora:
            raise AttachError("This model already has LoRA. Call detach() and attach again to change it.")
        unknown = sorted(set(scopes) - set(self._backbone_spec.lora_targets))
        if unknown or not scopes:
            known = ", ".join(self._backbone_spec.lora_targets)
            raise AttachError(f"LoRA scopes of '{self._backbone_spec.name}' are {known}; got {list(scopes)}.")
        targets = "|".join(f"(?:{self._backbone_spec.lora_targets[scope]})" for scope in scopes)
        config = LoraConfig(r=r, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets)
        try:
            self._lora.append(self._wrap(config))
        except ValueError as error:
            raise AttachError(f"LoRA cannot be added in scopes {list(scopes)}: {error}") from error

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        processor: RegionProcessor,
        *,
        overwrite: bool = False,
        include_backbone: bool | None = None,
    ) -> None:
        """Write one folder that `from_pretrained` reads anywhere. It appears whole or not at all.

        Args:
            folder: where; must not exist unless `overwrite`.
            processor: the processor that the model was trained with.
            overwrite: replace an earlier model folder.
            include_backbone: write the backbone too. By default only when its own weights were trained here, or
                came out of a model folder.

        Raises:
            CheckpointError: the folder exists, or the backbone was trained and shall not be written.
        """
        trained = self._owns_backbone or any(
            each.requires_grad for name, each in self.backbone.named_parameters() if "lora_" not in name
        )
        include = trained if include_backbone is None else include_backbone
        if trained and not include:
            raise CheckpointError(
                "The backbone's own weights were trained; without them the folder would not "
                "give this model back. Leave include_backbone out, or pass True."
            )
        if include and self._lora:
            raise CheckpointError(
                "A backbone with LoRA on it cannot be written as a whole backbone; train either LoRA or the backbone."
            )
        with checkpoint.written_whole(folder, overwrite=overwrite) as made:
            checkpoint.write_manifest(made, self._manifest(processor, include))
            save_file(_contiguous(self.adapter.state_dict()), made / checkpoint.ADAPTER_FILE)
            processor.save_pretrained(made / checkpoint.PROCESSOR_FOLDER)
            if self._lora:
                self._lora[0].save_pretrained(made / checkpoint.LORA_FOLDER, save_embedding_layers=False)
            if include:
                self.backbone.save_pretrained(made / checkpoint.BACKBONE_FOLDER)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike[str],
        *,
        adapter: str | None = None,
        adapter_config: Mapping[str, Any] | None = None,
        backbone: Any = None,
        **backbone_options: Any,
    ) -> RegionModel:
        """Load a folder that `save_pretrained` wrote, or attach an untrained adapter to a plain backbone.

        Args:
            folder: such a folder, or the id or path of a plain backbone.
            adapter: name of the adapter. For a model folder it must be the one it was made with.
            adapter_config: its options, only for a plain backbone.
            backbone: where the backbone is, or the loaded model itself; by default what the folder says.
            **backbone_options: options of the backbone's `from_pretrained`, such as `dtype` or `device_map`.

        Raises:
            CheckpointError: files or weights are missing, damaged, left over, of a newer format, or made for
                another adapter or backbone.
            PluginError: no plugin serves this backbone or adapter.
        """
        if not checkpoint.is_model_folder(folder):
            plain = load_backbone(folder, **backbone_options)
            return cls.attach(plain, adapter=adapter or "saot", adapter_config=adapter_config).eval()
        checkpoint.refuse_adapter_config(folder, adapter_config)
        root, manifest = Path(folder), checkpoint.read_manifest(folder, adapter=adapter)
        owns_backbone = backbone is None and manifest.backbone_id == checkpoint.BACKBONE_FOLDER
        if backbone is None:
            backbone = checkpoint.locate_backbone(manifest.backbone_id, root)
            if manifest.backbone_revision:
                backbone_options.setdefault("revision", manifest.backbone_revision)
        if not isinstance(backbone, nn.Module):
            backbone = load_backbone(backbone, backbone_plugin=manifest.backbone, **backbone_options)
        if backbone.config.model_type != manifest.model_type:
            raise CheckpointError(
                f"'{folder}' was made for a backbone of type '{manifest.model_type}', "
                f"got '{backbone.config.model_type}'."
            )
        model = cls.attach(
            backbone,
            adapter=manifest.adapter,
            adapter_config=manifest.adapter_config,
            backbone_plugin=manifest.backbone,
        )
        model._owns_backbone = owns_backbone
        try:
            model._require_widths(manifest, folder)
            model._load_weights(root, manifest)
        except Exception:
            model.detach()
            raise
        return model.eval()

    def _wrap(self, config: Any) -> Any:
        """PEFT's wrapper. Under gradient checkpointing it hooks the embeddings too: remember what it added."""
        from peft import get_peft_model

        hooks_before = {id(module): set(module._forward_hooks) for module in self.backbone.modules()}
        attributes_before = set(vars(self.backbone))
        wrapped = get_peft_model(self.backbone, config)
        self._added_hooks = [
            (module, key)
            for module in self.backbone.modules()
            for key in set(module._forward_hooks) - hooks_before.get(id(module), set())
        ]
        self._added_attributes = set(vars(self.backbone)) - attributes_before
        return wrapped

    def _unwrap(self) -> None:
        """Take LoRA off, and what PEFT left on the backbone."""
        self._lora.pop().unload()
        for module, key in self._added_hooks:
            module._forward_hooks.pop(key, None)
        for name in self._added_attributes & set(vars(self.backbone)):
            delattr(self.backbone, name)

    def _require_widths(self, manifest: checkpoint.Manifest, folder: str | os.PathLike[str]) -> None:
        made_for, has = (manifest.vision_width, manifest.decoder_width), (self._vision_width, self._decoder_width)
        if made_for != has:
            raise CheckpointError(
                f"'{folder}' was made for a backbone with patch features of width {made_for[0]} and a decoder of "
                f"width {made_for[1]}, got widths {has[0]} and {has[1]}. Is it a model of another size?"
            )

    def _load_weights(self, root: Path, manifest: checkpoint.Manifest) -> None:
        source = root / checkpoint.ADAPTER_FILE
        weights = checkpoint.read_tensors(source)
        checkpoint.require_same_tensors(weights, self.adapter.state_dict(), source=source)
        self.adapter.load_state_dict(weights)
        if manifest.lora:
            self._load_lora(root / checkpoint.LORA_FOLDER)

    def _load_lora(self, folder: Path) -> None:
        """PEFT's own files, checked key by key: PEFT alone would only warn and leave LoRA at zero."""
        from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict

        source = folder / checkpoint.LORA_FILE
        weights = checkpoint.read_tensors(source)
        try:
            config = LoraConfig.from_pretrained(str(folder))
            config.inference_mode = False
            wrapped = self._wrap(config)
        except (ValueError, TypeError, KeyError, OSError) as error:
            raise CheckpointError(f"'{folder}' has no readable adapter_config.json: {error}.") from error
        self._lora.append(wrapped)
        checkpoint.require_same_tensors(
            weights, get_peft_model_state_dict(wrapped, save_embedding_layers=False), source=source
        )
        set_peft_model_state_dict(wrapped, weights)

    def _manifest(self, processor: RegionProcessor, include_backbone: bool) -> checkpoint.Manifest:
        config = self.backbone.config
        return checkpoint.Manifest(
            adapter=self._adapter_spec.name,
            adapter_config=asdict(self.adapter_config),
            backbone=self._backbone_spec.name,
            backbone_id=checkpoint.BACKBONE_FOLDER
            if include_backbone
            else checkpoint.portable_backbone_id(self.backbone.name_or_path),
            backbone_revision=None if include_backbone else getattr(config, "_commit_hash", None),
            model_type=config.model_type,
            vision_width=self._vision_width,
            decoder_width=self._decoder_width,
            image_backend=processor.image_backend,
            lora=bool(self._lora),
            frame_sampling=processor.sampling,
            versions=checkpoint.library_versions(),
        )

    def _embedding(self) -> nn.Embedding:
        embedding: nn.Embedding = self.backbone.get_submodule(self._backbone_spec.token_embedding)
        return embedding

    @contextmanager
    def _regions_in(
        self, input_ids: Tensor, regions: RegionBatch | None, inputs: Mapping[str, Any]
    ) -> Iterator[Tensor]:
        """Splice for the length of one call; yields the ids that the backbone may read."""
        if regions is None:
            yield input_ids
            return
        if regions.adapter != self._adapter_spec.name:
            raise SpliceError(
                f"The regions were planned for adapter '{regions.adapter}', this model has '{self._adapter_spec.name}'."
            )
        with _ONE_CALL.setdefault(self.backbone, threading.RLock()):
            yield from self._splice_in(input_ids, regions, inputs)

    def _splice_in(self, input_ids: Tensor, regions: RegionBatch, inputs: Mapping[str, Any]) -> Iterator[Tensor]:
        """The body of `_regions_in`, while no other thread splices into this backbone."""
        slots = number_slots(input_ids, regions.placeholder_id, regions.tokens_per_sample())
        regions = regions.to(self.device, non_blocking=True)
        crops = self._encode(regions)
        with captured_scene(self.backbone, self._backbone_spec, regions.scene, inputs) as scene:
            decoder = self.backbone.get_submodule(self._backbone_spec.decoder)
            with spliced(decoder, slots, lambda: self._tokenize(regions, crops, scene())):
                yield self._readable(input_ids, regions.placeholder_id)

    def _readable(self, input_ids: Tensor, placeholder_id: int) -> Tensor:
        """Where the embedding table has no spare row for the placeholder, another id stands in for it."""
        if placeholder_id < self._embedding().num_embeddings:
            return input_ids
        return input_ids.masked_fill(input_ids == placeholder_id, _READABLE_ID)

    def _encode(self, regions: RegionBatch) -> FeatureGrids | None:
        """All crops of the batch through the vision tower."""
        if not regions.crops:
            return None
        tower = self.backbone.get_submodule(self._backbone_spec.vision_tower)
        parameter = next(tower.parameters())
        crops = regions.to(parameter.device).normalised_crops(parameter.dtype)
        most = _VALUES_A_CALL / self._vision_width if parameter.device.type == "cpu" else math.inf
        packs = _packs([h * w for h, w in regions.crop_grids_hw], most)
        grids = FeatureGrids.joined([self._backbone_spec.encode_crops(self.backbone, crops[pack]) for pack in packs])
        if grids.grids_hw != regions.crop_grids_hw:
            raise SpliceError(
                f"Backbone '{self._backbone_spec.name}' was given crops of {regions.crop_grids_hw} patches "
                f"and returned {grids.grids_hw}."
            )
        return grids

    def _tokenize(self, regions: RegionBatch, crops: FeatureGrids | None, scene: FeatureGrids | None) -> Tensor:
        views = []
        for layout in regions.views:
            grids = scene if layout.crops is None else _part(crops, layout.crops)
            if grids is None or grids.grids_hw != layout.grids_hw:
                raise SpliceError(
                    f"The regions were planned on grids {layout.grids_hw}, "
                    f"the vision tower gave {grids and grids.grids_hw}."
                )
            views.append(layout.encoded(grids))
        tokens = self.adapter(tuple(views), regions.counts)
        expected = (sum(regions.counts), self._decoder_width)
        if tuple(tokens.shape) != expected:
            raise SpliceError(
                f"Adapter '{self._adapter_spec.name}' promised {expected[0]} object tokens of width {expected[1]} "
                f"for {len(regions.counts)} regions but returned {tuple(tokens.shape)}."
            )
        return tokens


def _packs(sizes: Sequence[int], most: float) -> list[slice]:
    """Runs of consecutive items of at most `most` in all, or of one that is larger."""
    starts, total = [0], 0
    for index, size in enumerate(sizes):
        if total and total + size > most:
            starts.append(index)
            total = 0
        total += size
    return [slice(start, end) for start, end in pairwise([*starts, len(sizes)])]


def _part(grids: FeatureGrids | None, which: slice) -> FeatureGrids | None:
    """A run of consecutive grids."""
    if grids is None or (which.start, which.stop) == (0, len(grids)):
        return grids
    areas = [h * w for h, w in grids.grids_hw]
    first, end = sum(areas[: which.start]), sum(areas[: which.stop])
    return FeatureGrids(grids.features[first:end], grids.grids_hw[which])


def _contiguous(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def _require_modules(backbone: nn.Module, spec: BackboneSpec) -> None:
    for part in ("vision_tower", "projector", "decoder", "token_embedding"):
        path = getattr(spec, part)
        try:
            backbone.get_submodule(path)
        except AttributeError as error:
            raise AttachError(
                f"Backbone plugin '{spec.name}' looks for its {part} at '{path}', which this "
                f"{type(backbone).__name__} does not have: {error}. Is the plugin older than transformers?"
            ) from error
