"""RegionTrainer: groups and their learning rates, losses, guards, evaluation, checkpoints."""

import json
import logging
import math
import signal
from collections import Counter

import datasets
import pytest
import torch
from training_runs import (
    BACKBONES,
    KilledInSave,
    KilledInStep,
    in_process,
    install_stencil,
    losses_of,
    make_parts,
    make_trainer,
    mask_row,
    mixed_rows,
    require_close,
    resumable_trainer,
    row,
    run,
    run_to_full_disk,
    weights_of,
)

from pixelrefer_plugin import RegionModel, SpliceError, TrainingError, attach, get_backbone
from pixelrefer_plugin.training import checkpoints
from pixelrefer_plugin.training.collator import RegionCollator
from pixelrefer_plugin.training.groups import parameter_groups, trainable_groups, trained_tokens
from pixelrefer_plugin.training.guards import GradientGuard


@pytest.fixture
def parts():
    """A tiny model with LoRA, and its processor."""
    made = make_parts()
    yield made
    made[0].detach()


# -- groups -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", BACKBONES)
def test_each_parameter_is_in_one_group(backbone):
    bare, native = get_backbone(backbone).tiny(0)
    parts = get_backbone(backbone).parts
    expected = {name: sum(each.numel() for each in bare.get_submodule(path).parameters()) for name, path in (
        ("vision_tower", parts.vision_tower), ("projector", parts.projector),
    )}  # fmt: skip
    if parts.projector.startswith(parts.vision_tower):
        expected["vision_tower"] -= expected["projector"]
    model, _ = attach(bare, native, adapter="saot")
    model.add_lora(scopes=("decoder", "vision_tower"), token_ids=[3, 5])
    groups = parameter_groups(model)
    counted = Counter(name for members in groups.values() for name, _ in members)
    assert counted == Counter(name for name, _ in model.named_parameters())
    assert list(groups) == ["adapter", "lora", "token_rows", "vision_tower", "projector", "decoder"]
    for name, number in expected.items():
        assert sum(each.numel() for _, each in groups[name]) == number
    assert list(trainable_groups(model)) == ["adapter", "lora", "token_rows"]
    model.detach()


def test_groups_have_their_own_learning_rates_and_only_matrices_decay(parts, tmp_path):
    trainer = make_trainer(parts, tmp_path, mixed_rows(2), learning_rates={"lora": 3e-4}, weight_decay=0.1)
    optimizer = trainer.create_optimizer()
    in_optimizer = []
    for group in optimizer.param_groups:
        assert group["lr"] == {"adapter": 1e-3, "lora": 3e-4}[group["name"]]
        assert all((each.ndim > 1) == (group["weight_decay"] == 0.1) for each in group["params"])
        in_optimizer += map(id, group["params"])
    assert Counter(in_optimizer) == Counter(id(each) for each in parts[0].parameters() if each.requires_grad)


def test_a_child_of_the_adapter_may_be_a_group_of_its_own(parts):
    model = parts[0]
    plain, fine = parameter_groups(model), parameter_groups(model, ["adapter.position", "lora"])
    assert list(fine) == ["adapter", "adapter.position", *list(plain)[1:]]
    assert [name for name, _ in fine["adapter.position"]] == [
        f"adapter.position.{name}" for name, _ in model.adapter.position.named_parameters()
    ]
    assert sorted(each for group in fine.values() for each, _ in group) == sorted(
        each for group in plain.values() for each, _ in group
    )


def test_a_child_that_there_is_not_is_refused_with_those_that_there_are(parts, tmp_path):
    expected = "Adapter 'saot' has no adapter.positions. Its parts: adapter.position, adapter.mlp"
    with pytest.raises(TrainingError, match=expected):
        make_trainer(parts, tmp_path, mixed_rows(2), learning_rates={"adapter.positions": 1e-3})


def test_a_child_has_a_learning_rate_of_its_own(parts, tmp_path):
    trainer = make_trainer(parts, tmp_path, mixed_rows(2), learning_rates={"adapter.position": 1e-5})
    rates = {group["name"]: group["lr"] for group in trainer.create_optimizer().param_groups}
    assert rates == {"adapter": 1e-3, "adapter.position": 1e-5, "lora": 1e-3}
    assert trainer.args.ddp_find_unused_parameters is False


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"decoder": 1e-5}, "given for 'decoder', which does not train. What trains: adapter, lora"),
        ({"adaptor": 1e-5}, "given for 'adaptor'; parameter groups are adapter, lora, token_rows"),
    ],
)
def test_learning_rates_of_what_does_not_train_are_refused(parts, tmp_path, rates, message):
    with pytest.raises(TrainingError, match=message):
        make_trainer(parts, tmp_path, mixed_rows(2), learning_rates=rates)


