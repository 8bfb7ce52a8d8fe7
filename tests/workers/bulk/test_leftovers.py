"""Tests of what late workers leave in ended runs: it is swept after a day, and nothing that counts is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.testclient import TestClient

from service.augmentations.rounds import Rounds, RoundState, WantedLine
from service.kit.run_kinds import RunKind, new_run_id
from service.kit.states import JobState
from service.store import ObjectStore, run_keys
from service.store.keys import with_attempt
from service.store.round_keys import AcceptedLine, round_prefix
from tests.workers.bulk.conftest import RecordingRunQueue, dataset_tar, send
from tests.workers.bulk.test_execute import accepted
from workers.bulk.execute import RunOutcome
from workers.bulk.leftovers import RunLeftovers
from workers.bulk.worker import BulkWorker

STRAY = "ab" * 32
Execute = Callable[[str], RunOutcome]


def keys_of(store: ObjectStore, run: str) -> set[str]:
    return {info.key for info in store.list(run_keys.run_prefix(run))}


def search(worker: BulkWorker, days: float, times: int = 1) -> None:
    """Searches for leftovers as many days from now."""
    leftovers = RunLeftovers(worker, now=lambda: datetime.now(UTC) + timedelta(days=days), poll_interval_s=0.0, size=1)
    for _ in range(times):
        leftovers.remove(lambda: True)


def test_leftovers_of_every_kind_of_run_are_swept_once_after_a_day(
    client: TestClient, execute: Execute, run_queue: RecordingRunQueue, worker: BulkWorker, store: ObjectStore
) -> None:
    send(client, dataset_tar(4))
    dataset = run_queue.sent[-1]
    execute(dataset)
    export = str(client.post("/exports", json={"sources": [{"dataset": "scenes"}], "format": "coco"}).json()["id"])
    execute(export)
    failed = accepted(worker)
    worker.runs.end(failed, JobState.FAILED, reason="no pair")
    augmentation = accepted(worker, RunKind.AUGMENTATION)
    state = RoundState(counts={"accepted": 1}, rejected={})
    line = AcceptedLine(job="j7ybr17pesw6kn47yb0", index=0)
    Rounds(store, augmentation.run).finish(0, [line], b"fingerprints", state)
    worker.runs.end(augmentation, JobState.SUCCEEDED, done=1)

    runs = (dataset, export, failed.run, augmentation.run)
    counted = {run: keys_of(store, run) for run in runs}
    strays = [
        with_attempt(f"{run_keys.run_prefix(dataset)}shards/000000.tar", STRAY),
        with_attempt(f"{run_keys.run_prefix(dataset)}preview.png", STRAY),
        with_attempt(f"{run_keys.run_prefix(export)}files/part-00000.zip", STRAY),
        with_attempt(f"{run_keys.run_prefix(export)}files.jsonl", STRAY),
        with_attempt(f"{run_keys.run_prefix(export)}checkpoints/000001.json", STRAY),
        with_attempt(f"{run_keys.run_prefix(failed.run)}files/part-00000.zip", STRAY),
        with_attempt(f"{round_prefix(augmentation.run, 0)}accepted.jsonl", STRAY),
        with_attempt(f"{round_prefix(augmentation.run, 0)}fingerprints.bin", STRAY),
    ]
    for key in strays:
        store.put(key, b"of another attempt")
    search(worker, 0.5, times=3)
    assert all(store.head(key) is not None for key in strays), "a worker may still be writing"
    search(worker, 2.0, times=3)
    for run in runs:
        assert keys_of(store, run) == counted[run] | {run_keys.run_swept(run)}
    store.put(strays[0], b"of a worker that slept for days")
    search(worker, 4.0, times=3)
    assert store.head(strays[0]) is not None, "each run is searched once"


def test_what_is_written_after_a_deletion_is_swept_too(worker: BulkWorker, store: ObjectStore) -> None:
    gone, running = new_run_id(RunKind.EXPORT, datetime.now(UTC)), accepted(worker)
    late = f"{run_keys.run_prefix(gone)}files/late.tar"
    partial = f"{run_keys.run_prefix(running.run)}files/0.tar"
    for key in (late, partial):
        store.put(key, b"x")
    search(worker, 0.5, times=2)
    assert store.head(late) is not None
    search(worker, 2.0, times=2)
    assert store.head(late) is None
    assert store.head(partial) is not None, "the run has not ended"


def test_of_two_workers_at_a_round_the_first_decides(worker: BulkWorker, store: ObjectStore) -> None:
    rounds = Rounds(store, accepted(worker, RunKind.AUGMENTATION).run)

    def line(item: str) -> WantedLine:
        values: dict[str, Any] = {"upload": None, "applied": (), "shares": (1.0,), "source_mask": None}
        return WantedLine(wanted={"item": 0}, item=item, **values)

    assert rounds.write_plan(0, [line("first")]) == [line("first")]
    assert rounds.write_plan(0, [line("second")]) == [line("first")] == rounds.read_plan(0)
    twins = [[AcceptedLine(job="j7ybr17pesw6kn47yb0", index=index)] for index in range(2)]
    states = [RoundState(counts={"accepted": count}, rejected={}) for count in (1, 2)]
    first = rounds.finish(0, twins[0], b"one", states[0])
    late = rounds.finish(0, twins[1], b"other", states[1])
    assert late == first == rounds.read_state(0)
    assert first.counts == {"accepted": 1}
    assert rounds.read_fingerprints(0) == b"one"
    assert first.accepted is not None
    assert b'"index":0' in store.get(first.accepted.key)
