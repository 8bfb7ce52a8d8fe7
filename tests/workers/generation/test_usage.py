"""A tenant's stored bytes, counted by workers: with each chunk while a job runs, and in all at its end."""

from __future__ import annotations

import pytest
from redis import Redis

from service.broker import redis_keys
from service.jobs.quotas import Quotas
from service.store import keys
from service.store.folder import FolderStore
from tests.workers.conftest import Hire
from tests.workers.fakes import Post, tiny_spec
from workers.generation.chunk import ChunkOutcome, generate_chunk


@pytest.mark.parametrize("layout", ["objects", "shards"])
def test_bytes_count_up_with_each_chunk_once_and_end_in_the_store(
    hire: Hire, post: Post, store: FolderStore, redis: Redis, layout: str
) -> None:
    worker = hire()
    limits = Quotas(worker.repository.usage, worker.live_state, queued_samples=4, stored_bytes=10**9)
    spec = tiny_spec(tenant="acme", count=4, chunk_size=2, layout=layout)
    limits.take_queue(spec)
    worker.repository.write_spec(spec)

    assert generate_chunk(worker, spec.job, 0) is ChunkOutcome.RECORDED
    record = worker.repository.chunks.read(spec.job, 0)
    assert record is not None
    assert record.bytes > 0
    for _ in range(2):
        assert redis.hgetall(redis_keys.stored("acme")) == {spec.job: str(record.bytes)}
        assert generate_chunk(worker, spec.job, 0) is ChunkOutcome.NOTHING_TO_DO
    assert worker.repository.usage.queued_samples("acme") == {spec.job: 4}

    assert generate_chunk(worker, spec.job, 1) is ChunkOutcome.RECORDED
    prefix = keys.job_prefix(spec.job)
    whole = sum(
        info.size for part in ("images/", "masks/", "shards/", "manifest.") for info in store.list(prefix + part)
    )
    assert worker.repository.usage.stored_bytes("acme") == {spec.job: whole}
    assert worker.repository.usage.queued_samples("acme") == {}


def test_without_redis_the_bytes_are_counted_at_the_end(hire: Hire, post: Post) -> None:
    worker = hire(broker_url="redis://127.0.0.1:1/0")
    spec = tiny_spec(tenant="acme", count=2, chunk_size=2)
    worker.repository.write_spec(spec)
    assert generate_chunk(worker, spec.job, 0) is ChunkOutcome.RECORDED
    [(job, size)] = worker.repository.usage.stored_bytes("acme").items()
    assert job == spec.job
    assert size > 0
