"""Tests of a worker that is killed, or stopped past its lease, at each step of a chunk; the job still succeeds."""

from __future__ import annotations

import signal
import time

import pytest

from service.broker import redis_keys
from service.settings import Settings
from service.store import keys
from tests.faults.checker import Reference
from tests.faults.points import AFTER_RECORD, AFTER_SHARD, BEFORE_RECORD, MID_DENOISE, WORKER_POINTS, ProcessFault
from tests.faults.rig import Rig
from tests.waiting import until


@pytest.mark.parametrize("point", WORKER_POINTS)
def test_a_worker_killed_at_any_point_loses_and_duplicates_nothing(rig: Rig, reference: Reference, point: str) -> None:
    """The only worker is also the sweeper: the next one has to take over its leader lock as well."""
    victim = rig.worker(ProcessFault(point, nth=3 if point == MID_DENOISE else 1))
    spec = rig.accept(count=4)
    until(lambda: not victim.alive)
    assert rig.repository.read_summary(spec.job) is None
    if point == AFTER_RECORD:
        assert next(rig.repository.recorded_chunks(spec.job), None) is not None
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
    assert (next(rig.repository.recorded_chunks(spec.job), None) is None) == (point == AFTER_SHARD)
    rig.worker()
    rig.check(spec, reference)
    assert rig.store.head(left.key) == left, "the existing shard must not be written again"


@pytest.mark.parametrize("point", [MID_DENOISE, BEFORE_RECORD])
def test_a_worker_stopped_past_its_lease_commits_nothing(rig: Rig, reference: Reference, point: str) -> None:
    sleeper = rig.worker(ProcessFault(point, signal.SIGSTOP, nth=2 if point == MID_DENOISE else 1))
    spec = rig.accept(count=2, steps=12)
    until(lambda: sleeper.stopped)
    assert rig.redis.zcard(redis_keys.leases(spec.job)) == 1
    rig.worker()
    rig.wait_until_ended(spec)
    [record] = rig.repository.iterate_chunks(spec.job)
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
