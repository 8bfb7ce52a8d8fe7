"""The broker forgets, dies or freezes in mid-job; all that was accepted is made, once, and no process has to be
restarted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.jobs.spec import JobSpec
from tests.faults.checker import Reference
from tests.faults.conftest import REFERENCE_COUNT, Lay
from tests.faults.ground import Ground
from tests.faults.server import Server
from tests.waiting import until


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "broker") as server:
        yield server


@pytest.fixture
def own_ground(lay: Lay, own_server: Server) -> Iterator[Ground]:
    """A ground with a broker of its own, two workers, and nothing else."""
    ground = lay(own_server.url())
    for _ in range(2):
        ground.worker()
    yield ground
    ground.end()


def half_done(ground: Ground) -> JobSpec:
    """A job that is at work and not about to end."""
    spec = ground.accept(count=REFERENCE_COUNT, chunk_size=2)
    until(lambda: len(list(ground.repository.recorded_chunks(spec.job))) >= 4)
    assert ground.repository.read_summary(spec.job) is None
    return spec


def unharmed(ground: Ground, spec: JobSpec, reference: Reference) -> None:
    ground.check(spec, reference)
    assert all(process.alive for process in ground.processes)


def test_flushall_in_mid_job(own_ground: Ground, reference: Reference) -> None:
    spec = half_done(own_ground)
    own_ground.redis.flushall()
    unharmed(own_ground, spec, reference)


@pytest.mark.parametrize("emptied", [False, True])
def test_a_broker_killed_in_mid_job_and_restarted(
    own_ground: Ground, own_server: Server, reference: Reference, emptied: bool
) -> None:
    spec = half_done(own_ground)
    own_server.kill()
    if emptied:
        own_server.empty()
    own_server.start()
    unharmed(own_ground, spec, reference)


@pytest.mark.parametrize("seconds", [4, pytest.param(20, marks=pytest.mark.soak)])
def test_a_broker_frozen_for_seconds_in_mid_job(
    own_ground: Ground, own_server: Server, reference: Reference, seconds: int
) -> None:
    spec = half_done(own_ground)
    own_server.freeze()
    frozen_at = time.monotonic()
    # longer than a lease lives and than any call to Redis waits
    until(lambda: time.monotonic() - frozen_at > seconds, timeout_s=60)
    own_server.thaw()
    unharmed(own_ground, spec, reference)


def test_a_broker_that_refuses_to_write_in_mid_job(own_ground: Ground, reference: Reference) -> None:
    """As with a full disk or memory of its own: each write is answered with an error, and no connection is lost."""
    spec = half_done(own_ground)
    own_ground.redis.config_set("min-replicas-to-write", 1)
    until(lambda: own_ground.redis.info("errorstats").get("errorstat_NOREPLICAS", {}).get("count", 0) >= 20)
    own_ground.redis.config_set("min-replicas-to-write", 0)
    unharmed(own_ground, spec, reference)
