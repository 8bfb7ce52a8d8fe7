"""A store that fails: its jobs are stalled while it lasts, and no attempt is counted."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from redis import Redis

from service.broker import redis_keys
from service.errors import StoreUnavailable
from tests.workers.conftest import Hire, register
from tests.workers.fakes import FailingStore, tiny_spec
from workers.generation.chunk import ChunkOutcome, generate_chunk
from workers.generation.sweeper import Sweeper


@pytest.fixture
def failing(tmp_path: Path) -> FailingStore:
    store = FailingStore(tmp_path / "failing", link_secret=b"0123456789abcdef", public_url="http://127.0.0.1:8000")
    register(store)
    return store


def test_a_stall_lasts_from_the_first_failure_to_the_next_record_and_both_are_published(
    hire: Hire, redis: Redis, failing: FailingStore
) -> None:
    worker = hire(store=failing)
    spec = tiny_spec(count=2, chunk_size=2)
    worker.repository.write_spec(spec)
    with redis.pubsub(ignore_subscribe_messages=True) as heard:
        heard.subscribe(redis_keys.events(spec.job))
        heard.get_message(timeout=5)
        failing.fail_on = "images/"
        before = datetime.now(UTC)
        assert generate_chunk(worker, spec.job, 0) is ChunkOutcome.RETRY
        stalled = worker.live_state.read_job(spec.job)[1]
        assert stalled is not None
        assert "the test says so" in stalled.reason
        assert before - timedelta(seconds=1) <= stalled.since <= datetime.now(UTC)
        failing.fail_on = "masks/"
        for _ in range(worker.settings.max_chunk_attempts + 1):
            assert generate_chunk(worker, spec.job, 0) is ChunkOutcome.RETRY
        again = worker.live_state.read_job(spec.job)[1]
        assert again is not None
        assert again.since == stalled.since
        assert "masks/" in again.reason
        assert 0 < redis.ttl(redis_keys.stalled(spec.job)) <= 600
        failing.fail_on = None
        assert generate_chunk(worker, spec.job, 0) is ChunkOutcome.RECORDED
        assert worker.live_state.read_job(spec.job)[1] is None
        told = []
        while (message := heard.get_message(timeout=0.5)) is not None:
            told.append(json.loads(message["data"]))
    stalls = [change["stalled"] is not None for change in told if "stalled" in change]
    assert stalls == [True, False]


def test_a_job_that_cannot_be_ended_says_why(hire: Hire, failing: FailingStore) -> None:
    worker = hire(store=failing)
    spec = tiny_spec(count=1)
    worker.repository.write_spec(spec)
    failing.fail_on = "manifest"
    generate_chunk(worker, spec.job, 0)
    worker.live_state.clear_stalled(spec.job)
    sweeper = Sweeper(worker)
    sweeper.run_once()
    stalled = worker.live_state.read_job(spec.job)[1]
    assert stalled is not None
    assert "manifest" in stalled.reason
    with pytest.raises(StoreUnavailable):
        failing.put("jobs/manifest", b"")
    failing.fail_on = None
    sweeper.run_once()
    assert worker.repository.read_summary(spec.job) is not None
