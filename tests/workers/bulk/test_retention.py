"""Tests of the retention of exports and augmentation sets; datasets, and sets that are still read, stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.augmentations.rounds import Rounds
from service.kit.run_kinds import RunKind, new_run_id
from service.kit.states import JobState
from service.runs.spec import RunSpec
from service.settings import Settings
from service.store import ObjectStore, run_keys
from tests.service.api.support import mask_card, register
from tests.workers.bulk.conftest import RecordingRunQueue, dataset_tar, send
from tests.workers.bulk.test_augmentations import ask, execute_until_ended
from tests.workers.bulk.test_exports import NAMES, files
from workers.bulk.execute import RunOutcome
from workers.bulk.retention import RunRetention
from workers.bulk.sweeper import RunSweeper
from workers.bulk.worker import BulkWorker, open_bulk_worker

Execute = Callable[[str], RunOutcome]
DAYS = 7


@pytest.fixture
def forgetful(settings: Settings, store: ObjectStore, run_queue: RecordingRunQueue) -> Iterator[BulkWorker]:
    """A worker with a retention of one week."""
    worker = open_bulk_worker(settings.model_copy(update={"run_retention_days": DAYS}), store=store, queue=run_queue)
    yield worker
    worker.close()


def sweep(worker: BulkWorker, *, later: float = 0.0, times: int = 2, size: int = 100) -> None:
    """Runs the sweeper ``times`` times, ``later`` days from now."""

    def now() -> datetime:
        return datetime.now(UTC) + timedelta(days=later)

    sweeper = RunSweeper(worker, RunRetention(worker, now=now, poll_interval_s=0.0, size=size))
    for _ in range(times):
        assert sweeper.run_once()
    sweeper._leader_lock.release()


def run_of(
    worker: BulkWorker, kind: RunKind, accepted_days_ago: float, ended_days_ago: float | None, tenant: str = "default"
) -> str:
    """A run that was accepted and ended some days ago."""
    now = datetime.now(UTC)
    then = now - timedelta(days=accepted_days_ago)
    spec = RunSpec(run=new_run_id(kind, then), tenant=tenant, created_at=then, work={})
    worker.runs.write_spec(spec)
    if ended_days_ago is not None:
        worker.runs.end(spec, JobState.SUCCEEDED, size=10, now=now - timedelta(days=ended_days_ago))
    return spec.run


def left_of(store: ObjectStore, *runs: str) -> list[str]:
    """All keys that contain the id of one of the runs."""
    return [info.key for info in store.list("") if any(run in info.key for run in runs)]


def test_runs_expire_by_the_time_of_their_end(forgetful: BulkWorker, store: ObjectStore) -> None:
    expiring = (RunKind.EXPORT, RunKind.AUGMENTATION)
    old = [run_of(forgetful, kind, 9, 8, tenant) for kind in expiring for tenant in ("default", "acme")]
    old += [run_of(forgetful, RunKind.EXPORT, 20 + number, 19) for number in range(5)]
    stay = [run_of(forgetful, RunKind.DATASET, 40, 39)]
    for kind in expiring:
        stay += [run_of(forgetful, kind, 30, 1), run_of(forgetful, kind, 2, 1), run_of(forgetful, kind, 30, None)]
    sweep(forgetful, times=6, size=2)
    assert left_of(store, *old) == []
    for run in stay:
        assert forgetful.runs.read_spec(run).run == run
    assert forgetful.repository.usage.stored_bytes("acme") == {}
    assert set(forgetful.repository.usage.stored_bytes("default")) == {
        run for run in stay if forgetful.runs.read_summary(run)
    }


def test_by_default_runs_never_expire(worker: BulkWorker) -> None:
    kept = [run_of(worker, kind, 5000, 4999) for kind in RunKind]
    sweep(worker, later=3650)
    assert [worker.runs.read_spec(run).run for run in kept] == kept


@pytest.fixture
def scenes(client: TestClient, execute: Execute, run_queue: RecordingRunQueue, store: ObjectStore) -> str:
    """A dataset, and a model of the same classes that follows masks."""
    register(store, mask_card())
    found = send(client, dataset_tar(6, names=NAMES))["id"]
    execute(run_queue.sent[-1])
    return str(found)


def export_of(client: TestClient, run_queue: RecordingRunQueue, source: dict[str, str], **more: Any) -> str:
    answer = client.post("/exports", json={"sources": [source], "format": "webdataset"}, **more)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def test_an_expired_export_is_removed_like_a_deleted_one(
    client: TestClient,
    forgetful: BulkWorker,
    execute: Execute,
    scenes: str,
    run_queue: RecordingRunQueue,
    store: ObjectStore,
) -> None:
    headers = {"Idempotency-Key": "once"}
    run = export_of(client, run_queue, {"dataset": scenes}, headers=headers)
    execute(run)
    link = client.get(f"/exports/{run}/files").json()["files"][0]["url"]
    sweep(forgetful, later=DAYS - 1)
    assert client.get(link).status_code == 200
    sweep(forgetful, later=DAYS + 1)
    assert left_of(store, run) == []
    for path in (f"/exports/{run}", f"/exports/{run}/files", link):
        assert client.get(path).status_code == 404
    assert client.get("/exports").json()["exports"] == []
    assert client.get(f"/datasets/{scenes.replace('@', '/')}").json()["state"] == "succeeded"
    assert export_of(client, run_queue, {"dataset": scenes}, headers=headers) != run, "its key is free again"


def test_a_set_expires_with_its_jobs_after_the_exports_that_read_it(
    client: TestClient,
    forgetful: BulkWorker,
    worker: BulkWorker,
    execute: Execute,
    scenes: str,
    run_queue: RecordingRunQueue,
    store: ObjectStore,
) -> None:
    run = ask(client, dataset="scenes", model="tissue", count=4, seed=2)["id"]
    execute_until_ended(client, execute, worker, run)
    [job] = Rounds(store, run).jobs()
    done = export_of(client, run_queue, {"augmentation": run})
    execute(done)
    wanted = files(client, client.get(f"/exports/{done}").json())
    waiting = export_of(client, run_queue, {"augmentation": run})
    sweep(forgetful, later=DAYS + 1)
    assert client.get(f"/augmentations/{run}").status_code == 200
    assert client.get(f"/jobs/{job}").status_code == 200
    assert client.get(f"/exports/{done}").status_code == 404, "no export needs another"
    execute(waiting)
    view = client.get(f"/exports/{waiting}").json()
    assert (view["state"], view["items"]) == ("succeeded", {"real": 0, "synthetic": 4})
    assert files(client, view) == wanted
    # now no export reads it; the remaining export would expire as well by its own age
    summary = forgetful.runs.read_summary(waiting)
    assert summary is not None
    younger = summary.model_copy(update={"finished_at": summary.finished_at + timedelta(days=3)})
    store.put(run_keys.run_summary(waiting), younger.model_dump_json().encode())
    sweep(forgetful, later=DAYS + 1)
    assert left_of(store, run) == []
    assert client.get(f"/augmentations/{run}").status_code == 404
    assert client.get(f"/jobs/{job}").status_code == 404
    assert files(client, client.get(f"/exports/{waiting}").json()) == wanted, "an export has what it needs"
    answer = client.post("/exports", json={"sources": [{"augmentation": run}], "format": "coco"})
    assert answer.status_code == 404
    assert run in answer.json()["detail"]


def test_exports_of_missing_sets_fail_and_missing_twins_are_counted(
    client: TestClient,
    worker: BulkWorker,
    execute: Execute,
    scenes: str,
    run_queue: RecordingRunQueue,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import workers.bulk.augment as module

    monkeypatch.setattr(module, "MAX_ROUND_SAMPLES", 2)
    run = ask(client, dataset="scenes", model="tissue", count=6, seed=2)["id"]
    execute_until_ended(client, execute, worker, run)
    jobs = Rounds(worker.store, run).jobs()
    assert len(jobs) == 3
    exports = [export_of(client, run_queue, {"augmentation": run}) for _ in range(2)]
    assert client.delete(f"/jobs/{jobs[1]}").status_code == 204
    execute(exports[0])
    view = client.get(f"/exports/{exports[0]}").json()
    assert (view["state"], view["items"], view["skipped"]) == (
        "succeeded",
        {"real": 0, "synthetic": 4},
        {"missing": 2},
    )
    client.delete(f"/augmentations/{run}")
    assert execute(exports[1]) is RunOutcome.ENDED
    view = client.get(f"/exports/{exports[1]}").json()
    assert view["state"] == "failed"
    assert f"augmentation '{run}' does not exist" in view["reason"]
    assert list(worker.store.list(f"exports/{exports[1]}/files/")) == []
