"""`pixelrefer train` and `pixelrefer merge`, from a file of samples to a folder that answers."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from conftest import assistant, picture, user
from PIL import Image
from rich.console import Console
from torch import nn
from training_runs import OWN_RECIPES, install_stencil

from pixelrefer_plugin import AttachError, Region, RegionModel, RegionProcessor, cli, load
from pixelrefer_plugin.authoring import AdapterRecipe
from pixelrefer_plugin.contracts.samples import RegionSample
from pixelrefer_plugin.data.dataset import RegionDataset
from pixelrefer_plugin.errors import ConfigError, Defect, SampleError, TrainingError
from pixelrefer_plugin.evaluation.answers import HeldOutAnswers, normalized
from pixelrefer_plugin.evaluation.asking.questions import questions_of
from pixelrefer_plugin.plugins import get_adapter, get_backbone
from pixelrefer_plugin.testing import make_pair
from pixelrefer_plugin.training.building import BuiltData, build_model, check_masks, choose_recipe, num_processes
from pixelrefer_plugin.training.checkpoints import latest_checkpoint
from pixelrefer_plugin.training.collator import RegionCollator
from pixelrefer_plugin.training.config import TrainConfig
from pixelrefer_plugin.training.groups import apply_recipe, parameter_groups, trainable_groups, trained_tokens
from pixelrefer_plugin.training.recipes import RECIPES, Recipe, linear_layers_outside_decoder
from pixelrefer_plugin.training.run import run_training
from pixelrefer_plugin.weights.loading import load_backbone
from pixelrefer_plugin.weights.model_folder import locate_backbone, read_manifest

BASE = "builtin:tiny_videollama3"
BACKBONES = ("videollama3", "qwen2_5_vl", "llava_onevision")
BOXES = ([7, 7, 28, 28], [42, 14, 70, 42])


# -- samples -----------------------------------------------------------------------------------------------


def write_samples(folder, name, count, seed):
    """Pictures with two boxes each, one darker, one brighter, and a file that asks which is which."""
    generator = np.random.default_rng(seed)
    records = []
    for index in range(count):
        pixels = generator.integers(0, 60, (56, 84, 3), dtype=np.uint8)
        answers = []
        for x0, y0, x1, y1 in BOXES:
            bright = bool(generator.integers(2))
            pixels[y0:y1, x0:x1] += 180 * bright
            answers.append("red" if bright else "blue")
        Image.fromarray(pixels).save(folder / f"{name}-{index}.png")
        turns = [(user_text("what is <region>?"), assistant_text(answer)) for answer in answers]
        records.append(
            {
                "id": f"{name}-{index}",
                "image": f"{name}-{index}.png",
                "regions": [{"box": box} for box in BOXES],
                "messages": [message for turn in turns for message in turn],
            }
        )
    return write_records(folder / f"{name}.jsonl", records)


def write_mask_samples(folder, name, count):
    """Noise pictures, each with an answer that gives the masks of its two boxes."""
    generator = np.random.default_rng(5)
    records = []
    for index in range(count):
        pixels = generator.integers(0, 255, (56, 84, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}-{index}.png")
        records.append(
            {
                "id": f"{name}-{index}",
                "image": f"{name}-{index}.png",
                "regions": [{"box": box} for box in BOXES],
                "messages": [user_text("segment both"), assistant_text("<seg> and <seg>")],
            }
        )
    return write_records(folder / f"{name}.jsonl", records)


def write_records(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def user_text(text):
    return {"role": "user", "content": text}


def assistant_text(text):
    return {"role": "assistant", "content": text}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Training and held-out samples."""
    folder = tmp_path_factory.mktemp("data")
    write_samples(folder, "train", 12, seed=0)
    write_samples(folder, "held-out", 3, seed=1)
    write_mask_samples(folder, "masks", 6)
    return folder


def configured(data, out, /, **sections):
    """The mapping of a short run; sections are merged into it."""
    values = {
        "model": {"backbone": BASE, "adapter": "saot", "adapter_config": {"num_tokens": 4}},
        "data": {"train": str(data / "train.jsonl"), "eval": str(data / "held-out.jsonl"), "workers": 0},
        "optim": {"steps": 4, "batch_size": 2},
        "run": {"out": str(out), "save_every": 2, "log_every": 1, "report_to": []},
        "evaluation": {"max_new_tokens": 4},
    }
    for section, changes in sections.items():
        is_section = isinstance(changes, dict) and section in values
        values[section] = {**values[section], **changes} if is_section else changes
    return TrainConfig.from_mapping(values)


@pytest.fixture
def config(data, tmp_path):
    """`config(section={...})` makes the configuration of a short run into `tmp_path / "out"`."""
    return lambda **sections: configured(data, tmp_path / "out", **sections)


def quietly(config, **options):
    """The result of a run, and what it printed."""
    with (console := Console(width=200)).capture() as printed:
        result = run_training(config, console=console, **options)
    return result, printed.get()


def run_command(*arguments):
    return CliRunner().invoke(cli.main, [str(each) for each in arguments])


def error_of(result):
    """The error lines of a command that failed as it should."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    return result.stderr


def held_out_loss(model, processor, config):
    samples = RegionDataset.open(config.data.eval[0].path)
    batch = RegionCollator(processor)([samples[index] for index in range(len(samples))])
    with torch.no_grad():
        return model(**{name: each for name, each in batch.items() if name not in ("sample_names", "skipped")}).loss


def built_by(config):
    """What a run begins with."""
    return build_model(config.resolved(has_bf16=False, recipe=choose_recipe(config)), torch.device("cpu"))


def untrained_loss(config):
    """The held-out loss that a run begins with."""
    built = built_by(config)
    return held_out_loss(built.model.eval(), built.processor, config)


# -- from a file to a model --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A run by the command line: its folder, and what it printed."""
    folder = tmp_path_factory.mktemp("trained")
    run = configured(data, folder / "out", run={"report_to": ["tensorboard"]})
    (folder / "run.yaml").write_text(run.to_yaml())
    result = run_command("train", folder / "run.yaml", "optim.global_batch_size=4")
    assert result.exit_code == 0, result.output
    return folder / "out", result.output


