"""A stage of the pipeline: threads behind a queue of bounded length, in which tenants take turns."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class Stage:
    """Runs the tasks of a tenant first in, first out, and one of each tenant that waits in turn.

    ``waiting`` and ``working`` count them and may be read at any time.
    """

    def __init__(
        self, name: str, threads: int, *, bound: int | None = None, initializer: Callable[[], None] | None = None
    ) -> None:
        """``bound``: tasks that may wait; None if the callers bound them already."""
        self.name = name
        self.waiting = 0
        self.working = 0
        self._bound = None if bound is None else threading.Semaphore(bound)
        self._lock = threading.Lock()
        self._tasks: OrderedDict[str, deque[Callable[[], None]]] = OrderedDict()
        self._threads = ThreadPoolExecutor(threads, name, initializer=initializer)

    def put(self, task: Callable[[], None], tenant: str = "") -> None:
        """Queues ``task``, which must not raise; waits while the queue is full. Raises RuntimeError once closed."""
        if self._bound is not None:
            self._bound.acquire()
        self._count(waiting=1)
        with self._lock:
            tasks = self._tasks.setdefault(tenant, deque())
            tasks.append(task)
        try:
            self._threads.submit(self._run)
        except RuntimeError:
            self._leave_queue()
            with self._lock:
                tasks.remove(task)
            raise

    def close(self) -> None:
        """Runs the waiting tasks, then ends the threads."""
        self._threads.shutdown()

    def _run(self) -> None:
        task = self._next()
        self._leave_queue()
        self._count(working=1)
        try:
            task()
        finally:
            self._count(working=-1)

    def _next(self) -> Callable[[], None]:
        with self._lock:
            tenant, tasks = next((tenant, tasks) for tenant, tasks in self._tasks.items() if tasks)
            task = tasks.popleft()
            if tasks:
                self._tasks.move_to_end(tenant)
            else:
                del self._tasks[tenant]
            return task

    def _leave_queue(self) -> None:
        self._count(waiting=-1)
        if self._bound is not None:
            self._bound.release()

    def _count(self, *, waiting: int = 0, working: int = 0) -> None:
        with self._lock:
            self.waiting += waiting
            self.working += working
