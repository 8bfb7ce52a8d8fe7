"""The worker's metrics as Prometheus reads them, and the utilisation against numbers computed by hand."""

from __future__ import annotations

import urllib.request

import pytest
import torch
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis
from torch import Tensor, nn

from model_store.interface import Condition
from tests.workers.conftest import Hire
from tests.workers.fakes import Post, TinySystem
from tests.workers.generation.test_chunk import accept, work
from workers.engine.model import EngineModel
from workers.engine.peak import flops_per_row, matmul_rate
from workers.generation import collector
from workers.generation.collector import WorkerCollector, flop_utilisation


def read(text: str) -> dict[tuple[str, str], float]:
    """Values by metric and by its one label."""
    return {
        (sample.name, ",".join(v for k, v in sample.labels.items() if k != "le")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "le" not in sample.labels
    }


def test_steps_rows_and_forwards_are_counted_by_model(hire: Hire, post: Post) -> None:
    worker = hire(batch_shape=8)
    name = "tiny@1.0.0"
    before = read(generate_latest().decode())
    accept(worker, post, count=6, chunk_size=6, steps=4, guidance_scale=2.0)
    work(worker, post)
    after = read(generate_latest().decode())

    def grown(metric: str, label: str = name) -> float:
        return after[metric, label] - before.get((metric, label), 0.0)

    forwards, used = worker.engine.counts
    assert grown("twinset_engine_steps_total") == 6 * 4
    assert grown("twinset_engine_rows_total") == used == 6 * 4 * 2
    assert grown("twinset_engine_capacity_rows_total") == forwards * 8
    assert grown("twinset_engine_forward_seconds_count") == forwards
    assert grown("twinset_engine_forward_seconds_sum") > 0.0
    assert grown("twinset_worker_samples_total", "made") == 6


def test_the_page_shows_queues_memory_and_utilisation(hire: Hire, post: Post) -> None:
    worker = hire(batch_shape=8)
    accept(worker, post, count=6, chunk_size=6, steps=4)
    work(worker, post)
    registry = CollectorRegistry()
    registry.register(WorkerCollector(worker))
    values = read(generate_latest(registry).decode())
    for stage in ("denoise", "decode", "store"):
        assert values["twinset_stage_waiting", stage] == 0.0
    assert values["twinset_engine_rows_capacity", "tiny@1.0.0"] == 8.0
    assert values["twinset_engine_rows_held", "tiny@1.0.0"] == 0.0
    network = TinySystem().network
    assert values["twinset_model_memory_bytes", "tiny@1.0.0"] == sum(p.numel() * 4 for p in network.parameters())
    assert 0.0 < values["twinset_engine_flop_utilisation", "tiny@1.0.0"] < 1.0
    assert values["twinset_worker_samples_capacity", ""] == 256.0
    assert values["twinset_engine_preemptions_total", ""] == 0.0


def test_the_page_is_served(hire: Hire, redis: Redis, free_tcp_port: int) -> None:
    collector.expose(hire(), free_tcp_port, "127.0.0.1", CollectorRegistry())
    with urllib.request.urlopen(f"http://127.0.0.1:{free_tcp_port}/metrics", timeout=10) as answer:
        assert "twinset_worker_samples_held 0.0" in answer.read().decode()


def test_flops_are_those_of_the_layers_by_hand() -> None:
    class Two(TinySystem):
        network = nn.Sequential(nn.Conv2d(6, 16, 3, padding=1), nn.Flatten(), nn.Linear(16 * 64, 6 * 64))

        def forward(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
            return self.network(x).view_as(x)

    convolution, linear = 2 * 64 * 16 * (6 * 9), 2 * 16 * 64 * 6 * 64
    system = Two()
    system.network = Two.network
    assert flops_per_row(system) == convolution + linear


def test_the_matmul_rate_is_measured_once_and_leaves_the_threads_alone() -> None:
    before = torch.get_num_threads()
    cpu = torch.device("cpu")
    rate = matmul_rate(cpu, torch.float32, 1)
    assert 1e8 < rate < 1e14
    assert matmul_rate(cpu, torch.float32, 1) == rate
    assert torch.get_num_threads() == before


def test_utilisation_is_useful_flops_over_time_and_the_devices_rate(
    hire: Hire, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = hire().models.get("tiny@1.0.0")
    assert flop_utilisation(loaded, 1) == 0.0, "nothing ran"
    model: EngineModel = loaded.engine_model
    # of 8 rows 6 held samples, twice, in half a second each: 12 rows a second
    for _ in range(2):
        model.record_step(samples=3, used=6, rows=8, seconds=[0.5])
    assert model.used_rows_per_second() == 12.0
    monkeypatch.setattr(collector, "matmul_rate", lambda *_: 100.0 * loaded.flops_per_row)
    assert flop_utilisation(loaded, 1) == pytest.approx(0.12)
