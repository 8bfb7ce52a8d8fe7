"""The sweeper: requeues chunks that Redis or a dead worker lost, and ends jobs that no worker ended.

Every worker starts one; a leader lock in Redis lets one at a time sweep. A sweep costs what the open jobs cost, not all
jobs ever (:mod:`service.jobs.job_search`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice

from service.broker import redis_keys
from service.errors import RecordUnreadable, StoreError, UnknownJob
from service.jobs.chunk_records import Unreadable, replacement_number
from service.jobs.job_search import JobSearch
from service.jobs.spec import JobSpec
from service.store import keys
from workers.generation.worker import Worker
from workers.runtime.alternating import alternating
from workers.runtime.periodic_task import PeriodicTask

logger = logging.getLogger(__name__)
_LEADER_LOCK = redis_keys.leader("chunk-sweeper")
_MAX_SWEEP_S = 10.0
"""A sweep ends after so long; the next one goes on with the jobs that it did not come to."""
_READ_AGAIN_AFTER_S = 20.0
"""A job whose record could not be read is looked at again after so long."""


@dataclass
class _OpenJob:
    """A job without a summary. All chunks below ``frontier`` are recorded; ``unreadable``: in records that are made
    again because they cannot be read."""

    spec: JobSpec
    frontier: int = 0
    unreadable: set[int] = field(default_factory=set)


@dataclass
class Sweeper(PeriodicTask):
    """The periodic sweep of chunks and jobs, with the parts of ``worker``."""

    worker: Worker
    _open: dict[str, _OpenJob] = field(default_factory=dict)
    _ended: set[str] = field(default_factory=set)
    _unreadable: dict[str, float] = field(default_factory=dict)
    _in_lists: set[str] | None = None

    def __post_init__(self) -> None:
        self._search = JobSearch(self.worker.repository, self._is_known)
        # no longer than a lease, if possible: after a worker's death its chunks are requeued as soon as their leases
        # expire
        settings = self.worker.settings
        interval_s = settings.sweep_interval_s
        super().__init__(
            self.worker.redis,
            _LEADER_LOCK,
            name="sweeper",
            ttl_s=max(settings.lease_s, 3 * interval_s),
            interval_s=interval_s,
        )

    def run_once(self) -> bool:
        """Sweeps once; False if another worker leads. Raises RedisError if Redis fails."""
        self.worker.fleet.announce()
        if not self._leader_lock.acquire():
            return False
        self.worker.dispatcher.replace_lost_messages()
        for job in self._search.unknown():
            self._discover(job)
        began = time.monotonic()
        # one of each tenant in turn, those first that were reconciled longest ago: nobody's thousands of jobs make
        # another's lost chunk wait
        for open_job in alternating(list(self._open.values()), lambda open_job: open_job.spec.tenant):
            if not self._should_continue() or time.monotonic() - began > _MAX_SWEEP_S:
                break
            job = open_job.spec.job
            self._open[job] = self._open.pop(job)
            with self._contained(f"job={job}", "reconciled"):
                try:
                    if self._reconcile(open_job):
                        self._open.pop(job)
                        self._ended.add(job)
                except StoreError as error:
                    self.worker.live_state.publish_stalled(job, error.detail)
                    raise
        return True

    def _is_known(self, job: str) -> bool:
        return job in self._ended or job in self._open or self._unreadable.get(job, 0.0) > time.monotonic()

    def _discover(self, job: str) -> None:
        """Adds the job to the open or the ended ones."""
        repository = self.worker.repository
        with self._contained(f"job={job}", "read"):
            try:
                spec = None if job in self._listed() else self._list(job)
                if repository.read_summary(job) is not None:
                    self._ended.add(job)
                else:
                    self._open[job] = _OpenJob(spec or repository.read_spec(job))
                self._unreadable.pop(job, None)
            except UnknownJob as error:
                # the spec is not written yet, or the job is being deleted
                logger.info("job=%s not read: %s", job, error.detail)
            except RecordUnreadable:
                # it may be restored, or this worker be the older one of an upgrade
                self._unreadable[job] = time.monotonic() + _READ_AGAIN_AFTER_S
                raise

    def _listed(self) -> set[str]:
        """The jobs that were in their tenants' lists when this sweeper began."""
        if self._in_lists is None:
            usage = self.worker.repository.usage
            self._in_lists = {job for tenant in list(usage.tenants()) for job in usage.jobs(tenant)}
        return self._in_lists

    def _list(self, job: str) -> JobSpec:
        """Lists the job among its tenant's, if it is not: earlier versions had no list of the default tenant's jobs."""
        spec = self.worker.repository.read_spec(job)
        if not self.worker.repository.usage.lists_job(job, spec.tenant):
            self.worker.repository.usage.add_job(job, spec.tenant)
        return spec

    def _reconcile(self, open_job: _OpenJob) -> bool:
        """Sends the chunks that are missing and neither queued nor leased, or ends the job; True if it has ended."""
        worker, spec = self.worker, open_job.spec
        if worker.repository.read_summary(spec.job) is not None:
            return True
        if worker.repository.store.head(keys.job_spec(spec.job)) is None:
            # another worker ended it, and it has been deleted since
            return True
        if worker.repository.is_cancelled(spec.job):
            return worker.completion.end_if_cancelled(spec)
        busy = self._in_transit(spec) | worker.leases.live(spec.job)
        at_once = 2 * worker.dispatcher.max_in_flight + len(busy)
        missing = list(islice(self._missing(open_job), at_once)) or list(islice(self._unreadable_in(open_job), at_once))
        if not missing:
            if worker.completion.end_if_complete(spec):
                return True
            return self._find_unreadable(open_job)
        busy |= worker.dispatcher.queued(spec, missing)
        busy &= set(missing) | {chunk for chunk in busy if chunk > missing[-1]}
        for chunk in [chunk for chunk in missing if chunk not in busy][
            : max(0, worker.dispatcher.max_in_flight - len(busy))
        ]:
            logger.info("job=%s chunk=%d is neither recorded, queued nor leased; sending it", spec.job, chunk)
            if not worker.dispatcher.send(spec, chunk):
                break
        return False

    def _in_transit(self, spec: JobSpec) -> set[int]:
        """Chunks that were sent so recently that they may be on their way to a worker, or into its hands.

        A chunk that has left the queue and that no worker receives within the life of a lease was lost. So was one sent
        in the future: the clock was set back since.
        """
        dispatcher, trusted_s = self.worker.dispatcher, self.worker.settings.lease_s
        sent = {chunk for chunk, age_s in dispatcher.waiting(spec.job).items() if abs(age_s) < trusted_s}
        if abs((datetime.now(UTC) - spec.created_at).total_seconds()) < trusted_s:
            # the API sent the first ones, and does not record it
            sent |= self.worker.leases.never_taken(spec.job, range(min(dispatcher.max_in_flight, spec.chunks)))
        return sent

    def _find_unreadable(self, open_job: _OpenJob) -> bool:
        """Finds the records that cannot be read, of a job that lacks none, so that the next sweep sends their chunks.

        Each is made again once: a job whose new records cannot be read either ends with the others; True if it has.
        Workers of a newer version that receive such a chunk can read its record, and end the job.
        """
        spec, chunks = open_job.spec, self.worker.repository.chunks
        recorded, unreadable = dict(chunks.recorded(spec.job)), Unreadable()
        for _ in chunks.read_all(recorded.items(), unreadable):
            pass
        again = [chunk for chunk in unreadable if replacement_number(recorded[chunk].key) is None]
        for chunk in again:
            logger.warning("job=%s chunk=%d is made again: %s", spec.job, chunk, unreadable[chunk].detail)
        open_job.unreadable.update(again)
        if unreadable and not again:
            self.worker.completion.end_with_what_can_be_read(spec)
            return True
        return False

    def _unreadable_in(self, open_job: _OpenJob) -> Iterator[int]:
        """The chunks whose records could not be read and have not been replaced, in order."""
        for chunk in sorted(open_job.unreadable):
            if self.worker.repository.chunks.is_recorded(open_job.spec.job, chunk):
                open_job.unreadable.discard(chunk)
            else:
                yield chunk

    def _missing(self, open_job: _OpenJob) -> Iterator[int]:
        """Chunks without a record, in order, from the frontier on; advances the frontier."""
        expected = open_job.frontier
        contiguous = True
        for chunk, _ in self.worker.repository.chunks.recorded(open_job.spec.job, start_at=open_job.frontier):
            contiguous = contiguous and chunk == expected
            if contiguous:
                open_job.frontier = chunk + 1
            yield from range(expected, chunk)
            expected = chunk + 1
        yield from range(expected, open_job.spec.chunks)
