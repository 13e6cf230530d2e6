"""A run that stops anywhere goes on as if it had not: every step of two epochs, whatever draws random numbers."""

import itertools
import json
import os
import random
import signal

import numpy as np
import pytest
import torch
from training_runs import (
    in_process,
    in_processes,
    losses_of,
    make_parts,
    make_trainer,
    mixed_rows,
    require_close,
    weights_of,
)
from transformers import TrainerCallback

from pixelrefer_plugin.training import checkpoints
from pixelrefer_plugin.training.collator import RegionCollator
from pixelrefer_plugin.training.randomness import EpochSampler, SeededCollator, SeededDataset, seed_random, seeded

SAMPLES, STEPS = 7, 4  # two epochs of four batches, two batches in a step


class Drawing(RegionCollator):
    """Adds noise to pictures by each of the generators that there are."""

    def __call__(self, samples):
        batch = super().__call__(samples)
        pixels = batch["pixel_values"]
        strength = random.random() + np.random.random()
        batch["pixel_values"] = pixels + strength * torch.randn(pixels.shape)
        return batch


def trainer_in(out, *, dropout=0.2, workers=0, **options):
    chosen = {
        "max_steps": STEPS, "gradient_accumulation_steps": 2, "save_strategy": "steps", "save_steps": 1,
        "dataloader_num_workers": workers, "dataloader_persistent_workers": workers > 0,
    }  # fmt: skip
    return make_trainer(
        make_parts(dropout=dropout), out, mixed_rows(SAMPLES), collator=Drawing, **{**chosen, **options}
    )


def finished(trainer, resume=None):
    """Weights and losses at the end of a run."""
    trainer.train(resume_from_checkpoint=resume)
    model = trainer.accelerator.unwrap_model(trainer.model)
    weights = weights_of(model)
    model.detach()
    return weights, losses_of(trainer)


def require_same(one, other):
    require_close(one[0], other[0], 0)
    assert one[1] == other[1]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_from_every_step_of_two_epochs_it_goes_on_the_same(tmp_path, workers):
    whole = finished(trainer_in(tmp_path, workers=workers))
    assert len(set(whole[1])) == STEPS
    for step in range(1, STEPS):
        resume = str(checkpoints.checkpoint_path(tmp_path, step))
        require_same(finished(trainer_in(tmp_path, workers=workers), resume), whole)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_the_number_of_workers_and_evaluations_change_nothing(tmp_path):
    whole = finished(trainer_in(tmp_path / "whole"))
    require_same(finished(trainer_in(tmp_path / "workers", workers=1)), whole)
    resume = str(checkpoints.checkpoint_path(tmp_path / "workers", STEPS - 1))
    require_same(finished(trainer_in(tmp_path / "workers", workers=1), resume), whole)
    evaluated = trainer_in(tmp_path / "e", eval_rows=mixed_rows(3), eval_strategy="steps", eval_steps=1)
    require_same(finished(evaluated), whole)


def test_a_log_entry_that_a_stop_cuts_through_is_the_same(tmp_path):
    whole = finished(trainer_in(tmp_path, logging_steps=4))
    resumed = finished(trainer_in(tmp_path, logging_steps=4), str(checkpoints.checkpoint_path(tmp_path, 3)))
    require_same(resumed, whole)
    assert len(whole[1]) == 1


def test_samples_that_were_skipped_before_a_stop_are_listed(tmp_path):
    rows = [*mixed_rows(3), {**mixed_rows(1)[0], "id": "bad", "image": "missing.png"}]

    def trainer():
        return make_trainer(
            make_parts(), tmp_path, rows, skip=True, max_steps=4, save_strategy="steps", save_steps=1,
        )  # fmt: skip

    whole = trainer()
    finished(whole)
    assert len(whole.skipped) == 1
    resumed = trainer()
    finished(resumed, str(checkpoints.checkpoint_path(tmp_path, 3)))
    assert resumed.skipped == whole.skipped


def test_a_checkpoint_of_an_earlier_version_is_taken(tmp_path):
    whole = finished(trainer_in(tmp_path))
    state = checkpoints.checkpoint_path(tmp_path, 2) / "trainer_state.json"
    state.write_text(state.read_text().replace("_SinceLastLog", "SomethingElse"))
    run = json.loads((state.parent / "run.json").read_text())
    (state.parent / "run.json").write_text(json.dumps({each: run[each] for each in run if each != "written_files"}))
    require_same(finished(trainer_in(tmp_path), str(state.parent)), whole)