def test_a_run_leaves_what_it_promises(trained):
    out, _ = trained
    left = {path.name for path in out.iterdir()}
    answers = {"answers.jsonl", "answers.png"}
    assert left == {"model", "config.yaml", "run.json", "metrics.json", *answers, "logs", "checkpoints"}
    assert [path.name for path in sorted((out / "checkpoints").iterdir())] == ["checkpoint-2", "checkpoint-4"]
    assert list((out / "logs").glob("events*"))
    config = TrainConfig.load(out / "config.yaml")
    assert config.optim.global_batch_size == 4
    assert config.optim.precision in ("bf16", "fp32")
    record = json.loads((out / "run.json").read_text())
    assert record["steps"] == 4
    assert record["samples"]["train"][0]["samples"] == 12
    assert record["versions"]["torch"] == torch.__version__.partition("+")[0]


def test_held_out_answers_are_kept_and_counted(trained):
    out, _ = trained
    answers = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
    assert [(each["id"], each["turn"]) for each in answers] == [
        (f"held-out-{sample}", turn) for sample in range(3) for turn in range(2)
    ]
    assert all(each["question"] == "what is <region>?" and each["expected"] in ("red", "blue") for each in answers)
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["eval_exact_match"] == np.mean([each["exact"] for each in answers])
    assert metrics["eval_loss"] > 0
    assert metrics["skipped_samples"] == 0


def test_the_plan_is_printed_before_the_first_step(trained):
    _, output = trained
    plan, _, rest = output.partition("from the beginning")
    assert rest
    for expected in (
        r"recipe lora on builtin:tiny_videollama3",
        r"adapter +[\d,]+ +[\d,]+ +0\.001",
        r"lora +92,160 +92,160 +0\.0002",
        r"vision_tower +[\d,]+ +- +frozen",
        r"train: .*train\.jsonl +12 +12 +regions",
        r"held out: .*held-out\.jsonl +3 +3 +regions",
        r"4 steps of 4 samples \(2 x 2 accumulated\), 1\.33 epochs",
        r"memory per process: .*weights .*gradients .*optimizer .*activations",
    ):
        assert re.search(expected, plan), (expected, plan)


def test_the_saved_folder_answers_by_the_command_line(trained, data):
    out, _ = trained
    picture_path = data / "held-out-0.png"
    box = ",".join(map(str, BOXES[0]))
    result = run_command(
        "describe", picture_path, "--model", out / "model", "--box", box, "--prompt", "what is <region>?",
        "--max-new-tokens", 4, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    first = json.loads((out / "answers.jsonl").read_text().splitlines()[0])
    assert json.loads(result.stdout)["answers"] == [first["given"]]


def test_a_longer_training_learns_the_samples(config):
    longer = config(optim={"steps": 40, "batch_size": 4}, run={"save_every": None})
    result, _ = quietly(longer)
    assert result["eval_loss"] < untrained_loss(longer) / 10
    assert result["last_loss"] < untrained_loss(longer) / 10


# -- resume, overwrite, interrupt --------------------------------------------------------------------------


def test_a_folder_of_another_run_is_not_mixed_up(config):
    short = config(optim={"steps": 2})
    quietly(short)
    out = Path(short.run.out)
    before = (out / "run.json").read_bytes()
    with pytest.raises(TrainingError, match=r"holds another run\. Go on with it: --resume\. Replace it: --overwrite"):
        quietly(short)
    assert (out / "run.json").read_bytes() == before
    (out / "note.txt").write_text("mine")
    result, _ = quietly(config(optim={"steps": 1}, run={"save_every": None}), overwrite=True)
    assert result["steps"] == 1
    assert not (out / "checkpoints").exists()
    assert (out / "note.txt").read_text() == "mine"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_something_else_is_never_touched(config, overwrite):
    out = Path(config().run.out)
    (out / "model").mkdir(parents=True)
    with pytest.raises(TrainingError, match=r"is no run of pixelrefer train: it has no config\.yaml"):
        quietly(config(), overwrite=overwrite)
    assert (out / "model").is_dir()


def test_a_folder_that_cannot_be_made_is_said(config):
    with pytest.raises(TrainingError, match=r"run\.out '/proc/nowhere' cannot be written: No such file or directory\."):
        quietly(config(run={"out": "/proc/nowhere"}))


def test_another_process_does_not_mind_what_the_first_has_begun(config, monkeypatch):
    out = Path(config().run.out)
    out.mkdir()
    (out / "config.yaml").write_text(config().to_yaml())
    monkeypatch.setenv("RANK", "1")
    result, printed = quietly(config(), dry_run=True)
    assert result["first_batch"]["rows"] == 2
    assert printed == ""


def test_a_run_goes_on_where_it_was(config):
    quietly(config(optim={"steps": 2}))
    result, printed = quietly(config(optim={"steps": 4}), resume=True)
    assert "checkpoint-2" in printed
    assert result["steps"] == 4
    record = json.loads((Path(config().run.out) / "run.json").read_text())
    assert record["resumed_at_step"] == 2
    assert TrainConfig.load(Path(config().run.out) / "config.yaml").optim.steps == 4


def test_a_finished_run_is_not_trained_further(config):
    result, _ = quietly(config())
    out = Path(config().run.out)
    weights = (out / "model" / "adapter.safetensors").read_bytes()
    shutil.rmtree(out / "model")  # as where it was killed before the model was written
    assert quietly(config(), resume=True)[0] == result
    assert (out / "model" / "adapter.safetensors").read_bytes() == weights
    with pytest.raises(TrainingError, match=r"other settings: optim\.seed was 0, is 1"):
        quietly(config(optim={"seed": 1}), resume=True)


@pytest.mark.parametrize("eval_every", [None, 2])
def test_a_finished_run_writes_its_answers_again(config, eval_every):
    own = config(optim={"steps": 2}, run={"save_every": 2, "eval_every": eval_every})
    result, _ = quietly(own)
    answers = Path(own.run.out) / "answers.jsonl"
    written = answers.read_text()
    assert written
    answers.unlink()  # as where it was killed behind the last evaluation, before they were written
    assert quietly(own, resume=True)[0] == result
    assert answers.read_text() == written


def test_resume_where_nothing_is_begins(config):
    result, printed = quietly(config(optim={"steps": 1}), resume=True)
    assert "from the beginning" in printed
    assert result["steps"] == 1


def test_resume_with_another_configuration_is_refused(config):
    quietly(config(optim={"steps": 2}))
    kept = (Path(config().run.out) / "config.yaml").read_bytes()
    with pytest.raises(TrainingError, match=r"other settings: .*lora\.r was 16, is 8.*optim\.seed was 0, is 1"):
        quietly(config(optim={"steps": 4, "seed": 1}, lora={"r": 8}), resume=True)
    assert (Path(config().run.out) / "config.yaml").read_bytes() == kept


def test_a_signal_stops_behind_a_step_with_a_checkpoint(config):
    endless = config(optim={"steps": 100_000}, run={"save_every": 1, "keep": 1})
    out = Path(endless.run.out)

    def interrupt():
        while latest_checkpoint(out) is None:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt, daemon=True).start()
    handler = signal.getsignal(signal.SIGTERM)
    result, printed = quietly(endless)
    assert "stopping after this step" in printed
    assert 0 < result["interrupted"] < 100_000
    assert result["resumable"]
    assert signal.getsignal(signal.SIGTERM) is handler
    assert not (out / "model").exists()
    assert latest_checkpoint(out).name == f"checkpoint-{result['interrupted']}"


