"""Many requests to a judge, several at once, begun in their order; replies in the order in which they come."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_threads(
    ask: Callable[[T], R], items: Sequence[T], at_once: int
) -> Generator[tuple[int, R | Exception], None, None]:
    """The result of each item, as each is done.

    Whoever stops reading starts nothing more. The threads die with the process: one that waits for a server which
    never answers keeps nobody from leaving.
    """
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, R | Exception]] = queue.SimpleQueue()
    stopped = threading.Event()
    for position in range(len(items)):
        waiting.put(position)

    def work() -> None:
        while not stopped.is_set():
            try:
                position = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((position, ask(items[position])))
            except Exception as error:  # told to the reader
                done.put((position, error))

    for _ in range(min(at_once, len(items))):
        threading.Thread(target=work, name="judge", daemon=True).start()
    try:
        for _ in items:
            yield done.get()
    finally:
        stopped.set()
