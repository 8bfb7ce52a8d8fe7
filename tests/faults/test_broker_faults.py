"""Tests of a broker that loses data, dies or freezes during a job: every twin is made once, and no process restarts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.jobs.spec import JobSpec
from tests.faults.checker import Reference
from tests.faults.conftest import REFERENCE_COUNT, MakeRig
from tests.faults.rig import Rig
from tests.faults.valkey_server import ValkeyServer
from tests.waiting import until


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ValkeyServer]:
    with ValkeyServer(tmp_path / "broker") as server:
        yield server


@pytest.fixture
def own_rig(make_rig: MakeRig, own_server: ValkeyServer) -> Iterator[Rig]:
    """A rig with its own broker and two workers."""
    rig = make_rig(own_server.url())
    for _ in range(2):
        rig.worker()
    yield rig
    rig.end()


def half_done(rig: Rig) -> JobSpec:
    """A job that runs and is not about to end."""
    spec = rig.accept(count=REFERENCE_COUNT, chunk_size=2)
    until(lambda: len(list(rig.repository.chunks.recorded(spec.job))) >= 4)
    assert rig.repository.read_summary(spec.job) is None
    return spec


def check_unharmed(rig: Rig, spec: JobSpec, reference: Reference) -> None:
    rig.check(spec, reference)
    assert all(process.alive for process in rig.processes)


def test_flushall_during_a_job(own_rig: Rig, reference: Reference) -> None:
    spec = half_done(own_rig)
    own_rig.redis.flushall()
    check_unharmed(own_rig, spec, reference)


@pytest.mark.parametrize("data_lost", [False, True])
def test_a_broker_killed_and_restarted_during_a_job(
    own_rig: Rig, own_server: ValkeyServer, reference: Reference, data_lost: bool
) -> None:
    spec = half_done(own_rig)
    own_server.kill()
    if data_lost:
        own_server.delete_data()
    own_server.start()
    check_unharmed(own_rig, spec, reference)


@pytest.mark.parametrize("seconds", [4, pytest.param(20, marks=pytest.mark.soak)])
def test_a_broker_frozen_during_a_job(
    own_rig: Rig, own_server: ValkeyServer, reference: Reference, seconds: int
) -> None:
    spec = half_done(own_rig)
    own_server.freeze()
    frozen_at = time.monotonic()
    # longer than a lease and any timeout of a call to Redis
    until(lambda: time.monotonic() - frozen_at > seconds, timeout_s=60)
    own_server.thaw()
    check_unharmed(own_rig, spec, reference)


def test_a_broker_that_refuses_writes_during_a_job(own_rig: Rig, reference: Reference) -> None:
    """As with a full disk or memory: every write is answered with an error, but no connection is lost."""
    spec = half_done(own_rig)
    own_rig.redis.config_set("min-replicas-to-write", 1)
    until(lambda: own_rig.redis.info("errorstats").get("errorstat_NOREPLICAS", {}).get("count", 0) >= 20)
    own_rig.redis.config_set("min-replicas-to-write", 0)
    check_unharmed(own_rig, spec, reference)
