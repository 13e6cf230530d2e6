"""`TrainConfig`: everything that `pixelrefer train` may be told, checked before anything is loaded.

Its fields and their texts are the reference table of docs/training.md. It knows no model: what depends on one, such as
whether a LoRA target matches, is checked when the model is there.
"""

from __future__ import annotations

import json
import os
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from ..errors import ConfigError, PixelReferError, VideoError, did_you_mean, nearest, shown
from ..media.video import FrameSampling
from ..plugins import get_adapter, require_adapter_name
from ..weights import model_folder
from ..weights.hub import is_path
from ..weights.model_folder import BUILTIN_PREFIX
from .recipes import GROUPS, LORA_DEFAULTS, PART_OF_ADAPTER, RECIPES, Recipe, coarse_group, recipes_for
from .yaml_file import Document, read_yaml

_LARGEST = 2**31 - 1
Positive = Annotated[int, Field(ge=1, le=_LARGEST)]
Rate = Annotated[float, Field(gt=0, lt=1)]
Scope = Literal["decoder", "projector", "vision_tower"]


def _group_name(name: str) -> str:
    if coarse_group(name) not in GROUPS:
        known = ", ".join(f"'{each}'" for each in GROUPS)
        raise ValueError(f"must be {known} or '{PART_OF_ADAPTER}PART'")
    return name


GroupName = Annotated[str, AfterValidator(_group_name)]


class Section(BaseModel):
    """Frozen; unknown keys refused; no value is turned into another type."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


AnySection = TypeVar("AnySection", bound=Section)


class ModelSection(Section):
    """The model to start from."""

    backbone: str
    """Hub id or folder of a plain backbone, `builtin:NAME` for a shipped one, or our model folder to go on from."""
    backbone_plugin: str | None = None
    """Name of the backbone plugin; by default found by the checkpoint's model type."""
    adapter: str | None = None
    """Name of the adapter. A plain backbone needs one; a model folder brings its own."""
    adapter_config: dict[str, Any] | str | None = None
    """Options of the adapter, for a plain backbone; `preset` among them names a preset that the others override. Or the
    name of a preset alone."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Of the backbone's weights. `auto`: bfloat16 where they are frozen and precision is bf16, else float32."""
    attn_implementation: str | None = None
    """`sdpa`, `flash_attention_2`, ...; by default transformers chooses."""
    quantize: Literal["nf4", "int8"] | None = None
    """QLoRA: the decoder's linear layers in 4 or 8 bits. Tower, projector, head and adapter are left as they are."""
    tokens: tuple[str, ...] = ()
    """Tokens to add to the tokenizer, whose embedding rows train."""


class SourceSection(Section):
    """One file of samples."""

    path: str
    """A JSON Lines or JSON file."""
    format: str = "auto"
    """Name of its data format; `auto` looks at the file."""
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Passes over it per epoch: 2 takes every sample twice, 0.25 a fixed quarter of them."""
    media_root: str | None = None
    """Folder that its media paths are below; by default the file's own."""
    strict_media: bool = False
    """Refuse samples whose media lie elsewhere, also by `..` or a symbolic link: for files of strangers."""
    options: dict[str, Any] = {}
    """Options of the data format."""
    limit: Positive | None = None
    """Only its first so many samples."""


