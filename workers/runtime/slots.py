"""The slots of a worker process: what is in them, by tenant, and what it takes next.

Celery gives a process as many messages as it has slots. Were that all, a tenant whose chunks fill the slots would make
another's wait until one of them ends. So while the slots are full, a thread looks for work of tenants that hold less
than their equal part of them, and makes it beside the rest on threads of its own. Such threads mostly wait: for the
engine, which gives tenants equal parts of its batch, or for a child process. Once Celery's threads are free again they
take from the same lists, so the parts get equal and the additional threads end.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from redis.exceptions import RedisError

from service.broker.fair_queue import Flow, QueuedItem, TenantQueues

logger = logging.getLogger(__name__)
MAX_OVER = 4
"""A process holds at most so many times its slots."""
_LOOK_INTERVAL_S = 0.05
_PAUSE_AFTER_FAILURE_S = 2.0


class ProcessSlots:
    """The ``count`` slots of one process, and the work in them. May be used from many threads."""

    def __init__(self, queue: TenantQueues, count: int) -> None:
        self.queue = queue
        self.count = count
        self._held: Counter[Flow] = Counter()
        self._lock = threading.Lock()

    @property
    def in_use(self) -> int:
        """The number of chunks or runs in work."""
        return self._held.total()

    def holds(self, queue: str) -> bool:
        """Whether any work of the queue is in the slots."""
        with self._lock:
            return any(flow.queue == queue for flow in self._held)

    @contextmanager
    def next_item(self) -> Iterator[QueuedItem | None]:
        """What comes next, in a slot until the block ends; None if nothing waits, or Redis does not answer."""
        taken = None
        try:
            taken = self.take()
        except RedisError as error:
            logger.debug("no answer from Redis: %s", error)
        try:
            yield taken
        finally:
            if taken is not None:
                self.release(taken)

    def take(self, *, below_share: bool = False) -> QueuedItem | None:
        """What comes next, as :meth:`TenantQueues.take` says. Raises RedisError. :meth:`release` it at its end."""
        # one at a time, so that each sees what the others hold
        with self._lock:
            taken = self.queue.take(self._held, self.count, below_share=below_share)
            if taken is not None:
                self._held[taken.flow] += 1
            return taken

    def release(self, taken: QueuedItem) -> None:
        """Frees the slot of what was taken."""
        with self._lock:
            self._held[taken.flow] -= 1
            if not self._held[taken.flow]:
                del self._held[taken.flow]


class ExtraThreads:
    """Makes work of tenants below their share while the ``slots`` are full: ``work`` gets its name.

    ``should_stop``: no more is begun once it is true.
    """

    def __init__(
        self, name: str, slots: ProcessSlots, work: Callable[[str], object], should_stop: Callable[[], bool]
    ) -> None:
        self._name = name
        self._slots = slots
        self._work = work
        self._should_stop = should_stop
        self._ended = threading.Event()
        self._running: set[threading.Thread] = set()
        self._looking = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Starts to look for work."""
        self._looking.start()

    def stop(self) -> None:
        """Begins no more, and waits for what is in work; it must see for itself that it has to stop."""
        self._ended.set()
        self._looking.join()
        for thread in list(self._running):
            thread.join()

    def look(self) -> bool:
        """Begins one more if there is one to begin. Raises RedisError."""
        slots = self._slots
        if self._should_stop() or not slots.count <= slots.in_use < MAX_OVER * slots.count:
            return False
        taken = slots.take(below_share=True)
        if taken is None:
            return False
        thread = threading.Thread(target=self._make, args=(taken,), name=f"{self._name}-{taken.name}", daemon=True)
        self._running.add(thread)
        thread.start()
        return True

    def _make(self, taken: QueuedItem) -> None:
        try:
            self._work(taken.name)
        except Exception:
            logger.exception("%s failed", taken.name)
        finally:
            self._slots.release(taken)
            self._running.discard(threading.current_thread())

    def _run(self) -> None:
        pause_s = _LOOK_INTERVAL_S
        while not self._ended.wait(pause_s):
            try:
                while not self._ended.is_set() and self.look():
                    pass
                pause_s = _LOOK_INTERVAL_S
            except RedisError as error:
                logger.debug("no answer from Redis: %s", error)
                pause_s = _PAUSE_AFTER_FAILURE_S
