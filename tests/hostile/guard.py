"""What a process does while an input is tried: programs, connections, code of the input, files written elsewhere.

Python's audit events tell it. What C code opens by itself is not seen.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_PROGRAMS = {"os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "pty.spawn", "subprocess.Popen"}
_CONNECTIONS = {"socket.bind", "socket.connect", "socket.getaddrinfo", "socket.sendto"}
# How many of the arguments are paths; what follows them are descriptors of folders, to which they are relative.
_CHANGES = {
    "os.chmod": 1, "os.link": 2, "os.mkdir": 1, "os.remove": 1, "os.rename": 2, "os.rmdir": 1, "os.symlink": 2,
    "os.truncate": 1, "os.utime": 1, "shutil.rmtree": 1,
}  # fmt: skip
INSTALLED = "site"  # the folder of an input that stands for an environment's site-packages
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_RUNNERS = {"os", "posix", "subprocess", "builtins", "sys", "importlib", "shutil", "runpy"}
_LEFT_ALONE = ("/dev/null", "/proc/self/")


class Guard:
    """Writes down what an input makes its process do.

    Args:
        scratch: folder of all inputs; code below it is theirs, and must not run unless it is installed as a plugin.
        writable: folders that may be written to, besides the input's own.
    """

    def __init__(self, scratch: Path, writable: Sequence[Path]) -> None:
        self._scratch = os.path.realpath(scratch)
        self._writable = [os.path.realpath(each) for each in writable]
        self._own: str | None = None
        self._acts: list[str] = []
        sys.addaudithook(self._heard)

    @contextmanager
    def watching(self, folder: Path) -> Iterator[list[str]]:
        """What is done meanwhile that must not be, one text each."""
        self._acts, self._own = [], os.path.realpath(folder)
        try:
            yield self._acts
        finally:
            self._own = None

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._own is None:
            return
        told = self._told(event, arguments)
        if told and len(self._acts) < 20:
            self._acts.append(f"{event}: {told[:300]}")

    def _told(self, event: str, arguments: tuple[Any, ...]) -> str:
        if event == "open":
            path, _, flags = arguments
            return "" if not (flags or 0) & _WRITING or self._is_own(path) else f"wrote {path!r}"
        if event in _CHANGES:
            paths, folders = arguments[: _CHANGES[event]], arguments[_CHANGES[event] :]
            if any(isinstance(each, int) and each >= 0 for each in folders if event != "os.mkdir"):
                return ""
            return "" if all(map(self._is_own, paths[-1:])) else f"changed {paths!r}"
        if event in _PROGRAMS or event in _CONNECTIONS:
            return repr(arguments)
        if event == "exec":
            file = str(getattr(arguments[0], "co_filename", ""))
            return f"ran {file}" if file.startswith(self._scratch) and f"/{INSTALLED}/" not in file else ""
        if event == "pickle.find_class" and arguments[0] in _RUNNERS:
            return f"{arguments[0]}.{arguments[1]}"
        return ""

    def _is_own(self, path: Any) -> bool:
        if isinstance(path, int):
            return True
        text = os.fsdecode(path)
        if text.startswith(_LEFT_ALONE):
            return True
        real = os.path.realpath(text)
        return any(real == each or real.startswith(f"{each}/") for each in (self._own, *self._writable))
