"""`RegionTrainer`: the Hugging Face `Trainer` for a `RegionModel`.

The loop, mixed precision, accumulation and several processes are transformers' and accelerate's. Here are learning
rates per parameter group, batches of similar length, guards, checkpoints that are whole or absent, and held-out
evaluation. It knows no data format and no configuration file.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate.utils import gather_object
from safetensors import SafetensorError
from torch import Tensor
from torch.utils.data import Sampler
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.trainer_callback import ExportableState

from ..contracts.masks import MaskTargets
from ..conversation.expansion import IGNORE_INDEX
from ..errors import CheckpointError, TrainingError, shown
from ..masks.mask_batch import MaskBatch
from ..model import RegionModel
from ..processor import RegionProcessor
from ..weights.lora import is_lora
from .checkpoints import (
    MODEL_FOLDER,
    checkpoint_path,
    checkpoints_folder,
    latest_checkpoint,
    partial_folder,
    publish,
    reading,
    remove_left_over,
    require_resumable,
    rotate,
    write_run,
)
from .collator import RegionCollator
from .groups import NamedParameters, optimizer_groups, require_learning_rates_used, trainable_groups
from .guards import GradientGuard, never_said, not_finite, require_supervised, says_masks
from .randomness import EpochSampler, SeededCollator, SeededDataset, seed_random, seeded
from .recipes import coarse_group
from .sampling import sample_order

_STATE_FILE = "trainer_state.json"
_HOW_TO_PUSH = "Upload the finished model: model.push_to_hub(repo_id, processor)."
_OWN_KEYS = ("sample_names", "skipped")  # of a batch, for us and not for the model

# What decides the course of a run that gives no configuration of its own.
_DECISIVE = (
    "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate", "lr_scheduler_type", "warmup_steps",
    "weight_decay", "max_grad_norm", "optim", "adam_beta1", "adam_beta2", "adam_epsilon", "seed", "data_seed", "bf16",
    "fp16", "max_steps", "num_train_epochs",
)  # fmt: skip


class RegionTrainer(Trainer):
    """Trains a `RegionModel`.

    `args` is completed: unused columns are kept, since the collator makes the batch, and DistributedDataParallel does
    not look for unused parameters unless parts of the backbone train in full, some of which its forward never reads.

    Args:
        model: the model; what has `requires_grad` trains.
        args: transformers' own; checkpoints go to `checkpoints/` in its `output_dir`.
        processor: what prepared the samples; saved with the model.
        collator: makes batches.
        train_dataset: a `RegionDataset`, or another that gives `RegionSample`s.
        eval_dataset: held-out samples.
        learning_rates: per parameter group (see `groups`), `adapter.PART` for a part of the adapter's module; the
            others have `args.learning_rate`.
        batching: `grouped` puts samples of similar length into a batch, `shuffled` any.
        run: the whole configuration of the run, kept in each checkpoint: only a run with the same resumes from it.
        answers: called with the model in every evaluation, on all processes; its numbers join the metrics.
        benchmarks: called with the model every so many steps, on all processes; its numbers are logged.
        benchmarks_every: steps between these calls; None: only `measure` calls it.
        callbacks: further callbacks.

    Raises:
        TrainingError: nothing trains, a learning rate is for a group that does not, `args.push_to_hub` is set, or
            DeepSpeed's ZeRO-3 is to train an adapter with a mask head.
    """

    def __init__(
        self,
        model: RegionModel,
        args: TrainingArguments,
        *,
        processor: RegionProcessor,
        collator: RegionCollator,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        learning_rates: Mapping[str, float] | None = None,
        batching: Literal["grouped", "shuffled"] = "grouped",
        run: Mapping[str, Any] | None = None,
        answers: Callable[[RegionModel], dict[str, float]] | None = None,
        benchmarks: Callable[[RegionModel], dict[str, float]] | None = None,
        benchmarks_every: int | None = None,
        callbacks: Sequence[TrainerCallback] | None = None,
    ) -> None:
        groups = trainable_groups(model, learning_rates or {})
        require_learning_rates_used(groups, learning_rates or {})
        if args.push_to_hub:
            raise TrainingError(f"args.push_to_hub would upload checkpoints. {_HOW_TO_PUSH}")
        args.remove_unused_columns = False
        args.label_names = ["labels"]
        if args.ddp_find_unused_parameters is None:
            args.ddp_find_unused_parameters = _may_rest(model, groups)
        assert args.output_dir is not None  # by now transformers has chosen one
        self._out = Path(args.output_dir)
        self._collator = collator
        self.region_processor = processor
        self.learning_rates = dict(learning_rates or {})
        self.batching: Literal["grouped", "shuffled"] = batching
        self.answers = answers
        self.benchmarks = benchmarks
        self._skipped: dict[str, None] = {}  # a set that keeps the order
        self._num_taught = 0
        self._given_run = run
        self._saving_into: Path | None = None
        self._has_mask_head = model.adapter_spec.masks is not None
        self._trained = frozenset(groups)
        self._num_objects = 1
        self._mask_loss = _MaskLoss()
        self._step_names: list[str] = []
        self._order = _EpochOrder()
        self._since_last_log = _SinceLastLog(self)
        self._forward_in_step = 0
        self._pace = _Pace()
        super().__init__(
            model,
            args,
            data_collator=SeededCollator(collator),
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            callbacks=[*(callbacks or ()), self._order, self._since_last_log, _Measuring(self, benchmarks_every)],
        )
        self._require_engine_for_masks(model)
        self._guard = GradientGuard(model, named=self.learning_rates, watch=self.is_deepspeed_enabled)
        self.add_callback(self._guard)

    # -- training -----------------------------------------------------------------------------------------------

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> Any:
        """As `Trainer.train`; `resume_from_checkpoint=True` takes the newest checkpoint in `output_dir`.

        Raises:
            TrainingError: no checkpoint, an incomplete one or one of another run to resume from; a guard stopped the
                training; or all samples were skipped.
        """
        if self.args.should_save:
            remove_left_over(self._out)
        resumed = self._checkpoint_to_resume(resume_from_checkpoint) if resume_from_checkpoint else None
        self._num_taught = 0
        output: Any = super().train(
            resume_from_checkpoint=str(resumed) if resumed else None,
            trial=trial,
            ignore_keys_for_eval=ignore_keys_for_eval,
        )
        if resumed is None:
            self._require_taught()
        return output

    def restore(self, checkpoint: Path) -> None:
        """The weights and the state of a checkpoint of this run, without training on from it.

        Raises:
            TrainingError: it is incomplete, or another run's.
        """
        self._checkpoint_to_resume(str(checkpoint))
        with reading(checkpoint, MODEL_FOLDER):
            self.accelerator.unwrap_model(self.model).load_weights(checkpoint / MODEL_FOLDER)
        self.state = TrainerState.load_from_json(str(checkpoint / _STATE_FILE))

    def _require_engine_for_masks(self, model: RegionModel) -> None:
        if self._has_mask_head and is_deepspeed_zero3_enabled():
            raise TrainingError(
                "DeepSpeed ZeRO-3 gathers the weights of each module when it is called, so all processes must call the "
                f"same ones equally often; parts of adapter '{model.adapter_spec.name}' run only where a "
                "batch has work for them. Use ZeRO-2 or FSDP2: examples/accelerate has deepspeed_zero2.yaml and "
                "fsdp2.yaml."
            )

    def _require_taught(self) -> None:
        skipped = self.all_skipped()
        num_taught = self.accelerator.reduce(torch.tensor(self._num_taught, device=self.args.device))
        if skipped and not num_taught:
            raise TrainingError(
                f"Nothing was learnt: every sample was left out, {len(skipped)} of them, such as: {skipped[0]} "
                "`pixelrefer validate` says what is wrong with each."
            )

    def create_optimizer(self, model: Any = None) -> Any:
        """The optimizer that `args` asks for, over parameter groups with their own learning rates."""
        if self.optimizer is None and self.optimizer_cls_and_kwargs is None:
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args)
            groups = optimizer_groups(
                self.accelerator.unwrap_model(self.model if model is None else model),
                learning_rate=self.args.learning_rate,
                learning_rates=self.learning_rates,
                weight_decay=self.args.weight_decay,
            )
            self.optimizer_cls_and_kwargs = optimizer_class, {"params": groups, **options}
        return super().create_optimizer(model)

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> Any:
        """The batches of one optimizer step, checked, and the number of tokens to learn in them."""
        batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._forward_in_step = 0
        self._step_names = [name for batch in batches for name in batch["sample_names"]]
        self._num_taught += len(self._step_names)
        for batch in batches:
            require_supervised(batch["labels"], batch["sample_names"])
            self._require_masks_said(batch)
            self._skipped.update(dict.fromkeys(batch["skipped"]))
            self._guard.saw(batch)
            self._pace.count(batch)
        if self._has_mask_head:
            self._num_objects = self._count_objects(batches)
            self._mask_loss.begin_step()
        return batches, num_items.clamp(min=1) if isinstance(num_items, Tensor) else num_items

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """As `Trainer.training_step`; what is drawn in it follows from seed, step and process alone."""
        seed_random(self.args.seed, self.state.global_step, self._forward_in_step, self.args.process_index)
        self._forward_in_step += 1
        return super().training_step(model, inputs, num_items_in_batch)

    def compute_loss(
        self, model: Any, inputs: Mapping[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The backbone's own loss per token, and that of masks per object; in training a finite one."""
        batch = {name: value for name, value in inputs.items() if name not in _OWN_KEYS}
        batch.setdefault("use_cache", False)  # nothing is generated
        if self._has_mask_head:  # in evaluation the objects' losses are added up
            batch["num_objects_in_batch"] = self._num_objects if model.training else 1
        loss, outputs = super().compute_loss(model, batch, return_outputs=True, num_items_in_batch=num_items_in_batch)
        if model.training:
            self._require_finite(loss.item(), "loss", inputs["sample_names"])
            if self._has_mask_head:
                counted_together = self.args.average_tokens_across_devices and num_items_in_batch is not None
                self._mask_loss.add(outputs["mask_loss"] * (self.args.world_size if counted_together else 1))
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """With a training loss go the masks' part of it, the pace and the number of samples that were skipped."""
        if "loss" in logs and self.is_in_train:
            if self._has_mask_head:
                mask_loss = self._mask_loss.taken(self.accelerator)
                logs.update({"lm_loss": logs["loss"] - mask_loss, "mask_loss": mask_loss})
            logs.update(self._pace.taken(self.accelerator))
            skipped = torch.tensor(len(self._skipped), device=self.args.device)
            logs["skipped_samples"] = int(self.accelerator.reduce(skipped))
        super().log(logs, start_time)

    def unlogged(self) -> dict[str, Any]:
        """What has been added up since the last entry of the log. All processes call this together."""
        loss = getattr(self, "_tr_loss", None)  # older versions of transformers keep it out of reach
        return {
            "loss": None if loss is None else self.accelerator.reduce(loss.detach().clone(), reduction="mean").item(),
            "since_step": self._globalstep_last_logged,
            "mask_loss": list(self._mask_loss.so_far(self.accelerator)) if self._has_mask_head else None,
            "skipped": self.all_skipped(),
        }

    def go_on_from(self, unlogged: Mapping[str, Any]) -> None:
        """Go on adding up from what `unlogged` said when a checkpoint was written."""
        if unlogged["loss"] is not None and hasattr(self, "_tr_loss"):
            self._tr_loss = torch.tensor(unlogged["loss"], device=self.args.device)
            self._globalstep_last_logged = unlogged["since_step"]
        if unlogged["mask_loss"]:
            self._mask_loss.go_on_from(*unlogged["mask_loss"])
        if self.args.process_index == 0:
            self._skipped.update(dict.fromkeys(unlogged["skipped"]))

    def _count_objects(self, batches: Sequence[Mapping[str, Any]]) -> int:
        """Masks to learn in the batches of one optimizer step; of all processes, where tokens are counted so too."""
        masks = [batch["masks"] for batch in batches if batch.get("masks") is not None]
        number = sum(sum(each.objects_per_sample) for each in masks)
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            number = int(self.accelerator.reduce(torch.tensor(number, device=self.args.device)))
        return max(number, 1)

    def _require_masks_said(self, batch: Mapping[str, Any]) -> None:
        masks: MaskBatch | None = batch.get("masks")
        if masks is None or not any(masks.objects_per_sample):
            return
        model = self.accelerator.unwrap_model(self.model)
        if not says_masks(model, self._trained, masks.token_id):
            raise never_said(model, batch["sample_names"])

    @property
    def skipped(self) -> tuple[str, ...]:
        """Names of the samples that the collator left out in this process, held-out ones too, and why."""
        return tuple(self._skipped)

    def all_skipped(self) -> list[str]:
        """`skipped` of all processes, which call this together."""
        return list(dict.fromkeys(gather_object(list(self._skipped))))

    def _get_dataloader(self, dataset: Any, *args: Any, **options: Any) -> Any:
        return super()._get_dataloader(SeededDataset(dataset, self._data_seed), *args, **options)

    @property
    def _data_seed(self) -> int:
        return self.args.seed if self.args.data_seed is None else self.args.data_seed

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[Any]:
        dataset: Any = self.train_dataset if train_dataset is None else train_dataset
        self._order.sampler = EpochSampler(
            sample_order(
                dataset,
                batching=self.batching,
                batch_size=self.args.train_batch_size,
                length_of=self._collator.estimated_tokens,
                seed=self._data_seed,
                num_processes=self.args.world_size,
            )
        )
        return self._order.sampler

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if norm is not None and self.accelerator.scaler is None:  # a scaler skips such a step and goes on
            self._require_finite(float(norm), "norm of the gradients", self._step_names)
        return norm

    def _require_finite(self, value: float, what: str, sample_names: Sequence[str]) -> None:
        if not math.isfinite(value):
            last = latest_checkpoint(self._out)
            raise not_finite(value, what, sample_names, step=self.state.global_step + 1, last=last)

    # -- evaluation ---------------------------------------------------------------------------------------------

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> Any:
        """Held-out loss per token and per mask, whatever the batches and processes, and the numbers of `answers`."""
        self._held_out = torch.zeros(4, device=self.args.device)  # losses added up, and how many: of tokens, of masks
        with seeded(self.args.seed, self.args.process_index):
            output: Any = super().evaluation_loop(dataloader, description, True, ignore_keys, metric_key_prefix)
        loss, tokens, mask_loss, objects = self.accelerator.reduce(self._held_out).tolist()
        metrics = {"loss": loss / tokens if tokens else float("nan")}
        if objects:
            metrics["mask_loss"] = mask_loss / objects
        if self.answers is not None:
            with seeded(self.args.seed, self.args.process_index):
                metrics |= self.answers(self.accelerator.unwrap_model(self.model))
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in metrics.items()})
        return output

    def measure(self) -> dict[str, float]:
        """The figures of the benchmarks of the model as it is, which are logged too; all processes call this together.

        Returns:
            As the log has them, `eval_` before each name.
        """
        if self.benchmarks is None:
            return {}
        with seeded(self.args.seed, self.args.process_index):
            figures = self.benchmarks(self.accelerator.unwrap_model(self.model))
        logs = {f"eval_{name}": value for name, value in figures.items()}
        if logs:
            self.log(dict(logs))
        return logs

    @torch.no_grad()
    def prediction_step(
        self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Tensor, None, None]:
        """The loss of one batch's text; logits are not kept."""
        inputs = self._prepare_inputs(inputs)
        self._skipped.update(dict.fromkeys(inputs["skipped"]))
        new_rows = self._num_new_rows()
        inputs["labels"][new_rows:] = IGNORE_INDEX
        masks: MaskBatch | None = inputs.get("masks")
        if masks is not None:
            inputs = {**inputs, "masks": _of_first_rows(masks, new_rows)}
        with self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        mask_loss = outputs["mask_loss"].float() if self._has_mask_head else torch.zeros_like(loss)
        tokens = (inputs["labels"][:, 1:] != IGNORE_INDEX).sum()
        loss = torch.where(tokens > 0, loss.float() - mask_loss, 0.0)  # of no tokens it is not a number
        objects = tokens.new_tensor(0 if masks is None else sum(masks.objects_per_sample[:new_rows]))
        self._held_out += torch.stack([loss * tokens, tokens, mask_loss, objects])
        return loss, None, None

    def _num_new_rows(self) -> int:
        """Rows of this batch that are not there again only to give every process as many."""
        state, size = self.accelerator.gradient_state, self.args.eval_batch_size
        if self.args.world_size == 1 or not state.end_of_dataloader or state.remainder <= 0:
            return size + 1  # the dummy row has no labels
        return min(max(state.remainder - self.args.process_index * size, 0), size)

    # -- checkpoints --------------------------------------------------------------------------------------------

    def push_to_hub(self, *args: Any, **kwargs: Any) -> Any:
        """Refused: Hugging Face's would upload the whole output folder."""
        raise TrainingError(f"RegionTrainer.push_to_hub would upload checkpoints. {_HOW_TO_PUSH}")

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the model folder. All processes call this; weights that are spread over them are gathered.

        Args:
            output_dir: the folder; an earlier model folder there is replaced. By default `model` in `args.output_dir`.
        """
        folder = self._out / MODEL_FOLDER if output_dir is None else Path(output_dir)
        folder = folder / MODEL_FOLDER if _internal_call else folder
        sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        state_dict = self.accelerator.get_state_dict(self.model_wrapped) if sharded else None
        if self.args.should_save:
            model = self.accelerator.unwrap_model(self.model)
            model.save_pretrained(folder, self.region_processor, state_dict=state_dict, overwrite=True)

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._saving_into or checkpoints_folder(self._out))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        checkpoint = checkpoint_path(self._out, self.state.global_step)
        self._since_last_log.note()
        with self._made_whole(checkpoint) as made:
            super()._save_checkpoint(model, trial)
            if self.state.best_model_checkpoint == str(made):
                self.state.best_model_checkpoint = str(checkpoint)
            self.accelerator.wait_for_everyone()  # each has files of its own
            if self.args.should_save:
                self.state.save_to_json(str(made / _STATE_FILE))
                write_run(made, self._run)
        if self.args.should_save:
            rotate(self._out, keep=self.args.save_total_limit, best=self.state.best_model_checkpoint)
        self.accelerator.wait_for_everyone()

    @contextmanager
    def _made_whole(self, checkpoint: Path) -> Iterator[Path]:
        """The folder that takes the checkpoint's place when the block ends, on every process, without an error."""
        self._saving_into = partial_folder(checkpoint)
        if self.args.should_save:
            shutil.rmtree(self._saving_into, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        try:
            yield self._saving_into / checkpoint.name
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                publish(checkpoint)
        except (
            OSError,
            RuntimeError,
            SafetensorError,
            CheckpointError,
        ) as error:  # torch and safetensors wrap those of the system
            shutil.rmtree(self._saving_into, ignore_errors=True)
            raise self._not_saved(checkpoint, error) from error
        finally:
            self._saving_into = None

    def _not_saved(self, checkpoint: Path, error: Exception) -> TrainingError:
        free_gb = shutil.disk_usage(checkpoint.parent).free / 1e9
        last = latest_checkpoint(self._out)
        kept = f"'{last}' is whole: make room and resume from it" if last else "None was written before"
        return TrainingError(
            f"The checkpoint of step {self.state.global_step} could not be written to '{checkpoint}' ({free_gb:.1f} GB "
            f"are free there): {error}. {kept}."
        )

    @property
    def _run(self) -> dict[str, Any]:
        """What a run that resumes must have in common with this one."""
        run = self._given_run or {
            **{name: getattr(self.args, name) for name in _DECISIVE},
            "learning_rates": self.learning_rates,
            "batching": self.batching,
        }
        samples: Any = self.train_dataset
        return {**run, "num_processes": self.args.world_size, "num_samples": len(samples)}

    def _checkpoint_to_resume(self, wanted: str | bool) -> Path:
        checkpoint = Path(wanted) if isinstance(wanted, str) else latest_checkpoint(self._out)
        if checkpoint is None:
            folder = checkpoints_folder(self._out)
            raise TrainingError(f"There is no checkpoint in '{folder}' to resume from. Start without resuming.")
        spread = self.is_fsdp_enabled or self.is_deepspeed_enabled  # these have files of their own
        rng = "rng_state.pth" if self.args.world_size == 1 else f"rng_state_{self.args.process_index}.pth"
        files = (_STATE_FILE, rng) if spread else (_STATE_FILE, rng, MODEL_FOLDER, "optimizer.pt", "scheduler.pt")
        require_resumable(checkpoint, self._run, files=files)
        with reading(checkpoint, _STATE_FILE):
            _require_state(TrainerState.load_from_json(str(checkpoint / _STATE_FILE)), checkpoint)
        return checkpoint

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        with reading(Path(resume_from_checkpoint), MODEL_FOLDER):
            if self.is_fsdp_enabled:
                super()._load_from_checkpoint(resume_from_checkpoint, model)
            else:
                self.accelerator.unwrap_model(self.model).load_weights(Path(resume_from_checkpoint) / MODEL_FOLDER)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with reading(Path(checkpoint or "."), "optimizer.pt or scheduler.pt"):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_scaler(self, checkpoint: str | None) -> None:
        with reading(Path(checkpoint or "."), "scaler.pt"):
            super()._load_scaler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with reading(Path(checkpoint or "."), "rng_state"):
            super()._load_rng_state(checkpoint)

    def _load_best_model(self) -> None:
        best = self.state.best_model_checkpoint
        if self.is_fsdp_enabled or self.is_deepspeed_enabled or best is None:
            super()._load_best_model()
        else:
            self._load_from_checkpoint(best)


class _EpochOrder(TrainerCallback):
    """Tells the sampler which epoch begins: accelerate does not where it skips batches on several processes."""

    sampler: Any = None

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.sampler.set_epoch(int(state.epoch or 0))


class _Measuring(TrainerCallback):
    """Asks the benchmarks every so many steps; the last step's turn is the end of the run."""

    def __init__(self, trainer: RegionTrainer, every: int | None) -> None:
        self._trainer = trainer
        self._every = every

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._every and state.global_step % self._every == 0 and state.global_step < state.max_steps:
            is_to_log = control.should_log
            self._trainer.measure()
            control.should_log = is_to_log  # an entry of the log takes back that the loss is to be logged


class _SinceLastLog(TrainerCallback, ExportableState):
    """What has been added up for the next entry of the log goes into a checkpoint, and the samples that were skipped:
    a resumed run logs and counts what an uninterrupted one does."""

    def __init__(self, trainer: RegionTrainer) -> None:
        self._trainer = trainer
        self.sums: dict[str, Any] = {}

    def note(self) -> None:
        """Before a checkpoint is written; all processes call this together."""
        self.sums = self._trainer.unlogged()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"args": {}, "attributes": self.sums}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Go on from it; an earlier version's checkpoint has none."""
        kept = state.stateful_callbacks.setdefault(type(self).__name__, self.state())
        if kept["attributes"]:
            self._trainer.go_on_from(kept["attributes"])


