"""Files that may be read; files and folders that appear whole or not at all, and whether there can be any.

A folder is replaced by two renames. Between them the earlier one is called `.NAME.earlier`; where an interruption left
it so, the next one who writes or reads the folder puts it back.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .errors import PixelReferError


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file to read its bytes. A named pipe or a device, which could keep one waiting for ever, is none.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # a pipe is not waited for
    descriptor = os.open(path, flags)
    file = os.fdopen(descriptor, "rb")  # refuses a folder
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))
    return file


def require_writable(path: Path) -> None:
    """Refuse a file that cannot be written, before minutes go into what it shall hold.

    Raises:
        PixelReferError: it is a folder or no regular file, or its folder is missing or takes no files.
    """
    if path.is_dir():
        raise PixelReferError(f"'{path}' cannot be written: it is a folder. Name a file in it.")
    if path.exists() and not path.is_file():  # root could put a file in the place of /dev/null
        raise PixelReferError(f"'{path}' cannot be written: it is no regular file. Name one.")
    if not path.parent.is_dir():
        raise PixelReferError(f"'{path}' cannot be written: there is no folder '{path.parent}'.")
    with _explained(path), _beside(path):
        pass


def require_writable_folder(path: Path) -> None:
    """Refuse a folder that cannot be made, its missing parents with it, or be replaced where it is there.

    Raises:
        PixelReferError: it is a file, or the nearest folder above it that is there takes no files.
    """
    target = path.resolve()
    with _explained(path):
        restore_folder(target)
    if target.exists() and not target.is_dir():
        raise PixelReferError(f"'{path}' cannot be written: it is a file. Name a folder.")
    above = next(each for each in target.parents if each.exists())
    with _explained(path), _beside(above / target.name):
        pass


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A path of the same name to write to; its file goes to `path` when the block ends without an error.

    Raises:
        PixelReferError: it cannot be written, such as for a full disk.
    """
    require_writable(path)
    with _explained(path), _beside(path) as folder:
        made = folder / path.name
        yield made
        os.replace(made, path)


@contextmanager
def written_folder(path: Path) -> Iterator[Path]:
    """A folder that takes the place of `path` when the block ends without an error; missing parents are made.

    Raises:
        PixelReferError: it cannot be written.
    """
    require_writable_folder(path)
    with _explained(path), replaced_folder(path) as made:
        yield made


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """As `written_folder`, but what the system refuses is raised as it is, an `OSError`."""
    target = path.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    with _beside(target) as folder:
        made = folder / target.name
        made.mkdir()
        yield made
        put_folder(made, target)


def put_folder(made: Path, target: Path) -> None:
    """Put a finished folder in its place, once all of it is on the disk. An interruption loses neither of the two.

    Args:
        made: the folder, on the same disk as `target`.
        target: where it goes; a folder that is there is replaced.
    """
    for path in (*made.rglob("*"), made):
        _to_disk(path)
    restore_folder(target)
    if target.exists():
        target.rename(_earlier(target))
    try:
        made.rename(target)
    except OSError:
        restore_folder(target)
        raise
    _to_disk(target.parent)
    restore_folder(target)


def restore_folder(path: Path) -> None:
    """Finish an interrupted replacement: the earlier folder is put back, or removed where the new one is in place."""
    target = path.resolve()
    earlier = _earlier(target)
    if not earlier.is_dir():
        return
    if target.exists():
        shutil.rmtree(earlier, ignore_errors=True)
    else:
        earlier.rename(target)


def _earlier(target: Path) -> Path:
    return target.with_name(f".{target.name}.earlier")


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A folder on the same disk, gone afterwards. To make one tells more than permissions do, of which root has all."""
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".partial", dir=path.parent) as folder:
        yield Path(folder)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PixelReferError(f"'{path}' cannot be written: {error.strerror or error}.") from error
