"""The ledger over a folder store: what is written once, what is missing, and how a job is ended by one alone."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.errors import StoreError, UnknownJob
from service.jobs.repository import JobRepository
from service.jobs.spec import JobSpec
from service.kit.prefetch import prefetch
from service.kit.states import JobState
from service.store import keys
from service.store.folder import FolderStore
from tests.service.api.support import make_chunk
from tests.service.jobs.test_values import spec as a_spec
from tests.stored_twins import mask_key


@pytest.fixture
def repository(tmp_path: Path) -> JobRepository:
    return JobRepository(FolderStore(tmp_path, link_secret=b"0" * 16, public_url="http://localhost"))


@pytest.fixture
def spec(repository: JobRepository) -> JobSpec:
    spec = a_spec()
    repository.write_spec(spec)
    return spec


def test_a_spec_is_written_once(repository: JobRepository, spec: JobSpec) -> None:
    assert not repository.write_spec(a_spec(seed=2))
    assert repository.read_spec(spec.job) == spec


def test_an_invalid_job_id_is_unknown(repository: JobRepository) -> None:
    for job in ("j00000000000000zzzz", "../models", "", "x" * 5000):
        with pytest.raises(UnknownJob):
            repository.read_spec(job)


def test_an_invalid_spec_is_named(repository: JobRepository, spec: JobSpec) -> None:
    repository.store.put(keys.job_spec(spec.job), b'{"format": 1}')
    with pytest.raises(StoreError, match=r"spec.json in the object store is not a JobSpec: .*format"):
        repository.read_spec(spec.job)


def test_missing_chunks_are_those_without_a_record(repository: JobRepository, spec: JobSpec) -> None:
    assert list(repository.chunks.missing(spec)) == [0, 1, 2]
    make_chunk(repository, spec, 1)
    assert list(repository.chunks.missing(spec)) == [0, 2]
    make_chunk(repository, spec, 2)
    make_chunk(repository, spec, 0)
    assert list(repository.chunks.missing(spec)) == []
    assert [chunk for chunk, _ in repository.chunks.recorded(spec.job, start_at=1)] == [1, 2]


def test_a_chunk_is_committed_once(repository: JobRepository, spec: JobSpec) -> None:
    first = make_chunk(repository, spec, 0)
    assert not repository.chunks.write(first.model_copy(update={"worker": "another"}))
    assert repository.chunks.read(spec.job, 0) == first
    assert repository.chunks.read(spec.job, 1) is None


def test_items_come_in_order_from_anywhere(repository: JobRepository, spec: JobSpec) -> None:
    for chunk in (2, 0, 1):
        make_chunk(repository, spec, chunk)
    for after in (None, 0, 3, 4, 8, 9):
        indices = [item.index for _, item in repository.chunks.items(spec, after=after)]
        assert indices == list(range(0 if after is None else after + 1, 10))


def test_the_first_summary_of_a_job_counts(repository: JobRepository, spec: JobSpec) -> None:
    make_chunk(repository, spec, 0)
    repository.request_cancel(spec.job)
    with ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(lambda n: repository.conclude(spec, reason=f"by {n}"), range(8)))
    assert len({end.reason for end in ends}) == 1
    assert (ends[0].state, ends[0].done, ends[0].total) == (JobState.CANCELLED, 4, 10)
    assert repository.conclude(spec, reason="too late") == ends[0]


def test_a_cancel_is_requested_once(repository: JobRepository, spec: JobSpec) -> None:
    assert not repository.is_cancelled(spec.job)
    assert repository.request_cancel(spec.job)
    assert not repository.request_cancel(spec.job)
    assert repository.is_cancelled(spec.job)


def test_the_manifest_has_a_line_for_each_twin_made(repository: JobRepository, spec: JobSpec) -> None:
    make_chunk(repository, spec, 0, failed=(2,))
    make_chunk(repository, spec, 2)
    manifest = repository.write_manifest(spec)
    data = repository.store.get(manifest.key)
    assert (hashlib.sha256(data).hexdigest(), len(data)) == (manifest.sha256, manifest.bytes)
    assert manifest.key == keys.job_manifest(spec.job, manifest.sha256)
    lines = [json.loads(line) for line in data.splitlines()]
    assert [line["index"] for line in lines] == [0, 1, 3, 8, 9]
    assert lines[0]["classes"] == ["water"]
    assert lines[0]["job_seed"] == 1
    assert lines[0]["mask"]["key"] == mask_key(repository.store, spec.job, 0)
    assert lines[0]["build"] == {"twinset": "0"}


def test_reading_ahead_keeps_the_order_and_its_distance() -> None:
    taken, under_way, most = 0, 0, 0
    lock = threading.Lock()

    def read(number: int) -> int:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, number - taken)
        time.sleep(0.001 * (number % 3))
        return number * number

    for number, squared in prefetch(read, range(50), ahead=5):
        assert (number, squared) == (taken, taken * taken)
        taken += 1
    assert taken == 50
    assert most <= 5


def test_a_read_that_fails_fails_in_its_place() -> None:
    def read(number: int) -> int:
        if number == 3:
            raise StoreError("three is gone")
        return number

    read_so_far = []
    found = prefetch(read, range(10))
    with pytest.raises(StoreError, match="three is gone"):
        read_so_far.extend(number for number, _ in found)
    assert read_so_far == [0, 1, 2]
