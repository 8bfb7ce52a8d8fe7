"""Garbage collector: removes deleted jobs, expired jobs, and leftovers of killed processes.

Every worker has one; a leader lock in Redis lets one at a time run. Pending deletions are listed in the store, so with
nothing to do a run costs one listing. Once a minute it also looks at one page of old jobs: job ids sort newest first,
so jobs older than ``TWINSET_JOB_RETENTION_DAYS`` are at the end of the listing. And it searches one page of the jobs
older than a day for leftovers; after the last page it starts again the next day. Each run does a bounded amount of
work; what fails because of the store is left for the next run. Once a day it goes through the weights of models, page
by page, and removes those that no model needs: of registrations that stopped, and of deletions that did not finish.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from service.augmentations.rounds import set_of_key
from service.broker import redis_keys
from service.errors import UnknownJob, UnknownRun
from service.jobs.garbage import is_leftover, remove_job, remove_strays
from service.jobs.quotas import forget_stored
from service.jobs.spec import JobSpec
from service.kit.frozen import SHA256_PATTERN
from service.kit.run_kinds import RunKind
from service.registry.deletion import collect_weights
from service.runs.repository import RunRepository
from service.store import model_keys
from service.store.folder import FolderStore
from workers.generation.worker import Worker
from workers.runtime.paging import OldestFirstPages, utc_now
from workers.runtime.periodic_task import PeriodicTask

logger = logging.getLogger(__name__)
_LEADER_LOCK = redis_keys.leader("garbage-collector")
_POLL_INTERVAL_S = 60.0
_PAGE = 100
_MAX_OBJECTS = 2000
_MAX_JOBS = 100
LEFTOVER_AGE = timedelta(days=1)
"""Objects this old that belong to nothing are leftovers: no request and no chunk takes that long."""


@dataclass
class GarbageCollector(PeriodicTask):
    """Periodic task that removes objects from the store of ``worker``."""

    worker: Worker
    now: Callable[[], datetime] = utc_now
    poll_interval_s: float = _POLL_INTERVAL_S
    max_objects: int = _MAX_OBJECTS
    page: int = _PAGE
    _looked_at: float = float("-inf")
    _searched_at: datetime | None = None
    _weights_after: str | None = None
    _weights_at: datetime | None = None

    def __post_init__(self) -> None:
        interval_s = self.worker.settings.sweep_interval_s
        super().__init__(
            self.worker.redis,
            _LEADER_LOCK,
            name="garbage-collector",
            ttl_s=max(30.0, 3 * interval_s),
            interval_s=interval_s,
        )
        self._retention_pages, self._leftover_pages = (
            OldestFirstPages(self.worker.repository.jobs, self.page, "j") for _ in range(2)
        )

    def run_once(self) -> bool:
        """Runs once; False if another worker holds the leader lock. Raises RedisError or the store's errors."""
        if not self._leader_lock.acquire():
            return False
        if time.monotonic() - self._looked_at >= self.poll_interval_s:
            self._looked_at = time.monotonic()
            self._find_expired()
            self._find_leftovers()
            self._collect_weights()
        self._remove_pending()
        return True

    def _remove_pending(self) -> None:
        """Removes objects of deleted jobs, at most ``max_objects`` of them."""
        repository, left = self.worker.repository, self.max_objects
        for job in list(repository.deletions.pending(limit=_MAX_JOBS)):
            if not self._should_continue() or left <= 0:
                return
            with self._contained(f"job={job}", "completely deleted"):
                deletion = repository.deletions.read(job)
                if deletion is None:
                    continue
                removed = remove_job(repository, deletion, max_objects=left)
                if removed is not None:
                    left -= removed
                    continue
                if deletion.tenant is not None:
                    forget_stored(self.worker.live_state, deletion.tenant, job)
                logger.info("job=%s is deleted: %s", job, deletion.why)

    def _find_expired(self) -> None:
        """Enqueues the deletion of the expired jobs in one page of old jobs."""
        days = self.worker.settings.job_retention_days
        if not days:
            return
        before = self.now() - timedelta(days=days)
        repository = self.worker.repository
        for job in self._retention_pages.page(before):
            if not self._should_continue():
                return
            with self._contained(f"job={job}", "checked for retention"), suppress(UnknownJob):  # it is being deleted
                summary = repository.read_summary(job)
                if summary is None or summary.finished_at >= before:
                    continue
                spec = repository.read_spec(job)
                if not self._belongs_to_a_set(spec):
                    repository.deletions.enqueue(spec, "expired")

    def _belongs_to_a_set(self, spec: JobSpec) -> bool:
        """Whether the job belongs to an existing augmentation set, with which it will be deleted."""
        run = set_of_key(spec.idempotency_key)
        if run is None:
            return False
        try:
            RunRepository(self.worker.repository.store).read_spec(run, tenant=spec.tenant, kind=RunKind.AUGMENTATION)
        except UnknownRun:
            return False
        return True

    def _find_leftovers(self) -> None:
        """Searches one page of the jobs older than a day for leftovers."""
        if self._searched_at is not None and self.now() - self._searched_at < LEFTOVER_AGE:
            return
        repository, before = self.worker.repository, self.now() - LEFTOVER_AGE
        if self._leftover_pages.at_start and isinstance(repository.store, FolderStore):
            repository.store.remove_leftovers()
        for job in self._leftover_pages.page(before):
            if not self._should_continue():
                return
            with self._contained(f"job={job}", "searched for leftovers"), suppress(UnknownJob):  # it is being deleted
                self._find_leftovers_of(job, before)
        self._searched_at = self.now() if self._leftover_pages.at_start else None

    def _collect_weights(self) -> None:
        """Looks at one page of the stored weights, and removes those that no model needs."""
        if self._weights_at is not None and self.now() - self._weights_at < LEFTOVER_AGE:
            return
        store, before = self.worker.repository.store, self.now() - LEFTOVER_AGE
        prefix = model_keys.all_weights_prefix()
        page = list(store.list_folders(prefix, start_after=self._weights_after, limit=self.page))
        for sha256 in page:
            if not self._should_continue():
                return
            if re.fullmatch(SHA256_PATTERN, sha256) is None:
                continue
            with self._contained(f"weights={sha256[:16]}", "searched for models that need them"):
                if collect_weights(store, sha256, before):
                    logger.info("weights %s are removed: no model needs them", sha256)
        is_last = len(page) < self.page
        self._weights_after = None if is_last else page[-1]
        self._weights_at = self.now() if is_last else None

    def _find_leftovers_of(self, job: str, before: datetime) -> None:
        repository = self.worker.repository
        if is_leftover(repository, job, before):
            logger.info("job=%s was never accepted; its leftovers will be removed", job)
            repository.deletions.enqueue_leftovers(job)
            return
        summary = repository.read_summary(job)
        if summary is None or summary.finished_at >= before:
            return
        removed = remove_strays(repository, repository.read_spec(job), summary, before, max_objects=self.max_objects)
        if removed:
            logger.info("job=%s: removed %d objects that no record counts", job, removed)
