"""The sweeper: chunks that Redis or a dead worker lost come back from the store alone."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis import Redis

import workers.generation.sweeper as sweeper_module
from service.broker import redis_keys
from service.broker.queues import JobQueue
from service.jobs.cancel import cancel
from service.jobs.spec import JobSpec
from service.kit.ids import new_job_id
from service.kit.states import JobState
from service.settings import Settings
from service.store import keys
from service.store.folder import FolderStore
from tests.stored_twins import manifest_key, manifest_lines
from tests.workers.conftest import Hire
from tests.workers.fakes import CountingStore, Post, tiny_spec
from workers.generation.chunk import ChunkOutcome, generate_chunk
from workers.generation.sweeper import Sweeper
from workers.generation.worker import Worker


def old_job(worker: Worker, *, age_s: float = 120.0, **changes: Any) -> JobSpec:
    """A job accepted a while ago whose chunks were never sent: the API died in between."""
    then = datetime.now(UTC) - timedelta(seconds=age_s)
    spec = tiny_spec(job=new_job_id(then), created_at=then, **changes)
    worker.repository.write_spec(spec)
    return spec


def run(worker: Worker, post: Post) -> None:
    list(post.deliver_all(lambda job, chunk: generate_chunk(worker, job, chunk)))


def test_a_job_that_was_never_sent_is_sent_once_up_to_the_chunks_in_flight(worker: Worker, post: Post) -> None:
    spec = old_job(worker, count=10, chunk_size=2)
    sweeper = Sweeper(worker)
    assert sweeper.run_once()
    assert sweeper.run_once()
    assert post.sent == [(spec.job, 0), (spec.job, 1)]
    run(worker, post)
    summary = worker.repository.read_summary(spec.job)
    assert summary is not None
    assert summary.state is JobState.SUCCEEDED
    assert post.sent == [(spec.job, chunk) for chunk in range(5)]


def test_after_a_flush_in_the_middle_of_a_job_it_goes_on_from_the_store(
    worker: Worker, post: Post, redis: Redis
) -> None:
    spec = old_job(worker, count=12, chunk_size=2)
    sweeper = Sweeper(worker)
    sweeper.run_once()
    for _ in range(3):
        generate_chunk(worker, *post.waiting.popleft())
    post.waiting.clear()
    redis.flushall()
    sweeper.run_once()
    assert list(post.waiting) == [(spec.job, 3), (spec.job, 4)]
    run(worker, post)
    summary = worker.repository.read_summary(spec.job)
    assert summary is not None
    assert (summary.state, summary.done) == (JobState.SUCCEEDED, 12)


def test_a_leased_chunk_is_not_sent_and_a_dead_workers_is_sent_again(worker: Worker, post: Post, redis: Redis) -> None:
    spec = old_job(worker, count=2, chunk_size=2)
    lease = worker.leases.take(spec.job, 0)
    assert lease is not None
    sweeper = Sweeper(worker)
    sweeper.run_once()
    assert post.sent == []
    # the worker dies, and its lease expires
    redis.zadd(redis_keys.leases(spec.job), {"0": 0})
    redis.delete(lease.key)
    sweeper.run_once()
    assert post.sent == [(spec.job, 0)]


def test_a_queued_chunk_is_not_sent_twice_but_a_lost_one_is(worker: Worker, post: Post, redis: Redis) -> None:
    spec = old_job(worker, count=2, chunk_size=2)
    sweeper = Sweeper(worker)
    sweeper.run_once()
    redis.zadd(redis_keys.sent(spec.job), {"0": redis.time()[0] - 600})
    queue = JobQueue(worker.settings)
    queue.send_chunk(spec.job, 0)
    queue.send_chunk(new_job_id(datetime.now(UTC)), 0)
    queue.close()
    sweeper.run_once()
    assert len(post.sent) == 1, "it is still queued, for however long"
    assert worker.slots.queue.take({}, 1)
    sweeper.run_once()
    assert len(post.sent) == 2, "another job's chunk is queued, this one was popped and lost"


def test_messages_that_died_with_a_worker_are_replaced(worker: Worker, post: Post, redis: Redis) -> None:
    spec = old_job(worker, count=8, chunk_size=2, tenant="acme")
    queue = JobQueue(worker.settings)
    queue.send_chunks(spec.job, range(2), spec.priority, spec.tenant)
    queue.close()
    sweeper = Sweeper(worker)
    sweeper.run_once()
    assert post.sent == []
    redis.delete("generate")
    sweeper.run_once()
    assert post.sent == [(spec.job, 0), (spec.job, 1)]


def test_a_tenant_whose_turn_was_evicted_gets_it_back(worker: Worker, post: Post, redis: Redis) -> None:
    spec = old_job(worker, count=2, chunk_size=2, tenant="acme")
    queue = JobQueue(worker.settings)
    queue.send_chunk(spec.job, 0, spec.priority, spec.tenant)
    queue.close()
    redis.delete(redis_keys.fair_queue("chunks"))
    assert worker.slots.queue.take({}, 1) is None
    Sweeper(worker).run_once()
    taken = worker.slots.queue.take({}, 1)
    assert taken is not None
    assert taken.name == f"{spec.job}:0"
    assert post.sent == [], "it was never lost"


def test_a_dead_workers_chunk_is_sent_again_within_thirty_seconds() -> None:
    settings = Settings()
    leader_ttl_s = max(settings.lease_s, 3 * settings.sweep_interval_s)
    # the lease, or the leader lock of the dead worker's sweeper, may just have been renewed; a sweep may just be over
    assert max(settings.lease_s, leader_ttl_s) + settings.sweep_interval_s <= 20, (
        "10 s are left for the sweeps themselves"
    )


def test_a_dead_sweepers_leader_lock_expires_with_its_leases(hire: Hire, redis: Redis) -> None:
    dead, heir = hire(lease_s=15.0, sweep_interval_s=5.0), hire(lease_s=15.0, sweep_interval_s=5.0)
    assert Sweeper(dead).run_once()
    assert not Sweeper(heir).run_once()
    assert 0 < redis.pttl(redis_keys.leader("chunk-sweeper")) <= 15_000


def test_of_a_new_job_nothing_is_sent_beside_the_apis_chunks_unless_a_worker_lost_one(
    worker: Worker, post: Post, redis: Redis
) -> None:
    spec = old_job(worker, age_s=1.0, count=6, chunk_size=2)
    sweeper = Sweeper(worker)
    sweeper.run_once()
    assert post.sent == []
    lease = worker.leases.take(spec.job, 1)
    assert lease is not None
    worker.leases.release(lease)
    sweeper.run_once()
    assert post.sent == [(spec.job, 1)]
    old = old_job(worker, age_s=60.0, count=2, chunk_size=2)
    queue = JobQueue(worker.settings)
    queue.send_chunk(old.job, 0)
    queue.close()
    sweeper.run_once()
    assert (old.job, 0) not in post.sent, "it is still queued"


def test_an_interactive_job_is_sent_as_one_and_found_lost_beside_a_long_normal_queue(
    worker: Worker, post: Post, redis: Redis
) -> None:
    spec = old_job(worker, count=6, chunk_size=2, priority="interactive")
    sweeper = Sweeper(worker)
    sweeper.run_once()
    assert post.interactive == [(spec.job, 0), (spec.job, 1)]
    redis.zadd(redis_keys.sent(spec.job), {"0": redis.time()[0] - 60, "1": redis.time()[0] - 60})
    redis.rpush("generate", "another job's chunk")
    queue = JobQueue(worker.settings)
    for chunk in range(2):
        queue.send_chunk(spec.job, chunk, "interactive")
    queue.close()
    sweeper.run_once()
    assert len(post.sent) == 2, "they may be in the interactive queue"
    redis.flushall()
    sweeper.run_once()
    assert post.interactive == [(spec.job, 0), (spec.job, 1)] * 2
    run(worker, post)
    assert (spec.job, 2) in post.interactive
    assert post.interactive == post.sent


def test_a_job_with_all_records_and_no_summary_is_ended(worker: Worker, post: Post, store: FolderStore) -> None:
    spec = old_job(worker, count=4, chunk_size=2)
    for chunk in range(2):
        assert generate_chunk(worker, spec.job, chunk) is ChunkOutcome.RECORDED
    store.delete(manifest_key(store, spec.job))
    store.delete(keys.job_summary(spec.job))
    Sweeper(worker).run_once()
    summary = worker.repository.read_summary(spec.job)
    assert summary is not None
    assert (summary.state, summary.done) == (JobState.SUCCEEDED, 4)
    assert len(manifest_lines(store, spec.job)) == 4


def test_a_cancelled_job_is_ended_once_it_has_no_live_lease(worker: Worker, post: Post, redis: Redis) -> None:
    spec = old_job(worker, count=4, chunk_size=2)
    worker.claims.start_marks.mark(spec.job)
    lease = worker.leases.take(spec.job, 0)
    assert lease is not None
    cancel(spec, worker.repository, worker.live_state)
    sweeper = Sweeper(worker)
    sweeper.run_once()
    assert worker.repository.read_summary(spec.job) is None
    worker.leases.release(lease)
    sweeper.run_once()
    summary = worker.repository.read_summary(spec.job)
    assert summary is not None
    assert summary.state is JobState.CANCELLED
    assert summary.reason == "cancelled"
    assert post.sent == []


def test_a_sweep_reads_nothing_of_jobs_known_to_have_ended(hire: Hire, post: Post, store: FolderStore) -> None:
    counting = CountingStore(store.root, link_secret=b"0123456789abcdef", public_url="http://127.0.0.1:8000")
    worker = hire(store=counting)
    for _ in range(6):
        old_job(worker, count=1)
    sweeper = Sweeper(worker)
    for _ in range(2):
        sweeper.run_once()
        run(worker, post)
    sweeper.run_once()
    counting.read.clear()
    sweeper.run_once()
    assert [key for key in counting.read if key.startswith("jobs/")] == []


def test_a_job_deep_in_the_listing_is_found_in_time(hire: Hire, post: Post) -> None:
    worker = hire()
    sweeper = Sweeper(worker)
    for number in range(30):
        old_job(worker, count=1, age_s=60.0 + number)
    sweeper.run_once()
    run(worker, post)
    sweeper.run_once()
    late = old_job(worker, count=1, age_s=600.0)
    sweeper.run_once()
    sweeper.run_once()
    assert (late.job, 0) in post.sent


def test_a_sweep_that_is_out_of_time_has_looked_at_every_tenant_and_the_next_goes_on(
    hire: Hire, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = hire()
    sweeper = Sweeper(worker)
    flood = [old_job(worker, count=1, age_s=60.0 + number, tenant="acme") for number in range(30)]
    single = old_job(worker, count=1, age_s=600.0, tenant="birch")
    reconcile = Sweeper._reconcile
    monkeypatch.setattr(sweeper_module, "_MAX_SWEEP_S", 0.2)
    monkeypatch.setattr(Sweeper, "_reconcile", lambda *each: time.sleep(0.03) or reconcile(*each))
    sweeper.run_once()
    first = [job for job, _ in post.sent]
    assert single.job in first[:2]
    assert 2 < len(first) < 10
    sweeper.run_once()
    second = [job for job, _ in post.sent[len(first) :]]
    assert len(second) > 2
    assert not set(first) & set(second)
    assert set(first) | set(second) < {spec.job for spec in [*flood, single]}


def test_one_sweeper_at_a_time_and_another_takes_over(hire: Hire) -> None:
    first, second = Sweeper(hire()), Sweeper(hire())
    assert first.run_once()
    assert first.run_once()
    assert not second.run_once()
    first.start()
    first.stop()
    assert second.run_once()


def test_a_folder_without_a_job_and_a_torn_spec_do_not_stop_the_others(
    worker: Worker, post: Post, store: FolderStore
) -> None:
    torn = new_job_id(datetime.now(UTC))
    store.put(keys.job_spec(torn), b'{"format": 1')
    store.put("jobs/notes/readme.txt", b"hello")
    spec = old_job(worker, count=1)
    Sweeper(worker).run_once()
    assert post.sent == [(spec.job, 0)]


@pytest.mark.parametrize("damaged", [b"", bytes(100), b"[]", b'{"format": 99}', b'{"format": 3, "job": 7}'])
@pytest.mark.parametrize("record", ["spec", "summary", "chunk", "stranger"])
def test_a_record_that_cannot_be_read_stops_no_other_job_and_is_read_again_later(
    worker: Worker, post: Post, store: FolderStore, monkeypatch: pytest.MonkeyPatch, record: str, damaged: bytes
) -> None:
    bad, good = old_job(worker, count=2, chunk_size=2), old_job(worker, count=2, chunk_size=2, age_s=200)
    key = {
        "spec": keys.job_spec(bad.job),
        "summary": keys.job_summary(bad.job),
        "chunk": keys.job_chunk(bad.job, 0),
        "stranger": f"jobs/{bad.job}/chunks/notes.json",
    }[record]
    whole = store.get(key) if record == "spec" else None
    store.put(key, damaged)
    sweeper = Sweeper(worker)
    sweeper.run_once()
    sweeper.run_once()
    assert (good.job, 0) in post.sent
    run(worker, post)
    sweeper.run_once()
    assert worker.repository.read_summary(good.job) is not None
    if whole is None:
        return
    assert (bad.job, 0) not in post.sent
    store.put(key, whole)
    monkeypatch.setattr(sweeper_module, "_READ_AGAIN_AFTER_S", 0.0)
    sweeper._unreadable = dict.fromkeys(sweeper._unreadable, 0.0)
    sweeper.run_once()
    assert (bad.job, 0) in post.sent


def test_the_default_tenants_jobs_from_before_it_had_a_list_are_listed(worker: Worker, store: FolderStore) -> None:
    ended, waiting = old_job(worker, count=1, chunk_size=1), old_job(worker, count=1, chunk_size=1)
    foreign = old_job(worker, count=1, chunk_size=1, tenant="acme")
    worker.repository.conclude(ended)
    for spec in (ended, waiting, foreign):
        store.delete(keys.tenant_job(spec.tenant, spec.job))
    usage = worker.repository.usage
    assert list(usage.jobs("default")) == []
    Sweeper(worker).run_once()
    assert set(usage.jobs("default")) == {ended.job, waiting.job}
    assert set(usage.jobs("acme")) == {foreign.job}
