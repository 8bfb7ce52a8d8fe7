"""What the worker tells Prometheus: chunks by outcome, samples by result, and how full the engine's forwards are."""

from __future__ import annotations

from typing import Iterator

from prometheus_client import REGISTRY, CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily

from workers.engine import Engine

CHUNKS = Counter("twinset_worker_chunks_total", "Deliveries of chunks, by how they ended.", ["outcome"])
SAMPLES = Counter("twinset_worker_samples_total", "Samples recorded, made or given up.", ["result"])


class EngineCollector:
    """The engine's counts, read when somebody asks."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[CounterMetricFamily]:
        forwards, rows = self._engine.counts
        yield CounterMetricFamily("twinset_engine_forwards", "Forwards run.", value=forwards)
        yield CounterMetricFamily("twinset_engine_rows", "Rows of those forwards that held a sample.", value=rows)


def expose(engine: Engine, port: int, address: str, registry: CollectorRegistry = REGISTRY) -> None:
    """Serves ``/metrics`` on ``address:port`` from a thread. Raises OSError if the port is taken."""
    from prometheus_client import start_http_server

    registry.register(EngineCollector(engine))
    start_http_server(port, addr=address, registry=registry)
