"""POST /generate: what it accepts, what it promises, and that it promises it once."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from starlette.testclient import TestClient

from service.api.app import create_app
from service.broker.priority import Priority
from service.jobs.repository import JobRepository
from service.kit.states import JobState
from service.settings import Settings
from service.store import ObjectStore, keys
from tests.service.api.support import (
    DictLiveState,
    NotingQueue,
    finish,
    make_chunk,
)

BODY: dict[str, Any] = {"model": "aerial", "classes": ["water"], "count": 8}


def test_a_request_is_answered_202_with_the_job_and_its_place(client: TestClient) -> None:
    answer = client.post("/generate", json=BODY)
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/jobs/{job['id']}" == job["links"]["self"]
    assert (job["state"], job["done"], job["failed"], job["total"]) == ("queued", 0, 0, 8)
    assert client.get(answer.headers["location"]).json() == job


def test_defaults_come_from_the_card_and_a_bare_name_means_the_newest_version(client: TestClient) -> None:
    parameters = client.post("/generate", json=BODY).json()["parameters"]
    seed = parameters.pop("seed")
    assert 0 <= seed < 2**53
    assert parameters == {
        "model": "aerial@1.10.0",
        "prompt": None,
        "classes": ["water"],
        "mask": None,
        "instances": None,
        "mask_encoding": None,
        "count": 8,
        "steps": 50,
        "guidance_scale": 2.0,
        "guidance_target": None,
        "eta": 0.0,
        "size": 256,
        "fit": None,
        "canvas": None,
        "priority": "normal",
        "layout": "objects",
    }


def test_what_is_asked_for_is_what_is_made(client: TestClient) -> None:
    asked = {
        "model": "aerial@1.9.0",
        "prompt": "A photo of a lake",
        "count": 3,
        "seed": 2**53 - 1,
        "steps": 7,
        "guidance_scale": 3,
        "eta": 0.5,
        "size": 64,
        "priority": "interactive",
        "layout": "shards",
    }
    job = client.post("/generate", json={**asked, "name": " lakes "}).json()
    left_out = ("classes", "mask", "instances", "mask_encoding", "guidance_target", "fit", "canvas")
    assert job["parameters"] == {**asked, **dict.fromkeys(left_out)}
    assert job["name"] == "lakes"
    again = client.post("/generate", json={k: v for k, v in job["parameters"].items() if v is not None})
    assert again.json()["parameters"] == job["parameters"]


def test_whole_numbers_may_be_written_with_a_point(client: TestClient) -> None:
    body = {"model": "aerial", "classes": ["water"], "count": 8, "seed": 7, "steps": 20, "size": 64}
    headers = {"Idempotency-Key": "either"}
    made = client.post("/generate", json=body, headers=headers).json()
    pointed = {member: float(value) if isinstance(value, int) else value for member, value in body.items()}
    assert client.post("/generate", json=pointed, headers=headers).json()["id"] == made["id"]
    assert made["parameters"]["count"] == 8
    assert made["parameters"]["seed"] == 7


def test_the_answer_is_the_job_as_everybody_sees_it_next(client: TestClient) -> None:
    for changes in (
        {},
        {"count": 1, "name": "one", "seed": 2**53 - 1, "guidance_scale": 1.25, "priority": "interactive"},
    ):
        answer = client.post("/generate", json={**BODY, **changes})
        looked_at = client.get(answer.headers["location"])
        assert answer.text == looked_at.text
        assert answer.headers["content-type"] == looked_at.headers["content-type"] == "application/json"
        assert client.get("/jobs").json()["jobs"][0] == answer.json()


def test_a_repeated_request_is_answered_with_what_has_become_of_its_job(
    client: TestClient, repository: JobRepository
) -> None:
    headers = {"Idempotency-Key": "again"}
    first = client.post("/generate", json=BODY, headers=headers)
    repository.record_started(first.json()["id"])
    again = client.post("/generate", json=BODY, headers=headers)
    assert (first.json()["state"], again.json()["state"]) == ("queued", "running")
    assert again.json() == client.get(again.headers["location"]).json()
    assert again.json()["sequence"] > first.json()["sequence"]


def test_the_spec_is_in_the_store_when_202_is_answered(client: TestClient, repository: JobRepository) -> None:
    job = client.post("/generate", json=BODY, headers={"Idempotency-Key": "k"}).json()
    spec = repository.read_spec(job["id"])
    assert (spec.model, spec.weights_sha256, spec.seed) == ("aerial@1.10.0", "ab" * 32, job["parameters"]["seed"])
    assert spec.request == BODY
    assert spec.idempotency_key == "k"
    assert spec.sampler.timestep_spacing == "trailing"


def test_the_spec_is_stored_before_its_first_chunk_is_sent(
    client: TestClient, repository: JobRepository, queue: NotingQueue
) -> None:
    found_at_send: list[bool] = []
    plain_send = queue.send_chunk

    def look_then_send(job: str, chunk: int, priority: Priority, tenant: str) -> None:
        found_at_send.append(repository.store.head(keys.job_spec(job)) is not None)
        plain_send(job, chunk, priority)

    queue.send_chunk = look_then_send  # type: ignore[method-assign]
    client.post("/generate", json=BODY)
    assert found_at_send == [True, True, True]


def test_only_the_first_chunks_are_sent(client: TestClient, queue: NotingQueue) -> None:
    many = client.post("/generate", json={**BODY, "count": 100}).json()["id"]
    few = client.post("/generate", json={**BODY, "count": 3}).json()["id"]
    assert queue.sent == [(many, 0), (many, 1), (many, 2), (few, 0), (few, 1)]


def test_an_interactive_job_is_sent_as_one_and_a_normal_one_is_not(
    client: TestClient, repository: JobRepository, queue: NotingQueue
) -> None:
    urgent = client.post("/generate", json={**BODY, "priority": "interactive"}).json()["id"]
    plain = client.post("/generate", json={**BODY, "priority": "normal"}).json()["id"]
    assert (repository.read_spec(urgent).priority, repository.read_spec(plain).priority) == ("interactive", "normal")
    assert queue.interactive == [(urgent, 0), (urgent, 1), (urgent, 2)]
    assert queue.sent[3:] == [(plain, 0), (plain, 1), (plain, 2)]


def test_an_interactive_job_has_the_manifest_of_a_normal_one(client: TestClient, repository: JobRepository) -> None:
    lines = []
    for priority in ("normal", "interactive"):
        job = client.post("/generate", json={**BODY, "seed": 3, "priority": priority}).json()["id"]
        finish(repository, repository.read_spec(job))
        lines.append(client.get(f"/jobs/{job}/manifest").text.replace(job, "").splitlines())
    assert [json.loads(line) for line in lines[0]] == [json.loads(line) for line in lines[1]]


@pytest.mark.parametrize(
    ("changes", "from_count", "layout"),
    [
        ({"count": 999}, 1000, "objects"),
        ({"count": 1000}, 1000, "shards"),
        ({"count": 1000, "layout": "objects"}, 1000, "objects"),
        ({"count": 1, "layout": "shards"}, 1000, "shards"),
        ({"count": 1, "layout": "shards"}, 0, "shards"),
        ({"count": 100_000}, 0, "objects"),
        ({"count": 20, "priority": "interactive"}, 10, "objects"),
        ({"count": 20, "priority": "interactive", "layout": "shards"}, 10, "shards"),
    ],
)
def test_large_jobs_of_normal_priority_are_stored_as_shards_unless_asked_otherwise(
    settings: Settings,
    store: ObjectStore,
    repository: JobRepository,
    changes: dict[str, Any],
    from_count: int,
    layout: str,
) -> None:
    app = create_app(
        settings.model_copy(update={"shards_from_count": from_count}),
        store=store,
        queue=NotingQueue(),
        live_state=DictLiveState(),
    )
    job = TestClient(app).post("/generate", json={**BODY, **changes}).json()
    assert job["parameters"]["layout"] == repository.read_spec(job["id"]).layout == layout


def test_a_layout_that_there_is_not_is_refused(client: TestClient) -> None:
    answer = client.post("/generate", json={**BODY, "layout": "tar"})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/layout"
    assert "'objects' or 'shards'" in answer.json()["detail"]


def test_where_no_link_into_a_shard_could_be_signed_there_are_none(
    settings: Settings, store: ObjectStore, repository: JobRepository
) -> None:
    in_s3 = settings.model_copy(update={"store_url": "s3://bucket"})
    client = TestClient(create_app(in_s3, store=store, queue=NotingQueue(), live_state=DictLiveState()))
    assert client.post("/generate", json={**BODY, "count": 5000}).json()["parameters"]["layout"] == "objects"
    answer = client.post("/generate", json={**BODY, "layout": "shards"})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/layout"
    assert "TWINSET_LINK_SECRET" in answer.json()["detail"]
    shared = in_s3.model_copy(update={"link_secret": SecretStr("0123456789abcdef")})
    client = TestClient(create_app(shared, store=store, queue=NotingQueue(), live_state=DictLiveState()))
    assert client.post("/generate", json={**BODY, "count": 5000}).json()["parameters"]["layout"] == "shards"


def test_a_broker_that_is_down_loses_nothing(client: TestClient, repository: JobRepository, queue: NotingQueue) -> None:
    queue.down = True
    answer = client.post("/generate", json=BODY)
    assert answer.status_code == 202
    assert queue.sent == []
    assert list(repository.chunks.missing(repository.read_spec(answer.json()["id"]))) == [0, 1, 2, 3]


def test_classes_are_found_by_alias_and_case_and_stored_in_the_cards_order(
    client: TestClient, repository: JobRepository
) -> None:
    given = ["Plants", "WATER", " houses", "building"]
    job = client.post("/generate", json={**BODY, "classes": given}).json()
    assert job["parameters"]["classes"] == ["building", "water", "vegetation"]
    assert repository.read_spec(job["id"]).request["classes"] == given


def test_the_same_key_and_body_are_the_same_job(client: TestClient, queue: NotingQueue) -> None:
    first = client.post("/generate", json=BODY, headers={"Idempotency-Key": "k-1"})
    reordered = json.dumps(dict(reversed(BODY.items())), indent=3)
    headers = {"Idempotency-Key": "k-1", "Content-Type": "application/json; charset=utf-8"}
    second = client.post("/generate", content=reordered, headers=headers)
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json() == second.json()
    assert len(queue.sent) == 3
    assert len(client.get("/jobs").json()["jobs"]) == 1


def test_the_same_key_with_another_body_is_refused(client: TestClient) -> None:
    job = client.post("/generate", json=BODY, headers={"Idempotency-Key": "k-1"}).json()["id"]
    answer = client.post("/generate", json={**BODY, "count": 9}, headers={"Idempotency-Key": "k-1"})
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["type"], problem["job"]) == ("/problems/idempotency-conflict", job)
    assert "'k-1'" in problem["detail"] or '"k-1"' in problem["detail"]
    assert "new key" in problem["detail"]
    urgent = client.post("/generate", json={**BODY, "priority": "interactive"}, headers={"Idempotency-Key": "k-1"})
    assert urgent.status_code == 409, "a key's job keeps the priority it was accepted with"


def test_a_refused_request_does_not_take_its_key(client: TestClient) -> None:
    headers = {"Idempotency-Key": "k-1"}
    assert client.post("/generate", json={**BODY, "count": 0}, headers=headers).status_code == 422
    assert client.post("/generate", json=BODY, headers=headers).status_code == 202


def test_parallel_requests_with_one_key_make_one_job(
    client: TestClient, queue: NotingQueue, repository: JobRepository
) -> None:
    start = threading.Barrier(8)

    def post(_: int) -> dict[str, Any]:
        start.wait()
        answer = client.post("/generate", json=BODY, headers={"Idempotency-Key": "race"})
        assert answer.status_code == 202
        return answer.json()

    with ThreadPoolExecutor(8) as pool:
        jobs = list(pool.map(post, range(8)))
    assert len({job["id"] for job in jobs}) == 1
    assert len({job["parameters"]["seed"] for job in jobs}) == 1
    assert list(repository.jobs()) == [jobs[0]["id"]]
    assert sorted(queue.sent) == [(jobs[0]["id"], chunk) for chunk in range(3)]


def test_a_crash_between_reservation_and_spec_is_healed_by_the_retry(
    client: TestClient, repository: JobRepository, queue: NotingQueue
) -> None:
    job = client.post("/generate", json=BODY, headers={"Idempotency-Key": "k"}).json()["id"]
    repository.store.delete(keys.job_spec(job))
    queue.sent.clear()
    assert client.post("/generate", json=BODY, headers={"Idempotency-Key": "k"}).json()["id"] == job
    assert repository.read_spec(job).count == 8
    assert len(queue.sent) == 3


def test_prefer_wait_holds_the_answer_for_the_end(client: TestClient, repository: JobRepository) -> None:
    def do_the_job() -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            for job in repository.jobs():
                finish(repository, repository.read_spec(job))
                return

    worker = threading.Thread(target=do_the_job)
    worker.start()
    answer = client.post("/generate", json=BODY, headers={"Prefer": "respond-async, wait=9"})
    worker.join()
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=9"
    assert answer.json()["state"] == "succeeded"
    assert answer.json()["done"] == 8


def test_prefer_wait_gives_up_at_its_time_and_at_the_services_own(app: FastAPI, client: TestClient) -> None:
    began = time.monotonic()
    answer = client.post("/generate", json=BODY, headers={"Prefer": "wait=0"})
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "wait=0")
    assert time.monotonic() - began < 5
    ignored = client.post("/generate", json=BODY, headers={"Prefer": "wait=soon"})
    assert ignored.status_code == 202
    assert "preference-applied" not in ignored.headers


def test_a_finished_job_answers_its_key_with_how_it_ended(client: TestClient, repository: JobRepository) -> None:
    headers = {"Idempotency-Key": "k"}
    job = client.post("/generate", json=BODY, headers=headers).json()["id"]
    spec = repository.read_spec(job)
    make_chunk(repository, spec, 0, failed=(1,))
    assert finish(repository, spec).state is JobState.PARTIAL
    again = client.post("/generate", json=BODY, headers={**headers, "Prefer": "wait=1"})
    assert again.status_code == 200
    assert (again.json()["done"], again.json()["failed"]) == (7, 1)
