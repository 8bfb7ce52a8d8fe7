"""The quota of device-seconds: what counts in a month, budgets within what is left, and refusals."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.errors import LimitReached
from service.kit.ids import new_id
from service.kit.states import JobState
from service.runs.repository import RunRepository
from service.runs.spec import RunSpec, RunSummary
from service.settings import Settings
from service.store import ObjectStore, run_keys
from service.store.immutable import StoredObject
from service.trainings.quota import TrainingQuota, TrainingUsage
from service.trainings.records import CheckpointRecord, TrainingRecords
from service.trainings.work import TrainingWork

NOW = datetime(2026, 12, 31, 12, tzinfo=UTC)
WORK = TrainingWork.model_validate({"stages": [{"system": "cosimgen", "data": ["scenes@1"]}], "model": "scenes"})


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"limit_training_device_seconds": 100})


def accept(store: ObjectStore, quota: TrainingQuota, at: datetime = NOW, budget: float | None = None) -> str:
    """A training that the quota has admitted, with its spec in the store."""
    run = new_id("t", at)
    work = WORK.model_copy(update={"budget": WORK.budget.model_copy(update={"device_seconds": budget})})
    with quota.admit(work, run, tenant="default") as admitted:
        spec = RunSpec(run=run, created_at=at, work=admitted.model_dump(mode="json"))
        RunRepository(store).write_spec(spec)
    return run


def end(store: ObjectStore, run: str) -> None:
    summary = RunSummary(run=run, state=JobState.FAILED, done=0, finished_at=NOW, seconds=1.0)
    store.put(run_keys.run_summary(run), summary.model_dump_json().encode())


@pytest.fixture
def usage(store: ObjectStore) -> TrainingUsage:
    return TrainingUsage(store)


def test_a_training_counts_with_its_budget_until_it_has_ended_and_then_with_what_it_used(
    store: ObjectStore, usage: TrainingUsage
) -> None:
    at = datetime.now(UTC)
    quota = TrainingQuota(usage, 100)
    run = accept(store, quota, at, budget=60)
    assert usage.counted("default", at) == (0, 60)
    for seconds in (10.2, 20.0):
        usage.record("default", run, seconds)
    assert usage.counted("default", at) == (20, 40)
    assert len(list(store.list("tenants/default/training-seconds/"))) == 2  # a budget, and the last count
    assert quota.check(WORK, tenant="default", now=at).budget.device_seconds == 40.0
    end(store, run)
    assert usage.counted("default", at) == (20, 0)
    assert quota.check(WORK, tenant="default", now=at).budget.device_seconds == 80.0
    # deleting it gives nothing back
    for info in list(store.list(run_keys.run_prefix(run))):
        store.delete(info.key)
    assert usage.counted("default", at) == (20, 0)
    assert usage.counted("other", at) == (0, 0)
    # one that took longer than its budget, up to its next checkpoint, counts in full
    usage.record("default", run, 70.5)
    assert usage.counted("default", at) == (71, 0)


def test_each_month_counts_for_itself_and_a_training_in_the_month_of_its_acceptance(
    store: ObjectStore, usage: TrainingUsage
) -> None:
    quota = TrainingQuota(usage, 100)
    december, january = NOW, datetime(2027, 1, 1, 0, 0, 1, tzinfo=UTC)
    run = new_id("t", december)
    usage.record("default", run, 100)
    with pytest.raises(LimitReached) as refused:
        quota.check(WORK, tenant="default", now=december)
    assert refused.value.detail == (
        "tenant 'default' has used 100 device-seconds of training this month; the limit is 100: wait until 2027-01-01 "
        "(UTC), or ask the operator of this service for more"
    )
    assert refused.value.retry_after_s == 12 * 3600
    assert refused.value.extra == {"limit": "TWINSET_LIMIT_TRAINING_DEVICE_SECONDS", "max": 100, "used": 100}
    usage.record("default", run, 130)  # it goes on in January
    assert quota.check(WORK, tenant="default", now=january).budget.device_seconds == 100.0


def test_without_a_limit_nothing_is_reserved_and_no_budget_is_set(store: ObjectStore, usage: TrainingUsage) -> None:
    quota = TrainingQuota(usage, 0)
    accept(store, quota, datetime.now(UTC))
    assert list(store.list("tenants/default/training-seconds/")) == []
    assert quota.check(WORK, tenant="default") == WORK


def test_the_api_refuses_trainings_beyond_the_limit_and_caps_the_others(
    client: TestClient, stored: Callable[..., str], store: ObjectStore
) -> None:
    stored()
    body: dict[str, Any] = {"system": "cosimgen", "dataset": "scenes"}
    planned = client.post("/trainings", json={**body, "dry_run": True}).json()
    assert planned["budget"]["device_seconds"] == 100.0
    first = client.post("/trainings", json={**body, "budget": {"device_seconds": 30, "iterations": 5}})
    assert first.json()["budget"] == {"iterations": 5, "hours": None, "device_seconds": 30.0}
    second = client.post(
        "/trainings", json={**body, "budget": {"device_seconds": 1e6}}, headers={"Idempotency-Key": "a"}
    )
    assert second.json()["budget"]["device_seconds"] == 70.0
    refused = client.post("/trainings", json=body)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "60")
    assert refused.json()["detail"] == (
        "tenant 'default' has used 0 device-seconds of training this month, and trainings that have not ended may use "
        "100 more; the limit is 100: wait until one has ended, cancel one, or ask the operator of this service for more"
    )
    assert client.post("/trainings", json={**body, "dry_run": True}).status_code == 429
    # the same request again is the same training, also at the limit
    again = client.post(
        "/trainings", json={**body, "budget": {"device_seconds": 1e6}}, headers={"Idempotency-Key": "a"}
    )
    assert (again.status_code, again.json()["id"]) == (202, second.json()["id"])
    assert client.post(f"/trainings/{first.json()['id']}/cancel").json()["state"] == "cancelled"
    assert client.post("/trainings", json=body).json()["budget"]["device_seconds"] == 30.0


def test_a_retry_takes_what_its_training_left_of_the_budget(
    client: TestClient, stored: Callable[..., str], store: ObjectStore, usage: TrainingUsage
) -> None:
    stored()
    body = {"system": "cosimgen", "dataset": "scenes", "budget": {"device_seconds": 80}}
    run = client.post("/trainings", json=body).json()["id"]
    record = CheckpointRecord(
        run=run,
        stage=0,
        iteration=5,
        iterations=9,
        file=StoredObject(key=f"trainings/{run}/checkpoints/a.safetensors", sha256="0" * 64, bytes=1),
        seconds=30.0,
        device_seconds=30.0,
        at=datetime.now(UTC),
        worker="w",
    )
    TrainingRecords(store, run).write_checkpoint(record)
    usage.record("default", run, 30.0)
    assert client.post(f"/trainings/{run}/cancel").json()["state"] == "cancelled"
    again = client.post(f"/trainings/{run}/retry").json()
    # the budget is of both together; the rest of it is reserved beside what was used
    assert again["budget"]["device_seconds"] == 80.0
    assert usage.counted("default", datetime.now(UTC)) == (30, 50)
    other = client.post("/trainings", json=body).json()
    assert other["budget"]["device_seconds"] == 20.0
    assert client.post(f"/trainings/{again['id']}/cancel").json()["state"] == "cancelled"
    last = client.post(f"/trainings/{run}/retry", headers={"Idempotency-Key": "b"}).json()
    assert last["budget"]["device_seconds"] == 80.0
    assert client.post(f"/trainings/{run}/retry").status_code == 429


def test_several_requests_at_once_share_what_is_left(stored: Callable[..., str], app: FastAPI) -> None:
    from concurrent.futures import ThreadPoolExecutor

    stored()
    body = {"system": "cosimgen", "dataset": "scenes", "budget": {"device_seconds": 40}}
    with TestClient(app) as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.post("/trainings", json=body), range(8)))
    accepted = [answer.json()["budget"]["device_seconds"] for answer in answers if answer.status_code == 202]
    assert sorted(accepted) == [20.0, 40.0, 40.0]
