"""Tests of exports through the API and a bulk worker, also of one that is interrupted."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from service.errors import StoreUnavailable, UnknownRun
from service.jobs.repository import JobRepository
from service.kit.run_kinds import RunKind
from service.runs.repository import RunRepository
from service.store import ObjectStore
from tests.service.api.support import finish
from tests.workers.bulk.conftest import RecordingRunQueue, dataset_tar, send
from workers.bulk.execute import RunOutcome, execute_run
from workers.bulk.handlers import handlers
from workers.bulk.sweeper import RunSweeper
from workers.bulk.worker import BulkWorker

Execute = Callable[[str], RunOutcome]
NAMES = ("building", "water", "vegetation", "unlabelled")
"""The classes of the card, so that twins and the dataset go together."""


@pytest.fixture
def scenes(client: TestClient, execute: Execute, run_queue: RecordingRunQueue) -> str:
    """Id of an imported dataset of 6 items."""
    found = send(client, dataset_tar(6, names=NAMES))["id"]
    execute(run_queue.sent[-1])
    return str(found)


@pytest.fixture
def job(client: TestClient, store: ObjectStore) -> str:
    """Id of an ended job of 5 twins, of which one failed."""
    repository = JobRepository(store)
    accepted = client.post("/generate", json={"model": "aerial", "classes": ["water"], "count": 5, "seed": 1}).json()
    finish(repository, repository.read_spec(accepted["id"]), failed=(3,))
    return str(accepted["id"])


def export(client: TestClient, execute: Execute, run_queue: RecordingRunQueue, **body: Any) -> dict[str, Any]:
    """Submits and executes an export; returns its view."""
    answer = client.post("/exports", json=body)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/exports/{answer.json()['id']}"
    execute(run_queue.sent[-1])
    return client.get(answer.headers["location"]).json()


def files(client: TestClient, view: dict[str, Any]) -> dict[str, bytes]:
    """Downloads the export's files and checks them against the view."""
    found: dict[str, bytes] = {}
    cursor = None
    while True:
        page = client.get(view["links"]["files"], params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        for file in page["files"]:
            data = client.get(file["url"]).content
            assert (len(data), hashlib.sha256(data).hexdigest()) == (file["bytes"], file["sha256"])
            found[file["path"]] = data
        cursor = page["next_cursor"]
        if cursor is None:
            return found


def unpacked(parts: dict[str, bytes]) -> dict[str, bytes]:
    """The contents of the zip files."""
    found: dict[str, bytes] = {}
    for path, data in parts.items():
        if path.endswith(".zip"):
            with zipfile.ZipFile(io.BytesIO(data)) as file:
                assert not found.keys() & set(file.namelist())
                found |= {name: file.read(name) for name in file.namelist()}
    return found


def test_a_job_and_a_dataset_are_exported_together(
    client: TestClient, execute: Execute, run_queue: RecordingRunQueue, scenes: str, job: str
) -> None:
    # the twins of the tests' worker are smaller than those of a real one; a format that takes any size
    view = export(
        client,
        execute,
        run_queue,
        sources=[{"dataset": scenes}, {"job": job}],
        format="folders",
        title="Both",
        name="mine",
    )
    assert (view["state"], view["name"], view["items"], view["done"]) == (
        "succeeded",
        "mine",
        {"real": 6, "synthetic": 4},
        10,
    )
    got = unpacked(files(client, view))
    lines = [json.loads(line) for line in got["manifest.jsonl"].splitlines()]
    assert [line["source"] for line in lines] == ["real"] * 6 + ["synthetic"] * 4
    assert lines[0]["name"] == "scenes/scene0"
    assert lines[6]["name"] == f"{job}/00000000"
    assert lines[6]["metadata"]["model"] == "aerial@1.0.0"
    assert lines[6]["metadata"]["job_seed"] == 1
    readme = got["README.md"].decode()
    for said in (
        "# Both",
        "4 synthetic, 6 real",
        "aerial@1.0.0",
        "CC0-1.0",
        "Never use it for clinical decisions",
        "Small scenes",
    ):
        assert said in readme
    mask = np.array(Image.open(io.BytesIO(got[lines[6]["mask"]["path"]])))
    assert (mask == 1).all()
    assert view["bytes"] == sum(len(data) for data in files(client, view).values())


def test_an_export_continues_after_its_worker_is_killed(
    client: TestClient,
    run_queue: RecordingRunQueue,
    scenes: str,
    hire: Callable[..., BulkWorker],
    store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    body = {"sources": [{"dataset": scenes}], "format": "webdataset", "shard_items": 2}
    kinds = handlers()

    def carried(fails_at: int | None) -> tuple[dict[str, Any], list[str]]:
        """The export, whose worker is killed at its ``fails_at``-th put; and the shards that were put, by key."""
        answer = client.post("/exports", json=body).json()
        put: list[str] = []

        def patched(method: Callable[..., Any]) -> Callable[..., Any]:
            def put_one(self: Any, key: str, *given: Any, **options: Any) -> Any:
                if "/files/" in key:
                    if len(put) == fails_at:
                        put.append("killed")
                        raise StoreUnavailable("killed here")
                    put.append(key.rpartition("/")[2])
                return method(self, key, *given, **options)

            return put_one

        with monkeypatch.context() as patching:
            for name in ("put", "put_file"):
                patching.setattr(type(store), name, patched(getattr(type(store), name)))
            if fails_at is not None:
                assert execute_run(hire(), run_queue.sent[-1], kinds) is RunOutcome.FAILED
                assert client.get(f"/exports/{answer['id']}").json()["state"] == "running"
            assert execute_run(hire(), run_queue.sent[-1], kinds) is RunOutcome.ENDED
        return client.get(f"/exports/{answer['id']}").json(), put

    whole, _ = carried(None)
    wanted = files(client, whole)
    assert [path for path in wanted if path.endswith(".tar")] == [f"train-00000{n}.tar" for n in range(3)]
    for fails_at in (0, 1, 2):
        view, put = carried(fails_at)
        assert files(client, view) == wanted
        shards = [name for name in put if name.endswith(".tar")]
        assert sorted(shards) == sorted(set(shards)), "a finished shard was written again"
        left = [info.key for info in store.list(f"exports/{view['id']}/checkpoints/")]
        assert left == []


def test_low_confidence_items_are_skipped_and_counted(
    client: TestClient, execute: Execute, run_queue: RecordingRunQueue, job: str
) -> None:
    view = export(client, execute, run_queue, sources=[{"job": job}], format="coco", min_confident_share=0.995)
    assert view["state"] == "failed"
    assert "low confidence" in view["reason"].replace("_", " ")
    view = export(client, execute, run_queue, sources=[{"job": job}], format="coco", min_confident_share=0.99)
    assert view["items"] == {"real": 0, "synthetic": 4}


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"sources": [], "format": "coco"}, 422, "sources"),
        ({"sources": [{}], "format": "coco"}, 422, "one of job, augmentation and dataset"),
        (
            {"sources": [{"job": "j" + "0" * 18, "dataset": "a"}], "format": "coco"},
            422,
            "one of job, augmentation and dataset",
        ),
        ({"sources": [{"job": "j" + "0" * 18}], "format": "coco"}, 404, "does not exist"),
        ({"sources": [{"job": "../x"}], "format": "coco"}, 404, "not a job id"),
        ({"sources": [{"dataset": "scene"}], "format": "coco"}, 404, "did you mean 'scenes'"),
        ({"sources": [{"dataset": "scenes@7"}], "format": "coco"}, 404, "does not exist"),
        ({"sources": [{"augmentation": "e" + "0" * 18}], "format": "coco"}, 404, "begin with 'a'"),
        ({"sources": [{"dataset": "scenes"}], "format": "tiff"}, 422, "format"),
        ({"sources": [{"dataset": "scenes"}], "format": "coco", "splits": {"train": 0.5}}, 422, "add up to 1"),
        ({"sources": [{"dataset": "scenes"}], "format": "coco", "splits": {"../x": 1}}, 422, "lower-case"),
        ({"sources": [{"dataset": "scenes"}], "format": "coco", "classes": ["lake"]}, 422, "lake"),
        ({"sources": [{"dataset": "scenes"}], "format": "coco", "dropped": "water"}, 422, "give classes too"),
        ({"sources": [{"dataset": "scenes"}, {"dataset": "scenes@1"}], "format": "coco"}, 422, "named twice"),
        ({"sources": [{"dataset": "scenes"}], "format": "coco", "title": "x" * 201}, 422, "201 characters"),
        ({"sources": [{"dataset": "scenes"}], "format": "coco", "shard_items": 0}, 422, "shard_items"),
    ],
)
def test_invalid_exports_are_refused(
    body: dict[str, Any], status: int, says: str, client: TestClient, scenes: str
) -> None:
    answer = client.post("/exports", json=body)
    assert answer.status_code == status, answer.text
    assert says in answer.json()["detail"]
    assert client.get("/exports").json()["exports"] == []


