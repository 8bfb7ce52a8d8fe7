"""A stage of the pipeline: threads of its own behind a queue that cannot grow past its bound."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class Stage:
    """Runs pieces of work in the order in which they come. ``waiting`` and ``working`` may be read at any time."""

    def __init__(
        self, name: str, threads: int, *, bound: int | None = None, initializer: Callable[[], None] | None = None
    ) -> None:
        """``bound``: pieces that may wait; None where whoever puts them bounds them already."""
        self.name = name
        self.waiting = 0
        self.working = 0
        self._bound = None if bound is None else threading.Semaphore(bound)
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(threads, name, initializer=initializer)

    def put(self, work: Callable[[], None]) -> None:
        """Queues ``work``, which must not raise; waits while the queue is full. RuntimeError once the stage is
        closed."""
        if self._bound is not None:
            self._bound.acquire()
        self._count(waiting=1)
        try:
            self._threads.submit(self._run, work)
        except RuntimeError:
            self._taken()
            raise

    def close(self) -> None:
        """Does what waits, then ends the threads."""
        self._threads.shutdown()

    def _run(self, work: Callable[[], None]) -> None:
        self._taken()
        self._count(working=1)
        try:
            work()
        finally:
            self._count(working=-1)

    def _taken(self) -> None:
        self._count(waiting=-1)
        if self._bound is not None:
            self._bound.release()

    def _count(self, *, waiting: int = 0, working: int = 0) -> None:
        with self._lock:
            self.waiting += waiting
            self.working += working