class FramesSection(Section):
    """Which frames of videos are read."""

    num_frames: Positive | None = None
    """So many, spread evenly."""
    fps: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Or so many per second."""
    max_frames: Positive = 128
    """At most so many in both cases."""


def _as_sources(value: Any) -> Any:
    """A path, a mapping, or a list of both, as a tuple of mappings."""
    items = [value] if isinstance(value, str | dict) else value
    if not isinstance(items, list):
        return items
    return tuple({"path": item} if isinstance(item, str) else item for item in items)


def _as_eval_sources(value: Any) -> Any:
    return () if value is None else _as_sources(value)


class DataSection(Section):
    """What is learnt from, and what is held out."""

    train: Annotated[tuple[SourceSection, ...], Field(min_length=1), BeforeValidator(_as_sources)]
    """A path, or a list of paths and of mappings with the keys below."""
    eval: Annotated[tuple[SourceSection, ...], BeforeValidator(_as_eval_sources)] = ()
    """Held-out samples, given likewise."""
    max_tokens: Positive | None = None
    """Longest sample, in tokens, pictures and regions included."""
    on_bad_sample: Literal["error", "skip"] = "error"
    """Stop at a sample that cannot be used, or leave it out and list it in skipped.jsonl."""
    on_long_sample: Literal["error", "skip", "drop_turns"] = "error"
    """What to do with one that is longer than max_tokens; `drop_turns` leaves out whole turns from its end."""
    frames: FramesSection | None = None
    """Which frames of videos are read; by default as the model was trained, else 16. Saved with the model."""
    min_pixels: Positive | None = None
    """Pictures are enlarged to so many pixels, where the backbone sizes them by area. Saved with the model."""
    max_pixels: Positive | None = None
    """Pictures are shrunk to so many pixels. Saved with the model."""
    max_video_pixels: Positive | None = None
    """The same budget of the backbone's video processor, which counts as that processor does."""
    workers: Annotated[int, Field(ge=0, le=1024)] = 2
    """Processes that read and prepare samples, for each training process."""
    batching: Literal["grouped", "shuffled"] = "grouped"
    """`grouped` puts samples of similar length into a batch, so that little is padding."""


class LoraSection(Section):
    """LoRA, for recipes that add it; what is left out is as the recipe has it."""

    r: Annotated[int, Field(ge=1, le=8192)] | None = None
    """Rank; 16 where the recipe does not say otherwise."""
    alpha: Positive | None = None
    """Scaling numerator; else 32."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Dropout on LoRA's input; else 0."""
    scopes: tuple[Scope, ...] | None = None
    """Parts of the backbone that get it; else the decoder. Of none only rows of tokens train."""
    targets: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Only layers of these names, such as `q_proj`; else all linear layers of the scopes."""

    def completed(self, recipe: Recipe) -> LoraSection:
        """With what it leaves out as the recipe has it."""
        given = {name: value for name, value in self if value is not None}
        options = {**LORA_DEFAULTS, **(recipe.lora or {}), **given}
        lists = {name: tuple(options[name]) for name in ("scopes", "targets") if options[name] is not None}
        return self.model_copy(update={**options, **lists})


class OptimSection(Section):
    """Optimizer, batches and length of training."""

    epochs: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    """Passes over the training data; 1 where neither this nor steps is given."""
    steps: Positive | None = None
    """Optimizer steps, in place of epochs."""
    batch_size: Positive = 1
    """Samples that a process takes at once."""
    global_batch_size: Positive | None = None
    """Samples in an optimizer step, over all processes, made by accumulation; by default a batch of each process."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.03
    """Share of the steps in which the learning rates rise."""
    schedule: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    """How they fall."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Of matrices; biases and norms have none."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are clipped to this norm."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Of the arithmetic. `auto`: bf16 on a GPU that has it, else fp32."""
    gradient_checkpointing: bool = False
    """Compute activations again on the way back: slower, far less memory."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of the adapter's and LoRA's first weights, the order of samples, and dropout."""


class RunSection(Section):
    """What is written, and when."""

    out: str
    """Folder of the run."""
    log_every: Positive = 10
    """Steps between log entries."""
    save_every: Positive | None = 500
    """Steps between checkpoints; null keeps none."""
    keep: Positive = 2
    """Checkpoints that are kept."""
    eval_every: Positive | None = None
    """Steps between evaluations; by default only at the end."""
    report_to: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ("tensorboard",)
    """Where log entries go besides the console."""
    push_to_hub: str | None = None
    """Repository that the finished model is pushed to."""


