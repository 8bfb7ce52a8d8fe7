"""The fleet simulator: queues with known answers, the broker's fair queue, the clocks of KEDA and the autoscaler."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from redis import Redis

from service.broker.fair_queue import Flow, TenantQueues
from service.broker.queues import CHUNK_QUEUES
from workers.tools.fleet.autoscaler import SYNC_S, Autoscaler, ScalingClocks
from workers.tools.fleet.queue_model import TenantQueuesModel
from workers.tools.fleet.report import by_backlog, by_queue_length, report
from workers.tools.fleet.simulation import FleetOptions, FleetSimulation
from workers.tools.fleet.workload import SimJob, Workload

JOBS = 150_000
ONE_AT_A_TIME = FleetOptions(slots=1, kills_per_hour=0.0)


def arrivals(rate: float, service: Callable[[random.Random], float], seed: int) -> Iterator[SimJob]:
    """Jobs of one chunk each, by a Poisson process of ``rate`` a second."""
    draw, at = random.Random(seed), 0.0
    for number in range(JOBS):
        at += draw.expovariate(rate)
        yield SimJob(f"job-{number}", "tenant", "normal", at, [service(draw)])


def two_sizes(draw: random.Random) -> float:
    """One in ten takes 5.5 s, the others half a second: 1 s in the mean, 3.25 s^2 in the mean of squares."""
    return 5.5 if draw.random() < 0.1 else 0.5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("service", "mean_square", "rate"),
    [
        (lambda draw: draw.expovariate(1.0), 2.0, 0.5),  # M/M/1
        (lambda draw: 1.0, 1.0, 0.7),  # M/D/1
        (two_sizes, 3.25, 0.5),  # M/G/1
    ],
)
def test_one_worker_is_a_queue_whose_mean_wait_pollaczek_and_khinchine_knew(
    service: Callable[[random.Random], float], mean_square: float, rate: float
) -> None:
    found = report(FleetSimulation(arrivals(rate, service, seed=3), ONE_AT_A_TIME).run())
    assert found.jobs == JOBS
    assert found.wait_mean_s == pytest.approx(rate * mean_square / (2 * (1 - rate)), rel=0.05)
    assert found.useful_share == pytest.approx(rate, rel=0.02)


@pytest.mark.slow
def test_three_workers_wait_as_erlang_says() -> None:
    rate, servers = 2.1, 3
    terms = [rate**number / (1, 1, 2, 6)[number] for number in range(servers + 1)]
    last = terms[servers] / (1 - rate / servers)
    wait_s = last / (sum(terms[:servers]) + last) / (servers - rate)
    jobs = arrivals(rate, lambda draw: draw.expovariate(1.0), seed=5)
    found = report(FleetSimulation(jobs, ONE_AT_A_TIME, replicas=servers).run())
    assert found.wait_mean_s == pytest.approx(wait_s, rel=0.05)


@pytest.mark.parametrize("seed", range(5))
def test_turns_are_those_of_the_broker(redis: Redis, seed: int) -> None:
    draw = random.Random(seed)
    real, model = TenantQueues(redis, CHUNK_QUEUES), TenantQueuesModel[str](CHUNK_QUEUES.queues)
    holds: list[Counter[Flow]] = [Counter(), Counter()]
    for step in range(300):
        if draw.random() < 0.5:
            flow, name = Flow(f"t{draw.randrange(4)}", draw.choice(CHUNK_QUEUES.queues)), f"w{step}"
            real.add(flow, {name: "message"})
            model.add(flow, name)
        elif draw.random() < 0.3:
            held = draw.choice(holds)
            for flow in list(held)[:1]:
                held[flow] -= 1
                held += Counter()
        else:
            held = draw.choice(holds)
            taken, same = real.take(held, 8), model.take(held)
            assert (None if taken is None else (taken.flow, taken.name)) == same
            if same is not None:
                held[same[0]] += 1
    redis.flushall()


def test_keda_starts_the_first_replica_and_takes_the_last_one_away_after_the_cooldown() -> None:
    scaler = Autoscaler(ScalingClocks(cooldown_s=300))
    assert scaler.sync(0, 5) == 0, "the autoscaler does not start from nothing"
    assert scaler.poll(15, 5) == 1
    assert scaler.poll(30, 0) == 1
    assert scaler.poll(300, 0) == 1
    assert scaler.poll(316, 0) == 0
    assert Autoscaler(ScalingClocks(min_replicas=2), replicas=2).poll(9999, 0) == 2


def test_the_autoscaler_doubles_at_once_and_halves_after_ten_minutes_of_less() -> None:
    scaler = Autoscaler(ScalingClocks(max_replicas=100, down_after_s=600, down_percent=50), replicas=1)
    up = [scaler.sync(number * SYNC_S, 40) for number in range(5)]
    assert up == [5, 10, 20, 40, 40]
    assert scaler.sync(75, 37) == 40, "within a tenth nothing changes"
    down = {at: scaler.sync(at, 4) for at in range(90, 1800, 15)}
    assert down[660] == 40
    assert list(dict.fromkeys(down.values())) == [40, 20, 10, 5, 4]
    lowered = [at for at in down if at > 90 and down[at] < down[at - 15]]
    assert all(later - earlier >= 300 for earlier, later in pairwise(lowered))


def fleet(metric: str, *, kills_per_hour: float = 0.05) -> FleetSimulation:
    load = Workload(jobs_per_hour=30, twin_s=0.8, hours=6)
    rule = by_backlog(600) if metric == "backlog" else by_queue_length()
    scaler = Autoscaler(ScalingClocks(max_replicas=50))
    options = FleetOptions(kills_per_hour=kills_per_hour)
    return FleetSimulation(load.jobs(random.Random(1)), options, scaler=scaler, metric=rule, seed=1).run()


def test_no_job_is_lost_under_kills_and_drains_and_the_fleet_ends_empty() -> None:
    killed = fleet("backlog", kills_per_hour=3.0)
    assert killed.kills > 20
    assert all(job.ended is not None for job in killed.jobs)
    assert all(job.recorded == len(job.chunk_s) for job in killed.jobs)
    work_s = sum(sum(job.chunk_s) for job in killed.jobs)
    assert killed.useful_s == pytest.approx(work_s)
    assert killed.worker_s > killed.useful_s + killed.lost_s
    assert killed.workers == {}


def test_scaling_on_work_ends_large_jobs_sooner_than_scaling_on_messages() -> None:
    # a job of thousands of twins has four messages
    ours, usual = report(fleet("backlog")), report(fleet("queue length"))
    assert ours.jobs == usual.jobs > 150
    assert ours.done_p95_s < usual.done_p95_s / 2
    assert ours.lost_hours <= usual.lost_hours


@pytest.mark.slow
def test_the_command_prints_both_rules_and_the_same_again_for_the_same_seed() -> None:
    command = [sys.executable, "-m", "workers.tools.fleet", "--hours", "4", "--seed", "7"]
    first, second = (
        subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout for _ in range(2)
    )
    assert first == second
    assert re.search(r"backlog, 600 s +\d+ s", first)
    assert re.search(r"queue length, 5 each +\d+ s", first)