# -- the parts --------------------------------------------------------------------------------------------------


def draws():
    return random.random(), float(np.random.random()), float(torch.rand(()))


def test_seeds_are_of_all_parts_and_leave_no_trace():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with seeded(0, (1, 2)):
        first = draws()
    assert torch.equal(torch.rand(3), expected)
    seed_random(0, (1, 2))
    assert draws() == first
    others = [(0, (2, 1)), (1, (1, 2)), (0, 1, 2), (0, "12")]
    seen = {first}
    for parts in others:
        with seeded(*parts):
            seen.add(draws())
    assert len(seen) == 5
    assert all(len(set(values)) == 5 for values in zip(*seen, strict=True))


def test_an_epoch_draws_other_numbers_than_the_one_before():
    class Order(list):
        def set_epoch(self, epoch):
            self[:] = [epoch, 0]

    sampler, dataset = EpochSampler(Order([0, 1])), SeededDataset(["a", "b", "c"], seed=3)
    collate = SeededCollator(lambda samples: (samples, draws()))
    drawn = []
    for epoch in (1, 2, 1):
        sampler.set_epoch(epoch)
        assert len(sampler) == 2
        drawn.append(collate(dataset.__getitems__(list(sampler))))
    assert drawn[0] == drawn[2]
    assert [samples for samples, _ in drawn[:2]] == [["b", "a"], ["c", "a"]]
    assert drawn[0][1] != drawn[1][1]
    assert collate(dataset.__getitems__([0]))[0] == ["a"]


# -- every way to end it ----------------------------------------------------------------------------------------


def in_two_processes(out, *, workers, resume=None):
    """The weights and losses of the end, in `end{rank}.pt`; a stop behind step `resume`, if any."""
    torch.set_num_threads(1)
    trainer = trainer_in(out, workers=workers, batching="shuffled")
    weights, losses = finished(trainer, resume and str(checkpoints.checkpoint_path(out, resume)))
    torch.save((weights, losses), out / f"end{trainer.args.process_index}-{resume}.pt")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_several_processes_go_on_the_same_from_every_step(tmp_path, workers):
    assert in_processes(in_two_processes, tmp_path, number=2, workers=workers) == [0, 0]
    for step in range(1, STEPS):
        assert in_processes(in_two_processes, tmp_path, number=2, workers=workers, resume=step) == [0, 0]
        for rank in range(2):
            one, other = (torch.load(tmp_path / f"end{rank}-{each}.pt") for each in (step, None))
            require_same(one, other)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize(
    ("workers", "accumulated", "batching"),
    list(itertools.product([0, 1, 2], [1, 3], ["grouped", "shuffled"])),
)
def test_all_ways_to_feed_it_go_on_the_same_from_every_step(tmp_path, workers, accumulated, batching):
    options = {"workers": workers, "gradient_accumulation_steps": accumulated, "batching": batching, "max_steps": 6}
    whole = finished(trainer_in(tmp_path, **options))
    for step in range(1, 6):
        require_same(finished(trainer_in(tmp_path, **options), str(checkpoints.checkpoint_path(tmp_path, step))), whole)


def run_and_die(out, *, workers, at, resume):
    """Train on and leave the end in `end.pt`; the process is killed within step `at`, before its update."""

    class Dying(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            if state.global_step + 1 == at:
                os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    trainer = trainer_in(out, workers=workers, callbacks=[Dying()], save_total_limit=1)
    torch.save(finished(trainer, resume), out / "end.pt")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_in_every_step_it_ends_the_same(tmp_path, workers):
    whole, often = tmp_path / "whole", tmp_path / "often"
    for out in (whole, often):
        out.mkdir()
    assert in_process(run_and_die, whole, workers=workers, at=None, resume=None) == 0
    for step in range(1, STEPS + 1):
        resume = checkpoints.latest_checkpoint(often) is not None or None  # behind the first there is none
        assert in_process(run_and_die, often, workers=workers, at=step, resume=resume) == -signal.SIGKILL
    assert in_process(run_and_die, often, workers=workers, at=None, resume=True) == 0
    require_same(torch.load(often / "end.pt"), torch.load(whole / "end.pt"))