class BenchmarkSection(Section):
    """A benchmark that the model is asked."""

    name: str
    """Name of an installed benchmark, `NAME=DIR` where its files are elsewhere, or the path of a data file of your
    own."""
    data: str | None = None
    """Folder that holds a folder for each benchmark; by default that of `$PIXELREFER_BENCHMARKS`."""
    options: dict[str, Any] = {}
    """Options of the benchmark."""
    limit: Positive | None = None
    """Only its first so many questions."""
    max_new_tokens: Positive | None = None
    """Longest answer; by default the benchmark's."""


class JudgeSection(Section):
    """The judge of benchmarks that need one."""

    model: str
    """Name of the model at the address, which every figure carries."""
    url: str | None = None
    """OpenAI-compatible address; null: only answers that the cache has."""
    key_env: str | None = None
    """Environment variable that holds the key; by default `OPENAI_API_KEY` where it is set."""
    cache: str | None = None
    """File of the judge's answers; by default evaluation/judge.jsonl in the run's folder."""
    options: dict[str, Any] = {}
    """Options of every request, such as `temperature`."""


def _as_benchmarks(value: Any) -> Any:
    """A name, a mapping, or a list of both, as a tuple of mappings."""
    if value is None:
        return ()
    items = [value] if isinstance(value, str | dict) else value
    if not isinstance(items, list):
        return items
    return tuple({"name": item} if isinstance(item, str) else item for item in items)


class EvaluationSection(Section):
    """Questions about held-out samples, asked as a user would ask them, and benchmarks."""

    samples: Annotated[int, Field(ge=0, le=_LARGEST)] = 200
    """At most so many samples, spread evenly over the held-out data; 0 asks none."""
    max_new_tokens: Positive = 64
    """Longest answer."""
    batch_size: Positive = 8
    """Questions that a process asks at once, and samples of a batch of the held-out loss."""
    benchmarks: Annotated[tuple[BenchmarkSection, ...], BeforeValidator(_as_benchmarks)] = ()
    """A benchmark, or a list of names and of mappings with the keys below."""
    benchmarks_every: Positive | None = None
    """Steps between runs of the benchmarks; by default `run.eval_every`, and always at the end."""
    judge: JudgeSection | None = None
    """Who judges answers, where a benchmark needs a judge."""
    sentences: str | None = None
    """Folder of the sentence encoder, where a benchmark needs one; by default where it was downloaded to."""


