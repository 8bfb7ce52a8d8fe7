"""Two bulk workers of different makes: one is stopped past its lease, and wakes after the other one's result."""

from __future__ import annotations

import hashlib
import signal
import time
from contextlib import suppress

from starlette.testclient import TestClient

from service.api.app import create_app
from service.datasets.items import DatasetItem
from service.datasets.stored import layout
from service.datasets.stored.dataset import StoredDataset
from service.errors import ObjectNotFound
from service.exports.location import ExportLocation
from service.runs.dataset_versions import Datasets
from service.runs.repository import RunRepository
from service.settings import Settings
from service.store import ObjectStore
from service.store.run_keys import run_prefix
from tests.waiting import until
from tests.workers.bulk.conftest import Start, dataset_tar, send

RECORDS = {"spec.json", "started.json", "summary.json"}


def contents(store: ObjectStore, run: str) -> dict[str, str]:
    """The sha256 of all objects that the run has made."""
    prefix = run_prefix(run)
    found = {}
    for info in store.list(prefix):
        with suppress(ObjectNotFound):  # a worker may be removing it
            if info.key.removeprefix(prefix) not in RECORDS:
                found[info.key] = hashlib.sha256(store.get(info.key)).hexdigest()
    return found


def wake(sleeper: object, store: ObjectStore, run: str, counted: set[str]) -> None:
    """Wakes the worker, which finishes a write or more, and waits until it has removed what does not count."""
    before = contents(store, run)
    assert counted <= before.keys()
    sleeper.send_signal(signal.SIGCONT)  # type: ignore[attr-defined]
    time.sleep(2.0)
    until(lambda: contents(store, run).keys() <= counted | {f"{run_prefix(run)}source/archive"}, timeout_s=30)
    after = contents(store, run)
    assert {key: after[key] for key in counted} == {key: before[key] for key in counted}


def test_an_import_is_not_damaged_by_a_late_worker(settings: Settings, store: ObjectStore, start: Start) -> None:
    client = TestClient(create_app(settings, store=store))
    sleeper = start(other_make=True)
    send(client, dataset_tar(300))
    run = Datasets(RunRepository(store), "default").find("scenes").run
    until(lambda: next(iter(store.list(f"{run_prefix(run)}shards/")), None) is not None)
    sleeper.send_signal(signal.SIGSTOP)
    late = set(contents(store, run))
    assert client.get("/datasets/scenes").json()["state"] == "running"
    start()
    until(lambda: client.get("/datasets/scenes").json()["state"] == "succeeded", timeout_s=60)
    about = StoredDataset.open(store, run).about
    counted = about.counted_keys() | {layout.about(run)}
    assert not any("/shards/" in key for key in late & counted), "the two makes differ"
    wake(sleeper, store, run, counted)
    dataset = StoredDataset.open(store, run)
    assert dataset.about == about
    assert sum(isinstance(item, DatasetItem) for _, item in dataset.items()) == 300
    view = client.get("/datasets/scenes").json()
    for name in ("picture", "preview"):
        assert client.get(view["links"][name]).status_code == 200
    assert client.get("/datasets/scenes/1/report").json()["items"] == 300


def test_an_export_is_not_damaged_by_a_late_worker(settings: Settings, store: ObjectStore, start: Start) -> None:
    client = TestClient(create_app(settings, store=store))
    importer = start()
    send(client, dataset_tar(300))
    until(lambda: client.get("/datasets/scenes").json()["state"] == "succeeded", timeout_s=60)
    importer.send_signal(signal.SIGTERM)
    assert importer.wait(timeout=20) == 0

    sleeper = start(other_make=True)
    body = {"sources": [{"dataset": "scenes"}], "format": "webdataset", "shard_items": 10, "image_format": "jpeg"}
    run = client.post("/exports", json=body).json()["id"]
    until(lambda: len(list(store.list(f"{run_prefix(run)}checkpoints/"))) >= 5)
    sleeper.send_signal(signal.SIGSTOP)
    assert client.get(f"/exports/{run}").json()["state"] == "running"
    start()
    until(lambda: client.get(f"/exports/{run}").json()["state"] == "succeeded", timeout_s=60)
    location = ExportLocation(store, run_prefix(run))
    result = location.read_result()
    assert result is not None
    assert result.index is not None
    files = list(location.read_files())
    wake(sleeper, store, run, {location.result, result.index.key, *(location.key_of(file) for file in files)})
    assert list(location.read_files()) == files
    page = client.get(f"/exports/{run}/files", params={"limit": 500}).json()
    assert len(page["files"]) == len(files) > 30
    for file in page["files"]:
        assert hashlib.sha256(client.get(file["url"]).content).hexdigest() == file["sha256"]
