"""Tests of dataset imports through the API and a bulk worker."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from service.datasets.items import DatasetItem
from service.datasets.stored import layout
from service.datasets.stored.dataset import StoredDataset
from service.errors import ObjectDamaged, UnknownDataset
from service.jobs.repository import JobRepository
from service.kit.run_kinds import RunKind, new_run_id
from service.runs.dataset_versions import Datasets
from service.runs.repository import RunRepository
from service.settings import Settings
from service.store import ObjectStore, keys
from tests.waiting import until
from tests.workers.bulk.conftest import RecordingRunQueue, dataset_tar, send
from workers.bulk.execute import RunOutcome

Execute = Callable[[str], RunOutcome]


def test_a_dataset_is_imported_unchanged(
    client: TestClient, execute: Execute, run_queue: RecordingRunQueue, store: ObjectStore
) -> None:
    data = dataset_tar(6)
    accepted = send(client, data)
    assert (accepted["id"], accepted["state"]) == ("scenes@1", "queued")
    assert execute(run_queue.sent[-1]) is RunOutcome.ENDED

    view = client.get("/datasets/scenes").json()
    assert (view["state"], view["items"], view["skipped"], view["format"], view["done"], view["total"]) == (
        "succeeded",
        6,
        0,
        "folders",
        6,
        6,
    )
    assert [entry["name"] for entry in view["classes"]] == ["ground", "water", "house"]
    assert view["classes"][2]["colour"] == [180, 20, 75]

    dataset = Datasets(RunRepository(store), "default").ready("scenes")
    assert (dataset.about.title, dataset.about.licence) == ("Small scenes", "CC0-1.0")
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for position, item in dataset.items():
            assert isinstance(item, DatasetItem)
            assert item.name == f"scene{position}"
            assert item.image == tar.extractfile(f"set/images/scene{position}.png").read()
            sent = np.array(Image.open(tar.extractfile(f"set/masks/scene{position}.png")))
            assert np.array_equal(item.labels, sent)
            counts = dict(zip(*(values.tolist() for values in np.unique(sent, return_counts=True)), strict=True))
            assert dataset.record(position).pixels == counts
    assert position == 5
    assert [at for at, _ in dataset.items(start_after=3)] == [4, 5]
    # the shard is a tar like any other
    shard = store.get(dataset.about.shards[0].key or "")
    with tarfile.open(fileobj=io.BytesIO(shard)) as tar:
        assert tar.getnames()[:2] == ["00000000.png", "00000000.mask.png"]
    assert store.head(layout.archive(dataset.run)) is None


def test_its_statistics_are_those_of_its_masks(
    client: TestClient, execute: Execute, run_queue: RecordingRunQueue
) -> None:
    send(client, dataset_tar(6))
    execute(run_queue.sent[-1])
    statistics = client.get("/datasets/scenes/1/statistics").json()
    assert statistics["images"] == 6
    assert [entry["images"] for entry in statistics["classes"]] == [6, 6, 2]
    assert statistics["cooccurrence"][1][2] == pytest.approx(2 / 6)
    view = client.get("/datasets/scenes/1").json()
    for link in (view["links"]["picture"], view["links"]["preview"]):
        picture = Image.open(io.BytesIO(client.get(link).content))
        assert picture.format == "PNG"
        assert picture.width > 300


def test_unreadable_items_are_skipped_and_reported(
    client: TestClient, execute: Execute, run_queue: RecordingRunQueue
) -> None:
    send(client, dataset_tar(4, spoilt=2))
    execute(run_queue.sent[-1])
    view = client.get("/datasets/scenes/1").json()
    assert (view["state"], view["items"], view["skipped"]) == ("succeeded", 3, 1)
    assert "1 unreadable" in view["reason"]
    [group] = client.get("/datasets/scenes/1/report").json()["faults"]
    assert (group["kind"], group["first"][0]["file"]) == ("unreadable", "images/scene2.png")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"neither a zip nor a tar", "not a readable zip, tar, tar.gz"),
        (dataset_tar(0), "not known"),
        (dataset_tar(1, spoilt=0), "no pair"),
    ],
)
def test_an_invalid_dataset_fails_with_the_reason(
    data: bytes, says: str, client: TestClient, execute: Execute, run_queue: RecordingRunQueue
) -> None:
    send(client, data)
    assert execute(run_queue.sent[-1]) is RunOutcome.ENDED
    view = client.get("/datasets/scenes/1").json()
    assert view["state"] == "failed"
    assert says in view["reason"]
    refused = client.post("/exports", json={"sources": [{"dataset": "scenes"}], "format": "coco"})
    assert refused.status_code == 409
    assert "has ended as failed" in refused.json()["detail"]


def test_a_dataset_of_too_many_classes_is_tried_once(
    client: TestClient, execute: Execute, run_queue: RecordingRunQueue
) -> None:
    names = tuple(f"thing {number}" for number in range(300))
    send(client, dataset_tar(1, names=names))
    assert execute(run_queue.sent[-1]) is RunOutcome.ENDED
    view = client.get("/datasets/scenes/1").json()
    assert view["state"] == "failed"
    assert "300 classes are listed; a mask holds at most 254" in view["reason"]


def test_version_numbers_are_never_reused(
    client: TestClient, execute: Execute, run_queue: RecordingRunQueue, store: ObjectStore
) -> None:
    assert [send(client, dataset_tar(n))["id"] for n in (1, 2, 3)] == ["scenes@1", "scenes@2", "scenes@3"]
    for run in run_queue.sent[:2]:
        execute(run)
    datasets = Datasets(RunRepository(store), "default")
    # the newest is not ready, so the one before it is what a bare name stands for
    assert datasets.ready("scenes").about.version == 2
    assert client.get("/datasets/scenes").json()["version"] == 3
    assert client.delete("/datasets/scenes/3").status_code == 204
    assert client.get("/datasets/scenes/3").status_code == 404
    assert client.get("/datasets/scenes").json()["version"] == 2
    assert send(client, dataset_tar(1))["id"] == "scenes@4"
    with pytest.raises(UnknownDataset, match="'scenes'"):
        datasets.ready("scene")


def test_tenants_have_separate_datasets(store: ObjectStore) -> None:
    runs = RunRepository(store)
    one, other = Datasets(runs, "one"), Datasets(runs, "other")
    assert (
        one.take_version("set", new_run_id(RunKind.DATASET)),
        other.take_version("set", new_run_id(RunKind.DATASET)),
    ) == (1, 1)
    assert one.latest("set") is None
    assert list(other.names()) == ["set"]


def test_imports_read_only_below_the_tenants_own_prefix(
    client: TestClient, execute: Execute, run_queue: RecordingRunQueue, store: ObjectStore
) -> None:
    with tarfile.open(fileobj=io.BytesIO(dataset_tar(3))) as tar:
        for member in tar.getmembers():
            store.put(f"imports/default/{member.name}", tar.extractfile(member).read())
    answer = client.post("/datasets", json={"name": "scenes", "prefix": "set/"})
    assert answer.status_code == 202, answer.text
    execute(run_queue.sent[-1])
    assert client.get("/datasets/scenes/1").json()["items"] == 3
    for prefix in ("../keys", "a/../../keys", "/keys", "a//b", ".", "a\\b"):
        refused = client.post("/datasets", json={"name": "scenes", "prefix": prefix})
        assert refused.status_code == 422, prefix
        assert refused.json()["errors"][0]["pointer"] == "/prefix"
    assert client.post("/datasets", json={"name": "scenes", "prefix": "nothing"}).status_code == 202
    execute(run_queue.sent[-1])
    assert "there are no objects" in client.get("/datasets/scenes/2").json()["reason"]


@pytest.mark.parametrize("name", [None, "", "A", "../x", "a b", "x" * 64, "ümlaut", ".a"])
def test_invalid_names_are_refused(name: str | None, client: TestClient) -> None:
    params = {} if name is None else {"name": name}
    answer = client.post("/datasets", params=params, content=b"x", headers={"Content-Type": "application/zip"})
    assert answer.status_code == 422
    assert "lower-case letters" in answer.json()["detail"]


def test_invalid_bodies_are_refused(client: TestClient, settings: Settings) -> None:
    url = "/datasets?name=scenes"
    assert client.post(url, content=b"", headers={"Content-Type": "application/zip"}).status_code == 422
    assert client.post(url, content=b"x", headers={"Content-Type": "text/plain"}).status_code == 415
    assert client.post("/datasets", content=b"{", headers={"Content-Type": "application/json"}).status_code == 400
    wrong = client.post("/datasets", json={"name": "a", "prefix": "b", "colour": 1})
    assert wrong.status_code == 422
    assert wrong.json()["errors"][0]["pointer"] == "/colour"
    assert not list((settings.data_dir / "scratch").glob("*/*"))


def test_an_archive_over_the_limit_is_refused_during_the_upload(settings: Settings, store: ObjectStore) -> None:
    from service.api.app import create_app

    small = settings.model_copy(update={"max_dataset_bytes": 4096, "max_body_bytes": 2048})
    client = TestClient(create_app(small, store=store))

    def pieces(count: int):  # type: ignore[no-untyped-def]
        yield from (bytes(1024) for _ in range(count))

    headers = {"Content-Type": "application/zip"}
    assert client.post("/datasets?name=a", content=bytes(5000), headers=headers).status_code == 413
    assert client.post("/datasets?name=a", content=pieces(6), headers=headers).status_code == 413
    # more than other bodies may have, and less than an archive
    assert client.post("/datasets?name=a", content=pieces(3), headers=headers).status_code == 202
    assert (
        client.post("/generate", content=bytes(3000), headers={"Content-Type": "application/json"}).status_code == 413
    )


def test_a_deleted_dataset_leaves_only_its_version_number(
    client: TestClient, execute: Execute, run_queue: RecordingRunQueue, store: ObjectStore
) -> None:
    before = {info.key for info in store.list("")}
    send(client, dataset_tar(3))
    execute(run_queue.sent[-1])
    assert store.list("tenants/default/stored/")
    assert JobRepository(store).usage.stored_bytes("default")
    assert client.delete("/datasets/scenes/1").status_code == 204
    repository = RunRepository(store)
    for run in list(repository.deleted_runs()):
        while not repository.remove(run, max_objects=2):
            pass
    assert {info.key for info in store.list("")} - before == {"tenants/default/datasets/scenes/00000001.json"}
    assert client.get("/datasets/scenes").status_code == 404
    assert client.get("/datasets").json()["datasets"] == []


def test_a_damaged_shard_is_reported(
    client: TestClient, execute: Execute, run_queue: RecordingRunQueue, store: ObjectStore
) -> None:
    send(client, dataset_tar(2))
    execute(run_queue.sent[-1])
    run = run_queue.sent[-1]
    dataset = StoredDataset.open(store, run)
    key = dataset.about.shards[0].key or ""
    data = bytearray(store.get(key))
    data[dataset.record(1).image.offset + 40] ^= 1
    store.put(key, bytes(data))
    with pytest.raises(ObjectDamaged):
        dataset.read(1, dataset.record(1).image)
    found = [item for _, item in dataset.items()]
    assert isinstance(found[0], DatasetItem)
    assert found[1].reason == "damaged"


def test_is_key_accepts_what_the_store_accepts() -> None:
    run = "d" + "0" * 18
    for key in (
        layout.shard(run, 3),
        layout.index(run, 3),
        layout.about(run),
        layout.archive(run),
        layout.preview(run),
    ):
        assert keys.check_key(key) == key
    with pytest.raises(ValueError, match="not a run's id"):
        layout.about("../x")


def test_scratch_folders_of_dead_processes_are_removed(tmp_path: Path) -> None:
    from service.datasets.stored.scratch import scratch_folder

    with scratch_folder(tmp_path) as folder:
        here = folder.parent
    left, elsewhere = here / "999999999-x", here.with_name("another") / "999999999-x"
    for each in (left, elsewhere):
        each.mkdir(parents=True)
    with scratch_folder(tmp_path) as folder:
        assert folder.is_dir()
        assert not left.exists()
        assert elsewhere.exists()
    assert not folder.exists()


def test_a_scratch_folder_of_a_process_that_nobody_has_collected_is_removed(tmp_path: Path) -> None:
    from service.datasets.stored.scratch import scratch_folder

    process = subprocess.Popen([sys.executable, "-c", ""])
    until(lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
    with scratch_folder(tmp_path) as folder:
        left = folder.parent / f"{process.pid}-x"
        left.mkdir()
    with scratch_folder(tmp_path):
        assert not left.exists()
    process.wait()