def test_an_interrupt_before_the_first_step_is_no_failure(tmp_path):
    os.mkfifo(tmp_path / "slow.yaml")

    def interrupt():
        with (tmp_path / "slow.yaml").open("w"):  # waits until it is read
            os.kill(os.getpid(), signal.SIGINT)

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore the signal
    try:
        threading.Thread(target=interrupt, daemon=True).start()
        result = run_command("train", tmp_path / "slow.yaml")
    finally:
        signal.signal(signal.SIGINT, handler)
    assert result.exit_code == 130
    assert result.output == "stopped at once; --resume goes on from the newest checkpoint, if there is one\n"


def test_a_dry_run_writes_nothing(config):
    result, printed = quietly(config(), dry_run=True)
    assert result["first_batch"]["rows"] == 2
    assert result["first_batch"]["supervised_tokens"] > 0
    assert "nothing was written" in printed
    assert not Path(config().run.out).exists()


# -- recipes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_trains_its_groups_and_no_other(recipe, backbone):
    model = make_pair("saot", backbone).model
    if recipe == "lora":
        model.add_lora()
    rates, notes = apply_recipe(model, RECIPES[recipe], {"adapter": 5e-4})
    assert set(trainable_groups(model)) == set(rates)
    assert rates == {**{group: RECIPES[recipe].rates[group] for group in rates}, "adapter": 5e-4}
    assert set(RECIPES[recipe].rates) - set(rates) <= {"token_rows"}
    assert notes == []
    model.detach()


def test_a_part_of_the_adapter_has_its_own_rate_or_none():
    model = make_pair("saot", "videollama3").model
    rates, _ = apply_recipe(model, RECIPES["lora"], {"adapter.position": None, "adapter.mlp": 1e-5})
    assert rates == {"adapter.mlp": 1e-5}
    trained = [name for name, each in model.named_parameters() if each.requires_grad]
    assert trained == [f"adapter.mlp.{name}" for name, _ in model.adapter.mlp.named_parameters()]
    with pytest.raises(TrainingError, match=r"has no adapter\.eye\. Its parts: adapter\.position, adapter\.mlp"):
        apply_recipe(model, RECIPES["lora"], {"adapter.eye": 1e-5})
    model.detach()


def test_a_part_may_lie_deeper_and_the_recipe_may_freeze_it():
    model = make_pair("saot", "videollama3").model
    recipe = Recipe("own", "", {"adapter.mlp": 1e-3, "adapter.mlp.0": None})
    rates, _ = apply_recipe(model, recipe, {})
    assert rates == {"adapter.mlp": 1e-3}
    trained = [name for name, each in model.named_parameters() if each.requires_grad]
    assert trained == ["adapter.mlp.2.weight", "adapter.mlp.2.bias"]
    assert apply_recipe(model, recipe, {"adapter.mlp": 1e-5})[0] == {"adapter.mlp": 1e-5}
    with pytest.raises(TrainingError, match=r"names adapter\.mlp\.0, which do not train here.*: adapter\.mlp\.$"):
        apply_recipe(model, recipe, {"adapter.mlp.0": 1e-5})
    with pytest.raises(TrainingError, match=r"has no adapter\.mlp\.7\. Its parts: adapter\.mlp\.0, adapter\.mlp\.2\.$"):
        apply_recipe(model, recipe, {"adapter.mlp.7": 1e-5})
    model.detach()


def test_object_only_adapters_leave_the_projector_out():
    model = make_pair("oci", "videollama3").model
    rates, (note,) = apply_recipe(model, RECIPES["stage1"], {})
    assert set(rates) == {"adapter", "decoder"} == set(trainable_groups(model))
    assert "Object-Only" in note
    with pytest.raises(
        TrainingError, match="names projector, which do not train here. Groups that train: adapter, decoder"
    ):
        apply_recipe(model, RECIPES["stage1"], {"projector": 1e-5})
    model.detach()


