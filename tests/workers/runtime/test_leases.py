"""Leases against a real Redis: one holder, fencing, and what is left when Redis forgets or is gone."""

from __future__ import annotations

import time

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from tests.workers.fakes import Post, tiny_spec
from workers.generation.dispatch import ChunkDispatcher
from workers.generation.progress import rate_of
from workers.runtime.leases import Lease, Leases

JOB = "j" + "0" * 18


def gone() -> Redis:
    return Redis.from_url("redis://127.0.0.1:1/0", decode_responses=True, retry=Retry(NoBackoff(), 1))


def until_free(redis: Redis, lease: Lease) -> None:
    deadline = time.monotonic() + 5
    while redis.exists(lease.key):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_chunk_has_one_holder_and_a_released_lease_is_free(redis: Redis) -> None:
    leases = Leases(redis, 30)
    first = leases.take(JOB, 3)
    assert first is not None
    assert first.epoch == 1
    assert leases.take(JOB, 3) is None
    assert leases.take(JOB, 4) is not None
    assert leases.live(JOB) == {3, 4}
    leases.release(first)
    assert leases.live(JOB) == {4}
    second = leases.take(JOB, 3)
    assert second is not None
    assert second.epoch == 2
    leases.release(first)
    assert leases.live(JOB) == {3, 4}, "who has lost a lease cannot give back another's"


def test_a_holder_woken_after_another_took_over_is_fenced_for_good(redis: Redis) -> None:
    stopped = Leases(redis, 0.05)
    late = stopped.take(JOB, 0)
    assert late is not None
    until_free(redis, late)
    assert stopped.live(JOB) == set()
    heir = Leases(redis, 30).take(JOB, 0)
    assert heir is not None
    assert heir.epoch == 2
    assert not stopped.hold(late)
    Leases(redis, 30).release(heir)
    assert not stopped.hold(late), "the epoch has moved on, even though nobody holds the chunk now"


def test_a_lease_that_ran_out_but_that_nobody_took_is_still_the_holders(redis: Redis) -> None:
    leases = Leases(redis, 0.05)
    lease = leases.take(JOB, 0)
    assert lease is not None
    until_free(redis, lease)
    assert Leases(redis, 30).hold(lease)
    assert leases.take(JOB, 0) is None


def test_renewing_makes_it_last(redis: Redis) -> None:
    leases = Leases(redis, 5)
    lease = leases.take(JOB, 0)
    assert lease is not None
    redis.pexpire(lease.key, 100)
    assert leases.hold(lease)
    assert redis.pttl(lease.key) > 4000


def test_a_redis_that_forgot_everything_gives_the_lease_to_whoever_asks_first(redis: Redis) -> None:
    leases = Leases(redis, 30)
    kept, lost = leases.take(JOB, 0), leases.take(JOB, 1)
    assert kept is not None
    assert lost is not None
    redis.flushall()
    assert leases.hold(kept)
    assert leases.take(JOB, 0) is None
    assert leases.take(JOB, 1) is not None
    assert not leases.hold(lost)


def test_without_redis_work_goes_on_unleased_and_nobody_claims_to_know_who_is_at_it() -> None:
    leases = Leases(gone(), 30)
    lease = leases.take(JOB, 0)
    assert lease is not None
    assert lease.epoch == 0
    assert leases.hold(lease)
    leases.release(lease)
    with pytest.raises(RedisError):
        leases.live(JOB)


def test_each_finished_chunk_sends_one_that_was_never_sent(redis: Redis) -> None:
    post = Post()
    dispatcher = ChunkDispatcher(redis, post, 3)
    spec = tiny_spec(count=14, chunk_size=2)
    assert [dispatcher.send_next(spec, finished) for finished in (0, 2, 1, 3, 4, 5)] == [3, 4, 5, 6, None, None]
    assert set(dispatcher.waiting(spec.job)) == {3, 4, 5, 6}
    dispatcher.claimed(spec.job, 4)
    assert set(dispatcher.waiting(spec.job)) == {3, 5, 6}


def test_after_a_flush_the_window_goes_on_behind_the_finished_chunk(redis: Redis) -> None:
    dispatcher = ChunkDispatcher(redis, Post(), 2)
    spec = tiny_spec(count=40, chunk_size=2)
    assert dispatcher.send_next(spec, 0) == 2
    redis.flushall()
    assert dispatcher.send_next(spec, 7) == 8
    assert dispatcher.send_next(spec, 3) == 9
    dispatcher.send(spec.job, 15)
    assert dispatcher.send_next(spec, 4) == 16, "what the sweeper sent is not sent once more"


def test_the_window_sends_a_jobs_chunks_by_its_priority_and_counts_both_queues(redis: Redis) -> None:
    post = Post()
    dispatcher = ChunkDispatcher(redis, post, 2)
    urgent, plain = (tiny_spec(count=8, chunk_size=2, priority=priority) for priority in ("interactive", "normal"))
    assert dispatcher.send_next(urgent, 0) == dispatcher.send_next(plain, 0) == 2
    assert dispatcher.send(urgent.job, 1, urgent.priority)
    assert dispatcher.send(plain.job, 1)
    assert post.interactive == [(urgent.job, 2), (urgent.job, 1)]
    redis.rpush("generate", "a", "b")
    redis.rpush("generate-interactive", "c")
    assert (dispatcher.queue_length(), dispatcher.queue_length("normal"), dispatcher.queue_length("interactive")) == (
        3,
        2,
        1,
    )


def test_attempts_are_counted_per_chunk_and_can_be_cancelled(redis: Redis) -> None:
    dispatcher = ChunkDispatcher(redis, Post(), 2)
    assert [dispatcher.begin_attempt(JOB, 0), dispatcher.begin_attempt(JOB, 0), dispatcher.begin_attempt(JOB, 1)] == [
        1,
        2,
        1,
    ]
    dispatcher.cancel_attempt(JOB, 0)
    assert dispatcher.begin_attempt(JOB, 0) == 2
    dispatcher.record_error(JOB, 0, "why")
    assert dispatcher.last_error(JOB, 0) == "why"
    dispatcher.forget(JOB)
    assert dispatcher.begin_attempt(JOB, 0) == 1
    assert dispatcher.last_error(JOB, 0) is None


def test_the_rate_is_that_of_the_last_half_minute_to_minute() -> None:
    rate, first = rate_of(None, None, 1000.0, 5.0)
    assert rate is None
    rate, moved = rate_of(first["base"], first["mid"], 1010.0, 25.0)
    assert rate == 2.0
    assert moved == {}
    rate, moved = rate_of(first["base"], first["mid"], 1040.0, 85.0)
    assert rate == 2.0
    assert moved["base"] == first["mid"]
    _, again = rate_of(moved["base"], moved["mid"], 1075.0, 85.0)
    rate, _ = rate_of(again["base"], again["mid"], 1080.0, 85.0)
    assert rate is None, "nothing was made since the base: no rate is better than an old one"
