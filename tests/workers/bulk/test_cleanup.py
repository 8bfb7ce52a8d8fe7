"""Tests of the clean-up of ended runs: wherever a worker is killed, no uncounted object is left."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.datasets.stored import layout
from service.kit.run_kinds import RunKind
from service.kit.states import JobState
from service.store import ObjectStore, run_keys
from service.store.folder import FolderStore
from service.store.keys import ATTEMPT
from tests.breaking import FailsAfter
from tests.workers.bulk.conftest import RecordingRunQueue, dataset_tar, send
from tests.workers.bulk.test_execute import DONE, accepted, kinds
from tests.workers.bulk.test_exports import files
from workers.bulk.context import Finished, RunContext, RunReleased
from workers.bulk.execute import RunOutcome, execute_run
from workers.bulk.handlers import handlers
from workers.bulk.sweeper import RunSweeper
from workers.bulk.worker import BulkWorker

Execute = Callable[[str], RunOutcome]
Hire = Callable[..., BulkWorker]


@pytest.fixture
def export(client: TestClient, execute: Execute, run_queue: RecordingRunQueue) -> str:
    """Id of an export of 6 items in 3 shards that is not started."""
    send(client, dataset_tar(6))
    execute(run_queue.sent[-1])
    body = {"sources": [{"dataset": "scenes"}], "format": "webdataset", "shard_items": 2}
    return str(client.post("/exports", json=body).json()["id"])


def made(store: ObjectStore, run: str) -> list[str]:
    """The names of a run's objects, without those that record the run itself."""
    prefix = run_keys.run_prefix(run)
    said = {"spec.json", "started.json", "cancel.json", "summary.json"}
    return [name for info in store.list(prefix) if (name := info.key.removeprefix(prefix)) not in said]


def break_at_the_third_shard(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def broken(real: Callable[..., Any]) -> Callable[..., Any]:
        def put(self: Any, key: str, *given: Any, **options: Any) -> Any:
            if "train-000002." in key:
                raise error
            return real(self, key, *given, **options)

        return put

    for name in ("put", "put_file"):
        monkeypatch.setattr(FolderStore, name, broken(getattr(FolderStore, name)))


def test_a_failed_export_keeps_nothing(
    client: TestClient, export: str, worker: BulkWorker, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = worker.repository.usage.stored_bytes("default")
    break_at_the_third_shard(monkeypatch, RuntimeError("a fault of ours"))
    assert execute_run(worker, export, handlers()) is RunOutcome.FAILED
    left = {re.sub(rf"\.{ATTEMPT}\.", ".", name) for name in made(store, export)}
    assert {"files/train-000000.tar", "checkpoints/000001.json"} <= left, "another worker may continue it"
    told = run_keys.run_callback(export, 1)
    store.put(told, b"{}")
    assert execute_run(worker, export, handlers()) is RunOutcome.ENDED
    view = client.get(f"/exports/{export}").json()
    assert (view["state"], view["files"], view["bytes"]) == ("failed", None, None)
    assert "a fault of ours" in view["reason"]
    assert made(store, export) == ["callbacks/0001.json"], "webhook attempts are kept"
    assert worker.repository.usage.stored_bytes("default") == before
    assert store.head(run_keys.open_run(export)) is None


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELLED])
def test_the_sweeper_removes_the_rest_after_a_kill_at_any_delete(
    hire: Hire, store: FolderStore, state: JobState
) -> None:
    breaking = FailsAfter(store.root, link_secret=b"0123456789abcdef", public_url="http://127.0.0.1:8000")
    killed, other = hire(store=breaking), hire()

    def handle(context: RunContext) -> Finished:
        for number in range(3):
            store.put(f"{run_keys.run_prefix(context.spec.run)}files/{number}.tar", b"half")
        if state is JobState.CANCELLED:
            raise RunReleased(cancelled=True)
        return Finished(state, 0, reason="it cannot be")

    sweeper = RunSweeper(other)
    for left in range(10):
        spec = accepted(other)
        breaking.left = left
        assert execute_run(killed, spec.run, kinds(handle)) is (
            RunOutcome.CANCELLED if state is JobState.CANCELLED else RunOutcome.ENDED
        )
        summary = other.runs.read_summary(spec.run)
        assert summary is not None
        assert (summary.state, summary.bytes) == (state, 0), "a run ends even if the store cannot delete"
        cleaned_up = store.head(run_keys.open_run(spec.run)) is None
        assert cleaned_up or left < 4
        assert not (cleaned_up and made(store, spec.run)), "it stays open while any object is left"
        assert sweeper.run_once()
        assert made(store, spec.run) == []
        assert store.head(run_keys.open_run(spec.run)) is None
    assert left == 9


