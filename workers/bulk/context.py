"""The interface of run handlers: the context they get, and the ways in which they end."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import RedisError

from service.broker import redis_keys
from service.kit.states import JobState
from service.runs.progress import publish_progress
from service.runs.spec import RunSpec
from workers.bulk.worker import BulkWorker
from workers.runtime.lease_renewal import RenewedLease

_POLL_INTERVAL_S = 2.0
_REPORT_INTERVAL_S = 0.5


class RunReleased(Exception):
    """The handler must stop here: the run is cancelled, or another worker is to continue it."""

    def __init__(self, cancelled: bool) -> None:
        super().__init__("cancelled" if cancelled else "released for another worker")
        self.cancelled = cancelled


@dataclass(frozen=True)
class Finished:
    """The end of a run. ``size`` is what it keeps in the store, in bytes."""

    state: JobState
    done: int
    total: int | None = None
    reason: str | None = None
    size: int = 0
    result: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RetryLater:
    """Nothing can be done for now: any worker may continue the run in ``after_s`` seconds."""

    after_s: float


@dataclass
class RunContext:
    """A run that this worker executes, with its renewed lease."""

    worker: BulkWorker
    spec: RunSpec
    lease: RenewedLease
    _checked_at: float = field(default_factory=time.monotonic)
    _reported_at: float = float("-inf")
    _reported: bool = False

    def check(self) -> None:
        """Renews the lease's heartbeat. Raises :class:`RunReleased` if the handler must stop; call it at every item."""
        if self.worker.shutdown.requested or not self.lease.heartbeat():
            raise RunReleased(cancelled=False)
        now = time.monotonic()
        if now - self._checked_at >= _POLL_INTERVAL_S:
            self._checked_at = now
            if self.is_cancelled():
                raise RunReleased(cancelled=True)

    def is_cancelled(self) -> bool:
        """Whether the run is cancelled or deleted."""
        runs = self.worker.runs
        return runs.is_cancelled(self.spec.run) or runs.is_deleted(self.spec.run)

    def should_stop(self) -> bool:
        """Whether :meth:`check` raises: the same without an exception."""
        try:
            self.check()
        except RunReleased:
            return True
        return False

    def forget_attempts(self) -> None:
        """Forgets the attempts so far: the run has come further, so what ended them does not hold it up."""
        with suppress(RedisError):
            self.worker.redis.delete(redis_keys.run_attempts(self.spec.run), redis_keys.run_error(self.spec.run))

    def report_progress(self, done: int, total: int | None, note: str = "") -> bool:
        """Publishes the run's progress, at most twice a second. Returns whether it did."""
        now = time.monotonic()
        if now - self._reported_at < _REPORT_INTERVAL_S and self._reported:
            return False
        self._reported_at = now
        publish_progress(self.worker.live_state, self.spec.run, done, total, note=note)
        self._reported = True
        return True


def cancel_keeping_nothing(context: RunContext) -> Finished:
    """The end of a cancelled run that keeps nothing."""
    return Finished(JobState.CANCELLED, done=0, reason="cancelled")


@dataclass(frozen=True)
class RunHandler:
    """The code for one kind of run: ``handle`` executes it, ``on_cancel`` ends one that is cancelled.

    ``handle`` may raise :class:`RunReleased`, a store's error, or a TwinsetError that ends the run as failed.
    """

    handle: Callable[[RunContext], Finished | RetryLater]
    on_cancel: Callable[[RunContext], Finished] = cancel_keeping_nothing
    isolated: bool = False
    """Whether child processes do the work, so that the death of this process says nothing of the run."""
