"""Claims: a worker's hold on one chunk, from the lease to the record, behind one object.

    with claims.claim(spec, chunk) as claim:
        claim.heartbeat()           # now and then; raises Released when the work must stop
        claim.report_steps(12.5)    # progress, in samples' worth of steps
        claim.commit(record)        # the chunk has happened

Crash safety depends on the order of the store's and Redis's operations, which is kept here:

1. The lease is taken before anything is written, and renewed until the claim ends.
2. The start mark is written before the cancel is looked for. A client that cancels writes the cancel first and looks
   for the mark then, so that at least one of the two sees the other.
3. The attempt is counted before the work, so that a chunk which kills its worker is counted too.
4. At the commit the lease is confirmed, then the record is written, then the lease is released, and only then is
   progress published. The caller sends the job's next chunk last.
5. A claim that ends without a record takes the attempt back if the chunk was not at fault. At shutdown, and when it is
   left to another worker, the lease is released before the chunk is sent again, so that the next worker does not find
   it leased.

Below are the parts: :mod:`workers.runtime.leases` and :mod:`~workers.runtime.lease_renewal`,
:mod:`workers.generation.start_marks`, :mod:`~workers.generation.dispatch` and :mod:`~workers.generation.progress`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto

from service.broker.live_state import LiveState
from service.jobs.quotas import count_stored
from service.jobs.repository import JobRepository
from service.jobs.spec import ChunkRecord, JobSpec
from workers.generation.dispatch import ChunkDispatcher
from workers.generation.progress import ProgressPublisher
from workers.generation.start_marks import StartMarks
from workers.runtime.lease_renewal import LeaseRenewer, RenewedLease
from workers.runtime.leases import Leases
from workers.runtime.shutdown import Shutdown

_STORE_POLL_INTERVAL_S = 5.0


class Released(Exception):
    """A claim ends without a record, for a reason that is not the chunk's fault."""


class LeasedElsewhere(Released):
    """Another worker holds the chunk's lease; nothing was claimed."""


class LeaseLost(Released):
    """Another worker has taken the chunk's lease."""


class JobCancelled(Released):
    """The job is cancelled."""


class ShuttingDown(Released):
    """The worker's grace time is over; the chunk is requeued as the claim ends."""


class LeftToAnother(Released):
    """This worker cannot make the chunk and another may; the chunk is requeued as the claim ends."""


class CommitResult(Enum):
    """The result of a commit."""

    RECORDED = auto()
    LEASE_LOST = auto()
    JOB_ENDED = auto()
    RECORDED_BEFORE = auto()


@dataclass(frozen=True)
class Claims:
    """Claims chunks for one worker process. May be used from many threads."""

    repository: JobRepository
    live_state: LiveState
    leases: Leases
    renewer: LeaseRenewer
    dispatcher: ChunkDispatcher
    start_marks: StartMarks
    progress: ProgressPublisher
    shutdown: Shutdown

    @contextmanager
    def claim(self, spec: JobSpec, chunk: int) -> Iterator[Claim]:
        """Claims the chunk until the block ends.

        Raises :class:`LeasedElsewhere` and :class:`JobCancelled` instead of running the block, and a store's error.
        """
        self.progress.publish_started(spec)
        lease = self.leases.take(spec.job, chunk)
        if lease is None:
            raise LeasedElsewhere
        try:
            with self.renewer.renewing(lease) as renewed:
                # first the mark, then the look: a client that cancels writes the cancel, then looks for the mark
                self.start_marks.mark(spec.job)
                if self.repository.is_cancelled(spec.job):
                    raise JobCancelled
                claim = Claim(self, spec, chunk, renewed, self.dispatcher.begin_attempt(spec.job, chunk))
                try:
                    yield claim
                except Released as reason:
                    claim.cancel_attempt()
                    if isinstance(reason, ShuttingDown | LeftToAnother):
                        self.renewer.release(renewed)
                        self.dispatcher.send(spec, chunk)
                    raise
        finally:
            self.progress.publish_left(spec, chunk)

    def close(self) -> None:
        """Ends the renewal of leases. Call it when no claim is left."""
        self.renewer.close()


@dataclass
class Claim:
    """One worker's claim on one chunk. ``attempt``: its number among the attempts at this chunk, from 1."""

    _claims: Claims
    spec: JobSpec
    chunk: int
    _lease: RenewedLease
    attempt: int
    _asked_store_at: float = field(default_factory=time.monotonic)

    @property
    def epoch(self) -> int:
        """The fencing epoch of the lease; 0 if Redis did not answer."""
        return self._lease.lease.epoch

    def heartbeat(self) -> None:
        """Records that the work goes on. Raises :class:`Released` when it must stop."""
        claims, job = self._claims, self.spec.job
        now = time.monotonic()
        if claims.shutdown.out_of_time:
            raise ShuttingDown
        if not self._lease.heartbeat():
            raise LeaseLost
        cancelled = claims.live_state.is_cancel_flagged(job)
        if not cancelled and now - self._asked_store_at >= _STORE_POLL_INTERVAL_S:
            self._asked_store_at = now
            cancelled = claims.repository.is_cancelled(job)
        if cancelled:
            raise JobCancelled

    def report_steps(self, samples: float) -> None:
        """Publishes how far the chunk is, in samples' worth of steps."""
        self._claims.progress.publish_steps(self.spec, self.chunk, samples)

    def commit(self, record: ChunkRecord) -> CommitResult:
        """Writes the record, releases the lease and publishes the progress, unless the chunk is no longer ours.

        Objects of an attempt that does not count stay; the garbage collector removes them. Raises a store's error.
        """
        claims, spec = self._claims, self.spec
        if not claims.leases.renew(self._lease.lease):
            return CommitResult.LEASE_LOST
        if claims.repository.read_summary(spec.job) is not None:
            return CommitResult.JOB_ENDED
        first = claims.repository.chunks.write(record)
        if not first:
            return CommitResult.RECORDED_BEFORE
        claims.renewer.release(self._lease)
        claims.live_state.clear_stalled(spec.job)
        claims.progress.publish_recorded(spec, self.chunk, len(record.items))
        count_stored(claims.live_state, spec, record)
        if record.failed:
            self.record_error(next(item.error for item in record.items if item.error) or "")
        return CommitResult.RECORDED

    def cancel_attempt(self) -> None:
        """Takes the attempt back, which ended through no fault of the chunk."""
        self._claims.dispatcher.cancel_attempt(self.spec.job, self.chunk)

    def record_error(self, reason: str) -> None:
        """Keeps the reason why the attempt failed, for :attr:`last_error` of a later one."""
        self._claims.dispatcher.record_error(self.spec.job, self.chunk, reason)

    @property
    def last_error(self) -> str | None:
        """The reason why the last attempt failed; None if it is not known."""
        return self._claims.dispatcher.last_error(self.spec.job, self.chunk)
