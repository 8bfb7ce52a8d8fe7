"""Keyed thread pool: many small tasks that mostly wait, with a limit for each key: a slow key delays no other."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable

logger = logging.getLogger(__name__)


class KeyedPool:
    """Runs tasks on at most ``max_threads`` threads, ``max_threads_per_key`` for each key; waiting keys alternate.

    The threads are daemons: a process that ends does not wait for them.
    """

    def __init__(self, name: str, *, max_threads: int, max_threads_per_key: int) -> None:
        self._name = name
        self._max_threads = max_threads
        self._max_threads_per_key = max_threads_per_key
        self._waiting: OrderedDict[str, deque[tuple[str, Callable[[], object]]]] = OrderedDict()
        self._busy: dict[str, int] = {}
        self._task_ids: set[str] = set()
        self._changed = threading.Condition()

    def __contains__(self, task_id: str) -> bool:
        """Whether the task waits or runs."""
        with self._changed:
            return task_id in self._task_ids

    def add(self, key: str, task_id: str, task: Callable[[], object]) -> None:
        """Queues ``task`` under ``key``, unless ``task_id`` waits or runs already. If it raises, that is logged."""
        with self._changed:
            if task_id in self._task_ids:
                return
            self._task_ids.add(task_id)
            self._waiting.setdefault(key, deque()).append((task_id, task))
            if sum(self._busy.values()) < self._max_threads and self._busy.get(key, 0) < self._max_threads_per_key:
                self._busy[key] = self._busy.get(key, 0) + 1
                threading.Thread(target=self._run, args=(key,), name=f"{self._name}-{key}", daemon=True).start()

    def drop_waiting(self) -> None:
        """Drops the tasks that have not begun."""
        with self._changed:
            for queue in self._waiting.values():
                self._task_ids.difference_update(task_id for task_id, _ in queue)
            self._waiting.clear()
            self._changed.notify_all()

    def wait(self, timeout_s: float) -> bool:
        """Waits until no task waits or runs; False if one still does after ``timeout_s``."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._task_ids, timeout_s)

    def _run(self, key: str) -> None:
        """Runs tasks on one thread: first one of ``key``, then of any key below its limit, until none is left."""
        while (taken := self._next(key)) is not None:
            key, task_id, task = taken
            try:
                task()
            except Exception:
                logger.exception("%s: %s failed", self._name, task_id)
            finally:
                with self._changed:
                    self._task_ids.discard(task_id)
                    self._changed.notify_all()

    def _next(self, previous_key: str) -> tuple[str, str, Callable[[], object]] | None:
        with self._changed:
            self._busy[previous_key] -= 1
            if not self._busy[previous_key]:
                del self._busy[previous_key]
            for key, queue in self._waiting.items():
                if self._busy.get(key, 0) < self._max_threads_per_key:
                    task_id, task = queue.popleft()
                    self._waiting.move_to_end(key)
                    if not queue:
                        del self._waiting[key]
                    self._busy[key] = self._busy.get(key, 0) + 1
                    return key, task_id, task
            return None
