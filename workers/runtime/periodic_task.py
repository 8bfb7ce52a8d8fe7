"""Passes over what there is to tend, again and again, by one worker at a time."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod

from redis import Redis
from redis.exceptions import RedisError

from service.errors import TwinsetError
from workers.runtime.leader_lock import LeaderLock

logger = logging.getLogger(__name__)

_SAID_AGAIN_AFTER_S = 60.0


class PeriodicTask(ABC):
    """A thread of its own between :meth:`start` and :meth:`stop`. A pass that fails is logged, and the next one comes
    all the same; while the reason stays the same it is said once a minute, so that a broker's outage does not fill a
    disk.

    Every worker has one of a kind; a turn in Redis lets one at a time make them.
    """

    def __init__(self, redis: Redis, turn: str, *, name: str, lasts_s: float, interval_s: float) -> None:
        """``turn`` is the turn's key, which another may have ``lasts_s`` after its holder was last heard of; ``name``
        the thread's."""
        self._leader_lock = LeaderLock(redis, turn, lasts_s=lasts_s)
        self._name = name
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @abstractmethod
    def run_once(self) -> bool:
        """One pass; False if it is another worker's turn. Raises RedisError if nobody can tell, or a store's error."""

    @property
    def pause_s(self) -> float:
        """Seconds from a pass to the next."""
        return self._interval_s

    def start(self) -> None:
        """Starts the thread; the first pass comes at once."""
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after what it is at."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _should_continue(self) -> bool:
        """Whether a pass may go on to what comes next: not stopped, and the turn still ours."""
        return not self._stop.is_set() and (self._leader_lock.is_ours or self._leader_lock.take())

    def _run(self) -> None:
        failure, said_at = "", 0.0
        while not self._stop.is_set():
            try:
                self.run_once()
                if failure:
                    logger.info("the %s makes its passes again", self._name)
                failure = ""
            except (RedisError, TwinsetError) as error:
                what = str(error) or type(error).__name__
                if what != failure or time.monotonic() - said_at > _SAID_AGAIN_AFTER_S:
                    logger.warning("no pass of the %s: %s", self._name, what)
                    failure, said_at = what, time.monotonic()
            except Exception:
                logger.exception("a pass of the %s failed", self._name)
            self._stop.wait(self.pause_s)
        self._leader_lock.give_back()
