"""Leases are renewed while their holders wait for something slow, and expire if their holders hang."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from redis import Redis

from model_store.interface import System
from service.broker import redis_keys
from service.jobs.spec import JobSpec
from service.store.base import ObjectInfo
from service.store.folder import FolderStore
from tests.waiting import until
from tests.workers.conftest import Hire, load_tiny, register
from tests.workers.fakes import tiny_spec
from workers.generation.chunk import ChunkOutcome, generate_chunk
from workers.generation.worker import Worker
from workers.runtime.lease_renewal import LeaseRenewer
from workers.runtime.leases import Leases

JOB = "j" + "0" * 18


class SlowStore(FolderStore):
    """A folder store that does not answer for ``slow`` keys until a test lets it."""

    slow: str | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.asked, self.let = threading.Event(), threading.Event()

    def _hold_up(self, key: str) -> None:
        if self.slow is not None and self.slow in key and threading.current_thread().name == "delivery":
            self.asked.set()
            assert self.let.wait(60)

    def put(self, key: str, data: bytes, **options: Any) -> ObjectInfo:
        self._hold_up(key)
        return super().put(key, data, **options)

    def head(self, key: str) -> ObjectInfo | None:
        if "chunks/" not in key:  # a look for the record comes before the lease
            self._hold_up(key)
        return super().head(key)


def deliver(worker: Worker, spec: JobSpec) -> tuple[threading.Thread, list[ChunkOutcome]]:
    outcomes: list[ChunkOutcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(generate_chunk(worker, spec.job, 0)), name="delivery")
    thread.start()
    return thread, outcomes


def outlives(redis: Redis, spec: JobSpec, lease_s: float) -> bool:
    """Whether the chunk's lease is still alive after twice its life."""
    ended = threading.Event()
    return not ended.wait(2 * lease_s) and bool(redis.exists(redis_keys.lease(spec.job, 0)))


def test_a_lease_is_renewed_while_the_store_does_not_answer(hire: Hire, redis: Redis, tmp_path: Path) -> None:
    for slow in ("cancel", "chunks/"):
        store = SlowStore(tmp_path / "slow", link_secret=b"0123456789abcdef", public_url="http://127.0.0.1:8000")
        register(store)
        worker = hire(store=store, lease_s=1.0)
        spec = tiny_spec(count=1)
        worker.repository.write_spec(spec)
        store.slow = slow
        thread, outcomes = deliver(worker, spec)
        assert store.asked.wait(60)
        assert outlives(redis, spec, 1.0)
        store.let.set()
        thread.join()
        assert outcomes == [ChunkOutcome.RECORDED]
        assert not redis.exists(redis_keys.lease(spec.job, 0))


def test_a_lease_is_renewed_while_the_model_is_loaded(hire: Hire, redis: Redis) -> None:
    loading, loaded = threading.Event(), threading.Event()

    def load_slowly(folder: Path) -> System:
        loading.set()
        assert loaded.wait(60)
        return load_tiny(folder)

    worker = hire(load=load_slowly, lease_s=1.0)
    spec = tiny_spec(count=1)
    worker.repository.write_spec(spec)
    thread, outcomes = deliver(worker, spec)
    assert loading.wait(60)
    assert outlives(redis, spec, 1.0)
    loaded.set()
    thread.join()
    assert outcomes == [ChunkOutcome.RECORDED]


def test_a_holder_that_hangs_loses_its_lease_in_time(redis: Redis) -> None:
    leases = Leases(redis, 1.0)
    renewer = LeaseRenewer(leases, 1.0, hang_timeout_s=0.0)
    lease = leases.take(JOB, 0)
    assert lease is not None
    with renewer.renewing(lease):
        until(lambda: not redis.exists(lease.key), timeout_s=5)
    renewer.close()


def test_a_holder_sees_that_another_took_over_and_does_not_touch_its_lease(redis: Redis) -> None:
    leases = Leases(redis, 30.0)
    renewer = LeaseRenewer(leases, 30.0)
    lease = leases.take(JOB, 0)
    assert lease is not None
    with renewer.renewing(lease) as renewed:
        redis.delete(lease.key)
        heir = leases.take(JOB, 0)
        assert heir is not None
        renewer.renew_all()
        assert not renewed.heartbeat()
    renewer.close()
    assert leases.live(JOB) == {0}
    leases.release(heir)
    assert leases.live(JOB) == set()
