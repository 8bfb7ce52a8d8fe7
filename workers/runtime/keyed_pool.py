"""Lanes: many small pieces of work that mostly wait, on few threads, so that one slow lane does not hold up the
others."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable

logger = logging.getLogger(__name__)


class KeyedPool:
    """Runs work on at most ``most`` threads, ``width`` of them a lane; lanes with work waiting take turns.

    The threads are daemons: a process that ends does not wait for them.
    """

    def __init__(self, name: str, *, most: int, width: int) -> None:
        self._name = name
        self._most = most
        self._width = width
        self._waiting: OrderedDict[str, deque[tuple[str, Callable[[], None]]]] = OrderedDict()
        self._busy: dict[str, int] = {}
        self._keys: set[str] = set()
        self._changed = threading.Condition()

    def __contains__(self, key: str) -> bool:
        """Whether the work called ``key`` waits or runs."""
        with self._changed:
            return key in self._keys

    def add(self, lane: str, key: str, work: Callable[[], None]) -> None:
        """Has ``work`` done in its lane, unless there is such work already. What it raises is logged."""
        with self._changed:
            if key in self._keys:
                return
            self._keys.add(key)
            self._waiting.setdefault(lane, deque()).append((key, work))
            if sum(self._busy.values()) < self._most and self._busy.get(lane, 0) < self._width:
                self._busy[lane] = self._busy.get(lane, 0) + 1
                threading.Thread(target=self._run, args=(lane,), name=f"{self._name}-{lane}", daemon=True).start()

    def drop_waiting(self) -> None:
        """Forgets what has not begun."""
        with self._changed:
            for queue in self._waiting.values():
                self._keys.difference_update(key for key, _ in queue)
            self._waiting.clear()
            self._changed.notify_all()

    def wait(self, timeout_s: float) -> bool:
        """Waits until nothing waits or runs; False if something still does after ``timeout_s``."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._keys, timeout_s)

    def _run(self, lane: str) -> None:
        """One thread: a piece of work from its lane, the next from whichever lane's turn it is, until none may be
        taken."""
        while (taken := self._next(lane)) is not None:
            lane, key, work = taken
            try:
                work()
            except Exception:
                logger.exception("%s: %s failed", self._name, key)
            finally:
                with self._changed:
                    self._keys.discard(key)
                    self._changed.notify_all()

    def _next(self, before: str) -> tuple[str, str, Callable[[], None]] | None:
        with self._changed:
            self._busy[before] -= 1
            if not self._busy[before]:
                del self._busy[before]
            for lane, queue in self._waiting.items():
                if self._busy.get(lane, 0) < self._width:
                    key, work = queue.popleft()
                    self._waiting.move_to_end(lane)
                    if not queue:
                        del self._waiting[lane]
                    self._busy[lane] = self._busy.get(lane, 0) + 1
                    return lane, key, work
            return None