@pytest.mark.parametrize("recipe", ["stage1", "full"])
def test_a_trained_backbone_is_saved_and_loads(config, recipe):
    result, _ = quietly(config(recipe=recipe, optim={"steps": 2, "gradient_checkpointing": True}))
    folder = Path(config().run.out) / "model"
    assert result["steps"] == 2
    assert read_manifest(folder).backbone_id == "backbone"
    trained = RegionModel.from_pretrained(folder)
    base = RegionModel.from_pretrained(locate_backbone(BASE, Path()), adapter="saot")
    weights = base.backbone.state_dict()
    changed = {name for name, each in trained.backbone.state_dict().items() if not torch.equal(each, weights[name])}
    assert any(name.startswith("model.projector") for name in changed)
    assert any(name.startswith("model.language_model") for name in changed)
    assert any(name.startswith("model.vision_model") for name in changed) == (recipe == "full")


def test_training_goes_on_from_a_model_folder(trained, config):
    out, _ = trained
    model = {"backbone": str(out / "model"), "adapter_config": None}
    result, printed = quietly(config(model=model, optim={"steps": 1}))
    assert "trains on; r, alpha, scopes and targets are its own" in printed
    assert result["steps"] == 1
    with pytest.raises(TrainingError, match="has LoRA, but recipe 'stage2' trains the backbone itself. Fold it in"):
        quietly(config(model=model, recipe="stage2"), overwrite=True)


def test_new_tokens_train_their_rows(config):
    result, printed = quietly(config(model={"backbone": BASE, "tokens": ["<bright>", "<dark>"]}, optim={"steps": 2}))
    assert re.search(r"token_rows +192 +192 +0\.0002", printed)
    assert result["steps"] == 2
    processor = RegionProcessor.from_pretrained(Path(config().run.out) / "model")
    assert len(processor.tokenizer.tokenize("<bright><dark>")) == 2


@pytest.mark.parametrize(
    ("sections", "error", "expected"),
    [
        ({"lora": {"targets": ["q_prj"]}}, AttachError, "q_prj"),
        ({"learning_rates": {"token_rows": 1e-4}}, TrainingError, "names token_rows, which do not train here"),
        (
            {"model": {"adapter": "oci", "adapter_config": None}, "lora": {"scopes": ["decoder", "projector"]}},
            TrainingError,
            "never runs: it is Object-Only",
        ),
        ({"optim": {"batch_size": 1, "global_batch_size": 3, "steps": 1}}, None, ""),
        ({"data": {"max_pixels": 600}}, ConfigError, r"at least 784 and at most 600 pixels exclude each other"),
    ],
    ids=["targets", "idle group", "unused scope", "accumulation is fine", "budget"],
)
def test_what_only_the_model_can_tell(config, sections, error, expected):
    if error is None:
        assert quietly(config(**sections), dry_run=True)[0]["first_batch"]["rows"] == 1
        return
    with pytest.raises(error, match=expected):
        quietly(config(**sections), dry_run=True)


def test_a_global_batch_must_be_whole_for_all_processes(config, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert num_processes() == 4
    with pytest.raises(ConfigError, match=r"multiple of batch_size times processes \(2 x 4 = 8\), got 4"):
        quietly(config(optim={"batch_size": 2, "global_batch_size": 4}), dry_run=True)


def test_budgets_are_saved_with_the_model(config):
    budgets = {"max_pixels": 56 * 56, "min_pixels": 28 * 28, "max_video_pixels": 9000, "frames": {"fps": 2.0}}
    quietly(config(data=budgets, optim={"steps": 1}))
    processor = RegionProcessor.from_pretrained(Path(config().run.out) / "model")
    assert processor.native.image_processor.size["longest_edge"] == 56 * 56
    assert processor.native.video_processor.size["longest_edge"] == 9000
    assert processor.sampling.fps == 2.0
    inputs = processor([user(picture(112, 112), "what?")], [])
    assert inputs["image_grid_thw"].prod() * 14 * 14 <= 56 * 56


def test_a_budget_of_pixels_is_refused_where_there_is_none(config, tmp_path):
    backbone, native = get_backbone("llava_onevision").tiny(0)
    backbone.save_pretrained(tmp_path / "llava")
    native.save_pretrained(tmp_path / "llava")
    with pytest.raises(
        ConfigError,
        match=r"LlavaOnevisionImageProcessor\w* does not size by area.*max_pixels=null; data",
    ):
        quietly(config(model={"backbone": str(tmp_path / "llava")}, data={"max_pixels": 100}), dry_run=True)


# -- recipes that an adapter brings, and masks -------------------------------------------------------------


@pytest.fixture
def mask_config(config, data, monkeypatch):
    """`mask_config(recipe, section={...})` configures a short run of an adapter that gives masks, which it learns."""
    recipes = {
        **OWN_RECIPES,
        "attention": AdapterRecipe(
            about="Attention layers, as backbones of several kinds name them.",
            rates={"adapter": 1e-3, "lora": 1e-4, "token_rows": 1e-4},
            lora={"r": 4, "scopes": ("decoder", "vision_tower"), "targets": ("q_proj", "qkv", "out_proj", "proj")},
        ),
        "elsewhere": AdapterRecipe(about="", rates={"lora": 1e-4}, lora={"targets": ("qkv", "c_attn")}),
    }
    install_stencil(monkeypatch, recipes)

    def mask_config(recipe, **sections):
        model = {"adapter": "stencil", "adapter_config": None, **sections.pop("model", {})}
        masks = {"train": str(data / "masks.jsonl"), "eval": None, **sections.pop("data", {})}
        return config(recipe=recipe, model=model, data=masks, **sections)

    return mask_config


def test_a_run_by_a_recipe_of_the_adapter(mask_config, data):
    own = mask_config("shapes", data={"eval": str(data / "masks.jsonl")})
    result, printed = quietly(own)
    assert "recipe shapes on builtin:tiny_videollama3. What cuts the masks, and the rows of their token." in printed
    for expected in (
        r"adapter +[\d,]+ +- +frozen",
        r"adapter\.cut +([\d,]+) +\1 +0\.001",
        r"lora +[\d,]+ +- +frozen",
        r"token_rows +(96|192) +\1 +0\.001",
    ):
        assert re.search(expected, printed), (expected, printed)
    assert result["eval_mask_loss"] > 0
    out = Path(own.run.out)
    assert json.loads((out / "run.json").read_text())["learning_rates"] == {"adapter.cut": 0.001, "token_rows": 0.001}
    written = TrainConfig.load(out / "config.yaml")
    assert (written.recipe, written.lora.r, written.lora.alpha) == ("shapes", 4, 8)
    longer = mask_config("shapes", data={"eval": str(data / "masks.jsonl")}, optim={"steps": 6})
    assert quietly(longer, resume=True)[0]["steps"] == 6


def test_what_a_recipe_leaves_frozen_stays_as_it_is(mask_config):
    own = mask_config("shapes")
    before = built_by(own).model.state_dict()
    quietly(own)
    after = RegionModel.from_pretrained(Path(own.run.out) / "model").state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("adapter.cut.") or "trainable_tokens_delta" in name for name in changed)


