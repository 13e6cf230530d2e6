"""The process in which inputs are tried, one after the other."""

from __future__ import annotations

import faulthandler
import io
import logging
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType

import huggingface_hub.constants
import torch
from transformers import dynamic_module_utils

from pixelrefer_plugin.errors import PixelReferError

from . import cases
from .cases import KINDS, MOST_CHARACTERS, Kind, generator
from .guard import Guard

SOUND = ("returned", "named")
_ADDRESS_SPACE = 8 << 30  # more than the process has: past the limit of memory, before the machine's
_PROJECT = tuple(
    f"/{name}/" for name in ("pixelrefer_plugin", "adapters", "backbones", "region_sources", "data_formats")
)


@dataclass
class Outcome:
    """What came of one input.

    Attributes:
        kind: of input.
        number: of the input among those of its kind.
        verdict: `returned` or `named`, which are sound; `unnamed` (another exception), `wordy` (a named one whose text
            is too long), `acted` (see `acts`), `died`, `slow`, `memory`, or `unmade` (the fault is the kind's own).
        error: type of the exception.
        text: what it says, shortened.
        where: the project's last line in its traceback.
        seconds: how long it took.
        peak_mb: the most memory that its process had meanwhile.
        acts: what `guard` heard.
        trace: the traceback, shortened.
    """

    kind: str
    number: int
    verdict: str
    error: str = ""
    text: str = ""
    where: str = ""
    seconds: float = 0.0
    peak_mb: int = 0
    acts: list[str] = field(default_factory=list)
    trace: str = ""

    @property
    def is_sound(self) -> bool:
        """Whether it is as it should be."""
        return self.verdict in SOUND

    @property
    def fault(self) -> tuple[str, str, str]:
        """What inputs with the same fault have in common."""
        return self.verdict, self.error or (self.acts[0].split(":")[0] if self.acts else ""), self.where


def work(connection: Connection, seed: int, scratch: Path) -> None:
    """Try each `(kind, number)` that comes, say `trying` once it is made, and send its `Outcome`."""
    cases.SCRATCH = scratch
    guard = _prepared(scratch)
    from . import kinds  # noqa: F401  # they fill KINDS

    while (asked := connection.recv()) is not None:
        kind, number = KINDS[asked[0]], asked[1]
        folder = scratch / "cases" / f"{kind.name}-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            try_it = kind.make(generator(seed, kind.name, number), folder)
        except Exception as error:
            connection.send(_failed(kind, number, "unmade", error))
            continue
        connection.send("trying")
        connection.send(_tried(kind, number, try_it, folder, guard))


def _prepared(scratch: Path) -> Guard:
    """Turn this process into one that inputs may be tried in."""
    temporary, modules, current = scratch / "tmp", scratch / "modules", scratch / f"current-{os.getpid()}"
    for folder in (temporary, modules, current):
        folder.mkdir(parents=True, exist_ok=True)
    tempfile.tempdir = str(temporary)
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    dynamic_module_utils.HF_MODULES_CACHE = str(modules)  # where code of model folders would be copied to
    os.chdir(current)  # files of relative names would be found here
    sys.dont_write_bytecode = True
    log = os.open(scratch / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    trace = trace_file(scratch, os.getpid()).open("w")
    faulthandler.enable(trace, all_threads=False)
    faulthandler.register(signal.SIGUSR1, trace, all_threads=False)
    torch.set_num_threads(1)
    used = int(_status("VmSize")) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (used + _ADDRESS_SPACE,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return Guard(scratch, [temporary])


def trace_file(scratch: Path, pid: int | None) -> Path:
    """Where a worker writes down where it is when it crashes, or is asked to by `SIGUSR1`."""
    return scratch / f"trace-{pid}.txt"


def is_own(line: str) -> bool:
    """Whether a file's path, or a line with one, is of the project."""
    return any(place in line for place in _PROJECT)


def _tried(kind: Kind, number: int, try_it: cases.Try, folder: Path, guard: Guard) -> Outcome:
    sys.stdin = io.StringIO("y\n" * 1_000)  # says yes to whatever is asked
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    begun = time.perf_counter()
    with guard.watching(folder) as acts:
        try:
            try_it()
            outcome = Outcome(kind.name, number, "returned")
        except PixelReferError as error:
            outcome = _failed(kind, number, "named", error)
        except BaseException as error:
            outcome = _failed(kind, number, "unnamed", error)
    outcome.seconds = time.perf_counter() - begun
    outcome.peak_mb = int(_status("VmHWM")) // 1024
    outcome.acts = [*acts, *_left_in_current_folder()]
    if outcome.acts and outcome.is_sound:
        outcome.verdict = "acted"
    return outcome


def _left_in_current_folder() -> list[str]:
    """The files that were written by relative names, which are removed."""
    names = os.listdir()
    for name in names:
        shutil.rmtree(name) if os.path.isdir(name) else os.unlink(name)
    return [f"current folder: wrote {name}" for name in names]


def _failed(kind: Kind, number: int, verdict: str, error: BaseException) -> Outcome:
    try:
        text = str(error)
    except BaseException as unsayable:
        verdict, text = "unnamed", f"its text cannot be made: {type(unsayable).__name__}"
    if verdict == "named" and len(text) > MOST_CHARACTERS:
        verdict = "wordy"
    trace = "".join(traceback.format_exception(error, limit=-12))[-4_000:] if verdict != "named" else ""
    where = _last_line(error.__traceback__)
    return Outcome(kind.name, number, verdict, type(error).__name__, " ".join(text[:400].split()), where, trace=trace)


def _last_line(trace: TracebackType | None) -> str:
    """The project's last line in a traceback, as `path:line function`."""
    found = ""
    while trace is not None:
        code = trace.tb_frame.f_code
        for place in _PROJECT:
            if place in code.co_filename:
                found = f"{code.co_filename.rpartition(place)[2]}:{trace.tb_lineno} {code.co_name}"
        trace = trace.tb_next
    return found


def _status(field_name: str) -> str:
    """A size of this process, in kB."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(line.split()[1] for line in file if line.startswith(f"{field_name}:"))
