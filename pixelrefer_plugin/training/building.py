"""Makes the parts of a run from its configuration: model, processor, data, and the Hugging Face `Trainer`'s arguments.

It loads and puts together; it starts nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch.utils.data import Subset
from transformers import TrainingArguments, set_seed

from ..contracts.backbone import BackboneSpec
from ..contracts.samples import RegionSample
from ..conversation.token_ids import TokenIds
from ..data.dataset import MixedDataset, RegionDataset, files_shown
from ..errors import CheckpointError, ConfigError, PromptError, TrainingError, text_of
from ..model import RegionModel
from ..plugins import backbone_for, get_adapter, require_adapter_name
from ..processor import RegionProcessor
from ..weights import hub, model_folder
from ..weights.loading import load_backbone, load_config, require_loadable
from .collator import RegionCollator
from .config import (
    DataSection,
    ModelSection,
    SourceSection,
    TrainConfig,
    recipe_rules,
    unknown_recipe,
)
from .groups import apply_recipe, trained_tokens
from .guards import never_said, says_masks
from .recipes import (
    RECIPES,
    Recipe,
    coarse_group,
    keep_quantized_weights,
    listed,
    quantization_options,
    recipes_for,
)

_LOOKED_AT = 200  # samples, to see whether they teach masks


@dataclass(frozen=True)
class BuiltModel:
    """A model ready to train.

    Attributes:
        model: its trainable parameters are those of the recipe.
        processor: with the run's budgets, which are saved with it.
        recipe: the one that it was made ready by.
        rates: learning rate of each group that trains.
        notes: what the user should know before the first step.
    """

    model: RegionModel
    processor: RegionProcessor
    recipe: Recipe
    rates: Mapping[str, float]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Part:
    """One file of a run's data: how it is called, how many samples it has and how many it gives an epoch, and what its
    format left out of it."""

    name: str
    format: str
    num_samples: int
    num_per_epoch: int
    left_out: str = ""


@dataclass(frozen=True)
class BuiltData:
    """Samples of one side, training or held out.

    Attributes:
        dataset: gives samples by index; None where there are none.
        parts: the files it is made of.
    """

    dataset: Any = None
    parts: Sequence[Part] = field(default_factory=tuple)

    def __len__(self) -> int:
        return 0 if self.dataset is None else len(self.dataset)


# -- model -------------------------------------------------------------------------------------------------


def choose_recipe(config: TrainConfig) -> Recipe:
    """The recipe that a configuration names: a built-in one, or one of the adapter's own.

    Raises:
        ConfigError: there is none of that name, or something in the configuration does not go with it.
        PixelReferError: it is not built in, and the adapter cannot be found.
    """
    if config.recipe in RECIPES:
        _require_something_to_train(RECIPES[config.recipe], config.model)
        return RECIPES[config.recipe]
    recipes = recipes_for(get_adapter(_adapter_name(config.model)))
    if config.recipe not in recipes:
        raise ConfigError(f"recipe: {unknown_recipe(config.recipe, recipes)}")
    recipe = recipes[config.recipe]
    problems = [f"{key}: {text}" for key, text in recipe_rules(config, recipe)]
    if problems:
        raise ConfigError("\n".join(problems))
    return recipe


def _require_something_to_train(recipe: Recipe, section: ModelSection) -> None:
    """Refuse the adapter alone where it has nothing to train.

    Raises:
        ConfigError: says which recipes train something.
    """
    if any(coarse_group(group) != "adapter" for group in recipe.trained):
        return
    adapter = get_adapter(_adapter_name(section))
    if adapter.is_training_free:
        others = [each.name for each in RECIPES.values() if each.lora is not None or each.trains_backbone]
        raise ConfigError(
            f"recipe: '{recipe.name}' trains the adapter alone, but adapter '{adapter.name}' has nothing to train: it "
            f"points at regions in words and pictures. Take a recipe that trains LoRA or the backbone: "
            f"{listed(others)}."
        )


def _adapter_name(section: ModelSection) -> str:
    folder = hub.find_model_folder(section.backbone, {})
    own = None if folder is None else model_folder.read_manifest(folder).adapter
    return require_adapter_name(section.adapter or own, write="model.adapter=")


def build_model(config: TrainConfig, device: torch.device) -> BuiltModel:
    """The model to start from, with LoRA where the recipe wants it, and what shall train unfrozen.

    Args:
        config: resolved.
        device: where a quantised backbone is loaded to; others are moved by the trainer.

    Raises:
        PixelReferError: something cannot be loaded, or does not fit together.
    """
    require_packages(config)
    set_seed(config.optim.seed)  # the adapter's and LoRA's first weights; the same in every process
    recipe = choose_recipe(config)
    processor = build_processor(config)
    with _attention_explained(config.model.attn_implementation):
        model = _open(config, recipe, processor.tokens, _backbone_options(config.model, device))
    if config.model.quantize:
        keep_quantized_weights(model.backbone)
    kept = model.has_lora
    if kept:
        _require_lora_may_stay(config, recipe)
    elif recipe.lora is not None:
        # Those tokens which the processor knows by now.
        token_ids = processor.add_tokens(config.model.tokens) if config.model.tokens else []
        _add_lora(model, config, recipe, token_ids)
    rates, notes = apply_recipe(model, recipe, config.learning_rates)
    if kept:
        trains = f"the one of '{config.model.backbone}' trains on; r, alpha, scopes and targets are its own."
        notes = [f"lora: {trains if 'lora' in rates else 'stays as it is.'}", *notes]
    return BuiltModel(model, processor, recipe, rates, notes)


def require_packages(config: TrainConfig) -> None:
    """Refuse what needs a package that is not installed.

    Raises:
        ConfigError: names each, and how to install it.
    """
    needed: list[tuple[str, str, str]] = [("run.report_to", name, name) for name in config.run.report_to]
    if config.model.quantize:
        needed.append(("model.quantize", "bitsandbytes", "'pixelrefer-plugin[qlora]'"))
    problems = [
        f"{key}: needs {package}, which is not installed. pip install {source}, or leave it out."
        for key, package, source in needed
        if find_spec(package) is None
    ]
    if problems:
        raise ConfigError("\n".join(problems))


@contextmanager
def _attention_explained(name: str | None) -> Iterator[None]:
    """What transformers raises of an attention implementation is an error of its key, in one line.

    Raises:
        ConfigError: there is none of that name, a package is missing for it, or the backbone cannot use it.
    """
    try:
        require_loadable({"attn_implementation": name})
    except CheckpointError as error:
        raise ConfigError(f"model.attn_implementation: {error.message}") from error
    try:
        yield
    except CheckpointError as error:
        why = text_of(error.__cause__).partition(". ")[0].rstrip(".")
        if name is None or "attention" not in why:
            raise
        raise ConfigError(
            f"model.attn_implementation: '{name}' cannot be used here: {why}. Leave it out, and transformers chooses."
        ) from error


def build_processor(config: TrainConfig) -> RegionProcessor:
    """The run's processor: its tokens decide how texts are parted, its budgets how many tokens a picture has.

    Raises:
        PixelReferError: it cannot be loaded, or does not take the tokens or budgets.
    """
    section = config.model
    _require_own_backbone_plugin(section)
    processor = RegionProcessor.from_pretrained(
        section.backbone,
        adapter=_adapter_name(section),
        adapter_config=section.adapter_config,
        backbone_plugin=section.backbone_plugin,
    )
    if section.tokens:
        processor.add_tokens(section.tokens)
    _set_budgets(processor, config)
    return processor


def _backbone_options(section: ModelSection, device: torch.device) -> dict[str, Any]:
    """Options of the backbone's `from_pretrained`."""
    dtype = getattr(torch, section.dtype)
    options: dict[str, Any] = {"dtype": dtype}
    if section.attn_implementation:
        options["attn_implementation"] = section.attn_implementation
    if section.quantize:
        spec, native = _backbone_facts(section)
        options |= quantization_options(spec, native, section.quantize, dtype)
        options["device_map"] = {"": device}
    return options