class TrainConfig(Section):
    """A training run. Read one with `load`."""

    model: ModelSection
    data: DataSection
    recipe: str = "lora"
    """What trains: one of the recipes above, or one that the adapter brings."""
    lora: LoraSection = LoraSection()
    learning_rates: dict[GroupName, Rate | None] = {}
    """Learning rate of a parameter group, in place of the recipe's; null freezes it. `adapter.PART` is a part of the
    adapter's module."""
    optim: OptimSection = OptimSection()
    run: RunSection
    evaluation: EvaluationSection = EvaluationSection()

    @classmethod
    def load(cls, path: str | os.PathLike[str], settings: Sequence[str] = ()) -> TrainConfig:
        """Read a YAML file. Relative paths in it are relative to the current folder.

        Args:
            path: the file.
            settings: `dotted.key=value` each, written over what the file says.

        Raises:
            ConfigError: everything that is wrong, a line each, with file and line.
        """
        return _checked(read_yaml(Path(path), settings, named=["learning_rates"]))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> TrainConfig:
        """As `load`, from nested mappings instead of a file."""
        return _checked(Document("config", json.loads(json.dumps(values, default=str))))

    def to_yaml(self) -> str:
        """The whole config, every key with its value, as `load` reads it."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    @property
    def frame_sampling(self) -> FrameSampling | None:
        """Which frames of videos are read; None: as the model says."""
        return FrameSampling(**self.data.frames.model_dump()) if self.data.frames else None

    def resolved(self, *, has_bf16: bool, recipe: Recipe | None = None) -> TrainConfig:
        """With what `auto` stands for, and what the recipe says of LoRA.

        Args:
            has_bf16: whether the machine has a GPU that has bf16.
            recipe: the one that `recipe` names; to be given where it is an adapter's.
        """
        optim, model, recipe = self.optim, self.model, recipe or RECIPES[self.recipe]
        precision = optim.precision if optim.precision != "auto" else ("bf16" if has_bf16 else "fp32")
        half = precision == "bf16" and not recipe.trains_backbone
        dtype = model.dtype if model.dtype != "auto" else ("bfloat16" if half else "float32")
        return self.model_copy(
            update={
                "lora": self.lora.completed(recipe),
                "optim": optim.model_copy(update={"precision": precision}),
                "model": model.model_copy(update={"dtype": dtype}),
            }
        )


def _checked(document: Document) -> TrainConfig:
    config = validated(document, TrainConfig)
    problems = list(_broken_rules(config))
    if problems:
        raise refusal(document, problems)
    return config


def validated(document: Document, root: type[AnySection]) -> AnySection:
    """Validate a document as JSON, in which lists may be tuples while types stay strict.

    Raises:
        ConfigError: everything that is wrong, a line each, with its place.
    """
    try:
        return root.model_validate_json(json.dumps(document.values, default=str))
    except ValidationError as error:
        found = _innermost(error)
        problems = [_explained(each, root) for each in found[:_MOST_TOLD]]
        more = [("", f"and {len(found) - _MOST_TOLD} more.")] if len(found) > _MOST_TOLD else []
        raise refusal(document, [*problems, *more]) from error


def _innermost(error: ValidationError) -> list[ErrorDetails]:
    """Without what pydantic says of a list because of what it says of the list's items."""
    found = error.errors(include_url=False)
    above = {each["loc"][:length] for each in found for length in range(len(each["loc"]))}
    return [each for each in found if each["loc"] not in above]


def refusal(document: Document, problems: Sequence[tuple[str, str]]) -> ConfigError:
    """What is wrong with a document: key and message of each problem, a line each, with its place."""
    lines = [": ".join(filter(None, (document.place(key), key, text))) for key, text in problems]
    return ConfigError("\n".join(lines))


# -- rules between keys ------------------------------------------------------------------------------------


def _broken_rules(config: TrainConfig) -> Iterator[tuple[str, str]]:
    """Key and message of each rule that the values break together."""
    yield from _missing_files(config)
    yield from _recipe_problems(config)
    yield from _data_rules(config.data)
    optim = config.optim
    if optim.epochs is not None and optim.steps is not None:
        yield "optim.steps", f"excludes epochs, got both ({optim.steps} and {optim.epochs:g}). Leave one out."
    if optim.global_batch_size is not None and optim.global_batch_size % optim.batch_size:
        yield (
            "optim.global_batch_size",
            f"must be a multiple of batch_size ({optim.batch_size}), got {optim.global_batch_size}.",
        )
    if config.run.push_to_hub is not None:
        yield from _repository_rule(config.run.push_to_hub)
    benchmarks = config.evaluation.benchmarks
    if config.run.eval_every is not None and not config.data.eval and not benchmarks:
        yield "run.eval_every", "needs held-out data: give data.eval."
    if config.evaluation.benchmarks_every is not None and not benchmarks:
        yield "evaluation.benchmarks_every", "needs benchmarks: give evaluation.benchmarks."
    judge = config.evaluation.judge
    if judge is not None and judge.url and "@" in judge.url:
        yield "evaluation.judge.url", "must not hold a password, since the run keeps its configuration. Use key_env."


def _repository_rule(repo_id: str) -> Iterator[tuple[str, str]]:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        yield "run.push_to_hub", f"must be the id of a repository, such as 'user/name', got {shown(repo_id)}."


