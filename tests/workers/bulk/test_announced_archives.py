"""An archive counts for its tenant before it is stored: also if the API dies before it has written the run's spec."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.datasets.stored import layout
from service.jobs.repository import JobRepository
from service.runs.repository import RunRepository
from service.store import ObjectStore, run_keys
from tests.workers.bulk.conftest import RecordingRunQueue, dataset_tar, send
from workers.bulk import sweeper as sweeping
from workers.bulk.execute import RunOutcome
from workers.bulk.sweeper import RunSweeper
from workers.bulk.worker import BulkWorker

Execute = Callable[[str], RunOutcome]


def test_the_archive_of_a_dead_api_is_counted_until_the_sweeper_removes_it(
    app: FastAPI, store: ObjectStore, worker: BulkWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: Any) -> None:
        raise MemoryError("killed")

    monkeypatch.setattr(RunRepository, "write_spec", dies)
    archive = dataset_tar(3)
    with pytest.raises(MemoryError):
        send(TestClient(app), archive)
    monkeypatch.undo()
    usage = JobRepository(store).usage
    [run] = usage.stored_bytes("default")
    assert usage.stored_bytes("default") == {run: len(archive)}
    assert store.head(layout.archive(run)) is not None
    assert usage.reconcile("default") == 0

    sweeper = RunSweeper(worker)
    sweeper.run_once()
    assert store.head(layout.archive(run)) is not None, "it may still be written"
    monkeypatch.setattr(sweeping, "_NEVER_WRITTEN_AFTER", timedelta(0))
    sweeper.run_once()
    sweeper.run_once()
    assert usage.stored_bytes("default") == {}
    assert list(store.list(run_keys.run_prefix(run))) == []
    assert list(RunRepository(store).open_runs()) == []
    assert list(RunRepository(store).deleted_runs()) == []


def test_after_the_import_the_dataset_counts_in_place_of_its_archive(
    client: TestClient, execute: Execute, run_queue: RecordingRunQueue, store: ObjectStore
) -> None:
    usage = JobRepository(store).usage
    archive = dataset_tar(3)
    send(client, archive)
    run = run_queue.sent[-1]
    assert usage.stored_bytes("default") == {run: len(archive)}
    execute(run)
    counted = usage.stored_bytes("default")[run]
    assert counted != len(archive)
    assert len(list(store.list("tenants/default/stored/"))) == 1


def test_an_archive_is_cut_off_at_the_tenants_limit(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    from service.jobs import quotas

    monkeypatch.setattr(quotas, "_RECHECK_BYTES", 1000)
    app.state.services.limits.stored_bytes = 1_000_000
    read = 0

    def pieces() -> Any:
        nonlocal read
        for _ in range(100):
            read += 1 << 20
            yield bytes(1 << 20)

    client = TestClient(app)
    answer = client.post("/datasets?name=x", content=pieces(), headers={"Content-Type": "application/zip"})
    assert (answer.status_code, answer.json()["limit"]) == (429, "TWINSET_LIMIT_STORED_BYTES")
    assert list(app.state.services.store.list("datasets/")) == []
