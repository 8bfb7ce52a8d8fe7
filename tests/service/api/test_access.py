"""Access over HTTP: two tenants who know nothing of each other, doors that stay shut, and limits that are answered
429."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.api import auth
from service.api.app import create_app
from service.api.routes import jobs
from service.auth.api_key import KeyText
from service.auth.key_store import KeyStore
from service.errors import LimitReached
from service.jobs.repository import JobRepository
from service.settings import Settings
from service.store import ObjectStore, keys
from tests.service.api.support import (
    DictLiveState,
    NotingQueue,
    binary_card,
    finish,
    make_chunk,
    register,
)
from tests.service.api.test_uploads import KIND, PNG

BODY: dict[str, Any] = {"model": "aerial", "classes": ["water"], "count": 8}
OPEN = {"/healthz", "/readyz", "/metrics", "/autoscaling", "/problems/{slug}", "/objects/{key}"} | {
    "/twins/{job}/{index}/{kind}.png"
}
Sign = Callable[[str], TestClient]


@pytest.fixture
def sign_in(app: FastAPI, store: ObjectStore, client: TestClient) -> Sign:
    """A client of the running app with a new key of a tenant. From the first one on, the app asks everybody for a
    key."""

    def sign_in(tenant: str) -> TestClient:
        key, _ = KeyStore(store).create(tenant)
        app.state.services.authenticator.required = "true"
        return TestClient(app, headers={"Authorization": f"Bearer {key.text()}"}, raise_server_exceptions=False)

    return sign_in


@pytest.fixture
def acme(sign_in: Sign) -> TestClient:
    return sign_in("acme")


@pytest.fixture
def other(sign_in: Sign) -> TestClient:
    return sign_in("other")


@pytest.fixture
def unknown_labels(app: FastAPI, acme: TestClient, store: ObjectStore) -> dict[str, dict[str, Any]]:
    """Headers of those who have no good key."""
    key_store = KeyStore(store)
    revoked, _ = key_store.create("acme")
    key_store.revoke(revoked.id)
    good = acme.headers["authorization"]
    return {
        "none": {},
        "unknown": {"Authorization": f"Bearer {KeyText.new().text()}"},
        "revoked": {"Authorization": f"Bearer {revoked.text()}"},
        "wrong secret": {"Authorization": good[:-1] + ("0" if good[-1] != "0" else "1")},
        "hostile id": {"Authorization": f"Bearer tws_../jobs/x_{'0' * 52}"},
        "another scheme": {"Authorization": f"Basic {good.split()[1]}"},
        "not ASCII": {"Authorization": "Bearer tws_\xe9".encode()},
    }


def operations(client: TestClient) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_every_path_but_the_open_ones_asks_for_a_key(
    client: TestClient, acme: TestClient, unknown_labels: dict[str, dict[str, Any]]
) -> None:
    asked = set()
    for path, method, operation in operations(client):
        if path in OPEN:
            assert "security" not in operation, path
            assert not {"401", "429"} & operation["responses"].keys(), path
            continue
        asked.add(path)
        assert operation["security"] == [{"api_key": []}], path
        assert {"401", "429"} <= operation["responses"].keys(), path
        place = path.replace("{job}", "j7ybr17pesw6kn47yb0").replace("{model}", "aerial")
        # Neither content type nor body are right: the key is looked at first.
        answers = [client.request(method, place, content=b"{", headers=headers) for headers in unknown_labels.values()]
        for answer in answers:
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), path
            assert answer.headers["content-type"] == "application/problem+json"
        assert len({answer.content for answer in answers[1:]}) == 1, "what is wrong with a key is not told"
        assert "send one as 'Authorization: Bearer" in answers[0].json()["detail"]
    assert len(asked) >= 10


def test_the_description_declares_the_scheme(client: TestClient) -> None:
    scheme = client.get("/openapi.json").json()["components"]["securitySchemes"]["api_key"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")


def test_what_watches_the_service_needs_no_key(client: TestClient, acme: TestClient) -> None:
    for path in (
        "/healthz",
        "/readyz",
        "/metrics",
        "/docs",
        "/openapi.json",
        "/problems/unauthorized",
        "/problems/limit-reached",
    ):
        assert client.get(path).status_code == 200, path
    assert client.get("/nowhere").status_code == 404


def test_only_keyed_routes_know_a_tenant_and_specs_are_read_in_two_places() -> None:
    # An endpoint that read specs itself could forget whose they are.
    for file in Path(auth.__file__).parent.rglob("*.py"):
        text = file.read_text()
        if "read_spec(" in text:
            assert file.name in ("own_jobs.py", "own_runs.py")
            text = text.replace("read_spec(run, tenant=tenant, kind=kind)", "read_spec(job, tenant=tenant)")
            assert text.count("read_spec(") == text.count("read_spec(job, tenant=tenant)") == 1
    assert jobs.router.route_class is auth.KeyedRoute


def test_a_job_is_its_tenants_alone(acme: TestClient, other: TestClient, repository: JobRepository) -> None:
    job = acme.post("/generate", json=BODY).json()["id"]
    assert repository.read_spec(job).tenant == "acme"
    make_chunk(repository, repository.read_spec(job), 0)
    never = "j7ybr17pesw6kn47yb0"
    for method, below in (
        ("GET", ""),
        ("DELETE", ""),
        ("GET", "/samples"),
        ("GET", "/events"),
        ("GET", "/manifest"),
        ("GET", "/archive"),
    ):
        theirs, none = (
            other.request(method, f"/jobs/{each}{below}", headers={"X-Request-ID": "same"}) for each in (job, never)
        )
        assert theirs.status_code == none.status_code == 404
        assert theirs.text.replace(job, never) == none.text
        assert theirs.headers == none.headers
    assert not repository.is_cancelled(job)
    assert acme.get(f"/jobs/{job}/samples").json()["samples"][0]["index"] == 0
    assert acme.delete(f"/jobs/{job}").status_code == 202


def test_each_lists_its_own(acme: TestClient, other: TestClient, sign_in: Sign, client: TestClient) -> None:
    mine = [acme.post("/generate", json={**BODY, "count": n}).json()["id"] for n in range(1, 6)]
    theirs = [other.post("/generate", json=BODY).json()["id"] for _ in range(3)]
    everyones = sign_in("default")
    old = everyones.post("/generate", json=BODY).json()["id"]
    for tenant, expected in ((acme, mine), (other, theirs), (everyones, [old])):
        seen: list[str] = []
        cursor: str | None = None
        while True:
            page = tenant.get("/jobs", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
            seen += [job["id"] for job in page["jobs"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert sorted(seen) == sorted(expected)
        assert [job[:11] for job in seen] == sorted(job[:11] for job in seen), "newest first"
    # a cursor is a place in the order of ids and nothing else: another's opens nothing
    assert {job["id"] for job in other.get("/jobs", params={"cursor": min(mine)}).json()["jobs"]} <= set(theirs)


def test_a_tenants_listing_looks_at_no_job_of_another(acme: TestClient, other: TestClient, store: ObjectStore) -> None:
    job = acme.post("/generate", json=BODY).json()["id"]
    for _ in range(5):
        other.post("/generate", json=BODY)
    read: list[str] = []
    plain_get = store.get

    def noting_get(key: str, **options: Any) -> bytes:
        read.append(key)
        return plain_get(key, **options)

    store.get = noting_get  # type: ignore[method-assign]
    assert [each["id"] for each in acme.get("/jobs").json()["jobs"]] == [job]
    assert {key.split("/")[1] for key in read if key.startswith("jobs/")} == {job}


def test_the_index_is_written_before_the_spec_and_passed_over_without_one(acme: TestClient, store: ObjectStore) -> None:
    job = acme.post("/generate", json=BODY).json()["id"]
    store.put(keys.tenant_job("acme", "j0000000000aaaaaaaa"), b"")
    assert [each["id"] for each in acme.get("/jobs").json()["jobs"]] == [job]

    plain_put = store.put

    def failing_put(key: str, data: bytes, **options: Any) -> Any:
        if key.endswith("/spec.json"):
            assert [info.key for info in store.list("tenants/acme/jobs/") if key.split("/")[1] in info.key]
        return plain_put(key, data, **options)

    store.put = failing_put  # type: ignore[method-assign]
    assert acme.post("/generate", json=BODY).status_code == 202


def test_idempotency_keys_are_a_tenants_own(acme: TestClient, other: TestClient) -> None:
    headers = {"Idempotency-Key": "the-same"}
    mine = acme.post("/generate", json=BODY, headers=headers).json()["id"]
    theirs = other.post("/generate", json={**BODY, "count": 9}, headers=headers)
    assert theirs.status_code == 202
    assert theirs.json()["id"] != mine
    assert acme.post("/generate", json=BODY, headers=headers).json()["id"] == mine


def test_uploads_are_a_tenants_own(acme: TestClient, other: TestClient, store: ObjectStore) -> None:
    register(store, binary_card())
    upload = acme.post("/uploads", content=PNG, headers=KIND).json()["upload"]
    body = {"model": "polyps", "mask": {"upload": upload}}
    refused = other.post("/generate", json=body)
    assert refused.status_code == 422
    assert "which does not exist" in refused.json()["detail"]
    assert [info.key for info in store.list("uploads/")] == [keys.upload("acme", upload)]


@pytest.mark.parametrize("layout", ["objects", "shards"])
def test_a_signed_link_opens_by_itself_and_is_given_to_its_tenant_only(
    client: TestClient, acme: TestClient, other: TestClient, repository: JobRepository, layout: str
) -> None:
    job = acme.post("/generate", json={**BODY, "layout": layout}).json()["id"]
    finish(repository, repository.read_spec(job))
    link = urlsplit(acme.get(f"/jobs/{job}/samples").json()["samples"][0]["image"]["url"])
    assert client.get(f"{link.path}?{link.query}").status_code == 200
    assert client.get(link.path).status_code == acme.get(link.path).status_code == 403
    assert other.get(f"/jobs/{job}/samples").status_code == 404
    for name in ("keys/x.json", f"jobs/{job}/spec.json"):
        assert acme.get(f"/objects/{name}").status_code == 403


def test_without_keys_all_is_as_it_was(client: TestClient, repository: JobRepository, store: ObjectStore) -> None:
    job = client.post("/generate", json=BODY, headers={"Authorization": "Bearer whatever"}).json()["id"]
    assert repository.read_spec(job).tenant == "default"
    assert [each["id"] for each in client.get("/jobs").json()["jobs"]] == [job]
    assert [info.key for info in store.list("tenants/")] == [keys.tenant_job("default", job)]


def test_the_first_key_shuts_the_door_and_the_jobs_from_before_are_the_default_tenants(
    settings: Settings, store: ObjectStore
) -> None:
    def fresh() -> TestClient:
        return TestClient(create_app(settings, store=store, queue=NotingQueue(), live_state=DictLiveState()))

    job = fresh().post("/generate", json=BODY).json()["id"]
    acme, _ = KeyStore(store).create("acme")
    default, _ = KeyStore(store).create("default")
    client = fresh()
    assert client.get(f"/jobs/{job}").status_code == 401
    assert client.get(f"/jobs/{job}", headers={"Authorization": f"Bearer {acme.text()}"}).status_code == 404
    assert client.get(f"/jobs/{job}", headers={"Authorization": f"Bearer {default.text()}"}).status_code == 200


def limited(settings: Settings, store: ObjectStore, **limits: Any) -> TestClient:
    changed = settings.model_copy(update=limits)
    return TestClient(create_app(changed, store=store, queue=NotingQueue(), live_state=DictLiveState()))


def refused(answer: Any, limit: str) -> dict[str, Any]:
    assert (answer.status_code, answer.headers["content-type"]) == (429, "application/problem+json")
    assert answer.headers["retry-after"].isdecimal()
    assert int(answer.headers["retry-after"]) >= 1
    problem: dict[str, Any] = answer.json()
    assert (problem["type"], problem["limit"]) == ("/problems/limit-reached", limit)
    return problem


def test_queued_samples_are_limited_and_a_refusal_takes_nothing(
    settings: Settings, store: ObjectStore, repository: JobRepository
) -> None:
    client = limited(settings, store, limit_queued_samples=20)
    first = client.post("/generate", json={**BODY, "count": 15}, headers={"Idempotency-Key": "a"})
    problem = refused(
        client.post("/generate", json=BODY, headers={"Idempotency-Key": "b"}), "TWINSET_LIMIT_QUEUED_SAMPLES"
    )
    assert (problem["max"], problem["used"]) == (20, 15)
    assert "ask for 5" in problem["detail"]
    assert len(list(repository.jobs())) == 1
    again = client.post("/generate", json={**BODY, "count": 15}, headers={"Idempotency-Key": "a"})
    assert again.status_code == 202
    assert again.json()["id"] == first.json()["id"], "a repeat asks for nothing new"
    assert client.delete(f"/jobs/{first.json()['id']}").status_code == 200
    assert client.post("/generate", json=BODY, headers={"Idempotency-Key": "b"}).status_code == 202


def test_a_cancelled_or_finished_job_gives_its_place_back(
    settings: Settings, store: ObjectStore, repository: JobRepository
) -> None:
    client = limited(settings, store, limit_queued_samples=8)
    for _ in range(3):
        job = client.post("/generate", json=BODY).json()["id"]
        refused(client.post("/generate", json=BODY), "TWINSET_LIMIT_QUEUED_SAMPLES")
        finish(repository, repository.read_spec(job))


def test_stored_bytes_are_limited(settings: Settings, store: ObjectStore, repository: JobRepository) -> None:
    plain = limited(settings, store)
    finish(repository, repository.read_spec(plain.post("/generate", json=BODY).json()["id"]))
    headers = {"Idempotency-Key": "before"}
    known = plain.post("/generate", json=BODY, headers=headers).json()["id"]
    client = limited(settings, store, limit_stored_bytes=100)
    problem = refused(client.post("/generate", json=BODY), "TWINSET_LIMIT_STORED_BYTES")
    assert problem["used"] > problem["max"] == 100
    refused(client.post("/uploads", content=PNG, headers=KIND), "TWINSET_LIMIT_STORED_BYTES")
    assert client.post("/generate", json=BODY, headers=headers).json()["id"] == known
    assert client.get("/jobs").status_code == 200, "what there is can still be had"


def test_too_many_requests_are_refused_before_anything_is_looked_at(
    settings: Settings, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = limited(settings, store, limit_requests_per_s=5.0)
    asked: list[tuple[str, float]] = []

    def full(live_state: Any, tenant: str, rate_per_s: float) -> None:
        asked.append((tenant, rate_per_s))
        raise LimitReached("more than 5 requests a second", retry_after_s=3, limit="TWINSET_LIMIT_REQUESTS_PER_S")

    monkeypatch.setattr(auth, "check_rate", full)
    answer = client.post("/generate", content=b"{")
    refused(answer, "TWINSET_LIMIT_REQUESTS_PER_S")
    assert answer.headers["retry-after"] == "3"
    assert asked == [("default", 5.0)]
    assert client.get("/healthz").status_code == client.get("/metrics").status_code == 200


def test_no_answer_and_no_metric_holds_a_secret(client: TestClient, acme: TestClient, other: TestClient) -> None:
    secret = acme.headers["authorization"].rsplit("_", 1)[1]
    job = acme.post("/generate", json={**BODY, "name": "x"}).json()["id"]
    texts = [acme.get(f"/jobs/{job}").text, acme.get("/jobs").text, acme.get(f"/jobs/{job}/manifest").text]
    texts += [acme.get("/nowhere").text, acme.post("/generate", content=b"{").text, client.get("/metrics").text]
    assert not any(secret in text for text in texts)
    assert "acme" not in client.get("/metrics").text
    assert json.loads(texts[0])["id"] == job
