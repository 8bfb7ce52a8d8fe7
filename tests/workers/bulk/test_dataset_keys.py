"""Tests of idempotency keys of datasets: repeated requests make one version; archives are compared by their bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.api.app import create_app
from service.errors import StoreUnavailable
from service.runs.repository import RunRepository
from service.settings import Settings
from service.store import ObjectStore
from tests.service.api.support import NotingQueue
from tests.workers.bulk.conftest import RecordingRunQueue, dataset_tar
from workers.bulk.execute import RunOutcome

Execute = Callable[[str], RunOutcome]
SCENES = dataset_tar(3)


def sent(client: TestClient, key: str, data: bytes = SCENES, kind: str = "application/x-tar", **query: str) -> Any:
    """Uploads an archive under a key; returns the answer."""
    headers = {"Content-Type": kind, "Idempotency-Key": key}
    return client.post("/datasets", params={"name": "scenes", **query}, content=data, headers=headers)


def versions(store: ObjectStore, name: str = "scenes") -> list[str]:
    """All versions that were ever reserved."""
    return [info.key.rpartition("/")[2] for info in store.list(f"tenants/default/datasets/{name}/")]


def archives(store: ObjectStore) -> list[str]:
    return [info.key for info in store.list("datasets/") if "/source/" in info.key]


def test_the_same_archive_under_a_key_is_the_same_version(
    client: TestClient, execute: Execute, run_queue: RecordingRunQueue, store: ObjectStore
) -> None:
    first = sent(client, "once")
    assert (first.status_code, first.json()["id"], first.headers["location"]) == (202, "scenes@1", "/datasets/scenes/1")
    # what it is called on its way is not what it is
    again = sent(client, "once", kind="application/octet-stream")
    assert (again.status_code, again.json()["id"], again.headers["location"]) == (202, "scenes@1", "/datasets/scenes/1")
    assert len(run_queue.sent) == 1
    assert execute(run_queue.sent[0]) is RunOutcome.ENDED
    ended = sent(client, "once").json()
    assert (ended["id"], ended["state"], ended["items"]) == ("scenes@1", "succeeded", 3)
    assert versions(store) == ["00000001.json"]
    assert archives(store) == []
    assert len(run_queue.sent) == 1
    # without a key, and under another, it is sent anew
    assert sent(client, "twice").json()["id"] == "scenes@2"
    headers = {"Content-Type": "application/x-tar"}
    assert (
        client.post("/datasets", params={"name": "scenes"}, content=SCENES, headers=headers).json()["id"] == "scenes@3"
    )


def test_another_request_under_the_key_is_refused(
    client: TestClient, store: ObjectStore, run_queue: RecordingRunQueue
) -> None:
    sent(client, "once")
    others = [
        sent(client, "once", dataset_tar(4)),
        sent(client, "once", SCENES + b"\0"),
        sent(client, "once", format="folders"),
        sent(client, "once", name="others"),
        client.post("/datasets", json={"name": "scenes", "prefix": "set"}, headers={"Idempotency-Key": "once"}),
    ]
    for answer in others:
        assert answer.status_code == 409, answer.text
        assert answer.json()["type"] == "/problems/idempotency-conflict"
        assert "came before with another body, as scenes@1" in answer.json()["detail"]
    assert versions(store) == ["00000001.json"]
    assert versions(store, "others") == []
    assert len(run_queue.sent) == 1
    assert len(archives(store)) == 1
    # a key of another kind of request is another key
    body = {"sources": [{"dataset": "scenes"}], "format": "coco"}
    assert (
        client.post("/exports", json=body, headers={"Idempotency-Key": "once"}).json()["type"]
        != "/problems/idempotency-conflict"
    )


def test_the_same_import_under_a_key_is_the_same_version(
    client: TestClient, store: ObjectStore, run_queue: RecordingRunQueue
) -> None:
    def imported(key: str = "once", **body: Any) -> Any:
        return client.post(
            "/datasets", json={"name": "scenes", "prefix": "set", **body}, headers={"Idempotency-Key": key}
        )

    assert imported().json()["id"] == "scenes@1"
    store.put("imports/default/set/images/more.png", b"came since")
    assert imported().json()["id"] == "scenes@1"
    for body in ({"prefix": "other"}, {"format": "coco"}, {"name": "others"}):
        assert imported(**body).status_code == 409, body
    assert imported("next").json()["id"] == "scenes@2"
    # a request that is wrong takes no key
    assert imported("wrong", prefix="../keys").status_code == 422
    assert imported("wrong").json()["id"] == "scenes@3"
    assert len(run_queue.sent) == 3


@pytest.mark.parametrize("key", ["", "two words", "ä", "x" * 256])
def test_an_invalid_key_is_refused(key: str, client: TestClient, store: ObjectStore) -> None:
    answer = client.post(
        "/datasets",
        params={"name": "scenes"},
        content=SCENES,
        headers={"Content-Type": "application/zip", "Idempotency-Key": key.encode()},
    )
    assert answer.status_code == 422
    assert "Idempotency-Key" in answer.json()["detail"]
    assert versions(store) == [] == archives(store)


@pytest.mark.parametrize("archive", [True, False], ids=["archives", "prefixes"])
def test_many_concurrent_requests_make_one_version(
    settings: Settings, store: ObjectStore, run_queue: RecordingRunQueue, chunk_queue: NotingQueue, archive: bool
) -> None:
    apps = [create_app(settings, store=store, queue=chunk_queue, run_queue=run_queue) for _ in range(2)]
    count, rounds = 8, 4

    def one(app: FastAPI, together: threading.Barrier, key: str) -> Any:
        client = TestClient(app, raise_server_exceptions=False)
        together.wait(30)
        if archive:
            return sent(client, key)
        return client.post("/datasets", json={"name": "scenes", "prefix": "set"}, headers={"Idempotency-Key": key})

    with ThreadPoolExecutor(count) as pool:
        for number in range(rounds):
            together = threading.Barrier(count)
            asked = [pool.submit(one, apps[place % 2], together, f"round-{number}") for place in range(count)]
            answers = [each.result() for each in asked]
            assert {(answer.status_code, answer.json()["id"]) for answer in answers} == {(202, f"scenes@{number + 1}")}
    assert len(versions(store)) == rounds == len(set(run_queue.sent)) == len(run_queue.sent)
    assert len(archives(store)) == (rounds if archive else 0)


def test_concurrent_requests_with_other_keys_get_their_own_versions(app: FastAPI, store: ObjectStore) -> None:
    together = threading.Barrier(8)

    def one(place: int) -> str:
        client = TestClient(app, raise_server_exceptions=False)
        together.wait(30)
        return str(sent(client, f"key-{place % 4}").json()["id"])

    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(one, range(8)))
    assert ids[:4] == ids[4:]
    assert sorted(ids[:4]) == [f"scenes@{number}" for number in range(1, 5)]
    assert len(versions(store)) == 4


def test_an_interrupted_request_continues_with_the_same_version(
    client: TestClient,
    store: ObjectStore,
    run_queue: RecordingRunQueue,
    execute: Execute,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    puts = {"left": 0}

    def failing(real: Callable[..., Any]) -> Callable[..., Any]:
        def put(self: Any, key: str, *given: Any, **options: Any) -> Any:
            puts["left"] -= 1
            if puts["left"] < 0:
                raise StoreUnavailable("broken off here")
            return real(self, key, *given, **options)

        return put

    for broken_off in range(20):
        with monkeypatch.context() as patched:
            puts["left"] = broken_off
            for name in ("put", "put_file"):
                patched.setattr(type(store), name, failing(getattr(type(store), name)))
            whole = sent(client, f"key-{broken_off}").status_code == 202
        answer = sent(client, f"key-{broken_off}")
        assert (answer.status_code, answer.json()["id"]) == (202, f"scenes@{broken_off + 1}")
        assert len(versions(store)) == broken_off + 1
        if whole:
            break
    assert broken_off >= 5, "key, archive, version, two entries, spec"
    for run in run_queue.sent:
        assert execute(run) is RunOutcome.ENDED
    assert client.get("/datasets/scenes/1").json()["state"] == "succeeded"
    assert archives(store) == []


def test_the_slower_of_two_requests_leaves_no_archive(
    app: FastAPI,
    client: TestClient,
    store: ObjectStore,
    run_queue: RecordingRunQueue,
    execute: Execute,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = type(store).put_file
    overtaken: list[Any] = []

    def slow(self: Any, key: str, *given: Any, **options: Any) -> Any:
        if not overtaken:
            # while this one is on its way, the other is accepted and read
            overtaken.append(None)
            overtaken[0] = sent(TestClient(app), "once").json()
            assert execute(run_queue.sent[-1]) is RunOutcome.ENDED
        return real(self, key, *given, **options)

    monkeypatch.setattr(type(store), "put_file", slow)
    answer = sent(client, "once").json()
    assert (answer["id"], answer["state"], overtaken[0]["id"]) == ("scenes@1", "succeeded", "scenes@1")
    assert archives(store) == []
    assert versions(store) == ["00000001.json"]


def test_the_key_of_a_deleted_dataset_is_refused_until_it_is_gone(client: TestClient, store: ObjectStore) -> None:
    sent(client, "once")
    assert client.delete("/datasets/scenes/1").status_code == 204
    answer = sent(client, "once")
    assert answer.status_code == 409
    assert "dataset scenes@1, which is being deleted" in answer.json()["detail"]
    repository = RunRepository(store)
    for run in list(repository.deleted_runs()):
        assert repository.remove(run, max_objects=100)
    assert sent(client, "once").json()["id"] == "scenes@2"


def test_a_repeated_request_is_answered_even_over_the_storage_limit(
    settings: Settings, store: ObjectStore, execute: Execute, run_queue: RecordingRunQueue
) -> None:
    client = TestClient(create_app(settings, store=store, run_queue=run_queue))
    assert sent(client, "once").status_code == 202
    execute(run_queue.sent[-1])
    full = TestClient(
        create_app(settings.model_copy(update={"limit_stored_bytes": 1}), store=store, run_queue=run_queue)
    )
    assert sent(full, "once").json()["id"] == "scenes@1"
    assert sent(full, "next").status_code == 429
    assert versions(store) == ["00000001.json"]
