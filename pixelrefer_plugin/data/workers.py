"""Runs a function over many indices in several processes: results in order, memory bounded, deaths survived.

It knows functions and processes; nothing of samples.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing import get_context
from typing import Any, Generic, TypeVar

from ..errors import DataError
from .notices import own_warnings

ResultT = TypeVar("ResultT")
Job = Callable[[Sequence[int]], list[ResultT]]

_CHUNK = 32  # indices that a process is given at a time
_CHUNKS_AHEAD = 2  # that are handed out for each process before the first one's results are taken

_job: Job[Any] | None = None  # of this process, where it is a worker
_silence = ExitStack()  # likewise; it lasts as long as the process


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
    with _team(job, min(workers, len(chunks))) as team:
        waiting: deque[tuple[range, Future[list[ResultT]]]] = deque()
        while chunks or waiting:
            while chunks and len(waiting) < _CHUNKS_AHEAD * len(team):
                chunk = chunks.popleft()
                waiting.append((chunk, min(team, key=_Process.num_waiting).submit(chunk)))
            chunk, future = waiting.popleft()
            try:
                results: Iterable[ResultT] = future.result()
            except BrokenProcessPool:
                results = _one_by_one(job, chunk, died)
            yield from results


def _one_by_one(job: Job[ResultT], chunk: range, died: Callable[[int], ResultT]) -> Iterator[ResultT]:
    """The results of a chunk that a process had when it died, each found alone so that it is known at which index."""
    with _team(job, 1) as (process,):
        for index in chunk:
            try:
                yield from process.submit(range(index, index + 1)).result()
            except BrokenProcessPool:
                yield died(index)


class _Process(Generic[ResultT]):
    """A process that runs the job, and another in its place once it has died.

    Each has an executor of its own: in one for several processes, a death while another process is being started
    leaves that one unknown to the executor's clean-up, which then waits for it for ever (seen with CPython 3.11.7).
    """

    def __init__(self, job: Job[ResultT]) -> None:
        context = get_context("spawn")  # a forked copy of a process that has threads may hang
        self._new_pool = partial(ProcessPoolExecutor, 1, mp_context=context, initializer=_begin, initargs=(job,))
        self._pool = self._new_pool()
        self._waiting: list[Future[list[ResultT]]] = []

    def start(self) -> None:
        """Start the process, without waiting for it."""
        self._started: Future[list[ResultT]] = _submit(self._pool, range(0))

    def wait_for_start(self) -> None:
        """Return once the process is there.

        Raises:
            DataError: it cannot be started.
        """
        try:
            self._started.result()
        except BrokenProcessPool as error:
            raise DataError(
                "Worker processes cannot be started; what they print says why. In a script, call from below "
                "`if __name__ == '__main__':`, or run with workers=1."
            ) from error

    def submit(self, chunk: range) -> Future[list[ResultT]]:
        """Hand out a chunk. Its future raises BrokenProcessPool where the process dies before it has the results."""
        try:
            future: Future[list[ResultT]] = _submit(self._pool, chunk)
        except BrokenProcessPool:  # since the last chunk
            self.end()
            self._pool = self._new_pool()
            self.start()
            self.wait_for_start()
            future = _submit(self._pool, chunk)
        self._waiting.append(future)
        return future

    def num_waiting(self) -> int:
        """Chunks that it has not finished."""
        self._waiting = [future for future in self._waiting if not future.done()]
        return len(self._waiting)

    def end(self) -> None:
        self._pool.shutdown(cancel_futures=True)


@contextmanager
def _team(job: Job[ResultT], size: int) -> Iterator[list[_Process[ResultT]]]:
    """Processes that are known to start, and gone when the block is left, however it is."""
    team = [_Process(job) for _ in range(size)]
    try:
        for process in team:  # side by side
            process.start()
        for process in team:
            process.wait_for_start()
        yield team
    finally:
        for process in team:
            process.end()


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
    _silence.enter_context(own_warnings(lambda text: print(f"Warning: {text}", file=sys.stderr), most=1))
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _work(chunk: range) -> list[Any]:
    assert _job is not None, "the initializer sets it"
    return _job(chunk)
