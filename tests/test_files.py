"""Folders that appear whole or not at all, and what an interruption leaves."""

import itertools
import os
import shutil
import signal
from pathlib import Path

import pytest
from PIL import Image

from pixelrefer_plugin import (
    ObjectMemory,
    PixelReferError,
    RegionDataset,
    RegionModel,
    RegionProcessor,
    files,
    import_official,
)
from pixelrefer_plugin.training import checkpoints


@pytest.fixture
def folder(tmp_path):
    """An earlier folder."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "text").write_text("earlier")
    return tmp_path / "out"


class Killed(BaseException):
    """Ends everything where it is raised, as a signal would."""


def interrupt_rename(monkeypatch, at):
    """A process that dies before its rename number `at`."""
    renamed, rename = [], type(files.Path()).rename

    def dying(self, target):
        renamed.append(self)
        if len(renamed) > at:
            raise Killed
        return rename(self, target)

    monkeypatch.setattr(type(files.Path()), "rename", dying)


def names(folder):
    return sorted(each.name for each in folder.parent.iterdir())


def write(folder, text="new"):
    with files.written_folder(folder) as made:
        (made / "inside").mkdir()
        (made / "text").write_text(text)


def test_a_folder_is_replaced_whole(folder):
    write(folder)
    assert (folder / "text").read_text() == "new"
    assert names(folder) == ["out"]


def test_all_of_it_is_on_the_disk_before_it_is_in_its_place(folder, monkeypatch):
    on_disk = []
    monkeypatch.setattr(files, "_to_disk", lambda path: on_disk.append((path.name, (folder / "text").read_text())))
    write(folder)
    assert sorted(on_disk[:-1]) == [("inside", "earlier"), ("out", "earlier"), ("text", "earlier")]
    assert on_disk[-1] == (folder.parent.name, "new")


def test_an_error_leaves_the_earlier_folder(folder):
    def fail():
        with files.written_folder(folder) as made:
            (made / "text").write_text("new")
            raise OSError(28, "no space")

    with pytest.raises(PixelReferError, match="cannot be written: no space"):
        fail()
    assert (folder / "text").read_text() == "earlier"
    assert names(folder) == ["out"]


@pytest.fixture
def by_renames(monkeypatch):
    """A system on which two folders cannot change places."""
    monkeypatch.setattr(files, "_exchanged", lambda one, other: False)


@pytest.mark.parametrize("at", [0, 1], ids=["before the first rename", "between the two"])
def test_an_interruption_loses_nothing(folder, monkeypatch, by_renames, at):
    interrupt_rename(monkeypatch, at)
    with pytest.raises(Killed):
        write(folder)
    monkeypatch.undo()
    files.restore_folder(folder)
    assert (folder / "text").read_text() == "earlier"
    assert names(folder) == ["out"]


def test_the_next_write_goes_on_from_an_interruption(folder, monkeypatch, by_renames):
    interrupt_rename(monkeypatch, 1)
    with pytest.raises(Killed):
        write(folder)
    monkeypatch.undo()
    assert not folder.exists()
    write(folder, "newer")
    assert (folder / "text").read_text() == "newer"
    assert names(folder) == ["out"]


def test_an_earlier_folder_that_was_not_removed_goes(folder):
    (folder.parent / ".out.earlier").mkdir()
    files.restore_folder(folder)
    assert (folder / "text").read_text() == "earlier"
    assert names(folder) == ["out"]


def test_a_rename_that_fails_puts_the_earlier_folder_back(folder, monkeypatch, by_renames):
    rename = type(folder).rename

    def refusing(self, target):
        if target == folder and "partial" in str(self):
            raise OSError(1, "not permitted")
        return rename(self, target)

    monkeypatch.setattr(type(folder), "rename", refusing)
    with pytest.raises(PixelReferError, match="cannot be written: not permitted"):
        write(folder)
    assert (folder / "text").read_text() == "earlier"
    assert names(folder) == ["out"]


def test_a_checkpoint_that_was_being_replaced_comes_back(tmp_path):
    checkpoint = checkpoints.checkpoint_path(tmp_path, 5)
    (checkpoint.with_name(".checkpoint-5.earlier") / "model").mkdir(parents=True)
    checkpoints.remove_left_over(tmp_path)
    assert checkpoints.list_checkpoints(tmp_path) == [checkpoint]
    assert (checkpoint / "model").is_dir()


# -- killed at any call of the system ---------------------------------------------------------------------------


def killed_at(call, function):
    """Run a function in a process that is killed before its call number `call` that changes or syncs files.

    Returns:
        Whether it was killed; False where it makes fewer calls.
    """
    child = os.fork()
    if child:
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    counted = itertools.count()

    def counting(before):
        def called(*args, **kwargs):
            if next(counted) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return before(*args, **kwargs)

        return called

    for name in ("rename", "replace", "mkdir", "rmdir", "unlink", "fsync", "open"):
        setattr(os, name, counting(getattr(os, name)))
    files._exchanged = counting(files._exchanged)
    function()
    os._exit(0)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_folder_is_there_wherever_its_writer_is_killed(folder):
    seen = []
    for call in itertools.count():
        killed = killed_at(call, lambda call=call: write(folder, f"{call}"))
        text = (folder / "text").read_text()
        assert text in ("earlier", f"{call}")
        assert sorted(each.name for each in folder.iterdir()) == ["text"] if text == "earlier" else ["inside", "text"]
        if text != "earlier":
            shutil.rmtree(folder)
            folder.mkdir()
            (folder / "text").write_text("earlier")
        seen.append(text)
        if not killed:
            break
    assert seen.count("earlier") > 5
    assert seen[-1] == f"{len(seen) - 1}"
    assert names(folder) == ["out"]  # the last writer removed what the others left


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_file_is_whole_wherever_its_writer_is_killed(tmp_path):
    path = tmp_path / "file"
    path.write_text("earlier")
    for call in itertools.count():
        killed = killed_at(call, lambda: files.write_text_whole(path, "new"))
        assert path.read_text() in ("earlier", "new")
        if not killed:
            break
        path.write_text("earlier")
    assert path.read_text() == "new"
    assert names(path) == ["file"]


def test_a_file_is_on_the_disk_before_it_is_in_its_place(tmp_path, monkeypatch):
    path, on_disk = tmp_path / "file", []
    monkeypatch.setattr(files, "_to_disk", lambda each: on_disk.append((each.name, path.exists())))
    files.write_text_whole(path, "text")
    assert on_disk == [("file", False), (tmp_path.name, True)]


def test_two_processes_do_not_remove_each_other_s_work(folder):
    with files.written_folder(folder) as first:
        with files.written_folder(folder) as second:
            (second / "text").write_text("second")
        (first / "text").write_text("first")
    assert (folder / "text").read_text() == "first"
    assert names(folder) == ["out"]


def test_what_is_not_ours_is_never_removed(folder):
    others = [".out.partial", ".out.abc.partial", ".other.abcdefgh.partial", "out.abcdefgh.partial"]
    for name in others:
        (folder.parent / name).mkdir()
    (folder.parent / "target").mkdir()
    (folder.parent / ".out.abcdefgh.partial").symlink_to(folder.parent / "target")
    write(folder)
    assert names(folder) == sorted([*others, ".out.abcdefgh.partial", "out", "target"])


@pytest.mark.parametrize("error", [OSError(95, "no locks"), None], ids=["a file system", "an operating system"])
def test_without_locks_what_others_left_stays(folder, monkeypatch, error):
    def refusing(*args):
        raise error

    if error is None:
        monkeypatch.setattr(files, "fcntl", None)
    else:
        monkeypatch.setattr(files.fcntl, "flock", refusing)
    (folder.parent / ".out.abcdefgh.partial").mkdir()
    write(folder)
    assert (folder / "text").read_text() == "new"
    assert names(folder) == [".out.abcdefgh.partial", "out"]


def test_a_folder_that_is_taken_for_left_over_is_given_up(folder, monkeypatch):
    locked, made = files._locked, []

    def late(path):
        made.append(path)
        if len(made) == 1:
            path.rmdir()
            raise FileNotFoundError
        if len(made) == 2:
            raise BlockingIOError
        return locked(path)

    monkeypatch.setattr(files, "_locked", late)
    write(folder / "inner")
    assert len(set(made)) >= 3
    assert (folder / "inner" / "text").read_text() == "new"


def test_the_root_of_all_folders_is_never_replaced():
    files.restore_folder(Path("/"))
    with pytest.raises(PixelReferError, match="'/' cannot be replaced: it holds everything. Name a folder in it."):
        files.require_writable_folder(Path("/"))


TAKE_PATHS = {
    "open": RegionDataset.open,
    "rows": lambda path: RegionDataset.from_rows([{}], format="regions", media_root=path),
    "model": RegionModel.from_pretrained,
    "processor": RegionProcessor.from_pretrained,
    "import": lambda path: import_official(path, "out"),
    "import to": lambda path: import_official("missing", path),
    "memory": lambda path: ObjectMemory(Image.new("RGB", (9, 9))).save(path),
}


@pytest.mark.parametrize("name", TAKE_PATHS)
@pytest.mark.parametrize("path", ["x" * 5000, "a\0b"])
def test_what_the_system_takes_for_no_path_is_refused(name, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        PixelReferError, match=r"is no path that can be used: (File name too long|embedded null byte)\."
    ):
        TAKE_PATHS[name](path)
