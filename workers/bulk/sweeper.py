"""The sweeper of runs: sends what is open and in nobody's hands, settles what has ended, and removes what was deleted
or expires."""

from __future__ import annotations

import base64
import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from service.broker.run_queue import RUN_QUEUE
from service.errors import BrokerUnavailable, TwinsetError, UnknownRun
from service.kit.run_kinds import RunKind, kind_of
from service.store import run_keys
from workers.bulk import metrics
from workers.bulk.augmentation_jobs import delete_jobs
from workers.bulk.cleanup import settle
from workers.bulk.execute import waiting_key
from workers.bulk.retention import RunExpiry
from workers.bulk.worker import BulkWorker
from workers.runtime.periodic_task import PeriodicTask

logger = logging.getLogger(__name__)
_LEADER_LOCK = "twinset:run-sweeper"
_LONGEST_READ = 2000
_WHILE_OPEN_S = 1.0
_MAX_REMOVED = 2000
_NEVER_WRITTEN_AFTER = timedelta(hours=1)


@dataclass
class RunSweeper(PeriodicTask):
    """Sweeps for ``worker``, in a thread of its own between :meth:`start` and :meth:`stop`; a turn lets one at a
    time."""

    worker: BulkWorker
    expiry: RunExpiry | None = None
    _open: bool = False

    def __post_init__(self) -> None:
        settings = self.worker.settings
        interval_s = settings.sweep_interval_s
        super().__init__(
            self.worker.redis,
            _LEADER_LOCK,
            name="run-sweeper",
            lasts_s=max(settings.lease_s, 3 * interval_s),
            interval_s=interval_s,
        )
        self._expiry = self.expiry or RunExpiry(self.worker)

    @property
    def pause_s(self) -> float:
        """Seconds from a pass to the next; while a set waits for its jobs, and somebody for the set, they are few."""
        interval_s = super().pause_s
        return min(interval_s, _WHILE_OPEN_S) if self._open else interval_s

    def run_once(self) -> bool:
        """One pass; False if it is another worker's turn. Raises RedisError if nobody can tell, or a store's error."""
        if not self._leader_lock.take():
            return False
        metrics.SWEEPS.inc()
        runs = list(self.worker.runs.open_runs())
        self._open = bool(runs)
        queued = self._queued() if runs else set()
        for run in runs:
            if not self._should_continue():
                break
            self._reconcile(run, queued)
        self._expiry.expire_some(self._should_continue)
        for run in list(self.worker.runs.deleted_runs()):
            if not self._should_continue():
                break
            # in somebody's hands it would be written to while it is removed
            if self.worker.leases.live(run) or (
                kind_of(run) is RunKind.AUGMENTATION and not delete_jobs(self.worker, run)
            ):
                continue
            if self.worker.runs.remove(run, most=_MAX_REMOVED):
                metrics.REMOVED.labels(str(kind_of(run))).inc()
                logger.info("run=%s is deleted", run)
        return True

    def _reconcile(self, run: str, queued: set[str]) -> None:
        """Sends the run unless it is somewhere already; settles it once it has ended."""
        worker, repository = self.worker, self.worker.runs
        try:
            summary = repository.read_summary(run)
            if summary is not None:
                settle(repository, summary)
                return
            if run in queued or worker.leases.live(run):
                return
            if worker.redis.exists(waiting_key(run)) and not repository.is_cancelled(run):
                return
            repository.read_spec(run)
            worker.queue.send_run(run)
            metrics.REQUEUED.labels(str(kind_of(run))).inc()
        except UnknownRun:
            self._strike_if_never_written(run)
        except BrokerUnavailable as error:
            logger.warning("%s", error.detail)
        except TwinsetError as error:
            logger.warning("run=%s not tended: %s", run, error.detail)

    def _strike_if_never_written(self, run: str) -> None:
        info = self.worker.store.head(run_keys.open_run(run))
        if info is not None and info.modified < datetime.now(UTC) - _NEVER_WRITTEN_AFTER:
            self.worker.store.delete(run_keys.open_run(run))

    def _queued(self) -> set[str]:
        """The runs that wait in the queue, of its first two thousand messages; one sent twice is done once."""
        found = set()
        for message in self.worker.redis.lrange(RUN_QUEUE, 0, _LONGEST_READ):
            try:
                _, named, _ = json.loads(base64.b64decode(json.loads(message)["body"]))
                found.add(str(named["run"]))
            except (ValueError, KeyError, TypeError):
                continue
        return found
