"""Tests of datasets, exports and rounds of earlier versions, whose keys have no attempt: they are read as before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from starlette.testclient import TestClient

from service.augmentations.rounds import Rounds
from service.datasets.items import DatasetItem
from service.datasets.stored import layout
from service.datasets.stored.dataset import StoredDataset
from service.exports.augmentation_source import read_accepted
from service.exports.location import ExportLocation
from service.jobs.repository import JobRepository
from service.kit.run_kinds import RunKind, new_run_id
from service.runs.repository import RunRepository
from service.store import ObjectStore, run_keys
from service.store.round_keys import accepted, accepted_key, round_prefix
from tests.workers.bulk.conftest import RecordingRunQueue, dataset_tar, send
from workers.bulk.cleanup import clean_up_run
from workers.bulk.execute import RunOutcome

Execute = Callable[[str], RunOutcome]


def move(store: ObjectStore, source: str, target: str) -> None:
    store.put(target, store.get(source))
    store.delete(source)


def edit(store: ObjectStore, key: str, change: Callable[[dict[str, Any]], None]) -> None:
    value = json.loads(store.get(key))
    change(value)
    store.put(key, json.dumps(value).encode())


def imported(client: TestClient, execute: Execute, run_queue: RecordingRunQueue, store: ObjectStore) -> str:
    """A dataset as format 1 has it; its run."""
    send(client, dataset_tar(4))
    run = run_queue.sent[-1]
    execute(run)
    about = StoredDataset.open(store, run).about
    for number, shard in enumerate(about.shards):
        assert shard.index is not None
        move(store, shard.key or "", layout.shard(run, number))
        move(store, shard.index.key, layout.index(run, number))
    names = {"report": layout.report, "statistics": layout.statistics, "picture": layout.statistics_chart}
    for name, of in {**names, "preview": layout.preview}.items():
        move(store, about.objects[name].key, of(run))  # type: ignore[index]

    def earlier(value: dict[str, Any]) -> None:
        value["format"] = 1
        value.pop("objects")
        for shard in value.get("shards", ()):
            shard.pop("key")
            shard.pop("index")

    edit(store, layout.about(run), earlier)
    edit(store, run_keys.run_summary(run), lambda summary: earlier(summary["result"]))
    return run


def test_a_dataset_without_attempts_in_its_keys_is_read_and_kept(
    client: TestClient, execute: Execute, run_queue: RecordingRunQueue, store: ObjectStore
) -> None:
    run = imported(client, execute, run_queue, store)
    before = [info.key for info in store.list(run_keys.run_prefix(run))]
    summary = RunRepository(store).read_summary(run)
    assert summary is not None
    clean_up_run(RunRepository(store), summary)
    assert [info.key for info in store.list(run_keys.run_prefix(run))] == before
    found = [item for _, item in StoredDataset.open(store, run).items()]
    assert len(found) == 4
    assert all(isinstance(item, DatasetItem) for item in found)
    view = client.get("/datasets/scenes").json()
    assert client.get("/datasets/scenes/1/report").json()["items"] == 4
    assert client.get("/datasets/scenes/1/statistics").status_code == 200
    for name in ("picture", "preview"):
        assert client.get(view["links"][name]).headers["content-type"] == "image/png"


def test_an_export_without_attempts_in_its_keys_is_listed_and_kept(
    client: TestClient, execute: Execute, run_queue: RecordingRunQueue, store: ObjectStore
) -> None:
    imported(client, execute, run_queue, store)
    run = str(client.post("/exports", json={"sources": [{"dataset": "scenes"}], "format": "webdataset"}).json()["id"])
    execute(run)
    location = ExportLocation(store, run_keys.run_prefix(run))
    files, result = list(location.read_files()), location.read_result()
    assert result is not None
    assert result.index is not None
    lines = []
    for file in files:
        move(store, location.key_of(file), f"{location.files_prefix}{file.path}")
        lines.append(file.model_dump_json(exclude={"key"}).encode() + b"\n")
    store.put(location.index, b"".join(lines))
    store.delete(result.index.key)
    edit(store, location.result, lambda value: value.pop("index"))
    before = [info.key for info in store.list(run_keys.run_prefix(run))]
    summary = RunRepository(store).read_summary(run)
    assert summary is not None
    clean_up_run(RunRepository(store), summary)
    assert [info.key for info in store.list(run_keys.run_prefix(run))] == before
    listed = client.get(f"/exports/{run}/files").json()["files"]
    assert [file["path"] for file in listed] == [file.path for file in files]
    for file in listed:
        assert hashlib.sha256(client.get(file["url"]).content).hexdigest() == file["sha256"]


def test_a_round_without_attempts_in_its_keys_is_read(store: ObjectStore) -> None:
    run = new_run_id(RunKind.AUGMENTATION, datetime.now(UTC))
    line = {"job": "j7ybr17pesw6kn47yb0", "index": 3}
    assert accepted_key(store, run, 0) is None
    store.put(accepted(run, 0), json.dumps(line).encode() + b"\n")
    store.put(f"{round_prefix(run, 0)}fingerprints.bin", b"fingerprints")
    store.put(f"{round_prefix(run, 0)}state.json", b'{"format": 1, "counts": {"accepted": 1}, "rejected": {}}')
    assert accepted_key(store, run, 0) == accepted(run, 0)
    rounds = Rounds(store, run)
    state = rounds.read_state(0)
    assert state is not None
    assert (state.format, state.accepted) == (1, None)
    assert rounds.read_fingerprints(0) == b"fingerprints"
    assert rounds.counted_keys() == set()
    assert [(twin.job, twin.index) for twin in read_accepted(JobRepository(store), run, 0)] == [(line["job"], 3)]
