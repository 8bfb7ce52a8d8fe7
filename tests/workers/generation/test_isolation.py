"""Isolation: a chunk that was in hand when its worker died is made alone, and a death beside others counts for none."""

from __future__ import annotations

import threading

from redis import Redis

from service.broker import redis_keys
from service.jobs.spec import JobSpec
from service.kit.states import JobState
from tests.waiting import until
from tests.workers.conftest import Hire
from tests.workers.fakes import Post, tiny_spec
from workers.generation.chunk import ChunkOutcome, generate_chunk
from workers.generation.worker import Worker


def accepted(worker: Worker) -> JobSpec:
    spec = tiny_spec(count=2, chunk_size=2)
    worker.repository.write_spec(spec)
    return spec


def leave_behind(redis: Redis, spec: JobSpec, mark: str) -> None:
    """Leaves what a worker does that dies while it makes the job's chunk: an attempt begun, and no lease."""
    redis.hincrby(redis_keys.attempts(spec.job), "0", 1)
    redis.hset(redis_keys.attempts(spec.job), "0:begun", mark)


def test_deaths_beside_others_count_for_no_chunk(worker: Worker, redis: Redis) -> None:
    spec = accepted(worker)
    for _ in range(worker.settings.max_chunk_attempts + 2):
        leave_behind(redis, spec, "beside others")
        with worker.isolation.room(spec, 0) as alone:
            assert alone is True
        assert redis.hget(redis_keys.attempts(spec.job), "0") == "0"
    leave_behind(redis, spec, "beside others")
    assert generate_chunk(worker, spec.job, 0) is ChunkOutcome.RECORDED
    summary = worker.repository.read_summary(spec.job)
    assert summary is not None
    assert summary.state is JobState.SUCCEEDED


def test_deaths_alone_count_for_the_chunk(worker: Worker, redis: Redis) -> None:
    spec = accepted(worker)
    for _ in range(worker.settings.max_chunk_attempts):
        leave_behind(redis, spec, "alone")
    assert generate_chunk(worker, spec.job, 0) is ChunkOutcome.FAILED
    record = worker.repository.chunks.read(spec.job, 0)
    assert record is not None
    assert "its worker died each time" in (record.items[0].error or "")


def test_a_chunk_is_marked_while_it_is_made_and_no_suspect_while_a_worker_is_at_it(
    worker: Worker, redis: Redis
) -> None:
    spec = accepted(worker)
    key = redis_keys.attempts(spec.job)
    for mark in ("beside others", "alone"):
        with worker.isolation.begun(spec, 0, alone=mark == "alone"):
            assert redis.hget(key, "0:begun") == mark
            lease = worker.leases.take(spec.job, 0)
            assert lease is not None
            with worker.isolation.room(spec, 0) as alone:
                assert alone is False
            worker.leases.release(lease)
        assert redis.hget(key, "0:begun") is None


def test_others_wait_for_one_that_is_alone_and_it_waits_for_those_in_hand(worker: Worker, redis: Redis) -> None:
    suspect, first, second = (accepted(worker) for _ in range(3))
    leave_behind(redis, suspect, "beside others")
    order: list[str] = []
    gates = {name: threading.Event() for name in ("first", "suspect", "second")}

    def make(name: str, spec: JobSpec) -> None:
        with worker.isolation.room(spec, 0):
            order.append(name)
            assert gates[name].wait(10)
            order.append(f"{name} ended")

    threads = [threading.Thread(target=make, args=("first", first))]
    threads[0].start()
    until(lambda: order == ["first"])
    threads.append(threading.Thread(target=make, args=("suspect", suspect)))
    threads[1].start()
    until(lambda: worker.isolation._waiting == 1)
    threads.append(threading.Thread(target=make, args=("second", second)))
    threads[2].start()
    assert order == ["first"]
    for name in gates:
        gates[name].set()
        until(lambda name=name: f"{name} ended" in order)
    for thread in threads:
        thread.join(10)
    assert order == ["first", "first ended", "suspect", "suspect ended", "second", "second ended"]


def test_at_shutdown_a_chunk_that_waits_for_room_goes_back_to_its_queue(hire: Hire, post: Post, redis: Redis) -> None:
    worker = hire(grace_s=0.0)
    spec, beside = accepted(worker), accepted(worker)
    leave_behind(redis, spec, "beside others")
    with worker.isolation.room(beside, 0):
        worker.shutdown.request()
        assert generate_chunk(worker, spec.job, 0) is ChunkOutcome.REQUEUED
    assert post.sent == [(spec.job, 0)]
