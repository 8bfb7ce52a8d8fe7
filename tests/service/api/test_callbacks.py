"""``callback_url``: what is taken and what is refused, and what a job shows of its callback."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.api.app import create_app
from service.jobs.repository import JobRepository
from service.jobs.spec import JobSpec
from service.kit.webhook_secrets import new_secret
from service.runs.webhook_payload import EXAMPLE, CallbackMessage
from service.settings import Settings
from service.store import ObjectStore, keys
from service.webhooks.outbox import DeliveryAttempt
from tests.service.api.support import (
    CLOSED_PORT,
    DictLiveState,
    NotingQueue,
    finish,
)
from tests.stored_twins import manifest_key

BODY: dict[str, Any] = {"model": "aerial", "classes": ["water"], "count": 4}
URL = "https://hooks.example/twins?token=1"


def post(client: TestClient, url: object = URL, **options: Any) -> Any:
    return client.post("/generate", json={**BODY, "callback_url": url}, **options)


def test_a_callback_is_kept_with_the_job_and_shown(
    client: TestClient, repository: JobRepository, settings: Settings
) -> None:
    job = post(client).json()
    assert job["callback"] == {
        "id": f"{job['id']}_ended",
        "url": URL,
        "state": "waiting",
        "attempts": [],
        "next_at": None,
    }
    spec = repository.read_spec(job["id"])
    assert spec.callback is not None
    assert (spec.callback.url, spec.callback.service_url) == (URL, settings.public_url)
    assert client.get("/jobs").json()["jobs"] == [job]
    assert client.post("/generate", json=BODY).json()["callback"] is None


def test_it_decides_on_nothing_that_is_made(client: TestClient, repository: JobRepository, store: ObjectStore) -> None:
    lines = []
    for extra in ({}, {"callback_url": URL}):
        job = client.post("/generate", json={**BODY, "seed": 3, **extra}).json()
        finish(repository, repository.read_spec(job["id"]))
        lines.append(store.get(manifest_key(store, job["id"])).decode().replace(job["id"], "").splitlines())
        assert "callback_url" not in job["parameters"]
    assert [json.loads(line) for line in lines[0]] == [json.loads(line) for line in lines[1]]


def test_the_attempts_at_it_are_listed_with_the_job(client: TestClient, repository: JobRepository) -> None:
    job = post(client).json()["id"]
    finish(repository, repository.read_spec(job))
    assert client.get(f"/jobs/{job}").json()["callback"]["state"] == "pending"
    at = datetime(2026, 1, 31, 12, tzinfo=UTC)
    next_at = at + timedelta(seconds=5)
    repository.outbox.record(
        job, DeliveryAttempt(number=1, at=at, seconds=0.25, error="no answer", result="failed", next_at=next_at)
    )
    first = {"at": "2026-01-31T12:00:00Z", "seconds": 0.25, "status": None, "error": "no answer"}
    found = client.get(f"/jobs/{job}").json()["callback"]
    assert (found["state"], found["attempts"], found["next_at"]) == ("pending", [first], "2026-01-31T12:00:05Z")
    repository.outbox.record(job, DeliveryAttempt(number=2, at=next_at, seconds=0.5, status=200, result="delivered"))
    second = {"at": "2026-01-31T12:00:05Z", "seconds": 0.5, "status": 200, "error": None}
    found = client.get(f"/jobs/{job}").json()["callback"]
    assert (found["state"], found["attempts"], found["next_at"]) == ("delivered", [first, second], None)
    assert client.get("/jobs").json()["jobs"][0]["callback"] == found


def test_a_job_cancelled_before_its_start_has_its_callback_noted(client: TestClient, repository: JobRepository) -> None:
    job = post(client).json()["id"]
    assert list(repository.outbox.pending()) == []
    answer = client.delete(f"/jobs/{job}").json()
    assert (answer["state"], answer["callback"]["state"]) == ("cancelled", "pending")
    assert list(repository.outbox.pending()) == [job]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://hooks.example/", "start with https://; plain http is allowed where TWINSET_WEBHOOK_ALLOW_PRIVATE"),
        ("https://127.0.0.1:8080/", "127.0.0.1 is a loopback address"),
        ("https://10.1.2.3/", "10.1.2.3 is a private address"),
        ("https://169.254.169.254/latest/meta-data/", "of special use"),
        ("https://localhost/", "inside a private network"),
        ("https://me:hunter2@hooks.example/", "user or a password"),
        ("https://hooks.example/#x", "fragment"),
        ("https://hooks.example/" + "a" * 3000, "at most 2048 are allowed"),
        ("", "start with https://"),
    ],
)
def test_where_none_may_go_is_refused_at_once_with_what_would_do(
    client: TestClient, repository: JobRepository, url: str, why: str
) -> None:
    answer = post(client, url)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    (fault,) = problem["errors"]
    assert fault["pointer"] == "/callback_url"
    assert why in fault["detail"]
    assert "hunter2" not in answer.text
    assert list(repository.jobs()) == []


def test_it_is_told_together_with_what_else_is_wrong(client: TestClient) -> None:
    answer = client.post("/generate", json={**BODY, "classes": ["watr"], "callback_url": "https://127.0.0.1/"})
    assert [fault["pointer"] for fault in answer.json()["errors"]] == ["/classes/0", "/callback_url"]
    assert answer.json()["type"] == "/problems/invalid-request"
    assert post(client, 5).json()["errors"][0] == {
        "pointer": "/callback_url",
        "detail": "callback_url is 5: give a string",
    }


def app_with(settings: Settings, store: ObjectStore, **changes: Any) -> TestClient:
    changed = settings.model_copy(update=changes)
    return TestClient(create_app(changed, store=store, queue=NotingQueue(), live_state=DictLiveState()))


def test_settings_allow_private_ones(settings: Settings, store: ObjectStore) -> None:
    with app_with(settings, store, webhook_allow_private=True) as client:
        for url in ("http://127.0.0.1:8080/hook", "http://receiver:80/", "https://10.1.2.3/"):
            assert post(client, url).status_code == 202
        assert post(client, "http://169.254.169.254/").status_code == 422


def test_halves_that_meet_in_s3_take_no_callback_before_they_have_a_secret(store: ObjectStore, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "api", store_url="s3://twins", broker_url=CLOSED_PORT)
    with app_with(settings, store) as client:
        answer = post(client)
        assert answer.status_code == 422
        assert "set TWINSET_WEBHOOK_SECRET" in answer.json()["errors"][0]["detail"]
        assert client.post("/generate", json=BODY).status_code == 202
    with app_with(settings, store, webhook_secret=Settings(webhook_secret=new_secret()).webhook_secret) as client:
        assert post(client).status_code == 202


def test_the_secret_is_there_once_a_callback_has_been_taken(client: TestClient, settings: Settings) -> None:
    path = settings.data_dir / "webhook-secret"
    client.post("/generate", json=BODY)
    assert not path.exists()
    post(client)
    assert path.read_text().startswith("whsec_")


def test_a_key_stands_for_its_callback_too(client: TestClient) -> None:
    headers = {"Idempotency-Key": "k"}
    job = post(client, headers=headers).json()["id"]
    assert post(client, headers=headers).json()["id"] == job
    assert post(client, "https://elsewhere.example/", headers=headers).status_code == 409


def test_a_spec_from_before_there_were_callbacks_is_read(
    client: TestClient, repository: JobRepository, store: ObjectStore
) -> None:
    job = client.post("/generate", json=BODY).json()["id"]
    old = json.loads(store.get(keys.job_spec(job)))
    del old["callback"]
    store.put(keys.job_spec(job), json.dumps(old).encode())
    assert JobSpec.model_validate(old).callback is None
    finish(repository, repository.read_spec(job))
    assert client.get(f"/jobs/{job}").json()["callback"] is None
    assert list(repository.outbox.pending()) == []


def test_the_description_tells_receivers_what_comes(client: TestClient) -> None:
    description = client.get("/openapi.json").json()
    (told,) = description["paths"]["/generate"]["post"]["callbacks"].values()
    operation = told["{$request.body#/callback_url}"]["post"]
    assert {parameter["name"] for parameter in operation["parameters"]} == {
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
    }
    assert set(operation["responses"]) == {"204", "410", "default"}
    assert description["components"]["schemas"]["CallbackMessage"]["examples"]
    assert CallbackMessage.model_validate(EXAMPLE).model_dump(mode="json") == EXAMPLE