def test_a_dry_run_counts_the_masks_to_learn(mask_config):
    result, printed = quietly(mask_config("shapes"), dry_run=True)
    assert "4 masks to learn" in printed
    assert result["first_batch"]["masks_to_learn"] == 4


def test_a_recipe_that_leaves_the_decoder_silent_is_refused(mask_config):
    expected = (
        r"masks to learn, in .*masks\.jsonl line 1, sample 'masks-0'.* the decoder is frozen: it would never say "
        r"'<seg>'.*recipes that do: lora, stage1, stage2, full, shapes, attention, elsewhere\."
    )
    with pytest.raises(TrainingError, match=expected):
        quietly(mask_config("all"), dry_run=True)
    with pytest.raises(TrainingError, match="would never say"):
        quietly(mask_config("lora", learning_rates={"lora": None, "token_rows": None}), dry_run=True)


def test_regions_may_be_learnt_by_a_decoder_that_stays_as_it_is(mask_config, data):
    assert quietly(mask_config("all", data={"train": str(data / "train.jsonl")}))[0]["steps"] == 4


def test_lora_that_was_made_without_the_token_s_rows_is_told(mask_config, tmp_path):
    bare, native = get_backbone("videollama3").tiny(0)
    bare.save_pretrained(tmp_path / "base")
    native.save_pretrained(tmp_path / "base")
    model, processor = load(tmp_path / "base", adapter="stencil")
    model.tokens = replace(processor.tokens, mask=None)  # so that LoRA leaves its row alone
    model.add_lora(token_ids=[])
    model.tokens = processor.tokens
    model.save_pretrained(tmp_path / "older", processor)
    older = {"backbone": str(tmp_path / "older"), "adapter": None}
    _, printed = quietly(mask_config("lora", model=older), dry_run=True)
    assert "note: masks: LoRA trains, but not the rows of the token" in printed
    with pytest.raises(TrainingError, match="would never say"):
        quietly(mask_config("lora", model=older, learning_rates={"lora": None}), dry_run=True)


def test_from_stage_to_stage_the_token_keeps_its_rows(mask_config, tmp_path):
    quietly(mask_config("shapes", run={"out": str(tmp_path / "first")}))
    model = {"backbone": str(tmp_path / "first" / "model"), "adapter": None}
    _, printed = quietly(mask_config("lora", model=model, run={"out": str(tmp_path / "second")}))
    assert "trains on; r, alpha, scopes and targets are its own" in printed
    assert re.search(r"token_rows +[\d,]+ +[\d,]+ +0\.0002", printed)
    trained = RegionModel.from_pretrained(tmp_path / "second" / "model")
    processor = RegionProcessor.from_pretrained(tmp_path / "second" / "model")
    assert trained_tokens(trained) == {processor.tokens.mask}


def test_masks_want_no_rows_of_their_own_where_the_decoder_trains(mask_config):
    built = built_by(mask_config("full"))
    train = Samples([RegionSample("a", (user("segment"), assistant("<seg>")), (Region.from_box((0, 0, 9, 9)),))])
    assert check_masks(built, BuiltData(train)) == []


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_recipe_s_targets_are_those_that_the_backbone_has(mask_config, tmp_path, backbone):
    bare, native = get_backbone(backbone).tiny(0)
    bare.save_pretrained(tmp_path / "base")
    native.save_pretrained(tmp_path / "base")
    base = {"backbone": str(tmp_path / "base")}
    model = built_by(mask_config("attention", model=base)).model
    names = {name.partition(".lora_")[0] for name, _ in trainable_groups(model)["lora"]}
    layers = {name.rpartition(".")[2] for name in names}
    assert "q_proj" in layers
    assert layers < {"q_proj", "qkv", "out_proj", "proj"}
    for part in (model.backbone_spec.parts.decoder, model.backbone_spec.parts.vision_tower):
        assert any(name.startswith(f"backbone.{part}.") for name in names)
    with pytest.raises(TrainingError, match=r"Recipe 'elsewhere' puts LoRA on qkv, c_attn, none of which is in scope"):
        built_by(mask_config("elsewhere", model=base))
    with pytest.raises(AttachError, match="qkvv"):
        built_by(mask_config("attention", model=base, lora={"targets": ["q_proj", "qkvv"]}))


# -- UniPixel's stages -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clicks_and_masks(data):
    """Samples with a click, with an object that is read by its mask, and with a mask to learn, in each."""
    records = [json.loads(line) for line in (data / "masks.jsonl").read_text().splitlines()]
    for record in records:
        record["messages"] = [
            user_text("what is <region>, and <region>?"),
            assistant_text("red and blue"),
            user_text("segment the red one"),
            assistant_text("<seg>"),
        ]
        outline = [10, 10, 30, 10, 20, 40]
        record["regions"] = [{"points": [[40, 20]]}, {"polygon": outline}, {"polygon": outline}]
    return write_records(data / "clicks-and-masks.jsonl", records)