def _backbone_facts(section: ModelSection) -> tuple[BackboneSpec, Any]:
    """The plugin and the config of the backbone that shall be quantised, before it is loaded."""
    source, plugin = section.backbone, section.backbone_plugin
    folder = hub.find_model_folder(source, {})
    if folder is not None:
        manifest = model_folder.read_manifest(folder)
        if manifest.backbone_id == model_folder.BACKBONE_FOLDER:
            raise TrainingError(
                f"'{source}' brings weights of its own for the backbone; they are not quantised, since the result "
                "would be saved as them. Leave model.quantize out."
            )
        source, plugin = model_folder.locate_backbone(manifest.backbone_id, folder), manifest.backbone
    native = load_config(source)
    return backbone_for(native.model_type, plugin), native


def _require_own_backbone_plugin(section: ModelSection) -> None:
    folder = hub.find_model_folder(section.backbone, {})
    own = None if folder is None else model_folder.read_manifest(folder).backbone
    if own is not None and section.backbone_plugin not in (None, own):
        raise ConfigError(
            f"model.backbone_plugin: model folder '{section.backbone}' brings its own, '{own}', got "
            f"'{section.backbone_plugin}'. Leave it out."
        )


def _open(config: TrainConfig, recipe: Recipe, tokens: TokenIds, options: dict[str, Any]) -> RegionModel:
    section, source = config.model, config.model.backbone
    if hub.find_model_folder(source, {}) is not None:
        return RegionModel.from_pretrained(
            source, adapter=section.adapter, adapter_config=section.adapter_config, **options
        )
    backbone = load_backbone(source, backbone_plugin=section.backbone_plugin, **options)
    return RegionModel.attach(
        backbone,
        adapter=_adapter_name(section),
        tokens=tokens,
        adapter_config=section.adapter_config,
        backbone_plugin=section.backbone_plugin,
        train_backbone=recipe.trains_backbone,
    )


