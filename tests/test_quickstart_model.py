"""The quickstart on a real model: a tiny folder in the layout of SmolVLM-256M stands for it."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from huggingface_hub import errors
from PIL import Image
from rich.console import Console

from pixelrefer_plugin import CheckpointError, PixelReferError, load
from pixelrefer_plugin.cli import main
from pixelrefer_plugin.plugins import get_backbone, training_free
from pixelrefer_plugin.quickstart import real_model
from pixelrefer_plugin.quickstart import run as quickstart_run
from pixelrefer_plugin.quickstart.real_model import Reckoned, count_weights, open_real_model
from pixelrefer_plugin.quickstart.run import QuickstartOptions, run_quickstart
from pixelrefer_plugin.quickstart.showing import ask_shown, shown_questions
from pixelrefer_plugin.quickstart.tasks import digit_in


def saved(folder, backbone):
    """A tiny model as a checkpoint of transformers' own."""
    model, processor = get_backbone(backbone).tiny(0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def smolvlm(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("model") / "tiny", "idefics3")


def short(out, model, **options):
    return QuickstartOptions(model=model, out=out, **{"steps": 2, "eval_scenes": 2, "pictures_per_step": 2, **options})


@pytest.fixture(scope="module")
def done(smolvlm, tmp_path_factory):
    """A quickstart's folder, metrics and what it printed."""
    out, console = tmp_path_factory.mktemp("done") / "out", Console(record=True, width=200)
    metrics = run_quickstart(short(out, smolvlm), console)
    return out, metrics, console.export_text()


def test_it_is_asked_taught_saved_and_asked_again(done, smolvlm):
    out, metrics, text = done
    assert json.loads((out / "metrics.json").read_text()) == metrics
    assert metrics["reloaded_answers_identical"]
    assert set(metrics["scores_without_training"]) == set(training_free())
    assert metrics["peak_memory_bytes"] > 2**20
    assert [each["picture"] for each in metrics["without_training"]] == [
        "street", "street", "kitchen", "coffee", "cat", "astronaut",
    ]  # fmt: skip
    for name in ("without_training.png", "answers.png", "loss.png"):
        with Image.open(out / name) as picture:
            assert min(picture.size) > 300
    assert "weights, 1.4 MiB in float32" in text
    assert "of memory were in use" in text
    model, _ = load(out / "model")  # finds the backbone by itself
    assert model.backbone.name_or_path == smolvlm


def test_the_command_takes_a_model(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(quickstart_run, "run_quickstart", seen.append)
    given = ["--model", "owner/name", "--steps", "7", "--batch", "3", "--dtype", "bfloat16", "--device", "cpu"]
    assert CliRunner().invoke(main, ["quickstart", *given, "--out", str(tmp_path)]).exit_code == 0
    [options] = seen
    assert options == QuickstartOptions(
        model="owner/name", steps=7, pictures_per_step=3, dtype="bfloat16", device="cpu", out=tmp_path
    )


@pytest.mark.slow
def test_other_types_of_weights_and_another_adapter(smolvlm, tmp_path):
    options = short(tmp_path / "out", smolvlm, adapter="maskpool", dtype="bfloat16", eval_scenes=1, steps=1)
    console = Console(record=True, width=200)
    assert run_quickstart(options, console)["reloaded_answers_identical"]
    assert "0.7 MiB in bfloat16" in console.export_text()


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["qwen2_5_vl", "llava_onevision", "videollama3", "smolvlm"])
@pytest.mark.parametrize("adapter", ["saot", "oci"])
def test_any_backbone_can_be_named(tmp_path, backbone, adapter):
    metrics = run_quickstart(short(tmp_path / "out", saved(tmp_path / "tiny", backbone), adapter=adapter))
    assert metrics["reloaded_answers_identical"]


@pytest.mark.slow
def test_a_named_model_learns_digits(tmp_path):
    """The shipped tiny model, as anybody's: by the same way as a real one, with the rates that suit its size."""
    options = QuickstartOptions(
        model="builtin:tiny_videollama3", out=tmp_path / "out", steps=400, pictures_per_step=8, learning_rate=3e-3
    )
    metrics = run_quickstart(options)
    assert metrics["scores"]["all"] >= 0.85
    assert metrics["scores_before"]["all"] <= 0.3


def test_what_the_model_is_told_is_shown(tmp_path):
    real = open_real_model(saved(tmp_path / "tiny", "qwen2_5_vl"), device="cpu", dtype="auto", tell=lambda line: None)
    weights = {name: value.clone() for name, value in real.backbone.state_dict().items()}
    spoon = shown_questions()[3]
    [[said]] = ask_shown(real, ["coordinates"], [spoon])
    assert said.adapter == "coordinates"
    assert "bbox_2d" in said.told
    assert "Answer in a few words." in said.told
    assert "<" not in said.told
    assert not said.refused
    after = real.backbone.state_dict()
    assert weights.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in weights.items())


