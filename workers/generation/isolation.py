"""Isolation: a chunk that was in hand when its worker died is made alone in its process.

A dead worker does not tell which of its chunks killed it. So a death with several in hand counts for none of them; they
are made one at a time, and a death then counts for the one that was alone.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from redis import Redis
from redis.exceptions import RedisError

from service.broker import redis_keys
from service.jobs.spec import JobSpec
from workers.runtime.leases import Leases
from workers.runtime.shutdown import Shutdown

logger = logging.getLogger(__name__)
_POLL_INTERVAL_S = 0.25
_ALONE, _BESIDE = "alone", "beside others"


class Isolation:
    """Keeps chunks that died with a worker apart from the others of this process. May be used from many threads."""

    def __init__(self, redis: Redis, leases: Leases, shutdown: Shutdown) -> None:
        self._redis = redis
        self._leases = leases
        self._shutdown = shutdown
        self._alone = self._waiting = self._beside = 0
        self._changed = threading.Condition()

    @contextmanager
    def room(self, spec: JobSpec, chunk: int) -> Iterator[bool | None]:
        """Waits until the chunk may be made beside what is in hand. Gives whether it is alone, or None at shutdown."""
        alone = self._died(spec.job, chunk)
        if alone:
            logger.info("job=%s chunk=%d was in hand when its worker died, and is made alone", spec.job, chunk)
        entered = self._enter(alone)
        try:
            yield alone if entered else None
        finally:
            if entered:
                with self._changed:
                    self._alone -= alone
                    self._beside -= not alone
                    self._changed.notify_all()

    @contextmanager
    def begun(self, spec: JobSpec, chunk: int, *, alone: bool) -> Iterator[None]:
        """Marks the claimed chunk as begun until the block ends, whichever way but by the death of this process."""
        key, field = redis_keys.attempts(spec.job), _field(chunk)
        try:
            self._redis.hset(key, field, _ALONE if alone else _BESIDE)
        except RedisError as error:
            logger.debug("job=%s chunk=%d not marked as begun: %s", spec.job, chunk, error)
        try:
            yield
        finally:
            try:
                self._redis.hdel(key, field)
            except RedisError as error:
                logger.debug("job=%s chunk=%d stays marked as begun: %s", spec.job, chunk, error)

    def _died(self, job: str, chunk: int) -> bool:
        """Whether an attempt began that has not ended and that no worker is at; takes it back if it was not alone."""
        key = redis_keys.attempts(job)
        try:
            mark = self._redis.hget(key, _field(chunk))
            if mark is None or chunk in self._leases.live(job):
                return False
            if mark == _BESIDE and self._redis.hdel(key, _field(chunk)):
                self._redis.hincrby(key, str(chunk), -1)
            return True
        except RedisError as error:
            logger.debug("no answer from Redis: %s", error)
            return False

    def _enter(self, alone: bool) -> bool:
        with self._changed:
            self._waiting += alone
            try:
                # others wait for one that has to be alone, or it would never be
                while self._alone or (self._beside if alone else self._waiting):
                    if self._shutdown.out_of_time:
                        return False
                    self._changed.wait(_POLL_INTERVAL_S)
                self._alone += alone
                self._beside += not alone
                return True
            finally:
                self._waiting -= alone
                self._changed.notify_all()


def _field(chunk: int) -> str:
    return f"{chunk}:begun"
