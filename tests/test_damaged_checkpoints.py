"""Checkpoints that something has happened to: every damage is a `TrainingError` that says what to do."""

import json
import shutil

import pytest
from training_runs import make_parts, make_trainer, mixed_rows

from pixelrefer_plugin import TrainingError
from pixelrefer_plugin.training import checkpoints

JSON_FILES = ["trainer_state.json", "run.json", "model/pixelrefer.json", "model/lora/adapter_config.json"]
OTHERS = [
    "optimizer.pt", "scheduler.pt", "rng_state.pth", "model/adapter.safetensors",
    "model/lora/adapter_model.safetensors",
]  # fmt: skip


def trainer_in(out, parts=None):
    return make_trainer(
        parts or make_parts(), out, mixed_rows(4), save_strategy="steps", save_steps=1, save_total_limit=2,
        max_steps=4 if parts is None else 5,
    )  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A run that has two checkpoints, those of steps 3 and 4."""
    out = tmp_path_factory.mktemp("written")
    trainer_in(out).train()
    return out


@pytest.fixture
def checkpoint(written, tmp_path):
    """The newest checkpoint of a copy of it, which has another one, of the step before."""
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    return checkpoints.latest_checkpoint(tmp_path)


@pytest.fixture(scope="module")
def parts():
    """A model that takes every checkpoint."""
    made = make_parts()
    yield made
    made[0].detach()


def forget_files(checkpoint):
    """Make it a checkpoint of an earlier version, which does not say what its files are like."""
    path = checkpoint / "run.json"
    run = json.loads(path.read_text())
    del run["written_files"]
    path.write_text(json.dumps(run))


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garble(path):
    content = bytearray(path.read_bytes())
    content[: len(content) // 2] = bytes(each ^ 0x5A for each in content[: len(content) // 2])
    path.write_bytes(bytes(content))


def empty(path):
    path.write_bytes(b"")


def remove(path):
    path.unlink()


def replace_by_folder(path):
    path.unlink()
    path.mkdir()


DAMAGES = [truncate, garble, empty, remove, replace_by_folder]


def refused(checkpoint, parts, expected="is damaged, in|is not a whole checkpoint"):
    out = checkpoint.parents[1]
    with pytest.raises(TrainingError, match=expected) as caught:
        trainer_in(out, parts).train(resume_from_checkpoint=True)
    message = str(caught.value)
    assert f"'{checkpoint}'" in message
    assert f"Delete this folder, and the run resumes from '{out}/checkpoints/checkpoint-3'" in message
    assert len(message) < 1000
    assert "\n" not in message
    return message


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", [*JSON_FILES, *OTHERS])
def test_a_damaged_file_is_named(checkpoint, parts, file, damage):
    damage(checkpoint / file)
    assert file in refused(checkpoint, parts)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", ["trainer_state.json", *OTHERS])
def test_it_is_named_in_a_checkpoint_of_an_earlier_version_too(checkpoint, parts, file, damage):
    forget_files(checkpoint)
    damage(checkpoint / file)
    assert file.split("/")[0].split(".")[0] in refused(checkpoint, parts)


VALUES = [None, -1, 10**400, "x", [], {"a": 1}, True]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: str(value)[:8])
@pytest.mark.parametrize("key", ["global_step", "epoch", "log_history", "stateful_callbacks", "unheard_of"])
def test_a_changed_field_of_the_state_is_told(checkpoint, parts, key, value):
    path = checkpoint / "trainer_state.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps({**state, key: value}))
    assert "trainer_state.json: it is not as it was written" in refused(checkpoint, parts)
    forget_files(checkpoint)
    nothing = key in ("log_history", "stateful_callbacks") and value in (None, [])
    if not nothing and (key, value) not in [("epoch", True), ("stateful_callbacks", {"a": 1})]:
        refused(checkpoint, parts, "trainer_state.json")


@pytest.mark.parametrize("value", VALUES, ids=lambda value: str(value)[:8])
@pytest.mark.parametrize("key", ["written_files", "num_processes", "seed", "learning_rates", "num_samples"])
def test_a_changed_field_of_the_run_is_told(checkpoint, parts, key, value):
    path = checkpoint / "run.json"
    run = json.loads(path.read_text())
    value = 7 if run[key] == value else value
    path.write_text(json.dumps({**run, key: value}))
    with pytest.raises(TrainingError) as caught:
        trainer_in(checkpoint.parents[1], parts).train(resume_from_checkpoint=True)
    assert f"'{checkpoint}'" in str(caught.value)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("text", ["[1]", "null", "{", "[" * 100_000, '{"written_files": {"optimizer.pt": 5}}', "\xff"])
def test_a_run_file_of_another_kind_is_told(checkpoint, parts, text):
    (checkpoint / "run.json").write_bytes(text.encode("latin-1"))
    refused(checkpoint, parts)


@pytest.mark.parametrize(("earlier", "now", "said"), [(2, 1, "2 processes, here is 1:"), (1, 2, "1 process, here are")])
def test_another_number_of_processes_is_told(tmp_path, earlier, now, said):
    checkpoints.write_run(tmp_path, {"num_processes": earlier})
    with pytest.raises(TrainingError, match=f"was written by {said}"):
        checkpoints.require_resumable(tmp_path, {"num_processes": now}, files=["rng_state.pth"])


def test_code_in_a_checkpoint_does_not_run(checkpoint, parts):
    import torch

    class Runs:
        def __reduce__(self):
            return open, (str(checkpoint / "ran"), "w")

    forget_files(checkpoint)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        kept = (checkpoint / name).read_bytes()
        torch.save({"state": Runs()}, checkpoint / name)
        refused(checkpoint, parts)
        (checkpoint / name).write_bytes(kept)
    assert not (checkpoint / "ran").exists()


def test_without_an_earlier_one_it_says_so(checkpoint, parts):
    shutil.rmtree(checkpoint.with_name("checkpoint-3"))
    (checkpoint / "optimizer.pt").write_bytes(b"")
    with pytest.raises(TrainingError, match="Start anew: there is no earlier one"):
        trainer_in(checkpoint.parents[1], parts).train(resume_from_checkpoint=True)
