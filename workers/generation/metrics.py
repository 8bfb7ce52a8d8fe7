"""The worker's Prometheus counters.

Prometheus takes the rates: ``rate(twinset_worker_samples_total{result="made"}[1m])`` are twins a second,
``rate(twinset_engine_steps_total[1m])`` steps a second of all samples, and
``rate(twinset_engine_rows_total[1m]) / rate(twinset_engine_capacity_rows_total[1m])`` is how full the forwards are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Histogram

from workers.engine.model import StepStats

if TYPE_CHECKING:
    from workers.models.loaded_model import LoadedModel

_FORWARD_BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)

CHUNKS = Counter("twinset_worker_chunks_total", "Deliveries of chunks, by how they ended.", ["outcome"])
SAMPLES = Counter("twinset_worker_samples_total", "Samples recorded, made or failed.", ["result"])
FORWARDS = Histogram(
    "twinset_engine_forward_seconds", "Time of a forward on its device.", ["model"], buckets=_FORWARD_BUCKETS
)
STEPS = Counter("twinset_engine_steps_total", "Sampling steps of samples.", ["model"])
ROWS = Counter("twinset_engine_rows_total", "Rows of forwards that held a sample.", ["model"])
CAPACITY = Counter("twinset_engine_capacity_rows_total", "Rows of forwards, padding included.", ["model"])


def watch(loaded: LoadedModel) -> None:
    """Counts every step of a model from now on."""
    model = loaded.key
    forwards, steps = FORWARDS.labels(model), STEPS.labels(model)
    rows, capacity = ROWS.labels(model), CAPACITY.labels(model)

    def on_step(seen: StepStats) -> None:
        steps.inc(seen.samples)
        rows.inc(seen.used)
        capacity.inc(seen.rows)
        for seconds in seen.seconds:
            forwards.observe(seconds)

    loaded.engine_model.on_step = on_step
