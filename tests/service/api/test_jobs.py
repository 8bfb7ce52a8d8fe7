"""/jobs: states worked out from the store, listing, and cancelling."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.api.app import create_app
from service.broker.live_state import LiveState, Stalled
from service.jobs.garbage import remove_job
from service.jobs.repository import JobRepository
from service.kit.states import JobState
from service.settings import Settings
from service.store import ObjectStore
from tests.service.api.support import (
    CLOSED_PORT,
    DictLiveState,
    NotingQueue,
    finish,
    make_chunk,
)

BODY: dict[str, Any] = {"model": "aerial", "classes": ["water"], "count": 8}


def post(client: TestClient, **changes: Any) -> str:
    return client.post("/generate", json={**BODY, **changes}).json()["id"]


def test_the_state_follows_from_what_is_in_the_store(client: TestClient, repository: JobRepository) -> None:
    job = post(client)
    spec = repository.read_spec(job)
    make_chunk(repository, spec, 2)
    running = client.get(f"/jobs/{job}").json()
    assert (running["state"], running["done"], running["failed"], running["finished_at"]) == ("running", 2, 0, None)
    make_chunk(repository, spec, 0, failed=(1,))
    running = client.get(f"/jobs/{job}").json()
    assert (running["state"], running["done"], running["failed"], running["total"]) == ("running", 3, 1, 8)
    finish(repository, spec)
    ended = client.get(f"/jobs/{job}").json()
    assert (ended["state"], ended["done"], ended["failed"], ended["seconds_left"]) == ("partial", 7, 1, 0)
    assert ended["seconds"] >= 0
    assert datetime.fromisoformat(ended["finished_at"]) >= datetime.fromisoformat(ended["created_at"])


def test_rate_and_seconds_left_come_from_the_last_records(client: TestClient, repository: JobRepository) -> None:
    job = post(client)
    spec = repository.read_spec(job)
    for chunk in range(3):
        make_chunk(repository, spec, chunk)
    for chunk, second in ((0, 100), (1, 104), (2, 108)):
        path = next(repository.store.root.rglob(f"{job}/chunks/{chunk:06d}.json"))  # type: ignore[attr-defined]
        os.utime(path, (second, second))
    view = client.get(f"/jobs/{job}").json()
    assert view["rate"] == pytest.approx(4 / 8)
    assert view["seconds_left"] == pytest.approx(2 / 0.5)


def test_a_mark_tells_of_work_that_left_no_record_yet_and_a_hint_of_its_rate_alone(
    client: TestClient, repository: JobRepository, live_state: DictLiveState
) -> None:
    job = post(client)
    live_state.publish_progress(job, state=JobState.RUNNING, done=0, rate=2.0)
    assert client.get(f"/jobs/{job}").json()["state"] == "queued"
    repository.record_started(job)
    view = client.get(f"/jobs/{job}").json()
    assert (view["state"], view["rate"], view["seconds_left"]) == ("running", 2.0, 4.0)


def test_the_sequence_number_counts_up_in_every_process_to_an_end_where_it_stays(
    client: TestClient, repository: JobRepository, settings: Settings, store: ObjectStore
) -> None:
    with TestClient(create_app(settings, store=store, queue=NotingQueue(), live_state=DictLiveState())) as other:
        job = post(client)
        spec = repository.read_spec(job)
        seen = [client.get(f"/jobs/{job}").json()]
        steps: list[Any] = [lambda: repository.record_started(job)]
        steps += [lambda chunk=chunk: make_chunk(repository, spec, chunk) for chunk in (2, 0)]
        steps += [
            lambda: repository.request_cancel(job),
            lambda: repository.conclude(spec),
            lambda: make_chunk(repository, spec, 1),
        ]
        for step in steps:
            step()
            seen += [process.get(f"/jobs/{job}").json() for process in (client, other)]
    assert [view["sequence"] for view in seen] == [0, 1, 1, 2, 2, 3, 3, 4, 4, 7, 7, 7, 7]
    assert (seen[-1]["state"], seen[-1]["done"]) == ("cancelled", 4), "a straggler changes nothing of an end"


def test_the_store_overrules_a_hint(client: TestClient, repository: JobRepository, live_state: DictLiveState) -> None:
    job = post(client)
    live_state.publish_progress(job, state=JobState.RUNNING, done=99)
    finish(repository, repository.read_spec(job))
    view = client.get(f"/jobs/{job}").json()
    assert (view["state"], view["done"]) == ("succeeded", 8)


def test_looking_again_and_again_counts_each_record_once(client: TestClient, repository: JobRepository) -> None:
    job = post(client, count=200)
    spec = repository.read_spec(job)
    for made, chunk in enumerate([*range(50, 100), *range(50)], start=1):
        make_chunk(repository, spec, chunk, failed=(2 * chunk,) if chunk % 10 == 0 else ())
        if made % 25 == 0:
            view = client.get(f"/jobs/{job}").json()
            assert view["done"] + (view["failed"] or 0) == 2 * made
    while (view := client.get(f"/jobs/{job}").json())["failed"] is None:
        pass
    assert (view["done"], view["failed"]) == (190, 10)


def test_jobs_are_listed_newest_first_and_each_once(client: TestClient) -> None:
    jobs = [post(client, count=n) for n in range(1, 8)]
    seen: list[str] = []
    cursor = None
    while True:
        page = client.get("/jobs", params={"limit": 3, **({"cursor": cursor} if cursor else {})}).json()
        seen += [job["id"] for job in page["jobs"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        # A job that comes while the pages are read changes nothing for the reader.
        post(client, count=50)
    assert len(seen) == len(set(seen)) == 7
    totals = [client.get(f"/jobs/{job}").json()["total"] for job in seen]
    created = [client.get(f"/jobs/{job}").json()["created_at"] for job in seen]
    assert sorted(totals) == list(range(1, 8))
    assert [c[:23] for c in created] == sorted((c[:23] for c in created), reverse=True)
    assert set(seen) == set(jobs)


def test_jobs_are_listed_by_state(client: TestClient, repository: JobRepository) -> None:
    done = post(client)
    waiting = post(client)
    finish(repository, repository.read_spec(done))
    assert [job["id"] for job in client.get("/jobs?state=succeeded").json()["jobs"]] == [done]
    assert [job["id"] for job in client.get("/jobs?state=queued&limit=1").json()["jobs"]] == [waiting]
    assert client.get("/jobs?state=failed").json() == {"jobs": [], "unreadable": [], "next_cursor": None}


def test_folders_that_hold_no_job_are_passed_over(client: TestClient, store: ObjectStore) -> None:
    job = post(client)
    store.put("jobs/j00000000000000zzzz/images/00000000.png", b"x")
    store.put("jobs/something-else/spec.json", b"x")
    assert [each["id"] for each in client.get("/jobs").json()["jobs"]] == [job]


def test_cancelling_what_has_not_started_ends_it_at_once(
    client: TestClient, repository: JobRepository, live_state: DictLiveState
) -> None:
    job = post(client)
    answer = client.delete(f"/jobs/{job}")
    assert answer.status_code == 200
    assert answer.json()["state"] == "cancelled"
    assert answer.json()["reason"] == "cancelled before it started"
    assert repository.is_cancelled(job)
    assert live_state.cancelled == {job}


def test_cancelling_what_runs_waits_for_the_worker(client: TestClient, repository: JobRepository) -> None:
    job = post(client)
    spec = repository.read_spec(job)
    make_chunk(repository, spec, 0)
    answer = client.delete(f"/jobs/{job}")
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelling")
    assert repository.read_summary(job) is None
    repository.conclude(spec)
    view = client.get(f"/jobs/{job}").json()
    assert (view["state"], view["done"], view["total"]) == ("cancelled", 2, 8)


def test_a_worker_that_has_only_just_begun_is_waited_for(client: TestClient, repository: JobRepository) -> None:
    job = post(client)
    repository.record_started(job)
    assert client.delete(f"/jobs/{job}").status_code == 202


def test_where_redis_is_silent_the_store_tells_what_has_begun(
    settings: Settings, store: ObjectStore, repository: JobRepository
) -> None:
    app = create_app(settings, store=store, queue=NotingQueue(), live_state=LiveState(CLOSED_PORT))
    with TestClient(app) as client:
        begun, waiting = post(client), post(client)
        repository.record_started(begun)
        assert client.delete(f"/jobs/{begun}").json()["state"] == "cancelling"
        assert client.delete(f"/jobs/{waiting}").json()["state"] == "cancelled"
        assert repository.is_cancelled(begun)


def test_what_has_ended_cannot_be_cancelled(client: TestClient, repository: JobRepository) -> None:
    job = post(client)
    finish(repository, repository.read_spec(job))
    answer = client.post(f"/jobs/{job}/cancel")
    assert answer.status_code == 409
    assert answer.json()["type"] == "/problems/job-state-conflict"
    assert "succeeded with 8 of 8" in answer.json()["detail"]


def test_a_cancel_by_its_own_path_never_deletes(client: TestClient, repository: JobRepository) -> None:
    job = post(client)
    assert [client.post(f"/jobs/{job}/cancel").status_code for _ in range(3)] == [200] * 3
    assert client.get(f"/jobs/{job}").json()["state"] == "cancelled"
    running = post(client)
    make_chunk(repository, repository.read_spec(running), 0)
    assert [client.post(f"/jobs/{running}/cancel").status_code for _ in range(2)] == [202] * 2


def test_deleting_what_has_ended_makes_it_unknown_at_once_and_the_others_stay(
    client: TestClient, repository: JobRepository
) -> None:
    job, other = post(client), post(client)
    for each in (job, other):
        finish(repository, repository.read_spec(each))
    answer = client.delete(f"/jobs/{job}")
    assert (answer.status_code, answer.content) == (204, b"")
    for method, part in (
        ("GET", ""),
        ("DELETE", ""),
        ("GET", "/samples"),
        ("GET", "/archive"),
        ("POST", "/retry"),
        ("POST", "/cancel"),
    ):
        assert client.request(method, f"/jobs/{job}{part}").status_code == 404
    assert [each["id"] for each in client.get("/jobs").json()["jobs"]] == [other]
    deletion = repository.deletions.read(job)
    assert deletion is not None
    assert (deletion.why, deletion.tenant) == ("asked for", "default")


def test_what_another_process_deletes_cancels_or_ends_is_seen_at_the_next_look(
    client: TestClient, repository: JobRepository
) -> None:
    job = post(client)
    spec = repository.read_spec(job)

    def state() -> str:
        for _ in range(3):  # the same however often it is asked: nothing is kept that the store could contradict
            answer = client.get(f"/jobs/{job}")
        return answer.json()["state"] if answer.status_code == 200 else answer.json()["type"]

    assert state() == "queued"
    repository.record_started(job)
    assert state() == "running"
    repository.request_cancel(job)
    assert state() == "cancelling"
    repository.conclude(spec)
    assert state() == "cancelled"
    repository.reserve_retry(job, "j7ybr17pesw6kn47yb0")
    assert client.get(f"/jobs/{job}").json()["retried_by"] == "j7ybr17pesw6kn47yb0"
    repository.deletions.enqueue(spec, "expired")
    assert state() == "/problems/unknown-job"
    deletion = repository.deletions.read(job)
    assert deletion is not None
    assert remove_job(repository, deletion, max_objects=1000) is None
    assert repository.deletions.read(job) is None, "nothing of it is left, the note neither"
    assert state() == "/problems/unknown-job"


def test_the_key_of_a_job_that_is_being_deleted_makes_no_other_of_the_same_id(
    client: TestClient, repository: JobRepository
) -> None:
    job = client.post("/generate", json=BODY, headers={"Idempotency-Key": "k"}).json()["id"]
    finish(repository, repository.read_spec(job))
    client.delete(f"/jobs/{job}")
    answer = client.post("/generate", json=BODY, headers={"Idempotency-Key": "k"})
    assert answer.status_code == 409
    assert "being deleted" in answer.json()["detail"]
    deletion = repository.deletions.read(job)
    assert deletion is not None
    assert remove_job(repository, deletion, max_objects=1000) is None
    assert client.post("/generate", json=BODY, headers={"Idempotency-Key": "k"}).json()["id"] != job


def test_links_begin_with_the_path_that_a_proxy_adds(settings: Settings, store: ObjectStore) -> None:
    behind = settings.model_copy(update={"public_url": "https://example.org/twinset"})
    with TestClient(create_app(behind, store=store, queue=NotingQueue(), live_state=DictLiveState())) as client:
        answer = client.post("/generate", json=BODY)
        assert answer.headers["location"] == f"/twinset/jobs/{answer.json()['id']}"


def test_moments_are_in_utc(client: TestClient) -> None:
    created = datetime.fromisoformat(client.get(f"/jobs/{post(client)}").json()["created_at"])
    assert created.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - created) < timedelta(minutes=1)


def test_a_lifetime_of_requests_is_counted_by_route(app: FastAPI, client: TestClient) -> None:
    job = post(client)
    client.get(f"/jobs/{job}")
    client.get("/nowhere")
    text = client.get("/metrics").text
    assert 'twinset_http_requests_total{method="GET",route="/jobs/{job}",status="200"} 1.0' in text
    assert 'twinset_http_requests_total{method="GET",route="none",status="404"} 1.0' in text
    assert 'twinset_twins_requested_total{model="aerial@1.10.0"} 8.0' in text
    assert 'twinset_requests_refused_total{slug="no-such-path"} 1.0' in text
    assert job not in text


def test_why_nothing_can_be_stored_is_told_while_it_lasts(client: TestClient, live_state: DictLiveState) -> None:
    job = post(client)
    assert client.get(f"/jobs/{job}").json()["stalled"] is None
    live_state.stalls[job] = Stalled(datetime(2026, 1, 31, 12, tzinfo=UTC), "the disk is full; free some space")
    stalled = {"since": "2026-01-31T12:00:00Z", "reason": "the disk is full; free some space"}
    assert client.get(f"/jobs/{job}").json()["stalled"] == stalled
    assert client.get("/jobs").json()["jobs"][0]["stalled"] == stalled
    live_state.stalls.clear()
    assert client.get(f"/jobs/{job}").json()["stalled"] is None
