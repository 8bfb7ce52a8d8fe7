"""Keyed thread pool: many small tasks that mostly wait, in lanes. A slow key delays no other, and no lane another."""

from __future__ import annotations

import logging
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable

logger = logging.getLogger(__name__)
Task = Callable[[], object]
_Key = tuple[str, str]


class KeyedPool:
    """Runs tasks on at most ``max_threads`` threads, ``max_threads_per_key`` for each key of a lane.

    A lane gets no further thread once it has as many as are free, so that some always are for another lane: one lane
    has half of them at most, two a third each. Lanes that wait alternate, and so do the keys of a lane. The threads are
    daemons: a process that ends does not wait for them.
    """

    def __init__(
        self, name: str, *, max_threads: int, max_threads_per_key: int, max_waiting_per_lane: int = 1000
    ) -> None:
        self._name = name
        self._max_threads = max_threads
        self._max_threads_per_key = max_threads_per_key
        self._max_waiting_per_lane = max_waiting_per_lane
        self._waiting: OrderedDict[str, OrderedDict[_Key, deque[tuple[str, Task]]]] = OrderedDict()
        self._busy: Counter[str] = Counter()
        self._busy_keys: Counter[_Key] = Counter()
        self._task_ids: set[str] = set()
        self._changed = threading.Condition()

    def __contains__(self, task_id: str) -> bool:
        """Whether the task waits or runs."""
        with self._changed:
            return task_id in self._task_ids

    def add(self, lane: str, key: str, task_id: str, task: Task) -> bool:
        """Queues ``task`` under ``key`` of ``lane``, unless ``task_id`` waits or runs already. Errors are logged.

        False if too many tasks of the lane wait.
        """
        with self._changed:
            if task_id in self._task_ids:
                return True
            keys = self._waiting.get(lane, OrderedDict())
            if sum(map(len, keys.values())) >= self._max_waiting_per_lane:
                return False
            self._task_ids.add(task_id)
            self._waiting.setdefault(lane, keys).setdefault((lane, key), deque()).append((task_id, task))
            if self._may_start((lane, key)):
                self._count((lane, key), 1)
                threading.Thread(target=self._run, args=((lane, key),), name=f"{self._name}-{key}", daemon=True).start()
            return True

    def drop_waiting(self) -> None:
        """Drops the tasks that have not begun."""
        with self._changed:
            for keys in self._waiting.values():
                for queue in keys.values():
                    self._task_ids.difference_update(task_id for task_id, _ in queue)
            self._waiting.clear()
            self._changed.notify_all()

    def wait(self, timeout_s: float) -> bool:
        """Waits until no task waits or runs; False if one still does after ``timeout_s``."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._task_ids, timeout_s)

    def _run(self, key: _Key) -> None:
        """Runs tasks on one thread, until there is none that may start."""
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

    def _next(self, previous: _Key) -> tuple[_Key, str, Task] | None:
        with self._changed:
            self._count(previous, -1)
            for lane, keys in self._waiting.items():
                for key, queue in keys.items():
                    if not self._may_start(key):
                        continue
                    task_id, task = queue.popleft()
                    keys.move_to_end(key)
                    self._waiting.move_to_end(lane)
                    if not queue:
                        del keys[key]
                    if not keys:
                        del self._waiting[lane]
                    self._count(key, 1)
                    return key, task_id, task
            return None

    def _may_start(self, key: _Key) -> bool:
        free = self._max_threads - self._busy.total()
        return free > 0 and self._busy[key[0]] < free and self._busy_keys[key] < self._max_threads_per_key

    def _count(self, key: _Key, change: int) -> None:
        self._busy[key[0]] += change
        self._busy_keys[key] += change
        # without those that have none
        self._busy, self._busy_keys = +self._busy, +self._busy_keys
