"""A running job whose chunk records cannot be read ends all the same, with every twin where that is possible."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

import pytest
from fastapi.testclient import TestClient

from service.api.app import create_app
from service.jobs.cancel import cancel
from service.jobs.spec import JobSpec, Summary
from service.kit.states import JobState
from service.store import keys
from service.store.folder import FolderStore
from tests.stored_twins import manifest_lines
from tests.workers.conftest import load_tiny
from tests.workers.fakes import Post
from tests.workers.generation.test_chunk import files_of
from tests.workers.generation.test_sweeper import old_job, run
from workers.generation.chunk import ChunkOutcome, generate_chunk
from workers.generation.sweeper import Sweeper
from workers.generation.worker import Worker
from workers.maintenance.repairer import Repairer

NEWER = "a newer format"
COPY = "a copy of another chunk's"
DAMAGED = (b"", bytes(100), b'{"format": 1, "job"', b"[1]", b'{"format": 1}', NEWER, COPY)


def damage(store: FolderStore, spec: JobSpec, chunk: int, how: bytes | str) -> bytes:
    """Damages a chunk's record, or puts one of a newer version there; the bytes that are there now."""
    key = keys.job_chunk(spec.job, chunk)
    if how == COPY:
        data = store.get(key).replace(f'"chunk":{chunk}'.encode(), b'"chunk":7')
    elif how == NEWER:
        data = json.dumps(json.loads(store.get(key)) | {"format": 3, "pieces": []}).encode()
    else:
        assert isinstance(how, bytes)
        data = how
    store.put(key, data)
    return data


def sweep_until_ended(worker: Worker, post: Post, spec: JobSpec, sweeps: int = 6) -> Summary:
    sweeper = Sweeper(worker)
    for _ in range(sweeps):
        sweeper.run_once()
        run(worker, post)
        summary = worker.repository.read_summary(spec.job)
        if summary is not None:
            return summary
    raise AssertionError("the job has not ended")


