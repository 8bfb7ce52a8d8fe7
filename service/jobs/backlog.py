"""Backlog of generation: the work that is queued or in hand, in device-seconds by model, and the workers that hold it.

Jobs and their records are read from the store, so no lost message and no emptied Redis makes the backlog smaller. Only
who holds a lease comes from Redis: it is exact while Redis answers, and back within a third of a lease's life after it
was emptied.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from service.broker import redis_keys
from service.broker.lease_token import holder_of
from service.broker.live_state import LiveState
from service.jobs.device_time import DeviceTimes
from service.jobs.open_jobs import OpenJobs
from service.jobs.spec import JobSpec

if TYPE_CHECKING:
    from redis import Redis

_JOBS_AT_ONCE = 500


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
        held = leases_in_hand(self.live_state, [open_job.spec.job for open_job in found])
        by_model: dict[str, list[tuple[JobSpec, int, float]]] = defaultdict(list)
        by_tenant: dict[str, float] = defaultdict(float)
        for open_job in found:
            spec, remaining = open_job.spec, open_job.remaining
            seconds = remaining * self.device_times.twin_seconds(spec)
            by_model[spec.model].append((spec, remaining, seconds))
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


def leases_in_hand(live_state: LiveState, jobs_or_runs: Sequence[str]) -> dict[str, list[str]] | None:
    """The holders of the live leases of each of the jobs or runs; None if Redis does not answer."""

    def ask(client: Redis) -> dict[str, list[str]]:
        seconds, micros = client.time()
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        held: dict[str, list[str]] = {}
        for first in range(0, len(jobs_or_runs), _JOBS_AT_ONCE):
            some = jobs_or_runs[first : first + _JOBS_AT_ONCE]
            with client.pipeline(transaction=False) as pipe:
                for job in some:
                    pipe.zrangebyscore(redis_keys.leases(job), now_ms, "+inf")
                chunks = pipe.execute()
            leased = [(job, int(chunk)) for job, found in zip(some, chunks, strict=True) for chunk in found]
            tokens = client.mget([redis_keys.lease(job, chunk) for job, chunk in leased]) if leased else []
            held |= {job: [] for job in some}
            for (job, _), token in zip(leased, tokens, strict=True):
                if token is not None:
                    held[job].append(holder_of(str(token)))
        return held

    unknown: dict[str, list[str]] | None = None
    return live_state.ask(ask, unknown) if jobs_or_runs else {}
