"""Files that may be read; files and folders that appear whole or not at all, and whether there can be any.

What is written is made beside its place, in a folder `.NAME.XXXXXXXX.partial` that is locked while its process lives;
the next one who writes removes those of processes that are gone. A folder that is replaced changes places with the new
one at once, where the system can do that. Elsewhere it takes two renames, between which the earlier one is called
`.NAME.earlier`; where an interruption left it so, the next one who writes or reads the folder puts it back.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .errors import PixelReferError, shown

try:
    import fcntl
except ImportError:  # Windows: what is left over there stays
    fcntl = None  # type: ignore[assignment]


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


def require_path(path: str | os.PathLike[str], error: type[PixelReferError] = PixelReferError) -> None:
    """Refuse what the system takes for no path: one that is too long, or has a character that no path has.

    Raises:
        error: it is none.
    """
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    except (OSError, ValueError) as found:
        why = getattr(found, "strerror", None) or found
        raise error(f"{shown(os.fspath(path))} is no path that can be used: {why}.") from found


def require_writable(path: Path) -> None:
    """Refuse a file that cannot be written, before minutes go into what it shall hold.

    Raises:
        PixelReferError: it is a folder or no regular file, or its folder is missing or takes no files.
    """
    require_path(path)
    if path.is_dir():
        raise PixelReferError(f"'{path}' cannot be written: it is a folder. Name a file in it.")
    if path.exists() and not path.is_file():  # root could put a file in the place of /dev/null
        raise PixelReferError(f"'{path}' cannot be written: it is no regular file. Name one.")
    if not path.parent.is_dir():
        raise PixelReferError(f"'{path}' cannot be written: there is no folder '{path.parent}'.")
    with explained(path), _beside(path):
        pass


def require_writable_folder(path: Path) -> None:
    """Refuse a folder that cannot be made, its missing parents with it, or be replaced where it is there.

    Raises:
        PixelReferError: it is a file, or the nearest folder above it that is there takes no files.
    """
    require_path(path)
    target = path.resolve()
    with explained(path):
        restore_folder(target)
    if target.exists() and not target.is_dir():
        raise PixelReferError(f"'{path}' cannot be written: it is a file. Name a folder.")
    if not target.name:
        raise PixelReferError(f"'{path}' cannot be replaced: it holds everything. Name a folder in it.")
    above = next(each for each in target.parents if each.exists())
    with explained(path), _beside(above / target.name):
        pass


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A path of the same name to write to; its file goes to `path` when the block ends without an error, and is on the
    disk then.

    Raises:
        PixelReferError: it cannot be written, such as for a full disk.
    """
    require_writable(path)
    with explained(path), _beside(path) as folder:
        made = folder / path.name
        yield made
        _to_disk(made)
        os.replace(made, path)
        _to_disk(path.parent)


def write_text_whole(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all.

    Raises:
        PixelReferError: it cannot be written, such as for a full disk.
    """
    with written_whole(path) as made:
        made.write_text(text, encoding="utf-8")


@contextmanager
def written_folder(path: Path) -> Iterator[Path]:
    """A folder that takes the place of `path` when the block ends without an error; missing parents are made.

    Raises:
        PixelReferError: it cannot be written.
    """
    require_writable_folder(path)
    with explained(path), replaced_folder(path) as made:
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
    if target.exists() and _exchanged(made, target):
        _to_disk(target.parent)
        shutil.rmtree(made, ignore_errors=True)  # the earlier one
        return
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
    if not target.name:  # the root of all folders
        return
    earlier = _earlier(target)
    if not earlier.is_dir():
        return
    if target.exists():
        shutil.rmtree(earlier, ignore_errors=True)
    else:
        earlier.rename(target)


def _earlier(target: Path) -> Path:
    return target.with_name(f".{target.name}.earlier")


def to_disk(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    _to_disk(path)


def _to_disk(path: Path) -> None:
    if os.name != "posix":  # where a folder cannot be opened
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# -- two folders change places -----------------------------------------------------------------------------

_AT_CWD, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


def _exchanged(one: Path, other: Path) -> bool:
    """Whether the two changed places, in one step of the file system; where it cannot do that, nothing happened."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if os.name == "posix" else None
    if rename is None:  # other systems, and C libraries without it
        return False
    return bool(rename(_AT_CWD, os.fsencode(one), _AT_CWD, os.fsencode(other), ctypes.c_uint(_EXCHANGE)) == 0)


# -- the folder in which something is made -----------------------------------------------------------------


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A folder on the same disk, gone afterwards. To make one tells more than permissions do, of which root has all."""
    _remove_left_over(path)
    folder, descriptor = _new_locked(path)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


def _new_locked(path: Path) -> tuple[Path, int | None]:
    """A new folder and what locks it. One that another process took for left over before it was locked is given up."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
        with suppress(BlockingIOError, FileNotFoundError):
            descriptor = _locked(folder)
            if folder.exists():
                return folder, descriptor
            if descriptor is not None:
                os.close(descriptor)


def _locked(folder: Path) -> int | None:
    """A descriptor that locks a folder until it is closed, by its process's end if need be; None where the file system
    has no locks.

    Raises:
        BlockingIOError: another process has it.
        FileNotFoundError: the folder is gone.
    """
    return None if fcntl is None else _lock(os.open(folder, os.O_RDONLY))


def lock_file(path: Path) -> int | None:
    """A descriptor of a file, made where it is not there, that locks it until the descriptor is closed, by the end of
    the process if need be; None where the file system has no locks.

    Raises:
        BlockingIOError: another process has it.
        OSError: the file cannot be made.
    """
    while True:
        descriptor = _lock(os.open(path, os.O_RDWR | os.O_CREAT, 0o666))
        if descriptor is None:
            return None
        with suppress(FileNotFoundError):  # the one who held it may have removed it just now
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        os.close(descriptor)


def _lock(descriptor: int) -> int | None:
    """The descriptor, locked; closed, and None, where the file system has no locks."""
    try:
        if fcntl is None:
            raise OSError(errno.ENOLCK, "there are no locks here")
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise
        return None
    return descriptor


def _remove_left_over(path: Path) -> None:
    """Remove what processes that are gone left of their attempts to write the same; others cannot be locked."""
    ours = re.compile(rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}\.partial")
    folders: list[Path] = []
    with suppress(OSError):  # a folder that cannot be read, which the caller tells
        folders = [each for each in path.parent.iterdir() if ours.fullmatch(each.name) and not each.is_symlink()]
    for folder in folders:
        with suppress(OSError):
            descriptor = _locked(folder)
            if descriptor is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(descriptor)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Says of what the system refuses, an `OSError`, what could not be written, as a `PixelReferError`."""
    try:
        yield
    except OSError as error:
        raise PixelReferError(f"'{path}' cannot be written: {error.strerror or error}.") from error
