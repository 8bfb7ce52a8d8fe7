"""Periodic tasks: work that every worker could do and one at a time does, again and again."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from redis import Redis
from redis.exceptions import RedisError

from service.errors import TwinsetError
from workers.runtime.leader_lock import LeaderLock

logger = logging.getLogger(__name__)

_REPEAT_WARNING_AFTER_S = 60.0
_MAX_REPORTED = 1000


class PeriodicTask(ABC):
    """A task that calls :meth:`run_once` on a thread of its own between :meth:`start` and :meth:`stop`.

    A run that fails is logged and the next one comes all the same. While the reason stays the same it is logged once a
    minute, so that an outage of the broker does not fill a disk. Every worker starts the task; a leader lock lets one
    worker at a time run it.
    """

    def __init__(self, redis: Redis, lock_key: str, *, name: str, ttl_s: float, interval_s: float) -> None:
        """``lock_key`` and ``ttl_s``: the leader lock; if its holder dies, another worker leads after ``ttl_s``.

        ``name``: of the task, in its thread's name and in log lines.
        """
        self._leader_lock = LeaderLock(redis, lock_key, ttl_s=ttl_s)
        self._name = name
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._reported: dict[str, tuple[str, float]] = {}

    @abstractmethod
    def run_once(self) -> bool:
        """Runs the task once; False if another worker leads. Raises RedisError if Redis fails, or a store's error."""

    @property
    def pause_s(self) -> float:
        """Seconds between two runs."""
        return self._interval_s

    def start(self) -> None:
        """Starts the thread; the first run comes at once."""
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after the step it is in."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _should_continue(self) -> bool:
        """Whether a run may go on with its next step: the task is not stopped, and this worker still leads."""
        return not self._stop.is_set() and (self._leader_lock.is_ours or self._leader_lock.acquire())

    @contextmanager
    def _contained(self, subject: str, what: str) -> Iterator[None]:
        """Logs what goes wrong with one job or run, so that it stops none of the others; Redis' errors are raised."""
        try:
            yield
        except RedisError:
            raise
        except Exception as error:
            reason = error.detail if isinstance(error, TwinsetError) else f"{type(error).__name__}: {error}"
            reported, at = self._reported.get(subject, ("", 0.0))
            if reason == reported and time.monotonic() - at < _REPEAT_WARNING_AFTER_S:
                return
            self._reported[subject] = (reason, time.monotonic())
            while len(self._reported) > _MAX_REPORTED:
                self._reported.pop(next(iter(self._reported)))
            logger.warning("%s not %s: %s", subject, what, reason, exc_info=not isinstance(error, TwinsetError))

    def _run(self) -> None:
        failure, logged_at = "", 0.0
        while not self._stop.is_set():
            try:
                self.run_once()
                if failure:
                    logger.info("the %s runs again", self._name)
                failure = ""
            except (RedisError, TwinsetError) as error:
                reason = str(error) or type(error).__name__
                if reason != failure or time.monotonic() - logged_at > _REPEAT_WARNING_AFTER_S:
                    logger.warning("the %s cannot run: %s", self._name, reason)
                    failure, logged_at = reason, time.monotonic()
            except Exception:
                logger.exception("the %s failed", self._name)
            self._stop.wait(self.pause_s)
        self._leader_lock.release()
