"""Models of tenants over HTTP: aliases with their history, shares, candidates and deletion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.auth.key_store import KeyStore
from service.jobs.repository import JobRepository
from service.store import ObjectStore
from tests.service.api.support import finish, make_chunk
from tests.service.registry.small_models import add, safetensors

Sign = Callable[[str], TestClient]
BODY: dict[str, Any] = {"model": "polyps@stable", "classes": ["water"], "count": 2}


@pytest.fixture
def sign_in(app: FastAPI, store: ObjectStore, client: TestClient) -> Sign:
    """A client of the running app with a new key of a tenant."""

    def sign_in(tenant: str) -> TestClient:
        key, _ = KeyStore(store).create(tenant)
        app.state.services.authenticator.required = "true"
        made = TestClient(app, headers={"Authorization": f"Bearer {key.text()}"}, raise_server_exceptions=False)
        made.key_id = key.id  # type: ignore[attr-defined]
        return made

    return sign_in


@pytest.fixture
def acme(sign_in: Sign) -> TestClient:
    return sign_in("acme")


@pytest.fixture
def bolt(sign_in: Sign) -> TestClient:
    return sign_in("bolt")


@pytest.fixture(autouse=True)
def fresh(app: FastAPI) -> None:
    """A catalogue that looks at the store each time."""
    app.state.services.catalogue._refresh_s = 0.0


def accepted(answer: Any) -> Any:
    assert answer.status_code in (200, 201, 202, 204), answer.text
    return answer.json() if answer.content else None


def problem(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"].rpartition("/")[2]


def test_an_alias_is_moved_with_its_history(
    acme: TestClient, bolt: TestClient, store: ObjectStore, tmp_path: Path
) -> None:
    for version in ("1.0.0", "1.1.0"):
        add(store, tmp_path, version=version, data=version.encode(), tenant="acme")
    assert problem(acme.get("/models/polyps/aliases/stable")) == (404, "unknown-alias")
    made = accepted(acme.put("/models/polyps/aliases/stable", json={"version": "1.0.0", "why": "first"}))
    assert (made["version"], len(made["history"])) == ("1.0.0", 1)
    again = accepted(acme.put("/models/polyps/aliases/stable", json={"version": "1.0.0", "why": "again"}))
    assert again == made
    accepted(acme.put("/models/polyps/aliases/stable", json={"version": "1.1.0", "why": "better Dice"}))
    assert accepted(acme.get("/models/polyps@stable"))["id"] == "polyps@1.1.0"
    assert accepted(acme.get("/models/polyps"))["aliases"] == {"stable": "1.1.0"}
    assert acme.delete("/models/polyps/aliases/stable", params={"why": "no use"}).status_code == 204
    assert problem(acme.delete("/models/polyps/aliases/stable")) == (404, "unknown-alias")
    assert problem(acme.get("/models/polyps@stable")) == (404, "unknown-model")
    assert accepted(acme.get("/models/polyps/aliases")) == {"aliases": {}}
    shown = accepted(acme.get("/models/polyps/aliases/stable"))
    assert shown["version"] is None
    assert [(each["number"], each["from_version"], each["to_version"], each["why"]) for each in shown["history"]] == [
        (1, None, "1.0.0", "first"),
        (2, "1.0.0", "1.1.0", "better Dice"),
        (3, "1.1.0", None, "no use"),
    ]
    assert {each["changed_by"] for each in shown["history"]} == {acme.key_id}  # type: ignore[attr-defined]
    assert problem(bolt.get("/models/polyps/aliases/stable")) == (404, "unknown-alias")
    assert problem(bolt.get("/models/polyps/aliases")) == (404, "unknown-model")


@pytest.mark.parametrize(
    ("alias", "body", "expected"),
    [
        ("1.2.0", {"version": "1.0.0"}, (422, "invalid-request")),
        ("Stable", {"version": "1.0.0"}, (422, "invalid-request")),
        ("2nd", {"version": "1.0.0"}, (422, "invalid-request")),
        ("stable", {"version": "9.9.9"}, (404, "unknown-model")),
        ("stable", {"version": "stable"}, (404, "unknown-model")),
        ("stable", {"version": "1.0.0", "why": "x" * 501}, (422, "invalid-request")),
        ("stable", {"version": "1.0.0", "why": "\x1b[2J"}, (422, "invalid-request")),
        ("stable", {}, (422, "invalid-request")),
    ],
)
def test_what_is_no_alias_is_refused(
    acme: TestClient, store: ObjectStore, tmp_path: Path, alias: str, body: dict[str, str], expected: tuple[int, str]
) -> None:
    add(store, tmp_path, tenant="acme")
    assert problem(acme.put(f"/models/polyps/aliases/{alias}", json=body)) == expected
    assert list(store.list("aliases/")) == []


def test_an_alias_that_moves_changes_none_of_fifty_queued_jobs(
    acme: TestClient, store: ObjectStore, repository: JobRepository, tmp_path: Path
) -> None:
    hashes = {}
    for version in ("1.0.0", "1.1.0"):
        record, _ = add(store, tmp_path, version=version, data=version.encode(), tenant="acme")
        hashes[version] = record.card.files["model.safetensors"].sha256
    accepted(acme.put("/models/polyps/aliases/stable", json={"version": "1.0.0"}))
    before = [accepted(acme.post("/generate", json=BODY))["id"] for _ in range(50)]
    keyed = accepted(acme.post("/generate", json=BODY, headers={"Idempotency-Key": "one"}))
    accepted(acme.put("/models/polyps/aliases/stable", json={"version": "1.1.0"}))
    after = accepted(acme.post("/generate", json=BODY))["id"]
    specs = [repository.read_spec(job) for job in before]
    assert {(spec.model, spec.model_key, spec.weights_sha256) for spec in specs} == {
        ("polyps@1.0.0", "acme:polyps@1.0.0", hashes["1.0.0"])
    }
    late = repository.read_spec(after)
    assert (late.model, late.weights_sha256, late.format) == ("polyps@1.1.0", hashes["1.1.0"], 5)
    # the same key and words mean the same job, whatever the alias stands for by now
    again = accepted(acme.post("/generate", json=BODY, headers={"Idempotency-Key": "one"}))
    assert again["id"] == keyed["id"]
    assert again["parameters"]["model"] == "polyps@1.0.0"
    # and a retry makes what is missing with the version of its job
    make_chunk(repository, specs[0], 0, failed=(1,))
    finish(repository, specs[0])
    retried = accepted(acme.post(f"/jobs/{before[0]}/retry"))
    assert repository.read_spec(retried["id"]).model_key == "acme:polyps@1.0.0"


def test_aliases_of_bundled_and_shared_models_are_each_tenants_own(acme: TestClient, bolt: TestClient) -> None:
    accepted(acme.put("/models/aerial/aliases/prod", json={"version": "1.9.0"}))
    accepted(bolt.put("/models/aerial/aliases/prod", json={"version": "1.0.0"}))
    assert [accepted(each.get("/models/aerial@prod"))["id"] for each in (acme, bolt)] == [
        "aerial@1.9.0",
        "aerial@1.0.0",
    ]


def test_a_shared_model_is_named_with_its_owner_until_the_share_ends(
    acme: TestClient, bolt: TestClient, store: ObjectStore, repository: JobRepository, tmp_path: Path
) -> None:
    add(store, tmp_path, tenant="acme")
    add(store, tmp_path, version="2.0.0", data=b"next", tenant="acme", candidate=True)
    add(store, tmp_path, data=b"own", tenant="bolt")
    accepted(acme.put("/models/polyps/aliases/stable", json={"version": "1.0.0"}))
    unknown = bolt.get("/models/acme:polyps").json()["detail"]
    assert "acme:polyps@" not in unknown
    shared = accepted(acme.post("/models/polyps/share", json={"tenants": ["bolt"]}))
    assert [each["tenant"] for each in shared["shares"]] == ["bolt"]
    for ref in ("acme:polyps", "acme:polyps@1.0.0", "acme:polyps@stable"):
        found = accepted(bolt.get(f"/models/{ref}"))
        assert (found["id"], found["owner"], found["versions"]) == ("acme:polyps@1.0.0", "acme", ["1.0.0"])
        assert found["registered_by"] is None
    assert problem(bolt.get("/models/acme:polyps@2.0.0")) == (404, "unknown-model")
    assert accepted(bolt.get("/models/polyps"))["owner"] == "bolt"
    listed = [each["id"] for each in accepted(bolt.get("/models"))["models"]]
    assert (listed[-1], "polyps@1.0.0" in listed) == ("acme:polyps@1.0.0", True)
    job = accepted(bolt.post("/generate", json={**BODY, "model": "acme:polyps"}))
    spec = repository.read_spec(job["id"])
    assert (spec.model, spec.model_owner, spec.model_key) == ("acme:polyps@1.0.0", "acme", "acme:polyps@1.0.0")
    assert accepted(bolt.get(job["links"]["model"]))["id"] == "acme:polyps@1.0.0"
    for change in ({"tenants": ["bolt"], "all": True}, {}, {"tenants": ["Not a tenant"]}, {"tenants": ["acme"]}):
        assert problem(acme.post("/models/polyps/share", json=change)) == (422, "invalid-request")
    assert accepted(acme.post("/models/polyps/unshare", json={"tenants": ["bolt"]})) == {"shares": []}
    assert bolt.get("/models/acme:polyps").json()["detail"] == unknown
    assert problem(bolt.post("/generate", json={**BODY, "model": "acme:polyps"})) == (404, "unknown-model")
    # the job that was accepted keeps its model: its archive, a retry and its repair find it
    make_chunk(repository, spec, 0, failed=(1,))
    finish(repository, spec)
    assert bolt.get(job["links"]["archive"]).status_code == 200
    assert repository.read_spec(accepted(bolt.post(f"/jobs/{spec.job}/retry"))["id"]).model_key == "acme:polyps@1.0.0"
    accepted(bolt.post(f"/jobs/{spec.job}/repair"))
    accepted(acme.post("/models/polyps/share", json={"all": True}))
    assert accepted(bolt.get("/models/acme:polyps"))["id"] == "acme:polyps@1.0.0"


def test_others_models_are_neither_shared_promoted_nor_deleted(
    acme: TestClient, bolt: TestClient, store: ObjectStore, tmp_path: Path
) -> None:
    add(store, tmp_path, tenant="acme")
    calls: list[tuple[str, str, Any]] = [
        ("POST", "/models/{}/promote", None),
        ("DELETE", "/models/{}", None),
        ("POST", "/models/{}/share", {"all": True}),
        ("POST", "/models/{}/unshare", {"all": True}),
        ("GET", "/models/{}/shares", None),
    ]
    for method, path, body in calls:
        refs = ("polyps@1.0.0", "acme:polyps@1.0.0") if body is None and "shares" not in path else ("polyps",)
        for ref in refs:
            theirs = bolt.request(method, path.format(ref), json=body)
            none = bolt.request(method, path.format(ref.replace("polyps", "absent")), json=body)
            assert problem(theirs) == problem(none) == (404, "unknown-model")
            assert theirs.json()["detail"].replace("polyps", "absent") == none.json()["detail"]
        everyones = bolt.request(method, path.format("aerial@1.0.0" if len(refs) > 1 else "aerial"), json=body)
        assert problem(everyones) == (409, "model-conflict")
        assert "of all tenants" in everyones.json()["detail"]
    assert accepted(acme.get("/models/polyps"))["id"] == "polyps@1.0.0"


def test_a_candidate_is_promoted(acme: TestClient, store: ObjectStore, tmp_path: Path) -> None:
    add(store, tmp_path, tenant="acme")
    add(store, tmp_path, version="1.1.0", data=b"next", tenant="acme", candidate=True, by="t123")
    assert accepted(acme.get("/models/polyps"))["id"] == "polyps@1.0.0"
    shown = accepted(acme.get("/models/polyps@1.1.0"))
    assert (shown["candidate"], shown["registered_by"], shown["versions"]) == (True, "t123", ["1.1.0", "1.0.0"])
    assert problem(acme.post("/models/polyps/promote")) == (422, "invalid-request")
    for _ in range(2):
        assert accepted(acme.post("/models/polyps@1.1.0/promote"))["candidate"] is False
    assert accepted(acme.get("/models/polyps"))["id"] == "polyps@1.1.0"
    [listed] = [each for each in accepted(acme.get("/models"))["models"] if each["owner"] == "acme"]
    assert listed["id"] == "polyps@1.1.0"


def test_a_version_that_something_needs_is_not_deleted(
    acme: TestClient, bolt: TestClient, store: ObjectStore, repository: JobRepository, tmp_path: Path
) -> None:
    add(store, tmp_path, tenant="acme")
    add(store, tmp_path, "tuned", data=b"tuned", tenant="acme", base="acme:polyps@1.0.0")
    accepted(acme.put("/models/polyps/aliases/stable", json={"version": "1.0.0"}))
    accepted(acme.post("/models/polyps/share", json={"tenants": ["bolt"]}))
    mine = accepted(acme.post("/generate", json=BODY))["id"]
    theirs = accepted(bolt.post("/generate", json={**BODY, "model": "acme:polyps"}))["id"]
    refused = acme.delete("/models/polyps@1.0.0")
    assert problem(refused) == (409, "model-conflict")
    needed = refused.json()["needed_by"]
    assert sorted(needed, key=str) == sorted(
        [
            {"kind": "alias", "id": "polyps@stable"},
            {"kind": "job", "id": mine},
            {"kind": "job", "id": None},
            {"kind": "model", "id": "acme:tuned@1.0.0"},
        ],
        key=str,
    )
    assert theirs not in refused.text
    assert "bolt" not in refused.text
    assert accepted(acme.get("/models/polyps@1.0.0"))["id"] == "polyps@1.0.0", "still usable"
    for job in (mine, theirs):
        finish(repository, repository.read_spec(job))
    accepted(acme.delete("/models/polyps/aliases/stable"))
    assert acme.delete("/models/polyps@1.0.0").json()["needed_by"] == [{"kind": "model", "id": "acme:tuned@1.0.0"}]
    accepted(acme.delete("/models/tuned@1.0.0"))
    accepted(acme.delete("/models/polyps@1.0.0"))
    assert problem(acme.delete("/models/polyps@1.0.0")) == (404, "unknown-model")
    assert problem(bolt.get("/models/acme:polyps")) == (404, "unknown-model")
    assert [info.key for info in store.list("weights/") if info.key.endswith(".safetensors")] == []
    # what was made with it stays, with the card; it can no longer be made again
    assert acme.get(f"/jobs/{mine}/archive").status_code == 200
    assert problem(acme.post(f"/jobs/{mine}/repair")) == (404, "unknown-model")
    assert problem(acme.post("/models/polyps/promote")) == (422, "invalid-request")


def test_models_count_to_the_stored_bytes(acme: TestClient, app: FastAPI, store: ObjectStore, tmp_path: Path) -> None:
    services = app.state.services
    services.limits.stored_bytes = 100
    add(store, tmp_path, data=bytes(200), tenant="acme")
    refused = acme.post("/generate", json={**BODY, "model": "aerial"})
    assert problem(refused) == (429, "limit-reached")
    assert refused.json()["used"] == len(safetensors(bytes(200)))
    accepted(acme.delete("/models/polyps@1.0.0"))
    accepted(acme.post("/generate", json={**BODY, "model": "aerial"}))