def _add_lora(model: RegionModel, config: TrainConfig, recipe: Recipe, token_ids: Sequence[int]) -> None:
    options = config.lora.completed(recipe).model_dump()
    if "projector" in options["scopes"] and model.adapter_spec.framework == "object-only":
        raise TrainingError(
            f"lora.scopes has 'projector', which adapter '{model.adapter_spec.name}' never runs: it is Object-Only. "
            "Leave it out."
        )
    own = (recipe.lora or {}).get("targets")
    if own is not None and options["targets"] == tuple(own):  # else the user names them, and they must all be there
        options["targets"] = _targets_there(model, recipe, options["scopes"], own)
    model.add_lora(**options, token_ids=token_ids)


def _targets_there(model: RegionModel, recipe: Recipe, scopes: Sequence[str], targets: Sequence[str]) -> list[str]:
    """Those of a recipe's targets that this backbone has: it names them for backbones of several kinds."""
    patterns = model.backbone_spec.lora_targets
    present: set[str] = set()
    for scope in scopes:
        if scope not in patterns:
            continue  # which `add_lora` refuses, naming those that there are
        layers = [name for name, _ in model.backbone.named_modules() if re.fullmatch(patterns[scope], name)]
        inside = {name.rpartition(".")[2] for name in layers}
        if not inside & set(targets):
            raise TrainingError(
                f"Recipe '{recipe.name}' puts LoRA on {', '.join(targets)}, none of which is in scope '{scope}' of "
                f"'{model.backbone_spec.name}'. Layers there: {', '.join(sorted(inside))}. Name those to adapt in "
                "lora.targets."
            )
        present |= inside
    return [name for name in targets if name in present]


def _require_lora_may_stay(config: TrainConfig, recipe: Recipe) -> None:
    """The backbone's own weights cannot train under LoRA of an earlier run, which would be left as it is and drift
    apart from them; nor is a row added to it."""
    source = config.model.backbone
    if recipe.trains_backbone:
        raise TrainingError(
            f"'{source}' has LoRA, but recipe '{recipe.name}' trains the backbone itself. Fold it in first: pixelrefer "
            f"merge {source} OUT."
        )
    if config.model.tokens:
        raise TrainingError(
            f"'{source}' has LoRA already, to which no token rows are added. Fold it in first: pixelrefer merge."
        )