def _missing_files(config: TrainConfig) -> Iterator[tuple[str, str]]:
    for kind, sources in (("train", config.data.train), ("eval", config.data.eval)):
        for index, source in enumerate(sources):
            if not _is_there(source.path, Path.is_file) and not _is_there(source.path, Path.is_dir):
                yield f"data.{kind}.{index}.path", f"expected a file at {shown(source.path)}, found none."
            if source.media_root is not None and not _is_there(source.media_root, Path.is_dir):
                yield f"data.{kind}.{index}.media_root", f"expected a folder at '{source.media_root}', found none."
    backbone = config.model.backbone
    if not backbone:
        yield "model.backbone", "must be an id or a path, got ''."
    if is_path(backbone) and not backbone.startswith(BUILTIN_PREFIX) and not _is_there(backbone, Path.is_dir):
        yield "model.backbone", f"expected a folder at '{backbone}', found none."
    if not config.run.out:
        yield "run.out", "must be a folder, got ''."
    if _is_there(config.run.out, Path.exists) and not _is_there(config.run.out, Path.is_dir):
        yield "run.out", f"must be a folder, but '{config.run.out}' is a file."


def _is_there(path: str, kind: Callable[[Path], bool]) -> bool:
    """Whether there is something of that kind; a path that the system does not take names nothing."""
    try:
        return kind(Path(path))
    except (OSError, ValueError):
        return False


def _recipe_problems(config: TrainConfig) -> Iterator[tuple[str, str]]:
    """What is wrong with the recipe or does not go with it, as far as it is known which adapter there is."""
    recipe = RECIPES.get(config.recipe)
    if recipe is not None:
        yield from recipe_rules(config, recipe)
    try:
        adapter = _adapter_told(config.model)
        if recipe is not None or adapter is None:
            return
        recipes = recipes_for(get_adapter(adapter))
    except PixelReferError as error:
        yield "model.adapter", str(error)
        return
    if config.recipe not in recipes:
        yield "recipe", unknown_recipe(config.recipe, recipes)
    else:
        yield from recipe_rules(config, recipes[config.recipe])


def _adapter_told(section: ModelSection) -> str | None:
    """The adapter's name; None where only what is not here yet can tell it. Raises of a plain backbone without one."""
    if section.adapter is not None:
        return section.adapter
    if model_folder.is_model_folder(section.backbone):
        return model_folder.read_manifest(section.backbone).adapter
    is_plain = section.backbone.startswith(BUILTIN_PREFIX) or (Path(section.backbone) / "config.json").is_file()
    return require_adapter_name(None, write="model.adapter=") if is_plain else None


def unknown_recipe(name: str, recipes: Mapping[str, Recipe]) -> str:
    """What is said of a recipe that is none of these."""
    known = ", ".join(f"'{each}'" for each in recipes)
    return f"must be {known}, got {shown(name)}.{did_you_mean(name, recipes)}"


