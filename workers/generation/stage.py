"""A stage of the pipeline: threads behind a queue of bounded length."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class Stage:
    """Runs tasks first in, first out. ``waiting`` and ``working`` count them and may be read at any time."""

    def __init__(
        self, name: str, threads: int, *, bound: int | None = None, initializer: Callable[[], None] | None = None
    ) -> None:
        """``bound``: tasks that may wait; None if the callers bound them already."""
        self.name = name
        self.waiting = 0
        self.working = 0
        self._bound = None if bound is None else threading.Semaphore(bound)
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(threads, name, initializer=initializer)

    def put(self, task: Callable[[], None]) -> None:
        """Queues ``task``, which must not raise; waits while the queue is full. Raises RuntimeError once closed."""
        if self._bound is not None:
            self._bound.acquire()
        self._count(waiting=1)
        try:
            self._threads.submit(self._run, task)
        except RuntimeError:
            self._leave_queue()
            raise

    def close(self) -> None:
        """Runs the waiting tasks, then ends the threads."""
        self._threads.shutdown()

    def _run(self, task: Callable[[], None]) -> None:
        self._leave_queue()
        self._count(working=1)
        try:
            task()
        finally:
            self._count(working=-1)

    def _leave_queue(self) -> None:
        self._count(waiting=-1)
        if self._bound is not None:
            self._bound.release()

    def _count(self, *, waiting: int = 0, working: int = 0) -> None:
        with self._lock:
            self.waiting += waiting
            self.working += working
