"""`RegionModel`: an unmodified backbone, an adapter, and the splice between them.

It knows the contracts only: which backbone and which adapter it has is the plugins' business.
"""

from __future__ import annotations

import math
import os
import tempfile
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
from transformers import LogitsProcessorList

from .contracts.adapter import AdapterSpec
from .contracts.backbone import BackboneSpec, NativeCall
from .contracts.encoded import FeatureGrids
from .contracts.module import AdapterModule, Shapes
from .conversation.token_ids import TokenIds
from .errors import AttachError, CheckpointError, PromptError, SpliceError, in_plugin
from .masks.hidden_states import GeneratedStates, Reader, captured_hidden
from .masks.mask_batch import MaskBatch
from .masks.mask_head import MaskHead, forced_mask, generation_option
from .masks.objects import GeneratedMasks
from .plugins import backbone_for, get_adapter
from .processor import RegionProcessor
from .tokens.layouts import Features
from .tokens.region_batch import RegionBatch
from .tokens.scene import captured_scene
from .tokens.splice import number_slots, spliced
from .weights import hub, model_folder
from .weights.loading import load_backbone
from .weights.lora import Lora, bare_name, is_lora, module_paths
from .weights.opening import OpenedCheckpoint, open_checkpoint

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
    """A multimodal LLM that understands regions. `pixelrefer_plugin.attach` and `load` make one with its processor.

    Attributes:
        backbone: the Hugging Face model, the object that was given, unmodified.
        adapter: the adapter's module, kept in float32 (as PEFT keeps LoRA) whatever the backbone's dtype.
        tokens: the ids that its processor agrees on.
    """

    def __init__(
        self,
        backbone: Any,
        *,
        backbone_spec: BackboneSpec,
        adapter_spec: AdapterSpec,
        adapter_config: Any,
        tokens: TokenIds,
    ) -> None:
        super().__init__()
        self.tokens = tokens
        self.backbone = backbone
        self._backbone_spec = backbone_spec
        self._adapter_spec = adapter_spec
        self.adapter_config = adapter_config
        embedding = backbone.get_submodule(backbone_spec.parts.token_embedding)
        self._num_embeddings = embedding.num_embeddings
        self._decoder_width = embedding.embedding_dim
        self._shapes = shapes_of(backbone, backbone_spec, adapter_spec)
        with in_plugin(f"adapter '{adapter_spec.name}'", "build"):
            adapter = adapter_spec.module.build(adapter_config, self._shapes)
        adapter.set_attn_implementation(backbone.config._attn_implementation)
        self.adapter: AdapterModule = adapter.to(embedding.weight.device)
        self._was_trainable = {name: each.requires_grad for name, each in backbone.named_parameters()}
        self._was_training = backbone.training
        # Whether the backbone's weights are nobody else's: trained here, or loaded from a model folder of ours.
        self._owns_backbone = False
        self._lora: Lora | None = None

    @classmethod
    def attach(
        cls,
        backbone: Any,
        *,
        adapter: str,
        tokens: TokenIds,
        adapter_config: Mapping[str, Any] | str | Any | None = None,
        backbone_plugin: str | None = None,
        train_backbone: bool = False,
    ) -> RegionModel:
        """Give a backbone region referring: `pixelrefer_plugin.attach` without the processor. `detach` gives it back as
        it was.

        Args:
            backbone: a Hugging Face model that a backbone plugin serves.
            adapter: name of the adapter; its weights start at random, or as its options say.
            tokens: `RegionProcessor.tokens` of the processor that makes its batches.
            adapter_config: its options: a mapping, the name of a preset, or its config object. The key `preset` of a
                mapping names a preset that the other options override.
            backbone_plugin: name of the backbone plugin; by default found by `backbone.config.model_type`.
            train_backbone: leave the backbone's own weights trainable; by default they are frozen.

        Raises:
            AttachError: the backbone already has an adapter, or lacks a module that its plugin names; or `tokens` has
                no id for the masks that the adapter gives.
            PluginError: no plugin of that name, or none that serves this backbone.
        """
        return cls._attach(backbone, adapter, adapter_config, backbone_plugin, tokens, train_backbone=train_backbone)

    @classmethod
    def _attach(
        cls,
        backbone: Any,
        adapter: str,
        adapter_config: Any,
        backbone_plugin: str | None,
        tokens: TokenIds,
        *,
        train_backbone: bool = False,
        untrained: bool = True,
    ) -> RegionModel:
        """As `attach`; the adapter's weights are left to be loaded where it is not `untrained`."""
        owner = _ATTACHED.get(backbone)
        if owner is not None and owner() is not None:
            raise AttachError(
                f"This {type(backbone).__name__} already has an adapter. Call detach() on its RegionModel first."
            )
        spec = backbone_for(backbone.config.model_type, backbone_plugin)
        adapter_spec = get_adapter(adapter)
        _require_modules(backbone, spec, adapter_spec)
        _require_mask_id(tokens, adapter_spec)
        model = cls(
            backbone,
            backbone_spec=spec,
            adapter_spec=adapter_spec,
            adapter_config=adapter_spec.make_config(adapter_config),
            tokens=tokens,
        )
        if untrained:
            with in_plugin(f"adapter '{adapter_spec.name}'", "start_from"):
                model.adapter.start_from(projector_layers(backbone, spec))
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
        if self._lora is not None:
            self._lora.remove()
            self._lora = None
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_(self._was_trainable[name])
        self.backbone.train(self._was_training)
        _ATTACHED.pop(self.backbone, None)
        return self.backbone

    @property
    def backbone_spec(self) -> BackboneSpec:
        """What the backbone's plugin says of it: where its parts are."""
        return self._backbone_spec

    @property
    def adapter_spec(self) -> AdapterSpec:
        """What the adapter's plugin says of it."""
        return self._adapter_spec

    @property
    def device(self) -> torch.device:
        """Where the backbone takes its input ids."""
        device: torch.device = self._embedding().weight.device
        return device

    def forward(
        self,
        *,
        input_ids: Tensor,
        labels: Tensor | None = None,
        regions: RegionBatch | None = None,
        masks: MaskBatch | None = None,
        num_objects_in_batch: Tensor | int | None = None,
        **inputs: Any,
    ) -> Any:
        """The backbone's own forward, with object tokens where the placeholders stand.

        Args:
            input_ids: `(batch, length)`, as `RegionProcessor` makes them.
            labels: `(batch, length)`, -100 where nothing is to be learnt.
            regions: the batch's regions; without any this is the backbone, bit for bit.
            masks: the masks that the answers give, to learn from; read where there are `labels`, by an adapter with a
                mask head.
            num_objects_in_batch: what the objects' losses are divided by; by default the number of the batch's own.
            **inputs: whatever else the backbone takes.

        Returns:
            The backbone's own output; with `labels` it has a `loss`. That of an adapter with a mask head then also has
            `mask_loss`, which is part of `loss`, and `mask_losses`, its parts by name; both detached.

        Raises:
            SpliceError: placeholders and object tokens, or masks and their tokens, do not match, or the regions or
                masks were lost on the way.
        """
        self._require_own_masks(masks, input_ids)
        if labels is not None:
            inputs["labels"] = labels
            if self._adapter_spec.masks is not None:
                return self._learn(input_ids, regions, masks, num_objects_in_batch, inputs)
        with self._regions_in(input_ids, regions, inputs) as readable_ids:
            return self.backbone(input_ids=readable_ids, **inputs)

    def gradient_checkpointing_enable(self, **options: Any) -> None:
        """The backbone's own, as the Hugging Face `Trainer` calls it."""
        self.backbone.gradient_checkpointing_enable(**options)

    def gradient_checkpointing_disable(self) -> None:
        """The backbone's own."""
        self.backbone.gradient_checkpointing_disable()

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """What newer releases of transformers call it."""
        self.backbone.activation_checkpointing_enable(**options)

    @property
    def _no_split_modules(self) -> list[str]:
        """The class of the decoder's layers, which accelerate's FSDP asks for by this name and shards one by one.

        Those of the vision tower stay together: processes may call it a different number of times in a step, while
        the parts that are gathered on their own must be called alike on all of them.
        """
        decoder = self.backbone.get_submodule(self._backbone_spec.parts.decoder)
        stacks = [module for module in decoder.modules() if isinstance(module, nn.ModuleList)]
        layers = {type(layer).__name__ for stack in stacks for layer in stack}
        return sorted(layers & set(self.backbone._no_split_modules or ()))

    @torch.no_grad()
    def generate(
        self,
        *,
        input_ids: Tensor,
        regions: RegionBatch | None = None,
        masks: MaskBatch | None = None,
        force_mask: bool = False,
        **inputs: Any,
    ) -> Any:
        """The backbone's own `generate`: greedy, sampling, beams, streamers and caches work as usual.

        Args:
            input_ids: `(batch, length)`, left-padded, as `RegionProcessor` makes them.
            regions: the batch's regions.
            masks: the pictures that masks are made on, of `processor(..., segment=True)`.
            force_mask: let no answer end without a mask: one that would gets it at its end.
            **inputs: whatever else the backbone's `generate` takes.

        Returns:
            What the backbone's `generate` returns, the prompt included. With `masks` a `GeneratedMasks`: that and the
            objects that each answer gives masks of.

        Raises:
            SpliceError: as `forward`.
            PromptError: `force_mask` without `masks`, or without a bound on the answer's length.
        """
        self._require_own_masks(masks, input_ids)
        if masks is not None:
            return self._generate_masks(input_ids, regions, masks, force_mask, inputs)
        if force_mask:
            raise PromptError(
                "force_mask=True needs the pictures that masks are made on. Make the inputs with "
                "processor(..., segment=True), for an adapter that gives masks."
            )
        with self._regions_in(input_ids, regions, inputs) as readable_ids:
            return self.backbone.generate(input_ids=readable_ids, **inputs)

    def object_tokens(self, regions: RegionBatch, scene: Mapping[bool, FeatureGrids] | None = None) -> Tensor:
        """Encode the regions and tokenize them.

        Args:
            regions: the planned regions, on any device.
            scene: the backbone's own features, the grids of `regions.scene` by whether they are tiled, for an adapter
                that reads them.

        Returns:
            `(sum(regions.counts), D)`.

        Raises:
            SpliceError: the adapter does not return what it promised.
        """
        return self._tokenize(regions, Features(self._encode(regions), scene or {}))

    def add_lora(
        self,
        *,
        scopes: Sequence[str] = ("decoder",),
        targets: Sequence[str] | None = None,
        token_ids: Sequence[int] | None = None,
        r: int = 16,
        alpha: int = 32,
        dropout: float = 0.0,
    ) -> None:
        """Add LoRA (PEFT) to the backbone; the adapter keeps training in full.

        Args:
            scopes: which parts of the backbone: `decoder`, `projector`, `vision_tower`; none where only the rows of
                `token_ids` are to train.
            targets: names of the layers in those parts, such as `q_proj`; by default all that the backbone's plugin
                names.
            token_ids: tokens whose rows in the embedding, and in the head, train too
                (`RegionProcessor.add_tokens`). The token that stands for a mask is always among them.
            r: rank.
            alpha: scaling numerator.
            dropout: dropout on LoRA's input.

        Raises:
            AttachError: LoRA is there already, a scope is unknown, or scopes and targets match no layer.
        """
        if self._lora is not None:
            raise AttachError("This model already has LoRA. Call detach() and attach again to change it.")
        token_ids = list(token_ids or ())
        if self.tokens.mask is not None and self.tokens.mask not in token_ids:
            token_ids.append(self.tokens.mask)
        self._lora = Lora.add(
            self.backbone,
            self._backbone_spec,
            scopes=scopes,
            targets=targets,
            token_ids=token_ids,
            r=r,
            alpha=alpha,
            dropout=dropout,
        )

    @property
    def has_lora(self) -> bool:
        """Whether LoRA is on the backbone."""
        return self._lora is not None

    def merge_lora(self) -> None:
        """Fold LoRA into the backbone's own weights, which are saved with the model from then on.

        Raises:
            AttachError: there is no LoRA, or the backbone is quantized.
        """
        if self._lora is None:
            raise AttachError("This model has no LoRA to merge.")
        if getattr(self.backbone, "is_quantized", False):
            raise AttachError(
                "LoRA cannot be merged into a quantized backbone without loss. Load the folder unquantized: "
                "RegionModel.from_pretrained(folder, dtype='bfloat16')."
            )
        self._lora.merge()
        self._lora = None
        self._owns_backbone = True

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        processor: RegionProcessor,
        *,
        overwrite: bool = False,
        include_backbone: bool | None = None,
        state_dict: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Write one folder that `from_pretrained` reads anywhere. It appears whole or not at all.

        Args:
            folder: where; must not exist unless `overwrite`.
            processor: the processor that the model was trained with.
            overwrite: replace an earlier model folder.
            include_backbone: write the backbone too. By default only when its own weights were trained here, or
                came out of a model folder.
            state_dict: weights to write in place of the model's own, under the keys of `state_dict()`: gathered
                ones, where they are spread over processes. Those of a frozen backbone may be left out.

        Raises:
            CheckpointError: the folder exists, the backbone was trained and shall not be written, or the processor has
                other token ids than the model.
        """
        if not self.tokens.agree_with(processor.tokens):
            raise CheckpointError(
                f"This processor is not the model's: it has the token ids {processor.tokens.placeholder} and "
                f"{processor.tokens.mask} for placeholder and mask, the model has {self.tokens.placeholder} and "
                f"{self.tokens.mask}. Save the processor that the model was made with."
            )
        trained = self._owns_backbone or any(
            each.requires_grad for name, each in self.backbone.named_parameters() if not is_lora(name)
        )
        include = trained if include_backbone is None else include_backbone
        if trained and not include:
            raise CheckpointError(
                "The backbone's own weights were trained; without them the folder would not "
                "give this model back. Leave include_backbone out, or pass True."
            )
        adapter, backbone = _part_of(state_dict, "adapter"), _part_of(state_dict, "backbone")
        with model_folder.written_whole(folder, overwrite=overwrite) as made:
            model_folder.write_manifest(made, self._manifest(processor, include))
            save_file(_contiguous(adapter or self.adapter.state_dict()), made / model_folder.ADAPTER_FILE)
            processor.save_pretrained(made / model_folder.PROCESSOR_FOLDER)
            if self._lora is not None:
                self._lora.save(made / model_folder.LORA_FOLDER, backbone)
            if include:
                self._save_backbone(made / model_folder.BACKBONE_FOLDER, backbone)

    def push_to_hub(
        self,
        repo_id: str,
        processor: RegionProcessor,
        *,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str = "Upload a region model",
    ) -> str:
        """Upload the model folder, with a model card, to the Hugging Face hub; `from_pretrained(repo_id)` reads it.

        Args:
            repo_id: `user/name`; made where it does not exist.
            processor: the processor that the model was trained with.
            private: whether a new repository is private; by default as the account has it.
            token: access token; by default the one that `hf auth login` stored.
            commit_message: of the upload.

        Returns:
            The address of the commit.

        Raises:
            CheckpointError: the hub refuses, or cannot be reached.
        """
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / "model"
            self.save_pretrained(made, processor)
            return hub.upload(made, repo_id, private=private, token=token, commit_message=commit_message)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike[str],
        *,
        adapter: str | None = None,
        adapter_config: Mapping[str, Any] | str | None = None,
        backbone: Any = None,
        backbone_plugin: str | None = None,
        region_token: str | None = None,
        **backbone_options: Any,
    ) -> RegionModel:
        """`pixelrefer_plugin.load` without the processor: the arguments are its own.

        Raises:
            CheckpointError: files or weights are missing, damaged, left over, of a newer format, or made for
                another adapter or backbone.
            PluginError: a plain backbone without `adapter`, or no plugin serves this backbone or adapter.
        """
        opened = open_checkpoint(
            folder,
            backbone_options,
            adapter=adapter,
            adapter_config=adapter_config,
            backbone_plugin=backbone_plugin,
            region_token=region_token,
        )
        return cls.from_opened(opened, opened.token_ids(backbone_options), backbone, backbone_options)

    @classmethod
    def from_opened(
        cls, opened: OpenedCheckpoint, tokens: TokenIds, backbone: Any, backbone_options: Mapping[str, Any]
    ) -> RegionModel:
        """The model of what has been opened; raises as `from_pretrained`."""
        loaded = opened.load_backbone(backbone, backbone_options)
        manifest = opened.manifest
        model = cls._attach(
            loaded,
            opened.adapter,
            opened.adapter_config,
            opened.backbone_plugin,
            tokens,
            untrained=manifest is None,
        )
        if manifest is not None and opened.root is not None:
            model._owns_backbone = backbone is None and manifest.backbone_id == model_folder.BACKBONE_FOLDER
            try:
                model._require_widths(manifest, opened.name)
                model._load_weights(opened.root, manifest)
            except Exception:
                model.detach()
                raise
        return model.eval()

    def load_weights(self, folder: str | os.PathLike[str]) -> None:
        """Weights of a folder that this model wrote earlier, in place of the present ones: adapter, LoRA, and the
        backbone's own where the folder holds them. Training resumes so.

        Raises:
            CheckpointError: the folder is damaged, or its parts are not those of this model.
        """
        root, manifest = Path(folder), model_folder.read_manifest(folder, adapter=self._adapter_spec.name)
        self._require_widths(manifest, folder)
        if manifest.lora != self.has_lora:
            has, lacks = ("the folder", "this model") if manifest.lora else ("this model", "the folder")
            raise CheckpointError(f"'{folder}' does not fit: {has} has LoRA, {lacks} has none.")
        self._load_adapter(root)
        if self._lora is not None:
            self._lora.load_weights(self._backbone_spec, root / model_folder.LORA_FOLDER, paths=manifest.module_paths)
        if manifest.backbone_id == model_folder.BACKBONE_FOLDER:
            self._load_backbone(root / model_folder.BACKBONE_FOLDER)

    def _require_widths(self, manifest: model_folder.Manifest, folder: str | os.PathLike[str]) -> None:
        made_for, has = (manifest.vision_width, manifest.decoder_width), (self._shapes.scene, self._decoder_width)
        if made_for != has:
            raise CheckpointError(
                f"'{folder}' was made for a backbone with patch features of width {made_for[0]} and a decoder of "
                f"width {made_for[1]}, got widths {has[0]} and {has[1]}. Is it a model of another size?"
            )

    def _load_weights(self, root: Path, manifest: model_folder.Manifest) -> None:
        self._load_adapter(root)
        if manifest.lora:
            self._lora = Lora.load(
                self.backbone, self._backbone_spec, root / model_folder.LORA_FOLDER, paths=manifest.module_paths
            )

    def _load_adapter(self, root: Path) -> None:
        source = root / model_folder.ADAPTER_FILE
        weights = model_folder.read_tensors(source)
        model_folder.require_same_tensors(weights, self.adapter.state_dict(), source=source)
        self.adapter.load_state_dict(weights)

    def _load_backbone(self, folder: Path) -> None:
        """The backbone's own weights, under whatever LoRA is on it."""
        saved = load_backbone(folder, backbone_plugin=self._backbone_spec.name).state_dict()
        own = self.backbone.state_dict()
        self.backbone.load_state_dict({**own, **{name: saved[bare] for name, bare in _bare_names(own)}})

    def _save_backbone(self, folder: Path, state_dict: Mapping[str, Tensor] | None) -> None:
        """The backbone as its own class writes it, without the LoRA that may be on it."""
        own = state_dict if state_dict is not None else self.backbone.state_dict()
        self.backbone.save_pretrained(folder, state_dict={bare: own[name] for name, bare in _bare_names(own)})

    def _manifest(self, processor: RegionProcessor, include_backbone: bool) -> model_folder.Manifest:
        config = self.backbone.config
        return model_folder.Manifest(
            adapter=self._adapter_spec.name,
            adapter_config=asdict(self.adapter_config),
            backbone=self._backbone_spec.name,
            backbone_id=model_folder.BACKBONE_FOLDER
            if include_backbone
            else model_folder.portable_backbone_id(self.backbone.name_or_path),
            backbone_revision=None if include_backbone else getattr(config, "_commit_hash", None),
            model_type=config.model_type,
            vision_width=self._shapes.scene,
            decoder_width=self._decoder_width,
            image_backend=processor.image_backend,
            lora=self.has_lora,
            module_paths=module_paths(self.backbone, self._backbone_spec),
            frame_sampling=processor.sampling,
            region_token=processor.region_token,
            tokens=self.tokens,
            plugins=model_folder.origins_of(adapter=self._adapter_spec.name, backbone=self._backbone_spec.name),
            versions=model_folder.library_versions(),
        )

    def _embedding(self) -> Any:
        """The token embedding; a wrapper of PEFT's where rows of it train."""
        return self.backbone.get_submodule(self._backbone_spec.parts.token_embedding)

    @contextmanager
    def _regions_in(
        self, input_ids: Tensor, regions: RegionBatch | None, inputs: Mapping[str, Any]
    ) -> Iterator[Tensor]:
        """Splice for the length of one call; yields the ids that the backbone may read."""
        if regions is None:
            self._require_no_placeholders(input_ids)
            yield input_ids
            return
        if regions.adapter != self._adapter_spec.name:
            raise SpliceError(
                f"The regions were planned for adapter '{regions.adapter}', this model has '{self._adapter_spec.name}'."
            )
        if regions.placeholder_id != self.tokens.placeholder:
            raise SpliceError(
                f"The batch has object tokens where token {regions.placeholder_id} stands, this model has them where "
                f"token {self.tokens.placeholder} stands. Make it with the processor that was made with the model."
            )
        with self._alone():
            yield from self._splice_in(input_ids, regions, inputs)

    def _alone(self) -> threading.RLock:
        """Held while hooks are on the backbone."""
        return _ONE_CALL.setdefault(self.backbone, threading.RLock())

    @contextmanager
    def _read_by(self, reader: Reader | None) -> Iterator[None]:
        """Capture hidden states for the length of one call, where somebody reads them."""
        if reader is None:
            yield
            return
        decoder = self.backbone.get_submodule(self._backbone_spec.parts.decoder)
        norm = self.backbone.get_submodule(self._backbone_spec.parts.norm)
        with self._alone(), captured_hidden(decoder, norm, reader):
            yield

    # -- masks ---------------------------------------------------------------------------------------------------

    def _require_own_masks(self, masks: MaskBatch | None, input_ids: Tensor) -> None:
        if masks is None:
            return
        if masks.adapter != self._adapter_spec.name or self._adapter_spec.masks is None:
            raise SpliceError(
                f"The masks are of adapter '{masks.adapter}', this model has '{self._adapter_spec.name}'."
            )
        if len(masks.clip_of_sample) != len(input_ids):
            raise SpliceError(
                f"The masks are of {len(masks.clip_of_sample)} samples, but input_ids has {len(input_ids)} rows."
            )
        if masks.token_id != self.tokens.mask:
            raise SpliceError(
                f"The batch has masks where token {masks.token_id} stands, this model gives them where token "
                f"{self.tokens.mask} stands. Make it with the processor that was made with the model."
            )

    def _mask_head(self) -> MaskHead:
        return MaskHead(self.adapter, name=self._adapter_spec.name, token_id=self.tokens.mask)

    def _learn(
        self,
        input_ids: Tensor,
        regions: RegionBatch | None,
        masks: MaskBatch | None,
        num_objects: Tensor | int | None,
        inputs: Mapping[str, Any],
    ) -> Any:
        """`forward` with labels, of an adapter with a mask head."""
        head, inputs = self._mask_head(), {**inputs, "return_dict": True}
        reader = head.reader(input_ids, masks)
        with self._regions_in(input_ids, regions, inputs) as readable_ids, self._read_by(reader):
            output = self.backbone(input_ids=readable_ids, **inputs)
        if reader is None or masks is None:
            return head.added_to(output, {})
        hidden = reader.states().to(self.device)
        losses = head.losses(hidden, masks.to(self.device, non_blocking=True))
        divisor = len(hidden) if num_objects is None else num_objects
        return head.added_to(output, {name: each.sum() / divisor for name, each in losses.items()})

    def _generate_masks(
        self,
        input_ids: Tensor,
        regions: RegionBatch | None,
        masks: MaskBatch,
        force: bool,
        inputs: Mapping[str, Any],
    ) -> GeneratedMasks:
        """`generate` where masks are asked for."""
        start, own = input_ids.shape[1], self.backbone.generation_config
        options = {**inputs, "return_dict_in_generate": True}
        if force:
            given = inputs.get("logits_processor") or ()
            last = forced_mask(masks, start=start, options=inputs, own=own)
            options["logits_processor"] = LogitsProcessorList([*given, last])
        states = GeneratedStates(start - 1)
        with self._regions_in(input_ids, regions, inputs) as readable_ids, self._read_by(states):
            output = self.backbone.generate(input_ids=readable_ids, **options)
        objects = self._mask_head().objects(output, states, masks.to(self.device), start=start)
        asked = generation_option("return_dict_in_generate", inputs, (inputs.get("generation_config"), own))
        return GeneratedMasks(output.sequences, objects, output if asked else None)

    # -- the splice ----------------------------------------------------------------------------------------------

    def _require_no_placeholders(self, input_ids: Tensor) -> None:
        """A batch that lost its `regions` on the way would have the decoder read the placeholder's unused embedding."""
        if (input_ids == self.tokens.placeholder).any():
            raise SpliceError(
                "The batch has placeholders for object tokens but no 'regions'. Was it dropped on the way? With the "
                "Hugging Face Trainer use RegionTrainer, or remove_unused_columns=False and a collator that keeps it."
            )

    def _splice_in(self, input_ids: Tensor, regions: RegionBatch, inputs: Mapping[str, Any]) -> Iterator[Tensor]:
        """The body of `_regions_in`, while no other thread splices into this backbone."""
        slots = number_slots(input_ids, regions.placeholder_id, regions.tokens_per_sample())
        regions = regions.to(self.device, non_blocking=True)
        crops = self._encode(regions)
        native = NativeCall(self.backbone.config, {"input_ids": input_ids, **inputs}, self.tokens.native)
        with captured_scene(self.backbone, self._backbone_spec, regions.scene, native) as scene:
            decoder = self.backbone.get_submodule(self._backbone_spec.parts.decoder)
            with spliced(decoder, slots, lambda: self._tokenize(regions, Features(crops, scene()))):
                yield self._readable(input_ids, regions.placeholder_id)

    def _readable(self, input_ids: Tensor, placeholder_id: int) -> Tensor:
        """Where the embedding table has no spare row for the placeholder, another id stands in for it."""
        if placeholder_id < self._num_embeddings:
            return input_ids
        return input_ids.masked_fill(input_ids == placeholder_id, _READABLE_ID)

    def _encode(self, regions: RegionBatch) -> FeatureGrids | None:
        """All crops of the batch through the vision tower."""
        if not regions.crop_grids_hw:
            return None
        tower = self.backbone.get_submodule(self._backbone_spec.parts.vision_tower)
        parameter = next(tower.parameters())
        crops = regions.to(parameter.device).normalised_crops(parameter.dtype)
        most = _VALUES_A_CALL / self._shapes.crop if parameter.device.type == "cpu" else math.inf
        packs = _packs([h * w for h, w in regions.crop_grids_hw], most)
        grids = FeatureGrids.joined([self._backbone_spec.crops.encode(self.backbone, crops[pack]) for pack in packs])
        if grids.grids_hw != regions.crop_grids_hw:
            raise SpliceError(
                f"Backbone '{self._backbone_spec.name}' was given crops of {regions.crop_grids_hw} patches "
                f"and returned {grids.grids_hw}."
            )
        return grids

    def _tokenize(self, regions: RegionBatch, features: Features) -> Tensor:
        views = tuple(view and view.encoded(features) for view in regions.views)
        with in_plugin(f"adapter '{self._adapter_spec.name}'", "forward"):
            tokens = self.adapter(views, regions.counts)
            self._require_promised(tokens, regions.counts)
        return tokens

    def _require_promised(self, tokens: Any, counts: Sequence[int]) -> None:
        expected = (sum(counts), self._decoder_width)
        promised = (
            f"Adapter '{self._adapter_spec.name}' promised {expected[0]} object tokens of width {expected[1]} "
            f"for {len(counts)} regions"
        )
        if not isinstance(tokens, Tensor):
            raise SpliceError(f"{promised} but its module returned {type(tokens).__name__}, not a tensor.")
        if tuple(tokens.shape) != expected:
            raise SpliceError(f"{promised} but returned {tuple(tokens.shape)}.")
        if not tokens.is_floating_point():
            raise SpliceError(f"{promised} but returned integers ({tokens.dtype}).")


