"""A run in a worker's hands: what its kind's code sees of the world, and how it ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from service.kit.states import JobState
from service.runs.progress import publish_progress
from service.runs.spec import RunSpec
from workers.bulk.worker import BulkWorker
from workers.runtime.lease_renewal import RenewedLease

_POLL_INTERVAL_S = 2.0
_REPORT_INTERVAL_S = 0.5


class Released(Exception):
    """The run is to be put down as it is: cancelled, or for another worker to take up."""

    def __init__(self, cancelled: bool) -> None:
        super().__init__("cancelled" if cancelled else "to be taken up by another worker")
        self.cancelled = cancelled


@dataclass(frozen=True)
class Finished:
    """How a run ended. ``size`` is what it keeps in the store, in bytes."""

    state: JobState
    done: int
    total: int | None = None
    reason: str | None = None
    size: int = 0
    result: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RetryLater:
    """Nothing can be done for now: the run is to be taken up again in so many seconds, by whoever."""

    after_s: float


@dataclass
class RunContext:
    """A run under a lease."""

    worker: BulkWorker
    spec: RunSpec
    kept: RenewedLease
    _looked_at: float = field(default_factory=time.monotonic)
    _said_at: float = float("-inf")
    _began: bool = False

    def look(self) -> None:
        """Says that work goes on. Raises :class:`Released` once it is no longer wanted here; to be called at every
        item."""
        if self.worker.shutdown.asked or not self.kept.heartbeat():
            raise Released(cancelled=False)
        now = time.monotonic()
        if now - self._looked_at >= _POLL_INTERVAL_S:
            self._looked_at = now
            if self.is_cancelled():
                raise Released(cancelled=True)

    def is_cancelled(self) -> bool:
        """Whether the run is cancelled, or deleted."""
        runs = self.worker.runs
        return runs.is_cancelled(self.spec.run) or runs.is_deleted(self.spec.run)

    def should_stop(self) -> bool:
        """:meth:`look` for those who do not want its exception: True where it would raise it."""
        try:
            self.look()
        except Released:
            return True
        return False

    def say(self, done: int, total: int | None, note: str = "") -> bool:
        """Lets readers know how far the run is, a few times a second at most; whether it did."""
        now = time.monotonic()
        if now - self._said_at < _REPORT_INTERVAL_S and self._began:
            return False
        self._said_at = now
        publish_progress(self.worker.live_state, self.spec.run, done, total, note=note)
        self._began = True
        return True


def nothing_kept(work: RunContext) -> Finished:
    """The end of a cancelled run of which nothing is kept."""
    return Finished(JobState.CANCELLED, done=0, reason="cancelled")


@dataclass(frozen=True)
class RunHandler:
    """What carries out a kind of run, and what ends one that is cancelled.

    ``carry`` may raise :class:`Released`, a store's error, or a TwinsetError that ends the run as failed.
    """

    carry: Callable[[RunContext], Finished | RetryLater]
    when_cancelled: Callable[[RunContext], Finished] = nothing_kept
