"""Prometheus metrics of the bulk worker.

Prometheus computes the rates: ``rate(twinset_bulk_export_bytes_total[5m])`` is the bytes per second that exports write.
Counters belong to this process, so work that another process repeats after a kill is counted again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from redis.exceptions import RedisError

from service.broker.run_queue import RUN_QUEUE
from service.kit.run_kinds import RunKind
from service.runs.spec import RunSummary

if TYPE_CHECKING:
    from service.exports.run import ExportProgress
    from workers.bulk.worker import BulkWorker

_RUN_BUCKETS = (
    1.0,
    2.0,
    5.0,
    10.0,
    30.0,
    60.0,
    120.0,
    300.0,
    600.0,
    1800.0,
    3600.0,
    7200.0,
    14_400.0,
    43_200.0,
    86_400.0,
)

UNDER_WAY = Gauge("twinset_bulk_runs_under_way", "Runs that this worker executes now.", ["kind"])
ENDED = Counter("twinset_bulk_runs_ended_total", "Runs that this worker has ended.", ["kind", "state"])
SECONDS = Histogram(
    "twinset_bulk_run_seconds", "Seconds from a run's acceptance to its end.", ["kind"], buckets=_RUN_BUCKETS
)
DELIVERIES = Counter("twinset_bulk_deliveries_total", "Deliveries of runs, by outcome.", ["kind", "outcome"])
ATTEMPTS = Counter(
    "twinset_bulk_attempts_total",
    "Attempts at runs that were started; for an augmentation set each look at its jobs is one.",
    ["kind"],
)
EXPORT_ITEMS = Counter(
    "twinset_bulk_export_items_total", "Items that exports have written or skipped.", ["format", "result"]
)
EXPORT_BYTES = Counter(
    "twinset_bulk_export_bytes_total", "Bytes of finished files that exports have written.", ["format"]
)
DATASET_FILES = Counter(
    "twinset_bulk_dataset_files_total",
    "Files of datasets that were unpacked from an archive or fetched from a prefix.",
    ["source"],
)
DATASET_ITEMS = Counter(
    "twinset_bulk_dataset_items_total", "Items of datasets that were imported (kept) or skipped.", ["result"]
)
DATASET_BYTES = Counter("twinset_bulk_dataset_bytes_total", "Bytes of imported datasets.")
ACCEPTED = Counter("twinset_bulk_twins_accepted_total", "Twins accepted into augmentation sets.")
REJECTED = Counter(
    "twinset_bulk_twins_rejected_total", "Samples that augmentation sets rejected, by reason.", ["reason"]
)
SWEEPS = Counter("twinset_bulk_sweeps_total", "Sweeps by this worker, while it held the leader lock.")
REQUEUED = Counter("twinset_bulk_runs_requeued_total", "Runs that the sweeper has requeued.", ["kind"])
EXPIRED = Counter("twinset_bulk_runs_expired_total", "Runs deleted because their retention time was over.", ["kind"])
REMOVED = Counter("twinset_bulk_runs_removed_total", "Deleted runs whose objects have all been removed.", ["kind"])

for _kind in RunKind:
    # present from the start, so that Prometheus sees their first step from 0
    for _metric in (UNDER_WAY, SECONDS, ATTEMPTS, REQUEUED, EXPIRED, REMOVED):
        _metric.labels(_kind.value)


def count_end(kind: RunKind, summary: RunSummary) -> None:
    """Counts a run's end."""
    ENDED.labels(kind.value, summary.state.value).inc()
    SECONDS.labels(kind.value).observe(summary.seconds)


class ExportMeter:
    """Counts an export's progress in the metrics, from the first :meth:`update` on."""

    def __init__(self, format: str) -> None:
        self._counters = (
            EXPORT_ITEMS.labels(format, "written"),
            EXPORT_ITEMS.labels(format, "skipped"),
            EXPORT_BYTES.labels(format),
        )
        self._before: tuple[int, int, int] | None = None

    def update(self, seen: ExportProgress) -> None:
        """Counts what was written since the previous call."""
        now = (sum(seen.items.values()), sum(seen.skipped.values()), seen.bytes)
        for counter, there, before in zip(self._counters, now, self._before or now, strict=True):
            counter.inc(there - before)
        self._before = now


class BulkCollector(Collector):
    """Collector that reads the queue's length from the broker at each scrape; no value while Redis does not answer."""

    def __init__(self, worker: BulkWorker) -> None:
        self._worker = worker

    def collect(self) -> Iterator[Metric]:
        try:
            waiting = int(self._worker.redis.llen(RUN_QUEUE))
        except RedisError:
            return
        yield GaugeMetricFamily("twinset_bulk_queue_runs", "Runs that wait in the queue.", value=waiting)
