"""The sweeper: finds in the store what Redis, or a dead worker, let fall, and sends or ends it.

Every worker has one; a turn in Redis lets one at a time sweep. A pass costs what is alive, not what has ever been: ids
of jobs list newest first, so a pass looks at the head of the listing until it meets ids that it knows, takes one page
more of the rest (so that all of it comes by in time), and then tends the jobs it knows to be alive.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice

from service.broker.queues import QUEUES
from service.errors import StoreError, TwinsetError
from service.jobs.spec import JobSpec
from service.store import keys
from workers.generation.completion import end_if_cancelled, end_if_complete
from workers.generation.worker import Worker
from workers.runtime.periodic_task import PeriodicTask

logger = logging.getLogger(__name__)
_LEADER_LOCK = "twinset:sweeper"
_KNOWN_IN_A_ROW = 20
_MAX_NEW = 2000
_PAGE = 500
_IN_LONG_QUEUE_S = 120.0
"""Where the queue is too long to be read, a chunk sent is taken to wait in it for so long before it is sent a second
time, which costs no more than a message that is read and dropped."""


@dataclass
class _Alive:
    """A job without a summary. All chunks below ``frontier`` are recorded."""

    spec: JobSpec
    frontier: int = 0


@dataclass
class Sweeper(PeriodicTask):
    """Sweeps for ``worker``, in a thread of its own between :meth:`start` and :meth:`stop`."""

    worker: Worker
    _alive: dict[str, _Alive] = field(default_factory=dict)
    _ended: set[str] = field(default_factory=set)
    _page_after: str | None = None

    def __post_init__(self) -> None:
        # no longer than a lease, if it can be: a dead sweeper must not keep the others from what was in its worker's
        # hands
        settings = self.worker.settings
        interval_s = settings.sweep_interval_s
        super().__init__(
            self.worker.redis,
            _LEADER_LOCK,
            name="sweeper",
            lasts_s=max(settings.lease_s, 3 * interval_s),
            interval_s=interval_s,
        )

    def run_once(self) -> bool:
        """One pass; False if it is another worker's turn. Raises RedisError if nobody can tell."""
        if not self._leader_lock.take():
            return False
        self._find_jobs()
        queued = {priority: self.worker.dispatcher.queued(priority) for priority in QUEUES}
        for job, alive in list(self._alive.items()):
            if not self._should_continue():
                break
            try:
                if self._reconcile(alive, queued[alive.spec.priority]):
                    self._alive.pop(job)
                    self._ended.add(job)
            except TwinsetError as error:
                logger.warning("job=%s not tended: %s", job, error.detail)
                if isinstance(error, StoreError):
                    self.worker.live_state.publish_stalled(job, error.detail)
        return True

    def _find_jobs(self) -> None:
        known_in_a_row = 0
        for job in self.worker.repository.jobs(limit=_MAX_NEW):
            known_in_a_row = known_in_a_row + 1 if self._discover(job) else 0
            if known_in_a_row >= _KNOWN_IN_A_ROW:
                break
        page = list(self.worker.repository.jobs(start_after=self._page_after, limit=_PAGE))
        for job in page:
            self._discover(job)
        self._page_after = page[-1] if len(page) == _PAGE else None

    def _discover(self, job: str) -> bool:
        """Looks at a job unless it is known; True if it was."""
        if job in self._ended or job in self._alive:
            return True
        try:
            if self.worker.repository.read_summary(job) is not None:
                self._ended.add(job)
            else:
                self._alive[job] = _Alive(self.worker.repository.read_spec(job))
        except TwinsetError as error:
            # a folder without a spec is no job yet, or the store is having a bad moment: it comes by again
            logger.info("job=%s not met: %s", job, error.detail)
        return False

    def _reconcile(self, alive: _Alive, queued: set[tuple[str, int]] | None) -> bool:
        """Sends what is missing and nowhere, or ends the job; True if it has ended."""
        worker, spec = self.worker, alive.spec
        if worker.repository.read_summary(spec.job) is not None:
            return True
        if worker.repository.store.head(keys.job_spec(spec.job)) is None:
            # ended by another worker, and deleted since
            return True
        if worker.repository.is_cancelled(spec.job):
            return end_if_cancelled(worker, spec)
        busy = self._waiting(spec, queued)
        busy |= worker.leases.live(spec.job)
        missing = list(islice(self._missing(alive), worker.dispatcher.width + len(busy)))
        if not missing:
            return end_if_complete(worker, spec)
        busy &= set(missing) | {chunk for chunk in busy if chunk > missing[-1]}
        for chunk in [chunk for chunk in missing if chunk not in busy][: max(0, worker.dispatcher.width - len(busy))]:
            logger.info("job=%s chunk=%d is missing and nowhere at work; sending it", spec.job, chunk)
            if not worker.dispatcher.send(spec.job, chunk, spec.priority):
                break
        return False

    def _waiting(self, spec: JobSpec, queued: set[tuple[str, int]] | None) -> set[int]:
        """Chunks that wait in the queue, or were sent so short a time ago that they are on their way.

        What has left the queue and is not taken up within the life of a lease was dropped.
        """
        dispatcher = self.worker.dispatcher
        trusted_s = self.worker.settings.lease_s if queued is not None else _IN_LONG_QUEUE_S
        waiting = {chunk for job, chunk in queued or () if job == spec.job}
        waiting |= {chunk for chunk, age_s in dispatcher.waiting(spec.job).items() if age_s < trusted_s}
        if (datetime.now(UTC) - spec.created_at).total_seconds() < trusted_s:
            # the first ones were sent by the API, which notes nothing
            waiting |= self.worker.leases.never_taken(spec.job, range(min(dispatcher.width, spec.chunks)))
        return waiting

    def _missing(self, alive: _Alive) -> Iterator[int]:
        """Chunks without a record, in order, from the frontier on, which moves up on the way."""
        expected = alive.frontier
        contiguous = True
        for chunk, _ in self.worker.repository.recorded_chunks(alive.spec.job, start_at=alive.frontier):
            contiguous = contiguous and chunk == expected
            if contiguous:
                alive.frontier = chunk + 1
            yield from range(expected, chunk)
            expected = chunk + 1
        yield from range(expected, alive.spec.chunks)
