"""What the processes expose to Prometheus: the names of all samples, with their labels, and the values of some."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import REGISTRY, CollectorRegistry, Metric
from prometheus_client.metrics import MetricWrapperBase

from service.api.fleet import FleetCollector, FleetWork
from service.api.metrics import Metrics
from service.api.shared_result import SharedResult
from service.jobs.backlog import Backlog, ModelBacklog

ADDED_BY_PROMETHEUS = frozenset({"namespace", "pod", "instance", "job", "container", "le"})
_SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum"), "info": ("_info",)}


def names_of(registry: CollectorRegistry) -> dict[str, frozenset[str]]:
    """Samples of a registry by name, with their labels; also of metrics that have no sample yet."""
    found: dict[str, frozenset[str]] = {}
    for collector in list(registry._collector_to_names):
        if isinstance(collector, MetricWrapperBase):
            for suffix in _SUFFIXES[collector._type]:
                found[collector._name + suffix] = frozenset(collector._labelnames)
        else:
            found |= names_in(collector.collect())
    return found


def names_in(families: Iterable[Metric]) -> dict[str, frozenset[str]]:
    """Samples of collected families, by name."""
    found: dict[str, frozenset[str]] = {}
    for family in families:
        labels = frozenset(getattr(family, "_labelnames", ()))
        for suffix in _SUFFIXES.get(family.type, ("",)):
            found[family.name + suffix] = labels
        found |= {sample.name: frozenset(sample.labels) for sample in family.samples}
    return found


def of_api() -> dict[str, frozenset[str]]:
    """What an API process exposes that has a job to count."""
    work = ModelBacklog("m@1", 1, 1, 1.0, 1.0, 1.0, ("worker",))
    metrics = Metrics()
    from collections import Counter

    reader = SharedResult(lambda: FleetWork(Backlog((work,), 1, 1.0), Counter(), ("bulk",)))
    metrics.registry.register(FleetCollector(reader))
    return names_of(metrics.registry)


def of_workers(worker_families: Iterable[Metric], bulk_families: Iterable[Metric]) -> dict[str, frozenset[str]]:
    """What workers of both kinds expose: their counters, and what their collectors read."""
    import workers.bulk.metrics
    import workers.generation.metrics
    import workers.maintenance.webhook_sender  # noqa: F401

    return names_of(REGISTRY) | names_in(worker_families) | names_in(bulk_families)