def test_the_sweeper_cleans_up_after_a_kill_right_after_the_summary(worker: BulkWorker, store: ObjectStore) -> None:
    spec = accepted(worker)
    store.put(f"{run_keys.run_prefix(spec.run)}files/0.tar", b"half")
    worker.runs.end(spec, JobState.FAILED, reason="and then the lights went out")
    assert RunSweeper(worker).run_once()
    assert made(store, spec.run) == []
    assert store.head(run_keys.open_run(spec.run)) is None


def test_a_worker_that_lost_its_lease_leaves_no_objects(hire: Hire, store: ObjectStore) -> None:
    late, other = hire(), hire()
    spec = accepted(late)

    def late_carry(context: RunContext) -> Finished:
        # stopped here past its lease: another takes the run over and ends it
        late.leases.release(context.lease.lease)
        assert (
            execute_run(other, spec.run, kinds(lambda _: Finished(JobState.FAILED, 0, reason="no pair")))
            is RunOutcome.ENDED
        )
        store.put(f"{run_keys.run_prefix(spec.run)}files/late.tar", b"half")
        context.lease.lost = True
        context.check()
        raise AssertionError("the lost lease was not seen")

    assert execute_run(late, spec.run, kinds(late_carry)) is RunOutcome.RELEASED
    assert made(store, spec.run) == []


def test_a_finished_export_keeps_its_files_but_not_its_checkpoints(
    client: TestClient, export: str, hire: Hire, store: FolderStore
) -> None:
    breaking = FailsAfter(store.root, link_secret=b"0123456789abcdef", public_url="http://127.0.0.1:8000")
    breaking.left = 0
    assert execute_run(hire(store=breaking), export, handlers()) is RunOutcome.ENDED
    left = made(store, export)
    assert any(name.startswith("checkpoints/") for name in left)
    view = client.get(f"/exports/{export}").json()
    wanted = files(client, view)
    assert RunSweeper(hire()).run_once()
    assert made(store, export) == [name for name in left if not name.startswith("checkpoints/")]
    assert files(client, view) == wanted


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED])
def test_an_archive_is_removed_and_the_report_of_a_failed_dataset_kept(
    worker: BulkWorker, store: ObjectStore, state: JobState
) -> None:
    spec = accepted(worker, RunKind.DATASET)
    store.put(layout.archive(spec.run), b"gigabytes")

    def handle(context: RunContext) -> Finished:
        store.put(layout.shard(spec.run, 0), b"x")
        store.put(layout.report(spec.run), b"{}")
        if state is JobState.CANCELLED:
            raise RunReleased(cancelled=True)
        return DONE if state is JobState.SUCCEEDED else Finished(state, 0, reason="no pair")

    execute_run(worker, spec.run, kinds(handle))
    kept = {
        JobState.SUCCEEDED: ["report.json", "shards/000000.tar"],
        JobState.FAILED: ["report.json"],
        JobState.CANCELLED: [],
    }
    assert made(store, spec.run) == kept[state]


def test_a_dataset_cancelled_before_its_start_loses_its_archive(
    client: TestClient, worker: BulkWorker, run_queue: RecordingRunQueue, store: ObjectStore
) -> None:
    send(client, dataset_tar(2))
    run = run_queue.sent[-1]
    assert client.post("/datasets/scenes/1/cancel").json()["state"] == "cancelled"
    assert made(store, run) == ["source/archive"]
    assert RunSweeper(worker).run_once()
    assert made(store, run) == []