def recipe_rules(config: TrainConfig, recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Key and message of what does not go with a recipe."""
    if config.model.quantize and recipe.trains_backbone:
        yield (
            "model.quantize",
            f"needs a frozen decoder, but recipe '{recipe.name}' trains the backbone. Use recipe lora, or leave "
            "quantize out.",
        )
    if config.model.tokens and not (recipe.trains("token_rows") or recipe.trains("decoder")):
        yield "model.tokens", f"recipe '{recipe.name}' trains no token rows. Use recipe lora."
    if recipe.lora is None and config.lora.completed(recipe) != LoraSection().completed(recipe):
        yield "lora", f"is for recipes that add LoRA, got recipe '{recipe.name}', which adds none. Leave it out."
    for group in config.learning_rates:
        if not recipe.trains(group):
            yield (
                f"learning_rates.{group}",
                f"recipe '{recipe.name}' does not train it. Groups that it trains: {', '.join(recipe.trained)}.",
            )


def _data_rules(data: DataSection) -> Iterator[tuple[str, str]]:
    if data.on_long_sample != "error" and data.max_tokens is None:
        yield "data.on_long_sample", f"'{data.on_long_sample}' needs data.max_tokens: how long is too long?"
    if data.min_pixels and data.max_pixels and data.min_pixels > data.max_pixels:
        yield "data.min_pixels", f"must be at most max_pixels ({data.max_pixels}), got {data.min_pixels}."
    if data.frames:
        try:
            FrameSampling(**data.frames.model_dump())
        except VideoError as error:
            yield "data.frames", str(error)


# -- pydantic's findings in our words ----------------------------------------------------------------------


_PLAIN = {
    "array": "a list",
    "tuple": "a list",
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
}
_MOST_TOLD = 50  # problems
_MOST_SHOWN = 60  # characters of a key
_VALID = re.compile(f"a valid ({'|'.join(_PLAIN)})")


def _explained(error: ErrorDetails, root: type[Section]) -> tuple[str, str]:
    """Dotted key and message."""
    loc = [str(part) if len(str(part)) <= _MOST_SHOWN else f"{str(part)[:_MOST_SHOWN]}..." for part in error["loc"]]
    key, got = ".".join(loc), shown(error["input"])
    match error["type"]:
        case "extra_forbidden":
            return key, _unknown_key(loc, root)
        case "missing":
            return key, f"is missing. {_described(loc, root)}"
        case "model_type" | "model_attributes_type":
            return key, f"must hold keys ({', '.join(_section_at(loc, root).model_fields)}), got {got}."
        case _:
            rule = error["msg"].removeprefix("Value error, ")
            rule = rule.replace("Input should be", "must be").replace("Tuple should", "must")
            rule = _VALID.sub(lambda found: _PLAIN[found[1]], rule)
            return key.removesuffix(".[key]"), f"{rule}, got {got}.{_nearest(error)}"


def _nearest(error: ErrorDetails) -> str:
    """The value that was meant, where one of those that there are is much like it."""
    if error["type"] != "literal_error" or not isinstance(error["input"], str):
        return ""
    known = re.findall(r"'([^']*)'", error["msg"])
    return did_you_mean(error["input"], known)


def _unknown_key(loc: Sequence[str], root: type[Section]) -> str:
    section, name = _section_at(loc[:-1], root), loc[-1]
    known = list(section.model_fields)
    near = nearest(name, known)
    elsewhere = [dotted for dotted, _ in config_keys(root) if dotted.rpartition(".")[2] == name]
    if near or elsewhere:
        return f"there is no such key. Did you mean '{near or elsewhere[0]}'?"
    return f"there is no such key. Keys here: {', '.join(known)}."


def _described(loc: Sequence[str], root: type[Section]) -> str:
    text = " ".join((_section_at(loc[:-1], root).model_fields[loc[-1]].description or "").split())
    return text or f"Keys of it: {', '.join(_section_at(loc, root).model_fields)}."


def _section_at(loc: Sequence[str], root: type[Section]) -> type[Section]:
    """The section that a location leads into; numbers of list items lead nowhere else."""
    section = root
    for part in loc:
        if part in section.model_fields:
            section = _inner_section(section.model_fields[part].annotation) or section
    return section


def _inner_section(annotation: Any) -> type[Section] | None:
    """The section in `Section`, `Section | None` or `tuple[Section, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    if get_origin(annotation) in (tuple, Union, types.UnionType, Annotated):
        return next((found for each in get_args(annotation) if (found := _inner_section(each))), None)
    return None


def config_keys(section: type[Section] = TrainConfig, above: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key and its pydantic field, in order; of a list of sections, the keys of an item."""
    for name, found in section.model_fields.items():
        dotted = f"{above}{name}"
        inner = _inner_section(found.annotation)
        if found.description:
            yield dotted, found
        if inner is not None and name != "eval":  # its keys are those of train
            yield from config_keys(inner, f"{dotted}.")