def test_unipixel_trains_in_its_stages(config, data, clicks_and_masks, tmp_path):
    clicks = [json.loads(line) for line in clicks_and_masks.read_text().splitlines()]
    for record in clicks:
        record["messages"] = [user_text("what is <region>?"), assistant_text("red")]
        record["regions"] = record["regions"][:1]
    files = {1: write_records(data / "clicks.jsonl", clicks), 2: data / "masks.jsonl", 3: clicks_and_masks}
    spec = get_adapter("unipixel")
    model = {"backbone": BASE, "adapter": "unipixel", "adapter_config": dict(spec.tiny)}
    for stage, file in files.items():
        recipe = f"unipixel_stage{stage}"
        out = tmp_path / recipe
        own = config(
            recipe=recipe, model=model, data={"train": str(file), "eval": str(file)}, run={"out": str(out)},
            optim={"steps": 2}, evaluation={"samples": 0},
        )  # fmt: skip
        before = built_by(own).model.state_dict()
        result, printed = quietly(own)
        after = RegionModel.from_pretrained(out / "model").state_dict()
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        rates = {group: rate for group, rate in spec.recipes[recipe].rates.items() if rate is not None}
        assert {group_of(name) for name in moved} == set(rates)
        of_sam = {f"adapter.prompt_encoder.{name}.weight" for name in ("kind", "padding")}
        assert moved & of_sam == (of_sam if stage == 3 else set())
        assert ("eval_mask_loss" in result) == (stage > 1)
        if stage == 3:
            assert "trains on; r, alpha, scopes and targets are its own" in printed
        model = {"backbone": str(out / "model"), "adapter": None, "adapter_config": None}


def group_of(name):
    """The group of a weight, as UniPixel's recipes have it."""
    if "trainable_tokens_" in name:
        return "token_rows"
    return "lora" if "lora_" in name else ".".join(name.split(".")[:2])


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("recipe", ["unipixel_stage1", "unipixel_stage2", "unipixel_stage3"])
def test_a_recipe_of_unipixel_goes_with_every_backbone(config, tmp_path, recipe, backbone):
    bare, native = get_backbone(backbone).tiny(0)
    bare.save_pretrained(tmp_path / "base")
    native.save_pretrained(tmp_path / "base")
    spec = get_adapter("unipixel")
    model = {"backbone": str(tmp_path / "base"), "adapter": "unipixel", "adapter_config": dict(spec.tiny)}
    built = built_by(config(recipe=recipe, model=model))
    assert built.rates == {group: rate for group, rate in spec.recipes[recipe].rates.items() if rate is not None}
    assert list(trainable_groups(built.model, built.rates)) == [
        group for group in parameter_groups(built.model, built.rates) if group in built.rates
    ]
    assert built.model.has_lora == (recipe != "unipixel_stage1")


# -- QLoRA -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", BACKBONES)
def test_only_the_decoder_is_listed_for_quantization(backbone):
    spec = get_backbone(backbone)
    model, _ = spec.tiny(0)
    kept = set(linear_layers_outside_decoder(spec, model.config))
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert kept < linear
    assert all(name.startswith(f"{spec.parts.decoder}.") for name in linear - kept)
    assert not any(name.startswith(f"{spec.parts.decoder}.") for name in kept)
    assert any(name.startswith(f"{spec.parts.vision_tower}.") for name in kept)
    assert "lm_head" in kept


@pytest.mark.parametrize(("kind", "layer"), [("nf4", "Linear4bit"), ("int8", "Linear8bitLt")])
def test_qlora_quantizes_the_decoder_and_nothing_else(config, kind, layer):
    layers = getattr(pytest.importorskip("bitsandbytes").nn, layer)
    built = build_model(
        config(model={"backbone": BASE, "adapter": "saot", "quantize": kind}).resolved(has_bf16=False),
        torch.device("cpu"),
    )
    backbone, spec = built.model.backbone, built.model.backbone_spec
    quantized = {name for name, module in backbone.named_modules() if isinstance(module, layers)}
    plain = load_backbone(BASE)
    linear = {name for name, module in plain.named_modules() if isinstance(module, nn.Linear)}
    decoder = {f"{name}.base_layer" for name in linear if name.startswith(f"{spec.parts.decoder}.")}
    assert quantized == decoder
    tower = plain.get_submodule(spec.parts.vision_tower).state_dict()
    assert all(
        torch.equal(each, tower[name])
        for name, each in backbone.get_submodule(spec.parts.vision_tower).state_dict().items()
    )


def test_qlora_learns_and_loads_on_the_plain_base(config):
    pytest.importorskip("bitsandbytes")
    result, printed = quietly(config(model={"quantize": "nf4"}, optim={"steps": 30, "batch_size": 4}))
    assert "decoder nf4" in printed
    assert result["eval_loss"] < untrained_loss(config()) / 5
    folder = Path(config().run.out) / "model"
    assert not (folder / "backbone").exists()
    assert "quantization_config" not in json.loads((folder / "processor" / "config.json").read_text())
    model, processor = load(folder)
    assert not getattr(model.backbone, "is_quantized", False)
    assert held_out_loss(model, processor, config()) < untrained_loss(config()) / 2  # 4 bits of a tiny model say little


def test_a_model_folder_keeps_its_backbone_plugin(config):
    quietly(config(optim={"steps": 1}))
    model = {"backbone": str(Path(config().run.out) / "model"), "adapter_config": None}
    for name, outcome in (
        ("videollama3", nullcontext()),
        ("qwen2_5_vl", pytest.raises(ConfigError, match="brings its own, 'videollama3', got 'qwen2_5_vl'")),
    ):
        with outcome:
            quietly(config(model={**model, "backbone_plugin": name}), dry_run=True, overwrite=True)


