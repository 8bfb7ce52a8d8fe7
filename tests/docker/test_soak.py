"""Soak of the composition: minutes of random kills under load. Nothing is lost or doubled.

``SOAK_MINUTES`` (10) and ``SOAK_SEED`` (0) say how long, and which faults in which order.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable

import pytest

from service.client import Job, Twinset
from service.jobs.repository import JobRepository
from service.store.base import ObjectStore
from tests.docker.engine import Composition, run
from tests.faults.checker import Findings, check_job, reference_of
from tests.waiting import until

MINUTES = float(os.environ.get("SOAK_MINUTES", "10"))
SEED = int(os.environ.get("SOAK_SEED", "0"))
COUNT, OPEN_JOBS = 40, 3
REQUEST = {"model": "pathdiff-nuclei", "prompt": "Many nuclei.", "count": COUNT, "steps": 10, "seed": 5}


def kill_and_start(running: Composition, service: str) -> None:
    running.kill(service)
    running.start(service)


def stop_and_start(running: Composition, service: str) -> None:
    exit_code, _ = running.stop(service)
    assert exit_code == 0, service
    running.start(service)


def empty_broker(running: Composition, _: str) -> None:
    running.kill("valkey")
    running("rm", "--force", "valkey")
    run("docker", "volume", "rm", f"{running.project}_valkey")
    running.start("valkey")


def pause(running: Composition, service: str) -> None:
    run("docker", "pause", running.container(service))
    time.sleep(6)  # longer than a lease
    run("docker", "unpause", running.container(service))


FAULTS: dict[str, tuple[Callable[[Composition, str], None], str, int]] = {
    "worker killed": (kill_and_start, "worker", 6),
    "worker stopped": (stop_and_start, "worker", 3),
    "worker frozen": (pause, "worker", 2),
    "API killed": (kill_and_start, "api", 2),
    "API stopped": (stop_and_start, "api", 1),
    "broker killed": (kill_and_start, "valkey", 2),
    "broker killed and emptied": (empty_broker, "valkey", 2),
    "store stopped": (stop_and_start, "store", 1),
    "bulk worker killed": (kill_and_start, "bulk", 1),
}


@pytest.mark.soak
def test_minutes_of_random_kills_lose_and_double_nothing(
    running: Composition, client: Twinset, store: ObjectStore
) -> None:
    chance = random.Random(SEED)
    repository = JobRepository(store)
    reference = reference_of(store, repository.read_spec(client.generate(**REQUEST).wait().id))
    jobs: list[Job] = []
    done: Counter[str] = Counter()
    until_s = time.monotonic() + 60 * MINUTES
    while time.monotonic() < until_s:
        if sum(not job.refresh().info.state.ended for job in jobs[-2 * OPEN_JOBS :]) < OPEN_JOBS:
            jobs.append(client.generate(**REQUEST))
            continue
        name = chance.choices(list(FAULTS), [weight for _, _, weight in FAULTS.values()])[0]
        fault, service, _ = FAULTS[name]
        fault(running, service)
        done[name] += 1
        time.sleep(chance.uniform(2, 12))
    findings = Findings()
    for job in jobs:
        until(lambda job=job: job.refresh().info.state.ended, timeout_s=600)
        check_job(store, repository.read_spec(job.id), reference, findings)
    print(f"\n{len(jobs)} jobs, {findings.samples} twins, {sum(done.values())} faults: {dict(done)}")
    print(f"lost {len(findings.lost)}, doubled {len(findings.duplicated)}, damaged {len(findings.damaged)}")
    assert findings.clean, findings
