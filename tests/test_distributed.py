"""Several processes: DDP and DeepSpeed through RegionTrainer, FSDP2 on the model itself, and the configs we ship."""

import functools
import importlib.util
import json
import os
import re
from pathlib import Path

import pytest
import torch
from training_runs import (
    BACKBONES,
    in_processes,
    install_stencil,
    losses_of,
    make_parts,
    make_trainer,
    mask_row,
    mixed_rows,
    require_close,
    resumable_trainer,
    row,
    weights_of,
)

from pixelrefer_plugin import RegionDataset, RegionModel, RegionProcessor, TrainingError, get_backbone
from pixelrefer_plugin.evaluation.answers import HeldOutAnswers
from pixelrefer_plugin.training.checkpoints import checkpoint_path
from pixelrefer_plugin.training.collator import RegionCollator
from pixelrefer_plugin.training.guards import GradientGuard

CONFIGS = sorted((Path(__file__).parents[1] / "examples" / "accelerate").glob("*.yaml"))

# The batch of one process has two regions, whose crops differ in size, that of the other none.
TWO_BOXES = {
    "regions": [{"box": [2, 2, 12, 12]}, {"box": [0, 0, 40, 24]}],
    "messages": [
        {"role": "user", "content": "what are <region> and <region>?"},
        {"role": "assistant", "content": "seven seven"},
    ],
}
ONE_EACH = [row(0, **TWO_BOXES), row(1, with_region=False, words=7)]
DESCENT = {"max_steps": 1, "optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0, "lr_scheduler_type": "constant"}


@pytest.fixture(scope="module")
def joint(tmp_path_factory):
    """What trains, before and after a step of one process on both samples, by backbone."""

    @functools.cache
    def weights(backbone="videollama3"):
        parts = make_parts(backbone=backbone)
        before = weights_of(parts[0])
        make_trainer(parts, tmp_path_factory.mktemp("joint"), ONE_EACH, **DESCENT).train()
        after = weights_of(parts[0])
        parts[0].detach()
        return before, after

    return weights


# -- DDP --------------------------------------------------------------------------------------------------------


def ddp(out):
    """One step on `ONE_EACH`; then six steps, the last three of them once more from a checkpoint; an evaluation."""
    torch.set_num_threads(1)
    parts = make_parts()
    trainer = make_trainer(parts, out / "step", ONE_EACH, per_device_train_batch_size=1, **DESCENT)
    trainer.train()
    rank = trainer.args.process_index
    assert trainer.args.world_size == 2
    assert type(trainer.model_wrapped).__name__ == "DistributedDataParallel"
    assert trainer.args.ddp_find_unused_parameters is False
    torch.save(weights_of(parts[0]), out / f"weights{rank}.pt")

    options = {"save_steps": 3, "max_steps": 6, "batching": "shuffled"}
    whole = resumable_trainer(out / "run", **options)
    whole.train()
    resumed = resumable_trainer(out / "run", **options)
    resumed.train(resume_from_checkpoint=str(checkpoint_path(out / "run", 3)))  # in the middle of an epoch
    held_out = make_trainer(make_parts(), out, ONE_EACH, eval_rows=mixed_rows(5), per_device_eval_batch_size=2)
    facts = {
        "whole": losses_of(whole),
        "resumed": losses_of(resumed),
        "eval_loss": held_out.evaluate()["eval_loss"],
        "skipped": make_skipping(out).all_skipped(),
        "best": best_loss(out / "best"),
    }
    (out / f"facts{rank}.json").write_text(json.dumps(facts))


def make_skipping(out):
    """A trainer after a step in which each process skipped a sample, and one in which none did."""
    rows = [row(0, image="missing0.png"), row(1, image="missing1.png"), row(2), row(3)]
    trainer = make_trainer(make_parts(), out, rows, skip=True, max_steps=2, per_device_train_batch_size=1)
    trainer.train()
    return trainer


def best_loss(out):
    """The held-out losses after each of two steps, and that of the model which every process has loaded at the end."""
    trainer = make_trainer(
        make_parts(), out, ONE_EACH, eval_rows=mixed_rows(2), max_steps=2, learning_rate=1e-1, save_strategy="steps",
        save_steps=1, save_total_limit=2, eval_strategy="steps", eval_steps=1, load_best_model_at_end=True,
    )  # fmt: skip
    trainer.train()
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    return [trainer.state.best_model_checkpoint, losses, trainer.evaluate()["eval_loss"]]


def test_ddp_is_one_process_on_the_joint_batch(tmp_path, joint):
    before, after = joint()
    assert in_processes(ddp, tmp_path, number=2) == [0, 0]
    first, second = (torch.load(tmp_path / f"weights{rank}.pt", weights_only=True) for rank in (0, 1))
    require_close(first, second, 0)
    require_close(first, after, 1e-6)
    assert any((tensor - before[name]).abs().max() > 1e-3 for name, tensor in first.items())

    facts = [json.loads((tmp_path / f"facts{rank}.json").read_text()) for rank in (0, 1)]
    assert facts[0] == facts[1]
    assert facts[0]["resumed"] == facts[0]["whole"]
    assert len(set(facts[0]["whole"])) == 6
    assert sorted(re.findall(r"missing(\d)", "".join(facts[0]["skipped"]))) == ["0", "1"]
    checkpoint, losses, best = facts[0]["best"]
    assert Path(checkpoint) == checkpoint_path(tmp_path / "best", 1 + losses.index(min(losses)))
    assert best == min(losses)
    parts = make_parts()
    alone = make_trainer(parts, tmp_path, ONE_EACH, eval_rows=mixed_rows(5), per_device_eval_batch_size=5)
    assert facts[0]["eval_loss"] == pytest.approx(alone.evaluate()["eval_loss"], rel=1e-5)
    parts[0].detach()


# However they are dealt out, one process has more masks to learn than the other, and one of them a batch without any,
# not even a region.
MASKS_AND_NONE = [mask_row(0, masks=4), row(1, with_region=False, words=7), mask_row(2), mask_row(3, words=3)]


def held_out_masks(adapter, out, **options):
    """The held-out losses of five samples with one, two and three masks, the last one on a video."""
    rows = [mask_row(index, masks=1 + index % 3, words=1 + index) for index in range(4)]
    frames = out / f"frames{os.environ.get('RANK', '')}"
    frames.mkdir()
    for index in range(3):
        row(index)["image"].resize((60, 50)).save(frames / f"{index}.png")
    target = {"frames": {"0": {"box": [4, 4, 20, 30]}, "2": {"box": [9, 4, 25, 30]}}, "absent": [1]}
    video = {"image": None, "video": {"path": str(frames), "fps": 2}, "regions": [target, target]}
    rows.append({**mask_row(4, masks=2), **video})
    parts = make_parts(adapter)
    metrics = make_trainer(parts, out, MASKS_AND_NONE, eval_rows=rows, **options).evaluate()
    parts[0].detach()
    return {name: metrics[name] for name in ("eval_loss", "eval_mask_loss")}


def ddp_masks(out, adapter):
    """One step on `MASKS_AND_NONE`, of two batches each; an evaluation, of which one process has a sample twice."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        install_stencil(patch)
        parts = make_parts(adapter)
        trainer = make_trainer(
            parts, out / "step", MASKS_AND_NONE, per_device_train_batch_size=1, gradient_accumulation_steps=2, **DESCENT
        )
        trainer.train()
        rank = trainer.args.process_index
        assert trainer.args.world_size == 2
        assert trainer.args.ddp_find_unused_parameters is False
        torch.save(weights_of(parts[0]), out / f"weights{rank}.pt")
        facts = held_out_masks(adapter, out, per_device_eval_batch_size=2)
        facts["mask_loss"] = trainer.state.log_history[0]["mask_loss"]
        (out / f"facts{rank}.json").write_text(json.dumps(facts))


@pytest.mark.parametrize("adapter", ["stencil", "unipixel"])
def test_ddp_with_masks_is_one_process_on_the_joint_batch(tmp_path, monkeypatch, adapter):
    install_stencil(monkeypatch)
    parts = make_parts(adapter)
    alone = make_trainer(parts, tmp_path / "joint", MASKS_AND_NONE, per_device_train_batch_size=4, **DESCENT)
    before = weights_of(parts[0])
    alone.train()
    after = weights_of(parts[0])
    parts[0].detach()
    expected = held_out_masks(adapter, tmp_path, per_device_eval_batch_size=5)
    expected["mask_loss"] = alone.state.log_history[0]["mask_loss"]
    assert in_processes(ddp_masks, tmp_path, adapter, number=2) == [0, 0]
    first, second = (torch.load(tmp_path / f"weights{rank}.pt", weights_only=True) for rank in (0, 1))
    require_close(first, second, 0)
    for name, tensor in first.items():  # SAM 2's gradients are of all sizes
        torch.testing.assert_close(tensor, after[name], rtol=1e-4, atol=1e-5, msg=lambda text, name=name: name + text)
    assert any((tensor - before[name]).abs().max() > 1e-3 for name, tensor in first.items())
    for rank in (0, 1):
        facts = json.loads((tmp_path / f"facts{rank}.json").read_text())
        assert facts == pytest.approx(expected, rel=1e-4)


# -- FSDP2 ------------------------------------------------------------------------------------------------------


def fsdp2(out, backbone):
    """A step on `ONE_EACH` with the decoder's layers and the rest sharded; the gathered weights are saved."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    rank, mesh = torch.distributed.get_rank(), init_device_mesh("cpu", (2,))
    model, processor = make_parts(backbone=backbone)
    for layer in model.backbone.get_submodule(model.backbone_spec.parts.decoder).layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=0.1)
    guard = GradientGuard(model)

    samples = make_trainer(make_parts(), out, ONE_EACH).train_dataset
    batch = RegionCollator(processor)([samples[rank]])
    guard.saw(batch)
    inputs = {name: each for name, each in batch.items() if name not in ("sample_names", "skipped")}
    tokens = (batch["labels"] != -100).sum()
    torch.distributed.all_reduce(tokens)
    loss = model.train()(**inputs, num_items_in_batch=tokens).loss * 2  # FSDP takes the mean over processes
    loss.backward()
    guard.on_pre_optimizer_step(None, None, None)
    optimizer.step()

    held_out = RegionDataset.from_rows(mixed_rows(3))  # an odd number: one process has a batch less
    answers = HeldOutAnswers(held_out, processor, samples=3, max_new_tokens=3, batch_size=1)
    answers(model)
    (out / f"answers{rank}.json").write_text(json.dumps([answer.given for answer in answers.answers]))

    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if rank == 0:
        model.save_pretrained(out / "model", processor, state_dict=state)
        torch.save(state, out / "state.pt")

    model.adapter.register_forward_hook(lambda module, inputs, tokens: tokens.detach())
    optimizer.zero_grad()
    detached = GradientGuard(model)
    detached.saw(batch)
    (model(**inputs).loss * 2).backward()
    try:
        detached.on_pre_optimizer_step(None, None, None)
    except TrainingError as error:
        (out / f"error{rank}.txt").write_text(str(error))
    torch.distributed.destroy_process_group()


