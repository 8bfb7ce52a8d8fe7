"""What the bulk worker tells Prometheus.

Rates are for Prometheus to take: ``rate(twinset_bulk_export_bytes_total[5m])`` are bytes a second that exports write.
Counters are of this process, so what another has to do again after a kill counts again.
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

UNDER_WAY = Gauge("twinset_bulk_runs_under_way", "Runs in the hands of this worker now.", ["kind"])
ENDED = Counter("twinset_bulk_runs_ended_total", "Runs that this worker has ended.", ["kind", "state"])
SECONDS = Histogram(
    "twinset_bulk_run_seconds", "Seconds from a run's acceptance to its end.", ["kind"], buckets=_RUN_BUCKETS
)
DELIVERIES = Counter("twinset_bulk_deliveries_total", "Deliveries of runs, by how they ended.", ["kind", "outcome"])
ATTEMPTS = Counter(
    "twinset_bulk_attempts_total", "Attempts at runs that were begun; one at a set is a look at its jobs.", ["kind"]
)
EXPORT_ITEMS = Counter(
    "twinset_bulk_export_items_total", "Items that exports have written, or left out.", ["format", "result"]
)
EXPORT_BYTES = Counter("twinset_bulk_export_bytes_total", "Bytes of whole files that exports have written.", ["format"])
DATASET_FILES = Counter(
    "twinset_bulk_dataset_files_total", "Files of datasets that were unpacked or fetched.", ["source"]
)
DATASET_ITEMS = Counter(
    "twinset_bulk_dataset_items_total", "Items of datasets that were kept, or left out.", ["result"]
)
DATASET_BYTES = Counter("twinset_bulk_dataset_bytes_total", "Bytes of datasets that were kept.")
ACCEPTED = Counter("twinset_bulk_twins_accepted_total", "Twins accepted into augmentation sets.")
REJECTED = Counter("twinset_bulk_twins_rejected_total", "Samples of augmentation sets that do not count.", ["reason"])
SWEEPS = Counter("twinset_bulk_sweeps_total", "Passes of the sweeper that were this worker's turn.")
REQUEUED = Counter("twinset_bulk_runs_requeued_total", "Runs that the sweeper has sent to the queue.", ["kind"])
EXPIRED = Counter("twinset_bulk_runs_expired_total", "Runs deleted for their age.", ["kind"])
REMOVED = Counter("twinset_bulk_runs_removed_total", "Deleted runs of which nothing is left.", ["kind"])

for _kind in RunKind:
    # there from the start, so that their first step from 0 is seen
    for _metric in (UNDER_WAY, SECONDS, ATTEMPTS, REQUEUED, EXPIRED, REMOVED):
        _metric.labels(_kind.value)


def count_end(kind: RunKind, summary: RunSummary) -> None:
    """Counts a run's end."""
    ENDED.labels(kind.value, summary.state.value).inc()
    SECONDS.labels(kind.value).observe(summary.seconds)


class ExportMeter:
    """Counts what an export gains from the progress on that is seen first."""

    def __init__(self, format: str) -> None:
        self._counters = (
            EXPORT_ITEMS.labels(format, "written"),
            EXPORT_ITEMS.labels(format, "left_out"),
            EXPORT_BYTES.labels(format),
        )
        self._before: tuple[int, int, int] | None = None

    def see(self, seen: ExportProgress) -> None:
        """Counts what came since the call before."""
        now = (sum(seen.items.values()), sum(seen.left_out.values()), seen.bytes)
        for counter, there, before in zip(self._counters, now, self._before or now, strict=True):
            counter.inc(there - before)
        self._before = now


class BulkCollector(Collector):
    """What is read off a worker's broker at the moment when somebody asks; left out while it does not answer."""

    def __init__(self, worker: BulkWorker) -> None:
        self._worker = worker

    def collect(self) -> Iterator[Metric]:
        try:
            waiting = int(self._worker.redis.llen(RUN_QUEUE))
        except RedisError:
            return
        yield GaugeMetricFamily("twinset_bulk_queue_runs", "Runs that wait in the queue.", value=waiting)
