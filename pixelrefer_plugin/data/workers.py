"""Runs a function over many indices in several processes: results in order, memory bounded, deaths survived.

It knows functions and processes; nothing of samples.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context
from typing import Any, Generic, TypeVar

from ..errors import DataError

ResultT = TypeVar("ResultT")
Job = Callable[[Sequence[int]], list[ResultT]]

_CHUNK = 32  # indices that a process is given at a time
_CHUNKS_AHEAD = 2  # that are handed out for each process before the first one's results are taken

_job: Job[Any] | None = None  # of this process, where it is a worker


def run_in_order(job: Job[ResultT], total: int, *, workers: int, died: Callable[[int], ResultT]) -> Iterator[ResultT]:
    """The results of `job` for the indices below `total`, in order.

    Args:
        job: takes indices, returns a result for each; sent to each process once, so it must be picklable.
        total: how many.
        workers: processes to run it in; with one it runs in this process, as it does where there is little to do.
        died: the result for an index whose process was killed or crashed while it worked on that index alone.

    Raises:
        DataError: processes cannot be started.
    """
    chunks = deque(range(start, min(start + _CHUNK, total)) for start in range(0, total, _CHUNK))
    if workers <= 1 or len(chunks) <= 1:
        for chunk in chunks:
            yield from job(chunk)
        return
    team = _Team(job, min(workers, len(chunks)), died)
    while chunks:
        try:
            yield from team.work_off(chunks)
        except BrokenProcessPool:
            yield from team.one_by_one(chunks.popleft())


class _Team(Generic[ResultT]):
    """Processes that run one job."""

    def __init__(self, job: Job[ResultT], workers: int, died: Callable[[int], ResultT]) -> None:
        self._job = job
        self._workers = workers
        self._died = died

    def work_off(self, chunks: deque[range]) -> Iterator[ResultT]:
        """The results of chunk after chunk; each is taken off once its results are known."""
        with self._pool(self._workers) as pool:
            waiting: deque[Future[list[ResultT]]] = deque()
            while chunks:
                for chunk in islice(chunks, len(waiting), _CHUNKS_AHEAD * self._workers):
                    waiting.append(_submit(pool, chunk))
                results = waiting.popleft().result()
                chunks.popleft()
                yield from results

    def one_by_one(self, chunk: range) -> Iterator[ResultT]:
        """The results of a chunk at which a process died, found alone so that it is known at which index."""
        waiting = deque(chunk)
        while waiting:
            try:
                with self._pool(1) as pool:
                    while waiting:
                        results = _submit(pool, range(waiting[0], waiting[0] + 1)).result()
                        waiting.popleft()
                        yield from results
            except BrokenProcessPool:
                yield self._died(waiting.popleft())

    @contextmanager
    def _pool(self, workers: int) -> Iterator[ProcessPoolExecutor]:
        """Processes that are known to start, and gone when the block is left, however it is."""
        context = get_context("spawn")  # a forked copy of a process that has threads may hang
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(self._job,))
        try:
            try:
                _submit(pool, range(0)).result()
            except BrokenProcessPool as error:
                raise DataError(
                    "Worker processes cannot be started; what they print says why. In a script, call from below "
                    "`if __name__ == '__main__':`, or run with workers=1."
                ) from error
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, chunk: range) -> Future[list[Any]]:
    """Hand out a chunk. Processes that this starts never hear of Ctrl-C: the first one does, and ends them."""
    with _ctrl_c_later():
        return pool.submit(_work, chunk)


@contextmanager
def _ctrl_c_later() -> Iterator[None]:
    """Ctrl-C counts when the block is left: a process that is half started would be forgotten, and never end.

    The signal is blocked, which processes inherit, and noted where another thread takes it.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    asked: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: asked.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
    if asked:
        signal.raise_signal(signal.SIGINT)


def _begin(job: Job[Any]) -> None:
    """Set up a worker process. What is worth telling is in its results: its libraries print nothing."""
    global _job
    _job = job
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it could not be blocked from the start
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _work(chunk: range) -> list[Any]:
    assert _job is not None, "the initializer sets it"
    return _job(chunk)
