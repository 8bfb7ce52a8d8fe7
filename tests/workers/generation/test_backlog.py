"""The backlog that the API exports: exact by the store, whatever Redis has lost, and busy workers by their leases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis
from starlette.testclient import TestClient

from service.api.app import create_app
from service.api.fleet import FleetWork
from service.errors import StoreUnavailable
from service.jobs.device_time import UNMEASURED_TWIN_S
from service.jobs.repository import JobRepository
from service.jobs.spec import JobSpec
from service.registry.batch_shape import ShapeChoice
from service.settings import Settings
from service.store import keys
from service.store.base import ObjectStore
from service.store.folder import FolderStore
from tests.workers.conftest import Hire
from tests.workers.fakes import Post, tiny_card, tiny_spec
from workers.generation.chunk import ChunkOutcome, generate_chunk

MODEL = tiny_card().id
ROW_S = 0.1


@pytest.fixture
def app(settings: Settings, store: FolderStore, redis: Redis) -> FastAPI:
    return create_app(settings, store=store)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


def forget(app: FastAPI) -> None:
    """Makes the API read the backlog again at the next request."""
    app.state.services.fleet._latest = None


def metrics(client: TestClient) -> dict[str, dict[str, float]]:
    """Values by metric and model, or kind; "" without a label."""
    client.app.state.services.metrics_text._latest = None  # type: ignore[attr-defined]  # it is kept for a second
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            label = sample.labels.get("model", sample.labels.get("kind", ""))
            found.setdefault(sample.name, {})[label] = sample.value
    return found


def measured(store: ObjectStore, row_s: float, *, day: int = 1) -> None:
    """What the first worker of a machine type stores."""
    choice = ShapeChoice(
        model=MODEL,
        machine={"device": "test"},
        rows=8,
        seconds_per_row={4: 2 * row_s, 8: row_s},
        chosen_at=datetime(2026, 1, day, tzinfo=UTC),
    )
    store.put(keys.shape_choice(MODEL, f"{day:064x}"), choice.model_dump_json().encode())


def accept(store: ObjectStore, **changes: Any) -> JobSpec:
    spec = tiny_spec(**changes)
    JobRepository(store).write_spec(spec)
    return spec


def test_the_backlog_is_what_is_not_recorded_at_the_measured_rate_and_survives_an_emptied_redis(
    app: FastAPI, client: TestClient, hire: Hire, post: Post, store: FolderStore, redis: Redis
) -> None:
    measured(store, 5 * ROW_S, day=1)
    measured(store, ROW_S, day=2)
    spec = accept(store, count=9, chunk_size=2, steps=3, guidance_scale=2.0)
    accept(store, count=5, chunk_size=2, steps=4, guidance_scale=1.0, tenant="acme")
    whole = 9 * 3 * 2 * ROW_S + 5 * 4 * ROW_S
    found = metrics(client)
    assert found["twinset_backlog_device_seconds"] == {MODEL: pytest.approx(whole)}
    assert found["twinset_backlog_samples"] == {MODEL: 14}
    assert found["twinset_open_jobs"] == {"": 2}
    assert found["twinset_row_step_device_seconds"] == {MODEL: ROW_S}
    assert found["twinset_tenants_waiting"] == {"": 2}
    assert found["twinset_largest_tenant_share"][""] == pytest.approx(5.4 / whole)
    assert "acme" not in client.get("/metrics").text

    worker = hire()
    assert generate_chunk(worker, spec.job, 0) is ChunkOutcome.RECORDED
    assert generate_chunk(worker, spec.job, 4) is ChunkOutcome.RECORDED, "the last chunk, of one sample"
    redis.flushall()
    forget(app)
    left = metrics(client)
    assert left["twinset_backlog_device_seconds"] == {MODEL: pytest.approx(whole - 3 * 3 * 2 * ROW_S)}
    assert left["twinset_backlog_samples"] == {MODEL: 11}
    assert client.get("/autoscaling?target_s=1").json()["replicas"] == 6, "5.6 s of work in 1 s"


def test_workers_that_hold_leases_are_counted_once_and_never_scaled_away(
    app: FastAPI, client: TestClient, hire: Hire, store: FolderStore, redis: Redis
) -> None:
    spec, other = accept(store, count=20, chunk_size=2), accept(store, count=20, chunk_size=2)
    one, two = hire(), hire()
    with ExitStack() as held:
        for worker, job, chunk in ((one, spec, 0), (one, other, 0), (two, spec, 1)):
            lease = worker.leases.take(job.job, chunk)
            assert lease is not None
            held.callback(worker.leases.release, lease)
        found = client.get("/autoscaling?target_s=604800").json()
        assert (found["replicas"], found["busy_workers"]) == (2, 2)
        assert found["models"][0]["leases"] == 3
        assert found["models"][0]["backlog_device_seconds"] == 40 * UNMEASURED_TWIN_S
        assert found["models"][0]["row_step_device_seconds"] is None
        assert metrics(client)["twinset_busy_workers"] == {MODEL: 2}
        redis.flushall()
        one.claims.renewer._leases.renew(lease)
        forget(app)
        assert client.get("/autoscaling").json()["busy_workers"] == 1, "renewed, so counted again"
    forget(app)
    assert client.get("/autoscaling?target_s=604800").json()["replicas"] == 1


def test_models_are_counted_by_name_or_version_and_what_no_pool_names_by_exception(
    client: TestClient, store: FolderStore
) -> None:
    accept(store, count=8, chunk_size=2)
    name = MODEL.partition("@")[0]
    for query, backlog_s in (
        (f"models={name}", 8.0),
        (f"models=other,{MODEL}", 8.0),
        ("models=other", 0.0),
        (f"except_models={name}", 0.0),
        ("except_models=other", 8.0),
    ):
        assert client.get(f"/autoscaling?{query}").json()["backlog_device_seconds"] == backlog_s, query
    assert client.get("/autoscaling?target_s=0").status_code == 422
    assert client.get("/autoscaling?model=x").status_code == 422


def test_cancelled_and_ended_jobs_are_no_backlog(app: FastAPI, client: TestClient, store: FolderStore) -> None:
    repository = JobRepository(store)
    ended, cancelled, deleted = (accept(store, count=4, chunk_size=2) for _ in range(3))
    assert metrics(client)["twinset_backlog_samples"] == {MODEL: 12}
    repository.conclude(ended)
    repository.request_cancel(cancelled.job)
    store.delete(keys.job_spec(deleted.job))
    forget(app)
    found = metrics(client)
    assert found["twinset_backlog_samples"] == {MODEL: 0}
    assert found["twinset_open_jobs"] == {"": 1}
    assert client.get("/autoscaling").json()["replicas"] == 0


def test_what_cannot_be_read_has_no_value_instead_of_none_to_do(settings: Settings, store: FolderStore) -> None:
    down = settings.model_copy(update={"broker_url": "redis://127.0.0.1:9/0"})
    accept(store, count=4, chunk_size=2)
    with TestClient(create_app(down, store=store), raise_server_exceptions=False) as client:
        found = metrics(client)
        assert found["twinset_backlog_samples"] == {MODEL: 4}
        assert "twinset_busy_workers" not in found
        answer = client.get("/autoscaling")
        assert answer.status_code == 503
        assert answer.json()["type"].endswith("broker-unavailable")

        def unreadable() -> FleetWork:
            raise StoreUnavailable("the store does not answer")

        client.app.state.services.fleet._compute = unreadable  # type: ignore[attr-defined]
        client.app.state.services.fleet._latest = None  # type: ignore[attr-defined]
        assert not [name for name in metrics(client) if name.startswith(("twinset_backlog", "twinset_open"))]
        assert client.get("/autoscaling").status_code == 503


def test_bulk_workers_are_wanted_for_open_runs(client: TestClient, store: FolderStore) -> None:
    for run in ("e7ybr17pesw6kn47yb0", "d7ybr17pesw6kn47yb0", "d7ybr17pesw6kn47yb1"):
        store.put(f"runs/open/{run}", b"")
    assert metrics(client)["twinset_open_runs"] == {"dataset": 2, "augmentation": 0, "export": 1, "training": 0}
    bulk = client.get("/autoscaling?runs_per_worker=2").json()["bulk"]
    assert bulk == {"runs": 3, "busy_workers": 0, "replicas": 2}