def test_a_frozen_model_is_refused(parts, tmp_path):
    parts[0].requires_grad_(False)
    with pytest.raises(TrainingError, match="Nothing trains"):
        make_trainer(parts, tmp_path, mixed_rows(2))


# -- the step ---------------------------------------------------------------------------------------------------


def after_one_step(tmp_path, rows, *, adapter="saot", backbone="videollama3", lora=True, **options):
    """Weights after a step of plain gradient descent, so that they differ as gradients do."""
    made = make_parts(adapter, backbone, lora=lora)
    before = weights_of(made[0])
    plain = {"max_steps": 1, "optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0, "lr_scheduler_type": "constant"}
    trainer = make_trainer(made, tmp_path, rows, **{**plain, **options})
    trainer.train()
    after = weights_of(made[0])
    assert any(not torch.equal(before[name], tensor) for name, tensor in after.items())
    made[0].detach()
    return after


@pytest.mark.parametrize("backbone", BACKBONES)
def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path, backbone):
    rows = [row(0, words=1), row(1, words=9), row(2, with_region=False, words=4), row(3, words=2)]
    whole = after_one_step(tmp_path, rows, backbone=backbone, per_device_train_batch_size=4)
    for size in (1, 2):
        options = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 4 // size}
        require_close(after_one_step(tmp_path, rows, backbone=backbone, **options), whole, 1e-6)