def _set_budgets(processor: RegionProcessor, config: TrainConfig) -> None:
    """Write the run's budgets into the processor, which is saved with the model and so asks as it learnt."""
    data = config.data
    processor.sampling = config.frame_sampling or processor.sampling
    images, videos = processor.native.image_processor, getattr(processor.native, "video_processor", None)
    _set_area(images, shortest=data.min_pixels, longest=data.max_pixels, keys="data.min_pixels and data.max_pixels")
    _set_area(videos, shortest=None, longest=data.max_video_pixels, keys="data.max_video_pixels")


def _set_area(native: Any, *, shortest: int | None, longest: int | None, keys: str) -> None:
    """transformers' processors that size by area keep its bounds, oddly, as `shortest_edge` and `longest_edge`."""
    given = {"shortest_edge": shortest, "longest_edge": longest}
    given = {name: area for name, area in given.items() if area is not None}
    if not given:
        return
    if "max_pixels" not in getattr(native, "valid_kwargs", type("none", (), {})).__annotations__:
        unset = " ".join(f"{key}=null" for key in keys.split(" and "))
        raise ConfigError(
            f"{keys}: this backbone's {type(native).__name__} does not size by area. Leave them out, in "
            f"a command line by {unset}; data.max_tokens bounds the length of a sample for every backbone."
        )
    bounds = {name: native.size[name] for name in ("shortest_edge", "longest_edge")} | given
    if bounds["shortest_edge"] > bounds["longest_edge"]:
        raise ConfigError(
            f"{keys}: at least {bounds['shortest_edge']} and at most {bounds['longest_edge']} pixels exclude each "
            "other; one of them is the backbone's own. Give both."
        )
    native.size = type(native.size)(**bounds)


def check_masks(built: BuiltModel, train: BuiltData) -> list[str]:
    """Whether what the first samples show of masks can be learnt by what trains.

    Returns:
        What the user should know before the first step.

    Raises:
        TrainingError: there are masks to learn, and the decoder would never say the token that they are made for.
    """
    model, token_id = built.model, built.processor.tokens.mask
    teaching = [] if token_id is None else _teaching_masks(train.dataset)
    if token_id is None or not teaching:
        return []
    if not says_masks(model, built.rates, token_id):
        raise never_said(model, teaching)
    if "decoder" in built.rates or ("token_rows" in built.rates and token_id in trained_tokens(model)):
        return []
    return [
        "masks: LoRA trains, but not the rows of the token that masks are made for, which it was made without. Fold it "
        "in (pixelrefer merge), and the recipe trains those rows too."
    ]


def _teaching_masks(dataset: Any) -> list[str]:
    """Names of those samples that teach masks, among some that are spread evenly over a dataset."""
    places = np.linspace(0, len(dataset) - 1, min(_LOOKED_AT, len(dataset)), dtype=int)
    found = [each for each in dataset.__getitems__(places.tolist()) if isinstance(each, RegionSample)]
    return [each.name for each in found if _teaches_masks(each)]


def _teaches_masks(sample: RegionSample) -> bool:
    try:
        return bool(sample.targets)
    except PromptError:  # what is wrong with it, its batch says
        return False


# -- data --------------------------------------------------------------------------------------------------


def build_data(sources: Sequence[SourceSection], *, seed: int) -> BuiltData:
    """The samples of some files, mixed by their weights. Nothing but their index is read.

    Raises:
        DataError: a file is of no known format, or cannot be read.
        TrainingError: there are no samples.
    """
    if not sources:
        return BuiltData()
    opened = [open_source(source) for source in sources]
    parts = [_part(source, dataset) for source, dataset in zip(sources, opened, strict=True)]
    limited = [_limited(source, dataset) for source, dataset in zip(sources, opened, strict=True)]
    weights = [source.weight for source in sources]
    plain = len(limited) == 1 and weights == [1.0]
    dataset = limited[0] if plain else MixedDataset(list(zip(limited, weights, strict=True)), seed=seed)
    if not len(dataset):
        raise TrainingError(f"There are no samples in {', '.join(source.path for source in sources)}.")
    return BuiltData(dataset, parts)


