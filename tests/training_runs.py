"""Small training runs, made alike in tests and in the processes that tests start."""

import dataclasses
import json
import multiprocessing
import os
import resource
import signal
import socket
from pathlib import Path

import numpy as np
import stencil
import torch
from PIL import Image
from transformers import TrainerCallback, TrainingArguments

from pixelrefer_plugin.authoring import AdapterRecipe
from pixelrefer_plugin.data.dataset import RegionDataset
from pixelrefer_plugin.testing import make_pair
from pixelrefer_plugin.training.checkpoints import latest_checkpoint
from pixelrefer_plugin.training.collator import RegionCollator
from pixelrefer_plugin.training.trainer import RegionTrainer

BACKBONES = ["videollama3", "qwen2_5_vl", "llava_onevision"]


def row(index, *, with_region=True, words=1, **changes):
    """A sample of a noise picture; its answer has so many words."""
    generator = np.random.default_rng(index)
    pixels = generator.integers(0, 256, (*generator.integers(40, 90, 2), 3), dtype=np.uint8)
    question = "what is <region>?" if with_region else "what is this?"
    made = {
        "id": f"s{index}",
        "image": Image.fromarray(pixels),
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": "seven " * words}],
        "regions": [{"box": [4, 4, 12 + index % 20, 30]}] if with_region else None,
    }
    return {**made, **changes}


def mixed_rows(count):
    """Rows with and without regions, with short and with long answers."""
    return [row(index, with_region=index % 3 != 2, words=1 + 3 * index % 7) for index in range(count)]


def mask_row(index, *, masks=1, words=1, **changes):
    """A sample of a noise picture; its answer has so many words, and so many masks of boxes."""
    return row(
        index,
        messages=[
            {"role": "user", "content": "segment them"},
            {"role": "assistant", "content": "seven " * words + "<seg> " * masks},
        ],
        regions=[{"box": [4 + each, 4, 12 + index % 20, 30]} for each in range(masks)],
        **changes,
    )


OWN_RECIPES = {
    "shapes": AdapterRecipe(
        about="What cuts the masks, and the rows of their token.",
        rates={"adapter.cut": 1e-3, "token_rows": 1e-3},
        lora={"r": 4, "alpha": 8},
    ),
    "all": AdapterRecipe(about="The adapter, the decoder left as it is.", rates={"adapter": 1e-3}),
}


def stencil_with(recipes=OWN_RECIPES):
    """The test adapter that gives masks, with recipes of its own."""
    return dataclasses.replace(stencil.SPEC, recipes=recipes)


def install_stencil(monkeypatch, recipes=OWN_RECIPES):
    """That adapter, installed for the length of a test."""
    monkeypatch.setattr(stencil, "SPEC", stencil_with(recipes))
    stencil.install(monkeypatch)


def make_parts(adapter="saot", backbone="videollama3", *, lora=True, dropout=0.0):
    """A tiny model and its processor, the same whenever they are made."""
    pair = make_pair(adapter, backbone)
    torch.manual_seed(0)
    if lora:
        pair.model.add_lora(r=4, dropout=dropout)
    return pair.model, pair.processor


def make_trainer(parts, out, rows, *, collator=RegionCollator, skip=False, eval_rows=None, **options):
    """A trainer of three steps; `options` are the trainer's own, or those of `TrainingArguments`."""
    model, processor = parts
    names = ("learning_rates", "batching", "run", "answers", "callbacks")
    own = {name: options.pop(name) for name in names if name in options}
    plain = {
        "max_steps": 3, "per_device_train_batch_size": 2, "learning_rate": 1e-3, "logging_steps": 1, "seed": 0,
        "save_strategy": "no", "report_to": [], "use_cpu": True, "disable_tqdm": True, "dataloader_pin_memory": False,
    }  # fmt: skip
    return RegionTrainer(
        model,
        TrainingArguments(str(out), **{**plain, **options}),
        processor=processor,
        collator=collator(processor, on_bad_sample="skip" if skip else "error"),
        train_dataset=RegionDataset.from_rows(rows),
        eval_dataset=RegionDataset.from_rows(eval_rows) if eval_rows else None,
        **own,
    )


def losses_of(trainer):
    """The loss of each step so far."""
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def weights_of(model):
    """Copies of everything that trains."""
    return {name: each.detach().clone() for name, each in model.named_parameters() if each.requires_grad}


def require_close(one, other, tolerance):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=0, atol=tolerance, msg=lambda text, name=name: name + text)


# -- runs in processes of their own ------------------------------------------------------------------------


def resumable_trainer(out, **options):
    """One whose next step depends on everything a checkpoint must hold: order, accumulation, moments, dropout."""
    chosen = {
        "max_steps": 8, "gradient_accumulation_steps": 2, "save_strategy": "steps", "save_steps": 2,
        "save_total_limit": 2, "batching": "grouped",
    }  # fmt: skip
    return make_trainer(make_parts(dropout=0.2), out, mixed_rows(11), **{**chosen, **options})


class KilledInStep(TrainerCallback):
    """Kills its own process between two batches of a step."""

    def on_substep_end(self, args, state, control, **kwargs):
        if state.global_step == 5:
            os.kill(os.getpid(), signal.SIGKILL)


class KilledInSave(RegionTrainer):
    """Kills its own process while a checkpoint is half written."""

    def _save_rng_state(self, output_dir):
        if self.state.global_step == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        super()._save_rng_state(output_dir)


class DiskFull(TrainerCallback):
    """From step 3 on no file may become larger than 100 kB."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 3:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


def run(out, *, how=None, resume=False):
    """Train in `out`, in one of the ways above, and leave the losses in `losses.json`."""
    torch.set_num_threads(1)
    trainer = resumable_trainer(out, callbacks=[how()] if how and issubclass(how, TrainerCallback) else None)
    if how is KilledInSave:
        trainer.__class__ = KilledInSave
    trainer.train(resume_from_checkpoint=resume)
    (Path(out) / "losses.json").write_text(json.dumps(losses_of(trainer)))


def run_to_full_disk(out):
    """Train until a checkpoint does not fit, and leave what was said in `error.txt`."""
    torch.set_num_threads(1)
    trainer = resumable_trainer(out, callbacks=[DiskFull()])
    try:
        trainer.train()
    except ValueError as error:
        (Path(out) / "error.txt").write_text(f"{error}\n{latest_checkpoint(out)}")


def in_process(function, *arguments, **options):
    """Call a function of this module in a fresh process and return how that ended."""
    return in_processes(function, *arguments, number=1, **options)[0]


def in_processes(function, *arguments, number, **options):
    """The same in several that train together; a failure of one ends all."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pixelrefer_plugin.training.trainer", "pixelrefer_plugin.testing"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [
        context.Process(target=_as_rank, args=(rank, number, port, function, arguments, options))
        for rank in range(number)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(timeout=300)
        if process.exitcode != 0:
            for other in started:
                other.kill()
    return [process.exitcode for process in started]


def _as_rank(rank, number, port, function, arguments, options):
    if number > 1:
        os.environ.update(
            RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(number), LOCAL_WORLD_SIZE=str(number),
            MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), ACCELERATE_USE_CPU="true", DS_ACCELERATOR="cpu",
        )  # fmt: skip
    function(*arguments, **options)