def _packs(sizes: Sequence[int], most: float) -> list[slice]:
    """Runs of consecutive items of at most `most` in all, or of one that is larger."""
    starts, total = [0], 0
    for index, size in enumerate(sizes):
        if total and total + size > most:
            starts.append(index)
            total = 0
        total += size
    return [slice(start, end) for start, end in pairwise([*starts, len(sizes)])]


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


def shapes_of(backbone: Any, spec: BackboneSpec, adapter: AdapterSpec) -> Shapes:
    """What the adapter's module is built for."""
    crop = spec.crops.width(backbone.config)
    decoder = int(_submodule(backbone, spec.parts.token_embedding).embedding_dim)
    scene = {"patches": crop, "cells": crop * spec.cell_side(backbone.config) ** 2, "projected": decoder}
    layers = (_submodule(backbone, path) for path in spec.parts.projector_layers)
    return Shapes(
        crop=crop,
        scene=scene[adapter.scene],
        decoder=decoder,
        projector=tuple((layer.out_features, layer.in_features) for layer in layers),
    )


def _submodule(backbone: nn.Module, path: str) -> Any:
    return backbone.get_submodule(path)


def projector_layers(backbone: Any, spec: BackboneSpec) -> tuple[nn.Module, ...]:
    """What an untrained adapter may start from. Nothing, where the weights are codes, as in a quantized backbone whose
    projector was not left out."""
    layers = tuple(backbone.get_submodule(path) for path in spec.parts.projector_layers)
    plain = all(type(layer) is nn.Linear and type(layer.weight) is nn.Parameter for layer in layers)
    return layers if plain or not getattr(backbone, "is_quantized", False) else ()


def _require_mask_id(tokens: TokenIds, adapter: AdapterSpec) -> None:
    if adapter.masks is not None and tokens.mask is None:
        raise AttachError(
            f"Adapter '{adapter.name}' gives masks where '{adapter.masks.token}' is said, but `tokens` has no id "
            "for it. Take the tokens of a RegionProcessor that was made for this adapter."
        )


def _require_modules(backbone: nn.Module, spec: BackboneSpec, adapter: AdapterSpec) -> None:
    parts = ("vision_tower", "projector", "decoder", "token_embedding")
    paths = [(part, getattr(spec.parts, part)) for part in parts]
    if adapter.masks is not None:
        paths.append(("final_norm", spec.parts.norm))
    paths += [("projector_layers", path) for path in spec.parts.projector_layers]
    for part, path in paths:
        try:
            backbone.get_submodule(path)
        except AttributeError as error:
            unsaid = part == "final_norm" and spec.parts.final_norm is None
            hint = "Set Parts.final_norm." if unsaid else "Is the plugin older than transformers?"
            raise AttachError(
                f"Backbone plugin '{spec.name}' looks for its {part} at '{path}', which this "
                f"{type(backbone).__name__} does not have: {error}. {hint}"
            ) from error