def _require_state(state: TrainerState, checkpoint: Path) -> None:
    """Refuse a state that training cannot go on from.

    Raises:
        ValueError: it says something else than the Hugging Face `Trainer` writes.
    """
    is_sound = (
        isinstance(state.global_step, int)
        and isinstance(state.epoch, int | float)
        and 0 <= state.epoch < 2**31
        and isinstance(state.stateful_callbacks, dict)
        and isinstance(state.log_history, list)
        and all(isinstance(each, dict) for each in state.log_history)
    )
    renamed = not checkpoint.name.startswith("checkpoint-")
    if not is_sound or not (renamed or checkpoint.name == f"checkpoint-{state.global_step}"):
        raise ValueError(f"it is of step {shown(state.global_step)}, epoch {shown(state.epoch)}")


def _may_rest(model: RegionModel, groups: Mapping[str, NamedParameters]) -> bool:
    """Whether parameters that train may have no part in a step: those of the backbone itself, some of which its forward
    never reads, and LoRA on layers of the tower behind the one that is read."""
    if not {coarse_group(name) for name in groups} <= {"adapter", "lora", "token_rows"}:
        return True
    tower = f"backbone.{model.backbone_spec.parts.vision_tower}."
    return any(name.startswith(tower) and is_lora(name) for name, _ in groups.get("lora", ()))