def test_sources_must_have_ended(client: TestClient, store: ObjectStore) -> None:
    running = client.post("/generate", json={"model": "aerial", "classes": ["water"], "count": 5}).json()["id"]
    answer = client.post("/exports", json={"sources": [{"job": running}], "format": "coco"})
    assert answer.status_code == 409
    assert "has not ended" in answer.json()["detail"]
    client.post(f"/jobs/{running}/cancel")
    answer = client.post("/exports", json={"sources": [{"job": running}], "format": "coco"})
    assert answer.status_code == 409
    assert "has no twins to export" in answer.json()["detail"]


def test_an_export_of_a_dataset_deleted_meanwhile_fails_and_names_it(
    client: TestClient, execute: Execute, worker: BulkWorker, scenes: str
) -> None:
    export_id = client.post("/exports", json={"sources": [{"dataset": scenes}], "format": "coco"}).json()["id"]
    assert client.delete("/datasets/scenes/1").status_code == 204
    RunSweeper(worker).run_once()
    execute(export_id)
    view = client.get(f"/exports/{export_id}").json()
    assert view["state"] == "failed"
    assert view["reason"] == "dataset scenes@1 was deleted after the export had been accepted"


def test_different_classes_are_refused_at_submission(
    client: TestClient, execute: Execute, run_queue: RecordingRunQueue, job: str
) -> None:
    send(client, dataset_tar(2), name="others")
    execute(run_queue.sent[-1])
    answer = client.post("/exports", json={"sources": [{"job": job}, {"dataset": "others"}], "format": "coco"})
    assert answer.status_code == 422
    assert "classes do not agree" in answer.json()["detail"]
    kept = {"classes": ["water"], "rename": {}}
    assert (
        client.post(
            "/exports", json={"sources": [{"job": job}, {"dataset": "others"}], "format": "coco", **kept}
        ).status_code
        == 202
    )


