"""Runs hostile inputs in worker processes, and ends those that take too long or too much memory.

    python -m tests.hostile.run --inputs 10000 --seed 0 --json outcomes.json
    python -m tests.hostile.run --only pictures-17 --seed 0 --keep kept

The second command makes one input of the first again, and keeps its files where its outcome is unsound.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from . import kinds  # noqa: F401  # fills KINDS
from .cases import KINDS, numbered
from .worker import SOUND, Outcome, is_own, trace_file, work

MOST_S = 20.0
MOST_MB = 4096
MADE_KINDS = [name for name, each in KINDS.items() if each.share]
# What makes a worker start at once. The server of forks may not find this package, where it is not below its folder.
_PRELOADED = ["pixelrefer_plugin.training.run", "pixelrefer_plugin.testing", f"{__package__}.kinds"]
_MAKING_S = 300.0  # the first input of a kind may have to make what all of them are made from
_INPUTS_A_WORKER = 400  # then a fresh one, so that nothing adds up


def run(
    inputs: Sequence[tuple[str, int]],
    *,
    seed: int = 0,
    workers: int = 1,
    most_s: float = MOST_S,
    most_mb: int = MOST_MB,
    keep: Path | None = None,
    tell: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Try inputs, of which each is a kind and a number.

    Args:
        inputs: them.
        seed: of all.
        workers: processes that try them.
        most_s: seconds that an input may take.
        most_mb: memory that its process may have meanwhile.
        keep: folder that inputs with unsound outcomes are put in.
        tell: called with each outcome.

    Returns:
        The outcomes, in no order.
    """
    outcomes: list[Outcome] = []
    waiting, lock = iter(list(inputs)), threading.Lock()

    def next_one() -> tuple[str, int] | None:
        with lock:
            return next(waiting, None)

    with tempfile.TemporaryDirectory(prefix="hostile-", ignore_cleanup_errors=True) as scratch:

        def start() -> _Worker:
            return _Worker(seed, Path(scratch), most_s, most_mb)

        def lane() -> None:
            for outcome in _outcomes(next_one, start, Path(scratch), keep):
                with lock:
                    outcomes.append(outcome)
                    tell(outcome)

        lanes = [threading.Thread(target=lane) for _ in range(workers)]
        for each in lanes:
            each.start()
        for each in lanes:
            each.join()
    return outcomes


def _outcomes(
    next_one: Callable[[], tuple[str, int] | None], start: Callable[[], _Worker], scratch: Path, keep: Path | None
) -> Iterator[Outcome]:
    """The outcomes of inputs until there is no more, from one worker after the other."""
    worker, tried = None, 0
    while (asked := next_one()) is not None:
        if worker is not None and (tried >= _INPUTS_A_WORKER or not worker.process.is_alive()):
            worker.end()
            worker, tried = None, 0
        worker = worker or start()
        outcome = worker.outcome(*asked)
        tried += 1
        _put_away(scratch / "cases" / f"{asked[0]}-{asked[1]}", outcome, keep)
        yield outcome
    if worker is not None:
        worker.end()


def _put_away(folder: Path, outcome: Outcome, keep: Path | None) -> None:
    """Keep an input whose outcome is unsound, as it is after it was tried, and delete every other one."""
    if keep is not None and not outcome.is_sound:
        keep.mkdir(parents=True, exist_ok=True)
        kept = keep / folder.name
        shutil.rmtree(kept, ignore_errors=True)
        if folder.exists():
            shutil.move(folder, kept)
        (keep / f"{folder.name}.json").write_text(json.dumps(asdict(outcome), indent=1))
    shutil.rmtree(folder, ignore_errors=True)


