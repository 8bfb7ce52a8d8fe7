"""Leases against a real Redis: one holder, fencing, and the cases of a Redis that lost its data or is down."""

from __future__ import annotations

import time

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from service.broker import redis_keys
from workers.runtime.leader_lock import LeaderLock
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
    assert leases.live(JOB) == {3, 4}, "a worker that has lost its lease cannot release another's"


def test_a_holder_woken_after_another_took_over_is_fenced_for_good(redis: Redis) -> None:
    stopped = Leases(redis, 0.05)
    late = stopped.take(JOB, 0)
    assert late is not None
    until_free(redis, late)
    assert stopped.live(JOB) == set()
    heir = Leases(redis, 30).take(JOB, 0)
    assert heir is not None
    assert heir.epoch == 2
    assert not stopped.renew(late)
    Leases(redis, 30).release(heir)
    assert not stopped.renew(late), "the epoch has moved on, even though no worker holds the chunk now"


def test_an_expired_lease_that_no_other_worker_took_is_still_the_holders(redis: Redis) -> None:
    leases = Leases(redis, 0.05)
    lease = leases.take(JOB, 0)
    assert lease is not None
    until_free(redis, lease)
    assert Leases(redis, 30).renew(lease)
    assert leases.take(JOB, 0) is None


def test_a_renewed_lease_lasts(redis: Redis) -> None:
    leases = Leases(redis, 5)
    lease = leases.take(JOB, 0)
    assert lease is not None
    redis.pexpire(lease.key, 100)
    assert leases.renew(lease)
    assert redis.pttl(lease.key) > 4000


def test_after_a_flush_the_first_worker_to_ask_gets_the_lease(redis: Redis) -> None:
    leases = Leases(redis, 30)
    held, lost = leases.take(JOB, 0), leases.take(JOB, 1)
    assert held is not None
    assert lost is not None
    redis.flushall()
    assert leases.renew(held)
    assert leases.take(JOB, 0) is None
    assert leases.take(JOB, 1) is not None
    assert not leases.renew(lost)


def test_without_redis_work_goes_on_unleased_and_the_live_leases_are_unknown() -> None:
    leases = Leases(gone(), 30)
    lease = leases.take(JOB, 0)
    assert lease is not None
    assert lease.epoch == 0
    assert leases.renew(lease)
    leases.release(lease)
    with pytest.raises(RedisError):
        leases.live(JOB)


def test_a_dead_workers_lease_and_lock_do_not_outlive_a_clock_that_is_set_back(redis: Redis) -> None:
    hour_ms = 3_600_000
    leases = Leases(redis, 0.2)
    dead = leases.take(JOB, 3)
    assert dead is not None
    redis.pexpire(dead.key, hour_ms)  # as Redis sees it when its machine's clock goes back by an hour
    redis.zincrby(redis_keys.leases(JOB), hour_ms, "3")
    assert leases.take(JOB, 3) is None
    assert leases.live(JOB) == {3}
    until_free(redis, dead)
    time.sleep(0.25)
    assert leases.live(JOB) == set()
    assert leases.take(JOB, 3) is not None

    held, waiting = (LeaderLock(redis, "twinset:leader:test", ttl_s=0.2) for _ in range(2))
    assert held.acquire()
    redis.pexpire("twinset:leader:test", hour_ms)
    assert not waiting.acquire()
    time.sleep(0.25)
    assert waiting.acquire()
