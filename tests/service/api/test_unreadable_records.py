"""Records that cannot be read: one harms its own job, dataset or export, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.auth.key_store import KeyStore
from service.jobs.garbage import remove_job
from service.jobs.repository import JobRepository
from service.kit.run_kinds import RunKind, new_run_id
from service.kit.states import JobState
from service.runs.dataset_versions import Datasets
from service.runs.repository import RunRepository
from service.runs.spec import RunSpec
from service.store import ObjectStore, keys, run_keys
from tests.service.api.support import finish

BODY: dict[str, Any] = {"model": "aerial", "classes": ["water"], "count": 2}


def newer(data: bytes) -> bytes:
    return json.dumps({**json.loads(data), "format": 99, "colour_depth": 8}).encode()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda data: b"",
    "zeros": lambda data: bytes(len(data)),
    "torn": lambda data: data[: len(data) // 2],
    "not_an_object": lambda data: b"[1, 2]",
    "nested": lambda data: b"[" * 100_000,
    "another's": lambda data: data.replace(b'"j7', b'"j6').replace(b'"e7', b'"e6').replace(b'"d7', b'"d6'),
    "newer": newer,
    "wrong_type": lambda data: json.dumps(
        {**json.loads(data), "created_at": "yesterday", "finished_at": "soon"}
    ).encode(),
}


@pytest.fixture
def tenants(app: FastAPI, store: ObjectStore, client: TestClient) -> Callable[[str], TestClient]:
    def client_of(tenant: str) -> TestClient:
        text, _ = KeyStore(store).create(tenant)
        app.state.services.authenticator.required = "true"
        return TestClient(app, raise_server_exceptions=False, headers={"Authorization": f"Bearer {text.text()}"})

    return client_of


def listed(client: TestClient, path: str = "/jobs") -> tuple[list[str], list[str]]:
    page = client.get(path).json()
    kind = path.strip("/").partition("?")[0]
    return [each["id"] for each in page[kind]], [each["id"] for each in page["unreadable"]]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("record", ["spec", "summary"])
def test_an_unreadable_job_is_listed_as_such_and_can_be_deleted(
    client: TestClient, repository: JobRepository, store: ObjectStore, damage: str, record: str
) -> None:
    before, bad, after = (client.post("/generate", json=BODY).json()["id"] for _ in range(3))
    finish(repository, repository.read_spec(bad))
    key = keys.job_spec(bad) if record == "spec" else keys.job_summary(bad)
    store.put(key, DAMAGES[damage](store.get(key)))

    assert listed(client) == ([after, before], [bad])
    assert f"DELETE /jobs/{bad}" in client.get("/jobs").json()["unreadable"][0]["detail"]
    assert client.get("/jobs?state=succeeded").json()["jobs"] == []
    pages, cursor = [], None
    while True:
        page = client.get("/jobs", params={"limit": 1, **({"cursor": cursor} if cursor else {})}).json()
        pages += [each["id"] for each in page["jobs"] + page["unreadable"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert pages == [after, bad, before]
    for method, path in (("GET", ""), ("POST", "/cancel"), ("POST", "/retry"), ("GET", "/samples")):
        answer = client.request(method, f"/jobs/{bad}{path}", headers={"Content-Type": "application/json"})
        assert answer.status_code in (200, 409), (method, path, answer.text)
    if damage == "newer":
        detail = client.get(f"/jobs/{bad}").json()["detail"]
        assert "has format 99, which a newer version of Twinset wrote" in detail

    assert client.delete(f"/jobs/{bad}").status_code == 204
    assert client.get(f"/jobs/{bad}").status_code == 404
    assert listed(client) == ([after, before], [])
    deletion = repository.deletions.read(bad)
    assert deletion is not None
    assert remove_job(repository, deletion, max_objects=1000) is None
    assert not list(store.list(f"jobs/{bad}/"))
    assert not list(store.list("tenants/default/stored/"))


def test_members_that_this_version_does_not_know_are_kept(
    client: TestClient, repository: JobRepository, store: ObjectStore
) -> None:
    job = client.post("/generate", json=BODY).json()["id"]
    key = keys.job_spec(job)
    store.put(key, json.dumps({**json.loads(store.get(key)), "note": {"of": "a newer version"}}).encode())
    spec = repository.read_spec(job)
    assert client.get(f"/jobs/{job}").json()["id"] == job
    assert json.loads(spec.model_copy(update={"name": "n"}).model_dump_json())["note"] == {"of": "a newer version"}
    assert "note" not in client.get(f"/jobs/{job}").json()["parameters"]
    assert finish(repository, spec).state is JobState.SUCCEEDED


def test_an_unreadable_job_exists_for_its_own_tenant_alone(
    tenants: Callable[[str], TestClient], store: ObjectStore
) -> None:
    acme, other, default = tenants("acme"), tenants("other"), tenants("default")
    job = acme.post("/generate", json=BODY).json()["id"]
    store.put(keys.job_spec(job), b"")
    assert listed(acme) == ([], [job])
    for other_tenant in (other, default):
        assert listed(other_tenant) == ([], [])
        assert other_tenant.get(f"/jobs/{job}").status_code == other_tenant.delete(f"/jobs/{job}").status_code == 404
    assert acme.delete(f"/jobs/{job}").status_code == 204


def test_the_default_tenant_sees_its_own_jobs_alone_also_by_cursors(
    tenants: Callable[[str], TestClient], store: ObjectStore
) -> None:
    acme, default = tenants("acme"), tenants("default")
    own = default.post("/generate", json=BODY).json()["id"]
    foreign = {acme.post("/generate", json=BODY).json()["id"] for _ in range(5)}
    read: list[str] = []
    plain_get = store.get
    store.get = lambda key, **options: read.append(key) or plain_get(key, **options)  # type: ignore[method-assign]
    page = default.get("/jobs?limit=1").json()
    assert ([each["id"] for each in page["jobs"]], page["next_cursor"]) == ([own], None)
    assert not any(job in key for key in read for job in foreign)


def test_a_damaged_attempt_at_a_webhook_harms_no_answer(
    client: TestClient, repository: JobRepository, store: ObjectStore
) -> None:
    job = client.post("/generate", json=BODY).json()["id"]
    key = keys.job_spec(job)
    callback = {"url": "https://example.org/hook", "service_url": "http://a"}
    store.put(key, json.dumps({**json.loads(store.get(key)), "callback": callback}).encode())
    finish(repository, repository.read_spec(job))
    store.put(keys.job_callback(job, 1), b"{")
    assert client.get(f"/jobs/{job}").json()["callback"]["attempts"] == []


def test_a_damaged_idempotency_record_says_to_send_another_key(client: TestClient, store: ObjectStore) -> None:
    headers = {"Idempotency-Key": "order-17"}
    job = client.post("/generate", json=BODY, headers=headers).json()["id"]
    record = next(info.key for info in store.list("idempotency/default/"))
    for damaged in (b"", b"[]", b'{"format": 1}', b'{"job": "../x"}'):
        store.put(record, damaged)
        answer = client.post("/generate", json=BODY, headers=headers)
        assert (answer.status_code, "send a new key" in answer.json()["detail"]) == (409, True)
    assert client.post("/generate", json=BODY, headers={"Idempotency-Key": "order-18"}).status_code == 202
    assert client.get(f"/jobs/{job}").status_code == 200


def stored_run(runs: RunRepository, kind: RunKind, work: dict[str, Any]) -> str:
    spec = RunSpec(run=new_run_id(kind), created_at=datetime.now(UTC), work=work, name=work.get("name"))
    runs.write_spec(spec)
    return spec.run


@pytest.mark.parametrize("damage", [*DAMAGES, "other_work"])
def test_unreadable_exports_and_datasets_are_listed_as_such_and_can_be_deleted(
    client: TestClient, store: ObjectStore, damage: str
) -> None:
    runs = RunRepository(store)
    work = {"options": {"format": "coco"}}
    whole, bad = (stored_run(runs, RunKind.EXPORT, work) for _ in range(2))
    sets = {}
    for name in ("whole", "bad"):
        sets[name] = new_run_id(RunKind.DATASET)
        version = Datasets(runs, "default").take_version(name, sets[name])
        made = {"name": name, "version": version, "later": "member"}
        runs.write_spec(RunSpec(run=sets[name], created_at=datetime.now(UTC), work=made, name=f"{name}@{version}"))

    def other_work(data: bytes) -> bytes:
        return json.dumps({**json.loads(data), "work": {"options": 7, "name": None}}).encode()

    spoil = other_work if damage == "other_work" else DAMAGES[damage]
    for run in (bad, sets["bad"]):
        store.put(run_keys.run_spec(run), spoil(store.get(run_keys.run_spec(run))))

    assert listed(client, "/exports") == ([whole], [bad])
    assert client.get(f"/exports/{bad}").status_code == 409
    assert client.delete(f"/exports/{bad}").status_code == 204
    assert listed(client, "/exports") == ([whole], [])

    page = client.get("/datasets").json()
    assert ([each["id"] for each in page["datasets"]], len(page["unreadable"])) == (["whole@1"], 1)
    if damage != "other_work":
        assert "DELETE /datasets/bad/1" in page["unreadable"][0]["detail"]
    assert client.get("/datasets/bad").status_code == 409
    assert client.delete("/datasets/bad/1").status_code == 204
    assert client.get("/datasets/bad").status_code == 404
    for run in (bad, sets["bad"]):
        store.put(run_keys.deleting_run(run), b"")  # and the entry of the deletion is damaged too
        assert runs.remove(run, max_objects=100)
        assert not [info.key for info in store.list("") if run in info.key]


def test_a_run_spec_keeps_members_of_a_newer_version(client: TestClient, store: ObjectStore) -> None:
    runs = RunRepository(store)
    run = stored_run(runs, RunKind.EXPORT, {"options": {"format": "coco"}})
    key = run_keys.run_spec(run)
    store.put(key, json.dumps({**json.loads(store.get(key)), "more": 1}).encode())
    assert client.get(f"/exports/{run}").status_code == 200
    assert json.loads(runs.read_spec(run).model_dump_json())["more"] == 1


def test_the_numbers_of_removed_versions_do_not_pile_up_and_none_is_used_again(store: ObjectStore) -> None:
    runs = RunRepository(store)
    datasets = Datasets(runs, "default")

    def add() -> int:
        run = new_run_id(RunKind.DATASET)
        version = datasets.take_version("x", run)
        made = {"name": "x", "version": version}
        runs.write_spec(RunSpec(run=run, created_at=datetime.now(UTC), work=made, name=f"x@{version}"))
        return version

    def delete(version: int) -> None:
        spec = datasets.find("x", version)
        runs.delete(spec)
        assert runs.remove(spec.run, max_objects=100)

    kept = add()
    for expected in range(2, 12):
        version = add()
        assert version == expected
        if version % 2:
            delete(version)
        else:
            runs.delete(datasets.find("x", version))  # removed later, when others have come
    for run in list(runs.deleted_runs()):
        assert runs.remove(run, max_objects=100)
    assert datasets.versions("x") == [kept, 11]
    assert datasets.find("x").name == "x@1"
    delete(kept)
    assert datasets.versions("x") == [11]
    assert add() == 12
    assert datasets.find("x").name == "x@12"