def fsdp2_masks(out):
    """A step on `MASKS_AND_NONE`, two samples a process, sharded likewise."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    rank, mesh = torch.distributed.get_rank(), init_device_mesh("cpu", (2,))
    model, processor = make_parts("unipixel")
    for layer in model.backbone.get_submodule(model.backbone_spec.parts.decoder).layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=0.1)
    samples = RegionDataset.from_rows(MASKS_AND_NONE)
    batch = RegionCollator(processor)([samples[rank], samples[rank + 2]])
    inputs = {name: each for name, each in batch.items() if name not in ("sample_names", "skipped")}
    numbers = torch.tensor([(batch["labels"] != -100).sum(), sum(batch["masks"].objects_per_sample)])
    torch.distributed.all_reduce(numbers)
    tokens, objects = numbers
    loss = model.train()(**inputs, num_items_in_batch=tokens, num_objects_in_batch=objects).loss * 2
    loss.backward()
    optimizer.step()
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if rank == 0:
        torch.save(state, out / "state.pt")
    torch.distributed.destroy_process_group()


def test_fsdp2_with_masks_is_one_process_on_the_joint_batch(tmp_path):
    parts = make_parts("unipixel")
    make_trainer(parts, tmp_path, MASKS_AND_NONE, per_device_train_batch_size=4, **DESCENT).train()
    after = weights_of(parts[0])
    parts[0].detach()
    assert in_processes(fsdp2_masks, tmp_path, number=2) == [0, 0]
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    for name, tensor in after.items():
        torch.testing.assert_close(state[name], tensor, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: name + text)


@pytest.mark.parametrize("backbone", ["videollama3", "llava_onevision"])
def test_fsdp2_is_one_process_on_the_joint_batch(tmp_path, joint, backbone):
    _, after = joint(backbone)
    assert in_processes(fsdp2, tmp_path, backbone, number=2) == [0, 0]
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    require_close({name: state[name] for name in after}, after, 1e-6)
    bare, _ = get_backbone(backbone).tiny(0)
    loaded = RegionModel.from_pretrained(tmp_path / "model", backbone=bare)
    weights = dict(loaded.named_parameters())
    require_close({name: weights[name].detach() for name in after}, {name: state[name] for name in after}, 0)
    processor = RegionProcessor.from_pretrained(tmp_path / "model")
    alone = HeldOutAnswers(RegionDataset.from_rows(mixed_rows(3)), processor, samples=3, max_new_tokens=3, batch_size=1)
    alone(loaded)
    for rank in (0, 1):
        given = json.loads((tmp_path / f"answers{rank}.json").read_text())
        assert given == [answer.given for answer in alone.answers]
    loaded.detach()
    for rank in (0, 1):  # whose own batch has no region, too
        assert "Group 'adapter' trains" in (tmp_path / f"error{rank}.txt").read_text()


# -- DeepSpeed --------------------------------------------------------------------------------------------------


def zero(out, stage):
    """Two steps on `ONE_EACH` through accelerate's DeepSpeed, the second once more from the checkpoint of the first."""
    torch.set_num_threads(1)
    del os.environ["ACCELERATE_USE_CPU"]  # with it accelerate leaves DeepSpeed out, silently
    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
    os.environ["ACCELERATE_DEEPSPEED_ZERO_STAGE"] = str(stage)
    os.environ["ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL"] = "true"
    plain = {**DESCENT, "use_cpu": False, "ddp_backend": "gloo", "per_device_train_batch_size": 1}
    options = {**plain, "max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    made = [make_parts() for _ in range(3)]  # once a trainer is there, transformers spreads new models as it makes them
    whole = make_trainer(made[0], out, ONE_EACH, **options)
    whole.train()
    resumed = make_trainer(made[1], out, ONE_EACH, **options)
    assert whole.is_deepspeed_enabled
    assert resumed.is_deepspeed_enabled
    resumed.train(resume_from_checkpoint=str(checkpoint_path(out, 1)))
    rank = whole.args.process_index
    (out / f"losses{rank}.json").write_text(json.dumps([losses_of(whole), losses_of(resumed)]))

    made[2][0].adapter.register_forward_hook(lambda module, inputs, tokens: tokens.detach())
    try:
        make_trainer(made[2], out / "detached", ONE_EACH, **plain).train()
    except TrainingError as error:
        (out / f"error{rank}.txt").write_text(str(error))


def zero_masks(out, stage):
    """A step on `MASKS_AND_NONE`, two samples a process, through accelerate's DeepSpeed."""
    torch.set_num_threads(1)
    del os.environ["ACCELERATE_USE_CPU"]
    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
    os.environ["ACCELERATE_DEEPSPEED_ZERO_STAGE"] = str(stage)
    os.environ["ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL"] = "true"
    options = {**DESCENT, "use_cpu": False, "ddp_backend": "gloo", "save_strategy": "steps", "save_steps": 1}
    parts = make_parts("unipixel")
    if stage == 3:
        with pytest.raises(TrainingError, match="ZeRO-3"):
            make_trainer(parts, out, MASKS_AND_NONE, **options)
        return
    trainer = make_trainer(parts, out, MASKS_AND_NONE, **options)
    assert trainer.is_deepspeed_enabled
    trainer.train()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed")
def test_deepspeed_with_masks_is_one_process_on_the_joint_batch(tmp_path):
    parts = make_parts("unipixel")
    make_trainer(parts, tmp_path / "joint", MASKS_AND_NONE, per_device_train_batch_size=4, **DESCENT).train()
    after = weights_of(parts[0])
    parts[0].detach()
    assert in_processes(zero_masks, tmp_path / "step", 2, number=2) == [0, 0]
    bare, _ = get_backbone("videollama3").tiny(0)
    loaded = RegionModel.from_pretrained(checkpoint_path(tmp_path / "step", 1) / "model", backbone=bare)
    weights = dict(loaded.named_parameters())
    for name, tensor in after.items():
        torch.testing.assert_close(weights[name].detach(), tensor, rtol=1e-4, atol=1e-5)
    loaded.detach()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed")
def test_zero_3_takes_no_adapter_with_masks(tmp_path):
    assert in_processes(zero_masks, tmp_path, 3, number=2) == [0, 0]


def test_an_adapter_with_masks_is_told_what_takes_it_in_place_of_zero_3(tmp_path, monkeypatch):
    monkeypatch.setattr("pixelrefer_plugin.training.trainer.is_deepspeed_zero3_enabled", lambda: True)
    expected = r"ZeRO-3 gathers .* parts of adapter 'unipixel' run only .*deepspeed_zero2\.yaml.*fsdp2\.yaml"
    parts = make_parts("unipixel")
    with pytest.raises(TrainingError, match=expected):
        make_trainer(parts, tmp_path, MASKS_AND_NONE)
    parts[0].detach()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed")
@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_is_one_process_on_the_joint_batch(tmp_path, joint, stage):
    _, after = joint()
    assert in_processes(zero, tmp_path, stage, number=2) == [0, 0]
    bare, _ = get_backbone("videollama3").tiny(0)
    loaded = RegionModel.from_pretrained(checkpoint_path(tmp_path, 1) / "model", backbone=bare)
    weights = dict(loaded.named_parameters())
    require_close({name: weights[name].detach() for name in after}, after, 1e-5)
    loaded.detach()
    whole, resumed = json.loads((tmp_path / "losses0.json").read_text())
    assert resumed == pytest.approx(whole, abs=1e-5)
    assert len(whole) == len(set(whole)) == 2
    for rank in (0, 1):
        assert "Group 'adapter' trains" in (tmp_path / f"error{rank}.txt").read_text()


# -- the configs that we ship -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_reads_the_configs(path):
    from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file

    config = load_config_from_file(str(path))
    assert isinstance(config, ClusterConfig)
    expected = {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "deepspeed_zero2": "DEEPSPEED", "deepspeed_zero3": "DEEPSPEED"}
    assert config.distributed_type == expected[path.stem]
    assert config.num_processes == 8


def test_all_configs_are_there():
    assert [path.stem for path in CONFIGS] == ["ddp", "deepspeed_zero2", "deepspeed_zero3", "fsdp2"]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_layers_that_the_fsdp_config_names_are_those_that_are_found(backbone):
    from transformers.trainer_pt_utils import get_module_class_from_name

    text = next(path for path in CONFIGS if path.stem == "fsdp2").read_text()
    named = {"videollama3": "VideoLLaMA3", "qwen2_5_vl": "Qwen2.5-VL", "llava_onevision": "LLaVA-OneVision"}[backbone]
    (line,) = [line for line in text.splitlines() if f"{named}:" in line]
    layers = line.split()[-1].split(",")
    model, _ = make_parts(backbone=backbone)
    assert sorted(model._no_split_modules) == sorted(layers)
    assert all(get_module_class_from_name(model, layer) is not None for layer in layers)
    model.detach()
