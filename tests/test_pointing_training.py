"""LoRA on top of an adapter that makes no object tokens: a run from a file, resumed, saved, asked; what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from rich.console import Console
from training_runs import losses_of, make_parts, make_trainer, mixed_rows

from pixelrefer_plugin import cli, load
from pixelrefer_plugin.errors import ConfigError, TrainingError
from pixelrefer_plugin.training.building import choose_recipe
from pixelrefer_plugin.training.config import TrainConfig
from pixelrefer_plugin.training.run import run_training

BASE = "builtin:tiny_videollama3"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Eight pictures with one box each, which is bright or dark, and the file that asks which."""
    folder, generator = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    records = []
    for index in range(8):
        pixels = generator.integers(0, 60, (56, 84, 3), dtype=np.uint8)
        pixels[7:28, 7:28] += 180 * (index % 2)
        Image.fromarray(pixels).save(folder / f"{index}.png")
        turns = {"user": "what is <region>?", "assistant": ("blue", "red")[index % 2]}
        messages = [{"role": role, "content": text} for role, text in turns.items()]
        records.append(
            {"id": f"{index}", "image": f"{index}.png", "regions": [{"box": [7, 7, 28, 28]}], "messages": messages}
        )
    (folder / "train.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    return folder


@pytest.fixture
def config(data, tmp_path):
    """`config(recipe, section={...})`: the configuration of a short run into `tmp_path / "out"`."""

    def made(recipe="lora", **sections):
        values = {
            "recipe": recipe,
            "model": {"backbone": BASE, "adapter": "coordinates", "adapter_config": {"convention": "fractions"}},
            "data": {"train": str(data / "train.jsonl"), "eval": str(data / "train.jsonl"), "workers": 0},
            "optim": {"steps": 4, "batch_size": 2},
            "run": {"out": str(tmp_path / "out"), "save_every": 2, "log_every": 1, "report_to": []},
            "evaluation": {"max_new_tokens": 4},
        }
        return TrainConfig.from_mapping(
            {**values, **{name: {**values.get(name, {}), **each} for name, each in sections.items()}}
        )

    return made


def run(config, **options):
    """The result of a run, and what it printed."""
    with (console := Console(width=200)).capture() as printed:
        result = run_training(config, console=console, **options)
    return result, printed.get()


def test_a_run_trains_lora_goes_on_and_answers_by_the_command_line(config, data):
    run(config(optim={"steps": 2}))
    result, printed = run(config(), resume=True)
    assert "adapter: 'coordinates' has nothing to train" in printed
    assert "checkpoint-2" in printed
    assert result["steps"] == 4
    out = Path(config().run.out)
    manifest = json.loads((out / "model" / "pixelrefer.json").read_text())
    assert manifest["adapter"] == "coordinates"
    model, processor = load(out / "model")
    assert model.has_lora
    assert any(each.abs().max() > 0 for name, each in model.named_parameters() if "lora_B" in name)
    assert not processor.makes_object_tokens
    assert model.adapter_config.convention == processor._adapter_config.convention == "fractions"
    asked = ["describe", data / "0.png", "--model", out / "model", "--box", "7,7,28,28"]
    told = CliRunner().invoke(
        cli.main, [*map(str, asked), "--prompt", "what is <region>?", "--max-new-tokens", "4", "--json"]
    )
    assert told.exit_code == 0, told.output
    answer = json.loads(told.stdout)
    assert answer["regions"] == [{"kind": "box", "given": "7,7,28,28", "tokens": 0}]
    first = json.loads((out / "answers.jsonl").read_text().splitlines()[0])
    assert answer["answers"] == [first["given"]]


@pytest.mark.parametrize(("adapter", "options"), [("marks", {"style": "both"}), ("crops", {"background": "dim"})])
def test_a_run_with_pictures_is_evaluated_and_answers_files(config, data, tmp_path, adapter, options):
    """Pictures that are drawn on, and further ones, go through training, `evaluate` and `predict` alike."""
    run(config(model={"adapter": adapter, "adapter_config": options}, optim={"steps": 2}))
    folder = Path(config().run.out)
    model, _ = load(folder / "model")
    assert any(each.abs().max() > 0 for name, each in model.named_parameters() if "lora_B" in name)
    asked = [str(folder / "model"), str(data / "train.jsonl"), "--max-new-tokens", "4"]
    for command, out in (("evaluate", "scores"), ("predict", "answers.jsonl")):
        told = CliRunner().invoke(cli.main, [command, *asked, "--out", str(tmp_path / out)])
        assert told.exit_code == 0, told.output
    given = [json.loads(line)["given"] for line in (folder / "answers.jsonl").read_text().splitlines()]
    answers = [json.loads(line)["given"] for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert answers == given
    [benchmark] = json.loads((tmp_path / "scores" / "report.json").read_text())["benchmarks"]
    assert [each["count"] for each in benchmark["answers"]] == [8]


@pytest.mark.slow
def test_the_backbone_itself_may_train(config):
    run(config("stage1", optim={"steps": 1}))
    assert (Path(config().run.out) / "model" / "backbone").is_dir()


def test_the_adapter_alone_has_nothing_to_train(config):
    message = (
        "recipe: 'adapter_only' trains the adapter alone, but adapter 'coordinates' has nothing to train: .* lora,"
    )
    with pytest.raises(ConfigError, match=message):
        choose_recipe(config("adapter_only"))
    assert choose_recipe(config("adapter_only", model={"adapter": "saot", "adapter_config": {}})).name == "adapter_only"


def test_a_rate_of_the_adapter_is_refused(config):
    with pytest.raises(TrainingError, match="names adapter, which do not train here. Groups that train: lora"):
        run(config(learning_rates={"adapter": 1e-3}))


def test_without_lora_nothing_trains(tmp_path):
    parts = make_parts("coordinates", lora=False)
    with pytest.raises(
        TrainingError, match="Nothing trains: .* add LoRA, as an adapter that has nothing to train needs"
    ):
        make_trainer(parts, tmp_path, mixed_rows(2))
    parts[0].detach()


def test_batches_without_regions_train_too(tmp_path):
    parts = make_parts("coordinates", "qwen2_5_vl")
    trainer = make_trainer(parts, tmp_path, mixed_rows(7), batching="grouped")
    trainer.train()
    assert len(losses_of(trainer)) == 3
    assert np.isfinite(losses_of(trainer)).all()
    parts[0].detach()


def test_lora_without_a_gradient_is_told(tmp_path):
    """Though no object token says that a batch is about regions, the guard speaks after the first step."""
    model, processor = make_parts("coordinates")
    trainer = make_trainer((model, processor), tmp_path, mixed_rows(4))
    for name, each in model.named_parameters():
        if "lora_" in name:
            each.register_hook(torch.zeros_like)
    with pytest.raises(TrainingError, match="Group 'lora' trains .* but had no gradient in the first step"):
        trainer.train()
    model.detach()