@pytest.mark.parametrize("layout", ["objects", "shards"])
@pytest.mark.parametrize("how", DAMAGED, ids=lambda how: how if isinstance(how, str) else how.decode()[:20])
def test_a_chunk_whose_record_cannot_be_read_is_made_again_while_others_run(
    worker: Worker, post: Post, store: FolderStore, how: bytes | str, layout: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole = old_job(worker, count=6, chunk_size=2, layout=layout)
    for chunk in range(3):
        generate_chunk(worker, whole.job, chunk)
    post.waiting.clear()
    spec = old_job(worker, count=6, chunk_size=2, layout=layout)
    other = old_job(worker, count=4, chunk_size=2, layout=layout)
    assert generate_chunk(worker, spec.job, 0) is ChunkOutcome.RECORDED
    left = damage(store, spec, 0, how)
    caplog.set_level(logging.WARNING)
    summary = sweep_until_ended(worker, post, spec)
    assert (summary.state, summary.done, summary.failed, summary.reason) == (JobState.SUCCEEDED, 6, 0, None)
    assert store.get(keys.job_chunk(spec.job, 0)) == left, "records are never written over"
    assert files_of(store, spec) == files_of(store, whole)
    assert len(manifest_lines(store, spec.job)) == 6
    ended = worker.repository.read_summary(other.job)
    assert ended is not None
    assert ended.state is JobState.SUCCEEDED
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    [warning] = [warning for warning in warnings if spec.job in warning]
    assert "chunk=0 is made again" in warning
    assert keys.job_chunk(spec.job, 0) in warning


def test_every_record_damaged_after_the_last_chunk_and_a_worker_that_died_there(
    worker: Worker, post: Post, store: FolderStore
) -> None:
    spec = old_job(worker, count=20, chunk_size=2)
    for chunk in range(10):
        generate_chunk(worker, spec.job, chunk)
    store.delete(keys.job_summary(spec.job))
    post.waiting.clear()
    for chunk in range(10):
        damage(store, spec, chunk, b"")
    sweeper = Sweeper(worker)
    for _ in range(20):
        sweeper.run_once()
        assert len(post.waiting) <= worker.settings.chunks_in_flight
        if post.waiting:
            generate_chunk(worker, *post.waiting.popleft())
    summary = worker.repository.read_summary(spec.job)
    assert summary is not None
    assert (summary.state, summary.done) == (JobState.SUCCEEDED, 20)


def test_a_worker_that_can_read_the_record_ends_the_job_without_making_it_again(
    worker: Worker, post: Post, store: FolderStore
) -> None:
    spec = old_job(worker, count=2, chunk_size=2)
    generate_chunk(worker, spec.job, 0)
    store.delete(keys.job_summary(spec.job))
    readable = store.get(keys.job_chunk(spec.job, 0))
    damage(store, spec, 0, NEWER)
    sweeper = Sweeper(worker)
    sweeper.run_once()
    sweeper.run_once()
    assert list(post.waiting) == [(spec.job, 0)]
    store.put(keys.job_chunk(spec.job, 0), readable)
    forwards, _ = worker.engine.counts
    assert generate_chunk(worker, *post.waiting.popleft()) is ChunkOutcome.NOTHING_TO_DO
    assert worker.engine.counts[0] == forwards
    summary = worker.repository.read_summary(spec.job)
    assert summary is not None
    assert summary.state is JobState.SUCCEEDED


def test_a_new_record_that_cannot_be_read_either_counts_as_failed_and_a_repair_makes_it(
    worker: Worker, post: Post, store: FolderStore
) -> None:
    spec = old_job(worker, count=6, chunk_size=2)
    for chunk in range(3):
        generate_chunk(worker, spec.job, chunk)
    post.waiting.clear()
    store.delete(keys.job_summary(spec.job))
    damage(store, spec, 1, b"{")
    store.put(keys.job_repaired_chunk(spec.job, 1, 1), b"{")
    summary = sweep_until_ended(worker, post, spec)
    assert post.sent.count((spec.job, 1)) <= 1
    assert (summary.state, summary.done, summary.failed) == (JobState.PARTIAL, 4, 2)
    assert "samples 2 to 3 cannot be read" in (summary.reason or "")
    assert f"POST /jobs/{spec.job}/repair" in (summary.reason or "")
    assert len(manifest_lines(store, spec.job)) == 4

    worker.repository.repairs.request(spec.job, datetime.now(UTC))
    Repairer(worker, load=load_tiny).run_once()
    [repair] = worker.repository.repairs.of_job(spec.job)
    assert (repair.lost_records, repair.failed) == (1, 0)
    assert [item.index for _, item in worker.repository.chunks.items(spec) if item.error is None] == list(range(6))
    assert len(manifest_lines(store, spec.job)) == 6
    assert list(worker.repository.chunks.missing_samples(spec, summary)) == []


def test_a_cancelled_job_ends_with_the_twins_that_can_be_read(worker: Worker, post: Post, store: FolderStore) -> None:
    spec = old_job(worker, count=6, chunk_size=2)
    for chunk in range(2):
        generate_chunk(worker, spec.job, chunk)
    damage(store, spec, 0, b"")
    cancel(spec, worker.repository, worker.live_state)
    post.waiting.clear()
    Sweeper(worker).run_once()
    summary = worker.repository.read_summary(spec.job)
    assert summary is not None
    assert (summary.state, summary.done, summary.failed) == (JobState.CANCELLED, 2, 2)
    assert "samples 0 to 1 cannot be read" in (summary.reason or "")
    assert list(worker.repository.chunks.missing_samples(spec, summary)) == [0, 1, 4, 5]
    assert post.sent.count((spec.job, 0)) == 0


def test_a_running_job_is_shown_and_listed_while_a_record_cannot_be_read(worker: Worker, store: FolderStore) -> None:
    spec = old_job(worker, count=6, chunk_size=2)
    for chunk in range(2):
        generate_chunk(worker, spec.job, chunk)
    damage(store, spec, 0, b"")
    with TestClient(create_app(worker.settings, store=store), base_url="http://127.0.0.1") as client:
        shown = client.get(f"/jobs/{spec.job}")
        assert shown.status_code == 200, shown.text
        assert shown.json()["state"] == "running"
        assert spec.job in [job["id"] for job in client.get("/jobs").json()["jobs"]]