def _of_first_rows(masks: MaskBatch, rows: int) -> MaskBatch:
    """The masks of a batch's first rows; of the others, which are there again, nothing is known."""
    targets = masks.targets
    if targets is None or rows >= len(masks.objects_per_sample):
        return masks
    pairs = sum(
        number * masks.clips.lengths[clip]
        for clip, number in zip(masks.clip_of_sample[:rows], masks.objects_per_sample[:rows], strict=True)
        if clip is not None
    )
    row_of_pair = targets.row_of_pair.clone()
    row_of_pair[pairs:] = MaskTargets.UNKNOWN
    return replace(masks, targets=replace(targets, row_of_pair=row_of_pair))


class _MaskLoss:
    """The masks' part of the training loss since the last entry of the log, as the Trainer adds up the whole."""

    def __init__(self) -> None:
        self._sum: Tensor | float = 0.0
        self._steps = 0

    def begin_step(self) -> None:
        self._steps += 1

    def add(self, loss: Tensor) -> None:
        self._sum = self._sum + loss

    def so_far(self, accelerator: Any) -> tuple[float, int]:
        """The sum, the mean over all processes, which call this together; and of how many steps."""
        summed = torch.as_tensor(self._sum, dtype=torch.float32, device=accelerator.device)
        return float(accelerator.reduce(summed, reduction="mean").item()), self._steps

    def go_on_from(self, summed: float, steps: int) -> None:
        self._sum, self._steps = summed, steps

    def taken(self, accelerator: Any) -> float:
        """Of a step, the mean over all processes, which call this together; adding up starts anew."""
        summed, steps = self.so_far(accelerator)
        mean = summed / max(steps, 1)
        self.__init__()  # type: ignore[misc]
        return float(mean)


class _Pace:
    """Tokens since the last entry of the log: how many, how fast, and what share of the batches is padding."""

    def __init__(self) -> None:
        self._start_s = time.perf_counter()
        self._tokens: Tensor | int = 0
        self._positions = 0

    def count(self, batch: Mapping[str, Any]) -> None:
        self._tokens = self._tokens + batch["attention_mask"].sum()
        self._positions += batch["attention_mask"].numel()

    def taken(self, accelerator: Any) -> dict[str, float]:
        """Of all processes, which call this together; counting starts anew."""
        counted = torch.tensor([float(self._tokens), float(self._positions)], device=accelerator.device)
        tokens, positions = accelerator.reduce(counted).tolist()
        elapsed_s = time.perf_counter() - self._start_s
        self.__init__()  # type: ignore[misc]
        return {"tokens_per_second": tokens / elapsed_s, "padding_share": 1 - tokens / positions if positions else 0.0}
