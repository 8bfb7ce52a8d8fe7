"""POST /jobs/{id}/retry: a new job with exactly what is missing, and when there is none to be had."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from service.api.app import create_app
from service.jobs.repository import JobRepository
from service.kit.ids import new_job_id
from service.kit.seeds import sample_seed
from service.settings import Settings
from service.store import ObjectStore, keys
from tests.service.api.support import (
    DictLiveState,
    NotingQueue,
    finish,
    make_chunk,
    mask_card,
    register,
)
from tests.service.masks.support import pillow_file
from tests.stored_twins import input_key

BODY: dict[str, Any] = {
    "model": "aerial",
    "classes": ["water"],
    "count": 9,
    "seed": 3,
    "name": "first",
    "priority": "interactive",
}


def partial(
    client: TestClient, repository: JobRepository, *, failed: tuple[int, ...] = (1, 2, 7), **changes: Any
) -> str:
    """A job that has ended without some of its samples."""
    job = client.post("/generate", json={**BODY, **changes}).json()["id"]
    finish(repository, repository.read_spec(job), failed=failed)
    return job


def test_a_retry_makes_the_missing_samples_under_their_own_indices_and_seeds(
    client: TestClient, repository: JobRepository, queue: NotingQueue
) -> None:
    job = partial(client, repository)
    queue.sent.clear()
    queue.interactive.clear()
    answer = client.post(f"/jobs/{job}/retry")
    view = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (202, f"/jobs/{view['id']}")
    assert view["id"] != job
    assert (view["retry_of"], view["state"], view["total"], view["name"]) == (
        job,
        "queued",
        3,
        "first",
    )
    assert view["links"]["retry_of"] == f"/jobs/{job}"
    assert queue.sent == queue.interactive == [(view["id"], 0), (view["id"], 1)], "three samples are two chunks"

    old = client.get(f"/jobs/{job}").json()
    assert (old["state"], old["done"], old["retried_by"], old["links"]["retried_by"]) == (
        "partial", 6, view["id"], f"/jobs/{view['id']}",
    )  # fmt: skip
    assert {**view["parameters"], "count": 9} == old["parameters"]

    spec = repository.read_spec(view["id"])
    finish(repository, spec)
    first = client.get(f"/jobs/{spec.job}/samples?limit=2").json()
    rest = client.get(f"/jobs/{spec.job}/samples", params={"cursor": first["next_cursor"]}).json()
    samples = first["samples"] + rest["samples"]
    assert [(sample["index"], sample["seed"]) for sample in samples] == [
        (index, sample_seed(3, index)) for index in (1, 2, 7)
    ]
    lines = [json.loads(line) for line in client.get(f"/jobs/{spec.job}/manifest").iter_lines()]
    assert [line["index"] for line in lines] == [1, 2, 7]
    archive = zipfile.ZipFile(io.BytesIO(client.get(f"/jobs/{spec.job}/archive").content))
    assert [name for name in archive.namelist() if name.startswith("images/")] == [
        f"images/{i:08d}.png" for i in (1, 2, 7)
    ]
    ended = client.get(f"/jobs/{spec.job}").json()
    assert (ended["state"], ended["done"], ended["sequence"]) == ("succeeded", 3, 5)


def test_asked_again_and_by_many_at_once_there_is_one_retry(client: TestClient, repository: JobRepository) -> None:
    job = partial(client, repository)
    with ThreadPoolExecutor(6) as pool:
        views = [answer.json() for answer in pool.map(lambda _: client.post(f"/jobs/{job}/retry"), range(6))]
    [retry] = {view["id"] for view in views}
    finish(repository, repository.read_spec(retry), failed=(7,))
    assert client.post(f"/jobs/{job}/retry").json()["id"] == retry, "also once it has ended"
    assert len(client.get("/jobs").json()["jobs"]) == 2

    again = client.post(f"/jobs/{retry}/retry").json()
    assert again["parameters"]["layout"] == "objects"
    assert (again["retry_of"], repository.read_spec(again["id"]).only) == (retry, ((7, 7),))


def test_a_retry_is_stored_as_its_job_is_however_few_are_missing(client: TestClient, repository: JobRepository) -> None:
    job = partial(client, repository, layout="shards", priority="normal")
    retry = repository.read_spec(client.post(f"/jobs/{job}/retry").json()["id"])
    finish(repository, retry)
    assert retry.layout == "shards"
    assert retry.only == ((1, 2), (7, 7))
    seen = {
        sample["index"]: sample
        for each in (job, retry.job)
        for sample in client.get(f"/jobs/{each}/samples").json()["samples"]
        if not sample["error"]
    }
    assert sorted(seen) == list(range(9))
    archive = zipfile.ZipFile(io.BytesIO(client.get(f"/jobs/{retry.job}/archive").content))
    for index in (1, 2, 7):
        url = seen[index]["image"]["url"]
        assert client.get(url[url.index("/twins/") :]).content == archive.read(f"images/{index:08d}.png")


def test_a_cancelled_job_is_retried_from_where_it_came(client: TestClient, repository: JobRepository) -> None:
    job = client.post("/generate", json=BODY).json()["id"]
    spec = repository.read_spec(job)
    make_chunk(repository, spec, 1)
    repository.request_cancel(job)
    repository.conclude(spec)
    retry = repository.read_spec(client.post(f"/jobs/{job}/retry").json()["id"])
    assert (retry.only, retry.count) == (((0, 1), (4, 8)), 7)


def test_what_has_not_ended_or_misses_nothing_is_refused_with_the_reason(
    client: TestClient, repository: JobRepository
) -> None:
    job = client.post("/generate", json=BODY).json()["id"]
    answer = client.post(f"/jobs/{job}/retry")
    assert answer.status_code == 409
    assert "has not ended" in answer.json()["detail"]
    finish(repository, repository.read_spec(job))
    answer = client.post(f"/jobs/{job}/retry")
    assert answer.status_code == 409
    assert "with all its 9 twins" in answer.json()["detail"]
    assert client.post("/jobs/j0000000000aaaaaaaa/retry").status_code == 404
    assert len(client.get("/jobs").json()["jobs"]) == 1


def test_the_masks_that_the_retry_follows_are_copied_and_a_damaged_one_is_told(
    client: TestClient, repository: JobRepository, store: ObjectStore
) -> None:
    register(store, mask_card())
    masks = [{"png": base64.b64encode(pillow_file(np.full((64, 64), n, dtype=np.uint8))).decode()} for n in range(4)]
    body = {"classes": None, "model": "tissue", "mask": masks, "count": 12, "priority": "normal"}
    body_without_classes = {key: value for key, value in {**BODY, **body}.items() if value is not None}
    job = client.post("/generate", json=body_without_classes).json()["id"]
    finish(repository, repository.read_spec(job), failed=(1, 5, 6))
    damaged = store.get(input_key(store, job, 2))
    store.put(input_key(store, job, 2), b"damaged")
    answer = client.post(f"/jobs/{job}/retry")
    assert answer.status_code == 409
    assert input_key(store, job, 2) in answer.json()["detail"]
    store.put(input_key(store, job, 2), damaged)
    retry = client.post(f"/jobs/{job}/retry").json()["id"]
    for info in list(store.list(keys.job_prefix(job))):
        store.delete(info.key)
    copied = [info.key for info in store.list(f"jobs/{retry}/inputs/")]
    assert copied == [input_key(store, retry, 1), input_key(store, retry, 2)]
    assert store.get(copied[1]) == damaged


def test_a_retry_that_was_reserved_and_never_written_is_filled_in_while_it_is_young(
    client: TestClient, repository: JobRepository
) -> None:
    job, other = partial(client, repository), partial(client, repository)
    young, old = new_job_id(), new_job_id(datetime.now(UTC) - timedelta(hours=13))
    repository.reserve_retry(job, young)
    repository.reserve_retry(other, old)
    assert client.post(f"/jobs/{job}/retry").json()["id"] == young
    fresh = client.post(f"/jobs/{other}/retry").json()["id"]
    assert fresh not in (young, old)
    assert client.get(f"/jobs/{other}").json()["retried_by"] == fresh


@pytest.mark.parametrize(
    ("setting", "status"), [("limit_queued_samples", 429), ("max_interactive_count", 422), ("max_count", 422)]
)
def test_limits_hold_as_for_any_job(
    client: TestClient, repository: JobRepository, settings: Settings, store: ObjectStore, setting: str, status: int
) -> None:
    job = partial(client, repository)
    tight = settings.model_copy(update={setting: 2})
    with TestClient(create_app(tight, store=store, queue=NotingQueue(), live_state=DictLiveState())) as limited:
        answer = limited.post(f"/jobs/{job}/retry")
        assert answer.status_code == status, answer.json()
    assert repository.read_retry(job) is None
    assert repository.usage.queued_samples("default") == {}