def open_source(source: SourceSection) -> RegionDataset:
    """All samples of one file; its limit and weight are not applied yet."""
    return RegionDataset.open(
        source.path,
        format=source.format,
        media_root=source.media_root,
        strict_media=source.strict_media,
        options=source.options or None,
    )


def _limited(source: SourceSection, dataset: RegionDataset) -> Any:
    if source.limit is None or source.limit >= len(dataset):
        return dataset
    return _First(dataset, source.limit)


class _First(Subset[Any]):
    """The first samples of a dataset."""

    def __init__(self, dataset: RegionDataset, limit: int) -> None:
        super().__init__(dataset, range(limit))  # type: ignore[arg-type]  # any with __getitem__ will do
        self.name = f"the first {limit} of {dataset.name}"

    def media(self, index: int) -> list[str | os.PathLike[str]]:
        """As of the dataset."""
        return files_shown(self.dataset, index)


def _part(source: SourceSection, dataset: RegionDataset) -> Part:
    used = len(dataset) if source.limit is None else min(source.limit, len(dataset))
    return Part(source.path, dataset.format, used, round(used * source.weight), dataset.left_out_text)


def build_collator(processor: RegionProcessor, section: DataSection) -> RegionCollator:
    """Budgets of pixels and frames are the processor's own by now."""
    return RegionCollator(
        processor,
        max_tokens=section.max_tokens,
        on_bad_sample=section.on_bad_sample,
        on_long_sample=section.on_long_sample,
    )


# -- arguments ---------------------------------------------------------------------------------------------


def num_processes() -> int:
    """How many processes train together, as the launcher says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def accumulation_steps(config: TrainConfig) -> int:
    """Batches whose gradients make an optimizer step.

    Raises:
        ConfigError: the global batch size cannot be made of whole batches of every process.
    """
    together = config.optim.batch_size * num_processes()
    total = config.optim.global_batch_size or together
    if total % together:
        raise ConfigError(
            f"optim.global_batch_size must be a multiple of batch_size times processes ({config.optim.batch_size} x "
            f"{num_processes()} = {together}), got {total}."
        )
    return total // together


def has_bf16() -> bool:
    """Whether there is a GPU that computes in bfloat16."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported()


def training_arguments(config: TrainConfig) -> TrainingArguments:
    """What the Hugging Face `Trainer` is told by a resolved config."""
    optim, run = config.optim, config.run
    accumulated = accumulation_steps(config)
    has_accelerator = torch.accelerator.is_available()
    return TrainingArguments(
        output_dir=run.out,
        num_train_epochs=optim.epochs or 1.0,
        max_steps=optim.steps or -1,
        per_device_train_batch_size=optim.batch_size,
        per_device_eval_batch_size=config.evaluation.batch_size,
        gradient_accumulation_steps=accumulated,
        lr_scheduler_type=optim.schedule,
        warmup_steps=optim.warmup_ratio,
        weight_decay=optim.weight_decay,
        max_grad_norm=optim.max_grad_norm,
        bf16=optim.precision == "bf16",
        **(_checkpointing_options() if optim.gradient_checkpointing else {}),
        seed=optim.seed,
        logging_steps=run.log_every,
        save_strategy="steps" if run.save_every else "no",
        save_steps=run.save_every or 500,
        save_total_limit=run.keep,
        eval_strategy="steps" if run.eval_every and config.data.eval else "no",
        eval_steps=run.eval_every,
        report_to=[name for name in run.report_to if name != "tensorboard"],  # which has a folder of its own here
        disable_tqdm=True,
        remove_unused_columns=False,
        prediction_loss_only=True,
        dataloader_num_workers=config.data.workers,
        dataloader_persistent_workers=config.data.workers > 0,
        dataloader_pin_memory=has_accelerator,
        use_cpu=not has_accelerator,
    )


def _checkpointing_options() -> dict[str, Any]:
    """transformers has renamed them."""
    known = {each.name for each in fields(TrainingArguments)}
    name = "activation_checkpointing" if "activation_checkpointing" in known else "gradient_checkpointing"
    return {name: True, f"{name}_kwargs": {"use_reentrant": False}}