def test_a_folder_with_its_own_backbone_is_not_quantized(config):
    quietly(config(recipe="stage1", optim={"steps": 1}))
    model = {"backbone": str(Path(config().run.out) / "model"), "adapter_config": None, "quantize": "nf4"}
    with pytest.raises(TrainingError, match="brings weights of its own for the backbone"):
        quietly(config(model=model), dry_run=True, overwrite=True)


# -- samples that cannot be used ---------------------------------------------------------------------------


def test_a_malformed_held_out_sample_is_told_before_the_first_step(config, data, tmp_path):
    records = [json.loads(line) for line in (data / "held-out.jsonl").read_text().splitlines()]
    records[1] |= {"regions": [{"bx": [1, 2, 3, 4]}]}
    source = [{"path": str(write_records(tmp_path / "bad.jsonl", records)), "media_root": str(data)}]
    with pytest.raises(SampleError, match=r"bad\.jsonl line 2, sample 'held-out-1'"):
        quietly(config(data={"eval": source}), dry_run=True)


@pytest.fixture
def with_bad_samples(data, tmp_path):
    """The training samples, with two among them that cannot be used."""
    records = [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()]
    records[3] |= {"regions": records[3]["regions"][:1]}
    records[5] |= {"image": "nowhere.png"}
    return write_records(tmp_path / "bad.jsonl", records)


def test_a_bad_sample_stops_the_run_with_its_line(config, with_bad_samples, data):
    source = [{"path": str(with_bad_samples), "media_root": str(data)}]
    with pytest.raises(SampleError, match=r"bad\.jsonl line (4, sample 'train-3'|6, sample 'train-5')"):
        quietly(config(data={"train": source}, optim={"steps": 12}))


def test_bad_samples_are_skipped_and_listed(config, with_bad_samples, data):
    source = [{"path": str(with_bad_samples), "media_root": str(data)}]
    result, printed = quietly(config(data={"train": source, "on_bad_sample": "skip"}, optim={"steps": 6}))
    assert result["skipped_samples"] == 2
    assert "2 samples were left out" in printed
    lines = (Path(config().run.out) / "skipped.jsonl").read_text().splitlines()
    assert sorted(re.search(r"train-\d", line)[0] for line in lines) == ["train-3", "train-5"]


def test_held_out_samples_that_are_skipped_are_listed_too(config, with_bad_samples, data):
    source = [{"path": str(with_bad_samples), "media_root": str(data)}]
    skipping = {"eval": source, "on_bad_sample": "skip"}
    result, _ = quietly(config(data=skipping, optim={"steps": 1}, evaluation={"samples": 0}))
    assert result["skipped_samples"] == 2
    lines = (Path(config().run.out) / "skipped.jsonl").read_text().splitlines()
    assert sorted(re.search(r"train-\d", line)[0] for line in lines) == ["train-3", "train-5"]


def test_files_are_mixed_by_weight_and_limited(config, data):
    train = str(data / "train.jsonl")
    sources = [{"path": train, "limit": 4, "weight": 2}, {"path": train, "weight": 0.5}, {"path": train, "limit": 99}]
    mixed = config(data={"train": sources}, optim={"steps": None, "batch_size": 13}, run={"save_every": None})
    result, printed = quietly(mixed)
    for samples, per_epoch in ((4, 8), (12, 6), (12, 12)):
        assert re.search(rf"train\.jsonl +{samples} +{per_epoch} +regions", printed)
    assert result["steps"] == 2  # 26 samples


# -- held-out questions ------------------------------------------------------------------------------------


def test_each_answer_is_a_question_with_the_true_turns_before_it():
    regions = [Region.from_box((0, 0, 9, 9)), Region.from_box((3, 3, 9, 9))]
    sample = RegionSample(
        "a",
        (
            {"role": "system", "content": "Be short."},
            user(picture(20, 20), "what is <region>?"),
            assistant("red "),
            user("and <region>?"),
            assistant("like <region>"),
            user("sure?"),
            assistant("yes"),
        ),
        (*regions, regions[0]),
    )
    first, last = questions_of(sample)
    assert (first.id, first.text, first.expected) == ("a", "what is <region>?", "red")
    assert list(first.asked.regions) == regions[:1]
    assert [message["role"] for message in first.asked.messages] == ["system", "user"]
    assert (last.id, last.text, last.expected) == ("a#3", "sure?", "yes")
    assert len(last.asked.messages) == 6
    assert len(last.asked.regions) == 3


@pytest.mark.parametrize(
    ("given", "expected", "same"),
    [
        ("A Red  car.", "a red car", True),
        ("\uff32\uff25\uff24", "red", True),  # full-width letters
        ("red-blue", "red blue", True),
        ("a red car", "a red cart", False),
        ("", "red", False),
    ],
)
def test_answers_are_compared_without_case_space_and_punctuation(given, expected, same):
    assert (normalized(given) == normalized(expected)) is same


@pytest.mark.parametrize("adapter", ["saot", "oci"])
def test_answers_are_those_of_single_questions(adapter):
    pair = make_pair(adapter, "videollama3")
    model, processor = pair.model, pair.processor
    samples = [
        RegionSample(
            f"s{index}",
            (
                user(picture(60, 80, seed=index), picture(50, 50, seed=9), "what is <region>?"),
                assistant("red"),
                user("how is <region>, at length, next to it?"),
                assistant("blue"),
            ),
            (Region.from_box((4, 4, 30, 30)), Region.from_box((4, 4, 40, 40)).on_image(1)),
        )
        for index in range(3)
    ]
    dataset = Samples(samples)
    at_once = HeldOutAnswers(dataset, processor, samples=3, max_new_tokens=3, batch_size=8)
    one_by_one = HeldOutAnswers(dataset, processor, samples=3, max_new_tokens=3, batch_size=1)
    model.train()
    assert at_once(model) == one_by_one(model)
    assert model.training
    assert [answer.given for answer in at_once.answers] == [answer.given for answer in one_by_one.answers]
    assert [(answer.question.asked.id, answer.turn) for answer in at_once.answers] == [
        (f"s{index}", turn) for index in range(3) for turn in range(2)
    ]