class _Worker:
    """A process that tries inputs, ended where one takes too long or too much memory."""

    def __init__(self, seed: int, scratch: Path, most_s: float, most_mb: int) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        self.connection, other = context.Pipe()
        self.process = context.Process(target=work, args=(other, seed, scratch), daemon=False)
        self.process.start()
        self._scratch, self._most_s, self._most_mb = scratch, most_s, most_mb
        other.close()

    def outcome(self, kind: str, number: int) -> Outcome:
        """What comes of one input."""
        self.connection.send((kind, number))
        begun, most_s, peak_mb = time.monotonic(), _MAKING_S, 0
        while True:
            told = self._told()
            seconds, peak_mb = time.monotonic() - begun, max(peak_mb, _memory_mb(self.process.pid))
            if isinstance(told, Outcome):
                return self._within_limits(told)
            if told == "trying":
                begun, most_s = time.monotonic(), self._most_s
            elif told == "died":
                return self._ended(Outcome(kind, number, "died", seconds=seconds, peak_mb=peak_mb))
            elif peak_mb > self._most_mb or seconds > most_s:
                self._kill()
                verdict = "memory" if peak_mb > self._most_mb else "slow"
                return self._ended(Outcome(kind, number, verdict, seconds=seconds, peak_mb=peak_mb))

    def _within_limits(self, outcome: Outcome) -> Outcome:
        """An outcome that came in time; it may have been short of being seen."""
        if outcome.is_sound and outcome.peak_mb > self._most_mb:
            return replace(outcome, verdict="memory")
        return outcome

    def _kill(self) -> None:
        """End it, once it has written down where it is."""
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGUSR1)
        time.sleep(0.5)
        self.process.kill()

    def _ended(self, outcome: Outcome) -> Outcome:
        """The outcome, with what the process wrote down at its end."""
        self.process.join()
        trace = trace_file(self._scratch, self.process.pid).read_text()
        own = (line.strip() for line in trace.splitlines() if is_own(line))
        error = f"exit code {self.process.exitcode}" if outcome.verdict == "died" else ""
        return replace(outcome, error=error, where=next(own, ""), trace=trace[:4_000])

    def _told(self) -> Any:
        """What the worker sends within a moment, or `died`."""
        try:
            return self.connection.recv() if self.connection.poll(0.05) else None
        except (EOFError, ConnectionError):
            return "died"

    def end(self) -> None:
        """Let it go."""
        with contextlib.suppress(OSError):
            self.connection.send(None)
        self.process.join(timeout=10)
        self.process.kill()


def _memory_mb(pid: int | None) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
    except (OSError, IndexError):
        return 0


# -- the command -------------------------------------------------------------------------------------------


def report(outcomes: Sequence[Outcome]) -> str:
    """How many inputs of each kind came to what, and one of each fault."""
    verdicts = sorted({each.verdict for each in outcomes}, key=lambda each: (each not in SOUND, each))
    lines = [f"{'kind':20}" + "".join(f"{verdict:>10}" for verdict in verdicts)]
    for name in sorted({each.kind for each in outcomes}):
        counts = Counter(each.verdict for each in outcomes if each.kind == name)
        lines.append(f"{name:20}" + "".join(f"{counts[verdict] or '':>10}" for verdict in verdicts))
    slowest, largest = max(each.seconds for each in outcomes), max(each.peak_mb for each in outcomes)
    lines.append(f"{len(outcomes)} inputs; slowest {slowest:.1f} s; most memory {largest} MB")
    faults = Counter(each.fault for each in outcomes if not each.is_sound)
    for fault, count in faults.most_common():
        first = next(each for each in outcomes if each.fault == fault)
        said = "; ".join(filter(None, (first.where, first.text, *first.acts)))
        lines.append(f"{count:5} x {' '.join(fault[:2])}, such as {first.kind}-{first.number}: {said[:300]}")
    return "\n".join(lines)


def main() -> int:
    """The command line. Its exit code is 1 where an outcome is unsound."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", default=MADE_KINDS, choices=MADE_KINDS, metavar="KIND")
    parser.add_argument("--only", metavar="KIND-NUMBER", help="one input again")
    parser.add_argument("--keep", type=Path, help="folder for the inputs with unsound outcomes")
    parser.add_argument("--json", type=Path, help="file for all outcomes, a line each")
    given = parser.parse_args()
    inputs = numbered(given.kinds, given.inputs)
    if given.only:
        name, _, number = given.only.rpartition("-")
        inputs = [(name, int(number))]
    lines = given.json.open("w") if given.json else None

    def tell(outcome: Outcome) -> None:
        if lines is not None:
            print(json.dumps(asdict(outcome)), file=lines, flush=True)
        if not outcome.is_sound:
            print(f"{outcome.kind}-{outcome.number}: {' '.join(outcome.fault)} {outcome.text[:100]}", flush=True)

    outcomes = run(inputs, seed=given.seed, workers=given.workers, keep=given.keep, tell=tell)
    print(report(outcomes))
    return int(not all(each.is_sound for each in outcomes))


if __name__ == "__main__":
    sys.exit(main())
