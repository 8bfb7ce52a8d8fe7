"""The sweeper of runs: requeues open runs without a worker, cleans up ended ones, and removes deleted ones."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from service.broker import redis_keys
from service.broker.fair_queue import Flow, TenantQueues
from service.broker.run_queue import RUN_QUEUES, TRAIN_QUEUES
from service.errors import BrokerUnavailable, TwinsetError, UnknownRun
from service.kit.run_kinds import RunKind, kind_of
from service.store import run_keys
from service.trainings import control
from workers.bulk import metrics
from workers.bulk.augmentation_jobs import delete_jobs
from workers.bulk.cleanup import clean_up_run
from workers.bulk.leftovers import RunLeftovers
from workers.bulk.retention import RunRetention
from workers.bulk.worker import BulkWorker
from workers.runtime.periodic_task import PeriodicTask

logger = logging.getLogger(__name__)
_LEADER_LOCK = redis_keys.leader("run-sweeper")
_MAX_MESSAGES_AT_ONCE = 1000
_OPEN_INTERVAL_S = 1.0
_MAX_REMOVED = 2000
_NEVER_WRITTEN_AFTER = timedelta(hours=1)


@dataclass
class RunSweeper(PeriodicTask):
    """Periodic task of every bulk worker; a leader lock lets one worker at a time sweep."""

    worker: BulkWorker
    retention: RunRetention | None = None
    leftovers: RunLeftovers | None = None
    _open: bool = False
    _tenants: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        settings = self.worker.settings
        interval_s = settings.sweep_interval_s
        super().__init__(
            self.worker.redis,
            _LEADER_LOCK,
            name="run-sweeper",
            ttl_s=max(settings.lease_s, 3 * interval_s),
            interval_s=interval_s,
        )
        self._queues = [TenantQueues(self.worker.redis, group) for group in (RUN_QUEUES, TRAIN_QUEUES)]
        self._retention = self.retention or RunRetention(self.worker)
        self._leftovers = self.leftovers or RunLeftovers(self.worker)

    @property
    def pause_s(self) -> float:
        """Seconds between two sweeps; at most one second while a run is open, since users wait for it."""
        interval_s = super().pause_s
        return min(interval_s, _OPEN_INTERVAL_S) if self._open else interval_s

    def run_once(self) -> bool:
        """Sweeps once; False if another worker holds the leader lock. Raises RedisError or the store's errors."""
        if not self._leader_lock.acquire():
            return False
        metrics.SWEEPS.inc()
        runs = list(self.worker.runs.open_runs())
        self._open = bool(runs)
        self._replace_lost_messages()
        waiting = self._waiting(runs)
        for run in runs:
            if not self._should_continue():
                break
            # a long queue costs no reads of the store
            if run not in waiting:
                with self._contained(f"run={run}", "reconciled"):
                    self._reconcile(run)
        self._retention.delete_expired(self._should_continue)
        self._leftovers.remove(self._should_continue)
        for run in list(self.worker.runs.deleted_runs()):
            if not self._should_continue():
                break
            with self._contained(f"run={run}", "completely deleted"):
                # a worker that still executes the run would write to it during the removal
                if self.worker.leases.live(run) or (
                    kind_of(run) is RunKind.AUGMENTATION and not delete_jobs(self.worker, run)
                ):
                    continue
                if self.worker.runs.remove(run, max_objects=_MAX_REMOVED):
                    metrics.REMOVED.labels(str(kind_of(run))).inc()
                    logger.info("run=%s is deleted", run)
        return True

    def _reconcile(self, run: str) -> None:
        """Requeues a run that is not queued, unless it is held or to come later; cleans it up if it has ended."""
        worker, repository = self.worker, self.worker.runs
        try:
            summary = repository.read_summary(run)
            if summary is not None:
                clean_up_run(repository, summary)
                return
            if worker.leases.live(run):
                return
            if not repository.is_cancelled(run) and (
                worker.redis.exists(redis_keys.run_retry_later(run))
                or (kind_of(run) is RunKind.TRAINING and control.is_paused(worker.store, run))
            ):
                return
            worker.queue.send_run(run, repository.read_spec(run).tenant)
            metrics.REQUEUED.labels(str(kind_of(run))).inc()
        except UnknownRun:
            self._delete_if_never_written(run)
        except BrokerUnavailable as error:
            logger.warning("%s", error.detail)

    def _delete_if_never_written(self, run: str) -> None:
        """Deletes the open run, and what was stored for it, if its spec was not written within an hour."""
        info = self.worker.store.head(run_keys.open_run(run))
        if info is not None and info.modified < datetime.now(UTC) - _NEVER_WRITTEN_AFTER:
            self.worker.runs.abandon(run)

    def _waiting(self, runs: Sequence[str]) -> set[str]:
        """Those of ``runs`` that wait in the queue. Raises RedisError if Redis fails."""
        self._tenants = {run: tenant for run in runs if (tenant := self._tenant(run)) is not None}
        by_tenant: dict[str, list[str]] = {}
        for run, tenant in self._tenants.items():
            by_tenant.setdefault(tenant, []).append(run)
        return {
            run
            for queues in self._queues
            for tenant, some in by_tenant.items()
            for run in queues.waiting(Flow(tenant, queues.group.queues[0]), some)
        }

    def _tenant(self, run: str) -> str | None:
        """The run's tenant, read once; None if it cannot be told."""
        if run in self._tenants:
            return self._tenants[run]
        try:
            spec = self.worker.runs.stored_spec(run)
        except TwinsetError:
            return None
        return None if spec is None else spec.tenant

    def _replace_lost_messages(self) -> None:
        """Sends a message for each run that waits without one: a worker that dies takes along those it has read."""
        try:
            for queues in self._queues:
                for item in queues.without_message(_MAX_MESSAGES_AT_ONCE):
                    self.worker.queue.send_run(item.name, item.flow.tenant)
        except BrokerUnavailable as error:
            logger.warning("%s", error.detail)
