"""The deleter: removes what was deleted, what has grown too old, and what the killed left lying about.

Every worker has one; a turn in Redis lets one at a time delete. What is deleted the notes in the store say, so a pass
costs one listing of these while there is nothing to do. Once a minute it also takes up a page of old jobs: ids of jobs
list newest first, so those older than ``TWINSET_JOB_RETENTION_DAYS`` are the end of the listing. And a page of all that
is older than a day, looked through for leftovers; after the last page that begins again the next day. A pass does a
bounded amount of work, and what a store that fails leaves undone is for the next.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from service.augmentations.rounds import set_of_key
from service.errors import TwinsetError, UnknownJob, UnknownRun
from service.jobs.garbage import is_leftover, remove_job, remove_strays
from service.jobs.quotas import forget_stored
from service.jobs.spec import JobSpec
from service.kit.run_kinds import RunKind
from service.kit.states import JobState
from service.runs.repository import RunRepository
from service.store.folder import FolderStore
from workers.generation.worker import Worker
from workers.runtime.paging import OldestFirstPages, utc_now
from workers.runtime.periodic_task import PeriodicTask

logger = logging.getLogger(__name__)
_LEADER_LOCK = "twinset:deleter"
_POLL_INTERVAL_S = 60.0
_PAGE = 100
_MAX_OBJECTS = 2000
_MAX_JOBS = 100
LEFT_AFTER = timedelta(days=1)
"""What is as old as this and belongs to nothing has lost its writer: no request and no chunk takes so long."""


@dataclass
class Deleter(PeriodicTask):
    """Deletes for ``worker``, in a thread of its own between :meth:`start` and :meth:`stop`."""

    worker: Worker
    now: Callable[[], datetime] = utc_now
    poll_interval_s: float = _POLL_INTERVAL_S
    max_objects: int = _MAX_OBJECTS
    page: int = _PAGE
    _looked_at: float = float("-inf")
    _tidied_at: datetime | None = None

    def __post_init__(self) -> None:
        interval_s = self.worker.settings.sweep_interval_s
        super().__init__(
            self.worker.redis, _LEADER_LOCK, name="deleter", lasts_s=max(30.0, 3 * interval_s), interval_s=interval_s
        )
        self._ended, self._left = (OldestFirstPages(self.worker.repository.jobs, self.page, "j") for _ in range(2))

    def run_once(self) -> bool:
        """One pass; False if it is another worker's turn. Raises RedisError if nobody can tell, or a store's error."""
        if not self._leader_lock.take():
            return False
        if time.monotonic() - self._looked_at >= self.poll_interval_s:
            self._looked_at = time.monotonic()
            self._find_expired()
            self._tidy()
        self._remove_noted()
        return True

    def _remove_noted(self) -> None:
        """Removes objects of the jobs that are being deleted, until all is gone or the pass has done its share."""
        repository, left = self.worker.repository, self.max_objects
        for job in list(repository.deletions.pending(limit=_MAX_JOBS)):
            if not self._should_continue() or left <= 0:
                return
            try:
                deletion = repository.deletions.read(job)
                if deletion is None:
                    continue
                removed = remove_job(repository, deletion, most=left)
            except TwinsetError as error:
                logger.warning("job=%s not all deleted: %s", job, error.detail)
                continue
            if removed is not None:
                left -= removed
                continue
            if deletion.tenant is not None:
                forget_stored(self.worker.live_state, deletion.tenant, job)
            logger.info("job=%s is deleted: %s", job, deletion.why)

    def _find_expired(self) -> None:
        """Marks those of a page of old jobs as deleted that ended too long ago; of the others none is far past its
        time."""
        days = self.worker.settings.job_retention_days
        if not days:
            return
        before = self.now() - timedelta(days=days)
        repository = self.worker.repository
        for job in self._ended.page(before):
            if not self._should_continue():
                return
            try:
                summary = repository.read_summary(job)
                if summary is None or summary.finished_at >= before:
                    continue
                spec = repository.read_spec(job)
                if not self._is_of_a_set(spec):
                    repository.deletions.enqueue(spec, "expired")
            except UnknownJob:
                continue  # it is being deleted already
            except TwinsetError as error:
                logger.warning("job=%s not looked at for its age: %s", job, error.detail)

    def _is_of_a_set(self, spec: JobSpec) -> bool:
        """Whether the job's twins are those of an augmentation set that is there, with which they go."""
        run = set_of_key(spec.idempotency_key)
        if run is None:
            return False
        try:
            RunRepository(self.worker.repository.store).read_spec(run, tenant=spec.tenant, kind=RunKind.AUGMENTATION)
        except UnknownRun:
            return False
        return True

    def _tidy(self) -> None:
        """Looks through a page of the jobs older than a day for what belongs to nothing."""
        if self._tidied_at is not None and self.now() - self._tidied_at < LEFT_AFTER:
            return
        repository, before = self.worker.repository, self.now() - LEFT_AFTER
        if self._left.at_start and isinstance(repository.store, FolderStore):
            repository.store.remove_leftovers()
        for job in self._left.page(before):
            if not self._should_continue():
                return
            try:
                self._tidy_job(job, before)
            except UnknownJob:
                continue  # it is being deleted
            except TwinsetError as error:
                logger.warning("job=%s not looked through: %s", job, error.detail)
        self._tidied_at = self.now() if self._left.at_start else None

    def _tidy_job(self, job: str, before: datetime) -> None:
        repository = self.worker.repository
        if is_leftover(repository, job, before):
            logger.info("job=%s was never accepted; what lies there is removed", job)
            repository.deletions.enqueue_leftovers(job)
            return
        summary = repository.read_summary(job)
        # of a job that succeeded every picture is in a record
        if summary is None or summary.state is JobState.SUCCEEDED or summary.finished_at >= before:
            return
        removed = remove_strays(repository, repository.read_spec(job), summary, before, most=self.max_objects)
        if removed:
            logger.info("job=%s: %d pictures that no record counts are removed", job, removed)
