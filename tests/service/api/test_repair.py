"""Tests of ``/jobs/{job}/repair``: who may request one, and how it is shown until it is done and afterwards."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.testclient import TestClient

from service.jobs.garbage import remove_job
from service.jobs.repairs import Repair, RepairFailure
from service.jobs.repository import JobRepository
from service.store import keys
from service.store.base import ObjectStore
from tests.service.api.support import finish

BODY = {"model": "aerial", "classes": ["water"], "count": 5}


def ended(client: TestClient, repository: JobRepository) -> str:
    job = str(client.post("/generate", json=BODY).json()["id"])
    finish(repository, repository.read_spec(job))
    return job


def test_a_repair_is_requested_once_until_it_is_done_and_shown_at_its_path(
    client: TestClient, repository: JobRepository, store: ObjectStore
) -> None:
    job = ended(client, repository)
    first = client.post(f"/jobs/{job}/repair")
    assert (first.status_code, first.headers["location"]) == (202, f"/jobs/{job}/repair")
    view = first.json()
    assert (view["job"], view["state"], view["finished_at"], view["checked"]) == (job, "requested", None, None)
    assert client.post(f"/jobs/{job}/repair").json() == view == client.get(f"/jobs/{job}/repair").json()
    request = repository.repairs.pending(job)
    assert request is not None
    done = Repair(
        job=job, number=1, requested_at=request.requested_at, finished_at=datetime.now(UTC), checked=5, damaged=2,
        missing=1, lost_records=0, restored=1, replaced=1, failed=1, failures=(RepairFailure(index=3, reason="why"),),
    )  # fmt: skip
    repository.repairs.record(done)
    view = client.get(f"/jobs/{job}/repair").json()
    assert (view["state"], view["damaged"], view["missing"], view["restored"]) == ("done", 2, 1, 1)
    assert view["failures"] == [{"index": 3, "reason": "why"}]
    assert client.get(f"/jobs/{job}").json()["state"] == "succeeded"
    again = client.post(f"/jobs/{job}/repair").json()
    assert (again["state"], again["damaged"]) == ("requested", None)
    assert again["requested_at"] > view["requested_at"]


def test_a_repair_whose_worker_died_before_it_removed_the_request_is_shown_as_done(
    client: TestClient, repository: JobRepository, store: ObjectStore
) -> None:
    job = ended(client, repository)
    client.post(f"/jobs/{job}/repair")
    entry = store.get(keys.pending_repair(job))
    request = repository.repairs.pending(job)
    assert request is not None
    repository.repairs.record(
        Repair(
            job=job,
            number=1,
            requested_at=request.requested_at,
            finished_at=datetime.now(UTC),
            checked=5,
            damaged=0,
            missing=0,
            lost_records=0,
            restored=0,
            replaced=0,
            failed=0,
        )
    )
    store.put(keys.pending_repair(job), entry)
    assert client.get(f"/jobs/{job}/repair").json()["state"] == "done"


def test_what_cannot_be_repaired_is_refused_with_the_reason(client: TestClient, repository: JobRepository) -> None:
    job = str(client.post("/generate", json=BODY).json()["id"])
    answer = client.post(f"/jobs/{job}/repair")
    assert answer.status_code == 409
    assert "has not ended" in answer.json()["detail"]
    assert list(repository.repairs.all_pending()) == []
    answer = client.get(f"/jobs/{job}/repair")
    assert answer.status_code == 409
    assert f"POST /jobs/{job}/repair" in answer.json()["detail"]
    for method in (client.post, client.get):
        assert method("/jobs/j0000000000aaaaaaaa/repair").status_code == 404


def test_a_retry_that_finds_nothing_missing_names_the_repair(client: TestClient, repository: JobRepository) -> None:
    job = ended(client, repository)
    answer = client.post(f"/jobs/{job}/retry")
    assert answer.status_code == 409
    assert f"POST /jobs/{job}/repair" in answer.json()["detail"]


def test_a_deleted_job_takes_its_requested_repair_with_it(
    client: TestClient, repository: JobRepository, store: ObjectStore
) -> None:
    job = ended(client, repository)
    client.post(f"/jobs/{job}/repair")
    client.delete(f"/jobs/{job}")
    deletion = repository.deletions.read(job)
    assert deletion is not None
    assert remove_job(repository, deletion, max_objects=1000) is None
    assert [info.key for info in store.list("") if job in info.key] == []
