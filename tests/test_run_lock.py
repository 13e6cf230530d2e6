"""One run at a time in an output folder, and what a full disk leaves of a finished one."""

import errno
import os
import signal
import socket
import time

import pytest
from test_train import config, configured, data, quietly  # noqa: F401

from pixelrefer_plugin import TrainingError
from pixelrefer_plugin.training import run_lock
from pixelrefer_plugin.training.checkpoints import latest_checkpoint
from pixelrefer_plugin.weights import saving

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.fixture
def holder(tmp_path):
    """Another process, which holds the lock of `tmp_path / "out"`."""
    out = tmp_path / "out"
    out.mkdir()
    child = os.fork()
    if not child:
        with run_lock.locked(out):
            (tmp_path / "ready").touch()
            time.sleep(600)
    while not (tmp_path / "ready").exists():
        time.sleep(0.01)
    yield out, child
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
def test_a_folder_in_which_another_process_trains_is_refused(config, holder, options):  # noqa: F811
    out, child = holder
    (out / "config.yaml").write_text("mine")
    with pytest.raises(TrainingError, match=rf"is in use: process {child} on {socket.gethostname()}, since 2.*Wait"):
        quietly(config(), **options)
    assert (out / "config.yaml").read_text() == "mine"


def test_a_lock_ends_with_its_process(config, tmp_path):  # noqa: F811
    (tmp_path / "out").mkdir()
    child = os.fork()
    if not child:
        with run_lock.locked(tmp_path / "out"):
            if not os.fork():  # a worker that lives on for a while
                time.sleep(3)
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert (tmp_path / "out" / run_lock.LOCK_FILE).exists()
    result, _ = quietly(config(optim={"steps": 1}, evaluation={"samples": 0}))
    assert result["steps"] == 1
    assert not (tmp_path / "out" / run_lock.LOCK_FILE).exists()


def test_a_lock_that_is_removed_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    lock, tried = run_lock._lock, []

    def removing(file, out):
        lock(file, out)
        tried.append(file)
        if len(tried) == 1:
            (out / run_lock.LOCK_FILE).unlink()

    monkeypatch.setattr(run_lock, "_lock", removing)
    with run_lock.locked(tmp_path):
        assert len(tried) == 2
        assert (tmp_path / run_lock.LOCK_FILE).exists()


def test_a_damaged_lock_names_nobody(tmp_path, holder):
    (holder[0] / run_lock.LOCK_FILE).write_text("[")
    with pytest.raises(TrainingError, match="is in use: another process trains there"):
        run_lock.require_not_in_use(holder[0])


def test_a_file_system_without_locks_has_none(tmp_path, monkeypatch):
    def refusing(*args):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(run_lock.fcntl, "lockf", refusing)
    with run_lock.locked(tmp_path):
        run_lock.require_not_in_use(tmp_path)
    assert list(tmp_path.iterdir()) == []


# -- a full disk at the end -------------------------------------------------------------------------------------


@pytest.mark.parametrize("save_every", [2, None])
def test_a_model_that_does_not_fit_is_not_lost(config, monkeypatch, save_every):  # noqa: F811
    own = config(optim={"steps": 2}, run={"save_every": save_every}, evaluation={"samples": 0})
    save_file = saving.save_file

    def full(tensors, path):
        if "checkpoint" not in str(path):
            raise OSError(28, "No space left on device")
        save_file(tensors, path)

    monkeypatch.setattr(saving, "save_file", full)
    expected = "The training is finished, but '.*model' could not be written .*GB are free there.*No space left"
    with pytest.raises(TrainingError, match=expected) as caught:
        quietly(own)
    if save_every is None:
        assert "run.save_every is null" in str(caught.value)
        return
    out = latest_checkpoint(own.run.out)
    assert f"Nothing is lost: '{out / 'model'}' is its model folder" in str(caught.value)
    monkeypatch.undo()
    assert not (out.parents[1] / "model").exists()
    assert quietly(own, resume=True)[0]["steps"] == 2
    assert (out.parents[1] / "model" / "adapter.safetensors").read_bytes() == (
        out / "model" / "adapter.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("error", [OSError(28, "No space left"), Exception("No space left (os error 28)")])
def test_a_folder_that_does_not_fit_is_named(pair, tmp_path, monkeypatch, error):
    pair.model.save_pretrained(tmp_path / "model", pair.processor)
    before = (tmp_path / "model" / "adapter.safetensors").read_bytes()

    def full(folder):
        raise error

    monkeypatch.setattr(pair.processor.native, "save_pretrained", full)
    with pytest.raises(ValueError, match=r"could not be written \(.* GB are free there\): .*No space left.*earlier"):
        pair.model.save_pretrained(tmp_path / "model", pair.processor, overwrite=True)
    assert (tmp_path / "model" / "adapter.safetensors").read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["model"]


def test_a_full_disk_ends_the_board_and_not_the_training(config, monkeypatch, caplog):  # noqa: F811
    from torch.utils.tensorboard import SummaryWriter

    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SummaryWriter, "add_scalar", full)
    own = config(optim={"steps": 3}, run={"report_to": ["tensorboard"]}, evaluation={"samples": 0})
    assert quietly(own)[0]["steps"] == 3
    assert caplog.text.count("No more entries for TensorBoard: [Errno 28] No space left") == 1


def test_what_a_killed_start_leaves_is_no_other_run(config, tmp_path):  # noqa: F811
    (tmp_path / "out" / ".config.yaml.abcdefgh.partial").mkdir(parents=True)
    (tmp_path / "out" / ".lock").touch()
    assert quietly(config(optim={"steps": 1}, evaluation={"samples": 0}))[0]["steps"] == 1
    assert not (tmp_path / "out" / ".config.yaml.abcdefgh.partial").exists()
