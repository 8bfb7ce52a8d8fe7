"""Tests of the garbage collector: deleted and expired jobs, and leftovers, despite kills."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from service.broker import redis_keys
from service.errors import UnknownJob
from service.jobs.sample_files import sample_files_of
from service.jobs.spec import JobSpec
from service.kit.ids import new_job_id
from service.kit.run_kinds import RunKind, new_run_id
from service.kit.states import JobState
from service.registry.uses import add_use
from service.runs.repository import RunRepository
from service.runs.spec import RunSpec
from service.store import keys, model_keys
from service.store.base import ObjectStore
from service.store.folder import INCOMING, FolderStore
from tests.breaking import FailsAfter
from tests.service.registry.small_models import Killed, add, blobs, stopping
from tests.workers.conftest import Hire
from tests.workers.fakes import Post, tiny_spec
from workers.generation.chunk import ChunkOutcome, generate_chunk
from workers.generation.sweeper import Sweeper
from workers.generation.worker import Worker
from workers.maintenance.garbage_collector import GarbageCollector

LATER = timedelta(days=3)
STRAY = "ab" * 32
"""The sha256 of bytes that no record counts."""


def ended(worker: Worker, **changes: Any) -> JobSpec:
    """A job that a worker has completed."""
    spec = tiny_spec(**{"count": 3, "chunk_size": 2, **changes})
    worker.repository.usage.add_job(spec.job, spec.tenant)
    worker.repository.write_spec(spec)
    for chunk in range(spec.chunks):
        generate_chunk(worker, spec.job, chunk)
    assert worker.repository.read_summary(spec.job) is not None
    return spec


def garbage_collector(worker: Worker, *, later: timedelta = timedelta(0), **options: Any) -> GarbageCollector:
    return GarbageCollector(worker, now=lambda: datetime.now(UTC) + later, poll_interval_s=0.0, **options)


def objects(store: ObjectStore, job: str) -> list[str]:
    """Keys of all objects that name the job in their key or content."""
    return [info.key for info in store.list("") if job in info.key or job.encode() in store.get(info.key)]


@pytest.mark.parametrize("layout", ["objects", "shards"])
def test_a_deleted_job_leaves_nothing_and_frees_its_tenants_bytes(
    worker: Worker, store: FolderStore, redis: Redis, layout: str
) -> None:
    gone, stays = (ended(worker, tenant="acme", layout=layout) for _ in range(2))
    assert list(store.list(keys.job_shards_prefix(gone.job))) or layout == "objects"
    usage = worker.repository.usage
    assert usage.stored_bytes("acme").keys() == {gone.job, stays.job}
    before = {key: store.get(key) for key in objects(store, stays.job)}
    worker.repository.deletions.enqueue(gone, "asked for")
    with pytest.raises(UnknownJob):
        worker.repository.read_spec(gone.job)
    assert garbage_collector(worker).run_once()
    assert objects(store, gone.job) == []
    assert list(usage.jobs("acme")) == [stays.job]
    assert usage.stored_bytes("acme").keys() == {stays.job}
    assert gone.job not in redis.hgetall(redis_keys.stored("acme"))
    assert {key: store.get(key) for key in objects(store, stays.job)} == before


def test_another_worker_continues_after_a_kill_at_any_delete(hire: Hire, store: FolderStore, post: Post) -> None:
    breaking = FailsAfter(store.root, link_secret=b"0123456789abcdef", public_url="http://127.0.0.1:8000")
    killed, worker = hire(store=breaking), hire()
    first = ended(worker, count=4)
    worker.repository.reserve_retry(first.job, new_job_id())
    deletes = 0
    for deletes in range(100):
        spec = ended(worker, tenant="acme", count=2, retry_of=first.job, idempotency_key="k")
        store.delete(keys.job_retry(first.job))
        worker.repository.reserve_retry(first.job, spec.job)
        worker.repository.deletions.enqueue(spec, "asked for")
        breaking.left = deletes
        one = garbage_collector(killed)
        one.run_once()
        one._leader_lock.release()
        if worker.repository.deletions.read(spec.job) is None:
            break
        post.sent.clear()
        sweeper = Sweeper(worker)
        sweeper.run_once()
        sweeper._leader_lock.release()
        assert generate_chunk(worker, spec.job, 0) is ChunkOutcome.NOTHING_TO_DO
        assert post.sent == []
        other = garbage_collector(worker)
        other.run_once()
        other._leader_lock.release()
        assert objects(store, spec.job) == []
    assert deletes > 10, "it was killed at every delete"
    assert objects(store, spec.job) == []
    assert worker.repository.read_retry(first.job) is None
    assert worker.repository.usage.stored_bytes("acme") == {}


def test_a_run_removes_a_bounded_number_of_objects(worker: Worker, store: FolderStore) -> None:
    spec = ended(worker, count=10)
    total = len(list(store.list(keys.job_prefix(spec.job))))
    worker.repository.deletions.enqueue(spec, "asked for")
    deleting = garbage_collector(worker, max_objects=7)
    for passes in range(1, 20):
        deleting.run_once()
        left = len(list(store.list(keys.job_prefix(spec.job))))
        assert left >= max(0, total - 9 * passes)
        if not left:
            break
    assert passes == (total - 2) // 7 + 1
    assert objects(store, spec.job) == []


def test_jobs_expire_by_the_time_of_their_end_and_open_ones_stay(hire: Hire, store: FolderStore) -> None:
    worker = hire(job_retention_days=7)
    now = datetime.now(UTC)

    def accepted(days: float, **changes: Any) -> dict[str, Any]:
        then = now - timedelta(days=days)
        return {"job": new_job_id(then), "created_at": then, "count": 1, **changes}

    long_ended, just_ended, young = (tiny_spec(**accepted(days)) for days in (9, 10, 2))
    living = tiny_spec(**accepted(30))
    for spec, days in ((long_ended, 8.0), (just_ended, 1.0), (young, 1.5)):
        worker.repository.write_spec(spec)
        worker.repository.conclude(spec, now=now - timedelta(days=days))
    worker.repository.write_spec(living)
    many = [tiny_spec(**accepted(20 + number)) for number in range(6)]
    for spec in many:
        worker.repository.write_spec(spec)
        worker.repository.conclude(spec, now=now - timedelta(days=19))
    deleting = garbage_collector(worker, page=3)
    for _ in range(4):
        deleting.run_once()
    assert set(worker.repository.jobs()) == {just_ended.job, young.job, living.job}


def test_by_default_jobs_never_expire(worker: Worker) -> None:
    spec = ended(worker)
    assert garbage_collector(worker, later=timedelta(days=3650)).run_once()
    assert worker.repository.read_spec(spec.job) == spec


def test_inputs_of_a_job_that_was_never_accepted_are_removed_after_a_day(worker: Worker, store: FolderStore) -> None:
    spec = tiny_spec(tenant="acme")
    worker.repository.usage.add_open(spec)
    worker.repository.usage.add_job(spec.job, spec.tenant)
    store.put(keys.job_input(spec.job, 0, STRAY), b"mask")
    waiting = tiny_spec()
    worker.repository.write_spec(waiting)
    young = garbage_collector(worker)
    assert young.run_once()
    assert objects(store, spec.job)
    young._leader_lock.release()
    assert garbage_collector(worker, later=LATER).run_once()
    assert objects(store, spec.job) == []
    assert worker.repository.read_spec(waiting.job) == waiting


def strays_of(spec: JobSpec) -> list[str]:
    """Keys that other attempts, or workers that died before their record, may have written for the job."""
    job = spec.job
    files = [make(job, index, STRAY) for make in (keys.job_image, keys.job_mask) for index in (0, 2, 4)]
    shards = [keys.job_shard(job, chunk, STRAY) for chunk in (0, 1, 2)]
    earlier = [f"jobs/{job}/images/00000004.png", f"jobs/{job}/shards/000002.tar"]
    return [*files, *shards, *earlier, keys.job_input(job, 0, STRAY), keys.job_manifest(job, STRAY)]


@pytest.mark.parametrize("layout", ["objects", "shards"])
@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.CANCELLED])
def test_objects_that_no_record_counts_are_removed_a_day_after_the_end(
    worker: Worker, store: FolderStore, layout: str, state: JobState
) -> None:
    spec = tiny_spec(count=6, chunk_size=2, layout=layout)
    worker.repository.write_spec(spec)
    assert generate_chunk(worker, spec.job, 0) is ChunkOutcome.RECORDED
    if state is JobState.SUCCEEDED:
        for chunk in (1, 2):
            assert generate_chunk(worker, spec.job, chunk) is ChunkOutcome.RECORDED
    else:
        for _ in range(worker.settings.max_chunk_attempts):
            worker.dispatcher.begin_attempt(spec.job, 1)
        assert generate_chunk(worker, spec.job, 1) is ChunkOutcome.FAILED
        worker.repository.request_cancel(spec.job)
        worker.repository.conclude(spec)
    summary = worker.repository.read_summary(spec.job)
    assert summary is not None
    assert summary.state is state
    counted = {info.key for info in store.list(keys.job_prefix(spec.job))}
    strays = strays_of(spec)
    for key in strays:
        store.put(key, b"of another attempt")
    young = garbage_collector(worker)
    young.run_once()
    young._leader_lock.release()
    assert all(store.head(key) is not None for key in strays), "a worker may still be writing"
    assert garbage_collector(worker, later=LATER, max_objects=5).run_once()
    assert sum(store.head(key) is not None for key in strays) == len(strays) - 5
    assert garbage_collector(worker, later=LATER).run_once() is False, "the other collector leads"
    worker.redis.delete(redis_keys.leader("garbage-collector"))
    assert garbage_collector(worker, later=LATER).run_once()
    assert {info.key for info in store.list(keys.job_prefix(spec.job))} == counted | {keys.job_swept(spec.job)}
    assert all(
        store.head(file.key) for _, item in worker.repository.chunks.items(spec) for file in sample_files_of(item)
    )


def test_a_job_that_lost_a_record_or_is_being_repaired_keeps_all_its_objects(
    worker: Worker, store: FolderStore
) -> None:
    lost, repaired = ended(worker, count=4), ended(worker, count=4)
    record = store.get(keys.job_chunk(lost.job, 1))
    store.delete(keys.job_chunk(lost.job, 1))
    worker.repository.repairs.request(repaired.job, datetime.now(UTC))
    strays = [key for spec in (lost, repaired) for key in strays_of(spec)]
    for key in strays:
        store.put(key, b"of another attempt")
    before = [info.key for info in store.list("jobs/")]
    assert garbage_collector(worker, later=LATER).run_once()
    assert [info.key for info in store.list("jobs/")] == before
    store.put(keys.job_chunk(lost.job, 1), record)
    worker.repository.repairs.drop_request(repaired.job)
    worker.redis.delete(redis_keys.leader("garbage-collector"))
    assert garbage_collector(worker, later=LATER).run_once()
    assert not any(store.head(key) for key in strays)


def test_temporary_files_of_dead_writers_only_are_removed(worker: Worker, store: FolderStore) -> None:
    dead, living = (Path(store.root) / INCOMING / name for name in ("1-dead", "2-living"))
    for path in (dead, living):
        path.write_bytes(b"half")
    os.utime(dead, (1, 1))
    assert garbage_collector(worker).run_once()
    assert not dead.exists()
    assert living.exists()


def test_the_search_for_leftovers_starts_again_after_a_day(worker: Worker, store: FolderStore) -> None:
    clock = [datetime.now(UTC) + LATER]
    deleting = GarbageCollector(worker, now=lambda: clock[0], poll_interval_s=0.0, page=2)
    early = [tiny_spec() for _ in range(5)]
    for spec in early:
        store.put(keys.job_input(spec.job, 0, STRAY), b"mask")
    for _ in range(4):
        deleting.run_once()
    assert list(worker.repository.jobs()) == []
    store.put(keys.job_input(early[0].job, 0, STRAY), b"mask")
    deleting.run_once()
    assert list(worker.repository.jobs()) == [early[0].job]
    clock[0] += timedelta(days=1, minutes=1)
    deleting.run_once()
    assert list(worker.repository.jobs()) == []


def test_one_garbage_collector_at_a_time_and_another_takes_over(hire: Hire) -> None:
    first, second = GarbageCollector(hire()), GarbageCollector(hire())
    assert first.run_once()
    assert not second.run_once()
    first.start()
    first.stop()
    assert second.run_once()


def test_jobs_of_an_augmentation_set_are_kept_as_long_as_the_set(hire: Hire, store: FolderStore) -> None:
    worker, runs = hire(job_retention_days=7), RunRepository(store)
    now = datetime.now(UTC)
    then = now - timedelta(days=30)
    there, gone, of_another = (
        RunSpec(run=new_run_id(RunKind.AUGMENTATION, then), tenant=tenant, created_at=then, work={})
        for tenant in ("default", "default", "acme")
    )
    jobs = []
    for key in (
        f"{there.run}.0.12",
        f"{gone.run}.0.0",
        f"{of_another.run}.0.0",
        f"{there.run}",
        f"{there.run}.0.x",
        "mine",
        None,
    ):
        spec = tiny_spec(job=new_job_id(then), created_at=then, count=1, idempotency_key=key)
        worker.repository.write_spec(spec)
        worker.repository.conclude(spec, now=now - timedelta(days=29))
        jobs.append(spec.job)
    for run in (there, gone, of_another):
        runs.write_spec(run)
    runs.delete(gone)
    deleting = garbage_collector(worker)
    deleting.run_once()
    assert list(worker.repository.jobs()) == [jobs[0]]
    runs.delete(there)
    deleting.run_once()
    assert list(worker.repository.jobs()) == []


def test_weights_that_no_model_needs_are_removed_a_day_later(
    worker: Worker, store: FolderStore, tmp_path: Path
) -> None:
    add(store, tmp_path, "kept", data=b"kept", tenant="acme")
    add(store, tmp_path, "late", data=b"late", tenant="acme")
    with pytest.raises(Killed):
        add(stopping(store, 3), tmp_path, "half", data=b"half", tenant="acme")
    # an accepted job keeps the weights of a version that was deleted at the same moment
    job = tiny_spec(tenant="acme")
    add_use(store, "acme:late@1.0.0", job.job)
    worker.repository.write_spec(job)
    store.put(model_keys.deletion("acme", "late", "1.0.0"), b"{}")
    clock = [datetime.now(UTC)]
    collector = GarbageCollector(worker, now=lambda: clock[0], poll_interval_s=0.0, page=2)

    def left() -> set[bytes]:
        for _ in range(3):  # pages
            assert collector.run_once()
        return {store.get(key)[-4:] for key in blobs(store)}

    assert left() == {b"kept", b"late", b"half"}
    clock[0] += LATER
    assert left() == {b"kept", b"late"}
    worker.repository.conclude(job)
    made_with = {"model_owner": "acme", "model": "late@1.0.0"}
    worker.repository.deletions.enqueue(job.model_copy(update=made_with), "asked for")
    clock[0] += LATER
    assert left() == {b"kept"}
    assert list(store.list("uses/")) == []