class Samples(list):
    """Samples, and errors in place of bad ones, as a dataset gives them."""

    def __getitems__(self, indices):
        return [self[index] for index in indices]


def test_bad_held_out_samples_stop_or_are_passed_over(pair):
    good = RegionSample("good", (user(picture(60, 80), "what?"), assistant("red")))
    bad = RegionSample("bad", (user("nowhere.png", "what is <region>?"), assistant("red")), where="file line 2")
    arguments = {"samples": 9, "max_new_tokens": 2, "batch_size": 4}
    with pytest.raises(ValueError, match=r"file line 2, sample 'bad': .*<region>"):
        HeldOutAnswers(Samples([good, bad]), pair.processor, **arguments)(pair.model)
    gone = bad.error(Defect("media", "it is gone."))
    for dataset in (Samples([good, bad]), Samples([good, gone])):
        lenient = HeldOutAnswers(dataset, pair.processor, **arguments, on_bad_sample="skip")
        lenient(pair.model)
        assert [answer.question.asked.id for answer in lenient.answers] == ["good"]
    with pytest.raises(SampleError, match="sample 'bad': it is gone"):
        HeldOutAnswers(Samples([good, gone]), pair.processor, **arguments)


def test_nothing_to_ask_gives_no_number(pair):
    silent = Samples([RegionSample("a", (user("what?"),))])
    assert HeldOutAnswers(silent, pair.processor, samples=3, max_new_tokens=2, batch_size=2)(pair.model) == {}


# -- command line ------------------------------------------------------------------------------------------


def test_the_command_tells_all_that_is_wrong(tmp_path):
    (tmp_path / "run.yaml").write_text("model: {bakbone: x}\nrun: {out: here}\n")
    error = error_of(run_command("train", tmp_path / "run.yaml", "optim.epochs=no"))
    assert len(error.splitlines()) == 4
    assert "Did you mean 'backbone'?" in error
    assert "'optim.epochs=no': optim.epochs: must be a number, got False" in error
    assert "Traceback" not in error


def test_resume_and_overwrite_exclude_each_other(tmp_path):
    assert "exclude each other" in error_of(run_command("train", tmp_path / "run.yaml", "--resume", "--overwrite"))


def test_a_guard_s_word_reaches_the_user_in_one_line(config, tmp_path):
    (tmp_path / "run.yaml").write_text(config(lora={"targets": ["nothing_like_it"]}).to_yaml())
    (line,) = error_of(run_command("train", tmp_path / "run.yaml", "--dry-run")).splitlines()
    assert "nothing_like_it" in line


def test_merged_it_answers_the_same_and_needs_no_base(trained, data, tmp_path):
    out, _ = trained
    result = run_command("merge", out / "model", tmp_path / "merged")
    assert result.exit_code == 0, result.output
    assert read_manifest(tmp_path / "merged").backbone_id == "backbone"
    assert not read_manifest(tmp_path / "merged").lora
    dataset = RegionDataset.open(data / "held-out.jsonl")
    given = []
    for folder in (out / "model", tmp_path / "merged"):
        processor = RegionProcessor.from_pretrained(folder)
        held_out = HeldOutAnswers(dataset, processor, samples=3, max_new_tokens=4, batch_size=8)
        held_out(RegionModel.from_pretrained(folder))
        given.append([answer.given for answer in held_out.answers])
    assert given[0] == given[1]
    assert "exists. Choose another folder" in error_of(run_command("merge", out / "model", tmp_path / "merged"))
    assert "cannot be written" in error_of(run_command("merge", out / "model", "/proc/nowhere/merged"))
    assert "has no LoRA to merge" in error_of(run_command("merge", tmp_path / "merged", tmp_path / "again"))


@pytest.mark.slow
def test_two_processes_train_by_the_same_command(data, tmp_path):
    run = configured(data, tmp_path / "out", optim={"steps": 3, "batch_size": 2, "global_batch_size": 4})
    (tmp_path / "run.yaml").write_text(run.to_yaml())
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, "-m", "pixelrefer_plugin", "train", str(tmp_path / "run.yaml")]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("3 steps of 4 samples (2 x 2 processes)") == 1
    answers = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
    assert [(each["id"], each["turn"]) for each in answers] == [
        (f"held-out-{sample}", turn) for sample in range(3) for turn in range(2)
    ]
    assert yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())["optim"]["steps"] == 3


@pytest.mark.slow
def test_two_processes_train_masks_by_the_same_command_and_go_on(data, clicks_and_masks, tmp_path):
    model = {"backbone": BASE, "adapter": "unipixel", "adapter_config": dict(get_adapter("unipixel").tiny)}
    run = configured(
        data, tmp_path / "out", model=model, recipe="unipixel_stage3", optim={"steps": 4, "batch_size": 1},
        data={"train": [str(clicks_and_masks), str(data / "train.jsonl")], "eval": str(data / "masks.jsonl")},
        evaluation={"samples": 0},
    )  # fmt: skip
    (tmp_path / "run.yaml").write_text(run.to_yaml())
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, "-m", "pixelrefer_plugin", "train", str(tmp_path / "run.yaml")]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    out, weights = tmp_path / "out", []
    for options in ([], ["--resume"]):
        done = subprocess.run(
            [*command, *options], capture_output=True, text=True, env=environment, check=False, timeout=300
        )
        assert done.returncode == 0, done.stderr
        weights.append((out / "model" / "adapter.safetensors").read_bytes())
        shutil.rmtree(out / "model")
        shutil.rmtree(out / "checkpoints" / "checkpoint-4")
    assert json.loads((out / "run.json").read_text())["resumed_at_step"] == 2
    assert weights[0] == weights[1]
    assert json.loads((out / "metrics.json").read_text())["eval_mask_loss"] > 0
