"""A worker is killed, or stopped past its lease, at each point of a chunk's way; the job ends as if nothing had
been."""

from __future__ import annotations

import signal
import time

import pytest

from service.settings import Settings
from service.store import keys
from tests.faults.checker import Reference
from tests.faults.ground import Ground
from tests.faults.points import AFTER_RECORD, AFTER_SHARD, BEFORE_RECORD, MID_DENOISE, WORKER_POINTS, Fault
from tests.waiting import until


@pytest.mark.parametrize("point", WORKER_POINTS)
def test_a_worker_killed_at_any_point_loses_and_doubles_nothing(
    ground: Ground, reference: Reference, point: str
) -> None:
    """Being alone, it is the sweeper too: its turn dies with it, and the next worker has to take that as well."""
    victim = ground.worker(Fault(point, nth=3 if point == MID_DENOISE else 1))
    spec = ground.accept(count=4)
    until(lambda: not victim.alive)
    assert ground.repository.read_summary(spec.job) is None
    if point == AFTER_RECORD:
        assert next(ground.repository.recorded_chunks(spec.job), None) is not None
    ground.worker()
    ground.check(spec, reference)


@pytest.mark.parametrize("point", [AFTER_SHARD, AFTER_RECORD])
def test_killed_between_shard_and_record_or_after_it_the_chunk_is_made_again_to_the_byte(
    ground: Ground, reference: Reference, point: str
) -> None:
    victim = ground.worker(Fault(point))
    spec = ground.accept(count=4, layout="shards")
    until(lambda: not victim.alive)
    [left] = list(ground.store.list(keys.job_shards_prefix(spec.job)))[:1]
    assert (next(ground.repository.recorded_chunks(spec.job), None) is None) == (point == AFTER_SHARD)
    ground.worker()
    ground.check(spec, reference)
    assert ground.store.head(left.key) == left, "what lay there already is not written again"


@pytest.mark.parametrize("point", [MID_DENOISE, BEFORE_RECORD])
def test_a_worker_stopped_past_its_lease_and_woken_commits_nothing(
    ground: Ground, reference: Reference, point: str
) -> None:
    sleeper = ground.worker(Fault(point, signal.SIGSTOP, nth=2 if point == MID_DENOISE else 1))
    spec = ground.accept(count=2, steps=12)
    until(lambda: sleeper.stopped)
    assert ground.redis.zcard(f"twinset:leases:{spec.job}") == 1
    ground.worker()
    ground.ended(spec)
    [record] = ground.repository.iterate_chunks(spec.job)
    assert f"-{sleeper.pid}-" not in record.worker
    before = {info.key: info.etag for info in ground.store.list(f"jobs/{spec.job}/chunks/")}
    sleeper.send(signal.SIGCONT)
    until(lambda: "lease lost to another worker" in sleeper.said or "nothing to do" in sleeper.said)
    assert {info.key: info.etag for info in ground.store.list(f"jobs/{spec.job}/chunks/")} == before
    assert "Traceback" not in sleeper.said
    assert record.epoch == 2


@pytest.mark.soak
def test_with_the_default_settings_a_killed_workers_chunk_is_taken_up_again_within_thirty_seconds(
    ground: Ground,
) -> None:
    defaults = Settings()
    usual = {"TWINSET_LEASE_S": str(defaults.lease_s), "TWINSET_SWEEP_INTERVAL_S": str(defaults.sweep_interval_s)}
    victim = ground.worker(Fault(MID_DENOISE, nth=3), environment=usual)
    spec = ground.accept(count=2)
    until(lambda: not victim.alive)
    died = time.monotonic()
    ground.worker(environment=usual)
    until(lambda: ground.redis.hget(f"twinset:epochs:{spec.job}", "0") == "2")
    took_s = time.monotonic() - died
    print(f"taken up again after {took_s:.1f} s")
    assert took_s <= 30
