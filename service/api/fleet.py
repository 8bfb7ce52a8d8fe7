"""The fleet's work as one API process knows it: for ``/metrics`` and ``/autoscaling``, read every ten seconds."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.api.shared_result import SharedResult
from service.broker.live_state import LiveState
from service.errors import TwinsetError
from service.jobs.backlog import Backlog, BacklogReader, ModelBacklog
from service.jobs.device_time import DeviceTimes
from service.jobs.open_jobs import OpenJobs
from service.jobs.repository import JobRepository
from service.kit.run_kinds import RunKind, kind_of
from service.runs.repository import RunRepository

_FRESH_S = 10.0
_MAX_AGE_S = 60.0
"""While it is read again, all are given what was read so long ago at most."""
MAX_READ_S = 8.0
"""A first look at very many open jobs may take longer; until it ends there is no value."""
_log = logging.getLogger("twinset.fleet")


@dataclass(frozen=True)
class FleetWork:
    """What generating and bulk workers have to do. ``bulk_holders``: as in :class:`ModelBacklog`, of runs."""

    backlog: Backlog
    open_runs: Counter[RunKind]
    bulk_holders: tuple[str, ...] | None


def shared_fleet_work(repository: JobRepository, runs: RunRepository, live_state: LiveState) -> SharedResult[FleetWork]:
    """The work in the store. Reading it raises a store's error: no work is not the same as not knowing."""
    reader = BacklogReader(OpenJobs(repository), DeviceTimes(repository.store), live_state)

    def read() -> FleetWork:
        backlog = reader.read()
        open_runs = list(runs.open_runs())
        held = live_state.lease_holders([run for run in open_runs if kind_of(run) is not RunKind.TRAINING])
        return FleetWork(
            backlog,
            Counter(kind for run in open_runs if (kind := kind_of(run)) is not None),
            None if held is None else tuple(holder for holders in held.values() for holder in holders),
        )

    return SharedResult(read, hold_s=_FRESH_S, stale_s=_MAX_AGE_S)


def busy_workers(models: Iterable[ModelBacklog]) -> int | None:
    """How many workers hold a lease on a chunk of these models; None if Redis does not answer."""
    holders: set[str] = set()
    for model in models:
        if model.holders is None:
            return None
        holders.update(model.holders)
    return len(holders)


class FleetCollector(Collector):
    """The fleet's work as Prometheus metrics. What cannot be read has no value, and never the value 0."""

    def __init__(self, fleet: SharedResult[FleetWork]) -> None:
        self._fleet = fleet

    def describe(self) -> Iterator[Metric]:
        """Nothing: the registry must not read the store when the collector is registered."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """The metrics, for one request of Prometheus."""
        try:
            work = self._fleet.wait(MAX_READ_S)
        except TwinsetError as error:
            _log.warning("the backlog cannot be read: %s", error.detail)
            return
        except TimeoutError:
            _log.warning("the backlog has not been read after %g s", MAX_READ_S)
            return
        models = work.backlog.models
        yield _by_model(
            "twinset_backlog_device_seconds",
            "Work queued and in hand, in seconds of one device.",
            models,
            lambda model: model.device_seconds,
        )
        yield _by_model("twinset_backlog_samples", "Samples without a record.", models, lambda model: model.samples)
        yield _by_model("twinset_backlog_jobs", "Jobs that have not ended.", models, lambda model: model.jobs)
        yield _by_model(
            "twinset_backlog_oldest_job_seconds",
            "Age of the oldest job that has not ended.",
            models,
            lambda model: model.oldest_s,
        )
        measured = [model for model in models if model.row_seconds is not None]
        yield _by_model(
            "twinset_row_step_device_seconds",
            "Measured seconds of one row of one step in a full batch.",
            measured,
            lambda model: model.row_seconds or 0.0,
        )
        yield GaugeMetricFamily(
            "twinset_open_jobs", "Jobs of all models that have not ended.", value=sum(model.jobs for model in models)
        )
        yield GaugeMetricFamily(
            "twinset_tenants_waiting", "Tenants with work queued or in hand.", value=work.backlog.tenants
        )
        yield GaugeMetricFamily(
            "twinset_largest_tenant_share",
            "Part of the backlog that is the one tenant's with most of it (0..1).",
            value=work.backlog.largest_tenant_share,
        )
        runs = GaugeMetricFamily("twinset_open_runs", "Runs that have not ended.", labels=["kind"])
        for kind in RunKind:
            runs.add_metric([kind.value], work.open_runs[kind])
        yield runs
        known = [model for model in models if model.holders is not None]
        if len(known) < len(models) or work.bulk_holders is None:
            return
        yield _by_model("twinset_leases", "Chunks that a worker holds.", known, lambda model: len(model.holders or ()))
        yield _by_model(
            "twinset_busy_workers", "Workers that hold a lease.", known, lambda model: len(set(model.holders or ()))
        )
        yield GaugeMetricFamily(
            "twinset_bulk_busy_workers", "Bulk workers that hold a lease.", value=len(set(work.bulk_holders))
        )


def _by_model(
    name: str, text: str, models: Iterable[ModelBacklog], value: Callable[[ModelBacklog], float]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=["model"])
    for model in models:
        family.add_metric([model.model], value(model))
    return family
