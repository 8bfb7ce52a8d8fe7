"""Tests of a worker that is killed, or stopped past its lease, at each step of a chunk; the job still succeeds."""

from __future__ import annotations

import signal
import time
from datetime import UTC, datetime

import pytest

from service.broker import redis_keys
from service.jobs.garbage import remove_strays
from service.settings import Settings
from service.store import keys
from tests.faults.checker import Reference, check_job, either
from tests.faults.points import (
    AFTER_RECORD,
    AFTER_SHARD,
    BEFORE_IMAGE,
    BEFORE_RECORD,
    BEFORE_SHARD,
    BEFORE_SUMMARY,
    MID_DENOISE,
    WORKER_POINTS,
    ProcessFault,
)
from tests.faults.rig import OTHER_MAKE, Rig
from tests.waiting import until


@pytest.mark.parametrize("point", WORKER_POINTS)
def test_a_worker_killed_at_any_point_loses_and_duplicates_nothing(rig: Rig, reference: Reference, point: str) -> None:
    """The only worker is also the sweeper: the next one has to take over its leader lock as well."""
    victim = rig.worker(ProcessFault(point, nth=3 if point == MID_DENOISE else 1))
    spec = rig.accept(count=4)
    until(lambda: not victim.alive)
    assert rig.repository.read_summary(spec.job) is None
    if point == AFTER_RECORD:
        assert next(rig.repository.chunks.recorded(spec.job), None) is not None
    rig.worker()
    rig.check(spec, reference)


@pytest.mark.parametrize("point", [AFTER_SHARD, AFTER_RECORD])
def test_a_chunk_with_shards_is_made_again_byte_by_byte_after_a_kill(
    rig: Rig, reference: Reference, point: str
) -> None:
    victim = rig.worker(ProcessFault(point))
    spec = rig.accept(count=4, layout="shards")
    until(lambda: not victim.alive)
    [left] = list(rig.store.list(keys.job_shards_prefix(spec.job)))[:1]
    assert (next(rig.repository.chunks.recorded(spec.job), None) is None) == (point == AFTER_SHARD)
    rig.worker()
    rig.check(spec, reference)
    assert rig.store.head(left.key) == left, "the existing shard must not be written again"


@pytest.mark.parametrize(
    ("point", "layout"),
    [
        (BEFORE_IMAGE, "objects"),
        (BEFORE_RECORD, "objects"),
        (BEFORE_SUMMARY, "objects"),
        (BEFORE_SHARD, "shards"),
        (BEFORE_RECORD, "shards"),
    ],
)
def test_a_worker_of_another_make_that_wakes_after_the_record_damages_no_twin(
    rig: Rig, reference: Reference, other_reference: Reference, point: str, layout: str
) -> None:
    """It is stopped before a write, and finishes the write once the other worker has recorded other bytes."""
    sleeper = rig.worker(ProcessFault(point, signal.SIGSTOP), environment=OTHER_MAKE)
    spec = rig.accept(count=2, layout=layout)
    until(lambda: sleeper.stopped)
    rig.worker()
    summary = rig.wait_until_ended(spec)
    before = {info.key: rig.store.get(info.key) for info in rig.store.list(f"jobs/{spec.job}/")}
    sleeper.send(signal.SIGCONT)
    ends = ("lease lost to another worker", "nothing to do", "recorded")
    until(lambda: any(end in sleeper.log_text for end in ends))
    time.sleep(1.0)
    after = {info.key: rig.store.get(info.key) for info in rig.store.list(f"jobs/{spec.job}/")}
    assert {key: after[key] for key in before} == before, "nothing that a record counts has changed"
    late = after.keys() - before.keys()
    assert bool(late) == (point in (BEFORE_IMAGE, BEFORE_SHARD)), "its bytes are its own, under keys of their own"
    swept = remove_strays(rig.repository, spec, summary, datetime.now(UTC), max_objects=100)
    assert bool(swept) == (point != BEFORE_SUMMARY)
    findings = check_job(rig.store, spec, either(reference, other_reference))
    assert findings.clean, findings
    assert "Traceback" not in sleeper.log_text


@pytest.mark.parametrize("point", [MID_DENOISE, BEFORE_RECORD])
def test_a_worker_stopped_past_its_lease_commits_nothing(rig: Rig, reference: Reference, point: str) -> None:
    sleeper = rig.worker(ProcessFault(point, signal.SIGSTOP, nth=2 if point == MID_DENOISE else 1))
    spec = rig.accept(count=2, steps=12)
    until(lambda: sleeper.stopped)
    assert rig.redis.zcard(redis_keys.leases(spec.job)) == 1
    rig.worker()
    rig.wait_until_ended(spec)
    [record] = rig.repository.chunks.iterate(spec.job)
    assert f"-{sleeper.pid}-" not in record.worker
    before = {info.key: info.etag for info in rig.store.list(f"jobs/{spec.job}/chunks/")}
    sleeper.send(signal.SIGCONT)
    until(lambda: "lease lost to another worker" in sleeper.log_text or "nothing to do" in sleeper.log_text)
    assert {info.key: info.etag for info in rig.store.list(f"jobs/{spec.job}/chunks/")} == before
    assert "Traceback" not in sleeper.log_text
    assert record.epoch == 2


@pytest.mark.soak
def test_with_default_settings_a_killed_workers_chunk_is_claimed_again_within_30_s(
    rig: Rig,
) -> None:
    defaults = Settings()
    environment = {"TWINSET_LEASE_S": str(defaults.lease_s), "TWINSET_SWEEP_INTERVAL_S": str(defaults.sweep_interval_s)}
    victim = rig.worker(ProcessFault(MID_DENOISE, nth=3), environment=environment)
    spec = rig.accept(count=2)
    until(lambda: not victim.alive)
    died = time.monotonic()
    rig.worker(environment=environment)
    until(lambda: rig.redis.hget(redis_keys.epochs(spec.job), "0") == "2")
    took_s = time.monotonic() - died
    print(f"claimed again after {took_s:.1f} s")
    assert took_s <= 30