@pytest.mark.filterwarnings("ignore:.*checkpointing.*deprecated:FutureWarning")  # the older name works in every version
@pytest.mark.parametrize("lora", [True, False], ids=["lora", "adapter only"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_gradient_checkpointing_changes_no_gradient(tmp_path, backbone, lora):
    rows = [row(0), row(1, words=5)]
    plain = after_one_step(tmp_path, rows, backbone=backbone, lora=lora)
    saving = after_one_step(tmp_path, rows, backbone=backbone, lora=lora, gradient_checkpointing=True)
    require_close(saving, plain, 1e-6)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_bf16_trains_float32_weights(tmp_path, backbone):
    rows = [row(0), row(1, words=5)]
    exact = after_one_step(tmp_path, rows, backbone=backbone, learning_rate=1e-2)
    rounded = after_one_step(tmp_path, rows, backbone=backbone, learning_rate=1e-2, bf16=True)
    assert all(each.dtype == torch.float32 for each in rounded.values())
    require_close(rounded, exact, 0.05)


@pytest.mark.parametrize("batching", ["grouped", "shuffled"])
def test_every_sample_is_seen_once_an_epoch(parts, tmp_path, batching):
    seen = []

    class Noting(RegionCollator):
        def __call__(self, samples):
            batch = super().__call__(samples)
            seen.append(batch["sample_names"])
            return batch

    make_trainer(
        parts, tmp_path, mixed_rows(7), collator=Noting, max_steps=-1, num_train_epochs=2, batching=batching
    ).train()
    epochs = [[name for names in seen[start : start + 4] for name in names] for start in (0, 4)]
    assert len(seen) == 8
    assert all(len(set(epoch)) == len(epoch) == 7 for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_the_log_has_the_pace(parts, tmp_path):
    rows = [row(0, words=1), row(1, words=30)]
    trainer = make_trainer(parts, tmp_path, rows, max_steps=1)
    trainer.train()
    entry = trainer.state.log_history[0]
    batch = trainer.data_collator(list(trainer.train_dataset))
    assert entry["padding_share"] == pytest.approx(1 - batch["attention_mask"].float().mean().item())
    assert entry["padding_share"] > 0.1
    assert entry["tokens_per_second"] > 0
    assert entry["skipped_samples"] == 0


def test_the_backbone_trains_in_full(tmp_path):
    bare, native = get_backbone("videollama3").tiny(0)
    model, processor = attach(bare, native, adapter="saot", train_backbone=True)
    before = weights_of(model)
    rates = {"adapter": 1e-3, "vision_tower": 1e-4, "projector": 1e-4, "decoder": 1e-4}
    trainer = make_trainer((model, processor), tmp_path, mixed_rows(2), learning_rates=rates)
    trainer.train()
    after = weights_of(model)
    for name, members in trainable_groups(model).items():
        assert any(not torch.equal(before[each], after[each]) for each, _ in members), name
    assert trainer.args.ddp_find_unused_parameters is True
    model.detach()


# -- guards -----------------------------------------------------------------------------------------------------


class Unlabelled(RegionCollator):
    def __call__(self, samples):
        batch = super().__call__(samples)
        batch["labels"].fill_(-100)
        return batch


def test_a_batch_without_anything_to_learn_names_its_samples(parts, tmp_path):
    trainer = make_trainer(parts, tmp_path, [row(0), row(1)], collator=Unlabelled)
    with pytest.raises(TrainingError, match=r"no supervised token.*row [01], sample 's[01]'; row [01], sample 's[01]'"):
        trainer.train()


def test_a_batch_of_which_all_samples_are_skipped_changes_nothing(parts, tmp_path):
    bad = [row(index, image="missing.png") for index in range(2)]
    before = weights_of(parts[0])
    trainer = make_trainer(parts, tmp_path, bad, skip=True, max_steps=2, weight_decay=0.0)
    with pytest.raises(TrainingError, match=r"Nothing was learnt: every sample was left out, 2 of them.*missing\.png"):
        trainer.train()
    require_close(weights_of(parts[0]), before, 0)
    assert losses_of(trainer) == [0.0, 0.0]
    assert sorted(trainer.skipped) == sorted(trainer.all_skipped())
    assert len(trainer.skipped) == 2
    assert all("missing.png" in name for name in trainer.skipped)
    assert trainer.state.log_history[0]["skipped_samples"] == 2


def test_a_skipped_sample_is_not_replaced(parts, tmp_path):
    rows = [row(0), row(1, image="missing.png")]
    with_bad = after_one_step(tmp_path, rows, skip=True)
    require_close(with_bad, after_one_step(tmp_path, rows[:1]), 1e-7)


def test_a_bad_sample_stops_the_run(parts, tmp_path):
    trainer = make_trainer(parts, tmp_path, [row(0), row(1, image="missing.png")])
    with pytest.raises(ValueError, match=r"row 1, sample 's1': .*missing.png"):
        trainer.train()


def test_an_adapter_that_no_gradient_reaches_is_named(parts, tmp_path, monkeypatch):
    forward = parts[0].adapter.forward
    monkeypatch.setattr(parts[0].adapter, "forward", lambda *inputs: forward(*inputs).detach())
    before = weights_of(parts[0])
    trainer = make_trainer(parts, tmp_path, [row(0), row(1)])
    with pytest.raises(TrainingError, match=r"Group 'adapter' trains \([\d,]+ parameters.*none was computed.*detached"):
        trainer.train()
    require_close(weights_of(parts[0]), before, 0)


def test_lora_that_is_multiplied_away_is_named(parts, tmp_path):
    for module in parts[0].modules():
        if hasattr(module, "lora_B"):
            module.scaling["default"] = 0.0
    trainer = make_trainer(parts, tmp_path, [row(0), row(1)])
    with pytest.raises(TrainingError, match=r"Group 'lora' trains .*exactly zero"):
        trainer.train()


def test_gradients_are_asked_for_only_where_an_answer_is_about_a_region(parts, tmp_path, monkeypatch):
    forward = parts[0].adapter.forward
    monkeypatch.setattr(parts[0].adapter, "forward", lambda *inputs: forward(*inputs).detach())
    make_trainer(parts, tmp_path, [row(0, with_region=False), row(1, with_region=False)]).train()


class Poisoned(RegionCollator):
    def __call__(self, samples):
        batch = super().__call__(samples)
        if any("'s3'" in name for name in batch["sample_names"]):
            batch["pixel_values"] = batch["pixel_values"] * math.nan
        return batch


def test_a_loss_that_is_no_number_stops_before_it_spoils_anything(parts, tmp_path):
    rows = [row(index) for index in range(4)]
    options = {"save_strategy": "steps", "save_steps": 1, "per_device_train_batch_size": 1, "max_steps": 4}
    trainer = make_trainer(parts, tmp_path, rows, collator=Poisoned, batching="shuffled", seed=1, **options)
    with pytest.raises(TrainingError, match=r"The loss of step (\d) is nan, on row 3, sample 's3'.*") as raised:
        trainer.train()
    newest = checkpoints.latest_checkpoint(tmp_path)
    assert newest.name == f"checkpoint-{trainer.state.global_step}"
    assert f"The last good checkpoint is '{newest}'" in str(raised.value)
    stopped = weights_of(parts[0])
    assert all(each.isfinite().all() for each in stopped.values())
    parts[0].load_weights(newest / "model")
    require_close(weights_of(parts[0]), stopped, 0)


def test_gradients_that_are_no_numbers_stop_the_step(parts, tmp_path):
    first = next(parts[0].adapter.parameters())
    first.register_hook(lambda gradient: gradient * math.inf)
    before = weights_of(parts[0])
    trainer = make_trainer(parts, tmp_path, [row(0), row(1)])
    with pytest.raises(TrainingError, match=r"norm of the gradients of step 1 is (nan|inf), on row .*No checkpoint"):
        trainer.train()
    require_close(weights_of(parts[0]), before, 0)


class Forgetful(RegionCollator):
    def __call__(self, samples):
        batch = super().__call__(samples)
        del batch["regions"]
        return batch


def test_placeholders_without_regions_are_refused(parts, tmp_path):
    trainer = make_trainer(parts, tmp_path, [row(0), row(1)], collator=Forgetful)
    with pytest.raises(SpliceError, match="placeholders for object tokens but no 'regions'"):
        trainer.train()


# -- evaluation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_held_out_loss_is_the_mean_over_tokens(parts, tmp_path, batch_size):
    held_out = [row(index, words=words) for index, words in enumerate((1, 9, 2, 4))]
    trainer = make_trainer(parts, tmp_path, held_out[:1], eval_rows=held_out, per_device_eval_batch_size=batch_size)
    whole = trainer.data_collator(list(trainer.eval_dataset))
    with torch.no_grad():
        names = ("sample_names", "skipped")
        expected = parts[0].eval()(**{name: each for name, each in whole.items() if name not in names}).loss.item()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)


def test_answers_join_the_metrics_of_every_evaluation(parts, tmp_path):
    def answers(model):
        assert model is parts[0]
        assert not model.training
        return {"exact_match": 0.25}

    trainer = make_trainer(
        parts, tmp_path, mixed_rows(4), eval_rows=mixed_rows(3), eval_strategy="steps", eval_steps=1, answers=answers
    )
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    assert [entry["eval_exact_match"] for entry in logged] == [0.25] * 3


def test_held_out_samples_that_are_all_skipped_have_no_loss(parts, tmp_path):
    bad = [row(0, image="missing.png")]
    trainer = make_trainer(parts, tmp_path, mixed_rows(2), eval_rows=[*bad, row(1)], skip=True)
    assert math.isfinite(trainer.evaluate()["eval_loss"])
    trainer = make_trainer(parts, tmp_path, mixed_rows(2), eval_rows=bad, skip=True)
    assert math.isnan(trainer.evaluate()["eval_loss"])
    assert ["missing.png" in each for each in trainer.skipped] == [True]


# -- masks ------------------------------------------------------------------------------------------------------


@pytest.fixture
def mask_parts(monkeypatch):
    """A tiny model with LoRA whose adapter gives masks, and its processor."""
    install_stencil(monkeypatch)
    made = make_parts("stencil")
    yield made
    made[0].detach()


def mask_rows():
    """Rows with masks, with regions, with neither, of several numbers of each and several lengths."""
    return [mask_row(0), mask_row(1, masks=3, words=5), row(2, words=2), row(3, with_region=False)]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_accumulated_gradients_of_masks_are_those_of_the_whole_batch(tmp_path, monkeypatch, backbone):
    install_stencil(monkeypatch)
    options = {"adapter": "stencil", "backbone": backbone}
    whole = after_one_step(tmp_path, mask_rows(), per_device_train_batch_size=4, **options)
    for size in (1, 2):
        accumulated = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 4 // size}
        require_close(after_one_step(tmp_path, mask_rows(), **accumulated, **options), whole, 1e-6)


@pytest.mark.filterwarnings("ignore:.*checkpointing.*deprecated:FutureWarning")
@pytest.mark.parametrize("adapter", ["stencil", "unipixel"])
def test_masks_are_learnt_with_gradient_checkpointing_and_in_bf16(tmp_path, monkeypatch, adapter):
    install_stencil(monkeypatch)
    options = {"adapter": adapter, "per_device_train_batch_size": 4, "learning_rate": 1e-3}
    plain = after_one_step(tmp_path, mask_rows(), **options)
    saving = after_one_step(tmp_path, mask_rows(), **options, gradient_checkpointing=True)
    require_close(saving, plain, 1e-6)
    rounded = after_one_step(tmp_path, mask_rows(), **options, bf16=True)
    assert all(each.dtype == torch.float32 for each in rounded.values())
    require_close(rounded, plain, 0.05)


def loss_of(model, batch, **changes):
    """What the model itself says."""
    names = ("sample_names", "skipped")
    return model(**{name: each for name, each in batch.items() if name not in names}, **changes)


def test_the_log_has_both_parts_of_the_loss(mask_parts, tmp_path):
    rows = [mask_row(0), mask_row(1, masks=3, words=5)]
    trainer = make_trainer(mask_parts, tmp_path, rows, gradient_accumulation_steps=2, per_device_train_batch_size=1)
    expected = loss_of(mask_parts[0].train(), trainer.data_collator(list(trainer.train_dataset)))
    trainer.train()
    entry = trainer.state.log_history[0]
    assert entry["mask_loss"] == pytest.approx(expected.mask_loss.item(), rel=1e-5)
    assert entry["lm_loss"] == pytest.approx((expected.loss - expected.mask_loss).item(), rel=1e-4)
    assert entry["lm_loss"] + entry["mask_loss"] == pytest.approx(entry["loss"])


def test_the_log_of_several_steps_has_their_mean(mask_parts, tmp_path):
    trainer = make_trainer(mask_parts, tmp_path, mask_rows(), logging_steps=2, max_steps=4)
    trainer.train()
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    single = make_trainer(make_parts("stencil"), tmp_path, mask_rows(), max_steps=4)
    single.train()
    each = [entry["mask_loss"] for entry in single.state.log_history if "loss" in entry]
    assert [entry["mask_loss"] for entry in entries] == pytest.approx([sum(each[:2]) / 2, sum(each[2:]) / 2])


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_held_out_masks_have_a_loss_of_their_own(mask_parts, tmp_path, batch_size):
    rows = mask_rows()
    trainer = make_trainer(mask_parts, tmp_path, rows, eval_rows=rows, per_device_eval_batch_size=batch_size)
    with torch.no_grad():
        whole = loss_of(mask_parts[0].eval(), trainer.data_collator(list(trainer.eval_dataset)))
    metrics = trainer.evaluate()
    assert metrics["eval_mask_loss"] == pytest.approx(whole.mask_loss.item(), rel=1e-5)
    assert metrics["eval_loss"] == pytest.approx((whole.loss - whole.mask_loss).item(), rel=1e-5)
    without = make_trainer(mask_parts, tmp_path, rows, eval_rows=rows[2:]).evaluate()
    assert "eval_mask_loss" not in without


def test_masks_for_a_decoder_that_stays_as_it_is_are_refused(mask_parts, tmp_path):
    model, processor = mask_parts
    assert trained_tokens(model) == {processor.tokens.mask}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("adapter."))
    before = weights_of(model)
    trainer = make_trainer(mask_parts, tmp_path, mask_rows(), per_device_train_batch_size=4)
    with pytest.raises(
        TrainingError, match=r"masks to learn, in row .* the decoder is frozen: it would never say '<seg>'"
    ):
        trainer.train()
    require_close(weights_of(model), before, 0)
    make_trainer(mask_parts, tmp_path, mask_rows()[2:]).train()  # what is said about regions may be learnt so


@pytest.mark.parametrize("group", ["lora", "token_rows"])
def test_either_lora_or_the_token_s_rows_make_the_decoder_say_it(mask_parts, tmp_path, group):
    model = mask_parts[0]
    for name, members in parameter_groups(model).items():
        for _, parameter in members:
            parameter.requires_grad_(name in ("adapter", group))
    before = weights_of(model)
    make_trainer(mask_parts, tmp_path, mask_rows(), per_device_train_batch_size=4).train()
    after = weights_of(model)
    assert {name for name in before if not torch.equal(before[name], after[name])} >= {
        name for name, _ in trainable_groups(model)[group] if "lora_A" not in name
    }


PARTS = {"adapter.region": 1e-3, "adapter.cut": 1e-3}


@pytest.fixture
def patience(monkeypatch):
    """Parts of the adapter are judged after two steps."""
    monkeypatch.setattr(GradientGuard, "PATIENCE", 2)


def test_a_part_without_work_is_named_and_trains_when_there_is_some(mask_parts, tmp_path, patience, caplog):
    trainer = make_trainer(mask_parts, tmp_path, [mask_row(0), mask_row(1)], learning_rates=PARTS)
    with caplog.at_level(logging.WARNING):
        trainer.train()
    (message,) = [each.message for each in caplog.records if "had no gradient" in each.message]
    assert message.startswith("Group 'adapter.region' trains but had no gradient in 2 steps")
    assert "regions that are read by their masks" in message


@pytest.mark.parametrize("rates", [{"adapter.cut": 1e-4}, {}], ids=["a rate of its own", "frozen"])
def test_the_rest_of_the_adapter_is_a_part_too(mask_parts, tmp_path, caplog, rates):
    """What is left beside `cut` is the layer for regions, and there are none."""
    for name, parameter in mask_parts[0].adapter.named_parameters():
        parameter.requires_grad_(name.startswith("region.") or bool(rates and name.startswith("cut.")))
    make_trainer(mask_parts, tmp_path, [mask_row(0)], learning_rates=rates, max_steps=1).train()
    assert "Group 'adapter' trains but had no gradient in 1 steps" in caplog.text


def test_parts_that_all_had_work_are_not_named(mask_parts, tmp_path, patience, caplog):
    rows = [mask_row(0), row(1)]
    make_trainer(mask_parts, tmp_path, rows, learning_rates=PARTS, per_device_train_batch_size=1, max_steps=4).train()
    assert not [each for each in caplog.records if "had no gradient" in each.message]


def test_a_part_that_no_gradient_reaches_though_it_had_work_stops_the_run(mask_parts, tmp_path, patience):
    mask_parts[0].adapter.region.register_forward_hook(lambda module, inputs, tokens: tokens.detach())
    trainer = make_trainer(mask_parts, tmp_path, [mask_row(0), row(1)], learning_rates=PARTS)
    with pytest.raises(TrainingError, match=r"Group 'adapter.region' trains .*in 2 steps; samples of every kind.*null"):
        trainer.train()
    assert trainer.state.global_step == 1


def test_data_without_work_for_any_part_stops_the_run(mask_parts, tmp_path, patience):
    for name, parameter in mask_parts[0].adapter.named_parameters():
        parameter.requires_grad_(name.startswith("region."))
    rates = {"adapter.region": 1e-3}
    trainer = make_trainer(mask_parts, tmp_path, [mask_row(0), mask_row(1)], learning_rates=rates)
    with pytest.raises(TrainingError, match="in 2 steps; no sample so far has regions that are read by their masks"):
        trainer.train()


def test_a_short_run_names_its_idle_parts_at_the_end(mask_parts, tmp_path, caplog):
    make_trainer(mask_parts, tmp_path, [mask_row(0), mask_row(1)], learning_rates=PARTS).train()
    assert "Group 'adapter.region' trains but had no gradient in 3 steps" in caplog.text


def test_a_run_with_masks_resumes_exactly(monkeypatch, tmp_path):
    install_stencil(monkeypatch)

    def trained(resume=None, rates=PARTS):
        made = make_parts("stencil", dropout=0.2)
        trainer = make_trainer(
            made, tmp_path, mask_rows() * 2, max_steps=4, save_strategy="steps", save_steps=2, learning_rates=rates,
            gradient_accumulation_steps=2,
        )  # fmt: skip
        trainer.train(resume_from_checkpoint=resume)
        weights = weights_of(made[0])
        made[0].detach()
        return [(entry.get("loss"), entry.get("mask_loss")) for entry in trainer.state.log_history[:4]], weights

    losses, expected = trained()
    middle = str(checkpoints.checkpoint_path(tmp_path, 2))
    resumed, weights = trained(middle)
    assert resumed == losses
    assert len(set(losses)) == 4
    require_close(weights, expected, 0)
    with pytest.raises(TrainingError, match=r"learning_rates\.adapter\.cut was 0\.001, is None"):
        trained(middle, rates={"adapter.region": 1e-3})


# -- what would go wrong unseen ---------------------------------------------------------------------------------


@pytest.mark.parametrize("batching", ["grouped", "shuffled"])
def test_rows_that_are_no_samples_are_refused(parts, tmp_path, batching):
    trainer = make_trainer(parts, tmp_path, mixed_rows(2), batching=batching)
    trainer.train_dataset = datasets.Dataset.from_list(mixed_rows(2))
    with pytest.raises(TrainingError, match=r"RegionSample, this one gives dict.*RegionDataset\.from_rows"):
        trainer.train()


def test_pushing_the_output_folder_is_refused(parts, tmp_path):
    with pytest.raises(TrainingError, match=r"args\.push_to_hub would upload checkpoints.*model\.push_to_hub"):
        make_trainer(parts, tmp_path, mixed_rows(2), push_to_hub=True)
    with pytest.raises(TrainingError, match=r"model\.push_to_hub\(repo_id, processor\)"):
        make_trainer(parts, tmp_path, mixed_rows(2)).push_to_hub()


# -- checkpoints ------------------------------------------------------------------------------------------------


def names_in(out):
    return sorted(each.name for each in checkpoints.checkpoints_folder(out).iterdir())


def test_a_checkpoint_is_a_model_folder_and_what_the_trainer_needs(parts, tmp_path):
    trainer = make_trainer(
        parts, tmp_path, mixed_rows(4), save_strategy="steps", save_steps=1, save_total_limit=2, max_steps=4
    )
    trainer.train()
    assert names_in(tmp_path) == ["checkpoint-3", "checkpoint-4"]
    newest = checkpoints.latest_checkpoint(tmp_path)
    assert sorted(each.name for each in newest.iterdir()) == [
        "model", "optimizer.pt", "rng_state.pth", "run.json", "scheduler.pt", "trainer_state.json",
    ]  # fmt: skip
    trained = weights_of(parts[0])
    bare, _ = get_backbone("videollama3").tiny(0)
    loaded = RegionModel.from_pretrained(newest / "model", backbone=bare)
    loaded_weights = dict(loaded.named_parameters())
    require_close(trained, {name: loaded_weights[name].detach() for name in trained}, 0)
    loaded.detach()


def test_the_finished_model_is_written_where_one_says(parts, tmp_path):
    trainer = make_trainer(parts, tmp_path / "out", mixed_rows(4), max_steps=1)
    trainer.train()
    trainer.save_model(str(tmp_path / "elsewhere"))
    trainer.save_model()
    trainer.save_model()
    for folder in (tmp_path / "elsewhere", tmp_path / "out" / "model"):
        assert (folder / "pixelrefer.json").is_file()


def test_the_best_checkpoint_is_kept_and_loaded_at_the_end(parts, tmp_path):
    scores = iter([0.1, 0.9, 0.5, 0.3])
    weights = []

    def answers(model):
        weights.append(weights_of(model))
        return {"score": next(scores)}

    trainer = make_trainer(
        parts, tmp_path, mixed_rows(4), eval_rows=mixed_rows(2), answers=answers, max_steps=4, eval_strategy="steps",
        eval_steps=1, save_strategy="steps", save_steps=1, save_total_limit=2, load_best_model_at_end=True,
        metric_for_best_model="score", greater_is_better=True,
    )  # fmt: skip
    trainer.train()
    assert names_in(tmp_path) == ["checkpoint-2", "checkpoint-4"]
    assert trainer.state.best_model_checkpoint == str(checkpoints.checkpoint_path(tmp_path, 2))
    state = json.loads((checkpoints.checkpoint_path(tmp_path, 2) / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == trainer.state.best_model_checkpoint
    require_close(weights_of(parts[0]), weights[1], 0)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The losses of a run that nothing happens to, and its output folder."""
    out = tmp_path_factory.mktemp("uninterrupted")
    assert in_process(run, out) == 0
    losses = json.loads((out / "losses.json").read_text())
    assert len(set(losses)) == 8
    return losses, out


@pytest.mark.parametrize(
    ("how", "left"),
    [
        (KilledInStep, ["checkpoint-2", "checkpoint-4"]),
        (KilledInSave, [".checkpoint-6.partial", "checkpoint-2", "checkpoint-4"]),
    ],
    ids=["in a step", "in a save"],
)
def test_a_killed_run_resumes_to_the_same_losses(tmp_path, uninterrupted, how, left):
    assert in_process(run, tmp_path, how=how) == -signal.SIGKILL
    assert names_in(tmp_path) == left
    assert in_process(run, tmp_path, resume=True) == 0
    assert json.loads((tmp_path / "losses.json").read_text()) == uninterrupted[0]
    assert names_in(tmp_path) == ["checkpoint-6", "checkpoint-8"]
    for file in ("adapter.safetensors", "lora/adapter_model.safetensors"):
        ours, theirs = (checkpoints.checkpoint_path(each, 8) / "model" / file for each in (tmp_path, uninterrupted[1]))
        assert ours.read_bytes() == theirs.read_bytes()


def test_a_full_disk_stops_the_run_and_damages_nothing(tmp_path, uninterrupted):
    assert in_process(run_to_full_disk, tmp_path) == 0
    message, newest = (tmp_path / "error.txt").read_text().rsplit("\n", 1)
    assert "The checkpoint of step 4 could not be written to" in message
    assert f"'{newest}' is whole: make room and resume from it" in message
    assert names_in(tmp_path) == ["checkpoint-2"]
    assert in_process(run, tmp_path, resume=True) == 0
    assert json.loads((tmp_path / "losses.json").read_text()) == uninterrupted[0]


def test_a_run_may_go_on_for_longer(tmp_path):
    trainer = resumable_trainer(tmp_path, max_steps=2)
    trainer.train()
    longer = resumable_trainer(tmp_path, max_steps=3)
    longer.train(resume_from_checkpoint=True)
    assert len(losses_of(longer)) == 3
    assert losses_of(longer)[:2] == losses_of(trainer)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"per_device_train_batch_size": 1},
            "other settings: per_device_train_batch_size was 2, is 1. Resume with",
        ),
        ({"max_steps": 1}, "max_steps was 2, is 1"),
        ({"batching": "shuffled", "learning_rate": 1e-4}, "batching was 'grouped', is 'shuffled'; learning_rate was"),
        ({"learning_rates": {"lora": 1e-4}}, "learning_rates.lora was None, is 0.0001"),
    ],
)
def test_resuming_with_other_settings_names_them(tmp_path, changes, message):
    resumable_trainer(tmp_path, max_steps=2).train()
    with pytest.raises(TrainingError, match=message):
        resumable_trainer(tmp_path, **{"max_steps": 2, **changes}).train(resume_from_checkpoint=True)


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({"run": {"out": "elsewhere", "save_every": 7}, "data": {"workers": 8}, "optim": {"steps": 9}}, None),
        ({"evaluation": {"samples": 3}, "data": {"eval": ["b.jsonl"]}, "optim": {"steps": 4, "epochs": 2}}, None),
        ({"optim": {"steps": 3}}, "optim.steps was 4, is 3"),
        ({"data": {"train": ["b.jsonl"]}}, r"data.train was \['a.jsonl'\], is \['b.jsonl'\]"),
        ({"lora": {"r": 8}}, "lora.r was 4, is 8"),
    ],
)
def test_what_may_differ_in_a_resumed_run(tmp_path, change, refused):
    def settings(changes):
        sections = {
            "run": {"out": "out", "save_every": 5}, "data": {"train": ("a.jsonl",), "eval": [], "workers": 2},
            "optim": {"steps": 4, "epochs": None}, "lora": {"r": 4}, "evaluation": {"samples": 200},
        }  # fmt: skip
        return {name: {**section, **changes.get(name, {})} for name, section in sections.items()}

    checkpoints.write_run(tmp_path, settings({}))
    if refused is None:
        checkpoints.require_resumable(tmp_path, settings(change), files=())
    else:
        with pytest.raises(TrainingError, match=refused):
            checkpoints.require_resumable(tmp_path, settings(change), files=())


def test_another_number_of_samples_is_another_run(parts, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 1, "run": {"lora": {"r": 4}}}
    make_trainer(parts, tmp_path, mixed_rows(4), **options).train()
    with pytest.raises(TrainingError, match="num_samples was 4, is 5"):
        make_trainer(parts, tmp_path, mixed_rows(5), **options).train(resume_from_checkpoint=True)


def test_there_must_be_a_whole_checkpoint_to_resume_from(parts, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 1}
    trainer = make_trainer(parts, tmp_path, mixed_rows(4), **options)
    with pytest.raises(TrainingError, match="There is no checkpoint in '.*checkpoints' to resume from"):
        trainer.train(resume_from_checkpoint=True)
    trainer.train()
    (checkpoints.latest_checkpoint(tmp_path) / "optimizer.pt").unlink()
    with pytest.raises(TrainingError, match="is not a whole checkpoint: it has no optimizer.pt"):
        make_trainer(parts, tmp_path, mixed_rows(4), **options).train(resume_from_checkpoint=True)


def test_only_our_own_left_overs_are_removed(tmp_path):
    folder = checkpoints.checkpoints_folder(tmp_path)
    ours = [".checkpoint-3.partial", ".checkpoint-12.discarded"]
    others = [".checkpoint-x.partial", ".git", "checkpoint-3", "checkpoint-4.partial", "notes"]
    for name in (*ours, *others):
        (folder / name / "inside").mkdir(parents=True)
    checkpoints.remove_left_over(tmp_path)
    assert names_in(tmp_path) == others
    checkpoints.remove_left_over(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("keep", "best", "left"),
    [
        (None, None, [1, 2, 5, 10]),
        (1, None, [10]),
        (3, None, [2, 5, 10]),
        (9, None, [1, 2, 5, 10]),
        (2, 1, [1, 10]),
        (1, 2, [2, 10]),
    ],
)
def test_rotation_keeps_the_newest_and_the_best(tmp_path, keep, best, left):
    for step in (1, 2, 5, 10):
        (checkpoints.checkpoint_path(tmp_path, step) / "model").mkdir(parents=True)
    best_path = str(checkpoints.checkpoint_path(tmp_path, best)) if best else None
    checkpoints.rotate(tmp_path, keep=keep, best=best_path)
    assert [checkpoints.step_of(each) for each in checkpoints.list_checkpoints(tmp_path)] == left


def test_the_newest_checkpoint_is_the_one_of_the_latest_step(tmp_path):
    assert checkpoints.latest_checkpoint(tmp_path) is None
    for name in ("checkpoint-9", "checkpoint-10", "checkpoint-best", ".checkpoint-11.partial"):
        (checkpoints.checkpoints_folder(tmp_path) / name).mkdir(parents=True)
    assert checkpoints.latest_checkpoint(tmp_path).name == "checkpoint-10"
