"""One run at a time in an output folder. The lock ends with its process, however that ends.

It knows a folder and the processes of the system; nothing of training.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from ..errors import TrainingError
from ..json_text import parse_json

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = ".lock"


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the lock of an existing folder while the block runs. Where its file system has no locks, there is none.

    Raises:
        TrainingError: another process holds it.
        OSError: the folder takes no files.
    """
    path = out / LOCK_FILE
    file = _opened(path)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        file.close()


def require_not_in_use(out: Path) -> None:
    """Refuse a folder in which another process trains.

    Raises:
        TrainingError: it does.
    """
    with suppress(OSError), open(out / LOCK_FILE, "r+b") as file:
        _lock(file, out)


def _opened(path: Path) -> IO[bytes]:
    """The file, locked; it says whose lock it is."""
    while True:
        file = open(path, "a+b")  # noqa: SIM115
        try:
            _lock(file, path.parent)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                break
        except BaseException:
            file.close()
            raise
        file.close()  # the one who held it has just removed it
    file.truncate(0)
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}).encode())
    file.flush()
    return file


def _lock(file: IO[bytes], out: Path) -> None:
    """Lock a file for this process and not for those that it forks, such as workers, which live a little longer."""
    if fcntl is None:
        return
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        raise TrainingError(
            f"'{out}' is in use: {_holder(file)} trains there. Wait until it has ended, or choose another run.out."
        ) from error
    except OSError:  # a file system without locks
        return


def _holder(file: IO[bytes]) -> str:
    file.seek(0)
    try:
        holder: Any = parse_json(file.read(10_000))
        return f"process {holder['pid']} on {holder['host']}, since {holder['since']},"
    except (ValueError, KeyError, TypeError):
        return "another process"
