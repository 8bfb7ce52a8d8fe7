"""The collector of a worker's state as Prometheus metrics, read at each request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from workers.engine.peak import matmul_rate
from workers.runtime.metrics_server import serve_metrics

if TYPE_CHECKING:
    from workers.generation.worker import Worker
    from workers.models.loaded_model import LoadedModel


class WorkerCollector:
    """Reads queues, batches, memory and utilisation of a worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def collect(self) -> Iterator[Metric]:
        """The metrics, for one request of Prometheus."""
        worker = self._worker
        waiting = GaugeMetricFamily("twinset_stage_waiting", "Samples that wait for a stage.", labels=["stage"])
        working = GaugeMetricFamily("twinset_stage_working", "Samples that a stage works on.", labels=["stage"])
        for stage in (worker.pipeline.decoding, worker.pipeline.storing):
            waiting.add_metric([stage.name], stage.waiting)
            working.add_metric([stage.name], stage.working)
        queues = {loaded: worker.engine.queue(loaded.engine_model) for loaded in worker.models.loaded}
        waiting.add_metric(["denoise"], sum(queue for queue, _ in queues.values()))
        yield waiting
        yield working
        held = GaugeMetricFamily(
            "twinset_engine_rows_held", "Rows of the batch that hold a sample now.", labels=["model"]
        )
        shape = GaugeMetricFamily("twinset_engine_rows_capacity", "Rows of the batch.", labels=["model"])
        memory = GaugeMetricFamily(
            "twinset_model_memory_bytes", "Memory of a loaded model's weights.", labels=["model"]
        )
        used = GaugeMetricFamily(
            "twinset_engine_flop_utilisation",
            "FLOP/s of rows that held a sample, in the last minute's forwards, over the device's matmul rate (0..1).",
            labels=["model"],
        )
        for loaded, (_, rows) in queues.items():
            model = loaded.key
            held.add_metric([model], rows)
            shape.add_metric([model], loaded.engine_model.rows)
            memory.add_metric([model], loaded.memory_bytes)
            used.add_metric([model], flop_utilisation(loaded, worker.models.cpu_threads))
        yield from (held, shape, memory, used)
        samples, slots = worker.pipeline.occupancy
        yield GaugeMetricFamily(
            "twinset_worker_samples_held", "Samples in the pipeline, from condition to store.", value=samples
        )
        yield GaugeMetricFamily(
            "twinset_worker_samples_capacity", "Samples that fit in the pipeline at once.", value=slots
        )
        yield CounterMetricFamily(
            "twinset_engine_preemptions", "Samples that were preempted for another's.", value=worker.engine.preemptions
        )


def flop_utilisation(loaded: LoadedModel, cpu_threads: int) -> float:
    """FLOP/s of the used rows in the last minute's forwards, over the measured matmul rate of device and dtype."""
    rows = loaded.engine_model.used_rows_per_second()
    if not rows:
        return 0.0
    system = loaded.system
    return rows * loaded.flops_per_row / matmul_rate(system.device, system.dtype, cpu_threads)


def expose(worker: Worker, port: int, address: str, registry: CollectorRegistry = REGISTRY) -> None:
    """Serves ``/metrics`` on ``address:port`` from a thread. Raises :class:`SettingsError` if the port is not free."""
    serve_metrics(WorkerCollector(worker), port, address, registry)
