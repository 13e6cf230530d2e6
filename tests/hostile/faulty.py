"""Inputs that do what no input may do: they show that it is seen."""

from __future__ import annotations

import os
import pickle
import random
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from pixelrefer_plugin.errors import DataError

from .cases import Try, kind, replaced


def _raises(error: BaseException) -> Callable[[Path], None]:
    def raising(folder: Path) -> None:
        raise error

    return raising


def _connects(folder: Path) -> None:
    with socket.socket() as made:
        made.connect_ex(("127.0.0.1", 9))


def _imports(folder: Path) -> None:
    code = compile(replaced(folder / "evil.py", "x = 1").read_text(), folder / "evil.py", "exec")
    exec(code, {})


class _Called:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.getenv, ("HOME",)


FAULTY: dict[str, tuple[str, Callable[[Path], object]]] = {
    "works": ("returned", lambda folder: replaced(folder / "out.txt", "x")),
    "is refused": ("named", _raises(DataError("no"))),
    "raises": ("unnamed", _raises(KeyError("x"))),
    "exits": ("unnamed", _raises(SystemExit(0))),
    "talks": ("wordy", _raises(DataError("x" * 100_000))),
    "dies": ("died", lambda folder: os.abort()),
    "starts a program": ("acted", lambda folder: subprocess.run(["true"], check=True)),
    "starts a program in a shell": ("acted", lambda folder: os.system("true")),
    "connects": ("acted", _connects),
    "writes elsewhere": ("acted", lambda folder: (folder.parent / "elsewhere.txt").write_text("x")),
    "writes in the current folder": ("acted", lambda folder: Path("elsewhere.txt").write_text("x")),
    "deletes elsewhere": ("acted", lambda folder: (folder.parent / "elsewhere.txt").unlink(missing_ok=True)),
    "runs code of the input": ("acted", _imports),
    "unpickles a call": ("acted", lambda folder: pickle.loads(pickle.dumps(_Called()))),
    "takes memory": ("memory", lambda folder: bytearray(b"x" * (2 << 30))),
    "waits": ("slow", lambda folder: time.sleep(60)),
}


@kind("faulty", share=0)
def faulty(rng: random.Random, folder: Path) -> Try:
    _, act = list(FAULTY.values())[int(folder.name.rpartition("-")[2])]
    return lambda: act(folder)
