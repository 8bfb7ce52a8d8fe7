"""Repairer: repairs jobs whose repair was requested (:mod:`workers.generation.repair`).

Every worker has one; a leader lock in Redis lets one at a time run. Requested repairs are listed in the store, so with
nothing to do a run costs one listing. Each tenant gets some seconds in turn, so that none waits for another's long or
many repairs; those of one tenant come one after the other, the oldest job's first.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from service.broker import redis_keys
from service.errors import TwinsetError, UnknownJob
from workers.generation.repair import JobRepair
from workers.generation.twin_maker import TwinMaker
from workers.generation.worker import Worker
from workers.models.files import Load
from workers.runtime.periodic_task import PeriodicTask

logger = logging.getLogger(__name__)
_LEADER_LOCK = redis_keys.leader("repairer")
_TURN_S = 10.0
_BUSY_PAUSE_S = 0.1


@dataclass
class Repairer(PeriodicTask):
    """Periodic task that repairs jobs in the store of ``worker``. ``load`` replaces the loading of models."""

    worker: Worker
    load: Load | None = None
    turn_s: float = _TURN_S
    _running: dict[str, tuple[JobRepair, Iterator[int]]] = field(default_factory=dict)
    _tenants: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        interval_s = self.worker.settings.sweep_interval_s
        super().__init__(
            self.worker.redis, _LEADER_LOCK, name="repairer", ttl_s=max(30.0, 3 * interval_s), interval_s=interval_s
        )

    @property
    def pause_s(self) -> float:
        """Seconds between two runs; short while a repair is under way."""
        return _BUSY_PAUSE_S if self._running else super().pause_s

    def run_once(self) -> bool:
        """Works for each tenant once; False if another worker leads. Raises RedisError or a store's error."""
        if not self._leader_lock.acquire():
            for job in list(self._running):
                self._forget(job)
            return False
        jobs = self._next_jobs()
        for job in jobs:
            if not self._should_continue():
                break
            with self._errors_of(job):
                self._turn(job)
            if len(jobs) > 1 and job in self._running:
                self._running[job][0].maker.close()
        return True

    def _next_jobs(self) -> list[str]:
        """The jobs that come next: of each tenant the one under way, or the oldest."""
        pending = list(self.worker.repository.repairs.all_pending())
        self._tenants = {job: self._tenants[job] for job in pending if job in self._tenants}
        for job in pending:
            if job not in self._tenants:
                with self._errors_of(job):
                    self._tenants[job] = self.worker.repository.read_spec(job).tenant
        chosen: dict[str, str] = {}
        for job, tenant in self._tenants.items():  # newest first
            if chosen.get(tenant) not in self._running:
                chosen[tenant] = job
        return list(chosen.values())

    @contextmanager
    def _errors_of(self, job: str) -> Iterator[None]:
        """Drops the request of a job that is gone; another error is left for the next run."""
        try:
            yield
        except UnknownJob:
            self._forget(job)
            self.worker.repository.repairs.drop_request(job)
        except TwinsetError as error:
            logger.warning("job=%s not repaired, it will be tried again: %s", job, error.detail)

    def stop(self) -> None:
        super().stop()
        for job in list(self._running):
            self._forget(job)

    def _turn(self, job: str) -> None:
        spec = self.worker.repository.read_spec(job)
        if job not in self._running:
            repair = self._begin(job)
            if repair is None:
                return
            self._running[job] = repair, repair.steps()
            logger.info("job=%s: its repair %d begins", spec.job, repair.number)
        repair, steps = self._running[job]
        until = time.monotonic() + self.turn_s
        try:
            for _ in steps:
                if not self._should_continue() or time.monotonic() > until:
                    return
            found = repair.conclude()
        except BaseException:
            self._forget(job)  # steps that have raised cannot go on: the repair starts over
            raise
        self._forget(job)
        logger.info(
            "job=%s is repaired: of %d twins %d damaged, %d missing; %d restored, %d replaced, %d failed",
            job, found.checked, found.damaged, found.missing, found.restored, found.replaced, found.failed,
        )  # fmt: skip

    def _begin(self, job: str) -> JobRepair | None:
        """The repair to run; None if there is none to do, whose request is then removed."""
        worker, repairs = self.worker, self.worker.repository.repairs
        request, summary = repairs.pending(job), worker.repository.read_summary(job)
        if request is None:
            return None
        done = repairs.of_job(job)
        if summary is None or (done and done[-1].requested_at == request.requested_at):
            # the worker that did it died before it had removed the request
            repairs.drop_request(job)
            return None
        spec = worker.repository.read_spec(job)
        maker = TwinMaker(spec, worker.repository.store, worker.settings, self.load)
        return JobRepair(worker.repository, spec, summary, request, maker, worker.name)

    def _forget(self, job: str) -> None:
        repair, steps = self._running.pop(job, (None, None))
        if repair is not None and steps is not None:
            steps.close()  # type: ignore[attr-defined]
            repair.maker.close()
