"""Backlog of generation: the work that is queued or in hand, in device-seconds by model, and the workers that hold it.

Jobs and their records are read from the store, so no lost message and no emptied Redis makes the backlog smaller. Only
who holds a lease comes from Redis: it is exact while Redis answers, and back within a third of a lease's life after it
was emptied.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime

from service.broker.live_state import LiveState
from service.jobs.device_time import DeviceTimes
from service.jobs.open_jobs import OpenJobs
from service.jobs.spec import JobSpec


@dataclass(frozen=True)
class ModelBacklog:
    """The work of one model.

    ``holders``: for each lease on one of its chunks the worker that holds it; None if Redis does not answer.
    ``row_seconds``: the measured seconds of a row-step; None if no worker has measured the model.
    """

    model: str
    jobs: int
    samples: int
    device_seconds: float
    oldest_s: float
    row_seconds: float | None
    holders: tuple[str, ...] | None


@dataclass(frozen=True)
class Backlog:
    """The backlog at one moment. ``largest_tenant_share``: the part of the device-seconds that is one tenant's."""

    models: tuple[ModelBacklog, ...]
    tenants: int
    largest_tenant_share: float


@dataclass
class BacklogReader:
    """Reads the backlog. One call at a time: it remembers what it has seen."""

    open_jobs: OpenJobs
    device_times: DeviceTimes
    live_state: LiveState

    def read(self, now: datetime | None = None) -> Backlog:
        """The backlog now. Raises a store's error."""
        moment = now or datetime.now(UTC)
        found = self.open_jobs.look()
        held = self.live_state.lease_holders([open_job.spec.job for open_job in found])
        by_model: dict[str, list[tuple[JobSpec, int, float]]] = defaultdict(list)
        by_tenant: dict[str, float] = defaultdict(float)
        for open_job in found:
            spec, remaining = open_job.spec, open_job.remaining
            seconds = remaining * self.device_times.twin_seconds(spec)
            by_model[spec.model_key].append((spec, remaining, seconds))
            by_tenant[spec.tenant] += seconds
        models = tuple(
            ModelBacklog(
                model=model,
                jobs=len(jobs),
                samples=sum(remaining for _, remaining, _ in jobs),
                device_seconds=sum(seconds for _, _, seconds in jobs),
                oldest_s=max(0.0, *((moment - spec.created_at).total_seconds() for spec, _, _ in jobs)),
                row_seconds=self.device_times.row_seconds(model),
                holders=None if held is None else tuple(holder for spec, _, _ in jobs for holder in held[spec.job]),
            )
            for model, jobs in sorted(by_model.items())
        )
        total = sum(by_tenant.values())
        share = max(by_tenant.values(), default=0.0) / total if total else 0.0
        return Backlog(models, sum(seconds > 0 for seconds in by_tenant.values()), share)
