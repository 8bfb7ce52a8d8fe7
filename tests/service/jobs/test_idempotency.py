"""Idempotency records: one id for a key and body, whichever request comes first, for jobs and each kind of run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.errors import IdempotencyConflict, InvalidRequest
from service.jobs import idempotency
from service.jobs.idempotency import Reservation
from service.kit.ids import accepted_at, new_job_id
from service.kit.run_kinds import RunKind, new_run_id
from service.store import keys, run_keys
from service.store.folder import FolderStore

BODY = {"model": "aerial", "count": 1}


def reserve(store: FolderStore, new_id: str, **changes: Any) -> Reservation:
    return idempotency.reserve(store, new_id, **{"tenant": "acme", "key": "k", "body": BODY, **changes})


def test_nothing_is_written_before_the_reservation_is_bound(folder_store: FolderStore) -> None:
    first = reserve(folder_store, new_job_id())
    assert list(folder_store.list("")) == []
    assert not first.bind().found
    again = reserve(folder_store, new_job_id(), body={"count": 1, "model": "aerial"})
    assert (again.id, again.found) == (first.id, True)
    assert again.bind() is again


def test_the_first_request_to_bind_has_the_key(folder_store: FolderStore) -> None:
    first, second = reserve(folder_store, new_job_id()), reserve(folder_store, new_job_id())
    assert first.bind().id == first.id
    assert (second.bind().id, second.bind().found) == (first.id, True)
    assert not reserve(folder_store, new_job_id(), key="another").bind().found


def test_another_body_is_refused_before_and_at_the_binding(folder_store: FolderStore) -> None:
    late = reserve(folder_store, new_job_id(), body={"count": 2})
    first = reserve(folder_store, new_job_id()).bind()
    for refused in (late.bind, lambda: reserve(folder_store, new_job_id(), body={"count": 2})):
        with pytest.raises(IdempotencyConflict, match=rf"with another body, as job {first.id}; .* for a new job"):
            refused()


def test_the_record_has_its_place_and_form(folder_store: FolderStore) -> None:
    job = reserve(folder_store, new_job_id()).bind()
    run = reserve(folder_store, new_run_id(RunKind.EXPORT)).bind()
    assert (job.record, run.record) == (
        keys.idempotency("acme", "8254c329a92850f6d539dd376f4816ee2764517da5e0235514af433164480d7a"),
        idempotency.record_key(tenant="acme", key="k", kind=RunKind.EXPORT),
    )
    assert job.record is not None
    assert run.record is not None
    written = [json.loads(folder_store.get(record)) for record in (job.record, run.record)]
    assert [(each["format"], each.get("job"), each.get("run")) for each in written] == [
        (1, job.id, None),
        (1, None, run.id),
    ]
    assert written[0]["created_at"] == accepted_at(job.id).isoformat()
    assert idempotency.find(folder_store, tenant="acme", key="k") == job.id
    assert idempotency.find(folder_store, tenant="acme", key="k", kind=RunKind.EXPORT) == run.id
    assert idempotency.find(folder_store, tenant="acme", key="k", kind=RunKind.DATASET) is None
    assert idempotency.find(folder_store, tenant="other", key="k") is None


def test_a_dataset_is_named_by_name_and_version(folder_store: FolderStore) -> None:
    first = reserve(folder_store, new_run_id(RunKind.DATASET)).bind()
    folder_store.put(run_keys.run_spec(first.id), json.dumps({"name": "scenes@1"}).encode())
    with pytest.raises(IdempotencyConflict, match=r"as scenes@1; send the same body again, or a new key$"):
        reserve(folder_store, new_run_id(RunKind.DATASET), body={})


def test_without_a_key_every_request_has_an_id_of_its_own(folder_store: FolderStore) -> None:
    new_id = new_job_id()
    reservation = reserve(folder_store, new_id, key=None)
    assert (reservation.id, reservation.found, reservation.record) == (new_id, False, None)
    assert reservation.bind() is reservation
    assert list(folder_store.list("")) == []


@pytest.mark.parametrize("key", ["", "x" * 256, "two words", "naïve"])
def test_a_malformed_key_is_refused(folder_store: FolderStore, key: str) -> None:
    with pytest.raises(InvalidRequest, match=r"it must be 1 to 255 visible ASCII characters"):
        reserve(folder_store, new_job_id(), key=key)
