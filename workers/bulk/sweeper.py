"""The sweeper of runs: requeues open runs without a worker, cleans up ended ones, and removes deleted ones."""

from __future__ import annotations

import base64
import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from service.broker import redis_keys
from service.broker.run_queue import RUN_QUEUE
from service.errors import BrokerUnavailable, TwinsetError, UnknownRun
from service.kit.run_kinds import RunKind, kind_of
from service.store import run_keys
from workers.bulk import metrics
from workers.bulk.augmentation_jobs import delete_jobs
from workers.bulk.cleanup import clean_up_run
from workers.bulk.leftovers import RunLeftovers
from workers.bulk.retention import RunRetention
from workers.bulk.worker import BulkWorker
from workers.runtime.periodic_task import PeriodicTask

logger = logging.getLogger(__name__)
_LEADER_LOCK = redis_keys.leader("run-sweeper")
_MAX_MESSAGES_READ = 2000
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
        queued = self._queued() if runs else set()
        for run in runs:
            if not self._should_continue():
                break
            self._reconcile(run, queued)
        self._retention.delete_expired(self._should_continue)
        self._leftovers.remove(self._should_continue)
        for run in list(self.worker.runs.deleted_runs()):
            if not self._should_continue():
                break
            # a worker that still executes the run would write to it during the removal
            if self.worker.leases.live(run) or (
                kind_of(run) is RunKind.AUGMENTATION and not delete_jobs(self.worker, run)
            ):
                continue
            if self.worker.runs.remove(run, max_objects=_MAX_REMOVED):
                metrics.REMOVED.labels(str(kind_of(run))).inc()
                logger.info("run=%s is deleted", run)
        return True

    def _reconcile(self, run: str, queued: set[str]) -> None:
        """Requeues the run unless it is queued, held or waiting; cleans it up if it has ended."""
        worker, repository = self.worker, self.worker.runs
        try:
            summary = repository.read_summary(run)
            if summary is not None:
                clean_up_run(repository, summary)
                return
            if run in queued or worker.leases.live(run):
                return
            if worker.redis.exists(redis_keys.run_retry_later(run)) and not repository.is_cancelled(run):
                return
            repository.read_spec(run)
            worker.queue.send_run(run)
            metrics.REQUEUED.labels(str(kind_of(run))).inc()
        except UnknownRun:
            self._delete_if_never_written(run)
        except BrokerUnavailable as error:
            logger.warning("%s", error.detail)
        except TwinsetError as error:
            logger.warning("run=%s not reconciled: %s", run, error.detail)

    def _delete_if_never_written(self, run: str) -> None:
        """Deletes the open run's entry if its spec was not written within an hour."""
        info = self.worker.store.head(run_keys.open_run(run))
        if info is not None and info.modified < datetime.now(UTC) - _NEVER_WRITTEN_AFTER:
            self.worker.store.delete(run_keys.open_run(run))

    def _queued(self) -> set[str]:
        """The runs in the first 2000 messages of the queue. A run that is queued twice is executed only once."""
        found = set()
        for message in self.worker.redis.lrange(RUN_QUEUE, 0, _MAX_MESSAGES_READ):
            try:
                _, arguments, _ = json.loads(base64.b64decode(json.loads(message)["body"]))
                found.add(str(arguments["run"]))
            except (ValueError, KeyError, TypeError):
                continue
        return found