def test_the_same_key_gives_the_same_export(client: TestClient, scenes: str, run_queue: RecordingRunQueue) -> None:
    body = {"sources": [{"dataset": scenes}], "format": "voc"}
    headers = {"Idempotency-Key": "once"}
    first = client.post("/exports", json=body, headers=headers).json()
    assert client.post("/exports", json=body, headers=headers).json()["id"] == first["id"]
    conflict = client.post("/exports", json={**body, "format": "coco"}, headers=headers)
    assert conflict.status_code == 409
    assert first["id"] in conflict.json()["detail"]
    assert len(client.get("/exports").json()["exports"]) == 1
    # a key of another kind of request is another key
    generated = client.post("/generate", json={"model": "aerial", "classes": ["water"], "count": 1}, headers=headers)
    assert generated.status_code == 202


def test_exports_are_listed_newest_first_cancelled_and_deleted(
    client: TestClient, execute: Execute, run_queue: RecordingRunQueue, scenes: str, store: ObjectStore
) -> None:
    ids = [
        client.post("/exports", json={"sources": [{"dataset": scenes}], "format": "coco", "seed": n}).json()["id"]
        for n in range(3)
    ]
    page = client.get("/exports", params={"limit": 2}).json()
    assert [view["id"] for view in page["exports"]] == ids[:0:-1]
    rest = client.get("/exports", params={"limit": 2, "cursor": page["next_cursor"]}).json()
    assert ([view["id"] for view in rest["exports"]], rest["next_cursor"]) == ([ids[0]], None)
    assert client.get("/exports", params={"cursor": "../x"}).status_code == 422
    assert client.post(f"/exports/{ids[0]}/cancel").json()["state"] == "cancelled"
    files = client.get(f"/exports/{ids[0]}/files")
    assert files.status_code == 409
    assert "is cancelled; it has no files" in files.json()["detail"]
    execute(ids[1])
    assert client.post(f"/exports/{ids[1]}/cancel").status_code == 409
    assert client.delete(f"/exports/{ids[1]}").status_code == 204
    assert client.get(f"/exports/{ids[1]}").status_code == 404
    assert [view["id"] for view in client.get("/exports").json()["exports"]] == [ids[2], ids[0]]


def test_exports_of_other_tenants_are_unknown(store: ObjectStore, client: TestClient, scenes: str) -> None:
    export_id = client.post("/exports", json={"sources": [{"dataset": scenes}], "format": "coco"}).json()["id"]
    runs = RunRepository(store)
    assert runs.read_spec(export_id, tenant="default").run == export_id
    with pytest.raises(UnknownRun):
        runs.read_spec(export_id, tenant="other")
    assert list(runs.runs("other", RunKind.EXPORT)) == []
