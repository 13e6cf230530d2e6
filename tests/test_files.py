"""Folders that appear whole or not at all, and what an interruption leaves."""

import pytest

from pixelrefer_plugin import PixelReferError, files
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


@pytest.mark.parametrize("at", [0, 1], ids=["before the first rename", "between the two"])
def test_an_interruption_loses_nothing(folder, monkeypatch, at):
    interrupt_rename(monkeypatch, at)
    with pytest.raises(Killed):
        write(folder)
    monkeypatch.undo()
    files.restore_folder(folder)
    assert (folder / "text").read_text() == "earlier"
    assert names(folder) == ["out"]


def test_the_next_write_goes_on_from_an_interruption(folder, monkeypatch):
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


def test_a_rename_that_fails_puts_the_earlier_folder_back(folder, monkeypatch):
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