def test_regions_of_the_questions_lie_on_their_pictures():
    for question in shown_questions():
        assert question.text.count("<region>") == len(question.regions)
        for region in question.regions:
            region.to_mask((question.picture.height, question.picture.width))


@pytest.mark.parametrize(
    ("text", "digit"),
    [
        ("3", "3"),
        (" 3.", "3"),
        ("The digit is seven.", "7"),
        ("Three, that is 3", "3"),
        ("3 or 5", "3 or 5"),
        ("13", "13"),
        ("I do not know ", "I do not know"),
        ("", ""),
    ],
)
def test_an_answer_is_the_digit_that_it_names(text, digit):
    assert digit_in(text) == digit


# -- what is the matter ---------------------------------------------------------------------------------------------


def test_nothing_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    result = CliRunner().invoke(main, ["quickstart", "--model", "nobody/nothing", "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    text = " ".join(result.output.split())
    assert "No model can be loaded from 'nobody/nothing'" in text
    assert "run `hf download nobody/nothing`" in text
    assert "HF_HUB_OFFLINE=1" in text
    assert not (tmp_path / "out").exists()


def hub_error(kind):
    """An error of the hub's client, which looks at the headers of a response only."""
    return kind("403", response=SimpleNamespace(headers={}, request=None))


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (hub_error(errors.GatedRepoError), "Accept its terms at https://huggingface.co/owner/name, then run `hf auth"),
        (hub_error(errors.RepositoryNotFoundError), "Is the id right"),
        (errors.OfflineModeIsEnabled("off"), "run `hf download owner/name`"),
        (ImportError("SmolVLMProcessor requires num2words"), "requires num2words. Install what it needs with pip"),
        (OSError("disk"), "disk."),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_to_do_is_told(cause, said):
    with pytest.raises(CheckpointError) as raised, real_model._helping("owner/name"):
        raise CheckpointError(f"It cannot be loaded: {cause}.") from cause
    assert said in str(raised.value)


def test_weights_are_counted_from_their_headers(smolvlm, tmp_path):
    model, _ = get_backbone("idefics3").tiny(0)
    assert count_weights(smolvlm) == sum(parameter.numel() for parameter in model.parameters())
    assert count_weights(str(tmp_path)) is None


def test_a_model_that_does_not_fit_is_refused():
    cpu = torch.device("cpu")
    reckoned = Reckoned(3_000_000_000, torch.float32, 8 * 2**30)
    with pytest.raises(CheckpointError, match=r"'o/n' alone take 11.18 GiB in float32, but cpu has 8.00 GiB free"):
        reckoned.require_room("o/n", cpu)
    with pytest.raises(CheckpointError, match="smaller model, --dtype bfloat16, or another --device"):
        reckoned.require_room("o/n", cpu)
    replace(reckoned, dtype=torch.bfloat16).require_room("o/n", cpu)
    replace(reckoned, free=None).require_room("o/n", cpu)
    with pytest.raises(CheckpointError, match="smaller model, or another --device"):
        replace(reckoned, dtype=torch.bfloat16, free=2**30).require_room("o/n", cpu)


def test_a_model_that_has_an_adapter_is_refused(done, tmp_path):
    with pytest.raises(CheckpointError, match="has an adapter already"):
        run_quickstart(short(tmp_path / "second", str(done[0] / "model")))
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "a/b", "video": True}, "--video is for the tiny models; leave it out with --model"),
        ({"model": "a/b", "backbone": "videollama3"}, "--backbone is for the tiny models"),
        ({"model": "a/b", "from_scratch": True}, "--from-scratch is for the tiny models"),
        ({"dtype": "bfloat16"}, "--dtype is for a real model: name one with --model"),
        ({"device": "cpu"}, "--device is for a real model"),
        ({"dtype": "int8"}, "one of auto, bfloat16"),
        ({"device": "tpu"}, "one of auto, cpu, cuda"),
    ],
    ids=str,
)
def test_options_that_exclude_each_other_are_refused(options, said):
    with pytest.raises(PixelReferError, match=said):
        QuickstartOptions(**options)


@pytest.mark.parametrize(("adapter", "why"), [("unipixel", "gives masks"), ("coordinates", "needs no training")])
def test_an_adapter_that_learns_no_regions_is_refused(tmp_path, adapter, why):
    with pytest.raises(PixelReferError, match=f"'{adapter}' {why}"):
        run_quickstart(QuickstartOptions(model="a/b", adapter=adapter, out=tmp_path / "out"))


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PixelReferError, match="torch finds no CUDA device here"):
        real_model.chosen_device("cuda")
    assert real_model.chosen_dtype("auto", real_model.chosen_device("auto")) == torch.float32
    assert real_model.chosen_dtype("auto", torch.device("cuda")) == torch.bfloat16
