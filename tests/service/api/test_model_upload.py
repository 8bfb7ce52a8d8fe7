"""Models in and out over HTTP, as one tar: registered once, refused with what is wrong, and unknown to others."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.api.app import create_app
from service.registry.archive_writing import folder_archive
from service.settings import Settings
from service.store import ObjectStore
from tests.service.api.support import DictLiveState, NotingQueue
from tests.service.api.test_models import Sign, accepted, problem, sign_in
from tests.service.registry.small_models import add, blobs, safetensors, write_model
from tests.service.registry.test_model_archive import CARD, packed

__all__ = ["sign_in"]
TAR = {"Content-Type": "application/x-tar"}


@pytest.fixture
def acme(sign_in: Sign) -> TestClient:
    return sign_in("acme")


@pytest.fixture
def bolt(sign_in: Sign) -> TestClient:
    return sign_in("bolt")


def tar(folder: Path, *given: Any, **changes: Any) -> bytes:
    return b"".join(folder_archive(write_model(folder, *given, **changes), folder).pieces())


def test_a_model_is_sent_registered_once_and_fetched_again(
    acme: TestClient, bolt: TestClient, store: ObjectStore, tmp_path: Path
) -> None:
    data = tar(tmp_path / "model", data=bytes(3 << 20))
    made = acme.post("/models", content=data, headers=TAR)
    assert (made.status_code, made.headers["location"]) == (201, "/models/polyps@1.0.0")
    view = accepted(made)
    assert (view["id"], view["owner"], view["registered_by"]) == ("polyps@1.0.0", "acme", acme.key_id)  # type: ignore[attr-defined]
    again = acme.post("/models", content=data, headers=TAR)
    assert (again.status_code, again.json()) == (200, view)
    fetched = acme.get("/models/polyps@1.0.0/archive")
    assert fetched.content == data
    assert fetched.headers["content-length"] == str(len(data))
    assert fetched.headers["content-disposition"] == 'attachment; filename="polyps-1.0.0.tar"'
    assert problem(bolt.get("/models/polyps@1.0.0/archive")) == (404, "unknown-model")
    assert problem(bolt.get("/models/acme:polyps@1.0.0/archive")) == (404, "unknown-model")
    # what came out goes in again, for another tenant too, and is stored once
    assert bolt.post("/models", content=fetched.content, headers=TAR).status_code == 201
    assert len(blobs(store)) == 1


def test_a_bundled_model_is_fetched_whole(acme: TestClient, tmp_path: Path) -> None:
    fetched = acme.get("/models/cosimgen-dubai/archive")
    card = accepted(acme.get("/models/cosimgen-dubai"))["card"]
    (tmp_path / "model.tar").write_bytes(fetched.content)
    with tarfile.open(tmp_path / "model.tar") as opened:
        for name, file in card["files"].items():
            member = opened.extractfile(name)
            assert member is not None
            assert hashlib.sha256(member.read()).hexdigest() == file["sha256"]
    refused = acme.post("/models", content=fetched.content, headers=TAR)
    assert problem(refused) == (409, "model-conflict")
    assert "is the name of a model of all tenants" in refused.json()["detail"]


def test_a_tar_that_names_anothers_weights_without_their_bytes_is_refused(
    acme: TestClient, bolt: TestClient, store: ObjectStore, tmp_path: Path
) -> None:
    add(store, tmp_path, data=b"abcd", tenant="acme")
    answers = [
        bolt.post("/models", content=packed(("card.json", card)), headers=TAR)
        for card in (CARD, CARD.replace(hashlib.sha256(safetensors(b"abcd")).hexdigest().encode(), b"0" * 64))
    ]
    assert [problem(answer) for answer in answers] == [(422, "invalid-model")] * 2
    assert answers[0].json() == {**answers[1].json(), "instance": answers[0].json()["instance"]}
    assert answers[0].json()["errors"] == [
        {
            "file": "model.safetensors",
            "detail": "model.safetensors is named by the card, but missing; a hash alone does not stand for the file",
        }
    ]
    assert problem(bolt.get("/models/polyps")) == (404, "unknown-model")
    assert [info.key for info in store.list("models/bolt/")] == []


def test_another_model_of_the_version_is_refused_and_leaves_nothing(
    acme: TestClient, store: ObjectStore, tmp_path: Path
) -> None:
    accepted(acme.post("/models", content=tar(tmp_path / "one"), headers=TAR))
    before = [info.key for info in store.list("")]
    refused = acme.post("/models", content=tar(tmp_path / "two", data=b"other"), headers=TAR)
    assert problem(refused) == (409, "model-conflict")
    assert "a version never changes; give the new one a higher version" in refused.json()["detail"]
    assert [info.key for info in store.list("")] == before


def test_a_candidate_is_sent(acme: TestClient, tmp_path: Path) -> None:
    data = tar(tmp_path / "model")
    sent = acme.post("/models", params={"candidate": "true"}, content=data, headers=TAR)
    assert accepted(sent)["candidate"] is True
    assert problem(acme.get("/models/polyps")) == (404, "unknown-model")
    assert accepted(acme.post("/models/polyps@1.0.0/promote"))["candidate"] is False
    assert accepted(acme.get("/models/polyps"))["id"] == "polyps@1.0.0"


def test_bodies_over_the_limits_are_refused(
    settings: Settings, store: ObjectStore, tmp_path: Path, app: FastAPI, acme: TestClient
) -> None:
    small = settings.model_copy(update={"max_model_bytes": 25_000, "max_body_bytes": 1024})
    client = TestClient(create_app(small, store=store, queue=NotingQueue(), live_state=DictLiveState()))
    client.headers["Authorization"] = acme.headers["Authorization"]
    refused = client.post("/models", content=tar(tmp_path / "large", data=bytes(30_000)), headers=TAR)
    assert problem(refused) == (413, "body-too-large")
    assert "at most 25000 are allowed" in refused.json()["detail"]
    accepted(client.post("/models", content=tar(tmp_path / "small", data=bytes(5_000)), headers=TAR))
    assert problem(client.post("/models", json={})) == (415, "wrong-content-type")
    app.state.services.limits.stored_bytes = 6_000
    refused = acme.post("/models", content=tar(tmp_path / "more", "more", data=bytes(5_000)), headers=TAR)
    assert problem(refused) == (429, "limit-reached")
    assert len(blobs(store)) == 1
    assert not any((small.data_dir / "scratch").glob("*/*"))


def test_a_download_of_damaged_weights_is_broken_off(acme: TestClient, store: ObjectStore, tmp_path: Path) -> None:
    record, _ = add(store, tmp_path, data=bytes(3 << 20), tenant="acme")
    [key] = record.files.values()
    store.put(key, store.get(key)[:-1] + b"x")
    broken = acme.get("/models/polyps@1.0.0/archive")
    assert len(broken.content) < int(broken.headers["content-length"])
    store.delete(key)
    assert problem(acme.get("/models/polyps@1.0.0/archive")) == (404, "object-not-found")
    # sent again, what was lost is stored again
    sent = acme.post("/models", content=tar(tmp_path / "again", data=bytes(3 << 20)), headers=TAR)
    assert sent.status_code == 200
    assert store.get(key) == safetensors(bytes(3 << 20))
