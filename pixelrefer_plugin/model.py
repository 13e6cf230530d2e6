"""`RegionModel`: an unmodified backbone, an adapter, and the splice between them.

It knows the contracts only: which backbone and which adapter it has is the plugins' business.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from .contracts.adapter import AdapterSpec
from .contracts.backbone import BackboneSpec
from .contracts.encoded import FeatureGrids
from .contracts.module import AdapterModule, Shapes
from .conversation.token_ids import TokenIds
from .errors import AttachError, CheckpointError, PluginError, PromptError, refusing, shown
from .masks.mask_batch import MaskBatch
from .masks.mask_call import MaskCall
from .plugins import backbone_for, count_of, get_adapter, in_plugin
from .processor import RegionProcessor
from .tokens.devices import device_of, with_weights
from .tokens.region_batch import RegionBatch
from .tokens.spliced_call import SplicedCall
from .weights import hub
from .weights.loading import saved_quantized
from .weights.lora import Lora, is_lora
from .weights.model_folder import BACKBONE_FOLDER
from .weights.opening import OpenedCheckpoint, open_checkpoint
from .weights.saving import ModelParts, load_into, reload, require_adapter_fits, require_widths, save_model

# Which backbones have an adapter, without a mark on the backbone itself.
_ATTACHED: WeakKeyDictionary[nn.Module, ReferenceType[RegionModel]] = WeakKeyDictionary()


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
        self._shapes = shapes_of(backbone, backbone_spec, adapter_spec)
        with in_plugin("adapter", adapter_spec.name, "build"):
            adapter = adapter_spec.build(adapter_config, self._shapes)
            if not isinstance(adapter, AdapterModule):
                raise PluginError(
                    f"{getattr(adapter_spec.module, '__name__', '')}.build of adapter '{adapter_spec.name}' must make "
                    f"an AdapterModule, got a {type(adapter).__name__}."
                )
        with in_plugin("adapter", adapter_spec.name, "set_attn_implementation"):
            adapter.set_attn_implementation(backbone.config._attn_implementation)
        self.adapter: AdapterModule = adapter.to(device_of(embedding))
        # Tied weights under all their names: while one is away, it is under each a parameter of its own.
        parameters = backbone.named_parameters(remove_duplicate=False)
        self._was_trainable = {name: each.requires_grad for name, each in parameters}
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
        with in_plugin("adapter", adapter_spec.name, "config"):
            config = adapter_spec.make_config(adapter_config)
        model = cls(
            backbone,
            backbone_spec=spec,
            adapter_spec=adapter_spec,
            adapter_config=config,
            tokens=tokens,
        )
        if untrained:
            with in_plugin("adapter", adapter_spec.name, "start_from"):
                layers = projector_layers(backbone, spec)
                with with_weights(layers):
                    model.adapter.start_from(layers)
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
        self.remove_lora()
        for name, parameter in self.backbone.named_parameters(remove_duplicate=False):
            parameter.requires_grad_(self._was_trainable[name])
        self.backbone.train(self._was_training)
        _ATTACHED.pop(self.backbone, None)
        return self.backbone

    def __repr__(self) -> str:
        """A few lines; `print(model.backbone)` shows the modules."""
        parameters = list(self.named_parameters())
        trained = sum(each.numel() for _, each in parameters if each.requires_grad)
        every = sum(each.numel() for _, each in parameters)
        name = self.backbone.name_or_path
        lora = ", with LoRA" if self._lora is not None else ""
        return (
            f"RegionModel(\n  backbone: {type(self.backbone).__name__}{f' of {shown(name)}' if name else ''}{lora}\n"
            f"  adapter: {self._adapter_spec.name}, {type(self.adapter).__name__}\n"
            f"  tokens: placeholder {self.tokens.placeholder}, mask {self.tokens.mask}\n"
            f"  parameters: {every:,}, {trained:,} of them trainable\n)"
        )

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
        return self._spliced_call.device

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
        self._mask_call.require_own(masks, input_ids)
        if labels is not None:
            inputs["labels"] = labels
            if self._adapter_spec.masks is not None:
                return self._mask_call.learn(input_ids, regions, masks, num_objects_in_batch, inputs)
        with self._spliced_call.regions_in(input_ids, regions, inputs) as readable_ids:
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
        self._mask_call.require_own(masks, input_ids)
        if masks is not None:
            return self._mask_call.generate(input_ids, regions, masks, force_mask, inputs)
        if force_mask:
            raise PromptError(
                "force_mask=True needs the pictures that masks are made on. Make the inputs with "
                "processor(..., segment=True), for an adapter that gives masks."
            )
        with self._spliced_call.regions_in(input_ids, regions, inputs) as readable_ids:
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
        return self._spliced_call.object_tokens(regions, scene)

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

    def remove_lora(self) -> None:
        """Take LoRA off again, without which the backbone is what it was; does nothing where there is none."""
        if self._lora is not None:
            self._lora.remove()
            self._lora = None

    def merge_lora(self) -> None:
        """Fold LoRA into the backbone's own weights, which are saved with the model from then on.

        Raises:
            AttachError: there is no LoRA, or the backbone is quantized.
        """
        if self._lora is None:
            raise AttachError("This model has no LoRA to merge.")
        if getattr(self.backbone, "is_quantized", False):
            raise AttachError(_unmergeable(self.backbone))
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
        trained = self._owns_backbone or any(
            each.requires_grad for name, each in self.backbone.named_parameters() if not is_lora(name)
        )
        include = trained if include_backbone is None else include_backbone
        if trained and not include:
            raise CheckpointError(
                "The backbone's own weights were trained; without them the folder would not "
                "give this model back. Leave include_backbone out, or pass True."
            )
        save_model(folder, self._parts, processor, overwrite=overwrite, include_backbone=include, state_dict=state_dict)

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
        with refusing(CheckpointError, f"No model can be made of '{opened.name}'"):
            if opened.root is not None:
                _require_weights_fit(opened, loaded, opened.root)
            model = cls._attach(
                loaded,
                opened.adapter,
                opened.adapter_config,
                opened.backbone_plugin,
                tokens,
                untrained=manifest is None,
            )
        if manifest is not None and opened.root is not None:
            model._owns_backbone = backbone is None and manifest.backbone_id == BACKBONE_FOLDER
            try:
                with refusing(CheckpointError, f"The weights of '{opened.name}' cannot be loaded"):
                    model._lora = load_into(model._parts, opened.root, manifest)
            except BaseException:
                model.detach()
                raise
        return model.eval()

    def load_weights(self, folder: str | os.PathLike[str]) -> None:
        """Weights of a folder that this model wrote earlier, in place of the present ones: adapter, LoRA, and the
        backbone's own where the folder holds them. Training resumes so.

        Raises:
            CheckpointError: the folder is damaged, or its parts are not those of this model.
        """
        reload(self._parts, folder)

    # Made anew for each call: a wrapper, such as FSDP's, may replace a part.

    @property
    def _spliced_call(self) -> SplicedCall:
        return SplicedCall(
            backbone=self.backbone,
            spec=self._backbone_spec,
            adapter=self.adapter,
            adapter_name=self._adapter_spec.name,
            tokens=self.tokens,
            shapes=self._shapes,
            num_embeddings=self._num_embeddings,
        )

    @property
    def _mask_call(self) -> MaskCall:
        return MaskCall(self._spliced_call, self.tokens.mask)

    @property
    def _parts(self) -> ModelParts:
        return ModelParts(
            backbone=self.backbone,
            backbone_spec=self._backbone_spec,
            adapter=self.adapter,
            adapter_spec=self._adapter_spec,
            adapter_config=self.adapter_config,
            tokens=self.tokens,
            shapes=self._shapes,
            lora=self._lora,
        )


def _unmergeable(backbone: Any) -> str:
    """Why LoRA is not folded into a quantized backbone, and what to do."""
    why = "LoRA cannot be merged into a quantized backbone without loss."
    name = backbone.name_or_path
    if saved_quantized(name):
        return (
            f"{why} '{name}' is itself saved in few bits: name the one that it was made of, in 16 bits or more. On "
            "the command line --backbone ID, in Python RegionModel.from_pretrained(folder, backbone=ID)."
        )
    return f"{why} Load the folder unquantized: RegionModel.from_pretrained(folder, dtype='bfloat16')."


def _require_weights_fit(opened: OpenedCheckpoint, backbone: Any, root: Path) -> None:
    """Refuse options of an adapter that its weights do not have, before as much memory is taken as they ask for."""
    spec = get_adapter(opened.adapter)
    shapes = shapes_of(backbone, backbone_for(backbone.config.model_type, opened.backbone_plugin), spec)
    assert opened.manifest is not None, "a model folder has one"
    require_widths(shapes, opened.manifest, opened.name)
    require_adapter_fits(spec, spec.make_config(opened.adapter_config), shapes, root)


def shapes_of(backbone: Any, spec: BackboneSpec, adapter: AdapterSpec) -> Shapes:
    """What the adapter's module is built for."""
    crop = count_of("backbone", spec.name, "crops.width", spec.crops.width, backbone.config)
    in_a_row = count_of("backbone", spec.name, "cells.side", spec.cell_patches, backbone.config)
    decoder = int(_submodule(backbone, spec.parts.token_embedding).embedding_dim)
    scene = {"patches": crop, "cells": crop * in_a_row, "projected": decoder}
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
